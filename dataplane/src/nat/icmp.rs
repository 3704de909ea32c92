//! ICMP errors about translated conns: the packet they quote is edited back to what its sender
//! sent.
//!
//! An error belongs to the conn whose packet it quotes. [`inner_tuple`] reads the quote for the
//! lookup (`nf_conntrack_inet_error`: the tuple is inverted, then looked up; it says which way the
//! error travels). [`rewrite_error`] does one NAT hook (`nf_nat_icmp_reply_translation`): the quote
//! gets the inverse of the edit, the outer header the direct one.
//!
//! A quote may end anywhere after the ids, and may go on in further segments: only what is there
//! and in the first segment is changed, and the error's own checksum is adjusted by what changed,
//! never summed anew. So the headers of the quote, up to 20 bytes of L4 header where the packet has
//! them, must lie in the first segment.
//!
//! Redirects about translated conns are not for the receiver and have to be dropped
//! ([`is_redirect`]). Nothing here loops but the walk of IPv6 extension headers, which is bounded.

use super::range::Manip;
use super::rewrite::{self, Place};
use crate::conntrack::tuple::{Tuple, proto};
use crate::wire::address::Address;
use crate::wire::headers::{Fragment, Headers, gre_call_id, is_query};
use crate::wire::{checksum, ipv4, ipv6};

/// Bytes of an ICMP error before the quote, in both families.
const ERROR_LEN: usize = 8;

/// Most bytes of an L4 header that an edit can touch: up to the checksum of TCP.
const L4_EDIT_MAX: usize = 20;

/// L4 bytes that every error has to quote (RFC 792).
const QUOTED_MIN: usize = 8;

/// The packet that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    /// As quoted. For enhanced GRE only the destination's call id is known.
    pub tuple: Tuple,
    /// Offset of its IP header in the frame.
    pub l3: u16,
    /// Offset of its L4 header in the frame.
    pub l4: u16,
    /// Bytes of its L4 header and payload when it was sent.
    pub l4_len: u16,
}

/// True for the ICMP and ICMPv6 types that quote a packet (`nf_conntrack_icmpv4_error` and its
/// IPv6 twin).
#[inline]
pub const fn is_error(headers: &Headers) -> bool {
    match headers.proto {
        proto::ICMP => matches!(headers.icmp_type, 3 | 4 | 5 | 11 | 12),
        proto::ICMPV6 => headers.icmp_type < 128,
        _ => false,
    }
}

/// True for redirects, which must not cross a translation: the gateway they name is not the
/// sender's.
#[inline]
pub const fn is_redirect(headers: &Headers) -> bool {
    matches!((headers.proto, headers.icmp_type), (proto::ICMP, 5) | (proto::ICMPV6, 137))
}

/// Reads the quote of an error that `headers` describe; `None` if it is too short for its ids, is
/// broken, or is a later fragment. Then the error is INVALID.
pub fn inner_tuple(frame: &[u8], headers: &Headers) -> Option<Inner> {
    let l3 = headers.l4 as usize + ERROR_LEN;
    let end = (headers.end as usize).min(frame.len());
    let quote = frame.get(l3..end)?;
    let (src, dst, proto, l4, l4_len) = match headers.proto {
        proto::ICMP => {
            let ip = ipv4::View::new(quote)?;
            let len = ip.header_len();
            let whole = matches!(ip.fragment(), Fragment::None | Fragment::First { .. });
            // The outer header says of which family the quote is; its own version is not read.
            if len < ipv4::HEADER_LEN || !whole {
                return None;
            }
            (ip.src(), ip.dst(), ip.proto(), len, ip.total_len().saturating_sub(len as u16))
        }
        proto::ICMPV6 => {
            let ip = ipv6::View::new(quote)?;
            if ip.src().is_v4() || ip.dst().is_v4() {
                return None;
            }
            let chain = ipv6::walk(ip.next_header(), quote.get(ipv6::HEADER_LEN..)?).ok()?;
            if chain.fragment.is_later() {
                return None;
            }
            let l4_len = ip.payload_len().saturating_sub(chain.len);
            (ip.src(), ip.dst(), chain.proto, ipv6::HEADER_LEN + chain.len as usize, l4_len)
        }
        _ => return None,
    };
    let (src_id, dst_id) = ids(proto, quote.get(l4..)?)?;
    let tuple = Tuple { src, dst, src_id, dst_id, proto };
    Some(Inner { tuple, l3: l3 as u16, l4: (l3 + l4) as u16, l4_len })
}

