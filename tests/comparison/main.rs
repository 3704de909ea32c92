//! The kernel as referee: the same rules and the same packets, once through a network namespace of
//! this machine and once through `sluicegate replay`; every packet that comes out and every line
//! of the connection table has to be the same (timers within two seconds).
//!
//! Needs root, iproute2, iptables, conntrack, ethtool and procps, and fails where they are missing.
//! `COMPARISON_PRINT=1 cargo test --test comparison -- --nocapture kernel` prints what the kernel
//! did; `COMPARISON_ONLY=name` runs one sequence.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

mod compare;
mod kernel;
mod learned;
mod listing;
mod netns;
mod packets;
mod replay;
mod script;
mod sequences;
mod show;
mod topology;

use kernel::Kernel;
use replay::Replay;
use script::{Device, Sequence};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Sequences that need what the replay does not do yet. One that agrees has to leave the list.
const LATER: &[(&str, &str)] = &[
    ("too-large", "fragments of its own"),
    ("udp-fragments", "reassembly"),
    ("udp-fragments-reversed", "reassembly"),
    ("masquerade-fragments", "reassembly"),
    ("netmap", "target NETMAP"),
    ("reject-established", "match length"),
    ("dropped-first-packet", "match length"),
    ("marks", "target CONNMARK"),
    ("tcp-flags", "match tcpmss"),
    ("packet-facts", "match ttl"),
    ("addresses", "match iprange"),
    ("limit", "match limit"),
    ("every-third", "match statistic"),
    ("zone", "zones"),
    ("segment-size", "target TCPMSS"),
    ("segment-size-clamped", "target TCPMSS"),
    ("header-targets", "target DSCP"),
];

/// Runs the sequences of a group on two devices and fails with all differences. A sequence that
/// the second device cannot run at all is a difference too, not the end of the group.
fn compare(
    group: sequences::Group,
    ours: &mut dyn Device,
    theirs: &mut dyn Device,
    later: &[(&str, &str)],
) {
    let only = std::env::var("COMPARISON_ONLY").ok();
    let print = std::env::var_os("COMPARISON_PRINT").is_some();
    let mut report = String::new();
    let mut failed = 0;
    for sequence in group().iter().filter(|s| only.as_ref().is_none_or(|name| s.name == name)) {
        let our = ours.run(sequence);
        if print {
            println!("{} — {}\n{our}", sequence.name, sequence.shows);
        }
        let mut found = match catch_unwind(AssertUnwindSafe(|| theirs.run(sequence))) {
            Ok(their) => compare::differences(&our, &their, [ours.name(), theirs.name()]),
            Err(panic) => vec![format!("{} did not run: {}", theirs.name(), message(&*panic))],
        };
        if let Some((_, lacks)) = later.iter().find(|(name, _)| *name == sequence.name) {
            match found.is_empty() {
                true => found.push(format!("agrees, although it is listed as lacking {lacks}")),
                false => found.clear(),
            }
        }
        if !found.is_empty() {
            failed += 1;
            report.push_str(&describe(sequence, &found));
        }
    }
    assert!(failed == 0, "{failed} sequences differ\n{report}");
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn describe(sequence: &Sequence, found: &[String]) -> String {
    format!("\n== {} ({})\n{}\n", sequence.name, sequence.shows, found.join("\n"))
}

/// One test per group and pair of devices.
macro_rules! groups {
    ($($group:ident)*) => {
        /// Two namespaces with the same kernel: shows that nothing in a transcript is chance.
        mod kernel_repeats_itself {
            use super::*;
            $(#[test] fn $group() {
                compare(sequences::$group, &mut Kernel::new(), &mut Kernel::new(), &[]);
            })*
        }

        /// What this suite is for.
        mod replay_does_as_the_kernel {
            use super::*;
            $(#[test]
            fn $group() {
                compare(sequences::$group, &mut Kernel::new(), &mut Replay::new(), LATER);
            })*
        }

        #[test]
        fn sequences_are_many_and_have_names_of_their_own() {
            let groups: &[sequences::Group] = &[$(sequences::$group),*];
            let sequences: Vec<Sequence> = groups.iter().flat_map(|group| group()).collect();
            let names: std::collections::BTreeSet<&str> =
                sequences.iter().map(|sequence| sequence.name).collect();
            assert_eq!(names.len(), sequences.len());
            assert!(LATER.iter().all(|(name, _)| names.contains(name)));
            assert!(names.len() >= 60, "{} sequences", names.len());
        }
    };
}

groups!(tcp_states tcp_windows udp icmp nat rules gateway ipv6);
