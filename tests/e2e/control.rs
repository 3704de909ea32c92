//! The tools while packets flow.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::eventually;
use crate::rig::{LAN_HOST, RULES4, Rig, WAN_GATEWAY, WAN_HOST, Wish};
use crate::servers::{Server, body, exchange, udp_client};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn events_tell_the_life_of_a_conn() {
    let rig = Rig::new(Wish::default());
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let mut listener = rig
        .files()
        .tool_command(&["conntrack", "-E", "-p", "tcp"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let stdout = BufReader::new(listener.stdout.take().expect("stdout is piped"));
    let lines = Arc::clone(&seen);
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
    let has = |word: &str| seen.lock().unwrap().iter().any(|line| line.contains(word));
    // A listener that has just come may miss what happens in the same moment.
    eventually("the first event is heard", || {
        rig.curl(&format!("http://{WAN_HOST}/1"));
        has("[NEW]")
    });
    rig.files().ask("conntrack -D -p tcp --dport 80");
    eventually("an end is heard", || has("[DESTROY]"));
    let table = rig.files().ask("conntrack -L -p tcp");
    assert!(!table.contains("tcp"), "{table}");

    kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
    let status = listener.wait().expect("the child can be waited for");
    assert_eq!(status.code(), Some(0));
    reader.join().expect("the reader does not panic");
    let seen = seen.lock().unwrap();
    // The listener may have come in the middle of a conn: the life of the next one is whole.
    let from = seen.iter().position(|line| line.contains("[NEW]")).unwrap();
    let seen = &seen[from..];
    for (word, of) in [("SYN_SENT", "[NEW]"), ("ESTABLISHED", "[UPDATE]"), ("FIN_WAIT", "[UPDATE]")]
    {
        assert!(seen.iter().any(|l| l.contains(word) && l.contains(of)), "{word}: {seen:#?}");
    }
    let end = seen.iter().find(|line| line.contains("[DESTROY]")).unwrap();
    assert!(end.contains(&format!("dst={WAN_GATEWAY}")), "{end}");
    rig.assert_balance();
}

#[test]
fn conns_are_listed_counted_deleted_and_flushed_under_traffic() {
    let rig = Rig::new(Wish::default());
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let url = format!("http://{WAN_HOST}/3000000/slow");
    let download = rig.lan.command(&format!("curl -sS --max-time 60 {url}"));
    let mut download = { download }.stdout(Stdio::piped()).spawn().expect("curl starts");
    let mut out = download.stdout.take().expect("stdout is piped");
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut out, &mut bytes).map(|_| bytes)
    });
    let sockets: Vec<_> = (0..20)
        .map(|_| udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7")))
        .collect();
    for socket in &sockets {
        exchange(socket, b"hello").expect("an echo");
    }
    rig.wait_for_conn(&["tcp", "ESTABLISHED", "dport=80"]);
    let listed = rig.files().tool(&["conntrack", "-L", "-p", "udp", "--dport", "7"]);
    assert_eq!(text(&listed.stdout).lines().count(), 20);
    let footer = text(&listed.stderr);
    assert!(footer.contains("20 flow entries have been shown."), "{footer}");
    let count: u32 = rig.files().ask("conntrack -C").trim().parse().expect("a number");
    assert!(count >= 21, "{count}");
    let xml = rig.files().ask("conntrack -L -p tcp -o xml");
    assert!(xml.starts_with("<?xml") && xml.contains("</conntrack>"), "{xml}");

    let port = sockets[0].local_addr().unwrap().port().to_string();
    let gone = rig.files().tool(&["conntrack", "-D", "-p", "udp", "--sport", &port]);
    assert!(gone.status.success());
    assert!(text(&gone.stderr).contains("1 flow entries have been deleted"));
    let none = rig.files().tool(&["conntrack", "-D", "-p", "udp", "--sport", &port]);
    assert_eq!(none.status.code(), Some(1), "nothing left to delete");

    assert!(download.wait().expect("curl ends").success(), "the download went on");
    assert!(reader.join().unwrap().unwrap() == body(3_000_000));
    let flushed = rig.files().tool(&["conntrack", "-F"]);
    assert!(text(&flushed.stderr).contains("connection tracking table has been emptied"));
    assert_eq!(rig.files().ask("conntrack -L"), "", "flushed");
    // The clients go on with new conns, translated to the ports they had.
    for socket in &sockets {
        let port = socket.local_addr().unwrap().port();
        let answer = text(&exchange(socket, b"again").expect("an echo"));
        assert_eq!(answer, format!("{WAN_GATEWAY}:{port} again"));
    }
    let statistics = rig.files().ask("conntrack -S");
    assert!(statistics.starts_with("cpu=0") && statistics.contains("drop=0"), "{statistics}");
    rig.assert_balance();
}

