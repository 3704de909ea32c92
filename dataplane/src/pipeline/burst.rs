//! The stages of a burst: one short pass each over all frames, so that their cache misses overlap.
//!
//! 1. prefetch the frames; 2. parse, hash and prefetch the index line; 3. prefetch the record;
//! 4. packets of known conns take their cached path; 5. whatever is left walks the hooks, in order.
//!
//! A conn of which one packet has to walk keeps its order: its later packets in the burst walk too.

use arrayvec::ArrayVec;

use crate::conntrack::icmp;
use crate::conntrack::record::{Conn, ConnRef};
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::tuple::{KeyV4, proto};
use crate::conntrack::view::EventKind;
use crate::nat::rewrite::{self, Deltas};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{BURST_MAX, Burst, Frame, FramePool};
use crate::pipeline::neighbour::NextHop;
use crate::pipeline::paths::PathEnd;
use crate::pipeline::track::{Judged, ZONE, ct_state, sound, tuple_of};
use crate::pipeline::transit::Transit;
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::time::Now;
use crate::wire::ethernet;
use crate::wire::headers::{self, Fragment, Headers, Malformed};
use crate::wire::ipv4::{self, Options};
use crate::wire::ipv6;
use crate::wire::tcp::flags;

/// What parsing made of one frame.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// An IP packet that may have a cached path.
    Plain,
    /// An IP packet that walks in any case.
    Other,
    /// Not an IP packet that goes on.
    Refused(Malformed),
}

/// What the stages of a burst know of its frames, one array each; made once, overwritten by every
/// burst.
#[derive(Debug)]
pub(crate) struct Scratch {
    kinds: [Kind; BURST_MAX],
    headers: [Headers; BURST_MAX],
    hashes: [u64; BURST_MAX],
    /// For those that are lean.
    keys: [KeyV4; BURST_MAX],
    /// The record that the index suggests.
    candidates: [Option<ConnRef>; BURST_MAX],
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            kinds: [Kind::Other; BURST_MAX],
            headers: [Headers::default(); BURST_MAX],
            hashes: [0; BURST_MAX],
            keys: [KeyV4::default(); BURST_MAX],
            candidates: [None; BURST_MAX],
        }
    }
}

/// What a conn's packet learnt on the short way before it turned out that it has to walk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prejudged {
    pub conn: ConnRef,
    pub direction: Direction,
    pub judged: Judged,
}

/// A frame that walks.
struct Long<F> {
    frame: F,
    headers: Headers,
    prejudged: Option<Prejudged>,
    addressed: bool,
}

impl<P: FramePool> Pipeline<P> {
    /// Takes a burst that arrived at `port` to its end; afterwards `frames` is empty and what is to
    /// be sent waits in the outputs.
    pub fn burst(&mut self, pool: &mut P, port: PortId, frames: &mut Burst<P::Frame>, now: Now) {
        let (policy, table) = (self.snapshot.clone(), self.store.shared().clone());
        let at = At { now, policy: &policy, table: &table };
        self.check_epoch();
        let Some(mut scratch) = self.scratch.take() else { return };
        let mut bytes = 0;
        for frame in frames.iter() {
            frame.prefetch();
            bytes += frame.total_len() as u64;
        }
        if let Some(counters) = self.links.counters.ports.get(port.0 as usize) {
            counters.rx_packets.add(frames.len() as u64);
            counters.rx_bytes.add(bytes);
        }
        scratch.parse(frames, at);
        scratch.find_candidates(frames.len(), at);
        let mut long: ArrayVec<Long<P::Frame>, BURST_MAX> = ArrayVec::new();
        let our_mac = at.policy.port(port).mac;
        for (i, frame) in frames.drain(..).enumerate() {
            self.short_way(pool, port, &our_mac, (frame, i), &scratch, &mut long, at);
        }
        self.links.counters.fast.add(core::mem::take(&mut self.took_path));
        for l in long {
            let mut t = Transit::new(l.frame, l.headers, Some(port));
            t.prejudged = l.prejudged;
            t.addressed = l.addressed;
            self.walk_received(pool, t, at);
        }
        self.scratch = Some(scratch);
    }

