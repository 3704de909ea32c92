//! Packets of a million and of ten million established, translated conns, through the whole
//! pipeline.
//!
//! Every conn has been opened and answered before, and nothing but clients' packets come now, from
//! conns picked at random: nearly each one finds its bucket and its record in no cache.

use super::clock::{Moment, Passed, clean_windows, pin};
use super::gateway::{PATIENT, Rig, Work, broken, polls};
use super::picks::Spread as Law;
use super::trial::{Phase, Trial};
use super::wires::Wires;
use super::{Options, count_name, print};
use crate::process::{Failure, WORKER_CPU};
use crate::row::{Row, Spread};

const SIZES: [u32; 2] = [1 << 20, 10_000_000];
const QUICK_SIZES: usize = 1;

pub(super) fn talk(law: Law, conns: u32, seed: u64) -> Phase {
    Phase::Talk(law.picks(conns, seed))
}

/// What clients' frames cost by themselves, in nanoseconds.
pub(super) fn floor_ns(options: &Options, law: Law, conns: u32) -> Result<f64, Failure> {
    std::thread::scope(|threads| {
        let alone = threads.spawn(move || {
            pin(WORKER_CPU)?;
            let phase = talk(law, conns, options.seed);
            let mut wires = Wires::new(Trial::new().with(phase));
            let start = Moment::now();
            while start.passed().wall < options.length() {
                for _ in 0..1000 {
                    wires.pass_by();
                }
            }
            Ok(start.passed().ns_each(wires.left))
        });
        alone.join().unwrap_or_else(|_| Err(broken("source")(&"panicked")))
    })
}

impl Rig<Trial> {
    /// Frames that leave within a window of clients that talk, and the worker's time.
    pub(super) fn talked(&mut self, options: &Options) -> Result<(Passed, u64), Failure> {
        let length = options.length();
        let figures = self.run(|worker, watch| {
            // Until the caches are as this traffic leaves them.
            let warm = Moment::now();
            while warm.passed().wall < length / 4 {
                polls(worker, watch, 100);
            }
            let (before, start) = (worker.io().left, Moment::now());
            while start.passed().wall < length {
                polls(worker, watch, 100);
            }
            (start.passed(), worker.io().left - before)
        })?;
        self.lost_nothing("while clients talked")?;
        Ok(figures)
    }
}

fn sized(options: &Options, conns: u32) -> Result<Vec<Row>, Failure> {
    let mut trial = Trial::new();
    trial.prepare(conns);
    let mut rig = Rig::new(&Work::Snat.plan(conns, PATIENT, options.seed), trial)?;
    rig.open(conns)?;
    rig.answer(conns)?;
    rig.send_again(conns)?;
    let mut figures = Law::ALL.map(|law| (law, Vec::new()));
    for pair in 0..options.pairs() {
        for (law, windows) in &mut figures {
            rig.wires().source.phase = talk(*law, conns, options.seed + pair as u64);
            windows.push(rig.talked(options)?);
        }
    }
    let mut rows = Vec::new();
    for (law, windows) in figures {
        let floor = floor_ns(options, law, conns)?;
        let passed: Vec<Passed> = windows.iter().map(|(passed, _)| *passed).collect();
        let rate = |floor: f64| {
            Spread::of(windows.iter().map(|(passed, n)| 1e3 / (passed.ns_each(*n) - floor)))
        };
        let (Some(raw), Some(corrected)) = (rate(0.0), rate(floor)) else { continue };
        let name = format!("SNAT, {} established conns, {}", count_name(conns), law.name());
        let clean = clean_windows(&passed);
        let without = format!("{name}, without making the frames");
        let remark = format!("the source's own {floor:.1} ns in it");
        rows.extend([
            Row::new(name, "Mpps", raw).noting(remark).noting(&clean),
            Row::new(without, "Mpps", corrected).noting(&clean),
        ]);
    }
    Ok(rows)
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let sizes = if options.quick { &SIZES[..QUICK_SIZES] } else { &SIZES[..] };
    let rows = sizes.iter().map(|conns| sized(options, *conns)).collect::<Result<Vec<_>, _>>()?;
    Ok(rows.concat())
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}
