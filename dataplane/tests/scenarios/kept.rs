//! Matches that keep something from packet to packet.

use dataplane::conntrack::state::Direction;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::hook::Table::{Filter, Nat, Raw};
use dataplane::rules::matches::connbytes::{Connbytes, Counted};
use dataplane::rules::matches::connlimit::Connlimit;
use dataplane::rules::matches::hashlimit::{By, Hashlimit, Shape};
use dataplane::rules::matches::limit::Limit;
use dataplane::rules::matches::recent::{Ask, Recent};
use dataplane::rules::matches::{Match, Maybe};
use dataplane::rules::model::Rule;
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";

fn with(mut rule: Rule, asked: Match) -> Rule {
    rule.matches.push(asked);
    rule
}

fn limit(rate: u32, burst: u32) -> Match {
    Match::Limit(Limit { rate, per_secs: 1, burst, bucket: Default::default() })
}

/// How many of ten packets from `client` to `server` come through.
fn of_ten(rig: &mut Rig, client: &str, server: &str) -> usize {
    (0..10).map(|_| rig.send(LAN, udp(client, server)).len()).sum()
}

#[test]
fn a_limit_judges_each_packet_of_a_conn_and_outlives_a_new_policy() {
    let setup = Setup::default().drops(Filter, "FORWARD");
    let mut rig = setup.rule(V4, Filter, "FORWARD", with(accept(), limit(1, 3))).start();
    assert_eq!(of_ten(&mut rig, CLIENT, SERVER), 3);
    assert_eq!(rig.drop_count(DropReason::FilterDrop), 7);
    rig.wait(2);
    assert_eq!(of_ten(&mut rig, CLIENT, SERVER), 2);
    rig.publish();
    assert_eq!(of_ten(&mut rig, CLIENT, SERVER), 0, "the rule is the same");
    rig.wait(60);
    assert_eq!(of_ten(&mut rig, CLIENT, SERVER), 3);
}

#[test]
fn a_hashlimit_has_a_bucket_for_each_key() {
    let shape = Shape {
        period: 1_000_000,
        burst: 2,
        bytes: false,
        windows: None,
        by: By(By::SRC.0 | By::DST_PORT.0),
        masks: [32, 32],
        size: 1,
        max: 3,
        sweep_ms: 1000,
        expire_ms: 1000,
    };
    let asked = Hashlimit { name: "h".to_owned(), above: true, unit_secs: 0, shape };
    let above = with(drop(), Match::Hashlimit(Box::new(asked)));
    // In raw, so that a first packet that is dropped leaves no conn.
    let mut rig = Setup::default().rule(V4, Raw, "PREROUTING", above).start();
    assert_eq!(of_ten(&mut rig, CLIENT, SERVER), 2);
    assert_eq!(of_ten(&mut rig, "192.168.1.2:4001", SERVER), 0, "the same source and port");
    assert_eq!(of_ten(&mut rig, CLIENT, "198.51.100.7:81"), 2);
    assert_eq!(of_ten(&mut rig, "192.168.1.3:4000", SERVER), 2);
    assert_eq!(of_ten(&mut rig, "192.168.1.3:4000", "198.51.100.7:82"), 0, "no room for a key");
    rig.wait(1);
    assert_eq!(of_ten(&mut rig, "192.168.1.3:4000", "198.51.100.7:82"), 2);
}

/// Taken from Linux 6.18: of ten packets the third to the fifth match.
#[test]
fn a_conn_has_counted_the_packet_that_is_asked_about() {
    let direction = Some(Direction::Original);
    let asked = Connbytes { from: 3, to: 5, direction, counted: Counted::Packets };
    let rule = with(count(), Match::Connbytes(asked));
    for (acct, expected) in [(1, 3), (0, 0)] {
        let setup = Setup::default().rule(V4, Filter, "FORWARD", rule.clone());
        let mut rig = setup.knob("acct", acct).start();
        assert_eq!(of_ten(&mut rig, CLIENT, SERVER), 10);
        assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, expected);
    }
}

#[test]
fn recent_has_the_ttl_that_a_packet_came_with() {
    let asked = Recent {
        name: "r".to_owned(),
        ask: Maybe::is(Ask::Set),
        dst: false,
        mask: u32::MAX.into(),
        secs: 0,
        reap: false,
        hits: 0,
        ttl: false,
    };
    for (table, chain) in [(Raw, "PREROUTING"), (Filter, "FORWARD")] {
        let rule = with(count(), Match::Recent(Box::new(asked.clone())));
        let mut rig = Setup::default().rule(V4, table, chain, rule).start();
        let came = udp(CLIENT, SERVER).ttl(9);
        let left = rig.pass(LAN, came);
        assert_eq!(left.headers().ttl, 8);
        let seen = rig.snapshot.v4.rules.tables().recent("r").unwrap().seen();
        assert_eq!((seen.len(), seen[0].address, seen[0].ttl), (1, address("192.168.1.2"), 9));
    }
}

fn connlimit(limit: u32, upto: bool, dst: bool, mask: u8) -> Match {
    Match::Connlimit(Connlimit { limit, upto, dst, mask, number: Default::default() })
}

/// A client's port and a server's.
fn ends(port: u16) -> (String, String) {
    (format!("192.168.1.2:{port}"), format!("198.51.100.7:{port}"))
}

