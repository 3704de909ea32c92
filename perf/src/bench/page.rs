//! The page: one markdown text with every row, and the plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Part;
use super::svg::{self, Bar, Group, digits};
use crate::process::Failure;
use crate::row::{Goal, Row, Spread};

/// How all rows came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) not_judged: usize,
    /// Could not be measured.
    pub(super) lost: usize,
}

impl Outcome {
    /// Of all rows of all parts.
    pub(super) fn of(parts: &[Part]) -> Self {
        let mut outcome = Self::default();
        for part in parts {
            outcome.lost += part.failures.len();
            for row in &part.rows {
                match row.passes() {
                    Some(true) => outcome.passed += 1,
                    Some(false) => outcome.failed += 1,
                    None => outcome.not_judged += 1,
                }
            }
        }
        outcome
    }

    /// Whether nothing failed and nothing was lost.
    pub(super) fn good(self) -> bool {
        self.failed + self.lost == 0
    }
}

/// What did not reach its goal, in short; nothing if all did.
pub(super) fn missed(parts: &[Part]) -> String {
    let rows = parts.iter().flat_map(|part| &part.rows);
    let missed = rows.filter(|row| row.passes() == Some(false));
    let lines = missed.map(|row| {
        let ours = svg::figure(row.ours.median);
        let ratio = row.peer.as_ref().map_or_else(String::new, |peer| {
            format!(", {} times {}", svg::figure(peer.ratio.median), peer.name)
        });
        let goal = row.goal.map_or_else(String::new, |goal| format!(", goal {goal}"));
        format!("- {}: {ours} {}{ratio}{goal}\n", row.name, row.unit)
    });
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\n## Missed\n\n{lines}") }
}

/// The table of a part and what is to be known about it.
pub(super) fn section(part: &Part) -> String {
    let mut text = format!("\n## {}\n\n", part.title);
    for remark in &part.remarks {
        let _ = writeln!(text, "{remark}\n");
    }
    if part.rows.is_empty() && part.failures.is_empty() {
        return text;
    }
    text += "| workload | ours: median (min–max) | unit | peer | peer's | ratio | goal | outcome \
             | remark |\n|---|--:|---|---|--:|--:|--:|---|---|\n";
    part.rows.iter().for_each(|row| text += &line(row));
    for (name, reason) in &part.failures {
        let reason = reason.replace(['|', '\n'], " ");
        let _ =
            writeln!(text, "| {name} | – | | – | – | – | | **FAIL** | not measured: {reason} |");
    }
    text
}

fn line(row: &Row) -> String {
    let show = |spread: Spread| Spread::show(Some(spread), digits(spread.median));
    let (peer, theirs, ratio) = row.peer.as_ref().map_or_else(
        || ["–"; 3].map(str::to_owned).into(),
        |peer| {
            let mark = if peer.measured { "" } else { " \\*" };
            let ratio = Spread::show(Some(peer.ratio), 2);
            (peer.name.clone(), format!("{}{mark}", show(peer.figure)), ratio)
        },
    );
    let outcome = match row.passes() {
        Some(true) => "PASS",
        Some(false) => "**FAIL**",
        None => "not judged",
    };
    let goal = row.goal.map_or("–".to_owned(), |goal| goal.to_string());
    format!(
        "| {} | {} | {} | {peer} | {theirs} | {ratio} | {goal} | {outcome} | {} |\n",
        row.name,
        show(row.ours),
        row.unit,
        row.remark
    )
}

/// Writes a plot for each unit of each part; gives (title, file) of each.
pub(super) fn plots(parts: &[Part], folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut written = Vec::new();
    for part in parts {
        let mut units: Vec<&str> = Vec::new();
        for row in &part.rows {
            if !units.contains(&row.unit) {
                units.push(row.unit);
            }
        }
        for unit in units {
            let of_unit = part.rows.iter().filter(|row| row.unit == unit);
            let title = format!("{}, {unit}", part.title);
            let text = svg::bars(&title, &groups(of_unit));
            written.push(write(folder, title, &text)?);
        }
    }
    Ok(written)
}

/// Writes the plot of cycles in two pieces.
pub(super) fn plot_split(
    rows: &[(String, f64, f64)],
    folder: &Path,
) -> Result<(String, String), Failure> {
    let title = "TSC cycles per packet by CPU time".to_owned();
    let pieces = ["floor: devices and DPDK", "Sluicegate's own"];
    let text = svg::stacked(&title, pieces, rows);
    write(folder, title, &text)
}

