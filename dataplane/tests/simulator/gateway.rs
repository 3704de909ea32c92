//! The gateway of the scripts: two ports, rules of every kind that NAT and filters have.
//!
//! ```text
//!  192.168.1.0/24    lan 192.168.1.1/24         203.0.113.1/24, .10 wan    203.0.113.254
//!  2001:db8:1::/64 ----- 2001:db8:1::1/64       2001:db8:2::1/64 ------- 2001:db8:2::fe
//!                                                                         (everybody else)
//! ```

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::policies::Policies;
use dataplane::lcore::simulator::Simulator;
use dataplane::pipeline::route::{PortAddress, RouteKind, Routes, StaticRoute};
use dataplane::pipeline::snapshot::{
    FamilyRules, InterfaceAddress, Keeping, PortKind, PortSettings, Snapshot,
};
use dataplane::rules::compiled::Compiled;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::matches::{
    Basics, Conntrack, Match, Maybe, Net, PortRange, StateMask, Tcp, Udp,
};
use dataplane::rules::model::{Counters, Place, Policy, Rule, Ruleset};
use dataplane::rules::targets::{NatOptions, Target};
use dataplane::wire::address::Address;
use dataplane::wire::ethernet::Mac;

pub(crate) const LAN: PortId = PortId(0);
pub(crate) const WAN: PortId = PortId(1);
const PORT_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0x10, 1]), Mac([2, 0, 0, 0, 0x20, 1])];
const UPSTREAM: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
/// Hosts whose MAC address the gateway has to ask for.
const UNKNOWN: [u8; 2] = [6, 7];
/// Packets of conns that have an answer, and what belongs to them.
const KNOWN: StateMask = StateMask::ESTABLISHED.with(StateMask::RELATED);

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// An address from its text.
pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

/// The gateway's MAC address at a port.
pub(crate) fn port_mac(port: PortId) -> Mac {
    PORT_MACS[port.0 as usize]
}

/// The MAC address of whoever is at an address behind a port.
pub(crate) fn mac_of(port: PortId, at: IpAddr) -> Mac {
    let last = match at {
        IpAddr::V4(a) => a.octets()[3],
        IpAddr::V6(a) => a.octets()[15],
    };
    if port == LAN { Mac([2, 0, 0, 1, 0, last]) } else { UPSTREAM }
}

/// Enters the neighbours that need not be asked for.
pub(crate) fn introduce(simulator: &Simulator) {
    let now = simulator.now().tick;
    let enter = |port: PortId, at: &str| {
        let mac = mac_of(port, at.parse().unwrap()).0;
        simulator.neighbours().set_permanent(port.0, address(at), mac, now).unwrap();
    };
    enter(WAN, "203.0.113.254");
    enter(WAN, "2001:db8:2::fe");
    for host in (2..32).filter(|host| !UNKNOWN.contains(host)) {
        enter(LAN, &format!("192.168.1.{host}"));
    }
    for host in 2..8 {
        enter(LAN, &format!("2001:db8:1::{host}"));
    }
}

/// A rule in the making.
pub(crate) fn on(target: Target) -> Rule {
    Rule {
        place: Place::default(),
        counters: Counters::default(),
        basics: Basics::default(),
        matches: Vec::new(),
        target,
    }
}

/// `--to-source`, `--to-destination`.
pub(crate) fn to(a: &str, port: Option<u16>) -> NatOptions {
    let addresses = Some((address(a), address(a)));
    NatOptions { addresses, ports: port.map(|p| (p, p)), ..NatOptions::default() }
}

/// The tests of a rule, added one by one.
pub(crate) trait Tests: Sized {
    fn src(self, net: &str, bits: u32) -> Self;
    fn dst(self, net: &str, bits: u32) -> Self;
    fn from(self, port: &str) -> Self;
    fn out(self, port: &str) -> Self;
    fn state(self, states: StateMask) -> Self;
    fn ports(self, proto: u8, source: Option<u16>, destination: Option<u16>) -> Self;
}

