//! The life of a conn between its first packet and the table: made, confirmed, joined, deleted.
//!
//! Follows `__nf_conntrack_alloc`, `__nf_conntrack_confirm`, `nf_ct_resolve_clash` and what early
//! drop does around them. Several lcores may confirm at once: the index lets one of them in, and
//! the others join it, step aside, or lose their packet, as in the kernel.

use crate::conntrack::early::EARLY_DROP_BUCKETS;
use crate::conntrack::events;
use crate::conntrack::index::{NEIGHBOURS, Refused};
use crate::conntrack::record::{Conn, ConnRef, Start};
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::store::{AllocError, Ending};
use crate::conntrack::tuple::proto;
use crate::conntrack::view::{ConnView, EventKind};
use crate::nat::rewrite::Deltas;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::FramePool;
use crate::pipeline::handoff::HOPS_MAX;
use crate::pipeline::helpers::helper_of;
use crate::pipeline::messages::FromLcore;
use crate::pipeline::service::view_of_gone;
use crate::pipeline::transit::{Attached, Attachment, Exit, Transit};
use crate::pipeline::walking::Long;
use crate::pipeline::{At, Pipeline};

/// Conns that one early drop can delete: two entries each would only make it fewer.
const EARLY_DROPS_MAX: usize = EARLY_DROP_BUCKETS as usize * NEIGHBOURS;

impl<P: FramePool> Pipeline<P> {
    /// A record within `max`, after early drop if need be. What other lcores own only they can
    /// drop: where nothing of ours can go, the packet goes to one of them.
    #[inline(always)]
    pub(crate) fn allocate(&mut self, new: &Start<'_>, at: At<'_>) -> Result<ConnRef, Exit> {
        let number = match self.room_for(new, at) {
            Ok(number) => number,
            Err(error) => return Err(self.no_room(new, error, at)),
        };
        self.links.counters.conntrack.begun.add(1);
        Ok(number)
    }

    /// What becomes of a packet that there is no record for.
    #[inline(never)]
    fn no_room(&mut self, new: &Start<'_>, error: AllocError, at: At<'_>) -> Exit {
        let refuses = at.table.capacity.refuses();
        if error == AllocError::Full
            && !self.place.is_alone()
            && !refuses
            && at.hops < HOPS_MAX
            && let Some(lcore) =
                self.store.droppable_elsewhere(at.table.hash(new.orig, new.zones[0]), at.now.tick)
        {
            return Exit::Elsewhere(lcore);
        }
        self.links.counters.conntrack.drop.add(1);
        Exit::Drop(match error {
            AllocError::Full => {
                // Once a tick is more than is logged, and leaves room for other messages.
                if self.told_full != Some(at.now.tick) {
                    self.told_full = Some(at.now.tick);
                    self.tell(FromLcore::TableFull);
                }
                if refuses { DropReason::TableRefuses } else { DropReason::TableFull }
            }
            AllocError::NoRecord => DropReason::NoRecord,
        })
    }

    /// A record within `max`, after early drop among this lcore's conns if need be.
    #[inline(always)]
    pub(crate) fn room_for(&mut self, new: &Start<'_>, at: At<'_>) -> Result<ConnRef, AllocError> {
        match self.store.begin(new) {
            Err(AllocError::Full) if !at.table.capacity.refuses() => self.room_by_dropping(new, at),
            result => result,
        }
    }

    #[inline(never)]
    fn room_by_dropping(&mut self, new: &Start<'_>, at: At<'_>) -> Result<ConnRef, AllocError> {
        self.drop_early(at.table.hash(new.orig, new.zones[0]), at);
        self.store.begin(new)
    }

    /// Brings in what packets that walk will ask for if they begin conns and the table is full: who
    /// may have to make room for them.
    pub(crate) fn foresee_room(&self, walking: &[Long<P::Frame>], at: At<'_>) {
        let few = at.table.capacity.is_short_of(self.place.lcore(), walking.len() as u32);
        if !few || at.table.capacity.refuses() {
            return;
        }
        let strangers = walking.iter().filter(|long| long.prejudged.is_none());
        for (_, hash) in strangers.filter_map(|long| long.hash) {
            self.store.prefetch_room(hash, at.now.tick);
        }
    }

    fn drop_early(&mut self, hash: u64, at: At<'_>) {
        if self.listened() {
            return self.drop_early_and_tell(hash, at);
        }
        let (expectations, lcore) = (&at.table.expectations, self.place.lcore());
        let dropped = self.store.early_drop(hash, at.now.tick, |conn, _| {
            if helper_of(conn, at).is_some() {
                expectations.end_master(lcore, conn.id(), at.now);
            }
        });
        self.links.counters.conntrack.early_drop.add(dropped as u64);
    }

