//! The table alone: lookup and touch, beside `rte_hash`; deletions and insertions; the memory's
//! limit.
//!
//! A lookup is what the pipeline does for a packet of a known conn: hash the tuple, prefetch the
//! bucket, take the candidate, prefetch its record, verify there that it is the packet's conn and
//! alive, move the deadline; one that is not at home, or not first, is searched for. The
//! stages go over a batch at a time, so that cache misses overlap. Conns are picked at random, from
//! the same stream on both sides; working out the next one is part of both figures.
//!
//! Our table is made for just so many conns, as the product makes it: one entry each, since nothing
//! is translated. All sides take turns within each round, on the same CPU.

use std::sync::Arc;
use std::time::Duration;

use dataplane::conntrack::record::{Conn, ConnRef, Family, Wanted};
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::{HashSeed, KeyV4, proto};
use dataplane::time::Tick;

use super::chains::Circle;
use super::clock::{Moment, Passed, clean_windows, pin};
use super::gateway::{broken, work};
use super::peer::{self, Peer};
use super::picks::{Picks, Spread};
use super::{Options, count_name, print};
use crate::goals::Topic;
use crate::machine::Hugepages;
use crate::process::{Failure, WORKER_CPU};
use crate::row::{self, Reach, Row};

const SIZES: [u32; 6] = [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 10_000_000];
const QUICK_SIZES: usize = 4;
/// Lookups between two readings of the clock.
const STRIDE: u32 = 1 << 15;
/// The two lines that no lookup can do without.
const LINES: f64 = 2.0;
/// Conns of a churn table, half of which are there at any time.
const CHURNED: u32 = 1 << 20;
const NOW: Tick = Tick(1000);
/// Conns live for a day here.
const LIFE_SECS: u32 = 86_400;
const SEED: HashSeed = HashSeed([
    0x8c5f_b2f4_9d3e_1a67,
    0x2d35_8dcc_aa6c_78a5,
    0x4b33_a62e_d433_d4a3,
    0x9d39_247e_3377_6d41,
    0x7f4a_7c15_9e37_79b9,
]);

/// The tuple of a conn: as little work as gives each its own, so that working it out is a small
/// part of what is measured.
#[inline]
pub(super) fn key_of(number: u32) -> KeyV4 {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    KeyV4 {
        addresses: u64::from(0x0a00_0000 | number) << 32 | u64::from(0xc612_0000 | (mixed >> 15)),
        ids: mixed | 0x0400_0400,
        proto: proto::UDP,
    }
}

/// What one packet of a batch looks up.
#[derive(Clone, Copy, Default)]
struct Sought {
    key: KeyV4,
    hash: u64,
    home: u32,
}

/// Our side.
struct Ours {
    shared: Arc<Shared>,
    store: Store,
}

impl Ours {
    fn new(conns: u32) -> Result<Ours, Failure> {
        let sizes = Sizes { max: conns, lcores: 1, extensions: 0 };
        let shared = Shared::new(sizes, SEED).map_err(|e| broken("table")(&e))?;
        shared.ensure_conns(Family::V4, conns).map_err(|e| broken("table")(&e))?;
        let shared = Arc::new(shared);
        Ok(Ours { store: Store::new(Arc::clone(&shared), 0), shared })
    }

    #[inline]
    fn insert(&mut self, number: u32) -> Option<ConnRef> {
        let tuple = key_of(number).tuple();
        let conn = self.store.allocate(&tuple, &tuple.inverted()?, [0, 0]).ok()?;
        self.store.confirm(conn, NOW.plus_secs(LIFE_SECS), NOW).ok()?;
        Some(conn)
    }

