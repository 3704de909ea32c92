//! Packets to and from the gateway itself.

use super::{MASQUERADE, NOT_INVALID, Sequence, only4, sequence};
use crate::packets::{echo, echo_reply, error, tcp, udp};
use crate::script::Script;
use crate::topology::{C1, GATEWAY_LAN, GATEWAY_WAN, S1, SECOND_WAN};

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
