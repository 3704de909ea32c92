//! VLAN sub-interfaces on a trunk to a switch with access ports.
//!
//! ```text
//!  10.77.0.2  fd77::2                            ┌ 10 ── 198.51.100.2  2001:db8:77::2  [ ten ]
//!  [ LAN host ] ── lan gateway wan ══ [ switch ]─┼ 20 ── 10.20.0.2  fd20::2         [ twenty ]
//!                                                └ 30 ── 198.51.100.30              [ thirty ]
//! ```
//! The hosts speak as Linux kernels do; the tags on the wire are those of the switch, a program of
//! a few lines (`vlan_switch.py`), since not every kernel has VLAN interfaces. What leaves by
//! wan.10 is masqueraded, the rest is routed, and nobody has VLAN 30.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::gateway::{Files, Gateway, eventually};
use crate::netns::Namespace;
use crate::rig::{Wires, curl};
use crate::servers::{Server, body, exchange, udp_client};

const RULES: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan.10 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i wan.20 -p udp -j LOG --log-prefix \"stick: \"
-A FORWARD -i wan.20 -o wan.10 -j ACCEPT
-A FORWARD -i lan -o wan.+ -j ACCEPT
COMMIT
";

const SWITCH: &str = include_str!("vlan_switch.py");

/// A host: namespace, addresses, gateways.
struct Host {
    namespace: Namespace,
    addresses: &'static [&'static str],
    gateways: &'static [&'static str],
}

impl Host {
    fn new(
        role: &str,
        addresses: &'static [&'static str],
        gateways: &'static [&'static str],
    ) -> Host {
        Host { namespace: Namespace::new(role), addresses, gateways }
    }

    /// Gives an interface in the namespace the host's addresses, and its default routes.
    fn attach(&self, interface: &str) {
        self.namespace.run(&format!("ip link set {interface} addrgenmode none up"));
        for address in self.addresses {
            self.namespace.run(&format!("ip address add {address} dev {interface}"));
        }
        for gateway in self.gateways {
            self.namespace.run(&format!("ip route add default via {gateway}"));
        }
    }
}

/// The running switch; it ends when dropped.
struct Switch(Child);

impl Switch {
    fn start(namespace: &Namespace, ports: &[String]) -> Switch {
        let mut command = namespace.command("python3");
        command.arg("-c").arg(SWITCH).arg("wan-host").args(ports);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut said).expect("the switch says something");
        assert_eq!(said, "switching\n");
        Switch(child)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Bench {
    gateway: Gateway,
    _switch: Switch,
    lan: Host,
    ten: Host,
    twenty: Host,
    thirty: Host,
    _trunk: Namespace,
    _middle: Namespace,
}

/// A wire whose ends send whole checksums and no frames longer than the MTU.
fn veth(here: &Namespace, port: &str, there: &Namespace, end: &str) {
    let name = there.name();
    here.run(&format!("ip link add {port} type veth peer name {end} netns {name}"));
    here.run(&format!("ip link set {port} addrgenmode none up"));
    for (side, interface) in [(here, port), (there, end)] {
        side.run(&format!("ethtool -K {interface} tx off rx off gso off tso off gro off"));
    }
}

fn config(files: &Files, wires: Wires, eal: &str, wan_keys: &str) -> String {
    let [lan, wan] = match wires {
        Wires::Tap => ["net_tap0,iface=lan-host", "net_tap1,iface=wan-host"],
        Wires::AfPacket => ["net_af_packet0,iface=gw-lan", "net_af_packet1,iface=gw-wan"],
    };
    files.head(eal)
        + &format!(
            "\n[[port]]\nname = \"wan.10\"\naddresses = [\"198.51.100.1/24\", \"2001:db8:77::1/64\"]\n\
             \n[[port]]\nname = \"lan\"\ndevice = \"{lan}\"\nmac = \"02:00:00:00:77:01\"\n\
             addresses = [\"10.77.0.1/24\", \"fd77::1/64\"]\n\
             \n[[port]]\nname = \"wan\"\ndevice = \"{wan}\"\nmac = \"02:00:00:00:78:01\"\n{wan_keys}\n\
             \n[[port]]\nname = \"wan.20\"\naddresses = [\"10.20.0.1/24\", \"fd20::1/64\"]\nmtu = 1400\n\
             \n[conntrack]\nhashsize = 4096\n\
             \n[rules]\nipv4 = \"rules\"\nipv6 = \"rules\"\n"
        )
}

impl Bench {
    fn new(wires: Wires, eal: &str, wan_keys: &str) -> Bench {
        let lan = Host::new("lan", &["10.77.0.2/24", "fd77::2/64"], &["10.77.0.1", "fd77::1"]);
        // Nothing but translated packets finds its way back from here.
        let ten = Host::new("ten", &["198.51.100.2/24", "2001:db8:77::2/64"], &[]);
        let routes = &["10.20.0.1", "fd20::1"];
        let twenty = Host::new("twenty", &["10.20.0.2/24", "fd20::2/64"], routes);
        let thirty = Host::new("thirty", &["198.51.100.30/24"], &[]);
        let (trunk, middle) = (Namespace::new("trunk"), Namespace::new("gw"));
        let files = Files::new();
        files.write("gateway.toml", &config(&files, wires, eal, wan_keys));
        files.write("rules", RULES);
        let ends = [("lan-host", "gw-lan", &lan.namespace), ("wan-host", "gw-wan", &trunk)];
        for (end, port, host) in ends.iter().filter(|_| wires == Wires::AfPacket) {
            veth(&middle, port, host, end);
        }
        let gateway = Gateway::start(files, Some(&middle));
        for (end, _, host) in ends.iter().filter(|_| wires == Wires::Tap) {
            middle.run(&format!("ip link set {end} netns {}", host.name()));
        }
        trunk.run("ip link set wan-host addrgenmode none up");
        let mut ports = Vec::new();
        for (id, host) in [(10, &ten), (20, &twenty), (30, &thirty)] {
            veth(&trunk, &format!("sw-{id}"), &host.namespace, "eth");
            host.attach("eth");
            ports.push(format!("{id}=sw-{id}"));
        }
        twenty.namespace.run("ip link set eth mtu 1400");
        lan.attach("lan-host");
        let _switch = Switch::start(&trunk, &ports);
        Bench { gateway, _switch, lan, ten, twenty, thirty, _trunk: trunk, _middle: middle }
    }

