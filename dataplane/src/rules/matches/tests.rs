//! What each match says, packet by packet. Where a test says that the kernel was seen to do so, the
//! same rules and packets were given to Linux 6.18 (iptables 1.8.9) in a namespace.

use core::cell::Cell;

use super::conn::{Connmark, HelperName};
use super::dccp::Dccp;
use super::head::{Compare, Dscp, Ecn, Length, Life, Mss, Spi, Tos};
use super::headers6::{Ah, Frag, HeaderKinds, Options, Rt};
use super::moment::Moment;
use super::place::{AddrType, AddressTypes, IpRange, Limit, Mac, PktType, RpFilter, SentTo};
use super::sctp::{ChunkFlags, ChunkSet, Chunks, Sctp, Which};
use super::search::{Algorithm, Search};
use super::statistic::{Nth, Statistic};
use super::u32::{Probe, Step, U32};
use super::{Masked, Match, Maybe, PortRange};
use crate::conntrack::helper::Helper;
use crate::rules::facts::{Around, ConnFacts, CtFacts, Facts, PlaceOf, PortId};
use crate::rules::test::Answer;
use crate::time::Now;
use crate::wire::address::Address;
use crate::wire::headers::{self, Fragment};

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);

/// A gateway with an address on each of two ports.
struct World {
    unix_secs: u64,
    random: Cell<u32>,
    segments: Vec<Vec<u8>>,
}

fn gateway() -> World {
    World { unix_secs: 0, random: Cell::new(0), segments: Vec::new() }
}

fn ip(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

impl Around for World {
    fn now(&self) -> Now {
        Now { unix_ns: self.unix_secs * 1_000_000_000, ..Now::default() }
    }

    fn place_of(&self, address: Address, port: Option<PortId>) -> PlaceOf {
        let is = |text: &str| address == ip(text);
        let begins = |text: &str| address.ip().to_string().starts_with(text);
        match () {
            () if is("10.1.0.1") || is("2001:db8:1::1") => PlaceOf::Local(LAN),
            () if is("10.2.0.1") || is("2001:db8:2::1") => PlaceOf::Local(WAN),
            () if is("2001:db8:1::") => PlaceOf::Anycast(LAN),
            () if is("2001:db8:2::") => PlaceOf::Anycast(WAN),
            () if is("10.1.0.255") || is("10.2.0.255") || is("255.255.255.255") => {
                PlaceOf::Broadcast
            }
            () if begins("224.") || begins("ff0") => PlaceOf::Multicast,
            () if begins("10.1.") || begins("2001:db8:1:") => PlaceOf::Unicast(LAN),
            () if begins("10.2") || begins("2001:db8:2") => PlaceOf::Unicast(WAN),
            () if begins("10.9.") || begins("2001:db8:9:") => PlaceOf::Blackhole,
            () if begins("10.10.") || begins("2001:db8:a:") => PlaceOf::Unreachable,
            () if begins("10.11.") || begins("2001:db8:b:") => PlaceOf::Prohibit,
            () if begins("fe80:") => port.map_or(PlaceOf::NoRoute, PlaceOf::Unicast),
            () => PlaceOf::NoRoute,
        }
    }

    fn random(&self) -> u32 {
        self.random.replace(self.random.get().wrapping_add(1 << 28))
    }

    fn segments(&self, visit: &mut dyn FnMut(&[u8]) -> bool) {
        let mut segments = self.segments.iter();
        while segments.next().is_some_and(|segment| visit(segment)) {}
    }
}

const LINK: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];

fn with_link(kind: [u8; 2], packet: Vec<u8>, padding: usize) -> Vec<u8> {
    [LINK.to_vec(), kind.to_vec(), packet, vec![0; padding]].concat()
}

/// A frame of IPv4 with a right checksum.
fn v4(src: &str, dst: &str, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    header[8] = 64;
    header[9] = proto;
    header[12..16].copy_from_slice(&ip(src).v4_bits().to_be_bytes());
    header[16..20].copy_from_slice(&ip(dst).v4_bits().to_be_bytes());
    with_link([8, 0], [&header, payload].concat(), 6)
}

fn v6(src: &str, dst: &str, proto: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 40];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    (header[6], header[7]) = (proto, 64);
    header[8..24].copy_from_slice(&ip(src).bits().to_be_bytes());
    header[24..40].copy_from_slice(&ip(dst).bits().to_be_bytes());
    with_link([0x86, 0xdd], [&header, payload].concat(), 0)
}

/// What the pipeline would make of a frame; checksums of IPv4 headers are put right.
fn facts<'a>(frame: &'a mut [u8], world: &'a World) -> Facts<'a> {
    if frame[12] == 8 {
        frame[24..26].fill(0);
        let sum = crate::wire::checksum::finish(crate::wire::checksum::sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let total = world.segments.iter().map(Vec::len).sum::<usize>().max(frame.len());
    let h = headers::parse(frame, total).unwrap();
    Facts {
        in_port: Some(LAN),
        out_port: None,
        src: h.src,
        dst: h.dst,
        proto: h.proto,
        fragment_offset: match h.fragment {
            Fragment::Later { offset, .. } => offset >> 3,
            _ => 0,
        },
        src_port: h.src_port,
        dst_port: h.dst_port,
        tcp_flags: h.tcp_flags,
        icmp_type: h.icmp_type,
        icmp_code: h.icmp_code,
        l4_valid: !h.l4_truncated,
        length: h.ip_len(),
        mark: 0,
        frame,
        l3_at: h.l3,
        l4_at: h.l4,
        around: world,
        ct: CtFacts::NONE,
    }
}

fn says(asked: &Match, mut frame: Vec<u8>) -> Answer {
    asked.ask(&facts(&mut frame, &gateway()))
}

fn holds(asked: &Match, frame: Vec<u8>) -> bool {
    match says(asked, frame) {
        Answer::Holds => true,
        Answer::Fails => false,
        Answer::Drop => panic!("{asked:?} drops"),
    }
}

/// Those of `all` of which the match holds.
fn those<'a>(asked: &Match, all: &[&'a str], frame: impl Fn(&str) -> Vec<u8>) -> Vec<&'a str> {
    all.iter().copied().filter(|one| holds(asked, frame(one))).collect()
}

