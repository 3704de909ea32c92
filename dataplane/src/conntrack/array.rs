//! One array of buckets: where an entry may live in it, and how slots are claimed and emptied.
//!
//! What the bytes are and why nobody needs a lock to read or remove is said in [`super::index`],
//! whose part this is. Entries are claimed by compare-and-swap by whoever confirms or moves a conn,
//! and emptied by the conn's owner alone.

use super::index::{Due, LOCK_TRIES, PROBES, SLOTS};
use super::record::ConnRef;
use super::state::Direction;
use crate::arch;
use crate::arch::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::arch::sync::{AtomicU16, AtomicU32, AtomicU64, fence, spin_loop};
use crate::arch::{HugeSlice, OutOfMemory, prefetch_read};
use crate::time::{TICKS_PER_SEC, Tick};

#[repr(C, align(64))]
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) slots: [AtomicU64; SLOTS],
    /// 1 while somebody inserts an entry whose home this is.
    pub(super) lock: AtomicU16,
    /// Entries whose home this is and that live elsewhere: at most as many as those places hold.
    pub(super) overflow: AtomicU16,
    /// The tick until which no early drop finds anything here; 0 where nobody knows.
    barren: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

/// How long a bucket may be said to hold nothing for an early drop. A conn whose deadline is moved
/// closer than that is noticed that much later.
const BARREN_TICKS: u32 = TICKS_PER_SEC;

pub(super) const REPLY: u32 = 1 << 30;

#[inline(always)]
pub(super) fn tag(hash: u64) -> u64 {
    // 0 marks an empty slot.
    hash & 0xffff | 1
}

#[inline(always)]
pub(super) fn slot(hash: u64, due: Due, conn: ConnRef, side: Direction) -> u64 {
    let side = if side == Direction::Reply { REPLY } else { 0 };
    tag(hash) << 48 | (due.0 as u64) << 32 | (conn.bits() | side) as u64
}

#[inline(always)]
pub(super) fn entry(slot: u64) -> (ConnRef, Direction) {
    let side = if slot as u32 & REPLY == 0 { Direction::Original } else { Direction::Reply };
    (ConnRef::from_bits(slot as u32), side)
}

/// A slot without its due time, which the control core may change at any moment.
#[inline(always)]
pub(super) const fn undated(slot: u64) -> u64 {
    slot & 0xffff_0000_ffff_ffff
}

/// Empties a slot of the caller's conn. Nobody but the control core's arming writes to it, and that
/// compares: it comes before or fails.
#[inline]
pub(super) fn empty(slot: &AtomicU64) {
    // Loom 0.7 may order a plain store before a compare-and-swap of the value it replaced.
    if cfg!(loom) {
        slot.swap(0, Release);
    } else {
        slot.store(0, Release);
    }
}

impl Bucket {
    /// A bit for each slot that has this tag now.
    #[inline(always)]
    fn tagged(&self, tag: u64) -> u32 {
        arch::tagged(&self.slots, tag)
    }

    #[inline(always)]
    pub(super) fn visit<T>(
        &self,
        tag: u64,
        accept: &mut impl FnMut(&AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        let mut mask = self.tagged(tag);
        while mask != 0 {
            let slot = self.slots.get(mask.trailing_zeros() as usize)?;
            mask &= mask - 1;
            // Read again, as the first reading was only good for the tag.
            let word = slot.load(Acquire);
            if word >> 48 != tag {
                continue;
            }
            if let Some(found) = accept(slot, word) {
                return Some(found);
            }
        }
        None
    }

    pub(super) fn lock(&self) -> bool {
        for _ in 0..LOCK_TRIES {
            if self.lock.load(Relaxed) == 0
                && self.lock.compare_exchange(0, 1, Acquire, Relaxed).is_ok()
            {
                return true;
            }
            spin_loop();
        }
        false
    }

    pub(super) fn unlock(&self) {
        self.lock.store(0, Release);
    }

    /// The first slot with this tag, as it is a moment later: for hints.
    #[inline(always)]
    pub(super) fn first(&self, tag: u64) -> Option<u64> {
        let mask = self.tagged(tag);
        if mask == 0 {
            return None;
        }
        Some(self.slots.get(mask.trailing_zeros() as usize)?.load(Relaxed))
    }

    /// Claims an empty slot.
    #[inline]
    fn claim(&self, value: u64) -> bool {
        let claimed = self.slots.iter().any(|slot| {
            slot.load(Relaxed) == 0 && slot.compare_exchange(0, value, AcqRel, Relaxed).is_ok()
        });
        // After that, so that who has said so without seeing the entry is not believed.
        if claimed && self.barren.load(Relaxed) != 0 {
            self.barren.store(0, Relaxed);
        }
        claimed
    }

    /// True while it is known that no early drop finds anything here.
    #[inline]
    pub(super) fn is_barren(&self, now: Tick) -> bool {
        let until = self.barren.load(Relaxed);
        // What is left of one of long ago lies behind.
        until != 0 && until.wrapping_sub(now.0).wrapping_sub(1) < BARREN_TICKS
    }

    /// Says so until that moment, but no longer than [`BARREN_TICKS`].
    pub(super) fn set_barren(&self, until: Tick, now: Tick) {
        let ticks = (until.0.wrapping_sub(now.0) as i32).clamp(0, BARREN_TICKS as i32) as u32;
        let until = now.0.wrapping_add(ticks);
        // Rather a tick less than none.
        self.barren.store(if until == 0 { u32::MAX } else { until }, Relaxed);
    }

    /// Nobody knows any more.
    pub(super) fn forget_barren(&self) {
        self.barren.store(0, Relaxed);
    }
}

/// The buckets; clones are the same ones.
#[derive(Clone, Debug)]
pub(super) struct Array {
    buckets: HugeSlice<Bucket>,
    count: u32,
}

impl Array {
    /// Memory is made here and touched.
    pub(super) fn new(count: u32) -> Result<Array, OutOfMemory> {
        Ok(Array { buckets: HugeSlice::new(count as usize, Bucket::default)?, count })
    }

