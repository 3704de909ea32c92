//! SCTP: states, verification tags, CRC, heartbeats, NAT and ICMP errors.

use super::{HIGH, MASQUERADE, OPEN, STATEFUL, Sequence, Setup, both, only4, sequence};
use crate::packets::{Packet, chunk, error, init, sctp};
use crate::script::Script;
use crate::topology::{C1, C1_6, GATEWAY_WAN, S1, S1_6, S2};
use std::net::IpAddr;

/// Sequences about associations.
pub fn group() -> Vec<Sequence> {
    vec![
        life(),
        life_six(),
        server_ends(),
        aborted(),
        abort_with_t(),
        complete_tags(),
        wrong_tags(),
        wrong_crc(),
        crc_unchecked(),
        out_of_the_blue(),
        bundles(),
        half_a_bundle(),
        cut(),
        init_again(),
        init_collision(),
        stale_init(),
        restart(),
        after_the_end(),
        second_path(),
        foreign_heartbeat(),
        heartbeat_with_data(),
        timeouts(),
        expired(),
        without_rules(),
        masqueraded(),
        forwarded(),
        about(),
        about_masqueraded(),
    ]
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// What packets to the client carry, and what packets to the server do.
const TO_CLIENT: u32 = 0x1111_0001;
const TO_SERVER: u32 = 0x2222_0002;

/// Both ends as their hosts see them.
#[derive(Clone, Copy)]
struct Ends {
    client: (IpAddr, u16),
    called: (IpAddr, u16),
    server: (IpAddr, u16),
    caller: (IpAddr, u16),
}

const PLAIN: Ends =
    Ends { client: (C1, 4000), called: (S1, 36412), server: (S1, 36412), caller: (C1, 4000) };
const SIX: Ends = Ends {
    client: (C1_6, 4000),
    called: (S1_6, 36412),
    server: (S1_6, 36412),
    caller: (C1_6, 4000),
};

impl Ends {
    fn c(&self, tag: u32, chunks: &[Vec<u8>]) -> Packet {
        sctp(self.client, self.called, tag, chunks)
    }

    fn s(&self, tag: u32, chunks: &[Vec<u8>]) -> Packet {
        sctp(self.server, self.caller, tag, chunks)
    }

    fn handshake(&self, s: &mut Script<'_>) {
        s.lan(self.c(0, &[init(INIT, TO_CLIENT)]));
        s.wan(self.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        s.lan(self.c(TO_SERVER, &[chunk(COOKIE_ECHO, 0, b"cookie"), data()]));
        s.wan(self.s(TO_CLIENT, &[bare(COOKIE_ACK)]));
    }
}

fn bare(kind: u8) -> Vec<u8> {
    chunk(kind, 0, &[])
}

/// TSN, stream and payload protocol, then five bytes.
fn data() -> Vec<u8> {
    let mut value = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    value.extend_from_slice(b"bytes");
    chunk(0, 3, &value)
}

fn associations(name: &'static str, shows: &'static str, script: fn(&mut Script<'_>)) -> Sequence {
    sequence(name, shows, both(&[("filter", STATEFUL)]), script)
}

fn c(tag: u32, kind: u8) -> Packet {
    PLAIN.c(tag, &[bare(kind)])
}

fn s(tag: u32, kind: u8) -> Packet {
    PLAIN.s(tag, &[bare(kind)])
}

fn whole_life(script: &mut Script<'_>, ends: Ends) {
    script.lan(ends.c(0, &[init(INIT, TO_CLIENT)]));
    script.table();
    script.wan(ends.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
    script.table();
    script.lan(ends.c(TO_SERVER, &[chunk(COOKIE_ECHO, 0, b"cookie")]));
    script.table();
    script.wan(ends.s(TO_CLIENT, &[bare(COOKIE_ACK)]));
    script.table();
    script.lan(ends.c(TO_SERVER, &[data()]));
    script.wan(ends.s(TO_CLIENT, &[chunk(3, 0, &[0; 12]), data()]));
    script.lan(ends.c(TO_SERVER, &[bare(ERROR)]));
    script.table();
    script.lan(ends.c(TO_SERVER, &[chunk(SHUTDOWN, 0, &[0; 4])]));
    script.table();
    script.wan(ends.s(TO_CLIENT, &[bare(SHUTDOWN_ACK)]));
    script.table();
    script.lan(ends.c(TO_SERVER, &[bare(SHUTDOWN_COMPLETE)]));
    script.table();
}

fn life() -> Sequence {
    associations("sctp-life", "every state of an association, and its timeouts", |script| {
        whole_life(script, PLAIN);
    })
}

fn life_six() -> Sequence {
    associations("sctp-life-6", "the same over IPv6", |script| whole_life(script, SIX))
}

fn server_ends() -> Sequence {
    associations("sctp-server-ends", "SHUTDOWN from the server, late data on the way", |script| {
        PLAIN.handshake(script);
        script.wan(s(TO_CLIENT, SHUTDOWN));
        script.table();
        script.lan(PLAIN.c(TO_SERVER, &[data()]));
        script.lan(c(TO_SERVER, SHUTDOWN));
        script.table();
        script.lan(c(TO_SERVER, SHUTDOWN_ACK));
        script.table();
        script.wan(s(TO_CLIENT, SHUTDOWN_COMPLETE));
        script.table();
    })
}

fn aborted() -> Sequence {
    associations("sctp-aborted", "ABORT ends it; data after it passes by the old tags", |script| {
        PLAIN.handshake(script);
        script.wan(s(TO_SERVER, ABORT));
        script.table();
        script.wan(s(TO_CLIENT, ABORT));
        script.table();
        script.lan(PLAIN.c(TO_SERVER, &[data()]));
        script.table();
    })
}

fn abort_with_t() -> Sequence {
    associations("sctp-abort-t", "ABORT with the T bit carries the receiver's tag", |script| {
        PLAIN.handshake(script);
        script.wan(PLAIN.s(TO_CLIENT, &[chunk(ABORT, 1, &[])]));
        script.table();
        script.wan(PLAIN.s(TO_SERVER, &[chunk(ABORT, 1, &[])]));
        script.table();
    })
}

fn complete_tags() -> Sequence {
    associations("sctp-complete-tags", "SHUTDOWN COMPLETE, with and without T", |script| {
        PLAIN.handshake(script);
        script.lan(c(TO_SERVER, SHUTDOWN));
        script.wan(s(TO_CLIENT, SHUTDOWN_ACK));
        script.lan(c(TO_CLIENT, SHUTDOWN_COMPLETE));
        script.lan(PLAIN.c(TO_SERVER, &[chunk(SHUTDOWN_COMPLETE, 1, &[])]));
        script.table();
        script.lan(PLAIN.c(TO_CLIENT, &[chunk(SHUTDOWN_COMPLETE, 1, &[])]));
        script.table();
    })
}

fn wrong_tags() -> Sequence {
    associations("sctp-wrong-tags", "chunk by chunk, a tag that is not the conn's", |script| {
        script.lan(PLAIN.c(7, &[init(INIT, TO_CLIENT)]));
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wan(PLAIN.s(7, &[init(INIT_ACK, TO_SERVER)]));
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        script.lan(c(7, COOKIE_ECHO));
        script.table();
        script.lan(c(TO_SERVER, COOKIE_ECHO));
        script.wan(s(7, COOKIE_ACK));
        script.table();
        script.wan(s(TO_CLIENT, COOKIE_ACK));
        script.lan(PLAIN.c(7, &[data()]));
        script.wan(PLAIN.s(0, &[data()]));
        for kind in [ERROR, SHUTDOWN, ABORT, SHUTDOWN_COMPLETE, 3, 64, 130, 255] {
            script.lan(c(7, kind));
            script.wan(s(7, kind));
        }
        script.table();
        script.lan(c(7, SHUTDOWN_ACK));
        script.wan(PLAIN.s(TO_CLIENT, &[data()]));
        script.table();
    })
}

fn wrong_crc() -> Sequence {
    associations("sctp-wrong-crc", "a wrong CRC is invalid", |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]).bad_checksum());
        script.table();
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]).bad_checksum());
        script.lan(SIX.c(0, &[init(INIT, TO_CLIENT)]).bad_checksum());
        script.table();
    })
}

