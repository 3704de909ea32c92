//! In which zone a packet will be tracked, as far as that is known before the table raw is walked.
//!
//! Raw comes before tracking, but an established conn is found first and walks nothing. That is
//! right where every packet of a port gets the same zone, whatever else is in it: then the conn is
//! searched for in that zone. Where the zone depends on the packet, or on its mark, packets have to
//! walk. This is worked out once, when the ruleset is compiled: the chain is followed for each port
//! with tests of the port answered and all others left open.

use super::compiled::{Action, Compiled, CompiledRule};
use super::facts::PortId;
use super::hook::{Hook, Table};
use super::template::Said;
use super::test::Test;
use crate::conntrack::zones::Zones;

/// Rules looked at for one port; where there are more, its packets walk.
const STEPS_MAX: u32 = 1 << 14;

/// By hook and port.
#[derive(Clone, Debug, Default)]
pub(super) struct Entrances {
    /// By port number; empty where no rule names a zone.
    received: Box<[Option<Zones>]>,
    /// For packets of our own, likewise.
    sent: Option<Option<Zones>>,
}

impl Compiled {
    /// The zones in which a packet that came in by `port`, or is our own, will be tracked; `None`
    /// if that depends on the packet.
    #[inline]
    pub fn zones(&self, port: Option<PortId>) -> Option<Zones> {
        let known = match port {
            Some(port) => self.entrances.received.get(port.0 as usize).copied(),
            None => self.entrances.sent,
        };
        known.unwrap_or(Some(Zones::default()))
    }

    /// Fills in what [`Compiled::zones`] says of `ports` ports.
    pub(super) fn find_entrances(&mut self, ports: usize) {
        let names_zone = |said: &Said| match said {
            Said::Notrack => false,
            Said::Template(template) => template.zone.mark || template.zone.id != 0,
        };
        if !self.said.iter().any(names_zone) {
            return;
        }
        let received = (0..=u8::MAX)
            .take(ports)
            .map(|number| Search::new(self, Some(PortId(number))).run(Hook::Prerouting));
        self.entrances = Entrances {
            received: received.collect(),
            sent: Some(Search::new(self, None).run(Hook::Output)),
        };
    }
}

/// What is certain at the end of a chain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Some packet may go on behind it.
    GoesOn,
    /// None does, or none that a later rule could give a zone.
    Settled,
}

/// All zones that a packet could get.
struct Search<'a> {
    rules: &'a Compiled,
    port: Option<PortId>,
    found: Option<Zones>,
    /// More than one, or one that the mark names.
    depends: bool,
    steps: u32,
}

