//! The index: hash of a tuple to record number, one table for all lcores.
//!
//! ```text
//! bucket, 64 bytes   | slot | slot | slot | slot | slot | slot | slot | lock 32 | overflow 32 |
//! slot, one atomic   | tag 16 | due 16 | IPv6 1 | reply entry 1 | number 30 |   0 = empty
//! ```
//!
//! *Placing.* The upper hash bits choose the home bucket by multiplication (no power of two, so
//! no memory is lost to rounding), the lower 16 are the tag. An entry that finds its home full goes
//! to the buddy (the other bucket of the aligned pair), then to the next pair: [`PROBES`] buckets
//! at most, and failure beyond that is the caller's to count. The home counts the entries that
//! live elsewhere (overflow); a lookup goes on from the home only if that count is not zero, so
//! a miss costs one line and a deletion leaves no tombstone. At load 1/2 about 1 % of the entries
//! are away from home.
//!
//! *Reading* takes no lock: a slot is one word and never half written, entries never move, and
//! what the number leads to is compared by the caller. *Inserting* takes the lock of the tuple's
//! home, so two lcores cannot enter the same tuple; slots are claimed by compare-and-swap, because
//! another home's entries may spill into the bucket under another lock. *Removing* takes no lock:
//! only the owner of a conn empties its slots. Nobody calls out, allocates or waits for anything
//! else while holding a lock, and waiting for one is bounded by [`LOCK_TRIES`].
//!
//! *Due* is a coarse moment before which nobody needs to look at the record: the control core
//! sweeps the buckets in order and visits only records whose due has passed.
//!
//! The same structure, with duplicates allowed, finds the conns of one source ([`Index::list`]).

use core::hint::spin_loop;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU32, AtomicU64, fence};

use arrayvec::ArrayVec;

use super::record::ConnRef;
use super::state::Direction;
use crate::arch::{HugeSlice, OutOfMemory, prefetch_read};
use crate::time::{TICKS_PER_SEC, Tick};

/// Slots of a bucket.
pub const SLOTS: usize = 7;
/// Buckets that an entry may live in.
pub const PROBES: u32 = 4;
/// How often a held lock is tried again. A holder needs well below a microsecond; this bound
/// (some milliseconds) is reached only if its lcore was stopped in the middle.
pub const LOCK_TRIES: u32 = 1 << 16;

/// A coarse moment: [`Tick`]s in units of 128, modulo 2^16. The unit divides the wrap of `Tick`,
/// so both wrap together; moments compare correctly within 11 hours of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due(u16);

impl Due {
    const SHIFT: u32 = 7;
    /// No entry goes unvisited for longer: about the longest pause of the kernel's collector. A
    /// deadline further away is met by arming again, and one that a tracker has *shortened*
    /// (ESTABLISHED to CLOSE) is noticed within this time although nobody touches the index.
    pub const HORIZON_SECS: u32 = 60;

    /// The present moment, rounded down.
    #[inline]
    pub const fn now(now: Tick) -> Due {
        Due((now.0 >> Self::SHIFT) as u16)
    }

    /// The first moment at which `deadline` has surely passed, at most
    /// [`Due::HORIZON_SECS`] away.
    #[inline]
    pub fn of(deadline: Tick, now: Tick) -> Due {
        let ahead = deadline.0.wrapping_sub(now.0) as i32;
        let ahead = ahead.clamp(0, (Self::HORIZON_SECS * TICKS_PER_SEC) as i32) as u32;
        let up = now.0.wrapping_add(ahead).wrapping_add((1 << Self::SHIFT) - 1);
        Due((up >> Self::SHIFT) as u16)
    }

    /// True once `now` has reached this moment.
    #[inline]
    pub const fn has_passed(self, now: Due) -> bool {
        (self.0.wrapping_sub(now.0) as i16) <= 0
    }
}

/// Why a pair of entries was not inserted. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// One of the tuples is in the table already.
    Clash {
        /// The conn that has it.
        with: ConnRef,
        /// Which of the new conn's tuples it is.
        side: Direction,
    },
    /// All buckets that an entry may live in are full.
    NoRoom,
    /// Another lcore held a bucket for [`LOCK_TRIES`].
    Busy,
}