    /// Stage 4 for one frame: sends it by its cached path or puts it on the list of those that walk.
    #[allow(clippy::too_many_arguments)]
    #[inline]
    fn short_way(
        &mut self,
        pool: &mut P,
        port: PortId,
        our_mac: &[u8; 6],
        (mut frame, i): (P::Frame, usize),
        scratch: &Scratch,
        long: &mut ArrayVec<Long<P::Frame>, BURST_MAX>,
        at: At<'_>,
    ) {
        let addressed = frame.head().first_chunk::<6>() == Some(our_mac);
        let mut prejudged = None;
        match scratch.kinds[i] {
            Kind::Plain if addressed => {
                match self.by_path(port, (&mut frame, i), scratch, long, at) {
                    Short::Sent(out, mac) => return self.send_to(frame, out, mac, at),
                    Short::Dropped(reason) => return self.drop_frame(frame, reason),
                    Short::Walk(p) => prejudged = p,
                }
            }
            Kind::Plain | Kind::Other => {}
            Kind::Refused(malformed) => return self.refuse(pool, port, frame, malformed, at),
        }
        let headers = scratch.headers[i];
        match reason_to_refuse(&frame, &headers, addressed) {
            Some(reason) => self.drop_frame(frame, reason),
            None => long.push(Long { frame, headers, prejudged, addressed }),
        }
    }

    /// The cached path of a known conn, if there is one and this packet may take it.
    #[inline]
    fn by_path(
        &mut self,
        port: PortId,
        (frame, i): (&mut P::Frame, usize),
        scratch: &Scratch,
        long: &ArrayVec<Long<P::Frame>, BURST_MAX>,
        at: At<'_>,
    ) -> Short {
        let h = &scratch.headers[i];
        let (candidate, key) = (scratch.candidates[i], &scratch.keys[i]);
        let matches = |conn: Conn<'_>| {
            if is_lean(h) { conn.matches_v4(key, ZONE) } else { conn.matches(&tuple_of(h), ZONE) }
        };
        let search = || (scratch.hashes[i], tuple_of(h));
        let found = at.table.find_live(candidate, ZONE, at.now.tick, matches, search);
        let Some((conn, direction)) = found else { return Short::Walk(None) };
        let status = conn.status();
        let number = conn.path(direction);
        if conn.generation() != self.generation
            || h.tcp_flags & (flags::SYN | flags::FIN | flags::RST) != 0
            || (!long.is_empty() && overtakes(long, h))
        {
            return Short::Walk(None);
        }
        let Some(path) = self.paths.route(number) else { return Short::Walk(None) };
        if path.in_port != port || path.state != ct_state(status, direction) {
            return Short::Walk(None);
        }
        let end = path.end;
        let mut mac = None;
        if let PathEnd::Forward(out) = end {
            mac = self.links.neighbours.mac(NextHop(conn.next_hop(direction)));
            if h.ttl <= 1 || h.ip_len() > at.policy.port(out).mtu || mac.is_none() {
                return Short::Walk(None);
            }
        }
        let judged = match sound(frame, h, at.policy.knobs.checksum) {
            Ok(icmp::Kind::Query) => self.judge(frame, h, conn, direction, at),
            _ => return Short::Walk(None),
        };
        let Judged::Accepted(accepted) = judged else {
            return Short::Walk(Some(Prejudged { conn: conn.number(), direction, judged }));
        };
        if accepted.changed {
            self.report(EventKind::Update, conn.number(), at);
        }
        self.paths.count(number, h.ip_len());
        self.took_path += 1;
        match (end, mac) {
            (PathEnd::Drop(reason), _) => Short::Dropped(reason),
            (PathEnd::Forward(_), None) => Short::Dropped(DropReason::NeighbourFailed),
            (PathEnd::Forward(out), Some(mac)) => {
                edit_cached(frame, h, conn, direction, status);
                if frame.total_len() > h.end as usize {
                    frame.truncate(h.end as usize);
                }
                Short::Sent(out, mac)
            }
        }
    }

    /// Frames that are no IP packet, or a broken one.
    #[cold]
    fn refuse(
        &mut self,
        pool: &mut P,
        port: PortId,
        frame: P::Frame,
        malformed: Malformed,
        at: At<'_>,
    ) {
        let reason = match malformed {
            Malformed::NotIp(ethernet::ether_type::ARP) => {
                return self.arp(pool, port, frame, at);
            }
            Malformed::NotIp(_) => DropReason::EtherType,
            Malformed::ShortFrame => DropReason::ShortFrame,
            Malformed::BadVersion => DropReason::IpVersion,
            Malformed::BadHeaderLength => DropReason::IpHeaderLength,
            Malformed::HeaderChecksum => DropReason::IpChecksum,
            Malformed::BadTotalLength => DropReason::IpTotalLength,
            Malformed::MappedAddress => DropReason::MappedAddress,
            Malformed::Scattered => DropReason::HeaderSplit,
            _ => DropReason::IpOption,
        };
        self.drop_frame(frame, reason);
    }
}

