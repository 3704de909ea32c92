//! The memory's own limit: cache lines from random places, K chains at once.
//!
//! Each line holds the number of the next one, in one circle through all of them in random order;
//! K walkers start at equal distances on it. One chain shows the latency, many what one core can
//! fetch in parallel: nobody looks conns up faster than two such lines for each allow, the bucket's
//! and the record's.

use dataplane::arch::{HugeSlice, Line};
use std::sync::atomic::Ordering::Relaxed;

use super::clock::Moment;
use super::gateway::broken;
use super::picks::Picks;
use crate::process::Failure;

/// Lines in one circle.
pub(crate) struct Circle {
    lines: HugeSlice<Line>,
}

impl Circle {
    /// A circle through that many lines of memory.
    pub(crate) fn new(lines: u32, seed: u64) -> Result<Circle, Failure> {
        let memory = HugeSlice::new(lines as usize, Line::default);
        let memory = memory.map_err(|e| broken("memory")(&e))?;
        // Sattolo's shuffle gives one circle, never several.
        let mut order: Vec<u32> = (0..lines).collect();
        for at in (1..lines as usize).rev() {
            order.swap(at, Picks::uniform(at as u32, seed ^ at as u64).next() as usize);
        }
        for (line, next) in memory.iter().zip(&order) {
            line.0[0].store(u64::from(*next), Relaxed);
        }
        Ok(Circle { lines: memory })
    }

    /// Nanoseconds for each line, with `K` chains of `steps` lines.
    pub(crate) fn walk<const K: usize>(&self, steps: u64) -> f64 {
        // Anywhere on the circle is as good as at equal distances: it is random.
        let mut at: [usize; K] = std::array::from_fn(|k| k * self.lines.len() / K);
        let start = Moment::now();
        for _ in 0..steps {
            for at in &mut at {
                *at = self.lines.get(*at).map_or(0, |line| line.0[0].load(Relaxed) as usize);
            }
        }
        let passed = start.passed();
        std::hint::black_box(at);
        passed.ns_each(steps * K as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_circle_goes_through_all_lines() {
        let circle = Circle::new(1000, 1).unwrap();
        let (mut at, mut steps) = (0, 0);
        loop {
            at = circle.lines[at].0[0].load(Relaxed) as usize;
            steps += 1;
            if at == 0 {
                break;
            }
        }
        assert_eq!(steps, 1000);
        assert!(circle.walk::<4>(1000) > 0.0);
    }
}
