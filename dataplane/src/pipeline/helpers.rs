//! Helpers and expectations at their places in the hooks.
//!
//! A first packet is looked up among the expectations before its conn is anybody's; a child has its
//! master's mark and follows its translation. A master's packets are read by its helper where they
//! are about to leave, after all edits and right before confirm. Nothing here runs for a packet
//! without a helper while nothing is expected.

use crate::conntrack::expect::{self, Expectation, Expected, Follow, Refused};
use crate::conntrack::helper::Helper;
use crate::conntrack::helpers::tftp;
use crate::conntrack::record::{Conn, ConnRef};
use crate::conntrack::state::Status;
use crate::conntrack::tuple::Tuple;
use crate::nat::range::{Manip, Range};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{FromLcore, LogLine, Sentence};
use crate::pipeline::transit::{Attached, Attachment, Exit, Transit};
use crate::pipeline::{At, Pipeline, hooks, transport_segments};
use crate::wire::address::Address;

/// Bytes of a UDP header.
const UDP_HEADER: usize = 8;

/// The helper of a conn.
#[inline]
pub(crate) fn helper_of(conn: Conn<'_>, at: At<'_>) -> Option<Helper> {
    at.table.extension(conn)?.helper()
}

impl<P: FramePool> Pipeline<P> {
    /// The expectation that a new conn of this lcore fulfils, if there is one. On the way out with
    /// an error the conn is gone.
    #[inline(always)]
    pub(crate) fn expected(
        &mut self,
        number: ConnRef,
        tuple: &Tuple,
        at: At<'_>,
    ) -> Result<Option<Expected>, Exit> {
        if at.table.expectations.is_empty() {
            return Ok(None);
        }
        self.search_expectation(number, tuple, at)
    }

    /// The second half of `init_conntrack`: what a child has of its master.
    #[cold]
    #[inline(never)]
    fn search_expectation(
        &mut self,
        number: ConnRef,
        tuple: &Tuple,
        at: At<'_>,
    ) -> Result<Option<Expected>, Exit> {
        let Some(conn) = at.table.records.get(number) else { return Ok(None) };
        let (lcore, zone) = (self.place.lcore(), conn.zones().id());
        let records = &at.table.records;
        let found = at.table.expectations.find(lcore, (tuple, zone), records, at.now);
        let Ok(found) = found else {
            // Not to be taken for a conn that nobody expects: whoever sent it sends it again.
            self.store.release_unconfirmed(number);
            return Err(Exit::Drop(DropReason::Expectation));
        };
        if let Some(child) = &found {
            conn.add_status(Status::EXPECTED);
            conn.set_mark(child.mark);
            // Without a block the child does without what only rules about its master would see.
            if let Some(extension) = self.store.extend(number) {
                extension.set_master(child.master);
                extension.set_helper(child.helper);
            }
        }
        Ok(found)
    }

    /// `nf_nat_follow_master`: both ends of a fresh child are decided by its master's translation.
    #[cold]
    #[inline(never)]
    pub(crate) fn follow_master(
        &mut self,
        t: &mut Transit<P::Frame>,
        to: Follow,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let only =
            |address: Address| Range { addresses: Some((address, address)), ..Range::default() };
        let port = Range { ports: Some((to.dst_id, to.dst_id)), ..only(to.dst) };
        for (manip, range) in [(Manip::Src, only(to.src)), (Manip::Dst, port)] {
            let Attached::Conn(a) = t.attached else { return Ok(()) };
            self.bind(t, &a, manip, &range, at)?;
        }
        Ok(())
    }

    /// The helper slot (`nf_confirm`): the packet's helper reads it. Errors and answers that only
    /// borrow a conn are no packets of it.
    pub(crate) fn read_as_helper(
        &mut self,
        t: &Transit<P::Frame>,
        a: &Attachment,
        conn: Conn<'_>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        if a.error || a.lent {
            return Ok(());
        }
        match helper_of(conn, at) {
            None => Ok(()),
            Some(Helper::Tftp) => self.read_tftp(t, conn, at),
        }
    }

    /// `tftp_help` and `nf_nat_tftp`: the server answers from a port of its own to the port that
    /// the request came from, and the child goes where the master's answers go.
    fn read_tftp(
        &mut self,
        t: &Transit<P::Frame>,
        conn: Conn<'_>,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let message = payload::<{ tftp::BYTES }, _>(t);
        if !message.is_some_and(|bytes| tftp::is_request(&bytes)) {
            return Ok(());
        }
        let translated = conn.status().0 & (Status::SRC_NAT.0 | Status::DST_NAT.0) != 0;
        let follow = translated.then(|| {
            let orig = conn.orig();
            Follow { src: orig.dst, dst: orig.src, dst_id: orig.src_id }
        });
        self.announce(t, &expect::from_peer(conn, Helper::Tftp, follow), at)
    }

    /// `nf_ct_expect_related`. A packet that announces what cannot be expected is dropped, which
    /// the log says whatever `log_invalid` is: its sender tries again, and the child would come to
    /// nothing.
    fn announce(
        &mut self,
        t: &Transit<P::Frame>,
        wanted: &Expectation,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let policy = at.policy.knobs.helpers.of(wanted.helper);
        let lcore = self.place.lcore();
        match at.table.expectations.enter(lcore, wanted, policy, false, at.now) {
            Ok(()) => Ok(()),
            Err(refused) => {
                if refused == Refused::TableFull && self.told_expect_full != Some(at.now.tick) {
                    self.told_expect_full = Some(at.now.tick);
                    self.tell(FromLcore::ExpectationsFull);
                }
                let said = Some(Sentence::NotExpected(wanted.helper));
                self.tell(FromLcore::Log(LogLine { said, ..hooks::log_line(t) }));
                Err(DropReason::Expectation)
            }
        }
    }

    /// Whatever a conn of this lcore expects goes with it; called before it ends.
    pub(crate) fn end_expectations(&self, conn: Conn<'_>, at: At<'_>) {
        if conn.extension().is_some() && helper_of(conn, at).is_some() {
            // Where the lock cannot be had, the master's name leads nowhere from now on.
            at.table.expectations.end_master(self.place.lcore(), conn.id(), at.now);
        }
    }
}

/// The first `N` bytes behind the UDP header, wherever they lie; `None` if there are fewer.
fn payload<const N: usize, F: Frame>(t: &Transit<F>) -> Option<[u8; N]> {
    let (start, end) = (t.headers.l4 as usize + UDP_HEADER, t.headers.end as usize);
    let mut bytes = transport_segments(&t.frame, start, end).flatten();
    let mut found = [0; N];
    for place in &mut found {
        *place = *bytes.next()?;
    }
    Some(found)
}
