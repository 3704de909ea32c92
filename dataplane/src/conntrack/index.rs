//! The index: hash of a tuple to record number, one table for all lcores.
//!
//! ```text
//! bucket, 64 bytes   | slot | 6 more slots … | lock 16 | overflow 16 | barren 32 |
//! slot, one atomic   | tag 16 | due 16 | IPv6 1 | reply entry 1 | number 30 |   0 = empty
//! ```
//!
//! *Placing.* The upper hash bits choose the home bucket by multiplication (no power of two, so
//! no memory is lost to rounding), the lower 16 are the tag, its lowest bit set, as 0 is nobody's.
//! An entry that finds its home full goes to the buddy (the other bucket of the aligned pair), then
//! to three pairs that other hash bits choose: [`PROBES`] buckets at most, and failure beyond that
//! is the caller's to count. The home counts the entries that live elsewhere (overflow); a lookup
//! goes on from the home only if that count is not zero, so a miss costs one line and a deletion
//! leaves no tombstone. At load 1/2
//! 1.2 % of the entries are away from home and none of a million is refused; at load 3/4 it is
//! 7 % and 1 in 14 000. (Four buckets in a row refuse 24 of a million at load 1/2.)
//!
//! *Reading* takes no lock: a slot is one word and never half written, entries stay where they are
//! (but see below), and what the number leads to is compared by the caller. *Inserting* takes the
//! lock of the tuple's home, so two lcores cannot enter the same tuple; slots are claimed by
//! compare-and-swap, because another home's entries may spill into the bucket under another lock.
//! *Removing* takes no lock: only the owner of a conn empties its slots. Nobody calls out,
//! allocates or waits for anything else while holding a lock, and waiting for one is bounded by
//! [`LOCK_TRIES`].
//!
//! *Barren* is until when an early drop need not look at the bucket, because one has, and all conns
//! there stay: in a table full of established conns a search finds nothing in eight buckets for
//! each first packet. Whoever enters a conn into the bucket takes it back.
//!
//! *Due* is a coarse moment before which nobody needs to look at the record: the control core
//! sweeps the buckets in order and visits only records whose due has passed.
//!
//! The same structure, with duplicates allowed, finds the conns of one source ([`Index::list`]).
//!
//! *Another size.* An [`Index`] is a view: of one array, or of an old one and the new one beside
//! it. The control core sends views to the lcores, the next one when all have the last:
//!
//! ```text
//!   view      looks in   enters in  locks homes of   entries
//!   old       old        old        old              all in the old array
//!   looking   old, new   old        old              all in the old array
//!   moving    old, new   new        old, new         owners move theirs, a piece at a time
//!   new       new        new        new              all in the new array
//! ```
//!
//! Two lcores whose views are one step apart see each other's entries and share a lock for each
//! tuple, so no tuple can be entered twice. A moving entry is in the new array before it leaves the
//! old one, and a lookup that did not find it in the old one looks into the new one after that: it
//! is found at every moment. Only its owner moves it, so a removal meets it in one of them.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::array::{Array, Bucket, REPLY, empty, entry, slot, tag, undated};
use super::record::ConnRef;
use super::state::Direction;
use crate::arch::sync::Ordering::{Acquire, Relaxed, SeqCst};
use crate::arch::sync::{AtomicU64, fence};
use crate::arch::{OutOfMemory, prefetch_read};
use crate::time::{TICKS_PER_SEC, Tick};

/// Slots of a bucket.
pub const SLOTS: usize = 7;
/// Buckets that an entry may live in.
pub const PROBES: u32 = 8;
/// How often a held lock is tried again. A holder needs well below a microsecond; this bound
/// (some milliseconds) is reached only if its lcore was stopped in the middle.
pub const LOCK_TRIES: u32 = 1 << 16;
/// Buckets whose conns a sweep brings in together.
const SWEPT_AT_ONCE: usize = 8;
/// Conns that [`Index::neighbours`] names at most: a bucket of each array.
pub const NEIGHBOURS: usize = 2 * SLOTS;

/// A coarse moment: [`Tick`]s in units of 128, modulo 2^16. The unit divides the wrap of `Tick`,
/// so both wrap together; moments compare correctly within 11 hours of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due(pub(super) u16);

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

/// The table; clones are the same one.
#[derive(Clone, Debug)]
pub struct Index {
    array: Array,
    /// While the table gets another size.
    beside: Option<Box<Beside>>,
}

