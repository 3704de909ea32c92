//! One run of a program under callgrind, and what a packet cost in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Options;
use super::callgrind::{self, Costs};
use crate::compare::out_directory;
use crate::machine;
use crate::ovs::Tuning;
use crate::process::{CONTROL_CPU, Failure, pause, wait_until};
use crate::program::{BURST, Plan, Running, Sink, Workload};
use crate::sluicegate::{SLOW_PATIENCE, Sluicegate};
use crate::testpmd::Testpmd;
use crate::traffic::Traffic;

/// The driver's function that hands out a burst of a capture replayed without end. It always fills
/// the burst.
const RECEIVE: &str = "eth_pcap_rx_infinite";

/// A UDP conn becomes a stream with the first packet after two seconds.
const SETTLED: Duration = Duration::from_millis(2500);

/// Between two looks at the gateway's counters.
const BETWEEN: Duration = Duration::from_millis(400);

/// Instructions per packet of a forwarding thread.
pub(super) struct Cost {
    pub(super) all: f64,
    /// Those in Rust functions: the gateway without driver, DPDK and libc.
    pub(super) own: f64,
    /// By function, dearest first.
    pub(super) functions: Vec<(String, f64)>,
}

impl Cost {
    /// Of some runs the one whose own code is in the middle.
    fn middle(mut runs: Vec<Self>) -> Option<Self> {
        runs.sort_by(|a, b| a.own.total_cmp(&b.own));
        let middle = runs.len() / 2;
        (middle < runs.len()).then(|| runs.swap_remove(middle))
    }

    fn of(costs: &Costs, packets: u64) -> Self {
        let per_packet =
            |(name, &cost): (&String, &u64)| (name.clone(), cost as f64 / packets as f64);
        let mut functions: Vec<(String, f64)> = costs.functions.iter().map(per_packet).collect();
        functions.sort_by(|a, b| b.1.total_cmp(&a.1));
        let all = functions.iter().map(|f| f.1).sum();
        let own = functions.iter().filter(|f| f.0.contains("::")).map(|f| f.1).sum();
        Self { all, own, functions }
    }
}

/// The captures and what to do with them.
pub(super) struct Rig<'a> {
    options: &'a Options,
    scratch: PathBuf,
}

impl<'a> Rig<'a> {
    /// Checks the machine and writes the captures.
    pub(super) fn new(options: &'a Options) -> Result<Self, Failure> {
        machine::check()?;
        callgrind::check()?;
        let rig = Self { options, scratch: out_directory()?.join("callgrind") };
        let _ = fs::remove_dir_all(&rig.scratch);
        fs::create_dir_all(&rig.scratch).map_err(Failure::io(rig.scratch.display()))?;
        let traffic = Traffic::of(options.kind, options.conns, options.seed);
        let file = rig.originals();
        traffic.write_originals(&file).map_err(Failure::io(file.display()))?;
        for &workload in options.rows.iter().filter(|workload| workload.both_ways()) {
            let file = rig.replies(workload);
            let translated = workload.pool().map(|(address, _)| address);
            let written = traffic.write_replies(&file, translated);
            written.map_err(Failure::io(file.display()))?;
        }
        Ok(rig)
    }

    fn originals(&self) -> PathBuf {
        self.scratch.join("originals.pcap")
    }

    fn replies(&self, workload: Workload) -> PathBuf {
        self.scratch.join(format!("replies-{workload}.pcap"))
    }

