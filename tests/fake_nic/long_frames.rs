//! Frames longer than an mbuf, and ports of different MTU.

use dataplane::wire::build::packet::Packet;

use crate::rig::{Gateway, LAN_4, MASQUERADE, Numbers, Setup, Side};

const JUMBO: &str = "mtu = 9000";

/// What an IPv4 or IPv6 datagram has around its payload.
fn around(v4: bool) -> usize {
    if v4 { 20 + 8 } else { 40 + 8 }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 + n / 256) as u8).collect()
}

#[test]
fn long_frames_are_chains_in_and_out() {
    let setup = Setup { workers: 2, lan: JUMBO, wan: JUMBO, v4: MASQUERADE, v6: MASQUERADE };
    let mut gateway = Gateway::new(setup);
    let mut numbers = Numbers(0x9000);
    for v4 in [true, false] {
        for mtu in [1500, 2033, 2034, 2035, 4096, 8999, 9000] {
            let (client, server) = numbers.ends(v4);
            let bytes = payload(mtu - around(v4));
            let (_, sent) =
                gateway.forward(Side::Lan, &Packet::udp(client, server).payload(&bytes));
            assert_eq!(sent.segments, (mtu + 14).div_ceil(2048), "as it came");
            assert!(sent.bytes.ends_with(&bytes));
            let lent = sent.src();
            assert_ne!(lent.ip(), client.ip());
            let (_, sent) = gateway.forward(Side::Wan, &Packet::udp(server, lent).payload(&bytes));
            assert_eq!((sent.dst(), sent.segments), (client, (mtu + 14).div_ceil(2048)));
            assert!(sent.bytes.ends_with(&bytes));
        }
    }
    assert_eq!(gateway.drops(), []);
}

#[test]
fn a_wrong_checksum_is_found_in_the_last_mbuf() {
    let drop = "*filter\n-A FORWARD -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
    let setup = Setup { workers: 1, lan: JUMBO, wan: JUMBO, v4: drop, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    let (client, server) = Numbers(0x9001).ends(true);
    let bytes = payload(8000);
    let frame = Packet::udp(client, server).payload(&bytes);
    let right = frame.to_vec();
    let check = u16::from_be_bytes([right[40], right[41]]);
    gateway.put(Side::Lan, &frame.l4_check(check ^ 0x0101));
    gateway.settle();
    assert_eq!((gateway.invalid(), gateway.drops()), (1, vec![("filter-drop", 1)]));
    gateway.forward(Side::Lan, &frame);
}

#[test]
fn what_does_not_fit_the_way_out_is_too_big_and_its_sender_told() {
    let mut gateway = Gateway::new(Setup { workers: 2, lan: JUMBO, ..Setup::default() });
    let mut numbers = Numbers(0x1500);
    for (v4, answer) in [(true, (3, 4)), (false, (2, 0))] {
        let (client, server) = numbers.ends(v4);
        let bytes = payload(4000);
        let before = gateway.drops().iter().map(|(_, count)| count).sum::<u64>();
        gateway.put(Side::Lan, &Packet::udp(client, server).payload(&bytes));
        gateway.settle();
        assert!(gateway.sent(Side::Wan).is_empty());
        let told = gateway.sent(Side::Lan);
        let [told] = &told[..] else { panic!("{} answers", told.len()) };
        let headers = told.headers();
        assert_eq!((headers.icmp_type, headers.icmp_code), answer);
        assert_eq!(headers.dst.ip(), client.ip());
        let mtu = told.bytes[usize::from(headers.l4) + 6..][..2].try_into().unwrap();
        assert_eq!(u16::from_be_bytes(mtu), 1500);
        assert_eq!(gateway.drops(), [("too-big", before + 1)]);
        let fits = payload(1500 - around(v4));
        gateway.forward(Side::Lan, &Packet::udp(client, server).payload(&fits));
    }
}

#[test]
fn a_port_of_a_small_mtu_receives_nothing_longer() {
    let mut gateway = Gateway::new(Setup { workers: 1, wan: JUMBO, ..Setup::default() });
    let (client, server) = Numbers(0x1501).ends(true);
    let bytes = payload(1600);
    let frame = Packet::udp(client, server).payload(&bytes).to_vec();
    assert_eq!(gateway.nic(Side::Lan).arrive(&frame), None, "the NIC's own affair");
    gateway.settle();
    assert!(gateway.sent(Side::Wan).is_empty());
    assert_eq!((gateway.sum(|c| c.ports[0].rx_packets.get()), gateway.drops()), (0, vec![]));
}

#[test]
fn the_gateway_answers_a_long_ping() {
    let mut gateway = Gateway::new(Setup { workers: 1, lan: JUMBO, ..Setup::default() });
    let client = Numbers(0x1502).ends(true).0.ip();
    for len in [100, 3000, 8000] {
        let bytes = payload(len);
        gateway.put(Side::Lan, &Packet::icmp(client, LAN_4, 8, 0, 9 << 16).payload(&bytes));
        gateway.settle();
        let sent = gateway.sent(Side::Lan);
        let [reply] = &sent[..] else { panic!("{} answers, {:?}", sent.len(), gateway.drops()) };
        assert_eq!(reply.headers().icmp_type, 0);
        assert!(reply.headers().l4_check_ok(&reply.bytes) && reply.bytes.ends_with(&bytes));
    }
}
