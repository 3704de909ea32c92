//! The peer of the table: DPDK's `rte_hash` with bulk lookups, and a record of 128 bytes for each
//! conn.
//!
//! It is treated well: twice the room that its keys need, keys of the length that it compares
//! fastest, no locks, EAL's hugepages for it and 2 MiB pages for the records, and the records are
//! prefetched for a whole batch before the first is written.

use std::fs;

use dataplane::arch::sync::Ordering::Relaxed;
use dataplane::arch::{HugeSlice, Line, prefetch_write};
use dpdk_bindings::Eal;
use dpdk_bindings::hash::{HashTable, Key};

use super::gateway::broken;
use super::picks::Picks;
use super::table;
use crate::process::{Failure, WORKER_CPU};
use crate::program::file_prefix;

/// Keys of one bulk lookup.
pub(crate) const BULK: usize = 32;
/// Where a record is touched, as in ours.
const TOUCHED: usize = 4;

/// EAL on the calling thread, in memory of its own and without devices; once in a process.
pub(crate) fn start() -> Result<Eal, Failure> {
    let prefix = file_prefix("table");
    let args = format!(
        "--in-memory --no-pci --no-telemetry --log-level=lib.*:error -l {WORKER_CPU} \
         --file-prefix={prefix}"
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let eal = Eal::init(&args).map_err(|e| broken("DPDK")(&e));
    // Nobody opens the files of this process again.
    let _ = Eal::runtime_dir().map(fs::remove_dir_all);
    eal
}

/// The peer's table with its records.
pub(crate) struct Peer {
    table: HashTable,
    records: HugeSlice<[Line; 2]>,
}

/// A conn's key: both addresses, both ports, protocol and zone.
#[inline]
fn key_of(number: u32) -> Key {
    let key = table::key_of(number);
    Key([(key.addresses >> 32) as u32, key.addresses as u32, key.ids, u32::from(key.proto)])
}

impl Peer {
    /// An empty table for so many conns. `name` must be new.
    pub(crate) fn new(name: &str, conns: u32) -> Result<Peer, Failure> {
        let table = HashTable::create(name, conns * 2).map_err(|e| broken("rte_hash")(&e))?;
        let records = HugeSlice::new(conns as usize, || [(); 2].map(|()| Line::default()));
        Ok(Peer { table, records: records.map_err(|e| broken("memory")(&e))? })
    }

    /// Enters a conn, with its tuple written into a record; false if there is no room.
    #[inline]
    pub(crate) fn insert(&mut self, number: u32, record: u32) -> bool {
        let key = key_of(number);
        if let Some(lines) = self.records.get(record as usize) {
            let words = [key.0[0], key.0[1], key.0[2], key.0[3]].map(u64::from);
            lines[0].0.iter().zip(words).for_each(|(word, value)| word.store(value, Relaxed));
        }
        self.table.add(&key, record as usize)
    }

    /// Takes a conn out; false if it was not there.
    #[inline]
    pub(crate) fn delete(&mut self, number: u32) -> bool {
        self.table.remove(&key_of(number))
    }

    /// Looks `batches` of conns up and touches their records; how many were found. `from` is added
    /// to each pick.
    pub(crate) fn look_up(&self, picks: &mut Picks, from: u32, batches: u32, tick: u32) -> u64 {
        let mut found = 0;
        for batch in 0..batches {
            let keys: [Key; BULK] =
                std::array::from_fn(|_| key_of(from.wrapping_add(picks.next())));
            let mut values = [0; BULK];
            let hits = self.table.lookup(&keys, &mut values);
            let records = values.map(|value| self.records.get(value));
            records.iter().flatten().for_each(|lines| prefetch_write(&lines[0]));
            for (at, lines) in records.iter().enumerate() {
                if let (Some(lines), 1) = (lines, hits >> at & 1) {
                    lines[0].0[TOUCHED].store(u64::from(tick.wrapping_add(batch)), Relaxed);
                }
            }
            found += u64::from(hits.count_ones());
        }
        found
    }
}
