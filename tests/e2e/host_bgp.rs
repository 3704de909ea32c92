//! A routing daemon on the box: what it learns is what the gateway forwards by.

use std::process::Command;

use crate::daemon::Daemon;
use crate::gateway::{Files, eventually};
use crate::host_rig::{HostRig, HostWish};
use crate::netns::Namespace;
use crate::rig::{LAN_HOST, LAN_HOST6, WAN_GATEWAY, WAN_GATEWAY6, WAN_HOST, WAN_HOST6};
use crate::servers::{Server, body, exchange, udp_client};

/// A host of the networks that the WAN's router announces.
const FAR: &str = "192.0.2.1";
const FAR6: &str = "2001:db8:b6::1";

/// A router has a link-local address and is the next hop by it. An interface that was down has lost
/// its own.
const LINK_LOCAL: &str = "ip address replace fe80::2/64 dev wan-host";

/// FRR's programs, where Debian has them; they are in no PATH.
const PLACE: &str = "/usr/lib/frr";

/// One router: bgpd, zebra and the folder of their sockets.
struct Router {
    folder: String,
    _bgpd: Daemon,
    _zebra: Daemon,
}

/// What one router tells another.
struct Speaker {
    name: &'static str,
    number: u32,
    id: &'static str,
    /// The other's addresses, number, and networks of the own to announce, in both families.
    peers: [&'static str; 2],
    peer_number: u32,
    networks: [&'static str; 2],
}

const BOX: Speaker = Speaker {
    name: "box",
    number: 65001,
    id: WAN_GATEWAY,
    peers: [WAN_HOST, WAN_HOST6],
    peer_number: 65002,
    networks: ["10.77.0.0/24", "fd77::/64"],
};
const OUTSIDE: Speaker = Speaker {
    name: "outside",
    number: 65002,
    id: WAN_HOST,
    peers: [WAN_GATEWAY, WAN_GATEWAY6],
    peer_number: 65001,
    networks: ["192.0.2.0/24", "2001:db8:b6::/48"],
};

impl Speaker {
    /// bgpd's configuration. `hold` seconds of silence lose a peer.
    fn config(&self, hold: u32) -> String {
        let (alive, other) = (hold / 3, self.peer_number);
        let mut text = format!(
            "router bgp {}\n bgp router-id {}\n no bgp ebgp-requires-policy\n\
             no bgp default ipv4-unicast\n",
            self.number, self.id
        );
        for peer in self.peers {
            text.push_str(&format!(
                " neighbor {peer} remote-as {other}\n neighbor {peer} timers {alive} {hold}\n\
                 neighbor {peer} timers connect 1\n neighbor {peer} advertisement-interval 0\n"
            ));
        }
        for (family, (peer, network)) in
            ["ipv4", "ipv6"].iter().zip(self.peers.iter().zip(self.networks))
        {
            text.push_str(&format!(
                " address-family {family} unicast\n  neighbor {peer} activate\n\
                 network {network}\n exit-address-family\n"
            ));
        }
        text
    }

    fn start(&self, namespace: &Namespace, files: &Files, hold: u32) -> Router {
        for program in ["zebra", "bgpd"] {
            let path = format!("{PLACE}/{program}");
            assert!(std::path::Path::new(&path).is_file(), "{path} is missing: FRR is needed");
        }
        let name = self.name;
        let folder = files.path(name);
        std::fs::create_dir(&folder).expect("a new folder");
        files.write(&format!("{name}/zebra.conf"), "ip nht resolve-via-default\n");
        files.write(&format!("{name}/bgpd.conf"), &self.config(hold));
        // The daemons give up being root.
        let owned = Command::new("chown").args(["-R", "frr:frr"]).arg(&folder).status();
        assert!(owned.is_ok_and(|status| status.success()), "FRR has its own user");
        let folder = folder.display().to_string();
        let daemon = |program: &str| {
            let line = format!(
                "{PLACE}/{program} -u frr -g frr --vty_socket {folder} -z {folder}/zserv \
                 -i {folder}/{program}.pid -f {folder}/{program}.conf -P 0 --log stdout"
            );
            let daemon = Daemon::start(namespace, files, &format!("{program}-{name}"), &line);
            let socket = format!("{folder}/{program}.vty");
            eventually(&format!("{program} {name} runs"), || {
                std::path::Path::new(&socket).exists()
            });
            daemon
        };
        let zebra = daemon("zebra");
        eventually("zebra listens", || std::path::Path::new(&format!("{folder}/zserv")).exists());
        Router { _bgpd: daemon("bgpd"), _zebra: zebra, folder }
    }
}

impl Router {
    /// Runs commands of the routers' own shell.
    fn ask(&self, commands: &[&str]) -> String {
        let mut shell = Command::new("timeout");
        shell.args(["--kill-after=2", "10", "vtysh", "--vty_socket", &self.folder]);
        commands.iter().for_each(|command| {
            shell.args(["-c", command]);
        });
        let output = shell.output().expect("timeout starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{commands:?}: {said}");
        said
    }

    /// Whether all peers are there and have brought a route.
    fn is_settled(&self, peers: [&str; 2]) -> bool {
        ["ipv4", "ipv6"].iter().zip(peers).all(|(family, peer)| {
            let text = self.ask(&[&format!("show bgp {family} unicast summary json")]);
            let summary: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let state = &summary["peers"][peer];
            state["state"] == "Established" && state["pfxRcd"] == 1
        })
    }

    /// Announces a network or withdraws it.
    fn announce(&self, number: u32, family: &str, network: &str, wanted: bool) {
        self.ask(&[
            "configure terminal",
            &format!("router bgp {number}"),
            &format!("address-family {family} unicast"),
            &format!("{}network {network}", if wanted { "" } else { "no " }),
        ]);
    }
}

/// Rules without translation, so that both sides have to know the way.
const RULES: &str = "\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ICMP -j ACCEPT
-A INPUT -i wan -p tcp -m tcp --dport 179 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
COMMIT
";

/// The box and the outside as routers. The rig drops last, as it has the logs of the others.
struct Bench {
    routers: [Router; 2],
    servers: [Server; 4],
    rig: HostRig,
}

impl Bench {
    fn new(hold: u32) -> Bench {
        let rig = HostRig::new(HostWish {
            rules4: Some(RULES.replace("ICMP", "icmp")),
            rules6: Some(RULES.replace("ICMP", "ipv6-icmp")),
            ..HostWish::default()
        });
        // No way but the announced ones.
        rig.gw.run("ip route del default");
        rig.gw.run("ip -6 route del default");
        rig.wan.run(LINK_LOCAL);
        rig.wan.run(&format!("ip address add {FAR}/24 dev lo"));
        rig.wan.run(&format!("ip address add {FAR6}/48 dev lo"));
        let servers = [
            Server::http(&rig.wan, &format!("{FAR}:80")),
            Server::http(&rig.wan, &format!("[{FAR6}]:80")),
            Server::udp_echo(&rig.wan, &format!("{FAR}:7")),
            Server::udp_echo(&rig.wan, &format!("[{FAR6}]:7")),
        ];
        let outside = OUTSIDE.start(&rig.wan, rig.files(), hold);
        let routers = [BOX.start(&rig.gw, rig.files(), hold), outside];
        let bench = Bench { routers, servers, rig };
        bench.settle();
        bench
    }

    fn settle(&self) {
        let [inner, outer] = &self.routers;
        eventually("the box sees its peer", || inner.is_settled(BOX.peers));
        eventually("and the peer sees it", || outer.is_settled(OUTSIDE.peers));
    }

    /// The LAN host gets to the announced networks and back, untranslated.
    fn assert_reached(&self) {
        for far in [FAR.to_owned(), format!("[{FAR6}]")] {
            let url = format!("http://{far}/100000");
            eventually(&format!("{far} is reached"), || self.rig.reaches(&url));
            assert!(self.rig.curl(&url).stdout == body(100_000), "{far}");
        }
        for (from, to) in [
            (format!("{LAN_HOST}:4007"), format!("{FAR}:7")),
            (format!("[{LAN_HOST6}]:4007"), format!("[{FAR6}]:7")),
        ] {
            let answer = exchange(&udp_client(&self.rig.lan, &from, &to), b"x").expect("an echo");
            assert_eq!(String::from_utf8_lossy(&answer), format!("{from} x"));
        }
    }

    fn finish(self) {
        drop((self.routers, self.servers));
        self.rig.finish();
    }
}

#[test]
fn routes_that_bgp_learns_are_forwarded_by_until_they_are_withdrawn() {
    let bench = Bench::new(9);
    bench.assert_reached();
    let [inner, outer] = &bench.routers;
    let seen = inner.ask(&["show bgp summary"]);
    assert!(seen.contains(WAN_HOST) && seen.contains(WAN_HOST6), "{seen}");
    let learned = bench.rig.gw.run("ip -6 route show 2001:db8:b6::/48");
    assert!(learned.contains("via fe80::") && learned.contains("dev sgh-wan"), "{learned}");

    let families = ["ipv4", "ipv6"].iter().zip(OUTSIDE.networks);
    for (family, network) in families.clone() {
        outer.announce(OUTSIDE.number, family, network, false);
    }
    for far in [FAR.to_owned(), format!("[{FAR6}]")] {
        let url = format!("http://{far}/1");
        eventually(&format!("{far} is not reached any more"), || !bench.rig.reaches(&url));
    }
    for (family, network) in families {
        outer.announce(OUTSIDE.number, family, network, true);
    }
    bench.settle();
    bench.assert_reached();
    bench.finish();
}

#[test]
fn a_wire_that_is_cut_takes_the_carrier_and_the_bgp_peer_with_it() {
    // A hold time that does not run out in a test: it is the carrier that does it.
    let bench = Bench::new(180);
    bench.assert_reached();
    let carrier = || bench.rig.gw.run("ip link show sgh-wan").contains("LOWER_UP");
    assert!(carrier(), "the wire is up");
    let [inner, _] = &bench.routers;
    bench.rig.cut_wire(true);
    eventually("the carrier is lost", || !carrier());
    eventually("the box has lost its peer", || {
        let said = inner.ask(&["show bgp neighbors"]);
        said.matches("BGP state = Established").count() == 0
    });
    assert!(!bench.rig.reaches(&format!("http://{FAR}/1")), "nothing gets through");
    let lan = bench.rig.gw.run("ip link show sgh-lan");
    assert!(lan.contains("LOWER_UP"), "the other wire is not concerned: {lan}");
    bench.rig.cut_wire(false);
    bench.rig.wan.run(LINK_LOCAL);
    eventually("the carrier is back", carrier);
    bench.settle();
    bench.assert_reached();
    bench.finish();
}
