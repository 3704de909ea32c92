//! The walk's meaning, case by case.

use super::check::{CheckError, Fault, MAX_DEPTH};
use super::compiled::{Compiled, CounterId};
use super::facts::{ConnFacts, CtFacts, Facts, Nowhere, PortId};
use super::hook::{Family, Hook, Table};
use super::matches::*;
use super::model::{Counters, Place, Policy, Rule, Ruleset};
use super::targets::{Log, NatOptions, RejectWith, SetMark, Target};
use super::template::{Ct, Said};
use super::walk::{NatTarget, Sink, Still, Verdict, Walked};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::{Tuple, proto};
use crate::wire::address::Address;

const PORTS: [&str; 4] = ["lan", "wan", "eth0", "eth1"];
const LAN: Option<PortId> = Some(PortId(0));
const WAN: Option<PortId> = Some(PortId(1));

#[derive(Default)]
struct Seen {
    hits: Vec<u32>,
    per_packet: bool,
    logs: Vec<String>,
}

impl Sink for Seen {
    fn change(&mut self, _: super::sets::Change) {}

    fn hit(&mut self, counter: CounterId) {
        self.hits.push(counter.0);
    }

    fn per_packet(&mut self) {
        self.per_packet = true;
    }

    fn log(&mut self, log: &Log, facts: &Facts<'_>) {
        self.logs.push(format!("{}{:x}", log.prefix, facts.mark));
    }
}

fn facts() -> Facts<'static> {
    Facts {
        in_port: LAN,
        out_port: WAN,
        src: Address::v4(0x0a01_0203),
        dst: Address::v4(0xcb00_7101),
        proto: proto::TCP,
        fragment_offset: 0,
        src_port: 40_000,
        dst_port: 80,
        tcp_flags: 0x02,
        icmp_type: 0,
        icmp_code: 0,
        l4_valid: true,
        length: 60,
        mark: 0,
        frame: &[],
        l3_at: 0,
        l4_at: 0,
        around: &Nowhere,
        ct: CtFacts::NONE,
    }
}

fn rule(matches: Vec<Match>, target: Target) -> Rule {
    Rule {
        place: Place::default(),
        counters: Counters::default(),
        basics: Basics::default(),
        matches,
        target,
    }
}

fn basic(basics: Basics, target: Target) -> Rule {
    Rule { basics, ..rule(Vec::new(), target) }
}

fn jump(name: &str) -> Rule {
    rule(vec![], Target::Jump(name.to_owned()))
}

fn goto(name: &str) -> Rule {
    rule(vec![], Target::Goto(name.to_owned()))
}

/// A filter table whose FORWARD has `rules` and the policy DROP, with user chains.
fn filter(rules: Vec<Rule>, chains: Vec<(&str, Vec<Rule>)>) -> Ruleset {
    let mut ruleset = Ruleset::new(Family::V4);
    let table = ruleset.table_mut(Table::Filter);
    for (name, rules) in chains {
        assert!(table.add_chain(name));
        table.chain_mut(name).unwrap().rules = rules;
    }
    let forward = table.chain_mut("FORWARD").unwrap();
    forward.rules = rules;
    forward.base.as_mut().unwrap().policy = Policy::Drop;
    ruleset
}

fn walk(ruleset: &Ruleset, facts: &Facts<'_>) -> (Walked, Seen) {
    let compiled = Compiled::new(ruleset, &PORTS, 0).unwrap();
    let mut seen = Seen::default();
    (compiled.walk(Table::Filter, Hook::Forward, Still(*facts), &mut seen), seen)
}

/// True if a rule with these tests matches, and whether it looked at the packet alone.
fn asks(rule: Rule, facts: &Facts<'_>) -> (bool, bool) {
    let rule = Rule { target: Target::Accept, ..rule };
    let (walked, seen) = walk(&filter(vec![rule], vec![]), facts);
    (walked.verdict == Verdict::Accept, seen.per_packet)
}

fn asks_match(asked: Match, facts: &Facts<'_>) -> bool {
    asks(rule(vec![asked], Target::None), facts).0
}

// Counters of `filter`: INPUT's policy 0, FORWARD's 1, then its rules, OUTPUT's, user chains.

