//! Datagrams in fragments: put together before every hook, cut again behind them.

use super::{HIGH, MASQUERADE, NOT_INVALID, OPEN, STATEFUL, both, only4, sequence};
use crate::packets::{
    GRE, IDENTIFICATION, Packet, TCP, checksum, chunk, echo, icmp, other, sctp, syn_options, tcp,
    udp,
};
use crate::script::{Script, Sequence, Setup};
use crate::topology::{
    C1, C1_6, C2, C2_6, C3_6, C4_6, GATEWAY_LAN, GATEWAY_LAN_6, GATEWAY_WAN, S1, S1_6, S2_6, S3_6,
    Side,
};
use std::net::IpAddr;

pub fn group() -> Vec<Sequence> {
    vec![
        as_they_came(),
        reversed(),
        mixed(),
        duplicates(),
        overlaps(),
        gap(),
        ends(),
        lengths(),
        beyond_the_end(),
        dont_fragment(),
        dont_fragment_too_large(),
        narrower(),
        options(),
        congestion(),
        tiny_first(),
        tiny_first_translated(),
        small_pieces(),
        small_pieces_translated(),
        translated(),
        forwarded_port(),
        rules(),
        pings(),
        too_large(),
        given_up(),
        given_up_6(),
        distance(),
        other_port(),
        plain_6(),
        reversed_6(),
        overlaps_6(),
        ends_6(),
        lengths_6(),
        atomic_6(),
        extensions_6(),
        tiny_first_6(),
        too_large_6(),
        small_6(),
    ]
}

const CLIENT: (IpAddr, u16) = (C1, 4000);
const SERVER: (IpAddr, u16) = (S1, 53);
const CLIENT_6: (IpAddr, u16) = (C1_6, 4000);
const SERVER_6: (IpAddr, u16) = (S1_6, 53);

/// What a part is: where it begins, its length, whether more follow.
type Part = (usize, usize, bool);

/// The identification of a packet's fragments: sequences that leave some behind have a source port
/// of their own, so that these are in nobody's way.
fn id_of(payload: &[u8]) -> u16 {
    let port = payload.first_chunk().map_or(0, |port| u16::from_be_bytes(*port));
    IDENTIFICATION + port.saturating_sub(4000) % 1000
}

/// A part of a packet's payload as a fragment; what lies beyond the packet is zeros. IPv4 keeps the
/// flags of the packet's header.
fn part(whole: &[u8], part: Part) -> Vec<u8> {
    let header = if whole[0] >> 4 == 4 { 20 } else { 40 };
    identified_part(whole, id_of(&whole[header..]), part)
}

/// The same with an identification, of which IPv6 makes 32 bits.
pub fn identified_part(whole: &[u8], id: u16, (offset, len, more): Part) -> Vec<u8> {
    let header = if whole[0] >> 4 == 4 { 20 } else { 40 };
    let mut payload = whole[header..].to_vec();
    payload.resize(payload.len().max(offset + len), 0);
    let payload = &payload[offset..offset + len];
    let mut bytes = whole[..header].to_vec();
    if header == 20 {
        let word = u16::from(more) << 13 | (offset / 8) as u16;
        bytes[4..6].copy_from_slice(&id.to_be_bytes());
        bytes[6] |= (word >> 8) as u8;
        bytes[7] = word as u8;
        finish4(bytes, payload)
    } else {
        let next = std::mem::replace(&mut bytes[6], 44);
        fragment_header(&mut bytes, next, id, (offset, more));
        finish6(bytes, payload)
    }
}

fn fragment_header(bytes: &mut Vec<u8>, next: u8, id: u16, (offset, more): (usize, bool)) {
    bytes.extend_from_slice(&[next, 0]);
    bytes.extend_from_slice(&(offset as u16 | u16::from(more)).to_be_bytes());
    bytes.extend_from_slice(&(u32::from(id) << 16 | 7).to_be_bytes());
}

/// An IPv4 packet of a header, whose length and checksum are put right, and what follows.
fn finish4(mut header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let total = (header.len() + payload.len()) as u16;
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[10..12].fill(0);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend_from_slice(payload);
    header
}

fn finish6(mut header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let behind = (header.len() - 40 + payload.len()) as u16;
    header[4..6].copy_from_slice(&behind.to_be_bytes());
    header.extend_from_slice(payload);
    header
}

