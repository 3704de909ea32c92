//! Fragments become one datagram before any hook sees them, as at `nf_defrag_ipv4` and
//! `nf_defrag_ipv6`; how a datagram leaves in pieces again is `pieces`' matter.
//!
//! ```text
//!   fragment ──► lcore of (source, destination, id, protocol) ──► held there
//!   the last of them ──► all in one chain ──► owner of the datagram's conn ──► raw table, …
//! ```
//!
//! The chain goes on in the frame of the first fragment: its link header, TTL and IP options are
//! the datagram's. Its first segment holds the transport header even where the first fragment did
//! not. Fragments that were joined are counted as dropped (`reassembled`), and the datagram's frame
//! as generated.
//!
//! What the rest never came of is dropped when its time is up. Its sender hears of that if the
//! first fragment is there and, for IPv4, was for the gateway itself: routers keep silent
//! (`ip_expire`).

use arrayvec::ArrayVec;

use crate::conntrack::fragments::{
    COST_OF_BUFFER, Held, Key, Limits, PER_DATAGRAM_MAX, Part, Refusal, Stale, Whole,
};
use crate::conntrack::tuple::{Tuple, proto};
use crate::pipeline::answers::IcmpError;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::handoff::{Handed, Stage};
use crate::pipeline::route::Destination;
use crate::pipeline::transit::{FromHost, Transit};
use crate::pipeline::walking::Long;
use crate::pipeline::{Arrival, At, Pipeline};
use crate::rules::facts::PortId;
use crate::time::Now;
use crate::wire::headers::{self, Fragment, Headers};
use crate::wire::{ipv4, ipv6};

/// Datagrams that one round gives up at most.
const EXPIRED_PER_ROUND: usize = 16;

/// Bytes of transport header that conntrack and NAT look at or edit, ICMP errors' quotes included.
const HEADER_ROOM: usize = 128;

/// What is known of a packet that came in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Bytes of the largest IP packet that brought a part of it (`frag_max_size`).
    pub size: u32,
    /// Bytes of payload in the first fragment; what else is in the first segment was moved there.
    pub first: u16,
    /// Where fragments end in what was moved: bit `n` for `n + 1` times eight bytes behind the
    /// first. Each further segment is what is left of one fragment.
    pub ends: u16,
    /// The pieces may leave as they came.
    pub as_it_came: bool,
}

impl Datagram {
    /// Where fragments end in the first segment, in bytes of payload.
    pub(crate) fn ends(self) -> impl Iterator<Item = usize> {
        let first = self.first as usize;
        let moved = (0..u16::BITS as usize).filter(move |n| self.ends >> n & 1 == 1);
        core::iter::once(first).chain(moved.map(move |n| first + 8 * (n + 1)))
    }
}

/// Bytes of a TCP header without options (`tcp_v4_early_demux` has them in one piece).
const TCP_HEADER: u32 = 20;

/// A datagram as it goes on.
pub(crate) struct Joined<F> {
    pub frame: F,
    pub headers: Headers,
    /// `None` for a fragment that goes on alone.
    pub datagram: Option<Datagram>,
}

/// Where the payload of a fragment is, and how its headers lead there.
struct Layout {
    /// Offset of the payload in the frame.
    payload: usize,
    /// IPv6: offsets of the fragment header and of the byte that names it.
    fragment: usize,
    named: usize,
}

