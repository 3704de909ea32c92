//! INVALID packets: counted by reason, remembered with the numbers that decided, and told to the
//! control core where `log_invalid` asks for it.
//!
//! Everything here is done for packets that tracking wants nothing to do with, or that it lets pass
//! without believing them; the others cost nothing. [`Trail`] holds the last INVALID packets of an
//! lcore, which alone writes to it; a flood of them overwrites [`TRAIL_LEN`] places of fixed size.

use crate::conntrack::invalid::{InvalidReason, Numbers, Remark};
use crate::conntrack::tcp::{self, TcpTrack};
use crate::conntrack::tuple::{Tuple, proto};
use crate::pipeline::frame::{BURST_MAX, Frame, FramePool};
use crate::pipeline::messages::{FromLcore, LogLine, Sentence};
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::track::{right_checksum, tcp_segment, tuple_of};
use crate::pipeline::transit::Transit;
use crate::pipeline::{At, Pipeline, hooks, rare};
use crate::rules::facts::PortId;
use crate::wire::headers::Headers;

/// INVALID packets that an lcore remembers.
pub const TRAIL_LEN: usize = 128;

/// One INVALID packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Wall clock in nanoseconds since 1970.
    pub unix_ns: u64,
    /// Where it came in; `None` for packets of the gateway's own.
    pub in_port: Option<PortId>,
    /// What it would have been looked up by.
    pub tuple: Tuple,
    /// Why it is INVALID.
    pub reason: InvalidReason,
    /// What decided.
    pub numbers: Numbers,
}

/// The last INVALID packets of an lcore.
#[derive(Debug)]
pub(crate) struct Trail {
    /// Never grown beyond [`TRAIL_LEN`].
    findings: Vec<Finding>,
    /// The place of the next one: that of the oldest, once all are taken.
    next: usize,
}

impl Default for Trail {
    fn default() -> Trail {
        Trail { findings: Vec::with_capacity(TRAIL_LEN), next: 0 }
    }
}

impl Trail {
    fn note(&mut self, finding: Finding) {
        match self.findings.get_mut(self.next) {
            Some(place) => *place = finding,
            None => self.findings.push(finding),
        }
        self.next = (self.next + 1) % TRAIL_LEN;
    }

    /// Appends them to `to`, oldest first, as far as its capacity reaches.
    pub(crate) fn copy(&self, to: &mut Vec<Finding>) {
        let (young, old) = self.findings.split_at(self.next.min(self.findings.len()));
        let room = to.capacity() - to.len();
        to.extend(old.iter().chain(young).take(room));
    }
}

/// What a tracker had to say of a packet, on the way from the verdict to where the packet walks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub remark: Remark,
    /// A second line for the same packet.
    pub also: Option<Remark>,
}

/// The place of a [`Said`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u8);

/// As many as a burst may leave on the short way, and as many again while those walk.
const PLACES: usize = 2 * BURST_MAX;

/// What trackers said of the present burst's packets, so that their verdicts stay small.
#[derive(Debug)]
pub(crate) struct Sayings {
    said: Box<[Said; PLACES]>,
    last: u8,
}

impl Default for Sayings {
    fn default() -> Sayings {
        let nothing = Remark::Invalid(InvalidReason::TcpShort, Numbers::None);
        Sayings { said: Box::new([Said { remark: nothing, also: None }; PLACES]), last: 0 }
    }
}

impl Sayings {
    /// Keeps one until [`PLACES`] more have been kept.
    pub(crate) fn keep(&mut self, said: Said) {
        self.last = ((self.last as usize + 1) % PLACES) as u8;
        self.said[self.last as usize % PLACES] = said;
    }

    /// Where the one kept last is.
    pub(crate) fn last(&self) -> Place {
        Place(self.last)
    }

    pub(crate) fn get(&self, place: Place) -> Said {
        self.said[place.0 as usize % PLACES]
    }
}

impl<P: FramePool> Pipeline<P> {
    /// An INVALID packet whose header alone says why.
    #[cold]
    #[inline(never)]
    pub(crate) fn invalid(&mut self, t: &Transit<P::Frame>, reason: InvalidReason, at: At<'_>) {
        self.invalid_by(t, reason, numbers_of(reason, &t.frame, &t.headers), at);
    }

    /// An INVALID packet, and the numbers that decided.
    #[cold]
    #[inline(never)]
    pub(crate) fn invalid_by(
        &mut self,
        t: &Transit<P::Frame>,
        reason: InvalidReason,
        numbers: Numbers,
        at: At<'_>,
    ) {
        let counters = &self.links.counters;
        let which = match reason.counts_as_error() {
            true => &counters.conntrack.error,
            false => &counters.conntrack.invalid,
        };
        which.add(1);
        counters.invalid[reason as usize].add(1);
        let (in_port, tuple) = (t.in_port, tuple_of(&t.headers));
        self.notes.note(|| Note::Invalid(reason, numbers));
        self.trail.note(Finding { unix_ns: at.now.unix_ns, in_port, tuple, reason, numbers });
        self.log_invalid(t, Remark::Invalid(reason, numbers), at);
    }

    /// What a conn's tracker said of a packet.
    #[cold]
    #[inline(never)]
    pub(crate) fn say(&mut self, t: &Transit<P::Frame>, place: Place, at: At<'_>) {
        let Said { remark, also } = self.sayings.get(place);
        match remark {
            Remark::Invalid(reason, Numbers::None) => self.invalid(t, reason, at),
            Remark::Invalid(reason, numbers) => self.invalid_by(t, reason, numbers, at),
            remark => self.log_invalid(t, remark, at),
        }
        if let Some(also) = also {
            self.log_invalid(t, also, at);
        }
    }

