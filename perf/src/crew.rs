//! Windows of several workers: what all of them together received, handed over, dropped and sent,
//! and what each spent.
//!
//! The last worker shares its CPU with the control core, so its context switches say nothing; that
//! it had its CPU is seen by its share of it. A window is clean when nothing was stolen from any
//! CPU and no worker on a CPU of its own was preempted.

use std::time::{Duration, Instant};

use crate::machine::{Fare, Thread, Usage};
use crate::measure::{Length, SKEW_MAX};
use crate::process::{CONTROL_CPU, Failure, pause, wait_until};
use crate::program::{Counters, Plan, Program, Running};

/// Share of a CPU that the hypervisor may take in a clean window.
const STEAL_MAX: f64 = 0.02;

/// What is awaited of the frames of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Who receives them sends them; none may be dropped.
    Direct,
    /// Each of them is handed over, or dropped because the other worker had no room for it.
    HandedOver,
}

/// One worker in a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Its CPU.
    pub(crate) cpu: u32,
    /// Its CPU time in cycles of the time stamp counter, per packet that all of them sent.
    pub(crate) cycles: f64,
    /// Its share of its CPU.
    pub(crate) share: f64,
    fare: Fare,
}

/// The result of a window.
#[derive(Clone, Debug)]
pub(crate) struct CrewWindow {
    /// Frames received, in millions per second.
    pub(crate) offered: f64,
    /// Frames sent.
    pub(crate) mpps: f64,
    /// Time stamp counter cycles on the wall clock per frame sent.
    pub(crate) wall_cycles: f64,
    /// Of the received frames, the share that was handed over and arrived.
    pub(crate) handed: f64,
    /// Of the received frames, the share that found no room on the way to the other worker.
    pub(crate) no_room: f64,
    pub(crate) members: Vec<Member>,
}

impl CrewWindow {
    /// Whether the workers had their CPUs to themselves, as far as the rig lets them.
    pub(crate) fn clean(&self) -> bool {
        let calm = |m: &Member| match m.cpu {
            CONTROL_CPU => m.fare.stolen <= STEAL_MAX,
            _ => m.fare.clean(),
        };
        self.members.iter().all(calm)
    }

    /// CPU time of all workers per frame sent.
    pub(crate) fn cpu_cycles(&self) -> f64 {
        self.members.iter().map(|m| m.cycles).sum()
    }
}

struct Reading {
    at: Instant,
    counters: Counters,
    usages: Vec<Usage>,
}

impl Reading {
    fn take(running: &mut dyn Running, threads: &[Thread]) -> Result<Self, Failure> {
        let before = Instant::now();
        let counters = running.counters()?;
        let at = before + before.elapsed() / 2;
        let usages = threads.iter().map(Thread::usage).collect::<Result<_, _>>()?;
        Ok(Self { at, counters, usages })
    }
}

/// Starts `program`, waits until its table holds the offered conns, measures it and ends it.
pub(crate) fn measure(
    program: Program,
    plan: &Plan<'_>,
    way: Way,
    length: Length,
    tsc_hz: f64,
) -> Result<CrewWindow, Failure> {
    let mut running = program.start(plan)?;
    let log = running.log().to_path_buf();
    let name = format!("{program} {}, {} conns", plan.workload, plan.conns);
    let cpus = plan.cpus();
    let tracks = program.tracks(plan.workload);
    let ready = |running: &mut dyn Running| -> Result<bool, Failure> {
        let all = !tracks || running.conns()? == plan.conns as u64;
        Ok(all && running.counters()?.tx > 0)
    };
    let what = format!("{name}: not all conns are there");
    wait_until(Duration::from_secs(10), what, &log, || ready(running.as_mut()))?;
    pause(length.warm_up)?;
    let threads: Vec<Thread> =
        cpus.iter().map(|&cpu| Thread::forwarding(running.pid(), cpu)).collect::<Result<_, _>>()?;
    let mut tries = 0;
    loop {
        let first = Reading::take(running.as_mut(), &threads)?;
        pause(length.window)?;
        let last = Reading::take(running.as_mut(), &threads)?;
        let failed = |reason: String| {
            let reason = format!("{reason}; see {}", log.display());
            Failure::Work { program: name.clone(), reason }
        };
        check(way, &first.counters, &last.counters).map_err(failed)?;
        let window = evaluate(&first, &last, &cpus, tsc_hz);
        if window.clean() || tries == length.retries {
            let conns = running.conns()?;
            if tracks && conns != plan.conns as u64 {
                return Err(failed(format!("{conns} conns in the table")));
            }
            return Ok(window);
        }
        tries += 1;
    }
}

