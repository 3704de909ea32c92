//! The link layer: ARP and neighbour discovery, frames that wait for a MAC address, transmit.
//!
//! An lcore answers for the gateway's own addresses, notes in the shared table what it hears, asks
//! the first question about a new next hop and holds a bounded number of frames until the answer
//! is there. The control core runs the table's timers and asks again.

use arrayvec::ArrayVec;

use crate::conntrack::fragments::PER_DATAGRAM_MAX;
use crate::pipeline::answers::IcmpError;
use crate::pipeline::counters::LcoreCounters;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{BURST_MAX, Burst, Frame, FramePool};
use crate::pipeline::handoff::{Handed, Stage};
use crate::pipeline::neighbour::{Evidence, Resolved, State};
use crate::pipeline::route::Destination;
use crate::pipeline::snapshot::PortSettings;
use crate::pipeline::transit::{Exit, Transit};
use crate::pipeline::vlan::{self, Wire};
use crate::pipeline::{At, Pipeline, World};
use crate::rules::facts::PortId;
use crate::time::Now;
use crate::wire::address::Address;
use crate::wire::build::{Link, neighbour as build_neighbour};
use crate::wire::ethernet::{self, Mac};
use crate::wire::headers;
use crate::wire::{arp, ndp};

/// Room for the longest link-layer message: a neighbour advertisement with one option.
pub const LINK_MESSAGE_MAX: usize = 14 + 40 + 24 + 8;

/// Frames held for all neighbours together.
const HELD_MAX: usize = 512;

/// Frames held for one (`unres_qlen`).
const HELD_PER_NEIGHBOUR: usize = 101;

/// Frames one port's output takes between two flushes: a burst, an answer to each, and all that
/// waited for neighbours.
pub(crate) const OUTPUT_MAX: usize = 2 * BURST_MAX + HELD_MAX;

/// Frames beyond a burst with which an output is crowded: there is room for one more datagram in
/// fragments, which leaves in as many.
const CROWDED: usize = OUTPUT_MAX - BURST_MAX - PER_DATAGRAM_MAX;

/// How often a full transmit queue is tried again before the rest is dropped.
const TX_TRIES: usize = 8;

/// Frames that wait for a neighbour.
#[derive(Debug)]
pub(crate) struct Held<F>(Vec<Waiting<F>>);

#[derive(Debug)]
struct Waiting<F> {
    port: PortId,
    towards: Address,
    frame: F,
}

impl<F> Default for Held<F> {
    fn default() -> Held<F> {
        Held(Vec::with_capacity(HELD_MAX))
    }
}

impl<F> Held<F> {
    /// One of them, to be freed.
    pub(crate) fn pop(&mut self) -> Option<F> {
        self.0.pop().map(|w| w.frame)
    }
}

/// Frames on their way out of one port: a burst as the driver takes it, and what goes beyond.
#[derive(Debug)]
pub(crate) struct Output<F> {
    wire: Wire,
    burst: Burst<F>,
    more: ArrayVec<F, { OUTPUT_MAX - BURST_MAX }>,
}

impl<F: Frame> Output<F> {
    pub(crate) fn new(wire: Wire) -> Output<F> {
        Output { wire, burst: Burst::new(), more: ArrayVec::new() }
    }

    /// True if nothing waits and nothing is to be done to frames.
    #[inline]
    fn is_free(&self) -> bool {
        self.wire.tag.is_none() && self.burst.is_empty()
    }

    /// Takes a frame, tagged as its wire wants it, and says whether it is crowded now; gives the
    /// frame back when there is no room.
    #[inline]
    fn push(&mut self, mut frame: F) -> Result<bool, (F, DropReason)> {
        if let Some(tci) = self.wire.tag
            && !vlan::put_tag(&mut frame, tci)
        {
            return Err((frame, DropReason::NoHeadroom));
        }
        match self.burst.try_push(frame) {
            Ok(()) => Ok(false),
            Err(full) => match self.more.try_push(full.element()) {
                Ok(()) => Ok(self.more.len() > CROWDED),
                Err(full) => Err((full.element(), DropReason::TxFull)),
            },
        }
    }
}

/// Writes the question for a next hop's MAC address, ARP or neighbour solicitation, to everybody or
/// to the MAC address it had; `None` if the port has no address to ask from.
pub fn ask(
    port: &PortSettings,
    target: Address,
    unicast: Option<[u8; 6]>,
    buffer: &mut [u8],
) -> Option<usize> {
    let (mac, sender, to) = (Mac(port.mac), port.source_for(target)?, unicast.map(Mac));
    if target.is_v4() {
        build_neighbour::arp_request(buffer, mac, sender, target, to, None)
    } else {
        build_neighbour::solicitation(buffer, mac, sender, target, to, None)
    }
}

