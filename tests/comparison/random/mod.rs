//! Random sequences: what nobody thought of, with the kernel as referee.
//!
//! A seed is a sequence of 20 to 40 packets, valid and broken, with rules of its own: TCP, SCTP,
//! UDP, ICMP, GRE and others, some cut into fragments, and errors about them. 25 sequences run
//! together under common settings ([`batch`]); in the end it is told what they reached ([`tally`]).
//! `SLUICEGATE_SEED=N cargo test --test comparison
//! -- random::one_seed --ignored --nocapture` runs one again; a sequence that differs is shrunk to
//! the packets that matter and kept as a capture for `sluicegate replay`.

pub mod batch;
pub mod dice;
pub mod fragments;
pub mod generate;
pub mod gre;
mod judge;
pub mod plan;
pub mod rules;
pub mod sctp;
mod tally;
pub mod tcp;

use crate::kernel::Kernel;
use crate::replay::{Replay, SPREADS};
use batch::Batch;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tally::Tally;

/// How often a sequence is run to shrink it.
const SHRINKING_MAX: usize = 150;
/// How many sequences are shrunk unless SLUICEGATE_SHRINK says otherwise: a device that does
/// everything otherwise would take hours. Of the rest the first difference is told.
const SHRUNK_MAX: usize = 8;

/// The referee and what is compared with it.
struct Bench {
    kernel: Kernel,
    replays: Vec<Replay>,
    tally: Tally,
    /// How many sequences were shrunk.
    shrunk: usize,
    shrunk_max: usize,
    /// Where what differs is kept.
    folder: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mismatches");
        let shrunk_max = number("SLUICEGATE_SHRINK").map_or(SHRUNK_MAX, |max| max as usize);
        let replays = SPREADS.map(Replay::new).into();
        let (kernel, tally) = (batch::referee(), Tally::default());
        Bench { kernel, replays, tally, shrunk: 0, shrunk_max, folder }
    }

    /// Runs a batch; the differences by sequence, each with the number of the replay.
    fn run(&mut self, batch: &Batch) -> BTreeMap<usize, (usize, Vec<String>)> {
        let batch = &batch.again();
        let (ours, clock) = batch.referee(&mut self.kernel);
        self.tally.note(batch, &ours);
        let mut found = BTreeMap::new();
        for (number, replay) in self.replays.iter().enumerate() {
            let theirs = batch.replayed(replay, &clock, &ours.observed);
            for plan in 0..batch.plans.len() {
                let name = SPREADS[number].name;
                let differ = judge::differences(batch, plan, &ours, &theirs, name);
                if !differ.is_empty() {
                    found.entry(plan).or_insert((number, differ));
                }
            }
            // What hangs on a moment, as the two seconds after which an answered UDP conn is a
            // stream, a kernel decides to the jiffy.
            for percent in [99, 101] {
                let suspects = found.iter().filter(|(_, (by, _))| *by == number);
                let suspects: Vec<usize> = suspects.map(|(plan, _)| *plan).collect();
                if suspects.is_empty() {
                    break;
                }
                let theirs = batch.replayed(replay, &clock.at_percent(percent), &ours.observed);
                for plan in suspects {
                    if judge::differences(batch, plan, &ours, &theirs, SPREADS[number].name)
                        .is_empty()
                    {
                        found.remove(&plan);
                    }
                }
            }
        }
        found
    }

    /// Runs a batch, and once more where it differs: what the kernel draws by lot may be a number
    /// that stands for something else in a sequence, but not twice.
    fn run_surely(&mut self, batch: &Batch) -> BTreeMap<usize, (usize, Vec<String>)> {
        let mut found = self.run(batch);
        if !found.is_empty() {
            let again = self.run(batch);
            found.retain(|plan, _| again.contains_key(plan));
        }
        found
    }

    /// What one replay does otherwise than the kernel in a batch of one sequence, with both
    /// transcripts.
    fn differs(&mut self, batch: &Batch, replay: usize) -> Option<String> {
        let batch = &batch.again();
        let (ours, clock) = batch.referee(&mut self.kernel);
        let theirs = batch.replayed(&self.replays[replay], &clock, &ours.observed);
        let name = SPREADS[replay].name;
        let found = judge::differences(batch, 0, &ours, &theirs, name);
        (!found.is_empty()).then(|| {
            let their = judge::transcript(batch, 0, &theirs);
            let our = judge::transcript(batch, 0, &ours);
            let found = found.join("\n");
            format!("{found}\n\n-- kernel\n{our}\n-- {name}\n{their}")
        })
    }

    /// Leaves out what the difference does not need.
    fn shrink(&mut self, batch: &mut Batch, replay: usize) {
        let mut runs = 0;
        let mut still = |bench: &mut Bench, smaller: &Batch| {
            runs += 1;
            runs <= SHRINKING_MAX && bench.differs(smaller, replay).is_some()
        };
        for smaller in
            [Batch { waits: Vec::new(), ..batch.clone() }, Batch { settings: &[], ..batch.clone() }]
        {
            let waits = if smaller.waits.is_empty() { Vec::new() } else { batch.waits.clone() };
            let smaller = Batch { waits, plans: batch.plans.clone(), ..smaller };
            if still(self, &smaller) {
                *batch = smaller;
            }
        }
        let mut size = batch.plans[0].drafts.len().div_ceil(2);
        while size > 0 {
            let steps = batch.plans[0].drafts.len();
            for from in (0..steps).step_by(size).rev() {
                let part = from..(from + size).min(steps);
                let mut smaller = batch.clone();
                let drafts = &mut smaller.plans[0].drafts[part];
                if drafts.iter().all(Option::is_none) {
                    continue;
                }
                drafts.fill(None);
                if still(self, &smaller) {
                    *batch = smaller;
                }
            }
            size /= 2;
        }
    }

    /// Runs a sequence that differed alone, shrinks it, keeps it, and says what to know about it.
    fn report(&mut self, batch: &Batch, plan: usize, replay: usize, found: &[String]) -> String {
        let seed = batch.plans[plan].seed;
        let mut text = format!("\n== seed {seed}, {}\n", SPREADS[replay].name);
        self.shrunk += 1;
        if self.shrunk > self.shrunk_max {
            text.push_str(&found[0]);
            return text;
        }
        let mut alone = batch.only(plan);
        if self.differs(&alone, replay).is_none() {
            text.push_str("differs only together with the others of its batch:\n");
            text.push_str(&found.join("\n"));
            return text;
        }
        self.shrink(&mut alone, replay);
        let Some(said) = self.differs(&alone, replay) else {
            text.push_str("differs not every time:\n");
            text.push_str(&found.join("\n"));
            return text;
        };
        // Without listings on the way, each of which is a replay of its own, for the whole capture.
        let whole = Batch { tables: Vec::new(), ..alone.clone() };
        let _ = self.differs(&whole, replay);
        let folder = self.folder.join(format!("seed-{seed}-{replay}"));
        let plan = &alone.plans[0];
        let _ = writeln!(
            text,
            "{:?}\nsettings {:?}, waits {:?}",
            plan.policy, alone.settings, alone.waits
        );
        text.push_str(&said);
        let kept = self.replays[replay].keep(&folder);
        let kept = kept.and_then(|()| fs::write(folder.join("outcomes.txt"), &text));
        let _ = match kept {
            Ok(()) => writeln!(text, "kept in {}", folder.display()),
            Err(error) => writeln!(text, "not kept in {}: {error}", folder.display()),
        };
        text
    }

    /// Runs batches and fails with what differs.
    fn all(&mut self, numbers: impl Iterator<Item = u64>) {
        let mut text = String::new();
        let mut count = 0;
        for number in numbers {
            let batch = Batch::draw(number);
            for (plan, (replay, found)) in self.run_surely(&batch) {
                count += 1;
                text.push_str(&self.report(&batch, plan, replay, &found));
            }
        }
        println!("{}", self.tally);
        assert!(count == 0, "{count} sequences differ\n{text}");
        assert_eq!(self.tally.lacks(), [""; 0]);
    }
}

