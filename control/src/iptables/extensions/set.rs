//! `-m set` and `-j SET`.

use dataplane::rules::matches::Match;
use dataplane::rules::matches::set::SetMatch;
use dataplane::rules::sets::Sides;
use dataplane::rules::sets::set::Compare;
use dataplane::rules::targets::{SetTarget, Target};

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::Line;
use super::super::values::Fault;

/// The longest name of a set.
const NAME_MAX: usize = 31;

pub(super) const SET: Extension<Match> = Extension {
    name: "set",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("match-set").or("set").takes(2).must(),
        flag("return-nomatch"),
        opt("update-counters").takes(0),
        opt("update-subcounters").takes(0),
        opt("packets-eq").group(1),
        valued("packets-lt").group(1),
        valued("packets-gt").group(1),
        opt("bytes-eq").group(2),
        valued("bytes-lt").group(2),
        valued("bytes-gt").group(2),
    ],
    begin: |_| Match::Set(Box::default()),
};

pub(super) const CHANGE_SET: Extension<Target> = Extension {
    name: "SET",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("add-set").takes(2),
        valued("del-set").takes(2),
        valued("map-set").takes(2),
        flag("exist"),
        valued("timeout"),
        flag("map-mark"),
        flag("map-prio"),
        flag("map-queue"),
    ],
    begin: |_| Target::Set(Box::default()),
};

impl Text for SetMatch {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let (asked, not) = (&mut self.asked, given.not);
        let counter = || counter(given.text());
        match given.name {
            "match-set" => {
                (self.name, asked.sides) = set_and_sides(given.values)?;
                self.not = not;
            }
            "return-nomatch" => asked.return_nomatch = true,
            "update-counters" => asked.no_update = not,
            "update-subcounters" => asked.no_member_update = not,
            "packets-eq" if not => asked.packets = Some(Compare::Other(counter()?)),
            "packets-eq" => asked.packets = Some(Compare::Equal(counter()?)),
            "packets-lt" => asked.packets = Some(Compare::Below(counter()?)),
            "packets-gt" => asked.packets = Some(Compare::Above(counter()?)),
            "bytes-eq" if not => asked.bytes = Some(Compare::Other(counter()?)),
            "bytes-eq" => asked.bytes = Some(Compare::Equal(counter()?)),
            "bytes-lt" => asked.bytes = Some(Compare::Below(counter()?)),
            _ => asked.bytes = Some(Compare::Above(counter()?)),
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        each(self, out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        each(self, out, "");
    }
}

/// What `save` and `list` have in common.
fn each(asked: &SetMatch, out: &mut Line<'_>, dashes: &str) {
    if asked.not {
        out.word("!");
    }
    out.word(&format!("{dashes}match-set {} {}", asked.name, sides_text(asked.asked.sides)));
    for (there, text) in [
        (asked.asked.return_nomatch, format!("{dashes}return-nomatch")),
        (asked.asked.no_update, format!("! {dashes}update-counters")),
        (asked.asked.no_member_update, format!("! {dashes}update-subcounters")),
    ] {
        if there {
            out.word(&text);
        }
    }
    for (compare, what) in [(asked.asked.packets, "packets"), (asked.asked.bytes, "bytes")] {
        out.word(&match compare {
            None => continue,
            Some(Compare::Equal(value)) => format!("{dashes}{what}-eq {value}"),
            Some(Compare::Other(value)) => format!("! {dashes}{what}-eq {value}"),
            Some(Compare::Below(value)) => format!("{dashes}{what}-lt {value}"),
            Some(Compare::Above(value)) => format!("{dashes}{what}-gt {value}"),
        });
    }
}

impl Text for SetTarget {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "add-set" => self.add = Some(set_and_sides(given.values)?),
            "del-set" => self.del = Some(set_and_sides(given.values)?),
            "exist" => self.exist = true,
            "timeout" => {
                let text = given.text();
                let value = text.parse().ok().filter(|&value: &u32| value < u32::MAX);
                let wrong = || {
                    let what = "invalid value for option --timeout or out of range 0-4294967294";
                    format!("`{text}': {what}")
                };
                self.timeout = Some(value.ok_or_else(wrong)?);
            }
            "map-set" => self.map = Some(set_and_sides(given.values)?),
            "map-prio" => {
                let why = "packets have no priority, as there are no queueing disciplines";
                return Err(format!("--map-prio is not supported: {why}"));
            }
            "map-queue" => {
                let why = "packets leave by the queue of their worker";
                return Err(format!("--map-queue is not supported: {why}"));
            }
            // Without it nothing would be done.
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let marks = whole.seen.contains(&"map-mark");
        let wrong = match (&self.add, &self.del) {
            (None, None) if self.map.is_none() => {
                "option `--add-set' or `--del-set' or `--map-set' must be specified"
            }
            _ if self.map.is_some() && !marks => {
                "one of the flags `--map-mark', `--map-prio' and `--map-queue' must be specified"
            }
            _ if self.map.is_none() && marks => {
                "flag `--map-mark' can be used with `--map-set' only"
            }
            (None, _) if self.exist => "flag `--exist' can be used with `--add-set' only",
            (None, _) if self.timeout.is_some() => {
                "option `--timeout' can be used with `--add-set' only"
            }
            _ => return Ok(()),
        };
        Err(format!("SET: {wrong}"))
    }

