//! What each sysctl does when it is changed while conns are there: the same packets and changes
//! through the kernel and through a gateway. `docs/sysctls.md` says which test shows which
//! key.

use std::net::IpAddr;
use std::time::Duration;

use crate::live::{Bench, Seen, on_both};
use crate::packets::{self, Packet, chunk, echo, init, other, sctp, tcp, udp};
use crate::rig::{LAN_HOST, LAN_HOST6, WAN_HOST, WAN_HOST6, Wish};

/// What a timeout is before a case, and what it is changed to.
const BEFORE: u64 = 99;
const AFTER: u64 = 222;

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn client() -> (IpAddr, u16) {
    (address(LAN_HOST), 4000)
}

fn server() -> (IpAddr, u16) {
    (address(WAN_HOST), 80)
}

fn c(flags: &str, seq: u32, ack: u32) -> Packet {
    tcp(client(), server(), flags, seq, ack)
}

fn s(flags: &str, seq: u32, ack: u32) -> Packet {
    tcp(server(), client(), flags, seq, ack)
}

fn query() -> Packet {
    udp(client(), server())
}

fn answer() -> Packet {
    udp(server(), client())
}

fn pause(seconds: f32) {
    std::thread::sleep(Duration::from_secs_f32(seconds));
}

/// A timeout, what brings a conn to where it holds, and the packet that renews it there.
struct Case {
    key: &'static str,
    reach: fn(&mut Bench<'_>),
    renew: fn(&mut Bench<'_>),
}

/// One case after the other: a timer that runs, the same after the change, after the next packet,
/// and in a new conn.
fn timeouts(cases: &[Case], set_first: &[&str]) {
    let seen = on_both(Wish::default(), |b| {
        set_first.iter().for_each(|key| b.set(key, BEFORE));
        for case in cases {
            let Case { key, reach, renew } = case;
            let default = b.run(&format!("sysctl -n net.netfilter.nf_conntrack_{key}"));
            b.flush();
            b.set(key, BEFORE);
            reach(b);
            b.timer(&format!("{key} at first"));
            b.set(key, AFTER);
            b.timer(&format!("{key} after the change"));
            renew(b);
            b.timer(&format!("{key} after a packet"));
            b.flush();
            reach(b);
            b.timer(&format!("{key} in a new conn"));
            b.set(key, default.trim().parse().expect("a number of seconds"));
        }
    });
    // That the kernel's own timers show the key's effect keeps a case from showing nothing.
    let near = |value: u64| move |secs: u64| secs <= value && secs + 5 >= value;
    assert_eq!(seen.len(), 4 * cases.len());
    for seen in &seen {
        let Seen::Secs(what, secs) = seen else { panic!("{seen:?}") };
        let is = |value| secs.is_some_and(near(value));
        match what.split_once(' ') {
            Some((_, "at first" | "after the change")) => assert!(is(BEFORE), "{seen:?}"),
            Some((_, "in a new conn")) => assert!(is(AFTER), "{seen:?}"),
            _ => assert!(secs.is_some(), "{seen:?}"),
        }
    }
}

fn open(b: &mut Bench<'_>) {
    b.lan(&c("S", 1000, 0));
    b.wan(&s("SA", 5000, 1001));
    b.lan(&c("A", 1001, 5001));
}

fn fin(b: &mut Bench<'_>) {
    open(b);
    b.lan(&c("FA", 1001, 5001));
}

fn fin_answered(b: &mut Bench<'_>) {
    fin(b);
    b.wan(&s("A", 5001, 1002));
}

fn both_fins(b: &mut Bench<'_>) {
    fin_answered(b);
    b.wan(&s("FA", 5001, 1002));
}

fn all_over(b: &mut Bench<'_>) {
    both_fins(b);
    b.lan(&c("A", 1002, 5002));
}

fn reset(b: &mut Bench<'_>) {
    open(b);
    b.wan(&s("RA", 5001, 1001));
}

fn data(b: &mut Bench<'_>) {
    b.lan(&c("PA", 1001, 5001).payload(b"twenty bytes of data"));
}

const TCP: [Case; 10] = [
    Case {
        key: "tcp_timeout_syn_sent",
        reach: |b| b.lan(&c("S", 1000, 0)),
        renew: |b| b.lan(&c("S", 1000, 0)),
    },
    Case {
        key: "tcp_timeout_syn_recv",
        reach: |b| {
            b.lan(&c("S", 1000, 0));
            b.wan(&s("SA", 5000, 1001));
        },
        renew: |b| b.wan(&s("SA", 5000, 1001)),
    },
    Case { key: "tcp_timeout_established", reach: open, renew: |b| b.wan(&s("A", 5001, 1001)) },
    Case { key: "tcp_timeout_fin_wait", reach: fin, renew: |b| b.lan(&c("FA", 1001, 5001)) },
    Case {
        key: "tcp_timeout_close_wait",
        reach: fin_answered,
        renew: |b| b.wan(&s("A", 5001, 1002)),
    },
    Case { key: "tcp_timeout_last_ack", reach: both_fins, renew: |b| b.wan(&s("FA", 5001, 1002)) },
    Case { key: "tcp_timeout_time_wait", reach: all_over, renew: |b| b.wan(&s("FA", 5001, 1002)) },
    Case { key: "tcp_timeout_close", reach: reset, renew: |b| b.wan(&s("RA", 5001, 1001)) },
    Case {
        key: "tcp_timeout_unacknowledged",
        reach: |b| {
            open(b);
            data(b);
        },
        renew: data,
    },
    Case {
        key: "tcp_timeout_max_retrans",
        reach: |b| {
            open(b);
            (0..4).for_each(|_| data(b));
        },
        renew: data,
    },
];

#[test]
fn tcp_timeouts_hold_from_the_next_packet_on() {
    timeouts(&TCP, &[]);
}

const TO_CLIENT: u32 = 0x1111_0001;
const TO_SERVER: u32 = 0x2222_0002;

fn to_server(b: &mut Bench<'_>, tag: u32, chunk: Vec<u8>) {
    b.lan(&sctp(client(), server(), tag, &[chunk]));
}

fn to_client(b: &mut Bench<'_>, chunk: Vec<u8>) {
    b.wan(&sctp(server(), client(), TO_CLIENT, &[chunk]));
}

/// The first `steps` packets of an association.
fn association(b: &mut Bench<'_>, steps: usize) {
    let all: [fn(&mut Bench<'_>); 6] = [
        |b| to_server(b, 0, init(1, TO_CLIENT)),
        |b| to_client(b, init(2, TO_SERVER)),
        |b| to_server(b, TO_SERVER, chunk(10, 0, b"cookie")),
        |b| to_client(b, chunk(11, 0, &[])),
        |b| to_server(b, TO_SERVER, chunk(7, 0, &[0; 4])),
        |b| to_client(b, chunk(8, 0, &[])),
    ];
    all.iter().take(steps).for_each(|step| step(b));
}

const SCTP: [Case; 8] = [
    Case {
        key: "sctp_timeout_closed",
        reach: |b| association(b, 1),
        renew: |b| to_server(b, 0, init(1, TO_CLIENT)),
    },
    Case {
        key: "sctp_timeout_cookie_wait",
        reach: |b| association(b, 2),
        renew: |b| to_client(b, init(2, TO_SERVER)),
    },
    Case {
        key: "sctp_timeout_cookie_echoed",
        reach: |b| association(b, 3),
        renew: |b| to_server(b, TO_SERVER, chunk(10, 0, b"cookie")),
    },
    Case {
        key: "sctp_timeout_established",
        reach: |b| association(b, 4),
        renew: |b| to_client(b, chunk(9, 0, &[])),
    },
    Case {
        key: "sctp_timeout_shutdown_sent",
        reach: |b| association(b, 5),
        renew: |b| to_server(b, TO_SERVER, chunk(7, 0, &[0; 4])),
    },
    Case {
        key: "sctp_timeout_shutdown_recd",
        reach: |b| {
            association(b, 4);
            to_client(b, chunk(7, 0, &[0; 4]));
        },
        renew: |b| to_client(b, chunk(7, 0, &[0; 4])),
    },
    Case {
        key: "sctp_timeout_shutdown_ack_sent",
        reach: |b| association(b, 6),
        renew: |b| to_client(b, chunk(8, 0, &[])),
    },
    Case {
        key: "sctp_timeout_heartbeat_sent",
        reach: |b| to_server(b, TO_SERVER, chunk(4, 0, b"beat")),
        renew: |b| to_server(b, TO_SERVER, chunk(4, 0, b"beat")),
    },
];

#[test]
fn sctp_timeouts_hold_from_the_next_packet_on() {
    // Three seconds are less than a busy machine may need for a case.
    timeouts(&SCTP, &SCTP.each_ref().map(|case| case.key));
}

fn gre(from: &str, to: &str) -> Packet {
    other(address(from), address(to), 47, &[0, 0, 8, 0])
}

const OTHER: [Case; 7] = [
    Case { key: "udp_timeout", reach: |b| b.lan(&query()), renew: |b| b.lan(&query()) },
    Case {
        key: "udp_timeout_stream",
        reach: |b| {
            b.lan(&query());
            b.wan(&answer());
            pause(2.3);
            b.lan(&query());
        },
        renew: |b| b.wan(&answer()),
    },
    Case {
        key: "icmp_timeout",
        reach: |b| b.lan(&echo(address(LAN_HOST), address(WAN_HOST), 7, 1)),
        renew: |b| b.lan(&echo(address(LAN_HOST), address(WAN_HOST), 7, 2)),
    },
    Case {
        key: "icmpv6_timeout",
        reach: |b| b.lan(&echo(address(LAN_HOST6), address(WAN_HOST6), 7, 1)),
        renew: |b| b.lan(&echo(address(LAN_HOST6), address(WAN_HOST6), 7, 2)),
    },
    Case {
        key: "generic_timeout",
        reach: |b| b.lan(&other(address(LAN_HOST), address(WAN_HOST), 50, b"secret")),
        renew: |b| b.wan(&other(address(WAN_HOST), address(LAN_HOST), 50, b"secret")),
    },
    Case {
        key: "gre_timeout",
        reach: |b| b.lan(&gre(LAN_HOST, WAN_HOST)),
        renew: |b| b.lan(&gre(LAN_HOST, WAN_HOST)),
    },
    Case {
        key: "gre_timeout_stream",
        reach: |b| {
            b.lan(&gre(LAN_HOST, WAN_HOST));
            b.wan(&gre(WAN_HOST, LAN_HOST));
            b.lan(&gre(LAN_HOST, WAN_HOST));
        },
        renew: |b| b.lan(&gre(LAN_HOST, WAN_HOST)),
    },
];

#[test]
fn other_timeouts_hold_from_the_next_packet_on() {
    timeouts(&OTHER, &[]);
}

#[test]
fn acct_and_timestamp_are_a_matter_of_the_conn_s_beginning() {
    let from = |port| udp((address(LAN_HOST), port), server());
    let to = |port| udp(server(), (address(LAN_HOST), port));
    on_both(Wish::default(), |b| {
        for keys in [&["acct"][..], &["timestamp"], &["acct", "timestamp"]] {
            b.flush();
            b.lan(&from(1));
            keys.iter().for_each(|key| b.set(key, 1));
            b.lan(&from(1));
            b.lan(&from(2));
            b.wan(&to(2));
            b.table(&format!("{keys:?} on"), " -o ktimestamp");
            keys.iter().for_each(|key| b.set(key, 0));
            b.lan(&from(1));
            b.lan(&from(2));
            b.wan(&to(2));
            b.wan(&to(2));
            b.lan(&from(3));
            b.table(&format!("{keys:?} off"), " -o ktimestamp");
            b.table(&format!("{keys:?} off"), "");
            let listed = b.side.proc("net/nf_conntrack");
            let stamped = listed.lines().filter(|line| line.contains("delta-time=")).count();
            b.note(&format!("{keys:?}: lines with an age"), stamped);
        }
    });
}

#[test]
fn checksum_is_looked_at_while_it_is_on() {
    on_both(Wish::default(), |b| {
        b.set("acct", 1);
        for packet in [query().bad_checksum(), c("S", 1000, 0).bad_checksum()] {
            for (round, on) in [1, 0, 1].into_iter().enumerate() {
                b.set("checksum", on);
                b.lan(&packet);
                b.table(&format!("round {round}"), "");
            }
        }
    });
}

#[test]
fn tcp_loose_says_whether_a_conn_is_picked_up() {
    on_both(Wish::default(), |b| {
        for (round, on) in [1, 0, 1].into_iter().enumerate() {
            b.set("tcp_loose", on);
            b.lan(&c("A", 1001, 5001));
            b.table(&format!("round {round}"), "");
            // One that is there already is not asked.
            b.set("tcp_loose", 0);
            b.wan(&s("A", 5001, 1001));
            b.table(&format!("round {round}, known"), "");
            b.flush();
        }
    });
}

#[test]
fn tcp_be_liberal_counts_for_the_next_segment() {
    on_both(Wish::default(), |b| {
        b.set("acct", 1);
        open(b);
        for (round, on) in [0, 1, 0].into_iter().enumerate() {
            b.set("tcp_be_liberal", on);
            b.lan(&c("A", 90_000_000, 5001));
            b.table(&format!("round {round}"), "");
        }
    });
}

#[test]
fn tcp_ignore_invalid_rst_counts_for_the_next_reset() {
    on_both(Wish::default(), |b| {
        b.set("acct", 1);
        for on in [0, 1] {
            b.set("tcp_ignore_invalid_rst", 1 - on);
            open(b);
            data(b);
            b.wan(&s("A", 5001, 1021));
            b.set("tcp_ignore_invalid_rst", on);
            b.lan(&c("R", 1001, 0));
            b.table(&format!("with {on}"), "");
            b.flush();
        }
    });
}

#[test]
fn tcp_max_retrans_is_the_number_of_repeats_from_now_on() {
    on_both(Wish::default(), |b| {
        open(b);
        for (round, limit) in [255, 2, 1].into_iter().enumerate() {
            b.set("tcp_max_retrans", limit);
            b.set("tcp_timeout_max_retrans", 50 + limit % 50);
            (0..2).for_each(|_| data(b));
            b.timer(&format!("round {round}"));
        }
    });
}

/// A datagram of four parts of eight bytes, by identification.
fn parts(id: u16) -> Vec<Vec<u8>> {
    let whole = udp((address(LAN_HOST), 4000 + id), server()).payload(&[7; 24]);
    let mut parts: Vec<Vec<u8>> = whole.fragments(8).iter().map(Packet::bytes).collect();
    for part in &mut parts {
        part[4..6].copy_from_slice(&id.to_be_bytes());
        part[10..12].fill(0);
        let sum = packets::checksum(&part[..20]);
        part[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    parts
}

/// The same over IPv6.
fn parts6(id: u16) -> Vec<Vec<u8>> {
    let (from, to) = (address(LAN_HOST6), address(WAN_HOST6));
    let whole = udp((from, 4000 + id), (to, 80)).payload(&[7; 24]).bytes().split_off(40);
    let cut = whole.chunks(8).enumerate().map(|(at, part)| {
        let more = u16::from((at + 1) * 8 < whole.len());
        let mut payload = vec![17, 0];
        payload.extend_from_slice(&(((at as u16) * 8) | more).to_be_bytes());
        payload.extend_from_slice(&[0, 0]);
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(part);
        other(from, to, 44, &payload).bytes()
    });
    cut.collect()
}

/// Names of a family's keys, and how its datagrams are cut.
type Cut = fn(u16) -> Vec<Vec<u8>>;
const FAMILIES: [(&str, &str, Cut); 2] =
    [("net.ipv4.ipfrag_", "time", parts), ("net.netfilter.nf_conntrack_frag6_", "timeout", parts6)];

/// The parts of a datagram with something in the middle; how many packets came of it.
fn interrupted(
    b: &mut Bench<'_>,
    parts: &[Vec<u8>],
    between: impl FnOnce(&mut Bench<'_>),
) -> usize {
    let (first, rest) = parts.split_at(2);
    for part in first {
        b.bytes(true, part);
    }
    between(b);
    rest.iter().map(|part| b.bytes(true, part)).sum()
}

#[test]
fn the_time_of_fragments_is_that_of_the_first() {
    let seen = on_both(Wish::default(), |b| {
        for (prefix, time, cut) in FAMILIES {
            let key = format!("{prefix}{time}");
            b.set(&key, 60);
            let short = |b: &mut Bench<'_>| {
                b.set(&key, 1);
                pause(2.5);
            };
            let out = interrupted(b, &cut(1), short);
            b.note(&format!("{key}: changed after the first"), out);
            let out = interrupted(b, &cut(2), |_| pause(2.5));
            b.note(&format!("{key}: changed before"), out);
        }
    });
    let text: Vec<String> = seen.iter().map(|seen| format!("{seen:?}")).collect();
    assert!(text[0].ends_with(": 4\")") && text[1].ends_with(": 0\")"), "{text:?}");
    assert!(text[2].ends_with(": 4\")") && text[3].ends_with(": 0\")"), "{text:?}");
}

#[test]
fn thresholds_of_fragments_are_those_of_the_moment() {
    on_both(Wish::default(), |b| {
        for (prefix, _, cut) in FAMILIES {
            let (low, high) = (format!("{prefix}low_thresh"), format!("{prefix}high_thresh"));
            let mut id = 0;
            for (l, h) in [(3_145_728, 4_194_304), (0, 4_194_304), (0, 0), (0, 4_194_304)] {
                // The lower one is never above.
                b.set(&low, 0);
                b.set(&high, h);
                b.set(&low, l);
                id += 1;
                let out = interrupted(b, &cut(id), |_| ());
                b.note(&format!("{prefix} {l} {h}"), out);
            }
            // What waits already counts, the rest finds no room.
            let none = |b: &mut Bench<'_>| b.set(&high, 0);
            let out = interrupted(b, &cut(9), none);
            b.note(&format!("{prefix} changed on the way"), out);
        }
    });
}

#[test]
fn ipfrag_max_dist_is_that_of_the_moment() {
    on_both(Wish::default(), |b| {
        for (round, distance) in [64, 1, 0, 2].into_iter().enumerate() {
            let base = 100 * round as u16;
            b.set("net.ipv4.ipfrag_max_dist", 64);
            let others = |b: &mut Bench<'_>| {
                b.set("net.ipv4.ipfrag_max_dist", distance);
                for id in 1..9 {
                    b.bytes(true, &parts(base + id)[0]);
                }
            };
            let out = interrupted(b, &parts(base + 50), others);
            b.note(&format!("round {round}"), out);
        }
    });
}

#[test]
fn events_are_a_matter_of_the_conn_s_beginning() {
    let from = |port| udp((address(LAN_HOST), port), server());
    let to = |port| udp(server(), (address(LAN_HOST), port));
    on_both(Wish::default(), |b| {
        b.events("events", "", |b| {
            for (port, setting) in [(11, 2), (12, 0), (13, 1), (14, 2)] {
                b.set("events", setting);
                b.lan(&from(port));
                // Who had none at its beginning gets none, who had keeps them.
                b.set("events", if setting == 0 { 1 } else { 0 });
                b.wan(&to(port));
            }
            for port in [11, 12, 13, 14] {
                b.run(&format!("conntrack -D -p udp --sport {port}"));
            }
        });
        // Nobody listened when these began.
        for setting in [2, 1] {
            b.set("events", setting);
            b.flush();
            b.lan(&from(15));
            b.later_events(&format!("too late with {setting}"), |b| b.wan(&to(15)));
        }
    });
}

#[test]
fn log_invalid_is_for_the_protocol_of_the_moment() {
    on_both(Wish::default(), |b| {
        b.said();
        for (round, number) in [0, 6, 17, 255, 0].into_iter().enumerate() {
            b.set("log_invalid", number);
            b.lan(&c("SF", 1000, 0));
            b.lan(&query().bad_checksum());
            let said = b.said();
            b.note(&format!("round {round}, {number}"), said);
        }
    });
}

#[test]
fn count_is_that_of_the_conns() {
    on_both(Wish::default(), |b| {
        for port in 1..4 {
            b.lan(&udp((address(LAN_HOST), port), server()));
            let count = b.run("sysctl net.netfilter.nf_conntrack_count");
            b.note("conns", count);
        }
    });
}

/// What `docs/semantics-notes.md` says of values that only the kernel takes: what comes of them can
/// be had by 0.
#[test]
fn values_that_are_refused_do_in_the_kernel_what_0_does() {
    use crate::conntrack_tool::Side;
    on_both(Wish::default(), |b| {
        let ours = matches!(b.side, Side::Gateway(_));
        let set = |b: &mut Bench<'_>, key: &str, odd: &str| {
            let line = format!("sysctl -qw {key}={odd}");
            assert_eq!(b.side.ask(&line).status.success(), !ours, "{line}");
            if ours {
                b.set(key, 0);
            }
        };
        set(b, "net.netfilter.nf_conntrack_udp_timeout", "-1");
        b.lan(&query());
        b.table("a negative time", "");
        for (prefix, _, cut) in FAMILIES {
            b.set(&format!("{prefix}low_thresh"), 0);
            set(b, &format!("{prefix}high_thresh"), "9223372036854775808");
            let out = interrupted(b, &cut(1), |_| ());
            b.note("a threshold of 2^63", out);
        }
    });
}