#[derive(Clone, Debug)]
struct Beside {
    array: Array,
    moving: bool,
}

/// What a piece of moving has done ([`Index::move_own`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The bucket to go on with; `None` after the last.
    pub next: Option<u32>,
    /// Entries of this lcore that found no room in the new array and stay in the old one.
    pub stuck: u32,
}

impl Index {
    /// An index for `entries` entries at a load of `percent` %. Memory is made here and touched.
    pub fn new(entries: u64, percent: u64) -> Result<Index, OutOfMemory> {
        Index::with_buckets(Self::buckets_for(entries, percent))
    }

    /// An index of that many buckets, which must be what [`Index::buckets_for`] says of something.
    pub fn with_buckets(buckets: u32) -> Result<Index, OutOfMemory> {
        Ok(Index { array: Array::new(buckets)?, beside: None })
    }

    /// How many buckets that takes: an even number, at least 16.
    pub fn buckets_for(entries: u64, percent: u64) -> u32 {
        let buckets = (entries * 100).div_ceil(SLOTS as u64 * percent.clamp(1, 100));
        (buckets.clamp(16, 1 << 30) as u32).next_multiple_of(2)
    }

    /// The first view of a change to `next`'s array: who has it looks into both.
    pub fn looking(&self, next: &Index) -> Index {
        self.with(next, false)
    }

    /// The second: who has it enters into the new array and moves its own entries there. For
    /// lcores that all have the first.
    pub fn moving(&self, next: &Index) -> Index {
        self.with(next, true)
    }

    fn with(&self, next: &Index, moving: bool) -> Index {
        let beside = Beside { array: next.array.clone(), moving };
        Index { array: self.array.clone(), beside: Some(Box::new(beside)) }
    }

    /// Buckets of all arrays, each of one cache line.
    pub fn buckets(&self) -> u32 {
        self.array.count() + self.beside.as_ref().map_or(0, |beside| beside.array.count())
    }

    /// Buckets of the array that a change of size starts from.
    pub fn old_buckets(&self) -> u32 {
        self.array.count()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        self.arrays().map(|array| size_of_val(array.all())).sum()
    }

    fn arrays(&self) -> impl Iterator<Item = &Array> {
        core::iter::once(&self.array).chain(self.beside.as_ref().map(|beside| &beside.array))
    }

    /// Where new entries go.
    fn target(&self) -> &Array {
        match &self.beside {
            Some(beside) if beside.moving => &beside.array,
            _ => &self.array,
        }
    }