const PLACES: [&str; 16] = [
    "10.1.0.1",
    "10.1.0.255",
    "10.2.0.1",
    "10.2.0.255",
    "255.255.255.255",
    "224.0.0.1",
    "0.0.0.0",
    "0.1.2.3",
    "127.0.0.1",
    "10.9.0.1",
    "10.10.0.1",
    "10.11.0.1",
    "99.1.1.1",
    "10.1.0.7",
    "10.20.0.1",
    "10.2.0.7",
];

const PLACES6: [&str; 14] = [
    "2001:db8:1::1",
    "2001:db8:1::",
    "2001:db8:2::1",
    "2001:db8:2::",
    "ff02::1",
    "ff05::5",
    "2001:db8:9::1",
    "2001:db8:a::1",
    "2001:db8:b::1",
    "2001:db8:ffff::1",
    "2001:db8:1::7",
    "2001:db8:20::1",
    "2001:db8:2::7",
    "fe80::99",
];

fn to_type(bits: u16, limit: Option<Limit>) -> Match {
    let dst = Some(Maybe::is(AddressTypes(bits)));
    Match::AddrType(AddrType { dst, limit, src: None })
}

/// As the kernel was seen to do it: only the table of local addresses is asked.
#[test]
fn addrtype_of_ipv4_knows_what_is_local() {
    let of =
        |bits, limit| those(&to_type(bits, limit), &PLACES, |dst| v4("10.1.0.9", dst, 17, &[0; 8]));
    let others = ["10.9.0.1", "10.10.0.1", "10.11.0.1", "99.1.1.1", "10.1.0.7", "10.20.0.1"];
    let unicast = |more: &[&'static str]| [more, &others, &["10.2.0.7"]].concat();
    assert_eq!(of(1 << 1, None), unicast(&["0.1.2.3"]));
    assert_eq!(of(1 << 2, None), ["10.1.0.1", "10.2.0.1", "127.0.0.1"]);
    assert_eq!(of(1 << 3, None), ["10.1.0.255", "10.2.0.255", "255.255.255.255", "0.0.0.0"]);
    assert_eq!(of(1 << 5, None), ["224.0.0.1"]);
    for bit in [0, 4, 6, 7, 8, 9, 10, 11] {
        assert!(of(1 << bit, None).is_empty(), "{bit}");
    }
    let limit = Some(Limit::In);
    let elsewhere = ["10.2.0.1", "10.2.0.255", "0.1.2.3", "127.0.0.1"];
    assert_eq!(of(1 << 1, limit), unicast(&elsewhere));
    assert_eq!(of(1 << 2, limit), ["10.1.0.1"]);
    assert_eq!(of(1 << 3, limit), ["10.1.0.255", "255.255.255.255", "0.0.0.0"]);
    // Nothing is of the port of departure before there is one.
    assert!(of(1 << 2, Some(Limit::Out)).is_empty());
    let not = AddrType { src: None, dst: Some(Maybe::isnt(AddressTypes(6))), limit: None };
    let odd = those(&Match::AddrType(not), &PLACES, |dst| v4("10.1.0.9", dst, 17, &[0; 8]));
    assert_eq!(odd, ["10.1.0.255", "10.2.0.255", "255.255.255.255", "224.0.0.1", "0.0.0.0"]);
}

/// As the kernel was seen to do it: of what is looked up one is enough, the others all have to be.
#[test]
fn addrtype_of_ipv6_asks_the_routes() {
    let of = |bits, limit| {
        those(&to_type(bits, limit), &PLACES6, |dst| v6("2001:db8:1::9", dst, 17, &[0; 8]))
    };
    assert!(of(1 << 0, None).is_empty());
    assert_eq!(of(1 << 1, None).len(), 12);
    assert_eq!(of(1 << 2, None), ["2001:db8:1::1", "2001:db8:2::1"]);
    assert_eq!(of(1 << 4, None), ["2001:db8:1::", "2001:db8:2::"]);
    assert_eq!(of(1 << 5, None), ["ff02::1", "ff05::5"]);
    let nowhere = ["2001:db8:9::1", "2001:db8:a::1", "2001:db8:b::1", "2001:db8:ffff::1"];
    assert_eq!(of(1 << 7, None), nowhere);
    let limit = Some(Limit::In);
    assert_eq!(of(1 << 2, limit), ["2001:db8:1::1"]);
    assert_eq!(of(1 << 4, limit), ["2001:db8:1::"]);
    let beyond = ["2001:db8:20::1", "2001:db8:2::7"];
    let here = ["2001:db8:2::1", "2001:db8:2::"];
    assert_eq!(of(1 << 7, limit), [&here[..], &nowhere, &beyond].concat());
    assert_eq!(of(1 << 1 | 1 << 2, None), ["2001:db8:1::1", "2001:db8:2::1"]);
    assert!(of(1 << 5 | 1 << 2, None).is_empty());
}

/// As the kernel was seen to do it.
#[test]
fn rpfilter_asks_for_the_way_back() {
    let of = |loose, accept_local, dst: &str| {
        let asked = RpFilter { loose, accept_local, ..RpFilter::default() };
        let held = those(&Match::RpFilter(asked), &PLACES, |src| v4(src, dst, 17, &[0; 8]));
        let invert = Match::RpFilter(RpFilter { invert: true, ..asked });
        let others = those(&invert, &PLACES, |src| v4(src, dst, 17, &[0; 8]));
        assert_eq!(held.len() + others.len(), PLACES.len());
        held
    };
    let dst = "10.20.0.1";
    assert_eq!(of(false, false, dst), ["10.1.0.7"]);
    assert_eq!(of(true, false, dst), ["10.1.0.7", "10.20.0.1", "10.2.0.7"]);
    assert_eq!(of(false, true, dst), ["10.1.0.1", "10.1.0.7"]);
    let all = ["10.1.0.1", "10.2.0.1", "10.1.0.7", "10.20.0.1", "10.2.0.7"];
    assert_eq!(of(true, true, dst), all);
    for group in ["255.255.255.255", "224.0.0.251"] {
        assert_eq!(of(false, false, group), ["0.0.0.0", "10.1.0.7"]);
    }
    let of = |loose, accept_local| {
        let asked = Match::RpFilter(RpFilter { loose, accept_local, ..RpFilter::default() });
        let sources: Vec<&str> = PLACES6.into_iter().filter(|a| !a.starts_with("ff")).collect();
        those(&asked, &sources, |src| v6(src, "2001:db8:20::1", 17, &[0; 8]))
    };
    assert_eq!(of(false, false), ["2001:db8:1::7", "fe80::99"]);
    let loose = ["2001:db8:1::7", "2001:db8:20::1", "2001:db8:2::7", "fe80::99"];
    assert_eq!(of(true, false), loose);
    let local = ["2001:db8:1::1", "2001:db8:2::1", "2001:db8:1::7", "fe80::99"];
    assert_eq!(of(false, true), local);
    let none = Match::RpFilter(RpFilter::default());
    assert!(holds(&none, v6("::", "2001:db8:20::1", 17, &[0; 8])));
}

#[test]
fn iprange_is_inclusive() {
    let range = |low, high| (ip(low), ip(high));
    let src = Some(Maybe::is(range("10.1.0.5", "10.1.0.9")));
    let asked = Match::IpRange(Box::new(IpRange { src, dst: None }));
    let from = |src: &str| v4(src, "10.20.0.1", 17, &[0; 8]);
    let all = ["10.1.0.4", "10.1.0.5", "10.1.0.9", "10.1.0.10"];
    assert_eq!(those(&asked, &all, from), ["10.1.0.5", "10.1.0.9"]);
    let dst = Some(Maybe::isnt(range("10.20.0.1", "10.20.0.1")));
    let asked = Match::IpRange(Box::new(IpRange { src, dst }));
    assert!(those(&asked, &all, from).is_empty());
    let reversed = IpRange { src: Some(Maybe::is(range("10.1.0.9", "10.1.0.5"))), dst: None };
    assert!(those(&Match::IpRange(Box::new(reversed)), &all, from).is_empty());
}

#[test]
fn link_addresses_are_those_of_the_frame() {
    let udp = || v4("10.1.0.9", "10.20.0.1", 17, &[0; 8]);
    let mac = |not, value| Match::Mac(Mac(Maybe { not, value }));
    assert!(holds(&mac(false, [2, 0, 0, 0, 0, 9]), udp()));
    assert!(!holds(&mac(true, [2, 0, 0, 0, 0, 9]), udp()));
    assert!(!holds(&mac(false, [2, 0, 0, 0, 0, 1]), udp()));
    let mut frame = udp();
    let world = gateway();
    let own = Facts { in_port: None, ..facts(&mut frame, &world) };
    assert_eq!(mac(true, [0; 6]).ask(&own), Answer::Fails, "one of our own has none");
    let to = |dst: [u8; 6]| {
        let mut frame = udp();
        frame[..6].copy_from_slice(&dst);
        frame
    };
    for (dst, sent) in [
        ([2, 0, 0, 0, 0, 1], SentTo::Us),
        ([1, 0, 0x5e, 0, 0, 1], SentTo::Group),
        ([0xff; 6], SentTo::All),
    ] {
        for asked in [SentTo::Us, SentTo::All, SentTo::Group, SentTo::Other] {
            let asked = |not| Match::PktType(PktType(Maybe { not, value: asked }));
            assert_eq!(
                holds(&asked(false), to(dst)),
                asked(false) == Match::PktType(PktType(Maybe::is(sent)))
            );
            assert_ne!(holds(&asked(true), to(dst)), holds(&asked(false), to(dst)));
            // A path is taken by frames to our own address alone.
            let mut frame = to(dst);
            let looks = asked(false).looks_at_the_packet(&facts(&mut frame, &gateway()));
            assert_eq!(looks, sent != SentTo::Us);
        }
    }
}

#[test]
fn headers_are_read_in_both_families() {
    let mut four = v4("10.1.0.9", "10.20.0.1", 17, &[0; 8]);
    four[15] = 0x15;
    let mut six = v6("2001:db8:1::9", "2001:db8:20::1", 17, &[0; 8]);
    (six[14], six[15]) = (0x61, 0x5f);
    for frame in [four, six] {
        let six = frame[12] == 0x86;
        let is = |asked: Match| holds(&asked, frame.clone());
        let tos = |not, value, mask| is(Match::Tos(Tos { value: Maybe { not, value }, mask }));
        assert!(tos(false, 0x14, 0xfc) && tos(false, 0x15, 0xff) && !tos(true, 0x15, 0xff));
        assert!(!tos(false, 0x14, 0xff) && !tos(false, 0x15, 0x10));
        let dscp = |value| is(Match::Dscp(Dscp(value)));
        assert!(dscp(Maybe::is(5)) && !dscp(Maybe::isnt(5)) && !dscp(Maybe::is(0x15)));
        let ecn = |value| is(Match::Ecn(Ecn { ip: Some(value), ..Ecn::default() }));
        assert!(ecn(Maybe::is(1)) && ecn(Maybe::isnt(0)) && !ecn(Maybe::is(2)));
        let length = |low, high| is(Match::Length(Length(Maybe::is((low, high)))));
        let bytes = if six { 48 } else { 28 };
        assert!(length(bytes, bytes) && length(0, u16::MAX));
        assert!(!length(bytes + 1, u16::MAX) && !length(0, bytes - 1) && !length(200, 100));
        let life = |compare, value| is(Match::Ttl(Life { compare, value }));
        let of = [63, 64, 65].map(|value| {
            [Compare::Equal, Compare::NotEqual, Compare::Less, Compare::Greater]
                .map(|compare| life(compare, value))
        });
        let (equal, less, more) =
            ([true, false, false, false], [false, true, true, false], [false, true, false, true]);
        assert_eq!(of, [more, equal, less]);
    }
}

fn tcp(flags: u8, words: u8, options: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[3, 232, 7, 208]);
    (header[12], header[13]) = (words << 4, flags);
    v4("10.1.0.9", "10.20.0.1", 6, &[&header, options].concat())
}

