//! Translation, from the first packet through the cached path to the errors about it.

use dataplane::conntrack::state::Status;
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::hook::Table::{Filter, Mangle, Nat};
use dataplane::rules::matches::StateMask;
use dataplane::rules::targets::{NatOptions, Target};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, RST, SYN};

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const CLIENT: &str = "192.168.1.2:4000";
const CLIENT2: &str = "192.168.1.3:4000";
const SERVER: &str = "198.51.100.7:80";
const SERVER2: &str = "198.51.100.8:80";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const SERVER6: &str = "[2001:db8:ffff::7]:80";
const WAN4: &str = "203.0.113.1:4000";
const WAN6: &str = "[2001:db8:2::1]:4000";

fn masquerading() -> Setup {
    Setup::default().both(Nat, "POSTROUTING", masquerade())
}

/// `pass`, of which only the addresses matter.
fn flow(rig: &mut Rig, port: dataplane::rules::facts::PortId, packet: Packet<'_>) -> String {
    rig.pass(port, packet).flow()
}

#[test]
fn masquerade_keeps_the_port_and_turns_answers_back() {
    let mut rig = masquerading().start();
    for (client, server, wan) in [(CLIENT, SERVER, WAN4), (CLIENT6, SERVER6, WAN6)] {
        for _ in 0..4 {
            assert_eq!(flow(&mut rig, LAN, udp(client, server)), format!("{wan} > {server}"));
            let back = rig.pass(WAN, udp(server, wan));
            assert_eq!(back.flow(), format!("{server} > {client}"));
            assert_eq!((back.port, back.dst_mac()), (LAN, CLIENT_MAC));
        }
    }
    assert!(rig.fast() >= 8, "{}", rig.fast());
    for conn in rig.list() {
        assert!(conn.status.has(Status::SRC_NAT) && !conn.status.has(Status::DST_NAT));
    }
}

#[test]
fn a_masqueraded_conn_ends_when_it_would_leave_by_another_port() {
    let everywhere = on(Target::Masquerade(NatOptions::default()));
    let mut rig = Setup::default().both(Nat, "POSTROUTING", everywhere).start();
    for _ in 0..3 {
        assert_eq!(flow(&mut rig, LAN, udp(CLIENT, SERVER)), format!("{WAN4} > {SERVER}"));
        rig.pass(WAN, udp(SERVER, WAN4));
    }
    rig.setup.routes.push(route("198.51.100.0", 24, Some("192.168.1.3"), LAN));
    rig.publish();
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::NatDrop);
    assert_eq!(rig.list().len(), 0);
    let anew = flow(&mut rig, LAN, udp(CLIENT, SERVER));
    assert_eq!(anew, format!("192.168.1.1:4000 > {SERVER}"));
}

#[test]
fn protocols_without_ports_keep_what_names_them_through_masquerade() {
    let mut rig = masquerading().start();
    let l4 = |sent: &Sent| {
        let h = sent.headers();
        sent.bytes[h.l4 as usize..h.end as usize].to_vec()
    };
    let (client, server, wan) = ("192.168.1.2", "198.51.100.7", "203.0.113.1");
    // ESP with its index, GRE with a key.
    let esp: [u8; 12] = [0, 0, 0, 9, 0, 0, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd];
    let keyed: [u8; 12] = [0x20, 0, 8, 0, 0, 0, 0, 7, 0, 0, 0, 1];
    for (number, there, back) in [(50, &esp[..], &esp[..]), (47, &keyed[..], &keyed[..])] {
        let sent = rig.pass(LAN, Packet::raw(ip(client), ip(server), number).payload(there));
        assert_eq!((sent.headers().src, &l4(&sent)[..]), (address(wan), there));
        let sent = rig.pass(WAN, Packet::raw(ip(server), ip(wan), number).payload(back));
        assert_eq!((sent.headers().dst, &l4(&sent)[..]), (address(client), back));
    }
    assert_eq!(rig.list().len(), 2);
}

#[test]
fn redirect_leads_to_the_ports_first_address_whoever_asks() {
    let mut setup = Setup::default().both(Nat, "PREROUTING", redirect(Some(53)).proto(17));
    setup.own.push((0, "10.9.0.1", 24));
    let mut rig = setup.start();
    rig.send(LAN, udp("10.9.0.7:4000", SERVER));
    assert_eq!(rig.conn().reply.src, address("192.168.1.1"));
}

