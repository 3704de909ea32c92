//! `sluicegate sysctl`: the keys of `net.netfilter.nf_conntrack_*` and `net.ipv4.ipfrag_*` as
//! sysctl(8) shows and sets them.
//!
//! Keys come from two places: the knobs of the trackers, and `max`, `buckets` and `count` of the
//! table. Bounds are checked here; whether a good value can be taken is the gateway's to say.
//! Numbers are read as the kernel reads them. Unlike procps, every refusal exits with 1, that of a
//! key that can only be read too.

use dataplane::conntrack::expect::EXPECT_MAX_LIMIT;
use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::store::MAX_LIMIT;

use crate::config::sizes::{HASHSIZE_MAX, HASHSIZE_MIN};

use super::getopt::{Opt, Reader, Takes, Unreadable, Word};
use super::{Answer, Gateway, SysctlError};

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysctlKey {
    /// The last part of its name, such as `nf_conntrack_udp_timeout`.
    pub name: String,
    /// Whether it can be set.
    pub writable: bool,
    /// Smallest value it takes.
    pub min: u64,
    /// Largest value it takes.
    pub max: u64,
}

/// Keys of the table: name, writable, bounds. The limits are those of the configuration.
const TABLE: [(&str, bool, u64, u64); 4] = [
    ("nf_conntrack_buckets", true, HASHSIZE_MIN, HASHSIZE_MAX),
    ("nf_conntrack_count", false, 0, 0),
    ("nf_conntrack_expect_max", true, 1, EXPECT_MAX_LIMIT as u64),
    ("nf_conntrack_max", true, 1, MAX_LIMIT as u64),
];

/// All keys, by name.
pub fn keys() -> impl Iterator<Item = SysctlKey> {
    let knobs = Knobs::all().map(|k| SysctlKey {
        name: match k.of_ipfrag() {
            Some(_) => k.name.to_owned(),
            None => format!("nf_conntrack_{}", k.name),
        },
        writable: true,
        min: k.min,
        max: k.max,
    });
    let table = TABLE.into_iter().map(|(name, writable, min, max)| SysctlKey {
        name: name.to_owned(),
        writable,
        min,
        max,
    });
    let mut all: Vec<SysctlKey> = knobs.chain(table).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.into_iter()
}

const MAX_ALIAS: &str = "net.nf_conntrack_max";
const HOME: &str = "net.netfilter.";
const HOME_IPV4: &str = "net.ipv4.";

/// Every full name with its key, in the order of `sysctl -a`.
fn full_names() -> Vec<(String, SysctlKey)> {
    let all: Vec<SysctlKey> = keys().collect();
    let alias = all.iter().find(|k| k.name == "nf_conntrack_max").cloned();
    let home = |k: &SysctlKey| if k.name.starts_with("nf_") { HOME } else { HOME_IPV4 };
    let mut names: Vec<(String, SysctlKey)> =
        all.into_iter().map(|k| (format!("{}{}", home(&k), k.name), k)).collect();
    names.extend(alias.map(|k| (MAX_ALIAS.to_owned(), k)));
    names
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    All,
    Values,
    Names,
    Write,
    Quiet,
    Ignore,
    Help,
    Version,
}

const fn flag(key: Flag, short: char, long: &'static [&'static str]) -> Opt<Flag> {
    Opt { key, short: Some(short), long, takes: Takes::Nothing }
}

const OPTIONS: &[Opt<Flag>] = &[
    flag(Flag::All, 'a', &["all"]),
    flag(Flag::All, 'A', &[]),
    flag(Flag::All, 'X', &[]),
    flag(Flag::Values, 'n', &["values"]),
    flag(Flag::Names, 'N', &["names"]),
    flag(Flag::Write, 'w', &["write"]),
    flag(Flag::Quiet, 'q', &["quiet"]),
    flag(Flag::Ignore, 'e', &["ignore"]),
    flag(Flag::Help, 'h', &["help"]),
    flag(Flag::Version, 'V', &["version"]),
];

const USAGE: &str = "\nUsage:\n sysctl [-anNwqe] [variable[=value] ...]\n";

/// Answers `sysctl`.
pub fn run(argv: &[String], gateway: &mut dyn Gateway) -> Answer {
    let mut flags = Vec::new();
    let mut operands = Vec::new();
    let mut words = Reader::new(argv);
    while let Some(word) = words.step(OPTIONS) {
        match word {
            Ok(Word::Option(flag, _)) => flags.push(flag),
            Ok(Word::Operand(text)) => operands.push(text),
            Err(Unreadable::Unknown(word) | Unreadable::NeedsArgument(word)) => {
                let what = match word.strip_prefix("--") {
                    Some(_) => format!("unrecognized option '{word}'"),
                    None => format!("invalid option -- '{}'", word.trim_start_matches('-')),
                };
                return Answer::failure(1, format_args!("sysctl: {what}\n{}", USAGE.trim_end()));
            }
        }
    }
    let mut call = Call { flags, gateway, answer: Answer::default() };
    if call.has(Flag::Help) {
        return Answer::text(USAGE);
    }
    if call.has(Flag::Version) {
        return Answer::text("sysctl from procps-ng 4.0.2\n");
    }
    if call.has(Flag::All) {
        full_names().iter().for_each(|(name, key)| call.show(name, key));
    } else if operands.is_empty() {
        let hint = "sysctl: no variables specified\nTry `sysctl --help' for more information.";
        let text = if argv.is_empty() { USAGE.trim_end() } else { hint };
        return Answer::failure(1, text);
    } else {
        operands.into_iter().for_each(|operand| call.operand(operand));
    }
    call.answer
}

