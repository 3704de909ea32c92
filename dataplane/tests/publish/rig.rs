//! Two lcores with their ports in memory, and snapshots that can be told apart by a packet.
//!
//! A snapshot of generation g sends from the MAC address that ends in g, to the gateway whose
//! MAC address ends in g, and counts in the policies of raw PREROUTING and filter FORWARD.

use std::sync::Arc;

use dataplane::arch::sync::AtomicBool;
use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::policies::Policies;
use dataplane::conntrack::record::Family as Space;
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::HashSeed;
use dataplane::lcore::io::BurstIo;
use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::frame::Burst;
use dataplane::pipeline::messages::{FromLcore, ToLcore};
use dataplane::pipeline::neighbour::NeighbourTable;
use dataplane::pipeline::place::Layout;
use dataplane::pipeline::route::{PortAddress, RouteKind, Routes, StaticRoute};
use dataplane::pipeline::snapshot::{
    FamilyRules, InterfaceAddress, PortKind, PortSettings, Snapshot,
};
use dataplane::pipeline::{Links, Pipeline};
use dataplane::rules::compiled::{Compiled, CounterId};
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::model::Ruleset;
use dataplane::time::{Now, Tick};
use dataplane::wire::address::Address;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;

/// Lcores.
pub(crate) const LCORES: usize = 2;
/// Packets of one burst: the second finds what the first left behind.
pub(crate) const PACKETS: usize = 2;
/// The highest generation that is published.
const GENERATIONS: u8 = 3;

const LAN: PortId = PortId(0);
const WAN: PortId = PortId(1);
const LAN_MAC: Mac = Mac([2, 0, 0, 0, 0x10, 1]);
const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);
const NOW: Now = Now { tick: Tick(7000), unix_ns: 1_795_000_000_000_000_000 };

fn address(a: u8, b: u8, c: u8, d: u8) -> Address {
    Address::v4(u32::from_be_bytes([a, b, c, d]))
}

fn gateway(generation: u8) -> (Address, [u8; 6]) {
    (address(203, 0, 113, 250 + generation), [2, 0, 0, 0, 0x30, generation])
}

fn rules() -> Ruleset {
    let mut rules = Ruleset::new(Family::V4);
    rules.table_mut(Table::Raw);
    rules.table_mut(Table::Filter);
    rules
}

/// The policy of one generation.
pub(crate) fn snapshot(generation: u8) -> Arc<Snapshot> {
    let own = [(0, address(192, 168, 1, 1)), (1, address(203, 0, 113, 1))];
    let names = ["lan", "wan"];
    let port = |number: usize| PortSettings {
        name: names[number].into(),
        mac: if number == 0 { LAN_MAC.0 } else { [2, 0, 0, 0, 0x20, generation] },
        mtu: 1500,
        addresses: Box::new([InterfaceAddress { address: own[number].1, prefix: 24 }]),
        kind: PortKind::Device,
        host_tap: None,
    };
    let addresses = own.map(|(port, address)| PortAddress { port, address, prefix_len: 24 });
    let default = StaticRoute {
        to: address(0, 0, 0, 0),
        prefix_len: 0,
        via: Some(gateway(generation).0),
        port: WAN.0,
        metric: 0,
        kind: RouteKind::Unicast,
    };
    let compile =
        |rules: &Ruleset| FamilyRules::new(Compiled::new(rules, &names, 0).expect("rules"), LCORES);
    Arc::new(Snapshot {
        generation: generation.into(),
        keeping: Default::default(),
        ports: Box::new([port(0), port(1)]),
        routes: Routes::new(&addresses, &[default]).expect("routes"),
        v4: compile(&rules()),
        v6: compile(&Ruleset::new(Family::V6)),
        knobs: Knobs::default(),
        policies: Policies::default(),
    })
}

/// Packets that a snapshot's raw PREROUTING and filter FORWARD have counted for an lcore.
pub(crate) fn counted(snapshot: &Snapshot, lcore: usize) -> [u64; 2] {
    let rules = rules();
    [(Table::Raw, "PREROUTING"), (Table::Filter, "FORWARD")].map(|(table, chain)| {
        let chains = &rules.table(table).expect("a table").chains;
        let chain = chains.iter().position(|c| c.name == chain);
        let at = rules.countables().position(|c| c.table == table && Some(c.chain) == chain);
        snapshot.v4.counters[lcore].get(CounterId(at.expect("a policy") as u32)).0
    })
}

/// One lcore.
pub(crate) struct Lcore {
    number: usize,
    pipeline: Pipeline<MemoryIo>,
    io: MemoryIo,
}

impl Lcore {
    /// Both of them, with `policy` in force.
    pub(crate) fn both(policy: &Arc<Snapshot>) -> [Lcore; LCORES] {
        let seed = HashSeed([1, 22, 333, 4444, 55_555]);
        let sizes = Sizes { max: 64, lcores: LCORES as u8, extensions: 0 };
        let shared = Arc::new(Shared::new(sizes, seed).expect("a table"));
        shared.records.ensure_chunks(Space::V4, u32::MAX).expect("records");
        let neighbours = Arc::new(NeighbourTable::new(64, seed));
        for generation in 1..=GENERATIONS {
            let (address, mac) = gateway(generation);
            neighbours.set_permanent(WAN.0, address, mac, NOW.tick).expect("room");
        }
        let layout = Layout::even(LCORES as u8, 2, LCORES as u16);
        [0, 1].map(|number| {
            let links = Links {
                counters: Arc::new(LcoreCounters::new(2)),
                neighbours: neighbours.clone(),
                listeners: Arc::new(AtomicBool::new(false)),
                errors: Arc::default(),
            };
            let store = Store::new(shared.clone(), number as u8);
            let pipeline =
                Pipeline::new(layout.place(number as u8), store, policy.clone(), links, 42);
            Lcore { number, pipeline, io: MemoryIo::new(2) }
        })
    }

    /// Judges a burst; the generation that each packet shows in its source and in its destination.
    pub(crate) fn burst(&mut self) -> Vec<[u8; 2]> {
        let client = format!("192.168.1.{}:1000", 2 + self.number).parse().expect("an address");
        let server = "198.51.100.7:53".parse().expect("an address");
        let packet = Packet::udp(client, server).macs(CLIENT_MAC, LAN_MAC).to_vec();
        let mut burst = Burst::new();
        for _ in 0..PACKETS {
            burst.push(MemoryFrame::new(packet.clone()));
        }
        self.pipeline.burst(&mut self.io, LAN, &mut burst, NOW);
        self.flush();
        let sent = std::iter::from_fn(|| self.io.pop_sent());
        sent.map(|(_, frame)| frame.bytes()).map(|bytes| [bytes[11], bytes[5]]).collect()
    }

    /// Does what a message asks.
    pub(crate) fn serve(&mut self, message: ToLcore) {
        self.pipeline.serve(&mut self.io, message, NOW);
        self.flush();
    }

    /// Hands its answers to `take` until one comes back.
    pub(crate) fn deliver(&mut self, take: impl FnMut(FromLcore) -> Result<(), FromLcore>) {
        self.pipeline.deliver(take);
    }

    fn flush(&mut self) {
        let Lcore { pipeline, io, .. } = self;
        pipeline.flush(|port, burst| io.transmit(port, burst));
    }

    /// Starts over with `policy`.
    pub(crate) fn reset(&mut self, policy: &Arc<Snapshot>) {
        self.serve(ToLcore::Fold);
        self.serve(ToLcore::Adopt(policy.clone()));
        self.deliver(|_| Ok(()));
    }
}