impl<P: FramePool> Pipeline<P> {
    /// Sends a frame to a next hop whose MAC address is known.
    #[inline]
    pub(crate) fn send_to(&mut self, mut frame: P::Frame, port: PortId, mac: [u8; 6], at: At<'_>) {
        ethernet::rewrite(frame.head_mut(), Mac(mac), Mac(at.policy.port(port).mac));
        self.put_out(port, frame);
    }

    /// Finds the next hop of a packet that is ready to leave.
    #[inline]
    pub(crate) fn resolve(&mut self, port: PortId, towards: Address, at: At<'_>) -> Resolved {
        let (neighbours, wanted) = (&self.links.neighbours, (port.0, towards));
        let resolved = neighbours.resolve_guessed(self.last_hop, wanted, at.now.tick);
        if let Resolved::Known(next_hop, _) = resolved {
            self.last_hop = next_hop;
        }
        resolved
    }

    /// Sends a frame to a next hop, or holds it until the next hop's MAC address is known.
    #[inline]
    pub(crate) fn transmit(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        (port, towards): (PortId, Address),
        resolved: Resolved,
        at: At<'_>,
    ) {
        match resolved {
            Resolved::Known(_, mac) => self.send_to(frame, port, mac, at),
            Resolved::Full => self.drop_frame(frame, DropReason::NeighbourTableFull),
            Resolved::Pending { ask: first, .. } => {
                if first {
                    self.answer_link(pool, port, |buffer| {
                        ask(at.policy.port(port), towards, None, buffer)
                    });
                }
                self.hold(Waiting { port, towards, frame });
            }
        }
    }

    fn hold(&mut self, new: Waiting<P::Frame>) {
        let same = |w: &&Waiting<P::Frame>| (w.port, w.towards) == (new.port, new.towards);
        let waiting = self.held.0.iter().filter(same).count();
        if waiting >= HELD_PER_NEIGHBOUR || self.held.0.len() == HELD_MAX {
            return self.drop_frame(new.frame, DropReason::NeighbourQueueFull);
        }
        self.links.counters.held.add(1);
        self.held.0.push(new);
    }

    /// Looks after what waits for neighbours, if something was heard of any since the last time,
    /// by whichever lcore. True if there was something to look at.
    pub fn settle(&mut self, pool: &mut P, now: Now) -> bool {
        if self.held.0.is_empty() {
            return false;
        }
        let news = self.links.neighbours.news();
        if news == self.heard {
            return false;
        }
        self.heard = news;
        let Some(world) = self.world.take() else { return false };
        self.settle_held(pool, world.moment(now, 0).at());
        self.world = Some(world);
        true
    }

    /// Sends what waited for a next hop that was resolved, and tells the senders of what waited for
    /// one that was given up. By address: an lcore that lost the race for the neighbour's slot has
    /// asked under another number.
    fn settle_held(&mut self, pool: &mut P, at: At<'_>) {
        // An error about one of them may have to wait itself, behind these.
        let mut left = self.held.0.len();
        let mut i = 0;
        while left > 0
            && let Some(Waiting { port, towards, .. }) = self.held.0.get(i)
        {
            left -= 1;
            let (port, towards) = (*port, *towards);
            let there = self.links.neighbours.at(port.0, towards);
            if there.is_some_and(|n| n.mac.is_none() && n.state != State::Failed) {
                i += 1;
                continue;
            }
            let waiting = self.held.0.remove(i);
            self.links.counters.held.sub(1);
            match there.and_then(|n| n.mac) {
                Some(mac) => self.send_to(waiting.frame, port, mac, at),
                None => self.unreachable(pool, waiting.frame, port, at),
            }
        }
    }

    /// Notes what a neighbour said; what waits for it goes at the end of the round.
    fn learn(&mut self, port: PortId, address: Address, evidence: Evidence, at: At<'_>) {
        self.links.neighbours.learn(port.0, address, evidence, at.now.tick);
    }

