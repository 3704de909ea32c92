//! Expectations: TFTP, whose helper reads requests and edits nothing.

use super::{MASQUERADE, STATEFUL, Sequence, Setup, both, only4, sequence};
use crate::packets::{Packet, udp};
use crate::script::Script;
use crate::topology::{C1, C1_6, C2, S1, S1_6, S2, SECOND_WAN};
use std::net::IpAddr;

/// Sequences about transfers.
pub fn group() -> Vec<Sequence> {
    vec![
        transfer(),
        transfer6(),
        written(),
        only_requests(),
        once(),
        renewed(),
        masqueraded(),
        forwarded(),
        expired(),
        marked(),
        clashing(),
        clashing_behind_one_address(),
    ]
}

const HELPER: &str = "-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp
";

fn guarded() -> Setup {
    both(&[("raw", HELPER), ("filter", STATEFUL)])
}

fn tftp(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, guarded(), script)
}

fn request(client: (IpAddr, u16), server: IpAddr) -> Packet {
    udp(client, (server, 69)).payload(b"\0\x01boot.img\0octet\0")
}

fn data(from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
    udp(from, to).payload(b"\0\x03\0\x01bytes")
}

fn ack(from: (IpAddr, u16), to: (IpAddr, u16)) -> Packet {
    udp(from, to).payload(b"\0\x04\0\x01")
}

fn transfer() -> Sequence {
    tftp("tftp", "the answer from another port is RELATED, and goes on ESTABLISHED", |s| {
        s.lan(request((C1, 4000), S1));
        s.table();
        s.wan(data((S1, 3000), (C1, 4000)));
        s.table();
        s.lan(ack((C1, 4000), (S1, 3000)));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.lan(ack((C1, 4000), (S1, 3000)));
    })
}

fn transfer6() -> Sequence {
    tftp("tftp-6", "the same over IPv6", |s| {
        s.lan(request((C1_6, 4000), S1_6));
        s.wan(data((S1_6, 3000), (C1_6, 4000)));
        s.lan(ack((C1_6, 4000), (S1_6, 3000)));
    })
}

fn written() -> Sequence {
    tftp("tftp-write", "a write request makes the same expectation; the server may refuse", |s| {
        s.lan(udp((C1, 4000), (S1, 69)).payload(b"\0\x02file\0octet\0"));
        s.wan(udp((S1, 3000), (C1, 4000)).payload(b"\0\x05\0\x02no\0"));
    })
}

fn only_requests() -> Sequence {
    tftp("tftp-no-request", "other messages and other ports make none", |s| {
        s.lan(data((C1, 4000), (S1, 69)));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.lan(udp((C1, 4000), (S1, 69)).payload(b"\0"));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.lan(udp((C1, 4001), (S1, 70)).payload(b"\0\x01boot.img\0octet\0"));
        s.wan(data((S1, 3000), (C1, 4001)));
    })
}

fn once() -> Sequence {
    tftp("tftp-once", "one answer is expected, from the server and to the client's port", |s| {
        s.lan(request((C1, 4000), S1));
        s.wan(data((S2, 3000), (C1, 4000)));
        s.wan(data((S1, 3000), (C1, 4001)));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.wan(data((S1, 3001), (C1, 4000)));
    })
}

fn renewed() -> Sequence {
    tftp("tftp-again", "a repeated request is expected anew, after an answer too", |s| {
        s.lan(request((C1, 4000), S1));
        s.lan(request((C1, 4000), S1));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.lan(request((C1, 4000), S1));
        s.wan(data((S1, 3001), (C1, 4000)));
        s.wan(data((S1, 3002), (C1, 4000)));
    })
}

fn masqueraded() -> Sequence {
    let rules = only4(&[("raw", HELPER), ("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence("tftp-masquerade", "the answer goes to the client behind the address", rules, |s| {
        let first = s.lan(request((C1, 4000), S1));
        let outside = s.learn(first, 4000..=4000, "port of the first");
        let second = s.lan(request((C2, 4000), S1));
        let other = s.learn(second, super::HIGH, "port of the second");
        s.wan(data((S1, 3000), other));
        s.wan(data((S1, 3000), outside));
        s.table();
        s.lan(ack((C2, 4000), (S1, 3000)));
        s.lan(ack((C1, 4000), (S1, 3000)));
        s.wan(data((S1, 3000), other));
    })
}

fn forwarded() -> Sequence {
    let nat = "-A PREROUTING -i wan -p udp -m udp --dport 69 -j DNAT --to-destination 10.1.0.11\n";
    let rules = only4(&[("raw", HELPER), ("nat", nat)]);
    sequence("tftp-dnat", "a server inside answers from the address that was asked", rules, |s| {
        s.wan(request((S1, 4000), SECOND_WAN));
        s.lan(data((C1, 3000), (S1, 4000)));
        s.table();
        s.wan(ack((S1, 4000), (SECOND_WAN, 3000)));
        s.lan(data((C1, 3000), (S1, 4000)));
    })
}

fn expired() -> Sequence {
    let setup = Setup { settings: &[("udp_timeout", 2)], ..guarded() };
    sequence("tftp-master-gone", "with its master an expectation ends", setup, |s| {
        s.lan(request((C1, 4000), S1));
        s.wait_ms(3500);
        s.lan(data((C1, 4000), (S1, 69)));
        s.wan(data((S1, 3000), (C1, 4000)));
    })
}

fn marked() -> Sequence {
    let mangle = "-A PREROUTING -i lan -p udp -m udp --dport 69 -j MARK --set-xmark 0x0/0x0\n";
    let rules = both(&[("raw", HELPER), ("mangle", mangle), ("filter", STATEFUL)]);
    sequence("tftp-rules", "rules see RELATED once and ESTABLISHED from then on", rules, |s| {
        s.lan(request((C1, 4000), S1));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.wan(data((S1, 3000), (C1, 4000)));
        s.lan(ack((C1, 4000), (S1, 3000)));
    })
}

/// `HELPER`, and the same for another port.
const HELPERS: &str = "-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp
-A PREROUTING -p udp -m udp --dport 6969 -j CT --helper tftp
";

fn other_request(client: (IpAddr, u16), server: IpAddr) -> Packet {
    udp(client, (server, 6969)).payload(b"\0\x02boot.img\0octet\0")
}

fn clashing() -> Sequence {
    let rules = both(&[("raw", HELPERS), ("filter", STATEFUL)]);
    let shows = "a request that two could answer to one port is dropped, which is said";
    sequence("tftp-clash", shows, rules, |s| {
        s.lan(request((C1, 4000), S1));
        s.lan(other_request((C1, 4000), S1));
        s.lan(other_request((C1, 4000), S2));
        s.lan(request((C1_6, 4000), S1_6));
        s.lan(other_request((C1_6, 4000), S1_6));
        s.table();
        s.wan(data((S1, 3000), (C1, 4000)));
        s.lan(other_request((C1, 4000), S1));
    })
}

fn clashing_behind_one_address() -> Sequence {
    let rules = only4(&[("raw", HELPERS), ("filter", STATEFUL), ("nat", MASQUERADE)]);
    let shows = "and so where the conns are translated";
    sequence("tftp-clash-masquerade", shows, rules, |s| {
        s.lan(request((C1, 4000), S1));
        s.lan(other_request((C1, 4000), S1));
        s.lan(other_request((C1, 4001), S1));
        s.table();
    })
}
