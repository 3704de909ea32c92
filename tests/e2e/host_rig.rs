//! The bench of the host path: programs on the gateway box itself, reached through kernel
//! interfaces (`host_tap`), between the hosts of [`crate::rig`].
//!
//! ```text
//!  [ LAN host ] ------- lan |          Sluicegate          | wan ------- [ WAN host ]
//!                           |  sgh-lan            sgh-wan  |
//!                           [ sshd, FRR, a DHCP client ... ]
//! ```
//! With `SLUICEGATE_TEST_HOST=kernel` the kernel itself is the gateway, on veth pairs that have the
//! names of the taps: what a test asks of Sluicegate is what Linux does.

use std::process::Output;

use crate::gateway::{Files, Gateway, eventually};
use crate::netns::{Namespace, demand_programs};
use crate::rig::{
    BEHIND, LAN, LAN_GATEWAY, LAN_GATEWAY6, WAN, WAN_GATEWAY, WAN_GATEWAY6, WAN_HOST, WAN_HOST6,
    assert_balance, attach, curl, veth,
};

/// What these tests start beside what all start.
const PROGRAMS: [&str; 8] =
    ["iptables-restore", "ssh", "ssh-keygen", "sshd", "dnsmasq", "dhclient", "udhcpc", "vtysh"];

const LAN_MAC: &str = "02:00:00:00:77:01";
const WAN_MAC: &str = "02:00:00:00:78:01";

/// The rules most of these tests load, in both families; [`HostWish`] adds to INPUT. Everything out
/// is masqueraded, programs on the box are reached where INPUT says so.
const RULES: &str = "\
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
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ICMP -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
COMMIT
";

/// What a test wants of its bench.
pub struct HostWish {
    /// Lines of `[eal]`.
    pub eal: &'static str,
    /// Rules before the first one of INPUT, in both families.
    pub input: &'static str,
    /// A whole table set instead of [`RULES`] for IPv4.
    pub rules4: Option<String>,
    /// The same for IPv6.
    pub rules6: Option<String>,
    /// Whether the file gives the WAN port its addresses (and the box a default route).
    pub addressed: bool,
}

impl Default for HostWish {
    fn default() -> HostWish {
        HostWish { eal: "", input: "", rules4: None, rules6: None, addressed: true }
    }
}

/// Two hosts and the box between them. Fields drop in this order: the process first.
pub struct HostRig {
    /// `None` where the kernel is the gateway.
    gateway: Option<Gateway>,
    /// The folder where there is no gateway to own it.
    folder: Option<Files>,
    pub lan: Namespace,
    pub wan: Namespace,
    pub gw: Namespace,
}

impl HostRig {
    pub fn new(wish: HostWish) -> HostRig {
        demand_programs(&PROGRAMS);
        let (lan, wan, gw) = (Namespace::new("lan"), Namespace::new("wan"), Namespace::new("gw"));
        let files = Files::new();
        for (name, whole, icmp) in
            [("rules.v4", &wish.rules4, "icmp"), ("rules.v6", &wish.rules6, "ipv6-icmp")]
        {
            let standard = RULES.replace("ICMP", icmp);
            let first = "-A INPUT -m conntrack";
            let standard = standard.replacen(first, &format!("{}{first}", wish.input), 1);
            files.write(name, whole.as_ref().unwrap_or(&standard));
        }
        wan.run(&format!("ip address add {BEHIND}/32 dev lo"));
        // To cut a wire is to set its end down, which costs it its IPv6 addresses otherwise.
        wan.run("sysctl -qw net.ipv6.conf.default.keep_addr_on_down=1");
        let rig = match std::env::var("SLUICEGATE_TEST_HOST").as_deref() {
            Ok("kernel") => HostRig { gateway: None, folder: Some(files), lan, wan, gw },
            Ok(other) => panic!("SLUICEGATE_TEST_HOST may be `kernel`, not `{other}`"),
            Err(_) => {
                files.write("gateway.toml", &config(&files, &wish));
                // Whatever is forwarded, it is not the kernel that does it.
                gw.run("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0");
                let gateway = Gateway::start(files, Some(&gw));
                HostRig { gateway: Some(gateway), folder: None, lan, wan, gw }
            }
        };
        match rig.gateway {
            Some(_) => rig.wire_up(),
            None => rig.kernel_up(&wish),
        }
        rig.settle(&wish);
        rig
    }

