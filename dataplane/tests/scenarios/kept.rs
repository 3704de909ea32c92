//! Matches that keep something from packet to packet.

use dataplane::conntrack::state::Direction;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::hook::Table::{Filter, Raw};
use dataplane::rules::matches::connbytes::{Connbytes, Counted};
use dataplane::rules::matches::hashlimit::{By, Hashlimit, Shape};
use dataplane::rules::matches::limit::Limit;
use dataplane::rules::matches::recent::{Ask, Recent};
use dataplane::rules::matches::{Match, Maybe};
use dataplane::rules::model::Rule;

use super::rig::*;
use super::rules::*;
use super::tracking::udp;

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
