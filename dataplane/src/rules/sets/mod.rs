//! Sets of addresses, ports and nets that rules ask by name (`ip_set`).
//!
//! | file | holds |
//! |---|---|
//! | `kind` | the types, and which parts their elements have |
//! | `key` | an element as words that are compared |
//! | `elements` | the table of elements that workers look up and the control core changes |
//! | `set` | a set with its options: what a packet is to it |
//! | `list` | sets of sets |
//!
//! Who writes: the control core alone adds and takes elements away, through a
//! [`Writer`](elements::Writer) of which each set has one. Workers look up without a lock and
//! without waiting; a lookup looks at sixteen slots at most for each pair of prefix lengths. What
//! workers write are three words of an element that is there: its deadline and its counters.
//!
//! What is promised: a command's change is seen by every walk that begins after its answer. A
//! change that `-j SET` asks for goes to the control core, which makes it at its next round,
//! normally within a millisecond or two; a packet that comes before may still find the set as it
//! was. Two things need no round: an element that is there and gets a new deadline, and one that
//! is taken away, which no packet finds from then on. Where a worker has too many messages under
//! way the change is lost and counted, as are log lines.
//!
//! What a walk found in a set may be remembered for the conn's later packets, unless the set has
//! timeouts or counters, looks at the link's header, or a rule with `-j SET` names it. Whoever
//! changes another set sees to it that walks begin anew.

pub mod elements;
pub mod key;
pub mod kind;
pub mod list;
pub mod set;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use set::Set;

/// The sets that there are, by name.
pub type Named = BTreeMap<String, Arc<Set>>;

/// A set's number, its own for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u64);

/// Of which side of a packet a rule takes each part (`src,dst`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sides {
    /// How many parts are named.
    pub count: u8,
    /// Bit by bit: the part is the source's.
    pub sources: u8,
}

impl Sides {
    /// Parts that can be named (`IPSET_DIM_MAX`).
    pub const MAX: usize = 6;

    /// The same with one more part; `None` if there are too many.
    #[must_use]
    pub const fn with(self, source: bool) -> Option<Sides> {
        if self.count as usize >= Sides::MAX {
            return None;
        }
        let sources = self.sources | (source as u8) << self.count;
        Some(Sides { count: self.count + 1, sources })
    }

    /// True if part `number` is taken from the source.
    #[inline]
    pub const fn is_source(self, number: usize) -> bool {
        self.sources >> (number & 7) & 1 != 0
    }
}

/// What `-j SET` asks the control core to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// In which set.
    pub set: SetId,
    /// The element.
    pub key: key::Key,
    /// What to do with it.
    pub what: What,
}

/// What is to be done with an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is added, with this timeout in seconds and one packet of so many bytes.
    Add {
        /// `--timeout`; the set's own if `None`.
        timeout: Option<u32>,
        /// Bytes of the packet.
        bytes: u64,
    },
    /// It is taken away.
    Remove,
}
