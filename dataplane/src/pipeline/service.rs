//! What the control core asks of an lcore, done between bursts and in bounded pieces.

use std::sync::Arc;

use crate::conntrack::record::ConnRef;
use crate::conntrack::state::Status;
use crate::conntrack::tuple::proto;
use crate::conntrack::view::{ConnEvent, ConnView, EventKind};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{ConnId, FromLcore, Slice, ToLcore};
use crate::pipeline::snapshot::Snapshot;
use crate::pipeline::track::tracker_state;
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::time::Now;

impl<P: FramePool> Pipeline<P> {
    /// Does what one message asks; answers leave through [`Pipeline::deliver`].
    pub fn serve(&mut self, pool: &mut P, message: ToLcore, now: Now) {
        match message {
            ToLcore::Adopt(snapshot) => self.adopt(snapshot),
            ToLcore::Expire(mut conns) => {
                for id in conns.drain(..) {
                    self.expire(id, now);
                }
                self.answer(FromLcore::Expired(conns));
            }
            ToLcore::Delete(mut conns) => {
                conns.retain(|id| self.delete_if_same(*id, now));
                self.answer(FromLcore::Deleted(conns));
            }
            ToLcore::List(mut slice) => {
                self.list(&mut slice, now);
                self.answer(FromLcore::Listed(slice));
            }
            ToLcore::Fold => {
                self.fold();
                self.answer(FromLcore::Folded);
            }
            ToLcore::Neighbour(next_hop) => {
                let policy = self.snapshot.clone();
                self.settle_held(pool, next_hop, At { now, policy: &policy });
            }
            ToLcore::Transmit(port, bytes) => self.transmit_bytes(pool, port, &bytes),
        }
    }

    /// Frees every frame that still waits for a neighbour.
    pub fn stop(&mut self) {
        while let Some(frame) = self.held.pop() {
            self.links.counters.held.sub(1);
            self.drop_frame(frame, DropReason::Stopped);
        }
    }

    /// The policy of the next packet on; the old one goes back with its final counters.
    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        if snapshot.generation != self.snapshot.generation {
            self.fold();
            self.paths.clear();
        }
        let old = core::mem::replace(&mut self.snapshot, snapshot);
        self.answer(FromLcore::Retired(old));
    }

    fn fold(&mut self) {
        let (snapshot, lcore) = (&self.snapshot, self.lcore);
        self.paths.fold(|v6, counter, packets, bytes| {
            snapshot.family(v6).counters[lcore].add(counter, packets, bytes);
        });
    }

    /// The control core saw a deadline pass; it may have moved since.
    fn expire(&mut self, id: ConnId, now: Now) {
        let Some(conn) = self.same(id) else { return };
        if conn.deadline().has_passed(now.tick) {
            self.delete_conn(id.conn, now);
        } else {
            self.store.rearm(id.conn, now.tick);
        }
    }

    fn delete_if_same(&mut self, id: ConnId, now: Now) -> bool {
        let same = self.same(id).is_some();
        if same {
            self.delete_conn(id.conn, now);
        }
        same
    }

    /// The conn, if it is still the one that was meant.
    fn same(&self, id: ConnId) -> Option<crate::conntrack::record::Conn<'_>> {
        self.store
            .conn(id.conn)
            .filter(|c| c.incarnation() == id.incarnation && c.status().has(Status::CONFIRMED))
    }

    fn list(&self, slice: &mut Slice, now: Now) {
        let room = slice.conns.capacity() - slice.conns.len();
        let (next, end) = self.store.slice(slice.v6, slice.from, slice.numbers, room, |conn| {
            if let Some(view) = self.view(conn, now)
                && view.remaining_secs > 0
            {
                slice.conns.push(view);
            }
        });
        slice.from = next;
        slice.end = end;
    }

    /// A conn as it is shown to people.
    fn view(&self, reference: ConnRef, now: Now) -> Option<ConnView> {
        let conn = self.store.conn(reference)?;
        let orig = conn.orig();
        Some(ConnView {
            conn: reference,
            incarnation: conn.incarnation(),
            orig,
            reply: conn.reply(),
            status: conn.status(),
            remaining_secs: conn.deadline().remaining_secs(now.tick),
            protocol_state: (orig.proto == proto::TCP).then(|| tracker_state(&conn, orig.proto)).flatten(),
            mark: conn.mark(),
            zone_orig: conn.zones().0,
            zone_reply: conn.zones().1,
            counters: self.store.counters(reference),
            start_unix_ns: self.store.started(reference),
            now_unix_ns: now.unix_ns,
        })
    }

    pub(crate) fn event(&self, kind: EventKind, conn: ConnRef, now: Now) -> Option<ConnEvent> {
        Some(ConnEvent { kind, at_unix_ns: now.unix_ns, view: self.view(conn, now)? })
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
