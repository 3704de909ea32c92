//! New conns per second of one lcore, through the whole pipeline.
//!
//! *Filled.* RFC 9693's two phases at CSIT's scales: clients open conns, one UDP packet each, until
//! the table has them all, and that is timed; then a server answers each of them, without which the
//! conns would not count. The table is flushed and filled again for the next window.
//!
//! *Transactions.* CSIT's TCP transaction of seven packets, both sides ([`super::transactions`]).
//!
//! *Steady.* Conns are opened without end while those of more than a second ago expire, swept by
//! the control core on its own CPU and deleted by the same lcore.
//!
//! The rule that accepts a new conn is the tenth. Each figure is also shown without what it costs
//! to make the frames, which is measured by itself.

use std::time::{Duration, Instant};

use sluicegate::tools::Gateway;

use super::clock::{Moment, Passed, clean_windows, pin};
use super::gateway::{PATIENT, Rig, Work, broken, polls, work};
use super::transactions::{PACKETS, Transactions};
use super::trial::{Phase, Trial};
use super::wires::{Source, Wires};
use super::{Options, print};
use crate::goals::Topic;
use crate::process::{Failure, WORKER_CPU};
use crate::row::{Goal, Peer, Reach, Row, Spread};

/// CSIT's scales: 1024 and 16 384 inside hosts of 63 conns.
const SCALES: [u32; 2] = [64_512, 1_032_192];
/// VPP's nat44-ed with its own packet generator, on one worker; million conns per second.
const VPP: f64 = 0.69;
/// Room for all conns of the last seconds.
const STEADY_MAX: u32 = 12 << 20;
/// Until as many conns expire as are opened.
const STEADY_WARM_UP: Duration = Duration::from_secs(4);
/// Stretches that the spread is made of.
const STRETCH: Duration = Duration::from_secs(1);

/// A share of the million new conns per second that are to be reached.
fn goal(kind: Work, share: f64) -> Goal {
    let most = match kind {
        Work::Firewall => 4.0,
        Work::Snat => 2.8,
    };
    Reach::AtLeast(share * most).of(Topic::NewConns)
}

/// A row of what was measured and one without the cost of making the frames.
struct Figures {
    name: String,
    unit: &'static str,
    windows: Vec<Passed>,
    /// Conns of a window.
    counts: Vec<u64>,
    /// Nanoseconds that the frames of a conn cost by themselves.
    floor_ns: f64,
    goal: Option<Goal>,
    peer: bool,
    remark: String,
}

impl Figures {
    fn rows(self) -> Vec<Row> {
        let each = self.windows.iter().zip(&self.counts).map(|(passed, n)| passed.ns_each(*n));
        let each: Vec<f64> = each.collect();
        let rate = |floor: f64| Spread::of(each.iter().map(|ns| 1e3 / (ns - floor).max(1e-3)));
        let floor = format!("the source's own {:.1} ns in it", self.floor_ns);
        let (Some(raw), Some(corrected)) = (rate(0.0), rate(self.floor_ns)) else {
            return Vec::new();
        };
        let peer = self.peer.then(|| Peer::from_elsewhere("VPP nat44-ed", VPP, raw));
        let name = format!("{}, without making the frames", self.name);
        let clean = clean_windows(&self.windows);
        let row = |name, ours| Row::new(name, self.unit, ours);
        vec![
            row(self.name, raw)
                .beside(peer)
                .judged(self.goal)
                .noting(floor)
                .noting(&self.remark)
                .noting(&clean),
            row(name, corrected).noting(&self.remark).noting(&clean),
        ]
    }
}

/// What a source costs until it has nothing more, on the worker's CPU, for each of `count`.
fn floor_ns<S: Source>(source: S, count: u64) -> Result<f64, Failure> {
    std::thread::scope(|threads| {
        let alone = threads.spawn(move || {
            pin(WORKER_CPU)?;
            let mut wires = Wires::new(source);
            let start = Moment::now();
            while wires.pass_by() > 0 {}
            Ok(start.passed().ns_each(count))
        });
        alone.join().unwrap_or_else(|_| Err(broken("source")(&"panicked")))
    })
}

/// The median of the floors of some rounds.
pub(super) fn floor_of<S: Source>(
    options: &Options,
    count: u32,
    source: impl Fn() -> S,
) -> Result<f64, Failure> {
    let floors = (0..options.pairs().min(3)).map(|_| floor_ns(source(), count.into()));
    let floors = floors.collect::<Result<Vec<f64>, Failure>>()?;
    Ok(Spread::of(floors.into_iter()).map_or(0.0, |spread| spread.median))
}

