//! `perf workers`: what two workers are worth, and what handing every packet over costs.
//!
//! Windows of all rows are interleaved like those of `perf compare`; a ratio is taken between two
//! windows of the same round.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;

use crate::compare::out_directory;
use crate::crew::{self, CrewWindow};
use crate::frame::Kind;
use crate::goals::Topic;
use crate::machine::{self, Hugepages};
use crate::measure::{Length, Rounds};
use crate::ovs::Tuning;
use crate::process::{CONTROL_CPU, Failure, catch_signals, second_cpu, twice};
use crate::program::{Plan, Program, Sink, Workload};
use crate::rig::{Captures, Rig};
use crate::row::{self, Lost, Peer, Reach, Spread};

/// What to measure with one and two workers.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    /// Rigs (default: all).
    #[arg(long, value_delimiter = ',')]
    rigs: Vec<Rig>,
    /// Workloads (default: all that a rig can do).
    #[arg(long, value_delimiter = ',')]
    rows: Vec<Workload>,
    /// Another binary of the gateway, measured beside it on one worker instead of all rigs.
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
}

/// What the rows of the report are measured with.
pub(crate) struct Few<'a> {
    pub(crate) pairs: usize,
    pub(crate) length: Length,
    pub(crate) seed: u64,
    pub(crate) sluicegate: &'a Path,
    /// One workload of each kind only.
    pub(crate) quick: bool,
}

/// What the rows of the report have in common.
pub(crate) const REMARK: &str = "1024 conns. Handed over: every packet is received by a worker that does not own its conn. \
     With two CPUs the second worker shares its own with the control core and with this program.";

/// The rows of the report: two workers beside one, and every packet handed over beside direct.
/// And the rows that could not be measured, with the reason.
pub(crate) fn rows(few: &Few<'_>) -> Result<(Vec<row::Row>, Lost), Failure> {
    let rounds = Rounds {
        pairs: few.pairs,
        secs: few.length.window.as_secs_f64(),
        conns: vec![1024],
        seed: few.seed,
        retries: few.length.retries,
        sluicegate: few.sluicegate.to_path_buf(),
    };
    let mut options = Options { rounds, rigs: Vec::new(), rows: Vec::new(), against: None };
    if few.quick {
        options.rows = vec![Workload::Snat, Workload::SnatBoth];
        options.rigs = vec![Rig::One, Rig::Two, Rig::Direct, Rig::HandedOver];
    }
    let out = out_directory()?;
    let _hugepages = Hugepages::reserve()?;
    let captures = [Captures::write(1024, few.seed, &out)?];
    let (mut windows, mut lost) = (Windows::new(), BTreeMap::new());
    measure_all(&options, |round, row| {
        if lost.contains_key(&row) {
            return Ok(());
        }
        match twice(&mut || measure_one(&options, row, &captures, &out))? {
            Ok(window) => drop(windows.entry(row).or_default().insert(round, window)),
            Err(reason) => drop(lost.insert(row, reason)),
        }
        Ok(())
    })?;
    let rows = options.rows().into_iter().filter_map(|row| report_row(row, &windows));
    let lost = lost.into_iter().map(|(row, reason)| (row.name().replace(" | ", " "), reason));
    Ok((rows.collect(), lost.collect()))
}

/// A rig beside its base; None of a base.
fn report_row(row: Row, windows: &Windows) -> Option<row::Row> {
    let base = row.rig.base().map(|rig| Row { rig, ..row })?;
    let (own, base_windows) = (windows.get(&row)?, windows.get(&base)?);
    let (all, clean) = (own.len(), own.values().filter(|w| w.clean()).count());
    let (own, theirs) = (used(own), used(base_windows));
    let ratios = own.iter().filter_map(|(round, w)| Some(w.mpps / theirs.get(round)?.mpps));
    // Two CPUs may be one core, and what runs beside the worker is not idle.
    let cores_exist = second_cpu() != CONTROL_CPU;
    let goal = match row.rig {
        Rig::Two if row.program == Program::Testpmd => None,
        Rig::Two => Some(Reach::RatioAtLeast(1.8).of(Topic::TwoWorkers)),
        _ => Some(Reach::RatioAtLeast(0.5).of(Topic::HandedOver)),
    };
    let dirt = if clean < all { format!("{clean} of {all} windows clean") } else { String::new() };
    let work = match row.program {
        Program::Testpmd => "testpmd macswap".to_owned(),
        _ => row.workload.to_string(),
    };
    let peer = Peer {
        name: base.rig.to_string(),
        figure: Spread::of(theirs.values().map(|w| w.mpps))?,
        ratio: Spread::of(ratios)?,
        measured: true,
    };
    let ours = Spread::of(own.values().map(|w| w.mpps))?;
    let doubt = "two CPUs: the second worker shares its own with control core and generator";
    Some(
        row::Row::new(format!("{work}: {}", row.rig), "Mpps", ours)
            .beside(peer)
            .judged(goal)
            .noting(dirt)
            .doubted(if cores_exist { "" } else { doubt }),
    )
}