/// A packet in fragments of these lengths; the last has what is left.
fn cut(packet: &Packet, lengths: &[usize]) -> Vec<Vec<u8>> {
    let whole = packet.bytes();
    let len = whole.len() - if whole[0] >> 4 == 4 { 20 } else { 40 };
    let mut offset = 0;
    let mut parts = Vec::new();
    for &n in lengths {
        parts.push(part(&whole, (offset, n, true)));
        offset += n;
    }
    parts.push(part(&whole, (offset, len - offset, false)));
    parts
}

fn send(s: &mut Script<'_>, side: Side, packets: Vec<Vec<u8>>) -> usize {
    s.frames(side, packets.iter().map(|bytes| side.framed(bytes)).collect())
}

/// The parts of a packet, each a step of its own.
fn one_by_one(s: &mut Script<'_>, packet: &Packet, parts: &[Part]) {
    let whole = packet.bytes();
    for &p in parts {
        send(s, Side::Lan, vec![part(&whole, p)]);
    }
}

/// A UDP datagram of `len` bytes of payload that differ.
fn datagram(from: (IpAddr, u16), to: (IpAddr, u16), len: usize) -> Packet {
    let payload: Vec<u8> = (0..len).map(|n| ((n * 7) >> 3) as u8).collect();
    udp(from, to).payload(&payload)
}

fn stateful() -> Setup {
    both(&[("filter", STATEFUL)])
}

fn plain(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, stateful(), script)
}

fn as_they_came() -> Sequence {
    plain("fragments-as-they-came", "pieces of unequal length leave as they came", |s| {
        send(s, Side::Lan, cut(&datagram(CLIENT, SERVER, 2700), &[1000, 1480]));
        s.table();
        send(s, Side::Wan, cut(&datagram(SERVER, CLIENT, 2700), &[8, 1480, 16]));
        send(s, Side::Lan, cut(&datagram(CLIENT, SERVER, 100), &[48]));
        s.table();
    })
}

fn reversed() -> Sequence {
    plain("fragments-reversed", "the last comes first", |s| {
        let mut parts = cut(&datagram(CLIENT, SERVER, 3000), &[1000, 1480]);
        parts.reverse();
        send(s, Side::Lan, parts);
        s.table();
    })
}

fn mixed() -> Sequence {
    plain("fragments-mixed", "the middle comes last, two datagrams at once", |s| {
        let one = cut(&datagram(CLIENT, SERVER, 3000), &[1000, 800, 800]);
        let two = cut(&datagram((C2, 4000), SERVER, 3000), &[800, 1000]);
        let order = [&one[3], &two[2], &one[0], &two[0], &one[1], &two[1], &one[2]];
        for bytes in order {
            send(s, Side::Lan, vec![bytes.clone()]);
        }
        s.table();
    })
}

fn duplicates() -> Sequence {
    plain("fragments-duplicate", "what is there already is dropped alone", |s| {
        let packet = datagram((C1, 4013), SERVER, 1200);
        // The same again; a part of a run; the end of one; more than a run.
        one_by_one(s, &packet, &[(0, 400, true), (0, 400, true), (400, 400, true)]);
        one_by_one(s, &packet, &[(200, 400, true), (0, 800, true), (800, 408, false)]);
        one_by_one(s, &packet, &[(800, 408, false)]);
        // Two runs that touch are not one.
        one_by_one(s, &packet, &[(400, 400, true), (0, 400, true), (200, 400, true)]);
        one_by_one(s, &packet, &[(800, 408, false), (0, 400, true), (400, 400, true)]);
        s.table();
    })
}

fn overlaps() -> Sequence {
    plain("fragments-overlap", "an overlap drops the queue", |s| {
        let packet = datagram((C1, 4010), SERVER, 1200);
        for overlapping in [(392, 408, true), (0, 408, true), (200, 1008, false)] {
            one_by_one(s, &packet, &[(0, 400, true), overlapping]);
            one_by_one(s, &packet, &[(400, 400, true), (800, 408, false)]);
            s.table();
            one_by_one(s, &packet, &[(0, 400, true)]);
        }
        one_by_one(s, &packet, &[(800, 408, false), (400, 408, true), (0, 400, true)]);
        one_by_one(s, &packet, &[(400, 400, true), (800, 408, false)]);
        s.table();
    })
}