/// The ids of a quoted L4 header: ports need 4 bytes, ICMP needs 8 (`nf_ct_get_tuple`).
fn ids(proto: u8, l4: &[u8]) -> Option<(u16, u16)> {
    Some(match proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => {
            let &[a, b, c, d] = l4.first_chunk()?;
            (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
        }
        proto::ICMP | proto::ICMPV6 => {
            let &[kind, code, _, _, a, b, _, _] = l4.first_chunk()?;
            let id = if is_query(proto, kind) { u16::from_be_bytes([a, b]) } else { 0 };
            (id, u16::from_be_bytes([kind, code]))
        }
        proto::GRE => (0, gre_call_id(l4)?),
        _ => (0, 0),
    })
}

/// Translates an error at one NAT hook. `other` is the tuple of the conn's direction opposite to
/// the one that the error travels in: what the quoted packet was when it came to the gateway.
/// `manip` is the hook's; a hook that translates nothing in this direction is an edit without
/// effect.
///
/// False if the quote ends before the eighth byte of a header with ports or an id, fewer than any
/// host has to quote (`nf_nat_manip_pkt`): what cannot be translated must not pass.
pub fn rewrite_error(
    frame: &mut [u8],
    headers: &mut Headers,
    inner: &Inner,
    manip: Manip,
    other: &Tuple,
) -> bool {
    rewrite_inner(frame, headers, inner, manip, other).is_some()
        && rewrite_outer(frame, headers, manip, other).is_some()
}

/// What the hook's edit did to the destination of a packet it had done to the source of the quoted
/// one, and the other way round.
fn rewrite_inner(
    frame: &mut [u8],
    headers: &Headers,
    inner: &Inner,
    manip: Manip,
    other: &Tuple,
) -> Option<()> {
    let end = (headers.end as usize).min(frame.len());
    let (l3, l4) = (inner.l3 as usize, inner.l4 as usize);
    if has_edited_header(inner.tuple.proto) && end < l4 + QUOTED_MIN {
        return None;
    }
    let touched = l3..end.min(l4 + L4_EDIT_MAX);
    let (opposite, from) = match manip {
        Manip::Src => (Manip::Dst, inner_address(frame, inner, Manip::Dst)?),
        Manip::Dst => (Manip::Src, inner_address(frame, inner, Manip::Src)?),
    };
    let place =
        Place { l3, l4, end, l4_len: inner.l4_len as u32, proto: inner.tuple.proto, has_l4: true };
    let before = checksum::sum(frame.get(touched.clone())?) as u16;
    rewrite::edit(frame, &place, opposite, from, other)?;
    let after = checksum::sum(frame.get(touched)?) as u16;
    adjust_error(frame, headers, checksum::delta16(before, after))
}

