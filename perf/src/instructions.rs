//! `perf instructions`: instructions per packet of known conns, by one worker.
//!
//! Time on a shared machine cannot tell a cost of three percent; instructions can. Gateway and
//! testpmd run under callgrind on the same rig as in `perf compare`: captures that the driver
//! replays from memory without end, and a port that drops. Once every conn is in the table the
//! counts are set to zero, and after enough packets they are read: what the forwarding thread
//! executed in between, divided by the packets in between. The packets are exact: the gateway's
//! are 32 for each call of the driver's receive function, testpmd's are counted between a start and
//! a stop. Of the gateway, what its own code executes is shown apart from driver, DPDK and libc;
//! this figure is kept in perf/instructions.toml, and `--check` fails when it grows.

mod accepted;
pub(crate) mod callgrind;
mod count;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use accepted::{Accepted, Verdict};
use count::{Cost, Rig};

use crate::compare::out_directory;
use crate::frame::Kind;
use crate::goals::Topic;
use crate::process::{Failure, catch_signals};
use crate::program::{BURST, Workload};
use crate::row::{Peer, Reach, Row, Spread};

/// The rows that are kept.
const ROWS: [Workload; 4] =
    [Workload::Forward, Workload::Firewall, Workload::Snat, Workload::SnatBoth];

/// What a packet of `snat` may cost in all, driver included.
const SNAT_MOST: f64 = 400.0;

/// Functions that are listed.
const LISTED: usize = 12;

/// Whose instructions to count.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The work.
    #[arg(long, value_delimiter = ',', default_values_t = ROWS)]
    rows: Vec<Workload>,
    /// The frames; what is accepted is kept for 60 bytes of UDP over IPv4 alone.
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["check", "accept"])]
    kind: Kind,
    /// Number of conns.
    #[arg(long, default_value_t = 1024)]
    conns: usize,
    /// Packets to count, at least.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// Starts of the gateway per row; the middle one is the figure. Each draws another hash.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Seed of the conns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's binary.
    #[arg(long, default_value = "target/release/sluicegate")]
    sluicegate: PathBuf,
    /// Another binary of the gateway, to compare with.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Fail if a row's own code costs more than perf/instructions.toml accepts; without testpmd.
    #[arg(long, conflicts_with_all = ["against", "accept"])]
    check: bool,
    /// Write the figures to perf/instructions.toml; without testpmd.
    #[arg(long, conflicts_with = "against")]
    accept: bool,
}

impl Options {
    /// All rows of a binary, or for a first look one start of one row.
    pub(crate) fn of(seed: u64, sluicegate: &Path, quick: bool) -> Self {
        Self {
            rows: if quick { vec![Workload::Snat] } else { ROWS.to_vec() },
            kind: Kind::default(),
            conns: 1024,
            packets: 100_000,
            runs: if quick { 1 } else { 3 },
            seed,
            sluicegate: sluicegate.to_path_buf(),
            against: None,
            check: false,
            accept: false,
        }
    }
}

/// Counts, prints the report and writes it to perf/out/instructions.md.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    catch_signals()?;
    if options.check || options.accept {
        return gate(options);
    }
    let mut report = format!(
        "# Instructions per packet\n\n- {} conns, at least {} packets, {} frames, burst {BURST}, \
         one worker, no hugepages\n\n| work | program | all | the gateway's own | goal |\n\
         |---|---|--:|--:|---|\n",
        options.conns, options.packets, options.kind
    );
    let mut dearest = String::new();
    for counted in count_all(options)? {
        report += &counted.lines(options);
        let _ = writeln!(dearest, "\n{}", counted.profile());
    }
    report += &dearest;
    println!("{report}");
    let file = out_directory()?.join("instructions.md");
    fs::write(&file, report).map_err(Failure::io(file.display()))
}

/// The rows of the report, and the dearest functions of each.
pub(crate) fn rows(options: &Options) -> Result<(Vec<Row>, Vec<String>), Failure> {
    let counted = count_all(options)?;
    let rows = counted.iter().filter_map(|counted| counted.row(options)).collect();
    Ok((rows, counted.iter().map(Counted::profile).collect()))
}

/// What was counted for a row.
struct Counted<'a> {
    workload: Workload,
    floor: Cost,
    /// By binary, in the order given.
    costs: Vec<(&'a Path, Cost)>,
}

