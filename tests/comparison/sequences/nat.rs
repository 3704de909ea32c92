//! Translation: which address and port a packet gets, and the way back.

use super::{
    Ends, HIGH, MASQUERADE, NOT_INVALID, OPEN, STATEFUL, Sequence, Setup, only4, sequence,
};
use crate::packets::{echo, echo_reply, icmp, tcp, udp};
use crate::script::Script;
use crate::topology::{C1, C2, C3, GATEWAY_LAN, GATEWAY_WAN, S1, S2, SECOND_WAN, Side};
use std::net::IpAddr;

/// Sequences about translation.
pub fn group() -> Vec<Sequence> {
    vec![
        masquerade(),
        masquerade_tcp(),
        port_collision(),
        low_ports(),
        privileged_ports(),
        echo_ids(),
        two_destinations(),
        kept_mapping(),
        newest_mapping(),
        to_address(),
        port_range(),
        range_exhausted(),
        single_port(),
        port_out_of_time_wait(),
        random(),
        dnat_port(),
        dnat_address(),
        dnat_ports(),
        dnat_state(),
        hairpin(),
        both_ways(),
        redirect(),
        untranslated_first(),
        translated_first(),
        no_checksum(),
        invalid_leaves_as_it_is(),
        fragments(),
        strangers(),
        first_rule_wins(),
        netmap(),
    ]
}

fn nat(rules: &str) -> Setup {
    only4(&[("filter", NOT_INVALID), ("nat", rules)])
}

fn masqueraded(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]), script)
}

/// The server as most sequences call it.
const SERVER: (IpAddr, u16) = (S1, 53);

fn masquerade() -> Sequence {
    masqueraded("masquerade", "a free port is kept; the answer finds the client", |s| {
        s.lan(udp((C1, 4000), SERVER).payload(b"question"));
        s.table();
        s.wan(udp(SERVER, (GATEWAY_WAN, 4000)).payload(b"answer"));
        s.wan(udp(SERVER, (C1, 4000)).payload(b"answer to the wrong address"));
    })
}

fn masquerade_tcp() -> Sequence {
    masqueraded("masquerade-tcp", "a whole connection, both ends' resets included", |s| {
        let caller = (GATEWAY_WAN, 4000);
        let server = (S1, 80);
        let ends = Ends { client: (C1, 4000), called: server, server, caller };
        ends.open(s);
        s.lan(ends.c("PA", 1001, 5001).payload(b"request"));
        s.wan(ends.s("PA", 5001, 1008).payload(&[8; 600]));
        s.table();
        s.wan(ends.s("R", 4000, 0));
        s.lan(ends.c("R", 1008, 0));
        s.table();
    })
}

fn port_collision() -> Sequence {
    masqueraded("port-collision", "a second client with the same port gets one above 1023", |s| {
        s.lan(udp((C1, 4000), SERVER));
        let step = s.lan(udp((C2, 4000), SERVER));
        let outside = s.learn(step, HIGH, "port of C2");
        let step = s.lan(udp((C3, 4000), SERVER));
        let third = s.learn(step, HIGH, "port of C3");
        s.wan(udp(SERVER, third).payload(b"to C3"));
        s.wan(udp(SERVER, outside).payload(b"to C2"));
        s.wan(udp(SERVER, (GATEWAY_WAN, 4000)).payload(b"to C1"));
        s.table();
    })
}

fn low_ports() -> Sequence {
    masqueraded("low-ports", "below 512 the replacement is below 512", |s| {
        s.lan(udp((C1, 100), SERVER));
        let step = s.lan(udp((C2, 100), SERVER));
        let outside = s.learn(step, 1..=511, "port of C2");
        s.wan(udp(SERVER, outside).payload(b"to C2"));
        s.table();
    })
}

fn privileged_ports() -> Sequence {
    masqueraded("privileged-ports", "from 512 to 1023 the replacement is in 600 to 1023", |s| {
        for port in [512, 700, 1023] {
            s.lan(tcp((C1, port), (S1, 80), "S", 1, 0));
        }
        for (port, name) in [(512, "for 512"), (700, "for 700"), (1023, "for 1023")] {
            let step = s.lan(tcp((C2, port), (S1, 80), "S", 1, 0));
            s.learn(step, 600..=1023, name);
        }
        s.table();
    })
}

