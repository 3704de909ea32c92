//! The quick way: stage 4 for packets of TCP and UDP over plain IPv4 or IPv6 whose conn is as
//! nearly all are.
//!
//! One look at the record tells whether it is ([`Conn::glance`]). What its path asks for is looked
//! up once and kept for the packets that follow on the same path, as nearly all of a burst do; they
//! are counted together. Whatever is not so simple is refused here before anything has been
//! changed, and takes the lean or the general way, with the same result.

use crate::conntrack::record::{Conn, Glance, LeavingV4, Wanted};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tcp::{Patience, Segment, TcpTrack};
use crate::conntrack::timeouts::Timeout;
use crate::conntrack::tuple::proto;
use crate::conntrack::udp;
use crate::conntrack::zones::Zones;
use crate::nat::rewrite;
use crate::pipeline::burst::Prejudged;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::lean::{self, Lean};
use crate::pipeline::lean6;
use crate::pipeline::neighbour::NextHop;
use crate::pipeline::paths::PathEnd;
use crate::pipeline::track::{Judged, ct_state, stream_after};
use crate::pipeline::walking::Walking;
use crate::pipeline::{Arrival, At, Pipeline};
use crate::rules::facts::PortId;
use crate::time::Tick;

/// What the quick packets of a burst have in common, and what the last of them made known.
pub(crate) struct Quick {
    /// By family, as is the next.
    zones: [Zones; 2],
    wanted: [Wanted; 2],
    port: PortId,
    /// The deadlines of UDP conns: unanswered, and as streams.
    udp: [Tick; 2],
    tcp: Patience,
    known: Known,
    /// Of the packet behind the last run what its tracker said, if that has been asked.
    judged: Option<Prejudged>,
}

/// The path of the last packet that went this way.
struct Known {
    /// Number, direction and status as far as the path depends on them; none has all bits.
    key: u64,
    number: u16,
    /// None has all bits.
    next_hop: u32,
    out: PortId,
    mtu: u32,
    /// Of the next hop, and ours.
    macs: [u8; 12],
    /// What UDP's tracker ([`udp::packet`]) makes of its packets' deadline; none where that depends
    /// on the conn's age, or it does more than that.
    deadline: Option<Tick>,
    /// Of the frames that are ready, how many were so before; those since are not counted yet.
    counted: usize,
    bytes: u64,
}

impl Known {
    const NOTHING: Known = Known {
        key: u64::MAX,
        number: 0,
        next_hop: u32::MAX,
        out: PortId(0),
        mtu: 0,
        macs: [0; 12],
        deadline: None,
        counted: 0,
        bytes: 0,
    };
}

impl Quick {
    /// Where the packets of the last run leave.
    #[inline]
    pub(crate) fn out(&self) -> PortId {
        self.known.out
    }

    /// What the tracker said of the packet behind the last run, if that is why it has to walk.
    #[inline]
    pub(crate) fn judged(&mut self) -> Option<Prejudged> {
        self.judged.take()
    }
}

/// In the key of a path: of packets that no conn carries.
const UNTRACKED: u64 = 1 << 32;

/// What the stages before have found of a burst's frames.
pub(crate) struct Described<'a> {
    pub lean: &'a [Lean],
    pub candidates: &'a [Option<Conn<'a>>],
    /// Path and next hop of those that no conn carries, 0 for the others, if there may be any.
    pub untracked: &'a [(u16, u16)],
}

/// The status of conns that trackers have no more to say about.
const BOTH: u16 = Status::SEEN_REPLY.0 | Status::ASSURED.0;

