//! What is offered: seeded conns, their frames, and the capture files that hold them.
//!
//! One frame per conn and direction, of the kinds that `frame` builds. Addresses and ports are
//! pseudorandom (RFC 4814). The files are classic captures, because that is what DPDK's `net_pcap`
//! replays.
//!
//! Nothing here is shared: a [`Traffic`] is made once per number of conns and only read.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::frame::{Ends, Kind, Leg, Mac, build};

/// The inside port's own address on the wire.
pub(crate) const LAN_MAC: Mac = [0x02, 0, 0, 0, 0x10, 0x01];
/// The router behind the inside port, through which all clients are reached.
pub(crate) const LAN_NEXT_HOP_MAC: Mac = [0x02, 0, 0, 0, 0x10, 0xfe];
/// The outside port's own address on the wire.
pub(crate) const WAN_MAC: Mac = [0x02, 0, 0, 0, 0x20, 0x01];
/// The router behind the outside port.
pub(crate) const WAN_NEXT_HOP_MAC: Mac = [0x02, 0, 0, 0, 0x20, 0xfe];

const LOWEST_PORT: u16 = 1024;

/// A set of conns.
pub(crate) struct Traffic {
    kind: Kind,
    conns: Vec<Ends>,
}

impl Traffic {
    /// `count` conns with distinct (source port, destination, destination port), so that source
    /// translation to one address may keep every port. The same seed gives the same conns.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        Self::of(Kind::Udp, count, seed)
    }

    /// The same conns with other frames.
    pub(crate) fn of(kind: Kind, count: usize, seed: u64) -> Self {
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
        Self { kind, conns }
    }

    /// The first and the second half of the conns, each numbered from 0.
    pub(crate) fn halves(&self) -> [Traffic; 2] {
        let (first, second) = self.conns.split_at(self.conns.len() / 2);
        [first, second].map(|conns| Traffic { kind: self.kind, conns: conns.to_vec() })
    }

    /// Number of conns.
    pub(crate) fn len(&self) -> usize {
        self.conns.len()
    }

    /// The ends of a conn as the client sends, by number.
    pub(crate) fn conn(&self, number: u64) -> Option<Ends> {
        self.conns.get(usize::try_from(number).ok()?).copied()
    }

    /// What kind of frames they have.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Writes the frames that clients send.
    pub(crate) fn write_originals(&self, path: &Path) -> io::Result<()> {
        write_capture(path, self.original_frames())
    }

    /// The frames that clients send.
    pub(crate) fn originals(&self) -> Vec<Vec<u8>> {
        self.original_frames().collect()
    }

    /// The servers' replies; see [`Traffic::write_replies`].
    pub(crate) fn replies(&self, translated: Option<Ipv4Addr>) -> Vec<Vec<u8>> {
        self.reply_frames(translated).collect()
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

    fn original_frames(&self) -> impl Iterator<Item = Vec<u8>> {
        let leg = Leg { dst_mac: LAN_MAC, src_mac: LAN_NEXT_HOP_MAC, reply: false };
        self.conns.iter().zip(0..).map(move |(&ends, n)| build(self.kind, leg, ends, n))
    }

    fn reply_frames(&self, translated: Option<Ipv4Addr>) -> impl Iterator<Item = Vec<u8>> {
        let leg = Leg { dst_mac: WAN_MAC, src_mac: WAN_NEXT_HOP_MAC, reply: true };
        self.conns.iter().zip(0..).map(move |(ends, n)| {
            let seen = Ends { src: translated.unwrap_or(ends.src), ..*ends };
            build(self.kind, leg, seen.reversed(), n)
        })
    }
}

/// Writes a capture without frames.
pub(crate) fn write_nothing(path: &Path) -> io::Result<()> {
    write_capture(path, std::iter::empty())
}

/// Writes a classic capture file: microseconds, Ethernet, all times zero.
fn write_capture(path: &Path, frames: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
    let mut bytes = Vec::new();
    bytes.extend(0xa1b2_c3d4_u32.to_le_bytes());
    bytes.extend([2, 0, 4, 0]);
    bytes.extend([0; 8]);
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    for frame in frames {
        bytes.extend([0; 8]);
        bytes.extend((frame.len() as u32).to_le_bytes());
        bytes.extend((frame.len() as u32).to_le_bytes());
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
    use crate::frame::read;

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
    fn captures_read_back_as_written() {
        let path = std::env::temp_dir().join(format!("perf-capture-{}", std::process::id()));
        let traffic = Traffic::of(Kind::Imix, 33, 1);
        traffic.write_replies(&path, Some(Ipv4Addr::new(198, 51, 100, 1))).unwrap();
        let frames = read_capture(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(frames.len(), 33);
        let seen = read(Kind::Imix, &frames[32]).unwrap();
        let conn = traffic.conn(32).unwrap();
        assert_eq!((seen.conn, seen.ends.dst_port), (32, conn.src_port));
        assert_eq!(seen.ends.dst, Ipv4Addr::new(198, 51, 100, 1));
    }
}
