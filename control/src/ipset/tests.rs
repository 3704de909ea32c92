//! Commands beside what ipset 7.17 said to them on Linux 6.18: `golden/commands.txt` holds lines
//! given (`<`), standard output (`>`), standard error (`!`) and exit codes other than 0 (`=`); `%`
//! begins with no sets.

use dataplane::rules::hook::{Family, Table};
use dataplane::rules::matches::Match;
use dataplane::rules::matches::set::SetMatch;
use dataplane::rules::model::{Counters, Place, Rule, Ruleset};
use dataplane::rules::targets::Target;
use dataplane::time::Tick;

use super::command::words_of;
use super::{SETS_MAX, Sets};
use crate::tools::Answer;

const COMMANDS: &str = include_str!("golden/commands.txt");

const NOW: Tick = Tick(1000);

fn at(sets: &Sets, line: &str, now: Tick) -> Answer {
    sets.run(&words_of(line), "", now)
}

fn run(sets: &Sets, line: &str) -> Answer {
    at(sets, line, NOW)
}

/// Obeyed without a word.
fn all(sets: &Sets, lines: &[&str]) {
    for line in lines {
        assert_eq!(run(sets, line), Answer::default(), "{line}");
    }
}

/// A line without what differs from one run to the next, and from one table to another.
fn masked(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let word = match words.last().map(String::as_str) {
            Some("timeout") if word != "0" && word.parse::<u32>().is_ok() => "-",
            Some("initval" | "memory:") => "-",
            _ => word,
        };
        words.push(word.to_owned());
    }
    words.join(" ")
}

/// The lines of a text; elements, which a hash has in any order, are sorted.
fn lines(text: &str) -> Vec<String> {
    let mut all: Vec<String> = text.lines().map(masked).collect();
    let element = |line: &String| !line.contains(": ") && !line.ends_with(':') && !line.is_empty();
    let mut start = 0;
    while start < all.len() {
        let end = (start..all.len()).find(|&at| !element(&all[at])).unwrap_or(all.len());
        // The sets of a listing of names, and the commands that make them, have their order.
        if start > 0 && all[start - 1] == "Members:"
            || all[start..end].iter().any(|l| l.starts_with("add "))
        {
            let first = all[start..end].iter().position(|l| !l.starts_with("create ")).unwrap_or(0);
            if all[start..end].iter().filter(|l| l.starts_with("create ")).count() <= 1 {
                all[start + first..end].sort();
            }
        }
        start = end + 1;
    }
    all
}

#[test]
fn commands_say_what_the_real_tool_says() {
    let mut sets = Sets::default();
    let (mut cases, mut failed) = (0, Vec::new());
    let mut rest = COMMANDS.lines().peekable();
    while let Some(line) = rest.next() {
        if line == "%" {
            sets = Sets::default();
            continue;
        }
        let given = line.strip_prefix("< ").unwrap_or_else(|| panic!("{line}"));
        let (mut out, mut err, mut exit) = (String::new(), String::new(), 0);
        while let Some(line) = rest.next_if(|line| !line.starts_with("< ") && *line != "%") {
            match line.split_at(1) {
                (">", text) => out += &format!("{}\n", text.strip_prefix(' ').unwrap_or(text)),
                ("!", text) => err += &format!("{}\n", text.strip_prefix(' ').unwrap_or(text)),
                (_, text) => exit = text.trim().parse().unwrap(),
            }
        }
        let answer = run(&sets, given);
        cases += 1;
        if lines(&answer.out) != lines(&out) || answer.err != err || answer.exit != exit {
            failed.push(format!("< {given}\n{answer:#?}\n{out}{err}= {exit}"));
        }
    }
    assert!(cases > 300, "{cases}");
    assert!(failed.is_empty(), "{} of {cases}:\n{}", failed.len(), failed.join("\n"));
}

