//! Targets that change packets, their marks or those of connections.

use super::{MASQUERADE, NOT_INVALID, OPEN, Sequence, Setup, both, only4, sequence, tables};
use crate::packets::{error, mss, syn_options, tcp, udp};
use crate::script::Script;
use crate::topology::{C1, C1_6, C2_6, S1, S1_6};
use std::net::IpAddr;

/// Sequences about targets that go on.
pub fn group() -> Vec<Sequence> {
    vec![
        marks_of_connections(),
        marks_masked_and_shifted(),
        classes(),
        hops(),
        hops_that_end(),
        congestion(),
        segment_sizes_6(),
        segment_sizes_of_answers(),
        stripped_options(),
        prefixes(),
        prefixes_of_errors(),
        no_word_to_spare(),
        networks(),
    ]
}

/// Rules for IPv6; IPv4 is not asked.
fn only6(rules: &[(&str, &str)]) -> Setup {
    Setup { rules4: tables(&[]), rules6: tables(rules), settings: &[], wan_mtu: 1500 }
}

/// Packets of one connection, to and fro.
fn exchange(s: &mut Script<'_>, client: IpAddr, server: IpAddr, port: u16) {
    let (c, s1) = ((client, 4000), (server, port));
    for _ in 0..3 {
        s.lan(udp(c, s1).payload(b"question"));
        s.wan(udp(s1, c).payload(b"answer"));
    }
}

