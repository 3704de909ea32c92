//! Open vSwitch with its DPDK datapath, driven by its own tools.
//!
//! Database, sockets and logs live in the scratch directory, so a system's own Open vSwitch is
//! neither used nor disturbed. The OpenFlow tables are the cheapest that do the work, in the peer's
//! favour: it neither routes nor rewrites MAC addresses nor decrements the TTL.
//!
//! For a translation in one direction `ct(commit,table=1,nat(..))` asks the tracker once per packet
//! and was measured to take half the cycles of the usual two steps (look up, then commit what is
//! new), so it is used; for stateful accept the two steps are as fast or faster and are used.

use std::fmt;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::frame::Kind;
use crate::process::{CONTROL_CPU, Daemon, Failure, WORKER_CPU, run, wait_until};
use crate::program::{
    Counters, DESCRIPTORS, Plan, Running, RuntimeDirectory, Workload, count_translated,
};

const PREFIX: &str = "ovs";
const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const OVSDB: &str = "/usr/sbin/ovsdb-server";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const PATIENCE: Duration = Duration::from_secs(20);
/// OpenFlow numbers of the inside and the outside port.
const LAN: u32 = 1;
const WAN: u32 = 2;

/// How the switch caches what it looked up: settings its users choose by the number of conns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// As installed: the exact match cache gets a hundredth of the misses.
    #[default]
    Stock,
    /// The signature match cache as well.
    Signatures,
    /// The signature match cache and no exact match cache.
    SignaturesOnly,
    /// The exact match cache gets every miss.
    Exact,
}

impl Tuning {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Stock, Self::Signatures, Self::SignaturesOnly, Self::Exact];

    /// As words of `ovs-vsctl set Open_vSwitch`.
    fn words(self) -> &'static [&'static str] {
        const NO_EXACT: &str = "other_config:emc-insert-inv-prob=0";
        const ALL_EXACT: &str = "other_config:emc-insert-inv-prob=1";
        const SIGNATURES: &str = "other_config:smc-enable=true";
        match self {
            Self::Stock => &[],
            Self::Signatures => &[SIGNATURES],
            Self::SignaturesOnly => &[SIGNATURES, NO_EXACT],
            Self::Exact => &[ALL_EXACT],
        }
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stock => "as installed",
            Self::Signatures => "smc-enable=true",
            Self::SignaturesOnly => "smc-enable=true, emc-insert-inv-prob=0",
            Self::Exact => "emc-insert-inv-prob=1",
        })
    }
}

/// A running switch. Fields end in their order: the switch before its database.
pub(crate) struct Ovs {
    vswitchd: Daemon,
    _database: Daemon,
    place: Place,
    _runtime: RuntimeDirectory,
}

/// The private directory and how tools reach what runs in it.
struct Place(PathBuf);

impl Ovs {
    /// Starts database and switch, adds the ports and the OpenFlow tables.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self, Failure> {
        if !Path::new(VSWITCHD).exists() {
            let cure = "apt-get install openvswitch-switch-dpdk".to_owned();
            return Err(Failure::Missing { what: VSWITCHD.to_owned(), cure });
        }
        let place = Place(plan.scratch.clone());
        let database = place.start_database()?;
        place.configure(plan)?;
        let args = [
            format!("unix:{}", place.file("db.sock")),
            format!("--pidfile={}", place.file("vswitchd.pid")),
            format!("--unixctl={}", place.file("vswitchd.ctl")),
            format!("--log-file={}", place.file("vswitchd.log")),
        ];
        let log = place.0.join("vswitchd.err");
        let vswitchd = Daemon::start(Path::new(VSWITCHD), &args, &place.environment(), &log)?;
        let runtime = RuntimeDirectory(plan.prefix(PREFIX));
        let ovs = Self { vswitchd, _database: database, place, _runtime: runtime };
        ovs.place.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev fail-mode=secure")?;
        ovs.place.add_port("wan", WAN, &plan.wan_device())?;
        ovs.place.load_tables(&tables(plan.workload, plan.kind))?;
        ovs.place.add_port("lan", LAN, &plan.lan_device())?;
        Ok(ovs)
    }
}

