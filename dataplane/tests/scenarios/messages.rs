//! What the control core asks and is told.

use std::sync::Arc;

use dataplane::conntrack::invalid::{InvalidReason, Numbers, Remark};
use dataplane::conntrack::record::ConnId;
use dataplane::conntrack::view::{EventKind, EventView};
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{FromLcore, Sentence, ToLcore};
use dataplane::pipeline::service::id_of_key;
use dataplane::rules::hook::Table::{Filter, Mangle, Raw};
use dataplane::rules::matches::StateMask;
use dataplane::rules::targets::Target;
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};

use super::rig::*;
use super::rules::*;
use super::tracking::{connect, tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";

#[test]
fn lists_in_slices_of_any_size_are_complete() {
    let mut rig = Setup { max: 500, ..Setup::default() }.start();
    for n in 0..300 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 3000 + n), SERVER));
    }
    for n in 0..40 {
        rig.pass(LAN, udp(&format!("[2001:db8:1::2]:{}", 3000 + n), "[2001:db8:ffff::7]:80"));
    }
    let all = rig.list_by(4096);
    assert_eq!(all.len(), 340);
    for slice in [1, 7, 256] {
        assert_eq!(rig.list_by(slice), all, "slices of {slice}");
    }
}

#[test]
fn delete_asks_for_the_very_conn() {
    let mut rig = Setup::default().start();
    rig.listen();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let old = id_of_key(rig.conn().key);
    let deleted = |rig: &mut Rig, ids: Vec<ConnId>| {
        rig.ask(ToLcore::Delete(1, None, Box::new(ids)));
        let at = rig.told.iter().position(|m| matches!(m, FromLcore::Deleted(..))).unwrap();
        match rig.told.remove(at) {
            FromLcore::Deleted(1, ids) => *ids,
            _ => unreachable!(),
        }
    };
    assert_eq!(deleted(&mut rig, vec![old]), [old]);
    assert!(rig.list().is_empty());
    // The record lives again, as another conn.
    let mut new = old;
    for n in 0..10 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 3000 + n), SERVER));
        let found = rig.list().into_iter().map(|c| id_of_key(c.key)).find(|i| i.conn == old.conn);
        new = found.unwrap_or(new);
    }
    let before = rig.list().len();
    assert_eq!(deleted(&mut rig, vec![old]), []);
    assert_eq!(rig.list().len(), before);
    if new != old {
        assert_eq!(deleted(&mut rig, vec![old, new]), [new]);
    }
    let destroyed = rig
        .told
        .iter()
        .filter(|m| matches!(m, FromLcore::Event(e) if e.kind == EventKind::Destroy));
    assert_eq!(destroyed.count(), 1 + (new != old) as usize);
}

#[test]
fn expire_looks_again() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let id = id_of_key(rig.conn().key);
    rig.wait(29);
    rig.ask(ToLcore::Expire(Box::new(vec![id])));
    assert_eq!(rig.shared.capacity.count(), 1, "not yet");
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.wait(29);
    rig.ask(ToLcore::Expire(Box::new(vec![id])));
    assert_eq!(rig.conn().remaining_secs, 1, "refreshed since");
    rig.wait(1);
    let stale = ConnId { incarnation: id.incarnation.wrapping_add(1), ..id };
    rig.ask(ToLcore::Expire(Box::new(vec![stale])));
    assert_eq!(rig.shared.capacity.count(), 1);
    rig.ask(ToLcore::Expire(Box::new(vec![id])));
    assert_eq!(rig.shared.capacity.count(), 0);
}

#[test]
fn the_next_packet_obeys_a_new_policy_and_the_old_counters_are_final() {
    let mut rig = Setup::default().both(Filter, "FORWARD", count()).start();
    connect(&mut rig, CLIENT, SERVER);
    for n in 0..5 {
        rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501).payload(&[n]));
    }
    assert!(rig.fast() > 2);
    rig.setup = std::mem::take(&mut rig.setup).both(Filter, "FORWARD", drop());
    let old = rig.publish();
    // FORWARD's policy and its rule: 3 packets of the handshake (40 bytes) and 5 with a byte.
    assert_eq!(counts_of(&old, V4)[1..3], [(8, 325), (8, 325)]);
    for _ in 0..4 {
        rig.dropped(LAN, tcp(CLIENT, SERVER, ACK, 101, 501), DropReason::FilterDrop);
    }
    assert!(rig.fast() > 5, "a verdict DROP is cached as well");
    // Routers judge the TTL before FORWARD: a cached drop must not hide them from traceroute.
    let last = tcp(CLIENT, SERVER, ACK, 101, 501).ttl(1);
    assert_eq!(rig.answered(LAN, last, DropReason::TtlExceeded).icmp().0, 11);
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(1)), (4, 160));
    rig.setup.v4.table_mut(Filter).chain_mut("FORWARD").unwrap().rules.clear();
    rig.publish();
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 501, 101));
}