    /// The same where somebody listens: views of all that go take more time to make room for than
    /// the rest does.
    #[cold]
    #[inline(never)]
    fn drop_early_and_tell(&mut self, hash: u64, at: At<'_>) {
        let mut gone: [Option<ConnView>; EARLY_DROPS_MAX] = [const { None }; EARLY_DROPS_MAX];
        let mut n = 0;
        let (expectations, lcore) = (&at.table.expectations, self.place.lcore());
        let dropped = self.store.early_drop(hash, at.now.tick, |conn, _| {
            if helper_of(conn, at).is_some() {
                expectations.end_master(lcore, conn.id(), at.now);
            }
            if conn.reported().conn & events::DESTROY != 0
                && let Some(slot) = gone.get_mut(n)
            {
                *slot = Some(view_of_gone(conn, at));
                n += 1;
            }
        });
        self.links.counters.conntrack.early_drop.add(dropped as u64);
        for view in gone.into_iter().flatten() {
            self.report_view(EventKind::Destroy, view, at);
        }
    }

    /// `nf_conntrack_confirm`: the packet leaves, so its conn enters the table, and what has
    /// happened to one that is there already is told.
    pub(crate) fn confirm(
        &mut self,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Attached::Conn(a) = t.attached else { return Ok(()) };
        if a.lent {
            return Ok(());
        }
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        if !a.fresh {
            if a.events != 0 && !a.delete {
                t.attached = Attached::Conn(Attachment { events: 0, ..a });
                self.settle_events(a.events, conn, true, at);
            }
            return Ok(());
        }
        if let Some(deltas) = Deltas::of(conn) {
            conn.set_deltas(deltas.l3, deltas.l4);
        }
        let deadline = at.now.tick.plus_secs(a.timeout_secs);
        let (over, hashes) = (a.instead_of, t.birth.hashes);
        let done = match self.store.confirm_over(a.conn, hashes, over, deadline, at.now.tick) {
            Ok(()) => {
                t.attached = Attached::Conn(Attachment { fresh: false, ..a });
                if self.listened() {
                    self.report(events_of_birth(conn, at), a.conn, at);
                }
                true
            }
            Err(Refused::Clash { with, side }) => self.resolve_clash(t, &a, (with, side), at),
            Err(Refused::NoRoom) => {
                // The kernel counts no drop for a chain that is too long.
                let counters = &self.links.counters.conntrack;
                counters.chain_too_long.add(1);
                counters.insert_failed.add(1);
                return Err(DropReason::ChainTooLong);
            }
            Err(Refused::Busy) => false,
        };
        if done {
            return Ok(());
        }
        let counters = &self.links.counters.conntrack;
        counters.insert_failed.add(1);
        counters.drop.add(1);
        Err(DropReason::InsertFailed)
    }

    /// `nf_ct_resolve_clash`: another packet was faster. Where that can be no more than two packets
    /// of one conn, the later one joins the conn that is there; where the two were translated
    /// differently, the later one gets a conn of one second that only its answer finds.
    fn resolve_clash(
        &mut self,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        (with, side): (ConnRef, Direction),
        at: At<'_>,
    ) -> bool {
        let Some(conn) = at.table.records.get(a.conn) else { return false };
        if !proto::allows_clash(conn.proto()) {
            return false;
        }
        if self.join(t, a, with, at) {
            return true;
        }
        if side == Direction::Reply {
            return false;
        }
        match self.store.confirm_reply_alone(a.conn, at.now.tick) {
            Ok(()) => {
                t.attached = Attached::Conn(Attachment { fresh: false, ..*a });
                self.links.counters.conntrack.clash_resolve.add(1);
                true
            }
            Err(Refused::Clash { with, .. }) => self.join(t, a, with, at),
            Err(_) => false,
        }
    }

    /// `__nf_ct_resolve_clash`: attaches the packet to a conn of the same tuples and zones, or of
    /// exactly the reverse tuples, instead of its own.
    fn join(
        &mut self,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        with: ConnRef,
        at: At<'_>,
    ) -> bool {
        let (Some(own), Some(there)) = (at.table.records.get(a.conn), at.table.records.get(with))
        else {
            return false;
        };
        let (orig, reply) = (own.orig(), own.reply());
        let present = (there.orig(), there.reply());
        let same = present == (orig, reply) || present == (reply, orig);
        if !same || own.zones() != there.zones() {
            return false;
        }
        self.release(a.conn, at);
        // Only an owner counts for a conn; the packet of another lcore's stays uncounted there.
        if self.owns(there)
            && let Some(extension) = at.table.extension(there)
        {
            extension.count(a.direction, 1, t.headers.ip_len() as u64);
        }
        t.attached = Attached::Conn(Attachment { conn: with, fresh: false, ..*a });
        self.links.counters.conntrack.clash_resolve.add(1);
        true
    }

