//! Random rule sets: what operators might write, with the kernel as referee.
//!
//! A seed is a scene of a few conns ([`scene`]) and a rule set of a family ([`draw`]) that asks for
//! the scene's addresses and ports ([`matches`]) and does everything that rules can do
//! ([`targets`]). The kernel's namespace ([`referee`]) and Sluicegate ([`gateway`]) load it and get
//! the packets one by one. The same has to come out: every packet, every line that NFLOG and
//! `log_invalid` write, the conns with their marks and counters, and each counter of each rule and
//! policy ([`case`]). In some cases other rules are restored
//! while the conns go on.
//!
//! A set that differs is shrunk to the rules and packets that matter.
//! `SLUICEGATE_SEED=N cargo test --test comparison rulesets::one_seed -- --ignored --nocapture`
//! runs one again; `SLUICEGATE_RULESETS` says how many a soak runs.

mod case;
mod draw;
mod gateway;
mod matches;
mod referee;
mod ruleset;
mod scene;
mod tally;
mod targets;

use crate::random::number;
use case::{Case, Outcome};
use referee::Referee;
use ruleset::Ruleset;
use std::fmt::Write;
use std::time::Duration;
use tally::Tally;

/// How often a set is run to shrink it.
const SHRINKING_MAX: usize = 150;
/// How many sets are shrunk unless SLUICEGATE_SHRINK says otherwise.
const SHRUNK_MAX: usize = 8;
/// Of a set that is not shrunk so many differences are told.
const TOLD_MAX: usize = 3;
/// Rule sets of a soak unless SLUICEGATE_RULESETS says otherwise.
const SOAK: u64 = 1000;
/// Sets of each test that is always run.
const FIXED: u64 = 25;

/// Both devices.
struct Bench {
    referee: Referee,
    tally: Tally,
    shrunk: usize,
    shrunk_max: usize,
}

