//! Routes, TTL, MTU, martians, and everything a frame can be refused for.

use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::route::{RouteKind, StaticRoute};
use dataplane::rules::facts::PortId;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ipv4;

use super::rig::*;

fn udp<'a>(src: &str, dst: &str) -> Packet<'a> {
    Packet::udp(at(src), at(dst)).payload(b"hello")
}

const CLIENT: &str = "192.168.1.2:4000";
const CLIENT6: &str = "[2001:db8:1::2]:4000";

#[test]
fn a_packet_is_forwarded_with_one_hop_less_and_new_macs_and_nothing_else_changed() {
    let mut rig = Setup::default().start();
    let packet = udp(CLIENT, "198.51.100.7:53");
    let sent = rig.pass(LAN, packet);
    let expected = packet.macs(WAN_MAC, UPSTREAM_MAC).ttl(63).to_vec();
    assert_eq!((sent.port, sent.bytes), (WAN, expected));
    let packet = udp(CLIENT6, "[2001:db8:ffff::7]:53");
    let sent = rig.pass(LAN, packet);
    let expected = packet.macs(WAN_MAC, UPSTREAM_MAC).ttl(63).to_vec();
    assert_eq!((sent.port, sent.bytes), (WAN, expected));
}

#[test]
fn connected_subnets_and_the_longest_prefix_win() {
    let mut rig = Setup::default()
        .route(route("10.0.0.0", 8, Some("192.168.1.3"), LAN))
        .route(route("10.1.0.0", 16, Some("203.0.113.253"), WAN))
        .route(route("10.1.2.3", 32, Some("192.168.1.3"), LAN))
        .start();
    let mac = |rig: &mut Rig, dst: &str| {
        let sent = rig.pass(LAN, udp(CLIENT, dst));
        (sent.port, sent.dst_mac())
    };
    assert_eq!(mac(&mut rig, "10.200.0.1:1"), (LAN, CLIENT2_MAC));
    assert_eq!(mac(&mut rig, "10.1.0.1:1"), (WAN, GATEWAY2_MAC));
    assert_eq!(mac(&mut rig, "10.1.2.3:1"), (LAN, CLIENT2_MAC));
    assert_eq!(mac(&mut rig, "203.0.113.253:1"), (WAN, GATEWAY2_MAC));
    assert_eq!(mac(&mut rig, "8.8.8.8:1"), (WAN, UPSTREAM_MAC));
    // Back out of the port it came from.
    assert_eq!(mac(&mut rig, "192.168.1.3:1"), (LAN, CLIENT2_MAC));
}

#[test]
fn without_a_route_the_sender_hears_that_the_network_is_unreachable() {
    let nothing = |kind, to: &str, bits| StaticRoute { kind, ..route(to, bits, None, WAN) };
    let mut setup = Setup { routes: Vec::new(), ..Setup::default() };
    setup = setup
        .route(nothing(RouteKind::Blackhole, "10.1.0.0", 16))
        .route(nothing(RouteKind::Unreachable, "10.2.0.0", 16))
        .route(nothing(RouteKind::Prohibit, "10.3.0.0", 16));
    let mut rig = setup.start();
    rig.dropped(LAN, udp(CLIENT, "10.1.0.1:1"), DropReason::NoRoute);
    for (dst, code) in [("10.0.0.1:1", 0), ("10.2.0.1:1", 1), ("10.3.0.1:1", 13)] {
        let sent = rig.answered(LAN, udp(CLIENT, dst), DropReason::NoRoute);
        assert_eq!((sent.port, sent.dst_mac()), (LAN, CLIENT_MAC));
        assert_eq!((sent.icmp().0, sent.icmp().1), (3, code), "{dst}");
        assert_eq!(sent.quote(), format!("{CLIENT} > {dst}"));
        assert_eq!(sent.headers().src, address("192.168.1.1"));
    }
    let sent = rig.answered(LAN, udp(CLIENT6, "[2001:db8:9::1]:1"), DropReason::NoRoute);
    assert_eq!((sent.icmp().0, sent.icmp().1), (1, 0));
}

#[test]
fn the_last_hop_is_answered_with_time_exceeded() {
    let mut rig = Setup::default().start();
    for ttl in [0, 1] {
        let packet = udp(CLIENT, "198.51.100.7:53").ttl(ttl);
        let sent = rig.answered(LAN, packet, DropReason::TtlExceeded);
        assert_eq!((sent.icmp().0, sent.icmp().1), (11, 0));
        // The quote is the packet as it came.
        let frame = packet.to_vec();
        assert_eq!(sent.icmp().3, &frame[14..]);
        assert_eq!(sent.headers().ttl, 64);
        assert_eq!(sent.headers().tos, 0xc0);
        let packet = udp(CLIENT6, "[2001:db8:ffff::7]:53").ttl(ttl);
        let sent = rig.answered(LAN, packet, DropReason::TtlExceeded);
        assert_eq!((sent.icmp().0, sent.icmp().1), (3, 0));
    }
    // To the gateway itself the TTL does not matter.
    let ping = Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 7 << 16).ttl(1);
    assert_eq!(rig.pass(LAN, ping).icmp().0, 0);
}

