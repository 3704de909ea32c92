//! Whether a ruleset can be walked: names lead somewhere, targets stand where they may, nothing
//! goes round in circles, and the longest walk is bounded.
//!
//! A chain hangs in every hook from which it can be reached, so a target's place is judged by use,
//! as the kernel does. Bounds that Linux does not have or has elsewhere: [`MAX_DEPTH`] and
//! [`MAX_STEPS`]. A cycle is refused even where no hook reaches it.

use core::fmt;
use std::collections::HashMap;

use super::edit::tcp_mss::SetMss;
use super::hook::{Family, Hook, Table};
use super::matches::Match;
use super::matches::place::Limit;
use super::model::{Place, Policy, Rule, Ruleset, TableRules};
use super::sets::Named;
use super::targets::Target;
use super::template::Ct;

/// How deep jumps and gotos may nest below a base chain (nf_tables: 16 jumps).
pub const MAX_DEPTH: usize = 64;

/// How many rules the longest walk of one hook may look at.
pub const MAX_STEPS: u64 = 1 << 20;

/// Why a ruleset is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckError {
    /// Where the offending target was written.
    pub place: Place,
    /// Table it is in.
    pub table: Table,
    /// Chain it is in.
    pub chain: String,
    /// The target's word.
    pub word: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A jump to a chain that the table does not have.
    UnknownChain,
    /// A jump to a base chain.
    BaseChain,
    /// The target belongs to another table.
    Table(Table),
    /// The target cannot work at a hook from which its chain is reached.
    Hook(Hook),
    /// The match needs another table than this one.
    MatchTable,
    /// The match needs a conn, which no packet has in raw.
    MatchNotInRaw,
    /// DROP in the table nat, which decides nothing but translation.
    NatDrop,
    /// `--reject-with tcp-reset` without `-p tcp`.
    ResetNeedsTcp,
    /// SYNPROXY without `-p tcp`.
    NeedsTcp,
    /// A timeout policy that does not exist.
    UnknownPolicy,
    /// A set that does not exist.
    UnknownSet,
    /// A set of addresses of the other family, which is this one.
    SetFamily(Family),
    /// Following the jump leads back to this chain.
    Cycle,
    /// Chains nest deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A walk could look at more than [`MAX_STEPS`] rules.
    TooLong,
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, table) = (&self.word, self.table.name());
        match self.fault {
            Fault::UnknownChain => write!(f, "chain `{word}' does not exist in table {table}"),
            Fault::BaseChain => write!(f, "`{word}' is a base chain and cannot be jumped to"),
            Fault::Table(only) => {
                write!(f, "{word}: only valid in table {}, not {table}", only.name())
            }
            Fault::Hook(hook) => write!(
                f,
                "{word}: not possible at hook {}, from which chain {} is reached",
                hook.name(),
                self.chain
            ),
            Fault::MatchTable => write!(f, "{word}: only valid in raw and mangle, not {table}"),
            Fault::MatchNotInRaw => {
                write!(f, "{word}: not possible in raw, where packets have no conns yet")
            }
            Fault::NatDrop => {
                write!(f, "DROP: the table nat decides translation only; drop in filter or mangle")
            }
            Fault::ResetNeedsTcp => write!(f, "{word}: tcp-reset needs `-p tcp'"),
            Fault::NeedsTcp => write!(f, "{word}: needs `-p tcp'"),
            Fault::UnknownPolicy => write!(f, "timeout policy `{word}' does not exist"),
            Fault::UnknownSet => write!(f, "Set {word} doesn't exist."),
            Fault::SetFamily(family) => {
                let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
                write!(f, "The protocol family of set {word} is {name}, which is not applicable.")
            }
            Fault::Cycle => write!(f, "{word}: the jump leads back to chain {}", self.chain),
            Fault::TooDeep => write!(f, "{word}: chains nest deeper than {MAX_DEPTH}"),
            Fault::TooLong => {
                write!(f, "chain {}: a packet could meet over {MAX_STEPS} rules", self.chain)
            }
        }
    }
}

impl std::error::Error for CheckError {}

/// Checks every table of `ruleset`.
///
/// # Errors
/// The first rule, in table and chain order, that cannot stand where it does.
pub fn check(ruleset: &Ruleset) -> Result<(), CheckError> {
    ruleset.tables.iter().flatten().try_for_each(|rules| Checker::new(rules).run())
}

/// Checks that every timeout policy that `ruleset` names is `known`.
///
/// # Errors
/// The first rule that names another one.
pub fn check_policies(ruleset: &Ruleset, known: impl Fn(&str) -> bool) -> Result<(), CheckError> {
    for rules in ruleset.tables.iter().flatten() {
        for chain in &rules.chains {
            for rule in &chain.rules {
                if let Target::Ct(Ct { notrack: false, timeout: Some(name), .. }) = &rule.target
                    && !known(name)
                {
                    return Err(CheckError {
                        place: rule.place,
                        table: rules.table,
                        chain: chain.name.clone(),
                        word: name.clone(),
                        fault: Fault::UnknownPolicy,
                    });
                }
            }
        }
    }
    Ok(())
}

