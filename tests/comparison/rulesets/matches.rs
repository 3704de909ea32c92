//! What a random rule asks of a packet.
//!
//! Each function draws one match, or none where it would not be valid: `iptables` or the kernel
//! would refuse it in that place. Values are those of the scene's packets, or near them.
//!
//! Not drawn is what goes by time: `time`; `limit`, `hashlimit` and `recent` are drawn with rates
//! so low and spans so long that no case lives to see them; `--ctexpire` with bounds that no
//! timeout is near. `statistic --mode random` is chance.

use super::scene::{self, TCP_PORTS, UDP_PORTS};
use crate::netns::mac;
use crate::packets::{GRE, ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::random::dice::Dice;
use crate::random::plan::Plan;
use crate::topology::Side;
use std::net::IpAddr;

/// Marks that rules set and ask for.
pub const MARKS: [u32; 6] = [1, 2, 3, 0x10, 0x2a, 0xff00];
/// Their masks; most often all bits.
pub const MASKS: [u32; 5] = [u32::MAX, u32::MAX, 0xf, 0xff, 0xff00];

/// Where a rule stands.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub plan: &'a Plan,
    pub table: &'static str,
    /// The built-in chains that lead there.
    pub homes: &'a [&'static str],
    /// Whether the chain is itself a built-in one, of which `iptables` knows what it can ask.
    pub base: bool,
    /// Whether the table raw has both directions of some conns tracked apart, or only one of them.
    pub apart: bool,
    /// A number of the rule's own in its set.
    pub number: usize,
}

impl Place<'_> {
    pub fn four(&self) -> bool {
        self.plan.policy.four
    }

    /// Whether packets come here from these chains alone.
    pub fn only(&self, homes: &[&str]) -> bool {
        self.homes.iter().all(|home| homes.contains(home))
    }

    /// A name for something that lives longer than a rule set: it is used once.
    pub fn unique(&self, letter: char) -> String {
        format!("{letter}{}x{}", self.plan.seed, self.number)
    }
}

/// What a rule asks, and the protocol it asks for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub text: String,
    pub proto: Option<u8>,
}

