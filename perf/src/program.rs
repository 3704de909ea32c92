//! What every measured program has in common: a plan to be started with, counters, and an end.
//!
//! A program is started for one window and ended after it, so that no program ever shares the
//! forwarding CPU with another and each window has its own layout of memory.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::frame::Kind;
use crate::ovs::{Ovs, Tuning};
use crate::process::{Failure, WORKER_CPU};
use crate::sluicegate::Sluicegate;
use crate::testpmd::Testpmd;
use crate::vpp::Vpp;

/// Frames per burst, in every program.
pub(crate) const BURST: usize = 32;
/// Captures of more conns than this get no more mbufs than they need.
const MANY_CONNS: usize = 64 * 1024;
/// Descriptors per queue, in every program.
pub(crate) const DESCRIPTORS: usize = 1024;

/// The work that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Workload {
    /// From port to port without state.
    Forward,
    /// Stateful accept; only clients send, so UDP conns stay NEW.
    Firewall,
    /// Stateful accept and source translation; only clients send.
    Snat,
    /// As firewall, with the replies: all conns are established.
    FirewallBoth,
    /// As SNAT, with the replies: all conns are established.
    SnatBoth,
}

impl Workload {
    /// Whether replies are offered too.
    pub(crate) fn both_ways(self) -> bool {
        matches!(self, Self::FirewallBoth | Self::SnatBoth)
    }

    /// Whether conns are tracked.
    pub(crate) fn stateful(self) -> bool {
        self != Self::Forward
    }

    /// The addresses that clients' sources become: eight, or one where replies must be written
    /// beforehand and so the translation must be known.
    pub(crate) fn pool(self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let last = match self {
            Self::Forward | Self::Firewall | Self::FirewallBoth => return None,
            Self::Snat => 8,
            Self::SnatBoth => 1,
        };
        Some((Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(198, 51, 100, last)))
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Firewall => "firewall",
            Self::Snat => "snat",
            Self::FirewallBoth => "firewall-both",
            Self::SnatBoth => "snat-both",
        })
    }
}

/// A measured program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Program {
    /// DPDK's own test forwarder, swapping MAC addresses: the floor of the rig.
    Testpmd,
    /// The same, swapping MAC addresses, IP addresses and ports: the floor of a rewrite.
    Swap,
    /// Open vSwitch with the DPDK datapath.
    Ovs,
    /// VPP with nat44-ed over its own packet generator.
    Vpp,
    /// The product; not a peer.
    #[value(skip)]
    Sluicegate,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Testpmd => "testpmd macswap",
            Self::Swap => "testpmd 5tswap",
            Self::Ovs => "OVS-DPDK",
            Self::Vpp => "VPP",
            Self::Sluicegate => "Sluicegate",
        })
    }
}

impl Program {
    /// Starts the program; when this returns, it forwards what is offered.
    pub(crate) fn start(self, plan: &Plan<'_>) -> Result<Box<dyn Running>, Failure> {
        Ok(match self {
            Self::Testpmd => Box::new(Testpmd::start(plan, "macswap")?),
            Self::Swap => Box::new(Testpmd::start(plan, "5tswap")?),
            Self::Ovs => Box::new(Ovs::start(plan)?),
            Self::Vpp => Box::new(Vpp::start(plan)?),
            Self::Sluicegate => Box::new(Sluicegate::start(plan)?),
        })
    }

    /// Whether the program keeps conns in this work.
    pub(crate) fn tracks(self, workload: Workload) -> bool {
        !self.floor() && workload.stateful()
    }

    /// Whether it forwards without any state, whatever the work.
    pub(crate) fn floor(self) -> bool {
        matches!(self, Self::Testpmd | Self::Swap)
    }

    /// The name of its scratch directory.
    pub(crate) fn directory(self) -> &'static str {
        match self {
            Self::Testpmd | Self::Swap => "testpmd",
            Self::Ovs => "ovs",
            Self::Vpp => "vpp",
            Self::Sluicegate => "sluicegate",
        }
    }
}

/// What a program is started for.
pub(crate) struct Plan<'a> {
    pub(crate) workload: Workload,
    /// The kind of frames in the captures.
    pub(crate) kind: Kind,
    /// Conns offered, one frame each.
    pub(crate) conns: usize,
    /// Capture of what clients send.
    pub(crate) originals: &'a Path,
    /// Capture of the replies, for work in both directions.
    pub(crate) replies: &'a Path,
    /// Where the frames go.
    pub(crate) sink: Sink,
    /// A directory of this program's own.
    pub(crate) scratch: PathBuf,
    /// The product's binary.
    pub(crate) sluicegate: &'a Path,
    /// Workers and queues; `None` is one worker and one queue pair per port, as above.
    pub(crate) wires: Option<Wires>,
    /// How the switch caches what it looked up.
    pub(crate) tuning: Tuning,
    /// Counts the program's instructions: where callgrind's files go.
    pub(crate) callgrind: Option<PathBuf>,
}

