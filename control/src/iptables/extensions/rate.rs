//! Packets in a unit of time, as `limit` and `hashlimit` write them.
//!
//! The tools keep a rate as its period: the time from packet to packet in parts of a second. How
//! they write it follows from that, so `10000/minute` comes back as `166/sec`.

use super::super::values::Fault;

/// A unit of time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    /// What it is called where it is printed.
    name: &'static str,
    /// Its whole name; a rate may be given in any beginning of it.
    long: &'static str,
    /// Its seconds.
    pub(super) secs: u64,
}

/// The longest first.
const UNITS: [Unit; 4] = [
    Unit { name: "day", long: "day", secs: 86_400 },
    Unit { name: "hour", long: "hour", secs: 3600 },
    Unit { name: "min", long: "minute", secs: 60 },
    Unit { name: "sec", long: "second", secs: 1 },
];

/// The period of `text` in parts of which a second has `scale`, and the seconds of the unit that
/// it was given in.
pub(super) fn period(text: &str, scale: u64) -> Result<(u64, u64), Fault> {
    let bad = || format!("bad rate `{text}'");
    let (number, secs) = match text.split_once('/') {
        None => (text, 1),
        Some((number, name)) => {
            let name = name.to_ascii_lowercase();
            let unit = UNITS.iter().rev().find(|u| !name.is_empty() && u.long.starts_with(&name));
            (number, unit.ok_or_else(bad)?.secs)
        }
    };
    let rate = leading_number(number).filter(|&rate| rate != 0).ok_or_else(bad)?;
    match scale * secs / rate {
        0 => Err(format!("rate too fast `{text}'")),
        period => Ok((period, secs)),
    }
}

/// The number that a word begins with (`atoi`), below 2^40; what follows it is not looked at.
pub(super) fn leading_number(word: &str) -> Option<u64> {
    let word = word.trim_start();
    let word = word.strip_prefix('+').unwrap_or(word);
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    word.get(..end)?.parse().ok().filter(|&number| number < 1 << 40)
}

/// The unit in which a period is written: the shortest that does not lose much.
pub(super) fn unit_of(period: u64, scale: u64) -> Unit {
    let [first, rest @ ..] = UNITS;
    let keeps = |unit: &&Unit| {
        let whole = scale * unit.secs;
        period <= whole && whole / period >= whole % period
    };
    rest.iter().take_while(keeps).last().copied().unwrap_or(first)
}

/// A period as a rate.
pub(super) fn text(period: u64, scale: u64) -> String {
    let unit = unit_of(period, scale);
    format!("{}/{}", scale * unit.secs / period, unit.name)
}
