//! `sluicegate conntrack` and `proc` beside the kernel's conntrack and the real tool: hosts send
//! the same packets through both, then both are asked the same, line by line.
//!
//! Masked are what no two runs share: timers, ages, identifiers, and who asked. Lines are compared
//! in an order of their own, as neither side has one.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::{Files, eventually};
use crate::netns::{Namespace, demand_programs};
use crate::rig::{
    LAN, LAN_GATEWAY, LAN_GATEWAY6, LAN_HOST, LAN_HOST6, Rig, WAN, WAN_GATEWAY, WAN_GATEWAY6,
    WAN_HOST, WAN_HOST6, Wish, attach, veth,
};
use crate::servers::{Server, exchange, udp_client};

/// The kernel as the router between two hosts.
pub struct Kernel {
    lan: Namespace,
    wan: Namespace,
    pub router: Namespace,
    /// What precedes a command that reads a folder /etc of its own.
    etc: String,
    files: Files,
}

impl Kernel {
    /// With the rules and the names of labels that the gateway has.
    pub fn new(wish: &Wish) -> Kernel {
        demand_programs(&["conntrack", "iptables-restore", "ip6tables-restore"]);
        let (lan, wan) = (Namespace::new("klan"), Namespace::new("kwan"));
        let router = Namespace::new("kgw");
        let files = Files::new();
        for (end, host, port, addresses, mac) in [
            (&LAN, &lan, "lan", [LAN_GATEWAY, LAN_GATEWAY6], "02:00:00:00:77:01"),
            (&WAN, &wan, "wan", [WAN_GATEWAY, WAN_GATEWAY6], "02:00:00:00:78:01"),
        ] {
            veth(end, host, &router, port);
            router.run(&format!("ip link set {port} address {mac}"));
            for (address, bits) in addresses.iter().zip([24, 64]) {
                router.run(&format!("ip address add {address}/{bits} dev {port}"));
            }
            attach(end, host);
        }
        let forward = ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"];
        forward.iter().for_each(|key| drop(router.run(&format!("sysctl -qw net.{key}"))));
        let etc = wish.labels.map_or(String::new(), |names| labelled(&files, names));
        for (tool, text) in [("iptables-restore", wish.rules4), ("ip6tables-restore", wish.rules6)]
        {
            let path = files.write(tool, text);
            router.run(&format!("{etc}{tool} {}", path.display()));
        }
        Kernel { lan, wan, router, etc, files }
    }
}

/// What starts a program that finds these names of labels where the tools look for them, and
/// nobody else does.
fn labelled(files: &Files, names: &str) -> String {
    let etc = files.path("etc");
    fs::create_dir_all(etc.join("xtables")).expect("the folder can be written");
    // By way of /etc/alternatives iptables is found, and there are names of protocols.
    let mut copy = Command::new("cp");
    copy.args(["-a", "/etc/alternatives", "/etc/protocols", "/etc/services"]).arg(&etc);
    assert!(copy.status().expect("cp starts").success());
    fs::write(etc.join("xtables/connlabel.conf"), names).expect("the folder can be written");
    let text = format!("mount --bind {} /etc && exec \"$@\"\n", etc.display());
    format!("unshare -m sh {} ", files.write("with-labels", &text).display())
}

/// Who is asked.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    Kernel(&'a Kernel),
    Gateway(&'a Rig),
}

