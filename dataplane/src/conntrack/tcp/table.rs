//! What a segment's flags mean in each state, per direction (`tcp_conntracks`).
//!
//! The segment fits the windows, but the gateway's idea of the windows is a guess, and a packet may
//! be lost behind it. So there are three answers: a new state; *ignore*, for packets that are right
//! if the gateway is out of step and wrong otherwise (the receiver's answer will tell); *invalid*.

use super::segment::Class;
use super::state::TcpState;
use crate::conntrack::state::Direction;

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go there (perhaps the present state).
    To(TcpState),
    /// Let it pass, remember it, change nothing.
    Ignore,
    /// The packet is INVALID.
    Invalid,
}

/// The cell for a segment; the tracker takes a second look at some of them.
#[inline]
pub const fn step(dir: Direction, class: Class, state: TcpState) -> Step {
    TABLE[dir as usize][class as usize][state as usize]
}

type Row = [Step; TcpState::COUNT];

const S1: Step = Step::To(TcpState::SynSent);
const SR: Step = Step::To(TcpState::SynRecv);
const ES: Step = Step::To(TcpState::Established);
const FW: Step = Step::To(TcpState::FinWait);
const CW: Step = Step::To(TcpState::CloseWait);
const LA: Step = Step::To(TcpState::LastAck);
const TW: Step = Step::To(TcpState::TimeWait);
const CL: Step = Step::To(TcpState::Close);
const S2: Step = Step::To(TcpState::SynSent2);
const IG: Step = Step::Ignore;
const NO: Step = Step::Invalid;

/// A SYN from the original side opens, or repeats. Once the answer is known it may be a new
/// beginning that the gateway missed: ignored, and the answer decides. After TIME_WAIT or CLOSE it
/// reopens (RFC 9293 section 3.6.1).
//                     NONE SYN1 SYNR ESTA FINW CLWA LACK TIMW CLOS SYN2
const ORIGINAL_SYN: Row = [S1, S1, IG, IG, IG, IG, IG, S1, S1, S2];

/// The original side answers a SYN only in a simultaneous open, and may have to say it twice.
const ORIGINAL_SYN_ACK: Row = [NO, NO, SR, NO, NO, NO, NO, NO, NO, SR];

/// A FIN before the handshake is nothing a TCP sends. The first starts the close, the second (or a
/// repeat: the gateway cannot tell) waits for the last ACK; later ones are repeats.
const FIN: Row = [NO, NO, FW, FW, LA, LA, LA, TW, CL, NO];

/// An ACK from the original side: picks up a conn whose beginning was missed; means nothing before
/// the SYN/ACK; completes the handshake; acknowledges the first FIN, then the last.
const ORIGINAL_ACK: Row = [ES, NO, ES, ES, CW, CW, TW, TW, CL, NO];

/// A reset closes whatever there is, but opens nothing.
const RST: Row = [NO, CL, CL, CL, CL, CL, CL, CL, CL, CL];

/// A segment of an open conn always has one of the flags.
const NONE: Row = [NO; TcpState::COUNT];

/// A SYN from the reply side is a simultaneous open while the first SYN is unanswered. In TIME_WAIT
/// the sides may have changed roles: reopen. Else a server does not send SYNs.
const REPLY_SYN: Row = [NO, S2, NO, NO, NO, NO, NO, S1, NO, S2];

/// The SYN/ACK answers the SYN. Later it is a repeat, or the answer to an ignored SYN, which
/// brings the gateway back in step.
const REPLY_SYN_ACK: Row = [NO, SR, IG, IG, IG, IG, IG, IG, IG, SR];

/// An ACK from the reply side: to an unanswered SYN it is a challenge from a half-open end
/// (RFC 5961), so the reset that follows decides; in SYN_RECV it answers a late SYN.
const REPLY_ACK: Row = [NO, IG, SR, ES, CW, CW, TW, TW, CL, IG];

const TABLE: [[Row; Class::COUNT]; 2] = [
    [ORIGINAL_SYN, ORIGINAL_SYN_ACK, FIN, ORIGINAL_ACK, RST, NONE],
    [REPLY_SYN, REPLY_SYN_ACK, FIN, REPLY_ACK, RST, NONE],
];

#[cfg(test)]
mod tests {
    use super::TcpState::*;
    use super::*;

    /// The rules in words, written independently of the table.
    fn expected(dir: Direction, class: Class, state: TcpState) -> Step {
        let reply = dir == Direction::Reply;
        match (class, state) {
            (Class::None, _) => Step::Invalid,
            (Class::Rst, None) => Step::Invalid,
            (Class::Rst, _) => Step::To(Close),
            (Class::Fin, SynRecv | Established) => Step::To(FinWait),
            (Class::Fin, FinWait | CloseWait | LastAck) => Step::To(LastAck),
            (Class::Fin, TimeWait | Close) => Step::To(state),
            (Class::Fin, _) => Step::Invalid,
            (Class::Syn, SynSent | SynSent2) if reply => Step::To(SynSent2),
            (Class::Syn, TimeWait) => Step::To(SynSent),
            (Class::Syn, _) if reply => Step::Invalid,
            (Class::Syn, None | SynSent | Close) => Step::To(SynSent),
            (Class::Syn, SynSent2) => Step::To(SynSent2),
            (Class::Syn, _) => Step::Ignore,
            (Class::SynAck, SynSent | SynSent2) if reply => Step::To(SynRecv),
            (Class::SynAck, None) => Step::Invalid,
            (Class::SynAck, _) if reply => Step::Ignore,
            (Class::SynAck, SynRecv | SynSent2) => Step::To(SynRecv),
            (Class::SynAck, _) => Step::Invalid,
            (Class::Ack, SynSent | SynSent2) if reply => Step::Ignore,
            (Class::Ack, SynSent | SynSent2) => Step::Invalid,
            (Class::Ack, None) if reply => Step::Invalid,
            (Class::Ack, SynRecv) if reply => Step::To(SynRecv),
            (Class::Ack, None | SynRecv | Established) => Step::To(Established),
            (Class::Ack, FinWait | CloseWait) => Step::To(CloseWait),
            (Class::Ack, LastAck | TimeWait) => Step::To(TimeWait),
            (Class::Ack, Close) => Step::To(Close),
        }
    }

    #[test]
    fn every_cell_is_what_the_rules_in_words_say() {
        for dir in [Direction::Original, Direction::Reply] {
            for class in Class::ALL {
                for state in TcpState::ALL {
                    let cell = step(dir, class, state);
                    assert_eq!(cell, expected(dir, class, state), "{dir:?} {class:?} {state}");
                }
            }
        }
    }

    #[test]
    fn no_cell_leads_back_to_none() {
        assert!(TABLE.iter().flatten().flatten().all(|&cell| cell != Step::To(None)));
    }
}