#[test]
fn tcp_through_masquerade_has_right_checksums_throughout() {
    let mut rig = masquerading().start();
    for (client, server, wan) in [(CLIENT, SERVER, WAN4), (CLIENT6, SERVER6, WAN6)] {
        rig.pass(LAN, tcp(client, server, SYN, 100, 0));
        rig.pass(WAN, tcp(server, wan, SYN | ACK, 500, 101));
        let mut seq = 101;
        for n in 0..6 {
            let bytes = vec![n as u8 * 37; 100 + n];
            let sent = rig.pass(LAN, tcp(client, server, ACK, seq, 501).payload(&bytes));
            assert_eq!(sent.flow(), format!("{wan} > {server}"));
            seq += bytes.len() as u32;
            rig.pass(WAN, tcp(server, wan, ACK, 501, seq));
        }
    }
    assert!(rig.fast() >= 8);
}

#[test]
fn two_hosts_with_one_port_get_two_ports() {
    let mut rig = masquerading().start();
    assert_eq!(flow(&mut rig, LAN, udp(CLIENT, SERVER)), format!("{WAN4} > {SERVER}"));
    let second = rig.pass(LAN, udp(CLIENT2, SERVER));
    let port = second.headers().src_port;
    assert_ne!(port, 4000);
    assert!(port >= 1024);
    assert!(rig.counters.conntrack.found.get() > 0);
    let to = format!("203.0.113.1:{port}");
    let back = rig.pass(WAN, udp(SERVER, &to));
    assert_eq!((back.flow(), back.dst_mac()), (format!("{SERVER} > {CLIENT2}"), CLIENT2_MAC));
    // Towards another server the port is free, but the host keeps its mapping (nat_bysource).
    let other = rig.pass(LAN, udp(CLIENT2, SERVER2));
    assert_eq!(other.headers().src_port, port);
    assert_eq!(flow(&mut rig, LAN, udp(CLIENT, SERVER2)), format!("{WAN4} > {SERVER2}"));
}

#[test]
fn ping_through_masquerade() {
    let mut rig = masquerading().start();
    let ping =
        |src: &str, kind, id: u32| Packet::icmp(ip(src), ip("198.51.100.7"), kind, 0, id << 16 | 1);
    for seq in 0..3 {
        let sent =
            rig.pass(LAN, Packet::icmp(ip("192.168.1.2"), ip("198.51.100.7"), 8, 0, 7 << 16 | seq));
        assert_eq!((sent.headers().src, sent.headers().icmp_id), (address("203.0.113.1"), 7));
    }
    let second = rig.pass(LAN, ping("192.168.1.3", 8, 7));
    let id = second.headers().icmp_id;
    assert_ne!(id, 7);
    let answer = Packet::icmp(ip("198.51.100.7"), ip("203.0.113.1"), 0, 0, (id as u32) << 16 | 1);
    let back = rig.pass(WAN, answer);
    assert_eq!((back.headers().dst, back.headers().icmp_id), (address("192.168.1.3"), 7));
}

#[test]
fn a_datagram_without_checksum_keeps_none() {
    let mut rig = masquerading().start();
    for _ in 0..3 {
        let sent = rig.pass(LAN, udp(CLIENT, SERVER).l4_check(0));
        let l4 = sent.headers().l4 as usize;
        assert_eq!(sent.bytes[l4 + 6..l4 + 8], [0, 0]);
        assert_eq!(sent.flow(), format!("{WAN4} > {SERVER}"));
    }
}

