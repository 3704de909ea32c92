//! The index: two lcores that confirm, one that removes, one that reads, the sweep of the control
//! core.
//!
//! A tuple is its hash, and its tag says nothing: all tuples have the tag 1. What a conn's record
//! would say is decided by its number, or by words of the model where the record changes.

use std::sync::Arc;

use dataplane::arch::sync::AtomicU64;
use dataplane::arch::sync::Ordering::Relaxed;
use dataplane::conntrack::index::{Due, Index, PROBES, Refused, SLOTS};
use dataplane::conntrack::record::{ConnRef, Family};
use dataplane::conntrack::state::Direction;
use loom::thread;

use crate::model;

const DUE: Due = Due::now(dataplane::time::Tick(128 * 9));
const LATER: Due = Due::now(dataplane::time::Tick(128 * 12));
const X: u64 = at(3, 1);
const Y: u64 = at(9, 2);
const Z: u64 = at(5, 3);

/// A hash whose home is bucket `home` of 16; its tag is 1. Entries of one home that differ in
/// `salt` differ in their hash alone.
const fn at(home: u64, salt: u64) -> u64 {
    home << 60 | 12 << 28 | salt << 32 | 1
}

fn index() -> Arc<Index> {
    Arc::new(Index::new(1, 50).unwrap())
}

fn conn(number: u32) -> ConnRef {
    ConnRef::new(Family::V4, number)
}

/// Confirms conn `number` with two tuples. `pairs` says which tuples each number has.
fn confirm(index: &Index, number: u32, pairs: &[(u64, u64)]) -> Result<(), Refused> {
    let mine = pairs[number as usize];
    index.confirm_pair(mine.0, mine.1, conn(number), DUE, |side, other| {
        let wanted = if side == Direction::Original { mine.0 } else { mine.1 };
        let other = pairs[other.number() as usize];
        other.0 == wanted || other.1 == wanted
    })
}

fn remove(index: &Index, number: u32, pair: (u64, u64)) {
    assert!(index.remove(pair.0, conn(number), Direction::Original));
    assert!(pair.0 == pair.1 || index.remove(pair.1, conn(number), Direction::Reply));
}

fn has(index: &Index, hash: u64, number: u32) -> bool {
    index.lookup(hash, |other, _| (other == conn(number)).then_some(())).is_some()
}

/// Fills the home of `hash` with entries of other tags, so that what comes next spills.
fn fill_home(index: &Index, hash: u64) {
    for i in 0..SLOTS as u64 {
        let other = hash + 1 + i;
        index.confirm_pair(other, other, conn(100 + i as u32), DUE, |_, _| false).unwrap();
    }
}

fn empty_home(index: &Index, hash: u64) {
    for i in 0..SLOTS as u64 {
        assert!(index.remove(hash + 1 + i, conn(100 + i as u32), Direction::Original));
    }
}

/// Two lcores confirm; exactly one gets in, whole, and the other learns who was in its way.
fn one_of_two_wins(preemptions: usize, pairs: [(u64, u64); 2], full: Option<u64>) {
    model(preemptions, move || {
        let index = index();
        if let Some(hash) = full {
            fill_home(&index, hash);
        }
        let other = index.clone();
        let second = thread::spawn(move || confirm(&other, 1, &pairs));
        let results = [confirm(&index, 0, &pairs), second.join().unwrap()];
        let winner = match results {
            [Ok(()), Err(Refused::Clash { with, .. })] if with == conn(0) => 0,
            [Err(Refused::Clash { with, .. }), Ok(())] if with == conn(1) => 1,
            other => panic!("{other:?}"),
        };
        let filled = full.map_or(0, |_| SLOTS as u64);
        let spilled =
            [pairs[winner].0, pairs[winner].1].iter().filter(|h| Some(**h) == full).count();
        assert_eq!(index.census(), (2 + filled, spilled as u64));
        assert!(has(&index, pairs[winner].0, winner as u32));
        assert!(has(&index, pairs[winner].1, winner as u32));
        remove(&index, winner as u32, pairs[winner]);
        if let Some(hash) = full {
            empty_home(&index, hash);
        }
        assert_eq!(index.census(), (0, 0));
    });
}

#[test]
fn loom_of_two_lcores_with_the_same_pair_one_wins() {
    one_of_two_wins(3, [(X, Y); 2], None);
}

#[test]
fn loom_of_two_lcores_with_mirrored_pairs_one_wins_and_none_waits_forever() {
    one_of_two_wins(3, [(X, Y), (Y, X)], None);
}

#[test]
fn loom_of_two_lcores_with_one_reply_tuple_one_wins() {
    one_of_two_wins(3, [(X, Y), (Z, Y)], None);
}

#[test]
fn loom_of_two_lcores_with_pairs_that_overlap_crosswise_one_wins() {
    one_of_two_wins(3, [(X, Y), (Y, Z)], None);
}

#[test]
fn loom_a_clash_in_an_overflowing_home_leaves_no_count_behind() {
    one_of_two_wins(2, [(X, Y), (Z, Y)], Some(Y));
    one_of_two_wins(2, [(X, Y), (Y, X)], Some(X));
}

