//! Conns from the first packet to the last: confirm, states, timeouts, the limit, accounting.

use dataplane::conntrack::state::Status;
use dataplane::conntrack::view::EventKind;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::FromLcore;
use dataplane::rules::hook::Table::{Filter, Mangle, Raw};
use dataplane::rules::matches::StateMask;
use dataplane::rules::targets::Target;
use dataplane::rules::template::Ct;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::checksum;
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};

use super::rig::*;
use super::rules::*;

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:80";

pub(crate) fn tcp<'a>(src: &str, dst: &str, flags: u8, seq: u32, ack: u32) -> Packet<'a> {
    Packet::tcp(at(src), at(dst)).flags(flags).seq(seq).ack(ack)
}

pub(crate) fn udp<'a>(src: &str, dst: &str) -> Packet<'a> {
    Packet::udp(at(src), at(dst)).payload(b"hello")
}

/// The handshake from the LAN.
pub(crate) fn connect(rig: &mut Rig, client: &str, server: &str) {
    rig.pass(LAN, tcp(client, server, SYN, 100, 0));
    rig.pass(WAN, tcp(server, client, SYN | ACK, 500, 101));
    rig.pass(LAN, tcp(client, server, ACK, 101, 501));
}

#[test]
fn a_conn_enters_the_table_when_its_first_packet_leaves() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let conn = rig.conn();
    assert_eq!((conn.remaining_secs, conn.status.has(Status::SEEN_REPLY)), (30, false));
    rig.pass(LAN, tcp(CLIENT6, SERVER6, SYN, 1, 0));
    assert_eq!(rig.list().len(), 2);
}

#[test]
fn what_is_dropped_before_the_end_leaves_no_conn() {
    type Case = (fn() -> Setup, DropReason, usize);
    let cases: [Case; 5] = [
        (|| Setup::default().drops(Filter, "FORWARD"), DropReason::FilterDrop, 0),
        (|| Setup::default().both(Mangle, "POSTROUTING", drop()), DropReason::MangleDrop, 0),
        (|| Setup::default().both(Mangle, "PREROUTING", drop()), DropReason::MangleDrop, 0),
        (|| Setup::default().both(Raw, "PREROUTING", drop()), DropReason::RawDrop, 0),
        (|| Setup::default().both(Filter, "FORWARD", reject(3)), DropReason::Rejected, 1),
    ];
    for (setup, reason, answers) in cases {
        let mut rig = setup().start();
        for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
            for _ in 0..2 {
                let frame = framed(LAN, &tcp(client, server, SYN, 1, 0));
                assert_eq!(rig.send_counting(LAN, frame, reason).len(), answers, "{reason:?}");
            }
        }
        assert_eq!(rig.shared.capacity.count(), 0, "{reason:?}");
        assert!(rig.list().is_empty(), "{reason:?}");
    }
    let mut rig = Setup::default().drops(Filter, "INPUT").start();
    rig.dropped(LAN, udp(CLIENT, "192.168.1.1:53"), DropReason::FilterDrop);
    assert_eq!(rig.shared.capacity.count(), 0);
}

#[test]
fn a_reset_by_reject_ends_the_attempt() {
    let mut rig = Setup::default().both(Filter, "FORWARD", reset()).start();
    let sent = rig.answered(LAN, tcp(CLIENT, SERVER, SYN, 7, 0), DropReason::Rejected);
    assert_eq!(sent.flow(), format!("{SERVER} > {CLIENT}"));
    assert_eq!(sent.headers().tcp_flags, RST | ACK);
    let sent = rig.answered(LAN, tcp(CLIENT6, SERVER6, SYN, 7, 0), DropReason::Rejected);
    assert_eq!(sent.flow(), format!("{SERVER6} > {CLIENT6}"));
    // A reset is not answered with a reset.
    rig.dropped(LAN, tcp(CLIENT, SERVER, RST, 7, 0), DropReason::Rejected);
}