/// Conns opened, answered, flushed.
fn filled(options: &Options, kind: Work, conns: u32) -> Result<Vec<Row>, Failure> {
    let max = conns.next_power_of_two().max(1 << 18);
    let open = || {
        let mut trial = Trial::new();
        trial.prepare(conns);
        trial.with(Phase::Open { next: 0, until: conns })
    };
    let mut rig = Rig::new(&kind.plan(max, PATIENT, options.seed), Trial::new())?;
    let (mut windows, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..options.pairs() {
        rig.wires().source = open();
        windows.push(rig.timed()?);
        rig.lost_nothing("while conns were opened")?;
        if rig.conns() != conns {
            return Err(work(&format!("{} of {conns} conns are in the table", rig.conns())));
        }
        let start = Instant::now();
        rig.answer(conns)?;
        answers.push(f64::from(conns) / start.elapsed().as_secs_f64() / 1e6);
        rig.ask(|core| core.flush(None))?.map_err(|e| broken("flush")(&e))?;
    }
    let answered = Spread::show(Spread::of(answers.into_iter()), 1);
    let counts = windows.iter().map(|_| conns.into()).collect();
    let figures = Figures {
        name: format!("new UDP conns, {kind}, table filled to {conns}"),
        unit: "M conns/s",
        windows,
        counts,
        floor_ns: floor_of(options, conns, open)?,
        goal: Some(goal(kind, 1.0)),
        peer: true,
        remark: format!("all answered, at {answered} Mpps"),
    };
    Ok(figures.rows())
}

/// Whole TCP conns, seven packets each.
fn transactions(options: &Options, kind: Work, conns: u32) -> Result<Vec<Row>, Failure> {
    let max = conns.next_power_of_two().max(1 << 18);
    let mut rig = Rig::new(&kind.plan(max, PATIENT, options.seed), Transactions::new(conns))?;
    let mut windows = Vec::new();
    for _ in 0..options.pairs() {
        rig.wires().source = Transactions::new(conns);
        windows.push(rig.timed()?);
        rig.lost_nothing("in TCP transactions")?;
        if rig.conns() != conns {
            return Err(work(&format!("{} of {conns} conns were closed", rig.conns())));
        }
        rig.ask(|core| core.flush(None))?.map_err(|e| broken("flush")(&e))?;
    }
    let counts = windows.iter().map(|_| conns.into()).collect();
    let figures = Figures {
        name: format!("TCP transactions, {kind}, {conns}"),
        unit: "M conns/s",
        windows,
        counts,
        floor_ns: floor_of(options, conns, || Transactions::new(conns))?,
        goal: None,
        peer: false,
        remark: format!("{PACKETS} packets each"),
    };
    Ok(figures.rows())
}

/// Conns opened and expiring all the time.
fn steady(options: &Options, kind: Work) -> Result<Vec<Row>, Failure> {
    let secs = if options.quick { 3 } else { 60 };
    let open = |until| Trial::new().unanswered().with(Phase::Open { next: 0, until });
    let plan = kind.plan(STEADY_MAX, "udp_timeout = 1\n", options.seed);
    let mut rig = Rig::new(&plan, open(u32::MAX))?;
    let table = std::sync::Arc::clone(rig.core.table());
    let stretches = rig.run(|worker, watch| {
        let mut stretch = |length: Duration| {
            let (before, start) = (worker.io().left, Moment::now());
            loop {
                // A hundred bursts between two readings of the clock.
                polls(worker, watch, 100);
                let passed = start.passed();
                if passed.wall >= length {
                    break (passed, worker.io().left - before, table.capacity.count());
                }
            }
        };
        stretch(STEADY_WARM_UP);
        (0..secs).map(|_| stretch(STRETCH)).collect::<Vec<_>>()
    })?;
    rig.lost_nothing("in steady state")?;
    let early: u64 = rig.core.counters().map(|c| c.conntrack.early_drop.get()).sum();
    let most = stretches.iter().map(|(_, _, conns)| *conns).max().unwrap_or(0);
    let doubt = match early {
        0 => String::new(),
        n => format!("the sweep was kept from its CPU: {n} conns had to go before their time"),
    };
    let figures = Figures {
        name: format!("new UDP conns, {kind}, {secs} s steady with expiry"),
        unit: "M conns/s",
        windows: stretches.iter().map(|(passed, ..)| *passed).collect(),
        counts: stretches.iter().map(|(_, conns, _)| *conns).collect(),
        floor_ns: floor_of(options, 1 << 20, || open(1 << 20))?,
        goal: Some(goal(kind, 0.5)),
        peer: true,
        remark: format!("timeout 1 s, at most {most} conns in the table"),
    };
    let mut rows = figures.rows();
    rows.iter_mut().for_each(|row| row.doubt.clone_from(&doubt));
    Ok(rows)
}

impl<S: Source> Rig<S> {
    /// Time of the worker until nothing more arrives.
    pub(super) fn timed(&mut self) -> Result<Passed, Failure> {
        self.run(|worker, watch| {
            let start = Moment::now();
            while worker.poll(watch.now()) > 0 {}
            start.passed()
        })
    }
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for kind in [Work::Firewall, Work::Snat] {
        for conns in SCALES {
            rows.extend(filled(options, kind, conns)?);
            rows.extend(transactions(options, kind, conns)?);
        }
        rows.extend(steady(options, kind)?);
    }
    Ok(rows)
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}