impl Place {
    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn environment(&self) -> Vec<(&'static str, &Path)> {
        ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].map(|name| (name, self.0.as_path())).into()
    }

    fn tool(&self, name: &str) -> Command {
        let mut tool = Command::new(name);
        tool.envs(self.environment());
        tool
    }

    fn start_database(&self) -> Result<Daemon, Failure> {
        let _ = fs::remove_dir_all(&self.0);
        fs::create_dir_all(&self.0).map_err(Failure::io(self.0.display()))?;
        let file = self.file("conf.db");
        run(self.tool("ovsdb-tool").args(["create", &file, SCHEMA]))?;
        let socket = self.0.join("db.sock");
        let args = [
            file,
            format!("--remote=punix:{}", socket.display()),
            format!("--pidfile={}", self.file("ovsdb.pid")),
            format!("--unixctl={}", self.file("ovsdb.ctl")),
            format!("--log-file={}", self.file("ovsdb.log")),
        ];
        let log = self.0.join("ovsdb.err");
        let database = Daemon::start(Path::new(OVSDB), &args, &self.environment(), &log)?;
        wait_until(PATIENCE, "ovsdb-server has no socket", &log, || Ok(socket.exists()))?;
        Ok(database)
    }

    fn configure(&self, plan: &Plan<'_>) -> Result<(), Failure> {
        let mask = |cpu: u32| format!("0x{:x}", 1 << cpu);
        self.vsctl("--no-wait init")?;
        let settings = [
            "other_config:dpdk-init=true".to_owned(),
            format!("other_config:dpdk-lcore-mask={}", mask(CONTROL_CPU)),
            format!("other_config:pmd-cpu-mask={}", mask(WORKER_CPU)),
            format!("other_config:dpdk-socket-mem={}", plan.memory_mb()),
            format!(
                "other_config:dpdk-extra=--no-pci --in-memory --file-prefix={}",
                plan.prefix(PREFIX)
            ),
        ];
        let mut words = vec!["--no-wait", "set", "Open_vSwitch", "."];
        words.extend(settings.iter().map(String::as_str));
        words.extend(plan.tuning.words());
        self.vsctl_words(&words)
    }

    fn vsctl(&self, words: &str) -> Result<(), Failure> {
        self.vsctl_words(&words.split(' ').collect::<Vec<_>>())
    }

    fn vsctl_words(&self, words: &[&str]) -> Result<(), Failure> {
        let mut tool = self.tool("ovs-vsctl");
        tool.arg(format!("--db=unix:{}", self.file("db.sock")));
        run(tool.arg("--timeout=20").args(words)).map(drop)
    }

    /// Adds a DPDK port; `ovs-vsctl` waits for the switch but not for success, so that is asked.
    fn add_port(&self, name: &str, number: u32, device: &str) -> Result<(), Failure> {
        self.vsctl_words(&[
            "add-port",
            "br0",
            name,
            "--",
            "set",
            "Interface",
            name,
            "type=dpdk",
            &format!("ofport_request={number}"),
            &format!("options:dpdk-devargs=\"{device}\""),
            &format!("options:n_rxq_desc={DESCRIPTORS}"),
            &format!("options:n_txq_desc={DESCRIPTORS}"),
        ])?;
        let log = self.0.join("vswitchd.log");
        let what = format!("Open vSwitch did not open {device}");
        wait_until(Duration::from_secs(5), what, &log, || {
            Ok(port_counters(&self.dump_ports()?, number).is_some())
        })
    }

    fn load_tables(&self, tables: &str) -> Result<(), Failure> {
        let file = self.file("tables");
        fs::write(&file, tables).map_err(Failure::io(&file))?;
        let bridge = self.file("br0.mgmt");
        let words = ["-O", "OpenFlow15", "replace-flows", &bridge, &file];
        run(self.tool("ovs-ofctl").args(words)).map(drop)
    }

    fn dump_ports(&self) -> Result<String, Failure> {
        run(self.tool("ovs-ofctl").args(["--no-names", "dump-ports", &self.file("br0.mgmt")]))
    }

    fn appctl(&self, words: &[&str]) -> Result<String, Failure> {
        let target = format!("--target={}", self.file("vswitchd.ctl"));
        run(self.tool("ovs-appctl").arg(target).args(words))
    }
}

/// The OpenFlow tables of a workload. What no line accepts is dropped.
fn tables(workload: Workload, kind: Kind) -> String {
    let ip = if kind.v6() { "ipv6" } else { "ip" };
    let nat = workload.pool().map(|(first, last)| match first == last {
        true => format!("nat(src={first})"),
        false => format!("nat(src={first}-{last})"),
    });
    let nat = nat.unwrap_or_default();
    let lines = match workload {
        Workload::Forward => vec![format!("in_port={LAN},actions=output:{WAN}")],
        Workload::Firewall => vec![
            format!("in_port={LAN},{ip},actions=ct(table=1)"),
            format!("table=1,ct_state=+trk+new,{ip},actions=ct(commit),output:{WAN}"),
            format!("table=1,ct_state=+trk+est,{ip},actions=output:{WAN}"),
        ],
        Workload::Snat => vec![
            format!("in_port={LAN},{ip},actions=ct(commit,table=1,{nat})"),
            format!("table=1,ct_state=+trk-inv,{ip},actions=output:{WAN}"),
        ],
        Workload::FirewallBoth => both_ways(ip, "", "ct(commit)"),
        Workload::SnatBoth => both_ways(ip, ",nat", &format!("ct(commit,{nat})")),
    };
    lines.join("\n") + "\n"
}

