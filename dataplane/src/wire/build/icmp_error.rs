//! ICMP and ICMPv6 errors as `icmp_send` and `icmp6_send` make them.
//!
//! IPv4: at most 576 bytes of IP packet, precedence "internetwork control" over the TOS of the
//! packet that caused it, DF clear, the packet's options not echoed. IPv6: at most 1280 bytes of IP
//! packet, traffic class and flow label 0.

use super::{Ip, Link, TTL, Writer};
use crate::wire::address::Address;
use crate::wire::headers::{Headers, protocol};
use crate::wire::icmp;
use crate::wire::icmpv6;
use crate::wire::ndp;

/// Most bytes of an IPv4 packet with an error (RFC 1812 section 4.3.2.3).
pub const V4_MAX: usize = 576;

/// Most bytes of an IPv6 packet with an error: the smallest MTU (RFC 4443 section 2.4).
pub const V6_MAX: usize = 1280;

/// What to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum: an MTU, a pointer (in ICMP in the first byte), or 0.
    pub rest: u32,
}

impl Problem {
    /// ICMP time exceeded or its ICMPv6 counterpart: the TTL ran out here.
    pub const fn ttl(v6: bool) -> Problem {
        let kind = if v6 { icmpv6::kind::TIME_EXCEEDED } else { icmp::kind::TIME_EXCEEDED };
        Problem { kind, code: 0, rest: 0 }
    }

    /// The same for a datagram whose fragments did not all come in time.
    pub const fn reassembly(v6: bool) -> Problem {
        Problem { code: 1, ..Problem::ttl(v6) }
    }

    /// Fragmentation needed, or packet too big, with the next hop's MTU in bytes.
    pub const fn too_big(v6: bool, mtu: u32) -> Problem {
        if v6 {
            Problem { kind: icmpv6::kind::PACKET_TOO_BIG, code: 0, rest: mtu }
        } else {
            let rest = if mtu > 0xffff { 0xffff } else { mtu };
            let code = icmp::unreachable::FRAGMENTATION_NEEDED;
            Problem { kind: icmp::kind::UNREACHABLE, code, rest }
        }
    }

    /// Destination unreachable with a code of that family.
    pub const fn unreachable(v6: bool, code: u8) -> Problem {
        let kind = if v6 { icmpv6::kind::UNREACHABLE } else { icmp::kind::UNREACHABLE };
        Problem { kind, code, rest: 0 }
    }
}

/// True if an error may be sent about a packet: not about an error, not about a later IPv4
/// fragment, not to or about a group or broadcast address that the header shows. Whether an address
/// is a subnet's broadcast is the caller's knowledge. `group_too` is for ICMPv6 packet too big and
/// unknown options, which are sent about multicast packets as well.
///
/// The type byte of an ICMP header counts even where the header is cut short behind it, as the
/// kernel reads no more of it (`icmp_send`, `is_ineligible`); `frame` is its first segment.
pub fn answerable(headers: &Headers, frame: &[u8], group_too: bool) -> bool {
    if headers.fragment.is_later() && !headers.is_v6() {
        return false;
    }
    let kind = frame.get(headers.l4 as usize).copied().filter(|_| headers.l4_len() > 0);
    let about_error = match headers.proto {
        // A later IPv6 fragment shows no type, and the kernel answers it (RFC 8200 section 4.5).
        protocol::ICMPV6 if headers.is_v6() => {
            !headers.fragment.is_later() && kind.is_none_or(icmpv6::is_error)
        }
        protocol::ICMP if !headers.is_v6() => kind.is_none_or(icmp::is_unanswerable),
        _ => false,
    };
    if about_error {
        return false;
    }
    if headers.is_v6() {
        let (src, dst) = (headers.src.bits(), headers.dst.bits());
        src != 0 && !ndp::is_multicast(src) && (group_too || !ndp::is_multicast(dst))
    } else {
        let group = |bits: u32| bits >> 28 == 0xe || bits == u32::MAX;
        let (src, dst) = (headers.src.v4_bits(), headers.dst.v4_bits());
        src >> 24 != 0 && !group(src) && !group(dst)
    }
}