#[repr(C, align(64))]
#[derive(Debug, Default)]
struct Bucket {
    slots: [AtomicU64; SLOTS],
    /// 1 while somebody inserts an entry whose home this is.
    lock: AtomicU32,
    /// Entries whose home this is and that live elsewhere.
    overflow: AtomicU32,
}

const _: () = assert!(size_of::<Bucket>() == 64);

const REPLY: u32 = 1 << 30;

#[inline(always)]
fn tag(hash: u64) -> u64 {
    let tag = hash & 0xffff;
    // 0 marks an empty slot.
    tag | (tag == 0) as u64
}

#[inline(always)]
fn slot(hash: u64, due: Due, conn: ConnRef, side: Direction) -> u64 {
    let side = if side == Direction::Reply { REPLY } else { 0 };
    tag(hash) << 48 | (due.0 as u64) << 32 | (conn.bits() | side) as u64
}

#[inline(always)]
fn entry(slot: u64) -> (ConnRef, Direction) {
    let side = if slot as u32 & REPLY == 0 { Direction::Original } else { Direction::Reply };
    (ConnRef::from_bits(slot as u32), side)
}

/// A slot without its due time, which the control core may change at any moment.
#[inline(always)]
const fn undated(slot: u64) -> u64 {
    slot & 0xffff_0000_ffff_ffff
}

impl Bucket {
    /// The slots as they are now, and a bit for each that has this tag. Fixed length and no
    /// early exit, so it unrolls into straight code.
    #[inline(always)]
    fn tagged(&self, tag: u64) -> ([u64; 8], u32) {
        let mut words = [0u64; 8];
        let mut mask = 0;
        for (i, (word, slot)) in words.iter_mut().zip(&self.slots).enumerate() {
            *word = slot.load(Acquire);
            mask |= ((*word >> 48 == tag) as u32) << i;
        }
        (words, mask)
    }

