//! The table by its rules, and against the plainest list that does the same.

use crate::conntrack::events::Reported;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::conntrack::record::Family;
use crate::conntrack::store::{Shared, Sizes, Store};
use crate::conntrack::tuple::proto;
use crate::time::{TICKS_PER_SEC, Tick};

const SEED: HashSeed = HashSeed([11, 22, 33, 44, 55]);
const START: u32 = u32::MAX - 9 * TICKS_PER_SEC;
const POLICY: Policy = Policy { max_expected: 2, timeout_secs: 10 };

fn after(secs: u32) -> Now {
    Now { tick: Tick(START).plus_secs(secs), unix_ns: secs as u64 }
}

/// Masters of one lcore, confirmed for 1000 seconds, and a table of `size`.
struct Rig {
    store: Store,
    masters: Vec<ConnId>,
}

impl Rig {
    fn new(masters: u16, size: u32) -> Rig {
        let sizes = Sizes { max: 64, lcores: 1, extensions: 0 };
        let shared = Shared::new(sizes, SEED).unwrap().with_expectations(size, size, 2);
        shared.records.ensure_chunks(Family::V4, u32::MAX).unwrap();
        let mut rig = Rig { store: Store::new(Arc::new(shared), 0), masters: Vec::new() };
        for port in 0..masters {
            let master = rig.begin(5000 + port);
            rig.masters.push(master);
        }
        rig
    }

    fn table(&self) -> &Expectations {
        &self.store.shared().expectations
    }

    fn begin(&mut self, port: u16) -> ConnId {
        let orig = Tuple {
            src: Address::v4(0x0a01_0002),
            dst: Address::v4(0x0a02_0002),
            src_id: port,
            dst_id: 69,
            proto: proto::UDP,
        };
        let number = self.store.allocate(&orig, &orig.inverted().unwrap(), [0, 0]).unwrap();
        self.store.confirm(number, after(1000).tick, after(0).tick).unwrap();
        let conn = self.store.conn(number).unwrap();
        conn.set_reported(Reported { conn: 0, expectations: u8::MAX });
        conn.id()
    }

    /// From any port of 10.2.0.`peer` to port `port`, for a master.
    fn expectation(&self, master: usize, peer: u32, port: u16) -> Expectation {
        let conn = self.store.conn(self.masters[master].conn).unwrap();
        let mut what = from_peer(conn, Helper::Tftp, None);
        what.master = self.masters[master];
        what.tuple.src = Address::v4(0x0a02_0000 | peer);
        what.tuple.dst_id = port;
        what
    }

    fn expect(&self, what: &Expectation, secs: u32) -> Result<(), Refused> {
        self.table().enter(0, what, POLICY, false, after(secs))
    }

    fn find(&self, tuple: &Tuple, secs: u32) -> Option<Expected> {
        self.table().find(1, (tuple, 0), &self.store.shared().records, after(secs)).unwrap()
    }

    /// What is listed, oldest first.
    fn listed(&self, secs: u32) -> Vec<ExpectationView> {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            from = self.table().list(from, after(secs), &mut all).unwrap();
            if from == 0 {
                break;
            }
        }
        all.sort_by_key(|view| view.key >> 32);
        all
    }

    fn sweep(&self, secs: u32) {
        let mut from = 0;
        loop {
            from = self.table().sweep(from, &self.store.shared().records, after(secs)).unwrap();
            if from == 0 {
                break;
            }
        }
    }
}

/// The packet that fulfils an expectation.
fn child(what: &Expectation, port: u16) -> Tuple {
    Tuple { src_id: port, ..what.tuple }
}

#[test]
fn a_child_is_found_once_by_any_port_of_the_peer_and_takes_the_masters_mark() {
    let rig = Rig::new(1, 4);
    let what = rig.expectation(0, 2, 5000);
    assert!(rig.table().is_empty());
    assert_eq!(rig.expect(&what, 0), Ok(()));
    assert_eq!((rig.table().count(), rig.table().counted(0)), (1, [0, 1, 0]));
    let right = child(&what, 3000);
    let wrong = [
        Tuple { dst_id: 5001, ..right },
        Tuple { src: Address::v4(0x0a02_0003), ..right },
        Tuple { dst: Address::v4(1), ..right },
        Tuple { proto: proto::TCP, ..right },
    ];
    assert!(wrong.iter().all(|tuple| rig.find(tuple, 1).is_none()));
    let records = &rig.store.shared().records;
    assert_eq!(rig.table().find(1, (&right, 7), records, after(1)), Ok(None), "another zone");
    rig.store.conn(rig.masters[0].conn).unwrap().set_mark(77);
    let found = rig.find(&right, 1).unwrap();
    assert_eq!((found.master, found.mark, found.helper), (rig.masters[0], 77, None));
    assert_eq!(rig.find(&right, 1), None);
    assert!(rig.table().is_empty());
    assert_eq!(rig.table().counted(1), [1, 0, 1]);
}