#[test]
fn flags_of_congestion_are_those_of_tcp() {
    let ecn = |ece, cwr| Match::Ecn(Ecn { ece, cwr, ip: None });
    let (yes, no) = (Some(Maybe::is(())), Some(Maybe::isnt(())));
    assert!(holds(&ecn(None, yes), tcp(0x82, 5, &[])));
    assert!(holds(&ecn(no, yes), tcp(0x82, 5, &[])));
    assert!(!holds(&ecn(yes, yes), tcp(0x82, 5, &[])));
    assert!(holds(&ecn(yes, no), tcp(0x42, 5, &[])));
    assert!(!holds(&ecn(no, None), v4("10.1.0.9", "10.20.0.1", 17, &[0; 8])));
}

/// As the kernel was seen to do it.
#[test]
fn the_first_mss_of_the_right_length_counts() {
    let asked = |not, low, high| Match::Mss(Mss(Maybe { not, value: (low, high) }));
    let mss: [(&[u8], Option<u16>); 7] = [
        (&[2, 4, 5, 0x78], Some(1400)),
        (&[], None),
        (&[1, 1, 1, 1, 2, 4, 5, 0x78], Some(1400)),
        (&[2, 5, 5, 0x78], None),
        (&[1, 2, 4, 5], None),
        (&[3, 3, 7, 0], None),
        (&[2, 4, 0, 1, 2, 4, 5, 0x78], Some(1)),
    ];
    for (options, mss) in mss {
        let words = 5 + options.len() as u8 / 4;
        let frame = || tcp(2, words, options);
        assert_eq!(holds(&asked(false, 1400, 1400), frame()), mss == Some(1400), "{options:?}");
        assert_eq!(holds(&asked(true, 1400, 1400), frame()), mss != Some(1400), "{options:?}");
        assert_eq!(holds(&asked(false, 0, u16::MAX), frame()), mss.is_some(), "{options:?}");
    }
    for frame in
        [v4("10.1.0.9", "10.20.0.1", 6, &[0; 12]), tcp(2, 4, &[]), tcp(2, 6, &[]), tcp(2, 15, &[])]
    {
        assert_eq!(says(&asked(true, 1, 1), frame), Answer::Drop);
    }
}

