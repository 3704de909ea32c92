//! Expectations: the counter that lets everybody skip them, the lock, and the end of a master.

use std::sync::Arc;

use dataplane::conntrack::expect::{Busy, Expectation, from_peer};
use dataplane::conntrack::helper::{Helper, Policy};
use dataplane::conntrack::record::{ConnId, Family};
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::{HashSeed, Tuple, proto};
use dataplane::time::{Now, TICKS_PER_SEC, Tick};
use dataplane::wire::address::Address;
use loom::sync::atomic::AtomicU32;
use loom::sync::atomic::Ordering::{Acquire, Release};
use loom::thread;

use crate::model;

const SEED: HashSeed = HashSeed([1, 22, 333, 4444, 55_555]);
const NOW: Now = Now { tick: Tick(5000), unix_ns: 0 };
const LONG: Tick = Tick(NOW.tick.0 + 50 * TICKS_PER_SEC);
const POLICY: Policy = Policy { max_expected: 1, timeout_secs: 30 };

fn request() -> Tuple {
    let (src, dst) = (Address::v4(0x0a00_0001), Address::v4(0xc633_6401));
    Tuple { src, dst, src_id: 4000, dst_id: 69, proto: proto::UDP }
}

/// The server's first packet.
fn child() -> Tuple {
    Tuple { src_id: 3000, ..request().inverted().unwrap() }
}

/// The store of lcore 0 with a confirmed master, and what it would expect.
fn master() -> (Store, ConnId, Expectation) {
    let shared = Shared::new(Sizes { max: 2, lcores: 2, extensions: 0 }, SEED).unwrap();
    let shared = shared.with_expectations(2, 2, 2);
    shared.records.ensure_chunks(Family::V4, u32::MAX).unwrap();
    let mut store = Store::new(Arc::new(shared), 0);
    let reply = request().inverted().unwrap();
    let number = store.allocate(&request(), &reply, [0, 0]).unwrap();
    store.confirm(number, LONG, NOW.tick).unwrap();
    let conn = store.conn(number).unwrap();
    let (id, what) = (conn.id(), from_peer(conn, Helper::Tftp, None));
    (store, id, what)
}

/// What a lcore finds; an lcore that cannot have the lock knows that it knows nothing.
fn find(shared: &Shared, lcore: u8) -> Result<Option<ConnId>, Busy> {
    if shared.expectations.is_empty() {
        return Ok(None);
    }
    let found = shared.expectations.find(lcore, (&child(), 0), &shared.records, NOW);
    found.map(|found| found.map(|found| found.master))
}

/// Two lcores meet packets that fulfil one expectation: one of them has it.
#[test]
fn loom_an_expectation_is_fulfilled_once() {
    model(2, || {
        let (store, id, what) = master();
        let shared = store.shared().clone();
        shared.expectations.enter(0, &what, POLICY, false, NOW).unwrap();
        let theirs = thread::spawn({
            let shared = shared.clone();
            move || find(&shared, 1)
        });
        let found = [find(&shared, 0), theirs.join().unwrap()];
        let mut left = shared.expectations.count();
        assert!(found.iter().flatten().flatten().all(|master| *master == id));
        let taken = found.iter().flatten().flatten().count() as u32;
        let busy = found.contains(&Err(Busy));
        assert!(taken + left == 1 && (taken == 1 || busy), "{found:?}");
        if busy && left == 1 {
            left -= find(&shared, 1).unwrap().is_some() as u32;
        }
        assert!(left == 0 && shared.expectations.is_empty());
    });
}

/// A master ends while its child comes in elsewhere: the child is its, or nobody's, and once the
/// master is gone nothing of it is found, whoever has its record.
#[test]
fn loom_a_master_that_ends_takes_its_expectations_along() {
    model(2, || {
        let (mut store, id, what) = master();
        let shared = store.shared().clone();
        shared.expectations.enter(0, &what, POLICY, false, NOW).unwrap();
        let theirs = thread::spawn({
            let shared = shared.clone();
            move || find(&shared, 1)
        });
        let ended = shared.expectations.end_master(0, id, NOW);
        assert!(store.delete(id.conn));
        let later = find(&shared, 0);
        assert!(matches!(later, Ok(None) | Err(Busy)), "gone before: {later:?}");
        let found = theirs.join().unwrap();
        assert!(found.is_err() || found == Ok(None) || found == Ok(Some(id)));
        if ended {
            assert!(shared.expectations.is_empty());
        }
        assert_eq!(find(&shared, 0), Ok(None));
    });
}

/// Who hears from the lcore that entered an expectation, as by a packet of the master's that it
/// sent on, does not skip the table.
#[test]
fn loom_the_counter_is_there_before_the_child_can_be() {
    model(3, || {
        let (store, id, what) = master();
        let shared = store.shared().clone();
        let sent = Arc::new(AtomicU32::new(0));
        let theirs = thread::spawn({
            let (shared, sent) = (shared.clone(), sent.clone());
            move || (sent.load(Acquire) == 1).then(|| find(&shared, 1))
        });
        shared.expectations.enter(0, &what, POLICY, false, NOW).unwrap();
        sent.store(1, Release);
        if let Some(found) = theirs.join().unwrap() {
            assert_eq!(found, Ok(Some(id)));
        }
    });
}

/// A master ends while somebody has the lock, so that its expectations may stay: they lead to
/// nobody, also when another conn has its record.
#[test]
fn loom_what_a_master_leaves_behind_leads_to_nobody() {
    model(3, || {
        let (mut store, id, what) = master();
        let shared = store.shared().clone();
        shared.expectations.enter(0, &what, POLICY, false, NOW).unwrap();
        let owner = thread::spawn(move || {
            let ended = store.shared().expectations.end_master(0, id, NOW);
            assert!(store.delete(id.conn));
            let next = Tuple { src_id: 4001, ..request() };
            let number = store.allocate(&next, &next.inverted().unwrap(), [0, 0]).unwrap();
            store.confirm(number, LONG, NOW.tick).unwrap();
            assert_eq!(number, id.conn, "last in, first out");
            ended
        });
        // The control core looks through them meanwhile.
        let _ = shared.expectations.sweep(0, &shared.records, NOW);
        let ended = owner.join().unwrap();
        assert!(shared.expectations.is_empty() || !ended);
        assert_eq!(find(&shared, 1), Ok(None), "the next conn of the record is no master");
    });
}
