//! SYNPROXY with a virtual clock: what is kept and what is not, how long a cookie is good, and
//! which way the packets of an opened conn take.

use dataplane::conntrack::state::Status;
use dataplane::conntrack::view::EventKind::{New, Update};
use dataplane::pipeline::drops::DropReason;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{Filter, Raw};
use dataplane::rules::matches::StateMask;
use dataplane::rules::targets::Target;
use dataplane::rules::targets::synproxy::Synproxy;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, PSH, RST, SYN};
use dataplane::wire::tcp::{self, Summary, summary};

use super::by_hand::events as told_events;
use super::rig::*;
use super::rules::*;
use super::tracking::tcp;

const PAIRS: [(&str, &str); 2] =
    [("192.168.1.2:4000", "198.51.100.7:80"), ("[2001:db8:1::2]:4000", "[2001:db8:ffff::7]:80")];

/// As the manual has it, in the chain where the servers are.
fn proxied(chain: &str) -> Setup {
    let options = Synproxy::MSS | Synproxy::WSCALE | Synproxy::SACK_PERM | Synproxy::TIMESTAMP;
    let proxy = Target::Synproxy(Synproxy { options, wscale: 7, mss: 1460 });
    let unknown = StateMask(StateMask::INVALID.0 | StateMask::UNTRACKED.0);
    Setup::default()
        .both(Raw, "PREROUTING", on(Target::Notrack).flags(0x17, SYN))
        .both(Filter, chain, on(proxy).proto(6).state(unknown))
        .both(Filter, chain, drop().state(StateMask::INVALID))
        .knob("tcp_loose", 0)
}

/// What a segment says.
struct Said {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: Summary,
}

fn said(sent: &Sent) -> Said {
    let h = sent.headers();
    let l4 = &sent.bytes[h.l4 as usize..h.end as usize];
    let view = tcp::View::new(l4).unwrap();
    Said {
        flags: view.flags(),
        seq: view.seq(),
        ack: view.ack(),
        window: view.window(),
        options: summary(view.options(l4).unwrap()),
    }
}

fn time_of(sent: &Sent) -> (u32, u32) {
    said(sent).options.timestamps.unwrap_or_default()
}

/// A SYN with all options, of time 100.
const ASKED: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 100, 0, 0, 0, 0, 1, 3, 3, 9];

fn times(value: u32, echo: u32) -> [u8; 12] {
    let mut options = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    options[4..8].copy_from_slice(&value.to_be_bytes());
    options[8..].copy_from_slice(&echo.to_be_bytes());
    options
}

/// The gateway's answer to a client's SYN.
fn knock(rig: &mut Rig, (client, server): (&str, &str)) -> Sent {
    let syn = tcp(client, server, SYN, 1000, 0).options(&ASKED);
    rig.answered(LAN, syn, DropReason::SynProxied)
}

/// The client's ACK that brings the cookie of `answer` back.
fn back(rig: &mut Rig, (client, server): (&str, &str), answer: &Sent) -> Vec<Sent> {
    let echo = times(110, time_of(answer).0);
    let ack = tcp(client, server, ACK, 1001, said(answer).seq.wrapping_add(1));
    rig.send(LAN, ack.window(502).options(&echo))
}

/// A conn that is open to `port`: the number that the client expects next, and the gateway's time.
fn open(rig: &mut Rig, (client, server): (&str, &str), port: PortId) -> (u32, u32) {
    let answer = knock(rig, (client, server));
    let syn = back(rig, (client, server), &answer);
    assert_eq!((syn.len(), syn[0].port), (1, port));
    assert_eq!((said(&syn[0]).flags, said(&syn[0]).seq), (SYN, 1000));
    let welcome = tcp(server, client, SYN | ACK, 5000, 1001).window(64240);
    let mut joined = rig.send(port, welcome.options(&times(7000, 110)));
    // In the order of the ports.
    joined.sort_by_key(|sent| sent.port == LAN);
    let [to_server, to_client] = &joined[..] else { panic!("{joined:?}") };
    assert_eq!((to_server.port, to_client.port), (port, LAN));
    let (server, client) = (said(to_server), said(to_client));
    assert_eq!((server.flags, server.seq, server.ack, server.window), (ACK, 1001, 5001, 502));
    assert_eq!(time_of(to_server), (110, 7000), "the server hears its own time");
    let (next, time) = (said(&answer).seq.wrapping_add(1), time_of(&answer).0);
    assert_eq!((client.flags, client.seq, client.ack, client.window), (ACK, next, 1001, 64240));
    assert_eq!(time_of(to_client), (time, 110));
    (next, time)
}