impl Side<'_> {
    pub fn hosts(&self) -> (&Namespace, &Namespace) {
        match self {
            Side::Kernel(kernel) => (&kernel.lan, &kernel.wan),
            Side::Gateway(rig) => (&rig.lan, &rig.wan),
        }
    }

    pub fn command(&self, line: &str) -> Command {
        match self {
            Side::Kernel(kernel) => kernel.router.command(&format!("{}{line}", kernel.etc)),
            Side::Gateway(rig) => rig.files().tool_command(&line.split(' ').collect::<Vec<_>>()),
        }
    }

    pub fn ask(&self, line: &str) -> Output {
        self.command(line).stdin(Stdio::null()).output().expect("the tool starts")
    }

    /// A folder for files about this side.
    pub fn files(&self) -> &Files {
        match self {
            Side::Kernel(kernel) => &kernel.files,
            Side::Gateway(rig) => rig.files(),
        }
    }

    /// A command with something on its standard input.
    pub fn feed(&self, line: &str, input: &str) -> Output {
        let path = self.files().write("input", input);
        let input = File::open(path).expect("the input was just written");
        self.command(line).stdin(input).output().expect("the tool starts")
    }

    /// Sends pings until hosts and gateway know each other's neighbours.
    pub fn find_neighbours(&self) {
        let (lan, wan) = self.hosts();
        for (host, address) in
            [(lan, WAN_HOST), (lan, WAN_HOST6), (wan, WAN_GATEWAY), (wan, WAN_GATEWAY6)]
        {
            eventually("the ways are known", || {
                host.try_run(&format!("ping -c1 -W1 {address}")).status.success()
            });
        }
    }

    /// The text of a file below /proc.
    pub fn proc(&self, file: &str) -> String {
        let line = match self {
            Side::Kernel(_) => format!("cat /proc/{file}"),
            Side::Gateway(_) => format!("proc {file}"),
        };
        String::from_utf8_lossy(&self.ask(&line).stdout).into_owned()
    }
}

/// Digits after each of these words say something else in each run.
const VARYING: &[&str] = &[
    " id=",
    "delta-time=",
    "-t ",
    "<id>",
    "<timeout>",
    "<deltatime>",
    "<start>",
    "<stop>",
    "<hour>",
    "<min>",
    "<sec>",
    "portid=",
];

/// A line without what no two runs share.
pub fn masked(line: &str) -> String {
    let mut line = line.replace(" progname=conntrack", "");
    for word in VARYING {
        let mut at = 0;
        while let Some(found) = line[at..].find(word) {
            let from = at + found + word.len();
            // Not the id of a ping, which both sides have chosen.
            if *word == " id=" && line[..at + found].ends_with("code=0") {
                at = from;
                continue;
            }
            let len = line[from..].bytes().take_while(u8::is_ascii_digit).count();
            line.replace_range(from..from + len, "N");
            at = from;
        }
    }
    for word in ["[start=", "[stop="] {
        if let Some(from) = line.find(word) {
            let to = line[from..].find(']').map_or(line.len(), |end| from + end);
            line.replace_range(from + word.len()..to, "N");
        }
    }
    if let Some((stamp, rest)) = line.clone().split_once("]\t") {
        assert!(stamp.starts_with('[') && stamp.contains('.'), "{line}");
        line = format!("[N]\t{rest}");
    }
    if line.starts_with('-') {
        return line;
    }
    // An expectation's timer is in front of its protocol.
    if let Some(at) = line.find(" proto=") {
        let from = line[..at].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |digit| digit + 1);
        line.replace_range(from..at, "N");
        return line;
    }
    // The timer follows the number of the protocol, which follows its name.
    let words: Vec<&str> = line.split(' ').collect();
    let names = ["tcp", "udp", "icmp", "icmpv6", "unknown", "gre", "udplite", "sctp", "dccp"];
    let Some(name) = words.iter().position(|word| names.contains(word)) else { return line };
    let mut numbers = (name + 1..words.len()).filter(|&at| !words[at].is_empty());
    let timer = numbers.nth(1).filter(|&at| words[at].bytes().all(|b| b.is_ascii_digit()));
    let mask = |(at, word)| if Some(at) == timer { "N" } else { word };
    words.into_iter().enumerate().map(mask).collect::<Vec<_>>().join(" ")
}

pub fn lines(text: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = String::from_utf8_lossy(text).lines().map(masked).collect();
    lines.sort();
    lines
}

/// Fails with the lines that only one side has.
pub fn same(ours: &[String], theirs: &[String], what: &str) {
    if ours == theirs {
        return;
    }
    let only = |a: &[String], b: &[String]| -> Vec<String> {
        a.iter().filter(|line| !b.contains(line)).cloned().collect()
    };
    let (here, there) = (only(ours, theirs), only(theirs, ours));
    panic!("{what}\nhere alone: {here:#?}\nthe kernel alone: {there:#?}");
}

