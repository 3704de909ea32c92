//! SYNPROXY between clients and servers of the kernel, and what strangers leave behind.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use crate::gateway::PATIENCE;
use crate::live::{Seen, on_both};
use crate::netns::Namespace;
use crate::packets::tcp;
use crate::rig::{LAN_HOST, Rig, WAN_HOST, WAN_HOST6, Wish, curl};
use crate::servers::{Server, body};

/// As the manual has it, behind one address.
const RULES: &str = "\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --syn -j CT --notrack
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p tcp -m state --state INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp --wscale 7 \
--mss 1460
-A FORWARD -m state --state INVALID -j DROP
COMMIT
";

fn bench() -> Rig {
    let rig = Rig::new(Wish { rules4: RULES, rules6: RULES, ..Wish::default() });
    rig.files().ask("sysctl -w net.netfilter.nf_conntrack_tcp_loose=0");
    // The buffers that make a server's scale 7.
    rig.wan.run("sysctl -qw net.ipv4.tcp_rmem=4096\t131072\t6291456");
    rig
}

/// A server that speaks first, then reads to the end; how many bytes.
fn greeter(namespace: &Namespace, address: &str) -> JoinHandle<usize> {
    let address: SocketAddr = address.parse().expect("an address and port");
    let listener = namespace.within(move || TcpListener::bind(address).expect("the port is free"));
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client comes");
        client.write_all(b"hello").expect("it hears the greeting");
        let mut all = Vec::new();
        client.read_to_end(&mut all).expect("it ends");
        assert!(all == body(all.len()), "other bytes");
        all.len()
    })
}

/// A counter of the kernel's TCP.
fn tcp_counter(namespace: &Namespace, name: &str) -> Option<u64> {
    let text = namespace.run("cat /proc/net/netstat");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|word| word == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

#[test]
fn real_clients_reach_real_servers() {
    let mut rig = bench();
    let _four = Server::http(&rig.wan, &format!("{WAN_HOST}:80"));
    let _six = Server::http(&rig.wan, &format!("[{WAN_HOST6}]:80"));
    let len = 4_000_000;
    for host in [WAN_HOST.to_owned(), format!("[{WAN_HOST6}]")] {
        let output = curl(&rig.lan, &format!("http://{host}/{len}"));
        assert!(output.status.success(), "{host}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == body(len), "{host}: {} other bytes", output.stdout.len());
    }
    rig.wait_for_conn(&["tcp", &format!("src={LAN_HOST}"), "dport=80", "[ASSURED]"]);
    let greeted = greeter(&rig.wan, &format!("{WAN_HOST}:25"));
    let server: SocketAddr = format!("{WAN_HOST}:25").parse().expect("an address and port");
    let mut client = rig.lan.within(move || TcpStream::connect_timeout(&server, PATIENCE).unwrap());
    let mut hello = [0; 5];
    client.read_exact(&mut hello).expect("the greeting");
    assert_eq!(&hello, b"hello");
    client.write_all(&body(1_000_000)).expect("all of it is taken");
    drop(client);
    assert_eq!(greeted.join().expect("a server that ends"), 1_000_000);
    // The server has believed each time that it was told.
    assert_eq!(tcp_counter(&rig.wan, "TSEcrRejected").unwrap_or(0), 0);
    let counted = rig.files().ask("proc net/stat/synproxy");
    let sum = |column: usize| -> u64 {
        let rows = counted.lines().skip(1).map(|row| row.split('\t').nth(column).unwrap());
        rows.map(|hex| u64::from_str_radix(hex, 16).unwrap()).sum()
    };
    assert_eq!((sum(1), sum(2)), (3, 0), "{counted}");
    assert!(sum(3) >= 3, "{counted}");
    let refused = rig.curl(&format!("http://{WAN_HOST}:82/"));
    assert!(!refused.status.success(), "nobody listens there");
    rig.assert_balance();
    rig.gateway.stop_cleanly();
}

/// On the kernel and on the gateway alike.
#[test]
fn strangers_leave_nothing() {
    let seen = on_both(Wish::default(), |b| {
        // Untranslated, so that what reaches the server is known by its source.
        b.rules(&RULES.replace("-A POSTROUTING -o wan -j MASQUERADE\n", ""));
        b.set("tcp_loose", 0);
        b.flush();
        let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
        let ends = |port| ((address(LAN_HOST), port), (address(WAN_HOST), 80));
        let mut passed = 0;
        for port in 2000..2100 {
            let (client, server) = ends(port);
            passed += b.bytes(true, &tcp(client, server, "S", 1000, 0).bytes());
        }
        b.note("SYNs that reach the server", passed);
        b.table("behind a flood of SYNs", "");
        for port in 2000..2100 {
            let (client, server) = ends(port);
            let guess = u32::from(port).wrapping_mul(0x9e37_79b9);
            passed += b.bytes(true, &tcp(client, server, "A", 1001, guess).bytes());
        }
        b.note("ACKs that open the server", passed);
        b.table("behind a flood of ACKs", "");
    });
    let text = |at: usize| match &seen[at] {
        Seen::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    assert!(text(0).ends_with('0') && text(2).ends_with('0'), "{seen:#?}");
    assert!(!text(1).contains("src=") && !text(3).contains("src="), "{seen:#?}");
}
