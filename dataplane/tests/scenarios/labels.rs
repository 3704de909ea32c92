//! Labels of conns, set by rules and by tools.

use dataplane::conntrack::events;
use dataplane::conntrack::tuple::proto;
use dataplane::conntrack::view::EventKind::{Destroy, New, Update};
use dataplane::pipeline::by_hand::{Change, NewConn, Refusal};
use dataplane::rules::hook::Table::{Filter, Mangle, Raw};
use dataplane::rules::matches::{Connlabel, Match, Maybe};
use dataplane::rules::model::Rule;
use dataplane::rules::template::Template;

use super::by_hand::{change, create, events, id, new_conn};
use super::rig::*;
use super::rules::*;
use super::template::ct;
use super::tracking::udp;

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:80";

fn label(mut rule: Rule, label: Maybe<u8>, set: bool) -> Rule {
    rule.matches.push(Match::Connlabel(Connlabel { label, set }));
    rule
}

#[test]
fn s81_conns_have_labels_if_a_rule_knows_any_when_they_begin() {
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        // What sets it is the other family's rule.
        let knows = label(count(), Maybe::is(127), false);
        let family = if client == CLIENT { V6 } else { V4 };
        let mut rig = Setup::default().start();
        let wish = Change { labels: Some((1 << 9, 0)), mark: Some((1, !0)), ..Change::default() };
        rig.pass(LAN, udp(client, server));
        let old = rig.conn();
        rig.setup = std::mem::take(&mut rig.setup).rule(family, Filter, "INPUT", knows);
        rig.publish();
        let done = change(&mut rig, &[id(&old)], wish);
        // The mark comes before the refusal.
        assert_eq!((done[0].0.labels, done[0].0.mark, done[0].1), (0, 1, Err(Refusal::NoRoom)));
        rig.wait(31);
        assert_eq!(rig.sweep(), 1);
        rig.pass(LAN, udp(client, server));
        let new = rig.conn();
        let done = change(&mut rig, &[id(&new)], wish);
        assert_eq!((done[0].0.labels, done[0].1), (1 << 9, Ok(())));
        let wish = Change { labels: Some((1 << 127, 1 << 9)), ..Change::default() };
        assert_eq!(change(&mut rig, &[id(&new)], wish)[0].0.labels, 1 << 127);
        assert_eq!(rig.conn().labels, 1 << 127);
    }
}

#[test]
fn a_conn_made_by_hand_takes_labels_where_it_can() {
    for knows in [false, true] {
        let rule = if knows { label(count(), Maybe::is(0), false) } else { count() };
        let mut rig = Setup::default().rule(V4, Filter, "INPUT", rule).start();
        rig.listen();
        let made = NewConn { labels: 1 << 64 | 1, ..new_conn(proto::UDP, CLIENT, SERVER) };
        assert_eq!(create(&mut rig, made), Ok(()));
        let expected = if knows { 1 << 64 | 1 } else { 0 };
        assert_eq!(rig.conn().labels, expected);
        let told = events(&mut rig);
        assert_eq!((told[0].kind, told[0].conn.labels), (New, expected));
    }
}

fn out(rig: &mut Rig) {
    rig.pass(LAN, udp(CLIENT, SERVER));
}

fn back(rig: &mut Rig) {
    rig.pass(WAN, udp(SERVER, CLIENT));
}

/// Which rules of mangle FORWARD a packet has hit, and the conn's labels afterwards.
fn hits(rig: &mut Rig, rules: usize, send: impl FnOnce(&mut Rig)) -> (Vec<u64>, u128) {
    let counts = |rig: &mut Rig| -> Vec<u64> {
        let one = |rule| rig.count(V4, Mangle, "FORWARD", Some(rule)).0;
        (0..rules).map(one).collect()
    };
    let before = counts(rig);
    send(rig);
    let after = counts(rig);
    (after.iter().zip(before).map(|(after, before)| after - before).collect(), rig.conn().labels)
}

