//! The table: medians of windows and of per-pair ratios.
//!
//! A pair is one round of the interleaving: windows that lie close in time on the same machine.
//! Ratios are taken inside a pair and then summarised, so that a machine that changes its speed
//! between rounds does not enter. Dirty windows are left out as soon as a row has clean ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::measure::{Row, Window};
use crate::program::Program;
use crate::row::Spread;

/// Windows by row and number of the round.
#[derive(Default)]
pub(crate) struct Windows(BTreeMap<Row, BTreeMap<usize, Window>>);

impl Windows {
    /// Keeps the window of a row in a round.
    pub(crate) fn add(&mut self, row: Row, round: usize, window: Window) {
        self.0.entry(row).or_default().insert(round, window);
    }

    /// Whether every window is clean.
    pub(crate) fn all_clean(&self) -> bool {
        self.0.values().flat_map(BTreeMap::values).all(|w| w.fare.clean())
    }

    /// The table as markdown.
    pub(crate) fn table(&self) -> String {
        let mut text =
            "| conns | frames | work | program | Mpps | cycles/packet | by CPU time | above floor \
             | cycles ÷ macswap | Mpps ÷ OVS | above floor, OVS ÷ this | clean |\n\
             |--:|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n"
                .to_owned();
        let mut rows: Vec<Row> = self.0.keys().copied().collect();
        rows.sort_by_key(|r| (r.conns, r.kind, r.workload.both_ways(), r.program, r.workload));
        for row in rows {
            self.write_row(&mut text, row);
        }
        text
    }

    fn write_row(&self, text: &mut String, row: Row) {
        let floor = row.floor();
        let peer = Row { program: Program::Ovs, ..row };
        let is_floor = row == floor;
        let is_product = row.program == Program::Sluicegate;
        let own = |figure: fn(&Window) -> f64| self.figures(row, figure);
        let above = |w: &Window, f: &Window| w.cpu_cycles - f.cpu_cycles;
        let above_floor = self.pairs(row, floor, above).filter(|_| !is_floor);
        let to_floor = self.pairs(row, floor, |w, f| w.cpu_cycles / f.cpu_cycles);
        let to_peer = self.pairs(row, peer, |w, p| w.mpps / p.mpps).filter(|_| is_product);
        let (clean, windows) = self.clean(row);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {clean}/{windows} |",
            row.conns,
            row.kind,
            work_name(row),
            row.program,
            Spread::show(own(|w| w.mpps), 2),
            Spread::show(own(|w| w.wall_cycles), 0),
            Spread::show(own(|w| w.cpu_cycles), 0),
            Spread::show(above_floor, 0),
            Spread::show(to_floor.filter(|_| !is_floor), 2),
            Spread::show(to_peer, 2),
            Spread::show(self.corrected(row, peer, floor).filter(|_| is_product), 2),
        );
    }

    /// The windows of a row that count: the clean ones, or all where none is clean.
    fn used(&self, row: Row) -> impl Iterator<Item = (usize, &Window)> {
        let windows = self.0.get(&row);
        let any_clean = windows.is_some_and(|w| w.values().any(|w| w.fare.clean()));
        let rounds = windows.into_iter().flatten().map(|(&round, window)| (round, window));
        rounds.filter(move |(_, w)| !any_clean || w.fare.clean())
    }

    /// A figure of a row's windows.
    pub(crate) fn figures(&self, row: Row, figure: impl Fn(&Window) -> f64) -> Option<Spread> {
        Spread::of(self.used(row).map(|(_, window)| figure(window)))
    }

    /// How many of a row's windows are clean, and how many there are.
    pub(crate) fn clean(&self, row: Row) -> (usize, usize) {
        let windows = self.0.get(&row).into_iter().flat_map(BTreeMap::values);
        windows.fold((0, 0), |(clean, all), w| (clean + usize::from(w.fare.clean()), all + 1))
    }

    /// A figure of two rows' windows of the same round.
    pub(crate) fn pairs(
        &self,
        a: Row,
        b: Row,
        figure: impl Fn(&Window, &Window) -> f64,
    ) -> Option<Spread> {
        let others: BTreeMap<usize, &Window> = self.used(b).collect();
        let both = self.used(a).filter_map(|(round, w)| Some((w, *others.get(&round)?)));
        Spread::of(both.map(|(w, other)| figure(w, other)))
    }

    /// How many times more than `row` the peer spends above the floor.
    fn corrected(&self, row: Row, peer: Row, floor: Row) -> Option<Spread> {
        let floors: BTreeMap<usize, &Window> = self.used(floor).collect();
        let peers: BTreeMap<usize, &Window> = self.used(peer).collect();
        Spread::of(self.used(row).filter_map(|(round, window)| {
            let floor = floors.get(&round)?.cpu_cycles;
            let above = window.cpu_cycles - floor;
            (above > 0.0).then_some((peers.get(&round)?.cpu_cycles - floor) / above)
        }))
    }
}

fn work_name(row: Row) -> String {
    match (row.program.floor(), row.workload.both_ways()) {
        (true, false) => "floor, one way".to_owned(),
        (true, true) => "floor, both ways".to_owned(),
        _ => row.workload.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::machine::Fare;
    use crate::program::Workload;

    fn window(mpps: f64, cycles: f64, switches_per_s: f64) -> Window {
        let fare = Fare { ran_ns: 0, waited_ns: 0, switches_per_s, stolen: 0.0 };
        Window { mpps, wall_cycles: cycles, cpu_cycles: cycles, fare }
    }

    fn row(program: Program, workload: Workload) -> Row {
        Row { conns: 1024, kind: Kind::Udp, workload, program }
    }

    #[test]
    fn ratios_are_taken_inside_a_pair_and_without_dirty_windows() {
        let mut windows = Windows::default();
        let rounds = [(12.0, 2.0, 0.0), (30.0, 3.0, 0.0), (99.0, 1.0, 50.0)];
        for (round, (own, peer, switches)) in rounds.into_iter().enumerate() {
            let dut = row(Program::Sluicegate, Workload::Snat);
            windows.add(dut, round, window(own, 100.0, switches));
            windows.add(row(Program::Ovs, Workload::Snat), round, window(peer, 1060.0, 0.0));
            let floor = row(Program::Testpmd, Workload::Forward);
            windows.add(floor, round, window(40.0, 60.0, 0.0));
        }
        assert!(!windows.all_clean());
        let table = windows.table();
        let line = table.lines().find(|l| l.contains("Sluicegate")).unwrap();
        assert!(line.contains("| 8.00 (6.00–10.00) |"), "{line}");
        assert!(line.contains("| 25.00 | 2/3 |"), "{line}");
        assert!(line.contains("| 40 | 1.67 |"), "{line}");
    }
}
