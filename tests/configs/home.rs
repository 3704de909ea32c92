//! `configs/home-gateway.toml`: one LAN, one uplink, one public address.

use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags;

use crate::site::{Site, ack, ip, ping, quote, syn, syn_ack, tcp, udp};

const PC: &str = "192.168.10.20";
const PC6: &str = "fd00:10::20";
const FAR6: &str = "2001:db8:99::7";

fn site() -> Site {
    let neighbours = [
        (PC, "lan"),
        (PC6, "lan"),
        ("203.0.113.254", "wan"),
        ("203.0.113.9", "wan"),
        ("2001:db8:20::fe", "wan"),
    ];
    Site::new("home-gateway", &neighbours, "")
}

#[test]
fn whoever_is_inside_calls_out_by_the_public_address() {
    let mut site = site();
    let (client, server) = ("192.168.10.20:4000", "198.51.100.7:443");
    let public = "203.0.113.1:4000";
    let out = site.send("lan", syn(client, server));
    assert_eq!(out, ["wan tcp 203.0.113.1:4000 > 198.51.100.7:443 S mss 1460"]);
    let back = site.send("wan", syn_ack(server, public));
    assert_eq!(back, ["lan tcp 198.51.100.7:443 > 192.168.10.20:4000 SA mss 1460"]);
    let out = site.send("lan", ack(client, server));
    assert_eq!(out, ["wan tcp 203.0.113.1:4000 > 198.51.100.7:443 A"]);
    let out = site.send("lan", udp("192.168.10.20:5000", "198.51.100.7:53"));
    assert_eq!(out, ["wan udp 203.0.113.1:5000 > 198.51.100.7:53"]);
    // The router's complaint is about what it saw, and reaches who sent it.
    let seen = quote(udp("203.0.113.1:5000", "198.51.100.7:53"));
    let unreachable = Packet::icmp(ip("203.0.113.254"), ip("203.0.113.1"), 3, 3, 0);
    assert_eq!(
        site.send("wan", unreachable.payload(&seen)),
        ["lan icmp 203.0.113.254 > 192.168.10.20 3/3 of udp 192.168.10.20:5000 > 198.51.100.7:53"]
    );
}

#[test]
fn nobody_outside_calls_in_but_to_what_is_published() {
    let mut site = site();
    let none: [&str; 0] = [];
    assert_eq!(site.send("wan", syn("198.51.100.7:4000", "203.0.113.1:22")), none);
    assert_eq!(site.send("wan", udp("198.51.100.7:4000", "203.0.113.1:53")), none);
    // Past the translation, by a neighbour on the uplink.
    assert_eq!(site.send("wan", syn("203.0.113.9:4000", "192.168.10.20:80")), none);
    assert_eq!(site.send("wan", tcp("198.51.100.7:1", "192.168.10.20:2", flags::RST)), none);
    let published = site.send("wan", syn("198.51.100.7:4000", "203.0.113.1:8080"));
    assert_eq!(published, ["lan tcp 198.51.100.7:4000 > 192.168.10.20:80 S mss 1460"]);
    let answer = site.send("lan", syn_ack("192.168.10.20:80", "198.51.100.7:4000"));
    assert_eq!(answer, ["wan tcp 203.0.113.1:8080 > 198.51.100.7:4000 SA mss 1460"]);
    // The gateway itself: pings from anywhere, everything else from inside.
    let pong = site.send("wan", ping("198.51.100.7", "203.0.113.1"));
    assert_eq!(pong, ["wan icmp 203.0.113.1 > 198.51.100.7 0/0"]);
    let refused = site.send("lan", syn("192.168.10.20:4001", "192.168.10.1:22"));
    assert_eq!(refused, ["lan tcp 192.168.10.1:22 > 192.168.10.20:4001 RA"]);
}

#[test]
fn ipv6_is_not_translated_and_as_closed() {
    let mut site = site();
    let (client, server) = ("[fd00:10::20]:4000", "[2001:db8:99::7]:443");
    let out = site.send("lan", syn(client, server));
    assert_eq!(out, ["wan tcp [fd00:10::20]:4000 > [2001:db8:99::7]:443 S mss 1460"]);
    let back = site.send("wan", syn_ack(server, client));
    assert_eq!(back, ["lan tcp [2001:db8:99::7]:443 > [fd00:10::20]:4000 SA mss 1460"]);
    let none: [&str; 0] = [];
    assert_eq!(site.send("wan", syn(server, "[fd00:10::20]:22")), none);
    assert_eq!(site.send("wan", syn(server, "[2001:db8:20::1]:22")), none);
    // Pings find their way in, as they have to know the way out.
    let pinged = site.send("wan", ping(FAR6, PC6));
    assert_eq!(pinged, ["lan icmp 2001:db8:99::7 > fd00:10::20 128/0"]);
}
