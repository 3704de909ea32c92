//! Host taps: kernel interfaces by which the box's own programs send and receive on a port.
//!
//! A port may have a tap beside it, a kernel interface with the port's own MAC address and IP
//! addresses. Then INPUT ends there and OUTPUT begins there; without one the gateway answers for
//! itself, as `host` says.
//!
//! ```text
//!   wire ── PREROUTING, route, INPUT ──────────────────────────────┐
//!   wire ── DHCP answers for this very port, beside the hooks ─────┴─► tap ─► kernel, programs
//!
//!   wire ◄─ neighbour, POSTROUTING, OUTPUT, our routing table ──┬── tap ◄─ kernel, programs
//!   wire ◄─ what has no source address yet, beside the hooks ───┤
//!           ARP and neighbour discovery: answered here ◄────────┘
//! ```
//!
//! Who does what:
//!
//! - **Neighbours are ours.** The kernel learns that all the world is at the port's MAC address, so
//!   that frames come without a next hop, and it hears no ARP and no neighbour discovery of the
//!   wire. Its probes for duplicates, announcements, router solicitations and listener reports end
//!   here. A frame that the kernel sends to another MAC address than the port's names its next hop
//!   itself (a DHCP server's offer to a host that has no address yet): it keeps it.
//! - **Routes are ours too.** The kernel has chosen a port; our table decides, as it knows the same
//!   and more. Groups have no routes and stay on the link whose tap they came by.
//! - **Packet sockets see frames before IP does**, so a DHCP client hears an answer to an address
//!   that nobody has yet, whatever the rules say. [`for_dhcp_client`] lets exactly those through
//!   that name the port's hardware address. What has no source address comes from such a socket.
//! - **Loopback is the kernel's own business.** Packets to our own addresses do not leave it; one
//!   that a rule sends back there is refused.
//! - **What we say about a packet of the kernel's** (no route, REJECT, a next hop that is silent)
//!   takes OUTPUT and goes back by the tap. It comes from the address that was not reached: the
//!   kernel takes nothing that seems to come from itself.
//!
//! These packets walk, one by one: no path is cached for them. They belong to lcores like all
//! others: a frame from a tap goes to the owner of its conn before it meets a hook, and who
//! finishes one for a tap without having its queue hands it to who has.
//!
//! A frame from a tap counts as generated and one that a tap took as to host, neither as received
//! or sent.

