//! Command lines against what iptables 1.8.9 (nf_tables) printed and how it exited in a namespace:
//! `$` a command line, `SAVE` standing for -save; `=` its exit code; `!` a sentence on standard
//! error that scripts know; `>` a line on standard output.

use proptest::prelude::*;

use super::*;
use crate::iptables::words::split;
use crate::iptables::{Look, save};
use crate::tools::iptables_files::Save;

const V4: &str = include_str!("golden/iptables_v4.txt");
const V6: &str = include_str!("golden/iptables_v6.txt");

struct Case<'a> {
    line: &'a str,
    exit: u8,
    sentence: Option<&'a str>,
    out: String,
}

/// `None` begins anew.
fn cases(text: &str) -> Vec<Option<Case<'_>>> {
    let mut cases: Vec<Option<Case<'_>>> = Vec::new();
    for line in text.lines() {
        let (mark, rest) = line.split_at(line.len().min(2));
        let last = cases.last_mut().and_then(Option::as_mut);
        match (mark, last) {
            ("$ ", _) => {
                cases.push(Some(Case { line: rest, exit: 0, sentence: None, out: String::new() }));
            }
            ("= ", Some(case)) => case.exit = rest.parse().unwrap(),
            ("! ", Some(case)) => case.sentence = Some(rest),
            ("> ", Some(case)) => case.out.push_str(&format!("{rest}\n")),
            _ => cases.push(None),
        }
    }
    cases
}

fn words(line: &str) -> Vec<String> {
    split(line, 1).unwrap().into_iter().map(|word| word.text).collect()
}

fn answer(line: &str, ruleset: &mut Ruleset) -> Answer {
    let argv = words(line);
    if argv.first().is_some_and(|first| first == "SAVE") {
        let tool = format!("{}-save", ruleset.family.tool());
        return match Save::read(&tool, &argv[1..]) {
            Ok(Save { counters, table, .. }) => {
                let text = save(ruleset, Look { counters, date: Some("NOW"), table, labels: None });
                Answer::text(text.replace(" on NOW", ""))
            }
            Err(answer) => answer,
        };
    }
    run(&argv, ruleset, &Names::default()).0
}

#[test]
fn commands_answer_as_the_real_tool() {
    for (family, text) in [(Family::V4, V4), (Family::V6, V6)] {
        let mut ruleset = Ruleset::new(family);
        for case in cases(text) {
            let Some(case) = case else {
                ruleset = Ruleset::new(family);
                continue;
            };
            let before = ruleset.clone();
            let answer = answer(case.line, &mut ruleset);
            assert_eq!(answer.out, case.out, "{}: {}", case.line, answer.err);
            assert_eq!(answer.exit, case.exit, "{}: {}", case.line, answer.err);
            if let Some(sentence) = case.sentence {
                assert_eq!(answer.err.trim_end(), sentence, "{}", case.line);
            }
            if case.exit != 0 {
                assert_eq!(ruleset, before, "{}: nothing changes", case.line);
                assert_eq!(answer.err.lines().count(), 1, "{}: {}", case.line, answer.err);
            }
        }
    }
}

fn err(line: &str) -> (u8, String) {
    let mut ruleset = Ruleset::new(Family::V4);
    let text = "*filter\n:U - [0:0]\n-A INPUT -j U\n-A INPUT -j DROP\nCOMMIT\n";
    ruleset = crate::iptables::restore(&ruleset, text, false, false).unwrap();
    let answer = answer(line, &mut ruleset);
    (answer.exit, answer.err)
}

/// What is not the real tool's sentence says what is wrong and at which word.
#[test]
fn faults_are_named_by_their_word() {
    for (line, exit, said) in [
        ("", 2, "no command specified"),
        ("-t security -L", 3, "table `security' is not supported: packets have no security marks"),
        ("-t nosuch -L", 3, "table `nosuch' does not exist"),
        ("-A INPUT -m owner --uid-owner 0", 2, "`owner' is not supported: packets belong to no"),
        ("-A INPUT -j NFQUEUE", 2, "`NFQUEUE' is not supported: no program waits"),
        ("-A INPUT -j NOSUCH", 2, "chain `NOSUCH' does not exist in table filter"),
        ("-A INPUT -p tcp --dport http:ssh", 2, "http:ssh"),
        ("-L -p tcp", 2, "option `-p' cannot be used with `-L'"),
        ("-nA INPUT", 2, "option `-nA' cannot be used with `-nA'"),
        ("-L -F", 2, "`-F' cannot be used with `-L'"),
        ("-6 -L", 2, "`-6' is not for iptables"),
        ("-X U", 4, "chain `U' is the target of a rule"),
        ("-X", 4, "chain `U' is the target of a rule"),
        ("-X INPUT", 4, "chain `INPUT' is a base chain"),
        ("-E INPUT V", 4, "keeps its name"),
        ("-A U -j U", 4, "U: the jump leads back to chain U"),
        ("-L NOPE", 1, "iptables: No chain/target/match by that name."),
        ("-A INPUT -W 5", 2, "needs `-w'"),
        ("-A INPUT --s 5", 2, "ambiguous option `--s'"),
    ] {
        let (code, text) = err(line);
        assert!(code == exit && text.contains(said), "{line}: {code} {text}");
        assert!(text.starts_with("iptables: ") && text.lines().count() == 1, "{line}: {text}");
    }
}

