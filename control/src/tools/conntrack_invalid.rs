//! `conntrack --invalid`: the last INVALID packets of every worker, with the numbers that decided.
//!
//! conntrack(8) has no such command. A line is made of `key=value` words; which follow the reason
//! depends on it, see docs/invalid-reasons.md.

use dataplane::conntrack::invalid::Numbers;
use dataplane::conntrack::state::Direction;
use dataplane::conntrack::tcp::{Class, WindowNumbers, flags};
use dataplane::pipeline::invalid::Finding;

use super::conntrack_format::{proto_name, put, put_tuple};
use super::{Answer, Gateway};

/// One INVALID packet, and where it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// DPDK's number of the lcore.
    pub lcore: u32,
    /// The port where it came in; empty for a packet of the gateway's own.
    pub port: String,
    /// The packet.
    pub finding: Finding,
}

/// Answers `conntrack --invalid`: oldest first, over all workers.
pub fn run(gateway: &mut dyn Gateway) -> Answer {
    let mut seen = match gateway.invalid() {
        Ok(seen) => seen,
        Err(silent) => return super::conntrack::failed(silent),
    };
    seen.sort_by_key(|seen| seen.finding.unix_ns);
    let mut out = String::new();
    for seen in &seen {
        put_line(&mut out, seen);
    }
    let shown = format!("{} invalid packets have been shown.", seen.len());
    Answer { out, ..super::conntrack::footer(&shown) }
}

fn put_line(out: &mut String, seen: &Seen) {
    let Finding { unix_ns, tuple, reason, numbers, .. } = &seen.finding;
    let (secs, micros) = (unix_ns / 1_000_000_000, unix_ns / 1000 % 1_000_000);
    put(out, format_args!("[{secs}.{micros:06}]\tlcore={} IN={} ", seen.lcore, seen.port));
    put(out, format_args!("{:<8} {} ", proto_name(tuple.proto), tuple.proto));
    put_tuple(out, tuple);
    put(out, format_args!("reason={}", reason.name()));
    match *numbers {
        Numbers::None => {}
        Numbers::Lengths { needed, found } => {
            put(out, format_args!(" needed={needed} found={found}"));
        }
        Numbers::Checksum { found, right } => {
            put(out, format_args!(" found={found:#06x} right={right:#06x}"));
        }
        // The tuple has type and code already.
        Numbers::Icmp { .. } => {}
        Numbers::Outer { outer, inner } => put(out, format_args!(" outer={outer} inner={inner}")),
        Numbers::Tag { found, right, .. } => {
            put(out, format_args!(" tag={found:#010x} right={right:#010x}"));
        }
        Numbers::Chunk { number, kind, length, .. } => {
            put(out, format_args!(" chunk={number} type={kind} length={length}"));
        }
        Numbers::Step { state, kind, .. } => put(out, format_args!(" state={state} type={kind}")),
        Numbers::Flags(byte) => put(out, format_args!(" flags={}", Flags(byte))),
        Numbers::Window(n) => put_window(out, &n),
    }
    out.push('\n');
}

fn put_window(out: &mut String, n: &WindowNumbers) {
    let side = match n.direction {
        Direction::Original => "original",
        Direction::Reply => "reply",
    };
    let class = match n.class {
        Class::Syn => "syn",
        Class::SynAck => "syn-ack",
        Class::Fin => "fin",
        Class::Ack => "ack",
        Class::Rst => "rst",
        Class::None => "none",
    };
    put(out, format_args!(" dir={side} state={} class={class}", n.state));
    let WindowNumbers { seq, end, ack, sack, window, .. } = *n;
    put(out, format_args!(" seq={seq} end={end} ack={ack} sack={sack} win={window}"));
    let (end, maxend, maxwin) = (n.sender_end, n.sender_maxend, n.sender_maxwin);
    put(out, format_args!(" sender_end={end} sender_maxend={maxend} sender_maxwin={maxwin}"));
    let (end, maxwin) = (n.receiver_end, n.receiver_maxwin);
    put(out, format_args!(" receiver_end={end} receiver_maxwin={maxwin}"));
}

