//! The kernel interfaces of the box itself: set up at start, and what the kernel learns there
//! decides where packets go.

use crate::gateway::{Files, Gateway, eventually};
use crate::netns::Namespace;
use crate::rig::{BEHIND, LAN_GATEWAY, Rig, WAN_GATEWAY, Wish};

fn rig() -> Rig {
    let ports = ["host_tap = \"sgh-lan\"", "host_tap = \"wan\"\n[log]\nlevel = \"debug\""];
    // One tap queue among two workers.
    Rig::new(Wish { ports, eal: "worker_cores = [0, 1]\nmemory_mb = 256", ..Wish::default() })
}

fn learnt(rig: &Rig, what: &str) -> u64 {
    rig.files().stats()["host"][what].as_u64().expect("a number")
}

fn wait_for(rig: &Rig, what: &str, number: u64) {
    eventually(&format!("{number} {what}"), || learnt(rig, what) == number);
}

fn pings(rig: &Rig, address: &str) -> bool {
    rig.lan.try_run(&format!("ping -c 1 -W 1 {address}")).status.success()
}

#[test]
fn taps_carry_the_ports_addresses_and_their_carrier_can_be_taken() {
    let mut rig = rig();
    let shown = rig.middle.run("ip address show dev sgh-lan");
    for words in ["02:00:00:00:77:01", "10.77.0.1/24", "fd77::1/64", "fe80::ff:fe00:7701/64", "UP"]
    {
        assert!(shown.contains(words), "{words} is not in\n{shown}");
    }
    let shown = rig.middle.run("ip address show dev wan");
    assert!(shown.contains("198.51.100.1/24"), "{shown}");
    // What the gateway does when a wire loses its link, on a tap that DPDK holds.
    rig.middle.run("ip link set sgh-lan carrier off");
    assert!(rig.middle.run("ip link show dev sgh-lan").contains("NO-CARRIER"));
    rig.middle.run("ip link set sgh-lan carrier on");
    assert!(rig.middle.run("ip link show dev sgh-lan").contains("LOWER_UP"));

    let config = std::fs::read_to_string(rig.files().path("gateway.toml")).unwrap();
    rig.files().write("gateway.toml", &config.replace("[\"10.77.0.1/24\"", "[\"10.77.0.3/24\""));
    assert_eq!(rig.gateway.reload(), "reloaded");
    let shown = rig.middle.run("ip address show dev sgh-lan");
    assert!(shown.contains("10.77.0.3/24") && !shown.contains("10.77.0.1/24"), "{shown}");
    assert!(!pings(&rig, LAN_GATEWAY));
    assert_eq!(learnt(&rig, "learnt_addresses"), 0, "the file's are not learnt");
    let without = config.replace("host_tap = \"sgh-lan\"", "");
    rig.files().write("gateway.toml", &without);
    assert!(rig.gateway.reload().contains("taps"), "a tap needs a restart");
    rig.gateway.stop_cleanly();
    assert!(!rig.middle.try_run("ip link show dev sgh-lan").status.success(), "it is gone");
}

