//! Rigs of one and two workers: which worker runs where, and which capture arrives at which queue.
//!
//! Two facts of the gateway make it certain who owns a conn and who receives its packets: a port
//! with a queue for each worker gives queue *q* to worker *q*, and there a new conn stays with the
//! worker it arrives at; the one queue of the second port belongs to the second of two workers. So
//! in the rigs of hand-overs the clients' frames come once, by the queue of the worker that is to
//! own their conns, and the replies come without end, by a queue of the worker that is to receive
//! them. Every packet that is measured is a reply then.
//!
//! Only `net_pcap` ports are used, on both sides: a `net_null` device keeps the counters of two
//! queues in one cache line, which would be measured as well.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::crew::Way;
use crate::process::{Failure, WORKER_CPU, second_cpu};
use crate::program::{Program, Wire, Wires, Workload};
use crate::traffic::{Traffic, write_nothing};

/// Who receives, who owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Rig {
    /// Clients' frames of all conns at one worker.
    One,
    /// Half of the conns at each of two workers.
    Two,
    /// Replies to all conns arrive at their owner; the other worker has nothing to do.
    Direct,
    /// Replies to all conns arrive at one worker, all conns are the other's.
    HandedOver,
    /// Each of two workers receives the replies to its own conns.
    DirectBoth,
    /// Each of two workers receives the replies to the other's conns.
    Crossed,
}

impl Rig {
    /// The rig that this one's Mpps are divided by, in the same round.
    pub(crate) fn base(self) -> Option<Rig> {
        match self {
            Rig::One | Rig::Direct | Rig::DirectBoth => None,
            Rig::Two => Some(Rig::One),
            Rig::HandedOver => Some(Rig::Direct),
            Rig::Crossed => Some(Rig::DirectBoth),
        }
    }

    /// What is awaited of every frame.
    pub(crate) fn way(self) -> Way {
        match self {
            Rig::HandedOver | Rig::Crossed => Way::HandedOver,
            _ => Way::Direct,
        }
    }

    /// Whether the measured packets are replies.
    fn answers(self) -> bool {
        !matches!(self, Rig::One | Rig::Two)
    }

    /// Whether a program can do this work on this rig.
    pub(crate) fn suits(self, program: Program, workload: Workload) -> bool {
        workload.both_ways() == self.answers() && (program != Program::Testpmd || !self.answers())
    }

    /// Workers and captures of this rig.
    pub(crate) fn wires(self, captures: &Captures, workload: Workload) -> Wires {
        let once = |captures: Vec<PathBuf>| Wire { captures, endless: false };
        let endless = |captures: Vec<PathBuf>| Wire { captures, endless: true };
        let original = |part| captures.original(part);
        let reply = |part| captures.reply(part, workload);
        let nothing = || captures.nothing();
        let [all, first, second] = [Part::All, Part::First, Part::Second];
        // The worker that owns all conns is on the CPU of its own.
        let (alone, two) = (vec![WORKER_CPU], vec![WORKER_CPU, second_cpu()]);
        let (cpus, lan, wan) = match self {
            Rig::One => (alone, endless(vec![original(all)]), once(vec![nothing()])),
            Rig::Two => (
                two,
                endless(vec![original(first), original(second)]),
                once(vec![nothing(), nothing()]),
            ),
            Rig::Direct => (
                vec![second_cpu(), WORKER_CPU],
                once(vec![nothing(), original(all)]),
                endless(vec![reply(all)]),
            ),
            Rig::HandedOver => {
                (two, once(vec![original(all), nothing()]), endless(vec![reply(all)]))
            }
            Rig::DirectBoth => (
                two,
                once(vec![original(first), original(second)]),
                endless(vec![reply(first), reply(second)]),
            ),
            Rig::Crossed => (
                two,
                once(vec![original(first), original(second)]),
                endless(vec![reply(second), reply(first)]),
            ),
        };
        Wires { cpus, lan, wan }
    }
}

impl fmt::Display for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rig::One => "1 worker",
            Rig::Two => "2 workers, own conns each",
            Rig::Direct => "direct: 1 of 2 receives and owns",
            Rig::HandedOver => "handed over: 1 receives, 1 owns",
            Rig::DirectBoth => "direct: both receive their own",
            Rig::Crossed => "handed over: each receives the other's",
        })
    }
}

/// Which of the conns.
#[derive(Clone, Copy, Debug)]
enum Part {
    All,
    First,
    Second,
}

/// The files of one number of conns.
pub(crate) struct Captures {
    directory: PathBuf,
    conns: usize,
}

impl Captures {
    /// Writes the captures of all rigs.
    pub(crate) fn write(conns: usize, seed: u64, directory: &Path) -> Result<Self, Failure> {
        let captures = Self { directory: directory.to_path_buf(), conns };
        let all = Traffic::new(conns, seed);
        let [first, second] = all.halves();
        for (part, traffic) in [(Part::All, all), (Part::First, first), (Part::Second, second)] {
            let file = captures.original(part);
            traffic.write_originals(&file).map_err(Failure::io(file.display()))?;
            for workload in [Workload::FirewallBoth, Workload::SnatBoth] {
                let file = captures.reply(part, workload);
                let translated = workload.pool().map(|(address, _)| address);
                let written = traffic.write_replies(&file, translated);
                written.map_err(Failure::io(file.display()))?;
            }
        }
        let file = captures.nothing();
        write_nothing(&file).map_err(Failure::io(file.display()))?;
        Ok(captures)
    }

    /// Conns in all of them.
    pub(crate) fn conns(&self) -> usize {
        self.conns
    }

    fn original(&self, part: Part) -> PathBuf {
        self.file(&format!("rig-originals-{part:?}"))
    }

    fn reply(&self, part: Part, workload: Workload) -> PathBuf {
        self.file(&format!("rig-replies-{workload}-{part:?}"))
    }

    fn nothing(&self) -> PathBuf {
        self.file("rig-nothing")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}-{}.pcap", name.to_lowercase(), self.conns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn no_empty_capture_is_replayed_without_end_and_two_workers_have_a_queue_each() {
        let captures = Captures { directory: "/tmp".into(), conns: 8 };
        for &rig in Rig::value_variants() {
            let workload = if rig.answers() { Workload::SnatBoth } else { Workload::Snat };
            let wires = rig.wires(&captures, workload);
            for wire in [&wires.lan, &wires.wan] {
                assert!(!wire.endless || !wire.captures.contains(&captures.nothing()), "{rig}");
            }
            assert!(wires.lan.endless != wires.wan.endless, "{rig}");
            // Else a new conn would go to the worker that its hash names.
            assert_eq!(wires.lan.captures.len(), wires.cpus.len(), "{rig}");
            assert!(rig.suits(Program::Sluicegate, workload));
            assert_eq!(rig.suits(Program::Testpmd, workload), !rig.answers());
        }
    }
}
