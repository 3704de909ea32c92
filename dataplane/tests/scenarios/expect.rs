//! Expectations and the helper that makes them: TFTP with and without translation.

use dataplane::conntrack::expect::{ExpectationView, News};
use dataplane::conntrack::helper::{Helper, Policy};
use dataplane::conntrack::record::{ConnRef, Family as Space};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::view::EventKind;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{FromLcore, Sentence, ToLcore};
use dataplane::pipeline::service::id_of_key;
use dataplane::rules::hook::Table::{Filter, Nat, Raw};
use dataplane::rules::matches::StateMask;
use dataplane::rules::model::Rule;
use dataplane::rules::targets::Target;
use dataplane::rules::template::{Ct, Template};
use dataplane::wire::build::packet::Packet;

use super::host_lcores::Pair;
use super::rig::*;
use super::rules::*;

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:69";
const DATA: &str = "198.51.100.7:3000";
const WAN4: &str = "203.0.113.1:4000";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:9::7]:69";
const DATA6: &str = "[2001:db8:9::7]:3000";

/// `-t raw -A PREROUTING -p udp --dport 69 -j CT --helper tftp`
fn tftp(port: u16) -> Rule {
    let template = Template { helper: Some(Helper::Tftp), ..Template::default() };
    on(Target::Ct(Ct { template, ..Ct::default() })).proto(17).dport(port)
}

/// What comes from outside must belong to something.
fn guarded() -> Setup {
    let known = StateMask::ESTABLISHED.with(StateMask::RELATED);
    Setup::default()
        .both(Raw, "PREROUTING", tftp(69))
        .both(Filter, "FORWARD", accept().in_port("lan"))
        .both(Filter, "FORWARD", accept().state(known))
        .drops(Filter, "FORWARD")
}

fn request<'a>(client: &str, server: &str) -> Packet<'a> {
    Packet::udp(at(client), at(server)).payload(b"\0\x01boot.img\0octet\0")
}

fn data<'a>(from: &str, to: &str) -> Packet<'a> {
    Packet::udp(at(from), at(to)).payload(b"\0\x03\0\x01bytes")
}

fn ack<'a>(from: &str, to: &str) -> Packet<'a> {
    Packet::udp(at(from), at(to)).payload(b"\0\x04\0\x01")
}

impl Rig {
    fn expectations(&self) -> Vec<ExpectationView> {
        let mut all = Vec::new();
        assert_eq!(self.shared.expectations.list(0, self.now, &mut all), Ok(0));
        all
    }

    /// (matched, made, removed)
    fn expected(&self) -> [u64; 3] {
        self.shared.expectations.counted(0)
    }
}

#[test]
fn the_data_of_a_transfer_is_let_in_where_new_conns_are_not() {
    for (client, server, from) in [(CLIENT, SERVER, DATA), (CLIENT6, SERVER6, DATA6)] {
        let mut rig = guarded().start();
        rig.dropped(WAN, data(from, client), DropReason::FilterDrop);
        rig.pass(LAN, request(client, server));
        let [expectation] = rig.expectations()[..] else { panic!("one") };
        let (what, left) = (expectation.what, expectation.remaining_secs);
        assert_eq!((what.tuple.dst_id, what.tuple.src_id, left), (4000, 0, 300));
        assert_eq!((what.class, what.helper.name(), what.follow), (0, "tftp", None));
        let master = rig.conn();
        assert_eq!((master.helper.as_deref(), what.master), (Some("tftp"), id_of_key(master.key)));

        rig.pass(WAN, data(from, client));
        assert_eq!((rig.expectations().len(), rig.expected()), (0, [1, 1, 1]));
        for _ in 0..3 {
            rig.pass(LAN, ack(client, from));
            rig.pass(WAN, data(from, client));
        }
        assert!(rig.fast() >= 4, "the child's packets take the short way: {}", rig.fast());
        let child = rig.list().into_iter().find(|c| c.key != master.key).unwrap();
        assert!(child.status.has(Status::EXPECTED.with(Status::SEEN_REPLY)));
        assert!(!child.status.has(Status::SRC_NAT) && !child.status.has(Status::DST_NAT));
        assert_eq!(child.helper, None);
        let number = id_of_key(child.key).conn;
        let extension = rig.shared.extension(rig.shared.records.get(number).unwrap()).unwrap();
        assert_eq!(extension.master(), id_of_key(master.key));
        // Expected once.
        let other = if client == CLIENT { "198.51.100.7:3001" } else { "[2001:db8:9::7]:3001" };
        rig.dropped(WAN, data(other, client), DropReason::FilterDrop);
    }
}

