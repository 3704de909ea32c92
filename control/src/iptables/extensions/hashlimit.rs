//! `-m hashlimit`, revision 3.

use dataplane::rules::hook::Family;
use dataplane::rules::matches::Match;
use dataplane::rules::matches::hashlimit::{By, Hashlimit, Shape, bytes_of};

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::{Line, plain};
use super::super::values::{self, Fault};
use super::rate;

pub(super) const HASHLIMIT: Extension<Match> = Extension {
    name: "hashlimit",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("hashlimit-upto").or("hashlimit").group(1),
        opt("hashlimit-above").group(1),
        valued("hashlimit-burst"),
        valued("hashlimit-mode"),
        valued("hashlimit-name").must(),
        valued("hashlimit-htable-size"),
        valued("hashlimit-htable-max"),
        valued("hashlimit-htable-gcinterval"),
        valued("hashlimit-htable-expire"),
        valued("hashlimit-srcmask"),
        valued("hashlimit-dstmask"),
        flag("hashlimit-rate-match"),
        valued("hashlimit-rate-interval"),
    ],
    begin: |family| Match::Hashlimit(Box::new(begin(family))),
};

/// Parts of a period, as the tools count it (`XT_HASHLIMIT_SCALE_v2`).
const SCALE: u64 = 1_000_000;

/// The largest `--hashlimit-burst`, in packets and before `k` and `m`.
const MAX_BURST: u64 = 1_000_000;

/// Milliseconds, where nothing else is said.
const SWEEP_MS: u32 = 1000;
const BYTES_EXPIRE_MS: u32 = 15_000;
const BYTES_BURST_EXPIRE_MS: u32 = 60_000;

/// The longest name, in bytes.
const MAX_NAME: usize = 254;

fn begin(family: Family) -> Hashlimit {
    let bits = family.address_bits();
    let shape = Shape {
        period: 0,
        burst: Shape::DEFAULT_BURST,
        bytes: false,
        windows: None,
        by: By::default(),
        masks: [bits, bits],
        size: 0,
        max: 0,
        sweep_ms: SWEEP_MS,
        expire_ms: 0,
    };
    Hashlimit { name: String::new(), above: false, unit_secs: 0, shape }
}

impl Text for Hashlimit {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let shape = &mut self.shape;
        match given.name {
            "hashlimit-upto" | "hashlimit-above" => {
                self.above = given.not != (given.name == "hashlimit-above");
                shape.bytes = text.contains("b/s");
                (shape.period, self.unit_secs) = match shape.bytes {
                    true => (bytes(text)?, 0),
                    false => {
                        let (period, secs) = rate::period(text, SCALE)?;
                        (period, secs as u32)
                    }
                };
            }
            "hashlimit-burst" => shape.burst = burst(text)?,
            "hashlimit-mode" => shape.by = mode(text)?,
            "hashlimit-name" => self.name = values::file_name(text, MAX_NAME)?,
            "hashlimit-htable-size" => shape.size = values::number(text)?.min(Shape::MAX_SIZE),
            "hashlimit-htable-max" => shape.max = values::number(text)?.min(Shape::MAX_SIZE),
            "hashlimit-htable-gcinterval" => shape.sweep_ms = milliseconds(text)?,
            "hashlimit-htable-expire" => shape.expire_ms = milliseconds(text)?,
            "hashlimit-srcmask" => shape.masks[0] = mask(text, given.family)?,
            "hashlimit-dstmask" => shape.masks[1] = mask(text, given.family)?,
            "hashlimit-rate-interval" => shape.windows = Some(interval(text)?),
            // The flag is seen at the end.
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let seen = |name: &str| whole.seen.contains(&name);
        let unit_secs = core::mem::take(&mut self.unit_secs);
        let shape = &mut self.shape;
        if !seen("hashlimit-upto") && !seen("hashlimit-above") {
            return Err("hashlimit: `--hashlimit-upto' or `--hashlimit-above' is needed".to_owned());
        }
        let expire_ms = match (shape.bytes, seen("hashlimit-burst")) {
            (false, _) => unit_secs * 1000,
            (true, false) => BYTES_EXPIRE_MS,
            (true, true) => BYTES_BURST_EXPIRE_MS,
        };
        if !seen("hashlimit-htable-expire") {
            shape.expire_ms = expire_ms;
        }
        if shape.bytes {
            shape.burst = match seen("hashlimit-burst") {
                true => seconds_of(shape.burst, bytes_of(shape.period))?,
                false => 0,
            };
        } else if shape.burst > MAX_BURST {
            let burst = shape.burst;
            return Err(format!("hashlimit: burst {burst} is not within 1 to {MAX_BURST}"));
        }
        shape.windows = match (seen("hashlimit-rate-match"), shape.windows) {
            (false, _) => None,
            (true, Some(secs)) => Some(secs),
            (true, None) => Some(if shape.bytes { 1 } else { unit_secs }),
        };
        if shape.windows.is_some() && !shape.bytes {
            shape.period /= u64::from(unit_secs.max(1));
        }
        shape.fault().map_or(Ok(()), |fault| Err(format!("hashlimit: {fault}")))
    }

