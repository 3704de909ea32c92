//! Each rule of putting together by itself, and all of them against a slow oracle.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

const NOW: Tick = Tick(u32::MAX - 500);
const LIMITS: Limits = Limits { high_thresh: 4 << 20, timeout_secs: 30, max_dist: 64 };

fn key(v6: bool, id: u32) -> Key {
    let address = |text: &str| text.parse::<IpAddr>().unwrap().into();
    let (src, dst) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("10.0.0.1", "10.0.0.2") };
    Key { src: address(src), dst: address(dst), id, proto: 17, user: 0 }
}

fn part(v6: bool, offset: u32, len: u32, more: bool) -> Part {
    Part {
        offset,
        len,
        more,
        header: if v6 { 48 } else { 20 },
        dont_fragment: false,
        ecn: 0,
        at: 34,
        port: 0,
        cost: COST_OF_BUFFER,
    }
}

/// What became of one fragment: those that ended with it, and the datagram it completed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    gone: Vec<(u32, Refusal)>,
    whole: Option<Vec<u32>>,
}

/// A reassembly of numbered frames.
struct Bench {
    reassembly: Reassembly<u32>,
    now: Tick,
    limits: Limits,
    frames: u32,
}

impl Bench {
    fn new() -> Bench {
        Bench { reassembly: Reassembly::new(7), now: NOW, limits: LIMITS, frames: 0 }
    }

    fn take(&mut self, key: &Key, part: &Part) -> (Outcome, Option<Whole<u32>>) {
        let (mut outcome, frame) = (Outcome::default(), self.frames);
        self.frames += 1;
        let gone = &mut |frame, refusal| outcome.gone.push((frame, refusal));
        let hash = u64::from(key.id) << 40;
        let whole = self.reassembly.add((key, hash), part, frame, &self.limits, self.now, gone);
        outcome.gone.sort_unstable_by_key(|(frame, _)| *frame);
        outcome.whole = whole.as_ref().map(|w| w.parts.iter().map(|held| held.frame).collect());
        (outcome, whole)
    }

    fn add(&mut self, id: u32, offset: u32, len: u32, more: bool) -> Outcome {
        self.take(&key(false, id), &part(false, offset, len, more)).0
    }

    fn is_empty(&self) -> bool {
        let costs = self.reassembly.cost(false) + self.reassembly.cost(true);
        (self.reassembly.held(), self.reassembly.datagrams(), costs) == (0, 0, 0)
    }
}

/// The same, slowly: runs of bytes in a list, looked through whole.
#[derive(Default)]
struct Oracle {
    /// Begin, end, and the frames with their begins.
    runs: Vec<(u32, u32)>,
    frames: Vec<(u32, u32)>,
    len: u32,
    ended: bool,
}

impl Oracle {
    fn refuse(&mut self, frame: u32, refusal: Refusal, all: bool) -> Outcome {
        let mut gone = vec![(frame, refusal)];
        if all {
            gone.extend(self.frames.iter().map(|(_, frame)| (*frame, refusal)));
            *self = Oracle::default();
        }
        gone.sort_unstable_by_key(|(frame, _)| *frame);
        Outcome { gone, whole: None }
    }

    fn add(&mut self, v6: bool, frame: u32, offset: u32, len: u32, more: bool) -> Outcome {
        let mut end = offset + len;
        if v6 && end > 65535 {
            return self.refuse(frame, Refusal::Invalid, false);
        }
        if more && v6 && !end.is_multiple_of(8) {
            return self.refuse(frame, Refusal::Invalid, true);
        }
        if more {
            end = end / 8 * 8;
        }
        let contradicts = if more {
            self.ended && end > self.len
        } else {
            end < self.len || (self.ended && end != self.len)
        };
        if contradicts {
            return self.refuse(frame, Refusal::Invalid, !v6);
        }
        self.ended |= !more;
        self.len = self.len.max(end);
        if end <= offset {
            return self.refuse(frame, Refusal::Invalid, !v6);
        }
        let meets: Vec<_> = self.runs.iter().filter(|r| r.0 < end && offset < r.1).collect();
        if let Some(run) = meets.first() {
            return match meets.len() == 1 && run.0 <= offset && end <= run.1 {
                true => self.refuse(frame, Refusal::Duplicate, false),
                false => self.refuse(frame, Refusal::Overlap, true),
            };
        }
        self.frames.push((offset, frame));
        match self.runs.iter_mut().max_by_key(|r| r.1).filter(|r| r.1 == offset) {
            Some(last) => last.1 = end,
            None => self.runs.push((offset, end)),
        }
        let there: u32 = self.runs.iter().map(|r| r.1 - r.0).sum();
        if !(self.ended && there == self.len) {
            return Outcome::default();
        }
        self.frames.sort_unstable();
        let whole = self.frames.iter().map(|(_, frame)| *frame).collect();
        *self = Oracle::default();
        Outcome { gone: Vec::new(), whole: Some(whole) }
    }
}

