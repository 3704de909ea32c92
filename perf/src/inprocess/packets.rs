//! What is offered: conns by number, and the frames of their packets, built where they are needed.
//!
//! A conn is worked out from its number and never stored: 63 conns for each inside host, as in
//! CSIT's NAT tests, to pseudorandom servers and ports (RFC 4814), no tuple twice. A frame is a
//! template's bytes with two addresses and two ports written over, and both checksums finished from
//! sums that were taken beforehand. That is about what a frame costs whoever receives it from a
//! device, and it is measured by itself.

use dataplane::conntrack::tuple::proto;
use dataplane::pipeline::frame::Frame;
use dataplane::wire::checksum;

use super::frame::{Slot, Spare};
use crate::frame::Mac;
use crate::traffic::{LAN_MAC, LAN_NEXT_HOP_MAC, WAN_MAC, WAN_NEXT_HOP_MAC};

/// Conns of one inside host.
pub(crate) const CONNS_PER_HOST: u32 = 63;
/// Ports that are used.
const PORTS: u32 = 64_512;
const LOWEST_PORT: u32 = 1024;
/// Inside hosts: 10.0.0.0/8, or the last 24 bits of an IPv6 address.
const HOSTS: u32 = 1 << 24;
/// Servers: 198.18.0.0/15, or the same in the last bits of an IPv6 address.
const SERVERS: u32 = 0xc612_0000;
/// The port of a server that takes conns from outside.
pub(crate) const OPEN_PORT: u16 = 80;
const IP: usize = 14;
/// Clients and servers by IPv6; their numbers are the last 32 bits.
pub(crate) const V6_CLIENTS: [u8; 12] = [0xfd, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0];
const V6_SERVERS: [u8; 12] = [0x20, 1, 0x0d, 0xb8, 0, 0x20, 0, 0, 0, 0, 0, 0];

/// The two ends of a packet; of IPv6 addresses the last 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) src: u32,
    pub(crate) dst: u32,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

impl Ends {
    /// Those of conn `number` as its client sends.
    #[inline]
    pub(crate) fn of(number: u32) -> Ends {
        let (host, nth) = (number / CONNS_PER_HOST, number % CONNS_PER_HOST);
        let (from, to) = (spread(host), spread(!number));
        Ends {
            src: 0x0a00_0000 | (host % HOSTS),
            dst: SERVERS | to & 0x1_ffff,
            // A prime further for each conn of the host, so that no two are the same.
            src_port: (LOWEST_PORT + ((from & 0xffff) + nth * 1021) % PORTS) as u16,
            dst_port: (LOWEST_PORT + (to >> 17)) as u16,
        }
    }

    /// Those of a stranger's `number`th attempt at a server behind the gateway.
    #[inline]
    pub(crate) fn of_stranger(number: u32) -> Ends {
        Ends {
            src: SERVERS | spread(number) & 0x1_ffff,
            dst: 0x0aff_0000 | number & 0xff,
            src_port: (LOWEST_PORT + (number >> 8) % PORTS) as u16,
            dst_port: OPEN_PORT,
        }
    }

    /// The same ends as the other side sends.
    #[inline]
    pub(crate) fn reversed(self) -> Ends {
        Ends { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// 32 bits spread over 32 bits, no two of them to the same place.
#[inline]
fn spread(n: u32) -> u32 {
    let n = (n ^ n >> 16).wrapping_mul(0x7feb_352d);
    let n = (n ^ n >> 15).wrapping_mul(0x846c_a68b);
    n ^ n >> 16
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the inside port on.
    Out,
    /// From the outside port on.
    In,
}

impl Way {
    /// The number of the port where its packets arrive.
    pub(crate) fn port(self) -> usize {
        match self {
            Way::Out => 0,
            Way::In => 1,
        }
    }

    fn macs(self) -> (Mac, Mac) {
        match self {
            Way::Out => (LAN_MAC, LAN_NEXT_HOP_MAC),
            Way::In => (WAN_MAC, WAN_NEXT_HOP_MAC),
        }
    }
}

/// A TCP packet without payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
}

/// A packet of which addresses and ports are still to be written.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    /// Sums of what is there already: of the IPv4 header, of the transport's pseudo header, header
    /// and payload.
    l3_sum: u32,
    l4_sum: u32,
    /// Where things lie.
    src: usize,
    dst: usize,
    ports: usize,
    l4_check: usize,
}

impl Template {
    /// UDP over IPv4, 60 bytes in all.
    pub(crate) fn udp(way: Way) -> Template {
        let mut l4 = vec![0; 26];
        l4[4..6].copy_from_slice(&26_u16.to_be_bytes());
        Template::v4(way, proto::UDP, &l4, 6)
    }

