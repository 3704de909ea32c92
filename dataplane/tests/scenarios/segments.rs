//! Frames in several segments: the bytes that leave are those of the same frame in one piece.

use dataplane::lcore::memory::MemoryFrame;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{Filter, Nat};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

/// Cuts behind the first `n` bytes of each segment; headers stay in the first.
const CUTS: [&[usize]; 6] = [&[], &[94], &[94, 1], &[100, 33, 700], &[94, 0, 5], &[512, 512]];

/// What a gateway sends when these packets arrive one by one, cut so.
fn sent(setup: Setup, cuts: &[usize], frames: &[(PortId, Vec<u8>)]) -> Vec<Vec<Sent>> {
    let mut rig = setup.start();
    let one = |(port, bytes): &(PortId, Vec<u8>)| {
        rig.push(*port, MemoryFrame::chain(bytes, cuts));
        rig.poll()
    };
    let all = frames.iter().map(one).collect();
    assert_eq!(rig.counters.conntrack.invalid.get(), 0, "{cuts:?}");
    assert_eq!(rig.counters.conntrack.error.get(), 0, "{cuts:?}");
    all
}

/// The same whether in one piece or several, from `setup`.
fn alike(setup: fn() -> Setup, frames: &[(PortId, Vec<u8>)], answers: usize) {
    let whole = sent(setup(), &[], frames);
    assert_eq!(whole.iter().map(Vec::len).sum::<usize>(), answers, "{whole:?}");
    for cuts in CUTS {
        let cut = sent(setup(), cuts, frames);
        for (n, (a, b)) in whole.iter().zip(&cut).enumerate() {
            assert_eq!(a, b, "packet {n} cut at {cuts:?}");
        }
    }
}

fn masquerading() -> Setup {
    Setup::default().both(Nat, "POSTROUTING", masquerade())
}

const SIDES: [(&str, &str, &str); 2] = [
    ("192.168.1.2:4000", "198.51.100.7:80", "203.0.113.1:4000"),
    ("[2001:db8:1::2]:4000", "[2001:db8:ffff::7]:80", "[2001:db8:2::1]:4000"),
];

#[test]
fn translated_conns() {
    let payload: Vec<u8> = (0..1401u32).map(|n| (n * 7 >> 2) as u8).collect();
    for (client, server, wan) in SIDES {
        let mut frames = Vec::new();
        let mut push = |port, packet: Packet<'_>| frames.push((port, framed(port, &packet)));
        for n in 0..4 {
            push(LAN, udp(client, server).payload(&payload[n..]));
            push(WAN, udp(server, wan).payload(&payload[2 * n..]));
        }
        push(LAN, tcp(client, server, SYN, 100, 0));
        push(WAN, tcp(server, wan, SYN | ACK, 500, 101));
        let mut seq = 101;
        for n in 0..4 {
            let bytes = &payload[n..];
            push(LAN, tcp(client, server, ACK, seq, 501).payload(bytes));
            seq += bytes.len() as u32;
            push(WAN, tcp(server, wan, ACK, 501, seq));
        }
        let count = frames.len();
        alike(masquerading, &frames, count);
    }
}

#[test]
fn pings_to_the_gateway() {
    let payload: Vec<u8> = (0..1001u32).map(|n| n as u8).collect();
    let v4 = Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 7 << 16).payload(&payload);
    let v6 = Packet::icmp(ip("2001:db8:1::2"), ip("2001:db8:1::1"), 128, 0, 7 << 16);
    let frames = [v4, v4, v6.payload(&payload)].map(|p| (LAN, framed(LAN, &p)));
    alike(Setup::default, &frames, 3);
}

#[test]
fn errors_that_the_gateway_makes() {
    let payload = [5; 1200];
    let setup = || Setup::default().both(Filter, "FORWARD", reject(3).proto(17).dport(99));
    for (client, server, _) in SIDES {
        let other = server.replace(":80", ":99");
        let frames = [
            udp(client, server).payload(&payload).ttl(1),
            udp(client, &other).payload(&payload),
            tcp(client, server, ACK, 1, 1).payload(&payload).ttl(1),
        ];
        alike(setup, &frames.map(|p| (LAN, framed(LAN, &p))), 3);
    }
}

#[test]
fn errors_that_pass_with_a_quote_across_segments() {
    for (client, server, wan) in SIDES {
        let out = udp(wan, server).payload(&[9; 400]).ttl(63).to_vec();
        let (router, kind) =
            if client.starts_with('[') { ("2001:db8:fffe::1", 1) } else { ("198.51.100.1", 3) };
        let error = Packet::icmp(ip(router), at(wan).ip(), kind, 0, 0).payload(&out[14..]);
        let first = udp(client, server).payload(&[9; 400]);
        let frames = [(LAN, framed(LAN, &first)), (WAN, framed(WAN, &error))];
        let whole = sent(masquerading(), &[], &frames);
        for cuts in [&[200][..], &[130, 40], &[200, 0, 100]] {
            assert_eq!(sent(masquerading(), cuts, &frames), whole, "{cuts:?}");
        }
    }
}

#[test]
fn jumbo_frames() {
    let setup = || Setup { mtu: [9000, 9000], ..masquerading() };
    for (client, server, wan) in SIDES {
        let over = if client.starts_with('[') { 48 } else { 28 };
        let payload: Vec<u8> = (0..9000 - over as u32).map(|n| (n % 251) as u8).collect();
        let frames: Vec<_> = (0..6)
            .map(|n| match n % 2 {
                0 => (LAN, framed(LAN, &udp(client, server).payload(&payload))),
                _ => (WAN, framed(WAN, &udp(server, wan).payload(&payload))),
            })
            .collect();
        let whole = sent(setup(), &[], &frames);
        assert!(whole.iter().all(|s| s.len() == 1 && s[0].headers().ip_len() == 9000));
        for cuts in [&[2048, 2048, 2048, 2048][..], &[1500, 1500, 1500], &[94]] {
            assert_eq!(sent(setup(), cuts, &frames), whole);
        }
    }
}

#[test]
fn padding_in_a_segment_of_its_own_is_trimmed() {
    let mut rig = Setup::default().start();
    for _ in 0..3 {
        let packet = udp(SIDES[0].0, SIDES[0].1);
        let mut bytes = framed(LAN, &packet);
        let len = bytes.len();
        bytes.resize(len + 40, 0xee);
        rig.push(LAN, MemoryFrame::chain(&bytes, &[len - 2, 20]));
        let sent = rig.poll();
        assert_eq!(sent[0].bytes, packet.macs(WAN_MAC, UPSTREAM_MAC).ttl(63).to_vec());
    }
}
