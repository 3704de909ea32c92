//! Captures made in memory, through the whole of the replay.

use super::*;
use dataplane::rules::facts::PortId;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::headers::parse;
use dataplane::wire::tcp::flags::{ACK, SYN};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const START_NS: u64 = 1_700_000_000_000_000_000;
const MS: u64 = 1_000_000;

const CONFIG: &str = r#"
[[port]]
name = "lan"
device = "net_null0"
mac = "02:00:00:00:10:01"
addresses = ["10.1.0.1/24"]

[[port]]
name = "wan"
device = "net_null1"
addresses = ["203.0.113.1/24"]

[[neighbour]]
address = "10.1.0.11"
mac = "02:00:00:00:10:80"
port = "lan"

[[neighbour]]
address = "203.0.113.51"
mac = "02:00:00:00:11:80"
port = "wan"

[conntrack]
max = 4096

[rules]
ipv4 = "rules.v4"

[log]
level = "off"
"#;

const RULES: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -i lan -p udp -j LOG --log-prefix \"out: \"
-A FORWARD -i lan -j ACCEPT
COMMIT
";

/// A folder with a configuration, rules and captures; gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Relaxed);
        let name = format!("sluicegate-replay-{}-{number}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        folder.write("gateway.toml", CONFIG);
        folder.write("rules.v4", RULES);
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn capture(&self, frames: &[(u8, u64, Vec<u8>)]) {
        let file = File::create(self.path("in.pcapng")).unwrap();
        let mut writer = Writer::new(file, &["lan", "wan"]).unwrap();
        for (port, past_ns, bytes) in frames {
            writer.frame(PortId(*port), START_NS + past_ns, bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    /// What went to both output streams.
    fn try_replay(&self, explain: bool) -> Result<(String, String), ReplayError> {
        let (config, input, output) =
            (self.path("gateway.toml"), self.path("in.pcapng"), self.path("out.pcapng"));
        let (config, input, output) = (&*config, &*input, &*output);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let asked = Asked { config, input, output, explain, conntrack: !explain };
        asked.run(&mut out, &mut err)?;
        Ok((String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap()))
    }

    fn replay(&self, frames: &[(u8, u64, Vec<u8>)]) -> (Vec<Captured>, String, String) {
        self.capture(frames);
        let (out, err) = self.try_replay(false).unwrap();
        (self.sent(), out, err)
    }

    fn sent(&self) -> Vec<Captured> {
        let file = File::open(self.path("out.pcapng")).unwrap();
        let mut reader = Reader::new(file, &["lan", "wan"]).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn fails(&self) -> String {
        self.try_replay(false).unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

const WAN_MAC: Mac = Mac([2, 0x53, 0x47, 0, 0, 1]);

/// A question from the inside at a time.
fn question(past_ns: u64, port: u16) -> (u8, u64, Vec<u8>) {
    let packet = Packet::udp(SocketAddr::from(([10, 1, 0, 11], port)), at("203.0.113.51:53"))
        .macs(Mac([2, 0, 0, 0, 0x10, 0x80]), Mac([2, 0, 0, 0, 0x10, 1]));
    (0, past_ns, packet.payload(b"question").to_vec())
}

/// A datagram from the outside to the gateway's outer address.
fn answer(past_ns: u64, port: u16) -> (u8, u64, Vec<u8>) {
    let packet = Packet::udp(at("203.0.113.51:53"), SocketAddr::from(([203, 0, 113, 1], port)))
        .macs(Mac([2, 0, 0, 0, 0x11, 0x80]), WAN_MAC);
    (1, past_ns, packet.payload(b"answer").to_vec())
}

fn ends(frame: &Captured) -> (u8, String, String) {
    let h = parse(&frame.bytes, frame.bytes.len()).unwrap();
    assert!(h.l4_check_ok(&frame.bytes));
    let at = |ip, port| SocketAddr::new(ip, port).to_string();
    (frame.port.0, at(h.src.ip(), h.src_port), at(h.dst.ip(), h.dst_port))
}

fn ends_of(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

#[test]
fn a_question_is_masqueraded_and_its_answer_comes_back() {
    let folder = Folder::new();
    let (sent, out, err) = folder.replay(&[question(0, 4000), answer(5 * MS, 4000)]);
    let (outside, inside) = (
        ends_of("203.0.113.1:4000", "203.0.113.51:53"),
        ends_of("203.0.113.51:53", "10.1.0.11:4000"),
    );
    assert_eq!(sent.len(), 2);
    assert_eq!(ends(&sent[0]), (1, outside.0, outside.1));
    assert_eq!(ends(&sent[1]), (0, inside.0, inside.1));
    assert_eq!(sent.iter().map(|s| s.unix_ns).collect::<Vec<_>>(), [START_NS, START_NS + 5 * MS]);
    assert_eq!(&sent[0].bytes[..12], [2, 0, 0, 0, 0x11, 0x80, 2, 0x53, 0x47, 0, 0, 1]);
    assert_eq!(
        out,
        "udp      17 30 src=10.1.0.11 dst=203.0.113.51 sport=4000 dport=53 src=203.0.113.51 \
         dst=203.0.113.1 sport=53 dport=4000 mark=0 use=1\n"
    );
    assert!(err.ends_with(": 1 flow entries have been shown.\n"), "{err}");
}

#[test]
fn a_conn_expires_by_the_capture_s_clock() {
    let folder = Folder::new();
    let second = 1000 * MS;
    let (sent, out, _) = folder.replay(&[question(0, 4000), answer(31 * second, 4000)]);
    assert_eq!(sent.len(), 2);
    // Nothing waits for the late answer any more: the gateway says so.
    assert_eq!(parse(&sent[1].bytes, sent[1].bytes.len()).unwrap().icmp_type, 3);
    // What is left is the conn of the late answer itself.
    assert!(out.starts_with("udp      17 30 src=203.0.113.51 dst=203.0.113.1 "), "{out}");
    let (sent, _, _) = folder.replay(&[question(0, 4000), answer(29 * second, 4000)]);
    assert_eq!(ends(&sent[1]).0, 0);
}

#[test]
fn an_assured_conn_keeps_the_timeout_of_a_stream() {
    let folder = Folder::new();
    let second = 1000 * MS;
    let frames = [
        question(0, 4000),
        answer(MS, 4000),
        question(3 * second, 4000),
        answer(3 * second + MS, 4000),
        question(4 * second, 4000),
    ];
    let (_, out, _) = folder.replay(&frames);
    assert!(out.starts_with("udp      17 120 ") && out.contains("[ASSURED]"), "{out}");
}

#[test]
fn a_neighbour_is_asked_for_again_in_a_gap() {
    let folder = Folder::new();
    let mut to_stranger = question(0, 4000);
    let stranger = Packet::udp(at("10.1.0.11:4000"), at("203.0.113.77:53"))
        .macs(Mac([2, 0, 0, 0, 0x10, 0x80]), Mac([2, 0, 0, 0, 0x10, 1]));
    to_stranger.2 = stranger.to_vec();
    let (sent, _, _) = folder.replay(&[to_stranger, question(10_000 * MS, 4001)]);
    let asked: Vec<u64> = sent
        .iter()
        .filter(|s| s.port.0 == 1 && s.bytes[12..14] == [8, 6])
        .map(|s| (s.unix_ns - START_NS) / (100 * MS))
        .collect();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[0], 0);
    assert!(asked[2] <= 25, "{asked:?}");
    // The sender hears that nobody answered, from the address it was hidden behind.
    let unreachable = sent.iter().find(|s| s.port.0 == 0).unwrap();
    let h = parse(&unreachable.bytes, unreachable.bytes.len()).unwrap();
    assert_eq!((h.icmp_type, h.icmp_code), (3, 1));
    assert_eq!((h.src.to_string(), h.dst.to_string()), ends_of("203.0.113.1", "10.1.0.11"));
    assert!(h.l4_check_ok(&unreachable.bytes));
    let quote = dataplane::wire::quoted::parse(&unreachable.bytes[42..], false).unwrap();
    assert_eq!(
        (quote.src.to_string(), quote.dst.to_string()),
        ends_of("10.1.0.11", "203.0.113.77")
    );
}

#[test]
fn equal_captures_give_equal_outputs_and_beginnings_beginnings() {
    let folder = Folder::new();
    let mut frames = Vec::new();
    for i in 0..60u16 {
        let past_ns = u64::from(i) * 700 * MS;
        frames.push(question(past_ns, 4000 + i % 7));
        frames.push(answer(past_ns + MS, 4000 + i % 5));
        let syn = Packet::tcp(SocketAddr::from(([10, 1, 0, 11], 5000 + i)), at("203.0.113.51:80"))
            .macs(Mac([2, 0, 0, 0, 0x10, 0x80]), Mac([2, 0, 0, 0, 0x10, 1]));
        frames.push((0, past_ns + 2 * MS, syn.flags(if i % 3 == 0 { ACK } else { SYN }).to_vec()));
    }
    let bytes = |n: usize| {
        let (_, table, _) = folder.replay(&frames[..n]);
        (std::fs::read(folder.path("out.pcapng")).unwrap(), table)
    };
    let whole = bytes(frames.len());
    assert_eq!(whole, bytes(frames.len()));
    assert!(whole.1.lines().count() > 40, "{}", whole.1);
    for n in [0, 1, 50, 130] {
        let (part, _) = bytes(n);
        assert!(whole.0.starts_with(&part), "{n} frames");
        assert!(part.len() < whole.0.len());
    }
}

#[test]
fn time_does_not_run_backwards() {
    let folder = Folder::new();
    let (sent, _, _) = folder.replay(&[question(10 * MS, 4000), answer(0, 4000)]);
    assert_eq!(sent.iter().map(|s| s.unix_ns).collect::<Vec<_>>(), [START_NS + 10 * MS; 2]);
}

#[test]
fn each_frame_is_explained() {
    let folder = Folder::new();
    let intruder = Packet::tcp(at("203.0.113.51:9"), at("10.1.0.11:22"))
        .macs(Mac([2, 0, 0, 0, 0x11, 0x80]), WAN_MAC)
        .flags(SYN);
    let (late, dark) = (answer(1500 * MS, 4000), (1, 2000 * MS, intruder.to_vec()));
    folder.capture(&[question(0, 4000), late, dark, (0, 2000 * MS, vec![0; 9])]);
    let (out, _) = folder.try_replay(true).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert_eq!(
        lines[0],
        "1 0.000000 lan udp 10.1.0.11:4000 > 203.0.113.51:53: sent to wan: udp 203.0.113.1:4000 > \
         203.0.113.51:53; conn: udp 17 30 src=10.1.0.11 dst=203.0.113.51 sport=4000 dport=53 \
         [UNREPLIED] src=203.0.113.51 dst=203.0.113.1 sport=53 dport=4000 mark=0 use=1; rules: \
         filter/FORWARD/2, filter/FORWARD/3, nat/PREROUTING/policy ACCEPT, nat/POSTROUTING/1; \
         log: out: IN=lan OUT=wan MAC=02:00:00:00:10:01:02:00:00:00:10:80:08:00 SRC=10.1.0.11 \
         DST=203.0.113.51 LEN=36 TOS=0x00 PREC=0x00 TTL=63 ID=0 DF PROTO=UDP SPT=4000 DPT=53 LEN=16"
    );
    let second = "2 1.500000 wan udp 203.0.113.51:53 > 203.0.113.1:4000: sent to lan: udp \
                  203.0.113.51:53 > 10.1.0.11:4000; conn: udp 17 30 src=";
    assert!(lines[1].starts_with(second), "{}", lines[1]);
    assert!(lines[1].ends_with("; rules: filter/FORWARD/1"), "{}", lines[1]);
    assert_eq!(
        lines[2],
        "3 2.000000 wan tcp 203.0.113.51:9 > 10.1.0.11:22 SYN: dropped filter-drop; rules: \
         filter/FORWARD/policy DROP, nat/PREROUTING/policy ACCEPT"
    );
    assert_eq!(lines[3], "4 2.000000 lan 9 bytes, malformed (ShortFrame): dropped short-frame");
}

#[test]
fn what_cannot_be_replayed_is_said_in_one_line() {
    let folder = Folder::new();
    let name = |file: &str| folder.path(file).display().to_string();
    assert!(folder.fails().starts_with(&format!("{}: cannot be read: ", name("in.pcapng"))));
    folder.capture(&[question(0, 4000), question(1, 4001)]);
    let whole = std::fs::read(folder.path("in.pcapng")).unwrap();
    std::fs::write(folder.path("in.pcapng"), &whole[..whole.len() - 5]).unwrap();
    let text = format!("{}: ends within a block, after 1 whole frames", name("in.pcapng"));
    assert_eq!(folder.fails(), text);
    folder.write("in.pcapng", "no capture at all, but long enough to be one");
    assert!(folder.fails().contains("in.pcapng: is no sound pcapng file"), "{}", folder.fails());

    let file = File::create(folder.path("in.pcapng")).unwrap();
    Writer::new(file, &["lan", "dmz"]).unwrap().finish().unwrap();
    let text = format!("{}: interface \"dmz\": no port has this name", name("in.pcapng"));
    assert_eq!(folder.fails(), text);

    folder.write("rules.v4", "*filter\n-A FORWARD -j WARP\nCOMMIT\n");
    assert!(folder.fails().starts_with(&format!("{}:2:", name("rules.v4"))), "{}", folder.fails());
    folder.write("gateway.toml", "[[port]]\nname = 7\n");
    let place = format!("{}:2:8: ", name("gateway.toml"));
    assert!(folder.fails().starts_with(&place), "{}", folder.fails());
}

#[test]
fn an_output_that_cannot_be_written_is_named_and_the_input_is_never_overwritten() {
    let folder = Folder::new();
    folder.capture(&[question(0, 4000)]);
    let (config, input) = (folder.path("gateway.toml"), folder.path("in.pcapng"));
    let run = |output: &Path| {
        let (config, input) = (&*config, &*input);
        let asked = Asked { config, input, output, explain: false, conntrack: false };
        asked.run(&mut Vec::new(), &mut Vec::new()).unwrap_err().to_string()
    };
    let nowhere = folder.path("missing/out.pcapng");
    assert!(run(&nowhere).starts_with(&format!("{}: cannot be written: ", nowhere.display())));
    let before = std::fs::read(&input).unwrap();
    std::os::unix::fs::symlink(&input, folder.path("link")).unwrap();
    assert!(run(&folder.path("link")).ends_with(": is also the capture to read"));
    assert_eq!(std::fs::read(&input).unwrap(), before);
}

/// The wan port as a trunk: nothing on it but VLAN 10, with the addresses the port had.
fn trunk() -> String {
    let sub = "[[port]]\nname = \"wan.10\"\naddresses = [\"203.0.113.1/24\"]";
    CONFIG
        .replace("addresses = [\"203.0.113.1/24\"]", &format!("\n{sub}"))
        .replace("11:80\"\nport = \"wan\"", "11:80\"\nport = \"wan.10\"")
}

#[test]
fn a_sub_interface_s_frames_come_with_or_without_their_tag() {
    let wan_mac = Mac([0x02, 0x53, 0x47, 0, 0, 1]);
    let mac = |last| Mac([2, 0, 0, 0, last, 0x80]);
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let (client, server, ours) = ("10.1.0.11:4000", "203.0.113.51:53", "203.0.113.1:4000");
    let out = Packet::udp(at(client), at(server)).macs(mac(0x10), Mac([2, 0, 0, 0, 0x10, 1]));
    let back = Packet::udp(at(server), at(ours)).macs(mac(0x11), wan_mac);
    for eal in ["", "[eal]\nworker_cores = [1, 1]\n", "[eal]\nworker_cores = [1, 1, 1]\n"] {
        let folder = Folder::new();
        folder.write("gateway.toml", &(eal.to_owned() + &trunk()));
        folder.write("rules.v4", &RULES.replace("-o wan ", "-o wan.+ "));
        // Ports of the file: lan, wan, wan.10.
        let file = File::create(folder.path("in.pcapng")).unwrap();
        let mut writer = Writer::new(file, &["lan", "wan", "wan.10"]).unwrap();
        let frames = [(0, out.to_vec()), (1, back.tag(10).to_vec()), (2, back.to_vec())];
        for (n, (port, bytes)) in frames.iter().enumerate() {
            writer.frame(PortId(*port), START_NS + n as u64 * MS, bytes).unwrap();
        }
        writer.finish().unwrap();
        let (told, _) = folder.try_replay(true).unwrap();
        let file = File::open(folder.path("out.pcapng")).unwrap();
        let mut reader = Reader::new(file, &["lan", "wan", "wan.10"]).unwrap();
        let sent: Vec<Captured> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        let ports: Vec<u8> = sent.iter().map(|s| s.port.0).collect();
        assert_eq!(ports, [1, 0, 0], "{eal}{told}");
        let expected =
            Packet::udp(at(ours), at(server)).macs(wan_mac, mac(0x11)).ttl(63).tag(10).to_vec();
        assert_eq!(sent[0].bytes, expected, "{eal}");
        assert_eq!(sent[1].bytes, sent[2].bytes);
        assert_eq!(parse(&sent[1].bytes, sent[1].bytes.len()).unwrap().vlan, None);
        assert!(told.contains("log: ") && told.contains("IN=lan OUT=wan.10 "), "{told}");
    }
}

/// 22:13:20 UTC is when the capture begins.
const KEEPING: &str = "\
*raw
-A PREROUTING -m set --match-set bad src -j DROP
COMMIT
*mangle
-A PREROUTING -i lan -p udp -m udp --dport 101 -j SET --add-set seen src --timeout 5
-A PREROUTING -i lan -p udp -m udp --dport 102 -j TTL --ttl-set 9
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -p udp -m udp --dport 101 -j ACCEPT
-A FORWARD -p udp -m udp --dport 102 -m ttl --ttl-eq 8 -j ACCEPT
-A FORWARD -p udp -m udp --dport 103 -m set --match-set seen src -j ACCEPT
-A FORWARD -p udp -m udp --dport 104 -m limit --limit 1/sec --limit-burst 2 -j ACCEPT
-A FORWARD -p udp -m udp --dport 105 -m time --timestart 22:13:00 --timestop 22:14:00 -j ACCEPT
-A FORWARD -p udp -m udp --dport 106 -m connbytes --connbytes 0:2 --connbytes-dir original \
--connbytes-mode packets -j ACCEPT
-A FORWARD -p udp -m udp --dport 107 -m recent --name r --update --seconds 3 -j DROP
-A FORWARD -p udp -m udp --dport 107 -m recent --name r --set -j ACCEPT
-A FORWARD -p udp -m udp --dport 108 -m statistic --mode nth --every 2 --packet 0 -j ACCEPT
-A FORWARD -p udp -m udp --dport 109 -m quota --quota 80 -j ACCEPT
-A FORWARD -p udp -m udp --dport 110 -m hashlimit --hashlimit-upto 1/sec --hashlimit-burst 1 \
--hashlimit-mode srcport --hashlimit-name h -j ACCEPT
COMMIT
";

/// Source, when, ports, and whether it comes through.
const SCRIPT: [(u8, u64, (u16, u16), bool); 28] = [
    (66, 0, (1, 101), false),
    (11, 0, (1, 103), false),
    (11, 0, (2, 101), true),
    (11, 1, (3, 103), true),
    (11, 1, (4, 102), true),
    (11, 2, (5, 104), true),
    (11, 2, (6, 104), true),
    (11, 2, (7, 104), false),
    (11, 2, (8, 105), true),
    (11, 2, (9, 106), true),
    (11, 2, (9, 106), true),
    (11, 2, (9, 106), false),
    (11, 2, (10, 107), true),
    (11, 3, (11, 107), false),
    (11, 4, (12, 108), true),
    (11, 4, (13, 108), false),
    (11, 4, (14, 109), true),
    (11, 4, (15, 109), true),
    (11, 4, (16, 109), false),
    (11, 4, (17, 110), true),
    (11, 4, (17, 110), false),
    (11, 4, (18, 110), true),
    (66, 4000, (1, 101), true),
    (11, 4100, (19, 104), true),
    (11, 4200, (17, 110), true),
    (11, 6000, (20, 103), false),
    (11, 7000, (21, 107), true),
    (11, 60_000, (22, 105), false),
];

/// Sets of a file and every kind of match that keeps something, by the capture's clock.
#[test]
fn sets_and_rules_that_keep_something_go_by_the_capture() {
    let folder = Folder::new();
    let config = CONFIG.replace("[rules]\n", "[rules]\nsets = \"sets.ipset\"\n");
    folder.write("gateway.toml", &config);
    folder.write("rules.v4", KEEPING);
    folder.write("sets.ipset", "create bad hash:ip timeout 0\ncreate seen hash:ip timeout 60\nadd bad 10.1.0.66 timeout 3\n");
    let from = |host: u8, past_ms: u64, ports: (u16, u16)| {
        let client = SocketAddr::from(([10, 1, 0, host], ports.0));
        let packet = Packet::udp(client, SocketAddr::from(([203, 0, 113, 51], ports.1)));
        let macs = (Mac([2, 0, 0, 0, 0x10, 0x80]), Mac([2, 0, 0, 0, 0x10, 1]));
        (0, past_ms * MS, packet.macs(macs.0, macs.1).payload(b"question").to_vec())
    };
    let frames: Vec<_> = SCRIPT.iter().map(|&(h, ms, ports, _)| from(h, ms, ports)).collect();
    let (sent, ..) = folder.replay(&frames);
    let came: Vec<(u64, u16)> = sent
        .iter()
        .filter_map(|c| Some((c.unix_ns - START_NS, parse(&c.bytes, c.bytes.len()).ok()?.src_port)))
        .collect();
    let wanted: Vec<(u64, u16)> = SCRIPT
        .iter()
        .filter(|(.., passes)| *passes)
        .map(|&(_, ms, (port, _), _)| (ms * MS, port))
        .collect();
    assert_eq!(came, wanted);
    let (out, _) = folder.try_replay(true).unwrap();
    let lines: Vec<&str> = out.lines().filter(|line| !line.starts_with('-')).collect();
    assert_eq!(lines.len(), SCRIPT.len(), "{out}");
    assert!(
        lines[0].contains("dropped raw-drop") && lines[0].contains("raw/PREROUTING/1"),
        "{out}"
    );
    assert!(lines[3].contains("filter/FORWARD/3"), "{out}");
}

/// Conns of every protocol with ids are named beside their packets.
#[test]
fn conns_of_all_protocols_are_found() {
    let folder = Folder::new();
    let frame = |line: &str| {
        use clap::Parser;
        let line = format!("--in lan --src 10.1.0.11 --dst 203.0.113.51 {line}");
        let question = crate::explain::question::Question::try_parse_from(line.split_whitespace());
        (0, 0, question.unwrap().frame([2, 0, 0, 0, 0x10, 1], None).unwrap())
    };
    let frames = [
        frame("-p sctp --sport 4000 --dport 80"),
        frame("-p dccp --sport 4000 --dport 80"),
        frame("-p gre --gre-key 5"),
        frame("-p esp"),
        frame("-p icmp"),
    ];
    folder.capture(&frames);
    let (out, _) = folder.try_replay(true).unwrap();
    for (line, name) in out.lines().zip(["sctp", "dccp", "gre", "unknown", "icmp"]) {
        assert!(line.contains(&format!("; conn: {name} ")), "{line}");
    }
    assert_eq!(out.lines().count(), frames.len(), "{out}");
}