fn evaluate(first: &Reading, last: &Reading, cpus: &[u32], tsc_hz: f64) -> CrewWindow {
    let seconds = last.at.duration_since(first.at).as_secs_f64();
    let grown = |of: fn(&Counters) -> u64| (of(&last.counters) - of(&first.counters)) as f64;
    let (received, sent) = (grown(|c| c.rx), grown(|c| c.tx));
    let member = |(&cpu, (before, after)): (&u32, (&Usage, &Usage))| {
        let fare = Fare::between(*before, *after, seconds);
        let ran = fare.ran_ns as f64 / 1e9;
        Member { cpu, cycles: ran * tsc_hz / sent, share: ran / seconds, fare }
    };
    CrewWindow {
        offered: received / seconds / 1e6,
        mpps: sent / seconds / 1e6,
        wall_cycles: seconds * tsc_hz / sent,
        handed: grown(|c| c.handed) / received,
        no_room: grown(|c| c.no_room) / received,
        members: cpus.iter().zip(first.usages.iter().zip(&last.usages)).map(member).collect(),
    }
}

/// Whether every frame went the way it was to go.
fn check(way: Way, first: &Counters, last: &Counters) -> Result<(), String> {
    let grown = |of: fn(&Counters) -> u64| of(last).saturating_sub(of(first));
    let (received, sent, dropped) = (grown(|c| c.rx), grown(|c| c.tx), grown(|c| c.dropped));
    let (handed, no_room) = (grown(|c| c.handed), grown(|c| c.no_room));
    let slack = received as f64 * SKEW_MAX;
    if sent == 0 {
        return Err("nothing came out of a window".to_owned());
    }
    if dropped.abs_diff(no_room) as f64 > slack {
        return Err(format!("{dropped} frames dropped, {no_room} of them on the way"));
    }
    if received.abs_diff(sent + no_room) as f64 > slack {
        return Err(format!("{received} frames in, {sent} out, {no_room} dropped on the way"));
    }
    match way {
        Way::Direct if handed + dropped > 0 => {
            Err(format!("{handed} frames handed over, {dropped} dropped"))
        }
        Way::HandedOver if received.abs_diff(handed + no_room) as f64 > slack => {
            Err(format!("{received} frames in, {handed} handed over, {no_room} dropped on the way"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_must_go_the_way_that_is_measured() {
        let none = Counters::default();
        let direct = Counters { rx: 10_000, tx: 10_000, ..none };
        assert!(check(Way::Direct, &none, &direct).is_ok());
        assert!(check(Way::HandedOver, &none, &direct).is_err());
        let over = Counters { handed: 10_000, ..direct };
        assert!(check(Way::HandedOver, &none, &over).is_ok());
        assert!(check(Way::Direct, &none, &over).is_err());
        let lossy = Counters { tx: 9_000, handed: 9_000, no_room: 1_000, dropped: 1_000, ..direct };
        assert!(check(Way::HandedOver, &none, &lossy).is_ok());
        assert!(check(Way::Direct, &none, &lossy).is_err());
        // Dropped for another reason, or lost without one.
        assert!(check(Way::HandedOver, &none, &Counters { dropped: 1_500, ..lossy }).is_err());
        assert!(check(Way::HandedOver, &none, &Counters { tx: 8_000, ..lossy }).is_err());
        assert!(check(Way::Direct, &none, &none).is_err());
    }

    #[test]
    fn each_worker_s_time_is_per_packet_of_all() {
        let at = Instant::now();
        let (rx, tx, handed, no_room) = (11_000_000, 10_000_000, 10_000_000, 1_000_000);
        let counters = Counters { rx, tx, handed, no_room, dropped: no_room };
        let usage = |ran_ns| Usage { ran_ns, ticks: 100, ..Usage::default() };
        let none = vec![Usage::default(); 2];
        let first = Reading { at, counters: Counters::default(), usages: none };
        let usages = vec![usage(1_000_000_000), usage(500_000_000)];
        let last = Reading { at: at + Duration::from_secs(1), counters, usages };
        let window = evaluate(&first, &last, &[1, 0], 2e9);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(window.mpps, 10.0) && near(window.offered, 11.0));
        assert!(near(window.wall_cycles, 200.0) && near(window.cpu_cycles(), 300.0));
        assert!(near(window.members[1].cycles, 100.0) && near(window.members[1].share, 0.5));
        assert!(near(window.no_room, 1.0 / 11.0) && near(window.handed, 10.0 / 11.0));
        assert!(window.clean());
    }
}