/// Which workers there are, and what arrives at which queue.
#[derive(Clone, Debug)]
pub(crate) struct Wires {
    /// The CPU of each worker.
    pub(crate) cpus: Vec<u32>,
    pub(crate) lan: Wire,
    pub(crate) wan: Wire,
}

/// What arrives at one port: a capture for each of its receive queues.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) captures: Vec<PathBuf>,
    /// Replayed again and again; the driver loses buffers if one of the captures is empty then.
    pub(crate) endless: bool,
}

impl Wire {
    /// The vdev; it has as many queues to send by, and drops what is sent.
    fn device(&self, name: &str) -> String {
        let captures = self.captures.iter().map(|file| format!(",rx_pcap={}", file.display()));
        let end = if self.endless { ",infinite_rx=1" } else { "" };
        format!("{name}{}{end}", captures.collect::<String>())
    }
}

/// Where the frames go.
pub(crate) enum Sink {
    /// The capture is replayed without end; what is sent vanishes.
    Nowhere,
    /// What is sent on the outside port is written to a file, and what is sent on the inside one
    /// to another. The capture is replayed once, or without end where the first frames are lost: by
    /// a program that forwards before it knows its tables, or as replies that come too early.
    Capture { file: PathBuf, endless: bool },
    /// Nothing is replayed: the devices are shared memory that somebody else connects to by sockets
    /// in this directory ([`memif`]).
    Memif(PathBuf),
}

/// The sockets of the inside and the outside memif in a directory.
pub(crate) fn memif(directory: &Path) -> [PathBuf; 2] {
    ["lan.memif", "wan.memif"].map(|name| directory.join(name))
}

/// The memif `name` that waits at `socket`.
fn memif_device(name: &str, socket: &Path) -> String {
    format!("{name},role=server,id=0,socket={},socket-abstract=no", socket.display())
}

/// Beside the capture of what leaves the outside port: what leaves the inside one.
pub(crate) fn back(sent: &Path) -> PathBuf {
    sent.with_extension("back.pcap")
}

impl Plan<'_> {
    /// The vdev of the inside port.
    pub(crate) fn lan_device(&self) -> String {
        if let Some(wires) = &self.wires {
            return wires.lan.device("net_pcap0");
        }
        let file = self.originals.display();
        match &self.sink {
            Sink::Memif(directory) => memif_device("net_memif0", &memif(directory)[0]),
            Sink::Capture { endless: false, .. } => format!("net_pcap0,rx_pcap={file}"),
            Sink::Capture { file: sent, .. } if self.workload.both_ways() => {
                let sent = back(sent);
                format!("net_pcap0,rx_pcap={file},tx_pcap={},infinite_rx=1", sent.display())
            }
            _ => format!("net_pcap0,rx_pcap={file},infinite_rx=1"),
        }
    }

    /// The vdev of the outside port.
    pub(crate) fn wan_device(&self) -> String {
        if let Some(wires) = &self.wires {
            return wires.wan.device("net_pcap1");
        }
        let replies = self.replies.display();
        match &self.sink {
            Sink::Memif(directory) => memif_device("net_memif1", &memif(directory)[1]),
            Sink::Capture { file, .. } if self.workload.both_ways() => {
                format!("net_pcap1,rx_pcap={replies},tx_pcap={},infinite_rx=1", file.display())
            }
            Sink::Capture { file, .. } => format!("net_pcap1,tx_pcap={}", file.display()),
            Sink::Nowhere if self.workload.both_ways() => {
                format!("net_pcap1,rx_pcap={replies},infinite_rx=1")
            }
            Sink::Nowhere => "net_null1,no-rx=1".to_owned(),
        }
    }

    /// The CPU of each worker.
    pub(crate) fn cpus(&self) -> Vec<u32> {
        self.wires.as_ref().map_or_else(|| vec![WORKER_CPU], |wires| wires.cpus.clone())
    }

    /// Queue pairs of the inside and the outside port.
    pub(crate) fn queues(&self) -> (usize, usize) {
        let of = |wires: &Wires| (wires.lan.captures.len(), wires.wan.captures.len());
        self.wires.as_ref().map_or((1, 1), of)
    }

    /// Mbufs that hold both captures and all queues, with room: the driver asks for more than a
    /// capture has packets.
    pub(crate) fn mbufs(&self) -> usize {
        if self.wires.is_some() || self.callgrind.is_some() {
            // About what a gateway takes by itself. Buffers that one lcore fills and another frees
            // go round through all of a pool: a larger one would be measured as cache misses.
            return self.conns * 2 + 12 * 1024;
        }
        if self.conns > MANY_CONNS {
            return self.conns * if self.workload.both_ways() { 2 } else { 1 } + 16 * 1024;
        }
        (self.conns * 2 + 16 * 1024).next_power_of_two().max(64 * 1024)
    }

    /// DPDK's file prefix of a program of `name`: with the number of this process, so that
    /// benchmarks at the same time do not meet in one runtime directory.
    pub(crate) fn prefix(&self, name: &str) -> String {
        let rig = match &self.sink {
            _ if self.callgrind.is_some() => "-counts",
            Sink::Memif(_) => "-memif",
            _ => "",
        };
        file_prefix(&format!("{name}{rig}"))
    }

    /// MiB of memory for the mbufs, the table and all else.
    pub(crate) fn memory_mb(&self) -> usize {
        (self.mbufs() * 2560 / (1 << 20) + 384).max(1024)
    }
}