fn some_part() -> impl Strategy<Value = (u32, u32, bool)> {
    let len = prop_oneof![4 => (1u32..4).prop_map(|n| n * 8), 1 => 0u32..30];
    (0u32..9, len, prop::bool::weighted(0.8)).prop_map(|(at, len, more)| (at * 8, len, more))
}

proptest! {
    /// Any order, any overlap, any contradiction.
    #[test]
    fn does_as_the_oracle(v6: bool, parts in prop::collection::vec(some_part(), 1..60)) {
        let (mut bench, mut oracle) = (Bench::new(), Oracle::default());
        for (n, (offset, len, more)) in parts.into_iter().enumerate() {
            let theirs = oracle.add(v6, n as u32, offset, len, more);
            let (ours, _) = bench.take(&key(v6, 1), &part(v6, offset, len, more));
            prop_assert_eq!(ours, theirs, "fragment {} at {} of {}", n, offset, len);
            prop_assert_eq!(bench.reassembly.held(), oracle.frames.len());
        }
        bench.reassembly.clear(&mut |_| {});
        prop_assert_eq!(bench.reassembly.held(), 0);
    }

    /// Each datagram becomes whole exactly with its last fragment, in whatever order all come.
    #[test]
    fn datagrams_in_any_order(
        count in 1u32..40,
        pieces in 1u32..12,
        order in prop::collection::vec(any::<u32>(), 480),
    ) {
        let mut bench = Bench { limits: Limits { max_dist: 0, ..LIMITS }, ..Bench::new() };
        let all = (0..count).flat_map(|id| (0..pieces).map(move |n| (id, n)));
        let mut all: Vec<(u32, u32)> = all.collect();
        let mut lots = order.iter();
        all.sort_by_cached_key(|_| lots.next().copied());
        let mut missing = vec![pieces; count as usize];
        for (id, n) in all {
            missing[id as usize] -= 1;
            let more = n + 1 < pieces;
            let (outcome, whole) = bench.take(&key(false, id), &part(false, n * 16, 16, more));
            prop_assert!(outcome.gone.is_empty());
            let whole = whole.map(|w| (w.len, w.parts.len() as u32, w.size));
            let wanted = (missing[id as usize] == 0).then_some((pieces * 16, pieces, 36));
            prop_assert_eq!(whole, wanted);
        }
        prop_assert!(bench.is_empty());
    }
}

#[test]
fn what_is_held_stays_within_its_bounds() {
    let mut bench = Bench::new();
    bench.limits.high_thresh = 10 * u64::from(COST_OF_BUFFER);
    bench.limits.max_dist = 0;
    for id in 0..11 {
        assert_eq!(bench.add(id, 0, 8, true), Outcome::default());
    }
    let full = |outcome: Outcome| outcome.gone.len() == 1 && outcome.gone[0].1 == Refusal::Full;
    assert!(full(bench.add(99, 0, 8, true)), "no new datagram");
    assert!(full(bench.add(3, 8, 8, false)), "nor the rest of one");
    let (six, _) = bench.take(&key(true, 1), &part(true, 0, 8, true));
    assert_eq!(six, Outcome::default(), "IPv6 has a limit of its own");
    bench.limits.high_thresh = u64::MAX;
    for id in 100..100 + QUEUES_MAX as u32 {
        bench.add(id, 0, 8, true);
    }
    assert_eq!(bench.reassembly.datagrams(), QUEUES_MAX);
    assert!(full(bench.add(5000, 0, 8, true)));
    for n in 1..2 * PARTS_MAX as u32 {
        bench.add(100 + n / 200, n % 200 * 8, 8, true);
    }
    assert_eq!(bench.reassembly.held(), PARTS_MAX);
    let mut gone = 0;
    bench.reassembly.clear(&mut |_| gone += 1);
    assert_eq!((gone, bench.is_empty()), (PARTS_MAX, true));
    assert_eq!(bench.add(1, 0, 8, true), Outcome::default(), "it goes on");
    bench.limits.high_thresh = 0;
    assert!(full(bench.add(2, 0, 8, true)), "no threshold, no fragments");
}

