//! Nonsense, floods and want: nothing panics, nothing is lost without a reason.

use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::ToLcore;
use dataplane::rules::hook::Table::{Filter, Mangle, Nat, Raw};
use dataplane::rules::matches::StateMask;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::checksum;
use dataplane::wire::headers;
use dataplane::wire::tcp::flags::{ACK, SYN};
use proptest::prelude::*;

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const SERVER: &str = "198.51.100.7:80";

/// A gateway with something to do in every table.
fn busy() -> Rig {
    let mut rig = Setup { max: 64, burst_max: 64, ..Setup::default() }
        .knob("acct", 1)
        .knob("timestamp", 1)
        .both(Raw, "PREROUTING", on(dataplane::rules::targets::Target::Notrack).proto(50))
        .both(Mangle, "PREROUTING", count().state(StateMask::INVALID))
        .both(Filter, "FORWARD", log("x").state(StateMask::INVALID))
        .both(Filter, "FORWARD", reset().dport(23))
        .both(Filter, "FORWARD", reject(3).proto(17).dport(99))
        .both(Nat, "PREROUTING", redirect(None).proto(17).dport(53))
        .rule(
            V4,
            Nat,
            "PREROUTING",
            dnat("192.168.1.2", Some(8080)).proto(6).dport(80).in_port("wan"),
        )
        .both(Nat, "POSTROUTING", masquerade())
        .start();
    rig.strict = false;
    rig.listen();
    rig
}

/// Valid frames of many kinds, as seeds.
fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (client, server, us) in [
        (CLIENT, SERVER, "192.168.1.1:53"),
        ("[2001:db8:1::2]:4000", "[2001:db8:ffff::7]:80", "[2001:db8:1::1]:53"),
    ] {
        let (c, s, u) = (at(client).ip(), at(server).ip(), at(us).ip());
        let v6 = c.is_ipv6();
        let quote = udp(server, client).to_vec();
        let ping = if v6 { 128 } else { 8 };
        let error = if v6 { 1 } else { 3 };
        let packets = [
            udp(client, server).payload(&[1; 100]),
            udp(client, us),
            udp(client, &server.replace(":80", ":99")),
            tcp(client, server, SYN, 1, 0).options(&[2, 4, 5, 0xb4, 3, 3, 7, 0]),
            tcp(client, &server.replace(":80", ":81"), ACK, 2, 2).payload(&[3; 60]),
            tcp(client, &server.replace(":80", ":23"), SYN, 1, 0),
            tcp(client, us, SYN, 1, 0),
            Packet::icmp(c, s, ping, 0, 7 << 16),
            Packet::icmp(c, u, ping, 0, 7 << 16).payload(&[5; 64]),
            Packet::icmp(c, s, error, 1, 0).payload(&quote[14..]),
            Packet::icmp(c, u, if v6 { 135 } else { 13 }, 0, 0).payload(&[0; 24]).ttl(255),
            Packet::raw(c, s, 50).payload(&[9; 40]),
            Packet::raw(c, s, 47).payload(&[0x30, 1, 0x88, 0x0b, 0, 4, 0, 9]),
            udp(client, server).fragment(0, true),
            udp(client, server).tag(0),
            if v6 {
                udp(client, server).extension(0, &[5, 2, 0, 0, 1, 0])
            } else {
                udp(client, server).ip_options(&[148, 4, 0, 0])
            },
        ];
        all.extend(packets.iter().map(|p| framed(LAN, p)));
    }
    let mut arp = [0; 64];
    let (a, b) = (address("192.168.1.77"), address("192.168.1.1"));
    let n = dataplane::wire::build::neighbour::arp_request(&mut arp, CLIENT_MAC, a, b, None, None);
    all.push(arp[..n.unwrap()].to_vec());
    all
}

