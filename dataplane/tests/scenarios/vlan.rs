//! Sub-interfaces: tags come off before anything looks and go on when all else is final.
//!
//! ```text
//!  10.0.10.2 ─ VLAN 10 ─┐
//!                       ├─ wan   wan.10 10.0.10.1   wan.20 10.0.20.1   guests (7 of lan) 10.0.7.1
//!  10.0.20.2 ─ VLAN 20 ─┘        fd00:10::1         fd00:20::1
//! ```

use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::neighbour::State;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{Filter, Nat};
use dataplane::rules::targets::{NatOptions, Target};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::build::{Link, neighbour};
use dataplane::wire::ethernet::{self, Mac, ether_type};
use dataplane::wire::tcp::flags::{ACK, SYN};
use dataplane::wire::{arp, vlan};

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const WAN10: PortId = PortId(2);
const WAN20: PortId = PortId(3);
const GUESTS: PortId = PortId(4);
const HOST10: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
const HOST20: Mac = Mac([2, 0, 0, 0, 0, 0x20]);

const A: &str = "10.0.10.2:4000";
const B: &str = "10.0.20.2:53";
const A6: &str = "[fd00:10::2]:4000";
const B6: &str = "[fd00:20::2]:53";

fn setup() -> Setup {
    let mut setup = Setup {
        vlans: vec![
            Vlan("wan.10", WAN, 10, 1500),
            Vlan("wan.20", WAN, 20, 1300),
            Vlan("guests", LAN, 7, 1500),
        ],
        ..Setup::default()
    };
    setup.own.extend([
        (2, "10.0.10.1", 24),
        (2, "fd00:10::1", 64),
        (2, "fe80::20", 64),
        (3, "10.0.20.1", 24),
        (3, "fd00:20::1", 64),
        // The address that the MAC gives, on each of them.
        (3, "fe80::20", 64),
        (4, "10.0.7.1", 24),
    ]);
    setup
}

fn start(setup: Setup) -> Rig {
    let rig = setup.start();
    for (port, a, mac) in [
        (WAN10, "10.0.10.2", HOST10),
        (WAN10, "fd00:10::2", HOST10),
        (WAN20, "10.0.20.2", HOST20),
        (WAN20, "fd00:20::2", HOST20),
        (GUESTS, "10.0.7.2", CLIENT_MAC),
    ] {
        rig.neighbours.set_permanent(port.0, address(a), mac.0, rig.now.tick).unwrap();
    }
    rig
}

/// A packet of a host on a VLAN of the WAN side.
fn on_vlan(tci: u16, packet: Packet<'_>) -> Vec<u8> {
    packet.tag(tci).macs(HOST10, WAN_MAC).to_vec()
}

#[track_caller]
fn one(mut sent: Vec<Sent>) -> Sent {
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent.remove(0)
}

fn tci(sent: &Sent) -> Option<u16> {
    ethernet::parse(&sent.bytes).unwrap().tci
}

/// (received, sent) frames of a port, with their bytes.
fn counts(rig: &Rig, port: PortId) -> [u64; 4] {
    let c = &rig.counters.ports[port.0 as usize];
    [c.rx_packets.get(), c.rx_bytes.get(), c.tx_packets.get(), c.tx_bytes.get()]
}

