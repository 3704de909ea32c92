//! Tables beside plain maps, and what packets are to sets of each type.

use crate::arch::sync::{AtomicBool, Ordering::Relaxed};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use proptest::prelude::*;

use super::elements::{Info, Writer};
use super::key::{Key, WORDS_MAX, mask};
use super::kind::Kind;
use super::list::{Member, Tally};
use super::set::{
    Asked, Body, Changed, Compare, Options, Outcome, Set, TIMEOUT_MAX, Weight, deadline,
};
use super::{Change, SetId, Sides, What};
use crate::conntrack::tuple::proto;
use crate::rules::facts::{CtFacts, Facts, Nowhere, PortId};
use crate::rules::hook::Family;
use crate::time::Tick;
use crate::wire::address::Address;

const NOW: Tick = Tick(5000);

fn address(number: u128) -> Key {
    Key { first: number, ..Key::default() }
}

/// A net with its length, the host bits cleared.
fn net(address: u128, length: u8) -> Key {
    Key { first: address & mask(length, 32), first_prefix: length + 1, ..Key::default() }
}

fn options(kind: &str) -> Options {
    Options {
        kind: Kind::named(kind).unwrap(),
        family: Some(Family::V4),
        mask: u128::from(u32::MAX),
        mark_mask: u32::MAX,
        timeout: None,
        counters: false,
        info: false,
        max: 65536,
        forceadd: false,
        range: (0, u128::MAX),
    }
}

/// A set, and the right to change it.
fn set(options: Options, keys: &[(Key, bool)]) -> (Set, Writer) {
    let mut writer = Writer::new(Key::words_of(options.family), 0x5eed);
    for (key, nomatch) in keys {
        writer.insert(key, *nomatch, None, (0, 0)).unwrap();
    }
    let body = Body::Table(Arc::clone(writer.elements()));
    (Set::new(SetId(1), options, body), writer)
}

fn sides(words: &[bool]) -> Sides {
    words.iter().fold(Sides::default(), |sides, &source| sides.with(source).unwrap())
}

fn asked(words: &[bool]) -> Asked {
    Asked { sides: sides(words), ..Asked::default() }
}

const FRAME: [u8; 14] = [2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 7, 8, 0];

/// TCP from 10.1.2.3:1000 to 192.0.2.1:80.
fn facts() -> Facts<'static> {
    Facts {
        in_port: Some(PortId(0)),
        out_port: None,
        src: Address::v4(0x0a01_0203),
        dst: Address::v4(0xc000_0201),
        proto: proto::TCP,
        fragment_offset: 0,
        src_port: 1000,
        dst_port: 80,
        tcp_flags: 2,
        icmp_type: 0,
        icmp_code: 0,
        l4_valid: true,
        length: 60,
        mark: 0,
        frame: &FRAME,
        l3_at: 14,
        l4_at: 14,
        around: &Nowhere,
        ct: CtFacts::NONE,
    }
}

fn holds(set: &Set, asked: &Asked, facts: &Facts<'_>) -> bool {
    set.holds(asked, facts, 0x55, NOW)
}

#[test]
fn keys_are_their_words() {
    let key = Key {
        first: 0x1122_3344_5566_7788_99aa_bbcc_ddee_ff00,
        first_prefix: 129,
        proto: 58,
        port: 0x8001,
        second: u128::MAX - 5,
        second_prefix: 1,
    };
    assert_eq!(Key::of_words(key.words()), key);
    let v4 = Key { first: 0xffff_ffff, second: 0xffff_ffff_ffff, ..key };
    assert!(v4.words()[Key::words_of(Some(Family::V4))..].iter().all(|word| *word == 0));
    assert_eq!(Key::words_of(Some(Family::V6)), WORDS_MAX);
    assert_eq!((mask(0, 32), mask(8, 32), mask(32, 32)), (0, 0xff00_0000, 0xffff_ffff));
    assert_eq!((mask(0, 128), mask(128, 128), mask(1, 128)), (0, u128::MAX, 1 << 127));
}