#[test]
fn the_first_match_wins_and_everything_met_is_counted() {
    let rules = vec![
        rule(vec![], Target::None),
        basic(Basics { proto: Some(Maybe::is(17)), ..Basics::default() }, Target::Drop),
        rule(vec![], Target::Accept),
        rule(vec![], Target::Drop),
    ];
    let (walked, seen) = walk(&filter(rules, vec![]), &facts());
    assert_eq!(walked.verdict, Verdict::Accept);
    assert_eq!(seen.hits, [2, 4]);
    assert!(!seen.per_packet);
}

#[test]
fn without_a_match_the_policy_decides_and_counts() {
    let (walked, seen) = walk(&filter(vec![], vec![]), &facts());
    assert_eq!((walked.verdict, seen.hits), (Verdict::Drop, vec![1]));
    let compiled = Compiled::new(&filter(vec![], vec![]), &PORTS, 7).unwrap();
    assert_eq!(compiled.policy_counter(Table::Filter, Hook::Forward), Some(CounterId(8)));
    assert_eq!(compiled.counters(), 7..10);
    assert!(!compiled.is_empty(Table::Filter, Hook::Forward));
    assert!(compiled.is_empty(Table::Filter, Hook::Input));
    assert!(compiled.is_empty(Table::Mangle, Hook::Forward));
    assert_eq!(compiled.policy_counter(Table::Mangle, Hook::Forward), None);
}

#[test]
fn a_table_never_named_accepts_and_counts_nothing() {
    let compiled = Compiled::new(&Ruleset::new(Family::V6), &PORTS, 0).unwrap();
    let mut seen = Seen::default();
    let walked = compiled.walk(Table::Nat, Hook::Prerouting, Still(facts()), &mut seen);
    assert_eq!(walked, Walked { verdict: Verdict::Accept, said: None, mark: 0 });
    assert!(seen.hits.is_empty());
}

#[test]
fn return_goes_back_behind_the_jump_and_in_a_base_chain_to_the_policy() {
    let chains = vec![
        ("a", vec![jump("b"), rule(vec![], Target::Accept)]),
        ("b", vec![rule(vec![], Target::Return), rule(vec![], Target::Drop)]),
    ];
    // FORWARD 1, jump 2, return 3, OUTPUT 4, a: 5 6, b: 7 8.
    let rules = vec![jump("a"), rule(vec![], Target::Return)];
    let (walked, seen) = walk(&filter(rules.clone(), chains), &facts());
    assert_eq!((walked.verdict, seen.hits), (Verdict::Accept, vec![2, 5, 7, 6]));
    let (walked, seen) = walk(&filter(rules, vec![("a", vec![])]), &facts());
    assert_eq!((walked.verdict, seen.hits), (Verdict::Drop, vec![2, 3, 1]));
}

#[test]
fn the_end_of_a_goto_is_the_end_of_the_chain_that_said_it() {
    // FORWARD 1: jump 2, accept 3; OUTPUT 4; a: goto 5, drop 6; b: 7.
    let chains = vec![
        ("a", vec![goto("b"), rule(vec![], Target::Drop)]),
        ("b", vec![rule(vec![], Target::None)]),
    ];
    let rules = vec![jump("a"), rule(vec![], Target::Accept)];
    let (walked, seen) = walk(&filter(rules, chains.clone()), &facts());
    assert_eq!((walked.verdict, seen.hits), (Verdict::Accept, vec![2, 5, 7, 3]));
    // From a base chain: its policy.
    let (walked, seen) =
        walk(&filter(vec![goto("b"), rule(vec![], Target::Accept)], chains), &facts());
    assert_eq!((walked.verdict, seen.hits), (Verdict::Drop, vec![2, 7, 1]));
}

#[test]
fn ports_match_by_name_prefix_and_absence() {
    let on = |name: &str, not, in_port| {
        let in_port_asked = Some(Maybe { not, value: name.to_owned() });
        let asked = Basics { in_port: in_port_asked, ..Basics::default() };
        asks(basic(asked, Target::None), &Facts { in_port, ..facts() }).0
    };
    assert!(on("lan", false, LAN) && !on("lan", false, WAN) && on("lan", true, WAN));
    assert!(on("eth+", false, Some(PortId(3))) && !on("eth+", false, LAN));
    assert!(!on("eth", false, Some(PortId(2))), "a name is not a prefix");
    assert!(!on("lo", false, LAN) && on("lo", true, LAN), "an unknown name is on no port");
    assert!(!on("lan", false, None) && on("lan", true, None) && !on("eth+", false, None));
    assert!(on("+", false, None) && !on("+", true, LAN) && !on("+", true, None));
    assert!(!on("lan", false, Some(PortId(200))) && on("lan", true, Some(PortId(3))));
}

