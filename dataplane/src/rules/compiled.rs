//! The form of a ruleset that packets walk: flat arrays, everything resolved to numbers.
//!
//! Built by the control core, put into a snapshot, read by workers, never changed. Port names are
//! resolved against the configured ports of that snapshot; a name that no port has matches nothing.
//! Bounds: jumps nest at most [`check::MAX_DEPTH`] deep, a walk looks at no more than
//! [`check::MAX_STEPS`] rules.

use core::ops::Range;
use std::collections::HashMap;
use std::sync::Arc;

use super::check::{self, CheckError};
use super::classify::{Classes, Limits};
use super::edit::Edit;
use super::edit::tos::SetTos;
use super::entrance::Entrances;
use super::gate::Gate;
use super::hook::{Family, Hook, Table};
use super::matches::set::{SetMatch, SetTest};
use super::matches::{Basics, IcmpKind, Match, Maybe};
use super::model::{Policy, Rule, Ruleset, TableRules};
use super::sets::{Named, Set, Sides};
use super::tables::Tables;
use super::targets::connmark::ConnMark;
use super::targets::nflog::Nflog;
use super::targets::synproxy::Synproxy;
use super::targets::{Log, RejectWith, SetMark, SetTarget, Target};
use super::template::{Said, Template};
use super::test::{PortSet, Test};
use super::trace::ChainName;
use super::walk::NatTarget;
use crate::conntrack::policies::Policies;

/// Number of something that counts, as [`Ruleset::countables`] orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CounterId(pub u32);

/// One family's rules as packets walk them.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub(super) bases: [[Option<BaseChain>; 5]; 4],
    pub(super) chains: Vec<Range<u32>>,
    /// By chain; `None` where rules are passed over one by one.
    pub(super) classes: Vec<Option<Box<Classes>>>,
    pub(super) rules: Vec<CompiledRule>,
    pub(super) tests: Vec<Test>,
    pub(super) logs: Vec<Log>,
    pub(super) nats: Vec<NatTarget>,
    pub(super) said: Vec<Said>,
    pub(super) sets: Vec<SetAction>,
    pub(super) connmarks: Vec<ConnMark>,
    pub(super) nflogs: Vec<Nflog>,
    pub(super) edits: Vec<Edit>,
    /// The chains' names, in their order.
    pub(super) names: Vec<ChainName>,
    /// Rules that a trace tells of as if they were the end of their chain, in order.
    pub(super) like_ends: Vec<CounterId>,
    pub(super) entrances: Entrances,
    labels: bool,
    proxies: bool,
    counts_conns: bool,
    counters: Range<u32>,
    tables: Tables,
    /// It is for IPv6.
    v6: bool,
}

/// A base chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct BaseChain {
    pub(super) chain: u32,
    pub(super) policy: Policy,
    pub(super) counter: CounterId,
    empty: bool,
}

/// A rule: its tests and what follows if all hold.
#[derive(Clone, Debug)]
pub(super) struct CompiledRule {
    /// Whole packets that it does not admit are none of this rule's.
    pub(super) gate: Gate,
    pub(super) first_test: u32,
    /// The first one that the gate has not answered.
    pub(super) first_open: u32,
    pub(super) end_test: u32,
    pub(super) counter: CounterId,
    pub(super) action: Action,
}

/// A target with names resolved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    Continue,
    Accept,
    Drop,
    Return,
    Reject(RejectWith),
    Jump(u32),
    Goto(u32),
    Log(u32),
    Say(u32),
    Mark(SetMark),
    Connmark(u32),
    Nflog(u32),
    Edit(u32),
    Trace,
    Nat(u32),
    Set(u32),
    Synproxy(Synproxy),
}

/// `-j SET` with the sets that have the names.
#[derive(Clone, Debug)]
pub(super) struct SetAction {
    pub(super) add: Option<(Arc<Set>, Sides)>,
    pub(super) del: Option<(Arc<Set>, Sides)>,
    pub(super) map: Option<(Arc<Set>, Sides)>,
    pub(super) exist: bool,
    pub(super) timeout: Option<u32>,
}

/// What rules may name besides chains and ports.
#[derive(Clone, Copy, Debug)]
pub struct NamedThings<'a> {
    /// Timeout policies.
    pub policies: &'a Policies,
    /// Sets.
    pub sets: &'a Named,
    /// The tables that rules share by name; `None` for new ones.
    pub tables: Option<&'a Tables>,
}

impl Compiled {
    /// Which tests keep something from packet to packet.
    pub fn keeping(&self) -> Vec<u32> {
        let tests = (0..).zip(&self.tests);
        tests.filter(|(_, test)| test.kept().is_some()).map(|(number, _)| number).collect()
    }

