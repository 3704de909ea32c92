//! Lean packets: TCP and UDP over IPv4 without tag, options or fragments, whole in the first
//! segment, their checksums right. That is what nearly all packets are, so they get a reading
//! ([`Lean::read`], stage 2) and an edit of their own that touch headers at fixed places. Those of
//! IPv6 are read in `pipeline/lean6.rs`.
//!
//! Nearly all of them go the quick way then (`pipeline/quick.rs`). `by_lean_path` is for those that
//! cannot: a conn with an extension, its first answer, one of another lcore, one that the index has
//! away from home. Everything else, and whatever looks odd here, takes the general way, which gives
//! the same result.

use crate::conntrack::record::Conn;
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::tuple::{HashKeys, HashSeed, KeyV4, proto};
use crate::conntrack::zones::Zones;
use crate::nat::rewrite;
use crate::pipeline::burst::{Prejudged, Short, Way};
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::lean6;
use crate::pipeline::neighbour::NextHop;
use crate::pipeline::track::{Judged, ct_state, tuple_of};
use crate::pipeline::transit::Extent;
use crate::pipeline::walking::Walking;
use crate::pipeline::{At, Holder, Pipeline};
use crate::rules::facts::PortId;
use crate::wire::checksum;
use crate::wire::headers::Headers;
use crate::wire::tcp::flags;

pub(crate) const L3: u16 = 14;
pub(crate) const L4: u16 = 34;
/// Where what UDP and TCP have in common ends, which is UDP's header.
const TRANSPORT: usize = 42;

/// TCP flags that the shortest ways know nothing of.
pub(crate) const WALKS: u8 = flags::SYN | flags::FIN | flags::RST;

/// What is read of a lean packet, and of any other what stage 3 needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lean {
    /// Without addresses if it is of IPv6.
    pub key: KeyV4,
    pub hash: u64,
    /// Where in the index it is sought first.
    pub home: u32,
    /// Bytes of the IP packet.
    pub ip_len: u16,
    /// The TTL; 0 where the flags ask for a walk, and in the place of a frame that is not lean.
    pub life: u8,
    pub sought: Sought,
}

/// Whether there may be a conn to look for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Sought {
    #[default]
    No,
    Yes,
    /// There may, and the packet is lean and of IPv6.
    V6,
}

// What divides a line of memory.
const _: () = assert!(size_of::<Lean>() == 32);

/// What the frames of a burst are read by.
pub(crate) struct Reading {
    /// Our MAC address in the lower 48 bits, its first byte lowest.
    pub mac: u64,
    /// By family, as is the next.
    pub udp: [HashKeys; 2],
    pub tcp: [HashKeys; 2],
    /// Whether transport checksums count.
    pub check: bool,
}

impl Reading {
    /// In the zones of the families.
    pub(crate) fn new(mac: &[u8; 6], zones: [u16; 2], seed: &HashSeed, check: bool) -> Reading {
        let mac = mac.iter().rev().fold(0, |bits, byte| bits << 8 | *byte as u64);
        let keys = |proto| zones.map(|zone| seed.keys(proto, zone));
        let [udp, tcp] = [proto::UDP, proto::TCP].map(keys);
        Reading { mac, udp, tcp, check }
    }
}

