//! A bench for what changes while packets run: the kernel's router and a gateway with the same
//! rules, and a packet socket at each host, by which one script of frames goes through both.
//!
//! Hosts let nothing in, so no kernel answers what a script sends. Behind each frame an ARP
//! question is asked by the same wire: once it is answered, what was sent before has been worked
//! off.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType};
use nix::unistd::Pid;

use crate::conntrack_tool::{Kernel, Side, lines, masked};
use crate::gateway::eventually;
use crate::netns::Namespace;
use crate::nflog::NfLog;
use crate::packets::{Packet, icmp};
use crate::rig::{End, LAN, LAN_HOST, Rig, WAN, WAN_HOST, Wish};

/// Timers of two runs may lie that far apart, in seconds.
const TOLERANCE: u64 = 2;

/// Everything passes, conntrack is on.
pub const OPEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
";

/// A host's packet socket.
struct Wire {
    socket: OwnedFd,
    address: LinkAddr,
    /// The gateway's and the host's.
    macs: [[u8; 6]; 2],
    /// The host's and the gateway's.
    addresses: [[u8; 4]; 2],
    /// But for answers to ARP.
    received: Vec<Vec<u8>>,
}

impl Wire {
    fn open(host: &Namespace, interface: &'static str, macs: [[u8; 6]; 2]) -> Wire {
        let (socket, address) = host.within(move || {
            let socket = socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
            .expect("root may open a packet socket");
            let address = getifaddrs()
                .expect("interfaces can be listed")
                .filter(|entry| entry.interface_name == interface)
                .find_map(|entry| entry.address.and_then(|a| a.as_link_addr().copied()))
                .expect("the interface has a link address");
            socket::bind(socket.as_raw_fd(), &address).expect("the socket binds");
            (socket, address)
        });
        let addresses = match interface {
            "lan-host" => [[10, 77, 0, 2], [10, 77, 0, 1]],
            _ => [[198, 51, 100, 2], [198, 51, 100, 1]],
        };
        Wire { socket, address, macs, addresses, received: Vec::new() }
    }

    fn send(&self, frame: &[u8]) {
        let sent = socket::sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "a frame of {} bytes is sent", frame.len());
    }

    fn framed(&self, packet: &[u8]) -> Vec<u8> {
        let kind: [u8; 2] = if packet[0] >> 4 == 6 { [0x86, 0xdd] } else { [8, 0] };
        [&self.macs[0][..], &self.macs[1], &kind, packet].concat()
    }

    /// Asks for the gateway's address and waits for the answer; other frames are kept.
    fn fence(&mut self) {
        let [host, gateway] = self.addresses;
        let mut question =
            [&[0xff; 6][..], &self.macs[1], &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
        question.extend([&self.macs[1][..], &host, &[0; 6], &gateway].concat());
        question.resize(60, 0);
        self.send(&question);
        let start = Instant::now();
        while !self.take() {
            assert!(start.elapsed() < Duration::from_secs(60), "no ARP answer");
            let polled = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN);
            poll(&mut [polled], PollTimeout::from(50u8)).expect("the socket can be polled");
        }
    }

    /// Takes in what is there; true if there is an answer to ARP.
    fn take(&mut self) -> bool {
        const OUTGOING: u8 = 4;
        let mut buffer = vec![0; 65536];
        let mut answered = false;
        while let Ok((len, Some(from))) =
            socket::recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer)
        {
            if from.pkttype() == OUTGOING {
                continue;
            }
            match buffer.get(12..14) {
                Some([8, 6]) => answered |= buffer[21] == 2,
                _ => self.received.push(buffer[..len].to_vec()),
            }
        }
        answered
    }
}

/// One thing that was seen on a side, to be held against the other's.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A timer, in seconds.
    Secs(String, Option<u64>),
    Text(String),
}

/// One side with its wires and what a script has seen there.
pub struct Bench<'a> {
    pub side: Side<'a>,
    lan: Wire,
    wan: Wire,
    pub seen: Vec<Seen>,
    /// The kernel's log of INVALID packets.
    log: Option<NfLog>,
    /// What the gateway's had said when it was last looked at.
    heard: usize,
}

