//! The store: the shared index and records, and one lcore's right to change its part of them.
//!
//! [`Shared`] is what all lcores and the control core read: every method takes `&self`, finds and
//! compares, and changes nothing but due times. It is a view: everything in it is the same for all,
//! but while the table gets another size the next view of the index reaches lcore after lcore
//! ([`super::index`]; [`Store::take_view`]), and an lcore never frees one. A [`Store`] is one
//! lcore's: only through it are conns made, confirmed and deleted, and only those that this lcore
//! owns.
//!
//! ```text
//!            allocate              confirm                    delete
//!   free ───────────► unconfirmed ─────────► in the table ─────────────► free, incarnation + 1
//!     ▲                    │ release_unconfirmed
//!     └────────────────────┘
//! ```
//!
//! A conn costs a credit from `allocate` on, as the kernel counts it. An expired conn counts as
//! gone for every search at once; its owner deletes it when it meets it, when the control core's
//! sweep names it, or in an early drop. Nothing here allocates, waits or counts: callers get facts.
//!
//! *By source.* The kernel hashes every conn whose source NAT has been set up, changed or not,
//! but searches that hash only for a tuple whose own source is outside the wanted range
//! (`get_unique_tuple`), where a conn with an unchanged source cannot help. So only conns with
//! SRC_NAT are listed, which finds the same. The list holds at most [`super::index::SLOTS`] conns
//! of one source; more of them are not listed, which costs a mapping's reuse only when all listed
//! ones have ended first. It is in no order, where the kernel looks at the newest first.

use core::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::capacity::Capacity;
use super::chunks::FreeList;
use super::counts::Counts;
use super::early::can_go_early;
use super::expect::{EXPECT_MAX_LIMIT, Expectations};
use super::extension::{Extension, Extensions, FreeBlocks};
use super::index::{Due, Index, Moved, Refused};
use super::proxied::Proxied;
use super::record::{Conn, ConnId, ConnRef, Family, Records, Start};
use super::state::{Direction, Status};
use super::syncookie::Cookies;
use super::tuple::{HashSeed, Tuple};
use super::views::{Which, source_lines};
use super::zones::Zones;
use crate::arch::OutOfMemory;
use crate::time::Tick;

/// The largest `max` that can be configured.
pub const MAX_LIMIT: u32 = 1 << 28;

/// Seconds until an expired conn that was taken on by a sweep is reported again.
const REPORT_AGAIN_SECS: u32 = 2;

/// What is fixed when the store is made.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// The limit on conns; the index is sized so that this many, all with NAT, load it to 1/2.
    pub max: u32,
    /// Lcores that own conns, numbered from 0.
    pub lcores: u8,
    /// Conns that can have an extension block.
    pub extensions: u32,
}

/// Why there is no store, or no such limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetupError {
    /// No memory.
    Memory(OutOfMemory),
    /// `max` is larger than this index can serve.
    AboveLargest {
        /// What was asked for.
        max: u32,
        /// What is possible.
        largest: u32,
    },
}

impl From<OutOfMemory> for SetupError {
    fn from(error: OutOfMemory) -> SetupError {
        SetupError::Memory(error)
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetupError::Memory(error) => error.fmt(f),
            SetupError::AboveLargest { max, largest } => {
                write!(f, "max {max} is above the largest that this index serves, {largest}")
            }
        }
    }
}

impl core::error::Error for SetupError {}

/// Why a conn could not be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// `max` conns exist: drop early and try again.
    Full,
    /// The control core has made no memory for another record yet.
    NoRecord,
}

/// A conn that has the tuple searched for.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The conn. Its owner may be another lcore.
    pub conn: Conn<'a>,
    /// Which of its tuples was searched for.
    pub direction: Direction,
    /// Its deadline has passed: treat as not found, and delete it if it is yours.
    pub expired: bool,
}

/// Conns that end together: about as many cache misses as a core has under way.
pub const ENDS_AT_ONCE: usize = 16;

/// A conn that is to end, and what it is entered under.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Which one.
    pub id: ConnId,
    hashes: (u64, u64),
    source: Option<u64>,
}

/// What all lcores share; see above.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Tuples to records.
    pub index: Index,
    /// The conns of a source whose source is translated.
    pub by_source: Index,
    /// The records.
    pub records: Records,
    /// The limit and the count.
    pub capacity: Arc<Capacity>,
    /// Accounting, time stamps, labels.
    pub extensions: Extensions,
    /// Conns counted by key.
    pub counts: Arc<Counts>,
    /// Conns to come.
    pub expectations: Arc<Expectations>,
    /// Secrets of the hash.
    pub seed: HashSeed,
    /// Secrets of SYN cookies.
    pub cookies: Cookies,
    pub(super) largest: u32,
    /// Free records, and blocks, that lcores may keep from the one that needs them.
    pub(super) out_of_reach: u32,
}

/// The limit on expectations for a table of so many buckets: four for each bucket of the kernel's
/// table of them, which has one for 256 buckets of conns (`nf_conntrack_expect_init`).
pub fn default_expect_max(buckets: u32) -> u32 {
    (buckets / 256).max(1).saturating_mul(4).min(EXPECT_MAX_LIMIT)
}

impl Shared {
    /// Makes the index for `sizes`. Records have no memory yet: see [`Records::ensure_chunks`].
    pub fn new(sizes: Sizes, seed: HashSeed) -> Result<Shared, SetupError> {
        Shared::with_hashsize(sizes, 0, seed)
    }

    /// The same with at least `hashsize` slots.
    pub fn with_hashsize(
        sizes: Sizes,
        hashsize: u32,
        seed: HashSeed,
    ) -> Result<Shared, SetupError> {
        let arrays = Shared::make_arrays(sizes.max, hashsize)?;
        let hoards = sizes.lcores.max(1) as u32 * FreeList::HOARD;
        let out_of_reach = hoards - FreeList::HOARD;
        let extensions = match sizes.extensions {
            0 => 0,
            wanted => wanted.saturating_add(out_of_reach),
        };
        Ok(Shared {
            index: arrays.index,
            by_source: Index::with_buckets(source_lines(sizes.max) as u32)?,
            records: Records::new(arrays.largest + hoards),
            capacity: Arc::new(Capacity::new(sizes.max, sizes.lcores)),
            extensions: Extensions::new(extensions),
            counts: Arc::new(Counts::new(sizes.max, arrays.largest + hoards)),
            expectations: {
                let limit = default_expect_max(sizes.max / 4);
                Arc::new(Expectations::new(limit, limit, sizes.lcores, seed))
            },
            seed,
            cookies: Cookies::new(&seed),
            largest: arrays.largest,
            out_of_reach,
        })
    }

