//! What happens without being asked: expiry, room in a full table, neighbour timers, memory ahead
//! of demand.

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use dataplane::conntrack::record::{ConnId, Family};
use dataplane::pipeline::messages::{BATCH_MAX, ToLcore};
use dataplane::pipeline::neighbour::{Event, Timers};
use dataplane::pipeline::neighbours;
use dataplane::rules::facts::PortId;
use dataplane::time::{TICKS_PER_SEC, Tick};

use super::ControlCore;

/// IPv6 records kept ready beyond those in use.
pub(super) const V6_RESERVE: u32 = 16_384;

/// Extension blocks kept ready beyond those in use where only some conns have one.
pub(super) const EXTENSION_RESERVE: u32 = 4096;

/// The index is swept once in this time.
const SWEEP_TICKS: u32 = TICKS_PER_SEC / 2;

/// How often the neighbours' timers are looked at.
const NEIGHBOUR_TICKS: u32 = TICKS_PER_SEC / 10;

/// How often expectations that have had their time are looked for.
const EXPECTATION_TICKS: u32 = TICKS_PER_SEC / 5;

/// "Table full" is logged at most this often (the kernel's rate limit: ten lines in five seconds).
const FULL_LINES: u32 = 10;
const FULL_TICKS: u32 = 5 * TICKS_PER_SEC;

/// Buckets that are looked at before anything is sent.
const SLICE: u32 = 4096;

/// Batches of expired or spendable conns under way at once. What a tick finds leaves over the
/// rounds of the tick, or, where these are few, when it is over: this is enough for some millions
/// of conns a second all the same.
const BATCHES: usize = 256;

/// Conns that expire in a tick at least: a quarter of a million a second. A worker deletes millions
/// (`perf teardown`), so packets have nearly all of its time.
const PACE: u64 = 10 * BATCH_MAX as u64;

/// Where the timers stand.
#[derive(Default)]
pub(super) struct Upkeep {
    swept: u32,
    sweep_at: Tick,
    relief: Relief,
    /// Conns begun by then.
    begun: u64,
    /// Batches of expired conns that are not sent yet, and to whom.
    #[allow(clippy::box_collection)]
    expired: VecDeque<(usize, Box<Vec<ConnId>>)>,
    neighbours_at: Tick,
    expectations_at: Tick,
    /// Lines that the table of conns is full, and that of expectations.
    pub(super) full: FullLines,
    pub(super) expectations_full: FullLines,
    reachable: u32,
}

/// The search for conns that may go early.
#[derive(Default)]
struct Relief {
    /// Where it goes on. A pass begins where the last one ended: were it always at the same place,
    /// what lies far behind it would never go, and pile up.
    from: u32,
    /// Buckets that the present pass has still to look at; 0 while nobody is in need of it.
    left: u32,
}

/// Lines that a table is full.
#[derive(Default)]
pub(super) struct FullLines {
    since: Tick,
    lines: u32,
}

impl FullLines {
    /// True if the rate limit lets another one through.
    pub(super) fn may_say(&mut self, now: Tick) -> bool {
        if self.lines == 0 || now.0.wrapping_sub(self.since.0) >= FULL_TICKS {
            (self.since, self.lines) = (now, 0);
        }
        self.lines += 1;
        self.lines <= FULL_LINES
    }
}

impl Upkeep {
    /// A new conn found the table of so many buckets full: a pass over them makes room
    /// (`conntrack_gc_work.early_drop`).
    pub(super) fn make_room(&mut self, buckets: u32) {
        if self.relief.left == 0 {
            self.relief.left = buckets;
        }
    }
}

/// Buffers by owner.
#[allow(clippy::vec_box)]
type ByOwner = Vec<Vec<Box<Vec<ConnId>>>>;

/// Conns by owner, in buffers that travel to the owners and back.
struct Batches<'a> {
    by_owner: ByOwner,
    /// Buffers that may be filled, and conns that may be taken.
    room: usize,
    conns: u64,
    #[allow(clippy::vec_box)]
    spare: &'a mut Vec<Box<Vec<ConnId>>>,
}