/// Conns of different tuples whose homes are the same two buckets, entered in opposite order, do
/// not hinder each other, and share the last slots of a bucket.
#[test]
fn loom_conns_of_the_same_homes_both_get_in() {
    model(3, || {
        let index = index();
        for i in 0..SLOTS as u64 - 1 {
            let other = X + 1 + i;
            index.confirm_pair(other, other, conn(100 + i as u32), DUE, |_, _| false).unwrap();
        }
        let pairs = [(at(3, 7), at(9, 7)), (at(9, 8), at(3, 8))];
        let other = index.clone();
        let second = thread::spawn(move || confirm(&other, 1, &pairs));
        assert_eq!(confirm(&index, 0, &pairs), Ok(()));
        assert_eq!(second.join().unwrap(), Ok(()));
        assert_eq!(index.census(), (SLOTS as u64 - 1 + 4, 1));
        remove(&index, 0, pairs[0]);
        remove(&index, 1, pairs[1]);
        assert_eq!(index.census(), (SLOTS as u64 - 1, 0));
    });
}

/// A record of two words, as far as a comparison sees it: a tuple is both.
struct Record([AtomicU64; 2]);

impl Record {
    fn new(tuple: [u64; 2]) -> Arc<Record> {
        Arc::new(Record(tuple.map(AtomicU64::new)))
    }

    fn is(&self, tuple: [u64; 2]) -> bool {
        self.0[0].load(Relaxed) == tuple[0] && self.0[1].load(Relaxed) == tuple[1]
    }

    fn set(&self, tuple: [u64; 2]) {
        self.0[0].store(tuple[0], Relaxed);
        self.0[1].store(tuple[1], Relaxed);
    }
}

/// Conn 0 is (1, 1); its owner removes it and reuses the record for (2, 2). Another lcore asks
/// meanwhile whether (2, 1) is taken, which no conn ever had.
fn a_tuple_that_nobody_had(taken: fn(&Index, &Record) -> bool) {
    model(3, move || {
        let (index, record) = (index(), Record::new([1, 1]));
        index.confirm_pair(X, X, conn(0), DUE, |_, _| false).unwrap();
        let owner = {
            let (index, record) = (index.clone(), record.clone());
            thread::spawn(move || {
                remove(&index, 0, (X, X));
                record.set([2, 2]);
                index.confirm_pair(Y, Y, conn(0), DUE, |_, _| false).unwrap();
            })
        };
        assert!(!taken(&index, &record), "a clash with a conn that never was");
        owner.join().unwrap();
    });
}

#[test]
fn loom_half_old_and_half_new_is_no_clash() {
    a_tuple_that_nobody_had(|index, record| {
        let done = index.confirm_pair(X, X, conn(1), DUE, |_, _| record.is([2, 1]));
        done.is_err()
    });
}

/// The slot read again after the comparison is what protects: a lookup does not read it again, and
/// taking its word fails in one of the interleavings.
#[test]
#[should_panic(expected = "a clash with a conn that never was")]
fn loom_without_reading_the_slot_again_it_would_be_one() {
    a_tuple_that_nobody_had(|index, record| {
        index.lookup(X, |_, _| record.is([2, 1]).then_some(())).is_some()
    });
}

/// The owner deletes a conn, reuses its record and confirms the same tuple again, while another
/// lcore confirms that tuple: one conn has it in the end.
#[test]
fn loom_a_tuple_deleted_and_entered_again_has_one_conn() {
    model(3, || {
        let (index, record) = (index(), Record::new([1, 1]));
        index.confirm_pair(X, X, conn(0), DUE, |_, _| false).unwrap();
        let owner = {
            let (index, record) = (index.clone(), record.clone());
            thread::spawn(move || {
                remove(&index, 0, (X, X));
                record.set([2, 2]);
                record.set([1, 1]);
                index.confirm_pair(X, X, conn(0), DUE, |_, other| other == conn(1)).is_ok()
            })
        };
        let mine = index.confirm_pair(X, X, conn(1), DUE, |_, other| {
            assert_eq!(other, conn(0));
            record.is([1, 1])
        });
        let again = owner.join().unwrap();
        assert!(again != mine.is_ok(), "{again} and {mine:?}");
        assert_eq!(index.census(), (1, 0));
    });
}

/// While others come to and go from an overflowing home, an entry away from home stays found.
#[test]
fn loom_an_entry_away_from_home_is_found_at_every_moment() {
    model(3, || {
        let index = index();
        fill_home(&index, X);
        let (stays, comes, goes) = ((X, X), (at(3, 5), at(3, 5)), (at(3, 6), at(3, 6)));
        let pairs = [stays, comes, goes];
        confirm(&index, 2, &pairs).unwrap();
        confirm(&index, 0, &pairs).unwrap();
        let other = index.clone();
        let reader = thread::spawn(move || has(&other, X, 0));
        remove(&index, 2, goes);
        confirm(&index, 1, &pairs).unwrap();
        remove(&index, 1, comes);
        assert!(reader.join().unwrap(), "hidden");
        assert_eq!(index.census(), (SLOTS as u64 + 1, 1));
    });
}

