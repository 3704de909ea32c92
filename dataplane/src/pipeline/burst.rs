//! The stages of a burst: one short pass each over all frames, so that their cache misses overlap.
//!
//! 1. prefetch the frames; 2. parse, hash and prefetch the index line; 3. prefetch the record;
//! 4. packets of known conns take their cached path; 5. whatever is left walks the hooks, in order.
//!
//! A conn of which one packet has to walk keeps its order: its later packets in the burst walk too.

use crate::conntrack::icmp;
use crate::conntrack::record::{Conn, ConnRef};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::proto::TCP;
use crate::conntrack::zones::Zones;
use crate::nat::rewrite::{self, Deltas};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{BURST_MAX, Burst, Frame, FramePool};
use crate::pipeline::handoff::{Handed, Stage};
use crate::pipeline::lean::{Lean, Reading, Sought};
use crate::pipeline::neighbour::NextHop;
use crate::pipeline::paths::PathEnd;
use crate::pipeline::quick::Described;
use crate::pipeline::snapshot::PortKind;
use crate::pipeline::track::{Judged, ct_state, icmp_kind, quoted_tuple, sound, tuple_of};
use crate::pipeline::transit::Transit;
use crate::pipeline::untracked::Untracked;
use crate::pipeline::walking::{Long, Walking};
use crate::pipeline::{Arrival, At, Holder, Pipeline};
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
    /// TCP or UDP without anything more that may have a cached path.
    Lean,
    /// Another IP packet that may have one.
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
    /// Of those that are lean; of the others what stage 3 needs.
    lean: [Lean; BURST_MAX],
    /// Of the others.
    headers: [Headers; BURST_MAX],
    /// Path and next hop of those that no conn carries, 0 for the others; only where there are any.
    untracked: [(u16, u16); BURST_MAX],
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            kinds: [Kind::Other; BURST_MAX],
            lean: [Lean::default(); BURST_MAX],
            headers: [Headers::default(); BURST_MAX],
            untracked: [(0, 0); BURST_MAX],
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

/// A frame of a burst, its number there, the conn it may be of, and what its tracker said already.
type Examined<'a, F> = (F, usize, Option<Conn<'a>>, Option<Prejudged>);

impl<P: FramePool> Pipeline<P> {
    /// Takes a burst that was received at `port` to its end; afterwards `frames` is empty and what
    /// is to be sent or handed over waits in the outputs.
    pub fn burst(&mut self, pool: &mut P, port: PortId, frames: &mut Burst<P::Frame>, now: Now) {
        let mut bytes = 0;
        for frame in frames.iter() {
            frame.prefetch();
            bytes += frame.total_len() as u64;
        }
        if self.is_trunk(port) {
            return self.burst_of_trunk(pool, port, frames, now);
        }
        self.count_received(port, frames.len() as u64, bytes);
        self.arrived(pool, port.into(), frames, now);
    }

    /// Counts frames that a device has received; those of a host tap the box has made itself.
    #[inline]
    pub(crate) fn count_received(&self, port: PortId, packets: u64, bytes: u64) {
        if self.is_host_tap(port) {
            self.links.counters.generated.add(packets);
        } else if let Some(counters) = self.links.counters.ports.get(port.0 as usize) {
            counters.rx_packets.add(packets);
            counters.rx_bytes.add(bytes);
        }
    }

    /// Takes frames that have been counted as far as they go.
    pub(crate) fn arrived(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        frames: &mut Burst<P::Frame>,
        now: Now,
    ) {
        self.check_epoch();
        // What waited for a neighbour that was heard of goes before what comes now.
        self.settle(pool, now);
        let Some(world) = self.world.take() else { return };
        let moment = world.moment(now, arrival.hops);
        let at = moment.at();
        match at.policy.port(arrival.port).kind {
            PortKind::HostTap { of } => self.host_frames(pool, arrival, of, frames, at),
            _ => self.stages(pool, arrival, frames, at),
        }
        self.world = Some(world);
    }

