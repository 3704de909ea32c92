//! DPDK started from the configuration: EAL arguments, mempool, ports, worker lcores.
//!
//! The only file of the control core that knows DPDK. A configured port that did not come up is an
//! error that names it: EAL itself only logs a failed vdev and goes on. What DPDK logs meanwhile is
//! held back (unless the log level is debug), and its reason goes into the one line of the error.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use dataplane::conntrack::fragments::{COST_OF_BUFFER, PARTS_MAX};
use dataplane::lcore::dpdk_io::DpdkIo;
use dataplane::lcore::rings;
use dataplane::pipeline::place::{Layout, Queues};
use dataplane::pipeline::steering::{Fields, Functions, SYMMETRIC_KEY, Steering};
use dataplane::rules::facts::PortId;
use dpdk_bindings::{
    BURST_MAX, Eal, EalError, FamilyFunctions, Hashed, HeldLog, LcoreId, Mempool, Offloads,
    PoolError, Port, PortConfig, PortError, PortInfo, PortStats, RxQueue, Side, TxQueue,
};
pub use dpdk_bindings::{LcoreError, LcoreHandle};

use crate::config::{self, Config, Hugepages, sizes};
use crate::tools::stats::{Wire, WireLink};

/// Room for a frame in one mbuf behind DPDK's headroom; longer frames are chains.
const DATA_ROOM: u16 = 2048 + dpdk_bindings::HEADROOM;

/// Mbufs in the lcore's own cache.
const POOL_CACHE: u32 = 256;

/// EAL's size of a huge page here.
const HUGE_KB: u64 = 2048;

