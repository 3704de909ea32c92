//! Four workers on four threads that work against each other: the same few tuples arrive at all of
//! them, the table is far too small, conns expire while others open them anew, ports are short, and
//! the control core sweeps, publishes and flushes meanwhile. Bounded by the number of frames, not
//! by time. Afterwards nothing may be missing, doubled or left over.
//!
//! What each step does to packets is the simulator's to check; this one is for what only real
//! threads do. Run it long with `SLUICEGATE_FRAMES=2000000`.
#![allow(missing_docs)]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::policies::Policies;
use dataplane::conntrack::record::{Conn, ConnId, ConnRef, Family as Space};
use dataplane::conntrack::state::{Direction, Status};
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::{HashSeed, proto};
use dataplane::lcore::mailbox::{ControlEnd, mailbox};
use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{BATCH_MAX, FromLcore, Slice, ToLcore};
use dataplane::pipeline::neighbour::NeighbourTable;
use dataplane::pipeline::place::Layout;
use dataplane::pipeline::route::{PortAddress, RouteKind, Routes, StaticRoute};
use dataplane::pipeline::snapshot::{
    FamilyRules, InterfaceAddress, PortKind, PortSettings, Snapshot,
};
use dataplane::pipeline::{Links, Pipeline};
use dataplane::rules::compiled::Compiled;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::matches::{Basics, Maybe, Net};
use dataplane::rules::model::{Counters, Place, Rule, Ruleset};
use dataplane::rules::targets::{NatOptions, Target};
use dataplane::time::{Now, TICKS_PER_SEC, Tick};
use dataplane::wire::address::Address;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::tcp::flags;

const LCORES: usize = 4;
/// Conns: fewer than the tuples that ask for one.
const MAX: u32 = 300;
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 254);
/// UDP to one server is translated, to the other it is not.
const NATED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const DIRECT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);
const PORTS: (u16, u16) = (2000, 2100);
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0x10, 1]), Mac([2, 0, 0, 0, 0x20, 1])];
const PEER: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// Numbers without end, the same in each run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n
    }

    /// A frame from either side, of one of some hundred conns.
    fn frame(&mut self) -> (PortId, MemoryFrame) {
        let client = Ipv4Addr::new(192, 168, 1, 2 + self.below(4) as u8);
        let at = |host: Ipv4Addr, port: u16| SocketAddr::new(IpAddr::V4(host), port);
        let (tcp, port) = (self.below(4) == 0, 4000 + self.below(100) as u16);
        let (to_lan, from, to) = match self.below(3) {
            // Some answers hit a mapping, the rest is for the gateway itself.
            0 => (false, at(NATED, 53), at(WAN, PORTS.0 + self.below(101) as u16)),
            // Without NAT: both ends may speak first.
            1 if self.below(2) == 0 => (false, at(DIRECT, 53), at(client, port)),
            1 => (true, at(client, port), at(DIRECT, 53)),
            _ => (true, at(client, port), at(NATED, 53)),
        };
        let kinds = [flags::SYN, flags::SYN | flags::ACK, flags::ACK, flags::RST];
        let packet = if tcp {
            Packet::tcp(from, to).flags(kinds[self.below(4) as usize])
        } else {
            Packet::udp(from, to)
        };
        let port = if to_lan { PortId(0) } else { PortId(1) };
        (port, MemoryFrame::new(packet.macs(PEER, MACS[port.0 as usize]).to_vec()))
    }
}

fn address(a: Ipv4Addr) -> Address {
    IpAddr::V4(a).into()
}

fn rules() -> Ruleset {
    let mut rules = Ruleset::new(Family::V4);
    let (place, counters) = (Place::default(), Counters::default());
    let basics = Basics {
        proto: Some(Maybe::is(proto::UDP)),
        dst: Some(Maybe::is(Net { address: address(NATED), mask: u128::MAX })),
        ..Basics::default()
    };
    let options = NatOptions {
        addresses: Some((address(WAN), address(WAN))),
        ports: Some(PORTS),
        ..NatOptions::default()
    };
    let target = Target::Snat(options);
    let rule = Rule { place, counters, basics, matches: Vec::new(), target };
    rules.table_mut(Table::Nat).chain_mut("POSTROUTING").unwrap().rules.push(rule);
    rules
}

