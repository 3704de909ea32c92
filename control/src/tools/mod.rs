//! The tools a netfilter user knows, served by the daemon: `conntrack`, `sysctl`, `/proc`, `stats`.
//!
//! Each is a function from its arguments and a [`Gateway`] to an [`Answer`]: the text for both
//! output streams and the exit code. None of them keeps state or touches a socket, so every line is
//! tested without a daemon. Lines, messages and exit codes are those of conntrack-tools 1.4.7 and
//! procps 4.0.

pub mod conntrack;
pub mod conntrack_args;
pub mod conntrack_change;
mod conntrack_expect;
pub mod conntrack_filter;
pub mod conntrack_format;
pub mod conntrack_invalid;
pub mod conntrack_labels;
pub mod conntrack_options;
pub mod conntrack_xml;
pub mod getopt;
pub mod iptables;
pub mod iptables_files;
pub mod proc;
mod proc_recent;
#[cfg(test)]
mod stand_in;
pub mod stats;
pub mod sysctl;

use std::fmt;

use dataplane::conntrack::expect::{ExpectationView, SourceMask};
use dataplane::conntrack::tuple::Tuple;
use dataplane::conntrack::view::{ConnView, CpuStatistics, SynproxyStatistics};
use dataplane::pipeline::by_hand::{Change, NewConn, Refusal};
use dataplane::rules::kept::Kept;
use dataplane::rules::matches::recent;

use crate::labels::Names;

/// What a tool prints and returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// The exit code.
    pub exit: u8,
}

impl Answer {
    /// Success with this text.
    pub fn text(out: impl Into<String>) -> Answer {
        Answer { out: out.into(), ..Answer::default() }
    }

    /// Failure with this message; a newline is added.
    pub fn failure(exit: u8, message: impl std::fmt::Display) -> Answer {
        Answer { err: format!("{message}\n"), exit, ..Answer::default() }
    }
}

/// Why a sysctl could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlError {
    /// No such key.
    Unknown,
    /// The key only shows something.
    ReadOnly,
    /// The value is not a number this key takes.
    Invalid,
    /// There is not so much memory.
    Memory,
    /// What an earlier one began is still going on.
    Busy,
    /// A worker does not answer, so that it could not follow.
    Silent(Silent),
}

/// A worker that a command needs and that does not answer: it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silent {
    /// DPDK's number of the lcore.
    pub lcore: u32,
    /// The CPU it runs on.
    pub cpu: u32,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker lcore {} (CPU {}) does not answer", self.lcore, self.cpu)
    }
}

impl std::error::Error for Silent {}

/// A conn that was to be changed, as it is then, and what became of the request.
pub type Changed = (ConnView, Result<(), Refusal>);

/// An expectation that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedExpectation {
    /// A tuple of its master, of either direction, in zone 0.
    pub master: Tuple,
    /// What is expected.
    pub tuple: Tuple,
    /// What of the source counts.
    pub mask: SourceMask,
}

/// Why an expectation was not made, by the error that ctnetlink has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectRefusal {
    /// A packet with that tuple is expected already (`EEXIST`).
    Exists,
    /// No conn has the master's tuple (`ENOENT`).
    NoMaster,
    /// The master has no helper (`EOPNOTSUPP`).
    NoHelper,
    /// A packet could match it and another one (`EBUSY`).
    Clash,
    /// The same one is of another master or class (`EALREADY`).
    Already,
    /// There are as many as there may be (`EMFILE`).
    Full,
}

