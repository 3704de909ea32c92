//! A gateway between two fake NICs, and what the hosts on both sides send.
//!
//! ```text
//!   clients            router           gateway                router           servers
//!   10.2.0.0/16 ───── 10.1.0.11 ─── lan 10.1.0.1
//!                           203.0.113.1 wan ────────────── 203.0.113.51 ── 198.18.0.0/15
//!   fd02::/32 ──────── fd01::11 ─── lan fd01::1
//!                      2001:db8:1::1 wan ───────────── 2001:db8:1::51 ── 2001:db8:2::/48
//! ```

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock};

use dataplane::lcore::dpdk_io::DpdkIo;
use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::Pipeline;
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::time::{Now, TICKS_PER_SEC, Tick};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::headers::{self, Headers};
use dpdk_bindings::fakenic::FakeNic;
use dpdk_bindings::{Checksum, Checksums, Eal};
use sluicegate::config::Config;
use sluicegate::gateway::{ControlCore, WorkerParts};
use sluicegate::iptables;
use sluicegate::launch::Ports;
use sluicegate::publish::Rulesets;

pub const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0x10, 1];
pub const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0x11, 1];
/// The routers behind which clients and servers are.
const LAN_ROUTER: [u8; 6] = [2, 0, 0, 0, 0x10, 0x11];
const WAN_ROUTER: [u8; 6] = [2, 0, 0, 0, 0x11, 0x51];

pub const LAN_4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));
pub const WAN_4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
pub const WAN_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1));

pub const MASQUERADE: &str = "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n";
pub const RANDOM: &str = "*nat\n-A POSTROUTING -o wan -j MASQUERADE --random\nCOMMIT\n";

/// One side of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Lan,
    Wan,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Lan => Side::Wan,
            Side::Wan => Side::Lan,
        }
    }
}

/// What a gateway is to be.
#[derive(Clone, Copy, Default)]
pub struct Setup<'a> {
    pub workers: usize,
    /// More keys of each port.
    pub lan: &'a str,
    pub wan: &'a str,
    pub v4: &'a str,
    pub v6: &'a str,
}

/// A frame that the gateway sent.
pub struct Sent {
    pub queue: u16,
    pub bytes: Vec<u8>,
    pub segments: usize,
}

impl Sent {
    pub fn headers(&self) -> Headers {
        headers::parse(&self.bytes, self.bytes.len()).expect("a whole packet")
    }

    pub fn src(&self) -> SocketAddr {
        let headers = self.headers();
        SocketAddr::new(headers.src.ip(), headers.src_port)
    }

    pub fn dst(&self) -> SocketAddr {
        let headers = self.headers();
        SocketAddr::new(headers.dst.ip(), headers.dst_port)
    }
}

/// One test at a time: EAL, its devices and the log belong to the whole process.
pub struct Gateway {
    lan: FakeNic,
    wan: FakeNic,
    pub core: ControlCore,
    workers: Rc<RefCell<Vec<Worker<DpdkIo>>>>,
    clock: Rc<Cell<Now>>,
    pub ports: Ports,
    _turn: MutexGuard<'static, ()>,
}

fn toml(setup: &Setup<'_>, lan: &FakeNic, wan: &FakeNic) -> String {
    let cores = vec![0; setup.workers];
    let (lan, wan, more_lan, more_wan) = (lan.device(), wan.device(), setup.lan, setup.wan);
    format!(
        r#"
[eal]
worker_cores = {cores:?}
mbufs = 4095

[[port]]
name = "lan"
device = "{lan}"
mac = "02:00:00:00:10:01"
addresses = ["10.1.0.1/24", "fd01::1/64"]
{more_lan}

[[port]]
name = "wan"
device = "{wan}"
mac = "02:00:00:00:11:01"
addresses = ["203.0.113.1/24", "2001:db8:1::1/64"]
{more_wan}

[[route]]
to = "10.2.0.0/16"
via = "10.1.0.11"
port = "lan"
[[route]]
to = "fd02::/32"
via = "fd01::11"
port = "lan"
[[route]]
to = "198.18.0.0/15"
via = "203.0.113.51"
port = "wan"
[[route]]
to = "2001:db8:2::/48"
via = "2001:db8:1::51"
port = "wan"

[[neighbour]]
address = "10.1.0.11"
mac = "02:00:00:00:10:11"
port = "lan"
[[neighbour]]
address = "fd01::11"
mac = "02:00:00:00:10:11"
port = "lan"
[[neighbour]]
address = "203.0.113.51"
mac = "02:00:00:00:11:51"
port = "wan"
[[neighbour]]
address = "2001:db8:1::51"
mac = "02:00:00:00:11:51"
port = "wan"

[conntrack]
max = 16384
"#
    )
}

