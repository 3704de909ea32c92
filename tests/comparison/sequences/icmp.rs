//! ICMP queries and errors, and the errors the gateway itself sends.

use super::{HIGH, MASQUERADE, STATEFUL, Sequence, Setup, both, only4, sequence};
use crate::packets::{
    ICMP, ICMPV6, Packet, echo, echo_reply, error, icmp, other, query, tcp, too_big, udp,
};
use crate::script::Script;
use crate::topology::{C1, C1_6, C2, GATEWAY_WAN, S1, S1_6, S2, S3};

/// Sequences about ICMP.
pub fn group() -> Vec<Sequence> {
    vec![
        echoed(),
        reply_alone(),
        other_queries(),
        of_the_other_family(),
        damaged(),
        short_messages(),
        related(),
        unrelated(),
        from_a_router(),
        wrong_receiver(),
        short_quotes(),
        every_error(),
        about_tcp(),
        about_echo(),
        from_inside(),
        about_masqueraded(),
        about_masqueraded_echo(),
        redirect_dropped(),
        ttl_ends(),
        ttl_ends_masqueraded(),
        too_large(),
        no_route(),
    ]
}

fn messages(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, both(&[("filter", STATEFUL)]), script)
}

fn masqueraded(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]), script)
}

fn question() -> Packet {
    udp((C1, 4000), (S1, 53)).payload(&[0x51; 32])
}

fn echoed() -> Sequence {
    messages("echo", "request and replies by id; each request may be answered twice", |s| {
        s.lan(echo(C1, S1, 77, 1));
        s.table();
        s.wan(echo_reply(S1, C1, 77, 1));
        s.table();
        s.wan(echo_reply(S1, C1, 77, 1));
        s.lan(echo(C1, S1, 77, 2));
        s.wan(echo_reply(S1, C1, 78, 1));
        s.wan(echo(S1, C1, 77, 1));
        s.table();
    })
}

fn reply_alone() -> Sequence {
    messages("echo-reply-alone", "a reply nobody asked for is invalid, either way", |s| {
        s.wan(echo_reply(S1, C1, 5, 1));
        s.lan(echo_reply(C1, S1, 5, 1));
        s.table();
    })
}

fn other_queries() -> Sequence {
    messages(
        "other-queries",
        "timestamp, information and mask queries; router ones are none",
        |s| {
            for (id, kind, reply) in [(1, 13, 14), (2, 15, 16), (3, 17, 18), (4, 10, 9)] {
                s.lan(query(C1, S1, kind, id));
                s.wan(query(S1, C1, reply, id));
            }
            s.lan(query(C1, S1, 19, 5));
            s.lan(query(C1, S1, 42, 6));
            s.table();
        },
    )
}

fn of_the_other_family() -> Sequence {
    messages("icmp-other-family", "ICMPv6 over IPv4 and ICMP over IPv6 are invalid", |s| {
        s.lan(other(C1, S1, ICMPV6, &[128, 0, 0, 0, 0, 12, 0, 34]).checksum(0x7fd1));
        // With the pseudo header that IPv6 would have.
        s.lan(other(C1, S1, ICMPV6, &[128, 0, 0, 0, 0, 12, 0, 34]));
        s.lan(other(C1_6, S1_6, ICMP, &[8, 0, 0, 0, 0, 12, 0, 34]));
        s.lan(other(C1_6, S1_6, ICMP, &[8, 0, 0, 0, 0, 12, 0, 34]).bad_checksum());
        s.lan(other(C1_6, S1_6, ICMP, &[8, 0, 0, 0]));
        s.table();
    })
}

fn damaged() -> Sequence {
    messages("icmp-damaged", "wrong checksums, codes and cut messages", |s| {
        s.lan(echo(C1, S1, 77, 1).bad_checksum());
        s.lan(echo(C1, S1, 78, 1).cut(27));
        s.lan(echo(C1, S1, 79, 1).cut(24));
        s.lan(icmp(C1, S1, 8, 3, [0, 80, 0, 1]));
        s.wan(icmp(S1, C1, 0, 0, [0, 80, 0, 1]));
        // Zeros are right like any sum.
        s.lan(icmp(C1, S1, 8, 0, [0; 4]));
        s.wan(icmp(S1, C1, 0, 0, [0; 4]).zero_checksum());
        s.table();
    })
}

