//! Sluicegate, driven by its contract: a configuration file, `ready`, `stats --json` and
//! `conntrack -L`.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::frame::{CLIENTS6_NET, Kind, Mac};
use crate::instructions::callgrind;
use crate::process::{CONTROL_CPU, Daemon, Failure, run};
use crate::program::{
    BURST, Counters, DESCRIPTORS, Plan, Running, RuntimeDirectory, Workload, count_translated,
};
use crate::traffic::{LAN_MAC, LAN_NEXT_HOP_MAC, WAN_MAC, WAN_NEXT_HOP_MAC};

const PREFIX: &str = "dut";
const PATIENCE: Duration = Duration::from_secs(30);
/// Under callgrind.
pub(crate) const SLOW_PATIENCE: Duration = Duration::from_secs(180);

/// A running gateway.
pub(crate) struct Sluicegate {
    daemon: Daemon,
    binary: PathBuf,
    socket: PathBuf,
    _runtime: RuntimeDirectory,
}

impl Sluicegate {
    /// Writes configuration and rules, starts the gateway and waits for `ready`.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self, Failure> {
        fs::create_dir_all(&plan.scratch).map_err(Failure::io(plan.scratch.display()))?;
        let (file, socket) = (plan.scratch.join("gateway.toml"), plan.scratch.join("gateway.sock"));
        fs::write(&file, configuration(plan, &socket)).map_err(Failure::io(file.display()))?;
        for (name, text) in [("rules.v4", rules(plan.workload)), ("rules.v6", rules6(plan))] {
            let file = plan.scratch.join(name);
            fs::write(&file, text).map_err(Failure::io(file.display()))?;
        }
        let mut args = vec!["run".to_owned(), "-c".to_owned(), file.display().to_string()];
        let mut program = plan.sluicegate.display().to_string();
        if let Some(counts) = &plan.callgrind {
            let [valgrind, words @ ..] = callgrind::words(counts);
            args = words.into_iter().chain([program]).chain(args).collect();
            program = valgrind;
        }
        let log = plan.scratch.join("gateway.log");
        let mut daemon = Daemon::start(Path::new(&program), &args, &[], &log)?;
        if plan.callgrind.is_some() {
            // What was counted is written by then, and under callgrind an end takes long.
            daemon.may_end_in(Duration::ZERO);
        }
        let patience = if plan.callgrind.is_some() { SLOW_PATIENCE } else { PATIENCE };
        daemon.line(patience, |line| line == "ready")?;
        let runtime = RuntimeDirectory(plan.prefix(PREFIX));
        Ok(Self { daemon, binary: plan.sluicegate.to_path_buf(), socket, _runtime: runtime })
    }

    fn ask(&self, words: &[&str]) -> Result<String, Failure> {
        run(Command::new(&self.binary).arg("--socket").arg(&self.socket).args(words))
    }

    fn stats(&self) -> Result<Value, Failure> {
        let text = self.ask(&["stats", "--json"])?;
        let answer = |_| Failure::Answer { what: "stats".to_owned(), text: text.clone() };
        serde_json::from_str(&text).map_err(answer)
    }
}

fn configuration(plan: &Plan<'_>, socket: &Path) -> String {
    // DPDK runs under callgrind without hugepages.
    let (hugepages, mode) = match plan.callgrind {
        None => (true, "--in-memory"),
        Some(_) => (false, "--no-shconf"),
    };
    let mut text = format!(
        "[eal]\n\
         control_core = {CONTROL_CPU}\n\
         worker_cores = {:?}\n\
         hugepages = {hugepages}\n\
         memory_mb = {}\n\
         args = [\"--no-pci\", \"{mode}\"]\n\
         mbufs = {}\n\
         burst = {BURST}\n\
         file_prefix = \"{}\"\n\n",
        plan.cpus(),
        plan.memory_mb(),
        plan.mbufs(),
        plan.prefix(PREFIX)
    );
    text += &ports(plan);
    text += &routes(plan.kind);
    // The table is sized for the work and for the default of a large machine, whichever is more.
    let max = (plan.conns * 2).next_power_of_two().max(262_144);
    let _ = write!(
        text,
        "[conntrack]\nmax = {max}\nacct = false\nchecksum = true\n\n\
         [rules]\nipv4 = \"rules.v4\"\nipv6 = \"rules.v6\"\n\n\
         [control]\nsocket = \"{}\"\n",
        socket.display()
    );
    text
}

fn ports(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    let (lan_queues, wan_queues) = plan.queues();
    let [lan6, wan6] = match plan.kind.v6() {
        true => [", \"2001:db8:a::1/64\"", ", \"2001:db8:b::1/64\""],
        false => ["", ""],
    };
    let ports = [
        ("lan", plan.lan_device(), LAN_MAC, "192.168.10.1/24", lan6, lan_queues),
        ("wan", plan.wan_device(), WAN_MAC, "203.0.113.1/24", wan6, wan_queues),
    ];
    for (name, device, mac, address, address6, queues) in ports {
        let _ = write!(
            text,
            "[[port]]\n\
             name = \"{name}\"\n\
             device = \"{device}\"\n\
             mac = \"{}\"\n\
             addresses = [\"{address}\"{address6}]\n\
             rx_queues = {queues}\n\
             tx_queues = {queues}\n\
             rx_descriptors = {DESCRIPTORS}\n\
             tx_descriptors = {DESCRIPTORS}\n\n",
            colons(mac)
        );
    }
    text
}

