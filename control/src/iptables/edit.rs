//! What one line of a rule file or one `iptables` command does to a table, and what it prints.
//!
//! It changes a [`Ruleset`] in place and stops at the first fault; whoever needs all or nothing
//! gives it a copy. Whether targets stand where they may is seen only when all edits are done
//! (`dataplane::rules::check`).

use core::fmt::Write;
use std::collections::HashSet;

use dataplane::rules::hook::{Family, Hook, Table};
use dataplane::rules::model::{Chain, Counters, Place, Policy, Rule, Ruleset, TableRules};
use dataplane::rules::targets::Target;

use super::draft::Drafts;
use super::line::{Asked, Command, Zero};
use super::list::{self, List, list, list_rule};
use super::rule::is_target;
use super::words::Word;
use super::{Kind, ParseError, print};
use crate::labels::Names;

/// The longest name of a chain, in bytes.
const MAX_CHAIN_NAME: usize = 28;

/// What a line changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Nothing.
    Nothing,
    /// Counters went back to zero; the rules are what they were.
    Counters,
    /// Rules, chains or policies.
    Rules,
}

/// What a line is done with, besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// What new rules start from unless they have a `-c`.
    pub counters: Counters,
    /// The names that labels have.
    pub names: &'a Names,
    /// `-v` of the whole file.
    pub verbose: bool,
}

/// Does to `table` what a line asks and writes to `out` what `iptables` prints.
///
/// # Errors
/// The word that is at fault; the ruleset may then be changed in part.
pub fn obey(
    ruleset: &mut Ruleset,
    table: Table,
    asked: &Asked<'_>,
    given: Given<'_>,
    out: &mut String,
) -> Result<Effect, ParseError> {
    obey_in(ruleset, table, asked, given, None, out)
}

/// The same as one of many: the table's rules may be in `drafts`, and go there.
///
/// # Errors
/// Likewise.
pub(super) fn obey_in(
    ruleset: &mut Ruleset,
    table: Table,
    asked: &Asked<'_>,
    given: Given<'_>,
    mut drafts: Option<&mut Drafts>,
    out: &mut String,
) -> Result<Effect, ParseError> {
    let family = ruleset.family;
    let fresh = ruleset.table(table).is_none();
    let all = asked.chain.is_none();
    if fresh
        && all
        && matches!(asked.command, Command::Flush | Command::Zero | Command::DeleteChain)
    {
        return Ok(Effect::Nothing);
    }
    let rules = ruleset.table_mut(table);
    let verbose = asked.verbose > 0 || given.verbose;
    if let Some(drafts) = drafts.as_mut().filter(|_| !is_for_drafts(asked)) {
        drafts.settle(rules);
    }
    let mut job = Job { rules, family, fresh, asked, given, verbose, drafts, out };
    let effect = match asked.command {
        Command::List | Command::ListRules => job.show(),
        Command::Append | Command::Insert | Command::Replace => job.add(),
        Command::Delete | Command::Check => job.look_for(),
        Command::Zero => job.zero(),
        _ => job.chains(),
    };
    match effect {
        // A table that a list or a check would have made is not there yet.
        Ok(Effect::Nothing) if fresh => ruleset.tables[table.index()] = None,
        Ok(Effect::Counters) if fresh => return Ok(Effect::Rules),
        _ => {}
    }
    effect
}

/// Whether a line can be obeyed where its chain is a draft.
fn is_for_drafts(asked: &Asked<'_>) -> bool {
    use Command::{Append, Check, Delete, Insert, NewChain};
    matches!(asked.command, Append | Insert | Delete | Check | NewChain)
}

struct Job<'a, 'w> {
    rules: &'a mut TableRules,
    family: Family,
    /// The table was never named before.
    fresh: bool,
    asked: &'a Asked<'w>,
    given: Given<'a>,
    verbose: bool,
    drafts: Option<&'a mut Drafts>,
    out: &'a mut String,
}

