//! Expectations: conns that helpers have read about before their first packet comes.
//!
//! One small table for all lcores, under a lock, because a child may come in anywhere. While it is
//! empty, which a word beside the lock says, nobody takes the lock; while it is not, a first packet
//! does, and so does a master's packet that asks for another conn. Whoever holds the lock does
//! bounded work and waits for nobody. The control core makes the memory, lists, and takes away what
//! has had its time.
//!
//! What is expected names its master by record and incarnation. A master's owner removes its
//! expectations before it ends the master, so what is found has a live one; where the lock could
//! not be had the name tells, and the sweep removes the rest.
//!
//! Follows `nf_conntrack_expect.c`: an expectation counts as gone the moment its deadline passes.

mod table;

use super::helper::{Helper, Policy};
use super::record::{ConnId, Records};
use super::state::Status;
use super::tuple::{HashSeed, Tuple};
use crate::arch::Spin;
use crate::arch::sync::Ordering::{Acquire, Relaxed, Release};
use crate::arch::sync::{AtomicU32, AtomicU64};
use crate::time::Now;
use crate::wire::address::Address;

use table::Table;

/// The largest `expect_max` that can be set.
pub const EXPECT_MAX_LIMIT: u32 = 1 << 18;

/// Expectations that are looked at while the lock is held once.
pub const SLICE: u32 = 64;

/// What of the source is compared (`nf_conntrack_tuple_mask`); the destination is compared whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMask {
    /// Bits of the address.
    pub address: u128,
    /// Bits of the port.
    pub id: u16,
}

impl SourceMask {
    /// This address, any port.
    pub const ANY_PORT: SourceMask = SourceMask { address: u128::MAX, id: 0 };

    fn both(self, other: SourceMask) -> SourceMask {
        SourceMask { address: self.address & other.address, id: self.id & other.id }
    }

    /// True if both tuples are the same under this mask (`nf_ct_tuple_mask_cmp`).
    fn same(self, a: &Tuple, b: &Tuple) -> bool {
        (a.dst, a.dst_id, a.proto) == (b.dst, b.dst_id, b.proto)
            && (a.src.bits() ^ b.src.bits()) & self.address == 0
            && (a.src_id ^ b.src_id) & self.id == 0
    }
}

/// How long an expectation stays and whether it is in force (`NF_CT_EXPECT_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// Stays when it is matched, until its time is up or its master ends.
    pub const PERMANENT: Flags = Flags(1);
    /// Matches nothing yet.
    pub const INACTIVE: Flags = Flags(2);
    /// Made by a tool.
    pub const USERSPACE: Flags = Flags(4);

    /// True if every flag of `other` is set here.
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Where a child of a translated master comes from and goes to (`nf_nat_follow_master`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// The source it is given.
    pub src: Address,
    /// The destination it is given.
    pub dst: Address,
    /// The destination port it is given.
    pub dst_id: u16,
}

/// A conn that is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// Its first packet's tuple; what the mask leaves out is 0.
    pub tuple: Tuple,
    /// What of the source counts.
    pub mask: SourceMask,
    /// Whose packets led to it.
    pub master: ConnId,
    /// The master's original tuple, for listings.
    pub master_tuple: Tuple,
    /// The master's zone.
    pub zone: u16,
    /// Which of the helper's classes it is of.
    pub class: u8,
    /// Its flags.
    pub flags: Flags,
    /// The helper that asked for it.
    pub helper: Helper,
    /// The helper that the child gets.
    pub assigns: Option<Helper>,
    /// The child's translation, where the master is translated.
    pub follow: Option<Follow>,
    /// Which of its events are reported: bit 0 when it is made, bit 1 when it goes.
    pub reported: u8,
}

impl Expectation {
    /// True if a packet with `tuple` would fulfil it, were it in force.
    pub fn is_for(&self, tuple: &Tuple) -> bool {
        self.mask.same(tuple, &self.tuple)
    }
}

/// What a child has from its expectation and its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The master.
    pub master: ConnId,
    /// The master's mark at this moment.
    pub mark: u32,
    /// A helper of its own.
    pub helper: Option<Helper>,
    /// Its translation.
    pub follow: Option<Follow>,
}

