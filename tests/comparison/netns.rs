//! The bench of the kernel: a namespace for the gateway, one for everything outside it, two veth
//! pairs between them and a packet socket on each outer end.
//!
//! Both namespaces carry the number of this process in their names and go when [`Netns`] is
//! dropped, on a panic too; those of processes that were killed are removed by the next run.

use crate::nflog::NfLog;
use crate::topology::Side;
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{self, AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "sluicegate-compare";

/// Programs the bench starts.
const PROGRAMS: [&str; 7] =
    ["ip", "nsenter", "ethtool", "sysctl", "iptables-restore", "ip6tables-restore", "conntrack"];

/// `sll_pkttype` of a frame that this end itself sent.
const PACKET_OUTGOING: u8 = 4;

/// The two namespaces.
pub struct Netns {
    pub gateway: String,
    outside: String,
}

impl Netns {
    /// Makes both namespaces. Panics with a clear message where that cannot be done: a comparison
    /// that quietly did not happen would be worse than none.
    pub fn create() -> Netns {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "the kernel comparison makes network namespaces and has to run as root"
        );
        for program in PROGRAMS {
            assert!(in_path(program), "the kernel comparison needs the program `{program}`");
        }
        remove_orphans();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |end: &str| format!("{PREFIX}-{}-{number}-{end}", std::process::id());
        let netns = Netns { gateway: name("gw"), outside: name("out") };
        for name in [&netns.gateway, &netns.outside] {
            run(&["ip", "netns", "add", name], "");
        }
        netns.connect();
        netns
    }

    fn connect(&self) {
        let quiet = "net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1";
        self.inside(&self.outside, &format!("sysctl -qw {quiet}"), "");
        self.inside(&self.gateway, &format!("sysctl -qw {}", SYSCTLS.join(" ")), "");
        self.inside(&self.gateway, "ip link set lo up", "");
        for side in Side::BOTH {
            let (port, outer) = (side.port(), outer(side));
            let (gateway, outside) = (&self.gateway, &self.outside);
            let veth = format!(
                "ip link add {port} netns {gateway} address {} type veth peer name {outer} \
                 netns {outside} address {}",
                mac(side.gateway_mac()),
                mac(side.host_mac())
            );
            run(&words(&veth), "");
            for (name, end) in [(gateway, port), (outside, outer)] {
                let off = format!("ethtool -K {end} tx off rx off gso off tso off gro off");
                self.inside(name, &off, "");
                self.inside(name, &format!("ip link set {end} addrgenmode none up"), "");
            }
        }
        self.inside(&self.gateway, "ip -batch -", &addresses_and_neighbours());
    }

    /// Runs a program in the gateway's namespace and returns its standard output.
    pub fn gateway(&self, command: &str, input: &str) -> String {
        self.inside(&self.gateway, command, input)
    }

    /// The same for a program that may fail: its complaint.
    pub fn try_gateway(&self, command: &str, input: &str) -> Result<String, String> {
        self.try_inside(&self.gateway, command, input)
    }

    fn inside(&self, name: &str, command: &str, input: &str) -> String {
        self.try_inside(name, command, input).unwrap_or_else(|complaint| panic!("{complaint}"))
    }

    fn try_inside(&self, name: &str, command: &str, input: &str) -> Result<String, String> {
        let enter = format!("--net=/run/netns/{name}");
        let mut argv = vec!["nsenter", enter.as_str()];
        argv.extend(words(command));
        try_run(&argv, input)
    }

    /// What the gateway's kernel says of packets by `log_invalid` and by rules.
    pub fn log(&self) -> NfLog {
        let path = format!("/run/netns/{}", self.gateway);
        std::thread::spawn(move || NfLog::open(&path)).join().expect("the log opens")
    }

    /// A socket that sees and sends frames on the outer end of a side.
    pub fn socket(&self, side: Side) -> PacketSocket {
        let path = format!("/run/netns/{}", self.outside);
        // Only a thread of its own may change its namespace; the socket keeps the one it was
        // opened in.
        std::thread::spawn(move || PacketSocket::open(&path, outer(side)))
            .join()
            .expect("the packet socket opens")
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        for name in [&self.gateway, &self.outside] {
            remove(name);
        }
    }
}

