//! Policy in and out: publishing rules, routes and knobs, and the rule counters across snapshots.
//!
//! A snapshot counts from zero. Its sums are added to the counters of the model whenever somebody
//! asks, and once more when the last lcore has handed it back; a rule that an edit leaves where it
//! is keeps its count.
//!
//! Before anything changes every lcore is asked for its counts: one that does not answer would not
//! adopt either, so that nothing changes then. One that falls silent just afterwards finds the new
//! policy in its mailbox when it goes on; until then the old one is kept ([`Late`]), for what it
//! may still count there.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::arch::OutOfMemory;
use dataplane::conntrack::knobs::{IN_ORDER, Knobs};
use dataplane::pipeline::messages::ToLcore;
use dataplane::pipeline::snapshot::{FamilyRules, Keeping, Snapshot};
use dataplane::rules::check::{check_policies, check_sets};
use dataplane::rules::compiled::CounterId;
use dataplane::rules::hook::Family;
use dataplane::rules::model::{Counters, Rule, Ruleset};
use dataplane::time::Tick;

use super::resize::SizeError;
use super::{ControlCore, Lcore};
use crate::config::{Config, ConfigError, OnReload};
use crate::ipset::Sets;
use crate::ipset::command::LoadError;
use crate::iptables::{self, ParseError, Restored};
use crate::labels::Names;
use crate::publish::{self, Learnt, PublishError, Rulesets};
use crate::tools::Silent;

/// Why a rule file was not taken.
#[derive(Debug)]
pub enum RulesError {
    /// It could not be read.
    Unreadable(PathBuf, std::io::Error),
    /// It says something wrong.
    Wrong(PathBuf, ParseError),
    /// A file of sets says something wrong.
    Sets(PathBuf, LoadError),
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RulesError::Unreadable(path, e) => write!(f, "{}: {e}", path.display()),
            RulesError::Sets(path, LoadError { line, message }) => {
                write!(f, "{}:{line}:1: {message}", path.display())
            }
            RulesError::Wrong(path, e) => f.write_str(&e.in_file(&path.display().to_string())),
        }
    }
}

impl std::error::Error for RulesError {}

/// Why a reload changed nothing.
#[derive(Debug)]
pub enum ReloadError {
    /// The configuration.
    Config(ConfigError),
    /// A rule file.
    Rules(RulesError),
    /// It asks for what only a restart can change.
    NeedsRestart(&'static str),
    /// A size that the table cannot take.
    Max(String),
    /// The size of the table.
    Size(SizeError),
    /// Rules or routes that do not fit together.
    Publish(PublishError),
    /// A worker that does not answer: what it would do is not known, so all stays as it is.
    Silent(Silent),
    /// Not quite nothing: it is in force, but for one worker.
    NotAdopted(NotAdopted),
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReloadError::Config(e) => e.fmt(f),
            ReloadError::Rules(e) => e.fmt(f),
            ReloadError::NeedsRestart(what) => write!(f, "{what} cannot change while running"),
            ReloadError::Max(e) => f.write_str(e),
            ReloadError::Size(e) => e.fmt(f),
            ReloadError::Publish(e) => e.fmt(f),
            ReloadError::Silent(e) => e.fmt(f),
            ReloadError::NotAdopted(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ReloadError {}

/// A worker that fell silent in the moment between its last answer and a new policy. The policy
/// lies in its mailbox: it adopts it when it goes on, after one round by the old one.
#[derive(Clone, Copy, Debug)]
pub struct NotAdopted(Silent);

impl fmt::Display for NotAdopted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Silent { lcore, cpu } = self.0;
        write!(
            f,
            "worker lcore {lcore} (CPU {cpu}) has not adopted the new policy and does so when it \
             goes on; the others have"
        )
    }
}

/// Reads the rule files of a configuration; a family without a file accepts everything.
///
/// # Errors
/// See [`RulesError`].
pub fn load_rules(config: &Config) -> Result<Rulesets, RulesError> {
    load_rules_over(config, &Sets::default(), Tick::default())
}

/// The same where there are sets, which stay where the file has none of their name.
pub(super) fn load_rules_over(
    config: &Config,
    live: &Sets,
    now: Tick,
) -> Result<Rulesets, RulesError> {
    let rules = &config.rules;
    let names = Names::read(&config.conntrack.label_names).unwrap_or_default();
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|e| RulesError::Unreadable(path.to_owned(), e))
    };
    let sets = match rules.sets.as_deref() {
        None => live.clone(),
        Some(path) => {
            let loaded = Sets::load(&read(path)?, now);
            live.replaced_by(&loaded.map_err(|e| RulesError::Sets(path.to_owned(), e))?)
        }
    };
    let load = |path: Option<&Path>, family| {
        let empty = Ruleset::new(family);
        let Some(path) = path else { return Ok(empty) };
        let text = read(path)?;
        iptables::restore_named(&empty, &text, (false, true), &names)
            .and_then(|ruleset| known_names(&ruleset, config, &sets).map(|()| ruleset))
            .map_err(|e| RulesError::Wrong(path.to_owned(), e))
    };
    Ok(Rulesets {
        v4: load(rules.ipv4.as_deref(), Family::V4)?,
        v6: load(rules.ipv6.as_deref(), Family::V6)?,
        sets,
    })
}