#[test]
fn a_datagram_of_too_many_parts_goes() {
    let mut bench = Bench::new();
    bench.limits.max_dist = 0;
    for n in 0..PER_DATAGRAM_MAX as u32 {
        assert_eq!(bench.add(1, n * 8, 8, true), Outcome::default());
    }
    let outcome = bench.add(1, PER_DATAGRAM_MAX as u32 * 8, 8, false);
    assert_eq!(outcome.gone.len(), PER_DATAGRAM_MAX + 1);
    assert!(bench.is_empty());
}

#[test]
fn time_runs_out_in_the_order_of_the_beginnings() {
    let mut bench = Bench::new();
    let expired = |bench: &mut Bench| {
        let now = bench.now;
        let stale = bench.reassembly.expired(now, |key| u64::from(key.id) << 40);
        stale.map(|s| (s.key.id, s.has_first, s.parts.len()))
    };
    bench.add(1, 8, 8, true);
    bench.now = NOW.plus_secs(10);
    bench.add(2, 0, 8, true);
    bench.add(1, 16, 8, true);
    bench.now = Tick(NOW.plus_secs(30).0.wrapping_sub(1));
    assert!(!bench.reassembly.is_due(bench.now));
    bench.now = NOW.plus_secs(30);
    assert!(bench.reassembly.is_due(bench.now));
    assert_eq!(expired(&mut bench), Some((1, false, 2)), "later ones give no more time");
    assert_eq!(expired(&mut bench), None);
    assert!(!bench.reassembly.is_due(bench.now));
    bench.now = NOW.plus_secs(40);
    assert_eq!(expired(&mut bench), Some((2, true, 1)));
    assert_eq!(expired(&mut bench), None);
    assert!(bench.is_empty() && !bench.reassembly.is_due(NOW.plus_secs(1000)));
}

#[test]
fn a_source_that_is_too_far_ahead_begins_anew() {
    let mut bench = Bench::new();
    bench.limits.max_dist = 2;
    bench.add(1, 0, 8, true);
    bench.add(2, 0, 8, true);
    assert_eq!(bench.add(1, 8, 8, false).whole, Some(vec![0, 2]), "two on");
    bench.add(1, 0, 8, true);
    bench.add(2, 8, 8, true);
    bench.add(3, 0, 8, true);
    bench.now = NOW.plus_secs(20);
    assert_eq!(bench.add(1, 8, 8, false).gone, [(3, Refusal::Distance)], "three on");
    bench.now = NOW.plus_secs(45);
    assert_eq!(bench.add(1, 0, 8, true).whole, Some(vec![7, 6]), "with all its time again");
}

#[test]
fn the_largest_part_and_its_df_are_told() {
    let tell = |dfs: [bool; 2]| {
        let mut bench = Bench::new();
        let of =
            |offset, len, more, df| Part { dont_fragment: df, ..part(false, offset, len, more) };
        bench.take(&key(false, 1), &of(0, 80, true, dfs[0]));
        let whole = bench.take(&key(false, 1), &of(80, 40, false, dfs[1])).1.unwrap();
        assert_eq!((whole.size, whole.len), (100, 120));
        whole.dont_fragment
    };
    assert!(tell([true, true]) && tell([true, false]));
    assert!(!tell([false, true]) && !tell([false, false]));
}

#[test]
fn no_datagram_is_longer_than_its_length_can_say() {
    for (v6, last, whole) in [(false, 15, true), (false, 16, false), (true, 35, true)] {
        let mut bench = Bench::new();
        let first = 65496;
        bench.take(&key(v6, 1), &part(v6, 0, first, true));
        let (outcome, got) = bench.take(&key(v6, 1), &part(v6, first, last + 4, false));
        assert_eq!(got.is_some(), whole, "{outcome:?}");
        assert!(bench.is_empty());
    }
    let mut bench = Bench::new();
    let outcome = bench.take(&key(true, 1), &part(true, 65528, 8, true)).0;
    assert_eq!(outcome.gone, [(0, Refusal::Invalid)]);
}

#[test]
fn congestion_marks_are_merged() {
    let merged = |marks: &[u8]| merged_ecn(marks.iter().fold(0, |seen, ecn| seen | 1 << ecn));
    assert_eq!(merged(&[0]), Some(0));
    assert_eq!([merged(&[1]), merged(&[2]), merged(&[3])], [Some(0); 3], "as the first says");
    assert_eq!(merged(&[1, 2]), Some(0));
    assert_eq!([merged(&[1, 3]), merged(&[2, 3]), merged(&[1, 2, 3])], [Some(3); 3]);
    for other in 1..4 {
        assert_eq!(merged(&[0, other]), None);
    }
}
