//! Packets for the scripts, built byte by byte so that they can be wrong where a script wants it.
//!
//! A [`Packet`] is what one host sends: addresses, the header fields that matter, a layer-4 part
//! and the faults to put in. [`Packet::bytes`] lays it out with correct lengths and checksums and
//! then spoils what was asked for. Nothing of the gateway's own code is used: a builder that
//! shared its checksum routine with the device under test could not find an error in it.

use std::net::IpAddr;

/// IP protocol numbers.
pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const GRE: u8 = 47;
pub const ESP: u8 = 50;
pub const AH: u8 = 51;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;
pub const UDPLITE: u8 = 136;

/// The IPv4 identification of every packet that a script does not say otherwise of. The device's
/// own packets carry another one, which the comparison then leaves out.
pub const IDENTIFICATION: u16 = 0x5a1c;

/// TCP flag letters in the order of their bits, from FIN up.
const FLAG_LETTERS: &str = "FSRPAUEC";

/// One packet of a script.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    ttl: u8,
    tos: u8,
    identification: u16,
    dont_fragment: bool,
    /// Offset in bytes and "more fragments" of an IPv4 fragment.
    fragment: Option<(u16, bool)>,
    protocol: u8,
    /// Layer-4 header and payload, checksum field still zero.
    layer4: Vec<u8>,
    /// Where the layer-4 checksum goes, `None` for a protocol without one.
    checksum_at: Option<usize>,
    /// Added to the right checksum.
    checksum_error: u16,
    /// Written instead of the right checksum.
    checksum_fixed: Option<u16>,
    header_error: bool,
    cut: Option<usize>,
}

