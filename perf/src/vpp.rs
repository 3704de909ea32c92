//! VPP with nat44-ed over its own packet generator: a peer where a binary is named.
//!
//! The environment variable `SLUICEGATE_VPP` names it, with `vppctl` beside it. Written to the
//! documented command line of VPP 21.06 and later, and **untried**: Debian has no VPP. The
//! generator's stream runs on the one worker, as every figure of VPP in the design was taken, so no
//! device is between it and the first node. What leaves by the second generator port vanishes, or
//! is captured for the proof. Without the variable its rows are held against the design's figures.

use std::env;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{CONTROL_CPU, Daemon, Failure, WORKER_CPU, run, wait_until};
use crate::program::{Counters, Plan, Running, Sink};
use crate::sluicegate::colons;
use crate::traffic::{LAN_MAC, LAN_NEXT_HOP_MAC, WAN_MAC, WAN_NEXT_HOP_MAC};

const PATIENCE: Duration = Duration::from_secs(20);
/// Packets of a stream that is to run without end.
const ENDLESS: &str = "1000000000000000";

/// The binary that the environment names.
pub(crate) fn binary() -> Option<PathBuf> {
    env::var_os("SLUICEGATE_VPP").map(PathBuf::from)
}

/// A running VPP.
pub(crate) struct Vpp {
    daemon: Daemon,
    control: PathBuf,
    socket: PathBuf,
    captured: bool,
}

impl Vpp {
    /// Starts it with the work's configuration and enables the stream.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self, Failure> {
        let missing = || {
            let what = "a VPP binary".to_owned();
            Failure::Missing { what, cure: "name it in SLUICEGATE_VPP".to_owned() }
        };
        let program = binary().ok_or_else(missing)?;
        let socket = plan.scratch.join("cli.sock");
        let _ = fs::remove_file(&socket);
        for (name, text) in [("startup.conf", startup(plan, &socket)), ("setup", setup(plan))] {
            let file = plan.scratch.join(name);
            fs::write(&file, text).map_err(Failure::io(file.display()))?;
        }
        let args = ["-c".to_owned(), plan.scratch.join("startup.conf").display().to_string()];
        let log = plan.scratch.join("vpp.log");
        let daemon = Daemon::start(&program, &args, &[], &log)?;
        let control = program.with_file_name("vppctl");
        let captured = matches!(plan.sink, Sink::Capture { .. });
        let vpp = Self { daemon, control, socket, captured };
        let there = || Ok(vpp.socket.exists());
        wait_until(PATIENCE, "VPP has no command line", vpp.daemon.log(), there)?;
        if let Sink::Capture { file, .. } = &plan.sink {
            let (file, count) = (file.display().to_string(), plan.conns.to_string());
            let words = ["packet-generator", "capture", "pg1", "pcap", &file, "count", &count];
            vpp.ask(&words)?;
        }
        vpp.ask(&["packet-generator", "enable"])?;
        Ok(vpp)
    }

    fn ask(&self, words: &[&str]) -> Result<String, Failure> {
        run(Command::new(&self.control).arg("-s").arg(&self.socket).args(words))
    }
}

fn startup(plan: &Plan<'_>, socket: &Path) -> String {
    let (socket, setup) = (socket.display(), plan.scratch.join("setup"));
    format!(
        "unix {{ nodaemon cli-listen {socket} startup-config {} }}\n\
         cpu {{ main-core {CONTROL_CPU} corelist-workers {WORKER_CPU} }}\n\
         buffers {{ buffers-per-numa 65536 }}\n\
         plugins {{ plugin default {{ disable }} plugin nat_plugin.so {{ enable }} }}\n",
        setup.display()
    )
}

