//! What random sequences reached in the kernel: sequences that draw only packets which nobody lets
//! through would agree, and prove nothing.

use super::batch::{Batch, Outcome};
use super::plan::Body;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

/// Counts over all sequences that ran.
#[derive(Default)]
pub struct Tally {
    seeds: BTreeSet<u64>,
    /// By kind: sequences that have it, packets, and what was forwarded because of them.
    kinds: BTreeMap<&'static str, [usize; 3]>,
    /// By protocol as listings call it: conns, those that were answered, ASSURED ones.
    conns: BTreeMap<String, [usize; 3]>,
    /// Conns that were listed in each state.
    states: BTreeMap<String, usize>,
    /// Datagrams that were cut, and those of which something was forwarded.
    datagrams: [usize; 2],
}

impl Tally {
    /// Adds what the kernel made of a batch; a sequence that runs again does not count.
    pub fn note(&mut self, batch: &Batch, outcome: &Outcome) {
        for at in 0..batch.plans.len() {
            if self.seeds.insert(batch.plans[at].seed) {
                self.packets(batch, at, outcome);
                self.listed(batch, at, outcome);
            }
        }
    }

    fn packets(&mut self, batch: &Batch, at: usize, outcome: &Outcome) {
        let plan = &batch.plans[at];
        let mut kinds: BTreeMap<&'static str, [usize; 3]> = BTreeMap::new();
        let mut datagrams: BTreeMap<u16, bool> = BTreeMap::new();
        for (step, draft) in plan.drafts.iter().enumerate() {
            let (Some(draft), Some(Some((side, _)))) = (draft, outcome.sent[at].get(step)) else {
                continue;
            };
            let forwarded = outcome.observed[at][step].iter().any(|out| out.side != *side);
            let mut count = |kind| {
                let counts = kinds.entry(kind).or_insert([1, 0, 0]);
                counts[1] += 1;
                counts[2] += usize::from(forwarded);
            };
            count(if plan.policy.four { "IPv4" } else { "IPv6" });
            match &draft.body {
                Body::Error { .. } => count("ICMP errors"),
                Body::Piece(piece) => {
                    count("fragments");
                    *datagrams.entry(piece.number).or_default() |= forwarded;
                    count(kind(&piece.of));
                }
                other => count(kind(other)),
            }
        }
        for (kind, counts) in kinds {
            let all = self.kinds.entry(kind).or_default();
            all.iter_mut().zip(counts).for_each(|(all, more)| *all += more);
        }
        self.datagrams[0] += datagrams.len();
        self.datagrams[1] += datagrams.values().filter(|forwarded| **forwarded).count();
    }

    /// Conns by their original direction; a sequence's listings tell of one several times.
    fn listed(&mut self, batch: &Batch, at: usize, outcome: &Outcome) {
        let mut conns: BTreeMap<String, [bool; 2]> = BTreeMap::new();
        let mut states = BTreeSet::new();
        for line in outcome.tables.iter().flat_map(|table| {
            let lines = batch.lines(at, table);
            lines.lines().map(str::to_owned).collect::<Vec<_>>()
        }) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some(from) = words.iter().position(|word| word.starts_with("src=")) else {
                continue;
            };
            let protocol = words[0];
            let key = format!("{protocol} {}", words[from..(from + 5).min(words.len())].join(" "));
            let known = conns.entry(key.clone()).or_default();
            known[0] |= !line.contains("[UNREPLIED]");
            known[1] |= line.contains("[ASSURED]");
            let state = words[from - 1];
            if state.starts_with(|first: char| first.is_ascii_uppercase()) {
                states.insert((key, format!("{protocol} {state}")));
            }
        }
        for (key, [answered, assured]) in conns {
            let protocol = key.split(' ').next().unwrap_or_default();
            let counts = self.conns.entry(protocol.to_owned()).or_default();
            counts[0] += 1;
            counts[1] += usize::from(answered);
            counts[2] += usize::from(assured);
        }
        states.into_iter().for_each(|(_, state)| *self.states.entry(state).or_default() += 1);
    }

    /// What a run of that many sequences has to reach.
    pub fn lacks(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        for kind in KINDS {
            if self.kinds.get(kind).is_none_or(|[_, _, forwarded]| *forwarded < 10) {
                lacks.push(format!("hardly any {kind} forwarded"));
            }
        }
        let conns = |protocol| self.conns.get(protocol).copied().unwrap_or_default();
        // UDP becomes ASSURED after two seconds that not every sequence takes.
        if conns("udp")[1] < 10 {
            lacks.push("hardly any answered conns of udp".to_owned());
        }
        for protocol in ["tcp", "sctp", "gre"] {
            if conns(protocol)[2] < 5 {
                lacks.push(format!("hardly any ASSURED conns of {protocol}"));
            }
        }
        if self.datagrams[1] < 10 {
            lacks.push("hardly any datagrams put together".to_owned());
        }
        lacks
    }
}

/// What sequences are made of.
const KINDS: [&str; 9] = [
    "IPv4",
    "IPv6",
    "TCP",
    "UDP",
    "ICMP queries",
    "SCTP",
    "GRE and unknown",
    "ICMP errors",
    "fragments",
];

fn kind(body: &Body) -> &'static str {
    match body {
        Body::Tcp { .. } => "TCP",
        Body::Udp { .. } => "UDP",
        Body::Query { .. } => "ICMP queries",
        Body::Sctp { .. } => "SCTP",
        Body::Other { .. } => "GRE and unknown",
        Body::Error { .. } => "ICMP errors",
        Body::Piece(_) => "fragments",
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} sequences in the kernel:", self.seeds.len())?;
        for (kind, [sequences, packets, forwarded]) in &self.kinds {
            writeln!(
                f,
                "  {kind}: in {sequences} sequences, {packets} packets, forwarded {forwarded}"
            )?;
        }
        let [cut, forwarded] = self.datagrams;
        writeln!(f, "  datagrams in pieces: {cut}, forwarded {forwarded}")?;
        for (protocol, [conns, answered, assured]) in &self.conns {
            writeln!(
                f,
                "  conns of {protocol}: {conns} confirmed, {answered} answered, {assured} ASSURED"
            )?;
        }
        let states: Vec<String> =
            self.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
        write!(f, "  listed in {}", states.join(", "))
    }
}