impl Batches<'_> {
    /// False if nothing more is taken, whoever asks.
    fn may_take(&self) -> bool {
        let open = |batches: &Vec<Box<Vec<ConnId>>>| {
            batches.last().is_some_and(|batch| batch.len() < BATCH_MAX)
        };
        self.conns > 0 && (self.room > 0 || self.by_owner.iter().any(open))
    }

    /// False if it was not taken.
    fn add(&mut self, id: ConnId, owner: u8) -> bool {
        if self.conns == 0 {
            return false;
        }
        let Some(batches) = self.by_owner.get_mut(usize::from(owner)) else { return false };
        if batches.last().is_none_or(|b| b.len() == BATCH_MAX) {
            if self.room == 0 {
                return false;
            }
            self.room -= 1;
            let fresh = || Box::new(Vec::with_capacity(BATCH_MAX));
            batches.push(self.spare.pop().unwrap_or_else(fresh));
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(id);
        }
        self.conns -= 1;
        true
    }
}

impl ControlCore {
    /// Everything that is due.
    pub(super) fn keep_up(&mut self) {
        let now = self.tick_now();
        self.sweep(now);
        // All of a tick's leave within its ten rounds, but no more of them together than must be,
        // since a worker deletes what it has before it looks at its ports.
        self.send_expired(self.upkeep.expired.len().div_ceil(8));
        self.sweep_expectations(now);
        // In every round: an lcore makes thousands of conns in the time of one. Where there is no
        // memory is said below, less often.
        let _ = self.shared.records.keep_ahead(Family::V6, V6_RESERVE);
        if self.snapshot.counts_conns() {
            let v6 = self.shared.records.numbers(Family::V6);
            let _ = self.shared.ensure_counts(Family::V6, v6 + V6_RESERVE);
        }
        if now.0.wrapping_sub(self.upkeep.neighbours_at.0) >= NEIGHBOUR_TICKS {
            self.upkeep.neighbours_at = now;
            self.neighbour_timers(now);
            if let Err(error) = self.provide_memory(&self.snapshot) {
                log::error!("conntrack: {error}");
            }
        }
    }

    /// Removes expectations whose time is up or whose master is gone. Where a worker holds the lock
    /// the rest waits for the next time.
    pub(super) fn sweep_expectations(&mut self, now: Tick) {
        if now.0.wrapping_sub(self.upkeep.expectations_at.0) < EXPECTATION_TICKS {
            return;
        }
        self.upkeep.expectations_at = now;
        let mut from = 0;
        while !self.shared.expectations.is_empty() {
            let swept = self.shared.expectations.sweep(from, &self.shared.records, self.now());
            from = swept.unwrap_or(0);
            if from == 0 {
                break;
            }
        }
    }

    /// Walks as much of the index as the time since the last call asks for, and tells the owners
    /// about conns whose time is up.
    fn sweep(&mut self, now: Tick) {
        let passed = now.0.wrapping_sub(self.upkeep.sweep_at.0).min(SWEEP_TICKS);
        if passed == 0 {
            return;
        }
        self.upkeep.sweep_at = now;
        // The last tick is over: what is left of it waits no longer. Where rounds take as long as
        // ticks, little would ever leave otherwise.
        self.send_expired(self.upkeep.expired.len());
        let buckets = self.shared.index.buckets();
        let share = (buckets as u64 * passed as u64).div_ceil(SWEEP_TICKS as u64) as u32;
        let (shared, share) = (Arc::clone(&self.shared), share.min(buckets));
        let pace = self.pace(passed.into());
        let mut swept = self.upkeep.swept;
        let (by_owner, ()) = self.gather(pace, |batches| {
            let mut left = share;
            while left > 0 && batches.may_take() {
                let slice = left.min(SLICE);
                left -= slice;
                swept = shared.sweep(swept, slice, now, |id, owner| batches.add(id, owner));
            }
        });
        self.upkeep.swept = swept;
        let batches = by_owner.into_iter().enumerate();
        let batches =
            batches.flat_map(|(owner, batches)| batches.into_iter().map(move |b| (owner, b)));
        for batch in batches {
            self.inbox.expiring += 1;
            self.upkeep.expired.push_back(batch);
        }
        self.relieve(share, now);
    }

    /// Conns that may expire now, so many ticks after the last ones. Nobody sees a conn whose time
    /// is up, so a million of them can wait a few seconds for packets' sake: they go at a pace, and
    /// a quarter faster than new ones come. Where these find little room nothing waits.
    pub(super) fn pace(&mut self, ticks: u64) -> u64 {
        let begun = self.lcores.iter().map(|lcore| lcore.counters.conntrack.begun.get()).sum();
        let new = u64::wrapping_sub(begun, self.upkeep.begun);
        self.upkeep.begun = begun;
        if new > 0 && self.shared.capacity.is_pressed() {
            return u64::MAX;
        }
        PACE * ticks + new + new / 4
    }

