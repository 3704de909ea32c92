//! Bytes for each translated conn, all in, with a table at its limit.
//!
//! Counted are the allocations that were really made: records, index, the index by source,
//! extension blocks, expectations; free lists lie inside the records that are free. Beside it
//! stands what the process grew by from before the table was made until it was full, as the kernel
//! counts it: with everything else that a gateway allocates, and this benchmark's own frames.
//!
//! Memory for as many IPv4 records as `max` says is made at the start, whatever comes. A table full
//! of IPv6 conns therefore holds those too, unused: they are in the remark, not in the figure.

use std::fs;

use dataplane::conntrack::record::{ConnRef, Family, Records};
use dataplane::conntrack::store::Shared;

use super::gateway::{PATIENT, Plan, Rig, Work, broken, ten_rules, work};
use super::trial::{Phase, Trial};
use super::{Options, print};
use crate::goals::Topic;
use crate::process::Failure;
use crate::row::{Peer, Reach, Row, Spread};

const CONNS: u32 = 1_000_000;
/// Conns opened between two rounds of the control core, which makes IPv6 records as they are
/// needed; time does not count here.
const STEP: u32 = 8192;
/// Bytes that a conn may cost.
const GOAL_V4: f64 = 192.0;
const GOAL_V6: f64 = 256.0;
/// What a translated conn takes in Linux, about.
const KERNEL: f64 = 390.0;
/// Of a record that is made for an IPv4 conn whoever comes.
const V4_RECORD: u64 = 128;

/// Resident bytes of this process.
fn resident() -> Result<u64, Failure> {
    const FILE: &str = "/proc/self/status";
    let text = fs::read_to_string(FILE).map_err(Failure::io(FILE))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10).ok_or_else(|| broken(FILE)(&"no VmRSS"))
}

/// Bytes of the IPv4 records that have memory: those below some number.
fn bytes_of_v4(records: &Records) -> u64 {
    let (mut there, mut missing) = (0, 1 << 30);
    while there < missing {
        let middle = (there + missing) / 2;
        match records.get(ConnRef::new(Family::V4, middle)) {
            Some(_) => there = middle + 1,
            None => missing = middle,
        }
    }
    u64::from(there) * V4_RECORD
}

fn measure(options: &Options, v6: bool) -> Result<Row, Failure> {
    let v4 = Work::Snat.plan(CONNS, PATIENT, options.seed);
    let rules_v6 = ten_rules(Some("2001:db8:30::1-2001:db8:30::10"), "fd00:0:0:99::/64");
    let plan = if v6 { Plan { rules_v6, ..v4 } } else { v4 };
    let trial = if v6 { Trial::v6() } else { Trial::new().unanswered() };
    let before = resident()?;
    let mut rig = Rig::new(&plan, trial)?;
    for from in (0..CONNS).step_by(STEP as usize) {
        rig.wires().source.phase = Phase::Open { next: from, until: (from + STEP).min(CONNS) };
        rig.until_quiet()?;
        rig.core.round();
    }
    rig.lost_nothing("while conns were opened")?;
    let grown = resident()?.saturating_sub(before);
    if rig.conns() != CONNS {
        return Err(work(&format!("{} of {CONNS} conns are in the table", rig.conns())));
    }
    let shared = rig.core.table();
    // A conn that is not translated has one entry.
    let entries = shared.index.census().0;
    if entries != 2 * u64::from(CONNS) {
        return Err(work(&format!("{entries} entries in the index for {CONNS} translated conns")));
    }
    let Shared { index, by_source, records, extensions, expectations, .. } = &**shared;
    let each = |bytes: u64| bytes as f64 / f64::from(CONNS);
    let unused = if v6 { bytes_of_v4(records) } else { 0 };
    let all = shared.bytes() as u64 - unused;
    let parts = [
        ("records", records.bytes() as u64 - unused),
        ("index", index.bytes() as u64),
        ("by source", by_source.bytes() as u64),
        ("extensions", extensions.bytes() as u64),
        ("expectations", expectations.bytes() as u64),
    ];
    let mut remark: Vec<String> =
        parts.iter().map(|(name, bytes)| format!("{name} {:.1}", each(*bytes))).collect();
    remark.push(format!("the process grew by {:.1}", each(grown)));
    if v6 {
        remark.push(format!("{:.1} more for IPv4 records that nobody uses", each(unused)));
    }
    let name = format!("memory of a translated {} conn, all in", if v6 { "IPv6" } else { "IPv4" });
    let ours = Spread::exact(each(all));
    // Its slab object, extensions and two chain heads.
    let kernel = (!v6).then(|| Peer::from_elsewhere("kernel", KERNEL, ours));
    Ok(Row::new(name, "bytes", ours)
        .beside(kernel)
        .judged(Reach::AtMost(if v6 { GOAL_V6 } else { GOAL_V4 }).of(Topic::Memory))
        .noting(remark.join(", ")))
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    Ok(vec![measure(options, false)?, measure(options, true)?])
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}
