//! ARP and neighbour discovery: answers, questions, frames that wait, and giving up.

use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::neighbour::{Resolved, State};
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{Filter, Mangle, Nat};
use dataplane::rules::matches::StateMask;
use dataplane::wire::address::Address;
use dataplane::wire::arp;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::build::{Link, neighbour};
use dataplane::wire::ethernet::Mac;
use dataplane::wire::ndp::{self, flags};

use super::rig::*;
use super::rules::*;
use super::tracking::udp;

const CLIENT: &str = "192.168.1.2:4000";
const CLIENT6: &str = "[2001:db8:1::2]:4000";
const NEW_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

type Written = fn(&mut [u8]) -> Option<usize>;

fn frame(write: impl FnOnce(&mut [u8]) -> Option<usize>) -> Vec<u8> {
    let mut buffer = [0; 128];
    let len = write(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

fn request(sender: &str, target: &str) -> Vec<u8> {
    frame(|b| neighbour::arp_request(b, NEW_MAC, address(sender), address(target), None, None))
}

fn reply(sender: &str, mac: Mac, to: PortId) -> Vec<u8> {
    let (our_mac, ours) =
        if to == LAN { (LAN_MAC, "192.168.1.1") } else { (WAN_MAC, "203.0.113.1") };
    let link = Link { dst: our_mac, src: mac, tci: None };
    frame(|b| neighbour::arp_reply(b, &link, address(sender), (our_mac, address(ours))))
}

fn solicitation(sender: &str, target: &str) -> Vec<u8> {
    frame(|b| neighbour::solicitation(b, NEW_MAC, address(sender), address(target), None, None))
}

fn advertisement(target: &str, mac: Mac, set: u8) -> Vec<u8> {
    let link = Link { dst: LAN_MAC, src: mac, tci: None };
    frame(|b| neighbour::advertisement(b, &link, address(target), address("2001:db8:1::1"), set))
}

/// What is known of a neighbour.
fn known(rig: &Rig, a: &str) -> Option<(State, Option<[u8; 6]>)> {
    let found = rig.neighbours.iter().find(|n| n.address == address(a));
    found.map(|n| (n.state, n.mac))
}

fn asks_for(sent: &Sent, target: &str) -> bool {
    match address(target).is_v4() {
        true => {
            let view = arp::View::new(&sent.bytes[14..]);
            view.is_some_and(|v| v.operation() == 1 && v.target() == address(target))
        }
        false => {
            let h = sent.headers();
            let message = &sent.bytes[h.l4 as usize..h.end as usize];
            matches!(ndp::parse(&h, message),
                Some(ndp::Message::Solicitation { target: t, .. }) if t == address(target))
        }
    }
}

#[test]
fn the_gateway_answers_for_its_own_addresses_only() {
    let mut rig = Setup::default().start();
    for target in ["192.168.1.1", "203.0.113.10"] {
        let sent = rig.send_bytes(LAN, request("192.168.1.77", target));
        let view = arp::View::new(&sent[0].bytes[14..]).unwrap();
        assert_eq!(
            (view.operation(), view.sender_mac(), view.sender()),
            (2, LAN_MAC, address(target))
        );
        assert_eq!((view.target_mac(), sent[0].dst_mac()), (NEW_MAC, NEW_MAC));
    }
    // Who asks is known from then on.
    assert_eq!(known(&rig, "192.168.1.77"), Some((State::Stale, Some(NEW_MAC.0))));
    assert!(rig.send_bytes(LAN, request("192.168.1.78", "192.168.1.3")).is_empty());
    assert_eq!(known(&rig, "192.168.1.78"), None);
    // A probe for duplicates is answered and teaches nothing.
    assert_eq!(rig.send_bytes(LAN, request("0.0.0.0", "192.168.1.1")).len(), 1);
    assert_eq!(known(&rig, "0.0.0.0"), None);
}

#[test]
fn solicitations_are_answered() {
    let mut rig = Setup::default().start();
    for target in ["2001:db8:1::1", "fe80::10"] {
        let sent = rig.send_bytes(LAN, solicitation("2001:db8:1::77", target));
        let (kind, _, bits, _) = sent[0].icmp();
        assert_eq!((kind, bits >> 24), (136, 0xe0), "router, solicited, override");
        assert_eq!((sent[0].headers().src, sent[0].headers().ttl), (address(target), 255));
        assert_eq!(sent[0].dst_mac(), NEW_MAC);
    }
    assert_eq!(known(&rig, "2001:db8:1::77"), Some((State::Stale, Some(NEW_MAC.0))));
    // A probe for duplicates is answered to all nodes.
    let probe = frame(|b| {
        neighbour::solicitation(b, NEW_MAC, Address::v6(0), address("2001:db8:1::1"), None, None)
    });
    let sent = rig.send_bytes(LAN, probe);
    assert_eq!((sent[0].headers().dst, sent[0].icmp().2 >> 24), (address("ff02::1"), 0xa0));
    // Another port's address is not answered for.
    assert!(rig.send_bytes(LAN, solicitation("2001:db8:1::77", "2001:db8:2::1")).is_empty());
}

#[test]
fn what_waits_for_one_neighbour_never_goes_to_the_next_owner_of_its_slot() {
    let mut rig = Setup { neighbours: 8, ..Setup::default() }.start();
    for host in 50..58 {
        rig.send(LAN, udp(CLIENT, &format!("192.168.1.{host}:7")));
    }
    assert_eq!(rig.counters.held.get(), 8);
    rig.wait(2);
    rig.send(LAN, udp(CLIENT, "192.168.1.60:7"));
    assert_eq!(rig.counters.held.get(), 9);
    let sent = rig.send_bytes(LAN, reply("192.168.1.60", NEW_MAC, LAN));
    let there: Vec<String> =
        sent.iter().filter(|s| s.dst_mac() == NEW_MAC).map(Sent::flow).collect();
    assert_eq!(there, [format!("{CLIENT} > 192.168.1.60:7")]);
    // Whose slot was taken, and whose slot the error about that was given.
    assert_eq!(rig.drop_count(DropReason::NeighbourFailed), 2);
}

#[test]
fn nonsense_is_refused() {
    let mut rig = Setup::default().start();
    let good = request("192.168.1.77", "192.168.1.1");
    let mut count = |bytes: Vec<u8>, reason| {
        assert!(rig.send_counting(LAN, bytes, reason).is_empty());
    };
    count(good[..40].to_vec(), DropReason::BadArp);
    for (at, value) in [(15, 6), (17, 0x86), (18, 8), (19, 16), (21, 3), (22, 1)] {
        let mut bytes = good.clone();
        bytes[at] = value;
        count(bytes, DropReason::BadArp);
    }
    let mut bytes = good.clone();
    bytes[..6].copy_from_slice(&NEW_MAC.0);
    count(bytes, DropReason::OtherHost);
    let tagged = frame(|b| {
        neighbour::arp_request(
            b,
            NEW_MAC,
            address("192.168.1.77"),
            address("192.168.1.1"),
            None,
            Some(7),
        )
    });
    count(tagged, DropReason::UnknownVlan);
    // Neighbour discovery from beyond the link (hop limit below 255), or with a code.
    let mut bytes = solicitation("2001:db8:1::77", "2001:db8:1::1");
    bytes[21] = 254;
    count(bytes, DropReason::BadNeighbourMessage);
    assert_eq!(known(&rig, "192.168.1.77"), None);
}

#[test]
fn frames_wait_for_the_answer_and_leave_in_order() {
    let mut rig = Setup::default().start();
    let cases: [(&str, &str, &str, Written); 2] = [
        (CLIENT, "192.168.1.50:7", "192.168.1.50", |b| {
            let link = Link { dst: LAN_MAC, src: NEW_MAC, tci: None };
            neighbour::arp_reply(
                b,
                &link,
                address("192.168.1.50"),
                (LAN_MAC, address("192.168.1.1")),
            )
        }),
        (CLIENT6, "[2001:db8:1::50]:7", "2001:db8:1::50", |b| {
            let link = Link { dst: LAN_MAC, src: NEW_MAC, tci: None };
            let set = flags::SOLICITED | flags::OVERRIDE;
            neighbour::advertisement(
                b,
                &link,
                address("2001:db8:1::50"),
                address("2001:db8:1::1"),
                set,
            )
        }),
    ];
    for (client, dst, neighbour, answer) in cases {
        let first = rig.pass(LAN, udp(client, dst).payload(b"0"));
        assert!(asks_for(&first, neighbour), "{first:?}");
        for n in 1..=9u8 {
            assert!(rig.send(LAN, udp(client, dst).payload(&[b'0' + n])).is_empty(), "asked once");
        }
        assert_eq!(rig.counters.held.get(), 10);
        let sent = rig.send_bytes(LAN, frame(answer));
        let order: Vec<u8> = sent.iter().map(|s| *s.bytes.last().unwrap()).collect();
        assert_eq!(order, b"0123456789");
        assert!(sent.iter().all(|s| s.dst_mac() == NEW_MAC && s.port == LAN));
        assert_eq!(rig.counters.held.get(), 0);
        assert_eq!(known(&rig, neighbour), Some((State::Reachable, Some(NEW_MAC.0))));
        // The next ones do not wait, and take the short way after the second.
        let fast = rig.fast();
        for _ in 0..3 {
            assert_eq!(rig.pass(LAN, udp(client, dst)).dst_mac(), NEW_MAC);
        }
        assert_eq!(rig.fast(), fast + 2);
    }
}

#[test]
fn a_hundred_and_one_frames_wait_for_one_neighbour() {
    let mut rig = Setup::default().start();
    for n in 0..120u8 {
        rig.send(LAN, udp(CLIENT, "192.168.1.50:7").payload(&[n]));
    }
    assert_eq!(rig.counters.held.get(), 101);
    assert_eq!(rig.drop_count(DropReason::NeighbourQueueFull), 19);
    // Nor do many neighbours hold more than there is room for.
    for host in 51..60 {
        for _ in 0..100 {
            rig.send(LAN, udp(CLIENT, &format!("192.168.1.{host}:7")));
        }
    }
    assert_eq!(rig.counters.held.get(), 512, "{:?}", rig.drops());
    let sent = rig.send_bytes(LAN, reply("192.168.1.50", NEW_MAC, LAN));
    assert_eq!(sent.len(), 101);
    // What waits when the gateway stops is counted (the rig sees to the balance).
    rig.worker.stop();
    assert_eq!(rig.drop_count(DropReason::Stopped), 411);
}

#[test]
fn three_questions_without_an_answer_and_the_sender_is_told() {
    for (client, dst, neighbour, kind, code) in [
        (CLIENT, "192.168.1.50:7", "192.168.1.50", 3, 1),
        (CLIENT6, "[2001:db8:1::50]:7", "2001:db8:1::50", 1, 3),
    ] {
        let mut rig = Setup::default().start();
        let mut asked = rig.send(LAN, udp(client, dst)).len();
        rig.send(LAN, udp(client, dst));
        let mut errors = Vec::new();
        for _ in 0..4 {
            for sent in rig.live(1) {
                if !sent.is_arp() && sent.icmp().0 == kind {
                    errors.push(sent);
                } else {
                    assert!(asks_for(&sent, neighbour));
                    asked += 1;
                }
            }
        }
        assert_eq!(asked, 3);
        assert_eq!(errors.len(), 2);
        for error in errors {
            assert_eq!(error.icmp().1, code);
            assert_eq!(error.quote(), format!("{client} > {dst}"));
            assert_eq!((error.dst_mac(), error.port), (CLIENT_MAC, LAN));
        }
        assert_eq!(rig.drop_count(DropReason::NeighbourFailed), 2);
        assert_eq!(known(&rig, neighbour), Some((State::Failed, None)));
        // The next packet asks anew.
        assert!(asks_for(&rig.pass(LAN, udp(client, dst)), neighbour));
    }
}

#[test]
fn behind_masquerade_the_client_hears_that_the_host_is_unreachable() {
    let states = |setup: Setup| {
        setup.both(Mangle, "OUTPUT", count().state(StateMask::RELATED)).both(
            Mangle,
            "OUTPUT",
            count().state(StateMask::INVALID),
        )
    };
    let mut rig = states(Setup::default().both(Nat, "POSTROUTING", masquerade())).start();
    for (family, client, dst, us) in [
        (V4, CLIENT, "203.0.113.99:7", "203.0.113.1"),
        (V6, CLIENT6, "[2001:db8:2::99]:7", "2001:db8:2::1"),
    ] {
        rig.send(LAN, udp(client, dst));
        let mut sent = rig.live(4);
        let error = sent.pop().expect("an error");
        assert_eq!(error.quote(), format!("{client} > {dst}"), "{:?}", error.flow());
        assert_eq!(error.headers().dst, at(client).ip().into());
        assert_eq!(error.headers().src, address(us));
        assert_eq!((error.dst_mac(), error.port), (CLIENT_MAC, LAN));
        assert_eq!(rig.count(family, Mangle, "OUTPUT", Some(0)).0, 1);
        assert_eq!(rig.count(family, Mangle, "OUTPUT", Some(1)).0, 0);
    }
    // And behind DNAT the peer outside hears of the address it sent to.
    let rule = dnat("192.168.1.77", Some(5353)).proto(17).dport(53);
    let mut rig = Setup::default().rule(V4, Nat, "PREROUTING", rule).start();
    rig.send(WAN, udp("198.51.100.9:999", "203.0.113.1:53"));
    let error = rig.live(4).pop().expect("an error");
    assert_eq!(error.quote(), "198.51.100.9:999 > 203.0.113.1:53");
    assert_eq!(error.headers().src, address("203.0.113.1"));
}

#[test]
fn a_neighbour_moves_by_gratuitous_arp() {
    let mut rig = Setup::default().start();
    rig.send(LAN, udp(CLIENT, "192.168.1.50:7"));
    rig.send_bytes(LAN, reply("192.168.1.50", CLIENT2_MAC, LAN));
    for _ in 0..3 {
        assert_eq!(rig.pass(LAN, udp(CLIENT, "192.168.1.50:7")).dst_mac(), CLIENT2_MAC);
    }
    let announcement =
        frame(|b| neighbour::arp_announcement(b, NEW_MAC, address("192.168.1.50"), None));
    assert!(rig.send_bytes(LAN, announcement).is_empty());
    // Also on the cached path.
    let fast = rig.fast();
    assert_eq!(rig.pass(LAN, udp(CLIENT, "192.168.1.50:7")).dst_mac(), NEW_MAC);
    assert_eq!(rig.fast(), fast + 1);
    // One that nobody asked for makes nobody known.
    let stranger =
        frame(|b| neighbour::arp_announcement(b, NEW_MAC, address("192.168.1.60"), None));
    rig.send_bytes(LAN, stranger);
    assert_eq!(known(&rig, "192.168.1.60"), None);
}

#[test]
fn permanent_neighbours_are_not_changed_by_packets() {
    let mut rig = Setup::default().start();
    let announcement =
        frame(|b| neighbour::arp_announcement(b, NEW_MAC, address("192.168.1.3"), None));
    rig.send_bytes(LAN, announcement);
    rig.send_bytes(LAN, reply("192.168.1.3", NEW_MAC, LAN));
    rig.send_bytes(LAN, advertisement("2001:db8:1::3", NEW_MAC, flags::OVERRIDE));
    assert_eq!(rig.pass(LAN, udp(CLIENT, "192.168.1.3:7")).dst_mac(), CLIENT2_MAC);
    assert_eq!(rig.pass(LAN, udp(CLIENT6, "[2001:db8:1::3]:7")).dst_mac(), CLIENT2_MAC);
    rig.live(100);
    assert_eq!(known(&rig, "192.168.1.3"), Some((State::Permanent, Some(CLIENT2_MAC.0))));
}

#[test]
fn a_reachable_neighbour_grows_stale_and_is_asked_when_used() {
    let mut rig = Setup::default().start();
    rig.send(LAN, udp(CLIENT, "192.168.1.50:7"));
    rig.send_bytes(LAN, reply("192.168.1.50", NEW_MAC, LAN));
    rig.pass(LAN, udp(CLIENT, "192.168.1.50:7"));
    assert!(rig.live(31).is_empty());
    assert_eq!(known(&rig, "192.168.1.50").unwrap().0, State::Stale);
    // Use by the cached path counts as use.
    rig.pass(LAN, udp(CLIENT, "192.168.1.50:7"));
    rig.pass(LAN, udp(CLIENT, "192.168.1.50:7"));
    let sent = rig.live(8);
    assert!(asks_for(&sent[0], "192.168.1.50"));
    assert_eq!(sent[0].dst_mac(), NEW_MAC, "asked directly");
    rig.send_bytes(LAN, reply("192.168.1.50", NEW_MAC, LAN));
    assert_eq!(known(&rig, "192.168.1.50").unwrap().0, State::Reachable);
    // Once it has failed, packets of a known conn wait again.
    rig.live(31);
    rig.pass(LAN, udp(CLIENT, "192.168.1.50:7"));
    rig.live(10);
    assert_eq!(known(&rig, "192.168.1.50").unwrap().0, State::Failed);
    assert!(asks_for(&rig.pass(LAN, udp(CLIENT, "192.168.1.50:7")), "192.168.1.50"));
    assert_eq!(rig.counters.held.get(), 1);
}

#[test]
fn a_full_table_refuses_new_neighbours() {
    let mut rig = Setup { neighbours: 8, ..Setup::default() }.start();
    for n in 1..=8u8 {
        let a = Address::v4(0xc0a8_0164 + n as u32);
        assert!(rig.neighbours.set_permanent(0, a, NEW_MAC.0, rig.now.tick).is_some());
    }
    rig.dropped(LAN, udp(CLIENT, "192.168.1.50:7"), DropReason::NeighbourTableFull);
    assert_eq!(rig.neighbours.resolve(0, address("192.168.1.50"), rig.now.tick), Resolved::Full);
}

#[test]
fn a_slot_that_changes_hands_takes_no_conn_along() {
    let mut rig = Setup { neighbours: 8, ..Setup::default() }.start();
    let host = |n: u32| std::net::Ipv4Addr::from(0xc0a8_0132 + n).to_string();
    for n in 0..8 {
        rig.send(LAN, udp(CLIENT, &format!("{}:7", host(n))));
        let mac = Mac([2, 0, 0, 0, 1, n as u8]);
        rig.send_bytes(LAN, reply(&host(n), mac, LAN));
        rig.wait_ticks(10);
        for _ in 0..3 {
            assert_eq!(rig.pass(LAN, udp(CLIENT, &format!("{}:7", host(n)))).dst_mac(), mac);
        }
    }
    // All stale now: a ninth takes the slot of one of them.
    rig.live(40);
    rig.send(LAN, udp(CLIENT, "192.168.1.99:7"));
    rig.send_bytes(LAN, reply("192.168.1.99", NEW_MAC, LAN));
    for n in 0..8 {
        for sent in rig.send(LAN, udp(CLIENT, &format!("{}:7", host(n)))) {
            assert_ne!(sent.dst_mac(), NEW_MAC);
        }
    }
}

#[test]
fn neighbour_discovery_passes_rules_that_drop_invalid() {
    let mut rig = Setup::default().both(Filter, "INPUT", drop().state(StateMask::INVALID)).start();
    assert_eq!(rig.send_bytes(LAN, solicitation("2001:db8:1::77", "2001:db8:1::1")).len(), 1);
    // But not a policy that drops everything.
    let mut rig = Setup::default().drops(Filter, "INPUT").start();
    let bytes = solicitation("2001:db8:1::77", "2001:db8:1::1");
    assert!(rig.send_counting(LAN, bytes, DropReason::FilterDrop).is_empty());
}

#[test]
fn an_answer_that_comes_too_late_or_to_nobody_changes_nothing() {
    let mut rig = Setup::default().start();
    rig.send_bytes(LAN, reply("192.168.1.50", NEW_MAC, LAN));
    rig.send_bytes(LAN, advertisement("2001:db8:1::50", NEW_MAC, flags::SOLICITED));
    assert_eq!(known(&rig, "192.168.1.50"), None);
    assert_eq!(known(&rig, "2001:db8:1::50"), None);
    // A claim about our own address.
    rig.send_bytes(LAN, reply("192.168.1.1", NEW_MAC, LAN));
    assert_eq!(known(&rig, "192.168.1.1"), None);
    let ping = Packet::icmp(ip("192.168.1.2"), ip("192.168.1.1"), 8, 0, 1);
    rig.pass(LAN, ping);
}

#[test]
fn an_error_to_ourselves_that_no_conn_turns_back_ends() {
    // Without tracking nothing knows who hides behind the address; a packet from it waits in vain.
    let mut rig = Setup::default().start();
    rig.send(LAN, udp(CLIENT, "203.0.113.99:7"));
    rig.setup.own.push((0, "192.168.1.2", 32));
    rig.publish();
    let sent = rig.live(4);
    assert!(sent.iter().all(Sent::is_arp), "{sent:?}");
    assert_eq!(rig.drop_count(DropReason::NotAccepted), 1);
    assert_eq!(rig.drop_count(DropReason::NeighbourFailed), 1);
}
