//! Any packet, right or deliberately wrong: for tests, scripted comparisons and `explain`.
//!
//! A [`Packet`] is filled by chained calls and written with all checksums. What a test wants broken
//! is said last ([`Packet::ip_len`], [`Packet::break_ip_check`], [`Packet::l4_check`], …) and
//! changes nothing else.

use core::net::{IpAddr, SocketAddr};

use super::{Ip, Link, TTL, Writer};
use crate::wire::checksum;
use crate::wire::ethernet::{Mac, ether_type};
use crate::wire::headers::protocol;
use crate::wire::ipv4;

/// What follows the IP header.
#[derive(Clone, Copy, Debug)]
enum L4<'a> {
    Tcp { seq: u32, ack: u32, flags: u8, window: u16, urgent: u16, options: &'a [u8] },
    Udp,
    Icmp { kind: u8, code: u8, rest: u32 },
    Raw,
}

/// A packet to be written. Defaults: TTL 64, TOS 0, identification 0, DF in TCP and UDP over IPv4,
/// MACs 02:00:00:00:00:01 to :02, a TCP window of 65535.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    link: Link,
    ip: Ip,
    ports: (u16, u16),
    l4: L4<'a>,
    payload: &'a [u8],
    ip_options: &'a [u8],
    extension: Option<(u8, &'a [u8])>,
    fragment: Option<(u16, bool)>,
    id: u32,
    ip_len: Option<u16>,
    l4_len: Option<u16>,
    l4_check: Option<u16>,
    break_ip_check: bool,
}

impl<'a> Packet<'a> {
    fn new(src: IpAddr, dst: IpAddr, proto: u8, ports: (u16, u16), l4: L4<'a>) -> Packet<'a> {
        let link = Link { dst: Mac([2, 0, 0, 0, 0, 2]), src: Mac([2, 0, 0, 0, 0, 1]), tci: None };
        let df = matches!(l4, L4::Tcp { .. } | L4::Udp);
        let ip = Ip {
            src: src.into(),
            dst: dst.into(),
            proto,
            ttl: TTL,
            tos: 0,
            id: 0,
            fragment_word: if df { ipv4::DONT_FRAGMENT } else { 0 },
        };
        Packet {
            link,
            ip,
            ports,
            l4,
            payload: &[],
            ip_options: &[],
            extension: None,
            fragment: None,
            id: 0,
            ip_len: None,
            l4_len: None,
            l4_check: None,
            break_ip_check: false,
        }
    }

    /// A TCP segment without flags.
    pub fn tcp(src: SocketAddr, dst: SocketAddr) -> Packet<'a> {
        let l4 = L4::Tcp { seq: 0, ack: 0, flags: 0, window: 65535, urgent: 0, options: &[] };
        Packet::new(src.ip(), dst.ip(), protocol::TCP, (src.port(), dst.port()), l4)
    }

