//! Which addresses and routes are learnt.

use crate::bench::Bench;

#[test]
fn addresses_come_and_go() {
    let mut bench = Bench::new();
    bench.run("ip address add 203.0.113.7/25 dev sgh-wan");
    bench.run("ip address add 2001:db8::7/64 dev sgh-wan nodad");
    bench.run("ip address add 10.7.0.200/24 dev sgh-lan");
    bench.run("ip address add 10.99.0.1/24 dev eth9");
    let all = ["0 10.7.0.200/24", "1 203.0.113.7/25", "1 2001:db8::7/64"];
    assert_eq!(bench.addresses(), all);
    assert!(bench.host.take_changed() && !bench.host.take_changed());
    bench.run("ip address del 203.0.113.7/25 dev sgh-wan");
    bench.run("ip address del 2001:db8::7/64 dev sgh-wan");
    assert_eq!(bench.addresses(), ["0 10.7.0.200/24"]);
    assert_eq!(bench.routes(), [""; 0]);
}

#[test]
fn what_was_there_before_is_learnt_too() {
    let mut bench = Bench::new();
    bench.run("ip address add 203.0.113.7/25 dev sgh-wan");
    bench.run("ip route add default via 203.0.113.1");
    let before = bench.settle();
    assert_eq!((before.addresses.len(), before.routes.len()), (1, 1));
    // IPv4 addresses outlive set-up, as those of a DHCP client outlive a restart; routes do not.
    let tap = sluicegate::host::Tap {
        name: "sgh-wan".to_owned(),
        port: 1,
        mac: [2, 0, 0, 0, 0x10, 2],
        mtu: 1500,
        addresses: vec![],
    };
    let host = bench.box_itself.within(move || sluicegate::host::Host::open(vec![tap]));
    bench.host = host.expect("set up again");
    assert_eq!(bench.host.learnt(|_, _| false).addresses.len(), 1);
}

#[test]
fn the_other_end_of_a_point_to_point_address_is_a_route() {
    let mut bench = Bench::new();
    bench.run("ip address add 10.60.0.1 peer 10.61.0.2/32 dev sgh-wan");
    assert_eq!(bench.addresses(), ["1 10.60.0.1/32"]);
    assert_eq!(bench.routes(), ["1 10.61.0.2/32 metric 0"]);
}

#[test]
fn an_address_that_waits_for_its_duplicates_is_not_used() {
    let mut bench = Bench::new();
    bench.run("sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.sgh-wan.accept_dad=1");
    bench.run("ip address add 2001:db8::7/64 dev sgh-wan");
    assert_eq!(bench.addresses(), [""; 0]);
    let begin = std::time::Instant::now();
    while bench.addresses() != ["1 2001:db8::7/64"] {
        assert!(begin.elapsed().as_secs() < 20, "nobody has this address");
    }
}

#[test]
fn routes_by_a_tap_are_learnt_and_others_are_not() {
    let mut bench = Bench::new();
    for line in [
        "ip route add default via 10.7.0.254",
        "ip route add 10.50.0.0/16 via 10.7.0.2 proto bgp metric 20",
        "ip route add 10.51.0.0/16 dev sgh-lan",
        "ip route add 10.52.0.0/16 via 192.168.9.1",
        "ip route add 10.53.0.0/16 via 10.7.0.2 table 100",
        "ip route add 10.54.0.0/16 via 10.7.0.2 tos 0x10",
        "ip route add blackhole 10.55.0.0/16 proto bgp",
        "ip route add unreachable 10.56.0.0/16 proto zebra",
        "ip route add prohibit 10.57.0.0/16 proto static",
        "ip route add blackhole 10.58.0.0/16",
        "ip route add local 10.59.0.0/16 dev sgh-lan",
        "ip route add 10.60.0.0/16 via inet6 fe80::1 dev sgh-lan",
        "ip -6 route add default via fd07::fe",
        "ip -6 route add fd50::/32 via fe80::2 dev sgh-lan proto bgp",
        "ip -6 route add fd51::/32 via fd09::1",
        "ip -6 route add blackhole fd55::/32 proto bgp",
        "ip -6 route add unreachable fd56::/32 proto zebra",
        "ip -6 route add blackhole fd58::/32",
    ] {
        bench.run(line);
    }
    let expected = [
        "0 0.0.0.0/0 via 10.7.0.254 metric 0",
        "0 10.50.0.0/16 via 10.7.0.2 metric 20",
        "0 10.51.0.0/16 metric 0",
        "Blackhole 10.55.0.0/16 metric 0",
        "Unreachable 10.56.0.0/16 metric 0",
        "Prohibit 10.57.0.0/16 metric 0",
        "0 ::/0 via fd07::fe metric 1024",
        "0 fd50::/32 via fe80::2 metric 1024",
        "Blackhole fd55::/32 metric 1024",
        "Unreachable fd56::/32 metric 1024",
    ];
    let mut found = bench.routes();
    let mut expected = expected.map(str::to_owned).to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for line in [
        "ip route del default",
        "ip route del 10.50.0.0/16",
        "ip route del 10.51.0.0/16",
        "ip route del blackhole 10.55.0.0/16",
        "ip route del unreachable 10.56.0.0/16",
        "ip route del prohibit 10.57.0.0/16",
        "ip -6 route del default",
        "ip -6 route del fd50::/32",
        "ip -6 route del blackhole fd55::/32",
        "ip -6 route del unreachable fd56::/32",
    ] {
        bench.run(line);
    }
    let dumps = bench.host.dumps();
    assert_eq!(bench.routes(), [""; 0]);
    assert_eq!(bench.host.dumps(), dumps, "plain changes need no dump");
}

