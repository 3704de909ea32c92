//! SCTP, DCCP, GRE and UDP-Lite through the gateway; DCCP as Linux tracked it while it did.

use dataplane::conntrack::invalid::InvalidReason;
use dataplane::conntrack::state::Status;
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::Nat;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::checksum;
use dataplane::wire::crc32c::Crc32c;

use super::rig::*;
use super::rules::*;

const CLIENT: &str = "192.168.1.2";
const SERVER: &str = "198.51.100.7";
const OUTSIDE: &str = "203.0.113.1";

/// An SCTP packet from port 4000 to port 80: a tag, and chunks of a type each, INITs with the tag
/// they tell, DATA with as many bytes.
pub(super) fn sctp(tag: u32, chunks: &[(u8, u32)]) -> Vec<u8> {
    let mut bytes = vec![0x0f, 0xa0, 0, 80];
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    for &(kind, value) in chunks {
        let body = match kind {
            0 => vec![0xaa; value as usize],
            1 | 2 => [&value.to_be_bytes()[..], &[0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 1]].concat(),
            _ => Vec::new(),
        };
        bytes.extend([kind, 0]);
        bytes.extend((4 + body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    bytes[8..12].fill(0);
    let mut crc = Crc32c::default();
    crc.add(bytes);
    bytes[8..12].copy_from_slice(&crc.finish().to_le_bytes());
}

fn crc_is_right(bytes: &[u8]) -> bool {
    let mut again = bytes.to_vec();
    seal(&mut again);
    again == bytes
}

/// The same between client and server; from the server the ports are turned round, which a sum
/// over all notices and a wrong one survives.
pub(super) fn sctp_packet(port: PortId, bytes: &[u8]) -> Packet<'static> {
    let mut bytes = bytes.to_vec();
    let (src, dst) = if port == LAN { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    if port != LAN {
        bytes[..4].copy_from_slice(&[0, 80, 0x0f, 0xa0]);
        seal(&mut bytes);
    }
    Packet::raw(ip(src), ip(dst), 132).payload(bytes.leak())
}

#[test]
fn sctp_across_segments() {
    let data = (0, 900);
    let packets = [
        (LAN, sctp(0, &[(1, 7)])),
        (WAN, sctp(7, &[(2, 9)])),
        (LAN, sctp(9, &[(10, 0), data])),
        (WAN, sctp(7, &[(11, 0), data])),
        (LAN, sctp(9, &[data, (7, 0)])),
    ];
    for cuts in [&[][..], &[46], &[46, 3, 1], &[60, 17, 800], &[700]] {
        let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
        for (port, bytes) in &packets {
            let packet = sctp_packet(*port, bytes);
            let mut frame = framed(*port, &packet);
            if *port == WAN {
                // To the address that the conn was given.
                frame =
                    framed(WAN, &Packet::raw(ip(SERVER), ip(OUTSIDE), 132).payload(&frame[34..]));
            }
            rig.push(*port, MemoryFrame::chain(&frame, cuts));
            let sent = rig.poll();
            assert_eq!(sent.len(), 1, "{cuts:?} {}", bytes.len());
            assert!(crc_is_right(&sent[0].bytes[34..]), "{cuts:?} {}", bytes.len());
        }
        assert_eq!(rig.conn().state, Some("SHUTDOWN_SENT"), "the chunk behind the data, {cuts:?}");
        assert_eq!(rig.counters.conntrack.invalid.get(), 0);
    }
}

#[test]
fn a_wrong_crc_stays_wrong_in_translation() {
    let setup = Setup::default().both(Nat, "POSTROUTING", masquerade()).knob("checksum", 0);
    let mut rig = setup.start();
    let mut bytes = sctp(0, &[(1, 7)]);
    bytes[8] ^= 1;
    let sent = rig.pass(LAN, sctp_packet(LAN, &bytes));
    assert!(!crc_is_right(&sent.bytes[34..]));
}

#[test]
fn gre_that_cannot_be_translated_is_dropped() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    let to = |bytes: &'static [u8]| Packet::raw(ip(CLIENT), ip(SERVER), 47).payload(bytes);
    let back = |bytes: &'static [u8]| Packet::raw(ip(SERVER), ip(OUTSIDE), 47).payload(bytes);
    rig.dropped(LAN, to(b"\x00\x00\x08\x00"), DropReason::NatDrop);
    assert_eq!(rig.list().len(), 0, "and leaves no conn");
    for _ in 0..3 {
        rig.pass(LAN, to(b"\x00\x00\x08\x00more"));
        rig.pass(WAN, back(b"\x00\x00\x08\x00more"));
        rig.pass(LAN, to(b"\x00\x02\x08\x00more"));
        rig.dropped(WAN, back(b"\x00\x02\x08\x00more"), DropReason::NatDrop);
        rig.dropped(WAN, back(b"\x00\x00\x08\x00"), DropReason::NatDrop);
    }
    assert!(rig.fast() > 0, "on the short way too");
}

/// A DCCP packet of a type, with 48 bits of sequence and acknowledgement numbers.
pub(super) fn dccp(
    src: (&str, u16),
    dst: (&str, u16),
    kind: u8,
    seq: u64,
    ack: u64,
) -> Packet<'static> {
    let mut bytes = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    bytes.extend([6, 0, 0, 0, kind << 1 | 1, 0]);
    bytes.extend(&seq.to_be_bytes()[2..]);
    bytes.extend([0, 0]);
    bytes.extend(&ack.to_be_bytes()[2..]);
    let (src, dst) = (ip(src.0), ip(dst.0));
    let seed = checksum::pseudo(src.into(), dst.into(), 33, bytes.len() as u32);
    let mut sum = checksum::Accumulator::new(seed);
    sum.add(&bytes);
    bytes[6..8].copy_from_slice(&sum.finish().to_be_bytes());
    Packet::raw(src, dst, 33).payload(bytes.leak())
}

const REQUEST: u8 = 0;
const RESPONSE: u8 = 1;
const DATA: u8 = 2;
const ACK: u8 = 3;
const CLOSE_REQ: u8 = 5;
const CLOSE: u8 = 6;
const RESET: u8 = 7;
const SYNC: u8 = 8;

/// State, seconds left and whether it is ASSURED, of the only conn.
fn state(rig: &mut Rig) -> (&'static str, u32, bool) {
    let conn = rig.conn();
    (conn.state.unwrap_or(""), conn.remaining_secs, conn.status.has(Status::ASSURED))
}

fn sum_is_right(sent: &Sent) -> bool {
    let h = sent.headers();
    h.l4_check_ok(&sent.bytes)
}

fn count_of(rig: &Rig, reason: InvalidReason) -> u64 {
    rig.counters.invalid[reason as usize].get()
}

#[test]
fn a_dccp_connection_translated() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    let (client, server, outside) = ((CLIENT, 4000), (SERVER, 80), (OUTSIDE, 4000));
    let mut go = |port, kind, seq, ack, expected: (&'static str, u32, bool)| {
        let packet = match port {
            LAN => dccp(client, server, kind, seq, ack),
            _ => dccp(server, outside, kind, seq, ack),
        };
        let sent = rig.pass(port, packet);
        assert!(sum_is_right(&sent));
        assert_eq!(state(&mut rig), expected);
        sent.flow()
    };
    let flow = go(LAN, REQUEST, 1, 0, ("REQUEST", 240, false));
    assert!(flow.contains("203.0.113.1"), "{flow}");
    go(WAN, RESPONSE, 1 << 40 | 5, 1, ("RESPOND", 480, false));
    go(LAN, ACK, 2, 1 << 40 | 5, ("PARTOPEN", 480, true));
    for n in 0..3 {
        go(WAN, DATA, 6 + n, 0, ("OPEN", 43_200, true));
        go(LAN, DATA, 3 + n, 0, ("OPEN", 43_200, true));
        // Passed over: nothing changes.
        go(LAN, SYNC, 90, 0, ("OPEN", 43_200, true));
    }
    go(WAN, CLOSE_REQ, 20, 0, ("CLOSEREQ", 64, true));
    go(LAN, CLOSE, 21, 0, ("CLOSING", 64, true));
    go(WAN, RESET, 22, 0, ("TIMEWAIT", 240, true));
    assert!(rig.fast() > 0);
    let listed = rig.conn();
    assert_eq!((listed.original.src_id, listed.reply.dst_id), (4000, 4000));
}