impl Job<'_, '_> {
    /// The chain that the command names.
    fn name(&self) -> Result<&Word, ParseError> {
        let command = self.asked.word;
        let missing = || command.error(format!("`{}' needs a chain", command.text));
        let name = self.asked.chain.as_ref().ok_or_else(missing)?;
        if name.text.len() > MAX_CHAIN_NAME {
            let text = format!("chain name `{}' is longer than {MAX_CHAIN_NAME} bytes", name.text);
            return Err(name.error(text));
        }
        Ok(name)
    }

    fn absent(&self, name: &Word) -> ParseError {
        let table = self.rules.table.name();
        name.error(format!("chain `{}' does not exist in table {table}", name.text))
            .of(Kind::NoChain)
    }

    fn found(&mut self) -> Result<&mut Chain, ParseError> {
        let name = self.name()?.clone();
        let absent = self.absent(&name);
        self.rules.chain_mut(&name.text).ok_or(absent)
    }

    /// `-L` and `-S`, and what `-Z` does beside them.
    fn show(&mut self) -> Result<Effect, ParseError> {
        let asked = self.asked;
        if asked.chain.is_some() {
            self.found()?;
        }
        let chain = asked.chain.as_ref().map(|name| name.text.as_str());
        let number = asked.number.map(|(number, _)| number);
        let labels = Some(self.given.names);
        let (rules, family) = (&*self.rules, self.family);
        match asked.command {
            Command::List => {
                let look = List {
                    numeric: asked.numeric,
                    verbose: self.verbose,
                    exact: asked.exact,
                    line_numbers: asked.line_numbers,
                    labels,
                };
                match (chain.and_then(|name| rules.chain(name)), number) {
                    (Some(chain), Some(number)) => {
                        let rule = chain.rules.get(number.saturating_sub(1));
                        let line = rule.map(|rule| list_rule(number, rule, family, look));
                        self.out.push_str(&line.unwrap_or_default());
                    }
                    _ => self.out.push_str(&list(rules, family, chain, look)),
                }
            }
            _ => print::list_rules(
                self.out,
                (rules, family),
                (chain, number),
                (self.verbose, labels),
            ),
        }
        if asked.zero.is_some() { self.zero() } else { Ok(Effect::Nothing) }
    }

    /// `-Z`, alone or beside a list.
    fn zero(&mut self) -> Result<Effect, ParseError> {
        if self.asked.chain.is_none() {
            self.say_all("Zeroing");
            let effects = self.rules.chains.iter_mut().map(zero);
            return Ok(effects.max().unwrap_or(Effect::Counters));
        }
        let number = self.asked.number.filter(|_| self.asked.zero == Some(Zero::Rule));
        let chain = self.found()?;
        match number {
            Some((number, _)) => {
                let rule = chain.rules.get_mut(number.saturating_sub(1));
                Ok(rule.map_or(Effect::Counters, zero_rule))
            }
            None => {
                let effect = zero(chain);
                let name = chain.name.clone();
                self.say("Zeroing", &name);
                Ok(effect)
            }
        }
    }

    /// `-A`, `-I` and `-R`.
    fn add(&mut self) -> Result<Effect, ParseError> {
        let (asked, given) = (self.asked, self.given.counters);
        self.found()?;
        self.targets_exist()?;
        let mut rules = asked.rules.clone();
        for rule in rules.iter_mut().filter(|rule| rule.counters == Counters::default()) {
            rule.counters = given;
        }
        if self.verbose {
            self.echo(&rules);
        }
        if self.drafts.is_some() && asked.command != Command::Replace {
            return self.add_to_draft(rules);
        }
        let chain = self.found()?;
        let count = chain.rules.len();
        match (asked.command, asked.number) {
            (Command::Append, _) => chain.rules.extend(rules),
            (Command::Replace, Some((number, word))) => {
                if rules.len() != 1 {
                    return Err(word.error("replacement needs exactly one rule"));
                }
                let at = position(number, count, word, "replacement")?;
                chain.rules.splice(at..=at, rules);
            }
            (Command::Replace, None) => return Err(asked.word.error("`-R' needs a rule number")),
            (_, number) => {
                let at = match number {
                    Some((number, word)) => position(number, count + 1, word, "insertion")?,
                    None => 0,
                };
                // One after the other at the same place: the last comes first.
                for rule in rules {
                    chain.rules.insert(at, rule);
                }
            }
        }
        Ok(Effect::Rules)
    }

