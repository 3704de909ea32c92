//! What the lock guards: places for expectations, chained by destination and by master.
//!
//! Both chains begin with the newest, as the kernel's. A place lies in both or in neither; free
//! ones are chained by the first link. Whoever walks a chain first takes out what has had its time.

use std::collections::VecDeque;

use super::{Expectation, ExpectationEvent, ExpectationView, Flags, News, Refused};
use crate::conntrack::record::ConnId;
use crate::conntrack::tuple::{HashSeed, Tuple};
use crate::time::{Now, Tick};

/// No place.
const NONE: u32 = u32::MAX;

/// Events that wait to be fetched.
const NEWS_MAX: usize = 1024;

/// The two chains of a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chain {
    Destination = 0,
    Master = 1,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    what: Expectation,
    deadline: Tick,
    key: u64,
}

impl Entry {
    fn view(&self, now: Now) -> ExpectationView {
        let remaining_secs = self.deadline.remaining_secs(now.tick);
        ExpectationView { key: self.key, what: self.what, remaining_secs }
    }
}

#[derive(Clone, Debug)]
struct Place {
    entry: Option<Entry>,
    next: [u32; 2],
}

/// The table behind the lock.
#[derive(Debug)]
pub(super) struct Table {
    places: Box<[Place]>,
    free: u32,
    /// By chain, then by bucket: the first place.
    heads: [Box<[u32]>; 2],
    used: u32,
    /// Removed since somebody asked.
    removed: u64,
    keys: u64,
    seed: HashSeed,
    listened: bool,
    news: VecDeque<ExpectationEvent>,
    lost: u64,
}

impl Table {
    pub(super) fn new(size: u32, seed: HashSeed) -> Table {
        let place =
            |i| Place { entry: None, next: [if i + 1 < size { i + 1 } else { NONE }, NONE] };
        let heads = || vec![NONE; size.next_power_of_two() as usize].into_boxed_slice();
        Table {
            places: (0..size).map(place).collect(),
            free: 0,
            heads: [heads(), heads()],
            used: 0,
            removed: 0,
            keys: 0,
            seed,
            listened: false,
            news: VecDeque::with_capacity(if cfg!(loom) { 0 } else { NEWS_MAX }),
            lost: 0,
        }
    }

