//! Which lcores write which cache lines: atomics of the same size and layout as core's that note
//! their writes while a recorder of their thread is on.
//!
//! For a simulator that runs several lcores in turn on one thread and says before each turn whose
//! it is. A line that two lcores write moves between their caches; the aim of the whole memory
//! layout is that a packet of a known conn writes no such line. A load and a compare-and-swap
//! that failed are no writes. Off by default (feature `count-lines`): with it a write costs a look
//! at a thread-local cell.

use core::cell::RefCell;
use core::sync::atomic::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a cache line.
pub const LINE: usize = 64;

/// What was written between [`start`] and [`stop`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// The lcores that wrote a line, by the line's number (address / 64).
    pub written: BTreeMap<usize, BTreeSet<u8>>,
}

impl Lines {
    /// Lines that more than one lcore has written.
    pub fn shared(&self) -> usize {
        self.written.values().filter(|lcores| lcores.len() > 1).count()
    }
}

#[derive(Default)]
struct Recorder {
    lcore: u8,
    lines: Lines,
}

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// Notes the writes of this thread from now on, as lcore 0 until told otherwise. What an earlier
/// recorder had noted is forgotten.
pub fn start() {
    RECORDER.set(Some(Recorder::default()));
}

/// The writes that follow are those of lcore `number`. Without effect while nothing is recorded.
pub fn as_lcore(number: u8) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            recorder.lcore = number;
        }
    });
}

/// Ends the recording; empty if there was none.
pub fn stop() -> Lines {
    RECORDER.take().map(|recorder| recorder.lines).unwrap_or_default()
}

fn note<T>(word: &T) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(Recorder { lcore, lines }) = recorder {
            let line = core::ptr::from_ref(word).addr() / LINE;
            lines.written.entry(line).or_default().insert(*lcore);
        }
    });
}

macro_rules! noted {
    ($name:ident, $value:ty) => {
        /// As core's type of this name; writes are noted.
        #[repr(transparent)]
        #[derive(Debug, Default)]
        pub struct $name(core::sync::atomic::$name);

        impl $name {
            /// A word that holds `value`.
            pub const fn new(value: $value) -> $name {
                $name(core::sync::atomic::$name::new(value))
            }

            /// Reads.
            #[inline]
            pub fn load(&self, order: Ordering) -> $value {
                self.0.load(order)
            }

            /// Writes.
            #[inline]
            pub fn store(&self, value: $value, order: Ordering) {
                note(self);
                self.0.store(value, order);
            }

            /// Writes if the word still holds `current`.
            #[inline]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange(current, new, success, failure).inspect(|_| note(self))
            }

            /// As [`Self::compare_exchange`]; may fail for no reason.
            #[inline]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.0.compare_exchange_weak(current, new, success, failure).inspect(|_| note(self))
            }

            /// Writes what `step` makes of the value, until nobody else wrote meanwhile or `step`
            /// gives nothing.
            #[inline]
            pub fn fetch_update(
                &self,
                set: Ordering,
                fetch: Ordering,
                step: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                self.0.fetch_update(set, fetch, step).inspect(|_| note(self))
            }

            noted!(@returns $value, swap fetch_add fetch_sub fetch_and fetch_or);
            noted!(@returns $value, fetch_max fetch_min);
        }
    };
    (@returns $value:ty, $($method:ident)*) => {
        $(
            /// As core's method of this name; a write.
            #[inline]
            pub fn $method(&self, value: $value, order: Ordering) -> $value {
                note(self);
                self.0.$method(value, order)
            }
        )*
    };
}

noted!(AtomicU16, u16);
noted!(AtomicU32, u32);
noted!(AtomicU64, u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Line;
    use Ordering::Relaxed;

    fn line(words: &Line) -> usize {
        core::ptr::from_ref(words).addr() / LINE
    }

    #[test]
    fn each_write_is_noted_with_its_line_and_lcore_and_no_read_is() {
        let lines: [Line; 4] = Default::default();
        lines[0].0[0].store(1, Relaxed);
        start();
        lines[0].0[0].load(Relaxed);
        assert!(lines[1].0[7].compare_exchange(9, 1, Relaxed, Relaxed).is_err());
        assert!(lines[1].0[7].fetch_update(Relaxed, Relaxed, |_| None).is_err());
        lines[2].0[3].store(1, Relaxed);
        lines[2].0[4].fetch_add(1, Relaxed);
        as_lcore(3);
        lines[2].0[7].swap(1, Relaxed);
        assert!(lines[3].0[0].compare_exchange(0, 1, Relaxed, Relaxed).is_ok());
        let noted = stop();
        let wanted = [(line(&lines[2]), BTreeSet::from([0, 3])), (line(&lines[3]), [3].into())];
        assert_eq!(noted.written, BTreeMap::from(wanted));
        assert_eq!(noted.shared(), 1);
    }

    #[test]
    fn only_what_happens_between_start_and_stop_counts() {
        as_lcore(1);
        AtomicU32::new(0).store(1, Relaxed);
        assert_eq!(stop(), Lines::default());
        start();
        AtomicU32::new(0).store(1, Relaxed);
        start();
        assert_eq!(stop(), Lines::default());
    }

    #[test]
    fn layouts_are_those_of_core() {
        use core::sync::atomic;
        assert_eq!(size_of::<AtomicU32>(), size_of::<atomic::AtomicU32>());
        assert_eq!(align_of::<AtomicU64>(), align_of::<atomic::AtomicU64>());
    }
}
