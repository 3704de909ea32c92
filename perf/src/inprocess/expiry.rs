//! A million idle conns expire while 32 K others forward: what the packets notice.
//!
//! Clients talk on 32 K conns without end; a million more have been opened, and their time is up:
//! the gateway's watch was set forward, so it does not matter how long all that took. What is left
//! to do is the control core's sweep and the worker's deletions, at the product's own pace, and
//! that can be stopped and let go on: the control core's time stands in between. So the rate is
//! measured in many short windows with and without expiry in turn, a window with it is held against
//! the two around it, and the fall of the rate is the median of all of these. The spread says how
//! much of it is noise.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::lcore::worker::Worker;

use super::clock::{Moment, Passed, clean_windows};
use super::gateway::{Rig, Work, work};
use super::picks::Picks;
use super::trial::{Phase, Trial};
use super::watch::Watch;
use super::wires::Wires;
use super::{Options, count_name, print};
use crate::goals::Topic;
use crate::process::Failure;
use crate::row::{Reach, Row, Spread};

/// Conns that talk, which are the first ones.
const TALKING: u32 = 32 << 10;
const IDLE: u32 = 1_000_000;
const QUICK_IDLE: u32 = 200_000;
/// Timeouts, and how far the watch is set forward when the idle conns are there and when the
/// others are: those of the idle ones have passed then, and the others' have not.
const TIMEOUTS: &str = "udp_timeout = 600\nudp_timeout_stream = 600\n";
const AFTER_IDLE: Duration = Duration::from_secs(300);
const AFTER_ALL: Duration = Duration::from_secs(400);
/// A window, and the time until expiry has begun or ended.
const WINDOW: Duration = Duration::from_millis(40);
const SETTLE: Duration = Duration::from_millis(15);
/// By then all of them are long gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Percent that the rate may fall by.
const DIP: f64 = 3.0;
/// Pairs that a run gives at least, or that are enough of the clean ones.
const PAIRS: usize = 5;

/// What happened in a window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    passed: Passed,
    left: u64,
    /// Conns that ended in it.
    ended: u32,
    longest: Duration,
}

impl Window {
    fn ns_each(&self) -> f64 {
        self.passed.ns_each(self.left)
    }
}

/// Windows of a run: without, with, without, … without.
struct Run {
    without: Vec<Window>,
    with: Vec<Window>,
}

impl Run {
    /// By how many percent the rate of each window with expiry is less than around it: of windows
    /// that had their CPU, if there are enough.
    fn falls(&self) -> Vec<f64> {
        let mut all = Vec::new();
        let mut clean = Vec::new();
        for (around, with) in self.without.windows(2).zip(&self.with) {
            let without = (around[0].ns_each() + around[1].ns_each()) / 2.0;
            let fall = 100.0 * (1.0 - without / with.ns_each());
            if with.ended == 0 {
                continue;
            }
            all.push(fall);
            if [with, &around[0], &around[1]].iter().all(|window| window.passed.clean()) {
                clean.push(fall);
            }
        }
        if clean.len() >= PAIRS { clean } else { all }
    }
}

/// Polls for so long.
fn window(
    worker: &mut Worker<Wires<Trial>>,
    watch: &Watch,
    length: Duration,
    conns: impl Fn() -> u32,
) -> Window {
    let (before, conns_before, start) = (worker.io().left, conns(), Moment::now());
    let (mut longest, mut at) = (Duration::ZERO, Instant::now());
    let end = at + length;
    while at < end {
        worker.poll(watch.now());
        let now = Instant::now();
        longest = longest.max(now - at);
        at = now;
    }
    let (left, ended) = (worker.io().left - before, conns_before.saturating_sub(conns()));
    Window { passed: start.passed(), left, ended, longest }
}

