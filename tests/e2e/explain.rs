//! `explain` and `check --live` against what then happens to the hosts' own packets.

use serde_json::Value;

use crate::gateway::eventually;
use crate::rig::{LAN_HOST, RULES4, Rig, WAN_GATEWAY, WAN_HOST, Wish};
use crate::servers::{Server, body};

fn explained(rig: &Rig, line: &str) -> Value {
    let text = rig.files().ask(&format!("explain {line} --json"));
    serde_json::from_str(&text).expect("explain --json prints JSON")
}

/// Packets that a rule has counted.
fn counted(rig: &Rig, rule: &str) -> u64 {
    let saved = rig.files().ask("iptables-save -c");
    let line = saved.lines().find(|line| line.ends_with(rule));
    let line = line.unwrap_or_else(|| panic!("no rule {rule} in {saved}"));
    let packets = line.trim_start_matches('[').split(':').next().expect("counters in front");
    packets.parse().expect("a number of packets")
}

/// The texts of the rules that a packet meets.
fn rules(said: &Value) -> Vec<String> {
    let steps = said["steps"].as_array().expect("a list of steps");
    let rules = steps.iter().filter(|step| step["step"] == "rule");
    rules.map(|step| step["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn what_is_said_of_a_packet_happens_to_it() {
    let mut rig = Rig::new(Wish::default());
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let out = format!("--in lan --src {LAN_HOST} --dst {WAN_HOST} -p tcp --sport 41000");
    let said = explained(&rig, &format!("{out} --dport 80"));
    let met = rules(&said);
    assert_eq!(met, ["-A FORWARD -i lan -j ACCEPT", "-A POSTROUTING -o wan -j MASQUERADE"]);
    let leaves = format!("tcp {WAN_GATEWAY}:41000 > {WAN_HOST}:80 SYN");
    assert_eq!(said["end"]["packet"], *leaves);
    assert_eq!(met.iter().map(|rule| counted(&rig, rule)).sum::<u64>(), 0, "nothing is counted");
    assert!(!rig.files().ask("conntrack -L").contains("src="), "and nothing begins");

    let url = format!("--local-port 41000 http://{WAN_HOST}/100");
    assert_eq!(rig.curl(&url).stdout, body(100));
    let conn = rig.wait_for_conn(&["tcp", "sport=41000", "dport=80"]);
    assert!(conn.contains(&format!("src={WAN_HOST} dst={WAN_GATEWAY} sport=80 dport=41000")));
    assert_eq!(met.iter().map(|rule| counted(&rig, rule)).collect::<Vec<_>>(), [1, 1]);

    // The conn is known now, and so is who answers.
    let back = format!("--in wan --src {WAN_HOST} --dst {WAN_GATEWAY} -p tcp --sport 80");
    let said = explained(&rig, &format!("{back} --dport 41000 --flags ACK"));
    assert_eq!(said["end"]["packet"], *format!("tcp {WAN_HOST}:80 > {LAN_HOST}:41000 ACK"));
    assert_eq!(said["end"]["neighbour"], "02:00:00:00:77:02");
    let text = rig.files().ask(&format!("explain {back} --dport 41000"));
    assert!(text.contains("reply direction, conn tcp 6 "), "{text}");

    // Rejected, and dropped.
    let said = explained(&rig, &format!("{out} --dport 81"));
    assert_eq!(
        (&said["end"]["verdict"], &said["end"]["with"]),
        (&"rejected".into(), &"tcp-reset".into())
    );
    let rejected = rig.curl(&format!("--local-port 41000 http://{WAN_HOST}:81/100"));
    assert_eq!(rejected.status.code(), Some(7));
    assert_eq!(said["end"]["by"]["rule"], 2);
    assert_eq!(counted(&rig, rules(&said).last().expect("a rule")), 1);
    let stranger = format!("--in wan --src {WAN_HOST} --dst {WAN_GATEWAY} -p tcp");
    let said = explained(&rig, &format!("{stranger} --sport 8081 --dport 9999 --flags SYN"));
    assert_eq!(
        (&said["end"]["reason"], &said["end"]["by"]["chain"]),
        (&"filter-drop".into(), &"INPUT".into())
    );
    let before = rig.dropped("filter-drop");
    rig.wan.try_run(&format!("curl -sS --local-port 8081 --max-time 1 http://{WAN_GATEWAY}:9999/"));
    assert!(rig.dropped("filter-drop") > before);

    let refused = rig.files().tool(&["explain", "--in", "lan"]);
    assert_eq!(refused.status.code(), Some(2));
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

#[test]
fn conns_that_new_rules_deny_are_foretold_and_killed() {
    let mut rig = Rig::new(Wish::default());
    rig.lan.run(&format!("ping -c 1 -W 20 {WAN_HOST}"));
    rig.wait_for_conn(&["icmp", "type=8"]);
    let config = std::fs::read_to_string(rig.files().path("gateway.toml")).unwrap();
    let kill =
        config.replace("ipv6 = \"rules.v6\"", "ipv6 = \"rules.v6\"\non_reload = \"kill-denied\"");
    rig.files().write("gateway.toml", &kill);
    let first = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
    rig.files()
        .write("rules.v4", &RULES4.replace(first, &format!("-A FORWARD -p icmp -j DROP\n{first}")));
    let path = rig.files().path("gateway.toml").display().to_string();
    let listed = rig.files().ask(&format!("check -c {path} --live"));
    assert!(listed.starts_with("icmp     1 "), "{listed}");
    assert!(listed.ends_with(" [would be dropped by filter/FORWARD rule 1]\n"), "{listed}");
    assert_eq!(listed.lines().count(), 1);
    rig.wait_for_conn(&["icmp", "type=8"]);
    assert_eq!(rig.gateway.reload(), "reloaded");
    eventually("the conn to be deleted", || !rig.files().ask("conntrack -L").contains("type=8"));
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}
