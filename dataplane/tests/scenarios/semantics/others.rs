//! UDP, protocols without a tracker, ICMP errors.

use dataplane::conntrack::invalid::InvalidReason;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::hook::Table::Nat;
use dataplane::wire::build::packet::Packet;

use super::super::protocols::{sctp, sctp_packet};
use super::super::rig::*;
use super::super::rules::*;
use super::{CLIENT, CLIENT6, SERVER, SERVER6, counting, seen, state, udp};

#[test]
fn s40_udp_lasts_half_a_minute_and_a_stream_two() {
    let mut rig = counting(Setup::default());
    rig.strict = false;
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.wait(5);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(state(&mut rig), ("", 30, false), "no answer, no stream");
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(state(&mut rig), ("", 30, false), "the first answer still counts as none");
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(state(&mut rig), ("", 120, true));
    rig.pass(LAN, udp(CLIENT, SERVER).l4_len(300));
    rig.pass(LAN, udp(CLIENT, SERVER).l4_check(1));
    assert_eq!(seen(&mut rig, V4)[3], 2);
}

#[test]
fn s41_gre_is_assured_by_the_packet_after_an_answer() {
    let mut rig = Setup::default().knob("gre_timeout_stream", 90).start();
    let packet = |a: &str, b: &str, head: &'static [u8]| {
        Packet::raw(at(a).ip(), at(b).ip(), 47).payload(head)
    };
    let plain = b"\x00\x00\x08\x00packet";
    rig.pass(LAN, packet(CLIENT, SERVER, plain));
    rig.pass(WAN, packet(SERVER, CLIENT, plain));
    assert_eq!(state(&mut rig), ("", 30, false));
    rig.setup = rig.setup_with(|setup| setup.knob("gre_timeout_stream", 120));
    rig.publish();
    rig.pass(LAN, packet(CLIENT, SERVER, plain));
    assert_eq!(state(&mut rig), ("", 90, true));
    assert_eq!(rig.conn().gre_timeouts_secs, Some([30, 90]));
    let call = b"\x30\x01\x88\x0b\x00\x04\x00\x07data";
    rig.pass(LAN, packet(CLIENT, SERVER, call));
    let ids: Vec<_> = rig.list().iter().map(|c| (c.original.src_id, c.original.dst_id)).collect();
    assert!(ids.contains(&(0, 0)) && ids.contains(&(0, 7)), "{ids:?}");
}

#[test]
fn s42_sctp_states_tags_and_crc() {
    let mut rig = counting(Setup::default());
    let mut go = |port, bytes: Vec<u8>, expected: (&str, u32, bool)| {
        rig.send_bytes(port, framed(port, &sctp_packet(port, &bytes)));
        assert_eq!(state(&mut rig), expected, "{bytes:?}");
    };
    go(LAN, sctp(0, &[(1, 7)]), ("CLOSED", 10, false));
    go(WAN, sctp(7, &[(2, 9)]), ("COOKIE_WAIT", 3, false));
    go(LAN, sctp(9, &[(10, 0)]), ("COOKIE_ECHOED", 3, false));
    go(WAN, sctp(7, &[(11, 0)]), ("ESTABLISHED", 210, true));
    go(LAN, sctp(8, &[(7, 0)]), ("ESTABLISHED", 210, true));
    let mut wrong = sctp(9, &[(7, 0)]);
    wrong[8] ^= 1;
    go(LAN, wrong, ("ESTABLISHED", 210, true));
    go(LAN, sctp(9, &[(7, 0)]), ("SHUTDOWN_SENT", 3, true));
    go(WAN, sctp(7, &[(8, 0)]), ("SHUTDOWN_ACK_SENT", 3, true));
    go(LAN, sctp(9, &[(14, 0)]), ("CLOSED", 10, true));
    assert_eq!(seen(&mut rig, V4)[3], 2);
    assert_eq!(rig.counters.invalid[InvalidReason::SctpTag as usize].get(), 1);
    assert_eq!(rig.counters.invalid[InvalidReason::SctpChecksum as usize].get(), 1);
}

