//! The rows of packets through devices: which workloads there are, whom they are held against and
//! what they are to reach; and the interleaved measuring of them all.
//!
//! Each round measures every program once, freshly started; ratios are taken inside a round. A
//! program that cannot do its work loses its row, with the reason, and not the whole report.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Effort, Part};
use crate::frame::Kind;
use crate::goals::Topic;
use crate::measure::Row as Place;
use crate::process::{Failure, twice};
use crate::program::{Program, Workload};
use crate::report::Windows;
use crate::row::{Peer, Reach, Row, Spread};
use crate::stand::Stand;
use crate::vpp;

/// Where figures come from that were measured once on another day.
const ELSEWHERE: &str = "VPP's figure is the design's, not measured here";

/// Whom a workload is held against.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// Open vSwitch, by Mpps. Without a goal it is only shown.
    Ovs(Option<f64>),
    /// VPP, by Mpps: the goal, and its figure where it is not measured.
    Vpp(f64, f64),
    /// A program without state, by CPU time per packet.
    Floor(Program, Option<f64>),
}

/// A workload and all it is held against.
struct Spec {
    place: Place,
    against: Vec<Against>,
    /// Part of the shortest report.
    quick: bool,
}

impl Spec {
    fn new(workload: Workload, kind: Kind, conns: usize, against: &[Against]) -> Self {
        let place = Place { conns, kind, workload, program: Program::Sluicegate };
        Self { place, against: against.to_vec(), quick: false }
    }

    fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// The programs of this row besides the product.
    fn peers(&self, vpp: bool) -> impl Iterator<Item = Place> {
        let own = self.place;
        std::iter::once(own.floor()).chain(self.against.iter().filter_map(move |against| {
            match against {
                Against::Ovs(_) => Some(Place { program: Program::Ovs, ..own }),
                // Its choice of ports is not known beforehand, so there are no replies for it.
                Against::Vpp(..) => (vpp && !own.workload.both_ways())
                    .then_some(Place { program: Program::Vpp, ..own }),
                Against::Floor(program, _) => Some(Place { program: *program, ..own.floor() }),
            }
        }))
    }
}

/// All workloads, in the order of the report.
fn specs() -> Vec<Spec> {
    use Against::{Floor, Ovs, Vpp};
    use Kind::{Imix, Tcp, Tcp6, Udp, Udp6};
    use Workload::{Firewall, FirewallBoth, Forward, Snat, SnatBoth};
    const K: usize = 1024;
    let mut specs = vec![
        Spec::new(Forward, Udp, K, &[Vpp(1.0, 29.0), Ovs(None)]).quick(),
        Spec::new(Forward, Udp, 32 * K, &[Ovs(None)]),
        Spec::new(Firewall, Udp, K, &[Ovs(Some(6.0))]),
        Spec::new(Firewall, Udp, 32 * K, &[Ovs(Some(9.0))]).quick(),
        Spec::new(FirewallBoth, Udp, K, &[Ovs(Some(6.0))]).quick(),
        Spec::new(FirewallBoth, Udp, 32 * K, &[Ovs(Some(9.0))]),
    ];
    for workload in [Snat, SnatBoth] {
        let mut small = vec![Vpp(1.8, 12.3), Ovs(Some(6.0))];
        if workload == Snat {
            small.push(Floor(Program::Testpmd, Some(2.0)));
            small.push(Floor(Program::Swap, None));
        }
        let small = Spec::new(workload, Udp, K, &small);
        specs.push(if workload == Snat { small.quick() } else { small });
        specs.push(Spec::new(workload, Udp, 32 * K, &[Vpp(3.5, 3.9), Ovs(Some(12.0))]));
        specs.push(Spec::new(workload, Udp, 256 * K, &[Vpp(3.0, 3.3)]));
    }
    specs.extend([
        Spec::new(Firewall, Udp6, 32 * K, &[Ovs(Some(10.0))]),
        Spec::new(FirewallBoth, Udp6, 32 * K, &[Ovs(Some(10.0))]),
        Spec::new(Firewall, Tcp6, 32 * K, &[Ovs(Some(8.0))]),
        Spec::new(FirewallBoth, Tcp6, 32 * K, &[Ovs(Some(8.0))]),
        Spec::new(FirewallBoth, Tcp, 32 * K, &[Ovs(Some(8.0))]).quick(),
        Spec::new(SnatBoth, Tcp, 32 * K, &[Ovs(Some(8.0))]),
        Spec::new(Snat, Imix, K, &[Vpp(1.6, 10.0), Ovs(None)]),
    ]);
    specs
}