    /// As [`Peer::look_up`].
    fn look_up<const N: usize>(
        &self,
        picks: &mut Picks,
        from: u32,
        batches: u32,
        tick: u32,
    ) -> u64 {
        let Shared { index, records, seed, .. } = &*self.shared;
        let mut found = 0;
        let secrets = seed.keys(proto::UDP, 0);
        // No path was ever found for these conns, which are the first lcore's.
        let wanted = Wanted::new(0, 0, 0, NOW);
        for batch in 0..batches {
            let mut all = [Sought::default(); N];
            for sought in &mut all {
                sought.key = key_of(from.wrapping_add(picks.next()));
                sought.hash = sought.key.hash(&secrets);
                sought.home = index.prefetch(sought.hash);
            }
            let mut candidates: [Option<Conn<'_>>; N] = [None; N];
            for (candidate, Sought { hash, home, .. }) in candidates.iter_mut().zip(&all) {
                if let Some(number) = index.candidate(*home, *hash) {
                    *candidate = records.prefetch(number, false, false);
                }
            }
            let deadline = Tick(tick.wrapping_add(batch));
            for (&candidate, sought) in candidates.iter().zip(&all) {
                let key = &sought.key;
                let glance = |conn: Conn<'_>| conn.glance(conn.nearer(key), key.proto, &wanted);
                let there = match candidate.and_then(|conn| Some((conn, glance(conn)?))) {
                    Some((conn, seen)) => {
                        conn.put_off(&seen, deadline);
                        true
                    }
                    None => self.search(candidate, sought, deadline),
                };
                found += u64::from(there);
            }
        }
        found
    }

    /// What remains to be done for one that is not at home, or not first.
    #[cold]
    #[inline(never)]
    fn search(&self, candidate: Option<Conn<'_>>, sought: &Sought, deadline: Tick) -> bool {
        let Sought { key, hash, .. } = sought;
        let matches = |conn: Conn<'_>| conn.matches_v4(key, 0);
        let found = self.shared.find_live(candidate, 0, NOW, matches, || (*hash, key.tuple()));
        found.inspect(|(conn, _)| conn.set_deadline(deadline)).is_some()
    }
}

/// One side's windows of a row.
#[derive(Default)]
struct Side {
    windows: Vec<Passed>,
    ns: Vec<f64>,
}

impl Side {
    /// Measures for `length`: `look_up` does a stride, all of which must be found.
    fn measure(
        &mut self,
        length: Duration,
        mut look_up: impl FnMut(u32) -> u64,
    ) -> Result<(), Failure> {
        // The caches as a stride leaves them, not as the other side has.
        look_up(0);
        let (start, mut done, mut found) = (Moment::now(), 0, 0);
        while start.passed().wall < length {
            found += look_up(done as u32);
            done += u64::from(STRIDE);
        }
        let passed = start.passed();
        self.ns.push(passed.ns_each(done));
        self.windows.push(passed);
        if found != done {
            return Err(work(&format!("{found} of {done} lookups found their conn")));
        }
        Ok(())
    }
}

/// Both sides and how they are asked.
struct Contest<'a> {
    ours: &'a Ours,
    peer: &'a Peer,
    options: &'a Options,
    conns: u32,
    /// The first conn of those that are there.
    from: u32,
}

