//! SYNPROXY: what the gateway says to client and server, number by number.

use super::{CLIENT_ISN, Ends, SERVER_ISN, Sequence, both, sequence};
use crate::packets::{Packet, sack, tcp};
use crate::script::{Heard, Script, Setup};
use crate::topology::{C1, C1_6, GATEWAY_WAN, S1, S1_6, Side};

/// Sequences about handshakes in a server's stead.
pub fn group() -> Vec<Sequence> {
    vec![
        opened(),
        opened6(),
        without_times(),
        without_options(),
        ecn(),
        sizes(),
        refused(),
        closed_port(),
        repeated_ack(),
        keep_alive(),
        reset_by_server(),
        reset_by_client(),
        opened_again(),
        reopened(),
        other_segments(),
        tracked_syn(),
        masqueraded(),
        forwarded_port(),
        odd_options(),
    ]
}

const RAW: &str = "-A PREROUTING -p tcp -m tcp --syn -j CT --notrack\n";
const ALL: &str = "--sack-perm --timestamp --wscale 9 --mss 1460 --ecn";

/// As the manual has it: SYNs are not tracked, and what belongs to no conn goes to the target.
fn proxied(options: &str, more: &[(&str, &str)]) -> Setup {
    let filter = format!(
        "-A FORWARD -p tcp -m state --state INVALID,UNTRACKED -j SYNPROXY {options}\n\
         -A FORWARD -m state --state INVALID -j DROP\n"
    );
    let mut rules = vec![("raw", RAW), ("filter", filter.as_str())];
    rules.extend(more);
    Setup { settings: &[("tcp_loose", 0)], ..both(&rules) }
}

const ENDS: fn() -> Ends = || Ends::plain((C1, 4000), (S1, 80));
const ENDS6: fn() -> Ends = || Ends::plain((C1_6, 4000), (S1_6, 80));

/// What clients of Linux ask for: 1460, SACK, a time, a scale.
fn asked(mss: u16, time: u32, scale: u8) -> Vec<u8> {
    let mut options = vec![2, 4, (mss >> 8) as u8, mss as u8, 4, 2, 8, 10];
    options.extend(time.to_be_bytes());
    options.extend([0, 0, 0, 0, 1, 3, 3, scale]);
    options
}

fn times(value: u32, echo: u32) -> Vec<u8> {
    let mut options = vec![1, 1, 8, 10];
    options.extend(value.to_be_bytes());
    options.extend(echo.to_be_bytes());
    options
}

/// The one segment on a side, or a complaint.
fn only(s: &mut Script<'_>, step: usize, side: Side) -> Heard {
    let found = s.segments(step, side);
    if found.len() != 1 {
        s.complain(format!("{} segments on {}", found.len(), side.port()));
    }
    found.first().copied().unwrap_or_default()
}

/// The answer to a client's SYN: the cookie, and the time with the bits that it has to tell.
fn cookie(s: &mut Script<'_>, step: usize, told: Option<u32>) -> Heard {
    let answer = only(s, step, Side::Lan);
    s.call(answer.seq, "cookie");
    match (told, answer.times) {
        (Some(bits), Some((time, _))) if time & 0x3f == bits => s.call(time, "time"),
        (None, None) => {}
        (told, got) => s.complain(format!("time {got:?} does not tell {told:?}")),
    }
    answer
}

/// The bits that tell of scale 7 and SACK.
const TOLD: u32 = 7 | 1 << 4;

/// The client's SYN with all options, and its ACK; the cookie's segment.
fn knock(s: &mut Script<'_>, ends: &Ends) -> Heard {
    let step = s.lan(ends.c("S", CLIENT_ISN, 0).options(&asked(1460, 100, 7)));
    let answer = cookie(s, step, Some(TOLD));
    s.table();
    let echo = answer.times.map_or(0, |(time, _)| time);
    let ack = ends.c("A", CLIENT_ISN + 1, answer.seq.wrapping_add(1)).window(502);
    s.lan(ack.options(&times(110, echo)));
    answer
}

/// What the server says to the gateway's SYN.
fn welcome(ends: &Ends) -> Packet {
    let mut options = asked(1400, WELCOME, 9);
    options[12..16].copy_from_slice(&110u32.to_be_bytes());
    ends.s("SA", SERVER_ISN, CLIENT_ISN + 1).window(64240).options(&options)
}

fn echo(answer: &Heard) -> u32 {
    answer.times.map_or(0, |(time, _)| time)
}