fn gap() -> Sequence {
    plain("fragments-gap", "a datagram that is not whole does not leave", |s| {
        let packet = datagram((C1, 4001), SERVER, 1200);
        one_by_one(s, &packet, &[(0, 400, true), (800, 408, false)]);
        s.table();
        one_by_one(s, &packet, &[(400, 392, true)]);
        s.table();
        one_by_one(s, &packet, &[(792, 8, true)]);
    })
}

fn ends() -> Sequence {
    plain("fragments-ends", "two ends, and what lies beyond the end", |s| {
        let packet = datagram((C1, 4002), SERVER, 1200);
        one_by_one(s, &packet, &[(0, 400, true), (800, 408, false), (800, 400, false)]);
        one_by_one(s, &packet, &[(400, 400, true), (0, 400, true), (800, 408, false)]);
        s.table();
        one_by_one(s, &packet, &[(0, 400, true), (800, 408, false), (1208, 8, true)]);
        one_by_one(s, &packet, &[(400, 400, true)]);
        one_by_one(s, &packet, &[(0, 400, true), (800, 408, false)]);
        one_by_one(s, &packet, &[(0, 0, true), (400, 0, false)]);
        one_by_one(s, &packet, &[(0, 400, true), (400, 808, false)]);
    })
}

fn lengths() -> Sequence {
    plain("fragments-lengths", "a length that is no multiple of eight is cut", |s| {
        let packet = datagram(CLIENT, SERVER, 1200);
        one_by_one(s, &packet, &[(0, 405, true), (400, 808, false)]);
        one_by_one(s, &packet, &[(0, 405, true), (408, 800, false), (400, 8, true)]);
        one_by_one(s, &packet, &[(0, 7, true), (0, 400, true), (400, 808, false)]);
        s.table();
    })
}

fn beyond_the_end() -> Sequence {
    plain("fragments-65535", "no datagram is longer than its header can say", |s| {
        let packet = datagram(CLIENT, SERVER, 1000);
        let whole = packet.bytes();
        let mut parts = vec![part(&whole, (65520, 100, false))];
        let mut offset = 0;
        while offset < 65520 {
            let len = 1456.min(65520 - offset);
            parts.push(part(&whole, (offset, len, true)));
            offset += len;
        }
        send(s, Side::Lan, parts);
        send(s, Side::Lan, cut(&packet, &[400]));
        s.table();
    })
}

fn dont_fragment() -> Sequence {
    plain("fragments-df", "DF on all, on the largest, on the smallest", |s| {
        let packet = datagram(CLIENT, SERVER, 1200);
        let df = packet.clone().dont_fragment();
        send(s, Side::Lan, cut(&df, &[400, 400]));
        let (plain, df) = (packet.bytes(), df.bytes());
        send(s, Side::Lan, vec![part(&df, (0, 800, true)), part(&plain, (800, 408, false))]);
        send(s, Side::Lan, vec![part(&plain, (0, 800, true)), part(&df, (800, 408, false))]);
        send(s, Side::Lan, vec![part(&df, (0, 600, true)), part(&plain, (600, 608, false))]);
    })
}

fn dont_fragment_too_large() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]) };
    sequence("fragments-df-too-large", "DF and larger than the way out", setup, |s| {
        let packet = datagram(CLIENT, SERVER, 2000).dont_fragment();
        send(s, Side::Lan, cut(&packet, &[1400]));
        s.table();
        send(s, Side::Lan, cut(&packet, &[1200]));
        s.table();
    })
}

fn narrower() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..stateful() };
    sequence("fragments-narrower", "larger than the way out: cut anew", setup, |s| {
        send(s, Side::Lan, cut(&datagram(CLIENT, SERVER, 3000), &[1480, 1480]));
        send(s, Side::Lan, cut(&datagram(CLIENT, SERVER, 3000), &[800, 1480]));
        send(s, Side::Lan, cut(&datagram(CLIENT, SERVER, 1400), &[1400]));
        s.table();
    })
}

/// Puts options behind the fixed header of an IPv4 packet.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut header = packet[..20].to_vec();
    header[0] += (options.len() / 4) as u8;
    header.extend_from_slice(options);
    finish4(header, &packet[20..])
}

/// Router alert, which is copied; an unknown one, which is not; padding.
const OPTIONS: [u8; 12] = [0x94, 4, 0, 0, 30, 7, 8, 0, 0, 0, 0, 1];

