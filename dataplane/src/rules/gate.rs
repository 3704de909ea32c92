//! The gate of a rule: what most rules fail at, asked of three words at once.
//!
//! A rule that does not match nearly always fails at an address, a protocol, a port or a state:
//! at bits that are not as wanted. A [`Gate`] holds such tests as wanted bits and a mask. The
//! packet's own [`Bits`] are put together once for a walk, so passing over a rule is three
//! comparisons, however many tests it has.
//!
//! The gate alone never lets a rule match: behind it the rule's tests are asked, from the first one
//! that the gate does not answer in full. It is asked for whole packets only
//! ([`Facts::is_whole`]); later fragments and headers cut short are for the tests themselves.
//!
//! Tests behind one that does more than to compare (that sets a label, or says that its answer is
//! this packet's own) stay out of the gate: they are reached as often as without it.

use super::facts::{Facts, PortId};
use super::matches::{Net, PortRange};
use super::test::{PortSet, Test, state_of};
use crate::wire::address::Address;

/// Where the fields lie in their word.
pub(super) const SRC_PORT: u32 = 0;
pub(super) const DST_PORT: u32 = 16;
const PROTO: u32 = 32;
pub(super) const IN_PORT: u32 = 40;
pub(super) const OUT_PORT: u32 = 49;
/// One bit for each state a packet can be in: by exclusion a set of them is asked at once.
const STATE: u32 = 58;

/// A port or none in nine bits.
pub(super) const PORT_MASK: u64 = 0x1ff;
/// Every state a packet can be in.
const STATES: u8 = 0x1f;

/// What gates look at in a packet, or want of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Front {
    src: u64,
    dst: u64,
    fields: u64,
}

/// What gates look at in a packet, and what only [classes](super::classify) look at besides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bits {
    front: Front,
    /// The second halves of its addresses.
    rest: [u64; 2],
}

/// [`Bits`] as words: source, destination, fields, the second halves of source and destination.
pub(super) type Words = [u64; 5];

impl Bits {
    #[inline]
    pub(super) fn of(facts: &Facts<'_>) -> Bits {
        let fields = (facts.src_port as u64) << SRC_PORT
            | (facts.dst_port as u64) << DST_PORT
            | (facts.proto as u64) << PROTO
            | port(facts.in_port) << IN_PORT
            | port(facts.out_port) << OUT_PORT
            | (state_of(facts.ct.state).0 as u64) << STATE;
        let front = Front { src: leading(facts.src), dst: leading(facts.dst), fields };
        Bits { front, rest: [facts.src.bits() as u64, facts.dst.bits() as u64] }
    }

    #[inline]
    pub(super) fn words(&self) -> Words {
        let Bits { front, rest } = self;
        [front.src, front.dst, front.fields, rest[0], rest[1]]
    }
}

/// The bits of an address that tell most: all of IPv4, the first half of IPv6.
#[inline]
fn leading(address: Address) -> u64 {
    if address.is_v4() { address.v4_bits() as u64 } else { (address.bits() >> 64) as u64 }
}

/// A port or none, within [`PORT_MASK`].
#[inline]
pub(super) fn port(port: Option<PortId>) -> u64 {
    port.map_or(0x100, |port| port.0 as u64)
}

/// Bits that a rule wants, and which of them count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    wanted: Front,
    mask: Front,
}

impl Gate {
    /// The gate of a rule with these tests, and how many of them, from the first on, it answers in
    /// full.
    pub(super) fn of(tests: &[Test]) -> (Gate, usize) {
        let mut gate = Gate::default();
        let (mut answered, mut all) = (0, true);
        for test in tests.iter().take_while(|test| test.only_compares()) {
            all &= gate.take(test);
            answered += usize::from(all);
        }
        (gate, answered)
    }

    /// False if the rule does not match whatever else it asks.
    #[inline]
    pub(super) fn admits(&self, bits: &Bits) -> bool {
        let (Gate { wanted, mask }, bits) = (self, &bits.front);
        let differs = (wanted.src ^ bits.src) & mask.src
            | (wanted.dst ^ bits.dst) & mask.dst
            | (wanted.fields ^ bits.fields) & mask.fields;
        differs == 0
    }

    /// What it wants, and of which bits; nothing of the second halves of addresses.
    pub(super) fn words(&self) -> (Words, Words) {
        let of = |front: &Front| [front.src, front.dst, front.fields, 0, 0];
        (of(&self.wanted), of(&self.mask))
    }

