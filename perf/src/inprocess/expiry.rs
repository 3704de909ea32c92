//! A million idle conns expire while 32 K others forward: what the packets notice.
//!
//! Clients talk on 32 K conns without end; a million more were opened once and are left alone. The
//! clock is the real one, the timeout a few seconds. The worker notes every twentieth of a second
//! how much it has forwarded in how much CPU time, how many conns there are, and its longest round.
//! The dip is the rate from the first conn's end to the last one's, held against the rate before,
//! with all of them in the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::{Moment, Passed, clean_windows};
use super::gateway::{Rig, Work, work};
use super::picks::Picks;
use super::trial::{Phase, Trial};
use super::{Options, count_name, print};
use crate::process::Failure;
use crate::row::{Goal, Row, Spread};

/// Conns that talk, which are the first ones, and all conns.
const TALKING: u32 = 32 << 10;
const IDLE: u32 = 1_000_000;
/// Until the idle ones have had their time; their opening and a stretch before are to fit in.
const TIMEOUT_SECS: u32 = 8;
const STRETCH: Duration = Duration::from_millis(50);
/// By then all of them are long gone.
const PATIENCE: Duration = Duration::from_secs(40);
/// Percent that the rate may fall by.
const DIP: f64 = 3.0;

/// What happened in a stretch.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    passed: Passed,
    left: u64,
    /// At its end.
    conns: u32,
    longest: Duration,
}

/// Stretches taken together.
#[derive(Clone, Copy, Debug, Default)]
struct Together {
    passed: Passed,
    left: u64,
    longest: Duration,
}

impl Together {
    fn of(stretches: &[Stretch]) -> Together {
        stretches.iter().fold(Together::default(), |all, one| Together {
            passed: all.passed.and(one.passed),
            left: all.left + one.left,
            longest: all.longest.max(one.longest),
        })
    }

    fn ns_each(self) -> f64 {
        self.passed.ns_each(self.left)
    }
}

/// Before the first conn went, and from then until the last one had gone.
fn parted(stretches: &[Stretch], all: u32, remaining: u32) -> Option<(Together, Together)> {
    let begins = stretches.iter().position(|s| s.conns < all)?;
    let ends = stretches.iter().position(|s| s.conns <= remaining)?;
    let during = stretches.get(begins..=ends)?;
    (begins > 0).then(|| (Together::of(&stretches[..begins]), Together::of(during)))
}

fn once(options: &Options) -> Result<(Together, Together), Failure> {
    let all = TALKING + IDLE;
    let more = format!("udp_timeout = {TIMEOUT_SECS}\n");
    let mut rig = Rig::new(&Work::Firewall.plan(all, &more, options.seed), Trial::new())?;
    rig.open(all)?;
    rig.answer(TALKING)?;
    rig.send_again(TALKING)?;
    rig.wires().source.phase = Phase::Talk(Picks::uniform(TALKING, options.seed));
    let table = Arc::clone(rig.core.table());
    let stretches = rig.run(|worker, clock| {
        let (began, mut stretches) = (Instant::now(), Vec::with_capacity(1024));
        let mut last = all;
        while last > TALKING && began.elapsed() < PATIENCE {
            let (before, start) = (worker.io().left, Moment::now());
            let (mut longest, mut at) = (Duration::ZERO, Instant::now());
            let end = at + STRETCH;
            while at < end {
                worker.poll(clock.now());
                let now = Instant::now();
                longest = longest.max(now - at);
                at = now;
            }
            last = table.capacity.count();
            let left = worker.io().left - before;
            stretches.push(Stretch { passed: start.passed(), left, conns: last, longest });
        }
        stretches
    })?;
    rig.lost_nothing("while conns expired")?;
    parted(&stretches, all, TALKING).ok_or_else(|| {
        let conns = stretches.last().map_or(0, |stretch| stretch.conns);
        work(&format!("no stretch before conns expired, or {conns} are left in the end"))
    })
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let times = if options.quick { 1 } else { options.pairs().min(5) };
    let runs = (0..times).map(|_| once(options)).collect::<Result<Vec<_>, _>>()?;
    let name = format!("{} idle conns expire, {} forward", count_name(IDLE), count_name(TALKING));
    let dips =
        runs.iter().map(|(before, during)| 100.0 * (1.0 - before.ns_each() / during.ns_each()));
    let longest = |of: fn(&(Together, Together)) -> Together| {
        Spread::of(runs.iter().map(move |run| of(run).longest.as_nanos() as f64 / 1e3))
    };
    let (Some(dip), Some(before), Some(during)) =
        (Spread::of(dips), longest(|run| run.0), longest(|run| run.1))
    else {
        return Ok(Vec::new());
    };
    let took = Spread::of(runs.iter().map(|(_, during)| during.passed.wall.as_secs_f64()));
    let rate = Spread::of(runs.iter().map(|(before, _)| 1e3 / before.ns_each()));
    let windows: Vec<Passed> = runs.iter().flat_map(|(a, b)| [a.passed, b.passed]).collect();
    let (took, rate) = (Spread::show(took, 2), Spread::show(rate, 1));
    let clean = clean_windows(&windows);
    let said = format!("from {rate} Mpps, for {took} s");
    let remark = if clean.is_empty() { said } else { format!("{said}; {clean}") };
    let goal = Some(Goal::AtMost(DIP));
    let row = |name, unit, ours, goal, remark| Row { name, unit, ours, peer: None, goal, remark };
    let said = format!("before: {} µs; a CPU lost is in both", Spread::show(Some(before), 0));
    Ok(vec![
        row(format!("{name}: fall of the rate"), "%", dip, goal, remark),
        row(format!("{name}: longest round"), "µs", during, None, said),
    ])
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_parted_where_conns_begin_to_go_and_where_all_have_gone() {
        let stretch = |conns, left| Stretch {
            passed: Passed { wall: STRETCH, cpu: STRETCH },
            left,
            conns,
            longest: Duration::from_micros(left),
        };
        let stretches =
            [stretch(100, 10), stretch(100, 10), stretch(60, 8), stretch(32, 7), stretch(32, 10)];
        let (before, during) = parted(&stretches, 100, 32).unwrap();
        assert_eq!((before.left, during.left), (20, 15));
        assert_eq!(during.longest, Duration::from_micros(8));
        assert!(during.ns_each() > before.ns_each());
        assert!(parted(&stretches[2..], 100, 32).is_none(), "nothing before");
        assert!(parted(&stretches[..3], 100, 32).is_none(), "no end");
    }
}
