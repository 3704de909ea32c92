//! Targets that go on: edits that the rules behind them see, marks of conns, lines of a trace.

use dataplane::conntrack::events;
use dataplane::conntrack::view::EventKind::{New, Update};
use dataplane::pipeline::by_hand::Change;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{FromLcore, LogLine};
use dataplane::rules::edit::prefix::Prefixes;
use dataplane::rules::edit::tcp_mss::SetMss;
use dataplane::rules::edit::tos::SetTos;
use dataplane::rules::edit::ttl::SetTtl;
use dataplane::rules::hook::Table::{Filter, Mangle, Nat, Raw};
use dataplane::rules::matches::{Masked, Match, Maybe, Net};
use dataplane::rules::model::Rule;
use dataplane::rules::targets::connmark::{ConnMark, MarkMode, Shift};
use dataplane::rules::targets::nflog::Nflog;
use dataplane::rules::targets::{SetMark, Target};
use dataplane::rules::template::Template;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::by_hand::{change, events as told_events, id};
use super::rig::*;
use super::rules::*;
use super::template::ct;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:80";

fn marks(mode: MarkMode, mark: u32) -> Rule {
    let shift = Shift::Left(0);
    let (ct_mask, packet_mask) = (u32::MAX, u32::MAX);
    on(Target::Connmark(ConnMark { mode, mark, ct_mask, packet_mask, shift }))
}

fn set_mark(value: u32) -> Rule {
    on(Target::Mark(SetMark { value, mask: u32::MAX }))
}

fn unmarked_not(mut rule: Rule) -> Rule {
    rule.matches.push(Match::Mark(Maybe::isnt(Masked { value: 0, mask: u32::MAX })));
    rule
}

/// As operators write it: restore, go on if there is a mark, else choose one and save it.
fn remembered_choice() -> Setup {
    let rules = [
        marks(MarkMode::Restore, 0),
        unmarked_not(accept()),
        set_mark(5),
        marks(MarkMode::Save, 0),
    ];
    rules.into_iter().fold(Setup::default(), |setup, rule| setup.both(Mangle, "PREROUTING", rule))
}

#[test]
fn a_mark_is_chosen_once_and_its_walk_remembered_from_the_third_packet_on() {
    for (family, client, server) in [(V4, CLIENT, SERVER), (V6, CLIENT6, SERVER6)] {
        let setup = remembered_choice().both(Filter, "FORWARD", count().mark(5));
        let mut rig = setup.start();
        let hits = |rig: &mut Rig| -> Vec<u64> {
            (0..4).map(|at| rig.count(family, Mangle, "PREROUTING", Some(at)).0).collect()
        };
        rig.pass(LAN, udp(client, server));
        assert_eq!((hits(&mut rig), rig.conn().mark), (vec![1, 0, 1, 1], 5));
        rig.pass(LAN, udp(client, server));
        assert_eq!((hits(&mut rig), rig.fast()), (vec![2, 1, 1, 1], 0));
        rig.pass(LAN, udp(client, server));
        assert_eq!((hits(&mut rig), rig.fast()), (vec![3, 2, 1, 1], 1));
        // Answers have the mark too, and are remembered by themselves.
        for _ in 0..3 {
            rig.pass(WAN, udp(server, client));
        }
        assert_eq!((hits(&mut rig), rig.fast()), (vec![6, 5, 1, 1], 3));
        assert_eq!(rig.count(family, Filter, "FORWARD", Some(0)).0, 6);
        // Taken away by hand, it is chosen anew.
        let conn = id(&rig.conn());
        let none = Change { mark: Some((0, u32::MAX)), ..Change::default() };
        assert_eq!(change(&mut rig, &[conn], none)[0].0.mark, 0);
        rig.pass(LAN, udp(client, server));
        assert_eq!((hits(&mut rig), rig.conn().mark), (vec![7, 5, 2, 2], 5));
    }
}

#[test]
fn a_mark_that_a_packet_sets_ends_what_was_remembered_of_both_directions() {
    let mut rig = Setup::default()
        .rule(V4, Mangle, "PREROUTING", marks(MarkMode::Restore, 0))
        .rule(V4, Filter, "FORWARD", count().mark(9))
        .rule(V4, Mangle, "POSTROUTING", marks(MarkMode::Set, 9).in_port("wan"))
        .start();
    for _ in 0..3 {
        rig.pass(LAN, udp(CLIENT, SERVER));
    }
    assert_eq!((rig.fast(), rig.count(V4, Filter, "FORWARD", Some(0)).0), (1, 0));
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!((rig.conn().mark, rig.count(V4, Filter, "FORWARD", Some(0)).0), (9, 0));
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, 2);
    let fast = rig.fast();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!((rig.count(V4, Filter, "FORWARD", Some(0)).0, rig.fast() - fast), (4, 2));
}