#[derive(Clone, Debug)]
enum Step {
    Add(u16, bool),
    Remove(u16),
    Exception(u16, bool),
    Find(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0u16..600;
    let step = prop_oneof![
        4 => (key.clone(), any::<bool>()).prop_map(|(k, n)| Step::Add(k, n)),
        2 => key.clone().prop_map(Step::Remove),
        1 => (key.clone(), any::<bool>()).prop_map(|(k, n)| Step::Exception(k, n)),
        2 => key.prop_map(Step::Find),
    ];
    prop::collection::vec(step, 1..1500)
}

/// Keys of which many share words.
fn spread(number: u16) -> Key {
    Key {
        first: u128::from(number / 7) << 64,
        first_prefix: (number % 7) as u8,
        port: number / 100,
        second: u128::from(number % 3),
        ..Key::default()
    }
}

proptest! {
    #[test]
    fn a_table_is_a_map(steps in steps(), seed in any::<u64>(), v6 in any::<bool>()) {
        let key = |n: u16| if v6 { spread(n) } else { address(n.into()) };
        let mut writer = Writer::new(if v6 { 5 } else { 3 }, seed);
        let mut model: BTreeMap<Key, bool> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Add(n, nomatch) => {
                    if let Entry::Vacant(place) = model.entry(key(n)) {
                        prop_assert_eq!(writer.insert(&key(n), nomatch, None, (1, 2)), Ok(()));
                        place.insert(nomatch);
                    }
                }
                Step::Remove(n) => {
                    let there = model.remove(&key(n)).is_some();
                    prop_assert_eq!(writer.remove(&key(n)), there);
                }
                Step::Exception(n, nomatch) => {
                    writer.set_nomatch(&key(n), nomatch);
                    if let Some(there) = model.get_mut(&key(n)) {
                        *there = nomatch;
                    }
                }
                Step::Find(n) => {
                    let found = writer.elements().find(&key(n)).map(|found| found.nomatch);
                    prop_assert_eq!(found, model.get(&key(n)).copied());
                }
            }
            prop_assert_eq!(writer.elements().count() as usize, model.len());
        }
        let mut all: Vec<_> = writer.elements().iter().map(|(k, f)| (k, f.nomatch)).collect();
        all.sort();
        prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
        for length in 1..=130 {
            let there = model.keys().any(|key| key.first_prefix == length);
            let next = writer.elements().longest(false, length + 1);
            prop_assert_eq!(next == Some(length), there, "length {}", length);
        }
    }

    #[test]
    fn the_longest_net_decides(
        nets in prop::collection::btree_map((0u128..1 << 8, 22u8..=32), any::<bool>(), 0..40),
        addresses in prop::collection::vec(0u128..1 << 8, 20),
    ) {
        let place = |low: u128| 0x0a00_0000 | low << 2;
        let keys: BTreeMap<Key, bool> =
            nets.into_iter().map(|((low, length), no)| (net(place(low), length), no)).collect();
        let keys: Vec<(Key, bool)> = keys.into_iter().collect();
        let (set, _writer) = set(options("hash:net"), &keys);
        for low in addresses {
            let address = place(low);
            let covers = |key: &Key| address & mask(key.first_prefix - 1, 32) == key.first;
            let there = keys.iter().filter(|(key, _)| covers(key));
            let longest = there.max_by_key(|(key, _)| key.first_prefix);
            let expected = longest.is_some_and(|(_, nomatch)| !nomatch);
            let facts = Facts { src: Address::v4(address as u32), ..facts() };
            prop_assert_eq!(holds(&set, &asked(&[true]), &facts), expected);
            let exception = longest.is_some_and(|(_, nomatch)| *nomatch);
            let turned = Asked { return_nomatch: true, ..asked(&[true]) };
            prop_assert_eq!(holds(&set, &turned, &facts), exception);
        }
    }

    /// Of two nets the first is tried from its longest prefix on, and for each of them the second,
    /// as the kernel's loops do.
    #[test]
    fn of_two_nets_the_first_leads(
        nets in prop::collection::btree_map(
            ((0u128..16, 28u8..=32), (0u128..16, 28u8..=32)), any::<bool>(), 0..30),
        pairs in prop::collection::vec((0u128..16, 0u128..16), 20),
    ) {
        let key = |(a, la): (u128, u8), (b, lb): (u128, u8)| Key {
            second: b & mask(lb, 32),
            second_prefix: lb + 1,
            ..net(a, la)
        };
        let keys: BTreeMap<Key, bool> =
            nets.into_iter().map(|((a, b), no)| (key(a, b), no)).collect();
        let keys: Vec<(Key, bool)> = keys.into_iter().collect();
        let (set, _writer) = set(options("hash:net,net"), &keys);
        for (a, b) in pairs {
            let covers = |key: &Key| {
                a & mask(key.first_prefix - 1, 32) == key.first
                    && b & mask(key.second_prefix - 1, 32) == key.second
            };
            let rank = |key: &Key| (key.first_prefix, key.second_prefix);
            let best = keys.iter().filter(|(k, _)| covers(k)).max_by_key(|(k, _)| rank(k));
            let facts =
                Facts { src: Address::v4(a as u32), dst: Address::v4(b as u32), ..facts() };
            let expected = best.is_some_and(|(_, nomatch)| !nomatch);
            prop_assert_eq!(holds(&set, &asked(&[true, false]), &facts), expected);
        }
    }
}

