//! A conn's TCP state as a value, its packing into words, and the verdict on each segment.

use super::judge::Judgement;
use super::segment::{Class, Segment};
use super::state::TcpState;
use super::table::{Step, step};
use super::window::{Fit, Side, Unexpected, WindowNumbers, side_flags};
use crate::conntrack::invalid::InvalidReason;
use crate::conntrack::knobs::Knobs;
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::timeouts::Timeout;

/// What the tracker knows of a conn. Its owner lcore is the only writer.
///
/// Words: 0 state, repeats, last window, class and direction, scale, flags · 1 last seq, ack ·
/// 2 last end, both sides' scale and flags · 3, 4 original side · 5, 6 reply side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTrack {
    pub(super) state: TcpState,
    pub(super) retrans: u8,
    pub(super) last_window: u16,
    pub(super) last_class: Class,
    pub(super) last_dir: Direction,
    pub(super) last_scale: u8,
    pub(super) last_flags: u8,
    pub(super) last_seq: u32,
    pub(super) last_ack: u32,
    pub(super) last_end: u32,
    pub(super) sides: [Side; 2],
}

/// Bits of `last_flags` besides those of a side.
pub(super) mod last_flags {
    /// An ignored SYN in LAST_ACK may bring a challenge ACK.
    pub(in super::super) const CHALLENGE: u8 = 0x40;
    /// SYNs crossed.
    pub(in super::super) const SIMULTANEOUS_OPEN: u8 = 0x80;
}

/// The verdict on a segment and what the owner has to do to the record.
///
/// A conn with FIXED_TIMEOUT keeps its deadline whatever is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The segment belongs to the conn.
    Accept {
        /// The new timeout; `None` leaves the deadline alone, and the packet uncounted.
        timeout_secs: Option<u32>,
        /// Set ASSURED (it was not set before).
        assured: bool,
        /// The state changed, which is an event.
        changed: bool,
    },
    /// The segment passes as the conn's, which neither changes nor counts it.
    Ignored(Unexpected),
    /// The segment is INVALID.
    Invalid {
        /// Why.
        reason: InvalidReason,
        /// Bring the deadline forward to this.
        shorten_to_secs: Option<u32>,
    },
    /// A new conn begins on a closed one's tuple: delete the entry, look the packet up again.
    Restart,
    /// Accept the packet and delete the entry: reset before anything came back.
    Delete,
}

/// Below this remaining time an impossible end is not worth shortening.
const SHORTEN_ABOVE_SECS: u32 = 120;

impl TcpTrack {
    /// The word that holds the state.
    pub const STATE_WORD: usize = 0;

    /// Starts a conn with its first segment (`tcp_new`, and its first pass through the tracker);
    /// also returns the timeout in seconds.
    ///
    /// # Errors
    /// `TcpNew` if no conn starts like this, `TcpPickup` if only `tcp_loose` would allow it.
    pub fn first(seg: &Segment<'_>, knobs: &Knobs) -> Result<(TcpTrack, u32), InvalidReason> {
        let class = Class::of(seg.flags);
        let mut track = TcpTrack::unseen();
        let [original, reply] = &mut track.sides;
        original.end = seg.end();
        original.maxwin = (seg.window as u32).max(1);
        original.maxend = original.end;
        let new = match step(Direction::Original, class, TcpState::None) {
            Step::To(TcpState::SynSent) => {
                original.take_offer(seg.options);
                TcpState::SynSent
            }
            Step::To(new) if knobs.tcp_loose => {
                // The options were in a SYN that nobody saw: assume SACK, and do not insist on
                // windows that may be scaled.
                original.maxend = original.end.wrapping_add(original.maxwin);
                original.flags = side_flags::SACK_PERM | side_flags::BE_LIBERAL;
                reply.flags = original.flags;
                new
            }
            Step::To(_) => return Err(InvalidReason::TcpPickup),
            Step::Ignore | Step::Invalid => return Err(InvalidReason::TcpNew),
        };
        // Nothing to hold it against, or liberal: always accepted, but it moves the windows.
        track.fit(seg, class, Direction::Original, true);
        track.enter(class, Direction::Original, TcpState::None, new);
        Ok((track, track.unreplied_timeout(class, new, knobs)))
    }

    /// A conn that was put into the table by hand: nothing is known but its state, so both sides
    /// are judged liberally.
    pub fn inserted(state: TcpState) -> TcpTrack {
        let mut track = TcpTrack::unseen();
        track.set_by_hand(state);
        track
    }