/// Whether there are every timeout policy and every set that the ruleset names.
fn known_names(ruleset: &Ruleset, config: &Config, sets: &Sets) -> Result<(), ParseError> {
    let known = |name: &str| config.timeout_policies.iter().any(|(policy, _)| policy == name);
    check_policies(ruleset, known)?;
    check_sets(ruleset, &sets.named())?;
    Ok(())
}

/// What has been added to the model of a snapshot's counters so far, by family.
#[derive(Debug, Default)]
pub(super) struct Tally {
    v4: Vec<(u64, u64)>,
    v6: Vec<(u64, u64)>,
}

impl Tally {
    /// Nothing of this snapshot yet.
    pub(super) fn of(snapshot: &Snapshot) -> Tally {
        let zeroes = |rules: &FamilyRules| vec![(0, 0); rules.rules.counters().end as usize];
        Tally { v4: zeroes(&snapshot.v4), v6: zeroes(&snapshot.v6) }
    }
}

/// The policy before the one in force, while an lcore has not handed it back.
pub(super) struct Late {
    snapshot: Arc<Snapshot>,
    tally: Tally,
    rulesets: Rulesets,
}

/// What a family counted since the last time, by counter number.
fn news(rules: &FamilyRules, seen: &mut [(u64, u64)]) -> Vec<Counters> {
    let news = seen.iter_mut().enumerate().map(|(number, seen)| {
        let id = CounterId(number as u32);
        let (packets, bytes) = rules.counters.iter().fold((0, 0), |(p, b), lcore| {
            let (packets, bytes) = lcore.get(id);
            (p + packets, b + bytes)
        });
        let new = Counters { packets: packets - seen.0, bytes: bytes - seen.1 };
        *seen = (packets, bytes);
        new
    });
    news.collect()
}

/// Adds a count. One that a user has set may stand just below the end: it wraps, as the kernel's.
fn count(counters: &mut Counters, new: &Counters) {
    counters.packets = counters.packets.wrapping_add(new.packets);
    counters.bytes = counters.bytes.wrapping_add(new.bytes);
}

/// Adds counts to the rules and policies they belong to.
fn add(ruleset: &mut Ruleset, news: &[Counters]) {
    for (counters, new) in ruleset.counters_mut().zip(news) {
        count(counters, new);
    }
}

/// Adds late counts to the rules and policies that are still there.
fn carry(before: &Ruleset, now: &mut Ruleset, news: &[Counters]) {
    if news.iter().all(|new| new.packets == 0) {
        return;
    }
    let kept = successors(before, now);
    let mut counters: Vec<&mut Counters> = now.counters_mut().collect();
    for (new, to) in news.iter().zip(kept) {
        if let Some(counters) = to.and_then(|to| counters.get_mut(to)) {
            count(counters, new);
        }
    }
}

