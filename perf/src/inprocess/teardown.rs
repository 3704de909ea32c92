//! RFC 9693's tear-down rate: a million conns flushed by `conntrack -F`.
//!
//! Timed on the wall clock from the command's start to its answer, since control core and worker
//! have both to do with it.

use std::time::Instant;

use sluicegate::tools::Gateway;

use super::gateway::{PATIENT, Rig, Work, broken, work};
use super::trial::Trial;
use super::{Options, print};
use crate::process::Failure;
use crate::row::{Row, Spread};

const CONNS: u32 = 1_000_000;
const QUICK_CONNS: u32 = 200_000;

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let conns = if options.quick { QUICK_CONNS } else { CONNS };
    let mut rig = Rig::new(&Work::Snat.plan(conns, PATIENT, options.seed), Trial::new())?;
    let mut rates = Vec::new();
    for _ in 0..options.pairs() {
        rig.wires().source.forget();
        rig.open(conns)?;
        let rate = rig.ask(|core| {
            let start = Instant::now();
            core.flush(None).map(|()| f64::from(conns) / start.elapsed().as_secs_f64() / 1e6)
        })?;
        rates.push(rate.map_err(|e| broken("flush")(&e))?);
        if rig.conns() != 0 {
            return Err(work(&format!("{} conns are left after a flush", rig.conns())));
        }
    }
    let ours = Spread::of(rates.into_iter()).ok_or_else(|| work("nothing was flushed"))?;
    let name = format!("flush of {conns} translated conns");
    let row = Row::new(name, "M conns/s", ours);
    Ok(vec![row.noting("wall clock, control core and one worker")])
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}
