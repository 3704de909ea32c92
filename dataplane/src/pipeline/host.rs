//! Packets to and from the gateway itself: INPUT and what answers there, OUTPUT for what we send.

use crate::conntrack::tuple::proto;
use crate::nat::range::Manip;
use crate::pipeline::answers::IcmpError;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::host_tap::for_programs;
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::pieces::exceeds;
use crate::pipeline::route::Destination;
use crate::pipeline::track::checksum_ok;
use crate::pipeline::transit::{Attached, Attachment, Exit, Transit};
use crate::pipeline::{Arrival, At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::rules::template::Template;
use crate::time::Now;
use crate::wire::address::Address;
use crate::wire::build::echo;
use crate::wire::ethernet::Mac;
use crate::wire::headers::{self, Headers};
use crate::wire::ipv6;

/// Least length of a TCP and of a UDP header.
const TCP_HEADER_LEN: u32 = 20;
const UDP_HEADER_LEN: u32 = 8;
/// The bits of TOS and traffic class that mark congestion (RFC 3168).
const ECN: u8 = 3;
/// Length of the TCP option with a signature (RFC 2385).
const TCP_SIGNATURE_LEN: usize = 18;

impl<P: FramePool> Pipeline<P> {
    /// INPUT for a packet to one of our addresses, then whoever answers.
    pub(crate) fn input(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        self.local_in(pool, t, at)?;
        match for_programs(t, at) {
            Some(exit) => Ok(exit),
            None => self.deliver_local(pool, t, at),
        }
    }

    /// The same for broadcast and for multicast groups.
    pub(crate) fn input_group(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        self.local_in(pool, t, at)?;
        if let Some(exit) = for_programs(t, at) {
            return Ok(exit);
        }
        if t.headers.proto == proto::ICMPV6 {
            return self.deliver_local(pool, t, at);
        }
        // Nothing here listens to groups, and nothing that was sent to many is answered.
        Ok(Exit::ToHost)
    }

    fn local_in(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        self.filter(pool, t, Table::Mangle, Hook::Input, at)?;
        self.filter(pool, t, Table::Filter, Hook::Input, at)?;
        self.translate(t, Hook::Input, Manip::Src, at)?;
        self.touch_last(pool, t, at)?;
        self.confirm(t, at)
    }

    /// What a host without any listening program does. It hears nothing of a packet whose checksum
    /// is wrong (`tcp_v4_rcv`, `__udp4_lib_rcv`, `icmp_rcv`).
    fn deliver_local(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        let h = t.headers;
        if h.fragment.is_fragment() {
            return Err(DropReason::FragmentInvalid);
        }
        let Some(end) = transport_end(t) else { return Err(DropReason::TransportLength) };
        if !received_whole(t, end) {
            return Err(DropReason::TransportChecksum);
        }
        match h.proto {
            proto::ICMP | proto::ICMPV6 if self.echo(t, at) => return Ok(Exit::Answer),
            proto::ICMP => {}
            proto::ICMPV6 => return self.neighbour_message(pool, t, at),
            proto::TCP if !has_sound_options(t) => {}
            // A host answers with what it was sent, congestion marks aside (`tcp_v4_send_reset`).
            proto::TCP => self.answer_reset(pool, t, (None, h.tos & !ECN), at),
            proto::UDP => self.answer_error(pool, t, IcmpError::PortUnreachable, at),
            _ => {
                let packet = t.frame.head().get(t.headers.l3 as usize..).unwrap_or_default();
                let named_at = ipv6::naming(packet) as u32;
                self.answer_error(pool, t, IcmpError::ProtocolUnreachable { named_at }, at);
            }
        }
        Ok(Exit::ToHost)
    }

    /// Turns a ping into its answer, from the address that was pinged (from our own where it was a
    /// group). False if it is no ping.
    fn echo(&mut self, t: &mut Transit<P::Frame>, at: At<'_>) -> bool {
        let h = t.headers;
        let Some(port) = t.in_port else { return false };
        let source = match at.policy.routes.classify(h.dst, Some(port.0)) {
            Destination::Local(_) => Some(h.dst),
            _ => at.policy.port(port).source_for(h.src),
        };
        let id = self.next_ip_id();
        source.is_some_and(|source| echo::reply(t.frame.head_mut(), &h, Mac::default(), source, id))
    }

    /// Sends a packet of our own through OUTPUT and POSTROUTING. `lent` is the conn of the packet
    /// that this one answers, where netfilter attaches it (`nf_ct_attach`). `link` is where that
    /// packet came from: a link-local address means something only there.
    pub(crate) fn originate(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        lent: Option<Attachment>,
        link: Option<PortId>,
        at: At<'_>,
    ) {
        self.originate_as(pool, frame, (lent, None), link, at);
    }

    /// The same for a packet of which it is known besides what conn it begins.
    pub(crate) fn originate_as(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        (lent, template): (Option<Attachment>, Option<Template>),
        link: Option<PortId>,
        at: At<'_>,
    ) {
        let Ok(headers) = headers::parse(frame.head(), frame.total_len()) else {
            return self.drop_frame(frame, DropReason::IpTotalLength);
        };
        let mut t = Transit::new(frame, headers, None);
        t.attached = lent.map_or(Attached::Nothing, Attached::Conn);
        t.template = template;
        self.note_beginning(&t);
        let exit = self.local_out(pool, &mut t, link, at).unwrap_or_else(|end| end);
        self.finish(pool, t, exit, at);
    }

    /// Takes a packet of our own from another lcore: its conn is owned here.
    pub(crate) fn take_own(&mut self, pool: &mut P, arrival: Arrival, frame: P::Frame, now: Now) {
        let Some(world) = self.world.take() else { return };
        let moment = world.moment(now, arrival.hops);
        let at = moment.at();
        match headers::parse(frame.head(), frame.total_len()) {
            Ok(headers) => {
                let mut t = Transit::new(frame, headers, None);
                (t.past_raw, t.mark, t.template) = (true, arrival.mark, arrival.template);
                t.traced = arrival.traced;
                let out = Some(arrival.port);
                let exit = self.local_out(pool, &mut t, out, at).unwrap_or_else(|end| end);
                self.finish(pool, t, exit, at);
            }
            Err(_) => self.drop_frame(frame, DropReason::IpTotalLength),
        }
        self.world = Some(world);
    }

    /// OUTPUT and POSTROUTING. `link` is the port that link-local addresses mean.
    pub(crate) fn local_out(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        link: Option<PortId>,
        at: At<'_>,
    ) -> Result<Exit, Exit> {
        // An error about a packet whose source was translated is addressed to ourselves until its
        // conn turns it back at OUTPUT.
        t.out_port = self.route_out(pool, t, link, at)?.map(|(port, _)| port);
        self.raw(pool, t, Hook::Output, at)?;
        self.track(t, at)?;
        self.note_tracked(t);
        self.filter(pool, t, Table::Mangle, Hook::Output, at)?;
        self.translate(t, Hook::Output, Manip::Dst, at)?;
        let routed = self.route_out(pool, t, t.out_port, at)?;
        self.notes.note(|| Note::RoutedOut(routed));
        let Some((port, towards)) = routed else {
            return self.answer_programs(pool, t, link, at);
        };
        t.out_port = Some(port);
        self.filter(pool, t, Table::Filter, Hook::Output, at)?;
        let mtu = at.policy.port(port).mtu;
        if exceeds(t, mtu) {
            self.answer_error(pool, t, IcmpError::TooBig(mtu), at);
            return Err(DropReason::TooBig.into());
        }
        t.towards = towards;
        Ok(self.postrouting(pool, t, port, at)?)
    }

    /// Where a packet of our own leaves and towards whom; `None` if it is for ourselves. What the
    /// kernel sends to a group stays on the link that it chose.
    fn route_out(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        link: Option<PortId>,
        at: At<'_>,
    ) -> Result<Option<(PortId, Address)>, DropReason> {
        let dst = t.headers.dst;
        match (at.policy.routes.classify(dst, link.map(|p| p.0)), t.host) {
            (Destination::Forward(route), _) => {
                Ok(Some((PortId(route.port), route.via.unwrap_or(dst))))
            }
            (Destination::Local(_), _) => Ok(None),
            (Destination::Broadcast | Destination::Multicast { .. }, Some(host)) => {
                Ok(Some((host.of, dst)))
            }
            (Destination::Unreachable(way), Some(_)) => {
                self.answer_no_way(pool, t, way, at);
                Err(DropReason::NoRoute)
            }
            _ => Err(DropReason::NoRoute),
        }
    }
}

/// Where the transport part of a packet for the gateway ends, in its frame; `None` if its header
/// says more than there is, or less than a header (`tcp_v4_rcv`, `__udp4_lib_rcv`). What is behind
/// UDP's own length is nobody's.
fn transport_end<F: Frame>(t: &Transit<F>) -> Option<u32> {
    let h = &t.headers;
    let l4 = t.frame.head().get(h.l4 as usize..)?;
    let said = match h.proto {
        proto::TCP => u32::from(*l4.get(12)? >> 4) * 4,
        proto::UDP => match u16::from_be_bytes(*l4.get(4..6)?.first_chunk()?) {
            // A jumbogram's (RFC 2675).
            0 if h.is_v6() => h.l4_len(),
            length => u32::from(length),
        },
        _ => return Some(h.end),
    };
    let least = if h.proto == proto::TCP { TCP_HEADER_LEN } else { UDP_HEADER_LEN };
    if !(least..=h.l4_len()).contains(&said) {
        return None;
    }
    Some(if h.proto == proto::TCP { h.end } else { h.l4 as u32 + said })
}

/// Whether the TCP options of a packet for a closed port are such that the kernel, which looks for
/// a signature in them, answers (`tcp_parse_auth_options`): the walk through them ends well, and
/// finds no signature. Options shorter than one ([`TCP_SIGNATURE_LEN`]) are not looked at.
fn has_sound_options<F: Frame>(t: &Transit<F>) -> bool {
    let l4 = t.frame.head().get(t.headers.l4 as usize..).unwrap_or(&[]);
    let end = l4.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    let mut left = l4.get(TCP_HEADER_LEN as usize..end).unwrap_or(&[]);
    while left.len() >= TCP_SIGNATURE_LEN {
        left = match *left {
            [option::END, ..] => return true,
            [option::NO_OPERATION, ref rest @ ..] => rest,
            [kind, length, ..] if kind != option::SIGNATURE && length >= 2 => {
                match left.get(usize::from(length)..) {
                    Some(rest) => rest,
                    None => return false,
                }
            }
            _ => return false,
        };
    }
    true
}

/// TCP options that [`has_sound_options`] knows.
mod option {
    pub(super) const END: u8 = 0;
    pub(super) const NO_OPERATION: u8 = 1;
    /// RFC 2385.
    pub(super) const SIGNATURE: u8 = 19;
}

/// True if the transport checksum is right over what ends at `end`. UDP may go without one, but not
/// over IPv6 (RFC 8200, section 8.1).
fn received_whole<F: Frame>(t: &Transit<F>, end: u32) -> bool {
    let h = &t.headers;
    let check = t.frame.head().get(h.l4 as usize + 6..h.l4 as usize + 8);
    let unchecked = h.is_v6() && h.proto == proto::UDP && check == Some(&[0, 0]);
    !unchecked && checksum_ok(&t.frame, &Headers { end, ..*h })
}
