//! Texts against what the real tools said: `golden/v4.txt`, `golden/matches_v4.txt` and their like
//! hold lines given to iptables-restore 1.8.9 (nf_tables) and what iptables-save made of them.

use std::collections::HashSet;

use proptest::prelude::*;

use dataplane::rules::hook::{Family, Hook, Table};
use dataplane::rules::model::Ruleset;

use super::{Look, Options, ParseError, restore, restore_named, save};
use crate::labels::Names;

const V4: &str = include_str!("golden/v4.txt");
const V6: &str = include_str!("golden/v6.txt");
const MATCHES_V4: &str = include_str!("golden/matches_v4.txt");
const MATCHES_V6: &str = include_str!("golden/matches_v6.txt");

const MORE_V4: &str = include_str!("golden/more_v4.txt");
const MORE_V6: &str = include_str!("golden/more_v6.txt");
const STATE_V4: &str = include_str!("golden/state_v4.txt");
const STATE_V6: &str = include_str!("golden/state_v6.txt");

/// Every text, with its family.
const TEXTS: [(Family, &str); 8] = [
    (Family::V4, V4),
    (Family::V6, V6),
    (Family::V4, MATCHES_V4),
    (Family::V6, MATCHES_V6),
    (Family::V4, MORE_V4),
    (Family::V6, MORE_V6),
    (Family::V4, STATE_V4),
    (Family::V6, STATE_V6),
];

/// Lines of each family at least, no two alike.
const LINES_MIN: usize = 400;

/// Table, line in, lines out.
fn cases(text: &'static str) -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let mut cases: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    let mut table = "";
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        } else if let Some(given) = line.strip_prefix("< ") {
            cases.push((table, given, Vec::new()));
        } else if let Some(printed) = line.strip_prefix("> ") {
            cases.last_mut().unwrap().2.push(printed);
        }
    }
    cases
}

pub(super) fn one(family: Family, table: &str, line: &str) -> Result<Ruleset, ParseError> {
    let text = format!("*{table}\n:U - [0:0]\n{line}\nCOMMIT\n");
    restore(&Ruleset::new(family), &text, false, false)
}

fn rules_of(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("-A")).collect()
}

#[test]
fn every_line_prints_as_the_real_tool_prints_it() {
    for (family, text) in TEXTS {
        assert!(prints_as_the_real_tool(family, text) > 0);
    }
}

/// What is said of the language rests on so many lines that the real tools took.
#[test]
fn there_are_four_hundred_lines_of_each_family() {
    for family in [Family::V4, Family::V6] {
        let texts = TEXTS.iter().filter(|(of, _)| *of == family);
        let lines: HashSet<_> = texts
            .flat_map(|(_, text)| cases(text))
            .filter(|(.., printed)| !printed.is_empty())
            .map(|(table, given, _)| (table, given))
            .collect();
        assert!(lines.len() >= LINES_MIN, "{family:?}: {}", lines.len());
    }
}

/// Holds every line of `text` against what is printed of it here; how many there are.
fn prints_as_the_real_tool(family: Family, text: &'static str) -> usize {
    let cases = cases(text);
    for (table, given, expected) in &cases {
        let ruleset = one(family, table, given).unwrap_or_else(|e| panic!("{given}: {e}"));
        let printed = save(&ruleset, Look::default());
        assert_eq!(rules_of(&printed), *expected, "{given}");
        let again = restore(&ruleset, &printed, false, false).unwrap();
        assert_eq!(save(&again, Look::default()), printed, "{given}");
        assert_eq!(again, ruleset, "{given}");
    }
    cases.len()
}

/// Taken from iptables 1.8.9 with the same file of names: a number is a number, whoever has it for
/// a name.
#[test]
fn labels_have_names() {
    let names = Names::parse("0 zero\n1 one\n5 two three\n6 7\n7 seven\n200 big\n");
    let with = |rule: &str| {
        let text = format!("*filter\n-A INPUT -m connlabel {rule}\nCOMMIT\n");
        restore_named(&Ruleset::new(Family::V4), &text, (false, false), &names)
    };
    for (given, printed) in [
        ("--label zero", "--label \"zero\""),
        ("! --label 1 --set", "! --label \"one\" --set"),
        ("--label \"two three\"", "--label \"two three\""),
        ("--label 7", "--label \"seven\""),
        ("--label seven", "--label \"seven\""),
        ("--label 6", "--label \"7\""),
        ("--label 9", "--label \"9\""),
    ] {
        let look = Look { labels: Some(&names), ..Look::default() };
        let saved = save(&with(given).unwrap(), look);
        let expected = format!("-A INPUT -m connlabel {printed}");
        assert_eq!(rules_of(&saved), [expected.as_str()], "{given}");
    }
    for (given, what) in [("--label big", "not below 128"), ("--label nope", "not found")] {
        assert!(with(given).unwrap_err().message.contains(what), "{given}");
    }
}