impl Lean {
    /// Reads a frame; false if it is not lean, not for us or not good. What is wrong with it the
    /// general way will say.
    #[inline(always)]
    pub(crate) fn read<F: Frame>(&mut self, frame: &F, by: &Reading) -> bool {
        let head = frame.head();
        let Some(bytes) = head.first_chunk::<TRANSPORT>() else { return false };
        let le64 = |at: usize| {
            let word = bytes[at..].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(word)
        };
        let le32 = |at: usize| {
            let word = bytes[at..].first_chunk().copied().unwrap_or_default();
            u32::from_le_bytes(word)
        };
        // The IP header in words of its checksum, and the transport header's beginning; each with
        // its first byte lowest.
        let (first, second, addresses) = (le64(14), le32(22) as u64, le64(26));
        let transport = le64(34);
        // Our address, IPv4, five words of header; no fragment. DF and the reserved bit do not
        // matter.
        let odd = (le64(0) ^ by.mac) << 16
            | ((le32(12) ^ 0x0045_0008) & 0x00ff_ffff) as u64
            | first >> 48 & 0xff3f;
        let header = checksum::add_wide(checksum::add_wide(first, second), addresses);
        if odd != 0 || !checksum::is_right(header) {
            return false;
        }
        let (ip_len, proto_number) = (((first >> 16) as u16).swap_bytes(), (second >> 8) as u8);
        let l4_len = ip_len.wrapping_sub(20).swap_bytes() as u64;
        // The pseudo header and what has been read: all but what is behind.
        let sum = checksum::add_wide(addresses, (second & 0xff00) + l4_len);
        let sum = checksum::add_wide(sum, transport);
        let Some(packet) = head.get(..L3 as usize + ip_len as usize) else { return false };
        let Some(behind) = packet.get(TRANSPORT..) else { return false };
        self.life = second as u8;
        let keys = match proto_number {
            proto::UDP => {
                // A checksum of 0 says that there is none.
                let check = by.check && transport >> 48 != 0;
                if transport >> 32 & 0xffff != l4_len
                    || check && !is_sound(frame, packet, TRANSPORT, sum)
                {
                    return false;
                }
                &by.udp[0]
            }
            proto::TCP => {
                let Some(header) = behind.first_chunk::<12>() else { return false };
                if by.check && !is_sound(frame, packet, TRANSPORT, sum) {
                    return false;
                }
                if header[5] & WALKS != 0 {
                    self.life = 0;
                }
                &by.tcp[0]
            }
            _ => return false,
        };
        self.key = KeyV4 { addresses, ids: transport as u32, proto: proto_number };
        self.hash = self.key.hash(keys);
        self.ip_len = ip_len;
        self.sought = Sought::Yes;
        true
    }

    #[inline(always)]
    pub(crate) fn extent(&self) -> Extent {
        Extent { proto: self.key.proto, l3: L3, l4: self.l4(), end: self.end() as u32 }
    }

    /// True if the transport checksum is right, or UDP's is absent; for a frame that was read
    /// without looking.
    pub(crate) fn is_sound<F: Frame>(&self, frame: &F) -> bool {
        if self.is_v6() {
            return self.is_sound_v6(frame);
        }
        let Some(bytes) = frame.head().first_chunk::<42>() else { return false };
        if self.key.proto == proto::UDP && bytes[40] | bytes[41] == 0 {
            return true;
        }
        let l4_len = self.ip_len.wrapping_sub(L4 - L3).swap_bytes() as u64;
        let addresses = (self.key.addresses >> 32) + (self.key.addresses & 0xffff_ffff);
        let pseudo = addresses + ((self.key.proto as u64) << 8) + l4_len;
        let packet = frame.head().get(..self.end());
        packet.is_some_and(|packet| is_sound(frame, packet, L4 as usize, pseudo))
    }

    #[inline(always)]
    pub(crate) fn is_v6(&self) -> bool {
        self.sought == Sought::V6
    }

    /// Offset of the transport header.
    #[inline(always)]
    pub(crate) fn l4(&self) -> u16 {
        if self.is_v6() { lean6::L4 } else { L4 }
    }

    /// Offset of the packet's end in the frame.
    #[inline(always)]
    pub(crate) fn end(&self) -> usize {
        L3 as usize + self.ip_len as usize
    }
}

/// True if the transport checksum is right, by the device or by the sum of what it covers: all
/// from there on, and what is in `sum` already.
#[inline(always)]
pub(crate) fn is_sound<F: Frame>(frame: &F, packet: &[u8], from: usize, sum: u64) -> bool {
    let all = || checksum::add_wide(checksum::wide_from(packet, from), sum);
    frame.is_verified() || checksum::is_right(all())
}