/// What stays in the table all the while is found at every moment, whatever comes, goes and takes
/// the numbers of what has gone, and what never was in it is not.
#[test]
fn readers_find_what_stays_while_the_table_changes() {
    let mut writer = Writer::new(3, 77);
    let stays: Vec<Key> = (1..=64).map(address).collect();
    stays.iter().for_each(|key| writer.insert(key, false, None, (0, 0)).unwrap());
    let (elements, stop) = (Arc::clone(writer.elements()), AtomicBool::new(false));
    let two = |n: u128| Key { second: 1 << 20 | n, ..address(1 << 20 | n) };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0u64;
            while !stop.load(Relaxed) || rounds == 0 {
                for key in &stays {
                    assert!(elements.find(key).is_some(), "{key:?}");
                }
                for n in 0..200 {
                    // Half of one element that came and half of another.
                    let mixed = Key { second: two(n + 1).second, ..two(n) };
                    assert!(elements.find(&mixed).is_none(), "{mixed:?}");
                }
                rounds += 1;
            }
        });
        for round in 0..60u128 {
            let many = 50 + round * 20;
            (0..many).for_each(|n| writer.insert(&two(n), false, None, (0, 0)).unwrap());
            assert!((0..many).all(|n| writer.remove(&two(n))));
        }
        stop.store(true, Relaxed);
        reader.join().unwrap();
    });
    assert_eq!(writer.elements().count(), 64);
}

#[test]
fn each_type_takes_its_parts_of_the_packet() {
    let (src, dst, packet) = (0x0a01_0203, 0xc000_0201, facts());
    let port = |key: Key, port| Key { proto: proto::TCP, port, ..key };
    let second = |key: Key, second| Key { second, ..key };
    let in_net = |key: Key| Key { second: dst & mask(24, 32), second_prefix: 25, ..key };
    for (kind, words, key) in [
        ("hash:ip", &[true][..], address(src)),
        ("hash:ip", &[false], address(dst)),
        ("hash:net", &[true], net(src, 16)),
        ("hash:ip,port", &[true, false], port(address(src), 80)),
        ("hash:ip,port", &[false, true], port(address(dst), 1000)),
        ("hash:net,port", &[true, true], port(net(src, 8), 1000)),
        ("hash:ip,port,ip", &[true, false, false], second(port(address(src), 80), dst)),
        ("hash:ip,port,net", &[true, false, false], in_net(port(address(src), 80))),
        ("hash:net,port,net", &[true, false, false], in_net(port(net(src, 0), 80))),
        ("hash:net,net", &[true, false], in_net(net(src, 0))),
        ("hash:ip,mark", &[true, true], second(address(src), 0x55)),
        ("hash:ip,mac", &[true, true], second(address(src), 0x0200_0000_0007)),
        ("hash:mac", &[true], address(0x0200_0000_0007)),
        ("hash:mac", &[false], address(0x0200_0000_0009)),
        ("bitmap:ip", &[true], address(src)),
        ("bitmap:port", &[false], Key { port: 80, ..Key::default() }),
    ] {
        let (set, mut writer) = set(options(kind), &[(key, false)]);
        assert!(holds(&set, &asked(words), &packet), "{kind}");
        let turned: Vec<bool> = words.iter().map(|source| !source).collect();
        assert_eq!(holds(&set, &asked(&turned), &packet), kind == "hash:ip,mark" && turned[0]);
        let more = [words, &[true]].concat();
        assert!(holds(&set, &asked(&more), &packet), "{kind}: more parts than it has");
        let fewer = &words[..words.len() - 1];
        assert!(!holds(&set, &asked(fewer), &packet), "{kind}: fewer parts than it has");
        assert!(writer.remove(&key));
        assert!(!holds(&set, &asked(words), &packet), "{kind}: empty");
    }
}