#[test]
fn a_router_on_a_stick() {
    let mut rig = start(setup());
    for (a, b) in [(A, B), (A6, B6)] {
        let (there, back) = (udp(a, b).payload(b"question"), udp(b, a).payload(b"answer"));
        for _ in 0..3 {
            let sent = one(rig.send_bytes(WAN, on_vlan(10, there)));
            let expected = there.tag(20).macs(WAN_MAC, HOST20).ttl(63).to_vec();
            assert_eq!((sent.port, &sent.bytes), (WAN, &expected));
            let sent = one(rig.send_bytes(WAN, on_vlan(20, back)));
            assert_eq!(sent.bytes, back.tag(10).macs(WAN_MAC, HOST10).ttl(63).to_vec());
        }
    }
    // All but the first of each direction and family, and the first ASSURED one.
    assert!(rig.fast() >= 6, "{}", rig.fast());
    // Each frame counts where it belongs, as it was on the wire, and nowhere else.
    assert_eq!(counts(&rig, WAN), [0; 4]);
    let (asked, answered) = (3 * (18 + 28 + 8 + 18 + 48 + 8), 3 * (18 + 28 + 6 + 18 + 48 + 6));
    assert_eq!(counts(&rig, WAN10), [6, asked, 6, answered]);
    assert_eq!(counts(&rig, WAN20), [6, answered, 6, asked]);
}

#[test]
fn tagged_conns_take_the_cached_path() {
    let mut rig = start(setup());
    for (a, b) in [(A, B), (A6, B6)] {
        rig.send_bytes(WAN, on_vlan(10, tcp(a, b, SYN, 100, 0)));
        rig.send_bytes(WAN, on_vlan(20, tcp(b, a, SYN | ACK, 500, 101)));
        rig.send_bytes(WAN, on_vlan(10, tcp(a, b, ACK, 101, 501)));
        rig.send_bytes(WAN, on_vlan(20, tcp(b, a, ACK, 501, 101)));
        let (fast, walked) = (rig.fast(), rig.counters.walked.get());
        for n in 0..10u32 {
            rig.push(
                WAN,
                MemoryFrame::new(on_vlan(10, tcp(a, b, ACK, 101 + n, 501).payload(b"x"))),
            );
            rig.push(WAN, MemoryFrame::new(on_vlan(20, tcp(b, a, ACK, 501, 101 + n))));
        }
        let sent = rig.poll();
        assert_eq!((rig.fast() - fast, rig.counters.walked.get() - walked), (20, 0));
        for (to, id) in [(HOST10, 10), (HOST20, 20)] {
            let mine: Vec<&Sent> = sent.iter().filter(|s| s.dst_mac() == to).collect();
            assert_eq!(mine.len(), 10);
            assert!(mine.iter().all(|s| tci(s) == Some(id)));
            // In the order in which they came.
            let l4 = |s: &Sent| s.headers().l4 as usize;
            // Sequence number and acknowledgement.
            let seqs: Vec<_> = mine.iter().map(|s| &s.bytes[l4(s) + 4..l4(s) + 12]).collect();
            assert!(seqs.is_sorted() && seqs[0] < seqs[9], "{seqs:?}");
        }
    }
    assert_eq!(rig.drops(), []);
}

#[test]
fn a_burst_of_all_kinds_is_sorted_and_nothing_is_lost() {
    let mut rig = start(Setup { burst_max: 64, ..setup() });
    let mut expected = Vec::new();
    for n in 0..60u8 {
        let (tag, from, to) = match n % 4 {
            0 => (None, "203.0.113.254:9", "192.168.1.2:9"),
            1 => (Some(10), A, B),
            2 => (Some(0x6014), "10.0.20.2:9", "10.0.10.2:9"),
            _ => (Some(30), A, B),
        };
        let payload = [n];
        let packet = udp(from, to).payload(&payload);
        let packet = if let Some(tag) = tag { packet.tag(tag) } else { packet };
        rig.push(WAN, MemoryFrame::new(packet.macs(UPSTREAM_MAC, WAN_MAC).to_vec()));
        if n % 4 != 3 {
            expected.push(n);
        }
    }
    let sent = rig.poll();
    let numbers = |of: &dyn Fn(&Sent) -> bool| -> Vec<u8> {
        sent.iter().filter(|s| of(s)).map(|s| *s.bytes.last().unwrap()).collect()
    };
    let of_rest = |rest| expected.iter().copied().filter(|n| n % 4 == rest).collect::<Vec<_>>();
    assert_eq!(numbers(&|s| s.port == LAN && tci(s).is_none()), of_rest(0));
    assert_eq!(numbers(&|s| tci(s) == Some(20)), of_rest(1));
    assert_eq!(numbers(&|s| tci(s) == Some(10)), of_rest(2), "priorities are not passed on");
    assert_eq!(sent.len(), 45);
    assert_eq!(rig.drop_count(DropReason::UnknownVlan), 15);
    assert_eq!(counts(&rig, WAN)[0], 30, "its own, and what nobody has");
}

