//! Conns that a tool asks for by their tuple, makes, or changes, and expectations that it makes.
//!
//! What concerns a conn is one question to the lcore that owns it or is to own it. Whose answer
//! does not come is named, as for listings. Expectations are entered here, under their lock.

use dataplane::conntrack::expect::{Busy, Expectation, ExpectationView, Flags, Refused};
use dataplane::conntrack::helper::Helper;
use dataplane::conntrack::record::ConnId;
use dataplane::conntrack::tuple::Tuple;
use dataplane::conntrack::view::ConnView;
use dataplane::pipeline::by_hand::{Change, Changes, NewConn, Refusal};
use dataplane::pipeline::messages::{BATCH_MAX, Slice, ToLcore};
use dataplane::pipeline::route::Destination;
use dataplane::pipeline::service::id_of_key;
use dataplane::rules::facts::PortId;

use super::ControlCore;
use crate::tools::{Changed, ExpectRefusal, Gateway, Silent, WantedExpectation};

impl ControlCore {
    /// Who asks from now on, for the events of what is done for it.
    pub fn asked_by(&mut self, process: Option<u32>) {
        self.asker = process;
    }

    /// The live conn that has a tuple in zone 0.
    pub(super) fn conn_of(&mut self, tuple: &Tuple) -> Result<Option<ConnView>, Silent> {
        let hash = self.shared.hash(tuple, 0);
        let found = self.shared.find(hash, tuple, 0, self.tick_now()).filter(|f| !f.expired);
        let Some((number, Some(owner))) = found.map(|f| (f.conn.number(), f.conn.owner())) else {
            return Ok(None);
        };
        let lcore = usize::from(owner);
        let (family, from, conns) = (number.family(), number.number(), Vec::with_capacity(1));
        let slice = Slice { family, from, numbers: 1, zero: false, end: false, conns };
        let question = self.ask();
        self.send(lcore, ToLcore::List(question, Box::new(slice)))?;
        self.wait(|core| core.inbox.listed.is_none().then_some(lcore))?;
        let listed = self.inbox.listed.take().ok_or_else(|| self.silent(lcore))?;
        // By then the record may have another conn, or another lcore.
        Ok(listed.conns.into_iter().find(|conn| [conn.original, conn.reply].contains(tuple)))
    }

    /// Makes a conn, owned by the lcore that its first packet would come to.
    pub(super) fn create_conn(&mut self, new: NewConn) -> Result<Result<(), Refusal>, Silent> {
        let lcore = usize::from(self.newcomer(&new.tuples[0], new.zones[0]));
        let question = self.ask();
        let new = NewConn { by_process: self.asker, ..new };
        self.send(lcore, ToLcore::Create(question, Box::new(new)))?;
        self.wait(|core| core.inbox.created.is_none().then_some(lcore))?;
        let created = self.inbox.created.take().ok_or_else(|| self.silent(lcore))?;
        Ok(created.outcome)
    }

    /// Makes an expectation (`ctnetlink_create_expect`). Where its master ends meanwhile it matches
    /// nothing, and the sweep takes it away.
    pub(super) fn expect_by_hand(
        &mut self,
        wanted: &WantedExpectation,
    ) -> Result<Result<(), ExpectRefusal>, Silent> {
        let found = |e: &ExpectationView| e.what.zone == 0 && e.what.is_for(&wanted.tuple);
        if self.expectations()?.iter().any(found) {
            return Ok(Err(ExpectRefusal::Exists));
        }
        let Some(view) = self.conn_of(&wanted.master)? else {
            return Ok(Err(ExpectRefusal::NoMaster));
        };
        let master = id_of_key(view.key);
        let conn = self.shared.records.get(master.conn);
        let facts = conn.map(|conn| (conn.zones().id(), conn.reported().expectations));
        let (Some(helper), Some((zone, reported))) =
            (view.helper.as_deref().and_then(Helper::from_name), facts)
        else {
            return Ok(Err(ExpectRefusal::NoHelper));
        };
        let what = Expectation {
            tuple: wanted.tuple,
            mask: wanted.mask,
            master,
            master_tuple: view.original,
            zone,
            class: 0,
            flags: Flags::default(),
            helper,
            assigns: None,
            follow: None,
            reported,
        };
        let policy = self.knobs.helpers.of(helper);
        self.with_expectations(|table, now| match table.enter(0, &what, policy, false, now) {
            Ok(()) => Ok(Ok(())),
            Err(Refused::Busy) => Err(Busy),
            Err(Refused::Already) => Ok(Err(ExpectRefusal::Already)),
            Err(Refused::Clash) => Ok(Err(ExpectRefusal::Clash)),
            Err(Refused::ClassFull | Refused::TableFull) => Ok(Err(ExpectRefusal::Full)),
        })
    }

    fn newcomer(&self, original: &Tuple, zone: u16) -> u8 {
        let hash = self.shared.hash(original, zone);
        let port = match self.snapshot.routes.classify(original.src, None) {
            Destination::Forward(route) => PortId(route.port),
            Destination::Local(port) => PortId(port),
            _ => PortId(0),
        };
        self.layout.newcomer(port, original, hash).min(self.lcores.len() as u8 - 1)
    }

    /// Changes conns, in batches at their owners.
    pub(super) fn change_conns(
        &mut self,
        keys: &[u64],
        change: &Change,
    ) -> Result<Vec<Changed>, Silent> {
        let mut by_owner: Vec<Vec<ConnId>> = vec![Vec::new(); self.lcores.len()];
        for id in keys.iter().copied().map(id_of_key) {
            // If the owner changes meanwhile it is another conn, and nobody takes it for this one.
            let owner = self.shared.records.get(id.conn).and_then(|conn| conn.owner());
            if let Some(ids) = owner.and_then(|owner| by_owner.get_mut(usize::from(owner))) {
                ids.push(id);
            }
        }
        let mut all = Vec::with_capacity(keys.len());
        for (lcore, ids) in by_owner.iter().enumerate() {
            for batch in ids.chunks(BATCH_MAX) {
                let (conns, done) = (batch.to_vec(), Vec::with_capacity(batch.len()));
                let by_process = self.asker;
                let question = self.ask();
                let changes = Changes { change: *change, conns, by_process, done };
                self.send(lcore, ToLcore::Change(question, Box::new(changes)))?;
                self.wait(|core| core.inbox.changed.is_none().then_some(lcore))?;
                let changed = self.inbox.changed.take().ok_or_else(|| self.silent(lcore))?;
                all.extend(changed.done);
            }
        }
        Ok(all)
    }
}