#[test]
fn a_new_snapshot_moves_routes_mtu_and_addresses_of_known_conns() {
    let mut rig = Setup::default().start();
    connect(&mut rig, CLIENT, SERVER);
    for _ in 0..3 {
        rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    }
    rig.setup.routes.push(route("198.51.100.0", 24, Some("203.0.113.253"), WAN));
    rig.publish();
    for _ in 0..3 {
        let sent = rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
        assert_eq!(sent.dst_mac(), GATEWAY2_MAC);
    }
    rig.setup.mtu = [1500, 100];
    rig.publish();
    let big = tcp(CLIENT, SERVER, ACK, 101, 501).payload(&[0; 200]);
    assert_eq!(rig.answered(LAN, big, DropReason::TooBig).icmp().2, 100);
    rig.setup.own.push((0, "198.51.100.7", 32));
    rig.publish();
    rig.send(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    assert_eq!(rig.counters.to_host.get(), 1);
}

#[test]
fn paths_of_an_older_policy_are_not_believed() {
    // Numbers of paths start anew with every policy; a conn's directions learn them one by one.
    let mut rig = Setup::default().start();
    connect(&mut rig, CLIENT, SERVER);
    for round in 0..4 {
        for _ in 0..3 {
            rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 501, 101));
        }
        if round % 2 == 0 {
            for _ in 0..3 {
                rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
            }
        }
        rig.setup = std::mem::take(&mut rig.setup)
            .rule(V4, Mangle, "FORWARD", count().in_port("lan"))
            .rule(V4, Mangle, "FORWARD", count().in_port("wan"));
        rig.publish();
    }
    for _ in 0..2 {
        rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
        rig.pass(WAN, tcp(SERVER, CLIENT, ACK, 501, 101));
    }
    for rule in 0..8 {
        assert_eq!(rig.count(V4, Mangle, "FORWARD", Some(rule)), (2, 80));
    }
}

#[test]
fn events_tell_the_story_of_a_conn() {
    let mut rig = Setup::default().start();
    rig.listen();
    connect(&mut rig, CLIENT, SERVER);
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    rig.pass(LAN, tcp(CLIENT, SERVER, FIN | ACK, 101, 501));
    rig.pass(WAN, tcp(SERVER, CLIENT, RST | ACK, 501, 102));
    rig.wait(11);
    rig.sweep();
    let story: Vec<_> = std::mem::take(&mut rig.told)
        .into_iter()
        .map(|m| match m {
            FromLcore::Event(e) => (e.kind, e.conn.state.unwrap()),
            other => panic!("{other:?}"),
        })
        .collect();
    use EventKind::{Destroy, New, Update};
    let expected = [
        (New, "SYN_SENT"),
        (Update, "SYN_RECV"),
        (Update, "ESTABLISHED"),
        (Update, "FIN_WAIT"),
        (Update, "CLOSE"),
        (Destroy, "CLOSE"),
    ];
    assert_eq!(story, expected);
}

#[test]
fn s75_a_conn_ends_when_its_time_is_up_and_not_when_that_is_noticed() {
    let mut rig = Setup::default().knob("timestamp", 1).start();
    rig.listen();
    let lived = |rig: &mut Rig| -> Vec<u64> {
        let told = std::mem::take(&mut rig.told).into_iter();
        let lived = told.filter_map(|message| match message {
            FromLcore::Event(EventView { kind: EventKind::Destroy, conn, .. }) => {
                Some(conn.stop_unix_ns.unwrap() - conn.start_unix_ns.unwrap())
            }
            _ => None,
        });
        lived.map(|ns| ns / 10_000_000).collect()
    };
    // Noticed by the sweep, and by a packet.
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.wait(45);
    assert_eq!(rig.sweep(), 1);
    assert_eq!(lived(&mut rig), [3000]);
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.wait(31);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(lived(&mut rig), [3000]);
    // Deleted before.
    let conn = id_of_key(rig.conn().key);
    rig.wait_ticks(250);
    rig.ask(ToLcore::Delete(1, None, Box::new(vec![conn])));
    assert_eq!(lived(&mut rig), [250]);
}

#[test]
fn what_finds_no_room_in_the_mailbox_is_counted_and_answers_are_kept() {
    let mut rig = Setup { max: 8192, ..Setup::default() }.start();
    rig.listen();
    // Nobody reads: the mailbox and then the outbox fill with events.
    let mut sent = 0u32;
    while rig.counters.lost_messages.get() == 0 {
        let packet = udp(&format!("192.168.1.2:{}", 1000 + sent), SERVER);
        rig.push(LAN, dataplane::lcore::memory::MemoryFrame::new(framed(LAN, &packet)));
        rig.worker.poll(rig.now);
        rig.worker.io().pop_sent();
        sent += 1;
        assert!(sent < 8000);
    }
    let room = rig.mailbox.capacity() as u32;
    assert_eq!(sent, room + 512 + 1);
    rig.mailbox.send(ToLcore::Fold).unwrap();
    rig.mailbox.send(ToLcore::Adopt(Arc::new(rig.setup.snapshot(9)))).unwrap();
    rig.worker.poll(rig.now);
    let mut events = 0;
    let mut answers = 0;
    for _ in 0..3 {
        while let Some(message) = rig.mailbox.receive() {
            match message {
                FromLcore::Event(_) => events += 1,
                FromLcore::Folded | FromLcore::Retired(_) => answers += 1,
                other => panic!("{other:?}"),
            }
        }
        rig.worker.poll(rig.now);
    }
    assert_eq!((events, answers), (room + 512, 2));
    assert_eq!(rig.counters.lost_messages.get(), 1);
}

