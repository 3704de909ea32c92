//! Window tracking (`tcp_in_window`), after van Rooij's "Real Stateful TCP Packet Filtering in IP
//! Filter" with the bounds moved for RFC 9293: a segment must touch the window, not lie in it.
//!
//! Per side: `end` is the highest number it sent, `maxend` the highest the other let it send,
//! `maxwin` the largest window it offered, `maxack` the highest ack it sent. A segment is inside if
//!
//! ```text
//! I    seq  ≤ sender.maxend                                        not beyond the window
//! II   end  ≥ sender.end − receiver.maxwin     (if that is known)  not older than one window
//! III  sack ≤ receiver.end                                         acknowledges what was seen
//! IV   sack ≥ receiver.end − max(sender.maxwin, 66000)             not a very old ack
//! ```
//!
//! where sack is the highest SACK edge, or the ack. Over I or III is INVALID; under II or IV is an
//! old duplicate, which passes and changes nothing.

use super::options::{highest_sack, offer};
use super::segment::{Class, Segment, flags};
use super::state::TcpState;
use super::track::{TcpTrack, high, pair};
use crate::conntrack::invalid::InvalidReason;
use crate::conntrack::state::Direction;

/// What is known of one side of a conn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) end: u32,
    pub(super) maxend: u32,
    /// 0 while nothing was seen from this side.
    pub(super) maxwin: u32,
    pub(super) maxack: u32,
    pub(super) scale: u8,
    pub(super) flags: u8,
}

/// Bits of `Side::flags` (`IP_CT_TCP_FLAG_*`; same positions).
pub(super) mod side_flags {
    /// Offered window scaling.
    pub(in super::super) const WINDOW_SCALE: u8 = 0x01;
    /// Permits SACK.
    pub(in super::super) const SACK_PERM: u8 = 0x02;
    /// Sent the first FIN.
    pub(in super::super) const CLOSE_INIT: u8 = 0x04;
    /// Its segments are accepted whatever the windows say.
    pub(in super::super) const BE_LIBERAL: u8 = 0x08;
    /// Sent something that is not acknowledged yet.
    pub(in super::super) const UNACKNOWLEDGED: u8 = 0x10;
    /// `maxack` holds a number.
    pub(in super::super) const MAXACK_SET: u8 = 0x20;
}

/// How far an ack may lag behind if the sender's window is smaller (`MAXACKWINCONST`).
const ACK_LAG: u32 = 66_000;

/// True if sequence number `a` comes before `b`.
#[inline]
pub(super) const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// What the windows say of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Inside, or outside and forgiven.
    Accept,
    /// Old, or a little too far: let it pass and change nothing.
    Ignore(Unexpected),
    /// Over an upper bound.
    Invalid(InvalidReason),
}

/// What lets a segment pass without being believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unexpected {
    /// It is right only if the gateway is out of step.
    State,
    /// An ACK that challenges an ignored SYN (RFC 5961 section 4).
    Challenge,
    /// It goes beyond the window by no more than a window.
    Overshoot,
    /// It is older than one window.
    SeqUnder,
    /// It acknowledges what was acknowledged long ago.
    AckUnder,
}

/// A segment as it was held against the windows, and these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowNumbers {
    /// Which side sent it.
    pub direction: Direction,
    /// What counts of its flags.
    pub class: Class,
    /// The conn's state.
    pub state: TcpState,
    /// The window it offers, not scaled.
    pub window: u16,
    /// Its first sequence number.
    pub seq: u32,
    /// The sequence number after it.
    pub end: u32,
    /// What it acknowledges.
    pub ack: u32,
    /// The highest edge of its SACK blocks, or `ack`.
    pub sack: u32,
    /// The highest number its sender has sent (`td_end`).
    pub sender_end: u32,
    /// The highest it may send (`td_maxend`).
    pub sender_maxend: u32,
    /// The largest window its sender has offered (`td_maxwin`).
    pub sender_maxwin: u32,
    /// The highest number the receiver has sent.
    pub receiver_end: u32,
    /// The largest window the receiver has offered; 0 if it has not spoken.
    pub receiver_maxwin: u32,
}