impl<P: FramePool> Pipeline<P> {
    /// For a burst; `None` if none of it may be quick: in the table raw it is decided where to
    /// search, or packets have to wait.
    pub(crate) fn quick(
        &self,
        arrival: Arrival,
        zones: [Option<Zones>; 2],
        at: At<'_>,
    ) -> Option<Quick> {
        let zones = zones.map(|zones| zones.filter(|zones| !zones.is_split()));
        if arrival.past_raw || self.crowded || zones == [None, None] {
            return None;
        }
        let (now, timeouts) = (at.now.tick, &at.policy.knobs.timeouts);
        let wanted = zones.map(|zones| match zones {
            Some(Zones { original, .. }) => {
                Wanted::new(original, self.generation, self.place.lcore(), now)
            }
            None => Wanted::NONE,
        });
        let zones = zones.map(Option::unwrap_or_default);
        let udp = [Timeout::Udp, Timeout::UdpStream].map(|t| now.plus_secs(timeouts.get(t)));
        let tcp = Patience::new(&at.policy.knobs, now);
        Some(Quick {
            zones,
            port: arrival.port,
            wanted,
            udp,
            tcp,
            known: Known::NOTHING,
            judged: None,
        })
    }

    /// Makes the first packets of a burst ready to leave by [`Quick::out`], and says how many.
    /// `long` are those before that have to walk.
    #[inline(never)]
    pub(crate) fn quick_way<const UNTRACKED: bool>(
        &mut self,
        frames: &mut [P::Frame],
        described: &Described<'_>,
        long: &Walking<P::Frame>,
        quick: &mut Quick,
        at: At<'_>,
    ) -> usize {
        let Described { lean, candidates, untracked } = *described;
        let mut ready = 0;
        for (frame, (lean, candidate)) in frames.iter_mut().zip(lean.iter().zip(candidates)) {
            let way = if UNTRACKED { untracked.get(ready) } else { None };
            if let Some(way) = way.filter(|way| way.0 != 0) {
                if !self.quickly_untracked(frame, lean, *way, ready, quick, at) {
                    break;
                }
                ready += 1;
                continue;
            }
            let Some(conn) = candidate else { break };
            // Where some are untracked, checksums have not been looked at yet.
            if UNTRACKED && at.policy.knobs.checksum && !lean.is_sound(frame)
                || long.has_one_of(*conn, quick.zones[lean.is_v6() as usize])
            {
                break;
            }
            let is_ready = match (lean.is_v6(), lean.key.proto) {
                (false, proto::UDP) => {
                    self.quickly::<false, true>(frame, lean, conn, ready, quick, at)
                }
                (false, _) => {
                    self.quickly_apart::<false, false>(frame, lean, conn, ready, quick, at)
                }
                (true, proto::UDP) => {
                    self.quickly_apart::<true, true>(frame, lean, conn, ready, quick, at)
                }
                (true, _) => self.quickly_apart::<true, false>(frame, lean, conn, ready, quick, at),
            };
            if !is_ready {
                break;
            }
            ready += 1;
        }
        self.count_quick(quick, ready);
        quick.known.counted = 0;
        ready
    }

    /// Apart from the loop, as what all of them need at once is more than there are registers.
    #[inline(never)]
    fn quickly_apart<const V6: bool, const UDP: bool>(
        &mut self,
        frame: &mut P::Frame,
        lean: &Lean,
        conn: &Conn<'_>,
        ready: usize,
        quick: &mut Quick,
        at: At<'_>,
    ) -> bool {
        self.quickly::<V6, UDP>(frame, lean, conn, ready, quick, at)
    }