#[test]
fn without_the_rule_nothing_is_expected() {
    let setup = guarded();
    let setup = Setup { v4: Setup::default().v4, ..setup }.drops(Filter, "FORWARD");
    let mut rig = setup.both(Filter, "FORWARD", accept().in_port("lan")).start();
    rig.pass(LAN, request(CLIENT, SERVER));
    assert!(rig.expectations().is_empty() && rig.conn().helper.is_none());
    rig.dropped(WAN, data(DATA, CLIENT), DropReason::FilterDrop);
}

#[test]
fn only_requests_are_read_and_every_one_of_them() {
    let mut rig = guarded().start();
    rig.pass(LAN, data(CLIENT, SERVER));
    rig.pass(LAN, Packet::udp(at(CLIENT), at(SERVER)).payload(b"\0"));
    assert!(rig.expectations().is_empty());
    for n in 1..5 {
        rig.wait(2);
        rig.pass(LAN, request(CLIENT, SERVER));
        rig.pass(WAN, ack(SERVER, CLIENT));
        assert_eq!(rig.expected(), [0, n, n - 1], "no path passes the helper by");
        assert_eq!(rig.expectations()[0].remaining_secs, 300);
    }
    // A request that the server sends is one too.
    rig.pass(WAN, request(SERVER, CLIENT));
    assert_eq!(rig.expected(), [0, 5, 4]);
}

#[test]
fn s11_a_child_has_its_masters_mark_and_is_new_to_listeners() {
    let mut rig = guarded().start();
    rig.pass(LAN, request(CLIENT, SERVER));
    let master = id_of_key(rig.conn().key).conn;
    rig.shared.records.get(master).unwrap().set_mark(0x55);
    rig.listen();
    rig.told.clear();
    rig.pass(WAN, data(DATA, CLIENT));
    let [FromLcore::Event(event)] = &rig.told[..] else { panic!("{:?}", rig.told) };
    assert_eq!((event.kind, event.conn.mark), (EventKind::New, 0x55));
    assert!(event.conn.status.has(Status::EXPECTED));
}

#[test]
fn the_child_of_a_masqueraded_client_goes_where_the_client_is() {
    let mut rig = guarded().both(Nat, "POSTROUTING", masquerade()).start();
    // Another conn has the client's port on the outside.
    rig.pass(LAN, request("192.168.1.3:4000", SERVER));
    let sent = rig.pass(LAN, request(CLIENT, SERVER));
    let outside = sent.headers().src_port;
    assert_ne!(outside, 4000);
    let wan = format!("203.0.113.1:{outside}");
    let child = rig.pass(WAN, data(DATA, &wan));
    assert_eq!((child.flow(), child.port), (format!("{DATA} > {CLIENT}"), LAN));
    for _ in 0..3 {
        assert_eq!(rig.pass(LAN, ack(CLIENT, DATA)).flow(), format!("{wan} > {DATA}"));
        assert_eq!(rig.pass(WAN, data(DATA, &wan)).flow(), format!("{DATA} > {CLIENT}"));
    }
    assert!(rig.fast() >= 4);
    let first = rig.pass(WAN, data(DATA, WAN4));
    assert_eq!(first.flow(), format!("{DATA} > 192.168.1.3:4000"));
    let children = rig.list().into_iter().filter(|c| c.status.has(Status::EXPECTED));
    let bits = |s: Status| (s.has(Status::SRC_NAT), s.has(Status::DST_NAT));
    assert_eq!(children.map(|c| bits(c.status)).collect::<Vec<_>>(), [(false, true); 2]);
}

