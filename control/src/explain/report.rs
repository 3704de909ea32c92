//! From a pipeline's notes to what people are told.

use serde::Serialize;

use dataplane::conntrack::record::ConnRef;
use dataplane::conntrack::state::{CtState, Direction};
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::notes::{End, Note, Tracked};
use dataplane::pipeline::route::{Destination, NoWay};
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::rules::compiled::CounterId;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Hook;
use dataplane::rules::matches::{Match, Rest};
use dataplane::rules::model::{Countable, Rule, Ruleset};
use dataplane::rules::targets::Target;
use dataplane::rules::walk::Verdict;
use dataplane::wire::address::Address;
use dataplane::wire::headers::Headers;

use super::question::Fit;
use super::words;
use crate::iptables;
use crate::labels::Names;
use crate::publish::Rulesets;

/// A packet's way.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// The packet as it came.
    pub packet: String,
    /// The port that it came in by; none for one of our own.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// What a live conn's tracker accepts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// How many fragments it came in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragments: Option<usize>,
    /// What it met, in order.
    pub steps: Vec<Step>,
    /// What becomes of it.
    pub end: Ending,
}

/// Something that a packet meets.
#[derive(Debug, Serialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// A rule that matches.
    Rule(Met),
    /// A rule that does not, by what it keeps from packet to packet or by chance.
    Unmatched(Met),
    /// The policy of a base chain.
    Policy(Met),
    /// The table filter is not asked at this hook: the conn goes on as before the rules changed.
    Kept {
        /// The hook.
        hook: &'static str,
    },
    /// The packet has another mark.
    Mark {
        /// The new one.
        mark: u32,
    },
    /// What tracking says.
    Conntrack {
        /// The state that rules see.
        state: &'static str,
        /// Of which direction of its conn the packet is.
        #[serde(skip_serializing_if = "Option::is_none")]
        direction: Option<&'static str>,
        /// What else there is to say: an error about the conn, an expectation.
        #[serde(skip_serializing_if = "Option::is_none")]
        remark: Option<&'static str>,
        /// The live conn, as `conntrack -L` shows it.
        #[serde(skip_serializing_if = "Option::is_none")]
        conn: Option<String>,
        /// Why it is INVALID.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'static str>,
        /// The same in a sentence.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'static str>,
    },
    /// The packet is translated.
    Nat {
        /// The hook.
        hook: &'static str,
        /// Before.
        from: String,
        /// Behind it.
        to: String,
        /// The port was drawn by lot: the next draw is another.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        by_lot: bool,
    },
    /// The routes have been asked.
    Route(Way),
    /// The gateway sends an answer.
    Answer(Box<Report>),
}

/// A rule or a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Met {
    /// Its table.
    pub table: &'static str,
    /// Its chain.
    pub chain: String,
    /// The rule's number in the chain, from 1; none for the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// As `iptables-save` prints it; of a policy its verdict.
    pub text: String,
    /// What else the answer rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Where the routes lead.
#[derive(Debug, Default, Serialize)]
pub struct Way {
    /// `forward`, `local` and its like.
    pub to: &'static str,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
}

/// What becomes of a packet.
#[derive(Debug, Default, Serialize)]
pub struct Ending {
    /// `sent`, `to-gateway`, `to-programs`, `answered`, `dropped` or `rejected`.
    pub verdict: &'static str,
    /// Why it was dropped, by the name that `stats` has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<&'static str>,
    /// The rule or policy that dropped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<Met>,
    /// What it is rejected with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with: Option<&'static str>,
    /// The port that it leaves by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Towards whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_hop: Option<String>,
    /// What is known of the next hop's MAC address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbour: Option<String>,
    /// The packet as it is then.
    pub packet: String,
    /// The conn that it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conn: Option<String>,
}

/// What the notes are about.
pub struct Scene<'a> {
    /// The ports.
    pub snapshot: &'a Snapshot,
    /// The rules.
    pub rulesets: &'a Rulesets,
    /// Names that labels have.
    pub labels: Option<&'a Names>,
    /// The line of the live conn that a copy is of; `None` for a conn that is no copy.
    pub copied: &'a dyn Fn(ConnRef) -> Option<String>,
    /// The line of a conn that has begun.
    pub begun: &'a dyn Fn(ConnRef) -> Option<String>,
    /// What is known of a next hop.
    pub neighbour: &'a dyn Fn(PortId, Address) -> String,
}