    /// Leads the wires to the hosts.
    fn wire_up(&self) {
        for (end, host) in [(&LAN, &self.lan), (&WAN, &self.wan)] {
            self.gw.run(&format!("ip link set {} netns {}", end.interface, host.name()));
            attach(end, host);
        }
    }

    /// Makes the kernel the gateway: veth pairs named like the taps, the same rules and addresses.
    fn kernel_up(&self, wish: &HostWish) {
        self.gw.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (end, host, tap, mac) in
            [(&LAN, &self.lan, "sgh-lan", LAN_MAC), (&WAN, &self.wan, "sgh-wan", WAN_MAC)]
        {
            veth(end, host, &self.gw, tap);
            self.gw.run(&format!("ip link set {tap} address {mac} addrgenmode eui64"));
            attach(end, host);
        }
        let addresses = [(true, "sgh-lan", LAN_GATEWAY, LAN_GATEWAY6)].into_iter().chain([(
            wish.addressed,
            "sgh-wan",
            WAN_GATEWAY,
            WAN_GATEWAY6,
        )]);
        for (_, tap, four, six) in addresses.filter(|(wanted, ..)| *wanted) {
            self.gw.run(&format!("ip address add {four}/24 dev {tap}"));
            self.gw.run(&format!("ip address add {six}/64 dev {tap}"));
        }
        for (name, program) in [("rules.v4", "iptables-restore"), ("rules.v6", "ip6tables-restore")]
        {
            let rules = std::fs::read_to_string(self.files().path(name)).expect("just written");
            let path = self.files().write(name, &kernel_names(&rules));
            self.gw.run(&format!("{program} {}", path.display()));
        }
    }

    /// Waits until the box has what the file says, and gives it its default routes.
    fn settle(&self, wish: &HostWish) {
        eventually("the kernel interfaces are up", || {
            let links = self.gw.run("ip -o link show up");
            ["sgh-lan", "sgh-wan"].iter().all(|tap| links.contains(&format!(" {tap}")))
        });
        eventually("the addresses of the file are there", || {
            let addresses = self.gw.run("ip -o address show");
            let has = |address: &str| addresses.contains(&format!(" {address}/"));
            let wan = [WAN_GATEWAY, WAN_GATEWAY6].iter().all(|address| has(address));
            has(LAN_GATEWAY) && has(LAN_GATEWAY6) && (!wish.addressed || wan)
        });
        if wish.addressed {
            self.gw.run(&format!("ip route add default via {WAN_HOST} dev sgh-wan"));
            self.gw.run(&format!("ip -6 route add default via {WAN_HOST6} dev sgh-wan"));
        }
    }

    pub fn files(&self) -> &Files {
        match &self.gateway {
            Some(gateway) => &gateway.files,
            None => self.folder.as_ref().expect("one of the two"),
        }
    }

    /// The gateway, where it is not the kernel.
    pub fn gateway(&mut self) -> Option<&mut Gateway> {
        self.gateway.as_mut()
    }

    /// Runs one of the tools, Sluicegate's or the kernel's of the same name; port names are those
    /// of the file.
    pub fn ask(&self, line: &str) -> String {
        match &self.gateway {
            Some(gateway) => gateway.files.ask(line),
            None => self.gw.run(line).replace("sgh-", ""),
        }
    }