#[test]
fn a_set_has_packets_of_its_family_alone() {
    let v6 = Options { family: Some(Family::V6), mask: u128::MAX, ..options("hash:ip") };
    let (set, _writer) = set(v6, &[(address(0x0a01_0203), false)]);
    assert!(!holds(&set, &asked(&[true]), &facts()));
    let packet = Facts { src: Address::v6(0x0a01_0203), dst: Address::v6(9), ..facts() };
    assert!(holds(&set, &asked(&[true]), &packet));
}

#[test]
fn ports_are_those_of_protocols_that_have_them() {
    let key = |proto, port| Key { proto, port, ..address(0x0a01_0203) };
    let keys = [
        key(proto::UDP, 80),
        key(proto::GRE, 0),
        key(proto::ICMP, 8 << 8),
        key(proto::SCTP, 80),
        key(proto::UDPLITE, 80),
        key(proto::DCCP, 0),
    ];
    let (set, _writer) = set(options("hash:ip,port"), &keys.map(|key| (key, false)));
    let ask = asked(&[true, false]);
    let of = |proto| Facts { proto, icmp_type: 8, ..facts() };
    for (number, there) in [
        (proto::TCP, false),
        (proto::UDP, true),
        (proto::GRE, true),
        (proto::ICMP, true),
        (proto::SCTP, true),
        (proto::UDPLITE, true),
        (proto::DCCP, true),
        (proto::ICMPV6, false),
    ] {
        assert_eq!(holds(&set, &ask, &of(number)), there, "{number}");
    }
    let later = |proto| Facts { fragment_offset: 7, ..of(proto) };
    assert!(!holds(&set, &ask, &later(proto::UDP)), "a later fragment has no ports");
    assert!(holds(&set, &ask, &later(proto::GRE)), "where there are none it needs none");
    assert!(!holds(&set, &ask, &Facts { l4_valid: false, ..of(proto::UDP) }));
}

#[test]
fn a_bitmap_of_ports_has_those_of_tcp_and_udp_in_its_range() {
    let range = Options { range: (70, 90), family: None, ..options("bitmap:port") };
    let port = |port| (Key { port, ..Key::default() }, false);
    let (set, _writer) = set(range, &[port(80), port(1000)]);
    let of = |proto| Facts { proto, ..facts() };
    assert!(holds(&set, &asked(&[false]), &of(proto::TCP)));
    assert!(holds(&set, &asked(&[false]), &of(proto::UDP)));
    assert!(!holds(&set, &asked(&[false]), &of(proto::SCTP)));
    assert!(!holds(&set, &asked(&[true]), &of(proto::TCP)), "out of the range");
}

#[test]
fn masks_cut_what_a_packet_has() {
    let cut = Options { mask: mask(24, 32), ..options("hash:ip") };
    let (set, _writer) = set(cut, &[(address(0x0a01_0200), false)]);
    assert!(holds(&set, &asked(&[true]), &facts()));
}

#[test]
fn an_element_ends_at_its_deadline() {
    let (set, mut writer) = set(Options { timeout: Some(9), ..options("hash:ip") }, &[]);
    let key = address(0x0a01_0203);
    writer.insert(&key, false, deadline(2, NOW), (0, 0)).unwrap();
    let at = |now| set.holds(&asked(&[true]), &facts(), 0, now);
    assert!(at(NOW) && at(Tick(NOW.0 + 199)) && !at(Tick(NOW.0 + 200)));
    assert_eq!(deadline(0, NOW), None, "0 is for ever");
    assert_eq!(deadline(u32::MAX, NOW), deadline(TIMEOUT_MAX, NOW));
    assert!(set.is_per_packet());
}