#[test]
fn what_exceeds_the_mtu_is_answered_with_the_mtu() {
    let big = vec![7; 1400 - 28 + 1];
    let mut rig = Setup { mtu: [1500, 1400], ..Setup::default() }.start();
    let packet = Packet::udp(at(CLIENT), at("198.51.100.7:53")).payload(&big);
    for _ in 0..2 {
        let sent = rig.answered(LAN, packet, DropReason::TooBig);
        assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (3, 4, 1400));
        assert_eq!(sent.headers().ip_len(), 576);
    }
    assert_eq!(rig.send(LAN, packet.dont_fragment(false)).len(), 2, "in pieces");
    // One byte less fits.
    rig.pass(LAN, packet.payload(&big[1..]));
    let big = vec![7; 1400 - 48 + 1];
    let packet = Packet::udp(at(CLIENT6), at("[2001:db8:ffff::7]:53")).payload(&big);
    let sent = rig.answered(LAN, packet, DropReason::TooBig);
    assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (2, 0, 1400));
    assert_eq!(sent.headers().ip_len(), 1280);
    rig.pass(LAN, packet.payload(&big[1..]));
}

#[test]
fn a_known_conn_does_not_carry_a_packet_past_the_mtu_or_the_ttl() {
    let big = vec![7; 1400 - 28 + 1];
    let mut rig = Setup { mtu: [1500, 1400], ..Setup::default() }.start();
    for _ in 0..3 {
        rig.pass(LAN, udp(CLIENT, "198.51.100.7:53"));
    }
    assert!(rig.fast() > 0);
    let packet = udp(CLIENT, "198.51.100.7:53");
    rig.answered(LAN, packet.payload(&big), DropReason::TooBig);
    rig.answered(LAN, packet.ttl(1), DropReason::TtlExceeded);
}

#[test]
fn padding_is_trimmed_on_the_long_and_the_short_way() {
    let mut rig = Setup::default().start();
    for _ in 0..4 {
        let packet = udp(CLIENT, "198.51.100.7:53");
        let mut bytes = framed(LAN, &packet);
        bytes.resize(60, 0xaa);
        let sent = rig.send_bytes(LAN, bytes);
        assert_eq!(sent[0].bytes, packet.macs(WAN_MAC, UPSTREAM_MAC).ttl(63).to_vec());
    }
    assert!(rig.fast() > 0);
    let ping = Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 7 << 16);
    let mut bytes = framed(LAN, &ping);
    bytes.resize(60, 0xaa);
    assert_eq!(rig.send_bytes(LAN, bytes)[0].bytes.len(), 42);
}

#[test]
fn a_priority_tag_is_taken_off_and_an_unknown_vlan_refused() {
    let mut rig = Setup::default().start();
    for _ in 0..3 {
        let packet = udp(CLIENT, "198.51.100.7:53");
        let sent = rig.pass(LAN, packet.tag(5 << 13));
        assert_eq!(sent.bytes, packet.macs(WAN_MAC, UPSTREAM_MAC).ttl(63).to_vec());
    }
    let ping = Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 7 << 16);
    assert_eq!(rig.pass(LAN, ping.tag(5 << 13)).bytes.len(), 42);
    rig.dropped(LAN, udp(CLIENT, "198.51.100.7:53").tag(100), DropReason::UnknownVlan);
}

#[test]
fn what_was_sent_to_others_or_to_many_is_not_forwarded() {
    let mut rig = Setup::default().start();
    let other = Mac([2, 0, 0, 0, 9, 9]);
    let packet = udp(CLIENT, "198.51.100.7:53");
    let bytes = packet.macs(CLIENT_MAC, other).to_vec();
    assert!(rig.send_counting(LAN, bytes, DropReason::OtherHost).is_empty());
    for many in [Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1])] {
        let bytes = packet.macs(CLIENT_MAC, many).to_vec();
        assert!(rig.send_counting(LAN, bytes, DropReason::NotForwarded).is_empty());
        // TTL 1 or without a route: nobody is told either.
        let bytes = packet.ttl(1).macs(CLIENT_MAC, many).to_vec();
        assert!(rig.send_counting(LAN, bytes, DropReason::NotForwarded).is_empty());
    }
    rig.dropped(LAN, udp(CLIENT, "224.0.0.251:5353"), DropReason::NotForwarded);
    rig.dropped(LAN, udp(CLIENT6, "[ff02::fb]:5353"), DropReason::NotForwarded);
    // A known conn's packets in a broadcast frame walk and are refused as well.
    for _ in 0..3 {
        rig.pass(LAN, packet);
    }
    let bytes = packet.macs(CLIENT_MAC, Mac::BROADCAST).to_vec();
    assert!(rig.send_counting(LAN, bytes, DropReason::NotForwarded).is_empty());
}