#[test]
fn addresses_match_under_masks_with_holes() {
    let src = |address: u32, mask: u32, not| {
        let value = Net { address: Address::v4(address & mask), mask: u128::from(mask) };
        let asked = Basics { src: Some(Maybe { not, value }), ..Basics::default() };
        asks(basic(asked, Target::None), &facts()).0
    };
    assert!(src(0x0a00_0000, 0xff00_0000, false) && !src(0x0a00_0000, 0xff00_0000, true));
    assert!(src(0x0a00_0003, 0xff00_00ff, false) && !src(0x0a00_0004, 0xff00_00ff, false));
    assert!(!src(0x0a01_0202, u32::MAX, false) && src(0x0a01_0202, u32::MAX, true));
}

#[test]
fn transport_tests_negate_one_by_one() {
    let port = |low, high| PortRange { low, high };
    let tcp = |tcp: Tcp| asks_match(Match::Tcp(tcp), &facts());
    assert!(tcp(Tcp { dst_port: Some(Maybe::is(port(80, 81))), ..Tcp::default() }));
    assert!(!tcp(Tcp { dst_port: Some(Maybe::isnt(port(80, 80))), ..Tcp::default() }));
    let both = Tcp {
        src_port: Some(Maybe::isnt(port(0, 1023))),
        dst_port: Some(Maybe::is(port(0, 1023))),
        ..Tcp::default()
    };
    assert!(tcp(both));
    let ports = |side, not, ports: &[(u16, u16)]| {
        let ports = ports.iter().map(|&(low, high)| PortRange { low, high }).collect();
        asks_match(Match::Multiport(Multiport { side, not, ports }), &facts())
    };
    assert!(ports(Side::Destination, false, &[(1, 1), (79, 80)]));
    assert!(!ports(Side::Source, false, &[(80, 80)]) && ports(Side::Either, false, &[(80, 80)]));
    assert!(!ports(Side::Either, true, &[(80, 80)]) && ports(Side::Source, true, &[(80, 80)]));
    assert!(!tcp(Tcp { src_port: Some(Maybe::is(port(5, 4))), ..Tcp::default() }));
}

#[test]
fn tcp_flags_that_packets_of_a_path_may_have_are_facts_of_the_packet_alone() {
    let flags = |mask, set, not| {
        let flags = Some(Maybe { not, value: TcpFlags { mask, set } });
        asks(rule(vec![Match::Tcp(Tcp { flags, ..Tcp::default() })], Target::None), &facts())
    };
    assert_eq!(flags(0x17, 0x02, false), (true, true));
    assert_eq!(flags(0x17, 0x02, true), (false, true));
    // This SYN is told the same as every packet without SYN, FIN and RST.
    assert_eq!(flags(0x12, 0x12, false), (false, false));
    assert_eq!(flags(0x05, 0x00, false), (true, false));
    assert_eq!(flags(0x10, 0x10, false), (false, true));
    // Not asked because an earlier test failed: nothing depends on the packet.
    let tcp = Tcp {
        dst_port: Some(Maybe::is(PortRange::one(81))),
        flags: Some(Maybe::is(TcpFlags { mask: 2, set: 2 })),
        ..Tcp::default()
    };
    assert_eq!(asks(rule(vec![Match::Tcp(tcp)], Target::None), &facts()), (false, false));
}

/// Of all that can be asked, and all packets that have none of SYN, FIN and RST.
#[test]
fn what_flags_say_of_plain_packets_is_known_or_differs() {
    let plain: Vec<u8> = (0..=u8::MAX).filter(|flags| flags & 0x07 == 0).collect();
    for (mask, set) in (0..0x40).flat_map(|mask| (0..0x40).map(move |set| (mask, set))) {
        let holding = plain.iter().filter(|flags| *flags & mask == set).count();
        let expected = match holding {
            0 => Some(false),
            n if n == plain.len() => Some(true),
            _ => None,
        };
        assert_eq!(TcpFlags { mask, set }.of_plain(), expected, "{mask:#x} {set:#x}");
    }
}

