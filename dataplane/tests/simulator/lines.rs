//! Cache lines that more than one lcore writes for packets of known conns: none where each packet
//! arrives at its owner. `cargo test -p dataplane --features count-lines --test simulator lines`.

use std::net::{Ipv4Addr, SocketAddr};

use dataplane::lcore::simulator::{Order, Plan, Simulator, Spread, Written};
use dataplane::pipeline::place::Layout;
use dataplane::pipeline::snapshot::Keeping;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::model::Ruleset;
use dataplane::rules::targets::Target;
use dataplane::time::TICKS_PER_SEC;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::gateway::{
    LAN, Tests, WAN, append, introduce, knobs, mac_of, on, port_mac, snapshot, to,
};
use super::run::START;

const CONNS: usize = 1000;
/// Measured packets of each conn, half of them answers.
const PACKETS: usize = 4;

struct Bench {
    simulator: Simulator,
    nat: bool,
}

impl Bench {
    fn new(lcores: u8, queues: u16, spread: Spread, nat: bool) -> Bench {
        let mut rules = Ruleset::new(Family::V4);
        if nat {
            let outside = on(Target::Snat(to("203.0.113.10", None))).out("wan");
            append(&mut rules, Table::Nat, "POSTROUTING", vec![outside]);
        }
        append(&mut rules, Table::Filter, "FORWARD", vec![on(Target::Accept)]);
        let policy = snapshot(
            1,
            lcores,
            (&rules, &Ruleset::new(Family::V6)),
            (knobs(false), Keeping::default()),
        );
        let layout = Layout::even(lcores, 2, queues);
        let order = Order::Seeded;
        let plan = Plan { layout, spread, order, seed: 11, max: 4096, now: START };
        let simulator = Simulator::new(plan, policy).unwrap();
        introduce(&simulator);
        Bench { simulator, nat }
    }

    /// A packet of each conn: TCP and UDP in turns, with these TCP flags.
    fn frames(&self, answers: bool, flags: u8) -> Vec<(PortId, Vec<u8>)> {
        let frame = |conn: usize| {
            let client: SocketAddr =
                (Ipv4Addr::new(192, 168, 1, 16 + conn as u8 % 8), 10_000 + conn as u16).into();
            let server: SocketAddr = (Ipv4Addr::new(198, 51, 100, 1), 80).into();
            let outside = SocketAddr::new([203, 0, 113, 10].into(), client.port());
            let (port, from, to, seq) = match answers {
                false => (LAN, client, server, 100 + (flags & SYN == 0) as u32),
                true if self.nat => (WAN, server, outside, 500 + (flags & SYN == 0) as u32),
                true => (WAN, server, client, 500 + (flags & SYN == 0) as u32),
            };
            let ack = if answers { 101 } else { 501 };
            let packet = match conn % 2 {
                0 => Packet::udp(from, to).payload(b"12345678"),
                _ => Packet::tcp(from, to).flags(flags).seq(seq).ack(ack),
            };
            (port, packet.macs(mac_of(port, from.ip()), port_mac(port)).to_vec())
        };
        (0..CONNS).map(frame).collect()
    }

    fn pass(&mut self, answers: bool, flags: u8) -> Written {
        let frames = self.frames(answers, flags);
        let written = self.simulator.count_lines(frames).expect("comes to rest");
        let mut sent = 0;
        while self.simulator.next_sent().is_some() {
            sent += 1;
        }
        assert_eq!(sent, CONNS, "{:?}", self.simulator.drops());
        written
    }

    /// Opens all conns, warms them up and counts.
    fn measure(&mut self) -> Written {
        // The table is everybody's: whoever enters a conn writes where others do.
        assert!(!self.pass(false, SYN).shared.is_empty());
        self.pass(true, SYN | ACK);
        for _ in 0..3 {
            self.simulator.wait_ticks(3 * TICKS_PER_SEC);
            self.pass(false, ACK);
            self.pass(true, ACK);
        }
        assert_eq!(self.simulator.confirmed() as usize, CONNS);
        let mut frames = Vec::new();
        for _ in 0..PACKETS / 2 {
            frames.extend(self.frames(false, ACK));
            frames.extend(self.frames(true, ACK));
        }
        self.simulator.wait_ticks(TICKS_PER_SEC);
        self.simulator.count_lines(frames).expect("comes to rest")
    }
}

#[test]
fn a_packet_that_arrives_at_its_owner_writes_no_line_that_others_write() {
    for lcores in [2, 4, 7] {
        for (spread, nat) in
            [(Spread::Symmetric, false), (Spread::Owner, false), (Spread::Owner, true)]
        {
            let written = Bench::new(lcores, lcores.into(), spread, nat).measure();
            assert_eq!(written.received as usize, CONNS * PACKETS);
            assert_eq!(written.handed_over, 0, "{spread:?}");
            assert_eq!(
                written.shared,
                Vec::<usize>::new(),
                "{lcores} lcores, {spread:?}, nat {nat}"
            );
            assert!(written.lines > CONNS, "records at least: {}", written.lines);
        }
    }
}

#[test]
fn a_packet_that_is_handed_over_shares_its_ring_and_nothing_else() {
    for (queues, spread) in [(1, Spread::Symmetric), (4, Spread::Asymmetric), (4, Spread::Random)] {
        let written = Bench::new(4, queues, spread, true).measure();
        assert!(written.handed_over > written.received / 4, "{written:?}");
        assert_eq!(written.shared, Vec::<usize>::new(), "{queues} queues, {spread:?}");
    }
}