/// As operators write it: decide once, remember, act on the mark.
fn marks_of_connections() -> Sequence {
    let mangle = "\
-A PREROUTING -j CONNMARK --restore-mark
-A PREROUTING -m mark ! --mark 0 -j ACCEPT
-A PREROUTING -p udp -m udp --dport 53 -j MARK --set-mark 5
-A PREROUTING -p udp -m udp --dport 54 -j MARK --set-mark 6
-A PREROUTING -j CONNMARK --save-mark
-A POSTROUTING -m mark --mark 5 -j TOS --set-tos 0x20
-A POSTROUTING -m mark --mark 6 -j TOS --set-tos 0x40
";
    let setup = both(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    sequence("connmark", "every packet has its connection's mark, both ways", setup, |s| {
        for (client, server) in [(C1, S1), (C1_6, S1_6)] {
            for port in [53, 54, 55] {
                exchange(s, client, server, port);
                s.table();
            }
        }
    })
}

fn marks_masked_and_shifted() -> Sequence {
    let mangle = "\
-A PREROUTING -p udp --dport 1 -j CONNMARK --set-mark 0x11/0xf
-A PREROUTING -p udp --dport 2 -j CONNMARK --set-xmark 0x11/0xf
-A PREROUTING -p udp --dport 3 -j CONNMARK --xor-mark 0x101
-A PREROUTING -p udp --dport 4 -j CONNMARK --or-mark 0xf0
-A PREROUTING -p udp --dport 5 -j CONNMARK --set-mark 0x12 --left-shift-mark 4
-A PREROUTING -p udp --dport 6 -j MARK --set-mark 0xabcd
-A PREROUTING -p udp --dport 6 -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff00
-A PREROUTING -p udp --dport 7 -j MARK --set-mark 0xabcd
-A PREROUTING -p udp --dport 7 -j CONNMARK --save-mark --nfmask 0xff00 --right-shift-mark 8
-A PREROUTING -p udp --dport 8 -j CONNMARK --set-mark 0x1234
-A PREROUTING -p udp --dport 8 -j MARK --set-mark 0xf0000
-A PREROUTING -p udp --dport 8 -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff00 \
--right-shift-mark 8
-A POSTROUTING -p udp --dport 8 -m mark --mark 0xf0012 -j TOS --set-tos 0x20
-A POSTROUTING -p udp --dport 9 -j CONNMARK --set-mark 9
";
    let nat = "-A POSTROUTING -o wan -p udp --dport 10 -j CONNMARK --set-mark 10\n";
    let setup = only4(&[("mangle", mangle), ("filter", NOT_INVALID), ("nat", nat)]);
    sequence("connmark-bits", "masks and shifts of CONNMARK", setup, |s| {
        for port in 1..=10 {
            exchange(s, C1, S1, port);
        }
        s.table();
    })
}

fn classes() -> Sequence {
    let mangle = "\
-A PREROUTING -p udp --dport 1 -j TOS --set-tos 0x10/0x3f
-A FORWARD -p udp --dport 1 -j TOS --or-tos 0x80
-A FORWARD -p udp --dport 2 -j TOS --and-tos 0x0f
-A FORWARD -p udp --dport 3 -j TOS --xor-tos 0xff
-A POSTROUTING -p udp --dport 4 -j DSCP --set-dscp-class AF41
-A POSTROUTING -p tcp --dport 80 -j DSCP --set-dscp-class EF
-A POSTROUTING -p tcp --sport 80 -j DSCP --set-dscp 1
";
    let setup = both(&[("mangle", mangle), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    sequence("classes", "TOS and DSCP in both families, behind a translation", setup, |s| {
        for (client, server) in [(C1, S1), (C1_6, S1_6)] {
            for port in 1..=4 {
                for tos in [0, 0x5b] {
                    s.lan(udp((client, 4000), (server, port)).tos(tos).payload(b"odd"));
                }
            }
            let c = (client, 4000);
            let step = s.lan(tcp(c, (server, 80), "S", 1, 0).options(&mss(1460)));
            let outside = s.learn(step, 4000..=4000, "outside");
            s.wan(tcp((server, 80), outside, "SA", 9, 2).tos(3));
            s.lan(tcp(c, (server, 80), "A", 2, 10));
            for _ in 0..2 {
                s.lan(tcp(c, (server, 80), "PA", 2, 10).payload(b"data"));
                s.wan(tcp((server, 80), outside, "A", 10, 6).tos(3));
            }
        }
        s.table();
    })
}

fn hops() -> Sequence {
    let mangle = |name: &str| {
        let option = name.to_lowercase();
        format!(
            "-A PREROUTING -p udp --dport 1 -j {name} --{option}-set 1\n\
             -A PREROUTING -p udp --dport 2 -j {name} --{option}-set 2\n\
             -A PREROUTING -p udp --dport 3 -j {name} --{option}-inc 250\n\
             -A PREROUTING -p udp --dport 4 -j {name} --{option}-dec 60\n\
             -A FORWARD -p udp --dport 5 -j {name} --{option}-dec 200\n\
             -A POSTROUTING -p udp --dport 6 -j {name} --{option}-inc 1\n\
             -A POSTROUTING -p udp --dport 7 -j {name} --{option}-set 255\n"
        )
    };
    let rules = |name| tables(&[("mangle", &mangle(name)), ("filter", NOT_INVALID)]);
    let setup = Setup { rules4: rules("TTL"), rules6: rules("HL"), settings: &[], wan_mtu: 1500 };
    sequence("hops", "TTL and HL before and behind the forwarding", setup, |s| {
        for (client, server) in [(C1, S1), (C1_6, S1_6)] {
            for port in 1..=7 {
                s.lan(udp((client, 4000), (server, port)));
                s.lan(udp((client, 4000), (server, port)));
            }
        }
    })
}

fn hops_that_end() -> Sequence {
    let mangle = "-A PREROUTING -i wan -j TTL --ttl-dec 63\n";
    let setup = only4(&[("mangle", mangle), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    sequence("hops-that-end", "an answer that has no hop left, behind a translation", setup, |s| {
        let step = s.lan(udp((C1, 4000), (S1, 53)));
        let outside = s.learn(step, 4000..=4000, "outside");
        s.wan(udp((S1, 53), outside));
        s.wan(udp((S1, 53), outside).ttl(66));
        s.table();
    })
}

fn congestion() -> Sequence {
    let mangle = "\
-A FORWARD -p tcp --dport 1 -j ECN --ecn-tcp-remove
-A FORWARD -p tcp --dport 2 -j ECN --ecn-tcp-ece 1
-A FORWARD -p tcp --dport 3 -j ECN --ecn-tcp-cwr 0 --ecn-ip-ect 0
-A FORWARD -p udp -j ECN --ecn-ip-ect 2
";
    let setup = only4(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    sequence("congestion", "ECN's bits one by one", setup, |s| {
        for port in 1..=3 {
            for flags in ["S", "SEC"] {
                s.lan(tcp((C1, 4000), (S1, port), flags, 1, 0).tos(3).options(&mss(1460)));
            }
        }
        s.lan(udp((C1, 4000), (S1, 53)).tos(1));
    })
}

/// A SYN with options, and with others before them.
fn syns(s: &mut Script<'_>, client: IpAddr, server: IpAddr) {
    let syn =
        |port, options: &[u8]| tcp((client, 4000), (server, port), "S", 1, 0).options(options);
    let packets: [(u16, Vec<u8>); 7] = [
        (1, mss(1460)),
        (2, mss(900)),
        (3, syn_options(1460, 7)),
        (4, [&[1, 1, 4, 2][..], &mss(1460)].concat()),
        (5, vec![1, 1, 1, 0]),
        (6, [&[3, 3, 7, 1][..], &[8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1]].concat()),
        (7, vec![1; 40]),
    ];
    for (port, options) in packets {
        s.lan(syn(port, &options));
    }
    s.lan(syn(8, &[]));
    s.lan(syn(9, &[]).payload(b"early"));
    s.lan(syn(10, &mss(1460)).payload(b"early"));
    s.lan(syn(11, &[1, 2, 4, 5]));
}

fn segment_sizes_6() -> Sequence {
    let clamp = "-A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu\n";
    let mut setup = both(&[("mangle", clamp), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    setup.wan_mtu = 1400;
    sequence("segment-sizes", "clamped to the way's MTU in both families", setup, |s| {
        syns(s, C1, S1);
        syns(s, C1_6, S1_6);
        s.table();
    })
}

fn segment_sizes_of_answers() -> Sequence {
    let mangle = "-A POSTROUTING -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 700\n";
    let setup = both(&[("mangle", mangle), ("filter", NOT_INVALID), ("nat", MASQUERADE)]);
    sequence("segment-sizes-of-answers", "set on both SYNs, data left alone", setup, |s| {
        for (client, server) in [(C1, S1), (C1_6, S1_6)] {
            let c = (client, 4000);
            let step = s.lan(tcp(c, (server, 80), "S", 1, 0));
            let outside = s.learn(step, 4000..=4000, "outside");
            s.wan(tcp((server, 80), outside, "SA", 9, 2).options(&syn_options(1460, 7)));
            s.lan(tcp(c, (server, 80), "A", 2, 10));
            for at in 0..3 {
                s.lan(tcp(c, (server, 80), "PA", 2 + 4 * at, 10).payload(b"data"));
                s.wan(tcp((server, 80), outside, "A", 10, 6 + 4 * at));
            }
        }
        s.table();
    })
}

fn stripped_options() -> Sequence {
    let mangle = "\
-A FORWARD -p tcp -j TCPOPTSTRIP --strip-options wscale,timestamp,md5
-A POSTROUTING -p tcp --dport 1 -j TCPOPTSTRIP --strip-options mss,sack-permitted
";
    let setup = both(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    sequence("stripped-options", "options become padding, checksums right", setup, |s| {
        for (client, server) in [(C1, S1), (C1_6, S1_6)] {
            syns(s, client, server);
            let lies = [&[3, 200, 7, 1][..], &[8, 0, 3, 3]].concat();
            s.lan(tcp((client, 4000), (server, 20), "S", 1, 0).options(&lies));
            s.lan(
                tcp((client, 4000), (server, 21), "S", 1, 0).options(&[1, 3, 3, 7]).payload(b"x"),
            );
        }
    })
}

/// Addresses inside and outside, and what is told apart behind the edit, in the same chain.
const PREFIXES: &str = "\
-A PREROUTING -i wan -d 2001:db8:77::/48 -j DNPT --src-pfx 2001:db8:77::/48 --dst-pfx fd00:1::/48
-A PREROUTING -d fd00:1::/48 -p udp --sport 99 -j DROP
-A POSTROUTING -o wan -s fd00:1::/48 -j SNPT --src-pfx fd00:1::/48 --dst-pfx 2001:db8:77::/48
-A POSTROUTING -s 2001:db8:77::/48 -p udp --dport 98 -j DROP
";

fn prefixes() -> Sequence {
    let setup = only6(&[("mangle", PREFIXES), ("filter", NOT_INVALID)]);
    sequence("prefixes", "SNPT and DNPT, seen by the rules behind them", setup, |s| {
        let c = (C1_6, 4000);
        let step = s.lan(udp(c, (S1_6, 53)).payload(b"one"));
        let outside = s.learn(step, 4000..=4000, "outside");
        for _ in 0..3 {
            s.wan(udp((S1_6, 53), outside).payload(b"answer"));
            s.lan(udp(c, (S1_6, 53)).payload(b"more"));
        }
        s.wan(udp((S1_6, 99), outside));
        s.lan(udp(c, (S1_6, 98)));
        s.lan(tcp(c, (S1_6, 80), "S", 1, 0).options(&mss(1440)));
        s.wan(tcp((S1_6, 80), outside, "SA", 9, 2));
        s.lan(tcp(c, (S1_6, 80), "A", 2, 10).payload(b"data"));
        s.table();
    })
}

fn prefixes_of_errors() -> Sequence {
    let setup = only6(&[("mangle", PREFIXES), ("filter", OPEN)]);
    sequence("prefixes-of-errors", "the quote of an error is translated too", setup, |s| {
        let step = s.lan(udp((C1_6, 4000), (S1_6, 53)).payload(b"one"));
        let outside = s.learn(step, 4000..=4000, "outside");
        let seen = udp(outside, (S1_6, 53)).payload(b"one");
        s.wan(error(S1_6, outside.0, 1, 4, &seen));
        s.wan(error(S1_6, outside.0, 3, 0, &seen));
        s.wan(error(S1_6, outside.0, 1, 4, &udp((C2_6, 4000), (S1_6, 53))));
        s.wan(udp((S1_6, 53), outside).payload(b"answer"));
        s.lan(error(C1_6, S1_6, 1, 4, &udp((S1_6, 53), (C1_6, 4000)).payload(b"answer")));
    })
}

/// Prefixes longer than 48 bits take their difference out of the interface identifier.
fn no_word_to_spare() -> Sequence {
    let mangle = "\
-A POSTROUTING -o wan -s fd00:1::/64 -j SNPT --src-pfx fd00:1::/64 --dst-pfx 2001:db8:77:1::/64
-A PREROUTING -i wan -d 2001:db8:77:1::/64 \
-j DNPT --src-pfx 2001:db8:77:1::/64 --dst-pfx fd00:1::/64
";
    let setup = only6(&[("mangle", mangle), ("filter", NOT_INVALID)]);
    sequence("prefixes-no-word-to-spare", "an identifier of ones cannot be mapped", setup, |s| {
        let step = s.lan(udp((C1_6, 4000), (S1_6, 53)));
        let outside = s.learn(step, 4000..=4000, "outside");
        s.wan(udp((S1_6, 53), outside));
        let ones: IpAddr = "fd00:1::ffff:ffff:ffff:ffff".parse().expect("an address");
        s.lan(udp((ones, 4000), (S1_6, 53)));
        let ones: IpAddr = "2001:db8:77:1:ffff:ffff:ffff:ffff".parse().expect("an address");
        s.wan(udp((S1_6, 53), (ones, 4000)));
        s.table();
    })
}

fn networks() -> Sequence {
    let nat = "\
-A PREROUTING -d 203.0.113.128/25 -j NETMAP --to 10.1.0.0/25
-A POSTROUTING -s 10.1.0.0/25 -o wan -j NETMAP --to 203.0.113.128/25
";
    let nat6 = "\
-A PREROUTING -d 2001:db8:20::1:0/112 -j NETMAP --to fd00:1::/112
-A POSTROUTING -s fd00:1::/112 -o wan -j NETMAP --to 2001:db8:20::1:0/112
";
    let mut setup = both(&[("filter", NOT_INVALID), ("nat", nat)]);
    setup.rules6 = tables(&[("filter", NOT_INVALID), ("nat", nat6)]);
    sequence("networks", "NETMAP of both ends in both families", setup, |s| {
        for (client, server, mapped) in
            [(C1, S1, "203.0.113.139"), (C1_6, S1_6, "2001:db8:20::1:11")]
        {
            let mapped: IpAddr = mapped.parse().expect("an address");
            s.lan(udp((client, 4000), (server, 53)));
            s.wan(udp((server, 53), (mapped, 4000)));
            s.wan(udp((server, 5000), (mapped, 80)));
            s.lan(udp((client, 80), (server, 5000)));
            s.lan(tcp((client, 4001), (server, 80), "S", 1, 0));
            s.wan(tcp((server, 80), (mapped, 4001), "SA", 9, 2));
        }
        s.table();
    })
}