fn echo_ids() -> Sequence {
    masqueraded("echo-ids", "two clients with one echo id", |s| {
        s.lan(echo(C1, S1, 77, 1));
        let step = s.lan(echo(C2, S1, 77, 1));
        let (outside, id) = s.learn(step, 0..=65535, "id of C2");
        s.wan(echo_reply(S1, outside, id, 1));
        s.wan(echo_reply(S1, outside, 77, 1));
        s.table();
    })
}

fn two_destinations() -> Sequence {
    masqueraded("two-destinations", "one port outside serves two clients with two servers", |s| {
        s.lan(udp((C1, 4000), SERVER));
        s.lan(udp((C2, 4000), (S2, 53)));
        s.lan(udp((C3, 4000), (S1, 54)));
        s.wan(udp((S2, 53), (GATEWAY_WAN, 4000)).payload(b"to C2"));
        s.table();
    })
}

fn kept_mapping() -> Sequence {
    masqueraded("kept-mapping", "a source keeps its port outside towards another server", |s| {
        s.lan(udp((C1, 4000), SERVER));
        let step = s.lan(udp((C2, 4000), SERVER));
        let outside = s.learn(step, HIGH, "port of C2");
        s.lan(udp((C2, 4000), (S2, 53)));
        s.lan(udp((C2, 4000), (S1, 54)));
        s.wan(udp((S2, 53), outside).payload(b"answer"));
        s.table();
    })
}

fn newest_mapping() -> Sequence {
    masqueraded("newest-mapping", "of a client's several ids the newest is kept", |s| {
        let query = |kind| icmp(C2, S1, kind, 0, [0, 77, 0, 1]).payload(&[0; 12]);
        s.lan(echo(C1, S1, 77, 1));
        // Another kind of query may have the id too.
        s.lan(query(13));
        let step = s.lan(echo(C2, S1, 77, 1));
        s.learn(step, 0..=65535, "id of C2");
        s.lan(query(15));
        s.lan(query(17));
        s.table();
    })
}

fn to_address() -> Sequence {
    let rules = "-A POSTROUTING -o wan -j SNAT --to-source 203.0.113.10\n";
    sequence("to-address", "SNAT to the second address", nat(rules), |s| {
        s.lan(udp((C1, 4000), SERVER));
        s.wan(udp(SERVER, (SECOND_WAN, 4000)));
        s.lan(echo(C1, S1, 5, 1));
        s.wan(echo_reply(S1, SECOND_WAN, 5, 1));
        s.table();
    })
}

fn port_range() -> Sequence {
    let rules = "-A POSTROUTING -o wan -p udp -j SNAT --to-source 203.0.113.10:20000-29999\n";
    sequence(
        "port-range",
        "a port outside the range is replaced, one inside is kept",
        nat(rules),
        |s| {
            // So wide that the two ports chosen are hardly ever the same.
            let step = s.lan(udp((C1, 4000), SERVER));
            let outside = s.learn(step, 20000..=29999, "port of C1");
            s.wan(udp(SERVER, outside));
            s.lan(udp((C2, 30000), (S2, 53)));
            s.learn(step + 2, 20000..=29999, "port of C2");
            s.lan(udp((C2, 25_000), SERVER));
            s.lan(tcp((C1, 4000), (S1, 80), "S", 1, 0));
            s.table();
        },
    )
}

fn range_exhausted() -> Sequence {
    let rules = "-A POSTROUTING -o wan -p udp -j SNAT --to-source 203.0.113.10:20000-20001\n";
    sequence(
        "range-exhausted",
        "two ports for three clients: the third is dropped",
        nat(rules),
        |s| {
            let step = s.lan(udp((C1, 4000), SERVER));
            s.learn(step, 20000..=20001, "port of C1");
            let step = s.lan(udp((C2, 4000), SERVER));
            let second = s.learn(step, 20000..=20001, "port of C2");
            s.lan(udp((C3, 4000), SERVER));
            s.table();
            s.wan(udp(SERVER, second).payload(b"answer"));
            s.lan(udp((C2, 4000), SERVER));
            s.table();
        },
    )
}

