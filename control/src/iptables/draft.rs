//! Chains that a rule file changes many times.
//!
//! A rule that goes in at the head of a plain list, or is deleted by its text, costs as much as the
//! list is long, and so a file of many such lines the square of that. A [`Draft`] takes and gives
//! rules at either end for the price of the rule, leaves a hole where one was deleted by its text,
//! and, once it has been searched as often as that is worth it, finds rules by a digest of their
//! text. A number far from both ends still costs what lies before it. Whatever needs the list as it
//! is has the drafts settled before.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use dataplane::rules::hook::Family;
use dataplane::rules::model::{Chain, Rule, TableRules};

use super::print::rule_text;

/// Searches of a whole chain that are cheaper than to digest it.
const SEARCHES: usize = 8;

/// The drafts of a table, by chain. Their rules are here and not in the table.
#[derive(Debug)]
pub(super) struct Drafts {
    family: Family,
    chains: HashMap<String, Draft>,
}

/// One chain's rules.
#[derive(Debug)]
pub(super) struct Draft {
    family: Family,
    /// In their order, with holes, but for the first, which is none.
    rules: VecDeque<Option<Rule>>,
    holes: usize,
    /// The place of what is in front. Places stay the same when rules come and go before them.
    first: i64,
    /// Places by digest, once there is reason.
    places: Option<(RandomState, HashMap<u64, BTreeSet<i64>>)>,
    /// Rules and holes that were looked at, moved or digested.
    work: usize,
}

impl Drafts {
    /// None yet.
    pub(super) fn new(family: Family) -> Drafts {
        Drafts { family, chains: HashMap::new() }
    }

    /// The draft of a chain, if it is one.
    pub(super) fn get(&mut self, name: &str) -> Option<&mut Draft> {
        self.chains.get_mut(name)
    }

    /// The draft that the chain is from now on.
    pub(super) fn open(&mut self, chain: &mut Chain) -> &mut Draft {
        let family = self.family;
        self.chains.entry(chain.name.clone()).or_insert_with(|| {
            let rules = std::mem::take(&mut chain.rules);
            let (work, first) = (rules.len(), 0);
            let rules = rules.into_iter().map(Some).collect();
            Draft { family, rules, holes: 0, first, places: None, work }
        })
    }

    /// Gives all rules back to their chains.
    pub(super) fn settle(&mut self, table: &mut TableRules) {
        for (name, draft) in self.chains.drain() {
            if let Some(chain) = table.chain_mut(&name) {
                chain.rules = draft.rules.into_iter().flatten().collect();
            }
        }
    }
}

impl Draft {
    /// Adds a rule at the end.
    pub(super) fn append(&mut self, rule: Rule) {
        let place = self.first + self.rules.len() as i64;
        self.note(&rule, place);
        self.rules.push_back(Some(rule));
    }

    /// Rules in it.
    pub(super) fn len(&self) -> usize {
        self.rules.len() - self.holes
    }

    /// Adds a rule before the one of this number, which counts from 0 and is at most their number.
    pub(super) fn insert(&mut self, number: usize, rule: Rule) {
        if number == 0 {
            self.first -= 1;
            self.note(&rule, self.first);
            self.rules.push_front(Some(rule));
            return;
        }
        self.close_holes(number);
        self.rules.insert(number.min(self.rules.len()), Some(rule));
    }

    /// Takes the rule of this number away.
    pub(super) fn remove(&mut self, number: usize) -> Option<Rule> {
        if number == 0 {
            return self.take(self.first);
        }
        self.close_holes(number);
        self.rules.remove(number).flatten()
    }

    /// The first rule that is the same as `rule`.
    pub(super) fn find(&mut self, rule: &Rule) -> Option<&Rule> {
        let place = self.place_of(rule)?;
        self.at(place)
    }

    /// Takes the first rule away that is the same as `rule`.
    pub(super) fn delete(&mut self, rule: &Rule) -> Option<Rule> {
        let place = self.place_of(rule)?;
        self.take(place)
    }