impl WindowNumbers {
    pub(super) fn new(
        seg: &Segment<'_>,
        (direction, class, state): (Direction, Class, TcpState),
        sender: &Side,
        receiver: &Side,
    ) -> WindowNumbers {
        let n = Numbers::of(seg, sender, receiver, state, sack_of(seg, receiver));
        WindowNumbers {
            direction,
            class,
            state,
            window: seg.window,
            seq: n.seq,
            end: n.end,
            ack: n.ack,
            sack: n.sack,
            sender_end: sender.end,
            sender_maxend: sender.maxend,
            sender_maxwin: sender.maxwin,
            receiver_end: receiver.end,
            receiver_maxwin: receiver.maxwin,
        }
    }

    /// How far the segment goes beyond what its sender may send.
    pub const fn overshoot(&self) -> u32 {
        self.end.wrapping_sub(self.sender_maxend).wrapping_add(1)
    }

    /// The sequence number that the segment's end would have had to be above.
    pub const fn oldest_end(&self) -> u32 {
        self.sender_end.wrapping_sub(self.receiver_maxwin).wrapping_sub(1)
    }

    /// The number that its acknowledgment would have had to be above.
    pub fn oldest_ack(&self) -> u32 {
        self.receiver_end.wrapping_sub(self.sender_maxwin.max(ACK_LAG)).wrapping_sub(1)
    }
}

/// The segment's numbers after the exceptions for missing acks and resets.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    pub(super) seq: u32,
    pub(super) end: u32,
    pub(super) ack: u32,
    sack: u32,
}

impl Numbers {
    #[inline(always)]
    pub(super) fn of(
        seg: &Segment<'_>,
        sender: &Side,
        receiver: &Side,
        state: TcpState,
        sack: u32,
    ) -> Numbers {
        let mut n = Numbers { seq: seg.seq, end: seg.end(), ack: seg.ack, sack };
        // Without ACK, and in the RST with a zero ack of some TCPs, pretend a fitting one.
        if !seg.has(flags::ACK) || seg.has(flags::RST) && seg.ack == 0 {
            n.ack = receiver.end;
            n.sack = receiver.end;
        }
        // A closed port's answer to a SYN.
        if seg.has(flags::RST) && seg.seq == 0 && state == TcpState::SynSent {
            n.seq = sender.end;
            n.end = sender.end;
        }
        n
    }
}

/// The highest edge of a segment's SACK blocks, if its receiver permits them, else its ack.
#[inline(always)]
fn sack_of(seg: &Segment<'_>, receiver: &Side) -> u32 {
    let permitted = receiver.has(side_flags::SACK_PERM);
    if permitted { highest_sack(seg.options, seg.ack) } else { seg.ack }
}

impl Side {
    /// Unpacks; scale and flags stand apart.
    #[inline]
    pub(super) const fn from_words([a, b]: [u64; 2], scale: u8, flags: u8) -> Side {
        let (end, maxend, maxwin, maxack) = (a as u32, high(a), b as u32, high(b));
        Side { end, maxend, maxwin, maxack, scale: scale & 0xf, flags }
    }

    /// Packs all but scale and flags.
    #[inline]
    pub(super) const fn to_words(self) -> [u64; 2] {
        [pair(self.end, self.maxend), pair(self.maxwin, self.maxack)]
    }

    #[inline]
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Takes over what a SYN's options offer; a SYN without any leaves all as it was.
    pub(super) fn take_offer(&mut self, options: &[u8]) {
        if options.is_empty() {
            return;
        }
        let offer = offer(options);
        self.scale = offer.scale.unwrap_or(0);
        self.flags &= side_flags::BE_LIBERAL;
        self.flags |= if offer.sack { side_flags::SACK_PERM } else { 0 };
        self.flags |= if offer.scale.is_some() { side_flags::WINDOW_SCALE } else { 0 };
    }