/// A TCP header with these options.
fn tcp_header(options: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 20];
    let words = 5 + options.len().div_ceil(4);
    header[12] = (words << 4) as u8;
    header.extend_from_slice(options);
    header.resize(words * 4, 0);
    header
}

#[test]
fn tcp_options_are_walked_by_their_lengths() {
    let has = |kind: u8, not, l4: &[u8]| {
        let option = Some(Maybe { not, value: kind });
        let asked = Match::Tcp(Tcp { option, ..Tcp::default() });
        asks_match(asked, &Facts { frame: l4, ..facts() })
    };
    let header = tcp_header(&[2, 4, 5, 180, 1, 3, 3, 7, 4, 2]);
    assert!(has(3, false, &header) && has(4, false, &header) && !has(5, false, &header));
    assert!(has(5, true, &header) && !has(3, true, &header) && has(1, false, &header));
    assert!(!has(3, false, &tcp_header(&[])) && has(3, true, &tcp_header(&[])));
    // Length 0 counts as 1, a length beyond the end ends the search.
    assert!(
        has(9, false, &tcp_header(&[8, 0, 9, 2])) && !has(9, false, &tcp_header(&[8, 99, 9, 2]))
    );
    // The options are said to reach beyond the packet: dropped, also where `!` was written.
    assert!(!has(3, true, header.get(..22).unwrap()));
}

#[test]
fn a_later_fragment_has_no_ports_and_a_header_cut_short_is_dropped() {
    let web =
        || Match::Tcp(Tcp { dst_port: Some(Maybe::isnt(PortRange::one(9))), ..Tcp::default() });
    let rules = vec![rule(vec![web()], Target::Drop), rule(vec![], Target::Accept)];
    let verdict = |facts: Facts<'_>| {
        let (walked, seen) = walk(&filter(rules.clone(), vec![]), &facts);
        (walked.verdict, seen.hits, seen.per_packet)
    };
    let later = Facts { fragment_offset: 185, ..facts() };
    assert_eq!(verdict(later), (Verdict::Accept, vec![3], true));
    // At offset 1 it would overwrite the flags: dropped by no rule's counter.
    let overwrites = Facts { fragment_offset: 1, ..facts() };
    assert_eq!(verdict(overwrites), (Verdict::Drop, vec![], true));
    let udp = Facts { proto: proto::UDP, ..overwrites };
    assert_eq!(verdict(udp).0, Verdict::Accept);
    assert_eq!(verdict(Facts { l4_valid: false, ..facts() }), (Verdict::Drop, vec![], true));
    let fragment = |not| Basics { fragment: Some(Maybe { not, value: () }), ..Basics::default() };
    assert!(asks(basic(fragment(false), Target::None), &later).0);
    assert!(!asks(basic(fragment(false), Target::None), &facts()).0);
    assert!(asks(basic(fragment(true), Target::None), &facts()).0);
}

#[test]
fn icmp_types_match_with_codes_and_any_is_any_only_in_icmp() {
    let ask = |value: (u8, u8, u8), not, number| {
        let (kind, low, high) = value;
        let value = IcmpKind { kind, low, high };
        let facts = Facts { proto: number, icmp_type: 3, icmp_code: 4, ..facts() };
        asks_match(Match::Icmp(Maybe { not, value }), &facts)
    };
    assert!(ask((3, 0, 255), false, 1) && ask((3, 4, 4), false, 1) && !ask((3, 1, 1), false, 1));
    assert!(
        ask((3, 1, 1), true, 1) && ask((255, 0, 255), false, 1) && !ask((255, 0, 255), true, 1)
    );
    assert!(!ask((255, 0, 255), false, 58));
}

fn conn(status: Status) -> ConnFacts {
    let at = |src: u32, dst: u32, src_id, dst_id| Tuple {
        src: Address::v4(src),
        dst: Address::v4(dst),
        src_id,
        dst_id,
        proto: proto::TCP,
    };
    ConnFacts {
        status,
        original: at(1, 2, 1000, 80),
        reply: at(2, 9, 80, 2000),
        expires_secs: 100,
        labels: Default::default(),
        ..ConnFacts::default()
    }
}

fn ask_ct(asked: Conntrack, state: CtState, conn: Option<ConnFacts>) -> (bool, bool) {
    let conn = conn.as_ref().map(|conn| conn as &dyn super::facts::Conn);
    let ct = CtFacts { state, direction: Direction::Original, conn };
    let facts = Facts { ct, ..facts() };
    asks(rule(vec![Match::Conntrack(Box::new(asked))], Target::None), &facts)
}

