//! The stand on which programs are compared: captures written once, and for each row a proof, the
//! peer's best settings and windows.
//!
//! A row names what is offered, the work and the program; the stand knows the files, the scratch
//! directories and the binary. `compare` and `bench` decide which rows there are and in what order.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::frame::Kind;
use crate::machine;
use crate::measure::{Length, Row, Window, measure};
use crate::ovs::Tuning;
use crate::process::Failure;
use crate::program::{Plan, Program, Sink, Workload};
use crate::proof::prove;
use crate::traffic::Traffic;

/// A window in which the settings of a peer are tried.
const TRIAL: Length =
    Length { window: Duration::from_millis(600), warm_up: Duration::from_millis(400), retries: 0 };

/// Captures and binaries.
pub(crate) struct Stand {
    out: PathBuf,
    seed: u64,
    sluicegate: PathBuf,
    tsc_hz: f64,
    offers: BTreeMap<(usize, Kind), Traffic>,
    tunings: BTreeMap<Row, Tuning>,
}

impl Stand {
    /// Writes into `out`; conns follow from the seed.
    pub(crate) fn new(out: &Path, seed: u64, sluicegate: &Path) -> Result<Self, Failure> {
        Ok(Self {
            out: out.to_path_buf(),
            seed,
            sluicegate: sluicegate.to_path_buf(),
            tsc_hz: machine::tsc_hz()?,
            offers: BTreeMap::new(),
            tunings: BTreeMap::new(),
        })
    }

    /// Writes the captures that a row needs, unless they are there.
    pub(crate) fn offer(&mut self, row: Row) -> Result<(), Failure> {
        if self.offers.contains_key(&(row.conns, row.kind)) {
            return Ok(());
        }
        let traffic = Traffic::of(row.kind, row.conns, self.seed);
        let file = self.originals(row);
        traffic.write_originals(&file).map_err(Failure::io(file.display()))?;
        for workload in [Workload::FirewallBoth, Workload::SnatBoth] {
            let translated = workload.pool().map(|(address, _)| address);
            if row.kind.v6() && translated.is_some() {
                continue;
            }
            let file = self.replies(Row { workload, ..row });
            let written = traffic.write_replies(&file, translated);
            written.map_err(Failure::io(file.display()))?;
        }
        self.offers.insert((row.conns, row.kind), traffic);
        Ok(())
    }

    fn originals(&self, row: Row) -> PathBuf {
        self.out.join(format!("originals-{:?}-{}.pcap", row.kind, row.conns).to_lowercase())
    }

    fn replies(&self, row: Row) -> PathBuf {
        let Row { workload, kind, conns, .. } = row;
        self.out.join(format!("replies-{workload}-{kind:?}-{conns}.pcap").to_lowercase())
    }

    /// Proves the work of a row frame by frame.
    pub(crate) fn prove(&mut self, row: Row) -> Result<(), Failure> {
        eprintln!("proving {}", name(row));
        self.offer(row)?;
        let Some(traffic) = self.offers.get(&(row.conns, row.kind)) else { return Ok(()) };
        let endless = row.program == Program::Ovs || row.workload.both_ways();
        let sink = Sink::Capture { file: self.out.join("sent.pcap"), endless };
        let (originals, replies) = (self.originals(row), self.replies(row));
        prove(row.program, &self.plan(row, &originals, &replies, sink)?, traffic)
    }

    /// Measures one window of a row.
    pub(crate) fn window(&mut self, row: Row, length: Length) -> Result<Window, Failure> {
        self.offer(row)?;
        let (originals, replies) = (self.originals(row), self.replies(row));
        let plan = self.plan(row, &originals, &replies, Sink::Nowhere)?;
        let window = measure(row, &plan, length, self.tsc_hz)?;
        eprintln!("{}", progress(row, &window));
        Ok(window)
    }

    /// Tries each setting of the switch for a row and keeps the one that takes the least of its
    /// CPU, for all windows to come. Returns it.
    pub(crate) fn tune(&mut self, row: Row) -> Result<Tuning, Failure> {
        let mut best = (f64::INFINITY, Tuning::default());
        for tuning in Tuning::ALL {
            self.tunings.insert(row, tuning);
            let window = self.window(row, TRIAL)?;
            if window.cpu_cycles < best.0 {
                best = (window.cpu_cycles, tuning);
            }
        }
        self.tunings.insert(row, best.1);
        Ok(best.1)
    }

    /// The switch's settings for a row.
    pub(crate) fn tuning(&self, row: Row) -> Tuning {
        self.tunings.get(&row).copied().unwrap_or_default()
    }

    fn plan<'a>(
        &'a self,
        row: Row,
        originals: &'a Path,
        replies: &'a Path,
        sink: Sink,
    ) -> Result<Plan<'a>, Failure> {
        let scratch = self.out.join(row.program.directory());
        fs::create_dir_all(&scratch).map_err(Failure::io(scratch.display()))?;
        Ok(Plan {
            workload: row.workload,
            kind: row.kind,
            conns: row.conns,
            originals,
            replies,
            sink,
            scratch,
            sluicegate: &self.sluicegate,
            wires: None,
            tuning: self.tuning(row),
            callgrind: None,
        })
    }
}

fn name(row: Row) -> String {
    format!("{} {} {} {}", row.program, row.workload, row.kind, row.conns)
}

fn progress(row: Row, window: &Window) -> String {
    let fare = &window.fare;
    format!(
        "{}: {:.2} Mpps, {:.1} cycles, {:.1} by CPU time; waited {:.0} ms, {:.0} switches/s, {:.1} \
         % stolen{}",
        name(row),
        window.mpps,
        window.wall_cycles,
        window.cpu_cycles,
        fare.waited_ns as f64 / 1e6,
        fare.switches_per_s,
        fare.stolen * 100.0,
        if fare.clean() { "" } else { " (dirty)" },
    )
}
