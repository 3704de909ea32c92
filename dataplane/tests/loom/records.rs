//! Records through the stores of two lcores: who reads a record that its owner frees and reuses
//! may read a mixture, but no owner acts on it.

use std::sync::{Arc, OnceLock};

use dataplane::conntrack::index::Refused;
use dataplane::conntrack::record::{ConnId, ConnRef, Family};
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::{HashSeed, Tuple, proto};
use dataplane::time::{TICKS_PER_SEC, Tick};
use dataplane::wire::address::Address;
use loom::thread;

use crate::model;

const SEED: HashSeed = HashSeed([1, 22, 333, 4444, 55_555]);
const NOW: Tick = Tick(5000);
const SOON: Tick = Tick(NOW.0 + 5 * TICKS_PER_SEC);
const LONG: Tick = Tick(NOW.0 + 50 * TICKS_PER_SEC);

fn tuple(src_id: u32) -> Tuple {
    let (src, dst) = (Address::v4(0x0a00_0000 | src_id >> 16), Address::v4(0xc633_6401));
    Tuple { src, dst, src_id: src_id as u16, dst_id: 443, proto: proto::UDP }
}

/// Two tuples whose homes and tags are the same in the smallest index.
fn colliding() -> [Tuple; 2] {
    static FOUND: OnceLock<[Tuple; 2]> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let place = |n: u32| {
            let hash = tuple(n).hash(0, &SEED);
            (hash >> 60, hash & 0xffff)
        };
        let first = place(0);
        let second = (1..).find(|&n| place(n) == first).unwrap();
        [tuple(0), tuple(second)]
    })
}

fn stores() -> [Store; 2] {
    let shared = Shared::new(Sizes { max: 2, lcores: 2, extensions: 0 }, SEED).unwrap();
    shared.records.ensure_chunks(Family::V4, u32::MAX).unwrap();
    let shared = Arc::new(shared);
    [0, 1].map(|lcore| Store::new(shared.clone(), lcore))
}

fn add(store: &mut Store, tuple: &Tuple, deadline: Tick) -> Result<ConnRef, Refused> {
    let number = store.allocate(tuple, &tuple.inverted().unwrap(), [0, 0]).unwrap();
    match store.confirm(number, deadline, NOW) {
        Ok(()) => Ok(number),
        Err(refused) => {
            assert!(store.release_unconfirmed(number));
            Err(refused)
        }
    }
}

/// The owner deletes a conn and makes another in its record, with a tuple of the same home and tag,
/// while another lcore searches: what it finds is one of the two or nothing, and what it takes the
/// conn for is refused or right when the owner is asked.
#[test]
fn loom_a_search_during_reuse_leads_nowhere_wrong() {
    model(2, || {
        let [old, new] = colliding();
        let [mut mine, theirs] = stores();
        let number = add(&mut mine, &old, LONG).unwrap();
        let first = mine.conn(number).unwrap().id();
        let second = thread::spawn(move || {
            let found = theirs.find(&old, 0, NOW).map(|found| found.conn.id());
            (found, theirs)
        });
        assert!(mine.delete(number));
        assert_eq!(add(&mut mine, &new, LONG), Ok(number), "last in, first out");
        let (found, theirs) = second.join().unwrap();
        if let Some(id) = found {
            assert_eq!(id.conn, number);
            assert!(mine.get(first).is_none(), "gone, whatever was seen");
            let now = mine.get(id).map(|conn| conn.orig());
            assert!(now.is_none() || now == Some(new));
        }
        assert!(theirs.get(first).is_none(), "not theirs");
        assert!(mine.find(&old, 0, NOW).is_none() && mine.find(&new, 0, NOW).is_some());
    });
}

