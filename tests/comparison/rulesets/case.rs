//! A case: a rule set, the packets that meet it, what a device made of them, and in what two
//! devices differ.

use super::draw;
use super::ruleset::{self, Ruleset};
use super::scene;
use super::targets::PORTS as RULES_PORTS;
use crate::compare;
use crate::learned::Learned;
use crate::listing;
use crate::packets::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::random::dice::Dice;
use crate::random::plan::{DATAGRAMS_MAX, Observed, Plan};
use crate::script::{Event, Transcript};
use crate::show;
use crate::topology::Side;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};

/// Conns count what they carry; whether INVALID packets are told of, and whether checksums are
/// looked at.
const SETTINGS: [&[(&str, u32)]; 4] = [
    &[("acct", 1), ("log_invalid", 0)],
    &[("acct", 1), ("log_invalid", 255)],
    &[("acct", 1), ("log_invalid", 0), ("checksum", 0)],
    &[("acct", 1), ("log_invalid", 255), ("checksum", 0)],
];

/// Where the numbers of the rules begin that are restored later, more than a set has. What is kept
/// under a name has another one there: iptables restores table by table, so that in a kernel a name
/// that moves from one to another is forgotten between them.
const THEN: usize = 1000;

/// Targets that change the header of IPv6. Where tracking has looked at a checksum and a host's
/// device has not, a kernel remembers a sum over that header too, and throws away what is for
/// itself.
const EDITS: [&str; 3] = ["-j TOS", "-j DSCP", "-j HL"];

/// What a seed drew.
#[derive(Clone)]
pub struct Case {
    pub seed: u64,
    pub plan: Plan,
    pub rules: Ruleset,
    pub log_invalid: bool,
    pub checksum: bool,
    /// Before a step other rules are restored, while the conns go on.
    pub then: Option<(usize, Ruleset)>,
}

/// What a device made of it.
#[derive(Default)]
pub struct Outcome {
    /// Why it took no such rules.
    pub refused: Option<String>,
    /// By step; `None` for a packet that was left out.
    pub sent: Vec<Option<(Side, Vec<u8>)>>,
    pub observed: Observed,
    pub logged: Vec<Vec<String>>,
    /// `conntrack -L`.
    pub conns: String,
    /// `iptables-save -c`, before other rules are restored and at the end.
    pub counters: Vec<String>,
    /// What else was wrong.
    pub faults: Vec<String>,
}

impl Case {
    pub fn draw(seed: u64) -> Case {
        let mut dice = Dice::new(seed ^ 0x7ab1_e500_0000);
        let four = dice.percent(60);
        let plan = scene::plan(seed, four, &mut dice);
        let rules = draw::ruleset(&plan, 0, &mut dice);
        let mut text = rules.text();
        let then = dice.percent(25).then(|| {
            let step = dice.between(4, plan.drafts.len() as u64 - 4) as usize;
            (step, draw::ruleset(&plan, THEN, &mut dice))
        });
        text.extend(then.iter().map(|(_, rules)| rules.text()));
        let checksum = four || !EDITS.iter().any(|target| text.contains(target));
        Case { seed, plan, rules, log_invalid: dice.percent(50), checksum, then }
    }

    /// The same as another run: of fragments that a kernel still holds none is of this one.
    pub fn again(&self) -> Case {
        static RUNS: AtomicU16 = AtomicU16::new(1);
        let run = RUNS.fetch_add(1, Ordering::Relaxed) % (u16::MAX / DATAGRAMS_MAX);
        Case { plan: Plan { run, ..self.plan.clone() }, ..self.clone() }
    }

    /// The first rules, or those that come then.
    pub fn rules(&self, of_then: bool) -> Option<&Ruleset> {
        match of_then {
            false => Some(&self.rules),
            true => self.then.as_ref().map(|(_, rules)| rules),
        }
    }

    /// Leaves out some rules of one of the sets.
    pub fn leave_out(&mut self, of_then: bool, part: std::ops::Range<usize>) {
        match &mut self.then {
            Some((_, rules)) if of_then => *rules = rules.without(part),
            _ => self.rules = self.rules.without(part),
        }
    }

    /// Rules of all sets.
    pub fn size(&self) -> usize {
        self.rules.size() + self.rules(true).map_or(0, Ruleset::size)
    }

    pub fn four(&self) -> bool {
        self.plan.policy.four
    }

    pub fn settings(&self) -> &'static [(&'static str, u32)] {
        SETTINGS[usize::from(self.log_invalid) + 2 * usize::from(!self.checksum)]
    }

    /// Every port and id that packets and rules name.
    fn numbers(&self) -> BTreeSet<u16> {
        let ends = self.plan.flows.iter().flat_map(|flow| [flow.client, flow.called, flow.server]);
        ends.map(|(_, number)| number).chain(RULES_PORTS).collect()
    }

    /// `iptables-save` or `iptables-restore` of the case's family.
    pub fn tool(&self, what: &str) -> &'static str {
        match (self.four(), what) {
            (true, "save") => "iptables-save",
            (true, _) => "iptables-restore",
            (false, "save") => "ip6tables-save",
            (false, _) => "ip6tables-restore",
        }
    }
}