    fn place_of(&mut self, rule: &Rule) -> Option<i64> {
        if self.places.is_none() && self.work > SEARCHES * self.rules.len() {
            self.digest();
        }
        match &self.places {
            None => self.search(rule),
            Some((state, places)) => {
                let same = |place: &&i64| self.at(**place) == Some(rule);
                let digest = state.hash_one(rule_text(rule, self.family));
                let known = places.get(&digest).into_iter().flatten().find(same).copied();
                self.work += 1;
                known
            }
        }
    }

    fn take(&mut self, place: i64) -> Option<Rule> {
        let at = usize::try_from(place - self.first).ok()?;
        let rule = self.rules.get_mut(at)?.take()?;
        self.holes += 1;
        self.work += 1;
        if let Some((state, places)) = &mut self.places {
            let digest = state.hash_one(rule_text(&rule, self.family));
            if let Some(known) = places.get_mut(&digest) {
                known.remove(&place);
            }
        }
        while let Some(None) = self.rules.front() {
            self.rules.pop_front();
            self.first += 1;
            self.holes -= 1;
            self.work += 1;
        }
        Some(rule)
    }

    /// Makes numbers positions, for a change at this one. Places are not what they were then.
    fn close_holes(&mut self, number: usize) {
        if self.holes > 0 {
            self.work += self.rules.len();
            self.rules.retain(Option::is_some);
            self.holes = 0;
        }
        self.places = None;
        self.work += number.min(self.rules.len().saturating_sub(number)) + 1;
    }

    fn at(&self, place: i64) -> Option<&Rule> {
        self.rules.get(usize::try_from(place - self.first).ok()?)?.as_ref()
    }

    fn search(&mut self, rule: &Rule) -> Option<i64> {
        let found = self.rules.iter().position(|known| known.as_ref() == Some(rule));
        self.work += found.unwrap_or(self.rules.len()) + 1;
        found.map(|at| self.first + at as i64)
    }

    fn digest(&mut self) {
        self.places = Some((RandomState::new(), HashMap::new()));
        let rules = std::mem::take(&mut self.rules);
        for (place, rule) in (self.first..).zip(&rules) {
            if let Some(rule) = rule {
                self.note(rule, place);
            }
        }
        self.rules = rules;
    }