/// The time in [`welcome`].
const WELCOME: u32 = 7000;

/// Leaves out which time the gateway's ACK to the server echoes. The kernel's is moved by as much
/// as those of the client will be.
fn ignore_echo(s: &mut Script<'_>, step: usize, side: Side, answer: &Heard) {
    let moved = WELCOME.wrapping_add(WELCOME.wrapping_sub(echo(answer)));
    s.ignore_echo(step, side, [WELCOME, moved]);
}

/// The server's answer, and what the gateway makes of it.
fn joined(s: &mut Script<'_>, ends: &Ends, answer: &Heard) {
    let step = s.wan(welcome(ends));
    ignore_echo(s, step, Side::Wan, answer);
}

fn whole(s: &mut Script<'_>, ends: &Ends) -> Heard {
    let answer = knock(s, ends);
    s.table();
    joined(s, ends, &answer);
    s.table();
    answer
}

fn talk(s: &mut Script<'_>, ends: &Ends) {
    let answer = whole(s, ends);
    let (next, time) = (answer.seq.wrapping_add(1), echo(&answer));
    let request = ends.c("PA", CLIENT_ISN + 1, next).window(502);
    s.lan(request.options(&times(120, time.wrapping_add(20))).payload(b"request"));
    let page = ends.s("PA", SERVER_ISN + 1, CLIENT_ISN + 8).window(500);
    s.wan(page.options(&times(7030, 120)).payload(&[8; 600]));
    let mut holes = sack(next.wrapping_add(300), next.wrapping_add(600));
    holes.extend(times(130, time.wrapping_add(30)));
    s.lan(ends.c("A", CLIENT_ISN + 8, next.wrapping_add(100)).window(502).options(&holes));
    s.lan(ends.c("A", CLIENT_ISN + 8, next.wrapping_add(600)).window(502));
    s.lan(ends.c("A", CLIENT_ISN + 8, next.wrapping_add(601)).window(502).payload(b"beyond"));
    s.wan(ends.s("FA", SERVER_ISN + 601, CLIENT_ISN + 8).options(&times(7040, 120)));
    s.table();
    let last = ends.c("FA", CLIENT_ISN + 8, next.wrapping_add(601));
    s.lan(last.options(&times(140, time.wrapping_add(40))));
    s.wan(ends.s("A", SERVER_ISN + 602, CLIENT_ISN + 9).options(&times(7050, 140)));
    s.table();
}

fn opened() -> Sequence {
    sequence("synproxy", "a whole connection with all options", proxied(ALL, &[]), |s| {
        talk(s, &ENDS());
    })
}

fn opened6() -> Sequence {
    sequence("synproxy6", "the same over IPv6", proxied(ALL, &[]), |s| talk(s, &ENDS6()))
}

fn without_times() -> Sequence {
    let setup = proxied("--sack-perm --wscale 9 --mss 1400", &[]);
    sequence("synproxy-no-times", "without a time only the size is told", setup, |s| {
        let ends = ENDS();
        let step = s.lan(ends.c("S", CLIENT_ISN, 0).options(&asked(1460, 100, 7)));
        let next = cookie(s, step, None).seq.wrapping_add(1);
        s.lan(ends.c("A", CLIENT_ISN + 1, next).window(64240));
        s.wan(ends.s("SA", SERVER_ISN, CLIENT_ISN + 1).options(&[2, 4, 5, 0x78, 1, 3, 3, 2]));
        s.lan(ends.c("PA", CLIENT_ISN + 1, next).payload(b"request"));
        s.wan(ends.s("PA", SERVER_ISN + 1, CLIENT_ISN + 8).payload(b"answer"));
        s.lan(ends.c("R", CLIENT_ISN + 8, 0));
        s.table();
    })
}

fn without_options() -> Sequence {
    sequence("synproxy-bare", "no options on either side", proxied("", &[]), |s| {
        let ends = ENDS();
        let step = s.lan(ends.c("S", CLIENT_ISN, 0));
        let next = cookie(s, step, None).seq.wrapping_add(1);
        s.lan(ends.c("A", CLIENT_ISN + 1, next).payload(b"at once"));
        s.wan(ends.s("SA", SERVER_ISN, CLIENT_ISN + 1));
        s.lan(ends.c("PA", CLIENT_ISN + 1, next).payload(b"at once"));
        s.wan(ends.s("A", SERVER_ISN + 1, CLIENT_ISN + 8));
        s.table();
    })
}