impl Bench<'_> {
    /// A packet of the LAN host.
    pub fn lan(&mut self, packet: &Packet) {
        self.bytes(true, &packet.bytes());
    }

    /// A packet of the WAN host.
    pub fn wan(&mut self, packet: &Packet) {
        self.bytes(false, &packet.bytes());
    }

    /// A packet as bytes from one of the hosts; how many of its source come out on the other side.
    pub fn bytes(&mut self, from_lan: bool, packet: &[u8]) -> usize {
        let (from, to) = match from_lan {
            true => (&mut self.lan, &mut self.wan),
            false => (&mut self.wan, &mut self.lan),
        };
        from.send(&from.framed(packet));
        from.fence();
        to.fence();
        let source = match packet[0] >> 4 {
            6 => &packet[8..24],
            _ => &packet[12..16],
        };
        let arrived = std::mem::take(&mut to.received);
        let ours = arrived.iter().filter(|frame| frame.windows(source.len()).any(|w| w == source));
        ours.count()
    }

    /// A command that has to succeed; its output.
    pub fn run(&self, line: &str) -> String {
        let output = self.side.ask(line);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {complaint}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets `net.netfilter.nf_conntrack_KEY`, or a key given whole.
    pub fn set(&self, key: &str, value: u64) {
        let whole = key.contains('.');
        let name = if whole { key.to_owned() } else { format!("net.netfilter.nf_conntrack_{key}") };
        self.run(&format!("sysctl -qw {name}={value}"));
    }

    pub fn flush(&self) {
        self.run("conntrack -F");
    }

    /// Lets no table but the given rules be there.
    pub fn rules(&self, text: &str) {
        for tool in ["iptables-restore", "ip6tables-restore"] {
            let output = self.side.feed(tool, text);
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{tool}: {complaint}");
        }
    }

    /// The timer of the first conn there is.
    pub fn secs(&self) -> Option<u64> {
        self.run("conntrack -L").split_whitespace().nth(2).and_then(|secs| secs.parse().ok())
    }

    /// Notes the timer of the one conn there is.
    pub fn timer(&mut self, what: &str) -> Option<u64> {
        let secs = self.secs();
        self.seen.push(Seen::Secs(what.to_owned(), secs));
        secs
    }

    /// Notes something.
    pub fn note(&mut self, what: &str, text: impl std::fmt::Display) {
        self.seen.push(Seen::Text(format!("{what}: {text}")));
    }

    /// Notes what `conntrack -E` tells of what a script does.
    pub fn events(&mut self, what: &str, options: &str, script: impl FnOnce(&mut Bench<'_>)) {
        self.flush();
        let listener = Listener::start(self, options);
        let told = listener.hear(self, script);
        self.note(what, told);
    }

    /// The same of conns that were there before anybody listened.
    pub fn later_events(&mut self, what: &str, script: impl FnOnce(&mut Bench<'_>)) {
        let listener = Listener::start(self, "");
        let told = listener.hear(self, script);
        self.note(what, told);
    }

    /// Protocols of the sentences that `log_invalid` has said since it was last asked. A packet of
    /// ICMP that is INVALID at any rate comes last, so that nothing is still on its way.
    pub fn said(&mut self) -> String {
        const LAST: &str = "nf_ct_proto_1:";
        self.set("log_invalid", 1);
        let (from, to) = (LAN_HOST.parse().expect("v4"), WAN_HOST.parse().expect("v4"));
        self.lan(&icmp(from, to, 200, 0, [0; 4]));
        let mut said = Vec::new();
        eventually("the last sentence is said", || {
            said.extend(self.sentences());
            said.iter().any(|sentence| sentence == LAST)
        });
        said.retain(|sentence| sentence != LAST);
        said.join(" ")
    }

    /// The first word of each new sentence.
    fn sentences(&mut self) -> Vec<String> {
        let text = match &self.log {
            Some(log) => log.lines().join("\n"),
            None => {
                let text = self.side.files().stderr();
                let heard = std::mem::replace(&mut self.heard, text.len());
                text[heard..].to_owned()
            }
        };
        let words = text.split_whitespace().filter(|word| word.starts_with("nf_ct_proto_"));
        words.map(str::to_owned).collect()
    }

    /// Notes the table, without what no two runs share.
    pub fn table(&mut self, what: &str, options: &str) {
        let text = self.run(&format!("conntrack -L{options}"));
        let lines = lines(text.as_bytes());
        self.note(what, lines.join("\n    "));
    }
}

/// `conntrack -E` on a side, from its start to its end; its words go to a file.
pub struct Listener {
    child: Child,
    path: PathBuf,
}

/// Who no packet comes from: conns of a tool mark beginning and end by their ports.
const MARKED: &str = "src=192.0.2.1 ";
const BEGINNING: u16 = 8;
const END: u16 = 9;

impl Listener {
    /// Returns once it hears.
    fn start(bench: &Bench<'_>, options: &str) -> Listener {
        let path = bench.side.files().write("events", "");
        let mut command = bench.side.command(&format!("conntrack -E{options}"));
        command.stdout(File::create(&path).expect("the file can be written")).stderr(Stdio::null());
        let child = command.stdin(Stdio::null()).spawn().expect("the tool starts");
        let listener = Listener { child, path };
        eventually("it listens", || {
            listener.mark(bench, BEGINNING);
            listener.text().contains(MARKED)
        });
        listener
    }

    /// Makes a conn and ends it, which is told at any rate.
    fn mark(&self, bench: &Bench<'_>, port: u16) {
        let conn = format!("-s 192.0.2.1 -d 192.0.2.2 -p udp --sport {port} --dport 9");
        let key = "net.netfilter.nf_conntrack_events";
        let now = bench.run(&format!("sysctl -n {key}"));
        bench.set(key, 1);
        bench.run(&format!("conntrack -I {conn} -t 50"));
        bench.run(&format!("conntrack -D {conn}"));
        bench.set(key, now.trim().parse().expect("a number"));
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.path).expect("the file is there")
    }

    /// What is told of a script, in order, without the marks and what no two runs share.
    fn hear(mut self, bench: &mut Bench<'_>, script: impl FnOnce(&mut Bench<'_>)) -> String {
        script(bench);
        self.mark(bench, END);
        let last = format!("{MARKED}dst=192.0.2.2 sport={END} ");
        eventually("all has been told", || self.text().matches(&last).count() == 2);
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGINT).expect("it still listens");
        self.child.wait().expect("the child can be waited for");
        let text = self.text();
        let told = text.lines().filter(|line| !line.contains(MARKED)).map(masked);
        told.collect::<Vec<_>>().join("\n    ")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It has ended, but where the test fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps hosts' kernels from answering.
fn mute(host: &Namespace) {
    host.run("iptables -A INPUT -j DROP");
    host.run("ip6tables -A INPUT ! -p ipv6-icmp -j DROP");
    host.run("ip6tables -A INPUT -p ipv6-icmp -m icmp6 --icmpv6-type echo-request -j DROP");
}

/// Runs a script on the kernel and on a gateway, All that was seen has to be the same; what
/// the kernel saw is returned.
pub fn on_both(wish: Wish, mut script: impl FnMut(&mut Bench<'_>)) -> Vec<Seen> {
    let (kernel, rig) = (Kernel::new(&wish), Rig::new(wish));
    let [theirs, ours] = [Side::Kernel(&kernel), Side::Gateway(&rig)].map(|side| {
        let (lan, wan) = side.hosts();
        side.find_neighbours();
        mute(lan);
        mute(wan);
        let mac = |third, last| [2, 0, 0, 0, third, last];
        let open = |host, end: &End, third| {
            Wire::open(host, end.interface, [mac(third, 1), mac(third, 2)])
        };
        let (lan, wan) = (open(lan, &LAN, 0x77), open(wan, &WAN, 0x78));
        let log = match side {
            Side::Kernel(kernel) => {
                let (name, loggers) = (kernel.router.name().to_owned(), "net.netfilter.nf_log");
                for family in [2, 10] {
                    kernel.router.run(&format!("sysctl -qw {loggers}.{family}=nfnetlink_log"));
                }
                Some(kernel.router.within(move || NfLog::open(&format!("/run/netns/{name}"))))
            }
            Side::Gateway(_) => None,
        };
        let mut bench = Bench { side, lan, wan, seen: Vec::new(), log, heard: 0 };
        bench.rules(OPEN);
        bench.flush();
        script(&mut bench);
        bench.seen
    });
    let mut differences = Vec::new();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let same = match (ours, theirs) {
            (Seen::Secs(a, x), Seen::Secs(b, y)) => {
                let near = match (x, y) {
                    (Some(x), Some(y)) => x.abs_diff(*y) <= TOLERANCE,
                    (x, y) => x == y,
                };
                a == b && near
            }
            (Seen::Text(a), Seen::Text(b)) => a == b,
            _ => false,
        };
        if !same {
            differences.push(format!("here: {ours:?}\nthe kernel: {theirs:?}"));
        }
    }
    assert_eq!(ours.len(), theirs.len(), "as much was seen");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    if std::env::var_os("E2E_PRINT").is_some() {
        theirs.iter().for_each(|seen| println!("{seen:?}"));
    }
    theirs
}