/// The same command line has to have the same outcome on both sides.
pub fn compare(kernel: Side<'_>, gateway: Side<'_>, line: &str) {
    let [theirs, ours] = [kernel, gateway].map(|side| side.ask(&format!("conntrack {line}")));
    same(&lines(&ours.stdout), &lines(&theirs.stdout), &format!("conntrack {line}: output"));
    same(&lines(&ours.stderr), &lines(&theirs.stderr), &format!("conntrack {line}: errors"));
    assert_eq!(ours.status.code(), theirs.status.code(), "conntrack {line}: exit code");
}

/// What keeps the conns of [`send`] open.
pub struct Traffic {
    clients: Vec<Child>,
    _servers: Vec<Server>,
    _listeners: Vec<TcpListener>,
    _mute: UdpSocket,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for client in &mut self.clients {
            let _ = client.kill();
            let _ = client.wait();
        }
    }
}

/// A listener whose clients are never answered: their conns stay as they are.
fn silent(namespace: &Namespace, address: String) -> TcpListener {
    namespace.within(move || TcpListener::bind(address).expect("a free port"))
}

/// TCP, UDP and pings of both families, plain and translated, with the same ports each time.
pub fn send((lan, wan): (&Namespace, &Namespace)) -> Traffic {
    let listeners = vec![
        silent(wan, format!("{WAN_HOST}:80")),
        silent(wan, format!("[{WAN_HOST6}]:80")),
        silent(lan, format!("{LAN_HOST}:80")),
    ];
    let servers = vec![
        Server::udp_echo(wan, &format!("{WAN_HOST}:53")),
        Server::udp_echo(wan, &format!("[{WAN_HOST6}]:53")),
    ];
    let get = |host: &Namespace, port: u16, url: String| {
        let line = format!("curl -sS --max-time 60 -A x --local-port {port} {url}");
        let mut curl = host.command(&line);
        curl.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("curl starts")
    };
    let clients = vec![
        get(lan, 4001, format!("http://{WAN_HOST}/1")),
        get(lan, 4002, format!("http://[{WAN_HOST6}]/1")),
        get(wan, 4003, format!("http://{WAN_GATEWAY}:8080/1")),
    ];
    for (from, to) in [
        (format!("{LAN_HOST}:5001"), format!("{WAN_HOST}:53")),
        (format!("[{LAN_HOST6}]:5002"), format!("[{WAN_HOST6}]:53")),
    ] {
        exchange(&udp_client(lan, &from, &to), b"hello").expect("an answer");
    }
    let silence = format!("{WAN_HOST}:99");
    let mute = wan.within(move || UdpSocket::bind(silence).expect("a free port"));
    let unanswered = udp_client(lan, &format!("{LAN_HOST}:5003"), &format!("{WAN_HOST}:99"));
    unanswered.send(b"lost").expect("sent");
    // An error comes back to this one.
    let refused = udp_client(lan, &format!("{LAN_HOST}:5004"), &format!("{WAN_HOST}:98"));
    refused.send(b"refused").expect("sent");
    lan.run(&format!("ping -c1 -W9 -e 77 {WAN_HOST}"));
    lan.run(&format!("ping -6 -c1 -W9 -e 78 {WAN_HOST6}"));
    lan.run(&format!("ping -c1 -W9 -e 79 {LAN_GATEWAY}"));
    Traffic { clients, _servers: servers, _listeners: listeners, _mute: mute }
}

/// Both sides with accounting and time stamps, the neighbours known and the tables empty.
pub fn both() -> (Kernel, Rig) {
    both_with(Wish::default())
}

/// The same with other rules, and names of labels.
pub fn both_with(wish: Wish) -> (Kernel, Rig) {
    let (kernel, rig) = (Kernel::new(&wish), Rig::new(wish));
    for side in [Side::Kernel(&kernel), Side::Gateway(&rig)] {
        let keys = "net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_timestamp=1";
        side.ask(&format!("sysctl -w {keys}"));
        side.find_neighbours();
        assert!(side.ask("conntrack -F").status.success());
    }
    (kernel, rig)
}

