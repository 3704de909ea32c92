//! `-m string`.

use dataplane::rules::matches::search::{Algorithm, Search};
use dataplane::rules::matches::{Match, Maybe};

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::Line;
use super::super::values::Fault;
use super::head::up_to;

pub(super) const STRING: Extension<Match> = Extension {
    name: "string",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("from"),
        valued("to"),
        valued("algo").must(),
        flag("icase"),
        opt("string").group(1),
        opt("hex-string").group(1),
    ],
    begin: |_| Match::Search(Box::new(Search::new(Maybe::is(Vec::new()), Algorithm::Bm, false))),
};

impl Text for Search {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "from" => self.from = up_to(text, u16::MAX.into())? as u16,
            "to" => self.to = up_to(text, u16::MAX.into())? as u16,
            "algo" => {
                self.algorithm = match text {
                    "bm" => Algorithm::Bm,
                    "kmp" => Algorithm::Kmp,
                    _ => return Err(format!("unknown algorithm `{text}'")),
                };
            }
            "icase" => *self = self.with(self.pattern().clone(), true),
            name => {
                let bytes =
                    if name == "string" { text.as_bytes().to_vec() } else { hex_string(text)? };
                if bytes.is_empty() || bytes.len() > Search::MAX {
                    return Err(format!("`{text}' has not 1 to {} bytes", Search::MAX));
                }
                *self = self.with(given.maybe(bytes), self.ignores_case());
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &Whole<'_>) -> Result<(), Fault> {
        if self.pattern().value.is_empty() {
            return Err("string: `--string' or `--hex-string' must be specified".to_owned());
        }
        if self.from > self.to {
            return Err("string: `--from' is above `--to'".to_owned());
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let Maybe { not, value } = self.pattern();
        let name = if is_plain(value) { "--string" } else { "--hex-string" };
        out.maybe(name, Some(Maybe { not: *not, value: pattern_text(value) }), |text| text);
        out.option("--algo", name_of(self.algorithm));
        if self.from != 0 {
            out.option("--from", &self.from.to_string());
        }
        if self.to != u16::MAX {
            out.option("--to", &self.to.to_string());
        }
        if self.ignores_case() {
            out.word("--icase");
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        let Maybe { not, value } = self.pattern();
        let not = if *not { "!" } else { "" };
        let algorithm = name_of(self.algorithm);
        out.word(&format!("STRING match {not} {} ALGO name {algorithm}", pattern_text(value)));
        if self.from != 0 {
            out.option("FROM", &self.from.to_string());
        }
        if self.to != u16::MAX {
            out.option("TO", &self.to.to_string());
        }
        if self.ignores_case() {
            out.word("ICASE");
        }
    }
}

const fn name_of(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Bm => "bm",
        Algorithm::Kmp => "kmp",
    }
}

/// Text with hexadecimal numbers between bars; blanks between them do not matter, and a backslash
/// takes what follows as it is.
fn hex_string(text: &str) -> Result<Vec<u8>, Fault> {
    let bad = || format!("bad hexadecimal block in `{text}'");
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => bytes.push(rest.next().ok_or_else(bad)?),
            b'|' => {
                let mut half: Option<u8> = None;
                let mut any = false;
                loop {
                    let byte = rest.next().ok_or_else(bad)?;
                    if byte == b'|' {
                        break;
                    }
                    if byte == b' ' {
                        continue;
                    }
                    let digit = char::from(byte).to_digit(16).ok_or_else(bad)? as u8;
                    any = true;
                    half = match half {
                        None => Some(digit),
                        Some(high) => {
                            bytes.push(high << 4 | digit);
                            None
                        }
                    };
                }
                if half.is_some() || !any {
                    return Err(bad());
                }
            }
            _ => bytes.push(byte),
        }
    }
    Ok(bytes)
}

/// True if it can be written as text.
fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}

/// In quotes, as text or as one hexadecimal block.
fn pattern_text(bytes: &[u8]) -> String {
    if !is_plain(bytes) {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return format!("\"|{digits}|\"");
    }
    let mut out = String::from("\"");
    for &byte in bytes {
        if matches!(byte, b'"' | b'\\') {
            out.push('\\');
        }
        out.push(byte.into());
    }
    out.push('"');
    out
}
