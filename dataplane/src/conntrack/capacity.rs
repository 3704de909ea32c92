//! The limit on conns (`nf_conntrack_max`), exact for any number of lcores.
//!
//! A conn, confirmed or not, costs one credit. Credits are taken from the pool in blocks and kept
//! in a spare counter per lcore, so that the pool's line moves once per block. When the pool is
//! empty an lcore collects every lcore's spares before it says "full": the limit is met to the
//! conn, also when the credits lie with lcores that need none. Each spare counter is on a line of
//! its own; its owner's update is an atomic operation that nobody else contends for.
//!
//! Lowering the limit deletes nothing. Until enough conns have gone, new ones find it full.
//!
//! What happens then is told here too: others make room, as in the kernel, or the new conn is
//! refused (RFC 6888, REQ-11). The control core alone sets both.

use crate::arch::sync::Ordering::Relaxed;
use crate::arch::sync::{AtomicBool, AtomicU32};

#[derive(Debug, Default)]
#[repr(align(64))]
struct Spare(AtomicU32);

/// The pool and what each lcore has taken from it in advance.
#[derive(Debug)]
pub struct Capacity {
    max: AtomicU32,
    block: AtomicU32,
    /// Credits outside the pool: conns plus spares.
    taken: AtomicU32,
    spares: Box<[Spare]>,
    refuses: AtomicBool,
}

impl Capacity {
    /// A limit of `max` conns for lcores numbered from 0 to `lcores - 1`.
    pub fn new(max: u32, lcores: u8) -> Capacity {
        let spares: Box<[Spare]> = (0..lcores.max(1)).map(|_| Spare::default()).collect();
        let block = AtomicU32::new(block(max, spares.len()));
        Capacity {
            max: AtomicU32::new(max),
            block,
            taken: AtomicU32::new(0),
            spares,
            refuses: AtomicBool::new(false),
        }
    }

    /// The limit.
    pub fn max(&self) -> u32 {
        self.max.load(Relaxed)
    }

    /// Changes the limit, live.
    pub fn set_max(&self, max: u32) {
        self.block.store(block(max, self.spares.len()), Relaxed);
        self.max.store(max, Relaxed);
    }

    /// True if no conn has to go for a new one.
    pub fn refuses(&self) -> bool {
        self.refuses.load(Relaxed)
    }

    /// Says what happens at the limit, live.
    pub fn set_refuses(&self, refuses: bool) {
        self.refuses.store(refuses, Relaxed);
    }

    /// Conns now, unconfirmed ones included (`nf_conntrack_count`). Off by a block for an
    /// instant while credits move.
    pub fn count(&self) -> u32 {
        let spares: u32 = self.spares.iter().map(|s| s.0.load(Relaxed)).sum();
        self.taken.load(Relaxed).saturating_sub(spares)
    }

    /// True from 95 % of the limit on: where the sweep, once the table was full, stops making room
    /// (`nf_conntrack_max95`).
    pub fn is_pressed(&self) -> bool {
        self.count() >= self.relief()
    }

    /// Conns at which there is room enough.
    pub fn relief(&self) -> u32 {
        self.max() / 100 * 95
    }

    /// True if so many conns more, all of this lcore, may find the table full.
    #[inline]
    pub fn is_short_of(&self, lcore: u8, conns: u32) -> bool {
        let spare = self.spares.get(lcore as usize).map_or(0, |spare| spare.0.load(Relaxed));
        let pool = self.max.load(Relaxed).saturating_sub(self.taken.load(Relaxed));
        spare.saturating_add(pool) < conns
    }

    /// Takes one credit; false when the table is full.
    #[inline]
    #[must_use]
    pub fn take(&self, lcore: u8) -> bool {
        let Some(spare) = self.spares.get(lcore as usize) else { return false };
        // More taken than there is: the limit was lowered, and spares are no longer covered.
        let covered = self.taken.load(Relaxed) <= self.max.load(Relaxed);
        (covered && decrement(&spare.0)) || self.take_block(spare)
    }

    /// Gives a credit back.
    #[inline]
    pub fn give(&self, lcore: u8) {
        let Some(spare) = self.spares.get(lcore as usize) else { return };
        let keep = 2 * self.block.load(Relaxed);
        if spare.0.fetch_add(1, Relaxed) >= keep {
            self.collect(spare);
        }
    }

    #[cold]
    fn take_block(&self, mine: &Spare) -> bool {
        if self.draw(mine) {
            return true;
        }
        self.spares.iter().for_each(|spare| self.collect(spare));
        self.draw(mine)
    }