/// Checks that every set that `ruleset` names is there and has packets of its family.
///
/// # Errors
/// The first rule that names another one.
pub fn check_sets(ruleset: &Ruleset, sets: &Named) -> Result<(), CheckError> {
    for rules in ruleset.tables.iter().flatten() {
        for chain in &rules.chains {
            for rule in &chain.rules {
                let fault = |name: &String| match sets.get(name).map(|set| set.options.family) {
                    None => Some(Fault::UnknownSet),
                    Some(None) => None,
                    Some(Some(own)) => (own != ruleset.family).then_some(Fault::SetFamily(own)),
                };
                let wrong = sets_of(rule).find_map(|name| Some((name, fault(name)?)));
                if let Some((name, fault)) = wrong {
                    return Err(CheckError {
                        place: rule.place,
                        table: rules.table,
                        chain: chain.name.clone(),
                        word: name.clone(),
                        fault,
                    });
                }
            }
        }
    }
    Ok(())
}

/// The names of sets in a rule, each as often as it stands there.
pub fn sets_of(rule: &Rule) -> impl Iterator<Item = &String> {
    let matches = rule.matches.iter().filter_map(|asked| match asked {
        Match::Set(asked) => Some(&asked.name),
        _ => None,
    });
    let changed = match &rule.target {
        Target::Set(target) => [target.add.as_ref(), target.del.as_ref(), target.map.as_ref()],
        _ => [None; 3],
    };
    matches.chain(changed.into_iter().flatten().map(|(name, _)| name))
}

/// What is known of a chain while the graph is searched.
#[derive(Clone, Copy)]
enum Seen {
    Not,
    OnPath,
    Done { depth: usize, steps: u64 },
}

struct Checker<'a> {
    rules: &'a TableRules,
    by_name: HashMap<&'a str, usize>,
    seen: Vec<Seen>,
}