/// What the tools need from the running daemon. Calls may wait a little for the lcores; those that
/// need an answer of each fail where one stays silent.
pub trait Gateway {
    /// All conns, each once, in no particular order. Expired ones are left out.
    ///
    /// # Errors
    /// A worker that does not answer: part of the table would pass for all of it.
    fn conns(&mut self) -> Result<Vec<ConnView>, Silent>;
    /// The same, and sets their counters back: of all conns, or of those of one family.
    ///
    /// # Errors
    /// A worker that does not answer; counters of others may be 0 by then.
    fn conns_zeroed(
        &mut self,
        family: Option<conntrack_args::Family>,
    ) -> Result<Vec<ConnView>, Silent>;
    /// The live conn that has this tuple in zone 0, either as its original or its reply one.
    ///
    /// # Errors
    /// The conn's owner does not answer.
    fn get(&mut self, tuple: &Tuple) -> Result<Option<ConnView>, Silent>;
    /// Makes a conn; whose process it is the gateway knows.
    ///
    /// # Errors
    /// The lcore that is to own it does not answer.
    fn create(&mut self, new: NewConn) -> Result<Result<(), Refusal>, Silent>;
    /// Changes the conns of these keys that are still there; those, as they are then, and what
    /// became of the request.
    ///
    /// # Errors
    /// An owner that does not answer; conns of others may have changed.
    fn change(&mut self, keys: &[u64], change: &Change) -> Result<Vec<Changed>, Silent>;
    /// Deletes the conn of [`ConnView::key`]; false if it is gone already.
    ///
    /// # Errors
    /// The conn's owner does not answer.
    fn delete(&mut self, key: u64) -> Result<bool, Silent>;
    /// Deletes all conns, or those of one family.
    ///
    /// # Errors
    /// A worker that does not answer; the conns of others may be gone.
    fn flush(&mut self, family: Option<conntrack_args::Family>) -> Result<(), Silent>;
    /// The number of conns.
    fn count(&mut self) -> u32;
    /// All expectations, in no particular order. Expired ones are left out.
    ///
    /// # Errors
    /// A worker that stands still and keeps the others from them.
    fn expectations(&mut self) -> Result<Vec<ExpectationView>, Silent>;
    /// Deletes the expectation of [`ExpectationView::key`]; false if it is gone already.
    ///
    /// # Errors
    /// As [`Gateway::expectations`].
    fn delete_expectation(&mut self, key: u64) -> Result<bool, Silent>;
    /// Makes an expectation for a master's helper, with the time that the helper gives it.
    ///
    /// # Errors
    /// The master's owner does not answer, or as [`Gateway::expectations`].
    fn expect(&mut self, wanted: &WantedExpectation) -> Result<Result<(), ExpectRefusal>, Silent>;
    /// The number of expectations.
    fn expect_count(&mut self) -> u32;
    /// The last INVALID packets of every lcore.
    ///
    /// # Errors
    /// A worker that does not answer.
    fn invalid(&mut self) -> Result<Vec<conntrack_invalid::Seen>, Silent>;
    /// Counters, one element per lcore.
    fn cpu_statistics(&mut self) -> Vec<CpuStatistics>;
    /// What SYNPROXY counts, likewise.
    fn synproxy_statistics(&self) -> Vec<SynproxyStatistics>;
    /// The names of labels, read anew.
    ///
    /// # Errors
    /// Why there are none.
    fn label_names(&self) -> Result<Names, String>;
    /// Wall clock in nanoseconds since 1970, the one that conns are stamped with.
    fn unix_ns(&self) -> u64;
    /// The value of a key such as `nf_conntrack_udp_timeout` (see [`sysctl::keys`]); `None` if
    /// there is no such key.
    fn sysctl(&mut self, key: &str) -> Option<u64>;
    /// Sets it. The value has passed the key's own bounds.
    fn set_sysctl(&mut self, key: &str, value: u64) -> Result<(), SysctlError>;
    /// The table of a name in `-m recent`, if a rule names it.
    fn recent(&self, name: &str) -> Option<Kept<recent::Table>>;
    /// All counters for `stats`.
    fn stats(&mut self) -> stats::Stats;
}

/// Runs the tool that `argv` begins with, on this standard input; `None` if it is none of these.
pub fn run(argv: &[String], stdin: &str, gateway: &mut dyn Gateway) -> Option<conntrack::Outcome> {
    let (name, rest) = argv.split_first()?;
    Some(conntrack::Outcome::Done(match name.as_str() {
        "conntrack" => return Some(conntrack::run(rest, stdin, gateway)),
        "sysctl" => sysctl::run(rest, gateway),
        "proc" => proc::run(rest, gateway),
        "stats" => stats::run(rest, gateway),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_answers_to_its_name() {
        let mut gateway = stand_in::StandIn::with([]);
        for (line, out) in [
            ("conntrack -C", "0\n"),
            ("sysctl -n net.nf_conntrack_max", "30\n"),
            ("proc net/nf_conntrack", ""),
        ] {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let outcome = run(&argv, "", &mut gateway);
            assert_eq!(outcome, Some(conntrack::Outcome::Done(Answer::text(out))), "{line}");
        }
        assert!(run(&["stats".to_owned()], "", &mut gateway).is_some());
        assert_eq!(run(&["iptables-save".to_owned()], "", &mut gateway), None);
        assert_eq!(run(&[], "", &mut gateway), None);
    }
}