    /// Takes a confirmed conn of this lcore out of the table.
    pub(crate) fn delete_conn(&mut self, number: ConnRef, at: At<'_>) {
        if let Some(ending) = self.store.ending(number) {
            self.end(&ending, None, at);
        }
    }

    /// The same by a tool's process, or by none.
    pub(crate) fn end(&mut self, ending: &Ending, by: Option<u32>, at: At<'_>) {
        let number = ending.id.conn;
        self.report_by(events::DESTROY, number, by, at);
        at.table.records.get(number).inspect(|conn| self.end_expectations(*conn, at));
        self.store.end(ending);
    }

    /// Gives back a conn that did not come to be.
    pub(crate) fn release(&mut self, number: ConnRef, at: At<'_>) {
        at.table.records.get(number).inspect(|conn| self.end_expectations(*conn, at));
        self.store.release_unconfirmed(number);
    }
}

/// What confirming a conn is told as.
fn events_of_birth(conn: Conn<'_>, at: At<'_>) -> u16 {
    let expected = conn.status().has(Status::EXPECTED);
    let birth = if expected { events::RELATED } else { events::NEW };
    let birth = if helper_of(conn, at).is_some() { birth | events::HELPER } else { birth };
    let labels = at.table.extension(conn).and_then(|extension| extension.labels());
    if labels.is_some_and(|labels| labels != 0) { birth | events::LABEL } else { birth }
}

#[cfg(test)]
mod tests {
    //! Two packets that race for a conn: the other lcore is faster between making the conn of one
    //! and confirming it, which no order of whole bursts can bring about.

    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::conntrack::knobs::Knobs;
    use crate::conntrack::policies::Policies;
    use crate::conntrack::record::Family as Space;
    use crate::conntrack::state::Status;
    use crate::conntrack::store::{Shared, Sizes, Store};
    use crate::conntrack::tuple::{HashSeed, Tuple};
    use crate::lcore::memory::{MemoryFrame, MemoryIo};
    use crate::pipeline::counters::LcoreCounters;
    use crate::pipeline::neighbour::NeighbourTable;
    use crate::pipeline::place::Layout;
    use crate::pipeline::route::Routes;
    use crate::pipeline::snapshot::{FamilyRules, Snapshot};
    use crate::pipeline::{Links, Moment};
    use crate::rules::compiled::Compiled;
    use crate::rules::facts::PortId;
    use crate::rules::hook::Family;
    use crate::rules::model::Ruleset;
    use crate::time::{Now, Tick};
    use crate::wire::address::Address;
    use crate::wire::build::packet::Packet;
    use crate::wire::headers;
    use crate::wire::tcp::flags::SYN;

    const NOW: Now = Now { tick: Tick(1000), unix_ns: 0 };
    const SEED: HashSeed = HashSeed([3, 5, 7, 11, 13]);

    struct Race {
        ours: Pipeline<MemoryIo>,
        theirs: Store,
        shared: Arc<Shared>,
        policy: Snapshot,
    }

    fn snapshot() -> Snapshot {
        let rules = |family| {
            let compiled = Compiled::new(&Ruleset::new(family), &["lan", "wan"], 0).unwrap();
            FamilyRules::new(compiled, 2)
        };
        Snapshot {
            generation: 1,
            keeping: Default::default(),
            ports: Box::new([]),
            routes: Routes::new(&[], &[]).unwrap(),
            v4: rules(Family::V4),
            v6: rules(Family::V6),
            knobs: Knobs::default(),
            policies: Policies::default(),
        }
    }

    impl Race {
        fn new() -> Race {
            let sizes = Sizes { max: 64, lcores: 2, extensions: 0 };
            let shared = Arc::new(Shared::new(sizes, SEED).unwrap());
            shared.records.ensure_chunks(Space::V4, 64).unwrap();
            let links = Links {
                counters: Arc::new(LcoreCounters::new(0)),
                neighbours: Arc::new(NeighbourTable::new(8, SEED)),
                listeners: Arc::new(AtomicBool::new(false)),
                errors: Arc::default(),
            };
            let place = Layout::even(2, 0, 1).place(0);
            let store = Store::new(shared.clone(), 0);
            let ours = Pipeline::new(place, store, Arc::new(snapshot()), links, 1);
            let theirs = Store::new(shared.clone(), 1);
            Race { ours, theirs, shared, policy: snapshot() }
        }