/// An error about `packet` (from its IP header to its end, or as much as the first segment has),
/// from `src` to the packet's source. `id` is the IPv4 identification to use.
pub fn write(
    buffer: &mut [u8],
    link: &Link,
    src: Address,
    problem: Problem,
    headers: &Headers,
    packet: &[u8],
    id: u16,
) -> Option<usize> {
    let v6 = headers.is_v6();
    let (room, proto) = if v6 {
        (V6_MAX - 40 - icmp::HEADER_LEN, protocol::ICMPV6)
    } else {
        (V4_MAX - 20 - icmp::HEADER_LEN, protocol::ICMP)
    };
    let quote = packet.get(..room.min(headers.ip_len() as usize)).unwrap_or(packet);
    let tos = if v6 { 0 } else { headers.tos & 0x1e | 0xc0 };
    let ip = Ip { src, dst: headers.src, proto, ttl: TTL, tos, id, fragment_word: 0 };
    let mut writer = Writer::new(buffer);
    writer.ip(link, &ip, icmp::HEADER_LEN + quote.len())?;
    let l4 = writer.len();
    writer.put(&[problem.kind, problem.code, 0, 0])?;
    writer.put(&problem.rest.to_be_bytes())?;
    writer.put(quote)?;
    writer.finish_l4(&ip, l4, 2)?;
    Some(writer.len())
}

#[cfg(test)]
mod tests {
    use super::super::packet::Packet;
    use super::super::tests::LINK;
    use super::*;
    use crate::wire::{headers, quoted};

    const V4: [&str; 2] = ["192.168.10.2:40000", "203.0.113.9:53"];
    const V6: [&str; 2] = ["[fd00:10::2]:40000", "[2001:db8::9]:53"];

    fn udp(ends: [&str; 2], len: usize) -> Vec<u8> {
        Packet::udp(ends[0].parse().unwrap(), ends[1].parse().unwrap())
            .tos(0xb9)
            .payload(&vec![7; len])
            .to_vec()
    }

    fn about(frame: &[u8], src: Address, problem: Problem) -> Vec<u8> {
        let read = headers::parse(frame, frame.len()).unwrap();
        let mut buffer = [0u8; super::super::ROOM];
        let packet = &frame[read.l3 as usize..];
        let len = write(&mut buffer, &LINK, src, problem, &read, packet, 0x4321).unwrap();
        for room in [0, 14, 33, 41, len - 1] {
            let buffer = &mut [0; super::super::ROOM][..room];
            assert_eq!(write(buffer, &LINK, src, problem, &read, packet, 0x4321), None);
        }
        buffer[..len].to_vec()
    }

    #[test]
    fn v4_short_and_long() {
        for (payload, len) in [(0, 56), (40, 96), (520, 576), (521, 576), (1400, 576)] {
            let src = Address::v4(0xc0a8_0a01);
            let frame = udp(V4, payload);
            let error = about(&frame, src, Problem::too_big(false, 1400));
            let read = headers::parse(&error, error.len()).unwrap();
            assert!(read.l4_check_ok(&error));
            assert_eq!(read.ip_len(), len);
            assert_eq!((read.src, read.dst.to_string()), (src, "192.168.10.2".into()));
            assert_eq!((read.tos, read.ttl, read.dont_fragment), (0xd8, 64, false));
            assert_eq!((read.icmp_type, read.icmp_code), (3, 4));
            assert_eq!(error[18..20], [0x43, 0x21]);
            let icmp = icmp::View::new(&error[34..]).unwrap();
            assert_eq!((icmp.rest(), icmp.seq()), (1400, 1400));
            let inner = quoted::parse(&error[42..], false).unwrap();
            assert_eq!((inner.src_port, inner.dst_port), (40000, 53));
            assert!(!answerable(&read, &error, false), "no error about an error");
        }
    }

    #[test]
    fn v6_short_and_long() {
        for (payload, len) in [(0, 96), (1184, 1280), (1185, 1280), (1400, 1280)] {
            let src = Address::v6(0xfd00_0010 << 96 | 1);
            let error = about(&udp(V6, payload), src, Problem::ttl(true));
            let read = headers::parse(&error, error.len()).unwrap();
            assert!(read.l4_check_ok(&error));
            assert_eq!((read.ip_len(), read.tos, read.ttl), (len, 0, 64));
            assert_eq!((read.icmp_type, read.icmp_code), (3, 0));
            assert_eq!(quoted::parse(&error[62..], true).unwrap().dst_port, 53);
            assert!(!answerable(&read, &error, false));
        }
    }

    #[test]
    fn padding_is_not_quoted() {
        let mut frame = udp(V4, 0);
        frame.resize(60, 0);
        let error = about(&frame, Address::v4(1), Problem::unreachable(false, 3));
        assert_eq!(error.len(), 14 + 20 + 8 + 28);
    }