/// As the kernel counts: first the packet, then the question; an exception, and a net whose
/// counters are not so, leaves the shorter ones to be asked.
#[test]
fn counters_count_and_are_asked() {
    let keys = [(net(0x0a01_0203, 24), false), (net(0x0a01_0203, 8), false)];
    let (set, writer) = set(Options { counters: true, ..options("hash:net") }, &keys);
    let counters = |at: usize| writer.elements().find(&keys[at].0).unwrap().counters();
    let ask = |packets| Asked { packets: Some(packets), ..asked(&[true]) };
    assert!(holds(&set, &asked(&[true]), &facts()));
    assert_eq!((counters(0), counters(1)), ((1, 60), (0, 0)));
    assert!(holds(&set, &ask(Compare::Equal(2)), &facts()));
    assert_eq!((counters(0), counters(1)), ((2, 120), (0, 0)));
    assert!(!holds(&set, &ask(Compare::Above(9)), &facts()));
    assert_eq!((counters(0), counters(1)), ((3, 180), (1, 60)));
    let still = Asked { no_update: true, ..ask(Compare::Below(2)) };
    assert!(holds(&set, &still, &facts()), "the shorter one has 1");
    assert_eq!((counters(0), counters(1)), ((3, 180), (1, 60)));
    let bytes = Asked { bytes: Some(Compare::Other(240)), ..asked(&[true]) };
    assert!(holds(&set, &bytes, &facts()), "the shorter one has 120");
    let question = Weight { bytes: None, now: NOW };
    let full = net(0x0a01_0203, 32);
    let found = set.find(writer.elements(), &full, &asked(&[true]), question);
    assert_eq!(Outcome::from(found), Outcome::Present);
    assert_eq!((counters(0), counters(1)), ((4, 240), (2, 120)), "a tool's question counts not");
}

#[test]
fn packets_add_and_take_away() {
    let timed = Options { timeout: Some(10), counters: true, max: 2, ..options("hash:ip") };
    let (set, mut writer) = set(timed, &[]);
    let (key, src) = (address(0x0a01_0203), sides(&[true]));
    let add = |set: &Set, timeout, exist, now| set.add(src, (timeout, exist), &facts(), (0, now));
    let what = What::Add { timeout: Some(4), bytes: 60 };
    let wanted = |what| Changed::Wanted(Change { set: SetId(1), key, what });
    assert_eq!(add(&set, Some(4), false, NOW), wanted(what));
    writer.insert(&key, false, deadline(4, NOW), (7, 8)).unwrap();
    assert_eq!(add(&set, Some(4), false, NOW), Changed::Refused, "it is there");
    let later = Tick(NOW.0 + 100);
    assert_eq!(add(&set, None, true, later), Changed::Done);
    let found = writer.elements().find(&key).unwrap();
    assert_eq!((found.deadline(), found.counters()), (deadline(10, later), (1, 60)));
    assert_eq!(set.remove(src, &facts(), 0, later), wanted(What::Remove));
    assert!(!set.holds(&asked(&[true]), &facts(), 0, later), "gone at once");
    assert_eq!(set.remove(src, &facts(), 0, later), Changed::Refused);
    assert_eq!(add(&set, None, false, later), wanted(What::Add { timeout: None, bytes: 60 }));
    writer.insert(&address(1), false, None, (0, 0)).unwrap();
    let other = Facts { src: Address::v4(77), ..facts() };
    assert_eq!(set.add(src, (None, false), &other, (0, NOW)), Changed::Refused, "it is full");
}

#[test]
fn what_packets_add_to_nets_has_the_longest_prefix_that_is_there() {
    let (empty, _writer) = set(options("hash:net"), &[]);
    let keys = [(net(0x0b00_0000, 16), false), (net(0x0c00_0000, 8), false)];
    let (filled, _other) = set(options("hash:net"), &keys);
    for (set, length) in [(&empty, 32), (&filled, 16)] {
        let changed = set.add(sides(&[true]), (None, false), &facts(), (0, NOW));
        let Changed::Wanted(Change { key, .. }) = changed else { panic!("{changed:?}") };
        assert_eq!(key, net(0x0a01_0203, length));
    }
}