    /// Takes a test in as far as it can be; true if the test says no more than the gate then.
    fn take(&mut self, test: &Test) -> bool {
        let Gate { wanted, mask } = self;
        match test {
            Test::Src(net) if !net.not => take_net(&mut wanted.src, &mut mask.src, &net.value),
            Test::Dst(net) if !net.not => take_net(&mut wanted.dst, &mut mask.dst, &net.value),
            Test::InPort(set) => self.take_port(IN_PORT, set),
            Test::OutPort(set) => self.take_port(OUT_PORT, set),
            Test::Proto(proto) if !proto.not => self.take_field(PROTO, 0xff, proto.value as u64),
            // It is there in every whole packet.
            Test::Header => true,
            Test::LaterFragment(test) => test.not,
            Test::SrcPort(range) if !range.not => self.take_range(SRC_PORT, &range.value),
            Test::DstPort(range) if !range.not => self.take_range(DST_PORT, &range.value),
            Test::State(states) => {
                let holds = if states.not { !states.value.0 } else { states.value.0 };
                self.take_states(holds)
            }
            Test::Conntrack(asked) => asked.only_state().is_some_and(|states| {
                let holds = if states.not { !states.value.0 } else { states.value.0 };
                self.take_states(holds)
            }),
            _ => false,
        }
    }

    fn take_port(&mut self, at: u32, set: &PortSet) -> bool {
        set.only().is_some_and(|only| self.take_field(at, PORT_MASK, port(only)))
    }

    fn take_range(&mut self, at: u32, range: &PortRange) -> bool {
        range.low == range.high && self.take_field(at, 0xffff, range.low as u64)
    }

    fn take_field(&mut self, at: u32, mask: u64, value: u64) -> bool {
        take(&mut self.wanted.fields, &mut self.mask.fields, mask << at, value << at)
    }

    /// The bits of all other states have to be clear.
    fn take_states(&mut self, states: u8) -> bool {
        self.take_field(STATE, (!states & STATES) as u64, 0)
    }
}

/// Takes in that bits under `more` are as in `value`; false, and nothing is taken, if the gate
/// wants some of them otherwise.
fn take(wanted: &mut u64, mask: &mut u64, more: u64, value: u64) -> bool {
    let contradicts = (*wanted ^ value) & *mask & more != 0;
    if !contradicts {
        *mask |= more;
        *wanted |= value & more;
    }
    !contradicts
}