    /// `-A` and `-I` as one of many lines. What only grows at its end needs no draft.
    fn add_to_draft(&mut self, rules: Vec<Rule>) -> Result<Effect, ParseError> {
        let (asked, mut drafts) = (self.asked, self.drafts.take());
        let appends = asked.command == Command::Append;
        let chain = self.found()?;
        let draft = match drafts.as_mut() {
            Some(drafts) if appends => drafts.get(&chain.name),
            Some(drafts) => Some(drafts.open(chain)),
            None => None,
        };
        let Some(draft) = draft else {
            chain.rules.extend(rules);
            return Ok(Effect::Rules);
        };
        let at = match asked.number {
            Some((number, word)) => position(number, draft.len() + 1, word, "insertion")?,
            None => 0,
        };
        for rule in rules {
            if appends { draft.append(rule) } else { draft.insert(at, rule) }
        }
        Ok(Effect::Rules)
    }

    /// `-D` and `-C`.
    fn look_for(&mut self) -> Result<Effect, ParseError> {
        let asked = self.asked;
        let mut drafts = self.drafts.take();
        if let Some((number, word)) = asked.number {
            let fresh = self.fresh;
            let chain = self.found()?;
            let draft = drafts.as_mut().map(|drafts| drafts.open(chain));
            let count = draft.as_ref().map_or(chain.rules.len(), |draft| draft.len());
            let at = position(number, count, word, "deletion")
                .map_err(|error| if fresh { error.of(Kind::NoChain) } else { error })?;
            match draft {
                Some(draft) => _ = draft.remove(at),
                None => _ = chain.rules.remove(at),
            }
            return Ok(Effect::Rules);
        }
        self.found().map_err(|error| match error.kind {
            Kind::NoChain => error.of(Kind::NoRule),
            _ => error,
        })?;
        self.targets_exist()?;
        for rule in &asked.rules {
            let chain = self.found()?;
            let at = |chain: &Chain| chain.rules.iter().position(|known| known == rule);
            let known = match (asked.command, drafts.as_mut()) {
                (Command::Delete, Some(drafts)) => drafts.open(chain).delete(rule),
                (Command::Delete, None) => at(chain).map(|at| chain.rules.remove(at)),
                (_, Some(drafts)) => drafts.open(chain).find(rule).cloned(),
                (_, None) => at(chain).map(|at| chain.rules[at].clone()),
            };
            let Some(known) = known else {
                let text = format!("`{}': no such rule in chain {}", asked.word.text, chain.name);
                return Err(asked.word.error(text).of(Kind::NoRule));
            };
            if self.verbose {
                self.echo(&[known]);
            }
        }
        Ok(if asked.command == Command::Delete { Effect::Rules } else { Effect::Nothing })
    }