    /// Judges a segment of an existing conn; `status` as it was before this segment,
    /// `remaining_secs` until the conn's deadline. A conn with a timeout policy is judged with
    /// knobs that have the policy's timeouts.
    #[inline]
    pub fn packet(
        &mut self,
        seg: &Segment<'_>,
        dir: Direction,
        status: Status,
        knobs: &Knobs,
        remaining_secs: u32,
    ) -> Outcome {
        let class = Class::of(seg.flags);
        // Nearly every segment: no second look needed.
        let judgement = if class == Class::Ack && self.state == TcpState::Established {
            Judgement::Check { old: TcpState::Established, new: TcpState::Established }
        } else {
            self.judge(seg, class, dir, status, knobs)
        };
        let (old, new) = match judgement {
            Judgement::Check { old, new } => {
                match self.fit(seg, class, dir, knobs.tcp_be_liberal) {
                    Fit::Accept => (old, new),
                    Fit::Ignore(what) => return Outcome::Ignored(what),
                    Fit::Invalid(reason) => {
                        let shorten_to_secs =
                            self.impossible_end(class, dir, status, knobs, remaining_secs);
                        return Outcome::Invalid { reason, shorten_to_secs };
                    }
                }
            }
            Judgement::Trust { old, new } => (old, new),
            Judgement::Done(outcome) => return outcome,
        };
        self.enter(class, dir, old, new);
        let changed = old != new;
        if !status.has(Status::SEEN_REPLY) {
            return self.unreplied(class, old, new, knobs);
        }
        let assured = !status.has(Status::ASSURED)
            && new == TcpState::Established
            && matches!(old, TcpState::SynRecv | TcpState::Established);
        Outcome::Accept { timeout_secs: Some(self.timeout(class, new, knobs)), assured, changed }
    }

    /// The segment that was ignored or INVALID just now, and the windows it was held against.
    #[cold]
    pub fn numbers(&self, seg: &Segment<'_>, dir: Direction) -> WindowNumbers {
        let (sender, receiver) = (&self.sides[dir.index()], &self.sides[dir.opposite().index()]);
        WindowNumbers::new(seg, (dir, Class::of(seg.flags), self.state), sender, receiver)
    }

    /// The same for a segment of no conn.
    #[cold]
    pub fn numbers_of_first(seg: &Segment<'_>) -> WindowNumbers {
        TcpTrack::unseen().numbers(seg, Direction::Original)
    }

    /// True for a keep-alive of a client whose SYN is still to be answered, as SYNPROXY's may send
    /// one: the answer it has had was not the server's.
    pub fn is_kept_alive_by(&self, seg: &Segment<'_>, dir: Direction) -> bool {
        let [original, _] = &self.sides;
        self.state == TcpState::SynSent
            && Class::of(seg.flags) == Class::Ack
            && (dir, self.last_dir) == (Direction::Original, Direction::Original)
            && original.end.wrapping_sub(1) == seg.seq
    }

    /// The largest window that one side has offered, not scaled before it has answered a SYN
    /// (`td_maxwin`).
    pub const fn largest_window(&self, direction: Direction) -> u32 {
        self.sides[direction.index()].maxwin
    }

    /// The class of the last segment that counted.
    pub const fn last_class(&self) -> Class {
        self.last_class
    }

    /// The highest sequence number that one side has sent, plus one (`td_end`).
    #[inline]
    pub const fn sent_end(&self, direction: Direction) -> u32 {
        self.sides[direction.index()].end
    }

    /// The present state.
    #[inline]
    pub const fn state(&self) -> TcpState {
        self.state
    }

    /// Sets the state by hand (`conntrack -U --state`); the windows may no longer fit, so both
    /// sides are judged liberally from now on.
    pub fn set_by_hand(&mut self, state: TcpState) {
        self.state = state;
        for side in &mut self.sides {
            side.flags |= side_flags::SACK_PERM | side_flags::BE_LIBERAL;
        }
    }

    /// Closes the conn because the gateway answered for one side with a reset
    /// (`nf_conntrack_tcp_set_closing`). Returns the new timeout in seconds, `None` if it was
    /// closed already.
    pub const fn set_closing(&mut self, knobs: &Knobs) -> Option<u32> {
        if matches!(self.state, TcpState::Close) {
            return None;
        }
        self.state = TcpState::Close;
        Some(knobs.timeouts.get(Timeout::TcpClose))
    }

    /// The state out of word [`TcpTrack::STATE_WORD`] alone, without unpacking the rest.
    #[inline]
    pub fn state_of_word(word: u64) -> TcpState {
        TcpState::from_number(word as u8).unwrap_or_default()
    }

    /// Packs.
    #[inline]
    pub fn to_words(&self) -> [u64; 7] {
        let [original, reply] = &self.sides;
        let last = self.last_class as u8 | (self.last_dir as u8) << 3 | self.last_scale << 4;
        let control = [self.state as u8, self.retrans, last, self.last_flags];
        let sides = [original.scale, original.flags, reply.scale, reply.flags];
        let ([w3, w4], [w5, w6]) = (original.to_words(), reply.to_words());
        [
            pair(u32::from_le_bytes(control), self.last_window as u32),
            pair(self.last_seq, self.last_ack),
            pair(self.last_end, u32::from_le_bytes(sides)),
            w3,
            w4,
            w5,
            w6,
        ]
    }

