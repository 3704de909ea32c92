//! The packet that an ICMP error quotes: read as leniently as the kernel reads it.
//!
//! The quote is cut where its sender liked, its lengths and checksums need not hold; all that
//! counts is which conn it belongs to (`nf_ct_get_tuplepr` in `nf_conntrack_inet_error`).

use super::address::Address;
use super::headers::{gre_call_id, is_query, protocol};
use super::{ipv4, ipv6};

/// The ids of a quoted packet. Offsets are from the start of the quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Offset of the L4 header, of which nothing may be there.
    pub l4: u16,
    /// L4 protocol.
    pub proto: u8,
    /// Source port, if the protocol has ports.
    pub src_port: u16,
    /// Destination port, or the call id of a PPTP GRE packet.
    pub dst_port: u16,
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub icmp_code: u8,
    /// Identifier of a query or its answer, else 0.
    pub icmp_id: u16,
}

/// Reads the quote after an ICMP (`v6` false) or ICMPv6 error's 8 bytes, up to the end of the
/// packet. `None` if the ids are not there: cut off, a later fragment, a broken header.
pub fn parse(quote: &[u8], v6: bool) -> Option<Quoted> {
    let mut quoted = if v6 { header_v6(quote)? } else { header_v4(quote)? };
    let l4 = match quote.get(quoted.l4 as usize..) {
        None if v6 => &[],
        found => found?,
    };
    match quoted.proto {
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::DCCP => {
            let &[a, b, c, d] = l4.first_chunk()?;
            quoted.src_port = u16::from_be_bytes([a, b]);
            quoted.dst_port = u16::from_be_bytes([c, d]);
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let &[kind, code, _, _, a, b, _, _] = l4.first_chunk()?;
            (quoted.icmp_type, quoted.icmp_code) = (kind, code);
            if is_query(quoted.proto, kind) {
                quoted.icmp_id = u16::from_be_bytes([a, b]);
            }
        }
        protocol::GRE => quoted.dst_port = gre_call_id(l4)?,
        _ => {}
    }
    Some(quoted)
}

/// `ipv4_get_l4proto`.
fn header_v4(quote: &[u8]) -> Option<Quoted> {
    let ip = ipv4::View::new(quote)?;
    // Neither the version nor the header's length is looked at: a length below 5 words makes the L4
    // header overlap the IP header.
    (!ip.fragment().is_later()).then(|| bare(ip.src(), ip.dst(), ip.header_len(), ip.proto()))
}

/// `ipv6_get_l4proto`.
fn header_v6(quote: &[u8]) -> Option<Quoted> {
    let ip = ipv6::View::new(quote)?;
    if ip.src().is_v4() || ip.dst().is_v4() {
        return None;
    }
    let (proto, l4) = behind_extensions(ip.next_header(), quote)?;
    Some(bare(ip.src(), ip.dst(), l4, proto))
}

/// The protocol behind the extension headers and its offset (`ipv6_skip_exthdr`), which may lie
/// beyond the quote: of the last header only the beginning has to be there.
fn behind_extensions(mut proto: u8, quote: &[u8]) -> Option<(u8, usize)> {
    let mut at = ipv6::HEADER_LEN;
    for _ in 0..ipv6::EXTENSIONS_MAX {
        if !ipv6::is_extension(proto) {
            break;
        }
        let &[next, units] = quote.get(at..)?.first_chunk()?;
        if proto == protocol::FRAGMENT {
            let word = quote.get(at + 2..)?.first_chunk()?;
            if u16::from_be_bytes(*word) & !7 != 0 {
                return None;
            }
        }
        at += ipv6::extension_len(proto, units);
        proto = next;
    }
    (!ipv6::is_extension(proto) && proto != protocol::NONE).then_some((proto, at))
}

fn bare(src: Address, dst: Address, l4: usize, proto: u8) -> Quoted {
    Quoted {
        src,
        dst,
        l4: l4 as u16,
        proto,
        src_port: 0,
        dst_port: 0,
        icmp_type: 0,
        icmp_code: 0,
        icmp_id: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An IPv4 header with wrong checksum and TTL 1, and the first 8 bytes of TCP.
    const V4: [u8; 28] = [
        0x45, 0, 0x05, 0xdc, 0, 1, 0x40, 0, 1, 6, 0xbe, 0xef, 192, 168, 10, 2, 203, 0, 113, 9,
        0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1,
    ];

    #[test]
    fn golden() {
        let quoted = parse(&V4, false).unwrap();
        assert_eq!((quoted.src_port, quoted.dst_port, quoted.proto), (40000, 443, 6));
        assert_eq!((quoted.l4, quoted.src.to_string()), (20, "192.168.10.2".into()));
        assert!(parse(&V4[..24], false).is_some(), "the ports are enough");
        for cut in 0..24 {
            assert!(parse(&V4[..cut], false).is_none());
        }
        let mut icmp = V4;
        icmp[9] = 1;
        icmp[20..28].copy_from_slice(&[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
        let quoted = parse(&icmp, false).unwrap();
        assert_eq!((quoted.icmp_type, quoted.icmp_id, quoted.src_port), (8, 0x1234, 0));
        assert!(parse(&icmp[..27], false).is_none());
        // GRE at the source address, whose second byte has no version.
        let mut short = V4;
        (short[0], short[9]) = (0x63, 47);
        assert_eq!(parse(&short, false).map(|quoted| (quoted.l4, quoted.dst_port)), Some((12, 0)));
        let mut later = V4;
        later[7] = 1;
        assert!(parse(&later, false).is_none());
    }

    #[test]
    fn golden_v6() {
        let mut bytes = vec![0x60, 0, 0, 0, 0, 0, 60, 1];
        bytes.extend((0xfd00u128 << 112 | 1).to_be_bytes());
        bytes.extend((0xfd00u128 << 112 | 2).to_be_bytes());
        bytes.extend([17, 0, 1, 4, 0, 0, 0, 0, 0, 7, 0, 53]);
        let quoted = parse(&bytes, true).unwrap();
        assert_eq!((quoted.l4, quoted.proto, quoted.src_port, quoted.dst_port), (48, 17, 7, 53));
        // All that matters of a fragment header and of options, and a protocol that has no ids.
        (bytes[6], bytes[40], bytes[42], bytes[43]) = (44, 47, 0, 1);
        assert_eq!(
            parse(&bytes[..44], true).map(|quoted| (quoted.l4, quoted.proto)),
            Some((48, 47))
        );
        assert!(parse(&bytes[..43], true).is_none());
        bytes[43] = 8;
        assert!(parse(&bytes[..44], true).is_none(), "a later fragment");
        bytes[6] = 60;
        assert!(parse(&bytes[..42], true).is_some());
        bytes[40] = 17;
        assert!(parse(&bytes[..42], true).is_none(), "ports");
        bytes[40] = 59;
        assert!(parse(&bytes, true).is_none(), "nothing follows");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(quoted) = parse(&bytes, v6) {
                prop_assert!(v6 || quoted.l4 as usize <= bytes.len());
            }
        }
    }
}
