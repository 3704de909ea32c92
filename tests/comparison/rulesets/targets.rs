//! What a random rule does with a packet.
//!
//! Not drawn is what a kernel decides by lot, as a port out of a range that the packet's own is not
//! in, and what sends packets to hosts that are not there: who has no neighbour is asked for, and
//! told of seconds later.

use super::matches::{Asked, MARKS, MASKS, Place, masked};
use super::scene;
use crate::packets::{SCTP, TCP, UDP};
use crate::random::dice::Dice;
use crate::topology::Side;
use std::net::IpAddr;

/// Every port that NAT is told to give.
pub const PORTS: [u16; 6] = [80, 8080, 53, 9, 5555, 6666];

/// Draws a target for a rule that asks for a protocol.
type Draw = fn(&Place<'_>, &Asked, &mut Dice) -> Option<String>;

/// Targets that stand in every table.
const EVERYWHERE: &[(u64, Draw)] = &[
    (6, accept),
    (4, drop),
    (4, back),
    (4, nothing),
    (6, mark),
    (6, connmark),
    (3, log),
    (4, nflog),
    (1, trace),
    (2, tcpmss),
];

const RAW: &[(u64, Draw)] = &[(5, notrack), (8, ct)];
const MANGLE: &[(u64, Draw)] =
    &[(4, tos), (4, dscp), (5, hops), (3, ecn), (3, tcpoptstrip), (6, mark), (6, connmark)];
const NAT: &[(u64, Draw)] = &[(14, snat), (14, dnat), (14, masquerade), (6, redirect), (6, netmap)];
const FILTER: &[(u64, Draw)] = &[(10, reject), (8, accept), (4, drop)];

/// A whole rule but for its chain: what it asks and what it does.
pub fn draw(place: &Place<'_>, asked: Asked, dice: &mut Dice) -> String {
    let own = match place.table {
        "raw" => RAW,
        "mangle" => MANGLE,
        "nat" => NAT,
        _ => FILTER,
    };
    let own_of_hundred = if place.table == "nat" { 75 } else { 45 };
    for _ in 0..20 {
        let list = if dice.percent(own_of_hundred) { own } else { EVERYWHERE };
        if let Some(text) = dice.weighted(list)(place, &asked, dice) {
            return asked.text + &text;
        }
    }
    asked.text
}

fn accept(_: &Place<'_>, _: &Asked, _: &mut Dice) -> Option<String> {
    Some(" -j ACCEPT".into())
}

fn drop(place: &Place<'_>, _: &Asked, _: &mut Dice) -> Option<String> {
    (place.table != "nat").then(|| " -j DROP".into())
}

fn back(_: &Place<'_>, _: &Asked, _: &mut Dice) -> Option<String> {
    Some(" -j RETURN".into())
}

/// A rule that only counts.
fn nothing(_: &Place<'_>, _: &Asked, _: &mut Dice) -> Option<String> {
    Some(String::new())
}

fn mark(_: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    let value = dice.pick(&MARKS);
    Some(match dice.below(8) {
        0 => format!(" -j MARK --set-xmark {:#x}/{:#x}", value, dice.pick(&MASKS)),
        1 => format!(" -j MARK --and-mark {value:#x}"),
        2 => format!(" -j MARK --or-mark {value:#x}"),
        3 => format!(" -j MARK --xor-mark {value:#x}"),
        _ => format!(" -j MARK --set-mark {}", masked(dice)),
    })
}

fn connmark(_: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    let value = dice.pick(&MARKS);
    let shift = ["", "", "", " --left-shift-mark 4", " --right-shift-mark 2"];
    Some(match dice.below(12) {
        0 => format!(" -j CONNMARK --and-mark {value:#x}"),
        1 => format!(" -j CONNMARK --or-mark {value:#x}"),
        2 => format!(" -j CONNMARK --xor-mark {value:#x}"),
        3 => format!(" -j CONNMARK --set-xmark {value:#x}/0xff{}", dice.pick(&shift)),
        4 => format!(" -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff{}", dice.pick(&shift)),
        5 => format!(" -j CONNMARK --restore-mark --mask {:#x}", dice.pick(&MASKS)),
        6..=8 => " -j CONNMARK --restore-mark".into(),
        9 | 10 => " -j CONNMARK --save-mark".into(),
        _ => format!(" -j CONNMARK --set-mark {}", masked(dice)),
    })
}

fn log(place: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    let level = if dice.percent(30) { " --log-level 6" } else { "" };
    Some(format!(" -j LOG --log-prefix \"rule{} \"{level}", place.number))
}

fn nflog(place: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    let group = dice.between(1, 3);
    let prefix = match dice.percent(80) {
        true => format!(" --nflog-prefix rule{}", place.number),
        false => String::new(),
    };
    Some(format!(" -j NFLOG{prefix} --nflog-group {group}"))
}

fn trace(_: &Place<'_>, _: &Asked, _: &mut Dice) -> Option<String> {
    Some(" -j TRACE".into())
}

fn tcpmss(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    asked.proto.filter(|proto| *proto == TCP)?;
    // Two matches of one name are one in the listing.
    if asked.text.contains("-m tcp ") {
        return None;
    }
    let clamps = place.only(&["FORWARD", "OUTPUT", "POSTROUTING"]) && dice.percent(50);
    let what = if clamps { "--clamp-mss-to-pmtu" } else { "--set-mss 1200" };
    Some(format!(" -m tcp --tcp-flags SYN,RST SYN -j TCPMSS {what}"))
}

/// An error about a packet that is not tracked is tracked in a kernel, whatever CT says of it.
fn is_heard(place: &Place<'_>) -> bool {
    !place.homes.contains(&"OUTPUT")
}

fn notrack(place: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    if !is_heard(place) {
        return None;
    }
    Some(dice.pick(&[" -j NOTRACK", " -j CT --notrack"]).into())
}

fn ct(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    if !is_heard(place) {
        return None;
    }
    // A zone for one direction is not drawn: a kernel can hold the same tuple twice in a zone, once
    // as an original one and once as a reply, and Sluicegate cannot.
    Some(match dice.below(6) {
        0 | 1 if asked.proto == Some(UDP) => " -j CT --helper tftp".into(),
        0 | 1 => " -j CT --zone mark".into(),
        2 | 3 => format!(" -j CT --zone {}", dice.between(1, 3)),
        4 => " -j CT --ctevents new,destroy".into(),
        _ => " -j CT".into(),
    })
}

fn tos(_: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    Some(match dice.below(5) {
        0 => " -j TOS --and-tos 0x0f".into(),
        1 => " -j TOS --or-tos 0x80".into(),
        2 => " -j TOS --xor-tos 0x11".into(),
        3 => " -j TOS --set-tos Minimize-Cost".into(),
        _ => " -j TOS --set-tos 0x10/0x3f".into(),
    })
}

fn dscp(_: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    let value = dice.pick(&["--set-dscp 0x2e", "--set-dscp 1", "--set-dscp-class AF41"]);
    Some(format!(" -j DSCP {value}"))
}

fn hops(place: &Place<'_>, _: &Asked, dice: &mut Dice) -> Option<String> {
    let (target, name) = if place.four() { ("TTL", "ttl") } else { ("HL", "hl") };
    let what = dice.weighted(&[
        (3, "set 64"),
        (1, "set 1"),
        (2, "set 200"),
        (3, "inc 3"),
        (1, "inc 250"),
        (3, "dec 1"),
        (1, "dec 60"),
    ]);
    Some(format!(" -j {target} --{name}-{what}"))
}

fn ecn(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    let tcp = ["--ecn-tcp-remove", "--ecn-tcp-ece 1", "--ecn-tcp-cwr 0 --ecn-ip-ect 0"];
    let what = match asked.proto {
        _ if !place.four() => return None,
        Some(TCP) => dice.pick(&tcp),
        _ => dice.pick(&["--ecn-ip-ect 2", "--ecn-ip-ect 0"]),
    };
    Some(format!(" -j ECN {what}"))
}

fn tcpoptstrip(_: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    asked.proto.filter(|proto| *proto == TCP)?;
    let kinds =
        dice.pick(&["mss", "wscale,timestamp", "sack-permitted,sack", "timestamp", "3,4,5"]);
    Some(format!(" -j TCPOPTSTRIP --strip-options {kinds}"))
}

fn reject(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    // A gateway that refuses its own packets hears of it by the loopback interface.
    if place.homes.contains(&"OUTPUT") {
        return None;
    }
    if asked.proto == Some(TCP) && dice.percent(50) {
        return Some(" -j REJECT --reject-with tcp-reset".into());
    }
    let four = [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-port-unreachable",
        "icmp-proto-unreachable",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "icmp-admin-prohibited",
    ];
    let six = [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "icmp6-policy-fail",
        "icmp6-reject-route",
    ];
    let kind = if place.four() { dice.pick(&four) } else { dice.pick(&six) };
    Some(match dice.percent(30) {
        true => " -j REJECT".into(),
        false => format!(" -j REJECT --reject-with {kind}"),
    })
}

/// An address, and a port behind it where the rule's protocol has ports.
fn with_port(address: &str, four: bool, port: Option<String>) -> String {
    match port {
        None => address.to_owned(),
        Some(port) if four => format!("{address}:{port}"),
        Some(port) => format!("[{address}]:{port}"),
    }
}

fn ported(proto: Option<u8>) -> bool {
    proto.is_some_and(|proto| matches!(proto, TCP | UDP | SCTP))
}

fn snat(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    // In INPUT it has an answer leave where the new address lies, until its conn turns it back.
    if !place.only(&["POSTROUTING"]) {
        return None;
    }
    let four = place.four();
    let address = match dice.percent(60) {
        true => scene::gateway(four, Side::Wan, dice),
        false => scene::public(four, dice),
    };
    // Every client's port is above 511: it stays in these ranges, or is the only one.
    let ports = ["512-65535", "512-65535", "5555"];
    let port = (ported(asked.proto) && dice.percent(30)).then(|| dice.pick(&ports).to_owned());
    let more = dice.weighted(&[(6, ""), (1, " --persistent")]);
    let to = with_port(&address.to_string(), four, port);
    Some(format!(" -j SNAT --to-source {to}{more}"))
}

fn masquerade(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    if !place.only(&["POSTROUTING"]) {
        return None;
    }
    let ports = dice.pick(&["512-65535", "6666"]);
    Some(match ported(asked.proto) && dice.percent(25) {
        true => format!(" -j MASQUERADE --to-ports {ports}"),
        false => " -j MASQUERADE".into(),
    })
}

fn dnat(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    if !place.only(&["PREROUTING", "OUTPUT"]) {
        return None;
    }
    let four = place.four();
    let side = dice.weighted(&[(5, Side::Lan), (1, Side::Wan)]);
    let hosts = side.hosts();
    let of_family = if four { &hosts[..4] } else { &hosts[4..] };
    let address: IpAddr = dice.pick(of_family);
    let port =
        (ported(asked.proto) && dice.percent(50)).then(|| dice.pick(&["80", "8080", "53"]).into());
    let to = with_port(&address.to_string(), four, port);
    Some(format!(" -j DNAT --to-destination {to}"))
}

fn redirect(place: &Place<'_>, asked: &Asked, dice: &mut Dice) -> Option<String> {
    // An error about a packet of which only one direction is known by its conn may be turned to the
    // gateway itself, and come back by the loopback interface.
    if !place.only(&["PREROUTING"]) || place.apart {
        return None;
    }
    Some(match ported(asked.proto) && dice.percent(60) {
        true => format!(" -j REDIRECT --to-ports {}", dice.pick(&[80u16, 8080, 9])),
        false => " -j REDIRECT".into(),
    })
}

/// Between the hosts inside and the public addresses with the same last part.
fn netmap(place: &Place<'_>, asked: &Asked, _: &mut Dice) -> Option<String> {
    let (inside, public) = match place.four() {
        true => ("10.1.0.0/24", "192.0.2.0/24"),
        false => ("fd00:1::/64", "2001:db8:99::/64"),
    };
    if asked.text.contains(" -s ") || asked.text.contains(" -d ") {
        return None;
    }
    match (place.only(&["PREROUTING"]), place.only(&["POSTROUTING"])) {
        (true, _) => Some(format!(" -d {public} -j NETMAP --to {inside}")),
        (_, true) => Some(format!(" -s {inside} -j NETMAP --to {public}")),
        _ => None,
    }
}
