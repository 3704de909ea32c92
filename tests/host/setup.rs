//! What the gateway does to a tap.

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Stdio};

use dataplane::pipeline::place::Layout;
use dataplane::pipeline::route::Destination;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::time::Now;
use dataplane::wire::address::Address;
use sluicegate::config::Config;
use sluicegate::gateway::ControlCore;
use sluicegate::host::Host;
use sluicegate::publish::Rulesets;
use sluicegate::tools::stats::{Wire, WireLink};

use crate::bench::{Bench, LAN_MAC, lan_addresses, prefixed};

fn shown(bench: &Bench) -> String {
    bench.box_itself.run("ip address show dev sgh-lan")
}

#[test]
fn a_tap_has_the_ports_mac_mtu_and_addresses_and_no_others() {
    let mut bench = Bench::new();
    let text = shown(&bench);
    for words in [
        "LOWER_UP",
        "mtu 1400",
        "link/ether 02:00:00:00:10:01",
        "inet 10.7.0.1/24 brd 10.7.0.255 scope global sgh-lan",
        "inet 10.7.0.9/24 brd 10.7.0.255 scope global secondary sgh-lan",
        "inet6 fd07::1/64 scope global",
        "inet6 fe80::ff:fe00:1001/64 scope link",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    assert_eq!(text.matches("inet").count(), 4, "{text}");
    assert!(!text.contains("tentative"), "{text}");
    assert_eq!(bench.addresses(), [""; 0], "the gateway's own are not learnt");
    assert_eq!(bench.routes(), [""; 0], "connected networks are not learnt");
}

#[test]
fn a_reload_changes_the_files_addresses_and_no_others() {
    let mut bench = Bench::new();
    bench.run("ip address add 10.7.0.77/24 dev sgh-lan");
    let mut wanted = lan_addresses();
    // The first of the network goes: the kernel would take the secondaries with it.
    wanted.remove(0);
    wanted.push(prefixed("10.8.0.1/16"));
    bench.host.set_addresses(0, &wanted);
    let text = shown(&bench);
    for words in ["10.7.0.9/24", "10.7.0.77/24", "10.8.0.1/16", "fd07::1/64", "fe80::"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    assert!(!text.contains("10.7.0.1/24"), "{text}");
    assert_eq!(bench.addresses(), ["0 10.7.0.77/24"]);
}

#[test]
fn an_address_of_the_file_to_come_is_not_learnt_before() {
    let mut bench = Bench::new();
    bench.run("ip address add 10.7.0.77/24 dev sgh-lan");
    bench.settle();
    let soon = prefixed("10.7.0.77/24").address;
    let learnt = bench.host.learnt(|port, address| (port, address) == (0, soon));
    assert_eq!(learnt.addresses, []);
}

#[test]
fn a_wire_without_link_takes_the_carrier_and_leaves_addresses_and_routes() {
    let mut bench = Bench::new();
    // A veth takes its carrier from the other end alone; a tun device takes it from this order.
    let _program = Program::open(&bench);
    let tap = sluicegate::host::Tap {
        name: "sgh-tap".to_owned(),
        port: 0,
        mac: LAN_MAC,
        mtu: 1500,
        addresses: lan_addresses(),
    };
    bench.run("ip link delete sgh-lan");
    let host = bench.box_itself.within(move || Host::open(vec![tap]));
    bench.host = host.expect("a tap can be set up");
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2");
    bench.settle();
    let Bench { host, box_itself } = bench;
    let mut core = gateway();
    core.attach_host(host).unwrap();
    let carrier = || {
        let text = box_itself.run("ip address show dev sgh-tap");
        assert!(text.contains("10.7.0.1/24") && text.contains("fd07::1/64"), "{text}");
        let routes = box_itself.run("ip route show 10.50.0.0/16");
        assert!(routes.contains("via 10.7.0.2"), "{routes}");
        !text.contains("NO-CARRIER")
    };
    let wire = |up| {
        let link = WireLink { up, speed_mbps: None, full_duplex: true };
        Wire { link: Some(link), ..Wire::default() }
    };
    for up in [true, false, false, true, false, true] {
        core.set_wires(vec![wire(up)]);
        core.round();
        assert_eq!(carrier(), up);
        let to = Address::from("10.50.0.1".parse::<IpAddr>().unwrap());
        let learnt = core.snapshot().routes.classify(to, None);
        assert!(matches!(learnt, Destination::Forward(_)), "used all the same");
    }
    core.set_wires(vec![Wire::default()]);
    assert!(carrier(), "who cannot tell changes nothing");
}

/// A tap's other end, as DPDK holds it: without, the tap has no carrier to begin with. The tap goes
/// with it.
struct Program(Child);

const OPEN: &str = "
import fcntl, struct, sys
IFF_TAP, IFF_NO_PI, TUNSETIFF = 2, 0x1000, 0x400454ca
tun = open('/dev/net/tun', 'r+b', buffering=0)
fcntl.ioctl(tun, TUNSETIFF, struct.pack('16sH22x', b'sgh-tap', IFF_TAP | IFF_NO_PI))
print('open', flush=True)
sys.stdin.read()
";

impl Program {
    fn open(bench: &Bench) -> Program {
        let mut command = bench.box_itself.command("python3");
        command.arg("-c").arg(OPEN).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut program = Program(command.spawn().expect("python3 starts"));
        let mut said = String::new();
        let stdout = program.0.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut said).expect("it says something");
        assert_eq!(said, "open\n");
        program
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A control core that has the tap's port, and workers that nobody polls.
fn gateway() -> ControlCore {
    let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\nhost_tap = \"sgh-tap\"\n\
                addresses = [\"10.7.0.1/24\", \"10.7.0.9/24\", \"fd07::1/64\"]\n\
                [conntrack]\nmax = 1024\n";
    let config = Config::parse(Path::new("t.toml"), text, 8 << 30).unwrap();
    let rules = Rulesets {
        v4: Ruleset::new(Family::V4),
        v6: Ruleset::new(Family::V6),
        sets: Default::default(),
    };
    let wires = (vec![LAN_MAC], Layout::alone(2));
    ControlCore::new(config, wires, rules, [7; 6], Box::new(Now::default)).unwrap()
}

#[test]
fn a_tap_that_was_taken_down_gets_its_addresses_again() {
    let mut bench = Bench::new();
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2");
    bench.run("ip address add fd07::77/64 dev sgh-lan");
    assert_eq!(bench.addresses(), ["0 fd07::77/64"]);
    assert_eq!(bench.routes().len(), 1);
    bench.run("ip link set sgh-lan down");
    assert_eq!(bench.routes(), [""; 0], "IPv4 routes go in silence");
    assert_eq!(bench.addresses(), [""; 0], "IPv6 addresses go with the link");
    bench.run("ip link set sgh-lan up");
    bench.settle();
    assert!(shown(&bench).contains("fd07::1/64"), "{}", shown(&bench));
}

#[test]
fn a_tap_that_is_not_there_is_named() {
    let bench = Bench::new();
    let tap = sluicegate::host::Tap {
        name: "sgh-none".to_owned(),
        port: 0,
        mac: [2, 0, 0, 0, 0, 1],
        mtu: 1500,
        addresses: vec![],
    };
    let opened = bench.box_itself.within(move || Host::open(vec![tap]));
    let error = opened.err().expect("there is no such interface").to_string();
    assert!(error.starts_with("host_tap sgh-none: not found: No such device"), "{error}");
}

#[test]
fn what_was_on_a_tap_goes_with_it() {
    let mut bench = Bench::new();
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2");
    bench.run("ip address add 10.7.0.77/24 dev sgh-lan");
    assert_eq!((bench.routes().len(), bench.addresses().len()), (1, 1));
    bench.run("ip link delete sgh-lan");
    assert_eq!((bench.routes().len(), bench.addresses().len()), (0, 0));
}
