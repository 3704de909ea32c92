//! A namespace with two ports' taps and an interface that is none.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dataplane::pipeline::route::RouteKind;
use dataplane::wire::address::Address;
use sluicegate::config::Prefixed;
use sluicegate::host::{Host, Tap};
use sluicegate::publish::Learnt;

use crate::netns::Namespace;

pub const LAN_MAC: [u8; 6] = [2, 0, 0, 0, 0x10, 1];

pub struct Bench {
    pub host: Host,
    pub box_itself: Namespace,
}

pub fn prefixed(text: &str) -> Prefixed {
    let (ip, prefix) = text.split_once('/').unwrap();
    Prefixed { address: ip.parse::<IpAddr>().unwrap().into(), prefix: prefix.parse().unwrap() }
}

/// The file's addresses of the first tap.
pub fn lan_addresses() -> Vec<Prefixed> {
    ["10.7.0.1/24", "10.7.0.9/24", "fd07::1/64", "fe80::ff:fe00:1001/64"].map(prefixed).into()
}

impl Bench {
    pub fn new() -> Bench {
        Bench::with_buffer(None)
    }

    /// With a small receive buffer where messages are to be lost.
    pub fn with_buffer(receive_bytes: Option<i32>) -> Bench {
        let box_itself = Namespace::new("host");
        for name in ["sgh-lan", "sgh-wan", "eth9"] {
            box_itself.run(&format!("ip link add {name} type veth peer name to-{name}"));
            box_itself.run(&format!("ip link set to-{name} addrgenmode none up"));
        }
        box_itself.run("ip link set eth9 up");
        box_itself.run("ip address add 192.168.9.2/24 dev eth9");
        box_itself.run("ip address add fd09::2/64 dev eth9");
        let lan = Tap {
            name: "sgh-lan".to_owned(),
            port: 0,
            mac: LAN_MAC,
            mtu: 1400,
            addresses: lan_addresses(),
        };
        let wan = Tap {
            name: "sgh-wan".to_owned(),
            port: 1,
            mac: [2, 0, 0, 0, 0x10, 2],
            mtu: 1500,
            addresses: vec![],
        };
        let opened = box_itself.within(move || Host::open_with(vec![lan, wan], receive_bytes));
        Bench { host: opened.expect("the taps can be set up"), box_itself }
    }

    pub fn run(&self, line: &str) {
        self.box_itself.run(line);
    }

    /// Reads until nothing has come for a while and no dump is owed.
    pub fn settle(&mut self) -> Learnt {
        let mut quiet = Instant::now();
        let begin = quiet;
        while quiet.elapsed() < Duration::from_millis(250) {
            assert!(begin.elapsed() < Duration::from_secs(60), "the kernel never falls silent");
            if self.host.poll() {
                quiet = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.host.learnt(|_, _| false)
    }

    pub fn addresses(&mut self) -> Vec<String> {
        let learnt = self.settle();
        let text = |(port, a): &(u8, Prefixed)| format!("{port} {}/{}", a.address.ip(), a.prefix);
        learnt.addresses.iter().map(text).collect()
    }

    /// Learnt routes as `PORT PREFIX [via GATEWAY] [metric M]` or `KIND PREFIX`.
    pub fn routes(&mut self) -> Vec<String> {
        let learnt = self.settle();
        let text = |r: &dataplane::pipeline::route::StaticRoute| {
            let to = format!("{}/{}", r.to.ip(), r.prefix_len);
            let via = r.via.map_or(String::new(), |via: Address| format!(" via {}", via.ip()));
            match r.kind {
                RouteKind::Unicast => format!("{} {to}{via} metric {}", r.port, r.metric),
                kind => format!("{kind:?} {to} metric {}", r.metric),
            }
        };
        learnt.routes.iter().map(text).collect()
    }

    /// Runs lines of `ip -batch`.
    pub fn batch(&self, lines: &str) -> Duration {
        let file = Scratch(std::env::temp_dir().join(format!("{}.batch", self.box_itself.name())));
        fs::write(&file.0, lines).unwrap();
        let begin = Instant::now();
        self.run(&format!("ip -batch {}", file.0.display()));
        begin.elapsed()
    }
}

/// A file that goes when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
