//! Cached paths of packets that no conn carries: those a rule marked NOTRACK.
//!
//! A tracked packet finds its path in its conn's record. An untracked one has no record, so the
//! lcore remembers the paths of the last tuples it saw: two in each cache line, the older of which
//! makes room for a third. A packet that is found here looks neither at the index nor at a record.
//! Owned by one lcore, fixed in size (4 MiB, made with the lcore), and forgotten with the paths
//! themselves. Looked at only while something of the present generation is in it.

use crate::arch::prefetch_read;
use crate::conntrack::tuple::KeyV4;
use crate::pipeline::neighbour::NextHop;
use crate::rules::facts::PortId;

/// Lines; a power of two.
const LINES: usize = 1 << 16;

/// What is remembered of one tuple.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: KeyV4,
    /// 0 in an entry that was never used.
    generation: u32,
    path: u16,
    next_hop: u16,
    in_port: u8,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Pair([Entry; 2]);

const _: () = assert!(size_of::<Pair>() == 64);

/// The table of one lcore.
#[derive(Debug)]
pub(crate) struct Untracked {
    lines: Vec<Pair>,
    /// The generation of the latest entry: where it is not the present one, nothing is remembered
    /// and the table need not be looked at.
    latest: u32,
}

impl Default for Untracked {
    fn default() -> Untracked {
        Untracked { lines: vec![Pair::default(); LINES], latest: 0 }
    }
}

impl Untracked {
    /// True if a path of this generation is remembered.
    #[inline(always)]
    pub(crate) fn is_used(&self, generation: u32) -> bool {
        self.latest == generation
    }

    /// Brings in the line of a hash.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(line) = self.lines.get(hash as usize % LINES) {
            prefetch_read(line);
        }
    }

    /// The path of a tuple that came in by `in_port`, if it is of this generation.
    #[inline(always)]
    pub(crate) fn find(
        &self,
        key: &KeyV4,
        hash: u64,
        in_port: PortId,
        generation: u32,
    ) -> Option<(u16, NextHop)> {
        let line = self.lines.get(hash as usize % LINES)?;
        let same =
            |e: &&Entry| e.key == *key && e.generation == generation && e.in_port == in_port.0;
        line.0.iter().find(same).map(|e| (e.path, NextHop(e.next_hop)))
    }

    /// Remembers a path; of the two in the line the one behind makes room.
    pub(crate) fn remember(
        &mut self,
        key: KeyV4,
        hash: u64,
        in_port: PortId,
        generation: u32,
        (path, next_hop): (u16, NextHop),
    ) {
        let Some(Pair([first, second])) = self.lines.get_mut(hash as usize % LINES) else { return };
        self.latest = generation;
        if first.generation == generation {
            *second = *first;
        }
        *first = Entry { key, generation, path, next_hop: next_hop.0, in_port: in_port.0 };
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
        assert!(!table.is_used(5));
        table.remember(key, 77, PortId(1), 5, (9, NextHop(8)));
        assert_eq!(found(&table, &key, 1, 5), Some((9, 8)));
        assert!(table.is_used(5) && !table.is_used(6));
        assert_eq!(found(&table, &key, 0, 5), None);
        assert_eq!(found(&table, &key, 1, 6), None);
        let other = KeyV4 { ids: 5, ..key };
        assert_eq!(found(&table, &other, 1, 5), None);
        table.remember(other, 77 + LINES as u64, PortId(1), 5, (2, NextHop(1)));
        assert_eq!(found(&table, &key, 1, 5), Some((9, 8)), "a line holds two");
        assert_eq!(found(&table, &other, 1, 5), Some((2, 1)));
        table.remember(KeyV4 { ids: 6, ..key }, 77, PortId(1), 5, (3, NextHop(1)));
        assert_eq!(found(&table, &key, 1, 5), None, "the older one made room");
        assert_eq!(found(&table, &other, 1, 5), Some((2, 1)));
    }
}