#[test]
fn reject_answers_unknown_protocols_whose_bytes_sum_up() {
    let mut rig = Setup::default().both(Filter, "FORWARD", reject(3)).start();
    let hosts = |v6| if v6 { (CLIENT6, SERVER6) } else { (CLIENT, SERVER) };
    let of = |v6, proto, bytes| {
        let (src, dst) = hosts(v6);
        Packet::raw(at(src).ip(), at(dst).ip(), proto).payload(bytes)
    };
    // No pseudo header over IPv4, one over IPv6, which has no empty packets either.
    for (v6, bytes, answered) in [
        (false, &b"bytes"[..], false),
        (false, &[0x12, 0x34, 0xed, 0xcb], true),
        (false, &[0; 6], true),
        (false, &[], true),
        (true, &b"bytes"[..], false),
        (true, &[0x12, 0x34, 0xed, 0xcb], false),
        (true, &[], false),
    ] {
        let sent = rig.send_counting(LAN, framed(LAN, &of(v6, 253, bytes)), DropReason::Rejected);
        assert_eq!(sent.len(), usize::from(answered), "{v6} {bytes:?}");
    }
    let (src, dst) = hosts(true);
    let pseudo = checksum::pseudo(at(src).ip().into(), at(dst).ip().into(), 253, 2);
    let right = checksum::finish(pseudo).to_be_bytes();
    rig.answered(LAN, of(true, 253, &right), DropReason::Rejected);
    // Those that have none, or one of another kind.
    for proto in [33, 47, 50, 51, 132, 136] {
        rig.answered(LAN, of(false, proto, b"sixteen bytes more"), DropReason::Rejected);
    }
    rig.answered(LAN, of(true, 50, b"bytes"), DropReason::Rejected);
}

#[test]
fn messages_of_the_other_family_are_invalid_and_zeros_are_a_right_checksum() {
    let mut rig = Setup::default().start();
    let raw = |src, dst, proto| Packet::raw(at(src).ip(), at(dst).ip(), proto);
    let request = &[8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    // Right as it would be over IPv6.
    let sum = checksum::pseudo(at(CLIENT).ip().into(), at(SERVER).ip().into(), 58, 8) + 0x8000;
    let [high, low] = checksum::finish(sum).to_be_bytes();
    rig.pass(LAN, raw(CLIENT, SERVER, 58).payload(&[128, 0, high, low, 0, 0, 0, 0]));
    rig.pass(LAN, raw(CLIENT6, SERVER6, 1).payload(request));
    assert!(rig.list().is_empty());
    rig.pass(LAN, raw(CLIENT, SERVER, 1).payload(request));
    rig.strict = false;
    rig.pass(WAN, raw(SERVER, CLIENT, 1).payload(&[0; 8]));
    assert!(rig.conn().status.has(Status::SEEN_REPLY));
}

#[test]
fn a_reset_by_reject_closes_a_live_conn() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    rig.pass(WAN, tcp(SERVER, CLIENT, SYN | ACK, 500, 101));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    assert_eq!(rig.conn().state, Some("ESTABLISHED"));
    rig.setup = std::mem::take(&mut rig.setup).both(Filter, "FORWARD", reset());
    rig.publish();
    rig.answered(LAN, tcp(CLIENT, SERVER, ACK, 101, 501), DropReason::Rejected);
    let conn = rig.conn();
    assert_eq!((conn.state, conn.remaining_secs), (Some("CLOSE"), 10));
    // An error of another kind leaves the conn alone.
    rig.wait(11);
    rig.setup = Setup::default();
    rig.publish();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    rig.setup = Setup::default().both(Filter, "FORWARD", reject(3));
    rig.publish();
    rig.answered(WAN, tcp(SERVER, CLIENT, SYN | ACK, 500, 101), DropReason::Rejected);
    assert_eq!(rig.conn().state, Some("SYN_RECV"));
}

/// A gateway that counts what PREROUTING sees in each state.
fn counting_states() -> Setup {
    let mut setup = Setup::default();
    for state in STATES {
        setup = setup.both(Mangle, "PREROUTING", count().state(state));
        setup = setup.both(Mangle, "OUTPUT", count().state(state));
    }
    setup
}

const STATES: [StateMask; 5] = [
    StateMask::NEW,
    StateMask::ESTABLISHED,
    StateMask::RELATED,
    StateMask::INVALID,
    StateMask::UNTRACKED,
];

