//! `-m connbytes`.

use dataplane::conntrack::state::Direction;
use dataplane::rules::matches::Match;
use dataplane::rules::matches::connbytes::{Connbytes, Counted};

use super::super::extension::{Extension, Given, Text, opt, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const CONNBYTES: Extension<Match> = Extension {
    name: "connbytes",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("connbytes").must(),
        valued("connbytes-dir").must(),
        valued("connbytes-mode").must(),
    ],
    begin: |_| {
        let counted = Counted::Packets;
        Match::Connbytes(Connbytes { from: 0, to: u64::MAX, direction: None, counted })
    },
};

impl Text for Connbytes {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "connbytes" => {
                let (from, to) = bounds(text)?;
                (self.from, self.to) = if given.not { (to, from) } else { (from, to) };
            }
            "connbytes-dir" => {
                self.direction = match text {
                    "original" => Some(Direction::Original),
                    "reply" => Some(Direction::Reply),
                    "both" => None,
                    _ => return Err(format!("unknown direction `{text}'")),
                };
            }
            _ => {
                self.counted = match text {
                    "packets" => Counted::Packets,
                    "bytes" => Counted::Bytes,
                    "avgpkt" => Counted::Average,
                    _ => return Err(format!("unknown mode `{text}'")),
                };
            }
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        if self.from > self.to {
            out.word("!");
        }
        out.option("--connbytes", &range(self));
        let (mode, direction) = words(self);
        out.option("--connbytes-mode", mode);
        out.option("--connbytes-dir", direction);
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.from > self.to { "! " } else { "" };
        let (range, (mode, direction)) = (range(self), words(self));
        let mode = format!("connbytes mode {mode} connbytes direction {direction}");
        out.word(&format!("{not}connbytes {range} {mode}"));
    }
}

/// `from`, `from:` and `:to`, either of which may be left out.
fn bounds(text: &str) -> Result<(u64, u64), Fault> {
    let bound = |word: &str, open| match word {
        "" => Ok(open),
        word => values::long_number(word),
    };
    let (from, to) = text.split_once(':').unwrap_or((text, ""));
    if text.is_empty() {
        return Err("`' is not a number".to_owned());
    }
    let (from, to) = (bound(from, 0)?, bound(to, u64::MAX)?);
    if from > to {
        return Err(format!("invalid range `{text}' (low end above high end)"));
    }
    Ok((from, to))
}

/// Unlike the tools, `0:0` is not written as `0`, which would be read back as all there is.
fn range(asked: &Connbytes) -> String {
    match (asked.from.min(asked.to), asked.from.max(asked.to)) {
        (from, u64::MAX) => from.to_string(),
        (from, to) => format!("{from}:{to}"),
    }
}

fn words(asked: &Connbytes) -> (&'static str, &'static str) {
    let mode = match asked.counted {
        Counted::Packets => "packets",
        Counted::Bytes => "bytes",
        Counted::Average => "avgpkt",
    };
    let direction = match asked.direction {
        Some(Direction::Original) => "original",
        Some(Direction::Reply) => "reply",
        None => "both",
    };
    (mode, direction)
}