    /// A rule that has got its place.
    fn note(&mut self, rule: &Rule, place: i64) {
        self.work += 1;
        if let Some((state, places)) = &mut self.places {
            let digest = state.hash_one(rule_text(rule, self.family));
            places.entry(digest).or_default().insert(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::iptables::{Look, Options, restore_with, save};
    use crate::labels::Names;
    use dataplane::rules::hook::Table;
    use dataplane::rules::model::Ruleset;

    const RULES: u32 = 20_000;

    fn rule(number: u32) -> Rule {
        let address = std::net::Ipv4Addr::from_bits(number);
        let text = format!("*filter\n-A INPUT -s {address} -j DROP\nCOMMIT\n");
        let empty = Ruleset::new(Family::V4);
        let restored = restore_with(&empty, &text, Options::default(), &Names::default()).unwrap();
        restored.ruleset.table(Table::Filter).unwrap().chains[0].rules[0].clone()
    }

    fn draft(rules: Vec<Rule>) -> Drafts {
        let mut table = TableRules::new(Table::Filter);
        table.chains[0].rules = rules;
        let mut drafts = Drafts::new(Family::V4);
        drafts.open(&mut table.chains[0]);
        drafts
    }

    /// What many lines cost is so many times the lines, in whatever order they come.
    #[test]
    fn many_lines_cost_what_a_line_costs_times_their_number() {
        let rules: Vec<Rule> = (1..=RULES).map(rule).collect();
        let orders: [fn(Vec<Rule>) -> Vec<Rule>; 3] = [
            |rules| rules,
            |rules| rules.into_iter().rev().collect(),
            // From the middle outwards, by turns.
            |rules| {
                let (head, tail) = rules.split_at(rules.len() / 2);
                let pairs = head.iter().rev().zip(tail);
                pairs.flat_map(|(a, b)| [a.clone(), b.clone()]).collect()
            },
        ];
        for order in orders {
            let mut drafts = draft(Vec::new());
            let draft = drafts.get("INPUT").unwrap();
            rules.iter().for_each(|rule| draft.insert(0, rule.clone()));
            for rule in order(rules.clone()) {
                assert_eq!(draft.find(&rule), Some(&rule));
                assert_eq!(draft.delete(&rule).as_ref(), Some(&rule));
                draft.append(rule);
            }
            for rule in order(rules.clone()) {
                assert_eq!(draft.delete(&rule).as_ref(), Some(&rule));
            }
            assert_eq!(draft.delete(&rules[0]), None);
            rules.iter().for_each(|rule| draft.insert(draft.len().min(4), rule.clone()));
            for number in (0..rules.len()).rev() {
                assert!(draft.remove(number.min(3)).is_some());
            }
            assert_eq!((draft.remove(0), draft.len()), (None, 0));
            let lines = 7 * RULES as usize;
            assert!(draft.work < 16 * lines, "{} for {lines} lines", draft.work);
        }
    }

    /// The lines of a file in one draft, and each in a file of its own.
    fn both_ways(lines: &[String]) {
        let restore = |current: &Ruleset, text: &str| {
            let options = Options { noflush: true, ..Options::default() };
            let text = format!("*filter\n{text}COMMIT\n");
            restore_with(current, &text, options, &Names::default())
        };
        let mut alone = restore(&Ruleset::new(Family::V4), ":U - [0:0]\n").unwrap().ruleset;
        let whole = restore(&alone, &lines.concat());
        let mut refused = None;
        for line in lines {
            match restore(&alone, line) {
                Ok(restored) => alone = restored.ruleset,
                Err(error) => {
                    refused = Some((error.message, error.kind));
                    break;
                }
            }
        }
        match whole {
            Ok(restored) => {
                assert_eq!(refused, None);
                let text = |ruleset| save(ruleset, Look::default());
                assert_eq!(text(&restored.ruleset), text(&alone));
            }
            Err(error) => assert_eq!(refused, Some((error.message, error.kind))),
        }
    }

    fn line() -> impl Strategy<Value = String> {
        let common = ["-A C -s S", "-I C -s S", "-D C -s S", "-I C -s S", "-D C -s S"];
        let odd = [
            "-I C 1 -s S,10.0.1.1",
            "-D C 1",
            "-D C 3",
            "-I C 2 -p udp",
            "-I C 5 -p icmp",
            "-C C -s S",
            "-R C 1 -p tcp",
            "-A FORWARD -j U",
            ":U - [0:0]",
            "-X U",
            "-F C",
            "-L C",
        ];
        let line = prop_oneof![
            3 => proptest::sample::select(common.to_vec()),
            1 => proptest::sample::select(odd.to_vec()),
        ];
        let chain = prop_oneof![3 => Just("FORWARD"), 1 => Just("U")];
        (line, chain, 1u8..12).prop_map(|(line, chain, source)| {
            let source = format!(" 10.0.0.{source}");
            line.replace(" C", &format!(" {chain}")).replace(" S", &source) + "\n"
        })
    }

    proptest! {
        #[test]
        fn a_file_of_many_lines_does_what_each_line_does(
            begun in proptest::collection::vec(1u8..12, 0..30),
            lines in proptest::collection::vec(line(), 0..40),
        ) {
            let mut all: Vec<String> =
                begun.iter().map(|a| format!("-A FORWARD -s 10.0.0.{a}\n")).collect();
            all.extend(lines);
            both_ways(&all);
        }
    }
}