#[test]
fn snat_to_an_address_and_to_a_range_of_ports() {
    let options = to("203.0.113.10", Some((5000, 5001)));
    let rule = on(Target::Snat(options)).out_port("wan").proto(17);
    let mut rig = Setup::default().rule(V4, Nat, "POSTROUTING", rule).start();
    let mut ports = Vec::new();
    for client in [CLIENT, CLIENT2] {
        let h = rig.pass(LAN, udp(client, SERVER)).headers();
        assert_eq!(h.src, address("203.0.113.10"));
        ports.push(h.src_port);
    }
    ports.sort_unstable();
    assert_eq!(ports, [5000, 5001]);
    // The range is used up: the packet dies at confirm.
    rig.dropped(LAN, udp("192.168.1.3:4001", SERVER), DropReason::InsertFailed);
    assert_eq!(rig.counters.conntrack.insert_failed.get(), 1);
    assert_eq!(rig.shared.capacity.count(), 2);
    // Towards another server the same ports serve again.
    rig.pass(LAN, udp("192.168.1.3:4001", SERVER2));
    let rule = snat("2001:db8:2::99").out_port("wan");
    let mut rig = Setup::default().rule(V6, Nat, "POSTROUTING", rule).start();
    assert_eq!(
        flow(&mut rig, LAN, udp(CLIENT6, SERVER6)),
        format!("[2001:db8:2::99]:4000 > {SERVER6}")
    );
}

/// Port 80 of the outer addresses leads to a host inside, in both families.
fn forwarding_port_80() -> Setup {
    Setup::default()
        .rule(
            V4,
            Nat,
            "PREROUTING",
            dnat("192.168.1.2", Some(8080)).proto(6).dport(80).dst("203.0.113.1", 32),
        )
        .rule(
            V6,
            Nat,
            "PREROUTING",
            dnat("2001:db8:1::2", Some(8080)).proto(6).dport(80).dst("2001:db8:2::1", 128),
        )
}

#[test]
fn dnat_leads_inside_and_answers_come_from_outside_again() {
    let mut rig = forwarding_port_80().start();
    let cases = [
        ("198.51.100.9:999", "203.0.113.1:80", "192.168.1.2:8080"),
        ("[2001:db8:ffff::9]:999", "[2001:db8:2::1]:80", "[2001:db8:1::2]:8080"),
    ];
    for (peer, outside, inside) in cases {
        assert_eq!(
            flow(&mut rig, WAN, tcp(peer, outside, SYN, 1, 0)),
            format!("{peer} > {inside}")
        );
        let back = rig.pass(LAN, tcp(inside, peer, SYN | ACK, 9, 2));
        assert_eq!(back.flow(), format!("{outside} > {peer}"));
        for _ in 0..3 {
            assert_eq!(
                flow(&mut rig, WAN, tcp(peer, outside, ACK, 2, 10)),
                format!("{peer} > {inside}")
            );
            assert_eq!(
                flow(&mut rig, LAN, tcp(inside, peer, ACK, 10, 2)),
                format!("{outside} > {peer}")
            );
        }
    }
    assert!(rig.fast() > 0);
}

#[test]
fn redirect_leads_to_the_gateway_itself() {
    let mut rig = Setup::default()
        .both(Nat, "PREROUTING", redirect(Some(3128)).proto(6).dport(80).in_port("lan"))
        .start();
    for (client, server) in [(CLIENT, SERVER), (CLIENT6, SERVER6)] {
        // Nobody listens there: the reset comes from the server's address.
        let sent = rig.pass(LAN, tcp(client, server, SYN, 1, 0));
        assert_eq!(sent.flow(), format!("{server} > {client}"));
        assert_eq!(sent.headers().tcp_flags, RST | ACK);
    }
    for conn in rig.list() {
        assert_eq!(conn.reply.src_id, 3128);
    }
}

#[test]
fn masquerade_without_an_address_to_lend_drops() {
    let mut setup = masquerading();
    setup.own.retain(|(port, a, _)| *port != WAN.0 || a.parse::<std::net::Ipv6Addr>().is_ok());
    let mut rig = setup.start();
    rig.dropped(LAN, udp(CLIENT, SERVER), DropReason::NatDrop);
    assert_eq!(rig.shared.capacity.count(), 0);
    rig.pass(LAN, udp(CLIENT6, SERVER6));
}

