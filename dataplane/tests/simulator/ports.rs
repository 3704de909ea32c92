//! Every port of one address towards one destination, used up by ten hosts, for 1, 2 and 4 workers.
//!
//! The hosts use the same source ports, so that nine conns of ten get another one. The search for
//! it tries 248 candidates at most, as the kernel's does: towards the end clients have to try
//! again, as real ones do, and when no port is left all they hear is silence. In a debug build the
//! address has 8192 ports to lend (`--to-ports`), in a release build (`make ports`) all 64 512.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use dataplane::lcore::simulator::{Dice, Order, Plan, Simulator, Spread};
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::place::Layout;
use dataplane::pipeline::snapshot::Keeping;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::model::Ruleset;
use dataplane::rules::targets::{NatOptions, Target};
use dataplane::time::TICKS_PER_SEC;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::headers;

use super::gateway::{
    LAN, Tests, UDP, WAN, append, introduce, knobs, mac_of, on, port_mac, snapshot,
};
use super::run::START;

const HOSTS: usize = 10;
/// The lowest port that NAT gives to an unprivileged one.
const LOWEST: usize = 1024;
/// Ports that the address has to lend.
const PORTS: usize = if cfg!(debug_assertions) { 8192 } else { 65536 - LOWEST };
/// Conns that want one: a few more than there are.
const CONNS: usize = (PORTS / HOSTS + 4) * HOSTS;
/// Packets under way at once.
const AT_ONCE: usize = 512;
/// How often all clients without a port may try: at the end each try finds the last port once in
/// about `PORTS / 248` times, and some dozens try.
const ROUNDS_MAX: usize = 4000;

struct Address {
    simulator: Simulator,
}

/// The client's socket of a conn: the ports of all hosts are the same.
fn client(conn: usize) -> SocketAddr {
    let (host, port) = (conn % HOSTS, conn / HOSTS);
    let ip = Ipv4Addr::new(192, 168, 1, 16 + host as u8);
    SocketAddr::new(ip.into(), (2_000 + port) as u16)
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::new(198, 51, 100, last).into(), 53)
}

impl Address {
    fn new(lcores: u8) -> Address {
        let mut rules = Ruleset::new(Family::V4);
        let range =
            (PORTS < 65536 - LOWEST).then_some((LOWEST as u16, (LOWEST + PORTS - 1) as u16));
        let lend = on(Target::Masquerade(NatOptions { ports: range, ..NatOptions::default() }));
        append(&mut rules, Table::Nat, "POSTROUTING", vec![lend.out("wan").ports(UDP, None, None)]);
        let policy = snapshot(
            1,
            lcores,
            (&rules, &Ruleset::new(Family::V6)),
            (knobs(false), Keeping::default()),
        );
        let plan = Plan {
            layout: Layout::even(lcores, 2, lcores.into()),
            spread: Spread::Symmetric,
            order: Order::Seeded,
            seed: 0x9047 + lcores as u64,
            max: 3 * PORTS as u32,
            now: START,
        };
        let simulator = Simulator::new(plan, policy).unwrap();
        introduce(&simulator);
        Address { simulator }
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.simulator.drops().into_iter().map(|(reason, n)| (reason.name(), n)).collect()
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, conn: usize) {
        let port = if from.ip() == client(conn).ip() { LAN } else { WAN };
        let payload = (conn as u32).to_be_bytes();
        let packet = Packet::udp(from, to).payload(&payload);
        let frame = packet.macs(mac_of(port, from.ip()), port_mac(port)).to_vec();
        self.simulator.arrive(port, frame);
    }

    /// What arrives once nothing is under way: conn, source, destination.
    fn heard(&mut self) -> Vec<(usize, SocketAddr, SocketAddr)> {
        assert!(self.simulator.settle());
        let mut heard = Vec::new();
        while let Some(sent) = self.simulator.next_sent() {
            let h = headers::parse(&sent.bytes, sent.bytes.len()).unwrap();
            assert!(h.l4_check_ok(&sent.bytes));
            let conn = u32::from_be_bytes(sent.bytes[h.l4 as usize + 8..][..4].try_into().unwrap());
            let (from, to) = ((h.src.ip(), h.src_port).into(), (h.dst.ip(), h.dst_port).into());
            heard.push((conn as usize, from, to));
        }
        heard
    }

