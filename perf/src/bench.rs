//! `perf bench`: every row that the product is judged by, in one report.
//!
//! The parts come in a fixed order: packets through devices beside their peers, two workers, and
//! then whatever else this crate measures. Each part gives rows; the page shows them with goal and
//! outcome, the floors and the raw cycles. The program ends with an error unless every judged row
//! reaches its goal, so a report can gate a change.

mod forwarding;
mod page;
mod svg;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::compare::out_directory;
use crate::inprocess;
use crate::instructions;
use crate::latency;
use crate::machine::{self, Hugepages};
use crate::measure::Length;
use crate::process::{Failure, catch_signals};
use crate::row::{Lost, Row};
use crate::stand::Stand;
use crate::workers;

/// How much to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A few rows, one short window each: whether everything runs, no figures to quote.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Nine rounds of three seconds.
    #[arg(long)]
    full: bool,
    /// Folder of the report (default: out/report of this crate).
    #[arg(long)]
    out: Option<PathBuf>,
    /// Parts to measure (default: all).
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Chapter>,
    /// Rows of the forwarding part whose names have this in them (default: all).
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Seed of the conns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The gateway's binary.
    #[arg(long, default_value = "target/release/sluicegate")]
    sluicegate: PathBuf,
}

/// The parts of the report, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Chapter {
    /// Packets through devices, beside testpmd, Open vSwitch and VPP.
    Forwarding,
    /// One worker and two, direct and handed over.
    Workers,
    /// The table by itself, and a gateway over ports in memory.
    InProcess,
    /// Instructions per packet, beside testpmd.
    Instructions,
    /// How long packets are under way, beside Open vSwitch and testpmd.
    Latency,
}

/// Rounds and windows of a report.
struct Effort {
    quick: bool,
    pairs: usize,
    length: Length,
    /// Whether a peer's settings are tried first.
    tune: bool,
    /// After this time no other round of the forwarding part begins.
    patience: Option<Duration>,
}

/// Of `make bench`, whose other parts take about ten minutes: half an hour in all.
const PATIENCE: Duration = Duration::from_secs(12 * 60);

impl Options {
    fn effort(&self) -> Effort {
        let length = |window: f64, warm_up: f64, retries| Length {
            window: Duration::from_secs_f64(window),
            warm_up: Duration::from_secs_f64(warm_up),
            retries,
        };
        let (pairs, length) = match (self.quick, self.full) {
            (true, _) => (1, length(0.4, 0.3, 0)),
            (_, true) => (9, length(3.0, 1.0, 2)),
            _ => (3, length(1.2, 0.6, 1)),
        };
        let patience = (!self.full).then_some(PATIENCE);
        Effort { quick: self.quick, pairs, length, tune: !self.quick, patience }
    }

    fn command(&self) -> &'static str {
        match (self.quick, self.full) {
            (true, _) => "make bench-quick",
            (_, true) => "make bench-full",
            _ => "make bench",
        }
    }
}

/// A part of the report.
struct Part {
    title: &'static str,
    rows: Vec<Row>,
    failures: Lost,
    /// What is to be known about all rows.
    remarks: Vec<String>,
}

impl Part {
    fn new(title: &'static str) -> Self {
        Self { title, rows: Vec::new(), failures: Vec::new(), remarks: Vec::new() }
    }

    /// Of a benchmark that gives rows, or fails as a whole.
    fn of(title: &'static str, rows: Result<Vec<Row>, Failure>) -> Result<Self, Failure> {
        let mut part = Self::new(title);
        match rows {
            Ok(rows) => part.rows = rows,
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => part.failures.push((title.to_owned(), failure.to_string())),
        }
        Ok(part)
    }
}

/// All that was measured.
#[derive(Default)]
struct Book {
    parts: Vec<Part>,
    /// Cycles of the floor and above it, by workload.
    split: Vec<(String, f64, f64)>,
    /// The table of floors and raw cycles.
    cycles: String,
}

impl Book {
    /// Adds a part that was measured since `start`.
    fn add(&mut self, mut part: Part, start: Instant) {
        let seconds = start.elapsed().as_secs();
        eprintln!("{}: {} rows in {seconds} s", part.title, part.rows.len());
        part.remarks.push(format!("Took {seconds} s."));
        self.parts.push(part);
    }
}

/// Measures, prints the report and writes it with its plots. Fails if a judged row misses its goal
/// or a row could not be measured.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    machine::check()?;
    if !options.sluicegate.exists() {
        let what = options.sluicegate.display().to_string();
        return Err(Failure::Missing { what, cure: "cargo build --release".to_owned() });
    }
    catch_signals()?;
    machine::stay_on_control_cpu()?;
    let out = out_directory()?;
    let folder = options.out.clone().unwrap_or_else(|| out.join("report"));
    fs::create_dir_all(&folder).map_err(Failure::io(folder.display()))?;
    let _hugepages = Hugepages::reserve()?;
    let environment = machine::environment(Some(&options.sluicegate));
    let start = Instant::now();
    let book = measure(options, &out)?;
    let count = page::Count::of(&book.parts);
    let took = start.elapsed().as_secs() / 60;
    let text = write(options, &book, count, &folder, &environment, took)?;
    println!("{text}");
    let page::Count { missed, lost, passed, .. } = count;
    if count.good() { Ok(()) } else { Err(Failure::Goals { missed, lost, passed }) }
}

