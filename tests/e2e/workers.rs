//! Several workers: whoever a frame arrives at, it ends as with one, and nothing is lost between
//! them. Taps have a queue for each worker or a single one, packet sockets a single one.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ending::capture;
use crate::gateway::{Files, Gateway, eventually};
use crate::rig::{
    BEHIND, LAN_HOST, LAN_HOST6, RULES4, Rig, WAN_GATEWAY, WAN_GATEWAY6, WAN_HOST, WAN_HOST6,
    Wires, Wish, assert_balance,
};
use crate::servers::{Server, body, exchange, udp_client};

/// Bytes of one download.
const LEN: usize = 1_000_000;

/// What has to be handed over.
#[derive(PartialEq)]
enum Hands {
    /// Nothing.
    Nothing,
    /// Whatever the device's own choice of queues makes of it.
    Some,
    /// Something by each worker.
    All,
}

/// Starts a download into a file.
fn download(rig: &Rig, from_wan: bool, url: &str, name: &str) -> (Child, PathBuf) {
    let host = if from_wan { &rig.wan } else { &rig.lan };
    let path = rig.files().path(name);
    let line = format!("curl -sS --max-time 60 -o {} {url}", path.display());
    (host.command(&line).stdin(Stdio::null()).spawn().expect("curl starts"), path)
}

/// UDP clients of both families with the address by which the outside knows them.
fn clients(rig: &Rig) -> Vec<(UdpSocket, String)> {
    let pair = |_| {
        let four = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{BEHIND}:7"));
        let six = udp_client(&rig.lan, &format!("[{LAN_HOST6}]:0"), &format!("[{WAN_HOST6}]:7"));
        [(four, WAN_GATEWAY.to_owned()), (six, format!("[{WAN_GATEWAY6}]"))]
    };
    (0..12).flat_map(pair).collect()
}

/// Every client gets its echo, and is seen outside with its own port.
fn echoes(clients: &[(UdpSocket, String)], len: usize) {
    for (socket, gateway) in clients {
        let payload = body(len);
        let port = socket.local_addr().expect("it is bound").port();
        // A kernel short of time may lose a datagram before the gateway sees it.
        let answer = exchange(socket, &payload).or_else(|_| exchange(socket, &payload));
        let seen = format!("{gateway}:{port} ");
        assert_eq!(answer.expect("an echo"), [seen.as_bytes(), &payload].concat(), "{len}");
    }
}

/// Counts the events until the listener is interrupted.
fn listen(rig: &Rig) -> (Child, JoinHandle<usize>) {
    let mut listener = rig.files().tool_command(&["conntrack", "-E"]);
    let listener = listener.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut listener = listener.spawn().expect("the binary starts");
    let events = BufReader::new(listener.stdout.take().expect("stdout is piped"));
    let events = std::thread::spawn(move || events.lines().map_while(Result::ok).count());
    (listener, events)
}

/// Transfers both ways in both families, at the same time, while conns are listed, deleted and
/// watched and the policy is replaced; then a flush, the balance and a clean end.
fn everything_at_once(wish: Wish, hands: &Hands) {
    let mut rig = Rig::new(wish);
    let _servers = [
        Server::http(&rig.wan, &format!("{WAN_HOST}:80")),
        Server::http(&rig.wan, &format!("[{WAN_HOST6}]:80")),
        Server::http(&rig.lan, &format!("{LAN_HOST}:80")),
        Server::udp_echo(&rig.wan, &format!("{BEHIND}:7")),
        Server::udp_echo(&rig.wan, &format!("[{WAN_HOST6}]:7")),
    ];
    let (mut listener, events) = listen(&rig);
    let mut downloads = Vec::new();
    for (from_wan, url) in [
        (false, format!("http://{WAN_HOST}/{LEN}/slow")),
        (false, format!("http://[{WAN_HOST6}]/{LEN}/slow")),
        (true, format!("http://{WAN_GATEWAY}:8080/{LEN}/slow")),
    ] {
        for _ in 0..3 {
            let name = format!("download-{}", downloads.len());
            downloads.push(download(&rig, from_wan, &url, &name));
        }
    }
    let clients = clients(&rig);
    for round in 0..4 {
        echoes(&clients, 100 + 20 * round);
        assert_eq!(rig.gateway.reload(), "reloaded");
        let listed = rig.files().ask("conntrack -L -p udp");
        let echoing = listed.lines().filter(|l| l.contains("dport=7 ")).count();
        assert_eq!(echoing, clients.len(), "each conn once\n{listed}");
        // Two conns end; their clients go on with new ones.
        for (socket, _) in &clients[2 * round..2 * round + 2] {
            let port = socket.local_addr().expect("it is bound").port();
            rig.files().ask(&format!("conntrack -D -p udp --sport {port}"));
        }
    }
    for (mut curl, path) in downloads {
        assert!(curl.wait().expect("curl can be waited for").success(), "{}", path.display());
        let got = fs::read(&path).expect("curl wrote it");
        assert!(got == body(LEN), "{}: {} other bytes", path.display(), got.len());
    }
    rig.wait_for_conn(&["tcp", "dport=80", "[ASSURED]"]);
    rig.files().ask("conntrack -F");
    echoes(&clients, 999);
    kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
    listener.wait().expect("the listener ends");
    assert!(events.join().expect("the reader does not panic") > 60, "many conns came and went");

    rig.assert_balance();
    assert_eq!(rig.dropped("handoff"), 0);
    let handed = rig.handed_over();
    match hands {
        Hands::Nothing => assert!(handed.iter().all(|n| *n == 0), "{handed:?}"),
        Hands::Some => {}
        Hands::All => assert!(handed.iter().all(|n| *n > 100), "{handed:?}"),
    }
    // A clean end also means that every packet buffer came back.
    rig.gateway.stop_cleanly();
}