/// What the windows of all rounds gave.
pub(super) struct Measured {
    specs: Vec<Spec>,
    pub(super) windows: Windows,
    /// Why a program of a row was given up.
    broken: BTreeMap<Place, String>,
    /// What the report says of the peer's settings.
    tunings: BTreeMap<Place, String>,
    proven: usize,
    /// Rounds for which there was no time.
    rounds_left: usize,
}

/// Proves, tunes and measures all rows whose names have `only` in them.
pub(super) fn measure(effort: &Effort, only: &str, stand: &mut Stand) -> Result<Measured, Failure> {
    let wanted = |spec: &Spec| {
        let enough = spec.quick || !effort.quick || !only.is_empty();
        enough && name(spec.place).contains(only)
    };
    let specs: Vec<Spec> = specs().into_iter().filter(wanted).collect();
    let vpp = vpp::binary().is_some();
    let mut places: Vec<Place> = Vec::new();
    for spec in &specs {
        for place in spec.peers(vpp).chain([spec.place]) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let mut measured = Measured {
        specs,
        windows: Windows::default(),
        broken: BTreeMap::new(),
        tunings: BTreeMap::new(),
        proven: 0,
        rounds_left: 0,
    };
    for &place in &places {
        if measured.attempt(place, || stand.prove(place))?.is_some() {
            measured.proven += 1;
        }
    }
    for &place in places.iter().filter(|p| p.program == Program::Ovs && effort.tune) {
        if let Some(tuning) = measured.attempt(place, || stand.tune(place))? {
            measured.tunings.insert(place, tuning.to_string());
        }
    }
    let start = Instant::now();
    for round in 0..effort.pairs {
        if round > 0 && effort.patience.is_some_and(|patience| start.elapsed() > patience) {
            measured.rounds_left = effort.pairs - round;
            break;
        }
        eprintln!("round {} of {}", round + 1, effort.pairs);
        if round > 0 {
            places.reverse();
        }
        for &place in &places {
            let window = measured.attempt(place, || stand.window(place, effort.length))?;
            window.into_iter().for_each(|window| measured.windows.add(place, round, window));
        }
    }
    Ok(measured)
}

impl Measured {
    /// Does something with a program unless it was given up; tries once again, then gives it up.
    /// Only a signal ends all.
    fn attempt<T>(
        &mut self,
        place: Place,
        mut work: impl FnMut() -> Result<T, Failure>,
    ) -> Result<Option<T>, Failure> {
        if self.broken.contains_key(&place) {
            return Ok(None);
        }
        match twice(&mut work)? {
            Ok(value) => Ok(Some(value)),
            Err(reason) => {
                self.broken.insert(place, reason);
                Ok(None)
            }
        }
    }

    /// The rows of the report.
    pub(super) fn part(&self) -> Part {
        let mut part = Part::new("Forwarding");
        part.remarks.push(format!(
            "{} programs and workloads were proven frame by frame before they were measured: every \
             conn's frame out, addresses, ports, MAC addresses, TTL and checksums right. In every \
             window nothing was dropped and the table was as expected.",
            self.proven
        ));
        if self.rounds_left > 0 {
            let said = "rounds were left out: the windows before took too long, dirty ones being \
                        tried again.";
            part.remarks.push(format!("{} {said}", self.rounds_left));
        }
        for (place, reason) in &self.broken {
            if place.program != Program::Sluicegate {
                part.remarks.push(format!("Not measured: {}: {reason}", place.program));
            }
        }
        for spec in &self.specs {
            match self.windows.figures(spec.place, |w| w.mpps) {
                Some(_) => part.rows.extend(spec.against.iter().filter_map(|a| self.row(spec, *a))),
                None => {
                    let reason = self.broken.get(&spec.place).cloned().unwrap_or_default();
                    part.failures.push((name(spec.place), reason));
                }
            }
        }
        part
    }

    fn row(&self, spec: &Spec, against: Against) -> Option<Row> {
        let own = spec.place;
        let ours = self.windows.figures(own, |w| w.mpps)?;
        let topic = topic_of(own);
        let mut row = Row::new(name(own), "Mpps", ours).noting(self.fairness(own));
        match against {
            Against::Ovs(goal) => {
                let peer = Place { program: Program::Ovs, ..own };
                row.peer = self.peer(own, peer, |w| w.mpps);
                row.goal = goal.map(|goal| Reach::RatioAtLeast(goal).of(topic));
                self.note(&mut row, peer);
            }
            Against::Vpp(goal, figure) => {
                let peer = Place { program: Program::Vpp, ..own };
                row.goal = Some(Reach::RatioAtLeast(goal).of(topic));
                row.peer = self.peer(own, peer, |w| w.mpps);
                if row.peer.is_none() {
                    row.peer = Some(Peer::from_elsewhere("VPP", figure, ours));
                    add(&mut row.remark, ELSEWHERE);
                }
            }
            Against::Floor(program, goal) => {
                let peer = Place { program, ..own.floor() };
                row.unit = "cycles";
                row.ours = self.windows.figures(own, |w| w.cpu_cycles)?;
                row.peer = self.peer(own, peer, |w| w.cpu_cycles);
                row.goal = goal.map(|goal| Reach::RatioAtMost(goal).of(Topic::SnatCycles));
                self.note(&mut row, peer);
            }
        }
        let peer = match against {
            Against::Ovs(_) => Place { program: Program::Ovs, ..own },
            Against::Vpp(..) => Place { program: Program::Vpp, ..own },
            Against::Floor(program, _) => Place { program, ..own.floor() },
        };
        // Cycles go by the CPU time that was had; a rate is as low as the CPU that was not.
        let dirty = |place: Place| matches!(self.windows.clean(place), (0, 1..));
        let dirty = [own, peer].into_iter().find(|&place| row.unit == "Mpps" && dirty(place));
        Some(match dirty {
            Some(place) => row.doubted(format!("no clean window of {}", place.program)),
            None => row,
        })
    }

    fn peer(
        &self,
        own: Place,
        peer: Place,
        figure: fn(&crate::measure::Window) -> f64,
    ) -> Option<Peer> {
        Some(Peer {
            name: peer.program.to_string(),
            figure: self.windows.figures(peer, figure)?,
            ratio: self.windows.pairs(own, peer, |w, p| figure(w) / figure(p))?,
            measured: true,
        })
    }

    /// Adds what is to be known of the peer.
    fn note(&self, row: &mut Row, peer: Place) {
        if let Some(tuning) = self.tunings.get(&peer) {
            add(&mut row.remark, &format!("{}: {tuning}", peer.program));
        }
        if self.broken.contains_key(&peer) {
            add(&mut row.remark, &format!("{} could not be measured", peer.program));
        }
        add(&mut row.remark, &self.dirt(peer));
    }

    fn fairness(&self, own: Place) -> String {
        let mut remark = String::new();
        if own.workload.stateful() && !own.workload.both_ways() {
            add(&mut remark, "conns stay NEW");
        }
        add(&mut remark, &self.dirt(own));
        remark
    }

    /// Empty if each window of a program was clean.
    fn dirt(&self, place: Place) -> String {
        let (clean, all) = self.windows.clean(place);
        if clean == all {
            return String::new();
        }
        format!("{}: {clean} of {all} windows clean", place.program)
    }

    /// Cycles per packet of the floor and of the product above it, for each workload.
    pub(super) fn split(&self) -> Vec<(String, f64, f64)> {
        let split = |spec: &Spec| {
            let median = |spread: Option<Spread>| Some(spread?.median);
            let floor = median(self.windows.figures(spec.place.floor(), |w| w.cpu_cycles))?;
            let above = self
                .windows
                .pairs(spec.place, spec.place.floor(), |w, f| w.cpu_cycles - f.cpu_cycles);
            Some((name(spec.place), floor, median(above)?))
        };
        self.specs.iter().filter_map(split).collect()
    }
}

fn add(remark: &mut String, more: &str) {
    if !remark.is_empty() && !more.is_empty() {
        remark.push_str("; ");
    }
    remark.push_str(more);
}

/// The goal that a workload is a part of.
fn topic_of(place: Place) -> Topic {
    match (place.kind, place.workload) {
        (Kind::Imix, _) => Topic::Imix,
        (Kind::Tcp | Kind::Udp6 | Kind::Tcp6, _) => Topic::Ipv6AndTcp,
        (Kind::Udp, Workload::Forward) => Topic::PlainForward,
        (Kind::Udp, Workload::Firewall | Workload::FirewallBoth) => Topic::StatefulForward,
        (Kind::Udp, Workload::Snat | Workload::SnatBoth) => Topic::Snat,
    }
}

/// "TCP SNAT, 32 K conns, both ways".
fn name(place: Place) -> String {
    let kind = match place.kind {
        Kind::Udp => "",
        Kind::Tcp => "TCP ",
        Kind::Udp6 => "IPv6 ",
        Kind::Tcp6 => "IPv6 TCP ",
        Kind::Imix => "IMIX ",
    };
    let work = match place.workload {
        Workload::Forward => "plain forward",
        Workload::Firewall | Workload::FirewallBoth => "stateful forward",
        Workload::Snat | Workload::SnatBoth => "SNAT",
    };
    let ways = if place.workload.both_ways() { "both ways" } else { "one way" };
    format!("{kind}{work}, {} K conns, {ways}", place.conns / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_there_once_and_has_a_floor() {
        let specs = specs();
        let names: std::collections::BTreeSet<String> =
            specs.iter().map(|s| name(s.place)).collect();
        assert_eq!(names.len(), specs.len());
        assert!(names.contains("SNAT, 256 K conns, both ways"));
        assert!(names.contains("IPv6 TCP stateful forward, 32 K conns, one way"));
        for spec in &specs {
            assert!(spec.peers(false).any(|peer| peer == spec.place.floor()));
            assert!(!spec.peers(false).any(|peer| peer.program == Program::Vpp));
            let vpp = !spec.place.workload.both_ways()
                && spec.against.iter().any(|a| matches!(a, Against::Vpp(..)));
            assert_eq!(spec.peers(true).any(|peer| peer.program == Program::Vpp), vpp);
            // There is no translation of IPv6.
            assert!(!spec.place.kind.v6() || spec.place.workload.pool().is_none());
        }
        assert!(specs.iter().any(|s| s.quick));
    }

    #[test]
    fn a_program_that_fails_once_is_not_tried_again() {
        let mut measured = Measured {
            specs: specs(),
            windows: Windows::default(),
            broken: BTreeMap::new(),
            tunings: BTreeMap::new(),
            proven: 0,
            rounds_left: 0,
        };
        let place = measured.specs[0].place;
        let lost = || Failure::Missing { what: "it".to_owned(), cure: "none".to_owned() };
        assert!(measured.attempt(place, || Err::<(), _>(lost())).unwrap().is_none());
        assert!(measured.attempt(place, || Ok(())).unwrap().is_none());
        let part = measured.part();
        assert_eq!(part.failures.len(), measured.specs.len());
        assert!(part.failures[0].1.contains("it is missing"));
        let other = measured.specs[1].place;
        assert!(measured.attempt(other, || Err::<(), _>(Failure::Interrupted)).is_err());
    }
}