/// An entry that spills into the buddy of its home and one that is at home there want the same
/// slot, each under the lock of its own home.
#[test]
fn loom_a_slot_wanted_under_two_locks_goes_to_one() {
    model(3, || {
        let index = index();
        fill_home(&index, X);
        let pairs = [(X, X), (at(2, 1), at(2, 1))];
        let other = index.clone();
        let second = thread::spawn(move || confirm(&other, 1, &pairs));
        assert_eq!(confirm(&index, 0, &pairs), Ok(()));
        assert_eq!(second.join().unwrap(), Ok(()));
        assert!(has(&index, pairs[0].0, 0) && has(&index, pairs[1].0, 1), "overwritten");
        assert_eq!(index.census(), (SLOTS as u64 + 2, 1));
    });
}

/// One lcore removes an entry that had spilled from a home while another enters one there: the
/// home counts the one that is left.
#[test]
fn loom_a_count_goes_up_and_down_at_once() {
    model(3, || {
        let index = index();
        fill_home(&index, X);
        let pairs = [(at(3, 5), at(3, 5)), (X, X)];
        confirm(&index, 0, &pairs).unwrap();
        let other = index.clone();
        let second = thread::spawn(move || confirm(&other, 1, &pairs));
        remove(&index, 0, pairs[0]);
        assert_eq!(second.join().unwrap(), Ok(()));
        assert_eq!(index.census(), (SLOTS as u64 + 1, 1));
        assert!(has(&index, X, 1));
    });
}

/// Two lcores want the last slot that their reply tuples may have: one gets it, and of the other's
/// pair nothing is left, nor a count.
#[test]
fn loom_of_two_pairs_that_need_the_last_slot_one_is_refused_whole() {
    model(1, || {
        let index = index();
        let places = SLOTS as u64 * PROBES as u64;
        for i in 1..places {
            let other = Y + i;
            index.confirm_pair(other, other, conn(100 + i as u32), DUE, |_, _| false).unwrap();
        }
        let pairs = [(at(3, 7), at(9, 8)), (at(5, 7), at(9, 9))];
        let other = index.clone();
        let second = thread::spawn(move || confirm(&other, 1, &pairs));
        let winner = match [confirm(&index, 0, &pairs), second.join().unwrap()] {
            [Ok(()), Err(Refused::NoRoom)] => 0,
            [Err(Refused::NoRoom), Ok(())] => 1,
            other => panic!("{other:?}"),
        };
        assert_eq!(index.census(), (places + 1, places - SLOTS as u64));
        assert!(!has(&index, pairs[1 - winner].0, 1 - winner as u32));
        remove(&index, winner as u32, pairs[winner]);
        assert_eq!(index.census(), (places - 1, places - 1 - SLOTS as u64));
    });
}

/// What one lcore has entered before it tells another is found by it, at home and away.
#[test]
fn loom_who_is_told_of_an_entry_finds_it() {
    for full in [false, true] {
        model(3, move || {
            let index = index();
            if full {
                fill_home(&index, X);
            }
            let told = Arc::new(AtomicU64::new(0));
            let (other, word) = (index.clone(), told.clone());
            let second = thread::spawn(move || {
                confirm(&other, 0, &[(X, X)]).unwrap();
                word.store(1, dataplane::arch::sync::Ordering::Release);
            });
            if told.load(dataplane::arch::sync::Ordering::Acquire) == 1 {
                assert!(has(&index, X, 0), "not found");
            }
            second.join().unwrap();
        });
    }
}

/// The sweep arms a due time while the owner moves it and removes the conn.
#[test]
fn loom_arming_never_brings_a_removed_entry_back() {
    model(4, || {
        let index = index();
        index.confirm_pair(X, X, conn(0), DUE, |_, _| false).unwrap();
        let other = index.clone();
        let control = thread::spawn(move || {
            other.sweep(
                3,
                1,
                LATER,
                |_| {},
                |seen| {
                    assert_eq!(seen, conn(0));
                    Some(LATER)
                },
            );
        });
        index.set_due(X, conn(0), LATER);
        assert!(index.remove(X, conn(0), Direction::Original));
        control.join().unwrap();
        assert_eq!(index.census(), (0, 0));
    });
}

/// The same with another conn entered where the old one was: it keeps its own word.
#[test]
fn loom_arming_never_touches_the_next_conn_in_a_slot() {
    model(4, || {
        let index = index();
        index.confirm_pair(X, X, conn(0), DUE, |_, _| false).unwrap();
        let other = index.clone();
        let control = thread::spawn(move || {
            other.sweep(3, 1, DUE, |_| {}, |seen| (seen == conn(0)).then_some(LATER));
        });
        remove(&index, 0, (X, X));
        index.confirm_pair(at(3, 4), at(3, 4), conn(1), DUE, |_, _| false).unwrap();
        control.join().unwrap();
        let mut seen = Vec::new();
        index.sweep(
            3,
            1,
            DUE,
            |_| {},
            |conn| {
                seen.push(conn);
                None
            },
        );
        assert_eq!(seen, [conn(1)], "its due time is its own");
        assert_eq!(index.census(), (1, 0));
    });
}
