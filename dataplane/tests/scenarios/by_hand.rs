//! Conns that a tool makes and changes.

use dataplane::conntrack::dccp::{DccpState, Role};
use dataplane::conntrack::record::ConnId;
use dataplane::conntrack::sctp::SctpState;
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tcp::TcpState;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::conntrack::view::{ConnView, EventKind, EventView};
use dataplane::nat::range::Range;
use dataplane::pipeline::by_hand::{Change, Changes, NewConn, Refusal, Told};
use dataplane::pipeline::messages::{FromLcore, Slice, ToLcore};
use dataplane::pipeline::service::id_of_key;
use dataplane::rules::hook::Table::{Filter, Nat};
use dataplane::rules::matches::StateMask;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, FIN};

use super::protocols::{sctp, sctp_packet};
use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:80";

pub(super) fn new_conn(number: u8, client: &str, server: &str) -> NewConn {
    let (from, to) = (at(client), at(server));
    let original = Tuple {
        src: from.ip().into(),
        dst: to.ip().into(),
        src_id: from.port(),
        dst_id: to.port(),
        proto: number,
    };
    NewConn {
        tuples: [original, original.inverted().unwrap()],
        zones: [0; 2],
        timeout_secs: 50,
        status: Status(0),
        mark: 0,
        told: Told::Nothing,
        nat: [None; 2],
        labels: 0,
        by_process: Some(77),
        outcome: Err(Refusal::Invalid),
    }
}

pub(super) fn create(rig: &mut Rig, new: NewConn) -> Result<(), Refusal> {
    rig.ask(ToLcore::Create(9, Box::new(new)));
    let at = rig.told.iter().position(|m| matches!(m, FromLcore::Created(..))).unwrap();
    match rig.told.remove(at) {
        FromLcore::Created(9, new) => new.outcome,
        other => panic!("{other:?}"),
    }
}

pub(super) fn change(
    rig: &mut Rig,
    ids: &[ConnId],
    change: Change,
) -> Vec<(ConnView, Result<(), Refusal>)> {
    let (conns, done) = (ids.to_vec(), Vec::with_capacity(ids.len()));
    let changes = Changes { change, conns, by_process: Some(78), done };
    rig.ask(ToLcore::Change(9, Box::new(changes)));
    let at = rig.told.iter().position(|m| matches!(m, FromLcore::Changed(..))).unwrap();
    match rig.told.remove(at) {
        FromLcore::Changed(9, changes) => changes.done,
        other => panic!("{other:?}"),
    }
}

pub(super) fn events(rig: &mut Rig) -> Vec<EventView> {
    let told = std::mem::take(&mut rig.told);
    let event = |m| if let FromLcore::Event(e) = m { Some(e) } else { None };
    told.into_iter().filter_map(event).collect()
}

pub(super) fn id(conn: &ConnView) -> ConnId {
    id_of_key(conn.key)
}

const ANSWERED: Status = Status::SEEN_REPLY.with(Status::ASSURED);

#[test]
fn a_conn_made_by_hand_carries_packets() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        let mut rig = Setup::default().drops(Filter, "FORWARD").start();
        rig.setup = std::mem::take(&mut rig.setup).both(
            Filter,
            "FORWARD",
            accept().state(StateMask::ESTABLISHED),
        );
        rig.publish();
        rig.listen();
        let made = NewConn {
            told: Told::Tcp(TcpState::Established),
            status: ANSWERED,
            mark: 7,
            ..new_conn(proto::TCP, client, server)
        };
        assert_eq!(create(&mut rig, made.clone()), Ok(()));
        let conn = rig.conn();
        assert_eq!((conn.remaining_secs, conn.state, conn.mark), (50, Some("ESTABLISHED"), 7));
        let all = events(&mut rig);
        assert_eq!((all.len(), all[0].kind, all[0].by_process), (1, EventKind::New, Some(77)));
        assert_eq!(rig.counters.conntrack.insert.get(), 1);
        // Nothing is known of the windows, so any numbers do, on either side.
        for n in 0..3 {
            rig.pass(WAN, tcp(server, client, ACK, 5_000_000 + n, 9));
            rig.pass(LAN, tcp(client, server, ACK, 77_000_000 + n, 1_000_000_000));
        }
        assert_eq!(rig.conn().remaining_secs, 432_000);
        rig.pass(LAN, tcp(client, server, FIN | ACK, 4, 5));
        assert_eq!(rig.conn().state, Some("FIN_WAIT"));
        assert_eq!(create(&mut rig, made), Err(Refusal::Exists));
        assert_eq!(rig.shared.capacity.count(), 1);
    }
}

