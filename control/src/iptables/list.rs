//! Rulesets as `iptables -L` 1.8.9 (nf_tables) lists them, letter for letter.
//!
//! Names of hosts and networks are not looked up: an address stays one without `-n` too.

use core::fmt::Write;
use std::collections::HashMap;

use dataplane::rules::hook::Family;
use dataplane::rules::matches::{Maybe, Net};
use dataplane::rules::model::{Base, Chain, Rule, TableRules};
use dataplane::rules::targets::Target;

use super::edit::leads_to;
use super::extensions::{of_match, of_target};
use super::names;
use super::print::{Line, net_text, policy_name};
use crate::labels::Names;

/// How to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct List<'a> {
    /// `-n`: numbers instead of names.
    pub numeric: bool,
    /// `-v`: counters and ports.
    pub verbose: bool,
    /// `-x`: counters in full.
    pub exact: bool,
    /// `--line-numbers`.
    pub line_numbers: bool,
    /// The names that labels have.
    pub labels: Option<&'a Names>,
}

/// The listing of a table, or of one of its chains.
pub fn list(rules: &TableRules, family: Family, only: Option<&str>, look: List<'_>) -> String {
    let chains = rules.chains.iter().filter(|chain| only.is_none_or(|name| chain.name == name));
    let mut references = HashMap::new();
    for to in rules.chains.iter().flat_map(|chain| &chain.rules).filter_map(leads_to) {
        *references.entry(to).or_default() += 1;
    }
    let text = |chain| one_chain(&references, chain, family, look);
    chains.map(text).collect::<Vec<String>>().join("\n")
}

/// One rule's line; `number` counts from 1.
pub fn list_rule(number: usize, rule: &Rule, family: Family, look: List<'_>) -> String {
    let mut out = String::new();
    if look.line_numbers {
        let _ = write!(out, "{number:<4} ");
    }
    if look.verbose {
        out.push_str(&count(rule.counters.packets, look));
        out.push_str(&count(rule.counters.bytes, look));
    }
    let _ = write!(out, "{:<9} ", target_name(&rule.target));
    let basics = &rule.basics;
    let proto = basics.proto.unwrap_or(Maybe::is(0));
    let text = match names::protocol_name(proto.value) {
        _ if look.numeric => proto.value.to_string(),
        None if proto.value == 0 => "all".to_owned(),
        None => proto.value.to_string(),
        Some(name) => name.to_owned(),
    };
    let _ = write!(out, "{}{text:<4} ", sign(proto.not));
    let _ = write!(out, "{} ", fragment(basics.fragment));
    if look.verbose {
        let _ = write!(out, " {:<6} ", port(&basics.in_port, look));
        let _ = write!(out, "{:<6} ", port(&basics.out_port, look));
    }
    net(&mut out, basics.src, family, look);
    net(&mut out, basics.dst, family, look);
    if matches!(rule.target, Target::Goto(_)) {
        out.push_str("[goto] ");
    }
    out.push_str(&extensions(rule, family, look));
    out.push('\n');
    out
}

/// A rule as `iptables -v` repeats what it adds, finds or deletes.
pub(super) fn echo(rule: &Rule, family: Family, labels: Option<&Names>) -> String {
    let look = List { numeric: true, labels, ..List::default() };
    let basics = &rule.basics;
    let proto = basics.proto.unwrap_or(Maybe::is(0));
    let known = |number| names::protocol_name(number).filter(|name| SELF_KNOWN.contains(name));
    let name = match proto.value {
        0 => "all".to_owned(),
        number => known(number).map_or_else(|| number.to_string(), str::to_owned),
    };
    let fragment = fragment(basics.fragment);
    let (into, out) = (port(&basics.in_port, look), port(&basics.out_port, look));
    let mut line = format!(
        "{} {}{name} opt {fragment} in {into} out {out} ",
        target_name(&rule.target),
        sign(proto.not)
    );
    let not = |asked: Option<Maybe<Net>>| sign(asked.is_some_and(|net| net.not));
    let (src, dst) = (basics.src, basics.dst);
    let _ = write!(line, "{}{} ", not(src), net_name(src, family, look));
    let _ = write!(line, "{}-> {}  ", not(dst), net_name(dst, family, look));
    line.push_str(if matches!(rule.target, Target::Goto(_)) { "[goto] " } else { "" });
    line.push_str(&extensions(rule, family, look));
    line.push('\n');
    line
}

/// Protocols that iptables names without asking the system.
const SELF_KNOWN: &[&str] =
    &["icmp", "tcp", "udp", "esp", "ah", "ipv6-icmp", "sctp", "mobility-header", "udplite"];

fn target_name(target: &Target) -> &str {
    match target {
        Target::Notrack => "CT",
        target => target.name(),
    }
}

fn fragment(asked: Option<Maybe<()>>) -> &'static str {
    match asked {
        None => "--",
        Some(Maybe { not: false, .. }) => "-f",
        Some(Maybe { not: true, .. }) => "!f",
    }
}