/// What is measured once per round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    conns: usize,
    program: Program,
    workload: Workload,
    rig: Rig,
    /// The other binary.
    other: bool,
}

impl Row {
    /// The row that this one is compared with.
    fn base(self) -> Option<Row> {
        if self.other {
            return None;
        }
        match self.rig.base() {
            Some(rig) => Some(Row { rig, ..self }),
            None => Some(Row { other: true, ..self }),
        }
    }

    fn name(self) -> String {
        let work = match self.program {
            Program::Testpmd => "floor: testpmd macswap".to_owned(),
            _ => self.workload.to_string(),
        };
        let other = if self.other { " (other binary)" } else { "" };
        format!("{} | {work} | {}{other}", self.conns, self.rig)
    }
}

impl Options {
    fn rows(&self) -> Vec<Row> {
        let all = |given: &[Rig]| match (given.is_empty(), self.against.is_some()) {
            (false, _) => given.to_vec(),
            (true, true) => vec![Rig::One],
            (true, false) => Rig::value_variants().to_vec(),
        };
        let mut rows = Vec::new();
        for &conns in &self.rounds.conns {
            let row = |program, workload, rig| Row { conns, program, workload, rig, other: false };
            for rig in all(&self.rigs) {
                if rig.suits(Program::Testpmd, Workload::Forward) && self.against.is_none() {
                    rows.push(row(Program::Testpmd, Workload::Forward, rig));
                }
            }
            for &workload in Workload::value_variants() {
                let wanted = self.rows.is_empty() || self.rows.contains(&workload);
                for rig in all(&self.rigs) {
                    if !wanted || !rig.suits(Program::Sluicegate, workload) {
                        continue;
                    }
                    let row = row(Program::Sluicegate, workload, rig);
                    rows.extend(self.against.is_some().then_some(Row { other: true, ..row }));
                    rows.push(row);
                }
            }
        }
        rows
    }

    fn length(&self) -> Length {
        let window = Duration::from_secs_f64(self.rounds.secs);
        Length { window, warm_up: Duration::from_secs(1), retries: self.rounds.retries }
    }

    fn binary(&self, row: Row) -> &Path {
        match &self.against {
            Some(other) if row.other => other,
            _ => &self.rounds.sluicegate,
        }
    }
}

/// Measures, prints the report and writes it to perf/out/workers.md.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    machine::check()?;
    for binary in std::iter::once(&options.rounds.sluicegate).chain(&options.against) {
        if !binary.exists() {
            let (what, cure) = (binary.display().to_string(), "cargo build --release".to_owned());
            return Err(Failure::Missing { what, cure });
        }
    }
    catch_signals()?;
    machine::stay_on_control_cpu()?;
    let out = out_directory()?;
    let _hugepages = Hugepages::reserve()?;
    let mut report = preface(options);
    let captures =
        options.rounds.conns.iter().map(|&conns| Captures::write(conns, options.rounds.seed, &out));
    let captures = captures.collect::<Result<Vec<_>, _>>()?;
    let mut windows = Windows::new();
    measure_all(options, |round, row| {
        let window = measure_one(options, row, &captures, &out)?;
        windows.entry(row).or_default().insert(round, window);
        Ok(())
    })?;
    report += &table(&options.rows(), &windows);
    println!("{report}");
    let file = out.join("workers.md");
    fs::write(&file, report).map_err(Failure::io(file.display()))
}

fn preface(options: &Options) -> String {
    let mut text = format!(
        "# One worker and two\n\n{}- {} interleaved pairs of {} s, seed {}, 60-byte UDP frames, \
         burst 32; with two CPUs the second worker shares its own with the control core: \
         indicative\n",
        machine::environment(Some(&options.rounds.sluicegate)),
        options.rounds.pairs,
        options.rounds.secs,
        options.rounds.seed,
    );
    if let Some(other) = &options.against {
        let _ = writeln!(text, "- other binary: {}", other.display());
    }
    text + "\n"
}

type Windows = BTreeMap<Row, BTreeMap<usize, CrewWindow>>;

/// All rows in all rounds, forwards and backwards in turn.
fn measure_all(
    options: &Options,
    mut measure: impl FnMut(usize, Row) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for round in 0..options.rounds.pairs {
        let mut order = options.rows();
        if round % 2 == 1 {
            order.reverse();
        }
        order.into_iter().try_for_each(|row| measure(round, row))?;
    }
    Ok(())
}

fn measure_one(
    options: &Options,
    row: Row,
    all: &[Captures],
    out: &Path,
) -> Result<CrewWindow, Failure> {
    let missing = || Failure::Missing { what: row.name(), cure: "captures".to_owned() };
    let captures = all.iter().find(|c| c.conns() == row.conns).ok_or_else(missing)?;
    let plan = plan(row, captures, out, options);
    fs::create_dir_all(&plan.scratch).map_err(Failure::io(plan.scratch.display()))?;
    let tsc_hz = machine::tsc_hz()?;
    let window = crew::measure(row.program, &plan, row.rig.way(), options.length(), tsc_hz)?;
    eprintln!("{}", progress(row, &window));
    Ok(window)
}