/// Where each counter of one ruleset is in another that an edit has made of it: a chain keeps its
/// name, and rules before and behind what was changed keep their order.
fn successors(before: &Ruleset, now: &Ruleset) -> Vec<Option<usize>> {
    let mut first = HashMap::new();
    let mut number = 0;
    for rules in now.tables.iter().flatten() {
        for chain in &rules.chains {
            first.insert((rules.table, chain.name.as_str()), (number, chain));
            number += usize::from(chain.base.is_some()) + chain.rules.len();
        }
    }
    let mut kept = Vec::new();
    for rules in before.tables.iter().flatten() {
        for old in &rules.chains {
            let found = first.get(&(rules.table, old.name.as_str()));
            let found = found.filter(|(_, new)| new.base.is_some() == old.base.is_some());
            let Some(&(number, new)) = found else {
                kept.resize(kept.len() + usize::from(old.base.is_some()) + old.rules.len(), None);
                continue;
            };
            kept.extend(old.base.map(|_| Some(number)));
            let number = number + usize::from(new.base.is_some());
            let least = old.rules.len().min(new.rules.len());
            let same = |(a, b): &(&Rule, &Rule)| a == b;
            let head = old.rules.iter().zip(&new.rules).take_while(same).count();
            let ends = old.rules.iter().rev().zip(new.rules.iter().rev()).take(least - head);
            let tail = old.rules.len() - ends.take_while(same).count();
            kept.extend((0..old.rules.len()).map(|at| match at {
                at if at < head => Some(number + at),
                at if at >= tail => Some(number + new.rules.len() - (old.rules.len() - at)),
                _ => None,
            }));
        }
    }
    kept
}

impl ControlCore {
    /// Brings the counters of the model up to date. Each lcore then follows the present policy and
    /// has room for a message.
    ///
    /// # Errors
    /// An lcore that does not answer; the model is as it was.
    pub(super) fn count_rules(&mut self) -> Result<(), Silent> {
        self.ask_for_counts()?;
        let due = |lcore: &Lcore| lcore.folding > 0 || !lcore.mailbox.has_room();
        self.wait(|core| core.lcores.iter().position(due))?;
        let snapshot = Arc::clone(&self.snapshot);
        add(&mut self.rulesets.v4, &news(&snapshot.v4, &mut self.tally.v4));
        add(&mut self.rulesets.v6, &news(&snapshot.v6, &mut self.tally.v6));
        Ok(())
    }

    /// The rules of a family with up-to-date counters.
    pub(super) fn counted_rules(&mut self, family: Family) -> Result<&Ruleset, Silent> {
        self.count_rules()?;
        Ok(self.rulesets.of(family))
    }

    /// Takes text as `iptables-restore` does and returns what it prints. With `test` nothing is
    /// changed.
    pub(super) fn restore(
        &mut self,
        family: Family,
        text: &str,
        options: iptables::Options,
        test: bool,
    ) -> Result<String, RestoreError> {
        self.count_rules().map_err(RestoreError::Silent)?;
        let mut rulesets = self.rulesets.clone();
        let names = Names::read(&self.config.conntrack.label_names).unwrap_or_default();
        let place = rulesets.of_mut(family);
        let restored = iptables::restore_with(place, text, options, &names);
        let Restored { ruleset, text } = restored.map_err(RestoreError::Text)?;
        *place = ruleset;
        self.publish_rules(family, rulesets, test).map(|()| text)
    }

    /// Puts rules in force of which one family's were changed; the counts are up to date. With
    /// `test` only what would stand against it is found.
    pub(super) fn publish_rules(
        &mut self,
        family: Family,
        rulesets: Rulesets,
        test: bool,
    ) -> Result<(), RestoreError> {
        known_names(rulesets.of(family), &self.config, &rulesets.sets)
            .map_err(RestoreError::Text)?;
        let acct = self.knobs.acct;
        self.knobs.acct |= rulesets.ask_for_counts() && !self.rulesets.ask_for_counts();
        let outcome = self.publish_checked(rulesets, test);
        if test || outcome.is_err() {
            self.knobs.acct = acct;
        } else if self.knobs.acct != acct {
            log::warn!("connbytes: nf_conntrack_acct is switched on");
        }
        outcome
    }

