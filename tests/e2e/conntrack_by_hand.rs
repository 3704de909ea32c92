//! Conns and expectations that a tool makes, beside the kernel's: what it says of them, and what
//! becomes of packets that meet them.

use std::process::Stdio;
use std::time::Duration;

use dataplane::wire::crc32c::Crc32c;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::conntrack_tool::{Kernel, Side, both, both_with, compare, lines, same};
use crate::gateway::eventually;
use crate::netns::{Namespace, demand_programs};
use crate::rig::{LAN_HOST, WAN_HOST, Wish};
use crate::servers::udp_client;

/// Lines that both sides have to answer alike, with the same tables before each.
fn compare_all(kernel: &Kernel, gateway: Side<'_>, lines: &[&str]) {
    for line in lines {
        compare(Side::Kernel(kernel), gateway, line);
    }
}

/// A packet of any protocol below IPv4 from a host, its payload as it is.
fn send_raw(host: &Namespace, proto: u8, to: &str, bytes: &[u8]) {
    const PROGRAM: &str = "import socket,sys\n\
        socket.socket(socket.AF_INET, socket.SOCK_RAW, int(sys.argv[1]))\\\n\
        .sendto(bytes.fromhex(sys.argv[3]), (sys.argv[2], 0))";
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut python = host.command("python3");
    python.arg("-c").arg(PROGRAM).arg(proto.to_string()).arg(to).arg(hex);
    let output = python.output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// An SCTP packet to port 20 with one chunk.
fn sctp(port: u8, tag: u32, chunk: u8, body: &[u8]) -> Vec<u8> {
    let head = [0, port, 0, 20];
    let chunk = [chunk, 0, 0, 4 + body.len() as u8];
    let mut bytes = [&head, &tag.to_be_bytes()[..], &[0; 4], &chunk, body].concat();
    let mut crc = Crc32c::default();
    crc.add(&bytes);
    bytes[8..12].copy_from_slice(&crc.finish().to_le_bytes());
    bytes
}

/// Waits until a listing has a word.
fn wait_for(side: Side<'_>, line: &str, word: &str) {
    eventually(&format!("`{line}` shows {word}"), || {
        String::from_utf8_lossy(&side.ask(line).stdout).contains(word)
    });
}

#[test]
fn states_are_the_kernel_s() {
    let (kernel, rig) = both();
    let gateway = Side::Gateway(&rig);
    let ends = "-s 192.0.2.1 -d 192.0.2.2";
    let make = |options: &str| format!("-I {ends} -t 50 {options}");
    let sctp = |port, options: &str| make(&format!("-p sctp --sport 1 --dport {port} {options}"));
    let gre = |keys: &str| make(&format!("-p gre {keys}"));
    let udp = |port, secs| format!("-I {ends} -p udp --sport 1 --dport {port} -t {secs}");
    let made = [
        sctp(2, "--state ESTABLISHED --orig-vtag 5 --reply-vtag 6"),
        sctp(2, "--state CLOSED --orig-vtag 5 --reply-vtag 6"),
        sctp(3, "--state NONE --orig-vtag 0x5 --reply-vtag 010 -u SEEN_REPLY,ASSURED"),
        sctp(4, "--state SHUTDOWN_ACK_SENT --orig-vtag -1 --reply-vtag 4294967296"),
        sctp(5, "--state COOKIE_WAIT --orig-vtag 1 --reply-vtag 2 -n 203.0.113.3"),
        sctp(6, "--state COOKIE_WAIT --orig-vtag 1"),
        gre("--srckey 5 --dstkey 6"),
        gre("--srckey 0x5 --dstkey 7 -u SEEN_REPLY,ASSURED"),
        gre("--srckey 1 --dstkey 2 -r 192.0.2.2 -q 192.0.2.1 --reply-key-src 8 --reply-key-dst 9"),
        "-I -r 192.0.2.1 -q 192.0.2.2 -p gre -t 50 --reply-key-src 8 --reply-key-dst 10".into(),
        gre("--srckey 5"),
        udp(2, "-1"),
        udp(3, "0"),
        udp(4, "4294967295"),
        udp(5, "100000000000"),
        udp(6, "-1000"),
    ];
    let made: Vec<&str> = made.iter().map(String::as_str).collect();
    compare_all(&kernel, gateway, &made);
    compare_all(
        &kernel,
        gateway,
        &[
            "-L",
            "-L -o extended",
            "-L -o save",
            "-L -p gre -o xml",
            "-G -p sctp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2",
            "-G -p sctp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 --orig-vtag 9",
            "-G -p gre -s 192.0.2.1 -d 192.0.2.2 --srckey 5 --dstkey 7",
            "-L -p sctp --state ESTABLISHED",
            "-U -f ipv4 -p sctp --dport 2 --state SHUTDOWN_SENT",
            "-U -f ipv4 -p sctp --dport 2 --state SHUTDOWN_SENT --orig-vtag 77",
            "-U -f ipv4 -p sctp --dport 2 --state SHUTDOWN_SENT --orig-vtag 77 --reply-vtag 78",
            "-U -f ipv4 -p sctp --dport 2 --orig-vtag 77 --reply-vtag 79",
            "-U -f ipv4 -p sctp --dport 2 --state SHUTDOWN_SENT --orig-vtag 7 --reply-vtag 8",
            "-U -f ipv4 -p sctp --dport 2 --orig-vtag 7 --reply-vtag 8 -m 5",
            "-U -f ipv4 -p sctp --dport 2 -t 900 --state CLOSED --orig-vtag 90",
            "-U -f ipv4 -p sctp --dport 2 -m 6",
            "-L -p sctp -o save",
            "-U -f ipv4 -p udp --dport 4 -t -1 -m 3",
            "-U -f ipv4 -p udp --dport 4 -t 0",
            "-L -p udp",
            "-D -p sctp --state SHUTDOWN_SENT -o save",
            "-D -p sctp",
            "-D -p gre",
            "-L",
        ],
    );
}

/// Tags are what packets have to carry, and GRE has no time left after its next packet.
#[test]
fn packets_meet_conns_made_by_hand() {
    demand_programs(&["python3"]);
    let (kernel, rig) = both();
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    let ends = format!("-s {LAN_HOST} -d {WAN_HOST}");
    let state = "--state ESTABLISHED --orig-vtag 5 --reply-vtag 6 -u SEEN_REPLY,ASSURED";
    compare(theirs, ours, &format!("-I {ends} -t 500 -p sctp --sport 10 --dport 20 {state}"));
    compare(theirs, ours, &format!("-I {ends} -t 500 -p gre --srckey 0 --dstkey 0"));
    compare(theirs, ours, "-L");
    for side in [theirs, ours] {
        side.ask("sysctl -w net.netfilter.nf_conntrack_sctp_timeout_shutdown_sent=300");
        side.ask("sysctl -w net.netfilter.nf_conntrack_sctp_timeout_closed=300");
    }
    // The tool's numbers are the tag's bytes as the machine reads them.
    for (tag, state) in [(6, "ESTABLISHED"), (5, "SHUTDOWN_SENT")] {
        for side in [theirs, ours] {
            let shutdown = sctp(10, u32::from_be(tag), 7, &[0; 4]);
            send_raw(side.hosts().0, 132, WAN_HOST, &shutdown);
            std::thread::sleep(Duration::from_millis(300));
            wait_for(side, "conntrack -L -p sctp", state);
        }
        compare(theirs, ours, "-L -p sctp -o save");
    }
    // A tag that a packet has told.
    for side in [theirs, ours] {
        let init = [0x11, 0x22, 0x33, 0x44, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1];
        send_raw(side.hosts().0, 132, WAN_HOST, &sctp(11, 0, 1, &init));
        wait_for(side, "conntrack -L -p sctp", "sport=11");
    }
    compare(theirs, ours, "-L -p sctp -o save");
    for side in [theirs, ours] {
        send_raw(side.hosts().0, 47, WAN_HOST, b"\0\0\x08\0packet");
        eventually("the conn of GRE is over", || side.ask("conntrack -L -p gre").stdout.is_empty());
    }
    compare(theirs, ours, "-L");
}

/// The nat table counts each NEW packet of a conn that was made without NAT, and changes none.
#[test]
fn a_conn_without_nat_walks_the_nat_table_as_in_the_kernel() {
    let (kernel, rig) = both();
    let sides = [Side::Kernel(&kernel), Side::Gateway(&rig)];
    let nat = |side: Side<'_>| -> Vec<String> {
        let text = side.ask("iptables-save -c -t nat").stdout;
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().filter(|line| line.starts_with('[')).map(str::to_owned).collect()
    };
    let udp = format!("-I -s {LAN_HOST} -d {WAN_HOST} -p udp -t 500");
    compare(sides[0], sides[1], &format!("{udp} --sport 6000 --dport 77"));
    compare(sides[0], sides[1], &format!("{udp} --sport 6001 --dport 77 -u SEEN_REPLY"));
    compare(sides[0], sides[1], &format!("{udp} --sport 6002 --dport 77 -n {LAN_HOST}"));
    let walked = sides.map(|side| {
        let _silent = {
            let (_, wan) = side.hosts();
            wan.within(|| std::net::UdpSocket::bind((WAN_HOST, 77)).expect("a free port"))
        };
        let before = nat(side);
        for port in 6000..6003 {
            let client = udp_client(
                side.hosts().0,
                &format!("{LAN_HOST}:{port}"),
                &format!("{WAN_HOST}:77"),
            );
            for _ in 0..4 {
                client.send(b"datagram").expect("sent");
            }
        }
        wait_for(side, "conntrack -L -p udp --sport 6002", "packets=4 bytes=144");
        let packets = |line: &String| -> u64 {
            line[1..].split(':').next().and_then(|n| n.parse().ok()).expect("a count")
        };
        let after = nat(side);
        after.iter().zip(&before).map(|(a, b)| packets(a) - packets(b)).collect::<Vec<u64>>()
    });
    assert_eq!(walked, [vec![0, 4], vec![0, 4]]);
    compare(sides[0], sides[1], "-L -p udp --dport 77");
}

