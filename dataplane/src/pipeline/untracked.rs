//! Cached paths of packets that no conn carries: those a rule marked NOTRACK.
//!
//! A tracked packet finds its path in its conn's record. An untracked one has no record, so the
//! lcore remembers the paths of the last tuples it saw, one per slot of a small table; a newer
//! tuple takes the slot. Owned by one lcore, fixed in size (256 KiB), forgotten with the paths
//! themselves.

use crate::conntrack::tuple::KeyV4;
use crate::pipeline::neighbour::NextHop;
use crate::rules::facts::PortId;

/// Slots; a power of two.
const SLOTS: usize = 8192;

/// What is remembered of one tuple.
#[derive(Clone, Copy, Debug)]
struct Slot {
    key: KeyV4,
    /// 0 in a slot that was never used.
    generation: u32,
    path: u16,
    next_hop: u16,
    in_port: PortId,
}

/// The table of one lcore.
#[derive(Debug)]
pub(crate) struct Untracked(Box<[Slot; SLOTS]>);

impl Default for Untracked {
    fn default() -> Untracked {
        let empty =
            Slot { key: KeyV4::default(), generation: 0, path: 0, next_hop: 0, in_port: PortId(0) };
        Untracked(Box::new([empty; SLOTS]))
    }
}

impl Untracked {
    #[inline]
    fn place(hash: u64) -> usize {
        hash as usize % SLOTS
    }

    /// The path of a tuple that came in by `in_port`, if it is of this generation.
    #[inline]
    pub(crate) fn find(
        &self,
        key: &KeyV4,
        hash: u64,
        in_port: PortId,
        generation: u32,
    ) -> Option<(u16, NextHop)> {
        let slot = &self.0[Self::place(hash)];
        let same = slot.generation == generation && slot.in_port == in_port && slot.key == *key;
        same.then_some((slot.path, NextHop(slot.next_hop)))
    }

    /// Remembers a path.
    pub(crate) fn remember(
        &mut self,
        key: KeyV4,
        hash: u64,
        in_port: PortId,
        generation: u32,
        (path, next_hop): (u16, NextHop),
    ) {
        self.0[Self::place(hash)] = Slot { key, generation, path, next_hop: next_hop.0, in_port };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_only_for_its_tuple_port_and_generation() {
        let mut table = Untracked::default();
        let key = KeyV4 { addresses: 1 << 32 | 2, ids: 3 << 16 | 4, proto: 17 };
        let found = |t: &Untracked, key: &KeyV4, port, generation| {
            t.find(key, 77, PortId(port), generation).map(|(path, hop)| (path, hop.0))
        };
        assert_eq!(found(&table, &KeyV4::default(), 0, 1), None, "an empty slot matches nothing");
        table.remember(key, 77, PortId(1), 5, (9, NextHop(8)));
        assert_eq!(found(&table, &key, 1, 5), Some((9, 8)));
        assert_eq!(found(&table, &key, 0, 5), None);
        assert_eq!(found(&table, &key, 1, 6), None);
        let other = KeyV4 { ids: 5, ..key };
        assert_eq!(found(&table, &other, 1, 5), None);
        table.remember(other, 77 + SLOTS as u64, PortId(1), 5, (2, NextHop(1)));
        assert_eq!(found(&table, &key, 1, 5), None, "its slot was taken");
    }
}