/// Texts that `restore` reads, what it says, its exit code, and what `save` prints then. Taken from
/// the real tool, but for a syntax error: that loses elements which it has not yet passed on.
const FILES: &[(&str, &str, &str, u8, &str)] = &[
    (
        "create a hash:ip\nadd a 1.1.1.1\nadd a 1.1.1.1\nadd a 1.1.1.2\n",
        "restore",
        "ipset v7.17: Error in line 3: Element cannot be added to the set: it's already added\n",
        1,
        "a 1.1.1.1",
    ),
    (
        "create a hash:ip\nadd a 1.1.1.1\nadd a 1.1.1.1\nadd a 1.1.1.2\n",
        "restore -exist",
        "",
        0,
        "a 1.1.1.1 a 1.1.1.2",
    ),
    (
        "create a hash:ip\n\n# foo\nadd a 1.1.1.1\nadd a 1.1.1.300\nadd a 1.1.1.2\n",
        "-R",
        "ipset v7.17: Error in line 5: Syntax error: cannot parse 1.1.1.300: resolving to IPv4 \
         address failed\n",
        1,
        "a 1.1.1.1",
    ),
    ("-N a iphash\n-A a 1.1.1.1\nCOMMIT\n", "restore", "", 0, "a 1.1.1.1"),
    (
        "create a hash:ip comment\nadd a 1.1.1.1 comment \"foo bar \\ x\"\n\
         add a 1.1.1.2 comment foo",
        "restore",
        "",
        0,
        "a 1.1.1.1 comment \"foo bar \\ x\" a 1.1.1.2 comment \"foo\"",
    ),
    (
        "create a hash:ip\nrestore\nadd a 1.1.1.1\n",
        "restore",
        "ipset v7.17: Command `restore' is invalid in restore mode.\n\
         Try `ipset help' for more information.\n",
        2,
        "",
    ),
    (
        "create a hash:ip\nadd a 1.1.1.1\nfrob\n",
        "restore",
        "ipset v7.17: No command specified: unknown argument frob\n\
         Try `ipset help' for more information.\n",
        2,
        "a 1.1.1.1",
    ),
    (
        "create a hash:ip\nadd a 1.1.1.1 -exist\nadd a 1.1.1.1 -exist\ndel a 1.1.1.1\n\
         test a 1.1.1.1\nadd a 1.1.1.3",
        "restore",
        "1.1.1.1 is NOT in set a.\n",
        1,
        "",
    ),
    (
        "create a hash:ip\ncreate b hash:ip\nadd a 1.1.1.1\nswap a b\nrename a c\nflush c\n\
         add c 9.9.9.9\ndestroy b\n",
        "restore",
        "",
        0,
        "c 9.9.9.9",
    ),
    (
        "create a hash:ip comment\nadd a 1.1.1.1 comment \"foo\nadd a 1.1.1.2\n",
        "restore",
        "ipset v7.17: Missing mandatory argument of option `comment'\n\
         Try `ipset help' for more information.\n",
        2,
        "",
    ),
    (
        "create a hash:ip maxelem 1\nadd a 1.1.1.1\nadd a 1.1.1.2\n",
        "restore",
        "ipset v7.17: Error in line 3: Hash is full, cannot add more elements\n",
        1,
        "a 1.1.1.1",
    ),
    ("  create a hash:ip  \n\tadd   a\t1.1.1.1\n", "restore", "", 0, "a 1.1.1.1"),
    ("create a hash:ip\nadd a 1.1.1.1\nquit\nadd a 1.1.1.2\n", "restore", "", 0, "a 1.1.1.1"),
];

#[test]
fn files_are_obeyed_line_by_line() {
    for (text, line, err, exit, elements) in FILES {
        let sets = Sets::default();
        let answer = sets.run(&words_of(line), text, NOW);
        assert_eq!((answer.err.as_str(), answer.exit), (*err, *exit), "{text}");
        let saved = run(&sets, "save").out;
        let added = saved.lines().filter_map(|line| line.strip_prefix("add "));
        assert_eq!(added.collect::<Vec<_>>().join(" "), *elements, "{text}");
        let again = Sets::default();
        assert_eq!(again.run(&words_of("restore"), &saved, NOW), Answer::default());
        assert_eq!(run(&again, "save").out, saved, "what is saved can be loaded");
        let loaded = Sets::load(text, NOW).map(|loaded| run(&loaded, "save").out.lines().count());
        let fails = *exit != 0 && *line != "restore -exist" || line.contains("-exist");
        assert_eq!(loaded.is_err(), fails, "{text}");
    }
}

fn rules(names: &[&str]) -> Ruleset {
    let asked = |name: &&str| {
        let asked = SetMatch { name: (*name).to_owned(), ..SetMatch::default() };
        Match::Set(Box::new(asked))
    };
    let rule = Rule {
        place: Place::default(),
        counters: Counters::default(),
        basics: Default::default(),
        matches: names.iter().map(asked).collect(),
        target: Target::None,
    };
    let mut ruleset = Ruleset::new(Family::V4);
    ruleset.table_mut(Table::Filter).chains[0].rules.push(rule);
    ruleset
}

