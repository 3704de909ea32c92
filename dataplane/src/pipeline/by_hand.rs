//! Conns that a tool makes or changes: what ctnetlink does for `conntrack -I` and `-U`.
//!
//! The control core sends a request to the lcore that owns the conn, or is to own it; that lcore
//! alone writes. Requests and the room for their answers come from the control core and go back to
//! it, so an lcore neither allocates nor frees.

use crate::conntrack::dccp::{DccpState, DccpTrack, Role};
use crate::conntrack::events::{self, Reported};
use crate::conntrack::index::Refused;
use crate::conntrack::record::{Conn, ConnId, ConnRef, Start};
use crate::conntrack::sctp::{SctpState, SctpTrack};
use crate::conntrack::state::Status;
use crate::conntrack::tcp::{TcpState, TcpTrack};
use crate::conntrack::tuple::{Tuple, proto};
use crate::conntrack::view::ConnView;
use crate::nat::range::{Manip, Range};
use crate::nat::rewrite::Deltas;
use crate::nat::select;
use crate::pipeline::frame::FramePool;
use crate::pipeline::service::view_of;
use crate::pipeline::{At, Pipeline};
use crate::time::Tick;

/// Why a request was not done, by the error that ctnetlink has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A conn has the tuple (`EEXIST`).
    Exists,
    /// `max` conns exist and none can go (`ENOMEM`).
    NoMemory,
    /// The index has no place for the tuple, or the conn none for labels (`ENOSPC`).
    NoRoom,
    /// A status bit that nobody but tracking sets (`EBUSY`).
    Busy,
    /// The timeout is fixed (`EPERM`).
    Fixed,
    /// The request makes no sense (`EINVAL`).
    Invalid,
    /// NAT of a conn that is in the table (`EOPNOTSUPP`).
    NotSupported,
    /// A label beyond the last one (`ERANGE`).
    OutOfRange,
}

/// Status bits that a tool may set; none may be taken away.
pub const SETTABLE: Status = Status::SEEN_REPLY.with(Status::ASSURED).with(Status::FIXED_TIMEOUT);

/// What a tool says of the tracker's state (`CTA_PROTOINFO`). Of another protocol than the conn's
/// it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// Nothing.
    #[default]
    Nothing,
    /// The state of TCP.
    Tcp(TcpState),
    /// The state of SCTP, and the tags of the original and the reply direction: all or none.
    Sctp(Option<SctpState>, [Option<u32>; 2]),
    /// The state of DCCP, and whose packets the original direction has: both or none. A state that
    /// is none of a conn's is `None`.
    Dccp(Option<DccpState>, Option<Role>),
}

/// A conn to be made (`ctnetlink_create_conntrack`).
#[derive(Clone, Debug)]
pub struct NewConn {
    /// The tuple of the original direction, and that of the answers before any NAT below.
    pub tuples: [Tuple; 2],
    /// The zones that both are looked up in.
    pub zones: [u16; 2],
    /// How long it lives without packets.
    pub timeout_secs: u32,
    /// Bits of [`SETTABLE`].
    pub status: Status,
    /// The mark.
    pub mark: u32,
    /// The tracker's state.
    pub told: Told,
    /// Where the destination, then the source, is translated to; where only one of them is given
    /// the other one is decided to stay.
    pub nat: [Option<Range>; 2],
    /// Labels, for a conn that can have any.
    pub labels: u128,
    /// The process that asks.
    pub by_process: Option<u32>,
    /// The answer.
    pub outcome: Result<(), Refusal>,
}

/// What is to be different; `None` leaves a fact as it is (`ctnetlink_change_conntrack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// NAT is asked for, which no conn in the table takes.
    pub nat: bool,
    /// Seconds left from now on.
    pub timeout_secs: Option<u32>,
    /// Bits to be set.
    pub status: Status,
    /// The tracker's state.
    pub told: Told,
    /// Value and mask: the bits of the mask are cleared, those of the value turned round.
    pub mark: Option<(u32, u32)>,
    /// Labels to be set and labels to be taken away.
    pub labels: Option<(u128, u128)>,
}

impl Change {
    /// The mark that a conn gets.
    pub fn mark_of(&self, mark: u32) -> u32 {
        self.mark.map_or(mark, |(value, mask)| mark & !mask ^ value)
    }

