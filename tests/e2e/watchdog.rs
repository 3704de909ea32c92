//! A thread that stands still is named, nobody waits for it, and it goes on where it was. One
//! thread of the gateway is stopped as a debugger does it: the others run on.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::gateway::{Gateway, eventually};
use crate::rig::{LAN_HOST, Rig, WAN_GATEWAY, WAN_HOST, Wish};
use crate::servers::{Server, body, exchange, udp_client};

/// A thread of a gateway that stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    /// Only the thread that stopped another may let it go on, so this stays where it was made.
    fn new(thread: Pid) -> Stopped {
        ptrace::seize(thread, ptrace::Options::empty()).expect("root may trace its child");
        let stopped = Stopped(thread);
        ptrace::interrupt(thread).expect("a seized thread can be interrupted");
        let status = waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
        assert!(matches!(status, WaitStatus::PtraceEvent(..)), "{status:?}");
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

impl Stopped {
    /// Waits for the end of a process that ends with its thread stopped: the kernel keeps a thread
    /// that is traced until its tracer has heard of its end.
    fn until_the_end(self) {
        while let Ok(status) = waitpid(self.0, Some(WaitPidFlag::__WALL)) {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                return;
            }
        }
    }
}

/// The thread of a worker, by the name that EAL gives it.
fn worker(gateway: &Gateway, lcore: u32) -> Pid {
    let folder = format!("/proc/{}/task", gateway.pid());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).expect("the gateway runs").flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.trim_end().ends_with(&format!("worker-{lcore}")) {
            let number = entry.file_name().to_string_lossy().parse().expect("a thread's number");
            return Pid::from_raw(number);
        }
        names.push(name);
    }
    panic!("no worker among the threads {names:?}");
}

/// The one line of the log that holds all of `words`.
fn line(gateway: &Gateway, words: &[&str]) -> Option<String> {
    let log = gateway.files.stderr();
    let lines: Vec<&str> = log.lines().filter(|l| words.iter().all(|w| l.contains(w))).collect();
    assert!(lines.len() <= 1, "said once: {lines:?}");
    lines.first().map(|line| (*line).to_owned())
}

fn wait_for_line(gateway: &Gateway, words: &[&str]) -> String {
    let mut found = String::new();
    eventually(&format!("a log line with {words:?}"), || {
        found = line(gateway, words).unwrap_or_default();
        !found.is_empty()
    });
    found
}

/// Whatever is between `before` and ` s`, as seconds.
fn seconds(line: &str, before: &str) -> f64 {
    let rest = line.split(before).nth(1).unwrap_or_else(|| panic!("no `{before}` in {line}"));
    rest.split(" s").next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

fn stalls(facts: &Value) -> (u64, bool, u64) {
    let number = |name: &str| facts[name].as_u64().unwrap_or_else(|| panic!("{name} in {facts}"));
    (number("stalls"), facts["stalled"].as_bool().expect("true or false"), number("stalled_ms"))
}

#[test]
fn a_worker_that_stands_still_is_named_and_goes_on() {
    let mut rig = Rig::new(Wish::default());
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let socket = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
    exchange(&socket, b"before").expect("an echo");

    let start = Instant::now();
    let stopped = Stopped::new(worker(&rig.gateway, 1));
    let said = wait_for_line(&rig.gateway, &["worker lcore 1 (CPU 1) has not polled for "]);
    assert!(said.ends_with(": its thread has been stopped"), "{said}");
    assert!((1.0..3.0).contains(&seconds(&said, "polled for ")), "{said}");
    // The control core goes on, and tells.
    let stats = rig.files().stats();
    let (count, now, ms) = stalls(&stats["lcores"][0]);
    assert!(count == 1 && now && ms >= 1000, "{}", stats["lcores"]);
    assert!(rig.files().ask("stats").contains("lcore 1 (CPU 1) stalled once, "));
    drop(stopped);
    let stood_still = start.elapsed().as_secs_f64();
    let said = wait_for_line(&rig.gateway, &["worker lcore 1 (CPU 1) polls again after "]);
    assert!((seconds(&said, "again after ") - stood_still).abs() < 1.0, "{said} {stood_still}");
    assert!(rig.files().ask("conntrack -L").contains("dport=7"));
    exchange(&socket, b"after").expect("an echo");
    let (count, now, ms) = stalls(&rig.files().stats()["lcores"][0]);
    assert!(count == 1 && !now && ms >= 1000, "{count} {now} {ms}");
    rig.assert_balance();
    assert_eq!(rig.gateway.stop(), Some(0));
}

/// Clients of an echo server, those whose conns both workers own among them.
fn clients(rig: &Rig, count: usize) -> Vec<UdpSocket> {
    let to = format!("{WAN_HOST}:7");
    let client = |_| udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &to);
    let clients: Vec<UdpSocket> = (0..count).map(client).collect();
    for socket in &clients {
        exchange(socket, b"before").expect("an echo");
        // Once more, by the queues that the kernel has chosen for the conn by now.
        exchange(socket, b"before").expect("an echo");
    }
    clients
}

