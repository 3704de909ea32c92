//! GRE: by addresses in version 0, by call id in version 1, without a helper that knows calls.

use super::{MASQUERADE, OPEN, STATEFUL, Sequence, Setup, both, only4, sequence};
use crate::packets::{GRE, Packet, error, icmp, other};
use crate::script::Script;
use crate::topology::{C1, C1_6, C2, GATEWAY_WAN, S1, S1_6, S2, S2_6};
use std::net::IpAddr;

/// Sequences about tunnels.
pub fn group() -> Vec<Sequence> {
    vec![
        plain(),
        plain_six(),
        stream(),
        timeouts(),
        enhanced(),
        enhanced_both_ways(),
        odd_headers(),
        about(),
        masqueraded(),
        masqueraded_enhanced(),
        masqueraded_short(),
        about_masqueraded(),
    ]
}

/// Version 0 with IPv4 inside.
fn tunnel(src: IpAddr, dst: IpAddr) -> Packet {
    other(src, dst, GRE, b"\x00\x00\x08\x00some packet")
}

/// Version 1 with a call id: PPP, sequence number.
fn call(src: IpAddr, dst: IpAddr, id: u16) -> Packet {
    let [a, b] = id.to_be_bytes();
    other(src, dst, GRE, &[0x30, 1, 0x88, 0x0b, 0, 4, a, b, 0, 0, 0, 1, b'p', b'p', b'p', b'!'])
}

fn tunnels(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, both(&[("filter", STATEFUL)]), script)
}

fn plain() -> Sequence {
    tunnels("gre", "one way, answered, ASSURED by the packet after", |s| {
        s.lan(tunnel(C1, S1));
        s.table();
        s.lan(tunnel(C1, S1));
        s.table();
        s.wan(tunnel(S1, C1));
        s.table();
        s.lan(tunnel(C1, S1));
        s.table();
        s.wan(tunnel(S2, C1));
    })
}

fn plain_six() -> Sequence {
    tunnels("gre-6", "the same over IPv6", |s| {
        s.lan(tunnel(C1_6, S1_6));
        s.wan(tunnel(S1_6, C1_6));
        s.table();
        s.wan(tunnel(S1_6, C1_6));
        s.table();
        s.lan(call(C1_6, S1_6, 9));
        s.table();
    })
}

fn stream() -> Sequence {
    tunnels("gre-reply-stream", "the second answer makes it ASSURED too", |s| {
        s.lan(tunnel(C1, S1));
        s.wan(tunnel(S1, C1));
        s.wan(tunnel(S1, C1));
        s.table();
    })
}

fn timeouts() -> Sequence {
    let settings = &[("gre_timeout", 20), ("gre_timeout_stream", 70)];
    let setup = Setup { settings, ..both(&[("filter", STATEFUL)]) };
    sequence("gre-timeouts-set", "both timeouts are obeyed", setup, |s| {
        s.lan(tunnel(C1, S1));
        s.table();
        s.wan(tunnel(S1, C1));
        s.table();
        s.lan(tunnel(C1, S1));
        s.table();
    })
}

fn enhanced() -> Sequence {
    tunnels("gre-call", "each call is a conn, and so is each direction", |s| {
        s.lan(call(C1, S1, 7));
        s.lan(call(C1, S1, 8));
        s.table();
        s.wan(call(S1, C1, 7));
        s.wan(call(S1, C1, 0));
        s.wan(tunnel(S1, C1));
        s.table();
        s.lan(call(C1, S1, 0));
        s.wan(call(S1, C1, 0));
        s.lan(tunnel(C1, S1));
        s.table();
    })
}

fn enhanced_both_ways() -> Sequence {
    let setup = both(&[("filter", OPEN)]);
    sequence("gre-call-both-ways", "where both may begin: two conns, never answered", setup, |s| {
        s.lan(call(C1, S1, 7));
        s.wan(call(S1, C1, 7));
        s.lan(call(C1, S1, 7));
        s.wan(call(S1, C1, 9));
        s.table();
    })
}

fn odd_headers() -> Sequence {
    tunnels("gre-odd", "short headers, versions and protocols nobody expects", |s| {
        for (host, bytes) in [
            (C1, &b""[..]),
            (C1, b"\x30\x01"),
            (C1, b"\x30\x01\x88\x0b"),
            (C1, b"\x30\x01\x88\x0b\x00\x04\x00"),
            (C2, b"\x30\x01\x08\x00\x00\x04\x00\x07"),
            (C2, b"\x30\x01\x08\x00\x00\x04\x00"),
            (C2, b"\x30\x02\x88\x0b\x00\x04\x00\x07"),
        ] {
            s.lan(other(host, S1, GRE, bytes));
            s.table();
        }
    })
}

