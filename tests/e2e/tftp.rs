//! TFTP with the clients and the server that people have: the server answers each request from a
//! port of its own, so nothing arrives unless the helper expects the answer.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::daemon::Daemon;
use crate::gateway::{Files, eventually};
use crate::netns::{Namespace, demand_programs};
use crate::rig::{LAN, LAN_HOST, Rig, WAN_GATEWAY, WAN_GATEWAY6, WAN_HOST, WAN_HOST6, Wish};
use crate::servers::body;

/// Bytes of one file, so many that a transfer of 512 at a time takes thousands of packets.
const LEN: usize = 3_000_000;

/// Requests pass, and what belongs to conns. A server inside is reached by the gateway's address.
/// No rule translates what is RELATED: it has to follow its master.
macro_rules! rules {
    ($raw:literal, $inside:literal) => {
        concat!(
            "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n",
            $raw,
            "COMMIT\n*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :POSTROUTING ACCEPT [0:0]\n\
             -A PREROUTING -i wan -p udp -m udp --dport 69 -j DNAT --to-destination ",
            $inside,
            "\n-A POSTROUTING -o wan -m conntrack --ctstate NEW -j MASQUERADE\nCOMMIT\n\
             *filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             -A INPUT -p ipv6-icmp -j ACCEPT\n\
             -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A FORWARD -p udp -m udp --dport 69 -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n",
        )
    };
}

/// `rules!` with the helper.
macro_rules! helped {
    ($inside:literal) => {
        rules!("-A PREROUTING -p udp -m udp --dport 69 -j CT --helper tftp\n", $inside)
    };
}

const HELPED4: &str = helped!("10.77.0.2");
const HELPED6: &str = helped!("fd77::2");
const HELPLESS4: &str = rules!("", "10.77.0.2");
const HELPLESS6: &str = rules!("", "fd77::2");

fn wish() -> Wish {
    Wish { rules4: HELPED4, rules6: HELPED6, ..Wish::default() }
}

/// A file of `LEN` bytes, another one for each number.
fn file(number: usize) -> Vec<u8> {
    body(LEN + number)[number..].to_vec()
}

/// A shorter one, for many at once.
fn small(number: usize) -> Vec<u8> {
    file(number)[..LEN / 3].to_vec()
}

/// tftpd-hpa at both families' port 69 of a host, on a folder where anybody may write.
struct TftpServer {
    folder: PathBuf,
    _daemon: Daemon,
}

impl TftpServer {
    fn start(host: &Namespace, files: &Files) -> TftpServer {
        demand_programs(&["in.tftpd", "tftp", "ss"]);
        let folder = files.path("tftp");
        fs::create_dir(&folder).expect("the folder can be written");
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("it is ours");
        let line = format!(
            "in.tftpd --foreground --address :69 --create --permissive --secure {}",
            folder.display()
        );
        let daemon = Daemon::start(host, files, "tftpd", &line);
        // One socket for each family.
        eventually("tftpd listens", || host.run("ss -Hlun sport = :69").lines().count() == 2);
        TftpServer { folder, _daemon: daemon }
    }

