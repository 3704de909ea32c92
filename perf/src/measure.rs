//! Windows: one program, one workload, some seconds of full bursts, and what they cost.
//!
//! A program is started, warmed up until its table holds exactly the offered conns, measured,
//! checked for the work it was measured for, and ended. A dirty window is measured again while the
//! program still runs; if none is clean, the last one is kept and marked.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::frame::Kind;
use crate::machine::{Fare, Thread, Usage};
use crate::process::{Failure, WORKER_CPU, pause, wait_until};
use crate::program::{Counters, Plan, Program, Running, Workload};

/// Frames that may be in flight between reading a program's rx and its tx counter, as a share of
/// a window's. A program that drops more has not done the work.
pub(crate) const SKEW_MAX: f64 = 0.002;

/// What is measured: a column of the interleaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) conns: usize,
    pub(crate) kind: Kind,
    /// Ignored by testpmd except for the directions.
    pub(crate) workload: Workload,
    pub(crate) program: Program,
}

impl Row {
    /// The row that measures what devices and DPDK cost for this one.
    pub(crate) fn floor(self) -> Row {
        let both = self.workload.both_ways();
        let workload = if both { Workload::FirewallBoth } else { Workload::Forward };
        Row { workload, program: Program::Testpmd, ..self }
    }
}

/// What every interleaved comparison is asked for.
#[derive(clap::Args)]
pub(crate) struct Rounds {
    /// Rounds; a ratio is taken inside each.
    #[arg(long, default_value_t = 9)]
    pub(crate) pairs: usize,
    /// Seconds of each window.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) secs: f64,
    /// Numbers of conns.
    #[arg(long, value_delimiter = ',', default_value = "1024,32768")]
    pub(crate) conns: Vec<usize>,
    /// Seed of the conns.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Tries after a dirty window.
    #[arg(long, default_value_t = 2)]
    pub(crate) retries: u32,
    /// The gateway's binary.
    #[arg(long, default_value = "target/release/sluicegate")]
    pub(crate) sluicegate: PathBuf,
}

/// How long, and how often again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) window: Duration,
    pub(crate) warm_up: Duration,
    /// Further tries after a dirty window.
    pub(crate) retries: u32,
}

/// The result of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) mpps: f64,
    /// Time stamp counter cycles per packet on the wall clock.
    pub(crate) wall_cycles: f64,
    /// The same by the forwarding thread's CPU time.
    pub(crate) cpu_cycles: f64,
    pub(crate) fare: Fare,
}

/// One reading of a program's counters and its thread.
struct Reading {
    at: Instant,
    counters: Counters,
    usage: Usage,
}

impl Reading {
    /// The counters are asked of a tool, which takes milliseconds: their time is its middle.
    fn take(running: &mut dyn Running, thread: Thread) -> Result<Self, Failure> {
        let before = Instant::now();
        let counters = running.counters()?;
        let at = before + before.elapsed() / 2;
        Ok(Self { at, counters, usage: thread.usage()? })
    }
}

/// Starts, warms up, measures, checks and ends one program.
pub(crate) fn measure(
    row: Row,
    plan: &Plan<'_>,
    length: Length,
    tsc_hz: f64,
) -> Result<Window, Failure> {
    let mut running = row.program.start(plan)?;
    let log = running.log().to_path_buf();
    let outcome = measure_running(row, running.as_mut(), length, tsc_hz);
    drop(running);
    outcome.map_err(|failure| with_log(failure, &log))
}

fn measure_running(
    row: Row,
    running: &mut dyn Running,
    length: Length,
    tsc_hz: f64,
) -> Result<Window, Failure> {
    warm_up(row, running, length.warm_up)?;
    let thread = Thread::forwarding(running.pid(), WORKER_CPU)?;
    let mut tries = 0;
    loop {
        let first = Reading::take(running, thread)?;
        pause(length.window)?;
        let last = Reading::take(running, thread)?;
        check_counters(row, &first.counters, &last.counters)?;
        let window = evaluate(&first, &last, tsc_hz);
        if window.fare.clean() || tries == length.retries {
            check_conns(row, running)?;
            return Ok(window);
        }
        tries += 1;
    }
}