fn short_messages() -> Sequence {
    messages("short-messages", "datagrams, segments and messages below their headers", |s| {
        for length in [0, 1, 3, 4, 7, 8, 12, 19] {
            for protocol in [1, 6, 17] {
                s.lan(other(C1, S1, protocol, &vec![0; length]));
            }
        }
        s.table();
    })
}

fn related() -> Sequence {
    messages("error-related", "port unreachable about a live connection; no timer moves", |s| {
        s.lan(question());
        s.wan(error(S1, C1, 3, 3, &question().ttl(63)));
        s.table();
        s.wan(error(S1, C1, 3, 3, &question().ttl(63)));
        s.table();
    })
}

fn unrelated() -> Sequence {
    messages("error-unrelated", "an error about nothing that is known is invalid", |s| {
        s.wan(error(S1, C1, 3, 3, &question()));
        s.lan(question());
        s.wan(error(S1, C1, 3, 3, &udp((C1, 4001), (S1, 53))));
        s.wan(error(S1, C1, 3, 3, &tcp((C1, 4000), (S1, 53), "S", 1, 0)));
        s.table();
    })
}

fn from_a_router() -> Sequence {
    messages("error-from-router", "time exceeded and MTU from somewhere on the way", |s| {
        s.lan(question());
        s.wan(error(S2, C1, 11, 0, &question().ttl(1)));
        s.wan(too_big(S3, C1, 1280, &question()));
        s.table();
    })
}

fn wrong_receiver() -> Sequence {
    messages("error-wrong-receiver", "an error to a host that did not send the quote", |s| {
        s.lan(question());
        s.wan(error(S1, C2, 3, 3, &question()));
        s.wan(answer_quoted(C1));
        s.table();
    })
}

/// An error sent to the client about the server's own packet.
fn answer_quoted(to: std::net::IpAddr) -> Packet {
    error(S2, to, 3, 1, &udp((S1, 53), (C1, 4000)).payload(b"answer"))
}

fn short_quotes() -> Sequence {
    messages("error-short-quote", "quotes of eight bytes pass, shorter ones are invalid", |s| {
        s.lan(question());
        for length in [28, 27, 24, 20, 19, 8, 0] {
            s.wan(icmp(S1, C1, 3, 3, [0; 4]).payload(&question().bytes()[..length]));
        }
        let mut padded = question().bytes();
        padded.extend_from_slice(&[0; 80]);
        s.wan(icmp(S1, C1, 3, 3, [0; 4]).payload(&padded));
        s.table();
    })
}

fn every_error() -> Sequence {
    messages("error-types", "each type and several codes about a live connection", |s| {
        s.lan(question());
        for (kind, code) in
            [(3, 0), (3, 1), (3, 2), (3, 13), (3, 99), (4, 0), (11, 0), (11, 1), (12, 0)]
        {
            s.wan(error(S1, C1, kind, code, &question()));
        }
        s.wan(error(S1, C1, 6, 0, &question()));
        s.wan(error(S1, C1, 3, 3, &question()).bad_checksum());
        s.table();
    })
}

fn about_tcp() -> Sequence {
    messages("error-about-tcp", "errors in SYN_SENT and ESTABLISHED leave the state alone", |s| {
        let syn = tcp((C1, 4000), (S1, 80), "S", 1000, 0);
        s.lan(syn.clone());
        s.wan(error(S1, C1, 3, 1, &syn));
        s.table();
        s.wan(tcp((S1, 80), (C1, 4000), "SA", 5000, 1001));
        let ack = tcp((C1, 4000), (S1, 80), "A", 1001, 5001);
        s.lan(ack.clone());
        s.wan(too_big(S2, C1, 1400, &ack));
        s.table();
    })
}

fn about_echo() -> Sequence {
    messages("error-about-echo", "errors quote a request or, from inside, a reply", |s| {
        s.lan(echo(C1, S1, 77, 1));
        s.wan(error(S2, C1, 11, 0, &echo(C1, S1, 77, 1)));
        s.wan(error(S2, C1, 11, 0, &echo(C1, S1, 78, 1)));
        s.wan(echo_reply(S1, C1, 77, 1));
        s.lan(error(C1, S1, 3, 3, &echo_reply(S1, C1, 77, 1)));
        s.wan(error(S2, C1, 3, 1, &error(C1, S1, 3, 3, &echo_reply(S1, C1, 77, 1))));
        s.table();
    })
}