/// As the kernel was seen to do it: headers of 8 and 12 bytes have to be there.
#[test]
fn spis_are_read_where_they_are() {
    let spi = |not, low, high| Spi(Maybe { not, value: (low, high) });
    let packet = |proto, payload: &[u8]| v4("10.1.0.9", "10.20.0.1", proto, payload);
    let esp = |spi, bytes: &[u8]| says(&Match::Esp(spi), packet(50, bytes));
    assert_eq!(esp(spi(false, 7, 7), &[0, 0, 0, 7, 0, 0, 0, 0]), Answer::Holds);
    assert_eq!(esp(spi(true, 7, 9), &[0, 0, 0, 7, 0, 0, 0, 0]), Answer::Fails);
    assert_eq!(esp(spi(false, 8, u32::MAX), &[0, 0, 0, 7, 0, 0, 0, 0]), Answer::Fails);
    assert_eq!(esp(spi(false, 7, 7), &[0, 0, 0, 7, 0, 0, 0]), Answer::Drop);
    let ah = |spi, bytes: &[u8]| says(&Match::Ah4(spi), packet(51, bytes));
    assert_eq!(ah(spi(false, 7, 7), &[17, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0]), Answer::Holds);
    assert_eq!(ah(spi(false, 7, 7), &[17, 1, 0, 0, 0, 0, 0, 7, 0, 0, 0]), Answer::Drop);
    assert!(
        !Match::Esp(Spi::ALL).looks_at_the_packet(&facts(&mut packet(50, &[0; 8]), &gateway()))
    );
}

fn sctp(chunks: &[&[u8]]) -> Vec<u8> {
    let mut payload = vec![3, 232, 7, 208, 0, 0, 0, 0, 0, 0, 0, 0];
    payload.extend(chunks.concat());
    v4("10.1.0.9", "10.20.0.1", 132, &payload)
}

