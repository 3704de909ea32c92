//! What the tools need of the running gateway.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use dataplane::conntrack::expect::{Busy, ExpectationView, Expectations};
use dataplane::conntrack::invalid::InvalidReason;
use dataplane::conntrack::record::{ConnId, ConnRef, Family as Records};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::Tuple;
use dataplane::conntrack::view::{ConnView, CpuStatistics, SynproxyStatistics};
use dataplane::pipeline::by_hand::{Change, NewConn, Refusal};
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::invalid::TRAIL_LEN;
use dataplane::pipeline::messages::{BATCH_MAX, Slice, ToLcore};
use dataplane::pipeline::service::id_of_key;
use dataplane::rules::kept::Kept;
use dataplane::rules::matches::recent;
use dataplane::time::Now;

use super::resize::SizeError;
use super::{ControlCore, PATIENCE};
use crate::labels::Names;
use crate::tools::conntrack_args::Family;
use crate::tools::conntrack_invalid::Seen;
use crate::tools::stats::{ControlCoreStats, LcoreStats, PortStats, Stats, TableStats, Totals};
use crate::tools::{Changed, ExpectRefusal, Gateway, Silent, SysctlError, WantedExpectation};

/// Record numbers per question.
const SLICE: u32 = 1024;

/// Messages of a flush that one lcore has before it.
const DELETES_AT_ONCE: usize = 64;

impl ControlCore {
    /// Walks the records of one family in slices; `each` gets every batch of conns.
    fn walk_conns(
        &mut self,
        family: Records,
        zero: bool,
        mut each: impl FnMut(&mut Self, Vec<ConnView>) -> Result<(), Silent>,
    ) -> Result<(), Silent> {
        for lcore in 0..self.lcores.len() {
            let mut slice = Slice {
                family,
                from: 0,
                numbers: SLICE,
                zero,
                end: false,
                conns: Vec::with_capacity(SLICE as usize),
            };
            while !slice.end {
                let question = self.ask();
                self.send(lcore, ToLcore::List(question, Box::new(slice)))?;
                self.wait(|core| core.inbox.listed.is_none().then_some(lcore))?;
                slice = self.inbox.listed.take().ok_or_else(|| self.silent(lcore))?;
                let conns = std::mem::replace(&mut slice.conns, Vec::with_capacity(SLICE as usize));
                if !conns.is_empty() {
                    each(self, conns)?;
                }
            }
        }
        Ok(())
    }

    fn all_conns(&mut self, family: Option<Family>, zero: bool) -> Result<Vec<ConnView>, Silent> {
        let mut all = Vec::new();
        for records in records_of(family) {
            self.walk_conns(records, zero, |_, conns| {
                all.extend(conns);
                Ok(())
            })?;
        }
        Ok(all)
    }

    /// Deletes conns by key; returns how many were still there.
    fn delete_keys(&mut self, keys: impl Iterator<Item = u64>) -> Result<usize, Silent> {
        let question = self.ask();
        let mut by_owner: Vec<Vec<ConnId>> = vec![Vec::new(); self.lcores.len()];
        for id in keys.map(id_of_key) {
            // If the owner changes meanwhile it is another conn, and nobody takes it for this one.
            let owner = self.shared.records.get(id.conn).and_then(|conn| conn.owner());
            if let Some(ids) = owner.and_then(|owner| by_owner.get_mut(usize::from(owner))) {
                ids.push(id);
            }
        }
        for (lcore, ids) in by_owner.iter().enumerate() {
            for batch in ids.chunks(BATCH_MAX) {
                self.send(lcore, ToLcore::Delete(question, self.asker, Box::new(batch.to_vec())))?;
                self.lcores[lcore].deleting += 1;
            }
        }
        self.wait(|core| core.lcores.iter().position(|lcore| lcore.deleting > 0))?;
        Ok(self.inbox.deleted)
    }