    /// Begins, or begins again, with a SYN (`tcp_init_sender`).
    fn open(&mut self, receiver: &mut Side, seg: &Segment<'_>, dir: Direction) {
        self.end = seg.end();
        self.maxend = self.end;
        self.maxwin = (seg.window as u32).max(1);
        self.take_offer(seg.options);
        // Windows are scaled only if both offered it (RFC 7323 section 2.2); the reply is second.
        let scaled = self.has(side_flags::WINDOW_SCALE) && receiver.has(side_flags::WINDOW_SCALE);
        if dir == Direction::Reply && !scaled {
            self.scale = 0;
            receiver.scale = 0;
        }
    }

    /// Begins in the middle of a conn whose history is lost: believe the segment.
    fn pick_up(&mut self, receiver: &mut Side, seg: &Segment<'_>, sack: u32) {
        self.end = seg.end();
        self.maxwin = ((seg.window as u32) << self.scale).max(1);
        self.maxend = self.end.wrapping_add(self.maxwin);
        if receiver.maxwin == 0 {
            receiver.end = sack;
            receiver.maxend = sack;
        } else if sack == receiver.end.wrapping_add(1) {
            // The answer to a keep-alive, whose one stale byte was not counted.
            receiver.end = sack;
        }
    }

    /// Bound IV, as seen from the sender.
    #[inline]
    fn oldest_ack(&self, receiver: &Side) -> u32 {
        receiver.end.wrapping_sub(self.maxwin.max(ACK_LAG))
    }

    /// Bound II, as seen from the sender; not to be used while `receiver.maxwin` is 0.
    #[inline]
    fn oldest_end(&self, receiver: &Side) -> u32 {
        self.end.wrapping_sub(receiver.maxwin)
    }

    /// True if bounds I to IV hold.
    #[inline]
    pub(super) fn is_inside(&self, receiver: &Side, n: Numbers) -> bool {
        let recent = receiver.maxwin == 0 || !before(n.end, self.oldest_end(receiver));
        !before(self.maxend, n.seq)
            & !before(receiver.end, n.sack)
            & !before(n.sack, self.oldest_ack(receiver))
            & recent
    }

    /// Which bound does not hold.
    #[cold]
    fn trespass(&mut self, receiver: &Side, n: Numbers) -> Fit {
        let old_ack = before(n.sack, self.oldest_ack(receiver));
        let early_ack = before(receiver.end, n.sack);
        let known = receiver.maxwin != 0;
        let old_end = known && before(n.end, self.oldest_end(receiver));
        if before(self.maxend, n.seq) {
            // Some senders overrun the window. If the rules let the segment pass and the receiver
            // takes it, its ack must not look like one for data never seen: count it as sent.
            let overrun = n.end.wrapping_sub(self.maxend).wrapping_add(1);
            if known && !old_end && !old_ack && !early_ack && overrun <= receiver.maxwin {
                self.end = n.end;
                self.flags |= side_flags::UNACKNOWLEDGED;
                return Fit::Ignore(Unexpected::Overshoot);
            }
            return Fit::Invalid(InvalidReason::TcpSeqOver);
        }
        if early_ack {
            Fit::Invalid(InvalidReason::TcpAckOver)
        } else if old_end {
            Fit::Ignore(Unexpected::SeqUnder)
        } else {
            Fit::Ignore(Unexpected::AckUnder)
        }
    }

