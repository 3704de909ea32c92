//! A lock for the few tables that lcores change together and seldom: it spins, for a while.
//!
//! Whoever holds one does bounded work, calls nobody and waits for nothing, so waiting is over
//! within microseconds; the bound is reached only if the holder was stopped in the middle. Then
//! the caller gets nothing, and says in its own way what that means.

#[cfg(not(loom))]
use core::cell::UnsafeCell;
#[cfg(loom)]
use loom::cell::UnsafeCell;

use super::sync::Ordering::{Acquire, Relaxed, Release};
use super::sync::{AtomicU32, spin_loop};

/// How often a held lock is tried again (some milliseconds).
const TRIES: u32 = if cfg!(loom) { 2 } else { 1 << 16 };

/// A value that one thread at a time may use.
#[derive(Debug)]
pub struct Spin<T> {
    lock: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through `with` alone, by the thread that changed `lock` from 0 to 1
// and before it stores 0 again; acquire and release order one holder's accesses before the next
// one's. The value moves between threads that way, hence `Send`; nobody gets to share it.
unsafe impl<T: Send> Sync for Spin<T> {}

/// Lets go also where the work ends early.
struct Held<'a>(&'a AtomicU32);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(0, Release);
    }
}

impl<T> Spin<T> {
    /// Nobody's.
    pub fn new(value: T) -> Spin<T> {
        Spin { lock: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Does `work` on the value while nobody else can; `None`, and nothing done, if the lock stayed
    /// with another. `work` must not come back here.
    pub fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> Option<R> {
        let held = self.take()?;
        #[cfg(not(loom))]
        // SAFETY: this thread holds the lock, so no other reference to the value exists.
        let done = work(unsafe { &mut *self.value.get() });
        #[cfg(loom)]
        // SAFETY: as above; loom checks that it is so.
        let done = self.value.with_mut(|value| work(unsafe { &mut *value }));
        drop(held);
        Some(done)
    }

    fn take(&self) -> Option<Held<'_>> {
        for _ in 0..TRIES {
            if self.lock.load(Relaxed) == 0
                && self.lock.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
            {
                return Some(Held(&self.lock));
            }
            spin_loop();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_a_held_one_refuses_within_a_bound() {
        let spin = Spin::new(1);
        assert_eq!(spin.with(|value| std::mem::replace(value, 2)), Some(1));
        assert_eq!(spin.with(|_| spin.with(|value| *value)), Some(None));
        assert_eq!(spin.with(|value| *value), Some(2), "let go again");
    }

    #[test]
    fn threads_do_not_lose_each_others_changes() {
        let spin = Spin::new(0u64);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < 5000 {
                        match spin.with(|value| *value += 1) {
                            Some(()) => done += 1,
                            None => std::thread::yield_now(),
                        }
                    }
                });
            }
        });
        assert_eq!(spin.with(|value| *value), Some(15_000));
    }
}