#[test]
fn marks_are_told_where_they_have_changed() {
    let set = |mark, port| marks(MarkMode::Set, mark).in_port(port);
    let mut rig = Setup::default()
        .rule(V4, Mangle, "PREROUTING", set(1, "lan"))
        .rule(V4, Mangle, "PREROUTING", set(2, "wan"))
        .both(Raw, "PREROUTING", ct(Template { ct_events: events::MARK, ..Template::default() }))
        .start();
    rig.listen();
    let told = |rig: &mut Rig| -> Vec<_> {
        told_events(rig).into_iter().map(|event| (event.kind, event.conn.mark)).collect()
    };
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(told(&mut rig), [], "a beginning is another event");
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(told(&mut rig), [(Update, 2)]);
    rig.pass(WAN, udp(SERVER, CLIENT));
    assert_eq!(told(&mut rig), []);
    let mut rig = Setup::default().rule(V4, Mangle, "FORWARD", set(7, "lan")).start();
    rig.listen();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(told(&mut rig), [(New, 7)]);
}

#[test]
fn a_packet_without_conn_neither_gives_nor_takes_marks() {
    let mut rig = Setup::default()
        .rule(V4, Raw, "PREROUTING", set_mark(3))
        .rule(V4, Raw, "PREROUTING", marks(MarkMode::Save, 0))
        .rule(V4, Raw, "PREROUTING", marks(MarkMode::Restore, 0))
        .rule(V4, Raw, "PREROUTING", count().mark(3))
        .start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.count(V4, Raw, "PREROUTING", Some(3)).0, 1);
    assert_eq!(rig.conn().mark, 0);
}

#[test]
fn marks_of_the_nat_table_stay_with_the_packet() {
    let mut rig = Setup::default()
        .rule(V4, Nat, "PREROUTING", set_mark(3))
        .rule(V4, Filter, "FORWARD", count().mark(3))
        .start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, udp(CLIENT, SERVER));
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, 1, "the first packet alone");
}

fn lines(rig: &mut Rig) -> Vec<LogLine> {
    let line = |message| match message {
        FromLcore::Log(line) => line,
        other => panic!("{other:?}"),
    };
    std::mem::take(&mut rig.told).into_iter().map(line).collect()
}

#[test]
fn each_rule_sees_the_packet_as_the_rules_before_it_have_left_it() {
    let tos = |value| on(Target::Tos(SetTos { value, mask: 0xff }));
    let mut rig = Setup::default()
        .rule(V4, Mangle, "FORWARD", log("a"))
        .rule(V4, Mangle, "FORWARD", tos(0x20))
        .rule(V4, Mangle, "FORWARD", set_mark(7))
        .rule(V4, Mangle, "FORWARD", log("b"))
        .rule(V4, Mangle, "FORWARD", on(Target::Ttl(SetTtl::To(9))))
        .rule(V4, Mangle, "FORWARD", log("c"))
        .start();
    for _ in 0..2 {
        let sent = rig.pass(LAN, udp(CLIENT, SERVER));
        assert_eq!((sent.headers().tos, sent.headers().ttl), (0x20, 9));
        let seen: Vec<_> = lines(&mut rig)
            .into_iter()
            .map(|line| (line.prefix.to_string(), line.head[15], line.head[22], line.mark))
            .collect();
        let expected = [("a", 0, 63, 0), ("b", 0x20, 63, 7), ("c", 0x20, 9, 7)]
            .map(|(prefix, tos, ttl, mark)| (prefix.to_owned(), tos, ttl, mark));
        assert_eq!(seen, expected);
    }
    assert_eq!(rig.fast(), 0, "packets that are edited walk");
}

#[test]
fn a_packet_that_has_grown_is_counted_so_and_leaves_so() {
    for (family, client, server, most) in
        [(V4, CLIENT, SERVER, [2, 24]), (V6, CLIENT6, SERVER6, [4, 196])]
    {
        let mss = on(Target::Tcpmss(SetMss::To(1400))).proto(6);
        let mut rig = Setup::default()
            .rule(family, Mangle, "FORWARD", count())
            .rule(family, Mangle, "FORWARD", mss)
            .rule(family, Mangle, "FORWARD", count())
            .rule(family, Nat, "POSTROUTING", masquerade())
            .start();
        let sent = rig.pass(LAN, tcp(client, server, SYN, 1, 0));
        let h = sent.headers();
        assert_eq!(sent.bytes[h.l4 as usize + 20..], [&[2, 4][..], &most].concat());
        let bytes = |rig: &mut Rig, at| rig.count(family, Mangle, "FORWARD", Some(at)).1;
        let before = bytes(&mut rig, 0);
        assert_eq!((bytes(&mut rig, 1), bytes(&mut rig, 2)), (before, before + 4));
        let from = sent.flow();
        let outside = from.split(" > ").next().unwrap();
        // The answer has one already, and what follows has no SYN: nothing is added behind data.
        let options = [2, 4, 5, 180];
        rig.pass(WAN, tcp(server, outside, SYN | ACK, 9, 2).options(&options));
        let data = rig.pass(LAN, tcp(client, server, ACK, 2, 10).payload(b"data"));
        assert_eq!(data.headers().l4_len(), 24);
    }
}