#[test]
fn either_tuple_that_is_taken_refuses_a_conn() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(create(&mut rig, new_conn(proto::UDP, CLIENT, SERVER)), Err(Refusal::Exists));
    assert_eq!(create(&mut rig, new_conn(proto::UDP, SERVER, CLIENT)), Err(Refusal::Exists));
    let free = new_conn(proto::UDP, "192.168.1.9:1", SERVER);
    let taken = new_conn(proto::UDP, CLIENT, SERVER).tuples[1];
    let clash = NewConn { tuples: [free.tuples[0], taken], ..free.clone() };
    assert_eq!(create(&mut rig, clash), Err(Refusal::Exists));
    assert_eq!(rig.shared.capacity.count(), 1, "nothing is left behind");
    // Another zone is another table.
    let elsewhere = NewConn { zones: [3; 2], ..new_conn(proto::UDP, CLIENT, SERVER) };
    assert_eq!(create(&mut rig, elsewhere.clone()), Ok(()));
    assert_eq!(create(&mut rig, elsewhere), Err(Refusal::Exists));
    // Nor is an expired conn in the way.
    rig.wait(31);
    assert_eq!(create(&mut rig, new_conn(proto::UDP, CLIENT, SERVER)), Ok(()));
    let expected = NewConn { status: Status::EXPECTED, ..free };
    assert_eq!(create(&mut rig, expected), Err(Refusal::Busy));
}

#[test]
fn a_full_table_makes_room_or_says_so() {
    let mut rig = Setup { max: 8, ..Setup::default() }.start();
    let conn = |n: u16, status| NewConn {
        status,
        ..new_conn(proto::UDP, &format!("192.168.1.2:{n}"), SERVER)
    };
    for n in 0..8 {
        assert_eq!(create(&mut rig, conn(n, ANSWERED)), Ok(()));
    }
    assert_eq!(create(&mut rig, conn(8, ANSWERED)), Err(Refusal::NoMemory));
    assert_eq!(rig.shared.capacity.count(), 8);
}

#[test]
fn nat_by_hand_is_nat() {
    let to = |text: &str, port: Option<u16>| {
        let address = address(text);
        Some(Range {
            addresses: Some((address, address)),
            ports: port.map(|p| (p, p)),
            ..Range::default()
        })
    };
    let mut rig = Setup::default().start();
    let source = NewConn {
        nat: [None, to("203.0.113.1", Some(5555))],
        ..new_conn(proto::UDP, CLIENT, SERVER)
    };
    assert_eq!(create(&mut rig, source), Ok(()));
    let conn = rig.conn();
    assert!(conn.status.has(Status::SRC_NAT) && !conn.status.has(Status::DST_NAT));
    for _ in 0..3 {
        let out = rig.pass(LAN, udp(CLIENT, SERVER));
        assert_eq!(out.flow(), format!("203.0.113.1:5555 > {SERVER}"));
        let back = rig.pass(WAN, udp(SERVER, "203.0.113.1:5555"));
        assert_eq!((back.port, back.flow()), (LAN, format!("{SERVER} > {CLIENT}")));
    }
    let destination = NewConn {
        nat: [to("192.168.1.2", Some(8080)), None],
        ..new_conn(proto::UDP, "198.51.100.9:9", "203.0.113.1:80")
    };
    assert_eq!(create(&mut rig, destination), Ok(()));
    let inside = rig.pass(WAN, udp("198.51.100.9:9", "203.0.113.1:80"));
    assert_eq!((inside.port, inside.flow()), (LAN, "198.51.100.9:9 > 192.168.1.2:8080".into()));
    // A taken mapping goes to another port.
    let again = NewConn {
        nat: [None, to("203.0.113.1", None)],
        ..new_conn(proto::UDP, "192.168.1.3:5555", SERVER)
    };
    assert_eq!(create(&mut rig, again), Ok(()));
    let all = rig.list();
    let third = all.iter().find(|c| c.original.src == address("192.168.1.3")).unwrap();
    assert_ne!(third.reply.dst_id, 5555);
}