/// What is asked about conns that packets have made.
const QUESTIONS: &[&str] = &[
    "-L",
    "-L -o extended",
    "-L -o id",
    "-L -o timestamp",
    "-L -o ktimestamp",
    "-L -o extended,id,ktimestamp",
    "-L -o xml",
    "-L -o xml,extended,id,ktimestamp",
    "-L -o save",
    "-L -f ipv4",
    "-L -f ipv6",
    "-L -f ipv6 -o extended",
    "-L -p tcp",
    "-L -p tcp --state ESTABLISHED",
    "-L -p tcp --dport 80",
    "-L -p udp --sport 5003",
    "-L -p icmp",
    "-L -p icmpv6",
    "-L -s 10.77.0.2",
    "-L -s 10.77.0.0/24 -p udp",
    "-L -d 198.51.100.2",
    "-L -q 198.51.100.1",
    "-L --src-nat",
    "-L --dst-nat",
    "-L --any-nat",
    "-L --src-nat 198.51.100.1",
    "-L --any-nat 10.77.0.2",
    "-L -g 10.77.0.2:80",
    "-L -u ASSURED",
    "-L -u UNREPLIED",
    "-L -u SEEN_REPLY,ASSURED",
    "-L -m 0",
    "-L -m 1",
    "-L -w 0",
    "-L expect",
    "-L dying",
    "-C",
    "-C expect",
    "-G -p tcp -s 10.77.0.2 -d 198.51.100.2 --sport 4001 --dport 80",
    "-G -p tcp -s 10.77.0.2 -d 198.51.100.2 --sport 4001 --dport 80 -o id,extended",
    "-G -p udp -s fd77::2 -d 2001:db8:77::2 --sport 5002 --dport 53 -o save",
    "-G -p udp -s 198.51.100.2 -d 198.51.100.1 --sport 53 --dport 5001",
    "-G -p icmp -s 10.77.0.2 -d 198.51.100.2 --icmp-type 8 --icmp-code 0 --icmp-id 77",
    "-G -p udp -s 10.77.0.2 -d 198.51.100.2 --sport 1 --dport 2",
];

#[test]
fn listings_are_the_kernel_s() {
    let (kernel, rig) = both();
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    let _traffic = [theirs, ours].map(|side| send(side.hosts()));
    for side in [theirs, ours] {
        for port in ["sport=4001", "sport=4002", "sport=4003"] {
            eventually("the requests have been acknowledged", || {
                let table = side.ask("conntrack -L -p tcp").stdout;
                let table = String::from_utf8_lossy(&table).into_owned();
                let line = table.lines().find(|line| line.contains(port)).unwrap_or_default();
                line.contains("packets=3 ") && line.contains("packets=2 ")
            });
        }
    }
    for line in QUESTIONS {
        compare(theirs, ours, line);
    }
    for side in [theirs, ours] {
        let text = side.proc("net/nf_conntrack");
        assert!(text.lines().count() >= 10, "{text}");
    }
    let [a, b] = [theirs, ours].map(|side| lines(side.proc("net/nf_conntrack").as_bytes()));
    same(&b, &a, "/proc/net/nf_conntrack");
    let head =
        |side: Side<'_>| side.proc("net/stat/nf_conntrack").lines().next().map(str::to_owned);
    assert_eq!(head(ours), head(theirs), "/proc/net/stat/nf_conntrack");
    let words = |side: Side<'_>| -> Vec<String> {
        let text = side.ask("conntrack -S").stdout;
        let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        line.split_whitespace().filter_map(|w| Some(w.split_once('=')?.0.to_owned())).collect()
    };
    assert_eq!(words(ours), words(theirs), "conntrack -S");
}

