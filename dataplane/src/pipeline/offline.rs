//! A pipeline beside the wires: conns copied into it, and packets that nobody has sent.
//!
//! What would become of a packet is found out by the code that judges real ones, on a table that
//! nobody else sees. What the packet would meet in the live table is copied from there; the live
//! table is only read.

use crate::conntrack::events::Reported;
use crate::conntrack::expect::Expectation;
use crate::conntrack::helper::Policies;
use crate::conntrack::record::{Conn, ConnRef, Start};
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::store::Shared;
use crate::pipeline::burst::Prejudged;
use crate::pipeline::frame::{Burst, Frame, FramePool};
use crate::pipeline::track::{Accepted, Judged};
use crate::pipeline::transit::Transit;
use crate::pipeline::{Arrival, Pipeline};
use crate::rules::facts::PortId;
use crate::time::Now;
use crate::wire::headers;

impl<P: FramePool> Pipeline<P> {
    /// Enters a copy of a conn of another table, without what events wait of it: its packets are
    /// tracked and translated as there. `None` where the copy's tuples are taken, or there is no
    /// room.
    pub fn copy(&mut self, from: &Shared, conn: Conn<'_>, now: Now) -> Option<ConnRef> {
        let (original, reply, zones) = (conn.orig(), conn.reply(), conn.zones());
        let (zones, tracker) = ([zones.original, zones.reply], conn.tracker_words());
        let start = Start { orig: &original, reply: &reply, zones, tracker, era: conn.era() };
        let number = self.store.begin(&start).ok()?;
        let entered = self.fill(number, from, conn, now);
        if entered.is_none() {
            self.store.release_unconfirmed(number);
        }
        entered
    }

    fn fill(
        &mut self,
        number: ConnRef,
        from: &Shared,
        conn: Conn<'_>,
        now: Now,
    ) -> Option<ConnRef> {
        if let Some(known) = from.extension(conn) {
            let copy = self.store.extend(number)?;
            copy.begin(known.counts(), known.started_ns(), known.labels().is_some());
            copy.set_labels(known.labels().unwrap_or_default());
            for direction in [Direction::Original, Direction::Reply] {
                let (packets, bytes) = known.counted(direction);
                copy.count(direction, packets, bytes);
            }
            copy.set_helper(known.helper());
            copy.set_timeout_policy(known.timeout_policy());
        }
        if let Some(known) = from.proxied(conn) {
            let copy = self.store.extend_widely(number)?;
            copy.set_number(known.number());
            copy.set_time(known.time());
            copy.set_shift(known.shift());
            copy.set_time_shift(known.time_shift());
        }
        let table = &self.world.as_ref()?.table;
        let copy = table.records.get(number)?;
        copy.set_mark(conn.mark());
        for direction in [Direction::Original, Direction::Reply] {
            copy.set_passed(direction, conn.passed(direction));
        }
        let (l3, l4) = conn.deltas(Direction::Original);
        copy.set_deltas(l3, l4);
        if let Some(port) = conn.masqueraded_by() {
            copy.set_masqueraded_by(port);
        }
        copy.set_reported(Reported::default());
        let status = conn.status();
        copy.add_status(Status(status.0 & !Status::CONFIRMED.0));
        self.store.count_as(number, from, conn);
        self.store.confirm(number, conn.deadline(), now.tick).ok()?;
        Some(number)
    }

    /// Says whose packets led to a copy.
    pub fn set_master(&mut self, child: ConnRef, master: ConnRef) {
        let master = self.store.conn(master).map(Conn::id);
        if let (Some(master), Some(extension)) = (master, self.store.extend(child)) {
            extension.set_master(master);
        }
    }

    /// Enters an expectation of another table, whose master is the copy `master`.
    pub fn expect(&mut self, what: &Expectation, master: ConnRef, helpers: &Policies, now: Now) {
        let Some(id) = self.store.conn(master).map(Conn::id) else { return };
        let Some(world) = &self.world else { return };
        let (what, policy) = (Expectation { master: id, ..*what }, helpers.of(what.helper));
        // Where it finds no room the packet begins a conn that nobody expects.
        let _ = world.table.expectations.enter(0, &what, policy, true, now);
    }

    /// Ends a copy.
    pub fn forget_copy(&mut self, copy: ConnRef) {
        self.store.forget_copy(copy);
    }

    /// A conn of this table: a copy, or one that a packet has begun.
    pub fn conn(&self, number: ConnRef) -> Option<Conn<'_>> {
        self.store.conn(number)
    }

    /// Forgets what would be told to the control core.
    pub fn forget_messages(&mut self) {
        self.outbox.clear();
    }

    /// Takes one frame that came in by a port with a mark to its end.
    pub fn take_frame(
        &mut self,
        pool: &mut P,
        (port, mark): (PortId, u32),
        frame: P::Frame,
        now: Now,
    ) {
        let mut frames = Burst::new();
        frames.push(frame);
        self.arrived(pool, Arrival { mark, ..Arrival::from(port) }, &mut frames, now);
    }

    /// Sends a packet of our own; `link` is what link-local addresses mean.
    pub fn send_own(
        &mut self,
        pool: &mut P,
        (link, mark): (Option<PortId>, u32),
        frame: P::Frame,
        now: Now,
    ) {
        self.own(pool, (link, mark), None, frame, now);
    }

    /// Takes a packet through the hooks that the tracker of its conn, a copy, has accepted: one
    /// that came in by `port`, or one of our own.
    pub fn judge_accepted(
        &mut self,
        pool: &mut P,
        port: Option<PortId>,
        (conn, direction): (ConnRef, Direction),
        frame: P::Frame,
        now: Now,
    ) {
        let Some(before) = self.store.conn(conn).map(Conn::status) else { return };
        let judged = Judged::Accepted(Accepted { before, ..Accepted::default() });
        let prejudged = Some(Prejudged { conn, direction, judged });
        if port.is_none() {
            return self.own(pool, (None, 0), prejudged, frame, now);
        }
        let Some(world) = self.world.take() else { return };
        if let Ok(headers) = headers::parse(frame.head(), frame.total_len()) {
            let mut t = Transit::new(frame, headers, port);
            t.prejudged = prejudged;
            self.walk_received(pool, t, world.moment(now, 0).at());
        }
        self.world = Some(world);
    }

    fn own(
        &mut self,
        pool: &mut P,
        (link, mark): (Option<PortId>, u32),
        prejudged: Option<Prejudged>,
        frame: P::Frame,
        now: Now,
    ) {
        let Some(world) = self.world.take() else { return };
        if let Ok(headers) = headers::parse(frame.head(), frame.total_len()) {
            let moment = world.moment(now, 0);
            let at = moment.at();
            let mut t = Transit::new(frame, headers, None);
            (t.mark, t.prejudged) = (mark, prejudged);
            self.note_beginning(&t);
            let exit = self.local_out(pool, &mut t, link, at).unwrap_or_else(|end| end);
            self.finish(pool, t, exit, at);
        }
        self.world = Some(world);
    }
}
