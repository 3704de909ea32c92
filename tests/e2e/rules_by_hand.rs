//! `iptables` and `ip6tables` while packets flow: edits, lists, live counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::rig::{LAN_HOST, Rig, WAN_HOST, Wish};
use crate::servers::{Server, body, exchange, udp_client};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Packets and bytes that `-vx` shows of the rule with these words.
fn counted(list: &str, words: &[&str]) -> (u64, u64) {
    let line = list.lines().find(|line| words.iter().all(|word| line.contains(word)));
    let line = line.unwrap_or_else(|| panic!("{words:?} in\n{list}"));
    let mut numbers = line.split_whitespace().map(|n| n.parse().expect("a count"));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn commands_of_a_running_gateway_work_as_they_are() {
    let rig = Rig::new(Wish::default());
    let files = rig.files();
    for line in [
        "iptables -A OUTPUT -p tcp -m state --state ESTABLISHED -j ACCEPT",
        "iptables -t raw -A PREROUTING -p tcp -j NOTRACK",
        "iptables -t nat -A POSTROUTING -o wan -s 172.30.4.0/24 -j SNAT --to 172.30.4.11",
        "iptables -A INPUT -p tcp -s 54.239.25.200 --sport 443 -j ACCEPT",
        "ip6tables -I FORWARD -s fd00::/8 -p tcp -m multiport --dports ssh,80 -j DROP",
    ] {
        assert_eq!(files.ask(line), "", "{line}");
    }
    let saved = files.ask("iptables-save");
    for line in [
        "-A OUTPUT -p tcp -m state --state ESTABLISHED -j ACCEPT",
        "-A PREROUTING -p tcp -j NOTRACK",
        "-A POSTROUTING -s 172.30.4.0/24 -o wan -j SNAT --to-source 172.30.4.11",
        "-A INPUT -s 54.239.25.200/32 -p tcp -m tcp --sport 443 -j ACCEPT",
    ] {
        assert!(saved.lines().any(|saved| saved == line), "{line} in\n{saved}");
    }
    let six = "-A FORWARD -s fd00::/8 -p tcp -m multiport --dports 22,80 -j DROP\n";
    assert_eq!(files.ask("ip6tables -S FORWARD 1"), six);
    assert_eq!(files.ask("sysctl net.netfilter.nf_conntrack_count"), count_line(&rig));
    assert!(files.tool(&["conntrack", "-L"]).status.success());

    for (line, code, said) in [
        ("iptables -D INPUT -p 99", 1, "Bad rule (does a matching rule exist in that chain?)."),
        ("iptables -A NOPE -j DROP", 1, "No chain/target/match by that name."),
        ("iptables -t security -L", 3, "security marks"),
        ("iptables -A INPUT -m owner --uid-owner 0", 2, "packets belong to no process"),
        ("iptables -t nat -A INPUT -j MASQUERADE", 4, "MASQUERADE: not possible at hook INPUT"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let output = files.tool(&words);
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {err}");
        assert!(err.starts_with("iptables: ") && err.contains(said), "{line}: {err}");
    }
    // What failed has changed nothing, and a file gets what standard output would get.
    let file = files.path("saved.v4");
    let to_file = files.tool(&["iptables-save", "-f", file.to_str().unwrap()]);
    assert!(to_file.status.success() && to_file.stdout.is_empty());
    let undated = |text: &str| -> Vec<String> {
        text.lines().filter(|l| !l.starts_with(['#', ':'])).map(str::to_owned).collect()
    };
    let again = std::fs::read_to_string(file).expect("the file is there");
    assert_eq!(undated(&again), undated(&saved));
    rig.assert_balance();
}

fn count_line(rig: &Rig) -> String {
    let count = rig.files().ask("conntrack -C");
    format!("net.netfilter.nf_conntrack_count = {count}")
}

#[test]
fn edits_take_effect_at_once_and_lists_show_live_counters() {
    let rig = Rig::new(Wish::default());
    let files = rig.files();
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let url = format!("http://{WAN_HOST}/1000");
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));

    files.ask("iptables -I FORWARD -i lan -p udp --dport echo");
    for _ in 0..3 {
        exchange(&socket, b"hello").expect("an echo");
    }
    let listed = || files.ask("iptables -nvxL FORWARD");
    assert_eq!(counted(&listed(), &["udp dpt:7"]), (3, 99));
    assert!(files.ask("iptables -vL FORWARD").contains("udp dpt:echo\n"));

    // Edits before and behind it, in its chain and elsewhere, leave its count as it is.
    assert_eq!(rig.curl(&url).stdout, body(1000));
    files.ask("iptables -N closed");
    files.ask("iptables -A closed -p tcp -j REJECT --reject-with tcp-reset");
    files.ask("iptables -I FORWARD 1 -i lan -p tcp --dport 80 -j closed");
    assert_eq!(rig.curl(&url).status.code(), Some(7), "refused from now on");
    let out = files.ask("iptables -nvxL closed");
    assert_eq!(counted(&out, &["REJECT"]).0, 1, "{out}");
    assert_eq!(counted(&listed(), &["udp dpt:7"]), (3, 99));
    files.ask("iptables -D FORWARD 1");
    assert_eq!(rig.curl(&url).stdout, body(1000), "open again");
    files.ask("iptables -F closed");
    files.ask("iptables -X closed");
    files.ask("iptables -R FORWARD 3 -i lan -p tcp --dport 81 -j DROP");
    assert_eq!(counted(&listed(), &["udp dpt:7"]), (3, 99));
    let words = "-A FORWARD -i lan -p udp -m udp --dport 7 -c 3 99\n";
    assert_eq!(files.ask("iptables -vS FORWARD 1"), words);

    // A list that sets back shows what it sets back.
    exchange(&socket, b"again").expect("an echo");
    assert_eq!(counted(&files.ask("iptables -nvxL FORWARD -Z"), &["udp dpt:7"]), (4, 132));
    assert_eq!(counted(&listed(), &["udp dpt:7"]), (0, 0));
    exchange(&socket, b"hello").expect("an echo");
    assert_eq!(counted(&listed(), &["udp dpt:7"]), (1, 33));
    files.ask("iptables -Z FORWARD 1");
    assert_eq!(counted(&listed(), &["udp dpt:7"]), (0, 0));

    // A policy.
    files.ask("iptables -F FORWARD");
    let timed_out = rig.curl(&format!("--max-time 1 {url}")).status.code();
    assert_eq!(timed_out, Some(28), "dropped by the policy");
    files.ask("iptables -P FORWARD ACCEPT");
    assert_eq!(rig.curl(&url).stdout, body(1000));
    rig.assert_balance();
}

