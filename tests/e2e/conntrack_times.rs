//! When conns began and ended, beside the kernel's: events and listings of the same traffic.

use std::process::{Child, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::conntrack_tool::{Side, both, lines, same};
use crate::gateway::eventually;
use crate::rig::{LAN_HOST, WAN_HOST};
use crate::servers::udp_client;

/// How long a conn of the test lives without packets.
const TIMEOUT_SECS: u64 = 2;

/// What the two may differ by from what this process reads off its own clock: ticks of the kernel
/// and of the gateway.
const TICK_NS: u64 = 20_000_000;

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970").as_nanos() as u64
}

fn listen(side: Side<'_>, options: &str) -> Child {
    let mut command = side.command(&format!("conntrack -E -e DESTROY {options}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the tool starts")
}

fn heard(mut listener: Child) -> String {
    kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
    let output = listener.stdout.take().map(std::io::read_to_string);
    listener.wait().expect("the child can be waited for");
    output.expect("stdout is piped").expect("text")
}

/// The number that follows `word` on the line about the conn from `port`.
fn number(text: &str, port: u16, word: &str) -> u64 {
    let sport = [format!("sport={port} "), format!("<sport>{port}<")];
    let line = text.lines().find(|line| sport.iter().any(|sport| line.contains(sport)));
    let line = line.unwrap_or_else(|| panic!("no conn from {port}: {text}"));
    let (_, rest) = line.split_once(word).unwrap_or_else(|| panic!("no {word}: {line}"));
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number: {line}"))
}

/// One conn that a tool ends, and one whose time is up; the lines about them.
fn live_and_die(side: Side<'_>) -> Vec<String> {
    let keys = "nf_conntrack_timestamp=1 net.netfilter.nf_conntrack_udp_timeout=2";
    assert!(side.ask(&format!("sysctl -w net.netfilter.{keys}")).status.success());
    let plain = listen(side, "-o ktimestamp");
    let xml = listen(side, "-o xml,ktimestamp");
    std::thread::sleep(Duration::from_millis(700));
    let (lan, wan) = side.hosts();
    let silent = format!("{WAN_HOST}:99");
    let _mute = wan.within(move || std::net::UdpSocket::bind(silent).expect("a free port"));
    let begin = |port: u16| {
        let client = udp_client(lan, &format!("{LAN_HOST}:{port}"), &format!("{WAN_HOST}:99"));
        let before = now_ns();
        client.send(b"lost").expect("sent");
        eventually("the conn is there", || {
            let table = side.ask("conntrack -L -p udp").stdout;
            String::from_utf8_lossy(&table).contains(&format!("sport={port} "))
        });
        (before, now_ns())
    };
    let deleted = begin(5001);
    std::thread::sleep(Duration::from_millis(900));
    let before = now_ns();
    assert!(side.ask("conntrack -D -p udp --sport 5001").status.success());
    let deletion = (before, now_ns());
    let expired = begin(5002);
    // The kernel looks for such conns once in a while, and whenever it shows them.
    std::thread::sleep(Duration::from_millis(1000 * TIMEOUT_SECS + 1500));
    side.ask("conntrack -L");
    std::thread::sleep(Duration::from_millis(700));
    let (plain, xml) = (heard(plain), heard(xml));
    for (port, born, died) in [
        (5001, deleted, deletion),
        (5002, expired, {
            let later = |ns: u64| ns + TIMEOUT_SECS * 1_000_000_000;
            (later(expired.0) - TICK_NS, later(expired.1) + TICK_NS)
        }),
    ] {
        let (start, stop) = (number(&xml, port, "<start>"), number(&xml, port, "<stop>"));
        let within = |moment, (from, to)| from <= moment && moment <= to;
        assert!(within(start, (born.0 - TICK_NS, born.1)), "{start} not in {born:?}");
        assert!(within(stop, (died.0 - TICK_NS, died.1)), "{stop} not in {died:?}");
        assert_eq!(number(&xml, port, "<deltatime>"), (stop - start) / 1_000_000_000);
        let secs = |ns| ns / 1_000_000_000;
        assert_eq!(number(&plain, port, "delta-time="), secs(stop) - secs(start));
    }
    lines(format!("{plain}{xml}").as_bytes())
}

#[test]
fn conns_begin_and_end_when_the_kernel_s_do() {
    let (kernel, rig) = both();
    let [theirs, ours] = [Side::Kernel(&kernel), Side::Gateway(&rig)].map(live_and_die);
    assert_eq!(theirs.iter().filter(|line| line.contains("[stop=")).count(), 2, "{theirs:#?}");
    same(&ours, &theirs, "conntrack -E -o ktimestamp");
}