        /// The other lcore confirms a conn of these tuples.
        fn theirs(&mut self, orig: &Tuple, reply: &Tuple) -> ConnRef {
            let number = self.theirs.allocate(orig, reply, [0, 0]).unwrap();
            self.theirs.confirm(number, NOW.tick.plus_secs(30), NOW.tick).unwrap();
            number
        }

        /// Our packet has made a conn; its reply is `reply` once it is translated, and then
        /// `meanwhile` happens. What becomes of it at confirm, and the conn it has then.
        fn ours(
            &mut self,
            packet: Packet<'_>,
            reply: Option<Tuple>,
            meanwhile: impl FnOnce(&mut Race, &Tuple, &Tuple),
        ) -> Result<ConnRef, DropReason> {
            let frame = MemoryFrame::new(packet.to_vec());
            let bytes = frame.bytes();
            let headers = headers::parse(&bytes, bytes.len()).unwrap();
            let mut t = Transit::new(frame, headers, Some(PortId(0)));
            let shared = self.shared.clone();
            let policy = core::mem::replace(&mut self.policy, snapshot());
            let moment = Moment { now: NOW, policy: &policy, table: &shared, hops: 0 };
            let at = moment.at();
            self.ours.track(&mut t, at).unwrap();
            let number = t.attachment().expect("a conn").conn;
            let conn = shared.records.get(number).unwrap();
            if let Some(reply) = reply {
                conn.set_reply(&reply);
                t.birth.hashes.1 = shared.hash(&reply, 0);
            }
            meanwhile(self, &conn.orig(), &conn.reply());
            self.ours.confirm(&mut t, at)?;
            Ok(t.attachment().expect("a conn").conn)
        }

        fn counted(&self) -> (u64, u64) {
            let counters = &self.ours.links.counters.conntrack;
            (counters.clash_resolve.get(), counters.insert_failed.get())
        }
    }

    fn at(last: u8, port: u16) -> core::net::SocketAddr {
        ([192, 0, 2, last], port).into()
    }

    fn udp<'a>() -> Packet<'a> {
        Packet::udp(at(1, 4000), at(2, 53))
    }

    #[test]
    fn s18_the_second_packet_of_one_conn_joins_the_first() {
        let mut race = Race::new();
        let mut winner = None;
        let joined = race.ours(udp(), None, |race, o, r| winner = Some(race.theirs(o, r)));
        assert_eq!(joined.ok(), winner);
        assert_eq!((race.counted(), race.shared.capacity.count()), ((1, 0), 1));
        // Exactly the other way round, it is the same conn too.
        let mut race = Race::new();
        let joined = race.ours(udp(), None, |race, o, r| winner = Some(race.theirs(r, o)));
        assert_eq!(joined.ok(), winner);
    }

    #[test]
    fn s18_one_translated_otherwise_is_found_by_its_answer_for_a_second() {
        let mut race = Race::new();
        let wan = Address::v4(0xcb00_7101);
        let reply = |port| Tuple {
            src: Address::v4(0xc000_0202),
            dst: wan,
            src_id: 53,
            dst_id: port,
            proto: proto::UDP,
        };
        let number = race
            .ours(udp(), Some(reply(1024)), |race, o, _| {
                race.theirs(o, &reply(1025));
            })
            .unwrap();
        assert_eq!(race.counted(), (1, 0));
        let conn = race.shared.records.get(number).unwrap();
        assert_eq!(conn.deadline().remaining_secs(NOW.tick), 1);
        assert!(conn.status().has(Status::NAT_CLASH.with(Status::FIXED_TIMEOUT)));
        let found = |tuple: &Tuple| {
            let hash = race.shared.hash(tuple, 0);
            race.shared.find(hash, tuple, 0, NOW.tick).map(|found| found.conn.number())
        };
        assert_eq!(found(&conn.reply()), Some(number));
        assert_ne!(found(&conn.orig()), Some(number), "the first one's");
    }

    #[test]
    fn s18_a_taken_answer_and_any_clash_of_tcp_are_dropped() {
        let mut race = Race::new();
        let other = |o: &Tuple| Tuple { src_id: 9, ..*o };
        let refused = race.ours(udp(), None, |race, o, r| {
            race.theirs(&other(o), r);
        });
        assert_eq!(refused, Err(DropReason::InsertFailed));
        assert_eq!(race.counted(), (0, 1));
        let mut race = Race::new();
        let syn = Packet::tcp(at(1, 4000), at(2, 80)).flags(SYN);
        let refused = race.ours(syn, None, |race, o, r| {
            race.theirs(o, r);
        });
        assert_eq!(refused, Err(DropReason::InsertFailed));
        assert_eq!(race.counted(), (0, 1));
    }
}
