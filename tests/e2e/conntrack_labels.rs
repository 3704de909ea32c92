//! Labels beside the kernel's: set by rules and by the tool, shown, filtered and told in events.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::conntrack_tool::{Side, both_with, compare, lines, same};
use crate::rig::{LAN_HOST, RULES4, WAN_HOST, Wish};
use crate::servers::{Server, exchange, udp_client};

const NAMES: &str = "0 zero\n1 guest\n2 answered\n# no\n64 upper\n127 last\n200 beyond\n";

const MANGLE: &str = "\
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A FORWARD -i lan -p udp -m udp --dport 53 -m connlabel --label guest --set
-A FORWARD -i wan -p udp -m connlabel --label 2 --set
-A FORWARD -i wan -p udp -m connlabel ! --label upper --set
-A FORWARD -p udp -m udp --dport 99 -m connlabel --label 77 --set
-A POSTROUTING -p udp -m connlabel --label answered
-A POSTROUTING -p udp -m connlabel ! --label answered
-A POSTROUTING -p udp -m connlabel --label guest -m connlabel ! --label last
COMMIT
";

fn wish(labels: bool) -> Wish {
    let rules4 = if labels { format!("{RULES4}{MANGLE}") } else { RULES4.to_owned() };
    Wish { rules4: rules4.leak(), labels: Some(NAMES), ..Wish::default() }
}

/// Some packets of the same conns on either side: answered ones, and one that nobody answers.
fn send(side: Side<'_>, times: usize) {
    let (lan, wan) = side.hosts();
    let _server = Server::udp_echo(wan, &format!("{WAN_HOST}:53"));
    for port in [5001, 5002] {
        let client = udp_client(lan, &format!("{LAN_HOST}:{port}"), &format!("{WAN_HOST}:53"));
        (0..times).for_each(|_| drop(exchange(&client, b"hello").expect("an answer")));
    }
    let silent = format!("{WAN_HOST}:99");
    let _mute = wan.within(move || std::net::UdpSocket::bind(silent).expect("a free port"));
    let client = udp_client(lan, &format!("{LAN_HOST}:5003"), &format!("{WAN_HOST}:99"));
    client.send(b"lost").expect("sent");
}

/// What is asked and done, one after the other. The tool shows every second one of several conns
/// that it changes, so each change is of one.
const REQUESTS: &[&str] = &[
    "-L -o labels",
    "-L",
    "-L -o labels,extended,id",
    "-L -o labels,xml",
    "-L -o xml -l guest",
    "-L -o save -l guest",
    "-L -l guest",
    "-L -l guest,answered -p udp",
    "-L -l guest -l upper",
    "-L -l zero",
    "-L -l beyond",
    "-L -l nope",
    "-G -p udp -s 10.77.0.2 -d 198.51.100.2 --sport 5001 --dport 53 -o labels",
    "-G -p udp -s 10.77.0.2 -d 198.51.100.2 --sport 5001 --dport 53 -l guest",
    "-G -p udp -s 10.77.0.2 -d 198.51.100.2 --sport 5001 --dport 53 -l last",
    "-U -f ipv4 -p udp --sport 5001 --label-add last,zero",
    "-U -f ipv4 -p udp --sport 5001 --label-add last",
    "-U -f ipv4 -p udp --sport 5001 --label-add beyond,upper",
    "-U -f ipv4 -p udp --sport 5001 --label-del guest,zero -o extended",
    "-U -f ipv4 -p udp --sport 5001 --label-del guest -m 5",
    "-U -f ipv4 -p udp --sport 5001 -m 6",
    "-U -f ipv4 -l last -m 7",
    "-U -f ipv4 -l zero -m 8",
    "-L -o labels",
    "-U -f ipv4 -p udp --sport 5001 --label-del",
    "-U -f ipv4 -p udp --sport 5001 --label-del",
    "-U -f ipv4 -p udp --sport 5001 --label-del zero",
    "-U -f ipv4 -p udp --sport 5001 --label-add beyond",
    "-U -f ipv4 -p udp --sport 5001 --label-add zero --label-del zero",
    "-I -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport 2 -t 90 --label-add zero,last",
    "-I -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport 2 -t 90 --label-add zero",
    "-A -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 2 --dport 2 -t 90 --label-add beyond",
    "-A -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 2 --dport 2 -t 90",
    "-L -o labels",
    "-L -z -o labels",
    "-L -o labels",
    "-D -l last -o labels",
    "-D -l upper",
    "-D -l zero",
    "-L -o labels",
    "-F",
];

#[test]
fn labels_are_the_kernel_s() {
    let (kernel, rig) = both_with(wish(true));
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    for side in [theirs, ours] {
        send(side, 3);
    }
    let [a, b] = [theirs, ours].map(|side| {
        let saved = lines(&side.ask("iptables-save -c -t mangle").stdout);
        saved.into_iter().filter(|line| line.contains("connlabel")).collect::<Vec<_>>()
    });
    assert_eq!(a.len(), 7, "{a:#?}");
    same(&b, &a, "the rules and what they counted");
    for line in REQUESTS {
        compare(theirs, ours, line);
    }
}

#[test]
fn conns_without_labels_are_the_kernel_s() {
    let (kernel, rig) = both_with(wish(false));
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    for line in [
        "-I -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport 2 -t 90 --label-add zero,last",
        "-L -o labels",
        "-U -f ipv4 -p udp --label-add zero",
        "-U -f ipv4 -p udp --label-add zero -m 5",
        "-U -f ipv4 -p udp --label-del zero -m 6",
        "-U -f ipv4 -p udp --label-del",
        "-L -o labels",
    ] {
        compare(theirs, ours, line);
    }
    // A rule that knows one makes no difference to a conn that is there.
    let rules = rig.files().write("more", &format!("{RULES4}{MANGLE}"));
    for side in [theirs, ours] {
        let file = std::fs::File::open(&rules).expect("it was written");
        let done = side.command("iptables-restore").stdin(file).status();
        assert!(done.expect("the tool starts").success());
    }
    for line in [
        "-U -f ipv4 -p udp --label-add zero",
        "-I -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 2 --dport 2 -t 90",
        "-U -f ipv4 -p udp --sport 2 --label-add zero",
        "-L -o labels",
    ] {
        compare(theirs, ours, line);
    }
}

#[test]
fn events_of_labels_are_the_kernel_s() {
    let (kernel, rig) = both_with(wish(true));
    let sides = [Side::Kernel(&kernel), Side::Gateway(&rig)];
    for options in ["-o labels", "-o labels,xml,id", "-o timestamp", "-l guest"] {
        let told = sides.map(|side| {
            let mut listener = side
                .command(&format!("conntrack -E {options}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the tool starts");
            std::thread::sleep(Duration::from_millis(700));
            send(side, 2);
            for line in [
                "-U -f ipv4 -p udp --sport 5001 --label-add last",
                "-U -f ipv4 -p udp --sport 5001 -m 7",
                "-U -f ipv4 -p udp --sport 5002 --label-del",
                "-I -p udp -s 1.1.1.1 -d 2.2.2.2 --sport 1 --dport 2 -t 90 --label-add zero",
                "-D -p udp",
            ] {
                side.ask(&format!("conntrack {line}"));
            }
            std::thread::sleep(Duration::from_millis(700));
            kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
            let output = listener.stdout.take().map(std::io::read_to_string);
            listener.wait().expect("the child can be waited for");
            lines(output.expect("stdout is piped").expect("text").as_bytes())
        });
        assert!(told[0].len() > 5, "{options}: {:#?}", told[0]);
        same(&told[1], &told[0], &format!("conntrack -E {options}"));
    }
}