fn options() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..stateful() };
    sequence("fragments-options", "IP options of the first and of pieces", setup, |s| {
        let parts = cut(&datagram(CLIENT, SERVER, 1900), &[1000]);
        let first = with_options(&parts[0], &OPTIONS);
        send(s, Side::Lan, vec![first.clone(), parts[1].clone()]);
        send(s, Side::Lan, vec![first, with_options(&parts[1], &OPTIONS)]);
        send(s, Side::Lan, vec![parts[0].clone(), with_options(&parts[1], &OPTIONS)]);
        let narrow = cut(&datagram(CLIENT, SERVER, 2500), &[1280]);
        send(s, Side::Lan, vec![with_options(&narrow[0], &OPTIONS), narrow[1].clone()]);
        let whole = datagram(CLIENT, SERVER, 1400).bytes();
        send(s, Side::Lan, vec![with_options(&whole, &OPTIONS)]);
    })
}

fn congestion() -> Sequence {
    plain("fragments-ecn", "congestion marks are merged, contradictions dropped", |s| {
        for [a, b] in [[2, 3], [1, 3], [1, 2], [0, 3], [2, 0], [3, 3], [0xb8, 0xb8]] {
            let packet = datagram(CLIENT, SERVER, 1200);
            let whole = [a, b].map(|tos| packet.clone().tos(tos).bytes());
            let first = part(&whole[0], (0, 600, true));
            send(s, Side::Lan, vec![first, part(&whole[1], (600, 608, false))]);
        }
        s.table();
    })
}

fn segment(len: usize) -> Packet {
    tcp(CLIENT, (S1, 80), "S", 1000, 0).payload(&vec![5; len])
}

fn tiny_first() -> Sequence {
    plain("fragments-tiny-first", "the TCP header is in two fragments", |s| {
        send(s, Side::Lan, cut(&segment(100), &[8]));
        send(s, Side::Lan, cut(&segment(100), &[8, 8]));
        send(s, Side::Lan, cut(&segment(100), &[16, 48]));
        send(s, Side::Lan, cut(&segment(100), &[24, 48]));
        s.table();
    })
}

fn tiny_first_translated() -> Sequence {
    let setup = only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence("fragments-tiny-first-nat", "the same, translated", setup, |s| {
        send(s, Side::Lan, cut(&segment(100), &[8]));
        send(s, Side::Lan, cut(&segment(100), &[16, 48]));
        send(s, Side::Lan, cut(&segment(100), &[24, 48]));
        s.table();
    })
}

/// A header and what follows in pieces of these lengths, and then the rest.
const SMALL: [&[usize]; 6] = [&[24], &[24, 8], &[24, 8, 8, 8], &[16, 8], &[8, 8, 8], &[8, 40]];

/// Packets that have their headers, or all they are, in several pieces.
fn in_small_pieces(s: &mut Script<'_>, client: IpAddr, server: IpAddr) {
    let (from, to) = ((client, 4000), (server, 80));
    let beat = chunk(4, 0, &[7; 40]);
    let kind = if client.is_ipv4() { 13 } else { 139 };
    let whole = tcp(from, to, "S", 1000, 0).bytes();
    let header = &whole[whole.len() - 20..];
    for lengths in [&[8][..], &[8, 8]] {
        let broken = other(client, server, TCP, &header[..12 + 4 * lengths.len()]);
        send(s, Side::Lan, cut(&broken, lengths));
        send(s, Side::Lan, cut(&broken.dont_fragment(), lengths));
    }
    for packet in [
        tcp(from, to, "S", 1000, 0).options(&syn_options(1460, 7)).payload(&[1; 25]),
        sctp(from, to, 7, &[beat]),
        icmp(client, server, kind, 0, [0, 7, 0, 1]).payload(&[0; 50]),
        other(client, server, GRE, &[0; 60]),
    ] {
        for lengths in SMALL {
            send(s, Side::Lan, cut(&packet, lengths));
            send(s, Side::Lan, cut(&packet.clone().dont_fragment(), lengths));
        }
    }
    s.table();
}

fn small_pieces() -> Sequence {
    let setup = both(&[("filter", OPEN)]);
    sequence("fragments-small", "headers and more in several pieces", setup, |s| {
        in_small_pieces(s, C1, S1);
        in_small_pieces(s, C1_6, S1_6);
    })
}

fn small_pieces_translated() -> Sequence {
    let setup = both(&[("filter", OPEN), ("nat", MASQUERADE)]);
    sequence("fragments-small-translated", "the same through NAT", setup, |s| {
        in_small_pieces(s, C1, S1);
        in_small_pieces(s, C1_6, S1_6);
    })
}

