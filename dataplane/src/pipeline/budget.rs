//! How many ICMP errors the gateway may send: one budget for all lcores.
//!
//! A token bucket in one atomic word, refilled by the tick (`icmp_msgs_per_sec`,
//! `icmp_msgs_burst`). Only packets that are answered with an error touch it.

use crate::arch::sync::AtomicU64;
use crate::arch::sync::Ordering::Relaxed;
use crate::pipeline::frame::BURST_MAX;
use crate::time::{TICKS_PER_SEC, Tick};

/// Errors per second.
const PER_SEC: u32 = 1000;
/// Errors at once.
const AT_ONCE: u32 = 50;

const _: () = assert!(BURST_MAX as u32 >= AT_ONCE, "one burst may use the whole budget");

/// How often a race is tried again; who loses that often sends nothing.
const TRIES: u32 = 8;

/// The budget.
#[derive(Debug)]
pub struct ErrorBudget {
    /// When it was last filled (tick, upper half) and what is left.
    word: AtomicU64,
}

impl Default for ErrorBudget {
    fn default() -> ErrorBudget {
        ErrorBudget::new(Tick(0), AT_ONCE)
    }
}

impl ErrorBudget {
    fn new(at: Tick, left: u32) -> ErrorBudget {
        ErrorBudget { word: AtomicU64::new(word(at, left)) }
    }

    /// Takes one error's worth; false if nothing is left.
    pub fn take(&self, now: Tick) -> bool {
        for _ in 0..TRIES {
            let old = self.word.load(Relaxed);
            let (mut at, mut left) = (Tick((old >> 32) as u32), old as u32);
            let passed = now.0.wrapping_sub(at.0);
            // Another lcore's tick may be a little ahead of ours: nothing is gained then.
            let passed = if passed > u32::MAX - TICKS_PER_SEC { 0 } else { passed };
            let gained = passed.saturating_mul(PER_SEC / TICKS_PER_SEC);
            if gained > 0 {
                (at, left) = (now, left.saturating_add(gained).min(AT_ONCE));
            }
            if left == 0 {
                return false;
            }
            let new = word(at, left - 1);
            if self.word.compare_exchange(old, new, Relaxed, Relaxed).is_ok() {
                return true;
            }
        }
        false
    }
}

fn word(at: Tick, left: u32) -> u64 {
    (at.0 as u64) << 32 | left as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_allows_a_burst_and_then_a_thousand_a_second() {
        let budget = ErrorBudget::default();
        let mut granted = 0;
        for _ in 0..200 {
            granted += budget.take(Tick(0)) as u32;
        }
        assert_eq!(granted, AT_ONCE);
        for tick in 1..=100 {
            for _ in 0..200 {
                granted += budget.take(Tick(tick)) as u32;
            }
        }
        assert_eq!(granted, AT_ONCE + PER_SEC);
        assert!(!budget.take(Tick(99)), "an lcore that is behind gains nothing");
    }

    #[test]
    fn the_budget_outlives_the_wrap_of_the_clock() {
        assert!(ErrorBudget::new(Tick(u32::MAX), 0).take(Tick(0)));
    }
}
