//! Programs on the gateway box, as others reach them and as they reach others.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::daemon::Daemon;
use crate::gateway::{Files, eventually};
use crate::host_rig::{HostRig, HostWish};
use crate::netns::Namespace;
use crate::rig::{
    BEHIND, LAN_GATEWAY, LAN_GATEWAY6, LAN_HOST, LAN_HOST6, WAN_GATEWAY, WAN_GATEWAY6, WAN_HOST,
    WAN_HOST6, curl,
};
use crate::servers::{Server, body, exchange, udp_client};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SSH_OPEN: &str = "-A INPUT -p tcp -m tcp --dport 2222 -j ACCEPT\n";

/// An ssh server on port 2222 with keys of its own, and what a client needs to get in.
struct Sshd {
    daemon: Daemon,
    key: String,
    hosts: String,
}

impl Sshd {
    fn start(namespace: &Namespace, files: &Files) -> Sshd {
        let folder = files.path("ssh");
        std::fs::create_dir(&folder).expect("a new folder");
        for name in ["host", "client"] {
            let key = folder.join(name);
            let mut make = Command::new("ssh-keygen");
            make.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(key);
            assert!(make.status().expect("ssh-keygen starts").success());
        }
        let public = std::fs::read_to_string(folder.join("host.pub")).expect("just made");
        let hosts = files.write("ssh/known_hosts", &format!("gateway {public}"));
        let path = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            "Port 2222\nHostKey {}\nPidFile {}\nAuthorizedKeysFile {}\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             UseDNS no\nPermitUserRC no\nPrintMotd no\n",
            path("host"),
            path("sshd.pid"),
            path("client.pub"),
        );
        files.write("ssh/sshd_config", &config);
        // Where the machine's own server keeps its files is hidden from this one, and root's
        // account, which may be locked, is open to it.
        files.write("ssh/shadow", "root:*:20000:0:99999:7:::\nsshd:!:20000::::::\n");
        let script = format!(
            "set -e\nmount -t tmpfs tmpfs /run\nmkdir -m 755 /run/sshd\n\
             mount --bind {} /etc/shadow\nexec {} -D -e -f {}\n",
            path("shadow"),
            full_path("sshd"),
            path("sshd_config"),
        );
        let script = files.write("ssh/start.sh", &script).display().to_string();
        let daemon = Daemon::start(namespace, files, "sshd", &format!("unshare -m sh {script}"));
        eventually("sshd listens", || daemon.log().contains("Server listening"));
        Sshd { daemon, key: path("client"), hosts: hosts.display().to_string() }
    }

    /// Runs a command on the box.
    fn run(&self, from: &Namespace, to: &str, command: &str, input: Stdio) -> Output {
        let mut ssh = from.command(&format!(
            "timeout --kill-after=2 60 ssh -F none -p 2222 -i {} -o UserKnownHostsFile={} \
             -o GlobalKnownHostsFile=none -o HostKeyAlias=gateway -o StrictHostKeyChecking=yes \
             -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=50 root@{to}",
            self.key, self.hosts
        ));
        ssh.arg(command).stdin(input).output().expect("ssh starts")
    }
}

/// sshd insists on being called by its whole path.
fn full_path(program: &str) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').map(|folder| Path::new(folder).join(program));
    places.find(|place| place.is_file()).expect("looked for before").display().to_string()
}

#[test]
fn ssh_reaches_the_box_from_both_sides() {
    let rig = HostRig::new(HostWish { input: SSH_OPEN, ..HostWish::default() });
    let sshd = Sshd::start(&rig.gw, rig.files());
    let here = rig.gw.run("readlink /proc/self/ns/net");
    for (from, to) in [
        (&rig.lan, LAN_GATEWAY),
        (&rig.lan, LAN_GATEWAY6),
        (&rig.wan, WAN_GATEWAY),
        (&rig.wan, WAN_GATEWAY6),
        // The address of the other side is the box's own too.
        (&rig.lan, WAN_GATEWAY),
    ] {
        let output = sshd.run(from, to, "echo $(readlink /proc/self/ns/net)", Stdio::null());
        assert_eq!(text(&output.stdout), here, "{to}: {}", text(&output.stderr));
        let (host, host6) = if from.name() == rig.lan.name() {
            (LAN_HOST, LAN_HOST6)
        } else {
            (WAN_HOST, WAN_HOST6)
        };
        let from = if to.contains(':') { host6 } else { host };
        let original = format!("src={from} dst={to} ");
        let reply = format!("src={to} dst={from} sport=2222 ");
        let conns = rig.conns(&["tcp", &original, "dport=2222", &reply, "[ASSURED]"]);
        assert_eq!(conns.len(), 1, "{}", rig.ask("conntrack -L"));
    }
    assert_eq!(rig.conns(&["tcp", "dport=2222"]).len(), 5);
    assert!(sshd.daemon.log().contains(&format!("from {LAN_HOST6} port")));
    drop(sshd);
    rig.finish();
}