    /// TCP over IPv4, 60 bytes with six of padding.
    pub(crate) fn tcp(way: Way, segment: Segment) -> Template {
        let mut l4 = vec![0; 20];
        l4[4..8].copy_from_slice(&segment.seq.to_be_bytes());
        l4[8..12].copy_from_slice(&segment.ack.to_be_bytes());
        (l4[12], l4[13]) = (0x50, segment.flags);
        l4[14..16].copy_from_slice(&0xfff0_u16.to_be_bytes());
        let mut template = Template::v4(way, proto::TCP, &l4, 16);
        template.bytes.extend([0; 6]);
        template
    }

    /// UDP over IPv6, 70 bytes in all.
    pub(crate) fn udp_v6(way: Way) -> Template {
        let mut bytes = Template::ethernet(way, [0x86, 0xdd]);
        bytes.extend([0x60, 0, 0, 0, 0, 16, proto::UDP, 64]);
        let (near, far) = match way {
            Way::Out => (V6_CLIENTS, V6_SERVERS),
            Way::In => (V6_SERVERS, V6_CLIENTS),
        };
        for prefix in [near, far] {
            bytes.extend(prefix);
            bytes.extend([0; 4]);
        }
        bytes.extend([0, 0, 0, 0, 0, 16, 0, 0]);
        bytes.extend([0; 8]);
        let l4_sum = checksum::sum(&bytes[IP + 8..]) + 16 + u32::from(proto::UDP);
        let (src, dst, ports) = (IP + 20, IP + 36, IP + 40);
        Template { bytes, l3_sum: 0, l4_sum, src, dst, ports, l4_check: ports + 6 }
    }

    fn ethernet(way: Way, kind: [u8; 2]) -> Vec<u8> {
        let (dst, src) = way.macs();
        [&dst[..], &src, &kind].concat()
    }

    fn v4(way: Way, number: u8, l4: &[u8], check: usize) -> Template {
        let mut bytes = Template::ethernet(way, [0x08, 0x00]);
        let len = (20 + l4.len() as u16).to_be_bytes();
        bytes.extend([0x45, 0, len[0], len[1], 0, 0, 0x40, 0, 64, number, 0, 0]);
        bytes.extend([0; 8]);
        let l3_sum = checksum::sum(&bytes[IP..]);
        let l4_sum = checksum::sum(l4) + u32::from(number) + l4.len() as u32;
        bytes.extend(l4);
        let ports = IP + 20;
        Template {
            bytes,
            l3_sum,
            l4_sum,
            src: IP + 12,
            dst: IP + 16,
            ports,
            l4_check: ports + check,
        }
    }

