//! The kernel as referee: the same rules and the same packets, once through a network namespace of
//! this machine and once through `sluicegate replay`; every packet that comes out and every line
//! of the connection table has to be the same (timers within two seconds), by however many workers
//! and queues; and so has every sentence of `log_invalid`. Random rule sets ([`rulesets`]) are
//! compared to the last counter.
//!
//! Needs root, iproute2, iptables, conntrack, ethtool and procps, and fails where they are missing.
//! `COMPARISON_PRINT=1 cargo test --test comparison -- --nocapture kernel` prints what the kernel
//! did; `COMPARISON_ONLY=name` runs one sequence; `COMPARISON_SEED=number` draws other segments
//! where a sequence draws them by lot.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

mod compare;
mod kernel;
mod learned;
mod listing;
mod netns;
mod nflog;
mod packets;
mod random;
mod replay;
mod rulesets;
mod script;
mod sequences;
mod show;
mod topology;

use kernel::Kernel;
use replay::{LATER, Replay, SPREADS};
use script::{Device, Sequence};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the sequences of a group on the referee and on each of the others, and fails with all
/// differences. A sequence that a device cannot run at all is a difference too, not the end of the
/// group.
fn compare(group: sequences::Group, ours: &mut dyn Device, others: &mut [&mut dyn Device]) {
    let only = std::env::var("COMPARISON_ONLY").ok();
    let print = std::env::var_os("COMPARISON_PRINT").is_some();
    let mut report = String::new();
    let mut failed = 0;
    for sequence in group().iter().filter(|s| only.as_ref().is_none_or(|name| s.name == name)) {
        let our = ours.run(sequence);
        if print {
            println!("{} — {}\n{our}", sequence.name, sequence.shows);
        }
        for theirs in others.iter_mut() {
            let mut found = match catch_unwind(AssertUnwindSafe(|| theirs.run(sequence))) {
                Ok(their) => compare::differences(&our, &their, [ours.name(), theirs.name()]),
                Err(panic) => vec![format!("{} did not run: {}", theirs.name(), message(&*panic))],
            };
            if let Some(lacks) = theirs.lacks(sequence.name) {
                match found.is_empty() {
                    true => found.push(format!("agrees, although it is listed as lacking {lacks}")),
                    false => found.clear(),
                }
            }
            if !found.is_empty() {
                failed += 1;
                report.push_str(&describe(sequence, theirs.name(), &found));
            }
        }
    }
    assert!(failed == 0, "{failed} runs of sequences differ\n{report}");
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

fn describe(sequence: &Sequence, by: &str, found: &[String]) -> String {
    format!("\n== {} ({}), {by}\n{}\n", sequence.name, sequence.shows, found.join("\n"))
}

/// One test per group and pair of devices.
macro_rules! groups {
    ($($group:ident)*) => {
        /// Two namespaces with the same kernel: shows that nothing in a transcript is chance.
        mod kernel_repeats_itself {
            use super::*;
            $(#[test] fn $group() {
                compare(sequences::$group, &mut Kernel::new(), &mut [&mut Kernel::new()]);
            })*
        }

        /// What this suite is for.
        mod replay_does_as_the_kernel {
            use super::*;
            $(#[test]
            fn $group() {
                let mut replays = SPREADS.map(Replay::new);
                let [a, b, c] = &mut replays;
                compare(sequences::$group, &mut Kernel::new(), &mut [a, b, c]);
            })*
        }

        #[test]
        fn sequences_are_many_and_have_names_of_their_own() {
            let groups: &[sequences::Group] = &[$(sequences::$group),*];
            let sequences: Vec<Sequence> = groups.iter().flat_map(|group| group()).collect();
            let names: std::collections::BTreeSet<&str> =
                sequences.iter().map(|sequence| sequence.name).collect();
            assert_eq!(names.len(), sequences.len());
            let differ = LATER.iter().chain(SPREADS.iter().flat_map(|spread| spread.differs));
            assert!({ differ }.all(|(name, _)| names.contains(name)));
            assert!(names.len() >= 60, "{} sequences", names.len());
        }
    };
}

groups!(
    expect fragments
    tcp_states tcp_windows tcp_tracker udp icmp nat rules gateway ipv6 template sctp gre protocols
    targets synproxy
);
