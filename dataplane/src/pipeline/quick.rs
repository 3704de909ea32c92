//! The quick way: stage 4 for TCP and UDP packets over plain IPv4 whose conn is as nearly all are.
//!
//! One look at the record tells whether it is ([`Conn::glance`]). What its path asks for is looked
//! up once and kept for the packets that follow on the same path ([`Known`]), as nearly all of a
//! burst do; they are counted together. Whatever is not so simple is refused here before anything
//! has been changed, and takes the lean or the general way, with the same result.

use crate::conntrack::record::{Conn, Glance, Wanted};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::timeouts::Timeout;
use crate::conntrack::tuple::proto;
use crate::conntrack::zones::Zones;
use crate::nat::rewrite::{self, Deltas};
use crate::pipeline::burst::{Prejudged, Way};
use crate::pipeline::frame::{Burst, Frame, FramePool};
use crate::pipeline::lean::Lean;
use crate::pipeline::neighbour::NextHop;
use crate::pipeline::track::{Judged, ct_state};
use crate::pipeline::{Arrival, At, Pipeline};
use crate::rules::facts::PortId;
use crate::time::Tick;
use crate::wire::tcp::flags;

/// What is the same for all packets of a burst.
pub(crate) struct Quick {
    pub zones: Zones,
    port: PortId,
    wanted: Wanted,
    /// The deadlines of UDP conns: unanswered, and as streams.
    udp: [Tick; 2],
}

/// The path of the last packet that went this way.
#[derive(Debug)]
pub(crate) struct Known {
    /// Path, next hop and state in one word; none has all bits.
    way: u64,
    path: u16,
    pub out: PortId,
    mtu: u32,
    macs: [[u8; 6]; 2],
    /// Not counted yet.
    packets: u64,
    bytes: u64,
}

impl Default for Known {
    fn default() -> Known {
        let (out, macs) = (PortId(0), [[0; 6]; 2]);
        Known { way: u64::MAX, path: 0, out, mtu: 0, macs, packets: 0, bytes: 0 }
    }
}

/// How the quick way ended.
pub(crate) enum Quickly {
    /// The frame is ready to leave by the known path's port.
    Sent,
    /// It has to walk, with what its tracker said.
    Judged(Prejudged),
    /// Nothing was done: it is to take another way.
    Not,
}

impl<P: FramePool> Pipeline<P> {
    /// What a burst's quick packets have in common; `None` if none may be quick: in the table raw
    /// it is decided where to search, packets have to wait, or some are not tracked at all.
    pub(crate) fn quick(
        &self,
        arrival: Arrival,
        zones: Option<Zones>,
        at: At<'_>,
    ) -> Option<Quick> {
        let zones = zones.filter(|zones| !zones.is_split())?;
        if arrival.past_raw || self.crowded || self.untracked.is_used(self.generation) {
            return None;
        }
        let (now, timeouts) = (at.now.tick, &at.policy.knobs.timeouts);
        let wanted = Wanted::new(zones.original, self.generation, self.place.lcore(), now);
        let udp = [Timeout::Udp, Timeout::UdpStream].map(|t| now.plus_secs(timeouts.get(t)));
        Some(Quick { zones, port: arrival.port, wanted, udp })
    }

