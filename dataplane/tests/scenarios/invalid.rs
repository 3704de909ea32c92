//! INVALID packets: their reasons counted, the numbers kept, the sentences told; and what passes
//! without being believed.

use dataplane::conntrack::invalid::{InvalidReason, Numbers};
use dataplane::conntrack::state::Direction;
use dataplane::pipeline::invalid::{Finding, TRAIL_LEN};
use dataplane::pipeline::messages::{FromLcore, ToLcore};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};

use super::rig::*;
use super::tracking::{connect, tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";
const SERVER6: &str = "[2001:db8:ffff::7]:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";

fn found(rig: &mut Rig) -> Vec<Finding> {
    rig.ask(ToLcore::Find(9, Box::new(Vec::with_capacity(TRAIL_LEN))));
    let at = rig.told.iter().position(|m| matches!(m, FromLcore::Found(9, _)));
    match rig.told.remove(at.expect("the findings come back")) {
        FromLcore::Found(_, findings) => *findings,
        _ => unreachable!(),
    }
}

/// Every reason that was counted, as often as it was.
fn counted(rig: &Rig) -> Vec<(InvalidReason, u64)> {
    let all = InvalidReason::ALL.iter().map(|r| (*r, rig.counters.invalid[*r as usize].get()));
    all.filter(|(_, count)| *count > 0).collect()
}

/// The sentences told so far.
fn said(rig: &Rig) -> Vec<String> {
    let line = |message: &FromLcore| match message {
        FromLcore::Log(line) => {
            line.said.map(|said| said.to_string().trim_start_matches("nf_ct_proto_").to_owned())
        }
        _ => None,
    };
    rig.told.iter().filter_map(line).collect()
}

#[test]
fn each_reason_is_counted_and_kept_with_its_numbers() {
    use InvalidReason as R;
    let mut rig = Setup::default().start();
    rig.strict = false;
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN | FIN, 1, 0));
    rig.pass(LAN, udp(CLIENT, SERVER).l4_check(1));
    rig.pass(LAN, tcp(CLIENT, SERVER, RST, 7, 0));
    rig.pass(LAN, Packet::icmp(ip("192.168.1.2"), ip("198.51.100.7"), 14, 0, 0));
    let wrong = udp(CLIENT, SERVER).to_vec();
    rig.pass(
        LAN,
        Packet::icmp(ip("192.168.1.2"), ip("198.51.100.7"), 11, 0, 0).payload(&wrong[14..]),
    );
    let found = found(&mut rig);
    let reasons: Vec<R> = found.iter().map(|f| f.reason).collect();
    let all = [R::TcpFlags, R::UdpChecksum, R::TcpNew, R::IcmpNew, R::IcmpUnrelated];
    assert_eq!(reasons, all);
    assert_eq!(found[0].numbers, Numbers::Flags(SYN | FIN));
    let right = udp(CLIENT, SERVER).to_vec();
    let right = u16::from_be_bytes([right[40], right[41]]);
    assert_eq!(found[1].numbers, Numbers::Checksum { found: 1, right });
    assert!(matches!(found[2].numbers, Numbers::Window(n) if n.seq == 7));
    assert_eq!(found[3].numbers, Numbers::Icmp { kind: 14, code: 0 });
    assert!(found.iter().all(|f| f.in_port == Some(LAN) && f.unix_ns == rig.now.unix_ns));
    assert_eq!((found[0].tuple.src_id, found[0].tuple.dst_id), (4000, 80));
    let mut counted = counted(&rig);
    counted.sort_by_key(|(reason, _)| all.iter().position(|r| r == reason));
    assert_eq!(counted, all.map(|reason| (reason, 1)));
    let conntrack = &rig.counters.conntrack;
    assert_eq!((conntrack.invalid.get(), conntrack.error.get()), (4, 1));
}

#[test]
fn right_checksums_are_known_for_every_protocol() {
    let mut rig = Setup::default().start();
    rig.strict = false;
    let echo = Packet::icmp(ip("192.168.1.2"), ip("198.51.100.7"), 8, 0, 3);
    let echo6 = Packet::icmp(ip("2001:db8:1::2"), ip("2001:db8:ffff::7"), 128, 0, 3);
    let packets = [
        (tcp(CLIENT, SERVER, SYN, 1, 0).payload(b"odd"), 34 + 16),
        (udp(CLIENT, SERVER), 34 + 6),
        (echo.payload(b"abc"), 34 + 2),
        (tcp(CLIENT6, SERVER6, SYN, 1, 0), 54 + 16),
        (echo6, 54 + 2),
    ];
    for (packet, place) in packets {
        let bytes = packet.to_vec();
        let right = u16::from_be_bytes([bytes[place], bytes[place + 1]]);
        rig.pass(LAN, packet.l4_check(0x1234));
        let last = found(&mut rig).last().copied().expect("a finding");
        assert_eq!(last.numbers, Numbers::Checksum { found: 0x1234, right }, "{:?}", last.reason);
    }
}

