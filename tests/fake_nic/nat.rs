//! Which lcore a conn's packets come to: with a symmetric key both directions come to one, without
//! NAT; with NAT the replies' queue is another one unless the port could be chosen.

use std::net::SocketAddr;

use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, FIN, SYN};

use crate::rig::{Gateway, MASQUERADE, Numbers, RANDOM, Setup, Side, WAN_4, WAN_6};

/// Handshake, a datagram's worth of data both ways and the FINs, from the client's point of view:
/// whether it goes out, and the packet.
fn tcp(client: SocketAddr, server: SocketAddr) -> Vec<(bool, Packet<'static>)> {
    let out = |flags, seq: u32, ack: u32| {
        (true, Packet::tcp(client, server).flags(flags).seq(1000 + seq).ack(5000 + ack))
    };
    let back = |flags, seq: u32, ack: u32| {
        (false, Packet::tcp(server, client).flags(flags).seq(5000 + seq).ack(1000 + ack))
    };
    vec![
        (true, Packet::tcp(client, server).flags(SYN).seq(1000)),
        back(SYN | ACK, 0, 1),
        out(ACK, 1, 1),
        out(ACK, 1, 1),
        back(ACK, 1, 1),
        out(FIN | ACK, 1, 1),
        back(FIN | ACK, 1, 2),
        out(ACK, 2, 2),
    ]
}

fn udp(client: SocketAddr, server: SocketAddr) -> Vec<(bool, Packet<'static>)> {
    let out = (true, Packet::udp(client, server).payload(b"question"));
    let back = (false, Packet::udp(server, client).payload(b"answer"));
    vec![out, back, out, back]
}

#[test]
fn without_nat_nothing_is_ever_handed_over() {
    for workers in [1, 2, 4] {
        let mut gateway = Gateway::new(Setup { workers, ..Setup::default() });
        let mut numbers = Numbers(0x5eed + workers as u64);
        let mut seen = vec![0; workers];
        for n in 0..1000 {
            let (client, server) = numbers.ends(n % 2 == 0);
            let packets = if n % 4 < 2 { tcp(client, server) } else { udp(client, server) };
            let mut owner = None;
            for (out, packet) in packets {
                let from = if out { Side::Lan } else { Side::Wan };
                let (queue, sent) = gateway.forward(from, &packet);
                let owner = *owner.get_or_insert(queue);
                assert_eq!((queue, sent.queue), (owner, owner), "{client} {server}");
            }
            seen[usize::from(owner.unwrap())] += 1;
        }
        assert_eq!((gateway.handed_over(), gateway.drops()), (0, vec![]), "{workers} workers");
        let share = 1000 / workers;
        let even = seen.iter().all(|count| (share * 3 / 4..=share * 5 / 4).contains(count));
        assert!(even, "each worker has its part: {seen:?}");
        let counters = |c: &dataplane::pipeline::counters::LcoreCounters| c.fast.get();
        assert!(gateway.sum(counters) > 1000, "known conns took the short way");
    }
}

/// A conn from a client through MASQUERADE: its owner, and where its replies arrived.
struct Masqueraded {
    port: u16,
    owner: u16,
    arrived: u16,
}

/// The conn's first packet and a reply, then a packet more in each direction.
fn masquerade(
    gateway: &mut Gateway,
    (client, server): (SocketAddr, SocketAddr),
    is_tcp: bool,
) -> Masqueraded {
    let packet = |src, dst, flags, seq, ack| match is_tcp {
        true => Packet::tcp(src, dst).flags(flags).seq(seq).ack(ack),
        false => Packet::udp(src, dst).payload(b"datagram"),
    };
    let first = packet(client, server, SYN, 7, 0);
    let (owner, sent) = gateway.forward(Side::Lan, &first);
    assert_eq!(sent.queue, owner, "the owner sends by its own queue");
    let lent = sent.src();
    let own = if client.is_ipv4() { WAN_4 } else { WAN_6 };
    assert_eq!((lent.ip(), sent.dst()), (own, server));
    let mut arrived = None;
    for (flags, seq, ack) in [(SYN | ACK, 50, 8), (ACK, 51, 8)] {
        let before = gateway.handed_over();
        let (queue, sent) = gateway.forward(Side::Wan, &packet(server, lent, flags, seq, ack));
        assert_eq!((sent.src(), sent.dst(), sent.queue), (server, client, owner));
        let handed = gateway.handed_over() - before;
        assert_eq!(handed, u64::from(queue != owner), "counted, once");
        arrived = Some(queue);
        let before = gateway.handed_over();
        let (_, sent) = gateway.forward(Side::Lan, &packet(client, server, ACK, 8, 51));
        assert_eq!((sent.src(), sent.dst(), sent.queue), (lent, server, owner));
        assert_eq!(gateway.handed_over(), before, "the client's packets come to the owner");
    }
    Masqueraded { port: lent.port(), owner, arrived: arrived.unwrap() }
}