#[test]
fn both_ends_at_once_and_hairpin() {
    let mut rig = forwarding_port_80()
        .rule(
            V4,
            Nat,
            "POSTROUTING",
            snat("192.168.1.1").src("192.168.1.0", 24).dst("192.168.1.0", 24),
        )
        .rule(
            V6,
            Nat,
            "POSTROUTING",
            snat("2001:db8:1::1").src("2001:db8:1::", 64).dst("2001:db8:1::", 64),
        )
        .start();
    let cases = [
        ("192.168.1.3:999", "203.0.113.1:80", "192.168.1.2:8080", "192.168.1.1:999"),
        (
            "[2001:db8:1::3]:999",
            "[2001:db8:2::1]:80",
            "[2001:db8:1::2]:8080",
            "[2001:db8:1::1]:999",
        ),
    ];
    for (peer, outside, inside, us) in cases {
        assert_eq!(flow(&mut rig, LAN, tcp(peer, outside, SYN, 1, 0)), format!("{us} > {inside}"));
        assert_eq!(
            flow(&mut rig, LAN, tcp(inside, us, SYN | ACK, 9, 2)),
            format!("{outside} > {peer}")
        );
        for _ in 0..3 {
            assert_eq!(
                flow(&mut rig, LAN, tcp(peer, outside, ACK, 2, 10)),
                format!("{us} > {inside}")
            );
            assert_eq!(
                flow(&mut rig, LAN, tcp(inside, us, ACK, 10, 2)),
                format!("{outside} > {peer}")
            );
        }
        let conn = rig.list().pop().unwrap();
        assert!(conn.status.has(Status::SRC_NAT) && conn.status.has(Status::DST_NAT));
    }
    assert!(rig.fast() > 0);
}

#[test]
fn input_snat_hides_who_asks_from_the_gateway() {
    let mut rig = Setup::default().rule(V4, Nat, "INPUT", snat("192.168.1.77").proto(17)).start();
    // The error goes back to the true sender and quotes what it sent.
    let sent = rig.pass(LAN, udp(CLIENT, "192.168.1.1:53"));
    assert_eq!(sent.headers().dst, address("192.168.1.2"));
    assert_eq!(sent.quote(), format!("{CLIENT} > 192.168.1.1:53"));
    assert_eq!(rig.conn().reply.dst, address("192.168.1.77"));
}

