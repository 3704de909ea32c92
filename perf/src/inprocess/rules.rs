//! What rules cost: first packets and known ones behind ten, a thousand and ten thousand of them.
//!
//! No rule but the last two matches what is sent: a first packet meets all of them, to be let in by
//! the last one, and a known packet none. Rules are of three shapes, as large rule files have them:
//! sources that are shut out, services that are let in, and of everything something. A row is
//! beside the one of ten rules: the ratio is what the other rules cost. Then the commands that put
//! such files in force are timed, with nothing else to do and while packets flow, which must lose
//! none.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::gateway::{ControlCore, Served};
use sluicegate::tools::Gateway;

use super::clock::{Passed, clean_windows, pin};
use super::established::{floor_ns, talk};
use super::gateway::{PATIENT, Plan, Rig, broken, work};
use super::newconns::floor_of;
use super::picks::Spread as Law;
use super::trial::{Phase, Trial};
use super::{Options, print};
use crate::process::{Failure, WORKER_CPU};
use crate::row::{Peer, Row, Spread};

/// Rules of the chain FORWARD.
const SIZES: [u32; 3] = [10, 1_000, 10_000];
/// CSIT's lesser scale, so that the table's cache misses are not what is measured.
const CONNS: u32 = 64_512;

/// Rules of the files that are restored.
const RESTORED: [u32; 2] = [10_000, 100_000];
/// Of these, those that are replaced while packets flow.
const REPLACED: u32 = 10_000;
/// What `iptables -A` does to the rules that are there.
const ONE_MORE: &str = "*filter\n-A FORWARD -s 192.0.2.1 -j DROP\nCOMMIT\n";

/// What the rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A source each, dropped.
    Sources,
    /// Server, protocol, port and state NEW each, accepted.
    Services,
    /// Sources and networks of all lengths, services, ranges and lists of ports, interfaces.
    Mixed,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shape::Sources => "sources",
            Shape::Services => "services",
            Shape::Mixed => "mixed",
        })
    }
}

impl Shape {
    const ALL: [Shape; 3] = [Shape::Sources, Shape::Services, Shape::Mixed];

    /// The rule with this number; it is for none of a trial's conns.
    fn rule(self, number: u32) -> String {
        // All networks begin with a bit that no address of a trial has.
        let address = std::net::Ipv4Addr::from_bits(number.wrapping_mul(0x9e37_79b1) | 1 << 29);
        let port = 1024 + number * 7 % 50_000;
        let new = "-m conntrack --ctstate NEW -j ACCEPT";
        match self {
            Shape::Sources => format!("-s {address}/32 -j DROP"),
            Shape::Services => format!("-d {address}/32 -p udp -m udp --dport {port} {new}"),
            Shape::Mixed => match number % 8 {
                0 | 1 => format!("-s {address}/32 -j DROP"),
                2 => format!("-s {address}/{} -j DROP", 12 + number / 8 % 20),
                3 | 4 => format!("-d {address}/32 -p tcp -m tcp --dport {port} {new}"),
                5 => format!(
                    "-d {address}/32 -p udp -m multiport --dports {port},{} {new}",
                    port + 9
                ),
                6 => format!("-d {address}/24 -p udp -m udp --dport {port}:{} {new}", port + 90),
                _ => format!("-i wan -o lan -d {address}/32 -m conntrack --ctstate NEW -j DROP"),
            },
        }
    }

    /// So many rules, of which the last one lets the trial's conns in.
    fn rules(self, size: u32) -> String {
        let mut text = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
            .to_owned();
        for number in 2..size {
            let _ = writeln!(text, "-A FORWARD {}", self.rule(number));
        }
        text + "-A FORWARD -i lan -o wan -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n"
    }

    fn plan(self, size: u32, seed: u64) -> Plan {
        Plan {
            table: format!("max = {}\n{PATIENT}", 1 << 18),
            rules_v4: self.rules(size),
            rules_v6: String::new(),
            workers: 1,
            seed,
        }
    }
}

fn opening() -> Trial {
    let mut trial = Trial::new();
    trial.prepare(CONNS);
    trial.with(Phase::Open { next: 0, until: CONNS })
}

/// A window's time for each of its packets.
type Window = (Passed, u64);

