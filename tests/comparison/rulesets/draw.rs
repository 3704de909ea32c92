//! Draws the rule set of a case: how many chains and rules, who jumps where, and which policies.
//!
//! A user chain is reached from some built-in chains of its table, its homes. Its rules are such as
//! are valid in all of them, and who jumps there has no other homes; jumps lead from chain to later
//! chain, so that none leads back.

use super::matches::{self, Place};
use super::ruleset::{Chain, Rule, Ruleset, Table};
use super::targets;
use crate::random::dice::Dice;
use crate::random::plan::Plan;

/// What operators write, one block of lines in so many of a hundred sets: table, chain, rules.
const BLOCKS: &[(u64, &str, &str, &[&str])] = &[
    (
        30,
        "mangle",
        "PREROUTING",
        &[
            "-j CONNMARK --restore-mark",
            "-m mark ! --mark 0x0 -j ACCEPT",
            "-i lan -j MARK --set-mark 0x1",
            "-j CONNMARK --save-mark",
        ],
    ),
    (
        35,
        "filter",
        "FORWARD",
        &[
            "-m conntrack --ctstate INVALID -j DROP",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ],
    ),
    (20, "filter", "INPUT", &["-m state --state RELATED,ESTABLISHED -j ACCEPT"]),
    (30, "nat", "POSTROUTING", &["-o wan -j MASQUERADE"]),
    (15, "mangle", "FORWARD", &["-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu"]),
];

/// The rule set for a scene; its rules are numbered from `number` on.
pub fn ruleset(plan: &Plan, mut number: usize, dice: &mut Dice) -> Ruleset {
    let mut set = Ruleset { tracks: true, ..Ruleset::empty() };
    let mut apart = false;
    for table in &mut set.tables {
        policies(table, dice);
        users(table, dice);
        rules(table, (plan, apart), &mut number, dice);
        let tracks =
            |rule: &Rule| !["zone", "notrack", "NOTRACK"].iter().any(|w| rule.text.contains(w));
        apart |= table.name == "raw" && !table.rules.iter().all(tracks);
        for (of_hundred, name, chain, lines) in BLOCKS {
            if *name == table.name && dice.percent(*of_hundred) {
                let rule = |line: &&str| Rule { chain: (*chain).into(), text: format!(" {line}") };
                let at = if dice.percent(70) { 0 } else { table.rules.len() };
                table.rules.splice(at..at, lines.iter().map(rule));
            }
        }
    }
    set
}

fn policies(table: &mut Table, dice: &mut Dice) {
    for chain in &mut table.chains {
        let drops = match (table.name, chain.name.as_str()) {
            ("filter", "FORWARD") => 25,
            ("filter", "INPUT") => 20,
            ("filter", _) => 7,
            ("nat", _) => 0,
            _ => 2,
        };
        if dice.percent(drops) {
            chain.policy = Some("DROP");
        }
    }
}

/// Adds user chains.
fn users(table: &mut Table, dice: &mut Dice) {
    let count = dice.weighted(&[(3, 0), (3, 1), (2, 2), (1, 3)]);
    let hooks: Vec<&'static str> =
        table.chains.iter().flat_map(|chain| chain.homes.clone()).collect();
    for number in 0..count {
        let mut homes = vec![dice.pick(&hooks)];
        if dice.percent(30) {
            homes.push(dice.pick(&hooks));
        }
        homes.sort_unstable();
        homes.dedup();
        table.chains.push(Chain { name: format!("user{number}"), policy: None, homes });
    }
}

fn rules(table: &mut Table, (plan, apart): (&Plan, bool), number: &mut usize, dice: &mut Dice) {
    for at in 0..table.chains.len() {
        let chain = table.chains[at].clone();
        let count = match (table.name, chain.name.as_str(), chain.policy.is_some()) {
            (_, "OUTPUT", _) => dice.weighted(&[(5, 0), (2, 1), (1, 3)]),
            ("filter", "FORWARD", _) => dice.between(1, 7),
            ("filter", ..) => dice.between(0, 4),
            ("raw", ..) => dice.weighted(&[(3, 0), (3, 1), (3, 2), (1, 4)]),
            ("mangle", "PREROUTING" | "FORWARD" | "POSTROUTING", _) => dice.between(0, 5),
            ("mangle", ..) => dice.between(0, 3),
            (_, "PREROUTING" | "POSTROUTING", _) => dice.between(0, 4),
            _ => dice.weighted(&[(3, 0), (2, 1), (1, 2)]),
        };
        let fits = |other: &&Chain| chain.homes.iter().all(|home| other.homes.contains(home));
        let later = table.chains[at + 1..].iter().filter(|other| other.policy.is_none());
        let later: Vec<String> = later.filter(fits).map(|other| other.name.clone()).collect();
        let mut drawn = Vec::new();
        for _ in 0..count {
            *number += 1;
            let place = Place {
                plan,
                apart,
                table: table.name,
                homes: &chain.homes,
                base: chain.policy.is_some(),
                number: *number,
            };
            let asked = matches::draw(&place, dice);
            drawn.push(targets::draw(&place, asked, dice));
        }
        // Every chain is reached from somewhere, if at all possible.
        for name in &later {
            if dice.percent(15) {
                continue;
            }
            *number += 1;
            let place = Place {
                plan,
                apart,
                table: table.name,
                homes: &chain.homes,
                base: chain.policy.is_some(),
                number: *number,
            };
            let asked = matches::draw(&place, dice).text;
            let jump = if dice.percent(80) { "-j" } else { "-g" };
            let at = dice.below(drawn.len() as u64 + 1) as usize;
            drawn.insert(at, format!("{asked} {jump} {name}"));
        }
        let rule = |text: String| Rule { chain: chain.name.clone(), text };
        table.rules.extend(drawn.into_iter().map(rule));
    }
}