#[test]
fn a_free_port_is_kept_wherever_its_replies_arrive() {
    for workers in [1, 2, 4] {
        let setup = Setup { workers, v4: MASQUERADE, v6: MASQUERADE, ..Setup::default() };
        let mut gateway = Gateway::new(setup);
        let mut numbers = Numbers(0xf1ee + workers as u64);
        let mut away = 0;
        for n in 0..200 {
            let ends = numbers.ends(n % 2 == 0);
            let conn = masquerade(&mut gateway, ends, n % 4 < 2);
            assert_eq!(conn.port, ends.0.port(), "as the kernel, which asks no NIC");
            away += u64::from(conn.arrived != conn.owner);
        }
        // Two replies each; of four queues three are another lcore's.
        assert_eq!(gateway.handed_over(), 2 * away);
        let expected = 200 - 200 / workers as u64;
        assert!(away.abs_diff(expected) < 40, "{away} of 200 with {workers} workers");
    }
}

#[test]
fn replies_to_a_port_chosen_at_random_come_back_to_the_owner() {
    for workers in [2, 3, 4] {
        let setup = Setup { workers, v4: RANDOM, v6: RANDOM, ..Setup::default() };
        let mut gateway = Gateway::new(setup);
        let mut numbers = Numbers(0xace + workers as u64);
        let mut kept = 0;
        for n in 0..400 {
            let ends = numbers.ends(n % 2 == 0);
            let conn = masquerade(&mut gateway, ends, n % 4 < 2);
            assert_eq!(conn.arrived, conn.owner);
            kept += u32::from(conn.port == ends.0.port());
        }
        assert_eq!((gateway.handed_over(), gateway.drops()), (0, vec![]));
        assert!(kept < 5, "{kept} ports stayed");
    }
}

#[test]
fn where_ports_collide_all_but_the_first_come_back_to_the_owner() {
    let setup = Setup { workers: 4, v4: MASQUERADE, v6: MASQUERADE, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    let mut numbers = Numbers(0xc011);
    for (v4, is_tcp) in [(true, true), (true, false), (false, true), (false, false)] {
        let server = numbers.ends(v4).1;
        for n in 0..100 {
            let client = SocketAddr::new(numbers.ends(v4).0.ip(), 4000);
            let conn = masquerade(&mut gateway, (client, server), is_tcp);
            if n == 0 {
                assert_eq!(conn.port, 4000);
                continue;
            }
            assert_ne!(conn.port, 4000);
            assert_eq!(conn.arrived, conn.owner);
        }
    }
    // At most the two replies of the four that kept their port.
    assert!(gateway.handed_over() <= 8);
    assert_eq!(gateway.drops(), []);
}

#[test]
fn a_published_service_answers_from_whichever_lcore_owns_the_conn() {
    let dnat = "*nat\n-A PREROUTING -i wan -p tcp --dport 80 -j DNAT --to-destination \
                10.2.0.80:8080\nCOMMIT\n";
    let mut gateway = Gateway::new(Setup { workers: 4, v4: dnat, ..Setup::default() });
    let mut numbers = Numbers(0xd0d0);
    let inside: SocketAddr = "10.2.0.80:8080".parse().unwrap();
    let public = SocketAddr::new(WAN_4, 80);
    let mut away = 0;
    for _ in 0..100 {
        let visitor = numbers.ends(true).1;
        let syn = Packet::tcp(visitor, public).flags(SYN).seq(1);
        let (owner, sent) = gateway.forward(Side::Wan, &syn);
        assert_eq!((sent.src(), sent.dst(), sent.queue), (visitor, inside, owner));
        let answer = Packet::tcp(inside, visitor).flags(SYN | ACK).seq(9).ack(2);
        let (queue, sent) = gateway.forward(Side::Lan, &answer);
        assert_eq!((sent.src(), sent.dst(), sent.queue), (public, visitor, owner));
        away += u64::from(queue != owner);
    }
    assert_eq!(gateway.handed_over(), away);
    assert!(away > 50, "{away}");
}