/// As the kernel took it: tags are what packets of each direction have to carry, and a conn without
/// a state told is in none.
#[test]
fn an_association_made_by_hand_is_judged_by_state_and_tags() {
    let mut rig = Setup::default().start();
    let told = Told::Sctp(Some(SctpState::Established), [Some(0x11), Some(0x22)]);
    let made = NewConn { status: ANSWERED, told, ..new_conn(proto::SCTP, CLIENT, SERVER) };
    assert_eq!(create(&mut rig, made.clone()), Ok(()));
    let view = rig.conn();
    assert_eq!((view.state, view.sctp_tags), (Some("ESTABLISHED"), Some([0x11, 0x22])));
    let mut shutdown = |tag| {
        rig.pass(LAN, sctp_packet(LAN, &sctp(tag, &[(7, 0)])));
        rig.conn().state
    };
    assert_eq!(shutdown(0x22), Some("ESTABLISHED"), "the other side's tag");
    assert_eq!(shutdown(0x11), Some("SHUTDOWN_SENT"));
    let conn = id(&rig.conn());
    let half = Told::Sctp(Some(SctpState::Closed), [Some(1), None]);
    let wish =
        Change { timeout_secs: Some(99), told: half, mark: Some((5, !0)), ..Change::default() };
    let (view, outcome) = change(&mut rig, &[conn], wish).remove(0);
    let facts = (view.remaining_secs, view.state, view.mark);
    assert_eq!((facts, outcome), ((99, Some("SHUTDOWN_SENT"), 0), Err(Refusal::Invalid)));
    let whole = Told::Sctp(Some(SctpState::CookieWait), [Some(3), Some(4)]);
    let (view, outcome) = change(&mut rig, &[conn], Change { told: whole, ..wish }).remove(0);
    let facts = (view.sctp_tags, view.state, view.mark);
    assert_eq!((facts, outcome), ((Some([3, 4]), Some("COOKIE_WAIT"), 5), Ok(())));
    let none = NewConn { told: half, ..new_conn(proto::SCTP, "192.168.1.9:1", SERVER) };
    assert_eq!(create(&mut rig, none), Err(Refusal::Invalid));
    assert_eq!(rig.shared.capacity.count(), 1, "nothing is left behind");
}

/// `nlattr_to_dccp`: state and role or nothing, and a state that a conn can be in.
#[test]
fn a_dccp_conn_made_by_hand_has_state_and_role() {
    let mut rig = Setup::default().start();
    let new = |told| NewConn { told, ..new_conn(proto::DCCP, CLIENT, SERVER) };
    let open = Some(DccpState::Open);
    for told in
        [Told::Dccp(open, None), Told::Dccp(None, Some(Role::Server)), Told::Dccp(None, None)]
    {
        assert_eq!(create(&mut rig, new(told)), Err(Refusal::Invalid));
    }
    assert_eq!(create(&mut rig, new(Told::Dccp(open, Some(Role::Server)))), Ok(()));
    let view = rig.conn();
    assert_eq!((view.state, view.dccp_role), (Some("OPEN"), Some("server")));
    // What the tool can ask for has no role, and the kernel refused it.
    let wish = Change { told: Told::Dccp(Some(DccpState::Closing), None), ..Change::default() };
    let (view, outcome) = change(&mut rig, &[id(&view)], wish).remove(0);
    assert_eq!((view.state, outcome), (Some("OPEN"), Err(Refusal::Invalid)));
    let wish = Change { told: Told::Dccp(open, Some(Role::Client)), ..Change::default() };
    let (view, outcome) = change(&mut rig, &[id(&view)], wish).remove(0);
    assert_eq!((view.dccp_role, outcome), (Some("client"), Ok(())));
}