fn write(folder: &Path, title: String, text: &str) -> Result<(String, String), Failure> {
    let letters = title
        .to_lowercase()
        .replace('%', "percent")
        .replace('µ', "u")
        .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let words: Vec<&str> = letters.split('-').filter(|word| !word.is_empty()).collect();
    let name = words.join("-") + ".svg";
    let file = folder.join(&name);
    fs::write(&file, text).map_err(Failure::io(file.display()))?;
    Ok((title, name))
}

/// Rows of one name together: ours once, each peer, each goal as a figure of ours.
fn groups<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for row in rows {
        let bar = |series: &str, spread: Spread| Bar {
            series: series.to_owned(),
            value: spread.median,
            range: (spread.min, spread.max),
        };
        let at = groups.iter().position(|group| group.name == row.name).unwrap_or_else(|| {
            let bars = vec![bar("Sluicegate", row.ours)];
            groups.push(Group { name: row.name.clone(), bars, goals: Vec::new() });
            groups.len() - 1
        });
        if let Some(peer) = &row.peer {
            let mark = if peer.measured { "" } else { " (not measured here)" };
            groups[at].bars.push(bar(&format!("{}{mark}", peer.name), peer.figure));
        }
        groups[at].goals.extend(goal_figure(row));
    }
    groups
}

/// Units of what is better when it is less.
const COSTS: [&str; 6] = ["ns", "µs", "ms", "cycles", "bytes", "instructions"];

/// The figure of ours that would just reach the goal. "At least" so many times the peer's means, of
/// a cost, so many times as little.
fn goal_figure(row: &Row) -> Option<f64> {
    let theirs = row.peer.as_ref().map(|peer| peer.figure.median);
    match row.goal? {
        Goal::RatioAtLeast(goal) if COSTS.contains(&row.unit) => Some(theirs? / goal),
        Goal::RatioAtLeast(goal) | Goal::RatioAtMost(goal) => Some(goal * theirs?),
        Goal::AtLeast(goal) | Goal::AtMost(goal) => Some(goal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Peer;

    fn row(peer: &str, figure: f64, goal: f64) -> Row {
        let ours = Spread { median: 24.0, min: 20.0, max: 30.0 };
        Row {
            name: "SNAT, 1 K conns, one way".to_owned(),
            unit: "Mpps",
            ours,
            peer: Some(Peer::from_elsewhere(peer, figure, ours)),
            goal: Some(Goal::RatioAtLeast(goal)),
            remark: String::new(),
        }
    }

    fn part() -> Part {
        let mut part = Part::new("Forwarding");
        part.rows = vec![row("VPP", 12.0, 1.8), row("OVS", 4.0, 9.0)];
        part.rows.push(Row { goal: None, ..row("OVS", 4.0, 1.0) });
        part.failures.push(("TCP".to_owned(), "it | ended\nbadly".to_owned()));
        part
    }

    #[test]
    fn each_row_says_how_it_came_out() {
        let text = section(&part());
        let lines: Vec<&str> = text.lines().filter(|l| l.starts_with("| ")).collect();
        assert!(lines[1].contains("| 24.0 (20.0–30.0) | Mpps | VPP | 12.0 \\* | 2.00"), "{text}");
        assert!(lines[1].contains("| ≥ 1.8× | PASS |"), "{text}");
        assert!(lines[2].contains("| ≥ 9× | **FAIL** |"), "{text}");
        assert!(lines[3].contains("| – | not judged |"), "{text}");
        assert!(lines[4].ends_with("not measured: it   ended badly |"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|line| columns(line) == columns(lines[0])), "{text}");
    }

    #[test]
    fn what_missed_its_goal_is_named_first() {
        let text = missed(&[part()]);
        assert_eq!(text.lines().filter(|line| line.starts_with("- ")).count(), 1);
        let line = "- SNAT, 1 K conns, one way: 24.0 Mpps, 6.00 times OVS, goal ≥ 9×";
        assert!(text.contains(line), "{text}");
        assert_eq!(missed(&[]), "");
    }

    #[test]
    fn a_lost_row_is_no_good_outcome() {
        let outcome = Outcome::of(&[part()]);
        assert_eq!(outcome, Outcome { passed: 1, failed: 1, not_judged: 1, lost: 1 });
        assert!(!outcome.good());
        let passed = Outcome { passed: 3, not_judged: 2, ..Outcome::default() };
        assert!(passed.good() && !Outcome { lost: 1, ..passed }.good());
    }

    #[test]
    fn rows_of_one_workload_are_one_group() {
        let part = part();
        let groups = groups(part.rows.iter().take(2));
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].bars.len(), 3);
        assert_eq!(groups[0].goals, [1.8 * 12.0, 36.0]);
        let cost = Row { unit: "ns", ..row("rte_hash", 48.0, 2.0) };
        assert_eq!(goal_figure(&cost), Some(24.0));
    }
}