impl Packet {
    fn new(src: IpAddr, dst: IpAddr, protocol: u8, layer4: Vec<u8>) -> Packet {
        let checksum_at = match protocol {
            TCP => Some(16),
            UDP | UDPLITE => Some(6),
            SCTP => Some(8),
            ICMP | ICMPV6 => Some(2),
            _ => None,
        };
        Packet {
            src,
            dst,
            ttl: 64,
            tos: 0,
            identification: IDENTIFICATION,
            dont_fragment: false,
            fragment: None,
            protocol,
            layer4,
            checksum_at,
            checksum_error: 0,
            checksum_fixed: None,
            header_error: false,
            cut: None,
        }
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Packet {
        self.ttl = ttl;
        self
    }

    /// Type of service or traffic class.
    pub fn tos(mut self, tos: u8) -> Packet {
        self.tos = tos;
        self
    }

    /// Sets DF (IPv4).
    pub fn dont_fragment(mut self) -> Packet {
        self.dont_fragment = true;
        self
    }

    /// Appends payload; a UDP length follows.
    pub fn payload(mut self, bytes: &[u8]) -> Packet {
        self.layer4.extend_from_slice(bytes);
        if self.protocol == UDP {
            let length = self.layer4.len() as u16;
            self.layer4[4..6].copy_from_slice(&length.to_be_bytes());
        }
        self
    }

    /// Writes a UDP length that is not the real one.
    pub fn udp_length(mut self, length: u16) -> Packet {
        self.layer4[4..6].copy_from_slice(&length.to_be_bytes());
        self
    }

    /// Sets TCP's data offset, in words, to a value that may be wrong.
    pub fn data_offset(mut self, words: u8) -> Packet {
        self.layer4[12] = words << 4;
        self
    }

    /// TCP window, unscaled.
    pub fn window(mut self, window: u16) -> Packet {
        self.layer4[14..16].copy_from_slice(&window.to_be_bytes());
        self
    }

    /// Inserts TCP options behind the fixed header; to be called before [`Packet::payload`].
    pub fn options(mut self, options: &[u8]) -> Packet {
        assert!(options.len().is_multiple_of(4) && options.len() <= 40, "options are whole words");
        self.layer4.splice(20..20, options.iter().copied());
        self.layer4[12] = ((20 + options.len()) as u8 / 4) << 4;
        self
    }

    /// Makes the layer-4 checksum wrong.
    pub fn bad_checksum(mut self) -> Packet {
        self.checksum_error = 0x0101;
        self
    }

    /// Writes zero where the layer-4 checksum belongs.
    pub fn zero_checksum(mut self) -> Packet {
        self.checksum_fixed = Some(0);
        self
    }

    /// Writes this where the layer-4 checksum belongs.
    pub fn checksum(mut self, value: u16) -> Packet {
        self.checksum_fixed = Some(value);
        self
    }

    /// Makes the IPv4 header checksum wrong.
    pub fn bad_header_checksum(mut self) -> Packet {
        self.header_error = true;
        self
    }

    /// Sends only the first `length` bytes of the IP packet, the length field unchanged.
    pub fn cut(mut self, length: usize) -> Packet {
        self.cut = Some(length);
        self
    }

    /// The packet from the IP header on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut layer4 = self.layer4.clone();
        let size = if self.protocol == SCTP { 4 } else { 2 };
        if let Some(at) = self.checksum_at.filter(|at| layer4.len() >= at + size) {
            if self.protocol == SCTP {
                let value = crc32c(&layer4) ^ u32::from(self.checksum_error);
                layer4[at..at + 4].copy_from_slice(&value.to_le_bytes());
            } else {
                let value = self.checksum_fixed.unwrap_or_else(|| self.right_checksum(&layer4));
                // As sums are added: so it stays the same error in translation.
                let (sum, carry) = value.overflowing_add(self.checksum_error);
                let value = sum + u16::from(carry);
                layer4[at..at + 2].copy_from_slice(&value.to_be_bytes());
            }
        }
        let mut bytes = match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.header4(src.octets(), dst.octets(), &layer4),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.header6(src.octets(), dst.octets(), &layer4),
            _ => panic!("a packet has addresses of one family"),
        };
        bytes.extend_from_slice(&layer4);
        bytes.truncate(self.cut.unwrap_or(usize::MAX));
        bytes
    }

    fn right_checksum(&self, layer4: &[u8]) -> u16 {
        let value = layer4_checksum(self.src, self.dst, self.protocol, layer4);
        if value == 0 && matches!(self.protocol, UDP | UDPLITE) { 0xffff } else { value }
    }

    fn header4(&self, src: [u8; 4], dst: [u8; 4], layer4: &[u8]) -> Vec<u8> {
        let (offset, more) = self.fragment.unwrap_or((0, false));
        let flags = (u16::from(self.dont_fragment) << 14) | (u16::from(more) << 13) | (offset / 8);
        let mut header = vec![0x45, self.tos];
        header.extend_from_slice(&(20 + layer4.len() as u16).to_be_bytes());
        header.extend_from_slice(&self.identification.to_be_bytes());
        header.extend_from_slice(&flags.to_be_bytes());
        header.extend_from_slice(&[self.ttl, self.protocol, 0, 0]);
        header.extend_from_slice(&src);
        header.extend_from_slice(&dst);
        let checksum = checksum(&header).wrapping_add(u16::from(self.header_error));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn header6(&self, src: [u8; 16], dst: [u8; 16], layer4: &[u8]) -> Vec<u8> {
        let first = 6 << 28 | u32::from(self.tos) << 20;
        let mut header = first.to_be_bytes().to_vec();
        header.extend_from_slice(&(layer4.len() as u16).to_be_bytes());
        header.extend_from_slice(&[self.protocol, self.ttl]);
        header.extend_from_slice(&src);
        header.extend_from_slice(&dst);
        header
    }

    /// The IPv4 packet in fragments of `size` payload bytes, a multiple of eight.
    pub fn fragments(&self, size: usize) -> Vec<Packet> {
        let whole = self.bytes()[20..].to_vec();
        let count = whole.len().div_ceil(size);
        let piece = |(at, part): (usize, &[u8])| Packet {
            fragment: Some(((at * size) as u16, at + 1 < count)),
            layer4: part.to_vec(),
            checksum_at: None,
            ..self.clone()
        };
        whole.chunks(size).enumerate().map(piece).collect()
    }
}

/// A TCP segment; `flags` are letters out of `FSRPAUEC`, empty for none.
pub fn tcp(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    flags: &str,
    sequence: u32,
    acknowledgement: u32,
) -> Packet {
    let bits = flags.chars().fold(0u8, |bits, letter| {
        bits | 1 << FLAG_LETTERS.find(letter).unwrap_or_else(|| panic!("no TCP flag {letter}"))
    });
    let mut header = Vec::with_capacity(20);
    header.extend_from_slice(&from.1.to_be_bytes());
    header.extend_from_slice(&to.1.to_be_bytes());
    header.extend_from_slice(&sequence.to_be_bytes());
    header.extend_from_slice(&acknowledgement.to_be_bytes());
    header.extend_from_slice(&[5 << 4, bits]);
    header.extend_from_slice(&8192u16.to_be_bytes());
    header.extend_from_slice(&[0; 4]);
    Packet::new(from.0, to.0, TCP, header)
}

