//! Conns counted by key: what `connlimit` asks for (`nf_conncount`).
//!
//! A key is a rule's number and a masked address. Each conn that is counted under it holds one of
//! its count until it ends, or until TCP has closed it. The kernel keeps a list of tuples for each
//! key, and when a further one comes looks whether a few of them are still there; here a conn
//! remembers what it holds, in a block of its own, and gives it back itself. So a count is right at
//! any time, however many conns end at once, and the time of a look does not grow with it.
//!
//! ```text
//!   cell   63                        26 25              0
//!          | tag of the key            | conns counted   |    free where none is counted
//!   block  16 times the number of a cell + 1, 0 for none
//! ```
//!
//! A key's cell stands in one of two lines of eight, chosen by a keyed hash; the rest of the hash
//! is its tag. Two keys that share tag and line would be counted together, which among 100 000 keys
//! has a chance of one in a million, and which nobody outside can bring about. Cells change by
//! compare-and-swap alone. Two lcores that bring in one key at once may take two cells: its count
//! is the sum of both, and each conn gives back where it took. Blocks have the owner of their conn
//! as their only writer.
//!
//! Memory is made when the first rule asks for it; each record has a block of its own number. A
//! conn is counted under the [`HOLDS`] keys that it has met last: rules that are no more are the
//! first to be forgotten. One that finds no cell is not counted, and its packet's rule is told.

use core::hash::BuildHasher;
use std::collections::hash_map::RandomState;

use super::chunks::Chunks;
use super::record::{Conn, ConnRef, Family};
use super::store::{Shared, Store};
use super::tcp::{TcpState, TcpTrack};
use super::tuple::proto;
use crate::arch::sync::AtomicU64;
use crate::arch::sync::Ordering::{AcqRel, Acquire, Relaxed};
use crate::arch::{HugeOnce, Line, OutOfMemory};

/// Cells of a line.
const WAYS: u32 = 8;

/// Keys that one conn can be counted under.
pub const HOLDS: usize = 16;

/// Bits of a cell that count.
const COUNT_BITS: u32 = 26;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Tries of a compare-and-swap; each one lost is one that another lcore has won.
const TRIES: usize = 32;

/// What conns are counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// What a cell of it has above its count.
    tag: u64,
    lines: [u32; 2],
}

/// All counts; one for all lcores.
#[derive(Debug)]
pub struct Counts {
    lines: HugeOnce<Line>,
    /// Lines there will be, a power of two.
    len: u32,
    /// By record, IPv4 and IPv6.
    blocks: [Chunks<1>; 2],
    keyed: RandomState,
}

impl Counts {
    /// For at most `max` conns whose records have numbers below `records`; without memory yet.
    pub(super) fn new(max: u32, records: u32) -> Counts {
        // Twice as many cells as there can be keys while each conn has one of its own.
        let len = (max / WAYS).saturating_mul(2).clamp(2, 1 << 24).next_power_of_two();
        let blocks = [Chunks::new(records), Chunks::new(records)];
        Counts { lines: HugeOnce::default(), len, blocks, keyed: RandomState::new() }
    }

    /// Room for so many records. Control core only.
    pub(super) fn raise(&self, records: u32) {
        self.blocks.iter().for_each(|blocks| blocks.raise(records));
    }

    /// Makes the cells, and the blocks of a family's records below `upto`. Control core only, once
    /// a rule asks for counts.
    pub(super) fn ensure(&self, family: Family, upto: u32) -> Result<(), OutOfMemory> {
        self.lines.make(self.len as usize, Line::default)?;
        self.blocks[family as usize].ensure(upto)
    }