#[test]
fn broadcasts_reach_the_gateway_and_are_not_answered() {
    let mut rig = Setup::default().start();
    let host = rig.counters.to_host.get();
    for dst in ["255.255.255.255:67", "192.168.1.255:137", "224.0.0.1:9"] {
        let bytes = udp(CLIENT, dst).macs(CLIENT_MAC, Mac::BROADCAST).to_vec();
        assert!(rig.send_bytes(LAN, bytes).is_empty(), "{dst}");
    }
    let ping = Packet::icmp(ip("192.168.1.2"), ip("192.168.1.255"), 8, 0, 7 << 16);
    assert!(rig.send(LAN, ping).is_empty());
    assert_eq!(rig.counters.to_host.get(), host + 4, "{:?}", rig.drops());
    // IPv6 answers pings to groups, from its own address.
    let ping = Packet::icmp(ip("2001:db8:1::2"), ip("ff02::1"), 128, 0, 7 << 16);
    let sent = rig.pass(LAN, ping);
    assert_eq!(sent.icmp().0, 129);
    assert_eq!(sent.headers().src, address("2001:db8:1::1"));
}

#[test]
fn martians() {
    use DropReason::{MartianDestination, MartianSource, NotForwarded};
    let mut rig = Setup::default().start();
    let dst = "198.51.100.7:53";
    for src in ["127.0.0.1:1", "0.0.0.0:1", "224.0.0.5:1", "255.255.255.255:1", "192.168.1.1:1"] {
        rig.dropped(LAN, udp(src, dst), MartianSource);
    }
    rig.dropped(LAN, udp("203.0.113.10:1", dst), MartianSource);
    rig.dropped(LAN, udp(CLIENT, "127.0.0.1:1"), MartianDestination);
    rig.dropped(LAN, udp(CLIENT, "0.0.0.0:1"), MartianDestination);
    rig.dropped(LAN, udp("[::]:1", "[2001:db8:ffff::7]:1"), NotForwarded);
}

#[test]
fn the_gateway_answers_as_a_host_without_services() {
    let mut rig = Setup::default().start();
    for (src, dst) in [("192.168.1.2", "192.168.1.1"), ("192.168.1.2", "203.0.113.10")] {
        let sent = rig.pass(LAN, Packet::icmp(ip(src), ip(dst), 8, 0, 0x0007_0001).payload(b"abc"));
        assert_eq!(sent.icmp(), (0, 0, 0x0007_0001, &b"abc"[..]));
        assert_eq!(sent.headers().src, address(dst));
        assert_eq!(sent.dst_mac(), CLIENT_MAC);
    }
    let sent = rig.pass(LAN, udp(CLIENT, "192.168.1.1:53"));
    assert_eq!((sent.icmp().0, sent.icmp().1), (3, 3));
    let sent = rig.pass(LAN, udp(CLIENT6, "[2001:db8:1::1]:53"));
    assert_eq!((sent.icmp().0, sent.icmp().1), (1, 4));
    let syn = Packet::tcp(at(CLIENT), at("192.168.1.1:22")).flags(2).seq(1000);
    let sent = rig.pass(LAN, syn);
    let h = sent.headers();
    assert_eq!(h.tcp_flags, 0x14);
    assert_eq!(sent.bytes[h.l4 as usize + 8..h.l4 as usize + 12], 1001u32.to_be_bytes());
    let sent =
        rig.pass(LAN, Packet::raw(ip("192.168.1.2"), ip("192.168.1.1"), 47).payload(b"0000"));
    assert_eq!((sent.icmp().0, sent.icmp().1), (3, 2));
    let gre = Packet::raw(ip("2001:db8:1::2"), ip("2001:db8:1::1"), 47).payload(b"0000");
    let sent = rig.pass(LAN, gre);
    assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (4, 1, 6));
}