impl<P: FramePool> Pipeline<P> {
    /// Takes a fragment, or an IPv6 packet with a fragment header that is all of a datagram; `host`
    /// is set for what the box itself sends. Gives the datagram that it completes.
    #[cold]
    #[inline(never)]
    pub(crate) fn gather(
        &mut self,
        pool: &mut P,
        port: PortId,
        host: Option<FromHost>,
        (frame, h): (P::Frame, &Headers),
        at: At<'_>,
    ) -> Option<Joined<P::Frame>> {
        let key = key_of(h, port, host);
        let hash = hash_of(&key, at);
        if let Some(lcore) = self.place.named(hash) {
            self.pass_on(lcore, port, frame, at);
            return None;
        }
        let our_mac = at.policy.port(port).mac;
        let addressed = frame.head().first_chunk::<6>() == Some(&our_mac);
        let Some(part) = part_of(&frame, h, port) else {
            self.drop_frame(frame, DropReason::FragmentInvalid);
            return None;
        };
        if h.is_v6() && (is_unaligned(&part) || is_cut_short(h)) {
            if !is_cut_short(h) {
                self.forget(&key, hash);
            }
            // The first may be of a conn, so its owner takes it like a datagram.
            let (size, first) = (h.ip_len(), h.l4_len() as u16);
            let alone = Datagram { size, first, ends: 0, as_it_came: true };
            let datagram = (!h.fragment.is_later()).then_some(alone);
            return Some(Joined { frame, headers: *h, datagram });
        }
        let limits = self.limits_of_fragments(h.is_v6(), at);
        let Pipeline { fragments, links, .. } = self;
        let before = fragments.held() as u64;
        let refuse = &mut |frame, refusal| {
            drop(frame);
            links.counters.count_drop(reason_of(refusal));
        };
        let whole = fragments.add((&key, hash), &part, frame, &limits, at.now.tick, refuse);
        // Never below 0: what is no longer held has been counted as held before.
        links.counters.held.add((fragments.held() as u64).wrapping_sub(before));
        let mut joined = self.join_fragments(pool, port, whole?, at)?;
        // It counts as come by the port of the fragment that completed it.
        if let (true, Some(place)) = (addressed, joined.frame.head_mut().first_chunk_mut::<6>()) {
            *place = our_mac;
        }
        Some(joined)
    }

    /// Drops what there is of a datagram.
    fn forget(&mut self, key: &Key, hash: u64) {
        let Pipeline { fragments, links, .. } = self;
        fragments.forget((key, hash), &mut |frame| {
            drop(frame);
            links.counters.held.sub(1);
            links.counters.count_drop(DropReason::FragmentInvalid);
        });
    }

    /// This lcore's share of what fragments may take.
    fn limits_of_fragments(&self, v6: bool, at: At<'_>) -> Limits {
        let (knobs, lcores) = (&at.policy.knobs, u64::from(self.place.lcores()));
        let (high_thresh, timeout_secs, max_dist) = if v6 {
            (knobs.frag6_high_thresh, knobs.frag6_timeout, 0)
        } else {
            (knobs.ipfrag_high_thresh, knobs.ipfrag_time, knobs.ipfrag_max_dist)
        };
        Limits { high_thresh: high_thresh.div_ceil(lcores), timeout_secs, max_dist }
    }

    /// Makes one frame of a datagram's fragments (`inet_frag_reasm_finish`).
    fn join_fragments(
        &mut self,
        pool: &mut P,
        port: PortId,
        whole: Whole<P::Frame>,
        at: At<'_>,
    ) -> Option<Joined<P::Frame>> {
        let counters = &self.links.counters;
        counters.drops[DropReason::Reassembled as usize].add(whole.parts.len() as u64);
        counters.generated.add(1);
        let (size, len, ecn) = (whole.size, whole.len, whole.ecn);
        let dont_fragment = whole.dont_fragment;
        let mut parts = whole.parts;
        let mut as_it_came = parts.iter().all(|held| held.frame.segments().count() == 1);
        for Held { frame, len, at } in &mut parts {
            frame.truncate(*at as usize + *len as usize);
        }
        let mut rest = parts.drain(..);
        let mut first = rest.next()?;
        let mut rest: ArrayVec<P::Frame, PER_DATAGRAM_MAX> = rest
            .map(|mut held| {
                // Its headers were read from the first segment.
                held.frame.strip_front(held.at as usize);
                held.frame
            })
            .collect();
        let first_len = first.len as u16;
        let ends = pull(&mut first, &mut rest, len, &mut as_it_came);
        let mut tail: Option<P::Frame> = None;
        let mut too_many = false;
        while let Some(mut before) = rest.pop() {
            if let Some(tail) = tail.take() {
                too_many |= before.chain(tail).is_err();
            }
            tail = Some(before);
        }
        let mut frame = first.frame;
        if let Some(tail) = tail {
            too_many |= frame.chain(tail).is_err();
        }
        frame.forget_verified();
        if too_many || !one_header(&mut frame, len, ecn, dont_fragment) {
            self.drop_frame(frame, DropReason::FragmentInvalid);
            return None;
        }
        match headers::parse(frame.head(), frame.total_len()) {
            Ok(headers) => {
                let datagram = Some(Datagram { size, first: first_len, ends, as_it_came });
                Some(Joined { frame, headers, datagram })
            }
            Err(malformed) => {
                self.refuse(pool, port, frame, malformed, at);
                None
            }
        }
    }