    /// Makes a packet of `conn` ready to leave. If some are `ready` already it has to leave by the
    /// same port.
    #[inline(always)]
    fn quickly<const V6: bool, const UDP: bool>(
        &mut self,
        frame: &mut P::Frame,
        lean: &Lean,
        conn: &Conn<'_>,
        ready: usize,
        quick: &mut Quick,
        at: At<'_>,
    ) -> bool {
        const PATHS: u16 = Status::SEEN_REPLY.0 | Status::EXPECTED.0 | Status::ASSURED.0;
        let conn = *conn;
        let nearer = if V6 { conn.nearer_v6(&lean.key_v6(frame)) } else { conn.nearer(&lean.key) };
        let proto = if UDP { proto::UDP } else { proto::TCP };
        let Some(seen) = conn.glance(nearer, proto, &quick.wanted[V6 as usize]) else {
            return false;
        };
        let (direction, status) = (seen.direction, seen.status);
        let of_status = (status.0 & PATHS) as u64;
        let key = (of_status << 1 | direction.index() as u64) << 16 | seen.path as u64;
        if key != quick.known.key && !self.get_to_know(quick, key, status, ready, at)
            || seen.next_hop as u32 != quick.known.next_hop
                && !self.towards(seen.next_hop, &mut quick.known)
        {
            return false;
        }
        let size = lean.ip_len as u32;
        if lean.life <= 1 || size > quick.known.mtu {
            return false;
        }
        if UDP {
            let deadline = match quick.known.deadline {
                Some(deadline) => deadline,
                None => match young_deadline(conn, status, &quick.udp, at) {
                    Some(deadline) => deadline,
                    None => return false,
                },
            };
            if !put_off(conn, &seen, deadline) {
                return false;
            }
        } else if !self.refresh_tcp::<V6>(frame, lean, conn, &seen, &quick.tcp, at)
            && let Some(prejudged) = self.judge_quickly(frame, lean, conn, direction, at)
        {
            quick.judged = Some(prejudged);
            return false;
        }
        quick.known.bytes += size as u64;
        if frame.total_len() > lean.end() {
            frame.truncate(lean.end());
        }
        let translated = status.0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
        let (head, macs) = (frame.head_mut(), &quick.known.macs);
        if V6 {
            let to = translated.then_some(|| conn.leaving_v6(direction));
            rewrite::forward_lean_v6(head, macs, UDP, to);
        } else {
            let to = translated.then_some(|| conn.leaving_v4(direction));
            rewrite::forward_lean(head, macs, UDP, to);
        }
        true
    }

    /// The same for a packet that no conn carries.
    #[inline]
    fn quickly_untracked(
        &mut self,
        frame: &mut P::Frame,
        lean: &Lean,
        (path, next_hop): (u16, u16),
        ready: usize,
        quick: &mut Quick,
        at: At<'_>,
    ) -> bool {
        let key = UNTRACKED | path as u64;
        if key != quick.known.key && !self.get_to_know(quick, key, Status(0), ready, at)
            || next_hop as u32 != quick.known.next_hop && !self.towards(next_hop, &mut quick.known)
            || lean.life <= 1
            || lean.ip_len as u32 > quick.known.mtu
        {
            return false;
        }
        quick.known.bytes += lean.ip_len as u64;
        if frame.total_len() > lean.end() {
            frame.truncate(lean.end());
        }
        let udp = lean.key.proto == proto::UDP;
        rewrite::forward_lean(frame.head_mut(), &quick.known.macs, udp, None::<fn() -> LeavingV4>);
        true
    }

    /// Looks a path up. False, and what was known still is, where it does not lead out of a port,
    /// or where frames that are `ready` are to leave by another one.
    #[inline(never)]
    fn get_to_know(
        &mut self,
        quick: &mut Quick,
        key: u64,
        status: Status,
        ready: usize,
        at: At<'_>,
    ) -> bool {
        let number = key as u16;
        let reply = key >> 16 & 1 == 1;
        let direction = if reply { Direction::Reply } else { Direction::Original };
        let tracked = key & UNTRACKED == 0;
        let state = if tracked { ct_state(status, direction) } else { CtState::Untracked };
        let path = self.paths.route(number);
        let path = path.filter(|path| path.in_port == quick.port && path.state == state);
        let Some(PathEnd::Forward(out)) = path.map(|path| path.end) else { return false };
        if ready > 0 && out != quick.known.out {
            return false;
        }
        self.count_quick(quick, ready);
        let settings = at.policy.port(out);
        let (mtu, mut macs) = (settings.mtu, [0; 12]);
        macs[6..].copy_from_slice(&settings.mac);
        let deadline = udp_deadline(status, direction, &quick.udp);
        let known =
            Known { key, number, out, mtu, macs, deadline, counted: ready, ..Known::NOTHING };
        quick.known = known;
        true
    }

