//! Packets of real clients and servers through the gateway.

use crate::gateway::eventually;
use crate::rig::{
    BEHIND, LAN_GATEWAY, LAN_GATEWAY6, LAN_HOST, LAN_HOST6, RULES4, Rig, WAN_GATEWAY, WAN_GATEWAY6,
    WAN_HOST, WAN_HOST6, Wires, Wish, curl,
};
use crate::servers::{Server, body, exchange, udp_client};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Downloads both ways in both families, then the balance.
fn downloads(wires: Wires) {
    let mut rig = Rig::new(Wish { wires, ..Wish::default() });
    let _four = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let _six = Server::http(&rig.wan, &format!("[{WAN_HOST6}]:80"));
    let _inside = Server::http(&rig.lan, &format!("{LAN_HOST}:80"));
    let len = 4_000_000;
    for (host, client, url) in [
        ("LAN", &rig.lan, format!("http://{WAN_HOST}/{len}")),
        ("LAN", &rig.lan, format!("http://[{WAN_HOST6}]/{len}")),
        ("WAN", &rig.wan, format!("http://{WAN_GATEWAY}:8080/{len}")),
    ] {
        let output = curl(client, &url);
        assert!(output.status.success(), "{host}: {url}: {}", text(&output.stderr));
        assert!(output.stdout == body(len), "{url}: {} other bytes", output.stdout.len());
    }
    let out = rig.wait_for_conn(&["tcp", &format!("src={LAN_HOST}"), "dport=80", "[ASSURED]"]);
    assert!(out.contains(&format!("src={WAN_HOST} dst={WAN_GATEWAY} sport=80")), "{out}");
    let forwarded = rig.wait_for_conn(&["tcp", &format!("dst={WAN_GATEWAY}"), "dport=8080"]);
    assert!(forwarded.contains(&format!("src={LAN_HOST} dst={WAN_HOST} sport=80")), "{forwarded}");
    let six = rig.files().ask("conntrack -L -f ipv6 -p tcp");
    assert!(six.contains(&format!("src={WAN_HOST6} dst={WAN_GATEWAY6} sport=80")), "{six}");
    rig.assert_balance();
    let ports = &rig.files().stats()["ports"];
    for port in ["lan", "wan"] {
        assert!(ports[port]["rx_packets"].as_u64().unwrap() > 100, "{ports}");
        assert!(ports[port]["tx_bytes"].as_u64().unwrap() > 100_000, "{ports}");
    }
    rig.gateway.stop_cleanly();
}

#[test]
fn downloads_arrive_whole_over_taps() {
    downloads(Wires::Tap);
}

#[test]
fn downloads_arrive_whole_over_packet_sockets() {
    downloads(Wires::AfPacket);
}

#[test]
fn pings_are_answered_and_translated() {
    let rig = Rig::new(Wish::default());
    for (host, to) in [
        (&rig.lan, LAN_GATEWAY),
        (&rig.lan, LAN_GATEWAY6),
        // The address of another port is the gateway's own too.
        (&rig.lan, WAN_GATEWAY),
        (&rig.lan, WAN_HOST),
        (&rig.lan, WAN_HOST6),
        (&rig.lan, BEHIND),
        (&rig.wan, WAN_GATEWAY),
        (&rig.wan, WAN_GATEWAY6),
    ] {
        let answer = host.run(&format!("ping -c 3 -i 0.05 -W 20 {to}"));
        assert!(answer.contains(" 0% packet loss"), "{to}: {answer}");
    }
    let conn = rig.wait_for_conn(&["icmp", &format!("src={LAN_HOST} dst={WAN_HOST}")]);
    assert!(conn.contains(&format!("src={WAN_HOST} dst={WAN_GATEWAY}")), "{conn}");
    rig.assert_balance();
}

#[test]
fn the_outside_reaches_nothing_but_what_is_forwarded() {
    let rig = Rig::new(Wish::default());
    let _inside = Server::http(&rig.lan, &format!("{LAN_HOST}:80"));
    rig.wan.run(&format!("ip route add 10.77.0.0/24 via {WAN_GATEWAY}"));
    rig.wan.run(&format!("ip route add fd77::/64 via {WAN_GATEWAY6}"));
    for url in [
        format!("http://{LAN_HOST}/1"),
        format!("http://{WAN_GATEWAY}:80/1"),
        format!("http://[{LAN_HOST6}]/1"),
    ] {
        let before = rig.dropped("filter-drop");
        let output = curl(&rig.wan, &format!("--connect-timeout 1.5 {url}"));
        assert_eq!(output.status.code(), Some(28), "{url}: {}", text(&output.stderr));
        assert!(rig.dropped("filter-drop") > before, "{url}");
    }
    let output = curl(&rig.wan, &format!("http://{WAN_GATEWAY}:8080/10"));
    assert_eq!(output.stdout, body(10), "{}", text(&output.stderr));
    // What was dropped left no conn behind.
    let table = rig.files().ask("conntrack -L");
    assert!(!table.contains("UNREPLIED"), "{table}");
    rig.assert_balance();
}