    /// Brings in the home bucket, and says which it is.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) -> u32 {
        if let Some(beside) = &self.beside {
            beside.array.prefetch(hash);
        }
        self.array.prefetch(hash)
    }

    /// The first entry at home whose tag fits: what a lookup will most probably want to compare,
    /// so that a burst can prefetch its records. It may have become another one, or none. `home`
    /// is what [`Index::prefetch`] said.
    #[inline(always)]
    pub fn candidate(&self, home: u32, hash: u64) -> Option<ConnRef> {
        let first =
            |array: &Array, home| array.bucket(home)?.first(tag(hash)).map(|word| entry(word).0);
        match (first(&self.array, home), &self.beside) {
            (None, Some(beside)) => first(&beside.array, beside.array.home(hash)),
            (found, _) => found,
        }
    }

    /// True if nothing is to be found under this hash: all that most first packets want to know, by
    /// one look at its home. False says nothing.
    #[inline(always)]
    pub fn is_vacant(&self, hash: u64) -> bool {
        let Some(home) = self.array.bucket(self.array.home(hash)) else { return false };
        home.first(tag(hash)).is_none() && home.overflow.load(Acquire) == 0 && self.beside.is_none()
    }

    /// As [`Index::lookup`], but at home only; and whether there may be more elsewhere.
    #[inline(always)]
    pub fn lookup_home<T>(
        &self,
        hash: u64,
        mut accept: impl FnMut(ConnRef) -> Option<T>,
    ) -> (Option<T>, bool) {
        let Some(bucket) = self.array.bucket(self.array.home(hash)) else { return (None, false) };
        let found = bucket.visit(tag(hash), &mut |_, word| accept(entry(word).0));
        (found, bucket.overflow.load(Acquire) != 0 || self.beside.is_some())
    }

    /// Offers the entries whose tag fits to `accept` until it takes one. The direction is that
    /// of the entry: a conn that has only one entry shows it as the original one. While the table
    /// changes its size a conn may be offered twice.
    pub fn lookup<T>(
        &self,
        hash: u64,
        mut accept: impl FnMut(ConnRef, Direction) -> Option<T>,
    ) -> Option<T> {
        self.visit(hash, &mut |_, word| {
            let (conn, side) = entry(word);
            accept(conn, side)
        })
    }

    fn visit<T>(
        &self,
        hash: u64,
        accept: &mut impl FnMut(&AtomicU64, u64) -> Option<T>,
    ) -> Option<T> {
        let found = self.array.visit(hash, &mut |_, slot, word| accept(slot, word));
        match &self.beside {
            Some(beside) if found.is_none() => {
                // Who found the old slot empty must see what had been entered before it was.
                fence(Acquire);
                beside.array.visit(hash, &mut |_, slot, word| accept(slot, word))
            }
            _ => found,
        }
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
        if !self.array.lock_pair(orig, reply) {
            return Err(Refused::Busy);
        }
        let done = match &self.beside {
            // Some lcores may have left the old array already, others have not heard of it: each
            // shares the lock of one array with either.
            Some(beside) if beside.moving => {
                if beside.array.lock_pair(orig, reply) {
                    let done = self.insert_pair(orig, reply, conn, due, &mut taken);
                    beside.array.unlock_pair(orig, reply);
                    done
                } else {
                    Err(Refused::Busy)
                }
            }
            _ => self.insert_pair(orig, reply, conn, due, &mut taken),
        };
        self.array.unlock_pair(orig, reply);
        done
    }

    #[inline]
    fn insert_pair(
        &self,
        orig: u64,
        reply: u64,
        conn: ConnRef,
        due: Due,
        taken: &mut impl FnMut(Direction, ConnRef) -> bool,
    ) -> Result<(), Refused> {
        if !(self.is_vacant(orig) && self.is_vacant(reply)) {
            self.search_clash(orig, reply, taken)?;
        }
        let array = self.target();
        if !array.place(orig, slot(orig, due, conn, Direction::Original)) {
            return Err(Refused::NoRoom);
        }
        if reply != orig && !array.place(reply, slot(reply, due, conn, Direction::Reply)) {
            self.remove(orig, conn, Direction::Original);
            return Err(Refused::NoRoom);
        }
        Ok(())
    }

    #[inline(never)]
    fn search_clash(
        &self,
        orig: u64,
        reply: u64,
        taken: &mut impl FnMut(Direction, ConnRef) -> bool,
    ) -> Result<(), Refused> {
        for (hash, side) in [(orig, Direction::Original), (reply, Direction::Reply)] {
            if let Some(with) = self.holder(hash, &mut |other| taken(side, other)) {
                return Err(Refused::Clash { with, side });
            }
        }
        Ok(())
    }

    /// Who has the tuple. An owner may remove its conn and reuse the record while it is being
    /// compared; the slot, read again, then differs, and the match is not believed.
    fn holder(&self, hash: u64, taken: &mut impl FnMut(ConnRef) -> bool) -> Option<ConnRef> {
        self.visit(hash, &mut |slot, word| {
            let (conn, _) = entry(word);
            let matched = taken(conn);
            fence(Acquire);
            (matched && undated(slot.load(Relaxed)) == undated(word)).then_some(conn)
        })
    }

    /// Removes a conn's entry; false if there was none. Owner only.
    pub fn remove(&self, hash: u64, conn: ConnRef, side: Direction) -> bool {
        let wanted = slot(hash, Due(0), conn, side);
        self.arrays().any(|array| array.remove(hash, wanted))
    }

    /// Moves the due time of a conn's original entry; false if there is none. Owner only.
    pub fn set_due(&self, hash: u64, conn: ConnRef, due: Due) -> bool {
        let new = slot(hash, due, conn, Direction::Original);
        let set = self.visit(hash, &mut |slot, word| {
            // Losing to the control core's arming leaves a due time within the horizon.
            (undated(word) == undated(new))
                .then(|| slot.compare_exchange(word, new, Relaxed, Relaxed).is_ok())
        });
        set.is_some()
    }

    /// Visits `buckets` buckets from `from` on, and in them the original entries whose due time
    /// has passed; what `visit` returns becomes the new due time. Each is shown to `ahead` a little
    /// before, so that what it leads to can be on its way. Returns where to go on, 0 after the last
    /// bucket. Control core only; reads without locks.
    pub fn sweep(
        &self,
        from: u32,
        buckets: u32,
        now: Due,
        ahead: impl Fn(ConnRef),
        mut visit: impl FnMut(ConnRef) -> Option<Due>,
    ) -> u32 {
        let to = from.saturating_add(buckets).min(self.buckets());
        let mut passed = ArrayVec::<(&AtomicU64, u64), { SWEPT_AT_ONCE * SLOTS }>::new();
        for few in self.stretch(from, to).flat_map(|buckets| buckets.chunks(SWEPT_AT_ONCE)) {
            originals_in(few).for_each(|(slot, word)| {
                if Due((word >> 32) as u16).has_passed(now) && passed.try_push((slot, word)).is_ok()
                {
                    ahead(entry(word).0);
                }
            });
            for (slot, word) in passed.drain(..) {
                if let Some(due) = visit(entry(word).0) {
                    let new = undated(word) | (due.0 as u64) << 32;
                    // If the owner was faster the entry is gone or has a better time.
                    let _ = slot.compare_exchange(word, new, Relaxed, Relaxed);
                }
            }
        }
        if to >= self.buckets() { 0 } else { to }
    }

    /// Visits `buckets` buckets from `from` on, and in them all original entries; returns where to
    /// go on, 0 after the last bucket.
    pub fn originals(&self, from: u32, buckets: u32, mut visit: impl FnMut(ConnRef)) -> u32 {
        let to = from.saturating_add(buckets).min(self.buckets());
        for buckets in self.stretch(from, to) {
            originals_in(buckets).for_each(|(_, word)| visit(entry(word).0));
        }
        if to >= self.buckets() { 0 } else { to }
    }

    /// The buckets from `from` to `to`. While the table changes its size its arrays lie one behind
    /// the other.
    fn stretch(&self, from: u32, to: u32) -> impl Iterator<Item = &[Bucket]> {
        let mut start = 0;
        self.arrays().filter_map(move |array| {
            let within = |at: u32| at.saturating_sub(start).min(array.count()) as usize;
            let buckets = array.all().get(within(from)..within(to));
            start += array.count();
            buckets
        })
    }

    /// Moves entries out of `buckets` buckets of the old array, from `from` on, into the new one:
    /// those that `own` gives a hash, which is the caller's conns' hash for that side. Each is in
    /// the new array before it leaves the old one, so that who looks there first and here second
    /// finds it at every moment. One that finds no room there stays, unless the table may be
    /// `incomplete`. Owner only; does nothing unless this view is a moving one.
    pub fn move_own(
        &self,
        from: u32,
        buckets: u32,
        incomplete: bool,
        mut own: impl FnMut(ConnRef, Direction) -> Option<u64>,
    ) -> Moved {
        let Some(beside) = self.beside.as_ref().filter(|beside| beside.moving) else {
            return Moved { next: None, stuck: 0 };
        };
        let to = from.saturating_add(buckets).min(self.array.count());
        let mut stuck = 0;
        for at in from..to {
            for slot in self.array.bucket(at).into_iter().flat_map(|bucket| &bucket.slots) {
                let word = slot.load(Relaxed);
                let (conn, side) = entry(word);
                let Some(hash) = (if word == 0 { None } else { own(conn, side) }) else { continue };
                if !beside.array.place(hash, word) && !incomplete {
                    stuck += 1;
                    continue;
                }
                empty(slot);
                self.array.left(hash, self.array.home(hash) != at);
            }
        }
        Moved { next: (to < self.array.count()).then_some(to), stuck }
    }

    /// Offers the numbers in a stretch of the old array: to bring in their records ahead of
    /// [`Index::move_own`].
    pub fn numbers_in(&self, from: u32, buckets: u32, mut see: impl FnMut(ConnRef)) {
        let to = from.saturating_add(buckets).min(self.array.count());
        let buckets = self.array.all().get(from as usize..to as usize).into_iter().flatten();
        let words = buckets.flat_map(|b| &b.slots).map(|slot| slot.load(Relaxed));
        words.filter(|&word| word != 0).for_each(|word| see(entry(word).0));
    }

    /// The conns in the `i`th bucket after the home of `hash`, wrapping; for early drop, which
    /// does not care whose home it is. A conn may be there twice. While the table changes its size,
    /// those of both arrays.
    pub fn neighbours(&self, hash: u64, i: u32) -> ArrayVec<ConnRef, NEIGHBOURS> {
        let mut numbers = ArrayVec::new();
        self.see_neighbours(hash, i, |number| {
            let _ = numbers.try_push(number);
        });
        numbers
    }

    /// The same, shown one after the other.
    #[inline]
    pub fn see_neighbours(&self, hash: u64, i: u32, mut see: impl FnMut(ConnRef)) {
        for bucket in self.neighbouring(hash, i) {
            let words = bucket.slots.iter().map(|slot| slot.load(Acquire));
            words.filter(|&word| word != 0).for_each(|word| see(entry(word).0));
        }
    }

    #[inline]
    fn neighbouring(&self, hash: u64, i: u32) -> impl Iterator<Item = &Bucket> {
        self.arrays().filter_map(move |array| array.behind_home(hash, i))
    }

    /// Brings in the buckets that [`Index::neighbours`] looks at.
    pub fn prefetch_neighbours(&self, hash: u64, buckets: Range<u32>) {
        buckets.flat_map(|i| self.neighbouring(hash, i)).for_each(prefetch_read);
    }

    /// True while it is known that an early drop finds nothing in the bucket that
    /// [`Index::neighbours`] looks at.
    #[inline]
    pub fn is_barren(&self, hash: u64, i: u32, now: Tick) -> bool {
        self.neighbouring(hash, i).all(|bucket| bucket.is_barren(now))
    }

    /// Remembers that an early drop finds nothing there among the conns it has `seen` until the
    /// moment given, or one comes in; for a second at most.
    pub fn set_barren(&self, hash: u64, i: u32, seen: &[ConnRef], until: Tick, now: Tick) {
        self.neighbouring(hash, i).for_each(|bucket| bucket.set_barren(until, now));
        // Who comes in now takes that back, who came in meanwhile may have been too early to.
        fence(SeqCst);
        if self.neighbours(hash, i)[..] != *seen {
            self.neighbouring(hash, i).for_each(Bucket::forget_barren);
        }
    }

    /// Inserts an entry without looking for others like it, unless `PROBES` buckets are full or
    /// [`SLOTS`] entries with its tag are already there. For lists that may be incomplete. In place
    /// of a due time the entry keeps how it stands among those: one more than the newest of them.
    pub fn list(&self, hash: u64, conn: ConnRef) -> bool {
        if self.is_vacant(hash) {
            return self.array.place(hash, slot(hash, Due(0), conn, Direction::Original));
        }
        let (mut like, mut newest) = (0, None);
        self.visit(hash, &mut |_, word| {
            like += 1;
            let rank = rank(word);
            newest = Some(newest.map_or(rank, |newest| later(newest, rank)));
            (like == SLOTS).then_some(())
        });
        let due = Due(newest.map_or(0, |newest: u16| newest.wrapping_add(1)));
        like < SLOTS && self.target().place(hash, slot(hash, due, conn, Direction::Original))
    }

    /// What [`Index::list`] entered under a hash, the newest first; others may share its tag.
    pub fn listed(&self, hash: u64) -> impl Iterator<Item = ConnRef> {
        let mut words = ArrayVec::<u64, SLOTS>::new();
        self.visit(hash, &mut |_, word| words.try_push(word).err());
        let newest = words.iter().copied().map(rank).reduce(later).unwrap_or(0);
        words.sort_unstable_by_key(|&word| newest.wrapping_sub(rank(word)));
        words.into_iter().map(|word| entry(word).0)
    }

    /// Entries and overflow counts, by counting: for tests and statistics.
    pub fn census(&self) -> (u64, u64) {
        let buckets = || self.arrays().flat_map(Array::all);
        let entries = buckets().flat_map(|b| &b.slots);
        let entries = entries.filter(|s| s.load(Relaxed) != 0).count() as u64;
        let overflow = buckets().map(|b| b.overflow.load(Relaxed) as u64).sum();
        (entries, overflow)
    }
}