impl Counted<'_> {
    /// Instructions per packet in the dearest functions of each binary.
    fn profile(&self) -> String {
        let mut text = String::new();
        for (binary, cost) in &self.costs {
            let (name, row) = (binary.display(), self.workload);
            let _ = writeln!(text, "Dearest functions of {name}, {row}:\n");
            for (function, cost) in cost.functions.iter().take(LISTED) {
                let _ = writeln!(text, "- {cost:.1} {function}");
            }
        }
        text
    }

    /// The first binary's row.
    fn row(&self, options: &Options) -> Option<Row> {
        let (_, cost) = self.costs.first()?;
        let (ours, floor) = (Spread::exact(cost.all), Spread::exact(self.floor.all));
        let peer = Peer {
            name: "testpmd macswap".to_owned(),
            figure: floor,
            ratio: Spread::exact(ours.median / floor.median),
            measured: true,
        };
        // It was set for UDP over IPv4.
        let judged = self.workload == Workload::Snat && options.kind == Kind::default();
        let goal = Reach::AtMost(SNAT_MOST).of(Topic::Instructions);
        let name = format!("instructions per packet, {}, {} conns", self.workload, options.conns);
        let remark = format!("driver included; the gateway's own code is {:.1} of them", cost.own);
        Some(
            Row::new(name, "instructions", ours)
                .beside(peer)
                .judged(judged.then_some(goal))
                .noting(remark),
        )
    }

    /// A line of the table per program.
    fn lines(&self, options: &Options) -> String {
        let (row, mut text) = (self.workload, String::new());
        let _ = writeln!(text, "| {row} | testpmd macswap | {:.1} | – | |", self.floor.all);
        for (number, (binary, cost)) in self.costs.iter().enumerate() {
            let judged = self.row(options).filter(|_| number == 0);
            let goal = judged.and_then(|row| Some(format!("{}: {}", row.goal?, row.outcome()?)));
            let (name, goal) = (binary.display(), goal.unwrap_or_default());
            let _ =
                writeln!(text, "| {row} | {name} | {:.1} | {:.1} | {goal} |", cost.all, cost.own);
        }
        if let [(_, new), (_, old)] = self.costs.as_slice() {
            let percent = |new: f64, old: f64| (new / old - 1.0) * 100.0;
            let (all, own) = (percent(new.all, old.all), percent(new.own, old.own));
            let _ =
                writeln!(text, "| {row} | first against second | {all:+.1} % | {own:+.1} % | |");
        }
        text
    }
}

/// Counts testpmd and each binary for each row.
fn count_all(options: &Options) -> Result<Vec<Counted<'_>>, Failure> {
    let rig = Rig::new(options)?;
    let mut floors: Vec<(bool, f64)> = Vec::new();
    let mut all = Vec::new();
    for &workload in &options.rows {
        let key = workload.both_ways();
        let known = floors.iter().find(|(both, _)| *both == key).map(|(_, all)| *all);
        let floor = match known {
            Some(all) => Cost { all, own: 0.0, functions: Vec::new() },
            None => rig.floor(workload)?,
        };
        floors.push((key, floor.all));
        let binaries = std::iter::once(&options.sluicegate).chain(&options.against);
        let costs = binaries.map(|binary| {
            let cost = rig.middle(workload, binary, options.runs, Vec::new())?;
            Ok((binary.as_path(), cost))
        });
        all.push(Counted { workload, floor, costs: costs.collect::<Result<_, _>>()? });
    }
    Ok(all)
}

/// Holds the gateway's own code against the file, or writes the file.
fn gate(options: &Options) -> Result<(), Failure> {
    let rig = Rig::new(options)?;
    let file = accepted::path();
    let known = if options.accept { None } else { Some(Accepted::read(&file)?) };
    let own = options.rows.iter().map(|&workload| {
        let row = workload.to_string();
        let count = |runs, before| rig.middle(workload, &options.sluicegate, runs, before);
        let cost = match &known {
            None => count(options.runs, Vec::new())?,
            // One run tells, unless it says that too much was spent: an unlucky hash costs some.
            Some(known) => match count(1, Vec::new())? {
                cost if known.bears(&row, cost.own) => cost,
                cost => count(options.runs - 1, vec![cost])?,
            },
        };
        Ok((row, cost.own))
    });
    let own = own.collect::<Result<Vec<_>, Failure>>()?;
    let counted = Accepted::of(&options.sluicegate, options.conns, own)?;
    let Some(known) = known else { return counted.write(&file) };
    let (lines, bad) = match known.judge(&counted) {
        Verdict::Unlike(why) => {
            println!("== SKIPPED: instructions per packet: {why}");
            return Ok(());
        }
        Verdict::Good(lines) => (lines, false),
        Verdict::Bad(lines) => (lines, true),
    };
    println!("instructions per packet, the gateway's own code:");
    lines.iter().for_each(|line| println!("  {line}"));
    if bad {
        let program = options.sluicegate.display().to_string();
        let reason = "a packet costs more instructions than accepted. If it must: `perf \
                      instructions --accept`, and commit perf/instructions.toml with the reason"
            .to_owned();
        return Err(Failure::Work { program, reason });
    }
    Ok(())
}