/// Draws a match for a rule of a protocol.
type Draw = fn(&Place<'_>, Option<u8>, &mut Dice) -> Option<String>;

/// Every match, with how often it is tried.
const MATCHES: &[(u64, Draw)] = &[
    (12, ports),
    (4, multiport),
    (8, conntrack),
    (4, state),
    (5, mark),
    (4, connmark),
    (1, helper),
    (2, iprange),
    (2, addrtype),
    (1, rpfilter),
    (2, mac_source),
    (1, pkttype),
    (3, length),
    (3, hops),
    (2, tos),
    (2, dscp),
    (2, ecn),
    (3, tcpmss),
    (2, statistic),
    (2, quota),
    (2, string),
    (3, u32),
    (2, recent),
    (2, limit),
    (2, hashlimit),
    (3, connbytes),
    (1, comment),
    (1, security),
];

/// Matches that ask for a conn.
const OF_CONNS: [&str; 3] = ["connmark", "connbytes", "helper"];

/// What a rule asks for.
pub fn draw(place: &Place<'_>, dice: &mut Dice) -> Asked {
    let mut asked = head(place, dice);
    let count = dice.weighted(&[(30, 0), (45, 1), (20, 2), (5, 3)]);
    let mut names = Vec::new();
    for _ in 0..count * 2 {
        if names.len() == count {
            break;
        }
        let Some(text) = dice.weighted(MATCHES)(place, asked.proto, dice) else { continue };
        let name = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
        // In the table raw a kernel shows what CT has said so far as a conn that there is not.
        if place.table == "raw" && OF_CONNS.contains(&name.as_str()) {
            continue;
        }
        if !names.contains(&name) {
            names.push(name);
            asked.text.push(' ');
            asked.text.push_str(&text);
        }
    }
    asked
}

/// What `iptables` asks without `-m`.
fn head(place: &Place<'_>, dice: &mut Dice) -> Asked {
    let mut text = String::new();
    let mut ask = |name: &str, value: &str, dice: &mut Dice| {
        text.push_str(&format!(" {}-{name} {value}", not(dice, 8)));
    };
    let flow = &place.plan.flows[dice.below(place.plan.flows.len() as u64) as usize];
    if dice.percent(25) {
        ask("s", &network(scene::end(place.plan, dice).0, dice), dice);
    }
    if dice.percent(25) {
        let address = scene::end(place.plan, dice).0;
        // A mask with holes; of tuples it is lost in a listing.
        let holes = address.is_ipv4() && dice.percent(10);
        let more = if holes { format!("{address}/255.0.255.254") } else { network(address, dice) };
        ask("d", &more, dice);
    }
    let ports = ["lan", "wan", "wan", "la+", "lo", "+"];
    if dice.percent(20) && !(place.base && place.only(&["OUTPUT", "POSTROUTING"])) {
        ask(
            "i",
            dice.weighted(&[(6, ports[0]), (8, ports[1]), (1, ports[3]), (1, ports[4])]),
            dice,
        );
    }
    if dice.percent(20) && !(place.base && place.only(&["PREROUTING", "INPUT"])) {
        ask(
            "o",
            dice.weighted(&[(6, ports[0]), (8, ports[1]), (1, ports[5]), (1, ports[4])]),
            dice,
        );
    }
    let proto = match dice.below(20) {
        0..=13 => Some(flow.protocol),
        14 => {
            text.push_str(&format!(" ! -p {}", flow.protocol));
            None
        }
        _ => None,
    };
    if let Some(proto) = proto {
        text.push_str(&format!(" -p {}", name(proto)));
    }
    if proto.is_none() && place.four() && dice.percent(2) {
        text.push_str(&format!(" {}-f", not(dice, 50)));
    }
    Asked { text, proto }
}

/// A protocol as `-p` takes it.
fn name(proto: u8) -> String {
    match proto {
        TCP => "tcp".into(),
        UDP => "udp".into(),
        ICMP => "icmp".into(),
        ICMPV6 => "ipv6-icmp".into(),
        SCTP => "sctp".into(),
        GRE => "gre".into(),
        other => other.to_string(),
    }
}

/// `! ` in so many of a hundred throws.
fn not(dice: &mut Dice, of_hundred: u64) -> &'static str {
    if dice.percent(of_hundred) { "! " } else { "" }
}

/// A network that an address is in.
fn network(address: IpAddr, dice: &mut Dice) -> String {
    match address {
        IpAddr::V4(address) => {
            let length = dice.pick(&[32, 32, 32, 31, 28, 24, 24, 16, 1]);
            let bits = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            let masked = std::net::Ipv4Addr::from(u32::from(address) & bits);
            if length == 32 { address.to_string() } else { format!("{masked}/{length}") }
        }
        IpAddr::V6(address) => {
            let length = dice.pick(&[128, 128, 127, 112, 64, 64, 32, 3]);
            let bits = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let masked = std::net::Ipv6Addr::from(u128::from(address) & bits);
            if length == 128 { address.to_string() } else { format!("{masked}/{length}") }
        }
    }
}

/// A port of the scene, or one that nobody has.
fn port(place: &Place<'_>, proto: u8, dice: &mut Dice) -> u16 {
    let services: &[u16] = if proto == UDP { &UDP_PORTS } else { &TCP_PORTS };
    match dice.below(4) {
        0 => dice.pick(services),
        _ => {
            let of_proto = place.plan.flows.iter().filter(|flow| flow.protocol == proto);
            let ends: Vec<u16> = of_proto.flat_map(|f| [f.client.1, f.called.1]).collect();
            if ends.is_empty() { dice.pick(services) } else { dice.pick(&ends) }
        }
    }
}

/// One port or a range of them.
fn port_range(place: &Place<'_>, proto: u8, dice: &mut Dice) -> String {
    let port = port(place, proto, dice);
    match dice.below(8) {
        0 => format!("{}:{}", port.saturating_sub(20), port.saturating_add(3)),
        1 => format!(":{port}"),
        2 => format!("{port}:"),
        _ => port.to_string(),
    }
}