    fn stages(&mut self, pool: &mut P, arrival: Arrival, frames: &mut Burst<P::Frame>, at: At<'_>) {
        let Some(mut scratch) = self.scratch.take() else { return };
        let port = arrival.port;
        let zones = [false, true].map(|v6| at.policy.zones(v6, Some(port)));
        let our_mac = at.policy.port(port).mac;
        // Nobody looks at the checksums of packets that are not tracked.
        let untracked = self.untracked.is_used(self.generation);
        let check = at.policy.knobs.checksum && !untracked;
        let table = untracked.then_some(&self.untracked);
        scratch.read(frames, &our_mac, zones, check, table, at);
        let count = frames.len();
        let mut candidates: [Option<Conn<'_>>; BURST_MAX] = [None; BURST_MAX];
        if !untracked || self.find_untracked(&mut scratch, count, port, at) {
            scratch.find_candidates(count, &mut candidates, at);
        }
        let mut long = Walking::default();
        let mut quick = self.quick(arrival, zones, at);
        let mut done = 0;
        while !frames.is_empty() {
            let mut prejudged = None;
            // The first packets of conns begin no run.
            let rest = candidates.get(done..count).unwrap_or_default();
            let strangers = rest.iter().take_while(|found| found.is_none() && !untracked).count();
            if let Some(quick) = quick.as_mut().filter(|_| strangers == 0) {
                let described = Described {
                    lean: scratch.lean.get(done..).unwrap_or_default(),
                    candidates: candidates.get(done..).unwrap_or_default(),
                    untracked: scratch.untracked.get(done..).unwrap_or_default(),
                };
                let ready = if untracked {
                    self.quick_way::<true>(frames, &described, &long, quick, at)
                } else {
                    self.quick_way::<false>(frames, &described, &long, quick, at)
                };
                self.put_first_out(quick.out(), frames, ready);
                done += ready;
                prejudged = quick.judged();
                if ready > 0 && prejudged.is_none() {
                    continue;
                }
            }
            for frame in frames.drain(..strangers.max(1).min(frames.len())) {
                let candidate = candidates.get(done).copied().flatten();
                if candidate.is_none()
                    && !untracked
                    && let Some((headers, hash)) =
                        self.begins(arrival, zones, (&frame, done), &scratch, at)
                {
                    long.push(Long::first(frame, headers, hash));
                    done += 1;
                    continue;
                }
                let frame = (frame, done, candidate, prejudged.take());
                self.short_way(pool, arrival, zones, &our_mac, frame, &scratch, &mut long, at);
                done += 1;
            }
        }
        self.links.counters.fast.add(core::mem::take(&mut self.took_path));
        let long = long.frames();
        if long.len() > 1 {
            self.foresee(long, at);
            self.foresee_room(long, at);
        }
        // Not by value: the list itself, mostly empty, would be copied whole.
        for l in long.drain(..) {
            self.walk_in_turn(pool, arrival, l, at);
        }
        self.scratch = Some(scratch);
    }

    /// The headers, zone and hash of a frame without a candidate that is the first of a conn of
    /// this lcore's, as far as one look tells; the short way is for all others.
    #[inline(always)]
    fn begins(
        &self,
        arrival: Arrival,
        zones: [Option<Zones>; 2],
        (frame, i): (&P::Frame, usize),
        scratch: &Scratch,
        at: At<'_>,
    ) -> Option<(Headers, (u16, u64))> {
        let (Kind::Lean, lean) = (scratch.kinds.get(i)?, scratch.lean.get(i)?) else { return None };
        let zones = zones[lean.is_v6() as usize].filter(|zones| !zones.is_split())?;
        let others = arrival.past_raw
            || self.crowded
            || !at.table.index.is_vacant(lean.hash)
            || self.place.elsewhere(arrival.port, lean.hash).is_some();
        if others {
            return None;
        }
        let headers = match lean.is_v6() {
            false => headers::parse_known(frame.head())?,
            true => headers::parse(frame.head(), frame.total_len()).ok()?,
        };
        Some((headers, (zones.original, lean.hash)))
    }

    /// Finds those that no conn carries, where some are remembered: as raw comes before conntrack,
    /// nothing else is looked up for them. True if there are others, whose index lines are on their
    /// way then.
    #[inline(never)]
    fn find_untracked(
        &self,
        scratch: &mut Scratch,
        count: usize,
        port: PortId,
        at: At<'_>,
    ) -> bool {
        let Scratch { lean, untracked, .. } = scratch;
        let mut others = false;
        for (lean, way) in lean.iter_mut().zip(untracked).take(count) {
            // Keys of IPv6 have no addresses here: they match none, as what is sent from nowhere to
            // nowhere is not forwarded.
            let found = self.untracked.find(&lean.key, lean.hash, port, self.generation);
            *way = found.map_or((0, 0), |(path, next_hop)| (path, next_hop.0));
            // A path has no number 0.
            if way.0 != 0 {
                lean.sought = Sought::No;
            }
            if lean.sought != Sought::No {
                lean.home = at.table.index.prefetch(lean.hash);
                others = true;
            }
        }
        others
    }

    /// Lets a frame walk, or puts it behind those that wait until the outputs have been flushed: a
    /// burst may complete many datagrams that each leave in many fragments.
    pub(crate) fn walk_in_turn(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        l: Long<P::Frame>,
        at: At<'_>,
    ) {
        if self.crowded && !self.later.is_full() {
            return self.later.push((arrival, l));
        }
        let mut t = Transit::new(l.frame, l.headers, Some(arrival.port));
        t.prejudged = l.prejudged;
        (t.addressed, t.sound, t.hash) = (l.addressed, l.sound, l.hash);
        (t.leaving, t.datagram) = (l.leaving, l.datagram);
        (t.past_raw, t.mark) = (arrival.past_raw, arrival.mark);
        t.template = arrival.template;
        t.traced = arrival.traced;
        self.walk_received(pool, t, at);
    }

    /// Goes on with what waited for room in the outputs, which have been flushed; true if there was
    /// anything, so that there is to be flushed again.
    pub fn go_on(&mut self, pool: &mut P, now: Now) -> bool {
        if self.later.is_empty() {
            return false;
        }
        let Some(world) = self.world.take() else { return false };
        for (arrival, l) in core::mem::take(&mut *self.later) {
            self.walk_in_turn(pool, arrival, l, world.moment(now, arrival.hops).at());
        }
        self.world = Some(world);
        true
    }

    /// Stage 4 for one frame: sends it by its cached path or lists it among those that walk.
    #[allow(clippy::too_many_arguments)]
    #[inline]
    fn short_way(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        zones: [Option<Zones>; 2],
        our_mac: &[u8; 6],
        (mut frame, i, candidate, judged): Examined<'_, P::Frame>,
        scratch: &Scratch,
        long: &mut Walking<P::Frame>,
        at: At<'_>,
    ) {
        let (port, mut kind) = (arrival.port, scratch.kinds[i]);
        let (anew, mut read) = (general_v6(&frame, &scratch.lean[i]), &scratch.headers[i]);
        match &anew {
            None => {}
            Some(Ok(headers)) => (kind, read) = (Kind::Plain, headers),
            Some(Err(malformed)) => kind = Kind::Refused(*malformed),
        }
        let addressed = frame.head().first_chunk::<6>() == Some(our_mac);
        // Whether it is known that no other lcore is to have the frame.
        let mut placed = true;
        let zones = match kind {
            Kind::Lean => zones[0],
            _ => zones[read.is_v6() as usize],
        };
        let short = match (kind, zones) {
            _ if judged.is_some() => Short::Walk(judged),
            (Kind::Refused(malformed), _) => {
                return self.refuse(pool, port, frame, malformed, at);
            }
            // A cached path would count the raw table again. Where it goes on has been decided by
            // who sent it here: to its conn's owner, or to who can make room for it.
            _ if arrival.past_raw => Short::WALK,
            // Only raw can tell in which zone to search, so whose it is is seen behind it.
            (_, None) => Short::WALK,
            // Some may wait for room: it does not overtake them.
            (_, Some(_)) if self.crowded => {
                placed = self.place.is_alone();
                Short::WALK
            }
            // Its path has been found, and asks for a walk.
            (Kind::Lean, _) if scratch.lean[i].sought == Sought::No => Short::WALK,
            (Kind::Lean, Some(zones)) => {
                let lean = (&scratch.lean[i], zones);
                self.by_lean_path(port, &mut frame, lean, candidate, long, at)
            }
            (Kind::Plain, Some(zones)) if addressed => {
                let h = (read, scratch.lean[i].hash, zones);
                self.by_path(port, &mut frame, h, candidate, long, at)
            }
            (_, Some(_)) => {
                placed = self.place.is_alone();
                Short::WALK
            }
        };
        let prejudged = match short {
            Short::Sent(out) => return self.put_out(out, frame),
            Short::Dropped(reason) => return self.drop_frame(frame, reason),
            Short::Elsewhere(lcore) => return self.pass_on(lcore, port, frame, at),
            Short::Walk(prejudged) => prejudged,
        };
        let mut headers = match kind {
            Kind::Lean => match headers::parse_known(frame.head()) {
                Some(headers) => headers,
                None => return self.drop_frame(frame, DropReason::ShortFrame),
            },
            _ => *read,
        };
        if let Some(reason) = reason_to_refuse(&frame, &headers, addressed) {
            return self.drop_frame(frame, reason);
        }
        let mut datagram = None;
        if headers.fragment != Fragment::None {
            let Some(joined) = self.gather(pool, port, None, (frame, &headers), at) else { return };
            (frame, headers, datagram) = (joined.frame, joined.headers, joined.datagram);
            // Who puts its fragments together lets it pass.
            placed |= datagram.is_none();
            if let Some(reason) = reason_to_refuse(&frame, &headers, addressed) {
                return self.drop_frame(frame, reason);
            }
        }
        if !placed
            && let Some(zones) = zones
            && let Some(lcore) = self.elsewhere(port, &frame, &headers, (zones, addressed), at)
        {
            return match datagram {
                Some(datagram) => self.pass_on_datagram(lcore, port, frame, datagram, at),
                None => self.pass_on(lcore, port, frame, at),
            };
        }
        // Where some are not tracked, checksums have not been looked at.
        let lean = matches!(kind, Kind::Lean) || scratch.lean[i].is_v6();
        let sound = lean && !self.untracked.is_used(self.generation);
        let hash = zones.filter(|_| lean).map(|zones| (zones.original, scratch.lean[i].hash));
        let leaving = None;
        long.push(Long { frame, headers, prejudged, addressed, sound, hash, leaving, datagram });
    }

    /// Hands a received frame to the lcore it belongs to.
    pub(crate) fn pass_on(&mut self, lcore: u8, port: PortId, frame: P::Frame, at: At<'_>) {
        let (stage, hops) = (Stage::Arrived, at.hops + 1);
        let (mark, traced, template, datagram) = (0, false, None, None);
        let handed = Handed { frame, port, stage, hops, mark, traced, template, datagram };
        self.hand_over(lcore, handed);
    }

    /// The cached path of a known conn, if there is one and this packet may take it.
    #[inline(never)]
    fn by_path(
        &mut self,
        port: PortId,
        frame: &mut P::Frame,
        (h, hash, zones): (&Headers, u64, Zones),
        candidate: Option<Conn<'_>>,
        long: &Walking<P::Frame>,
        at: At<'_>,
    ) -> Short {
        let tuple = tuple_of(h);
        let zone = zones.original;
        let matches = |conn: Conn<'_>| conn.matches(&tuple, zone);
        let search = || (hash, tuple);
        let found = at.table.find_live(candidate, zone, at.now.tick, matches, search);
        let Some((conn, direction)) = found else {
            return match icmp_kind(h) {
                icmp::Kind::Query => self.unknown(port, hash, zones),
                // About a conn of another tuple, or none of anybody's.
                _ => self
                    .elsewhere(port, frame, h, (zones, true), at)
                    .map_or(Short::WALK, Short::Elsewhere),
            };
        };
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
            Holder::Nobody => return self.unknown(port, hash, zones),
        }
        let status = conn.status();
        let number = conn.path(direction);
        if conn.generation() != self.generation
            || h.tcp_flags & (flags::SYN | flags::FIN | flags::RST) != 0
            || long.has_one_of(conn, zones)
        {
            return Short::WALK;
        }
        let state = ct_state(status, direction);
        let next_hop = NextHop(conn.next_hop(direction));
        let size = (h.ttl, h.ip_len());
        let Some(way) = self.way(port, number, state, next_hop, size, at) else {
            return Short::WALK;
        };
        let judged = match sound(frame, h, at.policy.knobs.checksum) {
            Ok(icmp::Kind::Query) => self.judge(frame, h.into(), conn, direction, at),
            _ => return Short::WALK,
        };
        let Judged::Accepted(accepted) = judged else {
            return Short::Walk(Some(Prejudged { conn: conn.number(), direction, judged }));
        };
        if accepted.events != 0 {
            self.settle_events(accepted.events, conn, matches!(way, Way::Out { .. }), at);
        }
        self.paths.count(number, 1, h.ip_len() as u64);
        self.took_path += 1;
        if let Way::Out { macs, .. } = &way
            && let Err(reason) = self.edit_on_path(frame, h, macs, (conn, direction, status), at)
        {
            return Short::Dropped(reason);
        }
        way.end(frame, h.end)
    }

