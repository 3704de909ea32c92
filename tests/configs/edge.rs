//! `configs/edge.toml`: two uplinks, 400 tenants, 10 000 rules and sets.

use std::fs;

use dataplane::wire::headers;
use dataplane::wire::tcp::flags;

use crate::site::{Site, ack, configs, ip, ping, syn, syn_ack, tcp, udp};

const NONE: [&str; 0] = [];
/// Somebody far away, to whom the way is by up2, and an operator, to whom it is by up1.
const FAR: &str = "203.0.113.9";
const ADMIN: &str = "100.20.0.7";
/// Of tenant 7: what is published, a web server, what it calls out by, a public address.
const VIP: &str = "198.18.0.7";
const WEB: &str = "10.64.28.10";
const DNS: &str = "198.51.100.53:53";

/// Whom the gateway knows, and by which port.
pub const NEIGHBOURS: [(&str, &str); 6] = [
    ("192.0.2.1", "up1"),
    ("192.0.2.5", "up2"),
    ("10.255.0.2", "fabric"),
    ("10.254.0.9", "mgmt"),
    ("2001:db8:ffff:1::1", "up1"),
    ("2001:db8:ffff:3::2", "fabric"),
];

fn site() -> Site {
    Site::new("edge", &NEIGHBOURS, "")
}

fn at(address: &str, port: u16) -> String {
    format!("{address}:{port}")
}

#[test]
fn the_file_holds_ten_thousand_rules() {
    let text = fs::read_to_string(configs().join("edge.v4")).unwrap();
    assert_eq!(text.lines().filter(|line| line.starts_with("-A ")).count(), 10_000);
    for file in ["edge.v4", "edge.v6", "edge.ipset"] {
        assert!(fs::metadata(configs().join(file)).unwrap().len() < 1 << 20, "{file}");
    }
}

#[test]
fn what_a_tenant_publishes_is_translated_and_marked_as_his() {
    let mut site = site();
    let (client, vip) = (at(FAR, 4000), at(VIP, 443));
    let out = site.send("up1", syn(&client, &vip));
    let [out] = &out[..] else { panic!("{out:?}") };
    // One of four servers, which offers what the fabric can carry.
    let server = out.strip_prefix("fabric tcp 203.0.113.9:4000 > ").unwrap();
    let server = server.strip_suffix(" S mss 1460").unwrap();
    let last = server.strip_prefix("10.64.28.").unwrap().strip_suffix(":443").unwrap();
    assert!((10..=13).contains(&last.parse::<u8>().unwrap()), "{server}");
    let answer = syn_ack(server, &client).options(&[2, 4, 0x23, 0]);
    let back = site.send("fabric", answer);
    assert_eq!(back, ["up2 tcp 198.18.0.7:443 > 203.0.113.9:4000 SA mss 1440"]);
    let out = site.send("up2", ack(&client, &vip));
    assert_eq!(out, [format!("fabric tcp 203.0.113.9:4000 > {server} A")], "by either uplink");
    // --persistent: the same client has the same server.
    for port in 4001..4020 {
        let out = site.send("up1", syn(&at(FAR, port), &vip));
        assert_eq!(out, [format!("fabric tcp 203.0.113.9:{port} > {server} S mss 1460")]);
    }
    let listed = site.run("conntrack -L -m 8");
    assert!(listed.contains("20 flow entries"), "{listed}");
    // Everybody's address leads to its own network.
    for tenant in 0..400 {
        let vip = format!("198.18.{}.{}:80", tenant / 256, tenant % 256);
        let own = format!("10.{}.{}.1", 64 + tenant / 64, tenant % 64 * 4);
        let out = site.send("up1", syn(&at(ADMIN, 10_000 + tenant), &vip));
        assert!(out.len() == 1 && out[0].contains(&format!(" > {own}")), "{tenant}: {out:?}");
        // Or one source would ask for too much at once.
        if tenant % 100 == 0 {
            site.wait(1);
        }
    }
    for closed in [at(VIP, 23), at(VIP, 25), at(WEB, 443), at(VIP, 8443)] {
        assert_eq!(site.send("up1", syn(&at(FAR, 5000), &closed)), NONE, "{closed}");
    }
}