fn ecn() -> Sequence {
    sequence("synproxy-ecn", "ECN asked for and passed on", proxied(ALL, &[]), |s| {
        let ends = ENDS();
        let step = s.lan(ends.c("SEC", CLIENT_ISN, 0).options(&asked(1460, 100, 14)));
        let answer = cookie(s, step, Some(14 | 1 << 4 | 1 << 5));
        let ack = ends.c("A", CLIENT_ISN + 1, answer.seq.wrapping_add(1));
        s.lan(ack.options(&times(110, echo(&answer))));
        joined(s, &ends, &answer);
        let step = s.lan(tcp((C1, 4001), (S1, 80), "SE", 9, 0).options(&times(1, 0)));
        cookie(s, step, Some(15));
    })
}

fn sizes() -> Sequence {
    sequence(
        "synproxy-sizes",
        "what of the client's size the server hears",
        proxied(ALL, &[]),
        |s| {
            for (port, mss) in [(4000, 9000), (4001, 1459), (4002, 1300), (4003, 1299), (4004, 0)] {
                for (client, server) in [(C1, S1), (C1_6, S1_6)] {
                    let ends = Ends::plain((client, port), (server, 80));
                    let step = s.lan(ends.c("S", CLIENT_ISN, 0).options(&asked(mss, 100, 15)));
                    let answer = cookie(s, step, Some(14 | 1 << 4));
                    let ack = ends.c("A", CLIENT_ISN + 1, answer.seq.wrapping_add(1));
                    s.lan(ack.options(&times(110, echo(&answer))));
                }
            }
        },
    )
}

fn refused() -> Sequence {
    sequence(
        "synproxy-refused",
        "what brings no cookie back leaves nothing",
        proxied(ALL, &[]),
        |s| {
            let ends = ENDS();
            s.lan(ends.c("A", CLIENT_ISN + 1, 77));
            let step = s.lan(ends.c("S", CLIENT_ISN, 0).options(&asked(1460, 100, 7)));
            let next = cookie(s, step, Some(TOLD)).seq.wrapping_add(1);
            for (seq, ack) in
                [(1001, next.wrapping_add(1 << 19)), (1101, next), (1001, next.wrapping_add(5))]
            {
                s.lan(ends.c("A", seq, ack));
            }
            s.lan(tcp((C1, 4001), (S1, 80), "A", CLIENT_ISN + 1, next));
            s.lan(tcp((C1, 4000), (S1, 81), "A", CLIENT_ISN + 1, next));
            s.lan(ends.c("A", CLIENT_ISN + 1, next).bad_checksum());
            s.table();
            s.lan(ends.c("A", CLIENT_ISN + 1, next));
            s.table();
        },
    )
}

fn closed_port() -> Sequence {
    sequence("synproxy-closed", "a server that resets", proxied(ALL, &[]), |s| {
        let ends = ENDS();
        knock(s, &ends);
        s.wan(ends.s("RA", 0, CLIENT_ISN + 1));
        s.table();
    })
}

fn repeated_ack() -> Sequence {
    sequence(
        "synproxy-repeated",
        "an ACK again before the server has answered",
        proxied(ALL, &[]),
        |s| {
            let ends = ENDS();
            let answer = knock(s, &ends);
            let ack = ends.c("PA", CLIENT_ISN + 1, answer.seq.wrapping_add(1)).window(502);
            s.lan(ack.options(&times(115, echo(&answer))).payload(b"early"));
            joined(s, &ends, &answer);
            s.wan(welcome(&ends));
            s.table();
        },
    )
}

fn keep_alive() -> Sequence {
    sequence(
        "synproxy-keep-alive",
        "a keep-alive before the server has answered",
        proxied(ALL, &[]),
        |s| {
            for (port, mss) in [(4000, 1460), (4001, 1300)] {
                let ends = Ends::plain((C1, port), (S1, 80));
                let step = s.lan(ends.c("S", CLIENT_ISN, 0).options(&asked(mss, 100, 7)));
                let answer = cookie(s, step, Some(TOLD));
                let next = answer.seq.wrapping_add(1);
                s.lan(ends.c("A", CLIENT_ISN + 1, next).options(&times(110, echo(&answer))));
                s.lan(ends.c("A", CLIENT_ISN, next).options(&times(120, echo(&answer))));
                s.lan(ends.c("A", CLIENT_ISN, next.wrapping_add(9)));
                s.table();
                joined(s, &ends, &answer);
                s.lan(ends.c("A", CLIENT_ISN, next).options(&times(130, echo(&answer))));
                s.table();
            }
        },
    )
}

