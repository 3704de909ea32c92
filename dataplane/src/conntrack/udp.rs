//! The UDP and UDP-Lite tracker (`nf_conntrack_proto_udp.c`).
//!
//! Pure: the record keeps one [`Tick`], [`stream_after`], written when the conn is created. A conn
//! lives `udp_timeout` until it was answered and until two seconds of life, then
//! `udp_timeout_stream` and ASSURED: one question with one answer is not worth more.

use super::invalid::InvalidReason;
use super::state::Status;
use super::timeouts::{Timeout, Timeouts};
use crate::time::Tick;

/// How long a conn has to live, in seconds, before answered traffic makes it a stream.
pub const STREAM_AFTER_SECS: u32 = 2;

/// The moment after which answered traffic makes the conn a stream; for the record.
#[inline]
pub fn stream_after(created: Tick) -> Tick {
    created.plus_secs(STREAM_AFTER_SECS)
}

/// What an accepted packet does to its conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The new timeout.
    pub timeout_secs: u32,
    /// Set ASSURED (it was not set before).
    pub assured: bool,
}

/// Judges a packet of either direction; `status` as it was before this packet.
#[inline]
pub fn packet(status: Status, stream_after: Tick, now: Tick, timeouts: &Timeouts) -> Accepted {
    // The kernel's `time_after`: two seconds to the tick are not enough.
    let stream =
        status.has(Status::SEEN_REPLY) && stream_after != now && stream_after.has_passed(now);
    let which = if stream { Timeout::UdpStream } else { Timeout::Udp };
    Accepted { timeout_secs: timeouts.get(which), assured: stream && !status.has(Status::ASSURED) }
}

/// Judges a UDP-Lite packet of either direction; `status` as it was before this packet. The first
/// packet after an answer makes a stream of it, however young it is.
pub const fn packet_lite(status: Status, timeouts: &Timeouts) -> Accepted {
    let stream = status.has(Status::SEEN_REPLY);
    let which = if stream { Timeout::UdpStream } else { Timeout::Udp };
    Accepted { timeout_secs: timeouts.get(which), assured: stream && !status.has(Status::ASSURED) }
}

/// Whether the caller has to verify the checksum (if the knob `checksum` asks for it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The sender wrote none, which UDP allows; the kernel does not mind it on IPv6 either.
    Absent,
    /// Over the pseudo header and this many bytes from the UDP header on.
    Covers(u32),
}

/// Checks a UDP header (`udp_error`). `l4` holds at least the header, `l4_len` counts the bytes
/// from the header to the end of the IP packet.
///
/// # Errors
/// `UdpShort`, `UdpLength`.
pub fn sanity(l4: &[u8], l4_len: u32) -> Result<Checksum, InvalidReason> {
    let (length, check) = length_and_check(l4, l4_len)?;
    if length > l4_len || length < 8 {
        return Err(InvalidReason::UdpLength);
    }
    Ok(if check == 0 { Checksum::Absent } else { Checksum::Covers(length) })
}

/// Checks a UDP-Lite header (`udplite_error`, RFC 3828): the length field is a coverage, where 0
/// stands for everything, and the checksum is mandatory.
///
/// # Errors
/// `UdpliteShort`, `UdpliteCoverage`, `UdpliteNoChecksum`.
pub fn sanity_lite(l4: &[u8], l4_len: u32) -> Result<Checksum, InvalidReason> {
    let (coverage, check) =
        length_and_check(l4, l4_len).map_err(|_| InvalidReason::UdpliteShort)?;
    let coverage = if coverage == 0 { l4_len } else { coverage };
    if coverage < 8 || coverage > l4_len {
        return Err(InvalidReason::UdpliteCoverage);
    }
    if check == 0 {
        return Err(InvalidReason::UdpliteNoChecksum);
    }
    Ok(Checksum::Covers(coverage))
}