#[test]
fn packets_go_where_the_kernel_has_learnt() {
    let mut rig = rig();
    assert!(pings(&rig, BEHIND), "by the default route of the file");
    let rules = rig.files().ask("iptables-save -c");
    rig.middle.run(&format!("ip route add blackhole {BEHIND}/32 proto bgp"));
    wait_for(&rig, "learnt_routes", 1);
    assert!(!pings(&rig, BEHIND), "by a blackhole");
    rig.middle.run(&format!("ip route replace {BEHIND}/32 via 198.51.100.2 dev wan proto bgp"));
    eventually("the other route", || pings(&rig, BEHIND));
    rig.middle.run(&format!("ip route replace {BEHIND}/32 via 10.77.0.2 dev sgh-lan proto bgp"));
    eventually("the wrong route", || !pings(&rig, BEHIND));
    rig.middle.run(&format!("ip route del {BEHIND}/32"));
    wait_for(&rig, "learnt_routes", 0);
    assert!(pings(&rig, BEHIND));
    let count = |rules: &str| -> u64 {
        let line = rules.lines().find(|line| line.contains("-A FORWARD -i lan -j ACCEPT"));
        let count = line.and_then(|line| line[1..].split(':').next());
        count.expect("a counted rule").parse().expect("a number")
    };
    let now = rig.files().ask("iptables-save -c");
    assert!(count(&rules) > 0 && count(&now) > count(&rules), "{rules}\n{now}");
    let stderr = rig.files().stderr();
    for line in ["host: learnt 1 route\n", "host: forgot 1 route\n"] {
        assert!(stderr.contains(line), "{line} is not in\n{stderr}");
    }
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

#[test]
fn an_address_that_a_dhcp_client_got_is_the_gateways() {
    let mut rig = rig();
    rig.wan.run("ip route add 192.0.2.0/24 dev wan-host");
    let answers = |rig: &Rig| rig.wan.try_run("ping -c 1 -W 1 192.0.2.77").status.success();
    assert!(!answers(&rig));
    rig.middle.run("ip address add 192.0.2.77/24 dev wan");
    wait_for(&rig, "learnt_addresses", 1);
    eventually("it answers for the new address", || asks_for(&rig, "192.0.2.77"));
    rig.middle.run("ip address del 192.0.2.77/24 dev wan");
    wait_for(&rig, "learnt_addresses", 0);
    assert!(!answers(&rig));
    assert!(!asks_for(&rig, "198.51.100.99") && asks_for(&rig, WAN_GATEWAY));
    rig.gateway.stop_cleanly();
}

/// Whether somebody answers ARP for an address on the WAN.
fn asks_for(rig: &Rig, address: &str) -> bool {
    let _ = rig.wan.try_run("ip neigh flush dev wan-host");
    let _ = rig.wan.try_run(&format!("ping -c 1 -W 1 {address}"));
    rig.wan.run(&format!("ip neigh show {address} dev wan-host")).contains("02:00:00:00:78:01")
}

#[test]
fn a_storm_of_routes_is_published_in_few_snapshots() {
    let mut rig = rig();
    let lines = |verb: &str| -> String {
        let net = |n: usize| format!("10.{}.{}.0/24", 100 + n / 250, n % 250);
        let line = |n| format!("route {verb} {} via 198.51.100.2 dev wan proto bgp\n", net(n));
        (0..10_000).map(line).collect()
    };
    let begin = std::time::Instant::now();
    let file = rig.files().write("batch", &lines("add"));
    rig.middle.run(&format!("ip -batch {}", file.display()));
    wait_for(&rig, "learnt_routes", 10_000);
    println!("10000 routes in force {:?} after the first was added", begin.elapsed());
    assert!(pings(&rig, BEHIND));
    rig.files().write("batch", &lines("del"));
    rig.middle.run(&format!("ip -batch {}", file.display()));
    wait_for(&rig, "learnt_routes", 0);
    let took = begin.elapsed();
    let stderr = rig.files().stderr();
    let published: Vec<u64> = stderr
        .lines()
        .filter_map(|line| {
            line.split("host: published in ").nth(1)?.split(' ').next()?.parse().ok()
        })
        .collect();
    let (count, longest) = (published.len(), published.iter().max().unwrap());
    println!("{count} snapshots in {took:?}, the longest took {longest} us");
    assert!(count as u128 <= 2 + took.as_millis() / 50, "{count} snapshots in {took:?}");
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

#[test]
fn a_wire_without_link_takes_the_taps_carrier() {
    let files = Files::new();
    let box_itself = Namespace::new("box");
    let socket = files.path("memif.sock");
    let port = format!(
        "\n[[port]]\nname = \"lan\"\ndevice = \"net_memif0,role=server,socket={},socket-abstract=no\"\n\
         mac = \"02:00:00:00:77:01\"\naddresses = [\"10.77.0.1/24\"]\nhost_tap = \"sgh-lan\"\n",
        socket.display()
    );
    files.write("gateway.toml", &(files.head("") + &port));
    let mut gateway = Gateway::start(files, Some(&box_itself));
    eventually("no carrier without a peer", || {
        box_itself.run("ip link show dev sgh-lan").contains("NO-CARRIER")
    });
    assert!(box_itself.run("ip address show dev sgh-lan").contains("10.77.0.1/24"));
    gateway.stop_cleanly();
}