    /// True if `log_invalid` names this protocol or all.
    pub(crate) fn logs_invalid(&self, proto: u8, at: At<'_>) -> bool {
        const EVERY_PROTOCOL: u8 = 255;
        let wanted = at.policy.knobs.log_invalid;
        wanted != 0 && (wanted == EVERY_PROTOCOL || wanted == proto)
    }

    /// Reports what tracking thinks of a packet, if that is wanted (`nf_l4proto_log_invalid`).
    fn log_invalid(&mut self, t: &Transit<P::Frame>, remark: Remark, at: At<'_>) {
        let number = t.headers.proto;
        if self.logs_invalid(number, at) && remark.is_said() {
            let said = Some(Sentence::Remark(number, remark));
            self.tell(FromLcore::Log(LogLine { said, ..hooks::log_line(t) }));
        }
    }
}

/// The numbers behind a reason that needs no conn.
fn numbers_of<F: Frame>(reason: InvalidReason, frame: &F, h: &Headers) -> Numbers {
    use InvalidReason as R;
    let l4 = frame.head().get(h.l4 as usize..).unwrap_or_default();
    let found = h.l4_len();
    let be16 = |at: usize| l4.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    match reason {
        R::TcpShort => Numbers::Lengths { needed: 20, found },
        R::UdpShort | R::UdpliteShort | R::IcmpShort => Numbers::Lengths { needed: 8, found },
        R::SctpChunks | R::SctpTag => rare::numbers_of_first(frame, h.into(), reason),
        R::SctpShort | R::DccpShort => Numbers::Lengths { needed: 12, found },
        R::Icmpv6ShortRedirect => Numbers::Lengths { needed: 40, found },
        R::TcpTruncated => {
            let words = l4.get(12).map_or(0, |byte| byte >> 4);
            Numbers::Lengths { needed: u32::from(words) * 4, found }
        }
        R::UdpLength | R::UdpliteCoverage => Numbers::Lengths { needed: be16(4).into(), found },
        R::TcpFlags => Numbers::Flags(h.tcp_flags),
        R::TcpNew | R::TcpPickup => match tcp_segment(frame, h.into()) {
            Ok(segment) => Numbers::Window(TcpTrack::numbers_of_first(&segment)),
            Err(_) => Numbers::None,
        },
        R::TcpChecksum | R::UdpChecksum | R::IcmpChecksum | R::Icmpv6Checksum => {
            let at = match h.proto {
                proto::TCP => 16,
                proto::UDP => 6,
                _ => 2,
            };
            let found = be16(at);
            Numbers::Checksum { found, right: right_checksum(frame, h, found) }
        }
        R::IcmpNew | R::IcmpType | R::IcmpInner | R::IcmpUnrelated => {
            Numbers::Icmp { kind: h.icmp_type, code: h.icmp_code }
        }
        _ => Numbers::None,
    }
}

/// Keeps what the TCP tracker said of a segment.
impl Sayings {
    #[cold]
    #[inline(never)]
    pub(crate) fn keep_tcp(
        &mut self,
        outcome: &tcp::Outcome,
        track: &TcpTrack,
        segment: &tcp::Segment<'_>,
        direction: crate::conntrack::state::Direction,
    ) {
        let numbers = track.numbers(segment, direction);
        let (remark, lowered) = match *outcome {
            tcp::Outcome::Invalid { reason, shorten_to_secs } => {
                (Remark::Invalid(reason, Numbers::Window(numbers)), shorten_to_secs)
            }
            tcp::Outcome::Ignored(what) => (Remark::Unexpected(what, numbers), None),
            _ => return,
        };
        let (class, after) = (numbers.class, track.last_class());
        let also = lowered.map(|secs| Remark::Lowered { class, direction, after, secs });
        self.keep(Said { remark, also });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(unix_ns: u64) -> Finding {
        let (reason, numbers) = (InvalidReason::TcpFlags, Numbers::Flags(3));
        Finding { unix_ns, in_port: None, tuple: Tuple::default(), reason, numbers }
    }

    fn times(trail: &Trail, room: usize) -> Vec<u64> {
        let mut found = Vec::with_capacity(room);
        trail.copy(&mut found);
        found.iter().map(|f| f.unix_ns).collect()
    }

    #[test]
    fn the_last_ones_are_kept_oldest_first() {
        let mut trail = Trail::default();
        assert_eq!(times(&trail, TRAIL_LEN), []);
        for at in 0..3 {
            trail.note(finding(at));
        }
        assert_eq!(times(&trail, TRAIL_LEN), [0, 1, 2]);
        for at in 3..TRAIL_LEN as u64 + 5 {
            trail.note(finding(at));
        }
        let kept: Vec<u64> = (5..TRAIL_LEN as u64 + 5).collect();
        assert_eq!(times(&trail, TRAIL_LEN), kept);
        assert_eq!(trail.findings.capacity(), TRAIL_LEN);
    }

    #[test]
    fn what_was_said_stays_for_a_burst() {
        let mut sayings = Sayings::default();
        let remark = |n| Remark::Invalid(InvalidReason::TcpFlags, Numbers::Flags(n));
        sayings.keep(Said { remark: remark(1), also: None });
        let place = sayings.last();
        for _ in 1..PLACES {
            sayings.keep(Said { remark: remark(2), also: None });
        }
        assert_eq!(sayings.get(place).remark, remark(1));
        sayings.keep(Said { remark: remark(2), also: None });
        assert_eq!(sayings.get(place).remark, remark(2));
    }
}
