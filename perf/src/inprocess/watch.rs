//! A gateway's time: the machine's, but it can be set forward, and the control core's can stand
//! still.
//!
//! Set forward, conns end when a benchmark wants them to, however long it took to open them. While
//! the control core's time stands, nothing is swept: the same moments can be had with and without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use dataplane::time::{Now, TICKS_PER_SEC, Tick};
use sluicegate::clock::Clock;

/// Clones show the same time.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    clock: Clock,
    /// When it was made, as the clock says it.
    start_ns: u64,
    set: Arc<Set>,
}

#[derive(Debug, Default)]
struct Set {
    /// Nanoseconds that it was set forward by.
    ahead: AtomicU64,
    /// Nanoseconds that the control core's time has stood, without the present time.
    behind: AtomicU64,
    /// When it stopped, in nanoseconds from the start, and one more; 0 while it goes.
    stopped: AtomicU64,
}

impl Watch {
    /// Tick 0 is now.
    pub(crate) fn start() -> Watch {
        let clock = Clock::start();
        Watch { clock, start_ns: clock.now().unix_ns, set: Arc::default() }
    }

    fn passed_ns(&self) -> u64 {
        self.clock.now().unix_ns - self.start_ns
    }

    fn at(&self, passed_ns: u64) -> Now {
        let ns = passed_ns + self.set.ahead.load(Relaxed);
        let tick = ns / (1_000_000_000 / u64::from(TICKS_PER_SEC));
        Now { tick: Tick(tick as u32), unix_ns: self.start_ns + ns }
    }

    /// The worker's time.
    #[inline]
    pub(crate) fn now(&self) -> Now {
        self.at(self.passed_ns())
    }

    /// The control core's time.
    pub(crate) fn control_now(&self) -> Now {
        let passed = match self.set.stopped.load(Relaxed) {
            0 => self.passed_ns(),
            stopped => stopped - 1,
        };
        self.at(passed.saturating_sub(self.set.behind.load(Relaxed)))
    }

    /// Sets it forward for all.
    pub(crate) fn forward(&self, by: Duration) {
        self.set.ahead.fetch_add(by.as_nanos() as u64, Relaxed);
    }

    /// The control core's time stands from now on.
    pub(crate) fn stop_control(&self) {
        let _ = self.set.stopped.compare_exchange(0, self.passed_ns() + 1, Relaxed, Relaxed);
    }

    /// It goes on from where it stood.
    pub(crate) fn let_control_go(&self) {
        let stopped = self.set.stopped.load(Relaxed);
        if stopped > 0 {
            self.set.behind.fetch_add(self.passed_ns().saturating_sub(stopped - 1), Relaxed);
            self.set.stopped.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_core_s_time_stands_and_goes_on_where_it_stood() {
        let watch = Watch::start();
        watch.stop_control();
        let stood = watch.control_now();
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(watch.control_now().unix_ns, stood.unix_ns);
        assert!(watch.now().unix_ns >= stood.unix_ns + 30_000_000);
        watch.let_control_go();
        let on = watch.control_now().unix_ns - stood.unix_ns;
        assert!(on < watch.now().unix_ns - stood.unix_ns - 25_000_000);
        let (before, control) = (watch.now(), watch.control_now());
        watch.forward(Duration::from_secs(300));
        assert!(watch.now().tick.0 - before.tick.0 >= 300 * TICKS_PER_SEC);
        assert!(watch.control_now().tick.0 - control.tick.0 >= 300 * TICKS_PER_SEC);
    }
}
