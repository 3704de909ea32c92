//! The matches with state against what the real tools said; their lines, `golden/state_v4.txt` and
//! `golden/state_v6.txt`, are held against it with all others.

use dataplane::rules::hook::{Family, Table};
use dataplane::rules::matches::Match;
use dataplane::rules::matches::quota::Quota;
use dataplane::rules::model::Ruleset;

use super::golden::one;
use super::list::tests::lists_as_the_real_tool;
use super::restore;

#[test]
fn lists_are_those_of_the_real_tool() {
    lists_as_the_real_tool(Family::V4, include_str!("golden/list_state_v4.txt"));
    lists_as_the_real_tool(Family::V6, include_str!("golden/list_state_v6.txt"));
}

/// Options, the word the error has to point at, a part of what it says.
const REFUSED: &[(&str, &str, &str)] = &[
    ("limit --limit 5/sex", "5/sex", "bad rate"),
    ("limit --limit 5/secondd", "5/secondd", "bad rate"),
    ("limit --limit 5/", "5/", "bad rate"),
    ("limit --limit /s", "/s", "bad rate"),
    ("limit --limit 0/s", "0/s", "bad rate"),
    ("limit --limit -1/s", "-1/s", "bad rate"),
    ("limit --limit 0x10/s", "0x10/s", "bad rate"),
    ("limit --limit 10001/s", "10001/s", "too fast"),
    ("limit --limit 600001/m", "600001/m", "too fast"),
    ("limit --limit-burst 10001", "10001", "0 to 10000"),
    ("limit --limit-burst x", "x", "0 to 10000"),
    ("limit ! --limit 5/s", "--limit", "inverted"),
    ("limit ! --limit-burst 5", "--limit-burst", "inverted"),
    ("limit --limit 5/s --limit 6/s", "6/s", "once"),
    ("quota", "quota", "--quota"),
    ("quota --quota 18446744073709551616", "18446744073709551616", "64 bits"),
    ("quota --quota -1", "-1", "not a number"),
    ("quota --quota 10k", "10k", "not a number"),
    ("quota --quota 1 --quota 2", "2", "once"),
    ("connbytes --connbytes 5", "connbytes", "--connbytes-dir"),
    ("connbytes --connbytes 5 --connbytes-dir both", "connbytes", "--connbytes-mode"),
    ("connbytes --connbytes-mode bytes --connbytes-dir both", "connbytes", "--connbytes'"),
    ("connbytes --connbytes 9:5", "9:5", "range"),
    ("connbytes --connbytes 1:2:3", "1:2:3", "not a number"),
    ("connbytes --connbytes 1-2", "1-2", "not a number"),
    ("connbytes --connbytes 18446744073709551616", "18446744073709551616", "64 bits"),
    ("connbytes --connbytes-dir Reply", "Reply", "unknown direction"),
    ("connbytes --connbytes-mode avg", "avg", "unknown mode"),
    ("connbytes ! --connbytes-dir both", "--connbytes-dir", "inverted"),
    ("connbytes ! --connbytes-mode bytes", "--connbytes-mode", "inverted"),
    ("hashlimit", "hashlimit", "--hashlimit-name"),
    ("hashlimit --hashlimit-upto 5/s", "hashlimit", "--hashlimit-name"),
    ("hashlimit --hashlimit-name a", "hashlimit", "is needed"),
    ("hashlimit --hashlimit-above 5/m --hashlimit-upto 5/m", "5/m", "together"),
    ("hashlimit --hashlimit-above 1000001/s", "1000001/s", "too fast"),
    ("hashlimit --hashlimit-above 0/d", "0/d", "bad rate"),
    ("hashlimit --hashlimit-above 5/x", "5/x", "bad rate"),
    ("hashlimit --hashlimit-above 5/", "5/", "bad rate"),
    ("hashlimit --hashlimit-above xkb/s", "xkb/s", "bad rate"),
    ("hashlimit --hashlimit-above 0x10/s", "0x10/s", "bad rate"),
    ("hashlimit --hashlimit-above 0x10b/s", "0x10b/s", "bad rate"),
    ("hashlimit --hashlimit-name a --hashlimit-above 1/d", "hashlimit", "overflow"),
    ("hashlimit --hashlimit-name a --hashlimit-above 65535mb/s", "hashlimit", "too high"),
    (
        "hashlimit --hashlimit-name a --hashlimit-above 1kb/s --hashlimit-burst 15b",
        "hashlimit",
        "smaller than 1024b",
    ),
    (
        "hashlimit --hashlimit-name a --hashlimit-above 5b/s --hashlimit-burst 15b",
        "hashlimit",
        "has no burst",
    ),
    (
        "hashlimit --hashlimit-name a --hashlimit-above 5/s --hashlimit-burst 1000kb",
        "hashlimit",
        "1 to 1000000",
    ),
    ("hashlimit --hashlimit-burst 0", "0", "1 to 1000000"),
    ("hashlimit --hashlimit-burst 1000001", "1000001", "1 to 1000000"),
    ("hashlimit --hashlimit-burst 5000mb", "5000mb", "1 to 1000000"),
    ("hashlimit --hashlimit-burst x", "x", "1 to 1000000"),
    ("hashlimit ! --hashlimit-burst 7", "--hashlimit-burst", "inverted"),
    ("hashlimit --hashlimit-mode none", "none", "unknown mode"),
    ("hashlimit --hashlimit-mode SRCIP", "SRCIP", "unknown mode"),
    ("hashlimit --hashlimit-srcmask 129", "129", "neither"),
    ("hashlimit --hashlimit-dstmask x", "x", "neither"),
    ("hashlimit --hashlimit-srcmask 255.0.255.0", "255.0.255.0", "neither"),
    ("hashlimit --hashlimit-name \"\"", "", "empty"),
    ("hashlimit --hashlimit-name a/b", "a/b", "slash"),
    ("hashlimit --hashlimit-name .", ".", "folder"),
    ("hashlimit --hashlimit-name a --hashlimit-name b", "b", "once"),
    ("hashlimit --hashlimit-htable-size x", "x", "not a number"),
    ("hashlimit --hashlimit-htable-expire 0", "0", "above 0"),
    ("hashlimit --hashlimit-htable-gcinterval 0", "0", "above 0"),
    ("hashlimit --hashlimit-rate-interval 0", "0", "bad interval"),
    ("hashlimit --hashlimit-rate-interval 4294967295", "4294967295", "bad interval"),
    ("hashlimit ! --hashlimit-rate-match", "--hashlimit-rate-match", "inverted"),
    ("recent", "recent", "must be specified"),
    ("recent --name a", "recent", "must be specified"),
    ("recent --set --update", "--update", "together"),
    ("recent --rcheck --rcheck", "--rcheck", "once"),
    ("recent --set --name \"\"", "", "empty"),
    ("recent --set --name a/b", "a/b", "slash"),
    ("recent --set --name ..", "..", "folder"),
    ("recent --set --seconds 5", "recent", "together"),
    ("recent --remove --hitcount 5", "recent", "together"),
    ("recent --remove --rttl", "recent", "together"),
    ("recent --set --seconds 5 --reap", "recent", "together"),
    ("recent --rcheck --reap", "recent", "--seconds"),
    ("recent --rcheck --seconds 0", "0", "above 0"),
    ("recent --rcheck --seconds 4294967296", "4294967296", "32 bits"),
    ("recent --rcheck --seconds x", "x", "not a number"),
    ("recent --rcheck --hitcount 65536", "65536", "not below 65536"),
    ("recent --set --mask x", "x", "invalid mask"),
    ("recent --set ! --name foo", "--name", "inverted"),
    ("recent --set ! --rsource", "--rsource", "inverted"),
    ("connlimit", "connlimit", "must be specified"),
    ("connlimit --connlimit-mask 3", "connlimit", "must be specified"),
    ("connlimit --connlimit-above 4294967296", "4294967296", "32 bits"),
    ("connlimit --connlimit-above -1", "-1", "not a number"),
    ("connlimit --connlimit-above 3x", "3x", "not a number"),
    ("connlimit --connlimit-above 3 --connlimit-upto 4", "4", "together"),
    ("connlimit --connlimit-above 3 --connlimit-above 4", "4", "once"),
    ("connlimit --connlimit-above 3 --connlimit-mask x", "x", "neither"),
    ("connlimit --connlimit-above 3 --connlimit-mask 129", "129", "neither"),
    ("connlimit --connlimit-above 3 --connlimit-mask 255.0.255.0", "255.0.255.0", "neither"),
    ("connlimit --connlimit-above 3 ! --connlimit-mask 3", "--connlimit-mask", "inverted"),
    ("connlimit --connlimit-above 3 ! --connlimit-saddr", "--connlimit-saddr", "inverted"),
    ("connlimit --connlimit-saddr --connlimit-daddr", "--connlimit-daddr", "together"),
];

