//! Timeout policies beside the kernel's, which nfct(8) makes there and the configuration here: the
//! timers of every state, and what becomes of conns whose policy changes or goes.

use std::net::IpAddr;

use nix::sys::signal::Signal;

use crate::conntrack_tool::Side;
use crate::gateway::eventually;
use crate::live::{Bench, OPEN, Seen, on_both};
use crate::netns::demand_programs;
use crate::packets::{Packet, chunk, echo, init, other, sctp, tcp, udp};
use crate::rig::{LAN_HOST, LAN_HOST6, WAN_HOST, WAN_HOST6, Wish};

/// Each protocol's policy: its name, `nfct`'s words, and the same in the configuration.
const POLICIES: [(&str, &str, &str); 7] = [
    (
        "t",
        "inet tcp syn_sent 20 syn_recv 24 established 1300 fin_wait 28 close_wait 32 last_ack 36 \
         time_wait 40 close 44 syn_sent2 48 retrans 120 unacknowledged 124",
        "tcp_timeout_syn_sent = 20\ntcp_timeout_syn_recv = 24\ntcp_timeout_established = 1300\n\
         tcp_timeout_fin_wait = 28\ntcp_timeout_close_wait = 32\ntcp_timeout_last_ack = 36\n\
         tcp_timeout_time_wait = 40\ntcp_timeout_close = 44\ntcp_timeout_syn_sent2 = 48\n\
         tcp_timeout_max_retrans = 120\ntcp_timeout_unacknowledged = 124\n",
    ),
    ("u", "inet udp unreplied 70 replied 700", "udp_timeout = 70\nudp_timeout_stream = 700\n"),
    ("i", "inet icmp timeout 71", "icmp_timeout = 71\n"),
    ("i6", "inet6 icmpv6 timeout 72", "icmpv6_timeout = 72\n"),
    ("g", "inet generic timeout 73", "generic_timeout = 73\n"),
    (
        "s",
        "inet sctp closed 84 cookie_wait 88 cookie_echoed 92 established 770 shutdown_sent 96 \
         shutdown_recd 100 shutdown_ack_sent 104",
        "sctp_timeout_closed = 84\nsctp_timeout_cookie_wait = 88\n\
         sctp_timeout_cookie_echoed = 92\nsctp_timeout_established = 770\n\
         sctp_timeout_shutdown_sent = 96\nsctp_timeout_shutdown_recd = 100\n\
         sctp_timeout_shutdown_ack_sent = 104\n",
    ),
    ("r", "inet gre unreplied 81 replied 810", "gre_timeout = 81\ngre_timeout_stream = 810\n"),
];

const RULES4: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p tcp -j CT --timeout t
-A PREROUTING -p udp -j CT --timeout u
-A PREROUTING -p icmp -j CT --timeout i
-A PREROUTING -p esp -j CT --timeout g
-A PREROUTING -p sctp -j CT --timeout s
-A PREROUTING -p gre -j CT --timeout r
COMMIT
";

const RULES6: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p ipv6-icmp -j CT --timeout i6
COMMIT
";

/// Without rules of the table raw.
const NO_RULES: &str = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n";

