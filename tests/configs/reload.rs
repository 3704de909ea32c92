//! Ten thousand rules replaced while packets flow: none is lost, and no conn.
//!
//! Here workers are threads of their own, as in the daemon. They offer themselves the frames of
//! conns that are there, a few at a time, for as long as the control core is at work.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use dataplane::lcore::io::BurstIo;
use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::Pipeline;
use dataplane::pipeline::frame::{BURST_MAX, Burst, FramePool};
use dataplane::pipeline::place::Layout;
use dataplane::rules::facts::PortId;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use sluicegate::clock::Clock;
use sluicegate::config::Config;
use sluicegate::gateway::{ControlCore, Served, WorkerParts, load_rules};

use crate::edge::NEIGHBOURS;
use crate::site::Folder;

const WORKERS: usize = 2;
/// One for each tenant.
const CONNS: u16 = 400;
/// Frames under way at once: fewer than any queue holds.
const UNDER_WAY: u64 = 64;
/// Rounds of the control core that something may take, on the busiest machine.
const ROUNDS: u32 = 30_000;
/// Numbers of the ports that frames come in by.
const UP2: usize = 1;
const FABRIC: usize = 2;

/// What all threads know.
#[derive(Default)]
struct Shared {
    offered: AtomicU64,
    forwarded: AtomicU64,
    /// Servers answer.
    answering: AtomicBool,
    /// Nothing more is offered.
    closed: AtomicBool,
    over: AtomicBool,
}

/// Ends the workers, also on a panic.
struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Relaxed);
    }
}

/// A worker's ports: the frames of its half of the conns, over and over.
struct Talk {
    pool: MemoryIo,
    /// By port number; what was offered last.
    frames: [Vec<Vec<u8>>; 3],
    next: [usize; 3],
    shared: Arc<Shared>,
}

impl FramePool for Talk {
    type Frame = MemoryFrame;
    type Notes = ();

    fn allocate(&mut self, len: usize) -> Option<MemoryFrame> {
        self.pool.allocate(len)
    }
}

impl BurstIo for Talk {
    fn queues(&self) -> usize {
        self.pool.queues()
    }

    fn receive(&mut self, queue: usize, burst: &mut Burst<MemoryFrame>, max: usize) -> PortId {
        let port = PortId(queue as u8);
        let shared = &self.shared;
        let open = queue != UP2 || shared.answering.load(Relaxed);
        let Some(frames) = self.frames.get(queue).filter(|frames| open && !frames.is_empty())
        else {
            return port;
        };
        let first = !shared.answering.load(Relaxed);
        for _ in burst.len()..BURST_MAX.min(max) {
            let forwarded = shared.forwarded.load(Relaxed);
            let under_way = shared.offered.load(Relaxed).saturating_sub(forwarded);
            let at = self.next[queue];
            // Before servers answer each client speaks once.
            let spoken = first && at >= frames.len();
            if shared.closed.load(Relaxed) || under_way >= UNDER_WAY || spoken {
                break;
            }
            burst.push(MemoryFrame::new(frames[at % frames.len()].as_slice()));
            self.next[queue] = at + 1;
            shared.offered.fetch_add(1, Relaxed);
        }
        port
    }

    fn transmit(&mut self, _: PortId, burst: &mut Burst<MemoryFrame>) -> usize {
        self.shared.forwarded.fetch_add(burst.len() as u64, Relaxed);
        burst.clear();
        0
    }
}

/// Frames of the conns of worker `number`, by port: tenants ask, somebody answers.
fn frames(number: usize, config: &Config) -> [Vec<Vec<u8>>; 3] {
    let mac = |port: usize| Mac(config.ports[port].mac.expect("the file says it"));
    let frame = |port: usize, src: SocketAddr, dst: SocketAddr| {
        Packet::udp(src, dst).macs(Mac([2, 0, 0, 0, 0x77, 1]), mac(port)).payload(b"talk").to_vec()
    };
    let mut frames = [Vec::new(), Vec::new(), Vec::new()];
    for tenant in (0..CONNS).filter(|tenant| usize::from(*tenant) % WORKERS == number) {
        let [high, low] = tenant.to_be_bytes();
        let third = (tenant % 64 * 4) as u8;
        let client = SocketAddr::from(([10, 64 + (tenant / 64) as u8, third, 77], 4000));
        let public = SocketAddr::from(([198, 18, 4 + high, low], 4000));
        let server = SocketAddr::from(([203, 0, 113, 9], 6000 + tenant));
        frames[FABRIC].push(frame(FABRIC, client, server));
        frames[UP2].push(frame(UP2, server, public));
    }
    frames
}