#[test]
fn malformed_frames_each_have_their_reason() {
    use DropReason::*;
    let mut rig = Setup::default().start();
    let packet = udp(CLIENT, "198.51.100.7:53");
    let good = framed(LAN, &packet);
    let mut expect = |bytes: Vec<u8>, reason| {
        assert!(rig.send_counting(LAN, bytes, reason).is_empty(), "{reason:?}");
    };
    for len in [0, 1, 13, 14, 33] {
        expect(good[..len].to_vec(), ShortFrame);
    }
    let edit = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    expect(edit(12, 0x88), EtherType);
    expect(edit(14, 0x65), IpVersion);
    expect(edit(14, 0x44), IpHeaderLength);
    expect(framed(LAN, &packet.break_ip_check()), IpChecksum);
    expect(framed(LAN, &packet.ip_len(19)), IpTotalLength);
    expect(framed(LAN, &packet.ip_len(500)), IpTotalLength);
    let mut mapped = framed(LAN, &udp(CLIENT6, "[2001:db8:ffff::7]:53"));
    mapped[22..38].copy_from_slice(&0xffff_0102_0304u128.to_be_bytes());
    expect(mapped, MappedAddress);
    let lsrr = [ipv4::option::LSRR, 7, 4, 1, 2, 3, 4, 0];
    expect(framed(LAN, &packet.ip_options(&lsrr)), IpOption);
}

#[test]
fn record_route_and_router_alert_pass_unchanged_in_length() {
    let mut rig = Setup::default().start();
    let alert = [ipv4::option::ROUTER_ALERT, 4, 0, 0];
    for _ in 0..3 {
        let packet = udp(CLIENT, "198.51.100.7:53").ip_options(&alert);
        let sent = rig.pass(LAN, packet);
        assert_eq!(sent.bytes, packet.macs(WAN_MAC, UPSTREAM_MAC).ttl(63).to_vec());
    }
}

#[test]
fn headers_have_to_lie_in_the_first_segment() {
    let mut rig = Setup::default().start();
    let bytes = framed(LAN, &udp(CLIENT, "198.51.100.7:53"));
    for cut in [14, 20, 33, 34, 37] {
        let before = rig.drop_count(DropReason::HeaderSplit);
        rig.push(LAN, MemoryFrame::chain(&bytes, &[cut]));
        assert!(rig.poll().is_empty(), "cut at {cut}");
        assert_eq!(rig.drop_count(DropReason::HeaderSplit), before + 1, "cut at {cut}");
    }
}

#[test]
fn link_local_hosts_talk_to_the_gateway_and_not_beyond() {
    let mut rig = Setup::default().start();
    let known = |rig: &Rig, port: PortId| {
        rig.neighbours.set_permanent(port.0, address("fe80::99"), CLIENT_MAC.0, rig.now.tick)
    };
    known(&rig, LAN);
    known(&rig, WAN);
    for (port, own) in [(LAN, "fe80::10"), (WAN, "fe80::20")] {
        let ping = Packet::icmp(ip("fe80::99"), ip(own), 128, 0, 7 << 16);
        let sent = rig.pass(port, ping);
        assert_eq!((sent.icmp().0, sent.port, sent.headers().src), (129, port, address(own)));
        let sent = rig.pass(port, udp("[fe80::99]:4000", &format!("[{own}]:53")));
        assert_eq!((sent.icmp().0, sent.icmp().1, sent.port), (1, 4, port));
    }
    let packet = udp("[fe80::99]:4000", "[2001:db8:ffff::7]:53");
    let sent = rig.answered(LAN, packet, DropReason::NotForwarded);
    assert_eq!((sent.icmp().0, sent.icmp().1), (1, 2), "beyond scope of source address");
    assert_eq!((sent.headers().src, sent.port), (address("fe80::10"), LAN));
}

#[test]
fn an_answer_that_does_not_fit_its_way_out_leaves_in_pieces() {
    let setup = Setup { mtu: [9000, 1500], ..Setup::default() };
    let mut rig = setup.route(route("10.0.0.0", 8, Some("203.0.113.254"), WAN)).start();
    let big = [0; 1500 - 28 + 1];
    let ping = Packet::icmp(ip("10.0.0.1"), ip("192.168.1.1"), 8, 0, 1);
    assert_eq!(rig.send(LAN, ping.payload(&big)).len(), 2);
    rig.pass(LAN, ping.payload(&big[1..]));
}

#[test]
fn the_gateway_does_not_answer_what_was_damaged_on_its_way() {
    let mut rig = Setup::default().start();
    let damaged = [
        udp(CLIENT, "192.168.1.1:53").l4_check(1),
        udp(CLIENT6, "[2001:db8:1::1]:53").l4_check(1),
        Packet::tcp(at(CLIENT), at("192.168.1.1:22")).flags(2).l4_check(1),
        Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 7).l4_check(1),
    ];
    for packet in damaged {
        rig.dropped(LAN, packet, DropReason::TransportChecksum);
    }
}

#[test]
fn the_gateway_does_not_answer_a_header_that_says_more_than_there_is() {
    let mut rig = Setup::default().start();
    for packet in [
        udp(CLIENT, "192.168.1.1:53").l4_len(200),
        udp(CLIENT, "192.168.1.1:53").l4_len(7),
        udp(CLIENT6, "[2001:db8:1::1]:53").l4_len(200),
    ] {
        rig.dropped(LAN, packet, DropReason::TransportLength);
    }
}
