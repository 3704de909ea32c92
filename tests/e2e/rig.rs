//! The bench: a host on the LAN, the gateway, a host on the WAN, each in a namespace of its own.
//!
//! ```text
//!  10.77.0.2  fd77::2          lan          wan          198.51.100.2  2001:db8:77::2
//!  [ LAN host ] ------- 10.77.0.1 gateway 198.51.100.1 ------- [ WAN host ] (203.0.113.9 behind)
//! ```
//! The wires are net_tap devices whose kernel ends are moved to the hosts once the gateway is
//! ready, or veth pairs that the gateway reads with net_af_packet.

use std::process::Output;
use std::time::Duration;

use crate::gateway::{Files, Gateway, eventually};
use crate::netns::Namespace;

pub const LAN_HOST: &str = "10.77.0.2";
pub const LAN_GATEWAY: &str = "10.77.0.1";
pub const LAN_HOST6: &str = "fd77::2";
pub const LAN_GATEWAY6: &str = "fd77::1";
pub const WAN_HOST: &str = "198.51.100.2";
pub const WAN_GATEWAY: &str = "198.51.100.1";
pub const WAN_HOST6: &str = "2001:db8:77::2";
pub const WAN_GATEWAY6: &str = "2001:db8:77::1";
/// Another address of the WAN host, reached by a route.
pub const BEHIND: &str = "203.0.113.9";

/// What most tests load: everything out is masqueraded, port 8080 leads in, the rest of the outside
/// is refused, port 81 outside is rejected.
pub const RULES4: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.77.0.2:80
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p icmp -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -p tcp -m tcp --dport 81 -j REJECT --reject-with tcp-reset
-A FORWARD -i lan -p udp -m udp --dport 81 -j REJECT --reject-with icmp-port-unreachable
-A FORWARD -i lan -j ACCEPT
-A FORWARD -i wan -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
";

/// The same for IPv6.
pub const RULES6: &str = "\
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -p ipv6-icmp -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
COMMIT
";

/// How the hosts are wired to the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wires {
    Tap,
    AfPacket,
}