    /// One credit for now and the rest of a block for later.
    fn draw(&self, mine: &Spare) -> bool {
        let block = self.block.load(Relaxed);
        let grant = |taken: u32| block.min(self.max.load(Relaxed).saturating_sub(taken));
        let mut granted = 0;
        let step = |taken: u32| {
            granted = grant(taken);
            (granted > 0).then(|| taken + granted)
        };
        if self.taken.fetch_update(Relaxed, Relaxed, step).is_err() {
            return false;
        }
        if granted > 1 {
            mine.0.fetch_add(granted - 1, Relaxed);
        }
        true
    }

    /// Moves an lcore's spares back to the pool.
    fn collect(&self, spare: &Spare) {
        if spare.0.load(Relaxed) > 0 {
            self.taken.fetch_sub(spare.0.swap(0, Relaxed), Relaxed);
        }
    }
}

/// An lcore's helping: a sixteenth of its share, 1 to 256.
fn block(max: u32, lcores: usize) -> u32 {
    (max / (16 * lcores as u32)).clamp(1, 256)
}

#[inline]
fn decrement(spare: &AtomicU32) -> bool {
    spare.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_lcore_meets_the_limit_exactly() {
        for max in [0, 1, 10, 300, 10_000] {
            let capacity = Capacity::new(max, 1);
            for n in 0..max {
                assert_eq!(capacity.count(), n);
                assert!(capacity.take(0), "{n} of {max}");
            }
            assert!(!capacity.take(0));
            assert_eq!(capacity.count(), max);
            if max > 0 {
                capacity.give(0);
                assert!(capacity.take(0));
                assert!(!capacity.take(0));
            }
        }
    }

    #[test]
    fn what_is_left_for_an_lcore_is_its_own_and_the_pools() {
        let capacity = Capacity::new(100, 2);
        assert!(!capacity.is_short_of(0, 100) && capacity.is_short_of(0, 101));
        assert!((0..90).all(|_| capacity.take(0)));
        assert!(!capacity.is_short_of(0, 10) && capacity.is_short_of(0, 11));
        assert!((0..10).all(|_| capacity.take(0)));
        assert!(capacity.is_short_of(0, 1) && !capacity.is_short_of(0, 0));
        assert!(capacity.is_short_of(7, 1), "of no lcore");
    }

    #[test]
    fn spares_of_idle_lcores_are_collected_before_it_is_full() {
        let capacity = Capacity::new(1000, 4);
        for lcore in 0..4 {
            assert!(capacity.take(lcore));
        }
        let got = (0..2000).filter(|_| capacity.take(2)).count();
        assert_eq!(got, 996);
        assert_eq!(capacity.count(), 1000);
        capacity.give(3);
        assert!(capacity.take(0));
        assert!(!capacity.take(1));
    }

    #[test]
    fn a_lowered_limit_holds_at_once_and_a_raised_one_too() {
        let capacity = Capacity::new(1600, 1);
        assert!((0..50).all(|_| capacity.take(0)));
        capacity.set_max(52);
        assert!(capacity.take(0) && capacity.take(0));
        assert!(!capacity.take(0));
        capacity.set_max(20);
        for _ in 0..32 {
            capacity.give(0);
            assert!(!capacity.take(0));
        }
        assert_eq!(capacity.count(), 20);
        capacity.give(0);
        assert!(capacity.take(0));
        capacity.set_max(2000);
        assert_eq!((0..3000).filter(|_| capacity.take(0)).count(), 1980);
    }

    /// `nf_conntrack_max / 100u * 95u`.
    #[test]
    fn it_is_pressed_from_95_percent_on() {
        for (max, from) in [(1000, 950), (199, 95), (99, 0)] {
            let capacity = Capacity::new(max, 1);
            assert_eq!(capacity.relief(), from);
            for n in 0..max {
                assert_eq!(capacity.is_pressed(), n >= from, "{n} of {max}");
                assert!(capacity.take(0));
            }
        }
    }

    #[test]
    fn concurrent_takers_never_exceed_the_limit() {
        let capacity = Capacity::new(500, 2);
        let taken: usize = std::thread::scope(|scope| {
            let run = |lcore| {
                let capacity = &capacity;
                scope.spawn(move || {
                    let mut held = 0usize;
                    for i in 0..20_000 {
                        if i % 3 == 2 && held > 0 {
                            capacity.give(lcore);
                            held -= 1;
                        } else if capacity.take(lcore) {
                            held += 1;
                        }
                        assert!(held <= 500);
                    }
                    held
                })
            };
            [run(0), run(1)].map(|t| t.join().unwrap()).iter().sum()
        });
        assert!(taken <= 500);
        assert_eq!(capacity.count() as usize, taken);
    }
}