/// Writes right checksums, so that what was mutated gets further.
fn mend(frame: &mut [u8]) {
    if frame.len() >= 34 && frame[12..14] == [8, 0] {
        let len = ((frame[14] & 15) as usize * 4).min(frame.len() - 14);
        frame[24..26].fill(0);
        let sum = checksum::internet(&frame[14..14 + len]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(h) = headers::parse(frame, frame.len()) else { return };
    let field = match h.proto {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return,
    };
    let (start, end) = (h.l4 as usize, h.end as usize);
    if h.fragment.is_fragment() || end > frame.len() || start + field + 2 > end {
        return;
    }
    frame[start + field..start + field + 2].fill(0);
    let sum = checksum::finish(h.pseudo() + checksum::sum(&frame[start..end]));
    frame[start + field..start + field + 2].copy_from_slice(&sum.to_be_bytes());
}

#[derive(Clone, Debug)]
enum Input {
    Bytes(Vec<u8>),
    /// Which seed, which bytes become what, a length, whether checksums are mended, cuts.
    Mutated(usize, Vec<(usize, u8)>, Option<usize>, bool, Vec<usize>),
}

fn input() -> impl Strategy<Value = Input> {
    let seeds = seeds().len();
    let edits = proptest::collection::vec((0..120usize, any::<u8>()), 0..4);
    let cuts = proptest::collection::vec(0..120usize, 0..3);
    let mutated =
        (0..seeds, edits, proptest::option::weighted(0.2, 0..160usize), any::<bool>(), cuts)
            .prop_map(|(seed, edits, len, mended, cuts)| {
                Input::Mutated(seed, edits, len, mended, cuts)
            });
    prop_oneof![
        1 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Input::Bytes),
        6 => mutated,
    ]
}

fn frame_of(input: &Input, seeds: &[Vec<u8>]) -> MemoryFrame {
    match input {
        Input::Bytes(bytes) => {
            // Half of them at least reach the IP parser.
            let mut bytes = bytes.clone();
            if bytes.len() > 14 && bytes[0] & 1 == 0 {
                bytes[..6].copy_from_slice(&LAN_MAC.0);
                let kind = if bytes[6] & 1 == 0 { [8, 0] } else { [0x86, 0xdd] };
                bytes[12..14].copy_from_slice(&kind);
            }
            MemoryFrame::new(bytes)
        }
        Input::Mutated(seed, edits, len, mended, cuts) => {
            let mut bytes = seeds[*seed].clone();
            for (at, value) in edits {
                if let Some(byte) = bytes.get_mut(*at) {
                    *byte = *value;
                }
            }
            if let Some(len) = len {
                bytes.resize(*len, 0x5a);
            }
            if *mended {
                mend(&mut bytes);
            }
            MemoryFrame::chain(&bytes, cuts)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn whatever_arrives_has_one_end(
        bursts in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(input(), 1..65), 0..4000u32),
            1..4,
        ),
        allocations in proptest::option::weighted(0.2, 0..6usize),
        transmissions in proptest::option::weighted(0.2, 0..20usize),
    ) {
        let seeds = seeds();
        let mut rig = busy();
        rig.worker.io().allocations_left = allocations;
        rig.worker.io().transmissions_left = transmissions;
        for (lan, inputs, ticks) in &bursts {
            let port = if *lan { LAN } else { WAN };
            for input in inputs {
                rig.push(port, frame_of(input, &seeds));
            }
            rig.poll();
            rig.check();
            rig.wait_ticks(*ticks);
            rig.timers();
            rig.sweep();
            rig.check();
        }
        rig.told.clear();
    }
}

#[test]
fn the_seeds_themselves_reach_everything() {
    let mut rig = busy();
    for seed in seeds() {
        rig.send_bytes(LAN, seed);
    }
    assert_eq!(rig.counters.conntrack.invalid.get(), 0, "mended and whole");
    assert!(rig.list().len() > 12);
}

#[test]
fn an_empty_pool_costs_answers_and_nothing_else() {
    let mut rig = Setup::default().start();
    rig.worker.io().allocations_left = Some(1);
    rig.answered(LAN, udp(CLIENT, SERVER).ttl(1), DropReason::TtlExceeded);
    for _ in 0..3 {
        rig.dropped(LAN, udp(CLIENT, SERVER).ttl(1), DropReason::TtlExceeded);
    }
    assert!(rig.send(LAN, tcp(CLIENT, "192.168.1.1:22", SYN, 1, 0)).is_empty());
    // No question for a next hop; the frame waits all the same, and the timer asks again.
    assert!(rig.send(LAN, udp(CLIENT, "192.168.1.50:7")).is_empty());
    assert_eq!(rig.drop_count(DropReason::NoMbuf), 5);
    assert_eq!(rig.counters.held.get(), 1);
    rig.worker.io().allocations_left = None;
    assert_eq!(rig.live(1).len(), 1);
    // Forwarding and echo need no buffer.
    rig.worker.io().allocations_left = Some(0);
    rig.pass(LAN, udp(CLIENT, SERVER));
    rig.pass(LAN, Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 1));
}