    /// Looks a next hop up; false if its MAC address is not known.
    #[inline]
    fn towards(&self, next_hop: u16, known: &mut Known) -> bool {
        let Some(mac) = self.links.neighbours.mac(NextHop(next_hop)) else { return false };
        known.next_hop = next_hop as u32;
        known.macs[..6].copy_from_slice(&mac);
        true
    }

    /// Counts the packets of the known path, so many being ready of all.
    fn count_quick(&mut self, quick: &mut Quick, ready: usize) {
        let packets = (ready - quick.known.counted) as u64;
        self.paths.count(quick.known.number, packets, core::mem::take(&mut quick.known.bytes));
        self.took_path += packets;
    }

    /// What the tracker of TCP does about a packet that only moves windows and deadline; false, and
    /// nothing is done, for any other.
    #[inline(always)]
    fn refresh_tcp<const V6: bool>(
        &mut self,
        frame: &P::Frame,
        lean: &Lean,
        conn: Conn<'_>,
        seen: &Glance,
        patience: &Patience,
        at: At<'_>,
    ) -> bool {
        let (direction, answered) = (seen.direction, seen.status.0 & BOTH);
        if answered != BOTH && (answered != 0 || direction == Direction::Reply) {
            return false;
        }
        let l4 = if V6 { lean6::L4 } else { lean::L4 };
        let segment = frame.head().get(l4 as usize..lean.end()).and_then(Segment::plain);
        let Some(segment) = segment else { return false };
        let replied = answered == BOTH;
        let judge = |direction| TcpTrack::established(conn, &segment, direction, replied, patience);
        // Each direction by itself: what is known of both sides stands at fixed places then.
        let until = match direction {
            Direction::Original => judge(Direction::Original),
            Direction::Reply => judge(Direction::Reply),
        };
        let Some(until) = until else { return false };
        if until != seen.deadline() {
            self.refresh(conn, until, at);
        }
        true
    }

    /// Lets the whole tracker judge a TCP packet; what it said if that is the reason to walk.
    #[inline(never)]
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

/// When a UDP conn of that status ends that has a packet in that direction now, if that is all the
/// packet changes: not its first answer, nor one that may make a stream of it.
fn udp_deadline(status: Status, direction: Direction, deadlines: &[Tick; 2]) -> Option<Tick> {
    match (status.0 & BOTH, direction) {
        (0, Direction::Original) => Some(deadlines[0]),
        (BOTH, _) => Some(deadlines[1]),
        // And what only a tool can make.
        _ => None,
    }
}

/// The same for a conn that is too young for a stream, answered though it is: for two seconds that
/// is what all are. It stands in the record's second line.
#[inline(never)]
fn young_deadline(
    conn: Conn<'_>,
    status: Status,
    deadlines: &[Tick; 2],
    at: At<'_>,
) -> Option<Tick> {
    let (timeouts, now) = (&at.policy.knobs.timeouts, at.now.tick);
    let young = status.0 & BOTH == Status::SEEN_REPLY.0
        && !udp::packet(status, stream_after(conn), now, timeouts).assured;
    young.then_some(deadlines[0])
}

/// Moves the deadline on; false, and nothing is done, where it would come closer: that is told to
/// the sweep.
#[inline(always)]
fn put_off(conn: Conn<'_>, seen: &Glance, deadline: Tick) -> bool {
    let ahead = deadline.0.wrapping_sub(seen.deadline().0) as i32;
    if ahead > 0 {
        conn.put_off(seen, deadline);
    }
    ahead >= 0
}
