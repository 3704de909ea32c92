//! Early drop: in a full table conns without ASSURED make room for a new one (`early_drop`).
//!
//! As in the kernel it looks at [`EARLY_DROP_BUCKETS`] buckets from the new conn's home on, and
//! ends all it may in the first of them that has any. Each first packet of a flood asks for that,
//! so it must not cost much to find nothing: a bucket keeps until when nobody in it can go
//! ([`super::index`]), and is passed over that long.

use core::ops::Range;

use super::dccp::DccpState;
use super::record::Conn;
use super::sctp::SctpState;
use super::state::Status;
use super::store::{Shared, Store};
use super::tcp::TcpTrack;
use super::tuple::proto;
use crate::time::Tick;

/// Buckets that one early drop looks at, as many as the kernel.
pub const EARLY_DROP_BUCKETS: u32 = 8;

/// The status of conns that no early drop takes.
const STAYS: Status = Status::CONFIRMED.with(Status::ASSURED);

/// Why a conn ends in an early drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// To make room; counts.
    Early,
    /// Its time was up anyway; does not count.
    Expired,
}

/// Whether a conn may go before its time where the table is nearly full
/// (`gc_worker_can_early_drop`): without ASSURED, or past its end as its tracker sees it.
pub fn can_go_early(conn: Conn<'_>) -> bool {
    if !conn.status().has(Status::ASSURED) {
        return true;
    }
    // Every tracker has its state there.
    let word = conn.tracker_word(TcpTrack::STATE_WORD);
    match conn.proto() {
        proto::TCP => TcpTrack::state_of_word(word).is_closing(),
        proto::SCTP => SctpState::of_word(word).is_closing(),
        proto::DCCP => DccpState::of_word(word).is_closing(),
        _ => false,
    }
}