    pub(super) fn bytes(size: u32) -> usize {
        let heads = 2 * size_of::<u32>() * size.next_power_of_two() as usize;
        size as usize * size_of::<Place>() + heads + NEWS_MAX * size_of::<ExpectationEvent>()
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    pub(super) fn take_removed(&mut self) -> u64 {
        std::mem::take(&mut self.removed)
    }

    /// The bucket of a destination: an outsider chooses it, so it is hashed with a secret.
    fn destination(&self, tuple: &Tuple) -> usize {
        let end = Tuple { src: tuple.dst, src_id: tuple.dst_id, proto: tuple.proto, ..*tuple };
        end.source_hash(0, &self.seed) as usize & (self.heads[0].len() - 1)
    }

    fn masters(&self, master: ConnId) -> usize {
        master.conn.bits() as usize & (self.heads[1].len() - 1)
    }

    fn bucket(&self, chain: Chain, what: &Expectation) -> usize {
        match chain {
            Chain::Destination => self.destination(&what.tuple),
            Chain::Master => self.masters(what.master),
        }
    }

    fn head(&self, chain: Chain, bucket: usize) -> u32 {
        self.heads[chain as usize].get(bucket).copied().unwrap_or(NONE)
    }

    fn entry(&self, at: u32) -> Option<&Entry> {
        self.places.get(at as usize)?.entry.as_ref()
    }

    fn next(&self, chain: Chain, at: u32) -> u32 {
        self.places.get(at as usize).map_or(NONE, |place| place.next[chain as usize])
    }

    /// The live entries of a chain, newest first; the others are taken out.
    fn walk(
        &mut self,
        chain: Chain,
        bucket: usize,
        now: Now,
    ) -> impl Iterator<Item = (u32, &Entry)> {
        let mut at = self.head(chain, bucket);
        while at != NONE {
            let next = self.next(chain, at);
            if self.entry(at).is_some_and(|entry| entry.deadline.has_passed(now.tick)) {
                self.remove(at, now);
            }
            at = next;
        }
        let this: &Table = self;
        let first = Some(this.head(chain, bucket)).filter(|&at| at != NONE);
        let next = move |&at: &u32| Some(this.next(chain, at)).filter(|&at| at != NONE);
        std::iter::successors(first, next).filter_map(|at| Some((at, this.entry(at)?)))
    }

    /// The expectation in force that a packet fulfils.
    pub(super) fn active(
        &mut self,
        tuple: &Tuple,
        zone: u16,
        now: Now,
    ) -> Option<(u32, Expectation)> {
        let bucket = self.destination(tuple);
        self.walk(Chain::Destination, bucket, now)
            .find(|(_, e)| {
                let in_force = !e.what.flags.has(Flags::INACTIVE) && e.what.zone == zone;
                in_force && e.what.mask.same(tuple, &e.what.tuple)
            })
            .map(|(at, entry)| (at, entry.what))
    }

    /// What `__nf_ct_expect_check` does but for the table's own limit: the same one goes, one that
    /// could be confused with it refuses it, and the oldest of a full class goes.
    pub(super) fn make_room(
        &mut self,
        wanted: &Expectation,
        class_max: u8,
        any_master: bool,
        now: Now,
    ) -> Result<(), Refused> {
        let bucket = self.destination(&wanted.tuple);
        let mut same = None;
        for (at, Entry { what, .. }) in self.walk(Chain::Destination, bucket, now) {
            let equal =
                (what.tuple, what.mask, what.zone) == (wanted.tuple, wanted.mask, wanted.zone);
            if equal && (any_master || what.master == wanted.master) {
                if (what.class, what.master) != (wanted.class, wanted.master) {
                    return Err(Refused::Already);
                }
                same = Some(at);
                break;
            }
            let mask = what.mask.both(wanted.mask);
            if what.zone == wanted.zone && mask.same(&what.tuple, &wanted.tuple) {
                return Err(Refused::Clash);
            }
        }
        if let Some(at) = same {
            self.remove(at, now);
        }
        let bucket = self.masters(wanted.master);
        let mut of_class = 0;
        let mut oldest = None;
        for (at, Entry { what, .. }) in self.walk(Chain::Master, bucket, now) {
            if (what.master, what.class) == (wanted.master, wanted.class) {
                of_class += 1;
                oldest = Some(at);
            }
        }
        // No limit is 0, as in the kernel.
        if class_max == 0 || of_class < u32::from(class_max) {
            return Ok(());
        }
        if let Some(at) = oldest {
            self.remove(at, now);
        }
        if of_class > u32::from(class_max) { Err(Refused::ClassFull) } else { Ok(()) }
    }

    /// Enters one; false if no place is free.
    pub(super) fn insert(&mut self, what: &Expectation, deadline: Tick, now: Now) -> bool {
        let at = self.free;
        let buckets = [Chain::Destination, Chain::Master].map(|chain| self.bucket(chain, what));
        let Some(place) = self.places.get_mut(at as usize) else { return false };
        self.free = place.next[0];
        self.keys += 1;
        let entry = Entry { what: *what, deadline, key: self.keys << 32 | at as u64 };
        place.entry = Some(entry);
        for ((next, heads), bucket) in place.next.iter_mut().zip(&mut self.heads).zip(buckets) {
            if let Some(head) = heads.get_mut(bucket) {
                *next = std::mem::replace(head, at);
            }
        }
        self.used += 1;
        self.tell(News::New, &entry, now);
        true
    }

    pub(super) fn remove(&mut self, at: u32, now: Now) {
        let Some(entry) = self.entry(at).copied() else { return };
        for chain in [Chain::Destination, Chain::Master] {
            self.unlink(chain, at, &entry.what);
        }
        let Some(place) = self.places.get_mut(at as usize) else { return };
        *place = Place { entry: None, next: [self.free, NONE] };
        self.free = at;
        self.used -= 1;
        self.removed += 1;
        self.tell(News::Destroy, &entry, now);
    }

    fn unlink(&mut self, chain: Chain, at: u32, what: &Expectation) {
        let bucket = self.bucket(chain, what);
        let after = self.next(chain, at);
        let mut before = self.head(chain, bucket);
        if before == at {
            if let Some(head) = self.heads[chain as usize].get_mut(bucket) {
                *head = after;
            }
            return;
        }
        while before != NONE && self.next(chain, before) != at {
            before = self.next(chain, before);
        }
        if let Some(place) = self.places.get_mut(before as usize) {
            place.next[chain as usize] = after;
        }
    }

    pub(super) fn end_master(&mut self, master: ConnId, now: Now) {
        let mut at = self.head(Chain::Master, self.masters(master));
        while at != NONE {
            let next = self.next(Chain::Master, at);
            if self.entry(at).is_some_and(|entry| entry.what.master == master) {
                self.remove(at, now);
            }
            at = next;
        }
    }

    pub(super) fn remove_key(&mut self, key: u64, now: Now) -> bool {
        let at = key as u32;
        let there = self.entry(at).is_some_and(|entry| entry.key == key);
        if there {
            self.remove(at, now);
        }
        there
    }

    fn end_of(&self, from: u32, count: u32) -> u32 {
        from.saturating_add(count).min(self.places.len() as u32)
    }

    fn or_start(&self, end: u32) -> u32 {
        if end as usize >= self.places.len() { 0 } else { end }
    }

    pub(super) fn sweep(
        &mut self,
        from: u32,
        count: u32,
        lost: impl Fn(ConnId) -> bool,
        now: Now,
    ) -> u32 {
        let end = self.end_of(from, count);
        for at in from..end {
            let over = |e: &Entry| e.deadline.has_passed(now.tick) || lost(e.what.master);
            if self.entry(at).is_some_and(over) {
                self.remove(at, now);
            }
        }
        self.or_start(end)
    }

    pub(super) fn list(
        &self,
        from: u32,
        count: u32,
        now: Now,
        all: &mut Vec<ExpectationView>,
    ) -> u32 {
        let end = self.end_of(from, count);
        let live = |at| self.entry(at).filter(|entry| !entry.deadline.has_passed(now.tick));
        all.extend((from..end).filter_map(live).map(|entry| entry.view(now)));
        self.or_start(end)
    }

    pub(super) fn listen(&mut self, wanted: bool) {
        self.listened = wanted;
        if !wanted {
            self.news.clear();
            self.lost = 0;
        }
    }

    fn tell(&mut self, kind: News, entry: &Entry, now: Now) {
        let bit = match kind {
            News::New => 1,
            News::Destroy => 2,
        };
        if !self.listened || entry.what.reported & bit == 0 {
            return;
        }
        if self.news.len() < NEWS_MAX {
            let event = ExpectationEvent { kind, view: entry.view(now), unix_ns: now.unix_ns };
            self.news.push_back(event);
        } else {
            self.lost += 1;
        }
    }

    pub(super) fn take_news(&mut self, most: usize, all: &mut Vec<ExpectationEvent>) -> u64 {
        all.extend(self.news.drain(..most.min(self.news.len())));
        std::mem::take(&mut self.lost)
    }
}