#[test]
fn no_packet_is_lost_to_the_counters_while_rules_are_edited_and_zeroed() {
    let rig = Rig::new(Wish::default());
    let files = rig.files();
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    files.ask("iptables -I FORWARD -i lan -p udp --dport 7");
    files.ask("iptables -t mangle -A FORWARD -i lan -p udp --dport 7");
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
    let (ends, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stop, sends) = (Arc::clone(&ends), Arc::clone(&sent));
    let sender = std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            exchange(&socket, b"hello").expect("an echo");
            sends.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut read = 0;
    for round in 0..30 {
        let line = match round % 5 {
            0 => "iptables -I FORWARD -s 192.0.2.1 -j DROP",
            1 => "iptables -A FORWARD -s 192.0.2.2 -j DROP",
            2 => "iptables -t raw -A PREROUTING -s 192.0.2.3 -j DROP",
            3 => "iptables -D FORWARD -s 192.0.2.1 -j DROP",
            _ => "iptables -t mangle -I FORWARD -s 192.0.2.4",
        };
        files.ask(line);
        let list = files.ask("iptables -t mangle -nvxL -Z");
        read += counted(&list, &["udp dpt:7"]).0;
    }
    ends.store(true, Ordering::Relaxed);
    sender.join().expect("every datagram was echoed");
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent >= 30, "{sent}");
    assert_eq!(counted(&files.ask("iptables -nvxL FORWARD"), &["udp dpt:7"]), (sent, 33 * sent));
    read += counted(&files.ask("iptables -t mangle -nvxL FORWARD"), &["udp dpt:7"]).0;
    assert_eq!(read, sent, "each was seen once");
    rig.assert_balance();
}
