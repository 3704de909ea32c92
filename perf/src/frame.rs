//! Frames of conns: how they are built and what they say when they are read back.
//!
//! Each has real checksums and the conn's number as its first payload bytes, so that a frame seen
//! behind a program can be matched with the conn it came from. Over IPv6 the addresses of
//! [`Ends`] stand in the last four bytes, behind a prefix of the clients and one of the servers; so
//! a conn is the same in both families. A TCP segment carries a few bytes inside the window of both
//! sides however often it is sent: client and server acknowledge each other's, and nothing else
//! ever comes.

use std::fmt;
use std::net::Ipv4Addr;

/// Time to live, or hop limit, of every offered frame.
pub(crate) const TTL: u8 = 64;
/// The clients' IPv6 prefix, 96 bits.
const CLIENTS6: [u8; 12] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x10, 0, 0, 0, 0, 0, 0];
/// The same as a route's destination.
pub(crate) const CLIENTS6_NET: &str = "2001:db8:10::/96";
/// The servers' IPv6 prefix, 96 bits.
const SERVERS6: [u8; 12] = [0x20, 0x01, 0x0d, 0xb8, 0, 0x18, 0, 0, 0, 0, 0, 0];

const IP: usize = 14;
const NUMBER_LEN: usize = 6;
/// Bytes of frames with 64, 594 and 1518 on the wire, seven to four to one and well mixed.
const IMIX: [usize; 12] = [60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60];
const UDP: u8 = 17;
const TCP: u8 = 6;
const WINDOW: u16 = 64_240;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// What kind of frames is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// 60 bytes of UDP over IPv4.
    #[default]
    Udp,
    /// 60 bytes of TCP over IPv4, acknowledged data.
    Tcp,
    /// 68 bytes of UDP over IPv6.
    Udp6,
    /// 80 bytes of TCP over IPv6, acknowledged data.
    Tcp6,
    /// UDP over IPv4, 60, 590 and 1514 bytes at 7 : 4 : 1.
    Imix,
}

impl Kind {
    /// Whether it is IPv6.
    pub(crate) fn v6(self) -> bool {
        matches!(self, Self::Udp6 | Self::Tcp6)
    }

    fn protocol(self) -> u8 {
        if matches!(self, Self::Tcp | Self::Tcp6) { TCP } else { UDP }
    }

    /// Where the ports stand.
    fn transport(self) -> usize {
        IP + if self.v6() { 40 } else { 20 }
    }

    fn payload(self) -> usize {
        self.transport() + if self.protocol() == TCP { 20 } else { 8 }
    }

    /// Bytes of the frame of conn `number`.
    fn len(self, number: u64) -> usize {
        match self {
            Self::Udp | Self::Tcp => 60,
            Self::Udp6 | Self::Tcp6 => self.payload() + NUMBER_LEN,
            Self::Imix => IMIX[(number % IMIX.len() as u64) as usize],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Udp6 => "IPv6 UDP",
            Self::Tcp6 => "IPv6 TCP",
            Self::Imix => "IMIX",
        })
    }
}

/// The two ends of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) src: Ipv4Addr,
    pub(crate) dst: Ipv4Addr,
    pub(crate) src_port: u16,
    pub(crate) dst_port: u16,
}

impl Ends {
    /// The same ends as a reply shows them.
    pub(crate) fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port }
    }
}

/// What a frame says, read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) dst_mac: Mac,
    pub(crate) src_mac: Mac,
    pub(crate) ttl: u8,
    pub(crate) ends: Ends,
    /// Number of the conn, from the payload.
    pub(crate) conn: u64,
    /// Whether the checksums of the IPv4 header, if there is one, and of UDP or TCP are right.
    pub(crate) checksums_right: bool,
}

/// Who sends a frame, and so from where to where it goes on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leg {
    pub(crate) dst_mac: Mac,
    pub(crate) src_mac: Mac,
    /// The server sends it.
    pub(crate) reply: bool,
}

/// Builds the frame of conn `number`.
pub(crate) fn build(kind: Kind, leg: Leg, ends: Ends, number: u64) -> Vec<u8> {
    let len = kind.len(number);
    let (l4, payload) = (kind.transport(), kind.payload());
    let mut frame = vec![0; len];
    frame[..6].copy_from_slice(&leg.dst_mac);
    frame[6..12].copy_from_slice(&leg.src_mac);
    match kind.v6() {
        true => ipv6_header(&mut frame, kind, ends),
        false => ipv4_header(&mut frame, kind, ends),
    }
    put_two(&mut frame, l4, ends.src_port);
    put_two(&mut frame, l4 + 2, ends.dst_port);
    match kind.protocol() {
        TCP => tcp_rest(&mut frame[l4..], leg.reply, number),
        _ => put_two(&mut frame, l4 + 4, (len - l4) as u16),
    }
    frame[payload..payload + NUMBER_LEN].copy_from_slice(&number.to_be_bytes()[2..]);
    // RFC 768: a sum of zero is sent as all ones, zero means none.
    let check = match !transport_sum(kind, &frame) {
        0 if kind.protocol() == UDP => 0xffff,
        check => check,
    };
    put_two(&mut frame, l4 + checksum_at(kind), check);
    frame
}