    fn publish_checked(&mut self, rulesets: Rulesets, test: bool) -> Result<(), RestoreError> {
        let (config, macs) = (self.config.clone(), self.macs.clone());
        let publish = self.build(&config, &macs, &rulesets).map_err(RestoreError::Publish)?;
        if test {
            return Ok(());
        }
        self.provide_memory(&publish).map_err(RestoreError::Memory)?;
        self.adopt(publish, rulesets).map_err(RestoreError::NotAdopted)
    }

    pub(super) fn build(
        &self,
        config: &Config,
        macs: &[[u8; 6]],
        rulesets: &Rulesets,
    ) -> Result<Snapshot, PublishError> {
        self.build_with(config, macs, &self.learnt, rulesets)
    }

    fn build_with(
        &self,
        config: &Config,
        macs: &[[u8; 6]],
        learnt: &Learnt,
        rulesets: &Rulesets,
    ) -> Result<Snapshot, PublishError> {
        let (before, lcores) = (Some(&*self.snapshot), self.lcores.len());
        publish::snapshot(config, macs, learnt, rulesets, self.knobs, before, lcores)
    }

    /// What becomes of live conns where these rules follow those in force.
    pub(super) fn keeping(&self, on_reload: OnReload, rulesets: &Rulesets) -> Keeping {
        let on = on_reload == OnReload::Keep;
        let keeping = Keeping { on, ..self.snapshot.keeping };
        if on && !rulesets.say_the_same(&self.rulesets) { keeping.next() } else { keeping }
    }

    /// Puts a snapshot in force and waits until every lcore judges by it. The counts are up to
    /// date.
    pub(super) fn adopt(
        &mut self,
        snapshot: Snapshot,
        rulesets: Rulesets,
    ) -> Result<(), NotAdopted> {
        let on_reload = self.config.rules.on_reload;
        let keeping = self.keeping(on_reload, &rulesets);
        let snapshot = Arc::new(Snapshot { keeping, ..snapshot });
        let denies = on_reload == OnReload::KillDenied && !rulesets.say_the_same(&self.rulesets);
        self.inbox.retired.clear();
        for lcore in 0..self.lcores.len() {
            // There is room: see count_rules.
            if self.try_send(lcore, ToLcore::Adopt(Arc::clone(&snapshot))).is_ok() {
                self.lcores[lcore].adopting += 1;
            }
        }
        rulesets.sets.note_rules([&rulesets.v4, &rulesets.v6]);
        let adopted = self.wait(|core| core.lcores.iter().position(|lcore| lcore.adopting > 0));
        let tally = Tally::of(&snapshot);
        self.late = Some(Late {
            snapshot: std::mem::replace(&mut self.snapshot, snapshot),
            tally: std::mem::replace(&mut self.tally, tally),
            rulesets: std::mem::replace(&mut self.rulesets, rulesets),
        });
        self.carry_late();
        if denies {
            self.begin_purge();
        }
        adopted.map_err(|silent| {
            let error = NotAdopted(silent);
            log::warn!("{error}");
            error
        })
    }

    /// Takes over what has been counted by the policy before, and lets go of it once no lcore has
    /// it any more.
    pub(super) fn carry_late(&mut self) {
        let Some(late) = &mut self.late else { return };
        let (old, tally) = (&late.snapshot, &mut late.tally);
        carry(&late.rulesets.v4, &mut self.rulesets.v4, &news(&old.v4, &mut tally.v4));
        carry(&late.rulesets.v6, &mut self.rulesets.v6, &news(&old.v6, &mut tally.v6));
        if self.lcores.iter().all(|lcore| lcore.adopting == 0) {
            self.late = None;
            self.inbox.retired.clear();
        }
    }