/// A flags byte by the names of its bits.
struct Flags(u8);

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
        let names = [
            (FIN, "fin"),
            (SYN, "syn"),
            (RST, "rst"),
            (PSH, "psh"),
            (ACK, "ack"),
            (URG, "urg"),
            (ECE, "ece"),
            (CWR, "cwr"),
        ];
        let set: Vec<&str> =
            names.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        f.write_str(if set.is_empty() { "none" } else { "" })?;
        f.write_str(&set.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::stand_in::StandIn;
    use super::super::{Silent, run as tool};
    use super::*;
    use crate::tools::conntrack::Outcome;
    use dataplane::conntrack::invalid::InvalidReason;
    use dataplane::conntrack::tcp::TcpState;
    use dataplane::conntrack::tuple::{Tuple, proto};
    use dataplane::rules::facts::PortId;
    use dataplane::wire::address::Address;

    fn seen(lcore: u32, micros: u64, reason: InvalidReason, numbers: Numbers) -> Seen {
        let tuple = Tuple {
            src: Address::v4(0x0a01_000b),
            dst: Address::v4(0xcb00_7133),
            src_id: 4000,
            dst_id: 80,
            proto: proto::TCP,
        };
        let unix_ns = 1_700_000_000_000_000_000 + micros * 1000;
        let in_port = Some(PortId(0));
        let finding = Finding { unix_ns, in_port, tuple, reason, numbers };
        Seen { lcore, port: "lan".to_owned(), finding }
    }

    fn answer(gateway: &mut StandIn) -> Answer {
        let argv = ["conntrack", "--invalid"].map(str::to_owned);
        match tool(&argv, "", gateway) {
            Some(Outcome::Done(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    const WINDOW: WindowNumbers = WindowNumbers {
        direction: Direction::Reply,
        class: Class::Ack,
        state: TcpState::Established,
        window: 512,
        seq: 9000,
        end: 9100,
        ack: 1001,
        sack: 1002,
        sender_end: 5001,
        sender_maxend: 8000,
        sender_maxwin: 64,
        receiver_end: 1003,
        receiver_maxwin: 65,
    };

    #[test]
    fn lines_are_merged_by_time_and_say_what_decided() {
        let mut gateway = StandIn::with([]);
        gateway.invalid = vec![
            seen(1, 5, InvalidReason::TcpFlags, Numbers::Flags(0x29)),
            seen(1, 7, InvalidReason::TcpSeqOver, Numbers::Window(WINDOW)),
            seen(2, 6, InvalidReason::TcpTruncated, Numbers::Lengths { needed: 40, found: 20 }),
        ];
        let answer = answer(&mut gateway);
        let packet = "IN=lan tcp      6 src=10.1.0.11 dst=203.0.113.51 sport=4000 dport=80";
        assert_eq!(
            answer.out,
            format!(
                "[1700000000.000005]\tlcore=1 {packet} reason=tcp-flags flags=fin,psh,urg\n\
                 [1700000000.000006]\tlcore=2 {packet} reason=tcp-truncated needed=40 found=20\n\
                 [1700000000.000007]\tlcore=1 {packet} reason=tcp-seq-over dir=reply \
                 state=ESTABLISHED class=ack seq=9000 end=9100 ack=1001 sack=1002 win=512 \
                 sender_end=5001 sender_maxend=8000 sender_maxwin=64 receiver_end=1003 \
                 receiver_maxwin=65\n"
            )
        );
        assert!(answer.err.ends_with(": 3 invalid packets have been shown.\n"));
        assert_eq!(answer.exit, 0);
    }

    #[test]
    fn other_numbers() {
        let mut gateway = StandIn::with([]);
        let (outer, inner) = (Address::v4(0x0a01_0001), Address::v4(0x0a01_0002));
        let (found, right) = (0x12, 0xfffe);
        gateway.invalid = vec![
            seen(1, 1, InvalidReason::IcmpOuterDestination, Numbers::Outer { outer, inner }),
            seen(1, 2, InvalidReason::UdpChecksum, Numbers::Checksum { found, right }),
            seen(1, 3, InvalidReason::IcmpNew, Numbers::Icmp { kind: 14, code: 0 }),
            seen(1, 4, InvalidReason::TcpFlags, Numbers::Flags(0)),
        ];
        let out = answer(&mut gateway).out;
        let ends: Vec<&str> = out.lines().map(|l| l.split_once("reason=").unwrap().1).collect();
        let outer = "icmp-outer-destination outer=10.1.0.1 inner=10.1.0.2";
        let wanted = [outer, "udp-checksum found=0x0012 right=0xfffe", "icmp-new"];
        assert_eq!(ends[..3], wanted);
        assert_eq!(ends[3], "tcp-flags flags=none");
    }

    #[test]
    fn a_worker_that_does_not_answer_fails_the_command() {
        let mut gateway = StandIn::with([]);
        gateway.silent = Some(Silent { lcore: 2, cpu: 1 });
        let answer = answer(&mut gateway);
        assert_eq!((answer.exit, answer.out.as_str()), (1, ""));
        assert!(answer.err.contains("worker lcore 2 (CPU 1) does not answer"), "{}", answer.err);
    }
}