impl<'a> Checker<'a> {
    fn new(rules: &'a TableRules) -> Checker<'a> {
        let by_name = rules.chains.iter().enumerate().map(|(at, c)| (c.name.as_str(), at));
        Checker { rules, by_name: by_name.collect(), seen: vec![Seen::Not; rules.chains.len()] }
    }

    fn run(mut self) -> Result<(), CheckError> {
        for at in 0..self.rules.chains.len() {
            for rule in &self.rules.chains[at].rules {
                self.rule_alone(at, rule)?;
            }
            self.nat_policy(at)?;
        }
        for at in 0..self.rules.chains.len() {
            self.measure(at, 0)?;
        }
        for at in 0..self.rules.chains.len() {
            if let Some(base) = self.rules.chains[at].base {
                let mut visited = vec![false; self.rules.chains.len()];
                self.hook_reaches(base.hook, at, &mut visited)?;
            }
        }
        Ok(())
    }

    fn fail<T>(&self, chain: usize, rule: &Rule, fault: Fault) -> Result<T, CheckError> {
        self.fail_at(chain, rule, rule.target.name(), fault)
    }

    fn fail_at<T>(
        &self,
        chain: usize,
        rule: &Rule,
        word: &str,
        fault: Fault,
    ) -> Result<T, CheckError> {
        Err(CheckError {
            place: rule.place,
            table: self.rules.table,
            chain: self.rules.chains[chain].name.clone(),
            word: word.to_owned(),
            fault,
        })
    }

    fn rule_alone(&self, at: usize, rule: &Rule) -> Result<(), CheckError> {
        let table = self.rules.table;
        if let Some(only) = only_table(&rule.target)
            && only != table
        {
            return self.fail(at, rule, Fault::Table(only));
        }
        let reverse = rule.matches.iter().any(|asked| matches!(asked, Match::RpFilter(_)));
        if reverse && !matches!(table, Table::Raw | Table::Mangle) {
            return self.fail_at(at, rule, "rpfilter", Fault::MatchTable);
        }
        let counts = rule.matches.iter().any(|asked| matches!(asked, Match::Connlimit(_)));
        if counts && table == Table::Raw {
            return self.fail_at(at, rule, "connlimit", Fault::MatchNotInRaw);
        }
        match &rule.target {
            Target::Set(set) if set.map.is_some() && table != Table::Mangle => {
                self.fail_at(at, rule, "--map-set", Fault::Table(Table::Mangle))
            }
            Target::Drop if table == Table::Nat => self.fail(at, rule, Fault::NatDrop),
            Target::Reject(super::targets::RejectWith::TcpReset) if !asks_tcp(rule) => {
                self.fail(at, rule, Fault::ResetNeedsTcp)
            }
            // It answers packets, and not only the first ones of conns.
            Target::Synproxy(_) if table == Table::Nat => {
                self.fail(at, rule, Fault::Table(Table::Filter))
            }
            Target::Synproxy(_) if !asks_tcp(rule) => self.fail(at, rule, Fault::NeedsTcp),
            Target::Jump(name) | Target::Goto(name) => match self.by_name.get(name.as_str()) {
                None => self.fail(at, rule, Fault::UnknownChain),
                Some(&to) if self.rules.chains[to].base.is_some() => {
                    self.fail(at, rule, Fault::BaseChain)
                }
                Some(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn nat_policy(&self, at: usize) -> Result<(), CheckError> {
        let chain = &self.rules.chains[at];
        let drops = chain.base.is_some_and(|base| base.policy == Policy::Drop);
        if !drops || self.rules.table != Table::Nat {
            return Ok(());
        }
        Err(CheckError {
            place: Place::default(),
            table: Table::Nat,
            chain: chain.name.clone(),
            word: "DROP".to_owned(),
            fault: Fault::NatDrop,
        })
    }

    /// Depth below the chain and rules the longest walk through it looks at.
    fn measure(&mut self, at: usize, level: usize) -> Result<(usize, u64), CheckError> {
        if let Seen::Done { depth, steps } = self.seen[at] {
            return Ok((depth, steps));
        }
        self.seen[at] = Seen::OnPath;
        let rules = self.rules;
        let (mut depth, mut steps) = (0, 0u64);
        for rule in &rules.chains[at].rules {
            steps = steps.saturating_add(1);
            if let Target::Jump(name) | Target::Goto(name) = &rule.target {
                let to = self.by_name[name.as_str()];
                if matches!(self.seen[to], Seen::OnPath) {
                    return self.fail(at, rule, Fault::Cycle);
                }
                if level >= MAX_DEPTH {
                    return self.fail(at, rule, Fault::TooDeep);
                }
                let below = self.measure(to, level + 1)?;
                depth = depth.max(below.0 + 1);
                steps = steps.saturating_add(below.1);
            }
            if depth > MAX_DEPTH {
                return self.fail(at, rule, Fault::TooDeep);
            }
            if steps > MAX_STEPS {
                return self.fail(at, rule, Fault::TooLong);
            }
        }
        self.seen[at] = Seen::Done { depth, steps };
        Ok((depth, steps))
    }

    fn hook_reaches(&self, hook: Hook, at: usize, visited: &mut [bool]) -> Result<(), CheckError> {
        if core::mem::replace(&mut visited[at], true) {
            return Ok(());
        }
        for rule in &self.rules.chains[at].rules {
            if !works_at(&rule.target, hook) {
                return self.fail(at, rule, Fault::Hook(hook));
            }
            if let Some(word) = rule.matches.iter().find_map(|asked| astray_at(asked, hook)) {
                return self.fail_at(at, rule, word, Fault::Hook(hook));
            }
            if let Target::Jump(name) | Target::Goto(name) = &rule.target {
                self.hook_reaches(hook, self.by_name[name.as_str()], visited)?;
            }
        }
        Ok(())
    }
}

fn asks_tcp(rule: &Rule) -> bool {
    rule.basics.proto == Some(super::matches::Maybe::is(crate::conntrack::tuple::proto::TCP))
}

/// The one table in which a target may stand.
fn only_table(target: &Target) -> Option<Table> {
    match target {
        Target::Reject(_) => Some(Table::Filter),
        Target::Ct(_) | Target::Notrack => Some(Table::Raw),
        Target::Snat(_)
        | Target::Dnat(_)
        | Target::Masquerade(_)
        | Target::Redirect(_)
        | Target::Netmap(_) => Some(Table::Nat),
        Target::Tos(_)
        | Target::Dscp(_)
        | Target::Ttl(_)
        | Target::Hl(_)
        | Target::Ecn(_)
        | Target::Tcpoptstrip(_)
        | Target::Snpt(_)
        | Target::Dnpt(_) => Some(Table::Mangle),
        _ => None,
    }
}

/// True if the target can do its work at `hook`.
fn works_at(target: &Target, hook: Hook) -> bool {
    match target {
        Target::Reject(_) => matches!(hook, Hook::Input | Hook::Forward | Hook::Output),
        Target::Synproxy(_) => matches!(hook, Hook::Input | Hook::Forward),
        Target::Snat(_) => matches!(hook, Hook::Postrouting | Hook::Input),
        Target::Snpt(_) => matches!(hook, Hook::Postrouting | Hook::Input),
        Target::Masquerade(_) => hook == Hook::Postrouting,
        Target::Dnat(_) | Target::Redirect(_) | Target::Dnpt(_) => {
            matches!(hook, Hook::Prerouting | Hook::Output)
        }
        Target::Tcpmss(SetMss::Clamp) => {
            matches!(hook, Hook::Forward | Hook::Output | Hook::Postrouting)
        }
        _ => true,
    }
}

/// The name of a match that has nothing to look at where `hook` is.
fn astray_at(asked: &Match, hook: Hook) -> Option<&'static str> {
    let arrived = matches!(hook, Hook::Prerouting | Hook::Input | Hook::Forward);
    let leaves = matches!(hook, Hook::Forward | Hook::Output | Hook::Postrouting);
    match asked {
        Match::Mac(_) if !arrived => Some("mac"),
        Match::RpFilter(_) if hook != Hook::Prerouting => Some("rpfilter"),
        Match::AddrType(asked) => match asked.limit {
            Some(Limit::In) if !arrived => Some("addrtype"),
            Some(Limit::Out) if !leaves => Some("addrtype"),
            _ => None,
        },
        _ => None,
    }
}