fn snapshot(generation: u32) -> Snapshot {
    let own = [(LAN, 24), (WAN, 24)];
    let port = |number: usize| PortSettings {
        name: ["lan", "wan"][number].into(),
        mac: MACS[number].0,
        mtu: 1500,
        addresses: Box::new([InterfaceAddress {
            address: address(own[number].0),
            prefix: own[number].1,
        }]),
        kind: PortKind::Device,
        host_tap: None,
    };
    let addresses: Vec<PortAddress> = (0..)
        .zip(own)
        .map(|(port, (a, prefix_len))| PortAddress { port, address: address(a), prefix_len })
        .collect();
    let default = StaticRoute {
        to: address(Ipv4Addr::UNSPECIFIED),
        prefix_len: 0,
        via: Some(address(UPSTREAM)),
        port: 1,
        metric: 0,
        kind: RouteKind::Unicast,
    };
    let compile = |rules: &Ruleset| {
        FamilyRules::new(Compiled::new(rules, &["lan", "wan"], 0).unwrap(), LCORES)
    };
    let mut knobs = Knobs::default();
    let short = ["udp_timeout", "udp_timeout_stream", "tcp_timeout_established"];
    for (secs, name) in (2..).zip(short) {
        knobs.set(name, secs).unwrap();
    }
    Snapshot {
        generation,
        keeping: Default::default(),
        ports: Box::new([port(0), port(1)]),
        routes: Routes::new(&addresses, &[default]).unwrap(),
        v4: compile(&rules()),
        v6: compile(&Ruleset::new(Family::V6)),
        knobs,
        policies: Policies::default(),
    }
}

/// What the threads share.
struct World {
    shared: Arc<Shared>,
    neighbours: Arc<NeighbourTable>,
    counters: Vec<Arc<LcoreCounters>>,
    tick: AtomicU32,
    done: AtomicBool,
}

impl World {
    fn now(&self) -> Now {
        Now { tick: Tick(self.tick.load(Ordering::Relaxed)), unix_ns: 0 }
    }

    fn confirmed(&self) -> Vec<Conn<'_>> {
        let numbers = 0..self.shared.records.numbers(Space::V4);
        let conns = numbers.filter_map(|n| self.shared.records.get(ConnRef::new(Space::V4, n)));
        conns.filter(|conn| conn.status().has(Status::CONFIRMED)).collect()
    }
}

/// The control core's side of the mailboxes: counts what is still to be answered.
struct Control {
    ends: Vec<ControlEnd>,
    open: usize,
    swept: u32,
}

impl Control {
    fn send(&mut self, lcore: usize, message: ToLcore) {
        self.open += self.ends[lcore].send(message).is_ok() as usize;
    }

    fn read(&mut self) {
        for end in &mut self.ends {
            while let Some(message) = end.receive() {
                let report = matches!(
                    message,
                    FromLcore::TableFull | FromLcore::Event(_) | FromLcore::Log(_)
                );
                self.open -= !report as usize;
            }
        }
    }

    fn sweep(&mut self, world: &World) {
        let mut due: Vec<Vec<ConnId>> = vec![Vec::new(); LCORES];
        let buckets = world.shared.index.buckets();
        self.swept = world.shared.sweep(self.swept, buckets, world.now().tick, |id, owner| {
            due[owner as usize].push(id);
            true
        });
        for (lcore, due) in due.into_iter().enumerate() {
            for batch in due.chunks(BATCH_MAX) {
                self.send(lcore, ToLcore::Expire(Box::new(batch.to_vec())));
            }
        }
    }

    /// Chores while the others work; time flies.
    fn run(&mut self, world: &World) {
        let mut generation = 1;
        while !world.done.load(Ordering::Relaxed) {
            world.tick.fetch_add(TICKS_PER_SEC / 5, Ordering::Relaxed);
            self.read();
            self.sweep(world);
            generation += 1;
            let policy = Arc::new(snapshot(generation));
            for lcore in 0..LCORES {
                self.send(lcore, ToLcore::Adopt(policy.clone()));
                self.send(lcore, ToLcore::Fold);
                let conns = Vec::with_capacity(64);
                let slice = Slice {
                    family: Space::V4,
                    from: 0,
                    numbers: 64,
                    zero: false,
                    end: false,
                    conns,
                };
                self.send(lcore, ToLcore::List(0, Box::new(slice)));
                let some = world.confirmed().iter().take(3).map(|c| c.id()).collect();
                self.send(lcore, ToLcore::Delete(0, None, Box::new(some)));
            }
            thread::yield_now();
        }
    }
}

/// One worker: frames as they come, and rounds without any in between.
fn work(worker: &mut Worker<MemoryIo>, lcore: usize, frames: usize, world: &World) {
    let mut numbers = Numbers(0x5eed + lcore as u64);
    let mut left = frames;
    while left > 0 {
        let burst = (1 + numbers.below(40) as usize).min(left);
        left -= burst;
        for _ in 0..burst {
            let (port, frame) = numbers.frame();
            worker.io().push(port, frame);
        }
        worker.poll(world.now());
        while worker.io().pop_sent().is_some() {}
        if numbers.below(8) == 0 {
            thread::yield_now();
        }
    }
}

