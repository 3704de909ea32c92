//! `perf latency`: how long packets are under way, at a share of the greatest rate.
//!
//! Each program has two memif ports, shared memory that a generator in a process of its own
//! connects to: it sends stamped frames of known conns at a pace, takes them back behind the
//! program and reads its clock (`generator`). First it sends as much as there is room for, which
//! tells the greatest rate of program and generator together; then a share of it. Open vSwitch
//! comes first in a round; the product is also timed at shares of its rate, and testpmd, which
//! keeps no state, at the product's, so that rates are the same where times are compared.
//!
//! The rig needs two CPUs and nothing else: the worker has one, the generator shares the other one
//! with the control core of the program and with this program, which both rest while it is timed.

pub(crate) mod generator;
mod histogram;

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::compare::out_directory;
use crate::frame::Kind;
use crate::goals::Topic;
use crate::machine::{self, Fare, Hugepages, Thread};
use crate::ovs::Tuning;
use crate::process::{Daemon, Failure, WORKER_CPU, catch_signals};
use crate::program::{
    Plan, Program, Running, RuntimeDirectory, Sink, Workload, file_prefix, memif,
};
use crate::row::{Peer, Reach, Row, Spread};

/// DPDK's file prefix of the generator.
const PREFIX: &str = "generator";
/// Loads, as shares of a greatest rate.
const LOADS: [f64; 3] = [0.01, 0.5, 0.9];
/// The load at which the product is judged.
const JUDGED: f64 = 0.5;
/// How much of the peer's time a packet may take there.
const GOAL: f64 = 0.6;
/// Frames per second and milliseconds that are sent until they come out.
const WARM_UP: (f64, u64) = (20_000.0, 300);
/// How often they are.
const WARM_UPS: usize = 30;
/// Share of the frames that may be lost where nobody is overloaded.
const LOSS_MAX: f64 = 0.001;
const PATIENCE: Duration = Duration::from_secs(20);

/// What is said of all rows.
const REMARK: &str = "over memif; the generator shares its CPU with the control core";

/// What to time.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The work, in one direction.
    #[arg(long, default_value = "snat")]
    row: Workload,
    /// Number of conns.
    #[arg(long, default_value_t = 1024)]
    conns: usize,
    /// Rounds; a ratio is taken inside each.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds at each load.
    #[arg(long, default_value_t = 2.0)]
    secs: f64,
    /// Seed of the conns.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Peers to run.
    #[arg(long, value_delimiter = ',', default_value = "testpmd,ovs")]
    peers: Vec<Program>,
    /// The gateway's binary.
    #[arg(long, default_value = "target/release/sluicegate")]
    sluicegate: PathBuf,
}

/// Whose greatest rate a load is a share of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Load {
    of: Program,
    share: f64,
}

/// A program at a load, in one round.
struct Timed {
    program: Program,
    load: Load,
    round: usize,
    times: Times,
    /// Whether the forwarding thread had its CPU to itself.
    clean: bool,
}

/// What the generator answered; times in microseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    mpps: f64,
    lost: f64,
    left_out: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Times {
    fn read(answer: &str) -> Result<Self, Failure> {
        let failure = || Failure::Answer { what: "the times".to_owned(), text: answer.to_owned() };
        let value: Value = serde_json::from_str(answer).map_err(|_| failure())?;
        let number = |name: &str| value.get(name).and_then(Value::as_f64).ok_or_else(failure);
        let (sent, received) = (number("sent")?, number("received")?);
        if received == 0.0 || number("timed")? == 0.0 {
            return Err(failure());
        }
        let us = |name: &str| Ok(number(name)? / 1e3);
        Ok(Self {
            mpps: number("pps")? / 1e6,
            lost: (sent + number("refused")? - received) / (sent + number("refused")?),
            left_out: number("left_out")? / received,
            p50: us("p50_ns")?,
            p99: us("p99_ns")?,
            p999: us("p999_ns")?,
            max: us("max_ns")?,
        })
    }
}