/// Table, line, the word the error has to point at, a part of what it says.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("filter", "-A INPUT -o x -j ACCEPT", "-o", "cannot use"),
    ("filter", "-A OUTPUT -i x", "-i", "cannot use"),
    ("filter", "-A INPUT -j NOSUCH", "NOSUCH", "does not exist"),
    ("filter", "-A INPUT -g ACCEPT", "ACCEPT", "does not exist"),
    ("filter", "-A INPUT -j accept", "accept", "does not exist"),
    ("filter", "-A INPUT -j FORWARD", "FORWARD", "base chain"),
    ("filter", "-A INPUT -j TEE --gateway 1.2.3.4", "TEE", "not supported"),
    ("filter", "-A FORWARD -j SYNPROXY", "SYNPROXY", "needs `-p tcp'"),
    ("filter", "-A FORWARD -p udp -j SYNPROXY --mss 5", "SYNPROXY", "needs `-p tcp'"),
    ("filter", "-A FORWARD ! -p tcp -j SYNPROXY", "SYNPROXY", "needs `-p tcp'"),
    ("filter", "-A OUTPUT -p tcp -j SYNPROXY", "SYNPROXY", "hook OUTPUT"),
    ("mangle", "-A PREROUTING -p tcp -j SYNPROXY", "SYNPROXY", "hook PREROUTING"),
    ("raw", "-A PREROUTING -p tcp -j SYNPROXY", "SYNPROXY", "hook PREROUTING"),
    ("nat", "-A INPUT -p tcp -j SYNPROXY", "SYNPROXY", "only valid in table filter"),
    ("filter", "-A FORWARD -p tcp -j SYNPROXY --wscale x", "x", "not a number"),
    ("filter", "-A FORWARD -p tcp -j SYNPROXY --mss 1 --mss 2", "2", "only once"),
    ("filter", "-A FOO -j DROP", "FOO", "does not exist"),
    ("filter", "-A INPUT -j SNAT --to-source :5", "SNAT", "need"),
    ("filter", "-A INPUT -p tcp -j SNAT --to-source :5", "SNAT", "only valid in table nat"),
    ("filter", "-A INPUT -j REJECT --reject-with tcp-reset", "REJECT", "-p tcp"),
    ("filter", "-A INPUT ! -p tcp -j REJECT --reject-with tcp-reset", "REJECT", "-p tcp"),
    ("filter", "-A INPUT -j REJECT --reject-with foo", "foo", "unknown reject type"),
    ("filter", "-A INPUT -t filter -j ACCEPT", "-t", "cannot be used"),
    ("filter", "-A INPUT -m owner --uid-owner 0", "owner", "not supported"),
    ("filter", "-A INPUT -m tcp --dport 5", "tcp", "-p tcp"),
    ("filter", "-A INPUT -p udp -m tcp --dport 5", "tcp", "-p tcp"),
    ("filter", "-A INPUT ! -p tcp --dport 5", "--dport", "-p tcp"),
    ("filter", "-A INPUT --dport 5", "--dport", "unknown option"),
    ("filter", "-A INPUT --foo", "--foo", "unknown option"),
    ("filter", "-A INPUT -j ACCEPT --foo", "--foo", "unknown option"),
    ("filter", "-A INPUT -Qtcp", "-Qtcp", "unknown option `-Q'"),
    ("filter", "-A INPUT foo", "foo", "bad argument"),
    ("filter", "-A INPUT -j ACCEPT # no", "#", "bad argument"),
    ("filter", "-A INPUT -s", "-s", "requires an argument"),
    ("filter", "-A INPUT -s 1.2.3.400", "1.2.3.400", "not an IP"),
    ("filter", "-A INPUT -s host.example", "host.example", "not an IP"),
    ("filter", "-A INPUT ! -s ::/0", "::/0", ""),
    ("filter", "-A INPUT -p 6 -p 17", "-p", "twice"),
    ("filter", "-A INPUT -i a -i b", "-i", "twice"),
    ("filter", "-A INPUT -j ACCEPT -j DROP", "-j", "twice"),
    ("filter", "-A INPUT -j U -g U", "-g", "twice"),
    ("filter", "-A INPUT -p 256", "256", "unknown protocol"),
    ("filter", "-A INPUT -p foo", "foo", "unknown protocol"),
    ("filter", "-A INPUT ! -p all", "all", "never match"),
    ("filter", "-A INPUT -i \"\"", "", "empty"),
    ("filter", "-A INPUT -i 0123456789abcdef", "0123456789abcdef", "longer"),
    ("filter", "-A INPUT -i \"a b\"", "a b", "bad port name"),
    ("filter", "-A INPUT ! -j ACCEPT", "-j", "inverted"),
    ("filter", "-A INPUT ! -m mark --mark 1", "-m", "inverted"),
    ("filter", "-A INPUT ! ! -p tcp", "!", "twice"),
    ("filter", "-A INPUT -p tcp !", "!", "follows"),
    ("filter", "-A INPUT -p tcp --dport 80:79", "80:79", "range"),
    ("filter", "-A INPUT -p tcp --dport 65536", "65536", "port"),
    ("filter", "-A INPUT -p tcp --dport foo", "foo", "service"),
    ("filter", "-A INPUT -p tcp --dport 80 --dport 81", "81", "once"),
    ("filter", "-A INPUT -p tcp --tcp-option 0", "0", "option"),
    ("filter", "-A INPUT -p tcp --tcp-flags SYN,FOO SYN", "SYN,FOO", "FOO"),
    ("filter", "-A INPUT -p tcp --tcp-flags SYN", "--tcp-flags", "requires"),
    ("filter", "-A INPUT -p tcp --syn=1", "--syn=1", "no value"),
    ("filter", "-A INPUT -m conntrack", "conntrack", "at least one"),
    ("filter", "-A INPUT -m conntrack --ctstate FOO", "FOO", "state"),
    ("filter", "-A INPUT -m conntrack ! --ctdir REPLY", "--ctdir", "inverted"),
    ("filter", "-A INPUT -m conntrack --ctdir UP", "UP", "direction"),
    ("filter", "-A INPUT -m state", "state", "--state"),
    ("filter", "-A INPUT -m state --state DNAT", "DNAT", "state"),
    ("filter", "-A INPUT -m multiport --dports 5", "multiport", "needs"),
    ("filter", "-A INPUT -p tcp -m multiport", "multiport", "must be specified"),
    ("filter", "-A INPUT -p tcp -m multiport --dports 5:4", "5:4", "range"),
    ("filter", "-A INPUT -p tcp -m multiport --sports 1 --dports 2", "2", "together"),
    ("filter", "-A INPUT -m mark", "mark", "--mark"),
    ("filter", "-A INPUT -m mark --mark 4294967296", "4294967296", "32 bits"),
    ("filter", "-A INPUT -m connlabel --set", "connlabel", "--label"),
    ("filter", "-A INPUT -m connlabel --label 1 --label 2", "2", "once"),
    ("filter", "-A INPUT -m connlabel --label 1 --set --set", "--set", "once"),
    ("filter", "-A INPUT -m connlabel --label 1 ! --set", "--set", "inverted"),
    ("filter", "-A INPUT -m connlabel --label 128", "128", "not below 128"),
    ("filter", "-A INPUT -m connlabel --label 5x", "5x", "not found or invalid value"),
    ("filter", "-A INPUT -m connlabel --label zero", "zero", "not found or invalid value"),
    ("filter", "-A INPUT -m set", "set", "--match-set"),
    ("filter", "-A INPUT -m set --match-set foo", "--match-set", "requires"),
    ("filter", "-A INPUT -m set --match-set foo sr", "foo", "no list of"),
    ("filter", "-A INPUT -m set --match-set a src,dst,src,dst,src,dst,src", "a", "no more than 6"),
    ("filter", "-A INPUT -m set --match-set a src --match-set b src", "b", "once"),
    (
        "filter",
        "-A INPUT -m set --match-set a src ! --return-nomatch",
        "--return-nomatch",
        "inverted",
    ),
    ("filter", "-A INPUT -m set --match-set a src --packets-gt x", "x", "counter value"),
    ("filter", "-A INPUT -m set --match-set a src ! --packets-gt 5", "--packets-gt", "inverted"),
    ("filter", "-A INPUT -m set --match-set a src --packets-gt 5 --packets-lt 3", "3", "together"),
    (
        "filter",
        "-A INPUT -m set --match-set aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa src",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "31",
    ),
    ("filter", "-A INPUT -j SET", "SET", "--add-set"),
    ("filter", "-A INPUT -j SET --exist", "SET", "must be specified"),
    ("filter", "-A INPUT -j SET --del-set a src --exist", "SET", "with `--add-set' only"),
    ("filter", "-A INPUT -j SET --del-set a src --timeout 5", "SET", "with `--add-set' only"),
    ("filter", "-A INPUT -j SET --add-set a src --add-set b src", "b", "once"),
    ("filter", "-A INPUT -j SET --add-set a src --timeout 4294967295", "4294967295", "range"),
    ("filter", "-A INPUT -j SET --map-set a src", "SET", "one of the flags"),
    ("filter", "-A INPUT -j SET --map-mark", "SET", "must be specified"),
    ("filter", "-A INPUT -j SET --add-set a src --map-mark", "SET", "with `--map-set' only"),
    ("mangle", "-A INPUT -j SET --map-set a src --map-mark --exist", "SET", "`--add-set' only"),
    ("mangle", "-A INPUT -j SET --map-set a src --map-prio", "--map-prio", "no priority"),
    ("mangle", "-A INPUT -j SET --map-set a src --map-queue", "--map-queue", "worker"),
    ("mangle", "-A INPUT -j SET --map-set a src --map-set b src", "b", "once"),
    ("filter", "-A INPUT -m comment", "comment", "--comment"),
    ("filter", "-A INPUT -m comment ! --comment x", "--comment", "inverted"),
    ("filter", "-A INPUT -m comment --comment \"x", "x", "quote"),
    ("filter", "-A INPUT -j LOG --log-level 8", "8", "log level"),
    ("filter", "-A INPUT -j LOG --log-prefix \"\"", "", "empty"),
    ("filter", "-I INPUT 2 -j ACCEPT", "2", "out of range"),
    ("filter", "-D INPUT 1", "1", "out of range"),
    ("filter", "-D INPUT -j ACCEPT", "-D", "no such rule"),
    ("filter", "-P U ACCEPT", "U", "base chain"),
    ("filter", "-P INPUT RETURN", "RETURN", "policy"),
    ("filter", "-N ACCEPT", "ACCEPT", "clashes"),
    ("filter", "-N INPUT", "INPUT", "exists"),
    ("filter", ":-foo - [0:0]", "-foo", "start with"),
    ("filter", ":aaaaaaaaaaaaaaaaaaaaaaaaaaaaa - [0:0]", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "longer"),
    ("filter", ":INPUT RETURN [0:0]", "RETURN", "policy"),
    ("filter", ":INPUT ACCEPT 0:0", "0:0", "counters"),
    ("filter", ":POSTROUTING ACCEPT [0:0]", "POSTROUTING", "no chain"),
    ("filter", ":V", "V", "policy"),
    ("filter", "[1:2]", "[1:2]", "no command"),
    ("filter", "[x:2] -A INPUT", "[x:2]", "counters"),
    ("filter", "*nat", "*nat", "bad argument"),
    ("filter", "foo", "foo", "bad argument"),
    ("filter", "-A INPUT -j NOTRACK", "NOTRACK", "table raw"),
    ("filter", "-A U -j U", "U", "leads back"),
    ("filter", "-A INPUT -j U\n-X U", "U", "target of a rule"),
    ("raw", "-A PREROUTING -j REJECT", "REJECT", "table filter"),
    ("raw", "-A PREROUTING -p udp -j CT --helper nosuch", "nosuch", "not supported"),
    ("raw", "-A PREROUTING -j CT --helper tftp", "CT", "needs `-p udp'"),
    ("raw", "-A PREROUTING -p tcp -j CT --helper tftp", "CT", "needs `-p udp'"),
    ("raw", "-A PREROUTING ! -p udp -j CT --helper tftp", "CT", "needs `-p udp'"),
    ("raw", "-A PREROUTING -j CT --zone 65536", "65536", "as a zone"),
    ("raw", "-A PREROUTING -j CT --zone -1", "-1", "as a zone"),
    ("raw", "-A PREROUTING -j CT --zone \"\"", "", "as a zone"),
    ("raw", "-A PREROUTING -j CT --zone-orig 5 --zone-orig 6", "6", "once"),
    ("raw", "-A PREROUTING -j CT --ctevents label", "label", "unknown event type"),
    ("raw", "-A PREROUTING -j CT --ctevents NEW", "NEW", "unknown event type"),
    ("raw", "-A PREROUTING -j CT --ctevents \"\"", "", "unknown event type"),
    ("raw", "-A PREROUTING -j CT --ctevents new --ctevents mark", "mark", "once"),
    ("raw", "-A PREROUTING -j CT --expevents destroy", "destroy", "unknown event type"),
    ("filter", "-A INPUT -p udp -j CT --helper tftp", "CT", "table raw"),
    ("raw", "-A INPUT -j ACCEPT", "INPUT", "does not exist"),
    ("mangle", "-A PREROUTING -j MARK", "MARK", "must be specified"),
    ("mangle", "-A PREROUTING -j MARK --set-mark 1 --set-mark 2", "2", "once"),
    ("mangle", "-A PREROUTING -j MARK --set-mark 1/2/3", "1/2/3", "not a number"),
    ("mangle", "-A PREROUTING -j MARK --or-mark 1/2", "1/2", "not a number"),
    ("nat", "-P PREROUTING DROP", "DROP", "nat"),
    ("nat", "-A PREROUTING -j DROP", "DROP", "nat"),
    ("nat", "-A FORWARD -j ACCEPT", "FORWARD", "does not exist"),
    ("nat", "-A POSTROUTING -j SNAT", "SNAT", "--to-source"),
    ("nat", "-A POSTROUTING -j SNAT --to-source :5", "SNAT", "ports need"),
    ("nat", "-A POSTROUTING -p tcp -j SNAT --to-source :6-5", ":6-5", "range"),
    ("nat", "-A POSTROUTING -p tcp -j SNAT --to-source :5-9/6", ":5-9/6", "garbage"),
    ("nat", "-A POSTROUTING -p tcp -j SNAT --to-source :70000", ":70000", "70000"),
    ("nat", "-A PREROUTING -p tcp -j DNAT --to-destination :5-9/0", ":5-9/0", "base port"),
    ("nat", "-A PREROUTING -p tcp -j DNAT --to-destination :5/6", ":5/6", "garbage"),
    ("nat", "-A PREROUTING -j REDIRECT --random-fully", "--random-fully", "unknown option"),
    ("nat", "-A PREROUTING -j REDIRECT --to-ports 80", "REDIRECT", "ports need"),
    ("nat", "-A POSTROUTING -j MASQUERADE --persistent", "--persistent", "unknown option"),
    ("nat", "-A PREROUTING -j MASQUERADE", "MASQUERADE", "hook PREROUTING"),
    ("nat", "-A POSTROUTING -p tcp -j DNAT --to-destination :5", "DNAT", "hook POSTROUTING"),
    ("nat", "-A PREROUTING -p tcp -j U\n-A U -p tcp -j SNAT --to-source :5", "SNAT", "chain U"),
];

