//! The GRE tracker (`nf_conntrack_proto_gre.c`).
//!
//! Pure: the record keeps one word, the conn's own two timeouts, taken from the sysctls when it
//! began. Version 0 is tracked by addresses alone; version 1 (RFC 2637) by the call id in its
//! header, which its receiver chose: as nothing here knows the call of the other direction, the
//! source's id is 0 and both directions are conns of their own.

use super::invalid::InvalidReason;
use super::state::Status;
use super::timeouts::{Timeout, Timeouts};
use super::udp::Accepted;
use crate::wire::headers::gre_call_id;

/// Checks a header (`gre_pkt_to_tuple`), which may be cut: who is too short to tell is taken for
/// version 0.
///
/// # Errors
/// `GreProtocol`.
pub fn sanity(l4: &[u8]) -> Result<(), InvalidReason> {
    gre_call_id(l4).map(|_| ()).ok_or(InvalidReason::GreProtocol)
}

/// The record's word for a new conn.
pub const fn first(timeouts: &Timeouts) -> u64 {
    (timeouts.get(Timeout::Gre) as u64) << 32 | timeouts.get(Timeout::GreStream) as u64
}

/// The two timeouts of a conn, in seconds: until it is answered, and from then on.
pub const fn timeouts_of(word: u64) -> [u32; 2] {
    [(word >> 32) as u32, word as u32]
}

/// Judges a packet of either direction; `status` as it was before this packet.
pub const fn packet(word: u64, status: Status) -> Accepted {
    let [plain, stream] = timeouts_of(word);
    let answered = status.has(Status::SEEN_REPLY);
    Accepted {
        timeout_secs: if answered { stream } else { plain },
        assured: answered && !status.has(Status::ASSURED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assured_and_longer_by_the_first_packet_after_an_answer() {
        let word = first(&Timeouts::default());
        assert_eq!(timeouts_of(word), [30, 180]);
        let fresh = packet(word, Status::CONFIRMED);
        assert_eq!((fresh.timeout_secs, fresh.assured), (30, false));
        let answered = Status::CONFIRMED.with(Status::SEEN_REPLY);
        let stream = packet(word, answered);
        assert_eq!((stream.timeout_secs, stream.assured), (180, true));
        assert!(!packet(word, answered.with(Status::ASSURED)).assured);
    }

    #[test]
    fn a_conn_keeps_the_timeouts_it_began_with() {
        let mut timeouts = Timeouts::default();
        timeouts.set(Timeout::Gre, 7);
        timeouts.set(Timeout::GreStream, u32::MAX);
        assert_eq!(timeouts_of(first(&timeouts)), [7, super::super::timeouts::MAX_SECS]);
    }

    #[test]
    fn version_1_carries_ppp_and_nothing_else() {
        let header = |version, proto: u16| {
            let [a, b] = proto.to_be_bytes();
            [0x30, version, a, b, 0, 4, 0, 9]
        };
        assert_eq!(sanity(&header(0, 0x0800)), Ok(()));
        assert_eq!(sanity(&header(1, 0x880b)), Ok(()));
        assert_eq!(sanity(&header(2, 0x0800)), Ok(()));
        assert_eq!(sanity(&header(1, 0x0800)), Err(InvalidReason::GreProtocol));
        assert_eq!(sanity(&header(1, 0x0800)[..7]), Ok(()), "too short to tell");
        assert_eq!(sanity(&[]), Ok(()));
    }
}