/// Times, prints the table and writes it to perf/out/latency.md.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    catch_signals()?;
    machine::stay_on_control_cpu()?;
    let _hugepages = Hugepages::reserve()?;
    let mut report = format!(
        "# Time under way\n\n{}- {} conns, {}, 60-byte UDP frames, {} rounds of {} s at each load; \
         {REMARK}\n\n",
        machine::environment(Some(&options.sluicegate)),
        options.conns,
        options.row,
        options.pairs,
        options.secs
    );
    let timed = time_all(options)?;
    report += &table(&timed);
    report += "\n| row | ours, µs | peer | peer's | ratio | goal |\n|---|--:|---|--:|--:|---|\n";
    for row in judge(options, &timed) {
        let peer = row.peer.as_ref();
        let goal = row.outcome().zip(row.goal);
        let goal = goal.map(|(outcome, goal)| format!("{goal}: {outcome}"));
        let _ = writeln!(
            report,
            "| {} | {} | {} | {} | {} | {} |",
            row.name,
            Spread::show(Some(row.ours), 1),
            peer.map_or("", |peer| &peer.name),
            Spread::show(peer.map(|peer| peer.figure), 1),
            Spread::show(peer.map(|peer| peer.ratio), 2),
            goal.unwrap_or_default()
        );
    }
    println!("{report}");
    let file = out_directory()?.join("latency.md");
    fs::write(&file, report).map_err(Failure::io(file.display()))
}

impl Options {
    /// As the report measures it.
    pub(crate) fn of(pairs: usize, secs: f64, seed: u64, sluicegate: &Path) -> Self {
        let (row, conns) = (Workload::Snat, 1024);
        let (peers, sluicegate) = (vec![Program::Testpmd, Program::Ovs], sluicegate.to_path_buf());
        Self { row, conns, pairs, secs, seed, peers, sluicegate }
    }
}

/// The rows of the report.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    Ok(judge(options, &time_all(options)?))
}

fn time_all(options: &Options) -> Result<Vec<Timed>, Failure> {
    machine::check()?;
    if options.row.both_ways() {
        let cure = "choose forward, firewall or snat".to_owned();
        return Err(Failure::Missing { what: "a row in one direction".to_owned(), cure });
    }
    let mut all = Vec::new();
    for round in 0..options.pairs {
        let mut rates = Vec::new();
        for program in [Program::Ovs, Program::Sluicegate, Program::Testpmd] {
            if program == Program::Sluicegate || options.peers.contains(&program) {
                time_program(options, program, round, &mut rates, &mut all)?;
            }
        }
    }
    Ok(all)
}

/// Starts a program and its generator, finds the greatest rate and times it at every load.
fn time_program(
    options: &Options,
    program: Program,
    round: usize,
    rates: &mut Vec<(Program, f64)>,
    all: &mut Vec<Timed>,
) -> Result<(), Failure> {
    let out = out_directory()?;
    let sockets = out.join("memif");
    let _ = fs::remove_dir_all(&sockets);
    let scratch = out.join(program.directory());
    for folder in [&sockets, &scratch] {
        fs::create_dir_all(folder).map_err(Failure::io(folder.display()))?;
    }
    let plan = Plan {
        workload: options.row,
        kind: Kind::Udp,
        conns: options.conns,
        originals: Path::new(""),
        replies: Path::new(""),
        sink: Sink::Memif(sockets.clone()),
        scratch,
        sluicegate: &options.sluicegate,
        wires: None,
        tuning: Tuning::default(),
        callgrind: None,
    };
    // Dropped in the other order: the driver of who is connected to fails when its peer goes first.
    let mut generator;
    let mut running = program.start(&plan)?;
    generator = Generator::start(options, program, &sockets, &out)?;
    generator.warm_up()?;
    let thread = Thread::forwarding(running.pid(), WORKER_CPU)?;
    let most = generator.order(0.0, (options.secs * 1e3) as u64)?.mpps * 1e6;
    // Testpmd has no loads of its own: it is timed at those of the product.
    let of = if program == Program::Testpmd { Program::Sluicegate } else { program };
    if of == program {
        rates.push((program, most));
    }
    eprintln!("round {}: {program} up to {:.2} Mpps", round + 1, most / 1e6);
    let wanted = |&&(whose, _): &&(Program, f64)| whose == of || program == Program::Sluicegate;
    for &(whose, rate) in rates.iter().filter(wanted) {
        for share in LOADS {
            let before = thread.usage()?;
            let times = generator.order(rate * share, (options.secs * 1e3) as u64)?;
            let clean = Fare::between(before, thread.usage()?, options.secs).clean();
            let load = Load { of: whose, share };
            eprintln!("  {}{}", line(program, load, &times), if clean { "" } else { " (dirty)" });
            all.push(Timed { program, load, round, times, clean });
        }
    }
    check_work(options, program, running.as_mut())
}