#[test]
fn states_are_those_of_the_packet() {
    let state = |mask: StateMask, not, state| {
        let value = Some(Maybe { not, value: mask });
        let asked = Conntrack { state: value, ..Conntrack::default() };
        let plain = rule(vec![Match::State(Maybe { not, value: mask })], Target::None);
        let ct = CtFacts { state, ..CtFacts::NONE };
        let answer = ask_ct(asked, state, None);
        assert_eq!(asks(plain, &Facts { ct, ..facts() }), answer);
        assert!(!answer.1);
        answer.0
    };
    let known = StateMask::ESTABLISHED.with(StateMask::RELATED);
    assert!(state(known, false, CtState::Related) && !state(known, false, CtState::New));
    assert!(state(known, true, CtState::New) && !state(known, true, CtState::Established));
    assert!(state(StateMask::INVALID, false, CtState::Invalid));
    assert!(state(StateMask::UNTRACKED, false, CtState::Untracked));
}

#[test]
fn translated_states_come_from_status_and_may_still_come_before_the_decision() {
    let snat = |status| {
        let state = Some(Maybe::is(StateMask::SNAT));
        ask_ct(Conntrack { state, ..Conntrack::default() }, CtState::New, Some(conn(status)))
    };
    assert_eq!(snat(Status::SRC_NAT.with(Status::SRC_NAT_DONE)), (true, false));
    assert_eq!(snat(Status::SRC_NAT_DONE), (false, false));
    assert_eq!(snat(Status::default()), (false, true));
}

#[test]
fn a_packet_without_conn_matches_by_state_alone() {
    let status = Some(Maybe::is(Status::ASSURED.0));
    let alone = Conntrack { status, ..Conntrack::default() };
    assert_eq!(ask_ct(alone, CtState::Invalid, None), (false, false));
    let state = Some(Maybe::is(StateMask::INVALID));
    assert_eq!(ask_ct(Conntrack { state, ..alone }, CtState::Invalid, None), (true, false));
}

#[test]
fn status_bits_that_may_still_come_make_the_answer_the_packets_own() {
    let ask = |wanted: Status, not, status| {
        let status_asked = Some(Maybe { not, value: wanted.0 });
        let asked = Conntrack { status: status_asked, ..Conntrack::default() };
        ask_ct(asked, CtState::Established, Some(conn(status)))
    };
    assert_eq!(ask(Status::ASSURED, false, Status::ASSURED), (true, false));
    assert_eq!(ask(Status::ASSURED, true, Status::default()), (true, true));
    assert_eq!(ask(Status::EXPECTED, false, Status::default()), (false, false));
    assert_eq!(ask(Status::default(), false, Status::ASSURED), (false, false), "NONE");
}

#[test]
fn tuples_direction_and_remaining_time() {
    let net = |bits: u32| Net { address: Address::v4(bits), mask: u128::from(u32::MAX) };
    let ask = |asked: Conntrack| ask_ct(asked, CtState::New, Some(conn(Status::default())));
    let blank = Conntrack::default();
    let one = |bits| Some(Maybe::is(net(bits)));
    let port = |number| Some(Maybe::is(PortRange::one(number)));
    let all = Conntrack {
        proto: Some(Maybe::is(6)),
        orig_src: one(1),
        orig_dst: one(2),
        reply_src: one(2),
        reply_dst: one(9),
        orig_src_port: port(1000),
        orig_dst_port: port(80),
        reply_src_port: port(80),
        reply_dst_port: port(2000),
        direction: Some(Direction::Original),
        ..blank
    };
    assert_eq!(ask(all), (true, false));
    assert!(!ask(Conntrack { proto: Some(Maybe::isnt(6)), ..all }).0);
    assert!(!ask(Conntrack { orig_src: one(2), ..all }).0);
    assert!(!ask(Conntrack { reply_dst: one(1), ..all }).0);
    assert!(!ask(Conntrack { reply_dst_port: port(1), ..all }).0);
    assert!(!ask(Conntrack { orig_dst_port: Some(Maybe::isnt(PortRange::one(80))), ..all }).0);
    assert!(!ask(Conntrack { direction: Some(Direction::Reply), ..all }).0);
    let expire = |low, high, not| {
        let expire = Some(Maybe { not, value: (low, high) });
        ask(Conntrack { expire, ..blank })
    };
    assert_eq!(expire(100, 100, false), (true, true));
    assert_eq!(expire(101, 200, false), (false, true));
    assert_eq!(expire(101, 200, true), (true, true));
}