/// What is typed before the stream begins.
fn setup(plan: &Plan<'_>) -> String {
    let ports = [
        ("pg0", LAN_MAC, "192.168.10.1/24", "192.168.10.254", LAN_NEXT_HOP_MAC),
        ("pg1", WAN_MAC, "203.0.113.1/24", "203.0.113.254", WAN_NEXT_HOP_MAC),
    ];
    let mut lines = Vec::new();
    for (port, mac, address, next_hop, next_hop_mac) in ports {
        lines.push(format!("create packet-generator interface {port}"));
        lines.push(format!("set interface mac address {port} {}", colons(mac)));
        lines.push(format!("set interface ip address {port} {address}"));
        lines.push(format!("set interface state {port} up"));
        lines.push(format!("set ip neighbor {port} {next_hop} {}", colons(next_hop_mac)));
    }
    lines.push("ip route add 10.0.0.0/8 via 192.168.10.254 pg0".to_owned());
    lines.push("ip route add 0.0.0.0/0 via 203.0.113.254 pg1".to_owned());
    if let Some((first, last)) = plan.workload.pool() {
        let sessions = (plan.conns * 2).next_power_of_two().max(65_536);
        lines.push(format!("nat44 plugin enable sessions {sessions}"));
        lines.push(format!("nat44 add address {first} - {last}"));
        lines.push("set interface nat44 in pg0 out pg1".to_owned());
    }
    let limit = match plan.sink {
        Sink::Nowhere | Sink::Memif(_) => ENDLESS.to_owned(),
        Sink::Capture { .. } => plan.conns.to_string(),
    };
    lines.push(format!(
        "packet-generator new {{ name clients limit {limit} worker 0 interface pg0 node \
         ethernet-input pcap {} }}",
        plan.originals.display()
    ));
    lines.join("\n") + "\n"
}

impl Running for Vpp {
    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn log(&self) -> &Path {
        self.daemon.log()
    }

    fn counters(&mut self) -> Result<Counters, Failure> {
        let text = self.ask(&["show", "interface"])?;
        let of = |port, name| counter(&text, port, name);
        let (rx, tx) = (of("pg0", "rx packets"), of("pg1", "tx packets"));
        let dropped = of("pg0", "drops") + of("pg1", "drops");
        Ok(Counters { rx, tx, dropped, ..Counters::default() })
    }

    fn conns(&mut self) -> Result<u64, Failure> {
        let text = self.ask(&["show", "nat44", "summary"])?;
        let total = text.lines().find_map(|line| line.trim().strip_prefix("total sessions:"));
        let answer = || Failure::Answer { what: "total sessions".to_owned(), text: text.clone() };
        total.and_then(|number| number.trim().parse().ok()).ok_or_else(answer)
    }

    /// Every conn it keeps is translated to its pool, which is all it knows.
    fn translated(&mut self, _first: Ipv4Addr, _last: Ipv4Addr) -> Result<u64, Failure> {
        self.conns()
    }
}

/// A counter of a port from `show interface`; one that is zero is not shown.
fn counter(text: &str, port: &str, name: &str) -> u64 {
    let mut current = "";
    for line in text.lines() {
        if !line.starts_with(' ') {
            current = line.split_whitespace().next().unwrap_or("");
        }
        if current == port
            && let Some((_, value)) = line.split_once(name)
        {
            return value.trim().parse().unwrap_or(0);
        }
    }
    0
}

impl Drop for Vpp {
    fn drop(&mut self) {
        if self.captured {
            // Writes the file.
            let _ = self.ask(&["packet-generator", "capture", "pg1", "disable"]);
        }
        let _ = fs::remove_file(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_port_are_read_and_absent_ones_are_zero() {
        let text = "              Name               Idx    State  MTU (L3/IP4/IP6/MPLS)     \
                    Counter          Count     \nlocal0                            0     down  \
                    0/0/0/0       \npg0                               1      up  \
                    9000/0/0/0     rx packets               1024\n          \
                    rx bytes                61440\n          ip4                      1024\n\
                    pg1                               2      up          9000/0/0/0     \
                    tx packets               1000\n          drops                      24\n";
        assert_eq!(counter(text, "pg0", "rx packets"), 1024);
        assert_eq!(counter(text, "pg1", "tx packets"), 1000);
        assert_eq!((counter(text, "pg0", "drops"), counter(text, "pg1", "drops")), (0, 24));
    }
}
