//! What random rule sets reached in the kernel: sets that no packet meets would agree, and prove
//! nothing.

use super::case::{Case, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};

/// Of a hundred sets so many may be refused by both.
const REFUSED_MAX: usize = 3;

/// Counts over all sets that ran.
#[derive(Default)]
pub struct Tally {
    seeds: BTreeSet<u64>,
    /// What a kernel said of those it refused.
    refused: Vec<String>,
    /// By `-m name`, `-j name` or chain's policy: rules, and those of them that a packet has met.
    words: BTreeMap<String, [usize; 2]>,
    /// Packets in, packets out, lines logged, conns at the end.
    counts: [usize; 4],
}

impl Tally {
    /// Adds what the kernel made of a case; one that runs again does not count.
    pub fn note(&mut self, case: &Case, outcome: &Outcome) {
        if !self.seeds.insert(case.seed) {
            return;
        }
        if let Some(complaint) = &outcome.refused {
            let said = complaint.lines().take(2).collect::<Vec<_>>().join(" ");
            let said = said.rsplit("(nf_tables): ").next().unwrap_or_default();
            let number = said.split("line").nth(1).map(|rest| rest.trim_start_matches([':', ' ']));
            let number = number.and_then(|rest| rest.split([' ', ':']).next()?.parse().ok());
            let then = case.then.as_ref().filter(|_| !outcome.counters.is_empty());
            let text = then.map_or(&case.rules, |(_, rules)| rules).text();
            let line =
                text.lines().nth(number.unwrap_or(1_usize).saturating_sub(1)).unwrap_or_default();
            self.refused.push(format!("seed {}: {said}: {line}", case.seed));
        }
        let counts = [
            outcome.sent.iter().flatten().count(),
            outcome.observed.iter().map(Vec::len).sum(),
            outcome.logged.iter().map(Vec::len).sum(),
            outcome.conns.lines().count(),
        ];
        self.counts.iter_mut().zip(counts).for_each(|(all, more)| *all += more);
        let lines = outcome.counters.iter().flat_map(|listing| listing.lines());
        for line in lines.filter(|line| line.starts_with('[')) {
            let met = !line.starts_with("[0:");
            let words: Vec<&str> = line.split_whitespace().collect();
            let asked = words.windows(2).filter(|pair| matches!(pair[0], "-m" | "-j" | "-g"));
            let names: BTreeSet<String> = asked.map(|pair| pair.join(" ")).collect();
            for name in names {
                let counts = self.words.entry(name).or_default();
                counts[0] += 1;
                counts[1] += usize::from(met);
            }
        }
    }

    /// Words that stand in many rules and were met by no packet.
    pub fn lacks(&self) -> Vec<String> {
        let unmet = self.words.iter().filter(|(_, [rules, met])| *rules >= 40 && *met == 0);
        let mut lacks: Vec<String> = unmet.map(|(word, _)| word.clone()).collect();
        if self.refused.len() * 100 > self.seeds.len() * REFUSED_MAX {
            lacks.push(format!("too many are refused:\n{}", self.refused.join("\n")));
        }
        lacks
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sent, out, logged, conns] = self.counts;
        writeln!(
            f,
            "{} sets ({} refused): {sent} packets in, {out} out, {logged} lines, {conns} conns",
            self.seeds.len(),
            self.refused.len()
        )?;
        for complaint in &self.refused {
            writeln!(f, "  refused: {complaint}")?;
        }
        for (word, [rules, met]) in &self.words {
            write!(f, "  {word} {met}/{rules}")?;
        }
        Ok(())
    }
}
