//! The tables that rules share by name: of `hashlimit` by family, of `recent` for both.
//!
//! The control core makes them with a snapshot. A table lives for as long as some rule names it,
//! from one snapshot to the next; a name that nobody gives any more begins anew when it comes back
//! (`htable_find_get`, `recent_table_lookup`). Workers change what is in a table, by the rules of
//! its match.

use std::collections::HashMap;

use super::hook::Family;
use super::kept::{Apart, Kept};
use super::matches::recent::Recent;
use super::matches::{Match, hashlimit, recent};
use super::model::Ruleset;
use super::test::Test;

/// All tables of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    hashlimits: [HashMap<String, Kept<hashlimit::Table>>; 2],
    recents: HashMap<String, Kept<recent::Table>>,
}

impl Tables {
    /// The tables that these rules name: those of before, and new ones.
    pub fn next(&self, rulesets: &[&Ruleset]) -> Tables {
        let mut next = Tables::default();
        for ruleset in rulesets {
            for asked in all(ruleset) {
                match asked {
                    Match::Hashlimit(asked) => next.hashlimit_of(self, ruleset.family, asked),
                    Match::Recent(asked) => next.recent_of(self, ruleset.family, asked),
                    _ => {}
                }
            }
        }
        next
    }

    /// Copies of all of them, which nobody else changes.
    pub fn apart(&self) -> Tables {
        fn copies<T: Apart>(tables: &HashMap<String, Kept<T>>) -> HashMap<String, Kept<T>> {
            tables.iter().map(|(name, table)| (name.clone(), table.apart())).collect()
        }
        Tables {
            hashlimits: self.hashlimits.each_ref().map(copies),
            recents: copies(&self.recents),
        }
    }

    fn hashlimit_of(&mut self, before: &Tables, family: Family, asked: &hashlimit::Hashlimit) {
        let tables = &mut self.hashlimits[family as usize];
        if !tables.contains_key(&asked.name) {
            let old = before.hashlimit(family, &asked.name);
            let table = old.unwrap_or_else(|| Kept::new(hashlimit::Table::new(asked.shape)));
            tables.insert(asked.name.clone(), table);
        }
    }

    fn recent_of(&mut self, before: &Tables, family: Family, asked: &Recent) {
        let known = self.recent(&asked.name).or_else(|| before.recent(&asked.name));
        let stamps = asked.stamps();
        let table = match known {
            Some(table) if table.stamps() >= stamps => table,
            Some(table) => Kept::new(table.enlarged(stamps)),
            None => Kept::new(recent::Table::new(asked, family == Family::V6, stamps)),
        };
        self.recents.insert(asked.name.clone(), table);
    }

    /// The test of a match that has a table.
    pub(super) fn test(&self, asked: &Match, family: Family) -> Option<Test> {
        Some(match asked {
            Match::Hashlimit(asked) => {
                let table = self.hashlimit(family, &asked.name)?;
                Test::Hashlimit(Box::new(hashlimit::Named { above: asked.above, table }))
            }
            Match::Recent(asked) => {
                let table = self.recent(&asked.name)?;
                Test::Recent(Box::new(recent::Named { rule: (**asked).clone(), table }))
            }
            _ => return None,
        })
    }

    /// The table of a name in `hashlimit`.
    fn hashlimit(&self, family: Family, name: &str) -> Option<Kept<hashlimit::Table>> {
        self.hashlimits[family as usize].get(name).cloned()
    }

    /// The table of a name in `recent`.
    pub fn recent(&self, name: &str) -> Option<Kept<recent::Table>> {
        self.recents.get(name).cloned()
    }
}

fn all(ruleset: &Ruleset) -> impl Iterator<Item = &Match> {
    let chains = ruleset.tables.iter().flatten().flat_map(|table| &table.chains);
    chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches)
}

#[cfg(test)]
mod tests {
    use super::super::hook::Table;
    use super::super::matches::Maybe;
    use super::super::matches::recent::Ask;
    use super::super::model::{Counters, Place, Rule};
    use super::super::targets::Target;
    use super::*;
    use crate::wire::address::Address;

    fn recent(name: &str, hits: u32, mask: u128) -> Match {
        let (name, ask) = (name.to_owned(), Maybe::is(Ask::Check));
        let asked = Recent { name, ask, dst: false, mask, secs: 0, reap: false, hits, ttl: false };
        Match::Recent(Box::new(asked))
    }

    fn ruleset(family: Family, matches: Vec<Match>) -> Ruleset {
        let mut ruleset = Ruleset::new(family);
        let (place, counters) = (Place::default(), Counters::default());
        let basics = Default::default();
        let rule = Rule { place, counters, basics, matches, target: Target::None };
        ruleset.table_mut(Table::Filter).chains[0].rules.push(rule);
        ruleset
    }

    fn entries(tables: &Tables, name: &str) -> Option<usize> {
        tables.recent(name).map(|table| table.seen().len())
    }

    /// As in Linux 6.18.
    #[test]
    fn a_table_lives_for_as_long_as_somebody_names_it() {
        let v4 = ruleset(Family::V4, vec![recent("a", 0, 0xffff_ffff), recent("b", 0, 0)]);
        let v6 = ruleset(Family::V6, vec![recent("a", 20, u128::MAX)]);
        let tables = Tables::default().next(&[&v4, &v6]);
        tables.recent("a").unwrap().add(Address::v4(1), 5);
        tables.recent("b").unwrap().add(Address::v4(1), 5);
        let only_v6 = tables.next(&[&v6]);
        assert_eq!((entries(&only_v6, "a"), entries(&only_v6, "b")), (Some(1), None));
        assert_eq!(entries(&only_v6.next(&[&v4, &v6]), "a"), Some(1));
        assert_eq!(entries(&only_v6.next(&[&v4, &v6]), "b"), Some(0), "began anew");
        let more = ruleset(Family::V4, vec![recent("a", 33, 0)]);
        let larger = tables.next(&[&v4, &v6, &more]);
        assert_eq!(larger.recent("a").unwrap().stamps(), 64);
        assert_eq!((entries(&larger, "a"), entries(&larger, "b")), (Some(0), Some(1)));
        let stays = larger.next(&[&v4]).recent("a").unwrap();
        assert_eq!(stays.stamps(), 64, "and stays as large");
    }
}
