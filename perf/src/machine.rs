//! The machine: what it is, its hugepages, and what a thread really got of its CPU.
//!
//! A poll thread on a shared CPU counts other people's time in its cycles, so each window reads the
//! thread's own CPU time, its involuntary context switches and the time the hypervisor stole, and
//! says whether the window is clean. The kernel's own clock of a thread advances at its ticks: an
//! error of a few milliseconds per window.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{CONTROL_CPU, Failure, WORKER_CPU, run};

/// Involuntary context switches per second that a clean window may have.
const SWITCHES_PER_S_MAX: f64 = 20.0;
/// Share of the CPU that the hypervisor may take in a clean window.
const STEAL_MAX: f64 = 0.02;
/// 2 MiB hugepages that the largest program here needs.
const HUGEPAGES: u64 = 1536;
const HUGEPAGES_FILE: &str = "/proc/sys/vm/nr_hugepages";
const COMPACT_FILE: &str = "/proc/sys/vm/compact_memory";

/// Cycles of the time stamp counter per second, as the kernel measured them.
///
/// On x86 the kernel derives `loops_per_jiffy`, printed as BogoMIPS, from the counter's rate.
pub(crate) fn tsc_hz() -> Result<f64, Failure> {
    let text = read("/proc/cpuinfo")?;
    let line = text.lines().find_map(|l| l.strip_prefix("bogomips"));
    let value = line.and_then(|l| l.trim_start_matches([' ', '\t', ':']).trim().parse().ok());
    let bogomips: f64 = value.ok_or_else(|| answer("BogoMIPS", &text))?;
    Ok(bogomips / 2.0 * 1e6)
}

/// Refuses a machine on which the rig cannot work.
pub(crate) fn check() -> Result<(), Failure> {
    let status = read("/proc/self/status")?;
    let root = status.lines().any(|l| l.starts_with("Uid:\t0\t"));
    if !root {
        return Err(missing("root", "hugepages and pinned threads need it"));
    }
    for cpu in [CONTROL_CPU, WORKER_CPU] {
        if !Path::new(&format!("/sys/devices/system/cpu/cpu{cpu}")).exists() {
            return Err(missing(&format!("CPU {cpu}"), "the rig needs two"));
        }
    }
    Ok(())
}

/// Puts this program on the control CPU.
pub(crate) fn stay_on_control_cpu() -> Result<(), Failure> {
    let (cpu, pid) = (CONTROL_CPU.to_string(), std::process::id().to_string());
    run(Command::new("taskset").args(["-acp", &cpu, &pid])).map(drop)
}

/// Reserved hugepages, put back when dropped.
pub(crate) struct Hugepages {
    before: Option<u64>,
}

impl Hugepages {
    /// Reserves what the programs need, if the machine has less.
    pub(crate) fn reserve() -> Result<Self, Failure> {
        let before = number(HUGEPAGES_FILE)?;
        if before >= HUGEPAGES {
            return Ok(Self { before: None });
        }
        write_hugepages(HUGEPAGES).map_err(Failure::io(HUGEPAGES_FILE))?;
        let guard = Self { before: Some(before) };
        if number(HUGEPAGES_FILE)? < HUGEPAGES {
            // What the caches keep can be moved, if the kernel is asked to.
            fs::write(COMPACT_FILE, "1").map_err(Failure::io(COMPACT_FILE))?;
            write_hugepages(HUGEPAGES).map_err(Failure::io(HUGEPAGES_FILE))?;
        }
        if number(HUGEPAGES_FILE)? < HUGEPAGES {
            write_hugepages(before).map_err(Failure::io(HUGEPAGES_FILE))?;
            return Err(missing(&format!("{HUGEPAGES} free hugepages"), "memory is fragmented"));
        }
        Ok(guard)
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        // Only what is still as this program left it is put back.
        if let Some(before) = self.before
            && number(HUGEPAGES_FILE).is_ok_and(|now| now == HUGEPAGES)
        {
            let _ = write_hugepages(before);
        }
    }
}