    /// The same counts for a table of so few records that nobody else sees. Allocates.
    pub fn apart(&self, records: u32) -> Result<Counts, OutOfMemory> {
        let (keyed, blocks) = (self.keyed.clone(), [Chunks::new(records), Chunks::new(records)]);
        let copy = Counts { lines: HugeOnce::default(), len: self.len, blocks, keyed };
        for family in [Family::V4, Family::V6] {
            copy.ensure(family, records)?;
        }
        for (to, from) in
            (0..self.len as usize).map(|line| (copy.lines.get(line), self.lines.get(line)))
        {
            let words = to.into_iter().flat_map(|to| &to.0);
            for (to, from) in words.zip(from.into_iter().flat_map(|from| &from.0)) {
                to.store(from.load(Relaxed), Relaxed);
            }
        }
        Ok(copy)
    }

    /// Says of the copy of a conn of another table, whose counts these were, that it is counted as
    /// that is.
    pub(super) fn copy(&self, copy: Conn<'_>, from: &Counts, conn: Conn<'_>) {
        let held = from.block(conn.number()).filter(|_| conn.is_counted());
        if let (Some(held), Some(block)) = (held, self.block(copy.number())) {
            for (to, from) in block.0.0.iter().zip(&held.0.0) {
                to.store(from.load(Relaxed), Relaxed);
            }
            copy.set_counted(true);
        }
    }

    /// A copy ends, and what it is a copy of goes on to count.
    pub(super) fn forget(&self, copy: Conn<'_>) {
        if let Some(block) = self.block(copy.number()) {
            block.clear();
        }
        copy.set_counted(false);
    }

    /// Bytes of memory made so far.
    pub fn bytes(&self) -> usize {
        let lines = if self.lines.is_made() { self.len as usize } else { 0 };
        lines * size_of::<Line>() + self.blocks.iter().map(Chunks::bytes).sum::<usize>()
    }

    /// The key of these words.
    pub fn key(&self, words: &[u64; 4]) -> Key {
        let hash = self.keyed.hash_one(words);
        let tag = hash & !COUNT;
        let first = hash as u32 & (self.len - 1);
        // Another one, told by the tag.
        let apart = (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 | 1;
        Key { tag, lines: [first, (first ^ apart) & (self.len - 1)] }
    }

    fn cell(&self, number: u32) -> Option<&AtomicU64> {
        self.lines.get((number / WAYS) as usize)?.0.get((number % WAYS) as usize)
    }

    /// The cells where a key may stand, and what is in them.
    fn cells(&self, key: Key) -> impl Iterator<Item = (u32, u64)> {
        let numbers = key.lines.into_iter().flat_map(|line| line * WAYS..(line + 1) * WAYS);
        numbers.filter_map(|number| Some((number, self.cell(number)?.load(Acquire))))
    }

    /// How many conns are counted under a key.
    pub fn count(&self, key: Key) -> u32 {
        let its = self.cells(key).filter(|(_, cell)| cell & !COUNT == key.tag);
        its.map(|(_, cell)| (cell & COUNT) as u32).sum()
    }

    /// Counts one more; the cell that has it. `None` if there is no room, or nobody has asked for
    /// the memory of cells.
    fn take(&self, key: Key) -> Option<u32> {
        for _ in 0..TRIES {
            let own = |(_, cell): &(u32, u64)| cell & COUNT != 0 && cell & !COUNT == key.tag;
            let (number, before) = self.cells(key).find(own).or_else(|| self.emptier(key))?;
            let after = match before & COUNT {
                0 => key.tag | 1,
                // The kernel's limit is another, as far from what can be.
                COUNT => return None,
                _ => before + 1,
            };
            let cell = self.cell(number)?;
            if cell.compare_exchange(before, after, AcqRel, Relaxed).is_ok() {
                return Some(number);
            }
        }
        None
    }

    /// A free cell in that of a key's two lines which has more of them.
    fn emptier(&self, key: Key) -> Option<(u32, u64)> {
        let [first, second] = key.lines.map(|line| {
            let line = Key { lines: [line; 2], ..key };
            let mut free =
                self.cells(line).take(WAYS as usize).filter(|(_, cell)| cell & COUNT == 0);
            free.next().map(|found| (free.count(), found))
        });
        let (better, other) = if first.map(|f| f.0) >= second.map(|s| s.0) {
            (first, second)
        } else {
            (second, first)
        };
        better.or(other).map(|(_, found)| found)
    }

    fn give_back(&self, number: u32) {
        if let Some(cell) = self.cell(number) {
            cell.fetch_sub(1, AcqRel);
        }
    }

    /// Has a conn of the caller's lcore counted under a key, unless it is; false if there is no
    /// room for it.
    pub(super) fn enter(&self, conn: Conn<'_>, key: Key) -> bool {
        if self.holds(conn, key) {
            return true;
        }
        let Some(block) = self.block(conn.number()) else { return false };
        let Some(cell) = self.take(key) else { return false };
        block.hold(cell).inspect(|&oldest| self.give_back(oldest));
        if !conn.is_counted() {
            conn.set_counted(true);
        }
        true
    }

    /// True if a conn, of whichever lcore, is counted under a key.
    pub fn holds(&self, conn: Conn<'_>, key: Key) -> bool {
        let block = self.block(conn.number()).filter(|_| conn.is_counted());
        block.is_some_and(|block| block.held().any(|cell| self.is_of(cell, key)))
    }

    /// True for a cell that stands where a key may, and has its tag.
    fn is_of(&self, cell: u32, key: Key) -> bool {
        let tag = || self.cell(cell).map(|cell| cell.load(Relaxed) & !COUNT);
        key.lines.contains(&(cell / WAYS)) && tag() == Some(key.tag)
    }

    /// Gives back all that a conn of the caller's lcore holds.
    pub(super) fn leave(&self, conn: Conn<'_>) {
        if let Some(block) = self.block(conn.number()) {
            block.held().for_each(|cell| self.give_back(cell));
            block.clear();
        }
        conn.set_counted(false);
    }

    fn block(&self, conn: ConnRef) -> Option<Block<'_>> {
        self.blocks[conn.family() as usize].get(conn.number()).map(|[line]| Block(line))
    }
}