/// What a tool asks for, one after the other.
fn requests() -> Vec<String> {
    let tcp = "-s 192.0.2.1 -d 192.0.2.2 -p tcp --sport 10 --dport 20";
    let udp = "-s 192.0.2.1 -d 192.0.2.2 -p udp --dport 20";
    let mut all = vec![
        format!("-I {tcp} --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 500"),
        format!("-I {tcp} --state ESTABLISHED -t 500"),
        format!("-A {tcp} --state CLOSE -t 500"),
        format!("-I {udp} --sport 11 -t 50 -m 7"),
        format!("-I {udp} --sport 12 -t 50 -n 203.0.113.3"),
        format!("-I {udp} --sport 13 -t 50 -g 203.0.113.3:99"),
        format!("-I {udp} --sport 14 -t 50 -n 203.0.113.3:55 -g 203.0.113.4:66"),
        format!("-I {udp} --sport 15 -t 50 -r 203.0.113.5 -q 203.0.113.6"),
        format!(
            "-I {udp} --sport 15 -t 50 -r 203.0.113.5 -q 203.0.113.6 --reply-port-src 7 \
             --reply-port-dst 8"
        ),
        format!("-I {udp} --sport 16 -t 50 -u EXPECTED"),
        format!("-I {udp} --sport 17 -t 50 -u FIXED_TIMEOUT"),
        format!("-I {udp} --sport 18 -t 50 -w 3"),
        format!("-I {udp} --sport 18 -t 50 --orig-zone 5"),
        format!("-I {udp} --sport 18 -t 50 --orig-zone 5 --reply-zone 6"),
        format!("-I {udp} --sport 19 -t 50 -n 192.0.2.1"),
        "-I -s fd00::1 -d fd00::2 -p udp --sport 1 --dport 2 -t 50".into(),
        "-I -s fd00::1 -d fd00::2 -p icmpv6 --icmpv6-type 128 --icmpv6-code 0 --icmpv6-id 5 -t 50"
            .into(),
        "-I -s 192.0.2.1 -d 192.0.2.2 -p icmp --icmp-type 8 --icmp-code 0 --icmp-id 5 -t 50".into(),
        "-I -s 192.0.2.1 -d 192.0.2.2 -p icmp --icmp-type 5 --icmp-code 0 --icmp-id 5 -t 50".into(),
        "-I -s 192.0.2.1 -d 192.0.2.2 -p gre --srckey 5 --dstkey 6 -t 50".into(),
        "-I -s 192.0.2.1 -d 192.0.2.2 -p udplite --sport 5 --dport 6 -t 50".into(),
        "-I -s 192.0.2.1 -d 192.0.2.2 -p 50 -t 50".into(),
        "-I -s 192.0.2.1 -d 192.0.2.2 -p esp -t 50".into(),
        "-I -r 192.0.2.1 -q 192.0.2.9 -p udp --reply-port-src 4 --reply-port-dst 5 -t 50".into(),
    ];
    all.extend(later(tcp));
    all
}

/// What is asked about and done to those conns.
fn later(tcp: &str) -> Vec<String> {
    vec![
        "-L".into(),
        "-L -o extended".into(),
        "-L -o save".into(),
        "-L -o xml".into(),
        "-L -w 3".into(),
        "-L --orig-zone 5".into(),
        "-L -u FIXED_TIMEOUT".into(),
        format!("-G {tcp}"),
        // One conn each: of several the tool shows every second one.
        "-U -f ipv4 -d 192.0.2.2 -p tcp -m 10".into(),
        "-U -f ipv4 -p tcp --dport 20 -m 10".into(),
        "-U -f ipv4 -p tcp --dport 20 -m 0x30/0xf0".into(),
        "-U -f ipv4 -p tcp --dport 20 -t 900 --state CLOSE_WAIT".into(),
        "-U -f ipv4 -p tcp --dport 20 -u EXPECTED".into(),
        "-U -f ipv4 -p tcp --dport 20 -u FIXED_TIMEOUT -o extended".into(),
        "-U -f ipv4 -p tcp --dport 20 -t 5".into(),
        "-U -f ipv4 -p udp --sport 11 -u SEEN_REPLY,ASSURED -o save".into(),
        "-U -f ipv4 -p udp --sport 99 -m 1".into(),
        "-U -f ipv4 -p udp --sport 11 -g 203.0.113.77 -m 1".into(),
        "-U -f ipv6 -p udp -m 0x1234".into(),
        "-L".into(),
        "-L -m 58".into(),
        "-L -m 0x30/0xf0".into(),
        "-D -s 1.2.3.4".into(),
        "-D -p udp --sport 12".into(),
        "-D --dst-nat -o id".into(),
        "-D -w 3".into(),
        "-D -p icmp -o extended".into(),
        "-D -f ipv6 -o save".into(),
        "-D -p tcp -t 1".into(),
        "-L -z".into(),
        "-L -z -p tcp".into(),
        "-L".into(),
        "-F".into(),
        "-L".into(),
    ]
}

