//! The page: one markdown text with every row, and the plots beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::Part;
use super::svg::{self, Bar, Group, digits};
use crate::goals::Topic;
use crate::process::Failure;
use crate::row::{Outcome, Reach, Row, Spread};

/// How all rows came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) missed: usize,
    pub(super) undecided: usize,
    /// Without a goal.
    pub(super) not_judged: usize,
    /// Could not be measured.
    pub(super) lost: usize,
}

impl Count {
    /// Of all rows of all parts.
    pub(super) fn of(parts: &[Part]) -> Self {
        let lost = parts.iter().map(|part| part.failures.len()).sum();
        Self { lost, ..Self::of_rows(parts.iter().flat_map(|part| &part.rows)) }
    }

    fn of_rows<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        rows.fold(Self::default(), |mut count, row| {
            *match row.outcome() {
                Some(Outcome::Pass) => &mut count.passed,
                Some(Outcome::Miss) => &mut count.missed,
                Some(Outcome::Undecided(_)) => &mut count.undecided,
                None => &mut count.not_judged,
            } += 1;
            count
        })
    }

    /// Whether nothing missed and nothing was lost.
    pub(super) fn good(self) -> bool {
        self.missed + self.lost == 0
    }
}

/// The goals one after the other: how they came out, then the rows of each, and where one of them
/// is not reached what is known about its bound.
pub(super) fn goals(parts: &[Part]) -> String {
    let of = |topic| {
        let rows = parts.iter().flat_map(|part| &part.rows);
        rows.filter(|row| row.goal.is_some_and(|goal| goal.topic == topic)).collect::<Vec<_>>()
    };
    let mut text =
        "\n## Goals\n\n| goal | pass | miss | undecided |\n|---|--:|--:|--:|\n".to_owned();
    let mut sections = String::new();
    for topic in Topic::ALL {
        let rows = of(topic);
        let count = Count::of_rows(rows.iter().copied());
        let Count { passed, missed, undecided, not_judged, .. } = count;
        if rows.is_empty() {
            let _ = writeln!(text, "| {topic} | not measured | | |");
            continue;
        }
        let _ = writeln!(text, "| {topic} | {passed} | {missed} | {} |", undecided + not_judged);
        let _ = write!(sections, "\n### {topic}\n\n{}", table(rows.into_iter()));
        if missed > 0 {
            let _ = writeln!(sections, "\n{}", topic.bound());
        }
    }
    text + &sections
}

/// What could not be measured; nothing if all could.
pub(super) fn lost(parts: &[Part]) -> String {
    let lost = parts.iter().flat_map(|part| &part.failures);
    let lines = lost.map(|(name, reason)| format!("- {name}: {}\n", reason.replace('\n', " ")));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\n## Not measured\n\n{lines}") }
}

/// What is to be known about a part, and its rows that have no goal.
pub(super) fn section(part: &Part) -> String {
    let mut text = format!("\n## {}\n\n", part.title);
    for remark in &part.remarks {
        let _ = writeln!(text, "{remark}\n");
    }
    let mut rows = part.rows.iter().filter(|row| row.goal.is_none()).peekable();
    if rows.peek().is_some() {
        text += &table(rows);
    }
    text
}

fn table<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let head = "| workload | ours: median (min–max) | unit | peer | peer's | ratio | goal \
                | outcome | remark |\n|---|--:|---|---|--:|--:|--:|---|---|\n";
    head.to_owned() + &rows.map(line).collect::<String>()
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
    let close = if row.is_close() { ", closely" } else { "" };
    // A goal that nobody is there to be compared with for.
    let alone = if row.goal.is_some() { "undecided: no peer" } else { "–" };
    let outcome = row.outcome().map_or(alone.to_owned(), |outcome| format!("{outcome}{close}"));
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
    match row.goal?.reach {
        Reach::RatioAtLeast(goal) if COSTS.contains(&row.unit) => Some(theirs? / goal),
        Reach::RatioAtLeast(goal) | Reach::RatioAtMost(goal) => Some(goal * theirs?),
        Reach::AtLeast(goal) | Reach::AtMost(goal) => Some(goal),
        Reach::LossAtMost(goal) | Reach::ShareAtLeast(goal) => Some(goal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Peer;

    fn row(peer: &str, figure: f64, goal: f64) -> Row {
        let ours = Spread { median: 24.0, min: 20.0, max: 30.0, low: 20.0, high: 30.0 };
        Row::new("SNAT, 1 K conns, one way", "Mpps", ours)
            .beside(Peer::from_elsewhere(peer, figure, ours))
            .judged(Reach::RatioAtLeast(goal).of(Topic::Snat))
    }

    fn part() -> Part {
        let mut part = Part::new("Forwarding");
        part.rows = vec![row("VPP", 12.0, 1.8), row("OVS", 4.0, 9.0)];
        part.rows.push(Row { goal: None, ..row("OVS", 4.0, 1.0) });
        part.rows.push(row("OVS", 4.0, 1.0).doubted("no cores"));
        part.failures.push(("TCP".to_owned(), "it ended\nbadly".to_owned()));
        part
    }

    #[test]
    fn each_row_is_there_once_and_says_how_it_came_out() {
        let (goals, section) = (goals(&[part()]), section(&part()));
        let of = |text: &str| -> Vec<String> {
            text.lines().filter(|l| l.starts_with("| SNAT")).map(str::to_owned).collect()
        };
        let lines = of(&goals);
        assert_eq!((lines.len(), of(&section).len()), (3, 1));
        assert!(lines[0].contains("| 24.0 (20.0–30.0) | Mpps | VPP | 12.0 \\* | 2.00"), "{goals}");
        assert!(lines[0].contains("| ≥ 1.8× | pass, closely |"), "{goals}");
        assert!(lines[1].contains("| ≥ 9× | **MISS** |"), "{goals}");
        assert!(lines[2].contains("| undecided: no cores |"), "{goals}");
        assert!(of(&section)[0].contains("| – | – |"), "{section}");
        let columns = |line: &str| line.matches('|').count();
        assert!(lines.iter().all(|line| columns(line) == columns(&lines[0])), "{goals}");
        assert!(goals.contains("\n| Source translation | 1 | 1 | 1 |\n"), "{goals}");
        assert!(goals.contains("\n| Memory of a conn | not measured | | |\n"), "{goals}");
        assert!(goals.contains(Topic::Snat.bound()), "a miss shows its bound");
        assert!(lost(&[part()]).contains("- TCP: it ended badly\n"));
    }

    #[test]
    fn a_lost_row_is_no_good_outcome_and_an_undecided_one_no_bad_one() {
        let count = Count::of(&[part()]);
        let wanted = Count { passed: 1, missed: 1, undecided: 1, not_judged: 1, lost: 1 };
        assert_eq!(count, wanted);
        assert!(!count.good());
        let passed = Count { passed: 3, undecided: 2, ..Count::default() };
        assert!(passed.good() && !Count { lost: 1, ..passed }.good());
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
