//! The gate: what a packet may cost, in a file that is kept with the sources.
//!
//! `perf/instructions.toml` holds the accepted instructions per packet of the gateway's own code,
//! by row. `--check` fails when a row costs more than three percent more; `--accept` writes what
//! was counted, to be committed with the reason. Callgrind emulates the processor and nothing of
//! the packet path is chosen at run time by what the processor can do, so the figures are those of
//! the binary, on any machine. They are also those of the compiler: its version stands in the file,
//! and a binary by another one is not judged.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::process::Failure;

/// How many percent more than accepted a row may cost.
const TOLERANCE: f64 = 3.0;
/// How many percent less make it worth while to accept the new figure.
const WORTH: f64 = 2.0;

/// What `perf/instructions.toml` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Accepted {
    /// The compiler of the binary that was counted.
    compiler: String,
    /// Number of conns.
    conns: usize,
    /// Instructions per packet by row, in the order of the file.
    own: Vec<(String, f64)>,
}

/// The outcome for a binary.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Verdict {
    /// No row costs too much; lines to print.
    Good(Vec<String>),
    /// Another compiler or number of conns: nothing can be said; why.
    Unlike(String),
    /// Some rows cost too much; lines to print.
    Bad(Vec<String>),
}

/// Where the file is.
pub(super) fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml")
}

impl Accepted {
    /// Of a binary that was counted.
    pub(super) fn of(
        binary: &Path,
        conns: usize,
        own: Vec<(String, f64)>,
    ) -> Result<Self, Failure> {
        Ok(Self { compiler: compiler(binary)?, conns, own })
    }

    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path).map_err(Failure::io(path.display()))?;
        let what = || Failure::Answer { what: path.display().to_string(), text: text.clone() };
        Self::parse(&text).ok_or_else(what)
    }

    fn parse(text: &str) -> Option<Self> {
        let table: toml::Table = text.parse().ok()?;
        let compiler = table.get("compiler")?.as_str()?.to_owned();
        let conns = usize::try_from(table.get("conns")?.as_integer()?).ok()?;
        let figure = |value: &toml::Value| {
            let whole = value.as_integer().map(|figure| figure as f64);
            value.as_float().or(whole).filter(|&figure| figure > 0.0)
        };
        let rows = table.get("own")?.as_table()?.iter();
        let own = rows.map(|(row, value)| Some((row.clone(), figure(value)?)));
        Some(Self { compiler, conns, own: own.collect::<Option<_>>()? })
    }

    /// Writes the file.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        fs::write(path, self.text()).map_err(Failure::io(path.display()))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Instructions that the gateway's own code executes per packet of a known conn, counted \
             by\n# callgrind on a release build. `perf instructions --check` fails when a row costs \
             {TOLERANCE} % more;\n# `perf instructions --accept` writes this file.\n\
             compiler = \"{}\"\nconns = {}\n\n[own]\n",
            self.compiler, self.conns
        );
        for (row, figure) in &self.own {
            let _ = writeln!(text, "{row} = {figure:.1}");
        }
        text
    }

    /// Whether a row may cost `figure`.
    pub(super) fn bears(&self, row: &str, figure: f64) -> bool {
        self.percent(row, figure).is_some_and(|percent| percent <= TOLERANCE)
    }

    /// How many percent more than accepted a row's figure is.
    fn percent(&self, row: &str, figure: f64) -> Option<f64> {
        let (_, accepted) = self.own.iter().find(|(name, _)| name == row)?;
        Some((figure / accepted - 1.0) * 100.0)
    }

    /// Judges what was counted.
    pub(super) fn judge(&self, counted: &Accepted) -> Verdict {
        if (&self.compiler, self.conns) != (&counted.compiler, counted.conns) {
            return Verdict::Unlike(format!(
                "accepted were figures by {} with {} conns, these are by {} with {}",
                self.compiler, self.conns, counted.compiler, counted.conns
            ));
        }
        let (mut lines, mut bad) = (Vec::new(), false);
        for (row, figure) in &counted.own {
            let Some(percent) = self.percent(row, *figure) else {
                lines.push(format!("{row}: {figure:.1}, nothing accepted yet"));
                bad = true;
                continue;
            };
            let too_much = !self.bears(row, *figure);
            bad |= too_much;
            let remark = match percent {
                _ if too_much => format!(": more than {TOLERANCE} % is too much"),
                _ if percent < -WORTH => ": worth accepting".to_owned(),
                _ => String::new(),
            };
            lines.push(format!(
                "{row}: {figure:.1}, {percent:+.1} % against what is accepted{remark}"
            ));
        }
        if bad { Verdict::Bad(lines) } else { Verdict::Good(lines) }
    }
}