/// The match of a protocol itself.
fn ports(place: &Place<'_>, proto: Option<u8>, dice: &mut Dice) -> Option<String> {
    let mut text = match proto? {
        TCP => "-m tcp".to_owned(),
        UDP => "-m udp".to_owned(),
        SCTP => "-m sctp".to_owned(),
        ICMP => return Some(icmp(dice)),
        ICMPV6 => return Some(icmp6(dice)),
        _ => return None,
    };
    let proto = proto?;
    for (of_hundred, name) in [(60, "dport"), (20, "sport")] {
        if dice.percent(of_hundred) {
            let range = port_range(place, proto, dice);
            text.push_str(&format!(" {}--{name} {range}", not(dice, 10)));
        }
    }
    if proto == TCP {
        let flags = ["FIN,SYN,RST,ACK SYN", "SYN,ACK SYN,ACK", "ALL NONE", "PSH,ACK PSH,ACK"];
        let more = ["RST RST", "FIN FIN", "SYN,FIN SYN,FIN", "ACK,URG ACK"];
        match dice.below(10) {
            0 => text.push_str(&format!(" {}--syn", not(dice, 30))),
            1 => text.push_str(&format!(" {}--tcp-flags {}", not(dice, 30), dice.pick(&flags))),
            2 => text.push_str(&format!(" {}--tcp-flags {}", not(dice, 30), dice.pick(&more))),
            3 => {
                text.push_str(&format!(" {}--tcp-option {}", not(dice, 30), dice.pick(&[2, 3, 8])))
            }
            _ => {}
        }
    }
    if proto == SCTP && dice.percent(40) {
        let which = dice.pick(&["any", "all", "only"]);
        let kinds =
            dice.pick(&["INIT", "DATA,SACK", "INIT_ACK,COOKIE_ECHO", "ABORT:t", "HEARTBEAT"]);
        text.push_str(&format!(" {}--chunk-types {which} {kinds}", not(dice, 20)));
    }
    Some(text)
}

fn icmp(dice: &mut Dice) -> String {
    let kinds = ["8", "0", "3", "3/3", "3/4", "11", "11/0", "any", "5", "echo-request"];
    format!("-m icmp {}--icmp-type {}", not(dice, 15), dice.pick(&kinds))
}

fn icmp6(dice: &mut Dice) -> String {
    let kinds = ["128", "129", "1", "1/4", "1/0", "2", "3", "echo-reply", "4"];
    format!("-m icmp6 {}--icmpv6-type {}", not(dice, 15), dice.pick(&kinds))
}

fn multiport(place: &Place<'_>, proto: Option<u8>, dice: &mut Dice) -> Option<String> {
    let proto = proto.filter(|proto| matches!(*proto, TCP | UDP | SCTP))?;
    let count = dice.between(1, 4);
    let element = |dice: &mut Dice| {
        let port = port(place, proto, dice);
        if dice.percent(25) { format!("{port}:{}", port + 5) } else { port.to_string() }
    };
    let list: Vec<String> = (0..count).map(|_| element(dice)).collect();
    let side = dice.pick(&["dports", "sports", "ports"]);
    Some(format!("-m multiport {}--{side} {}", not(dice, 15), list.join(",")))
}

/// Some of several words, at least one.
fn some(words: &[&str], dice: &mut Dice) -> String {
    let chosen: Vec<&str> = words.iter().filter(|_| dice.percent(40)).copied().collect();
    if chosen.is_empty() { dice.pick(words).to_owned() } else { chosen.join(",") }
}

fn state(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let states = ["INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED"];
    Some(format!("-m state {}--state {}", not(dice, 15), some(&states, dice)))
}

