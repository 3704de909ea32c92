//! The ICMP and ICMPv6 trackers (`nf_conntrack_proto_icmp.c`, `nf_conntrack_proto_icmpv6.c`).
//!
//! Pure: what a type number means to tracking. Queries are conns of their own, keyed by their
//! identifier; error messages belong to the conn of the packet they carry and change nothing about
//! it. A conn of queries is never ASSURED.

use super::invalid::InvalidReason;
use super::timeouts::{Timeout, Timeouts};

/// What a packet's type makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Look its tuple up; a type without a partner has no tuple to look up and is INVALID.
    Query,
    /// Carries a packet: look up the inverse of that one's tuple.
    Error,
    /// ICMPv6 redirect (137): carries a packet behind its first option, see [`redirect_option`].
    Redirect,
    /// Neighbour and listener discovery: no conn and not INVALID either.
    Untracked,
    /// A type that the kernel does not know: INVALID, counted as `error`.
    Unknown,
}

/// The highest ICMP type the kernel knows (`NR_ICMP_TYPES`).
const ICMP_TYPE_MAX: u8 = 18;

/// What an ICMP type means.
pub const fn kind(icmp_type: u8) -> Kind {
    match icmp_type {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => Kind::Error,
        0..=ICMP_TYPE_MAX => Kind::Query,
        _ => Kind::Unknown,
    }
}

/// What an ICMPv6 type means.
pub const fn kind_v6(icmp_type: u8) -> Kind {
    match icmp_type {
        // Listener query, report and done; router and neighbour solicitation and advertisement.
        130..=136 => Kind::Untracked,
        137 => Kind::Redirect,
        // Listener report version 2; multicast router advertisement and solicitation.
        143 | 151 | 152 => Kind::Untracked,
        0..=127 => Kind::Error,
        _ => Kind::Query,
    }
}

/// True if a packet of this ICMP type may be the first of a conn: echo, timestamp, information and
/// address mask requests.
pub const fn may_create(icmp_type: u8) -> bool {
    matches!(icmp_type, 8 | 13 | 15 | 17)
}

/// True if a packet of this ICMPv6 type may be the first of a conn: echo request and node
/// information query.
pub const fn may_create_v6(icmp_type: u8) -> bool {
    matches!(icmp_type, 128 | 139)
}

/// The timeout, in seconds, that a query or answer sets.
#[inline]
pub const fn packet(timeouts: &Timeouts) -> u32 {
    timeouts.get(Timeout::Icmp)
}

/// The same for ICMPv6.
#[inline]
pub const fn packet_v6(timeouts: &Timeouts) -> u32 {
    timeouts.get(Timeout::Icmpv6)
}

/// The ICMPv6 redirect message without options (RFC 4861 section 4.5).
const REDIRECT_LEN: usize = 40;

/// Neighbour discovery's "redirected header" option.
const REDIRECTED_HEADER: u8 = 4;