#[test]
fn s43_other_protocols_are_tracked_by_address() {
    let mut rig = Setup::default().start();
    let packet = |a: &str, b: &str| Packet::raw(at(a).ip(), at(b).ip(), 50).payload(b"12345678");
    for _ in 0..3 {
        rig.pass(LAN, packet(CLIENT, SERVER));
        rig.pass(WAN, packet(SERVER, CLIENT));
        rig.wait(10);
    }
    assert_eq!(state(&mut rig), ("", 590, false));
}

/// An error from a router behind the WAN about a packet of the client, and one from elsewhere.
fn error<'a>(kind: u8, to: &str, quote: &'a [u8]) -> Packet<'a> {
    Packet::icmp(ip("198.51.100.1"), at(to).ip(), kind, 1, 0).payload(quote)
}

#[test]
fn s44_an_error_belongs_to_the_conn_it_quotes() {
    let mut rig = counting(Setup::default());
    let quote = rig.pass(LAN, udp(CLIENT, SERVER)).bytes[14..].to_vec();
    for (n, kind) in [3, 4, 11, 12].into_iter().enumerate() {
        rig.pass(WAN, error(kind, CLIENT, &quote));
        assert_eq!(seen(&mut rig, V4), [1, 0, n as u64 + 1, 0, 0]);
    }
    rig.pass(WAN, error(3, CLIENT, &quote[..20]));
    rig.pass(WAN, Packet::icmp(ip("198.51.100.1"), at(CLIENT).ip(), 19, 0, 0));
    assert_eq!(seen(&mut rig, V4), [1, 0, 4, 2, 0]);
    let counters = &rig.counters.conntrack;
    assert_eq!((counters.error.get(), counters.invalid.get()), (2, 0));
}

#[test]
fn s45_an_error_must_be_addressed_to_the_quoted_sender() {
    let mut rig = counting(Setup::default());
    let quote = rig.pass(LAN, udp(CLIENT, SERVER)).bytes[14..].to_vec();
    rig.pass(WAN, error(3, "192.168.1.3:1", &quote));
    assert_eq!(seen(&mut rig, V4), [1, 0, 0, 1, 0]);
    assert_eq!(rig.counters.conntrack.error.get(), 1);
}

#[test]
fn s46_an_error_is_related_and_changes_nothing() {
    let mut rig = counting(Setup::default());
    let quote = rig.pass(LAN, udp(CLIENT, SERVER)).bytes[14..].to_vec();
    rig.wait(10);
    let before = rig.conn();
    rig.pass(WAN, error(3, CLIENT, &quote));
    assert_eq!(rig.conn(), before);
    assert_eq!(seen(&mut rig, V4), [1, 0, 1, 0, 0]);
}

#[test]
fn s47_errors_are_translated_with_their_quotes_and_redirects_are_not() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    let quote = rig.pass(LAN, udp(CLIENT, SERVER)).bytes[14..].to_vec();
    let sent = rig.pass(WAN, error(3, "203.0.113.1:1", &quote));
    assert_eq!(sent.headers().dst, address("192.168.1.2"));
    assert_eq!(sent.quote(), format!("{CLIENT} > {SERVER}"));
    rig.dropped(WAN, error(5, "203.0.113.1:1", &quote), DropReason::BadIcmpError);
}

#[test]
fn s48_discovery_is_untracked_and_redirects_come_from_neighbours() {
    let mut rig = counting(Setup::default());
    let (client, server) = (at(CLIENT6).ip(), at(SERVER6).ip());
    for kind in [130, 131, 132, 133, 134, 135, 136, 143, 151, 152] {
        rig.send(LAN, Packet::icmp(client, server, kind, 0, 0).payload(&[0; 24]));
    }
    assert_eq!(seen(&mut rig, V6), [0, 0, 0, 0, 10]);
    rig.send(LAN, Packet::icmp(client, server, 137, 0, 0).payload(&[0; 40]));
    assert_eq!(seen(&mut rig, V6), [0, 0, 0, 1, 10], "not link-local");
}