/// The original entries in some buckets.
fn originals_in(buckets: &[Bucket]) -> impl Iterator<Item = (&AtomicU64, u64)> {
    let slots = buckets.iter().flat_map(|bucket| &bucket.slots);
    let words = slots.map(|slot| (slot, slot.load(Acquire)));
    words.filter(|(_, word)| *word != 0 && *word as u32 & REPLY == 0)
}

/// How a listed entry stands among others.
fn rank(word: u64) -> u16 {
    (word >> 32) as u16
}

/// The later of two ranks, which count on past their wrap.
fn later(a: u16, b: u16) -> u16 {
    if (b.wrapping_sub(a) as i16) > 0 { b } else { a }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicBool, AtomicU32};

    use proptest::prelude::*;

    use super::super::record::Family;
    use super::*;

    const DUE: Due = Due(9);

    fn conn(number: u32) -> ConnRef {
        ConnRef::new(Family::V4, number)
    }

    /// A well mixed hash of a small number.
    fn mixed(key: u64) -> u64 {
        let x = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ x >> 29
    }

    /// A hash whose home is bucket `home` of `index`.
    fn at_home(index: &Index, home: u32, tag: u64) -> u64 {
        let high = ((home as u64) << 32).div_ceil(index.array.count() as u64);
        let hash = high << 32 | tag;
        assert_eq!(index.array.home(hash), home);
        hash
    }

    fn insert(index: &Index, orig: u64, reply: u64, number: u32) -> Result<(), Refused> {
        index.confirm_pair(orig, reply, conn(number), DUE, |_, _| false)
    }

    fn has(index: &Index, hash: u64, number: u32, side: Direction) -> bool {
        let wanted = (conn(number), side);
        index.lookup(hash, |c, s| ((c, s) == wanted).then_some(())).is_some()
    }

    #[test]
    fn probes_are_distinct_and_begin_with_home_and_buddy() {
        for (entries, key) in
            [1, 50, 200, 1000].into_iter().flat_map(|e| (0..2000).map(move |k| (e, k)))
        {
            let index = Index::new(entries, 50).unwrap();
            let hash = mixed(key);
            let home = index.array.home(hash) as usize;
            let place = |b: &Bucket| (b as *const Bucket).addr();
            let start = index.array.all().as_ptr().addr();
            let probes: Vec<_> = (0..PROBES)
                .map(|i| (place(index.array.probe(hash, i).unwrap()) - start) / 64)
                .collect();
            assert_eq!(probes[..2], [home, home ^ 1]);
            assert_eq!(probes.iter().collect::<HashSet<_>>().len(), PROBES as usize);
        }
    }

    #[test]
    fn what_is_listed_comes_newest_first_however_often_it_was_counted() {
        let index = Index::new(100, 50).unwrap();
        let hash = at_home(&index, 3, 77);
        let listed = || index.listed(hash).map(ConnRef::number).collect::<Vec<_>>();
        assert_eq!(listed(), []);
        // Past the wrap, with one that stays long.
        for number in 1..70_000 {
            assert!(index.list(hash, conn(number)));
            if number > 3 {
                assert!(index.remove(hash, conn(number - 3), Direction::Original));
            }
        }
        assert_eq!(listed(), [69_999, 69_998, 69_997]);
        assert!((4..8).all(|number| index.list(hash, conn(number))));
        assert_eq!(listed(), [7, 6, 5, 4, 69_999, 69_998, 69_997]);
        assert!(!index.list(hash, conn(8)), "there is no room for more");
    }

    #[test]
    fn homes_cover_all_buckets_of_a_size_that_is_no_power_of_two() {
        let index = Index::new(1000, 50).unwrap();
        assert_eq!(index.buckets(), 286);
        let homes: HashSet<_> = (0..10_000).map(|key| index.array.home(mixed(key))).collect();
        assert_eq!(homes.len(), 286);
        assert_eq!((index.array.home(0), index.array.home(u64::MAX)), (0, 285));
    }

    #[test]
    fn at_half_load_few_entries_spill_and_none_is_refused() {
        let entries = 60_000u32;
        let hash = |key: u32| mixed(key as u64);
        for (percent, spilled, refused) in [(50, 600..900, 0), (75, 3500..5000, 20)] {
            let index = Index::new(entries as u64, percent).unwrap();
            let (there, not): (Vec<u32>, Vec<u32>) =
                (0..entries).partition(|&key| insert(&index, hash(key), hash(key), key).is_ok());
            assert!(not.len() <= refused, "{percent} %: {} refused", not.len());
            let (count, overflow) = index.census();
            assert_eq!(count, there.len() as u64);
            assert!(spilled.contains(&overflow), "{percent} %: {overflow} spilled");
            for key in there {
                assert!(has(&index, hash(key), key, Direction::Original));
                assert!(index.remove(hash(key), conn(key), Direction::Original));
            }
            assert_eq!(index.census(), (0, 0));
        }
    }

    #[test]
    fn a_pair_that_finds_no_room_for_its_reply_leaves_nothing() {
        let index = Index::new(100, 50).unwrap();
        let full = at_home(&index, 4, 1);
        let free = at_home(&index, 20, 1);
        assert!((0..PROBES).all(|i| {
            let at = index.array.probe(full, i).unwrap();
            !core::ptr::eq(at, index.array.bucket(20).unwrap())
        }));
        for number in 0..SLOTS as u32 * PROBES {
            assert_eq!(insert(&index, full, full, number), Ok(()));
        }
        let before = index.census();
        assert_eq!(insert(&index, free, full | 2, 99), Err(Refused::NoRoom));
        assert_eq!(insert(&index, full | 2, free, 99), Err(Refused::NoRoom));
        assert_eq!(index.census(), before);
        assert!(!has(&index, free, 99, Direction::Original));
        for number in 0..SLOTS as u32 * PROBES {
            assert!(index.remove(full, conn(number), Direction::Original));
        }
        assert_eq!(index.census(), (0, 0));
    }

    #[test]
    fn a_held_lock_refuses_within_a_bound_and_releases_the_other() {
        let index = Index::new(100, 50).unwrap();
        let (low, high) = (at_home(&index, 2, 5), at_home(&index, 9, 5));
        let held = index.array.bucket(9).unwrap();
        assert!(held.lock());
        assert_eq!(insert(&index, low, high, 1), Err(Refused::Busy));
        assert_eq!(insert(&index, high, low, 1), Err(Refused::Busy));
        assert_eq!(index.census(), (0, 0));
        held.unlock();
        assert_eq!(insert(&index, high, low, 1), Ok(()));
    }

    #[test]
    fn both_entries_of_a_pair_are_told_apart_even_with_one_tag_and_home() {
        let index = Index::new(100, 50).unwrap();
        let (orig, reply) = (at_home(&index, 3, 7), at_home(&index, 3, 7) | 1 << 20);
        assert_eq!(insert(&index, orig, reply, 1), Ok(()));
        assert!(index.remove(orig, conn(1), Direction::Original));
        assert!(!index.remove(orig, conn(1), Direction::Original));
        assert!(has(&index, reply, 1, Direction::Reply));
        assert!(index.remove(reply, conn(1), Direction::Reply));
        assert_eq!(index.census(), (0, 0));
    }

    #[test]
    fn coarse_time_wraps_with_the_tick() {
        let second = |secs: i64| Tick((secs * TICKS_PER_SEC as i64) as u32);
        for start in [0i64, 41_943, 83_886, 42_949_672 - 5, 42_949_673] {
            let now = second(start);
            let due = Due::of(second(start + 10), now);
            assert!(!due.has_passed(Due::now(now)));
            assert!(!due.has_passed(Due::now(second(start + 9))));
            assert!(due.has_passed(Due::now(second(start + 12))));
            assert!(due.has_passed(Due::now(second(start + 40_000))));
            let far = Due::of(second(start + 432_000), now);
            assert!(!far.has_passed(Due::now(second(start + Due::HORIZON_SECS as i64 - 1))));
            assert!(far.has_passed(Due::now(second(start + Due::HORIZON_SECS as i64 + 2))));
        }
        // Never early: when the coarse time has passed, so has the deadline.
        for tick in 0..1000u32 {
            let deadline = Tick(tick.wrapping_sub(500));
            let due = Due::of(deadline, Tick(deadline.0.wrapping_sub(300)));
            for ahead in 0..300 {
                let now = Tick(deadline.0.wrapping_sub(ahead));
                assert!(!due.has_passed(Due::now(now)) || deadline.has_passed(now));
            }
        }
    }

    proptest! {
        /// Hashes from a tiny space, so that buckets overflow, tags collide and rooms run out.
        #[test]
        fn it_behaves_as_a_set(
            steps in prop::collection::vec((any::<bool>(), 0..40u32, 0..40u32, 0..4u32), 1..400)
        ) {
            let index = Index::new(10, 50).unwrap();
            let hash = |x: u32| at_home(&index, x % 5, (x / 5) as u64 % 3);
            let mut oracle: HashSet<(u32, u32, u32)> = HashSet::new();
            for (add, a, b, salt) in steps {
                let number = a * 160 + b * 4 + salt;
                let key = (hash(a), hash(b));
                let removed = || {
                    let first = index.remove(key.0, conn(number), Direction::Original);
                    let second = key.0 == key.1
                        || index.remove(key.1, conn(number), Direction::Reply);
                    first && second
                };
                if oracle.contains(&(a, b, salt)) {
                    prop_assert!(has(&index, key.0, number, Direction::Original));
                    prop_assert!(removed());
                    oracle.remove(&(a, b, salt));
                } else if add {
                    let result = insert(&index, key.0, key.1, number);
                    if result.is_ok() {
                        oracle.insert((a, b, salt));
                    } else {
                        prop_assert_eq!(result, Err(Refused::NoRoom));
                    }
                } else {
                    prop_assert!(!removed());
                }
                let entries: u64 = oracle
                    .iter()
                    .map(|&(a, b, _)| if hash(a) == hash(b) { 1 } else { 2 })
                    .sum();
                prop_assert_eq!(index.census().0, entries);
            }
            for &(a, b, salt) in &oracle {
                let number = a * 160 + b * 4 + salt;
                prop_assert!(index.remove(hash(a), conn(number), Direction::Original));
                if hash(a) != hash(b) {
                    prop_assert!(index.remove(hash(b), conn(number), Direction::Reply));
                }
            }
            prop_assert_eq!(index.census(), (0, 0));
        }
    }

    /// Two lcores enter conns for the same few tuples, in opposite order of their buckets, and
    /// take them out again; a third reads. One key stays, and must be found at every moment.
    #[test]
    fn concurrent_lcores_never_both_own_a_tuple_and_never_hide_another() {
        const KEYS: u64 = 24;
        let index = Index::new(40, 50).unwrap();
        let (stay, holders) = (mixed(1000), [const { AtomicU32::new(0) }; KEYS as usize]);
        assert_eq!(insert(&index, stay, stay, 1 << 20), Ok(()));
        let stop = AtomicBool::new(false);
        let lcore = |me: u32| {
            let (index, holders) = (&index, &holders);
            move || {
                let mut won = 0;
                for i in 0..6_000u64 {
                    let a = mixed(i + me as u64) % KEYS;
                    let b = (a + 1 + i % (KEYS - 1)) % KEYS;
                    let (a, b) = if me == 1 { (a, b) } else { (b, a) };
                    // The number says which keys the conn has, as a record would.
                    let number = me << 16 | (a as u32) << 8 | b as u32;
                    let wanted = [a as u32, b as u32];
                    let taken = |side: Direction, other: ConnRef| {
                        let key = wanted[side.index()];
                        let n = other.number();
                        n < 1 << 20 && (n >> 8 & 0xff == key || n & 0xff == key)
                    };
                    let (orig, reply) = (mixed(a), mixed(b));
                    if index.confirm_pair(orig, reply, conn(number), DUE, taken).is_err() {
                        continue;
                    }
                    won += 1;
                    for key in [a, b] {
                        assert_eq!(holders[key as usize].swap(me, Relaxed), 0, "owned twice");
                    }
                    assert!(has(index, orig, number, Direction::Original));
                    assert!(has(index, reply, number, Direction::Reply));
                    for key in [a, b] {
                        holders[key as usize].store(0, Relaxed);
                    }
                    assert!(index.remove(orig, conn(number), Direction::Original));
                    assert!(index.remove(reply, conn(number), Direction::Reply));
                }
                won
            }
        };
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                while !stop.load(Relaxed) {
                    assert!(has(&index, stay, 1 << 20, Direction::Original), "hidden");
                    std::thread::yield_now();
                }
            });
            let won = [scope.spawn(lcore(1)), scope.spawn(lcore(2))].map(|t| t.join());
            stop.store(true, Relaxed);
            reader.join().unwrap();
            assert!(won.into_iter().all(|won| won.unwrap() > 0));
        });
        assert!(index.remove(stay, conn(1 << 20), Direction::Original));
        assert_eq!(index.census(), (0, 0));
    }
}