#[test]
fn the_child_of_a_server_behind_dnat_comes_from_the_address_that_was_asked() {
    // The server is in the LAN, the client outside; its data leaves as the public address.
    let mut rig = Setup::default()
        .both(Raw, "PREROUTING", tftp(69))
        .rule(V4, Nat, "PREROUTING", dnat("192.168.1.2", None).in_port("wan"))
        .rule(V6, Nat, "PREROUTING", dnat("2001:db8:1::2", None).in_port("wan"))
        .start();
    for (client, public, inside) in [
        ("198.51.100.9:4000", "203.0.113.10", "192.168.1.2"),
        ("[2001:db8:9::9]:4000", "[2001:db8:2::1]", "[2001:db8:1::2]"),
    ] {
        let asked = rig.pass(WAN, request(client, &format!("{public}:69")));
        assert_eq!(asked.flow(), format!("{client} > {inside}:69"));
        let child = rig.pass(LAN, data(&format!("{inside}:3000"), client));
        assert_eq!(child.flow(), format!("{public}:3000 > {client}"));
        let back = rig.pass(WAN, ack(client, &format!("{public}:3000")));
        assert_eq!(back.flow(), format!("{client} > {inside}:3000"));
    }
}

#[test]
fn s15_two_requests_for_one_port_clash_and_the_second_is_dropped() {
    let mut rig = guarded().both(Raw, "PREROUTING", tftp(6969)).start();
    rig.pass(LAN, request(CLIENT, SERVER));
    rig.told.clear();
    rig.dropped(LAN, request(CLIENT, "198.51.100.7:6969"), DropReason::Expectation);
    assert_eq!((rig.list().len(), rig.expectations().len()), (1, 1), "and leaves nothing");
    // Said of every packet, also while `log_invalid` asks for nothing.
    let [FromLcore::Log(line)] = &rig.told[..] else { panic!("{:?}", rig.told) };
    assert_eq!(line.said, Some(Sentence::NotExpected(Helper::Tftp)));
    assert_eq!((line.in_port, line.out_port), (Some(LAN), Some(WAN)));
    rig.pass(LAN, request(CLIENT, "198.51.100.8:6969"));
    assert_eq!(rig.expectations().len(), 2);
}

#[test]
fn a_full_table_drops_the_request_and_says_so() {
    let mut rig = guarded().start();
    assert!(rig.shared.expectations.set_limit(1));
    rig.pass(LAN, request(CLIENT, SERVER));
    for port in 5000..5010 {
        rig.dropped(LAN, request(&format!("192.168.1.2:{port}"), SERVER), DropReason::Expectation);
    }
    let full = |m: &&FromLcore| matches!(m, FromLcore::ExpectationsFull);
    assert_eq!(rig.told.iter().filter(full).count(), 1, "once a tick");
    let line = |m: &&FromLcore| matches!(m, FromLcore::Log(line) if line.said.is_some());
    assert_eq!(rig.told.iter().filter(line).count(), 10, "and of every packet");
    rig.wait(1);
    rig.dropped(LAN, request("192.168.1.2:5000", SERVER), DropReason::Expectation);
    assert_eq!(rig.told.iter().filter(full).count(), 2);
    // The one that is there may be renewed.
    rig.pass(LAN, request(CLIENT, SERVER));
}

#[test]
fn expectations_end_with_their_master_however_it_ends() {
    let mut rig = guarded().start();
    let ask = |rig: &mut Rig| {
        rig.pass(LAN, request(CLIENT, SERVER));
        assert_eq!(rig.expectations().len(), 1);
    };
    ask(&mut rig);
    let id = id_of_key(rig.conn().key);
    rig.ask(ToLcore::Delete(1, None, Box::new(vec![id])));
    assert_eq!((rig.expectations().len(), rig.expected()), (0, [0, 1, 1]));
    rig.dropped(WAN, data(DATA, CLIENT), DropReason::FilterDrop);

    // Its time is up: gone at once for packets, with the sweep for listings.
    ask(&mut rig);
    rig.wait(30);
    rig.dropped(WAN, data(DATA, CLIENT), DropReason::FilterDrop);
    rig.live(3);
    assert_eq!((rig.expectations().len(), rig.list().len()), (0, 0));

    // An early drop makes room.
    ask(&mut rig);
    for port in 5000..5000 + 2 * rig.setup.max as u16 {
        rig.send(LAN, ack(&format!("192.168.1.3:{port}"), "198.51.100.9:70"));
        if rig.expectations().is_empty() {
            return;
        }
    }
    panic!("never dropped early");
}

#[test]
fn an_expectation_has_its_own_time() {
    let mut setup = guarded();
    setup.knobs.helpers.set(Helper::Tftp, Policy { max_expected: 1, timeout_secs: 5 });
    let mut rig = setup.start();
    rig.pass(LAN, request(CLIENT, SERVER));
    rig.wait(4);
    assert_eq!(rig.expectations()[0].remaining_secs, 1);
    rig.wait(1);
    assert!(rig.expectations().is_empty());
    rig.dropped(WAN, data(DATA, CLIENT), DropReason::FilterDrop);
}

