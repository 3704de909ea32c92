//! What rules would do to the conns that are there: `check --live` and `on_reload`.
//!
//! A conn is copied into an [`Offline`] gateway, and a packet of each direction goes through the
//! hooks there, such as its tracker accepts and without payload. It comes in by the port that leads
//! to its source, or is the gateway's own. A conn is denied if a rule or policy drops the packet of
//! either direction; what has no way there for another reason is not the rules' doing.
//!
//! The table is gone through in slices with a round of everything else between them: packets are
//! not held up, expiry and events go on.

use std::net::SocketAddr;
use std::sync::Arc;

use dataplane::conntrack::record::{Conn, ConnId, ConnRef, Family};
use dataplane::conntrack::state::{Direction, Status};
use dataplane::conntrack::store::Shared;
use dataplane::conntrack::tcp::{TcpState, TcpTrack};
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{BATCH_MAX, ToLcore};
use dataplane::pipeline::notes::{End, Note};
use dataplane::pipeline::route::Destination;
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::rules::compiled::CounterId;
use dataplane::rules::facts::PortId;
use dataplane::time::Now;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::ControlCore;
use crate::explain::offline::Offline;
use crate::publish::{Begin, Rulesets};

/// Record numbers looked at between two rounds of everything else.
const SLICE: u32 = 256;

/// What rules do to a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its packets pass, as far as rules go.
    Passes,
    /// A rule or policy drops packets of a direction.
    Denied(Direction, CounterId, DropReason),
    /// It cannot be told: nobody knows where its packets come from, or there was no room.
    Unknown,
}

/// A policy that judges conns.
pub(super) struct Judge {
    offline: Offline,
    snapshot: Arc<Snapshot>,
    pub(super) rulesets: Rulesets,
    /// By family, tests that keep something from packet to packet.
    keeping: [Vec<u32>; 2],
}

impl Judge {
    fn fate(&mut self, table: &Shared, conn: Conn<'_>, now: Now) -> Fate {
        let Some(copy) = self.offline.pipeline.copy(table, conn, now) else { return Fate::Unknown };
        let fate = [Direction::Original, Direction::Reply]
            .into_iter()
            .map(|direction| self.one_way(conn, (copy, direction), now))
            .find(|fate| *fate != Fate::Passes);
        self.offline.pipeline.forget_copy(copy);
        fate.unwrap_or(Fate::Passes)
    }

    fn one_way(
        &mut self,
        conn: Conn<'_>,
        (copy, direction): (ConnRef, Direction),
        now: Now,
    ) -> Fate {
        let tuple = conn.tuple(direction);
        let port = match self.snapshot.routes.classify(tuple.src, None) {
            Destination::Forward(route) => Some(PortId(route.port)),
            Destination::Local(_) => None,
            _ => return Fate::Unknown,
        };
        let mac = port.map_or([0; 6], |port| self.snapshot.port(port).mac);
        let frame = MemoryFrame::new(frame(&tuple, mac, flags(conn, direction)));
        // No packet is the one that uses a limit up for those behind it.
        for (v6, tests) in [false, true].into_iter().zip(&self.keeping) {
            self.snapshot.family(v6).rules.forget(tests);
        }
        let Offline { pipeline, pool } = &mut self.offline;
        pipeline.judge_accepted(pool, port, (copy, direction), frame, now);
        decided(&self.offline.take_notes(), direction)
    }
}

/// What became of the packet of some notes.
fn decided(notes: &[Note], direction: Direction) -> Fate {
    let (mut depth, mut last) = (0, None);
    for note in notes {
        match *note {
            Note::Begins(..) => depth += 1,
            Note::Hit(counter) if depth == 1 => last = Some(counter),
            Note::Ends(end, ..) => {
                depth -= 1;
                if depth > 0 {
                    continue;
                }
                use DropReason::{FilterDrop, MangleDrop, NatDrop, RawDrop, Rejected, SynRefused};
                return match (end, last) {
                    (
                        End::Dropped(
                            reason @ (RawDrop | MangleDrop | NatDrop | FilterDrop | Rejected
                            | SynRefused),
                        ),
                        Some(counter),
                    ) => Fate::Denied(direction, counter, reason),
                    _ => Fate::Passes,
                };
            }
            _ => {}
        }
    }
    Fate::Unknown
}

/// The flags of a segment that belongs to a conn.
fn flags(conn: Conn<'_>, direction: Direction) -> u8 {
    if conn.proto() != proto::TCP {
        return 0;
    }
    let state = TcpTrack::state_of_word(conn.tracker_word(TcpTrack::STATE_WORD));
    match (state, direction) {
        (TcpState::SynSent, Direction::Original) => SYN,
        (TcpState::SynSent | TcpState::SynRecv, _) => SYN | ACK,
        _ => ACK,
    }
}

/// A packet with a tuple. Whatever only the conn's tracker looks at is left empty.
fn frame(tuple: &Tuple, mac: [u8; 6], flags: u8) -> Vec<u8> {
    let (src, dst) = (tuple.src.ip(), tuple.dst.ip());
    let (from, to) = (SocketAddr::new(src, tuple.src_id), SocketAddr::new(dst, tuple.dst_id));
    let mut ports = [0; 16];
    ports[..2].copy_from_slice(&tuple.src_id.to_be_bytes());
    ports[2..4].copy_from_slice(&tuple.dst_id.to_be_bytes());
    let [kind, code] = tuple.dst_id.to_be_bytes();
    let packet = match tuple.proto {
        proto::TCP => Packet::tcp(from, to).flags(flags),
        proto::UDP => Packet::udp(from, to),
        proto::ICMP | proto::ICMPV6 => {
            Packet::icmp(src, dst, kind, code, u32::from(tuple.src_id) << 16)
        }
        number @ (proto::UDPLITE | proto::SCTP | proto::DCCP) => {
            Packet::raw(src, dst, number).payload(&ports)
        }
        number => Packet::raw(src, dst, number).payload(&[0; 16]),
    };
    packet.macs(Mac([2, 0, 0, 0, 0, 1]), Mac(mac)).to_vec()
}

