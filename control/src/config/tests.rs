//! The configurations that ship, and one of every mistake.

use super::*;

const GOOD: &str = r#"
[[port]]
name = "lan"
device = "net_tap0,iface=sg-lan"
mac = "02:00:00:00:10:01"
addresses = ["192.168.10.1/24", "fd00:10::1/64"]

[[port]]
name = "wan"
device = "net_tap1,iface=sg-wan"
addresses = ["203.0.113.1/24", "203.0.113.10/24"]
mtu = 1300

[[route]]
to = "0.0.0.0/0"
via = "203.0.113.254"
port = "wan"

[[neighbour]]
address = "203.0.113.254"
mac = "02:00:00:00:20:fe"
port = "wan"
"#;

const RAM: u64 = 8 << 30;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("dir/g.toml"), text, RAM)
}

/// The message for [`GOOD`] with more text after it.
fn complaint(more: &str) -> String {
    parse(&format!("{GOOD}{more}")).unwrap_err().to_string()
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs").join(name)
}

#[test]
fn defaults_are_filled_in() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.eal.worker_cores, [1]);
    assert_eq!((config.eal.memory_mb, config.eal.mbufs, config.eal.burst), (512, None, 32));
    assert_eq!((config.eal.hugepages, config.eal.idle), (Hugepages::Auto, Idle::Poll));
    let [lan, wan] = &config.ports[..] else { panic!("two ports") };
    assert_eq!((lan.mtu, wan.mtu, wan.mac), (1500, 1300, None));
    assert_eq!(lan.mac, Some([2, 0, 0, 0, 0x10, 1]));
    assert_eq!(lan.addresses[0].prefix, 24);
    assert_eq!((config.routes[0].port, config.neighbours[0].port), (1, 1));
    let table = &config.conntrack;
    assert_eq!((table.hashsize, table.max), (65_536, 262_144));
    assert_eq!(table.knobs, Knobs::default());
    assert_eq!(config.socket, Path::new(SOCKET_DEFAULT));
    assert_eq!(config.log_level, log::LevelFilter::Info);
}

#[test]
fn a_port_may_have_a_kernel_interface_of_its_own_name() {
    let tapped =
        |name: &str| parse(&GOOD.replacen("mtu = 1300", &format!("host_tap = {name:?}"), 1));
    let config = tapped("wan").unwrap();
    let names: Vec<_> = config.ports.iter().map(|p| p.host_tap.as_deref()).collect();
    assert_eq!(names, [None, Some("wan")]);
    let both = GOOD.replace("device =", "host_tap = \"sgh\"\ndevice =");
    let error = parse(&both).unwrap_err();
    assert!(error.message.contains("is the host_tap of another port"), "{error}");
}

#[test]
fn knobs_take_booleans_and_numbers() {
    let full = |text| parse(&format!("{GOOD}[conntrack]\n{text}\n")).unwrap().conntrack;
    assert!(full("full = \"refuse\"").refuses_when_full);
    assert!(!full("full = \"early-drop\"").refuses_when_full && !full("").refuses_when_full);
    let more = "[conntrack]\nbuckets = 1000\nacct = true\ntcp_loose = 0\nudp_timeout = 7\n";
    let table = parse(&format!("{GOOD}{more}")).unwrap().conntrack;
    assert_eq!((table.hashsize, table.max, table.names_sizes), (1000, 4000, (true, false)));
    assert_eq!(table.knobs.get("acct"), Some(1));
    assert_eq!(table.knobs.get("tcp_loose"), Some(0));
    assert_eq!(table.knobs.get("udp_timeout"), Some(7));
    let mut named = table.named.clone();
    named.sort();
    assert_eq!(named, ["acct", "tcp_loose", "udp_timeout"]);
}