/// Packets, logs and conns of an outcome.
fn transcript(case: &Case, outcome: &Outcome) -> Transcript {
    let known = case.numbers();
    let learned = learned(outcome, &known);
    let mut events = Vec::new();
    for (step, observed) in outcome.observed.iter().enumerate() {
        let Some(Some((side, frame))) = outcome.sent.get(step) else { continue };
        let out = |side| -> Vec<String> {
            let frames = observed.iter().filter(|out| out.side == side);
            frames.map(|out| show::frame(&out.frame, &learned)).collect()
        };
        let mut sent = vec![show::frame(frame, &learned)];
        let logged = outcome.logged[step].iter().map(|line| without_choices(line, &known));
        sent.extend(logged.map(|line| format!("  logged {line}")));
        events.push(Event::Step { side: *side, sent, lan: out(Side::Lan), wan: out(Side::Wan) });
    }
    events.push(Event::Table(listing::parse(&outcome.conns, &learned)));
    Transcript { events, said: None, violations: outcome.faults.clone() }
}

/// Numbers that a device chose, where one was taken: those in packets that nobody drew. They are
/// called by the order in which they were met.
fn learned(outcome: &Outcome, known: &BTreeSet<u16>) -> Learned {
    let mut learned = Learned::default();
    for out in outcome.observed.iter().flatten() {
        let Some(layers) = out.frame.get(14..).and_then(show::layers) else { continue };
        let ends: &[(IpAddr, usize)] = match layers.protocol {
            _ if layers.later_fragment => continue,
            TCP | UDP | SCTP => &[(layers.src, 0), (layers.dst, 2)],
            ICMP | ICMPV6 if matches!(layers.layer4.first(), Some(0 | 8 | 128 | 129)) => {
                &[(layers.src, 4), (layers.dst, 4)]
            }
            _ => continue,
        };
        for (address, at) in ends {
            let bytes = layers.layer4.get(*at..at + 2);
            let Some(number) = bytes.map(|b| u16::from_be_bytes([b[0], b[1]])) else { continue };
            if !known.contains(&number) && learned.name(*address, number).is_none() {
                learned.add(*address, number, 1..=u16::MAX, "choice");
            }
        }
    }
    learned
}

/// A logged line without numbers that a device chose, among them the identification of a packet of
/// its own.
fn without_choices(line: &str, known: &BTreeSet<u16>) -> String {
    let own = line.contains(" IN= ") || line.contains(":IN= ");
    let mut ids = 0;
    let word = |word: &str| match word.split_once('=') {
        Some((name @ ("SPT" | "DPT" | "ID"), value)) => {
            ids += usize::from(name == "ID");
            let drawn = value.parse().is_ok_and(|number| known.contains(&number));
            let shown = match name {
                "ID" if ids == 1 && own => false,
                "ID" if ids == 1 => true,
                _ => drawn || value == "23068",
            };
            if shown { word.to_owned() } else { format!("{name}=_") }
        }
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// In what two outcomes differ, most telling first.
pub fn differences(case: &Case, ours: &Outcome, theirs: &Outcome, names: [&str; 2]) -> Vec<String> {
    let mut found = Vec::new();
    if ours.refused.is_some() || theirs.refused.is_some() {
        if ours.refused.is_some() != theirs.refused.is_some() {
            for (name, outcome) in names.iter().zip([ours, theirs]) {
                let said = outcome.refused.as_deref().map_or("takes the rules", str::trim_end);
                found.push(format!("{name}: {said}"));
            }
        }
        return found;
    }
    let [our, their] = [ours, theirs].map(|outcome| transcript(case, outcome));
    found.extend(compare::differences(&our, &their, names));
    for (our, their) in ours.counters.iter().zip(&theirs.counters) {
        let [our, their] = [our, their]
            .map(|listing| -> BTreeMap<_, _> { ruleset::tables(listing).into_iter().collect() });
        for name in our.keys().chain(their.keys().filter(|name| !our.contains_key(*name))) {
            let nothing = Vec::new();
            let [a, b] = [&our, &their].map(|tables| tables.get(name).unwrap_or(&nothing));
            found.extend(lines(name, a, b, names));
        }
    }
    found
}

/// Lines of a table that are not the same in both listings.
fn lines(table: &str, ours: &[String], theirs: &[String], names: [&str; 2]) -> Vec<String> {
    let mut found = Vec::new();
    for at in 0..ours.len().max(theirs.len()) {
        let [a, b] = [ours, theirs].map(|lines| lines.get(at).map_or("nothing", String::as_str));
        if a != b {
            found.push(format!("{table}:\n {}: {a}\n {}: {b}", names[0], names[1]));
        }
    }
    found
}

/// All of an outcome, as text.
pub fn told(case: &Case, outcome: &Outcome) -> String {
    match &outcome.refused {
        Some(complaint) => complaint.clone(),
        None => format!("{}\n{}", transcript(case, outcome), outcome.counters.join("\n")),
    }
}