/// Of IPv6 the second half is left to the test.
fn take_net(wanted: &mut u64, mask: &mut u64, net: &Net) -> bool {
    let bits = net.address.bits();
    if net.address.is_v4() {
        return net.mask >> 32 == 0 && take(wanted, mask, net.mask as u64, bits as u64);
    }
    take(wanted, mask, (net.mask >> 64) as u64, (bits >> 64) as u64) && net.mask as u64 == 0
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::conntrack::state::{CtState, Direction, Status};
    use crate::conntrack::tuple::{Tuple, proto};
    use crate::rules::compiled::{Compiled, CounterId};
    use crate::rules::facts::{ConnFacts, CtFacts, Nowhere};
    use crate::rules::hook::{Family, Hook, Table};
    use crate::rules::matches::head::Length;
    use crate::rules::matches::{
        Basics, Connlabel, Conntrack, IcmpKind, Masked, Match, Maybe, Multiport, Side, StateMask,
        Tcp, TcpFlags, Udp,
    };
    use crate::rules::model::{Counters, Place, Policy, Rule, Ruleset};
    use crate::rules::targets::{Log, SetMark, Target};
    use crate::rules::walk::{Sink, Still, Walked};

    pub(in crate::rules) const PORTS: [&str; 3] = ["lan", "wan", "lan2"];

    impl core::fmt::Debug for Facts<'_> {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            let ports = (self.in_port, self.out_port);
            let ends = (self.src, self.src_port, self.dst, self.dst_port);
            let kind = (self.proto, self.tcp_flags, self.icmp_type, self.mark);
            let whole = (self.fragment_offset, self.l4_valid);
            write!(f, "{ports:?} {ends:?} {kind:?} {whole:?} {:?}", self.ct.state)
        }
    }

    /// What a walk leaves behind.
    #[derive(Debug, Default, PartialEq)]
    pub(in crate::rules) struct Left {
        walked: Option<Walked>,
        hits: Vec<u32>,
        per_packet: bool,
        logs: Vec<u32>,
        labels: Option<u128>,
    }

    impl Sink for Left {
        fn change(&mut self, _: crate::rules::sets::Change) {}

        fn hit(&mut self, counter: CounterId) {
            self.hits.push(counter.0);
        }

        fn per_packet(&mut self) {
            self.per_packet = true;
        }

        fn log(&mut self, _: &Log, facts: &Facts<'_>) {
            self.logs.push(facts.mark);
        }
    }

    pub(in crate::rules) fn walk(
        rules: &Compiled,
        facts: &Facts<'_>,
        conn: Option<&ConnFacts>,
    ) -> Left {
        let conn = conn.cloned();
        let mut left = Left::default();
        let ct = CtFacts { conn: conn.as_ref().map(|conn| conn as _), ..facts.ct };
        let facts = Facts { ct, ..*facts };
        left.walked = Some(rules.walk(Table::Filter, Hook::Forward, Still(facts), &mut left));
        left.labels = conn.and_then(|conn| conn.labels.get());
        left
    }

    /// The same rules, asked test by test.
    fn without_gates(rules: &Compiled) -> Compiled {
        let mut rules = rules.clone();
        for rule in &mut rules.rules {
            (rule.gate, rule.first_open) = (Gate::default(), rule.first_test);
        }
        rules
    }

    fn maybe<T: core::fmt::Debug + Clone>(
        value: impl Strategy<Value = T>,
    ) -> impl Strategy<Value = Option<Maybe<T>>> {
        let negated = prop::bool::weighted(0.2);
        let one = (negated, value).prop_map(|(not, value)| Maybe { not, value });
        prop::option::weighted(0.4, one)
    }

    /// Few addresses, so that some rules match; of IPv6 they differ in either half.
    fn address(v6: bool) -> impl Strategy<Value = Address> {
        (select(vec![10u8, 192]), 0..3u8, 0..2u8).prop_map(move |(a, b, c)| match v6 {
            false => Address::v4(u32::from_be_bytes([a, 0, b, c])),
            true => Address::v6(0x2001 << 112 | (a as u128) << 64 | (b as u128) << 60 | c as u128),
        })
    }

    fn net(v6: bool) -> impl Strategy<Value = Net> {
        let masks = match v6 {
            false => vec![0, 0xff00_0000, 0xffff_ff00, 0xffff_ffff, 0xff00_00ff],
            true => vec![0, !0 << 112, !0 << 64, !0 << 60, !0, !0 << 112 | 0xff],
        };
        (address(v6), select(masks)).prop_map(move |(address, mask)| {
            let bits = address.bits() & mask;
            let address = if v6 { Address::v6(bits) } else { Address::v4(bits as u32) };
            Net { address, mask }
        })
    }

    fn number() -> impl Strategy<Value = u16> {
        select(vec![0, 53, 80, 81, 65_535])
    }

    fn range() -> impl Strategy<Value = PortRange> {
        prop_oneof![
            3 => number().prop_map(PortRange::one),
            1 => (number(), number()).prop_map(|(low, high)| PortRange { low, high }),
        ]
    }

    fn states() -> impl Strategy<Value = StateMask> {
        prop_oneof![4 => 1..0x20u8, 1 => 0..0x80u8].prop_map(StateMask)
    }

    fn name() -> impl Strategy<Value = String> {
        select(vec!["lan", "wan", "lan+", "+", "none"]).prop_map(str::to_owned)
    }

    fn basics(v6: bool) -> impl Strategy<Value = Basics> {
        let proto = maybe(select(vec![proto::TCP, proto::UDP, proto::ICMP]));
        let fragment = prop::option::weighted(0.1, any::<bool>());
        let parts = (maybe(net(v6)), maybe(net(v6)), maybe(name()), maybe(name()), proto, fragment);
        parts.prop_map(|(src, dst, in_port, out_port, proto, fragment)| {
            let fragment = fragment.map(|not| Maybe { not, value: () });
            Basics { src, dst, in_port, out_port, proto, fragment }
        })
    }

    fn conntrack() -> impl Strategy<Value = Match> {
        let status = prop_oneof![9 => Just(None), 1 => Just(Some(Maybe::is(Status::ASSURED.0)))];
        let ports = prop_oneof![9 => Just(None), 1 => maybe(range())];
        (maybe(states()), status, ports).prop_map(|(state, status, orig_dst_port)| {
            let asked = Conntrack { state, status, orig_dst_port, ..Conntrack::default() };
            Match::Conntrack(Box::new(asked))
        })
    }

    fn tcp() -> impl Strategy<Value = Match> {
        let flags = prop_oneof![3 => Just(None), 1 => maybe(Just(TcpFlags { mask: 2, set: 2 }))];
        let option = prop_oneof![9 => Just(None), 1 => maybe(1..4u8)];
        (maybe(range()), maybe(range()), flags, option).prop_map(
            |(src_port, dst_port, flags, option)| {
                Match::Tcp(Tcp { src_port, dst_port, option, flags })
            },
        )
    }

    fn asked() -> impl Strategy<Value = Match> {
        let side = select(vec![Side::Source, Side::Destination, Side::Either]);
        let ports = prop::collection::vec(range(), 0..4);
        let multiport = (prop::bool::weighted(0.3), side, ports)
            .prop_map(|(not, side, ports)| Match::Multiport(Multiport { side, not, ports }));
        let label = (0..2u8, any::<bool>(), any::<bool>()).prop_map(|(value, not, set)| {
            Match::Connlabel(Connlabel { label: Maybe { not, value }, set })
        });
        let masked = (0..4u32).prop_map(|value| Masked { value, mask: 3 });
        prop_oneof![
            3 => tcp(),
            3 => (maybe(range()), maybe(range()))
                .prop_map(|(src_port, dst_port)| Match::Udp(Udp { src_port, dst_port })),
            4 => conntrack(),
            2 => (any::<bool>(), states())
                .prop_map(|(not, value)| Match::State(Maybe { not, value })),
            1 => multiport,
            1 => label,
            1 => masked.prop_map(|value| Match::Mark(Maybe::is(value))),
            1 => (0..99u16).prop_map(|high| Match::Length(Length(Maybe::is((0, high))))),
            1 => (0..4u8).prop_map(|kind| {
                Match::Icmp(Maybe::is(IcmpKind { kind, low: 0, high: 255 }))
            }),
        ]
    }

    fn target() -> impl Strategy<Value = Target> {
        let log = Log { prefix: String::new(), level: 4, flags: 0 };
        let mark = (0..4u32).prop_map(|value| Target::Mark(SetMark { value, mask: 3 }));
        prop_oneof![
            4 => Just(Target::None),
            2 => mark,
            1 => select(vec![Target::Accept, Target::Drop, Target::Return, Target::Log(log)]),
            1 => select(vec![Target::Jump("user".into()), Target::Goto("user".into())]),
        ]
    }

    fn rule(v6: bool, target: impl Strategy<Value = Target>) -> impl Strategy<Value = Rule> {
        let matches = prop::collection::vec(asked(), 0..4);
        (basics(v6), matches, target).prop_map(|(basics, matches, target)| {
            let (place, counters) = (Place::default(), Counters::default());
            Rule { place, counters, basics, matches, target }
        })
    }

    /// A chain FORWARD of fewer than `most` rules, and one that it may jump to.
    fn ruleset(v6: bool, most: usize) -> impl Strategy<Value = Ruleset> {
        let count_only = prop_oneof![Just(Target::None), Just(Target::Return)];
        let forward = prop::collection::vec(rule(v6, target()), 1..most);
        let user = prop::collection::vec(rule(v6, count_only), 0..most / 2);
        (forward, user).prop_map(move |(forward, user)| {
            let mut ruleset = Ruleset::new(if v6 { Family::V6 } else { Family::V4 });
            let table = ruleset.table_mut(Table::Filter);
            table.add_chain("user");
            for (name, rules) in [("FORWARD", forward), ("user", user)] {
                if let Some(chain) = table.chain_mut(name) {
                    chain.rules = rules;
                    chain.base.iter_mut().for_each(|base| base.policy = Policy::Drop);
                }
            }
            ruleset
        })
    }

    fn facts(v6: bool) -> impl Strategy<Value = Facts<'static>> {
        let port = || prop::option::weighted(0.9, (0..4u8).prop_map(PortId));
        let ends = (address(v6), address(v6), number(), number());
        let kind = (select(vec![proto::TCP, proto::UDP, proto::ICMP]), 0..4u8, 0..4u8);
        let shape = (prop_oneof![8 => Just(0), 1 => Just(1), 1 => Just(99u16)], 0..9u8);
        let state = select(vec![
            CtState::New,
            CtState::Established,
            CtState::Related,
            CtState::Invalid,
            CtState::Untracked,
        ]);
        (port(), port(), ends, kind, shape, state, 0..4u32).prop_map(
            |(in_port, out_port, ends, kind, (fragment_offset, valid), state, mark)| Facts {
                in_port,
                out_port,
                src: ends.0,
                dst: ends.1,
                proto: kind.0,
                fragment_offset,
                src_port: ends.2,
                dst_port: ends.3,
                tcp_flags: kind.1,
                icmp_type: kind.2,
                icmp_code: 0,
                l4_valid: valid > 0,
                length: 60,
                mark,
                frame: &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3, 2],
                l3_at: 0,
                l4_at: 0,
                around: &Nowhere,
                ct: CtFacts { state, direction: Direction::Original, conn: None },
            },
        )
    }

    fn conn(v6: bool) -> impl Strategy<Value = Option<ConnFacts>> {
        let status = select(vec![0, Status::ASSURED.0, Status::SRC_NAT.0, Status::SRC_NAT_DONE.0]);
        let labels = prop::option::of(0..4u128);
        let conn = (status, address(v6), number(), labels).prop_map(|(status, end, id, labels)| {
            let original = Tuple { src: end, dst: end, src_id: id, dst_id: id, proto: proto::TCP };
            let (status, labels) = (Status(status), core::cell::Cell::new(labels));
            let reply = original;
            ConnFacts { status, original, reply, expires_secs: 9, labels, ..ConnFacts::default() }
        });
        prop::option::of(conn)
    }

    /// Rules, and packets with their conns.
    pub(in crate::rules) fn case(
        most: usize,
    ) -> impl Strategy<Value = (Ruleset, Vec<(Facts<'static>, Option<ConnFacts>)>)> {
        any::<bool>().prop_flat_map(move |v6| {
            (ruleset(v6, most), prop::collection::vec((facts(v6), conn(v6)), 16))
        })
    }

    proptest! {
        #[test]
        fn gates_change_nothing_of_what_a_walk_does((ruleset, packets) in case(8)) {
            let compiled = Compiled::new(&ruleset, &PORTS, 0).map_err(|e| {
                TestCaseError::fail(e.to_string())
            })?;
            let plain = without_gates(&compiled);
            for (facts, conn) in packets {
                let gated = walk(&compiled, &facts, conn.as_ref());
                prop_assert_eq!(gated, walk(&plain, &facts, conn.as_ref()));
            }
        }
    }

    /// How many tests a gate has answered of a rule's, and whether it admits `facts`.
    fn gate_of(basics: Basics, matches: Vec<Match>, facts: &Facts<'_>) -> (u32, u32, bool) {
        let (place, counters) = (Place::default(), Counters::default());
        let rule = Rule { place, counters, basics, matches, target: Target::Accept };
        let mut ruleset = Ruleset::new(Family::V4);
        ruleset.table_mut(Table::Filter).chain_mut("FORWARD").unwrap().rules = vec![rule];
        let compiled = Compiled::new(&ruleset, &PORTS, 0).unwrap();
        let rule = &compiled.rules[0];
        let admits = rule.gate.admits(&Bits::of(facts));
        (rule.first_open - rule.first_test, rule.end_test - rule.first_test, admits)
    }

    #[test]
    fn what_most_rules_ask_is_answered_by_the_gate_alone() {
        let facts = Facts {
            in_port: Some(PortId(0)),
            out_port: Some(PortId(1)),
            src: Address::v4(0x0a00_0001),
            dst: Address::v4(0xc000_0207),
            proto: proto::TCP,
            fragment_offset: 0,
            src_port: 40_000,
            dst_port: 80,
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
            ct: CtFacts { state: CtState::New, ..CtFacts::NONE },
        };
        let net = Net { address: Address::v4(0x0a00_0000), mask: 0xff00_0000 };
        let all = || Basics {
            src: Some(Maybe::is(net)),
            in_port: Some(Maybe::is("lan".to_owned())),
            out_port: Some(Maybe::is("wan".to_owned())),
            proto: Some(Maybe::is(proto::TCP)),
            ..Basics::default()
        };
        let to = |port| {
            let dst_port = Some(Maybe::is(PortRange::one(port)));
            Match::Tcp(Tcp { dst_port, ..Tcp::default() })
        };
        let new = |not| {
            let state = Some(Maybe { not, value: StateMask::NEW });
            Match::Conntrack(Box::new(Conntrack { state, ..Conntrack::default() }))
        };
        assert_eq!(gate_of(all(), vec![to(80), new(false)], &facts), (7, 7, true));
        assert_eq!(gate_of(all(), vec![to(81), new(false)], &facts), (7, 7, false));
        assert_eq!(gate_of(all(), vec![to(80), new(true)], &facts), (7, 7, false));
        // What is behind a test that does more is not reached earlier than without the gate.
        let label = Match::Connlabel(Connlabel { label: Maybe::is(1), set: true });
        assert_eq!(gate_of(all(), vec![label, to(81)], &facts), (4, 7, true));
        // A test that is not answered in full is asked again, with all behind it.
        let elsewhere = Basics { src: Some(Maybe::isnt(net)), ..all() };
        assert_eq!(gate_of(elsewhere, vec![to(81)], &facts), (0, 6, false));
    }
}