/// The log of the whole process.
static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{}: {}", record.level(), record.args());
        LOG.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(line);
    }

    fn flush(&self) {}
}

/// Lines logged since the last call.
pub fn take_log() -> Vec<String> {
    std::mem::take(&mut LOG.lock().unwrap())
}

fn start_eal() -> Eal {
    let prefix = format!("n{}", std::process::id());
    let args = format!(
        "--no-pci --no-telemetry --log-level=lib.*:error --lcores 0@(0-1) --file-prefix={prefix} \
         --no-huge -m 96 --no-shconf"
    );
    let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
    let eal = Eal::init(&args).unwrap();
    // Nobody opens these files again, and there is no hook at the end of a test process.
    let _ = Eal::runtime_dir().map(std::fs::remove_dir_all);
    log::set_logger(&Keeper).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    eal
}

impl Gateway {
    pub fn new(setup: Setup<'_>) -> Gateway {
        static TURN: Mutex<()> = Mutex::new(());
        static EAL: OnceLock<Eal> = OnceLock::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        EAL.get_or_init(start_eal);
        take_log();
        let number = NUMBER.fetch_add(1, Relaxed);
        let nic = |side| FakeNic::create(&format!("{side}{number}")).unwrap();
        let (lan, wan) = (nic("l"), nic("w"));

        let text = toml(&setup, &lan, &wan);
        let config = Config::parse(Path::new("nic.toml"), &text, 8 << 30).unwrap();
        let mut ports = Ports::bring_up(&config).unwrap();
        lan.plug(ports.port(0).unwrap()).unwrap();
        wan.plug(ports.port(1).unwrap()).unwrap();
        let rules = |family, text: &str| {
            iptables::restore(&Ruleset::new(family), text, false, false).unwrap()
        };
        let rulesets = Rulesets {
            v4: rules(Family::V4, setup.v4),
            v6: rules(Family::V6, setup.v6),
            sets: Default::default(),
        };
        let clock = Rc::new(Cell::new(Now { tick: Tick(100), unix_ns: 1_700_000_000_000_000_000 }));
        let (read, burst) = (Rc::clone(&clock), config.eal.burst.into());
        let wires = (ports.macs.clone(), ports.layout.clone());
        let now = Box::new(move || read.get());
        let mut core = ControlCore::new(config, wires, rulesets, [1, 2, 3, 4, 5, 6], now).unwrap();

        let rings = rings::mesh(setup.workers);
        let worker = |(number, (io, rings)): (usize, (DpdkIo, _))| {
            let parts = core.worker_parts(number).unwrap();
            let WorkerParts { place, store, snapshot, links, mailbox, seed } = parts;
            let pipeline = Pipeline::new(place, store, snapshot, links, seed);
            Worker::new(io, pipeline, mailbox, rings, burst)
        };
        let io = std::mem::take(&mut ports.io).into_iter();
        let workers: Vec<_> = io.zip(rings).enumerate().map(worker).collect();
        assert_eq!(workers.len(), setup.workers);
        let workers = Rc::new(RefCell::new(workers));
        let (polled, at) = (Rc::clone(&workers), Rc::clone(&clock));
        core.set_pause(Box::new(move || {
            polled.borrow_mut().iter_mut().for_each(|worker| {
                worker.poll(at.get());
            });
            true
        }));
        Gateway { lan, wan, core, workers, clock, ports, _turn: turn }
    }

    pub fn nic(&self, side: Side) -> &FakeNic {
        match side {
            Side::Lan => &self.lan,
            Side::Wan => &self.wan,
        }
    }

    /// Until nobody has anything to do at this moment.
    pub fn settle(&mut self) {
        let now = self.clock.get();
        loop {
            let poll = |worker: &mut Worker<DpdkIo>| worker.poll(now);
            while self.workers.borrow_mut().iter_mut().map(poll).sum::<usize>() > 0 {}
            self.core.round();
            if self.core.is_read() {
                return;
            }
        }
    }

    /// Lets `seconds` pass, a tenth at a time.
    pub fn pass_time(&mut self, seconds: u32) {
        for _ in 0..seconds * 10 {
            let Now { tick, unix_ns } = self.clock.get();
            let (tick, unix_ns) = (Tick(tick.0 + TICKS_PER_SEC / 10), unix_ns + 100_000_000);
            self.clock.set(Now { tick, unix_ns });
            self.settle();
        }
    }