/// The same of matches.
const REFUSED_MATCHES: &[(&str, &str, &str, &str)] = &[
    ("filter", "-A INPUT -m connmark", "connmark", "--mark"),
    ("filter", "-A INPUT -m connmark --mark 1/x", "1/x", "not a number"),
    ("filter", "-A INPUT -m iprange", "iprange", "must be specified"),
    ("filter", "-A INPUT -m iprange --src-range 10.0.0.0/8", "10.0.0.0/8", "address"),
    ("filter", "-A INPUT -m iprange --src-range 10.0.0.1-", "10.0.0.1-", "address"),
    ("filter", "-A INPUT -m addrtype", "addrtype", "must be specified"),
    ("filter", "-A INPUT -m addrtype --limit-iface-in", "addrtype", "must be specified"),
    ("filter", "-A INPUT -m addrtype --dst-type FOO", "FOO", "address type"),
    ("filter", "-A INPUT -m addrtype --dst-type LOCAL,", "LOCAL,", "address type"),
    (
        "filter",
        "-A FORWARD -m addrtype --dst-type LOCAL --limit-iface-in --limit-iface-out",
        "--limit-iface-out",
        "together",
    ),
    ("filter", "-A INPUT -m addrtype --dst-type L --limit-iface-out", "addrtype", "hook INPUT"),
    ("filter", "-A OUTPUT -m addrtype --dst-type L --limit-iface-in", "addrtype", "hook OUTPUT"),
    ("filter", "-A INPUT -m mac", "mac", "--mac-source"),
    ("filter", "-A INPUT -m mac --mac-source 00:11:22:aa:bb", "00:11:22:aa:bb", "MAC address"),
    ("filter", "-A OUTPUT -m mac --mac-source 0:1:2:a:b:c", "mac", "hook OUTPUT"),
    ("filter", "-A INPUT -m length --length 65536", "65536", "above"),
    ("filter", "-A INPUT -m length --length x", "x", "not a number"),
    ("filter", "-A INPUT -m pkttype --pkt-type outgoing", "outgoing", "packet type"),
    ("filter", "-A INPUT -m tos --tos 0x100", "0x100", "unknown TOS"),
    ("filter", "-A INPUT -m tos --tos 255/256", "255/256", "above"),
    ("filter", "-A INPUT -m tos --tos Min", "Min", "unknown TOS"),
    ("filter", "-A INPUT -m dscp", "dscp", "must be specified"),
    ("filter", "-A INPUT -m dscp --dscp 64", "64", "above"),
    ("filter", "-A INPUT -m dscp --dscp-class AF5", "AF5", "DSCP class"),
    ("filter", "-A INPUT -m dscp --dscp-class EF --dscp 5", "5", "together"),
    ("filter", "-A INPUT -m ecn", "ecn", "at least one"),
    ("filter", "-A INPUT -m ecn --ecn-ip-ect 4", "4", "above"),
    ("filter", "-A INPUT -p udp -m ecn --ecn-tcp-ece", "ecn", "-p tcp"),
    ("filter", "-A INPUT ! -p tcp -m tcpmss --mss 1", "tcpmss", "-p tcp"),
    ("filter", "-A INPUT -p tcp -m tcpmss --mss 1500:1400", "1500:1400", "range"),
    ("filter", "-A INPUT -m esp --espspi 1", "esp", "-p esp"),
    ("filter", "-A INPUT -p esp --espspi x", "x", "not a number"),
    ("filter", "-A INPUT -p esp ! --espspi 0:4294967295", "0:4294967295", "never match"),
    ("filter", "-A INPUT -m sctp --sport 5", "sctp", "-p sctp"),
    ("filter", "-A INPUT -p sctp --sport 6:5", "6:5", "range"),
    ("filter", "-A INPUT -p sctp --chunk-types any SACK:T", "any", "flag `T'"),
    ("filter", "-A INPUT -p sctp --chunk-types none DATA", "none", "all, any, only"),
    ("filter", "-A INPUT -p sctp --chunk-types any FOO", "any", "FOO"),
    ("filter", "-A INPUT -p sctp --chunk-types any", "--chunk-types", "requires"),
    ("filter", "-A INPUT -p dccp --dccp-types FOO", "FOO", "DCCP type"),
    ("filter", "-A INPUT -p dccp --dccp-option 0", "0", "DCCP option"),
    ("filter", "-A INPUT -p udplite --dport 5", "--dport", "unknown option"),
    ("filter", "-A INPUT -p udplite -m udplite --dport 5", "udplite", "not supported"),
    ("filter", "-A INPUT -m helper", "helper", "--helper"),
    ("filter", "-A INPUT -m rpfilter", "rpfilter", "raw and mangle"),
    ("mangle", "-A FORWARD -m rpfilter", "rpfilter", "hook FORWARD"),
    ("raw", "-A PREROUTING -m rpfilter ! --loose", "--loose", "inverted"),
    ("filter", "-A INPUT -m statistic", "statistic", "--mode"),
    ("filter", "-A INPUT -m statistic --mode foo", "foo", "mode"),
    ("filter", "-A INPUT -m statistic --mode random", "statistic", "--probability"),
    ("filter", "-A INPUT -m statistic --mode random --probability 1.1", "1.1", "probability"),
    ("filter", "-A INPUT -m statistic --mode random --probability 0.5x", "0.5x", "probability"),
    ("filter", "-A INPUT -m statistic --mode random --every 5", "statistic", "mode nth"),
    ("filter", "-A INPUT -m statistic --mode nth --every 5", "statistic", "--packet"),
    ("filter", "-A INPUT -m statistic --mode nth --every 0", "0", "from 1"),
    ("filter", "-A INPUT -m statistic --mode nth --every 5 --packet 5", "statistic", "below"),
    ("filter", "-A INPUT -m time --contiguous", "time", "--timestop"),
    ("filter", "-A INPUT -m time --datestart 2026-13-02", "2026-13-02", "date"),
    ("filter", "-A INPUT -m time --datestart 1969-01-01", "1969-01-01", "date"),
    ("filter", "-A INPUT -m time --datestop 2039", "2039", "date"),
    ("filter", "-A INPUT -m time --datestart 2026-01-02x", "2026-01-02x", "date"),
    ("filter", "-A INPUT -m time --datestart 2026-01-02T24:00", "2026-01-02T24:00", "date"),
    ("filter", "-A INPUT -m time --weekdays monday", "monday", "day of the week"),
    ("filter", "-A INPUT -m time --weekdays 0", "0", "day of the week"),
    ("filter", "-A INPUT -m time --weekdays 8", "8", "day of the week"),
    ("filter", "-A INPUT -m time --monthdays 32", "32", "day of the month"),
    ("filter", "-A INPUT -m time --monthdays 1st", "1st", "day of the month"),
    ("filter", "-A INPUT -m time ! --weekdays 1,2,3,4,5,6,7", "1,2,3,4,5,6,7", "never match"),
    ("filter", "-A INPUT -m time --timestart 24:00", "24:00", "time of the day"),
    ("filter", "-A INPUT -m time --timestart 10", "10", "time of the day"),
    ("filter", "-A INPUT -m time --timestart 0x8:09", "0x8:09", "time of the day"),
    ("filter", "-A INPUT -m time --kerneltz --utc", "--utc", "together"),
    ("filter", "-A INPUT -m string --string x", "string", "--algo"),
    ("filter", "-A INPUT -m string --algo bm", "string", "--hex-string"),
    ("filter", "-A INPUT -m string --algo fsm --string x", "fsm", "algorithm"),
    ("filter", "-A INPUT -m string --algo bm --string \"\"", "", "1 to 128"),
    ("filter", "-A INPUT -m string --algo bm --hex-string \"|4|\"", "|4|", "hexadecimal"),
    ("filter", "-A INPUT -m string --algo bm --hex-string \"|41\"", "|41", "hexadecimal"),
    ("filter", "-A INPUT -m string --algo bm --hex-string \"||\"", "||", "hexadecimal"),
    ("filter", "-A INPUT -m string --algo bm --string x --to 65536", "65536", "above"),
    ("filter", "-A INPUT -m string --algo bm --string x --from 9 --to 8", "string", "--from"),
    ("filter", "-A INPUT -m u32", "u32", "--u32"),
    ("filter", "-A INPUT -m u32 --u32 0", "0", "operator"),
    ("filter", "-A INPUT -m u32 --u32 \"\"", "", "number"),
    ("filter", "-A INPUT -m u32 --u32 0=", "0=", "number"),
    ("filter", "-A INPUT -m u32 --u32 0=1&&", "0=1&&", "number"),
    ("filter", "-A INPUT -m u32 --u32 0=1&4=2", "0=1&4=2", "`&&'"),
    ("filter", "-A INPUT -m u32 --u32 0>>32=1", "0>>32=1", "less than 32"),
    ("filter", "-A INPUT -m u32 --u32 0>1=1", "0>1=1", "operator"),
    ("filter", "-A INPUT -m u32 --u32 0=4294967296", "0=4294967296", "32 bits"),
    (
        "filter",
        "-A INPUT -m u32 --u32 0&1&1&1&1&1&1&1&1&1&1=1",
        "0&1&1&1&1&1&1&1&1&1&1=1",
        "too many operators",
    ),
    (
        "filter",
        "-A INPUT -m u32 --u32 0=1,2,3,4,5,6,7,8,9,10,11",
        "0=1,2,3,4,5,6,7,8,9,10,11",
        "more than 10",
    ),
];

