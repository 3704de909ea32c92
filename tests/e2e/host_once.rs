//! Each packet to and from the box meets each hook once, as its rules' counters tell.

use crate::gateway::eventually;
use crate::host_rig::{HostRig, HostWish, packets};
use crate::netns::Namespace;
use crate::rig::{LAN_GATEWAY, LAN_GATEWAY6, LAN_HOST, WAN_HOST, WAN_HOST6, curl};
use crate::servers::{Server, body, exchange, udp_client};

/// Matches of the packets of one test conn, as their two hosts see them.
struct Kind {
    /// Towards the server.
    original: &'static str,
    reply: &'static str,
}

/// Programs on the box are the server.
const INWARD: [Kind; 2] = [
    Kind { original: "-p tcp -m tcp --dport 8070", reply: "-p tcp -m tcp --sport 8070" },
    Kind { original: "-p udp -m udp --dport 8070", reply: "-p udp -m udp --sport 8070" },
];

/// They are the client.
const OUTWARD: [Kind; 2] = [
    Kind { original: "-p tcp -m tcp --dport 8071", reply: "-p tcp -m tcp --sport 8071" },
    Kind { original: "-p udp -m udp --dport 8071", reply: "-p udp -m udp --sport 8071" },
];

/// Where the first packet of a conn is counted by the nat table.
const FIRST: [(&str, &Kind); 4] = [
    ("PREROUTING", &INWARD[0]),
    ("INPUT", &INWARD[0]),
    ("OUTPUT", &OUTWARD[0]),
    ("POSTROUTING", &OUTWARD[0]),
];

/// Echo requests and replies.
const PINGS: [&str; 2] = ["-p icmp -m icmp --icmp-type 8", "-p icmp -m icmp --icmp-type 0"];