fn conntrack(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let mut text = "-m conntrack".to_owned();
    let count = dice.weighted(&[(5, 1), (1, 2)]);
    let mut seen = Vec::new();
    for _ in 0..count {
        let all = [(10, 0), (1, 1), (4, 2), (3, 6), (3, 10), (2, 11), (2, 12)];
        // In the table raw what CT has said is a conn without tuples to a kernel.
        let at = dice.weighted(if place.table == "raw" { &all[..1] } else { &all[..] });
        let at = if matches!(at, 2 | 6) { at + dice.below(4) as usize } else { at };
        if seen.contains(&at) {
            continue;
        }
        seen.push(at);
        let negated = not(dice, 15);
        text.push_str(&format!(" {}", conntrack_option(place, at, negated, dice)));
    }
    Some(text)
}

fn conntrack_option(place: &Place<'_>, at: usize, not: &str, dice: &mut Dice) -> String {
    let states = ["NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"];
    let statuses = ["EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"];
    let addresses = ["ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst"];
    let ports = ["ctorigsrcport", "ctorigdstport", "ctreplsrcport", "ctrepldstport"];
    let flow = &place.plan.flows[dice.below(place.plan.flows.len() as u64) as usize];
    match at {
        0 => format!("{not}--ctstate {}", some(&states, dice)),
        1 => format!("{not}--ctproto {}", flow.protocol),
        2..=5 => {
            let address = network(scene::end(place.plan, dice).0, dice);
            format!("{not}--{} {address}", addresses[at - 2])
        }
        6..=9 => {
            let port = port(place, flow.protocol, dice);
            let more = if dice.percent(25) { format!(":{}", port + 9) } else { String::new() };
            format!("{not}--{} {port}{more}", ports[at - 6])
        }
        10 if dice.percent(15) => format!("{not}--ctstatus NONE"),
        10 => format!("{not}--ctstatus {}", some(&statuses, dice)),
        11 => {
            let bounds = ["0:20", "20:45", "45:90", "90:150", "45", "150:1000", "1000:4000000"];
            format!("{not}--ctexpire {}", dice.pick(&bounds))
        }
        _ => format!("--ctdir {}", dice.pick(&["ORIGINAL", "REPLY"])),
    }
}

/// A mark and a mask as rules write them.
pub fn masked(dice: &mut Dice) -> String {
    match (dice.pick(&MARKS), dice.pick(&MASKS)) {
        (mark, u32::MAX) => format!("{mark:#x}"),
        (mark, mask) => format!("{:#x}/{mask:#x}", mark & mask),
    }
}

fn mark(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let value = if dice.percent(20) { "0x0".into() } else { masked(dice) };
    Some(format!("-m mark {}--mark {value}", not(dice, 20)))
}

fn connmark(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let value = if dice.percent(20) { "0x0".into() } else { masked(dice) };
    Some(format!("-m connmark {}--mark {value}", not(dice, 20)))
}

fn helper(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    Some(format!("-m helper {}--helper tftp", not(dice, 30)))
}

fn iprange(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let mut text = "-m iprange".to_owned();
    let which = dice.pick(&["src", "dst", "both"]);
    for side in ["src", "dst"].iter().filter(|side| which == "both" || which == **side) {
        let (low, high) = around(scene::end(place.plan, dice).0, dice);
        text.push_str(&format!(" {}--{side}-range {low}-{high}", not(dice, 15)));
    }
    Some(text)
}

/// Two addresses with another one between them.
pub fn around(address: IpAddr, dice: &mut Dice) -> (IpAddr, IpAddr) {
    let (below, above) = (dice.below(3), dice.below(3));
    match address {
        IpAddr::V4(address) => {
            let bits = u32::from(address);
            let at = |bits: u32| IpAddr::V4(bits.into());
            (at(bits - below as u32), at(bits + above as u32))
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address);
            let at = |bits: u128| IpAddr::V6(bits.into());
            (at(bits - u128::from(below)), at(bits + u128::from(above)))
        }
    }
}