use crate::conntrack::tuple::proto;
use crate::pipeline::burst::reason_to_refuse;
use crate::pipeline::drops::DropReason;
use crate::pipeline::forward::take_off_tag;
use crate::pipeline::fragments::Joined;
use crate::pipeline::frame::{Burst, Frame, FramePool};
use crate::pipeline::route::Destination;
use crate::pipeline::snapshot::PortKind;
use crate::pipeline::transit::{Exit, FromHost, Transit};
use crate::pipeline::{Arrival, At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::wire::address::Address;
use crate::wire::build::{Link, neighbour as build_neighbour};
use crate::wire::ethernet::{self, Mac, ether_type};
use crate::wire::headers::{self, Fragment, Headers, Malformed};
use crate::wire::{arp, icmp, icmpv6, ipv4, ndp};

impl<P: FramePool> Pipeline<P> {
    /// True for the port number of a tap.
    #[inline]
    pub(crate) fn is_host_tap(&self, port: PortId) -> bool {
        self.world.as_ref().is_some_and(|w| w.snapshot.is_host_tap(port))
    }

    /// Takes frames that the kernel sent by the tap of port `of` to their end.
    pub(crate) fn host_frames(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        of: PortId,
        frames: &mut Burst<P::Frame>,
        at: At<'_>,
    ) {
        for frame in frames.drain(..) {
            self.host_frame(pool, arrival, of, frame, at);
        }
    }

    fn host_frame(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        of: PortId,
        frame: P::Frame,
        at: At<'_>,
    ) {
        let host = FromHost { tap: arrival.port, of };
        let headers = match headers::parse(frame.head(), frame.total_len()) {
            Ok(headers) => headers,
            Err(Malformed::NotIp(ether_type::ARP)) => return self.host_arp(pool, host, frame, at),
            Err(malformed) => return self.refuse(pool, host.tap, frame, malformed, at),
        };
        let addressed = !dst_mac(&frame).is_multicast();
        if let Some(reason) = reason_to_refuse(&frame, &headers, addressed) {
            return self.drop_frame(frame, reason);
        }
        if is_of_the_link(&headers) {
            return self.host_neighbour_message(pool, host, frame, &headers, at);
        }
        if headers.src.is_unspecified() {
            let mut t = Transit::new(frame, headers, None);
            (t.host, t.addressed) = (Some(host), addressed);
            take_off_tag(&mut t);
            let exit = bare(&mut t, host, at);
            return self.finish(pool, t, exit, at);
        }
        if headers.fragment != Fragment::None {
            let joined = self.gather(pool, host.tap, Some(host), (frame, &headers), at);
            if let Some(joined) = joined {
                self.host_packet(pool, arrival, host, joined, at);
            }
            return;
        }
        self.host_packet(pool, arrival, host, Joined { frame, headers, datagram: None }, at);
    }

    /// Whose kernel interface a port is, if it is one.
    pub(crate) fn host_of(&self, port: PortId, at: At<'_>) -> Option<FromHost> {
        match at.policy.port(port).kind {
            PortKind::HostTap { of } => Some(FromHost { tap: port, of }),
            _ => None,
        }
    }

    /// A packet of the box's own programs, whole.
    pub(crate) fn host_packet(
        &mut self,
        pool: &mut P,
        arrival: Arrival,
        host: FromHost,
        Joined { frame, headers, datagram }: Joined<P::Frame>,
        at: At<'_>,
    ) {
        let addressed = !dst_mac(&frame).is_multicast();
        if let Some(reason) = reason_to_refuse(&frame, &headers, addressed) {
            return self.drop_frame(frame, reason);
        }
        let mut t = Transit::new(frame, headers, None);
        (t.host, t.addressed, t.datagram) = (Some(host), addressed, datagram);
        (t.past_raw, t.mark, t.template) = (arrival.past_raw, arrival.mark, arrival.template);
        t.traced = arrival.traced;
        take_off_tag(&mut t);
        if !t.past_raw
            && !self.place.is_alone()
            && !t.headers.fragment.is_fragment()
            && let Some(zones) = at.policy.zones(t.is_v6(), None)
            && let Some(lcore) =
                self.elsewhere(host.tap, &t.frame, &t.headers, (zones, addressed), at)
        {
            return match datagram {
                Some(datagram) => self.pass_on_datagram(lcore, host.tap, t.frame, datagram, at),
                None => self.pass_on(lcore, host.tap, t.frame, at),
            };
        }
        self.links.counters.walked.add(1);
        self.note_beginning(&t);
        let exit = self.host_out(pool, &mut t, host, at).unwrap_or_else(|end| end);
        self.finish(pool, t, exit, at);
    }

    /// OUTPUT and POSTROUTING, then the MAC address if it is settled already.
    fn host_out(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        host: FromHost,
        at: At<'_>,
    ) -> Result<Exit, Exit> {
        let (asked, given) = (t.headers.dst, dst_mac(&t.frame));
        let exit = self.local_out(pool, t, Some(host.of), at)?;
        let Exit::Transmit(port) = exit else { return Ok(exit) };
        let our_mac = Mac(at.policy.port(port).mac);
        let dst = t.headers.dst;
        let mac = match at.policy.routes.classify(dst, Some(port.0)) {
            Destination::Broadcast => Mac::BROADCAST,
            Destination::Multicast { .. } if dst.is_v4() => ipv4::multicast_mac(dst),
            Destination::Multicast { .. } => ndp::multicast_mac(dst),
            _ if port == host.of && dst == asked && given != our_mac => given,
            _ => return Ok(exit),
        };
        ethernet::rewrite(t.frame.head_mut(), mac, our_mac);
        Ok(Exit::Framed(port))
    }

    /// What the gateway says to the box's own programs: OUTPUT and POSTROUTING, then the tap of the
    /// port that it is about.
    pub(crate) fn answer_programs(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        link: Option<PortId>,
        at: At<'_>,
    ) -> Result<Exit, Exit> {
        let port = link.filter(|_| t.host.is_none()).ok_or(DropReason::NotAccepted)?;
        let settings = at.policy.port(port);
        let tap = settings.host_tap.ok_or(DropReason::NotAccepted)?;
        self.filter(pool, t, Table::Filter, Hook::Output, at)?;
        t.towards = t.headers.dst;
        self.postrouting(pool, t, port, at)?;
        come_from_afar(t, at);
        let mac = Mac(settings.mac);
        ethernet::rewrite(t.frame.head_mut(), mac, mac);
        Ok(Exit::Framed(tap))
    }

    /// ARP of the kernel: every address but our own is at the port's MAC address. Probes for
    /// duplicates and announcements need no answer, and nobody is learnt from.
    fn host_arp(&mut self, pool: &mut P, host: FromHost, frame: P::Frame, at: At<'_>) {
        let head = frame.head();
        let link = ethernet::parse(head);
        let view = link.and_then(|l| head.get(l.l3 as usize..)).and_then(arp::View::new);
        let Some(view) = view else {
            return self.drop_frame(frame, DropReason::BadArp);
        };
        let (sender, target, mac) = (view.sender(), view.target(), view.sender_mac());
        let asks = view.operation() == arp::operation::REQUEST
            && !sender.is_unspecified()
            && !view.is_gratuitous();
        if asks && !is_ours(target, host, at) {
            let link = Link { dst: mac, src: Mac(at.policy.port(host.of).mac), tci: None };
            self.answer_link(pool, host.tap, |buffer| {
                build_neighbour::arp_reply(buffer, &link, target, (mac, sender))
            });
        }
        drop(frame);
        self.links.counters.to_host.add(1);
    }

    /// The same for neighbour discovery; all other messages of the link end here as well. That the
    /// answer is a router's takes no route from the kernel, as one of a host would.
    fn host_neighbour_message(
        &mut self,
        pool: &mut P,
        host: FromHost,
        frame: P::Frame,
        h: &Headers,
        at: At<'_>,
    ) {
        let message = frame.head().get(h.l4 as usize..h.end as usize);
        if let Some(ndp::Message::Solicitation { target, source_mac }) =
            message.and_then(|bytes| ndp::parse(h, bytes))
            && !h.src.is_unspecified()
            && !is_ours(target, host, at)
            && let Some(asker) = source_mac.or(ethernet::View::new(frame.head()).map(|l| l.src()))
        {
            let link = Link { dst: asker, src: Mac(at.policy.port(host.of).mac), tci: None };
            let flags = ndp::flags::ROUTER | ndp::flags::SOLICITED | ndp::flags::OVERRIDE;
            self.answer_link(pool, host.tap, |buffer| {
                build_neighbour::advertisement(buffer, &link, target, h.src, flags)
            });
        }
        drop(frame);
        self.links.counters.to_host.add(1);
    }
}

/// The way to the box's own programs, for a packet that has passed INPUT; `None` if the port has no
/// tap, and for neighbour discovery, which is ours.
pub(crate) fn for_programs<F>(t: &Transit<F>, at: At<'_>) -> Option<Exit> {
    let tap = at.policy.port(t.in_port?).host_tap?;
    (!is_discovery(&t.headers)).then_some(Exit::Framed(tap))
}

/// What becomes of a packet to a group that the gateway is not in: a program of the box may be. For
/// IPv4 the source is judged as for groups it is in (`ip_mc_validate_source`).
pub(crate) fn group_for_host<F>(
    t: &Transit<F>,
    port: PortId,
    at: At<'_>,
) -> Result<Destination, DropReason> {
    if at.policy.port(port).host_tap.is_none() {
        return Err(DropReason::NotForwarded);
    }
    let h = &t.headers;
    let all_systems = Address::v4(0xe000_0001);
    let of_the_link = h.proto == IGMP || h.dst.v4_bits() >> 8 == 0x00e0_0000;
    if h.src.is_v4()
        && (at.policy.routes.judge(h.src, all_systems, port.0).is_err()
            || (h.src.is_unspecified() && !of_the_link))
    {
        return Err(DropReason::MartianSource);
    }
    Ok(Destination::Multicast { joined: true })
}

/// The way of a DHCP answer for a client on the box itself: by the tap, as it came. Such a client
/// has no address yet and listens at a packet socket, where no hook is (RFC 2131 section 4.1: the
/// answer is sent to the offered address, or to everybody). It is for us if it names the port's
/// hardware address; one to an address that we have goes the way of all packets.
pub(crate) fn for_dhcp_client<F: Frame>(t: &Transit<F>, at: At<'_>) -> Option<Exit> {
    const SERVER_TO_CLIENT: (u16, u16) = (67, 68);
    /// BOOTREPLY, Ethernet, six bytes of address.
    const ANSWER: [u8; 3] = [2, 1, 6];
    let (h, port) = (&t.headers, t.in_port?);
    let settings = at.policy.port(port);
    let tap = settings.host_tap?;
    if h.proto != proto::UDP || (h.src_port, h.dst_port) != SERVER_TO_CLIENT || h.is_v6() {
        return None;
    }
    let message = t.frame.head().get(h.l4 as usize + 8..h.end as usize)?;
    let named = message.starts_with(&ANSWER) && message.get(28..34)? == settings.mac;
    let bound = matches!(at.policy.routes.classify(h.dst, Some(port.0)), Destination::Local(_));
    (named && !bound).then_some(Exit::Framed(tap))
}

/// A packet without a source address: a program that has none yet wrote the frame itself. It leaves
/// as it is, unless it was left to us to find a next hop.
fn bare<F: Frame>(t: &mut Transit<F>, host: FromHost, at: At<'_>) -> Exit {
    let (mac, our_mac) = (dst_mac(&t.frame), Mac(at.policy.port(host.of).mac));
    if mac == our_mac {
        return Exit::Drop(DropReason::MartianSource);
    }
    ethernet::rewrite(t.frame.head_mut(), mac, our_mac);
    Exit::Framed(host.of)
}

/// Lets an ICMP error that we say to ourselves come from where the packet was to go: from an
/// address of its own the kernel takes nothing (`fib_validate_source`). IPv6 has no such check.
fn come_from_afar<F: Frame>(t: &mut Transit<F>, at: At<'_>) {
    let h = &mut t.headers;
    let own = matches!(at.policy.routes.classify(h.src, None), Destination::Local(_));
    if h.is_v6() || h.proto != proto::ICMP || !own {
        return;
    }
    let quoted = h.l4 as usize + icmp::HEADER_LEN;
    let quoted = t.frame.head().get(quoted..).and_then(ipv4::View::new).map(|ip| ip.dst());
    let ip = t.frame.head_mut().get_mut(h.l3 as usize..).and_then(ipv4::ViewMut::new);
    if let (Some(far), Some(mut ip)) = (quoted, ip) {
        ip.set_src(far);
        h.src = far;
    }
}

/// The protocol by which IPv4 hosts and routers speak of groups (RFC 3376).
const IGMP: u8 = 2;

fn is_ours(address: Address, host: FromHost, at: At<'_>) -> bool {
    matches!(at.policy.routes.classify(address, Some(host.of.0)), Destination::Local(_))
}

/// Neighbour discovery.
fn is_discovery(h: &Headers) -> bool {
    let kinds = icmpv6::kind::ROUTER_SOLICITATION..=icmpv6::kind::REDIRECT;
    h.proto == proto::ICMPV6 && kinds.contains(&h.icmp_type)
}

/// Neighbour discovery, and which groups are listened to (MLD, RFC 2710 and 3810).
fn is_of_the_link(h: &Headers) -> bool {
    const QUERY: u8 = 130;
    const DONE: u8 = 132;
    const REPORT_2: u8 = 143;
    let listeners = (QUERY..=DONE).contains(&h.icmp_type) || h.icmp_type == REPORT_2;
    is_discovery(h) || (h.proto == proto::ICMPV6 && listeners)
}

fn dst_mac<F: Frame>(frame: &F) -> Mac {
    ethernet::View::new(frame.head()).map_or(Mac::default(), |link| link.dst())
}