/// The count of the one MASQUERADE rule: one for each conn.
fn masqueraded(rig: &Rig) -> usize {
    let saved = rig.files().ask("iptables-save -c -t nat");
    let line = saved.lines().find(|line| line.contains("MASQUERADE")).expect("the rule");
    let number = line.trim_start_matches('[').split(':').next().and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("{line}"))
}

#[test]
fn one_of_two_workers_stands_still_and_the_other_goes_on_alone() {
    let mut rig = Rig::new(Wish { eal: "worker_cores = [1, 0]", ..Wish::default() });
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let clients = clients(&rig, 32);
    assert_eq!(masqueraded(&rig), 32);

    let silent = "worker lcore 2 (CPU 0) does not answer";
    let stopped = Stopped::new(worker(&rig.gateway, 2));
    // Asked in the first second, when the watchdog has not found out: nobody gets part of a table.
    let failed = |output: Output, said: &str| {
        let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
        assert_eq!((output.status.code(), String::from_utf8_lossy(&out).as_ref()), (Some(1), ""));
        assert!(err.contains(said) && err.contains(silent) && err.lines().count() == 1, "{err}");
    };
    let tool = |line: &str| rig.files().tool(&line.split(' ').collect::<Vec<_>>());
    failed(tool("conntrack -L"), "conntrack v1.4.7 (conntrack-tools): Operation failed: ");
    failed(tool("conntrack -D -p udp"), "Operation failed: ");
    failed(tool("proc net/nf_conntrack"), "proc: net/nf_conntrack: ");
    failed(tool("iptables-save -c"), "iptables-save: ");
    let saved = "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
    failed(rig.files().feed("iptables-restore", saved), "iptables-restore: ");
    failed(tool("sysctl -w net.netfilter.nf_conntrack_udp_timeout=5"), "udp_timeout");
    // What needs no worker is served as ever.
    assert_eq!(rig.files().ask("conntrack -C"), "32\n");
    assert_eq!(rig.files().ask("sysctl -n net.netfilter.nf_conntrack_udp_timeout"), "30\n");
    rig.files().ask("sysctl -w net.netfilter.nf_conntrack_max=9999");
    assert!(rig.files().ask("conntrack -S").lines().count() == 2);
    let said = rig.gateway.reload();
    assert_eq!(said, format!("reload failed: {silent}"));

    // The other worker serves its own conns; those of this one wait for it.
    let mut served = 0;
    for socket in &clients {
        socket.set_read_timeout(Some(Duration::from_millis(60))).expect("a timeout can be set");
        served += u32::from(exchange(socket, b"meanwhile").is_ok());
    }
    assert!((1..32).contains(&served), "{served} of 32");

    drop(stopped);
    wait_for_line(&rig.gateway, &["worker lcore 2 (CPU 0) polls again after "]);
    let listed = rig.files().ask("conntrack -L -p udp");
    assert_eq!(listed.lines().count(), 32, "{listed}");
    assert_eq!(rig.gateway.reload(), "reloaded");
    let again = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
    exchange(&again, b"after").expect("an echo");
    assert_eq!(masqueraded(&rig), 1, "the reload counts from the file's zeros");
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

#[test]
fn a_worker_that_does_not_end_is_named_and_left_behind() {
    let rig = Rig::new(Wish { eal: "worker_cores = [1, 0]", ..Wish::default() });
    let Rig { mut gateway, .. } = rig;
    let stopped = Stopped::new(worker(&gateway, 2));
    gateway.signal(Signal::SIGTERM);
    stopped.until_the_end();
    assert_eq!(gateway.wait_for_end(), Some(1));
    let said = wait_for_line(&gateway, &["error", "worker lcore 2 (CPU 0) has not ended for 1."]);
    assert!(said.ends_with(": the process ends without it"), "{said}");
    assert_eq!(gateway.files.leftovers(), Vec::<PathBuf>::new());
}

#[test]
fn a_control_core_that_stands_still_is_named_and_no_packet_waits_for_it() {
    let mut rig = Rig::new(Wish::default());
    let _echo = Server::udp_echo(&rig.wan, &format!("{WAN_HOST}:7"));
    let _http = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let old = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
    exchange(&old, b"before").expect("an echo");

    // The process' own number is that of its main thread.
    let start = Instant::now();
    let stopped = Stopped::new(Pid::from_raw(rig.gateway.pid() as i32));
    let mut exchanges = 0;
    while start.elapsed() < Duration::from_millis(2600) {
        let new = udp_client(&rig.lan, &format!("{LAN_HOST}:0"), &format!("{WAN_HOST}:7"));
        for socket in [&old, &new] {
            let answer = exchange(socket, b"meanwhile").expect("an echo");
            assert!(answer.ends_with(b" meanwhile") && answer.starts_with(WAN_GATEWAY.as_bytes()));
            exchanges += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(exchanges >= 20, "{exchanges} in {:?}", start.elapsed());
    assert_eq!(rig.curl(&format!("http://{WAN_HOST}/300000")).stdout, body(300_000));
    let said = wait_for_line(&rig.gateway, &["control core (CPU 0) has not come round for "]);
    assert!(said.ends_with(": its thread has been stopped"), "{said}");
    assert!((2.0..4.0).contains(&seconds(&said, "round for ")), "{said}");

    drop(stopped);
    let stood_still = start.elapsed().as_secs_f64();
    let said = wait_for_line(&rig.gateway, &["control core (CPU 0) comes round again after "]);
    assert!((seconds(&said, "again after ") - stood_still).abs() < 1.0, "{said} {stood_still}");
    let stats = rig.files().stats();
    let (count, now, ms) = stalls(&stats["control_core"]);
    assert!(count == 1 && !now && ms >= 2000, "{}", stats["control_core"]);
    assert_eq!(stalls(&stats["lcores"][0]), (0, false, 0), "the worker never waited");
    exchange(&old, b"after").expect("an echo");
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

#[test]
fn a_gateway_that_was_stopped_as_a_whole_blames_nobody() {
    let mut rig = Rig::new(Wish::default());
    rig.gateway.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_secs(3));
    rig.gateway.signal(Signal::SIGCONT);
    std::thread::sleep(Duration::from_millis(500));
    let stats = rig.files().stats();
    assert_eq!(stalls(&stats["lcores"][0]), (0, false, 0));
    assert_eq!(stalls(&stats["control_core"]), (0, false, 0));
    assert_eq!(line(&rig.gateway, &["has not"]), None);
    rig.gateway.stop_cleanly();
}
