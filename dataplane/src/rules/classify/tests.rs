//! Classes against the linear walk, for random rules and packets; and how little is looked at in
//! large rulesets of the shapes that there are.

use proptest::prelude::*;

use super::*;
use crate::conntrack::state::{CtState, Direction};
use crate::conntrack::tuple::proto;
use crate::rules::facts::{CtFacts, Facts, Nowhere, PortId};
use crate::rules::gate::tests::{PORTS, case, walk};
use crate::rules::hook::{Family, Table};
use crate::rules::matches::{
    Basics, Conntrack, Match, Maybe, Multiport, Net, PortRange, Side, StateMask, Tcp,
};
use crate::rules::model::{Counters, Place, Rule, Ruleset};
use crate::rules::targets::Target;
use crate::wire::address::Address;

/// Classes for every chain, however short.
fn always(classes: usize) -> Limits {
    Limits { rules: 0, look: 0, classes }
}

proptest! {
    #[test]
    fn classes_change_nothing_of_what_a_walk_does(
        (ruleset, packets) in case(40),
        most in 1..CLASSES_MAX,
    ) {
        let plain = Compiled::new(&ruleset, &PORTS, 0).map_err(|e| {
            TestCaseError::fail(e.to_string())
        })?;
        let (mut linear, mut classed, mut few) = (plain.clone(), plain.clone(), plain);
        linear.classes.clear();
        classed.classify(always(CLASSES_MAX));
        few.classify(always(most));
        prop_assert!(few.classes.iter().flatten().all(|classes| classes.classes.len() <= most));
        prop_assert!(classed.classes.iter().all(Option::is_some));
        for (facts, conn) in packets {
            let wanted = walk(&linear, &facts, conn.as_ref());
            prop_assert_eq!(&walk(&classed, &facts, conn.as_ref()), &wanted);
            prop_assert_eq!(&walk(&few, &facts, conn.as_ref()), &wanted);
        }
    }
}

fn v4(bits: u32, length: u32) -> Option<Maybe<Net>> {
    let mask = !0 << (32 - length);
    Some(Maybe::is(Net { address: Address::v4(bits & mask), mask: mask.into() }))
}

fn rule(basics: Basics, matches: Vec<Match>) -> Rule {
    let (place, counters) = (Place::default(), Counters::default());
    Rule { place, counters, basics, matches, target: Target::Accept }
}

fn to_port(low: u16, high: u16) -> Match {
    let dst_port = Some(Maybe::is(PortRange { low, high }));
    Match::Tcp(Tcp { dst_port, ..Tcp::default() })
}

fn new() -> Match {
    let state = Some(Maybe::is(StateMask::NEW));
    Match::Conntrack(Box::new(Conntrack { state, ..Conntrack::default() }))
}

fn tcp(basics: Basics) -> Basics {
    Basics { proto: Some(Maybe::is(proto::TCP)), ..basics }
}

fn compiled(family: Family, rules: Vec<Rule>) -> Compiled {
    let mut ruleset = Ruleset::new(family);
    ruleset.table_mut(Table::Filter).chain_mut("FORWARD").unwrap().rules = rules;
    Compiled::new(&ruleset, &PORTS, 0).unwrap()
}

fn packet(src: Address, dst: Address, dst_port: u16) -> Facts<'static> {
    Facts {
        in_port: Some(PortId(0)),
        out_port: Some(PortId(1)),
        src,
        dst,
        proto: proto::TCP,
        fragment_offset: 0,
        src_port: 40_000,
        dst_port,
        tcp_flags: 2,
        icmp_type: 0,
        icmp_code: 0,
        l4_valid: true,
        length: 60,
        mark: 0,
        frame: &[],
        l3_at: 0,
        l4_at: 0,
        around: &Nowhere,
        ct: CtFacts { state: CtState::New, direction: Direction::Original, conn: None },
    }
}

/// How many classes the chain has that has some, and how many rules are found in all of them for a
/// packet, whatever they say to it then.
fn found(rules: &Compiled, facts: &Facts<'_>) -> (usize, Vec<u32>) {
    let classes = rules.classes.iter().flatten().next().unwrap();
    let (bits, mut heads, mut found) = (Bits::of(facts).words(), Heads::default(), Vec::new());
    loop {
        match classes.next(&bits, &mut heads) {
            NONE => return (classes.classes.len(), found),
            rule => {
                found.push(rule);
                heads.from = rule + 1;
            }
        }
    }
}

#[test]
fn one_of_ten_thousand_sources_is_found_at_once() {
    let host = |n: u32| n.wrapping_mul(0x9e37_79b1);
    let source = |n| Basics { src: v4(host(n), 32), ..Basics::default() };
    let rules = compiled(Family::V4, (0..10_000).map(|n| rule(source(n), vec![])).collect());
    let to = Address::v4(0x0a00_0001);
    for n in [0, 1, 777, 9_999] {
        assert_eq!(found(&rules, &packet(Address::v4(host(n)), to, 80)), (1, vec![n]));
    }
    assert_eq!(found(&rules, &packet(Address::v4(host(10_000)), to, 80)), (1, vec![]));
}