#[test]
fn s81_a_rule_sees_and_sets_labels_packet_by_packet() {
    let rules = [
        label(count(), Maybe::is(3), false),
        label(count(), Maybe::isnt(3), false),
        label(count().in_port("wan"), Maybe::is(3), true),
        label(count(), Maybe::is(3), false),
        label(count(), Maybe::isnt(3), true),
    ];
    let add = |setup: Setup, rule| setup.rule(V4, Mangle, "FORWARD", rule);
    let mut rig = rules.into_iter().fold(Setup::default(), add).start();
    // The last rule sets what it is not to find, and so does not match.
    assert_eq!(hits(&mut rig, 5, out), (vec![0, 1, 0, 0, 0], 1 << 3));
    assert_eq!(hits(&mut rig, 5, out), (vec![1, 0, 0, 1, 0], 1 << 3));
    // Taken away by hand, although the packets' way was remembered.
    for _ in 0..3 {
        assert_eq!(hits(&mut rig, 5, back), (vec![1, 0, 1, 1, 0], 1 << 3));
    }
    assert!(rig.fast() > 0);
    let conn = id(&rig.conn());
    let none = Change { labels: Some((0, u128::MAX)), ..Change::default() };
    assert_eq!(change(&mut rig, &[conn], none)[0].0.labels, 0);
    assert_eq!(hits(&mut rig, 5, back), (vec![0, 1, 1, 1, 0], 1 << 3));
}

#[test]
fn a_label_that_may_still_come_is_looked_for_again() {
    let setup = Setup::default()
        .rule(V4, Mangle, "FORWARD", label(count(), Maybe::is(3), false))
        .rule(V4, Mangle, "POSTROUTING", label(count().proto(17).dport(4000), Maybe::is(3), true));
    let mut rig = setup.start();
    for _ in 0..3 {
        assert_eq!(hits(&mut rig, 1, out), (vec![0], 0), "not yet");
    }
    assert_eq!(hits(&mut rig, 1, back), (vec![0], 1 << 3));
    assert_eq!(hits(&mut rig, 1, out), (vec![1], 1 << 3));
}

#[test]
fn a_packet_without_conn_has_no_label() {
    let setup = Setup::default()
        .rule(V4, Raw, "PREROUTING", label(count(), Maybe::is(3), true))
        .rule(V4, Raw, "PREROUTING", label(count(), Maybe::isnt(3), true));
    let mut rig = setup.start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.count(V4, Raw, "PREROUTING", Some(0)).0, 0);
    assert_eq!(rig.count(V4, Raw, "PREROUTING", Some(1)).0, 1);
    assert_eq!(rig.conn().labels, 0);
}

#[test]
fn s80_labels_are_told_where_they_have_changed() {
    let set = |rule: Rule, number| label(rule, Maybe::is(number), true);
    let mut rig = Setup::default()
        .rule(V4, Mangle, "FORWARD", set(count().in_port("lan"), 1))
        .rule(V4, Mangle, "POSTROUTING", set(count().in_port("wan"), 2))
        .start();
    rig.listen();
    let told = |rig: &mut Rig| -> Vec<_> {
        events(rig).into_iter().map(|event| (event.kind, event.conn.labels)).collect()
    };
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(told(&mut rig), [(New, 1 << 1)]);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(told(&mut rig), []);
    // With the answer, in one event.
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(told(&mut rig), [(Update, 1 << 1 | 1 << 2)]);
    rig.wait(3);
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(told(&mut rig), [(Update, 0)], "ASSURED, and nothing of labels");
    rig.wait(121);
    rig.sweep();
    assert_eq!(told(&mut rig), [(Destroy, 0)]);
}

#[test]
fn s80_a_rule_may_choose_the_class_of_labels() {
    let setup = Setup::default()
        .rule(V4, Mangle, "POSTROUTING", label(count().in_port("wan"), Maybe::is(2), true))
        .both(Raw, "PREROUTING", ct(Template { ct_events: events::LABEL, ..Template::default() }));
    let mut rig = setup.start();
    rig.listen();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(events(&mut rig).len(), 0);
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(events(&mut rig).len(), 1);
}