/// How many of these datagrams from one client come through.
fn begun(rig: &mut Rig, ports: std::ops::Range<u16>) -> usize {
    let send = |port| {
        let (client, server) = ends(port);
        rig.send(LAN, udp(&client, &server)).len()
    };
    ports.map(send).sum()
}

#[test]
fn conns_count_until_they_end_and_tcp_until_it_is_closed() {
    let above = with(drop(), connlimit(3, false, false, 32));
    let mut rig = Setup::default().rule(V4, Filter, "FORWARD", above).start();
    let open = |rig: &mut Rig, port| {
        let (client, server) = ends(port);
        rig.send(LAN, tcp(&client, &server, SYN, 100, 0)).len()
    };
    assert_eq!((1..6).map(|port| open(&mut rig, port)).sum::<usize>(), 3);
    assert_eq!(open(&mut rig, 2), 1, "a SYN that is sent again");
    assert_eq!(open(&mut rig, 6), 0);
    let (client, server) = ends(2);
    rig.pass(WAN, tcp(&server, &client, RST | ACK, 0, 101));
    assert_eq!((open(&mut rig, 6), open(&mut rig, 7)), (1, 0), "one was reset");
    // Closed by both ends.
    let (client, server) = ends(1);
    rig.pass(WAN, tcp(&server, &client, SYN | ACK, 500, 101));
    rig.pass(LAN, tcp(&client, &server, ACK, 101, 501));
    rig.pass(LAN, tcp(&client, &server, FIN | ACK, 101, 501));
    rig.pass(WAN, tcp(&server, &client, FIN | ACK, 501, 102));
    assert_eq!(open(&mut rig, 7), 0);
    rig.pass(LAN, tcp(&client, &server, ACK, 102, 502));
    assert_eq!((open(&mut rig, 7), open(&mut rig, 8)), (1, 0));
    // The rest goes with time.
    rig.live(200);
    assert_eq!((10..20).map(|port| open(&mut rig, port)).sum::<usize>(), 3);
}

#[test]
fn a_conn_that_does_not_come_to_be_is_not_counted() {
    let counted = with(count(), connlimit(1, false, false, 32));
    let setup = Setup::default().rule(V4, Filter, "FORWARD", counted);
    let mut rig = setup.rule(V4, Filter, "FORWARD", drop().proto(17).dport(5)).start();
    assert_eq!(begun(&mut rig, 5..6), 0);
    assert_eq!(begun(&mut rig, 5..6), 0);
    assert_eq!(begun(&mut rig, 7..8), 1);
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, 0, "never more than one");
    assert_eq!(begun(&mut rig, 5..6), 0);
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, 1, "itself and the one that lives");
}

#[test]
fn hosts_are_counted_by_their_network_and_destinations_as_they_are_translated() {
    let sources = with(drop(), connlimit(4, false, false, 24));
    let mut rig = Setup::default().rule(V4, Filter, "FORWARD", sources).start();
    assert_eq!(begun(&mut rig, 1..4), 3);
    assert_eq!(of_ten(&mut rig, "192.168.1.3:9", SERVER), 10, "one conn");
    assert_eq!(of_ten(&mut rig, "192.168.1.4:9", SERVER), 0);

    let setup = Setup::default().rule(V4, Nat, "PREROUTING", dnat("198.51.100.99", None));
    let destinations = with(accept(), connlimit(2, true, true, 32));
    let setup = setup.rule(V4, Filter, "FORWARD", destinations).drops(Filter, "FORWARD");
    let mut rig = setup.start();
    assert_eq!(of_ten(&mut rig, CLIENT, "198.51.100.7:80"), 10);
    assert_eq!(of_ten(&mut rig, CLIENT, "198.51.100.8:81"), 10);
    assert_eq!(of_ten(&mut rig, CLIENT, "198.51.100.9:82"), 0);
}

#[test]
fn counts_outlive_a_new_policy_and_end_with_the_rule() {
    let above = with(drop(), connlimit(3, false, false, 32));
    let mut rig = Setup::default().rule(V4, Filter, "FORWARD", above).start();
    assert_eq!(begun(&mut rig, 1..6), 3);
    rig.publish();
    assert_eq!(begun(&mut rig, 6..8), 0, "the rule is the same");
    rig.setup.v4.renew();
    rig.publish();
    assert_eq!(begun(&mut rig, 6..18), 3, "it knows nothing of those that are there");
}

/// Taken from Linux 6.18: conns that were there before the rule are counted with their next
/// packet, and an answer has its conn counted under its own source.
#[test]
fn any_packet_has_its_conn_counted() {
    let above = with(drop(), connlimit(2, false, false, 32));
    let mut rig = Setup::default().start();
    assert_eq!(begun(&mut rig, 1..4), 3);
    rig.setup = rig.setup_with(|setup| setup.rule(V4, Filter, "FORWARD", above));
    rig.publish();
    assert_eq!(begun(&mut rig, 1..4), 2);
    assert_eq!(begun(&mut rig, 1..4), 0, "the third lives, whatever became of its packet");
    let mut answers = |ports: std::ops::Range<u16>| {
        let send = |port| {
            let (client, server) = ends(port);
            rig.send(WAN, udp(&server, &client)).len()
        };
        ports.map(send).sum::<usize>()
    };
    assert_eq!((answers(1..4), answers(1..4)), (2, 0));
}