fn plan<'a>(row: Row, captures: &Captures, out: &'a Path, options: &'a Options) -> Plan<'a> {
    Plan {
        workload: row.workload,
        kind: Kind::Udp,
        conns: row.conns,
        // The wires have the captures.
        originals: out,
        replies: out,
        sink: Sink::Nowhere,
        scratch: out.join(row.program.directory()),
        sluicegate: options.binary(row),
        wires: Some(row.rig.wires(captures, row.workload)),
        tuning: Tuning::default(),
        callgrind: None,
    }
}

fn progress(row: Row, window: &CrewWindow) -> String {
    let mut text = format!("{}: {:.2} Mpps", row.name().replace(" | ", " "), window.mpps);
    for m in &window.members {
        let percent = m.share * 100.0;
        let _ = write!(text, ", CPU {}: {:.0} cycles, {percent:.0} % of it", m.cpu, m.cycles);
    }
    text + if window.clean() { "" } else { " (dirty)" }
}

/// The table as markdown.
fn table(rows: &[Row], windows: &Windows) -> String {
    let mut text =
        "| conns | work | rig | Mpps in | Mpps out | ÷ base | cycles/packet | by CPU time | ÷ base \
         | each worker | CPU shares | handed over % | no room % | clean |\n\
         |--:|---|---|--:|--:|--:|--:|--:|--:|---|---|--:|--:|--:|\n"
            .to_owned();
    for row in rows {
        let Some(own) = windows.get(row) else { continue };
        let base = row.base().and_then(|base| windows.get(&base));
        write_row(&mut text, &row.name(), &used(own), base.map(used).unwrap_or_default());
        let clean = own.values().filter(|w| w.clean()).count();
        let _ = writeln!(text, " {clean}/{} |", own.len());
    }
    text
}

/// The windows of a row that count: the clean ones, or all where none is clean.
fn used(windows: &BTreeMap<usize, CrewWindow>) -> BTreeMap<usize, &CrewWindow> {
    let any = windows.values().any(CrewWindow::clean);
    windows.iter().filter(|(_, w)| !any || w.clean()).map(|(&round, w)| (round, w)).collect()
}

fn write_row(
    text: &mut String,
    name: &str,
    own: &BTreeMap<usize, &CrewWindow>,
    base: BTreeMap<usize, &CrewWindow>,
) {
    let show = |figure: &dyn Fn(&CrewWindow) -> f64, digits| {
        Spread::show(Spread::of(own.values().map(|w| figure(w))), digits)
    };
    let ratio = |figure: fn(&CrewWindow) -> f64| {
        let pairs = own.iter().filter_map(|(round, w)| Some((w, base.get(round)?)));
        Spread::show(Spread::of(pairs.map(|(w, base)| figure(w) / figure(base))), 2)
    };
    let members = own.values().next().map_or(0, |w| w.members.len());
    let each = |figure: fn(&crew::Member) -> f64| {
        let of = |i: usize| show(&|w: &CrewWindow| w.members.get(i).map_or(0.0, figure), 0);
        (0..members).map(of).collect::<Vec<_>>().join(" + ")
    };
    let _ = write!(
        text,
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        show(&|w| w.offered, 2),
        show(&|w| w.mpps, 2),
        ratio(|w| w.mpps),
        show(&|w| w.wall_cycles, 0),
        show(&CrewWindow::cpu_cycles, 0),
        ratio(CrewWindow::cpu_cycles),
        each(|m| m.cycles),
        each(|m| m.share * 100.0),
        show(&|w| w.handed * 100.0, 1),
        show(&|w| w.no_room * 100.0, 1),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(mpps: f64) -> CrewWindow {
        CrewWindow {
            offered: mpps,
            mpps,
            wall_cycles: 2600.0 / mpps,
            handed: 1.0,
            no_room: 0.0,
            members: Vec::new(),
        }
    }

    #[test]
    fn a_rig_is_divided_by_its_base_in_the_same_round() {
        let row = |rig| Row {
            conns: 8,
            program: Program::Sluicegate,
            workload: Workload::SnatBoth,
            rig,
            other: false,
        };
        let (direct, over) = (row(Rig::DirectBoth), row(Rig::Crossed));
        let mut windows = Windows::new();
        windows.insert(direct, [(0, window(10.0)), (1, window(40.0))].into());
        windows.insert(over, [(0, window(6.0)), (1, window(20.0))].into());
        let table = table(&[direct, over], &windows);
        let line = table.lines().last().unwrap();
        assert!(line.contains("| 13.00 (6.00–20.00) | 0.55 (0.50–0.60) |"), "{line}");
        assert!(line.ends_with(" 2/2 |"), "{line}");
        let judged = report_row(over, &windows).unwrap();
        // As good as it is, two CPUs cannot tell.
        let undecided = matches!(judged.outcome(), Some(row::Outcome::Undecided(_)));
        assert_eq!(undecided, second_cpu() == CONTROL_CPU);
        assert!(judged.remark.is_empty() && report_row(direct, &windows).is_none());
        let base = table.lines().nth(2).unwrap();
        assert!(base.contains("| 25.00 (10.00–40.00) | – |"), "{base}");
    }
}
