//! A whole gateway: packets into its ports, hours of its clock between them.
//!
//! Nothing that arrives may stop a worker, and every frame comes to exactly one end. The gateway is
//! that of `sluicegate replay`, so an input tells all there is to know: the first byte says how
//! many workers there are, then comes packet after packet, each behind three bytes: port and how to
//! complete the packet, time, length.

use std::path::Path;

use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::wire::checksum::{Accumulator, internet, pseudo};
use dataplane::wire::crc32c::Crc32c;
use dataplane::wire::headers::{self, Fragment, protocol};
use sluicegate::config::Config;
use sluicegate::iptables;
use sluicegate::publish::Rulesets;
use sluicegate::replay::Bench;

/// Two ports, tables so small that they are full at once, and everything switched on that makes
/// packets take a longer way.
const CONFIG: &str = r#"
[[port]]
name = "lan"
device = "net_null0"
mac = "02:00:00:00:10:01"
addresses = ["10.1.0.1/24", "fd00:1::1/64"]
mtu = 1280

[[port]]
name = "wan"
device = "net_null1"
mac = "02:00:00:00:20:01"
addresses = ["203.0.113.1/24", "2001:db8::1/64"]

[[route]]
to = "0.0.0.0/0"
via = "203.0.113.254"
port = "wan"

[[neighbour]]
address = "10.1.0.2"
mac = "02:00:00:00:10:02"
port = "lan"

[[neighbour]]
address = "fd00:1::2"
mac = "02:00:00:00:10:02"
port = "lan"

[[neighbour]]
address = "203.0.113.254"
mac = "02:00:00:00:20:02"
port = "wan"

[[neighbour]]
address = "2001:db8::2"
mac = "02:00:00:00:20:02"
port = "wan"

[conntrack]
hashsize = 64
max = 24
expect_max = 2
acct = true
timestamp = true
events = 1
log_invalid = 255

[ipfrag]
high_thresh = 20000
low_thresh = 10000

[log]
level = "off"

[eal]
"#;

/// Rules of both families; what has no NAT in one of them is left out there.
const RULES: &str = "\
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp
-A PREROUTING -p udp -m udp --dport 9 -j CT --notrack
-A PREROUTING -i wan -p tcp -m tcp --dport 81 -j CT --zone 3
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan -p tcp -m tcp --dport 8080 -j DNAT --to-destination INSIDE
-A PREROUTING -p udp -m udp --dport 53 -j REDIRECT --to-ports 54
-A POSTROUTING -o wan -p sctp -j SNAT --to-source OUTSIDE
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m tcp --dport 25 -j REJECT --reject-with tcp-reset
-A FORWARD -p udp -m udp --dport 137 -j REJECT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
";

fn rules(family: Family, inside: &str, outside: &str) -> Ruleset {
    let text = RULES.replace("INSIDE", inside).replace("OUTSIDE", outside);
    iptables::restore(&Ruleset::new(family), &text, false, true).expect("the rules are right")
}

/// The target.
pub fn packets(bytes: &[u8]) {
    let Some((&workers, mut bytes)) = bytes.split_first() else { return };
    let cores = if workers & 1 == 0 { "[1]" } else { "[1, 1]" };
    let text = format!("{CONFIG}worker_cores = {cores}\n");
    let config = Config::parse(Path::new("f.toml"), &text, 8 << 30).expect("it is right");
    let rulesets = Rulesets {
        v4: rules(Family::V4, "10.1.0.2:80", "203.0.113.1"),
        v6: rules(Family::V6, "[fd00:1::2]:80", "2001:db8::1"),
        sets: Default::default(),
    };
    let mut bench = Bench::new(config, rulesets, false).expect("it starts");
    let mut now = 1_700_000_000_000_000_000;
    while let Some((&[how, wait, len], rest)) = bytes.split_first_chunk() {
        let (packet, rest) = rest.split_at(rest.len().min(usize::from(len)));
        bytes = rest;
        // Up to 33 ms in one step, or up to half an hour in a hundred.
        now += 1000 << if wait & 0xe0 == 0x20 { wait & 31 } else { wait & 15 };
        bench.frame(PortId(how & 1), now, frame(packet, how));
    }
    bench.check_balance().unwrap_or_else(|e| panic!("{e}"));
}

/// An Ethernet frame to the port's own address, of the family that the packet's version names. What
/// a mutation hardly ever gets right is put right, unless `how` says to leave it.
fn frame(packet: &[u8], how: u8) -> Vec<u8> {
    let v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let net = if how & 1 == 0 { 0x10 } else { 0x20 };
    let kind = if v6 { [0x86, 0xdd] } else { [8, 0] };
    let mut frame = [&[2, 0, 0, 0, net, 1, 2, 0, 0, 0, net, 2][..], &kind, packet].concat();
    // Long packets need not be long inputs.
    if how & 8 != 0 {
        frame.resize(frame.len() + 1200, how);
    }
    if how & 2 == 0 {
        set_lengths(&mut frame[14..], v6);
    }
    if how & 4 == 0 {
        set_sums(&mut frame, v6);
    }
    frame
}

fn set_lengths(packet: &mut [u8], v6: bool) {
    let len = packet.len() as u16;
    match (v6, packet.len()) {
        (false, 20..) => packet[2..4].copy_from_slice(&len.to_be_bytes()),
        (true, 40..) => packet[4..6].copy_from_slice(&(len - 40).to_be_bytes()),
        _ => {}
    }
}

fn set_sums(frame: &mut [u8], v6: bool) {
    if !v6 && frame.len() >= 34 {
        let end = (14 + usize::from(frame[14] & 15) * 4).clamp(34, frame.len());
        frame[24..26].fill(0);
        let sum = internet(&frame[14..end]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let Ok(h) = headers::parse(frame, frame.len()) else { return };
    let at = match h.proto {
        protocol::TCP => 16,
        protocol::UDP | protocol::UDPLITE | protocol::DCCP => 6,
        protocol::ICMP | protocol::ICMPV6 => 2,
        protocol::SCTP => 8,
        _ => return,
    };
    let wide = if h.proto == protocol::SCTP { 4 } else { 2 };
    let Some(l4) = frame.get_mut(h.l4 as usize..h.end as usize) else { return };
    let Some(place) = l4.get_mut(at..at + wide) else { return };
    if h.fragment != Fragment::None {
        return;
    }
    place.fill(0);
    if h.proto == protocol::SCTP {
        let mut crc = Crc32c::default();
        crc.add(l4);
        l4[at..at + wide].copy_from_slice(&crc.finish().to_le_bytes());
        return;
    }
    let seed = match h.proto {
        protocol::ICMP => 0,
        _ => pseudo(h.src, h.dst, h.proto, l4.len() as u32),
    };
    let mut sum = Accumulator::new(seed);
    sum.add(l4);
    l4[at..at + wide].copy_from_slice(&sum.finish().to_be_bytes());
}
