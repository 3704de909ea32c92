//! `configs/office.toml`: staff, guests, servers of its own, branches and partners behind an IPsec
//! box.

use dataplane::wire::build::packet::Packet;
use dataplane::wire::headers::protocol;
use dataplane::wire::tcp::flags;

use crate::site::{Site, ack, ip, ping, quote, syn, syn_ack, tcp, udp};

const NONE: [&str; 0] = [];
/// A server somewhere, and a stranger.
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";

fn site() -> Site {
    let neighbours = [
        ("203.0.113.1", "wan"),
        ("2001:db8:20::1", "wan"),
        ("10.10.0.5", "lan"),
        ("2001:db8:10:10::5", "lan"),
        ("10.20.0.9", "guest"),
        ("2001:db8:10:20::9", "guest"),
        ("10.30.0.10", "dmz"),
        ("10.30.0.25", "dmz"),
        ("10.30.0.30", "dmz"),
        ("10.30.0.40", "dmz"),
        ("10.30.0.69", "dmz"),
        ("2001:db8:10:30::10", "dmz"),
        ("10.40.0.2", "vpn"),
        ("2001:db8:10:40::2", "vpn"),
    ];
    Site::new("office", &neighbours, "")
}

fn at(address: &str, port: u16) -> String {
    let v6 = address.contains(':');
    if v6 { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[test]
fn guests_have_the_web_and_nothing_inside() {
    let mut site = site();
    let guest = "10.20.0.9:4000";
    // By an address of their own, and marked as what may wait.
    let out = site.send("guest", syn(guest, &at(FAR, 443)));
    assert_eq!(out, ["wan tcp 203.0.113.3:4000 > 198.51.100.7:443 S tos 0x20 mss 1460"]);
    let back = site.send("wan", syn_ack(&at(FAR, 443), "203.0.113.3:4000"));
    assert_eq!(back, ["guest tcp 198.51.100.7:443 > 10.20.0.9:4000 SA mss 1460"]);
    let out = site.send("guest", ack(guest, &at(FAR, 443)));
    assert_eq!(out, ["wan tcp 203.0.113.3:4000 > 198.51.100.7:443 A tos 0x20"]);
    for inside in ["10.10.0.5:445", "10.30.0.10:443", "10.64.1.9:445", "172.20.0.9:443"] {
        let refused = site.send("guest", syn(guest, inside));
        let told = format!("guest icmp 10.20.0.1 > 10.20.0.9 3/9 of tcp {guest} > {inside} ");
        assert_eq!(refused.len(), 1, "{inside}: {refused:?}");
        assert!(refused[0].starts_with(&told), "{refused:?}");
    }
    // What everybody may have, as everybody has it.
    let published = site.send("guest", syn(guest, "203.0.113.2:443"));
    assert_eq!(published, ["dmz tcp 10.20.0.9:4000 > 10.30.0.10:443 S mss 1460"]);
    let refused = site.send("guest", udp(guest, &at(FAR, 6000)));
    let told = "guest icmp 10.20.0.1 > 10.20.0.9 3/13 of udp 10.20.0.9:4000 > 198.51.100.7:6000 \
                tos 0xc0";
    assert_eq!(refused, [told]);
    // Whoever else guests ask for names, the box answers; and they do not get in there.
    let before = site.host_frames();
    assert_eq!(site.send("guest", udp("10.20.0.9:5000", "9.9.9.9:53")), NONE);
    assert_eq!(site.host_frames(), before + 1);
    assert_eq!(site.send("guest", syn("10.20.0.9:5000", "10.20.0.1:22")), NONE);
    assert_eq!(site.host_frames(), before + 1);
}

#[test]
fn branches_see_true_addresses_and_partners_the_gateway() {
    let mut site = site();
    let client = "10.10.0.5:4000";
    // Segments fit into the tunnel.
    let out = site.send("lan", syn(client, "10.64.1.9:445"));
    assert_eq!(out, ["vpn tcp 10.10.0.5:4000 > 10.64.1.9:445 S mss 1360"]);
    let back = site.send("vpn", syn_ack("10.64.1.9:445", client));
    assert_eq!(back, ["lan tcp 10.64.1.9:445 > 10.10.0.5:4000 SA mss 1360"]);
    assert_eq!(
        site.send("lan", ack(client, "10.64.1.9:445")),
        ["vpn tcp 10.10.0.5:4000 > 10.64.1.9:445 A"]
    );
    let out = site.send("lan", syn(client, "172.20.0.9:8443"));
    assert_eq!(out, ["vpn tcp 10.40.0.1:4000 > 172.20.0.9:8443 S mss 1360"]);
    let back = site.send("vpn", syn_ack("172.20.0.9:8443", "10.40.0.1:4000"));
    assert_eq!(back, ["lan tcp 172.20.0.9:8443 > 10.10.0.5:4000 SA mss 1360"]);
    assert_eq!(site.send("lan", syn(client, "172.20.0.9:22")), NONE, "not to the portal");
    // Servers stay at home.
    assert_eq!(site.send("dmz", syn("10.30.0.10:4000", "10.64.1.9:443")), NONE);
}

#[test]
fn conns_from_a_branch_have_a_zone_of_their_own() {
    let mut site = site();
    let (branch, server) = ("10.65.1.9:4000", "10.10.0.5:445");
    let inside = site.send("vpn", syn(branch, server));
    assert_eq!(inside, ["lan tcp 10.65.1.9:4000 > 10.10.0.5:445 S mss 1360"]);
    let back = site.send("lan", syn_ack(server, branch));
    assert_eq!(back, ["vpn tcp 10.10.0.5:445 > 10.65.1.9:4000 SA mss 1360"]);
    assert_eq!(site.send("vpn", ack(branch, server)), ["lan tcp 10.65.1.9:4000 > 10.10.0.5:445 A"]);
    for refused in ["10.10.0.5:25", "10.30.0.25:25", "198.51.100.7:443"] {
        assert_eq!(site.send("vpn", syn(branch, refused)), NONE, "{refused}");
    }
    assert_eq!(site.send("vpn", syn("172.20.0.9:4000", server)), NONE, "partners only answer");
    // One that the staff opened is in no zone, wherever its answers come from.
    assert_eq!(site.send("lan", udp("10.10.0.5:4000", "10.64.1.9:88")).len(), 1);
    assert_eq!(site.send("vpn", udp("10.64.1.9:88", "10.10.0.5:4000")).len(), 1);
    let listed = site.run("conntrack -L --orig-zone 40");
    assert!(listed.contains("src=10.65.1.9") && listed.contains("1 flow entries"), "{listed}");
    let deleted = site.run("conntrack -D --orig-zone 40");
    assert!(deleted.contains("1 flow entries"), "{deleted}");
    let left = site.run("conntrack -L");
    assert!(left.contains("dport=88") && !left.contains("10.65.1.9"), "{left}");
}

#[test]
fn related_packets_find_their_way() {
    let mut site = site();
    // A telephone fetches its settings; the server answers from a port of its own.
    let (phone, server) = ("10.10.0.5:5000", "10.30.0.69:69");
    let asks = site.send("lan", udp(phone, server).payload(b"\0\x01phone.cfg\0octet\0"));
    assert_eq!(asks, ["dmz udp 10.10.0.5:5000 > 10.30.0.69:69"]);
    assert_eq!(site.send("dmz", udp("10.30.0.69:3000", "10.10.0.5:5001")), NONE, "not expected");
    let sends = site.send("dmz", udp("10.30.0.69:3000", phone).payload(b"\0\x03\0\x01data"));
    assert_eq!(sends, ["lan udp 10.30.0.69:3000 > 10.10.0.5:5000"]);
    let takes = site.send("lan", udp(phone, "10.30.0.69:3000").payload(b"\0\x04\0\x01"));
    assert_eq!(takes, ["dmz udp 10.10.0.5:5000 > 10.30.0.69:3000"]);
    // An ICMP error about a translated packet.
    let out = site.send("lan", udp("10.10.0.5:6000", &at(FAR, 7000)));
    assert_eq!(out, ["wan udp 203.0.113.2:6000 > 198.51.100.7:7000"]);
    let seen = quote(udp("203.0.113.2:6000", &at(FAR, 7000)));
    let error = Packet::icmp(ip("203.0.113.1"), ip("203.0.113.2"), 11, 0, 0);
    assert_eq!(
        site.send("wan", error.payload(&seen)),
        ["lan icmp 203.0.113.1 > 10.10.0.5 11/0 of udp 10.10.0.5:6000 > 198.51.100.7:7000"]
    );
    let stray = quote(udp("203.0.113.2:6001", &at(FAR, 7000)));
    assert_eq!(site.send("wan", error.payload(&stray)), NONE, "about nothing that was sent");
}

#[test]
fn servers_are_reached_by_their_public_address_from_everywhere() {
    let mut site = site();
    let public = "203.0.113.2:443";
    let out = site.send("wan", syn(&at(FAR, 4000), public));
    assert_eq!(out, ["dmz tcp 198.51.100.7:4000 > 10.30.0.10:443 S mss 1460"]);
    let back = site.send("dmz", syn_ack("10.30.0.10:443", &at(FAR, 4000)));
    assert_eq!(back, ["wan tcp 203.0.113.2:443 > 198.51.100.7:4000 SA mss 1460"]);
    // Staff, whose true address the server may see.
    let out = site.send("lan", syn("10.10.0.5:4000", public));
    assert_eq!(out, ["dmz tcp 10.10.0.5:4000 > 10.30.0.10:443 S mss 1460"]);
    // Hairpin: the other server is a neighbour, and must not answer past the gateway.
    let out = site.send("dmz", syn("10.30.0.25:4000", public));
    assert_eq!(out, ["dmz tcp 10.30.0.1:4000 > 10.30.0.10:443 S mss 1460"]);
    let back = site.send("dmz", syn_ack("10.30.0.10:443", "10.30.0.1:4000"));
    assert_eq!(back, ["dmz tcp 203.0.113.2:443 > 10.30.0.25:4000 SA mss 1460"]);
    for refused in ["203.0.113.2:22", "203.0.113.3:443", "10.30.0.10:443"] {
        assert_eq!(site.send("wan", syn(&at(FAR, 5000), refused)), NONE, "{refused}");
    }
}

#[test]
fn the_ipsec_box_speaks_to_its_peers() {
    let mut site = site();
    let peer = "192.88.99.9";
    let ike = site.send("wan", udp(&at(peer, 500), "203.0.113.2:500"));
    assert_eq!(ike, ["dmz udp 192.88.99.9:500 > 10.30.0.40:500"]);
    let answer = site.send("dmz", udp("10.30.0.40:500", &at(peer, 500)));
    assert_eq!(answer, ["wan udp 203.0.113.2:500 > 192.88.99.9:500"]);
    let esp = |src, dst| Packet::raw(ip(src), ip(dst), protocol::ESP).payload(&[7; 24]);
    let tunnel = site.send("wan", esp(peer, "203.0.113.2"));
    assert_eq!(tunnel, ["dmz 50 192.88.99.9 > 10.30.0.40"]);
    let answer = site.send("dmz", esp("10.30.0.40", peer));
    assert_eq!(answer, ["wan 50 203.0.113.2 > 192.88.99.9"]);
    // It begins with others, too; other servers have no tunnels.
    let ike = site.send("dmz", udp("10.30.0.40:500", "192.88.99.10:500"));
    assert_eq!(ike, ["wan udp 203.0.113.2:500 > 192.88.99.10:500"]);
    assert_eq!(site.send("dmz", esp("10.30.0.10", peer)), NONE);
}

#[test]
fn staff_call_out_but_for_what_is_refused() {
    let mut site = site();
    let (client, server) = ("10.10.0.5:4000", at(FAR, 443));
    let out = site.send("lan", syn(client, &server));
    assert_eq!(out, ["wan tcp 203.0.113.2:4000 > 198.51.100.7:443 S mss 1460"]);
    let mail = site.send("lan", syn(client, &at(FAR, 25)));
    assert_eq!(mail, ["lan tcp 198.51.100.7:25 > 10.10.0.5:4000 RA"]);
    let mail = site.send("dmz", syn("10.30.0.25:4000", &at(FAR, 25)));
    assert_eq!(mail, ["wan tcp 203.0.113.2:4000 > 198.51.100.7:25 S mss 1460"]);
    let torrent = site.send("lan", syn(client, &at(FAR, 6882)));
    assert!(torrent[0].starts_with("lan icmp 10.10.0.1 > 10.10.0.5 3/13 of tcp"), "{torrent:?}");
    // A call keeps its class with every packet, by the mark of its conn.
    let call = "10.10.0.5:5060";
    for _ in 0..4 {
        let out = site.send("lan", udp(call, &at(FAR, 5060)));
        assert_eq!(out, ["wan udp 203.0.113.2:5060 > 198.51.100.7:5060 tos 0xb8"]);
        let back = site.send("wan", udp(&at(FAR, 5060), "203.0.113.2:5060"));
        assert_eq!(back, ["lan udp 198.51.100.7:5060 > 10.10.0.5:5060"]);
    }
    let marks = site.run("conntrack -L -m 1");
    assert!(marks.contains("sport=5060") && marks.contains("1 flow entries"), "{marks}");
}

#[test]
fn false_addresses_are_dropped_at_the_door() {
    let mut site = site();
    for source in ["10.10.0.5:1", "192.168.1.1:1", "127.0.0.1:1", "240.0.0.1:1"] {
        assert_eq!(site.send("wan", syn(source, "203.0.113.2:443")), NONE, "{source}");
    }
    for (port, source) in [
        ("lan", "10.30.0.10:1"),
        ("lan", "198.51.100.7:1"),
        ("guest", "10.10.0.5:1"),
        ("vpn", "10.10.0.5:1"),
    ] {
        assert_eq!(site.send(port, syn(source, "203.0.113.2:443")), NONE, "{port}, {source}");
    }
    assert_eq!(site.send("wan", tcp(&at(FAR, 1), "203.0.113.2:443", 0)), NONE, "no flags");
    assert_eq!(site.run("conntrack -C").trim(), "0");
    // A new PC asks for an address before it has one.
    let before = site.host_frames();
    let discover = udp("0.0.0.0:68", "255.255.255.255:67");
    assert_eq!(site.send("lan", discover), NONE);
    assert_eq!(site.host_frames(), before + 1);
}

#[test]
fn who_tries_too_often_waits() {
    let mut site = site();
    let try_ssh = |site: &mut Site, port| site.send("wan", syn(&at(FAR, port), "203.0.113.2:2222"));
    for port in 4000..4006 {
        let out = try_ssh(&mut site, port);
        assert_eq!(out, [format!("dmz tcp 198.51.100.7:{port} > 10.30.0.30:22 S mss 1460")]);
    }
    assert_eq!(try_ssh(&mut site, 4006), NONE, "the seventh within a minute");
    let other = site.send("wan", syn("198.51.100.8:4000", "203.0.113.2:2222"));
    assert_eq!(other.len(), 1, "somebody else");
    site.wait(61);
    assert_eq!(try_ssh(&mut site, 4007).len(), 1);
    // A client of the web has two hundred conns at once and a hundred a second.
    let many: Vec<_> = (0..230u16)
        .map(|n| site.send("wan", syn(&at("198.51.100.9", 5000 + n), "203.0.113.2:443")).len())
        .collect();
    let passed: usize = many.iter().sum();
    // One each millisecond: 200 and what comes back meanwhile.
    assert!((220..=224).contains(&passed), "{passed}");
    assert_eq!(many[..200], [1; 200]);
}

#[test]
fn what_is_dropped_is_logged_and_no_more_than_that() {
    let mut site = site();
    for port in 0..20 {
        assert_eq!(site.send("wan", syn(&at(FAR, 4000 + port), "203.0.113.2:23")), NONE);
    }
    let logged = site.logged();
    assert_eq!(logged.len(), 5, "{logged:#?}");
    assert!(logged[0].contains("office drop: IN=wan "), "{logged:#?}");
}

#[test]
fn ipv6_has_the_same_zones() {
    let mut site = site();
    let (staff, guest) = ("[2001:db8:10:10::5]:4000", "[2001:db8:10:20::9]:4000");
    let out = site.send("lan", syn(staff, &at(FAR6, 443)));
    assert_eq!(out, [format!("wan tcp {staff} > [2001:db8:99::7]:443 S mss 1440")]);
    let back = site.send("wan", syn_ack(&at(FAR6, 443), staff));
    assert_eq!(back, [format!("lan tcp [2001:db8:99::7]:443 > {staff} SA mss 1460")]);
    let out = site.send("guest", syn(guest, &at(FAR6, 443)));
    assert_eq!(out, [format!("wan tcp {guest} > [2001:db8:99::7]:443 S tos 0x20 mss 1440")]);
    let refused = site.send("guest", syn(guest, staff));
    let told = "guest icmp 2001:db8:10:20::1 > 2001:db8:10:20::9 1/1 of tcp";
    assert!(refused[0].starts_with(told), "{refused:?}");
    let web = "[2001:db8:10:30::10]:443";
    for (port, client) in [("wan", at(FAR6, 4000)), ("lan", staff.into()), ("guest", guest.into())]
    {
        let out = site.send(port, syn(&client, web));
        assert_eq!(out, [format!("dmz tcp {client} > {web} S mss 1460")]);
    }
    for closed in ["[2001:db8:10:30::10]:22", staff, "[2001:db8:20::2]:22"] {
        assert_eq!(site.send("wan", syn(&at(FAR6, 5000), closed)), NONE, "{closed}");
    }
    let branch = "[2001:db8:65::9]:4000";
    let inside = site.send("vpn", syn(branch, "[2001:db8:10:10::5]:445"));
    assert_eq!(inside, [format!("lan tcp {branch} > [2001:db8:10:10::5]:445 S mss 1340")]);
    assert_eq!(site.send("wan", syn(branch, web)), NONE, "from the wrong side");
    let pong = site.send("wan", ping(FAR6, "2001:db8:20::2"));
    assert_eq!(pong, ["wan icmp 2001:db8:20::2 > 2001:db8:99::7 129/0"]);
    assert_eq!(
        site.send("lan", tcp(staff, &at(FAR6, 25), flags::SYN)),
        [format!("lan tcp [2001:db8:99::7]:25 > {staff} RA")]
    );
}
