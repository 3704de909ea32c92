//! What is offered: seeded conns, their frames, and the capture files that hold them.
//!
//! One frame per conn, 60 bytes as on the wire without its checksum: Ethernet, IPv4, UDP with a
//! real checksum, and the conn's number as the first payload bytes, so that a frame seen behind a
//! program can be matched with the conn it came from. Addresses and ports are pseudorandom (RFC
//! 4814). The files are classic captures, because that is what DPDK's `net_pcap` replays.
//!
//! Nothing here is shared: a [`Traffic`] is made once per number of conns and only read.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// Bytes of a frame.
pub(crate) const FRAME_LEN: usize = 60;
/// Time to live of every offered frame.
pub(crate) const TTL: u8 = 64;
/// The inside port's own address on the wire.
pub(crate) const LAN_MAC: Mac = [0x02, 0, 0, 0, 0x10, 0x01];
/// The router behind the inside port, through which all clients are reached.
pub(crate) const LAN_NEXT_HOP_MAC: Mac = [0x02, 0, 0, 0, 0x10, 0xfe];
/// The outside port's own address on the wire.
pub(crate) const WAN_MAC: Mac = [0x02, 0, 0, 0, 0x20, 0x01];
/// The router behind the outside port.
pub(crate) const WAN_NEXT_HOP_MAC: Mac = [0x02, 0, 0, 0, 0x20, 0xfe];

const IP: usize = 14;
const UDP: usize = IP + 20;
const PAYLOAD: usize = UDP + 8;
const LOWEST_PORT: u16 = 1024;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];
/// One frame.
pub(crate) type Frame = [u8; FRAME_LEN];

/// The two ends of a UDP packet.
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
    /// Whether both the IPv4 and the UDP checksum are right.
    pub(crate) checksums_right: bool,
}

/// A set of conns.
pub(crate) struct Traffic {
    conns: Vec<Ends>,
}

impl Traffic {
    /// `count` conns with distinct (source port, destination, destination port), so that source
    /// translation to one address may keep every port. The same seed gives the same conns.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut ports: Vec<u16> = (LOWEST_PORT..=u16::MAX).collect();
        for i in (1..ports.len()).rev() {
            ports.swap(i, random.below(i as u64 + 1) as usize);
        }
        let mut taken = HashSet::with_capacity(count);
        let mut conns = Vec::with_capacity(count);
        while conns.len() < count {
            let ends = Ends {
                src: Ipv4Addr::new(10, 1, random.below(256) as u8, 1 + random.below(254) as u8),
                dst: Ipv4Addr::from(0xc612_0000 + random.below(1 << 17) as u32),
                src_port: ports[conns.len() % ports.len()],
                dst_port: LOWEST_PORT + random.below(60_000) as u16,
            };
            if taken.insert((ends.src_port, ends.dst, ends.dst_port)) {
                conns.push(ends);
            }
        }
        Self { conns }
    }

    /// The first and the second half of the conns, each numbered from 0.
    pub(crate) fn halves(&self) -> [Traffic; 2] {
        let (first, second) = self.conns.split_at(self.conns.len() / 2);
        [first, second].map(|conns| Traffic { conns: conns.to_vec() })
    }

    /// Number of conns.
    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    /// The ends of a conn as the client sends, by number.
    pub(crate) fn conn(&self, number: u64) -> Option<Ends> {
        self.conns.get(usize::try_from(number).ok()?).copied()
    }

    /// Writes the frames that clients send.
    pub(crate) fn write_originals(&self, path: &Path) -> io::Result<()> {
        let frames = self.conns.iter().zip(0..);
        let frames = frames.map(|(&ends, n)| frame(LAN_MAC, LAN_NEXT_HOP_MAC, ends, n));
        write_capture(path, frames)
    }

    /// The frames that clients send.
    pub(crate) fn originals(&self) -> Vec<Vec<u8>> {
        let frames = self.conns.iter().zip(0..);
        frames.map(|(&ends, n)| frame(LAN_MAC, LAN_NEXT_HOP_MAC, ends, n).to_vec()).collect()
    }

    /// The servers' replies; see [`Traffic::write_replies`].
    pub(crate) fn replies(&self, translated: Option<Ipv4Addr>) -> Vec<Vec<u8>> {
        self.reply_frames(translated).map(|frame| frame.to_vec()).collect()
    }

    /// Writes the frames that clients send, all conns again and again.
    pub(crate) fn write_repeated(&self, path: &Path, times: usize) -> io::Result<()> {
        let again = (0..times).flat_map(|_| self.conns.iter().zip(0..));
        write_capture(path, again.map(|(&ends, n)| frame(LAN_MAC, LAN_NEXT_HOP_MAC, ends, n)))
    }

    /// Writes the servers' replies. `translated` is the address that servers see instead of the
    /// clients', with every source port kept.
    pub(crate) fn write_replies(
        &self,
        path: &Path,
        translated: Option<Ipv4Addr>,
    ) -> io::Result<()> {
        write_capture(path, self.reply_frames(translated))
    }

    fn reply_frames(&self, translated: Option<Ipv4Addr>) -> impl Iterator<Item = Frame> {
        self.conns.iter().zip(0..).map(move |(ends, n)| {
            let seen = Ends { src: translated.unwrap_or(ends.src), ..*ends };
            frame(WAN_MAC, WAN_NEXT_HOP_MAC, seen.reversed(), n)
        })
    }
}

