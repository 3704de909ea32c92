//! Sets of sets (`list:set`): the first member that has the packet decides.
//!
//! A list does not change: the control core makes another one, with the members that stay, and
//! publishes it.

use std::sync::Arc;

use super::set::{Asked, Set, Weight};
use crate::arch::sync::AtomicU64;
use crate::arch::sync::Ordering::Relaxed;
use crate::rules::facts::Facts;
use crate::time::Tick;

/// What a member has of its own, however often its list is made anew.
#[derive(Debug)]
pub struct Tally {
    /// When it is over; `None` for never.
    pub deadline: Option<Tick>,
    /// The list counts.
    pub counts: bool,
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// With these counters.
    pub fn new(deadline: Option<Tick>, counts: bool, (packets, bytes): (u64, u64)) -> Tally {
        Tally { deadline, counts, packets: AtomicU64::new(packets), bytes: AtomicU64::new(bytes) }
    }

    /// (packets, bytes).
    pub fn counters(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }
}

/// A set in a list.
#[derive(Debug)]
pub struct Member {
    /// The set.
    pub set: Arc<Set>,
    /// What it has of its own.
    pub tally: Arc<Tally>,
}

impl Member {
    /// The same with all that it shares copied.
    pub(super) fn apart(&self) -> Member {
        let Tally { deadline, counts, .. } = *self.tally;
        let tally = Tally::new(deadline, counts, self.tally.counters());
        Member { set: self.set.apart(), tally: Arc::new(tally) }
    }

    /// True once it is over.
    pub fn has_expired(&self, now: Tick) -> bool {
        self.tally.deadline.is_some_and(|deadline| deadline.has_passed(now))
    }

    /// Whether it has the packet, which counts (`list_set_ktest`): what is asked of counters is
    /// asked of the list's.
    pub(super) fn holds(
        &self,
        asked: &Asked,
        facts: &Facts<'_>,
        mark: u32,
        weight: Weight,
    ) -> bool {
        let no_update = asked.no_update || asked.no_member_update;
        let inner = Asked { packets: None, bytes: None, no_update, ..*asked };
        if !self.set.holds(&inner, facts, mark, weight.now) || self.has_expired(weight.now) {
            return false;
        }
        if !self.tally.counts {
            return true;
        }
        if let (Some(bytes), false) = (weight.bytes, asked.no_update) {
            self.tally.packets.fetch_add(1, Relaxed);
            self.tally.bytes.fetch_add(bytes, Relaxed);
        }
        let (packets, bytes) = self.tally.counters();
        asked.packets.is_none_or(|asked| asked.holds(packets))
            && asked.bytes.is_none_or(|asked| asked.holds(bytes))
    }
}