#[test]
fn a_flood_is_answered_and_leaves_nothing() {
    let mut rig = Setup { max: 64, ..proxied("FORWARD") }.start();
    for (client, server) in PAIRS {
        let client = client.trim_end_matches("4000");
        for port in 1024..6024 {
            let answer = knock(&mut rig, (&format!("{client}{port}"), server));
            let heard = said(&answer);
            assert_eq!((heard.flags, heard.ack, heard.window), (SYN | ACK, 1001, 0));
        }
    }
    assert_eq!(rig.list().len(), 0);
    assert_eq!(rig.counters.synproxy.syn_received.get(), 10_000);
    assert_eq!(rig.counters.conntrack.begun.get(), 0);
    assert_eq!(rig.drops(), [("syn-proxied", 10_000)]);
}

#[test]
fn what_the_client_asked_for_reaches_the_server() {
    let mut rig = proxied("FORWARD").start();
    for pair in PAIRS {
        let answer = knock(&mut rig, pair);
        let told = said(&answer).options;
        assert_eq!((told.mss.unwrap().0, told.window_scale), (1460, Some(7)));
        assert_eq!((time_of(&answer).0 & 0x3f, time_of(&answer).1), (9 | 1 << 4, 100));
        let syn = back(&mut rig, pair, &answer);
        let heard = said(&syn[0]);
        let mss = if pair.0.starts_with('[') { 1440 } else { 1460 };
        assert_eq!((heard.flags, heard.seq, heard.ack), (SYN, 1000, said(&answer).seq));
        assert_eq!((heard.options.mss.unwrap().0, heard.options.window_scale), (mss, Some(9)));
        assert!(heard.options.sack_permitted && heard.window == 502);
    }
    assert_eq!(rig.list().len(), 2);
}

/// The clock is 40 seconds past a minute.
#[test]
fn a_cookie_is_good_until_the_end_of_the_next_minute() {
    for pair in PAIRS {
        for (secs, good) in [(0, true), (79, true), (80, false), (1000, false)] {
            let mut rig = proxied("FORWARD").start();
            let answer = knock(&mut rig, pair);
            rig.wait(secs);
            assert_eq!(back(&mut rig, pair, &answer).len(), usize::from(good), "{secs}");
            let counted = &rig.counters.synproxy;
            assert_eq!(counted.cookie_valid.get(), u64::from(good));
            assert_eq!(counted.cookie_invalid.get(), u64::from(!good));
            assert_eq!(rig.list().len(), usize::from(good));
        }
    }
}

#[test]
fn what_is_no_cookie_is_refused() {
    for (client, server) in PAIRS {
        let mut rig = proxied("FORWARD").start();
        let answer = knock(&mut rig, (client, server));
        let next = said(&answer).seq.wrapping_add(1);
        let other = server.replace(":80", ":81");
        for (server, seq, ack) in
            [(server, 1001, next.wrapping_add(100)), (server, 1101, next), (&other, 1001, next)]
        {
            let ack = tcp(client, server, ACK, seq, ack);
            rig.dropped(LAN, ack, DropReason::SynRefused);
        }
        assert_eq!(rig.counters.synproxy.cookie_invalid.get(), 3);
        let damaged = tcp(client, server, ACK, 1001, next).l4_check(7);
        rig.dropped(LAN, damaged, DropReason::FilterDrop);
        assert_eq!(rig.list().len(), 0);
    }
}