    /// A packet of no conn: the first one of a new conn, as it seems. Where it is searched for in
    /// two zones it has been in one of them only; the rest happens behind the table raw.
    #[inline(always)]
    pub(crate) fn unknown(&self, port: PortId, hash: u64, zones: Zones) -> Short {
        if zones.is_split() {
            return Short::WALK;
        }
        self.place.elsewhere(port, hash).map_or(Short::WALK, Short::Elsewhere)
    }

    /// The other lcore that a packet belongs to which walks in any case: the owner of its conn, or
    /// of the conn that it is an error about. What was sent to many stays here.
    #[cold]
    #[inline(never)]
    pub(crate) fn elsewhere(
        &self,
        port: PortId,
        frame: &P::Frame,
        h: &Headers,
        (zones, addressed): (Zones, bool),
        at: At<'_>,
    ) -> Option<u8> {
        let (tuple, error) = match icmp_kind(h) {
            icmp::Kind::Error | icmp::Kind::Redirect => (quoted_tuple(frame, h)?.inverted()?, true),
            icmp::Kind::Untracked => return None,
            _ => (tuple_of(h), false),
        };
        let hash = at.table.hash(&tuple, zones.original);
        let found = at.table.find_in(&tuple, zones, at.now.tick).filter(|f| !f.expired);
        match found.map_or(Holder::Nobody, |found| self.holder(found.conn)) {
            Holder::Here => None,
            Holder::Elsewhere(lcore) => Some(lcore),
            Holder::Nobody if addressed && !error => self.place.elsewhere(port, hash),
            Holder::Nobody => None,
        }
    }