/// What only one family has.
const REFUSED_IN_ONE: &[(Family, &str, &str, &str)] = &[
    (Family::V4, "-A INPUT -m hl --hl-eq 5", "hl", "not supported"),
    (Family::V4, "-A INPUT -m ttl", "ttl", "must be specified"),
    (Family::V4, "-A INPUT -m ttl --ttl-eq 256", "256", "above"),
    (Family::V4, "-A INPUT -m ttl ! --ttl-lt 5", "--ttl-lt", "inverted"),
    (Family::V4, "-A INPUT -m ttl --ttl-lt 5 --ttl-gt 6", "6", "together"),
    (Family::V4, "-A INPUT -m ah --ahspi 5", "ah", "-p ah"),
    (Family::V4, "-A INPUT -m iprange --src-range ::1-::2", "::1-::2", "IPv4"),
    (Family::V6, "-A INPUT -m ttl --ttl-eq 5", "ttl", "not supported"),
    (Family::V6, "-A INPUT -m hl --hl-lt 5 --hl-gt 5", "5", "together"),
    (Family::V6, "-A INPUT -m addrtype --src-type BLACKHOLE", "BLACKHOLE", "IPv6 has no"),
    (Family::V6, "-A INPUT -m addrtype --src-type LOCAL,PROHIBIT", "LOCAL,PROHIBIT", "PROHIBIT"),
    (Family::V6, "-A INPUT -m frag --fraglast --fragmore", "--fragmore", "together"),
    (Family::V6, "-A INPUT -m hbh --hbh-opts 1:2:3", "1:2:3", "not a number"),
    (Family::V6, "-A INPUT -m hbh --hbh-opts \"\"", "", "not a number"),
    (Family::V6, "-A INPUT -m hbh --hbh-not-strict", "--hbh-not-strict", "unknown option"),
    (
        Family::V6,
        "-A INPUT -m dst --dst-opts 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
        "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17",
        "more than 16",
    ),
    (Family::V6, "-A INPUT -m rt --rt-0-res", "--rt-0-res", "--rt-type 0"),
    (Family::V6, "-A INPUT -m rt ! --rt-type 0 --rt-0-addrs ::1", "::1", "--rt-type 0"),
    (
        Family::V6,
        "-A INPUT -m rt --rt-type 0 --rt-0-not-strict",
        "--rt-0-not-strict",
        "--rt-0-addrs",
    ),
    (Family::V6, "-A INPUT -m ipv6header --soft", "ipv6header", "--header"),
    (Family::V6, "-A INPUT -m ipv6header --header HOP", "HOP", "unknown header"),
    (Family::V6, "-A INPUT -m ipv6header --header 5", "5", "unknown header"),
];