/// Protocols of whose headers an edit touches the first [`QUOTED_MIN`] bytes.
const fn has_edited_header(proto: u8) -> bool {
    use proto::{ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
    matches!(proto, TCP | UDP | UDPLITE | SCTP | ICMP | ICMPV6)
}

/// The quote's present address: an earlier hook may have changed it since it was read.
fn inner_address(frame: &[u8], inner: &Inner, end: Manip) -> Option<Address> {
    let quote = frame.get(inner.l3 as usize..)?;
    Some(match (inner.tuple.is_v6(), end) {
        (false, Manip::Src) => ipv4::View::new(quote)?.src(),
        (false, Manip::Dst) => ipv4::View::new(quote)?.dst(),
        (true, Manip::Src) => ipv6::View::new(quote)?.src(),
        (true, Manip::Dst) => ipv6::View::new(quote)?.dst(),
    })
}

/// The outer header gets the address at its end of the inverse of `other`.
fn rewrite_outer(
    frame: &mut [u8],
    headers: &mut Headers,
    manip: Manip,
    other: &Tuple,
) -> Option<()> {
    let to = Tuple { src: other.dst, dst: other.src, proto: headers.proto, ..Tuple::default() };
    // An error has no id of its own: only the addresses and what covers them change.
    rewrite::apply(frame, headers, manip, &to).then_some(())
}

fn adjust_error(frame: &mut [u8], headers: &Headers, delta: u16) -> Option<()> {
    let at = headers.l4 as usize + 2;
    let check = frame.get_mut(at..at + 2)?.first_chunk_mut::<2>()?;
    *check = checksum::adjust_delta(u16::from_be_bytes(*check), delta).to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::rewrite::samples::*;
    use super::*;
    use crate::wire::headers::parse;
    use proptest::prelude::*;

    /// An error from `src` to `dst` that quotes `quote`.
    fn error(src: Address, dst: Address, quote: &[u8]) -> Vec<u8> {
        let v6 = !src.is_v4();
        let (proto, kind) = if v6 { (proto::ICMPV6, 1) } else { (proto::ICMP, 3) };
        let tuple = Tuple { src, dst, src_id: 0, dst_id: kind << 8 | 1, proto };
        frame(&ip(&tuple, &l4(&tuple, quote, false), false), v6)
    }

    fn a_router(v6: bool) -> Address {
        if v6 { Address::v6(0x2001 << 112 | 99) } else { Address::v4(0xc633_6463) }
    }

    #[test]
    fn an_error_about_a_snatted_packet_by_hand() {
        let orig = Tuple {
            src: Address::v4(0xc0a8_0a02),
            dst: Address::v4(0xc633_6407),
            src_id: 40000,
            dst_id: 53,
            proto: proto::UDP,
        };
        let sent = Tuple { src: Address::v4(0xcb00_7101), src_id: 1024, ..orig };
        let quote = ip(&sent, &l4(&sent, b"query", false), false);
        let mut frame = error(a_router(false), sent.src, &quote[..28]);
        let mut headers = parse(&frame, frame.len()).unwrap();
        assert!(is_error(&headers) && !is_redirect(&headers));
        let inner = inner_tuple(&frame, &headers).unwrap();
        assert_eq!(inner.tuple, sent);
        assert_eq!((inner.l3, inner.l4, inner.l4_len), (42, 62, 13));
        assert!(rewrite_error(&mut frame, &mut headers, &inner, Manip::Dst, &orig));
        let quote = ip(&orig, &l4(&orig, b"query", false), false);
        assert_eq!(frame, error(a_router(false), orig.src, &quote[..28]));
        assert_eq!(headers.dst, orig.src);
    }

    #[test]
    fn quotes_too_short_or_broken_have_no_tuple() {
        let t = Tuple {
            src: Address::v4(1),
            dst: Address::v4(2),
            src_id: 3,
            dst_id: 4,
            proto: proto::TCP,
        };
        let quote = ip(&t, &l4(&t, &[], false), false);
        let read = |quote: &[u8]| {
            let frame = error(a_router(false), t.src, quote);
            inner_tuple(&frame, &parse(&frame, frame.len()).unwrap())
        };
        assert_eq!(read(&quote[..24]).map(|inner| inner.tuple), Some(t));
        assert_eq!(read(&quote[..23]), None);
        assert_eq!(read(&quote[..19]), None);
        assert_eq!(read(&[]), None);
        let with = |at: usize, byte: u8| {
            let mut quote = quote.clone();
            quote[at] = byte;
            read(&quote)
        };
        assert_eq!(with(0, 0x65).map(|inner| inner.tuple), Some(t), "another version");
        assert_eq!(with(0, 0x44), None, "header length");
        assert_eq!(with(7, 1), None, "later fragment");
        assert_eq!(with(6, 0x20).map(|inner| inner.tuple), Some(t), "first fragment");
    }

    proptest! {
        /// A conn whose packets arrive as `orig` and leave as `sent`; an error about one comes back
        /// and becomes the error that a router would have sent to the client without translation.
        #[test]
        fn a_translated_error_is_the_one_built_anew(
            (orig, sent) in translation(), cut in 8usize..80, long: bool, no_check: bool,
            payload in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let v6 = orig.is_v6();
            let quoted = |tuple: &Tuple| {
                let whole = ip(tuple, &l4(tuple, &payload, no_check), long);
                let head = whole.len() - l4(tuple, &payload, no_check).len();
                // Between 18 and 20 bytes of TCP or 8 and 12 of SCTP the checksum is half there.
                let l4 = match cut { 9..20 => 8, cut => cut };
                whole[..whole.len().min(head + l4)].to_vec()
            };
            let mut frame = error(a_router(v6), sent.src, &quoted(&sent));
            let mut headers = parse(&frame, frame.len()).unwrap();
            let inner = inner_tuple(&frame, &headers).unwrap();
            prop_assert_eq!(inner.tuple, sent);

            // PREROUTING undoes the source, POSTROUTING the destination.
            prop_assert!(rewrite_error(&mut frame, &mut headers, &inner, Manip::Dst, &orig));
            prop_assert_eq!(headers, parse(&frame, frame.len()).unwrap());
            prop_assert!(rewrite_error(&mut frame, &mut headers, &inner, Manip::Src, &orig));
            prop_assert_eq!(&frame, &error(orig.dst, orig.src, &quoted(&orig)));

            // And the same conn's other direction puts it back, but for the router's address.
            for manip in [Manip::Dst, Manip::Src] {
                prop_assert!(rewrite_error(&mut frame, &mut headers, &inner, manip, &sent));
            }
            prop_assert_eq!(&frame, &error(sent.dst, sent.src, &quoted(&sent)));
        }

        #[test]
        fn no_quote_panics(
            quote in proptest::collection::vec(any::<u8>(), 0..120), v6: bool,
            (orig, _) in translation(), first in any::<u8>(), proto: u8,
        ) {
            let mut quote = quote;
            if let Some(byte) = quote.first_mut() {
                *byte = if v6 { 0x60 } else { 0x40 | first & 15 };
            }
            if let Some(byte) = quote.get_mut(if v6 { 6 } else { 9 }) {
                *byte = proto;
            }
            let mut frame = error(a_router(v6), a_router(v6), &quote);
            let mut headers = parse(&frame, frame.len()).unwrap();
            let mut may_pass = true;
            if let Some(inner) = inner_tuple(&frame, &headers)
                && inner.tuple.is_v6() == orig.is_v6()
            {
                for manip in [Manip::Dst, Manip::Src] {
                    may_pass &= rewrite_error(&mut frame, &mut headers, &inner, manip, &orig);
                }
            }
            // What is left half edited is dropped.
            prop_assert!(!may_pass || checksum_ok(&frame, &headers), "the outer checksum is right");
        }
    }

    fn checksum_ok(frame: &[u8], headers: &Headers) -> bool {
        let mut sum = checksum::Accumulator::new(match headers.is_v6() {
            true => checksum::pseudo(headers.src, headers.dst, headers.proto, headers.l4_len()),
            false => 0,
        });
        sum.add(&frame[headers.l4 as usize..]);
        sum.finish() == 0
    }
}
