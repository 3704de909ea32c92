//! Devices that have other numbers of queues than there are workers.

use dataplane::wire::build::packet::Packet;

use crate::rig::{Gateway, MASQUERADE, Numbers, Setup, Side};

/// 200 conns of both families there and back; which transmit queues of the wan they left by.
fn there_and_back(gateway: &mut Gateway, seed: u64) -> Vec<u16> {
    let mut numbers = Numbers(seed);
    let mut used = Vec::new();
    for n in 0..200 {
        let (client, server) = numbers.ends(n % 2 == 0);
        let (_, sent) = gateway.forward(Side::Lan, &Packet::udp(client, server).payload(b"ask"));
        used.push(sent.queue);
        let lent = sent.src();
        for _ in 0..2 {
            let answer = Packet::udp(server, lent).payload(b"answer");
            let (_, sent) = gateway.forward(Side::Wan, &answer);
            assert_eq!((sent.src(), sent.dst()), (server, client));
            let (_, sent) =
                gateway.forward(Side::Lan, &Packet::udp(client, server).payload(b"ask"));
            assert_eq!(sent.src(), lent);
        }
    }
    assert_eq!(gateway.drops(), []);
    used.sort_unstable();
    used.dedup();
    used
}

#[test]
fn whoever_has_no_transmit_queue_sends_through_one_that_has() {
    for (tx, queues) in [("tx_queues = 1", vec![0]), ("tx_queues = 2", vec![0, 1])] {
        let setup = Setup { workers: 4, lan: tx, wan: tx, v4: MASQUERADE, ..Setup::default() };
        let mut gateway = Gateway::new(setup);
        assert_eq!(there_and_back(&mut gateway, 0x70), queues);
        assert!(gateway.handed_over() > 500, "{}", gateway.handed_over());
    }
}

#[test]
fn more_receive_queues_than_workers_go_round() {
    let rx = "rx_queues = 8";
    let mut gateway = Gateway::new(Setup { workers: 4, lan: rx, wan: rx, ..Setup::default() });
    assert_eq!(gateway.ports.layout.queues[0].rx, 8);
    assert_eq!(there_and_back(&mut gateway, 0x78), [0, 1, 2, 3]);
    assert_eq!(gateway.handed_over(), 0, "queue 5 is the second worker's on both ports");
}

#[test]
fn one_receive_queue_feeds_all_workers() {
    let rx = "rx_queues = 1";
    let setup = Setup { workers: 4, lan: rx, wan: rx, v4: MASQUERADE, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    // By the queue of the conn's owner: every worker owns some.
    assert_eq!(there_and_back(&mut gateway, 0x71), [0, 1, 2, 3]);
    assert!(gateway.handed_over() > 500, "{}", gateway.handed_over());
}

#[test]
fn ports_need_not_be_alike() {
    let setup = Setup {
        workers: 3,
        lan: "rx_queues = 3\ntx_queues = 1",
        wan: "rx_queues = 2\ntx_queues = 4",
        v4: MASQUERADE,
        v6: MASQUERADE,
    };
    let mut gateway = Gateway::new(setup);
    assert_eq!(there_and_back(&mut gateway, 0x31), [0, 1, 2]);
}

#[test]
fn a_port_that_takes_nothing_drops_and_others_go_on() {
    let mut gateway = Gateway::new(Setup { workers: 2, ..Setup::default() });
    let mut numbers = Numbers(0x0ff);
    // The ring behind a queue of the far end holds 1024 frames.
    let (client, server) = numbers.ends(true);
    let out = Packet::udp(client, server).payload(b"one of many");
    let back = Packet::udp(server, client).payload(b"answer");
    let mut put = 0;
    while gateway.drops().is_empty() {
        put += 1;
        assert!(put < 2000, "nobody takes them out");
        gateway.put(Side::Lan, &out);
        gateway.settle();
    }
    assert_eq!((put, gateway.drops()), (1025, vec![("tx-full", 1)]));
    for n in 0..100 {
        gateway.put(Side::Lan, &out);
        gateway.put(Side::Wan, &back);
        gateway.settle();
        assert_eq!(gateway.sent(Side::Lan).len(), 1, "round {n}");
    }
    assert_eq!(gateway.drops(), [("tx-full", 101)]);
    assert_eq!(gateway.sent(Side::Wan).len(), 1024);
    gateway.forward(Side::Lan, &out);
}