    /// Lets these begin anew: for rules that nobody else is judged by.
    pub fn forget(&self, tests: &[u32]) {
        let tests = tests.iter().filter_map(|number| self.tests.get(*number as usize));
        tests.filter_map(|test| test.kept()).for_each(|kept| kept.forget());
    }

    /// Compiles `ruleset` for ports with these names, by [`super::facts::PortId`]. Its counters are
    /// numbered from `first_counter` on, so both families can share one array.
    ///
    /// # Errors
    /// Whatever [`check::check`] refuses.
    pub fn new<S: AsRef<str>>(
        ruleset: &Ruleset,
        ports: &[S],
        first_counter: u32,
    ) -> Result<Compiled, CheckError> {
        Compiled::with_policies(ruleset, ports, &Policies::default(), first_counter)
    }

    /// The same where rules may name timeout policies.
    ///
    /// # Errors
    /// Likewise, and a policy that does not exist.
    pub fn with_policies<S: AsRef<str>>(
        ruleset: &Ruleset,
        ports: &[S],
        policies: &Policies,
        first_counter: u32,
    ) -> Result<Compiled, CheckError> {
        let named = NamedThings { policies, sets: &Named::new(), tables: None };
        Compiled::with_named(ruleset, ports, named, first_counter)
    }

    /// The same where rules may also name sets.
    ///
    /// # Errors
    /// Likewise, and a set that does not exist or is for packets of the other family.
    pub fn with_named<S: AsRef<str>>(
        ruleset: &Ruleset,
        ports: &[S],
        named: NamedThings<'_>,
        first_counter: u32,
    ) -> Result<Compiled, CheckError> {
        check::check(ruleset)?;
        check::check_policies(ruleset, |name| named.policies.number(name).is_some())?;
        check::check_sets(ruleset, named.sets)?;
        let tables = named.tables.cloned();
        let tables = tables.unwrap_or_else(|| Tables::default().next(&[ruleset]));
        let counters = first_counter..first_counter;
        let v6 = ruleset.family == Family::V6;
        let mut compiled = Compiled { counters, tables, v6, ..Self::default() };
        for rules in ruleset.tables.iter().flatten() {
            compiled.add_table(rules, ports, named);
        }
        compiled.find_entrances(ports.len());
        compiled.classify(Limits::default());
        Ok(compiled)
    }

    /// The numbers of this ruleset's counters.
    pub fn counters(&self) -> Range<u32> {
        self.counters.clone()
    }

    /// The tables that rules share by name.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// True if some rule asks for a conn's label.
    #[inline]
    pub fn knows_labels(&self) -> bool {
        self.labels
    }

    /// True if some rule is SYNPROXY's.
    #[inline]
    pub fn proxies(&self) -> bool {
        self.proxies
    }

    /// True if some rule asks how many conns somebody has.
    pub fn counts_conns(&self) -> bool {
        self.counts_conns
    }

    /// True if the walk can be skipped: no such base chain, or one without rules whose policy is
    /// ACCEPT. Its [`Compiled::policy_counter`] still counts.
    #[inline]
    pub fn is_empty(&self, table: Table, hook: Hook) -> bool {
        self.base(table, hook).is_none_or(|base| base.empty)
    }

    /// What counts the packets that meet the policy; `None` if the table was never named.
    #[inline]
    pub fn policy_counter(&self, table: Table, hook: Hook) -> Option<CounterId> {
        self.base(table, hook).map(|base| base.counter)
    }

    /// True if a chain of this table is walked at this hook; else every packet is accepted.
    #[inline]
    pub fn has(&self, table: Table, hook: Hook) -> bool {
        self.base(table, hook).is_some()
    }

    #[inline]
    pub(super) fn base(&self, table: Table, hook: Hook) -> Option<&BaseChain> {
        self.bases[table.index()][hook.index()].as_ref()
    }

