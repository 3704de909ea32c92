//! That a program did the work, frame by frame: the capture is replayed once, what leaves the
//! outside port is read back and held against the conns that were offered: every conn comes out, as
//! one tuple of its own. A program that starts to forward before it knows its tables gets the
//! capture without end, and each conn must come out the same each time.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use crate::process::{Failure, wait_until};
use crate::program::{Plan, Program, Sink, Workload};
use crate::traffic::{
    LAN_MAC, LAN_NEXT_HOP_MAC, Seen, TTL, Traffic, WAN_MAC, WAN_NEXT_HOP_MAC, read_capture,
    read_frame,
};

const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `program` once over the frames of `traffic` and checks every frame it sent. `plan` must
/// have a capture as its sink.
pub(crate) fn prove(program: Program, plan: &Plan<'_>, traffic: &Traffic) -> Result<(), Failure> {
    let Sink::Capture { file, endless } = &plan.sink else { return Ok(()) };
    let _ = fs::remove_file(file);
    let mut running = program.start(plan)?;
    let log = running.log().to_path_buf();
    // Without end, the first frames are lost and every conn comes again.
    let expected = traffic.len() as u64 * if *endless { 3 } else { 1 };
    let name = format!("{program} ({}, {} conns)", plan.workload, traffic.len());
    let what = format!("{name} did not send {expected} frames");
    wait_until(PATIENCE, what, &log, || Ok(running.counters()?.tx >= expected))?;
    drop(running);
    let frames = read_capture(file).map_err(Failure::io(file.display()))?;
    let _ = fs::remove_file(file);
    let work = |reason: String| Failure::Work { program: name.clone(), reason };
    if !endless && frames.len() != traffic.len() {
        return Err(work(format!("{} frames came out", frames.len())));
    }
    let (mut conns, mut ends) = (HashSet::new(), HashSet::new());
    for bytes in &frames {
        let seen = read_frame(bytes).ok_or_else(|| work(format!("sent {bytes:02x?}")))?;
        if let Err(reason) = judge(program, plan.workload, traffic, &seen) {
            return Err(work(format!("{reason}: {seen:?}")));
        }
        conns.insert(seen.conn);
        ends.insert(seen.ends);
    }
    if conns.len() != traffic.len() || ends.len() != traffic.len() {
        let reason = format!("{} conns and {} tuples came out", conns.len(), ends.len());
        return Err(work(reason));
    }
    Ok(())
}

/// Whether one sent frame is what its conn's frame should have become.
fn judge(
    program: Program,
    workload: Workload,
    traffic: &Traffic,
    seen: &Seen,
) -> Result<(), &'static str> {
    let offered = traffic.conn(seen.conn).ok_or("no such conn")?;
    if !seen.checksums_right {
        return Err("a checksum is wrong");
    }
    let (macs, ttl) = match program {
        Program::Testpmd => ((LAN_NEXT_HOP_MAC, LAN_MAC), TTL),
        Program::Ovs => ((LAN_MAC, LAN_NEXT_HOP_MAC), TTL),
        Program::Sluicegate => ((WAN_NEXT_HOP_MAC, WAN_MAC), TTL - 1),
    };
    if (seen.dst_mac, seen.src_mac) != macs {
        return Err("MAC addresses");
    }
    if seen.ttl != ttl {
        return Err("TTL");
    }
    if (seen.ends.dst, seen.ends.dst_port) != (offered.dst, offered.dst_port) {
        return Err("destination changed");
    }
    let source = (seen.ends.src, seen.ends.src_port);
    match workload.pool() {
        Some((first, last)) if program != Program::Testpmd => match source.0 {
            address if (first..=last).contains(&address) => Ok(()),
            _ => Err("source not translated"),
        },
        _ if source == (offered.src, offered.src_port) => Ok(()),
        _ => Err("source changed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Ends;
    use std::net::Ipv4Addr;

    #[test]
    fn a_frame_that_was_not_translated_is_found() {
        let traffic = Traffic::new(3, 1);
        let ends = traffic.conn(2).unwrap();
        let mut seen = Seen {
            dst_mac: WAN_NEXT_HOP_MAC,
            src_mac: WAN_MAC,
            ttl: TTL - 1,
            ends,
            conn: 2,
            checksums_right: true,
        };
        let judged = |w, seen: &Seen| judge(Program::Sluicegate, w, &traffic, seen);
        assert_eq!(judged(Workload::Firewall, &seen), Ok(()));
        assert_eq!(judged(Workload::Snat, &seen), Err("source not translated"));
        seen.ends = Ends { src: Ipv4Addr::new(198, 51, 100, 8), ..ends };
        assert_eq!(judged(Workload::Snat, &seen), Ok(()));
        assert_eq!(judged(Workload::Firewall, &seen), Err("source changed"));
        assert_eq!(judged(Workload::Snat, &Seen { ttl: TTL, ..seen }), Err("TTL"));
        let wrong = Seen { checksums_right: false, ..seen };
        assert_eq!(judged(Workload::Snat, &wrong), Err("a checksum is wrong"));
    }
}
