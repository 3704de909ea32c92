//! UDP and protocols without a tracker of their own.

use super::{STATEFUL, Sequence, Setup, both, sequence};
use crate::packets::{Packet, other, udp};
use crate::script::Script;
use crate::topology::{C1, C1_6, S1, S1_6, S2, Side};

/// Sequences about datagrams.
pub fn group() -> Vec<Sequence> {
    vec![
        one_way(),
        answered(),
        stream(),
        stream_timeout(),
        expired(),
        by_another_host(),
        no_checksum(),
        wrong_checksum(),
        wrong_length(),
        short(),
        fragments(),
        fragments_reversed(),
        without_tracker(),
        service_bytes_kept(),
    ]
}

fn stateful() -> Setup {
    both(&[("filter", STATEFUL)])
}

fn datagrams(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, stateful(), script)
}

fn question() -> Packet {
    udp((C1, 4000), (S1, 53)).payload(b"question")
}

fn answer() -> Packet {
    udp((S1, 53), (C1, 4000)).payload(b"answer")
}

fn one_way() -> Sequence {
    datagrams("udp-one-way", "unanswered datagrams stay UNREPLIED", |s| {
        s.lan(question());
        s.table();
        s.lan(question());
        s.lan(udp((C1, 4000), (S1, 53)));
        s.table();
    })
}

fn answered() -> Sequence {
    datagrams("udp-answered", "answered at once: 30 seconds, not ASSURED", |s| {
        s.lan(question());
        s.wan(answer());
        s.table();
        s.lan(question());
        s.table();
        s.wan(udp((S1, 54), (C1, 4000)));
        s.wan(udp((S1, 53), (C1, 4001)));
    })
}

fn stream() -> Sequence {
    datagrams("udp-stream", "traffic two seconds after the first: ASSURED, 120 seconds", |s| {
        s.lan(question());
        s.wan(answer());
        s.wait_ms(2500);
        s.wan(answer());
        s.table();
        s.lan(question());
        s.table();
    })
}

fn stream_timeout() -> Sequence {
    let settings = &[("udp_timeout", 20), ("udp_timeout_stream", 70)];
    let setup = Setup { settings, ..stateful() };
    sequence("udp-timeouts-set", "both UDP timeouts are obeyed", setup, |s| {
        s.lan(question());
        s.table();
        s.wan(answer());
        s.wait_ms(2500);
        s.lan(question());
        s.table();
    })
}

fn expired() -> Sequence {
    let setup = Setup { settings: &[("udp_timeout", 2)], ..stateful() };
    sequence("udp-expired", "an answer after the timeout finds nothing", setup, |s| {
        s.lan(question());
        s.wait_ms(3100);
        s.wan(answer());
        s.table();
        s.lan(question());
        s.wan(answer());
        s.table();
    })
}

fn by_another_host() -> Sequence {
    datagrams("udp-other-host", "nobody else may answer", |s| {
        s.lan(question());
        s.wan(udp((S2, 53), (C1, 4000)).payload(b"spoofed"));
        s.table();
    })
}

fn no_checksum() -> Sequence {
    datagrams("udp-no-checksum", "a zero checksum is tracked in IPv4, and in IPv6 too", |s| {
        s.lan(question().zero_checksum());
        s.wan(answer().zero_checksum());
        s.lan(udp((C1_6, 4000), (S1_6, 53)).payload(b"question").zero_checksum());
        s.table();
    })
}

fn wrong_checksum() -> Sequence {
    datagrams("udp-wrong-checksum", "a wrong checksum is invalid", |s| {
        s.lan(question().bad_checksum());
        s.table();
        s.lan(question());
        s.wan(answer().bad_checksum());
        s.lan(udp((C1_6, 4000), (S1_6, 53)).payload(b"question").bad_checksum());
        s.table();
    })
}

fn wrong_length() -> Sequence {
    datagrams("udp-wrong-length", "UDP lengths that do not fit the packet", |s| {
        for length in [0, 7, 8, 12, 15, 17, 5000] {
            s.lan(question().udp_length(length));
        }
        s.table();
    })
}

fn short() -> Sequence {
    datagrams("udp-short", "packets cut short of what they say", |s| {
        for length in [35, 28, 27, 24, 20, 19, 1] {
            s.lan(question().cut(length));
        }
        s.lan(other(C1, S1, 17, b"1234"));
        s.lan(other(C1, S1, 17, b""));
        s.table();
    })
}

fn fragments() -> Sequence {
    datagrams("udp-fragments", "a datagram in fragments is judged as one", |s| {
        let large = udp((C1, 4000), (S1, 53)).payload(&[9; 2400]);
        s.burst(Side::Lan, &large.fragments(1000));
        s.table();
        let stray = udp((S1, 55), (C1, 4000)).payload(&[9; 2400]);
        s.burst(Side::Wan, &stray.fragments(1480));
        let back = udp((S1, 53), (C1, 4000)).payload(&[9; 2400]);
        s.burst(Side::Wan, &back.fragments(1480));
        s.table();
    })
}

fn fragments_reversed() -> Sequence {
    datagrams("udp-fragments-reversed", "fragments in the wrong order, one of them late", |s| {
        let large = udp((C1, 4000), (S1, 53)).payload(&[9; 2400]);
        let mut pieces = large.fragments(800);
        pieces.reverse();
        let last = pieces.pop();
        s.burst(Side::Lan, &pieces);
        s.table();
        s.burst(Side::Lan, &last.into_iter().collect::<Vec<_>>());
        s.table();
    })
}

fn without_tracker() -> Sequence {
    datagrams("no-tracker", "protocols nobody tracks go by their addresses", |s| {
        s.lan(other(C1, S1, 50, b"an esp packet.."));
        s.table();
        s.wan(other(S1, C1, 50, b"its answer"));
        s.wan(other(S1, C1, 51, b"another protocol"));
        s.lan(other(C1_6, S1_6, 50, b"an esp packet.."));
        s.lan(other(C1, S1, 253, b""));
        s.table();
    })
}

fn service_bytes_kept() -> Sequence {
    datagrams("header-kept", "TOS, DF and TTL leave as they should", |s| {
        s.lan(question().tos(0xb8).dont_fragment());
        s.lan(question().ttl(2));
        s.lan(question().ttl(255));
        s.wan(answer().tos(0x03).ttl(3));
    })
}
