//! The limit on conns: credits that two lcores take, give back and collect from each other.

use std::sync::Arc;

use dataplane::conntrack::capacity::Capacity;
use loom::thread;

use crate::model;

/// Takes up to `takes` credits and gives `gives` of them back; how many it kept.
fn take_and_give(capacity: &Capacity, lcore: u8, takes: u32, gives: u32) -> u32 {
    let mut held = (0..takes).filter(|_| capacity.take(lcore)).count() as u32;
    for _ in 0..gives.min(held) {
        capacity.give(lcore);
        held -= 1;
    }
    held
}

/// All of `max` can be taken by `lcore` besides the `held`, and no more.
fn exactly_the_rest(capacity: &Capacity, lcore: u8, held: u32, max: u32) {
    assert!(held <= max, "{held} of {max}");
    assert_eq!(capacity.count(), held);
    for n in held..max {
        assert!(capacity.take(lcore), "{n} of {max}");
    }
    assert!(!capacity.take(lcore));
}

#[test]
fn loom_two_lcores_at_the_limit_never_pass_it() {
    model(3, || {
        let capacity = Arc::new(Capacity::new(3, 2));
        let other = capacity.clone();
        let second = thread::spawn(move || take_and_give(&other, 1, 2, 1));
        let held = take_and_give(&capacity, 0, 3, 1) + second.join().unwrap();
        exactly_the_rest(&capacity, 0, held, 3);
    });
}

/// With blocks of two, so that spares lie with an lcore that needs none and are collected.
#[test]
fn loom_spares_are_collected_once() {
    const MAX: u32 = 64;
    model(2, || {
        let capacity = Arc::new(Capacity::new(MAX, 2));
        let first = (0..MAX - 3).filter(|_| capacity.take(0)).count() as u32;
        let other = capacity.clone();
        let second = thread::spawn(move || take_and_give(&other, 1, 2, 1));
        let held = first + take_and_give(&capacity, 0, 2, 2) + second.join().unwrap();
        exactly_the_rest(&capacity, 1, held, MAX);
    });
}

/// Giving back more than an lcore keeps, while the other collects.
#[test]
fn loom_what_everybody_gave_back_can_all_be_taken() {
    const MAX: u32 = 6;
    model(3, || {
        let capacity = Arc::new(Capacity::new(MAX, 2));
        assert!((0..MAX).all(|_| capacity.take(0)));
        let other = capacity.clone();
        let second = thread::spawn(move || take_and_give(&other, 1, 2, 2));
        for _ in 0..MAX {
            capacity.give(0);
        }
        assert_eq!(second.join().unwrap(), 0);
        exactly_the_rest(&capacity, 1, 0, MAX);
    });
}