#[test]
fn large_files_go_both_ways_over_ssh() {
    let rig = HostRig::new(HostWish { input: SSH_OPEN, ..HostWish::default() });
    let sshd = Sshd::start(&rig.gw, rig.files());
    let len = 20_000_000;
    let file = rig.files().path("large");
    std::fs::write(&file, body(len)).expect("the folder can be written");
    let name = file.display().to_string();
    let sum = Command::new("sha256sum").arg(&file).output().expect("sha256sum starts");
    let sum = text(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(sum.len(), 64);

    let down = sshd.run(&rig.wan, WAN_GATEWAY, &format!("cat {name}"), Stdio::null());
    assert!(down.stdout == body(len), "{} bytes: {}", down.stdout.len(), text(&down.stderr));
    let input = Stdio::from(File::open(&file).expect("just written"));
    let up = sshd.run(&rig.lan, LAN_GATEWAY6, "sha256sum", input);
    assert!(text(&up.stdout).starts_with(&sum), "{}{}", text(&up.stdout), text(&up.stderr));
    drop(sshd);
    rig.finish();
}

#[test]
fn only_what_input_accepts_reaches_the_box() {
    let input = "-A INPUT -p tcp -m tcp --dport 8081 -j ACCEPT\n\
                 -A INPUT -p tcp -m tcp --dport 8082 -j ACCEPT\n\
                 -A INPUT -p udp -m udp --dport 8082 -j ACCEPT\n";
    let rig = HostRig::new(HostWish { input, ..HostWish::default() });
    let _open = Server::http(&rig.gw, "[::]:8081");
    let _closed = Server::http(&rig.gw, "[::]:8080");
    for (from, to) in [
        (&rig.lan, LAN_GATEWAY.to_owned()),
        (&rig.lan, format!("[{LAN_GATEWAY6}]")),
        (&rig.wan, WAN_GATEWAY.to_owned()),
        (&rig.wan, format!("[{WAN_GATEWAY6}]")),
    ] {
        let answer = curl(from, &format!("http://{to}:8081/1000"));
        assert!(answer.stdout == body(1000), "{to}: {}", text(&answer.stderr));
        // Dropped by the policy, though somebody listens.
        let silence = curl(from, &format!("--connect-timeout 0.5 http://{to}:8080/1"));
        assert_eq!(silence.status.code(), Some(28), "{to}: {}", text(&silence.stderr));
        // Accepted, but nobody listens: the kernel's own refusals.
        let refusal = curl(from, &format!("http://{to}:8082/1"));
        assert_eq!(refusal.status.code(), Some(7), "{to}: {}", text(&refusal.stderr));
    }
    for (from, to) in [
        (format!("{LAN_HOST}:0"), format!("{LAN_GATEWAY}:8082")),
        (format!("[{LAN_HOST6}]:0"), format!("[{LAN_GATEWAY6}]:8082")),
    ] {
        let refused =
            exchange(&udp_client(&rig.lan, &from, &to), b"x").expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "{to}");
    }
    rig.finish();
}

#[test]
fn a_forwarded_port_may_lead_to_the_box() {
    let rules = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.77.0.1:80
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i wan -p tcp -m tcp --dport 80 -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";
    let rig = HostRig::new(HostWish { rules4: Some(rules.to_owned()), ..HostWish::default() });
    let _http = Server::http(&rig.gw, &format!("{LAN_GATEWAY}:80"));
    let answer = curl(&rig.wan, &format!("http://{WAN_GATEWAY}:8080/100000"));
    assert!(answer.stdout == body(100_000), "{}", text(&answer.stderr));
    let reply = format!("src={LAN_GATEWAY} dst={WAN_HOST} sport=80");
    assert_eq!(rig.conns(&[&format!("dst={WAN_GATEWAY}"), "dport=8080", &reply]).len(), 1);
    rig.finish();
}