/// What a test wants of its bench.
pub struct Wish {
    pub wires: Wires,
    /// Lines of `[eal]`.
    pub eal: &'static str,
    /// Pairs of queues of each port; without, as many as the product takes.
    pub queues: Option<u16>,
    /// MTU of the WAN side.
    pub wan_mtu: u16,
    /// Further lines of the ports `lan` and `wan`.
    pub ports: [&'static str; 2],
    pub rules4: &'static str,
    pub rules6: &'static str,
    /// The file with the names of labels.
    pub labels: Option<&'static str>,
}

impl Default for Wish {
    fn default() -> Wish {
        Wish {
            wires: Wires::Tap,
            eal: "",
            queues: None,
            wan_mtu: 1500,
            ports: [""; 2],
            rules4: RULES4,
            rules6: RULES6,
            labels: None,
        }
    }
}

/// Two hosts with a running gateway between them. Fields drop in this order: the process first.
pub struct Rig {
    pub gateway: Gateway,
    pub lan: Namespace,
    pub wan: Namespace,
    /// Where the gateway runs.
    pub middle: Namespace,
}

/// A side of the gateway as its host sees it.
pub struct End {
    pub interface: &'static str,
    mac: &'static str,
    addresses: [&'static str; 2],
    gateways: [&'static str; 2],
}

pub const LAN: End = End {
    interface: "lan-host",
    mac: "02:00:00:00:77:02",
    addresses: ["10.77.0.2/24", "fd77::2/64"],
    gateways: [LAN_GATEWAY, LAN_GATEWAY6],
};
pub const WAN: End = End {
    interface: "wan-host",
    mac: "02:00:00:00:78:02",
    addresses: ["198.51.100.2/24", "2001:db8:77::2/64"],
    // The WAN host knows nothing of the LAN: only translated packets find their way back.
    gateways: ["", ""],
};

impl Rig {
    pub fn new(wish: Wish) -> Rig {
        let (lan, wan, middle) =
            (Namespace::new("lan"), Namespace::new("wan"), Namespace::new("gw"));
        let files = Files::new();
        files.write("gateway.toml", &config(&files, &wish));
        files.write("rules.v4", wish.rules4);
        files.write("rules.v6", wish.rules6);
        wish.labels.map(|text| files.write("connlabel.conf", text));
        if wish.wires == Wires::AfPacket {
            for (end, host, port) in [(&LAN, &lan, "gw-lan"), (&WAN, &wan, "gw-wan")] {
                veth(end, host, &middle, port);
            }
        }
        let gateway = Gateway::start(files, Some(&middle));
        for (end, host) in [(&LAN, &lan), (&WAN, &wan)] {
            if wish.wires == Wires::Tap {
                middle.run(&format!("ip link set {} netns {}", end.interface, host.name()));
            }
            attach(end, host);
        }
        wan.run(&format!("ip link set wan-host mtu {}", wish.wan_mtu));
        wan.run(&format!("ip address add {BEHIND}/32 dev lo"));
        Rig { gateway, lan, wan, middle }
    }

    pub fn files(&self) -> &Files {
        &self.gateway.files
    }

    /// curl on the LAN host.
    pub fn curl(&self, arguments: &str) -> Output {
        curl(&self.lan, arguments)
    }

    /// Every frame has ended once: the totals agree.
    pub fn assert_balance(&self) {
        assert_balance(self.files());
    }

    /// Frames that each worker has handed over.
    pub fn handed_over(&self) -> Vec<u64> {
        let stats = self.files().stats();
        let lcores = stats["lcores"].as_array().expect("a list of workers");
        lcores.iter().map(|l| l["handed_over"].as_u64().expect("a number of frames")).collect()
    }

    /// Packets dropped for a reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        let stats = self.files().stats();
        stats["drops"][reason].as_u64().unwrap_or_else(|| panic!("no reason {reason}"))
    }

    /// Waits until the table lists a line with all these words.
    pub fn wait_for_conn(&self, words: &[&str]) -> String {
        let mut found = String::new();
        eventually(&format!("a conn with {words:?}"), || {
            let table = self.files().ask("conntrack -L");
            let line = table.lines().find(|line| words.iter().all(|word| line.contains(word)));
            line.map(|line| found = line.to_owned()).is_some()
        });
        found
    }
}

/// Every frame has ended once: the totals agree. Counters of several workers are not read in one
/// moment, so a frame between them may take a few looks.
pub fn assert_balance(files: &Files) {
    let mut totals = String::new();
    let balanced = (0..20).any(|look| {
        std::thread::sleep(Duration::from_millis(10 * u64::from(look > 0)));
        let stats = files.stats();
        let n = |name: &str| stats["totals"][name].as_u64().expect("a number of frames");
        let ends = n("tx") + n("to_host") + n("dropped") + n("held");
        let drops = stats["drops"].as_object().expect("counts by reason");
        let dropped: u64 = drops.values().map(|v| v.as_u64().expect("a number of frames")).sum();
        totals = format!("{} {}", stats["totals"], stats["drops"]);
        n("rx") + n("generated") == ends && dropped == n("dropped")
    });
    assert!(balanced, "{totals}");
}

/// curl in a namespace, silent but for errors.
pub fn curl(namespace: &Namespace, arguments: &str) -> Output {
    namespace.try_run(&format!("curl -sS --max-time 60 {arguments}"))
}

/// A veth pair between a host and an interface `port` of the middle.
pub fn veth(end: &End, host: &Namespace, middle: &Namespace, port: &str) {
    let (host_end, host_name) = (end.interface, host.name());
    middle.run(&format!("ip link add {port} type veth peer name {host_end} netns {host_name}"));
    middle.run(&format!("ip link set {port} addrgenmode none up"));
    // Local kernels hand frames of 64 KiB with half a checksum to a veth otherwise.
    middle.run(&format!("ethtool -K {port} tx off rx off gso off tso off gro off"));
    host.run(&format!("ethtool -K {host_end} tx off rx off gso off tso off gro off"));
}

/// Gives a host's end its addresses and routes.
pub fn attach(end: &End, host: &Namespace) {
    let interface = end.interface;
    host.run(&format!("ip link set {interface} address {} addrgenmode none", end.mac));
    host.run(&format!("ip link set {interface} up"));
    for address in end.addresses {
        host.run(&format!("ip address add {address} dev {interface}"));
    }
    for gateway in end.gateways.into_iter().filter(|gateway| !gateway.is_empty()) {
        host.run(&format!("ip route add default via {gateway}"));
    }
}

/// The configuration for a wish.
pub fn config(files: &Files, wish: &Wish) -> String {
    let [lan, wan] = match wish.wires {
        Wires::Tap => ["net_tap0,iface=lan-host", "net_tap1,iface=wan-host"],
        Wires::AfPacket => ["net_af_packet0,iface=gw-lan", "net_af_packet1,iface=gw-wan"],
    };
    let queues =
        wish.queues.map_or(String::new(), |n| format!("rx_queues = {n}\ntx_queues = {n}\n"));
    files.head(wish.eal)
        + &format!(
            "\n[[port]]\nname = \"lan\"\ndevice = \"{lan}\"\nmac = \"02:00:00:00:77:01\"\n\
             addresses = [\"{LAN_GATEWAY}/24\", \"{LAN_GATEWAY6}/64\"]\n{}\n{queues}\
             \n[[port]]\nname = \"wan\"\ndevice = \"{wan}\"\nmac = \"02:00:00:00:78:01\"\n\
             addresses = [\"{WAN_GATEWAY}/24\", \"{WAN_GATEWAY6}/64\"]\nmtu = {}\n{}\n{queues}\
             \n[[route]]\nto = \"0.0.0.0/0\"\nvia = \"{WAN_HOST}\"\nport = \"wan\"\n\
             \n[conntrack]\nhashsize = 4096\n{}\
             \n[rules]\nipv4 = \"rules.v4\"\nipv6 = \"rules.v6\"\n",
            wish.ports[0],
            wish.wan_mtu,
            wish.ports[1],
            wish.labels.map_or("", |_| "label_names = \"connlabel.conf\"\n"),
        )
}