fn ipv4_header(frame: &mut [u8], kind: Kind, ends: Ends) {
    let total = (frame.len() - IP) as u16;
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[IP] = 0x45;
    put_two(frame, IP + 2, total);
    frame[IP + 6] = 0x40; // do not fragment
    frame[IP + 8] = TTL;
    frame[IP + 9] = kind.protocol();
    frame[IP + 12..IP + 16].copy_from_slice(&ends.src.octets());
    frame[IP + 16..IP + 20].copy_from_slice(&ends.dst.octets());
    let check = !sum(&frame[IP..IP + 20], 0);
    put_two(frame, IP + 10, check);
}

fn ipv6_header(frame: &mut [u8], kind: Kind, ends: Ends) {
    let payload = (frame.len() - IP - 40) as u16;
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    frame[IP] = 0x60;
    put_two(frame, IP + 4, payload);
    frame[IP + 6] = kind.protocol();
    frame[IP + 7] = TTL;
    for (at, address) in [(IP + 8, ends.src), (IP + 24, ends.dst)] {
        frame[at..at + 12].copy_from_slice(&prefix(address));
        frame[at + 12..at + 16].copy_from_slice(&address.octets());
    }
}

/// Of the clients' network 10.0.0.0/8 or of everybody else.
fn prefix(address: Ipv4Addr) -> [u8; 12] {
    if address.octets()[0] == 10 { CLIENTS6 } else { SERVERS6 }
}