    /// Where path `number` leads, if it is for packets of this state from this port and nothing of
    /// the packet itself stands in the way.
    #[inline(always)]
    pub(crate) fn way(
        &self,
        port: PortId,
        number: u16,
        state: CtState,
        next_hop: NextHop,
        (ttl, ip_len): (u8, u32),
        at: At<'_>,
    ) -> Option<Way> {
        let path = self.paths.route(number)?;
        if path.in_port != port || path.state != state {
            return None;
        }
        let (PathEnd::Forward(out) | PathEnd::Drop(_, Some(out))) = path.end else {
            let PathEnd::Drop(reason, None) = path.end else { return None };
            return Some(Way::Nowhere(reason));
        };
        let settings = at.policy.port(out);
        if ttl <= 1 || ip_len > settings.mtu {
            return None;
        }
        if let PathEnd::Drop(reason, _) = path.end {
            return Some(Way::Nowhere(reason));
        }
        let dst = self.links.neighbours.mac(next_hop)?;
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&dst);
        macs[6..].copy_from_slice(&settings.mac);
        Some(Way::Out { port: out, macs })
    }

    /// Frames that are no IP packet, or a broken one.
    #[cold]
    pub(crate) fn refuse(
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
            Malformed::BadAddress => DropReason::MartianSource,
            Malformed::Scattered => DropReason::HeaderSplit,
            _ => DropReason::IpOption,
        };
        self.drop_frame(frame, reason);
    }
}