    fn offer(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.join(name), bytes).expect("the folder can be written");
    }

    /// What a client has put there.
    fn has(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap_or_default()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A host's files go to a server and come back, 512 bytes at a time, with larger blocks, and with
/// blocks that travel in fragments.
fn with_curl(client: &Namespace, files: &Files, server: &TftpServer, address: &str) {
    for (number, options) in
        ["", "--tftp-blksize 1400", "--tftp-blksize 8192"].into_iter().enumerate()
    {
        let (there, here) = (format!("there-{number}"), files.path("here"));
        server.offer(&there, &file(number));
        let got = client.try_run(&format!("curl -sS --max-time 60 {options} {address}/{there}"));
        assert!(got.status.success(), "{address} {options}: {}", text(&got.stderr));
        assert!(got.stdout == file(number), "{address}: {} other bytes", got.stdout.len());

        fs::write(&here, file(number + 10)).expect("the folder can be written");
        let put = format!("curl -sS --max-time 60 {options} -T {}", here.display());
        let put = client.try_run(&format!("{put} {address}/put-{number}"));
        assert!(put.status.success(), "{address} {options}: {}", text(&put.stderr));
        // The server closes the file after its last answer.
        eventually("the file is there", || server.has(&format!("put-{number}")).len() == LEN);
        assert!(server.has(&format!("put-{number}")) == file(number + 10), "{address} {options}");
        fs::remove_file(server.folder.join(format!("put-{number}"))).expect("it is there");
    }
}

/// The same with the client of tftp-hpa.
fn with_tftp(client: &Namespace, files: &Files, server: &TftpServer, host: &str) {
    let [here, back] = ["here", "back"].map(|name| files.path(name));
    fs::write(&here, file(20)).expect("the folder can be written");
    let name = format!("tftp-{}", host.replace([':', '.'], "-"));
    client.run(&format!("tftp -m binary {host} -c put {} {name}", here.display()));
    eventually("the file is there", || server.has(&name).len() == LEN);
    assert!(server.has(&name) == file(20));
    client.run(&format!("tftp -m binary {host} -c get {name} {}", back.display()));
    assert!(fs::read(&back).expect("tftp wrote it") == file(20), "{host}");
}

/// Both clients in both families.
fn transfers(client: &Namespace, files: &Files, server: &TftpServer, hosts: [&str; 2]) {
    let [four, six] = hosts;
    with_curl(client, files, server, &format!("tftp://{four}"));
    with_curl(client, files, server, &format!("tftp://[{six}]"));
    with_tftp(client, files, server, four);
    with_tftp(client, files, server, six);
}

#[test]
fn a_masqueraded_client_gets_and_puts() {
    let mut rig = Rig::new(wish());
    let server = TftpServer::start(&rig.wan, rig.files());
    transfers(&rig.lan, rig.files(), &server, [WAN_HOST, WAN_HOST6]);
    let master = rig.wait_for_conn(&["udp", "dport=69", "helper=tftp"]);
    assert!(master.contains(&format!("src={LAN_HOST} dst={WAN_HOST}")), "{master}");
    assert!(master.contains(&format!("src={WAN_HOST} dst={WAN_GATEWAY}")), "{master}");
    // The child begins at the server.
    let child = rig.wait_for_conn(&[&format!("src={WAN_HOST} dst={WAN_GATEWAY}"), "helper=tftp"]);
    assert!(child.contains(&format!("src={LAN_HOST} dst={WAN_HOST}")), "{child}");
    rig.assert_balance();
    drop(server);
    rig.gateway.stop_cleanly();
}

#[test]
fn a_server_inside_is_reached_by_the_gateways_address() {
    let mut rig = Rig::new(wish());
    let server = TftpServer::start(&rig.lan, rig.files());
    transfers(&rig.wan, rig.files(), &server, [WAN_GATEWAY, WAN_GATEWAY6]);
    let master = rig.wait_for_conn(&["udp", &format!("dst={WAN_GATEWAY}"), "dport=69"]);
    assert!(master.contains(&format!("src={LAN_HOST} dst={WAN_HOST} sport=69")), "{master}");
    rig.assert_balance();
    drop(server);
    rig.gateway.stop_cleanly();
}

#[test]
fn without_the_helper_nothing_arrives() {
    let mut rig = Rig::new(Wish { rules4: HELPLESS4, rules6: HELPLESS6, ..Wish::default() });
    let server = TftpServer::start(&rig.wan, rig.files());
    server.offer("there", &file(1));
    let get = |rig: &Rig, host: &str, secs: u32| {
        rig.lan.try_run(&format!("curl -sS --max-time {secs} tftp://{host}/there"))
    };
    for host in [WAN_HOST.to_owned(), format!("[{WAN_HOST6}]")] {
        let before = rig.dropped("filter-drop");
        let output = get(&rig, &host, 3);
        assert_eq!(output.status.code(), Some(28), "{host}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
        assert!(rig.dropped("filter-drop") > before, "{host}: the answer is refused");
    }
    rig.files().write("rules.v4", HELPED4);
    rig.files().write("rules.v6", HELPED6);
    assert_eq!(rig.gateway.reload(), "reloaded");
    for host in [WAN_HOST.to_owned(), format!("[{WAN_HOST6}]")] {
        let output = get(&rig, &host, 60);
        assert!(output.stdout == file(1), "{host}: {}", text(&output.stderr));
    }
    rig.assert_balance();
}

/// Clients of one port that begin at the same time: each is seen outside with another one, and each
/// answer finds whose it is.
fn same_port(wish: Wish) {
    const CLIENTS: usize = 6;
    let rig = Rig::new(wish);
    let server = TftpServer::start(&rig.wan, rig.files());
    let ends = |number: usize| [format!("10.77.0.{}", 20 + number), format!("fd77::2{number}")];
    let mut running: Vec<(usize, usize, Child)> = Vec::new();
    for (family, host) in [WAN_HOST.to_owned(), format!("[{WAN_HOST6}]")].into_iter().enumerate() {
        for number in 0..CLIENTS {
            // An IPv6 address is tentative for a while otherwise.
            let (address, bits) = (&ends(number)[family], ["32", "128 nodad"][family]);
            rig.lan.run(&format!("ip address add {address}/{bits} dev {}", LAN.interface));
            let name = format!("file-{family}-{number}");
            let here = rig.files().path(&format!("here-{family}-{number}"));
            // Every other one puts.
            let place = here.display();
            let way = if number % 2 == 0 {
                server.offer(&name, &small(number));
                format!("-o {place} tftp://{host}/{name}")
            } else {
                fs::write(&here, small(number)).expect("the folder can be written");
                format!("-T {place} tftp://{host}/{name}")
            };
            let line = "curl -sS --max-time 60 --tftp-blksize 1400 --local-port 4000";
            let mut command = rig.lan.command(&format!("{line} --interface {address} {way}"));
            let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let child = command.spawn().expect("curl starts");
            running.push((family, number, child));
        }
    }
    for (family, number, curl) in running {
        let ended = curl.wait_with_output().expect("it can be waited for");
        assert!(ended.status.success(), "{family} {number}: {}", text(&ended.stderr));
        let name = format!("file-{family}-{number}");
        let here = rig.files().path(&format!("here-{family}-{number}"));
        eventually("the file is there", || server.has(&name).len() == LEN / 3);
        assert!(server.has(&name) == small(number), "{name}");
        assert!(fs::read(here).expect("it was written") == small(number), "{name}");
    }
    for (family, word) in [(0, "ipv4"), (1, "ipv6")] {
        let table = rig.files().ask(&format!("conntrack -L -f {word} -p udp --dport 69"));
        let mut outside: Vec<&str> = Vec::new();
        for number in 0..CLIENTS {
            let client = format!("src={} ", ends(number)[family]);
            let line = table.lines().find(|l| l.contains(&client) && l.contains("sport=4000 "));
            let line = line.unwrap_or_else(|| panic!("{client}: no conn in\n{table}"));
            outside.push(line.split("dport=").nth(2).and_then(|r| r.split(' ').next()).unwrap());
        }
        outside.sort_unstable();
        outside.dedup();
        assert_eq!(outside.len(), CLIENTS, "each its own port\n{table}");
    }
    assert_eq!(rig.dropped("expectation"), 0);
    rig.assert_balance();
}

#[test]
fn clients_of_one_port_get_each_its_own_file() {
    same_port(wish());
}

#[test]
fn clients_of_one_port_get_each_its_own_file_from_three_workers() {
    same_port(Wish { eal: "worker_cores = [0, 1, 1]", queues: Some(1), ..wish() });
}