    /// The same rules with other knobs. Cached paths stay good.
    ///
    /// # Errors
    /// An lcore that does not answer; the knobs in force are the old ones.
    pub(super) fn publish_knobs(&mut self) -> Result<(), Silent> {
        // First, or what is counted now would be missing in the copy that comes into force.
        self.count_rules()?;
        let generation = self.snapshot.generation;
        match self.build(&self.config, &self.macs, &self.rulesets) {
            Ok(snapshot) => {
                // The log tells of an lcore that is late.
                let _ = self.adopt(Snapshot { generation, ..snapshot }, self.rulesets.clone());
            }
            Err(error) => log::error!("knobs: {error}"),
        }
        Ok(())
    }

    /// Takes over the files (SIGHUP): rules, addresses, routes, neighbours and the sysctls they
    /// name replace the live ones; other sysctls and all conns stay. All or nothing.
    ///
    /// # Errors
    /// See [`ReloadError`].
    pub fn reload(&mut self, path: &Path) -> Result<(), ReloadError> {
        let mut config = Config::load(path).map_err(ReloadError::Config)?;
        let rulesets = load_rules_over(&config, &self.rulesets.sets, self.tick_now())
            .map_err(ReloadError::Rules)?;
        if let Some(what) = needs_restart(&self.config, &config) {
            return Err(ReloadError::NeedsRestart(what));
        }
        self.count_rules().map_err(ReloadError::Silent)?;
        let learnt = self.learnt_under(&config);
        let snapshot = self
            .build_with(&config, &self.macs, &learnt, &rulesets)
            .map_err(ReloadError::Publish)?;
        let (expectations, expect_max) = (&self.shared.expectations, config.conntrack.expect_max);
        if config.conntrack.names_expect_max && expect_max > expectations.largest() {
            let largest = expectations.largest();
            let text = format!("expect_max {expect_max} is above {largest} without a restart");
            return Err(ReloadError::Max(text));
        }
        self.reload_sizes(&mut config).map_err(ReloadError::Size)?;
        if config.conntrack.names_expect_max {
            self.shared.expectations.set_limit(expect_max);
        }
        let mut knobs = Knobs { helpers: config.conntrack.knobs.helpers, ..self.knobs };
        for name in &config.conntrack.named {
            if let Some(value) = config.conntrack.knobs.get(name) {
                // The configuration has checked the bounds.
                let _ = knobs.set(name, value);
            }
        }
        // A live threshold may be the other way round to a named one.
        for (low, high) in IN_ORDER {
            let most = knobs.get(high).unwrap_or(0);
            if knobs.get(low).is_some_and(|least| least > most) {
                let _ = knobs.set(low, most);
            }
        }
        knobs.acct |= rulesets.ask_for_counts();
        self.knobs = knobs;
        self.provide_memory(&snapshot)
            .map_err(|e| ReloadError::Size(SizeError::Memory { bytes: e.bytes as u64 }))?;
        let now = self.tick_now();
        for old in &self.config.neighbours {
            if !config.neighbours.contains(old) {
                self.neighbours.forget(old.port as u8, old.address, now);
            }
        }
        self.shared.capacity.set_refuses(config.conntrack.refuses_when_full);
        (self.config, self.learnt) = (config, learnt);
        self.set_neighbours();
        let adopted = self.adopt(Snapshot { knobs, ..snapshot }, rulesets);
        self.address_taps();
        adopted.map_err(ReloadError::NotAdopted)
    }
}

/// Why rules were not put in force.
pub(super) enum RestoreError {
    /// The text.
    Text(ParseError),
    /// What it leads to.
    Publish(PublishError),
    /// A worker that does not answer.
    Silent(Silent),
    /// There is no memory for what conns are to have from now on.
    Memory(OutOfMemory),
    /// It is in force, but for one worker.
    NotAdopted(NotAdopted),
}

impl fmt::Display for RestoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RestoreError::Text(e) => e.fmt(f),
            RestoreError::Publish(e) => e.fmt(f),
            RestoreError::Silent(e) => e.fmt(f),
            RestoreError::Memory(e) => e.fmt(f),
            RestoreError::NotAdopted(e) => e.fmt(f),
        }
    }
}