#[test]
fn two_workers_with_a_queue_each() {
    let wish = Wish { eal: "worker_cores = [0, 1]", ..Wish::default() };
    everything_at_once(wish, &Hands::Some);
}

#[test]
fn three_workers_on_two_cpus_with_a_queue_each() {
    let wish = Wish { eal: "worker_cores = [1, 0, 1]\nmemory_mb = 256", ..Wish::default() };
    everything_at_once(wish, &Hands::Some);
}

#[test]
fn three_workers_on_single_queues_hand_over_what_is_not_theirs() {
    let eal = "worker_cores = [0, 1, 1]";
    everything_at_once(Wish { eal, queues: Some(1), ..Wish::default() }, &Hands::All);
}

#[test]
fn two_workers_on_packet_sockets_hand_over_both_ways() {
    let eal = "worker_cores = [0, 1]";
    everything_at_once(Wish { wires: Wires::AfPacket, eal, ..Wish::default() }, &Hands::All);
}

#[test]
fn one_worker_polls_two_queues() {
    everything_at_once(Wish { queues: Some(2), ..Wish::default() }, &Hands::Nothing);
}

/// Two ports of captures: what comes in, by receive queue, and where what goes out is written.
fn captures(files: &Files, eal: &str, lan: &str) -> String {
    let out = files.path("wan-out.pcap").display().to_string();
    let (empty, lan_out) = (files.path("empty.pcap"), files.path("lan-out.pcap"));
    fs::write(&empty, capture(0)).expect("the folder can be written");
    files.write("rules.v4", RULES4);
    files.head(eal)
        + &format!(
            "\n[[port]]\nname = \"lan\"\n\
             device = \"net_pcap0,{lan},tx_pcap={}\"\n\
             mac = \"02:00:00:00:77:01\"\naddresses = [\"10.0.0.1/24\"]\n\
             \n[[port]]\nname = \"wan\"\ndevice = \"net_pcap1,rx_pcap={},tx_pcap={out}\"\n\
             addresses = [\"10.0.1.1/24\"]\n\
             \n[[neighbour]]\naddress = \"10.0.1.2\"\nmac = \"02:00:00:00:78:02\"\nport = \"wan\"\n\
             \n[conntrack]\nhashsize = 4096\n\n[rules]\nipv4 = \"rules.v4\"\n",
            lan_out.display(),
            empty.display(),
        )
}

fn total(gateway: &Gateway, name: &str) -> u64 {
    gateway.files.stats()["totals"][name].as_u64().expect("a number of frames")
}

