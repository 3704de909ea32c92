//! `perf instructions`: instructions per packet of an established conn, by one worker.
//!
//! Time on a shared machine cannot tell a cost of three percent; instructions can. The gateway runs
//! under callgrind and replays a capture once, in which all conns come again and again; a second
//! run replays a longer one. What the worker's thread executed more, divided by the packets that
//! came more, is the cost of a packet: starting up, the first packet of each conn and idle rounds
//! cancel out, or nearly. Reading the capture belongs to it, so what the gateway's own code
//! executes is shown apart.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::compare::out_directory;
use crate::frame::Kind;
use crate::machine;
use crate::ovs::Tuning;
use crate::process::{CONTROL_CPU, Failure, WORKER_CPU, catch_signals, wait_until};
use crate::program::{Plan, Running, Sink, Wire, Wires, Workload};
use crate::sluicegate::{SLOW_PATIENCE, Sluicegate};
use crate::traffic::{Traffic, write_nothing};

/// How often each conn comes in the shorter and in the longer capture.
const TIMES: [usize; 2] = [40, 160];

/// In the names of functions that only a worker runs all the time.
const PACKET_PATH: [&str; 2] = ["dataplane::pipeline::", "dataplane::lcore::"];

/// Functions that are listed.
const LISTED: usize = 12;

/// Whose instructions to count.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The work, in one direction.
    #[arg(long, default_value = "snat")]
    row: Workload,
    /// Number of conns.
    #[arg(long, default_value_t = 1024)]
    conns: usize,
    /// Seed of the conns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's binary.
    #[arg(long, default_value = "target/release/sluicegate")]
    sluicegate: PathBuf,
    /// Another binary of the gateway, to compare with.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
}

/// Instructions of a thread by function, in the function itself.
type Costs = BTreeMap<String, u64>;

/// Instructions per packet.
struct Slope {
    all: f64,
    /// Those in Rust functions: the gateway without DPDK, libpcap and libc.
    own: f64,
    /// By function, dearest first.
    functions: Vec<(String, f64)>,
}

/// Counts, prints the report and writes it to perf/out/instructions.md.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    machine::check()?;
    if options.row.both_ways() {
        let cure = "choose forward, firewall or snat".to_owned();
        return Err(Failure::Missing { what: "a row in one direction".to_owned(), cure });
    }
    catch_signals()?;
    let out = out_directory()?;
    let mut report = format!(
        "# Instructions per packet\n\n- {}, {} conns, each {} and {} times, 60-byte UDP frames, \
         burst 32, one worker, no hugepages\n\n| binary | all | the gateway's own |\n\
         |---|--:|--:|\n",
        options.row, options.conns, TIMES[0], TIMES[1]
    );
    let mut slopes = Vec::new();
    for binary in std::iter::once(&options.sluicegate).chain(&options.against) {
        let slope = count(options, binary, &out)?;
        let name = binary.display();
        let _ = writeln!(report, "| {name} | {:.1} | {:.1} |", slope.all, slope.own);
        slopes.push(slope);
    }
    if let [new, old] = slopes.as_slice() {
        let percent = |new: f64, old: f64| (new / old - 1.0) * 100.0;
        let (all, own) = (percent(new.all, old.all), percent(new.own, old.own));
        let _ = writeln!(report, "| first against second | {all:+.1} % | {own:+.1} % |");
    }
    for (slope, binary) in slopes.iter().zip(["first", "second"]) {
        let _ = writeln!(report, "\nDearest functions of the {binary} binary:\n");
        for (function, cost) in slope.functions.iter().take(LISTED) {
            let _ = writeln!(report, "- {cost:.1} {function}");
        }
    }
    println!("{report}");
    let file = out.join("instructions.md");
    fs::write(&file, report).map_err(Failure::io(file.display()))
}

fn count(options: &Options, binary: &Path, out: &Path) -> Result<Slope, Failure> {
    let short = replay(options, binary, out, TIMES[0])?;
    let long = replay(options, binary, out, TIMES[1])?;
    slope(&short, &long, ((TIMES[1] - TIMES[0]) * options.conns) as f64).ok_or_else(|| {
        let text = format!("{} and {} threads", short.len(), long.len());
        Failure::Answer { what: "callgrind's counts".to_owned(), text }
    })
}