    #[test]
    fn what_is_answered() {
        let ask = |frame: &[u8], group| {
            let read = headers::parse(frame, frame.len()).unwrap();
            answerable(&read, frame, group)
        };
        assert!(ask(&udp(V4, 0), false));
        assert!(!ask(&udp([V4[0], "224.0.0.5:1"], 0), false));
        assert!(!ask(&udp([V4[0], "255.255.255.255:1"], 0), false));
        assert!(!ask(&udp(["0.0.0.0:68", V4[1]], 0), false));
        assert!(ask(&udp(V6, 0), false));
        assert!(!ask(&udp([V6[0], "[ff02::1]:1"], 0), false));
        assert!(ask(&udp([V6[0], "[ff02::1]:1"], 0), true));
        assert!(!ask(&udp(["[::]:1", V6[1]], 0), false));
        let ends = [V4[0].parse().unwrap(), V4[1].parse().unwrap()];
        assert!(!ask(&Packet::udp(ends[0], ends[1]).fragment(8, true).to_vec(), false));
        let (a, b) = (ends[0].ip(), ends[1].ip());
        assert!(ask(&Packet::icmp(a, b, 8, 0, 1).to_vec(), false));
        assert!(!ask(&Packet::icmp(a, b, 11, 0, 0).to_vec(), false));
        assert!(!ask(&Packet::icmp(a, b, 40, 0, 0).to_vec(), false));
    }

    /// As Linux 6.18 does: the type alone decides, where there is one.
    #[test]
    fn of_a_header_cut_short_the_type_counts() {
        let v4 = ["10.1.0.5".parse().unwrap(), "10.9.0.5".parse().unwrap()];
        let v6 = ["fd00:1::5".parse().unwrap(), "fd00:9::5".parse().unwrap()];
        for (ends, kind, left, answered) in [
            (v4, 8, 5, true),
            (v4, 8, 1, true),
            (v4, 8, 0, false),
            (v4, 11, 5, false),
            (v6, 128, 5, true),
            (v6, 128, 1, true),
            (v6, 128, 0, false),
            (v6, 3, 5, false),
        ] {
            let mut frame = Packet::icmp(ends[0], ends[1], kind, 0, 1).to_vec();
            let l3: usize = if ends[0].is_ipv4() { 20 } else { 40 };
            frame.truncate(14 + l3 + left);
            if ends[0].is_ipv4() {
                frame[16..18].copy_from_slice(&(20 + left as u16).to_be_bytes());
                frame[24..26].fill(0);
                let sum = crate::wire::checksum::internet(&frame[14..34]);
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            } else {
                frame[18..20].copy_from_slice(&(left as u16).to_be_bytes());
            }
            let read = headers::parse(&frame, frame.len()).unwrap();
            assert!(read.l4_truncated);
            assert_eq!(answerable(&read, &frame, false), answered, "{ends:?} {kind} {left}");
        }
    }

    /// What Linux 6.18 answered when the TTL of this datagram ran out.
    #[test]
    fn golden_is_the_kernels() {
        let frame = Packet::udp(V4[0].parse().unwrap(), V4[1].parse().unwrap())
            .ttl(1)
            .tos(0xb9)
            .id(0x1234)
            .l4_check(0)
            .payload(&[b'x'; 40])
            .to_vec();
        let read = headers::parse(&frame, frame.len()).unwrap();
        let link = Link { dst: LINK.src, src: LINK.dst, tci: None };
        let mut buffer = [0u8; 128];
        let (src, problem) = (Address::v4(0xc0a8_0a01), Problem::ttl(false));
        let len = write(&mut buffer, &link, src, problem, &read, &frame[14..], 0x3c9a).unwrap();
        let mut expected = vec![
            0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00,
            0x45, 0xd8, 0x00, 0x60, 0x3c, 0x9a, 0x00, 0x00, 0x40, 0x01, 0xa7, 0xd7, 0xc0, 0xa8,
            0x0a, 0x01, 0xc0, 0xa8, 0x0a, 0x02, 0x0b, 0x00, 0xee, 0xf0, 0x00, 0x00, 0x00, 0x00,
            0x45, 0xb9, 0x00, 0x44, 0x12, 0x34, 0x40, 0x00, 0x01, 0x11, 0x60, 0x08, 0xc0, 0xa8,
            0x0a, 0x02, 0xcb, 0x00, 0x71, 0x09, 0x9c, 0x40, 0x00, 0x35, 0x00, 0x30, 0x00, 0x00,
        ];
        expected.resize(70, 0);
        expected.extend([b'x'; 40]);
        assert_eq!(buffer[..len], expected);
    }
}
