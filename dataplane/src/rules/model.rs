//! A ruleset as its user wrote it: tables, chains, rules in order, with places for error texts.
//!
//! The control core owns one for each family, edits it and compiles it. Counters here are the
//! values at the last edit or save; the live ones are the workers', by [`CounterId`], whose
//! numbering [`Ruleset::countables`] fixes.
//!
//! [`CounterId`]: crate::rules::compiled::CounterId

use super::hook::{Family, Hook, Table};
use super::matches::{Basics, Match};
use super::targets::Target;

/// All tables of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Whose packets are judged.
    pub family: Family,
    /// By [`Table::index`]; `None` for a table that was never named, which accepts everything.
    pub tables: [Option<TableRules>; 4],
}

/// One table's chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableRules {
    /// Which table.
    pub table: Table,
    /// One for each of [`Table::hooks`], in that order, then the user's chains sorted by name.
    pub chains: Vec<Chain>,
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name; a base chain has its hook's.
    pub name: String,
    /// Hook and policy of a base chain.
    pub base: Option<Base>,
    /// Rules, first match wins.
    pub rules: Vec<Rule>,
}

/// What makes a chain a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Where it hangs.
    pub hook: Hook,
    /// What happens at its end.
    pub policy: Policy,
    /// Packets that met the policy.
    pub counters: Counters,
}

/// What a base chain does with packets that no rule decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Let pass.
    Accept,
    /// Drop.
    Drop,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// Where in a rule file something was written; both count from 1, 0 is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where its target's word stands, or its first word if there is no target.
    pub place: Place,
    /// Packets that matched.
    pub counters: Counters,
    /// Tests without `-m`.
    pub basics: Basics,
    /// Further tests, all of which have to hold, in order.
    pub matches: Vec<Match>,
    /// What happens.
    pub target: Target,
}

/// Rules are the same if they ask and do the same, as `-D` and `-C` compare: places and counters
/// are left out.
impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        self.basics == other.basics && self.matches == other.matches && self.target == other.target
    }
}

impl Eq for Rule {}

/// Something that counts: a base chain's policy or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Countable {
    /// Table it is in.
    pub table: Table,
    /// Position of the chain in [`TableRules::chains`].
    pub chain: usize,
    /// Position of the rule in its chain; `None` for the policy.
    pub rule: Option<usize>,
}

impl TableRules {
    /// The table with its base chains, empty and accepting.
    pub fn new(table: Table) -> TableRules {
        let base = |&hook: &Hook| Chain {
            name: hook.name().to_owned(),
            base: Some(Base { hook, policy: Policy::Accept, counters: Counters::default() }),
            rules: Vec::new(),
        };
        TableRules { table, chains: table.hooks().iter().map(base).collect() }
    }

    /// Where the chain of that name is, or would have its place.
    fn place_of(&self, name: &str) -> Result<usize, usize> {
        let (bases, users) = self.chains.split_at(self.table.hooks().len().min(self.chains.len()));
        if let Some(at) = bases.iter().position(|chain| chain.name == name) {
            return Ok(at);
        }
        let found = users.binary_search_by(|chain| chain.name.as_str().cmp(name));
        found.map(|at| bases.len() + at).map_err(|at| bases.len() + at)
    }

    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.place_of(name).ok().and_then(|at| self.chains.get(at))
    }

    /// The same, to edit.
    pub fn chain_mut(&mut self, name: &str) -> Option<&mut Chain> {
        self.place_of(name).ok().and_then(|at| self.chains.get_mut(at))
    }

    /// Adds an empty user chain in its sorted place; false if the name is taken.
    pub fn add_chain(&mut self, name: &str) -> bool {
        let Err(at) = self.place_of(name) else { return false };
        self.chains.insert(at, Chain { name: name.to_owned(), base: None, rules: Vec::new() });
        true
    }
}

impl Ruleset {
    /// A ruleset without tables: everything passes.
    pub fn new(family: Family) -> Ruleset {
        Ruleset { family, tables: [None, None, None, None] }
    }

    /// The table, if it was ever named.
    pub fn table(&self, table: Table) -> Option<&TableRules> {
        self.tables[table.index()].as_ref()
    }

    /// The table, made if it was never named.
    pub fn table_mut(&mut self, table: Table) -> &mut TableRules {
        self.tables[table.index()].get_or_insert_with(|| TableRules::new(table))
    }

    /// True if the other one is written the same, whatever both have counted.
    pub fn says_the_same(&self, other: &Ruleset) -> bool {
        let base = |chain: &Chain| chain.base.map(|base| (base.hook, base.policy));
        let same =
            |a: &Chain, b: &Chain| a.name == b.name && base(a) == base(b) && a.rules == b.rules;
        let all = |a: &TableRules, b: &TableRules| {
            let pairs = || a.chains.iter().zip(&b.chains);
            a.chains.len() == b.chains.len() && pairs().all(|(a, b)| same(a, b))
        };
        self.family == other.family
            && self.tables.iter().zip(&other.tables).all(|pair| match pair {
                (Some(a), Some(b)) => all(a, b),
                (a, b) => a.is_none() && b.is_none(),
            })
    }

    /// Begins anew what matches keep, apart from the rules that this is a copy of.
    pub fn renew(&mut self) {
        let chains = self.tables.iter_mut().flatten().flat_map(|table| &mut table.chains);
        let rules = chains.flat_map(|chain| &mut chain.rules);
        rules.flat_map(|rule| &mut rule.matches).for_each(|asked| _ = asked.renew());
    }

    /// Copies what matches keep, apart from the rules that this is a copy of.
    pub fn part(&mut self) {
        let chains = self.tables.iter_mut().flatten().flat_map(|table| &mut table.chains);
        let rules = chains.flat_map(|chain| &mut chain.rules);
        rules.flat_map(|rule| &mut rule.matches).for_each(Match::part);
    }

    /// Everything that counts, in counter order: table by table, chain by chain, the policy of a
    /// base chain before its rules.
    pub fn countables(&self) -> impl Iterator<Item = Countable> + '_ {
        self.tables.iter().flatten().flat_map(|rules| {
            rules.chains.iter().enumerate().flat_map(move |(at, chain)| {
                let item = move |rule| Countable { table: rules.table, chain: at, rule };
                let policy = chain.base.iter().map(move |_| item(None));
                policy.chain((0..chain.rules.len()).map(move |rule| item(Some(rule))))
            })
        })
    }

    /// The same in the same order, to read or set the values.
    pub fn counters_mut(&mut self) -> impl Iterator<Item = &mut Counters> {
        self.tables.iter_mut().flatten().flat_map(|rules| {
            rules.chains.iter_mut().flat_map(|chain| {
                let policy = chain.base.iter_mut().map(|base| &mut base.counters);
                policy.chain(chain.rules.iter_mut().map(|rule| &mut rule.counters))
            })
        })
    }
}
