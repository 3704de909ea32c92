//! The judgement of nearly every segment: it only acknowledges or carries data, in ESTABLISHED.
//!
//! [`TcpTrack::packet`] is the whole of it; here is what it comes down to where flags and options
//! ask for no second look ([`Segment::plain`]) and the windows let the segment pass: no state
//! changes, nothing is reported, and the timeout is one of three. Bounds and learning are those of
//! `window`. Whatever is not so is refused before anything has been changed.
//!
//! It works on the record's words and writes those that change: what is taken apart and put
//! together again needs more registers than there are.

use super::segment::{Class, Segment};
use super::state::TcpState;
use super::track::{TcpTrack, high, pair};
use super::window::{Numbers, Side, before, side_flags};
use crate::conntrack::knobs::Knobs;
use crate::conntrack::record::Conn;
use crate::conntrack::state::Direction;
use crate::conntrack::timeouts::Timeout;
use crate::time::Tick;

/// What the knobs come down to, and the moments up to which conns in ESTABLISHED may live.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// More than any count if that would not shorten anything.
    max_retrans: u16,
    /// Whether it shortens anything that something is not acknowledged.
    heeds_unacknowledged: bool,
    be_liberal: bool,
    /// By whether something came back; then in general, with something not acknowledged, and where
    /// nobody seems to answer.
    until: [[Tick; 3]; 2],
}

impl Patience {
    /// For the segments of a moment.
    pub fn new(knobs: &Knobs, now: Tick) -> Patience {
        let timeouts = &knobs.timeouts;
        let full = timeouts.of_tcp(TcpState::Established);
        let unacknowledged = timeouts.get(Timeout::TcpUnacknowledged);
        let retrans = timeouts.get(Timeout::TcpMaxRetrans);
        let replied = [full, unacknowledged, retrans].map(|secs| secs.min(full));
        let unreplied = replied.map(|secs| secs.min(unacknowledged));
        Patience {
            max_retrans: if full > retrans { knobs.tcp_max_retrans as u16 } else { u16::MAX },
            heeds_unacknowledged: full > unacknowledged,
            be_liberal: knobs.tcp_be_liberal,
            until: [unreplied, replied].map(|all| all.map(|secs| now.plus_secs(secs))),
        }
    }

    #[inline(always)]
    fn until(&self, replied: bool, retrans: u8, unacknowledged: bool, window: bool) -> Tick {
        let which = if retrans as u16 >= self.max_retrans {
            2
        } else if unacknowledged && self.heeds_unacknowledged {
            1
        } else {
            2 * !window as usize
        };
        self.until[replied as usize][which]
    }
}

impl TcpTrack {
    /// Accepts a segment that is [plain](Segment::plain) of a conn in ESTABLISHED, `replied` if it
    /// is an ASSURED one, else of its original side before any reply: notes it in the record and
    /// says when the conn ends now. `None`, and nothing is noted, for a segment that the whole
    /// judgement is for. Owner only.
    #[inline(always)]
    pub fn established(
        conn: Conn<'_>,
        seg: &Segment<'_>,
        dir: Direction,
        replied: bool,
        patience: &Patience,
    ) -> Option<Tick> {
        /// Of the first word: retransmissions, class and direction, window.
        const LAST: u64 = 0xffff_000f_ff00;
        /// Of these, what a repeated segment has in common with the one before.
        const REPEATED: u64 = 0xffff_0008_0000;
        let (first, third) = (conn.tracker_word(0), conn.tracker_word(2));
        let sides = Sides::of(conn, dir, high(third));
        if first as u8 != TcpState::Established as u8 || sides.sender.maxwin == 0 {
            return None;
        }
        let Sides { sender, receiver, .. } = &sides;
        let n = Numbers::of(seg, sender, receiver, TcpState::Established, seg.ack);
        let class = (Class::Ack as u64 | (dir as u64) << 3) << 16;
        let (retrans, window, flags);
        if sender.is_inside(receiver, n) {
            flags = sides.learn(conn, dir, n, seg.window);
            window = (seg.window as u64) << 32;
            let numbers = pair(n.seq, n.ack);
            let differs = (first ^ (class | window)) & REPEATED
                | conn.tracker_word(1) ^ numbers
                | (third as u32 ^ n.end) as u64;
            retrans = if differs == 0 { ((first >> 8) as u8).wrapping_add(1) } else { 0 };
            conn.set_tracker_word(1, numbers);
            conn.set_tracker_word(2, pair(n.end, flags));
        } else {
            // One that oversteps may leave its end behind.
            let liberal = patience.be_liberal || sender.has(side_flags::BE_LIBERAL);
            if !liberal || before(sender.maxend, n.seq) {
                return None;
            }
            (retrans, window, flags) = ((first >> 8) as u8, first & 0xffff << 32, high(third));
        }
        conn.set_tracker_word(0, first & !LAST | (retrans as u64) << 8 | class | window);
        let both = flags >> FLAGS[0] | flags >> FLAGS[1];
        let unacknowledged = both & side_flags::UNACKNOWLEDGED as u32 != 0;
        Some(patience.until(replied, retrans, unacknowledged, window != 0))
    }
}

