//! New rules for old conns: `check --live` and `on_reload`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::*;

const LIVE: &str = "\
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

/// Neither what goes to port 80 nor what pings, nor answers from port 443.
const STRICT: &str = "\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset
-A FORWARD -i wan -p tcp -m tcp --sport 443 -j DROP
-A FORWARD -p udp -j ACCEPT
-A FORWARD -p tcp -j ACCEPT
COMMIT
";

/// A folder with a configuration and rules; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(on_reload: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("sluicegate-live-{}-{number}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        let rules = format!("[rules]\nipv4 = \"rules.v4\"\non_reload = \"{on_reload}\"\n");
        folder.write("gateway.toml", &(CONFIG.to_owned() + &rules));
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.join("gateway.toml")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn segment(ack: u32) -> Fit {
    Fit::Tcp(Segment { flags: 0, seq: 0, ack })
}

/// A gateway by the live rules with conns that were answered and some that were not.
fn rig(folder: &Folder) -> Rig {
    folder.write("rules.v4", LIVE);
    let config = Config::load(&folder.path()).unwrap();
    let rulesets = crate::gateway::load_rules(&config).unwrap();
    let ns = 1_700_000_000_000_000_000;
    let mut rig = Rig { bench: Bench::new(config, rulesets, true).unwrap(), ns };
    for (line, answer) in [
        ("-p tcp --sport 4000 --dport 80", "-p tcp --sport 80 --dport 4000"),
        ("-p tcp --sport 4001 --dport 443", "-p tcp --sport 443 --dport 4001"),
        ("-p tcp --sport 4002 --dport 22", "-p tcp --sport 22 --dport 4002"),
        ("-p udp --sport 4003 --dport 53", "-p udp --sport 53 --dport 4003"),
        ("-p icmp --icmp-id 5", "-p icmp --icmp-id 5 --icmp-type 0"),
    ] {
        rig.send(&format!("{OUT} {line}"), None);
        let syn_ack = if line.contains("tcp") { "--flags SYN,ACK" } else { "" };
        rig.send(&format!("{BACK} {answer} {syn_ack}"), Some(segment(1)));
    }
    // Unanswered, and one with the gateway itself.
    rig.send(&format!("{OUT} -p tcp --sport 4005 --dport 80"), None);
    rig.send("--in lan --src 10.1.0.11 --dst 10.1.0.1 -p icmp --icmp-id 6", None);
    assert_eq!(conns(&mut rig).len(), 7);
    rig
}

fn conns(rig: &mut Rig) -> Vec<String> {
    let text = rig.serve("conntrack -L");
    text.lines().filter(|line| line.contains("src=")).map(str::to_owned).collect()
}

#[test]
fn conns_that_new_rules_would_drop_are_listed_and_stay() {
    let folder = Folder::new("reevaluate");
    let mut rig = rig(&folder);
    let path = folder.path().display().to_string();
    let same = rig.serve(&format!("check --live {path}"));
    assert_eq!(same, "0 of 7 flow entries would be treated otherwise.\n");
    folder.write("rules.v4", STRICT);
    let before = rig.state();
    let text = rig.serve(&format!("check --live {path}"));
    assert_eq!(rig.state(), before);
    let end = |words: &str| {
        let line = text.lines().find(|line| line.contains(words));
        let line = line.unwrap_or_else(|| panic!("{words}: {text}"));
        line.split_once(" [would")
            .map(|(_, end)| format!("[would{end}"))
            .or(line.split_once(" [answers").map(|(_, end)| format!("[answers{end}")))
            .unwrap()
    };
    assert_eq!(end("sport=4000"), "[would be rejected by filter/FORWARD rule 1]");
    assert_eq!(end("sport=4001"), "[answers would be dropped by filter/FORWARD rule 2]");
    assert_eq!(end("sport=4005"), "[would be rejected by filter/FORWARD rule 1]");
    assert_eq!(end("id=5"), "[would be dropped by the policy of filter/FORWARD]");
    assert!(text.starts_with("tcp      6 "), "{text}");
    assert!(text.ends_with("4 of 7 flow entries would be treated otherwise.\n"), "{text}");
    assert_eq!(text.lines().count(), 5, "{text}");
    // What is wrong with the file is said as a reload says it.
    folder.write("rules.v4", "*filter\n-A FORWARD -j NOTHING\nCOMMIT\n");
    let text = rig.serve(&format!("check --live {path}"));
    assert!(text.contains("rules.v4:2:"), "{text}");
    assert_eq!(conns(&mut rig).len(), 7);
}

#[test]
fn conns_that_were_denied_would_pass_again() {
    let folder = Folder::new("reevaluate");
    let mut rig = rig(&folder);
    folder.write("rules.v4", STRICT);
    rig.bench.core().reload(&folder.path()).unwrap();
    rig.bench.frame(PortId(0), rig.ns + 1_000_000_000, vec![0; 60]);
    assert_eq!(conns(&mut rig).len(), 7, "reevaluate deletes nothing");
    folder.write("rules.v4", LIVE);
    let text = rig.serve(&format!("check --live {}", folder.path().display()));
    assert_eq!(text.matches("[would pass]").count(), 4, "{text}");
}