#[test]
fn time_takes_it_away_at_once_and_the_sweep_its_place() {
    let rig = Rig::new(1, 4);
    let what = rig.expectation(0, 2, 5000);
    rig.expect(&what, 0).unwrap();
    assert_eq!(rig.listed(3)[0].remaining_secs, 7);
    assert_eq!(rig.listed(10), []);
    rig.sweep(9);
    assert_eq!(rig.table().count(), 1);
    rig.sweep(10);
    assert_eq!((rig.table().count(), rig.table().counted(0)[2]), (0, 1));
    rig.expect(&what, 0).unwrap();
    assert_eq!(rig.find(&child(&what, 1), 10), None);
    assert!(rig.table().is_empty(), "who walks past it removes it");
}

#[test]
fn the_same_again_starts_anew_and_anothers_is_a_clash() {
    let rig = Rig::new(2, 4);
    let what = rig.expectation(0, 2, 5000);
    rig.expect(&what, 0).unwrap();
    rig.expect(&what, 5).unwrap();
    assert_eq!(rig.listed(5).iter().map(|v| v.remaining_secs).collect::<Vec<_>>(), [10]);
    assert_eq!(rig.table().counted(0), [0, 2, 1]);
    let other = Expectation { master: rig.masters[1], ..what };
    assert_eq!(rig.expect(&other, 5), Err(Refused::Clash));
    assert_eq!(rig.table().enter(0, &other, POLICY, true, after(5)), Err(Refused::Already));
    let class = Expectation { class: 1, ..what };
    assert_eq!(rig.expect(&class, 5), Err(Refused::Already));
    let one_port = SourceMask { id: u16::MAX, ..SourceMask::ANY_PORT };
    let narrower = Expectation { mask: one_port, tuple: child(&what, 9), ..what };
    assert_eq!(rig.expect(&narrower, 5), Err(Refused::Clash));
    assert_eq!(rig.expect(&Expectation { zone: 1, ..other }, 5), Ok(()), "in another zone");
    assert_eq!(rig.expect(&other, 15), Ok(()), "its time was up");
}

#[test]
fn a_full_class_loses_its_oldest_and_a_full_table_refuses() {
    let rig = Rig::new(3, 4);
    let ports = |rig: &Rig| rig.listed(1).iter().map(|v| v.what.tuple.dst_id).collect::<Vec<_>>();
    for port in [1, 2, 3] {
        rig.expect(&rig.expectation(0, 2, port), 0).unwrap();
    }
    assert_eq!(ports(&rig), [2, 3]);
    let other_class = |port| Expectation { class: 1, ..rig.expectation(0, 2, port) };
    rig.expect(&other_class(4), 0).unwrap();
    assert_eq!(ports(&rig), [2, 3, 4]);
    rig.expect(&rig.expectation(1, 2, 5), 0).unwrap();
    assert_eq!(rig.expect(&rig.expectation(2, 2, 6), 0), Err(Refused::TableFull));
    assert_eq!(rig.expect(&rig.expectation(0, 2, 7), 0), Ok(()), "in the place of its oldest");
    assert_eq!(ports(&rig), [3, 4, 5, 7]);
    assert!(!rig.table().set_limit(5) && !rig.table().set_limit(0) && rig.table().set_limit(2));
    assert_eq!(rig.table().count(), 4, "nothing goes for a lower limit");
    // What had to make way stays away, as in the kernel.
    assert_eq!(rig.expect(&rig.expectation(0, 2, 8), 0), Err(Refused::TableFull));
    assert_eq!(ports(&rig), [4, 5, 7]);
    let lowered = Policy { max_expected: 1, timeout_secs: 1 };
    rig.table().set_limit(4);
    rig.expect(&rig.expectation(0, 2, 9), 0).unwrap();
    let more = rig.expectation(0, 2, 10);
    let refused = rig.table().enter(0, &more, lowered, false, after(0));
    assert_eq!(refused, Err(Refused::ClassFull), "one goes, and that is not enough");
    let unlimited = Policy { max_expected: 0, timeout_secs: 1 };
    assert_eq!(rig.table().enter(0, &more, unlimited, false, after(0)), Ok(()));
}