    /// Takes a datagram that another lcore has put together.
    pub(crate) fn take_datagram(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        frame: P::Frame,
        datagram: Datagram,
        now: Now,
    ) {
        let Some(world) = self.world.take() else { return };
        let moment = world.moment(now, arrival.hops);
        let at = moment.at();
        match headers::parse(frame.head(), frame.total_len()) {
            Ok(headers) => {
                let joined = Joined { frame, headers, datagram: Some(datagram) };
                match self.host_of(arrival.port, at) {
                    Some(host) => self.host_packet(pool, arrival, host, joined, at),
                    None => self.datagram(pool, arrival, joined, datagram, at),
                }
            }
            Err(malformed) => self.refuse(pool, arrival.port, frame, malformed, at),
        }
        self.world = Some(world);
    }

    fn datagram(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        joined: Joined<P::Frame>,
        datagram: Datagram,
        at: At<'_>,
    ) {
        let Joined { frame, headers, .. } = joined;
        let our_mac = at.policy.port(arrival.port).mac;
        let addressed = frame.head().first_chunk::<6>() == Some(&our_mac);
        let zones = at.policy.zones(headers.is_v6(), Some(arrival.port));
        if !arrival.past_raw
            && let Some(zones) = zones
            && let Some(lcore) =
                self.elsewhere(arrival.port, &frame, &headers, (zones, addressed), at)
        {
            return self.pass_on_datagram(lcore, arrival.port, frame, datagram, at);
        }
        let datagram = Some(datagram);
        let (prejudged, leaving, hash, sound) = (None, None, None, false);
        let l = Long { frame, headers, prejudged, addressed, sound, hash, leaving, datagram };
        self.walk_in_turn(pool, arrival, l, at);
    }

    /// Hands a datagram to the lcore that owns its conn.
    pub(crate) fn pass_on_datagram(
        &mut self,
        lcore: u8,
        port: PortId,
        frame: P::Frame,
        datagram: Datagram,
        at: At<'_>,
    ) {
        let (stage, hops, datagram) = (Stage::Arrived, at.hops + 1, Some(datagram));
        let (mark, traced, template) = (0, false, None);
        let handed = Handed { frame, port, stage, hops, mark, traced, template, datagram };
        self.hand_over(lcore, handed);
    }

    /// Gives up datagrams whose time is up; true if there were any.
    pub fn expire_fragments(&mut self, pool: &mut P, now: Now) -> bool {
        if !self.fragments.is_due(now.tick) {
            return false;
        }
        let Some(world) = self.world.take() else { return false };
        let moment = world.moment(now, 0);
        let at = moment.at();
        let mut any = false;
        for _ in 0..EXPIRED_PER_ROUND {
            let Some(stale) = self.fragments.expired(now.tick, |key| hash_of(key, at)) else {
                break;
            };
            any = true;
            self.give_up(pool, stale, at);
        }
        self.world = Some(world);
        any
    }

    fn give_up(&mut self, pool: &mut P, stale: Stale<P::Frame>, at: At<'_>) {
        let Stale { key, port, has_first, parts } = stale;
        self.links.counters.held.sub(parts.len() as u64);
        let port = PortId(port);
        for (n, held) in parts.into_iter().enumerate() {
            let mut frame = held.frame;
            if n == 0 && has_first && !at.policy.is_host_tap(port) {
                let local = at.policy.routes.classify(key.dst, Some(port.0));
                let for_us = matches!(local, Destination::Local(_));
                if let Ok(headers) = headers::parse(frame.head(), frame.total_len())
                    && (headers.is_v6() || for_us)
                {
                    let mut t = Transit::new(frame, headers, Some(port));
                    let our_mac = at.policy.port(port).mac;
                    t.addressed = t.frame.head().first_chunk::<6>() == Some(&our_mac);
                    self.answer_error(pool, &t, IcmpError::FragmentTimeout, at);
                    frame = t.frame;
                }
            }
            self.drop_frame(frame, DropReason::FragmentTimeout);
        }
    }
}