fn crc_unchecked() -> Sequence {
    let settings = &[("checksum", 0)];
    let setup = Setup { settings, ..both(&[("filter", STATEFUL)]) };
    sequence("sctp-crc-unchecked", "unless it is not looked at", setup, |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]).bad_checksum());
        script.table();
    })
}

fn out_of_the_blue() -> Sequence {
    associations(
        "sctp-blue",
        "what may begin a conn, each chunk from a port of its own",
        |script| {
            for kind in (0..16).chain([64, 130, 192, 193]) {
                let from = |port: u16| Ends { client: (C1, port), ..PLAIN };
                script.lan(from(5000 + u16::from(kind)).c(7, &[chunk(kind, 0, &[0; 16])]));
                script.lan(from(6000 + u16::from(kind)).c(0, &[chunk(kind, 0, &[0; 16])]));
            }
            script.table();
            script.wan(sctp((S1, 36412), (C1, 5008), 7, &[chunk(SHUTDOWN_COMPLETE, 1, &[])]));
            script.wan(sctp((S1, 36412), (C1, 5008), 7, &[chunk(SHUTDOWN_COMPLETE, 0, &[])]));
            script.table();
        },
    )
}

fn bundles() -> Sequence {
    associations(
        "sctp-bundles",
        "chunks that may not be together, and bundles that end it",
        |script| {
            script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT), data()]));
            script.lan(PLAIN.c(0, &[data(), init(INIT, TO_CLIENT)]));
            script.lan(PLAIN.c(0, &[]));
            script.lan(PLAIN.c(7, &[bare(HEARTBEAT), data()]));
            script.table();
            PLAIN.handshake(script);
            script.lan(PLAIN.c(TO_SERVER, &[data(), bare(COOKIE_ECHO)]));
            script.wan(PLAIN.s(TO_CLIENT, &[data(), bare(COOKIE_ACK)]));
            script.lan(PLAIN.c(TO_SERVER, &[data(), vec![0; 4], data()]));
            script.lan(PLAIN.c(TO_SERVER, &[data(), bare(SHUTDOWN_COMPLETE)]));
            script.table();
            script.lan(PLAIN.c(TO_SERVER, &[data(), bare(SHUTDOWN), bare(SHUTDOWN_ACK)]));
            script.table();
            script.lan(PLAIN.c(TO_SERVER, &[data(), bare(ABORT)]));
            script.table();
        },
    )
}

