//! A table at its limits: refused, relieved, and without a place for an entry.

use dataplane::conntrack::early::can_go_early;
use dataplane::conntrack::record::{ConnId, ConnRef, Family as Space};
use dataplane::conntrack::state::{Direction, Status};
use dataplane::conntrack::tuple::Tuple;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{FromLcore, ToLcore};
use dataplane::pipeline::service::id_of_key;
use dataplane::rules::facts::PortId;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, FIN};

use super::protocols::{dccp, sctp, sctp_packet};
use super::rig::*;
use super::tracking::{connect, tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";

/// RFC 6888, REQ-11.
#[test]
fn a_table_that_refuses_keeps_what_it_has() {
    let mut rig = Setup { max: 8, ..Setup::default() }.start();
    rig.shared.capacity.set_refuses(true);
    for n in 0..8 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 6000 + n), SERVER));
    }
    for n in 0..20 {
        let other = format!("192.168.1.2:{}", 7000 + n);
        rig.dropped(LAN, udp(&other, SERVER), DropReason::TableRefuses);
    }
    let counters = &rig.counters.conntrack;
    assert_eq!((counters.drop.get(), counters.early_drop.get()), (20, 0));
    assert!(matches!(rig.told.pop(), Some(FromLcore::TableFull)));
    for n in 0..8 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 6000 + n), SERVER));
    }
    assert_eq!(rig.list().len(), 8);
    // Once it does not, one of them goes.
    rig.shared.capacity.set_refuses(false);
    rig.pass(LAN, udp("192.168.1.2:7000", SERVER));
    assert!(rig.counters.conntrack.early_drop.get() > 0);
}

/// What the control core names when the table was full, the lcore deletes as long as it is nearly
/// so; ASSURED conns of TCP only where they are about to end.
#[test]
fn s21_relief_ends_at_95_percent_and_spares_who_is_in_use() {
    let mut rig = Setup { max: 100, ..Setup::default() }.start();
    let assured = 60;
    for n in 0..assured {
        connect(&mut rig, &format!("192.168.1.2:{}", 5000 + n), SERVER);
    }
    // Five of them are about to end: an answered FIN.
    for n in 0..5 {
        let client = format!("192.168.1.2:{}", 5000 + n);
        rig.pass(LAN, tcp(&client, SERVER, FIN | ACK, 101, 501));
        rig.pass(WAN, tcp(SERVER, &client, ACK, 501, 102));
    }
    for n in 0..40 {
        rig.pass(LAN, udp(&format!("192.168.1.2:{}", 6000 + n), SERVER));
    }
    let relieve = |rig: &mut Rig, wanted: fn(&Status) -> bool| {
        let mut ids: Vec<ConnId> = Vec::new();
        let (buckets, now) = (rig.shared.index.buckets(), rig.now.tick);
        let end = rig.shared.spendable(0, buckets, now, |id, owner| {
            assert_eq!(owner, 0);
            ids.push(id);
        });
        assert_eq!(end, 0);
        ids.retain(|id| wanted(&rig.shared.records.get(id.conn).unwrap().status()));
        let named = ids.len();
        rig.ask(ToLcore::Relieve(Box::new(ids)));
        named
    };
    assert_eq!(relieve(&mut rig, |status| status.has(Status::ASSURED)), 5, "CLOSE_WAIT");
    assert_eq!(rig.shared.capacity.count(), 95, "still pressed: all five go");
    assert_eq!(relieve(&mut rig, |_| true), 40);
    assert_eq!(rig.shared.capacity.count(), 94, "below 95 % nobody goes");
    assert_eq!(rig.counters.conntrack.early_drop.get(), 0, "not counted, as in the kernel");
    // Even whoever is named wrongly stays.
    let ids: Vec<ConnId> = (0..rig.shared.records.numbers(Space::V4))
        .filter_map(|n| rig.shared.records.get(ConnRef::new(Space::V4, n)))
        .filter(|conn| !can_go_early(*conn))
        .map(|conn| conn.id())
        .collect();
    assert_eq!(ids.len(), assured - 5);
    rig.shared.set_max(50).unwrap();
    rig.ask(ToLcore::Relieve(Box::new(ids)));
    assert_eq!(rig.shared.capacity.count(), 94);
}

/// A packet, the state that it leads its conn to, and whether the conn may go then.
type Step = (PortId, Packet<'static>, &'static str, bool);

