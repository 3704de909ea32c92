//! DPDK started from the configuration: EAL arguments, mempool, ports, worker lcores.
//!
//! The only file of the control core that knows DPDK. A configured port that did not come up is an
//! error that names it: EAL itself only logs a failed vdev and goes on.

use std::fmt;
use std::fs;

use dataplane::lcore::dpdk_io::{DpdkIo, Queues};
use dpdk_bindings::{
    BURST_MAX, Eal, EalError, LcoreError, LcoreHandle, LcoreId, Mempool, PoolError, Port,
    PortConfig, PortError,
};

use crate::config::{Config, Hugepages};

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
    /// EAL.
    Eal(EalError),
    /// The packet buffers.
    Pool(PoolError),
    /// A port.
    Port {
        /// Its name in the configuration.
        name: String,
        /// What happened.
        error: PortError,
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
            LaunchError::Eal(e) => e.fmt(f),
            LaunchError::Pool(e) => e.fmt(f),
            LaunchError::Port { name, error } => write!(f, "port {name}: {error}"),
            LaunchError::NoMac(name) => write!(f, "port {name}: it has no MAC address"),
            LaunchError::Lcore(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for LaunchError {}

/// DPDK with all ports up and nothing polling them yet.
pub struct Launched {
    eal: Eal,
    ports: Vec<Port>,
    pool: Mempool,
    /// MAC addresses by port number.
    pub macs: Vec<[u8; 6]>,
    /// Per worker, the queues of each port.
    pub io: Vec<DpdkIo>,
}

/// Starts EAL, makes the mempool and brings up every configured port.
///
/// # Errors
/// See [`LaunchError`]; whatever had been started is stopped.
pub fn launch(config: &Config) -> Result<Launched, LaunchError> {
    let args = eal_args(config, free_hugepages_kb())?;
    log::debug!("EAL arguments: {}", args.join(" "));
    let eal = Eal::init(&args).map_err(LaunchError::Eal)?;
    let mbufs = config.eal.mbufs.unwrap_or_else(|| mbufs_needed(config));
    let pool = Mempool::create("sluicegate", mbufs, POOL_CACHE, DATA_ROOM, None)
        .map_err(LaunchError::Pool)?;
    let (mut ports, mut macs, mut queues) = (Vec::new(), Vec::new(), Vec::new());
    for port in &config.ports {
        let settings = PortConfig {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: port.rx_descriptors,
            tx_desc: port.tx_descriptors,
            mtu: port.mtu,
            promiscuous: port.promiscuous,
            mac: port.mac,
        };
        let device = port.device.split(',').next().unwrap_or_default();
        let failed = |error| LaunchError::Port { name: port.name.clone(), error };
        let (up, rx, tx) = Port::configure(device, &settings, &pool).map_err(failed)?;
        let unsupported = up.unsupported();
        if unsupported.mtu {
            log::warn!("port {}: the driver cannot set an MTU of {}", port.name, port.mtu);
        }
        // A driver that cannot set the address still sends and receives with ours.
        let mac = port.mac.or_else(|| up.mac());
        macs.push(mac.ok_or_else(|| LaunchError::NoMac(port.name.clone()))?);
        queues.extend(rx.into_iter().zip(tx).map(|(rx, tx)| Queues { rx, tx }));
        ports.push(up);
    }
    let io = vec![DpdkIo::new(queues, pool.clone())];
    Ok(Launched { eal, ports, pool, macs, io })
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

    /// Mbufs in the pool: (free, all).
    pub fn pool(&self) -> (u32, u32) {
        (self.pool.avail(), self.pool.size())
    }

    /// Frames that the drivers lost before anybody saw them, by port: (missed, errors, no mbuf).
    pub fn driver_losses(&self) -> Vec<(u64, u64, u64)> {
        let losses =
            |port: &Port| port.stats().map_or((0, 0, 0), |s| (s.imissed, s.ierrors, s.rx_nombuf));
        self.ports.iter().map(losses).collect()
    }

    /// Stops the ports and EAL and removes what EAL leaves behind.
    pub fn shut_down(self) {
        let runtime = self.eal.runtime_dir();
        drop((self.ports, self.io, self.pool, self.eal));
        // What cannot be removed is found by the next process of the same prefix.
        let _ = fs::remove_dir_all(runtime);
    }
}

/// Mbufs for all descriptors, what is held and cached, and bursts under way.
fn mbufs_needed(config: &Config) -> u32 {
    let rings: u32 = config
        .ports
        .iter()
        .map(|p| u32::from(p.rx_descriptors) + u32::from(p.tx_descriptors))
        .sum();
    let under_way = (BURST_MAX as u32 * 4 + 512) * config.ports.len() as u32;
    // A mempool uses its memory best with one less than a power of two.
    (rings * 2 + under_way + POOL_CACHE * 4).max(8192).next_power_of_two() - 1
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
    if config.log_level < log::LevelFilter::Debug {
        args.push("--log-level=*:4".to_owned());
    }
    for port in &config.ports {
        if is_vdev(&port.device) {
            args.push(format!("--vdev={}", port.device));
        } else {
            args.push(format!("--allow={}", port.device));
        }
    }
    // Without a PCI device of ours the bus is left alone: EAL would take any NIC it has a driver for.
    let names_pci = |a: &String| {
        ["--no-pci", "-a", "--allow", "-b", "--block"]
            .iter()
            .any(|w| a.split('=').next() == Some(w))
    };
    if config.ports.iter().all(|p| is_vdev(&p.device)) && !eal.args.iter().any(names_pci) {
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

    #[test]
    fn a_worker_may_share_the_control_cores_cpu() {
        let args = eal_args(&config("control_core = 1\nworker_cores = [1]"), 0).unwrap();
        assert!(args.contains(&"0@1,1@1".to_owned()));
    }
}