fn restore(b: &Bench<'_>, tool: &str, text: &str) {
    let output = b.side.feed(tool, text);
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Takes away all rules and policies, and sets up the given ones. Conns stay.
fn set_up(b: &Bench<'_>, policies: &[(&str, &str, &str)], [rules4, rules6]: [&str; 2]) {
    match b.side {
        Side::Kernel(kernel) => {
            restore(b, "iptables-restore", NO_RULES);
            restore(b, "ip6tables-restore", NO_RULES);
            let router = &kernel.router;
            let listed = router.run("nfct list timeout");
            let names =
                listed.lines().filter_map(|line| line.strip_prefix('.')?.split_once(" = {"));
            for (name, _) in names {
                // The rule that named it is done away with a little later.
                let delete = format!("nfct delete timeout {name}");
                eventually(&delete, || router.try_run(&delete).status.success());
            }
            for (name, words, _) in policies {
                router.run(&format!("nfct add timeout {name} {words}"));
            }
            restore(b, "iptables-restore", rules4);
            restore(b, "ip6tables-restore", rules6);
        }
        Side::Gateway(rig) => {
            let files = rig.files();
            let old = std::fs::read_to_string(files.path("gateway.toml")).expect("it is there");
            let head = old.split("\n[timeout_policy.").next().unwrap_or_default();
            let tables =
                policies.iter().map(|(name, _, keys)| format!("\n[timeout_policy.{name}]\n{keys}"));
            files.write("gateway.toml", &(head.to_owned() + &tables.collect::<String>()));
            files.write("rules.v4", &(OPEN.to_owned() + rules4));
            files.write("rules.v6", &(OPEN.to_owned() + rules6));
            rig.gateway.signal(Signal::SIGHUP);
            let mut said = Vec::new();
            eventually("the files are taken over", || {
                said.extend(rig.gateway.other_lines());
                !said.is_empty()
            });
            assert_eq!(said, ["reloaded"], "{}", files.stderr());
        }
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn client() -> (IpAddr, u16) {
    (address(LAN_HOST), 4000)
}

fn server() -> (IpAddr, u16) {
    (address(WAN_HOST), 80)
}

fn c(flags: &str, seq: u32, ack: u32) -> Packet {
    tcp(client(), server(), flags, seq, ack)
}

fn s(flags: &str, seq: u32, ack: u32) -> Packet {
    tcp(server(), client(), flags, seq, ack)
}

/// The life of a TCP conn, state by state.
fn tcp_states(b: &mut Bench<'_>) {
    b.lan(&c("S", 1000, 0));
    b.timer("SYN_SENT");
    b.wan(&s("SA", 5000, 1001));
    b.timer("SYN_RECV");
    b.lan(&c("A", 1001, 5001));
    b.timer("ESTABLISHED");
    b.lan(&c("PA", 1001, 5001).payload(b"0123456789"));
    b.timer("not acknowledged");
    (0..3).for_each(|_| b.lan(&c("PA", 1001, 5001).payload(b"0123456789")));
    b.timer("repeated");
    b.wan(&s("A", 5001, 1011));
    b.timer("acknowledged");
    b.lan(&c("FA", 1011, 5001));
    b.timer("FIN_WAIT");
    b.wan(&s("A", 5001, 1012));
    b.timer("CLOSE_WAIT");
    b.wan(&s("FA", 5001, 1012));
    b.timer("LAST_ACK");
    b.lan(&c("A", 1012, 5002));
    b.timer("TIME_WAIT");
    b.flush();
    b.lan(&c("S", 1000, 0));
    b.wan(&s("S", 5000, 0));
    b.timer("not renewed yet");
    b.lan(&c("S", 1000, 0));
    b.timer("SYN_SENT2");
    b.flush();
    b.lan(&c("S", 1000, 0));
    b.wan(&s("SA", 5000, 1001));
    b.lan(&c("A", 1001, 5001));
    b.wan(&s("RA", 5001, 1001));
    b.timer("CLOSE");
    b.flush();
}

fn sctp_states(b: &mut Bench<'_>) {
    const TO_CLIENT: u32 = 0x1111_0001;
    const TO_SERVER: u32 = 0x2222_0002;
    let lan = |tag, chunk| sctp(client(), server(), tag, &[chunk]);
    let wan = |chunk| sctp(server(), client(), TO_CLIENT, &[chunk]);
    b.lan(&lan(0, init(1, TO_CLIENT)));
    b.timer("INIT");
    b.wan(&wan(init(2, TO_SERVER)));
    b.timer("INIT ACK");
    b.lan(&lan(TO_SERVER, chunk(10, 0, b"cookie")));
    b.timer("COOKIE ECHO");
    b.wan(&wan(chunk(11, 0, &[])));
    b.timer("COOKIE ACK");
    b.lan(&lan(TO_SERVER, chunk(7, 0, &[0; 4])));
    b.timer("SHUTDOWN");
    b.wan(&wan(chunk(8, 0, &[])));
    b.timer("SHUTDOWN ACK");
    b.lan(&lan(TO_SERVER, chunk(14, 0, &[])));
    b.timer("SHUTDOWN COMPLETE");
    b.flush();
}

fn other_protocols(b: &mut Bench<'_>) {
    b.lan(&udp(client(), server()));
    b.timer("UDP");
    b.wan(&udp(server(), client()));
    std::thread::sleep(std::time::Duration::from_millis(2300));
    b.lan(&udp(client(), server()));
    b.timer("a stream");
    b.flush();
    b.lan(&echo(address(LAN_HOST), address(WAN_HOST), 7, 1));
    b.timer("ICMP");
    b.flush();
    b.lan(&echo(address(LAN_HOST6), address(WAN_HOST6), 7, 1));
    b.timer("ICMPv6");
    b.flush();
    b.lan(&other(address(LAN_HOST), address(WAN_HOST), 50, b"secret"));
    b.timer("no tracker");
    b.flush();
    let gre = |from, to| other(address(from), address(to), 47, &[0, 0, 8, 0]);
    b.lan(&gre(LAN_HOST, WAN_HOST));
    b.timer("GRE");
    b.wan(&gre(WAN_HOST, LAN_HOST));
    b.lan(&gre(LAN_HOST, WAN_HOST));
    b.timer("GRE both ways");
    b.flush();
}

#[test]
fn timers_under_policies_are_the_kernel_s() {
    demand_programs(&["nfct"]);
    let seen = on_both(Wish::default(), |b| {
        set_up(b, &POLICIES, [RULES4, RULES6]);
        b.flush();
        tcp_states(b);
        sctp_states(b);
        other_protocols(b);
    });
    let secs = seen.iter().filter_map(|seen| match seen {
        Seen::Secs(_, secs) => *secs,
        Seen::Text(_) => None,
    });
    let values: Vec<u64> = secs.collect();
    let near = |value: u64| values.iter().any(|secs| *secs <= value && *secs + 3 > value);
    let set = [
        20, 24, 1300, 124, 120, 28, 32, 36, 40, 44, 48, 84, 88, 92, 770, 96, 104, 70, 700, 71, 72,
        73, 81, 810,
    ];
    let missing: Vec<u64> = set.into_iter().filter(|value| !near(*value)).collect();
    assert!(missing.is_empty(), "no timer of {missing:?}: {seen:#?}");
}

#[test]
fn a_policy_that_goes_leaves_its_conns_to_the_sysctls() {
    demand_programs(&["nfct"]);
    let policy: Vec<_> = POLICIES.into_iter().filter(|(name, ..)| *name == "u").collect();
    let rule = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                -A PREROUTING -p udp -j CT --timeout u\nCOMMIT\n";
    on_both(Wish::default(), |b| {
        let again = |b: &mut Bench<'_>, what: &str| {
            b.timer(what);
            b.lan(&udp(client(), server()));
            b.timer(&format!("{what}, after a packet"));
        };
        set_up(b, &policy, [rule, NO_RULES]);
        b.flush();
        b.lan(&udp(client(), server()));
        again(b, "with rule and policy");
        // The rule alone goes: the conn keeps its policy.
        for tool in ["iptables-restore", "ip6tables-restore"] {
            restore(b, tool, NO_RULES);
        }
        again(b, "without the rule");
        set_up(b, &[], [NO_RULES, NO_RULES]);
        again(b, "without the policy");
        // One of the same name is another one.
        set_up(b, &policy, [rule, NO_RULES]);
        again(b, "with a policy of that name");
        b.flush();
        b.lan(&udp(client(), server()));
        again(b, "a new conn");
    });
}
