//! What changing the table's size costs the packets that flow meanwhile.
//!
//! The gateway's own control core and workers run in this process, as threads, over ports in
//! memory: a source offers replayed frames of established, translated conns at a fixed rate, half
//! of them from each side, and a sink counts. No device would give frames at a rate below its
//! own. The table goes from `--from` buckets to `--to` and back, by the same write that `sysctl
//! -w` makes, and every conn of the listing before must be in the one after. What the source
//! could not offer in time, because the machine gave the worker no CPU, it offers as soon as it
//! can, so that a frame is lost only by the gateway.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::lcore::io::BurstIo;
use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::Pipeline;
use dataplane::pipeline::frame::{BURST_MAX, Burst, FramePool};
use dataplane::rules::facts::PortId;
use sluicegate::clock::Clock;
use sluicegate::gateway::{ControlCore, WorkerParts};
use sluicegate::tools::Gateway;

use crate::inprocess::gateway::{Plan, ROUND, broken, control_core};
use crate::process::Failure;
use crate::program::Workload;
use crate::sluicegate::rules;
use crate::traffic::Traffic;

const BUCKETS: &str = "nf_conntrack_buckets";
/// Times between two changes, and before and after them.
const REST: Duration = Duration::from_secs(1);
/// What the stretches of the run are called.
const STRETCHES: [&str; 5] = ["before", "to larger", "between", "to smaller", "after"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Buckets to begin with.
    #[arg(long, default_value_t = 4096)]
    from: u32,
    /// Buckets to change to.
    #[arg(long, default_value_t = 262_144)]
    to: u32,
    /// Established conns, at most four for each of the buckets to begin with.
    #[arg(long, default_value_t = 8192)]
    conns: usize,
    /// Packets a second, both directions and all workers together.
    #[arg(long, default_value_t = 500_000)]
    pps: u32,
    /// Times to go there and back.
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// Workers, each a thread.
    #[arg(long, default_value_t = 1)]
    workers: u8,
    /// Seed of the conns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What the threads tell each other.
#[derive(Default)]
struct Shared {
    /// The source offers nothing more; the workers end once nothing is left.
    closed: AtomicBool,
    stop: AtomicBool,
    /// An index of [`STRETCHES`].
    stretch: AtomicUsize,
    offered: AtomicU64,
    forwarded: AtomicU64,
    /// Clients' frames offered at least once, by all workers.
    primed: AtomicU64,
    /// Frames that were due and not yet offered, at most.
    late: AtomicU64,
    /// The longest round of a worker in each stretch, in ns.
    longest: [AtomicU64; STRETCHES.len()],
    /// Rounds longer than a millisecond.
    long: [AtomicU64; STRETCHES.len()],
}

/// One side's frames, offered at a rate.
struct Side {
    frames: Vec<Vec<u8>>,
    offered: u64,
    begun: Option<Instant>,
}

/// A worker's ports.
struct Paced {
    pool: MemoryIo,
    sides: [Side; 2],
    pps: f64,
    conns: u64,
    shared: Arc<Shared>,
}

impl FramePool for Paced {
    type Frame = MemoryFrame;
    type Notes = ();

    fn allocate(&mut self, len: usize) -> Option<MemoryFrame> {
        self.pool.allocate(len)
    }
}

impl BurstIo for Paced {
    fn queues(&self) -> usize {
        2
    }

    fn receive(&mut self, queue: usize, burst: &mut Burst<MemoryFrame>, max: usize) -> PortId {
        let port = PortId(queue as u8);
        // Servers answer once every client has spoken.
        let open = queue == 0 || self.shared.primed.load(Relaxed) == self.conns;
        let Some(side) = self.sides.get_mut(queue).filter(|_| open) else { return port };
        if self.shared.closed.load(Relaxed) || side.frames.is_empty() {
            return port;
        }
        let begun = *side.begun.get_or_insert_with(Instant::now);
        let due = (begun.elapsed().as_secs_f64() * self.pps) as u64;
        let late = due.saturating_sub(side.offered);
        self.shared.late.fetch_max(late, Relaxed);
        let room = (BURST_MAX - burst.len()).min(max) as u64;
        let n = late.min(room);
        let all = side.frames.len() as u64;
        for at in side.offered..side.offered + n {
            burst.push(MemoryFrame::new(side.frames[(at % all) as usize].as_slice()));
        }
        if queue == 0 && side.offered < all {
            self.shared.primed.fetch_add(n.min(all - side.offered), Relaxed);
        }
        side.offered += n;
        self.shared.offered.fetch_add(n, Relaxed);
        port
    }

    fn transmit(&mut self, _: PortId, burst: &mut Burst<MemoryFrame>) -> usize {
        self.shared.forwarded.fetch_add(burst.len() as u64, Relaxed);
        burst.clear();
        0
    }
}

/// A round after the other; with notes of how long they take.
fn work(worker: &mut Worker<Paced>, clock: Clock, shared: &Shared) {
    while !shared.stop.load(Relaxed) {
        let stretch = shared.stretch.load(Relaxed);
        let began = Instant::now();
        let done = worker.poll(clock.now());
        let ns = began.elapsed().as_nanos() as u64;
        shared.longest[stretch].fetch_max(ns, Relaxed);
        if ns > 1_000_000 {
            shared.long[stretch].fetch_add(1, Relaxed);
        }
        if done == 0 {
            // The machine may have fewer CPUs than there are threads here.
            thread::yield_now();
        }
    }
    worker.stop();
}

/// A control core and its workers with their sources.
fn gateway(
    options: &Options,
    clock: Clock,
    shared: &Arc<Shared>,
) -> Result<(ControlCore, Vec<Worker<Paced>>), Failure> {
    let plan = Plan {
        table: format!("hashsize = {}\n", options.from),
        rules_v4: rules(Workload::SnatBoth),
        rules_v6: String::new(),
        workers: options.workers,
        seed: options.seed,
    };
    let mut core = control_core(&plan, move || clock.now())?;
    let traffic = Traffic::new(options.conns, options.seed);
    let pool = Workload::SnatBoth.pool().map(|(first, _)| first);
    let count = usize::from(options.workers);
    let mut workers = Vec::new();
    for (number, rings) in rings::mesh(count).into_iter().enumerate() {
        let Some(parts) = core.worker_parts(number) else { continue };
        let WorkerParts { place, store, snapshot, links, mailbox, seed } = parts;
        let pipeline = Pipeline::new(place, store, snapshot, links, seed);
        let own = |frames: Vec<Vec<u8>>| Side {
            frames: frames.into_iter().skip(number).step_by(count).collect(),
            offered: 0,
            begun: None,
        };
        let io = Paced {
            pool: MemoryIo::new(2),
            sides: [own(traffic.originals()), own(traffic.replies(pool))],
            pps: f64::from(options.pps) / 2.0 / count as f64,
            conns: options.conns as u64,
            shared: Arc::clone(shared),
        };
        workers.push(Worker::new(io, pipeline, mailbox, rings, 32));
    }
    Ok((core, workers))
}

/// The control core's rounds for a while.
fn rounds(core: &mut ControlCore, length: Duration) {
    let began = Instant::now();
    while began.elapsed() < length {
        core.round();
        thread::sleep(ROUND);
    }
}

/// The keys of all conns.
fn keys(core: &mut ControlCore) -> Result<HashSet<u64>, Failure> {
    let conns = core.conns().map_err(|e| broken("conntrack")(&e))?;
    Ok(conns.into_iter().map(|conn| conn.key).collect())
}

/// Runs it and prints what came of it.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let (clock, shared) = (Clock::start(), Arc::new(Shared::default()));
    let (mut core, mut workers) = gateway(options, clock, &shared)?;
    thread::scope(|threads| {
        for worker in &mut workers {
            let shared = &*shared;
            threads.spawn(move || work(worker, clock, shared));
        }
        let done = drive(options, &mut core, &shared);
        shared.stop.store(true, Relaxed);
        done
    })
}

