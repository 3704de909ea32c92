//! Packets to and from the gateway itself.

use super::{MASQUERADE, NOT_INVALID, Sequence, both, only4, sequence};
use crate::packets::{echo, echo_reply, error, other, tcp, udp};
use crate::script::Script;
use crate::topology::{C1, C1_6, GATEWAY_LAN, GATEWAY_LAN_6, GATEWAY_WAN, S1, S1_6, SECOND_WAN};

/// Sequences about the gateway as a host.
pub fn group() -> Vec<Sequence> {
    vec![
        pinged(),
        refused_tcp(),
        refused_udp(),
        damaged(),
        input_policy(),
        output_policy(),
        input_rejects(),
        last_hop(),
        errors_received(),
        pinged_untracked(),
        tos_of_answers(),
        answers_in_raw(),
    ]
}

/// Filter rules of INPUT and OUTPUT.
fn gateway(
    name: &'static str,
    shows: &'static str,
    filter: &str,
    script: fn(&mut Script<'_>),
) -> Sequence {
    let filter = format!("{filter}{NOT_INVALID}");
    sequence(name, shows, only4(&[("filter", &filter), ("nat", MASQUERADE)]), script)
}

fn pinged() -> Sequence {
    gateway(
        "gateway-pinged",
        "each address answers, from either side; entries are answered",
        "",
        |s| {
            s.lan(echo(C1, GATEWAY_LAN, 1, 1));
            s.wan(echo(S1, GATEWAY_WAN, 2, 1));
            s.wan(echo(S1, SECOND_WAN, 3, 1).tos(0x10).ttl(1));
            s.lan(echo(C1, SECOND_WAN, 4, 1).payload(&[6; 1400]).dont_fragment());
            s.wan(echo(S1, GATEWAY_LAN, 5, 1));
            s.table();
        },
    )
}

fn tos_of_answers() -> Sequence {
    let filter = "\
-A INPUT -p tcp --dport 7001 -j REJECT --reject-with tcp-reset
-A INPUT -p udp --dport 7001 -j REJECT
-A INPUT -m conntrack --ctstate INVALID -j DROP
";
    let setup = both(&[("filter", filter)]);
    let shows = "type of service and traffic class of what the gateway answers";
    sequence("gateway-tos", shows, setup, |s| {
        for (host, gateway) in [(C1, GATEWAY_LAN), (C1_6, GATEWAY_LAN_6)] {
            for tos in [0x28, 0x2b, 0xe3, 0x01, 0x1e] {
                for port in [7000, 7001] {
                    s.lan(tcp((host, 4000), (gateway, port), "S", 1000, 0).tos(tos));
                    s.lan(tcp((host, 4001), (gateway, port), "A", 1000, 9000).tos(tos));
                    s.lan(udp((host, 4000), (gateway, port)).tos(tos));
                }
                s.lan(echo(host, gateway, 7, 1).tos(tos));
                s.lan(other(host, gateway, 253, b"four").tos(tos));
                let far = if host.is_ipv4() { S1 } else { S1_6 };
                s.lan(udp((host, 4000), (far, 53)).tos(tos).ttl(1));
            }
        }
        s.table();
    })
}

/// What rules of the table raw see as RELATED has another class outside.
fn answers_in_raw() -> Sequence {
    let raw = "-A OUTPUT -m conntrack --ctstate RELATED -j MARK --set-mark 1\n";
    let mangle = "\
-A POSTROUTING -m mark --mark 1 -j TOS --set-tos 0x20
-A POSTROUTING -m conntrack --ctstate RELATED -j TOS --or-tos 0x04
";
    let filter = "-A INPUT -p udp --dport 7001 -j REJECT\n-A FORWARD -j REJECT\n";
    let setup = both(&[("raw", raw), ("mangle", mangle), ("filter", filter)]);
    let shows = "an answer has its conn in the table raw, but not one about what was delivered";
    sequence("gateway-answers-in-raw", shows, setup, |s| {
        for (host, gateway, far) in [(C1, GATEWAY_LAN, S1), (C1_6, GATEWAY_LAN_6, S1_6)] {
            s.lan(udp((host, 4000), (gateway, 7000)));
            s.lan(udp((host, 4000), (gateway, 7001)));
            s.lan(tcp((host, 4000), (gateway, 7000), "S", 1000, 0));
            s.lan(other(host, gateway, 253, b"four"));
            s.lan(udp((host, 4000), (far, 53)));
            s.lan(udp((host, 4000), (far, 53)).ttl(1));
        }
        s.table();
    })
}

fn refused_tcp() -> Sequence {
    gateway("gateway-refuses-tcp", "a closed port answers RST; never an RST to an RST", "", |s| {
        let to = (GATEWAY_WAN, 7000);
        s.wan(tcp((S1, 4000), to, "S", 1000, 0));
        s.table();
        s.wan(tcp((S1, 4001), to, "S", 1000, 0).payload(b"early"));
        s.wan(tcp((S1, 4002), to, "A", 1000, 9000));
        s.wan(tcp((S1, 4003), to, "R", 1000, 0));
        s.table();
    })
}

fn refused_udp() -> Sequence {
    gateway("gateway-refuses-udp", "a closed port answers port unreachable", "", |s| {
        s.wan(udp((S1, 4000), (GATEWAY_WAN, 7000)).payload(b"anybody"));
        s.lan(udp((C1, 4000), (SECOND_WAN, 7000)).payload(&[7; 900]));
        s.table();
    })
}

fn damaged() -> Sequence {
    gateway("gateway-damaged", "nothing answers a wrong checksum", "", |s| {
        s.wan(udp((S1, 4000), (GATEWAY_WAN, 7000)).payload(b"x").bad_checksum());
        s.wan(tcp((S1, 4000), (GATEWAY_WAN, 7000), "S", 1, 0).bad_checksum());
        s.wan(echo(S1, GATEWAY_WAN, 1, 1).bad_checksum());
        s.wan(echo_reply(S1, GATEWAY_WAN, 1, 1));
        s.table();
    })
}

fn input_policy() -> Sequence {
    let filter = "\
:INPUT DROP [0:0]
-A INPUT -i lan -p icmp -m icmp --icmp-type 8 -j ACCEPT
";
    gateway(
        "input-policy",
        "INPUT's policy drops what no rule accepts, without entry",
        filter,
        |s| {
            s.lan(echo(C1, GATEWAY_LAN, 1, 1));
            s.wan(echo(S1, GATEWAY_WAN, 2, 1));
            s.wan(tcp((S1, 4000), (GATEWAY_WAN, 22), "S", 1, 0));
            s.lan(udp((C1, 4000), (GATEWAY_LAN, 53)));
            s.lan(udp((C1, 4000), (S1, 53)));
            s.table();
        },
    )
}

fn output_policy() -> Sequence {
    let filter = ":OUTPUT DROP [0:0]\n";
    gateway("output-policy", "OUTPUT's policy silences the gateway, its errors too", filter, |s| {
        s.lan(echo(C1, GATEWAY_LAN, 1, 1));
        s.lan(udp((C1, 4000), (GATEWAY_LAN, 53)));
        s.lan(udp((C1, 4000), (S1, 53)).ttl(1));
        s.lan(udp((C1, 4000), (S1, 53)));
        s.table();
    })
}

fn input_rejects() -> Sequence {
    let filter = "\
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -p udp -j REJECT --reject-with icmp-admin-prohibited
";
    gateway("input-rejects", "REJECT in INPUT", filter, |s| {
        s.wan(tcp((S1, 4000), (GATEWAY_WAN, 22), "S", 1000, 0));
        s.wan(udp((S1, 4000), (SECOND_WAN, 53)).payload(b"x"));
        s.table();
    })
}

fn last_hop() -> Sequence {
    gateway("gateway-last-hop", "TTL 1 is enough to reach the gateway", "", |s| {
        s.lan(echo(C1, GATEWAY_WAN, 1, 1).ttl(1));
        s.lan(udp((C1, 4000), (GATEWAY_LAN, 7000)).ttl(1));
        s.table();
    })
}

fn errors_received() -> Sequence {
    gateway("gateway-hears-errors", "errors to the gateway are not answered", "", |s| {
        s.wan(error(S1, GATEWAY_WAN, 3, 3, &udp((GATEWAY_WAN, 1), (S1, 2))));
        s.wan(echo_reply(S1, GATEWAY_WAN, 9, 1));
        s.wan(tcp((S1, 80), (GATEWAY_WAN, 4000), "SA", 1, 1));
        s.table();
    })
}

fn pinged_untracked() -> Sequence {
    let raw = "-A PREROUTING -p icmp -j CT --notrack\n";
    let setup = only4(&[("raw", raw), ("filter", NOT_INVALID)]);
    sequence("gateway-pinged-untracked", "an untracked request, a tracked reply", setup, |s| {
        s.lan(echo(C1, GATEWAY_LAN, 1, 1));
        s.table();
    })
}