fn gateway(config: Config, clock: Clock) -> ControlCore {
    let rulesets = load_rules(&config).unwrap_or_else(|error| panic!("{error}"));
    let taps = config.ports.iter().filter(|port| port.host_tap.is_some()).count();
    let macs = config.ports.iter().map(|port| port.mac.expect("the file says it")).collect();
    let layout = Layout::even(WORKERS as u8, config.ports.len() + taps, WORKERS as u16);
    let seed = [1, 2, 3, 4, 5, 6].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    ControlCore::new(config, (macs, layout), rulesets, seed, Box::new(move || clock.now())).unwrap()
}

fn worker(
    core: &mut ControlCore,
    number: usize,
    rings: rings::Rings<MemoryFrame>,
    shared: &Arc<Shared>,
) -> Worker<Talk> {
    let parts = core.worker_parts(number).expect("a worker");
    let WorkerParts { place, store, snapshot, links, mailbox, seed } = parts;
    let ports = snapshot.ports.len();
    let pipeline = Pipeline::new(place, store, snapshot, links, seed);
    let frames = frames(number, core.config());
    let (pool, shared) = (MemoryIo::new(ports), Arc::clone(shared));
    Worker::new(Talk { pool, frames, next: [0; 3], shared }, pipeline, mailbox, rings, 32)
}

/// Rounds of the control core until something is so.
fn until(core: &mut ControlCore, what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..ROUNDS {
        if is_so() {
            return;
        }
        core.round();
        thread::sleep(std::time::Duration::from_micros(100));
    }
    let stats = core.serve(&["stats".to_owned()], "");
    panic!("not within {ROUNDS} rounds: {what}: {stats:?}");
}

fn replace(core: &mut ControlCore, shared: &Shared, text: &str) {
    let before = shared.offered.load(Relaxed);
    match core.serve(&["iptables-restore".to_owned()], text) {
        Served::Done(answer) => assert_eq!((answer.exit, answer.err.as_str()), (0, "")),
        Served::Events(_) => panic!("no events were asked for"),
    }
    assert!(shared.offered.load(Relaxed) > before, "nothing came meanwhile");
}

#[test]
fn nothing_is_lost_while_ten_thousand_rules_are_replaced() {
    let folder = Folder::new("edge", &NEIGHBOURS, "");
    folder.edit("edge.toml", |text| text.replace("[1, 2, 3, 4]", "[1, 2]"));
    let rules = folder.read("edge.v4");
    // Every service elsewhere, everybody's public address another one for what begins now.
    let others = rules.replace(" --dport ", " ! --dport ").replace("198.18.4.", "198.18.6.");
    assert_ne!(others, rules);
    let (clock, shared) = (Clock::start(), Arc::new(Shared::default()));
    let config = Config::load(&folder.config()).unwrap_or_else(|error| panic!("{error}"));
    let mut core = gateway(config, clock);
    let mesh = rings::mesh(WORKERS).into_iter().enumerate();
    let workers: Vec<_> = mesh.map(|(n, rings)| worker(&mut core, n, rings, &shared)).collect();
    thread::scope(|threads| {
        for mut worker in workers {
            let shared = &*shared;
            threads.spawn(move || {
                while !shared.over.load(Relaxed) {
                    if worker.poll(clock.now()) == 0 {
                        thread::yield_now();
                    }
                }
                worker.stop();
            });
        }
        let _end = End(&shared);
        let all_through = || {
            let offered = shared.offered.load(Relaxed);
            offered >= u64::from(CONNS) && shared.forwarded.load(Relaxed) == offered
        };
        until(&mut core, "all have begun", all_through);
        shared.answering.store(true, Relaxed);
        for text in [&others, &rules, &others] {
            let flowed = shared.offered.load(Relaxed) + 2 * u64::from(CONNS);
            until(&mut core, "they talk", || shared.offered.load(Relaxed) > flowed);
            replace(&mut core, &shared, text);
        }
        core.reload(&folder.config()).unwrap_or_else(|error| panic!("{error}"));
        let flowed = shared.offered.load(Relaxed) + 2 * u64::from(CONNS);
        until(&mut core, "they talk on", || shared.offered.load(Relaxed) > flowed);
        shared.closed.store(true, Relaxed);
        until(&mut core, "everything is through", all_through);
    });
    assert_eq!(
        core.table().capacity.count(),
        u32::from(CONNS),
        "nothing ended, nothing began anew"
    );
    assert!(core.counters().all(|counters| counters.balanced() && counters.dropped() == 0));
}
