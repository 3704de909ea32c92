//! A [`Gateway`] made of plain fields, for the tests of the tools.

use std::collections::BTreeMap;

use dataplane::conntrack::dccp::{DccpState, Role};
use dataplane::conntrack::expect::ExpectationView;
use dataplane::conntrack::sctp::SctpState;
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::Tuple;
use dataplane::conntrack::view::{ConnView, CpuStatistics, SynproxyStatistics};
use dataplane::pipeline::by_hand::{Change, NewConn, Refusal, Told};

use dataplane::rules::kept::Kept;
use dataplane::rules::matches::recent;
use dataplane::rules::tables::Tables;

use super::conntrack_filter::Family;
use super::conntrack_invalid::Seen;
use super::stats::Stats;
use super::{Changed, ExpectRefusal, Gateway, Silent, SysctlError, WantedExpectation, sysctl};
use crate::labels::Names;

pub(super) struct StandIn {
    pub(super) conns: Vec<ConnView>,
    pub(super) expectations: Vec<ExpectationView>,
    pub(super) invalid: Vec<Seen>,
    pub(super) stats: Stats,
    pub(super) values: BTreeMap<String, u64>,
    /// A worker that does not answer, and deletions before it falls silent.
    pub(super) silent: Option<Silent>,
    pub(super) deletions_left: usize,
    /// The text of the file with the names of labels, if there is one.
    pub(super) label_names: Option<&'static str>,
    /// What rules share by name.
    pub(super) tables: Tables,
}

impl StandIn {
    pub(super) fn with(conns: impl IntoIterator<Item = ConnView>) -> StandIn {
        let mut conns: Vec<ConnView> = conns.into_iter().collect();
        for (i, conn) in conns.iter_mut().enumerate() {
            conn.key = i as u64;
        }
        let values = sysctl::keys().map(|k| (k.name, 30)).collect();
        let (invalid, stats) = (Vec::new(), Stats::default());
        let expectations = Vec::new();
        StandIn {
            expectations,
            conns,
            invalid,
            stats,
            values,
            silent: None,
            deletions_left: 0,
            label_names: None,
            tables: Tables::default(),
        }
    }
}

impl Gateway for StandIn {
    fn recent(&self, name: &str) -> Option<Kept<recent::Table>> {
        self.tables.recent(name)
    }

    fn conns(&mut self) -> Result<Vec<ConnView>, Silent> {
        match self.silent {
            Some(silent) if self.deletions_left == 0 => Err(silent),
            _ => Ok(self.conns.clone()),
        }
    }

    fn conns_zeroed(&mut self, family: Option<Family>) -> Result<Vec<ConnView>, Silent> {
        let conns = self.conns()?;
        for conn in &mut self.conns {
            if family.is_none_or(|f| f == Family::of(conn.original.src)) {
                conn.counters = conn.counters.map(|_| Default::default());
            }
        }
        Ok(conns)
    }

    fn get(&mut self, tuple: &Tuple) -> Result<Option<ConnView>, Silent> {
        let has = |conn: &&ConnView| [conn.original, conn.reply].contains(tuple);
        self.silent.map_or(Ok(self.conns.iter().find(has).cloned()), Err)
    }

    /// Makes no NAT: the reply tuple is as asked for.
    fn create(&mut self, new: NewConn) -> Result<Result<(), Refusal>, Silent> {
        if let Some(silent) = self.silent {
            return Err(silent);
        }
        let [original, reply] = new.tuples;
        let taken = |conn: &ConnView| {
            conn.zone_original == new.zones[0]
                && [original, reply].iter().any(|t| [conn.original, conn.reply].contains(t))
        };
        if self.conns.iter().any(taken) {
            return Ok(Err(Refusal::Exists));
        }
        if new.status.has(Status::EXPECTED) {
            return Ok(Err(Refusal::Busy));
        }
        self.conns.push(ConnView {
            key: self.conns.len() as u64,
            original,
            reply,
            zone_original: new.zones[0],
            zone_reply: new.zones[1],
            remaining_secs: new.timeout_secs,
            status: new.status,
            mark: new.mark,
            labels: new.labels,
            state: match new.told {
                Told::Tcp(state) => Some(state.name()),
                Told::Sctp(state, _) => state.map(SctpState::name),
                Told::Dccp(state, _) => state.map(DccpState::name),
                Told::Nothing => None,
            },
            sctp_tags: match new.told {
                Told::Sctp(_, [Some(original), Some(reply)]) => Some([original, reply]),
                _ => None,
            },
            dccp_role: match new.told {
                Told::Dccp(_, role) => role.map(Role::name),
                _ => None,
            },
            ..ConnView::default()
        });
        Ok(Ok(()))
    }