struct Call<'g> {
    flags: Vec<Flag>,
    gateway: &'g mut dyn Gateway,
    answer: Answer,
}

impl Call<'_> {
    fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    fn fail(&mut self, message: std::fmt::Arguments<'_>) {
        self.answer.err += &format!("sysctl: {message}\n");
        self.answer.exit = 1;
    }

    fn operand(&mut self, text: &str) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (text, None),
        };
        if name.is_empty() {
            return self.fail(format_args!("\"{name}\" is an unknown key"));
        }
        let name = name.replace('/', ".");
        let all = full_names();
        match (value, all.iter().find(|(full, _)| *full == name)) {
            (None, _) if self.has(Flag::Write) => {
                self.fail(format_args!("command line(0): invalid syntax, continuing..."));
            }
            (Some(value), Some((_, key))) => self.set(&name, key, value),
            (None, Some((_, key))) => self.show(&name, key),
            (None, None) if all.iter().any(|(full, _)| is_below(full, &name)) => {
                let below = all.iter().filter(|(full, _)| is_below(full, &name));
                below.for_each(|(full, key)| self.show(full, key));
            }
            (_, None) if self.has(Flag::Ignore) => {}
            (_, None) => {
                let path = name.replace('.', "/");
                self.fail(format_args!("cannot stat /proc/sys/{path}: No such file or directory"));
            }
        }
    }

    fn show(&mut self, name: &str, key: &SysctlKey) {
        if let Some(value) = self.gateway.sysctl(&key.name) {
            self.line(name, &value.to_string());
        }
    }

    fn line(&mut self, name: &str, value: &str) {
        self.answer.out += &if self.has(Flag::Names) {
            format!("{name}\n")
        } else if self.has(Flag::Values) {
            format!("{value}\n")
        } else {
            format!("{name} = {value}\n")
        };
    }

    fn set(&mut self, name: &str, key: &SysctlKey, text: &str) {
        let value = number(text).filter(|v| (key.min..=key.max).contains(v));
        let done = match value {
            _ if !key.writable => Err(SysctlError::ReadOnly),
            None => Err(SysctlError::Invalid),
            Some(value) => self.gateway.set_sysctl(&key.name, value),
        };
        match done {
            Ok(()) if self.has(Flag::Quiet) => {}
            Ok(()) => self.line(name, text),
            Err(SysctlError::ReadOnly | SysctlError::Invalid) => {
                self.fail(format_args!("setting key \"{name}\": Invalid argument"));
            }
            Err(SysctlError::Memory) => {
                self.fail(format_args!("setting key \"{name}\": Cannot allocate memory"));
            }
            Err(SysctlError::Busy) => {
                self.fail(format_args!("setting key \"{name}\": Device or resource busy"));
            }
            Err(SysctlError::Silent(silent)) => {
                self.fail(format_args!("setting key \"{name}\": {silent}"));
            }
            Err(SysctlError::Unknown) => {
                let path = name.replace('.', "/");
                self.fail(format_args!("cannot stat /proc/sys/{path}: No such file or directory"));
            }
        }
    }
}

fn is_below(full: &str, directory: &str) -> bool {
    full.strip_prefix(directory).is_some_and(|rest| rest.starts_with('.'))
}

/// Digits of a number, with what says their base (`TMPBUFLEN`).
const NUMBER_LEN: usize = 20;

