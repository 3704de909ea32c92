//! Rules change and live conns go on: `on_reload = "keep"`.

use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::drops::DropReason::{FilterDrop, MangleDrop, RawDrop, Rejected};
use dataplane::rules::hook::Table::{Filter, Mangle, Nat, Raw};
use dataplane::rules::matches::limit::Limit;
use dataplane::rules::matches::{Match, StateMask};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, RST, SYN};
use proptest::prelude::*;

use super::paths::{Step, frame, policy, step, without_ids};
use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const ENDS: [(&str, &str); 2] =
    [("192.168.1.2:4000", "198.51.100.7:53"), ("[2001:db8:1::2]:4000", "[2001:db8:ffff::7]:53")];

/// What is begun inside, and its answers.
fn open() -> Setup {
    let known = StateMask::ESTABLISHED.with(StateMask::RELATED);
    Setup::default().drops(Filter, "FORWARD").both(Filter, "FORWARD", accept().state(known)).both(
        Filter,
        "FORWARD",
        accept().in_port("lan"),
    )
}

/// Nothing goes through.
fn closed() -> Setup {
    Setup::default().drops(Filter, "FORWARD")
}

impl Rig {
    /// Puts other rules in force that conns live through, or not.
    fn change(&mut self, setup: Setup, keep: bool) {
        let mut keeping = self.setup.keeping;
        if keep {
            keeping = keeping.next();
        }
        keeping.on = keep;
        self.setup = Setup { keeping, ..setup };
        self.publish();
    }
}

#[test]
fn what_has_passed_goes_on_and_nothing_else_passes() {
    for (client, server) in ENDS {
        let mut rig = open().start();
        let other = client.replace(":4000", ":4001");
        rig.pass(LAN, udp(client, server));
        rig.pass(WAN, udp(server, client));
        rig.pass(LAN, udp(&other, server));
        rig.change(closed(), true);
        let before = rig.fast();
        for _ in 0..3 {
            rig.pass(LAN, udp(client, server));
            rig.pass(WAN, udp(server, client));
        }
        assert_eq!(rig.fast() - before, 4, "each direction walks once");
        rig.pass(LAN, udp(&other, server));
        rig.dropped(WAN, udp(server, &other), FilterDrop);
        let third = client.replace(":4000", ":4002");
        rig.dropped(LAN, udp(&third, server), FilterDrop);
        let family = if client.starts_with('[') { V6 } else { V4 };
        assert_eq!(rig.count(family, Filter, "FORWARD", None).0, 2, "the others were not asked");
    }
}

#[test]
fn it_is_the_last_verdict_that_stays() {
    let (client, server) = ENDS[0];
    let mut rig = open().start();
    rig.pass(LAN, udp(client, server));
    rig.pass(WAN, udp(server, client));
    rig.change(closed(), false);
    for _ in 0..3 {
        rig.dropped(LAN, udp(client, server), FilterDrop);
    }
    // Of the other direction nothing has come meanwhile.
    rig.change(closed(), true);
    rig.dropped(LAN, udp(client, server), FilterDrop);
    rig.pass(WAN, udp(server, client));
    // Rules that let it pass are asked, and what they said stays in turn.
    rig.change(open(), true);
    rig.pass(LAN, udp(client, server));
    rig.change(closed(), true);
    rig.pass(LAN, udp(client, server));
}

#[test]
fn each_change_keeps_what_has_begun_before_it() {
    let (_, server) = ENDS[0];
    let mut rig = open().start();
    let clients: Vec<String> = (0..4).map(|n| format!("192.168.1.2:400{n}")).collect();
    for client in &clients {
        rig.pass(LAN, udp(client, server));
        rig.change(open(), true);
    }
    rig.change(closed(), true);
    for client in &clients {
        rig.pass(LAN, udp(client, server));
    }
    // What is of no era but the present one is judged.
    rig.change(open(), true);
    rig.pass(LAN, udp("192.168.1.2:5000", server));
    let (setup, era) = (closed(), rig.setup.keeping.era);
    rig.setup = Setup { keeping: rig.setup.keeping, ..setup };
    rig.publish();
    assert_eq!(rig.snapshot.keeping.era, era);
    rig.dropped(LAN, udp("192.168.1.2:5000", server), FilterDrop);
    // And who no longer keeps judges all.
    rig.change(closed(), false);
    for client in &clients {
        rig.dropped(LAN, udp(client, server), FilterDrop);
    }
}

#[test]
fn a_finished_conn_that_is_opened_anew_is_a_new_one() {
    let (client, server) = ENDS[0];
    let mut rig = open().start();
    rig.pass(LAN, tcp(client, server, SYN, 100, 0));
    rig.pass(WAN, tcp(server, client, SYN | ACK, 500, 101));
    rig.pass(LAN, tcp(client, server, ACK, 101, 501));
    rig.change(closed(), true);
    rig.pass(LAN, tcp(client, server, ACK, 101, 501));
    rig.pass(LAN, tcp(client, server, RST, 101, 0));
    rig.dropped(LAN, tcp(client, server, SYN, 9000, 0), FilterDrop);
}

