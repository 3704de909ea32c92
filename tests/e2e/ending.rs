//! Starting and ending: under load, killed, twice at once, and on a CPU shared with the control
//! core.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::gateway::{Files, Gateway, eventually};
use crate::rig::{LAN_GATEWAY, LAN_HOST, RULES4, Rig, WAN_HOST, Wish};
use crate::servers::{Server, exchange, udp_client};

/// A gateway on devices that need nothing of the machine; no namespace.
fn on_null_devices(files: Files, eal: &str) -> Gateway {
    let ports = "\n[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
                 addresses = [\"10.0.0.1/24\"]\n\
                 \n[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n\
                 addresses = [\"10.0.1.1/24\"]\n\n[conntrack]\nhashsize = 4096\n";
    files.write("gateway.toml", &(files.head(eal) + ports));
    Gateway::start(files, None)
}

fn rx(gateway: &Gateway) -> u64 {
    gateway.files.stats()["totals"]["rx"].as_u64().expect("a number")
}

/// A capture of UDP packets from many hosts of the LAN to one beyond the gateway.
pub fn capture(packets: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65535, 1] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for n in 0..packets {
        let mut frame = vec![2, 0, 0, 0, 0x77, 1, 2, 0, 0, 0, 0x77, 2, 8, 0];
        let mut header = [0u8; 20];
        (header[0], header[3], header[8], header[9]) = (0x45, 46, 64, 17);
        header[12..16].copy_from_slice(&[10, 0, 0, 2]);
        header[16..20].copy_from_slice(&[10, 0, 1, 2]);
        let sum: u32 =
            header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend_from_slice(&header);
        frame.extend_from_slice(&(1024 + n as u16).to_be_bytes());
        frame.extend_from_slice(&[0, 53, 0, 26, 0, 0]);
        frame.resize(60, 0);
        for word in [0, 0, 60u32, 60] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(&frame);
    }
    file
}

#[test]
fn a_flood_of_empty_frames_does_not_delay_the_end() {
    let mut gateway = on_null_devices(Files::new(), "idle = \"poll\"");
    eventually("a flood", || rx(&gateway) > 100_000);
    let stats = gateway.files.stats();
    assert!(stats["totals"]["dropped"].as_u64().unwrap() > 0, "{}", stats["totals"]);
    gateway.stop_cleanly();
    assert_eq!(gateway.other_lines(), Vec::<String>::new());
}

/// A flood that never ends through `workers`, and everything that is asked meanwhile.
fn translated_flood(eal: &str, hands_over: bool) {
    let files = Files::new();
    fs::write(files.path("flood.pcap"), capture(1000)).unwrap();
    files.write("rules.v4", RULES4);
    let flood = files.path("flood.pcap").display().to_string();
    let config = files.head(eal)
        + &format!(
            "\n[[port]]\nname = \"lan\"\ndevice = \"net_pcap0,rx_pcap={flood},infinite_rx=1\"\n\
             mac = \"02:00:00:00:77:01\"\naddresses = [\"10.0.0.1/24\"]\n\
             \n[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\naddresses = [\"10.0.1.1/24\"]\n\
             \n[[neighbour]]\naddress = \"10.0.1.2\"\nmac = \"02:00:00:00:78:02\"\nport = \"wan\"\n\
             \n[conntrack]\nhashsize = 4096\n\n[rules]\nipv4 = \"rules.v4\"\n"
        );
    files.write("gateway.toml", &config);
    let mut gateway = Gateway::start(files, None);
    let sent = |gateway: &Gateway| {
        gateway.files.stats()["ports"]["wan"]["tx_packets"].as_u64().expect("a number")
    };
    eventually("a flood goes through", || sent(&gateway) > 100_000);
    let table = gateway.files.ask("conntrack -L -p udp");
    assert_eq!(table.lines().count(), 1000, "{}", table.lines().next().unwrap_or(""));
    assert!(table.lines().all(|line| line.contains("dst=10.0.1.1")), "translated");
    assert_eq!(gateway.reload(), "reloaded");
    gateway.files.ask("conntrack -F");
    let stats = gateway.files.stats();
    let lcores = stats["lcores"].as_array().unwrap();
    let handed: u64 = lcores.iter().map(|l| l["handed_over"].as_u64().unwrap()).sum();
    assert_eq!(handed > 0, hands_over, "{lcores:?}");
    gateway.stop_cleanly();
}