/// A number as the kernel reads one (`proc_get_long`): decimal, `0x` hexadecimal, or octal after a
/// `0`. What follows behind white space goes unread.
fn number(text: &str) -> Option<u64> {
    let word = text.split([' ', '\t', '\n']).next().filter(|word| word.len() <= NUMBER_LEN)?;
    let digits = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X"));
    let (digits, base) = match digits {
        Some(hex) => (hex, 16),
        None if word.len() > 1 && word.starts_with('0') => (&word[1..], 8),
        None => (word, 10),
    };
    if digits.starts_with('+') { None } else { u64::from_str_radix(digits, base).ok() }
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::StandIn;
    use super::*;

    fn sysctl(line: &str, gateway: &mut StandIn) -> (String, String, u8) {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let answer = run(&argv, gateway);
        (answer.out, answer.err, answer.exit)
    }

    const UDP: &str = "net.netfilter.nf_conntrack_udp_timeout";

    /// Texts and exit codes taken from sysctl of procps 4.0.2.
    #[test]
    fn shows_and_sets() {
        let mut g = StandIn::with([]);
        let ok = |out: &str| (out.to_owned(), String::new(), 0);
        assert_eq!(sysctl(UDP, &mut g), ok(&format!("{UDP} = 30\n")));
        assert_eq!(sysctl(&format!("-n {UDP}"), &mut g), ok("30\n"));
        assert_eq!(sysctl(&format!("-N {UDP}"), &mut g), ok(&format!("{UDP}\n")));
        assert_eq!(sysctl(&format!("-w {UDP}=77"), &mut g), ok(&format!("{UDP} = 77\n")));
        assert_eq!(g.values["nf_conntrack_udp_timeout"], 77);
        assert_eq!(sysctl(&format!("{UDP}=0x10"), &mut g), ok(&format!("{UDP} = 0x10\n")));
        assert_eq!(g.values["nf_conntrack_udp_timeout"], 16);
        assert_eq!(number("12 7"), Some(12));
        assert_eq!(number("12\tx"), Some(12));
        assert_eq!(number("00000000000000000012"), Some(10));
        assert_eq!(number("000000000000000000012"), None, "the kernel's buffer ends here");
        assert_eq!(sysctl(&format!("-q -w {UDP}=030"), &mut g), ok(""));
        assert_eq!(sysctl(&format!("-n {}", UDP.replace('.', "/")), &mut g), ok("24\n"));
        assert_eq!(
            sysctl("-w net.nf_conntrack_max=5000", &mut g),
            ok("net.nf_conntrack_max = 5000\n")
        );
        assert_eq!(sysctl("-n net.netfilter.nf_conntrack_max", &mut g), ok("5000\n"));
        assert_eq!(sysctl("-e net.netfilter.nope", &mut g), ok(""));
    }

    #[test]
    fn refuses_what_sysctl_refuses() {
        let mut g = StandIn::with([]);
        let bad = |err: &str| (String::new(), format!("sysctl: {err}\n"), 1);
        let nope = "cannot stat /proc/sys/net/netfilter/nope: No such file or directory";
        assert_eq!(sysctl("net.netfilter.nope", &mut g), bad(nope));
        assert_eq!(sysctl("-w net.netfilter.nope=1", &mut g), bad(nope));
        let syntax = "command line(0): invalid syntax, continuing...";
        assert_eq!(sysctl(&format!("-w {UDP}"), &mut g), bad(syntax));
        for (key, value) in [
            ("udp_timeout", "abc"),
            ("udp_timeout", ""),
            ("udp_timeout", "-1"),
            ("udp_timeout", "99999999999"),
            ("udp_timeout", "30x"),
            ("acct", "2"),
            ("tcp_loose", "2"),
            ("tcp_max_retrans", "256"),
            ("log_invalid", "256"),
            ("max", "0"),
            ("buckets", "0"),
        ] {
            let key = format!("net.netfilter.nf_conntrack_{key}");
            let text = format!("setting key \"{key}\": Invalid argument");
            assert_eq!(sysctl(&format!("-w {key}={value}"), &mut g), bad(&text));
        }
        let count = "net.netfilter.nf_conntrack_count";
        let denied = format!("setting key \"{count}\": Invalid argument");
        assert_eq!(sysctl(&format!("-w {count}=2"), &mut g), bad(&denied));
        let missing = "no variables specified\nTry `sysctl --help' for more information.";
        assert_eq!(sysctl("-w", &mut g), bad(missing));
        assert_eq!(sysctl("", &mut g).2, 1);
        assert!(sysctl("-Z", &mut g).1.starts_with("sysctl: invalid option -- 'Z'\n"));
    }

    #[test]
    fn some_good_and_some_bad_names() {
        let mut g = StandIn::with([]);
        let line = format!("{UDP} net.netfilter.nope net.netfilter.nf_conntrack_acct");
        let (out, err, exit) = sysctl(&line, &mut g);
        assert_eq!(out, format!("{UDP} = 30\nnet.netfilter.nf_conntrack_acct = 30\n"));
        assert_eq!((err.lines().count(), exit), (1, 1));
    }

    #[test]
    fn all_of_them() {
        let mut g = StandIn::with([]);
        let (out, _, exit) = sysctl("-a", &mut g);
        let names: Vec<&str> = out.lines().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!((names[0], exit), ("net.ipv4.ipfrag_high_thresh", 0));
        assert_eq!(*names.last().unwrap(), "net.nf_conntrack_max");
        assert!(names.contains(&UDP) && names.contains(&"net.netfilter.nf_conntrack_count"));
        let (below, ..) = sysctl("net.netfilter", &mut g);
        let of_netfilter = names.iter().filter(|n| n.starts_with("net.netfilter."));
        assert_eq!(below.lines().count(), of_netfilter.count());
    }
}
