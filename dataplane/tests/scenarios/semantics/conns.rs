//! Tuples, first packets, confirm, limits, status.

use dataplane::conntrack::state::Status;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::FromLcore;
use dataplane::rules::hook::Table::{Filter, Nat, Raw};
use dataplane::rules::targets::Target;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::super::rig::*;
use super::super::rules::*;
use super::{CLIENT, CLIENT6, SERVER, SERVER6, connect, counting, seen, segment, udp};

#[test]
fn s01_a_tuple_is_addresses_ids_and_protocol() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    for other in [
        udp("192.168.1.3:4000", SERVER),
        udp("192.168.1.2:4001", SERVER),
        udp(CLIENT, "198.51.100.8:80"),
        udp(CLIENT, "198.51.100.7:81"),
        segment(CLIENT, SERVER, SYN, 1, 0),
        udp(CLIENT6, SERVER6),
    ] {
        let before = rig.list().len();
        rig.pass(LAN, other);
        assert_eq!(rig.list().len(), before + 1);
        rig.pass(LAN, other);
        assert_eq!(rig.list().len(), before + 1);
    }
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(rig.list().len(), 7, "an answer is no conn of its own");
}

#[test]
fn s02_ports_swap_and_icmp_types_have_partners() {
    let mut rig = Setup::default().start();
    let (client, server) = (at(CLIENT).ip(), at(SERVER).ip());
    for (query, answer) in [(8, 0), (13, 14), (15, 16), (17, 18)] {
        rig.pass(LAN, Packet::icmp(client, server, query, 0, 5 << 16));
        rig.pass(WAN, Packet::icmp(server, client, answer, 0, 5 << 16));
        let conn = rig.list().pop().unwrap();
        assert_eq!(conn.reply.dst_id >> 8, answer as u16);
        assert!(conn.status.has(Status::SEEN_REPLY));
    }
    let (client, server) = (at(CLIENT6).ip(), at(SERVER6).ip());
    for (query, answer) in [(128, 129), (139, 140)] {
        rig.pass(LAN, Packet::icmp(client, server, query, 0, 5 << 16));
        rig.pass(WAN, Packet::icmp(server, client, answer, 0, 5 << 16));
        assert!(rig.list().pop().unwrap().status.has(Status::SEEN_REPLY));
    }
    assert_eq!(rig.list().len(), 6);
    // Router renumbering has no partner.
    rig.pass(LAN, Packet::icmp(client, server, 138, 0, 0));
    assert_eq!((rig.list().len(), rig.counters.conntrack.invalid.get()), (6, 1));
}

#[test]
fn s03_places_in_the_index_follow_from_a_secret() {
    let rig = Setup::default().start();
    let tuple = |port| dataplane::conntrack::tuple::Tuple {
        src: address("192.168.1.2"),
        dst: address("198.51.100.7"),
        src_id: port,
        dst_id: 80,
        proto: 17,
    };
    let other = dataplane::conntrack::tuple::HashSeed([1, 2, 3, 4, 5]);
    let same = (0..1000).filter(|port| {
        let hash = rig.shared.hash(&tuple(*port), 0);
        hash % 1024 == tuple(*port).hash(0, &other) % 1024
    });
    assert!(same.count() < 20, "another secret, other places");
    assert_ne!(rig.shared.hash(&tuple(1), 0), rig.shared.hash(&tuple(1), 1), "zones count");
}

#[test]
fn s05_new_until_an_answer_was_accepted() {
    let mut rig = counting(Setup::default());
    for _ in 0..3 {
        rig.pass(LAN, udp(CLIENT, SERVER));
    }
    assert_eq!(seen(&mut rig, V4), [3, 0, 0, 0, 0]);
    rig.pass(WAN, udp(SERVER, CLIENT));
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(seen(&mut rig, V4), [3, 2, 0, 0, 0]);
}

#[test]
fn s06_a_refused_answer_leaves_the_conn_unreplied() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, segment(CLIENT, SERVER, SYN, 100, 0));
    // An answer to a SYN that was never sent.
    rig.pass(WAN, segment(SERVER, CLIENT, SYN | ACK, 500, 90_000));
    assert!(!rig.conn().status.has(Status::SEEN_REPLY));
    rig.pass(WAN, segment(SERVER, CLIENT, SYN | ACK, 500, 101));
    assert!(rig.conn().status.has(Status::SEEN_REPLY));
}

#[test]
fn s07_invalid_is_counted_and_goes_on_unless_a_rule_drops_it() {
    let mut rig = counting(Setup::default());
    let alone = segment(CLIENT, SERVER, SYN | ACK, 1, 1);
    rig.pass(LAN, alone);
    assert_eq!(seen(&mut rig, V4), [0, 0, 0, 1, 0]);
    assert!(rig.list().is_empty());
    let error = Packet::icmp(ip("198.51.100.1"), ip("192.168.1.2"), 3, 1, 0);
    let quoted = udp(CLIENT, SERVER).to_vec();
    rig.pass(WAN, error.payload(&quoted[14..]));
    let counters = &rig.counters.conntrack;
    assert_eq!((counters.invalid.get(), counters.error.get()), (1, 1));
    let dropping = drop().state(dataplane::rules::matches::StateMask::INVALID);
    let mut rig = Setup::default().both(Filter, "FORWARD", dropping).start();
    rig.dropped(LAN, alone, DropReason::FilterDrop);
}