#[test]
fn a_flood_of_translated_packets_delays_neither_commands_nor_the_end() {
    translated_flood("idle = \"poll\"\nmemory_mb = 128\nmbufs = 16383", false);
}

#[test]
fn nor_does_a_flood_that_three_workers_hand_to_each_other() {
    translated_flood("worker_cores = [1, 0, 1]", true);
}

#[test]
fn a_gateway_ends_with_clients_connected_and_packets_held() {
    let mut rig = Rig::new(Wish::default());
    let mut listener = rig
        .files()
        .tool_command(&["conntrack", "-E"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    let _silent = std::os::unix::net::UnixStream::connect(rig.files().socket()).unwrap();
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), "198.51.100.99:7");
    socket.send(b"nobody has this address").unwrap();
    eventually("a packet is held", || rig.files().stats()["totals"]["held"] == 1);
    rig.gateway.stop_cleanly();
    let status = listener.wait().expect("the listener can be waited for");
    assert!(status.code().is_some(), "the listener ended by itself: {status}");
}

#[test]
fn sigint_ends_it_as_well() {
    let mut gateway = on_null_devices(Files::new(), "idle = \"poll\"");
    assert_eq!(gateway.end_by(Signal::SIGINT), Some(0));
    assert_eq!(gateway.files.leftovers(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn two_gateways_run_side_by_side() {
    let mut one = on_null_devices(Files::new(), "");
    let mut other = on_null_devices(Files::new(), "");
    eventually("both work", || rx(&one) > 1000 && rx(&other) > 1000);
    one.stop_cleanly();
    assert!(other.is_running());
    let before = rx(&other);
    eventually("the other one goes on", || rx(&other) > before);
    other.stop_cleanly();
}

#[test]
fn huge_pages_come_back() {
    // Only where the machine has some to spare; elsewhere "auto" means ordinary memory.
    let mut gateway = on_null_devices(Files::new(), "hugepages = \"auto\"\nmemory_mb = 128");
    assert!(rx(&gateway) < u64::MAX);
    gateway.stop_cleanly();
}

#[test]
fn what_a_killed_gateway_leaves_does_not_hinder_the_next() {
    let files = Files::new();
    let again = Files { folder: files.folder.clone(), prefix: files.prefix.clone() };
    let mut killed = on_null_devices(files, "hugepages = \"auto\"\nmemory_mb = 128");
    assert_eq!(killed.end_by(Signal::SIGKILL), None);
    assert!(killed.files.socket().exists(), "a socket is left");
    let mut next = on_null_devices(again, "hugepages = \"auto\"\nmemory_mb = 128");
    eventually("the next one works", || rx(&next) > 1000);
    next.stop_cleanly();
}

/// CPU time that a process has used.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // utime and stime, the 14th and 15th field of the line, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[test]
fn a_worker_on_the_control_cores_cpu_idles_and_wakes_up() {
    // Sleep is the default where CPUs are shared.
    let eal = "control_core = 1\nworker_cores = [1]\n# idle";
    let rig = Rig::new(Wish { eal, ..Wish::default() });
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    std::thread::sleep(Duration::from_millis(300));
    let (before, start) = (cpu_time(rig.gateway.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_time(rig.gateway.pid()) - before;
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(share < 0.2, "an idle gateway used {:.0} % of a CPU", share * 100.0);
    let answer = rig.lan.run(&format!("ping -c 20 -i 0.05 -W 20 {LAN_GATEWAY}"));
    assert!(answer.contains(" 0% packet loss"), "{answer}");
    let average = answer.lines().last().and_then(|line| line.split('/').nth(4));
    let average: f64 = average.and_then(|ms| ms.parse().ok()).expect("a time in ms");
    assert!(average < 100.0, "{answer}");
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
    for _ in 0..50 {
        exchange(&socket, b"through").expect("an echo");
    }
    rig.assert_balance();
}
