//! `-m u32`.

use dataplane::rules::matches::Match;
use dataplane::rules::matches::u32::{Probe, Step, U32};

use super::super::extension::{Extension, Given, Text, opt};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const U32_MATCH: Extension<Match> = Extension {
    name: "u32",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("u32").must()],
    begin: |_| Match::U32(Box::default()),
};

impl Text for U32 {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.not = given.not;
        self.probes = Reader { text: given.text(), rest: given.text() }.probes()?;
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let not = if self.not { "! " } else { "" };
        out.word(&format!("{not}--u32 \"{}\"", probes_text(&self.probes)));
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.not { "! " } else { "" };
        out.word(&format!("u32 {not}\"{}\"", probes_text(&self.probes)));
    }
}

/// The language's text while it is read.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn probes(mut self) -> Result<Vec<Probe>, Fault> {
        let mut probes = Vec::new();
        loop {
            probes.push(self.probe()?);
            if probes.len() > U32::MAX {
                return Err(self.bad(&format!("more than {} tests", U32::MAX)));
            }
            if self.rest.is_empty() {
                return Ok(probes);
            }
            if !self.takes("&&") {
                return Err(self.bad("`&&' expected"));
            }
        }
    }

    fn probe(&mut self) -> Result<Probe, Fault> {
        let mut probe = Probe { offset: self.number()?, ..Probe::default() };
        while !self.takes("=") {
            let step = match () {
                () if self.takes("&") => Step::And(self.number()?),
                () if self.takes("<<") => Step::Left(self.shift()?),
                () if self.takes(">>") => Step::Right(self.shift()?),
                () if self.takes("@") => Step::At(self.number()?),
                () => return Err(self.bad("an operator or `=' expected")),
            };
            probe.steps.push(step);
            if probe.steps.len() >= U32::MAX {
                return Err(self.bad("too many operators"));
            }
        }
        loop {
            let low = self.number()?;
            let high = if self.takes(":") { self.number()? } else { low };
            probe.ranges.push((low, high));
            if probe.ranges.len() > U32::MAX {
                return Err(self.bad(&format!("more than {} values", U32::MAX)));
            }
            if !self.takes(",") {
                return Ok(probe);
            }
        }
    }

    /// Goes on behind `word`, and the blanks around it, if that is what comes next.
    fn takes(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(word);
        self.rest = rest.map_or(self.rest.trim_start(), str::trim_start);
        rest.is_some()
    }

    fn number(&mut self) -> Result<u32, Fault> {
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        let number = values::number(word).map_err(|_| self.bad("a number of 32 bits expected"))?;
        self.rest = behind.trim_start();
        Ok(number)
    }

    fn shift(&mut self) -> Result<u32, Fault> {
        match self.number()? {
            bits @ 0..32 => Ok(bits),
            _ => Err(self.bad("a shift is by less than 32 bits")),
        }
    }

    fn bad(&self, what: &str) -> Fault {
        let at = self.text.len() - self.rest.len();
        format!("{what} at character {at} of `{}'", self.text)
    }
}

fn probes_text(probes: &[Probe]) -> String {
    probes.iter().map(probe_text).collect::<Vec<String>>().join("&&")
}

fn probe_text(probe: &Probe) -> String {
    let steps: String = probe
        .steps
        .iter()
        .map(|step| match step {
            Step::And(number) => format!("&0x{number:x}"),
            Step::Left(number) => format!("<<0x{number:x}"),
            Step::Right(number) => format!(">>0x{number:x}"),
            Step::At(number) => format!("@0x{number:x}"),
        })
        .collect();
    let range = |&(low, high): &(u32, u32)| match low == high {
        true => format!("0x{low:x}"),
        false => format!("0x{low:x}:0x{high:x}"),
    };
    let ranges: Vec<String> = probe.ranges.iter().map(range).collect();
    format!("0x{:x}{steps}={}", probe.offset, ranges.join(","))
}