/// All conns opened, then talked on once they are established.
fn windows(rig: &mut Rig<Trial>, options: &Options, pair: u64) -> Result<[Window; 2], Failure> {
    rig.wires().source = opening();
    let first = (rig.timed()?, CONNS.into());
    rig.lost_nothing("while conns were opened")?;
    if rig.conns() != CONNS {
        return Err(work(&format!("{} of {CONNS} conns are in the table", rig.conns())));
    }
    rig.answer(CONNS)?;
    rig.send_again(CONNS)?;
    rig.wires().source.phase = talk(Law::Uniform, CONNS, options.seed + pair);
    let known = rig.talked(options)?;
    rig.wires().source.forget();
    rig.ask(|core| core.flush(None))?.map_err(|e| broken("flush")(&e))?;
    Ok([first, known])
}

/// The rows of a shape: first packets by number of rules, then known ones.
fn shaped(options: &Options, shape: Shape, floors: [f64; 2]) -> Result<Vec<Row>, Failure> {
    let rig = |size: &u32| Rig::new(&shape.plan(*size, options.seed), Trial::new());
    let mut rigs = SIZES.iter().map(rig).collect::<Result<Vec<_>, _>>()?;
    let mut rounds = Vec::new();
    for pair in 0..options.pairs() as u64 {
        let round = rigs.iter_mut().map(|rig| windows(rig, options, pair));
        rounds.push(round.collect::<Result<Vec<_>, _>>()?);
    }
    let mut rows = Vec::new();
    for (kind, what) in ["first packets", "known packets"].into_iter().enumerate() {
        for (at, size) in SIZES.iter().enumerate() {
            // Without what it costs to make the frames, or ratios would look better than they are.
            let of = |round: &Vec<[Window; 2]>, at: usize| {
                let (passed, count) = round[at][kind];
                passed.ns_each(count) - floors[kind]
            };
            let taken: Vec<Passed> = rounds.iter().map(|round| round[at][kind].0).collect();
            let ours = Spread::of(rounds.iter().map(|round| of(round, at)));
            let ratio = Spread::of(rounds.iter().map(|round| of(round, at) / of(round, 0)));
            let ten = Spread::of(rounds.iter().map(|round| of(round, 0)));
            let (Some(ours), Some(ratio), Some(figure)) = (ours, ratio, ten) else { continue };
            let name = "ten rules".to_owned();
            let peer = (at > 0).then_some(Peer { name, figure, ratio, measured: true });
            let name = format!("{what}, {size} rules: {shape}");
            let row = Row::new(name, "ns", ours).beside(peer);
            rows.push(row.noting("without making the frames").noting(clean_windows(&taken)));
        }
    }
    Ok(rows)
}

/// What a command prints.
fn command(core: &mut ControlCore, argv: &[&str], stdin: &str) -> Result<String, Failure> {
    let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
    match core.serve(&argv, stdin) {
        Served::Done(answer) if answer.exit == 0 => Ok(answer.out),
        Served::Done(answer) => Err(broken("rules")(&answer.err)),
        Served::Events(_) => Err(broken("rules")(&"events")),
    }
}

/// How long the commands take that put rules in force, from their text to the worker's adoption.
fn commands(options: &Options) -> Result<Vec<Row>, Failure> {
    let mut rig = Rig::new(&Shape::Mixed.plan(10, options.seed), Trial::new())?;
    let mut rows = Vec::new();
    for size in RESTORED {
        let whole = Shape::Mixed.rules(size);
        let (mut restored, mut added) = (Vec::new(), Vec::new());
        for _ in 0..options.pairs() {
            for (argv, text, times) in [
                (&["iptables-restore"][..], &*whole, &mut restored),
                (&["iptables-restore", "-n"][..], ONE_MORE, &mut added),
            ] {
                let passed = rig.ask(|core| {
                    let start = Instant::now();
                    command(core, argv, text).map(|_| start.elapsed())
                })?;
                times.push(passed?.as_secs_f64() * 1e3);
            }
        }
        let named = [("whole file", restored), ("one rule added", added)];
        for (what, times) in named {
            let ours = Spread::of(times.into_iter()).ok_or_else(|| work("no time"))?;
            let row = Row::new(format!("iptables-restore, {size} rules: {what}"), "ms", ours);
            rows.push(row.noting("wall clock, control core and one worker"));
        }
    }
    Ok(rows)
}