impl Shared {
    /// Makes memory to count so many conns of a family, as [`Shared::ensure_conns`] does for them.
    pub fn ensure_counts(&self, family: Family, conns: u32) -> Result<(), OutOfMemory> {
        self.counts.ensure(family, conns.saturating_add(self.out_of_reach))
    }
}

impl Store {
    /// Has a conn counted under a key, unless it is; false if it is not this lcore's, or there is
    /// no room.
    pub fn count(&self, number: ConnRef, key: Key) -> bool {
        let conn = self.conn(number).filter(|conn| conn.owner() == Some(self.lcore()));
        conn.is_some_and(|conn| self.shared().counts.enter(conn, key))
    }

    /// Has a conn of this lcore counted no more.
    #[cold]
    pub fn uncount(&self, conn: Conn<'_>) {
        debug_assert_eq!(conn.owner(), Some(self.lcore()));
        self.shared().counts.leave(conn);
    }

    /// Says of the copy of a conn of another table that it is counted as that is.
    pub fn count_as(&self, copy: ConnRef, from: &Shared, conn: Conn<'_>) {
        if let Some(copy) = self.conn(copy) {
            self.shared().counts.copy(copy, &from.counts, conn);
        }
    }

    /// Takes a copy out of the table; what it is a copy of goes on to count.
    pub fn forget_copy(&mut self, copy: ConnRef) {
        if let Some(conn) = self.conn(copy) {
            self.shared().counts.forget(conn);
        }
        self.delete(copy);
    }
}

/// True for a conn that counts no more although it is there: TCP that both ends have closed, or one
/// has reset (`already_closed`).
#[inline]
pub fn is_closed(conn: Conn<'_>) -> bool {
    let state = TcpTrack::state_of_word(conn.tracker_word(TcpTrack::STATE_WORD));
    conn.proto() == proto::TCP && matches!(state, TcpState::TimeWait | TcpState::Close)
}