#[test]
fn the_lowest_metric_is_used_and_the_next_when_it_goes() {
    let mut bench = Bench::new();
    for metric in [300, 100, 200] {
        let last = metric / 100;
        bench.run(&format!("ip route add 10.50.0.0/16 via 10.7.0.{last}0 metric {metric}"));
    }
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.10 metric 100"]);
    bench.run("ip route del 10.50.0.0/16 metric 100");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.20 metric 200"]);
}

#[test]
fn a_route_is_replaced_also_by_one_that_is_not_ours() {
    let mut bench = Bench::new();
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.2 metric 0"]);
    bench.run("ip route replace 10.50.0.0/16 via 10.7.0.3");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.3 metric 0"]);
    bench.run("ip route replace 10.50.0.0/16 via 192.168.9.1");
    assert_eq!(bench.routes(), [""; 0]);
    bench.run("ip -6 route add fd50::/32 via fd07::2");
    bench.run("ip -6 route replace fd50::/32 via fd07::3");
    assert_eq!(bench.routes(), ["0 fd50::/32 via fd07::3 metric 1024"]);
}

#[test]
fn of_several_nexthops_the_first_on_a_tap_is_used() {
    let mut bench = Bench::new();
    bench.run(
        "ip route add 10.50.0.0/16 nexthop via 192.168.9.1 nexthop via 10.7.0.3 nexthop via \
         10.7.0.4",
    );
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.3 metric 0"]);
    bench.run("ip route del 10.50.0.0/16");
    assert_eq!(bench.routes(), [""; 0]);
    // The kernel joins these, and takes one out again.
    bench.run("ip -6 route add fd50::/32 via fd07::2");
    bench.run("ip -6 route append fd50::/32 via fd07::3");
    assert_eq!(bench.routes(), ["0 fd50::/32 via fd07::2 metric 1024"]);
    bench.run("ip -6 route del fd50::/32 via fd07::2");
    assert_eq!(bench.routes(), ["0 fd50::/32 via fd07::3 metric 1024"]);
    bench.run("ip -6 route del fd50::/32 via fd07::3");
    assert_eq!(bench.routes(), [""; 0]);
}

#[test]
fn of_routes_of_one_metric_the_kernels_first_is_used() {
    let mut bench = Bench::new();
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2");
    bench.run("ip route append 10.50.0.0/16 via 10.7.0.3");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.2 metric 0"]);
    bench.run("ip route prepend 10.50.0.0/16 via 10.7.0.4");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.4 metric 0"]);
    bench.run("ip route del 10.50.0.0/16 via 10.7.0.4");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.2 metric 0"]);
    bench.run("ip route del 10.50.0.0/16 via 10.7.0.2");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.3 metric 0"]);
}

#[test]
fn routes_of_a_nexthop_object_go_with_it() {
    let mut bench = Bench::new();
    bench.run("ip nexthop add id 7 via 10.7.0.2 dev sgh-lan");
    bench.run("ip route add 10.50.0.0/16 nhid 7");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.2 metric 0"]);
    bench.run("ip nexthop replace id 7 via 10.7.0.3 dev sgh-lan");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.3 metric 0"]);
    bench.run("ip nexthop del id 7");
    assert_eq!(bench.routes(), [""; 0]);
}

#[test]
fn routes_go_with_the_address_they_prefer() {
    let mut bench = Bench::new();
    bench.run("ip address add 10.7.0.77/24 dev sgh-lan");
    bench.run("ip route add 10.50.0.0/16 via 10.7.0.2 src 10.7.0.77");
    assert_eq!(bench.routes(), ["0 10.50.0.0/16 via 10.7.0.2 metric 0"]);
    bench.run("ip address del 10.7.0.77/24 dev sgh-lan");
    assert_eq!(bench.routes(), [""; 0]);
}