/// Has the control core put rules in force while clients talk: how long that took, and the longest
/// round of the worker meanwhile.
fn replace(rig: &mut Rig<Trial>, text: &str) -> Result<[Duration; 2], Failure> {
    let Rig { core, worker, watch } = rig;
    let (over, watch) = (&AtomicBool::new(false), &*watch);
    thread::scope(|threads| {
        let at_work = threads.spawn(move || {
            pin(WORKER_CPU)?;
            let mut longest = Duration::ZERO;
            while !over.load(Relaxed) {
                let start = Instant::now();
                worker.poll(watch.now());
                longest = longest.max(start.elapsed());
            }
            Ok(longest)
        });
        let start = Instant::now();
        let done = command(core, &["iptables-restore"], text).map(|_| start.elapsed());
        over.store(true, Relaxed);
        let longest = at_work.join().unwrap_or_else(|_| Err(broken("worker")(&"panicked")));
        Ok([done?, longest?])
    })
}

/// All rules replaced by as many others, over and over, under the load of `conns` that talk: how
/// long each change took with the worker's longest round, packets that flowed meanwhile, and those
/// that were lost.
fn under_load(
    options: &Options,
    (size, conns): (u32, u32),
) -> Result<(Vec<[Duration; 2]>, u64, u64), Failure> {
    let shapes = [Shape::Services, Shape::Mixed];
    let texts = shapes.map(|shape| shape.rules(size));
    let mut trial = Trial::new();
    trial.prepare(conns);
    let mut rig = Rig::new(&Shape::Mixed.plan(size, options.seed), trial)?;
    rig.open(conns)?;
    rig.answer(conns)?;
    rig.send_again(conns)?;
    rig.wires().source.phase = talk(Law::Uniform, conns, options.seed);
    let (arrived, left) = (rig.wires().arrived, rig.wires().left);
    let mut changes = Vec::new();
    for _ in 0..options.pairs() {
        for text in &texts {
            changes.push(replace(&mut rig, text)?);
        }
    }
    let flowed = rig.wires().arrived - arrived;
    let lost = flowed - (rig.wires().left - left);
    let there = rig.conns();
    if there != conns || !rig.core.counters().all(|counters| counters.balanced()) {
        return Err(work(&format!("{there} of {conns} conns are left, or frames do not add up")));
    }
    Ok((changes, flowed, lost))
}

/// What becomes of packets while rules are replaced.
fn replaced(options: &Options) -> Result<Vec<Row>, Failure> {
    let (changes, flowed, lost) = under_load(options, (REPLACED, CONNS))?;
    let of = |which: usize, unit: f64| {
        let figures = changes.iter().map(|change| change[which].as_secs_f64() * unit);
        Spread::of(figures).ok_or_else(|| work("no time"))
    };
    let name = |what: &str| format!("{REPLACED} rules replaced under load: {what}");
    let noting = format!("of {flowed}, in {} changes", changes.len());
    Ok(vec![
        Row::new(name("packets lost"), "packets", Spread::exact(lost as f64)).noting(noting),
        Row::new(name("the change"), "ms", of(0, 1e3)?)
            .noting("wall clock, from the text to the worker's adoption"),
        Row::new(name("longest round of the worker"), "µs", of(1, 1e6)?)
            .noting("wall clock, of whatever else has the CPU as well"),
    ])
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let floors = [floor_of(options, CONNS, opening)?, floor_ns(options, Law::Uniform, CONNS)?];
    let rows = Shape::ALL.iter().map(|shape| shaped(options, *shape, floors));
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?.concat();
    rows.extend(commands(options)?);
    rows.extend(replaced(options)?);
    Ok(rows)
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_while_rules_are_replaced() {
        let options = Options { quick: true, pairs: None, seed: 1 };
        let (changes, flowed, lost) = under_load(&options, (2_000, 3_000)).unwrap();
        assert_eq!((changes.len(), lost), (4, 0));
        assert!(flowed > 0, "nothing flowed");
    }

    #[test]
    fn conns_pass_all_rules_of_every_shape() {
        for shape in Shape::ALL {
            for size in SIZES {
                let rules = shape.rules(size);
                assert_eq!(rules.matches("-A FORWARD").count() as u32, size);
                let mut rig = Rig::new(&shape.plan(size, 1), Trial::new()).unwrap();
                rig.open(1000).unwrap();
                rig.answer(1000).unwrap();
                let saved = rig.ask(|core| command(core, &["iptables-save", "-c"], "")).unwrap();
                let saved = saved.unwrap();
                let last = saved.lines().rfind(|line| line.contains("FORWARD -i lan")).unwrap();
                assert!(last.starts_with("[1000:"), "{shape}, {size}: {last}");
            }
        }
    }
}
