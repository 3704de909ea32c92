//! The life of a conn between its first packet and the table: made, confirmed, joined, deleted.
//!
//! Follows `__nf_conntrack_alloc`, `__nf_conntrack_confirm`, `nf_ct_resolve_clash` and what early
//! drop does around them. Several lcores may confirm at once: the index lets one of them in, and
//! the others join it, step aside, or lose their packet, as in the kernel.

use crate::conntrack::index::Refused;
use crate::conntrack::record::ConnRef;
use crate::conntrack::state::Direction;
use crate::conntrack::store::AllocError;
use crate::conntrack::tuple::{Tuple, proto};
use crate::conntrack::view::{ConnView, EventKind};
use crate::nat::rewrite::Deltas;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::FramePool;
use crate::pipeline::handoff::HOPS_MAX;
use crate::pipeline::messages::FromLcore;
use crate::pipeline::service::view_of;
use crate::pipeline::track::ZONE;
use crate::pipeline::transit::{Attached, Attachment, Exit, Transit};
use crate::pipeline::{At, Pipeline};

/// Conns that one early drop can delete: two entries each would only make it fewer.
const EARLY_DROPS_MAX: usize = 56;

impl<P: FramePool> Pipeline<P> {
    /// A record within `max`, after early drop if need be. What other lcores own only they can
    /// drop: where nothing of ours can go, the packet goes to one of them.
    pub(crate) fn allocate(
        &mut self,
        tuple: &Tuple,
        reply: &Tuple,
        at: At<'_>,
    ) -> Result<ConnRef, Exit> {
        let mut result = self.store.allocate(tuple, reply, [ZONE, ZONE]);
        if result == Err(AllocError::Full) {
            let hash = at.table.hash(tuple, ZONE);
            self.drop_early(hash, at);
            result = self.store.allocate(tuple, reply, [ZONE, ZONE]);
            if result == Err(AllocError::Full)
                && at.hops < HOPS_MAX
                && let Some(lcore) = self.store.droppable_elsewhere(hash, at.now.tick)
            {
                return Err(Exit::Elsewhere(lcore));
            }
        }
        result.map_err(|error| {
            self.links.counters.conntrack.drop.add(1);
            Exit::Drop(match error {
                AllocError::Full => {
                    // Once a tick is more than is logged, and leaves room for other messages.
                    if self.told_full != Some(at.now.tick) {
                        self.told_full = Some(at.now.tick);
                        self.tell(FromLcore::TableFull);
                    }
                    DropReason::TableFull
                }
                AllocError::NoRecord => DropReason::NoRecord,
            })
        })
    }

    fn drop_early(&mut self, hash: u64, at: At<'_>) {
        let listened = self.listened(at);
        let mut gone: [Option<ConnView>; EARLY_DROPS_MAX] = [const { None }; EARLY_DROPS_MAX];
        let mut n = 0;
        let dropped = self.store.early_drop(hash, at.now.tick, |conn, _| {
            if listened && let Some(slot) = gone.get_mut(n) {
                *slot = Some(view_of(conn, at));
                n += 1;
            }
        });
        self.links.counters.conntrack.early_drop.add(dropped as u64);
        for view in gone.into_iter().flatten() {
            self.report_view(EventKind::Destroy, view, at);
        }
    }

    /// `nf_conntrack_confirm`: the packet leaves, so its conn enters the table.
    pub(crate) fn confirm(
        &mut self,
        t: &mut Transit<P::Frame>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Attached::Conn(a) = t.attached else { return Ok(()) };
        if !a.fresh || a.lent {
            return Ok(());
        }
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        if let Some(leaving) = conn.reply().inverted() {
            let deltas = Deltas::between(&conn.orig(), &leaving);
            conn.set_deltas(deltas.l3, deltas.l4);
        }
        let deadline = at.now.tick.plus_secs(a.timeout_secs);
        let done = match self.store.confirm_over(a.conn, a.instead_of, deadline, at.now.tick) {
            Ok(()) => {
                t.attached = Attached::Conn(Attachment { fresh: false, ..a });
                self.report(EventKind::New, a.conn, at);
                true
            }
            Err(Refused::Clash { with, side }) => self.resolve_clash(t, &a, (with, side), at),
            Err(_) => false,
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

    /// `__nf_ct_resolve_clash`: attaches the packet to a conn of the same tuples, or of exactly the
    /// reverse ones, instead of its own.
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
        if present != (orig, reply) && present != (reply, orig) {
            return false;
        }
        self.store.release_unconfirmed(a.conn);
        // Only an owner counts for a conn; the packet of another lcore's stays uncounted there.
        if self.owns(there)
            && at.policy.knobs.acct
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
        if at.table.records.get(number).is_some_and(|conn| self.owns(conn)) {
            self.report(EventKind::Destroy, number, at);
            self.store.delete(number);
        }
    }
}