/// Where the packet inside an ICMPv6 redirect begins, counted from the ICMPv6 header
/// (`nf_conntrack_icmpv6_redirect`); `None` if the message carries none, or not first, and is
/// looked up like any other type.
///
/// # Errors
/// `Icmpv6ShortRedirect`; `Icmpv6Redirect` if it did not come from a link-local neighbour;
/// `Icmpv6RedirectOptions`.
pub fn redirect_option(
    l4: &[u8],
    hop_limit: u8,
    source_is_link_local: bool,
) -> Result<Option<usize>, InvalidReason> {
    let Some((message, options)) = l4.split_first_chunk::<REDIRECT_LEN>() else {
        return Err(InvalidReason::Icmpv6ShortRedirect);
    };
    if message[1] != 0 {
        return Ok(None);
    }
    if hop_limit != 255 || !source_is_link_local {
        return Err(InvalidReason::Icmpv6Redirect);
    }
    match options {
        [_, 0, ..] | [] | [_] => Err(InvalidReason::Icmpv6RedirectOptions),
        // Type, length and six reserved bytes, then the packet.
        [REDIRECTED_HEADER, ..] => Ok(Some(REDIRECT_LEN + 8)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::tuple::{Tuple, proto};
    use proptest::prelude::*;

    fn has_partner(icmp_type: u8, protocol: u8) -> bool {
        let dst_id = (icmp_type as u16) << 8;
        Tuple { dst_id, proto: protocol, ..Tuple::default() }.inverted().is_some()
    }

    #[test]
    fn only_requests_create_and_all_of_them_have_a_partner() {
        for icmp_type in 0..=255 {
            let creates = [8, 13, 15, 17].contains(&icmp_type);
            assert_eq!(may_create(icmp_type), creates, "{icmp_type}");
            let creates = [128, 139].contains(&icmp_type);
            assert_eq!(may_create_v6(icmp_type), creates, "{icmp_type}");
            if may_create(icmp_type) {
                assert_eq!(kind(icmp_type), Kind::Query);
                assert!(has_partner(icmp_type, proto::ICMP));
            }
            if may_create_v6(icmp_type) {
                assert_eq!(kind_v6(icmp_type), Kind::Query);
                assert!(has_partner(icmp_type, proto::ICMPV6));
            }
        }
    }

    #[test]
    fn error_messages_are_the_kernels() {
        let errors: Vec<u8> = (0..=255).filter(|&t| kind(t) == Kind::Error).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
        assert!((0..=255).all(|t| (kind_v6(t) == Kind::Error) == (t < 128)));
    }

    #[test]
    fn types_above_18_are_unknown_in_icmp_only() {
        assert!((0..=255).all(|t| (kind(t) == Kind::Unknown) == (t > 18)));
        assert!((0..=255).all(|t| kind_v6(t) != Kind::Unknown));
    }

    #[test]
    fn discovery_is_untracked() {
        let untracked: Vec<u8> = (0..=255).filter(|&t| kind_v6(t) == Kind::Untracked).collect();
        assert_eq!(untracked, [130, 131, 132, 133, 134, 135, 136, 143, 151, 152]);
        assert!((0..=255).all(|t| kind(t) != Kind::Untracked));
    }

    #[test]
    fn each_family_has_its_own_timeout() {
        let mut timeouts = Timeouts::default();
        assert_eq!((packet(&timeouts), packet_v6(&timeouts)), (30, 30));
        timeouts.set(Timeout::Icmpv6, 60);
        assert_eq!((packet(&timeouts), packet_v6(&timeouts)), (30, 60));
    }

    #[test]
    fn a_redirect_must_come_from_a_neighbour_and_carry_a_packet_first() {
        let mut message = [0u8; 48];
        message[0] = 137;
        message[40] = REDIRECTED_HEADER;
        message[41] = 7;
        assert_eq!(redirect_option(&message, 255, true), Ok(Some(48)));
        let refused = Err(InvalidReason::Icmpv6Redirect);
        assert_eq!(redirect_option(&message, 254, true), refused);
        assert_eq!(redirect_option(&message, 255, false), refused);
        let short = Err(InvalidReason::Icmpv6ShortRedirect);
        assert_eq!(redirect_option(&message[..39], 255, true), short);
        let bare = Err(InvalidReason::Icmpv6RedirectOptions);
        assert_eq!(redirect_option(&message[..41], 255, true), bare);
        message[41] = 0;
        assert_eq!(redirect_option(&message, 255, true), bare);
        message[40..42].copy_from_slice(&[2, 1]);
        assert_eq!(redirect_option(&message, 255, true), Ok(None), "target address first");
        message[1] = 1;
        assert_eq!(redirect_option(&message, 1, false), Ok(None), "unknown code");
    }

    proptest! {
        #[test]
        fn the_inner_packet_of_a_redirect_never_begins_inside_its_header(
            l4: Vec<u8>, hop_limit: u8, link_local: bool,
        ) {
            if let Ok(Some(at)) = redirect_option(&l4, hop_limit, link_local) {
                prop_assert!(at == 48 && l4.len() >= 42);
            }
        }
    }
}