#[test]
fn wrong_options_are_refused_by_their_word() {
    for &(options, word, part) in REFUSED {
        for family in [Family::V4, Family::V6] {
            let line = format!("-A INPUT -m {options}");
            let error = match one(family, "filter", &line) {
                Err(error) => error,
                Ok(_) => panic!("accepted: {line}"),
            };
            assert_eq!(error.word, word, "{line}: {error}");
            assert!(error.message.contains(part), "{line}: {error}");
        }
    }
}

/// The only rule that 1.8.9 saves as another one: it writes `0`, which is read as `0:`.
#[test]
fn nothing_at_all_is_saved_as_it_was_given() {
    let line =
        "-A INPUT -m connbytes --connbytes 0:0 --connbytes-mode packets --connbytes-dir both";
    let ruleset = one(Family::V4, "filter", line).unwrap();
    assert!(super::save(&ruleset, super::Look::default()).contains(line));
}

/// As with the kernel and iptables 1.8.9: an edit of other rules leaves a rule's state alone, who
/// zeroes or restores it begins anew, and each rule that a list of addresses makes has its own.
#[test]
fn state_stays_with_the_rule_as_written() {
    let quotas = |ruleset: &Ruleset| -> Vec<Quota> {
        let rules = &ruleset.table(Table::Filter).unwrap().chain("INPUT").unwrap().rules;
        let asked = rules.iter().flat_map(|rule| &rule.matches);
        asked.filter_map(|m| if let Match::Quota(q) = m { Some(q.clone()) } else { None }).collect()
    };
    let left = |ruleset: &Ruleset| -> Vec<bool> {
        quotas(ruleset).iter().map(|quota| quota.holds(1)).collect()
    };
    let text = "*filter\n-A INPUT -s 1.1.1.1,2.2.2.2 -m quota --quota 50\nCOMMIT\n";
    let first = restore(&Ruleset::new(Family::V4), text, false, false).unwrap();
    assert!(!quotas(&first)[0].holds(51), "and is used up");
    assert_eq!(left(&first), [false, true], "each has its own");
    let more = "*filter\n-A INPUT -p tcp\n-D INPUT 2\nCOMMIT\n";
    assert_eq!(left(&restore(&first, more, true, false).unwrap()), [false]);
    let zero = "*filter\n-Z INPUT\nCOMMIT\n";
    assert_eq!(left(&restore(&first, zero, true, false).unwrap()), [true, true]);
    assert_eq!(left(&first), [false, true], "the old ruleset stands");
    assert_eq!(left(&restore(&first, text, false, false).unwrap()), [true, true]);
}
