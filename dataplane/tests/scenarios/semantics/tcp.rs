//! TCP, numbers 25 to 39, each by the shortest exchange of real packets.

use dataplane::conntrack::state::Status;
use dataplane::wire::tcp::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};

use super::super::rig::*;
use super::super::rules::*;
use super::{CLIENT, SERVER, connect, counting, seen, segment, state};

const DAYS: u32 = 432_000;

/// A gateway behind which a handshake is done: the client is at 101, the server at 501.
fn open(setup: Setup) -> Rig {
    let mut rig = counting(setup);
    connect(&mut rig, CLIENT, SERVER);
    rig
}

fn there(rig: &mut Rig, flags: u8, seq: u32, ack: u32) {
    rig.pass(LAN, segment(CLIENT, SERVER, flags, seq, ack));
}

fn back(rig: &mut Rig, flags: u8, seq: u32, ack: u32) {
    rig.pass(WAN, segment(SERVER, CLIENT, flags, seq, ack));
}

fn invalid(rig: &mut Rig) -> u64 {
    seen(rig, V4)[3]
}

#[test]
fn s25_the_third_packet_of_a_handshake_makes_assured() {
    let mut rig = Setup::default().start();
    there(&mut rig, SYN, 100, 0);
    back(&mut rig, SYN | ACK, 500, 101);
    assert_eq!(state(&mut rig), ("SYN_RECV", 60, false));
    there(&mut rig, ACK, 101, 501);
    assert_eq!(state(&mut rig), ("ESTABLISHED", DAYS, true));
    // A conn that was picked up: the packet after the first answered one.
    let mut rig = Setup::default().start();
    there(&mut rig, ACK, 101, 501);
    back(&mut rig, ACK, 501, 101);
    assert!(!state(&mut rig).2);
    there(&mut rig, ACK, 101, 501);
    assert!(state(&mut rig).2);
}

#[test]
fn s26_rst_counts_before_syn_before_fin_before_ack() {
    let mut rig = open(Setup::default());
    there(&mut rig, RST | ACK, 101, 501);
    assert_eq!(state(&mut rig).0, "CLOSE", "an RST with ACK is an RST");
    let mut rig = open(Setup::default());
    there(&mut rig, FIN | ACK, 101, 501);
    assert_eq!(state(&mut rig).0, "FIN_WAIT", "a FIN with ACK is a FIN");
    let mut rig = open(Setup::default());
    there(&mut rig, ACK | PSH | URG, 101, 501);
    assert_eq!(state(&mut rig).0, "ESTABLISHED");
}

#[test]
fn s27_impossible_flags_and_wrong_checksums_are_invalid() {
    let good = [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK];
    let good: Vec<u8> = good.into_iter().chain([ACK | URG]).collect();
    for flags in 0..=255u8 {
        let mut rig = Setup::default().start();
        there(&mut rig, SYN, 100, 0);
        back(&mut rig, flags, 500, 101);
        let plain = flags & !(PSH | ECE | CWR);
        if !good.contains(&plain) {
            assert_eq!(rig.counters.conntrack.invalid.get(), 1, "{flags:#x}");
            assert!(!rig.conn().status.has(Status::SEEN_REPLY));
        }
    }
    let mut rig = counting(Setup::default());
    rig.strict = false;
    rig.pass(LAN, segment(CLIENT, SERVER, SYN, 100, 0).l4_check(1));
    assert_eq!(invalid(&mut rig), 1);
    let mut rig = counting(Setup::default().knob("checksum", 0));
    rig.strict = false;
    rig.pass(LAN, segment(CLIENT, SERVER, SYN, 100, 0).l4_check(1));
    assert_eq!((invalid(&mut rig), rig.list().len()), (0, 1));
}

#[test]
fn s28_syn_or_loosely_ack_begins_a_conn() {
    for flags in [SYN | ACK, FIN | ACK, RST, RST | ACK, 0] {
        let mut rig = Setup::default().start();
        there(&mut rig, flags, 1, 1);
        assert!(rig.list().is_empty(), "{flags:#x}");
    }
    let mut rig = Setup::default().start();
    there(&mut rig, ACK, 1, 1);
    // Without an answer it lives as long as unacknowledged bytes may (38).
    assert_eq!(state(&mut rig), ("ESTABLISHED", 300, false));
    back(&mut rig, ACK, 90_000_000, 90_000_000);
    assert!(rig.conn().status.has(Status::SEEN_REPLY), "no window is checked");
    let mut rig = Setup::default().knob("tcp_loose", 0).start();
    there(&mut rig, ACK, 1, 1);
    assert!(rig.list().is_empty());
}

