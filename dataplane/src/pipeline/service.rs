//! What the control core asks of an lcore, done between bursts and in bounded pieces.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::arch::sync::Ordering::Relaxed;
use crate::conntrack::dccp::{DccpState, DccpTrack};
use crate::conntrack::early::can_go_early;
use crate::conntrack::events::{self, Reported};
use crate::conntrack::gre;
use crate::conntrack::record::{Conn, ConnId, ConnRef};
use crate::conntrack::sctp::{SctpState, SctpTrack};
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::store::{ENDS_AT_ONCE, Ending, Shared};
use crate::conntrack::tcp::TcpTrack;
use crate::conntrack::tuple::proto;
use crate::conntrack::view::{ConnView, Counters, EventKind, EventView};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{FromLcore, Slice, ToLcore};
use crate::pipeline::snapshot::Snapshot;
use crate::pipeline::{At, Pipeline, World};
use crate::rules::facts::PortId;
use crate::time::Now;

impl<P: FramePool> Pipeline<P> {
    /// Does what one message asks; answers leave through [`Pipeline::deliver`].
    pub fn serve(&mut self, pool: &mut P, message: ToLcore, now: Now) {
        let message = match message {
            ToLcore::Adopt(snapshot) => return self.adopt(snapshot),
            ToLcore::View(view) => return self.take_view(view),
            ToLcore::Fold => {
                self.fold();
                return self.answer(FromLcore::Folded);
            }
            message => message,
        };
        let Some(world) = self.world.take() else { return };
        self.obey(pool, message, world.moment(now, 0).at());
        self.world = Some(world);
    }

    fn obey(&mut self, pool: &mut P, message: ToLcore, at: At<'_>) {
        match message {
            ToLcore::Adopt(_) | ToLcore::View(_) | ToLcore::Fold => {}
            ToLcore::Expire(mut conns) => {
                self.few_at_once(&mut conns, |pipeline, ending| {
                    pipeline.expire(ending, at);
                    false
                });
                self.answer(FromLcore::Expired(conns));
            }
            ToLcore::Relieve(mut conns) => {
                self.few_at_once(&mut conns, |pipeline, ending| {
                    pipeline.relieve(ending, at);
                    false
                });
                self.answer(FromLcore::Expired(conns));
            }
            ToLcore::Move(which, from, buckets) => {
                let moved = self.store.move_own(which, from, buckets);
                self.answer(FromLcore::Moved(which, moved));
            }
            ToLcore::Delete(question, by, mut conns) => {
                self.few_at_once(&mut conns, |pipeline, ending| pipeline.delete_by(ending, by, at));
                self.answer(FromLcore::Deleted(question, conns));
            }
            ToLcore::Create(question, mut new) => {
                new.outcome = self.create(&new, at);
                self.answer(FromLcore::Created(question, new));
            }
            ToLcore::Change(question, mut changes) => {
                self.change(&mut changes, at);
                self.answer(FromLcore::Changed(question, changes));
            }
            ToLcore::List(question, mut slice) => {
                self.list(&mut slice, at);
                self.answer(FromLcore::Listed(question, slice));
            }
            ToLcore::Find(question, mut findings) => {
                self.trail.copy(&mut findings);
                self.answer(FromLcore::Found(question, findings));
            }
            ToLcore::Transmit(port, bytes) => self.transmit_bytes(pool, port, &bytes),
        }
    }

    /// Goes through conns that (probably) end, a few at once, so that the cache misses of their
    /// ends overlap; leaves those for which `end` says so.
    fn few_at_once(
        &mut self,
        conns: &mut Vec<ConnId>,
        mut end: impl FnMut(&mut Self, &Ending) -> bool,
    ) {
        let mut left = 0;
        for from in (0..conns.len()).step_by(ENDS_AT_ONCE) {
            let few: ArrayVec<ConnId, ENDS_AT_ONCE> =
                conns.iter().skip(from).take(ENDS_AT_ONCE).copied().collect();
            for ending in self.store.prefetch_ends(&few) {
                if end(self, &ending)
                    && let Some(place) = conns.get_mut(left)
                {
                    *place = ending.id;
                    left += 1;
                }
            }
        }
        conns.truncate(left);
    }

    /// Frees every frame that still waits for a neighbour or for the rest of its datagram.
    pub fn stop(&mut self) {
        let Pipeline { fragments, links, .. } = self;
        fragments.clear(&mut |frame| {
            drop(frame);
            links.counters.held.sub(1);
            links.counters.count_drop(DropReason::Stopped);
        });
        while let Some(frame) = self.held.pop() {
            self.links.counters.held.sub(1);
            self.drop_frame(frame, DropReason::Stopped);
        }
    }