    /// Deletes all conns of some families. Which ones there are is read here, from the records, and
    /// their owners only hear of those; so many of them at once that nobody waits for the other.
    fn flush_records(&mut self, families: impl Iterator<Item = Records>) -> Result<(), Silent> {
        let question = self.ask();
        let (shared, now) = (Arc::clone(&self.shared), self.tick_now());
        let mut by_owner: Vec<Vec<ConnId>> = vec![Vec::new(); self.lcores.len()];
        for family in families {
            for number in 0..shared.records.numbers(family) {
                let conn = shared.records.get(ConnRef::new(family, number));
                // Expired ones are gone already, and one that came second to its tuple is not seen.
                let Some(conn) = conn.filter(|conn| {
                    let (there, second) = (Status::CONFIRMED, Status::NAT_CLASH);
                    let status = conn.status();
                    status.has(there) && !status.has(second) && !conn.is_expired(now)
                }) else {
                    continue;
                };
                // If it ends meanwhile the owner will not take another one for it.
                let Some(owner) = conn.owner().map(usize::from) else { continue };
                let Some(ids) = by_owner.get_mut(owner) else { continue };
                ids.push(conn.id());
                if ids.len() == BATCH_MAX {
                    let ids = std::mem::replace(ids, Vec::with_capacity(BATCH_MAX));
                    self.send_deletes(owner, question, ids)?;
                }
            }
        }
        for (owner, ids) in by_owner.into_iter().enumerate() {
            self.send_deletes(owner, question, ids)?;
        }
        self.wait(|core| core.lcores.iter().position(|lcore| lcore.deleting > 0))
    }

    fn send_deletes(&mut self, to: usize, question: u32, ids: Vec<ConnId>) -> Result<(), Silent> {
        if ids.is_empty() && !self.lcores[to].stalls.is_stalled() {
            return Ok(());
        }
        if self.lcores[to].deleting >= DELETES_AT_ONCE {
            self.wait(|core| (core.lcores[to].deleting >= DELETES_AT_ONCE / 2).then_some(to))?;
        }
        self.send(to, ToLcore::Delete(question, self.asker, Box::new(ids)))?;
        self.lcores[to].deleting += 1;
        Ok(())
    }

    /// Begins a question to the lcores: what answers an earlier one is not heard any more.
    pub(super) fn ask(&mut self) -> u32 {
        self.inbox.question = self.inbox.question.wrapping_add(1);
        (self.inbox.listed, self.inbox.found, self.inbox.deleted) = (None, None, 0);
        (self.inbox.created, self.inbox.changed) = (None, None);
        self.lcores.iter_mut().for_each(|lcore| lcore.deleting = 0);
        self.inbox.question
    }

    pub(super) fn end_subscriptions(&mut self) {
        let (wanted, over): (Vec<_>, Vec<_>) = std::mem::take(&mut self.subscriptions)
            .into_iter()
            .partition(|(_, reply)| reply.is_wanted());
        for (subscription, reply) in over {
            reply.answer(subscription.finish());
        }
        self.subscriptions = wanted;
        self.listeners.store(!self.subscriptions.is_empty(), Relaxed);
    }

    /// Does something with the expectations once no worker has their lock.
    pub(super) fn with_expectations<T>(
        &mut self,
        ask: impl Fn(&Expectations, Now) -> Result<T, Busy>,
    ) -> Result<T, Silent> {
        let start = Instant::now();
        loop {
            if let Ok(done) = ask(&self.shared.expectations, self.now()) {
                return Ok(done);
            }
            let stalled = self.lcores.iter().position(|lcore| lcore.stalls.is_stalled());
            if !(self.pause)() || stalled.is_some() || start.elapsed() >= PATIENCE {
                return Err(self.silent(stalled.unwrap_or(0)));
            }
        }
    }

    /// Passes on what has happened to expectations, while anybody listens.
    pub(super) fn tell_expectations(&mut self) {
        let wanted = self.knobs.events != 0
            && self.subscriptions.iter().any(|(s, _)| s.is_of_expectations());
        if wanted != self.hears_expectations {
            if self.shared.expectations.listen(wanted).is_ok() {
                self.hears_expectations = wanted;
            }
            return;
        }
        if !wanted {
            return;
        }
        let mut news = Vec::new();
        match self.shared.expectations.take_news(&mut news) {
            Ok(0) | Err(Busy) => {}
            Ok(lost) => log::warn!("conntrack: {lost} expectation events are lost"),
        }
        for event in &news {
            for (subscription, reply) in &mut self.subscriptions {
                if let Some(text) = subscription.expectation_text(event) {
                    reply.stream(&text);
                }
            }
        }
    }
}

/// The number spaces of a family, or of both.
fn records_of(family: Option<Family>) -> impl Iterator<Item = Records> {
    let space = |family| if family == Family::V4 { Records::V4 } else { Records::V6 };
    [Family::V4, Family::V6].into_iter().filter(move |f| family.is_none_or(|w| w == *f)).map(space)
}

impl From<SizeError> for SysctlError {
    fn from(error: SizeError) -> SysctlError {
        match error {
            SizeError::Memory { .. } => SysctlError::Memory,
            SizeError::TooLarge => SysctlError::Invalid,
            SizeError::Silent(silent) => SysctlError::Silent(silent),
            SizeError::Crowded => SysctlError::Busy,
        }
    }
}