fn half_a_bundle() -> Sequence {
    associations("sctp-half-a-bundle", "a chunk's step stays done if the next is wrong", |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        script.lan(PLAIN.c(TO_SERVER, &[chunk(COOKIE_ECHO, 0, b"cookie")]));
        script.lan(PLAIN.c(TO_SERVER, &[bare(COOKIE_ACK), chunk(ABORT, 1, &[])]));
        script.table();
        script.wan(PLAIN.s(TO_CLIENT, &[bare(SHUTDOWN), chunk(ABORT, 1, &[])]));
        script.table();
    })
}

fn cut() -> Sequence {
    associations("sctp-cut", "headers and chunks that end too early", |script| {
        for length in [31, 24, 23, 20] {
            script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]).cut(length));
        }
        for kept in [0usize, 3, 4, 8, 15] {
            let chunks = init(INIT, TO_CLIENT)[..kept].to_vec();
            script.lan(PLAIN.c(0, &[chunks]));
        }
        let mut long = init(INIT, TO_CLIENT);
        long[2..4].copy_from_slice(&4000u16.to_be_bytes());
        script.lan(Ends { client: (C1, 4001), ..PLAIN }.c(0, &[long]));
        let mut short = init(INIT, TO_CLIENT);
        short[2..4].copy_from_slice(&1u16.to_be_bytes());
        script.lan(Ends { client: (C1, 4002), ..PLAIN }.c(0, &[short]));
        script.table();
    })
}