/// What a new configuration changes that a running process cannot follow.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Option<&'static str> {
    let ports = |c: &Config| {
        let key = |p: &crate::config::Port| {
            let sizes = (p.mtu, p.rx_descriptors, p.tx_descriptors, p.promiscuous);
            let queues = (p.rx_queues, p.tx_queues);
            let behind = (p.device.clone(), p.vlan, p.host_tap.clone());
            (p.name.clone(), behind, p.mac, sizes, queues)
        };
        c.ports.iter().map(key).collect::<Vec<_>>()
    };
    if ports(old) != ports(new) {
        return Some("ports, their devices, VLANs, taps, MAC addresses, MTUs and queues");
    }
    if old.eal != new.eal {
        return Some("[eal]");
    }
    if old.socket != new.socket {
        return Some("the control socket");
    }
    (old.log_level != new.log_level).then_some("[log] level")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::rules::hook::Table;

    fn rules(input: &[&str]) -> Ruleset {
        let lines: String = input.iter().map(|mark| format!("-A INPUT -s {mark}\n")).collect();
        let text = format!("*filter\n:U - [0:0]\n-A U -j DROP\n{lines}COMMIT\n");
        iptables::restore(&Ruleset::new(Family::V4), &text, false, false).unwrap()
    }

    fn input(before: &[&str], now: &[&str]) -> Vec<Option<usize>> {
        let (before, now) = (rules(before), rules(now));
        let kept = successors(&before, &now);
        assert_eq!(kept.len(), before.countables().count());
        kept[1..=before.table(Table::Filter).unwrap().chains[0].rules.len()].to_vec()
    }

    #[test]
    fn a_count_that_a_user_has_set_to_its_end_wraps() {
        let most = Counters { packets: u64::MAX, bytes: u64::MAX };
        let mut ruleset = rules(&["1.1.1.1"]);
        ruleset.counters_mut().for_each(|counters| *counters = most);
        let news = vec![Counters { packets: 2, bytes: 61 }; ruleset.countables().count()];
        add(&mut ruleset, &news);
        let now = Counters { packets: 1, bytes: 60 };
        assert!(ruleset.counters_mut().all(|counters| *counters == now));
    }

    #[test]
    fn late_counts_follow_their_rules() {
        let (a, b, c) = ("1.1.1.1", "2.2.2.2", "3.3.3.3");
        assert_eq!(input(&[a, b], &[a, b]), [Some(1), Some(2)]);
        assert_eq!(input(&[a, b], &[c, a, b]), [Some(2), Some(3)], "inserted at the head");
        assert_eq!(input(&[a, b], &[a, c, b]), [Some(1), Some(3)]);
        assert_eq!(input(&[a, b, c], &[a, c]), [Some(1), None, Some(2)], "deleted");
        assert_eq!(input(&[a, b], &[a, c]), [Some(1), None], "replaced");
        assert_eq!(input(&[a, a], &[a]), [Some(1), None]);
        assert_eq!(input(&[a, b], &[]), [None, None]);
    }

    #[test]
    fn late_counts_of_other_tables_stay_where_they_belong() {
        let before = rules(&["1.1.1.1"]);
        let text = "*raw\n-A PREROUTING -j ACCEPT\nCOMMIT\n";
        let mut now = iptables::restore(&before, text, true, false).unwrap();
        now.table_mut(Table::Filter).add_chain("A");
        let one = Counters { packets: 1, bytes: 2 };
        carry(&before, &mut now, &vec![one; before.countables().count()]);
        let counted = now.counters_mut().filter(|counters| counters.packets == 1).count();
        assert_eq!(counted, before.countables().count());
        assert!(now.table(Table::Raw).unwrap().chains[0].rules[0].counters.packets == 0);
        let drop = &now.table(Table::Filter).unwrap().chain("U").unwrap().rules[0];
        assert_eq!(drop.counters, one);
    }
}