fn single_port() -> Sequence {
    let rules = "-A POSTROUTING -o wan -p tcp -j SNAT --to-source 203.0.113.10:20000\n";
    sequence("single-port", "one port for two clients: only one per server", nat(rules), |s| {
        s.lan(tcp((C1, 4000), (S1, 80), "S", 1, 0));
        s.lan(tcp((C2, 4000), (S1, 80), "S", 1, 0));
        s.lan(tcp((C2, 4000), (S2, 80), "S", 1, 0));
        s.table();
    })
}

fn port_out_of_time_wait() -> Sequence {
    let rules = "-A POSTROUTING -o wan -p tcp -j SNAT --to-source 203.0.113.10:20000-20001\n";
    sequence(
        "port-out-of-time-wait",
        "a full range takes a port out of TIME_WAIT",
        nat(rules),
        |s| {
            let server = (S1, 80);
            let step = s.lan(tcp((C1, 4000), server, "S", 1000, 0));
            let caller = s.learn(step, 20000..=20001, "port of C1");
            let ends = Ends { client: (C1, 4000), called: server, server, caller };
            s.wan(ends.s("SA", 5000, 1001));
            s.lan(ends.c("A", 1001, 5001));
            let step = s.lan(tcp((C2, 4000), server, "S", 1000, 0));
            s.learn(step, 20000..=20001, "port of C2");
            s.lan(tcp((C3, 4000), server, "S", 90_000, 0));
            s.lan(ends.c("FA", 1001, 5001));
            s.wan(ends.s("FA", 5001, 1002));
            s.lan(ends.c("A", 1002, 5002));
            s.table();
            s.lan(tcp((C3, 4000), server, "S", 90_000, 0));
            s.table();
        },
    )
}

fn random() -> Sequence {
    let rules = "-A POSTROUTING -o wan -j MASQUERADE --random\n";
    sequence("random", "with --random a free port is not kept", nat(rules), |s| {
        let step = s.lan(udp((C1, 4000), SERVER));
        let outside = s.learn(step, HIGH, "port of C1");
        s.wan(udp(SERVER, outside));
        s.table();
    })
}

fn dnat_port() -> Sequence {
    let rules = "\
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.11:80
";
    sequence("dnat-port", "an outside port leads to an inside server", nat(rules), |s| {
        let called = (SECOND_WAN, 8080);
        let ends = Ends { client: (S1, 4000), called, server: (C1, 80), caller: (S1, 4000) };
        s.wan(ends.c("S", 1000, 0));
        s.lan(ends.s("SA", 5000, 1001));
        s.wan(ends.c("A", 1001, 5001));
        s.table();
        s.wan(tcp((S1, 4000), (SECOND_WAN, 8081), "S", 1, 0));
        // Its tuple is taken by the translated connection, so the source port moves.
        let step = s.wan(tcp((S1, 4000), (C1, 80), "S", 1, 0));
        s.learn(step, HIGH, "port of S1");
        s.table();
    })
}

fn dnat_address() -> Sequence {
    let rules = "-A PREROUTING -d 203.0.113.10/32 -j DNAT --to-destination 10.1.0.11\n";
    sequence("dnat-address", "a whole address leads inside, ports and ids kept", nat(rules), |s| {
        s.wan(udp((S1, 4000), (SECOND_WAN, 53)));
        s.lan(udp((C1, 53), (S1, 4000)));
        s.wan(echo(S1, SECOND_WAN, 9, 1));
        s.lan(echo_reply(C1, S1, 9, 1));
        s.lan(udp((C1, 1000), (S2, 53)));
        s.table();
    })
}