    /// `arp_error_report`: the packet's sender hears that the host is unreachable.
    fn unreachable(&mut self, pool: &mut P, frame: P::Frame, port: PortId, at: At<'_>) {
        if let Ok(headers) = headers::parse(frame.head(), frame.total_len()) {
            let mut t = Transit::new(frame, headers, Some(port));
            t.addressed = true;
            self.answer_error(pool, &t, IcmpError::HostUnreachable, at);
            self.drop_frame(t.frame, DropReason::NeighbourFailed);
        } else {
            self.drop_frame(frame, DropReason::NeighbourFailed);
        }
    }

    /// Puts a finished frame into a port's output.
    #[inline]
    pub(crate) fn put_out(&mut self, port: PortId, frame: P::Frame) {
        if let Some(lcore) = self.place.sender(port) {
            // Finished: it goes no further than there.
            let (stage, hops, mark) = (Stage::Send, 1, 0);
            return self.hand_over(
                lcore,
                Handed {
                    frame,
                    port,
                    stage,
                    hops,
                    mark,
                    traced: false,
                    template: None,
                    datagram: None,
                },
            );
        }
        let Some(output) = self.outputs.get_mut(port.0 as usize) else { return };
        match output.push(frame) {
            Ok(crowded) => self.crowded |= crowded,
            Err((frame, reason)) => self.drop_frame(frame, reason),
        }
    }

    /// The same for the first `count` frames of a burst.
    #[inline]
    pub(crate) fn put_first_out(
        &mut self,
        port: PortId,
        frames: &mut Burst<P::Frame>,
        count: usize,
    ) {
        if count == 0 {
            return;
        }
        if let Some(output) = self.outputs.get_mut(port.0 as usize)
            && count == frames.len()
            && output.is_free()
            && self.place.sender(port).is_none()
        {
            return core::mem::swap(&mut output.burst, frames);
        }
        for frame in frames.drain(..count.min(frames.len())) {
            self.put_out(port, frame);
        }
    }

    /// Hands every output to `send(port, frames)`, `port` being the one whose device it is, which
    /// leaves in `frames` what the device did not take, and returns how many it could never send;
    /// after a few tries the rest is dropped.
    pub fn flush(&mut self, mut send: impl FnMut(PortId, &mut Burst<P::Frame>) -> usize) {
        self.crowded = false;
        let Pipeline { outputs, links, world, .. } = self;
        for (number, output) in outputs.iter_mut().enumerate() {
            let device = output.wire.device;
            while !output.burst.is_empty() {
                let mut send = |burst: &mut Burst<P::Frame>| send(device, burst);
                let taken = send_burst(&links.counters, &mut output.burst, &mut send);
                count_sent(&links.counters, PortId(number as u8), world.as_ref(), taken);
                let n = output.more.len().min(BURST_MAX);
                output.burst.extend(output.more.drain(..n));
            }
        }
    }

    /// An ARP frame: answers for our own addresses, reports who spoke (`arp_process`).
    pub(crate) fn arp(&mut self, pool: &mut P, port: PortId, frame: P::Frame, at: At<'_>) {
        let head = frame.head();
        let link = ethernet::parse(head);
        let view = link.and_then(|l| head.get(l.l3 as usize..)).and_then(arp::View::new);
        let (Some(link), Some(view)) = (link, view) else {
            return self.drop_frame(frame, DropReason::BadArp);
        };
        let our_mac = at.policy.port(port).mac;
        if link.dst.0 != our_mac && !link.dst.is_multicast() {
            return self.drop_frame(frame, DropReason::OtherHost);
        }
        if link.vlan().is_some_and(|id| id != 0) {
            return self.drop_frame(frame, DropReason::UnknownVlan);
        }
        let (sender, target, mac) = (view.sender(), view.target(), view.sender_mac());
        let request = view.operation() == arp::operation::REQUEST;
        if mac.is_multicast() || !(request || view.operation() == arp::operation::REPLY) {
            return self.drop_frame(frame, DropReason::BadArp);
        }
        let local = |a| matches!(at.policy.routes.classify(a, Some(port.0)), Destination::Local(_));
        let for_us = local(target);
        // A probe for a duplicate address (RFC 5227) has no sender address to learn from.
        if sender != Address::v4(0) && !local(sender) {
            let evidence = if request && for_us {
                Evidence::arp_request_for_us(mac.0)
            } else {
                let answer = !request && link.dst.0 == our_mac;
                Evidence::arp(mac.0, answer, view.is_gratuitous())
            };
            self.learn(port, sender, evidence, at);
        }
        if request && for_us {
            self.answer_link(pool, port, |buffer| {
                let link = Link { dst: mac, src: Mac(our_mac), tci: None };
                build_neighbour::arp_reply(buffer, &link, target, (mac, sender))
            });
        }
        drop(frame);
        self.links.counters.to_host.add(1);
    }