fn from_inside() -> Sequence {
    messages("error-from-inside", "the client refuses the answer", |s| {
        s.lan(question());
        let answer = udp((S1, 53), (C1, 4000)).payload(b"answer");
        s.wan(answer.clone());
        s.lan(error(C1, S1, 3, 3, &answer));
        s.lan(error(C2, S1, 3, 3, &answer));
        s.table();
    })
}

fn about_masqueraded() -> Sequence {
    masqueraded("error-about-masqueraded", "quote and receiver are translated back", |s| {
        s.lan(udp((C1, 4000), (S1, 53)).payload(b"first"));
        let step = s.lan(udp((C2, 4000), (S1, 53)).payload(&[5; 40]));
        let outside = s.learn(step, HIGH, "port of C2");
        let seen = udp(outside, (S1, 53)).payload(&[5; 40]).ttl(63);
        s.wan(error(S1, outside.0, 3, 3, &seen));
        s.wan(too_big(S2, outside.0, 1300, &seen));
        s.wan(error(S2, outside.0, 11, 0, &seen.clone().cut(28)));
        s.wan(error(S2, S3, 11, 0, &seen));
        s.wan(udp((S1, 53), outside).payload(b"answer"));
        s.lan(error(C2, S1, 3, 3, &udp((S1, 53), (C2, 4000)).payload(b"answer")));
        s.table();
    })
}

fn about_masqueraded_echo() -> Sequence {
    masqueraded("error-about-masqueraded-echo", "the id in the quote is translated back", |s| {
        s.lan(echo(C1, S1, 77, 1));
        let step = s.lan(echo(C2, S1, 77, 1));
        let (outside, id) = s.learn(step, 0..=65535, "id of C2");
        s.wan(error(S2, outside, 11, 0, &echo(outside, S1, id, 1)));
        s.wan(echo_reply(S1, outside, id, 1));
        s.table();
    })
}

fn redirect_dropped() -> Sequence {
    masqueraded("redirect-dropped", "a redirect about a translated connection is dropped", |s| {
        s.lan(question());
        let seen = udp((GATEWAY_WAN, 4000), (S1, 53)).payload(&[0x51; 32]);
        s.wan(error(S2, GATEWAY_WAN, 5, 1, &seen));
        s.table();
    })
}

fn ttl_ends() -> Sequence {
    messages("ttl-ends", "TTL 1 is answered and leaves no entry; TTL 0 likewise", |s| {
        s.lan(question().ttl(1));
        s.table();
        s.lan(question().ttl(0));
        s.lan(question());
        s.lan(question().ttl(1));
        s.wan(udp((S1, 53), (C1, 4000)).payload(b"answer").ttl(1));
        s.wan(echo(S1, C1, 9, 1).ttl(1));
        s.lan(error(C1, S1, 3, 3, &udp((S1, 53), (C1, 4000))).ttl(1));
        s.table();
    })
}

fn ttl_ends_masqueraded() -> Sequence {
    masqueraded(
        "ttl-ends-masqueraded",
        "the answer about a reply quotes what its sender sent",
        |s| {
            s.lan(question().ttl(1));
            s.lan(question());
            s.wan(udp((S1, 53), (GATEWAY_WAN, 4000)).payload(b"answer").ttl(1));
            s.table();
        },
    )
}

fn too_large() -> Sequence {
    let setup = Setup { wan_mtu: 1300, ..only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]) };
    sequence(
        "too-large",
        "DF and larger than the next MTU: frag needed; without DF fragments",
        setup,
        |s| {
            let large = udp((C1, 4000), (S1, 53)).payload(&[3; 1400]);
            s.lan(large.clone().dont_fragment());
            s.table();
            s.lan(large.clone());
            s.lan(large.dont_fragment());
            s.table();
        },
    )
}

fn no_route() -> Sequence {
    messages("no-route", "a destination without route: network unreachable, no entry", |s| {
        let nowhere = "198.51.100.7".parse().expect("an address");
        s.lan(udp((C1, 4000), (nowhere, 53)).payload(b"lost"));
        s.lan(echo(C1, nowhere, 3, 1));
        s.table();
    })
}