fn dnat_ports() -> Sequence {
    let rules =
        "-A PREROUTING -d 203.0.113.10/32 -p udp -j DNAT --to-destination 10.1.0.11:8000-8003\n";
    sequence(
        "dnat-ports",
        "a range of ports at the server: which is taken, and again",
        nat(rules),
        |s| {
            for port in [4000, 4001] {
                s.wan(udp((S1, port), (SECOND_WAN, 53)));
            }
            s.wan(udp((S1, 4000), (SECOND_WAN, 54)));
            s.wan(udp((S1, 4000), (SECOND_WAN, 8002)));
            s.table();
        },
    )
}

fn dnat_state() -> Sequence {
    let filter = "\
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -m conntrack --ctstate SNAT -m udp -p udp --dport 99 -j DROP
-A FORWARD -i lan -j ACCEPT
-A FORWARD -j DROP
";
    let rules =
        "-A PREROUTING -i wan -p udp -m udp --dport 5353 -j DNAT --to-destination 10.1.0.11:53\n";
    let setup = only4(&[("filter", filter), ("nat", rules)]);
    sequence("dnat-state", "--ctstate DNAT lets in only what was forwarded by rule", setup, |s| {
        s.wan(udp((S1, 4000), (GATEWAY_WAN, 5353)));
        s.lan(udp((C1, 53), (S1, 4000)));
        s.wan(udp((S1, 4000), (C1, 53)));
        s.wan(udp((S1, 4001), (C1, 53)));
        s.table();
    })
}

fn hairpin() -> Sequence {
    let rules = "\
-A PREROUTING -d 203.0.113.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.1.0.12:8080
-A POSTROUTING -s 10.1.0.0/24 -d 10.1.0.0/24 -j MASQUERADE
";
    sequence(
        "hairpin",
        "an inside client calls an inside server by its outside address",
        nat(rules),
        |s| {
            let caller = (GATEWAY_LAN, 4000);
            let called = (SECOND_WAN, 80);
            let ends = Ends { client: (C1, 4000), called, server: (C2, 8080), caller };
            s.lan(ends.c("S", 1000, 0));
            s.lan(ends.s("SA", 5000, 1001));
            s.lan(ends.c("A", 1001, 5001));
            s.table();
        },
    )
}

fn both_ways() -> Sequence {
    let rules = "\
-A PREROUTING -i wan -p udp -m udp --dport 53 -j DNAT --to-destination 10.1.0.12
-A POSTROUTING -o lan -j MASQUERADE
";
    sequence("both-ways", "source and destination translated at once", nat(rules), |s| {
        s.wan(udp((S1, 4000), (GATEWAY_WAN, 53)));
        s.lan(udp((C2, 53), (GATEWAY_LAN, 4000)).payload(b"answer"));
        s.table();
    })
}

fn redirect() -> Sequence {
    let rules = "\
-A PREROUTING -i lan -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 3128
-A PREROUTING -i lan -p udp -m udp --dport 53 -j REDIRECT
";
    sequence(
        "redirect",
        "to the gateway itself, which refuses in the name of the server",
        nat(rules),
        |s| {
            s.lan(tcp((C1, 4000), (S1, 80), "S", 1000, 0));
            s.table();
            s.lan(udp((C1, 4000), (S1, 53)).payload(b"question"));
            s.table();
        },
    )
}

/// C1 is translated to the address of C2, which also speaks for itself.
fn shared_address() -> Setup {
    nat("-A POSTROUTING -s 10.1.0.11/32 -o wan -j SNAT --to-source 10.1.0.12\n")
}

fn untranslated_first() -> Sequence {
    sequence(
        "untranslated-first",
        "a tuple in use without translation is not given out",
        shared_address(),
        |s| {
            s.lan(udp((C2, 4000), SERVER));
            let step = s.lan(udp((C1, 4000), SERVER));
            let outside = s.learn(step, HIGH, "port of C1");
            s.wan(udp(SERVER, outside).payload(b"to C1"));
            s.wan(udp(SERVER, (C2, 4000)).payload(b"to C2"));
            s.table();
        },
    )
}