    /// A frame between these ends.
    #[inline]
    pub(crate) fn frame(&self, ends: &Ends, spare: &mut Spare) -> Slot {
        let mut slot = spare.take(self.bytes.len());
        let bytes = slot.head_mut();
        bytes.copy_from_slice(&self.bytes);
        let halves = |word: u32| (word >> 16) + (word & 0xffff);
        let addresses = halves(ends.src) + halves(ends.dst);
        let ports = u32::from(ends.src_port) + u32::from(ends.dst_port);
        put(bytes, self.src, &ends.src.to_be_bytes());
        put(bytes, self.dst, &ends.dst.to_be_bytes());
        put(bytes, self.ports, &ends.src_port.to_be_bytes());
        put(bytes, self.ports + 2, &ends.dst_port.to_be_bytes());
        if self.l3_sum != 0 {
            put(bytes, IP + 10, &finish(self.l3_sum + addresses).to_be_bytes());
        }
        // RFC 768: a sum of zero is sent as all ones.
        let check = match finish(self.l4_sum + addresses + ports) {
            0 => 0xffff,
            check => check,
        };
        put(bytes, self.l4_check, &check.to_be_bytes());
        slot
    }
}

#[inline]
fn put<const N: usize>(bytes: &mut [u8], at: usize, value: &[u8; N]) {
    if let Some(place) = bytes.get_mut(at..at + N) {
        place.copy_from_slice(value);
    }
}

/// What a checksum field holds for a sum.
#[inline]
fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The ends that an IPv4 frame shows.
#[inline]
pub(crate) fn ends_of(bytes: &[u8]) -> Option<Ends> {
    let bytes = bytes.get(IP + 12..IP + 24)?.first_chunk::<12>()?;
    let word =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (src, dst, ports) = (word(0), word(4), word(8));
    Some(Ends { src, dst, src_port: (ports >> 16) as u16, dst_port: ports as u16 })
}

/// Whether both checksums of an IPv4 frame are right.
pub(crate) fn is_sound(bytes: &[u8]) -> bool {
    let Some(ip) = bytes.get(IP..) else { return false };
    let Some(end) = ip.get(2..4).map(|len| usize::from(len[0]) << 8 | usize::from(len[1])) else {
        return false;
    };
    let (Some(header), Some(rest)) = (ip.get(..20), ip.get(12..end)) else { return false };
    let l4 = checksum::sum(rest) + u32::from(ip[9]) + end as u32 - 20;
    finish(checksum::sum(header)) == 0 && finish(l4) == 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use dataplane::wire::headers;
    use dataplane::wire::tcp::flags::SYN;

    use super::*;

    #[test]
    fn no_two_conns_have_the_same_ends() {
        let ends: HashSet<Ends> = (0..500_000).map(Ends::of).collect();
        assert_eq!(ends.len(), 500_000);
        assert_eq!((0..100_000).map(Ends::of_stranger).collect::<HashSet<_>>().len(), 100_000);
        assert!(ends.iter().all(|e| e.src_port >= 1024 && e.src >> 24 == 10));
    }

    #[test]
    fn frames_are_as_a_parser_and_their_checksums_want_them() {
        let mut spare = Spare::default();
        let syn = Segment { seq: 0xffff_ffff, ack: 0, flags: SYN };
        for number in (0..200_000).step_by(997) {
            let ends = Ends::of(number);
            for (template, ends) in [
                (Template::udp(Way::Out), ends),
                (Template::tcp(Way::In, syn), ends.reversed()),
                (Template::udp_v6(Way::Out), ends),
            ] {
                let slot = template.frame(&ends, &mut spare);
                let h = headers::parse(slot.head(), slot.total_len()).unwrap();
                let ports = (h.src_port, h.dst_port);
                assert_eq!(ports, (ends.src_port, ends.dst_port));
                assert_eq!((h.src.bits() as u32, h.dst.bits() as u32), (ends.src, ends.dst));
                if h.is_v6() {
                    let pseudo = checksum::sum(&slot.head()[IP + 8..]) + 16 + 17;
                    assert_eq!(finish(pseudo), 0);
                } else {
                    assert_eq!(ends_of(slot.head()), Some(ends));
                    assert!(is_sound(slot.head()));
                }
            }
        }
        let mut slot = Template::udp(Way::Out).frame(&Ends::of(1), &mut spare);
        slot.head_mut()[40] ^= 1;
        assert!(!is_sound(slot.head()));
    }
}