    /// A packet arrives from a side's router; the queue.
    pub fn put(&self, side: Side, packet: &Packet<'_>) -> u16 {
        self.put_marked(side, packet, Checksums::default())
    }

    /// The same by a NIC that says so about the checksums.
    pub fn put_marked(&self, side: Side, packet: &Packet<'_>, found: Checksums) -> u16 {
        let (router, ours) = match side {
            Side::Lan => (LAN_ROUTER, LAN_MAC),
            Side::Wan => (WAN_ROUTER, WAN_MAC),
        };
        let frame = packet.macs(Mac(router), Mac(ours)).to_vec();
        self.nic(side).arrive_marked(&frame, found).expect("the NIC has room")
    }

    /// What was sent by a side.
    pub fn sent(&self, side: Side) -> Vec<Sent> {
        let mut all = Vec::new();
        for queue in 0..self.ports.port(side as usize).unwrap().queues().1 {
            while let Some(mbuf) = self.nic(side).take(queue) {
                let (bytes, segments) = (mbuf.segments().collect::<Vec<_>>(), mbuf.segment_count());
                all.push(Sent { queue, bytes: bytes.concat(), segments });
            }
        }
        all
    }

    /// A packet from one side goes out by the other, alone and whole: the queue it came in by, and
    /// what went out.
    pub fn forward(&mut self, from: Side, packet: &Packet<'_>) -> (u16, Sent) {
        let queue = self.put(from, packet);
        self.settle();
        let back = self.sent(from).len();
        let mut sent = self.sent(from.other());
        assert_eq!((sent.len(), back), (1, 0), "{:?}", self.drops());
        let sent = sent.remove(0);
        let headers = sent.headers();
        let summed = matches!(headers.proto, 1 | 6 | 17 | 58);
        assert!(!summed || headers.l4_check_ok(&sent.bytes), "the checksum was kept right");
        (queue, sent)
    }

    pub fn sum(&self, of: impl Fn(&LcoreCounters) -> u64) -> u64 {
        self.core.counters().map(of).sum()
    }

    pub fn handed_over(&self) -> u64 {
        self.sum(|c| c.handed_over.get())
    }

    pub fn invalid(&self) -> u64 {
        self.sum(|c| c.conntrack.invalid.get())
    }

    /// Frames dropped so far, by reason.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let count = |reason: &DropReason| self.sum(|c| c.drops[*reason as usize].get());
        let named = DropReason::ALL.iter().map(|reason| (reason.name(), count(reason)));
        named.filter(|(_, count)| *count > 0).collect()
    }

    /// Asks the drivers, as the daemon does a few times a second.
    pub fn look_at_wires(&mut self) {
        let wires = self.ports.wires(self.core.config());
        self.core.set_wires(wires);
    }
}

impl Drop for Gateway {
    /// Every frame is accounted for and every mbuf is back.
    fn drop(&mut self) {
        for worker in self.workers.borrow_mut().iter_mut() {
            worker.stop();
        }
        self.workers.borrow_mut().clear();
        drop((self.sent(Side::Lan), self.sent(Side::Wan)));
        if std::thread::panicking() {
            return;
        }
        assert!(self.core.counters().all(LcoreCounters::balanced), "{:?}", self.drops());
        let (free, all) = self.ports.pool();
        assert_eq!(free, all, "mbufs in the pool");
    }
}

/// A NIC that has looked at TCP and UDP checksums.
pub fn marked(l4: Checksum) -> Checksums {
    Checksums { ip: Checksum::Good, l4 }
}

/// Numbers without end, the same in each run (xorshift64*).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A client and a server, each with a port that an earlier call is unlikely to have given.
    pub fn ends(&mut self, v4: bool) -> (SocketAddr, SocketAddr) {
        let (a, b) = (self.next(), self.next());
        let (low, high) = (a as u16, (a >> 16) as u16);
        let (client, server): (IpAddr, IpAddr) = match v4 {
            true => {
                let [x, y] = (b as u16).to_be_bytes();
                let [u, v] = low.to_be_bytes();
                (Ipv4Addr::new(10, 2, x, y).into(), Ipv4Addr::new(198, 18, u, v).into())
            }
            false => (
                Ipv6Addr::new(0xfd02, 0, low, high, b as u16, 0, 0, 1).into(),
                Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, high, low).into(),
            ),
        };
        let port = |bits: u64| 1024 + bits as u16 % 60_000;
        (SocketAddr::new(client, port(b >> 32)), SocketAddr::new(server, port(b >> 48)))
    }
}