impl Scratch {
    /// Stage 2: headers, hashes, and the index lines on their way; where there may be `untracked`
    /// packets, their lines instead.
    #[inline(never)]
    fn read<F: Frame>(
        &mut self,
        frames: &[F],
        our_mac: &[u8; 6],
        zones: [Option<Zones>; 2],
        check: bool,
        untracked: Option<&Untracked>,
        at: At<'_>,
    ) {
        let zones = zones.map(|zones| zones.unwrap_or_default().original);
        let reading = Reading::new(our_mac, zones, &at.table.seed, check);
        let index = &at.table.index;
        let Scratch { kinds, lean, headers, .. } = self;
        let places = kinds.iter_mut().zip(lean).zip(headers);
        for (frame, ((kind, lean), place)) in frames.iter().zip(places) {
            if lean.read(frame, &reading) || lean.read_v6(frame, &reading) {
                match untracked {
                    None => lean.home = index.prefetch(lean.hash),
                    Some(table) => table.prefetch(lean.hash),
                }
                *kind = Kind::Lean;
            } else {
                *lean = Lean::default();
                *kind = general(frame, place, zones, lean, at);
            }
        }
    }

    /// Stage 3: the records on their way.
    #[inline(never)]
    fn find_candidates<'a>(
        &self,
        frames: usize,
        candidates: &mut [Option<Conn<'a>>; BURST_MAX],
        at: At<'a>,
    ) {
        let (index, records) = (&at.table.index, &at.table.records);
        for (lean, candidate) in self.lean.iter().zip(candidates).take(frames) {
            if lean.sought != Sought::No
                && let Some(number) = index.candidate(lean.home, lean.hash)
            {
                *candidate = records.prefetch(number, lean.key.proto == TCP, at.hops > 0);
            }
        }
    }
}

