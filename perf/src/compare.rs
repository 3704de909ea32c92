//! `perf compare`: rows, rounds, proofs and the written report.
//!
//! Rounds go through the rows forwards and backwards in turn, so that no row always follows the
//! same neighbour.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::machine::{self, Hugepages};
use crate::measure::{Length, Rounds, Row, Window, measure};
use crate::process::{Failure, catch_signals};
use crate::program::{Plan, Program, Sink, Workload};
use crate::proof::prove;
use crate::report::{Windows, floor_of};
use crate::traffic::Traffic;

/// What to compare.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    /// Two pairs of one second, one direction, frames proven for the least number of conns only.
    #[arg(long)]
    quick: bool,
    /// Peers to run.
    #[arg(long, value_delimiter = ',', default_value = "testpmd,ovs")]
    peers: Vec<Program>,
    /// Workloads to run (default: all; the floor is added).
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Workload>,
    /// Run the peers without Sluicegate.
    #[arg(long)]
    peers_only: bool,
}

impl Options {
    fn pairs(&self) -> usize {
        if self.quick { self.rounds.pairs.min(2) } else { self.rounds.pairs }
    }

    fn length(&self) -> Length {
        let (secs, warm_up) =
            if self.quick { (self.rounds.secs.min(1.0), 0.3) } else { (self.rounds.secs, 1.0) };
        Length {
            window: Duration::from_secs_f64(secs),
            warm_up: Duration::from_secs_f64(warm_up),
            retries: if self.quick { 0 } else { self.rounds.retries },
        }
    }

    fn workloads(&self) -> Vec<Workload> {
        let all = Workload::value_variants().iter().copied();
        match (self.rows.is_empty(), self.quick) {
            (false, _) => self.rows.clone(),
            (true, true) => all.filter(|w| !w.both_ways()).collect(),
            (true, false) => all.collect(),
        }
    }

    /// All rows in the order of a round: for each number of conns and directions the floor first,
    /// then for each workload the peer and the product, close together.
    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for &conns in &self.rounds.conns {
            for workload in self.workloads() {
                let floor = Row { conns, workload: floor_of(workload), program: Program::Testpmd };
                if self.peers.contains(&Program::Testpmd) && !rows.contains(&floor) {
                    rows.push(floor);
                }
                if self.peers.contains(&Program::Ovs) {
                    rows.push(Row { conns, workload, program: Program::Ovs });
                }
                if !self.peers_only {
                    rows.push(Row { conns, workload, program: Program::Sluicegate });
                }
            }
        }
        rows
    }
}

/// The captures of one number of conns.
struct Offer {
    traffic: Traffic,
    directory: PathBuf,
}

impl Offer {
    fn write(conns: usize, seed: u64, out: &Path) -> Result<Self, Failure> {
        let offer = Self { traffic: Traffic::new(conns, seed), directory: out.to_path_buf() };
        let file = offer.originals();
        offer.traffic.write_originals(&file).map_err(Failure::io(file.display()))?;
        for workload in [Workload::FirewallBoth, Workload::SnatBoth] {
            let file = offer.replies(workload);
            let translated = workload.pool().map(|(address, _)| address);
            let written = offer.traffic.write_replies(&file, translated);
            written.map_err(Failure::io(file.display()))?;
        }
        Ok(offer)
    }

    fn originals(&self) -> PathBuf {
        self.directory.join(format!("originals-{}.pcap", self.traffic.len()))
    }

    fn replies(&self, workload: Workload) -> PathBuf {
        self.directory.join(format!("replies-{workload}-{}.pcap", self.traffic.len()))
    }
}

/// Runs the comparison, prints the report and writes it to perf/out/compare.md.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    machine::check()?;
    if !options.peers_only && !options.rounds.sluicegate.exists() {
        let what = options.rounds.sluicegate.display().to_string();
        let cure = "cargo build --release, or --peers-only".to_owned();
        return Err(Failure::Missing { what, cure });
    }
    catch_signals()?;
    machine::stay_on_control_cpu()?;
    let out = out_directory()?;
    let _hugepages = Hugepages::reserve()?;
    let product = (!options.peers_only).then_some(options.rounds.sluicegate.as_path());
    let mut report = preface(options, product);
    let offers =
        options.rounds.conns.iter().map(|&conns| Offer::write(conns, options.rounds.seed, &out));
    let offers = offers.collect::<Result<Vec<_>, _>>()?;
    let rows = options.rows();
    report += &prove_all(options, &rows, &offers, &out)?;
    let windows = measure_all(options, &rows, &offers, &out)?;
    let _ = write!(report, "\n{}", windows.table());
    if !windows.all_clean() {
        report += "\nSome windows are dirty (last column: clean windows used of all). A row \
                   without a clean window is only indicative: run again on an idle machine.\n";
    }
    println!("{report}");
    let file = out.join("compare.md");
    fs::write(&file, &report).map_err(Failure::io(file.display()))
}

