//! Events of packets that are dropped: told with the next packet of their conn that gets through,
//! as the kernel does, which delivers what it has gathered at confirm (`nf_conntrack_confirm`).

use std::net::IpAddr;

use crate::live::{Bench, OPEN, Seen, on_both};
use crate::packets::{Packet, tcp, udp};
use crate::rig::{LAN_HOST, WAN_HOST, Wish};

fn ends(port: u16) -> [(IpAddr, u16); 2] {
    let address = |text: &str| text.parse().expect("an address");
    [(address(LAN_HOST), port), (address(WAN_HOST), 80)]
}

fn c(flags: &str, seq: u32, ack: u32) -> Packet {
    let [client, server] = ends(4000);
    tcp(client, server, flags, seq, ack)
}

fn s(flags: &str, seq: u32, ack: u32) -> Packet {
    let [client, server] = ends(4000);
    tcp(server, client, flags, seq, ack)
}

fn open(b: &mut Bench<'_>) {
    b.lan(&c("S", 1000, 0));
    b.wan(&s("SA", 5000, 1001));
    b.lan(&c("A", 1001, 5001));
}

/// Lets through what `OPEN` does, but for what a rule drops.
fn but_for(rule: &str) -> String {
    OPEN.replacen("COMMIT", &format!("{rule}\nCOMMIT"), 1)
}

#[test]
fn what_a_dropped_packet_did_is_told_with_the_next_that_passes() {
    let seen = on_both(Wish::default(), |b| {
        b.rules(&but_for("-A FORWARD -p tcp -m tcp --tcp-flags FIN FIN -j DROP"));
        b.events("a FIN", "", |b| {
            open(b);
            b.lan(&c("FA", 1001, 5001));
            b.lan(&c("FA", 1001, 5001));
            b.wan(&s("A", 5001, 1001));
            b.wan(&s("A", 5001, 1002));
        });
        b.events("nothing after it", "", |b| {
            open(b);
            b.lan(&c("FA", 1001, 5001));
            b.run("conntrack -D -p tcp");
        });
        b.events("a change by a tool meanwhile", "", |b| {
            open(b);
            b.lan(&c("FA", 1001, 5001));
            b.run("conntrack -U -f ipv4 -p tcp -m 7");
            b.wan(&s("A", 5001, 1001));
        });
        b.rules(&but_for("-A FORWARD -i wan -p udp -m udp --sport 80 -j DROP"));
        b.events("answers that do not pass", "", |b| {
            let [client, server] = ends(5000);
            b.lan(&udp(client, server));
            // The first walks through the rules, the next ones know the way.
            (0..3).for_each(|_| b.wan(&udp(server, client)));
            b.lan(&udp(client, server));
            b.lan(&udp(client, server));
        });
        b.rules(&but_for("-A INPUT -p tcp -m tcp --tcp-flags FIN FIN -j REJECT"));
        b.events("refused by the gateway itself", "", |b| {
            let [client, _] = ends(4000);
            let gateway = (crate::rig::LAN_GATEWAY.parse().expect("an address"), 81);
            b.lan(&tcp(client, gateway, "A", 1001, 5001));
            b.lan(&tcp(client, gateway, "FA", 1001, 5001));
        });
    });
    let updates = |at: usize| match &seen[at] {
        Seen::Text(text) => text.matches("[UPDATE]").count(),
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 3].map(updates), [3, 2, 1], "{seen:#?}");
}