/// Clients may open conns, servers may only answer.
fn both_ways(ip: &str, lookup: &str, commit: &str) -> Vec<String> {
    vec![
        format!("{ip},actions=ct(table=1{lookup})"),
        format!("table=1,in_port={LAN},ct_state=+trk+new,{ip},actions={commit},output:{WAN}"),
        format!("table=1,in_port={LAN},ct_state=+trk+est,{ip},actions=output:{WAN}"),
        format!("table=1,in_port={WAN},ct_state=+trk+est,{ip},actions=output:{LAN}"),
    ]
}

impl Running for Ovs {
    fn pid(&self) -> u32 {
        self.vswitchd.pid()
    }

    fn log(&self) -> &Path {
        self.vswitchd.log()
    }

    fn counters(&mut self) -> Result<Counters, Failure> {
        let text = self.place.dump_ports()?;
        let ports = [LAN, WAN].map(|number| port_counters(&text, number));
        let [Some(lan), Some(wan)] = ports else {
            return Err(Failure::Answer { what: "port counters".to_owned(), text });
        };
        let dropped = lan.dropped + wan.dropped;
        Ok(Counters { rx: lan.rx + wan.rx, tx: lan.tx + wan.tx, dropped, ..Counters::default() })
    }

    fn conns(&mut self) -> Result<u64, Failure> {
        let text = self.place.appctl(&["dpctl/ct-get-nconns"])?;
        let answer =
            |_| Failure::Answer { what: "the number of conns".to_owned(), text: text.clone() };
        text.trim().parse().map_err(answer)
    }

    fn translated(&mut self, first: Ipv4Addr, last: Ipv4Addr) -> Result<u64, Failure> {
        let listing = self.place.appctl(&["dpctl/dump-conntrack"])?;
        Ok(count_translated(&listing, "dst=", first, last))
    }
}

/// Counters of one port from the text of `ovs-ofctl dump-ports`.
fn port_counters(text: &str, number: u32) -> Option<Counters> {
    let start = text.find(&format!("port {number:>2}:"))?;
    let block = &text[start..];
    let tx_at = block.find("tx pkts=")?;
    let value = |part: &str, key: &str| -> Option<u64> {
        let rest = &part[part.find(key)? + key.len()..];
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse().ok()
    };
    let (rx, tx) = (&block[..tx_at], &block[tx_at..]);
    Some(Counters {
        rx: value(rx, "rx pkts=")?,
        tx: value(tx, "tx pkts=")?,
        dropped: value(rx, "drop=")? + value(tx, "drop=")?,
        ..Counters::default()
    })
}

impl Drop for Ovs {
    fn drop(&mut self) {
        let _ = self.place.appctl(&["exit"]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_statistics_are_read() {
        let text = "OFPST_PORT reply (xid=0x2): 3 ports\n  \
            port  1: rx pkts=45425984, bytes=2725559040, drop=3, errs=0, frame=?, over=?, crc=?\n  \
                     tx pkts=0, bytes=0, drop=0, errs=0, coll=?\n  \
            port LOCAL: rx pkts=9, bytes=0, drop=9, errs=0, frame=0, over=0, crc=0\n  \
                     tx pkts=9, bytes=0, drop=9, errs=0, coll=0\n  \
            port  2: rx pkts=0, bytes=0, drop=0, errs=0, frame=?, over=?, crc=?\n  \
                     tx pkts=77, bytes=0, drop=1, errs=0, coll=?\n";
        let lan = Counters { rx: 45_425_984, dropped: 3, ..Counters::default() };
        assert_eq!(port_counters(text, LAN), Some(lan));
        let wan = Counters { tx: 77, dropped: 1, ..Counters::default() };
        assert_eq!(port_counters(text, WAN), Some(wan));
        assert_eq!(port_counters(text, 3), None);
    }

    #[test]
    fn replies_are_accepted_only_for_tracked_conns() {
        let tables = tables(Workload::SnatBoth, Kind::Udp);
        assert!(
            tables.contains(
                "in_port=1,ct_state=+trk+new,ip,actions=ct(commit,nat(src=198.51.100.1))"
            )
        );
        assert!(!tables.contains("in_port=2,ct_state=+trk+new"));
    }
}