    fn save(&self, out: &mut Line<'_>) {
        each_change(self, out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        each_change(self, out, "");
    }
}

fn each_change(target: &SetTarget, out: &mut Line<'_>, dashes: &str) {
    if let Some((name, sides)) = &target.add {
        out.word(&format!("{dashes}add-set {name} {}", sides_text(*sides)));
    }
    if target.exist {
        out.word(&format!("{dashes}exist"));
    }
    if let Some(timeout) = target.timeout {
        out.word(&format!("{dashes}timeout {timeout}"));
    }
    if let Some((name, sides)) = &target.del {
        out.word(&format!("{dashes}del-set {name} {}", sides_text(*sides)));
    }
    if let Some((name, sides)) = &target.map {
        out.word(&format!("{dashes}map-set {name} {}", sides_text(*sides)));
        out.word(&format!("{dashes}map-mark"));
    }
}

/// A set's name, and `src,dst`. As in iptables what stands behind the three letters says nothing.
fn set_and_sides(values: &[&str]) -> Result<(String, Sides), Fault> {
    let &[name, words] = values else { return Err("two words are needed".to_owned()) };
    if name.len() > NAME_MAX || name.is_empty() {
        return Err(format!("setname `{name}' must have 1 to {NAME_MAX} characters"));
    }
    let mut sides = Sides::default();
    for word in words.split(',') {
        let source = match word.get(..3) {
            Some("src") => true,
            Some("dst") => false,
            _ => return Err(format!("`{words}' is no list of `src' and `dst'")),
        };
        let many = || format!("`{words}': no more than {} of `src' and `dst'", Sides::MAX);
        sides = sides.with(source).ok_or_else(many)?;
    }
    Ok((name.to_owned(), sides))
}

fn sides_text(sides: Sides) -> String {
    let word = |number| if sides.is_source(number) { "src" } else { "dst" };
    (0..usize::from(sides.count)).map(word).collect::<Vec<_>>().join(",")
}

fn counter(text: &str) -> Result<u64, Fault> {
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let octal = text.strip_prefix('0').filter(|rest| !rest.is_empty());
    let (digits, radix) = match (hex, octal) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) => (octal, 8),
        (None, None) => (text, 10),
    };
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'));
    value.ok_or_else(|| format!("cannot parse `{text}' as a counter value"))
}

#[cfg(test)]
mod tests {
    use dataplane::rules::hook::{Family, Table};
    use dataplane::rules::model::Ruleset;

    use crate::iptables::{List, list, restore};

