//! What has no ports is hashed by addresses alone, and an ICMP error by those of a router that the
//! conn has never heard of: the owner gets it all the same.

use std::net::{IpAddr, SocketAddr};

use dataplane::wire::address::Address;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::headers::{parse_ip, protocol};

use crate::rig::{Gateway, MASQUERADE, Numbers, Setup, Side, WAN_4, WAN_6};

const STRICT: &str = "*filter\n:FORWARD DROP [0:0]\n\
    -A FORWARD -i lan -j ACCEPT\n\
    -A FORWARD -i wan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\nCOMMIT\n";

fn strict(more: &str) -> String {
    format!("{STRICT}{more}")
}

#[test]
fn echoes_stay_on_their_lcore_without_nat_and_find_it_with_nat() {
    for (nat, translated) in [("", false), (MASQUERADE, true)] {
        let rules = strict(nat);
        let setup = Setup { workers: 4, v4: &rules, v6: &rules, ..Setup::default() };
        let mut gateway = Gateway::new(setup);
        let mut numbers = Numbers(0xec40);
        let mut away = 0;
        for n in 0..100 {
            let v4 = n % 2 == 0;
            let (client, server) = numbers.ends(v4);
            let (client, server) = (client.ip(), server.ip());
            let (request, reply) = if v4 { (8, 0) } else { (128, 129) };
            let ask = Packet::icmp(client, server, request, 0, 0x0707_0001).payload(b"ping");
            let (owner, sent) = gateway.forward(Side::Lan, &ask);
            let (asker, id) = (sent.headers().src.ip(), sent.headers().icmp_id);
            let rest = u32::from(id) << 16 | 1;
            let answer = Packet::icmp(server, asker, reply, 0, rest).payload(b"ping");
            let (queue, sent) = gateway.forward(Side::Wan, &answer);
            let back = sent.headers();
            assert_eq!((back.dst.ip(), back.icmp_id, sent.queue), (client, 0x0707, owner));
            assert!(translated || queue == owner, "addresses alone are symmetric too");
            away += u64::from(queue != owner);
        }
        assert_eq!((gateway.handed_over(), gateway.drops()), (away, vec![]));
        assert_eq!(away > 30, translated, "{away}");
    }
}

/// An ICMP error of a router about what was sent.
fn error<'a>(router: IpAddr, to: IpAddr, quote: &'a [u8]) -> Packet<'a> {
    let (kind, code) = if router.is_ipv4() { (3, 1) } else { (1, 3) };
    Packet::icmp(router, to, kind, code, 0).payload(quote)
}

#[test]
fn errors_about_another_lcores_conn_reach_its_client() {
    let rules = strict(MASQUERADE);
    let setup = Setup { workers: 4, v4: &rules, v6: &rules, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    let mut numbers = Numbers(0xe550);
    let mut away = 0;
    for n in 0..200 {
        let v4 = n % 2 == 0;
        let (client, server) = numbers.ends(v4);
        let first = match n % 4 < 2 {
            true => Packet::udp(client, server).payload(b"to nobody"),
            false => Packet::tcp(client, server).flags(2).seq(77),
        };
        let (owner, sent) = gateway.forward(Side::Lan, &first);
        let own = if v4 { WAN_4 } else { WAN_6 };
        assert_eq!(sent.src().ip(), own);
        let router = numbers.ends(v4).1.ip();
        let (queue, back) = gateway.forward(Side::Wan, &error(router, own, &sent.bytes[14..]));
        away += u64::from(queue != owner);
        let headers = back.headers();
        assert_eq!((headers.src.ip(), headers.dst.ip()), (router, client.ip()));
        assert_eq!(back.queue, owner);
        let quote = &back.bytes[usize::from(headers.l4) + 8..];
        let quoted = parse_ip(quote, quote.len()).unwrap();
        let ends = |a: Address, port| SocketAddr::new(a.ip(), port);
        assert_eq!(ends(quoted.src, quoted.src_port), client, "as the client had sent it");
        assert_eq!(ends(quoted.dst, quoted.dst_port), server);
    }
    assert_eq!((gateway.handed_over(), gateway.drops()), (away, vec![]));
    assert!(away > 100, "{away} of 200");
}

#[test]
fn an_error_about_nothing_is_dropped_by_the_lcore_it_came_to() {
    let rules = strict(MASQUERADE);
    let mut gateway = Gateway::new(Setup { workers: 4, v4: &rules, ..Setup::default() });
    let mut numbers = Numbers(0xe551);
    let (client, server) = numbers.ends(true);
    let unknown = Packet::udp(client, server).to_vec();
    gateway.put(Side::Wan, &error(server.ip(), client.ip(), &unknown[14..]));
    gateway.settle();
    assert_eq!((gateway.handed_over(), gateway.drops()), (0, vec![("filter-drop", 1)]));
    assert_eq!(gateway.sum(|c| c.conntrack.error.get()), 1);
}

#[test]
fn protocols_without_ports_reach_the_owner() {
    let rules = strict(MASQUERADE);
    let setup = Setup { workers: 4, v4: &rules, v6: &rules, ..Setup::default() };
    let mut gateway = Gateway::new(setup);
    let mut numbers = Numbers(0x96e);
    // No key, no sequence number: IPv4 inside.
    let gre: &[u8] = &[0, 0, 8, 0, 0x45, 1, 2, 3, 4, 5, 6, 7];
    let esp: &[u8] = &[0, 0, 1, 2, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut away = 0;
    for n in 0..120 {
        let v4 = n % 2 == 0;
        let (client, server) = numbers.ends(v4);
        let (client, server) = (client.ip(), server.ip());
        let (proto, body) = [(protocol::GRE, gre), (protocol::ESP, esp), (99, esp)][n % 3];
        let (owner, sent) =
            gateway.forward(Side::Lan, &Packet::raw(client, server, proto).payload(body));
        let own = sent.headers().src.ip();
        assert_eq!(own, if v4 { WAN_4 } else { WAN_6 });
        let (queue, sent) =
            gateway.forward(Side::Wan, &Packet::raw(server, own, proto).payload(body));
        assert_eq!((sent.headers().dst.ip(), sent.queue), (client, owner));
        away += u64::from(queue != owner);
    }
    assert_eq!((gateway.handed_over(), gateway.drops()), (away, vec![]));
    assert!(away > 60, "{away} of 120");
}