/// A UDP datagram without payload.
pub fn udp(from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
    let mut header = Vec::with_capacity(8);
    header.extend_from_slice(&from.1.to_be_bytes());
    header.extend_from_slice(&to.1.to_be_bytes());
    header.extend_from_slice(&[0, 8, 0, 0]);
    Packet::new(from.0, to.0, UDP, header)
}

/// A UDP-Lite datagram without payload; `coverage` is how many bytes the checksum covers, or 0.
pub fn udplite(from: (IpAddr, u16), to: (IpAddr, u16), coverage: u16) -> Packet {
    let mut header = Vec::with_capacity(8);
    header.extend_from_slice(&from.1.to_be_bytes());
    header.extend_from_slice(&to.1.to_be_bytes());
    header.extend_from_slice(&coverage.to_be_bytes());
    header.extend_from_slice(&[0; 2]);
    Packet::new(from.0, to.0, UDPLITE, header)
}

/// An SCTP packet: verification tag, then chunks as [`chunk`] and [`init`] make them.
pub fn sctp(from: (IpAddr, u16), to: (IpAddr, u16), tag: u32, chunks: &[Vec<u8>]) -> Packet {
    let mut bytes = from.1.to_be_bytes().to_vec();
    bytes.extend_from_slice(&to.1.to_be_bytes());
    bytes.extend_from_slice(&tag.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&chunks.concat());
    Packet::new(from.0, to.0, SCTP, bytes)
}

