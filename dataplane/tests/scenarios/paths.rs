//! The cached path and the walk do the same: random conversations through a gateway whose paths are
//! cached and through one where a rule that looks at every packet keeps all of them walking.

use dataplane::conntrack::state::Status;
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{Filter, Mangle, Nat};
use dataplane::rules::matches::{Conntrack, Match, Maybe, StateMask};
use dataplane::rules::model::Rule;
use dataplane::rules::targets::{SetMark, Target};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};
use proptest::prelude::*;

use super::rig::*;
use super::rules::*;

/// A policy in which the result depends on much of what a path may not forget.
pub(crate) fn policy() -> Setup {
    let established = StateMask::ESTABLISHED.with(StateMask::RELATED);
    let mark = on(Target::Mark(SetMark { value: 5, mask: u32::MAX }));
    Setup { max: 4096, burst_max: 64, ..Setup::default() }
        .both(Mangle, "PREROUTING", mark.proto(17).in_port("lan"))
        .both(Mangle, "FORWARD", count().mark(5))
        .both(Mangle, "POSTROUTING", count().state(StateMask::SNAT))
        .both(Mangle, "POSTROUTING", count().proto(17).status(Status::ASSURED))
        .both(Mangle, "FORWARD", count().flags(SYN | RST, SYN))
        .both(Mangle, "FORWARD", count().flags(SYN | RST | ACK | FIN, SYN | ACK))
        .both(Mangle, "POSTROUTING", count().flags(FIN, FIN))
        .both(Filter, "FORWARD", drop().proto(17).dport(9))
        .both(Filter, "FORWARD", on(Target::Jump("known".into())).state(established))
        .both(Filter, "known", accept().proto(6))
        .both(Filter, "known", count().in_port("wan"))
        .both(Filter, "FORWARD", accept().in_port("lan"))
        .both(Filter, "FORWARD", accept().state(established))
        .rule(V4, Filter, "FORWARD", accept().dst("192.168.1.2", 32).proto(6))
        .both(Filter, "FORWARD", drop())
        .both(Nat, "POSTROUTING", masquerade())
        .rule(
            V4,
            Nat,
            "PREROUTING",
            dnat("192.168.1.2", Some(8080)).proto(6).dport(80).dst("203.0.113.1", 32),
        )
}

/// A rule that matches nothing, and can only know that by looking at each packet.
fn looks() -> Rule {
    let never = Conntrack { expire: Some(Maybe::is((u32::MAX, u32::MAX))), ..Conntrack::default() };
    let mut rule = count();
    rule.matches = vec![Match::Conntrack(Box::new(never))];
    rule
}

/// One packet of a conversation: which conn, which way, what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    conn: u8,
    back: bool,
    what: u8,
    len: u8,
    /// Ends the burst, and lets this many hundredths of a second pass.
    pub(crate) pause: Option<u16>,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    (0..10u8, any::<bool>(), 0..12u8, any::<u8>(), proptest::option::weighted(0.3, 0..400u16))
        .prop_map(|(conn, back, what, len, pause)| Step { conn, back, what, len, pause })
}

/// The frame of a step, and where it arrives. Conns: TCP and UDP and ping in both families from the
/// LAN, one TCP conn from outside to a forwarded port, UDP to the forbidden port.
pub(crate) fn frame(s: Step, seq: &mut [[u32; 2]; 10]) -> (PortId, Vec<u8>) {
    let v6 = s.conn % 2 == 1;
    let host = if v6 { "[2001:db8:1::2]" } else { "192.168.1.2" };
    let server = if v6 { "[2001:db8:ffff::7]" } else { "198.51.100.7" };
    let us = if v6 { "[2001:db8:2::1]" } else { "203.0.113.1" };
    let payload = vec![s.len; s.len as usize % 40];
    let strip = |a: &str| ip(a.trim_matches(['[', ']']));
    let outside = s.conn == 8;
    let from_lan = s.back == outside;
    let port = if from_lan { LAN } else { WAN };
    let id = 4000 + s.conn as u16;
    let (src, dst) = match (outside, s.back) {
        (true, false) => (format!("{server}:999"), format!("{us}:80")),
        (true, true) => (format!("{host}:8080"), format!("{server}:999")),
        (false, false) => {
            (format!("{host}:{id}"), format!("{server}:{}", if s.conn > 8 { 9 } else { 80 }))
        }
        (false, true) => (format!("{server}:80"), format!("{us}:{id}")),
    };
    let packet = match s.conn {
        0 | 1 | 8 => {
            let flags = [SYN, SYN | ACK, ACK, ACK, ACK, ACK, ACK, ACK, ACK, ACK, FIN | ACK, RST]
                [s.what as usize];
            let flags = if flags == SYN && s.back { SYN | ACK } else { flags };
            let mine = seq[s.conn as usize][s.back as usize];
            let theirs = seq[s.conn as usize][!s.back as usize];
            let data = if flags == ACK { payload.len() as u32 } else { 0 };
            seq[s.conn as usize][s.back as usize] =
                mine.wrapping_add(data + (flags & (SYN | FIN) != 0) as u32);
            let packet = Packet::tcp(at(&src), at(&dst)).flags(flags).seq(mine).ack(theirs);
            let bytes = if data > 0 { &payload[..] } else { &[] };
            return (port, framed(port, &packet.payload(bytes)));
        }
        2 | 3 | 9 => Packet::udp(at(&src), at(&dst)),
        4 | 5 => Packet::udp(at(&src), at(&dst)).l4_check(if s.what == 0 { 0 } else { 1 }),
        _ => {
            let kind = match (v6, s.back) {
                (false, false) => 8,
                (false, true) => 0,
                (true, false) => 128,
                (true, true) => 129,
            };
            let (a, b) = if s.back { (server, us) } else { (host, server) };
            Packet::icmp(strip(a), strip(b), kind, 0, (id as u32) << 16 | s.len as u32)
        }
    };
    // Right checksums for the ones that were only to be without or wrong now and then.
    let packet = match (s.conn, s.what) {
        (4 | 5, w) if w > 1 => Packet::udp(at(&src), at(&dst)),
        _ => packet,
    };
    let ttl = if s.what == 5 { 1 } else { 64 };
    (port, framed(port, &packet.payload(&payload).ttl(ttl)))
}