#[test]
fn rejected_clients_hear_it_at_once() {
    let rig = Rig::new(Wish::default());
    let output = rig.curl(&format!("http://{WAN_HOST}:81/"));
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let udp = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:81"));
    let refused = exchange(&udp, b"x").expect_err("rejected");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(rig.dropped("rejected"), 2);
    // A closed port behind the gateway: its own reset comes back through the translation.
    let output = rig.curl(&format!("http://{WAN_HOST}:82/"));
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    // As does its ICMP error about a translated datagram.
    let udp = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:82"));
    let refused = exchange(&udp, b"x").expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    rig.assert_balance();
}

#[test]
fn datagrams_are_translated_both_ways() {
    let rig = Rig::new(Wish::default());
    let _four = Server::udp_echo(&rig.wan, &format!("{BEHIND}:7"));
    let _six = Server::udp_echo(&rig.wan, &format!("[{WAN_HOST6}]:7"));
    for (from, to, seen) in [
        (format!("{LAN_HOST}:4007"), format!("{BEHIND}:7"), format!("{WAN_GATEWAY}:4007 ")),
        (
            format!("[{LAN_HOST6}]:4007"),
            format!("[{WAN_HOST6}]:7"),
            format!("[{WAN_GATEWAY6}]:4007 "),
        ),
    ] {
        let socket = udp_client(&rig.lan, &from, &to);
        for len in [0, 1, 2, 3, 99, 512, 1399] {
            let payload = body(len);
            let answer = exchange(&socket, &payload).unwrap_or_else(|e| panic!("{to} {len}: {e}"));
            assert_eq!(answer, [seen.as_bytes(), &payload].concat(), "{to} {len}");
        }
    }
    let conn = rig.wait_for_conn(&["udp", &format!("dst={BEHIND}")]);
    assert!(!conn.contains("UNREPLIED"), "{conn}");
    rig.assert_balance();
}

#[test]
fn hops_are_counted_and_their_end_is_told() {
    let rig = Rig::new(Wish::default());
    for (to, gateway) in [(BEHIND, LAN_GATEWAY), (WAN_HOST6, LAN_GATEWAY6)] {
        let first = text(&rig.lan.try_run(&format!("ping -c 1 -W 20 -t 1 {to}")).stdout);
        let told = first.contains("Time to live exceeded") || first.contains("Hop limit");
        assert!(told && first.to_lowercase().contains(&format!("from {gateway}")), "{first}");
        let second = rig.lan.run(&format!("ping -c 1 -W 20 -t 2 {to}"));
        assert!(second.contains("ttl=63"), "{second}");
    }
    assert_eq!(rig.dropped("ttl-exceeded"), 2);
    rig.assert_balance();
}

#[test]
fn a_small_mtu_is_told_to_senders() {
    let rig = Rig::new(Wish { wan_mtu: 1300, ..Wish::default() });
    let four = text(&rig.lan.try_run(&format!("ping -c 1 -W 20 -M do -s 1400 {WAN_HOST}")).stdout);
    assert!(four.contains("Frag needed and DF set (mtu = 1300)"), "{four}");
    let six = text(&rig.lan.try_run(&format!("ping -c 1 -W 20 -M do -s 1400 {WAN_HOST6}")).stdout);
    assert!(six.contains("Packet too big: mtu=1300"), "{six}");
    let learned = rig.lan.run(&format!("ip route get {WAN_HOST}"));
    assert!(learned.contains("mtu 1300"), "{learned}");

    // The WAN host believes in 1500 bytes, so only the gateway's word makes the server send less;
    // and that word has to be translated back to the server's own address.
    rig.wan.run("ip link set wan-host mtu 1500");
    let _inside = Server::http(&rig.lan, &format!("{LAN_HOST}:80"));
    rig.lan.run("ip route flush cache");
    let before = rig.dropped("too-big");
    let output = curl(&rig.wan, &format!("http://{WAN_GATEWAY}:8080/600000"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == body(600_000));
    assert!(rig.dropped("too-big") > before);
    rig.assert_balance();
}

#[test]
fn neighbours_are_learned_and_followed() {
    let rig = Rig::new(Wish::default());
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
    // The first packet waits for the answer to the gateway's ARP question and is not lost.
    assert!(exchange(&socket, b"first").is_ok());

    // The host changes its address and says so by asking for the gateway.
    rig.wan.run("ip link set wan-host address 02:00:00:00:78:99");
    rig.wan.run("ip neigh flush all");
    rig.wan.run(&format!("ping -c 1 -W 20 {WAN_GATEWAY}"));
    assert!(exchange(&socket, b"second").is_ok());

    rig.assert_balance();
}

/// Nobody has 198.51.100.77: three questions, then the sender is told and nothing stays held.
fn an_unreachable_host(rules4: &'static str, told_by: &str) {
    let rig = Rig::new(Wish { rules4, ..Wish::default() });
    let lost = text(&rig.lan.try_run("ping -c 1 -W 8 198.51.100.77").stdout);
    assert_eq!(rig.dropped("neighbour-failed"), 1);
    eventually("nothing is held", || rig.files().stats()["totals"]["held"] == 0);
    rig.assert_balance();
    assert!(lost.contains(&format!("From {told_by}")), "{lost}");
    assert!(lost.contains("Destination Host Unreachable"), "{lost}");
}

#[test]
fn a_host_that_does_not_answer_is_given_up_and_its_callers_are_told() {
    an_unreachable_host("", LAN_GATEWAY);
}

#[test]
fn a_translated_caller_is_told_too() {
    an_unreachable_host(RULES4, WAN_GATEWAY);
}
