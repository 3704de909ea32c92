//! SIGHUP: the files replace the live policy, or nothing changes.

use std::io::Read;
use std::process::Stdio;

use crate::rig::{LAN_HOST, RULES4, Rig, WAN_HOST, Wish};
use crate::servers::{Server, body};

fn refused(output: &std::process::Output) -> bool {
    output.status.code() == Some(7)
}

#[test]
fn a_reload_changes_the_rules_and_spares_what_is_established() {
    let mut rig = Rig::new(Wish::default());
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let len = 3_000_000;
    let url = format!("http://{WAN_HOST}/{len}/slow");
    let mut download = rig.lan.command(&format!("curl -sS --max-time 60 {url}"));
    let mut download = download.stdout(Stdio::piped()).spawn().expect("curl starts");
    let mut out = download.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    rig.wait_for_conn(&["tcp", "ESTABLISHED", "dport=80"]);

    let closed = "-A FORWARD -i lan -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset\n";
    let open = "-A FORWARD -i lan -j ACCEPT\n";
    rig.files().write("rules.v4", &RULES4.replace(open, &format!("{closed}{open}")));
    assert_eq!(rig.gateway.reload(), "reloaded");
    let short = format!("http://{WAN_HOST}/100");
    assert!(refused(&rig.curl(&short)), "the new rule is in force");
    for _ in 0..5 {
        assert_eq!(rig.gateway.reload(), "reloaded");
    }
    rig.files().write("rules.v4", RULES4);
    assert_eq!(rig.gateway.reload(), "reloaded");
    assert_eq!(rig.curl(&short).stdout, body(100));

    assert!(download.try_wait().expect("curl can be waited for").is_none(), "it still runs");
    assert!(download.wait().expect("curl ends").success());
    assert!(reader.join().unwrap().unwrap() == body(len));
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

/// `on_reload = "keep"`, with rules by which nothing would go through at all.
#[test]
fn live_conns_outlive_rules_that_deny_them() {
    let mut rig =
        Rig::new(Wish { eal: "worker_cores = [0, 1]\nmemory_mb = 256", ..Wish::default() });
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let len = 3_000_000;
    let url = format!("http://{WAN_HOST}/{len}/slow");
    let line = format!("curl -sS --local-port 41000 --max-time 60 {url}");
    let mut download = rig.lan.command(&line);
    let mut download = download.stdout(Stdio::piped()).spawn().expect("curl starts");
    let mut out = download.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    rig.wait_for_conn(&["tcp", "ESTABLISHED", "dport=80"]);

    let config = std::fs::read_to_string(rig.files().path("gateway.toml")).unwrap();
    let keep = config.replace("ipv6 = \"rules.v6\"", "ipv6 = \"rules.v6\"\non_reload = \"keep\"");
    assert_ne!(config, keep);
    rig.files().write("gateway.toml", &keep);
    rig.files().write("rules.v4", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    let path = rig.files().path("gateway.toml").display().to_string();
    assert_eq!(rig.files().ask(&format!("check -c {path} --live")), "", "no conn is denied");
    assert_eq!(rig.gateway.reload(), "reloaded");
    let dropped = rig.dropped("filter-drop");
    let other = rig.curl(&format!("--max-time 1 http://{WAN_HOST}/100"));
    assert_eq!(other.status.code(), Some(28), "a new conn is dropped");
    assert!(rig.dropped("filter-drop") > dropped);
    // Rules by hand change nothing about it either.
    rig.files().ask("iptables -A FORWARD -p tcp -j DROP");
    let packet =
        format!("--in lan --src {LAN_HOST} --dst {WAN_HOST} -p tcp --sport 41000 --dport 80");
    let said = rig.files().ask(&format!("explain {packet} --flags ACK"));
    assert!(said.contains("filter FORWARD: not asked, the conn goes on"), "{said}");

    assert!(download.try_wait().expect("curl can be waited for").is_none(), "it still runs");
    assert!(download.wait().expect("curl ends").success());
    assert!(reader.join().unwrap().unwrap() == body(len));
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

#[test]
fn a_reload_that_fails_says_why_and_changes_nothing() {
    let mut rig = Rig::new(Wish::default());
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let url = format!("http://{WAN_HOST}/100");
    let config = std::fs::read_to_string(rig.files().path("gateway.toml")).unwrap();
    let rules = rig.files().path("rules.v4").display().to_string();
    let toml = rig.files().path("gateway.toml").display().to_string();
    let saved = rig.files().ask("iptables-save");
    let after_date = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with(['#', ':']));
        lines.map(str::to_owned).collect()
    };

    let wrong_rules = RULES4.replace("--dport 8080", "--dport 80800");
    let wrong_line = 1 + wrong_rules.lines().position(|l| l.contains("80800")).unwrap();
    let cases: [(&str, String, String); 6] = [
        ("rules.v4", wrong_rules, format!("reload failed: {rules}:{wrong_line}:")),
        ("rules.v4", "*filter\n".to_owned(), format!("reload failed: {rules}:")),
        ("gateway.toml", format!("{config}\nnonsense = 1\n"), format!("reload failed: {toml}:")),
        (
            "gateway.toml",
            config.replace("mtu = 1500", "mtu = 1400"),
            "reload failed: ports, their devices".to_owned(),
        ),
        (
            "gateway.toml",
            config
                .replace("name = \"wan\"", "name = \"wan0\"")
                .replace("port = \"wan\"", "port = \"wan0\""),
            "reload failed: ports, their devices".to_owned(),
        ),
        (
            "gateway.toml",
            config.replace("memory_mb = 128", "memory_mb = 256"),
            "reload failed: [eal]".to_owned(),
        ),
    ];
    for (file, text, said) in cases {
        let before = std::fs::read_to_string(rig.files().path(file)).unwrap();
        assert_ne!(before, text, "{said}: the case changes something");
        rig.files().write(file, &text);
        let line = rig.gateway.reload();
        assert!(line.starts_with(&said), "{line}\ninstead of {said}");
        assert_eq!(after_date(&rig.files().ask("iptables-save")), after_date(&saved));
        assert_eq!(rig.curl(&url).stdout, body(100), "{said}");
        rig.files().write(file, &before);
    }
    std::fs::remove_file(rig.files().path("rules.v6")).unwrap();
    let line = rig.gateway.reload();
    assert!(line.starts_with("reload failed: ") && line.contains("rules.v6"), "{line}");
    assert_eq!(rig.gateway.other_lines(), Vec::<String>::new());
    rig.assert_balance();
}

#[test]
fn a_reload_takes_over_addresses_and_sysctls() {
    let mut rig = Rig::new(Wish::default());
    let config = std::fs::read_to_string(rig.files().path("gateway.toml")).unwrap();
    rig.files().ask("sysctl -w net.netfilter.nf_conntrack_udp_timeout=7");
    let text = config
        .replace("\"198.51.100.1/24\"", "\"198.51.100.1/24\", \"198.51.100.5/24\"")
        .replace("hashsize = 4096", "hashsize = 4096\nicmp_timeout = 11");
    rig.files().write("gateway.toml", &text);
    assert!(!rig.wan.try_run("ping -c 1 -W 1 198.51.100.5").status.success());
    assert_eq!(rig.gateway.reload(), "reloaded");
    rig.wan.run("ping -c 1 -W 20 198.51.100.5");
    // What the file does not name keeps its live value.
    let ask = |name: &str| rig.files().ask(&format!("sysctl -n net.netfilter.nf_conntrack_{name}"));
    assert_eq!((ask("udp_timeout"), ask("icmp_timeout")), ("7\n".to_owned(), "11\n".to_owned()));
    rig.assert_balance();
}