#[test]
fn marks_set_on_the_way_are_seen_by_later_rules_and_logged() {
    let mark = |value, mask| Match::Mark(Maybe::is(Masked { value, mask }));
    let log = Log { prefix: "m=".to_owned(), level: 4, flags: 0 };
    let rules = vec![
        rule(vec![mark(0xf0, 0xf0)], Target::Drop),
        rule(vec![], Target::Mark(SetMark { value: 0x15, mask: 0xff })),
        rule(vec![mark(0x15, 0xff)], Target::Log(log)),
        rule(vec![], Target::Reject(RejectWith::Unreachable(13))),
    ];
    let facts = Facts { mark: 0xa0f, ..facts() };
    let (walked, seen) = walk(&filter(rules, vec![]), &facts);
    assert_eq!(walked.verdict, Verdict::Reject(RejectWith::Unreachable(13)));
    assert_eq!(walked.mark, 0xa15);
    assert_eq!((seen.logs, seen.per_packet), (vec!["m=a15".to_owned()], true));
}

#[test]
fn notrack_goes_on_and_nat_ends_the_walk() {
    let mut ruleset = Ruleset::new(Family::V4);
    let raw = ruleset.table_mut(Table::Raw).chain_mut("PREROUTING").unwrap();
    raw.rules = vec![
        rule(vec![], Target::Ct(Ct { notrack: true, ..Ct::default() })),
        rule(vec![], Target::None),
    ];
    let post = ruleset.table_mut(Table::Nat).chain_mut("POSTROUTING").unwrap();
    let options = NatOptions { ports: Some((1, 9)), random_fully: true, ..NatOptions::default() };
    post.rules = vec![rule(vec![], Target::Masquerade(options)), rule(vec![], Target::Accept)];
    let compiled = Compiled::new(&ruleset, &PORTS, 0).unwrap();
    let mut seen = Seen::default();
    let walked = compiled.walk(Table::Raw, Hook::Prerouting, Still(facts()), &mut seen);
    assert_eq!((walked.verdict, walked.said), (Verdict::Accept, Some(Said::Notrack)));
    assert_eq!(seen.hits, [1, 2, 0]);
    let walked = compiled.walk(Table::Nat, Hook::Postrouting, Still(facts()), &mut seen);
    let Verdict::Nat(NatTarget::Masquerade(range)) = walked.verdict else { panic!("{walked:?}") };
    assert_eq!((range.ports, range.random, range.addresses), (Some((1, 9)), true, None));
}

#[test]
fn rules_of_raw_see_what_was_said_of_tracking() {
    let asks = |state| {
        let asked = Conntrack { state: Some(Maybe::is(state)), ..Conntrack::default() };
        rule(vec![Match::Conntrack(Box::new(asked))], Target::None)
    };
    let says = |notrack| rule(vec![], Target::Ct(Ct { notrack, ..Ct::default() }));
    for (notrack, state) in [(true, StateMask::UNTRACKED), (false, StateMask::NEW)] {
        let mut ruleset = Ruleset::new(Family::V4);
        let raw = ruleset.table_mut(Table::Raw).chain_mut("PREROUTING").unwrap();
        // The first one counts.
        let (first, second) = (says(notrack), says(!notrack));
        raw.rules = vec![asks(StateMask::INVALID), first, second, asks(state)];
        raw.rules.push(asks(StateMask::INVALID));
        let compiled = Compiled::new(&ruleset, &PORTS, 0).unwrap();
        let mut seen = Seen::default();
        compiled.walk(Table::Raw, Hook::Prerouting, Still(facts()), &mut seen);
        assert_eq!(seen.hits, [1, 2, 3, 4, 0]);
    }
}

fn fault(ruleset: &Ruleset) -> (String, Fault) {
    let error: CheckError = Compiled::new(ruleset, &PORTS, 0).unwrap_err();
    assert!(!error.to_string().is_empty());
    (error.word, error.fault)
}

fn refused(word: &str, fault_expected: Fault, ruleset: &Ruleset) {
    assert_eq!(fault(ruleset), (word.to_owned(), fault_expected));
}

