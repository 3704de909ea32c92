//! The generic tracker: protocols without a tracker of their own, GRE and SCTP among them.
//!
//! Pure: the conn is addresses and protocol; every packet refreshes the timer and none sets
//! ASSURED (`nf_conntrack_proto_generic`), so such conns are always candidates of early drop.

use super::timeouts::{Timeout, Timeouts};

/// The timeout, in seconds, that a packet in either direction sets.
#[inline]
pub const fn packet(timeouts: &Timeouts) -> u32 {
    timeouts.get(Timeout::Generic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_minutes_unless_set() {
        let mut timeouts = Timeouts::default();
        assert_eq!(packet(&timeouts), 600);
        timeouts.set(Timeout::Generic, 7);
        assert_eq!(packet(&timeouts), 7);
    }
}