fn write_hugepages(pages: u64) -> std::io::Result<()> {
    fs::write(HUGEPAGES_FILE, pages.to_string())
}

/// Totals of a thread and its CPU at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// Nanoseconds the thread ran.
    pub(crate) ran_ns: u64,
    /// Nanoseconds it could have run but waited for its CPU.
    pub(crate) waited_ns: u64,
    /// Context switches it did not ask for.
    pub(crate) switches: u64,
    /// Clock ticks stolen from its CPU.
    pub(crate) stolen: u64,
    /// Clock ticks of its CPU in all.
    pub(crate) ticks: u64,
}

/// How a thread fared between two [`Usage`]s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fare {
    pub(crate) ran_ns: u64,
    pub(crate) waited_ns: u64,
    pub(crate) switches_per_s: f64,
    pub(crate) stolen: f64,
}

impl Fare {
    /// Between two moments that are `seconds` apart.
    pub(crate) fn between(before: Usage, after: Usage, seconds: f64) -> Self {
        let ticks = after.ticks.saturating_sub(before.ticks).max(1);
        Self {
            ran_ns: after.ran_ns.saturating_sub(before.ran_ns),
            waited_ns: after.waited_ns.saturating_sub(before.waited_ns),
            switches_per_s: after.switches.saturating_sub(before.switches) as f64 / seconds,
            stolen: after.stolen.saturating_sub(before.stolen) as f64 / ticks as f64,
        }
    }

    /// Whether the thread had its CPU to itself.
    pub(crate) fn clean(&self) -> bool {
        self.switches_per_s <= SWITCHES_PER_S_MAX && self.stolen <= STEAL_MAX
    }
}

/// A forwarding thread of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    pid: u32,
    tid: u32,
    cpu: u32,
}

impl Thread {
    /// The busiest thread of process `pid` among those that may run on CPU `cpu` alone.
    pub(crate) fn forwarding(pid: u32, cpu: u32) -> Result<Self, Failure> {
        let tasks = format!("/proc/{pid}/task");
        let mut best = None;
        for entry in fs::read_dir(&tasks).map_err(Failure::io(&tasks))?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let thread = Self { pid, tid, cpu };
            // A thread may end between the listing and the reading.
            let Ok(status) = fs::read_to_string(thread.file("status")) else { continue };
            let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:\t"));
            if allowed != Some(cpu.to_string().as_str()) {
                continue;
            }
            let Ok(usage) = thread.usage() else { continue };
            if best.is_none_or(|(ran, _)| ran < usage.ran_ns) {
                best = Some((usage.ran_ns, thread));
            }
        }
        let what = format!("a thread of process {pid} pinned to CPU {cpu}");
        best.map(|(_, t)| t).ok_or_else(|| missing(&what, "is a forwarding core configured there?"))
    }

    /// Its totals now.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let text = read(&self.file("schedstat"))?;
        let mut fields = text.split_whitespace().map(|f| f.parse().unwrap_or(0));
        let (ran_ns, waited_ns) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        let status = read(&self.file("status"))?;
        let switches = status.lines().find_map(|l| l.strip_prefix("nonvoluntary_ctxt_switches:"));
        let switches = switches.and_then(|v| v.trim().parse().ok());
        let switches = switches.ok_or_else(|| answer("context switches", &status))?;
        let stat = read("/proc/stat")?;
        let (stolen, ticks) =
            cpu_ticks(&stat, self.cpu).ok_or_else(|| answer("CPU ticks", &stat))?;
        Ok(Usage { ran_ns, waited_ns, switches, stolen, ticks })
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/task/{}/{name}", self.pid, self.tid)
    }
}