    /// Unpacks; words that no track packed into give some track, never a panic.
    #[inline]
    pub fn from_words(words: [u64; 7]) -> TcpTrack {
        let [w0, w1, w2, w3, w4, w5, w6] = words;
        let [state, retrans, last, last_flags] = (w0 as u32).to_le_bytes();
        let [scale0, flags0, scale1, flags1] = high(w2).to_le_bytes();
        let original = Side::from_words([w3, w4], scale0, flags0);
        let reply = Side::from_words([w5, w6], scale1, flags1);
        TcpTrack {
            state: TcpState::from_number(state).unwrap_or_default(),
            retrans,
            last_window: high(w0) as u16,
            last_class: *Class::ALL.get((last & 7) as usize).unwrap_or(&Class::None),
            last_dir: if last & 8 == 0 { Direction::Original } else { Direction::Reply },
            last_scale: last >> 4,
            last_flags,
            last_seq: w1 as u32,
            last_ack: high(w1),
            last_end: w2 as u32,
            sides: [original, reply],
        }
    }

    const fn unseen() -> TcpTrack {
        const SIDE: Side = Side { end: 0, maxend: 0, maxwin: 0, maxack: 0, scale: 0, flags: 0 };
        TcpTrack {
            state: TcpState::None,
            retrans: 0,
            last_window: 0,
            last_class: Class::None,
            last_dir: Direction::Original,
            last_scale: 0,
            last_flags: 0,
            last_seq: 0,
            last_ack: 0,
            last_end: 0,
            sides: [SIDE; 2],
        }
    }

    /// Notes the segment as the last one accepted and takes the new state.
    #[inline]
    fn enter(&mut self, class: Class, dir: Direction, old: TcpState, new: TcpState) {
        self.last_class = class;
        self.last_dir = dir;
        self.state = new;
        if new == TcpState::FinWait && old != new {
            self.sides[dir.index()].flags |= side_flags::CLOSE_INIT;
        }
    }

    /// The timeout of a state, shortened for conns that show signs of a dead end.
    #[inline]
    fn timeout(&self, class: Class, state: TcpState, knobs: &Knobs) -> u32 {
        let timeouts = &knobs.timeouts;
        let full = timeouts.of_tcp(state);
        let retrans = timeouts.get(Timeout::TcpMaxRetrans);
        if self.retrans >= knobs.tcp_max_retrans && full > retrans {
            return retrans;
        }
        // Also for a reset that left the state alone.
        if class == Class::Rst {
            return timeouts.get(Timeout::TcpClose);
        }
        let unacknowledged = timeouts.get(Timeout::TcpUnacknowledged);
        let flags = self.sides[0].flags | self.sides[1].flags;
        if flags & side_flags::UNACKNOWLEDGED != 0 && full > unacknowledged {
            return unacknowledged;
        }
        if self.last_window == 0 && full > retrans { retrans } else { full }
    }

    /// The timeout while nothing came back: a conn picked up on one side's word is not worth five
    /// days.
    fn unreplied_timeout(&self, class: Class, state: TcpState, knobs: &Knobs) -> u32 {
        let timeout = self.timeout(class, state, knobs);
        match state {
            TcpState::Established => timeout.min(knobs.timeouts.get(Timeout::TcpUnacknowledged)),
            _ => timeout,
        }
    }

    /// Before the first accepted reply.
    fn unreplied(&self, class: Class, old: TcpState, new: TcpState, knobs: &Knobs) -> Outcome {
        if class == Class::Rst {
            return Outcome::Delete;
        }
        // A repeated SYN must not keep an entry, with its NAT, alive for ever.
        let repeated = class == Class::Syn && old == TcpState::SynSent;
        let timeout_secs =
            if repeated { None } else { Some(self.unreplied_timeout(class, new, knobs)) };
        Outcome::Accept { timeout_secs, assured: false, changed: old != new }
    }

    /// After an end outside the window: if both sides ended like this, they agree and the gateway
    /// is out of step, so the conn need not stay for days (`nf_tcp_handle_invalid`).
    #[cold]
    fn impossible_end(
        &mut self,
        class: Class,
        dir: Direction,
        status: Status,
        knobs: &Knobs,
        remaining_secs: u32,
    ) -> Option<u32> {
        let keeps = !status.has(Status::ASSURED) || status.has(Status::FIXED_TIMEOUT);
        if keeps || !matches!(class, Class::Fin | Class::Rst) {
            return None;
        }
        if self.last_dir != dir && matches!(self.last_class, Class::Fin | Class::Rst) {
            let unacknowledged = knobs.timeouts.get(Timeout::TcpUnacknowledged);
            let long = remaining_secs >= SHORTEN_ABOVE_SECS && remaining_secs > unacknowledged;
            return if long { Some(unacknowledged) } else { None };
        }
        self.last_class = class;
        self.last_dir = dir;
        None
    }
}

#[inline]
pub(super) const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[inline]
pub(super) const fn high(word: u64) -> u32 {
    (word >> 32) as u32
}
