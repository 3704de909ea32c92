//! Neighbour discovery (RFC 4861): solicitations and advertisements of neighbours, and which
//! messages are a router's.
//!
//! [`parse`] judges what `ndisc_rcv`, `ndisc_recv_ns` and `ndisc_recv_na` judge, checksum aside
//! (the caller has verified it, see [`super::icmpv6::check`]). Options are walked once; each takes
//! at least 8 bytes and at most [`OPTIONS_MAX`] are looked at.

use super::address::Address;
use super::ethernet::Mac;
use super::headers::Headers;
use super::icmpv6::kind;

/// Most options in a message; one with more is refused.
pub const OPTIONS_MAX: usize = 32;

/// The hop limit every message must have, so that none comes from beyond the link.
pub const HOP_LIMIT: u8 = 255;

/// Option numbers.
pub mod option {
    /// MAC of the sender of a solicitation.
    pub const SOURCE_MAC: u8 = 1;
    /// MAC of an advertisement's target.
    pub const TARGET_MAC: u8 = 2;
}

/// Bits of a neighbour advertisement.
pub mod flags {
    /// The sender is a router.
    pub const ROUTER: u8 = 0x80;
    /// It answers a solicitation.
    pub const SOLICITED: u8 = 0x40;
    /// It replaces a cached MAC.
    pub const OVERRIDE: u8 = 0x20;
}

/// A valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who has `target`?
    Solicitation {
        /// The address asked for.
        target: Address,
        /// MAC of the asker; never given from the unspecified address.
        source_mac: Option<Mac>,
    },
    /// `target` is here.
    Advertisement {
        /// The address.
        target: Address,
        /// Its MAC; may be left out in an answer to a unicast solicitation.
        target_mac: Option<Mac>,
        /// See [`flags`].
        flags: u8,
    },
    /// A host looks for routers.
    RouterSolicitation,
    /// A router announces itself.
    RouterAdvertisement,
    /// A router knows a better next hop.
    Redirect,
}

/// Reads a message. `headers` are the packet's, `message` its bytes from the ICMPv6 header to the
/// end of the packet. `None` if it is no neighbour discovery or not valid.
pub fn parse(headers: &Headers, message: &[u8]) -> Option<Message> {
    let (head, rest) = message.split_first_chunk::<8>()?;
    let [kind, code, _, _, flags, ..] = *head;
    if headers.ttl != HOP_LIMIT || code != 0 {
        return None;
    }
    match kind {
        kind::ROUTER_SOLICITATION => return Some(Message::RouterSolicitation),
        kind::ROUTER_ADVERTISEMENT => return Some(Message::RouterAdvertisement),
        kind::REDIRECT => return Some(Message::Redirect),
        kind::NEIGHBOUR_SOLICITATION | kind::NEIGHBOUR_ADVERTISEMENT => {}
        _ => return None,
    }
    let (target, options) = rest.split_first_chunk::<16>()?;
    let target = u128::from_be_bytes(*target);
    if is_multicast(target) {
        return None;
    }
    let target = Address::v6(target);
    if kind == kind::NEIGHBOUR_SOLICITATION {
        let source_mac = mac_option(options, option::SOURCE_MAC)?;
        // Duplicate address detection asks from :: to the solicited-node group, without a MAC.
        let probe = headers.src.bits() == 0;
        if probe && (source_mac.is_some() || !is_solicited_node(headers.dst.bits())) {
            return None;
        }
        return Some(Message::Solicitation { target, source_mac });
    }
    if is_multicast(headers.dst.bits()) && flags & flags::SOLICITED != 0 {
        return None;
    }
    let target_mac = mac_option(options, option::TARGET_MAC)?;
    Some(Message::Advertisement { target, target_mac, flags })
}

/// The first MAC option of a kind; the outer `None` means that the options are malformed.
fn mac_option(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    for _ in 0..OPTIONS_MAX {
        let Some(&[kind, units]) = options.first_chunk() else {
            // A single byte cannot be an option.
            return options.is_empty().then_some(found);
        };
        let len = units as usize * 8;
        let (true, Some(body)) = (len > 0, options.get(2..len)) else { return None };
        if kind == wanted && found.is_none() {
            found = Some(Mac(*body.first_chunk::<6>().filter(|_| len == 8)?));
        }
        options = options.get(len..)?;
    }
    options.is_empty().then_some(found)
}

/// True for `ff00::/8`.
#[inline]
pub const fn is_multicast(bits: u128) -> bool {
    bits >> 120 == 0xff
}

const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;

/// The solicited-node group of an address (RFC 4291 section 2.7.1).
#[inline]
pub const fn solicited_node(address: Address) -> Address {
    Address::v6(SOLICITED_NODE | address.bits() & 0xff_ffff)
}