impl Contest<'_> {
    /// Batches of 32 and of 64 on our side, of 32 on the other.
    fn measure(&self, spread: Spread) -> Result<[Side; 3], Failure> {
        let mut sides: [Side; 3] = Default::default();
        let (length, from) = (self.options.length(), self.from);
        for pair in 0..self.options.pairs() {
            let picks = spread.picks(self.conns, self.options.seed + pair as u64);
            let mut order = [0, 1, 2];
            if pair % 2 == 1 {
                order.reverse();
            }
            for at in order {
                // All sides get the same conns.
                let (mut picks, tick) = (picks.clone(), NOW.plus_secs(LIFE_SECS).0);
                let side = &mut sides[at];
                let tick_at = |done: u32| tick.wrapping_add(done);
                match at {
                    0 => side.measure(length, |done| {
                        self.ours.look_up::<32>(&mut picks, from, STRIDE / 32, tick_at(done))
                    }),
                    1 => side.measure(length, |done| {
                        self.ours.look_up::<64>(&mut picks, from, STRIDE / 64, tick_at(done))
                    }),
                    _ => side.measure(length, |done| {
                        let batches = STRIDE / peer::BULK as u32;
                        self.peer.look_up(&mut picks, from, batches, tick_at(done))
                    }),
                }?;
            }
        }
        Ok(sides)
    }

    /// The rows of one spread. `limit` is the memory's time for a line, where the table is larger
    /// than the caches.
    fn rows(&self, what: &str, spread: Spread, limit: Option<f64>) -> Result<Vec<Row>, Failure> {
        let [by_32, by_64, peer] = self.measure(spread)?;
        let mut rows = Vec::new();
        for (batch, side) in [(32, &by_32), (64, &by_64)] {
            let name = format!("table {what}, {}, batch {batch}", spread.name());
            let windows: Vec<Passed> = side.windows.iter().chain(&peer.windows).copied().collect();
            let mut remarks = vec![clean_windows(&windows)];
            let ours = row::Spread::of(side.ns.iter().copied());
            if let (Some(limit), Some(ours), Spread::Uniform) = (limit, ours, spread) {
                let share = 100.0 * LINES * limit / ours.median;
                remarks.push(format!("{share:.0} % of what memory gives for two lines"));
            }
            // How many times as fast: the other's time by ours.
            let ratio = row::Spread::of(side.ns.iter().zip(&peer.ns).map(|(a, b)| b / a));
            let figure = row::Spread::of(peer.ns.iter().copied());
            let (Some(ours), Some(figure), Some(ratio)) = (ours, figure, ratio) else { continue };
            let name_of_peer = "rte_hash bulk 32".to_owned();
            let peer = row::Peer { name: name_of_peer, figure, ratio, measured: true };
            let goal = match self.conns {
                _ if batch != 32 => None,
                size if size == 256 << 10 => Some(Reach::RatioAtLeast(1.7).of(Topic::Table)),
                size if size <= 1 << 20 => Some(Reach::RatioAtLeast(2.0).of(Topic::Table)),
                _ => None,
            };
            remarks.push("the ratio says how many times as fast".to_owned());
            remarks.retain(|remark| !remark.is_empty());
            let remark = remarks.join("; ");
            rows.push(Row::new(name, "ns", ours).beside(peer).judged(goal).noting(remark));
        }
        Ok(rows)
    }
}

/// Random lines of much memory: rows, and the least time for a line.
fn memory_limit(options: &Options) -> Result<(Vec<Row>, f64), Failure> {
    let (lines, steps) = if options.quick { (4 << 20, 1 << 16) } else { (16 << 20, 1 << 20) };
    let circle = Circle::new(lines, options.seed)?;
    let mut figures: [(usize, Vec<f64>); 5] = [1, 4, 8, 16, 32].map(|chains| (chains, Vec::new()));
    for _ in 0..options.pairs() {
        for (chains, ns) in &mut figures {
            ns.push(match chains {
                1 => circle.walk::<1>(steps),
                4 => circle.walk::<4>(steps),
                8 => circle.walk::<8>(steps),
                16 => circle.walk::<16>(steps),
                _ => circle.walk::<32>(steps),
            });
        }
    }
    let mib = (u64::from(lines) * 64) >> 20;
    let mut rows = Vec::new();
    for (chains, ns) in figures {
        let Some(ours) = row::Spread::of(ns.into_iter()) else { continue };
        let name = format!("memory: random lines of {mib} MiB, {chains} chains");
        rows.push(Row::new(name, "ns", ours).noting("the machine's limit, none of ours"));
    }
    let least = rows.iter().map(|row: &Row| row.ours.median).fold(f64::INFINITY, f64::min);
    Ok((rows, least))
}