/// What one conn holds.
#[derive(Clone, Copy)]
struct Block<'a>(&'a Line);

impl Block<'_> {
    /// Number + 1 of the cell at each place.
    fn places(&self) -> impl Iterator<Item = u32> {
        self.0.0.iter().flat_map(|word| {
            let word = word.load(Relaxed);
            [word as u32, (word >> 32) as u32]
        })
    }

    fn held(&self) -> impl Iterator<Item = u32> {
        self.places().filter_map(|place| place.checked_sub(1))
    }

    fn clear(&self) {
        self.0.0.iter().for_each(|word| word.store(0, Relaxed));
    }

    /// Remembers a cell; where there is no place for it, the oldest one goes.
    fn hold(&self, cell: u32) -> Option<u32> {
        let mut newer = cell + 1;
        // The newest first: each place takes what stood before it.
        for word in &self.0.0 {
            let old = word.load(Relaxed);
            word.store(old << 32 | newer as u64, Relaxed);
            newer = (old >> 32) as u32;
            if newer == 0 {
                return None;
            }
        }
        newer.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::conntrack::store::Sizes;
    use crate::conntrack::tuple::{HashSeed, Tuple};
    use crate::wire::address::Address;

    const CONNS: u32 = 200;

    fn shared(lcores: u8) -> Arc<Shared> {
        let sizes = Sizes { max: CONNS, lcores, extensions: 0 };
        let shared = Shared::new(sizes, HashSeed([1, 2, 3, 4, 5])).unwrap();
        shared.records.ensure_chunks(Family::V4, u32::MAX).unwrap();
        Arc::new(shared)
    }

    fn begin(store: &mut Store, number: u16) -> ConnRef {
        let (src, dst) = (Address::v4(0x0a00_0001), Address::v4(0x0a00_0002));
        let tuple = Tuple { src, dst, src_id: number, dst_id: 80, proto: proto::TCP };
        store.allocate(&tuple, &tuple.inverted().unwrap(), [0; 2]).unwrap()
    }

    #[test]
    fn a_conn_is_counted_once_under_each_key_and_gives_all_back() {
        let shared = shared(1);
        let mut store = Store::new(shared.clone(), 0);
        let counts = &shared.counts;
        let key = |n: u64| counts.key(&[n, 0, 0, 0]);
        let conn = begin(&mut store, 1);
        assert!(!store.count(conn, key(0)), "no memory yet");
        assert!(!shared.records.get(conn).unwrap().is_counted());
        shared.ensure_counts(Family::V4, CONNS).unwrap();
        for n in (0..HOLDS as u64).chain(0..HOLDS as u64) {
            assert!(store.count(conn, key(n)));
        }
        assert!((0..HOLDS as u64).all(|n| counts.count(key(n)) == 1));
        let other = begin(&mut store, 2);
        assert!(store.count(other, key(3)) && store.count(other, key(99)));
        assert_eq!([0, 1, 3, 99].map(|n| counts.count(key(n))), [1, 1, 2, 1]);
        assert!(store.count(conn, key(99)));
        assert_eq!([0, 1, 3, 99].map(|n| counts.count(key(n))), [0, 1, 2, 2], "the oldest went");
        let holds = |conn, n| counts.holds(shared.records.get(conn).unwrap(), key(n));
        assert!(holds(conn, 99) && holds(conn, 1) && !holds(conn, 0) && !holds(other, 1));
        assert!(store.release_unconfirmed(conn));
        assert_eq!([0, 1, 3, 99].map(|n| counts.count(key(n))), [0, 0, 1, 1]);
        store.uncount(shared.records.get(other).unwrap());
        assert_eq!([3, 99].map(|n| counts.count(key(n))), [0, 0]);
        assert!(store.count(other, key(3)), "it may begin anew");
        assert_eq!(counts.count(key(3)), 1);
    }

    #[test]
    fn only_tcp_that_is_over_is_closed() {
        let shared = shared(1);
        let mut store = Store::new(shared.clone(), 0);
        let number = begin(&mut store, 1);
        let conn = shared.records.get(number).unwrap();
        for state in TcpState::ALL {
            conn.set_tracker_words(&TcpTrack::inserted(state).to_words());
            let over = matches!(state, TcpState::TimeWait | TcpState::Close);
            assert_eq!(is_closed(conn), over, "{state}");
        }
    }

    #[test]
    fn who_finds_no_cell_is_not_counted() {
        // Two lines: 16 keys.
        let counts = Counts::new(8, 8);
        counts.ensure(Family::V4, 8).unwrap();
        let taken = (0..1000u64).filter_map(|n| {
            let key = counts.key(&[n, 0, 0, 0]);
            Some((key, counts.take(key)?))
        });
        let taken: Vec<(Key, u32)> = taken.collect();
        assert_eq!(taken.len(), 16);
        assert!(taken.iter().all(|&(key, _)| counts.count(key) == 1));
        let (key, cell) = taken[5];
        assert_eq!(counts.take(key), Some(cell), "a key that is there");
        counts.give_back(cell);
        counts.give_back(cell);
        assert_eq!(counts.count(key), 0);
        assert_eq!(counts.take(counts.key(&[7777, 1, 0, 0])), Some(cell));
    }

    #[test]
    fn many_lcores_count_right() {
        const LCORES: u8 = 4;
        let shared = shared(LCORES);
        shared.ensure_counts(Family::V4, CONNS).unwrap();
        let keys: Vec<Key> = (0..5).map(|n| shared.counts.key(&[n, 0, 0, 0])).collect();
        let stores: Vec<Store> = thread::scope(|scope| {
            let lcores: Vec<_> = (0..LCORES)
                .map(|lcore| {
                    let (shared, keys) = (shared.clone(), &keys);
                    scope.spawn(move || {
                        let mut store = Store::new(shared.clone(), lcore);
                        for round in 0..2000u16 {
                            let conn = begin(&mut store, round);
                            // Those of the last ones stay.
                            for key in keys.iter().skip(usize::from(round % 2)) {
                                assert!(store.count(conn, *key));
                                assert!(shared.counts.count(*key) >= 1);
                            }
                            if round < 1990 {
                                store.release_unconfirmed(conn);
                            }
                        }
                        store
                    })
                })
                .collect();
            lcores.into_iter().map(|lcore| lcore.join().unwrap()).collect()
        });
        let counted: Vec<u32> = keys.iter().map(|key| shared.counts.count(*key)).collect();
        assert_eq!(counted, [20, 40, 40, 40, 40]);
        drop(stores);
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_list(
            steps in prop::collection::vec((0..4u8, 0..6usize, 0..5u64), 1..200),
        ) {
            let shared = shared(1);
            shared.ensure_counts(Family::V4, CONNS).unwrap();
            let mut store = Store::new(shared.clone(), 0);
            let mut conns: [Option<(ConnRef, Vec<u64>)>; 6] = Default::default();
            let key = |n: u64| shared.counts.key(&[7, n, 0, 0]);
            for (what, which, n) in steps {
                let place = &mut conns[which];
                match (what, place.as_mut()) {
                    (_, None) => *place = Some((begin(&mut store, which as u16), Vec::new())),
                    (0, Some((conn, _))) => {
                        prop_assert!(store.release_unconfirmed(*conn));
                        *place = None;
                    }
                    (1, Some((conn, keys))) => {
                        store.uncount(shared.records.get(*conn).unwrap());
                        keys.clear();
                    }
                    (_, Some((conn, keys))) => {
                        prop_assert!(store.count(*conn, key(n)));
                        keys.push(n);
                        keys.sort_unstable();
                        keys.dedup();
                    }
                }
                for n in 0..5 {
                    let there = conns.iter().flatten().filter(|(_, keys)| keys.contains(&n));
                    prop_assert_eq!(shared.counts.count(key(n)), there.count() as u32);
                }
            }
        }
    }
}