#[test]
fn dccp_over_ipv6_and_what_is_invalid() {
    let mut rig = Setup::default().knob("dccp_timeout_request", 99).start();
    let (client, server) = (("2001:db8:1::2", 4000), ("2001:db8:ffff::7", 80));
    rig.pass(LAN, dccp(client, server, DATA, 1, 0));
    assert_eq!(count_of(&rig, InvalidReason::DccpNew), 1);
    rig.pass(LAN, dccp(client, server, REQUEST, 1, 0));
    assert_eq!(state(&mut rig), ("REQUEST", 99, false));
    rig.pass(LAN, dccp(client, server, ACK, 1, 0));
    assert_eq!(count_of(&rig, InvalidReason::DccpState), 1);
    rig.strict = false;
    let good = framed(LAN, &dccp(client, server, REQUEST, 1, 0));
    let mut send = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[54 + at] = byte;
        rig.send_bytes(LAN, bad);
    };
    send(8, 11 << 1);
    send(4, 2);
    send(4, 200);
    send(5, 9);
    send(9, 1);
    for (reason, times) in [
        (InvalidReason::DccpType, 1),
        (InvalidReason::DccpLength, 2),
        (InvalidReason::DccpCoverage, 1),
        (InvalidReason::DccpChecksum, 1),
    ] {
        assert_eq!(count_of(&rig, reason), times, "{reason:?}");
    }
    // A Reset that is the first answer ends the conn.
    rig.pass(WAN, dccp(server, client, RESET, 1, 1));
    assert_eq!(rig.list().len(), 0);
}

