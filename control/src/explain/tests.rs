//! What `explain` says of a packet, held against what happens to it right afterwards.

#[path = "live_tests.rs"]
mod live;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::wire::headers;

use super::question::{Fit, Question, Segment};
use super::words;
use crate::config::Config;
use crate::gateway::Served;
use crate::iptables::restore;
use crate::publish::Rulesets;
use crate::replay::Bench;

const CONFIG: &str = r#"
[[port]]
name = "lan"
device = "net_null0"
mac = "02:00:00:00:10:01"
addresses = ["10.1.0.1/24", "fd01::1/64"]

[[port]]
name = "wan"
device = "net_null1"
mac = "02:00:00:00:11:01"
addresses = ["203.0.113.1/24", "2001:db8::1/64"]

[[neighbour]]
address = "10.1.0.11"
mac = "02:00:00:00:10:80"
port = "lan"

[[neighbour]]
address = "fd01::11"
mac = "02:00:00:00:10:80"
port = "lan"

[[neighbour]]
address = "203.0.113.51"
mac = "02:00:00:00:11:80"
port = "wan"

[[neighbour]]
address = "2001:db8::51"
mac = "02:00:00:00:11:80"
port = "wan"

[conntrack]
max = 4096

[log]
level = "off"
"#;

const RULES: &str = "\
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -i lan -p udp -m udp --dport 5000 -j CT --notrack
-A PREROUTING -i lan -p udp -m udp --dport 5001 -j CT --zone 7
-A PREROUTING -p udp -m udp --dport 5002 -j DROP
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A PREROUTING -i lan -p tcp -j MARK --set-xmark 0x5/0xffffffff
-A FORWARD -m mark --mark 0x5 -m conntrack --ctstate NEW
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.1.0.11:80
-A PREROUTING -i wan -p tcp -m tcp --dport 23 -j REDIRECT --to-ports 22
-A POSTROUTING -o wan -p udp -j SNAT --to-source 203.0.113.1:6000-6100
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:new - [0:0]
-A INPUT -p icmp -j ACCEPT
-A INPUT -p tcp -m tcp --dport 22 -j REJECT --reject-with tcp-reset
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate NEW -j new
-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT
-A new -p tcp -m tcp --dport 25 -j REJECT --reject-with icmp-port-unreachable
-A new -p tcp -m tcp --dport 7000 -j SYNPROXY --timestamp
-A new -i lan -p udp -j LOG --log-prefix \"out: \"
-A new -i lan -j ACCEPT
-A new -m conntrack --ctstate DNAT -j RETURN
-A new -j DROP
-A FORWARD -i wan -p tcp -j ACCEPT
COMMIT
";

const RULES6: &str = "\
*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
COMMIT
";

struct Rig {
    bench: Bench,
    ns: u64,
}

/// Rules and policies by table and text, and how often each was met.
type Hits = BTreeMap<String, u64>;

impl Rig {
    fn new() -> Rig {
        let config = Config::parse(Path::new("t.toml"), CONFIG, 8 << 30).unwrap();
        let rules = |family, text| restore(&Ruleset::new(family), text, false, false).unwrap();
        let (v4, v6) = (rules(Family::V4, RULES), rules(Family::V6, RULES6));
        let rulesets = Rulesets { v4, v6, sets: Default::default() };
        Rig { bench: Bench::new(config, rulesets, true).unwrap(), ns: 1_700_000_000_000_000_000 }
    }

    fn serve(&mut self, line: &str) -> String {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match self.bench.core().serve(&argv, "") {
            Served::Done(answer) => answer.out + &answer.err,
            Served::Events(_) => panic!("no events were asked for"),
        }
    }