/// Builds the frame of conn `number` from `src_mac` to `dst_mac`.
fn frame(dst_mac: Mac, src_mac: Mac, ends: Ends, number: u64) -> Frame {
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&dst_mac);
    frame[6..12].copy_from_slice(&src_mac);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[IP] = 0x45;
    frame[IP + 2..IP + 4].copy_from_slice(&((FRAME_LEN - IP) as u16).to_be_bytes());
    frame[IP + 6] = 0x40; // do not fragment
    frame[IP + 8] = TTL;
    frame[IP + 9] = 17;
    frame[IP + 12..IP + 16].copy_from_slice(&ends.src.octets());
    frame[IP + 16..UDP].copy_from_slice(&ends.dst.octets());
    let check = !sum(&frame[IP..UDP], 0);
    frame[IP + 10..IP + 12].copy_from_slice(&check.to_be_bytes());
    frame[UDP..UDP + 2].copy_from_slice(&ends.src_port.to_be_bytes());
    frame[UDP + 2..UDP + 4].copy_from_slice(&ends.dst_port.to_be_bytes());
    frame[UDP + 4..UDP + 6].copy_from_slice(&((FRAME_LEN - UDP) as u16).to_be_bytes());
    frame[PAYLOAD..PAYLOAD + 8].copy_from_slice(&number.to_be_bytes());
    // RFC 768: a sum of zero is sent as all ones, zero means none.
    let check = match !udp_sum(&frame) {
        0 => 0xffff,
        check => check,
    };
    frame[UDP + 6..UDP + 8].copy_from_slice(&check.to_be_bytes());
    frame
}

/// Reads a frame back. None if it is not one of ours in length and protocols.
pub(crate) fn read_frame(bytes: &[u8]) -> Option<Seen> {
    let frame: &Frame = bytes.try_into().ok()?;
    if frame[12..14] != [0x08, 0x00] || frame[IP] != 0x45 || frame[IP + 9] != 17 {
        return None;
    }
    let two = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let four = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    let mac = |at: usize| -> Option<Mac> { frame[at..at + 6].try_into().ok() };
    let present = two(UDP + 6) != 0;
    Some(Seen {
        dst_mac: mac(0)?,
        src_mac: mac(6)?,
        ttl: frame[IP + 8],
        ends: Ends {
            src: four(IP + 12),
            dst: four(IP + 16),
            src_port: two(UDP),
            dst_port: two(UDP + 2),
        },
        conn: u64::from_be_bytes(frame[PAYLOAD..PAYLOAD + 8].try_into().ok()?),
        checksums_right: present && sum(&frame[IP..UDP], 0) == 0xffff && udp_sum(frame) == 0xffff,
    })
}

