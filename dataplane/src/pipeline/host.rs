//! Packets to and from the gateway itself: INPUT and what answers there, OUTPUT for what we send.

use crate::nat::range::Manip;
use crate::pipeline::answers::IcmpError;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::route::Destination;
use crate::pipeline::transit::{Attached, Attachment, Exit, Transit};
use crate::pipeline::{At, Pipeline};
use crate::conntrack::tuple::proto;
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::wire::address::Address;
use crate::wire::{build, headers};

/// ICMP and ICMPv6 types that the gateway answers or learns from.
mod kind {
    pub(super) const ECHO_REQUEST: u8 = 8;
    pub(super) const V6_ECHO_REQUEST: u8 = 128;
}

impl<P: FramePool> Pipeline<P> {
    /// INPUT for a packet to one of our addresses, then whoever answers.
    pub(crate) fn input(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        self.local_in(pool, t, at)?;
        self.deliver_local(pool, t, at)
    }

    /// The same for broadcast and for the multicast groups we are in.
    pub(crate) fn input_group(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        self.local_in(pool, t, at)?;
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
        self.confirm(t, at)
    }

    /// What a host without any listening program does.
    fn deliver_local(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        let h = t.headers;
        match h.proto {
            proto::ICMP => {
                if h.icmp_type == kind::ECHO_REQUEST && !h.l4_truncated {
                    self.echo(pool, t, at);
                }
            }
            proto::ICMPV6 if h.icmp_type == kind::V6_ECHO_REQUEST && !h.l4_truncated => {
                self.echo(pool, t, at);
            }
            proto::ICMPV6 => return self.neighbour_message(pool, t, at),
            proto::TCP => self.answer_reset(pool, t, None, at),
            proto::UDP => self.answer_error(pool, t, IcmpError::PortUnreachable, at),
            _ => self.answer_error(pool, t, IcmpError::ProtocolUnreachable, at),
        }
        Ok(Exit::ToHost)
    }

    /// Answers a ping from the address that was pinged (from our own where it was a group).
    fn echo(&mut self, pool: &mut P, t: &Transit<P::Frame>, at: At<'_>) {
        let h = &t.headers;
        let whole = h.end as usize - h.l3 as usize;
        let Some(mut frame) = self.generate(pool, 14 + whole) else { return };
        let source = match at.policy.routes.classify(h.dst, t.in_port.map(|p| p.0)) {
            Destination::Local(_) => Some(h.dst),
            _ => t.in_port.and_then(|port| at.policy.port(port).source_for(h.src)),
        };
        let Some(source) = source else { return self.drop_frame(frame, DropReason::NoRoute) };
        gather(&t.frame, h.l3 as usize, &mut frame.head_mut()[14..]);
        let id = self.next_ip_id();
        match build::echo_reply(frame.head_mut(), 14, source, h.src, id) {
            Some(()) => self.originate(pool, frame, None, at),
            None => self.drop_frame(frame, DropReason::NoMbuf),
        }
    }

    /// Sends a packet of our own through OUTPUT and POSTROUTING. `lent` is the conn of the packet
    /// that this one answers, where netfilter attaches it (`nf_ct_attach`).
    pub(crate) fn originate(
        &mut self,
        pool: &mut P,
        frame: P::Frame,
        lent: Option<Attachment>,
        at: At<'_>,
    ) {
        let Ok(headers) = headers::parse(frame.head(), frame.total_len()) else {
            return self.drop_frame(frame, DropReason::IpTotalLength);
        };
        let mut t = Transit::new(frame, headers, None);
        t.attached = lent.map_or(Attached::Nothing, Attached::Conn);
        let exit = self.local_out(pool, &mut t, at).unwrap_or_else(Exit::Drop);
        self.finish(pool, t, exit, at);
    }

    fn local_out(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        let first = self.route_out(t, at)?;
        t.out_port = Some(first.0);
        self.filter(pool, t, Table::Raw, Hook::Output, at)?;
        self.track(t, at)?;
        self.filter(pool, t, Table::Mangle, Hook::Output, at)?;
        self.translate(t, Hook::Output, Manip::Dst, at)?;
        let (port, towards) = self.route_out(t, at)?;
        t.out_port = Some(port);
        self.filter(pool, t, Table::Filter, Hook::Output, at)?;
        self.postrouting(pool, t, towards, port, at)
    }

    fn route_out(
        &self,
        t: &Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<(PortId, Address), DropReason> {
        match at.policy.routes.classify(t.headers.dst, t.out_port.map(|p| p.0)) {
            Destination::Forward(route) => {
                Ok((PortId(route.port), route.via.unwrap_or(t.headers.dst)))
            }
            Destination::Local(_) => Err(DropReason::NotAccepted),
            _ => Err(DropReason::NoRoute),
        }
    }
}

/// Copies a frame's bytes from `from` on into `to`, across segments.
fn gather<F: Frame>(frame: &F, from: usize, to: &mut [u8]) {
    let mut left = to;
    let mut skip = from;
    for segment in frame.segments() {
        let Some(rest) = segment.get(skip..) else {
            skip -= segment.len();
            continue;
        };
        skip = 0;
        let n = rest.len().min(left.len());
        left[..n].copy_from_slice(&rest[..n]);
        left = &mut left[n..];
    }
}