    /// A UDP datagram.
    pub fn udp(src: SocketAddr, dst: SocketAddr) -> Packet<'a> {
        Packet::new(src.ip(), dst.ip(), protocol::UDP, (src.port(), dst.port()), L4::Udp)
    }

    /// An ICMP message, or an ICMPv6 one between IPv6 addresses. `rest` is the second half of the
    /// header: `id << 16 | seq` in echoes.
    pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: u32) -> Packet<'a> {
        let proto = if src.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        Packet::new(src, dst, proto, (0, 0), L4::Icmp { kind, code, rest })
    }

    /// A packet of any protocol; the payload follows the IP header.
    pub fn raw(src: IpAddr, dst: IpAddr, proto: u8) -> Packet<'a> {
        Packet::new(src, dst, proto, (0, 0), L4::Raw)
    }

    /// MACs of the frame.
    pub fn macs(mut self, src: Mac, dst: Mac) -> Packet<'a> {
        (self.link.src, self.link.dst) = (src, dst);
        self
    }

    /// An 802.1Q tag.
    pub fn tag(mut self, tci: u16) -> Packet<'a> {
        self.link.tci = Some(tci);
        self
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Packet<'a> {
        self.ip.ttl = ttl;
        self
    }

    /// TOS or traffic class.
    pub fn tos(mut self, tos: u8) -> Packet<'a> {
        self.ip.tos = tos;
        self
    }

    /// Identification: 16 bits count in IPv4; in IPv6 it is the fragment header's.
    pub fn id(mut self, id: u32) -> Packet<'a> {
        self.id = id;
        self
    }

    /// The DF bit of IPv4.
    pub fn dont_fragment(mut self, set: bool) -> Packet<'a> {
        self.ip.fragment_word = if set { ipv4::DONT_FRAGMENT } else { 0 };
        self
    }

    /// A fragment: `offset` in bytes (a multiple of 8). With an offset no L4 header is written,
    /// just the payload. IPv6 gets a fragment header, also for `(0, false)`. The L4 checksum of a
    /// first fragment covers only itself unless [`Packet::l4_check`] gives the datagram's.
    pub fn fragment(mut self, offset: u16, more: bool) -> Packet<'a> {
        self.fragment = Some((offset, more));
        self
    }

    /// IPv4 options, in whole words.
    pub fn ip_options(mut self, options: &'a [u8]) -> Packet<'a> {
        self.ip_options = options;
        self
    }

    /// One IPv6 extension header of options or routing: `body` is all but its first two bytes, so
    /// 6, 14, 22, … bytes long.
    pub fn extension(mut self, kind: u8, body: &'a [u8]) -> Packet<'a> {
        self.extension = Some((kind, body));
        self
    }

    /// TCP flags.
    pub fn flags(mut self, set: u8) -> Packet<'a> {
        if let L4::Tcp { flags, .. } = &mut self.l4 {
            *flags = set;
        }
        self
    }

    /// TCP sequence number.
    pub fn seq(mut self, number: u32) -> Packet<'a> {
        if let L4::Tcp { seq, .. } = &mut self.l4 {
            *seq = number;
        }
        self
    }

    /// TCP acknowledgment number. The ACK flag is [`Packet::flags`]'.
    pub fn ack(mut self, number: u32) -> Packet<'a> {
        if let L4::Tcp { ack, .. } = &mut self.l4 {
            *ack = number;
        }
        self
    }

    /// TCP window, not scaled.
    pub fn window(mut self, size: u16) -> Packet<'a> {
        if let L4::Tcp { window, .. } = &mut self.l4 {
            *window = size;
        }
        self
    }

    /// TCP urgent pointer.
    pub fn urgent(mut self, pointer: u16) -> Packet<'a> {
        if let L4::Tcp { urgent, .. } = &mut self.l4 {
            *urgent = pointer;
        }
        self
    }

    /// TCP options, in whole words.
    pub fn options(mut self, bytes: &'a [u8]) -> Packet<'a> {
        if let L4::Tcp { options, .. } = &mut self.l4 {
            *options = bytes;
        }
        self
    }

    /// What follows the L4 header.
    pub fn payload(mut self, payload: &'a [u8]) -> Packet<'a> {
        self.payload = payload;
        self
    }

    /// Another IPv4 total length or IPv6 payload length than the true one.
    pub fn ip_len(mut self, len: u16) -> Packet<'a> {
        self.ip_len = Some(len);
        self
    }

    /// Another UDP length, or TCP header length in bytes, than the true one.
    pub fn l4_len(mut self, len: u16) -> Packet<'a> {
        self.l4_len = Some(len);
        self
    }

    /// Another L4 checksum than the right one; 0 in UDP is "none".
    pub fn l4_check(mut self, check: u16) -> Packet<'a> {
        self.l4_check = Some(check);
        self
    }

    /// A wrong IPv4 header checksum.
    pub fn break_ip_check(mut self) -> Packet<'a> {
        self.break_ip_check = true;
        self
    }

    /// Writes the frame and gives its length; `None` if it does not fit or cannot be.
    pub fn write(&self, buffer: &mut [u8]) -> Option<usize> {
        let mut writer = Writer::new(buffer);
        let mut ip = self.ip;
        let chain_len = self.chain_len();
        let l4_len = self.header_len() + self.payload.len();
        let start = match (ip.src.is_v4(), ip.dst.is_v4()) {
            (true, true) => {
                writer.link(&self.link, ether_type::IPV4)?;
                let start = writer.len();
                ip.id = self.id as u16;
                if let Some((offset, more)) = self.fragment {
                    ip.fragment_word = offset >> 3 | if more { ipv4::MORE_FRAGMENTS } else { 0 };
                }
                writer.v4(&ip, self.ip_options, l4_len)?;
                start
            }
            (false, false) => {
                writer.link(&self.link, ether_type::IPV6)?;
                let start = writer.len();
                writer.v6(&Ip { proto: self.first_header(), ..ip }, chain_len + l4_len)?;
                self.put_chain(&mut writer)?;
                start
            }
            _ => return None,
        };
        self.put_l4(&mut writer)?;
        self.break_ip(&mut writer, start)?;
        Some(writer.len())
    }

    /// The frame in memory of its own: for tests.
    pub fn to_vec(&self) -> Vec<u8> {
        let room = 18 + 60 + 60 + 8 + self.payload.len() + self.chain_len();
        let mut frame = vec![0; room];
        let len = self.write(&mut frame).unwrap_or(0);
        frame.truncate(len);
        frame
    }

    /// True if the L4 header is left out.
    fn is_later(&self) -> bool {
        self.fragment.is_some_and(|(offset, _)| offset > 0)
    }

    fn header_len(&self) -> usize {
        match self.l4 {
            _ if self.is_later() => 0,
            L4::Tcp { options, .. } => 20 + options.len(),
            L4::Udp | L4::Icmp { .. } => 8,
            L4::Raw => 0,
        }
    }

    fn chain_len(&self) -> usize {
        self.extension.map_or(0, |(_, body)| 2 + body.len())
            + if self.fragment.is_some() { 8 } else { 0 }
    }

    fn first_header(&self) -> u8 {
        match (self.extension, self.fragment) {
            (Some((kind, _)), _) => kind,
            (None, Some(_)) => protocol::FRAGMENT,
            (None, None) => self.ip.proto,
        }
    }

    /// The IPv6 extension headers.
    fn put_chain(&self, writer: &mut Writer<'_>) -> Option<()> {
        if let Some((_, body)) = self.extension {
            let units = u8::try_from((body.len() + 2) / 8).ok()?.checked_sub(1)?;
            if !(body.len() + 2).is_multiple_of(8) {
                return None;
            }
            let next = self.fragment.map_or(self.ip.proto, |_| protocol::FRAGMENT);
            writer.put(&[next, units])?;
            writer.put(body)?;
        }
        if let Some((offset, more)) = self.fragment {
            writer.put(&[self.ip.proto, 0])?;
            writer.put(&(offset & 0xfff8 | more as u16).to_be_bytes())?;
            writer.put(&self.id.to_be_bytes())?;
        }
        Some(())
    }

    fn put_l4(&self, writer: &mut Writer<'_>) -> Option<()> {
        if self.is_later() {
            return writer.put(self.payload);
        }
        let l4 = writer.len();
        let check_at = match self.l4 {
            L4::Tcp { seq, ack, flags, window, urgent, options } => {
                let len = self.l4_len.map_or(20 + options.len(), usize::from);
                if !options.len().is_multiple_of(4) || len > 60 {
                    return None;
                }
                self.put_ports(writer)?;
                writer.put(&seq.to_be_bytes())?;
                writer.put(&ack.to_be_bytes())?;
                writer.put(&[((len / 4) << 4) as u8, flags])?;
                writer.put(&window.to_be_bytes())?;
                writer.put(&[0, 0])?;
                writer.put(&urgent.to_be_bytes())?;
                writer.put(options)?;
                16
            }
            L4::Udp => {
                let len = self.l4_len.or_else(|| u16::try_from(8 + self.payload.len()).ok())?;
                self.put_ports(writer)?;
                writer.put(&len.to_be_bytes())?;
                writer.put(&[0, 0])?;
                6
            }
            L4::Icmp { kind, code, rest } => {
                writer.put(&[kind, code, 0, 0])?;
                writer.put(&rest.to_be_bytes())?;
                2
            }
            L4::Raw => return writer.put(self.payload),
        };
        writer.put(self.payload)?;
        match self.l4_check {
            Some(check) => writer.patch16(l4 + check_at, check),
            None => writer.finish_l4(&self.ip, l4, check_at),
        }
    }

    fn put_ports(&self, writer: &mut Writer<'_>) -> Option<()> {
        writer.put(&self.ports.0.to_be_bytes())?;
        writer.put(&self.ports.1.to_be_bytes())
    }

    /// Puts the wrong length and checksum into the IP header at `start`.
    fn break_ip(&self, writer: &mut Writer<'_>, start: usize) -> Option<()> {
        if !self.ip.src.is_v4() {
            return self.ip_len.map_or(Some(()), |len| writer.patch16(start + 4, len));
        }
        if let Some(len) = self.ip_len {
            writer.patch16(start + 2, len)?;
        }
        writer.patch16(start + 10, 0)?;
        let end = start + ipv4::HEADER_LEN + self.ip_options.len();
        let check = checksum::internet(writer.written(start).get(..end - start)?);
        writer.patch16(start + 10, if self.break_ip_check { check ^ 0x5555 } else { check })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::headers::{self, Fragment, Malformed};
    use crate::wire::tcp;
    use proptest::prelude::*;

    fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
        if v6 {
            ("[fd00:10::2]:40000".parse().unwrap(), "[2001:db8::9]:443".parse().unwrap())
        } else {
            ("192.168.10.2:40000".parse().unwrap(), "203.0.113.9:443".parse().unwrap())
        }
    }

    /// Header and UDP checksums computed apart from this code, from RFC 768 and RFC 791.
    #[test]
    fn golden_udp() {
        let (src, dst) = ends(false);
        let frame = Packet::udp(src, dst).id(0x1234).payload(&[1, 2, 3, 4]).to_vec();
        let expected = [
            2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x45, 0, 0, 0x20, 0x12, 0x34, 0x40, 0,
            0x40, 0x11, 0x21, 0xe5, 192, 168, 10, 2, 203, 0, 113, 9, 0x9c, 0x40, 0x01, 0xbb, 0,
            0x0c, 0x57, 0x20, 1, 2, 3, 4,
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn every_l4_has_the_right_checksum() {
        for v6 in [false, true] {
            let (src, dst) = ends(v6);
            let echo = if v6 { 128 } else { 8 };
            for packet in [
                Packet::tcp(src, dst).flags(tcp::flags::SYN).options(&[2, 4, 5, 0xb4]),
                Packet::udp(src, dst).tag(100),
                Packet::icmp(src.ip(), dst.ip(), echo, 0, 7),
            ] {
                for len in [0usize, 1, 2, 99] {
                    let frame = packet.payload(&[0xa5; 99][..len]).to_vec();
                    let read = headers::parse(&frame, frame.len()).unwrap();
                    assert!(read.l4_check_ok(&frame));
                    assert_eq!(read.end as usize, frame.len());
                    assert_eq!((read.src, read.dst), (src.ip().into(), dst.ip().into()));
                }
            }
        }
    }

    #[test]
    fn wrong_on_purpose() {
        let (src, dst) = ends(false);
        let read = |packet: Packet<'_>| {
            let frame = packet.to_vec();
            headers::parse(&frame, frame.len()).map(|h| h.l4_check_ok(&frame))
        };
        let udp = Packet::udp(src, dst).payload(&[9; 9]);
        assert_eq!(read(udp), Ok(true));
        assert_eq!(read(udp.l4_check(0x1111)), Ok(false));
        assert_eq!(read(udp.break_ip_check()), Err(Malformed::HeaderChecksum));
        assert_eq!(read(udp.ip_len(200)), Err(Malformed::BadTotalLength));
        let (src6, dst6) = ends(true);
        assert_eq!(read(Packet::udp(src6, dst6).ip_len(200)), Err(Malformed::BadTotalLength));
        assert_eq!(Packet::udp(src, dst6).to_vec(), [], "two families");
        assert_eq!(Packet::tcp(src, dst).options(&[1]).to_vec(), [], "half a word");
        let tcp = Packet::tcp(src, dst).l4_len(16).to_vec();
        assert_eq!(tcp::View::new(&tcp[34..]).unwrap().header_len(), 16);
        assert_eq!(Packet::udp(src, dst).write(&mut [0; 41]), None);
    }

    #[test]
    fn fragments() {
        for v6 in [false, true] {
            let (src, dst) = ends(v6);
            let read = |packet: Packet<'_>| {
                let frame = packet.to_vec();
                headers::parse(&frame, frame.len()).unwrap()
            };
            let udp = Packet::udp(src, dst).id(77).payload(&[1; 16]);
            let first = read(udp.fragment(0, true));
            assert_eq!((first.fragment, first.dst_port), (Fragment::First { id: 77 }, 443));
            let later = read(udp.fragment(24, false));
            assert_eq!(later.fragment, Fragment::Later { id: 77, offset: 24, more: false });
            assert_eq!((later.dst_port, later.l4_len()), (0, 16));
        }
        let (src, dst) = ends(true);
        let frame =
            Packet::udp(src, dst).id(7).extension(60, &[1, 4, 0, 0, 0, 0]).fragment(0, false);
        let frame = frame.to_vec();
        let read = headers::parse(&frame, frame.len()).unwrap();
        assert_eq!((read.fragment, read.l4), (Fragment::Atomic { id: 7 }, 70));
        assert!(read.l4_check_ok(&frame));
    }

    proptest! {
        #[test]
        fn build_then_parse(
            v6: bool, tagged: bool, ports: (u16, u16), ttl: u8, tos: u8, flags: u8,
            numbers: (u32, u32),
            payload in proptest::collection::vec(any::<u8>(), 0..64), words in 0usize..10,
        ) {
            let (mut src, mut dst) = ends(v6);
            src.set_port(ports.0);
            dst.set_port(ports.1);
            let options = [1u8; 40];
            let mut packet = Packet::tcp(src, dst).ttl(ttl).tos(tos).flags(flags).payload(&payload)
                .seq(numbers.0).ack(numbers.1).options(&options[..words * 4]);
            if tagged {
                packet = packet.tag(0x2007);
            }
            let frame = packet.to_vec();
            let read = headers::parse(&frame, frame.len()).unwrap();
            prop_assert!(read.l4_check_ok(&frame));
            prop_assert_eq!((read.src_port, read.dst_port), ports);
            prop_assert_eq!((read.ttl, read.tos, read.tcp_flags), (ttl, tos, flags));
            prop_assert_eq!(read.vlan, tagged.then_some(7));
            let view = tcp::View::new(&frame[read.l4 as usize..]).unwrap();
            prop_assert_eq!((view.seq(), view.ack()), numbers);
            prop_assert_eq!(view.options(&frame[read.l4 as usize..]).unwrap().len(), words * 4);
            for cut in 0..frame.len() {
                prop_assert!(headers::parse(&frame[..cut], cut).is_err());
                let _ = headers::parse(&frame[..cut], frame.len());
            }
        }
    }
}