#[test]
fn translated_from_the_lan_to_a_vlan() {
    let masquerade = || on(Target::Masquerade(NatOptions::default()));
    // The names that rules use: the whole, what begins so, and not the parent's.
    for name in ["wan.10", "wan.+", "wan+"] {
        let setup = setup()
            .both(Filter, "FORWARD", drop().out_port("wan"))
            .both(Filter, "FORWARD", accept().in_port("lan").out_port(name))
            .both(Filter, "FORWARD", accept().in_port(name))
            .drops(Filter, "FORWARD")
            .both(Nat, "POSTROUTING", masquerade().out_port(name));
        let mut rig = start(setup);
        for (client, server, ours) in [
            ("192.168.1.2:4000", "10.0.10.2:53", "10.0.10.1:4000"),
            ("[2001:db8:1::2]:4000", "[fd00:10::2]:53", "[fd00:10::1]:4000"),
        ] {
            for _ in 0..3 {
                let sent = rig.pass(LAN, udp(client, server));
                let expected = udp(ours, server).tag(10).macs(WAN_MAC, HOST10).ttl(63).to_vec();
                assert_eq!((sent.port, sent.bytes), (WAN, expected), "{name}");
                let sent = one(rig.send_bytes(WAN, on_vlan(10, udp(server, ours))));
                let expected = udp(server, client).macs(LAN_MAC, CLIENT_MAC).ttl(63).to_vec();
                assert_eq!((sent.port, sent.bytes), (LAN, expected), "{name}");
            }
        }
        assert!(rig.fast() > 0);
        // The parent's own frames are its own: only `wan+` means both.
        let sent = rig.send(WAN, udp("203.0.113.254:1", "192.168.1.2:2"));
        let dropped = rig.drop_count(DropReason::FilterDrop);
        assert_eq!((sent.len(), dropped), if name == "wan+" { (1, 0) } else { (0, 1) });
    }
}

#[test]
fn arp_and_neighbour_discovery_are_answered_with_the_tag() {
    let mut rig = start(setup());
    let ask = |target: &str, tci: Option<u16>| {
        let mut buffer = [0; 128];
        let (from, to) = (address("10.0.10.77"), address(target));
        let len = neighbour::arp_request(&mut buffer, HOST10, from, to, None, tci).unwrap();
        buffer[..len].to_vec()
    };
    let sent = one(rig.send_bytes(WAN, ask("10.0.10.1", Some(10))));
    let link = ethernet::parse(&sent.bytes).unwrap();
    let facts = (sent.port, link.tci, link.ether_type, link.src, link.dst);
    assert_eq!(facts, (WAN, Some(10), ether_type::ARP, WAN_MAC, HOST10));
    let view = arp::View::new(&sent.bytes[18..]).unwrap();
    assert_eq!((view.operation(), view.sender_mac()), (2, WAN_MAC));
    assert_eq!((view.sender(), view.target_mac()), (address("10.0.10.1"), HOST10));
    // Who asked is known there, and nowhere else.
    let known: Vec<u8> = rig
        .neighbours
        .iter()
        .filter(|n| n.address == address("10.0.10.77"))
        .map(|n| n.port)
        .collect();
    assert_eq!(known, [WAN10.0]);
    assert!(rig.send_counting(WAN, ask("10.0.10.1", Some(30)), DropReason::UnknownVlan).is_empty());

    for (target, tci, answers) in [
        ("fd00:10::1", 10, true),
        ("fe80::20", 10, true),
        ("fe80::20", 20, true),
        ("fd00:20::1", 10, false),
    ] {
        let mut buffer = [0; 128];
        let (from, to) = (address("fd00:10::77"), address(target));
        let len = neighbour::solicitation(&mut buffer, HOST10, from, to, None, Some(tci)).unwrap();
        let sent = rig.send_bytes(WAN, &buffer[..len]);
        assert_eq!(sent.len(), answers as usize, "{target} on {tci}");
        for sent in sent {
            let link = ethernet::parse(&sent.bytes).unwrap();
            assert_eq!((link.tci, sent.icmp().0, sent.headers().src), (Some(tci), 136, to));
        }
    }
}