#[test]
fn what_cannot_be_walked_is_refused() {
    refused("x", Fault::UnknownChain, &filter(vec![jump("x")], vec![]));
    refused("INPUT", Fault::BaseChain, &filter(vec![goto("INPUT")], vec![]));
    refused(
        "NOTRACK",
        Fault::Table(Table::Raw),
        &filter(vec![rule(vec![], Target::Notrack)], vec![]),
    );
    let cycle = vec![("a", vec![jump("b")]), ("b", vec![goto("a")])];
    refused("a", Fault::Cycle, &filter(vec![], cycle));
    let reset = rule(vec![], Target::Reject(RejectWith::TcpReset));
    refused("REJECT", Fault::ResetNeedsTcp, &filter(vec![reset], vec![]));
    let mut ruleset = Ruleset::new(Family::V4);
    let nat = ruleset.table_mut(Table::Nat);
    nat.add_chain("u");
    nat.chain_mut("u").unwrap().rules = vec![rule(vec![], Target::Snat(NatOptions::default()))];
    nat.chain_mut("INPUT").unwrap().rules = vec![jump("u")];
    assert!(Compiled::new(&ruleset, &PORTS, 0).is_ok());
    ruleset.table_mut(Table::Nat).chain_mut("OUTPUT").unwrap().rules = vec![jump("u")];
    refused("SNAT", Fault::Hook(Hook::Output), &ruleset);
    let nat = ruleset.table_mut(Table::Nat).chain_mut("OUTPUT").unwrap();
    nat.rules = vec![];
    nat.base.as_mut().unwrap().policy = Policy::Drop;
    refused("DROP", Fault::NatDrop, &ruleset);
}

/// `count` chains, each of which has `width` jumps to the next.
fn ladder(count: usize, width: usize) -> Ruleset {
    let names: Vec<String> = (0..count).map(|at| format!("c{at:03}")).collect();
    let chains = (0..count)
        .map(|at| {
            let rules = match names.get(at + 1) {
                Some(next) => vec![jump(next); width],
                None => vec![rule(vec![], Target::Accept)],
            };
            (names[at].as_str(), rules)
        })
        .collect();
    filter(vec![jump("c000")], chains)
}

#[test]
fn depth_and_length_of_a_walk_are_bounded() {
    let deepest = ladder(MAX_DEPTH, 1);
    assert_eq!(walk(&deepest, &facts()).0.verdict, Verdict::Accept);
    assert_eq!(fault(&ladder(MAX_DEPTH + 1, 1)).1, Fault::TooDeep);
    assert_eq!(fault(&ladder(5000, 1)).1, Fault::TooDeep);
    assert_eq!(fault(&ladder(40, 2)).1, Fault::TooLong);
    assert!(Compiled::new(&ladder(10, 2), &PORTS, 0).is_ok());
}

#[test]
fn what_a_match_takes_it_takes_in_its_place() {
    use super::matches::limit::Limit;
    let limit = Limit { rate: 1, per_secs: 86_400, burst: 2, bucket: Default::default() };
    let port =
        |dst| Match::Tcp(Tcp { dst_port: Some(Maybe::is(PortRange::one(dst))), ..Tcp::default() });
    let tcp = Basics { proto: Some(Maybe::is(proto::TCP)), ..Basics::default() };
    let counts = |matches: Vec<Match>, asked: &[(u8, u16)]| -> Vec<bool> {
        let rule = Rule { basics: tcp.clone(), matches, ..rule(vec![], Target::Accept) };
        let ruleset = filter(vec![rule], vec![]);
        let holds = |&(proto, dst_port): &(u8, u16)| {
            let (walked, seen) = walk(&ruleset, &Facts { proto, dst_port, ..facts() });
            let accepted = walked.verdict == Verdict::Accept;
            assert!(seen.per_packet || !accepted, "asked of each packet");
            accepted
        };
        asked.iter().map(holds).collect()
    };
    let asked = [(17, 80), (6, 81), (6, 80), (17, 80), (6, 80), (6, 80)];
    let first = vec![Match::Limit(limit.clone()), port(80)];
    assert_eq!(counts(first, &asked), [false, false, true, false, false, false]);
    let mut last = vec![port(80), Match::Limit(limit)];
    assert_eq!(last.iter_mut().map(Match::renew).collect::<Vec<_>>(), [false, true]);
    assert_eq!(counts(last, &asked), [false, false, true, false, true, false]);
}