impl Gateway for ControlCore {
    fn conns(&mut self) -> Result<Vec<ConnView>, Silent> {
        self.all_conns(None, false)
    }

    fn conns_zeroed(&mut self, family: Option<Family>) -> Result<Vec<ConnView>, Silent> {
        self.all_conns(family, true)
    }

    fn get(&mut self, tuple: &Tuple) -> Result<Option<ConnView>, Silent> {
        self.conn_of(tuple)
    }

    fn create(&mut self, new: NewConn) -> Result<Result<(), Refusal>, Silent> {
        self.create_conn(new)
    }

    fn change(&mut self, keys: &[u64], change: &Change) -> Result<Vec<Changed>, Silent> {
        self.change_conns(keys, change)
    }

    fn delete(&mut self, key: u64) -> Result<bool, Silent> {
        Ok(self.delete_keys(std::iter::once(key))? > 0)
    }

    fn flush(&mut self, family: Option<Family>) -> Result<(), Silent> {
        self.flush_records(records_of(family))
    }

    fn invalid(&mut self) -> Result<Vec<Seen>, Silent> {
        let mut all = Vec::new();
        for lcore in 0..self.lcores.len() {
            let question = self.ask();
            let buffer = Box::new(Vec::with_capacity(TRAIL_LEN));
            self.send(lcore, ToLcore::Find(question, buffer))?;
            self.wait(|core| core.inbox.found.is_none().then_some(lcore))?;
            let found = self.inbox.found.take().ok_or_else(|| self.silent(lcore))?;
            let name = |port| self.snapshot.port(port).name.clone();
            all.extend(found.into_iter().map(|finding| {
                let port = finding.in_port.map_or(String::new(), name);
                Seen { lcore: lcore as u32 + 1, port, finding }
            }));
        }
        Ok(all)
    }