    /// The labels that a conn gets.
    pub fn labels_of(&self, labels: u128) -> u128 {
        self.labels.map_or(labels, |(set, unset)| labels & !unset | set)
    }
}

/// Conns of one lcore and what is to be different about them.
#[derive(Debug)]
pub struct Changes {
    /// What to change.
    pub change: Change,
    /// Whose conns.
    pub conns: Vec<ConnId>,
    /// The process that asks.
    pub by_process: Option<u32>,
    /// The answer, with room for all of `conns`: those that are still there, as they are now, and
    /// what became of the request.
    pub done: Vec<(ConnView, Result<(), Refusal>)>,
}

impl<P: FramePool> Pipeline<P> {
    /// Makes a conn and enters it into the table.
    pub(crate) fn create(&mut self, new: &NewConn, at: At<'_>) -> Result<(), Refusal> {
        let [original, reply] = &new.tuples;
        let zone = new.zones[0];
        let hash = at.table.hash(original, zone);
        if let Some(found) = at.table.find(hash, original, zone, at.now.tick) {
            if !found.expired {
                return Err(Refusal::Exists);
            }
            self.delete_conn(found.conn.number(), at);
        }
        if new.status.has(Status::EXPECTED) {
            return Err(Refusal::Busy);
        }
        words_of(new.tuples[0].proto, new.told, at.now.tick)?;
        let (zones, era) = (new.zones, at.policy.keeping.era);
        let start = Start { orig: original, reply, zones, tracker: [0; 7], era };
        let room = self.room_for(&start, at);
        let number = room.map_err(|_| Refusal::NoMemory)?;
        let entered = self.enter(number, new, at);
        if entered.is_ok() {
            self.links.counters.conntrack.insert.add(1);
            self.report_by(events::NEW | events::CHANGE, number, new.by_process, at);
        } else {
            self.store.release_unconfirmed(number);
        }
        entered
    }

    fn enter(&mut self, number: ConnRef, new: &NewConn, at: At<'_>) -> Result<(), Refusal> {
        self.bind_by_hand(number, new, at);
        let (knobs, labelled) = (&at.policy.knobs, at.policy.knows_labels());
        if (knobs.acct || knobs.timestamp || labelled)
            && let Some(extension) = self.store.extend(number)
        {
            extension.begin(knobs.acct, if knobs.timestamp { at.now.unix_ns } else { 0 }, labelled);
            // Where it has none they are left out, and nobody is told.
            if labelled {
                extension.set_labels(new.labels);
            }
        }
        let Some(conn) = at.table.records.get(number) else { return Err(Refusal::NoMemory) };
        conn.set_mark(new.mark);
        self.decide_reported(number, Reported::default(), at);
        conn.add_status(Status(new.status.0 & SETTABLE.0));
        conn.set_tracker_words(&words_of(conn.proto(), new.told, at.now.tick)?);
        if let Some(leaving) = conn.reply().inverted() {
            let deltas = Deltas::between(&conn.orig(), &leaving);
            conn.set_deltas(deltas.l3, deltas.l4);
        }
        let deadline = at.now.tick.plus_secs(new.timeout_secs);
        self.store.confirm(number, deadline, at.now.tick).map_err(|refused| match refused {
            Refused::Clash { .. } => Refusal::Exists,
            _ => Refusal::NoRoom,
        })
    }

    /// `ctnetlink_setup_nat`: the destination first; one that nothing is said of stays, but for its
    /// port if need be.
    fn bind_by_hand(&mut self, number: ConnRef, new: &NewConn, at: At<'_>) {
        if new.nat.iter().all(Option::is_none) {
            return;
        }
        for (manip, range) in [(Manip::Dst, new.nat[0]), (Manip::Src, new.nat[1])] {
            let Some(conn) = at.table.records.get(number) else { return };
            let Some(current) = conn.reply().inverted() else { return };
            let range = range.unwrap_or_else(|| select::null_binding(&current, manip));
            let zones = conn.zones();
            let tuple = self.tuple_for(&conn.orig(), &current, &range, manip, zones, at);
            bind(conn, manip, &current, &tuple);
        }
    }