#[test]
fn kill_denied_deletes_what_new_rules_drop() {
    let folder = Folder::new("kill-denied");
    let mut rig = rig(&folder);
    folder.write("rules.v4", STRICT);
    rig.bench.core().reload(&folder.path()).unwrap();
    rig.bench.frame(PortId(0), rig.ns + 100_000_000, vec![0; 60]);
    let left = conns(&mut rig);
    let has = |words: &str| left.iter().any(|line| line.contains(words));
    assert!(has("sport=4002") && has("sport=4003") && has("id=6"), "{left:#?}");
    assert_eq!(left.len(), 3, "{left:#?}");
    // Rules by hand count as well, and what does not change the rules deletes nothing.
    rig.serve("sysctl -w net.netfilter.nf_conntrack_udp_timeout=40");
    rig.serve("iptables -A FORWARD -p icmp -j ACCEPT");
    rig.bench.frame(PortId(0), rig.ns + 200_000_000, vec![0; 60]);
    assert_eq!(conns(&mut rig).len(), 3);
    rig.serve("iptables -I FORWARD -p udp -j DROP");
    rig.bench.frame(PortId(0), rig.ns + 300_000_000, vec![0; 60]);
    assert_eq!(conns(&mut rig).len(), 2);
}

/// By rules that deny them all: what had passed does, what had not is judged.
#[test]
fn keep_lets_conns_go_on() {
    let folder = Folder::new("keep");
    let mut rig = rig(&folder);
    folder.write("rules.v4", "*filter\n:FORWARD DROP [0:0]\n:INPUT DROP [0:0]\nCOMMIT\n");
    let path = folder.path().display().to_string();
    let text = rig.serve(&format!("check --live {path}"));
    let unanswered = "sport=4005 dport=80 [UNREPLIED] src=203.0.113.51 dst=203.0.113.1 sport=80 \
                      dport=4005 mark=0 use=1 [answers would be dropped by the policy of";
    assert!(text.contains(unanswered), "{text}");
    assert!(text.ends_with("\n1 of 7 flow entries would be treated otherwise.\n"), "{text}");
    rig.bench.core().reload(&folder.path()).unwrap();
    let packets = [
        (format!("{OUT} -p udp --sport 4003 --dport 53"), 1),
        (format!("{BACK} -p udp --sport 53 --dport 4003"), 1),
        (format!("{OUT} -p icmp --icmp-id 5"), 1),
        ("--in lan --src 10.1.0.11 --dst 10.1.0.1 -p icmp --icmp-id 6".to_owned(), 1),
        (format!("{OUT} -p tcp --sport 4005 --dport 80 --flags SYN"), 1),
        (format!("{OUT} -p udp --sport 4009 --dport 53"), 0),
        (format!("{BACK} -p tcp --sport 80 --dport 4005 --flags SYN,ACK"), 0),
    ];
    for (line, passes) in packets {
        let fit = line.contains("ACK").then_some(segment(1));
        let kept = rig.explain(&line).to_string().contains("\"step\":\"kept\"");
        assert_eq!((kept, rig.send(&line, fit).1.len()), (passes == 1, passes), "{line}");
    }
    // A tool's changes are changes too; a counter set back is none.
    rig.serve("iptables -P FORWARD ACCEPT");
    rig.serve("iptables -Z");
    let later = format!("{OUT} -p udp --sport 4010 --dport 53");
    assert_eq!(rig.send(&later, None).1.len(), 1);
    rig.serve("iptables -Z");
    assert!(!rig.explain(&later).to_string().contains("kept"));
    rig.serve("iptables -P FORWARD DROP");
    assert_eq!(rig.send(&later, None).1.len(), 1);
    assert!(rig.explain(&later).to_string().contains("kept"));
    // Judged again, by the kernel's way.
    let config = CONFIG.to_owned() + "[rules]\nipv4 = \"rules.v4\"\n";
    folder.write("gateway.toml", &config);
    let text = rig.serve(&format!("check --live {path}"));
    assert!(text.contains("dropped by the policy of filter/FORWARD]"), "{text}");
    rig.bench.core().reload(&folder.path()).unwrap();
    assert_eq!(rig.send(&later, None).1.len(), 0);
}

/// Who is judged uses up no limit for those behind it.
#[test]
fn limits_deny_no_conn_that_is_judged() {
    let folder = Folder::new("kill-denied");
    let mut rig = rig(&folder);
    let by = [
        "limit --limit 1/day --limit-burst 1",
        "quota --quota 60",
        "statistic --mode nth --every 9 --packet 0",
        "hashlimit --hashlimit-upto 1/day --hashlimit-burst 1 --hashlimit-mode dstip \
         --hashlimit-name h",
        "recent --name r ! --rcheck",
    ];
    let rules: String = by.iter().map(|asked| format!("-A FORWARD -m {asked} -j ok\n")).collect();
    let last = "-A ok -m recent --name r --set -j ACCEPT\n";
    for only in 0..by.len() {
        let rule = rules.lines().nth(only).unwrap();
        let text = format!("*filter\n:FORWARD DROP [0:0]\n:ok - [0:0]\n{last}{rule}\nCOMMIT\n");
        folder.write("rules.v4", &text);
        let path = folder.path().display().to_string();
        let said = rig.serve(&format!("check --live {path}"));
        assert_eq!(said, "0 of 7 flow entries would be treated otherwise.\n", "{text}");
    }
    rig.bench.core().reload(&folder.path()).unwrap();
    rig.bench.frame(PortId(0), rig.ns + 100_000_000, vec![0; 60]);
    assert_eq!(conns(&mut rig).len(), 7);
}

#[test]
fn check_live_takes_a_file() {
    let mut rig = Rig::new();
    assert!(rig.serve("check --live").contains("takes --live and a configuration"));
    assert!(rig.serve("check --life x").contains("unknown option '--life'"));
    assert!(rig.serve("check --live /nonexistent/x").contains("/nonexistent/x"));
}
