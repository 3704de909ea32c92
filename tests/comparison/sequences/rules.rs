//! Rules: what matches, what targets do, what is left in the table.

use super::{Ends, MASQUERADE, NOT_INVALID, Sequence, both, only4, sequence};
use crate::packets::{
    AH, ESP, GRE, ICMP, ICMPV6, SCTP, UDP, UDPLITE, checksum, echo, error, layer4_checksum, mss,
    other, syn_options, tcp, udp,
};
use crate::script::Script;
use crate::topology::{C1, C1_6, C2, C3, GATEWAY_LAN, GATEWAY_LAN_6, S1, S1_6, S2};
use std::net::IpAddr;

/// Sequences about rules.
pub fn group() -> Vec<Sequence> {
    vec![
        notrack(),
        reject_types(),
        reject_sums(),
        reject_tcp(),
        reject_established(),
        user_chains(),
        multiport(),
        marks(),
        invalid_only(),
        dropped_first_packet(),
        tcp_flags(),
        packet_facts(),
        addresses(),
        statuses(),
        status_of_the_end(),
        original_tuple(),
        limit(),
        conn_limit(),
        conn_limit_by_network(),
        every_third(),
        zone(),
        segment_size(),
        segment_size_clamped(),
        header_targets(),
        icmp_types(),
        drop_in_each_table(),
    ]
}