fn is_refused(family: Family, table: &str, line: &str, word: &str, part: &str) {
    let error = match one(family, table, line) {
        Err(error) => error,
        Ok(_) => panic!("accepted: {line}"),
    };
    assert_eq!(error.word, word, "{line}: {error}");
    assert!(error.message.contains(part), "{line}: {error}");
    assert!(error.line >= 3 && error.column >= 1, "{line}: {error}");
}

#[test]
fn wrong_lines_are_refused_by_their_word() {
    for &(table, line, word, part) in REFUSED.iter().chain(REFUSED_MATCHES) {
        for family in [Family::V4, Family::V6] {
            is_refused(family, table, line, word, part);
        }
    }
    for &(family, line, word, part) in REFUSED_IN_ONE {
        is_refused(family, "filter", line, word, part);
    }
}

/// Likewise for targets that edit: the family, and the rest as above.
const REFUSED_EDITS: &[(&str, &str, &str, &str, &str)] = &[
    ("46", "mangle", "-A FORWARD -j CONNMARK", "CONNMARK", "no operation"),
    ("46", "mangle", "-A FORWARD -j CONNMARK --mask 5", "CONNMARK", "no operation"),
    ("46", "mangle", "-A FORWARD -j CONNMARK --left-shift-mark 4", "CONNMARK", "no operation"),
    (
        "46",
        "mangle",
        "-A FORWARD -j CONNMARK --save-mark --restore-mark",
        "--restore-mark",
        "together",
    ),
    ("46", "mangle", "-A FORWARD -j CONNMARK --save-mark --left-shift-mark 32", "32", "below 32"),
    (
        "46",
        "mangle",
        "-A FORWARD -j CONNMARK --save-mark --mask 1 --nfmask 1",
        "CONNMARK",
        "--mask",
    ),
    ("46", "mangle", "-A FORWARD -j CONNMARK --or-mark 1/2", "1/2", "not a number"),
    ("46", "mangle", "-A FORWARD -j CONNMARK --set-mark 0x1ffffffff", "0x1ffffffff", "32 bits"),
    ("46", "mangle", "-A FORWARD -p tcp -j TCPMSS", "TCPMSS", "required"),
    ("4", "mangle", "-A FORWARD -p tcp -j TCPMSS --set-mss 65516", "65516", "0 to 65515"),
    ("6", "mangle", "-A FORWARD -p tcp -j TCPMSS --set-mss 65496", "65496", "0 to 65495"),
    ("46", "mangle", "-A FORWARD -j TCPMSS --set-mss 5", "TCPMSS", "-p tcp"),
    ("46", "mangle", "-A FORWARD ! -p tcp -j TCPMSS --set-mss 5", "TCPMSS", "-p tcp"),
    ("46", "mangle", "-A PREROUTING -p tcp -j TCPMSS --clamp-mss-to-pmtu", "TCPMSS", "PREROUTING"),
    ("46", "filter", "-A INPUT -p tcp -j TCPMSS --clamp-mss-to-pmtu", "TCPMSS", "hook INPUT"),
    ("46", "mangle", "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 1", "1", "0 or 1"),
    (
        "46",
        "mangle",
        "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 256",
        "256",
        "bad TCP option",
    ),
    (
        "46",
        "mangle",
        "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options MSS",
        "MSS",
        "bad TCP option",
    ),
    ("46", "mangle", "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 5,", "5,", "bad TCP option"),
    ("46", "mangle", "-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options 3,3", "3,3", "already"),
    ("46", "mangle", "-A FORWARD -j TCPOPTSTRIP --strip-options 3", "TCPOPTSTRIP", "-p tcp"),
    ("46", "filter", "-A FORWARD -p tcp -j TCPOPTSTRIP", "TCPOPTSTRIP", "table mangle"),
    ("46", "mangle", "-A FORWARD -j TOS", "TOS", "required"),
    ("46", "mangle", "-A FORWARD -j TOS --set-tos min", "min", "unknown"),
    ("46", "mangle", "-A FORWARD -j TOS --set-tos 256", "256", "0 to 255"),
    ("46", "mangle", "-A FORWARD -j TOS --set-tos 1/256", "1/256", "0 to 255"),
    ("46", "mangle", "-A FORWARD -j TOS --set-tos 1 --or-tos 1", "1", "together"),
    ("46", "filter", "-A FORWARD -j TOS --set-tos 1", "TOS", "table mangle"),
    ("46", "mangle", "-A FORWARD -j DSCP", "DSCP", "required"),
    ("46", "mangle", "-A FORWARD -j DSCP --set-dscp 64", "64", "0 to 63"),
    ("46", "mangle", "-A FORWARD -j DSCP --set-dscp EF", "EF", "0 to 63"),
    ("46", "mangle", "-A FORWARD -j DSCP --set-dscp-class AF14", "AF14", "invalid DSCP"),
    ("46", "mangle", "-A FORWARD -j DSCP --set-dscp-class LE", "LE", "invalid DSCP"),
    ("46", "raw", "-A PREROUTING -j DSCP --set-dscp 1", "DSCP", "table mangle"),
    ("4", "mangle", "-A FORWARD -j TTL", "TTL", "action"),
    ("4", "mangle", "-A FORWARD -j TTL --ttl-set 256", "256", "0 to 255"),
    ("4", "mangle", "-A FORWARD -j TTL --ttl-inc 0", "0", "change by 0"),
    ("4", "mangle", "-A FORWARD -j TTL --ttl-set 1 --ttl-dec 1", "1", "together"),
    ("4", "filter", "-A FORWARD -j TTL --ttl-set 1", "TTL", "table mangle"),
    ("6", "mangle", "-A FORWARD -j TTL --ttl-set 1", "TTL", "not supported"),
    ("6", "mangle", "-A FORWARD -j HL", "HL", "action"),
    ("6", "filter", "-A FORWARD -j HL --hl-set 1", "HL", "table mangle"),
    ("4", "mangle", "-A FORWARD -j HL --hl-set 1", "HL", "not supported"),
    ("4", "mangle", "-A FORWARD -p tcp -j ECN", "ECN", "required"),
    ("4", "mangle", "-A FORWARD -j ECN --ecn-tcp-remove", "ECN", "-p tcp"),
    ("4", "mangle", "-A FORWARD -j ECN --ecn-ip-ect 4", "4", "0 to 3"),
    ("4", "mangle", "-A FORWARD -p tcp -j ECN --ecn-tcp-ece 2", "2", "0 to 1"),
    ("4", "mangle", "-A FORWARD -p tcp -j ECN --ecn-tcp-cwr 1 --ecn-tcp-remove", "ECN", "together"),
    ("4", "filter", "-A FORWARD -p tcp -j ECN --ecn-tcp-remove", "ECN", "table mangle"),
    ("6", "mangle", "-A FORWARD -p tcp -j ECN --ecn-tcp-remove", "ECN", "not supported"),
    ("46", "nat", "-A PREROUTING -j NETMAP", "NETMAP", "must be specified"),
    ("46", "nat", "-A PREROUTING -j NETMAP --to x", "x", "not an IP"),
    ("4", "nat", "-A PREROUTING -j NETMAP --to 10/8", "10/8", "not an IP"),
    (
        "4",
        "nat",
        "-A PREROUTING -j NETMAP --to 1.2.3.4/255.0.255.0",
        "1.2.3.4/255.0.255.0",
        "holes",
    ),
    ("4", "filter", "-A FORWARD -j NETMAP --to 1.2.3.0/24", "NETMAP", "table nat"),
    ("46", "filter", "-A FORWARD -j NFLOG --nflog-group 65536", "65536", "0 to 65535"),
    ("46", "filter", "-A FORWARD -j NFLOG --nflog-threshold 65536", "65536", "0 to 65535"),
    ("46", "filter", "-A FORWARD -j NFLOG --nflog-prefix \"\"", "", "empty"),
    ("46", "filter", "-A FORWARD -j NFLOG --nflog-range 1 --nflog-size 1", "1", "together"),
    ("46", "raw", "-A PREROUTING -j TRACE --foo", "--foo", "unknown option"),
    ("6", "mangle", "-A POSTROUTING -j SNPT --src-pfx fd00::/64", "SNPT", "--dst-pfx"),
    (
        "6",
        "mangle",
        "-A POSTROUTING -j SNPT --src-pfx fd00::5/64",
        "fd00::5/64",
        "behind its prefix",
    ),
    ("6", "mangle", "-A POSTROUTING -j SNPT --src-pfx fd00::/65", "fd00::/65", "1 to 64 bits"),
    ("6", "mangle", "-A POSTROUTING -j SNPT --src-pfx ::/0", "::/0", "1 to 64 bits"),
    ("6", "mangle", "-A FORWARD -j SNPT --src-pfx fd00::/8 --dst-pfx fe00::/8", "SNPT", "FORWARD"),
    ("6", "mangle", "-A INPUT -j DNPT --src-pfx fd00::/8 --dst-pfx fe00::/8", "DNPT", "hook INPUT"),
    ("6", "raw", "-A OUTPUT -j DNPT --src-pfx fd00::/8 --dst-pfx fe00::/8", "DNPT", "table mangle"),
    ("4", "mangle", "-A POSTROUTING -j SNPT --src-pfx fd00::/64", "SNPT", "not supported"),
];