/// Totals since the start of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Frames received on both ports.
    pub(crate) rx: u64,
    /// Frames sent on both ports.
    pub(crate) tx: u64,
    /// Frames the program says it dropped.
    pub(crate) dropped: u64,
    /// Frames that one worker handed over to another.
    pub(crate) handed: u64,
    /// Of the dropped ones, those that found no room on the way to another worker.
    pub(crate) no_room: u64,
}

/// A program that forwards. Dropping it ends it and removes what it left.
pub(crate) trait Running {
    /// Its process id.
    fn pid(&self) -> u32;
    /// Where it complains.
    fn log(&self) -> &Path;
    /// Frames in and out, now.
    fn counters(&mut self) -> Result<Counters, Failure>;
    /// Conns in its table; 0 for a program without one.
    fn conns(&mut self) -> Result<u64, Failure>;
    /// Conns whose replies go to an address between `first` and `last`.
    fn translated(&mut self, first: Ipv4Addr, last: Ipv4Addr) -> Result<u64, Failure>;
}

/// Counts the lines of a conntrack listing whose second address after `key` (the reply's
/// destination) is in the pool.
pub(crate) fn count_translated(listing: &str, key: &str, first: Ipv4Addr, last: Ipv4Addr) -> u64 {
    let reply_dst = |line: &str| -> Option<Ipv4Addr> {
        let rest = line.split(key).nth(2)?;
        let end = rest.find([',', ')', ' ']).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    let inside = |line: &&str| reply_dst(line).is_some_and(|dst| (first..=last).contains(&dst));
    listing.lines().filter(inside).count() as u64
}

/// DPDK's file prefix of a program that this process starts, or of itself.
pub(crate) fn file_prefix(name: &str) -> String {
    format!("sluicegate-perf-{name}-{}", std::process::id())
}

/// DPDK's runtime directory of a file prefix, which every run leaves behind; removed when dropped.
/// Declare it after the daemon, so that it goes last.
pub(crate) struct RuntimeDirectory(pub(crate) String);

impl Drop for RuntimeDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new("/run/dpdk").join(&self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn translated_conns_are_counted_in_both_formats() {
        let (first, last) = Workload::Snat.pool().unwrap();
        let ovs = "udp,orig=(src=10.1.110.175,dst=198.18.17.127,sport=1201,dport=46133),\
                   reply=(src=198.18.17.127,dst=198.51.100.8,sport=46133,dport=1201)\n\
                   udp,orig=(src=10.1.110.175,dst=198.18.17.127,sport=1201,dport=46133),\
                   reply=(src=198.18.17.127,dst=10.1.110.175,sport=46133,dport=1201)\n";
        assert_eq!(count_translated(ovs, "dst=", first, last), 1);
        let lines = "udp      17 29 src=10.1.0.2 dst=198.18.0.9 sport=1 dport=2 [UNREPLIED] \
                     src=198.18.0.9 dst=198.51.100.1 sport=2 dport=1 mark=0 use=1\n\
                     udp      17 29 src=10.1.0.2 dst=198.18.0.9 sport=1 dport=2 [UNREPLIED] \
                     src=198.18.0.9 dst=198.51.100.9 sport=2 dport=1 mark=0 use=1\n";
        assert_eq!(count_translated(lines, "dst=", first, last), 1);
    }
}
