//! Single edits of a table: what one line of a rule file or one `iptables` command does.
//!
//! An edit changes a [`Ruleset`] in place and stops at the first fault; whoever needs all or
//! nothing edits a copy. Whether targets stand where they may is seen only when all edits are done
//! (`dataplane::rules::check`).

use dataplane::rules::hook::{Hook, Table};
use dataplane::rules::model::{Chain, Counters, Place, Policy, Rule, Ruleset, TableRules};
use dataplane::rules::targets::Target;

use super::rule::is_target;
use super::words::Word;
use super::{ParseError, parse_rule};
use crate::labels::Names;

/// The longest name of a chain, in bytes.
const MAX_CHAIN_NAME: usize = 28;

/// The commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// `-A`.
    Append,
    /// `-I`.
    Insert,
    /// `-R`.
    Replace,
    /// `-D`.
    Delete,
    /// `-C`: fails if there is no such rule.
    Check,
    /// `-N`.
    NewChain,
    /// `-X`.
    DeleteChain,
    /// `-E`.
    RenameChain,
    /// `-F`.
    Flush,
    /// `-Z`.
    Zero,
    /// `-P`.
    Policy,
}

impl Edit {
    /// The command of a word.
    pub fn from_word(word: &str) -> Option<Edit> {
        Some(match word {
            "-A" | "--append" => Edit::Append,
            "-I" | "--insert" => Edit::Insert,
            "-R" | "--replace" => Edit::Replace,
            "-D" | "--delete" => Edit::Delete,
            "-C" | "--check" => Edit::Check,
            "-N" | "--new-chain" => Edit::NewChain,
            "-X" | "--delete-chain" => Edit::DeleteChain,
            "-E" | "--rename-chain" => Edit::RenameChain,
            "-F" | "--flush" => Edit::Flush,
            "-Z" | "--zero" => Edit::Zero,
            "-P" | "--policy" => Edit::Policy,
            _ => return None,
        })
    }
}

/// Does what `words` say to `table`; the first word is the command. `counters` is what new rules
/// start from unless they have a `-c`; `names` are those that labels have.
///
/// # Errors
/// The first word that cannot be taken, or the command's if there is nothing to do it to.
pub fn edit(
    ruleset: &mut Ruleset,
    table: Table,
    words: &[Word],
    (counters, names): (Counters, &Names),
) -> Result<(), ParseError> {
    let Some((command, rest)) = words.split_first() else { return Ok(()) };
    let Some(kind) = Edit::from_word(&command.text) else {
        let what = if command.text.starts_with('-') { "unknown option" } else { "bad argument" };
        return Err(command.error(format!("{what} `{}'", command.text)));
    };
    let family = ruleset.family;
    let rules = ruleset.table_mut(table);
    let mut job = Job { rules, command, counters, names };
    match kind {
        Edit::Flush | Edit::Zero | Edit::DeleteChain if rest.is_empty() => {
            job.all_chains(kind);
            Ok(())
        }
        _ => {
            let Some((name, rest)) = rest.split_first() else {
                return Err(command.error(format!("`{}' needs a chain", command.text)));
            };
            match kind {
                Edit::Append | Edit::Insert | Edit::Replace | Edit::Delete | Edit::Check => {
                    job.rule(kind, name, rest, family)
                }
                _ => job.chain(kind, name, rest),
            }
        }
    }
}

struct Job<'a> {
    rules: &'a mut TableRules,
    command: &'a Word,
    counters: Counters,
    names: &'a Names,
}

