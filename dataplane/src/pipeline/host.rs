//! Packets to and from the gateway itself: INPUT and what answers there, OUTPUT for what we send.

use crate::conntrack::tuple::proto;
use crate::nat::range::Manip;
use crate::pipeline::answers::IcmpError;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::host_tap::for_programs;
use crate::pipeline::route::Destination;
use crate::pipeline::track::checksum_ok;
use crate::pipeline::transit::{Attached, Attachment, Exit, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::wire::address::Address;
use crate::wire::build::echo;
use crate::wire::ethernet::Mac;
use crate::wire::headers;

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
        self.help(t, at)?;
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
        if !received_whole(t) {
            return Err(DropReason::TransportChecksum);
        }
        match h.proto {
            proto::ICMP | proto::ICMPV6 if self.echo(t, at) => return Ok(Exit::Answer),
            proto::ICMP => {}
            proto::ICMPV6 => return self.neighbour_message(pool, t, at),
            proto::TCP => self.answer_reset(pool, t, None, at),
            proto::UDP => self.answer_error(pool, t, IcmpError::PortUnreachable, at),
            _ => self.answer_error(pool, t, IcmpError::ProtocolUnreachable, at),
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
        let Ok(headers) = headers::parse(frame.head(), frame.total_len()) else {
            return self.drop_frame(frame, DropReason::IpTotalLength);
        };
        let mut t = Transit::new(frame, headers, None);
        t.attached = lent.map_or(Attached::Nothing, Attached::Conn);
        let exit = self.local_out(pool, &mut t, link, at).unwrap_or_else(|end| end);
        self.finish(pool, t, exit, at);
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
        self.filter(pool, t, Table::Mangle, Hook::Output, at)?;
        self.translate(t, Hook::Output, Manip::Dst, at)?;
        let Some((port, towards)) = self.route_out(pool, t, t.out_port, at)? else {
            return self.answer_programs(pool, t, link, at);
        };
        t.out_port = Some(port);
        self.filter(pool, t, Table::Filter, Hook::Output, at)?;
        let mtu = at.policy.port(port).mtu;
        if t.headers.ip_len() > mtu {
            if t.headers.dont_fragment || t.is_v6() {
                self.answer_error(pool, t, IcmpError::TooBig(mtu), at);
            }
            return Err(DropReason::TooBig.into());
        }
        Ok(self.postrouting(pool, t, towards, port, at)?)
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

/// True if the transport checksum is right. UDP may go without one, but not over IPv6 (RFC 8200,
/// section 8.1).
fn received_whole<F: Frame>(t: &Transit<F>) -> bool {
    let h = &t.headers;
    let check = t.frame.head().get(h.l4 as usize + 6..h.l4 as usize + 8);
    let unchecked = h.is_v6() && h.proto == proto::UDP && check == Some(&[0, 0]);
    !unchecked && checksum_ok(&t.frame, h)
}