    #[inline(always)]
    fn visit<T>(
        &self,
        tag: u64,
        accept: &mut impl FnMut(&AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        let (words, mut mask) = self.tagged(tag);
        while mask != 0 {
            let i = mask.trailing_zeros() as usize & 7;
            mask &= mask - 1;
            if let Some(found) = self.slots.get(i).and_then(|slot| accept(slot, words[i])) {
                return Some(found);
            }
        }
        None
    }

    fn lock(&self) -> bool {
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

    fn unlock(&self) {
        self.lock.store(0, Release);
    }

    /// Claims an empty slot.
    fn claim(&self, value: u64) -> bool {
        self.slots.iter().any(|slot| {
            slot.load(Relaxed) == 0 && slot.compare_exchange(0, value, Release, Relaxed).is_ok()
        })
    }
}

/// The table.
#[derive(Debug)]
pub struct Index {
    buckets: HugeSlice<Bucket>,
    count: u32,
}

impl Index {
    /// An index for `entries` entries at a load of `percent` %. Memory is made here and touched.
    pub fn new(entries: u64, percent: u64) -> Result<Index, OutOfMemory> {
        let count = Self::buckets_for(entries, percent);
        let buckets = HugeSlice::new(count as usize, Bucket::default)?;
        Ok(Index { buckets, count })
    }

    /// How many buckets that takes: an even number, at least 16.
    pub fn buckets_for(entries: u64, percent: u64) -> u32 {
        let buckets = (entries * 100).div_ceil(SLOTS as u64 * percent.clamp(1, 100));
        (buckets.clamp(16, 1 << 30) as u32).next_multiple_of(2)
    }

    /// Buckets, each of one cache line.
    pub fn buckets(&self) -> u32 {
        self.count
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> u32 {
        (((hash >> 32) * self.count as u64) >> 32) as u32
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> Option<&Bucket> {
        self.buckets.get(at as usize)
    }

    /// The bucket of the `i`th probe: home, buddy, then the next pairs in order.
    #[inline]
    fn probe(&self, home: u32, i: u32) -> Option<&Bucket> {
        let pair = (home & !1) + (i & !1);
        let pair = if pair >= self.count { pair - self.count } else { pair };
        self.bucket(pair | (home ^ i) & 1)
    }

    /// Brings in the home bucket.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if let Some(bucket) = self.bucket(self.home(hash)) {
            prefetch_read(bucket);
        }
    }

    /// The first entry at home whose tag fits: what a lookup will most probably want to compare,
    /// so that a burst can prefetch its records.
    #[inline]
    pub fn candidate(&self, hash: u64) -> Option<ConnRef> {
        let bucket = self.bucket(self.home(hash))?;
        bucket.visit(tag(hash), &mut |_, word| Some(entry(word).0))
    }

    /// Offers the entries whose tag fits to `accept` until it takes one. The direction is that
    /// of the entry: a conn that has only one entry shows it as the original one.
    #[inline]
    pub fn lookup<T>(
        &self,
        hash: u64,
        mut accept: impl FnMut(ConnRef, Direction) -> Option<T>,
    ) -> Option<T> {
        self.visit(hash, &mut |_, _, word| {
            let (conn, side) = entry(word);
            accept(conn, side)
        })
    }

    #[inline]
    fn visit<T>(
        &self,
        hash: u64,
        accept: &mut impl FnMut(u32, &AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        let home = self.home(hash);
        let bucket = self.bucket(home)?;
        if let Some(found) = bucket.visit(tag(hash), &mut |slot, word| accept(0, slot, word)) {
            return Some(found);
        }
        if bucket.overflow.load(Acquire) == 0 {
            return None;
        }
        self.visit_spilled(home, tag(hash), accept)
    }

    #[cold]
    #[inline(never)]
    fn visit_spilled<T>(
        &self,
        home: u32,
        tag: u64,
        accept: &mut impl FnMut(u32, &AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        (1..PROBES)
            .find_map(|i| self.probe(home, i)?.visit(tag, &mut |slot, word| accept(i, slot, word)))
    }

    /// Inserts a conn under the hashes of both tuples, or under one if they are equal (a conn
    /// without NAT); both or neither (`__nf_conntrack_confirm`).
    ///
    /// With the homes of both locked, `taken` is asked for each entry whose tag fits whether it
    /// has the new conn's original or reply tuple; a yes is a clash. So no two lcores can enter
    /// the same tuple. A second entry may be seen a moment after the first.
    pub fn confirm_pair(
        &self,
        orig: u64,
        reply: u64,
        conn: ConnRef,
        due: Due,
        mut taken: impl FnMut(Direction, ConnRef) -> bool,
    ) -> Result<(), Refused> {
        let (a, b) = (self.home(orig), self.home(reply));
        let (Some(low), Some(high)) = (self.bucket(a.min(b)), self.bucket(a.max(b))) else {
            return Err(Refused::NoRoom);
        };
        if !low.lock() {
            return Err(Refused::Busy);
        }
        if a != b && !high.lock() {
            low.unlock();
            return Err(Refused::Busy);
        }
        let done = self.insert_pair(orig, reply, conn, due, &mut taken);
        if a != b {
            high.unlock();
        }
        low.unlock();
        done
    }

    fn insert_pair(
        &self,
        orig: u64,
        reply: u64,
        conn: ConnRef,
        due: Due,
        taken: &mut impl FnMut(Direction, ConnRef) -> bool,
    ) -> Result<(), Refused> {
        for (hash, side) in [(orig, Direction::Original), (reply, Direction::Reply)] {
            if let Some(with) = self.holder(hash, &mut |other| taken(side, other)) {
                return Err(Refused::Clash { with, side });
            }
        }
        if !self.place(orig, slot(orig, due, conn, Direction::Original)) {
            return Err(Refused::NoRoom);
        }
        if reply != orig && !self.place(reply, slot(reply, due, conn, Direction::Reply)) {
            self.remove(orig, conn, Direction::Original);
            return Err(Refused::NoRoom);
        }
        Ok(())
    }

    /// Who has the tuple. An owner may remove its conn and reuse the record while it is being
    /// compared; the slot, read again, then differs, and the match is not believed.
    fn holder(&self, hash: u64, taken: &mut impl FnMut(ConnRef) -> bool) -> Option<ConnRef> {
        self.visit(hash, &mut |_, slot, word| {
            let (conn, _) = entry(word);
            let matched = taken(conn);
            fence(Acquire);
            (matched && undated(slot.load(Relaxed)) == undated(word)).then_some(conn)
        })
    }

    /// Claims a slot for an entry of this hash. The overflow count rises before the entry is
    /// there, so that whoever may count on the entry finds it.
    fn place(&self, hash: u64, value: u64) -> bool {
        let home = self.home(hash);
        let Some(bucket) = self.bucket(home) else { return false };
        if bucket.claim(value) {
            return true;
        }
        bucket.overflow.fetch_add(1, Release);
        let placed = (1..PROBES).any(|i| self.probe(home, i).is_some_and(|b| b.claim(value)));
        if !placed {
            bucket.overflow.fetch_sub(1, Release);
        }
        placed
    }

    /// Removes a conn's entry; false if there was none. Owner only.
    pub fn remove(&self, hash: u64, conn: ConnRef, side: Direction) -> bool {
        let wanted = slot(hash, Due(0), conn, side);
        let found = self.visit(hash, &mut |probe, slot, word| {
            if undated(word) != wanted {
                return None;
            }
            slot.store(0, Release);
            Some(probe)
        });
        // What the owner does to the record next must not be seen before the slot is empty.
        fence(Release);
        if let (Some(1..), Some(bucket)) = (found, self.bucket(self.home(hash))) {
            bucket.overflow.fetch_sub(1, Release);
        }
        found.is_some()
    }

    /// Moves the due time of a conn's original entry; false if there is none. Owner only.
    pub fn set_due(&self, hash: u64, conn: ConnRef, due: Due) -> bool {
        let new = slot(hash, due, conn, Direction::Original);
        let set = self.visit(hash, &mut |_, slot, word| {
            // Losing to the control core's arming leaves a due time within the horizon.
            (undated(word) == undated(new))
                .then(|| slot.compare_exchange(word, new, Relaxed, Relaxed).is_ok())
        });
        set.is_some()
    }

    /// Visits `buckets` buckets from `from` on, and in them the original entries whose due time
    /// has passed; what `visit` returns becomes the new due time. Returns where to go on, 0 after
    /// the last bucket. Control core only; reads without locks.
    pub fn sweep(
        &self,
        from: u32,
        buckets: u32,
        now: Due,
        mut visit: impl FnMut(ConnRef) -> Option<Due>,
    ) -> u32 {
        let to = from.saturating_add(buckets).min(self.count);
        let buckets = self.buckets.get(from as usize..to as usize).into_iter().flatten();
        for slot in buckets.flat_map(|bucket| &bucket.slots) {
            let word = slot.load(Acquire);
            let original = word != 0 && word as u32 & REPLY == 0;
            if !original || !Due((word >> 32) as u16).has_passed(now) {
                continue;
            }
            if let Some(due) = visit(entry(word).0) {
                let new = undated(word) | (due.0 as u64) << 32;
                // If the owner was faster the entry is gone or has a better time.
                let _ = slot.compare_exchange(word, new, Relaxed, Relaxed);
            }
        }
        if to >= self.count { 0 } else { to }
    }

    /// The conns in the `i`th bucket after the home of `hash`, wrapping; for early drop, which
    /// does not care whose home it is. A conn may be there twice.
    pub fn neighbours(&self, hash: u64, i: u32) -> ArrayVec<ConnRef, SLOTS> {
        let at = (self.home(hash) as u64 + i as u64) % self.count as u64;
        let slots = self.bucket(at as u32).map(|b| &b.slots).into_iter().flatten();
        slots.map(|s| s.load(Acquire)).filter(|&w| w != 0).map(|w| entry(w).0).collect()
    }

    /// Inserts an entry without looking for others like it, unless `PROBES` buckets are full or
    /// [`SLOTS`] entries with its tag are already there. For lists that may be incomplete.
    pub fn list(&self, hash: u64, conn: ConnRef) -> bool {
        let mut like = 0;
        self.visit(hash, &mut |_, _, _| {
            like += 1;
            (like == SLOTS).then_some(())
        });
        like < SLOTS && self.place(hash, slot(hash, Due(0), conn, Direction::Original))
    }

    /// Entries and overflow counts, by counting: for tests and statistics.
    pub fn census(&self) -> (u64, u64) {
        let entries = self.buckets.iter().flat_map(|b| &b.slots);
        let entries = entries.filter(|s| s.load(Relaxed) != 0).count() as u64;
        let overflow = self.buckets.iter().map(|b| b.overflow.load(Relaxed) as u64).sum();
        (entries, overflow)
    }
}