/// Where a packet to the box is counted, by table, and a packet from it.
const IN: [(&str, &str); 4] =
    [("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("mangle", "INPUT"), ("filter", "INPUT")];
const OUT: [(&str, &str); 4] =
    [("raw", "OUTPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"), ("mangle", "POSTROUTING")];

/// A counting rule for each match in each place, and tables that accept what is asked for.
fn rules(counted_in: &[&str], counted_out: &[&str]) -> String {
    let mut text = String::new();
    for table in ["raw", "mangle", "nat", "filter"] {
        text.push_str(&format!("*{table}\n"));
        for chain in ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"] {
            let hooked = match table {
                "raw" => matches!(chain, "PREROUTING" | "OUTPUT"),
                "nat" => chain != "FORWARD",
                "filter" => !chain.ends_with("ROUTING"),
                _ => true,
            };
            if hooked {
                let policy = if table == "filter" && chain == "INPUT" { "DROP" } else { "ACCEPT" };
                text.push_str(&format!(":{chain} {policy} [0:0]\n"));
            }
        }
        let places = IN.iter().map(|place| (place, counted_in));
        for (place, matches) in places.chain(OUT.iter().map(|place| (place, counted_out))) {
            for rule in matches.iter().filter(|_| place.0 == table) {
                text.push_str(&format!("-A {} {rule}\n", place.1));
            }
        }
        match table {
            "nat" => {
                for (chain, kind) in FIRST {
                    text.push_str(&format!("-A {chain} {}\n", kind.original));
                }
                text.push_str("-A POSTROUTING -o wan -j MASQUERADE\n");
            }
            "filter" => text.push_str(
                "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                 -A INPUT -p tcp -m tcp --dport 8070 -j ACCEPT\n\
                 -A INPUT -p udp -m udp --dport 8070 -j ACCEPT\n\
                 -A INPUT -p icmp -j ACCEPT\n-A INPUT -p ipv6-icmp -j ACCEPT\n",
            ),
            _ => {}
        }
        text.push_str("COMMIT\n");
    }
    text
}

/// Counts in the host's own kernel what it sends and receives.
fn count_at(host: &Namespace, program: &str, sent: &str, received: &str) {
    host.run(&format!("{program} -A OUTPUT {sent}"));
    host.run(&format!("{program} -A INPUT {received}"));
}

/// Packets that the host's own kernel has counted.
fn counted_at(host: &Namespace, program: &str, chain: &str, rule: &str) -> u64 {
    let saved = host.run(&format!("{program}-save -c -t filter"));
    let line = saved.lines().find(|line| line.ends_with(&format!("] -A {chain} {rule}")));
    packets(line.unwrap_or_else(|| panic!("no rule `{rule}` in\n{saved}")))
}

/// Every place has counted what the host has seen, which is at least `least`.
fn assert_once(rig: &HostRig, host: &Namespace, program: &str, least: u64, way: Way<'_>) {
    let (host_chain, places, rule) = match way {
        Way::In(rule) => ("OUTPUT", IN, rule),
        Way::Out(rule) => ("INPUT", OUT, rule),
    };
    let seen = counted_at(host, program, host_chain, rule);
    assert!(seen >= least, "`{rule}`: the host has seen {seen}");
    let save = format!("{program}-save");
    for (table, chain) in places {
        let counted = rig.counted(&save, table, &format!("-A {chain} {rule}"));
        assert_eq!(counted, seen, "{table} {chain} {rule}\n{}", rig.ask(&format!("{save} -c")));
    }
}

/// A match of packets to the box or from it.
enum Way<'a> {
    In(&'a str),
    Out(&'a str),
}

/// A bench that counts on both sides of the wires.
fn bench(eal: &'static str) -> HostRig {
    let [request, answer] = PINGS;
    let mut counted_in: Vec<&str> = INWARD.iter().map(|kind| kind.original).collect();
    counted_in.extend(OUTWARD.iter().map(|kind| kind.reply));
    let mut counted_out: Vec<&str> = INWARD.iter().map(|kind| kind.reply).collect();
    counted_out.extend(OUTWARD.iter().map(|kind| kind.original));
    let rules6 = Some(rules(&counted_in, &counted_out));
    counted_in.push(request);
    counted_out.push(answer);
    let rules4 = Some(rules(&counted_in, &counted_out));
    let rig = HostRig::new(HostWish { eal, rules4, rules6, ..HostWish::default() });
    for program in ["iptables", "ip6tables"] {
        for kind in &INWARD {
            count_at(&rig.lan, program, kind.original, kind.reply);
        }
        for kind in &OUTWARD {
            count_at(&rig.wan, program, kind.reply, kind.original);
        }
    }
    count_at(&rig.lan, "iptables", request, answer);
    rig
}

/// Pings, TCP in both families and UDP, both to the box and from it.
fn traffic(rig: &HostRig) {
    let _servers = [
        Server::http(&rig.gw, "0.0.0.0:8070"),
        Server::http(&rig.gw, &format!("[{LAN_GATEWAY6}]:8070")),
        Server::udp_echo(&rig.gw, &format!("{LAN_GATEWAY}:8070")),
        Server::http(&rig.wan, &format!("{WAN_HOST}:8071")),
        Server::http(&rig.wan, &format!("[{WAN_HOST6}]:8071")),
        Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:8071")),
    ];
    rig.lan.run(&format!("ping -c 5 -i 0.05 -W 20 {LAN_GATEWAY}"));
    for (from, host) in [
        (&rig.lan, format!("{LAN_GATEWAY}:8070")),
        (&rig.lan, format!("[{LAN_GATEWAY6}]:8070")),
        (&rig.gw, format!("{WAN_HOST}:8071")),
        (&rig.gw, format!("[{WAN_HOST6}]:8071")),
    ] {
        // Little enough to be packets of their own for every kernel that counts them.
        let answer = curl(from, &format!("http://{host}/100"));
        let complaint = String::from_utf8_lossy(&answer.stderr);
        assert!(answer.stdout == body(100), "{host}: {complaint}");
    }
    let inside = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{LAN_GATEWAY}:8070"));
    let outside = udp_client(&rig.gw, "0.0.0.0:0", &format!("{WAN_HOST}:8071"));
    for _ in 0..7 {
        exchange(&inside, b"x").expect("an echo");
        exchange(&outside, b"x").expect("an echo");
    }
    // The last packets of a TCP conn may still be on their way.
    eventually("the conns are closed", || {
        rig.conns(&["tcp", "TIME_WAIT"]).len() + rig.conns(&["tcp", "CLOSE "]).len() == 4
    });
}

fn each_hook_once(eal: &'static str) {
    let rig = bench(eal);
    traffic(&rig);
    assert_once(&rig, &rig.lan, "iptables", 5, Way::In(PINGS[0]));
    assert_once(&rig, &rig.lan, "iptables", 5, Way::Out(PINGS[1]));
    for program in ["iptables", "ip6tables"] {
        assert_once(&rig, &rig.lan, program, 4, Way::In(INWARD[0].original));
        assert_once(&rig, &rig.lan, program, 3, Way::Out(INWARD[0].reply));
        assert_once(&rig, &rig.wan, program, 4, Way::Out(OUTWARD[0].original));
        assert_once(&rig, &rig.wan, program, 3, Way::In(OUTWARD[0].reply));
        for (chain, kind) in FIRST {
            let rule = format!("-A {chain} {}", kind.original);
            let counted = rig.counted(&format!("{program}-save"), "nat", &rule);
            assert_eq!(counted, 1, "{program} {rule}");
        }
    }
    assert_once(&rig, &rig.lan, "iptables", 7, Way::In(INWARD[1].original));
    assert_once(&rig, &rig.lan, "iptables", 7, Way::Out(INWARD[1].reply));
    assert_once(&rig, &rig.wan, "iptables", 7, Way::Out(OUTWARD[1].original));
    assert_once(&rig, &rig.wan, "iptables", 7, Way::In(OUTWARD[1].reply));
    for words in [["tcp", "dport=8070"], ["tcp", "dport=8071"]] {
        assert_eq!(rig.conns(&words).len(), 2, "one in each family: {}", rig.ask("conntrack -L"));
    }
    rig.finish();
}

#[test]
fn each_packet_meets_input_and_output_exactly_once() {
    each_hook_once("");
}

#[test]
fn so_it_does_where_two_workers_share_the_work() {
    each_hook_once("worker_cores = [0, 1]\nmemory_mb = 256");
}