pub(crate) fn out_directory() -> Result<PathBuf, Failure> {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("out");
    fs::create_dir_all(&out).map_err(Failure::io(out.display()))?;
    Ok(out)
}

fn preface(options: &Options, product: Option<&Path>) -> String {
    let length = options.length();
    format!(
        "# Sluicegate beside its peers\n\n{}- {} interleaved pairs of {} s, seed {}, 60-byte UDP \
         frames, burst 32, one forwarding core\n",
        machine::environment(product),
        options.pairs(),
        length.window.as_secs_f64(),
        options.rounds.seed,
    )
}

fn plan<'a>(
    row: Row,
    originals: &'a Path,
    replies: &'a Path,
    sink: Sink,
    out: &Path,
    options: &'a Options,
) -> Plan<'a> {
    let directory = match row.program {
        Program::Testpmd => "testpmd",
        Program::Ovs => "ovs",
        Program::Sluicegate => "sluicegate",
    };
    Plan {
        workload: row.workload,
        conns: row.conns,
        originals,
        replies,
        sink,
        scratch: out.join(directory),
        sluicegate: &options.rounds.sluicegate,
        wires: None,
        callgrind: None,
    }
}

/// Proves the work of every row in one direction, frame by frame.
fn prove_all(
    options: &Options,
    rows: &[Row],
    offers: &[Offer],
    out: &Path,
) -> Result<String, Failure> {
    let least = options.rounds.conns.iter().min().copied();
    let mut proven = 0;
    for row in rows.iter().filter(|row| !row.workload.both_ways()) {
        if options.quick && Some(row.conns) != least {
            continue;
        }
        eprintln!("proving {} {} {}", row.program, row.workload, row.conns);
        for offer in offers.iter().filter(|offer| offer.traffic.len() == row.conns) {
            let (originals, replies) = (offer.originals(), offer.replies(row.workload));
            let endless = row.program == Program::Ovs;
            let sink = Sink::Capture { file: out.join("sent.pcap"), endless };
            let plan = plan(*row, &originals, &replies, sink, out, options);
            scratch(&plan)?;
            prove(row.program, &plan, &offer.traffic)?;
            proven += 1;
        }
    }
    Ok(format!(
        "- {proven} rows proven frame by frame: every conn's frame out, addresses, ports, TTL and \
         checksums right; in every window nothing dropped and the table as expected\n"
    ))
}

/// Measures all rows in all rounds.
fn measure_all(
    options: &Options,
    rows: &[Row],
    offers: &[Offer],
    out: &Path,
) -> Result<Windows, Failure> {
    let tsc_hz = machine::tsc_hz()?;
    let mut windows = Windows::default();
    for round in 0..options.pairs() {
        let mut order = rows.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        for row in order {
            for offer in offers.iter().filter(|offer| offer.traffic.len() == row.conns) {
                let (originals, replies) = (offer.originals(), offer.replies(row.workload));
                let plan = plan(row, &originals, &replies, Sink::Nowhere, out, options);
                scratch(&plan)?;
                let window = measure(row, &plan, options.length(), tsc_hz)?;
                eprintln!("{}", progress(round, row, &window));
                windows.add(row, round, window);
            }
        }
    }
    Ok(windows)
}

fn scratch(plan: &Plan<'_>) -> Result<(), Failure> {
    fs::create_dir_all(&plan.scratch).map_err(Failure::io(plan.scratch.display()))
}

fn progress(round: usize, row: Row, window: &Window) -> String {
    let fare = &window.fare;
    format!(
        "pair {}: {} {} {}: {:.2} Mpps, {:.1} cycles, {:.1} by CPU time; waited {:.0} ms, {:.0} \
         switches/s, {:.1} % stolen{}",
        round + 1,
        row.program,
        row.workload,
        row.conns,
        window.mpps,
        window.wall_cycles,
        window.cpu_cycles,
        fare.waited_ns as f64 / 1e6,
        fare.switches_per_s,
        fare.stolen * 100.0,
        if fare.clean() { "" } else { " (dirty)" },
    )
}