impl<'a> Search<'a> {
    fn new(rules: &'a Compiled, port: Option<PortId>) -> Search<'a> {
        Search { rules, port, found: None, depends: false, steps: 0 }
    }

    fn run(mut self, hook: Hook) -> Option<Zones> {
        let Some(base) = self.rules.base(Table::Raw, hook) else { return Some(Zones::default()) };
        if self.follow(base.chain) == End::GoesOn {
            self.add(Zones::default());
        }
        if self.depends { None } else { Some(self.found.unwrap_or_default()) }
    }

    fn add(&mut self, zones: Zones) {
        self.depends |= self.found.is_some_and(|found| found != zones);
        self.found = Some(zones);
    }

    /// Whether a rule holds, if its port decides that.
    fn holds(&self, rule: &CompiledRule) -> Option<bool> {
        let span = rule.first_test as usize..rule.end_test as usize;
        let mut certain = true;
        for test in self.rules.tests.get(span).unwrap_or(&[]) {
            match test {
                Test::InPort(set) if set.holds(self.port) => {}
                Test::InPort(_) => return Some(false),
                _ => certain = false,
            }
        }
        certain.then_some(true)
    }

    fn follow(&mut self, chain: u32) -> End {
        let rules = self.rules;
        // Some packet may have left the chain towards its caller.
        let mut left = false;
        for rule in rules.chain(chain) {
            self.steps += 1;
            if self.depends || self.steps > STEPS_MAX {
                self.depends = true;
                return End::Settled;
            }
            let certain = match self.holds(rule) {
                Some(false) => continue,
                holds => holds.is_some(),
            };
            let end = match rule.action {
                Action::Say(number) => {
                    if let Some(Said::Template(template)) = rules.said.get(number as usize) {
                        self.depends |= template.zone.mark;
                        self.add(template.zone.zones(0));
                    }
                    End::Settled
                }
                Action::Accept => {
                    self.add(Zones::default());
                    End::Settled
                }
                Action::Drop | Action::Reject(_) | Action::Nat(_) => End::Settled,
                Action::Jump(chain) => self.follow(chain),
                Action::Goto(chain) => {
                    left |= self.follow(chain) == End::GoesOn;
                    End::Settled
                }
                Action::Return => {
                    left = true;
                    End::Settled
                }
                Action::Continue
                | Action::Log(_)
                | Action::Set(_)
                | Action::Mark(_)
                | Action::Connmark(_)
                | Action::Nflog(_)
                | Action::Edit(_)
                | Action::Synproxy(_)
                | Action::Trace => End::GoesOn,
            };
            if certain && end == End::Settled {
                return if left { End::GoesOn } else { End::Settled };
            }
        }
        End::GoesOn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::hook::Family;
    use crate::rules::matches::{Basics, Maybe};
    use crate::rules::model::{Counters, Place, Rule, Ruleset};
    use crate::rules::targets::Target;
    use crate::rules::template::{Ct, Side, Template, Zone};

    fn rule(in_port: Option<&str>, tcp: bool, target: Target) -> Rule {
        let basics = Basics {
            in_port: in_port.map(|name| Maybe::is(name.to_owned())),
            proto: tcp.then(|| Maybe::is(6)),
            ..Basics::default()
        };
        let (place, counters) = (Place::default(), Counters::default());
        Rule { place, counters, basics, matches: Vec::new(), target }
    }

    fn zone(id: u16) -> Target {
        let template = Template { zone: Zone { id, ..Zone::default() }, ..Template::default() };
        Target::Ct(Ct { template, ..Ct::default() })
    }

    /// What is known of lan, of wan and of our own packets.
    fn known(pre: Vec<Rule>, user: Vec<Rule>) -> [Option<u16>; 3] {
        let mut ruleset = Ruleset::new(Family::V4);
        let raw = ruleset.table_mut(Table::Raw);
        raw.add_chain("u");
        raw.chain_mut("u").unwrap().rules = user;
        raw.chain_mut("PREROUTING").unwrap().rules = pre.clone();
        raw.chain_mut("OUTPUT").unwrap().rules = pre;
        let compiled = Compiled::new(&ruleset, &["lan", "wan"], 0).unwrap();
        [Some(PortId(0)), Some(PortId(1)), None].map(|p| compiled.zones(p).map(|z| z.original))
    }

    #[test]
    fn a_zone_is_known_where_the_port_alone_decides() {
        let tftp = || rule(None, true, Target::Ct(Ct::default()));
        assert_eq!(known(vec![tftp()], vec![]), [Some(0); 3], "nobody names a zone");
        let by_port = vec![rule(Some("lan"), false, zone(5))];
        assert_eq!(known(by_port.clone(), vec![]), [Some(5), Some(0), Some(0)]);
        let two = [by_port, vec![rule(None, false, zone(6))]].concat();
        assert_eq!(known(two.clone(), vec![]), [Some(5), Some(6), Some(6)]);
        let some_first = [vec![tftp()], two.clone()].concat();
        assert_eq!(known(some_first, vec![]), [None; 3], "TCP has none");
        let untracked = [vec![rule(None, true, Target::Notrack)], two.clone()].concat();
        assert_eq!(known(untracked, vec![]), [Some(5), Some(6), Some(6)], "or is not looked up");
        let accepted = [vec![rule(Some("wan"), false, Target::Accept)], two.clone()].concat();
        assert_eq!(known(accepted, vec![]), [Some(5), Some(0), Some(6)]);
        let some_accepted = [vec![rule(Some("wan"), true, Target::Accept)], two].concat();
        assert_eq!(known(some_accepted, vec![]), [Some(5), None, Some(6)]);
    }

    #[test]
    fn a_zone_of_the_mark_is_not_known() {
        let zone = Zone { id: 0, mark: true, side: Side::Original };
        let template = Template { zone, ..Template::default() };
        let target = Target::Ct(Ct { template, ..Ct::default() });
        assert_eq!(known(vec![rule(Some("lan"), false, target)], vec![]), [None, Some(0), Some(0)]);
    }

    #[test]
    fn chains_are_followed_and_who_returns_goes_on() {
        let jump = || rule(Some("lan"), false, Target::Jump("u".into()));
        let goto = || rule(Some("lan"), false, Target::Goto("u".into()));
        let last = || rule(None, false, zone(6));
        let user = |tcp, target| vec![rule(None, tcp, target), rule(None, false, zone(8))];
        let lan = |first, user| known(vec![first, last()], user)[0];
        assert_eq!(lan(jump(), user(true, Target::None)), Some(8));
        assert_eq!(lan(jump(), user(false, Target::Return)), Some(6));
        assert_eq!(lan(jump(), user(true, Target::Return)), None);
        assert_eq!(lan(jump(), vec![]), Some(6));
        assert_eq!(lan(goto(), vec![]), Some(0), "a goto does not come back");
        assert_eq!(lan(goto(), user(true, Target::None)), Some(8));
        let some = rule(None, true, Target::Goto("u".into()));
        assert_eq!(lan(some, vec![]), None);
    }
}
