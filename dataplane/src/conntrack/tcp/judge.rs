//! The second look: table cells whose meaning hangs on what came before
//! (`nf_conntrack_tcp_packet`, before the window check).

use super::segment::{Class, Segment};
use super::state::TcpState;
use super::table::{Step, step};
use super::track::{Outcome, TcpTrack, last_flags};
use super::window::{Side, Unexpected, before, side_flags};
use crate::conntrack::invalid::InvalidReason;
use crate::conntrack::knobs::Knobs;
use crate::conntrack::state::{Direction, Status};

/// What to do with a segment after the second look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Hold it against the windows, then go from `old` to `new`.
    Check { old: TcpState, new: TcpState },
    /// Go there without asking the windows, which are known to be out of date.
    Trust { old: TcpState, new: TcpState },
    /// That was all.
    Done(Outcome),
}

impl TcpTrack {
    #[inline(never)]
    pub(super) fn judge(
        &mut self,
        seg: &Segment<'_>,
        class: Class,
        dir: Direction,
        status: Status,
        knobs: &Knobs,
    ) -> Judgement {
        let old = self.state;
        let new = match step(dir, class, old) {
            Step::Invalid => return Judgement::Done(invalid(InvalidReason::TcpState)),
            Step::Ignore => return self.ignore(seg, class, dir),
            Step::To(new) => new,
        };
        let check = Judgement::Check { old, new };
        match new {
            TcpState::SynSent if matches!(old, TcpState::TimeWait | TcpState::Close) => {
                if self.may_reopen(dir) {
                    return Judgement::Done(Outcome::Restart);
                }
                self.ignore(seg, class, dir)
            }
            TcpState::TimeWait if self.takes_challenge(class, dir) => {
                Judgement::Done(Outcome::Ignored(Unexpected::Challenge))
            }
            TcpState::SynSent2 => {
                self.last_flags |= last_flags::SIMULTANEOUS_OPEN;
                check
            }
            // The table knows a handshake of three; with a SYN each way the reply's ACK ends it.
            TcpState::SynRecv
                if dir == Direction::Reply
                    && class == Class::Ack
                    && self.last_flags & last_flags::SIMULTANEOUS_OPEN != 0 =>
            {
                Judgement::Check { old, new: TcpState::Established }
            }
            TcpState::Close if class == Class::Rst => self.judge_reset(seg, dir, status, knobs),
            _ => check,
        }
    }

    /// A SYN after the end starts over if the end is beyond doubt: a FIN was seen to begin it, or
    /// the same side reset it just now.
    fn may_reopen(&self, dir: Direction) -> bool {
        let closed = (self.sides[0].flags | self.sides[1].flags) & side_flags::CLOSE_INIT != 0;
        closed || (self.last_dir == dir && self.last_class == Class::Rst)
    }

    /// In LAST_ACK, the ACK that challenges an ignored SYN (RFC 5961 section 4) is not the one for
    /// the last FIN.
    fn takes_challenge(&mut self, class: Class, dir: Direction) -> bool {
        let challenge = self.state == TcpState::LastAck
            && class == Class::Ack
            && self.last_dir != dir
            && self.last_class == Class::Syn
            && self.last_flags & last_flags::CHALLENGE != 0;
        if challenge {
            self.last_flags &= !last_flags::CHALLENGE;
        }
        challenge
    }