/// The sum over a frame's UDP pseudo header, header and payload (RFC 768).
fn udp_sum(frame: &Frame) -> u16 {
    sum(&frame[IP + 12..], 17 + (FRAME_LEN - UDP) as u32)
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

/// Writes a capture without frames.
pub(crate) fn write_nothing(path: &Path) -> io::Result<()> {
    write_capture(path, std::iter::empty())
}

/// Writes a classic capture file: microseconds, Ethernet, all times zero.
fn write_capture(path: &Path, frames: impl Iterator<Item = Frame>) -> io::Result<()> {
    let mut bytes = Vec::new();
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend([2, 0, 4, 0]);
    bytes.extend([0; 8]);
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for frame in frames {
        bytes.extend([0; 8]);
        bytes.extend((FRAME_LEN as u32).to_le_bytes());
        bytes.extend((FRAME_LEN as u32).to_le_bytes());
        bytes.extend(frame);
    }
    fs::write(path, bytes)
}

/// Reads the frames of a capture file that this machine's DPDK wrote (little endian, micro- or
/// nanoseconds). A record that is cut short ends the file.
pub(crate) fn read_capture(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path)?;
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes(word.try_into().ok()?))
    };
    if !matches!(word(0), Some(0xa1b2_c3d4 | 0xa1b2_3c4d)) {
        let reason = format!("{}: not a capture file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    let mut frames = Vec::new();
    let mut at = 24;
    while let Some(len) = word(at + 8) {
        let Some(frame) = bytes.get(at + 16..at + 16 + len as usize) else { break };
        frames.push(frame.to_vec());
        at += 16 + len as usize;
    }
    Ok(frames)
}

/// SplitMix64: small, seeded and good enough to spread addresses.
struct Random(u64);

impl Random {
    /// A number below `bound`; the bias at these bounds does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_conns_again_and_no_tuple_twice() {
        let one = Traffic::new(100_000, 7);
        assert_eq!(one.conns, Traffic::new(100_000, 7).conns);
        assert_ne!(one.conns, Traffic::new(100_000, 8).conns);
        // As seen behind a translation of all sources to one address.
        let behind: HashSet<_> = one.conns.iter().map(|c| Ends { src: c.dst, ..*c }).collect();
        assert_eq!(behind.len(), 100_000);
    }

    #[test]
    fn frames_read_back_as_written() {
        let traffic = Traffic::new(1000, 1);
        for number in 0..1000 {
            let ends = traffic.conn(number).unwrap();
            let bytes = frame(LAN_MAC, LAN_NEXT_HOP_MAC, ends, number);
            let seen = read_frame(&bytes).unwrap();
            let expected = Seen {
                dst_mac: LAN_MAC,
                src_mac: LAN_NEXT_HOP_MAC,
                ttl: TTL,
                ends,
                conn: number,
                checksums_right: true,
            };
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_changed_byte_makes_a_checksum_wrong() {
        let traffic = Traffic::new(1, 1);
        let good = frame(LAN_MAC, LAN_NEXT_HOP_MAC, traffic.conn(0).unwrap(), 0);
        for at in [IP + 8, IP + 15, UDP + 1, FRAME_LEN - 1] {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(!read_frame(&bad).unwrap().checksums_right, "byte {at}");
        }
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

    #[test]
    fn captures_read_back_as_written() {
        let path = std::env::temp_dir().join(format!("perf-capture-{}", std::process::id()));
        let traffic = Traffic::new(33, 1);
        traffic.write_replies(&path, Some(Ipv4Addr::new(198, 51, 100, 1))).unwrap();
        let frames = read_capture(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(frames.len(), 33);
        let seen = read_frame(&frames[32]).unwrap();
        let conn = traffic.conn(32).unwrap();
        assert_eq!((seen.conn, seen.ends.dst_port), (32, conn.src_port));
        assert_eq!(seen.ends.dst, Ipv4Addr::new(198, 51, 100, 1));
    }
}
