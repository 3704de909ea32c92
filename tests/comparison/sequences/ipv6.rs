//! The same over IPv6.

use super::{Ends, HIGH, MASQUERADE, NOT_INVALID, STATEFUL, Sequence, Setup, sequence, tables};
use crate::packets::{Packet, echo, echo_reply, error, icmp, other, tcp, too_big, udp};
use crate::script::Script;
use crate::topology::{C1_6, C2_6, GATEWAY_LAN_6, GATEWAY_WAN_6, S1_6, S2_6};
use std::net::IpAddr;

/// Sequences over IPv6.
pub fn group() -> Vec<Sequence> {
    vec![
        tcp_states(),
        datagrams(),
        echoed(),
        errors(),
        hop_limit(),
        too_large(),
        no_route(),
        masquerade(),
        masquerade_errors(),
        dnat(),
        rejects(),
        gateway(),
        input_policy(),
        notrack(),
        damaged(),
        marks_of_the_header(),
        redirects(),
        short_messages(),
    ]
}

/// Rules for IPv6; IPv4 is forwarded statefully.
fn only6(rules: &[(&str, &str)]) -> Setup {
    let rules4 = tables(&[("filter", STATEFUL)]);
    Setup { rules4, rules6: tables(rules), settings: &[], wan_mtu: 1500 }
}

fn stateful(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, only6(&[("filter", STATEFUL)]), script)
}

fn masqueraded(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, only6(&[("filter", STATEFUL), ("nat", MASQUERADE)]), script)
}

const CLIENT: (IpAddr, u16) = (C1_6, 4000);
const SERVER: (IpAddr, u16) = (S1_6, 53);

fn tcp_states() -> Sequence {
    stateful("ipv6-tcp", "a connection from SYN to TIME_WAIT, and a reset", |s| {
        let ends = Ends::plain(CLIENT, (S1_6, 80));
        ends.open(s);
        s.table();
        s.lan(ends.c("PA", 1001, 5001).payload(b"request"));
        s.wan(ends.s("PA", 500_000, 1008).payload(b"far away"));
        s.wan(ends.s("FA", 5001, 1008));
        s.lan(ends.c("FA", 1008, 5002));
        s.wan(ends.s("A", 5002, 1009));
        s.table();
        s.wan(tcp((S1_6, 80), (C1_6, 4001), "S", 1, 0));
        s.lan(tcp((C1_6, 4002), (S1_6, 80), "S", 1, 0));
        s.wan(tcp((S1_6, 80), (C1_6, 4002), "RA", 0, 2));
        s.table();
    })
}

fn datagrams() -> Sequence {
    stateful("ipv6-udp", "answered and unanswered datagrams", |s| {
        s.lan(udp(CLIENT, SERVER).payload(b"question"));
        s.table();
        s.wan(udp(SERVER, CLIENT).payload(b"answer"));
        s.wan(udp((S2_6, 53), CLIENT).payload(b"spoofed"));
        s.table();
    })
}

fn echoed() -> Sequence {
    stateful("ipv6-echo", "requests, replies, strays and unknown types", |s| {
        s.lan(echo(C1_6, S1_6, 77, 1));
        s.wan(echo_reply(S1_6, C1_6, 77, 1));
        s.wan(echo_reply(S1_6, C1_6, 78, 1));
        s.lan(echo_reply(C1_6, S1_6, 78, 1));
        s.lan(icmp(C1_6, S1_6, 139, 0, [0, 1, 0, 0]));
        s.lan(icmp(C1_6, S1_6, 200, 0, [0, 1, 0, 0]));
        s.table();
    })
}

fn errors() -> Sequence {
    stateful("ipv6-errors", "related, unrelated, to the wrong host, unassigned types", |s| {
        let question = udp(CLIENT, SERVER).payload(b"question");
        s.wan(error(S1_6, C1_6, 1, 4, &question));
        s.lan(question.clone());
        s.wan(error(S1_6, C1_6, 1, 4, &question));
        s.wan(error(S2_6, C1_6, 3, 0, &question));
        s.wan(too_big(S2_6, C1_6, 1280, &question));
        s.wan(error(S2_6, C1_6, 4, 1, &question));
        s.wan(error(S2_6, C1_6, 77, 0, &question));
        s.wan(error(S2_6, C2_6, 1, 4, &question));
        s.wan(error(S1_6, C1_6, 1, 4, &question).bad_checksum());
        s.table();
    })
}