/// Sequence numbers, offset, flags and window of a segment that acknowledges the other side's.
fn tcp_rest(segment: &mut [u8], reply: bool, number: u64) {
    let client = 0x1000_0000 + number as u32 * 97;
    let server = 0x9000_0000 + number as u32 * 89;
    let (seq, ack) = match reply {
        false => (client, server),
        true => (server, client + NUMBER_LEN as u32),
    };
    segment[4..8].copy_from_slice(&seq.to_be_bytes());
    segment[8..12].copy_from_slice(&ack.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = 0x18; // PSH, ACK
    put_two(segment, 14, WINDOW);
}

/// Reads a frame back. None if it is not one of this kind in length and protocols, or if its IPv6
/// addresses have another prefix.
pub(crate) fn read(kind: Kind, frame: &[u8]) -> Option<Seen> {
    let (l4, payload) = (kind.transport(), kind.payload());
    let number = frame.get(payload..payload + NUMBER_LEN)?;
    let conn = number.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
    let (kind_of_ip, protocol_at, ttl_at, addresses) = match kind.v6() {
        true => ([0x86, 0xdd, 0x60], IP + 6, IP + 7, [IP + 8, IP + 24]),
        false => ([0x08, 0x00, 0x45], IP + 9, IP + 8, [IP + 12, IP + 16]),
    };
    if frame[12..IP + 1] != kind_of_ip
        || frame[protocol_at] != kind.protocol()
        || frame.len() != kind.len(conn)
    {
        return None;
    }
    let two = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let four = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let mac = |at: usize| -> Option<Mac> { frame[at..at + 6].try_into().ok() };
    let address = |at: usize| match kind.v6() {
        true => Some(four(at + 12)).filter(|&a| frame[at..at + 12] == prefix(a)),
        false => Some(four(at)),
    };
    let present = kind.protocol() == TCP || two(l4 + checksum_at(kind)) != 0;
    let header_right = kind.v6() || sum(&frame[IP..IP + 20], 0) == 0xffff;
    Some(Seen {
        dst_mac: mac(0)?,
        src_mac: mac(6)?,
        ttl: frame[ttl_at],
        ends: Ends {
            src: address(addresses[0])?,
            dst: address(addresses[1])?,
            src_port: two(l4),
            dst_port: two(l4 + 2),
        },
        conn,
        checksums_right: present && header_right && transport_sum(kind, frame) == 0xffff,
    })
}

fn checksum_at(kind: Kind) -> usize {
    if kind.protocol() == TCP { 16 } else { 6 }
}

/// The sum over pseudo header, UDP or TCP header and payload (RFC 768, 9293, 8200).
fn transport_sum(kind: Kind, frame: &[u8]) -> u16 {
    let addresses = if kind.v6() { IP + 8 } else { IP + 12 };
    let length = (frame.len() - kind.transport()) as u32;
    sum(&frame[addresses..], u32::from(kind.protocol()) + length)
}

/// The one's-complement sum of 16-bit words (RFC 1071), without the final complement.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn put_two(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use dataplane::conntrack::knobs::Knobs;
    use dataplane::conntrack::state::{Direction, Status};
    use dataplane::conntrack::tcp::{Outcome, Segment, TcpState, TcpTrack, flags};

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);

    fn ends() -> Ends {
        let (src, dst) = (Ipv4Addr::new(10, 1, 2, 3), Ipv4Addr::new(198, 18, 0, 9));
        Ends { src, dst, src_port: 1025, dst_port: 53 }
    }

    fn leg(reply: bool) -> Leg {
        Leg { dst_mac: MACS.0, src_mac: MACS.1, reply }
    }

    #[test]
    fn frames_of_every_kind_read_back_as_written() {
        for &kind in Kind::value_variants() {
            for number in [0, 1, 6, 11, 262_143] {
                for reply in [false, true] {
                    let ends = if reply { ends().reversed() } else { ends() };
                    let seen = read(kind, &build(kind, leg(reply), ends, number));
                    let expected = Seen {
                        dst_mac: MACS.0,
                        src_mac: MACS.1,
                        ttl: TTL,
                        ends,
                        conn: number,
                        checksums_right: true,
                    };
                    assert_eq!(seen, Some(expected), "{kind} {number}");
                }
            }
        }
    }

    #[test]
    fn a_changed_byte_makes_a_checksum_wrong_and_a_changed_prefix_no_frame_of_ours() {
        for &kind in Kind::value_variants() {
            let good = build(kind, leg(false), ends(), 0);
            let l4 = kind.transport();
            for at in [kind.transport() - 1, l4 + 1, kind.payload() - 1, good.len() - 1] {
                let mut bad = good.clone();
                bad[at] ^= 1;
                let right = read(kind, &bad).is_some_and(|seen| seen.checksums_right);
                assert!(!right, "{kind} byte {at}");
            }
            if kind.v6() {
                let mut bad = good.clone();
                bad[IP + 8] ^= 1;
                assert_eq!(read(kind, &bad), None);
            }
        }
    }

    #[test]
    fn the_clients_prefix_is_the_one_that_is_routed() {
        let mut octets = [0; 16];
        octets[..12].copy_from_slice(&CLIENTS6);
        assert_eq!(CLIENTS6_NET, format!("{}/96", std::net::Ipv6Addr::from(octets)));
    }

    /// The segment that a TCP frame carries.
    fn segment(frame: &[u8]) -> Segment<'_> {
        let l4 = &frame[Kind::Tcp.transport()..];
        let four = |at: usize| u32::from_be_bytes(l4[at..at + 4].try_into().unwrap());
        let window = u16::from_be_bytes([l4[14], l4[15]]);
        let (seq, ack, data_len) = (four(4), four(8), (l4.len() - 20) as u32);
        Segment { flags: l4[13], seq, ack, window, data_len, options: &[] }
    }

    #[test]
    fn segments_stay_inside_the_windows_of_a_conn_that_was_opened_however_often_they_come() {
        let [client, server] = [false, true].map(|reply| build(Kind::Tcp, leg(reply), ends(), 7));
        let (client, server) = (segment(&client), segment(&server));
        let knobs = Knobs::default();
        assert!(!knobs.tcp_be_liberal);
        let syn = Segment { flags: flags::SYN, seq: client.seq - 1, ack: 0, data_len: 0, ..client };
        let answer = Segment {
            flags: flags::SYN | flags::ACK,
            seq: server.seq - 1,
            ack: client.seq,
            data_len: 0,
            ..server
        };
        let (mut track, _) = TcpTrack::first(&syn, &knobs).unwrap();
        let seen = Status(Status::CONFIRMED.0 | Status::SEEN_REPLY.0);
        let mut packet = |segment: &Segment<'_>, dir, status| {
            let outcome = track.packet(segment, dir, status, &knobs, 1000);
            assert!(matches!(outcome, Outcome::Accept { .. }), "{outcome:?}");
            track.state()
        };
        packet(&answer, Direction::Reply, Status::CONFIRMED);
        for _ in 0..1000 {
            assert_eq!(packet(&client, Direction::Original, seen), TcpState::Established);
            assert_eq!(packet(&server, Direction::Reply, seen), TcpState::Established);
        }
    }

    #[test]
    fn a_mix_has_seven_small_four_middle_and_one_large() {
        let len = |n| build(Kind::Imix, leg(false), ends(), n).len();
        let of = |wanted: usize| (0..24).filter(|&n| len(n) == wanted).count();
        assert_eq!([of(60), of(590), of(1514)], [14, 8, 2]);
    }

    #[test]
    fn a_known_header_has_the_known_checksum() {
        // The worked example that is found in many texts: 192.168.0.1 to 192.168.0.199.
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0,
            0xc7,
        ];
        assert_eq!(!sum(&header, 0), 0xb861);
    }
}