/// Why DPDK did not start.
#[derive(Debug)]
pub enum LaunchError {
    /// Huge pages were demanded and are not there.
    NoHugepages {
        /// MiB that are wanted.
        wanted_mb: u32,
        /// MiB that are free.
        free_mb: u64,
    },
    /// More memory is wanted than the machine has.
    NoMemory {
        /// MiB that are wanted.
        wanted_mb: u32,
        /// MiB that the machine has.
        machine_mb: u64,
    },
    /// A CPU that the machine does not have.
    NoCpu {
        /// The key that names it.
        key: &'static str,
        /// Its number.
        cpu: u32,
    },
    /// EAL.
    Eal {
        /// What happened.
        error: EalError,
        /// What DPDK logged about it.
        reason: Reason,
    },
    /// The packet buffers.
    Pool {
        /// What happened.
        error: PoolError,
        /// MiB for them and everything else.
        memory_mb: u32,
    },
    /// A port.
    Port {
        /// Its name in the configuration.
        name: String,
        /// What happened.
        error: PortError,
        /// What DPDK logged about it.
        reason: Reason,
    },
    /// A port has no MAC address that could be read.
    NoMac(String),
    /// A worker.
    Lcore(LcoreError),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LaunchError::NoHugepages { wanted_mb, free_mb } => write!(
                f,
                "hugepages = true, but {free_mb} MiB of huge pages are free and memory_mb is \
                 {wanted_mb}: reserve them (sysctl vm.nr_hugepages) or set hugepages = \"auto\""
            ),
            LaunchError::NoMemory { wanted_mb, machine_mb } => write!(
                f,
                "memory_mb = {wanted_mb}, but this machine has {machine_mb} MiB of memory"
            ),
            LaunchError::NoCpu { key, cpu } => {
                write!(f, "{key}: this machine has no CPU {cpu}")
            }
            LaunchError::Eal { error, reason } => write!(f, "{error}{reason}"),
            LaunchError::Pool { error, memory_mb } => write!(
                f,
                "{error}: memory_mb = {memory_mb} is too little for them; raise it or lower mbufs \
                 or the ports' descriptors"
            ),
            LaunchError::Port { name, error, reason } => {
                write!(f, "port {name}: {error}{reason}")
            }
            LaunchError::NoMac(name) => write!(f, "port {name}: it has no MAC address"),
            LaunchError::Lcore(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

/// Why something did not start, as far as DPDK's log tells; displays as an appendix to a sentence.
#[derive(Debug, Default)]
pub struct Reason {
    lines: Vec<String>,
    not_root: bool,
}

/// What DPDK logs although nothing is wrong, or after it has named the reason.
const CHATTER: &[&str] = &[
    "qdisc",
    "Disabling rte flow support",
    "tap_mp_req_on_rxtx",
    "vdev_probe(): failed to initialize",
    "Bus (vdev) probe failed",
];

/// Lines of DPDK's log that an error repeats: the first ones tell most.
const REASON_LINES: usize = 2;

impl Reason {
    fn of(log: Option<&HeldLog>) -> Reason {
        let lines = log.map(HeldLog::lines).unwrap_or_default();
        let tells = |line: &String| !CHATTER.iter().any(|chatter| line.contains(chatter));
        Reason {
            lines: lines.into_iter().filter(tells).take(REASON_LINES).collect(),
            not_root: fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.lines.is_empty() {
            write!(f, " ({})", self.lines.join("; "))?;
        }
        if self.not_root {
            write!(f, "; most devices need root, and this is not root")?;
        }
        Ok(())
    }
}

/// DPDK started, with all ports up and nothing polling them yet.
pub struct Launched {
    eal: Eal,
    /// The ports and their queues.
    pub ports: Ports,
}

/// All ports up, the configured ones first, and their queues shared out.
pub struct Ports {
    /// By port number; `None` for those without a device.
    up: Vec<Option<Port>>,
    pool: Mempool,
    /// MAC addresses by port number.
    pub macs: Vec<[u8; 6]>,
    /// Which queues are whose.
    pub layout: Layout,
    /// Per worker, its queues.
    pub io: Vec<DpdkIo>,
}

/// Starts EAL, makes the mempool and brings up every configured port.
///
/// # Errors
/// See [`LaunchError`]; whatever had been started is stopped, and nothing is left behind.
pub fn launch(config: &Config) -> Result<Launched, LaunchError> {
    let args = eal_args(config, free_hugepages_kb())?;
    demand_machine(config)?;
    log::debug!("EAL arguments: {}", args.join(" "));
    let held = if is_quiet(config) { HeldLog::start() } else { None };
    let launched = start(config, &args, held.as_ref());
    if launched.is_err() {
        remove_runtime_files();
    }
    launched
}

fn start(config: &Config, args: &[String], log: Option<&HeldLog>) -> Result<Launched, LaunchError> {
    let failed = |error| LaunchError::Eal { error, reason: Reason::of(log) };
    let eal = Eal::init(args).map_err(failed)?;
    Ok(Launched { eal, ports: bring_up(config, log)? })
}

fn bring_up(config: &Config, log: Option<&HeldLog>) -> Result<Ports, LaunchError> {
    let workers = config.eal.worker_cores.len() as u16;
    let wrong = |port: &config::Port, error| {
        let name = port.name.clone();
        LaunchError::Port { name, error, reason: Reason::of(log) }
    };
    let queues = |port| queues_of(port, workers).map_err(|error| wrong(port, error));
    let queues = config.ports.iter().map(queues).collect::<Result<Vec<Queues>, _>>()?;
    let pool = pool(config, &queues)?;
    let (mut all, mut macs) = (Vec::new(), Vec::new());
    let mut wires = Wires::default();
    for (port, queues) in config.ports.iter().zip(queues) {
        if !port.has_device() {
            macs.push([0; 6]);
            wires.push(queues, Vec::new(), Vec::new(), None);
            all.push(None);
            continue;
        }
        let settings = PortConfig {
            rx_queues: queues.rx,
            tx_queues: queues.tx,
            rx_desc: port.rx_descriptors,
            tx_desc: port.tx_descriptors,
            mtu: port.mtu,
            promiscuous: port.promiscuous,
            mac: port.mac,
            // Both directions of a conn that no NAT changes arrive at one queue.
            rss_key: Some(SYMMETRIC_KEY.to_vec()),
            rss_reta: None,
            offloads: offloads(config),
        };
        let device = port.device.split(',').next().unwrap_or_default();
        let (up, rx, tx) =
            Port::configure(device, &settings, &pool).map_err(|error| wrong(port, error))?;
        let unsupported = up.unsupported();
        if unsupported.mtu {
            log::warn!("port {}: the driver cannot set an MTU of {}", port.name, port.mtu);
        }
        if unsupported.rss_key && workers > 1 {
            let name = &port.name;
            log::info!("port {name}: an RSS key of its own: more frames are handed over");
        }
        // A driver that cannot set the address still sends and receives with ours.
        let mac = port.mac.or_else(|| up.mac());
        macs.push(mac.ok_or_else(|| LaunchError::NoMac(port.name.clone()))?);
        wires.push(queues, rx, tx, steering_of(&up, &port.name));
        all.push(Some(up));
    }
    config.share_macs(&mut macs);
    // Behind all ports and in their order, as the snapshot numbers them.
    for ((port, mac), (device, name)) in tapped(config, &macs).zip(tap_devices(config)) {
        let settings = tap_settings(port, mac);
        let failed =
            |error| LaunchError::Port { name: name.to_owned(), error, reason: Reason::of(log) };
        let (up, rx, tx) = Port::configure(&device, &settings, &pool).map_err(failed)?;
        wires.push(Queues { rx: 1, tx: 1 }, rx, tx, None);
        all.push(Some(up));
    }
    let (layout, io) = wires.share_out(workers as u8, &pool);
    Ok(Ports { up: all, pool, macs, layout, io })
}

/// What devices are to do for us. Frames of several segments are sent as they are only where frames
/// may be longer than an mbuf: drivers have a faster way for ports that never send any.
fn offloads(config: &Config) -> Offloads {
    let room = usize::from(DATA_ROOM - dpdk_bindings::HEADROOM);
    let chains = config.ports.iter().any(|port| usize::from(port.mtu) + FRAME_OVERHEAD > room);
    Offloads { rx_checksums: true, chains, fast_free: !chains }
}

/// Bytes of a frame around its IP packet: Ethernet header and one 802.1Q tag.
const FRAME_OVERHEAD: usize = 14 + 4;

/// How a port's device spreads what it receives over its queues, if it says so.
fn steering_of(port: &Port, name: &str) -> Option<Steering> {
    let rss = port.rss()?;
    let fields = |hashed| match hashed {
        Hashed::Nothing => Fields::Nothing,
        Hashed::Addresses => Fields::Addresses,
        Hashed::Ports => Fields::Ports,
    };
    let functions = |f: FamilyFunctions| Functions {
        tcp: fields(f.tcp),
        udp: fields(f.udp),
        other: fields(f.other),
    };
    let (v4, v6) = (functions(rss.functions.v4), functions(rss.functions.v6));
    match Steering::new(&rss.key, &rss.reta, v4, v6) {
        Ok(steering) => Some(steering),
        Err(error) => {
            log::warn!("port {name}: conns will change lcores more often than need be: {error}");
            None
        }
    }
}

/// Drivers whose number of queues is agreed upon with a peer: more than one has to be asked for.
const ONE_QUEUE: &[&str] = &["net_memif"];

/// The queues that a port gets: as configured, else one for each worker where the device has them.
/// A device that has fewer than asked for is refused here, before memory is made for them; one that
/// is not there, when it is configured.
fn queues_of(port: &config::Port, workers: u16) -> Result<Queues, PortError> {
    if !port.has_device() {
        return Ok(Queues { rx: 0, tx: 0 });
    }
    let Ok(info) = PortInfo::of(&port.device) else { return Ok(Queues { rx: 1, tx: 1 }) };
    let one = ONE_QUEUE.contains(&info.driver.as_str());
    let given = |asked: Option<u16>, max: u16, side| match asked {
        Some(asked) if asked > max => {
            Err(PortError::Queues { device: info.device.clone(), side, asked, max })
        }
        Some(asked) => Ok(asked),
        None => Ok(if one { 1 } else { workers.min(max.max(1)) }),
    };
    let rx = given(port.rx_queues, info.max_rx_queues, Side::Rx)?;
    Ok(Queues { rx, tx: given(port.tx_queues, info.max_tx_queues, Side::Tx)? })
}

/// All queues, by port.
#[derive(Default)]
struct Wires {
    queues: Vec<Queues>,
    rx: Vec<Vec<RxQueue>>,
    tx: Vec<Vec<TxQueue>>,
    steering: Vec<Option<Arc<Steering>>>,
}

impl Wires {
    fn push(
        &mut self,
        queues: Queues,
        rx: Vec<RxQueue>,
        tx: Vec<TxQueue>,
        steering: Option<Steering>,
    ) {
        self.queues.push(queues);
        self.rx.push(rx);
        self.tx.push(tx);
        self.steering.push(steering.map(Arc::new));
    }

    /// Gives each worker its queues.
    fn share_out(self, workers: u8, pool: &Mempool) -> (Layout, Vec<DpdkIo>) {
        let layout = Layout { steering: self.steering.into(), ..Layout::new(workers, self.queues) };
        let mut rx: Vec<Vec<(PortId, RxQueue)>> = (0..workers).map(|_| Vec::new()).collect();
        for (port, queues) in (0..).map(PortId).zip(self.rx) {
            for (number, queue) in (0..).zip(queues) {
                rx[usize::from(layout.receiver(port, number))].push((port, queue));
            }
        }
        let mut tx: Vec<Vec<Option<TxQueue>>> = (0..workers).map(|_| Vec::new()).collect();
        for (port, queues) in (0..).map(PortId).zip(self.tx) {
            let mut queues: Vec<Option<TxQueue>> = queues.into_iter().map(Some).collect();
            for (worker, tx) in (0..).zip(&mut tx) {
                let number = layout.transmit_queue(port, worker);
                tx.push(number.and_then(|n| queues.get_mut(usize::from(n))?.take()));
            }
        }
        let io = rx.into_iter().zip(tx).map(|(rx, tx)| DpdkIo::new(rx, tx, pool.clone()));
        let io = io.collect();
        (layout, io)
    }
}

/// Descriptors of each queue of a host tap.
const TAP_DESCRIPTORS: u16 = 512;

/// The ports with a host tap and their MAC addresses.
fn tapped<'a>(
    config: &'a Config,
    macs: &'a [[u8; 6]],
) -> impl Iterator<Item = (&'a config::Port, [u8; 6])> {
    config.ports.iter().zip(macs.iter().copied()).filter(|(port, _)| port.host_tap.is_some())
}

/// A tap speaks with the port's MAC address. It has one queue: what goes there is little.
fn tap_settings(port: &config::Port, mac: [u8; 6]) -> PortConfig {
    PortConfig {
        rx_queues: 1,
        tx_queues: 1,
        rx_desc: TAP_DESCRIPTORS,
        tx_desc: TAP_DESCRIPTORS,
        mtu: port.mtu,
        promiscuous: false,
        mac: Some(mac),
        ..PortConfig::default()
    }
}

/// The vdevs of the host taps with their interface names, in the order of their ports. Their
/// numbers are not those of configured devices.
fn tap_devices(config: &Config) -> impl Iterator<Item = (String, &str)> {
    let name = |p: &config::Port| p.device.split(',').next().unwrap_or_default().to_owned();
    let taken: Vec<String> = config.ports.iter().map(name).collect();
    let free = (0..).map(|n| format!("net_tap{n}")).filter(move |name| !taken.contains(name));
    free.zip(config.ports.iter().filter_map(|p| p.host_tap.as_deref()))
}

impl Ports {
    /// Makes the mempool and brings up every port of a configuration, on the EAL that runs. Each
    /// worker gets its queues.
    ///
    /// # Errors
    /// See [`LaunchError`]; ports that came up are closed.
    pub fn bring_up(config: &Config) -> Result<Ports, LaunchError> {
        bring_up(config, None)
    }

    /// A port; `None` for one without a device. Host taps come behind the configured ones.
    pub fn port(&self, number: usize) -> Option<&Port> {
        self.up.get(number)?.as_ref()
    }

    /// Mbufs in the pool: (free, all).
    pub fn pool(&self) -> (u32, u32) {
        (self.pool.avail(), self.pool.size())
    }

    /// What the drivers of the configured ports tell of their wires and of frames lost on them. The
    /// link of a sub-interface is its parent's.
    pub fn wires(&self, config: &Config) -> Vec<Wire> {
        let wire = |(number, named): (usize, &config::Port)| Wire {
            link: self.link(named.vlan.map_or(number, |vlan| vlan.parent), config),
            ..self.port(number).and_then(Port::stats).map(losses).unwrap_or_default()
        };
        config.ports.iter().enumerate().map(wire).collect()
    }

    /// `None` where it cannot be seen: the kernel's end of a `net_tap` may be in another network
    /// namespace.
    fn link(&self, number: usize, config: &Config) -> Option<WireLink> {
        let blind = config.ports.get(number)?.device.starts_with("net_tap");
        let link = self.port(number).filter(|_| !blind)?.link()?;
        Some(WireLink {
            up: link.up,
            // Drivers say 0 where there is no link.
            speed_mbps: link.speed_mbps.filter(|&speed| link.up && speed > 0),
            full_duplex: link.full_duplex,
        })
    }
}

fn losses(stats: PortStats) -> Wire {
    Wire {
        link: None,
        rx_missed: stats.imissed,
        rx_errors: stats.ierrors,
        rx_no_mbuf: stats.rx_nombuf,
    }
}

impl Launched {
    /// Runs `job` on the lcore of worker `number`.
    ///
    /// # Errors
    /// If EAL does not start it.
    pub fn start<F>(&self, number: usize, job: F) -> Result<LcoreHandle<()>, LaunchError>
    where
        F: FnOnce() + Send + 'static,
    {
        self.eal.launch(LcoreId(number as u32 + 1), job).map_err(LaunchError::Lcore)
    }

    /// Stops the ports and EAL and removes what EAL leaves behind. Every mbuf has to be back in
    /// the pool by then: the workers have ended. Those that are not are reported as an error.
    pub fn shut_down(self) {
        let Launched { eal, ports: Ports { up, pool, io, .. } } = self;
        drop((up, io));
        let (free, all) = (pool.avail(), pool.size());
        if free != all {
            log::error!("{} of {all} packet buffers did not come back", all - free);
        }
        drop((pool, eal));
        remove_runtime_files();
    }

    /// Ends the process, exit code 1, with a worker still running: its ports, frames and memory
    /// stay until the kernel takes them with the process; only EAL's files are removed.
    pub fn abandon(self) -> ! {
        std::mem::forget(self);
        remove_runtime_files();
        std::process::exit(1)
    }
}

/// Removes EAL's files, which nobody reads after the process; EAL leaves them.
fn remove_runtime_files() {
    if let Some(folder) = Eal::runtime_dir() {
        // What cannot be removed is taken over by the next process of the same prefix.
        let _ = fs::remove_dir_all(folder);
    }
}

fn is_quiet(config: &Config) -> bool {
    config.log_level < log::LevelFilter::Debug
}

/// Refuses what EAL would refuse in words of its own, or die of.
fn demand_machine(config: &Config) -> Result<(), LaunchError> {
    let eal = &config.eal;
    let cpus = std::iter::once(("control_core", eal.control_core))
        .chain(eal.worker_cores.iter().map(|&cpu| ("worker_cores", cpu)));
    for (key, cpu) in cpus {
        let known = format!("/sys/devices/system/cpu/cpu{cpu}/topology/core_id");
        if !Path::new(&known).exists() {
            return Err(LaunchError::NoCpu { key, cpu });
        }
    }
    let machine_mb = sizes::ram_bytes() >> 20;
    if u64::from(eal.memory_mb) > machine_mb {
        return Err(LaunchError::NoMemory { wanted_mb: eal.memory_mb, machine_mb });
    }
    Ok(())
}

/// As many mbufs as the configuration names, no fewer; else as many as are needed, or as memory has
/// room for: without huge pages each takes a page.
fn pool(config: &Config, queues: &[Queues]) -> Result<Mempool, LaunchError> {
    let memory_mb = config.eal.memory_mb;
    let create = |mbufs| Mempool::create("sluicegate", mbufs, POOL_CACHE, DATA_ROOM, None);
    let failed = |error| LaunchError::Pool { error, memory_mb };
    if let Some(mbufs) = config.eal.mbufs {
        return create(mbufs).map_err(failed);
    }
    let (needed, least) = (mbufs_needed(config, queues), mbufs_least(config, queues));
    let mut mbufs = needed;
    loop {
        match create(mbufs) {
            Ok(pool) => {
                if mbufs < needed {
                    log::info!(
                        "memory_mb = {memory_mb} has room for {mbufs} packet buffers; {needed} \
                         are what queues and workers can hold at once"
                    );
                }
                return Ok(pool);
            }
            Err(PoolError::Create { errno, .. }) if errno.0 == ENOMEM && mbufs / 4 * 3 >= least => {
                mbufs = mbufs / 4 * 3;
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

const ENOMEM: i32 = 12;

/// Mbufs without which a queue would starve: those that lie in receive descriptors and caches, and
/// some for the way.
fn mbufs_least(config: &Config, queues: &[Queues]) -> u32 {
    let received = |(port, queues): (&config::Port, &Queues)| {
        u32::from(queues.rx) * u32::from(port.rx_descriptors)
    };
    let taps = config.ports.iter().filter(|p| p.host_tap.is_some()).count() as u32;
    let workers = config.eal.worker_cores.len() as u32;
    let received: u32 = config.ports.iter().zip(queues).map(received).sum();
    received + taps * u32::from(TAP_DESCRIPTORS) + workers * POOL_CACHE * 2 + 4096
}

/// Mbufs for all descriptors, what is held, handed over and cached, and bursts under way. `queues`
/// are those of each port.
fn mbufs_needed(config: &Config, queues: &[Queues]) -> u32 {
    let descriptors = config.ports.iter().zip(queues).map(|(port, queues)| {
        let of = |queues: u16, each: u16| u32::from(queues) * u32::from(each);
        of(queues.rx, port.rx_descriptors) + of(queues.tx, port.tx_descriptors)
    });
    let workers = config.eal.worker_cores.len() as u32;
    let devices = config.ports.iter().filter(|p| p.has_device()).count() as u32;
    let taps = config.ports.iter().filter(|p| p.host_tap.is_some()).count() as u32;
    let under_way = (BURST_MAX as u32 * 4 + 512) * (devices + taps);
    // For each lcore one ring to it that is full: it is behind, and whoever hands to it drops soon.
    let handed_over = if workers > 1 { rings::RING_MAX as u32 } else { 0 };
    let each = under_way + handed_over + POOL_CACHE * 4;
    let descriptors = descriptors.sum::<u32>() + taps * 2 * u32::from(TAP_DESCRIPTORS);
    (descriptors * 2 + each * workers).max(8191) + fragments_held(config)
}

/// Fragments that all workers together hold at most.
fn fragments_held(config: &Config) -> u32 {
    let knobs = &config.conntrack.knobs;
    let cost = knobs.ipfrag_high_thresh.saturating_add(knobs.frag6_high_thresh);
    let most = (config.eal.worker_cores.len() * PARTS_MAX) as u64;
    (cost / u64::from(COST_OF_BUFFER)).min(most) as u32
}

/// The command line EAL gets. A worker has an lcore number of its own, so that it may share the
/// control core's CPU.
fn eal_args(config: &Config, free_kb: u64) -> Result<Vec<String>, LaunchError> {
    let eal = &config.eal;
    let wanted_kb = u64::from(eal.memory_mb) * 1024;
    let enough = free_kb >= wanted_kb;
    if eal.hugepages == Hugepages::Yes && !enough {
        return Err(LaunchError::NoHugepages { wanted_mb: eal.memory_mb, free_mb: free_kb / 1024 });
    }
    let huge = eal.hugepages != Hugepages::No && enough;
    let mut lcores = format!("0@{}", eal.control_core);
    for (number, cpu) in eal.worker_cores.iter().enumerate() {
        lcores.push_str(&format!(",{}@{cpu}", number + 1));
    }
    let mut args: Vec<String> =
        ["--lcores", &lcores, "--main-lcore", "0", "--file-prefix"].map(str::to_owned).into();
    args.push(eal.file_prefix.clone());
    let memory = eal.memory_mb.to_string();
    let words: &[&str] = if huge {
        &["--in-memory", "-m", &memory]
    } else {
        &["--no-huge", "--no-shconf", "-m", &memory]
    };
    args.extend(words.iter().map(|w| (*w).to_owned()));
    args.push("--iova-mode=va".to_owned());
    if is_quiet(config) {
        args.push("--log-level=*:4".to_owned());
    }
    for port in config.ports.iter().filter(|p| p.has_device()) {
        if is_vdev(&port.device) {
            args.push(format!("--vdev={}", port.device));
        } else {
            args.push(format!("--allow={}", port.device));
        }
    }
    args.extend(tap_devices(config).map(|(device, name)| format!("--vdev={device},iface={name}")));
    // Without a PCI device of ours the bus is left alone: EAL would take any NIC it can drive.
    let names_pci = |a: &String| {
        ["--no-pci", "-a", "--allow", "-b", "--block"]
            .iter()
            .any(|w| a.split('=').next() == Some(w))
    };
    let vdev = |p: &config::Port| !p.has_device() || is_vdev(&p.device);
    if config.ports.iter().all(vdev) && !eal.args.iter().any(names_pci) {
        args.push("--no-pci".to_owned());
    }
    args.extend(eal.args.iter().cloned());
    Ok(args)
}

/// True for `net_tap0,iface=x`, false for a PCI address.
fn is_vdev(device: &str) -> bool {
    device.starts_with(|c: char| c.is_ascii_alphabetic()) && device.contains('_')
}

fn free_hugepages_kb() -> u64 {
    let path = format!("/sys/kernel/mm/hugepages/hugepages-{HUGE_KB}kB/free_hugepages");
    let pages = fs::read_to_string(path).ok().and_then(|t| t.trim().parse::<u64>().ok());
    pages.unwrap_or(0) * HUGE_KB
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn config(eal: &str) -> Config {
        let text = format!(
            "[eal]\n{eal}\n[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
             addresses = [\"10.0.0.1/24\"]\n"
        );
        Config::parse(Path::new("t.toml"), &text, 8 << 30).unwrap()
    }

    #[test]
    fn vdevs_alone_never_touch_the_pci_bus() {
        for args in ["", "args = [\"--no-telemetry\"]", "args = [\"--no-pci\"]"] {
            let args = eal_args(&config(args), 0).unwrap();
            assert_eq!(args.iter().filter(|a| *a == "--no-pci").count(), 1, "{args:?}");
            assert!(args.contains(&"--vdev=net_null0".to_owned()));
        }
    }

    #[test]
    fn each_host_tap_is_a_vdev_with_a_number_of_its_own() {
        let text = "[[port]]\nname = \"a\"\ndevice = \"net_tap1,iface=x\"\nhost_tap = \"ha\"\n\
                    [[port]]\nname = \"b\"\ndevice = \"net_tap0\"\n\
                    [[port]]\nname = \"c\"\ndevice = \"net_null0\"\nhost_tap = \"hc\"\n";
        let config = Config::parse(Path::new("t.toml"), text, 8 << 30).unwrap();
        let args = eal_args(&config, 0).unwrap();
        let vdevs: Vec<_> = args.iter().filter_map(|a| a.strip_prefix("--vdev=")).collect();
        let expected = ["net_tap1,iface=x", "net_tap0", "net_null0"];
        assert_eq!(vdevs[..3], expected);
        assert_eq!(vdevs[3..], ["net_tap2,iface=ha", "net_tap3,iface=hc"]);
    }

    #[test]
    fn hugepages_are_used_if_there_are_enough_and_demanded_if_asked_for() {
        let has = |eal: &str, free, word: &str| {
            eal_args(&config(eal), free).unwrap().iter().any(|a| a == word)
        };
        assert!(has("", 512 << 10, "--in-memory"));
        assert!(has("", 511 << 10, "--no-huge"));
        assert!(has("hugepages = false", 512 << 10, "--no-huge"));
        let error = eal_args(&config("hugepages = true"), 0).unwrap_err();
        assert!(error.to_string().contains("vm.nr_hugepages"), "{error}");
    }

    /// MiB that the mbufs take of a default configuration with so many workers and two ports, each
    /// with a pair of queues for each worker.
    fn mbufs_mb(workers: u16) -> u64 {
        let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
                    [[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n";
        let cores: Vec<u16> = (1..=workers).collect();
        let text = format!("[eal]\nworker_cores = {cores:?}\n{text}");
        let config = Config::parse(Path::new("t.toml"), &text, 8 << 30).unwrap();
        assert_eq!(config.eal.memory_mb, 512);
        let queues = Queues { rx: workers, tx: workers };
        let mbufs = mbufs_needed(&config, &[queues, queues]);
        // The head of the mempool's object, struct rte_mbuf, and the room for the frame.
        (u64::from(mbufs) * (64 + 128 + u64::from(DATA_ROOM))) >> 20
    }

    #[test]
    fn the_default_memory_holds_the_buffers_of_many_workers() {
        assert_eq!(mbufs_mb(1), 28);
        // The rest is for rings, queues and EAL itself.
        for workers in [2, 4, 8, 12] {
            assert!(mbufs_mb(workers) < 400, "{workers} workers: {} MiB", mbufs_mb(workers));
        }
        assert!(mbufs_mb(2) < mbufs_mb(3));
        let config = config("worker_cores = [0, 1]");
        let queues: Vec<Queues> = config.ports.iter().map(|_| Queues { rx: 2, tx: 2 }).collect();
        assert!(mbufs_least(&config, &queues) < mbufs_needed(&config, &queues) / 2);
    }

    #[test]
    fn each_of_a_drivers_losses_has_its_name() {
        let stats = PortStats { imissed: 1, ierrors: 2, rx_nombuf: 3, ..PortStats::default() };
        let wire = losses(stats);
        assert_eq!((wire.rx_missed, wire.rx_errors, wire.rx_no_mbuf), (1, 2, 3));
    }

    #[test]
    fn a_worker_may_share_the_control_cores_cpu() {
        let args = eal_args(&config("control_core = 1\nworker_cores = [1]"), 0).unwrap();
        assert!(args.contains(&"0@1,1@1".to_owned()));
    }
}