    /// An ICMPv6 message to us that is not echo: neighbour discovery, or nothing for us.
    pub(crate) fn neighbour_message(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        let h = &t.headers;
        if !(133..=137).contains(&h.icmp_type) {
            return Ok(Exit::ToHost);
        }
        let Some(port) = t.in_port else { return Ok(Exit::ToHost) };
        let message = t.frame.head().get(h.l4 as usize..h.end as usize);
        let message = message.and_then(|bytes| ndp::parse(h, bytes));
        match message.ok_or(DropReason::BadNeighbourMessage)? {
            ndp::Message::Solicitation { target, source_mac } => {
                self.solicited(pool, port, t, target, source_mac, at);
            }
            ndp::Message::Advertisement { target, target_mac, flags } => {
                let evidence = Evidence::advertisement(
                    target_mac.map(|m| m.0),
                    flags & ndp::flags::SOLICITED != 0,
                    flags & ndp::flags::OVERRIDE != 0,
                );
                self.learn(port, target, evidence, at);
            }
            _ => {}
        }
        Ok(Exit::ToHost)
    }

    fn solicited(
        &mut self,
        pool: &mut P,
        port: PortId,
        t: &Transit<P::Frame>,
        target: Address,
        source_mac: Option<Mac>,
        at: At<'_>,
    ) {
        let ours = at.policy.routes.classify(target, Some(port.0));
        if ours != Destination::Local(port.0) {
            return;
        }
        let our_mac = Mac(at.policy.port(port).mac);
        let asker = t.headers.src;
        let probe = asker.bits() == 0;
        let back = if probe { ALL_NODES } else { asker };
        let mac = match source_mac {
            Some(mac) => mac,
            None if probe => ndp::multicast_mac(ALL_NODES),
            None => match ethernet::View::new(t.frame.head()) {
                Some(link) => link.src(),
                None => return,
            },
        };
        if let Some(mac) = source_mac {
            self.learn(port, asker, Evidence::solicitation(mac.0), at);
        }
        let flags = ndp::flags::ROUTER
            | ndp::flags::OVERRIDE
            | if probe { 0 } else { ndp::flags::SOLICITED };
        self.answer_link(pool, port, |buffer| {
            let link = Link { dst: mac, src: our_mac, tci: None };
            build_neighbour::advertisement(buffer, &link, target, back, flags)
        });
    }

    /// Sends a link-layer message that `write` puts into a buffer.
    pub(crate) fn answer_link(
        &mut self,
        pool: &mut P,
        port: PortId,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let Some(mut frame) = self.generate(pool, LINK_MESSAGE_MAX) else { return };
        match write(frame.head_mut()) {
            Some(len) => {
                frame.truncate(len);
                self.put_out(port, frame);
            }
            None => self.drop_frame(frame, DropReason::NoMbuf),
        }
    }
}

/// `ff02::1`.
const ALL_NODES: Address = Address::v6(0xff02 << 112 | 1);

/// Packets and bytes that the device took.
#[inline]
fn send_burst<F: Frame>(
    counters: &LcoreCounters,
    burst: &mut Burst<F>,
    send: &mut impl FnMut(&mut Burst<F>) -> usize,
) -> (u64, u64) {
    let bytes: u64 = burst.iter().map(|f| f.total_len() as u64).sum();
    let mut packets = burst.len() as u64;
    for _ in 0..TX_TRIES {
        let gone = send(burst) as u64;
        if gone > 0 {
            packets -= gone;
            counters.drops[DropReason::TxChain as usize].add(gone);
        }
        if burst.is_empty() {
            break;
        }
    }
    let left: u64 = burst.iter().map(|f| f.total_len() as u64).sum();
    let taken = (packets - burst.len() as u64, bytes - left);
    for frame in burst.drain(..) {
        drop(frame);
        counters.count_drop(DropReason::TxFull);
    }
    taken
}

/// Counts what a device took: on a wire, or for the box's own programs.
#[inline]
fn count_sent(
    counters: &LcoreCounters,
    port: PortId,
    world: Option<&World>,
    (packets, bytes): (u64, u64),
) {
    if world.is_some_and(|w| w.snapshot.is_host_tap(port)) {
        counters.to_host.add(packets);
    } else if let Some(port) = counters.ports.get(port.0 as usize) {
        port.tx_packets.add(packets);
        port.tx_bytes.add(bytes);
    }
}