/// Filter rules alone; the last line makes sure that tracking is on.
fn filtered(
    name: &'static str,
    shows: &'static str,
    filter: &str,
    script: fn(&mut Script<'_>),
) -> Sequence {
    let filter = format!("{filter}{NOT_INVALID}");
    sequence(name, shows, only4(&[("filter", &filter)]), script)
}

/// A datagram to each of some ports.
fn to_ports(s: &mut Script<'_>, ports: &[u16]) {
    for port in ports {
        s.lan(udp((C1, 4000), (S1, *port)).payload(b"abc"));
    }
}

fn notrack() -> Sequence {
    let raw = "\
-A PREROUTING -p udp -m udp --dport 53 -j CT --notrack
-A PREROUTING -p udp -m udp --sport 53 -j NOTRACK
";
    let filter = "\
-A FORWARD -p udp -m conntrack --ctstate UNTRACKED -j ACCEPT
-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -j DROP
";
    let setup = only4(&[("raw", raw), ("filter", filter), ("nat", MASQUERADE)]);
    sequence("notrack", "no entry, no translation, state UNTRACKED", setup, |s| {
        to_ports(s, &[53, 54]);
        s.wan(udp((S1, 53), (C1, 4000)));
        s.wan(error(S1, C1, 3, 3, &udp((C1, 4000), (S1, 53))));
        s.lan(udp((C1, 4000), (S1, 53)).payload(b"damaged").bad_checksum());
        s.table();
    })
}

fn reject_types() -> Sequence {
    let types = [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-port-unreachable",
        "icmp-proto-unreachable",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "icmp-admin-prohibited",
    ];
    let mut filter = String::new();
    for (at, kind) in types.iter().enumerate() {
        let port = 101 + at;
        filter.push_str(&format!(
            "-A FORWARD -p udp -m udp --dport {port} -j REJECT --reject-with {kind}\n"
        ));
    }
    filter.push_str("-A FORWARD -i lan -j REJECT\n");
    filtered(
        "reject-types",
        "each ICMP answer of REJECT; nothing stays in the table",
        &filter,
        |s| {
            to_ports(s, &[101, 102, 103, 104, 105, 106, 107, 200]);
            s.lan(echo(C1, S1, 7, 1));
            s.lan(udp((C1, 4000), (S1, 101)).payload(&[4; 1000]));
            s.lan(udp((C1, 4000), (S1, 101)).payload(b"abc").bad_checksum());
            s.lan(udp((C1, 4000), (S1, 101)).payload(b"abc").zero_checksum().tos(0x28).ttl(7));
            s.lan(error(C1, S1, 3, 3, &udp((S1, 53), (C1, 4000))));
            s.table();
        },
    )
}

/// Whole packets of protocols that have no checksum in the kernel's eyes, or one of another kind.
const UNSUMMED: [u8; 5] = [GRE, ESP, AH, SCTP, UDPLITE];

fn reject_sums() -> Sequence {
    let filter = "\
-A FORWARD -m conntrack --ctstate INVALID,NEW -j REJECT
-A INPUT -j REJECT
";
    let setup = both(&[("filter", filter)]);
    let shows = "REJECT answers a protocol it does not know if the bytes sum up to a checksum";
    sequence("reject-sums", shows, setup, |s| {
        for (from, to) in [(C1, S1), (C1, GATEWAY_LAN), (C1_6, S1_6), (C1_6, GATEWAY_LAN_6)] {
            for protocol in UNSUMMED.into_iter().chain([89, 253, ICMP, ICMPV6]) {
                s.lan(other(from, to, protocol, b"eight bytes and more"));
            }
            for protocol in [ESP, 253] {
                for payload in [&[][..], &[0; 8], &[0xff, 0xff], &[0xff; 9], &[0x12, 0x34, 0xed]] {
                    s.lan(other(from, to, protocol, payload));
                }
                // Right with and without the addresses, and cut behind a byte.
                s.lan(other(from, to, protocol, &summed(b"right??", None)));
                s.lan(other(from, to, protocol, &summed(b"right?!", Some((from, to, protocol)))));
                s.lan(other(from, to, protocol, &summed(b"right?!", Some((from, to, 17)))));
            }
            // Messages that are zeros and say so.
            s.lan(other(from, to, ICMP, &[0; 8]).zero_checksum());
            s.lan(other(from, to, UDP, &[0; 7]));
            s.lan(other(from, to, UDP, &[0; 8]).zero_checksum());
            s.lan(udp((from, 4000), (to, 53)).bad_checksum());
            s.lan(other(from, to, 59, b"nothing follows"));
        }
        s.table();
    })
}

/// Two bytes in front of others that make all of them sum up to a right checksum, with a pseudo
/// header or without.
fn summed(bytes: &[u8], pseudo: Option<(IpAddr, IpAddr, u8)>) -> Vec<u8> {
    let mut all = [&[0; 2], bytes].concat();
    let sum = match pseudo {
        Some((from, to, protocol)) => layer4_checksum(from, to, protocol, &all),
        None => checksum(&all),
    };
    all[..2].copy_from_slice(&sum.to_be_bytes());
    all
}

fn reject_tcp() -> Sequence {
    let filter = "\
-A FORWARD -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset
-A FORWARD -p tcp -m tcp --dport 81 -j REJECT
";
    filtered("reject-tcp", "RST with the right numbers, no RST to an RST", filter, |s| {
        let ends = Ends::plain((C1, 4000), (S1, 80));
        s.lan(ends.c("S", 1000, 0).options(&syn_options(1460, 7)));
        s.lan(ends.c("S", 1000, 0).payload(b"early"));
        s.lan(ends.c("A", 1000, 7000));
        s.lan(ends.c("FPA", 1000, 7000).payload(b"bye"));
        s.lan(ends.c("R", 1000, 0));
        s.lan(ends.c("RA", 1000, 5));
        s.lan(ends.c("S", 1000, 0).bad_checksum());
        s.lan(tcp((C1, 4000), (S1, 81), "S", 1000, 0).options(&mss(1460)));
        s.table();
    })
}

fn reject_established() -> Sequence {
    let filter = "\
-A FORWARD -i wan -p tcp -m tcp --tcp-flags PSH PSH -j REJECT --reject-with tcp-reset
-A FORWARD -i wan -p udp -m length --length 100:200 -j REJECT
";
    filtered(
        "reject-established",
        "a packet of a live connection is rejected: its entry stays",
        filter,
        |s| {
            let ends = Ends::plain((C1, 4000), (S1, 80));
            ends.open(s);
            s.wan(ends.s("PA", 5001, 1001).payload(b"data"));
            s.table();
            s.lan(udp((C1, 4000), (S1, 53)));
            s.wan(udp((S1, 53), (C1, 4000)).payload(&[1; 100]));
            s.table();
        },
    )
}

fn user_chains() -> Sequence {
    let filter = "\
:services - [0:0]
:deeper - [0:0]
:aside - [0:0]
-A FORWARD -i lan -p udp -j services
-A FORWARD -p udp -m udp --dport 2 -j ACCEPT
-A FORWARD -i lan -p udp -g aside
-A FORWARD -j DROP
-A services -p udp -m udp --dport 1 -j ACCEPT
-A services -p udp -m udp --dport 2 -j RETURN
-A services -p udp -m udp --dport 3:4 -j deeper
-A services -p udp -m udp --dport 5 -j DROP
-A services -p udp -m udp --dport 6 -j ACCEPT
-A deeper -p udp -m udp --dport 3 -j RETURN
-A deeper -j ACCEPT
-A aside -p udp -m udp --dport 7 -j RETURN
-A aside -p udp -m udp --dport 8 -j ACCEPT
-A aside -j DROP
";
    filtered("user-chains", "jump, goto, RETURN and falling off the end", filter, |s| {
        to_ports(s, &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        s.wan(udp((S1, 9), (C1, 1)));
        s.table();
    })
}

fn multiport() -> Sequence {
    let filter = "\
-A FORWARD -p udp -m multiport --dports 10,20:22,30 -j DROP
-A FORWARD -p udp -m multiport --sports 500 -j DROP
-A FORWARD -p udp -m multiport ! --ports 40,41,50,4000 -j DROP
-A FORWARD -p udp -m udp ! --sport 0:4095 --dport 50 -j DROP
";
    filtered("multiport", "lists, ranges and their negation", filter, |s| {
        to_ports(s, &[9, 10, 19, 20, 21, 22, 23, 30, 40]);
        s.lan(udp((C1, 500), (S1, 40)));
        s.lan(udp((C1, 501), (S1, 40)));
        s.lan(udp((C1, 501), (S1, 42)));
        s.lan(udp((C1, 5000), (S1, 50)));
    })
}

fn marks() -> Sequence {
    let mangle = "\
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A PREROUTING -p udp -m udp --dport 53 -m mark --mark 0x0 -j MARK --set-xmark 0x2a/0xffffffff
-A PREROUTING -p udp -m udp --dport 54 -j MARK --set-xmark 0x100/0xff00
-A POSTROUTING -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
";
    let filter = "\
-A FORWARD -m mark --mark 0x2a -j ACCEPT
-A FORWARD -m mark --mark 0x100/0xff00 -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j DROP
";
    let setup = only4(&[("mangle", mangle), ("filter", filter)]);
    sequence("marks", "marks of packets and connections, saved and restored", setup, |s| {
        to_ports(s, &[53, 54, 55]);
        s.wan(udp((S1, 53), (C1, 4000)));
        s.wan(udp((S1, 55), (C1, 4000)));
        s.table();
    })
}

fn invalid_only() -> Sequence {
    let filter = "-A FORWARD -m conntrack --ctstate NEW -j DROP\n";
    filtered(
        "new-dropped",
        "with NEW dropped nothing ever opens, invalid goes separately",
        filter,
        |s| {
            let ends = Ends::plain((C1, 4000), (S1, 80));
            s.lan(ends.c("S", 1000, 0));
            s.wan(ends.s("SA", 5000, 1001));
            s.lan(ends.c("A", 1001, 5001));
            s.lan(udp((C1, 4000), (S1, 53)));
            s.table();
        },
    )
}

fn dropped_first_packet() -> Sequence {
    let filter = "-A FORWARD -p udp -m length --length 28 -j DROP\n";
    filtered(
        "dropped-first-packet",
        "an entry begins with the first packet that gets through",
        filter,
        |s| {
            s.lan(udp((C1, 4000), (S1, 53)));
            s.table();
            s.lan(udp((C1, 4000), (S1, 53)).payload(b"x"));
            s.wan(udp((S1, 53), (C1, 4000)));
            s.table();
            s.wan(udp((S1, 53), (C1, 4000)).payload(b"x"));
            s.table();
        },
    )
}

fn tcp_flags() -> Sequence {
    let filter = "\
-A FORWARD -p tcp -m tcp --dport 1 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
-A FORWARD -p tcp -m tcp --dport 2 ! --tcp-flags FIN,SYN,RST,ACK SYN -j DROP
-A FORWARD -p tcp -m tcp --dport 3 --tcp-option 3 -j DROP
-A FORWARD -p tcp -m tcp --dport 4 -m tcpmss --mss 1:1000 -j DROP
";
    filtered("tcp-flags", "flags, options and segment sizes", filter, |s| {
        for port in 1..=4 {
            s.lan(tcp((C1, 4000), (S1, port), "S", 1, 0).options(&mss(500)));
            s.lan(tcp((C2, 4000), (S1, port), "S", 1, 0).options(&syn_options(1460, 1)));
            s.lan(tcp((C3, 4000), (S1, port), "A", 1, 7));
        }
    })
}

fn packet_facts() -> Sequence {
    let filter = "\
-A FORWARD -m ttl --ttl-lt 10 -j DROP
-A FORWARD -m length --length 500:65535 -j DROP
-A FORWARD -m dscp --dscp 0x2e -j DROP
-A FORWARD -m tos --tos 0x10/0x3f -j DROP
-A FORWARD -m mac --mac-source 02:00:00:00:11:80 -j DROP
";
    filtered("packet-facts", "TTL, length, DSCP, TOS and MAC", filter, |s| {
        let packet = || udp((C1, 4000), (S1, 53));
        s.lan(packet().ttl(9));
        s.lan(packet().ttl(10));
        s.lan(packet().payload(&[1; 471]));
        s.lan(packet().payload(&[1; 472]));
        s.lan(packet().tos(0xb8));
        s.lan(packet().tos(0x10));
        s.lan(packet().tos(0x50));
        s.wan(udp((S1, 53), (C1, 4000)));
    })
}

fn addresses() -> Sequence {
    let filter = "\
-A FORWARD -m iprange --src-range 10.1.0.12-10.1.0.13 -j DROP
-A FORWARD ! -s 10.1.0.0/24 -i lan -j DROP
-A FORWARD -d 203.0.113.52/31 -j DROP
-A FORWARD ! -i lan -o lan -p udp -m udp --dport 9 -j DROP
-A FORWARD -m addrtype --dst-type MULTICAST -j DROP
";
    filtered("addresses", "ranges, prefixes, interfaces and their negation", filter, |s| {
        for client in [C1, C2, C3] {
            s.lan(udp((client, 4000), (S1, 53)));
        }
        s.lan(udp((C1, 4000), (S2, 53)));
        s.wan(udp((S1, 4000), (C1, 9)));
        s.wan(udp((S1, 4000), (C1, 10)));
        s.table();
    })
}

fn statuses() -> Sequence {
    let filter = "\
-A FORWARD -p udp -m udp --sport 4001 -m conntrack --ctstatus SEEN_REPLY -j DROP
-A FORWARD -p udp -m udp --sport 4002 -m conntrack ! --ctstatus CONFIRMED -j DROP
-A FORWARD -p tcp -m conntrack --ctstatus ASSURED -j DROP
-A FORWARD -p udp -m udp --dport 4003 -m conntrack --ctdir REPLY -j DROP
-A FORWARD -p udp -m udp --sport 4004 -m conntrack --ctexpire 0:20 -j DROP
";
    filtered("statuses", "SEEN_REPLY, CONFIRMED, ASSURED, direction and time left", filter, |s| {
        for port in 4001..=4004 {
            s.lan(udp((C1, port), (S1, 53)));
            s.wan(udp((S1, 53), (C1, port)));
            s.lan(udp((C1, port), (S1, 53)));
        }
        let ends = Ends::plain((C1, 4000), (S1, 80));
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(b"x"));
        s.table();
    })
}

fn status_of_the_end() -> Sequence {
    let mangle = "-A POSTROUTING -m conntrack --ctstatus SEEN_REPLY -j TOS --set-tos 0x20\n";
    let setup = both(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    let shows = "an RST that ends a conn is its first answer";
    sequence("status-of-the-end", shows, setup, |s| {
        for (client, server) in [(C1, S1), (C1_6, S1_6)] {
            s.lan(tcp((client, 4000), (server, 80), "S", 1000, 0));
            s.wan(tcp((server, 80), (client, 4000), "RA", 0, 1001));
            s.lan(tcp((client, 4001), (server, 80), "S", 1000, 0));
            s.lan(tcp((client, 4001), (server, 80), "R", 1001, 0));
        }
        s.table();
    })
}

fn original_tuple() -> Sequence {
    let nat = "\
-A PREROUTING -i wan -p udp -m udp --dport 5353 -j DNAT --to-destination 10.1.0.11:53
-A POSTROUTING -o wan -j MASQUERADE
";
    let filter = "\
-A FORWARD -m conntrack --ctorigdst 203.0.113.1/32 --ctorigdstport 5353 -j ACCEPT
-A FORWARD -m conntrack --ctorigsrc 10.1.0.12/32 -j ACCEPT
-A FORWARD -m conntrack --ctreplsrc 203.0.113.52/32 -j ACCEPT
-A FORWARD -j DROP
";
    let setup = only4(&[("nat", nat), ("filter", filter)]);
    sequence(
        "original-tuple",
        "the addresses of either tuple, also of packets the other way",
        setup,
        |s| {
            s.wan(udp((S1, 4000), ("203.0.113.1".parse().expect("an address"), 5353)));
            s.lan(udp((C1, 53), (S1, 4000)));
            s.lan(udp((C2, 4000), (S1, 53)));
            s.wan(udp((S1, 53), ("203.0.113.1".parse().expect("an address"), 4000)));
            s.lan(udp((C1, 4000), (S1, 53)));
            s.lan(udp((C1, 4000), (S2, 53)));
            s.table();
        },
    )
}

fn limit() -> Sequence {
    let filter = "\
-A FORWARD -p udp -m limit --limit 1/min --limit-burst 3 -j ACCEPT
-A FORWARD -p udp -j DROP
";
    filtered("limit", "a burst of three, then nothing", filter, |s| {
        to_ports(s, &[1, 2, 3, 4, 5]);
        s.table();
    })
}

/// Between packets whose conns the kernel has in mind: it looks once a jiffy who has ended.
const NEXT_JIFFY_MS: u64 = 20;

fn conn_limit() -> Sequence {
    let filter = "\
:refused - [0:0]
-A FORWARD -i lan -p tcp -m tcp --syn -m connlimit --connlimit-above 3 -j refused
-A refused -p tcp -j REJECT --reject-with tcp-reset
-A FORWARD -i lan -p udp -m connlimit --connlimit-upto 3 -j ACCEPT
-A FORWARD -i lan -p udp -j DROP
";
    let shows = "three conns of a host at a time; who is refused, closed or reset does not count";
    filtered("conn-limit", shows, filter, |s| {
        let ends = |port| Ends::plain((C1, port), (S1, 80));
        // What was refused counts in the kernel until it looks again, so the old one comes before.
        for port in [4001, 4002, 4003, 4002, 4004, 4005, 4006] {
            s.lan(ends(port).c("S", 1000, 0));
            s.wait_ms(NEXT_JIFFY_MS);
        }
        s.lan(Ends::plain((C2, 4001), (S1, 80)).c("S", 1000, 0));
        s.wan(ends(4001).s("RA", 0, 1001));
        ends(4003).open(s);
        s.wait_ms(NEXT_JIFFY_MS);
        for port in 4007..4009 {
            s.lan(ends(port).c("S", 1000, 0));
            s.wait_ms(NEXT_JIFFY_MS);
        }
        s.lan(ends(4003).c("FA", 1001, 5001));
        s.wan(ends(4003).s("FA", 5001, 1002));
        s.lan(ends(4003).c("A", 1002, 5002));
        s.wait_ms(NEXT_JIFFY_MS);
        for port in 4009..4011 {
            s.lan(ends(port).c("S", 1000, 0));
            s.wait_ms(NEXT_JIFFY_MS);
        }
        for port in [1, 2, 3, 1, 4, 5] {
            to_ports(s, &[port]);
            s.wait_ms(NEXT_JIFFY_MS);
        }
        s.table();
    })
}

fn conn_limit_by_network() -> Sequence {
    let filter = "\
-A FORWARD -m connlimit --connlimit-above 4 --connlimit-mask 24 --connlimit-daddr -j DROP
";
    let nat = "-A PREROUTING -i lan -p udp -j DNAT --to-destination 203.0.113.51\n";
    let setup = only4(&[("filter", &format!("{filter}{NOT_INVALID}")), ("nat", nat)]);
    let shows = "conns to a network as it is behind the translation, answers to the clients' own";
    sequence("conn-limit-by-network", shows, setup, |s| {
        for (port, client) in [(1, C1), (2, C1), (3, C2), (4, C3), (5, C2), (6, C1)] {
            s.lan(udp((client, 4000), (S2, port)));
            s.wait_ms(NEXT_JIFFY_MS);
            s.wan(udp((S1, port), (client, 4000)));
            s.wait_ms(NEXT_JIFFY_MS);
        }
        s.table();
    })
}

fn every_third() -> Sequence {
    let filter = "-A FORWARD -p udp -m statistic --mode nth --every 3 --packet 0 -j DROP\n";
    filtered("every-third", "statistic, mode nth", filter, |s| {
        to_ports(s, &[1, 2, 3, 4, 5, 6, 7]);
    })
}

fn zone() -> Sequence {
    let raw = "\
-A PREROUTING -p udp -m udp --dport 53 -j CT --zone 5
-A PREROUTING -p udp -m udp --sport 53 -j CT --zone 5
-A PREROUTING -i lan -p udp -m udp --dport 54 -j CT --zone-orig 7
";
    let setup = only4(&[("raw", raw), ("filter", super::STATEFUL)]);
    sequence(
        "zone",
        "the same tuple in a zone, out of it, and a zone for one direction",
        setup,
        |s| {
            to_ports(s, &[53, 54, 55]);
            s.wan(udp((S1, 53), (C1, 4000)));
            s.wan(udp((S1, 54), (C1, 4000)));
            s.table();
        },
    )
}

fn segment_size() -> Sequence {
    let mangle = "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200\n";
    let setup = only4(&[("mangle", mangle), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    sequence("segment-size", "TCPMSS lowers, never raises, and adds where none is", setup, |s| {
        s.lan(tcp((C1, 4000), (S1, 80), "S", 1, 0).options(&mss(1460)));
        s.lan(tcp((C1, 4001), (S1, 80), "S", 1, 0).options(&mss(1000)));
        s.lan(tcp((C1, 4002), (S1, 80), "S", 1, 0).options(&syn_options(1460, 7)));
        s.lan(tcp((C1, 4003), (S1, 80), "S", 1, 0));
        s.lan(tcp((C1, 4004), (S1, 80), "S", 1, 0).payload(b"early"));
        s.table();
    })
}

fn segment_size_clamped() -> Sequence {
    let mangle = "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n";
    let mut setup = only4(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    setup.wan_mtu = 1300;
    sequence("segment-size-clamped", "to the smaller MTU of both ways", setup, |s| {
        s.lan(tcp((C1, 4000), (S1, 80), "S", 1, 0).options(&mss(1460)));
        s.wan(tcp((S1, 80), (C1, 4000), "SA", 9, 2).options(&mss(1460)));
        s.lan(tcp((C1, 4001), (S1, 80), "S", 1, 0).options(&mss(600)));
    })
}

fn header_targets() -> Sequence {
    let mangle = "\
-A FORWARD -p udp -m udp --dport 1 -j DSCP --set-dscp 0x2e
-A FORWARD -p udp -m udp --dport 2 -j TOS --set-tos 0x10/0x3f
-A FORWARD -p udp -m udp --dport 3 -j TTL --ttl-set 200
-A FORWARD -p udp -m udp --dport 4 -j TTL --ttl-dec 3
-A PREROUTING -p udp -m udp --dport 5 -j TTL --ttl-inc 5
";
    let setup = only4(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    sequence("header-targets", "DSCP, TOS and TTL rewritten, checksums right", setup, |s| {
        for port in 1..=5 {
            s.lan(udp((C1, 4000), (S1, port)).tos(0x03));
        }
        s.lan(udp((C1, 4000), (S1, 5)).ttl(1));
    })
}

fn icmp_types() -> Sequence {
    let filter = "\
-A FORWARD -p icmp -m icmp --icmp-type 8 -j DROP
-A FORWARD -p icmp -m icmp --icmp-type 3/4 -j DROP
";
    filtered("icmp-types", "type and code of ICMP", filter, |s| {
        s.lan(echo(C1, S1, 1, 1));
        let packet = udp((C1, 4000), (S1, 53));
        s.lan(packet.clone());
        s.wan(error(S1, C1, 3, 4, &packet));
        s.wan(error(S1, C1, 3, 3, &packet));
        s.table();
    })
}

fn drop_in_each_table() -> Sequence {
    let raw = "-A PREROUTING -p udp -m udp --dport 1 -j DROP\n";
    let mangle = "\
-A PREROUTING -p udp -m udp --dport 2 -j DROP
-A FORWARD -p udp -m udp --dport 3 -j DROP
-A POSTROUTING -p udp -m udp --dport 4 -j DROP
";
    let setup =
        only4(&[("raw", raw), ("mangle", mangle), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    sequence(
        "drop-in-each-table",
        "wherever a first packet is dropped, no entry remains",
        setup,
        |s| {
            to_ports(s, &[1, 2, 3, 4, 5]);
            s.table();
        },
    )
}
