//! The index while it changes its size: one lcore moves its entries, others look, confirm and
//! sweep, some of them with the view before or after. Each protection is taken out once, in a model
//! that has to fail.
//!
//! Loom remembers the last access to a word alone, so a thread that reads a word before it stores
//! to it hides from loom that another one has read it before. Here the mover is the first thread
//! and whoever looks is the second: each of its loads then meets a store, before which loom tries
//! it.

use std::sync::Arc;

use dataplane::arch::sync::AtomicU64;
use dataplane::arch::sync::Ordering::{Acquire, Relaxed, Release};
use dataplane::conntrack::index::{Due, Index, Moved, Refused, SLOTS};
use dataplane::conntrack::record::{ConnRef, Family};
use dataplane::conntrack::state::Direction;
use dataplane::time::Tick;
use loom::thread;

use crate::model;

const DUE: Due = Due::now(Tick(128 * 9));
const LATER: Due = Due::now(Tick(128 * 12));
/// Homes 3, 9 and 5 of 16 buckets.
const X: u64 = at(3, 1);
const Y: u64 = at(9, 2);
const Z: u64 = at(5, 3);

const fn at(home: u64, salt: u64) -> u64 {
    home << 60 | 12 << 28 | salt << 32 | 1
}

fn conn(number: u32) -> ConnRef {
    ConnRef::new(Family::V4, number)
}

/// The four views of a change from 16 buckets to 18.
struct Views {
    old: Index,
    looking: Index,
    moving: Index,
    new: Index,
}

fn views() -> Arc<Views> {
    let (old, new) = (Index::with_buckets(16).unwrap(), Index::with_buckets(18).unwrap());
    Arc::new(Views { looking: old.looking(&new), moving: old.moving(&new), old, new })
}

fn enter(index: &Index, number: u32, hash: u64) {
    index.confirm_pair(hash, hash, conn(number), DUE, |_, _| false).unwrap();
}

fn has(index: &Index, hash: u64, number: u32) -> bool {
    index.lookup(hash, |other, _| (other == conn(number)).then_some(())).is_some()
}

/// Moves conn `number`, wherever it is among the buckets from `from` on.
fn move_one(view: &Index, (from, buckets): (u32, u32), number: u32, hashes: (u64, u64)) {
    let moved = view.move_own(from, buckets, false, |other, side| {
        let hash = if side == Direction::Original { hashes.0 } else { hashes.1 };
        (other == conn(number)).then_some(hash)
    });
    assert_eq!(moved.stuck, 0);
}

/// A conn is found at every moment of its move, also one away from home, by lcores with any view
/// that there may be meanwhile.
#[test]
fn loom_a_moving_entry_is_found_at_every_moment() {
    for full in [false, true] {
        for looking in [false, true] {
            model(3, move || {
                let views = views();
                if full {
                    (0..SLOTS as u64).for_each(|i| enter(&views.old, 100 + i as u32, X + 1 + i));
                }
                enter(&views.old, 0, X);
                let other = views.clone();
                let reader = thread::spawn(move || {
                    has(if looking { &other.looking } else { &other.moving }, X, 0)
                });
                // At home in bucket 3; away from it, in 2.
                move_one(&views.moving, (if full { 2 } else { 3 }, 1), 0, (X, X));
                assert!(reader.join().unwrap(), "hidden");
                assert!(has(&views.new, X, 0) && !has(&views.old, X, 0));
                assert_eq!(views.new.census(), (1, 0));
                assert_eq!(views.old.census(), (full as u64 * SLOTS as u64, 0));
            });
        }
    }
}

#[test]
#[should_panic(expected = "hidden")]
fn loom_who_does_not_look_into_the_new_array_misses_a_moved_entry() {
    model(3, || {
        let views = views();
        enter(&views.old, 0, X);
        let other = views.clone();
        let reader = thread::spawn(move || has(&other.old, X, 0));
        move_one(&views.moving, (3, 1), 0, (X, X));
        assert!(reader.join().unwrap(), "hidden");
    });
}

#[test]
#[should_panic(expected = "hidden")]
fn loom_who_looks_into_the_new_array_first_misses_a_moving_entry() {
    model(3, || {
        let views = views();
        enter(&views.old, 0, X);
        let other = views.clone();
        let reader = thread::spawn(move || has(&other.new, X, 0) || has(&other.old, X, 0));
        move_one(&views.moving, (3, 1), 0, (X, X));
        assert!(reader.join().unwrap(), "hidden");
    });
}

/// Two lcores with these views confirm conns that share a tuple.
fn one_of_two_wins(pick: fn(&Views) -> [Index; 2], pairs: [(u64, u64); 2]) {
    model(3, move || {
        let views = views();
        let [first, second] = pick(&views);
        let confirm = move |index: &Index, number: u32| {
            let mine = pairs[number as usize];
            index.confirm_pair(mine.0, mine.1, conn(number), DUE, |side, other| {
                let wanted = if side == Direction::Original { mine.0 } else { mine.1 };
                let other = pairs[other.number() as usize];
                other.0 == wanted || other.1 == wanted
            })
        };
        let second = thread::spawn(move || confirm(&second, 1));
        let results = [confirm(&first, 0), second.join().unwrap()];
        let winner = match results {
            [Ok(()), Err(Refused::Clash { with, .. })] if with == conn(0) => 0,
            [Err(Refused::Clash { with, .. }), Ok(())] if with == conn(1) => 1,
            other => panic!("not one winner: {other:?}"),
        };
        // Whole: both tuples or neither.
        assert_eq!(views.moving.census(), (2, 0));
        assert!(has(&views.moving, pairs[winner].0, winner as u32));
        assert!(has(&views.moving, pairs[winner].1, winner as u32));
        let own = (pairs[winner].0, pairs[winner].1);
        assert!(views.moving.remove(own.0, conn(winner as u32), Direction::Original));
        assert!(views.moving.remove(own.1, conn(winner as u32), Direction::Reply));
        assert_eq!(views.moving.census(), (0, 0));
    });
}