/// (stolen, all) ticks of a CPU from the text of /proc/stat.
fn cpu_ticks(stat: &str, cpu: u32) -> Option<(u64, u64)> {
    let prefix = format!("cpu{cpu} ");
    let line = stat.lines().find_map(|l| l.strip_prefix(prefix.as_str()))?;
    // user nice system idle iowait irq softirq steal; guest times are inside user and nice.
    let fields: Vec<u64> = line.split_whitespace().take(8).map_while(|f| f.parse().ok()).collect();
    Some((*fields.get(7)?, fields.iter().sum()))
}

/// The machine and the versions of what runs on it, as lines of markdown.
pub(crate) fn environment(sluicegate: Option<&Path>) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|l| l.split('\t').next().is_some_and(|k| k.trim() == name));
        line.and_then(|l| l.split_once(": ")).map_or("?", |(_, v)| v).to_owned()
    };
    let tsc = tsc_hz().map_or(0.0, |hz| hz / 1e6);
    let isolated = fs::read_to_string("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let isolated = isolated.trim();
    let mut lines = vec![
        format!(
            "CPU: {} (family {} model {}), TSC {tsc:.1} MHz, {} CPUs",
            field("model name"),
            field("cpu family"),
            field("model"),
            cpuinfo.matches("processor\t").count(),
        ),
        format!("kernel: {}", first_line(Command::new("uname").arg("-rv"))),
        format!("isolated CPUs: {}", if isolated.is_empty() { "none" } else { isolated }),
        format!("load before: {}", fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()),
        format!("2 MiB hugepages: {}", number(HUGEPAGES_FILE).unwrap_or(0)),
    ];
    for package in ["dpdk-dev", "openvswitch-switch-dpdk"] {
        let mut query = Command::new("dpkg-query");
        query.args(["-W", "-f", "${Package} ${Version}\n", package]);
        lines.push(format!("package: {}", first_line(&mut query)));
    }
    if let Some(binary) = sluicegate {
        lines.push(format!("sluicegate: {}", first_line(Command::new(binary).arg("--version"))));
        let mut describe = Command::new("git");
        lines.push(format!(
            "tree: {}",
            first_line(describe.args(["describe", "--always", "--dirty"]))
        ));
    }
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "- {line}");
        text
    })
}

fn first_line(command: &mut Command) -> String {
    let text = run(command).unwrap_or_else(|failure| failure.to_string());
    text.lines().next().unwrap_or("?").to_owned()
}

fn read(path: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(Failure::io(path))
}

fn number(path: &str) -> Result<u64, Failure> {
    let text = read(path)?;
    text.trim().parse().map_err(|_| answer(path, &text))
}

fn answer(what: &str, text: &str) -> Failure {
    Failure::Answer { what: what.to_owned(), text: text.chars().take(300).collect() }
}

fn missing(what: &str, cure: &str) -> Failure {
    Failure::Missing { what: what.to_owned(), cure: cure.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_read_from_the_thread_s_cpu() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 1 1 1 1 1 1 1 0 0\n\
                    cpu1 10 20 30 40 50 60 70 80 90 100\n";
        assert_eq!(cpu_ticks(stat, 1), Some((80, 360)));
        assert_eq!(cpu_ticks("cpu1 1 2 3\n", 1), None);
    }

    #[test]
    fn a_window_with_stolen_time_or_preemption_is_dirty() {
        let before = Usage { ticks: 1000, ..Usage::default() };
        let after = Usage { ticks: 1300, ran_ns: 3, ..Usage::default() };
        assert!(Fare::between(before, after, 3.0).clean());
        assert!(Fare::between(before, Usage { switches: 60, ..after }, 3.0).clean());
        assert!(!Fare::between(before, Usage { switches: 61, ..after }, 3.0).clean());
        assert!(Fare::between(before, Usage { stolen: 6, ..after }, 3.0).clean());
        assert!(!Fare::between(before, Usage { stolen: 7, ..after }, 3.0).clean());
    }
}
