//! The box's own programs: INPUT that ends at a kernel interface and OUTPUT that begins there.

use dataplane::conntrack::state::Status;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{self, Filter, Mangle, Nat, Raw};
use dataplane::rules::matches::StateMask;
use dataplane::rules::targets::{NatOptions, Target};
use dataplane::wire::address::Address;
use dataplane::wire::arp;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::build::{Link, neighbour};
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ndp::{self, flags};
use dataplane::wire::tcp::flags::{ACK, RST, SYN};

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const LAN_SSH: &str = "192.168.1.1:22";
const LAN_SSH6: &str = "[2001:db8:1::1]:22";
const SERVER: &str = "198.51.100.7:80";
const SERVER6: &str = "[2001:db8:ffff::7]:80";
/// The kernel's end of conns that it opens.
const HOST: &str = "203.0.113.1:5000";
const HOST6: &str = "[2001:db8:2::1]:5000";
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

fn tapped() -> Setup {
    Setup { host_taps: true, ..Setup::default() }
}

/// A rule that counts in every chain where packets to and from the gateway may come by.
fn counting(mut setup: Setup) -> Setup {
    for (table, chain) in CHAINS {
        setup = setup.both(table, chain, count());
    }
    setup
}

const CHAINS: [(Table, &str); 13] = [
    (Raw, "PREROUTING"),
    (Mangle, "PREROUTING"),
    (Nat, "PREROUTING"),
    (Mangle, "INPUT"),
    (Filter, "INPUT"),
    (Nat, "INPUT"),
    (Raw, "OUTPUT"),
    (Mangle, "OUTPUT"),
    (Nat, "OUTPUT"),
    (Filter, "OUTPUT"),
    (Mangle, "POSTROUTING"),
    (Nat, "POSTROUTING"),
    (Filter, "FORWARD"),
];

/// What the counting rules counted, in the order of [`CHAINS`], both families together.
fn counted(rig: &mut Rig) -> [u64; 13] {
    CHAINS.map(|(table, chain)| {
        [V4, V6].map(|family| rig.count(family, table, chain, Some(0)).0).iter().sum()
    })
}

/// A first packet to the gateway: each hook once. A later one leaves out the nat table.
const TO_US: [u64; 13] = [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
/// A first packet from the gateway.
const FROM_US: [u64; 13] = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0];
const NOWHERE: [u64; 13] = [0; 13];

fn since(rig: &mut Rig, before: [u64; 13]) -> [u64; 13] {
    let now = counted(rig);
    core::array::from_fn(|i| now[i] - before[i])
}

/// The frame that this one makes the gateway send by `out`, and the hooks it meets.
#[track_caller]
fn through(rig: &mut Rig, port: PortId, bytes: Vec<u8>, out: PortId, hooks: [u64; 13]) -> Sent {
    let before = counted(rig);
    let mut sent = rig.send_bytes(port, bytes);
    assert_eq!(sent.len(), 1, "sent {sent:?}, drops {:?}", rig.drops());
    assert_eq!(sent[0].port, out);
    assert_eq!(since(rig, before), hooks);
    sent.remove(0)
}