fn net(text: &str, bits: u32) -> Option<Maybe<Net>> {
    let mask = (u32::MAX << (32 - bits)) as u128;
    Some(Maybe::is(Net { address: address(text), mask }))
}

impl Tests for Rule {
    fn src(mut self, text: &str, bits: u32) -> Rule {
        self.basics.src = net(text, bits);
        self
    }

    fn dst(mut self, text: &str, bits: u32) -> Rule {
        self.basics.dst = net(text, bits);
        self
    }

    fn from(mut self, port: &str) -> Rule {
        self.basics.in_port = Some(Maybe::is(port.into()));
        self
    }

    fn out(mut self, port: &str) -> Rule {
        self.basics.out_port = Some(Maybe::is(port.into()));
        self
    }

    fn state(mut self, states: StateMask) -> Rule {
        let asked = Conntrack { state: Some(Maybe::is(states)), ..Conntrack::default() };
        self.matches.push(Match::Conntrack(Box::new(asked)));
        self
    }

    fn ports(mut self, proto: u8, source: Option<u16>, destination: Option<u16>) -> Rule {
        let one = |port: Option<u16>| port.map(|p| Maybe::is(PortRange::one(p)));
        let (src_port, dst_port) = (one(source), one(destination));
        self.basics.proto = Some(Maybe::is(proto));
        self.matches.push(match proto {
            TCP => Match::Tcp(Tcp { src_port, dst_port, ..Tcp::default() }),
            _ => Match::Udp(Udp { src_port, dst_port }),
        });
        self
    }
}

/// Appends rules to a base chain.
pub(crate) fn append(set: &mut Ruleset, table: Table, chain: &str, rules: Vec<Rule>) {
    set.table_mut(table).chain_mut(chain).unwrap().rules.extend(rules);
}

fn deny_rest(set: &mut Ruleset) {
    let forward = set.table_mut(Table::Filter).chain_mut("FORWARD").unwrap();
    forward.base.as_mut().unwrap().policy = Policy::Drop;
}

/// What the IPv4 rules deny of UDP port 7000.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Nothing,
    /// New conns.
    New,
    /// All that goes there and comes from there.
    All,
}

/// The IPv4 rules. What is untracked is named by both ports: one alone may be what NAT draws for
/// another talk.
pub(crate) fn rules_v4(denied: Denied) -> Ruleset {
    let mut set = Ruleset::new(Family::V4);
    let redirect = NatOptions { ports: Some((53, 53)), ..NatOptions::default() };
    let untracked = |rule: Rule| rule.ports(UDP, Some(6081), Some(6081));
    let both_first = |rule: Rule| rule.ports(UDP, Some(4500), Some(4500));
    let [at_7000, all] = [Denied::New, Denied::All]
        .map(|which| if denied == which { Target::Drop } else { Target::None });
    append(
        &mut set,
        Table::Raw,
        "PREROUTING",
        vec![untracked(on(Target::Notrack)), on(Target::None).from("lan")],
    );
    append(
        &mut set,
        Table::Mangle,
        "PREROUTING",
        vec![
            on(Target::None).from("wan").ports(TCP, None, None).state(KNOWN),
            on(Target::None).ports(TCP, None, None),
        ],
    );
    append(
        &mut set,
        Table::Nat,
        "PREROUTING",
        vec![
            both_first(on(Target::Accept)),
            on(Target::Dnat(to("192.168.1.20", Some(8080)))).dst("203.0.113.1", 32).ports(
                TCP,
                None,
                Some(80),
            ),
            on(Target::Dnat(to("192.168.1.21", None))).dst("203.0.113.1", 32).ports(
                UDP,
                None,
                Some(5353),
            ),
            on(Target::Redirect(redirect)).from("lan").ports(UDP, None, Some(5300)),
        ],
    );
    append(
        &mut set,
        Table::Nat,
        "POSTROUTING",
        vec![
            both_first(on(Target::Accept)),
            on(Target::Accept).out("wan").dst("198.18.0.0", 15),
            on(Target::Snat(to("203.0.113.10", None))).out("wan").src("192.168.1.8", 29),
            on(Target::Masquerade(NatOptions::default())).out("wan"),
        ],
    );
    count_own(&mut set, all);
    append(
        &mut set,
        Table::Filter,
        "FORWARD",
        vec![
            untracked(on(Target::Accept)),
            both_first(on(Target::Accept)),
            on(Target::Accept).state(KNOWN),
            on(Target::Drop).state(StateMask::INVALID),
            on(at_7000).ports(UDP, None, Some(7000)).state(StateMask::NEW),
            on(Target::Accept).from("lan").state(StateMask::NEW),
            on(Target::Accept).from("wan").state(StateMask::DNAT),
        ],
    );
    deny_rest(&mut set);
    set
}