fn reason_of(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Invalid => DropReason::FragmentInvalid,
        Refusal::Duplicate => DropReason::FragmentDuplicate,
        Refusal::Overlap => DropReason::FragmentOverlap,
        Refusal::Full => DropReason::FragmentMemory,
        Refusal::Distance => DropReason::FragmentDistance,
    }
}

/// What a packet's queue is found by. Received fragments and those of the box itself do not go
/// together; nor do those of different ports, where the destination is an address of the link.
fn key_of(h: &Headers, port: PortId, host: Option<FromHost>) -> Key {
    const FROM_HOST: u16 = 0x8000;
    let id = match h.fragment {
        Fragment::Atomic { id } | Fragment::First { id } | Fragment::Later { id, .. } => id,
        Fragment::None => 0,
    };
    let of_the_link =
        h.is_v6() && (h.dst.bits() >> 120 == 0xff || h.dst.bits() >> 118 == 0xfe80 >> 6);
    let of_port = if of_the_link { u16::from(port.0) } else { 0 };
    let user = of_port | if host.is_some() { FROM_HOST } else { 0 };
    let proto = if h.is_v6() { 0 } else { h.proto };
    Key { src: h.src, dst: h.dst, id, proto, user }
}

fn hash_of(key: &Key, at: At<'_>) -> u64 {
    let (src, dst, proto) = (key.src, key.dst, key.proto);
    let (src_id, dst_id) = ((key.id >> 16) as u16, key.id as u16);
    at.table.hash(&Tuple { src, dst, src_id, dst_id, proto }, 0)
}

/// Where the payload of a fragment lies.
fn layout_of(head: &[u8], h: &Headers) -> Option<Layout> {
    let l3 = h.l3 as usize;
    if !h.is_v6() {
        return Some(Layout { payload: h.l4 as usize, fragment: 0, named: 0 });
    }
    let ip = ipv6::View::new(head.get(l3..)?)?;
    let behind = head.get(l3 + ipv6::HEADER_LEN..head.len().min(h.end as usize))?;
    let chain = ipv6::walk(ip.next_header(), behind).ok()?;
    let fragment = l3 + chain.fragment_at as usize;
    let payload = fragment + ipv6::FRAGMENT_LEN;
    (chain.fragment_at > 0).then_some(Layout {
        payload,
        fragment,
        named: l3 + chain.named_at as usize,
    })
}

fn part_of<F: Frame>(frame: &F, h: &Headers, port: PortId) -> Option<Part> {
    let layout = layout_of(frame.head(), h)?;
    let (offset, more) = match h.fragment {
        Fragment::First { .. } => (0, true),
        Fragment::Later { offset, more, .. } => (u32::from(offset), more),
        Fragment::None | Fragment::Atomic { .. } => (0, false),
    };
    let payload = layout.payload as u32;
    Some(Part {
        offset,
        len: h.end.checked_sub(payload)?,
        more,
        header: payload - u32::from(h.l3),
        dont_fragment: h.dont_fragment,
        ecn: h.tos & 3,
        at: layout.payload as u16,
        port: port.0,
        cost: frame.segments().count() as u32 * COST_OF_BUFFER,
    })
}

/// True for IPv6 fragments that the kernel lets pass, as packets of no conn: a length that is no
/// multiple of 8, after which no datagram can come of the others either.
fn is_unaligned(part: &Part) -> bool {
    const LEN_MAX: u32 = 65535;
    let end = part.offset + part.len;
    part.more && !end.is_multiple_of(8) && end <= LEN_MAX
}

/// True for a first IPv6 fragment without all of its transport header, which goes on alone too
/// (`ipv6frag_thdr_truncated`, RFC 8200 section 4.5). The rest of its datagram waits in vain.
fn is_cut_short(h: &Headers) -> bool {
    let named = matches!(h.proto, proto::TCP | proto::UDP | proto::ICMPV6);
    !h.fragment.is_later() && (h.l4_len() == 0 || (named && h.l4_truncated))
}

