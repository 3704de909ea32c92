//! `sluicegate sysctl` beside the kernel's: the same keys in the same order, with the same
//! defaults, and the same values taken and refused with the same words.
//!
//! The kernel says itself which keys there are: a fresh namespace has nearly all of them, and the
//! one this test runs in, which is only read, has those that are not for namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};

use crate::netns::Namespace;
use crate::rig::{Rig, Wish};

/// What the keys begin with that are asked for.
const SETS: [&str; 4] =
    ["net.netfilter.nf_conntrack_", "net.nf_conntrack_", "net.ipv4.ipfrag_", "net.ipv6.ip6frag_"];

/// Keys of the kernel that are not here, as `docs/semantics-notes.md` says: without effect, or
/// about fragments that conntrack's own defragmentation leaves none of.
const LEFT_OUT: [&str; 5] = [
    "net.ipv4.ipfrag_secret_interval",
    "net.ipv6.ip6frag_high_thresh",
    "net.ipv6.ip6frag_low_thresh",
    "net.ipv6.ip6frag_secret_interval",
    "net.ipv6.ip6frag_time",
];

/// What the keys of DCCP begin with, which the kernel lost with its tracker in 6.16.
const GONE: &str = "net.netfilter.nf_conntrack_dccp_";

/// Keys whose values are the table's own, and which a namespace may only read.
const OF_THE_TABLE: [&str; 4] = [
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_expect_max",
    "net.netfilter.nf_conntrack_max",
];

/// What is written to every key.
const VALUES: [&str; 15] = [
    "0",
    "1",
    "2",
    "3",
    "255",
    "256",
    "65536",
    "3145727",
    "8589934",
    "8589935",
    "4294967296",
    "abc",
    "7x",
    "",
    "18446744073709551616",
];

/// Ways to write a number, for one key of each kind.
const WORDS: [&str; 14] = [
    "1 2",
    "1\t2",
    "1 x",
    "+1",
    "0x1",
    "0X1",
    "0x",
    "01",
    "08",
    "1e0",
    "1.0",
    "1,",
    "00000000000000000001",
    "000000000000000000001",
];
const KINDS: [&str; 4] = [
    "net.netfilter.nf_conntrack_acct",
    "net.netfilter.nf_conntrack_tcp_max_retrans",
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.ipv4.ipfrag_max_dist",
];

/// The lines of `sysctl -a` that are asked for: names with their values, in order.
fn keys(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let pairs = text.lines().filter_map(|line| line.split_once(" = "));
    let ours = pairs.filter(|(key, _)| SETS.iter().any(|set| key.starts_with(set)));
    ours.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn outcome(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// The kernel in a namespace and a gateway.
struct Both {
    kernel: Namespace,
    rig: Rig,
}

impl Both {
    fn new() -> Both {
        Both { kernel: Namespace::new("sysctl"), rig: Rig::new(Wish::default()) }
    }

    fn theirs(&self, words: &[&str]) -> Output {
        let mut sysctl = self.kernel.command("sysctl");
        sysctl.args(words).stdin(Stdio::null()).output().expect("sysctl starts")
    }

    fn ours(&self, words: &[&str]) -> Output {
        self.rig.files().tool(&[&["sysctl"], words].concat())
    }

    /// Writes a value on both sides; the answers and what is read then have to be the same.
    fn write(&self, key: &str, value: &str) {
        let assignment = format!("{key}={value}");
        let words = ["-w", &assignment];
        assert_eq!(outcome(&self.ours(&words)), outcome(&self.theirs(&words)), "{assignment:?}");
        assert_eq!(self.ours(&[key]).stdout, self.theirs(&[key]).stdout, "after {assignment:?}");
    }
}

#[test]
fn every_key_of_the_kernel_is_here_with_its_default() {
    let both = Both::new();
    let theirs = keys(&both.theirs(&["-a"]).stdout);
    let mut ours = keys(&both.ours(&["-a"]).stdout);
    ours.retain(|(key, _)| !key.starts_with(GONE));
    let here = Command::new("sysctl").arg("-a").stdin(Stdio::null()).output().expect("sysctl");
    let of_the_machine = keys(&here.stdout);
    let names: BTreeSet<&str> =
        theirs.iter().chain(&of_the_machine).map(|(key, _)| key.as_str()).collect();
    assert!(names.len() > 45, "{names:?}");
    let known: BTreeSet<&str> = ours.iter().map(|(key, _)| key.as_str()).collect();
    let missing: Vec<&&str> = names.difference(&known).collect();
    let missing: Vec<&&&str> = missing.iter().filter(|key| !LEFT_OUT.contains(**key)).collect();
    assert!(missing.is_empty(), "keys of the kernel that are missing: {missing:?}");
    let in_order = |keys: &[(String, String)], of: &BTreeSet<&str>| -> Vec<String> {
        let names = keys.iter().map(|(key, _)| key);
        names.filter(|key| of.contains(key.as_str())).cloned().collect()
    };
    for listing in [&theirs, &of_the_machine] {
        let listed = listing.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(in_order(&ours, &listed), in_order(listing, &known), "the order");
    }
    let own: Vec<&&str> = known.difference(&names).collect();
    assert!(own.iter().all(|key| **key == "net.nf_conntrack_max"), "keys of our own: {own:?}");
    let defaults: BTreeMap<&str, &str> =
        theirs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    for (key, value) in &ours {
        let default = defaults.get(key.as_str()).copied();
        if default.is_some() && !OF_THE_TABLE.contains(&key.as_str()) {
            assert_eq!(Some(value.as_str()), default, "the default of {key}");
        }
    }
    let notes = include_str!("../../docs/semantics-notes.md");
    for key in LEFT_OUT {
        assert!(notes.contains(key.rsplit('.').next().unwrap()), "{key} is not in the notes");
    }
}

#[test]
fn every_key_takes_and_refuses_what_the_kernel_s_does() {
    let both = Both::new();
    let theirs = keys(&both.theirs(&["-a"]).stdout);
    let skipped = |key: &str| OF_THE_TABLE.contains(&key) || LEFT_OUT.contains(&key);
    let mut written = 0;
    for (key, default) in theirs.iter().filter(|(key, _)| !skipped(key)) {
        VALUES.iter().for_each(|value| both.write(key, value));
        if KINDS.contains(&key.as_str()) {
            WORDS.iter().for_each(|value| both.write(key, value));
        }
        both.write(key, default);
        written += 1;
    }
    assert!(written > 40, "{written} keys");
}

#[test]
fn what_a_namespace_may_not_write_is_said_in_the_same_words() {
    let both = Both::new();
    let count = "net.netfilter.nf_conntrack_count=7";
    let (ours, theirs) = (both.ours(&["-w", count]), both.theirs(&["-w", count]));
    assert_eq!((ours.stdout, ours.stderr), (theirs.stdout, theirs.stderr));
    // procps takes what it may not write for no failure.
    assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(0)));
}