/// Over with the next packet, as in the kernel, where only a first packet sets the timeouts.
#[test]
fn gre_made_by_hand_has_no_time_after_its_next_packet() {
    let mut rig = Setup::default().start();
    let made = new_conn(proto::GRE, "192.168.1.2:0", "198.51.100.7:0");
    assert_eq!(create(&mut rig, made), Ok(()));
    let view = rig.conn();
    assert_eq!((view.remaining_secs, view.gre_timeouts_secs), (50, Some([0, 0])));
    let [src, dst] = [CLIENT, SERVER].map(|end| at(end).ip());
    let plain = Packet::raw(src, dst, 47).payload(b"\x00\x00\x08\x00packet");
    rig.pass(LAN, plain);
    assert!(rig.list().is_empty());
}

#[test]
fn no_time_at_all_is_over_at_once_and_too_much_is_the_most() {
    let mut rig = Setup::default().start();
    let new = |timeout_secs| NewConn { timeout_secs, ..new_conn(proto::UDP, CLIENT, SERVER) };
    assert_eq!(create(&mut rig, new(0)), Ok(()));
    assert!(rig.list().is_empty());
    // As the tool sends -1.
    assert_eq!(create(&mut rig, new(u32::MAX)), Ok(()));
    let view = rig.conn();
    assert_eq!(view.remaining_secs, dataplane::time::MAX_TIMEOUT_SECS);
    let wish = Change { timeout_secs: Some(0), ..Change::default() };
    assert!(change(&mut rig, &[id(&view)], wish).is_empty(), "there is nothing to show");
    assert!(rig.list().is_empty());
}

/// The kernel's table too counts each NEW packet of such a conn and translates none.
#[test]
fn a_conn_made_without_nat_asks_the_table_with_each_new_packet_and_in_vain() {
    for tool in [Status(0), Status::SEEN_REPLY] {
        let mut rig = Setup::default()
            .rule(V4, Nat, "PREROUTING", dnat("192.168.1.9", Some(7)).proto(17))
            .rule(V4, Nat, "POSTROUTING", snat("203.0.113.1"))
            .rule(V4, Nat, "POSTROUTING", count())
            .start();
        let made = NewConn { status: tool, ..new_conn(proto::UDP, CLIENT, SERVER) };
        assert_eq!(create(&mut rig, made), Ok(()));
        for _ in 0..5 {
            let out = rig.pass(LAN, udp(CLIENT, SERVER));
            assert_eq!(out.flow(), format!("{CLIENT} > {SERVER}"));
        }
        let asked = if tool == Status(0) { 5 } else { 0 };
        assert_eq!(rig.count(V4, Nat, "PREROUTING", Some(0)).0, asked);
        assert_eq!(rig.count(V4, Nat, "POSTROUTING", Some(0)).0, asked);
        assert_eq!(rig.count(V4, Nat, "POSTROUTING", Some(1)).0, 0, "behind a target");
        let conn = rig.conn();
        assert_eq!(conn.status.0 & Status::SRC_NAT_DONE.with(Status::DST_NAT_DONE).0, 0);
    }
}