/// As the kernel was seen to do it, these chunks asked for these things.
#[test]
fn chunks_are_any_all_or_only_those() {
    const DATA3: &[u8] = &[0, 3, 0, 13, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0];
    const DATA0: &[u8] = &[0, 0, 0, 4];
    const INIT: &[u8] = &[1, 0, 0, 8, 0, 0, 0, 0];
    const SACK: &[u8] = &[3, 0, 0, 4];
    let packets: [(&str, &[&[u8]]); 7] = [
        ("data3", &[DATA3]),
        ("data0", &[DATA0]),
        ("init", &[INIT]),
        ("data3+sack", &[DATA3, SACK]),
        ("data3+data0", &[DATA3, DATA0]),
        ("long", &[&[0, 3, 0, 255]]),
        ("len1", &[&[0, 0, 0, 1]]),
    ];
    let data = ChunkSet::default().with(0);
    let begin = |set| vec![ChunkFlags { kind: 0, mask: 2, set }];
    let of = |which, kinds, flags: Vec<ChunkFlags>| {
        let chunks = Some(Maybe::is(Box::new(Chunks { which, kinds, flags })));
        let asked = Match::Sctp(Sctp { chunks, ..Sctp::default() });
        let held = packets.iter().filter(|(_, chunks)| holds(&asked, sctp(chunks)));
        held.map(|(name, _)| *name).collect::<Vec<&str>>().join(" ")
    };
    let any = "data3 data0 data3+sack data3+data0 long len1";
    assert_eq!(of(Which::Any, data, vec![]), any);
    assert_eq!(of(Which::All, data, vec![]), any);
    assert_eq!(of(Which::Only, data, vec![]), "data3 data0 data3+data0 long len1");
    assert_eq!(of(Which::Any, data, begin(2)), "data3 data3+sack data3+data0 long");
    assert_eq!(of(Which::Any, data, begin(0)), "data0 data3+data0 len1");
    assert_eq!(of(Which::All, data, begin(0)), "data0 data3+data0 len1");
    assert_eq!(of(Which::Only, data, begin(2)), "data3 long");
    assert_eq!(of(Which::All, data.with(3), vec![]), "data3+sack");
    assert_eq!(of(Which::Only, data.with(3), vec![]), any);
    assert_eq!(of(Which::Any, ChunkSet::ALL, vec![]).split(' ').count(), 7);
    assert_eq!(of(Which::All, ChunkSet::ALL, vec![]), "");
    assert_eq!(of(Which::Only, ChunkSet::ALL, vec![]).split(' ').count(), 7);
    assert_eq!(of(Which::Any, ChunkSet::default(), vec![]), "");
    assert_eq!(of(Which::All, ChunkSet::default(), vec![]).split(' ').count(), 7);
    let chunks = Chunks { which: Which::Any, kinds: data, flags: vec![] };
    let asked = |not| {
        let chunks = Some(Maybe { not, value: Box::new(chunks.clone()) });
        Match::Sctp(Sctp { chunks, ..Sctp::default() })
    };
    assert!(holds(&asked(true), sctp(&[INIT])) && !holds(&asked(true), sctp(&[DATA0])));
    for broken in [sctp(&[]), sctp(&[&[0, 0]]), sctp(&[&[0; 4]]), sctp(&[INIT, &[0; 4]])] {
        assert_eq!(says(&asked(true), broken), Answer::Drop);
    }
    let ports =
        Match::Sctp(Sctp { src_port: Some(Maybe::is(PortRange::one(1000))), ..Sctp::default() });
    assert!(holds(&ports, sctp(&[])));
    assert_eq!(says(&ports, v4("10.1.0.9", "10.20.0.1", 132, &[0; 11])), Answer::Drop);
}

/// As the kernel was seen to do it.
#[test]
fn dccp_options_lie_behind_the_header_of_their_type() {
    let packet = |kind: u8, more: usize, options: &[u8], words: Option<u8>| {
        let mut header = vec![3, 232, 7, 208, 0, 0, 0, 0, kind << 1 | 1, 0, 0, 0, 0, 0, 0, 0];
        header[4] = words.unwrap_or(((16 + more + options.len()) / 4) as u8);
        header.resize(16 + more, 0);
        v4("10.1.0.9", "10.20.0.1", 33, &[&header[..], options, &[5, 2, 0, 0]].concat())
    };
    let short = v4(
        "10.1.0.9",
        "10.20.0.1",
        33,
        &[&[0; 4][..], &[4, 0, 0, 0, 2 << 1, 0, 0, 0], &[5, 2, 0, 0]].concat(),
    );
    let option =
        |not| Match::Dccp(Dccp { option: Some(Maybe { not, value: 5 }), ..Dccp::default() });
    for (frame, has) in [
        (packet(0, 4, &[], None), false),
        (packet(0, 4, &[5, 3, 0, 0], None), true),
        (packet(1, 12, &[0, 0, 5, 2], None), true),
        (packet(2, 0, &[], None), false),
        (packet(11, 12, &[], None), false),
        (packet(15, 12, &[5, 2, 0, 0], None), true),
        (short, true),
    ] {
        assert_eq!(holds(&option(false), frame.clone()), has);
        assert_eq!(holds(&option(true), frame), !has);
    }
    for words in [3, 20] {
        assert_eq!(says(&option(true), packet(0, 4, &[], Some(words))), Answer::Drop);
    }
    let types = |types| Match::Dccp(Dccp { types: Some(Maybe::is(types)), ..Dccp::default() });
    assert!(
        holds(&types(1), packet(0, 4, &[], None)) && !holds(&types(1), packet(2, 0, &[], None))
    );
    assert!(holds(&types(0xfc00), packet(11, 12, &[], None)));
}

fn search(pattern: &[u8], from: u16, to: u16, ignore_case: bool) -> Match {
    let pattern = Maybe::is(pattern.to_vec());
    let mut search = Search::new(pattern, Algorithm::Kmp, ignore_case);
    (search.from, search.to) = (from, to);
    Match::Search(Box::new(search))
}