fn translated() -> Sequence {
    let setup = only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence("fragments-masquerade", "both directions are translated whole", setup, |s| {
        s.lan(udp(CLIENT, SERVER));
        let step = send(s, Side::Lan, cut(&datagram((C2, 4000), SERVER, 3000), &[800, 1480]));
        let outside = s.learn(step, HIGH, "port of C2");
        let mut back = cut(&datagram(SERVER, outside, 3000), &[1480, 800]);
        back.reverse();
        send(s, Side::Wan, back);
        send(s, Side::Wan, cut(&datagram(SERVER, (GATEWAY_WAN, 4000), 1600), &[800]));
        send(s, Side::Lan, cut(&echo(C1, S1, 77, 1).payload(&[4; 2000]), &[1000]));
        s.table();
    })
}

fn forwarded_port() -> Sequence {
    let rules = "-A PREROUTING -i wan -p udp --dport 5300 -j DNAT --to-destination 10.1.0.11:53\n";
    let setup = only4(&[("filter", NOT_INVALID), ("nat", rules)]);
    sequence("fragments-dnat", "a datagram to a forwarded port", setup, |s| {
        let (outside, ours) = ((S1, 4000), (GATEWAY_WAN, 5300));
        send(s, Side::Wan, cut(&datagram(outside, ours, 3000), &[1480, 1000]));
        send(s, Side::Lan, cut(&datagram((C1, 53), outside, 2000), &[1000]));
        s.table();
    })
}

fn rules() -> Sequence {
    let rules = "-A FORWARD -p udp --dport 54 -j DROP
-A FORWARD -f -j DROP
-A FORWARD -p udp --dport 55 -j REJECT
-A FORWARD -p udp -m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT
-A FORWARD -j DROP
";
    let no_f = rules.replace("-A FORWARD -f -j DROP\n", "");
    let rules6 = super::tables(&[("filter", &no_f)]);
    let setup = Setup { rules6, ..only4(&[("filter", rules)]) };
    sequence("fragments-rules", "rules see the datagram", setup, |s| {
        for port in [53, 54, 55] {
            send(s, Side::Lan, cut(&datagram(CLIENT, (S1, port), 2000), &[8, 1000]));
            send(s, Side::Lan, cut(&datagram(CLIENT_6, (S1_6, port), 2000), &[8, 1000]));
            s.table();
        }
    })
}

fn pings() -> Sequence {
    plain("fragments-ping", "long pings to the gateway are answered", |s| {
        let long = [7; 4000];
        send(s, Side::Lan, cut(&echo(C1, GATEWAY_LAN, 7, 1).payload(&long), &[1480, 1480]));
        send(s, Side::Lan, cut(&echo(C1, GATEWAY_LAN, 7, 2).payload(&[7; 200]), &[104]));
        send(s, Side::Lan, cut(&echo(C1_6, GATEWAY_LAN_6, 7, 1).payload(&long), &[1448, 1448]));
        send(s, Side::Lan, cut(&echo(C1_6, GATEWAY_LAN_6, 7, 2).payload(&[7; 200]), &[104]));
        s.table();
    })
}

fn too_large() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..both(&[("filter", OPEN)]) };
    sequence("fragments-made-here", "larger than the way out and no DF", setup, |s| {
        for len in [1272, 1273, 1274, 1280, 1472] {
            s.lan(datagram(CLIENT, SERVER, len));
        }
        s.lan(datagram(CLIENT, SERVER, 1400).dont_fragment());
        s.table();
    })
}

fn given_up() -> Sequence {
    let setup = Setup { settings: &[("ipfrag_time", 1)], ..stateful() };
    sequence("fragments-timeout", "who asked the gateway hears of it, no other", setup, |s| {
        let through = datagram((C1, 4012), SERVER, 1200);
        one_by_one(s, &through, &[(0, 400, true)]);
        s.wait_ms(2500);
        let to_us = datagram((C1, 4012), (GATEWAY_LAN, 53), 1200);
        one_by_one(s, &to_us, &[(0, 400, true), (800, 408, false)]);
        s.wait_ms(2500);
        one_by_one(s, &to_us, &[(400, 400, true), (800, 408, false)]);
        s.wait_ms(2500);
        // What comes now begins anew.
        one_by_one(s, &through, &[(400, 808, false), (0, 400, true)]);
        s.table();
    })
}