/// Lookups at one size.
fn lookups(options: &Options, conns: u32, limit: f64) -> Result<Vec<Row>, Failure> {
    let mut ours = Ours::new(conns)?;
    let mut peer = Peer::new(&format!("table{conns}"), conns)?;
    for number in 0..conns {
        if ours.insert(number).is_none() || !peer.insert(number, number) {
            return Err(work(&format!("conn {number} of {conns} found no room")));
        }
    }
    let contest = Contest { ours: &ours, peer: &peer, options, conns, from: 0 };
    let what = format!("lookup and touch, {} conns", count_name(conns));
    let limit = (conns >= 1 << 20).then_some(limit);
    let rows = Spread::ALL.map(|spread| contest.rows(&what, spread, limit));
    Ok(rows.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

/// The oldest conns go and new ones come, half a table all the time; then lookups again.
fn churn(options: &Options) -> Result<Vec<Row>, Failure> {
    let (mut ours, half) = (Ours::new(CHURNED)?, CHURNED / 2);
    let mut peer = Peer::new("churn", CHURNED)?;
    let full = || work("a table half full has no room");
    let mut numbers = Vec::new();
    for number in 0..half {
        numbers.push(ours.insert(number).ok_or_else(full)?);
        peer.insert(number, number).then_some(()).ok_or_else(full)?;
    }
    let (mut sides, mut from): ([Side; 2], u32) = Default::default();
    let steps = if options.quick { half / 8 } else { half };
    for _ in 0..options.pairs() {
        let to = from + steps;
        let start = Moment::now();
        for number in from..to {
            let place = &mut numbers[(number % half) as usize];
            ours.store.delete(*place);
            *place = ours.insert(number + half).ok_or_else(full)?;
        }
        let own = start.passed();
        let start = Moment::now();
        for number in from..to {
            peer.delete(number);
            peer.insert(number + half, number % half).then_some(()).ok_or_else(full)?;
        }
        for (side, passed) in sides.iter_mut().zip([own, start.passed()]) {
            side.ns.push(passed.ns_each(steps.into()));
            side.windows.push(passed);
        }
        from = to;
    }
    let [own, other] = sides;
    let windows: Vec<Passed> = own.windows.into_iter().chain(other.windows).collect();
    let ratio = row::Spread::of(own.ns.iter().zip(&other.ns).map(|(a, b)| b / a));
    let figure = row::Spread::of(other.ns.into_iter());
    let mut rows = Vec::new();
    if let (Some(ours), Some(figure), Some(ratio)) =
        (row::Spread::of(own.ns.into_iter()), figure, ratio)
    {
        let peer = row::Peer { name: "rte_hash".to_owned(), figure, ratio, measured: true };
        let name = format!("table: a deletion and an insertion, {} conns there", count_name(half));
        let row = Row::new(name, "ns", ours).beside(peer);
        let row = row.noting("one at a time; ours checks both tuples");
        rows.push(row.noting(clean_windows(&windows)));
    }
    let contest = Contest { ours: &ours, peer: &peer, options, conns: half, from };
    let what = format!("lookup and touch after that, {} conns", count_name(half));
    rows.extend(contest.rows(&what, Spread::Uniform, None)?);
    Ok(rows)
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let _pages = Hugepages::reserve()?;
    std::thread::scope(|threads| {
        // EAL pins the thread that starts it.
        let measured = threads.spawn(|| {
            let _eal = peer::start()?;
            pin(WORKER_CPU)?;
            let (mut rows, limit) = memory_limit(options)?;
            let sizes = if options.quick { &SIZES[..QUICK_SIZES] } else { &SIZES[..] };
            for &conns in sizes {
                rows.extend(lookups(options, conns, limit)?);
            }
            rows.extend(churn(options)?);
            Ok(rows)
        });
        measured.join().unwrap_or_else(|_| Err(work("the table's benchmark panicked")))
    })
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_side_finds_what_is_there_and_nothing_else() {
        let mut ours = Ours::new(10_000).unwrap();
        for number in 0..5000 {
            assert!(ours.insert(number).is_some());
        }
        let look_up = |bound, from| {
            let mut picks = Picks::uniform(bound, 1);
            let tick = NOW.plus_secs(LIFE_SECS).0;
            ours.look_up::<32>(&mut picks, from, 100, tick)
        };
        assert_eq!(look_up(5000, 0), 3200);
        assert_eq!(look_up(5000, 5000), 0);
        assert!((1400..1800).contains(&look_up(10_000, 0)));
        let moved =
            ours.shared.find(ours.shared.hash(&key_of(1).tuple(), 0), &key_of(1).tuple(), 0, NOW);
        assert!(moved.is_some_and(|found| !found.expired));
    }
}