/// Forwarding on, everything off that talks by itself or limits rates. The ICMP limit is lifted by
/// its mask: a rate of 0 would empty the bucket that route errors draw from. Every INVALID packet
/// gets a line, and no line leaves the namespace.
const SYSCTLS: [&str; 21] = [
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv4.conf.all.send_redirects=0",
    "net.ipv4.conf.default.send_redirects=0",
    "net.ipv4.icmp_ratemask=0",
    "net.ipv4.icmp_msgs_per_sec=100000",
    "net.ipv4.icmp_msgs_burst=100000",
    "net.ipv4.tcp_invalid_ratelimit=0",
    "net.ipv6.conf.all.forwarding=1",
    "net.ipv6.conf.default.forwarding=1",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv6.icmp.ratelimit=0",
    "net.ipv6.auto_flowlabels=0",
    "net.ipv4.conf.all.log_martians=0",
    "net.netfilter.nf_log.2=nfnetlink_log",
    "net.netfilter.nf_log.10=nfnetlink_log",
    "net.netfilter.nf_conntrack_log_invalid=255",
];

fn addresses_and_neighbours() -> String {
    let mut batch = String::new();
    for side in Side::BOTH {
        let port = side.port();
        for address in side.addresses() {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            batch.push_str(&format!("addr add {address} dev {port}{nodad}\n"));
        }
        for host in side.hosts() {
            let mac = mac(side.host_mac());
            batch.push_str(&format!("neigh add {host} lladdr {mac} dev {port} nud permanent\n"));
        }
    }
    batch
}

/// The outer end of a side's veth pair.
fn outer(side: Side) -> &'static str {
    match side {
        Side::Lan => "lan-out",
        Side::Wan => "wan-out",
    }
}

/// Colon notation.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn words(command: &str) -> Vec<&str> {
    command.split_whitespace().collect()
}

fn in_path(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').any(|folder| std::path::Path::new(folder).join(program).is_file())
}

/// Runs a program to its end; its failure is a failure of the test.
fn run(argv: &[&str], input: &str) -> String {
    try_run(argv, input).unwrap_or_else(|complaint| panic!("{complaint}"))
}

/// Runs a program to its end; returns what it printed, or what it complained of.
fn try_run(argv: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", argv[0]));
    // A program that does not read its input may be gone already.
    let _ = child.stdin.take().expect("stdin is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the child can be waited for");
    let complaint = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("`{}` failed: {complaint}\n{input}", argv.join(" ")));
    }
    Ok(String::from_utf8(output.stdout).expect("programs print UTF-8"))
}

fn remove(name: &str) {
    let status = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("namespace {name} could not be removed");
    }
}

fn remove_orphans() {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

/// An AF_PACKET socket on one interface.
pub struct PacketSocket {
    socket: OwnedFd,
    address: LinkAddr,
}

impl PacketSocket {
    fn open(namespace: &str, interface: &str) -> PacketSocket {
        let file = File::open(namespace).expect("the namespace exists");
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
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
            .find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()))
            .expect("the veth end has a link address");
        socket::bind(socket.as_raw_fd(), &address).expect("the socket binds to its interface");
        PacketSocket { socket, address }
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) {
        let sent = socket::sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty());
        assert_eq!(sent, Ok(frame.len()), "a frame of {} bytes is sent", frame.len());
    }

    /// The next frame that arrived, if one is there.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; 65536];
        loop {
            match socket::recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Ok((_, Some(from))) if from.pkttype() == PACKET_OUTGOING => {}
                Ok((length, _)) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(nix::errno::Errno::EAGAIN) => return None,
                Err(error) => panic!("receiving on a packet socket: {error}"),
            }
        }
    }

    /// Waits until one of the sockets has a frame; false after `milliseconds` without one.
    pub fn wait(sockets: &[PacketSocket], milliseconds: u8) -> bool {
        let mut polled: Vec<PollFd<'_>> = sockets
            .iter()
            .map(|socket| PollFd::new(socket.socket.as_fd(), PollFlags::POLLIN))
            .collect();
        poll(&mut polled, PollTimeout::from(milliseconds)).is_ok_and(|ready| ready > 0)
    }
}