    #[inline]
    pub(super) fn chain(&self, number: u32) -> core::slice::Iter<'_, CompiledRule> {
        let span = self.chains.get(number as usize).cloned().unwrap_or(0..0);
        self.rules.get(span.start as usize..span.end as usize).unwrap_or(&[]).iter()
    }

    /// Finds the classes of each chain.
    pub(super) fn classify(&mut self, limits: Limits) {
        let rules = |span: &Range<u32>| self.rules.get(span.start as usize..span.end as usize);
        let of = |span| Classes::of(rules(span).unwrap_or_default(), &self.tests, limits);
        self.classes = self.chains.iter().map(of).collect();
    }

    fn next_counter(&mut self) -> CounterId {
        let counter = CounterId(self.counters.end);
        self.counters.end += 1;
        counter
    }

    fn add_table<S: AsRef<str>>(
        &mut self,
        table: &TableRules,
        ports: &[S],
        named: NamedThings<'_>,
    ) {
        let first = self.chains.len() as u32;
        let numbers: HashMap<&str, u32> =
            (first..).zip(&table.chains).map(|(n, chain)| (chain.name.as_str(), n)).collect();
        for (number, chain) in (first..).zip(&table.chains) {
            if let Some(base) = chain.base {
                let counter = self.next_counter();
                let empty = chain.rules.is_empty() && base.policy == Policy::Accept;
                self.bases[table.table.index()][base.hook.index()] =
                    Some(BaseChain { chain: number, policy: base.policy, counter, empty });
            }
            let start = self.rules.len() as u32;
            for rule in &chain.rules {
                let action = self.action(&rule.target, &numbers, named);
                self.add_rule(rule, (ports, named.sets), action);
            }
            self.chains.push(start..self.rules.len() as u32);
            let (name, base) = (chain.name.clone(), chain.base.is_some());
            self.names.push(ChainName { table: table.table, name, base });
        }
    }

    fn add_rule<S: AsRef<str>>(
        &mut self,
        rule: &Rule,
        (ports, sets): (&[S], &Named),
        action: Action,
    ) {
        let first_test = self.tests.len() as u32;
        add_basics(&rule.basics, ports, &mut self.tests);
        for asked in &rule.matches {
            self.labels |= matches!(asked, Match::Connlabel(_));
            self.counts_conns |= matches!(asked, Match::Connlimit(_));
            match asked {
                Match::Set(asked) => self.tests.extend(set_test(asked, sets)),
                Match::Hashlimit(_) | Match::Recent(_) => {
                    let family = if self.v6 { Family::V6 } else { Family::V4 };
                    self.tests.extend(self.tables.test(asked, family));
                }
                _ => add_match(asked, &mut self.tests),
            }
        }
        let end_test = self.tests.len() as u32;
        let (gate, answered) = Gate::of(self.tests.get(first_test as usize..).unwrap_or(&[]));
        let first_open = first_test + answered as u32;
        let counter = self.next_counter();
        let decides = matches!(rule.target, Target::Accept | Target::Drop | Target::Return);
        if decides && rule.matches.is_empty() && rule.basics == Basics::default() {
            self.like_ends.push(counter);
        }
        self.rules.push(CompiledRule { gate, first_test, first_open, end_test, counter, action });
    }

    fn action(
        &mut self,
        target: &Target,
        numbers: &HashMap<&str, u32>,
        named: NamedThings<'_>,
    ) -> Action {
        // The check has seen that every name leads to a chain.
        let number = |name: &String| numbers.get(name.as_str()).copied();
        match target {
            Target::None => Action::Continue,
            Target::Accept => Action::Accept,
            Target::Drop => Action::Drop,
            Target::Return => Action::Return,
            Target::Reject(with) => Action::Reject(*with),
            Target::Jump(name) => number(name).map_or(Action::Drop, Action::Jump),
            Target::Goto(name) => number(name).map_or(Action::Drop, Action::Goto),
            Target::Log(log) => Action::Log(push(&mut self.logs, log.clone())),
            Target::Notrack => self.say(Said::Notrack),
            Target::Ct(ct) if ct.notrack => self.say(Said::Notrack),
            Target::Ct(ct) => {
                let policy = ct.timeout.as_ref().and_then(|name| named.policies.number(name));
                let timeout_policy = policy.unwrap_or(0);
                self.say(Said::Template(Template { timeout_policy, ..ct.template }))
            }
            Target::Mark(mark) => Action::Mark(*mark),
            Target::Connmark(connmark) => Action::Connmark(push(&mut self.connmarks, *connmark)),
            Target::Nflog(nflog) => Action::Nflog(push(&mut self.nflogs, nflog.clone())),
            Target::Trace => Action::Trace,
            Target::Tos(set) => self.edit(Edit::Tos(*set)),
            Target::Dscp(dscp) => self.edit(Edit::Tos(SetTos::dscp(*dscp))),
            Target::Ttl(set) | Target::Hl(set) => self.edit(Edit::Ttl(*set)),
            Target::Ecn(set) => self.edit(Edit::Ecn(*set)),
            Target::Tcpmss(set) => self.edit(Edit::Mss(*set)),
            Target::Tcpoptstrip(options) => self.edit(Edit::Strip(*options)),
            Target::Synproxy(proxy) => {
                self.proxies = true;
                Action::Synproxy(*proxy)
            }
            Target::Snpt(prefixes) => self.edit(Edit::SourcePrefix(*prefixes)),
            Target::Dnpt(prefixes) => self.edit(Edit::DestinationPrefix(*prefixes)),
            Target::Netmap(net) => self.nat(NatTarget::Netmap(*net)),
            Target::Snat(options) => self.nat(NatTarget::Snat(options.range())),
            Target::Dnat(options) => self.nat(NatTarget::Dnat(options.range())),
            Target::Masquerade(options) => self.nat(NatTarget::Masquerade(options.range())),
            Target::Redirect(options) => self.nat(NatTarget::Redirect(options.range())),
            Target::Set(target) => self.set_action(target, named.sets),
        }
    }

    fn set_action(&mut self, target: &SetTarget, sets: &Named) -> Action {
        let find = |side: &Option<(String, Sides)>| {
            let (name, sides) = side.as_ref()?;
            Some((Arc::clone(sets.get(name)?), *sides))
        };
        let [add, del, map] = [&target.add, &target.del, &target.map].map(find);
        [&add, &del].into_iter().flatten().for_each(|(set, _)| set.note_changes());
        let SetTarget { exist, timeout, .. } = *target;
        Action::Set(push(&mut self.sets, SetAction { add, del, map, exist, timeout }))
    }

    fn say(&mut self, said: Said) -> Action {
        Action::Say(push(&mut self.said, said))
    }

    fn nat(&mut self, target: NatTarget) -> Action {
        Action::Nat(push(&mut self.nats, target))
    }

    fn edit(&mut self, edit: Edit) -> Action {
        Action::Edit(push(&mut self.edits, edit))
    }
}