/// A conn of lcore 1 ends while lcore 0 looks it up: lcore 0 may find it or not, but never takes
/// the freed record for its own.
#[test]
fn loom_a_conn_that_ends_becomes_nobody_elses() {
    model(2, || {
        let [tuple, _] = colliding();
        let [theirs, mut mine] = stores();
        let number = add(&mut mine, &tuple, LONG).unwrap();
        let reader = thread::spawn(move || {
            let found = theirs.find(&tuple, 0, NOW).filter(|found| !found.expired)?;
            found.conn.owner()
        });
        assert!(mine.delete(number));
        let owner = reader.join().unwrap();
        assert_ne!(owner, Some(0));
    });
}

/// The sweep names a conn as expired while its owner deletes it and makes another in its record.
/// `ends` is what the owner does about a name.
fn a_sweep_during_reuse(ends: fn(&Store, ConnId, Tick) -> bool) {
    model(2, move || {
        let [old, new] = colliding();
        let [mut mine, _theirs] = stores();
        let number = add(&mut mine, &old, SOON).unwrap();
        let later = SOON.plus_secs(3);
        let shared = mine.shared().clone();
        let control = thread::spawn(move || {
            let mut named: Vec<(ConnId, u8)> = Vec::new();
            shared.sweep(0, u32::MAX, later, |id, owner| {
                named.push((id, owner));
                true
            });
            named
        });
        assert!(mine.delete(number));
        assert_eq!(add(&mut mine, &new, LONG), Ok(number));
        for (id, owner) in control.join().unwrap() {
            assert_eq!((id.conn, owner), (number, 0));
            assert!(!ends(&mine, id, later), "the new conn would end");
        }
        assert!(mine.find(&new, 0, later).is_some());
    });
}

/// Whatever was named, by the owner's checks nothing but the expired conn can end
/// (`Pipeline::expire`).
#[test]
fn loom_what_the_sweep_names_ends_nobody_else() {
    a_sweep_during_reuse(|mine, id, later| mine.get(id).is_some_and(|c| c.is_expired(later)));
}

/// The second look at the deadline is what protects: the old one's may have been read with the new
/// one's name.
#[test]
#[should_panic(expected = "the new conn would end")]
fn loom_without_looking_at_the_deadline_again_it_would_end_the_next_conn() {
    a_sweep_during_reuse(|mine, id, _| mine.get(id).is_some());
}

/// A record goes from one lcore to another across the shelf, and is confirmed there: it carries one
/// owner at a time, and its incarnation is one more.
#[test]
fn loom_a_record_has_one_owner_at_a_time() {
    model(2, || {
        let [a, b] = colliding();
        let [mut mine, mut theirs] = stores();
        let number = add(&mut mine, &a, LONG).unwrap();
        let first = mine.conn(number).unwrap().id();
        let second = thread::spawn(move || {
            let number = add(&mut theirs, &b, LONG).unwrap();
            assert_eq!(theirs.conn(number).unwrap().owner(), Some(1));
            assert!(theirs.get(first).is_none());
            assert!(!theirs.delete(first.conn) || number == first.conn);
            theirs
        });
        assert!(mine.delete(number));
        assert!(mine.get(first).is_none());
        second.join().unwrap();
        let again = mine.conn(number).unwrap().id();
        assert_eq!(again.incarnation, first.incarnation + 1);
    });
}

/// Two lcores confirm conns whose tuples share home and tag: both get in, and the same tuple once.
#[test]
fn loom_stores_of_two_lcores_confirm_each_tuple_once() {
    for same in [false, true] {
        model(2, move || {
            let [a, mut b] = colliding();
            if same {
                b = a;
            }
            let [mut mine, mut theirs] = stores();
            let second = thread::spawn(move || add(&mut theirs, &b, LONG).is_ok());
            let first = add(&mut mine, &a, LONG).is_ok();
            let second = second.join().unwrap();
            assert_eq!(first as u8 + second as u8, 2 - same as u8);
            let shared = mine.shared();
            assert_eq!(shared.index.census().0, 2 - same as u64);
            assert_eq!(shared.capacity.count(), 2 - same as u32);
        });
    }
}
