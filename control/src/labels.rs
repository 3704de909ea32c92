//! Names of labels: the file `connlabel.conf`, which conntrack(8) and iptables(8) read.
//!
//! A line is a number and a name: `3 guest`. It is left out where it is a comment (`#`), where the
//! number is none or 1024 and more, where the name has anything but letters, digits, spaces and
//! hyphens, and where an earlier line has the number or the name. Conns have the labels 0 to 127; a
//! name for a greater number is known and of no use. The file is read whenever a command needs a
//! name, as the tools do, and by nobody else.

use std::collections::BTreeMap;
use std::path::Path;
use std::{fs, io};

/// Where the names are if nobody says otherwise.
pub const PATH: &str = "/etc/xtables/connlabel.conf";

/// Numbers that can have a name.
const NUMBERS: u64 = 1024;

/// The names of a file, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<u16, String>);

impl Names {
    /// Reads a file.
    ///
    /// # Errors
    /// Why not, in the words of strerror(3); a file without names is a success that is none.
    pub fn read(path: &Path) -> Result<Names, String> {
        let text = fs::read(path).map_err(|e| reason(&e))?;
        let names = Names::parse(&String::from_utf8_lossy(&text));
        if names.0.is_empty() { Err("Success".to_owned()) } else { Ok(names) }
    }

    /// The names in the text of a file.
    pub fn parse(text: &str) -> Names {
        let mut names = Names::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((number, name)) = number(line) else { continue };
            let name = name.trim_matches([' ', '\x0c', '\r', '\t', '\x0b']);
            let sane = |c: char| c.is_ascii_alphanumeric() || c == ' ' || c == '-';
            let taken = names.0.contains_key(&number) || names.number(name).is_some();
            if !name.is_empty() && name.chars().all(sane) && !taken {
                names.0.insert(number, name.to_owned());
            }
        }
        names
    }

    /// The number of a name.
    pub fn number(&self, name: &str) -> Option<u16> {
        self.0.iter().find(|(_, known)| *known == name).map(|(number, _)| *number)
    }

    /// The name of a number.
    pub fn name(&self, number: u16) -> Option<&str> {
        self.0.get(&number).map(String::as_str)
    }

    /// The names of those bits of `labels` that have one, in the order of the bits.
    pub fn of(&self, labels: u128) -> Vec<&str> {
        let set = |number: &u16| labels.checked_shr((*number).into()).unwrap_or(0) & 1 != 0;
        self.0.iter().filter(|(number, _)| set(number)).map(|(_, name)| name.as_str()).collect()
    }
}

/// The error alone, without its number.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.as_str(), |(reason, _)| reason).to_owned()
}

/// The number that a line begins with, as strtoul(3) reads it in any base, and the rest.
fn number(line: &str) -> Option<(u16, &str)> {
    let line = line.trim_ascii_start().trim_start_matches('\x0b');
    let (negative, digits) = match line.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, line.strip_prefix('+').unwrap_or(line)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let hex = hex.filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()));
    let (base, digits) = match hex {
        Some(rest) => (16, rest),
        None => (if digits.starts_with('0') { 8 } else { 10 }, digits),
    };
    let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
    let value = u64::from_str_radix(&digits[..end], base);
    let value = value.unwrap_or(if end == 0 { return None } else { u64::MAX });
    let value = if negative { value.wrapping_neg() } else { value };
    (value < NUMBERS).then_some((value as u16, &digits[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What conntrack 1.4.7 took from the same lines.
    #[test]
    fn lines_are_read_as_the_tool_reads_them() {
        let names = Names::parse(
            "# 1 comment\n0 zero\n1\tone\n2 two three\n3 thr-ee\n5 five\n5 five-b\n7 one\n  8 eight  \n\
             0127 oct\n127 last\n128 toobig\n-1 neg\n10ten\n # 12 x\n0x10 hex\n11\nabc x\n13 a,b\n\
             14 \"quoted\"\n15 a&b\n1023 most\n1024 more\n",
        );
        let found: Vec<_> = names.0.iter().map(|(n, name)| (*n, name.as_str())).collect();
        let expected = [
            (0, "zero"),
            (1, "one"),
            (2, "two three"),
            (3, "thr-ee"),
            (5, "five"),
            (8, "eight"),
            (10, "ten"),
            (16, "hex"),
            (87, "oct"),
            (127, "last"),
            (128, "toobig"),
            (1023, "most"),
        ];
        assert_eq!(found, expected);
        assert_eq!((names.number("two three"), names.number("two")), (Some(2), None));
        assert_eq!((names.name(127), names.name(126)), (Some("last"), None));
        assert_eq!(names.of(1 << 127 | 1 << 126 | 1 << 2), ["two three", "last"]);
    }

    #[test]
    fn a_file_that_says_nothing_is_told_from_one_that_is_not_there() {
        let path = std::env::temp_dir().join(format!("sluicegate-labels-{}", std::process::id()));
        assert_eq!(Names::read(&path), Err("No such file or directory".to_owned()));
        fs::write(&path, "# nothing\n").unwrap();
        let empty = Names::read(&path);
        fs::write(&path, "1 one\n").unwrap();
        let full = Names::read(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(empty, Err("Success".to_owned()));
        assert_eq!(full.unwrap().number("one"), Some(1));
    }
}