/// Adds to a list; the position is the number by which rules name it.
fn push<T>(list: &mut Vec<T>, value: T) -> u32 {
    list.push(value);
    list.len() as u32 - 1
}

/// The check has seen that every set is there.
fn set_test(asked: &SetMatch, sets: &Named) -> Option<Test> {
    let set = Arc::clone(sets.get(&asked.name)?);
    Some(Test::Set(Box::new(SetTest { set, not: asked.not, asked: asked.asked })))
}

/// In the kernel's order (`ip_packet_match`): addresses, ports, protocol, fragment.
fn add_basics<S: AsRef<str>>(basics: &Basics, ports: &[S], tests: &mut Vec<Test>) {
    tests.extend(basics.src.map(Test::Src));
    tests.extend(basics.dst.map(Test::Dst));
    let resolve = |pattern| PortSet::resolve(pattern, ports);
    tests.extend(basics.in_port.as_ref().map(|pattern| Test::InPort(resolve(pattern))));
    tests.extend(basics.out_port.as_ref().map(|pattern| Test::OutPort(resolve(pattern))));
    tests.extend(basics.proto.map(Test::Proto));
    tests.extend(basics.fragment.map(Test::LaterFragment));
}

fn add_match(asked: &Match, tests: &mut Vec<Test>) {
    match asked {
        Match::Tcp(tcp) => {
            tests.push(Test::Header);
            tests.extend(tcp.src_port.map(Test::SrcPort));
            tests.extend(tcp.dst_port.map(Test::DstPort));
            tests.extend(tcp.flags.map(Test::TcpFlags));
            tests.extend(tcp.option.map(Test::TcpOption));
        }
        Match::Udp(udp) => {
            tests.push(Test::Header);
            tests.extend(udp.src_port.map(Test::SrcPort));
            tests.extend(udp.dst_port.map(Test::DstPort));
        }
        Match::Icmp(kind) | Match::Icmpv6(kind) => add_icmp(kind, tests),
        Match::Conntrack(asked) => tests.push(Test::Conntrack(asked.clone())),
        Match::State(states) => tests.push(Test::State(*states)),
        Match::Multiport(ports) => {
            tests.push(Test::Header);
            tests.push(Test::Ports(Box::new(ports.clone())));
        }
        // A set has been looked up by its name.
        // Those with something shared see to it themselves.
        Match::Comment(_) | Match::Set(_) | Match::Hashlimit(_) | Match::Recent(_) => {}
        Match::Mark(masked) => tests.push(Test::Mark(*masked)),
        Match::Connlabel(asked) => tests.push(Test::Connlabel(*asked)),
        Match::Limit(limit) => tests.push(Test::Limit(Box::new(limit.compiled()))),
        Match::Quota(quota) => tests.push(Test::Quota(Box::new(quota.clone()))),
        Match::Connbytes(asked) => tests.push(Test::Connbytes(Box::new(*asked))),
        other => tests.push(Test::Asked(Box::new(other.clone()))),
    }
}

fn add_icmp(kind: &Maybe<IcmpKind>, tests: &mut Vec<Test>) {
    tests.push(Test::Header);
    tests.push(Test::Icmp(*kind));
}