    /// `-N`, `-X`, `-E`, `-F` and `-P`.
    fn chains(&mut self) -> Result<Effect, ParseError> {
        let asked = self.asked;
        match (asked.command, asked.second) {
            (Command::Flush, _) if asked.chain.is_none() => {
                self.say_all("Flushing");
                self.rules.chains.iter_mut().for_each(|chain| chain.rules.clear());
            }
            (Command::Flush, _) => {
                let chain = self.found()?;
                chain.rules.clear();
                let name = chain.name.clone();
                self.say("Flushing", &name);
            }
            (Command::DeleteChain, _) if asked.chain.is_none() => self.delete_chains()?,
            (Command::DeleteChain, _) => {
                let name = self.name()?.clone();
                self.found()?;
                self.say("Deleting", &name.text);
                self.removable(&name.text, &name, |name| self.jumps().any(|to| to == name))?;
                self.rules.chains.retain(|chain| chain.name != name.text);
            }
            (Command::RenameChain, Some(new)) => {
                let name = self.name()?.clone();
                self.rename(&name, new)?;
            }
            (Command::Policy, Some(policy)) => {
                let name = self.name()?.clone();
                // Counters of a `-c` are read and not used, as iptables does.
                set_policy(self.rules, &name, policy, None)?;
            }
            _ => {
                let name = self.name()?.clone();
                new_chain(self.rules, &name)?;
            }
        }
        Ok(Effect::Rules)
    }

    /// All chains of the user, or none if one of them is in use.
    fn delete_chains(&mut self) -> Result<(), ParseError> {
        let names = self.rules.chains.iter().filter(|chain| chain.base.is_none());
        let names: Vec<String> = names.map(|chain| chain.name.clone()).collect();
        for name in &names {
            self.say("Deleting", name);
        }
        let jumps: HashSet<&str> = self.jumps().collect();
        for name in &names {
            self.removable(name, self.asked.word, |name| jumps.contains(name))?;
        }
        self.rules.chains.retain(|chain| chain.base.is_some());
        Ok(())
    }

    /// Whether a chain may go; `word` is to blame if not.
    fn removable(
        &self,
        name: &str,
        word: &Word,
        jumped_to: impl Fn(&str) -> bool,
    ) -> Result<(), ParseError> {
        let Some(chain) = self.rules.chain(name) else { return Ok(()) };
        let fault = if chain.base.is_some() {
            "is a base chain"
        } else if jumped_to(name) {
            "is the target of a rule"
        } else if !chain.rules.is_empty() {
            "is not empty"
        } else {
            return Ok(());
        };
        Err(word.error(format!("chain `{name}' {fault}")).of(Kind::Busy))
    }

    /// The chains that rules lead to, each as often as one does.
    fn jumps(&self) -> impl Iterator<Item = &str> {
        self.rules.chains.iter().flat_map(|chain| &chain.rules).filter_map(leads_to)
    }

    /// Whether the chains that the rules lead to are there.
    fn targets_exist(&self) -> Result<(), ParseError> {
        for rule in &self.asked.rules {
            if let Target::Jump(to) | Target::Goto(to) = &rule.target
                && self.rules.chain(to).is_none()
            {
                let word = Word { text: to.clone(), place: rule.place };
                return Err(self.absent(&word).of(Kind::Text));
            }
        }
        Ok(())
    }

    fn rename(&mut self, name: &Word, new: &Word) -> Result<(), ParseError> {
        if self.rules.chain(&new.text).is_some() {
            let text = format!("chain name `{}' exists already", new.text);
            return Err(new.error(text).of(Kind::NameExists));
        }
        if self.found()?.base.is_some() {
            let text = format!("chain `{}' is a base chain and keeps its name", name.text);
            return Err(name.error(text).of(Kind::Busy));
        }
        new_chain(self.rules, new)?;
        let old = self.rules.chains.iter().position(|chain| chain.name == name.text);
        let rules = old.map(|at| self.rules.chains.remove(at).rules).unwrap_or_default();
        if let Some(chain) = self.rules.chain_mut(&new.text) {
            chain.rules = rules;
        }
        for rule in self.rules.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
            if let Target::Jump(to) | Target::Goto(to) = &mut rule.target
                && *to == name.text
            {
                to.clone_from(&new.text);
            }
        }
        Ok(())
    }

    fn echo(&mut self, rules: &[Rule]) {
        for rule in rules {
            self.out.push_str(&list::echo(rule, self.family, Some(self.given.names)));
        }
    }

    fn say(&mut self, what: &str, chain: &str) {
        if self.verbose {
            let _ = writeln!(self.out, "{what} chain `{chain}'");
        }
    }

    fn say_all(&mut self, what: &str) {
        if self.verbose {
            let names = self.rules.chains.iter().map(|chain| chain.name.as_str());
            self.out.extend(names.map(|name| format!("{what} chain `{name}'\n")));
        }
    }
}