#[test]
fn log_rules_tell_of_the_packet_as_it_is_there() {
    let mut rig = Setup::default().both(Mangle, "FORWARD", log("fwd: ")).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, udp(CLIENT, SERVER));
    for message in std::mem::take(&mut rig.told) {
        let FromLcore::Log(line) = message else { panic!("{message:?}") };
        assert_eq!((line.prefix.as_str(), line.level, line.l3), ("fwd: ", 4, 14));
        assert_eq!((line.in_port, line.out_port), (Some(LAN), Some(WAN)));
        assert_eq!(line.head[22], 63, "the TTL after the decrement");
    }
    assert_eq!(rig.fast(), 0, "packets that a LOG rule looks at walk");
}

#[test]
fn syn_and_the_rest_in_one_burst_keep_their_order() {
    let mut rig = Setup::default().start();
    let sent = rig.send_all(
        LAN,
        &[
            tcp(CLIENT, SERVER, SYN, 100, 0),
            tcp(CLIENT, SERVER, SYN, 100, 0),
            udp(CLIENT, SERVER),
            udp(CLIENT, SERVER),
        ],
    );
    assert_eq!(sent.len(), 4);
    assert_eq!(rig.list().len(), 2, "two packets of one new conn in one burst make one entry");
    rig.pass(WAN, tcp(SERVER, CLIENT, SYN | ACK, 500, 101));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501));
    let burst = [
        tcp(CLIENT, SERVER, ACK, 101, 501).payload(b"a"),
        tcp(CLIENT, SERVER, FIN | ACK, 102, 501),
        tcp(CLIENT, SERVER, ACK, 103, 501),
        tcp(CLIENT, SERVER, RST, 103, 0),
    ];
    let sent = rig.send_all(LAN, &burst);
    let flags: Vec<u8> = sent.iter().map(|s| s.headers().tcp_flags).collect();
    assert_eq!(flags, [ACK, FIN | ACK, ACK, RST]);
    let state = rig.list().into_iter().find_map(|c| c.state);
    assert_eq!(state, Some("CLOSE"));
}

#[test]
fn untracked_packets_have_cached_paths_that_count_and_obey() {
    let notrack = on(Target::Notrack).proto(17).dport(53);
    let mut rig = Setup::default()
        .both(Raw, "PREROUTING", notrack)
        .both(Filter, "FORWARD", count().state(StateMask::UNTRACKED))
        .start();
    for _ in 0..10 {
        let sent = rig.pass(LAN, udp(CLIENT, "198.51.100.7:53"));
        assert_eq!(sent.headers().ttl, 63);
    }
    assert_eq!(rig.fast(), 9);
    assert_eq!(rig.list().len(), 0);
    assert_eq!(rig.count(V4, Raw, "PREROUTING", Some(0)).0, 10);
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, 10);
    // The same tuple from elsewhere, another tuple, and one without hops left walk.
    rig.answered(LAN, udp(CLIENT, "198.51.100.7:53").ttl(1), DropReason::TtlExceeded);
    rig.pass(LAN, udp(CLIENT, "198.51.100.8:53"));
    assert_eq!(rig.fast(), 9);
    rig.setup.v4.table_mut(Raw).chain_mut("PREROUTING").unwrap().rules.clear();
    rig.publish();
    rig.pass(LAN, udp(CLIENT, "198.51.100.7:53"));
    assert_eq!(rig.list().len(), 1, "tracked from the next packet on");
}

#[test]
fn log_invalid_names_the_packet_and_the_reason() {
    let mut rig = Setup::default().knob("log_invalid", 17).start();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN | FIN, 1, 0));
    assert!(!rig.told.iter().any(|m| matches!(m, FromLcore::Log(_))), "only UDP is asked for");
    rig.setup = std::mem::take(&mut rig.setup).knob("log_invalid", 255);
    rig.publish();
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN | FIN, 1, 0));
    let said = rig.told.iter().find_map(|m| match m {
        FromLcore::Log(line) => line.said,
        _ => None,
    });
    let remark = Remark::Invalid(InvalidReason::TcpFlags, Numbers::Flags(SYN | FIN));
    assert_eq!(said, Some(Sentence::Remark(6, remark)));
}