    fn files(&self) -> &Files {
        &self.gateway.files
    }

    fn port(&self, port: &str, of: &str) -> u64 {
        self.files().stats()["ports"][port][of].as_u64().expect("a number")
    }

    fn pings(&self) {
        for (host, to) in [
            (&self.lan, "198.51.100.2"),
            (&self.lan, "2001:db8:77::2"),
            (&self.lan, "10.20.0.2"),
            (&self.lan, "fd20::2"),
            (&self.lan, "198.51.100.1"),
            (&self.twenty, "198.51.100.2"),
            (&self.twenty, "2001:db8:77::2"),
            (&self.twenty, "fd20::1"),
            (&self.ten, "198.51.100.1"),
            (&self.ten, "2001:db8:77::1"),
        ] {
            let answer = host.namespace.run(&format!("ping -c 3 -i 0.05 -W 20 {to}"));
            assert!(answer.contains(" 0% packet loss"), "{to}: {answer}");
        }
    }

    fn downloads(&self) {
        let server = |host: &Host, address: &str| Server::http(&host.namespace, address);
        let _servers = [
            server(&self.ten, "198.51.100.2:80"),
            server(&self.ten, "[2001:db8:77::2]:80"),
            server(&self.twenty, "10.20.0.2:80"),
            server(&self.twenty, "[fd20::2]:80"),
        ];
        let len = 500_000;
        for (client, address) in [
            (&self.lan, "198.51.100.2"),
            (&self.lan, "[2001:db8:77::2]"),
            (&self.lan, "10.20.0.2"),
            (&self.lan, "[fd20::2]"),
            (&self.twenty, "198.51.100.2"),
            (&self.twenty, "[2001:db8:77::2]"),
        ] {
            let output = curl(&client.namespace, &format!("http://{address}/{len}"));
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{address}: {complaint}");
            assert!(output.stdout == body(len), "{address}: {} bytes", output.stdout.len());
        }
        let table = self.files().ask("conntrack -L -p tcp");
        for translated in [
            "src=10.77.0.2 dst=198.51.100.2",
            "src=10.20.0.2 dst=198.51.100.2",
            "src=198.51.100.2 dst=198.51.100.1 sport=80",
            "src=10.20.0.2 dst=10.77.0.2 sport=80",
        ] {
            assert!(table.contains(translated), "{translated} is not in\n{table}");
        }
    }

