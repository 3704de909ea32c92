//! Tracking of the protocols that few conns have: SCTP, DCCP, GRE, UDP-Lite, and those without a
//! tracker. Out of line, so that TCP, UDP and ICMP do not pay for them.
//!
//! The trackers are pure; here they get the bytes of a frame, which may lie in several segments,
//! and the words of a record, which the conn's owner alone writes. Nothing loops but walks of the
//! packet's own bytes.

use crate::conntrack::dccp::{self, DccpTrack};
use crate::conntrack::invalid::{InvalidReason, Numbers, Remark};
use crate::conntrack::knobs::Knobs;
use crate::conntrack::record::Conn;
use crate::conntrack::sctp::SctpTrack;
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::tcp::Outcome;
use crate::conntrack::tuple::proto;
use crate::conntrack::udp::{self, Checksum};
use crate::conntrack::{generic, gre};
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::invalid::Said;
use crate::pipeline::track::sum_ok;
use crate::pipeline::transit::Extent;
use crate::pipeline::{At, Pipeline, transport_segments};
use crate::wire::checksum;
use crate::wire::crc32c::Crc32c;
use crate::wire::headers::Headers;
use crate::wire::sctp::Header;
use crate::wire::source::Source;

/// A packet's bytes from its L4 header on, in a frame.
struct Bytes<'a, F> {
    frame: &'a F,
    start: usize,
    end: usize,
}

impl<'a, F: Frame> Bytes<'a, F> {
    fn of(frame: &'a F, extent: Extent) -> Bytes<'a, F> {
        Bytes { frame, start: extent.l4 as usize, end: extent.end as usize }
    }

    /// Byte by byte, where they are not all in the first segment.
    #[cold]
    fn gather<const N: usize>(&self, from: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        let segments = transport_segments(self.frame, from, from + N);
        let found = segments.flatten().zip(&mut bytes).map(|(byte, to)| *to = *byte).count();
        (found == N).then_some(bytes)
    }
}

impl<F: Frame> Source for Bytes<'_, F> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let from = self.start + at;
        if from + N > self.end {
            return None;
        }
        match self.frame.head().get(from..from + N) {
            Some(bytes) => bytes.first_chunk().copied(),
            None => self.gather(from),
        }
    }

    fn total(&self) -> usize {
        self.end.saturating_sub(self.start)
    }
}

/// What the trackers check before anything else; `check` asks for the checksum.
#[inline(never)]
pub(crate) fn sound<F: Frame>(frame: &F, h: &Headers, check: bool) -> Result<(), InvalidReason> {
    let bytes = Bytes::of(frame, h.into());
    let head = || frame.head().get(h.l4 as usize..).unwrap_or_default();
    let wrong = |reason, number, covered: usize| {
        let (start, end) = (bytes.start, bytes.start + covered);
        let seed = checksum::pseudo(h.src, h.dst, number, h.l4_len());
        if check && !sum_ok(frame, seed, start, end) { Err(reason) } else { Ok(()) }
    };
    match h.proto {
        proto::SCTP if h.l4_truncated => Err(InvalidReason::SctpShort),
        proto::SCTP if check && !crc_ok(frame, &bytes) => Err(InvalidReason::SctpChecksum),
        proto::UDPLITE => match udp::sanity_lite(head(), h.l4_len())? {
            Checksum::Absent => Ok(()),
            // The kernel has UDP's number in the pseudo header where RFC 3828 has UDP-Lite's: as
            // long as checksums are looked at, nothing that hosts send is right.
            Checksum::Covers(covered) => {
                wrong(InvalidReason::UdpliteChecksum, proto::UDP, covered as usize)
            }
        },
        proto::DCCP if h.l4_truncated => Err(InvalidReason::DccpShort),
        proto::DCCP => {
            let (_, covered) = dccp::sanity(&bytes)?;
            wrong(InvalidReason::DccpChecksum, proto::DCCP, covered)
        }
        proto::GRE => gre::sanity(head().get(..h.l4_len().min(8) as usize).unwrap_or_default()),
        _ => Ok(()),
    }
}