fn translated_first() -> Sequence {
    sequence(
        "translated-first",
        "a host whose tuple is lent out gets another port",
        shared_address(),
        |s| {
            s.lan(udp((C1, 4000), SERVER));
            let step = s.lan(udp((C2, 4000), SERVER));
            let outside = s.learn(step, HIGH, "port of C2");
            s.wan(udp(SERVER, outside).payload(b"to C2"));
            s.wan(udp(SERVER, (C2, 4000)).payload(b"to C1"));
            s.lan(udp((C2, 4000), (S2, 53)));
            s.table();
        },
    )
}

fn no_checksum() -> Sequence {
    masqueraded("masquerade-no-checksum", "a zero UDP checksum stays zero", |s| {
        s.lan(udp((C1, 4000), SERVER).payload(b"question").zero_checksum());
        s.wan(udp(SERVER, (GATEWAY_WAN, 4000)).payload(b"answer").zero_checksum());
        s.lan(udp((C1, 4001), SERVER).payload(b"question"));
        s.wan(udp(SERVER, (GATEWAY_WAN, 4001)).payload(b"answer").zero_checksum());
    })
}

fn invalid_leaves_as_it_is() -> Sequence {
    let setup = only4(&[("filter", OPEN), ("nat", MASQUERADE)]);
    sequence(
        "invalid-untranslated",
        "an invalid packet that is not dropped leaves untranslated",
        setup,
        |s| {
            s.lan(tcp((C1, 4000), (S1, 80), "SA", 1, 1));
            s.lan(udp((C1, 4000), SERVER).payload(b"x").bad_checksum());
            s.lan(tcp((C1, 4000), (S1, 80), "", 1, 1));
            s.table();
        },
    )
}

fn fragments() -> Sequence {
    masqueraded("masquerade-fragments", "fragments are translated as one datagram", |s| {
        s.lan(udp((C1, 4000), SERVER));
        let large = udp((C2, 4000), SERVER).payload(&[9; 2400]);
        let step = s.burst(Side::Lan, &large.fragments(1000));
        let outside = s.learn(step, HIGH, "port of C2");
        let answer = udp(SERVER, outside).payload(&[9; 2400]);
        s.burst(Side::Wan, &answer.fragments(1480));
        s.table();
    })
}

fn strangers() -> Sequence {
    masqueraded("strangers", "whoever else sends to a translated port reaches the gateway", |s| {
        s.lan(udp((C1, 4000), SERVER));
        s.wan(udp((S2, 53), (GATEWAY_WAN, 4000)).payload(b"me too"));
        s.wan(udp((S1, 54), (GATEWAY_WAN, 4000)).payload(b"me too"));
        s.wan(tcp((S1, 53), (GATEWAY_WAN, 4000), "S", 1, 0));
        s.table();
    })
}

fn first_rule_wins() -> Sequence {
    let rules = "\
-A POSTROUTING -s 10.1.0.11/32 -o wan -j ACCEPT
-A POSTROUTING -s 10.1.0.12/32 -o wan -j SNAT --to-source 203.0.113.10
-A POSTROUTING -o wan -j MASQUERADE
";
    sequence(
        "first-rule-wins",
        "exempted, SNATed and masqueraded hosts side by side",
        nat(rules),
        |s| {
            for client in [C1, C2, C3] {
                s.lan(udp((client, 4000), SERVER));
            }
            s.table();
        },
    )
}

fn netmap() -> Sequence {
    let rules = "\
-A POSTROUTING -s 10.1.0.0/28 -o wan -j NETMAP --to 203.0.113.96/28
-A PREROUTING -d 203.0.113.96/28 -i wan -j NETMAP --to 10.1.0.0/28
";
    sequence("netmap", "a prefix onto a prefix, host bits kept, both ways", nat(rules), |s| {
        s.lan(udp((C1, 4000), SERVER));
        s.wan(udp(SERVER, (IpAddr::from([203, 0, 113, 107]), 4000)));
        s.wan(udp((S2, 1), (IpAddr::from([203, 0, 113, 108]), 2)));
        s.table();
    })
}
