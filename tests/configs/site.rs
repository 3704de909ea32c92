//! A gateway made from a configuration, and packets in words.
//!
//! A packet that leaves is told as `PORT PROTOCOL SOURCE > DESTINATION`, with TCP's flags, a type
//! and code of ICMP and what an ICMP error quotes, and behind that whatever is not as usual: a TOS,
//! the size that a SYN offers.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dataplane::rules::facts::PortId;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::headers::{self, Headers, protocol};
use dataplane::wire::tcp::flags;

use sluicegate::config::Config;
use sluicegate::gateway::{Served, load_rules};
use sluicegate::replay::Bench;

const START_NS: u64 = 1_700_000_000_000_000_000;
/// Between two packets.
const STEP_NS: u64 = 1_000_000;
/// Letters of TCP's flags, from the lowest bit up.
const FLAGS: [(u8, char); 6] = [
    (flags::FIN, 'F'),
    (flags::SYN, 'S'),
    (flags::RST, 'R'),
    (flags::PSH, 'P'),
    (flags::ACK, 'A'),
    (flags::URG, 'U'),
];

/// The folder of all configurations.
pub fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs")
}

/// A copy of all files; gone when dropped.
pub struct Folder {
    path: PathBuf,
    name: &'static str,
}

impl Folder {
    /// With `more` behind `NAME.toml`, and each of the `neighbours`, address and port.
    pub fn new(name: &'static str, neighbours: &[(&str, &str)], more: &str) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let path = format!("sluicegate-configs-{}-{number}", std::process::id());
        let folder = Folder { path: std::env::temp_dir().join(path), name };
        fs::create_dir_all(&folder.path).unwrap();
        for file in fs::read_dir(configs()).unwrap().map(|file| file.unwrap()) {
            fs::copy(file.path(), folder.path.join(file.file_name())).unwrap();
        }
        folder.edit(&format!("{name}.toml"), |mut text| {
            let _ = writeln!(text, "\n{more}");
            for (number, (address, port)) in neighbours.iter().enumerate() {
                let _ = writeln!(
                    text,
                    "[[neighbour]]\naddress = \"{address}\"\n\
                     mac = \"02:00:00:00:99:{number:02x}\"\nport = \"{port}\"\n"
                );
            }
            text
        });
        folder
    }

    /// The configuration.
    pub fn config(&self) -> PathBuf {
        self.path.join(self.name).with_extension("toml")
    }