fn length_and_check(l4: &[u8], l4_len: u32) -> Result<(u32, u16), InvalidReason> {
    match l4.first_chunk::<8>() {
        Some(&[_, _, _, _, l0, l1, c0, c1]) if l4_len >= 8 => {
            Ok((u16::from_be_bytes([l0, l1]) as u32, u16::from_be_bytes([c0, c1])))
        }
        _ => Err(InvalidReason::UdpShort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLIED: Status = Status::CONFIRMED.with(Status::SEEN_REPLY);

    fn at(ticks: u32, status: Status) -> (u32, bool) {
        let accepted = packet(status, stream_after(Tick(1000)), Tick(ticks), &Timeouts::default());
        (accepted.timeout_secs, accepted.assured)
    }

    #[test]
    fn unanswered_traffic_never_becomes_a_stream() {
        for ticks in [1000, 1200, 1201, 900_000] {
            assert_eq!(at(ticks, Status::CONFIRMED), (30, false));
        }
    }

    #[test]
    fn an_answered_conn_is_a_stream_only_after_more_than_two_seconds() {
        assert_eq!(at(1100, REPLIED), (30, false));
        assert_eq!(at(1200, REPLIED), (30, false));
        assert_eq!(at(1201, REPLIED), (120, true));
    }

    #[test]
    fn assured_is_set_once() {
        assert_eq!(at(5000, REPLIED.with(Status::ASSURED)), (120, false));
    }

    #[test]
    fn two_seconds_are_counted_across_the_wrap_of_the_clock() {
        let after = stream_after(Tick(u32::MAX - 10));
        let at = |now| packet(REPLIED, after, now, &Timeouts::default()).timeout_secs;
        assert_eq!(at(Tick(100)), 30);
        assert_eq!(at(Tick(190)), 120);
    }

    const HEADER: [u8; 8] = [0x30, 0x39, 0, 53, 0, 12, 0xab, 0xcd];

    #[test]
    fn the_length_field_must_fit_the_packet() {
        let with = |length: u8| [&HEADER[..5], &[length], &HEADER[6..]].concat();
        assert_eq!(sanity(&with(12), 12), Ok(Checksum::Covers(12)));
        assert_eq!(sanity(&with(12), 20), Ok(Checksum::Covers(12)), "padding is no fault");
        assert_eq!(sanity(&with(8), 8), Ok(Checksum::Covers(8)));
        assert_eq!(sanity(&with(13), 12), Err(InvalidReason::UdpLength));
        assert_eq!(sanity(&with(7), 12), Err(InvalidReason::UdpLength));
        assert_eq!(sanity(&HEADER[..7], 12), Err(InvalidReason::UdpShort));
        assert_eq!(sanity(&HEADER, 7), Err(InvalidReason::UdpShort));
    }

    #[test]
    fn a_zero_checksum_is_absent_in_udp_and_wrong_in_udplite() {
        let none = [0x30, 0x39, 0, 53, 0, 8, 0, 0];
        assert_eq!(sanity(&none, 8), Ok(Checksum::Absent));
        assert_eq!(sanity_lite(&none, 8), Err(InvalidReason::UdpliteNoChecksum));
    }

    #[test]
    fn udplite_coverage_zero_means_everything() {
        let with = |coverage: u8| [&HEADER[..5], &[coverage], &HEADER[6..]].concat();
        assert_eq!(sanity_lite(&with(0), 20), Ok(Checksum::Covers(20)));
        assert_eq!(sanity_lite(&with(9), 20), Ok(Checksum::Covers(9)));
        assert_eq!(sanity_lite(&with(7), 20), Err(InvalidReason::UdpliteCoverage));
        assert_eq!(sanity_lite(&with(21), 20), Err(InvalidReason::UdpliteCoverage));
    }

    proptest! {
        #[test]
        fn no_header_covers_more_than_the_packet(l4: Vec<u8>, l4_len in 0u32..70_000) {
            for checked in [sanity(&l4, l4_len), sanity_lite(&l4, l4_len)] {
                if let Ok(Checksum::Covers(bytes)) = checked {
                    prop_assert!((8..=l4_len).contains(&bytes));
                }
            }
        }
    }
}
