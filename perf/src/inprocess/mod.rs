//! Benchmarks inside this process: the table by itself, and a gateway over ports in memory.
//!
//! No device stands between the measured code and what is offered, so that a million and ten
//! million conns can be offered, at rates that no virtual device has. The code is the product's:
//! control core, mailbox, worker and pipeline, from a configuration file on. One thread on CPU 1
//! works and is measured, everything else stays on CPU 0.
//!
//! | file | measures |
//! |---|---|
//! | `table` (`peer`, `chains`) | lookups, beside DPDK's hash table and the memory's limit |
//! | `newconns` (`transactions`) | new conns, filled and answered, and for long with expiry |
//! | `rules` | first packets and known ones behind ten, a thousand and ten thousand rules |
//! | `teardown`, `expiry` | the end of a million conns, asked for and by itself |
//! | `flood` | established packets while a flood of SYNs finds the table full |
//! | `memory` | bytes for each conn, all in |
//! | `established` | packets of a million and of ten million conns |
//!
//! The others are what these share: `gateway` (the rig), `wires` and `frame` (ports in memory),
//! `packets`, `picks` and `trial` (what is offered), `clock` and `watch`. Frames are made by the
//! measured thread: what that costs is measured by itself, with the same frames sent away unseen,
//! and shown.

mod chains;
mod clock;
pub(crate) mod established;
pub(crate) mod expiry;
pub(crate) mod flood;
mod frame;
pub(crate) mod gateway;
pub(crate) mod memory;
pub(crate) mod newconns;
mod packets;
mod peer;
mod picks;
pub(crate) mod rules;
pub(crate) mod table;
pub(crate) mod teardown;
mod transactions;
mod trial;
mod watch;
mod wires;

use std::time::Duration;

use crate::process::Failure;
use crate::row::{Row, Spread};

/// Frames of a burst, as in every benchmark here.
const BURST: usize = 32;

/// How long and how often.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// A first look: small tables, short windows, two rounds.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds; each measures everything once (9, quick 2).
    #[arg(long)]
    pub(crate) pairs: Option<usize>,
    /// Seed of tables and picks.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Measures rows.
type Rows = fn(&Options) -> Result<Vec<Row>, Failure>;

/// All benchmarks here, in the order of a report.
pub(crate) const PARTS: [(&str, Rows); 8] = [
    ("Table", table::rows),
    ("Many conns", established::rows),
    ("New conns", newconns::rows),
    ("Rules", rules::rows),
    ("Tear-down", teardown::rows),
    ("Expiry", expiry::rows),
    ("Flood", flood::rows),
    ("Memory", memory::rows),
];

impl Options {
    fn pairs(&self) -> usize {
        self.pairs.unwrap_or(if self.quick { 2 } else { 9 }).max(1)
    }

    /// A window of what is steady.
    fn length(&self) -> Duration {
        Duration::from_millis(if self.quick { 50 } else { 300 })
    }
}

/// A number of conns as people say it: 64 K is 65 536.
fn count_name(conns: u32) -> String {
    match conns {
        n if n % 1_000_000 == 0 => format!("{} M", n / 1_000_000),
        n if n % (1 << 20) == 0 => format!("{} M", n >> 20),
        n if n % (1 << 14) == 0 => format!("{} K", n >> 10),
        n => n.to_string(),
    }
}

/// Prints the rows of one subcommand.
fn print(rows: &[Row]) {
    for row in rows {
        let digits = if row.ours.median < 1000.0 { 2 } else { 0 };
        let show = |spread| Spread::show(Some(spread), digits);
        print!("{}: {} {}", row.name, show(row.ours), row.unit);
        if let Some(peer) = &row.peer {
            let from = if peer.measured { "" } else { ", not measured here" };
            let ratio = Spread::show(Some(peer.ratio), 2);
            print!("; {} {} {}{from}: {ratio}×", peer.name, show(peer.figure), row.unit);
        }
        if let Some(goal) = row.goal {
            print!("; goal {goal}");
        }
        if let Some(outcome) = row.outcome() {
            let close = if row.is_close() { ", closely" } else { "" };
            print!(": {outcome}{close}");
        }
        println!("{}{}", if row.remark.is_empty() { "" } else { "; " }, row.remark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_said_as_people_do() {
        let said = [16 << 10, 1 << 20, 10_000_000, 64_512, 4 << 20].map(count_name);
        assert_eq!(said, ["16 K", "1 M", "10 M", "64512", "4 M"]);
    }
}