#[test]
fn s29_the_original_direction_leads_through_the_states() {
    let mut rig = open(Setup::default());
    there(&mut rig, SYN | ACK, 101, 501);
    assert_eq!((invalid(&mut rig), state(&mut rig).0), (1, "ESTABLISHED"));
    there(&mut rig, SYN, 9000, 0);
    assert_eq!((invalid(&mut rig), state(&mut rig)), (1, ("ESTABLISHED", DAYS, true)));
    there(&mut rig, FIN | ACK, 101, 501);
    assert_eq!(state(&mut rig).0, "FIN_WAIT");
    back(&mut rig, FIN | ACK, 501, 102);
    assert_eq!(state(&mut rig).0, "LAST_ACK");
    there(&mut rig, ACK, 102, 502);
    assert_eq!(state(&mut rig), ("TIME_WAIT", 120, true));
}

#[test]
fn s30_the_reply_direction_leads_through_the_states() {
    let mut rig = counting(Setup::default());
    there(&mut rig, SYN, 100, 0);
    back(&mut rig, ACK, 500, 101);
    assert_eq!((invalid(&mut rig), state(&mut rig).0), (0, "SYN_SENT"));
    back(&mut rig, SYN, 500, 0);
    assert_eq!(state(&mut rig), ("SYN_SENT2", 120, false));
    let mut rig = open(Setup::default());
    back(&mut rig, SYN, 700, 0);
    assert_eq!((invalid(&mut rig), state(&mut rig).0), (1, "ESTABLISHED"));
    back(&mut rig, FIN | ACK, 501, 101);
    assert_eq!(state(&mut rig).0, "FIN_WAIT");
    there(&mut rig, ACK, 101, 502);
    assert_eq!(state(&mut rig).0, "CLOSE_WAIT");
}

#[test]
fn s31_an_answer_to_an_ignored_syn_starts_over() {
    let mut rig = open(Setup::default());
    rig.wait(100);
    there(&mut rig, SYN, 7000, 0);
    assert_eq!(state(&mut rig), ("ESTABLISHED", DAYS - 100, true), "no change");
    back(&mut rig, SYN | ACK, 90_000, 7001);
    assert_eq!(state(&mut rig).0, "SYN_RECV");
    there(&mut rig, ACK, 7001, 90_001);
    assert_eq!(state(&mut rig), ("ESTABLISHED", DAYS, true));
    assert_eq!(invalid(&mut rig), 0);
}

#[test]
fn s32_a_challenge_does_not_end_a_conn() {
    let mut rig = open(Setup::default());
    there(&mut rig, FIN | ACK, 101, 501);
    back(&mut rig, FIN | ACK, 501, 102);
    assert_eq!(state(&mut rig).0, "LAST_ACK");
    there(&mut rig, SYN, 7000, 0);
    back(&mut rig, ACK, 502, 102);
    assert_eq!(state(&mut rig).0, "LAST_ACK");
    there(&mut rig, ACK, 102, 502);
    assert_eq!(state(&mut rig).0, "TIME_WAIT");
}

#[test]
fn s33_a_finished_conn_is_opened_anew() {
    let mut rig = open(Setup::default());
    there(&mut rig, FIN | ACK, 101, 501);
    back(&mut rig, FIN | ACK, 501, 102);
    there(&mut rig, ACK, 102, 502);
    let old = rig.conn();
    assert_eq!(old.state, Some("TIME_WAIT"));
    there(&mut rig, SYN, 9000, 0);
    assert_eq!(state(&mut rig), ("SYN_SENT", 120, false));
    assert_ne!(rig.conn().key, old.key);
    let mut rig = open(Setup::default());
    there(&mut rig, RST, 101, 0);
    assert_eq!(state(&mut rig), ("CLOSE", 10, true));
    there(&mut rig, SYN, 9000, 0);
    assert_eq!(state(&mut rig), ("SYN_SENT", 120, false));
}