fn measure(options: &Options, out: &Path) -> Result<Book, Failure> {
    let mut book = Book::default();
    for &chapter in Chapter::value_variants() {
        if options.parts.is_empty() || options.parts.contains(&chapter) {
            measure_chapter(chapter, options, out, &mut book)?;
        }
    }
    Ok(book)
}

fn measure_chapter(
    chapter: Chapter,
    options: &Options,
    out: &Path,
    book: &mut Book,
) -> Result<(), Failure> {
    let effort = options.effort();
    let start = Instant::now();
    match chapter {
        Chapter::Forwarding => {
            let mut stand = Stand::new(out, options.seed, &options.sluicegate)?;
            let only = options.only.as_deref().unwrap_or("");
            let measured = forwarding::measure(&effort, only, &mut stand)?;
            book.add(measured.part(), start);
            book.split = measured.split();
            book.cycles = measured.windows.table();
        }
        Chapter::Workers => {
            let few = workers::Few {
                pairs: effort.pairs,
                length: effort.length,
                seed: options.seed,
                sluicegate: &options.sluicegate,
                quick: effort.quick,
            };
            let mut part = Part::new("Workers");
            (part.rows, part.failures) = workers::rows(&few)?;
            part.remarks.push(workers::REMARK.to_owned());
            book.add(part, start);
        }
        Chapter::InProcess => {
            let pairs = Some(effort.pairs);
            let few = inprocess::Options { quick: effort.quick, pairs, seed: options.seed };
            for (title, rows) in inprocess::PARTS {
                let start = Instant::now();
                book.add(Part::of(title, rows(&few))?, start);
            }
        }
        Chapter::Instructions => {
            let few = instructions::Options::of(options.seed, &options.sluicegate, effort.quick);
            let (rows, profiles) = match instructions::rows(&few) {
                Ok((rows, profiles)) => (Ok(rows), profiles),
                Err(failure) => (Err(failure), Vec::new()),
            };
            let mut part = Part::of("Instructions", rows)?;
            part.remarks.extend(profiles);
            book.add(part, start);
        }
        Chapter::Latency => {
            let secs = effort.length.window.as_secs_f64();
            let few = latency::Options::of(effort.pairs, secs, options.seed, &options.sluicegate);
            book.add(Part::of("Latency", latency::rows(&few))?, start);
        }
    }
    Ok(())
}

/// Writes page and plots; gives the page.
fn write(
    options: &Options,
    book: &Book,
    count: page::Count,
    folder: &Path,
    environment: &str,
    minutes: u64,
) -> Result<String, Failure> {
    let effort = options.effort();
    let mut text = format!(
        "# Sluicegate: every row and its goal\n\n**{} pass, {} miss, {} undecided, {} could not be \
         measured; {} more figures.**\n\n{environment}- {} interleaved rounds of {} s, seed {}, burst 32, one \
         forwarding core; {minutes} minutes in all\n- again: `{}`\n\n",
        count.passed,
        count.missed,
        count.undecided,
        count.lost,
        count.not_judged,
        effort.pairs,
        effort.length.window.as_secs_f64(),
        options.seed,
        options.command(),
    );
    if effort.quick {
        text += "A quick run shows that everything works; its windows are too short and too few for \
                 figures.\n\n";
    }
    text += "A goal is judged on the median; where it lies within what the median may be, it is \
             reached or missed *closely*, and another run may say otherwise. Ratios are taken inside \
             a round, between windows that lie close in time. Figures with \\* were not measured \
             here but once on a machine of this kind.\n";
    text += &page::goals(&book.parts);
    text += &page::lost(&book.parts);
    book.parts.iter().for_each(|part| text += &page::section(part));
    let mut plots = page::plots(&book.parts, folder)?;
    if !book.split.is_empty() {
        let _ = write!(
            text,
            "\n## Floors and cycles\n\n`testpmd macswap` is what devices and DPDK cost without any \
             work. Cycles are those of the time stamp counter: on the wall clock, by the forwarding \
             thread's CPU time, and of that what is above the floor.\n\n{}",
            book.cycles
        );
        plots.push(page::plot_split(&book.split, folder)?);
    }
    if !plots.is_empty() {
        text += "\n## Plots\n\n";
    }
    for (title, file) in &plots {
        let _ = writeln!(text, "![{title}]({file})\n");
    }
    let file = folder.join("report.md");
    fs::write(&file, &text).map_err(Failure::io(file.display()))?;
    Ok(text)
}