    fn datagrams(&self) {
        let _servers = ["198.51.100.2:7", "[2001:db8:77::2]:7"]
            .map(|address| Server::udp_echo(&self.ten.namespace, address));
        for (client, from, to, seen) in [
            (&self.lan, "10.77.0.2:4007", "198.51.100.2:7", "198.51.100.1:4007 "),
            (&self.lan, "[fd77::2]:4007", "[2001:db8:77::2]:7", "[2001:db8:77::1]:4007 "),
            (&self.twenty, "10.20.0.2:4008", "198.51.100.2:7", "198.51.100.1:4008 "),
            (&self.twenty, "[fd20::2]:4008", "[2001:db8:77::2]:7", "[2001:db8:77::1]:4008 "),
        ] {
            let socket = udp_client(&client.namespace, from, to);
            for len in [0, 1, 17, 512, 1300] {
                let payload = body(len);
                let answer = exchange(&socket, &payload).unwrap_or_else(|e| panic!("{to}: {e}"));
                assert_eq!(answer, [seen.as_bytes(), &payload].concat(), "{to} {len}");
            }
        }
        eventually("a LOG line with the names", || {
            self.files().stderr().contains("stick: IN=wan.20 OUT=wan.10 ")
        });
    }

    /// An MTU of its own, and a VLAN that the gateway does not have.
    fn refusals(&self) {
        let big = self.lan.namespace.try_run("ping -c 1 -W 20 -M do -s 1400 10.20.0.2");
        let told = String::from_utf8_lossy(&big.stdout).into_owned();
        assert!(told.contains("Frag needed and DF set (mtu = 1400)"), "{told}");
        let strange = self.thirty.namespace.try_run("ping -c 1 -W 1 198.51.100.1");
        assert!(!strange.status.success());
        eventually("a frame of an unknown VLAN", || {
            self.files().stats()["drops"]["unknown-vlan"].as_u64() > Some(0)
        });
    }
}

fn everything(wires: Wires, eal: &str, wan_keys: &str) -> Bench {
    let bench = Bench::new(wires, eal, wan_keys);
    bench.pings();
    bench.downloads();
    bench.datagrams();
    bench.refusals();
    bench.files().assert_balance();
    for port in ["lan", "wan.10", "wan.20"] {
        for of in ["rx_packets", "tx_packets"] {
            assert!(bench.port(port, of) > 100, "{port} {of}: {}", bench.port(port, of));
        }
    }
    // All that leaves by the wire is a sub-interface's.
    assert_eq!(bench.port("wan", "tx_packets"), 0);
    bench
}

#[test]
fn tagged_traffic_is_routed_and_translated() {
    everything(Wires::Tap, "", "").gateway.stop_cleanly();
}

#[test]
fn tagged_traffic_over_packet_sockets() {
    everything(Wires::AfPacket, "", "").gateway.stop_cleanly();
}

/// What two workers did: both received, and frames went over.
fn two_workers(wan_keys: &str) -> Bench {
    let bench = everything(Wires::Tap, "worker_cores = [0, 1]\nmemory_mb = 256", wan_keys);
    let stats = bench.files().stats();
    assert_eq!(stats["lcores"].as_array().map(Vec::len), Some(2));
    bench
}

#[test]
fn two_workers_with_a_queue_each() {
    two_workers("").gateway.stop_cleanly();
}

#[test]
fn two_workers_and_one_queue_hand_over_what_is_the_other_s() {
    let mut bench = two_workers("rx_queues = 1\ntx_queues = 1");
    let stats = bench.files().stats();
    for lcore in stats["lcores"].as_array().unwrap() {
        assert!(lcore["handed_over"].as_u64() > Some(10), "{lcore}");
    }
    bench.gateway.stop_cleanly();
}

#[test]
fn a_reload_changes_addresses_but_no_vlans() {
    let mut bench = Bench::new(Wires::Tap, "", "");
    let config = config(bench.files(), Wires::Tap, "", "");
    let path = bench.files().path("gateway.toml").display().to_string();
    let checked = bench.files().ask(&format!("check -c {path}"));
    assert!(checked.contains("port wan.20: VLAN 20 of wan, MTU 1400\n"), "{checked}");
    bench.files().write("gateway.toml", &config.replace("10.20.0.1/24", "10.20.0.9/24"));
    assert_eq!(bench.gateway.reload(), "reloaded");
    bench.twenty.namespace.run("ping -c 1 -W 20 10.20.0.9");
    bench.files().write("gateway.toml", &config.replace("\"wan.20\"", "\"wan.30\""));
    let refused = bench.gateway.reload();
    assert!(refused.starts_with("reload failed: ") && refused.contains("VLANs"), "{refused}");
    bench.twenty.namespace.run("ping -c 1 -W 20 10.20.0.9");
    bench.files().assert_balance();
    bench.gateway.stop_cleanly();
}
