//! The process' clock: one origin for all lcores and the control core.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataplane::time::{Now, TICKS_PER_SEC, Tick};

/// Reads the monotonic clock for ticks and adds it to the wall clock taken at start, so that one
/// read serves both. Cheap enough for once per burst.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    unix_ns: u64,
}

impl Clock {
    /// A clock whose tick 0 is now.
    pub fn start() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Clock { origin: Instant::now(), unix_ns: wall.as_nanos() as u64 }
    }

    /// The present.
    pub fn now(&self) -> Now {
        let past = self.origin.elapsed();
        let tick = past.as_nanos() / (1_000_000_000 / TICKS_PER_SEC as u128);
        Now { tick: Tick(tick as u32), unix_ns: self.unix_ns + past.as_nanos() as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_wall_clock_move_together() {
        let clock = Clock::start();
        let a = clock.now();
        std::thread::sleep(Duration::from_millis(30));
        let b = clock.now();
        let (ticks, ns) = (b.tick.0 - a.tick.0, b.unix_ns - a.unix_ns);
        assert!(ns >= 30_000_000);
        assert!((ticks as i64 - (ns / 10_000_000) as i64).abs() <= 1, "{ticks} {ns}");
    }
}