#[test]
fn a_new_policy_leaves_expectations_as_they_are() {
    let mut rig = guarded().start();
    rig.pass(LAN, request(CLIENT, SERVER));
    let known = StateMask::ESTABLISHED.with(StateMask::RELATED);
    rig.setup = rig.setup_with(|setup| {
        Setup { v4: Setup::default().v4, ..setup }
            .rule(V4, Filter, "FORWARD", accept().state(known))
            .drops(Filter, "FORWARD")
    });
    rig.publish();
    rig.pass(WAN, data(DATA, CLIENT));
    assert_eq!(rig.expected(), [1, 1, 1]);
}

#[test]
fn the_gateway_itself_may_ask_and_be_asked() {
    let mut rig = Setup::default().both(Raw, "PREROUTING", tftp(69)).start();
    // Nobody serves TFTP here: the request is read before it is refused.
    rig.pass(WAN, request("198.51.100.9:4000", "203.0.113.1:69"));
    let [expectation] = rig.expectations()[..] else { panic!("one") };
    assert_eq!(expectation.what.tuple.dst, address("198.51.100.9"));
}

#[test]
fn listeners_hear_of_expectations() {
    let mut rig = guarded().start();
    rig.listen();
    rig.shared.expectations.listen(true).unwrap();
    rig.pass(LAN, request(CLIENT, SERVER));
    rig.wait(2);
    rig.pass(WAN, data(DATA, CLIENT));
    let mut news = Vec::new();
    assert_eq!(rig.shared.expectations.take_news(&mut news), Ok(0));
    let told: Vec<_> = news.iter().map(|e| (e.kind, e.view.remaining_secs)).collect();
    assert_eq!(told, [(News::New, 300), (News::Destroy, 298)]);
}

/// Frames come in on either lcore; the table is one.
#[test]
fn a_child_may_come_in_anywhere() {
    let setup = Setup::default().both(Raw, "PREROUTING", tftp(69)).rule(
        V4,
        Nat,
        "POSTROUTING",
        masquerade(),
    );
    let mut pair = Pair::with_queues(setup, 2);
    for (asks, answers, port) in [(0, 1, 4001), (1, 0, 4002), (0, 0, 4003), (1, 1, 4004)] {
        let client = format!("192.168.1.2:{port}");
        let (_, asked) = pair.pass(asks, LAN, request(&client, SERVER));
        assert_eq!(asked.flow(), format!("203.0.113.1:{port} > {SERVER}"));
        assert_eq!(pair.shared.expectations.count(), 1);
        let wan = format!("203.0.113.1:{port}");
        let from = format!("198.51.100.7:{port}");
        let master = mark_masters(&pair, port as u32);
        let (_, child) = pair.pass(answers, WAN, data(&from, &wan));
        assert_eq!(child.flow(), format!("{from} > {client}"));
        assert!(pair.shared.expectations.is_empty());
        let (_, back) = pair.pass(asks, LAN, ack(&client, &from));
        assert_eq!(back.flow(), format!("{wan} > {from}"));
        let marked = conns(&pair, |mark, _| mark == port as u32);
        assert_eq!(marked.len(), 2, "{marked:?} with {master:?}");
    }
}

/// The conns of a pair that `wanted` picks by mark and status.
fn conns(pair: &Pair, wanted: impl Fn(u32, Status) -> bool) -> Vec<ConnRef> {
    let records = &pair.shared.records;
    let numbers = (0..records.numbers(Space::V4)).map(|n| ConnRef::new(Space::V4, n));
    let picked = |number: &ConnRef| {
        let conn = records.get(*number).unwrap();
        conn.status().has(Status::CONFIRMED) && wanted(conn.mark(), conn.status())
    };
    numbers.filter(picked).collect()
}

/// Marks the masters that have no mark yet, and names them.
fn mark_masters(pair: &Pair, mark: u32) -> Vec<ConnRef> {
    let fresh = conns(pair, |mark, status| mark == 0 && !status.has(Status::EXPECTED));
    fresh.iter().for_each(|n| pair.shared.records.get(*n).unwrap().set_mark(mark));
    fresh
}
