//! docs/semantics.md, number by number: the name of each test begins with the number it shows.
//!
//! Each is the shortest exchange that shows the sentence; what lies between the sentences is the
//! business of the other files, of the trackers' own tests and of the comparison with the kernel.

mod conns;
mod others;
mod tcp;

use dataplane::conntrack::state::Status;
use dataplane::rules::hook::Family;
use dataplane::rules::hook::Table::Mangle;
use dataplane::rules::matches::StateMask;

use super::rig::*;
use super::rules::*;
pub(super) use super::tracking::{connect, tcp as segment, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:80";

const STATES: [StateMask; 5] = [
    StateMask::NEW,
    StateMask::ESTABLISHED,
    StateMask::RELATED,
    StateMask::INVALID,
    StateMask::UNTRACKED,
];

/// A gateway that counts what PREROUTING sees: new, established, related, invalid, untracked.
fn counting(mut setup: Setup) -> Rig {
    for state in STATES {
        setup = setup.both(Mangle, "PREROUTING", count().state(state));
    }
    setup.start()
}

fn seen(rig: &mut Rig, family: Family) -> [u64; 5] {
    core::array::from_fn(|n| rig.count(family, Mangle, "PREROUTING", Some(n)).0)
}

/// State, seconds left and whether it is ASSURED, of the only conn.
fn state(rig: &mut Rig) -> (&'static str, u32, bool) {
    let conn = rig.conn();
    (conn.state.unwrap_or(""), conn.remaining_secs, conn.status.has(Status::ASSURED))
}