    /// The policy of the next packet on; the old one goes back with its final counters.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        let Some(world) = &self.world else { return };
        if snapshot.generation != world.snapshot.generation {
            self.renew_paths();
        } else {
            // What was counted so far belongs to the snapshot that goes.
            self.fold();
        }
        let Some(world) = &mut self.world else { return };
        let old = core::mem::replace(&mut world.snapshot, snapshot);
        self.answer(FromLcore::Retired(old));
    }

    /// The view of the next packet on. No old one is freed here: the control core gets them back.
    fn take_view(&mut self, view: Arc<Shared>) {
        if let Some(world) = &mut self.world {
            world.table = Arc::clone(&view);
        }
        let old = self.store.take_view(view);
        self.answer(FromLcore::Viewed(old));
    }

    pub(crate) fn fold(&mut self) {
        let Some(World { snapshot, .. }) = &self.world else { return };
        let lcore = self.place.lcore() as usize;
        self.paths.fold(|v6, counter, packets, bytes| {
            snapshot.family(v6).counters[lcore].add(counter, packets, bytes);
        });
    }

    /// The control core saw a deadline pass; it may have moved since.
    fn expire(&mut self, ending: &Ending, at: At<'_>) {
        let Some(conn) = self.store.get(ending.id) else { return };
        if conn.is_expired(at.now.tick) {
            self.end(ending, None, at);
        } else {
            self.store.arm(ending.id.conn, at.now.tick);
        }
    }

    fn delete_by(&mut self, ending: &Ending, by: Option<u32>, at: At<'_>) -> bool {
        let same = self.store.get(ending.id).is_some();
        if same {
            self.end(ending, by, at);
        }
        same
    }

    /// `gc_worker` in pressure mode: a conn that may go early goes while the table is nearly full.
    fn relieve(&mut self, ending: &Ending, at: At<'_>) {
        let Some(conn) = self.store.get(ending.id) else { return };
        if at.table.capacity.is_pressed() && can_go_early(conn) {
            self.end(ending, None, at);
        }
    }

    pub(crate) fn delete_if_same(&mut self, id: ConnId, at: At<'_>) -> bool {
        let same = self.store.get(id).is_some();
        if same {
            self.delete_conn(id.conn, at);
        }
        same
    }

    fn list(&self, slice: &mut Slice, at: At<'_>) {
        let end = at.table.records.numbers(slice.family);
        let room = (slice.conns.capacity() - slice.conns.len()) as u32;
        let count = slice.numbers.min(room);
        for conn in self.store.slice(slice.family, slice.from, count) {
            if !conn.is_expired(at.now.tick) {
                slice.conns.push(view_of(conn, at));
                if slice.zero
                    && let Some(extension) = at.table.extension(conn)
                {
                    extension.zero();
                }
            }
        }
        slice.from = slice.from.saturating_add(count);
        slice.end = slice.from >= end;
    }

    /// Tells listeners what happened to a conn.
    pub(crate) fn report(&mut self, events: u16, number: ConnRef, at: At<'_>) {
        self.report_by(events, number, None, at);
    }

    /// What a packet has brought about is told where it got through, together with what earlier
    /// ones have that did not; else it waits (`nf_ct_deliver_cached_events`).
    #[cold]
    #[inline(never)]
    pub(crate) fn settle_events(&mut self, events: u16, conn: Conn<'_>, passed: bool, at: At<'_>) {
        let wanted = self.listened() && conn.reported().conn & events != 0;
        let waiting = if passed || !wanted { 0 } else { events };
        if conn.waiting() != waiting {
            conn.set_waiting(waiting);
        }
        if passed {
            self.report(events, conn.number(), at);
        }
    }

    /// The same as [`Self::report`] for what a process has asked for.
    pub(crate) fn report_by(
        &mut self,
        events: u16,
        number: ConnRef,
        by_process: Option<u32>,
        at: At<'_>,
    ) {
        if self.listened()
            && let Some(conn) = at.table.records.get(number)
            && conn.reported().conn & events != 0
            // What the packet's own answer has ended meanwhile has been reported as such.
            && conn.status().has(Status::CONFIRMED)
        {
            let kind = events::kind(events);
            let view = match kind {
                EventKind::Destroy => view_of_gone(conn, at),
                _ if events & events::LABEL == 0 => ConnView { labels: 0, ..view_of(conn, at) },
                _ => view_of(conn, at),
            };
            self.report_view_by(kind, view, by_process, at);
        }
    }

    pub(crate) fn report_view(&mut self, kind: EventKind, conn: ConnView, at: At<'_>) {
        self.report_view_by(kind, conn, None, at);
    }

    fn report_view_by(
        &mut self,
        kind: EventKind,
        conn: ConnView,
        by_process: Option<u32>,
        at: At<'_>,
    ) {
        let unix_ns = at.now.unix_ns;
        self.tell(FromLcore::Event(EventView { kind, conn, unix_ns, by_process }));
    }

    /// True while somebody wants to hear of events.
    pub(crate) fn listened(&self) -> bool {
        self.links.listeners.load(Relaxed)
    }

    /// Decides what will be told of a conn that begins, if a rule has `wanted` something.
    pub(crate) fn decide_reported(&self, number: ConnRef, wanted: Reported, at: At<'_>) {
        let reported = Reported::at_birth(wanted, at.policy.knobs.events, self.listened());
        if reported != Reported::default()
            && let Some(conn) = at.table.records.get(number)
        {
            conn.set_reported(reported);
        }
    }

    /// Sends a frame that the control core has built.
    fn transmit_bytes(&mut self, pool: &mut P, port: PortId, bytes: &[u8]) {
        let Some(mut frame) = self.generate(pool, bytes.len()) else { return };
        frame.head_mut().copy_from_slice(bytes);
        self.put_out(port, frame);
    }

    /// An answer to the control core: never more of them than it asked questions.
    fn answer(&mut self, message: FromLcore) {
        self.outbox.push_back(message);
    }
}