/// As the kernel was seen to do it: offsets count from the IP header, and what is found lies
/// between them as a whole.
#[test]
fn strings_are_found_between_their_offsets() {
    let packet = |before: usize| {
        let payload = [&[0; 8][..], &vec![b'.'; before], b"GeT /", &vec![b'.'; 40 - before]];
        v4("10.1.0.9", "10.20.0.1", 17, &payload.concat())
    };
    let of = |asked: Match| -> Vec<usize> {
        [0, 1, 10, 40].into_iter().filter(|&before| holds(&asked, packet(before))).collect()
    };
    let all = [0, 1, 10, 40];
    assert_eq!(of(search(b"GeT /", 0, u16::MAX, false)), all);
    assert_eq!(of(search(b"get", 0, u16::MAX, true)), all);
    assert_eq!(of(search(b"get", 0, u16::MAX, false)), []);
    assert_eq!(of(search(b"GeT", 28, u16::MAX, false)), all);
    assert_eq!(of(search(b"GeT", 29, u16::MAX, false)), [1, 10, 40]);
    assert_eq!(of(search(b"GeT", 28, 31, false)), [0]);
    assert_eq!(of(search(b"GeT", 28, 30, false)), []);
    assert_eq!(of(search(b"GeT", 0, 31, false)), [0]);
    assert_eq!(of(search(b"GeT", 38, 41, false)), [10]);
    assert_eq!(of(search(b"GeT", 38, 40, false)), []);
    assert_eq!(of(search(b"E\0", 0, u16::MAX, false)), all, "of the header");
    assert_eq!(of(search(b"GeT", 0, 0, false)), []);
    assert_eq!(of(search(b"GeT", 5000, u16::MAX, false)), []);
    assert_eq!(of(search(&[0; 6], 28, u16::MAX, false)), [], "nor in what pads the frame");
    // Latin-1 has capitals, but for the last letter.
    let byte = |byte| v4("10.1.0.9", "10.20.0.1", 17, &[&[0; 8][..], &[byte]].concat());
    let found = |pattern: u8| {
        [0xe9, 0xc9, 0xd7, 0xdf, 0xff].map(|b| holds(&search(&[pattern], 28, 99, true), byte(b)))
    };
    assert_eq!(found(0xe9), [true, true, false, false, false]);
    assert_eq!(found(0xf7), [false; 5]);
    assert_eq!(found(0xff), [false, false, false, false, true]);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_search_finds_what_looking_everywhere_finds(
            text in prop::collection::vec(b'a'..=b'c', 0..60),
            pattern in prop::collection::vec(b'a'..=b'c', 1..8),
            (from, to) in (0..90u16, 0..90u16),
            cut in 42..100usize,
        ) {
            let payload = [&[0; 8][..], &text].concat();
            let plain = gateway();
            let mut whole = v4("10.1.0.9", "10.20.0.1", 17, &payload);
            facts(&mut whole, &plain);
            let packet = &whole[14..whole.len() - 6];
            let end = packet.len().min(to.into());
            let span = packet.get(from.into()..end).unwrap_or(&[]);
            let expected = span.windows(pattern.len()).any(|window| window == pattern);
            // The same in two segments; headers lie in the first one.
            let cut = cut.min(whole.len());
            let segments = vec![whole[..cut].to_vec(), whole[cut..].to_vec()];
            let world = World { segments, ..gateway() };
            let mut head = whole[..cut].to_vec();
            let asked = search(&pattern, from, to, false);
            prop_assert_eq!(asked.ask(&facts(&mut head, &world)), expected.into());
            prop_assert_eq!(asked.ask(&facts(&mut whole.clone(), &gateway())), expected.into());
            let mut four = whole.clone();
            let (four, two) = (facts(&mut four, &plain), facts(&mut head, &world));
            for at in 0..packet.len() {
                let bytes = packet.get(at..).and_then(|rest| rest.first_chunk()).copied();
                prop_assert_eq!(four.four_bytes(at), bytes);
                prop_assert_eq!(two.four_bytes(at), bytes);
            }
        }
    }
}

/// As the kernel was seen to do it.
#[test]
fn u32_reads_words_of_the_packet() {
    let frame = || {
        v4(
            "10.1.0.9",
            "10.20.0.1",
            17,
            &[3, 232, 7, 208, 0, 16, 0, 0, b'A', b'B', b'C', b'D', 0, 0, 0, 0],
        )
    };
    let probe = |offset, steps: &[Step], low, high| Probe {
        offset,
        steps: steps.to_vec(),
        ranges: vec![(1, 0), (low, high)],
    };
    let of = |probes: Vec<Probe>| {
        let held =
            holds(&Match::U32(Box::new(U32 { not: false, probes: probes.clone() })), frame());
        assert_ne!(held, holds(&Match::U32(Box::new(U32 { not: true, probes })), frame()));
        held
    };
    let (all, abcd) = (u32::MAX, 0x4142_4344);
    let header = [Step::Right(22), Step::And(0x3c)];
    let behind = |offset| [&header[..], &[Step::At(offset)]].concat();
    assert!(of(vec![probe(0, &behind(0), 0x03e8_07d0, 0x03e8_07d0)]));
    assert!(of(vec![probe(0, &behind(8), abcd, abcd), probe(28, &[], abcd, abcd)]));
    assert!(!of(vec![probe(28, &[], abcd, abcd), probe(0, &[Step::Right(24)], 0x46, 0x46)]));
    assert!(of(vec![probe(32, &[], 0, all)]) && !of(vec![probe(33, &[], 0, all)]));
    assert!(of(vec![probe(0, &[Step::Left(31)], 0, 0)]));
    assert!(!of(vec![probe(28, &[Step::At(0)], 0, all)]), "far behind the end");
    assert!(!of(vec![probe(0, &behind(0u32.wrapping_sub(20)), 0, all)]));
    assert!(!of(vec![probe(0, &[Step::And(0), Step::At(all)], 0, all)]));
    // What `@` has moved by stays.
    let twice = [Step::Right(24), Step::And(4), Step::At(0), Step::At(4), Step::Right(16)];
    assert!(of(vec![probe(0, &twice, 64 << 8 | 17, 64 << 8 | 17)]));
}

