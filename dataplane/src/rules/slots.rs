//! Places by key: which slot of a table of fixed size is a key's.
//!
//! For matches that keep something by address. A key is known by its tag, a keyed hash of 64 bits:
//! two keys of one tag would share a slot, which among a million keys has a chance of one in
//! thirty millions, and nobody outside can bring it about. A tag has two buckets of [`WAYS`] slots
//! where it may stand, chosen by its two halves; a search looks at both, no more. There are twice
//! as many slots as keys are allowed, so both are full only in tables that are.
//!
//! Tags change by compare-and-swap alone. Two workers that bring in one key at once may take two
//! slots; whoever sees that gives its own up, so that for one packet it may use a slot that nobody
//! finds again. What lies in a slot is its match's business: it has to know by
//! itself that a slot's content is not this key's.

use core::hash::BuildHasher;
use std::collections::hash_map::RandomState;

use super::kept::{Apart, TRIES};
use crate::arch::sync::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Slots of a bucket: a cache line of tags.
const WAYS: usize = 8;

/// Slots that who finds the table full looks at for ones whose time is over.
const SWEEP: usize = 64;

/// Tags of keys, 0 where there is none.
#[derive(Debug)]
pub(super) struct Slots {
    tags: Box<[AtomicU64]>,
    keyed: RandomState,
    used: AtomicU32,
    /// Keys that there may be.
    max: u32,
    /// Where the next sweep begins.
    next: AtomicU32,
}

impl Apart for Slots {
    fn apart(&self) -> Slots {
        Slots {
            tags: self.tags.iter().map(Apart::apart).collect(),
            keyed: self.keyed.clone(),
            used: AtomicU32::new(self.used.load(Relaxed)),
            max: self.max,
            next: AtomicU32::new(self.next.load(Relaxed)),
        }
    }

    fn forget(&self) {
        if self.used() > 0 {
            (0..self.len()).for_each(|slot| _ = self.release(slot, self.at(slot)));
        }
    }
}

impl Slots {
    /// Room for `max` keys.
    pub(super) fn new(max: u32) -> Slots {
        let buckets = (max as usize * 2 / WAYS).next_power_of_two().max(2);
        Slots {
            tags: (0..buckets * WAYS).map(|_| AtomicU64::new(0)).collect(),
            keyed: RandomState::new(),
            used: AtomicU32::new(0),
            max,
            next: AtomicU32::new(0),
        }
    }

    /// Slots there are; they are numbered from 0.
    pub(super) fn len(&self) -> usize {
        self.tags.len()
    }

    /// A key's tag.
    #[inline]
    pub(super) fn tag<const N: usize>(&self, key: [u64; N]) -> u64 {
        self.keyed.hash_one(key).max(1)
    }

    /// The tag in a slot, 0 for none.
    #[inline]
    pub(super) fn at(&self, slot: usize) -> u64 {
        self.tags.get(slot).map_or(0, |tag| tag.load(Acquire))
    }

    /// The slots where a tag may stand.
    #[inline]
    fn places(&self, tag: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.tags.len() / WAYS - 1;
        let buckets = [tag as usize & mask, (tag >> 32) as usize & mask];
        buckets.into_iter().flat_map(|bucket| bucket * WAYS..(bucket + 1) * WAYS)
    }

    /// A tag's slot.
    #[inline]
    pub(super) fn find(&self, tag: u64) -> Option<usize> {
        self.places(tag).find(|&slot| self.at(slot) == tag)
    }

    /// A slot for a tag that has none: one that is free, or whose content is `gone`. `None` if
    /// there are `max` keys, or none of its places is free.
    #[cold]
    pub(super) fn claim(&self, tag: u64, gone: impl Fn(usize) -> bool) -> Option<usize> {
        for _ in 0..TRIES {
            let mut places = self.places(tag);
            let slot = places.find(|&slot| self.at(slot) != 0 && gone(slot));
            let slot = slot.or_else(|| self.emptier(tag))?;
            let old = self.at(slot);
            if old == 0 && self.used.fetch_add(1, Relaxed) >= self.max {
                self.used.fetch_sub(1, Relaxed);
                if self.sweep(&gone) {
                    continue;
                }
                return None;
            }
            let tags = self.tags.get(slot)?;
            if tags.compare_exchange(old, tag, AcqRel, Relaxed).is_err() {
                if old == 0 {
                    self.used.fetch_sub(1, Relaxed);
                }
                // Who was faster may have brought in the same key.
                match self.find(tag) {
                    Some(slot) => return Some(slot),
                    None => continue,
                }
            }
            // Or has brought it in elsewhere, and may have used it since.
            let other = self.places(tag).find(|&place| place != slot && self.at(place) == tag);
            if other.is_some() {
                self.release(slot, tag);
            }
            return Some(other.unwrap_or(slot));
        }
        None
    }