/// Packets seen in each of the states in a mangle chain.
fn seen(rig: &mut Rig, family: dataplane::rules::hook::Family, chain: &str) -> [u64; 5] {
    core::array::from_fn(|n| rig.count(family, Mangle, chain, Some(n)).0)
}

#[test]
fn rules_see_the_states_of_a_tcp_conn() {
    let mut rig = counting_states().start();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [2, 0, 0, 0, 0]);
    rig.pass(WAN, tcp(SERVER, CLIENT, SYN | ACK, 500, 101));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [2, 2, 0, 0, 0]);
    // Beyond the window, no flags, from nowhere.
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 90_000_000, 501));
    rig.pass(LAN, tcp(CLIENT, SERVER, 0, 101, 501));
    rig.pass(LAN, tcp(CLIENT, "198.51.100.8:80", SYN | ACK, 101, 501));
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [2, 2, 0, 3, 0]);
    assert_eq!(rig.counters.conntrack.invalid.get(), 3);
    assert_eq!(rig.list().len(), 1);
}

#[test]
fn rules_see_the_states_of_udp_and_ping() {
    let mut rig = counting_states().start();
    for family in [V4, V6] {
        let (client, server) = if family == V4 { (CLIENT, SERVER) } else { (CLIENT6, SERVER6) };
        let request = if family == V4 { 8 } else { 128 };
        let (c, s) = (at(client).ip(), at(server).ip());
        rig.pass(LAN, udp(client, server));
        rig.pass(LAN, udp(client, server));
        rig.pass(LAN, udp(client, server));
        assert_eq!(seen(&mut rig, family, "PREROUTING"), [3, 0, 0, 0, 0]);
        rig.pass(WAN, udp(server, client));
        rig.pass(LAN, udp(client, server));
        rig.pass(LAN, udp(client, server));
        assert_eq!(seen(&mut rig, family, "PREROUTING"), [3, 3, 0, 0, 0]);
        // Ping and its answer; an answer that nobody asked for.
        let reply = if family == V4 { 0 } else { 129 };
        rig.pass(LAN, Packet::icmp(c, s, request, 0, 9 << 16 | 1));
        rig.pass(WAN, Packet::icmp(s, c, reply, 0, 9 << 16 | 1));
        rig.pass(WAN, Packet::icmp(s, c, reply, 0, 77 << 16 | 1));
        assert_eq!(seen(&mut rig, family, "PREROUTING"), [4, 4, 0, 1, 0]);
    }
}

#[test]
fn an_error_about_a_conn_is_related_and_one_about_nothing_is_invalid() {
    let mut rig = counting_states().start();
    for family in [V4, V6] {
        let (client, server) = if family == V4 { (CLIENT, SERVER) } else { (CLIENT6, SERVER6) };
        let (router, kind) =
            if family == V4 { (ip("198.51.100.1"), 3) } else { (ip("2001:db8:fffe::1"), 1) };
        let first = rig.pass(LAN, udp(client, server));
        let quote = &first.bytes[14..];
        let error = Packet::icmp(router, at(client).ip(), kind, 0, 0);
        let deadline = rig.list().pop().unwrap().remaining_secs;
        rig.wait(5);
        rig.pass(WAN, error.payload(quote));
        assert_eq!(seen(&mut rig, family, "PREROUTING"), [1, 0, 1, 0, 0]);
        // It refreshed nothing.
        assert_eq!(rig.list().pop().unwrap().remaining_secs, deadline - 5);
        // Too short a quote, a quote of nothing known, an outer destination that does not fit.
        rig.pass(WAN, error.payload(&quote[..if family == V4 { 20 } else { 40 }]));
        let strange = udp(client, server).ttl(9).to_vec();
        let mut strange = strange[14..].to_vec();
        let port = if family == V4 { 20 } else { 40 };
        strange[port] ^= 0x40;
        rig.pass(WAN, error.payload(&strange));
        let elsewhere = if family == V4 { "192.168.1.3" } else { "2001:db8:1::3" };
        rig.pass(WAN, Packet::icmp(router, ip(elsewhere), kind, 0, 0).payload(quote));
        assert_eq!(seen(&mut rig, family, "PREROUTING"), [1, 0, 1, 3, 0]);
    }
    assert_eq!(rig.counters.conntrack.error.get(), 6);
    assert_eq!(rig.counters.conntrack.invalid.get(), 0);
}