    /// With another table of expectations: for `largest` of them, `limit` at first. Before any
    /// lcore runs; allocates.
    pub fn with_expectations(self, limit: u32, largest: u32, lcores: u8) -> Shared {
        let expectations = Expectations::new(limit, largest, lcores, self.seed);
        Shared { expectations: Arc::new(expectations), ..self }
    }

    /// Makes memory for so many conns of a family, whichever lcores have them, and for what the
    /// others keep free meanwhile. Control core only; allocates.
    pub fn ensure_conns(&self, family: Family, conns: u32) -> Result<(), OutOfMemory> {
        self.records.ensure_chunks(family, conns.saturating_add(self.out_of_reach))
    }

    /// Changes the limit, live. Deletes nothing. Beyond [`Shared::largest_max`] it is refused; 0,
    /// which is no limit in the kernel, means that largest one.
    pub fn set_max(&self, max: u32) -> Result<(), SetupError> {
        if max > self.largest {
            return Err(SetupError::AboveLargest { max, largest: self.largest });
        }
        self.capacity.set_max(if max == 0 { self.largest } else { max });
        Ok(())
    }

    /// The largest limit that this index serves: one and a half times the one it was made for.
    pub fn largest_max(&self) -> u32 {
        self.largest
    }

    /// Bytes of memory: indexes and expectations, records, extension blocks and counts made so far.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
            + self.by_source.bytes()
            + self.records.bytes()
            + self.extensions.bytes()
            + self.counts.bytes()
            + self.expectations.bytes()
    }

    /// The index hash of a tuple looked up in `zone`.
    #[inline]
    pub fn hash(&self, tuple: &Tuple, zone: u16) -> u64 {
        tuple.hash(zone, &self.seed)
    }

    /// The conn that has `tuple` in `zone`; `hash` is [`Shared::hash`] of both. A live one is
    /// preferred; an expired one is reported only where there is no other.
    #[inline(always)]
    pub fn find(&self, hash: u64, tuple: &Tuple, zone: u16, now: Tick) -> Option<Found<'_>> {
        if self.index.is_vacant(hash) {
            return None;
        }
        self.find_among(hash, tuple, zone, now)
    }

    #[inline(never)]
    fn find_among(&self, hash: u64, tuple: &Tuple, zone: u16, now: Tick) -> Option<Found<'_>> {
        let (found, more) = self.index.lookup_home(hash, |number| {
            let conn = self.records.get(number)?;
            let direction = conn.matches(tuple, zone)?;
            conn.shows(direction).then_some((conn, direction))
        });
        match found {
            Some((conn, direction)) if !conn.is_expired(now) => {
                Some(Found { conn, direction, expired: false })
            }
            None if !more => None,
            _ => self.find_anywhere(hash, tuple, zone, now),
        }
    }

    /// The conn that a packet with this tuple belongs to (`nf_conntrack_find_get`): searched for in
    /// the original direction's zone, then in the reply's if that is another.
    #[inline]
    pub fn find_in(&self, tuple: &Tuple, zones: Zones, now: Tick) -> Option<Found<'_>> {
        self.find_hashed(self.hash(tuple, zones.original), tuple, zones, now)
    }

    /// The same where the hash for the original direction's zone is known.
    #[inline]
    pub fn find_hashed(
        &self,
        hash: u64,
        tuple: &Tuple,
        zones: Zones,
        now: Tick,
    ) -> Option<Found<'_>> {
        if zones.is_split() {
            return self.find_in_two(tuple, zones, now);
        }
        self.find(hash, tuple, zones.original, now)
    }

    #[inline(never)]
    fn find_in_two(&self, tuple: &Tuple, zones: Zones, now: Tick) -> Option<Found<'_>> {
        let in_one = |direction| {
            let zone = zones.of(direction);
            let found = self.find(self.hash(tuple, zone), tuple, zone, now)?;
            (found.direction == direction).then_some(found)
        };
        let first = in_one(Direction::Original);
        if first.is_some_and(|found| !found.expired) {
            return first;
        }
        let second = in_one(Direction::Reply);
        if second.is_some_and(|found| !found.expired) { second } else { first.or(second) }
    }

    /// The live conn for a packet of a burst: `candidate` is what [`Index::candidate`] said when
    /// the records were prefetched. It is believed if it is (still) a live conn that `matches`
    /// takes for the packet's, which spares the second look into the index; otherwise the search
    /// starts over, for `tuple()`.
    #[inline(always)]
    pub fn find_live<'a>(
        &'a self,
        candidate: Option<Conn<'a>>,
        zone: u16,
        now: Tick,
        matches: impl FnOnce(Conn<'_>) -> Option<Direction>,
        search: impl FnOnce() -> (u64, Tuple),
    ) -> Option<(Conn<'a>, Direction)> {
        if let Some(conn) = candidate
            && let Some(direction) = matches(conn)
            && conn.status().0 & (Status::CONFIRMED.0 | Status::NAT_CLASH.0) == Status::CONFIRMED.0
            && !conn.is_expired(now)
        {
            return Some((conn, direction));
        }
        // Numbers come back in registers, a whole `Found` would go through memory.
        let (hash, tuple) = search();
        let (number, direction) = self.find_number(hash, &tuple, zone, now)?;
        Some((self.records.get(number)?, direction))
    }

    #[inline(never)]
    fn find_number(
        &self,
        hash: u64,
        tuple: &Tuple,
        zone: u16,
        now: Tick,
    ) -> Option<(ConnRef, Direction)> {
        let found = self.find(hash, tuple, zone, now).filter(|found| !found.expired)?;
        Some((found.conn.number(), found.direction))
    }

    /// The whole search, past entries at home and expired conns.
    #[cold]
    #[inline(never)]
    fn find_anywhere(&self, hash: u64, tuple: &Tuple, zone: u16, now: Tick) -> Option<Found<'_>> {
        let mut stale = None;
        let live = self.index.lookup(hash, |number, _| {
            let conn = self.records.get(number)?;
            let direction = conn.matches(tuple, zone).filter(|&d| conn.shows(d))?;
            let expired = conn.is_expired(now);
            let found = Found { conn, direction, expired };
            if expired {
                stale = Some(found);
                return None;
            }
            Some(found)
        });
        live.or(stale)
    }

    /// A live conn other than `ignoring` that has `tuple` (`nf_conntrack_tuple_taken`): what
    /// decides whether NAT may choose it as a reply tuple.
    pub fn is_taken(
        &self,
        tuple: &Tuple,
        zone: u16,
        ignoring: Option<ConnRef>,
        now: Tick,
    ) -> Option<ConnRef> {
        self.index.lookup(self.hash(tuple, zone), |number, _| {
            let taken = Some(number) != ignoring && self.holds(number, tuple, zone, now);
            taken.then_some(number)
        })
    }

    /// True if the record holds this very conn, not a later one.
    fn is(&self, number: ConnRef, id: Option<ConnId>) -> bool {
        id.is_some_and(|id| id.conn == number && self.records.get(number).map(Conn::id) == Some(id))
    }

    fn holds(&self, number: ConnRef, tuple: &Tuple, zone: u16, now: Tick) -> bool {
        let holds = |conn: Conn<'_>| {
            conn.matches(tuple, zone).is_some_and(|d| conn.shows(d)) && !conn.is_expired(now)
        };
        self.records.get(number).is_some_and(holds)
    }

    /// Offers the conns whose original source is that of `tuple` (address, id and protocol) and
    /// whose source is translated, the newest first, until `accept` takes one
    /// (`find_appropriate_src`).
    pub fn same_source<T>(
        &self,
        tuple: &Tuple,
        zone: u16,
        mut accept: impl FnMut(Conn<'_>) -> Option<T>,
    ) -> Option<T> {
        let hash = tuple.source_hash(zone, &self.seed);
        if self.by_source.is_vacant(hash) {
            return None;
        }
        self.by_source.listed(hash).find_map(|number| {
            let conn = self.records.get(number)?;
            let orig = conn.orig();
            let same = (orig.src, orig.src_id, orig.proto)
                == (tuple.src, tuple.src_id, tuple.proto)
                && conn.zone(Direction::Original) == zone
                && conn.status().has(Status::SRC_NAT);
            if same { accept(conn) } else { None }
        })
    }

    /// Looks at `buckets` buckets from `from` on, arms the due times of conns that live on and
    /// names the expired ones with their owner; returns where to go on, 0 at the end. Control
    /// core only.
    ///
    /// `expired` returns whether it took the conn on. Such a conn is named again after two
    /// seconds if it is still there; one that was not taken on, by the next pass.
    pub fn sweep(
        &self,
        from: u32,
        buckets: u32,
        now: Tick,
        mut expired: impl FnMut(ConnId, u8) -> bool,
    ) -> u32 {
        let ahead = |number| {
            self.records.prefetch(number, false, false);
        };
        self.index.sweep(from, buckets, Due::now(now), ahead, |number| {
            let conn = self.records.get(number)?;
            if !conn.status().has(Status::CONFIRMED) {
                return None;
            }
            if !conn.is_expired(now) {
                return Some(Due::of(conn.deadline(), now));
            }
            let (id, owner) = (conn.id(), conn.owner()?);
            expired(id, owner).then(|| Due::of(now.plus_secs(REPORT_AGAIN_SECS), now))
        })
    }

    /// Looks at `buckets` buckets from `from` on and names, with their owners, live conns that may
    /// go when the table is nearly full ([`can_go_early`]); returns where to go on, 0 at the end.
    /// Control core only.
    pub fn spendable(
        &self,
        from: u32,
        buckets: u32,
        now: Tick,
        mut name: impl FnMut(ConnId, u8),
    ) -> u32 {
        self.index.originals(from, buckets, |number| {
            let Some(conn) = self.records.get(number) else { return };
            let live = conn.status().has(Status::CONFIRMED) && !conn.is_expired(now);
            if live
                && can_go_early(conn)
                && let Some(owner) = conn.owner()
            {
                name(conn.id(), owner);
            }
        })
    }

    /// The extension block of a conn.
    #[inline]
    pub fn extension(&self, conn: Conn<'_>) -> Option<Extension<'_>> {
        self.extensions.get(conn.extension()?)
    }

    /// What is kept of a conn that SYNPROXY has opened.
    #[inline]
    pub fn proxied(&self, conn: Conn<'_>) -> Option<Proxied<'_>> {
        self.extensions.proxied(conn.extension()?)
    }
}

/// One lcore's hands: it makes, confirms and deletes the conns that this lcore owns.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    lcore: u8,
    free_v4: FreeList,
    free_v6: FreeList,
    free_extensions: FreeBlocks,
}

impl Store {
    /// The store of lcore `lcore`. There must be only one for each number.
    pub fn new(shared: Arc<Shared>, lcore: u8) -> Store {
        Store {
            shared,
            lcore,
            free_v4: FreeList::default(),
            free_v6: FreeList::default(),
            free_extensions: FreeBlocks::default(),
        }
    }

    /// What all lcores share.
    #[inline]
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Goes on with another view of the same table; the old one is the control core's to free.
    pub fn take_view(&mut self, view: Arc<Shared>) -> Arc<Shared> {
        core::mem::replace(&mut self.shared, view)
    }

    /// Moves this lcore's entries in `buckets` buckets of an old array to the new one
    /// ([`Index::move_own`]).
    pub fn move_own(&mut self, which: Which, from: u32, buckets: u32) -> Moved {
        let shared = &*self.shared;
        let index = match which {
            Which::Tuples => &shared.index,
            Which::Sources => &shared.by_source,
        };
        index.numbers_in(from, buckets, |number| {
            shared.records.prefetch(number, false, true);
        });
        // The list of sources may be incomplete.
        index.move_own(from, buckets, which == Which::Sources, |number, side| {
            let conn = self.owned(number, true)?;
            let (first, second) = match which {
                Which::Tuples => shared.hashes(conn),
                Which::Sources => (shared.source_hash(conn), 0),
            };
            Some(if side == Direction::Original { first } else { second })
        })
    }

    /// The lcore that this store belongs to.
    #[inline]
    pub fn lcore(&self) -> u8 {
        self.lcore
    }

    /// The record of a number, whoever owns it.
    #[inline]
    pub fn conn(&self, number: ConnRef) -> Option<Conn<'_>> {
        self.shared.records.get(number)
    }

    /// A confirmed conn of this lcore, if it is still the one that was meant.
    pub fn get(&self, id: ConnId) -> Option<Conn<'_>> {
        self.owned(id.conn, true).filter(|conn| conn.incarnation() == id.incarnation)
    }

    /// As [`Shared::find`], hashing first.
    #[inline]
    pub fn find(&self, tuple: &Tuple, zone: u16, now: Tick) -> Option<Found<'_>> {
        self.shared.find(self.shared.hash(tuple, zone), tuple, zone, now)
    }

    fn owned(&self, number: ConnRef, confirmed: bool) -> Option<Conn<'_>> {
        let conn = self.shared.records.get(number)?;
        let mine = conn.owner() == Some(self.lcore);
        (mine && conn.status().has(Status::CONFIRMED) == confirmed).then_some(conn)
    }

    /// An unconfirmed conn: in no table, found by nobody. `zones` are those that the original
    /// and the reply direction are looked up in. Both tuples must be of one family.
    pub fn allocate(
        &mut self,
        orig: &Tuple,
        reply: &Tuple,
        zones: [u16; 2],
    ) -> Result<ConnRef, AllocError> {
        self.begin(&Start { orig, reply, zones, tracker: [0; 7], era: 0 })
    }

    /// The same for a conn whose tracker has spoken.
    pub fn begin(&mut self, new: &Start<'_>) -> Result<ConnRef, AllocError> {
        let v6 = new.orig.is_v6();
        debug_assert_eq!(v6, new.reply.is_v6());
        if !self.shared.capacity.take(self.lcore) {
            return Err(AllocError::Full);
        }
        let records = &self.shared.records;
        let (family, number) = if v6 {
            (Family::V6, self.free_v6.pop(&records.v6))
        } else {
            (Family::V4, self.free_v4.pop(&records.v4))
        };
        let number = number.map(|number| ConnRef::new(family, number));
        let Some(conn) = number.and_then(|number| records.get(number)) else {
            self.shared.capacity.give(self.lcore);
            return Err(AllocError::NoRecord);
        };
        conn.start(new, self.lcore);
        Ok(conn.number())
    }

    /// Enters an unconfirmed conn into the table with this deadline, both tuples or neither
    /// (`__nf_conntrack_confirm`). Expired conns are no clash. After a refusal the conn is still
    /// unconfirmed and has to be released.
    pub fn confirm(&mut self, number: ConnRef, deadline: Tick, now: Tick) -> Result<(), Refused> {
        let hashes = self.conn(number).map_or((0, 0), |conn| self.shared.hashes(conn));
        self.confirm_over(number, hashes, None, deadline, now)
    }

    /// The same where the hashes of the original and the reply tuple are known; `over`, which its
    /// owner is about to delete, is no clash either.
    pub fn confirm_over(
        &mut self,
        number: ConnRef,
        (orig, reply): (u64, u64),
        over: Option<ConnId>,
        deadline: Tick,
        now: Tick,
    ) -> Result<(), Refused> {
        let shared = &*self.shared;
        let Some(conn) = self.owned(number, false) else {
            debug_assert!(false, "confirm of a conn that is not this lcore's unconfirmed one");
            return Err(Refused::NoRoom);
        };
        debug_assert_eq!((orig, reply), shared.hashes(conn), "its tuples have changed since");
        conn.set_deadline(deadline);
        let due = Due::of(deadline, now);
        shared.index.confirm_pair(orig, reply, number, due, |side, other| {
            !shared.is(other, over) && shared.holds(other, &conn.tuple(side), conn.zone(side), now)
        })?;
        if conn.status().has(Status::SRC_NAT)
            && shared.by_source.list(shared.source_hash(conn), number)
        {
            conn.set_listed();
        }
        conn.add_status(Status::CONFIRMED);
        Ok(())
    }

    /// Enters an unconfirmed conn whose original tuple is taken under its reply tuple alone, for
    /// one second, seen only by its answers (`nf_ct_resolve_clash_harder`).
    pub fn confirm_reply_alone(&mut self, number: ConnRef, now: Tick) -> Result<(), Refused> {
        let shared = &*self.shared;
        let Some(conn) = self.owned(number, false) else { return Err(Refused::NoRoom) };
        let deadline = now.plus_secs(1);
        conn.set_deadline(deadline);
        conn.add_status(Status::NAT_CLASH.with(Status::FIXED_TIMEOUT));
        let (reply, zone) = (conn.reply(), conn.zone(Direction::Reply));
        let hash = shared.hash(&reply, zone);
        shared.index.confirm_pair(hash, hash, number, Due::of(deadline, now), |_, other| {
            shared.holds(other, &reply, zone, now)
        })?;
        conn.add_status(Status::CONFIRMED);
        Ok(())
    }

    /// Gives an unconfirmed conn back, with its extension block and its credit. False if it is
    /// not one of this lcore's.
    pub fn release_unconfirmed(&mut self, number: ConnRef) -> bool {
        let conn = self.owned(number, false).map(Conn::number);
        conn.is_some_and(|number| self.free(number))
    }

    /// Takes a confirmed conn out of the table and frees it. False if it is not one of this
    /// lcore's. Whoever tells others about the end of a conn does so before.
    pub fn delete(&mut self, number: ConnRef) -> bool {
        self.ending(number).is_some_and(|ending| self.end(&ending))
    }

    /// What a confirmed conn of this lcore is entered under.
    #[inline(always)]
    pub fn ending(&self, number: ConnRef) -> Option<Ending> {
        let conn = self.owned(number, true)?;
        let hashes = self.shared.hashes(conn);
        let source = conn.is_listed().then(|| self.shared.source_hash(conn));
        Some(Ending { id: conn.id(), hashes, source })
    }

    /// The same as [`Store::delete`]; false if the conn that was meant is no more.
    pub fn end(&mut self, ending: &Ending) -> bool {
        let Ending { id, hashes: (orig, reply), source } = *ending;
        if self.get(id).is_none() {
            return false;
        }
        let (shared, number) = (&*self.shared, id.conn);
        let mut removed = shared.index.remove(orig, number, Direction::Original);
        if reply != orig {
            removed &= shared.index.remove(reply, number, Direction::Reply);
        }
        debug_assert!(removed, "a confirmed conn has its entries");
        if let Some(hash) = source {
            shared.by_source.remove(hash, number, Direction::Original);
        }
        self.free(number)
    }

    /// Brings in what the end of these conns will touch, a few at once that are deleted next: their
    /// records, then the lines of both indexes. Those that are meant no more are left out.
    pub fn prefetch_ends(&self, conns: &[ConnId]) -> ArrayVec<Ending, ENDS_AT_ONCE> {
        let shared = &*self.shared;
        for id in conns {
            shared.records.prefetch(id.conn, false, false);
        }
        let mut endings = ArrayVec::new();
        let meant = |id: &ConnId| self.ending(id.conn).filter(|ending| ending.id == *id);
        for ending in conns.iter().take(ENDS_AT_ONCE).filter_map(meant) {
            let (orig, reply) = ending.hashes;
            shared.index.prefetch(orig);
            if reply != orig {
                shared.index.prefetch(reply);
            }
            if let Some(hash) = ending.source {
                shared.by_source.prefetch(hash);
            }
            endings.push(ending);
        }
        endings
    }

    fn free(&mut self, number: ConnRef) -> bool {
        let shared = &*self.shared;
        let Some(conn) = shared.records.get(number) else { return false };
        if let Some(block) = conn.extension() {
            shared.extensions.give(&mut self.free_extensions, block);
        }
        if conn.is_counted() {
            shared.counts.leave(conn);
        }
        conn.stop();
        match number.family() {
            Family::V4 => self.free_v4.push(&shared.records.v4, number.number()),
            Family::V6 => self.free_v6.push(&shared.records.v6, number.number()),
        }
        shared.capacity.give(self.lcore);
        true
    }

    /// The conn's extension block, a new one if it has none yet; `None` if the pool is exhausted
    /// or the conn is not this lcore's.
    pub fn extend(&mut self, number: ConnRef) -> Option<Extension<'_>> {
        let shared = &*self.shared;
        let conn = shared.records.get(number)?;
        if conn.owner() != Some(self.lcore) {
            return None;
        }
        if conn.extension().is_none() {
            conn.set_extension(Some(shared.extensions.take(&mut self.free_extensions)?));
        }
        shared.extension(conn)
    }

    /// Makes the conn's extension block a wide one, with what the one has that it may have; `None`
    /// likewise.
    pub fn extend_widely(&mut self, number: ConnRef) -> Option<Proxied<'_>> {
        let shared = &*self.shared;
        let conn = shared.records.get(number)?;
        if conn.owner() != Some(self.lcore) {
            return None;
        }
        if shared.proxied(conn).is_none() {
            let wide = shared.extensions.take_wide(&mut self.free_extensions)?;
            if let Some(narrow) = conn.extension() {
                let both = (shared.extensions.get(wide), shared.extensions.get(narrow));
                if let (Some(to), Some(from)) = both {
                    to.copy(from);
                }
                shared.extensions.give(&mut self.free_extensions, narrow);
            }
            conn.set_extension(Some(wide));
        }
        shared.proxied(conn)
    }

    /// Tells the sweep at once about a deadline that was shortened, for who cannot wait for
    /// [`Due::HORIZON_SECS`]. False if the conn is not a confirmed one of this lcore.
    pub fn arm(&mut self, number: ConnRef, now: Tick) -> bool {
        let shared = &*self.shared;
        self.owned(number, true).is_some_and(|conn| {
            let hash = shared.hashes(conn).0;
            shared.index.set_due(hash, number, Due::of(conn.deadline(), now))
        })
    }

    /// The confirmed conns of this lcore among the `count` numbers from `from` on; for walks in
    /// slices, up to [`Records::numbers`].
    pub fn slice(&self, family: Family, from: u32, count: u32) -> impl Iterator<Item = Conn<'_>> {
        let to = from.saturating_add(count).min(self.shared.records.numbers(family));
        let own = move |number| self.owned(ConnRef::new(family, number), true);
        // Who is not to be found by its original tuple is not listed either, as in the kernel.
        (from..to).filter_map(own).filter(|conn| conn.shows(Direction::Original))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::super::chunks::CHUNK;
    use super::super::tuple::proto;
    use super::*;
    use crate::wire::address::Address;

    const SEED: HashSeed = HashSeed([
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0x2545_f491_4f6c_dd1d,
        0xd6e8_feb8_6659_fd93,
    ]);
    pub(in crate::conntrack) const NOW: Tick = Tick(u32::MAX - 1000);

    pub(in crate::conntrack) fn shared(max: u32, lcores: u8) -> Arc<Shared> {
        let shared = Shared::new(Sizes { max, lcores, extensions: 2 }, SEED).unwrap();
        shared.records.ensure_chunks(Family::V4, u32::MAX).unwrap();
        shared.records.ensure_chunks(Family::V6, u32::MAX).unwrap();
        shared.extensions.ensure_chunks(u32::MAX).unwrap();
        Arc::new(shared)
    }

    pub(in crate::conntrack) fn store(max: u32) -> Store {
        Store::new(shared(max, 1), 0)
    }

    pub(in crate::conntrack) fn tuple(v6: bool, src: u32, port: u16) -> Tuple {
        let address = |low: u32| {
            if v6 { Address::v6(0xfd << 120 | low as u128) } else { Address::v4(low) }
        };
        let (src, dst) = (address(src), address(0xc633_6401));
        Tuple { src, dst, src_id: port, dst_id: 443, proto: proto::TCP }
    }

    /// The reply tuple of `orig` when its source is translated to `to` and `port`.
    fn snat(orig: &Tuple, to: u32, port: u16) -> Tuple {
        let to = tuple(orig.is_v6(), to, port);
        Tuple { src_id: port, src: to.src, ..*orig }.inverted().unwrap()
    }

    fn add(store: &mut Store, orig: &Tuple, reply: &Tuple) -> Result<ConnRef, Refused> {
        let number = store.allocate(orig, reply, [0, 0]).unwrap();
        let conn = store.conn(number).unwrap();
        if orig.inverted() != Some(*reply) {
            conn.add_status(Status::SRC_NAT);
        }
        match store.confirm(number, NOW.plus_secs(30), NOW) {
            Ok(()) => Ok(number),
            Err(refused) => {
                assert!(store.release_unconfirmed(number));
                Err(refused)
            }
        }
    }

    pub(in crate::conntrack) fn add_plain(store: &mut Store, orig: &Tuple) -> ConnRef {
        add(store, orig, &orig.inverted().unwrap()).unwrap()
    }

    fn is_empty(store: &Store) -> bool {
        let shared = store.shared();
        shared.index.census() == (0, 0)
            && shared.by_source.census() == (0, 0)
            && shared.capacity.count() == 0
    }

    #[test]
    fn a_conn_lives_from_allocation_to_deletion() {
        for v6 in [false, true] {
            let mut store = store(10);
            let orig = tuple(v6, 1, 1000);
            let reply = snat(&orig, 9, 2000);
            let number = store.allocate(&orig, &reply, [0, 0]).unwrap();
            assert!(store.find(&orig, 0, NOW).is_none(), "unconfirmed conns are in no table");
            let before = store.conn(number).unwrap().id();
            store.conn(number).unwrap().add_status(Status::SRC_NAT);
            store.confirm(number, NOW.plus_secs(30), NOW).unwrap();

            for (tuple, direction) in [(orig, Direction::Original), (reply, Direction::Reply)] {
                let found = store.find(&tuple, 0, NOW).unwrap();
                assert_eq!((found.conn.number(), found.direction), (number, direction));
                assert!(!found.expired);
                assert_eq!(found.conn.tuple(direction), tuple);
                assert!(store.find(&tuple, 1, NOW).is_none(), "another zone");
                let shared = store.shared();
                let hash = shared.hash(&tuple, 0);
                let home = shared.index.prefetch(hash);
                assert_eq!(shared.index.candidate(home, hash), Some(number));
                for candidate in [None, Some(number), Some(ConnRef::new(Family::V4, 77))] {
                    let found = shared
                        .find_live(
                            candidate.and_then(|n| store.conn(n)),
                            0,
                            NOW,
                            |c| c.matches(&tuple, 0),
                            || (hash, tuple),
                        )
                        .unwrap();
                    assert_eq!((found.0.number(), found.1), (number, direction));
                }
                assert!(store.find(&tuple, 0, NOW.plus_secs(30)).unwrap().expired);
            }
            assert!(store.find(&orig.inverted().unwrap(), 0, NOW).is_none());
            assert_eq!(store.get(before).unwrap().number(), number);
            assert_eq!(store.shared().by_source.census().0, 1);

            assert!(!store.release_unconfirmed(number), "it is confirmed");
            assert!(store.delete(number));
            assert!(!store.delete(number) && !store.release_unconfirmed(number));
            assert!(store.get(before).is_none());
            let hash = store.shared().hash(&orig, 0);
            assert!(
                store
                    .shared()
                    .find_live(store.conn(number), 0, NOW, |c| c.matches(&orig, 0), || (hash, orig))
                    .is_none()
            );
            // The record again, for the same tuple, not yet confirmed: a candidate is not believed.
            let again = store.allocate(&orig, &reply, [0, 0]).unwrap();
            store.conn(again).unwrap().set_deadline(NOW.plus_secs(9));
            assert_eq!(again, number);
            assert!(
                store
                    .shared()
                    .find_live(store.conn(number), 0, NOW, |c| c.matches(&orig, 0), || (hash, orig))
                    .is_none()
            );
            assert!(store.release_unconfirmed(again));
            assert!(store.find(&orig, 0, NOW).is_none() && store.find(&reply, 0, NOW).is_none());
            assert!(is_empty(&store));
        }
    }

    #[test]
    fn a_plain_conn_takes_one_entry_and_is_found_from_both_sides() {
        let mut store = store(10);
        let orig = tuple(false, 1, 1000);
        add_plain(&mut store, &orig);
        assert_eq!(store.shared().index.census().0, 1);
        let reply = store.find(&orig.inverted().unwrap(), 0, NOW).unwrap();
        assert_eq!(reply.direction, Direction::Reply);
    }

    #[test]
    fn a_packet_to_oneself_has_the_original_direction() {
        let mut store = store(10);
        let at = Address::v4(7);
        let orig = Tuple { src: at, dst: at, src_id: 5, dst_id: 5, proto: proto::UDP };
        add_plain(&mut store, &orig);
        assert_eq!(store.find(&orig, 0, NOW).unwrap().direction, Direction::Original);
    }

    #[test]
    fn zones_of_both_directions_may_differ() {
        let mut store = store(10);
        let orig = tuple(false, 1, 1000);
        let reply = orig.inverted().unwrap();
        let number = store.allocate(&orig, &reply, [3, 0]).unwrap();
        store.confirm(number, NOW.plus_secs(9), NOW).unwrap();
        assert!(store.find(&orig, 3, NOW).is_some() && store.find(&orig, 0, NOW).is_none());
        assert!(store.find(&reply, 0, NOW).is_some() && store.find(&reply, 3, NOW).is_none());
        assert!(store.delete(number));
        assert!(is_empty(&store));
    }

    #[test]
    fn a_clash_on_either_side_changes_nothing() {
        let mut store = store(100);
        let (a, b) = (tuple(false, 1, 1000), tuple(false, 2, 1000));
        let first = add(&mut store, &a, &snat(&a, 9, 2000)).unwrap();
        let before = (store.shared().index.census(), store.shared().capacity.count());
        // The port of the first conn, chosen again for another source.
        assert_eq!(store.shared().is_taken(&snat(&b, 9, 2000), 0, None, NOW), Some(first));
        assert_eq!(store.shared().is_taken(&snat(&b, 9, 2000), 0, Some(first), NOW), None);
        assert_eq!(store.shared().is_taken(&snat(&b, 9, 2001), 0, None, NOW), None);
        let refused = add(&mut store, &b, &snat(&b, 9, 2000));
        assert_eq!(refused, Err(Refused::Clash { with: first, side: Direction::Reply }));
        let refused = add(&mut store, &a, &snat(&a, 9, 2001));
        assert_eq!(refused, Err(Refused::Clash { with: first, side: Direction::Original }));
        assert_eq!((store.shared().index.census(), store.shared().capacity.count()), before);
        assert!(store.find(&b, 0, NOW).is_none());
    }

    #[test]
    fn only_the_conn_that_makes_room_is_no_clash_not_its_successor() {
        let shared = shared(10, 2);
        let (mut owner, mut other) = (Store::new(shared.clone(), 0), Store::new(shared, 1));
        let orig = tuple(false, 1, 1);
        let reply = orig.inverted().unwrap();
        let finished = add_plain(&mut owner, &orig);
        let over = owner.conn(finished).unwrap().id();
        assert!(owner.delete(finished));
        assert_eq!(add_plain(&mut owner, &orig), finished, "the same record once more");
        let late = other.allocate(&orig, &reply, [0, 0]).unwrap();
        let (deadline, hash) = (NOW.plus_secs(30), other.shared().hash(&orig, 0));
        let hashes = (hash, hash);
        let refused = other.confirm_over(late, hashes, Some(over), deadline, NOW);
        assert!(matches!(refused, Err(Refused::Clash { with, .. }) if with == finished));
        let over = owner.conn(finished).unwrap().id();
        assert_eq!(other.confirm_over(late, hashes, Some(over), deadline, NOW), Ok(()));
    }

    #[test]
    fn an_expired_conn_is_no_clash_and_hides_behind_its_successor() {
        let mut store = store(100);
        let orig = tuple(false, 1, 1000);
        let old = add_plain(&mut store, &orig);
        let later = NOW.plus_secs(31);
        assert!(store.find(&orig, 0, later).unwrap().expired);
        assert_eq!(store.shared().is_taken(&orig, 0, None, later), None);
        let new = store.allocate(&orig, &orig.inverted().unwrap(), [0, 0]).unwrap();
        store.confirm(new, later.plus_secs(30), later).unwrap();
        let found = store.find(&orig, 0, later).unwrap();
        assert_eq!((found.conn.number(), found.expired), (new, false));
        assert!(store.delete(old));
        assert_eq!(store.find(&orig, 0, later).unwrap().conn.number(), new);
        assert!(store.delete(new));
        assert!(is_empty(&store));
    }

    #[test]
    fn the_sweep_names_the_expired_and_arms_the_rest() {
        let mut store = store(1000);
        let short = add_plain(&mut store, &tuple(false, 1, 1));
        let long = tuple(false, 2, 2);
        let long = store.allocate(&long, &long.inverted().unwrap(), [0, 0]).unwrap();
        store.confirm(long, NOW.plus_secs(432_000), NOW).unwrap();
        let pass = |store: &Store, now: Tick, take: bool| {
            let mut named = Vec::new();
            let mut at = 0;
            loop {
                at = store.shared().sweep(at, 100, now, |id, owner| {
                    named.push((id.conn, owner));
                    take
                });
                if at == 0 {
                    return named;
                }
            }
        };
        assert_eq!(pass(&store, NOW.plus_secs(29), true), []);
        let later = NOW.plus_secs(32);
        assert_eq!(pass(&store, later, false), [(short, 0)]);
        assert_eq!(pass(&store, later, true), [(short, 0)]);
        assert_eq!(pass(&store, later, true), [], "taken on a moment ago");
        assert_eq!(pass(&store, later.plus_secs(4), true), [(short, 0)], "but it is still there");
        assert!(store.delete(short));
        // A long deadline is armed again and again, far across the wrap of the coarse time.
        for secs in (60..431_900).step_by(50) {
            assert_eq!(pass(&store, NOW.plus_secs(secs), true), []);
        }
        // One that a tracker shortened is noticed within the horizon.
        let now = NOW.plus_secs(431_900);
        store.conn(long).unwrap().set_deadline(now.plus_secs(1));
        assert_eq!(pass(&store, now.plus_secs(Due::HORIZON_SECS + 3), true), [(long, 0)]);
    }

    #[test]
    fn a_shortened_deadline_can_be_armed_at_once() {
        let mut store = store(10);
        let number = add_plain(&mut store, &tuple(false, 1, 1));
        store.conn(number).unwrap().set_deadline(NOW.plus_secs(3));
        let count = |store: &Store| {
            let mut n = 0;
            store.shared().sweep(0, u32::MAX, NOW.plus_secs(5), |_, _| {
                n += 1;
                false
            });
            n
        };
        assert_eq!(count(&store), 0);
        assert!(store.arm(number, NOW));
        assert_eq!(count(&store), 1);
    }

    #[test]
    fn the_mappings_of_a_source_are_found() {
        let mut store = store(1000);
        let source = tuple(false, 5, 5000);
        let find = |store: &Store, tuple: &Tuple, zone| {
            store.shared().same_source(tuple, zone, |conn| Some(conn.reply().dst_id))
        };
        add_plain(&mut store, &Tuple { dst_id: 1, ..source });
        assert_eq!(find(&store, &source, 0), None, "its source is not translated");
        let mut numbers = Vec::new();
        for port in 2..40 {
            let orig = Tuple { dst_id: port, ..source };
            numbers.push(add(&mut store, &orig, &snat(&orig, 9, 60_000)).unwrap());
        }
        assert_eq!(store.shared().by_source.census().0, 7, "bounded");
        assert_eq!(find(&store, &source, 0), Some(60_000));
        assert_eq!(find(&store, &source, 1), None);
        assert_eq!(find(&store, &Tuple { src_id: 5001, ..source }, 0), None);
        assert_eq!(find(&store, &Tuple { proto: proto::UDP, ..source }, 0), None);
        assert!(numbers.into_iter().all(|number| store.delete(number)));
        assert_eq!(find(&store, &source, 0), None);
        assert_eq!(store.shared().by_source.census(), (0, 0));
    }

    #[test]
    fn a_wide_block_has_what_a_plain_one_had_and_is_returned() {
        let mut store = store(10);
        let shared = store.shared().clone();
        shared.extensions.keep_wide_ahead(10).unwrap();
        let numbers = [1, 2, 3].map(|i| add_plain(&mut store, &tuple(false, i, 1)));
        store.extend(numbers[0]).unwrap().begin(true, 7, true);
        assert!(shared.proxied(shared.records.get(numbers[0]).unwrap()).is_none());
        store.extend_widely(numbers[0]).unwrap().set_shift(5);
        store.extend_widely(numbers[0]).unwrap().set_time(6);
        let conn = shared.records.get(numbers[0]).unwrap();
        let (block, proxied) = (shared.extension(conn).unwrap(), shared.proxied(conn).unwrap());
        assert!(block.counts() && block.started_ns() == 7 && block.labels() == Some(0));
        assert_eq!((proxied.shift(), proxied.time()), (5, 6));
        // The plain one has gone back: there are two.
        assert!(store.extend(numbers[1]).is_some() && store.extend(numbers[2]).is_some());
        assert!(store.delete(numbers[0]) && store.delete(numbers[1]) && store.delete(numbers[2]));
        let again = [4, 5, 6].map(|i| add_plain(&mut store, &tuple(false, i, 1)));
        let wide = again.map(|number| store.extend_widely(number).map(|p| (p.shift(), p.time())));
        assert_eq!(wide, [Some((0, 0)), Some((0, 0)), None], "two of each kind, clean");
    }

    #[test]
    fn extension_blocks_are_bounded_clean_and_returned() {
        let mut store = store(10);
        let numbers = [1, 2, 3].map(|i| add_plain(&mut store, &tuple(false, i, 1)));
        let block = store.extend(numbers[0]).unwrap();
        block.count(Direction::Reply, 9, 9);
        assert_eq!(block.counted(Direction::Reply), (0, 0), "it was not told to count");
        block.begin(true, 0, false);
        block.count(Direction::Reply, 2, 300);
        assert_eq!(store.extend(numbers[0]).unwrap().counted(Direction::Reply), (2, 300));
        assert!(store.extend(numbers[1]).is_some());
        assert!(store.extend(numbers[2]).is_none(), "two blocks in all");
        assert!(store.delete(numbers[0]));
        assert!(store.extend(numbers[0]).is_none(), "freed");
        let block = store.extend(numbers[2]).unwrap();
        assert_eq!((block.counts(), block.counted(Direction::Reply)), (false, (0, 0)));
    }

    #[test]
    fn missing_memory_refuses_and_keeps_the_count() {
        let shared = Shared::new(Sizes { max: 100, lcores: 1, extensions: 0 }, SEED).unwrap();
        let mut store = Store::new(Arc::new(shared), 0);
        let orig = tuple(false, 1, 1);
        let reply = orig.inverted().unwrap();
        assert_eq!(store.allocate(&orig, &reply, [0, 0]), Err(AllocError::NoRecord));
        assert_eq!(store.shared().capacity.count(), 0);
        store.shared().records.keep_ahead(Family::V4, 1).unwrap();
        let number = store.allocate(&orig, &reply, [0, 0]).unwrap();
        assert!(store.extend(number).is_none());
    }

    #[test]
    fn records_freed_by_one_lcore_reach_another() {
        let max = 1000;
        let shared = shared(max, 2);
        let mut stores = [Store::new(shared.clone(), 0), Store::new(shared.clone(), 1)];
        for round in 0..6 {
            let store = &mut stores[round % 2];
            let numbers: Vec<_> =
                (0..max).map(|i| add_plain(store, &tuple(round % 3 == 0, i, 1))).collect();
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), max as usize);
            assert!(numbers.iter().all(|&number| store.delete(number)));
        }
        let used = shared.records.numbers(Family::V4);
        assert!(used <= max + 2 * FreeList::HOARD, "{used}");
    }

    #[test]
    fn what_one_lcore_keeps_free_is_not_missing_to_another() {
        // No more memory than is asked for: whole chunks.
        let max = CHUNK;
        let shared = Shared::new(Sizes { max, lcores: 2, extensions: max }, SEED).unwrap();
        shared.ensure_conns(Family::V4, max).unwrap();
        shared.extensions.ensure_chunks(u32::MAX).unwrap();
        let shared = Arc::new(shared);
        let (mut idle, mut busy) = (Store::new(shared.clone(), 0), Store::new(shared, 1));
        let orig = |i: u32| tuple(false, i, 1);
        let new = |store: &mut Store, i: u32| {
            let number = store.allocate(&orig(i), &orig(i).inverted().unwrap(), [0, 0])?;
            assert!(store.extend(number).is_some(), "a block for each conn");
            Ok(number)
        };
        let once: Vec<_> = (0..FreeList::HOARD).map(|i| new(&mut idle, i).unwrap()).collect();
        assert!(once.into_iter().all(|number| idle.release_unconfirmed(number)));
        for i in 0..max {
            assert!(new(&mut busy, i).is_ok(), "{i} of {max}");
        }
        assert_eq!(new(&mut busy, max), Err(AllocError::Full));
    }

    #[test]
    fn a_walk_in_slices_sees_each_confirmed_conn_of_its_lcore_once() {
        let shared = shared(1000, 2);
        let (mut a, mut b) = (Store::new(shared.clone(), 0), Store::new(shared, 1));
        let mut expected = BTreeSet::new();
        for i in 0..300 {
            expected.insert(add_plain(&mut a, &tuple(false, i, 1)).number());
            add_plain(&mut b, &tuple(false, i, 2));
        }
        let gone: Vec<u32> = expected.iter().copied().step_by(3).collect();
        for number in gone {
            assert!(a.delete(ConnRef::new(Family::V4, number)));
            expected.remove(&number);
        }
        let end = a.shared().records.numbers(Family::V4);
        let seen: Vec<u32> = (0..end)
            .step_by(50)
            .flat_map(|from| a.slice(Family::V4, from, 50))
            .map(|conn| conn.number().number())
            .collect();
        assert_eq!(seen.len(), expected.len());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn the_limit_changes_live_within_what_the_index_serves() {
        let store = store(100);
        assert_eq!(store.shared().set_max(150), Ok(()));
        let refused = SetupError::AboveLargest { max: 151, largest: 150 };
        assert_eq!(store.shared().set_max(151), Err(refused));
        assert_eq!(store.shared().capacity.max(), 150);
        assert_eq!(store.shared().set_max(1), Ok(()));
        assert_eq!(store.shared().set_max(0), Ok(()));
        assert_eq!(store.shared().capacity.max(), 150);
    }

    #[test]
    fn a_translated_conn_costs_less_than_its_bound() {
        let max = 1 << 16;
        let shared = Shared::new(Sizes { max, lcores: 1, extensions: 0 }, SEED).unwrap();
        let index = (shared.index.bytes() + shared.by_source.bytes()) as u32;
        assert!(128 + index.div_ceil(max) <= 178, "{}", 128 + index.div_ceil(max));
        assert!(192 + index.div_ceil(max) <= 242);
        shared.records.ensure_chunks(Family::V4, max).unwrap();
        let expectations = shared.expectations.bytes();
        assert_eq!(shared.bytes(), (index + 128 * max) as usize + expectations);
    }

    /// What a random test does next.
    #[derive(Clone, Debug)]
    enum Step {
        Add { v6: bool, src: u8, port: u8, nat: Option<u8> },
        Delete(prop::sample::Index),
        Pass(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let add = (any::<bool>(), any::<u8>(), 0..8u8, prop::option::of(0..32u8))
            .prop_map(|(v6, src, port, nat)| Step::Add { v6, src, port, nat });
        let step = prop_oneof![
            6 => add,
            3 => any::<prop::sample::Index>().prop_map(Step::Delete),
            1 => (0..3u8).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..400)
    }

    /// Tuples to (number, deadline), by `HashMap`s.
    #[derive(Default)]
    struct Oracle {
        holders: HashMap<Tuple, ConnRef>,
        conns: HashMap<ConnRef, (Tuple, Tuple, Tick)>,
    }

    impl Oracle {
        fn live(&self, tuple: &Tuple, now: Tick) -> Option<ConnRef> {
            let number = *self.holders.get(tuple)?;
            (!self.conns[&number].2.has_passed(now)).then_some(number)
        }

        fn remove(&mut self, number: ConnRef) {
            if let Some((orig, reply, _)) = self.conns.remove(&number) {
                for tuple in [orig, reply] {
                    if self.holders.get(&tuple) == Some(&number) {
                        self.holders.remove(&tuple);
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn it_behaves_as_two_hash_maps(steps in steps()) {
            let mut store = store(96);
            let mut oracle = Oracle::default();
            let mut now = NOW;
            for step in steps {
                match step {
                    Step::Pass(secs) => now = now.plus_secs(secs as u32),
                    Step::Delete(at) => {
                        let mut numbers: Vec<_> = oracle.conns.keys().copied().collect();
                        numbers.sort();
                        if !numbers.is_empty() {
                            let number = *at.get(&numbers);
                            prop_assert!(store.delete(number));
                            oracle.remove(number);
                        }
                    }
                    Step::Add { v6, src, port, nat } => {
                        let orig = tuple(v6, src as u32, port as u16);
                        let plain = orig.inverted().unwrap();
                        let reply = nat.map_or(plain, |to| snat(&orig, 1 << 20, to as u16));
                        let number = match store.allocate(&orig, &reply, [0, 0]) {
                            Ok(number) => number,
                            Err(error) => {
                                prop_assert_eq!(error, AllocError::Full);
                                prop_assert_eq!(oracle.conns.len(), 96);
                                continue;
                            }
                        };
                        if nat.is_some() {
                            store.conn(number).unwrap().add_status(Status::SRC_NAT);
                        }
                        let deadline = now.plus_secs(20);
                        let wanted = oracle.live(&orig, now)
                            .map(|with| Refused::Clash { with, side: Direction::Original })
                            .or(oracle.live(&reply, now)
                                .map(|with| Refused::Clash { with, side: Direction::Reply }))
                            .map_or(Ok(()), Err);
                        let got = store.confirm(number, deadline, now);
                        prop_assert_eq!(got, wanted);
                        if got.is_ok() {
                            oracle.conns.insert(number, (orig, reply, deadline));
                            oracle.holders.insert(orig, number);
                            oracle.holders.insert(reply, number);
                        } else {
                            prop_assert!(store.release_unconfirmed(number));
                        }
                    }
                }
                prop_assert_eq!(store.shared().capacity.count() as usize, oracle.conns.len());
            }
            for (tuple, number) in &oracle.holders {
                let found = store.find(tuple, 0, now).unwrap();
                prop_assert_eq!(found.conn.number(), *number);
                prop_assert_eq!(found.expired, oracle.live(tuple, now).is_none());
                prop_assert_eq!(found.conn.tuple(found.direction), *tuple);
            }
            for number in oracle.conns.keys() {
                prop_assert!(store.delete(*number));
            }
            prop_assert!(is_empty(&store));
        }
    }
}