/// True if the CRC of an SCTP packet is right.
fn crc_ok<F: Frame>(frame: &F, bytes: &Bytes<'_, F>) -> bool {
    const BEFORE: usize = 8;
    const AFTER: usize = 12;
    let Some(header) = Header::read(bytes) else { return false };
    let mut crc = Crc32c::default();
    let (start, end) = (bytes.start, bytes.end);
    transport_segments(frame, start, start + BEFORE).for_each(|s| crc.add(s));
    crc.add(&[0; AFTER - BEFORE]);
    transport_segments(frame, start + AFTER, end).for_each(|s| crc.add(s));
    crc.finish() == header.check()
}

/// What the tracker says to a first packet: timeout in seconds and the tracker's words.
#[inline(never)]
pub(crate) fn first<F: Frame>(
    frame: &F,
    extent: Extent,
    knobs: &Knobs,
) -> Result<(u32, [u64; 7]), InvalidReason> {
    let bytes = Bytes::of(frame, extent);
    let timeouts = &knobs.timeouts;
    Ok(match extent.proto {
        proto::SCTP => {
            let (track, secs) = SctpTrack::first(&bytes, timeouts)?;
            (secs, track.to_words())
        }
        proto::DCCP => {
            let (header, _) = dccp::sanity(&bytes)?;
            let (track, secs) = DccpTrack::first(&header, knobs)?;
            (secs, track.to_words())
        }
        proto::GRE => {
            let word = gre::first(timeouts);
            (gre::packet(word, Status::default()).timeout_secs, [word, 0, 0, 0, 0, 0, 0])
        }
        proto::UDPLITE => (udp::packet_lite(Status::default(), timeouts).timeout_secs, [0; 7]),
        _ => (generic::packet(timeouts), [0; 7]),
    })
}

impl<P: FramePool> Pipeline<P> {
    /// Lets the tracker of a known conn judge one packet, and writes its words.
    #[inline(never)]
    pub(crate) fn judge_rarely(
        &mut self,
        frame: &P::Frame,
        extent: Extent,
        conn: Conn<'_>,
        direction: Direction,
        at: At<'_>,
    ) -> Outcome {
        let outcome = judge(frame, extent, conn, direction, at.knobs_of(conn));
        if let Outcome::Invalid { reason, .. } = outcome {
            let numbers = match extent.proto {
                proto::SCTP => {
                    let track = SctpTrack::from_words(conn.tracker_words());
                    track.numbers(&Bytes::of(frame, extent), direction, reason)
                }
                _ => Numbers::None,
            };
            self.sayings.keep(Said { remark: Remark::Invalid(reason, numbers), also: None });
        }
        outcome
    }
}

/// The numbers behind the refusal of a packet that is to begin a conn.
pub(crate) fn numbers_of_first<F: Frame>(
    frame: &F,
    extent: Extent,
    reason: InvalidReason,
) -> Numbers {
    let bytes = Bytes::of(frame, extent);
    SctpTrack::default().numbers(&bytes, Direction::Original, reason)
}

fn judge<F: Frame>(
    frame: &F,
    extent: Extent,
    conn: Conn<'_>,
    direction: Direction,
    knobs: &Knobs,
) -> Outcome {
    let bytes = Bytes::of(frame, extent);
    let (status, timeouts) = (conn.status(), &knobs.timeouts);
    let accept = |accepted: udp::Accepted| Outcome::Accept {
        timeout_secs: Some(accepted.timeout_secs),
        assured: accepted.assured,
        changed: false,
    };
    match extent.proto {
        proto::SCTP => {
            let mut track = SctpTrack::from_words(conn.tracker_words());
            let (outcome, reached) = track.packet(&bytes, direction, timeouts);
            conn.set_tracker_words(&track.to_words());
            let invalid = matches!(outcome, Outcome::Invalid { .. });
            if invalid && reached && !status.has(Status::NAT_CLASH) {
                conn.add_status(Status::ASSURED);
            }
            outcome
        }
        proto::DCCP => match dccp::sanity(&bytes) {
            Err(reason) => Outcome::Invalid { reason, shorten_to_secs: None },
            Ok((header, _)) => {
                let mut track = DccpTrack::from_words(conn.tracker_words());
                let outcome = track.packet(&header, direction, status, timeouts);
                conn.set_tracker_words(&track.to_words());
                outcome
            }
        },
        proto::GRE => accept(gre::packet(conn.tracker_word(0), status)),
        proto::UDPLITE => accept(udp::packet_lite(status, timeouts)),
        _ => accept(udp::Accepted { timeout_secs: generic::packet(timeouts), assured: false }),
    }
}