#[test]
fn dccp_timeouts_hold_from_the_next_packet_on() {
    let (client, server) = ((CLIENT, 4000), (SERVER, 80));
    let first = 1 << 40 | 5;
    // What brings a conn into the state of a key, one packet after the other.
    let steps = [
        ("request", LAN, REQUEST, 1, 0),
        ("respond", WAN, RESPONSE, first, 1),
        ("partopen", LAN, ACK, 2, first),
        ("open", WAN, DATA, first + 1, 0),
        ("closereq", WAN, CLOSE_REQ, first + 2, 0),
        ("closing", LAN, CLOSE, 21, 0),
        ("timewait", WAN, RESET, first + 3, 0),
    ];
    for (at, (name, ..)) in steps.iter().enumerate() {
        let key = format!("dccp_timeout_{name}");
        let mut rig = Setup::default().knob(&key, 99).start();
        let pass = |rig: &mut Rig, (_, port, kind, seq, ack): (&str, _, u8, u64, u64)| {
            let (from, to) = if port == LAN { (client, server) } else { (server, client) };
            rig.pass(port, dccp(from, to, kind, seq, ack));
        };
        steps[..=at].iter().for_each(|step| pass(&mut rig, *step));
        assert_eq!(rig.conn().remaining_secs, 99, "{key}");
        rig.setup.knobs.set(&key, 222).unwrap();
        rig.publish();
        assert_eq!(rig.conn().remaining_secs, 99, "{key}: no timer moves");
        pass(&mut rig, steps[at]);
        // A repeated Close is ignored.
        let expected = if *name == "closing" { 99 } else { 222 };
        assert_eq!(rig.conn().remaining_secs, expected, "{key}: the next packet");
        rig.wait(99);
        steps[..=at].iter().for_each(|step| pass(&mut rig, *step));
        assert_eq!(rig.conn().remaining_secs, 222, "{key}: a new conn");
    }
}

#[test]
fn a_dccp_conn_is_picked_up_while_that_is_on() {
    let (client, server) = ((CLIENT, 4000), (SERVER, 80));
    let mut rig = Setup::default().knob("dccp_loose", 0).start();
    for (loose, refused) in [(0, 1), (1, 1), (0, 2)] {
        rig.setup.knobs.set("dccp_loose", loose).unwrap();
        rig.publish();
        // Ignored, the conn has no time: what is picked up ends with its packet.
        rig.pass(LAN, dccp(client, server, SYNC, 1, 0));
        assert_eq!(count_of(&rig, InvalidReason::DccpPickup), refused, "with {loose}");
    }
}

#[test]
fn dccp_that_was_not_seen_to_begin() {
    let (client, server) = ((CLIENT, 4000), (SERVER, 80));
    for (loose, reason) in [(1, InvalidReason::DccpNew), (0, InvalidReason::DccpPickup)] {
        let mut rig = Setup::default().knob("dccp_loose", loose).start();
        rig.pass(LAN, dccp(client, server, SYNC, 1, 0));
        assert_eq!(count_of(&rig, reason), 1 - loose);
        assert_eq!(rig.counters.conntrack.invalid.get(), 1 - loose);
    }
}

#[test]
fn an_error_about_dccp_is_related_and_translated() {
    let mut rig = Setup::default().both(Nat, "POSTROUTING", masquerade()).start();
    let sent = rig.pass(LAN, dccp((CLIENT, 4000), (SERVER, 80), REQUEST, 1, 0));
    let quote = sent.bytes[14..].to_vec();
    let error = Packet::icmp(ip("198.51.100.1"), ip(OUTSIDE), 3, 3, 0).payload(&quote);
    let back = rig.pass(WAN, error);
    assert!(back.quote().contains("192.168.1.2"), "{}", back.quote());
    assert_eq!(rig.counters.conntrack.error.get(), 0);
}

#[test]
fn udplite_is_assured_by_the_packet_after_an_answer() {
    let mut rig = Setup::default().knob("checksum", 0).start();
    rig.strict = false;
    let to =
        Packet::raw(ip(CLIENT), ip(SERVER), 136).payload(b"\x0f\xa0\x00\x50\x00\x08\x12\x34data");
    let back =
        Packet::raw(ip(SERVER), ip(CLIENT), 136).payload(b"\x00\x50\x0f\xa0\x00\x00\x12\x34data");
    rig.pass(LAN, to);
    rig.pass(WAN, back);
    assert_eq!(state(&mut rig), ("", 30, false));
    rig.pass(LAN, to);
    assert_eq!(state(&mut rig), ("", 120, true));
    let none =
        Packet::raw(ip(CLIENT), ip(SERVER), 136).payload(b"\x0f\xa1\x00\x50\x00\x08\x00\x00data");
    rig.pass(LAN, none);
    assert_eq!(count_of(&rig, InvalidReason::UdpliteNoChecksum), 1);
    assert_eq!(rig.list().len(), 1);
}
