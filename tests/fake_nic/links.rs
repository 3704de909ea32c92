//! Cables that are pulled out and put back.

use std::net::{IpAddr, SocketAddr};

use dataplane::wire::build::packet::Packet;
use dataplane::wire::build::{Link, neighbour};
use dataplane::wire::ethernet::Mac;
use sluicegate::tools::Gateway as _;
use sluicegate::tools::stats::{WireLink, json, text};

use crate::rig::{
    Gateway, LAN_4, MASQUERADE, Numbers, Sent, Setup, Side, WAN_4, WAN_MAC, take_log,
};

#[test]
fn a_change_is_said_once_and_shown() {
    let mut gateway = Gateway::new(Setup { workers: 1, ..Setup::default() });
    let links = |gateway: &mut Gateway| {
        let stats = gateway.core.stats();
        let links = stats.ports.iter().map(|port| port.wire.link).collect::<Vec<_>>();
        (links, json(&stats)["ports"].clone(), text(&stats))
    };
    assert_eq!(links(&mut gateway).0, [None, None], "nobody has looked yet");
    gateway.look_at_wires();
    assert_eq!(take_log(), [""; 0], "that it is up goes without saying");
    let up = Some(WireLink { up: true, speed_mbps: Some(10_000), full_duplex: true });
    let down = Some(WireLink { up: false, speed_mbps: None, full_duplex: true });
    assert_eq!(links(&mut gateway).0, [up, up]);

    gateway.nic(Side::Wan).set_link(false);
    (0..3).for_each(|_| gateway.look_at_wires());
    assert_eq!(take_log(), ["WARN: port wan: link down"]);
    let (shown, ports, text) = links(&mut gateway);
    assert_eq!(shown, [up, down]);
    assert_eq!(ports["lan"]["link"], serde_json::json!({"up": true, "speed_mbps": 10_000}));
    assert_eq!(ports["wan"]["link"], serde_json::json!({"up": false, "speed_mbps": null}));
    let line = |port: &str, end: &str| {
        text.lines().any(|line| line.starts_with(port) && line.ends_with(end))
    };
    assert!(line("lan", " up, 10000 Mbit/s full duplex") && line("wan", " down"), "{text}");

    gateway.nic(Side::Wan).set_link(true);
    (0..3).for_each(|_| gateway.look_at_wires());
    assert_eq!(take_log(), ["INFO: port wan: link up, 10000 Mbit/s full duplex"]);
    assert_eq!(links(&mut gateway).0, [up, up]);
}

#[test]
fn frames_for_a_port_without_link_are_dropped_and_nothing_else_waits() {
    let setup = Setup { workers: 2, v4: MASQUERADE, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    let mut numbers = Numbers(0xcab1e);
    let (client, server) = numbers.ends(true);
    let out = Packet::udp(client, server).payload(b"out");
    let (_, sent) = gateway.forward(Side::Lan, &out);
    gateway.nic(Side::Wan).set_link(false);
    gateway.look_at_wires();
    let ping = Packet::icmp(client.ip(), LAN_4, 8, 0, 9 << 16).payload(b"are you there");
    for _ in 0..100 {
        gateway.put(Side::Lan, &out);
        gateway.put(Side::Lan, &ping);
    }
    gateway.settle();
    assert_eq!(gateway.sent(Side::Lan).len(), 100, "pings of the lan are answered");
    assert_eq!(gateway.drops(), [("tx-full", 100)]);
    gateway.nic(Side::Wan).set_link(true);
    gateway.look_at_wires();
    let (_, again) = gateway.forward(Side::Lan, &out);
    assert_eq!(again.src(), sent.src(), "the conn is the same");
    gateway.forward(Side::Wan, &Packet::udp(server, again.src()).payload(b"back"));
    assert_eq!(gateway.drops(), [("tx-full", 100)]);
}

const HOST: [u8; 6] = [2, 0, 0, 0, 0x11, 0x60];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0x11, 0x61];

/// A host on the wan answers whoever asks for its address.
fn answer_arp(gateway: &mut Gateway, host: IpAddr, mac: [u8; 6]) {
    let link = Link { dst: Mac(WAN_MAC), src: Mac(mac), tci: None };
    let mut frame = [0; 64];
    let asker = (Mac(WAN_MAC), WAN_4.into());
    let len = neighbour::arp_reply(&mut frame, &link, host.into(), asker).unwrap();
    gateway.nic(Side::Wan).arrive(&frame[..len]).unwrap();
    gateway.settle();
}