/// A conn as it is shown to people.
pub(crate) fn view_of(conn: Conn<'_>, at: At<'_>) -> ConnView {
    let (id, original) = (conn.id(), conn.orig());
    let extension = at.table.extension(conn);
    let counted = |direction| {
        let (packets, bytes) = extension.map_or((0, 0), |e| e.counted(direction));
        Counters { packets, bytes }
    };
    let words = conn.tracker_words();
    let started = extension.map_or(0, |e| e.started_ns());
    ConnView {
        key: (id.conn.bits() as u64) << 16 | id.incarnation as u64,
        id: shown_id(id, at),
        original,
        reply: conn.reply(),
        zone_original: conn.zone(Direction::Original),
        zone_reply: conn.zone(Direction::Reply),
        status: conn.status(),
        remaining_secs: conn.deadline().remaining_secs(at.now.tick),
        state: match original.proto {
            proto::TCP => Some(TcpTrack::state_of_word(words[TcpTrack::STATE_WORD]).name()),
            proto::SCTP => Some(SctpState::of_word(words[0]).name()),
            proto::DCCP => Some(DccpState::of_word(words[0]).name()),
            _ => None,
        },
        sctp_tags: (original.proto == proto::SCTP).then(|| SctpTrack::from_words(words).tags()),
        dccp_role: (original.proto == proto::DCCP)
            .then(|| DccpTrack::from_words(words).role().name()),
        gre_timeouts_secs: (original.proto == proto::GRE).then(|| gre::timeouts_of(words[0])),
        mark: conn.mark(),
        counters: extension
            .filter(|e| e.counts())
            .map(|_| [counted(Direction::Original), counted(Direction::Reply)]),
        start_unix_ns: (started != 0).then_some(started),
        stop_unix_ns: None,
        helper: extension.and_then(|e| e.helper()).map(|helper| helper.name().to_owned()),
        labels: extension.and_then(|e| e.labels()).unwrap_or_default(),
    }
}

/// A conn that ends, as its last event tells of it: without helper and labels. One whose time was
/// up ended then, whenever that was noticed (`nf_ct_delete`).
pub(crate) fn view_of_gone(conn: Conn<'_>, at: At<'_>) -> ConnView {
    let view = view_of(conn, at);
    let stop = at.now.unix_ns.saturating_sub(conn.deadline().passed_ns(at.now.tick));
    ConnView { stop_unix_ns: view.start_unix_ns.map(|_| stop), helper: None, labels: 0, ..view }
}

/// The conn that a view was made of.
pub fn id_of_key(key: u64) -> ConnId {
    ConnId { conn: ConnRef::from_bits((key >> 16) as u32), incarnation: key as u16 }
}

/// A number for people that tells two lives of a record apart and gives no address away
/// (`nf_ct_get_id`).
fn shown_id(id: ConnId, at: At<'_>) -> u32 {
    let word = (id.conn.bits() as u64) << 32 | id.incarnation as u64;
    let wide = (word ^ at.table.seed.0[0]) as u128 * (at.table.seed.0[1] | 1) as u128;
    (wide as u64 ^ (wide >> 64) as u64) as u32
}