#[test]
fn s08_untracked_packets_have_no_conn_and_are_not_translated() {
    let setup = Setup::default().both(Raw, "PREROUTING", on(Target::Notrack));
    let mut rig = counting(setup.both(Nat, "POSTROUTING", masquerade()));
    let sent = rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(sent.flow(), format!("{CLIENT} > {SERVER}"));
    assert_eq!(seen(&mut rig, V4), [0, 0, 0, 0, 1]);
    assert!(rig.list().is_empty());
}

#[test]
fn s09_an_expired_conn_is_gone_for_whoever_meets_it() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.wait(30);
    assert_eq!(rig.shared.capacity.count(), 1, "not removed yet");
    assert!(rig.list().is_empty(), "but not shown");
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(rig.conn().original.src, address("198.51.100.7"), "and not found");
}

#[test]
fn s12_no_port_number_gives_a_helper() {
    let mut rig = Setup::default().start();
    for port in [21, 69, 5060, 1723] {
        rig.pass(LAN, udp(CLIENT, &format!("198.51.100.7:{port}")));
        rig.pass(LAN, segment(CLIENT, &format!("198.51.100.7:{port}"), SYN, 1, 0));
    }
    let conns = rig.list();
    assert!(conns.len() == 8 && conns.iter().all(|conn| conn.helper.is_none()));
}

#[test]
fn s13_the_tracker_has_the_first_word() {
    let mut rig = counting(Setup::default());
    rig.strict = false;
    let (client, server) = (at(CLIENT).ip(), at(SERVER).ip());
    let (client6, server6) = (at(CLIENT6).ip(), at(SERVER6).ip());
    rig.pass(LAN, segment(CLIENT, SERVER, ACK | SYN, 1, 1));
    rig.pass(LAN, udp(CLIENT, SERVER).l4_check(7));
    rig.pass(LAN, udp(CLIENT, SERVER).l4_len(300));
    rig.pass(LAN, Packet::icmp(client, server, 0, 0, 0));
    assert_eq!(seen(&mut rig, V4), [0, 0, 0, 4, 0]);
    rig.pass(LAN, udp(CLIENT, SERVER).l4_check(0));
    rig.pass(LAN, Packet::icmp(client, server, 13, 0, 0));
    assert_eq!(seen(&mut rig, V4), [2, 0, 0, 4, 0]);
    rig.pass(LAN, Packet::icmp(client6, server6, 129, 0, 0));
    rig.pass(LAN, Packet::icmp(client6, server6, 139, 0, 0));
    assert_eq!(seen(&mut rig, V6), [1, 0, 0, 1, 0]);
}

#[test]
fn s14_what_does_not_leave_leaves_nothing() {
    let mut rig = Setup::default().drops(Filter, "FORWARD").start();
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::FilterDrop);
    assert_eq!(rig.shared.capacity.count(), 0);
    let mut rig = Setup::default().both(Filter, "FORWARD", reject(3)).start();
    rig.answered(LAN, udp(CLIENT, SERVER), DropReason::Rejected);
    assert_eq!(rig.shared.capacity.count(), 0);
    // To the gateway counts as leaving: the closed port answers, the conn is there.
    let mut rig = Setup::default().start();
    rig.send(LAN, udp(CLIENT, "192.168.1.1:9"));
    assert_eq!(rig.list().len(), 1);
}

#[test]
fn s16_the_deadline_counts_from_confirm_and_both_tuples_are_in() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let conn = rig.conn();
    assert_eq!(conn.remaining_secs, 30);
    for tuple in [conn.original, conn.reply] {
        let found = rig.shared.find(rig.shared.hash(&tuple, 0), &tuple, 0, rig.now.tick);
        assert!(found.is_some_and(|f| !f.expired), "{tuple:?}");
    }
}

#[test]
fn s17_insert_is_for_tools_and_found_for_taken_tuples() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let counters = &rig.counters.conntrack;
    assert_eq!((counters.insert.get(), counters.found.get()), (0, 0));
    rig.pass(LAN, udp("192.168.1.3:4000", SERVER));
    let counters = &rig.counters.conntrack;
    assert_eq!(counters.insert.get(), 0);
    assert!(counters.found.get() > 0, "the port was taken");
}

#[test]
fn s19_early_drop_makes_room_and_spares_the_assured() {
    let mut rig = Setup { max: 64, ..Setup::default() }.start();
    connect(&mut rig, CLIENT, SERVER);
    for port in 0..200 {
        rig.pass(LAN, udp(&format!("192.168.1.3:{}", 5000 + port), SERVER));
        assert!(rig.shared.capacity.count() <= 64);
    }
    assert!(rig.counters.conntrack.early_drop.get() >= 137);
    assert!(rig.list().iter().any(|conn| conn.status.has(Status::ASSURED)));
}

#[test]
fn s20_a_table_that_nothing_may_leave_refuses_and_says_so() {
    let mut rig = Setup { max: 4, ..Setup::default() }.start();
    for port in 0..4 {
        connect(&mut rig, &format!("192.168.1.2:{}", 5000 + port), SERVER);
    }
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::TableFull);
    assert!(matches!(rig.told.pop(), Some(FromLcore::TableFull)));
    assert_eq!(rig.counters.conntrack.drop.get(), 1);
}

#[test]
fn s24_unreplied_is_the_absence_of_seen_reply() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let status = rig.conn().status;
    assert!(status.has(Status::CONFIRMED) && status.has(Status::SRC_NAT));
    assert!(!status.has(Status::SEEN_REPLY) && !status.has(Status::DST_NAT));
    rig.pass(WAN, udp(SERVER, "203.0.113.1:4000"));
    assert_eq!(rig.conn().status, status.with(Status::SEEN_REPLY));
}