#[test]
fn values_may_be_glued_to_letters() {
    let mut ruleset = Ruleset::new(Family::V4);
    let line = "-AINPUT -ptcp -s10.0.0.0/8 -ieth0 -mtcp --dport=80 -jACCEPT";
    assert_eq!(answer(line, &mut ruleset), Answer::default());
    let printed = "-A INPUT -s 10.0.0.0/8 -i eth0 -p tcp -m tcp --dport 80 -j ACCEPT\n";
    assert_eq!(answer("-SINPUT 1", &mut ruleset).out, printed);
}

#[test]
fn help_and_version_need_no_command() {
    for line in ["-h", "--help", "-L -h", "-nvh"] {
        let answer = answer(line, &mut Ruleset::new(Family::V6));
        assert_eq!((answer.exit, answer.err.as_str()), (0, ""), "{line}");
        assert!(
            answer.out.starts_with("ip6tables v1.8.9 (nf_tables)\n\nUsage:\n  ip6tables [-t"),
            "{line}"
        );
    }
}

/// What was changed decides what is published: a table that comes to be moves counters about.
#[test]
fn effects_say_what_was_changed() {
    let mut ruleset = Ruleset::new(Family::V4);
    for (line, effect) in [
        ("-L", Effect::Nothing),
        ("-Z", Effect::Nothing),
        ("-C INPUT -j DROP", Effect::Nothing),
        ("-L INPUT -Z", Effect::Rules),
        ("-Z", Effect::Counters),
        ("-vL -Z", Effect::Counters),
        ("-A INPUT -j DROP", Effect::Rules),
        ("-C INPUT -j DROP", Effect::Nothing),
        ("-Z INPUT 1", Effect::Counters),
        ("-A INPUT -m quota --quota 5", Effect::Rules),
        ("-Z INPUT 1", Effect::Counters),
        ("-Z INPUT 2", Effect::Rules),
        ("-Z OUTPUT", Effect::Counters),
        ("-Z", Effect::Rules),
        ("-P INPUT DROP", Effect::Rules),
        ("-V", Effect::Nothing),
    ] {
        assert_eq!(run(&words(line), &mut ruleset, &Names::default()).1, effect, "{line}");
    }
}

/// What `-S` prints, given to an empty ruleset line by line.
fn replayed(ruleset: &mut Ruleset) -> Ruleset {
    let mut again = Ruleset::new(ruleset.family);
    for table in ["raw", "mangle", "nat", "filter"] {
        for line in answer(&format!("-t {table} -S"), ruleset).out.lines() {
            let answer = answer(&format!("-t {table} {line}"), &mut again);
            // Base chains are there already.
            assert_eq!(answer.exit, 0, "{line}: {}", answer.err);
        }
    }
    again
}

fn same_text(a: &Ruleset, b: &Ruleset) -> bool {
    let text = |rules: &Ruleset, table| {
        save(rules, Look { table: Some(table), ..Look::default() })
            .lines()
            .map(|line| line.split(" [").next().unwrap_or("").to_owned())
            .collect::<Vec<_>>()
    };
    Table::ALL.iter().all(|&table| text(a, table) == text(b, table))
}

/// Words of command lines; `""` is an empty one.
const WORDS: &str = r#"-A -I -D -R -C -N -X -E -F -P -Z -L -S INPUT FORWARD U V 1 2 -t nat mangle -j
 DROP ACCEPT -g -p tcp -ptcp udp -m multiport --dports 80,ssh -s 10/8 ! -i lan -nvx -v -c 5,6 -4 --
 --line-numbers --dport=1:9 LOG "" -w é -jU state --state NEW -LU -AINPUT RETURN REJECT"#;

fn any_line() -> impl Strategy<Value = String> {
    let word = prop::sample::select(WORDS.split_whitespace().collect::<Vec<_>>());
    prop::collection::vec(word, 1..9).prop_map(|words| words.join(" "))
}

proptest! {
    /// Any words at all: no panic, nothing changes where the exit code says so, and what `-S`
    /// prints makes the same rules again.
    #[test]
    fn what_is_printed_makes_the_same_rules(lines in prop::collection::vec(any_line(), 1..30)) {
        let mut ruleset = Ruleset::new(Family::V4);
        for line in ["-N U", "-N V", "-A INPUT -j U", "-A U -p tcp --dport 80 -j DROP"] {
            prop_assert_eq!(answer(line, &mut ruleset).exit, 0);
        }
        for line in lines {
            let before = ruleset.clone();
            let answer = answer(&line, &mut ruleset);
            prop_assert_eq!(answer.exit == 0, answer.err.is_empty(), "{}", line);
            prop_assert!(answer.exit == 0 || ruleset == before, "{}", line);
        }
        let again = replayed(&mut ruleset);
        prop_assert!(same_text(&ruleset, &again));
    }
}