#[test]
fn conns_made_changed_and_deleted_are_the_kernel_s() {
    let (kernel, rig) = both();
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    for line in requests() {
        compare(theirs, ours, &line);
    }
    let [a, b] = [theirs, ours].map(|side| {
        let text = String::from_utf8_lossy(&side.ask("conntrack -S").stdout).into_owned();
        let counts = text.split(' ').filter_map(|word| word.strip_prefix("insert="));
        counts.map(|count| count.parse::<u64>().expect("a number")).sum::<u64>()
    });
    assert!(a == b && a > 10, "insert: {b}, the kernel's {a}");
}

#[test]
fn what_is_saved_is_loaded() {
    let (kernel, rig) = both();
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    let _traffic = send(theirs.hosts());
    let saved = theirs.ask("conntrack -L -o save").stdout;
    assert!(saved.len() > 500, "{}", String::from_utf8_lossy(&saved));
    let path = rig.files().write("saved", &String::from_utf8_lossy(&saved));
    for side in [theirs, ours] {
        side.ask("conntrack -F");
    }
    compare(theirs, ours, &format!("-R {}", path.display()));
    compare(theirs, ours, "-L");
    compare(theirs, ours, "-L -o save");
    same(&lines(&ours.ask("conntrack -L -o save").stdout), &lines(&saved), "what was saved");
}

#[test]
fn events_of_a_tool_are_the_kernel_s() {
    let (kernel, rig) = both();
    let sides = [Side::Kernel(&kernel), Side::Gateway(&rig)];
    let udp = "-s 192.0.2.1 -d 192.0.2.2 -p udp --dport 20";
    let told = sides.map(|side| {
        let mut listener = side
            .command("conntrack -E -o timestamp,id,ktimestamp")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool starts");
        std::thread::sleep(Duration::from_millis(700));
        for line in [
            &format!("-I {udp} --sport 11 -t 50 -m 7"),
            &format!("-I {udp} --sport 12 -t 50"),
            "-U -f ipv4 -p udp --sport 11 -m 8",
            "-U -f ipv4 -p udp --sport 12 -t 90",
            "-U -f ipv4 -p udp --sport 12 -u ASSURED",
            "-I -s 192.0.2.1 -d 192.0.2.2 -p tcp --sport 1 --dport 2 --state SYN_SENT -t 50",
            "-U -f ipv4 -p tcp --state ESTABLISHED",
            "-D -p udp",
            "-F",
        ] {
            side.ask(&format!("conntrack {line}"));
        }
        std::thread::sleep(Duration::from_millis(700));
        kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
        let output = listener.stdout.take().map(std::io::read_to_string);
        listener.wait().expect("the child can be waited for");
        lines(output.expect("stdout is piped").expect("text").as_bytes())
    });
    same(&told[1], &told[0], "conntrack -E");
    assert_eq!(told[0].len(), 10, "{:#?}", told[0]);
}

#[test]
fn events_of_packets_are_the_kernel_s() {
    let (kernel, rig) = both();
    let sides = [Side::Kernel(&kernel), Side::Gateway(&rig)];
    for options in ["-e NEW,UPDATES", "-o extended,timestamp,id", "-o xml", "-o save", "-p udp"] {
        let told = sides.map(|side| {
            let mut listener = side
                .command(&format!("conntrack -E {options}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the tool starts");
            std::thread::sleep(Duration::from_millis(700));
            let traffic = send(side.hosts());
            std::thread::sleep(Duration::from_millis(700));
            kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
            let output = listener.stdout.take().map(std::io::read_to_string);
            listener.wait().expect("the child can be waited for");
            drop(traffic);
            std::thread::sleep(Duration::from_millis(100));
            side.ask("conntrack -F");
            lines(output.expect("stdout is piped").expect("text").as_bytes())
        });
        assert!(told[0].len() > 3, "{options}: {:#?}", told[0]);
        same(&told[1], &told[0], &format!("conntrack -E {options}"));
    }
}