/// Counts what comes to the gateway and goes from it, and does this to all of UDP port 7000.
fn count_own(set: &mut Ruleset, at_7000: Target) {
    append(set, Table::Filter, "INPUT", vec![on(Target::None).state(StateMask::NEW)]);
    append(set, Table::Filter, "OUTPUT", vec![on(Target::None).state(KNOWN)]);
    let there = on(at_7000.clone()).ports(UDP, None, Some(7000));
    let back = on(at_7000).ports(UDP, Some(7000), None);
    append(set, Table::Filter, "FORWARD", vec![there, back]);
}

/// The IPv6 rules: a firewall.
pub(crate) fn rules_v6() -> Ruleset {
    let mut set = Ruleset::new(Family::V6);
    append(
        &mut set,
        Table::Filter,
        "FORWARD",
        vec![on(Target::Accept).state(KNOWN), on(Target::Accept).from("lan").state(StateMask::NEW)],
    );
    deny_rest(&mut set);
    set
}

/// Timeouts as the scripts expect them; all multiples of ten seconds.
pub(crate) fn knobs(acct: bool) -> Knobs {
    let mut knobs = Knobs::default();
    knobs.set("tcp_timeout_established", 300).unwrap();
    knobs.set("timestamp", 1).unwrap();
    // What is torn in a phase is gone when the table is looked at.
    knobs.set("ipfrag_time", 2).unwrap();
    knobs.set("acct", acct as u64).unwrap();
    knobs
}

/// A policy for this many lcores.
pub(crate) fn snapshot(
    generation: u32,
    lcores: u8,
    (v4, v6): (&Ruleset, &Ruleset),
    (knobs, keeping): (Knobs, Keeping),
) -> Arc<Snapshot> {
    let names = ["lan", "wan"];
    let own = [
        (0, "192.168.1.1", 24),
        (0, "2001:db8:1::1", 64),
        (1, "203.0.113.1", 24),
        (1, "203.0.113.10", 24),
        (1, "2001:db8:2::1", 64),
    ];
    let port = |number: usize| PortSettings {
        name: names[number].into(),
        mac: PORT_MACS[number].0,
        mtu: 1500,
        addresses: own
            .iter()
            .filter(|(port, ..)| *port == number)
            .map(|&(_, a, prefix)| InterfaceAddress { address: address(a), prefix })
            .collect(),
        kind: PortKind::Device,
        host_tap: None,
    };
    let addresses: Vec<PortAddress> = own
        .iter()
        .map(|&(port, a, prefix_len)| PortAddress {
            port: port as u8,
            address: address(a),
            prefix_len,
        })
        .collect();
    let route = |to: &str, prefix_len, via: &str| StaticRoute {
        to: address(to),
        prefix_len,
        via: Some(address(via)),
        port: WAN.0,
        metric: 0,
        kind: RouteKind::Unicast,
    };
    let routes = [route("0.0.0.0", 0, "203.0.113.254"), route("2000::", 3, "2001:db8:2::fe")];
    let compile =
        |r: &Ruleset| FamilyRules::new(Compiled::new(r, &names, 0).unwrap(), lcores as usize);
    Arc::new(Snapshot {
        generation,
        keeping,
        ports: Box::new([port(0), port(1)]),
        routes: Routes::new(&addresses, &routes).unwrap(),
        v4: compile(v4),
        v6: compile(v6),
        knobs,
        policies: Policies::default(),
    })
}
