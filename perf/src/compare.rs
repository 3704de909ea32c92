//! `perf compare`: rows, rounds, proofs and the written report.
//!
//! Rounds go through the rows forwards and backwards in turn, so that no row always follows the
//! same neighbour.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::frame::Kind;
use crate::machine::{self, Hugepages};
use crate::measure::{Length, Rounds, Row};
use crate::process::{Failure, catch_signals};
use crate::program::{Program, Workload};
use crate::report::Windows;
use crate::stand::Stand;

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
    /// Kinds of frames; there is no translation of IPv6.
    #[arg(long, value_delimiter = ',', default_value = "udp")]
    kinds: Vec<Kind>,
    /// Try the settings of Open vSwitch's caches for each row and keep the best.
    #[arg(long)]
    tune: bool,
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
        let all = self.rounds.conns.iter().flat_map(|&conns| {
            let kinds = self.kinds.iter().map(move |&kind| (conns, kind));
            kinds.flat_map(|(conns, kind)| {
                self.workloads().into_iter().map(move |w| (conns, kind, w))
            })
        });
        for (conns, kind, workload) in all.filter(|(_, k, w)| !k.v6() || w.pool().is_none()) {
            let row = Row { conns, kind, workload, program: Program::Sluicegate };
            for &program in &self.peers {
                let of = if program.floor() { row.floor() } else { row };
                let peer = Row { program, ..of };
                if !rows.contains(&peer) {
                    rows.push(peer);
                }
            }
            rows.extend((!self.peers_only).then_some(row));
        }
        rows
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
    let mut stand = Stand::new(&out, options.rounds.seed, &options.rounds.sluicegate)?;
    let rows = options.rows();
    report += &prove_all(options, &rows, &mut stand)?;
    for &row in rows.iter().filter(|row| options.tune && row.program == Program::Ovs) {
        let tuning = stand.tune(row)?;
        let Row { conns, kind, workload, .. } = row;
        let _ = writeln!(report, "- Open vSwitch, {workload} {kind} {conns}: {tuning}");
    }
    let windows = measure_all(options, &rows, &mut stand)?;
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
        "# Sluicegate beside its peers\n\n{}- {} interleaved pairs of {} s, seed {}, burst 32, one forwarding core\n",
        machine::environment(product),
        options.pairs(),
        length.window.as_secs_f64(),
        options.rounds.seed,
    )
}

/// Proves the work of every row, frame by frame.
fn prove_all(options: &Options, rows: &[Row], stand: &mut Stand) -> Result<String, Failure> {
    let least = options.rounds.conns.iter().min().copied();
    let wanted = rows.iter().filter(|row| !options.quick || Some(row.conns) == least);
    let mut proven = 0;
    for &row in wanted {
        stand.prove(row)?;
        proven += 1;
    }
    Ok(format!(
        "- {proven} rows proven frame by frame: every conn's frame out, addresses, ports, TTL and \
         checksums right; in every window nothing dropped and the table as expected\n"
    ))
}

/// Measures all rows in all rounds.
fn measure_all(options: &Options, rows: &[Row], stand: &mut Stand) -> Result<Windows, Failure> {
    let mut windows = Windows::default();
    for round in 0..options.pairs() {
        let mut order = rows.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        for row in order {
            windows.add(row, round, stand.window(row, options.length())?);
        }
    }
    Ok(windows)
}