/// Everything that can be seen from outside after a conversation.
#[derive(Debug, PartialEq)]
struct Seen {
    sent: Vec<Sent>,
    rules: [Vec<(u64, u64)>; 2],
    drops: Vec<(&'static str, u64)>,
    conns: Vec<dataplane::conntrack::view::ConnView>,
}

fn play(setup: Setup, steps: &[Step]) -> (Seen, u64) {
    let mut rig = setup.start();
    rig.strict = false;
    let mut seq = [[1000, 5000]; 10];
    let mut sent = Vec::new();
    for s in steps {
        let (port, bytes) = frame(*s, &mut seq);
        rig.push(port, MemoryFrame::new(bytes));
        if let Some(ticks) = s.pause {
            sent.extend(rig.poll());
            rig.wait_ticks(ticks as u32);
        }
    }
    sent.extend(rig.poll());
    // One burst holds the packets of a port; what leaves by different ports has no order, and a
    // cached packet may leave before another conn's that walks.
    sent.sort_by(|a, b| (a.port.0, &a.bytes).cmp(&(b.port.0, &b.bytes)));
    for s in &mut sent {
        without_ids(s);
    }
    let rules = [V4, V6].map(|family| rig.rule_counts(family));
    let mut conns = rig.list();
    for c in &mut conns {
        (c.key, c.id) = (0, 0);
    }
    conns.sort_by_key(|c| format!("{:?}", c.original));
    (Seen { sent, rules, drops: rig.drops(), conns }, rig.fast())
}

/// The identification of our own IPv4 packets counts up as they are made.
pub(crate) fn without_ids(s: &mut Sent) {
    if s.bytes[12..14] == [8, 0] && s.bytes[14 + 1] == 0xc0 {
        s.bytes[18..20].fill(0);
        s.bytes[24..26].fill(0);
    }
}

/// The rule counters without those of the rule that was put in to keep packets walking.
fn without_the_looking_rule(mut seen: Seen, setup: &Setup) -> Seen {
    for (family, counts) in [&setup.v4, &setup.v6].into_iter().zip(&mut seen.rules) {
        let chain =
            family.table(Mangle).unwrap().chains.iter().position(|c| c.name == "PREROUTING");
        let at = family
            .countables()
            .position(|c| c.table == Mangle && Some(c.chain) == chain && c.rule == Some(0));
        assert_eq!(counts.remove(at.unwrap()), (0, 0), "it matches nothing");
    }
    seen
}

fn walking(setup: Setup) -> Setup {
    let mut setup = setup;
    for family in [V4, V6] {
        let rules = setup.family(family).table_mut(Mangle);
        rules.chain_mut("PREROUTING").unwrap().rules.insert(0, looks());
    }
    setup
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn cached_and_walked_are_the_same(steps in proptest::collection::vec(step(), 1..160)) {
        let (cached, _) = play(policy(), &steps);
        let (walked, fast) = play(walking(policy()), &steps);
        prop_assert_eq!(fast, 0, "the other gateway walks");
        let walked = without_the_looking_rule(walked, &walking(policy()));
        prop_assert_eq!(&cached.drops, &walked.drops);
        prop_assert_eq!(&cached.conns, &walked.conns);
        prop_assert_eq!(&cached.rules, &walked.rules);
        prop_assert_eq!(&cached.sent, &walked.sent);
    }
}

#[test]
fn a_long_conversation_is_mostly_cached() {
    let step = |n: u32| Step {
        conn: (n % 10) as u8,
        back: n / 10 % 2 == 1,
        what: if n < 10 {
            0
        } else if n < 20 {
            1
        } else {
            2
        },
        len: n as u8,
        pause: Some(1),
    };
    let steps: Vec<Step> = (0..2000).map(step).collect();
    let (cached, fast) = play(policy(), &steps);
    let (walked, none) = play(walking(policy()), &steps);
    assert_eq!(none, 0);
    assert!(fast > 1500, "{fast}");
    let walked = without_the_looking_rule(walked, &walking(policy()));
    assert_eq!(cached, walked);
}

/// `-p tcp --tcp-flags SYN,RST SYN -j TCPMSS` and its like: what is asked of flags that no packet
/// of a path has keeps none of these from it, and each packet that has one of them is asked.
#[test]
fn asking_for_syn_and_fin_lets_data_take_the_path() {
    let asked = [
        (SYN | RST, SYN),
        (SYN | RST | ACK | FIN, SYN),
        (FIN, FIN),
        (SYN | FIN | RST, 0),
        (RST, RST),
    ];
    let setup = || {
        asked.iter().fold(Setup::default(), |setup, &(mask, set)| {
            setup.both(Mangle, "FORWARD", count().flags(mask, set))
        })
    };
    for (client, server) in
        [("192.168.1.2:4000", "198.51.100.7:80"), ("[2001:db8:1::2]:4000", "[2001:db8:ffff::7]:80")]
    {
        let mut rig = setup().start();
        let send = |rig: &mut Rig, back: bool, flags: u8, seq: u32, ack: u32, data: &[u8]| {
            let (from, to) = if back { (server, client) } else { (client, server) };
            let port = if back { WAN } else { LAN };
            let packet = Packet::tcp(at(from), at(to)).flags(flags).seq(seq).ack(ack);
            rig.pass(port, packet.payload(data));
        };
        send(&mut rig, false, SYN, 100, 0, &[]);
        send(&mut rig, true, SYN | ACK, 500, 101, &[]);
        send(&mut rig, false, ACK, 101, 501, &[]);
        assert_eq!(rig.fast(), 0);
        for n in 0..10 {
            send(&mut rig, false, ACK, 101 + n, 501 + n, &[1]);
            send(&mut rig, true, ACK, 501 + n, 102 + n, &[1]);
        }
        // The first one back in this state walks.
        assert_eq!(rig.fast(), 19);
        send(&mut rig, false, FIN | ACK, 111, 511, &[]);
        send(&mut rig, true, ACK, 511, 112, &[]);
        send(&mut rig, true, FIN | ACK, 511, 112, &[]);
        send(&mut rig, false, ACK, 112, 512, &[]);
        send(&mut rig, false, RST, 112, 0, &[]);
        assert_eq!(rig.fast(), 21);
        let family = if client.starts_with('[') { V6 } else { V4 };
        // Behind the policies of PREROUTING, INPUT and FORWARD.
        let counts = rig.rule_counts(family);
        let seen: Vec<u64> = counts[3..8].iter().map(|c| c.0).collect();
        // All packets: 28. SYN, SYN|ACK; SYN alone; two FIN; those with none; RST.
        assert_eq!(seen, [2, 1, 2, 23, 1]);
    }
}

/// A path that ends before any route is not taken by who asks for a walk either.
#[test]
fn a_path_that_ends_early_is_none_for_a_fin() {
    let none = |target: Rule| target.flags(SYN | FIN | RST, 0);
    let mut rig = Setup::default().both(Mangle, "PREROUTING", none(drop())).start();
    let tcp = |flags, seq| {
        let packet = Packet::tcp(at("192.168.1.2:4000"), at("198.51.100.7:80"));
        packet.flags(flags).seq(seq).ack(501)
    };
    rig.pass(LAN, tcp(SYN, 100));
    let back = Packet::tcp(at("198.51.100.7:80"), at("192.168.1.2:4000"));
    rig.pass(WAN, back.flags(SYN | ACK).seq(500).ack(101));
    for _ in 0..3 {
        rig.dropped(LAN, tcp(ACK, 101), DropReason::MangleDrop);
    }
    assert_eq!(rig.fast(), 2);
    rig.pass(LAN, tcp(FIN | ACK, 101));
    assert_eq!(rig.fast(), 2);
}

#[test]
fn more_paths_than_there_is_room_for_walk() {
    // Each source hits a rule of its own, so each conn has a path of its own.
    let mut setup = Setup { max: 8192, ..Setup::default() };
    for n in 0..2100u32 {
        let a = std::net::Ipv4Addr::from(0xc0a8_4000 + n).to_string();
        setup = setup.rule(V4, Filter, "FORWARD", accept().src(&a, 32));
    }
    let mut rig = setup.start();
    for _ in 0..3 {
        for n in 0..2100u32 {
            let a = std::net::Ipv4Addr::from(0xc0a8_4000 + n).to_string();
            rig.pass(LAN, Packet::udp(at(&format!("{a}:1")), at("198.51.100.7:53")));
        }
    }
    assert_eq!(rig.fast(), 2048);
    let counts = rig.rule_counts(V4);
    assert_eq!(counts.iter().filter(|c| **c == (3, 84)).count(), 2100);
}