/// The key of a packet that a [`Lean`] describes, from its headers.
pub(crate) fn key_of(h: &Headers) -> Option<KeyV4> {
    let lean = (h.proto == proto::UDP || h.proto == proto::TCP) && !h.is_v6();
    lean.then(|| KeyV4::of(&tuple_of(h)))
}

impl<P: FramePool> Pipeline<P> {
    /// The cached path of a lean packet, if there is one and the packet may take it.
    #[inline(always)]
    pub(crate) fn by_lean_path(
        &mut self,
        port: PortId,
        frame: &mut P::Frame,
        (lean, zones): (&Lean, Zones),
        candidate: Option<Conn<'_>>,
        long: &Walking<P::Frame>,
        at: At<'_>,
    ) -> Short {
        if self.untracked.is_used(self.generation)
            && at.policy.knobs.checksum
            && !lean.is_sound(frame)
        {
            return Short::WALK;
        }
        let zone = zones.original;
        let matches = |conn: Conn<'_>| conn.matches_v4(&lean.key, zone);
        let search = || (lean.hash, lean.key.tuple());
        let found = at.table.find_live(candidate, zone, at.now.tick, matches, search);
        let Some((conn, direction)) = found else { return self.unknown(port, lean.hash, zones) };
        if direction == Direction::Reply && zones.is_split() {
            return Short::WALK;
        }
        match self.holder(conn) {
            Holder::Here => {}
            // What walks of this conn has not found its owner yet, and goes there first.
            Holder::Elsewhere(_) if long.has_one_of(conn, zones) => {
                return Short::WALK;
            }
            Holder::Elsewhere(lcore) => return Short::Elsewhere(lcore),
            Holder::Nobody => return self.unknown(port, lean.hash, zones),
        }
        let status = conn.status();
        let number = conn.path(direction);
        // Flags that ask for a walk do so where the path ends before any route, too.
        if conn.generation() != self.generation || lean.life == 0 || long.has_one_of(conn, zones) {
            return Short::WALK;
        }
        let (extent, state) = (lean.extent(), ct_state(status, direction));
        let next_hop = NextHop(conn.next_hop(direction));
        let size = (lean.life, extent.ip_len());
        let Some(way) = self.way(port, number, state, next_hop, size, at) else {
            return Short::WALK;
        };
        let judged = self.judge(frame, extent, conn, direction, at);
        let Judged::Accepted(accepted) = judged else {
            return Short::Walk(Some(Prejudged { conn: conn.number(), direction, judged }));
        };
        if accepted.events != 0 {
            self.settle_events(accepted.events, conn, matches!(way, Way::Out { .. }), at);
        }
        self.paths.count(number, 1, extent.ip_len() as u64);
        self.took_path += 1;
        if let Way::Out { macs, .. } = &way {
            if status.has(Status::SEQ_ADJUST)
                && let Err(reason) = self.shift_cached(frame, extent, (conn, direction), at)
            {
                return Short::Dropped(reason);
            }
            let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
            let to = translated.then_some(|| conn.leaving_v4(direction));
            rewrite::forward_lean(frame.head_mut(), macs, extent.proto == proto::UDP, to);
        }
        way.end(frame, extent.end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conntrack::icmp;
    use crate::lcore::memory::MemoryFrame;
    use crate::pipeline::burst::is_plain;
    use crate::pipeline::track::sound;
    use crate::wire::headers;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SEED: HashSeed = HashSeed([3, 5, 7, 11, 13]);

    /// A frame of UDP or TCP with `payload` bytes, all of it right.
    fn frame(tcp: bool, payload: usize, padding: usize, check: bool) -> Vec<u8> {
        let l4_len = payload + if tcp { 20 } else { 8 };
        let mut bytes = vec![0; 14 + 20 + l4_len + padding];
        bytes[..6].copy_from_slice(&MAC);
        bytes[12..16].copy_from_slice(&[8, 0, 0x45, 0x28]);
        bytes[16..18].copy_from_slice(&(20 + l4_len as u16).to_be_bytes());
        bytes[22] = 64;
        bytes[23] = if tcp { proto::TCP } else { proto::UDP };
        bytes[26..38].copy_from_slice(&[10, 0, 0, 1, 192, 0, 2, 7, 0x9c, 0x40, 0, 53]);
        if tcp {
            bytes[46..48].copy_from_slice(&[0x50, flags::ACK]);
        } else {
            bytes[38..40].copy_from_slice(&(l4_len as u16).to_be_bytes());
        }
        bytes[34 + l4_len - payload..34 + l4_len].fill(0x5a);
        let header = checksum::internet(&bytes[14..34]);
        bytes[24..26].copy_from_slice(&header.to_be_bytes());
        if check {
            let pseudo = u32::from(bytes[23]) + l4_len as u32;
            let sum = checksum::finish(checksum::sum(&bytes[26..34 + l4_len]) + pseudo);
            let at = if tcp { 50 } else { 40 };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8], check: bool) -> Option<Lean> {
        let mut lean = Lean::default();
        let by = Reading::new(&MAC, [7, 8], &SEED, check);
        lean.read(&MemoryFrame::new(bytes), &by).then_some(lean)
    }

    proptest! {
        /// Reading agrees with the general parser and the trackers' first checks, whatever one
        /// byte is, as long as it is the checksums that tell.
        #[test]
        fn what_is_lean_is_what_the_general_way_finds_good(
            tcp: bool,
            check: bool,
            payload in 0..300usize,
            padding in 0..8usize,
            harm in prop::option::of((6..60usize, any::<u8>())),
            mend: bool,
        ) {
            let mut bytes = frame(tcp, payload, padding, check || tcp);
            if let Some((at, value)) = harm
                && let Some(byte) = bytes.get_mut(at)
            {
                *byte = value;
            }
            if mend {
                bytes[24..26].fill(0);
                let header = checksum::internet(&bytes[14..34]);
                bytes[24..26].copy_from_slice(&header.to_be_bytes());
            }
            let lean = read(&bytes, check);
            let whole = MemoryFrame::new(bytes.clone());
            let good = headers::parse(whole.head(), whole.total_len()).ok().filter(|h| {
                is_plain(h) && !h.is_v6() && matches!(h.proto, proto::TCP | proto::UDP)
                    && sound(&whole, h, check) == Ok(icmp::Kind::Query)
            });
            let Some(lean) = lean else {
                // Some good ones are none of ours, as those with a TCP header of another length.
                prop_assert!(good.is_none() || harm.is_some());
                return Ok(());
            };
            let Some(h) = good else {
                prop_assert!(false, "{lean:?} of a frame that is not good: {bytes:02x?}");
                return Ok(());
            };
            prop_assert_eq!(headers::parse_known(&bytes), Some(h));
            prop_assert_eq!(Some(lean.key), key_of(&h));
            prop_assert_eq!(lean.hash, tuple_of(&h).hash(7, &SEED));
            prop_assert_eq!((lean.end() as u32, lean.ip_len as u32), (h.end, h.ip_len()));
            let walks = h.tcp_flags & WALKS != 0;
            prop_assert_eq!(lean.life, if walks { 0 } else { h.ttl });
            prop_assert_eq!(lean.sought, Sought::Yes);
            prop_assert!(!check || lean.is_sound(&whole));
        }
    }

    #[test]
    fn a_packet_that_ends_within_its_header_is_not_lean() {
        for length in 0..48u16 {
            let mut bytes = frame(false, 20, 0, false);
            bytes[16..18].copy_from_slice(&length.to_be_bytes());
            // As long as UDP's own length would be, were it counted round.
            bytes[38..40].copy_from_slice(&length.wrapping_sub(20).to_be_bytes());
            bytes[24..26].fill(0);
            let header = checksum::internet(&bytes[14..34]);
            bytes[24..26].copy_from_slice(&header.to_be_bytes());
            assert_eq!(read(&bytes, false).is_some(), length >= 28, "{length}");
        }
    }
}