/// The lock stayed with another lcore for too long: nothing was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Why an expectation was not entered (`__nf_ct_expect_check`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is the same one, of another class or master.
    Already,
    /// A packet could match this one and another.
    Clash,
    /// The class has as many as it may have, and none that could go.
    ClassFull,
    /// `expect_max` of them exist.
    TableFull,
    /// See [`Busy`].
    Busy,
}

/// What happened to an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It was entered.
    New,
    /// It was matched, replaced or removed, or its time was up.
    Destroy,
}

/// An expectation as people see it: a plain copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectationView {
    /// Names it to whoever made the view; never shown.
    pub key: u64,
    /// What is expected.
    pub what: Expectation,
    /// Whole seconds left.
    pub remaining_secs: u32,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectationEvent {
    /// What happened.
    pub kind: News,
    /// To which; right after it happened.
    pub view: ExpectationView,
    /// Wall clock in nanoseconds since 1970.
    pub unix_ns: u64,
}

/// Counters of one lcore; written under the lock.
#[derive(Debug, Default)]
struct Counts {
    new: AtomicU64,
    create: AtomicU64,
    delete: AtomicU64,
}

/// The table.
#[derive(Debug)]
pub struct Expectations {
    /// Expectations in the table: what everybody looks at before the lock.
    used: AtomicU32,
    limit: AtomicU32,
    largest: u32,
    table: Spin<Table>,
    /// By lcore; what the control core does counts with the first.
    counts: Box<[Counts]>,
}

impl Expectations {
    /// A table for `largest` expectations at most, `limit` of them at first. Allocates.
    pub fn new(limit: u32, largest: u32, lcores: u8, seed: HashSeed) -> Expectations {
        let largest = largest.clamp(1, EXPECT_MAX_LIMIT);
        Expectations {
            used: AtomicU32::new(0),
            limit: AtomicU32::new(limit.clamp(1, largest)),
            largest,
            table: Spin::new(Table::new(largest, seed)),
            counts: (0..lcores.max(1)).map(|_| Counts::default()).collect(),
        }
    }

