//! A report for people: a line for each step, then the end.

use std::fmt::{self, Display, Formatter, Write};

use super::report::{Ending, Met, Report, Step, Way};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        put(&mut text, self, 0)?;
        f.write_str(&text)
    }
}

/// Lines of an answer stand two columns further to the right.
fn put(text: &mut String, report: &Report, indent: usize) -> fmt::Result {
    let what = if indent > 0 { "answer" } else { "packet" };
    let margin = " ".repeat(indent);
    write!(text, "{margin}{what}: {}", report.packet)?;
    match &report.input {
        Some(port) => writeln!(text, ", in by {port}")?,
        None if indent == 0 => writeln!(text, ", of our own")?,
        None => writeln!(text)?,
    }
    if let Some(number) = report.fragments {
        writeln!(text, "{margin}in {number} fragments, put together before the hooks")?;
    }
    if let Some(fit) = &report.fit {
        writeln!(text, "{margin}{fit}: as its conn expects")?;
    }
    for step in &report.steps {
        match step {
            Step::Answer(answer) => put(text, answer, indent + 2)?,
            step => writeln!(text, "{margin}{}", Line(step))?,
        }
    }
    if let Some(conn) = &report.end.conn {
        writeln!(text, "{margin}begins: {conn}")?;
    }
    writeln!(text, "{margin}end: {}", report.end)
}

struct Line<'a>(&'a Step);

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Step::Rule(met) | Step::Unmatched(met) => {
                let (number, text) = (met.rule.unwrap_or_default(), &met.text);
                let not = if matches!(self.0, Step::Rule(_)) { "" } else { "not matched: " };
                write!(f, "{} {} {number}: {not}{text}", met.table, met.chain)?;
                met.remark.as_ref().map_or(Ok(()), |remark| write!(f, " ({remark})"))
            }
            Step::Policy(met) => write!(f, "{} {} policy: {}", met.table, met.chain, met.text),
            Step::Kept { hook } => {
                write!(f, "filter {hook}: not asked, the conn goes on as before the rules changed")
            }
            Step::Mark { mark } => write!(f, "mark: {mark:#x}"),
            Step::Conntrack { state, direction, remark, conn, reason, text } => {
                write!(f, "conntrack: {state}")?;
                if let Some(direction) = direction {
                    write!(f, ", {direction} direction")?;
                }
                if let Some(remark) = remark {
                    write!(f, ", {remark}")?;
                }
                if let (Some(reason), Some(text)) = (reason, text) {
                    write!(f, ", {reason}: {text}")?;
                }
                conn.as_ref().map_or(Ok(()), |conn| write!(f, ", conn {conn}"))
            }
            Step::Nat { hook, to, by_lot, .. } => {
                write!(f, "translated at {hook}: {to}")?;
                if *by_lot { f.write_str(", a port drawn by lot") } else { Ok(()) }
            }
            Step::Route(way) => way.fmt(f),
            Step::Answer(_) => Ok(()),
        }
    }
}

impl Display for Way {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "route: {}", self.to)?;
        if let Some(port) = &self.port {
            write!(f, ", port {port}")?;
        }
        self.next_hop.as_ref().map_or(Ok(()), |next_hop| write!(f, ", next hop {next_hop}"))
    }
}

/// A rule or policy within a sentence.
struct By<'a>(&'a Met);

impl Display for By<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Met { table, chain, rule, .. } = self.0;
        match rule {
            Some(number) => write!(f, "by rule {number} of chain {chain}, table {table}"),
            None => write!(f, "by the policy of chain {chain}, table {table}"),
        }
    }
}

impl Display for Ending {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let port = self.port.as_deref().unwrap_or_default();
        match (self.verdict, &self.by) {
            ("sent", _) => {
                write!(f, "leaves by port {port} as {}", self.packet)?;
                let Some(next_hop) = &self.next_hop else { return Ok(()) };
                write!(f, ", towards {next_hop}")?;
                self.neighbour.iter().try_for_each(|known| write!(f, " ({known})"))
            }
            ("to-gateway", _) => f.write_str("to the gateway itself"),
            ("to-programs", _) => write!(f, "to the box's own programs, by tap {port}"),
            ("answered", _) => f.write_str("to the gateway itself, which answers"),
            ("rejected", Some(by)) => {
                let with = self.with.unwrap_or_default();
                write!(f, "rejected with {with} {}", By(by))
            }
            ("proxied", Some(by)) => write!(f, "proxied {}", By(by)),
            ("dropped", Some(by)) => write!(f, "dropped {}", By(by)),
            (verdict, _) => {
                write!(f, "{verdict}")?;
                let (Some(reason), Some(text)) = (self.reason, self.text) else { return Ok(()) };
                write!(f, ", {reason}: {text}")
            }
        }
    }
}