fn drive(options: &Options, core: &mut ControlCore, shared: &Shared) -> Result<(), Failure> {
    while shared.primed.load(Relaxed) < options.conns as u64 {
        rounds(core, REST / 10);
    }
    rounds(core, REST);
    let before = keys(core)?;
    let mut took = [Duration::ZERO; STRETCHES.len()];
    let stretch = |number: usize| shared.stretch.store(number, Relaxed);
    stretch(0);
    // What was long while the conns were made does not count.
    shared.longest[0].store(0, Relaxed);
    shared.long[0].store(0, Relaxed);
    rounds(core, REST);
    let mut lines = Vec::new();
    for _ in 0..options.times {
        for (number, buckets) in [(1, options.to), (3, options.from)] {
            stretch(number);
            let start = Instant::now();
            let set = core.set_sysctl(BUCKETS, buckets.into());
            let passed = start.elapsed();
            set.map_err(|e| broken("sysctl")(&format!("{e:?}")))?;
            lines.push((buckets, core.table().index.buckets(), passed));
            took[number] = took[number].max(passed);
            stretch(number + 1);
            rounds(core, REST);
        }
    }
    let after = keys(core)?;
    shared.closed.store(true, Relaxed);
    rounds(core, REST);
    let (sent, received) = (shared.offered.load(Relaxed), shared.forwarded.load(Relaxed));
    println!("{} workers, {} packets a second offered", options.workers, options.pps);
    for (buckets, lines, passed) in lines {
        println!("to {buckets} buckets ({lines} index lines): {passed:.1?}");
    }
    println!("packets: {sent} sent, {received} received, {} lost", sent - received);
    println!("most frames due and not yet offered: {}", shared.late.load(Relaxed));
    let missing = before.difference(&after).count();
    println!("entries: {} before, {} after, {missing} missing", before.len(), after.len());
    for (number, name) in STRETCHES.iter().enumerate() {
        let longest = Duration::from_nanos(shared.longest[number].load(Relaxed));
        let long = shared.long[number].load(Relaxed);
        println!("longest round {name}: {longest:.1?}; {long} longer than 1 ms");
    }
    if missing > 0 || sent != received {
        return Err(broken("resize")(&"packets or entries are missing"));
    }
    Ok(())
}