fn given_up_6() -> Sequence {
    let setup = Setup { settings: &[("frag6_timeout", 1)], ..stateful() };
    sequence("ipv6-fragments-timeout", "whoever sent the first hears of it", setup, |s| {
        let through = datagram((C1_6, 4012), SERVER_6, 1200);
        one_by_one(s, &through, &[(0, 400, true)]);
        s.wait_ms(2500);
        let to_us = datagram((C1_6, 4012), (GATEWAY_LAN_6, 53), 1200);
        one_by_one(s, &to_us, &[(0, 400, true), (800, 408, false)]);
        s.wait_ms(2500);
        one_by_one(s, &to_us, &[(400, 400, true), (800, 408, false)]);
        s.wait_ms(2500);
        one_by_one(s, &through, &[(400, 808, false), (0, 400, true)]);
        s.table();
    })
}

fn distance() -> Sequence {
    let setup = Setup { settings: &[("ipfrag_max_dist", 3)], ..stateful() };
    sequence("fragments-distance", "too many others of the source in between", setup, |s| {
        let packet = datagram((C1, 4009), SERVER, 1200);
        for between in [2, 3, 4] {
            one_by_one(s, &packet, &[(0, 400, true)]);
            for port in 0..between {
                // Of another protocol number, so a datagram of its own each time.
                let other = crate::packets::other(C1, S1, 200 + between * 8 + port, &[1; 64]);
                one_by_one(s, &other, &[(0, 32, true)]);
            }
            one_by_one(s, &packet, &[(400, 808, false)]);
            one_by_one(s, &packet, &[(0, 400, true)]);
        }
    })
}

fn other_port() -> Sequence {
    plain("fragments-of-two-ports", "who puts together looks at the port or not", |s| {
        for (from, to) in [((C1, 4003), SERVER), ((C1_6, 4003), SERVER_6)] {
            let whole = datagram(from, to, 1200).bytes();
            send(s, Side::Wan, vec![part(&whole, (0, 400, true))]);
            send(s, Side::Lan, vec![part(&whole, (400, 808, false))]);
            send(s, Side::Lan, vec![part(&whole, (0, 400, true))]);
        }
    })
}

fn plain_6() -> Sequence {
    plain("ipv6-fragments", "pieces of unequal length leave as they came", |s| {
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 2700), &[1000, 1448]));
        s.table();
        send(s, Side::Wan, cut(&datagram(SERVER_6, CLIENT_6, 3000), &[1448, 1448]));
        send(s, Side::Lan, cut(&echo(C1_6, S1_6, 7, 7).payload(&[1; 2000]), &[8, 1000]));
        s.table();
    })
}

fn reversed_6() -> Sequence {
    plain("ipv6-fragments-reversed", "the last comes first", |s| {
        let mut parts = cut(&datagram(CLIENT_6, SERVER_6, 2700), &[1000, 1448]);
        parts.reverse();
        send(s, Side::Lan, parts);
        s.table();
    })
}

fn overlaps_6() -> Sequence {
    plain("ipv6-fragments-overlap", "an overlap drops the queue, a duplicate itself", |s| {
        let packet = datagram((C1_6, 4011), SERVER_6, 1200);
        for second in [(392, 408, true), (0, 408, true), (200, 1008, false), (0, 400, true)] {
            one_by_one(s, &packet, &[(0, 400, true), second]);
            one_by_one(s, &packet, &[(400, 400, true), (800, 408, false)]);
            one_by_one(s, &packet, &[(0, 400, true)]);
            one_by_one(s, &packet, &[(400, 808, false)]);
        }
        s.table();
    })
}

fn ends_6() -> Sequence {
    plain("ipv6-fragments-ends", "what contradicts the end is dropped alone", |s| {
        let packet = datagram((C1_6, 4004), SERVER_6, 1200);
        one_by_one(s, &packet, &[(0, 400, true), (800, 408, false), (800, 400, false)]);
        one_by_one(s, &packet, &[(1208, 8, true), (400, 0, true), (65528, 100, true)]);
        one_by_one(s, &packet, &[(400, 400, true)]);
        s.table();
    })
}

