//! Many schedules of many workers, each beside one worker that takes everything in order.
//!
//! `SLUICEGATE_SEED=7 cargo test -p dataplane --test simulator -- one_schedule --ignored
//! --nocapture` replays one of them. `make soak` tries new ones for as long as it is told to.

use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::lcore::simulator::{Dice, Order, Plan, Spread};
use dataplane::pipeline::place::{Layout, Queues};
use dataplane::rules::hook::Family;

use super::run::{Effort, Outcome, START, rule_names, run};
use super::script::Script;

/// Schedules of `make test`.
const SEEDS: std::ops::Range<u64> = 1..25;

/// Workers, queues and how frames find them, out of a seed.
pub(crate) fn plan(seed: u64) -> Plan {
    let mut dice = Dice::new(seed);
    let lcores = [2, 3, 4, 7][dice.below(4) as usize];
    let spread = [Spread::Symmetric, Spread::Asymmetric, Spread::Random, Spread::Owner]
        [dice.below(4) as usize];
    let mut queues = || match dice.below(4) {
        0 => 1,
        1 => 2,
        _ => lcores as u16,
    };
    let ports = (0..2).map(|_| Queues { rx: queues(), tx: queues() }).collect();
    let mut layout = Layout::new(lcores, ports);
    if spread == Spread::Owner {
        layout = Layout::even(lcores, 2, lcores.into());
    }
    Plan { layout, spread, order: Order::Seeded, seed, max: 4096, now: START }
}

fn one_worker(seed: u64) -> Plan {
    let (layout, spread) = (Layout::alone(2), Spread::Symmetric);
    Plan { layout, spread, order: Order::Turns, seed, max: 4096, now: START }
}

fn script(seed: u64, plan: &Plan) -> Script {
    Script::new(seed, plan.spread == Spread::Random)
}

/// What differs, shortly, and in which talk.
fn difference(many: &Outcome, one: &Outcome) -> Option<(Option<usize>, String)> {
    for (talk, (a, b)) in many.arrived.iter().zip(&one.arrived).enumerate() {
        if a != b {
            return Some((Some(talk), format!("{a:#?}\nwith one worker:\n{b:#?}")));
        }
    }
    for (phase, (a, b)) in many.listings.iter().zip(&one.listings).enumerate() {
        let only = |a: &[String], b: &[String]| -> Vec<String> {
            a.iter().filter(|line| !b.contains(line)).cloned().collect()
        };
        if a != b {
            let (more, fewer) = (only(a, b), only(b, a));
            return Some((None, format!("conns after phase {phase}: {more:#?}\n{fewer:#?}")));
        }
    }
    for (i, family) in [Family::V4, Family::V6].into_iter().enumerate() {
        let differ = |i: &usize, a: &[(u64, u64)], b: &[(u64, u64)]| a[*i] != b[*i];
        let (a, b) = (&many.rules[i], &one.rules[i]);
        let names = rule_names(family);
        if let Some(at) = (0..a.len().max(b.len())).find(|at| differ(at, a, b)) {
            return Some((
                None,
                format!("{:?} {}: {:?}, with one worker {:?}", family, names[at], a[at], b[at]),
            ));
        }
    }
    let rest = |o: &Outcome| (o.counts.clone(), o.drops.clone(), o.deleted, o.events);
    (many != one).then(|| (None, format!("{:?}\nwith one worker\n{:?}", rest(many), rest(one))))
}

/// Runs the schedule of a seed and compares.
fn check(seed: u64) -> Effort {
    let plan = plan(seed);
    let script = script(seed, &plan);
    let explain = |wrong: String| -> ! {
        panic!(
            "seed {seed}, {plan:?}\n{wrong}\nreplay: SLUICEGATE_SEED={seed} cargo test -p dataplane \
             --test simulator -- one_schedule --ignored --nocapture"
        )
    };
    let (one, _) =
        run(&script, &one_worker(seed)).unwrap_or_else(|w| explain(format!("one worker: {w}")));
    let (many, effort) = run(&script, &plan).unwrap_or_else(|w| explain(w));
    if let Some((talk, difference)) = difference(&many, &one) {
        let talk = talk.map(|number| &script.talks[number]);
        explain(format!("{talk:?}\n{difference}"));
    }
    effort
}

#[test]
fn many_workers_give_what_one_gives() {
    let mut sum = Effort::default();
    for seed in SEEDS {
        let effort = check(seed);
        sum.handed_over += effort.handed_over;
        sum.fast += effort.fast;
        sum.walked += effort.walked;
        sum.resized += effort.resized;
    }
    // All ways were gone.
    assert!(sum.handed_over > 1000 && sum.fast > 1000 && sum.walked > 1000, "{sum:?}");
    assert!(sum.resized > 4 * SEEDS.end as u32, "{sum:?}");
}

/// What [`many_workers_give_what_one_gives`] says of conns that go on says something.
#[test]
fn conns_that_are_not_kept_meet_the_new_rules() {
    let seed = 3;
    let plan = plan(seed);
    let kept = script(seed, &plan);
    assert!(kept.keeps && run(&kept, &plan).is_ok());
    let wrong = run(&Script { keeps: false, ..kept }, &plan).unwrap_err();
    assert!(wrong.contains("lost") && wrong.contains("before"), "{wrong}");
}

#[test]
fn a_seed_gives_the_same_frames_again_and_another_one_does_not() {
    let effort = |script: u64, seed: u64| {
        let plan = Plan { seed, ..plan(5) };
        run(&Script::new(script, true), &plan).unwrap().1
    };
    let first = effort(5, 5);
    assert_eq!(first, effort(5, 5));
    assert_ne!(first.digest, effort(5, 6).digest);
}

/// The schedule of `SLUICEGATE_SEED`.
#[test]
#[ignore = "replays one schedule: SLUICEGATE_SEED"]
fn one_schedule() {
    let seed = env::var("SLUICEGATE_SEED").expect("SLUICEGATE_SEED").parse().expect("a number");
    println!("{:?}\n{:?}", plan(seed), check(seed));
}

/// New schedules for `SLUICEGATE_SOAK_SECS` seconds; the first that is wrong ends it.
#[test]
#[ignore = "make soak"]
fn soak() {
    let secs = env::var("SLUICEGATE_SOAK_SECS").map_or(60, |s| s.parse().expect("seconds"));
    let (began, mut schedules) = (Instant::now(), 0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut seeds = Dice::new(since.as_nanos() as u64);
    while began.elapsed() < Duration::from_secs(secs) {
        check(seeds.roll() >> 16);
        schedules += 1;
        if schedules % 100 == 0 {
            println!("{schedules} schedules, {} s", began.elapsed().as_secs());
        }
    }
    println!("soak: {schedules} schedules in {} s, all as one worker", began.elapsed().as_secs());
}