    fn save(&self, out: &mut Line<'_>) {
        let shape = &self.shape;
        let option = |name: &str| format!("--hashlimit-{name}");
        let (text, expire_ms) = rate_text(shape, shape.period);
        out.option(&option(if self.above { "above" } else { "upto" }), &text);
        if let Some(burst) = burst_text(shape) {
            out.option(&option("burst"), &burst);
        }
        if shape.by != By::default() {
            out.option(&option("mode"), &mode_text(shape.by, ","));
        }
        out.option(&option("name"), &plain(&self.name));
        let bits = out.family.address_bits();
        for (name, value) in rest(shape, expire_ms, bits) {
            out.option(&option(name), &value);
        }
        if let Some(secs) = shape.windows {
            out.word("--hashlimit-rate-match");
            if secs != 1 {
                out.option("--hashlimit-rate-interval", &secs.to_string());
            }
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        let shape = &self.shape;
        // A list tells what passes in an interval.
        let period = shape.period * shape.windows.map_or(1, u64::from);
        let (text, expire_ms) = rate_text(shape, if shape.bytes { shape.period } else { period });
        out.word(&format!("limit: {} {text}", if self.above { "above" } else { "up to" }));
        if let Some(burst) = burst_text(shape) {
            out.option("burst", &burst);
        }
        if shape.by != By::default() {
            out.option("mode", &mode_text(shape.by, "-"));
        }
        let bits = out.family.address_bits();
        for (name, value) in rest(shape, expire_ms, bits) {
            out.option(name, &value);
        }
        if let Some(secs) = shape.windows {
            out.word("rate-match");
            if secs != 1 {
                out.option("rate-interval", &secs.to_string());
            }
        }
    }
}

/// A rate in bytes as the kernel wants it: 2^32 divided by chunks of 16 bytes, and one.
fn bytes(text: &str) -> Result<u64, Fault> {
    let digits = text.trim_start().trim_start_matches('+');
    let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
    // `0b/s` is what a rate below 16 bytes is printed as.
    let number = rate::leading_number(text).filter(|&n| n != 0 || digits.starts_with("0b/s"));
    let number = number.ok_or_else(|| format!("bad rate `{text}'"))?;
    Ok(u64::from(u32::MAX) / (((number * factor(rest)) >> 4) + 1))
}

/// What a number is multiplied by for the letter behind it.
fn factor(rest: &str) -> u64 {
    match rest.chars().next() {
        Some('k') => 1 << 10,
        Some('m') => 1 << 20,
        _ => 1,
    }
}

fn burst(text: &str) -> Result<u64, Fault> {
    let end = text.find(|c: char| !c.is_ascii_hexdigit() && c != 'x').unwrap_or(text.len());
    // `5b` is a number with a letter behind it, `0x5b` is not.
    let end = match text.starts_with("0x") {
        true => end,
        false => text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()),
    };
    let (number, rest) = text.split_at(end);
    let number = values::long_number(number).ok().filter(|n| (1..=MAX_BURST).contains(n));
    let burst = number.map(|number| number * factor(rest));
    let burst = burst.filter(|&burst| burst <= u32::MAX.into());
    burst.ok_or_else(|| format!("burst `{text}' is not within 1 to {MAX_BURST}"))
}