impl Store {
    /// Makes room for a conn with this index hash (`early_drop`): from its home on, the first of
    /// [`EARLY_DROP_BUCKETS`] buckets that has live confirmed conns without ASSURED loses all of
    /// them; returns how many. Expired conns met on the way go too and are not counted. Only
    /// conns of this lcore are touched. `gone` sees each before it is deleted.
    pub fn early_drop(
        &mut self,
        hash: u64,
        now: Tick,
        mut gone: impl FnMut(Conn<'_>, Gone),
    ) -> usize {
        let mut looks_further = false;
        for i in 0..EARLY_DROP_BUCKETS {
            if self.shared().index.is_barren(hash, i, now) {
                continue;
            }
            // Mostly the home will do; who looks further may have to look at them all.
            if i > 0 && !looks_further {
                looks_further = true;
                self.prefetch_neighbours(hash, i..EARLY_DROP_BUCKETS, now);
            }
            let dropped = self.early_drop_in(hash, i, now, &mut gone);
            if dropped > 0 {
                return dropped;
            }
        }
        0
    }

    /// The same in one bucket. Where all stay, it remembers until when.
    fn early_drop_in(
        &mut self,
        hash: u64,
        i: u32,
        now: Tick,
        gone: &mut impl FnMut(Conn<'_>, Gone),
    ) -> usize {
        let (mut dropped, mut stays_until) = (0, Some(now.plus_secs(1)));
        let numbers = self.shared().index.neighbours(hash, i);
        for &number in &numbers {
            let Some(conn) = self.shared().records.get(number) else { continue };
            let (status, expired) = (conn.status(), conn.is_expired(now));
            if status.has(STAYS) && !expired {
                stays_until = stays_until.map(|least| least.earlier(conn.deadline()));
                continue;
            }
            stays_until = None;
            // The second entry of a conn just deleted finds it no longer confirmed.
            if !status.has(Status::CONFIRMED) || conn.owner() != Some(self.lcore()) {
                continue;
            }
            let why = if expired { Gone::Expired } else { Gone::Early };
            gone(conn, why);
            dropped += (self.delete(number) && why == Gone::Early) as usize;
        }
        if let Some(until) = stays_until {
            self.shared().index.set_barren(hash, i, &numbers, until, now);
        }
        dropped
    }

    /// Brings in the records that an early drop looks at in some of the buckets behind the home of
    /// `hash`.
    fn prefetch_neighbours(&self, hash: u64, buckets: Range<u32>, now: Tick) {
        let Shared { index, records, .. } = &**self.shared();
        for i in buckets.filter(|&i| !index.is_barren(hash, i, now)) {
            index.see_neighbours(hash, i, |number| {
                records.prefetch(number, false, false);
            });
        }
    }

    /// Brings in what an early drop for this hash will look at first: the records of its home, one
    /// of which the new conn will have, or, where all of those are known to stay, the buckets
    /// behind it.
    pub fn prefetch_room(&self, hash: u64, now: Tick) {
        let Shared { index, records, .. } = &**self.shared();
        if index.is_barren(hash, 0, now) {
            return index.prefetch_neighbours(hash, 1..EARLY_DROP_BUCKETS);
        }
        index.see_neighbours(hash, 0, |number| {
            records.prefetch(number, true, false);
        });
    }

    /// The owner of a conn that an early drop for this index hash would take if it were ours
    /// ([`Store::early_drop`]).
    pub fn droppable_elsewhere(&self, hash: u64, now: Tick) -> Option<u8> {
        let droppable = |number| {
            let conn = self.shared().records.get(number)?;
            let status = conn.status();
            let live = status.has(Status::CONFIRMED) && !conn.is_expired(now);
            let theirs = conn.owner().filter(|&owner| owner != self.lcore())?;
            (live && !status.has(Status::ASSURED)).then_some(theirs)
        };
        (0..EARLY_DROP_BUCKETS)
            .filter(|&i| !self.shared().index.is_barren(hash, i, now))
            .find_map(|i| self.shared().index.neighbours(hash, i).into_iter().find_map(droppable))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::record::ConnRef;
    use super::super::store::AllocError;
    use super::super::store::tests::{NOW, add_plain, shared, store, tuple};
    use super::*;

    #[test]
    fn the_limit_is_exact_and_early_drop_makes_room() {
        let mut store = store(10);
        let orig = |i: u32| tuple(false, i, 1000);
        for i in 0..10 {
            add_plain(&mut store, &orig(i));
        }
        let new = orig(99);
        let reply = new.inverted().unwrap();
        assert_eq!(store.allocate(&new, &reply, [0, 0]), Err(AllocError::Full));
        let hash = store.shared().hash(&new, 0);
        let mut seen = Vec::new();
        let dropped = store.early_drop(hash, NOW, |conn, why| seen.push((conn.orig(), why)));
        assert!(dropped > 0 && dropped <= 7);
        assert_eq!(seen.len(), dropped);
        assert!(
            seen.iter()
                .all(|(tuple, why)| { *why == Gone::Early && store.find(tuple, 0, NOW).is_none() })
        );
        assert!(store.allocate(&new, &reply, [0, 0]).is_ok());
        assert_eq!(store.shared().capacity.count() as usize, 11 - dropped);
    }

    #[test]
    fn early_drop_spares_assured_and_foreign_conns_and_does_not_count_expired_ones() {
        let shared = shared(4, 2);
        let (mut mine, mut other) = (Store::new(shared.clone(), 0), Store::new(shared, 1));
        let all = [(); EARLY_DROP_BUCKETS as usize];
        let sweep = |store: &mut Store, now: Tick| -> Vec<Gone> {
            let mut seen = Vec::new();
            for (i, ()) in all.iter().enumerate() {
                // Every home once, so that the placing of these few conns does not matter.
                let hash = ((2 * i as u64) << 60) | 1;
                store.early_drop(hash, now, |_, why| seen.push(why));
            }
            seen
        };
        let assured = add_plain(&mut mine, &tuple(false, 1, 1));
        mine.conn(assured).unwrap().add_status(Status::ASSURED);
        add_plain(&mut other, &tuple(false, 2, 2));
        mine.allocate(&tuple(false, 3, 3), &tuple(false, 3, 3).inverted().unwrap(), [0, 0])
            .unwrap();
        assert_eq!(sweep(&mut mine, NOW), []);
        assert_eq!(sweep(&mut mine, NOW.plus_secs(31)), [Gone::Expired]);
        assert_eq!(mine.shared().capacity.count(), 2);
    }

    /// A store of `max` established conns, none of which may go, and the hash of one more.
    fn full_of_assured(max: u32) -> (Store, Vec<ConnRef>, u64) {
        let mut store = store(max);
        let all = (0..max).map(|i| add_plain(&mut store, &tuple(false, i, 1000)));
        let all: Vec<ConnRef> = all.collect();
        let assure = |&number: &ConnRef| {
            let conn = store.conn(number).unwrap();
            conn.add_status(Status::ASSURED);
            conn.set_deadline(NOW.plus_secs(400));
        };
        all.iter().for_each(assure);
        let hash = store.shared().hash(&tuple(false, max, 1000), 0);
        (store, all, hash)
    }

    /// Conns that an early drop for a hash looks at.
    fn near(store: &Store, hash: u64) -> BTreeSet<ConnRef> {
        (0..EARLY_DROP_BUCKETS).flat_map(|i| store.shared().index.neighbours(hash, i)).collect()
    }

    fn is_barren(store: &Store, hash: u64, now: Tick) -> bool {
        (0..EARLY_DROP_BUCKETS).all(|i| store.shared().index.is_barren(hash, i, now))
    }

    #[test]
    fn an_early_drop_that_found_nothing_is_remembered_until_a_conn_comes_in() {
        let (mut store, all, hash) = full_of_assured(200);
        assert!(!near(&store, hash).is_empty() && !is_barren(&store, hash, NOW));
        assert_eq!(store.early_drop(hash, NOW, |_, _| panic!("an assured one goes")), 0);
        assert!(is_barren(&store, hash, NOW) && is_barren(&store, hash, Tick(NOW.0 + 99)));
        assert!(!is_barren(&store, hash, NOW.plus_secs(1)), "it is looked at again");
        // One goes, another one comes that the drop would have looked at: it is found at once.
        let some = *near(&store, hash).first().unwrap();
        assert!(all.contains(&some) && store.delete(some));
        let looked_at = near(&store, hash);
        let mut tuples = (0..).map(|i| tuple(false, 1000 + i, 1000));
        let new = tuples.find(|t| {
            let home = store.shared().index.neighbours(store.shared().hash(t, 0), 0);
            home.len() < 7 && home.first().is_some_and(|number| looked_at.contains(number))
        });
        let new = new.unwrap();
        let number = add_plain(&mut store, &new);
        assert!(near(&store, hash).contains(&number) && !is_barren(&store, hash, NOW));
        assert_eq!(store.early_drop(hash, NOW, |conn, _| assert_eq!(conn.orig(), new)), 1);
    }

    #[test]
    fn what_is_remembered_of_an_early_drop_ends_with_the_first_conn_there() {
        let (mut store, _, hash) = full_of_assured(200);
        let some = *near(&store, hash).first().unwrap();
        store.conn(some).unwrap().set_deadline(Tick(NOW.0.wrapping_add(30)));
        assert_eq!(store.early_drop(hash, NOW, |_, _| panic!("none has expired")), 0);
        let before = Tick(NOW.0.wrapping_add(29));
        assert_eq!(store.early_drop(hash, before, |_, _| panic!("none has expired")), 0);
        let (mut seen, after) = (Vec::new(), Tick(NOW.0.wrapping_add(30)));
        let gone = |conn: Conn<'_>, why: Gone| seen.push((conn.number(), why));
        assert_eq!(store.early_drop(hash, after, gone), 0);
        assert_eq!(seen, [(some, Gone::Expired)]);
    }

    #[test]
    fn another_lcores_conn_that_may_go_is_not_forgotten() {
        let shared = shared(4, 2);
        let (mut mine, mut other) = (Store::new(shared.clone(), 0), Store::new(shared, 1));
        let theirs = add_plain(&mut other, &tuple(false, 2, 2));
        let hash = mine.shared().hash(&tuple(false, 2, 2), 0);
        for _ in 0..2 {
            assert_eq!(mine.early_drop(hash, NOW, |_, _| panic!("it is not ours")), 0);
            assert_eq!(mine.droppable_elsewhere(hash, NOW), Some(1));
        }
        other.conn(theirs).unwrap().add_status(Status::ASSURED);
        assert_eq!(mine.early_drop(hash, NOW, |_, _| panic!("it is not ours")), 0);
        assert!(mine.shared().index.is_barren(hash, 0, NOW));
        assert_eq!(mine.droppable_elsewhere(hash, NOW), None);
    }
}