#[test]
fn what_rules_name_stays_and_their_walks_begin_anew() {
    let sets = Sets::default();
    all(&sets, &["create a hash:ip", "create b hash:ip", "create l list:set", "create m list:set"]);
    all(&sets, &["create t hash:ip timeout 5", "create o hash:ip", "add l b", "add m o"]);
    assert!(!sets.take_stale());
    sets.note_rules([&rules(&["a", "a", "l", "t"])]);
    let listed = run(&sets, "list a").out;
    assert!(listed.contains("References: 2\n"), "{listed}");
    for line in ["destroy a", "destroy l", "destroy b", "destroy"] {
        let text = "ipset v7.17: Set cannot be destroyed: it is in use by a kernel component\n";
        assert_eq!(run(&sets, line).err, text, "{line}");
    }
    for line in ["rename a c", "rename b c"] {
        let text = "ipset v7.17: Set cannot be renamed: it is in use by another system\n";
        assert_eq!(run(&sets, line).err, text, "{line}");
    }
    assert!(!sets.take_stale());
    for (line, stale) in [
        ("add a 1.1.1.1", true),
        ("del a 1.1.1.1", true),
        ("add b 1.1.1.1", true),
        ("add o 1.1.1.1", false),
        ("add t 1.1.1.1", false),
        ("add m a", false),
        ("add l o", true),
        ("add o 1.1.1.2", true),
        ("swap b o", true),
        ("flush b", true),
        ("del l o", true),
        ("del m o", false),
        ("swap t o", true),
    ] {
        let answer = run(&sets, line);
        let expected = if line == "swap t o" { 0 } else { answer.exit };
        assert_eq!(answer.exit, expected, "{line}: {}", answer.err);
        assert_eq!(sets.take_stale(), stale, "{line}");
        assert!(!sets.take_stale(), "{line}: it is asked once");
    }
    sets.note_rules([]);
    all(&sets, &["destroy l", "destroy m", "rename a c", "destroy"]);
}

#[test]
fn a_file_replaces_the_sets_that_it_names() {
    let live = Sets::default();
    all(&live, &["create x hash:ip", "create a hash:ip", "add a 1.1.1.1", "create l list:set"]);
    all(&live, &["add l a", "add l x"]);
    let before = run(&live, "save").out;
    let text = "create b hash:ip\ncreate a hash:net\nadd a 2.0.0.0/8\ncreate k list:set\nadd k b\n\
                add k a\n";
    let both = live.replaced_by(&Sets::load(text, NOW).unwrap());
    assert_eq!(run(&live, "save").out, before, "nothing happens to the sets there are");
    let saved = run(&both, "save").out;
    let added: Vec<&str> = saved.lines().filter_map(|line| line.strip_prefix("add ")).collect();
    assert_eq!(added, ["a 2.0.0.0/8", "l a", "l x", "k b", "k a"], "{saved}");
    let error = Sets::load("create a hash:ip\nadd a 1\n", NOW).unwrap_err();
    assert_eq!(error.line, 2);
    assert!(error.message.starts_with("Syntax error: cannot parse 1"), "{error:?}");
}

#[test]
fn elements_end_and_make_room() {
    let sets = Sets::default();
    all(&sets, &["create a hash:ip timeout 10 maxelem 2 comment", "add a 1.1.1.1 comment x"]);
    all(&sets, &["add a 1.1.1.2 timeout 0", "create l list:set timeout 10", "add l a"]);
    let later = NOW.plus_secs(10);
    assert!(at(&sets, "test a 1.1.1.1", Tick(later.0 - 1)).exit == 0);
    assert!(at(&sets, "test a 1.1.1.1", later).exit == 1);
    assert!(at(&sets, "del a 1.1.1.1", later).exit == 1, "it is gone");
    assert_eq!(at(&sets, "add a 1.1.1.1", later), Answer::default(), "and comes back");
    let listed = at(&sets, "list a", later).out;
    assert!(listed.ends_with("Members:\n1.1.1.1 timeout 10\n1.1.1.2 timeout 0\n"), "{listed}");
    assert!(at(&sets, "list l", later).out.ends_with("Number of entries: 0\nMembers:\n"));
    let end = later.plus_secs(10);
    assert_eq!(at(&sets, "add a 1.1.1.3", end), Answer::default(), "the other is over");
    sets.expire(end.plus_secs(10));
    let entry = |sets: &Sets| sets.named()["a"].table().unwrap().count();
    assert_eq!(entry(&sets), 1);
}

#[test]
fn a_set_that_is_told_to_takes_one_more_for_another() {
    let sets = Sets::default();
    all(&sets, &["create a hash:ip maxelem 4 forceadd", "add a 10.0.0.0/28"]);
    assert_eq!(sets.named()["a"].table().unwrap().count(), 4);
    assert_eq!(run(&sets, "test a 10.0.0.15").exit, 0, "the last one is there");
}

#[test]
fn there_is_a_bound_to_sets_and_to_what_one_command_adds() {
    let sets = Sets::default();
    for number in 0..SETS_MAX {
        all(&sets, &[&format!("create s{number} hash:ip")]);
    }
    let text = "ipset v7.17: Kernel error received: maximal number of sets reached, cannot create \
                more.\n";
    assert_eq!(run(&sets, "create more hash:ip").err, text);
    for line in ["add s0 0.0.0.0/1", "del s0 128.0.0.0/1", "add s0 10.0.0.0/11"] {
        assert!(run(&sets, line).err.contains("more than 1048576 elements"), "{line}");
    }
}