/// The table holds the offered conns, translated where that was the work.
fn check_work(
    options: &Options,
    program: Program,
    running: &mut dyn Running,
) -> Result<(), Failure> {
    if !program.tracks(options.row) {
        return Ok(());
    }
    let (mut found, mut what) = (running.conns()?, "conns");
    if let Some((first, last)) = options.row.pool().filter(|_| found == options.conns as u64) {
        let pool: (Ipv4Addr, Ipv4Addr) = (first, last);
        (found, what) = (running.translated(pool.0, pool.1)?, "translated conns");
    }
    if found == options.conns as u64 {
        return Ok(());
    }
    let reason = format!("{found} {what} instead of {}", options.conns);
    Err(Failure::Work { program: program.to_string(), reason })
}

/// The generator's process.
struct Generator {
    daemon: Daemon,
    _runtime: RuntimeDirectory,
}

impl Generator {
    fn start(
        options: &Options,
        program: Program,
        sockets: &Path,
        out: &Path,
    ) -> Result<Self, Failure> {
        let own = std::env::current_exe().map_err(Failure::io("this program"))?;
        let prefix = file_prefix(PREFIX);
        let words = ["generate", "--prefix", &prefix, "--conns"].map(str::to_owned);
        // Open vSwitch has a queue to send by for each of its threads and its first one for main.
        let queues = if program == Program::Ovs { 2 } else { 1 };
        let numbers = [
            options.conns.to_string(),
            format!("--seed={}", options.seed),
            format!("--queues={queues}"),
        ];
        let sockets = memif(sockets).map(|socket| socket.display().to_string());
        let args: Vec<String> = words.into_iter().chain(numbers).chain(sockets).collect();
        let daemon = Daemon::start(&own, &args, &[], &out.join("generator.log"))?;
        let mut generator = Self { daemon, _runtime: RuntimeDirectory(prefix) };
        generator.daemon.line(PATIENCE, |line| line == "ready")?;
        Ok(generator)
    }

    /// Sends frames until nearly all of them come out.
    fn warm_up(&mut self) -> Result<(), Failure> {
        let mut answer = String::new();
        for _ in 0..WARM_UPS {
            answer = self.ask(WARM_UP.0, WARM_UP.1)?;
            if Times::read(&answer).is_ok_and(|times| times.lost < 0.1) {
                return Ok(());
            }
        }
        let reason = format!("what is sent does not come back: {answer}");
        Err(Failure::Work { program: "the generator".to_owned(), reason })
    }

    /// Sends `pps` frames a second, 0 for as many as there is room for.
    fn order(&mut self, pps: f64, ms: u64) -> Result<Times, Failure> {
        Times::read(&self.ask(pps, ms)?)
    }

    fn ask(&mut self, pps: f64, ms: u64) -> Result<String, Failure> {
        self.daemon.say(&format!("{pps} {ms}"))?;
        self.daemon.line(PATIENCE + Duration::from_millis(ms), |line| line.starts_with('{'))
    }
}