#[test]
fn our_own_errors_are_related_to_what_they_are_about() {
    // icmp_send attaches the packet's conn to the error (nf_ct_attach), confirmed or not.
    let mut rig = counting_states().start();
    for (family, client, server) in [(V4, CLIENT, SERVER), (V6, CLIENT6, SERVER6)] {
        rig.answered(LAN, udp(client, server).ttl(1), DropReason::TtlExceeded);
        rig.answered(LAN, udp(client, server).ttl(1), DropReason::TtlExceeded);
        assert_eq!(seen(&mut rig, family, "OUTPUT"), [0, 0, 2, 0, 0]);
    }
    assert_eq!(rig.counters.conntrack.error.get(), 0);
    assert_eq!(rig.shared.capacity.count(), 0);
    // Nor does the answer to an INVALID packet find a conn where there is none.
    rig.answered(LAN, tcp(CLIENT, SERVER, SYN | FIN, 1, 1).ttl(1), DropReason::TtlExceeded);
    assert_eq!(seen(&mut rig, V4, "OUTPUT"), [0, 0, 2, 1, 0]);
}

#[test]
fn notrack_leaves_packets_alone() {
    let notrack = on(Target::Ct(Ct { notrack: true, ..Ct::default() })).proto(17);
    let mut rig = counting_states().both(Raw, "PREROUTING", notrack).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, udp(CLIENT6, SERVER6));
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [0, 0, 0, 0, 2]);
    assert_eq!(seen(&mut rig, V6, "PREROUTING"), [0, 0, 0, 0, 1]);
    assert!(rig.list().is_empty());
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 1, 0));
    assert_eq!(rig.list().len(), 1);
}

#[test]
fn a_packet_meets_the_end_of_its_conn() {
    let mut rig = Setup::default().start();
    rig.listen();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let first = rig.conn();
    rig.wait_ticks(2999);
    assert_eq!(rig.conn().remaining_secs, 0);
    rig.wait_ticks(1);
    assert!(rig.list().is_empty(), "expired conns are not shown");
    assert_eq!(rig.shared.capacity.count(), 1);
    // An answer now comes too late: it begins a conn of its own.
    rig.pass(WAN, udp(SERVER, CLIENT));
    let second = rig.conn();
    assert_eq!(second.original.src, address("198.51.100.7"));
    assert_ne!(first.key, second.key);
    assert_eq!(events(&mut rig), [EventKind::New, EventKind::Destroy, EventKind::New]);
}

fn events(rig: &mut Rig) -> Vec<EventKind> {
    let told = std::mem::take(&mut rig.told);
    let kinds = told.iter().map(|m| match m {
        FromLcore::Event(e) => e.kind,
        other => panic!("{other:?}"),
    });
    kinds.collect()
}

#[test]
fn what_a_dropped_packet_did_is_told_with_the_next_that_gets_through() {
    use EventKind::{New, Update};
    let mut rig = Setup::default().both(Filter, "FORWARD", on(Target::Drop).in_port("wan")).start();
    rig.listen();
    rig.pass(LAN, udp(CLIENT, SERVER));
    // The first walks, the others know the way.
    (0..3).for_each(|_| rig.dropped(WAN, udp(SERVER, CLIENT), DropReason::FilterDrop));
    assert!(rig.fast() > 0);
    assert_eq!(events(&mut rig), [New]);
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(events(&mut rig), [Update], "once");
    // Nobody listens, nothing is kept.
    rig.pass(LAN, udp(CLIENT6, SERVER6));
    rig.listeners.store(false, std::sync::atomic::Ordering::Relaxed);
    rig.dropped(WAN, udp(SERVER6, CLIENT6), DropReason::FilterDrop);
    rig.listen();
    rig.pass(LAN, udp(CLIENT6, SERVER6));
    assert_eq!(events(&mut rig), [New]);
}