    /// Sends so many of the batches that wait.
    fn send_expired(&mut self, most: usize) {
        for _ in 0..most {
            let Some((lcore, batch)) = self.upkeep.expired.pop_front() else { return };
            self.send_batch(lcore, batch, ToLcore::Expire);
        }
    }

    /// Once the table was full: one pass over it that names, as long as there is less room than 5
    /// %, conns that may go early (`gc_worker`). It goes at the pace of the sweep, and no faster
    /// than the owners delete.
    fn relieve(&mut self, mut share: u32, now: Tick) {
        let shared = Arc::clone(&self.shared);
        while share > 0 && self.upkeep.relief.left > 0 && self.inbox.expiring < BATCHES / 4 {
            if !shared.capacity.is_pressed() || shared.capacity.refuses() {
                self.upkeep.relief.left = 0;
                break;
            }
            let from = self.upkeep.relief.from;
            let slice = share.min(SLICE / 4).min(self.upkeep.relief.left);
            share -= slice;
            let (by_owner, next) = self.gather(u64::MAX, |batches| {
                shared.spendable(from, slice, now, |id, owner| {
                    batches.add(id, owner);
                })
            });
            self.upkeep.relief.from = next;
            self.upkeep.relief.left -= slice;
            self.send_batches(by_owner, ToLcore::Relieve);
        }
    }

    /// Fills batches with so many conns at most; gives them with what `fill` said.
    fn gather<T>(&mut self, conns: u64, fill: impl FnOnce(&mut Batches<'_>) -> T) -> (ByOwner, T) {
        let mut batches = Batches {
            by_owner: (0..self.lcores.len()).map(|_| Vec::new()).collect(),
            room: BATCHES.saturating_sub(self.inbox.expiring),
            conns,
            spare: &mut self.inbox.spare,
        };
        let said = fill(&mut batches);
        (batches.by_owner, said)
    }

    fn send_batches(&mut self, by_owner: ByOwner, message: fn(Box<Vec<ConnId>>) -> ToLcore) {
        for (lcore, batches) in by_owner.into_iter().enumerate() {
            for batch in batches {
                self.inbox.expiring += 1;
                self.send_batch(lcore, batch, message);
            }
        }
    }

    /// Sends a batch that counts as under way.
    #[allow(clippy::box_collection)]
    fn send_batch(
        &mut self,
        lcore: usize,
        batch: Box<Vec<ConnId>>,
        message: fn(Box<Vec<ConnId>>) -> ToLcore,
    ) {
        // A worker that does not read its mail gets them from the next sweep.
        if let Err(ToLcore::Expire(mut batch) | ToLcore::Relieve(mut batch)) =
            self.try_send(lcore, message(batch))
        {
            self.inbox.expiring = self.inbox.expiring.saturating_sub(1);
            batch.clear();
            self.inbox.spare.push(batch);
        }
    }

    fn neighbour_timers(&mut self, now: Tick) {
        // As the kernel, anew every now and then: between half and one and a half times 30 s.
        self.upkeep.reachable = (self.upkeep.reachable * 5 + 7) % 31;
        let timers = Timers { reachable_s: 15 + self.upkeep.reachable, ..Timers::default() };
        let mut events = Vec::new();
        self.neighbours.tick(&timers, now, &mut |event| events.push(event));
        for event in events {
            match event {
                Event::Ask { port, address, unicast, .. } => {
                    let settings = self.snapshot.port(PortId(port));
                    let mut buffer = [0; neighbours::LINK_MESSAGE_MAX];
                    let len = neighbours::ask(settings, address, unicast, &mut buffer);
                    if let Some(bytes) = len.and_then(|len| buffer.get(..len)) {
                        let frame: ArrayVec<u8, { neighbours::LINK_MESSAGE_MAX }> =
                            bytes.iter().copied().collect();
                        let message = ToLcore::Transmit(PortId(port), frame);
                        // Asked again in a second if the mailbox is full.
                        let _ = self.try_send(0, message);
                    }
                }
                // Who holds packets for it hears of it by the table's news.
                Event::Failed { .. } => {}
            }
        }
    }
}