impl Scene<'_> {
    fn port(&self, port: PortId) -> String {
        self.snapshot.port(port).name.clone()
    }

    fn ruleset(&self, v6: bool) -> &Ruleset {
        if v6 { &self.rulesets.v6 } else { &self.rulesets.v4 }
    }

    /// What a counter counts, and what a rule rejects with.
    pub fn met(&self, v6: bool, counter: CounterId) -> (Met, Option<&'static str>) {
        let ruleset = self.ruleset(v6);
        let item = ruleset.countables().nth(counter.0 as usize);
        let found = item.and_then(|Countable { table, chain, rule }| {
            Some((table, ruleset.table(table)?.chains.get(chain)?, rule))
        });
        let Some((table, chain, rule)) = found else { return (Met::default(), None) };
        let met = Met { table: table.name(), chain: chain.name.clone(), ..Met::default() };
        match (rule.and_then(|n| chain.rules.get(n)), rule, chain.base) {
            (Some(rule), Some(number), _) => {
                let text = iptables::named_rule_text(rule, ruleset.family, self.labels);
                let text = format!("-A {}{text}", chain.name);
                let with = match rule.target {
                    Target::Reject(with) => Some(iptables::reject_name(with, ruleset.family)),
                    _ => None,
                };
                let remark = remark(rule);
                (Met { rule: Some(number + 1), text, remark, ..met }, with)
            }
            (_, _, Some(base)) => {
                let text = iptables::policy_name(base.policy).to_owned();
                (Met { text, ..met }, None)
            }
            _ => (met, None),
        }
    }

    fn way(&self, to: &'static str, port: Option<u8>, next_hop: Option<Address>) -> Way {
        Way {
            to,
            port: port.map(|port| self.port(PortId(port))),
            next_hop: next_hop.map(|next_hop| next_hop.to_string()),
        }
    }

    fn destination(&self, destination: &Destination, dst: Address) -> Way {
        match *destination {
            Destination::Local(port) => self.way("local", Some(port), None),
            Destination::Broadcast => self.way("broadcast", None, None),
            Destination::Multicast { .. } => self.way("multicast", None, None),
            Destination::Forward(route) => {
                self.way("forward", Some(route.port), Some(route.via.unwrap_or(dst)))
            }
            Destination::Unreachable(NoWay::NoRoute) => self.way("no-route", None, None),
            Destination::Unreachable(NoWay::Blackhole) => self.way("blackhole", None, None),
            Destination::Unreachable(NoWay::Unreachable) => self.way("unreachable", None, None),
            Destination::Unreachable(NoWay::Prohibit) => self.way("prohibit", None, None),
        }
    }
}

/// What a rule says of the next packet of this kind may be something else.
fn remark(rule: &Rule) -> Option<String> {
    let rests = rule.matches.iter().filter_map(Match::rests_on);
    let words: Vec<String> = rests
        .map(|rest| match rest {
            Rest::State(name) => format!("its {name} as it is now, of which this uses nothing up"),
            Rest::Chance => "chance".to_owned(),
        })
        .collect();
    (!words.is_empty()).then(|| format!("by {}", words.join(" and ")))
}

/// The verdict on a packet that becomes its own answer.
const ANSWERED: &str = "answered";

/// A packet under way.
struct Walker {
    report: Report,
    headers: Headers,
    mark: u32,
    reason: Option<(&'static str, &'static str)>,
    drawn: bool,
    fresh: Option<ConnRef>,
    /// The last rule or policy met, and what it rejects with.
    last: Option<(Met, Option<&'static str>)>,
    /// What the chain came to in which that was.
    verdict: Verdict,
}

/// The report on the first packet of some notes.
pub fn report(notes: &[Note], scene: &Scene<'_>) -> Option<Report> {
    let mut under_way: Vec<Walker> = Vec::new();
    for note in notes {
        match *note {
            Note::Begins(port, headers) => under_way.push(Walker::new(port, headers, scene)),
            Note::Ends(end, headers, mark) => {
                let walker = under_way.last_mut()?;
                walker.mark(mark);
                walker.end(end, &headers, scene);
                // The answer that it has become sets out now.
                if end == End::Answered {
                    continue;
                }
                let mut done = under_way.pop()?.report;
                loop {
                    let Some(outer) = under_way.last_mut() else { return Some(done) };
                    outer.report.steps.push(Step::Answer(Box::new(done)));
                    if outer.report.end.verdict != ANSWERED {
                        break;
                    }
                    done = under_way.pop()?.report;
                }
            }
            _ => under_way.last_mut()?.meet(note, scene),
        }
    }
    under_way.into_iter().next().map(|walker| walker.report)
}

impl Walker {
    fn new(port: Option<PortId>, headers: Headers, scene: &Scene<'_>) -> Walker {
        let (packet, input) = (words::packet(&headers), port.map(|port| scene.port(port)));
        Walker {
            report: Report { packet, input, ..Report::default() },
            headers,
            mark: 0,
            reason: None,
            drawn: false,
            fresh: None,
            last: None,
            verdict: Verdict::Accept,
        }
    }