    fn explain(&mut self, line: &str) -> Value {
        let text = self.serve(&format!("explain {line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    }

    /// Everything that must not change when somebody asks.
    fn state(&mut self) -> String {
        ["iptables-save -c", "ip6tables-save -c", "conntrack -L", "conntrack -L expect", "stats"]
            .map(|line| {
                let text = self.serve(line);
                let lines = text.lines().filter(|l| !l.starts_with('#') && !l.starts_with("1 "));
                lines.collect::<Vec<_>>().join("\n")
            })
            .join("\n")
    }

    fn counts(&mut self, v6: bool) -> Hits {
        let text = self.serve(if v6 { "ip6tables-save -c" } else { "iptables-save -c" });
        let (mut hits, mut table) = (Hits::new(), String::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if let Some(chain) = line.strip_prefix(':') {
                let words: Vec<&str> = chain.split_whitespace().collect();
                if words[1] != "-" {
                    let packets = words[2].trim_start_matches('[').split(':').next().unwrap();
                    let name = format!("{table} {} {}", words[0], words[1]);
                    hits.insert(name, packets.parse().unwrap());
                }
            } else if let Some((counters, rule)) = line.split_once("] ") {
                let packets = counters.trim_start_matches('[').split(':').next().unwrap();
                hits.insert(format!("{table} {rule}"), packets.parse().unwrap());
            }
        }
        hits
    }

    /// Sends the packet; what was met, and what left.
    fn send(&mut self, line: &str, fit: Option<Fit>) -> (Hits, Vec<(PortId, String)>) {
        let question: Question =
            clap::Parser::try_parse_from(line.split_whitespace()).expect("a question");
        let v6 = question.src.is_ipv6();
        let port = u8::from(question.input.as_deref() == Some("wan"));
        let mac = [2, 0, 0, 0, 0x10 + port, 1];
        let before = self.counts(v6);
        self.ns += 1_000_000;
        let frames = question.frames(mac, fit).unwrap();
        let bench = &mut self.bench;
        let sent: Vec<_> = frames
            .into_iter()
            .flat_map(|frame| bench.frame(PortId(port), self.ns, frame))
            .collect();
        let after = self.counts(v6);
        let met = after.into_iter().map(|(name, n)| {
            let times = n - before[&name];
            (name, times)
        });
        let sent = sent.into_iter().map(|(port, _, bytes)| {
            let h = headers::parse(&bytes, bytes.len()).unwrap();
            (port, words::packet(&h))
        });
        (met.filter(|(_, times)| *times > 0).collect(), sent.collect())
    }

    /// Explains, sees that nothing has changed by that, sends, and compares.
    fn compare(&mut self, line: &str) -> Value {
        let before = self.state();
        let said = self.explain(line);
        assert_eq!(self.state(), before, "{line}: explaining has changed something");
        let (mut met, mut sent) = (Hits::new(), Vec::new());
        read(&said, &mut met, &mut sent);
        let mut really = self.send(line, fit_of(&said));
        if said.to_string().contains("\"by_lot\":true") {
            let without_ports = |(_, packet): &mut (PortId, String)| {
                let words = packet.split(' ').map(|word| word.split(':').next().unwrap());
                *packet = words.collect::<Vec<_>>().join(" ");
            };
            sent.iter_mut().chain(&mut really.1).for_each(without_ports);
        }
        assert_eq!((&met, &sent), (&really.0, &really.1), "{line}: {said:#}");
        said
    }
}

/// The numbers of the segment that was explained.
fn fit_of(said: &Value) -> Option<Fit> {
    serde_json::from_value(said["fit"].clone()).ok()
}

fn read(said: &Value, met: &mut Hits, sent: &mut Vec<(PortId, String)>) {
    for step in said["steps"].as_array().unwrap() {
        match step["step"].as_str().unwrap() {
            "answer" => read(step, met, sent),
            kind @ ("rule" | "policy") => {
                let (table, chain) = (step["table"].as_str().unwrap(), &step["chain"]);
                let text = step["text"].as_str().unwrap();
                let name = match kind {
                    "rule" => format!("{table} {text}"),
                    _ => format!("{table} {} {text}", chain.as_str().unwrap()),
                };
                *met.entry(name).or_default() += 1;
            }
            _ => {}
        }
    }
    if said["end"]["verdict"] == "sent" {
        let port = PortId(u8::from(said["end"]["port"] == "wan"));
        sent.push((port, said["end"]["packet"].as_str().unwrap().to_owned()));
    }
}

fn step<'a>(said: &'a Value, kind: &str) -> &'a Value {
    let steps = said["steps"].as_array().unwrap();
    steps.iter().find(|step| step["step"] == kind).unwrap_or_else(|| panic!("{kind}: {said:#}"))
}

const OUT: &str = "--in lan --src 10.1.0.11 --dst 203.0.113.51";
const BACK: &str = "--in wan --src 203.0.113.51 --dst 203.0.113.1";

#[test]
fn what_is_said_is_what_happens() {
    let mut rig = Rig::new();
    for line in [
        // A conn that is masqueraded, its answer, and what belongs to none.
        &format!("{OUT} -p tcp --sport 4000 --dport 80 --flags SYN"),
        &format!("{BACK} -p tcp --sport 80 --dport 4000 --flags SYN,ACK"),
        &format!("{BACK} -p tcp --sport 80 --dport 4001 --flags SYN,ACK"),
        // Rejected here, rejected there, dropped by a rule, by a policy, by raw.
        &format!("{OUT} -p tcp --sport 4000 --dport 25 --flags SYN"),
        &format!("{BACK} -p tcp --sport 4000 --dport 23 --flags SYN"),
        // Answered in the server's stead.
        &format!("{OUT} -p tcp --sport 4000 --dport 7000 --flags SYN"),
        "--in wan --src 203.0.113.51 --dst 10.1.0.11 -p tcp --dport 80 --flags SYN",
        &format!("{BACK} -p udp --sport 4000 --dport 80"),
        &format!("{OUT} -p udp --sport 4000 --dport 5002"),
        // From outside to a server inside.
        &format!("{BACK} -p tcp --sport 4000 --dport 8080 --flags SYN"),
        "--in lan --src 10.1.0.11 --dst 203.0.113.51 -p tcp --sport 80 --dport 4000 --flags SYN,ACK",
        // A range of ports, a log line, no tracking, a zone.
        &format!("{OUT} -p udp --sport 6050 --dport 53"),
        &format!("{BACK} -p udp --sport 53 --dport 6050"),
        &format!("{OUT} -p udp --sport 4000 --dport 5000"),
        &format!("{OUT} -p udp --sport 6051 --dport 5001"),
        &format!("{OUT} -p udp --sport 6051 --dport 5001"),
        // Pings of the gateway and beyond; without a way; at the end of its life.
        "--in lan --src 10.1.0.11 --dst 10.1.0.1 -p icmp --icmp-id 9",
        &format!("{OUT} -p icmp --icmp-id 9"),
        "--in lan --src 10.1.0.11 --dst 192.0.2.1 -p icmp",
        "--in wan --src 10.1.0.1 --dst 10.1.0.11 -p icmp",
        &format!("{OUT} -p icmp --ttl 1"),
        &format!("{OUT} -p esp"),
        &format!("{OUT} -p gre"),
        // The other protocols: by their trackers, and back.
        &format!("{OUT} -p gre --gre-key 7"),
        &format!("{OUT} -p esp --spi 0x1234 --payload 40"),
        &format!("{OUT} -p ah --tos 0x10 --mac 02:00:00:00:00:77"),
        &format!("{OUT} -p 200 --payload 3"),
        &format!("{OUT} -p udplite --sport 4000 --dport 80 --payload 9"),
        &format!("{OUT} -p sctp --sport 4000 --dport 80"),
        &format!("{BACK} -p sctp --sport 80 --dport 4000"),
        &format!("{OUT} -p sctp --sport 4000 --dport 80"),
        &format!("{BACK} -p sctp --sport 80 --dport 4000"),
        &format!("{OUT} -p sctp --sport 4000 --dport 80 --payload 20"),
        &format!("{OUT} -p sctp --sport 4000 --dport 80 --vtag 99"),
        &format!("{OUT} -p sctp --sport 4001 --dport 80 --chunk-type DATA"),
        &format!("{OUT} -p dccp --sport 4000 --dport 80"),
        &format!("{BACK} -p dccp --sport 80 --dport 4000"),
        &format!("{OUT} -p dccp --sport 4000 --dport 80"),
        &format!("{OUT} -p dccp --sport 4001 --dport 80 --dccp-type ACK"),
        "--in lan --src fd01::11 --dst 2001:db8::51 -p sctp --sport 4000 --dport 80",
        "--in lan --src fd01::11 --dst 2001:db8::51 -p ah",
        "--in lan --src fd01::11 --dst 2001:db8::51 -p tcp --sport 4000 --dport 80 --flags SYN",
        "--in wan --src 2001:db8::51 --dst 2001:db8::1 -p tcp --sport 80 --dport 4000 --flags SYN,ACK",
        "--in lan --src fd01::11 --dst fd01::1 -p icmpv6 --icmp-id 3",
    ] {
        rig.compare(line);
    }
}

#[test]
fn random_packets_meet_what_was_said() {
    let mut rig = Rig::new();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |n: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % n
    };
    for _ in 0..150 {
        let out = draw(2) == 0;
        let ends = if out { OUT } else { BACK };
        let ports = [22, 23, 25, 53, 80, 4000, 4001, 5000, 5001, 6050, 8080];
        let mut port = || ports[draw(ports.len() as u64) as usize];
        let (sport, dport) = (port(), port());
        // Where a port is taken or out of range the next one is drawn by lot.
        let sport = if out && sport == 8080 { 80 } else { sport };
        let line = match draw(4) {
            0 if out => format!("{ends} -p udp --sport {} --dport {dport}", 6050 + draw(3)),
            0 => format!("{ends} -p udp --sport {sport} --dport {dport}"),
            1 => format!("{ends} -p icmp --icmp-id {} --icmp-type {}", draw(3), draw(2) * 8),
            _ => {
                let flags = ["SYN", "SYN,ACK", "ACK", "RST", "FIN,ACK", "SYN,FIN"];
                let flags = flags[draw(flags.len() as u64) as usize];
                format!("{ends} -p tcp --sport {sport} --dport {dport} --flags {flags}")
            }
        };
        rig.compare(&line);
    }
}