    /// The text of a file.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap()
    }

    /// Changes a file.
    pub fn edit(&self, file: &str, edit: impl FnOnce(String) -> String) {
        fs::write(self.path.join(file), edit(self.read(file))).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A gateway with its files.
pub struct Site {
    bench: Bench,
    ns: u64,
    folder: Folder,
}

impl Site {
    /// The gateway of `configs/NAME.toml`, with `more` behind the file. Each of the `neighbours`,
    /// address and port, is known to the gateway.
    pub fn new(name: &'static str, neighbours: &[(&str, &str)], more: &str) -> Site {
        let folder = Folder::new(name, neighbours, more);
        let config = Config::load(&folder.config()).unwrap_or_else(|error| panic!("{error}"));
        let rulesets = load_rules(&config).unwrap_or_else(|error| panic!("{error}"));
        let bench = Bench::new(config, rulesets, true).unwrap();
        Site { bench, ns: START_NS, folder }
    }

    /// Lets so many seconds pass, in which nothing comes.
    pub fn wait(&mut self, secs: u64) {
        self.ns += secs * 1_000_000_000;
    }

    /// Lets a packet come in by a port; what leaves meanwhile, in words.
    pub fn send(&mut self, port: &str, packet: Packet<'_>) -> Vec<String> {
        self.ns += STEP_NS;
        let ports = &self.bench.core().config().ports;
        let number = ports.iter().position(|known| known.name == port);
        let number = number.unwrap_or_else(|| panic!("no port {port}"));
        // A sub-interface has the parent's address, which is in the file.
        let device = ports[number].vlan.map_or(number, |vlan| vlan.parent);
        let mac = Mac(ports[device].mac.expect("the file says it"));
        let bytes = packet.macs(Mac([2, 0, 0, 0, 0x77, 1]), mac).to_vec();
        assert!(!bytes.is_empty(), "a packet that can be written");
        let sent = self.bench.frame(PortId(number as u8), self.ns, bytes);
        self.bench.check_balance().unwrap();
        sent.into_iter().map(|(port, _, bytes)| self.words(port, bytes)).collect()
    }

    /// What a command prints.
    pub fn run(&mut self, line: &str) -> String {
        let argv: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        match self.bench.core().serve(&argv, "") {
            Served::Done(answer) => answer.out + &answer.err,
            Served::Events(_) => panic!("no events were asked for"),
        }
    }

    /// Frames that have gone to the box itself.
    pub fn host_frames(&mut self) -> u64 {
        self.bench.core().counters().map(|counters| counters.to_host.get()).sum()
    }

    /// The lines of LOG rules since the last time.
    pub fn logged(&mut self) -> Vec<String> {
        self.bench.core().take_log_lines()
    }

    /// Changes a file of the gateway's and has it read again.
    pub fn reload(&mut self, file: &str, edit: impl FnOnce(String) -> String) {
        self.folder.edit(file, edit);
        let config = self.folder.config();
        self.bench.core().reload(&config).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A packet that has left.
    fn words(&mut self, device: PortId, bytes: Vec<u8>) -> String {
        let Ok(read) = headers::parse(&bytes, bytes.len()) else {
            return format!("{device:?} no IP: {bytes:02x?}");
        };
        let ports = &self.bench.core().config().ports;
        let behind = |port: &&sluicegate::config::Port| {
            let vlan = port.vlan.map(|vlan| (vlan.parent, vlan.id));
            vlan == read.vlan.map(|id| (usize::from(device.0), id))
        };
        let port = match read.vlan {
            None => &ports[usize::from(device.0)],
            Some(_) => ports.iter().find(behind).expect("a VLAN of the file"),
        };
        let mut text = format!("{} {}", port.name, told(&read, &bytes));
        if read.tos != 0 {
            let _ = write!(text, " tos {:#04x}", read.tos);
        }
        let options = bytes.get(usize::from(read.l4) + 20..).unwrap_or(&[]);
        if let (true, Some([2, 4, a, b])) =
            (read.tcp_flags & flags::SYN != 0, options.first_chunk::<4>())
        {
            let _ = write!(text, " mss {}", u16::from_be_bytes([*a, *b]));
        }
        assert!(known(read.proto) || read.l4_check_ok(&bytes), "wrong checksum: {text}");
        text
    }
}

/// Protocols without a checksum.
fn known(proto: u8) -> bool {
    !matches!(proto, protocol::TCP | protocol::UDP | protocol::ICMP | protocol::ICMPV6)
}

/// Protocol, ends and what comes with the protocol.
fn told(read: &Headers, bytes: &[u8]) -> String {
    let (src, dst) = (read.src.ip(), read.dst.ip());
    let ends = |port: u16, to: u16| {
        format!("{} > {}", SocketAddr::new(src, port), SocketAddr::new(dst, to))
    };
    match read.proto {
        protocol::TCP => {
            let set = FLAGS.iter().filter(|(bit, _)| read.tcp_flags & bit != 0);
            let letters: String = set.map(|(_, letter)| letter).collect();
            format!("tcp {} {letters}", ends(read.src_port, read.dst_port))
        }
        protocol::UDP => format!("udp {}", ends(read.src_port, read.dst_port)),
        protocol::ICMP | protocol::ICMPV6 => {
            let (kind, code) = (read.icmp_type, read.icmp_code);
            let mut text = format!("icmp {src} > {dst} {kind}/{code}");
            let error = if src.is_ipv4() { matches!(kind, 3 | 11) } else { kind < 128 };
            let quote = bytes.get(usize::from(read.l4) + 8..read.end as usize);
            if let Some(quote) = quote.filter(|_| error)
                && let Ok(read) = headers::parse_ip(quote, quote.len())
            {
                let _ = write!(text, " of {}", told(&read, quote));
            }
            text
        }
        proto => format!("{proto} {src} > {dst}"),
    }
}

fn ends(src: &str, dst: &str) -> (SocketAddr, SocketAddr) {
    let end = |text: &str| text.parse().unwrap_or_else(|_| panic!("no address and port: {text}"));
    (end(src), end(dst))
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("no address: {text}"))
}

/// A TCP segment.
pub fn tcp<'a>(src: &str, dst: &str, flags: u8) -> Packet<'a> {
    let (src, dst) = ends(src, dst);
    Packet::tcp(src, dst).flags(flags).seq(1000)
}

/// The SYN of a new conn, which offers segments of 1460 bytes.
pub fn syn<'a>(src: &str, dst: &str) -> Packet<'a> {
    tcp(src, dst, flags::SYN).options(&[2, 4, 5, 0xb4])
}

/// The answer to one, likewise.
pub fn syn_ack<'a>(src: &str, dst: &str) -> Packet<'a> {
    let answer = tcp(src, dst, flags::SYN | flags::ACK).seq(5000).ack(1001);
    answer.options(&[2, 4, 5, 0xb4])
}

/// What the client says then.
pub fn ack<'a>(src: &str, dst: &str) -> Packet<'a> {
    tcp(src, dst, flags::ACK).seq(1001).ack(5001)
}

/// A UDP datagram.
pub fn udp<'a>(src: &str, dst: &str) -> Packet<'a> {
    let (src, dst) = ends(src, dst);
    Packet::udp(src, dst)
}

/// A ping.
pub fn ping<'a>(src: &str, dst: &str) -> Packet<'a> {
    let kind = if ip(src).is_ipv4() { 8 } else { 128 };
    Packet::icmp(ip(src), ip(dst), kind, 0, 7 << 16 | 1)
}

/// The IP packet of a frame, for an ICMP error to quote.
pub fn quote(packet: Packet<'_>) -> Vec<u8> {
    packet.to_vec().split_off(14)
}