fn hop_limit() -> Sequence {
    stateful("ipv6-hop-limit", "hop limit 1 and 0 are answered and leave no entry", |s| {
        s.lan(udp(CLIENT, SERVER).payload(b"question").ttl(1));
        s.lan(udp(CLIENT, SERVER).payload(b"question").ttl(0));
        s.lan(udp(CLIENT, SERVER).payload(b"question").ttl(2));
        s.wan(udp(SERVER, CLIENT).payload(b"answer").ttl(1));
        s.table();
    })
}

fn too_large() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..only6(&[("filter", STATEFUL)]) };
    sequence("ipv6-too-large", "larger than the next MTU: packet too big", setup, |s| {
        s.lan(udp(CLIENT, SERVER).payload(&[1; 1400]));
        s.lan(udp(CLIENT, SERVER).payload(&[1; 1252]));
        s.lan(udp(CLIENT, SERVER).payload(&[1; 1253]));
        s.table();
    })
}

fn no_route() -> Sequence {
    stateful("ipv6-no-route", "a destination without route: no route to destination", |s| {
        let nowhere = "2001:db8:dead::1".parse().expect("an address");
        s.lan(udp(CLIENT, (nowhere, 53)).payload(b"lost"));
        s.lan(echo(C1_6, nowhere, 1, 1));
        s.table();
    })
}

fn masquerade() -> Sequence {
    masqueraded("ipv6-masquerade", "ports kept and replaced; ids; answers", |s| {
        s.lan(udp(CLIENT, SERVER).payload(b"question"));
        let step = s.lan(udp((C2_6, 4000), SERVER).payload(b"question"));
        let outside = s.learn(step, HIGH, "port of C2");
        s.wan(udp(SERVER, outside).payload(b"to C2"));
        s.wan(udp(SERVER, (GATEWAY_WAN_6, 4000)).payload(b"to C1"));
        s.lan(echo(C1_6, S1_6, 5, 1));
        s.wan(echo_reply(S1_6, GATEWAY_WAN_6, 5, 1));
        s.lan(tcp(CLIENT, (S1_6, 80), "S", 1000, 0));
        s.wan(tcp((S1_6, 80), (GATEWAY_WAN_6, 4000), "SA", 1, 1001));
        s.table();
    })
}

fn masquerade_errors() -> Sequence {
    masqueraded("ipv6-masquerade-errors", "quote and receiver are translated back", |s| {
        s.lan(udp(CLIENT, SERVER).payload(b"question"));
        let seen = udp((GATEWAY_WAN_6, 4000), SERVER).payload(b"question");
        s.wan(error(S1_6, GATEWAY_WAN_6, 1, 4, &seen));
        s.wan(too_big(S2_6, GATEWAY_WAN_6, 1300, &seen));
        s.wan(error(S2_6, GATEWAY_WAN_6, 3, 0, &seen.clone().cut(48)));
        s.lan(udp(CLIENT, SERVER).payload(b"question").ttl(1));
        s.table();
    })
}

fn dnat() -> Sequence {
    let nat = "\
-A PREROUTING -i wan -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:1::11]:80
";
    let setup = only6(&[("filter", NOT_INVALID), ("nat", nat)]);
    sequence("ipv6-dnat", "an outside port leads to an inside server", setup, |s| {
        s.wan(tcp((S1_6, 4000), (GATEWAY_WAN_6, 8080), "S", 1000, 0));
        s.lan(tcp((C1_6, 80), (S1_6, 4000), "SA", 5000, 1001));
        s.table();
    })
}

fn rejects() -> Sequence {
    let types = [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "icmp6-policy-fail",
        "icmp6-reject-route",
    ];
    let mut filter = String::from(NOT_INVALID);
    for (at, kind) in types.iter().enumerate() {
        let port = 101 + at;
        filter.push_str(&format!(
            "-A FORWARD -p udp -m udp --dport {port} -j REJECT --reject-with {kind}\n"
        ));
    }
    filter.push_str(
        "\
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -j REJECT
",
    );
    sequence("ipv6-rejects", "each answer of REJECT", only6(&[("filter", &filter)]), |s| {
        for port in 101..=107 {
            s.lan(udp(CLIENT, (S1_6, port)).payload(b"abc"));
        }
        s.lan(tcp(CLIENT, (S1_6, 80), "S", 1000, 0));
        s.lan(tcp(CLIENT, (S1_6, 80), "A", 1000, 7000));
        s.lan(tcp(CLIENT, (S1_6, 80), "R", 1000, 0));
        s.lan(udp(CLIENT, (S1_6, 101)).payload(&[2; 1400]));
        s.table();
    })
}