/// Stage 2 for a frame that is not lean.
#[inline(never)]
fn general<F: Frame>(
    frame: &F,
    place: &mut Headers,
    zones: [u16; 2],
    sought: &mut Lean,
    at: At<'_>,
) -> Kind {
    match headers::parse_into(frame.head(), frame.total_len(), place) {
        Err(malformed) => Kind::Refused(malformed),
        Ok(()) if !is_plain(place) => Kind::Other,
        Ok(()) => {
            sought.hash = at.table.hash(&tuple_of(place), zones[place.is_v6() as usize]);
            (sought.sought, sought.key.proto) = (Sought::Yes, place.proto);
            sought.home = at.table.index.prefetch(sought.hash);
            Kind::Plain
        }
    }
}

/// A lean packet of IPv6 that is not quick goes the general way.
#[inline(always)]
fn general_v6<F: Frame>(frame: &F, lean: &Lean) -> Option<Result<Headers, Malformed>> {
    lean.is_v6().then(|| headers::parse(frame.head(), frame.total_len()))
}

/// True for packets that can belong to a conn without a second look.
#[inline]
pub(crate) fn is_plain(h: &Headers) -> bool {
    h.fragment == Fragment::None
        && !h.l4_truncated
        && h.vlan.is_none()
        && h.options == Options::None
}

/// What keeps an IP packet out of the hooks.
pub(crate) fn reason_to_refuse<F: Frame>(
    frame: &F,
    h: &Headers,
    addressed: bool,
) -> Option<DropReason> {
    let group = frame.head().first().is_some_and(|byte| byte & 1 == 1);
    if !addressed && !group {
        Some(DropReason::OtherHost)
    } else if h.vlan.is_some_and(|id| id != 0) {
        Some(DropReason::UnknownVlan)
    } else if matches!(h.options, Options::SourceRoute | Options::Bad(_))
        // The datagram's are those of its first fragment.
        && !h.fragment.is_fragment()
    {
        Some(DropReason::IpOption)
    } else {
        None
    }
}

/// Where a cached path leads.
pub(crate) enum Way {
    /// Out of a port, with these MAC addresses: the next hop's and ours.
    Out { port: PortId, macs: [u8; 12] },
    /// To the end of the frame.
    Nowhere(DropReason),
}

impl Way {
    /// The end of the short way, padding cut off.
    #[inline(always)]
    pub(crate) fn end<F: Frame>(self, frame: &mut F, end: u32) -> Short {
        match self {
            Way::Nowhere(reason) => Short::Dropped(reason),
            Way::Out { port, .. } => {
                if frame.total_len() > end as usize {
                    frame.truncate(end as usize);
                }
                Short::Sent(port)
            }
        }
    }
}

/// How the short way ended.
pub(crate) enum Short {
    Sent(PortId),
    Dropped(DropReason),
    /// Another lcore is to have it.
    Elsewhere(u8),
    Walk(Option<Prejudged>),
}

impl Short {
    pub(crate) const WALK: Short = Short::Walk(None);
}

/// The whole edit of a known conn's packet: MAC addresses, both ends translated at once with the
/// conn's precomputed sums, and one hop less to live. False for a packet that cannot be edited.
#[inline]
pub(crate) fn edit_cached<F: Frame>(
    frame: &mut F,
    h: &Headers,
    macs: &[u8; 12],
    conn: Conn<'_>,
    direction: Direction,
    status: Status,
) -> bool {
    let head = frame.head_mut();
    let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
    let (l3, l4) = if translated { conn.deltas(direction) } else { (0, 0) };
    let deltas = Deltas { l3, l4 };
    if translated
        && let Some(target) = conn.tuple(direction.opposite()).inverted()
        && !rewrite::apply_cached(head, h, &target, deltas)
    {
        return false;
    }
    if let Some(link) = head.first_chunk_mut::<12>() {
        *link = *macs;
    }
    forward_one_hop(head, h);
    true
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