/// Waits until frames come out and every conn is in the table.
fn warm_up(row: Row, running: &mut dyn Running, length: Duration) -> Result<(), Failure> {
    let patience = Duration::from_secs(10);
    let log = running.log().to_path_buf();
    let what = format!("{row:?}: nothing comes out");
    wait_until(patience, what, &log, || Ok(running.counters()?.tx > 0))?;
    if row.program.tracks(row.workload) {
        let what = format!("{row:?}: the table does not hold {} conns", row.conns);
        wait_until(patience, what, &log, || Ok(running.conns()? == row.conns as u64))?;
    }
    pause(length)
}

fn evaluate(first: &Reading, last: &Reading, tsc_hz: f64) -> Window {
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let packets = (last.counters.tx - first.counters.tx) as f64;
    let fare = Fare::between(first.usage, last.usage, seconds);
    Window {
        mpps: packets / seconds / 1e6,
        wall_cycles: seconds * tsc_hz / packets,
        cpu_cycles: fare.ran_ns as f64 / 1e9 * tsc_hz / packets,
        fare,
    }
}

/// Whatever came in went out.
fn check_counters(row: Row, first: &Counters, last: &Counters) -> Result<(), Failure> {
    let work = |reason: String| Failure::Work { program: format!("{row:?}"), reason };
    let rx = last.rx.saturating_sub(first.rx);
    let tx = last.tx.saturating_sub(first.tx);
    if tx == 0 {
        return Err(work("nothing came out of a window".to_owned()));
    }
    if last.dropped > first.dropped {
        return Err(work(format!("{} frames dropped", last.dropped - first.dropped)));
    }
    if rx.abs_diff(tx) as f64 > tx as f64 * SKEW_MAX {
        return Err(work(format!("{rx} frames in, {tx} out")));
    }
    Ok(())
}

/// The table holds the offered conns, translated where that was the work.
fn check_conns(row: Row, running: &mut dyn Running) -> Result<(), Failure> {
    let expected = if row.program.tracks(row.workload) { row.conns as u64 } else { 0 };
    let mut found = running.conns()?;
    let mut what = "conns";
    if found == expected
        && expected > 0
        && let Some((first, last)) = row.workload.pool()
    {
        (found, what) = (running.translated(first, last)?, "translated conns");
    }
    if found == expected {
        return Ok(());
    }
    let reason = format!("{found} {what} instead of {expected}");
    Err(Failure::Work { program: format!("{row:?}"), reason })
}

fn with_log(failure: Failure, log: &Path) -> Failure {
    match failure {
        Failure::Work { program, reason } => {
            Failure::Work { program, reason: format!("{reason}; see {}", log.display()) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row =
        Row { conns: 8, kind: Kind::Udp, workload: Workload::Snat, program: Program::Ovs };

    #[test]
    fn a_program_that_drops_is_refused() {
        let first = Counters { rx: 100, tx: 100, dropped: 4, ..Counters::default() };
        let good = Counters { rx: 10_100, tx: 10_090, ..first };
        assert!(check_counters(ROW, &first, &good).is_ok());
        assert!(check_counters(ROW, &first, &Counters { dropped: 5, ..good }).is_err());
        assert!(check_counters(ROW, &first, &Counters { tx: 10_000, ..good }).is_err());
        assert!(check_counters(ROW, &first, &first).is_err());
    }

    #[test]
    fn cycles_are_counted_by_both_clocks() {
        let at = Instant::now();
        let first = Reading { at, counters: Counters::default(), usage: Usage::default() };
        let counters = Counters { rx: 20_000_000, tx: 20_000_000, ..Counters::default() };
        let usage = Usage { ran_ns: 1_500_000_000, ..Usage::default() };
        let last = Reading { at: at + Duration::from_secs(2), counters, usage };
        let window = evaluate(&first, &last, 2.5e9);
        assert!((window.mpps - 10.0).abs() < 1e-9);
        assert!((window.wall_cycles - 250.0).abs() < 1e-9);
        assert!((window.cpu_cycles - 187.5).abs() < 1e-9);
    }
}
