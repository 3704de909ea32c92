//! A window's two clocks, and the CPU of a thread.
//!
//! A thread that polls counts other people's time while it waits for its CPU, so figures go by the
//! CPU time of the thread; the wall clock says how far to trust it.

use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::process::Failure;

/// Share of its time that a thread must have had its CPU for a clean window.
const CLEAN: f64 = 0.95;

/// Puts the calling thread on one CPU.
pub(crate) fn pin(cpu: u32) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    let pinned = set
        .set(cpu as usize)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(std::io::Error::from);
    pinned.map_err(Failure::io(format!("CPU {cpu}")))
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    wall: Instant,
    cpu: Duration,
}

impl Moment {
    /// Now, for the calling thread.
    pub(crate) fn now() -> Moment {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        Moment { wall: Instant::now(), cpu: cpu.unwrap_or_default() }
    }

    /// What has passed since, on this same thread.
    pub(crate) fn passed(self) -> Passed {
        let now = Moment::now();
        Passed { wall: now.wall - self.wall, cpu: now.cpu.saturating_sub(self.cpu) }
    }
}

/// Time that a thread took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Passed {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl Passed {
    /// Nanoseconds of CPU time for each of `count`.
    pub(crate) fn ns_each(self, count: u64) -> f64 {
        self.cpu.as_nanos() as f64 / count.max(1) as f64
    }

    /// Whether the thread had its CPU nearly all the time.
    pub(crate) fn clean(self) -> bool {
        self.cpu.as_secs_f64() >= CLEAN * self.wall.as_secs_f64()
    }
}

/// What a reader must know of so many clean windows.
pub(crate) fn clean_windows(windows: &[Passed]) -> String {
    let clean = windows.iter().filter(|passed| passed.clean()).count();
    if clean == windows.len() {
        return String::new();
    }
    format!("{clean} of {} windows had their CPU to themselves", windows.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_sleeps_is_not_clean_and_one_that_works_takes_time() {
        let start = Moment::now();
        std::thread::sleep(Duration::from_millis(20));
        let slept = start.passed();
        assert!(!slept.clean() && slept.wall >= Duration::from_millis(20));
        let start = Moment::now();
        let mut sum = 0u64;
        while start.passed().cpu < Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        let worked = start.passed();
        assert!(worked.ns_each(1000) >= 2000.0 && slept.cpu < worked.cpu);
        assert_eq!(clean_windows(&[slept]), "0 of 1 windows had their CPU to themselves");
    }
}