    /// Lets a packet pass that only makes sense if the gateway is out of step, and notes it: the
    /// answer tells. A SYN/ACK for an ignored SYN is such an answer, and puts it back in step.
    fn ignore(&mut self, seg: &Segment<'_>, class: Class, dir: Direction) -> Judgement {
        if class == Class::SynAck
            && self.last_class == Class::Syn
            && self.last_dir != dir
            && seg.ack == self.last_end
        {
            self.resynchronise(dir);
            return Judgement::Check { old: TcpState::SynSent, new: TcpState::SynRecv };
        }
        self.last_class = class;
        self.last_dir = dir;
        self.last_seq = seg.seq;
        self.last_end = seg.end();
        self.last_window = seg.window;
        if class == Class::Syn && dir == Direction::Original {
            let mut offer = Side::default();
            offer.take_offer(seg.options);
            self.last_scale = offer.scale;
            self.last_flags = offer.flags;
            if self.state == TcpState::LastAck {
                self.last_flags |= last_flags::CHALLENGE;
            }
        }
        if class == Class::Ack && dir == Direction::Reply && self.state == TcpState::SynSent {
            self.last_ack = seg.ack;
        }
        Judgement::Done(Outcome::Ignored(Unexpected::State))
    }

    /// Believes the ignored SYN after all: its side begins with what was noted of it, the other
    /// with nothing.
    fn resynchronise(&mut self, dir: Direction) {
        self.last_flags &= !last_flags::CHALLENGE;
        let opener = Side {
            end: self.last_end,
            maxend: self.last_end,
            maxwin: (self.last_window as u32).max(1),
            maxack: self.sides[dir.opposite().index()].maxack,
            scale: self.last_scale,
            flags: self.last_flags,
        };
        self.sides[dir.opposite().index()] = opener;
        let liberal = self.sides[dir.index()].flags & side_flags::BE_LIBERAL;
        self.sides[dir.index()] = Side { flags: liberal, ..Side::default() };
    }

    /// A reset is the cheapest forgery, so its number must be right (RFC 5961 section 3).
    fn judge_reset(
        &self,
        seg: &Segment<'_>,
        dir: Direction,
        status: Status,
        knobs: &Knobs,
    ) -> Judgement {
        let old = self.state;
        let mut new = TcpState::Close;
        // Ending anyway; the tuple may have been reused already and the numbers mean nothing.
        if old.is_closing() {
            return Judgement::Trust { old, new };
        }
        let peer = &self.sides[dir.opposite().index()];
        // After an ignored SYN the noted ack may be of an earlier life.
        if peer.has(side_flags::MAXACK_SET) && self.last_class != Class::Syn {
            let established = old == TcpState::Established && status.has(Status::ASSURED);
            // Most likely the answer to a SYN that was ignored.
            if seg.seq == 0 && !established {
                return Judgement::Check { old, new };
            }
            if before(seg.seq, peer.maxack) && !knobs.tcp_ignore_invalid_rst {
                return Judgement::Done(invalid(InvalidReason::TcpRst));
            }
            if !established || seg.seq == peer.maxack || self.continues(seg, dir) {
                return Judgement::Check { old, new };
            }
            // Inside the window but not exact: the receiver will challenge it. Keep the state.
            new = old;
        }
        if self.answers_ignored(seg, dir, status) {
            return Judgement::Trust { old, new };
        }
        Judgement::Check { old, new }
    }

    /// True for an RST that directly follows the same side's last segment.
    fn continues(&self, seg: &Segment<'_>, dir: Direction) -> bool {
        self.last_class == Class::Ack && self.last_dir == dir && seg.seq == self.last_end
    }

    /// True for an RST whose numbers refer to a packet that was let through without being
    /// believed: an ignored SYN or ACK, or the challenge ACK of a half-open end.
    fn answers_ignored(&self, seg: &Segment<'_>, dir: Direction, status: Status) -> bool {
        let ignored = match self.last_class {
            // Nobody resets because of a SYN of its own.
            Class::Syn => status.has(Status::SEEN_REPLY) && self.last_dir != dir,
            Class::Ack => !status.has(Status::ASSURED),
            _ => false,
        };
        let challenged = self.state == TcpState::SynSent
            && self.last_class == Class::Ack
            && self.last_dir == Direction::Reply;
        ignored && seg.ack == self.last_end || challenged && seg.seq == self.last_ack
    }
}

const fn invalid(reason: InvalidReason) -> Outcome {
    Outcome::Invalid { reason, shorten_to_secs: None }
}