fn is_question(sent: &Sent) -> bool {
    sent.bytes[..6] == [0xff; 6] && sent.bytes[12..14] == [8, 6]
}

#[test]
fn what_is_behind_a_cable_is_learnt_anew_when_it_is_put_back() {
    let mut gateway = Gateway::new(Setup { workers: 2, ..Setup::default() });
    gateway.look_at_wires();
    let client = Numbers(0xa4b).ends(true).0;
    let host: SocketAddr = "203.0.113.60:53".parse().unwrap();
    let out = Packet::udp(client, host).payload(b"question");
    let ask = |gateway: &mut Gateway, from: Side, out: &Packet<'_>| {
        gateway.put(from, out);
        gateway.settle();
        gateway.sent(from.other())
    };
    let first = ask(&mut gateway, Side::Lan, &out);
    assert!(first.len() == 1 && is_question(&first[0]));
    answer_arp(&mut gateway, host.ip(), HOST);
    let held = gateway.sent(Side::Wan);
    assert_eq!((held.len(), &held[0].bytes[..6]), (1, &HOST[..]));
    // Established, so that the conn remembers its next hop.
    assert_eq!(ask(&mut gateway, Side::Wan, &Packet::udp(host, client)).len(), 1);
    assert_eq!(ask(&mut gateway, Side::Lan, &out)[0].bytes[..6], HOST);

    for up in [false, true] {
        gateway.nic(Side::Wan).set_link(up);
        gateway.look_at_wires();
        gateway.settle();
    }
    let asked = ask(&mut gateway, Side::Lan, &out);
    assert!(asked.len() == 1 && is_question(&asked[0]), "nobody is known there any more");
    answer_arp(&mut gateway, host.ip(), OTHER);
    let sent = gateway.sent(Side::Wan);
    assert_eq!((sent.len(), &sent[0].bytes[..6]), (1, &OTHER[..]));
    // The file's neighbours stay, and so do those of other ports.
    let server = Numbers(0xa4c).ends(true).1;
    gateway.forward(Side::Lan, &Packet::udp(client, server).payload(b"by the router"));
    assert_eq!(gateway.drops(), []);
}

#[test]
fn what_waits_for_a_neighbour_does_not_wait_for_the_cable() {
    let mut gateway = Gateway::new(Setup { workers: 1, ..Setup::default() });
    let client = Numbers(0xa4d).ends(true).0;
    let host: SocketAddr = "203.0.113.61:53".parse().unwrap();
    let out = Packet::udp(client, host).payload(b"question");
    gateway.put(Side::Lan, &out);
    gateway.settle();
    assert_eq!(gateway.sum(|c| c.held.get()), 1);
    gateway.nic(Side::Wan).set_link(false);
    gateway.look_at_wires();
    gateway.settle();
    assert_eq!(
        (gateway.sum(|c| c.held.get()), gateway.drops()),
        (0, vec![("neighbour-failed", 1)])
    );
    assert_eq!(gateway.sent(Side::Lan)[0].headers().icmp_type, 3, "host unreachable");
    // Asked in vain: the questions go where the cable was.
    gateway.put(Side::Lan, &out);
    gateway.settle();
    gateway.pass_time(5);
    let lost = gateway.drops();
    assert_eq!(lost.iter().find(|(name, _)| *name == "neighbour-failed").unwrap().1, 2);
    assert_eq!(lost.iter().find(|(name, _)| *name == "tx-full").unwrap().1, 3, "three questions");
}

#[test]
fn a_sub_interface_has_its_parents_link() {
    let wan = "[[port]]\nname = \"wan.7\"\naddresses = [\"192.0.2.1/24\"]\n";
    let mut gateway = Gateway::new(Setup { workers: 2, wan, ..Setup::default() });
    for (up, said) in [(false, "WARN: port wan.7: link down"), (true, "INFO: port wan.7: link up")]
    {
        gateway.look_at_wires();
        take_log();
        gateway.nic(Side::Wan).set_link(up);
        gateway.look_at_wires();
        let log = take_log();
        assert!(log.len() == 2 && log[1].starts_with(said), "{log:?}");
        let ups = gateway.core.stats().ports.iter().map(|p| p.wire.link.unwrap().up).collect();
        let ups: Vec<bool> = ups;
        assert_eq!(ups, [true, up, up]);
    }
}