/// What is drawn or waited for is said, and what the conn is.
#[test]
fn what_cannot_be_known_is_said() {
    let mut rig = Rig::new();
    let first = format!("{OUT} -p tcp --sport 4000 --dport 80");
    let said = rig.compare(&format!("{first} --flags SYN"));
    assert_eq!(step(&said, "conntrack")["state"], "NEW");
    assert!(said["end"]["conn"].as_str().unwrap().contains("SYN_SENT"), "{said}");
    // Without flags it is what the conn's tracker waits for.
    let said = rig.explain(&first);
    let tracked = step(&said, "conntrack");
    assert_eq!((&tracked["state"], &tracked["direction"]), (&"NEW".into(), &"original".into()));
    assert!(tracked["conn"].as_str().unwrap().contains("[UNREPLIED] src=203.0.113.51"), "{said}");
    assert_eq!(said["packet"], "tcp 10.1.0.11:4000 > 203.0.113.51:80 SYN");
    let said = rig.compare(&format!("{BACK} -p tcp --sport 80 --dport 4000 --flags SYN,ACK"));
    assert_eq!(step(&said, "conntrack")["state"], "ESTABLISHED");
    let said = rig.explain(&first);
    assert_eq!(said["packet"], "tcp 10.1.0.11:4000 > 203.0.113.51:80 ACK");
    assert_eq!(said["end"]["packet"], "tcp 203.0.113.1:4000 > 203.0.113.51:80 ACK");

    // Somebody else has the port, in the live table only.
    let other = "--in lan --src 10.1.0.12 --dst 203.0.113.51 -p tcp --sport 4000 --dport 80";
    let said = rig.explain(other);
    assert_eq!(step(&said, "nat")["by_lot"], true, "{said}");
    let text = rig.serve(&format!("explain {other}"));
    assert!(text.contains("a port drawn by lot\n"), "{text}");

    // Who is not known is asked for; what is no packet of anybody's has a reason.
    let unknown = "--in lan --src 10.1.0.11 --dst 203.0.113.77 -p udp --sport 6000 --dport 9";
    let said = rig.explain(unknown);
    assert_eq!(said["end"]["neighbour"], "MAC address not known: waits for ARP");
    let said = rig.explain(&format!("{OUT} -p tcp --dport 9 --flags SYN,RST"));
    assert_eq!(step(&said, "conntrack")["reason"], "tcp-flags");
    assert_eq!(
        (&said["end"]["by"]["chain"], &said["end"]["by"]["rule"]),
        (&"FORWARD".into(), &1.into())
    );

    let text = rig.serve(&format!("explain {OUT} -p tcp --dport 25"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines.last().unwrap(),
        &"end: rejected with icmp-port-unreachable by rule 1 of chain new, table filter",
        "{text}"
    );
    assert!(
        lines.contains(&"filter FORWARD 3: -A FORWARD -m conntrack --ctstate NEW -j new"),
        "{text}"
    );
    assert!(text.contains("\n  answer: icmp 10.1.0.1 > 10.1.0.11 type 3 code 3\n"), "{text}");
    let text = rig.serve(&format!("explain {OUT} -p tcp --sport 4000 --dport 7000 --flags SYN"));
    assert!(text.ends_with("end: proxied by rule 2 of chain new, table filter\n"), "{text}");
    let answer = "\n  answer: tcp 203.0.113.51:7000 > 10.1.0.11:4000 SYN ACK\n";
    assert!(text.contains(answer), "{text}");
    let said = rig.explain(&format!("{OUT} -p udp --dport 5001 --mark 0x7"));
    assert_eq!(said["end"]["verdict"], "sent");
}

#[test]
fn a_packet_of_our_own_takes_output() {
    let mut rig = Rig::new();
    let said = rig
        .explain("--out wan --src 203.0.113.1 --dst 203.0.113.51 -p udp --sport 6000 --dport 53");
    assert!(said.get("in").is_none());
    let policies: Vec<&Value> = said["steps"].as_array().unwrap().iter().collect();
    let output = |step: &&&Value| step["chain"] == "OUTPUT" && step["table"] == "filter";
    assert_eq!(policies.iter().filter(output).count(), 1, "{said}");
    assert_eq!(said["end"]["packet"], "udp 203.0.113.1:6000 > 203.0.113.51:53");
}

/// The packets of each tracker, as it waits for them.
#[test]
fn associations_go_on_as_they_should() {
    let mut rig = Rig::new();
    let (out, back) = ("--sport 4000 --dport 80", "--sport 80 --dport 4000");
    let mut states = |proto: &str, ways: &[(&str, &str)]| {
        for (ends, state) in ways {
            let ports = if *ends == OUT { out } else { back };
            let line = format!("{ends} -p {proto} {ports}");
            let said = rig.compare(&line);
            assert_ne!(step(&said, "conntrack")["state"], "INVALID", "{line}: {said:#}");
            let conns = rig.serve("conntrack -L");
            assert!(conns.contains(state), "{line}: {state}: {conns}");
        }
    };
    states(
        "sctp",
        &[
            (OUT, " CLOSED "),
            (BACK, " COOKIE_WAIT "),
            (OUT, " COOKIE_ECHOED "),
            (BACK, " ESTABLISHED "),
            (OUT, " ESTABLISHED "),
        ],
    );
    states(
        "dccp",
        &[(OUT, " REQUEST "), (BACK, " RESPOND "), (OUT, " PARTOPEN "), (BACK, " OPEN ")],
    );
    let text = rig.serve(&format!("explain {BACK} -p sctp {back} --chunk-type SHUTDOWN"));
    assert!(text.contains("\nchunk SHUTDOWN, tag 0x1: as its conn expects\n"), "{text}");
    let text = rig.serve(&format!("explain {OUT} -p dccp {out}"));
    assert!(text.contains("\ntype ACK, ack "), "{text}");
}

#[test]
fn a_datagram_in_fragments_is_one_packet() {
    let mut rig = Rig::new();
    let line = format!("{OUT} -p udp --sport 6050 --dport 53 --payload 3000 --fragment-size 1400");
    let said = rig.explain(&line);
    assert_eq!((&said["fragments"], &said["end"]["verdict"]), (&3.into(), &"sent".into()));
    let text = rig.serve(&format!("explain {line}"));
    assert!(text.contains("\nin 3 fragments, put together before the hooks\n"), "{text}");
    let (met, sent) = rig.send(&line, None);
    assert_eq!(sent.len(), 3);
    assert_eq!(met.iter().filter(|(rule, _)| rule.contains("-j LOG")).count(), 1);
}

/// Limits and their like answer as they are now, and are not used up by who asks.
#[test]
fn what_rules_keep_is_asked_as_it_is() {
    let mut rig = Rig::new();
    for line in [
        "iptables -F FORWARD",
        "iptables -A FORWARD -p udp -m limit --limit 1/hour --limit-burst 2 -j ACCEPT",
        "iptables -A FORWARD -p icmp -m statistic --mode nth --every 3 --packet 0 -j ACCEPT",
        "iptables -A FORWARD -p 200 -m quota --quota 50 -j ACCEPT",
        "iptables -A FORWARD -p esp -m recent --name seen --rcheck -j ACCEPT",
        "iptables -A FORWARD -p esp -m recent --name seen --set",
        "iptables -A FORWARD -p ah -m hashlimit --hashlimit-upto 1/hour --hashlimit-burst 2 \
         --hashlimit-mode srcip --hashlimit-name h -j ACCEPT",
    ] {
        assert_eq!(rig.serve(line), "", "{line}");
    }
    for (packet, passes, name) in [
        ("-p udp --sport 6060 --dport 53", [true, true, false], "limit"),
        ("-p icmp --icmp-id 44", [true, false, false], "statistic"),
        ("-p 200 --payload 4", [true, true, false], "quota"),
        ("-p esp", [false, true, true], "recent"),
        ("-p ah", [true, true, false], "hashlimit"),
    ] {
        for pass in passes {
            let line = format!("{OUT} {packet}");
            // As often as one likes.
            rig.explain(&line);
            let said = rig.compare(&line);
            assert_eq!(said["end"]["verdict"] == "sent", pass, "{line}: {said:#}");
            let asked = step(&said, if pass { "rule" } else { "unmatched" });
            let remark = format!("by its {name} as it is now, of which this uses nothing up");
            assert_eq!(asked["remark"], remark, "{line}");
        }
    }
    let text = rig.serve(&format!("explain {OUT} -p udp --sport 6060 --dport 53"));
    let line = "filter FORWARD 1: not matched: -A FORWARD -p udp -m limit --limit 1/hour \
                --limit-burst 2 -j ACCEPT (by its limit as it is now, of which this uses \
                nothing up)\n";
    assert!(text.contains(line), "{text}");
    rig.serve("iptables -I FORWARD -m statistic --mode random --probability 1 -j ACCEPT");
    let said = rig.explain(&format!("{OUT} -p esp"));
    assert_eq!(step(&said, "rule")["remark"], "by chance");
    let said = rig.explain(&format!("{OUT} -p tcp --dport 80"));
    assert_eq!(step(&said, "rule")["remark"], Value::Null, "of mangle");
}

#[test]
fn what_is_no_question_is_refused() {
    let mut rig = Rig::new();
    assert!(rig.serve("explain --help").contains("--icmp-type"));
    let text = rig.serve("explain --in dmz --src 10.1.0.11 --dst 1.2.3.4 -p esp");
    assert_eq!(text, "explain: there is no port dmz\n");
    assert!(rig.serve("explain --in lan --src 10.1.0.11 -p esp").contains("--dst"));
}

/// A rule that changes a set, and elements that have a time and count: asked, not changed.
#[test]
fn sets_stay_as_they_are() {
    let mut rig = Rig::new();
    for line in [
        "ipset create seen hash:ip timeout 100 counters",
        "ipset create gone hash:ip",
        "ipset add seen 10.1.0.11 timeout 50",
        "ipset add gone 10.1.0.11",
        "iptables -t mangle -I PREROUTING -m set --match-set gone src -j SET --del-set gone src",
        "iptables -t mangle -I PREROUTING -j SET --add-set seen src --exist --timeout 90",
        "iptables -I FORWARD -m set --match-set seen src -j ACCEPT",
    ] {
        assert_eq!(rig.serve(line), "", "{line}");
    }
    let before = rig.serve("ipset save");
    let line = format!("{OUT} -p udp --sport 6050 --dport 9");
    let said = rig.explain(&line);
    assert_eq!(rig.serve("ipset save"), before);
    let text = said.to_string();
    assert!(text.contains("--del-set gone src") && text.contains("--match-set seen src"), "{text}");
    rig.compare(&line);
    assert_ne!(rig.serve("ipset save"), before, "a real packet changes them");
}