fn frames() -> usize {
    std::env::var("SLUICEGATE_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

#[test]
fn four_lcores_at_odds_leave_an_orderly_table() {
    let seed = HashSeed([1, 2, 3, 4, 5]);
    let sizes = Sizes { max: MAX, lcores: LCORES as u8, extensions: MAX };
    let shared = Arc::new(Shared::new(sizes, seed).unwrap());
    shared.records.ensure_chunks(Space::V4, u32::MAX).unwrap();
    let neighbours = Arc::new(NeighbourTable::new(64, seed));
    for (port, a) in [(0, [192, 168, 1, 2]), (0, [192, 168, 1, 3]), (0, [192, 168, 1, 4])] {
        neighbours.set_permanent(port, address(a.into()), PEER.0, Tick(0)).unwrap();
    }
    neighbours.set_permanent(1, address(UPSTREAM), PEER.0, Tick(0)).unwrap();
    let counters: Vec<_> = (0..LCORES).map(|_| Arc::new(LcoreCounters::new(2))).collect();
    let (tick, done) = (AtomicU32::new(u32::MAX - 500), AtomicBool::new(false));
    let world = World { shared, neighbours, counters, tick, done };
    let layout = Layout::even(LCORES as u8, 2, LCORES as u16);
    let (policy, errors, listeners) = (Arc::new(snapshot(1)), Arc::default(), Arc::default());
    let mut ends = Vec::new();
    let mut workers = Vec::new();
    for (lcore, rings) in rings::mesh(LCORES).into_iter().enumerate() {
        let links = Links {
            counters: world.counters[lcore].clone(),
            neighbours: world.neighbours.clone(),
            listeners: Arc::clone(&listeners),
            errors: Arc::clone(&errors),
        };
        let store = Store::new(world.shared.clone(), lcore as u8);
        let place = layout.place(lcore as u8);
        let pipeline = Pipeline::new(place, store, policy.clone(), links, lcore as u64);
        let (end, lcore_end) = mailbox();
        ends.push(end);
        workers.push(Worker::new(MemoryIo::new(2), pipeline, lcore_end, rings, 32));
    }
    let mut control = Control { ends, open: 0, swept: 0 };
    thread::scope(|threads| {
        let control = threads.spawn(|| control.run(&world));
        let at_work: Vec<_> = workers
            .iter_mut()
            .enumerate()
            .map(|(lcore, worker)| {
                let world = &world;
                threads.spawn(move || work(worker, lcore, frames(), world))
            })
            .collect();
        for worker in at_work {
            worker.join().unwrap();
        }
        world.done.store(true, Ordering::Relaxed);
        control.join().unwrap();
    });
    settle(&mut workers, &mut control, &world);
    check(&world, &control);
    // Everything expires, and nothing is left.
    for _ in 0..4 {
        world.tick.fetch_add(1000 * TICKS_PER_SEC, Ordering::Relaxed);
        control.sweep(&world);
        settle(&mut workers, &mut control, &world);
    }
    workers.iter_mut().for_each(Worker::stop);
    assert_eq!(world.shared.capacity.count(), 0);
    assert_eq!(world.shared.index.census(), (0, 0));
    assert_eq!(world.shared.by_source.census(), (0, 0));
    check(&world, &control);
}

fn settle(workers: &mut [Worker<MemoryIo>], control: &mut Control, world: &World) {
    let now = world.now();
    while workers.iter_mut().map(|worker| worker.poll(now)).sum::<usize>() > 0 {
        workers.iter_mut().for_each(|worker| while worker.io().pop_sent().is_some() {});
        control.read();
    }
    control.read();
}

fn check(world: &World, control: &Control) {
    assert_eq!(control.open, 0, "messages without an answer");
    let sum = |of: fn(&LcoreCounters) -> u64| world.counters.iter().map(|c| of(c)).sum::<u64>();
    assert!(world.counters.iter().all(|c| c.balanced()));
    assert_eq!(sum(|c| c.handed_over.get()), sum(|c| c.taken_over.get()));
    assert!(sum(|c| c.handed_over.get()) > 1000 && sum(|c| c.fast.get()) > 100);
    // What was to be provoked has been: a full table, and ports that ran out or were contested.
    assert!(sum(|c| c.conntrack.early_drop.get()) > 0);
    assert!(sum(|c| c.drops[DropReason::InsertFailed as usize].get()) > 0);
    let conns = world.confirmed();
    assert_eq!(conns.len(), world.shared.capacity.count() as usize);
    let (mut tuples, mut entries) = (HashSet::new(), 0);
    for conn in &conns {
        let shows = conn.shows(Direction::Original);
        let (orig, reply) = (conn.orig(), conn.reply());
        // One that has expired counts as gone, and another may have its tuples already.
        if !conn.is_expired(world.now().tick) {
            assert!(!shows || tuples.insert(format!("{orig:?}")), "twice: {orig:?}");
            assert!(tuples.insert(format!("{reply:?}")), "twice: {reply:?}");
        }
        entries += 1 + (shows && orig.inverted() != Some(reply)) as u64;
    }
    assert_eq!(world.shared.index.census().0, entries);
}
