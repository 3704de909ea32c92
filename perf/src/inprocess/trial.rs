//! RFC 9693's two phases: clients open conns, one packet each, until a table has them all; then
//! servers answer each of them, which shows that every conn is there and, where sources are
//! translated, that the translation is undone. What clients send afterwards is established.
//!
//! The far end learns from what leaves how each source was translated, as a tester does that
//! stands behind a NAT.

use dataplane::pipeline::frame::{Burst, Frame};

use super::frame::{Slot, Spare};
use super::gateway::{Rig, work};
use super::packets::{Ends, Template, Way, ends_of, is_sound};
use super::picks::Picks;
use super::wires::Source;
use crate::process::Failure;

/// Every so many-th answer is looked at whole.
const LOOKED_AT: u32 = 61;

/// What the ends do at present.
#[derive(Debug)]
pub(crate) enum Phase {
    Silent,
    /// Clients open conns `next` to `until`.
    Open {
        next: u32,
        until: u32,
    },
    /// Servers answer conns `next` to `until`.
    Answer {
        next: u32,
        until: u32,
    },
    /// Clients send on conns that are there, without end.
    Talk(Picks),
}

/// Clients and servers of UDP conns.
pub(crate) struct Trial {
    pub(crate) phase: Phase,
    out: Template,
    back: Template,
    /// Whether translations are learnt; a conn that is never answered needs none.
    learns: bool,
    /// The outside address and port of each conn, from the first on.
    learnt: Vec<(u32, u16)>,
    /// Conns whose answer has come, and of those the ones that it came to wrongly.
    answered: u32,
    wrong: u32,
}

impl Trial {
    /// Over IPv4.
    pub(crate) fn new() -> Trial {
        Trial::of(Template::udp(Way::Out), Template::udp(Way::In))
    }

    /// Over IPv6; nobody answers.
    pub(crate) fn v6() -> Trial {
        Trial::of(Template::udp_v6(Way::Out), Template::udp_v6(Way::In)).unanswered()
    }

    fn of(out: Template, back: Template) -> Trial {
        let (phase, learnt) = (Phase::Silent, Vec::new());
        Trial { phase, out, back, learns: true, learnt, answered: 0, wrong: 0 }
    }

    /// Conns that are opened only.
    pub(crate) fn unanswered(self) -> Trial {
        Trial { learns: false, ..self }
    }

    /// The same in another phase.
    pub(crate) fn with(self, phase: Phase) -> Trial {
        Trial { phase, ..self }
    }

    /// Forgets all conns; the next ones have the same ends again.
    pub(crate) fn forget(&mut self) {
        self.learnt.clear();
        (self.answered, self.wrong, self.phase) = (0, 0, Phase::Silent);
    }

    /// Room for what is learnt of so many conns, written once: no page is missing when they come.
    pub(crate) fn prepare(&mut self, conns: u32) {
        self.learnt.resize(conns as usize, (0, 0));
        self.learnt.clear();
    }

    fn answer_of(&self, number: u32) -> Option<Ends> {
        let &(dst, dst_port) = self.learnt.get(number as usize)?;
        Some(Ends { dst, dst_port, ..Ends::of(number).reversed() })
    }

    fn check(&mut self, slot: &Slot) {
        let wanted = Ends::of(self.answered).reversed();
        let sound = !self.answered.is_multiple_of(LOOKED_AT) || is_sound(slot.head());
        let right = ends_of(slot.head()) == Some(wanted) && sound;
        self.wrong += u32::from(!right);
        self.answered += 1;
    }
}

impl Source for Trial {
    #[inline]
    fn arrive(&mut self, port: usize, room: usize, spare: &mut Spare, burst: &mut Burst<Slot>) {
        match &mut self.phase {
            Phase::Open { next, until } if port == Way::Out.port() => {
                let to = next.saturating_add(room as u32).min(*until);
                for number in *next..to {
                    burst.push(self.out.frame(&Ends::of(number), spare));
                }
                *next = to;
            }
            &mut Phase::Answer { next, until } if port == Way::In.port() => {
                let to = next.saturating_add(room as u32).min(until);
                for ends in (next..to).filter_map(|number| self.answer_of(number)) {
                    burst.push(self.back.frame(&ends, spare));
                }
                self.phase = Phase::Answer { next: to, until };
            }
            Phase::Talk(picks) if port == Way::Out.port() => {
                for _ in 0..room {
                    burst.push(self.out.frame(&Ends::of(picks.next()), spare));
                }
            }
            _ => {}
        }
    }