/// As the kernel was seen to do it on that Sunday.
#[test]
fn time_is_that_of_the_wall_clock() {
    let world = World { unix_secs: 1_795_334_619, ..gateway() };
    let is = |asked: Moment| {
        let mut frame = v4("10.1.0.9", "10.20.0.1", 17, &[0; 8]);
        Match::Time(asked).ask(&facts(&mut frame, &world)) == Answer::Holds
    };
    let any = Moment::default();
    assert!(is(any) && is(Moment { week_days: 1 << 7, ..any }));
    assert!(!is(Moment { week_days: 1 << 6, ..any }) && !is(Moment { week_days: 1 << 1, ..any }));
    assert!(
        is(Moment { month_days: 1 << 22, ..any }) && !is(Moment { month_days: 1 << 21, ..any })
    );
    let hours = |from: u32, to: u32| Moment { from: from * 3600, to: to * 3600, ..any };
    assert!(is(hours(8, 9)) && !is(hours(9, 8)) && is(hours(10, 9)) && is(hours(23, 23)));
    let night = Moment { contiguous: true, ..hours(10, 9) };
    assert!(
        is(Moment { week_days: 1 << 6, ..night }) && !is(Moment { week_days: 1 << 7, ..night })
    );
    assert!(is(Moment { month_days: 1 << 21, ..night }));
}

#[test]
fn statistic_takes_some_of_many() {
    let mut frame = v4("10.1.0.9", "10.20.0.1", 17, &[0; 8]);
    let world = gateway();
    let facts = facts(&mut frame, &world);
    let run = |asked: &Match| [0; 8].map(|_| asked.ask(&facts) == Answer::Holds);
    let nth = Match::Statistic(Statistic::Nth(Nth::new(Maybe::is(3), 1)));
    let third = [false, true, false, false, true, false, false, true];
    assert_eq!(run(&nth), third);
    // The copy that packets walk counts with the rule as written.
    assert_eq!(run(&nth.clone()), [false, false, true, false, false, true, false, false]);
    assert_eq!(nth, Match::Statistic(Statistic::Nth(Nth::new(Maybe::is(3), 1))));
    let not = Match::Statistic(Statistic::Nth(Nth::new(Maybe::isnt(3), 1)));
    assert_eq!(run(&not), third.map(|held| !held));
    // Of 16 numbers in even distances, of which 31 bits count, half are below the half.
    let random = |value| Match::Statistic(Statistic::Random(value));
    let count = |asked: Match| (0..2).flat_map(|_| run(&asked)).filter(|held| *held).count();
    assert_eq!(count(random(Maybe::is(Statistic::CERTAIN / 2))), 8);
    assert_eq!(count(random(Maybe::isnt(Statistic::CERTAIN / 4))), 12);
    assert_eq!(count(random(Maybe::is(Statistic::CERTAIN))), 16);
    assert_eq!(count(random(Maybe::is(0))), 0);
}

#[test]
fn what_is_asked_of_a_conn_needs_one() {
    let mut frame = v4("10.1.0.9", "10.20.0.1", 17, &[0; 8]);
    let world = gateway();
    let facts = facts(&mut frame, &world);
    let expected =
        ConnFacts { mark: 0x15, master_helper: Some(Helper::Tftp), ..ConnFacts::default() };
    let plain = ConnFacts::default();
    let of = |asked: &Match, conn: Option<&ConnFacts>| {
        let conn = conn.map(|conn| conn as _);
        asked.ask(&Facts { ct: CtFacts { conn, ..CtFacts::NONE }, ..facts }) == Answer::Holds
    };
    let mark =
        |not| Match::Connmark(Connmark(Maybe { not, value: Masked { value: 5, mask: 0xf } }));
    assert!(of(&mark(false), Some(&expected)) && !of(&mark(true), Some(&expected)));
    assert!(!of(&mark(false), Some(&plain)) && of(&mark(true), Some(&plain)));
    assert!(!of(&mark(false), None) && !of(&mark(true), None));
    let helper = |not, name: &str| Match::Helper(HelperName(Maybe { not, value: name.to_owned() }));
    for (name, met) in
        [("tftp", true), ("tftp-69", true), ("", true), ("tft", false), ("ftp", false)]
    {
        assert_eq!(of(&helper(false, name), Some(&expected)), met, "{name}");
        assert_eq!(of(&helper(true, name), Some(&expected)), !met, "{name}");
        assert!(!of(&helper(false, name), Some(&plain)) && of(&helper(true, name), None));
    }
}