/// Which compiler made a binary, for which processor: the compiler leaves its name in the file.
fn compiler(binary: &Path) -> Result<String, Failure> {
    const MARK: &[u8] = b"rustc version ";
    let bytes = fs::read(binary).map_err(Failure::io(binary.display()))?;
    let mut ends = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK);
    let version = ends.find_map(|(at, _)| {
        let rest = &bytes[at + MARK.len()..];
        let end = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'.'))?;
        std::str::from_utf8(&rest[..end]).ok().filter(|version| !version.is_empty())
    });
    let what = || Failure::Answer {
        what: "the compiler's version".to_owned(),
        text: binary.display().to_string(),
    };
    Ok(format!("rustc {} {}", version.ok_or_else(what)?, std::env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(snat: f64) -> Accepted {
        let own = vec![("forward".to_owned(), 200.0), ("snat".to_owned(), snat)];
        Accepted { compiler: "rustc 1.95.0 x86_64".to_owned(), conns: 1024, own }
    }

    #[test]
    fn a_file_reads_back_as_written() {
        assert_eq!(Accepted::parse(&figures(300.5).text()), Some(figures(300.5)));
        assert_eq!(Accepted::parse(&figures(0.0).text()), None);
    }

    #[test]
    fn the_file_of_this_tree_can_be_read_and_holds_every_row() {
        let accepted = Accepted::read(&path()).unwrap();
        let rows: Vec<&str> = accepted.own.iter().map(|(row, _)| row.as_str()).collect();
        for row in super::super::ROWS {
            assert!(rows.contains(&row.to_string().as_str()), "{row}");
        }
    }

    #[test]
    fn three_percent_more_are_borne_and_not_a_tenth_above() {
        let accepted = figures(300.0);
        assert!(matches!(accepted.judge(&figures(308.9)), Verdict::Good(_)));
        let Verdict::Bad(lines) = accepted.judge(&figures(309.4)) else { panic!() };
        assert_eq!(lines[0], "forward: 200.0, +0.0 % against what is accepted");
        assert_eq!(
            lines[1],
            "snat: 309.4, +3.1 % against what is accepted: more than 3 % is too much"
        );
        let Verdict::Good(lines) = accepted.judge(&figures(270.0)) else { panic!() };
        assert_eq!(lines[1], "snat: 270.0, -10.0 % against what is accepted: worth accepting");
    }

    #[test]
    fn a_row_that_nobody_accepted_is_bad_and_another_compiler_no_matter() {
        let one = Accepted { own: vec![("forward".to_owned(), 200.0)], ..figures(1.0) };
        assert!(matches!(one.judge(&figures(300.0)), Verdict::Bad(_)));
        let other = Accepted { compiler: "rustc 1.96.0 x86_64".to_owned(), ..figures(900.0) };
        assert!(matches!(figures(300.0).judge(&other), Verdict::Unlike(_)));
        assert!(matches!(
            figures(300.0).judge(&Accepted { conns: 8, ..figures(300.0) }),
            Verdict::Unlike(_)
        ));
    }

    #[test]
    fn this_program_s_own_compiler_is_found() {
        let compiler = compiler(&std::env::current_exe().unwrap()).unwrap();
        assert!(compiler.starts_with("rustc 1."), "{compiler}");
    }
}