impl Scratch {
    /// Stage 2: headers, hashes, and the index lines on their way.
    #[inline]
    fn parse<F: Frame>(&mut self, frames: &[F], at: At<'_>) {
        let Scratch { kinds, headers, hashes, keys, .. } = self;
        let places = kinds.iter_mut().zip(headers).zip(hashes).zip(keys);
        for (frame, (((kind, place), hash), key)) in frames.iter().zip(places) {
            *kind = match headers::parse_into(frame.head(), frame.total_len(), place) {
                Err(malformed) => Kind::Refused(malformed),
                Ok(()) if is_plain(place) => {
                    *hash = if is_lean(place) {
                        *key = key_of(place);
                        key.hash(ZONE, &at.table.seed)
                    } else {
                        at.table.hash(&tuple_of(place), ZONE)
                    };
                    at.table.index.prefetch(*hash);
                    Kind::Plain
                }
                Ok(()) => Kind::Other,
            };
        }
    }

    /// Stage 3: the records on their way.
    #[inline]
    fn find_candidates(&mut self, frames: usize, at: At<'_>) {
        for i in 0..frames.min(BURST_MAX) {
            if !matches!(self.kinds[i], Kind::Plain) {
                continue;
            }
            let candidate = at.table.index.candidate(self.hashes[i]);
            if let Some(number) = candidate {
                at.table.records.prefetch(number, self.headers[i].proto == proto::TCP);
            }
            self.candidates[i] = candidate;
        }
    }
}

/// True for packets that can belong to a conn without a second look.
#[inline]
fn is_plain(h: &Headers) -> bool {
    matches!(h.proto, proto::TCP | proto::UDP | proto::ICMP | proto::ICMPV6)
        && h.fragment == Fragment::None
        && !h.l4_truncated
        && h.vlan.is_none()
        && h.options == Options::None
}

/// True for a plain packet that a [`KeyV4`] describes.
#[inline(always)]
fn is_lean(h: &Headers) -> bool {
    (h.proto == proto::UDP || h.proto == proto::TCP) && !h.is_v6()
}

#[inline(always)]
fn key_of(h: &Headers) -> KeyV4 {
    KeyV4 {
        addresses: (h.src.v4_bits() as u64) << 32 | h.dst.v4_bits() as u64,
        ids: (h.src_port as u32) << 16 | h.dst_port as u32,
        proto: h.proto,
    }
}

/// What keeps an IP packet out of the hooks.
fn reason_to_refuse<F: Frame>(frame: &F, h: &Headers, addressed: bool) -> Option<DropReason> {
    let group = frame.head().first().is_some_and(|byte| byte & 1 == 1);
    if !addressed && !group {
        Some(DropReason::OtherHost)
    } else if h.vlan.is_some_and(|id| id != 0) {
        Some(DropReason::UnknownVlan)
    } else if h.fragment.is_fragment() {
        Some(DropReason::Fragment)
    } else if matches!(h.options, Options::SourceRoute | Options::Bad(_)) {
        Some(DropReason::IpOption)
    } else {
        None
    }
}

/// How the short way ended.
enum Short {
    Sent(PortId, [u8; 6]),
    Dropped(DropReason),
    Walk(Option<Prejudged>),
}

/// Both ends translated at once with the conn's precomputed sums, and one hop less to live.
#[inline(always)]
fn edit_cached<F: Frame>(
    frame: &mut F,
    h: &Headers,
    conn: Conn<'_>,
    direction: Direction,
    status: Status,
) {
    let head = frame.head_mut();
    let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
    if translated && is_lean(h) {
        let (l3, l4) = conn.deltas(direction);
        let to = conn.leaving_v4(direction);
        rewrite::apply_cached_v4(head, h, &to, Deltas { l3, l4 });
    } else if translated && let Some(target) = conn.tuple(direction.opposite()).inverted() {
        let (l3, l4) = conn.deltas(direction);
        rewrite::apply_cached(head, h, &target, Deltas { l3, l4 });
    }
    forward_one_hop(head, h);
}

/// Takes one from the TTL or hop limit.
#[inline]
pub(crate) fn forward_one_hop(head: &mut [u8], h: &Headers) {
    let Some(packet) = head.get_mut(h.l3 as usize..) else { return };
    if h.is_v6() {
        if let Some(mut ip) = ipv6::ViewMut::new(packet) {
            ip.decrement_hop_limit();
        }
    } else if let Some(mut ip) = ipv4::ViewMut::new(packet) {
        ip.decrement_ttl();
    }
}

/// True if a packet of the same conn waits on the list of those that walk.
#[cold]
fn overtakes<F>(long: &ArrayVec<Long<F>, BURST_MAX>, h: &Headers) -> bool {
    let tuple = tuple_of(h);
    long.iter().any(|l| tuple_of(&l.headers) == tuple)
}