#[test]
fn services_are_open_to_those_for_whom_a_rule_says_so() {
    let mut site = site();
    let ssh = at(VIP, 22);
    assert_eq!(site.send("up1", syn(&at(FAR, 4000), &ssh)), NONE);
    let out = site.send("up1", syn(&at(ADMIN, 4000), &ssh));
    assert_eq!(out, ["fabric tcp 100.20.0.7:4000 > 10.64.28.5:22 S mss 1460"]);
    // Tenants 0, 4, ... have mail, tenants 0, 5, ... an interface.
    let mail = site.send("up2", syn(&at(FAR, 4000), "198.18.0.8:25"));
    assert_eq!(mail, ["fabric tcp 203.0.113.9:4000 > 10.64.32.25:25 S mss 1460"]);
    let api = site.send("up2", syn(&at(FAR, 4000), "198.18.0.10:8443"));
    assert_eq!(api, ["fabric tcp 203.0.113.9:4000 > 10.64.40.20:443 S mss 1460"]);
    // Rules and elements of the files themselves, on public addresses.
    let rules = fs::read_to_string(configs().join("edge.v4")).unwrap();
    let mut tried = 0;
    for line in rules.lines().filter(|line| line.contains(" -p tcp -m tcp --dport ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let ["-A", chain, "-d", dst, "-p", "tcp", "-m", "tcp", "--dport", port, "-j", "ACCEPT"] =
            words[..]
        else {
            continue;
        };
        let (Some(dst), false) = (dst.strip_suffix("/32"), port.contains(':')) else { continue };
        if dst.starts_with("198.19.") && tried < 90 {
            let dst = format!("{dst}:{port}");
            let out = site.send("up1", syn(&at(FAR, 20_000 + tried), &dst));
            assert_eq!(out.len(), 1, "{line}");
            let other = format!("198.19.63.{}:{port}", 1 + tried % 200);
            assert_eq!(site.send("up1", syn(&at(FAR, 20_000 + tried), &other)), NONE, "{chain}");
            tried += 1;
        }
    }
    assert_eq!(tried, 90);
    site.wait(2);
    let sets = fs::read_to_string(configs().join("edge.ipset")).unwrap();
    for line in sets.lines().filter(|line| line.starts_with("add opened ")).take(50) {
        let (address, port) = line["add opened ".len()..].split_once(',').unwrap();
        let (proto, port) = port.split_once(':').unwrap();
        let (client, server) = (at(FAR, 6000), format!("{address}:{port}"));
        let (tcp, udp) = (syn(&client, &server), udp(&client, &server));
        let (opened, other) = if proto == "tcp" { (tcp, udp) } else { (udp, tcp) };
        assert_eq!(site.send("up1", opened).len(), 1, "{line}");
        assert_eq!(site.send("up1", other), NONE, "{line}");
    }
}

#[test]
fn blocked_and_false_sources_get_nowhere() {
    let mut site = site();
    let vip = at(VIP, 443);
    assert_eq!(site.send("up1", syn("100.10.1.1:4000", &vip)), NONE, "blocked");
    assert_eq!(site.send("up1", syn("100.10.20.1:4000", &vip)).len(), 1, "but for these");
    let sets = fs::read_to_string(configs().join("edge.ipset")).unwrap();
    let nets: Vec<&str> =
        sets.lines().filter_map(|line| line.strip_prefix("add blocked ")).collect();
    assert!(nets.len() > 2_900);
    for net in nets.iter().step_by(50).filter(|net| !net.contains("nomatch")) {
        let address = net.split('/').next().unwrap();
        assert_eq!(site.send("up2", syn(&at(address, 4000), &vip)), NONE, "{net}");
    }
    for source in ["10.64.0.9:1", "192.168.1.1:1", VIP_AS_SOURCE, "198.51.100.53:1"] {
        assert_eq!(site.send("up1", syn(source, &vip)), NONE, "{source}");
    }
    assert_eq!(site.send("fabric", syn("203.0.113.9:1", "100.20.0.7:443")), NONE, "not inside");
    let odd = tcp(&at(FAR, 1), &vip, flags::SYN | flags::FIN);
    assert_eq!(site.send("up1", odd), NONE);
}

const VIP_AS_SOURCE: &str = "198.18.0.7:1";

#[test]
fn tenants_are_kept_apart() {
    let mut site = site();
    let (client, neighbour) = ("10.64.28.10:4000", "10.64.32.10:443");
    let refused = site.send("fabric", syn(client, neighbour));
    let told = "fabric icmp 10.255.0.1 > 10.64.28.10 3/13 of tcp 10.64.28.10:4000 > ";
    assert!(refused.len() == 1 && refused[0].starts_with(told), "{refused:?}");
    // Tenants 0 and 1 trust each other.
    let peers = site.send("fabric", syn("10.64.0.10:4000", "10.64.4.10:5432"));
    assert_eq!(peers, ["fabric tcp 10.64.0.10:4000 > 10.64.4.10:5432 S mss 1460"]);
    // What the other one has published is reached by its public address, with the answers.
    let out = site.send("fabric", syn(client, "198.18.0.8:25"));
    assert_eq!(out, ["fabric tcp 10.255.0.1:4000 > 10.64.32.25:25 S mss 1460"]);
    let back = site.send("fabric", syn_ack("10.64.32.25:25", "10.255.0.1:4000"));
    assert_eq!(back, ["fabric tcp 198.18.0.8:25 > 10.64.28.10:4000 SA mss 1460"]);
    assert!(site.run("conntrack -L -m 8").contains("1 flow entries"), "his who calls");
    // Operators get everywhere, by ssh.
    let out = site.send("mgmt", syn("10.254.0.9:4000", "10.64.28.10:22"));
    assert_eq!(out, ["fabric tcp 10.254.0.9:4000 > 10.64.28.10:22 S mss 1460"]);
    assert_eq!(site.send("mgmt", syn("10.254.0.9:4000", "10.64.28.10:80")), NONE);
}

#[test]
fn tenants_call_out_by_addresses_of_their_own() {
    let mut site = site();
    let server = at(FAR, 443);
    let out = site.send("fabric", syn("10.64.28.77:4000", &server));
    assert_eq!(out, ["up2 tcp 198.18.4.7:4000 > 203.0.113.9:443 S mss 1440"]);
    let out = site.send("fabric", syn("10.70.60.77:4000", &at(ADMIN, 443)));
    assert_eq!(out, ["up1 tcp 198.18.5.143:4000 > 100.20.0.7:443 S mss 1440"]);
    let public = site.send("fabric", syn("198.19.0.230:4000", &server));
    assert_eq!(public, ["up2 tcp 198.19.0.230:4000 > 203.0.113.9:443 S mss 1440"]);
    let spam = site.send("fabric", syn("10.64.28.77:4000", &at(FAR, 25)));
    assert_eq!(spam, ["fabric tcp 203.0.113.9:25 > 10.64.28.77:4000 RA"]);
    let mail = site.send("fabric", syn("10.64.32.25:4000", &at(FAR, 25)));
    assert_eq!(mail, ["up2 tcp 198.18.4.8:4000 > 203.0.113.9:25 S mss 1440"]);
    // An address that was put into quarantine, and one that is let out again.
    let sick = "198.19.1.166:4000";
    let refused = site.send("fabric", syn(sick, &server));
    assert!(refused[0].starts_with("fabric icmp 10.255.0.1 > 198.19.1.166 3/13"), "{refused:?}");
    assert_eq!(site.run("ipset del quarantined 198.19.1.166"), "");
    assert_eq!(site.send("fabric", syn(sick, &server)).len(), 1);
}

#[test]
fn dns_is_not_tracked_and_nothing_else_passes_by_it() {
    let mut site = site();
    for n in 0..3 {
        let client = at(FAR, 4000 + n);
        let out = site.send("up1", udp(&client, DNS));
        assert_eq!(out, [format!("fabric udp {client} > {DNS}")]);
        let back = site.send("fabric", udp(DNS, &client));
        assert_eq!(back, [format!("up2 udp {DNS} > {client}")]);
    }
    assert_eq!(site.run("conntrack -C").trim(), "0");
    // A question costs nothing, but not any number of them.
    let asked = (0..500).map(|n| site.send("up1", udp(&at(ADMIN, 4000 + n), DNS)).len());
    let passed: usize = asked.sum();
    assert!((490..500).contains(&passed), "{passed}: 400, and 200 a second");
    assert_eq!(site.send("up1", udp(&at(FAR, 4000), "198.51.100.53:54")), NONE);
    assert_eq!(site.send("up1", syn(&at(FAR, 4000), DNS)), NONE);
    assert_eq!(site.send("up1", udp("198.51.100.53:53", &at(VIP, 53))), NONE, "from outside");
}

#[test]
fn scanners_and_floods_of_syns_are_dropped() {
    let mut site = site();
    let vip = at(VIP, 443);
    let (client, out) = (at(FAR, 4000), site.send("up1", syn(&at(FAR, 4000), &vip)));
    let server = out[0].split(' ').nth(4).unwrap().to_owned();
    assert_eq!(site.send("fabric", syn_ack(&server, &client)).len(), 1);
    assert_eq!(site.send("up1", syn(&at(FAR, 4001), &at(VIP, 23))), NONE);
    assert_eq!(site.send("up1", syn(&at(FAR, 4002), &vip)), NONE, "for an hour");
    assert_eq!(site.send("up1", ack(&client, &vip)).len(), 1, "what was there before may go on");
    site.wait(3601);
    assert_eq!(site.send("up1", syn(&at(FAR, 4003), &vip)).len(), 1);
    let flood: Vec<usize> =
        (0..300u16).map(|n| site.send("up1", syn(&at(ADMIN, 20_000 + n), &vip)).len()).collect();
    let passed: usize = flood.iter().sum();
    // One each millisecond: 200, and 100 a second.
    assert!((225..=231).contains(&passed), "{passed}");
    assert_eq!(site.send("up1", syn("100.20.0.8:4000", &vip)).len(), 1, "somebody else");
}

#[test]
fn conns_live_on_while_rules_and_sets_are_replaced() {
    let mut site = site();
    let (client, vip) = (at(FAR, 4000), at(VIP, 443));
    let out = site.send("up1", syn(&client, &vip));
    let server = out[0].split(' ').nth(4).unwrap().to_owned();
    site.send("fabric", syn_ack(&server, &client));
    let data = |site: &mut Site| {
        let there = site.send("up1", ack(&client, &vip));
        let back = site.send("fabric", tcp(&server, &client, flags::ACK).seq(5001).ack(1001));
        [there, back].concat()
    };
    let expected =
        [format!("fabric tcp {client} > {server} A"), format!("up2 tcp {vip} > {client} A")];
    assert_eq!(data(&mut site), expected);
    let outgoing = ("10.64.28.77:4000", at(FAR, 443));
    site.send("fabric", syn(outgoing.0, &outgoing.1));
    site.send("up2", syn_ack(&outgoing.1, "198.18.4.7:4000"));
    // Tenant 7 moves to other addresses, and the client is blocked for what is new.
    site.reload("edge.v4", |text| {
        let moved = text.replace("10.64.28.10-10.64.28.13", "10.64.28.14-10.64.28.15");
        let moved = moved.replace("--to-source 198.18.4.7\n", "--to-source 198.18.7.7\n");
        assert_ne!(moved, text);
        moved
    });
    assert_eq!(data(&mut site), expected);
    let out = site.send("fabric", ack(outgoing.0, &outgoing.1));
    assert_eq!(out, ["up2 tcp 198.18.4.7:4000 > 203.0.113.9:443 A"]);
    let new = site.send("up1", syn(&at(FAR, 4001), &vip));
    assert!(new[0].contains("> 10.64.28.14:") || new[0].contains("> 10.64.28.15:"), "{new:?}");
    site.reload("edge.ipset", |text| text + "add blocked 203.0.113.0/24\n");
    assert_eq!(site.send("up1", syn(&at(FAR, 4002), &vip)), NONE);
    // The table raw is asked of every packet, so that whoever is blocked is.
    assert_eq!(site.send("up1", ack(&client, &vip)), NONE);
    site.reload("edge.ipset", |text| text.replace("add blocked 203.0.113.0/24\n", ""));
    assert_eq!(data(&mut site), expected);
    // Files with a mistake change nothing.
    let listed = site.run("iptables-save -t filter");
    assert_eq!(listed.lines().filter(|line| line.starts_with("-A t0007 ")).count(), 15);
}

#[test]
fn the_box_itself_speaks_bgp_with_its_neighbours() {
    let mut site = site();
    let before = site.host_frames();
    assert_eq!(site.send("up1", syn("192.0.2.1:4000", "192.0.2.2:179")), NONE);
    assert_eq!(site.send("mgmt", syn("10.254.0.9:4000", "10.254.0.1:22")), NONE);
    assert_eq!(site.host_frames(), before + 2);
    assert_eq!(site.send("up1", syn(&at(FAR, 4000), "192.0.2.2:179")), NONE);
    assert_eq!(site.send("up2", syn("192.0.2.5:4000", "192.0.2.6:22")), NONE);
    assert_eq!(site.host_frames(), before + 2);
}

#[test]
fn ipv6_is_routed_by_the_same_rules() {
    let mut site = site();
    let (far, web) = ("[2a01:db8::9]:4000", "[2001:db8:1007::12]:443");
    let out = site.send("up1", syn(far, web));
    assert_eq!(out, [format!("fabric tcp {far} > {web} S mss 1460")]);
    let back = site.send("fabric", syn_ack(web, far).options(&[2, 4, 0x23, 0]));
    assert_eq!(back, [format!("up1 tcp {web} > {far} SA mss 1420")]);
    for closed in ["[2001:db8:1007::12]:22", "[2001:db8:1007::25]:25", "[2001:db8:ffff:1::2]:22"] {
        assert_eq!(site.send("up1", syn(far, closed)), NONE, "{closed}");
    }
    let mail = site.send("up1", syn(far, "[2001:db8:1008::25]:25"));
    assert_eq!(mail, [format!("fabric tcp {far} > [2001:db8:1008::25]:25 S mss 1460")]);
    let server = "[2001:db8:1fff::53]:53";
    assert_eq!(site.send("up1", udp(far, server)), [format!("fabric udp {far} > {server}")]);
    assert_eq!(site.send("fabric", udp(server, far)), [format!("up1 udp {server} > {far}")]);
    let listed = site.run("conntrack -L -f ipv6");
    assert!(!listed.contains("udp"), "{listed}");
    let refused = site.send("fabric", syn("[2001:db8:1007::12]:4000", "[2001:db8:1008::12]:22"));
    let told = "fabric icmp 2001:db8:ffff:3::1 > 2001:db8:1007::12 1/1 of tcp";
    assert!(refused.len() == 1 && refused[0].starts_with(told), "{refused:?}");
    let open = site.send("fabric", syn("[2001:db8:1007::12]:4000", "[2001:db8:1008::12]:443"));
    assert_eq!(open.len(), 1, "{open:?}");
    let before = site.host_frames();
    assert_eq!(site.send("up1", ping("2001:db8:ffff:1::1", "2001:db8:ffff:1::2")), NONE);
    assert_eq!(site.host_frames(), before + 1, "the box itself answers");
    let blocked = fs::read_to_string(configs().join("edge.ipset")).unwrap();
    let net = blocked.lines().find_map(|line| line.strip_prefix("add blocked6 ")).unwrap();
    let source = format!("[{}9]:4000", net.split('/').next().unwrap());
    assert_eq!(site.send("up1", syn(&source, web)), NONE, "{source}");
}

/// What is read of a packet agrees with what was sent.
#[test]
fn packets_are_what_they_say() {
    let frame = syn(&at(FAR, 4000), &at(VIP, 443)).to_vec();
    let read = headers::parse(&frame, frame.len()).unwrap();
    assert_eq!((read.src.ip(), read.dst_port), (ip(FAR), 443));
}