    fn change(&mut self, keys: &[u64], change: &Change) -> Result<Vec<Changed>, Silent> {
        if let Some(silent) = self.silent {
            return Err(silent);
        }
        let mut done = Vec::new();
        for conn in self.conns.iter_mut().filter(|conn| keys.contains(&conn.key)) {
            let outcome = if change.nat { Err(Refusal::NotSupported) } else { Ok(()) };
            if outcome.is_ok() {
                conn.mark = change.mark_of(conn.mark);
                conn.labels = change.labels_of(conn.labels);
                conn.remaining_secs = change.timeout_secs.unwrap_or(conn.remaining_secs);
                conn.status = conn.status.with(change.status);
            }
            done.push((conn.clone(), outcome));
        }
        Ok(done)
    }

    fn delete(&mut self, key: u64) -> Result<bool, Silent> {
        match (self.silent, self.deletions_left.checked_sub(1)) {
            (Some(silent), None) => return Err(silent),
            (_, left) => self.deletions_left = left.unwrap_or(0),
        }
        let before = self.conns.len();
        self.conns.retain(|c| c.key != key);
        Ok(self.conns.len() != before)
    }

    fn flush(&mut self, family: Option<Family>) -> Result<(), Silent> {
        self.conns.retain(|c| family.is_some_and(|f| f != Family::of(c.original.src)));
        self.silent.map_or(Ok(()), Err)
    }

    fn count(&mut self) -> u32 {
        self.conns.len() as u32
    }

    fn invalid(&mut self) -> Result<Vec<Seen>, Silent> {
        self.silent.map_or_else(|| Ok(self.invalid.clone()), Err)
    }

    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Silent> {
        self.silent.map_or(Ok(self.expectations.clone()), Err)
    }

    fn delete_expectation(&mut self, key: u64) -> Result<bool, Silent> {
        let before = self.expectations.len();
        self.expectations.retain(|e| e.key != key);
        Ok(self.expectations.len() != before)
    }

    /// Of a master that is a TFTP client's; nobody else has a helper.
    fn expect(&mut self, wanted: &WantedExpectation) -> Result<Result<(), ExpectRefusal>, Silent> {
        let Some(master) = self.get(&wanted.master)? else {
            return Ok(Err(ExpectRefusal::NoMaster));
        };
        if master.original.dst_id != 69 {
            return Ok(Err(ExpectRefusal::NoHelper));
        }
        if self.expectations.iter().any(|e| e.what.is_for(&wanted.tuple)) {
            return Ok(Err(ExpectRefusal::Exists));
        }
        let mut view = super::conntrack_expect::tests::tftp(9, "10.1.0.2", "10.2.0.2");
        view.what.master_tuple = master.original;
        (view.what.tuple, view.what.mask) = (wanted.tuple, wanted.mask);
        self.expectations.push(view);
        Ok(Ok(()))
    }

    fn expect_count(&mut self) -> u32 {
        self.expectations.len() as u32
    }

    fn cpu_statistics(&mut self) -> Vec<CpuStatistics> {
        vec![CpuStatistics::default(); 2]
    }

    fn synproxy_statistics(&self) -> Vec<SynproxyStatistics> {
        vec![SynproxyStatistics { syn_received: 1, ..SynproxyStatistics::default() }; 2]
    }

    fn label_names(&self) -> Result<Names, String> {
        self.label_names.map(Names::parse).ok_or_else(|| "No such file or directory".to_owned())
    }

    fn unix_ns(&self) -> u64 {
        super::conntrack_format::tests::START
    }

    fn sysctl(&mut self, key: &str) -> Option<u64> {
        self.values.get(key).copied()
    }

    fn set_sysctl(&mut self, key: &str, value: u64) -> Result<(), SysctlError> {
        *self.values.get_mut(key).ok_or(SysctlError::Unknown)? = value;
        Ok(())
    }

    fn stats(&mut self) -> Stats {
        self.stats.clone()
    }
}