fn lengths_6() -> Sequence {
    let refusing = format!("-A FORWARD -s {C4_6} -j REJECT\n{OPEN}");
    let rules6 = super::tables(&[("filter", &refusing)]);
    let setup = Setup { rules6, ..both(&[("filter", OPEN)]) };
    sequence("ipv6-fragments-lengths", "a length that is no multiple of eight", setup, |s| {
        let packet = datagram((C1_6, 4005), SERVER_6, 1200);
        one_by_one(s, &packet, &[(0, 400, true), (400, 405, true), (800, 408, false)]);
        one_by_one(s, &packet, &[(0, 400, true), (400, 400, true)]);
        s.table();
        // REJECT does not answer one without a header.
        let tunnel = other(C4_6, S2_6, GRE, &[0; 64]);
        one_by_one(s, &tunnel, &[(16, 5, true), (0, 21, true)]);
        // A first one is of a conn, whoever puts its datagram together.
        let tunnel = other(C2_6, S2_6, GRE, &[0; 64]);
        s.lan(tunnel.clone());
        for id in 0x7000..0x7008 {
            send(s, Side::Lan, vec![identified_part(&tunnel.bytes(), id, (0, 21, true))]);
        }
        s.table();
    })
}

fn atomic_6() -> Sequence {
    plain("ipv6-fragments-atomic", "a fragment that is all of it loses its header", |s| {
        let packet = datagram(CLIENT_6, SERVER_6, 100);
        one_by_one(s, &packet, &[(0, 108, false)]);
        s.table();
        // One of the same id gets into a queue's way.
        one_by_one(s, &packet, &[(0, 56, true), (0, 108, false), (0, 56, true), (56, 52, false)]);
        // Nothing is a packet of a conn where no header has to follow; the rest comes too late.
        for (client, server) in [(C2_6, S2_6), (C2_6, S3_6), (C3_6, S3_6)] {
            let nothing = other(client, server, 253, &[]);
            one_by_one(s, &nothing, &[(0, 0, false), (0, 0, true), (8, 8, false), (0, 0, false)]);
        }
        one_by_one(s, &datagram((C2_6, 4000), SERVER_6, 100), &[(0, 0, false), (0, 0, true)]);
        // A protocol that the gateway does not speak, named by the fragment header, by options and
        // by a header alone.
        let to_us = other(C2_6, GATEWAY_LAN_6, 253, b"anything");
        one_by_one(s, &other(C2_6, GATEWAY_LAN_6, 253, &[]), &[(0, 0, false)]);
        let mut options = to_us.bytes();
        let next = std::mem::replace(&mut options[6], 60);
        options.splice(40..40, [next, 0, 1, 4, 0, 0, 0, 0]);
        options[5] += 8;
        send(s, Side::Lan, vec![options]);
        s.lan(to_us);
        s.table();
    })
}

/// Destination options, and a routing header of an unknown type with no segments left.
fn extensions_6() -> Sequence {
    plain("ipv6-fragments-extensions", "headers before the fragment header", |s| {
        let whole = datagram(CLIENT_6, SERVER_6, 2000).bytes();
        let parts = [(0, 1000, true), (1000, 1008, false)].map(|(offset, len, more)| {
            let mut bytes = whole[..40].to_vec();
            let next = std::mem::replace(&mut bytes[6], 60);
            bytes.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
            fragment_header(&mut bytes, next, IDENTIFICATION, (offset, more));
            finish6(bytes, &whole[40 + offset..40 + offset + len])
        });
        send(s, Side::Lan, parts.to_vec());
        s.table();
    })
}

fn tiny_first_6() -> Sequence {
    let setup = both(&[("filter", OPEN)]);
    sequence("ipv6-fragments-tiny-first", "the TCP header is in two fragments", setup, |s| {
        for (port, first) in [(4006, 8), (4007, 16), (4008, 24)] {
            let segment = tcp((C1_6, port), (S1_6, 80), "S", 1000, 0).payload(&[5; 100]);
            send(s, Side::Lan, cut(&segment, &[first, 48]));
        }
        s.table();
    })
}

fn too_large_6() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..stateful() };
    sequence("ipv6-fragments-too-large", "larger than the way out: too big", setup, |s| {
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 3000), &[1448, 1448]));
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 3000), &[1200, 1200]));
        s.table();
    })
}

fn small_6() -> Sequence {
    plain("ipv6-fragments-small", "what is shorter than its largest part was leaves whole", |s| {
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 8), &[8]));
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 9), &[8]));
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 100), &[8]));
        send(s, Side::Lan, cut(&datagram(CLIENT_6, SERVER_6, 100), &[48]));
        s.table();
    })
}