    /// Buckets, each of one cache line.
    #[inline(always)]
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn all(&self) -> &[Bucket] {
        &self.buckets
    }

    #[inline(always)]
    pub(super) fn home(&self, hash: u64) -> u32 {
        (((hash >> 32) * self.count as u64) >> 32) as u32
    }

    #[inline(always)]
    pub(super) fn bucket(&self, at: u32) -> Option<&Bucket> {
        self.buckets.get(at as usize)
    }

    /// The bucket of the `i`th probe: home, buddy, then the pairs from a second place on. They
    /// are all different, so that an entry is at home exactly if the first probe finds it.
    pub(super) fn probe(&self, hash: u64, i: u32) -> Option<&Bucket> {
        let home = self.home(hash);
        if i < 2 {
            return self.bucket(home ^ i);
        }
        let wrap = |at: u32| if at >= self.count { at - self.count } else { at };
        let away = (((hash & 0xffff_ffff) * self.count as u64) >> 32) as u32 & !1;
        let from = home & !1;
        let meets = wrap(from + self.count - away) < PROBES - 2;
        let away = if meets { wrap(from + 2) } else { away };
        self.bucket(wrap(away + i - 2))
    }

    /// The `i`th bucket behind the home, less than [`PROBES`] of them.
    #[inline]
    pub(super) fn behind_home(&self, hash: u64, i: u32) -> Option<&Bucket> {
        let at = self.home(hash) + i;
        self.bucket(if at >= self.count { at - self.count } else { at })
    }

    /// Brings in the home bucket, and says which it is.
    #[inline(always)]
    pub(super) fn prefetch(&self, hash: u64) -> u32 {
        let home = self.home(hash);
        if let Some(bucket) = self.bucket(home) {
            prefetch_read(bucket);
        }
        home
    }

    #[inline]
    pub(super) fn visit<T>(
        &self,
        hash: u64,
        accept: &mut impl FnMut(u32, &AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        let bucket = self.bucket(self.home(hash))?;
        if let Some(found) = bucket.visit(tag(hash), &mut |slot, word| accept(0, slot, word)) {
            return Some(found);
        }
        if bucket.overflow.load(Acquire) == 0 {
            return None;
        }
        self.visit_spilled(hash, accept)
    }

    #[cold]
    #[inline(never)]
    fn visit_spilled<T>(
        &self,
        hash: u64,
        accept: &mut impl FnMut(u32, &AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        (1..PROBES).find_map(|i| {
            let bucket = self.probe(hash, i)?;
            bucket.visit(tag(hash), &mut |slot, word| accept(i, slot, word))
        })
    }

    /// Claims a slot for an entry of this hash. The overflow count rises before the entry is
    /// there, so that whoever may count on the entry finds it.
    #[inline]
    pub(super) fn place(&self, hash: u64, value: u64) -> bool {
        let Some(bucket) = self.bucket(self.home(hash)) else { return false };
        bucket.claim(value) || self.place_away(bucket, hash, value)
    }

    #[cold]
    #[inline(never)]
    fn place_away(&self, bucket: &Bucket, hash: u64, value: u64) -> bool {
        bucket.overflow.fetch_add(1, Release);
        let placed = (1..PROBES).any(|i| self.probe(hash, i).is_some_and(|b| b.claim(value)));
        if !placed {
            bucket.overflow.fetch_sub(1, Release);
        }
        placed
    }

    /// Empties the slot of an entry of the caller's conn; `wanted` is the entry with any due time.
    pub(super) fn remove(&self, hash: u64, wanted: u64) -> bool {
        let found = self.visit(hash, &mut |probe, slot, word| {
            if undated(word) != undated(wanted) {
                return None;
            }
            empty(slot);
            Some(probe)
        });
        if let Some(probe) = found {
            self.left(hash, probe > 0);
        }
        found.is_some()
    }

    /// What follows the emptying of a slot: the entry counted as one away from home no more.
    pub(super) fn left(&self, hash: u64, away: bool) {
        // What the owner does to the record next must not be seen before the slot is empty.
        fence(Release);
        if let (true, Some(bucket)) = (away, self.bucket(self.home(hash))) {
            bucket.overflow.fetch_sub(1, Release);
        }
    }

    /// Locks the homes of two hashes, in the order of buckets; neither if one is not to be had.
    pub(super) fn lock_pair(&self, orig: u64, reply: u64) -> bool {
        let (a, b) = (self.home(orig), self.home(reply));
        let (Some(low), Some(high)) = (self.bucket(a.min(b)), self.bucket(a.max(b))) else {
            return false;
        };
        if !low.lock() {
            return false;
        }
        if a != b && !high.lock() {
            low.unlock();
            return false;
        }
        true
    }

    /// Lets go of what [`Array::lock_pair`] has locked.
    pub(super) fn unlock_pair(&self, orig: u64, reply: u64) {
        let (a, b) = (self.home(orig), self.home(reply));
        if a != b
            && let Some(high) = self.bucket(a.max(b))
        {
            high.unlock();
        }
        if let Some(low) = self.bucket(a.min(b)) {
            low.unlock();
        }
    }
}
