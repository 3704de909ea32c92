//! DPDK's testpmd as the floor of the rig: it swaps the MAC addresses, or addresses and ports too,
//! and keeps no state.
//!
//! Driven by its own prompt, as its users do.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use crate::instructions::callgrind;
use crate::process::{CONTROL_CPU, Daemon, Failure};
use crate::program::{BURST, Counters, DESCRIPTORS, Plan, Running, RuntimeDirectory};

const PREFIX: &str = "testpmd";
const PROGRAM: &str = "/usr/bin/dpdk-testpmd";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running testpmd.
pub(crate) struct Testpmd {
    daemon: Daemon,
    _runtime: RuntimeDirectory,
}

impl Testpmd {
    /// Starts it in a forwarding mode and waits until it forwards.
    pub(crate) fn start(plan: &Plan<'_>, mode: &str) -> Result<Self, Failure> {
        if !Path::new(PROGRAM).exists() {
            let cure = "apt-get install dpdk-dev".to_owned();
            return Err(Failure::Missing { what: PROGRAM.to_owned(), cure });
        }
        let log = plan.scratch.join("testpmd.log");
        // Into a pipe its lines would wait for a full buffer.
        let mut args = vec!["-oL".to_owned()];
        args.extend(plan.callgrind.iter().flat_map(|counts| callgrind::words(counts)));
        args.push(PROGRAM.to_owned());
        args.extend(arguments(plan, mode));
        let daemon = Daemon::start(Path::new("stdbuf"), &args, &[], &log)?;
        let mut testpmd = Self { daemon, _runtime: RuntimeDirectory(plan.prefix(PREFIX)) };
        if plan.callgrind.is_some() {
            // What was counted is written by then, and under callgrind an end takes long.
            testpmd.daemon.may_end_in(Duration::ZERO);
        }
        testpmd.start_forwarding()?;
        Ok(testpmd)
    }

    /// Forwards from now on, counting from zero.
    pub(crate) fn start_forwarding(&mut self) -> Result<(), Failure> {
        self.daemon.say("start")?;
        self.daemon.line(PATIENCE, |line| line.contains("packet forwarding")).map(drop)
    }

    /// Stops forwarding; when this returns, the counters stand still.
    pub(crate) fn stop_forwarding(&mut self) -> Result<(), Failure> {
        self.daemon.say("stop")?;
        self.daemon.line(PATIENCE, |line| line == "Done.").map(drop)
    }
}

fn arguments(plan: &Plan<'_>, mode: &str) -> Vec<String> {
    let cpus = plan.cpus();
    let workers = (1..).zip(&cpus).map(|(lcore, cpu)| format!(",{lcore}@{cpu}"));
    let lcores = format!("0@{CONTROL_CPU}{}", workers.collect::<String>());
    let queues = plan.queues().0;
    let (lan, wan) = (plan.lan_device(), plan.wan_device());
    let (prefix, size) = (plan.prefix(PREFIX), plan.memory_mb().to_string());
    let eal = ["--lcores", &lcores, "--main-lcore", "0", "--no-pci", "--file-prefix", &prefix];
    let memory: &[&str] = match plan.callgrind {
        None => &["--in-memory"],
        Some(_) => &["--no-huge", "--no-shconf", "-m", &size],
    };
    let devices = ["--vdev", &lan, "--vdev", &wan, "--"];
    let eal = eal.into_iter().chain(memory.iter().copied()).chain(devices);
    let forwarding = [
        "--interactive".to_owned(),
        format!("--forward-mode={mode}"),
        format!("--nb-cores={}", cpus.len()),
        format!("--rxq={queues}"),
        format!("--txq={queues}"),
        // Else the first frames of a capture that is replayed once are thrown away.
        "--no-flush-rx".to_owned(),
        format!("--burst={BURST}"),
        format!("--total-num-mbufs={}", plan.mbufs()),
        format!("--rxd={DESCRIPTORS}"),
        format!("--txd={DESCRIPTORS}"),
    ];
    eal.map(str::to_owned).chain(forwarding).collect()
}

impl Running for Testpmd {
    fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn log(&self) -> &Path {
        self.daemon.log()
    }

    fn counters(&mut self) -> Result<Counters, Failure> {
        self.daemon.say("show fwd stats all")?;
        self.daemon.line(PATIENCE, |line| line.contains("Accumulated"))?;
        let (rx, rx_dropped) = packets(&self.daemon.line(PATIENCE, |l| l.contains("RX-packets"))?)?;
        let (tx, tx_dropped) = packets(&self.daemon.line(PATIENCE, |l| l.contains("TX-packets"))?)?;
        Ok(Counters { rx, tx, dropped: rx_dropped + tx_dropped, ..Counters::default() })
    }

    fn conns(&mut self) -> Result<u64, Failure> {
        Ok(0)
    }

    fn translated(&mut self, _first: Ipv4Addr, _last: Ipv4Addr) -> Result<u64, Failure> {
        Ok(0)
    }
}

/// (packets, dropped) of a line such as `RX-packets: 5   RX-dropped: 0   RX-total: 5`.
fn packets(line: &str) -> Result<(u64, u64), Failure> {
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(packets), Some(dropped)) => Ok((packets, dropped)),
        _ => Err(Failure::Answer { what: "packets".to_owned(), text: line.to_owned() }),
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        // Closing the ports by the prompt flushes a capture.
        let _ = self.daemon.say("stop");
        let _ = self.daemon.say("quit");
        let _ = self.daemon.line(Duration::from_secs(3), |line| line.starts_with("Bye"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_statistics_are_read() {
        let line = "  TX-packets: 92103424       TX-dropped: 7             TX-total: 92103431";
        assert_eq!(packets(line).unwrap(), (92_103_424, 7));
        assert!(packets("TX-packets: lots").is_err());
    }
}