    fn count(&mut self) -> u32 {
        self.shared.capacity.count()
    }

    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Silent> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let (slice, next) = self.with_expectations(|expectations, now| {
                let mut slice = Vec::new();
                let next = expectations.list(from, now, &mut slice)?;
                Ok((slice, next))
            })?;
            all.extend(slice);
            from = next;
            if from == 0 {
                return Ok(all);
            }
        }
    }

    fn delete_expectation(&mut self, key: u64) -> Result<bool, Silent> {
        self.with_expectations(|expectations, now| expectations.remove(key, now))
    }

    fn expect(&mut self, wanted: &WantedExpectation) -> Result<Result<(), ExpectRefusal>, Silent> {
        self.expect_by_hand(wanted)
    }

    fn expect_count(&mut self) -> u32 {
        self.shared.expectations.count()
    }

    fn cpu_statistics(&mut self) -> Vec<CpuStatistics> {
        let of = |(number, lcore): (usize, &super::Lcore)| {
            let c = &lcore.counters.conntrack;
            let counted = self.shared.expectations.counted(number as u8);
            let [expect_new, expect_create, expect_delete] = counted;
            CpuStatistics {
                found: c.found.get(),
                invalid: c.invalid.get(),
                insert: c.insert.get(),
                insert_failed: c.insert_failed.get(),
                drop: c.drop.get(),
                early_drop: c.early_drop.get(),
                icmp_error: c.error.get(),
                clash_resolve: c.clash_resolve.get(),
                expect_new,
                expect_create,
                expect_delete,
                chain_too_long: c.chain_too_long.get(),
                ..CpuStatistics::default()
            }
        };
        self.lcores.iter().enumerate().map(of).collect()
    }

    fn synproxy_statistics(&self) -> Vec<SynproxyStatistics> {
        let of = |lcore: &super::Lcore| {
            let c = &lcore.counters.synproxy;
            SynproxyStatistics {
                syn_received: c.syn_received.get(),
                cookie_invalid: c.cookie_invalid.get(),
                cookie_valid: c.cookie_valid.get(),
                cookie_retrans: c.cookie_retrans.get(),
                conn_reopened: c.conn_reopened.get(),
            }
        };
        self.lcores.iter().map(of).collect()
    }

    fn label_names(&self) -> Result<Names, String> {
        Names::read(&self.config.conntrack.label_names)
    }

    fn unix_ns(&self) -> u64 {
        self.now().unix_ns
    }

    fn recent(&self, name: &str) -> Option<Kept<recent::Table>> {
        self.snapshot.v4.rules.tables().recent(name)
    }

    fn sysctl(&mut self, key: &str) -> Option<u64> {
        match key {
            "nf_conntrack_max" => Some(self.max.into()),
            "nf_conntrack_buckets" => Some(self.config.conntrack.hashsize.into()),
            "nf_conntrack_count" => Some(self.count().into()),
            "nf_conntrack_expect_max" => Some(self.shared.expectations.limit().into()),
            _ => self.knobs.get(knob_of(key)?),
        }
    }

    fn set_sysctl(&mut self, key: &str, value: u64) -> Result<(), SysctlError> {
        match key {
            "nf_conntrack_max" => {
                let max = u32::try_from(value).map_err(|_| SysctlError::Invalid)?;
                self.set_max(max).map_err(SysctlError::from)
            }
            "nf_conntrack_expect_max" => {
                let limit = u32::try_from(value).map_err(|_| SysctlError::Invalid)?;
                let taken = self.shared.expectations.set_limit(limit);
                taken.then_some(()).ok_or(SysctlError::Invalid)
            }
            "nf_conntrack_buckets" => {
                let buckets = u32::try_from(value).map_err(|_| SysctlError::Invalid)?;
                self.set_hashsize(buckets).map_err(SysctlError::from)
            }
            "nf_conntrack_count" => Err(SysctlError::ReadOnly),
            _ => {
                let name = knob_of(key).ok_or(SysctlError::Unknown)?;
                let before = self.knobs;
                self.knobs.set(name, value).map_err(|_| SysctlError::Invalid)?;
                if !self.knobs.are_in_order() {
                    self.knobs = before;
                    return Err(SysctlError::Invalid);
                }
                // Before the first conn that wants it: accounting and stamps need blocks.
                let provided =
                    self.provide_memory(&self.snapshot).map_err(|_| SysctlError::Invalid);
                let published =
                    provided.and_then(|()| self.publish_knobs().map_err(SysctlError::Silent));
                if published.is_err() {
                    self.knobs = before;
                }
                published
            }
        }
    }

    fn stats(&mut self) -> Stats {
        let mut totals = Totals::default();
        let mut ports: Vec<PortStats> = self
            .config
            .ports
            .iter()
            .map(|p| PortStats { name: p.name.clone(), ..PortStats::default() })
            .collect();
        for (port, wire) in ports.iter_mut().zip(&self.wires) {
            port.wire = *wire;
        }
        let mut drops: Vec<(&'static str, u64)> =
            DropReason::ALL.iter().map(|r| (r.name(), 0)).collect();
        let mut invalid: Vec<(&'static str, u64)> =
            InvalidReason::ALL.iter().map(|r| (r.name(), 0)).collect();
        let mut lcores = Vec::new();
        let (mut over, mut taken) = (0, 0);
        for (number, lcore) in self.lcores.iter().enumerate() {
            let c = &lcore.counters;
            let mut rx = 0;
            // Host taps come behind the configured ports and belong to the balance alone.
            for (number, port) in c.ports.iter().enumerate() {
                rx += port.rx_packets.get();
                totals.tx += port.tx_packets.get();
                let Some(stats) = ports.get_mut(number) else { continue };
                stats.rx_packets += port.rx_packets.get();
                stats.tx_packets += port.tx_packets.get();
                stats.rx_bytes += port.rx_bytes.get();
                stats.tx_bytes += port.tx_bytes.get();
            }
            for ((_, sum), counter) in drops.iter_mut().zip(&c.drops) {
                *sum += counter.get();
                totals.dropped += counter.get();
            }
            for ((_, sum), counter) in invalid.iter_mut().zip(&c.invalid) {
                *sum += counter.get();
            }
            totals.rx += rx;
            totals.generated += c.generated.get();
            totals.to_host += c.to_host.get();
            totals.held += c.held.get();
            over += c.handed_over.get();
            taken += c.taken_over.get();
            let (busy, idle_polls) = (c.busy_polls.get(), c.idle_polls.get());
            lcores.push(LcoreStats {
                lcore: number as u32 + 1,
                cpu: lcore.cpu,
                polls: busy + idle_polls,
                idle_polls,
                rx,
                handed_over: c.handed_over.get(),
                stalls: lcore.stalls.stats(),
            });
        }
        // In a ring between two lcores.
        totals.held += u64::saturating_sub(over, taken);
        let conntrack = TableStats {
            count: self.shared.capacity.count(),
            max: self.max,
            buckets: self.config.conntrack.hashsize,
            expect_count: self.shared.expectations.count(),
        };
        let control_core =
            ControlCoreStats { cpu: self.config.eal.control_core, stalls: self.stalls.stats() };
        let host = self.host_stats();
        Stats { ports, lcores, control_core, drops, invalid, totals, conntrack, host }
    }
}

/// The knob that a key names.
fn knob_of(key: &str) -> Option<&str> {
    key.strip_prefix("nf_conntrack_").or_else(|| key.starts_with("ipfrag_").then_some(key))
}