fn link_frame(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut buffer = [0; 128];
    let len = write(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// A frame to a group or from elsewhere, with its own MAC addresses.
fn macs(packet: Packet<'_>, src: Mac, dst: Mac) -> Vec<u8> {
    packet.macs(src, dst).to_vec()
}

#[test]
fn what_passes_input_reaches_the_kernel_as_it_came() {
    let mut rig = counting(tapped()).start();
    let ping = |a, b, kind| Packet::icmp(ip(a), ip(b), kind, 0, 7 << 16 | 1).ttl(3);
    for packet in [
        ping("192.168.1.2", "192.168.1.1", 8),
        ping("2001:db8:1::2", "2001:db8:1::1", 128),
        tcp(CLIENT, LAN_SSH, SYN, 100, 0).ttl(1),
        tcp(CLIENT6, LAN_SSH6, SYN, 100, 0).ttl(1),
        udp(CLIENT, "192.168.1.1:53").ttl(9),
        // Every address of the box is reachable by every port.
        udp(CLIENT, "203.0.113.10:53"),
        udp("[fe80::99]:7", "[fe80::10]:7"),
        Packet::raw(ip("192.168.1.2"), ip("192.168.1.1"), 89).payload(&[2; 30]),
    ] {
        let bytes = framed(LAN, &packet);
        let sent = through(&mut rig, LAN, bytes.clone(), LAN_TAP, TO_US);
        assert_eq!(sent.bytes, bytes);
    }
    assert_eq!(rig.list().len(), 8);
    assert_eq!((rig.counters.to_host.get(), rig.counters.generated.get()), (8, 0));
    let ports = &rig.counters.ports;
    assert_eq!((ports[0].rx_packets.get(), ports[0].tx_packets.get()), (8, 0));
}

#[test]
fn padding_and_priority_tags_end_at_the_port() {
    let mut rig = tapped().start();
    let packet = udp(CLIENT, "192.168.1.1:53");
    let mut bytes = framed(LAN, &packet.tag(5 << 13));
    bytes.extend([0; 9]);
    assert_eq!(rig.send_bytes(LAN, bytes)[0].bytes, framed(LAN, &packet));
}

#[test]
fn what_input_drops_does_not_reach_the_kernel() {
    let mut rig = tapped().drops(Filter, "INPUT").start();
    rig.dropped(LAN, tcp(CLIENT, LAN_SSH, SYN, 1, 0), DropReason::FilterDrop);
    rig.dropped(LAN, udp(CLIENT6, LAN_SSH6), DropReason::FilterDrop);
    assert!(rig.list().is_empty());
    let mut rig = tapped().both(Filter, "INPUT", reject(3)).start();
    let sent = rig.answered(LAN, udp(CLIENT, LAN_SSH), DropReason::Rejected);
    assert_eq!((sent.port, sent.dst_mac()), (LAN, CLIENT_MAC));
}

#[test]
fn a_conn_to_the_box_is_one_conn_in_both_directions() {
    for (client, ssh) in [(CLIENT, LAN_SSH), (CLIENT6, LAN_SSH6)] {
        let established = StateMask::ESTABLISHED;
        let setup = tapped()
            .both(Filter, "OUTPUT", accept().state(established))
            .drops(Filter, "OUTPUT")
            .both(Filter, "INPUT", accept().state(established))
            .both(Filter, "INPUT", accept().proto(6).dport(22));
        let mut rig = setup.drops(Filter, "INPUT").start();
        rig.pass(LAN, tcp(client, ssh, SYN, 100, 0));
        let sent = rig.pass(LAN_TAP, tcp(ssh, client, SYN | ACK, 500, 101).ttl(64));
        assert_eq!((sent.port, sent.dst_mac(), sent.src_mac()), (LAN, CLIENT_MAC, LAN_MAC));
        assert_eq!((sent.flow(), sent.headers().ttl), (format!("{ssh} > {client}"), 64));
        for _ in 0..3 {
            assert_eq!(rig.pass(LAN, tcp(client, ssh, ACK, 101, 501)).port, LAN_TAP);
            assert_eq!(rig.pass(LAN_TAP, tcp(ssh, client, ACK, 501, 101)).port, LAN);
        }
        let conn = rig.conn();
        assert_eq!(conn.state, Some("ESTABLISHED"));
        assert!(conn.status.has(Status::ASSURED));
        let family = if client == CLIENT { V4 } else { V6 };
        assert_eq!(rig.count(family, Filter, "INPUT", Some(0)).0, 3);
        assert_eq!(rig.count(family, Filter, "INPUT", Some(1)).0, 1);
        assert_eq!(rig.count(family, Filter, "OUTPUT", Some(0)).0, 4);
        rig.dropped(LAN_TAP, udp(&ssh.replace(":22", ":9"), client), DropReason::FilterDrop);
    }
}

#[test]
fn a_closed_port_of_the_kernel_ends_the_conn() {
    let mut rig = tapped().start();
    rig.pass(LAN, tcp(CLIENT, LAN_SSH, SYN, 100, 0));
    let sent = rig.pass(LAN_TAP, tcp(LAN_SSH, CLIENT, RST | ACK, 0, 101));
    assert_eq!(sent.port, LAN);
    assert!(rig.list().is_empty());
}

#[test]
fn redirected_and_translated_conns_are_turned_back() {
    let setup = tapped().both(Nat, "PREROUTING", redirect(Some(8080)).proto(6).dport(80)).rule(
        V4,
        Nat,
        "PREROUTING",
        dnat("192.168.1.1", Some(22)).in_port("wan").proto(6),
    );
    let mut rig = counting(setup).start();
    let sent = rig.pass(LAN, tcp(CLIENT, SERVER, SYN, 100, 0));
    assert_eq!((sent.port, sent.flow()), (LAN_TAP, format!("{CLIENT} > 192.168.1.1:8080")));
    let sent = rig.pass(LAN_TAP, tcp("192.168.1.1:8080", CLIENT, SYN | ACK, 500, 101));
    assert_eq!((sent.port, sent.flow()), (LAN, format!("{SERVER} > {CLIENT}")));
    assert_eq!(rig.pass(LAN, tcp(CLIENT, SERVER, ACK, 101, 501)).port, LAN_TAP);
    assert!(rig.conn().status.has(Status::DST_NAT));
    let upstream = "198.51.100.9:999";
    let sent = rig.pass(WAN, tcp(upstream, "203.0.113.10:2222", SYN, 100, 0));
    assert_eq!((sent.port, sent.flow()), (WAN_TAP, format!("{upstream} > 192.168.1.1:22")));
    // By whichever port the kernel answers, our table knows the way.
    let sent = rig.pass(LAN_TAP, tcp("192.168.1.1:22", upstream, SYN | ACK, 500, 101));
    assert_eq!((sent.port, sent.flow()), (WAN, format!("203.0.113.10:2222 > {upstream}")));
    assert_eq!(sent.dst_mac(), UPSTREAM_MAC);
}

#[test]
fn an_error_of_the_kernel_is_related_to_its_conn() {
    let setup = tapped().rule(V4, Nat, "PREROUTING", redirect(Some(8080))).rule(
        V4,
        Filter,
        "OUTPUT",
        accept().state(StateMask::RELATED),
    );
    let mut rig = setup.start();
    let quoted = rig.pass(LAN, udp(CLIENT, SERVER)).bytes[14..].to_vec();
    let error = Packet::icmp(ip("192.168.1.1"), ip("192.168.1.2"), 3, 3, 0).payload(&quoted);
    let sent = rig.pass(LAN_TAP, error);
    assert_eq!((sent.port, sent.headers().src), (LAN, address("198.51.100.7")));
    assert_eq!(sent.quote(), format!("{CLIENT} > {SERVER}"));
    assert_eq!(rig.count(V4, Filter, "OUTPUT", Some(0)).0, 1);
}

#[test]
fn conns_that_the_kernel_opens_take_output_once() {
    for (host, server) in [(HOST, SERVER), (HOST6, SERVER6)] {
        let mut rig = counting(tapped()).start();
        let packet = udp(host, server).ttl(1);
        let sent = through(&mut rig, WAN_TAP, framed(WAN_TAP, &packet), WAN, FROM_US);
        assert_eq!(sent.bytes, macs(packet, WAN_MAC, UPSTREAM_MAC), "nothing but MAC addresses");
        assert_eq!(rig.counters.generated.get(), 1);
        let answer = framed(WAN, &udp(server, host));
        let later = [1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(through(&mut rig, WAN, answer.clone(), WAN_TAP, later).bytes, answer);
        let later = [0, 0, 0, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0];
        through(&mut rig, WAN_TAP, framed(WAN_TAP, &packet), WAN, later);
        assert!(rig.conn().status.has(Status::SEEN_REPLY));
        assert_eq!(rig.fast(), 0, "these walk");
    }
}

#[test]
fn masquerading_leaves_the_kernels_own_conns_alone() {
    let mut rig = tapped().both(Nat, "POSTROUTING", masquerade()).start();
    for (host, server) in [(HOST, SERVER), (HOST6, SERVER6)] {
        for _ in 0..2 {
            assert_eq!(rig.pass(WAN_TAP, udp(host, server)).flow(), format!("{host} > {server}"));
            let back = rig.pass(WAN, udp(server, host));
            assert_eq!((back.port, back.flow()), (WAN_TAP, format!("{server} > {host}")));
        }
    }
    // One that is taken already by a client behind us: another port, and back.
    rig.pass(LAN, udp("192.168.1.2:6000", SERVER));
    let sent = rig.pass(WAN_TAP, udp("203.0.113.1:6000", SERVER));
    let port = sent.headers().src_port;
    assert_ne!(port, 6000);
    let back = rig.pass(WAN, udp(SERVER, &format!("203.0.113.1:{port}")));
    assert_eq!((back.port, back.headers().dst_port), (WAN_TAP, 6000));
    // From the LAN's address, by the LAN's tap: our table leads to the WAN.
    let sent = rig.pass(LAN_TAP, udp("192.168.1.1:7000", SERVER));
    assert_eq!((sent.port, sent.flow()), (WAN, format!("203.0.113.1:7000 > {SERVER}")));
    let back = rig.pass(WAN, udp(SERVER, "203.0.113.1:7000"));
    assert_eq!((back.port, back.flow()), (WAN_TAP, format!("{SERVER} > 192.168.1.1:7000")));
}

#[test]
fn a_next_hop_is_asked_for_and_the_kernels_packet_waits() {
    let mut rig = tapped().start();
    let sent = rig.send(LAN_TAP, udp("192.168.1.1:9", "192.168.1.50:9"));
    assert!(sent.len() == 1 && sent[0].is_arp() && sent[0].port == LAN);
    let link = Link { dst: LAN_MAC, src: CLIENT2_MAC, tci: None };
    let (there, us) = (address("192.168.1.50"), address("192.168.1.1"));
    let sent =
        rig.send_bytes(LAN, link_frame(|b| neighbour::arp_reply(b, &link, there, (LAN_MAC, us))));
    assert_eq!((sent.len(), sent[0].port, sent[0].dst_mac()), (1, LAN, CLIENT2_MAC));
}

fn arp_request(sender: &str, target: &str, to: Option<Mac>) -> Vec<u8> {
    let (sender, target) = (address(sender), address(target));
    link_frame(|b| neighbour::arp_request(b, LAN_MAC, sender, target, to, None))
}

#[test]
fn the_kernel_learns_that_all_addresses_but_its_own_are_at_the_ports_mac() {
    let mut rig = counting(tapped()).start();
    for (target, to) in [
        ("192.168.1.2", None),
        ("192.168.1.250", None),
        ("8.8.8.8", None),
        ("192.168.1.2", Some(LAN_MAC)),
    ] {
        let asked = arp_request("192.168.1.1", target, to);
        let sent = through(&mut rig, LAN_TAP, asked, LAN_TAP, NOWHERE);
        let view = arp::View::new(&sent.bytes[14..]).unwrap();
        assert_eq!((view.operation(), view.sender_mac()), (2, LAN_MAC));
        assert_eq!((view.sender(), view.target()), (address(target), address("192.168.1.1")));
        assert_eq!(sent.dst_mac(), LAN_MAC);
    }
    // Its own addresses, a probe for duplicates, an announcement, and nonsense.
    for (sender, target) in [
        ("192.168.1.1", "192.168.1.1"),
        ("192.168.1.7", "192.168.1.1"),
        ("0.0.0.0", "192.168.1.1"),
        ("0.0.0.0", "192.168.1.9"),
        ("192.168.1.9", "192.168.1.9"),
    ] {
        assert!(rig.send_bytes(LAN_TAP, arp_request(sender, target, None)).is_empty());
    }
    let mut broken = arp_request("192.168.1.1", "192.168.1.2", None);
    broken[18] = 8;
    rig.send_counting(LAN_TAP, broken, DropReason::BadArp);
    // Nothing of this taught us a neighbour.
    let own = |a: Address| a == address("192.168.1.1") || a == address("192.168.1.9");
    assert!(!rig.neighbours.iter().any(|n| own(n.address)));
    assert_eq!(rig.counters.to_host.get(), 4 + 4 + 5, "asked, answered, ended here");
}

#[test]
fn neighbour_discovery_of_the_kernel_is_answered_and_ends_here() {
    let mut rig = counting(tapped()).start();
    let ask = |sender: Address, target: &str, to| {
        let target = address(target);
        link_frame(|b| neighbour::solicitation(b, LAN_MAC, sender, target, to, None))
    };
    for (sender, target, to) in [
        ("2001:db8:1::1", "2001:db8:1::2", None),
        ("fe80::10", "fe80::99", None),
        ("fe80::10", "2001:db8:1::77", Some(LAN_MAC)),
    ] {
        let asked = ask(address(sender), target, to);
        let sent = through(&mut rig, LAN_TAP, asked, LAN_TAP, NOWHERE);
        let h = sent.headers();
        assert_eq!((h.src, h.dst, h.ttl), (address(target), address(sender), 255));
        let message = ndp::parse(&h, &sent.bytes[h.l4 as usize..h.end as usize]);
        let set = flags::ROUTER | flags::SOLICITED | flags::OVERRIDE;
        let (target, target_mac) = (address(target), Some(LAN_MAC));
        assert_eq!(message, Some(ndp::Message::Advertisement { target, target_mac, flags: set }));
        assert_eq!(sent.dst_mac(), LAN_MAC);
    }
    let announce = link_frame(|b| {
        let link = Link { dst: ALL_NODES_MAC, src: LAN_MAC, tci: None };
        neighbour::advertisement(b, &link, address("fe80::10"), address("ff02::1"), 0x20)
    });
    let from = |kind| {
        let packet = Packet::icmp(ip("fe80::10"), ip("ff02::16"), kind, 0, 0).ttl(255);
        macs(packet.payload(&[0; 16]), LAN_MAC, Mac([0x33, 0x33, 0, 0, 0, 0x16]))
    };
    let quiet = [
        ask(Address::v6(0), "fe80::10", None),
        ask(Address::v6(0), "fe80::11", None),
        ask(address("fe80::10"), "2001:db8:1::1", None),
        announce,
        from(133),
        from(131),
        from(143),
    ];
    for bytes in quiet {
        assert!(rig.send_bytes(LAN_TAP, bytes).is_empty());
    }
    assert_eq!(counted(&mut rig), NOWHERE);
    assert_eq!(rig.drops(), []);
}

#[test]
fn arp_and_neighbour_discovery_of_the_wire_stay_here() {
    let mut rig = tapped().start();
    let (asker, us) = (address("192.168.1.2"), address("192.168.1.1"));
    let request = link_frame(|b| neighbour::arp_request(b, CLIENT_MAC, asker, us, None, None));
    let sent = rig.send_bytes(LAN, request);
    assert!(sent.len() == 1 && sent[0].is_arp() && sent[0].port == LAN);
    let (asker, us) = (address("fe80::99"), address("fe80::10"));
    let asked = link_frame(|b| neighbour::solicitation(b, CLIENT_MAC, asker, us, None, None));
    let sent = rig.send_bytes(LAN, asked);
    assert_eq!((sent.len(), sent[0].port, sent[0].icmp().0), (1, LAN, 136));
    // Router advertisements, and advertisements to our own address.
    let router = Packet::icmp(ip("fe80::99"), ip("ff02::1"), 134, 0, 0).ttl(255);
    let router = macs(router.payload(&[0; 8]), CLIENT_MAC, ALL_NODES_MAC);
    assert!(rig.send_bytes(LAN, router).is_empty());
    let link = Link { dst: LAN_MAC, src: CLIENT_MAC, tci: None };
    let told = link_frame(|b| neighbour::advertisement(b, &link, asker, us, 0x60));
    assert!(rig.send_bytes(LAN, told).is_empty());
    assert_eq!(rig.drops(), []);
}

fn group_frame(packet: Packet<'_>, port: PortId) -> Vec<u8> {
    let frame = packet.to_vec();
    let dst = match frame[12..14] {
        [8, 0] if frame[30] == 0xe0 => Mac([1, 0, 0x5e, frame[31] & 0x7f, frame[32], frame[33]]),
        [8, 0] => Mac::BROADCAST,
        _ => Mac([0x33, 0x33, frame[50], frame[51], frame[52], frame[53]]),
    };
    let src = match port {
        LAN => CLIENT_MAC,
        WAN => UPSTREAM_MAC,
        LAN_TAP => LAN_MAC,
        _ => WAN_MAC,
    };
    macs(packet, src, dst)
}

#[test]
fn groups_and_broadcasts_pass_input_and_reach_the_kernel() {
    let mut rig = counting(tapped()).start();
    let raw = |src, dst, number| Packet::raw(ip(src), ip(dst), number).ttl(1).payload(&[0x11; 24]);
    for packet in [
        raw("192.168.1.2", "224.0.0.5", 89),
        raw("192.168.1.2", "224.0.0.1", 2).ip_options(&[0x94, 4, 0, 0]),
        raw("fe80::99", "ff02::5", 89),
        udp("192.168.1.2:520", "224.0.0.9:520"),
        udp("192.168.1.2:5353", "224.0.0.251:5353"),
        udp("[fe80::99]:5353", "[ff02::fb]:5353"),
        udp("[fe80::99]:546", "[ff02::1:2]:547"),
        udp("0.0.0.0:68", "255.255.255.255:67"),
        udp("192.168.1.2:138", "192.168.1.255:138"),
    ] {
        let bytes = group_frame(packet, LAN);
        assert_eq!(through(&mut rig, LAN, bytes.clone(), LAN_TAP, TO_US).bytes, bytes);
    }
    // A listener query, which conntrack does not follow.
    let query = Packet::icmp(ip("fe80::99"), ip("ff02::1"), 130, 0, 0).ttl(1).payload(&[0; 16]);
    let before = counted(&mut rig);
    assert_eq!(rig.send_bytes(LAN, group_frame(query, LAN))[0].port, LAN_TAP);
    assert_eq!(since(&mut rig, before)[3..5], [1, 1]);
    for src in ["192.168.1.1", "224.0.0.9", "255.255.255.255", "127.0.0.1"] {
        let packet = udp(&format!("{src}:520"), "224.0.0.9:520");
        let bytes = group_frame(packet, LAN);
        assert!(rig.send_counting(LAN, bytes, DropReason::MartianSource).is_empty());
    }
    let nobody = group_frame(udp("0.0.0.0:9", "224.9.9.9:9"), LAN);
    assert!(rig.send_counting(LAN, nobody, DropReason::MartianSource).is_empty());
    rig.setup = rig.setup_with(|setup| setup.both(Filter, "INPUT", drop()));
    rig.publish();
    for packet in [udp("192.168.1.2:520", "224.0.0.9:520"), udp("[fe80::99]:1", "[ff02::fb]:2")] {
        let bytes = group_frame(packet, LAN);
        assert!(rig.send_counting(LAN, bytes, DropReason::FilterDrop).is_empty());
    }
}

#[test]
fn what_the_kernel_sends_to_groups_stays_on_its_link() {
    let mut rig = counting(tapped()).start();
    let hello = Packet::raw(ip("203.0.113.1"), ip("224.0.0.5"), 89).ttl(1).payload(&[2; 44]);
    for packet in [
        hello,
        Packet::raw(ip("203.0.113.1"), ip("224.0.0.22"), 2).ttl(1).ip_options(&[0x94, 4, 0, 0]),
        udp("203.0.113.1:5353", "224.0.0.251:5353"),
        udp("203.0.113.1:68", "255.255.255.255:67"),
        udp("203.0.113.1:138", "203.0.113.255:138"),
        udp("[fe80::20]:5353", "[ff02::fb]:5353"),
        Packet::raw(ip("fe80::20"), ip("ff02::5"), 89).ttl(1).payload(&[3; 36]),
    ] {
        let bytes = group_frame(packet, WAN_TAP);
        assert_eq!(through(&mut rig, WAN_TAP, bytes.clone(), WAN, FROM_US).bytes, bytes);
    }
    rig.setup = rig.setup_with(|setup| setup.both(Filter, "OUTPUT", drop()));
    rig.publish();
    let bytes = group_frame(hello, WAN_TAP);
    assert!(rig.send_counting(WAN_TAP, bytes, DropReason::FilterDrop).is_empty());
}

#[test]
fn link_local_neighbours_are_reached_on_the_link_of_the_tap() {
    let mut rig = tapped().start();
    rig.neighbours.set_permanent(0, address("fe80::99"), CLIENT2_MAC.0, rig.now.tick).unwrap();
    let sent = rig.pass(LAN_TAP, udp("[fe80::10]:179", "[fe80::99]:179"));
    assert_eq!((sent.port, sent.dst_mac()), (LAN, CLIENT2_MAC));
    let sent = rig.pass(LAN, udp("[fe80::99]:179", "[fe80::10]:179"));
    assert_eq!(sent.port, LAN_TAP);
    assert!(rig.conn().status.has(Status::SEEN_REPLY));
}

#[test]
fn a_mac_address_that_the_kernel_gives_is_kept() {
    // A DHCP server's offer to a host that does not answer ARP yet.
    let mut rig = counting(tapped()).start();
    let offer = udp("192.168.1.1:67", "192.168.1.99:68");
    let bytes = macs(offer, LAN_MAC, CLIENT2_MAC);
    assert_eq!(through(&mut rig, LAN_TAP, bytes.clone(), LAN, FROM_US).bytes, bytes);
    let bytes = macs(offer, LAN_MAC, Mac::BROADCAST);
    assert_eq!(rig.send_bytes(LAN_TAP, bytes.clone())[0].bytes, bytes);
    // Not where a rule has sent it elsewhere.
    let mut rig = tapped().rule(V4, Nat, "OUTPUT", dnat("192.168.1.3", None)).start();
    let sent = rig.send_bytes(LAN_TAP, macs(offer, LAN_MAC, CLIENT_MAC));
    assert_eq!((sent[0].port, sent[0].dst_mac()), (LAN, CLIENT2_MAC));
}

/// A DHCP message as clients and servers write it: 300 bytes, the magic cookie, one option.
fn dhcp(op: u8, hardware: Mac, kind: u8) -> Vec<u8> {
    let mut message = vec![0; 300];
    message[..8].copy_from_slice(&[op, 1, 6, 0, 0xfa, 0x4d, 0x93, 0x1e]);
    message[28..34].copy_from_slice(&hardware.0);
    message[236..243].copy_from_slice(&[0x63, 0x82, 0x53, 0x63, 53, 1, kind]);
    message[243] = 255;
    message
}

/// A port that has no address yet, with rules that let nothing in or out.
fn unconfigured() -> Setup {
    let mut setup = tapped();
    setup.own.retain(|(port, ..)| *port == LAN.0);
    setup.routes.clear();
    let setup = setup.drops(Filter, "INPUT").drops(Filter, "OUTPUT").drops(Filter, "FORWARD");
    counting(setup)
}

#[test]
fn a_dhcp_client_gets_its_address_whatever_the_rules_say() {
    let mut rig = unconfigured().start();
    let (discover, request) = (dhcp(1, WAN_MAC, 1), dhcp(1, WAN_MAC, 3));
    let (offer, ack) = (dhcp(2, WAN_MAC, 2), dhcp(2, WAN_MAC, 5));
    for (question, answer) in [(&discover, &offer), (&request, &ack)] {
        // udhcpc and dhclient write these at a packet socket; TTL 64 and 128.
        for ttl in [64, 128] {
            let packet = udp("0.0.0.0:68", "255.255.255.255:67").payload(question).ttl(ttl);
            let bytes = group_frame(packet.dont_fragment(false), WAN_TAP);
            let sent = through(&mut rig, WAN_TAP, bytes.clone(), WAN, NOWHERE);
            assert_eq!(sent.bytes, bytes);
        }
        // To the address that is offered, and to everybody (the broadcast flag).
        let packet = udp("198.51.100.1:67", "203.0.113.77:68").payload(answer);
        let bytes = framed(WAN, &packet);
        assert_eq!(through(&mut rig, WAN, bytes.clone(), WAN_TAP, NOWHERE).bytes, bytes);
        let packet = udp("198.51.100.1:67", "255.255.255.255:68").payload(answer);
        let bytes = group_frame(packet, WAN);
        assert_eq!(through(&mut rig, WAN, bytes.clone(), WAN_TAP, NOWHERE).bytes, bytes);
    }
    assert!(rig.list().is_empty());
}

#[test]
fn dhcp_of_others_and_of_a_bound_client_takes_the_hooks() {
    let mut rig = unconfigured().start();
    let others = dhcp(2, CLIENT_MAC, 2);
    let question = dhcp(1, WAN_MAC, 1);
    let mut short = dhcp(2, WAN_MAC, 2);
    short.truncate(33);
    for (payload, ports) in [
        (&others, (67, 68)),
        (&question, (67, 68)),
        (&short, (67, 68)),
        (&dhcp(2, WAN_MAC, 2), (67, 69)),
        (&dhcp(2, WAN_MAC, 2), (66, 68)),
    ] {
        let (from, to) =
            (format!("198.51.100.1:{}", ports.0), format!("255.255.255.255:{}", ports.1));
        let bytes = group_frame(udp(&from, &to).payload(payload), WAN);
        assert!(rig.send_counting(WAN, bytes, DropReason::FilterDrop).is_empty());
    }
    // Renewal: from address to address, known to conntrack like everything else.
    let setup = tapped().drops(Filter, "INPUT").both(
        Filter,
        "INPUT",
        accept().state(StateMask::ESTABLISHED),
    );
    let mut rig = setup.start();
    let ack = dhcp(2, WAN_MAC, 5);
    let unasked = udp("198.51.100.1:67", "203.0.113.1:68").payload(&ack);
    rig.dropped(WAN, unasked, DropReason::FilterDrop);
    let renewal = dhcp(1, WAN_MAC, 3);
    rig.pass(WAN_TAP, udp("203.0.113.1:68", "198.51.100.1:67").payload(&renewal));
    assert_eq!(rig.pass(WAN, unasked).port, WAN_TAP);
    // A client's behind us goes through, by a relay or to renew.
    let theirs = dhcp(2, CLIENT_MAC, 5);
    let sent = rig.pass(WAN, udp("198.51.100.1:67", "192.168.1.2:68").payload(&theirs));
    assert_eq!(sent.port, LAN);
}

#[test]
fn a_frame_without_source_or_next_hop_goes_nowhere() {
    let mut rig = tapped().start();
    let lost = framed(WAN_TAP, &udp("0.0.0.0:68", "198.51.100.1:67"));
    assert!(rig.send_counting(WAN_TAP, lost, DropReason::MartianSource).is_empty());
    let known = macs(udp("0.0.0.0:68", "198.51.100.1:67"), WAN_MAC, GATEWAY2_MAC);
    assert_eq!(rig.send_bytes(WAN_TAP, known.clone())[0].bytes, known);
}

#[test]
fn frames_of_the_kernel_that_are_nothing_for_a_wire_are_refused() {
    let mut rig = tapped().start();
    let good = framed(WAN_TAP, &udp(HOST, SERVER));
    let mut lldp = good.clone();
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    rig.send_counting(WAN_TAP, lldp, DropReason::EtherType);
    rig.send_counting(WAN_TAP, &good[..20], DropReason::ShortFrame);
    let tagged = framed(WAN_TAP, &udp(HOST, SERVER).tag(7));
    rig.send_counting(WAN_TAP, tagged, DropReason::UnknownVlan);
    // Loopback is the kernel's own.
    for dst in ["203.0.113.1:9", "192.168.1.1:9"] {
        rig.dropped(WAN_TAP, udp("203.0.113.10:9", dst), DropReason::NotAccepted);
    }
    let mut rig = tapped().rule(V4, Nat, "OUTPUT", dnat("192.168.1.1", None)).start();
    rig.dropped(WAN_TAP, udp(HOST, SERVER), DropReason::NotAccepted);
    assert!(rig.list().is_empty());
}

/// An error for the kernel: by the tap, from where the packet was to go.
#[track_caller]
fn is_told(sent: &Sent, tap: PortId, mac: Mac, host: &str, server: &str) {
    assert_eq!((sent.port, sent.dst_mac(), sent.src_mac()), (tap, mac, mac));
    let h = sent.headers();
    assert_eq!(h.dst, Address::from(at(host).ip()));
    if h.dst.is_v4() {
        assert_eq!(h.src, Address::from(at(server).ip()), "the kernel takes nothing from itself");
    }
    assert_eq!(sent.quote(), format!("{host} > {server}"));
}

#[test]
fn a_reject_in_output_is_told_to_the_kernel() {
    for (host, server, expected) in [(HOST, SERVER, (3, 3)), (HOST6, SERVER6, (1, 3))] {
        let setup = tapped().both(Filter, "OUTPUT", reject(3).proto(17)).both(
            Filter,
            "OUTPUT",
            accept().state(StateMask::RELATED),
        );
        let mut rig = setup.start();
        let sent = rig.answered(WAN_TAP, udp(host, server), DropReason::Rejected);
        is_told(&sent, WAN_TAP, WAN_MAC, host, server);
        assert_eq!((sent.icmp().0, sent.icmp().1), expected);
        let family = if host == HOST { V4 } else { V6 };
        assert_eq!(rig.count(family, Filter, "OUTPUT", Some(1)).0, 1, "RELATED, once");
        assert!(rig.list().is_empty());
        // The reset meets the same rule, and no reset answers a reset.
        let packet = tcp(host, server, SYN, 100, 0);
        let mut rig = tapped().both(Filter, "OUTPUT", reset()).start();
        assert!(rig.send(WAN_TAP, packet).is_empty());
        assert_eq!(rig.drop_count(DropReason::Rejected), 2);
        let only = reset().dst(
            if host == HOST { "198.51.100.7" } else { "2001:db8:ffff::7" },
            if host == HOST { 32 } else { 128 },
        );
        let mut rig = tapped().rule(family, Filter, "OUTPUT", only).start();
        let sent = rig.answered(WAN_TAP, packet, DropReason::Rejected);
        assert_eq!((sent.port, sent.dst_mac()), (WAN_TAP, WAN_MAC));
        assert_eq!(sent.flow(), format!("{server} > {host}"));
        assert_eq!(sent.headers().tcp_flags & RST, RST);
    }
}

#[test]
fn an_error_about_a_translated_packet_names_what_the_kernel_sent() {
    let setup = tapped().rule(V4, Nat, "OUTPUT", dnat("198.51.100.99", Some(8080)).proto(17)).rule(
        V4,
        Filter,
        "OUTPUT",
        reject(3).proto(17),
    );
    let mut rig = setup.start();
    let sent = rig.answered(WAN_TAP, udp(HOST, SERVER), DropReason::Rejected);
    is_told(&sent, WAN_TAP, WAN_MAC, HOST, SERVER);
    // Behind POSTROUTING, when the next hop stays silent.
    let everything = on(Target::Masquerade(NatOptions::default()));
    let mut setup = tapped().rule(V4, Nat, "POSTROUTING", everything);
    setup.routes.push(route("198.51.100.0", 24, Some("203.0.113.99"), WAN));
    let mut rig = setup.start();
    assert!(rig.send(LAN_TAP, udp("192.168.1.1:7000", SERVER))[0].is_arp());
    let told: Vec<Sent> = rig.live(10).into_iter().filter(|s| !s.is_arp()).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(rig.drop_count(DropReason::NeighbourFailed), 1);
    is_told(&told[0], WAN_TAP, WAN_MAC, "192.168.1.1:7000", SERVER);
}

#[test]
fn what_has_no_way_is_told_to_the_kernel() {
    let mut setup = tapped();
    setup.routes.clear();
    let mut rig = setup.start();
    for (host, server, expected) in [(HOST, SERVER, (3, 0)), (HOST6, SERVER6, (1, 0))] {
        let sent = rig.answered(WAN_TAP, udp(host, server), DropReason::NoRoute);
        is_told(&sent, WAN_TAP, WAN_MAC, host, server);
        assert_eq!((sent.icmp().0, sent.icmp().1), expected);
    }
    let mut rig = Setup { mtu: [1500, 1400], ..tapped() }.start();
    let bytes = [0; 1450];
    let large = udp("192.168.1.1:5000", SERVER).payload(&bytes);
    let sent = rig.answered(LAN_TAP, large, DropReason::TooBig);
    is_told(&sent, LAN_TAP, LAN_MAC, "192.168.1.1:5000", SERVER);
    assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (3, 4, 1400));
    assert_eq!(rig.send(LAN_TAP, large.dont_fragment(false)).len(), 2, "in pieces");
}

#[test]
fn a_silent_next_hop_is_told_to_the_kernel() {
    for (host, server) in [(HOST, "203.0.113.99:9"), (HOST6, "[2001:db8:2::99]:9")] {
        let mut rig = tapped().start();
        rig.send(WAN_TAP, udp(host, server));
        let asks = |s: &Sent| s.is_arp() || s.headers().icmp_type == 135;
        let told: Vec<Sent> = rig.live(10).into_iter().filter(|s| !asks(s)).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        is_told(&told[0], WAN_TAP, WAN_MAC, host, server);
    }
}

#[test]
fn path_mtu_discovery_works_for_the_kernel() {
    let setup = tapped()
        .drops(Filter, "INPUT")
        .both(Filter, "INPUT", accept().state(StateMask::RELATED))
        .both(Nat, "POSTROUTING", masquerade());
    let mut rig = setup.start();
    let sent = rig.pass(LAN_TAP, udp("192.168.1.1:7000", SERVER));
    let error = Packet::icmp(ip("198.51.100.200"), ip("203.0.113.1"), 3, 4, 1300);
    let sent = rig.pass(WAN, error.payload(&sent.bytes[14..]));
    assert_eq!((sent.port, sent.headers().dst), (WAN_TAP, address("192.168.1.1")));
    assert_eq!((sent.icmp().2, sent.quote()), (1300, format!("192.168.1.1:7000 > {SERVER}")));
}

#[test]
fn a_tap_that_takes_no_more_is_a_counted_drop() {
    let mut rig = tapped().start();
    rig.worker.io().transmissions_left = Some(1);
    let packets = [1, 2, 3].map(|n| udp(&format!("192.168.1.2:{n}"), LAN_SSH));
    assert_eq!(rig.send_all(LAN, &packets).len(), 1);
    assert_eq!(rig.counters.to_host.get(), 1);
    assert_eq!(rig.drop_count(DropReason::TxFull), 2);
}