#[test]
fn what_was_renamed_is_tested_by_its_new_name() {
    let bits = |text: &str| (address(text).bits(), 64);
    let prefixes = Prefixes { from: bits("2001:db8:5::"), to: bits("2001:db8:1::") };
    let mut rig = Setup::default()
        .rule(V6, Mangle, "PREROUTING", on(Target::Dnpt(prefixes)).in_port("wan"))
        .rule(V6, Mangle, "PREROUTING", count().dst("2001:db8:1::", 64))
        .rule(V6, Mangle, "PREROUTING", count().dst("2001:db8:5::", 64))
        .start();
    // The host 2001:db8:1::2 outside: the prefixes' difference is in the identifier's first word.
    let outside = "[2001:db8:5:0:fffb::2]:4000";
    let sent = rig.pass(WAN, udp(SERVER6, outside));
    assert_eq!(sent.flow(), format!("{SERVER6} > {CLIENT6}"));
    assert_eq!(rig.count(V6, Mangle, "PREROUTING", Some(1)).0, 1);
    assert_eq!(rig.count(V6, Mangle, "PREROUTING", Some(2)).0, 0);
    // One that cannot be renamed is the sender's problem.
    let none = "[2001:db8:5:0:ffff:ffff:ffff:ffff]:4000";
    let sent = rig.answered(WAN, udp(SERVER6, none), DropReason::MangleDrop);
    let (kind, code, pointer, _) = sent.icmp();
    assert_eq!((sent.port, kind, code, pointer), (WAN, 4, 0, 24));
}

#[test]
fn a_network_is_mapped_host_by_host_and_answers_find_back() {
    let net = Net { address: address("203.0.113.128"), mask: 0xffff_ff80 };
    let mut rig = Setup::default()
        .rule(V4, Nat, "POSTROUTING", on(Target::Netmap(net)).out_port("wan"))
        .start();
    let sent = rig.pass(LAN, udp("192.168.1.3:4000", SERVER));
    assert_eq!(sent.flow(), format!("203.0.113.131:4000 > {SERVER}"));
    let sent = rig.pass(WAN, udp(SERVER, "203.0.113.131:4000"));
    assert_eq!(sent.flow(), format!("{SERVER} > 192.168.1.3:4000"));
}

#[test]
fn nflog_tells_group_and_prefix() {
    let nflog = Nflog { group: 5, prefix: "p".repeat(127), size: Some(64), threshold: 3 };
    let mut rig = Setup::default().both(Filter, "FORWARD", on(Target::Nflog(nflog))).start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, udp(CLIENT, SERVER));
    let told = lines(&mut rig);
    assert_eq!(told.len(), 2);
    assert_eq!((told[1].group, told[1].prefix.len()), (Some((5, Some(64))), 127));
}

/// The lines of the legacy tables: the rule that begins it is not told of, ends of chains are, and
/// a rule without test that decides is as an end.
#[test]
fn a_trace_tells_of_every_rule_in_every_table_from_there_on() {
    let jump = |name: &str| on(Target::Jump(name.to_owned()));
    let goto = |name: &str| on(Target::Goto(name.to_owned()));
    let mut rig = Setup::default()
        .rule(V4, Raw, "PREROUTING", count())
        .rule(V4, Raw, "PREROUTING", on(Target::Trace).proto(17))
        .rule(V4, Raw, "PREROUTING", count())
        .rule(V4, Mangle, "PREROUTING", jump("u"))
        .rule(V4, Mangle, "u", count())
        .rule(V4, Mangle, "u", on(Target::Return).proto(6))
        .rule(V4, Mangle, "FORWARD", goto("v"))
        .rule(V4, Mangle, "v", on(Target::Return))
        .rule(V4, Filter, "FORWARD", count().proto(6))
        .rule(V4, Filter, "FORWARD", jump("w"))
        .rule(V4, Filter, "w", accept().proto(17))
        .rule(V4, Mangle, "POSTROUTING", accept())
        .start();
    let expected = [
        "raw:PREROUTING:rule:3",
        "raw:PREROUTING:policy:4",
        "mangle:PREROUTING:rule:1",
        "mangle:u:rule:1",
        "mangle:u:return:3",
        "mangle:PREROUTING:policy:2",
        "mangle:FORWARD:rule:1",
        "mangle:v:return:1",
        "mangle:FORWARD:policy:2",
        "filter:FORWARD:rule:2",
        "filter:w:rule:1",
        "mangle:POSTROUTING:policy:1",
    ];
    for _ in 0..2 {
        rig.pass(LAN, udp(CLIENT, SERVER));
        let told: Vec<String> =
            lines(&mut rig).into_iter().map(|line| line.prefix.to_string()).collect();
        let expected: Vec<String> = expected.iter().map(|at| format!("TRACE: {at} ")).collect();
        assert_eq!(told, expected);
    }
    assert_eq!(rig.fast(), 0);
    rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 1, 0));
    assert!(lines(&mut rig).is_empty());
}