/// `references` are the rules that lead to each chain.
fn one_chain(
    references: &HashMap<&str, usize>,
    chain: &Chain,
    family: Family,
    look: List<'_>,
) -> String {
    let mut out = format!("Chain {} (", chain.name);
    match chain.base {
        Some(Base { policy, counters, .. }) => {
            let _ = write!(out, "policy {}", policy_name(policy));
            if look.verbose {
                let packets = count(counters.packets, List { exact: false, ..look });
                let bytes = count(counters.bytes, List { exact: false, ..look });
                let _ = write!(out, " {} packets, {} bytes", packets.trim(), bytes.trim());
            }
        }
        None => {
            let count = references.get(chain.name.as_str()).copied().unwrap_or(0);
            let _ = write!(out, "{count} references");
        }
    }
    out.push_str(")\n");
    if look.line_numbers {
        out.push_str("num  ");
    }
    if look.verbose {
        out.push_str(if look.exact { "    pkts      bytes " } else { " pkts bytes " });
    }
    out.push_str("target     prot opt ");
    out.push_str(if look.verbose { "in     out     " } else { "" });
    out.push_str("source               destination         \n");
    for (number, rule) in (1..).zip(&chain.rules) {
        out.push_str(&list_rule(number, rule, family, look));
    }
    out
}

fn sign(not: bool) -> char {
    if not { '!' } else { ' ' }
}

/// A counter with a blank after it: five columns and a letter for thousands, or in full.
fn count(number: u64, look: List<'_>) -> String {
    if look.exact {
        return format!("{number:>8} ");
    }
    let mut short = number;
    if short <= 99_999 {
        return format!("{short:>5} ");
    }
    for letter in ['K', 'M', 'G'] {
        // Wraps as iptables does, whose numbers have 64 bits too.
        short = short.wrapping_add(500) / 1000;
        if short <= 9_999 {
            return format!("{short:>4}{letter} ");
        }
    }
    format!("{:>4}T ", (short + 500) / 1000)
}

fn port(asked: &Option<Maybe<String>>, look: List<'_>) -> String {
    match asked {
        None => if look.numeric { "*" } else { "any" }.to_owned(),
        Some(Maybe { not, value }) => format!("{}{value}", if *not { "!" } else { "" }),
    }
}

fn net(out: &mut String, asked: Option<Maybe<Net>>, family: Family, look: List<'_>) {
    let text = net_name(asked, family, look);
    let _ = write!(out, "{}{text:<19} ", sign(asked.is_some_and(|net| net.not)));
}

fn net_name(asked: Option<Maybe<Net>>, family: Family, look: List<'_>) -> String {
    let everything = match family {
        Family::V4 => "0.0.0.0/0",
        Family::V6 => "::/0",
    };
    match asked {
        Some(net) if net.value.mask != 0 => net_text(net.value, family, false),
        _ if look.numeric => everything.to_owned(),
        _ => "anywhere".to_owned(),
    }
}

fn extensions(rule: &Rule, family: Family, look: List<'_>) -> String {
    let mut line = Line::new(family, look.labels);
    line.numeric = look.numeric;
    line.proto = rule.basics.proto.map_or(0, |proto| proto.value);
    for asked in &rule.matches {
        if let Some((row, text)) = of_match(asked) {
            line.extension = row.name;
            text.list(&mut line);
        }
    }
    if let Some((row, text)) = of_target(&rule.target) {
        line.extension = row.name;
        text.list(&mut line);
    }
    if rule.target == Target::Notrack {
        line.word("NOTRACK");
    }
    line.into_text()
}

#[cfg(test)]
pub(super) mod tests {
    use dataplane::rules::hook::Table;
    use dataplane::rules::model::Ruleset;

    use super::*;
    use crate::iptables::restore;

    /// Rules for `iptables-restore -c`, then what iptables 1.8.9 (nf_tables) printed for `$` lines.
    const V4: &str = include_str!("golden/list_v4.txt");
    const V6: &str = include_str!("golden/list_v6.txt");
    const MATCHES_V4: &str = include_str!("golden/list_matches_v4.txt");
    const MATCHES_V6: &str = include_str!("golden/list_matches_v6.txt");
    const TARGETS_V4: &str = include_str!("golden/list_targets_v4.txt");
    const TARGETS_V6: &str = include_str!("golden/list_targets_v6.txt");
    const SYNPROXY_V4: &str = include_str!("golden/list_synproxy_v4.txt");
    const SYNPROXY_V6: &str = include_str!("golden/list_synproxy_v6.txt");

    #[test]
    fn lists_are_those_of_the_real_tool() {
        let v4 = [V4, MATCHES_V4, TARGETS_V4, SYNPROXY_V4].map(|text| (Family::V4, text));
        let v6 = [V6, MATCHES_V6, TARGETS_V6, SYNPROXY_V6].map(|text| (Family::V6, text));
        for (family, text) in v4.into_iter().chain(v6) {
            lists_as_the_real_tool(family, text);
        }
    }

    /// Holds every list in `text` against the one that is made here.
    pub(in crate::iptables) fn lists_as_the_real_tool(family: Family, text: &str) {
        let mut parts = text.split("$ ");
        let rules = parts.next().unwrap();
        let ruleset = restore(&Ruleset::new(family), rules, false, true).unwrap();
        let mut count = 0;
        for (command, expected) in parts.map(|part| part.split_once('\n').unwrap()) {
            let words: Vec<&str> = command.split(' ').collect();
            let short = |w: &&str| w.starts_with('-') && !w.starts_with("--");
            let has = |letter| words.iter().filter(|w| short(w)).any(|w| w.contains(letter));
            let look = List {
                numeric: has("n"),
                verbose: has("v"),
                exact: has("x"),
                line_numbers: words.contains(&"--line-numbers"),
                labels: None,
            };
            let table = ruleset.table(Table::from_name(words[1]).unwrap()).unwrap();
            let chain = words.last().copied().filter(|word| *word != "-L");
            assert_eq!(list(table, family, chain, look), expected, "{command}");
            count += 1;
        }
        assert!(count >= 3);
    }
}