    /// Changes conns of this lcore, each for itself.
    pub(crate) fn change(&mut self, changes: &mut Changes, at: At<'_>) {
        for id in changes.conns.drain(..) {
            let found = self.store.get(id).filter(|conn| !conn.is_expired(at.now.tick));
            if found.is_none() || changes.done.len() == changes.done.capacity() {
                continue;
            }
            let outcome = self.change_one(id.conn, &changes.change, at);
            if outcome.is_ok() {
                self.report_by(events::CHANGE, id.conn, changes.by_process, at);
            }
            // One whose time is over with this is there no more.
            let over = |conn: &Conn<'_>| outcome.is_ok() && conn.is_expired(at.now.tick);
            if let Some(conn) = at.table.records.get(id.conn).filter(|conn| !over(conn)) {
                changes.done.push((view_of(conn, at), outcome));
            }
        }
    }

    /// In the order of ctnetlink: what comes before a refusal stays done.
    fn change_one(&mut self, number: ConnRef, change: &Change, at: At<'_>) -> Result<(), Refusal> {
        if change.nat {
            return Err(Refusal::NotSupported);
        }
        let Some(conn) = at.table.records.get(number) else { return Ok(()) };
        let status = conn.status();
        if let Some(secs) = change.timeout_secs {
            if status.has(Status::FIXED_TIMEOUT) {
                return Err(Refusal::Fixed);
            }
            conn.set_deadline(at.now.tick.plus_secs(secs));
            self.store.arm(number, at.now.tick);
        }
        let asked = change.status.0 & !status.0;
        if Status(asked).has(Status::EXPECTED) {
            return Err(Refusal::Busy);
        }
        conn.add_status(Status(asked & SETTABLE.0));
        let mut words = conn.tracker_words();
        tell(conn.proto(), change.told, &mut words)?;
        conn.set_tracker_words(&words);
        self.count_if_open(conn);
        conn.set_mark(change.mark_of(conn.mark()));
        // What was remembered of its walks may rest on any of this.
        conn.set_generation(0);
        if change.labels.is_some() {
            let extension = at.table.extension(conn);
            let labels = extension.and_then(|extension| extension.labels());
            let (Some(extension), Some(labels)) = (extension, labels) else {
                return Err(Refusal::NoRoom);
            };
            extension.set_labels(change.labels_of(labels));
        }
        Ok(())
    }
}

/// Writes the choice for one end into a conn (`nf_nat_setup_info`).
fn bind(conn: Conn<'_>, manip: Manip, current: &Tuple, tuple: &Tuple) {
    let (translated, decided) = crate::pipeline::translate::bits(manip);
    conn.add_status(decided);
    if tuple != current
        && let Some(reply) = tuple.inverted()
    {
        conn.set_reply(&reply);
        conn.add_status(translated);
    }
}

/// What the tracker knows of a conn that no packet began. An answered UDP conn is a stream at once.
/// One of GRE has no time after its next packet, as in the kernel.
fn words_of(number: u8, told: Told, now: Tick) -> Result<[u64; 7], Refusal> {
    let mut words = match number {
        proto::TCP => TcpTrack::inserted(TcpState::None).to_words(),
        proto::UDP => [now.0.wrapping_sub(1) as u64, 0, 0, 0, 0, 0, 0],
        _ => [0; 7],
    };
    tell(number, told, &mut words)?;
    Ok(words)
}

/// Writes what a tool says into the tracker's words (`from_nlattr`).
fn tell(number: u8, told: Told, words: &mut [u64; 7]) -> Result<(), Refusal> {
    *words = match (number, told) {
        (proto::TCP, Told::Tcp(state)) => {
            let mut track = TcpTrack::from_words(*words);
            track.set_by_hand(state);
            track.to_words()
        }
        (proto::SCTP, Told::Sctp(Some(state), [Some(original), Some(reply)])) => {
            let mut track = SctpTrack::from_words(*words);
            track.set_by_hand(state, [original, reply]);
            track.to_words()
        }
        (proto::DCCP, Told::Dccp(Some(state), Some(role))) => {
            let mut track = DccpTrack::from_words(*words);
            track.set_by_hand(state, role);
            track.to_words()
        }
        (proto::SCTP, Told::Sctp(..)) | (proto::DCCP, Told::Dccp(..)) => {
            return Err(Refusal::Invalid);
        }
        _ => return Ok(()),
    };
    Ok(())
}