#[inline]
const fn is_solicited_node(bits: u128) -> bool {
    bits >> 24 == SOLICITED_NODE >> 24
}

/// The MAC of an IPv6 multicast group (RFC 2464 section 7).
#[inline]
pub const fn multicast_mac(group: Address) -> Mac {
    let [a, b, c, d] = (group.bits() as u32).to_be_bytes();
    Mac([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::headers;
    use proptest::prelude::*;

    fn packet(src: u128, dst: u128, hop_limit: u8, message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x60, 0, 0, 0, 0, message.len() as u8, 58, hop_limit];
        bytes.extend(src.to_be_bytes());
        bytes.extend(dst.to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn judged(src: u128, dst: u128, hop_limit: u8, message: &[u8]) -> Option<Message> {
        let bytes = packet(src, dst, hop_limit, message);
        let headers = headers::parse_ip(&bytes, bytes.len()).unwrap();
        parse(&headers, &bytes[headers.l4 as usize..])
    }

    const A: u128 = 0xfe80 << 112 | 1;
    const B: u128 = 0xfe80 << 112 | 0xaabbcc;

    fn message(kind: u8, flags: u8, target: u128, options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        bytes.extend(target.to_be_bytes());
        bytes.extend(options);
        bytes
    }

    #[test]
    fn groups() {
        let group = solicited_node(Address::v6(B));
        assert_eq!(group.to_string(), "ff02::1:ffaa:bbcc");
        assert_eq!(multicast_mac(group), Mac([0x33, 0x33, 0xff, 0xaa, 0xbb, 0xcc]));
    }

    #[test]
    fn golden() {
        let group = solicited_node(Address::v6(B)).bits();
        let ns = message(135, 0, B, &[1, 1, 2, 0, 0, 0, 0, 9]);
        let (target, mac) = (Address::v6(B), Some(Mac([2, 0, 0, 0, 0, 9])));
        let asked = Message::Solicitation { target, source_mac: mac };
        assert_eq!(judged(A, group, 255, &ns), Some(asked));
        let na = message(136, 0xe0, B, &[14, 1, 0, 0, 0, 0, 0, 0, 2, 1, 2, 0, 0, 0, 0, 9]);
        let told = Message::Advertisement { target, target_mac: mac, flags: 0xe0 };
        assert_eq!(judged(B, A, 255, &na), Some(told));
        assert_eq!(
            judged(A, B, 255, &[133, 0, 0, 0, 0, 0, 0, 0]),
            Some(Message::RouterSolicitation)
        );
        assert_eq!(
            judged(A, B, 255, &[134, 0, 0, 0, 0, 0, 0, 0]),
            Some(Message::RouterAdvertisement)
        );
        assert_eq!(judged(A, B, 255, &[128, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn refused() {
        let group = solicited_node(Address::v6(B)).bits();
        let ns = |options: &[u8]| message(135, 0, B, options);
        let mac = [1, 1, 2, 0, 0, 0, 0, 9];
        assert!(judged(A, group, 255, &ns(&[])).is_some());
        assert_eq!(judged(A, group, 254, &ns(&mac)), None, "from beyond the link");
        assert_eq!(judged(0, group, 255, &ns(&mac)), None, "a probe has no MAC");
        assert!(judged(0, group, 255, &ns(&[])).is_some());
        assert_eq!(judged(0, A, 255, &ns(&[])), None, "a probe goes to the group");
        assert_eq!(judged(A, group, 255, &ns(&[1, 0, 2, 0, 0, 0, 0, 9])), None, "length 0");
        assert_eq!(judged(A, group, 255, &ns(&[1, 2, 2, 0, 0, 0, 0, 9])), None, "cut short");
        assert_eq!(judged(A, group, 255, &ns(&[1, 2].repeat(8))), None, "no Ethernet MAC");
        assert_eq!(judged(A, group, 255, &ns(&[1])), None);
        assert_eq!(judged(A, group, 255, &message(135, 0, 0xff02 << 112, &[])), None);
        let na = message(136, 0x40, B, &[]);
        assert_eq!(judged(B, 0xff02 << 112 | 1, 255, &na), None, "solicited to a group");
        assert_eq!(judged(A, group, 255, &ns(&[])[..23]), None);
    }

    proptest! {
        #[test]
        fn any_message(
            bytes in proptest::collection::vec(any::<u8>(), 8..120),
            kind in 133u8..138,
        ) {
            let mut bytes = bytes;
            (bytes[0], bytes[1]) = (kind, 0);
            judged(A, B, 255, &bytes);
        }
    }
}