/// An SCTP chunk with its padding.
pub fn chunk(kind: u8, flags: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags];
    bytes.extend_from_slice(&(4 + value.len() as u16).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// INIT (1) or INIT ACK (2): the tag that the other side is to use, window, streams, first TSN.
pub fn init(kind: u8, tag: u32) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend_from_slice(&[0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    chunk(kind, 0, &value)
}

/// CRC32c, bit by bit (RFC 9260 appendix A).
pub fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Any ICMP or ICMPv6 message: type, code, the four bytes behind the checksum.
pub fn icmp(src: IpAddr, dst: IpAddr, kind: u8, code: u8, rest: [u8; 4]) -> Packet {
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&rest);
    Packet::new(src, dst, if src.is_ipv4() { ICMP } else { ICMPV6 }, message)
}

fn id_and_sequence(id: u16, sequence: u16) -> [u8; 4] {
    let (id, sequence) = (id.to_be_bytes(), sequence.to_be_bytes());
    [id[0], id[1], sequence[0], sequence[1]]
}

/// An echo request with eight bytes of payload.
pub fn echo(src: IpAddr, dst: IpAddr, id: u16, sequence: u16) -> Packet {
    let kind = if src.is_ipv4() { 8 } else { 128 };
    icmp(src, dst, kind, 0, id_and_sequence(id, sequence)).payload(b"pingpong")
}

/// The answer to [`echo`].
pub fn echo_reply(src: IpAddr, dst: IpAddr, id: u16, sequence: u16) -> Packet {
    let kind = if src.is_ipv4() { 0 } else { 129 };
    icmp(src, dst, kind, 0, id_and_sequence(id, sequence)).payload(b"pingpong")
}

/// Another query with an id, as timestamp (13, 14): twelve zero bytes follow.
pub fn query(src: IpAddr, dst: IpAddr, kind: u8, id: u16) -> Packet {
    icmp(src, dst, kind, 0, id_and_sequence(id, 1)).payload(&[0; 12])
}

/// An ICMP error quoting `inner`, the packet as its sender saw it come back.
pub fn error(src: IpAddr, dst: IpAddr, kind: u8, code: u8, inner: &Packet) -> Packet {
    icmp(src, dst, kind, code, [0; 4]).payload(&inner.bytes())
}

/// "Fragmentation needed" or "packet too big", with its MTU.
pub fn too_big(src: IpAddr, dst: IpAddr, mtu: u16, inner: &Packet) -> Packet {
    let mtu = mtu.to_be_bytes();
    let (kind, code) = if src.is_ipv4() { (3, 4) } else { (2, 0) };
    icmp(src, dst, kind, code, [0, 0, mtu[0], mtu[1]]).payload(&inner.bytes())
}

/// A protocol without tracker, its payload given.
pub fn other(src: IpAddr, dst: IpAddr, protocol: u8, payload: &[u8]) -> Packet {
    Packet::new(src, dst, protocol, payload.to_vec())
}

/// TCP options of a SYN: maximum segment size alone.
pub fn mss(size: u16) -> Vec<u8> {
    let size = size.to_be_bytes();
    vec![2, 4, size[0], size[1]]
}

/// Maximum segment size, SACK permitted, window scale.
pub fn syn_options(size: u16, scale: u8) -> Vec<u8> {
    let mut options = mss(size);
    options.extend_from_slice(&[1, 1, 4, 2, 1, 3, 3, scale]);
    options
}

/// One SACK block.
pub fn sack(left: u32, right: u32) -> Vec<u8> {
    let mut options = vec![1, 1, 5, 10];
    options.extend_from_slice(&left.to_be_bytes());
    options.extend_from_slice(&right.to_be_bytes());
    options
}

/// Ones' complement sum of 16-bit words, complemented (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u64 = 0;
    for pair in bytes.chunks(2) {
        sum += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The layer-4 checksum including the pseudo header, which ICMPv4 does not have. Zero means that
/// the bytes, which include their checksum, are right.
pub fn layer4_checksum(src: IpAddr, dst: IpAddr, protocol: u8, layer4: &[u8]) -> u16 {
    let mut bytes = Vec::with_capacity(40 + layer4.len());
    if protocol != ICMP {
        for address in [src, dst] {
            match address {
                IpAddr::V4(address) => bytes.extend_from_slice(&address.octets()),
                IpAddr::V6(address) => bytes.extend_from_slice(&address.octets()),
            }
        }
        bytes.extend_from_slice(&(layer4.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, protocol]);
    }
    bytes.extend_from_slice(layer4.get(..covered(protocol, layer4)).unwrap_or(layer4));
    checksum(&bytes)
}

/// How many bytes the checksum covers: UDP-Lite says so.
fn covered(protocol: u8, layer4: &[u8]) -> usize {
    match (protocol, layer4.get(4..6)) {
        (UDPLITE, Some(&[high, low])) if [high, low] != [0, 0] => {
            usize::from(u16::from_be_bytes([high, low]))
        }
        _ => layer4.len(),
    }
}

/// Letters of TCP flag bits, `.` for none.
pub fn flag_letters(bits: u8) -> String {
    let letters: String = FLAG_LETTERS
        .chars()
        .enumerate()
        .filter(|(at, _)| bits >> at & 1 == 1)
        .map(|p| p.1)
        .collect();
    if letters.is_empty() { ".".into() } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_datagram() {
        let a = "192.0.2.1".parse().unwrap();
        let b = "192.0.2.2".parse().unwrap();
        let bytes = udp((a, 5), (b, 6)).payload(b"hi").bytes();
        let golden = [
            0x45, 0, 0, 30, 0x5a, 0x1c, 0, 0, 64, 17, 0x9c, 0xaf, 192, 0, 2, 1, 192, 0, 2,
            2, // IP
            0, 5, 0, 6, 0, 10, 0x13, 0x62, b'h', b'i',
        ];
        assert_eq!(bytes, golden);
    }

    #[test]
    fn a_crc_and_a_partial_checksum() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        let (a, b) = (("10.0.0.1".parse().unwrap(), 1), ("10.0.0.2".parse().unwrap(), 2));
        let bytes = sctp(a, b, 7, &[init(1, 9), chunk(4, 0, b"abc")]).bytes();
        assert_eq!(bytes.len(), 20 + 12 + 20 + 8);
        let mut zeroed = bytes[20..].to_vec();
        zeroed[8..12].fill(0);
        assert_eq!(crc32c(&zeroed).to_le_bytes(), bytes[28..32]);
        let head = |payload: &[u8]| udplite(a, b, 10).payload(payload).bytes()[26..28].to_vec();
        assert_eq!(head(b"same, but"), head(b"saXX, but"));
        assert_ne!(head(b"same, but"), head(b"Same, but"));
    }

    #[test]
    fn faults_are_put_in() {
        let (a, b) = (("10.0.0.1".parse().unwrap(), 1), ("10.0.0.2".parse().unwrap(), 2));
        let right = tcp(a, b, "S", 7, 0).options(&mss(1460)).bytes();
        assert_eq!(checksum(&right[..20]), 0);
        assert_eq!(layer4_checksum(a.0, b.0, TCP, &right[20..]), 0);
        let wrong = tcp(a, b, "S", 7, 0).bad_checksum().bytes();
        assert_ne!(layer4_checksum(a.0, b.0, TCP, &wrong[20..]), 0);
        assert_eq!(tcp(a, b, "S", 7, 0).cut(30).bytes().len(), 30);
    }
}