#[test]
fn the_sweep_ends_what_no_packet_meets() {
    let mut rig = Setup::default().start();
    for n in 0..50 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 4000 + n), SERVER));
    }
    rig.pass(LAN, tcp(CLIENT6, SERVER6, SYN, 1, 0));
    rig.live(28);
    assert_eq!(rig.shared.capacity.count(), 51);
    // One is refreshed in time.
    rig.pass(LAN, udp("192.168.1.2:4007", SERVER));
    rig.live(4);
    assert_eq!(rig.shared.capacity.count(), 2);
    rig.live(30);
    assert_eq!(rig.shared.capacity.count(), 1);
    rig.live(62);
    assert_eq!(rig.shared.capacity.count(), 0);
}

#[test]
fn udp_becomes_a_stream_after_two_seconds_of_answers() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(rig.conn().remaining_secs, 30);
    assert!(!rig.conn().status.has(Status::ASSURED));
    rig.wait(3);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.conn().remaining_secs, 120);
    assert!(rig.conn().status.has(Status::ASSURED));
}

#[test]
fn a_tcp_conn_lives_and_dies_as_the_kernel_has_it() {
    let mut rig = Setup::default().start();
    let state = |rig: &mut Rig| {
        let conn = rig.conn();
        (conn.state.unwrap(), conn.remaining_secs, conn.status.has(Status::ASSURED))
    };
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    assert_eq!(state(&mut rig), ("SYN_SENT", 120, false));
    rig.pass(WAN, tcp(SERVER, CLIENT, SYN | ACK, 500, 101));
    assert_eq!(state(&mut rig), ("SYN_RECV", 60, false));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    assert_eq!(state(&mut rig), ("ESTABLISHED", 432_000, true));
    rig.pass(LAN, tcp(CLIENT, SERVER, FIN | ACK, 101, 501));
    assert_eq!(state(&mut rig), ("FIN_WAIT", 120, true));
    rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 501, 102));
    assert_eq!(state(&mut rig), ("CLOSE_WAIT", 60, true));
    rig.pass(WAN, tcp(SERVER, CLIENT, FIN | ACK, 501, 102));
    assert_eq!(state(&mut rig), ("LAST_ACK", 30, true));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 102, 502));
    assert_eq!(state(&mut rig), ("TIME_WAIT", 120, true));
    // A new SYN takes the place of the old conn.
    let old = rig.conn().key;
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 9000, 0));
    assert_eq!(state(&mut rig), ("SYN_SENT", 120, false));
    assert_ne!(rig.conn().key, old);
    // A reset of an unanswered attempt ends it.
    rig.pass(LAN, tcp(CLIENT, SERVER, RST, 9001, 0));
    assert!(rig.list().is_empty());
}

#[test]
fn a_reset_closes() {
    let mut rig = Setup::default().start();
    connect(&mut rig, CLIENT6, SERVER6);
    rig.pass(WAN, tcp(SERVER6, CLIENT6, RST | ACK, 501, 101));
    let conn = rig.conn();
    assert_eq!((conn.state, conn.remaining_secs), (Some("CLOSE"), 10));
}

#[test]
fn the_limit_is_exact_and_spares_the_assured() {
    let mut rig = Setup { max: 64, ..Setup::default() }.start();
    for n in 0..4 {
        connect(&mut rig, &format!("192.168.1.2:{}", 5000 + n), SERVER);
    }
    for n in 0..60 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 6000 + n), SERVER));
        assert_eq!(rig.shared.capacity.count(), 5 + n);
    }
    assert_eq!(rig.counters.conntrack.early_drop.get(), 0);
    // One more makes room for itself among those that may go.
    rig.pass(LAN, udp("192.168.1.2:7000", SERVER));
    let dropped = rig.counters.conntrack.early_drop.get() as u32;
    assert!(dropped >= 1);
    assert_eq!(rig.shared.capacity.count(), 65 - dropped);
    let assured = rig.list().iter().filter(|c| c.status.has(Status::ASSURED)).count();
    assert_eq!(assured, 4);
}