#[test]
fn flags_are_obeyed() {
    let rig = Rig::new(1, 4);
    let what = rig.expectation(0, 2, 5000);
    let inactive = Expectation { flags: Flags::INACTIVE, ..what };
    rig.expect(&inactive, 0).unwrap();
    assert_eq!(rig.find(&child(&what, 1), 1), None);
    rig.expect(&Expectation { flags: Flags::PERMANENT, ..what }, 0).unwrap();
    assert!((1..4).all(|port| rig.find(&child(&what, port), 1).is_some()));
    assert_eq!(rig.table().counted(1), [3, 0, 0]);
    assert_eq!(rig.find(&child(&what, 1), 10), None);
}

#[test]
fn a_master_must_be_confirmed_and_alive() {
    let mut rig = Rig::new(2, 4);
    let what = rig.expectation(0, 2, 5000);
    rig.expect(&what, 0).unwrap();
    rig.expect(&rig.expectation(1, 2, 5001), 0).unwrap();
    assert!(rig.table().end_master(0, rig.masters[0], after(1)));
    assert_eq!(rig.find(&child(&what, 1), 1), None);
    assert_eq!(rig.listed(1).len(), 1, "the other's stays");

    // As if the lock could not be had at its end.
    rig.expect(&what, 1).unwrap();
    assert!(rig.store.delete(rig.masters[0].conn));
    assert_eq!(rig.find(&child(&what, 1), 1), None);
    let again = rig.begin(5000);
    assert_eq!(again.conn, rig.masters[0].conn, "another conn in its record");
    assert_eq!(rig.find(&child(&what, 1), 1), None);
    rig.sweep(1);
    assert_eq!(rig.listed(1).len(), 1);

    let orig = rig.store.conn(again.conn).unwrap().orig();
    let orig = Tuple { dst_id: 6969, ..orig };
    let fresh = rig.store.allocate(&orig, &orig.inverted().unwrap(), [0, 0]).unwrap();
    let unconfirmed = rig.store.conn(fresh).unwrap().id();
    rig.expect(&Expectation { master: unconfirmed, ..what }, 1).unwrap();
    assert_eq!(rig.find(&child(&what, 1), 1), None, "nobody can know of it yet");
    rig.store.confirm(fresh, after(5).tick, after(1).tick).unwrap();
    rig.sweep(1);
    assert_eq!(rig.find(&child(&what, 1), 5), None, "the master's time is up");
    assert!(rig.find(&child(&what, 1), 4).is_some());
}

#[test]
fn listeners_hear_of_everything_in_order() {
    let rig = Rig::new(1, 4);
    let what = rig.expectation(0, 2, 5000);
    rig.expect(&what, 0).unwrap();
    rig.table().listen(true).unwrap();
    rig.expect(&what, 1).unwrap();
    rig.find(&child(&what, 1), 3).unwrap();
    let mut news = Vec::new();
    assert_eq!(rig.table().take_news(&mut news), Ok(0));
    let told = |e: &ExpectationEvent| (e.kind, e.view.remaining_secs, e.unix_ns);
    let expected = [(News::Destroy, 9, 1), (News::New, 10, 1), (News::Destroy, 8, 3)];
    assert_eq!(news.iter().map(told).collect::<Vec<_>>(), expected);
    for _ in 0..600 {
        rig.expect(&what, 3).unwrap();
    }
    news.clear();
    let lost = rig.table().take_news(&mut news).unwrap();
    assert_eq!((lost, news.len()), (1199 - 1024, SLICE as usize));
    rig.table().listen(false).unwrap();
    rig.table().listen(true).unwrap();
    news.clear();
    assert_eq!((rig.table().take_news(&mut news), news.len()), (Ok(0), 0));
}

#[test]
fn one_is_removed_by_its_key_and_no_other_in_its_place() {
    let rig = Rig::new(1, 4);
    let what = rig.expectation(0, 2, 5000);
    rig.expect(&what, 0).unwrap();
    let key = rig.listed(0)[0].key;
    assert_eq!(rig.table().remove(key, after(1)), Ok(true));
    rig.expect(&what, 1).unwrap();
    assert_ne!(rig.listed(1)[0].key, key);
    assert_eq!(rig.table().remove(key, after(1)), Ok(false));
    assert_eq!(rig.table().count(), 1);
}