/// Masters with a helper, forwarded, and what they expect.
const HELPED: &str = "\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -i lan -p udp -m udp --dport 69 -j CT --helper tftp
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan -p icmp -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
COMMIT
";

const MASTER: &str = "-s 10.77.0.2 -d 198.51.100.2 -p udp --sport 5000 --dport 69";
const WANTED: &str = "--tuple-src 198.51.100.2 --tuple-dst 10.77.0.2";
const WHOLE: &str = "--mask-src 255.255.255.255 --mask-dst 255.255.255.255";
const PORTS: &str = "--mask-port-src 0 --mask-port-dst 65535 --tuple-port-src 0 --tuple-port-dst";

/// What is done with the table of expectations, one after the other.
fn expectations() -> Vec<String> {
    let make = |ends: &str, port: u16| format!("-I expect {MASTER} {ends} {PORTS} {port} -t 100");
    let (whole, named) =
        (format!("{WANTED} {WHOLE}"), "expect -s 198.51.100.2 -d 10.77.0.2 -p udp --sport 1");
    let answers = "--reply-port-src 1 --reply-port-dst 1";
    let narrow = "--mask-src 255.255.255.0 --mask-dst 0.0.0.0 --mask-port-src 65280 \
                  --mask-port-dst 1 --tuple-port-src 77 --tuple-port-dst 9 -t 1";
    vec![
        make(&whole, 8),
        "-L expect".into(),
        "-L expect -o xml".into(),
        "-L expect -f ipv6".into(),
        "-C expect".into(),
        make(&whole, 8),
        // One more of the class takes the place of the oldest.
        make(&whole, 9),
        make(&format!("{whole} -u SEEN_REPLY -r 192.0.2.1 -q 192.0.2.2"), 9),
        "-L expect".into(),
        "-F expect".into(),
        format!("-I expect {MASTER} {WANTED} {narrow}"),
        "-L expect".into(),
        format!("-G {named} --dport 9 {answers}"),
        format!("-G {named} --dport 10 {answers}"),
        "-G expect -s 198.51.100.2 -d 10.77.0.2 -p udp --sport 78 --dport 9 --reply-port-src 1 \
         --reply-port-dst 1"
            .into(),
        // From any port of the same upper bits, and from others not.
        "-D expect -s 198.51.100.9 -d 10.77.0.2 -p udp --sport 255 --dport 9 --reply-port-src 1 \
         --reply-port-dst 1"
            .into(),
        "-L expect".into(),
        // The master by its answers, and masters that are none.
        format!(
            "-I expect -s 198.51.100.2 -d 10.77.0.2 -p udp --sport 69 --dport 5000 {whole} \
             {PORTS} 8 -t 100"
        ),
        "-L expect".into(),
        make(&format!("--tuple-src 198.51.100.2/24 --tuple-dst 10.77.0.2 {WHOLE}"), 8),
        make("--tuple-src 198.51.100.0/24 --tuple-dst 10.77.0.2 --mask-dst 255.255.255.255", 8),
        format!("-I expect {} {whole} {PORTS} 10 -t 1", MASTER.replace("5000", "5001")),
        format!("-I expect {} {whole} {PORTS} 10 -t 1", MASTER.replace("--dport 69", "--dport 70")),
        format!("-I expect {} {whole} {PORTS} 10 -t 1", MASTER.replace("udp", "tcp")),
        "-L expect".into(),
        format!("-D {named} --dport 8 {answers}"),
        format!("-D {named} --dport 8 {answers}"),
        "-L expect".into(),
    ]
}