fn reset_by_server() -> Sequence {
    sequence("synproxy-server-resets", "the server resets what is open", proxied(ALL, &[]), |s| {
        let ends = ENDS();
        let answer = whole(s, &ends);
        let next = answer.seq.wrapping_add(1);
        let page = ends.s("PA", SERVER_ISN + 1, CLIENT_ISN + 1).payload(&[8; 100]);
        s.wan(page);
        s.lan(ends.c("A", CLIENT_ISN + 1, next.wrapping_add(100)).window(502));
        s.wan(ends.s("R", SERVER_ISN + 101, 0));
        s.table();
        s.lan(ends.c("A", CLIENT_ISN + 1, next.wrapping_add(100)).window(502));
        s.wan(ends.s("R", SERVER_ISN + 101, 0));
    })
}

fn reset_by_client() -> Sequence {
    sequence("synproxy-client-resets", "the client resets what is open", proxied(ALL, &[]), |s| {
        let ends = ENDS();
        let answer = whole(s, &ends);
        s.lan(ends.c("RA", CLIENT_ISN + 1, answer.seq.wrapping_add(1)));
        s.wan(ends.s("A", SERVER_ISN + 1, CLIENT_ISN + 1));
        s.table();
    })
}

fn opened_again() -> Sequence {
    let mut setup = proxied(ALL, &[]);
    setup.settings = &[("tcp_loose", 0), ("tcp_timeout_close", 1)];
    sequence("synproxy-again", "the same client once a reset conn is gone", setup, |s| {
        let ends = ENDS();
        whole(s, &ends);
        s.wan(ends.s("R", SERVER_ISN + 1, 0));
        s.table();
        s.wait_ms(3000);
        s.table();
        talk(s, &ends);
    })
}

/// A SYN that is tracked, to a conn that the server has reset: its numbers are forgotten, and those
/// of the SYN are taken for what the client was told. The conn moves numbers as far as before, so
/// what becomes of its server's answer depends on the first cookie: no two devices have the same.
fn reopened() -> Sequence {
    let filter = "-A FORWARD -p tcp -m conntrack --ctstate NEW,INVALID -j SYNPROXY --timestamp\n";
    let setup = Setup { settings: &[("tcp_loose", 0)], ..both(&[("filter", filter)]) };
    sequence("synproxy-reopened", "a SYN goes on to a conn that was reset", setup, |s| {
        let ends = ENDS();
        let step = s.lan(ends.c("S", CLIENT_ISN, 0).options(&asked(1460, 100, 7)));
        let answer = cookie(s, step, Some(15));
        let next = answer.seq.wrapping_add(1);
        s.lan(ends.c("A", CLIENT_ISN + 1, next).options(&times(110, echo(&answer))));
        joined(s, &ends, &answer);
        s.wan(ends.s("R", SERVER_ISN + 1, 0));
        s.table();
        s.lan(ends.c("S", 700_000, 0).options(&asked(1460, 900, 7)));
        s.table();
    })
}

fn other_segments() -> Sequence {
    let rules = [("filter", "-A FORWARD -p tcp -j SYNPROXY --mss 1000\n")];
    let setup = Setup { settings: &[("tcp_loose", 0)], ..both(&rules) };
    sequence("synproxy-others", "what is neither SYN nor ACK goes on", setup, |s| {
        let ends = ENDS();
        for flags in ["R", "FA", "RA", "SA", "", "P"] {
            s.lan(ends.c(flags, 5, 6));
        }
        s.lan(ends.c("S", 5, 0).data_offset(4));
        s.lan(ends.c("S", 5, 0).data_offset(9));
        s.lan(ends.c("RA", 5, 6).bad_checksum());
        s.table();
    })
}