/// The same in the plainest way: a list, newest first.
#[derive(Default)]
struct Oracle {
    all: Vec<(Expectation, u32)>,
}

impl Oracle {
    fn expect(&mut self, what: &Expectation, limit: u32, secs: u32) -> Result<(), Refused> {
        self.all.retain(|(_, end)| *end > secs);
        let meets = |(other, _): &(Expectation, u32)| {
            let mask = other.mask.both(what.mask);
            other.zone == what.zone && mask.same(&other.tuple, &what.tuple)
        };
        let twin = |(other, _): &(Expectation, u32)| {
            (other.tuple, other.mask, other.zone, other.master)
                == (what.tuple, what.mask, what.zone, what.master)
        };
        if let Some(at) = self.all.iter().position(meets) {
            if !twin(&self.all[at]) {
                return Err(Refused::Clash);
            }
            if self.all[at].0.class != what.class {
                return Err(Refused::Already);
            }
            self.all.remove(at);
        }
        let of_class =
            |(o, _): &(Expectation, u32)| (o.master, o.class) == (what.master, what.class);
        if self.all.iter().filter(|e| of_class(e)).count() >= POLICY.max_expected as usize {
            let oldest = self.all.iter().rposition(of_class).unwrap();
            self.all.remove(oldest);
        }
        if self.all.len() as u32 >= limit {
            return Err(Refused::TableFull);
        }
        self.all.insert(0, (*what, secs + POLICY.timeout_secs));
        Ok(())
    }

    fn find(&mut self, tuple: &Tuple, secs: u32) -> Option<ConnId> {
        self.all.retain(|(_, end)| *end > secs);
        let hit = |(e, _): &(Expectation, u32)| {
            !e.flags.has(Flags::INACTIVE) && e.mask.same(&e.tuple, tuple)
        };
        let at = self.all.iter().position(hit)?;
        let (found, _) = self.all[at];
        if !found.flags.has(Flags::PERMANENT) {
            self.all.remove(at);
        }
        Some(found.master)
    }
}

/// Something that happens: kind, master, peer, port, flags or class.
type Step = (u8, usize, u32, u16, u8);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..10u8, 0..4usize, 1..3u32, 1..5u16, 0..4u8), 1..120)
}

proptest! {
    #[test]
    fn the_table_is_what_a_list_would_be(steps in steps(), limit in 1..8u32) {
        let rig = Rig::new(4, 8);
        rig.table().set_limit(limit);
        let (mut oracle, mut secs) = (Oracle::default(), 0);
        for (kind, master, peer, port, more) in steps {
            let mut what = rig.expectation(master, peer, port);
            match kind {
                0..=4 => {
                    what.flags = Flags(more);
                    what.class = more >> 1;
                    if more == 3 {
                        what.mask.address = 0;
                        what.tuple.src = Address::v4(0);
                    }
                    // Places that only the sweep frees would make the table look full.
                    rig.sweep(secs);
                    prop_assert_eq!(rig.expect(&what, secs), oracle.expect(&what, limit, secs));
                }
                5..=6 => {
                    let tuple = child(&what, 1000 + more as u16);
                    let found = rig.find(&tuple, secs).map(|found| found.master);
                    prop_assert_eq!(found, oracle.find(&tuple, secs));
                }
                7 => {
                    prop_assert!(rig.table().end_master(0, rig.masters[master], after(secs)));
                    oracle.all.retain(|(e, _)| e.master != rig.masters[master]);
                }
                8 => secs += more as u32 * 2,
                _ => rig.sweep(secs),
            }
            oracle.all.retain(|(_, end)| *end > secs);
            let listed: Vec<_> =
                rig.listed(secs).iter().rev().map(|v| (v.what, secs + v.remaining_secs)).collect();
            prop_assert_eq!(&listed, &oracle.all);
        }
        rig.sweep(secs + 1000);
        prop_assert!(rig.table().is_empty());
        let sum = |i: usize| (0..2).map(|lcore| rig.table().counted(lcore)[i]).sum::<u64>();
        prop_assert_eq!(sum(1), sum(2), "what was made was removed");
    }
}