fn about() -> Sequence {
    tunnels("gre-error", "ICMP errors that quote tunnels", |s| {
        s.lan(tunnel(C1, S1));
        s.wan(error(S2, C1, 11, 0, &tunnel(C1, S1)));
        s.wan(error(S2, C1, 11, 0, &tunnel(C1, S1).cut(28)));
        s.wan(error(S2, C1, 11, 0, &tunnel(C1, S1).cut(20)));
        s.wan(error(S2, C1, 11, 0, &call(C1, S1, 7)));
        s.lan(call(C1, S1, 7));
        s.wan(error(S2, C1, 11, 0, &call(C1, S1, 7)));
        s.wan(error(S2, C1, 11, 0, &call(C1, S1, 7).cut(28)));
        s.wan(error(S2, C1, 11, 0, &call(C1, S1, 8)));
        let odd = other(C1, S1, GRE, b"\x30\x01\x08\x00\x00\x04\x00\x07");
        s.wan(error(S2, C1, 11, 0, &odd));
        // A header that says it has 16 bytes: the destination is read as GRE's.
        let mut quote = tunnel(C1, S1).bytes();
        quote[0] = 0x64;
        s.wan(icmp(S2, C1, 11, 0, [0; 4]).payload(&quote));
        // Of a fragment header the second half, and all behind it, need not be there.
        s.lan(tunnel(C1_6, S1_6));
        let mut quote = tunnel(C1_6, S1_6).bytes();
        quote[6] = 44;
        quote.splice(40..40, [GRE, 0, 0, 1, 0, 0, 0, 7]);
        for length in [60, 48, 44, 43, 41] {
            s.wan(icmp(S2_6, C1_6, 3, 0, [0; 4]).payload(&quote[..length]));
        }
        s.table();
    })
}

fn nat() -> Setup {
    only4(&[("filter", STATEFUL), ("nat", MASQUERADE)])
}

fn masqueraded() -> Sequence {
    sequence("gre-masqueraded", "addresses change, two hosts cannot share a peer", nat(), |s| {
        s.lan(tunnel(C1, S1));
        s.wan(tunnel(S1, GATEWAY_WAN));
        s.lan(tunnel(C1, S1));
        s.wan(tunnel(S1, GATEWAY_WAN));
        s.table();
        s.lan(tunnel(C2, S1));
        s.lan(tunnel(C2, S2));
        s.table();
    })
}

fn masqueraded_enhanced() -> Sequence {
    sequence("gre-masqueraded-call", "the call id stays; without a helper no answer", nat(), |s| {
        s.lan(call(C1, S1, 7));
        s.lan(call(C1, S1, 7));
        s.wan(call(S1, GATEWAY_WAN, 7));
        s.lan(call(C1, S1, 0));
        s.wan(call(S1, GATEWAY_WAN, 0));
        s.lan(call(C1, S1, 0));
        s.wan(call(S1, GATEWAY_WAN, 0));
        s.table();
    })
}

fn masqueraded_short() -> Sequence {
    sequence("gre-masqueraded-short", "headers of less than eight bytes", nat(), |s| {
        s.lan(other(C2, S1, GRE, b""));
        s.lan(other(C2, S1, GRE, b"\x30\x01"));
        s.table();
        s.lan(other(C1, S1, GRE, b"\x00\x00\x08\x00"));
        s.lan(other(C1, S1, GRE, b"\x00\x00\x08\x00\x01\x02\x03\x04"));
        s.wan(other(S1, GATEWAY_WAN, GRE, b"\x00\x00\x08\x00"));
        s.wan(other(S1, GATEWAY_WAN, GRE, b"\x00\x00"));
        s.wan(other(S1, GATEWAY_WAN, GRE, b"\x00\x02\x08\x00\x01\x02\x03\x04"));
        s.table();
    })
}

fn about_masqueraded() -> Sequence {
    sequence("gre-error-masqueraded", "the quote is translated back", nat(), |s| {
        s.lan(tunnel(C1, S1));
        s.wan(error(S2, GATEWAY_WAN, 11, 0, &tunnel(GATEWAY_WAN, S1)));
        s.lan(call(C1, S1, 7));
        s.wan(error(S2, GATEWAY_WAN, 11, 0, &call(GATEWAY_WAN, S1, 7)));
        s.wan(error(S2, GATEWAY_WAN, 11, 0, &call(GATEWAY_WAN, S1, 8)));
        s.table();
    })
}
