//! A random rule set: chains, policies and rules of the four tables, as text for
//! `iptables-restore`.
//!
//! Each rule stands on its own, so that any of them can be left out: a chain that nobody jumps to
//! any more stays declared.

use std::fmt::Write;

/// Tables in the order of `iptables-save`.
pub const TABLES: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

/// A chain.
#[derive(Clone, Debug)]
pub struct Chain {
    pub name: String,
    /// `None` for a user chain.
    pub policy: Option<&'static str>,
    /// The built-in chains from which a packet may come here.
    pub homes: Vec<&'static str>,
}

/// A rule: the chain it is appended to, and everything behind that.
#[derive(Clone, Debug)]
pub struct Rule {
    pub chain: String,
    pub text: String,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    pub name: &'static str,
    pub chains: Vec<Chain>,
    pub rules: Vec<Rule>,
}

/// All four tables of a family.
#[derive(Clone, Debug)]
pub struct Ruleset {
    pub tables: Vec<Table>,
    /// Whether conns are tracked whatever else there is: a kernel tracks nothing for rules that do
    /// not ask for it.
    pub tracks: bool,
}

/// A rule that asks for the state of a conn and does nothing.
const TRACKS: &str = "-A POSTROUTING -m conntrack --ctstate NEW";

impl Ruleset {
    /// Tables that accept everything.
    pub fn empty() -> Ruleset {
        let table = |(name, hooks): (&'static str, &[&'static str])| {
            let chain = |hook: &&'static str| Chain {
                name: (*hook).to_owned(),
                policy: Some("ACCEPT"),
                homes: vec![*hook],
            };
            Table { name, chains: hooks.iter().map(chain).collect(), rules: Vec::new() }
        };
        Ruleset { tables: TABLES.map(table).into(), tracks: false }
    }

    /// For `iptables-restore`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for table in &self.tables {
            let _ = writeln!(text, "*{}", table.name);
            for chain in &table.chains {
                let _ = writeln!(text, ":{} {} [0:0]", chain.name, chain.policy.unwrap_or("-"));
            }
            for rule in &table.rules {
                let _ = writeln!(text, "-A {}{}", rule.chain, rule.text);
            }
            if self.tracks && table.name == "mangle" {
                let _ = writeln!(text, "{TRACKS}");
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    /// How many rules there are.
    pub fn size(&self) -> usize {
        self.tables.iter().map(|table| table.rules.len()).sum()
    }

    /// The same without some rules, which are counted through all tables.
    pub fn without(&self, part: std::ops::Range<usize>) -> Ruleset {
        let mut at = 0;
        let mut smaller = self.clone();
        for table in &mut smaller.tables {
            table.rules.retain(|_| {
                at += 1;
                !part.contains(&(at - 1))
            });
        }
        smaller
    }

    /// The same without user chains that no rule names, and without rules in them.
    pub fn pruned(&self) -> Ruleset {
        let mut smaller = self.clone();
        for table in &mut smaller.tables {
            loop {
                let named = |chain: &Chain| {
                    let jumps = [format!("-j {}", chain.name), format!("-g {}", chain.name)];
                    let ends = |rule: &Rule| jumps.iter().any(|jump| rule.text.ends_with(jump));
                    chain.policy.is_some() || table.rules.iter().any(ends)
                };
                let gone = table.chains.iter().position(|chain| !named(chain));
                let Some(gone) = gone else { break };
                let gone = table.chains.remove(gone);
                table.rules.retain(|rule| rule.chain != gone.name);
            }
        }
        smaller
    }
}

/// The tables of a listing of `iptables-save`, with their lines but for comments, sorted by name:
/// a kernel lists them in the order in which they were made.
pub fn tables(listing: &str) -> Vec<(String, Vec<String>)> {
    let mut tables: Vec<(String, Vec<String>)> = Vec::new();
    for line in listing.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match (line.strip_prefix('*'), tables.last_mut()) {
            (Some(name), _) => tables.push((name.to_owned(), Vec::new())),
            (None, Some((_, lines))) => lines.push(line.to_owned()),
            (None, None) => tables.push((String::new(), vec![line.to_owned()])),
        }
    }
    tables.sort();
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_and_the_chains_they_led_to_can_be_left_out() {
        let mut set = Ruleset::empty();
        let user = Chain { name: "u".into(), policy: None, homes: vec!["FORWARD"] };
        set.tables[3].chains.push(user);
        let rule = |chain: &str, text: &str| Rule { chain: chain.into(), text: text.into() };
        set.tables[1].rules.push(rule("FORWARD", " -j TRACE"));
        set.tables[3].rules = vec![rule("FORWARD", " -j u"), rule("u", " -j DROP")];
        assert_eq!(set.size(), 3);
        assert_eq!(set.pruned().text(), set.text());
        let smaller = set.without(1..2);
        assert!(smaller.text().contains("-A u -j DROP") && !smaller.text().contains("-j u"));
        assert_eq!(smaller.pruned().size(), 1);
        let listed = tables(&format!("# by hand\n{}", set.text()));
        let names: Vec<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["filter", "mangle", "nat", "raw"]);
        assert!(listed[0].1.contains(&"-A u -j DROP".to_owned()));
    }
}