#[test]
fn every_shipped_configuration_loads() {
    let mut names: Vec<PathBuf> = std::fs::read_dir(shipped(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .collect();
    names.sort();
    assert!(names.len() >= 2);
    for name in names {
        Config::load(&name).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// A key that the reader knows and the reference does not show, or the reverse, is a defect.
#[test]
fn the_reference_names_every_knob_with_its_default() {
    let config = Config::load(&shipped("reference.toml")).unwrap();
    let mut named = config.conntrack.named.clone();
    named.sort();
    assert_eq!(named, Knobs::names());
    assert_eq!(config.conntrack.knobs, Knobs::default());
    let text = std::fs::read_to_string(shipped("reference.toml")).unwrap();
    let guide = std::fs::read_to_string(shipped("../docs/configuration.md")).unwrap();
    for key in [
        "control_core",
        "worker_cores",
        "hugepages",
        "memory_mb",
        "mbufs",
        "file_prefix",
        "args",
        "burst",
        "idle",
        "name",
        "device",
        "mac",
        "addresses",
        "mtu",
        "rx_queues",
        "tx_queues",
        "rx_descriptors",
        "tx_descriptors",
        "promiscuous",
        "vlan",
        "to",
        "via",
        "port",
        "address",
        "hashsize",
        "buckets",
        "max",
        "full",
        "ipv4",
        "ipv6",
        "on_reload",
        "socket",
        "level",
    ] {
        let shown =
            |l: &str| l.trim_start_matches("# ").split(" =").next().is_some_and(|k| k == key);
        assert!(text.lines().any(shown), "reference.toml lacks {key}");
        assert!(guide.contains(&format!("`{key}`")), "configuration.md lacks {key}");
    }
    for name in Knobs::names() {
        assert!(guide.contains(&format!("`{name}`")), "configuration.md lacks {name}");
    }
}

#[test]
fn a_mistake_has_its_place() {
    let text = GOOD.replace("mtu = 1300", "mtu = 1300\nno_such_key = 1");
    assert_eq!(
        parse(&text).unwrap_err().to_string(),
        "dir/g.toml:13:1: [[port]] has no key \"no_such_key\"; it takes addresses, \
         device, host_tap, mac, mtu, name, promiscuous, rx_descriptors, rx_queues, \
         tx_descriptors, tx_queues, vlan"
    );
    assert_eq!(
        parse(&GOOD.replace("mtu = 1300", "mtu = 10")).unwrap_err().to_string(),
        "dir/g.toml:12:7: [[port]] mtu = 10: must be a number from 68 to 9600"
    );
    assert!(parse("[eal\n").unwrap_err().to_string().starts_with("dir/g.toml:1:5: "));
    assert_eq!(parse("").unwrap_err().to_string(), "dir/g.toml:1:1: there is no [[port]]");
    let unreadable = Config::load(Path::new("/nonexistent/g.toml")).unwrap_err().to_string();
    assert!(unreadable.starts_with("/nonexistent/g.toml:1:1: cannot be read: "), "{unreadable}");
}

#[test]
fn mistakes_in_ports() {
    for (from, to, message) in [
        ("name = \"wan\"", "name = \"lan\"", "name = \"lan\": is the name of another port"),
        ("name = \"wan\"", "name = \"abcdefghijklmnop\"", "must have 1 to 15 characters"),
        ("name = \"wan\"", "name = \"a b\"", "may have letters, digits"),
        ("name = \"wan\"", "name = \"lo\"", "loopback"),
        ("name = \"wan\"\n", "", "[[port]] needs the key \"name\""),
        ("net_tap1,iface=sg-wan", "net_tap0,iface=sg-lan", "is the device of another port"),
        ("203.0.113.10/24", "192.168.10.1/16", "is given twice"),
        ("203.0.113.10/24", "203.0.113.10", "lacks a prefix"),
        ("203.0.113.10/24", "203.0.113.10/33", "must be like 192.0.2.1/24"),
        ("203.0.113.10/24", "203.0.113.0/24", "is the first or last address of its network"),
        ("203.0.113.10/24", "224.0.0.1/24", "is not a unicast address"),
        ("02:00:00:00:10:01", "01:00:00:00:10:01", "must be a unicast address"),
        ("02:00:00:00:10:01", "02:00:00:00:10", "must be like 02:00:00:00:10:01"),
        ("mtu = 1300", "host_tap = \"a/b\"", "may have letters, digits"),
        ("mtu = 1300", "host_tap = \"sixteen-letters-\"", "must have 1 to 15 characters"),
        ("mtu = 1300", "host_tap = \"lo\"", "is a name that Linux uses itself"),
        ("mtu = 1300", "host_tap = \"sg-lan\"", "is the interface of a port's own device"),
        ("mtu = 1300", "host_tap = \"sg-wan\"", "is the interface of a port's own device"),
        ("mac = \"02:00:00:00:10:01\"", "host_tap = \"sg-wan\"", "that is a host_tap"),
        ("mtu = 1300", "rx_queues = 257", "must be a number from 1 to 256"),
        ("mtu = 1300", "rx_descriptors = 1", "must be a number from 64 to 32768"),
        ("mtu = 1300", "promiscuous = 2", "must be true, false, 0 or 1"),
        ("\"fd00:10::1/64\"]", "\"fd00:10::1/64\"]\nmtu = 1279", "from 1280 to 9600"),
        ("port = \"wan\"", "port = \"dmz\"", "no such port; there are lan, wan"),
        ("via = \"203.0.113.254\"", "via = \"198.51.100.1\"", "is in no network of port \"wan\""),
        ("via = \"203.0.113.254\"", "via = \"203.0.113.10\"", "is the gateway's own address"),
        ("to = \"0.0.0.0/0\"", "to = \"::/0\"", "is of another family"),
        ("to = \"0.0.0.0/0\"", "to = \"10.0.0.1/8\"", "has host bits; the network is 10.0.0.0/8"),
        ("mac = \"02:00:00:00:20:fe\"\n", "", "[[neighbour]] needs the key \"mac\""),
        ("\naddress = \"203.0.113.254\"", "\naddress = \"192.168.10.2\"", "is in no network"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert!(error.message.contains(message), "{to}: {error}");
        assert!(error.line > 1, "{error}");
    }
}

/// [`GOOD`] with another `[[port]]` of these lines in front, so that what it refers to comes later
/// in the file.
fn with_port(lines: &str) -> Result<Config, ConfigError> {
    parse(&format!("[[port]]\n{lines}\n{GOOD}"))
}

#[test]
fn sub_interfaces_are_named_as_in_linux_or_by_keys() {
    let lan_device = "device = \"net_tap0,iface=sg-lan\"";
    for (lines, parent, id, mtu) in [
        ("name = \"wan.10\"", 2, 10, 1300),
        ("name = \"wan.4094\"\nvlan = 4094", 2, 4094, 1300),
        ("name = \"lan.1\"\nmtu = 1400", 1, 1, 1400),
        ("name = \"guests\"\ndevice = \"lan\"\nvlan = 7", 1, 7, 1500),
        ("name = \"lan.7\"\ndevice = \"lan\"", 1, 7, 1500),
        (&format!("name = \"guests\"\n{lan_device}\nvlan = 7"), 1, 7, 1500),
        (&format!("name = \"lan.7\"\n{lan_device}"), 1, 7, 1500),
        // A dotted name says nothing where other keys say it all.
        ("name = \"x.9\"\ndevice = \"lan\"\nvlan = 7", 1, 7, 1500),
    ] {
        let config = with_port(lines).unwrap_or_else(|e| panic!("{lines}: {e}"));
        let [sub, lan, wan] = &config.ports[..] else { panic!("three ports") };
        assert_eq!((sub.vlan, sub.mtu), (Some(Vlan { parent, id }), mtu), "{lines}");
        assert!(!sub.has_device() && lan.has_device() && wan.has_device());
        assert_eq!((sub.device.as_str(), sub.mac), ("", config.ports[parent].mac));
        let mut macs = [[1; 6], [2; 6], [3; 6]];
        config.share_macs(&mut macs);
        assert_eq!(macs[0], [parent as u8 + 1; 6]);
    }
    // Two of one device, and one id on two devices; routes and neighbours know them.
    let more = "[[port]]\nname = \"wan.10\"\naddresses = [\"10.0.10.1/24\"]\n\
                [[port]]\nname = \"a\"\ndevice = \"net_tap1,iface=sg-wan\"\nvlan = 20\n\
                [[port]]\nname = \"b\"\ndevice = \"net_tap1,iface=sg-wan\"\nvlan = 30\n\
                [[port]]\nname = \"lan.10\"\nmac = \"02:00:00:00:10:01\"\n\
                [[route]]\nto = \"10.9.0.0/16\"\nvia = \"10.0.10.9\"\nport = \"wan.10\"\n\
                [[neighbour]]\naddress = \"10.0.10.9\"\nmac = \"02:00:00:00:00:09\"\n\
                port = \"wan.10\"\n";
    let config = parse(&format!("{GOOD}{more}")).unwrap();
    let vlans: Vec<_> =
        config.ports.iter().filter_map(|p| Some((p.vlan?.parent, p.vlan?.id))).collect();
    assert_eq!(vlans, [(1, 10), (1, 20), (1, 30), (0, 10)]);
    assert_eq!((config.routes[1].port, config.neighbours[1].port), (2, 2));
    // A dot in the name of a port with a device is a dot.
    let config = with_port("name = \"wan.10\"\ndevice = \"net_null0\"").unwrap();
    assert_eq!((config.ports[0].vlan, config.ports[0].device.as_str()), (None, "net_null0"));
}

#[test]
fn mistakes_in_sub_interfaces() {
    let v6 = "addresses = [\"fd00:99::1/64\"]";
    for (lines, message) in [
        ("name = \"wan.0\"", "what follows \"wan.\" is no VLAN id from 1 to 4094"),
        ("name = \"wan.4095\"", "name = \"wan.4095\": what follows \"wan.\" is no VLAN id"),
        ("name = \"wan.x\"", "what follows \"wan.\" is no VLAN id"),
        ("name = \"wam.10\"", "name = \"wam.10\": has no device, and there is no port \"wam\""),
        ("name = \"guests\"", "[[port]] needs the key \"device\""),
        ("name = \"guests\"\nvlan = 7", "needs the key \"device\": the port that VLAN 7 is of"),
        ("name = \"wan.10\"\nvlan = 11", "vlan = 11: the name says 10"),
        ("name = \"wan.10\"\nvlan = 0", "vlan = 0: must be a number from 1 to 4094"),
        ("name = \"g\"\ndevice = \"lan\"\nvlan = 4095", "must be a number from 1 to 4094"),
        ("name = \"g\"\ndevice = \"dmz\"\nvlan = 7", "must be the name or the device of the port"),
        ("name = \"g\"\ndevice = \"g\"\nvlan = 7", "must be the name or the device of the port"),
        ("name = \"g\"\ndevice = \"lan\"", "its sub-interface needs the key \"vlan\""),
        ("name = \"wan.1\"\nmtu = 1301", "mtu = 1301: must not exceed that of port \"wan\", 1300"),
        ("name = \"lan.1\"\nmac = \"02:00:00:00:10:02\"", "must be that of port \"lan\""),
        ("name = \"wan.1\"\nmac = \"02:00:00:00:10:02\"", "must be that of port \"wan\""),
        ("name = \"wan.1\"\nrx_queues = 1", "rx_queues = 1: a sub-interface has no device"),
        ("name = \"wan.1\"\ntx_queues = 1", "a sub-interface has no device of its own"),
        ("name = \"wan.1\"\nrx_descriptors = 64", "a sub-interface has no device of its own"),
        ("name = \"wan.1\"\ntx_descriptors = 64", "a sub-interface has no device of its own"),
        ("name = \"wan.1\"\npromiscuous = false", "a sub-interface has no device of its own"),
        ("name = \"wan.1\"\nhost_tap = \"sg-wan\"", "has the interface that is a host_tap"),
        (
            "name = \"a\"\ndevice = \"wan\"\nvlan = 5\n[[port]]\nname = \"wan.5\"",
            "name = \"wan.5\": port \"a\" is the same VLAN of the same device",
        ),
        (
            "name = \"wan.5\"\n[[port]]\nname = \"wan.5.6\"",
            "name = \"wan.5.6\": the port \"wan.5\" is a sub-interface itself",
        ),
        (
            "name = \"a\"\ndevice = \"b\"\nvlan = 1\n\
             [[port]]\nname = \"b\"\ndevice = \"a\"\nvlan = 1",
            "device = \"b\": the port \"b\" is a sub-interface itself",
        ),
        ("name = \"wan.1\"\nno_such_key = 1", "has no key \"no_such_key\""),
    ] {
        let error = with_port(lines).unwrap_err();
        assert!(error.message.contains(message), "{lines}: {error}");
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
    let small = GOOD.replace("mtu = 1300", "mtu = 1000");
    let error = parse(&format!("{small}[[port]]\nname = \"wan.1\"\n{v6}\n")).unwrap_err();
    assert!(error.message.contains("\"wan\" an MTU below 1280"), "{error}");
    // Each is a port to be counted, only some are devices.
    let many = |n: usize, more: &str| {
        let port =
            |n| format!("[[port]]\nname = \"p{n}\"\n{}\n", more.replace('N', &format!("{n}")));
        parse(&(GOOD.to_owned() + &(1..=n).map(port).collect::<String>()))
    };
    let vlan = "device = \"lan\"\nvlan = N";
    assert_eq!(many(126, vlan).unwrap().ports.len(), PORTS_MAX);
    assert!(many(127, vlan).unwrap_err().message.contains("more than 128 ports and taps are not"));
    assert_eq!(many(30, "device = \"net_nullN\"").unwrap().ports.len(), DEVICES_MAX);
    let error = many(31, "device = \"net_nullN\"").unwrap_err();
    assert!(error.message.contains("more than 32 devices and taps"), "{error}");
}

#[test]
fn mistakes_elsewhere() {
    for (more, message) in [
        ("[eal]\nworker_cores = [1, 1024]", "must be CPU numbers"),
        ("[eal]\nworker_cores = []", "must name 1 to 127 CPUs"),
        ("[eal]\nworker_cores = [\"a\"]", "must be CPU numbers"),
        ("[eal]\nburst = 65", "must be a number from 1 to 64"),
        ("[eal]\nhugepages = \"no\"", "must be \"auto\", true or false"),
        ("[eal]\nidle = \"nap\"", "must be \"poll\" or \"sleep\""),
        ("[eal]\nargs = \"--no-pci\"", "must be a list in brackets"),
        ("[eal]\nfile_prefix = \"a/b\"", "letters, digits, _ or -"),
        ("[conntrack]\nmax = 0", "[conntrack] max = 0: must be a number from 1 to 268435456"),
        ("[conntrack]\nmax = -1", "must be a number from 1 to 268435456"),
        ("[conntrack]\nhashsize = 2\nbuckets = 2", "is another name of hashsize"),
        ("[conntrack]\nacct = 2", "[conntrack] acct = 2: must be true, false, 0 or 1"),
        ("[conntrack]\nudp_timeout = \"30\"", "must be a number from 0 to"),
        ("[conntrack]\nnf_conntrack_acct = 1", "has no key \"nf_conntrack_acct\""),
        ("[conntrack]\nexpect_max = 0", "must be a number from 1 to 262144"),
        ("[helper.tftp]\nmax_expected = 0", "[helper.tftp] max_expected = 0: must be a number"),
        ("[helper.tftp]\nports = 69", "[helper.tftp] has no key \"ports\""),
        ("[helper.foo]\ntimeout = 1", "[helper] has no key \"foo\"; it takes tftp"),
        ("[conntrack]\nfull = \"maybe\"", "must be \"early-drop\" or \"refuse\""),
        ("[conntrack]\nhashsize = 0", "must be"),
        ("[conntrack]\nhashsize = 536870912", "must be"),
        ("[rules]\nsets = \"x\"", "dir/x cannot be read"),
        ("[rules]\non_reload = \"x\"", "must be \"reevaluate\" or \"keep\" or \"kill-denied\""),
        ("[rules]\nipv4 = \"none.v4\"", "dir/none.v4 cannot be read"),
        ("[conntrack]\nlabel_names = \"none.conf\"", "dir/none.conf cannot be read"),
        ("[conntrack]\nlabel_names = 5", "must be a text in quotes"),
        ("[control]\nmetrics = \"x\"", "metrics is not supported in this version"),
        ("[control]\nsocket = \"\"", "must have 1 to 103 bytes"),
        ("[log]\nlevel = \"loud\"", "must be \"off\" or \"error\""),
        ("[timeout_policy.slow]\nudp = 1", "has no key \"udp\""),
        ("[timeout_policy.slow]\nudp_timeout = \"x\"", "must be a number from 0 to"),
        ("[timeout_policy.\"a b\"]", "a policy's name has 1 to 31 letters"),
        ("[timeout_policy]\nslow = 1", "[slow] must be a table"),
        ("[helper.ftp]\ntimeout = 1", "[helper] ftp is not supported in this version"),
        ("[nonsense]\na = 1", "the file has no key \"nonsense\""),
        ("[port]\na = 1", ""),
    ] {
        let text = complaint(more);
        assert!(text.contains(message), "{more}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn a_policy_s_timeouts_are_the_file_s_with_what_it_changes() {
    let policies = "[timeout_policy.z]\nudp_timeout = 300\ntcp_timeout_syn_sent2 = 7\n\
                    [timeout_policy.a-1]\n[conntrack]\nudp_timeout = 31\nicmp_timeout = 32\n";
    let config = parse(&format!("{GOOD}{policies}")).unwrap();
    let [(z, slow), (a, plain)] = config.timeout_policies.as_slice() else { panic!() };
    assert_eq!((z.as_str(), a.as_str()), ("z", "a-1"), "in the order of the file");
    let secs = |t: &Timeouts| [Timeout::Udp, Timeout::Icmp, Timeout::TcpSynSent2].map(|w| t.get(w));
    assert_eq!((secs(slow), secs(plain)), ([300, 32, 7], [31, 32, 120]));
}

#[test]
fn a_threshold_takes_the_lower_bound_along_unless_that_is_named() {
    let knobs = |more: &str| parse(&format!("{GOOD}{more}")).unwrap().conntrack;
    let low = knobs("[ipfrag]\nhigh_thresh = 1000\ntime = 7");
    let ipfrag = |name| low.knobs.get(&format!("ipfrag_{name}"));
    assert_eq!((ipfrag("high_thresh"), ipfrag("low_thresh")), (Some(1000), Some(1000)));
    assert_eq!(ipfrag("time"), Some(7));
    let high = knobs("[conntrack]\nfrag6_high_thresh = 5000000\nfrag6_low_thresh = 4500000");
    assert_eq!(high.knobs.frag6_low_thresh, 4_500_000);
    let text = parse(&format!("{GOOD}[ipfrag]\nhigh_thresh = 5\nlow_thresh = 6")).unwrap_err();
    assert!(text.to_string().contains("must not be more than high_thresh"), "{text}");
    let text = parse(&format!("{GOOD}[ipfrag]\nlow_thresh = 5000000")).unwrap_err();
    assert!(text.to_string().contains("[ipfrag] low_thresh"), "{text}");
    assert!(parse(&format!("{GOOD}[ipfrag]\nhigh = 5")).is_err());
}

#[test]
fn the_file_with_the_names_of_labels_has_its_usual_place() {
    assert_eq!(
        parse(GOOD).unwrap().conntrack.label_names,
        Path::new("/etc/xtables/connlabel.conf")
    );
    // Tests of a package run in its folder.
    let text = format!("{GOOD}[conntrack]\nlabel_names = \"../Cargo.toml\"");
    let here = Config::parse(Path::new("control/g.toml"), &text, RAM).unwrap();
    assert_eq!(here.conntrack.label_names, Path::new("control/../Cargo.toml"));
}

#[test]
fn a_shared_cpu_sleeps_by_default() {
    let idle = |eal: &str| parse(&format!("{GOOD}[eal]\n{eal}")).unwrap().eal.idle;
    assert_eq!(idle("worker_cores = [0]"), Idle::Sleep);
    assert_eq!(idle("worker_cores = [1, 2]"), Idle::Poll);
    assert_eq!(idle("worker_cores = [1, 2, 1]"), Idle::Sleep);
    assert_eq!(idle("worker_cores = [0]\nidle = \"poll\""), Idle::Poll);
    assert_eq!(idle("control_core = 2"), Idle::Poll);
}