/// A number in the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_hundred_sequences_do_as_the_kernel() {
    Bench::new().all(0..4);
}

/// Beside the first hundred, on another CPU.
#[test]
fn another_hundred_do_as_well() {
    Bench::new().all(4..8);
}

#[test]
#[ignore = "runs the sequence that SLUICEGATE_SEED names"]
fn one_seed() {
    let seed = std::env::var("SLUICEGATE_SEED").expect("SLUICEGATE_SEED names a sequence");
    let batch = Batch::of_seed(seed.parse().expect("SLUICEGATE_SEED is a number"));
    let mut bench = Bench::new();
    let found = bench.run_surely(&batch);
    if let Some((_, (replay, found))) = found.into_iter().next() {
        panic!("{}", bench.report(&batch, 0, replay, &found));
    }
}

#[test]
#[ignore = "runs for SLUICEGATE_SOAK_SECS seconds"]
fn soak() {
    let time = Duration::from_secs(number("SLUICEGATE_SOAK_SECS").unwrap_or(600));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let drawn = clock.map_or(1, |since| since.as_nanos() as u64) % 1_000_000_000;
    let first = number("SLUICEGATE_SEED").unwrap_or(drawn) / batch::SIZE;
    let began = Instant::now();
    let mut bench = Bench::new();
    let (mut count, mut differ) = (0, 0);
    for number in first.. {
        if began.elapsed() >= time {
            break;
        }
        let batch = Batch::draw(number);
        for (plan, (replay, found)) in bench.run_surely(&batch) {
            differ += 1;
            println!("{}", bench.report(&batch, plan, replay, &found));
        }
        count += batch::SIZE;
    }
    let seed = first * batch::SIZE;
    println!("{}", bench.tally);
    println!("{count} sequences from seed {seed} on, {differ} differ");
    assert!(differ == 0, "{differ} of {count} sequences differ");
}