/// A burst in bytes as seconds of the rate, rounded up.
fn seconds_of(burst: u64, rate: u64) -> Result<u64, Fault> {
    match rate {
        0 => Err("hashlimit: a rate below 16b/s has no burst".to_owned()),
        rate if burst < rate => Err(format!("hashlimit: burst cannot be smaller than {rate}b")),
        rate => Ok(burst.div_ceil(rate)),
    }
}

/// Parts of a key, in the order in which they are printed.
const MODES: [(&str, By); 4] =
    [("srcip", By::SRC), ("srcport", By::SRC_PORT), ("dstip", By::DST), ("dstport", By::DST_PORT)];

fn mode(text: &str) -> Result<By, Fault> {
    let mut by = By::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        let known = MODES.iter().find(|(name, _)| *name == word);
        by.0 |= known.ok_or_else(|| format!("unknown mode `{word}'"))?.1.0;
    }
    Ok(by)
}

fn mode_text(by: By, between: &str) -> String {
    let names = MODES.iter().filter(|(_, part)| by.has(*part)).map(|(name, _)| *name);
    names.collect::<Vec<_>>().join(between)
}

fn milliseconds(text: &str) -> Result<u32, Fault> {
    match values::number(text)? {
        0 => Err(format!("`{text}' is not above 0")),
        ms => Ok(ms),
    }
}

fn interval(text: &str) -> Result<u32, Fault> {
    let number = rate::leading_number(text).and_then(|secs| i32::try_from(secs).ok());
    let number = number.filter(|&secs| secs > 0).map(i32::unsigned_abs);
    number.ok_or_else(|| format!("bad interval `{text}'"))
}

/// A length, or a mask whose bits lead.
pub(super) fn mask(text: &str, family: Family) -> Result<u8, Fault> {
    let bits = family.address_bits();
    let bad = || format!("`{text}' is neither a mask nor a length up to {bits}");
    if let Ok(length) = values::number(text) {
        return u8::try_from(length).ok().filter(|&length| length <= bits).ok_or_else(bad);
    }
    let mask = values::mask_of(values::address(text, family).ok_or_else(bad)?, family);
    let lengths = 0..=bits;
    let length = lengths.into_iter().find(|&length| values::prefix_mask(length, bits) == mask);
    length.ok_or_else(bad)
}

/// The rate, and how long entries last where nothing else is said, in milliseconds.
fn rate_text(shape: &Shape, period: u64) -> (String, u32) {
    if !shape.bytes {
        let secs = rate::unit_of(period, SCALE).secs;
        return (rate::text(period, SCALE), secs as u32 * 1000);
    }
    let expire_ms = if shape.burst == 0 { BYTES_EXPIRE_MS } else { BYTES_BURST_EXPIRE_MS };
    (format!("{}/s", bytes_text(bytes_of(period))), expire_ms)
}

fn burst_text(shape: &Shape) -> Option<String> {
    match shape.bytes {
        false => Some(shape.burst.to_string()),
        true if shape.burst == 0 => None,
        true => Some(bytes_text(shape.burst * bytes_of(shape.period))),
    }
}

/// Bytes in the largest unit of which they are a multiple.
fn bytes_text(bytes: u64) -> String {
    let units = [("m", 1u64 << 20), ("k", 1 << 10)];
    let unit = units.into_iter().find(|&(_, size)| bytes >= size && bytes.is_multiple_of(size));
    let (letter, size) = unit.unwrap_or(("", 1));
    format!("{}{letter}b", bytes / size)
}

/// What is only printed where it differs from what is taken without it.
fn rest(shape: &Shape, expire_ms: u32, bits: u8) -> Vec<(&'static str, String)> {
    let all = [
        ("htable-size", shape.size, 0),
        ("htable-max", shape.max, 0),
        ("htable-gcinterval", shape.sweep_ms, SWEEP_MS),
        ("htable-expire", shape.expire_ms, expire_ms),
        ("srcmask", shape.masks[0].into(), bits.into()),
        ("dstmask", shape.masks[1].into(), bits.into()),
    ];
    let differing = all.into_iter().filter(|(_, value, usual)| value != usual);
    differing.map(|(name, value, _)| (name, value.to_string())).collect()
}