fn addrtype(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let kinds: &[&str] = match place.four() {
        true => &["UNICAST", "LOCAL", "LOCAL,UNICAST", "MULTICAST", "BROADCAST"],
        false => &["LOCAL", "UNICAST", "MULTICAST", "LOCAL,MULTICAST"],
    };
    let side = dice.pick(&["src-type", "dst-type", "dst-type"]);
    let mut text = format!("-m addrtype {}--{side} {}", not(dice, 20), dice.pick(kinds));
    if place.four() && dice.percent(20) {
        if place.only(&["PREROUTING", "INPUT"]) {
            text.push_str(" --limit-iface-in");
        } else if place.only(&["OUTPUT", "POSTROUTING"]) {
            text.push_str(" --limit-iface-out");
        }
    }
    Some(text)
}

fn rpfilter(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let fits = matches!(place.table, "raw" | "mangle") && place.only(&["PREROUTING"]);
    let options = ["", " --loose", " --accept-local", " --loose --accept-local", " --validmark"];
    let invert = if dice.percent(40) { " --invert" } else { "" };
    fits.then(|| format!("-m rpfilter{}{invert}", dice.pick(&options)))
}

fn mac_source(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let side = dice.pick(&Side::BOTH);
    place
        .only(&["PREROUTING", "INPUT", "FORWARD"])
        .then(|| format!("-m mac {}--mac-source {}", not(dice, 20), mac(side.host_mac())))
}

fn pkttype(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let kind = dice.pick(&["unicast", "multicast", "broadcast"]);
    Some(format!("-m pkttype {}--pkt-type {kind}", not(dice, 20)))
}

fn length(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let ranges = ["40", "28:60", "60", ":100", "100:", "48:84", "100:1500", "28", "0:65535"];
    Some(format!("-m length {}--length {}", not(dice, 15), dice.pick(&ranges)))
}

fn hops(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let name = if place.four() { "ttl" } else { "hl" };
    let value = dice.pick(&[64, 63, 1, 2, 65, 199, 200, 0, 255]);
    Some(match dice.below(3) {
        0 => format!("-m {name} {}--{name}-eq {value}", not(dice, 25)),
        1 => format!("-m {name} --{name}-lt {value}"),
        _ => format!("-m {name} --{name}-gt {value}"),
    })
}

fn tos(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let values = ["0x10", "0x10/0x3f", "0x28", "0x00", "0x01/0x03", "0xb8/0xfc", "Minimize-Delay"];
    Some(format!("-m tos {}--tos {}", not(dice, 25), dice.pick(&values)))
}

fn dscp(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    Some(match dice.below(3) {
        0 => {
            let class = dice.pick(&["EF", "CS0", "AF11", "BE"]);
            format!("-m dscp {}--dscp-class {class}", not(dice, 25))
        }
        _ => {
            let value = dice.pick(&["0x0a", "0x2e", "0x00", "0x38", "0x04"]);
            format!("-m dscp {}--dscp {value}", not(dice, 25))
        }
    })
}

fn ecn(_: &Place<'_>, proto: Option<u8>, dice: &mut Dice) -> Option<String> {
    let tcp = proto == Some(TCP);
    Some(match dice.below(3) {
        0 if tcp => format!("-m ecn {}--ecn-tcp-ece", not(dice, 30)),
        1 if tcp => format!("-m ecn {}--ecn-tcp-cwr", not(dice, 30)),
        _ => format!("-m ecn {}--ecn-ip-ect {}", not(dice, 25), dice.below(4)),
    })
}

fn tcpmss(_: &Place<'_>, proto: Option<u8>, dice: &mut Dice) -> Option<String> {
    proto.filter(|proto| *proto == TCP)?;
    let ranges = ["1460", "500:1500", "0:1000", "1461:65535"];
    Some(format!("-m tcpmss {}--mss {}", not(dice, 25), dice.pick(&ranges)))
}

fn statistic(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let every = dice.between(1, 4);
    let packet = dice.below(every);
    let negated = not(dice, 20);
    Some(format!("-m statistic --mode nth {negated}--every {every} --packet {packet}"))
}

fn quota(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    Some(format!("-m quota {}--quota {}", not(dice, 20), dice.pick(&[0, 60, 200, 500, 3000])))
}