#[test]
fn frames_wait_for_a_neighbour_on_the_vlan() {
    let mut rig = start(setup());
    let question = one(rig.send(LAN, udp("192.168.1.2:4000", "10.0.10.50:7").payload(b"0")));
    let link = ethernet::parse(&question.bytes).unwrap();
    assert_eq!((link.tci, link.ether_type, link.dst), (Some(10), ether_type::ARP, Mac::BROADCAST));
    let view = arp::View::new(&question.bytes[18..]).unwrap();
    assert_eq!((view.sender(), view.target()), (address("10.0.10.1"), address("10.0.10.50")));
    rig.send(LAN, udp("192.168.1.2:4000", "10.0.10.50:7").payload(b"1"));
    // The control core asks again, tagged too.
    let again = rig.live(1);
    assert!(!again.is_empty() && again.iter().all(|s| tci(s) == Some(10)), "{again:?}");
    let reply = |tci| {
        let mut buffer = [0; 128];
        let (link, ours) = (Link { dst: WAN_MAC, src: HOST10, tci }, address("10.0.10.1"));
        let len = neighbour::arp_reply(&mut buffer, &link, address("10.0.10.50"), (WAN_MAC, ours));
        buffer[..len.unwrap()].to_vec()
    };
    // The same words on the wrong link say nothing.
    assert!(rig.send_bytes(WAN, reply(None)).is_empty());
    let sent = rig.send_bytes(WAN, reply(Some(10)));
    let order: Vec<u8> = sent.iter().map(|s| *s.bytes.last().unwrap()).collect();
    assert_eq!(order, b"01");
    assert!(sent.iter().all(|s| tci(s) == Some(10) && s.dst_mac() == HOST10 && s.port == WAN));
    let state = |n: &dyn Fn(u8) -> bool| {
        let mut found = rig.neighbours.iter().filter(|x| x.address == address("10.0.10.50"));
        found.find(|x| n(x.port)).map(|x| x.state)
    };
    assert_eq!(state(&|port| port == WAN10.0), Some(State::Reachable));
    // Nobody answers for the next one: the caller hears it.
    let asked = rig.send_bytes(WAN, on_vlan(20, udp("10.0.20.2:9", "10.0.10.51:7")));
    assert_eq!(tci(&asked[0]), Some(10));
    let told = rig.live(5);
    let told = told.iter().find(|s| !s.is_arp()).expect("host unreachable");
    assert_eq!((tci(told), told.icmp().0, told.icmp().1), (Some(20), 3, 1));
}