#[test]
fn wrong_edits_are_refused_by_their_word() {
    for &(families, table, line, word, part) in REFUSED_EDITS {
        for (name, family) in [('4', Family::V4), ('6', Family::V6)] {
            if families.contains(name) {
                let error = one(family, table, line).map(|_| line).unwrap_err();
                assert_eq!(error.word, word, "{line}: {error}");
                assert!(error.message.contains(part), "{line}: {error}");
            }
        }
    }
}

#[test]
fn an_error_prints_its_file_line_column_and_word() {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -m foo -j ACCEPT\nCOMMIT\n";
    let error = restore(&Ruleset::new(Family::V4), text, false, false).unwrap_err();
    assert_eq!(error.in_file("rules.v4"), "rules.v4:3:13: match `foo' is not supported");
}

/// Texts whose fault is the file's frame: the line of the error and a part of it.
const FRAMES: &[(&str, u32, &str)] = &[
    ("*filter\n", 2, "COMMIT expected"),
    ("-A INPUT -j ACCEPT\n", 1, "outside of a table"),
    ("*security\nCOMMIT\n", 1, "not supported"),
    ("*filter x\nCOMMIT\n", 1, "bad argument"),
    ("*filter\nCOMMIT\nCOMMIT\n", 3, "outside of a table"),
];