fn string(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let algo = dice.pick(&["bm", "kmp"]);
    let what = dice.pick(&["--string XY^", "--string RSPQ", "--hex-string |5a5b58|", "--string M"]);
    let range = dice.pick(&["", "", " --from 30", " --to 60", " --from 20 --to 50"]);
    let case = if dice.percent(20) { " --icase" } else { "" };
    Some(format!("-m string {}{what} --algo {algo}{range}{case}", not(dice, 20)))
}

fn u32(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let four = [
        "6&0xFF=6",
        "0&0xFFFF=0x28:0x100",
        "0>>22&0x3C@0>>16=4000:4010",
        "2&0xFFFF=40:100",
        "5&0xFF=63:64",
        "8&0xFF=0x11,6",
        "0>>22&0x3C@4>>24=0&&6&0xFF=1",
        "4&0x1FFF=0&&0>>22&0x3C@0&0xFFFF=80",
    ];
    let six = ["3&0xFF=6", "4>>16=0x10:0x60", "4&0xFF=64", "4&0xFF=63", "40>>16=4000:4010"];
    let test = if place.four() { dice.pick(&four) } else { dice.pick(&six) };
    Some(format!("-m u32 {}--u32 {test}", not(dice, 20)))
}

fn recent(place: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let what = match dice.below(6) {
        0..=2 => "--set".to_owned(),
        3 => format!("--rcheck --hitcount {}", dice.between(1, 3)),
        4 => "--update --seconds 3600".to_owned(),
        _ => dice.pick(&["--remove", "--rcheck", "--rcheck --rttl --hitcount 2"]).to_owned(),
    };
    // A few names for all rules of a set, so that one asks for what another one entered.
    let name =
        format!("r{}x{}", place.plan.seed, place.number / 1000 * 1000 + dice.below(2) as usize);
    let side = dice.pick(&["--rsource", "--rdest"]);
    Some(format!("-m recent {}{what} --name {name} {side}", not(dice, 15)))
}

fn limit(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let rate = dice.pick(&["1/hour", "2/day", "1/day"]);
    Some(format!("-m limit --limit {rate} --limit-burst {}", dice.between(1, 6)))
}

fn hashlimit(place: &Place<'_>, proto: Option<u8>, dice: &mut Dice) -> Option<String> {
    let ported = proto.is_some_and(|proto| matches!(proto, TCP | UDP | SCTP));
    let modes = ["srcip", "dstip", "srcip,dstip", "srcip,srcport", "dstip,dstport"];
    let mode = dice.pick(if ported { &modes[..] } else { &modes[..3] });
    let which = dice.pick(&["upto", "above"]);
    let (burst, name) = (dice.between(1, 5), place.unique('h'));
    Some(format!(
        "-m hashlimit --hashlimit-{which} 1/hour --hashlimit-burst {burst} --hashlimit-mode {mode} \
         --hashlimit-name {name}"
    ))
}

fn connbytes(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    let side = dice.pick(&["original", "reply", "both"]);
    let (mode, ranges) = dice.pick(&[
        ("packets", ["2:", "1:3", "0:1", "4:100"]),
        ("bytes", ["100:", "0:200", "60:1000", "500:"]),
        ("avgpkt", ["41:", "0:60", "100:2000", "1:40"]),
    ]);
    let range = dice.pick(&ranges);
    let negated = not(dice, 15);
    Some(format!(
        "-m connbytes {negated}--connbytes {range} --connbytes-dir {side} --connbytes-mode {mode}"
    ))
}

fn comment(_: &Place<'_>, _: Option<u8>, dice: &mut Dice) -> Option<String> {
    Some(format!("-m comment --comment {}", dice.pick(&["why", "\"two words\"", "a-b"])))
}

fn security(_: &Place<'_>, proto: Option<u8>, dice: &mut Dice) -> Option<String> {
    proto.filter(|proto| *proto == scene::ESP)?;
    Some(format!("-m esp {}--espspi {}", not(dice, 20), dice.pick(&["256", "257:258", "0:300"])))
}