/// A run of a case.
struct Run {
    ours: Outcome,
    theirs: Outcome,
    clock: Vec<Duration>,
    found: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let shrunk_max = number("SLUICEGATE_SHRINK").map_or(SHRUNK_MAX, |max| max as usize);
        Bench { referee: Referee::new(), tally: Tally::default(), shrunk: 0, shrunk_max }
    }

    fn run(&mut self, case: &Case) -> Run {
        let case = &case.again();
        let (ours, clock) = self.referee.run(case);
        self.tally.note(case, &ours);
        let theirs = gateway::run(case, &clock);
        let found = case::differences(case, &ours, &theirs, ["kernel", gateway::spread(case).name]);
        Run { ours, theirs, clock, found }
    }

    /// Runs a case, and once more where it differs: what a kernel decides to the jiffy, or is busy
    /// with besides, is not the same twice.
    fn run_surely(&mut self, case: &Case) -> Option<Run> {
        let first = self.run(case);
        if first.found.is_empty() {
            return None;
        }
        Some(self.run(case)).filter(|run| !run.found.is_empty())
    }

    /// Leaves out rules and packets that the difference does not need.
    fn shrink(&mut self, case: &mut Case) {
        let mut runs = 0;
        let mut still = |bench: &mut Bench, smaller: &Case| {
            runs += 1;
            runs <= SHRINKING_MAX && !bench.run(smaller).found.is_empty()
        };
        let at_once = Case { then: None, ..case.clone() };
        let only_then = case.then.as_ref().map(|(_, rules)| rules.clone());
        let only_then = only_then.map(|rules| Case { rules, ..at_once.clone() });
        if case.then.is_some()
            && let Some(smaller) = [Some(at_once), only_then]
                .into_iter()
                .flatten()
                .find(|smaller| still(self, smaller))
        {
            *case = smaller;
        }
        for of_then in [false, true] {
            let mut size = case.rules(of_then).map_or(0, |rules| rules.size().div_ceil(2));
            while size > 0 {
                let all = case.rules(of_then).map_or(0, Ruleset::size);
                for from in (0..all).step_by(size).rev() {
                    let mut smaller = case.clone();
                    smaller.leave_out(of_then, from..from + size);
                    if smaller.size() < case.size() && still(self, &smaller) {
                        *case = smaller;
                    }
                }
                size /= 2;
            }
        }
        let mut size = case.plan.drafts.len().div_ceil(2);
        while size > 0 {
            let steps = case.plan.drafts.len();
            for from in (0..steps).step_by(size).rev() {
                let part = from..(from + size).min(steps);
                let mut smaller = case.clone();
                let drafts = &mut smaller.plan.drafts[part];
                if drafts.iter().all(Option::is_none) {
                    continue;
                }
                drafts.fill(None);
                if still(self, &smaller) {
                    *case = smaller;
                }
            }
            size /= 2;
        }
        let then = case.then.as_ref().map(|(step, rules)| (*step, rules.pruned()));
        let pruned = Case { rules: case.rules.pruned(), then, ..case.clone() };
        if still(self, &pruned) {
            *case = pruned;
        }
    }

    /// Shrinks a case that differed, and says what to know about it.
    fn report(&mut self, case: &Case, run: &Run) -> String {
        let mut text = format!("\n== seed {}, {}\n", case.seed, gateway::spread(case).name);
        self.shrunk += 1;
        if self.shrunk > self.shrunk_max {
            text.push_str(&run.found[..run.found.len().min(TOLD_MAX)].join("\n"));
            return text;
        }
        let mut small = case.clone();
        self.shrink(&mut small);
        let Some(run) = self.run_surely(&small) else {
            text.push_str("differs not every time:\n");
            text.push_str(&run.found.join("\n"));
            return text;
        };
        let last = run.clock.last().copied().unwrap_or_default();
        let _ = writeln!(
            text,
            "log_invalid {}, {} ms\n{}{}{}\n\n-- kernel\n{}\n-- sluicegate\n{}",
            small.log_invalid,
            last.as_millis(),
            small.rules.text(),
            small.then.as_ref().map_or(String::new(), |(step, rules)| {
                format!("-- before step {step}\n{}", rules.text())
            }),
            run.found.join("\n"),
            case::told(&small, &run.ours),
            case::told(&small, &run.theirs)
        );
        text
    }

    /// Runs the sets of some seeds, telling each that differs; how many did.
    fn all(&mut self, seeds: impl Iterator<Item = u64>) -> usize {
        let mut differ = 0;
        for seed in seeds {
            let case = Case::draw(seed);
            if let Some(run) = self.run_surely(&case) {
                differ += 1;
                println!("{}", self.report(&case, &run));
            }
        }
        println!("{}", self.tally);
        differ
    }
}

#[test]
fn rule_sets_do_as_the_kernel() {
    assert_eq!(Bench::new().all(0..FIXED), 0, "rule sets differ");
}

/// Beside the first ones, on another CPU.
#[test]
fn more_rule_sets_do_as_well() {
    assert_eq!(Bench::new().all(FIXED..2 * FIXED), 0, "rule sets differ");
}

#[test]
#[ignore = "runs the rule set that SLUICEGATE_SEED names"]
fn one_seed() {
    let seed = number("SLUICEGATE_SEED").expect("SLUICEGATE_SEED is a number");
    let mut bench = Bench::new();
    let case = Case::draw(seed);
    println!("{}", case.rules.text());
    if let Some((step, rules)) = &case.then {
        println!("-- before step {step}\n{}", rules.text());
    }
    if let Some(run) = bench.run_surely(&case) {
        panic!("{}", bench.report(&case, &run));
    }
}

#[test]
#[ignore = "runs SLUICEGATE_RULESETS rule sets from SLUICEGATE_SEED on"]
fn soak() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let drawn = clock.map_or(1, |since| since.as_nanos() as u64) % 1_000_000_000;
    let first = number("SLUICEGATE_SEED").unwrap_or(drawn);
    let count = number("SLUICEGATE_RULESETS").unwrap_or(SOAK);
    let mut bench = Bench::new();
    let differ = bench.all(first..first + count);
    println!("{count} rule sets from seed {first} on, {differ} differ");
    assert_eq!(differ, 0, "rule sets differ");
    assert_eq!(bench.tally.lacks(), [""; 0]);
}