#[test]
fn pings_and_errors_carry_the_tag() {
    let mut rig = start(setup());
    let ping = Packet::icmp(ip("10.0.10.2"), ip("10.0.10.1"), 8, 0, 7 << 16);
    assert_eq!(tci(&one(rig.send_bytes(WAN, on_vlan(10, ping)))), Some(10));
    let ping = Packet::icmp(ip("fd00:10::2"), ip("fd00:10::1"), 128, 0, 7 << 16);
    assert_eq!(tci(&one(rig.send_bytes(WAN, on_vlan(10, ping)))), Some(10));
    for (a, b, from, kind) in [(A, B, "10.0.10.1", 11), (A6, B6, "fd00:10::1", 3)] {
        let sent = rig.send_counting(WAN, on_vlan(10, udp(a, b).ttl(1)), DropReason::TtlExceeded);
        let sent = one(sent);
        assert_eq!((tci(&sent), sent.dst_mac(), sent.icmp().0), (Some(10), HOST10, kind));
        assert_eq!((sent.headers().src, sent.quote()), (address(from), format!("{a} > {b}")));
        // A closed port of the gateway's.
        let ours = format!("{}:99", if a == A { "10.0.10.1".into() } else { format!("[{from}]") });
        let reset = one(rig.send_bytes(WAN, on_vlan(10, tcp(a, &ours, SYN, 1, 0))));
        assert_eq!((tci(&reset), reset.flow()), (Some(10), format!("{ours} > {a}")));
    }
}

#[test]
fn the_mtu_is_the_sub_interface_s() {
    let mut rig = start(setup());
    let payload = [0; 1500];
    for (a, b, over, kind) in [(A, B, 28, 3), (A6, B6, 48, 2)] {
        let fits = udp(a, b).payload(&payload[..1300 - over]);
        let sent = one(rig.send_bytes(WAN, on_vlan(10, fits)));
        assert_eq!((sent.bytes.len(), tci(&sent)), (1300 + 18, Some(20)));
        let more = udp(a, b).payload(&payload[..1301 - over]).dont_fragment(a == A);
        let sent = one(rig.send_counting(WAN, on_vlan(10, more), DropReason::TooBig));
        let (told, _, mtu, _) = sent.icmp();
        assert_eq!((tci(&sent), told, mtu), (Some(10), kind, 1300));
        // The whole MTU of the other way, tag and all.
        let back = udp(b, a).payload(&payload[..1500 - over]);
        let sent = one(rig.send_bytes(WAN, on_vlan(20, back)));
        assert_eq!((sent.bytes.len(), sent.headers().ip_len()), (1518, 1500));
    }
}

#[test]
fn other_tags_are_what_they_were() {
    let mut rig = start(setup());
    let packet = udp("203.0.113.254:53", "192.168.1.2:4000");
    // A priority tag is the parent's own frame.
    let sent = rig.pass(WAN, packet.tag(5 << 13));
    assert_eq!(sent.bytes, packet.macs(LAN_MAC, CLIENT_MAC).ttl(63).to_vec());
    assert_eq!(counts(&rig, WAN)[0], 1);
    // An id of another device, of nobody, and the one that is reserved.
    for id in [7, 11, 0xfff] {
        let bytes = on_vlan(id, udp(A, B));
        assert!(rig.send_counting(WAN, bytes, DropReason::UnknownVlan).is_empty());
    }
    // Another tag's type is no 802.1Q.
    let mut bytes = on_vlan(10, udp(A, B));
    bytes[12..14].copy_from_slice(&[0x88, 0xa8]);
    assert!(rig.send_counting(WAN, bytes, DropReason::EtherType).is_empty());
    // Two tags: the inner one stays a tag, which may be a priority.
    for (inner, passes) in [(20, false), (10, false), (3 << 13, true)] {
        let mut bytes = on_vlan(inner, udp(A, B));
        bytes.splice(12..12, [0x81, 0, 0, 10]);
        let before = rig.drop_count(DropReason::UnknownVlan);
        let sent = rig.send_bytes(WAN, bytes);
        assert_eq!(sent.len(), passes as usize);
        assert_eq!(rig.drop_count(DropReason::UnknownVlan), before + !passes as u64);
    }
    // For another host; on the right VLAN, but of a network behind another port.
    let bytes = udp(A, B).tag(10).macs(HOST10, HOST20).to_vec();
    assert!(rig.send_counting(WAN, bytes, DropReason::OtherHost).is_empty());
    let bytes = on_vlan(10, udp("10.0.20.1:1", B));
    assert!(rig.send_counting(WAN, bytes, DropReason::MartianSource).is_empty());
}