fn talk(rig: &mut Rig, (client, server): (&str, &str), port: PortId) {
    let (next, time) = open(rig, (client, server), port);
    let (mut sent, mut heard) = (0, 0);
    for round in 0..4 {
        let fast = rig.fast();
        let page = tcp(server, client, ACK | PSH, 5001 + heard, 1001 + sent).payload(b"page");
        let out = rig.pass(port, page.options(&times(7010 + round, 110)));
        assert_eq!((out.port, said(&out).seq), (LAN, next.wrapping_add(heard)));
        assert_eq!((said(&out).ack, time_of(&out)), (1001 + sent, (time + 10 + round, 110)));
        heard += 4;
        let ack = next.wrapping_add(heard);
        let word = tcp(client, server, ACK | PSH, 1001 + sent, ack).payload(b"ask");
        let out = rig.pass(LAN, word.options(&times(120 + round, time + 10 + round)));
        assert_eq!((out.port, said(&out).seq, said(&out).ack), (port, 1001 + sent, 5001 + heard));
        assert_eq!(time_of(&out), (120 + round, 7010 + round));
        sent += 3;
        let expected = if round > 0 && port == WAN { 2 } else { 0 };
        assert_eq!(rig.fast() - fast, expected, "by a cached path from the second on");
    }
    let early = tcp(client, server, ACK, 1001 + sent, next.wrapping_add(heard + 1));
    rig.dropped(LAN, early, DropReason::SynRefused);
}

#[test]
fn numbers_are_moved_on_every_way() {
    for pair in PAIRS {
        let mut rig = proxied("FORWARD").start();
        talk(&mut rig, pair, WAN);
        let conn = rig.conn();
        assert!(conn.status.has(Status::SEQ_ADJUST.with(Status::ASSURED)));
    }
}

#[test]
fn a_translated_client_is_no_other() {
    let (client, server) = PAIRS[0];
    let mut rig = proxied("FORWARD")
        .rule(V4, dataplane::rules::hook::Table::Nat, "POSTROUTING", masquerade())
        .start();
    let answer = knock(&mut rig, (client, server));
    let syn = back(&mut rig, (client, server), &answer);
    assert_eq!(syn[0].flow(), "203.0.113.1:4000 > 198.51.100.7:80");
    let outside = "203.0.113.1:4000";
    let joined = rig.send(WAN, tcp(server, outside, SYN | ACK, 5000, 1001));
    assert_eq!(joined.len(), 2);
    let next = said(&answer).seq.wrapping_add(1);
    for round in 0..3 {
        let page = tcp(server, outside, ACK | PSH, 5001 + round, 1001).payload(b"x");
        let out = rig.pass(WAN, page);
        assert_eq!(
            (out.flow().as_str(), said(&out).seq),
            ("198.51.100.7:80 > 192.168.1.2:4000", next + round)
        );
        let out = rig.pass(LAN, tcp(client, server, ACK, 1001, next + round + 1));
        assert_eq!(
            (out.flow().as_str(), said(&out).ack),
            ("203.0.113.1:4000 > 198.51.100.7:80", 5002 + round)
        );
    }
    assert!(rig.fast() >= 4);
}

/// The box's own services, behind a kernel interface.
#[test]
fn a_program_of_the_box_is_a_server_as_well() {
    for pair in
        [("192.168.1.2:4000", "192.168.1.1:22"), ("[2001:db8:1::2]:4000", "[2001:db8:1::1]:22")]
    {
        let mut rig = Setup { host_taps: true, ..proxied("INPUT") }.start();
        talk(&mut rig, pair, LAN_TAP);
    }
}

#[test]
fn a_reset_has_the_client_s_numbers() {
    for (client, server) in PAIRS {
        let mut rig = proxied("FORWARD").start();
        let answer = knock(&mut rig, (client, server));
        back(&mut rig, (client, server), &answer);
        let next = said(&answer).seq.wrapping_add(1);
        let closed = rig.pass(WAN, tcp(server, client, RST | ACK, 0, 1001));
        assert_eq!((said(&closed).seq, said(&closed).ack), (next, 1001), "a closed port");
        assert_eq!(rig.list().len(), 0);
        let (next, _) = open(&mut rig, (client, server), WAN);
        rig.pass(WAN, tcp(server, client, ACK, 5001, 1001).payload(&[8; 100]));
        let later = rig.pass(WAN, tcp(server, client, RST, 5101, 0));
        assert_eq!(said(&later).seq, next.wrapping_add(100));
    }
}