    /// Learns from a segment inside the windows.
    #[inline(always)]
    pub(super) fn update(&mut self, receiver: &mut Side, seg: &Segment<'_>, n: Numbers) {
        // A SYN's window is never scaled.
        let scale = if seg.has(flags::SYN) { 0 } else { self.scale };
        let window = (seg.window as u32) << scale;
        self.maxwin = self.maxwin.max(window.wrapping_add(n.sack.wrapping_sub(n.ack)));
        if before(self.end, n.end) {
            self.end = n.end;
            self.flags |= side_flags::UNACKNOWLEDGED;
        }
        if seg.has(flags::ACK) {
            if !self.has(side_flags::MAXACK_SET) || before(self.maxack, n.ack) {
                self.maxack = n.ack;
            }
            self.flags |= side_flags::MAXACK_SET;
        }
        if receiver.maxwin != 0 && before(self.maxend, n.end) {
            receiver.maxwin = receiver.maxwin.wrapping_add(n.end.wrapping_sub(self.maxend));
        }
        let edge = n.sack.wrapping_add(window);
        if !before(edge, receiver.maxend) {
            // One byte into a closed window is its probe.
            receiver.maxend = edge.wrapping_add((window == 0) as u32);
        }
        if n.ack == receiver.end {
            receiver.flags &= !side_flags::UNACKNOWLEDGED;
        }
    }
}

impl TcpTrack {
    /// Holds a segment against the windows and, if it is inside, moves them.
    #[inline]
    pub(super) fn fit(
        &mut self,
        seg: &Segment<'_>,
        class: Class,
        dir: Direction,
        be_liberal: bool,
    ) -> Fit {
        let state = self.state;
        let [original, reply] = &mut self.sides;
        let (sender, receiver) = match dir {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        };
        // Here the other direction's sequence offset (`nf_ct_seq_offset`) is to be taken from both
        // numbers, for conns whose payload was edited.
        let sack = sack_of(seg, receiver);
        if sender.maxwin == 0 || seg.has(flags::SYN) {
            let opens = begin(sender, receiver, seg, dir, state, sack);
            if opens {
                return Fit::Accept;
            }
        }
        let n = Numbers::of(seg, sender, receiver, state, sack);
        if !sender.is_inside(receiver, n) {
            let trespass = sender.trespass(receiver, n);
            let forgiven = be_liberal || sender.has(side_flags::BE_LIBERAL);
            return if forgiven { Fit::Accept } else { trespass };
        }
        sender.update(receiver, seg, n);
        if class == Class::Ack {
            self.count_repeat(seg, dir, n);
        }
        Fit::Accept
    }

    /// Counts identical segments in a row, which nobody seems to answer.
    #[inline]
    fn count_repeat(&mut self, seg: &Segment<'_>, dir: Direction, n: Numbers) {
        let same = self.last_dir == dir
            && self.last_seq == n.seq
            && self.last_ack == n.ack
            && self.last_end == n.end
            && self.last_window == seg.window;
        // Wraps, and so forgets 256 repeats, because the kernel's does.
        self.retrans = if same { self.retrans.wrapping_add(1) } else { 0 };
        self.last_dir = dir;
        self.last_seq = n.seq;
        self.last_ack = n.ack;
        self.last_end = n.end;
        self.last_window = seg.window;
    }
}

/// Sets a side up from its first segment, or again from a newer SYN of the handshake. True if the
/// segment is one half of a simultaneous open, which no window can judge.
fn begin(
    sender: &mut Side,
    receiver: &mut Side,
    seg: &Segment<'_>,
    dir: Direction,
    state: TcpState,
    sack: u32,
) -> bool {
    if sender.maxwin == 0 {
        if !seg.has(flags::SYN) {
            sender.pick_up(receiver, seg, sack);
            return false;
        }
        sender.open(receiver, seg, dir);
        return !seg.has(flags::ACK);
    }
    let handshake = matches!(state, TcpState::SynSent | TcpState::SynRecv);
    if !handshake || !before(sender.end, seg.end()) {
        return false;
    }
    sender.open(receiver, seg, dir);
    dir == Direction::Reply && !seg.has(flags::ACK)
}