/// Moves the beginning of what follows to the end of the first segment, until a transport header is
/// in it for certain; where fragments that were moved as a whole ended, see [`Datagram::ends`].
/// `len` is that of the datagram.
fn pull<F: Frame>(
    first: &mut Held<F>,
    rest: &mut ArrayVec<F, PER_DATAGRAM_MAX>,
    len: u32,
    as_it_came: &mut bool,
) -> u16 {
    if first.frame.segments().count() > 1 {
        return 0;
    }
    let wanted = first.at as usize + transport_room(first);
    // There the kernel moves bytes as well, and forgets how they came; none where there is no whole
    // header.
    let short_tcp = first.len < TCP_HEADER && len >= TCP_HEADER && is_tcp(first);
    *as_it_came &= !short_tcp;
    let (mut ends, mut moved, mut used_up) = (0u16, 0, 0);
    let count = rest.len();
    for (n, frame) in rest.iter_mut().enumerate() {
        let missing = wanted.saturating_sub(first.frame.head().len());
        let some = frame.head().get(..missing.min(frame.head().len())).unwrap_or_default();
        if some.is_empty() || !first.frame.append(some) {
            break;
        }
        let some = some.len();
        moved += some;
        frame.strip_front(some);
        if frame.total_len() > 0 {
            break;
        }
        used_up = n + 1;
        if used_up < count {
            match 1u16.checked_shl((moved as u32 / 8).wrapping_sub(1)) {
                Some(bit) if moved % 8 == 0 => ends |= bit,
                _ => *as_it_came = false,
            }
        }
    }
    rest.drain(..used_up);
    ends
}

fn is_tcp<F: Frame>(first: &Held<F>) -> bool {
    headers::parse(first.frame.head(), first.frame.total_len()).is_ok_and(|h| h.proto == proto::TCP)
}

/// Bytes of transport header that are looked at, by the protocol that the first fragment names.
fn transport_room<F: Frame>(first: &Held<F>) -> usize {
    const LONGEST_TCP: usize = 60;
    let head = first.frame.head();
    match headers::parse(head, first.frame.total_len()) {
        Ok(h) if h.l4 != first.at => HEADER_ROOM,
        Ok(h) => match h.proto {
            proto::UDP | proto::UDPLITE => 8,
            proto::TCP => LONGEST_TCP,
            proto::ICMP if matches!(h.icmp_type, 0 | 8) => 8,
            proto::ICMPV6 if matches!(h.icmp_type, 128 | 129) => 8,
            _ => HEADER_ROOM,
        },
        // Its length has been cut to a multiple of 8.
        Err(_) => HEADER_ROOM,
    }
}

/// Turns the header of the first fragment into that of a datagram with `len` bytes of payload;
/// false if it is not there.
fn one_header<F: Frame>(frame: &mut F, len: u32, ecn: u8, dont_fragment: bool) -> bool {
    let Ok(h) = headers::parse(frame.head(), frame.total_len()) else { return false };
    let Some(layout) = layout_of(frame.head(), &h) else { return false };
    let l3 = h.l3 as usize;
    if !h.is_v6() {
        let header = layout.payload - l3;
        let Some(mut ip) = frame.head_mut().get_mut(l3..).and_then(ipv4::ViewMut::new) else {
            return false;
        };
        ip.set_total_len((header as u32 + len) as u16);
        ip.set_fragment_word(if dont_fragment { ipv4::DONT_FRAGMENT } else { 0 });
        ip.set_tos(h.tos | ecn);
        return true;
    }
    const LEN: usize = ipv6::FRAGMENT_LEN;
    let extensions = layout.fragment - l3 - ipv6::HEADER_LEN;
    let head = frame.head_mut();
    let Some(&next) = head.get(layout.fragment) else { return false };
    if let Some(named) = head.get_mut(layout.named) {
        *named = next;
    }
    if let Some(mut ip) = head.get_mut(l3..).and_then(ipv6::ViewMut::new) {
        ip.set_payload_len((extensions as u32 + len) as u16);
        ip.set_traffic_class(h.tos | ecn);
    }
    match head.get_mut(..layout.payload) {
        Some(headers) => headers.copy_within(..layout.fragment, LEN),
        None => return false,
    }
    frame.strip_front(LEN)
}