#[test]
fn loom_a_tuple_enters_once_whatever_views_one_step_apart() {
    for pairs in [[(X, Y), (X, Y)], [(X, Y), (Y, X)], [(X, Y), (Z, Y)]] {
        one_of_two_wins(|v| [v.old.clone(), v.looking.clone()], pairs);
        one_of_two_wins(|v| [v.looking.clone(), v.moving.clone()], pairs);
        one_of_two_wins(|v| [v.moving.clone(), v.moving.clone()], pairs);
        one_of_two_wins(|v| [v.moving.clone(), v.new.clone()], pairs);
    }
}

#[test]
#[should_panic(expected = "not one winner")]
fn loom_two_steps_apart_a_tuple_would_enter_twice() {
    one_of_two_wins(|v| [v.looking.clone(), v.new.clone()], [(X, Y), (X, Y)]);
}

#[test]
#[should_panic(expected = "not one winner")]
fn loom_without_looking_first_a_tuple_would_enter_twice() {
    one_of_two_wins(|v| [v.old.clone(), v.moving.clone()], [(X, Y), (X, Y)]);
}

/// While its owner moves a conn, nobody can enter one of its tuples.
#[test]
fn loom_a_moving_tuple_stays_taken() {
    for reply in [X, Y] {
        model(3, move || {
            let views = views();
            views.old.confirm_pair(X, reply, conn(0), DUE, |_, _| false).unwrap();
            let other = views.clone();
            let second = thread::spawn(move || {
                other.moving.confirm_pair(reply, reply, conn(1), DUE, |_, other| {
                    assert_eq!(other, conn(0));
                    true
                })
            });
            // Homes 3 and 9.
            move_one(&views.moving, (3, 7), 0, (X, reply));
            let side = Direction::Original;
            assert_eq!(second.join().unwrap(), Err(Refused::Clash { with: conn(0), side }));
            assert_eq!(views.new.census(), (1 + (reply != X) as u64, 0));
            assert_eq!(views.old.census(), (0, 0));
        });
    }
}

/// The owner moves a conn, deletes it and reuses the record; who confirms its tuple meanwhile meets
/// the old conn or none, and a new one that is entered stays.
#[test]
fn loom_a_conn_moved_and_removed_leaves_nothing_in_either_array() {
    model(3, || {
        let views = views();
        enter(&views.old, 0, X);
        let alive = Arc::new(AtomicU64::new(1));
        let (other, word) = (views.clone(), alive.clone());
        let second = thread::spawn(move || {
            other.moving.confirm_pair(X, X, conn(1), DUE, |_, other| {
                assert_eq!(other, conn(0));
                word.load(Relaxed) == 1
            })
        });
        move_one(&views.moving, (3, 1), 0, (X, X));
        assert!(views.moving.remove(X, conn(0), Direction::Original));
        alive.store(0, Relaxed);
        let mine = second.join().unwrap();
        assert_eq!(views.moving.census(), (mine.is_ok() as u64, 0));
        assert_eq!(has(&views.new, X, 1), mine.is_ok());
    });
}

/// The sweep arms a due time while the owner moves the entry: it is there once, and in the end
/// not at all.
#[test]
fn loom_arming_never_doubles_a_moving_entry() {
    model(3, || {
        let views = views();
        enter(&views.old, 0, X);
        let other = views.clone();
        let control = thread::spawn(move || {
            other.looking.sweep(
                0,
                u32::MAX,
                LATER,
                |_| {},
                |seen| {
                    assert_eq!(seen, conn(0));
                    Some(LATER)
                },
            );
        });
        move_one(&views.moving, (3, 1), 0, (X, X));
        assert!(views.moving.set_due(X, conn(0), LATER));
        control.join().unwrap();
        assert_eq!(views.moving.census(), (1, 0));
        assert!(views.moving.remove(X, conn(0), Direction::Original));
        assert_eq!(views.moving.census(), (0, 0));
    });
}

/// Two lcores move a conn each out of one bucket into one bucket.
#[test]
fn loom_two_owners_move_at_once() {
    model(3, || {
        let views = views();
        let beside = at(3, 7);
        enter(&views.old, 0, X);
        enter(&views.old, 1, beside);
        let other = views.clone();
        let second = thread::spawn(move || move_one(&other.moving, (3, 1), 1, (beside, beside)));
        move_one(&views.moving, (3, 1), 0, (X, X));
        second.join().unwrap();
        assert_eq!((views.old.census(), views.new.census()), ((0, 0), (2, 0)));
        assert!(has(&views.new, X, 0) && has(&views.new, beside, 1));
        let done = views.moving.move_own(0, u32::MAX, false, |_, _| None);
        assert_eq!(done, Moved { next: None, stuck: 0 });
    });
}

/// What one lcore has entered in the new array before it tells another is found by it, although
/// that one has the view before.
#[test]
fn loom_who_is_told_of_an_entry_finds_it_in_the_new_array() {
    model(3, || {
        let views = views();
        let told = Arc::new(AtomicU64::new(0));
        let (other, word) = (views.clone(), told.clone());
        let second = thread::spawn(move || word.load(Acquire) == 0 || has(&other.looking, X, 0));
        enter(&views.moving, 0, X);
        told.store(1, Release);
        assert!(second.join().unwrap(), "not found");
    });
}
