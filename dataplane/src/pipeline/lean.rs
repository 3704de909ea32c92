//! The shortest way: TCP and UDP over IPv4 without tag, options or fragments, whole headers in the
//! first segment. That is what nearly all packets are, so they get a reading and an edit of their
//! own that touch 54 bytes at fixed places; everything else, and whatever looks odd here, takes the
//! general way, which gives the same result.

use arrayvec::ArrayVec;

use crate::conntrack::record::Conn;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::{HashSeed, KeyV4, Tuple, proto};
use crate::conntrack::zones::Zones;
use crate::nat::rewrite::{self, Deltas};
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

/// What is read of a lean packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lean {
    pub key: KeyV4,
    pub hash: u64,
    /// Offset of the packet's end in the frame.
    end: u32,
    ttl: u8,
    tcp_flags: u8,
}

impl Lean {
    /// Reads a frame; `None` if it is not lean or not good.
    #[inline(always)]
    pub(crate) fn read(head: &[u8], total_len: usize, zone: u16, seed: &HashSeed) -> Option<Lean> {
        let bytes = head.first_chunk::<42>()?;
        let be16 = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let kind = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        // IPv4, five words of header; no fragment. DF and the reserved bit do not matter.
        if kind & 0xffff_ff00 != 0x0800_4500 || be16(20) & 0x3fff != 0 {
            return None;
        }
        let proto_number = bytes[23];
        let (needed, tcp_flags) = match proto_number {
            proto::UDP => (28, 0),
            proto::TCP => (40, *head.get(47)?),
            _ => return None,
        };
        let ip_len = be16(16);
        let end = L3 as usize + ip_len as usize;
        if ip_len < needed || end > total_len || (proto_number == proto::TCP && head.len() < 54) {
            return None;
        }
        let header = bytes[14..34].first_chunk::<20>()?;
        if !checksum::ipv4_header_ok(header) {
            return None;
        }
        let addresses = u64::from_be_bytes(*bytes[26..34].first_chunk::<8>()?);
        let ids = u32::from_be_bytes(*bytes[34..38].first_chunk::<4>()?);
        let key = KeyV4 { addresses, ids, proto: proto_number };
        let hash = key.hash(zone, seed);
        Some(Lean { key, hash, end: end as u32, ttl: bytes[22], tcp_flags })
    }

    #[inline(always)]
    fn extent(&self) -> Extent {
        Extent { proto: self.key.proto, l3: L3, l4: L4, end: self.end }
    }

    /// True if length and checksum are beyond doubt; what is not takes the general way, which says
    /// what is wrong with it.
    #[inline(always)]
    fn is_sound(&self, head: &[u8], check: bool) -> bool {
        let l4_len = self.end - L4 as u32;
        if self.key.proto == proto::UDP {
            let Some(bytes) = head.first_chunk::<42>() else { return false };
            if u16::from_be_bytes([bytes[38], bytes[39]]) as u32 != l4_len {
                return false;
            }
            if bytes[40] | bytes[41] == 0 {
                return true;
            }
        }
        if !check {
            return true;
        }
        // The addresses of the pseudo header lie right before the transport header.
        let Some(whole) = head.get(26..self.end as usize) else { return false };
        checksum::finish(checksum::sum(whole) + self.key.proto as u32 + l4_len) == 0
    }
}

/// The key of a packet that a [`Lean`] describes, from its headers.
pub(crate) fn key_of(h: &Headers) -> Option<KeyV4> {
    let lean = (h.proto == proto::UDP || h.proto == proto::TCP) && !h.is_v6();
    lean.then(|| KeyV4 {
        addresses: (h.src.v4_bits() as u64) << 32 | h.dst.v4_bits() as u64,
        ids: (h.src_port as u32) << 16 | h.dst_port as u32,
        proto: h.proto,
    })
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
            || lean.tcp_flags & (flags::SYN | flags::FIN | flags::RST) != 0
            || (!long.is_empty() && overtakes(long, zones, conn))
        {
            return Short::WALK;
        }
        let (extent, state) = (lean.extent(), ct_state(status, direction));
        let next_hop = NextHop(conn.next_hop(direction));
        let size = (lean.ttl, extent.ip_len());
        let Some(way) = self.way(port, number, state, next_hop, size, at) else {
            return Short::WALK;
        };
        if !lean.is_sound(frame.head(), at.policy.knobs.checksum && !frame.is_verified()) {
            return Short::WALK;
        }
        let judged = self.judge(frame, extent, conn, direction, at);
        let Judged::Accepted(accepted) = judged else {
            return Short::Walk(Some(Prejudged { conn: conn.number(), direction, judged }));
        };
        if accepted.events != 0 {
            self.settle_events(accepted.events, conn, matches!(way, Way::Out { .. }), at);
        }
        self.paths.count(number, extent.ip_len());
        self.took_path += 1;
        if let Way::Out { macs, .. } = &way {
            let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
            let to = translated.then(|| {
                let (l3, l4) = conn.deltas(direction);
                (conn.leaving_v4(direction), Deltas { l3, l4 })
            });
            rewrite::forward_lean(frame.head_mut(), macs, extent.proto, to);
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
        let size = (lean.ttl, extent.ip_len());
        let way = self.way(port, number, CtState::Untracked, next_hop, size, at)?;
        self.paths.count(number, extent.ip_len());
        self.took_path += 1;
        if let Way::Out { macs, .. } = &way {
            rewrite::forward_lean(frame.head_mut(), macs, extent.proto, None);
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