    fn meet(&mut self, note: &Note, scene: &Scene<'_>) {
        match *note {
            Note::Hit(counter) => {
                let (met, with) = scene.met(self.headers.is_v6(), counter);
                self.report.steps.push(match met.rule {
                    Some(_) => Step::Rule(met.clone()),
                    None => Step::Policy(met.clone()),
                });
                self.last = Some((met, with));
            }
            Note::Failed(counter) => {
                let (met, _) = scene.met(self.headers.is_v6(), counter);
                self.report.steps.push(Step::Unmatched(met));
            }
            Note::Kept(hook) => self.report.steps.push(Step::Kept { hook: hook.name() }),
            Note::Walks(..) => self.verdict = Verdict::Accept,
            Note::Walked(verdict, headers, mark) => {
                (self.verdict, self.headers) = (verdict, headers);
                self.mark(mark);
            }
            Note::Invalid(reason, _) => self.reason = Some((reason.name(), reason.text())),
            Note::Drawn => self.drawn = true,
            Note::Tracked(tracked) => self.track(tracked, scene),
            Note::Translated(hook, headers) => self.translate(hook, headers),
            Note::Routed(judged) => {
                let way = match &judged {
                    Ok(destination) => scene.destination(destination, self.headers.dst),
                    Err(_) => scene.way("martian", None, None),
                };
                self.report.steps.push(Step::Route(way));
            }
            Note::RoutedOut(Some((port, towards))) => {
                let way = scene.way("forward", Some(port.0), Some(towards));
                self.report.steps.push(Step::Route(way));
            }
            Note::RoutedOut(None) => {
                self.report.steps.push(Step::Route(scene.way("local", None, None)));
            }
            Note::Begins(..) | Note::Ends(..) | Note::Sought(..) => {}
            Note::Bound(..) | Note::Rests => {}
        }
    }

    fn mark(&mut self, mark: u32) {
        if mark != self.mark {
            self.mark = mark;
            self.report.steps.push(Step::Mark { mark });
        }
    }

    fn track(&mut self, tracked: Tracked, scene: &Scene<'_>) {
        let plain = |state| Step::Conntrack {
            state,
            direction: None,
            remark: None,
            conn: None,
            reason: None,
            text: None,
        };
        let step = match tracked {
            Tracked::Untracked => plain("UNTRACKED"),
            Tracked::Invalid => {
                let (reason, text) = self.reason.unzip();
                let (state, direction, remark, conn) = ("INVALID", None, None, None);
                Step::Conntrack { state, direction, remark, conn, reason, text }
            }
            Tracked::Conn { conn, direction, state, fresh, error, lent } => {
                self.fresh = fresh.then_some(conn).filter(|_| !lent);
                let remark = match () {
                    () if lent => Some("answers a packet of this conn"),
                    () if error => Some("an error about this conn"),
                    () if fresh && state == CtState::Related => Some("it was expected"),
                    () => None,
                };
                let direction = match direction {
                    _ if fresh => None,
                    Direction::Original => Some("original"),
                    Direction::Reply => Some("reply"),
                };
                let (state, conn) = (words::state(state), (scene.copied)(conn));
                Step::Conntrack { state, direction, remark, conn, reason: None, text: None }
            }
        };
        self.report.steps.push(step);
    }

    fn translate(&mut self, hook: Hook, headers: Headers) {
        let ends = |h: &Headers| (h.src, h.dst, h.src_port, h.dst_port, h.icmp_id);
        if ends(&headers) != ends(&self.headers) {
            let (from, to) = (words::packet(&self.headers), words::packet(&headers));
            let by_lot = std::mem::take(&mut self.drawn);
            self.report.steps.push(Step::Nat { hook: hook.name(), from, to, by_lot });
        }
        self.headers = headers;
    }

    fn end(&mut self, end: End, headers: &Headers, scene: &Scene<'_>) {
        let packet = words::packet(headers);
        let conn = self.fresh.and_then(|conn| (scene.begun)(conn));
        let ending = Ending { packet, conn, ..Ending::default() };
        self.report.end = match end {
            End::Sent(port, towards) => Ending {
                verdict: "sent",
                port: Some(scene.port(port)),
                next_hop: Some(towards.to_string()),
                neighbour: Some((scene.neighbour)(port, towards)),
                ..ending
            },
            End::Framed(port) => {
                let verdict = if scene.snapshot.is_host_tap(port) { "to-programs" } else { "sent" };
                Ending { verdict, port: Some(scene.port(port)), ..ending }
            }
            End::ToHost => Ending { verdict: "to-gateway", ..ending },
            End::Answered => Ending { verdict: ANSWERED, ..ending },
            End::Dropped(reason) => self.dropped(reason, ending),
            // One pipeline has no other.
            End::Elsewhere(_) => Ending { verdict: "handed-over", ..ending },
        };
    }

    fn dropped(&mut self, reason: DropReason, ending: Ending) -> Ending {
        let by_rules = match reason {
            DropReason::RawDrop | DropReason::MangleDrop | DropReason::FilterDrop => true,
            DropReason::Rejected => true,
            DropReason::NatDrop => self.verdict == Verdict::Drop,
            DropReason::SynProxied | DropReason::SynRefused => {
                matches!(self.verdict, Verdict::Synproxy(_))
            }
            _ => false,
        };
        let (by, with) = self.last.take().filter(|_| by_rules).unzip();
        let rejected = reason == DropReason::Rejected;
        Ending {
            verdict: match reason {
                DropReason::Rejected => "rejected",
                DropReason::SynProxied => "proxied",
                _ => "dropped",
            },
            reason: Some(reason.name()),
            text: Some(reason.text()),
            by,
            with: with.flatten().filter(|_| rejected),
            ..ending
        }
    }
}