impl Job<'_> {
    fn found(&mut self, name: &Word) -> Result<&mut Chain, ParseError> {
        let table = self.rules.table.name();
        self.rules.chain_mut(&name.text).ok_or_else(|| {
            name.error(format!("chain `{}' does not exist in table {table}", name.text))
        })
    }

    fn rule(
        &mut self,
        kind: Edit,
        name: &Word,
        rest: &[Word],
        family: dataplane::rules::hook::Family,
    ) -> Result<(), ParseError> {
        let (place, given, command) = (self.command.place, self.counters, self.command);
        let labels = self.names;
        let chain = self.found(name)?;
        let (number, spec) = match rest.split_first() {
            Some((word, spec)) if kind != Edit::Append && kind != Edit::Check => {
                match word.text.parse::<usize>() {
                    Ok(number) => (Some((number, word)), spec),
                    Err(_) => (None, rest),
                }
            }
            _ => (None, rest),
        };
        if kind == Edit::Delete
            && let Some((number, word)) = number
        {
            if let Some(extra) = spec.first() {
                return Err(extra.error(format!("bad argument `{}'", extra.text)));
            }
            let at = position(number, chain.rules.len(), word, "deletion")?;
            chain.rules.remove(at);
            return Ok(());
        }
        let mut rules = parse_rule(family, &name.text, spec, place, labels)?;
        for rule in &mut rules {
            if rule.counters == Counters::default() {
                rule.counters = given;
            }
        }
        match (kind, number) {
            (Edit::Append, _) => chain.rules.extend(rules),
            (Edit::Insert, None) => drop(chain.rules.splice(0..0, rules)),
            (Edit::Insert, Some((number, word))) => {
                let at = position(number, chain.rules.len() + 1, word, "insertion")?;
                chain.rules.splice(at..at, rules);
            }
            (Edit::Replace, Some((number, word))) => {
                let at = position(number, chain.rules.len(), word, "replacement")?;
                if rules.len() != 1 {
                    return Err(word.error("replacement needs exactly one rule"));
                }
                chain.rules.splice(at..=at, rules);
            }
            (Edit::Replace, None) => return Err(command.error("`-R' needs a rule number")),
            (Edit::Check, _) => {
                for rule in &rules {
                    same(chain, rule, command)?;
                }
            }
            _ => {
                for rule in &rules {
                    let at = same(chain, rule, command)?;
                    chain.rules.remove(at);
                }
            }
        }
        Ok(())
    }

    fn chain(&mut self, kind: Edit, name: &Word, rest: &[Word]) -> Result<(), ParseError> {
        let takes = usize::from(matches!(kind, Edit::Policy | Edit::RenameChain));
        if let Some(extra) = rest.get(takes) {
            return Err(extra.error(format!("bad argument `{}'", extra.text)));
        }
        let value = rest.first();
        let missing = || name.error(format!("`{}' requires two arguments", self.command.text));
        match kind {
            Edit::NewChain => new_chain(self.rules, name),
            Edit::Policy => {
                let value = value.ok_or_else(missing)?;
                set_policy(self.rules, name, value, None)
            }
            Edit::RenameChain => {
                let value = value.ok_or_else(missing)?;
                self.rename(name, value)
            }
            Edit::Flush => {
                self.found(name)?.rules.clear();
                Ok(())
            }
            Edit::Zero => {
                zero(self.found(name)?);
                Ok(())
            }
            _ => self.delete_chain(name),
        }
    }

    fn all_chains(&mut self, kind: Edit) {
        match kind {
            Edit::Flush => self.rules.chains.iter_mut().for_each(|chain| chain.rules.clear()),
            Edit::Zero => self.rules.chains.iter_mut().for_each(zero),
            // Every empty user chain that nothing jumps to, as `iptables -X` removes them.
            _ => {
                let used: Vec<bool> =
                    self.rules.chains.iter().map(|chain| self.jumped_to(&chain.name)).collect();
                let mut used = used.into_iter();
                self.rules.chains.retain(|chain| {
                    let used = used.next().unwrap_or(true);
                    chain.base.is_some() || used || !chain.rules.is_empty()
                });
            }
        }
    }

    fn jumped_to(&self, name: &str) -> bool {
        self.rules
            .chains
            .iter()
            .flat_map(|chain| &chain.rules)
            .any(|rule| matches!(&rule.target, Target::Jump(to) | Target::Goto(to) if to == name))
    }

    fn delete_chain(&mut self, name: &Word) -> Result<(), ParseError> {
        let used = self.jumped_to(&name.text);
        let chain = self.found(name)?;
        let fault = if chain.base.is_some() {
            "is a base chain"
        } else if used {
            "is the target of a rule"
        } else if !chain.rules.is_empty() {
            "is not empty"
        } else {
            self.rules.chains.retain(|chain| chain.name != name.text);
            return Ok(());
        };
        Err(name.error(format!("chain `{}' {fault}", name.text)))
    }

    fn rename(&mut self, name: &Word, new: &Word) -> Result<(), ParseError> {
        if self.found(name)?.base.is_some() {
            return Err(name.error(format!("chain `{}' is a base chain", name.text)));
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
}

fn zero(chain: &mut Chain) {
    if let Some(base) = &mut chain.base {
        base.counters = Counters::default();
    }
    for rule in &mut chain.rules {
        rule.counters = Counters::default();
    }
}

/// Rule numbers count from 1.
fn position(number: usize, count: usize, word: &Word, what: &str) -> Result<usize, ParseError> {
    match number.checked_sub(1).filter(|&at| at < count) {
        Some(at) => Ok(at),
        None => Err(word.error(format!("index of {what} `{}' is out of range", word.text))),
    }
}

fn same(chain: &Chain, rule: &Rule, command: &Word) -> Result<usize, ParseError> {
    chain.rules.iter().position(|known| known == rule).ok_or_else(|| {
        let text = format!("`{}': no such rule in chain {}", command.text, chain.name);
        command.error(text)
    })
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
        "exists already".to_owned()
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
        return Err(name.error(format!("`{}' is no base chain of {}", name.text, table.name())));
    };
    base.policy = match policy.text.as_str() {
        "ACCEPT" => Policy::Accept,
        "DROP" if table == Table::Nat => {
            return Err(policy
                .error("the table nat decides translation only: policy `DROP' is not possible"));
        }
        "DROP" => Policy::Drop,
        other => return Err(policy.error(format!("bad policy `{other}'"))),
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