#[test]
fn s34_above_the_window_is_invalid_and_below_changes_nothing() {
    let mut rig = open(Setup::default());
    // One window is 65 535 here.
    there(&mut rig, ACK, 101 + 200_000, 501);
    there(&mut rig, ACK, 101, 501 + 70_000);
    assert_eq!(invalid(&mut rig), 2);
    rig.wait(50);
    there(&mut rig, ACK, 101u32.wrapping_sub(100_000), 501);
    assert_eq!((invalid(&mut rig), state(&mut rig).1), (2, DAYS - 50), "accepted, no change");
    there(&mut rig, ACK, 101, 501);
    assert_eq!(state(&mut rig).1, DAYS);
    let mut rig = open(Setup::default().knob("tcp_be_liberal", 1));
    rig.wait(50);
    there(&mut rig, ACK, 101 + 200_000, 501);
    assert_eq!((invalid(&mut rig), state(&mut rig).1), (0, DAYS));
}

#[test]
fn s35_a_reset_must_be_where_its_sender_is() {
    let mut rig = open(Setup::default());
    back(&mut rig, ACK, 501, 101);
    there(&mut rig, ACK, 101, 501);
    back(&mut rig, RST, 400, 0);
    assert_eq!((invalid(&mut rig), state(&mut rig)), (1, ("ESTABLISHED", DAYS, true)));
    // Within the window but not exactly there: only the time is shortened.
    back(&mut rig, RST, 600, 0);
    assert_eq!(state(&mut rig), ("ESTABLISHED", 10, true));
    let mut rig = open(Setup::default().knob("tcp_ignore_invalid_rst", 1));
    back(&mut rig, ACK, 501, 101);
    there(&mut rig, ACK, 101, 501);
    back(&mut rig, RST, 400, 0);
    assert_eq!(invalid(&mut rig), 0);
}

#[test]
fn s36_impossible_ends_of_both_sides_shorten_the_time() {
    let mut rig = open(Setup::default());
    there(&mut rig, FIN | ACK, 101 + 500_000, 501);
    assert_eq!((invalid(&mut rig), state(&mut rig)), (1, ("ESTABLISHED", DAYS, true)));
    back(&mut rig, RST | ACK, 501 + 500_000, 101);
    assert_eq!((invalid(&mut rig), state(&mut rig)), (2, ("ESTABLISHED", 300, true)));
}

#[test]
fn s37_repeats_open_bytes_and_a_closed_window_shorten_the_time() {
    let mut rig = open(Setup::default());
    rig.pass(LAN, segment(CLIENT, SERVER, ACK, 101, 501).payload(b"bytes"));
    assert_eq!(state(&mut rig), ("ESTABLISHED", 300, true), "not acknowledged");
    back(&mut rig, ACK, 501, 106);
    assert_eq!(state(&mut rig).1, DAYS);
    for _ in 0..4 {
        back(&mut rig, ACK, 501, 106);
    }
    assert_eq!(state(&mut rig).1, 300, "tcp_max_retrans repeats");
    let mut rig = open(Setup::default());
    rig.pass(WAN, segment(SERVER, CLIENT, ACK, 501, 101).window(0));
    assert_eq!(state(&mut rig).1, 300, "no window");
}

#[test]
fn s38_an_unanswered_conn_is_ended_or_left_alone() {
    let mut rig = Setup::default().start();
    there(&mut rig, SYN, 100, 0);
    rig.wait(20);
    there(&mut rig, SYN, 100, 0);
    assert_eq!(state(&mut rig), ("SYN_SENT", 100, false));
    there(&mut rig, RST, 101, 0);
    assert!(rig.list().is_empty());
    there(&mut rig, ACK, 100, 1);
    assert_eq!(state(&mut rig), ("ESTABLISHED", 300, false));
}

#[test]
fn s39_simultaneous_open_lasts_two_minutes() {
    let mut rig = Setup::default().start();
    there(&mut rig, SYN, 100, 0);
    back(&mut rig, SYN, 500, 0);
    assert_eq!(state(&mut rig), ("SYN_SENT2", 120, false));
    there(&mut rig, SYN | ACK, 100, 501);
    assert_eq!(state(&mut rig).0, "SYN_RECV");
    back(&mut rig, ACK, 501, 101);
    assert_eq!(state(&mut rig).0, "ESTABLISHED");
}