/// Clients behind the inside port's router, everybody else behind the outside one's.
fn routes(kind: Kind) -> String {
    let mut text = String::new();
    let next_hops = match kind.v6() {
        false => [("10.0.0.0/8", "192.168.10.254"), ("0.0.0.0/0", "203.0.113.254")],
        true => [(CLIENTS6_NET, "2001:db8:a::fe"), ("::/0", "2001:db8:b::fe")],
    };
    let behind = [("lan", LAN_NEXT_HOP_MAC), ("wan", WAN_NEXT_HOP_MAC)];
    for ((to, via), (port, mac)) in next_hops.into_iter().zip(behind) {
        let _ = write!(
            text,
            "[[route]]\nto = \"{to}\"\nvia = \"{via}\"\nport = \"{port}\"\n\n\
             [[neighbour]]\naddress = \"{via}\"\nmac = \"{}\"\nport = \"{port}\"\n\n",
            colons(mac)
        );
    }
    text
}

/// The IPv6 rules: those of IPv4 without translation.
fn rules6(plan: &Plan<'_>) -> String {
    rules(if plan.workload.stateful() { Workload::Firewall } else { plan.workload })
}

/// The rule file of a workload: clients may open conns, servers may only answer.
pub(crate) fn rules(workload: Workload) -> String {
    if workload == Workload::Forward {
        return "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                -A PREROUTING -j CT --notrack\nCOMMIT\n"
            .to_owned();
    }
    let mut text = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A FORWARD -i lan -o wan -m conntrack --ctstate NEW -j ACCEPT\n\
         COMMIT\n"
        .to_owned();
    if let Some((first, last)) = workload.pool() {
        let pool = if first == last { first.to_string() } else { format!("{first}-{last}") };
        let _ = write!(
            text,
            "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :POSTROUTING ACCEPT [0:0]\n\
             -A POSTROUTING -o wan -j SNAT --to-source {pool}\nCOMMIT\n"
        );
    }
    text
}

pub(crate) fn colons(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Running for Sluicegate {
    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn log(&self) -> &Path {
        self.daemon.log()
    }

    fn counters(&mut self) -> Result<Counters, Failure> {
        counters(&self.stats()?)
    }

    fn conns(&mut self) -> Result<u64, Failure> {
        number(&self.stats()?, "/conntrack/count")
    }

    fn translated(&mut self, first: Ipv4Addr, last: Ipv4Addr) -> Result<u64, Failure> {
        let listing = self.ask(&["conntrack", "-L"])?;
        Ok(count_translated(&listing, "dst=", first, last))
    }
}

/// Frames of both ports and all drops from the object that `stats --json` prints.
fn counters(stats: &Value) -> Result<Counters, Failure> {
    let both = |field: &str| -> Result<u64, Failure> {
        let lan = number(stats, &format!("/ports/lan/{field}"))?;
        Ok(lan + number(stats, &format!("/ports/wan/{field}"))?)
    };
    let lcores = stats.pointer("/lcores").and_then(Value::as_array).into_iter().flatten();
    Ok(Counters {
        rx: both("rx_packets")?,
        tx: both("tx_packets")?,
        dropped: number(stats, "/totals/dropped")?,
        // A binary from before there were several workers has neither.
        handed: lcores.filter_map(|lcore| lcore.pointer("/handed_over")?.as_u64()).sum(),
        no_room: number(stats, "/drops/handoff").unwrap_or(0),
    })
}

fn number(stats: &Value, pointer: &str) -> Result<u64, Failure> {
    let answer = || Failure::Answer { what: pointer.to_owned(), text: stats.to_string() };
    stats.pointer(pointer).and_then(Value::as_u64).ok_or_else(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_contract_s_object_is_read() {
        let port = |rx: u64, tx: u64| json!({"rx_packets": rx, "tx_packets": tx});
        let stats = json!({
            "ports": {"lan": port(10, 1), "wan": port(2, 9)},
            "totals": {"dropped": 2},
            "drops": {"handoff": 1, "no_route": 1},
            "lcores": [{"handed_over": 3}, {"handed_over": 4}],
            "conntrack": {"count": 5},
        });
        let read = Counters { rx: 12, tx: 10, dropped: 2, handed: 7, no_room: 1 };
        assert_eq!(counters(&stats).unwrap(), read);
        assert_eq!(number(&stats, "/conntrack/count").unwrap(), 5);
        assert!(counters(&json!({"ports": {}})).is_err());
    }

    #[test]
    fn rules_follow_the_work() {
        assert!(rules(Workload::Forward).contains("--notrack"));
        assert!(!rules(Workload::Firewall).contains("*nat"));
        assert!(rules(Workload::Snat).contains("--to-source 198.51.100.1-198.51.100.8\n"));
        assert!(rules(Workload::SnatBoth).contains("--to-source 198.51.100.1\n"));
    }
}