fn line(program: Program, load: Load, times: &Times) -> String {
    let Times { mpps, lost, left_out, p50, p99, p999, max } = times;
    format!(
        "{program} at {} of {}: {mpps:.3} Mpps, p50 {p50:.1} p99 {p99:.1} p99.9 {p999:.1} max \
         {max:.0} µs, {:.2} % lost, {:.2} % left out",
        percent(load.share),
        load.of,
        lost * 100.0,
        left_out * 100.0
    )
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A program's windows at a load that count: the clean ones, or all where none is.
fn used(timed: &[Timed], program: Program, load: Load) -> impl Iterator<Item = &Timed> {
    let own = move |t: &&Timed| t.program == program && t.load == load;
    let any_clean = timed.iter().filter(own).any(|t| t.clean);
    timed.iter().filter(own).filter(move |t| t.clean || !any_clean)
}

/// A figure of a program at a load, over all rounds.
fn spread(
    timed: &[Timed],
    program: Program,
    load: Load,
    figure: fn(&Times) -> f64,
) -> Option<Spread> {
    Spread::of(used(timed, program, load).map(|t| figure(&t.times)))
}

fn table(timed: &[Timed]) -> String {
    let mut text = "| program | load | Mpps | p50 µs | p99 | p99.9 | max | lost % | left out % |\n\
                    |---|---|--:|--:|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let mut seen: Vec<(Program, Load)> = Vec::new();
    for Timed { program, load, .. } in timed {
        if seen.contains(&(*program, *load)) {
            continue;
        }
        seen.push((*program, *load));
        let show = |figure: fn(&Times) -> f64, digits| {
            Spread::show(spread(timed, *program, *load, figure), digits)
        };
        let _ = writeln!(
            text,
            "| {program} | {} of {}'s rate | {} | {} | {} | {} | {} | {} | {} |",
            percent(load.share),
            load.of,
            show(|t| t.mpps, 3),
            show(|t| t.p50, 1),
            show(|t| t.p99, 1),
            show(|t| t.p999, 1),
            show(|t| t.max, 0),
            show(|t| t.lost * 100.0, 2),
            show(|t| t.left_out * 100.0, 2),
        );
    }
    text
}

/// The product's p99 at each load beside who was timed at the same rate.
fn judge(options: &Options, timed: &[Timed]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (of, peer) in [(Program::Ovs, Program::Ovs), (Program::Sluicegate, Program::Testpmd)] {
        for share in LOADS {
            let load = Load { of, share };
            let ours = |figure| spread(timed, Program::Sluicegate, load, figure);
            let Some(p99) = ours(|t| t.p99) else { continue };
            let judged = of == Program::Ovs && share == JUDGED;
            let name = format!(
                "latency p99, {}, {} conns, {} of {of}'s rate",
                options.row,
                options.conns,
                percent(share)
            );
            let beside = beside(timed, load, peer);
            let ratio = beside.as_ref().map(|peer| peer.ratio.median);
            rows.push(
                Row::new(name, "µs", p99)
                    .beside(beside)
                    .judged(judged.then_some(Reach::RatioAtMost(GOAL).of(Topic::Latency)))
                    .noting(remark(timed, load, peer))
                    .doubted(doubt(timed, load, peer, ratio)),
            );
        }
    }
    rows
}

/// A peer at the same rate; ratios are taken inside a round.
fn beside(timed: &[Timed], load: Load, peer: Program) -> Option<Peer> {
    let pairs = used(timed, Program::Sluicegate, load).filter_map(|ours| {
        let other = used(timed, peer, load).find(|other| other.round == ours.round)?;
        Some(ours.times.p99 / other.times.p99)
    });
    Some(Peer {
        name: peer.to_string(),
        figure: spread(timed, peer, load, |t| t.p99)?,
        ratio: Spread::of(pairs)?,
        measured: true,
    })
}

/// Why nothing can be said. A peer whose thread was preempted is slower than it is; that ours was
/// makes a goal harder to reach, so it decides nothing where the goal is missed.
fn doubt(timed: &[Timed], load: Load, peer: Program, ratio: Option<f64>) -> String {
    let dirty = |program| used(timed, program, load).any(|t| !t.clean);
    if dirty(peer) {
        return format!("no clean window of {peer}");
    }
    let missed = ratio.is_some_and(|ratio| ratio > GOAL);
    let ours = missed && dirty(Program::Sluicegate);
    if ours { "no clean window of Sluicegate".to_owned() } else { String::new() }
}

fn remark(timed: &[Timed], load: Load, peer: Program) -> String {
    let ours = |figure| spread(timed, Program::Sluicegate, load, figure).map_or(0.0, |s| s.median);
    let mut text = format!(
        "{REMARK}; {:.2} Mpps; p50 {:.1}, p99.9 {:.1}, max {:.0} µs",
        ours(|t| t.mpps),
        ours(|t| t.p50),
        ours(|t| t.p999),
        ours(|t| t.max)
    );
    if used(timed, Program::Sluicegate, load).any(|t| !t.clean) {
        text += "; no clean window of Sluicegate";
    }
    for program in [Program::Sluicegate, peer] {
        let lost = spread(timed, program, load, |t| t.lost).map_or(0.0, |s| s.median);
        if lost > LOSS_MAX {
            let _ = write!(text, "; {program} lost {:.1} %", lost * 100.0);
        }
        let left_out = spread(timed, program, load, |t| t.left_out).map_or(0.0, |s| s.median);
        if left_out > LOSS_MAX {
            let away = left_out * 100.0;
            let _ = write!(text, "; {away:.1} % of {program}'s came while the generator was away");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Outcome;

    fn timed(program: Program, round: usize, p99: f64) -> Timed {
        let times =
            Times { mpps: 1.0, lost: 0.0, left_out: 0.0, p50: 1.0, p99, p999: 9.0, max: 99.0 };
        Timed { program, load: Load { of: Program::Ovs, share: JUDGED }, round, times, clean: true }
    }

    #[test]
    fn the_product_is_judged_beside_the_peer_of_its_round() {
        let rounds = [(4.0, 10.0), (5.0, 10.0), (30.0, 40.0)].into_iter().enumerate();
        let both = rounds.flat_map(|(round, (ours, peer))| {
            [timed(Program::Sluicegate, round, ours), timed(Program::Ovs, round, peer)]
        });
        let options = Options::of(3, 1.0, 1, Path::new(""));
        let rows = judge(&options, &both.collect::<Vec<_>>());
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].ours.median, rows[0].outcome()), (5.0, Some(Outcome::Pass)));
        assert_eq!(rows[0].peer.as_ref().unwrap().ratio.median, 0.5);
    }

    #[test]
    fn a_window_without_its_cpu_of_its_own_proves_no_miss() {
        let options = Options::of(3, 1.0, 1, Path::new(""));
        let outcome = |ours, clean| {
            let product = Timed { clean, ..timed(Program::Sluicegate, 0, ours) };
            judge(&options, &[product, timed(Program::Ovs, 0, 10.0)])[0].outcome()
        };
        assert_eq!(outcome(5.0, false), Some(Outcome::Pass));
        assert!(matches!(outcome(7.0, false), Some(Outcome::Undecided(_))));
        assert_eq!(outcome(7.0, true), Some(Outcome::Miss));
    }

    #[test]
    fn an_answer_without_times_is_none() {
        let answer = |received: u64| {
            format!(
                "{{\"sent\":100,\"refused\":100,\"received\":{received},\"left_out\":5,\"pps\":2e6,\
                 \"timed\":{received},\"p50_ns\":1500,\"p99_ns\":2,\"p999_ns\":3,\"max_ns\":4}}"
            )
        };
        let times = Times::read(&answer(100)).unwrap();
        assert_eq!((times.mpps, times.lost, times.left_out, times.p50), (2.0, 0.5, 0.05, 1.5));
        assert!(Times::read(&answer(0)).is_err());
    }
}