/// Replays a capture once and gives what each thread executed.
fn replay(
    options: &Options,
    binary: &Path,
    out: &Path,
    times: usize,
) -> Result<BTreeMap<String, Costs>, Failure> {
    let scratch = out.join("callgrind");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch).map_err(Failure::io(scratch.display()))?;
    let (capture, nothing) = (scratch.join("repeated.pcap"), scratch.join("nothing.pcap"));
    let traffic = Traffic::new(options.conns, options.seed);
    traffic.write_repeated(&capture, times).map_err(Failure::io(capture.display()))?;
    write_nothing(&nothing).map_err(Failure::io(nothing.display()))?;
    let once = |file: &Path| Wire { captures: vec![file.to_path_buf()], endless: false };
    let plan = Plan {
        workload: options.row,
        kind: Kind::Udp,
        conns: options.conns,
        originals: &capture,
        replies: &nothing,
        sink: Sink::Nowhere,
        scratch: scratch.clone(),
        sluicegate: binary,
        wires: Some(Wires { cpus: vec![WORKER_CPU], lan: once(&capture), wan: once(&nothing) }),
        tuning: Tuning::default(),
        callgrind: Some(scratch.join("counts")),
    };
    eprintln!(
        "{}: {} packets, control on CPU {CONTROL_CPU}",
        binary.display(),
        traffic.len() * times
    );
    let mut gateway = Sluicegate::start(&plan)?;
    let log = gateway.log().to_path_buf();
    let expected = (traffic.len() * times) as u64;
    let what = format!("{} did not send {expected} packets", binary.display());
    wait_until(SLOW_PATIENCE, what, &log, || Ok(gateway.counters()?.tx >= expected))?;
    let counters = gateway.counters()?;
    if (counters.tx, counters.dropped) != (expected, 0) {
        let (program, reason) = (binary.display().to_string(), format!("{counters:?}"));
        return Err(Failure::Work { program, reason });
    }
    drop(gateway);
    threads(&scratch)
}

/// The costs of each thread from callgrind's files `counts-NN`, by file.
fn threads(folder: &Path) -> Result<BTreeMap<String, Costs>, Failure> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(Failure::io(folder.display()))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("counts-") {
            let text = fs::read_to_string(entry.path()).map_err(Failure::io(&name))?;
            threads.insert(name, costs(&text));
        }
    }
    Ok(threads)
}

/// Instructions by function from a callgrind file: names are given once with a number in brackets
/// and then by number; the line behind `calls=` is what the callee cost and is left out.
fn costs(text: &str) -> Costs {
    let (mut names, mut costs) = (HashMap::new(), Costs::new());
    let (mut current, mut callee) = (String::new(), false);
    for line in text.lines() {
        let function = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="));
        if let Some((number, name)) = function.and_then(|f| f.split_once(')')) {
            if !name.is_empty() {
                names.insert(number.to_owned(), name.trim().to_owned());
            }
            if line.starts_with("fn=") {
                current = names.get(number).cloned().unwrap_or_default();
            }
        } else if line.starts_with("calls=") {
            callee = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if let Some(cost) = cost.filter(|_| !std::mem::take(&mut callee)) {
                *costs.entry(current.clone()).or_default() += cost;
            }
        }
    }
    costs
}

/// Instructions per packet of the worker's thread: the one that is busiest with the packet path.
/// The control core's sweeps can be more than all that, as time passes slowly under callgrind.
fn slope(
    short: &BTreeMap<String, Costs>,
    long: &BTreeMap<String, Costs>,
    packets: f64,
) -> Option<Slope> {
    let packet_path = |costs: &Costs| {
        let own = |name: &str| PACKET_PATH.iter().any(|part| name.contains(part));
        costs.iter().filter(|(name, _)| own(name)).map(|(_, cost)| cost).sum::<u64>()
    };
    let pairs = long.iter().filter_map(|(name, long)| Some((short.get(name)?, long)));
    let (short, long) = pairs.max_by_key(|(_, long)| packet_path(long))?;
    let grown = |(function, &cost): (&String, &u64)| {
        let before = short.get(function).copied().unwrap_or(0);
        (function.clone(), (cost as f64 - before as f64) / packets)
    };
    let mut functions: Vec<(String, f64)> = long.iter().map(grown).collect();
    functions.sort_by(|a, b| b.1.total_cmp(&a.1));
    let all = functions.iter().map(|f| f.1).sum();
    let own = functions.iter().filter(|f| f.0.contains("::")).map(|f| f.1).sum();
    Some(Slope { all, own, functions })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "events: Ir\nob=(1) /bin/x\nfl=(1) a.rs\nfn=(7) x::poll\n10 100\n+2 50\n\
                        cob=(2) /lib/y\ncfn=(8) memcpy\ncalls=3 0\n12 900\n* 7\n\
                        fn=(8)\n5 900\nfn=(7)\n30 3\ntotals: 1060\n";

    #[test]
    fn what_a_callee_cost_is_counted_with_the_callee_alone() {
        let costs = costs(TEXT);
        assert_eq!(costs.get("x::poll"), Some(&160));
        assert_eq!(costs.get("memcpy"), Some(&900));
        assert_eq!(costs.values().sum::<u64>(), 1060);
    }

    #[test]
    fn the_slope_is_that_of_the_thread_that_worked() {
        let thread = |own: u64, libc: u64| {
            Costs::from([("dataplane::lcore::poll".to_owned(), own), ("memcpy".to_owned(), libc)])
        };
        let control = |own: u64| Costs::from([("sluicegate::sweep".to_owned(), own)]);
        let name = |n: u32| format!("counts-{n:02}");
        let short = BTreeMap::from([(name(1), control(9_000)), (name(2), thread(1_000, 200))]);
        let long = BTreeMap::from([(name(1), control(99_000)), (name(2), thread(5_000, 1_200))]);
        let slope = slope(&short, &long, 10.0).unwrap();
        assert!((slope.all - 500.0).abs() < 1e-9 && (slope.own - 400.0).abs() < 1e-9);
        assert_eq!(slope.functions[0].0, "dataplane::lcore::poll");
    }
}