fn init_again() -> Sequence {
    associations("sctp-init-again", "a repeated INIT moves no timer", |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wait_ms(3000);
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.table();
        script.wait_ms(3000);
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT + 5)]));
        script.table();
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        script.wan(PLAIN.s(TO_CLIENT + 5, &[init(INIT_ACK, TO_SERVER)]));
        script.table();
    })
}

fn init_collision() -> Sequence {
    associations("sctp-init-collision", "both ends send an INIT", |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wan(PLAIN.s(0, &[init(INIT, TO_SERVER)]));
        script.table();
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, 0x3333)]));
        script.lan(PLAIN.c(TO_SERVER, &[init(INIT_ACK, 0x4444)]));
        script.table();
        script.lan(PLAIN.c(TO_SERVER, &[init(INIT_ACK, TO_CLIENT)]));
        script.table();
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        script.table();
        script.wan(s(TO_CLIENT, COOKIE_ECHO));
        script.table();
        script.lan(c(TO_SERVER, COOKIE_ACK));
        script.table();
    })
}

fn stale_init() -> Sequence {
    associations("sctp-stale-init", "an old INIT in a live conn, and answers to it", |script| {
        PLAIN.handshake(script);
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, 0x3333)]));
        script.lan(PLAIN.c(TO_SERVER, &[data()]));
        script.table();
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.table();
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, 0x3333)]));
        script.lan(PLAIN.c(TO_SERVER, &[data()]));
        script.lan(PLAIN.c(0x3333, &[data()]));
        script.table();
    })
}

fn restart() -> Sequence {
    associations("sctp-restart", "the client begins anew within a live conn", |script| {
        PLAIN.handshake(script);
        script.lan(PLAIN.c(0, &[init(INIT, 0x5555)]));
        script.wan(PLAIN.s(TO_CLIENT, &[data()]));
        script.wan(PLAIN.s(0x5555, &[init(INIT_ACK, 0x6666)]));
        script.lan(PLAIN.c(0x6666, &[bare(COOKIE_ECHO)]));
        script.wan(PLAIN.s(0x5555, &[bare(COOKIE_ACK)]));
        script.lan(PLAIN.c(0x6666, &[data()]));
        script.lan(PLAIN.c(TO_SERVER, &[data()]));
        script.table();
        // From the other side.
        script.wan(PLAIN.s(0, &[init(INIT, 0x7777)]));
        script.lan(PLAIN.c(0x7777, &[init(INIT_ACK, 0x8888)]));
        script.wan(PLAIN.s(0x8888, &[data()]));
        script.table();
    })
}

fn after_the_end() -> Sequence {
    associations("sctp-reopened", "a new association on the tuple of a closed one", |script| {
        PLAIN.handshake(script);
        script.lan(c(TO_SERVER, SHUTDOWN));
        script.lan(PLAIN.c(0, &[init(INIT, 0x5555)]));
        script.table();
        script.wan(PLAIN.s(0x5555, &[init(INIT_ACK, 0x6666)]));
        script.table();
        script.lan(PLAIN.c(0x6666, &[bare(COOKIE_ECHO)]));
        script.wan(PLAIN.s(0x5555, &[bare(COOKIE_ACK)]));
        script.table();
        script.lan(c(0x6666, ABORT));
        script.wan(PLAIN.s(0, &[init(INIT, 0x7777)]));
        script.table();
    })
}