/// Both ends speak again before the server has been heard: the ACK itself, and a keep-alive.
#[test]
fn a_client_may_ask_again_while_the_server_is_silent() {
    let (client, server) = PAIRS[0];
    let mut rig = proxied("FORWARD").start();
    // A size that is not the last one, as a keep-alive's cookie tells the next.
    let asked: [u8; 16] = [2, 4, 5, 0x14, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1];
    let syn = tcp(client, server, SYN, 1000, 0).options(&asked);
    let answer = rig.answered(LAN, syn, DropReason::SynProxied);
    let next = said(&answer).seq.wrapping_add(1);
    for (seq, size) in [(1001, 1300), (1001, 1300), (1000, 1440)] {
        let echo = times(110, time_of(&answer).0);
        let syn = rig.pass(LAN, tcp(client, server, ACK, seq, next).options(&echo));
        assert_eq!((said(&syn).flags, said(&syn).seq), (SYN, 1000));
        assert_eq!(said(&syn).options.mss.unwrap().0, size);
    }
    let counted = &rig.counters.synproxy;
    assert_eq!((counted.cookie_valid.get(), counted.cookie_retrans.get()), (3, 1));
    assert_eq!(rig.list().len(), 1);
    rig.dropped(LAN, tcp(client, server, ACK, 1000, next ^ 64), DropReason::SynRefused);
}

#[test]
fn without_room_for_its_numbers_there_is_no_conn() {
    let (client, server) = PAIRS[0];
    let mut rig = Setup { proxies: false, ..proxied("FORWARD") }.start();
    let answer = knock(&mut rig, (client, server));
    assert_eq!(back(&mut rig, (client, server), &answer).len(), 0);
    assert_eq!(rig.drop_count(DropReason::NoRecord), 1);
    assert_eq!(rig.list().len(), 0);
}

/// Other lcores and rules' own words about tracking stay out of it.
#[test]
fn the_table_raw_has_no_word_about_the_gateway_s_syn() {
    let (client, server) = PAIRS[0];
    let mut rig = proxied("FORWARD").both(Raw, "OUTPUT", on(Target::Notrack)).start();
    let answer = knock(&mut rig, (client, server));
    assert_eq!(back(&mut rig, (client, server), &answer).len(), 1);
    assert_eq!(rig.list().len(), 1);
}

#[test]
fn counters_of_a_conn_are_beside_its_numbers() {
    let (client, server) = PAIRS[0];
    let mut rig = proxied("FORWARD").knob("acct", 1).start();
    open(&mut rig, (client, server), WAN);
    let counted = rig.conn().counters.unwrap();
    assert_eq!(counted.map(|c| c.packets), [2, 1], "SYN, ACK and SYN|ACK");
}

#[test]
fn listeners_hear_of_moved_numbers() {
    let (client, server) = PAIRS[0];
    let mut rig = proxied("FORWARD").start();
    rig.listen();
    open(&mut rig, (client, server), WAN);
    let told = told_events(&mut rig);
    let kinds: Vec<_> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [New, Update, Update]);
}

/// A packet without TCP header, or with another protocol's: nothing of it is read.
#[test]
fn what_cannot_be_read_is_dropped() {
    let (client, server) = PAIRS[0];
    let mut rig = proxied("FORWARD").start();
    let short: Packet<'_> = tcp(client, server, ACK, 1, 2);
    let mut bytes = framed(LAN, &short);
    bytes[46] = 0xf0;
    rig.strict = false;
    assert_eq!(rig.send_bytes(LAN, bytes).len(), 0);
    assert_eq!(rig.list().len(), 0);
}