/// The chain that a rule jumps or goes to.
pub(super) fn leads_to(rule: &Rule) -> Option<&str> {
    match &rule.target {
        Target::Jump(to) | Target::Goto(to) => Some(to),
        _ => None,
    }
}

fn zero(chain: &mut Chain) -> Effect {
    if let Some(base) = &mut chain.base {
        base.counters = Counters::default();
    }
    chain.rules.iter_mut().map(zero_rule).max().unwrap_or(Effect::Counters)
}

/// The tools write a rule anew to zero it, so its quota and bucket are full again.
fn zero_rule(rule: &mut Rule) -> Effect {
    rule.counters = Counters::default();
    let mut effect = Effect::Counters;
    for asked in &mut rule.matches {
        if asked.renew() {
            effect = Effect::Rules;
        }
    }
    effect
}

/// Rule numbers count from 1.
fn position(
    number: usize,
    count: usize,
    word: &Word,
    what: &'static str,
) -> Result<usize, ParseError> {
    match number.checked_sub(1).filter(|&at| at < count) {
        Some(at) => Ok(at),
        None => {
            let text = format!("index of {what} `{}' is out of range", word.text);
            Err(word.error(text).of(Kind::Index(what)))
        }
    }
}

/// `-N`.
pub(super) fn new_chain(rules: &mut TableRules, name: &Word) -> Result<(), ParseError> {
    let text = name.text.as_str();
    let fault = if text.is_empty() {
        "is empty".to_owned()
    } else if text.starts_with(['-', '!', ':']) {
        format!("must not start with `{}'", text.chars().next().unwrap_or('-'))
    } else if text.len() > MAX_CHAIN_NAME {
        format!("is longer than {MAX_CHAIN_NAME} bytes")
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"') {
        "has a blank, a quote or a control character in it".to_owned()
    } else if is_target(text) {
        "clashes with a target's name".to_owned()
    } else if rules.add_chain(text) {
        return Ok(());
    } else {
        let error = name.error(format!("chain name `{text}' exists already"));
        return Err(error.of(Kind::ChainExists));
    };
    Err(name.error(format!("chain name `{text}' {fault}")))
}

/// `-P`, and the policy of a chain line; without counters the old ones stay.
pub(super) fn set_policy(
    rules: &mut TableRules,
    name: &Word,
    policy: &Word,
    counters: Option<Counters>,
) -> Result<(), ParseError> {
    let table = rules.table;
    let base = rules.chain_mut(&name.text).and_then(|chain| chain.base.as_mut());
    let Some(base) = base else {
        let text = format!("`{}' is no base chain of {}", name.text, table.name());
        return Err(name.error(text).of(Kind::NotBase));
    };
    base.policy = match policy.text.as_str() {
        "ACCEPT" => Policy::Accept,
        "DROP" if table == Table::Nat => {
            return Err(policy
                .error("the table nat decides translation only: policy `DROP' is not possible"));
        }
        "DROP" => Policy::Drop,
        other => {
            return Err(policy.error(format!("bad policy `{other}'")).of(Kind::Policy));
        }
    };
    base.counters = counters.unwrap_or(base.counters);
    Ok(())
}

/// True if `name` is a base chain's name in any table; such a name cannot be a user chain's.
pub(super) fn is_hook(name: &str) -> bool {
    Hook::from_name(name).is_some()
}

/// The place of a whole line.
pub(super) fn line_place(line: u32) -> Place {
    Place { line, column: 1 }
}
