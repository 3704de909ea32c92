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
use crate::conntrack::tuple::{Tuple, proto};
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
enum Parsed {
    /// An IP packet that may have a cached path.
    Plain { headers: Headers, tuple: Tuple, hash: u64 },
    /// An IP packet that walks in any case.
    Other(Headers),
    /// Not an IP packet that goes on.
    Refused(Malformed),
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
        let mut parsed: ArrayVec<Parsed, BURST_MAX> = ArrayVec::new();
        let mut bytes = 0;
        for frame in frames.iter() {
            frame.prefetch();
            bytes += frame.total_len() as u64;
        }
        if let Some(counters) = self.links.counters.ports.get(port.0 as usize) {
            counters.rx_packets.add(frames.len() as u64);
            counters.rx_bytes.add(bytes);
        }
        for frame in frames.iter() {
            parsed.push(parse(frame, at));
        }
        for packet in &parsed {
            if let Parsed::Plain { hash, headers, .. } = packet
                && let Some(number) = at.table.index.candidate(*hash)
            {
                at.table.records.prefetch(number, headers.proto == proto::TCP);
            }
        }
        let mut long: ArrayVec<Long<P::Frame>, BURST_MAX> = ArrayVec::new();
        let our_mac = at.policy.port(port).mac;
        for (frame, parsed) in frames.drain(..).zip(&parsed) {
            self.short_way(port, &our_mac, frame, parsed, &mut long, pool, at);
        }
        for l in long {
            let mut t = Transit::new(l.frame, l.headers, Some(port));
            t.prejudged = l.prejudged;
            t.addressed = l.addressed;
            self.walk_received(pool, t, at);
        }
    }

    /// Stage 4 for one frame: sends it by its cached path or puts it on the list of those that walk.
    #[allow(clippy::too_many_arguments)]
    #[inline]
    fn short_way(
        &mut self,
        port: PortId,
        our_mac: &[u8; 6],
        mut frame: P::Frame,
        parsed: &Parsed,
        long: &mut ArrayVec<Long<P::Frame>, BURST_MAX>,
        pool: &mut P,
        at: At<'_>,
    ) {
        let addressed = frame.head().first_chunk::<6>() == Some(our_mac);
        let mut prejudged = None;
        let headers = match parsed {
            Parsed::Plain { headers, tuple, hash } => {
                if addressed {
                    match self.by_path(port, &mut frame, headers, tuple, *hash, long, at) {
                        Short::Sent(out, mac) => return self.send_to(frame, out, mac, at),
                        Short::Dropped(reason) => return self.drop_frame(frame, reason),
                        Short::Walk(p) => prejudged = p,
                    }
                }
                *headers
            }
            Parsed::Other(headers) => *headers,
            Parsed::Refused(malformed) => return self.refuse(pool, port, frame, *malformed, at),
        };
        if !addressed && frame.head().first().is_some_and(|b| b & 1 == 0) {
            return self.drop_frame(frame, DropReason::OtherHost);
        }
        if headers.vlan.is_some_and(|id| id != 0) {
            return self.drop_frame(frame, DropReason::UnknownVlan);
        }
        if headers.fragment.is_fragment() {
            return self.drop_frame(frame, DropReason::Fragment);
        }
        if matches!(headers.options, Options::SourceRoute | Options::Bad(_)) {
            return self.drop_frame(frame, DropReason::IpOption);
        }
        long.push(Long { frame, headers, prejudged, addressed });
    }

    /// The cached path of a known conn, if there is one and this packet may take it.
    #[allow(clippy::too_many_arguments)]
    #[inline]
    fn by_path(
        &mut self,
        port: PortId,
        frame: &mut P::Frame,
        h: &Headers,
        tuple: &Tuple,
        hash: u64,
        long: &ArrayVec<Long<P::Frame>, BURST_MAX>,
        at: At<'_>,
    ) -> Short {
        let found = at.table.find(hash, tuple, ZONE, at.now.tick).filter(|f| !f.expired);
        let Some(found) = found else { return Short::Walk(None) };
        let (conn, direction) = (found.conn, found.direction);
        let status = conn.status();
        let number = conn.path(direction);
        if conn.generation() != self.generation
            || h.tcp_flags & (flags::SYN | flags::FIN | flags::RST) != 0
            || (!long.is_empty() && overtakes(long, tuple))
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
        self.links.counters.fast.add(1);
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

/// Stage 2 for one frame.
#[inline]
fn parse<F: Frame>(frame: &F, at: At<'_>) -> Parsed {
    let headers = match headers::parse(frame.head(), frame.total_len()) {
        Ok(headers) => headers,
        Err(malformed) => return Parsed::Refused(malformed),
    };
    let plain = matches!(headers.proto, proto::TCP | proto::UDP | proto::ICMP | proto::ICMPV6)
        && headers.fragment == Fragment::None
        && !headers.l4_truncated
        && headers.vlan.is_none()
        && headers.options == Options::None;
    if !plain {
        return Parsed::Other(headers);
    }
    let tuple = tuple_of(&headers);
    let hash = at.table.hash(&tuple, ZONE);
    at.table.index.prefetch(hash);
    Parsed::Plain { headers, tuple, hash }
}

/// How the short way ended.
enum Short {
    Sent(PortId, [u8; 6]),
    Dropped(DropReason),
    Walk(Option<Prejudged>),
}

/// Both ends translated at once with the conn's precomputed sums, and one hop less to live.
#[inline]
fn edit_cached<F: Frame>(
    frame: &mut F,
    h: &Headers,
    conn: Conn<'_>,
    direction: Direction,
    status: Status,
) {
    let head = frame.head_mut();
    if status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0
        && let Some(target) = conn.tuple(direction.opposite()).inverted()
    {
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
fn overtakes<F>(long: &ArrayVec<Long<F>, BURST_MAX>, tuple: &Tuple) -> bool {
    long.iter().any(|l| tuple_of(&l.headers) == *tuple)
}