#[test]
fn errors_about_translated_conns_go_both_ways() {
    let mut rig = masquerading().start();
    let cases = [
        (CLIENT, SERVER, WAN4, "198.51.100.1", "192.168.1.99", 3, 20),
        (CLIENT6, SERVER6, WAN6, "2001:db8:fffe::1", "2001:db8:1::99", 1, 40),
    ];
    for (client, server, wan, router, inner_router, kind, l3) in cases {
        for make in
            [udp as fn(&'static str, &'static str) -> Packet<'static>, |c, s| tcp(c, s, SYN, 5, 0)]
        {
            let out = rig.pass(LAN, make(client, server));
            assert_eq!(out.flow(), format!("{wan} > {server}"));
            // From the outside: the router quotes what it saw, the client hears what it sent.
            for quoted in [out.bytes.len() - 14, l3 + 8, l3 + 9] {
                let quote = &out.bytes[14..14 + quoted];
                let error = Packet::icmp(ip(router), at(wan).ip(), kind, 0, 0).payload(quote);
                let sent = rig.pass(WAN, error);
                assert_eq!(sent.headers().dst, at(client).ip().into());
                assert_eq!(sent.headers().src, address(router));
                assert_eq!(sent.quote(), format!("{client} > {server}"), "{quoted}");
                if quoted == out.bytes.len() - 14 {
                    // But for TTL and MACs it is the very packet.
                    let (mut own, original) =
                        (sent.icmp().3.to_vec(), make(client, server).ttl(63).to_vec());
                    assert_eq!(own.len(), original.len() - 14);
                    own.truncate(original.len() - 14);
                    assert_eq!(own, original[14..]);
                }
            }
        }
        // From the inside: about an answer that did not reach the client.
        let back = rig.pass(WAN, udp(server, wan));
        let quote = &back.bytes[14..14 + l3 + 8];
        let error = Packet::icmp(ip(inner_router), at(server).ip(), kind, 0, 0).payload(quote);
        let sent = rig.pass(LAN, error);
        assert_eq!(sent.quote(), format!("{server} > {wan}"));
        assert_eq!(sent.headers().dst, at(server).ip().into());
        // The source of the error is hidden as well (manip of the direction it travels in).
        assert_eq!(sent.headers().src, at(wan).ip().into());
    }
}

#[test]
fn a_redirect_about_a_translated_conn_is_dropped() {
    let mut rig = masquerading().start();
    let out = rig.pass(LAN, udp(CLIENT, SERVER));
    let gateway = u32::from(std::net::Ipv4Addr::new(203, 0, 113, 253));
    let redirect = Packet::icmp(ip("203.0.113.254"), ip("203.0.113.1"), 5, 1, gateway);
    rig.dropped(WAN, redirect.payload(&out.bytes[14..42]), DropReason::BadIcmpError);
}

#[test]
fn our_errors_about_translated_packets_quote_what_was_sent() {
    // TTL 1 behind DNAT: PREROUTING has changed the packet already.
    let mut rig = forwarding_port_80().start();
    for (peer, outside) in
        [("198.51.100.9:999", "203.0.113.1:80"), ("[2001:db8:ffff::9]:999", "[2001:db8:2::1]:80")]
    {
        let packet = tcp(peer, outside, SYN, 1, 0).ttl(1);
        let sent = rig.answered(WAN, packet, DropReason::TtlExceeded);
        assert_eq!(sent.quote(), format!("{peer} > {outside}"));
        let h = sent.headers();
        assert_eq!(sent.icmp().3, &packet.to_vec()[14..], "from {}", h.src);
    }
    assert_eq!(rig.shared.capacity.count(), 0);
    // REJECT in FORWARD, by error and by reset.
    for rule in [reject(3), reset()] {
        let mut rig = forwarding_port_80().rule(V4, Filter, "FORWARD", rule).start();
        let sent = rig.answered(
            WAN,
            tcp("198.51.100.9:999", "203.0.113.1:80", SYN, 1, 0),
            DropReason::Rejected,
        );
        if sent.headers().proto == 6 {
            assert_eq!(sent.flow(), "203.0.113.1:80 > 198.51.100.9:999");
        } else {
            assert_eq!(sent.quote(), "198.51.100.9:999 > 203.0.113.1:80");
        }
    }
}

#[test]
fn too_big_behind_masquerade_reaches_the_client() {
    let mut rig = masquerading().start();
    let out = rig.pass(LAN, udp(CLIENT, SERVER));
    let error = Packet::icmp(ip("198.51.100.1"), ip("203.0.113.1"), 3, 4, 1280);
    let sent = rig.pass(WAN, error.payload(&out.bytes[14..42]));
    assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (3, 4, 1280));
    assert_eq!(sent.headers().dst, address("192.168.1.2"));
    // And our own about an answer that is too big for the LAN.
    let mut rig = Setup { mtu: [1000, 1500], ..masquerading() }.start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    let big = vec![1; 1000];
    let sent = rig.answered(WAN, udp(SERVER, WAN4).payload(&big), DropReason::TooBig);
    assert_eq!((sent.icmp().0, sent.icmp().1, sent.icmp().2), (3, 4, 1000));
    assert_eq!(sent.quote(), format!("{SERVER} > {WAN4}"));
    assert_eq!(sent.headers().src, address("203.0.113.1"));
}

#[test]
fn rules_match_what_was_translated() {
    let snat_state = StateMask::SNAT;
    let mut rig = masquerading()
        .both(Mangle, "FORWARD", count().state(snat_state))
        .both(Filter, "FORWARD", count().state(StateMask::DNAT))
        .start();
    for _ in 0..3 {
        rig.pass(LAN, udp(CLIENT, SERVER));
        rig.pass(WAN, udp(SERVER, WAN4));
    }
    // Not the first packet: its source is translated after FORWARD.
    assert_eq!(rig.count(V4, Mangle, "FORWARD", Some(0)).0, 5);
    assert_eq!(rig.count(V4, Filter, "FORWARD", Some(0)).0, 0);
}

#[test]
fn the_nat_table_counts_first_packets_only() {
    let mut rig = masquerading().start();
    for _ in 0..5 {
        rig.pass(LAN, udp(CLIENT, SERVER));
        rig.pass(WAN, udp(SERVER, WAN4));
    }
    assert_eq!(rig.count(V4, Nat, "POSTROUTING", Some(0)), (1, 33));
    assert_eq!(rig.count(V4, Nat, "PREROUTING", None), (1, 33));
}

