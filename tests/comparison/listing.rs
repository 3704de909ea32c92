//! Lines of `conntrack -L`, in the form the comparison wants them.
//!
//! The seconds left are taken out and compared with a tolerance, the `use=` count (a reference
//! count that a packet still under way raises) is left out, and numbers the device chose by chance
//! are replaced by their names. The order of lines is the hash table's and means nothing, so the
//! lines are sorted by what remains.

use crate::learned::Learned;
use std::net::IpAddr;

/// Seconds by which two timers of the same entry may differ.
pub const TOLERANCE_S: u64 = 2;

/// One entry of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The line without its timer, with chosen numbers named.
    pub text: String,
    /// Seconds left, absent where the listing prints none.
    pub seconds: Option<u64>,
}

impl Line {
    /// Equal but for a timer within [`TOLERANCE_S`].
    pub fn agrees(&self, other: &Line) -> bool {
        let timers = match (self.seconds, other.seconds) {
            (Some(ours), Some(theirs)) => ours.abs_diff(theirs) <= TOLERANCE_S,
            (ours, theirs) => ours == theirs,
        };
        self.text == other.text && timers
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.seconds {
            Some(seconds) => write!(f, "{} ({seconds} s)", self.text),
            None => write!(f, "{} (no timer)", self.text),
        }
    }
}

/// The entries of a listing, sorted. Empty lines are skipped, everything else must be an entry.
pub fn parse(listing: &str, learned: &Learned) -> Vec<Line> {
    let lines = listing.lines().filter(|line| !line.trim().is_empty());
    let mut lines: Vec<Line> = lines.map(|line| parse_line(line, learned)).collect();
    lines.sort();
    lines
}

/// `tcp      6 119 SYN_SENT src=… dst=… sport=… dport=… [UNREPLIED] src=… …`
fn parse_line(line: &str, learned: &Learned) -> Line {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let seconds = words.get(2).and_then(|word| word.parse().ok());
    if seconds.is_some() {
        words.remove(2);
    }
    let (mut src, mut dst) = (None, None);
    for word in &mut words {
        let Some((key, value)) = word.split_once('=') else { continue };
        let address: Option<IpAddr> = value.parse().ok();
        let renamed = match key {
            "src" => {
                src = address;
                continue;
            }
            "dst" => {
                dst = address;
                continue;
            }
            "sport" => name(value, &[src], learned),
            "dport" => name(value, &[dst], learned),
            "id" => name(value, &[src, dst], learned),
            "use" => Some("_".into()),
            _ => None,
        };
        if let Some(renamed) = renamed {
            *word = format!("{key}={renamed}");
        }
    }
    Line { text: words.join(" "), seconds }
}

fn name(value: &str, addresses: &[Option<IpAddr>], learned: &Learned) -> Option<String> {
    let number = value.parse().ok()?;
    addresses.iter().flatten().find_map(|address| learned.name(*address, number)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "tcp      6 119 SYN_SENT src=10.1.0.11 dst=203.0.113.51 sport=4000 \
        dport=80 [UNREPLIED] src=203.0.113.51 dst=203.0.113.1 sport=80 dport=31337 mark=0 use=1";

    #[test]
    fn timer_use_and_chosen_port_are_taken_out() {
        let mut learned = Learned::default();
        learned.add("203.0.113.1".parse().unwrap(), 31337, 1024..=65535, "port of B");
        let lines = parse(LINE, &learned);
        assert_eq!(lines[0].seconds, Some(119));
        assert_eq!(
            lines[0].text,
            "tcp 6 SYN_SENT src=10.1.0.11 dst=203.0.113.51 sport=4000 dport=80 [UNREPLIED] \
             src=203.0.113.51 dst=203.0.113.1 sport=80 dport=<port of B> mark=0 use=_"
        );
    }

    #[test]
    fn a_port_is_named_only_with_its_address() {
        let mut learned = Learned::default();
        learned.add("203.0.113.9".parse().unwrap(), 31337, 1024..=65535, "port of B");
        assert!(parse(LINE, &learned)[0].text.contains("dport=31337"));
    }

    #[test]
    fn timers_may_differ_a_little() {
        let at = |seconds| Line { text: "x".into(), seconds };
        assert!(at(Some(120)).agrees(&at(Some(118))));
        assert!(!at(Some(120)).agrees(&at(Some(117))));
        assert!(!at(Some(120)).agrees(&at(None)));
    }
}
