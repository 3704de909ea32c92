//! The shortest way: TCP and UDP over IPv4 without tag, options or fragments, whole headers in the
//! first segment. That is what nearly all packets are, so they get a reading and an edit of their
//! own that touch 54 bytes at fixed places; everything else, and whatever looks odd here, takes the
//! general way, which gives the same result.

use arrayvec::ArrayVec;

use crate::conntrack::record::{Conn, LeavingV4};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::{HashKeys, HashSeed, KeyV4, Tuple, proto};
use crate::conntrack::zones::Zones;
use crate::nat::rewrite;
use crate::pipeline::burst::{Long, Prejudged, Short, Way};
use crate::pipeline::frame::{BURST_MAX, Frame, FramePool};
use crate::pipeline::neighbour::NextHop;
use crate::pipeline::track::{Judged, ct_state, tuple_of};
use crate::pipeline::transit::Extent;
use crate::pipeline::{At, Holder, Pipeline};
use crate::rules::facts::PortId;
use crate::wire::checksum;
use crate::wire::headers::Headers;
use crate::wire::tcp::flags;

const L3: u16 = 14;
const L4: u16 = 34;

/// TCP flags that the shortest ways know nothing of.
const WALKS: u8 = flags::SYN | flags::FIN | flags::RST;

/// What is read of a lean packet, and of any other what stage 3 needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lean {
    pub key: KeyV4,
    pub hash: u64,
    /// Offset of the packet's end in the frame.
    pub end: u32,
    /// The TTL; 0 where the flags ask for a walk, and in the place of a frame that is not lean.
    pub life: u8,
    /// Whether there may be a conn to look for.
    pub sought: bool,
}

/// What the frames of a burst are read by.
pub(crate) struct Reading {
    /// Our MAC address in the lower 48 bits, its first byte lowest.
    mac: u64,
    udp: HashKeys,
    tcp: HashKeys,
    /// Whether transport checksums count.
    check: bool,
}

impl Reading {
    pub(crate) fn new(mac: &[u8; 6], zone: u16, seed: &HashSeed, check: bool) -> Reading {
        let mac = mac.iter().rev().fold(0, |bits, byte| bits << 8 | *byte as u64);
        let [udp, tcp] = [proto::UDP, proto::TCP].map(|proto| seed.keys(proto, zone));
        Reading { mac, udp, tcp, check }
    }
}

impl Lean {
    /// Reads a frame; false if it is not lean, not for us or not good. What is wrong with it the
    /// general way will say.
    #[inline(always)]
    pub(crate) fn read<F: Frame>(&mut self, frame: &F, by: &Reading) -> bool {
        let head = frame.head();
        let Some(bytes) = head.first_chunk::<42>() else { return false };
        let le64 = |at: usize| {
            let word = bytes[at..].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(word)
        };
        let le32 = |at: usize| {
            let word = bytes[at..].first_chunk().copied().unwrap_or_default();
            u32::from_le_bytes(word)
        };
        // The IP header in words of its checksum, each with its first byte lowest.
        let (first, second, dst) = (le64(14), le64(22), le32(30) as u64);
        // Our address, IPv4, five words of header; no fragment. DF and the reserved bit do not
        // matter.
        let odd = (le64(0) ^ by.mac) << 16
            | ((le32(12) ^ 0x0045_0008) & 0x00ff_ffff) as u64
            | first >> 48 & 0xff3f;
        let header = checksum::add_wide(checksum::add_wide(first, second), dst);
        if odd != 0 || !checksum::is_right(header) {
            return false;
        }
        let (ip_len, ports) = (((first >> 16) as u16).swap_bytes(), le64(34));
        let (end, l4_len) = (L3 as usize + ip_len as usize, ip_len.wrapping_sub(20));
        // Of the pseudo header, addresses and protocol.
        let pseudo = (second >> 32) + dst + (second & 0xff00);
        if end > head.len() {
            return false;
        }
        let proto_number = (second >> 8) as u8;
        self.life = second as u8;
        let keys = match proto_number {
            proto::UDP => {
                let length = ports >> 32 & 0xffff;
                if ip_len < 28 || length as u16 != l4_len.swap_bytes() {
                    return false;
                }
                // 0 says that there is no checksum.
                if by.check && ports >> 48 != 0 && !is_sound(frame, end, pseudo + length) {
                    return false;
                }
                &by.udp
            }
            proto::TCP => {
                let Some(bytes) = head.first_chunk::<54>() else { return false };
                let pseudo = pseudo + l4_len.swap_bytes() as u64;
                if ip_len < 40 || by.check && !is_sound(frame, end, pseudo) {
                    return false;
                }
                if bytes[47] & WALKS != 0 {
                    self.life = 0;
                }
                &by.tcp
            }
            _ => return false,
        };
        self.key = KeyV4 { addresses: le64(26), ids: ports as u32, proto: proto_number };
        self.hash = self.key.hash(keys);
        self.end = end as u32;
        self.sought = true;
        true
    }