#[test]
fn a_full_transmit_queue_drops_what_it_does_not_take() {
    let mut rig = Setup { burst_max: 64, ..Setup::default() }.start();
    rig.worker.io().transmissions_left = Some(10);
    let packets: Vec<_> = (0..30).map(|_| udp(CLIENT, SERVER)).collect();
    assert_eq!(rig.send_all(LAN, &packets).len(), 10);
    assert_eq!(rig.drop_count(DropReason::TxFull), 20);
    let sent = &rig.counters.ports[1];
    assert_eq!((sent.tx_packets.get(), sent.tx_bytes.get()), (10, 10 * 47));
    rig.worker.io().transmissions_left = None;
    rig.pass(LAN, udp(CLIENT, SERVER));
}

#[test]
fn a_flood_of_answers_and_released_frames_fits_the_output() {
    // A whole burst to be answered, 101 frames released, and the budget of errors.
    let mut rig = Setup { burst_max: 64, ..Setup::default() }.start();
    for n in 0..101u8 {
        rig.send(LAN, udp(CLIENT, "192.168.1.50:7").payload(&[n]));
    }
    let ping = framed(LAN, &Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 1));
    for _ in 0..62 {
        rig.push(LAN, MemoryFrame::new(ping.clone()));
    }
    let link = dataplane::wire::build::Link { dst: LAN_MAC, src: CLIENT2_MAC, tci: None };
    let mut arp = [0; 64];
    let from = (LAN_MAC, address("192.168.1.1"));
    let sender = address("192.168.1.50");
    let n = dataplane::wire::build::neighbour::arp_reply(&mut arp, &link, sender, from).unwrap();
    rig.push(LAN, MemoryFrame::new(&arp[..n]));
    let sent = rig.poll();
    assert_eq!(sent.len(), 101 + 62, "{:?}", rig.drops());
    // Errors are limited to 50 at once and 1000 a second.
    let late: Vec<_> = (0..64).map(|_| udp(CLIENT, SERVER).ttl(1)).collect();
    rig.wait(1);
    assert_eq!(rig.send_all(LAN, &late).len(), 50);
    assert_eq!(rig.send_all(LAN, &late).len(), 0);
    rig.wait_ticks(1);
    assert_eq!(rig.send_all(LAN, &late).len(), 10);
    assert_eq!(rig.drop_count(DropReason::TtlExceeded), 192);
}

#[test]
fn messages_about_nothing_do_nothing() {
    let mut rig = Setup::default().start();
    let frame = [2u8; 60].iter().copied().collect();
    rig.strict = false;
    rig.ask(ToLcore::Transmit(WAN, frame));
    assert_eq!(rig.poll().len(), 1);
    rig.ask(ToLcore::Expire(Box::default()));
    rig.ask(ToLcore::Delete(0, None, Box::default()));
    rig.ask(ToLcore::Fold);
}