    /// Edits a packet of `conn` as its path asks for, if there is nothing else to do about it.
    /// `gone` are those before it, which leave by the known path's port.
    #[inline(always)]
    pub(crate) fn quick_way(
        &mut self,
        (frame, lean): (&mut P::Frame, &Lean),
        conn: Conn<'_>,
        quick: &Quick,
        (known, gone): (&mut Known, &mut Burst<P::Frame>),
        at: At<'_>,
    ) -> Quickly {
        const WALKS: u8 = flags::SYN | flags::FIN | flags::RST;
        let Some(seen) = conn.glance(&lean.key, &quick.wanted) else { return Quickly::Not };
        let Glance { direction, status, path, next_hop } = seen;
        let state = ct_state(status, direction);
        let way = (state as u64) << 32 | (next_hop as u64) << 16 | path as u64;
        if way != known.way && !self.get_to_know(known, gone, (way, state), quick, at) {
            return Quickly::Not;
        }
        if lean.ttl <= 1 || lean.ip_len() > known.mtu || lean.tcp_flags & WALKS != 0 {
            return Quickly::Not;
        }
        if lean.key.proto == proto::UDP {
            if !refresh_udp(conn, &seen, &quick.udp) {
                return Quickly::Not;
            }
        } else if let Some(prejudged) = self.judge_quickly(frame, lean, conn, direction, at) {
            return Quickly::Judged(prejudged);
        }
        known.packets += 1;
        known.bytes += lean.ip_len() as u64;
        let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
        let to = translated.then(|| {
            let (l3, l4) = conn.deltas(direction);
            (conn.leaving_v4(direction), Deltas { l3, l4 })
        });
        if lean.padded {
            frame.truncate(lean.end as usize);
        }
        rewrite::forward_lean(frame.head_mut(), &known.macs, lean.key.proto, to);
        Quickly::Sent
    }

    /// Looks a path up; false, and nothing is known any more, where it does not lead out of a port.
    #[inline(never)]
    fn get_to_know(
        &mut self,
        known: &mut Known,
        gone: &mut Burst<P::Frame>,
        (way, state): (u64, CtState),
        quick: &Quick,
        at: At<'_>,
    ) -> bool {
        self.put_all_out(known.out, gone);
        self.settle_known(known);
        *known = Known::default();
        let (path, next_hop) = (way as u16, NextHop((way >> 16) as u16));
        // TTL and size are each packet's own.
        let found = self.way(quick.port, path, state, next_hop, (u8::MAX, 0), at);
        let Some(Way::Out { port, macs }) = found else { return false };
        let mtu = at.policy.port(port).mtu;
        *known = Known { way, path, out: port, mtu, macs, packets: 0, bytes: 0 };
        true
    }

    /// Counts the packets of a known path.
    pub(crate) fn settle_known(&mut self, known: &Known) {
        if known.packets > 0 {
            self.paths.count(known.path, known.packets, known.bytes);
            self.took_path += known.packets;
        }
    }

    /// Lets the tracker judge a TCP packet; what it said if that is the reason to walk.
    #[inline(always)]
    fn judge_quickly(
        &mut self,
        frame: &P::Frame,
        lean: &Lean,
        conn: Conn<'_>,
        direction: Direction,
        at: At<'_>,
    ) -> Option<Prejudged> {
        let judged = self.judge(frame, lean.extent(), conn, direction, at);
        let Judged::Accepted(accepted) = judged else {
            return Some(Prejudged { conn: conn.number(), direction, judged });
        };
        if accepted.events != 0 {
            self.settle_events(accepted.events, conn, true, at);
        }
        None
    }
}

/// What the tracker of UDP does about a packet ([`crate::conntrack::udp::packet`]) that changes
/// nothing but the deadline; false, and nothing is done, for any other.
#[inline(always)]
fn refresh_udp(conn: Conn<'_>, seen: &Glance, deadlines: &[Tick; 2]) -> bool {
    const BOTH: u16 = Status::SEEN_REPLY.0 | Status::ASSURED.0;
    let deadline = match (seen.status.0 & BOTH, seen.direction) {
        (0, Direction::Original) => deadlines[0],
        (BOTH, _) => deadlines[1],
        // The first answer, one that may be a stream now, and what only a tool can make.
        _ => return false,
    };
    let ahead = deadline.0.wrapping_sub(conn.deadline().0) as i32;
    if ahead > 0 {
        conn.set_deadline(deadline);
    }
    // A deadline that comes closer is told to the sweep.
    ahead >= 0
}
