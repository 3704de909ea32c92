//! What the gateway does to a tap.

use sluicegate::host::Host;

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
    bench.run("ip tuntap add dev sgh-tap mode tap");
    let tap = sluicegate::host::Tap {
        name: "sgh-tap".to_owned(),
        port: 0,
        mac: LAN_MAC,
        mtu: 1500,
        addresses: lan_addresses(),
    };
    bench.run("ip link delete sgh-lan");
    let host = bench.box_itself.within(move || Host::open(vec![tap]));
    bench.host = host.expect("a tap without a program behind it can be set up");
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2");
    bench.host.set_carrier(0, false);
    let text = bench.box_itself.run("ip address show dev sgh-tap");
    assert!(text.contains("NO-CARRIER") && text.contains("UP"), "{text}");
    assert!(text.contains("10.7.0.1/24") && text.contains("fd07::1/64"), "{text}");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.2 metric 0"]);
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