    /// Rules, and what `iptables -nL` of 1.8.9 prints behind the addresses.
    const LISTED: &[(&str, &str)] = &[
        ("-A INPUT -m set --match-set foo src -j ACCEPT", "match-set foo src"),
        ("-A FORWARD -m set ! --match-set foo dst -j DROP", "! match-set foo dst"),
        ("-A INPUT -m set --match-set np src,dst", "match-set np src,dst"),
        ("-A INPUT -m set --match-set foo src,dst,src", "match-set foo src,dst,src"),
        (
            "-A INPUT -m set --match-set l src,dst,src,dst,src,dst",
            "match-set l src,dst,src,dst,src,dst",
        ),
        ("-A INPUT -m set --match-set foo srcx", "match-set foo src"),
        ("-A INPUT -m set --set foo src", "match-set foo src"),
        ("-A INPUT -m set ! --set foo src", "! match-set foo src"),
        (
            "-A INPUT -m set --match-set foo src --return-nomatch",
            "match-set foo src return-nomatch",
        ),
        (
            "-A INPUT -m set --match-set cn src ! --update-counters",
            "match-set cn src ! update-counters",
        ),
        ("-A INPUT -m set --match-set cn src --update-counters", "match-set cn src"),
        (
            "-A INPUT -m set --match-set cn src ! --update-subcounters",
            "match-set cn src ! update-subcounters",
        ),
        ("-A INPUT -m set --match-set cn src --packets-eq 5", "match-set cn src packets-eq 5"),
        ("-A INPUT -m set --match-set cn src ! --packets-eq 5", "match-set cn src ! packets-eq 5"),
        (
            "-A INPUT -m set --match-set cn src --packets-lt 5 --bytes-gt 7",
            "match-set cn src packets-lt 5 bytes-gt 7",
        ),
        ("-A INPUT -m set --match-set cn src --bytes-eq 9", "match-set cn src bytes-eq 9"),
        ("-A INPUT -m set --match-set cn src ! --bytes-eq 9", "match-set cn src ! bytes-eq 9"),
        ("-A INPUT -m set --match-set cn src --bytes-lt 010", "match-set cn src bytes-lt 8"),
        ("-A INPUT -m set --match-set cn src --packets-gt 0x9", "match-set cn src packets-gt 9"),
        (
            "-A INPUT -m set --match-set cn src --return-nomatch ! --update-counters ! --update-subcounters --packets-gt 18446744073709551615 --bytes-lt 1",
            "match-set cn src return-nomatch ! update-counters ! update-subcounters packets-gt 18446744073709551615 bytes-lt 1",
        ),
        ("-A INPUT -m set --packets-gt 9 --match-set cn src", "match-set cn src packets-gt 9"),
        (
            "-A INPUT -m set --match-set foo src -m set ! --match-set np src,src -j DROP",
            "match-set foo src ! match-set np src,src",
        ),
        ("-A FORWARD -j SET --add-set foo src", "add-set foo src"),
        ("-A FORWARD -j SET --add-set foo src --exist", "add-set foo src exist"),
        ("-A FORWARD -j SET --add-set to src --timeout 50", "add-set to src timeout 50"),
        (
            "-A FORWARD -j SET --timeout 50 --exist --add-set to src",
            "add-set to src exist timeout 50",
        ),
        ("-A FORWARD -j SET --add-set to src --timeout 0", "add-set to src timeout 0"),
        (
            "-A FORWARD -j SET --add-set to src --timeout 4294967294",
            "add-set to src timeout 4294967294",
        ),
        ("-A FORWARD -j SET --del-set foo src", "del-set foo src"),
        (
            "-A FORWARD -j SET --del-set np dst,dst --add-set foo src",
            "add-set foo src del-set np dst,dst",
        ),
        ("-A FORWARD -j SET --map-set foo src --map-mark", "map-set foo src map-mark"),
        (
            "-A FORWARD -j SET --map-mark --map-set a src,dst --del-set c dst --add-set c src --exist",
            "add-set c src exist del-set c dst map-set a src,dst map-mark",
        ),
        (
            "-A FORWARD -p tcp -m set --match-set foo src -j SET --add-set np src,dst",
            "match-set foo src add-set np src,dst",
        ),
    ];

    #[test]
    fn lists_are_those_of_the_real_tool() {
        for family in [Family::V4, Family::V6] {
            for (rule, expected) in LISTED {
                let table = if rule.contains("--map-set") { Table::Mangle } else { Table::Filter };
                let text = format!("*{}\n{rule}\nCOMMIT\n", table.name());
                let ruleset = restore(&Ruleset::new(family), &text, false, false).unwrap();
                let look = List { numeric: true, ..List::default() };
                let listed =
                    list(ruleset.table(table).unwrap(), family, rule.split(' ').nth(1), look);
                let line = listed.lines().last().unwrap();
                assert!(line.ends_with(&format!("    {expected}")), "{rule}: {line}");
            }
        }
    }
}