    #[inline]
    fn left(&mut self, port: usize, frames: &[Slot]) {
        match self.phase {
            Phase::Open { .. } if self.learns && port == Way::In.port() => {
                let seen = frames.iter().filter_map(|slot| ends_of(slot.head()));
                self.learnt.extend(seen.map(|ends| (ends.src, ends.src_port)));
            }
            Phase::Answer { .. } if port == Way::Out.port() => {
                frames.iter().for_each(|slot| self.check(slot));
            }
            _ => {}
        }
    }
}

impl Rig<Trial> {
    /// The first phase: fills the table with conns 0 to `conns`.
    pub(crate) fn open(&mut self, conns: u32) -> Result<(), Failure> {
        self.wires().source.phase = Phase::Open { next: 0, until: conns };
        self.until_quiet()?;
        self.lost_nothing("while conns were opened")
    }

    /// Opens conns `from` to `until`, which nobody is to answer.
    pub(crate) fn open_unanswered(&mut self, from: u32, until: u32) -> Result<(), Failure> {
        let trial = &mut self.wires().source;
        let learns = std::mem::replace(&mut trial.learns, false);
        trial.phase = Phase::Open { next: from, until };
        let done = self.until_quiet();
        self.wires().source.learns = learns;
        done?;
        self.lost_nothing("while conns were opened")
    }

    /// The second phase: all of them are answered.
    pub(crate) fn answer(&mut self, conns: u32) -> Result<(), Failure> {
        self.wires().source.phase = Phase::Answer { next: 0, until: conns };
        self.until_quiet()?;
        self.lost_nothing("while conns were answered")?;
        let Trial { answered, wrong, .. } = self.wires().source;
        if (answered, wrong) != (conns, 0) {
            let said = format!("{answered} of {conns} conns got their answer, {wrong} a wrong one");
            return Err(work(&said));
        }
        Ok(())
    }

    /// Clients send once more on each conn, which is established now: what comes from here on has
    /// a path of its own.
    pub(crate) fn send_again(&mut self, conns: u32) -> Result<(), Failure> {
        self.open_unanswered(0, conns)
    }
}

#[cfg(test)]
mod tests {
    use dataplane::pipeline::counters::LcoreCounters;

    use super::super::gateway::{Work, polls};
    use super::*;

    #[test]
    fn conns_are_opened_answered_and_talked_on_with_and_without_translation() {
        for kind in [Work::Firewall, Work::Snat] {
            let mut rig = Rig::new(&kind.plan(4096, "", 1), Trial::new()).unwrap();
            rig.open(3000).unwrap();
            assert_eq!(rig.conns(), 3000);
            let outside = rig.wires().source.learnt.iter().all(|(src, _)| src >> 24 == 198);
            assert_eq!(outside, kind == Work::Snat);
            rig.answer(3000).unwrap();
            rig.send_again(3000).unwrap();
            rig.wires().source.phase = Phase::Talk(Picks::uniform(3000, 1));
            rig.run(|worker, watch| polls(worker, watch, 100)).unwrap();
            rig.lost_nothing("talking").unwrap();
            let walked = |c: &LcoreCounters| 9000 + 3200 - c.fast.get();
            assert!(rig.core.counters().map(walked).sum::<u64>() <= 9000, "no path was taken");
            assert_eq!((rig.conns(), rig.wires().left), (3000, 9000 + 3200));
        }
    }

    #[test]
    fn an_answer_to_somebody_else_is_noticed() {
        let mut rig = Rig::new(&Work::Snat.plan(4096, "", 1), Trial::new()).unwrap();
        rig.open(100).unwrap();
        rig.wires().source.learnt.swap(3, 77);
        let failure = rig.answer(100).unwrap_err().to_string();
        assert!(failure.contains("left") || failure.contains("wrong"), "{failure}");
    }
}
