//! The neighbour table: slots that change their owner while others read and write them. Who only
//! reads is the second thread: see `resize`.

use std::sync::Arc;

use dataplane::conntrack::tuple::HashSeed;
use dataplane::pipeline::neighbour::{Evidence, NeighbourTable, NextHop, Resolved, State, WAYS};
use dataplane::time::{TICKS_PER_SEC, Tick};
use dataplane::wire::address::Address;
use loom::thread;

use crate::model;

const SEED: HashSeed = HashSeed([11, 22, 33, 44, 55]);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 10];
const PORT: u8 = 3;
const OLD: Address = host(0);
const START: Tick = Tick(1000);
const LATER: Tick = Tick(START.0 + 2 * TICKS_PER_SEC);

/// Both halves of these differ between any two of them.
const fn host(n: u128) -> Address {
    Address::v6(0xfd00 << 112 | n << 64 | n)
}

/// A table of eight slots: `OLD` asked for at the start, so that its slot is what `LATER` is taken
/// first, and seven neighbours that stay.
fn table() -> (Arc<NeighbourTable>, NextHop) {
    let table = NeighbourTable::new(WAYS, SEED);
    let Resolved::Pending { next_hop, ask: true } = table.resolve(PORT, OLD, START) else {
        panic!("a new neighbour")
    };
    for n in 1..WAYS as u128 {
        table.set_permanent(PORT, host(100 + n), OTHER, START).unwrap();
    }
    (Arc::new(table), next_hop)
}

fn answer() -> Evidence {
    Evidence::arp(MAC, true, false)
}

/// While a slot goes from one neighbour to another a reader sees one of them, whole, or none.
#[test]
fn loom_a_reader_never_sees_half_an_address() {
    model(3, || {
        let (table, slot) = table();
        let other = table.clone();
        let reader = thread::spawn(move || other.neighbour(slot));
        let taken = table.resolve(PORT, host(7), LATER);
        assert_eq!(taken, Resolved::Pending { next_hop: slot, ask: true });
        if let Some(seen) = reader.join().unwrap() {
            assert!([OLD, host(7)].contains(&seen.address), "{seen:?}");
            assert_eq!((seen.port, seen.state, seen.mac), (PORT, State::Incomplete, None));
        }
    });
}

/// The answer of a neighbour arrives while its slot is taken from it. Whoever got its number as
/// one that is known learns by the epoch that it no longer is.
#[test]
fn loom_a_number_that_was_known_and_went_to_another_raises_the_epoch() {
    model(3, || {
        let (table, slot) = table();
        let before = table.epoch();
        let other = table.clone();
        let second = thread::spawn(move || other.resolve(PORT, host(7), LATER));
        table.learn(PORT, OLD, answer(), LATER);
        // As a worker that sends what waited for this number and remembers it.
        let known = table.mac(slot) == Some(MAC);
        second.join().unwrap();
        let owner = table.neighbour(slot).unwrap().address;
        if known && owner == host(7) {
            assert_ne!(table.epoch(), before, "the number went to another unnoticed");
        }
    });
}

/// The MAC address of the next owner of a number is not seen before the epoch is raised.
#[test]
fn loom_the_epoch_rises_before_the_next_owner_can_be_sent_to() {
    model(3, || {
        let (table, slot) = table();
        assert_eq!(table.learn(PORT, OLD, answer(), START), Some(slot));
        assert!(table.forget(PORT, OLD, START));
        let before = table.epoch();
        let other = table.clone();
        let sender = thread::spawn(move || (other.mac(slot) == Some(OTHER)).then(|| other.epoch()));
        let told = Evidence::arp_request_for_us(OTHER);
        assert_eq!(table.learn(PORT, host(7), told, LATER), Some(slot));
        let epoch = sender.join().unwrap();
        assert_ne!(epoch, Some(before), "sent to the new owner by an old number");
    });
}

/// A late report about the old owner does not change what is known of the new one.
#[test]
fn loom_a_late_answer_is_not_credited_to_the_next_owner() {
    model(3, || {
        let (table, slot) = table();
        let other = table.clone();
        let second = thread::spawn(move || other.resolve(PORT, host(7), LATER));
        table.learn(PORT, OLD, answer(), LATER);
        second.join().unwrap();
        let now = table.neighbour(slot).unwrap();
        let wanted = if now.address == OLD { Some(MAC) } else { None };
        assert_eq!(now.mac, wanted, "{now:?}");
    });
}

/// Two lcores need the same new neighbour: each gets a number, one of them is the neighbour's, and
/// an answer is credited to that one.
#[test]
fn loom_two_lcores_that_ask_for_one_neighbour() {
    model(2, || {
        let table = Arc::new(NeighbourTable::new(WAYS, SEED));
        let other = table.clone();
        let second = thread::spawn(move || other.resolve(PORT, OLD, START));
        let results = [table.resolve(PORT, OLD, START), second.join().unwrap()];
        let numbers = results.map(|result| match result {
            Resolved::Pending { next_hop, .. } => next_hop,
            other => panic!("{other:?}"),
        });
        let credited = table.learn(PORT, OLD, answer(), START).unwrap();
        assert!(numbers.contains(&credited));
        assert_eq!(table.mac(credited), Some(MAC));
    });
}