fn gateway() -> Sequence {
    stateful("ipv6-gateway", "pings, a closed TCP port, a closed UDP port", |s| {
        s.lan(echo(C1_6, GATEWAY_LAN_6, 1, 1));
        s.wan(echo(S1_6, GATEWAY_WAN_6, 2, 1).ttl(1));
        s.lan(echo(C1_6, GATEWAY_WAN_6, 3, 1));
        s.wan(tcp((S1_6, 4000), (GATEWAY_WAN_6, 7000), "S", 1000, 0));
        s.wan(udp((S1_6, 4000), (GATEWAY_WAN_6, 7000)).payload(b"anybody"));
        s.table();
    })
}

fn input_policy() -> Sequence {
    let filter = "\
:INPUT DROP [0:0]
-A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type 128 -i lan -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
";
    sequence(
        "ipv6-input-policy",
        "INPUT's policy, echo from inside excepted",
        only6(&[("filter", filter)]),
        |s| {
            s.lan(echo(C1_6, GATEWAY_LAN_6, 1, 1));
            s.wan(echo(S1_6, GATEWAY_WAN_6, 2, 1));
            s.wan(udp((S1_6, 4000), (GATEWAY_WAN_6, 7000)));
            s.table();
        },
    )
}

fn notrack() -> Sequence {
    let raw = "-A PREROUTING -p udp -m udp --dport 53 -j CT --notrack\n";
    let setup = only6(&[("raw", raw), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    sequence("ipv6-notrack", "no entry and no translation", setup, |s| {
        s.lan(udp(CLIENT, SERVER));
        s.lan(udp(CLIENT, (S1_6, 54)));
        s.table();
    })
}

fn damaged() -> Sequence {
    stateful("ipv6-damaged", "wrong checksums and cut packets", |s| {
        s.lan(udp(CLIENT, SERVER).payload(b"x").bad_checksum());
        s.lan(echo(C1_6, S1_6, 1, 1).bad_checksum());
        s.lan(tcp(CLIENT, (S1_6, 80), "S", 1, 0).bad_checksum());
        for length in [59, 50, 44, 40, 39, 8] {
            s.lan(tcp(CLIENT, (S1_6, 80), "S", 1, 0).cut(length));
        }
        s.table();
    })
}

/// A redirect from a neighbour on the link, about hosts inside; `options` follow.
fn redirect(src: IpAddr, options: &[u8]) -> Packet {
    let address = |of: IpAddr| match of {
        IpAddr::V6(of) => of.octets(),
        IpAddr::V4(_) => [0; 16],
    };
    let message = [&address(C2_6)[..], &address(C1_6), options].concat();
    icmp(src, C1_6, 137, 0, [0; 4]).payload(&message)
}

fn redirects() -> Sequence {
    // Nobody forwards what a link-local address sends, nor answers it here.
    let setup = only6(&[("mangle", "-A PREROUTING -p icmpv6 -j DROP\n"), ("filter", STATEFUL)]);
    sequence("ipv6-redirects", "redirects are checked before what they quote", setup, |s| {
        let link_local = IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, 0x51]);
        s.lan(udp(CLIENT, SERVER).payload(b"question"));
        let quote = udp(CLIENT, SERVER).payload(b"question").bytes();
        let length = (8 + quote.len()).div_ceil(8) as u8;
        let quoted = [&[4, length, 0, 0, 0, 0, 0, 0][..], &quote].concat();
        s.wan(redirect(link_local, &quoted).ttl(255));
        s.wan(redirect(link_local, &quoted).ttl(64));
        s.wan(redirect(S1_6, &quoted).ttl(255));
        s.wan(redirect(link_local, &[]).ttl(255));
        s.wan(redirect(link_local, &[4]).ttl(255));
        s.wan(redirect(link_local, &[4, 0, 0, 0, 0, 0, 0, 0]).ttl(255));
        s.wan(redirect(link_local, &[2, 1, 0, 0, 0, 0, 0, 0]).ttl(255));
        s.wan(icmp(link_local, C1_6, 137, 1, [0; 4]).payload(&[0; 40]).ttl(255));
        s.wan(icmp(link_local, C1_6, 137, 0, [0; 4]).payload(&[0; 31]).ttl(255));
        s.table();
    })
}

fn short_messages() -> Sequence {
    stateful("ipv6-short", "datagrams, segments and messages below their headers", |s| {
        for length in [0, 1, 3, 4, 7, 8, 12, 19] {
            for protocol in [6, 17, 58] {
                s.lan(other(C1_6, S1_6, protocol, &vec![0; length]));
            }
        }
        s.table();
    })
}

fn marks_of_the_header() -> Sequence {
    stateful("ipv6-header-kept", "the traffic class stays, the hop limit falls", |s| {
        s.lan(udp(CLIENT, SERVER).tos(0xb8).ttl(255));
        s.wan(udp(SERVER, CLIENT).tos(0x03).ttl(9));
    })
}