#[test]
fn the_first_member_that_has_the_packet_decides() {
    let (none, _a) = set(options("hash:ip"), &[]);
    let (one, _b) = set(options("hash:ip"), &[(address(0x0a01_0203), false)]);
    let (two, _c) = set(options("hash:ip,port"), &[]);
    let member = |set: Set, over| {
        let tally = Arc::new(Tally::new(over, (true, 0, 0), None));
        Arc::new(Member { set: Arc::new(set), tally })
    };
    let members = [member(two, None), member(none, None), member(one, deadline(1, NOW))];
    let tally = Arc::clone(&members[2].tally);
    let body = Body::List(Box::new(members));
    let lists = Options { family: None, counters: true, ..options("list:set") };
    let list = Set::new(SetId(9), lists, body);
    assert!(holds(&list, &asked(&[true]), &facts()));
    assert_eq!(tally.counters(), (1, 60));
    let more = Asked { packets: Some(Compare::Above(5)), ..asked(&[true]) };
    assert!(!holds(&list, &more, &facts()));
    assert!(!list.holds(&asked(&[true]), &facts(), 0, Tick(NOW.0 + 100)), "a member that is over");
    // The one that comes first and takes as many parts gets what a packet adds.
    let other = Facts { src: Address::v4(9), ..facts() };
    for (words, is) in
        [(&[true][..], address(9)), (&[true, false], Key { proto: 6, port: 80, ..address(9) })]
    {
        let added = list.add(sides(words), (None, false), &other, (0, NOW));
        let Changed::Wanted(Change { key, .. }) = added else { panic!("{added:?}") };
        assert_eq!(key, is);
    }
    assert!(list.is_per_packet());
    let quiet = set(options("hash:ip"), &[]).0;
    assert!(!quiet.is_per_packet());
    quiet.note_changes();
    assert!(quiet.is_per_packet());
}

/// A list that says something itself is believed rather than its members.
#[test]
fn what_elements_say_comes_with_the_one_that_has_the_packet() {
    let info = |mark| Info { mark, mask: 0xff, priority: 0x1_0010, queue: 7 };
    let kinds = Options { info: true, ..options("hash:net") };
    let mut writer = Writer::with_info(Key::words_of(kinds.family), true, 0x5eed);
    for (length, mark) in [(8, 1), (24, 2)] {
        let key = net(0x0a01_0203, length);
        writer.insert_with(&key, false, None, ((0, 0), info(mark))).unwrap();
    }
    writer.insert_with(&net(0x0a01_0203, 32), true, None, ((0, 0), info(3))).unwrap();
    let table = Body::Table(Arc::clone(writer.elements()));
    let set = Arc::new(Set::new(SetId(1), kinds, table));
    let said = |set: &Set, facts: &Facts<'_>| set.info(&asked(&[true]), facts, 0, NOW);
    let from = |src| Facts { src: Address::v4(src), ..facts() };
    assert_eq!(said(&set, &from(0x0a01_0204)), Some(info(2)));
    assert_eq!(said(&set, &from(0x0a09_0204)), Some(info(1)));
    assert_eq!(said(&set, &from(0x0a01_0203)), None, "an exception");
    assert_eq!(said(&set, &from(0x0b01_0203)), None);
    let found = writer.elements().find(&net(0x0a01_0203, 8)).unwrap();
    found.set_info(info(9));
    assert_eq!(said(&set.apart(), &from(0x0a09_0204)), Some(info(9)));
    let (plain, _writer) = self::set(options("hash:ip"), &[(address(0x0a01_0203), false)]);
    assert_eq!(said(&plain, &facts()), Some(Info::default()));
    for (own, wanted) in [(None, info(9)), (Some(info(5)), info(5))] {
        let tally = Arc::new(Tally::new(None, (false, 0, 0), own));
        let body = Body::List(Box::new([Arc::new(Member { set: Arc::clone(&set), tally })]));
        let list = Set::new(SetId(2), Options { family: None, ..options("list:set") }, body);
        assert_eq!(said(&list, &from(0x0a09_0204)), Some(wanted));
    }
}