#[test]
fn changes_what_is_asked_for_and_tells() {
    let mut rig = Setup::default().start();
    rig.listen();
    rig.pass(LAN, udp(CLIENT, SERVER));
    events(&mut rig);
    let conn = id(&rig.conn());
    let wish = Change {
        timeout_secs: Some(900),
        status: ANSWERED,
        mark: Some((0x30, 0xf0)),
        ..Change::default()
    };
    let done = change(&mut rig, &[conn], wish);
    let (view, outcome) = &done[0];
    assert_eq!((view.remaining_secs, view.mark, *outcome), (900, 0x30, Ok(())));
    assert!(view.status.has(ANSWERED));
    let told = events(&mut rig);
    assert_eq!((told.len(), told[0].kind, told[0].by_process), (1, EventKind::Update, Some(78)));
    // What comes before a refusal stays.
    let done = change(
        &mut rig,
        &[conn],
        Change { timeout_secs: Some(5), status: Status::EXPECTED, ..wish },
    );
    assert_eq!((done[0].0.remaining_secs, done[0].1), (5, Err(Refusal::Busy)));
    assert!(events(&mut rig).is_empty());
    rig.wait(4);
    assert_eq!(rig.sweep(), 0);
    rig.wait(2);
    assert!(rig.list().is_empty());
    assert!(change(&mut rig, &[conn], wish).is_empty(), "who is gone is not answered for");
}

#[test]
fn a_fixed_timeout_is_no_longer_changed_by_anybody() {
    let mut rig = Setup::default().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let conn = id(&rig.conn());
    let fix =
        Change { timeout_secs: Some(100), status: Status::FIXED_TIMEOUT, ..Change::default() };
    assert_eq!(change(&mut rig, &[conn], fix)[0].1, Ok(()));
    assert_eq!(change(&mut rig, &[conn], fix)[0].1, Err(Refusal::Fixed));
    rig.wait(10);
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(rig.conn().remaining_secs, 90);
    let nat = Change { nat: true, mark: Some((1, !0)), ..Change::default() };
    assert_eq!(change(&mut rig, &[conn], nat)[0].1, Err(Refusal::NotSupported));
    assert_eq!(rig.conn().mark, 0);
}

#[test]
fn a_change_is_seen_by_the_next_packet_of_a_remembered_path() {
    let accept = accept().state(StateMask::ESTABLISHED);
    let mut rig = Setup::default().both(Filter, "FORWARD", accept).start();
    for _ in 0..4 {
        rig.pass(LAN, udp(CLIENT, SERVER));
    }
    let before = rig.rule_counts(dataplane::rules::hook::Family::V4);
    let conn = id(&rig.conn());
    let wish = Change { status: Status::SEEN_REPLY, ..Change::default() };
    assert_eq!(change(&mut rig, &[conn], wish)[0].1, Ok(()));
    rig.pass(LAN, udp(CLIENT, SERVER));
    let after = rig.rule_counts(dataplane::rules::hook::Family::V4);
    assert_ne!(before, after, "the packet is ESTABLISHED now");
}

#[test]
fn a_listing_may_set_counters_back() {
    let mut rig = Setup::default().knob("acct", 1).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(create(&mut rig, new_conn(proto::UDP, "192.168.1.9:1", SERVER)), Ok(()));
    let list = |rig: &mut Rig, zero| -> Vec<u64> {
        let conns = Vec::with_capacity(16);
        let family = dataplane::conntrack::record::Family::V4;
        let slice = Slice { family, from: 0, numbers: 16, zero, end: false, conns };
        rig.ask(ToLcore::List(1, Box::new(slice)));
        let at = rig.told.iter().position(|m| matches!(m, FromLcore::Listed(..))).unwrap();
        let FromLcore::Listed(_, slice) = rig.told.remove(at) else { unreachable!() };
        slice.conns.iter().map(|c| c.counters.expect("counted")[0].packets).collect()
    };
    assert_eq!(list(&mut rig, true), [1, 0]);
    assert_eq!(list(&mut rig, false), [0, 0]);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(list(&mut rig, false), [1, 0]);
}