/// The confirmed conn of a number that is still alive.
fn live(table: &Shared, number: ConnRef, now: Now) -> Option<Conn<'_>> {
    let conn = table.records.get(number)?;
    let status = conn.status();
    let there = conn.owner().is_some() && status.has(Status::CONFIRMED);
    (there && !status.has(Status::NAT_CLASH) && !conn.is_expired(now.tick)).then_some(conn)
}

/// A place among the records, for walks in slices.
#[derive(Clone, Copy, Debug)]
struct Place {
    family: Family,
    number: u32,
}

impl Place {
    const START: Place = Place { family: Family::V4, number: 0 };

    /// The next numbers, and where to go on.
    fn slice(self, table: &Shared) -> (impl Iterator<Item = ConnRef>, Option<Place>) {
        let Place { family, number } = self;
        let end = table.records.numbers(family);
        let to = number.saturating_add(SLICE).min(end);
        let next = match family {
            _ if to < end => Some(Place { family, number: to }),
            Family::V4 => Some(Place { family: Family::V6, number: 0 }),
            Family::V6 => None,
        };
        ((number..to).map(move |number| ConnRef::new(family, number)), next)
    }
}

/// The pass over the table that ends what the rules deny.
pub(super) struct Purge {
    judge: Judge,
    at: Place,
    denied: u64,
    unknown: u64,
}

impl ControlCore {
    /// A policy that judges conns beside the wires.
    ///
    /// # Errors
    /// A sentence: memory.
    pub(super) fn judge(
        &self,
        snapshot: Arc<Snapshot>,
        rulesets: Rulesets,
    ) -> Result<Judge, String> {
        let offline = Offline::new(Arc::clone(&snapshot), &self.shared, self.seed);
        let offline = offline.map_err(|error| error.to_string())?;
        let keeping = [false, true].map(|v6| snapshot.family(v6).rules.keeping());
        Ok(Judge { offline, snapshot, rulesets, keeping })
    }

    /// Every live conn with what each of some judges says, a slice at a time; everything else has
    /// a round between two slices.
    pub(super) fn each_fate(
        &mut self,
        judges: &mut [Judge],
        mut each: impl FnMut(Conn<'_>, &[Judge], &[Fate], Now),
    ) {
        let mut at = Some(Place::START);
        let mut fates = Vec::new();
        while let Some(place) = at {
            let (table, now) = (Arc::clone(&self.shared), self.now());
            let (numbers, next) = place.slice(&table);
            for conn in numbers.filter_map(|number| live(&table, number, now)) {
                fates.clear();
                fates.extend(judges.iter_mut().map(|judge| judge.fate(&table, conn, now)));
                each(conn, judges, &fates, now);
            }
            at = next;
            self.round();
        }
    }

    /// Begins a pass that ends the conns whose packets the rules in force drop; one that is under
    /// way begins anew.
    pub(super) fn begin_purge(&mut self) {
        let rulesets = self.rulesets.clone();
        let judge = self
            .policy_apart(&rulesets, Begin::Anew)
            .and_then(|snapshot| self.judge(snapshot, rulesets));
        match judge {
            Ok(judge) => {
                self.purge = Some(Purge { judge, at: Place::START, denied: 0, unknown: 0 });
            }
            Err(error) => log::error!("on_reload: {error}: no conn is deleted"),
        }
    }

    /// Goes on with it, a slice at a time.
    pub(super) fn go_on_purging(&mut self) {
        let Some(mut purge) = self.purge.take() else { return };
        let (table, now) = (Arc::clone(&self.shared), self.now());
        let (numbers, next) = purge.at.slice(&table);
        let mut by_owner: Vec<Vec<ConnId>> = vec![Vec::new(); self.lcores.len()];
        for conn in numbers.filter_map(|number| live(&table, number, now)) {
            match purge.judge.fate(&table, conn, now) {
                Fate::Passes => continue,
                Fate::Unknown => purge.unknown += 1,
                Fate::Denied(..) => {
                    let owner = conn.owner().and_then(|owner| by_owner.get_mut(usize::from(owner)));
                    if let Some(ids) = owner {
                        purge.denied += 1;
                        ids.push(conn.id());
                    }
                }
            }
        }
        for (lcore, ids) in by_owner.into_iter().enumerate() {
            for batch in ids.chunks(BATCH_MAX) {
                // Nobody waits for the answer.
                let question = self.inbox.question.wrapping_sub(1);
                let message = ToLcore::Delete(question, None, Box::new(batch.to_vec()));
                if let Err(silent) = self.send(lcore, message) {
                    log::warn!("on_reload: {silent}: {} conns stay", batch.len());
                }
            }
        }
        match next {
            Some(next) => self.purge = Some(Purge { at: next, ..purge }),
            None => {
                let Purge { denied, unknown, .. } = purge;
                log::info!("on_reload: {denied} conns deleted that the rules deny");
                if unknown > 0 {
                    log::warn!("on_reload: {unknown} conns stay that could not be judged");
                }
            }
        }
    }
}