fn second_path() -> Sequence {
    associations("sctp-second-path", "a conn that a HEARTBEAT begins", |script| {
        script.lan(PLAIN.c(TO_SERVER, &[chunk(HEARTBEAT, 0, &[0; 8])]));
        script.table();
        script.lan(PLAIN.c(TO_SERVER, &[chunk(HEARTBEAT, 0, &[0; 8])]));
        script.wan(PLAIN.s(TO_CLIENT, &[data()]));
        script.wan(PLAIN.s(TO_CLIENT, &[chunk(HEARTBEAT, 0, &[0; 8])]));
        script.table();
        script.wan(PLAIN.s(TO_CLIENT, &[chunk(HEARTBEAT_ACK, 0, &[0; 8])]));
        script.table();
        script.lan(PLAIN.c(TO_SERVER, &[data()]));
        script.wan(PLAIN.s(TO_CLIENT, &[data()]));
        script.lan(PLAIN.c(TO_CLIENT, &[data()]));
        script.table();
    })
}

fn foreign_heartbeat() -> Sequence {
    associations(
        "sctp-foreign-heartbeat",
        "tags learnt anew by an acknowledged HEARTBEAT",
        |script| {
            PLAIN.handshake(script);
            let beat = [chunk(HEARTBEAT, 0, &[0; 8])];
            let ack = [chunk(HEARTBEAT_ACK, 0, &[0; 8])];
            script.wan(PLAIN.s(0x9999, &ack));
            script.lan(PLAIN.c(0x8888, &beat));
            script.lan(PLAIN.c(0x9999, &ack));
            script.lan(PLAIN.c(0x8888, &[data()]));
            script.wan(PLAIN.s(0x9999, &ack));
            script.lan(PLAIN.c(0x8888, &beat));
            script.lan(PLAIN.c(0x8888, &[data()]));
            script.lan(PLAIN.c(TO_SERVER, &[data()]));
            script.wan(PLAIN.s(0x9999, &[data()]));
            script.table();
        },
    )
}

fn heartbeat_with_data() -> Sequence {
    associations("sctp-heartbeat-data", "a foreign tag is not for data", |script| {
        PLAIN.handshake(script);
        let beat = || chunk(HEARTBEAT, 0, &[0; 8]);
        script.lan(PLAIN.c(0x8888, &[beat(), data()]));
        script.lan(PLAIN.c(0x8888, &[beat(), beat()]));
        script.lan(PLAIN.c(TO_SERVER, &[beat(), data()]));
        script.wan(PLAIN.s(0x9999, &[chunk(HEARTBEAT_ACK, 0, &[0; 8]), data()]));
        script.table();
    })
}

fn timeouts() -> Sequence {
    let settings = &[
        ("sctp_timeout_closed", 21),
        ("sctp_timeout_cookie_wait", 22),
        ("sctp_timeout_cookie_echoed", 33),
        ("sctp_timeout_established", 44),
        ("sctp_timeout_shutdown_sent", 55),
        ("sctp_timeout_shutdown_recd", 66),
        ("sctp_timeout_shutdown_ack_sent", 77),
        ("sctp_timeout_heartbeat_sent", 88),
    ];
    let setup = Setup { settings, ..both(&[("filter", STATEFUL)]) };
    sequence("sctp-timeouts-set", "each timeout is obeyed", setup, |script| {
        whole_life(script, PLAIN);
        script.lan(SIX.c(TO_SERVER, &[bare(HEARTBEAT)]));
        script.table();
    })
}

fn expired() -> Sequence {
    associations("sctp-expired", "three seconds to bring the cookie back", |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        script.wait_ms(4200);
        script.lan(c(TO_SERVER, COOKIE_ECHO));
        script.table();
    })
}

fn without_rules() -> Sequence {
    let setup = both(&[("filter", OPEN)]);
    sequence("sctp-open", "invalid packets pass where no rule drops them", setup, |script| {
        script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
        script.wan(PLAIN.s(7, &[init(INIT_ACK, TO_SERVER)]));
        script.lan(c(TO_SERVER, ABORT));
        script.wan(PLAIN.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]).bad_checksum());
        script.table();
    })
}