/// Where the flags of the sides stand beside their scales, as in the third word's upper half.
const FLAGS: [u32; 2] = [8, 24];

/// Both sides of a conn, by who sends.
struct Sides {
    sender: Side,
    receiver: Side,
    /// Scales and flags: the sender's in the lower half, the receiver's in the upper.
    flags: u32,
}

impl Sides {
    #[inline(always)]
    fn of(conn: Conn<'_>, dir: Direction, flags: u32) -> Sides {
        let flags = flags.rotate_right(16 * dir.index() as u32);
        let [scale, own, other_scale, other] = flags.to_le_bytes();
        let sender = Side::from_words(conn.tracker_side(dir), scale, own);
        let receiver = Side::from_words(conn.tracker_side(dir.opposite()), other_scale, other);
        Sides { sender, receiver, flags }
    }

    /// What [`Side::update`] learns from a segment inside the windows, written where it is news;
    /// the scales and flags afterwards, the original side's in the lower half.
    #[inline(always)]
    fn learn(&self, conn: Conn<'_>, dir: Direction, n: Numbers, window: u16) -> u32 {
        const MAXACK_SET: u32 = (side_flags::MAXACK_SET as u32) << FLAGS[0];
        const UNACKNOWLEDGED: u32 = side_flags::UNACKNOWLEDGED as u32;
        let (sender, receiver, mut flags) = (&self.sender, &self.receiver, self.flags);
        let window = (window as u32) << sender.scale;
        if before(sender.end, n.end) {
            conn.set_tracker_side(dir, 0, pair(n.end, sender.maxend));
            flags |= UNACKNOWLEDGED << FLAGS[0];
        }
        let acks = before(sender.maxack, n.ack) || flags & MAXACK_SET == 0;
        if acks || window > sender.maxwin {
            let maxack = if acks { n.ack } else { sender.maxack };
            conn.set_tracker_side(dir, 1, pair(sender.maxwin.max(window), maxack));
            flags |= MAXACK_SET;
        }
        if receiver.maxwin != 0 && before(sender.maxend, n.end) {
            let maxwin = receiver.maxwin.wrapping_add(n.end.wrapping_sub(sender.maxend));
            conn.set_tracker_side(dir.opposite(), 1, pair(maxwin, receiver.maxack));
        }
        let edge = n.ack.wrapping_add(window);
        if !before(edge, receiver.maxend) {
            let maxend = edge.wrapping_add((window == 0) as u32);
            conn.set_tracker_side(dir.opposite(), 0, pair(receiver.end, maxend));
        }
        if n.ack == receiver.end {
            flags &= !(UNACKNOWLEDGED << FLAGS[1]);
        }
        flags.rotate_left(16 * dir.index() as u32)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::conntrack::record::{ConnRef, Family, Records};
    use crate::conntrack::state::Status;
    use crate::conntrack::tcp::{Outcome, sanity};

    const NOW: Tick = Tick(u32::MAX - 700);

    /// One record.
    static RECORDS: LazyLock<Records> = LazyLock::new(|| {
        let records = Records::new(1);
        records.ensure_chunks(Family::V4, 1).unwrap();
        records
    });

    /// A little to either side.
    fn nearly(number: u32) -> impl Strategy<Value = u32> {
        (-3..=3i32).prop_map(move |off| number.wrapping_add_signed(off))
    }

    fn side(end: u32) -> impl Strategy<Value = Side> {
        let maxwin = select(vec![0, 1, 500, 65_999, 66_000, 66_001, 1 << 20, u32::MAX]);
        let flags = select(vec![0u8, 0x02, 0x08, 0x10, 0x20, 0x3a, 0x23, 0x33]);
        let maxend = prop_oneof![nearly(end), nearly(end.wrapping_add(70_000))];
        (nearly(end), maxend, maxwin, nearly(end ^ 1 << 31), 0..=14u8, flags).prop_map(
            |(end, maxend, maxwin, maxack, scale, flags)| Side {
                end,
                maxend,
                maxwin,
                maxack,
                scale,
                flags,
            },
        )
    }

    fn track() -> impl Strategy<Value = TcpTrack> {
        let states = prop_oneof![9 => Just(TcpState::Established), 1 => select(&TcpState::ALL[..])];
        let dir = select(vec![Direction::Original, Direction::Reply]);
        let ends: [u32; 2] = [0x2000_0000, 0xffff_fff0];
        let last = (0..6u8, select(&Class::ALL[..]), dir, 0..=14u8, select(vec![0u8, 0x40, 0xc0]));
        (states, last, [side(ends[0]), side(ends[1])]).prop_map(|(state, last, sides)| {
            let (retrans, last_class, last_dir, last_scale, last_flags) = last;
            let nothing = TcpTrack::from_words([0; 7]);
            let retrans = if retrans == 5 { u8::MAX } else { retrans };
            let last = TcpTrack { retrans, last_class, last_dir, last_scale, ..nothing };
            TcpTrack { state, last_flags, sides, ..last }
        })
    }

    /// Numbers of a segment near the bounds that a sender is held to.
    fn numbers(sender: Side, receiver: Side) -> impl Strategy<Value = (u32, u32, usize)> {
        let oldest = sender.end.wrapping_sub(receiver.maxwin);
        let seq = prop_oneof![
            nearly(sender.end),
            nearly(sender.maxend),
            nearly(oldest),
            nearly(oldest.wrapping_sub(100)),
        ];
        let lag = sender.maxwin.max(66_000);
        let ack = prop_oneof![
            3 => nearly(receiver.end),
            1 => nearly(receiver.end.wrapping_sub(lag)),
            1 => Just(sender.maxack),
        ];
        (seq, ack, select(vec![0, 0, 1, 4, 100, 1460]))
    }

    /// A TCP header, its options and as many bytes of data.
    fn segment(
        (seq, ack, data): (u32, u32, usize),
        window: u16,
        flags: u8,
        options: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        bytes[4..8].copy_from_slice(&seq.to_be_bytes());
        bytes[8..12].copy_from_slice(&ack.to_be_bytes());
        bytes[12..14].copy_from_slice(&[((20 + options.len()) as u8 / 4) << 4 | 3, flags]);
        bytes[14..16].copy_from_slice(&window.to_be_bytes());
        bytes.extend(options);
        bytes.resize(bytes.len() + data, 0x5a);
        bytes
    }

    /// Some that a segment may carry; the first two are plain.
    fn options() -> Vec<Vec<u8>> {
        let timestamp = [1, 1, 8, 10, 9, 9, 9, 9, 7, 7, 7, 7];
        let sack = [1, 1, 5, 10, 0x20, 0, 0, 1, 0x20, 0, 0, 9];
        let both = [&timestamp[..], &sack[..]].concat();
        vec![vec![], timestamp.to_vec(), both, sack.to_vec(), vec![1, 1, 1, 0]]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// The whole judgement is the oracle: what is accepted here, it accepts with the same words
        /// and timeout, and what is refused is not plain or one of the exceptions.
        #[test]
        fn what_is_accepted_is_what_the_whole_judgement_makes_of_it(
            (track, dir, numbers) in (track(), select(vec![Direction::Original, Direction::Reply]))
                .prop_flat_map(|(track, dir)| {
                    let [sender, receiver] =
                        [dir, dir.opposite()].map(|dir| track.sides[dir.index()]);
                    (Just(track), Just(dir), numbers(sender, receiver))
                }),
            window in select(vec![0u16, 1, 500, u16::MAX]),
            flags in prop_oneof![9 => select(vec![0x10u8, 0x18, 0xd8, 0x30]), 1 => any::<u8>()],
            options in select(options()),
            (repeated, replied, be_liberal) in any::<(bool, bool, bool)>(),
            (max_retrans, full) in (select(vec![0u8, 3, 255]), select(vec![40u32, 250, 432_000])),
            shorter in select(vec![[300u32, 300], [30, 200], [200, 30], [260, 500_000]]),
        ) {
            let bytes = segment(numbers, window, flags, &options);
            let mut knobs = Knobs { tcp_be_liberal: be_liberal, ..Knobs::default() };
            knobs.tcp_max_retrans = max_retrans;
            knobs.timeouts.set(Timeout::TcpEstablished, full);
            knobs.timeouts.set(Timeout::TcpUnacknowledged, shorter[0]);
            knobs.timeouts.set(Timeout::TcpMaxRetrans, shorter[1]);
            let mut whole = track;
            if repeated {
                (whole.last_dir, whole.last_seq, whole.last_ack) = (dir, numbers.0, numbers.1);
                whole.last_end = numbers.0.wrapping_add(numbers.2 as u32);
                whole.last_window = window;
            }
            let replied = replied || dir == Direction::Reply;
            let both = Status::SEEN_REPLY.with(Status::ASSURED);
            let status = if replied { both } else { Status::default() };
            let conn = RECORDS.get(ConnRef::new(Family::V4, 0)).unwrap();
            let words = whole.to_words();
            conn.set_tracker_words(&words);
            let judged = Segment::plain(&bytes).and_then(|plain| {
                let patience = Patience::new(&knobs, NOW);
                TcpTrack::established(conn, &plain, dir, replied, &patience)
            });
            let sane = sanity(&bytes, bytes.len() as u32);
            let outcome = sane.map(|segment| whole.packet(&segment, dir, status, &knobs, 1000));
            prop_assert!(judged.is_some() || conn.tracker_words() == words);
            match (judged, outcome) {
                (Some(until), outcome) => {
                    let Ok(Outcome::Accept { timeout_secs: Some(secs), assured, changed }) = outcome
                    else {
                        prop_assert!(false, "accepted although {outcome:?}");
                        return Ok(());
                    };
                    prop_assert!(!assured && !changed);
                    prop_assert_eq!(conn.tracker_words(), whole.to_words());
                    prop_assert_eq!(until, NOW.plus_secs(secs));
                }
                (None, Ok(Outcome::Accept { .. })) => {
                    let sender = track.sides[dir.index()];
                    let plain = options.len() == 12 && options[2] == 8 || options.is_empty();
                    prop_assert!(
                        !plain
                            || flags & 0x17 != 0x10
                            || track.state != TcpState::Established
                            || sender.maxwin == 0
                            || before(sender.maxend, numbers.0)
                    );
                }
                (None, _) => {}
            }
        }
    }
}