    /// Runs `count` with the plan of a run; the files of an earlier one are gone.
    fn with_plan<T>(
        &self,
        workload: Workload,
        binary: &Path,
        count: impl FnOnce(&Plan<'_>, &Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let folder = self.scratch.join("counts");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(Failure::io(folder.display()))?;
        let (originals, replies) = (self.originals(), self.replies(workload));
        let counts = folder.join("counts");
        let plan = Plan {
            workload,
            kind: self.options.kind,
            conns: self.options.conns,
            originals: &originals,
            replies: &replies,
            sink: Sink::Nowhere,
            scratch: self.scratch.clone(),
            sluicegate: binary,
            wires: None,
            tuning: Tuning::default(),
            callgrind: Some(counts.clone()),
        };
        count(&plan, &counts)
    }

    /// Counts testpmd. Between a start and a stop it knows its packets exactly.
    pub(super) fn floor(&self, workload: Workload) -> Result<Cost, Failure> {
        let packets = self.options.packets;
        eprintln!("testpmd macswap, {workload}");
        self.with_plan(workload, &self.options.sluicegate, |plan, counts| {
            let mut testpmd = Testpmd::start(plan, "macswap")?;
            let log = testpmd.log().to_path_buf();
            let enough = |testpmd: &mut Testpmd| {
                let what = format!("testpmd did not send {packets} packets");
                wait_until(SLOW_PATIENCE, what, &log, || Ok(testpmd.counters()?.tx >= packets))
            };
            enough(&mut testpmd)?;
            testpmd.stop_forwarding()?;
            callgrind::zero(testpmd.pid())?;
            testpmd.start_forwarding()?;
            enough(&mut testpmd)?;
            testpmd.stop_forwarding()?;
            let tx = testpmd.counters()?.tx;
            callgrind::dump(testpmd.pid())?;
            let threads = callgrind::threads(counts)?;
            let busiest = threads.iter().max_by_key(|costs| costs.total());
            busiest.map(|costs| Cost::of(costs, tx)).ok_or_else(|| nothing_counted("testpmd"))
        })
    }

    /// Counts the gateway `runs` times more than it was `before`.
    pub(super) fn middle(
        &self,
        workload: Workload,
        binary: &Path,
        runs: u32,
        mut before: Vec<Cost>,
    ) -> Result<Cost, Failure> {
        for _ in 0..runs {
            before.push(self.gateway(workload, binary)?);
        }
        Cost::middle(before).ok_or_else(|| nothing_counted(&binary.display().to_string()))
    }

    /// Counts the gateway. The packets are those that its driver handed out while it was counted.
    fn gateway(&self, workload: Workload, binary: &Path) -> Result<Cost, Failure> {
        let name = binary.display().to_string();
        eprintln!("{name}, {workload}; control on CPU {CONTROL_CPU}");
        self.with_plan(workload, binary, |plan, counts| {
            let mut gateway = Sluicegate::start(plan)?;
            let log = gateway.log().to_path_buf();
            let conns = if workload.stateful() { plan.conns as u64 } else { 0 };
            let what = format!("{name} does not forward {conns} conns");
            // Replies that came before their conn are over by then, and each conn has its path.
            let rounds = 4 * plan.conns as u64;
            wait_until(SLOW_PATIENCE, what, &log, || {
                Ok(gateway.conns()? == conns && gateway.counters()?.tx >= rounds)
            })?;
            pause(SETTLED)?;
            callgrind::zero(gateway.pid())?;
            let first = gateway.counters()?;
            let target = first.tx + self.options.packets;
            let what = format!("{name} did not send {} packets", self.options.packets);
            wait_until(SLOW_PATIENCE, what, &log, || {
                // Each answer is as much work under callgrind as thousands of packets.
                pause(BETWEEN)?;
                Ok(gateway.counters()?.tx >= target)
            })?;
            let last = gateway.counters()?;
            callgrind::dump(gateway.pid())?;
            drop(gateway);
            let work = |reason: String| Failure::Work { program: name.clone(), reason };
            if last.dropped != first.dropped {
                return Err(work(format!("{} packets dropped", last.dropped - first.dropped)));
            }
            let threads = callgrind::threads(counts)?;
            let received = |costs: &Costs| costs.calls.get(RECEIVE).copied().unwrap_or(0);
            let busiest = threads.iter().max_by_key(|costs| received(costs));
            let costs = busiest.ok_or_else(|| nothing_counted(&name))?;
            let packets = received(costs) * BURST as u64;
            // The counting began before the first and ended after the last reading.
            if packets < last.rx - first.rx {
                let reason =
                    format!("{packets} packets in calls of {RECEIVE}, {last:?}, {first:?}");
                return Err(work(reason));
            }
            Ok(Cost::of(costs, packets))
        })
    }
}

fn nothing_counted(program: &str) -> Failure {
    Failure::Answer { what: "callgrind's counts".to_owned(), text: format!("no file of {program}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_gateway_s_own_is_told_by_its_name() {
        let functions = [("dataplane::lcore::poll", 4_000), ("memcpy", 700), ("eth_null_tx", 300)];
        let functions = functions.map(|(name, cost)| (name.to_owned(), cost));
        let costs = Costs { functions: functions.into_iter().collect(), ..Costs::default() };
        let cost = Cost::of(&costs, 10);
        assert!((cost.all - 500.0).abs() < 1e-9 && (cost.own - 400.0).abs() < 1e-9);
        assert_eq!(cost.functions[0].0, "dataplane::lcore::poll");
    }
}
