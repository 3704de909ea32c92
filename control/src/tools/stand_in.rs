//! A [`Gateway`] made of plain fields, for the tests of the tools.

use std::collections::BTreeMap;

use dataplane::conntrack::view::{ConnView, CpuStatistics};

use super::conntrack_filter::Family;
use super::conntrack_invalid::Seen;
use super::stats::Stats;
use super::{Gateway, Silent, SysctlError, sysctl};

pub(super) struct StandIn {
    pub(super) conns: Vec<ConnView>,
    pub(super) invalid: Vec<Seen>,
    pub(super) stats: Stats,
    pub(super) values: BTreeMap<String, u64>,
    /// A worker that does not answer, and deletions before it falls silent.
    pub(super) silent: Option<Silent>,
    pub(super) deletions_left: usize,
}

impl StandIn {
    pub(super) fn with(conns: impl IntoIterator<Item = ConnView>) -> StandIn {
        let mut conns: Vec<ConnView> = conns.into_iter().collect();
        for (i, conn) in conns.iter_mut().enumerate() {
            conn.key = i as u64;
        }
        let values = sysctl::keys().map(|k| (k.name, 30)).collect();
        let (invalid, stats) = (Vec::new(), Stats::default());
        StandIn { conns, invalid, stats, values, silent: None, deletions_left: 0 }
    }
}

impl Gateway for StandIn {
    fn conns(&mut self) -> Result<Vec<ConnView>, Silent> {
        match self.silent {
            Some(silent) if self.deletions_left == 0 => Err(silent),
            _ => Ok(self.conns.clone()),
        }
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

    fn cpu_statistics(&mut self) -> Vec<CpuStatistics> {
        vec![CpuStatistics::default(); 2]
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