    /// A free slot in that of the two buckets which has more of them.
    fn emptier(&self, tag: u64) -> Option<usize> {
        let free = |slot: &usize| self.at(*slot) == 0;
        let mut first = self.places(tag).take(WAYS).filter(free);
        let mut second = self.places(tag).skip(WAYS).filter(free);
        match (first.next(), second.next()) {
            (Some(a), Some(b)) => Some(if first.count() >= second.count() { a } else { b }),
            (a, b) => a.or(b),
        }
    }

    /// Gives a slot up, if it is still that tag's; false if it was not.
    pub(super) fn release(&self, slot: usize, tag: u64) -> bool {
        let held = |place: &AtomicU64| place.compare_exchange(tag, 0, AcqRel, Relaxed).is_ok();
        let released = tag != 0 && self.tags.get(slot).is_some_and(held);
        if released {
            self.used.fetch_sub(1, Relaxed);
        }
        released
    }

    /// Frees slots whose content is `gone`, of a few that have not been looked at for long.
    fn sweep(&self, gone: impl Fn(usize) -> bool) -> bool {
        let start = self.next.fetch_add(SWEEP as u32, Relaxed) as usize;
        let mut freed = false;
        for slot in (start..start + SWEEP).map(|slot| slot & (self.tags.len() - 1)) {
            let tag = self.at(slot);
            freed |= tag != 0 && gone(slot) && self.release(slot, tag);
        }
        freed
    }

    /// Keys there are.
    pub(super) fn used(&self) -> u32 {
        self.used.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::thread;

    use super::*;

    #[test]
    fn every_key_finds_its_own_slot_until_there_are_too_many() {
        let slots = Slots::new(1000);
        let never = |_| false;
        let mut taken = HashMap::new();
        for key in 0..1000u64 {
            let tag = slots.tag([key, 7]);
            assert_eq!(slots.find(tag), None);
            let slot = slots.claim(tag, never).unwrap();
            assert_eq!(taken.insert(slot, tag), None);
        }
        assert_eq!((slots.used(), slots.claim(slots.tag([5000, 7]), never)), (1000, None));
        assert!(taken.iter().all(|(&slot, &tag)| slots.find(tag) == Some(slot)));
        let (&slot, &tag) = taken.iter().next().unwrap();
        assert!(slots.release(slot, tag) && !slots.release(slot, tag));
        assert_eq!((slots.used(), slots.find(tag)), (999, None));
        assert!(slots.claim(slots.tag([5000, 7]), never).is_some());
    }

    #[test]
    fn what_is_gone_makes_room() {
        let slots = Slots::new(64);
        for key in 0..64u64 {
            assert!(slots.claim(slots.tag([key]), |_| false).is_some());
        }
        for key in 64..1000u64 {
            assert!(slots.claim(slots.tag([key]), |_| true).is_some(), "{key}");
            assert!(slots.used() <= 64);
        }
    }

    #[test]
    fn workers_that_bring_in_the_same_keys_agree_in_the_end() {
        let slots = Slots::new(4096);
        let bring = || {
            for key in 0..2000u64 {
                let tag = slots.tag([key]);
                slots.find(tag).or_else(|| slots.claim(tag, |_| false)).unwrap();
            }
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(bring))));
        // Two that gave way to each other have left none.
        bring();
        assert!((0..2000u64).all(|key| slots.find(slots.tag([key])).is_some()));
        let full = (0..slots.len()).filter(|&slot| slots.at(slot) != 0).count();
        assert_eq!(full as u32, slots.used());
        assert!((2000..2100).contains(&full), "{full}");
    }
}