fn once(options: &Options, idle: u32) -> Result<Run, Failure> {
    let all = TALKING + idle;
    let mut rig = Rig::new(&Work::Firewall.plan(all, TIMEOUTS, options.seed), Trial::new())?;
    let watch = rig.watch.clone();
    watch.stop_control();
    rig.open_unanswered(TALKING, all)?;
    watch.forward(AFTER_IDLE);
    rig.open(TALKING)?;
    rig.answer(TALKING)?;
    rig.send_again(TALKING)?;
    watch.forward(AFTER_ALL);
    rig.wires().source.phase = Phase::Talk(Picks::uniform(TALKING, options.seed));
    let table = Arc::clone(rig.core.table());
    let run = rig.run(|worker, watch| {
        let conns = || table.capacity.count();
        let (began, mut run) = (Instant::now(), Run { without: Vec::new(), with: Vec::new() });
        let mut last = window(worker, watch, SETTLE * 4, conns);
        run.without.push(window(worker, watch, WINDOW, conns));
        while conns() > TALKING && began.elapsed() < PATIENCE {
            watch.let_control_go();
            window(worker, watch, SETTLE, conns);
            run.with.push(window(worker, watch, WINDOW, conns));
            watch.stop_control();
            // What is under way is still deleted.
            while std::mem::replace(&mut last, window(worker, watch, SETTLE, conns)).ended > 0 {}
            run.without.push(window(worker, watch, WINDOW, conns));
        }
        run
    })?;
    watch.let_control_go();
    rig.lost_nothing("while conns expired")?;
    if rig.conns() != TALKING {
        return Err(work(&format!("{} conns are left where {TALKING} talk", rig.conns())));
    }
    let pairs = run.falls().len();
    if pairs < PAIRS {
        return Err(work(&format!("expiry was over after {pairs} windows")));
    }
    Ok(run)
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let (idle, runs) =
        if options.quick { (QUICK_IDLE, 1) } else { (IDLE, options.pairs().div_ceil(3)) };
    let runs = (0..runs).map(|_| once(options, idle)).collect::<Result<Vec<_>, _>>()?;
    let name = format!("{} idle conns expire, {} forward", count_name(idle), count_name(TALKING));
    let with = || runs.iter().flat_map(|run| &run.with);
    let without = || runs.iter().flat_map(|run| &run.without);
    let of = |windows: &mut dyn Iterator<Item = &Window>, figure: fn(&Window) -> f64| {
        Spread::of(windows.map(figure))
    };
    let longest = |window: &Window| window.longest.as_nanos() as f64 / 1e3;
    let (Some(fall), Some(during), Some(rate), Some(pace)) = (
        Spread::of(runs.iter().flat_map(Run::falls)),
        of(&mut with(), longest),
        of(&mut without(), |window| 1e3 / window.ns_each()),
        of(&mut with(), |w| f64::from(w.ended) / w.passed.wall.as_secs_f64() / 1e6),
    ) else {
        return Ok(Vec::new());
    };
    let passed: Vec<Passed> = with().chain(without()).map(|window| window.passed).collect();
    let beside = Spread::show(of(&mut without(), longest), 0);
    Ok(vec![
        Row::new(format!("{name}: fall of the rate"), "%", fall)
            .judged(Reach::LossAtMost(DIP).of(Topic::Expiry))
            .noting(format!(
                "the median lies between {:.1} and {:.1}, of {} windows; from {:.1} Mpps, at {:.2} M \
                 conns/s",
                fall.low,
                fall.high,
                with().count(),
                rate.median,
                pace.median
            ))
            .noting(clean_windows(&passed)),
        Row::new(format!("{name}: longest round of a window"), "µs", during)
            .noting(format!("without: {beside} µs; a CPU lost is in both")),
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
    fn a_window_is_held_against_those_around_it() {
        let window = |ns: u64, ended| Window {
            passed: Passed { wall: WINDOW, cpu: Duration::from_nanos(ns) },
            left: 1,
            ended,
            longest: Duration::ZERO,
        };
        // A machine that grows slower all the time.
        let without = [90, 110, 130, 150].map(|ns| window(ns, 0)).into();
        let run = Run { without, with: vec![window(100, 9), window(150, 9), window(999, 0)] };
        let falls = run.falls();
        assert_eq!(falls.len(), 2, "in the last one nothing ended");
        assert!(falls[0].abs() < 1e-9 && (falls[1] - 20.0).abs() < 1e-9, "{falls:?}");
    }
}
