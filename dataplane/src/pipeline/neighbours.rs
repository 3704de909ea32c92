//! The link layer: ARP and neighbour discovery, frames that wait for a MAC address, transmit.
//!
//! The control core resolves: it owns the states of the neighbour table and asks. An lcore answers
//! for the gateway's own addresses, reports what it hears, reads MAC addresses, and holds a bounded
//! number of frames until they are there.

use arrayvec::ArrayVec;

use crate::pipeline::answers::IcmpError;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{BURST_MAX, Burst, Frame, FramePool};
use crate::pipeline::messages::{FromLcore, Learned};
use crate::pipeline::neighbour::State;
use crate::pipeline::route::Destination;
use crate::pipeline::transit::{Exit, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::wire::address::Address;
use crate::wire::build::{self, Link, neighbour as build_neighbour};
use crate::wire::ethernet::{self, Mac};
use crate::wire::headers;
use crate::wire::{arp, ndp};

/// Frames held for all neighbours together.
const HELD_MAX: usize = 512;

/// Frames held for one (`unres_qlen`).
const HELD_PER_NEIGHBOUR: usize = 101;

/// Frames one port's output takes between two flushes: a burst, an answer to each, and what waited
/// for one neighbour.
const OUTPUT_MAX: usize = 2 * BURST_MAX + HELD_PER_NEIGHBOUR;

/// How often a full transmit queue is tried again before the rest is dropped.
const TX_TRIES: usize = 8;

/// Frames that wait for a neighbour.
#[derive(Debug)]
pub(crate) struct Held<F>(Vec<Waiting<F>>);

#[derive(Debug)]
struct Waiting<F> {
    next_hop: u16,
    port: PortId,
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

/// Frames on their way out of one port.
#[derive(Debug)]
pub(crate) struct Output<F>(ArrayVec<F, OUTPUT_MAX>);

impl<F> Default for Output<F> {
    fn default() -> Output<F> {
        Output(ArrayVec::new())
    }
}

impl<P: FramePool> Pipeline<P> {
    /// The number of the next hop `towards` behind `port`.
    pub(crate) fn next_hop(&mut self, port: PortId, towards: Address) -> Result<u16, DropReason> {
        self.links
            .neighbours
            .claim(port.0, towards)
            .ok_or(DropReason::NeighbourTableFull)
    }

    /// Sends a frame to a next hop, or holds it until the next hop's MAC address is known.
    pub(crate) fn transmit(
        &mut self,
        pool: &mut P,
        mut frame: P::Frame,
        port: PortId,
        next_hop: u16,
        at: At<'_>,
    ) {
        match self.links.neighbours.mac(next_hop) {
            Some(mac) => {
                ethernet::rewrite(frame.head_mut(), Mac(mac), Mac(at.policy.port(port).mac));
                self.put_out(port, frame);
                if self.links.neighbours.wants_probe(next_hop) {
                    self.tell(FromLcore::Unresolved(next_hop));
                }
            }
            None => self.hold(pool, frame, port, next_hop, at),
        }
    }

    fn hold(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        port: PortId,
        next_hop: u16,
        at: At<'_>,
    ) {
        let waiting = self.held.0.iter().filter(|w| w.next_hop == next_hop).count();
        if self.links.neighbours.state(next_hop) == State::Failed && waiting == 0 {
            self.tell(FromLcore::Unresolved(next_hop));
        }
        if waiting >= HELD_PER_NEIGHBOUR || self.held.0.len() == HELD_MAX {
            return self.drop_frame(frame, DropReason::NeighbourQueueFull);
        }
        if waiting == 0 {
            self.tell(FromLcore::Unresolved(next_hop));
        }
        self.links.counters.held.add(1);
        self.held.0.push(Waiting { next_hop, port, frame });
        let _ = (pool, at);
    }

    /// A next hop was resolved or given up: sends what waited for it, or tells the senders.
    pub(crate) fn settle_held(&mut self, pool: &mut P, next_hop: u16, at: At<'_>) {
        let mac = self.links.neighbours.mac(next_hop);
        let failed = self.links.neighbours.state(next_hop) == State::Failed;
        if mac.is_none() && !failed {
            return;
        }
        let mut i = 0;
        while i < self.held.0.len() {
            if self.held.0[i].next_hop != next_hop {
                i += 1;
                continue;
            }
            let waiting = self.held.0.remove(i);
            self.links.counters.held.sub(1);
            if mac.is_some() {
                self.transmit(pool, waiting.frame, waiting.port, next_hop, at);
            } else {
                self.unreachable(pool, waiting.frame, waiting.port, at);
            }
        }
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
        let output = self.outputs.get_mut(port.0 as usize);
        if let Some(Err(full)) = output.map(|o| o.0.try_push(frame)) {
            self.drop_frame(full.element(), DropReason::TxFull);
        }
    }

    /// Hands every output to `send(port, frames)`, which leaves in `frames` what the device did not
    /// take, and returns how many it could never send; after a few tries the rest is dropped.
    pub fn flush(&mut self, mut send: impl FnMut(PortId, &mut Burst<P::Frame>) -> usize) {
        for number in 0..self.outputs.len() {
            let port = PortId(number as u8);
            let mut waiting = core::mem::take(&mut self.outputs[number].0);
            let mut frames = waiting.drain(..).peekable();
            while frames.peek().is_some() {
                let mut burst: Burst<P::Frame> = frames.by_ref().take(BURST_MAX).collect();
                self.send_burst(port, &mut burst, &mut send);
            }
        }
    }

    #[inline]
    fn send_burst(
        &mut self,
        port: PortId,
        burst: &mut Burst<P::Frame>,
        send: &mut impl FnMut(PortId, &mut Burst<P::Frame>) -> usize,
    ) {
        let bytes: u64 = burst.iter().map(|f| f.total_len() as u64).sum();
        let mut packets = burst.len() as u64;
        for _ in 0..TX_TRIES {
            let gone = send(port, burst) as u64;
            if gone > 0 {
                packets -= gone;
                self.links.counters.drops[DropReason::TxChain as usize].add(gone);
            }
            if burst.is_empty() {
                break;
            }
        }
        let left: u64 = burst.iter().map(|f| f.total_len() as u64).sum();
        if let Some(counters) = self.links.counters.ports.get(port.0 as usize) {
            counters.tx_packets.add(packets - burst.len() as u64);
            counters.tx_bytes.add(bytes - left);
        }
        for frame in burst.drain(..) {
            self.drop_frame(frame, DropReason::TxFull);
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
            self.tell(FromLcore::Learned(Learned {
                port,
                address: sender,
                mac: mac.0,
                solicited: !request && link.dst.0 == our_mac,
                overrides: true,
                creates: request && for_us,
            }));
        }
        if request && for_us {
            self.answer_link(pool, port, 42, |buffer| {
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
            ndp::Message::Advertisement { target, target_mac: Some(mac), flags } => {
                self.tell(FromLcore::Learned(Learned {
                    port,
                    address: target,
                    mac: mac.0,
                    solicited: flags & ndp::flags::SOLICITED != 0,
                    overrides: flags & ndp::flags::OVERRIDE != 0,
                    creates: false,
                }));
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
            self.tell(FromLcore::Learned(Learned {
                port,
                address: asker,
                mac: mac.0,
                solicited: false,
                overrides: true,
                creates: true,
            }));
        }
        let flags = ndp::flags::ROUTER
            | ndp::flags::OVERRIDE
            | if probe { 0 } else { ndp::flags::SOLICITED };
        self.answer_link(pool, port, build::ROOM.min(14 + 40 + 32), |buffer| {
            let link = Link { dst: mac, src: our_mac, tci: None };
            build_neighbour::advertisement(buffer, &link, target, back, flags)
        });
    }

    /// Sends a link-layer answer of at most `room` bytes.
    fn answer_link(
        &mut self,
        pool: &mut P,
        port: PortId,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) {
        let Some(mut frame) = self.generate(pool, room) else { return };
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