#[test]
fn the_kernel_answers_pings_of_the_box() {
    let rig = HostRig::new(HostWish::default());
    let ping = |from: &Namespace, to: &str, more: &str| {
        text(&from.try_run(&format!("ping -c 2 -i 0.1 -W 3 {more} {to}")).stdout)
    };
    for (from, to) in [
        (&rig.lan, LAN_GATEWAY),
        (&rig.lan, LAN_GATEWAY6),
        (&rig.lan, WAN_GATEWAY),
        (&rig.wan, WAN_GATEWAY),
        (&rig.wan, WAN_GATEWAY6),
    ] {
        // One hop is enough, and the answer comes from no further away.
        let answer = ping(from, to, "-t 1");
        assert!(answer.contains(" 0% packet loss") && answer.contains("ttl=64"), "{answer}");
    }
    rig.gw.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=1 net.ipv6.icmp.echo_ignore_all=1");
    for to in [LAN_GATEWAY, LAN_GATEWAY6] {
        let silence = ping(&rig.lan, to, "");
        assert!(silence.contains("100% packet loss"), "{silence}");
    }
    rig.gw.run("sysctl -qw net.ipv4.icmp_echo_ignore_all=0 net.ipv6.icmp.echo_ignore_all=0");
    for to in [LAN_GATEWAY, LAN_GATEWAY6] {
        let answer = ping(&rig.lan, to, "");
        assert!(answer.contains(" 0% packet loss"), "{answer}");
    }
    rig.finish();
}

#[test]
fn programs_on_the_box_reach_both_sides() {
    let rig = HostRig::new(HostWish::default());
    let mut servers = Vec::new();
    for (host, address) in [(&rig.lan, LAN_HOST), (&rig.wan, WAN_HOST), (&rig.wan, BEHIND)] {
        servers.push(Server::http(host, &format!("{address}:80")));
        servers.push(Server::udp_echo(host, &format!("{address}:7")));
    }
    for (host, address) in [(&rig.lan, LAN_HOST6), (&rig.wan, WAN_HOST6)] {
        servers.push(Server::http(host, &format!("[{address}]:80")));
        servers.push(Server::udp_echo(host, &format!("[{address}]:7")));
    }
    for host in [LAN_HOST, WAN_HOST, BEHIND, "[fd77::2]", "[2001:db8:77::2]"] {
        let answer = curl(&rig.gw, &format!("http://{host}/100000"));
        assert!(answer.stdout == body(100_000), "{host}: {}", text(&answer.stderr));
    }
    let answer = rig.gw.run(&format!("ping -c 2 -i 0.1 -W 20 {BEHIND}"));
    assert!(answer.contains(" 0% packet loss") && answer.contains("ttl=64"), "{answer}");
    // The rule of translation leaves the box's own address and port as they are, and gives another
    // one of its addresses the one of the port.
    for (from, to, seen) in [
        ("0.0.0.0:4007", format!("{BEHIND}:7"), format!("{WAN_GATEWAY}:4007 ")),
        ("[::]:4007", format!("[{WAN_HOST6}]:7"), format!("[{WAN_GATEWAY6}]:4007 ")),
        ("0.0.0.0:4008", format!("{LAN_HOST}:7"), format!("{LAN_GATEWAY}:4008 ")),
        ("10.77.0.1:4009", format!("{BEHIND}:7"), format!("{WAN_GATEWAY}:4009 ")),
        ("[fd77::1]:4009", format!("[{WAN_HOST6}]:7"), format!("[{WAN_GATEWAY6}]:4009 ")),
    ] {
        let socket = udp_client(&rig.gw, from, &to);
        let answer = exchange(&socket, b"x").unwrap_or_else(|error| panic!("{from} {to}: {error}"));
        assert_eq!(text(&answer), seen + "x", "{from} {to}");
    }
    let translated = format!("src={BEHIND} dst={WAN_GATEWAY} sport=7 dport=4009");
    assert_eq!(rig.conns(&["udp", &format!("src={LAN_GATEWAY}"), &translated]).len(), 1);
    let len = 20_000_000;
    let large = curl(&rig.gw, &format!("http://{WAN_HOST}/{len}"));
    assert!(large.stdout == body(len), "{} bytes: {}", large.stdout.len(), text(&large.stderr));
    drop(servers);
    rig.finish();
}

#[test]
fn what_is_forwarded_does_not_pass_the_kernel() {
    let mut rig = HostRig::new(HostWish::default());
    let _http = Server::http(&rig.wan, &format!("{BEHIND}:80"));
    let url = format!("http://{BEHIND}/2000000");
    assert!(rig.curl(&url).stdout == body(2_000_000));
    let before = rig.passed("sgh-lan") + rig.passed("sgh-wan");
    assert!(rig.curl(&url).stdout == body(2_000_000));
    let passed = rig.passed("sgh-lan") + rig.passed("sgh-wan") - before;
    // The kernel as the gateway shows that the count counts.
    match rig.gateway().is_some() {
        true => assert!(passed < 20, "{passed}"),
        false => assert!(passed > 2000, "{passed}"),
    }
    rig.finish();
}