#[test]
fn an_unrelated_packet_from_outside_is_not_translated() {
    let mut rig = masquerading().start();
    rig.pass(LAN, udp(CLIENT, SERVER));
    // Address dependent: another server's packet to the mapping is for the gateway itself.
    let sent = rig.pass(WAN, udp(SERVER2, WAN4));
    assert_eq!((sent.icmp().0, sent.icmp().1), (3, 3));
}

#[test]
fn options_and_extension_headers_pass_through_translation() {
    let mut rig = masquerading().start();
    let padding = [1, 4, 0, 0, 0, 0];
    let alert = [148, 4, 0, 0];
    for n in 0..3 {
        for kind in [0, 60] {
            let packet = tcp(CLIENT6, SERVER6, SYN, n, 0).extension(kind, &padding);
            let sent = rig.pass(LAN, packet);
            assert_eq!(sent.flow(), format!("{WAN6} > {SERVER6}"));
            assert_eq!(sent.headers().l4, 14 + 48);
        }
        let packet = tcp(CLIENT, SERVER, SYN, 1, 0).ip_options(&alert);
        assert_eq!(flow(&mut rig, LAN, packet), format!("{WAN4} > {SERVER}"));
    }
    // A packet without them may take the cached path of the same conn.
    for n in 0..3 {
        rig.pass(LAN, udp(CLIENT6, SERVER6).payload(&[n]).extension(60, &padding));
        rig.pass(LAN, udp(CLIENT6, SERVER6).payload(&[n]));
    }
    assert!(rig.fast() > 0);
}

#[test]
fn a_redirected_host_keeps_its_conn_when_the_policy_changes() {
    // Translation is the conn's: neither a new rule nor none at all changes it.
    let mut rig = forwarding_port_80().start();
    let (peer, outside, inside) = ("198.51.100.9:999", "203.0.113.1:80", "192.168.1.2:8080");
    rig.pass(WAN, tcp(peer, outside, SYN, 1, 0));
    rig.pass(LAN, tcp(inside, peer, SYN | ACK, 9, 2));
    rig.pass(WAN, tcp(peer, outside, ACK, 2, 10));
    rig.setup = Setup::default();
    rig.publish();
    for _ in 0..3 {
        let there = flow(&mut rig, WAN, tcp(peer, outside, ACK, 2, 10));
        assert_eq!(there, format!("{peer} > {inside}"));
        let back = flow(&mut rig, LAN, tcp(inside, peer, ACK, 10, 2));
        assert_eq!(back, format!("{outside} > {peer}"));
    }
    // A new conn finds nothing there.
    let sent = rig.pass(WAN, tcp("198.51.100.9:1000", outside, SYN, 1, 0));
    assert_eq!(sent.headers().tcp_flags, RST | ACK);
}

#[test]
fn reject_in_the_middle_of_a_translated_conn_answers_the_sender() {
    let mut rig = masquerading().start();
    for (client, server, wan) in [(CLIENT, SERVER, WAN4), (CLIENT6, SERVER6, WAN6)] {
        rig.pass(LAN, tcp(client, server, SYN, 100, 0));
        rig.pass(WAN, tcp(server, wan, SYN | ACK, 500, 101));
        rig.pass(LAN, tcp(client, server, ACK, 101, 501));
    }
    rig.setup = std::mem::take(&mut rig.setup).both(Filter, "FORWARD", reset());
    rig.publish();
    for (client, server, wan) in [(CLIENT, SERVER, WAN4), (CLIENT6, SERVER6, WAN6)] {
        for _ in 0..2 {
            let packet = tcp(server, wan, ACK, 501, 101).payload(b"x");
            let sent = rig.answered(WAN, packet, DropReason::Rejected);
            assert_eq!(sent.flow(), format!("{wan} > {server}"), "from the outer address");
            let packet = tcp(client, server, ACK, 101, 501);
            let sent = rig.answered(LAN, packet, DropReason::Rejected);
            assert_eq!(sent.flow(), format!("{server} > {client}"));
        }
    }
    assert_eq!(rig.list().len(), 2);
}