#[test]
fn two_receive_queues_and_one_transmit_queue_serve_three_workers() {
    let files = Files::new();
    let [first, second] = [("a.pcap", 300), ("b.pcap", 600)].map(|(name, packets)| {
        fs::write(files.path(name), capture(packets)).expect("the folder can be written");
        files.path(name)
    });
    let lan = format!("rx_pcap={},rx_pcap={}", first.display(), second.display());
    files.write("gateway.toml", &captures(&files, "worker_cores = [0, 1, 1]", &lan));
    let mut gateway = Gateway::start(files, None);
    eventually("all is received", || total(&gateway, "rx") == 900);
    eventually("all is sent", || total(&gateway, "tx") == 900);
    assert_balance(&gateway.files);
    // Packets of one conn arrived at two workers.
    assert_eq!(gateway.files.ask("conntrack -C"), "600\n");
    let stats = gateway.files.stats();
    let handed = |n: usize| stats["lcores"][n]["handed_over"].as_u64().expect("a number");
    assert!((0..3).map(handed).sum::<u64>() > 300, "{}", stats["lcores"]);
    gateway.stop_cleanly();
    let written = fs::metadata(gateway.files.path("wan-out.pcap")).expect("it was written").len();
    assert_eq!(written, 24 + 900 * (16 + 60), "every packet left once");
}

/// Frames of a capture with bytes changed, cut or put in, the same every time.
fn spoiled(mut file: Vec<u8>) -> Vec<u8> {
    const HEAD: usize = 24;
    const EACH: usize = 16 + 60;
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % below
    };
    for at in (HEAD..file.len()).step_by(EACH) {
        for _ in 0..draw(6) {
            // Mostly headers, also the MAC addresses.
            file[at + 16 + draw(50)] = draw(256) as u8;
        }
        if draw(8) == 0 {
            // The record says that the frame was shorter; the reader cuts by the captured length.
            file[at + 12..at + 16].copy_from_slice(&(draw(60) as u32).to_le_bytes());
        }
    }
    file
}

#[test]
fn a_flood_of_bad_frames_through_three_workers_adds_up() {
    let files = Files::new();
    let bad = files.path("bad.pcap");
    fs::write(&bad, spoiled(capture(30_000))).expect("the folder can be written");
    let lan = format!("rx_pcap={}", bad.display());
    files.write("gateway.toml", &captures(&files, "worker_cores = [0, 1, 1]", &lan));
    let mut gateway = Gateway::start(files, None);
    eventually("all is received", || total(&gateway, "rx") == 30_000);
    assert_balance(&gateway.files);
    let stats = gateway.files.stats();
    let kinds = stats["drops"].as_object().unwrap().values().filter(|n| n.as_u64() != Some(0));
    assert!(kinds.count() >= 6, "{}", stats["drops"]);
    assert!(stats["totals"]["tx"].as_u64().unwrap() > 1000, "{}", stats["totals"]);
    assert!(!gateway.files.ask("conntrack -L").is_empty());
    gateway.stop_cleanly();
}

#[test]
fn queues_that_a_device_has_not_got_are_named() {
    for (device, words) in [
        ("net_pcap0,rx_pcap=PCAP", ["port lan", "1 to 1 receive queues", "not 3"]),
        ("net_tap0,iface=sg-e2e-many", ["port lan", "1 to 16 receive queues", "not 17"]),
    ] {
        let files = Files::new();
        let empty = files.path("empty.pcap");
        fs::write(&empty, capture(0)).expect("the folder can be written");
        let device = device.replace("PCAP", &empty.display().to_string());
        let asked = words[2].trim_start_matches("not ");
        let config = files.head("worker_cores = [0, 1, 1]")
            + &format!(
                "[[port]]\nname = \"lan\"\ndevice = \"{device}\"\n\
                 addresses = [\"10.0.0.1/24\"]\nrx_queues = {asked}\n"
            );
        files.write("gateway.toml", &config);
        crate::bad_input::refused(&device, &files, &words);
    }
}

#[test]
fn four_workers_start_with_the_default_memory() {
    let files = Files::new();
    let ports = "\n[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
                 addresses = [\"10.0.0.1/24\"]\n\
                 \n[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n\
                 addresses = [\"10.0.1.1/24\"]\n\n[conntrack]\nhashsize = 4096\n";
    // A line that begins with `#` asks for the product's own default.
    let eal = "worker_cores = [0, 1, 0, 1]\n# memory_mb";
    files.write("gateway.toml", &(files.head(eal) + ports));
    let mut gateway = Gateway::start(files, None);
    let polls = |n: usize| gateway.files.stats()["lcores"][n]["rx"].as_u64().unwrap_or(0);
    eventually("all four work", || (0..4).all(|n| polls(n) > 0));
    gateway.stop_cleanly();
}