#[test]
fn a_table_full_of_assured_conns_refuses_and_says_so() {
    let mut rig = Setup { max: 8, ..Setup::default() }.start();
    for n in 0..8 {
        connect(&mut rig, &format!("192.168.1.2:{}", 5000 + n), SERVER);
    }
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::TableFull);
    assert!(matches!(rig.told.pop(), Some(FromLcore::TableFull)));
    assert_eq!((rig.shared.capacity.count(), rig.counters.conntrack.drop.get()), (8, 1));
    // The known ones go on.
    rig.pass(LAN, tcp("192.168.1.2:5003", SERVER, ACK, 101, 501));
    // Room comes with time.
    rig.wait(432_000);
    rig.pass(LAN, udp("192.168.1.2:5003", SERVER));
}

#[test]
fn no_memory_for_a_record_is_a_reason_of_its_own() {
    let mut rig = Setup { records: false, ..Setup::default() }.start();
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::NoRecord);
    rig.dropped(LAN, udp(CLIENT6, SERVER6), DropReason::NoRecord);
    assert_eq!(rig.counters.conntrack.drop.get(), 2);
    assert_eq!(rig.shared.capacity.count(), 0);
}

#[test]
fn a_changed_timeout_moves_no_live_timer() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.setup.knobs.set("udp_timeout", 7).unwrap();
    rig.publish();
    rig.wait(10);
    assert_eq!(rig.conn().remaining_secs, 20);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.conn().remaining_secs, 7);
    rig.live(9);
    assert_eq!(rig.shared.capacity.count(), 0, "the sweep follows a deadline that came closer");
}

#[test]
fn packets_and_bytes_are_counted_both_ways_once_asked_for() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.conn().counters, None);
    rig.setup.knobs.set("acct", 1).unwrap();
    rig.setup.knobs.set("timestamp", 1).unwrap();
    rig.publish();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.conn().counters, None, "begins with the conns made from then on");
    for _ in 0..5 {
        rig.pass(LAN, udp(CLIENT6, SERVER6));
    }
    for _ in 0..4 {
        rig.pass(WAN, udp(SERVER6, CLIENT6).payload(&[0; 100]));
    }
    let conn = rig.list().into_iter().find(|c| c.original.is_v6()).unwrap();
    let [original, reply] = conn.counters.unwrap();
    assert_eq!((original.packets, original.bytes), (5, 5 * 53));
    assert_eq!((reply.packets, reply.bytes), (4, 4 * 148));
    assert!(conn.start_unix_ns.is_some());
    assert!(rig.fast() > 0);
}

#[test]
fn wrong_checksums_are_invalid_only_where_asked_for() {
    let mut rig = counting_states().start();
    let bad = udp(CLIENT, SERVER).l4_check(1);
    rig.strict = false;
    rig.pass(LAN, bad);
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [0, 0, 0, 1, 0]);
    // Also for a conn that is known and has a cached path.
    for _ in 0..3 {
        rig.pass(LAN, udp(CLIENT, SERVER));
    }
    rig.pass(LAN, bad);
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [3, 0, 0, 2, 0]);
    rig.setup.knobs.set("checksum", 0).unwrap();
    rig.publish();
    rig.pass(LAN, bad);
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [1, 0, 0, 0, 0], "a new snapshot counts anew");
    // No checksum is no wrong checksum.
    rig.setup.knobs.set("checksum", 1).unwrap();
    rig.publish();
    rig.pass(LAN, udp(CLIENT, SERVER).l4_check(0));
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [1, 0, 0, 0, 0]);
}

#[test]
fn protocols_without_a_tracker_are_tracked_by_address() {
    let mut rig = counting_states().start();
    let esp = |a: &str, b: &str| Packet::raw(ip(a), ip(b), 50).payload(b"12345678");
    rig.pass(LAN, esp("192.168.1.2", "198.51.100.7"));
    rig.pass(WAN, esp("198.51.100.7", "192.168.1.2"));
    rig.pass(LAN, esp("192.168.1.2", "198.51.100.7"));
    assert_eq!(seen(&mut rig, V4, "PREROUTING"), [1, 2, 0, 0, 0]);
    let conn = rig.conn();
    assert_eq!((conn.remaining_secs, conn.status.has(Status::ASSURED)), (600, false));
}