/// A TFTP client that has sent data, which begins no transfer, and one without a helper.
fn masters(side: Side<'_>) {
    let (lan, wan) = side.hosts();
    wan.try_run("ip route add 10.77.0.0/24 via 198.51.100.1");
    for port in [69, 70] {
        let client = udp_client(lan, "10.77.0.2:5000", &format!("{WAN_HOST}:{port}"));
        client.send(b"\0\x03data").expect("sent");
        wait_for(side, &format!("conntrack -L -p udp --dport {port}"), "sport=5000");
    }
    side.ask("conntrack -U -f ipv4 -p udp --sport 5000 -t 900");
}

#[test]
fn expectations_made_by_hand_are_the_kernel_s() {
    let (kernel, rig) = both_with(Wish { rules4: HELPED, ..Wish::default() });
    let (theirs, ours) = (Side::Kernel(&kernel), Side::Gateway(&rig));
    // Listened to before the masters begin, so that events are told.
    let listeners = [theirs, ours].map(|side| {
        let listener = side
            .command("conntrack -E expect")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool starts");
        std::thread::sleep(Duration::from_millis(700));
        masters(side);
        listener
    });
    for line in expectations() {
        compare(theirs, ours, &line);
    }
    // A child is RELATED, is forwarded where nothing else is, and has no helper.
    compare(theirs, ours, &format!("-I expect {MASTER} {WANTED} {WHOLE} {PORTS} 8 -t 100"));
    for side in [theirs, ours] {
        let child = udp_client(side.hosts().1, &format!("{WAN_HOST}:4444"), "10.77.0.2:8");
        child.send(b"expected").expect("sent");
        wait_for(side, "conntrack -L -p udp", "sport=4444");
        let late = udp_client(side.hosts().1, &format!("{WAN_HOST}:4445"), "10.77.0.2:8");
        late.send(b"not expected").expect("sent");
        std::thread::sleep(Duration::from_millis(300));
    }
    compare(theirs, ours, "-L expect");
    // The kernel counts a child among the holders of its master.
    compare(theirs, ours, "-L -p udp --sport 4444");
    compare(theirs, ours, "-L -p udp -o save");
    let counted = [theirs, ours].map(|side| {
        let text = String::from_utf8_lossy(&side.ask("conntrack -S expect").stdout).into_owned();
        ["expect_new=", "expect_create=", "expect_delete="].map(|word| {
            let counts = text.split_whitespace().filter_map(|w| w.strip_prefix(word));
            counts.map(|count| count.parse::<u64>().expect("a number")).sum::<u64>()
        })
    });
    assert_eq!(counted[1], counted[0], "conntrack -S expect");
    assert!(counted[0].iter().all(|count| *count > 0), "{counted:?}");
    let told = listeners.map(|mut listener| {
        kill(Pid::from_raw(listener.id() as i32), Signal::SIGINT).expect("it still listens");
        let output = listener.stdout.take().map(std::io::read_to_string);
        listener.wait().expect("the child can be waited for");
        lines(output.expect("stdout is piped").expect("text").as_bytes())
    });
    same(&told[1], &told[0], "conntrack -E expect");
    assert!(told[0].len() >= 10, "{:#?}", told[0]);
}