#[test]
fn a_segment_beyond_the_window_is_explained_wherever_it_is_judged() {
    let mut rig = Setup::default().knob("log_invalid", 6).start();
    connect(&mut rig, CLIENT, SERVER);
    // Without a path it is judged in the hooks, with one before them.
    rig.publish();
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 90_000_000, 501));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    let fast = rig.fast();
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    assert_eq!(rig.fast(), fast + 1);
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 90_000_000, 501));
    rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 501, 4711));
    let all = found(&mut rig);
    let Numbers::Window(n) = all[1].numbers else { panic!("{:?}", all[1]) };
    assert_eq!(all[0].numbers, all[1].numbers);
    assert_eq!((n.direction, n.seq, n.sender_end), (Direction::Original, 90_000_000, 101));
    assert_eq!((n.ack, n.receiver_end), (501, 501));
    let bound = n.sender_maxend + 1;
    let seq = format!("6: SEQ is over upper bound {bound} (over the window of the receiver)");
    let ack = "6: ACK is over upper bound 102 (ACKed data not seen yet)".to_owned();
    assert_eq!(said(&rig), [seq.clone(), seq, ack]);
    let reasons = [(InvalidReason::TcpSeqOver, 2), (InvalidReason::TcpAckOver, 1)];
    assert_eq!(counted(&rig), reasons);
}

#[test]
fn what_passes_unbelieved_is_told_but_neither_invalid_nor_counted_for_its_conn() {
    let mut rig = Setup::default().knob("acct", 1).knob("log_invalid", 255).start();
    connect(&mut rig, CLIENT, SERVER);
    for _ in 0..3 {
        rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
        rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 501, 101));
    }
    let before = rig.conn();
    // Long ago, on the short way; and a SYN, which walks.
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101u32.wrapping_sub(2_000_000), 501));
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 70_000, 0));
    assert_eq!(said(&rig).len(), 2, "{:?}", said(&rig));
    assert!(said(&rig)[0].starts_with("6: SEQ is under lower bound "), "{:?}", said(&rig));
    assert_eq!(said(&rig)[1], "6: packet (index 0) in dir 0 ignored, state ESTABLISHED");
    assert_eq!(rig.conn().counters, before.counters);
    assert_eq!((counted(&rig), found(&mut rig).len()), (Vec::new(), 0));
    // Where nobody is to be told, it stays on the short way.
    rig.setup = std::mem::take(&mut rig.setup).knob("log_invalid", 0);
    rig.publish();
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    let fast = rig.fast();
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101u32.wrapping_sub(2_000_000), 501));
    assert_eq!((rig.fast(), said(&rig).len()), (fast + 1, 2));
}

#[test]
fn an_ignored_answer_is_an_answer() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 77, 88));
    let conn = rig.conn();
    assert!(conn.status.has(dataplane::conntrack::state::Status::SEEN_REPLY));
    assert_eq!(conn.state, Some("SYN_SENT"));
}

#[test]
fn a_repeated_syn_does_not_count_and_the_reset_that_ends_a_conn_does() {
    let mut rig = Setup::default().knob("acct", 1).start();
    rig.listen();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    let [original, _] = rig.conn().counters.expect("counted");
    assert_eq!(original.packets, 1);
    rig.pass(WAN, tcp(SERVER, CLIENT, RST | ACK, 0, 101));
    let gone = rig.told.iter().find_map(|m| match m {
        FromLcore::Event(e) if e.kind == dataplane::conntrack::view::EventKind::Destroy => {
            e.conn.counters
        }
        _ => None,
    });
    assert_eq!(gone.map(|[_, reply]| reply.packets), Some(1));
}

#[test]
fn the_last_ones_are_kept() {
    let mut rig = Setup::default().start();
    for seq in 0..TRAIL_LEN as u32 + 9 {
        rig.pass(LAN, tcp(CLIENT, SERVER, RST, seq, 0));
    }
    let found = found(&mut rig);
    let seq = |f: &Finding| match f.numbers {
        Numbers::Window(n) => n.seq,
        _ => u32::MAX,
    };
    let kept: Vec<u32> = (9..TRAIL_LEN as u32 + 9).collect();
    assert_eq!(found.iter().map(seq).collect::<Vec<_>>(), kept);
}

#[test]
fn an_error_to_the_wrong_end_names_both_ends() {
    let mut rig = Setup::default().knob("log_invalid", 1).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let quote = udp(CLIENT, SERVER).to_vec();
    let error = Packet::icmp(ip("198.51.100.9"), ip("192.168.1.3"), 3, 1, 0);
    rig.pass(WAN, error.payload(&quote[14..]));
    assert_eq!(said(&rig), ["1: outer daddr 192.168.1.3 != inner 192.168.1.2"]);
    assert_eq!(counted(&rig), [(InvalidReason::IcmpOuterDestination, 1)]);
}
