//! Sets of sets (`list:set`): the first member that has the packet decides.
//!
//! A list does not change: the control core makes another one, with the members that stay, and
//! publishes it.

use std::sync::Arc;

use super::elements::Info;
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
    /// What the list says of packets; `None` if what its members say holds.
    pub info: Option<Info>,
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// With these counters, which count if `counts`.
    pub fn new(
        deadline: Option<Tick>,
        (counts, packets, bytes): (bool, u64, u64),
        info: Option<Info>,
    ) -> Tally {
        let (packets, bytes) = (AtomicU64::new(packets), AtomicU64::new(bytes));
        Tally { deadline, counts, info, packets, bytes }
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
        let Tally { deadline, counts, info, .. } = *self.tally;
        let (packets, bytes) = self.tally.counters();
        let tally = Tally::new(deadline, (counts, packets, bytes), info);
        Member { set: self.set.apart(), tally: Arc::new(tally) }
    }

    /// True once it is over.
    pub fn has_expired(&self, now: Tick) -> bool {
        self.tally.deadline.is_some_and(|deadline| deadline.has_passed(now))
    }

    /// What it says of the packet if it has it, which counts (`list_set_ktest`): what is asked of
    /// counters is asked of the list's.
    pub(super) fn info(
        &self,
        asked: &Asked,
        facts: &Facts<'_>,
        mark: u32,
        weight: Weight,
    ) -> Option<Info> {
        let no_update = asked.no_update || asked.no_member_update;
        let inner = Asked { packets: None, bytes: None, no_update, ..*asked };
        let own = self.set.info(&inner, facts, mark, weight.now)?;
        if self.has_expired(weight.now) {
            return None;
        }
        let info = Some(self.tally.info.unwrap_or(own));
        if !self.tally.counts {
            return info;
        }
        if let (Some(bytes), false) = (weight.bytes, asked.no_update) {
            self.tally.packets.fetch_add(1, Relaxed);
            self.tally.bytes.fetch_add(bytes, Relaxed);
        }
        let (packets, bytes) = self.tally.counters();
        let agrees = asked.packets.is_none_or(|asked| asked.holds(packets))
            && asked.bytes.is_none_or(|asked| asked.holds(bytes));
        info.filter(|_| agrees)
    }
}
