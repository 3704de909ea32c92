//! That a program did the work, frame by frame: the capture is replayed once, what leaves the
//! outside port is read back and held against the conns that were offered: every conn comes out, as
//! one tuple of its own. A program that starts to forward before it knows its tables gets the
//! capture without end, and each conn must come out the same each time. So does every program where
//! replies are offered too, and what leaves the inside port is held against the clients.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use crate::frame::{Seen, TTL, read};
use crate::process::{Failure, wait_until};
use crate::program::{Plan, Program, Sink, Workload, back};
use crate::traffic::{LAN_MAC, LAN_NEXT_HOP_MAC, Traffic, WAN_MAC, WAN_NEXT_HOP_MAC, read_capture};

const PATIENCE: Duration = Duration::from_secs(15);

/// Runs `program` over the frames of `traffic` and checks every frame it sent. `plan` must have a
/// capture as its sink.
pub(crate) fn prove(program: Program, plan: &Plan<'_>, traffic: &Traffic) -> Result<(), Failure> {
    let Sink::Capture { file, endless } = &plan.sink else { return Ok(()) };
    let sent = [file.clone(), back(file)];
    sent.iter().for_each(|file| drop(fs::remove_file(file)));
    let ways = if plan.workload.both_ways() { 2 } else { 1 };
    // Without end, the first frames are lost and every conn comes again.
    let expected = traffic.len() as u64 * if *endless { 3 * ways as u64 } else { 1 };
    let mut running = program.start(plan)?;
    let log = running.log().to_path_buf();
    let (work, kind) = (plan.workload, traffic.kind());
    let name = format!("{program} ({work}, {kind}, {} conns)", traffic.len());
    let what = format!("{name} did not send {expected} frames");
    wait_until(PATIENCE, what, &log, || Ok(running.counters()?.tx >= expected))?;
    drop(running);
    let failed = |reason: String| Failure::Work { program: name.clone(), reason };
    for (file, leg) in sent.iter().zip([Leg::Outwards, Leg::Back]).take(ways) {
        let frames = read_capture(file).map_err(Failure::io(file.display()))?;
        let _ = fs::remove_file(file);
        if !endless && frames.len() != traffic.len() {
            return Err(failed(format!("{} frames came out", frames.len())));
        }
        judge_all(program, work, traffic, leg, &frames).map_err(failed)?;
    }
    Ok(())
}

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    /// From a client, out of the outside port.
    Outwards,
    /// From a server, out of the inside port.
    Back,
}

/// Every frame is right, and every conn is there, as one tuple of its own.
fn judge_all(
    program: Program,
    workload: Workload,
    traffic: &Traffic,
    leg: Leg,
    frames: &[Vec<u8>],
) -> Result<(), String> {
    let (mut conns, mut ends) = (HashSet::new(), HashSet::new());
    for bytes in frames {
        let seen = read(traffic.kind(), bytes).ok_or_else(|| format!("sent {bytes:02x?}"))?;
        let judged = judge(program, workload, traffic, leg, &seen);
        judged.map_err(|reason| format!("{reason}: {leg:?} {seen:?}"))?;
        conns.insert(seen.conn);
        ends.insert(seen.ends);
    }
    if conns.len() != traffic.len() || ends.len() != traffic.len() {
        let (conns, tuples) = (conns.len(), ends.len());
        return Err(format!("{conns} conns and {tuples} tuples came out {leg:?}"));
    }
    Ok(())
}

/// Whether one sent frame is what its conn's frame should have become.
fn judge(
    program: Program,
    workload: Workload,
    traffic: &Traffic,
    leg: Leg,
    seen: &Seen,
) -> Result<(), &'static str> {
    let offered = traffic.conn(seen.conn).ok_or("no such conn")?;
    if !seen.checksums_right {
        return Err("a checksum is wrong");
    }
    let (arrived, routed) = match leg {
        Leg::Outwards => ((LAN_MAC, LAN_NEXT_HOP_MAC), (WAN_NEXT_HOP_MAC, WAN_MAC)),
        Leg::Back => ((WAN_MAC, WAN_NEXT_HOP_MAC), (LAN_NEXT_HOP_MAC, LAN_MAC)),
    };
    let (macs, ttl) = match program {
        Program::Testpmd | Program::Swap => ((arrived.1, arrived.0), TTL),
        Program::Ovs => (arrived, TTL),
        Program::Sluicegate | Program::Vpp => (routed, TTL - 1),
    };
    if (seen.dst_mac, seen.src_mac) != macs {
        return Err("MAC addresses");
    }
    if seen.ttl != ttl {
        return Err("TTL");
    }
    let pool = workload.pool();
    if program.floor() {
        // As it came: a reply to the address that the servers see.
        let mut as_offered = match leg {
            Leg::Outwards => offered,
            Leg::Back => offered.reversed(),
        };
        if let (Leg::Back, Some((address, _))) = (leg, pool) {
            as_offered.dst = address;
        }
        let expected = if program == Program::Swap { as_offered.reversed() } else { as_offered };
        return if seen.ends == expected { Ok(()) } else { Err("addresses or ports") };
    }
    if leg == Leg::Back {
        return if seen.ends == offered.reversed() { Ok(()) } else { Err("not the client's") };
    }
    if (seen.ends.dst, seen.ends.dst_port) != (offered.dst, offered.dst_port) {
        return Err("destination changed");
    }
    let source = (seen.ends.src, seen.ends.src_port);
    match pool {
        Some((first, last)) => match source.0 {
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
    use crate::frame::Ends;
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
        let judged = |w, seen: &Seen| judge(Program::Sluicegate, w, &traffic, Leg::Outwards, seen);
        assert_eq!(judged(Workload::Firewall, &seen), Ok(()));
        assert_eq!(judged(Workload::Snat, &seen), Err("source not translated"));
        seen.ends = Ends { src: Ipv4Addr::new(198, 51, 100, 8), ..ends };
        assert_eq!(judged(Workload::Snat, &seen), Ok(()));
        assert_eq!(judged(Workload::Firewall, &seen), Err("source changed"));
        assert_eq!(judged(Workload::Snat, &Seen { ttl: TTL, ..seen }), Err("TTL"));
        let judged_swap =
            |seen: &Seen| judge(Program::Swap, Workload::Snat, &traffic, Leg::Outwards, seen);
        let floor = Seen { dst_mac: LAN_NEXT_HOP_MAC, src_mac: LAN_MAC, ttl: TTL, ..seen };
        assert!(judged_swap(&Seen { ends, ..floor }).is_err());
        assert_eq!(judged_swap(&Seen { ends: ends.reversed(), ..floor }), Ok(()));
        let back = Seen { dst_mac: LAN_NEXT_HOP_MAC, src_mac: LAN_MAC, ..seen };
        let judged_back =
            |w, ends| judge(Program::Sluicegate, w, &traffic, Leg::Back, &Seen { ends, ..back });
        assert_eq!(judged_back(Workload::SnatBoth, ends.reversed()), Ok(()));
        let untouched = Ends { dst: Ipv4Addr::new(198, 51, 100, 1), ..ends.reversed() };
        assert_eq!(judged_back(Workload::SnatBoth, untouched), Err("not the client's"));
        let wrong = Seen { checksums_right: false, ..seen };
        assert_eq!(judged(Workload::Snat, &wrong), Err("a checksum is wrong"));
    }
}
