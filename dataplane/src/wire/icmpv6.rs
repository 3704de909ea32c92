//! ICMPv6 (RFC 4443): types and codes. The header has ICMP's layout, so the views are shared; the
//! checksum covers the IPv6 pseudo header as well.

pub use super::icmp::{HEADER_LEN, View, ViewMut};

use super::address::Address;
use super::checksum;
use super::headers::protocol;

/// ICMPv6 types.
pub mod kind {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big; the header carries the MTU.
    pub const PACKET_TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem; the header carries a pointer.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Router solicitation (RFC 4861).
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
}

/// Codes of destination unreachable.
pub mod unreachable {
    /// No route.
    pub const NO_ROUTE: u8 = 0;
    /// Administratively prohibited.
    pub const PROHIBITED: u8 = 1;
    /// Beyond the scope of the source address.
    pub const BEYOND_SCOPE: u8 = 2;
    /// The address does not answer.
    pub const ADDRESS: u8 = 3;
    /// Nobody listens.
    pub const PORT: u8 = 4;
    /// The source address failed a policy.
    pub const POLICY: u8 = 5;
    /// A reject route.
    pub const REJECT: u8 = 6;
}

/// True for the types that quote another packet: those below 128.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
}

/// The check of a whole message that lies in one piece; 0 if it contains its correct check.
pub fn check(src: Address, dst: Address, message: &[u8]) -> u16 {
    let pseudo = checksum::pseudo_v6(
        src.bits(),
        dst.bits(),
        protocol::ICMPV6,
        u32::try_from(message.len()).unwrap_or(u32::MAX),
    );
    checksum::finish(pseudo + checksum::sum(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by hand: pseudo header fe80::1 -> fe80::2, 8 bytes, an echo request.
    #[test]
    fn golden() {
        let (src, dst) = (Address::v6(0xfe80 << 112 | 1), Address::v6(0xfe80 << 112 | 2));
        let mut message = [128, 0, 0, 0, 0, 1, 0, 1];
        // fe80 + 1 + fe80 + 2 + 8 + 3a + 8000 + 1 + 1 = 27d47, folded 7d49.
        assert_eq!(check(src, dst, &message), !0x7d49);
        message[2..4].copy_from_slice(&(!0x7d49u16).to_be_bytes());
        assert_eq!(check(src, dst, &message), 0);
        assert!(is_error(127) && !is_error(128));
    }
}