#[test]
fn short_frames_and_frames_in_pieces() {
    let mut rig = start(setup());
    // As short as Ethernet has them: padded to 60 bytes with the tag, which goes with the padding.
    for _ in 0..3 {
        let mut bytes = on_vlan(10, udp(A, B));
        bytes.resize(60, 0xee);
        let sent = one(rig.send_bytes(WAN, bytes));
        assert_eq!(sent.bytes, udp(A, B).tag(20).macs(WAN_MAC, HOST20).ttl(63).to_vec());
    }
    // Cut at each place: a reason or a packet, and the sums hold (the rig sees to that).
    let whole = on_vlan(10, udp(A, B).payload(b"12345678"));
    for len in 0..whole.len() {
        assert!(rig.send_bytes(WAN, &whole[..len]).is_empty(), "{len}");
    }
    let expected = one(rig.send_bytes(WAN, whole.clone())).bytes;
    for cut in 0..whole.len() {
        rig.push(WAN, MemoryFrame::chain(&whole, &[cut]));
        match &rig.poll()[..] {
            [] => assert!(cut < 18 + 28, "{cut}: {:?}", rig.drops()),
            [sent] => assert_eq!(sent.bytes, expected, "{cut}"),
            more => panic!("{more:?}"),
        }
    }
    let payload: Vec<u8> = (0..1200u32).map(|n| ((n * 7) >> 2) as u8).collect();
    let packet = udp(A, B).payload(&payload);
    for cuts in [&[98][..], &[98, 1], &[100, 33, 700], &[512, 512]] {
        rig.push(WAN, MemoryFrame::chain(&on_vlan(10, packet), cuts));
        let sent = one(rig.poll());
        assert_eq!(sent.bytes, packet.tag(20).macs(WAN_MAC, HOST20).ttl(63).to_vec(), "{cuts:?}");
    }
}

#[test]
fn without_room_for_the_tag_the_frame_is_dropped() {
    let mut rig = start(setup());
    for (room, passes) in [(0, false), (3, false), (4, true)] {
        let bytes = framed(LAN, &udp("192.168.1.2:4000", "10.0.10.2:53"));
        rig.push(LAN, MemoryFrame::new(bytes).with_headroom(room));
        let before = rig.drop_count(DropReason::NoHeadroom);
        assert_eq!(rig.poll().len(), passes as usize, "{room}");
        assert_eq!(rig.drop_count(DropReason::NoHeadroom), before + !passes as u64);
    }
    // From tag to tag there is always room: the one that came off.
    rig.push(WAN, MemoryFrame::new(on_vlan(10, udp(A, B))).with_headroom(0));
    assert_eq!(tci(&one(rig.poll())), Some(20));
}

#[test]
fn each_device_has_its_own_ids() {
    let mut rig = start(setup());
    let packet = udp("10.0.7.2:4000", B);
    let bytes = packet.tag(7).macs(CLIENT_MAC, LAN_MAC).to_vec();
    let sent = one(rig.send_bytes(LAN, bytes));
    assert_eq!(sent.bytes, packet.tag(20).macs(WAN_MAC, HOST20).ttl(63).to_vec());
    let sent = one(rig.send_bytes(WAN, on_vlan(20, udp(B, "10.0.7.2:4000"))));
    assert_eq!((sent.port, tci(&sent), sent.src_mac()), (LAN, Some(7), LAN_MAC));
    let bytes = packet.tag(7).macs(CLIENT_MAC, WAN_MAC).to_vec();
    assert!(rig.send_counting(WAN, bytes, DropReason::UnknownVlan).is_empty());
    assert_eq!([counts(&rig, GUESTS)[0], counts(&rig, GUESTS)[2]], [1, 1]);
    assert_eq!(vlan::peek(&sent.bytes), Some(7));
}