/// After each step the conn, the only ASSURED one in a table without room, is named or is not, and
/// its owner, when told to, ends it or does not.
fn goes_in_need(begin: &[(PortId, Packet<'static>)], steps: &[Step]) {
    const MAX: u32 = 100;
    for last in 0..steps.len() {
        let mut rig = Setup { max: MAX, ..Setup::default() }.start();
        let first = begin.iter().copied();
        let then = steps[..=last].iter().map(|&(port, packet, ..)| (port, packet));
        for (port, packet) in first.chain(then) {
            rig.pass(port, packet);
        }
        let (.., state, goes) = steps[last];
        let conn = rig.conn();
        assert_eq!((conn.state, conn.status.has(Status::ASSURED)), (Some(state), true));
        let id = id_of_key(conn.key);
        for n in 1..MAX as u16 {
            rig.pass(LAN, udp(&format!("192.168.1.2:{}", 6000 + n), SERVER));
        }
        let mut named: Vec<ConnId> = Vec::new();
        let (buckets, now) = (rig.shared.index.buckets(), rig.now.tick);
        rig.shared.spendable(0, buckets, now, |id, _| named.push(id));
        assert_eq!(named.contains(&id), goes, "{state}");
        rig.ask(ToLcore::Relieve(Box::new(vec![id])));
        assert_eq!(rig.shared.capacity.count(), MAX - goes as u32, "{state}");
    }
}

#[test]
fn s21_an_association_of_sctp_goes_in_need_while_it_shuts_down() {
    let packet = |port, tag, chunk| (port, sctp_packet(port, &sctp(tag, &[chunk])));
    let begin = [packet(LAN, 0, (1, 7)), packet(WAN, 7, (2, 9)), packet(LAN, 9, (10, 0))];
    let step = |port, tag, kind, state, goes| {
        let (port, packet) = packet(port, tag, (kind, 0));
        (port, packet, state, goes)
    };
    let open = step(WAN, 7, 11, "ESTABLISHED", false);
    goes_in_need(
        &begin,
        &[
            open,
            step(LAN, 9, 7, "SHUTDOWN_SENT", true),
            step(WAN, 7, 8, "SHUTDOWN_ACK_SENT", true),
            // Over: not for long either, but not by name.
            step(LAN, 9, 14, "CLOSED", false),
        ],
    );
    goes_in_need(&begin, &[open, step(WAN, 7, 7, "SHUTDOWN_RECD", true)]);
}

#[test]
fn s21_a_connection_of_dccp_goes_in_need_once_it_is_to_close() {
    let (client, server) = (("192.168.1.2", 4000), ("198.51.100.7", 80));
    let packet = |port, kind, seq, ack| {
        let (src, dst) = if port == LAN { (client, server) } else { (server, client) };
        (port, dccp(src, dst, kind, seq, ack))
    };
    let step = |port, kind, seq, ack, state, goes| {
        let (port, packet) = packet(port, kind, seq, ack);
        (port, packet, state, goes)
    };
    goes_in_need(
        &[packet(LAN, 0, 1, 0), packet(WAN, 1, 5, 1)],
        &[
            step(LAN, 3, 2, 5, "PARTOPEN", false),
            step(WAN, 2, 6, 0, "OPEN", false),
            step(WAN, 5, 7, 0, "CLOSEREQ", true),
            step(LAN, 6, 3, 0, "CLOSING", true),
            step(WAN, 7, 8, 0, "TIMEWAIT", true),
        ],
    );
}

/// The equivalent of a hash chain that is too long.
#[test]
fn a_conn_without_a_place_is_refused_and_counted() {
    let mut rig = Setup { max: 8, ..Setup::default() }.start();
    let shared = rig.shared.clone();
    let slots = 7 * shared.index.buckets() as u64;
    // Entries of records that there are not, everywhere.
    let nobody = ConnRef::new(Space::V4, (1 << 30) - 1);
    let mut hashes: Vec<u64> = Vec::new();
    for n in 0u64.. {
        let tuple = Tuple { src_id: n as u16, dst_id: (n >> 16) as u16, ..Tuple::default() };
        let hash = shared.hash(&tuple, 0);
        if shared.index.list(hash, nobody) {
            hashes.push(hash);
        }
        if hashes.len() as u64 == slots {
            break;
        }
    }
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::ChainTooLong);
    let counters = &rig.counters.conntrack;
    let counted = (counters.chain_too_long.get(), counters.insert_failed.get());
    assert_eq!((counted, counters.drop.get()), ((1, 1), 0));
    assert_eq!(shared.capacity.count(), 0);
    for hash in hashes {
        assert!(shared.index.remove(hash, nobody, Direction::Original));
    }
    assert_eq!(shared.index.census(), (0, 0));
    rig.pass(LAN, udp(CLIENT, SERVER));
}