fn tracked_syn() -> Sequence {
    let filter = "-A OUTPUT -p tcp -m conntrack --ctstate ESTABLISHED -j ACCEPT\n\
                  -A OUTPUT -p tcp -m conntrack --ctstate INVALID -j DROP\n\
                  -A FORWARD -p tcp -m conntrack --ctstate NEW,INVALID -j SYNPROXY --mss 1000\n";
    let nat = "-A PREROUTING -d 203.0.113.1 -p tcp -j DNAT --to-destination 203.0.113.51:80\n";
    let mut setup = both(&[("filter", filter)]);
    setup.rules4 = super::tables(&[("filter", filter), ("nat", nat)]);
    setup.settings = &[("tcp_loose", 0)];
    sequence(
        "synproxy-tracked",
        "a SYN that is tracked has its conn answered, and forgotten",
        setup,
        |s| {
            let ends = Ends::plain((C1, 4000), (S1, 80));
            let step = s.lan(ends.c("S", 5, 0));
            let next = cookie(s, step, None).seq.wrapping_add(1);
            s.table();
            s.lan(ends.c("A", 6, next));
            s.wan(ends.s("SA", SERVER_ISN, 6));
            s.table();
            let called = Ends { client: (C1, 4001), called: (GATEWAY_WAN, 8080), ..ends };
            let step = s.lan(called.c("S", 5, 0));
            cookie(s, step, None);
            s.table();
        },
    )
}

fn masqueraded() -> Sequence {
    let nat = "-A POSTROUTING -o wan -p tcp -j SNAT --to-source 203.0.113.10:7000\n";
    let mut setup = proxied(ALL, &[]);
    setup.rules4 = proxied(ALL, &[("nat", nat)]).rules4;
    sequence("synproxy-snat", "a translated client", setup, |s| {
        let caller = (crate::topology::SECOND_WAN, 7000);
        let ends = Ends { client: (C1, 4000), called: (S1, 80), server: (S1, 80), caller };
        talk(s, &ends);
    })
}

fn forwarded_port() -> Sequence {
    let filter =
        "-A INPUT -p tcp -m state --state INVALID,UNTRACKED -j SYNPROXY --timestamp --wscale 9\n";
    let nat = "-A OUTPUT -d 203.0.113.1 -p tcp -j DNAT --to-destination 10.1.0.11:80\n";
    let mut setup = both(&[("raw", RAW), ("filter", filter)]);
    setup.rules4 = super::tables(&[("raw", RAW), ("filter", filter), ("nat", nat)]);
    setup.settings = &[("tcp_loose", 0)];
    sequence("synproxy-dnat", "a port of the gateway that leads to a server inside", setup, |s| {
        // The client is outside here.
        let client = (S1, 4000);
        let called = (GATEWAY_WAN, 80);
        let step = s.wan(tcp(client, called, "S", CLIENT_ISN, 0).options(&asked(1460, 100, 7)));
        let answer = only(s, step, Side::Wan);
        s.call(answer.seq, "cookie");
        s.call(echo(&answer), "time");
        let next = answer.seq.wrapping_add(1);
        let ack = tcp(client, called, "A", CLIENT_ISN + 1, next);
        s.wan(ack.options(&times(110, echo(&answer))));
        s.table();
        let welcome = tcp((C1, 80), client, "SA", SERVER_ISN, CLIENT_ISN + 1);
        let step = s.lan(welcome.options(&times(WELCOME, 110)));
        ignore_echo(s, step, Side::Lan, &answer);
        let request = tcp(client, called, "PA", CLIENT_ISN + 1, next);
        s.wan(request.options(&times(120, echo(&answer))).payload(b"request"));
        let page = tcp((C1, 80), client, "PA", SERVER_ISN + 1, CLIENT_ISN + 8);
        s.lan(page.options(&times(7010, 120)).payload(b"page"));
        s.table();
    })
}

fn odd_options() -> Sequence {
    sequence(
        "synproxy-odd",
        "options that end within one, or lie across words",
        proxied(ALL, &[]),
        |s| {
            let ends = ENDS();
            let answer = whole(s, &ends);
            let next = answer.seq.wrapping_add(1);
            let c = || ends.c("A", CLIENT_ISN + 1, next).window(502);
            s.lan(c().options(&[9, 1, 0, 0]));
            s.lan(c().options(&[1, 1, 1, 5]));
            s.lan(c().options(&[9, 40, 0, 0]));
            s.lan(c().options(&[0, 5, 10, 1]));
            s.lan(c().options(&[5, 6, 1, 2, 3, 4, 0, 0]));
            s.wan(ends.s("A", SERVER_ISN + 1, CLIENT_ISN + 1).options(&[9, 1, 0, 0]));
            let mut both = times(130, echo(&answer));
            both.extend(sack(next.wrapping_add(5), next.wrapping_add(6)));
            s.lan(c().options(&both));
            s.table();
        },
    )
}
