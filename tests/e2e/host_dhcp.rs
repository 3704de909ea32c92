//! A DHCP client on the box: the kernel's addresses and routes become the gateway's.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::gateway::eventually;
use crate::host_rig::{HostRig, HostWish};
use crate::rig::{BEHIND, LAN_HOST, WAN_HOST};
use crate::servers::{Server, body, exchange, udp_client};

/// The only address that the server has to give.
const LEASED: &str = "198.51.100.55";

/// A bench whose WAN port has no address, a DHCP server and hosts behind it. The rig drops last, as
/// it has the logs of the others.
struct Bench {
    dhcp: Daemon,
    servers: Vec<Server>,
    rig: HostRig,
}

impl Bench {
    fn new() -> Bench {
        // No rule of INPUT lets the server's answers in: a client that has no address yet hears
        // them before any hook.
        let rig = HostRig::new(HostWish { addressed: false, ..HostWish::default() });
        // The LAN host's first packets may meet a gateway that has no route yet.
        let mut servers = vec![Server::http(&rig.wan, &format!("{BEHIND}:80"))];
        servers.push(Server::udp_echo(&rig.wan, &format!("{BEHIND}:7")));
        let line = format!(
            "dnsmasq --no-daemon --conf-file=/dev/null --pid-file= --user=root --group=root \
             --port=0 --interface=wan-host --bind-interfaces --dhcp-authoritative --no-ping \
             --log-dhcp --dhcp-range={LEASED},{LEASED},255.255.255.0,2m \
             --dhcp-option=option:router,{WAN_HOST} --dhcp-leasefile={}",
            rig.files().path("leases").display()
        );
        let dhcp = Daemon::start(&rig.wan, rig.files(), "dnsmasq", &line);
        eventually("dnsmasq listens", || dhcp.log().contains("DHCP, IP range"));
        Bench { dhcp, servers, rig }
    }

    /// How often the DHCP server has said a word.
    fn said(&self, word: &str) -> usize {
        self.dhcp.log().matches(word).count()
    }

    fn script(&self, text: &str) -> String {
        let path = self.rig.files().write("lease.sh", text);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, mode).expect("it is ours");
        path.display().to_string()
    }

    fn has_lease(&self) -> bool {
        self.rig.gw.run("ip -4 address show dev sgh-wan").contains(&format!("inet {LEASED}/24"))
    }

    /// The LAN host is masqueraded to the leased address, behind the leased route.
    fn assert_used(&self) {
        let url = format!("http://{BEHIND}/100000");
        eventually("the leased address and route are used", || self.rig.reaches(&url));
        assert!(self.rig.curl(&url).stdout == body(100_000));
        let to = format!("{BEHIND}:7");
        let inside = udp_client(&self.rig.lan, &format!("{LAN_HOST}:4007"), &to);
        let answer = exchange(&inside, b"x").expect("an echo");
        assert_eq!(String::from_utf8_lossy(&answer), format!("{LEASED}:4007 x"));
        let box_itself = udp_client(&self.rig.gw, "0.0.0.0:4008", &to);
        let answer = exchange(&box_itself, b"x").expect("an echo");
        assert_eq!(String::from_utf8_lossy(&answer), format!("{LEASED}:4008 x"));
        assert!(self.pings(), "the box is reached by its leased address");
    }

    fn pings(&self) -> bool {
        self.rig.wan.try_run(&format!("ping -c 1 -W 1 {LEASED}")).status.success()
    }

    /// Neither the address nor the route is there any more, for the kernel or the gateway.
    fn assert_gone(&self) {
        eventually("the kernel has no address", || !self.has_lease());
        let url = format!("http://{BEHIND}/1");
        eventually("the LAN host is cut off", || !self.rig.reaches(&url));
        self.rig.wan.run("ip neigh flush dev wan-host");
        assert!(!self.pings(), "the address is nobody's");
        let asked = self.rig.wan.run(&format!("ip neigh show {LEASED}"));
        assert!(!asked.contains("lladdr"), "{asked}");
    }

    fn finish(self) {
        drop((self.dhcp, self.servers));
        self.rig.finish();
    }
}

#[test]
fn udhcpc_gets_renews_and_releases_the_wan_address() {
    let bench = Bench::new();
    assert!(!bench.rig.reaches(&format!("http://{BEHIND}/1")), "there is no address yet");
    let script = bench.script(
        "#!/bin/sh\ncase $1 in\n\
         deconfig) ip -4 address flush dev $interface ;;\n\
         bound | renew) ip address replace $ip/$mask dev $interface\n\
         ip route replace default via $router dev $interface ;;\nesac\n",
    );
    // With the flag that asks for answers by broadcast, as the client has no address yet.
    let line = format!("udhcpc -f -B -i sgh-wan -s {script} -t 20 -T 1 -A 1");
    let client = Daemon::start(&bench.rig.gw, bench.rig.files(), "udhcpc", &line);
    eventually("a lease", || bench.has_lease());
    bench.assert_used();

    // A renewal is a conn of the box like any other, from the leased address.
    let before = bench.said("DHCPACK");
    client.signal(Signal::SIGUSR1);
    eventually("a renewal", || bench.said("DHCPACK") > before);
    assert_eq!(bench.said("DHCPDISCOVER"), bench.said("DHCPOFFER"));
    bench.assert_used();

    client.signal(Signal::SIGUSR2);
    bench.assert_gone();
    eventually("the server knows", || bench.said("DHCPRELEASE") == 1);
    drop(client);
    bench.finish();
}

#[test]
fn dhclient_gets_an_address_that_expires() {
    let bench = Bench::new();
    let script = bench.script(
        "#!/bin/sh\ncase $reason in\n\
         PREINIT) ip link set $interface up ;;\n\
         BOUND | RENEW | REBIND | REBOOT)\n\
         ip address replace $new_ip_address/$new_subnet_mask dev $interface\n\
         ip route replace default via $new_routers dev $interface ;;\n\
         EXPIRE | FAIL | RELEASE | STOP) ip -4 address flush dev $interface ;;\nesac\n",
    );
    let files = bench.rig.files();
    let config = files.write(
        "dhclient.conf",
        "initial-delay 0;\ninitial-interval 1;\nbackoff-cutoff 1;\nretry 1;\n\
         request subnet-mask, routers;\n",
    );
    let [config, leases, pid] = [config, files.path("dhclient.leases"), files.path("dhclient.pid")]
        .map(|path| path.display().to_string());
    // It does not ask for answers by broadcast: they come to the address that is offered.
    let line = format!("dhclient -4 -d -cf {config} -sf {script} -lf {leases} -pf {pid} sgh-wan");
    let client = Daemon::start(&bench.rig.gw, files, "dhclient", &line);
    eventually("a lease", || bench.has_lease());
    bench.assert_used();
    // Ended without a word to the server; then the kernel's own clock takes the address away.
    drop(client);
    bench
        .rig
        .gw
        .run(&format!("ip address change {LEASED}/24 dev sgh-wan valid_lft 2 preferred_lft 2"));
    bench.assert_gone();
    assert_eq!(bench.said("DHCPRELEASE"), 0);
    bench.finish();
}