#[test]
fn a_file_needs_its_frame() {
    for &(text, line, part) in FRAMES {
        let error = restore(&Ruleset::new(Family::V4), text, false, false).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.message.contains(part), "{error}");
    }
}

/// Fed to iptables-restore -c; what iptables-save -c then prints is below.
const WHOLE: &str = "\
# a comment
*nat
:PREROUTING ACCEPT [1:60]
:POSTROUTING ACCEPT [0:0]
[7:420] -A POSTROUTING -o wan -j MASQUERADE
COMMIT

*filter
:INPUT DROP [3:4]
:zed - [0:0]
:FORWARD DROP [10:20]
:Bar - [0:0]
[5:6]-A INPUT -i lan -j zed
-A FORWARD -c 9 8 -j Bar
COMMIT
";

const WHOLE_SAVED: &str = "\
# Generated by iptables-save v1.8.9 (nf_tables) on NOW
*filter
:INPUT DROP [3:4]
:FORWARD DROP [10:20]
:OUTPUT ACCEPT [0:0]
:Bar - [0:0]
:zed - [0:0]
[5:6] -A INPUT -i lan -j zed
[9:8] -A FORWARD -j Bar
COMMIT
# Completed on NOW
# Generated by iptables-save v1.8.9 (nf_tables) on NOW
*nat
:PREROUTING ACCEPT [1:60]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
[7:420] -A POSTROUTING -o wan -j MASQUERADE
COMMIT
# Completed on NOW
";

