//! The long way of a received packet: PREROUTING, route, FORWARD, POSTROUTING.
//!
//! The order is Linux's. A stage either lets the packet go on or says why it ends; whatever was
//! allocated for it on the way is settled in one place, [`Pipeline::finish`].

use crate::conntrack::state::CtState;
use crate::nat::range::Manip;
use crate::pipeline::answers::IcmpError;
use crate::pipeline::burst::{forward_one_hop, is_plain};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::handoff::{Handed, Stage};
use crate::pipeline::helpers::helper_of;
use crate::pipeline::host_tap::{for_dhcp_client, group_for_host};
use crate::pipeline::lean::key_of;
use crate::pipeline::neighbour::{NextHop, Resolved};
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::paths::{PathEnd, Route as PathRoute};
use crate::pipeline::pieces::{Towards, exceeds, leaves_in_pieces};
use crate::pipeline::route::{Destination, Martian, NoWay, Route};
use crate::pipeline::transit::{Attached, Exit, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::wire::vlan;

impl<P: FramePool> Pipeline<P> {
    /// Takes a received IP packet through the hooks to its end.
    pub(crate) fn walk_received(&mut self, pool: &mut P, mut t: Transit<P::Frame>, at: At<'_>) {
        self.links.counters.walked.add(1);
        take_off_tag(&mut t);
        self.note_beginning(&t);
        let exit = match for_dhcp_client(&t, at) {
            Some(exit) => exit,
            None => self.received(pool, &mut t, at).unwrap_or_else(|end| end),
        };
        match exit {
            // As nearly all do. What is known of them is not copied once more for that.
            Exit::Transmit(port) if !leaves_in_pieces(&t, at.policy.port(port).mtu) => {
                self.note_end(&t, &exit);
                self.settle_conn(&t, Some(true), at);
                let resolved = self.depart(&mut t, port, at);
                self.transmit(pool, t.frame, (port, t.towards), resolved, at);
            }
            exit => self.finish(pool, t, exit, at),
        }
    }

    fn received(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<Exit, Exit> {
        self.raw(pool, t, Hook::Prerouting, at)?;
        self.track(t, at)?;
        self.note_tracked(t);
        self.filter(pool, t, Table::Mangle, Hook::Prerouting, at)?;
        self.translate(t, Hook::Prerouting, Manip::Dst, at)?;
        let Some(in_port) = t.in_port else { return Err(DropReason::NoRoute.into()) };
        let judged = at.policy.routes.judge(t.headers.src, t.headers.dst, in_port.0);
        self.notes.note(|| Note::Routed(judged));
        match judged {
            Ok(Destination::Forward(route)) => Ok(self.forward(pool, t, route, at)?),
            judged => self.not_forwarded(pool, t, judged, at),
        }
    }

    /// What arrives and is not for another host.
    #[inline(never)]
    fn not_forwarded(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        judged: Result<Destination, Martian>,
        at: At<'_>,
    ) -> Result<Exit, Exit> {
        Ok(match self.route_in(pool, t, judged, at)? {
            Destination::Local(_) => self.input(pool, t, at)?,
            Destination::Broadcast | Destination::Multicast { .. } => {
                self.input_group(pool, t, at)?
            }
            Destination::Forward(route) => self.forward(pool, t, route, at)?,
            Destination::Unreachable(_) => return Err(DropReason::NoRoute.into()),
        })
    }

    /// The raw table, unless the packet passed it on another lcore.
    pub(crate) fn raw(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        hook: Hook,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        if t.past_raw {
            // What it hit there is counted there: no path can hold all of its hits.
            t.cacheable = false;
            return Ok(());
        }
        self.filter(pool, t, Table::Raw, hook, at)
    }

    /// `ip_route_input`: where a received packet goes, martians and groups not joined sorted out.
    fn route_in(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        judged: Result<Destination, Martian>,
        at: At<'_>,
    ) -> Result<Destination, DropReason> {
        let Some(in_port) = t.in_port else { return Err(DropReason::NoRoute) };
        match judged {
            Ok(Destination::Multicast { joined: false }) => group_for_host(t, in_port, at),
            Ok(Destination::Unreachable(way)) => {
                self.answer_no_way(pool, t, way, at);
                Err(DropReason::NoRoute)
            }
            Ok(destination) => Ok(destination),
            Err(Martian::DestinationZero | Martian::DestinationLoopback) => {
                Err(DropReason::MartianDestination)
            }
            Err(Martian::SourceLinkLocal) => {
                self.answer_error(pool, t, IcmpError::BeyondScope, at);
                Err(DropReason::NotForwarded)
            }
            Err(Martian::SourceUnspecified) => Err(DropReason::NotForwarded),
            Err(_) => Err(DropReason::MartianSource),
        }
    }

    /// Says that no way leads on, as the route that ends here asks.
    pub(crate) fn answer_no_way(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        way: NoWay,
        at: At<'_>,
    ) {
        let error = match way {
            NoWay::Blackhole => return,
            NoWay::NoRoute => IcmpError::NoRoute,
            NoWay::Unreachable => IcmpError::HostUnreachable,
            NoWay::Prohibit => IcmpError::Prohibited,
        };
        self.answer_error(pool, t, error, at);
    }

    /// `ip_forward`, then POSTROUTING.
    fn forward(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        route: Route,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        if !t.addressed {
            return Err(DropReason::NotForwarded);
        }
        if t.headers.ttl <= 1 {
            self.answer_error(pool, t, IcmpError::TimeExceeded, at);
            return Err(DropReason::TtlExceeded);
        }
        let out_port = PortId(route.port);
        let mtu = at.policy.port(out_port).mtu;
        if exceeds(t, mtu) {
            self.answer_error(pool, t, IcmpError::TooBig(mtu), at);
            return Err(DropReason::TooBig);
        }
        decrement_ttl(t);
        t.out_port = Some(out_port);
        self.filter(pool, t, Table::Mangle, Hook::Forward, at)?;
        self.filter(pool, t, Table::Filter, Hook::Forward, at)?;
        t.towards = route.via.unwrap_or(t.headers.dst);
        self.postrouting(pool, t, out_port, at)
    }

    /// The last hooks before the wire; the conn is confirmed here.
    pub(crate) fn postrouting(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        port: PortId,
        at: At<'_>,
    ) -> Result<Exit, DropReason> {
        self.filter(pool, t, Table::Mangle, Hook::Postrouting, at)?;
        self.translate(t, Hook::Postrouting, Manip::Src, at)?;
        self.touch_last(pool, t, at)?;
        self.confirm(t, at)?;
        Ok(Exit::Transmit(port))
    }

    /// Finds the next hop of a packet that is ready to leave, and remembers its path.
    #[inline(always)]
    fn depart(&mut self, t: &mut Transit<P::Frame>, port: PortId, at: At<'_>) -> Resolved {
        t.frame.truncate(t.headers.end as usize);
        let resolved = self.resolve(port, t.towards, at);
        if let Resolved::Known(next_hop, _) = resolved {
            self.remember_path(t, PathEnd::Forward(port), Some(next_hop), at);
        }
        resolved
    }

    /// Settles what the packet leaves behind, then sends, delivers or frees it.
    pub(crate) fn finish(
        &mut self,
        pool: &mut P,
        mut t: Transit<P::Frame>,
        exit: Exit,
        at: At<'_>,
    ) {
        self.note_end(&t, &exit);
        self.settle_conn(&t, exit.passed(), at);
        match exit {
            Exit::Transmit(port) => {
                let (resolved, towards) = (self.depart(&mut t, port, at), t.towards);
                if leaves_in_pieces(&t, at.policy.port(port).mtu) {
                    let towards = Towards::NextHop(towards, resolved);
                    return self.send_pieces(pool, t, port, towards, at);
                }
                self.transmit(pool, t.frame, (port, towards), resolved, at);
            }
            Exit::Framed(port) => {
                t.frame.truncate(t.headers.end as usize);
                if t.datagram.is_some() && leaves_in_pieces(&t, at.policy.port(port).mtu) {
                    return self.send_pieces(pool, t, port, Towards::AsFramed, at);
                }
                self.put_out(port, t.frame);
            }
            Exit::ToHost => self.links.counters.to_host.add(1),
            Exit::Answer => {
                self.links.counters.to_host.add(1);
                self.links.counters.generated.add(1);
                t.frame.truncate(t.headers.end as usize);
                self.originate(pool, t.frame, None, t.in_port, at);
            }
            Exit::Drop(reason) => {
                if matches!(reason, DropReason::MangleDrop | DropReason::FilterDrop) {
                    self.remember_path(&t, PathEnd::Drop(reason, t.out_port), None, at);
                }
                self.drop_frame(t.frame, reason);
            }
            Exit::Elsewhere(lcore) => {
                let came_by = t.in_port.or(t.host.map(|h| h.tap));
                let stage = if came_by.is_some() { Stage::PastRaw } else { Stage::Own };
                let Some(port) = came_by.or(t.out_port) else {
                    return self.drop_frame(t.frame, DropReason::Handoff);
                };
                let (frame, hops) = (t.frame, at.hops + 1);
                let (mark, traced) = (t.mark, t.traced);
                let (template, datagram) = (t.template, t.datagram);
                let handed = Handed { frame, port, stage, hops, mark, traced, template, datagram };
                self.hand_over(lcore, handed);
            }
        }
    }

    /// What becomes of a conn that its packet has not confirmed, or has ended; whether that
    /// `passed`, if rules have said so.
    fn settle_conn(&mut self, t: &Transit<P::Frame>, passed: Option<bool>, at: At<'_>) {
        let Attached::Conn(a) = &t.attached else { return };
        if a.lent {
            // Its owner settles it.
        } else if a.fresh {
            self.release(a.conn, at);
        } else if a.delete {
            self.delete_conn(a.conn, at);
        } else if (a.events != 0 || !a.first)
            && let Some(conn) = at.table.records.get(a.conn)
        {
            if a.events != 0 {
                // It was not confirmed.
                self.settle_events(a.events, conn, false, at);
            }
            if let Some(passed) = passed.filter(|_| !a.first && !a.error) {
                conn.set_passed(a.direction, passed);
            }
        }
    }

    /// Lets the next packet of this conn, direction and state take the short way.
    fn remember_path(
        &mut self,
        t: &Transit<P::Frame>,
        end: PathEnd,
        next_hop: Option<NextHop>,
        at: At<'_>,
    ) {
        let (Some(in_port), true) = (t.in_port, t.cacheable) else { return };
        let Attached::Conn(a) = t.attached else {
            return self.remember_untracked(t, in_port, end, next_hop, at);
        };
        // The first packet walked the nat table, which the next one does not.
        if a.error || a.first || a.delete {
            return;
        }
        // A helper wants to see every packet.
        if at.table.records.get(a.conn).is_none_or(|conn| helper_of(conn, at).is_some()) {
            return;
        }
        let route = PathRoute { v6: t.is_v6(), in_port, state: a.state, end, hits: t.hits.clone() };
        let Some(number) = self.paths.intern(&route) else { return };
        let Some(conn) = at.table.records.get(a.conn) else { return };
        if conn.generation() != self.generation {
            conn.set_generation(self.generation);
        }
        conn.set_path(a.direction, number);
        conn.set_next_hop(a.direction, next_hop.map_or(0, |n| n.0));
    }
}

/// A priority tag (VLAN 0) belongs to the link that the frame came by, not to the next one.
pub(crate) fn take_off_tag<F: Frame>(t: &mut Transit<F>) {
    const TAG: usize = vlan::TAG_LEN;
    let Some(macs) = t.headers.vlan.and_then(|_| t.frame.head_mut().get_mut(..12 + TAG)) else {
        return;
    };
    macs.copy_within(..12, TAG);
    if t.frame.strip_front(TAG) {
        let h = &mut t.headers;
        h.vlan = None;
        h.l3 -= TAG as u16;
        h.l4 -= TAG as u16;
        h.end -= TAG as u32;
    }
}

impl<P: FramePool> Pipeline<P> {
    /// The same for a packet that a rule marked NOTRACK and that no hook has changed.
    fn remember_untracked(
        &mut self,
        t: &Transit<P::Frame>,
        in_port: PortId,
        end: PathEnd,
        next_hop: Option<NextHop>,
        at: At<'_>,
    ) {
        let (h, untracked) = (&t.headers, matches!(t.attached, Attached::Untracked));
        let key = key_of(h).filter(|_| untracked && is_plain(h));
        let (Some(key), Some(next_hop)) = (key, next_hop) else { return };
        let (state, hits) = (CtState::Untracked, t.hits.clone());
        let route = PathRoute { v6: false, in_port, state, end, hits };
        let Some(number) = self.paths.intern(&route) else { return };
        let generation = self.generation;
        let Some(zones) = at.policy.zones(false, Some(in_port)) else { return };
        let hash = key.hash(&at.table.seed.keys(key.proto, zones.original));
        self.untracked.remember(key, hash, in_port, generation, (number, next_hop));
    }
}

/// One hop less to live, in the packet and in what is known of it.
fn decrement_ttl<F: Frame>(t: &mut Transit<F>) {
    forward_one_hop(t.frame.head_mut(), &t.headers);
    t.headers.ttl -= 1;
}
