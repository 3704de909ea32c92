//! Sets beside the kernel's: what packets are to sets of each type, what SET rules leave in them,
//! and what a conn's next packet meets when a set changes.

use std::net::IpAddr;

use crate::gateway::eventually;
use crate::live::{Bench, Seen, on_both};
use crate::netns::demand_programs;
use crate::packets::{chunk, echo, echo_reply, icmp, init, other, sctp, tcp, udp, udplite};
use crate::rig::{LAN_HOST, LAN_HOST6, WAN_HOST, WAN_HOST6, Wish};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ends(v6: bool) -> [IpAddr; 2] {
    if v6 { [LAN_HOST6, WAN_HOST6].map(address) } else { [LAN_HOST, WAN_HOST].map(address) }
}

/// Obeys `ipset` lines.
fn ipset(b: &Bench<'_>, lines: &[&str]) {
    for line in lines {
        b.run(&format!("ipset {line}"));
    }
}

/// Puts rules into the chain FORWARD of mangle, with counters from zero.
fn forward(b: &Bench<'_>, v6: bool, rules: &[&str]) {
    let rules: Vec<String> = rules.iter().map(|rule| format!("-A FORWARD {rule}\n")).collect();
    let text = format!("*mangle\n:FORWARD ACCEPT [0:0]\n{}COMMIT\n", rules.concat());
    let tool = if v6 { "ip6tables-restore" } else { "iptables-restore" };
    let output = b.side.feed(tool, &text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until no rule names a set: the kernel does away with rules a little later.
fn let_go(b: &Bench<'_>, set: &str) {
    let line = format!("ipset list {set} -t");
    eventually("rules let go of the set", || b.run(&line).contains("References: 0\n"));
}

/// Notes what each rule counted.
fn counts(b: &mut Bench<'_>, v6: bool, what: &str) {
    let tool = if v6 { "ip6tables-save" } else { "iptables-save" };
    let text = b.run(&format!("{tool} -c -t mangle"));
    let rules: Vec<&str> = text.lines().filter(|line| line.contains("-A FORWARD")).collect();
    assert!(!rules.is_empty(), "{text}");
    b.note(what, rules.join("\n    "));
}

/// Notes all sets and what is in them, without what no two runs share.
fn contents(b: &mut Bench<'_>, what: &str) {
    let text = b.run("ipset list");
    let mut sets = Vec::new();
    for set in text.split("\n\n") {
        let (head, members) = set.split_once("Members:").expect("a list of members");
        let mut lines: Vec<String> = members.lines().map(masked).collect();
        lines.sort();
        let head = head.lines().filter(|line| !line.starts_with("Size in memory"));
        sets.push(head.map(masked).chain(lines).collect::<Vec<_>>().join("\n    "));
    }
    b.note(what, sets.join("\n  "));
}

/// Timeouts of two runs lie a little apart, the secrets of hashes do not.
fn masked(line: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        let hidden = match words.last() {
            Some(&"timeout") => word != "0",
            Some(&"initval") => true,
            _ => false,
        };
        words.push(if hidden { "-" } else { word });
    }
    words.join(" ")
}

/// What a command says on either side.
fn says(b: &mut Bench<'_>, line: &str) {
    let output = b.side.ask(line);
    let text = [&output.stdout[..], &output.stderr].concat();
    let code = output.status.code();
    b.note(line, format_args!("{code:?} {}", String::from_utf8_lossy(&text)));
}

/// A packet of each kind from either side.
fn send_all(b: &mut Bench<'_>, v6: bool) {
    let [lan, wan] = ends(v6);
    let to = [(lan, 4000), (wan, 80)];
    let init = chunk(1, 0, &init(1, 7));
    b.lan(&tcp(to[0], to[1], "S", 100, 0));
    b.wan(&tcp(to[1], to[0], "SA", 900, 101));
    b.lan(&udp(to[0], (wan, 53)));
    b.wan(&udp((wan, 53), to[0]));
    b.lan(&udplite(to[0], to[1], 8));
    b.lan(&sctp(to[0], to[1], 0, &[init]));
    b.lan(&other(lan, wan, 50, &[0, 0, 1, 0, 0, 0, 0, 1, 9, 9, 9, 9]));
    if !v6 {
        b.lan(&echo(lan, wan, 5, 1));
        b.wan(&echo_reply(wan, lan, 5, 1));
        b.lan(&icmp(lan, wan, 13, 0, [0, 9, 0, 1]));
        for piece in udp((lan, 4001), (wan, 99)).payload(&[7; 3000]).fragments(1400) {
            b.lan(&piece);
        }
    }
}

const V4: &[&str] = &[
    "create ip hash:ip counters",
    "add ip 10.77.0.2 packets 5 bytes 100",
    "create cut hash:ip netmask 24",
    "add cut 10.77.0.77",
    "create net hash:net counters",
    "add net 10.0.0.0/8",
    "add net 10.77.0.0/24 nomatch",
    "add net 198.51.100.0/24",
    "create ipport hash:ip,port",
    "add ipport 198.51.100.2,tcp:80",
    "add ipport 198.51.100.2,udp:53",
    "add ipport 198.51.100.2,icmp:echo-request",
    "add ipport 198.51.100.2,sctp:80",
    "add ipport 198.51.100.2,udplite:80",
    "add ipport 198.51.100.2,esp:0",
    "add ipport 198.51.100.2,udp:99",
    "create netport hash:net,port",
    "add netport 10.0.0.0/8,tcp:4000",
    "add netport 10.77.0.0/16,udp:4000 nomatch",
    "add netport 10.0.0.0/8,udp:4000",
    "create ipportip hash:ip,port,ip",
    "add ipportip 10.77.0.2,tcp:80,198.51.100.2",
    "create ipportnet hash:ip,port,net",
    "add ipportnet 10.77.0.2,udp:53,198.51.0.0/16",
    "create ports bitmap:port range 0-1000",
    "add ports 80",
    "add ports 53",
    "create map bitmap:ip range 10.77.0.0/24",
    "add map 10.77.0.2",
    "create all list:set counters",
    "add all ports",
    "add all ip",
    "create timed hash:ip timeout 300",
    "add timed 10.77.0.2",
    "add timed 198.51.100.2 timeout 0",
];

const V4_RULES: &[&str] = &[
    "-m set --match-set ip src",
    "-m set --match-set ip dst",
    "-m set ! --match-set ip src",
    "-m set --match-set ip src ! --update-counters",
    "-m set --match-set ip src --packets-gt 20",
    "-m set --match-set ip src --packets-lt 12 --bytes-gt 500",
    "-m set --match-set ip src ! --packets-eq 9",
    "-m set --match-set cut src",
    "-m set --match-set net src",
    "-m set --match-set net dst",
    "-m set --match-set net src --return-nomatch",
    "-m set --match-set net dst --return-nomatch",
    "-m set --match-set net src,dst",
    "-m set --match-set ipport dst,dst",
    "-m set --match-set ipport src,src",
    "-m set --match-set ipport dst",
    "-m set --match-set netport src,src",
    "-m set --match-set netport src,src --return-nomatch",
    "-m set --match-set ipportip src,dst,dst",
    "-m set --match-set ipportnet src,dst,dst",
    "-m set --match-set ports dst",
    "-m set --match-set ports src",
    "-m set --match-set map src",
    "-m set --match-set map dst",
    "-m set --match-set all src",
    "-m set --match-set all dst",
    "-m set --match-set all dst --packets-gt 3",
    "-m set --match-set all src ! --update-subcounters",
    "-m set --match-set timed src",
    "-m set --match-set timed dst",
];

const V6: &[&str] = &[
    "create ip hash:ip family inet6",
    "create net hash:net family inet6",
    "add net fd00::/8",
    "create ipport hash:ip,port family inet6 timeout 60 counters",
    "create netport hash:net,port family inet6",
    "add netport fd00::/8,tcp:4000",
    "create ports bitmap:port range 53-80",
    "add ports 80",
    "create map bitmap:ip range 10.77.0.0/24",
    "create four hash:ip",
    "create all list:set",
    "add all map",
    "add all four",
    "add all net",
];

const V6_RULES: &[&str] = &[
    "-m set --match-set ip src",
    "-m set --match-set ip dst",
    "-m set --match-set net src",
    "-m set ! --match-set net dst",
    "-m set --match-set ipport dst,dst",
    "-m set --match-set netport src,src",
    "-m set --match-set ports dst",
    "-m set --match-set all src",
    "-m set --match-set all dst",
];

#[test]
fn packets_are_to_sets_what_they_are_to_the_kernel_s() {
    demand_programs(&["ipset"]);
    on_both(Wish::default(), |b| {
        ipset(b, V4);
        forward(b, false, V4_RULES);
        send_all(b, false);
        counts(b, false, "IPv4");
        send_all(b, false);
        counts(b, false, "IPv4, of conns that are there");
        contents(b, "IPv4");
        forward(b, false, &["-p 255"]);
        let_go(b, "netport");
        ipset(b, &["destroy all", "destroy"]);
        ipset(b, V6);
        ipset(b, &[&format!("add ip {LAN_HOST6}"), &format!("add ipport {WAN_HOST6},tcp:80")]);
        forward(b, true, V6_RULES);
        send_all(b, true);
        send_all(b, true);
        counts(b, true, "IPv6");
        contents(b, "IPv6");
    });
}

/// A packet of one conn, and what was counted of all so far.
fn one_more(b: &mut Bench<'_>, what: &str) {
    let [lan, wan] = ends(false);
    b.lan(&udp((lan, 4000), (wan, 53)));
    b.wan(&udp((wan, 53), (lan, 4000)));
    counts(b, false, what);
}

#[test]
fn a_conn_s_next_packet_meets_the_set_as_it_is() {
    demand_programs(&["ipset"]);
    on_both(Wish::default(), |b| {
        ipset(
            b,
            &["create a hash:ip", "create b hash:ip", "create l list:set", "create n hash:net"],
        );
        ipset(b, &["add b 198.51.100.2", "add n 0.0.0.0/1"]);
        forward(
            b,
            false,
            &[
                "-m set --match-set a src",
                "-m set ! --match-set a src",
                "-m set --match-set b dst",
                "-m set --match-set l src",
                "-m set --match-set n src",
            ],
        );
        one_more(b, "the first");
        one_more(b, "the same");
        for line in [
            "ipset add a 10.77.0.2",
            "ipset add l a",
            "ipset add n 10.77.0.0/16 nomatch",
            "ipset del a 10.77.0.2",
            "ipset add a 10.77.0.2 -exist",
            "ipset swap a b",
            "ipset destroy a",
            "ipset rename a c",
            "ipset del l a",
            "ipset add l b",
            "ipset flush b",
            "ipset flush",
            "ipset list a -t -n",
        ] {
            says(b, line);
            one_more(b, line);
        }
        forward(b, false, &["-p 255"]);
        let_go(b, "n");
        for line in ["ipset rename a c", "ipset destroy b", "ipset destroy l", "ipset destroy"] {
            says(b, line);
        }
    });
}

#[test]
fn packets_change_sets_as_the_kernel_s_do() {
    demand_programs(&["ipset"]);
    on_both(Wish::default(), |b| {
        let [lan, wan] = ends(false);
        let packet = |port| udp((lan, port), (wan, 53));
        ipset(b, &["create seen hash:ip timeout 300 counters", "create port hash:ip,port"]);
        ipset(b, &["create nets hash:net", "add nets 203.0.113.0/28", "create l list:set"]);
        ipset(
            b,
            &[
                "create full hash:ip maxelem 1",
                "add full 1.1.1.1",
                "create map bitmap:port range 0-99",
            ],
        );
        ipset(b, &["add l full", "add l port", "create gone hash:ip", "add gone 198.51.100.2"]);
        forward(
            b,
            false,
            &[
                // Before the rules that change what they ask: here the very same packet does not
                // yet find what it adds.
                "-m set --match-set seen src",
                "-m set --match-set gone dst",
                "-p udp --dport 53 -j SET --add-set seen src --timeout 60",
                "-p udp --sport 4001 -j SET --add-set seen src --exist --timeout 90",
                "-p udp --sport 4000 -j SET --add-set port src,src",
                "-p udp -j SET --add-set nets dst",
                "-p udp -j SET --add-set map dst",
                "-p tcp -j SET --add-set l dst,dst",
                "-p tcp -j SET --add-set full dst --del-set gone dst",
            ],
        );
        b.lan(&packet(4000));
        contents(b, "added");
        counts(b, false, "added");
        b.lan(&packet(4001));
        contents(b, "once more");
        b.lan(&packet(4001));
        counts(b, false, "once more");
        b.lan(&tcp((lan, 4000), (wan, 80), "S", 1, 0));
        contents(b, "taken away");
        b.lan(&tcp((lan, 4000), (wan, 80), "S", 1, 0));
        counts(b, false, "taken away");
        let seen = b.run("ipset save seen");
        let words: Vec<&str> = seen.split_whitespace().collect();
        let timeout = words.iter().rposition(|word| *word == "timeout").expect("it has one");
        b.seen.push(Seen::Secs("the timeout".to_owned(), words[timeout + 1].parse().ok()));
    });
}