#[test]
fn networks_of_all_lengths_need_few_looks() {
    let length = |n: u32| [32, 24, 32, 28, 32, 22, 30, 16][n as usize % 8];
    let address = |n: u32| n.wrapping_mul(0x9e37_79b1);
    let source = |n| Basics { src: v4(address(n), length(n)), ..Basics::default() };
    let rules = compiled(Family::V4, (0..10_000).map(|n| rule(source(n), vec![])).collect());
    for n in 0..10_000 {
        let (classes, found) = found(&rules, &packet(Address::v4(address(n)), Address::v4(1), 80));
        assert!(classes <= 4, "{classes} classes");
        assert!(found.contains(&n) && found.len() < 12, "{n}: {found:?}");
    }
}

#[test]
fn services_of_ipv6_hosts_are_found_by_their_second_halves_and_by_ports_in_lists() {
    let host = |n: u32| Address::v6(0x2001_0db8 << 96 | u128::from(n / 3));
    let ask = |n: u32| {
        let port = (n % 7) as u16 * 1000 + 80;
        match n % 3 {
            0 => to_port(port, port),
            1 => to_port(port, port + 9),
            _ => {
                let ports = vec![PortRange::one(port), PortRange::one(port + 1)];
                Match::Multiport(Multiport { side: Side::Destination, not: false, ports })
            }
        }
    };
    let service = |n| {
        let dst = Some(Maybe::is(Net { address: host(n), mask: !0 }));
        rule(tcp(Basics { dst, ..Basics::default() }), vec![ask(n), new()])
    };
    let rules = compiled(Family::V6, (0..9_999).map(service).collect());
    let from = Address::v6(1);
    for n in (0..9_999).step_by(7) {
        let port = (n % 7) as u16 * 1000 + 80;
        let (classes, found) = found(&rules, &packet(from, host(n), port));
        assert!(classes <= 2, "{classes} classes");
        assert!(found.contains(&n) && found.len() <= 3, "{n}: {found:?}");
    }
}

#[test]
fn interfaces_lead_to_their_chains() {
    let dispatch = |n: usize| Basics {
        in_port: Some(Maybe::is(["lan", "wan", "lan2"][n % 3].to_owned())),
        out_port: Some(Maybe::is(["lan+", "wan", "none"][n / 3 % 3].to_owned())),
        ..Basics::default()
    };
    let rules = compiled(Family::V4, (0..36).map(|n| rule(dispatch(n), vec![])).collect());
    let facts = packet(Address::v4(1), Address::v4(2), 80);
    assert_eq!(found(&rules, &facts), (1, vec![3, 12, 21, 30]), "in by lan, out by wan");
    let back = Facts { in_port: Some(PortId(1)), out_port: Some(PortId(2)), ..facts };
    assert_eq!(found(&rules, &back), (1, vec![1, 10, 19, 28]));
}

#[test]
fn chains_for_which_it_does_not_pay_have_none() {
    let hosts =
        |n: u32| (0..n).map(|n| rule(Basics { src: v4(n, 32), ..Basics::default() }, vec![]));
    assert!(compiled(Family::V4, hosts(23).collect()).classes.iter().all(Option::is_none));
    assert!(compiled(Family::V4, hosts(24).collect()).classes.iter().any(Option::is_some));
    // Each of them asks for something else, and one for nothing.
    let odd = |n: u32| match n % 8 {
        0 => rule(Basics { src: v4(n, 32), ..Basics::default() }, vec![]),
        1 => rule(Basics { dst: v4(n, 32), ..Basics::default() }, vec![]),
        2 => rule(tcp(Basics::default()), vec![to_port(n as u16, n as u16)]),
        3 => rule(Basics::default(), vec![new()]),
        _ => rule(Basics::default(), vec![]),
    };
    assert!(compiled(Family::V4, (0..32).map(odd).collect()).classes.iter().all(Option::is_none));
}

#[test]
fn entries_are_in_proportion_to_rules() {
    let many = |n: u16| {
        let ports = (0..15).map(|k| PortRange::one(n.wrapping_mul(97) + k * 7)).collect();
        let side = Side::Destination;
        rule(tcp(Basics::default()), vec![Match::Multiport(Multiport { side, not: false, ports })])
    };
    let rules = compiled(Family::V4, (0..500).map(many).collect());
    let classes = rules.classes.iter().flatten().next().unwrap();
    assert!(classes.entries.len() <= keys::KEYS_MAX * 500);
    assert!(classes.starts.len() <= 2 * classes.entries.len());
}