#[test]
fn a_whole_file_with_counters_comes_back_as_the_real_tool_prints_it() {
    let ruleset = restore(&Ruleset::new(Family::V4), WHOLE, false, true).unwrap();
    let look = Look { counters: true, date: Some("NOW"), ..Look::default() };
    assert_eq!(save(&ruleset, look), WHOLE_SAVED);
    let zeroed = restore(&ruleset, WHOLE, false, false).unwrap();
    let text = save(&zeroed, Look { table: Some(Table::Filter), ..Look::default() });
    assert!(text.starts_with("*filter\n:INPUT DROP [0:0]\n") && !text.contains("nat"), "{text}");
}

#[test]
fn restore_replaces_the_tables_it_names_and_noflush_adds_to_them() {
    let before = restore(&Ruleset::new(Family::V4), WHOLE, false, true).unwrap();
    let text = "*filter\n:zed - [0:0]\n-A INPUT -j zed\n-A Bar -j DROP\nCOMMIT\n";
    let added = restore(&before, text, true, false).unwrap();
    let filter = added.table(Table::Filter).unwrap();
    assert_eq!(filter.chain("INPUT").unwrap().rules.len(), 2);
    assert_eq!(filter.chain("Bar").unwrap().rules.len(), 1);
    assert!(restore(&before, text, false, false).is_err(), "chain Bar is gone");
    let text = "*filter\n-A INPUT -j DROP\nCOMMIT\n";
    let replaced = restore(&before, text, false, false).unwrap();
    let filter = replaced.table(Table::Filter).unwrap();
    assert_eq!((filter.chains.len(), filter.chain("INPUT").unwrap().rules.len()), (3, 1));
    assert_eq!(replaced.table(Table::Nat), before.table(Table::Nat));
}

#[test]
fn edits_insert_replace_delete_rename_zero_and_flush() {
    let text = "*filter
-N A
-A A -j ACCEPT
-I A -j DROP
-I A 2 -j RETURN
-R A 3 -p tcp -j ACCEPT
-A A -j DROP
-D A -j DROP
-N C
-N D
-A D -j ACCEPT
-F D
-X C
-X D
-A INPUT -j A
-E A B
COMMIT
";
    let ruleset = restore(&Ruleset::new(Family::V6), text, false, false).unwrap();
    let text = save(&ruleset, Look::default());
    assert!(text.contains(":B - ") && !text.contains(":C - ") && !text.contains(":D - "), "{text}");
    let expected = ["-A INPUT -j B", "-A B -j RETURN", "-A B -p tcp -j ACCEPT", "-A B -j DROP"];
    assert_eq!(rules_of(&text), expected);
}

fn noflush() -> Options {
    Options { noflush: true, ..Options::default() }
}

#[test]
fn zero_clears_counters_and_numbering_covers_all_that_counts() {
    let ruleset = restore(&Ruleset::new(Family::V4), WHOLE, false, true).unwrap();
    let mut copy = ruleset.clone();
    let counters: Vec<u64> = copy.counters_mut().map(|counters| counters.packets).collect();
    assert_eq!(counters, [3, 5, 10, 9, 0, 1, 0, 0, 0, 7]);
    assert_eq!(ruleset.countables().count(), counters.len());
    let none = Names::default();
    super::restore_with(&copy, "*filter\n-Z\nCOMMIT\n", noflush(), &none)
        .map(|restored| copy = restored.ruleset)
        .unwrap();
    let counters: Vec<u64> = copy.counters_mut().map(|counters| counters.packets).collect();
    assert_eq!(counters, [0, 0, 0, 0, 0, 1, 0, 0, 0, 7]);
    let base = ruleset.table(Table::Filter).unwrap().chain("FORWARD").unwrap().base.unwrap();
    assert_eq!(base.hook, Hook::Forward);
}

fn mangled() -> impl Strategy<Value = (bool, String)> {
    let lines: Vec<(bool, String)> = TEXTS
        .into_iter()
        .flat_map(|(family, text)| {
            let v6 = family == Family::V6;
            cases(text).into_iter().map(move |(table, line, _)| {
                (v6, format!("*{table}\n:U - [0:0]\n[1:2] {line}\nCOMMIT\n"))
            })
        })
        .collect();
    let piece = prop_oneof![
        Just(String::new()),
        Just("!".to_owned()),
        Just("\"".to_owned()),
        Just(" ".to_owned()),
        Just("\n".to_owned()),
        Just("--".to_owned()),
        Just("/".to_owned()),
        Just(":".to_owned()),
        Just("é".to_owned()),
        "\\PC{0,4}",
        "[0-9,:/.\\[\\]-]{1,6}",
    ];
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, piece), 1..5);
    (prop::sample::select(lines), edits).prop_map(|((v6, text), edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, remove, piece) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + remove).min(chars.len());
            chars.splice(at..end, piece.chars());
        }
        (v6, chars.into_iter().collect())
    })
}

proptest! {
    #[test]
    fn mangled_text_is_refused_or_read_but_never_panics((v6, text) in mangled()) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        match restore(&Ruleset::new(family), &text, false, true) {
            // What was taken prints as something that means the same.
            Ok(ruleset) => {
                let look = Look { counters: true, ..Look::default() };
                let printed = save(&ruleset, look);
                let again = restore(&Ruleset::new(family), &printed, false, true);
                prop_assert_eq!(again.map(|again| save(&again, look)), Ok(printed));
            }
            Err(error) => prop_assert!(error.line >= 1 && !error.message.contains('\n')),
        }
    }

    #[test]
    fn no_text_at_all_panics(text in "\\PC{0,80}", v6: bool) {
        let family = if v6 { Family::V6 } else { Family::V4 };
        let _ = restore(&Ruleset::new(family), &text, false, true);
        let rule = format!("*filter\n-A INPUT {text}\nCOMMIT");
        let _ = restore(&Ruleset::new(family), &rule, true, true);
    }
}