#[test]
fn raw_and_mangle_hold_for_all_and_translations_stay() {
    let (client, server) = ENDS[0];
    let mut rig = open().both(Nat, "POSTROUTING", masquerade()).start();
    let sent = rig.pass(LAN, udp(client, server));
    assert_eq!(sent.flow(), "203.0.113.1:4000 > 198.51.100.7:53");
    rig.pass(WAN, udp(server, "203.0.113.1:4000"));
    rig.change(closed().both(Mangle, "FORWARD", count()).both(Raw, "PREROUTING", count()), true);
    for _ in 0..2 {
        let sent = rig.pass(LAN, udp(client, server));
        assert_eq!(sent.flow(), "203.0.113.1:4000 > 198.51.100.7:53", "no rule says so any more");
        assert_eq!(
            rig.pass(WAN, udp(server, "203.0.113.1:4000")).flow(),
            format!("{server} > {client}")
        );
    }
    assert_eq!(rig.count(V4, Mangle, "FORWARD", Some(0)).0, 4);
    assert_eq!(rig.count(V4, Raw, "PREROUTING", Some(0)).0, 4);
    rig.change(open().both(Mangle, "FORWARD", drop()), true);
    rig.dropped(LAN, udp(client, server), MangleDrop);
    rig.change(closed().both(Raw, "PREROUTING", drop()), true);
    rig.dropped(LAN, udp(client, server), RawDrop);
    // Neither was a verdict of the table filter.
    rig.change(closed(), true);
    rig.pass(LAN, udp(client, server));
}

/// What rules said packet by packet they are not asked any more: the verdict that a conn had last
/// is all that stays of them.
#[test]
fn rules_that_look_at_each_packet_are_not_asked_either() {
    let (client, server) = ENDS[0];
    let limit = Limit { rate: 1, per_secs: 1, burst: 2, bucket: Default::default() };
    let mut limited = accept();
    limited.matches.push(Match::Limit(limit));
    let setup =
        || Setup::default().drops(Filter, "FORWARD").both(Filter, "FORWARD", limited.clone());
    let mut rig = setup().start();
    rig.pass(LAN, udp(client, server));
    rig.change(setup(), true);
    for _ in 0..9 {
        rig.pass(LAN, udp(client, server));
    }
    assert_eq!(rig.fast(), 8);
}

#[test]
fn conns_with_the_gateway_and_errors_about_conns() {
    let (client, server) = ENDS[0];
    let mut rig = open().start();
    let ping = || Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 7 << 16);
    rig.pass(LAN, ping());
    let sent = rig.pass(LAN, udp(client, server));
    let strict = closed().drops(Filter, "INPUT").drops(Filter, "OUTPUT");
    rig.change(strict, true);
    rig.pass(LAN, ping());
    let other = Packet::icmp(ip("192.168.1.3"), ip("192.168.1.1"), 8, 0, 7 << 16);
    rig.dropped(LAN, other, FilterDrop);
    // No packet of the conn's own: the rules in force judge it.
    let quote = &sent.bytes[14..];
    let error = Packet::icmp(ip("198.51.100.7"), ip("192.168.1.2"), 3, 3, 0).payload(quote);
    rig.dropped(WAN, error, FilterDrop);
    rig.change(open(), true);
    let error = Packet::icmp(ip("198.51.100.7"), ip("192.168.1.2"), 3, 3, 0).payload(quote);
    rig.pass(WAN, error);
}

#[test]
fn a_conn_that_is_rejected_stays_so() {
    let (client, server) = ENDS[0];
    let mut rig = open().start();
    rig.pass(LAN, udp(client, server));
    rig.change(closed().rule(V4, Filter, "FORWARD", reject(3)), false);
    rig.answered(LAN, udp(client, server), Rejected);
    rig.change(closed(), true);
    rig.dropped(LAN, udp(client, server), FilterDrop);
    assert_eq!(rig.list().len(), 1);
}

/// All that a gateway sends that plays the steps; behind the first ones the rules change.
fn play(steps: &[Step], first: usize, closes: bool) -> [Vec<Sent>; 2] {
    let mut rig = policy().start();
    rig.strict = false;
    let mut seq = [[1000, 5000]; 10];
    let mut sent = [Vec::new(), Vec::new()];
    for (n, step) in steps.iter().enumerate() {
        if n == first && closes {
            let strict = closed().drops(Filter, "INPUT").drops(Filter, "OUTPUT");
            rig.change(strict, true);
        }
        let (port, bytes) = frame(*step, &mut seq);
        rig.push(port, MemoryFrame::new(bytes));
        sent[usize::from(n >= first)].extend(rig.poll());
        rig.wait_ticks(step.pause.unwrap_or_default().into());
    }
    sent.iter_mut().flatten().for_each(without_ids);
    sent
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Neither the old rules nor the new ones: nothing passes then.
    #[test]
    fn keeping_opens_nothing(
        steps in proptest::collection::vec(step(), 20..160), first in 10..100usize,
    ) {
        let [before, kept] = play(&steps, first, true);
        let [same, mut open] = play(&steps, first, false);
        prop_assert_eq!(before, same);
        for sent in kept {
            let at = open.iter().position(|other| *other == sent);
            prop_assert!(at.is_some(), "{:?}", sent);
            open.swap_remove(at.unwrap());
        }
    }
}