/// The packets of the next two tests.
fn extended() -> [(&'static str, Vec<u8>); 12] {
    let packet =
        |first, parts: &[&[u8]]| v6("2001:db8:1::9", "2001:db8:20::1", first, &parts.concat());
    let (udp, esp): (&[u8], &[u8]) = (&[3, 232, 7, 208, 0, 8, 0, 0], &[0, 0, 0, 7, 0, 0, 0, 0]);
    let routing = |kind: u8, left: u8, last: &[u8]| -> Vec<u8> {
        let mut bytes = vec![17, 2 * last.len() as u8, kind, left, 0, 0, 0, 0];
        for &n in last {
            bytes.extend(u128::from(n).to_be_bytes());
        }
        bytes
    };
    let ah = |spi: u8, reserved: u8| {
        [17, 4, 0, reserved, 0, 0, 0, spi, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    [
        ("plain", packet(17, &[udp])),
        ("hbh", packet(0, &[&[17, 0, 5, 2, 0, 0, 1, 0], udp])),
        ("dst", packet(60, &[&[17, 0, 30, 4, 1, 2, 3, 4], udp])),
        ("hbh+dst", packet(0, &[&[60, 0, 5, 2, 0, 0, 1, 0], &[17, 0, 0, 30, 3, 1, 2, 3], udp])),
        ("rt0", packet(43, &[&routing(0, 1, &[1, 2]), udp])),
        ("rt2", packet(43, &[&routing(2, 0, &[5]), udp])),
        ("ah", packet(51, &[&ah(7, 0), udp])),
        ("ahres", packet(51, &[&ah(8, 1), udp])),
        ("esp", packet(50, &[esp])),
        ("none", packet(59, &[])),
        ("first", packet(44, &[&[17, 0, 0, 1, 0, 0, 0, 9], udp])),
        ("hbh+esp", packet(0, &[&[50, 0, 1, 4, 0, 0, 0, 0], esp])),
    ]
}

fn of_extended(asked: &Match) -> String {
    let held = extended().into_iter().filter(|(_, frame)| holds(asked, frame.clone()));
    held.map(|(name, _)| name).collect::<Vec<&str>>().join(" ")
}

/// As the kernel was seen to do it.
#[test]
fn extension_headers_are_named() {
    let of = |not, value, soft| {
        of_extended(&Match::HeaderKinds(HeaderKinds { kinds: Maybe { not, value }, soft }))
    };
    assert_eq!(of(false, 0x01, false), "plain");
    assert_eq!(of(false, 0x04, false), "esp");
    assert_eq!(of(false, 0x02, false), "none");
    assert_eq!(of(false, 0x80, false), "");
    assert_eq!(of(false, 0x81, false), "hbh");
    assert_eq!(of(false, 0xc1, false), "hbh+dst");
    assert_eq!(of(false, 0x11, false), "first");
    assert_eq!(of(false, 0x09, false), "ah ahres");
    assert_eq!(of(false, 0x84, false), "hbh+esp");
    assert_eq!(of(false, 0x80, true), "hbh hbh+dst hbh+esp");
    assert_eq!(of(false, 0xc0, true), "hbh+dst");
    assert_eq!(of(true, 0xc0, true), "plain rt0 rt2 ah ahres esp none first");
    assert_eq!(of(true, 0x01, false).split(' ').count(), 11);
}

/// As the kernel was seen to do it.
#[test]
fn extension_headers_are_read() {
    let options = |length, options: &[(u8, Option<u8>)]| {
        Box::new(Options { length, options: options.to_vec() })
    };
    let hbh = |options| of_extended(&Match::Hbh(options));
    assert_eq!(hbh(options(Some(Maybe::is(8)), &[])), "hbh hbh+dst hbh+esp");
    assert_eq!(hbh(options(Some(Maybe::isnt(8)), &[])), "");
    assert_eq!(hbh(options(None, &[(5, None)])), "hbh hbh+dst");
    assert_eq!(hbh(options(None, &[(5, Some(2)), (1, None)])), "hbh hbh+dst");
    assert_eq!(hbh(options(None, &[(5, Some(3))])), "");
    assert_eq!(hbh(options(None, &[(5, None), (1, None), (7, None)])), "");
    let dst = |options| of_extended(&Match::Dst(options));
    assert_eq!(dst(options(None, &[])), "dst hbh+dst");
    assert_eq!(dst(options(None, &[(30, Some(4))])), "dst");
    assert_eq!(dst(options(None, &[(0, None), (30, Some(3))])), "hbh+dst");
    let rt = |asked: Rt| of_extended(&Match::Rt(Box::new(asked)));
    let zero = |last: &[&str], not_strict| Rt {
        kind: Some(Maybe::is(0)),
        addresses: last.iter().map(|text| ip(text)).collect(),
        not_strict,
        ..Rt::default()
    };
    assert_eq!(rt(Rt::default()), "rt0 rt2");
    assert_eq!(rt(Rt { kind: Some(Maybe::isnt(0)), ..Rt::default() }), "rt2");
    assert_eq!(rt(Rt { left: Some(Maybe::is((1, 3))), ..Rt::default() }), "rt0");
    assert_eq!(rt(Rt { length: Some(Maybe::is(24)), ..Rt::default() }), "rt2");
    assert_eq!(rt(Rt { reserved: true, ..zero(&[], false) }), "rt0");
    assert_eq!(rt(zero(&["::1", "::2"], false)), "rt0");
    assert_eq!(rt(zero(&["::1"], false)), "");
    assert_eq!(rt(zero(&["::2"], true)), "rt0");
    assert_eq!(rt(zero(&["::2", "::1"], true)), "");
    let ah = |spi, length, reserved| of_extended(&Match::Ah6(Ah { spi, length, reserved }));
    let seven = |not| Spi(Maybe { not, value: (7, 7) });
    assert_eq!(ah(Spi::ALL, Some(Maybe::is(24)), false), "ah ahres");
    assert_eq!(ah(seven(false), None, false), "ah");
    assert_eq!(ah(seven(true), None, false), "ahres");
    assert_eq!(ah(Spi::ALL, Some(Maybe::isnt(24)), false), "");
    assert_eq!(ah(Spi::ALL, None, true), "ah");
    let frag = |id, first, more, length| {
        of_extended(&Match::Frag(Frag { id, length, reserved: true, first, more }))
    };
    // It keeps the length, and does not ask.
    assert_eq!(frag(Spi::ALL, true, Some(true), Some(Maybe::is(99))), "first");
    assert_eq!(frag(Spi(Maybe::is((9, 9))), false, None, None), "first");
    assert_eq!(frag(Spi(Maybe::isnt((9, 9))), false, None, None), "");
    assert_eq!(frag(Spi::ALL, false, Some(false), None), "");
}