    /// Packets that a rule has counted, named by its text in `iptables-save`.
    pub fn counted(&self, save: &str, table: &str, rule: &str) -> u64 {
        let saved = self.ask(&format!("{save} -c -t {table}"));
        let line = saved.lines().find(|line| line.ends_with(&format!("] {rule}")));
        let line = line.unwrap_or_else(|| panic!("no rule `{rule}` in\n{saved}"));
        packets(line)
    }

    /// Lines of the table with all these words.
    pub fn conns(&self, words: &[&str]) -> Vec<String> {
        let mut table = self.ask("conntrack -L -f ipv4");
        table.push_str(&self.ask("conntrack -L -f ipv6"));
        let lines = table.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    /// Frames that have passed a kernel interface of the box, both ways.
    pub fn passed(&self, interface: &str) -> u64 {
        let text = self.gw.run(&format!("ip -j -s link show {interface}"));
        let links: serde_json::Value = serde_json::from_str(&text).expect("ip prints JSON");
        let n = |way: &str| links[0]["stats64"][way]["packets"].as_u64().expect("a number");
        n("rx") + n("tx")
    }

    /// Cuts the WAN's wire or mends it. DPDK does not see the link of a `net_tap` whose kernel end
    /// is elsewhere; so this does to the box's interface what the gateway does when a link is lost.
    pub fn cut_wire(&self, cut: bool) {
        self.wan.run(&format!("ip link set {} {}", WAN.interface, if cut { "down" } else { "up" }));
        if self.gateway.is_some() {
            let carrier = if cut { "off" } else { "on" };
            self.gw.run(&format!("ip link set sgh-wan carrier {carrier}"));
        }
    }

    /// curl on the LAN host.
    pub fn curl(&self, arguments: &str) -> Output {
        curl(&self.lan, arguments)
    }

    /// Whether an HTTP server answers the LAN host.
    pub fn reaches(&self, url: &str) -> bool {
        self.curl(&format!("--connect-timeout 1 --max-time 2 {url}")).status.success()
    }

    /// The end of a test: every frame has ended once, and the gateway ends as it should and takes
    /// its interfaces with it.
    pub fn finish(mut self) {
        let Some(gateway) = &mut self.gateway else { return };
        assert_balance(&gateway.files);
        gateway.stop_cleanly();
        let links = self.gw.run("ip -o link show");
        assert!(!links.contains("sgh-"), "{links}");
    }
}

/// Packets counted by a line of `iptables-save -c`.
pub fn packets(line: &str) -> u64 {
    let number = line.trim_start_matches('[').split(':').next().and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("no counter in `{line}`"))
}

/// Rules for the kernel as the gateway.
fn kernel_names(rules: &str) -> String {
    let mut rules = rules.to_owned();
    for way in ["-i", "-o"] {
        for port in ["lan", "wan"] {
            rules = rules.replace(&format!("{way} {port} "), &format!("{way} sgh-{port} "));
        }
    }
    rules
}

fn config(files: &Files, wish: &HostWish) -> String {
    let port = |name: &str, device: &str, mac: &str, addresses: &str| {
        format!(
            "\n[[port]]\nname = \"{name}\"\ndevice = \"{device}\"\nmac = \"{mac}\"\n\
             addresses = [{addresses}]\nhost_tap = \"sgh-{name}\"\n"
        )
    };
    let lan = format!("net_tap0,iface={}", LAN.interface);
    let wan = format!("net_tap1,iface={}", WAN.interface);
    let wan_addresses = match wish.addressed {
        true => format!("\"{WAN_GATEWAY}/24\", \"{WAN_GATEWAY6}/64\""),
        false => String::new(),
    };
    files.head(wish.eal)
        + &port("lan", &lan, LAN_MAC, &format!("\"{LAN_GATEWAY}/24\", \"{LAN_GATEWAY6}/64\""))
        + &port("wan", &wan, WAN_MAC, &wan_addresses)
        + "\n[conntrack]\nhashsize = 4096\n\
           \n[rules]\nipv4 = \"rules.v4\"\nipv6 = \"rules.v6\"\n"
}
