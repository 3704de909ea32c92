//! A gateway without wires and without others: one pipeline, its table, its frames.
//!
//! Who makes one owns it; it is as large as the few conns that are copied into it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dataplane::conntrack::record::Family;
use dataplane::conntrack::store::{SetupError, Shared, Sizes, Store};
use dataplane::lcore::memory::MemoryIo;
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::neighbour::NeighbourTable;
use dataplane::pipeline::notes::Note;
use dataplane::pipeline::place::Layout;
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::pipeline::{Links, Pipeline};

/// Conns that there is room for.
pub const CONNS_MAX: u32 = 256;

/// Next hops that there is room for.
const NEIGHBOURS: usize = 16;

/// The pipeline and what it needs around it.
pub struct Offline {
    /// What judges.
    pub pipeline: Pipeline<MemoryIo>,
    /// Where its frames come from.
    pub pool: MemoryIo,
}

impl Offline {
    /// With a policy that has counters for one lcore; hashes are those of the `live` table, and so
    /// is who is counted. `random` drives the choice of ports.
    ///
    /// # Errors
    /// Memory.
    pub fn new(snapshot: Arc<Snapshot>, live: &Shared, random: u64) -> Result<Offline, SetupError> {
        let seed = live.seed;
        let sizes = Sizes { max: CONNS_MAX, lcores: 1, extensions: CONNS_MAX };
        let mut shared = Shared::new(sizes, seed)?;
        for family in [Family::V4, Family::V6] {
            shared.ensure_conns(family, CONNS_MAX)?;
        }
        shared.extensions.ensure_chunks(CONNS_MAX)?;
        shared.extensions.keep_wide_ahead(CONNS_MAX)?;
        if snapshot.counts_conns() {
            // More than there can be records.
            shared.counts = Arc::new(live.counts.apart(4 * CONNS_MAX)?);
        }
        let ports = snapshot.ports.len();
        let links = Links {
            counters: Arc::new(LcoreCounters::new(ports)),
            neighbours: Arc::new(NeighbourTable::new(NEIGHBOURS, seed)),
            listeners: Arc::new(AtomicBool::new(false)),
            errors: Arc::default(),
        };
        let place = Layout::alone(ports).place(0);
        let store = Store::new(Arc::new(shared), 0);
        let mut pipeline: Pipeline<MemoryIo> = Pipeline::new(place, store, snapshot, links, random);
        pipeline.notes().open();
        Ok(Offline { pipeline, pool: MemoryIo::new(ports) })
    }

    /// What has been noted since the last time. Messages and frames are nobody's here.
    pub fn take_notes(&mut self) -> Vec<Note> {
        self.pipeline.forget_messages();
        self.pipeline.flush(|_, frames| {
            frames.clear();
            0
        });
        self.pipeline.stop();
        self.pipeline.notes().take()
    }
}
