//! The examples of conntrack-tools' own pages, as they are written there: those of conntrack(8) and
//! of the chapter about the command in the user manual. Each works unchanged behind `sluicegate`
//! and says what it says of the same conns in the kernel.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::conntrack_tool::{Side, both, compare, lines, same, send};

/// `EXAMPLES` of conntrack(8), those that look.
const LOOKS: &[&str] = &[
    "-L",
    "-L -o extended",
    "-L -o xml",
    "-L -o save",
    "-L -f ipv6 -o extended",
    "-L --src-nat",
    // The user manual.
    "-L -p tcp --dport 34856",
];

/// The same, those that listen.
const LISTENS: &[&str] = &["-E", "-E -o timestamp"];

/// Conns that the examples speak of.
fn conns() -> Vec<String> {
    let tcp = "-I -p tcp --state ESTABLISHED -u SEEN_REPLY,ASSURED -t 431982";
    let udp = "-I -p udp -t 300";
    vec![
        format!("{tcp} -s 192.168.2.100 -d 192.0.2.117 --sport 34846 --dport 34856"),
        format!("{tcp} -s 192.168.2.100 -d 192.0.2.117 --sport 34849 --dport 3486"),
        format!("{udp} -s 1.2.3.4 -d 192.0.2.1 --sport 1000 --dport 53"),
        format!("{udp} -s 192.168.2.100 -d 192.0.2.1 --sport 1000 --dport 53 -n 203.0.113.7"),
        format!("{udp} -s fd00::2 -d fd00::1 --sport 1000 --dport 53"),
        format!("{udp} -w 11 -s 192.168.2.100 -d 192.0.2.2 --sport 57767 --dport 53"),
        format!("{tcp} -w 11 -s 192.168.2.100 -d 192.0.2.2 --sport 33379 --dport 80"),
    ]
}

#[test]
fn documented_command_lines_do_what_they_do_in_the_kernel() {
    let (kernel, rig) = both();
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    for line in conns() {
        compare(theirs, ours, &line);
    }
    for line in LOOKS {
        compare(theirs, ours, line);
    }
    let shown = String::from_utf8_lossy(&ours.ask("conntrack -L").stdout).lines().count();
    assert_eq!(shown, conns().len(), "there is something to look at");
    // Copy all entries from ct zone 11 to ct zone 12: through sed, into `--load-file -`.
    for side in [theirs, ours] {
        let saved = String::from_utf8(side.ask("conntrack -L -w 11 -o save").stdout).expect("text");
        assert_eq!(saved.matches("-w 11").count(), 2, "{saved}");
        let moved = saved.replace("-w 11", "-w 12");
        let loaded = side.feed("conntrack --load-file -", &moved);
        assert!(loaded.status.success() && loaded.stdout.is_empty(), "{loaded:?}");
    }
    compare(theirs, ours, "-L -w 12");
    compare(theirs, ours, "-L -w 12 -o save");
    // Set connmark to 1 of all the flows whose source address is 1.2.3.4, then delete them.
    compare(theirs, ours, "-U -s 1.2.3.4 -m 1");
    compare(theirs, ours, "-L -m 1");
    compare(theirs, ours, "-D -s 1.2.3.4");
    // Without a family version 1.4.7 asks the kernel for a change of none, which it refuses: what
    // the manual says happens with one.
    let [mark, family] = ["-U -p tcp --dport 3486 --mark 10", "-f ipv4"];
    let theirs_said = theirs.ask(&format!("conntrack {mark} {family}"));
    let ours_said = ours.ask(&format!("conntrack {mark}"));
    same(&lines(&ours_said.stdout), &lines(&theirs_said.stdout), mark);
    same(&lines(&ours_said.stderr), &lines(&theirs_said.stderr), mark);
    assert!(ours_said.status.success() && theirs_said.status.success(), "{theirs_said:?}");
    compare(theirs, ours, "-L -p tcp --dport 3486");
    compare(theirs, ours, "-D -p tcp --dport 3486");
    compare(theirs, ours, "-L");
}

#[test]
fn documented_listeners_hear_what_they_hear_of_the_kernel() {
    let (kernel, rig) = both();
    for line in LISTENS {
        let told = [Side::Kernel(&kernel), Side::Gateway(&rig)].map(|side| {
            let listener = side
                .command(&format!("conntrack {line}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the tool starts");
            std::thread::sleep(Duration::from_millis(700));
            let traffic = send(side.hosts());
            std::thread::sleep(Duration::from_millis(700));
            kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
            let output = listener.wait_with_output().expect("the tool ends");
            drop(traffic);
            std::thread::sleep(Duration::from_millis(100));
            side.ask("conntrack -F");
            (lines(&output.stdout), lines(&output.stderr), output.status.code())
        });
        let [theirs, ours] = &told;
        same(&ours.0, &theirs.0, &format!("conntrack {line}"));
        assert_eq!((&ours.1, ours.2), (&theirs.1, theirs.2), "conntrack {line}: its end");
        assert!(ours.0.len() > 10, "{:#?}", ours.0);
    }
}

/// The buffer of a listener is as large as the kernel makes a socket's, and it is said first.
#[test]
fn a_listener_s_buffer_is_set_as_the_kernel_sets_it() {
    let (kernel, rig) = both();
    for bytes in ["5000", "1000000", "0", "foo"] {
        let told = [Side::Kernel(&kernel), Side::Gateway(&rig)].map(|side| {
            let listener = side
                .command(&format!("conntrack -E -b {bytes}"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the tool starts");
            std::thread::sleep(Duration::from_millis(500));
            kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
            let output = listener.wait_with_output().expect("the tool ends");
            (output.stdout, String::from_utf8(output.stderr).expect("text"), output.status.code())
        });
        assert_eq!(told[1], told[0], "conntrack -E -b {bytes}");
        assert!(told[0].1.starts_with("NOTICE: "), "{told:?}");
    }
}