    /// True while nothing is expected.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.used.load(Acquire) == 0
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.used.load(Relaxed)
    }

    /// How many there may be (`nf_conntrack_expect_max`).
    pub fn limit(&self) -> u32 {
        self.limit.load(Relaxed)
    }

    /// The most that [`Expectations::set_limit`] takes.
    pub fn largest(&self) -> u32 {
        self.largest
    }

    /// Changes the limit and removes nothing. False, and nothing changed, outside 1 to the largest.
    pub fn set_limit(&self, limit: u32) -> bool {
        let possible = (1..=self.largest).contains(&limit);
        if possible {
            self.limit.store(limit, Relaxed);
        }
        possible
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        Table::bytes(self.largest)
    }

    /// Enters an expectation (`nf_ct_expect_related`). The same one again starts its time anew.
    /// `any_master` also compares it with equal ones of other masters, which then refuse it in
    /// another way (`NF_CT_EXP_F_SKIP_MASTER`).
    ///
    /// # Errors
    /// See [`Refused`]. What went before the refusal, as the oldest of its class, stays away.
    pub fn enter(
        &self,
        lcore: u8,
        wanted: &Expectation,
        policy: Policy,
        any_master: bool,
        now: Now,
    ) -> Result<(), Refused> {
        self.change(lcore, |table| {
            table.make_room(wanted, policy.max_expected, any_master, now)?;
            if table.used() >= self.limit() {
                return Err(Refused::TableFull);
            }
            let entered = table.insert(wanted, now.tick.plus_secs(policy.timeout_secs), now);
            if entered { Ok(()) } else { Err(Refused::TableFull) }
        })
        .unwrap_or(Err(Refused::Busy))
        .inspect(|()| add(self.counts(lcore).map(|c| &c.create), 1))
    }

    /// The expectation that a first packet with `tuple` in `zone` fulfils, which is gone then
    /// unless it is permanent (`nf_ct_find_expectation`).
    ///
    /// # Errors
    /// [`Busy`]: whether there is one is not known.
    pub fn find(
        &self,
        lcore: u8,
        (tuple, zone): (&Tuple, u16),
        records: &Records,
        now: Now,
    ) -> Result<Option<Expected>, Busy> {
        let found = self.change(lcore, |table| {
            let (at, what) = table.active(tuple, zone, now)?;
            let master = records.get(what.master.conn)?;
            let live = master.status().has(Status::CONFIRMED) && !master.is_expired(now.tick);
            let mark = master.mark();
            // Looked at last: until it ends its expectations cannot be found.
            if !live || master.id() != what.master {
                return None;
            }
            if !what.flags.has(Flags::PERMANENT) {
                table.remove(at, now);
            }
            let Expectation { master, assigns, follow, .. } = what;
            Some(Expected { master, mark, helper: assigns, follow })
        });
        let found = found.ok_or(Busy)?;
        add(self.counts(lcore).map(|c| &c.new), found.is_some() as u64);
        Ok(found)
    }

    /// Removes what a master expects; its owner does so before it ends it
    /// (`nf_ct_remove_expectations`). False if the lock could not be had.
    pub fn end_master(&self, lcore: u8, master: ConnId, now: Now) -> bool {
        self.is_empty() || self.change(lcore, |table| table.end_master(master, now)).is_some()
    }

    /// Looks at [`SLICE`] places from `from` on and removes what has had its time or has lost its
    /// master; returns where to go on, 0 at the end. Control core only.
    pub fn sweep(&self, from: u32, records: &Records, now: Now) -> Result<u32, Busy> {
        let lost = |master: ConnId| records.get(master.conn).is_none_or(|c| c.id() != master);
        self.change(0, |table| table.sweep(from, SLICE, lost, now)).ok_or(Busy)
    }

    /// Copies what [`SLICE`] places from `from` on hold; returns where to go on, 0 at the end.
    /// Control core only.
    pub fn list(&self, from: u32, now: Now, all: &mut Vec<ExpectationView>) -> Result<u32, Busy> {
        all.reserve(SLICE as usize);
        self.table.with(|table| table.list(from, SLICE, now, all)).ok_or(Busy)
    }

    /// Removes one; false if it is gone already.
    pub fn remove(&self, key: u64, now: Now) -> Result<bool, Busy> {
        self.change(0, |table| table.remove_key(key, now)).ok_or(Busy)
    }

    /// Says whether anybody wants to hear of events; what nobody has fetched is forgotten.
    pub fn listen(&self, wanted: bool) -> Result<(), Busy> {
        self.table.with(|table| table.listen(wanted)).ok_or(Busy)
    }

    /// Moves events to `all`, oldest first, [`SLICE`] of them at most; returns how many were lost
    /// since the last time for want of room. Control core only.
    pub fn take_news(&self, all: &mut Vec<ExpectationEvent>) -> Result<u64, Busy> {
        all.reserve(SLICE as usize);
        self.table.with(|table| table.take_news(SLICE as usize, all)).ok_or(Busy)
    }

    /// Matched, made and removed by an lcore so far.
    pub fn counted(&self, lcore: u8) -> [u64; 3] {
        let of = |c: &Counts| [&c.new, &c.create, &c.delete].map(|n| n.load(Relaxed));
        self.counts(lcore).map_or([0; 3], of)
    }

    fn counts(&self, lcore: u8) -> Option<&Counts> {
        self.counts.get(lcore as usize)
    }

    /// Does `work` under the lock, then says to everybody how many there are and counts those that
    /// went.
    fn change<R>(&self, lcore: u8, work: impl FnOnce(&mut Table) -> R) -> Option<R> {
        self.table.with(|table| {
            let done = work(table);
            self.used.store(table.used(), Release);
            add(self.counts(lcore).map(|c| &c.delete), table.take_removed());
            done
        })
    }
}

/// Adds to a counter. Two lcores do not count for one number, but for the first, where the control
/// core may count at the same time.
fn add(counter: Option<&AtomicU64>, n: u64) {
    if n > 0
        && let Some(counter) = counter
    {
        counter.fetch_add(n, Relaxed);
    }
}

/// The expectation of a conn from the peer of `master` to the client, as the packets of `master`
/// look there: from any port to the one that the master's answers go to (`nf_ct_expect_init`).
pub fn from_peer(
    master: super::record::Conn<'_>,
    helper: Helper,
    follow: Option<Follow>,
) -> Expectation {
    let reply = master.reply();
    Expectation {
        tuple: Tuple { src_id: 0, ..reply },
        mask: SourceMask::ANY_PORT,
        master: master.id(),
        master_tuple: master.orig(),
        zone: master.zones().id(),
        class: 0,
        flags: Flags::default(),
        helper,
        assigns: None,
        follow,
        reported: master.reported().expectations,
    }
}

#[cfg(test)]
mod tests;