#[test]
fn rules_are_saved_and_restored_live() {
    let rig = Rig::new(Wish::default());
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let url = format!("http://{WAN_HOST}/1000");
    let rules = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let saved = rig.files().ask("iptables-save");
    for line in RULES4.lines().filter(|line| line.starts_with("-A")) {
        assert!(saved.contains(line), "{line} is not in\n{saved}");
    }
    assert!(rig.files().feed("iptables-restore", &saved).status.success());
    let again = rig.files().ask("iptables-save");
    // The policies' counters go on counting.
    let plain = |text: &str| -> Vec<String> {
        rules(text).iter().map(|l| l.split('[').next().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(plain(&saved), plain(&again));

    assert_eq!(rig.curl(&url).stdout, body(1000));
    let counted = rig.files().ask("iptables-save -c -t nat");
    let masquerade = counted.lines().find(|line| line.contains("MASQUERADE")).unwrap();
    assert!(masquerade.starts_with("[1:60] -A POSTROUTING"), "{masquerade}");
    let kept = rig.files().feed("iptables-restore -c", &rig.files().ask("iptables-save -c"));
    assert!(kept.status.success(), "{}", text(&kept.stderr));
    assert!(rig.files().ask("iptables-save -c -t nat").contains(masquerade));

    // A wrong line changes nothing and is named.
    let wrong = saved.replace("-j MASQUERADE", "-m nonsense -j MASQUERADE");
    let number = 1 + wrong.lines().position(|line| line.contains("nonsense")).unwrap();
    let refused = rig.files().feed("iptables-restore", &wrong);
    let complaint = text(&refused.stderr);
    assert!(!refused.status.success());
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(
        complaint.contains(&format!("line {number}")) && complaint.contains("nonsense"),
        "{complaint}"
    );
    assert_eq!(rig.curl(&url).stdout, body(1000));

    let closed = saved.replace("-A FORWARD -i lan -j ACCEPT", "-A FORWARD -i lan -j REJECT");
    assert!(rig.files().feed("iptables-restore --test", &closed).status.success());
    assert_eq!(rig.curl(&url).stdout, body(1000), "a test changes nothing");
    assert!(rig.files().feed("iptables-restore", &closed).status.success());
    assert_eq!(rig.curl(&url).status.code(), Some(7), "the new rule is in force");
    assert!(rig.files().feed("iptables-restore", &saved).status.success());
    assert_eq!(rig.curl(&url).stdout, body(1000));
    rig.assert_balance();
}

#[test]
fn sysctls_take_effect_at_once() {
    let rig = Rig::new(Wish::default());
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let name = "net.netfilter.nf_conntrack_udp_timeout";
    assert_eq!(rig.files().ask(&format!("sysctl {name}")), format!("{name} = 30\n"));
    let set = rig.files().ask(&format!("sysctl -w {name}=2"));
    assert_eq!(set, format!("{name} = 2\n"));
    let to = format!("{WAN_HOST}:7");
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &to);
    exchange(&socket, b"x").expect("an echo");
    let line = rig.wait_for_conn(&["udp", "dport=7"]);
    let left: u32 = line.split_whitespace().nth(2).unwrap().parse().expect("seconds");
    assert!(left <= 2, "{line}");
    eventually("the conn expires", || rig.files().ask("conntrack -C").trim() == "0");
    assert!(rig.files().ask("sysctl -a").lines().count() > 20);
    let unknown = rig.files().tool(&["sysctl", "net.netfilter.nf_conntrack_nonsense"]);
    assert!(!unknown.status.success());
    let bad = rig.files().tool(&["sysctl", "-w", &format!("{name}=never")]);
    assert!(!bad.status.success());
    assert_eq!(rig.files().ask(&format!("sysctl -n {name}")), "2\n");
    // The limit itself: a full table drops early or refuses, and says so once.
    rig.files().ask("sysctl -w net.netfilter.nf_conntrack_max=4");
    let mut refused = 0;
    let sockets: Vec<_> = (0..40)
        .map(|_| udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &to))
        .inspect(|socket| {
            socket.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
            refused += u32::from(exchange(socket, b"x").is_err());
        })
        .collect();
    assert_eq!(sockets.len(), 40);
    let statistics = rig.files().ask("conntrack -S");
    let early = statistics.split("early_drop=").nth(1).and_then(|t| t.split(' ').next());
    let early: u32 = early.and_then(|n| n.parse().ok()).expect("a number");
    assert!(early > 0 || refused > 0, "{statistics}");
    rig.assert_balance();
}