fn masqueraded() -> Sequence {
    let setup = only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence(
        "sctp-masqueraded",
        "addresses and ports change, the CRC stays right",
        setup,
        |script| {
            let step = script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
            let caller = script.learn(step, HIGH, "port");
            let ends = Ends { caller, ..PLAIN };
            script.wan(ends.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
            script.lan(ends.c(TO_SERVER, &[bare(COOKIE_ECHO), data()]));
            script.wan(ends.s(TO_CLIENT, &[bare(COOKIE_ACK), data()]));
            script.lan(ends.c(TO_SERVER, &[data()]));
            script.wan(ends.s(TO_CLIENT, &[data(), data(), data()]));
            script.lan(ends.c(TO_SERVER, &[data()]));
            script.wan(ends.s(7, &[data()]));
            script.table();
            let second = Ends { client: (crate::topology::C2, 4000), ..PLAIN };
            let step = script.lan(second.c(0, &[init(INIT, TO_CLIENT)]));
            let caller = script.learn(step, HIGH, "second");
            script.wan(Ends { caller, ..second }.s(TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
            script.table();
        },
    )
}

fn forwarded() -> Sequence {
    let nat = "-A PREROUTING -i wan -p sctp -j DNAT --to-destination 10.1.0.11:5000\n";
    let setup = only4(&[("nat", nat)]);
    sequence("sctp-forwarded", "DNAT with a port", setup, |script| {
        let outside = ((S1, 4000), (GATEWAY_WAN, 36412));
        let inside = ((C1, 5000), (S1, 4000));
        script.wan(sctp(outside.0, outside.1, 0, &[init(INIT, TO_CLIENT)]));
        script.lan(sctp(inside.0, inside.1, TO_CLIENT, &[init(INIT_ACK, TO_SERVER)]));
        script.wan(sctp(outside.0, outside.1, TO_SERVER, &[bare(COOKIE_ECHO)]));
        script.lan(sctp(inside.0, inside.1, TO_CLIENT, &[bare(COOKIE_ACK), data()]));
        script.wan(sctp(outside.0, outside.1, TO_SERVER, &[data()]));
        script.table();
    })
}

fn about() -> Sequence {
    associations("sctp-error", "ICMP errors that quote an association", |script| {
        let first = PLAIN.c(0, &[init(INIT, TO_CLIENT)]);
        script.lan(first.clone());
        script.wan(error(S1, C1, 3, 2, &first.clone().ttl(63)));
        script.wan(error(S2, C1, 11, 0, &first.clone().cut(28)));
        script.wan(error(S2, C1, 11, 0, &first.clone().cut(24)));
        script.wan(error(S2, C1, 11, 0, &first.cut(23)));
        script.wan(error(S1, C1, 3, 2, &PLAIN.c(0, &[]).cut(28)));
        let other = Ends { client: (C1, 4001), ..PLAIN };
        script.wan(error(S1, C1, 3, 2, &other.c(0, &[init(INIT, TO_CLIENT)])));
        let six = SIX.c(0, &[init(INIT, TO_CLIENT)]);
        script.lan(six.clone());
        script.wan(error(S1_6, C1_6, 1, 4, &six));
        script.table();
    })
}

fn about_masqueraded() -> Sequence {
    let setup = only4(&[("filter", STATEFUL), ("nat", MASQUERADE)]);
    sequence(
        "sctp-error-masqueraded",
        "the quote is translated back, its CRC too",
        setup,
        |script| {
            let step = script.lan(PLAIN.c(0, &[init(INIT, TO_CLIENT)]));
            let from = script.learn(step, HIGH, "port");
            let sent = sctp(from, PLAIN.called, 0, &[init(INIT, TO_CLIENT)]).ttl(63);
            script.wan(error(S2, from.0, 11, 0, &sent));
            script.wan(error(S1, from.0, 3, 2, &sent.clone().cut(28)));
            script.table();
        },
    )
}