    #[inline(always)]
    pub(crate) fn extent(&self) -> Extent {
        Extent { proto: self.key.proto, l3: L3, l4: L4, end: self.end }
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn ip_len(&self) -> u32 {
        self.end - L3 as u32
    }
}

/// True if the transport checksum is right, by the device or by the sum of what it covers.
#[inline(always)]
fn is_sound<F: Frame>(frame: &F, end: usize, pseudo: u64) -> bool {
    if frame.is_verified() {
        return true;
    }
    let Some(l4) = frame.head().get(L4 as usize..end) else { return false };
    checksum::is_right(checksum::add_wide(checksum::wide(l4), pseudo))
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
        long: &ArrayVec<Long<P::Frame>, BURST_MAX>,
        at: At<'_>,
    ) -> Short {
        // As raw comes before conntrack; a path is only remembered where raw's verdict is settled.
        if self.untracked.is_used(self.generation)
            && let Some(short) = self.untracked_path(port, frame, lean, at)
        {
            return short;
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
            Holder::Elsewhere(_) if !long.is_empty() && overtakes(long, zones, conn) => {
                return Short::WALK;
            }
            Holder::Elsewhere(lcore) => return Short::Elsewhere(lcore),
            Holder::Nobody => return self.unknown(port, lean.hash, zones),
        }
        let status = conn.status();
        let number = conn.path(direction);
        if conn.generation() != self.generation
            || (!long.is_empty() && overtakes(long, zones, conn))
        {
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
            let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
            let to = translated.then_some(|| conn.leaving_v4(direction));
            rewrite::forward_lean(frame.head_mut(), macs, extent.proto == proto::UDP, to);
        }
        way.end(frame, extent.end)
    }

    /// The same for a packet that a rule marks NOTRACK; `None` if that is not known of it.
    #[inline(never)]
    fn untracked_path(
        &mut self,
        port: PortId,
        frame: &mut P::Frame,
        lean: &Lean,
        at: At<'_>,
    ) -> Option<Short> {
        let (number, next_hop) =
            self.untracked.find(&lean.key, lean.hash, port, self.generation)?;
        let extent = lean.extent();
        let size = (lean.life, extent.ip_len());
        let way = self.way(port, number, CtState::Untracked, next_hop, size, at)?;
        self.paths.count(number, 1, extent.ip_len() as u64);
        self.took_path += 1;
        if let Way::Out { macs, .. } = &way {
            let udp = extent.proto == proto::UDP;
            rewrite::forward_lean(frame.head_mut(), macs, udp, None::<fn() -> LeavingV4>);
        }
        Some(way.end(frame, extent.end))
    }
}

/// True if a packet of the same conn, in either direction, waits on the list of those that walk.
#[cold]
pub(crate) fn overtakes<F>(long: &[Long<F>], zones: Zones, conn: Conn<'_>) -> bool {
    let waits = |tuple: &Tuple, zone| conn.matches(tuple, zone).is_some();
    long.iter().map(|l| tuple_of(&l.headers)).any(|tuple| {
        waits(&tuple, zones.original) || zones.is_split() && waits(&tuple, zones.reply)
    })
}
