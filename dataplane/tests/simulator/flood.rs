//! A SYN flood at a full table: no ASSURED conn is lost, and known conns go on.
//!
//! 9 000 TCP conns with a handshake behind them, `max` 10 000, then SYNs of as many distinct tuples
//! as there is time for: 30 000 here, a million in `a_million_syns` (ignored; `cargo test --release
//! -p dataplane --test simulator -- a_million_syns --ignored --nocapture`).

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use dataplane::conntrack::state::Status;
use dataplane::lcore::simulator::{Dice, Order, Plan, Simulator, Spread};
use dataplane::pipeline::place::Layout;
use dataplane::pipeline::snapshot::Keeping;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::gateway::{LAN, WAN, introduce, knobs, mac_of, port_mac, snapshot};
use super::run::START;

const MAX: u32 = 10_000;
const ASSURED: usize = 9_000;
/// SYNs between two packets of known conns.
const AT_ONCE: u32 = 64;
/// Known conns that send between them, one packet each way.
const KNOWN: usize = 4;
/// SYNs in a tick of 10 ms: ten thousand a second.
const PER_TICK: u32 = 100;

fn client(conn: usize) -> SocketAddr {
    let ip = Ipv4Addr::new(192, 168, 1, 16 + (conn % 10) as u8);
    SocketAddr::new(ip.into(), (2_000 + conn / 10) as u16)
}

fn server() -> SocketAddr {
    SocketAddr::new([198, 51, 100, 7].into(), 443)
}

struct Flood {
    simulator: Simulator,
    dice: Dice,
    lcores: u8,
}

impl Flood {
    fn new(lcores: u8) -> Flood {
        let rules = (Ruleset::new(Family::V4), Ruleset::new(Family::V6));
        let policy = snapshot(1, lcores, (&rules.0, &rules.1), (knobs(false), Keeping::default()));
        let plan = Plan {
            layout: Layout::even(lcores, 2, lcores.into()),
            spread: Spread::Symmetric,
            order: Order::Turns,
            seed: 0xf100d,
            max: MAX,
            now: START,
        };
        let simulator = Simulator::new(plan, policy).unwrap();
        introduce(&simulator);
        Flood { simulator, dice: Dice::new(7), lcores }
    }

    fn send(&mut self, port: PortId, packet: Packet<'_>) {
        let mac = if port == LAN { client(0) } else { server() };
        let frame = packet.macs(mac_of(port, mac.ip()), port_mac(port)).to_vec();
        self.simulator.arrive(port, frame);
    }

    /// Frames that left since the last time, once nothing is under way.
    fn left(&mut self) -> usize {
        assert!(self.simulator.settle());
        std::iter::from_fn(|| self.simulator.next_sent()).count()
    }

    /// The handshakes of some conns.
    fn connect(&mut self, conns: &[usize]) {
        let s = server();
        for &conn in conns {
            self.send(LAN, Packet::tcp(client(conn), s).flags(SYN).seq(100).window(5000));
        }
        assert_eq!(self.left(), conns.len());
        for &conn in conns {
            let answer = Packet::tcp(s, client(conn)).flags(SYN | ACK);
            self.send(WAN, answer.seq(500).ack(101).window(5000));
        }
        assert_eq!(self.left(), conns.len());
        for &conn in conns {
            let third = Packet::tcp(client(conn), s).flags(ACK);
            self.send(LAN, third.seq(101).ack(501).window(5000));
        }
        assert_eq!(self.left(), conns.len());
    }

    /// A SYN of a tuple that nobody has used.
    fn syn(&mut self, number: u32) {
        let from = SocketAddr::new(Ipv4Addr::from(0x0a00_0000 + number / 1000).into(), 7_000);
        let to = SocketAddr::new([198, 51, 100, 9].into(), (1 + number % 1000) as u16);
        self.send(LAN, Packet::tcp(from, to).flags(SYN).seq(1).window(5000));
    }

    fn sum(&self, of: impl Fn(&dataplane::pipeline::counters::LcoreCounters) -> u64) -> u64 {
        (0..self.lcores).map(|lcore| of(self.simulator.counters(lcore))).sum()
    }
}

fn flood(lcores: u8, syns: u32) {
    let mut flood = Flood::new(lcores);
    let all: Vec<usize> = (0..ASSURED).collect();
    all.chunks(AT_ONCE as usize).for_each(|some| flood.connect(some));
    let began = Instant::now();
    let (mut let_in, mut known) = (0, 0);
    for number in 0..syns {
        flood.syn(number);
        if number % PER_TICK == PER_TICK - 1 {
            flood.simulator.wait_ticks(1);
        }
        if number % AT_ONCE != AT_ONCE - 1 {
            continue;
        }
        let_in += flood.left();
        for _ in 0..KNOWN {
            let conn = flood.dice.below(ASSURED as u64) as usize;
            let (c, s) = (client(conn), server());
            flood.send(LAN, Packet::tcp(c, s).flags(ACK).seq(101).ack(501).window(5000));
            flood.send(WAN, Packet::tcp(s, c).flags(ACK).seq(501).ack(101).window(5000));
        }
        assert_eq!(flood.left(), 2 * KNOWN, "a known conn's packet is lost at SYN {number}");
        known += 2 * KNOWN;
        assert!(flood.simulator.shared().capacity.count() <= MAX);
    }
    let secs = began.elapsed().as_secs_f64();
    let_in += flood.left();
    let refused = syns as u64 - let_in as u64;
    let early = flood.sum(|c| c.conntrack.early_drop.get());
    let drops = flood.simulator.drops();
    assert_eq!(flood.sum(|c| c.conntrack.drop.get()), refused, "{drops:?}");
    assert!(early > 0 && flood.simulator.heard().full > 0, "the table was full");
    let conns = flood.simulator.list().unwrap();
    let assured = conns.iter().filter(|conn| conn.status.has(Status::ASSURED)).count();
    assert_eq!(assured, ASSURED);
    assert!((0..lcores).all(|lcore| flood.simulator.counters(lcore).balanced()));
    println!(
        "{lcores} workers: {syns} SYNs, {let_in} let in, {refused} refused, {early} early drops, \
         {assured} of {ASSURED} ASSURED conns there, {known} packets of theirs, none lost; \
         {secs:.1} s"
    );
}

#[test]
fn no_assured_conn_is_lost_in_a_flood_with_one_worker() {
    flood(1, 30_000);
}

#[test]
fn no_assured_conn_is_lost_in_a_flood_with_two_workers() {
    flood(2, 30_000);
}

#[test]
#[ignore = "the flood at full size, for an optimised build"]
fn a_million_syns() {
    flood(1, 1_000_000);
    flood(2, 1_000_000);
}