    /// One packet of each of these conns to a server; who was heard there, and under which port.
    fn ask(&mut self, conns: &[usize], server: SocketAddr) -> Vec<(usize, u16)> {
        let mut heard = Vec::new();
        for some in conns.chunks(AT_ONCE) {
            some.iter().for_each(|&conn| self.send(client(conn), server, conn));
            for (conn, from, to) in self.heard() {
                assert_eq!((from.ip(), to), (IpAddr::from([203, 0, 113, 1]), server));
                heard.push((conn, from.port()));
            }
        }
        heard
    }

    /// The answers of a server to each of these ports reach the right hosts.
    fn answer(&mut self, ports: &BTreeMap<usize, u16>, server: SocketAddr) {
        let outside = |port| SocketAddr::new([203, 0, 113, 1].into(), port);
        let all: Vec<(usize, u16)> = ports.iter().map(|(conn, port)| (*conn, *port)).collect();
        for some in all.chunks(AT_ONCE) {
            some.iter().for_each(|&(conn, port)| self.send(server, outside(port), conn));
            let heard = self.heard();
            assert_eq!(heard.len(), some.len());
            for (conn, from, to) in heard {
                assert_eq!((from, to), (server, client(conn)), "conn {conn}");
            }
        }
    }
}

fn use_up(lcores: u8) {
    let mut address = Address::new(lcores);
    let mut dice = Dice::new(lcores.into());
    let mut silent: Vec<usize> = (0..CONNS).collect();
    for n in (1..CONNS).rev() {
        silent.swap(n, dice.below(n as u64 + 1) as usize);
    }
    let mut ports: BTreeMap<usize, u16> = BTreeMap::new();
    let (mut rounds, mut asked) = (0, 0);
    while ports.len() < PORTS {
        rounds += 1;
        asked += silent.len();
        assert!(rounds <= ROUNDS_MAX, "{} of {PORTS} ports after {asked} packets", ports.len());
        for (conn, port) in address.ask(&silent, at(7)) {
            assert!(port as usize >= LOWEST && ports.insert(conn, port).is_none());
        }
        silent.retain(|conn| !ports.contains_key(conn));
    }
    let distinct: HashSet<u16> = ports.values().copied().collect();
    assert_eq!((ports.len(), distinct.len()), (PORTS, PORTS));
    let kept = ports.iter().filter(|(conn, port)| client(**conn).port() == **port).count();
    assert!(kept > 0 && kept <= PORTS / HOSTS + 4, "{kept} kept their port");

    // Nobody else gets one, and nothing is left of who tried.
    assert_eq!(silent.len(), CONNS - PORTS);
    let refused = || DropReason::InsertFailed.name();
    let before = address.drops()[refused()];
    assert_eq!(address.ask(&silent, at(7)), []);
    let after = BTreeMap::from([(refused(), before + silent.len() as u64)]);
    assert_eq!(address.drops(), after);
    let count = |address: &Address| address.simulator.shared().capacity.count() as usize;
    assert_eq!((count(&address), address.simulator.confirmed() as usize), (PORTS, PORTS));
    address.answer(&ports, at(7));

    // The same ports serve another destination, and each client keeps the one it has.
    let known: Vec<usize> = ports.keys().copied().collect();
    let again: BTreeMap<usize, u16> = address.ask(&known, at(8)).into_iter().collect();
    assert!(again == ports, "other ports towards another destination");
    address.answer(&again, at(8));
    assert_eq!((count(&address), address.drops()), (2 * PORTS, after));

    address.simulator.wait_ticks(400 * TICKS_PER_SEC);
    assert!(address.simulator.expire());
    let shared = address.simulator.shared();
    assert_eq!((shared.index.census(), shared.by_source.census()), ((0, 0), (0, 0)));
    assert!((0..lcores).all(|lcore| address.simulator.counters(lcore).balanced()));
    println!("{lcores} workers: {PORTS} ports, {kept} kept, {asked} packets in {rounds} rounds");
}

#[test]
fn ten_hosts_use_up_every_port_with_one_worker() {
    use_up(1);
}

#[test]
fn ten_hosts_use_up_every_port_with_two_workers() {
    use_up(2);
}

#[test]
fn ten_hosts_use_up_every_port_with_four_workers() {
    use_up(4);
}
