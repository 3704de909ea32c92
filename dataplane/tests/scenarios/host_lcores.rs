//! The same with two lcores: the taps have one queue each, the wires one for each lcore.
//!
//! ```text
//!   lcore 0   lan 0   wan 0   lan's tap
//!   lcore 1   lan 1   wan 1               wan's tap
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use dataplane::conntrack::record::{ConnRef, Family as Space};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::HashSeed;
use dataplane::lcore::mailbox::{ControlEnd, mailbox};
use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::lcore::rings::{self, Rings};
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::neighbour::NeighbourTable;
use dataplane::pipeline::place::{Layout, Queues};
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::pipeline::{Links, Pipeline};
use dataplane::rules::compiled::CounterId;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Table::{self, Filter, Nat, Raw};
use dataplane::time::{Now, Tick};
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::rig::*;
use super::rules::*;
use super::tracking::{tcp, udp};

const SSH: &str = "203.0.113.1:22";
const CLIENT: &str = "198.51.100.9:4000";

pub(crate) struct Pair {
    pub(crate) workers: Vec<Worker<MemoryIo>>,
    pub(crate) mailboxes: Vec<ControlEnd>,
    pub(crate) counters: Vec<Arc<LcoreCounters>>,
    pub(crate) shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    setup: Setup,
    pub(crate) layout: Layout,
    /// The ends of a third lcore, for what has to be handed over at a certain moment.
    pub(crate) third: Rings<MemoryFrame>,
    pub(crate) now: Now,
}

impl Pair {
    fn start(setup: Setup) -> Pair {
        Pair::with_queues(setup, 2)
    }

    /// With so many queues of each wire.
    pub(crate) fn with_queues(setup: Setup, queues: u16) -> Pair {
        let setup = Setup { host_taps: true, lcores: 2, ..setup };
        let seed = HashSeed([3, 5, 7, 11, 13].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let sizes = Sizes { max: setup.max, lcores: 2, extensions: setup.max };
        let shared = Arc::new(Shared::new(sizes, seed).unwrap());
        shared.records.ensure_chunks(Space::V4, 4 * setup.max).unwrap();
        shared.extensions.keep_ahead(setup.max).unwrap();
        shared.ensure_counts(Space::V4, 4 * setup.max).unwrap();
        let now = Now { tick: Tick(1000), unix_ns: 1_795_000_000_000_000_000 };
        let neighbours = Arc::new(NeighbourTable::new(64, seed));
        let upstream = address("203.0.113.254");
        neighbours.set_permanent(WAN.0, upstream, UPSTREAM_MAC.0, now.tick).unwrap();
        for client in ["192.168.1.2", "192.168.1.3"] {
            neighbours.set_permanent(LAN.0, address(client), CLIENT_MAC.0, now.tick).unwrap();
        }
        let mut layout = Layout::even(2, 4, queues);
        layout.queues[2..].fill(Queues { rx: 1, tx: 1 });
        let snapshot = Arc::new(setup.snapshot(1));
        let mut rings = rings::mesh(3);
        let third = rings.remove(2);
        let mut pair = Pair {
            workers: Vec::new(),
            mailboxes: Vec::new(),
            counters: Vec::new(),
            shared: shared.clone(),
            snapshot: snapshot.clone(),
            setup,
            layout,
            third,
            now,
        };
        for (lcore, rings) in rings.into_iter().enumerate() {
            let counters = Arc::new(LcoreCounters::new(4));
            let links = Links {
                counters: counters.clone(),
                neighbours: neighbours.clone(),
                listeners: Arc::new(AtomicBool::new(false)),
                errors: Arc::default(),
            };
            let store = Store::new(shared.clone(), lcore as u8);
            let place = pair.layout.place(lcore as u8);
            let pipeline = Pipeline::new(place, store, snapshot.clone(), links, 42);
            let (control, end) = mailbox();
            pair.workers.push(Worker::new(MemoryIo::new(4), pipeline, end, rings, 32));
            pair.mailboxes.push(control);
            pair.counters.push(counters);
        }
        pair
    }

    /// The frames that are sent, each by an lcore that has a queue there, when this one arrives.
    fn send_bytes(&mut self, lcore: usize, port: PortId, bytes: Vec<u8>) -> Vec<(usize, Sent)> {
        self.workers[lcore].io().push(port, MemoryFrame::new(bytes));
        self.settle()
    }

    /// What is sent until nobody has anything left to do.
    pub(crate) fn settle(&mut self) -> Vec<(usize, Sent)> {
        let mut all = Vec::new();
        while self.workers.iter_mut().map(|w| w.poll(self.now)).sum::<usize>() > 0 {}
        for (lcore, worker) in self.workers.iter_mut().enumerate() {
            while let Some((port, frame)) = worker.io().pop_sent() {
                assert!(self.layout.transmit_queue(port, lcore as u8).is_some());
                all.push((lcore, Sent { port, bytes: frame.bytes() }));
            }
            while self.mailboxes[lcore].receive().is_some() {}
        }
        all
    }

    #[track_caller]
    pub(crate) fn pass(&mut self, lcore: usize, port: PortId, packet: Packet<'_>) -> (usize, Sent) {
        let mut sent = self.send_bytes(lcore, port, framed(port, &packet));
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// By the kernel's frame on the WAN's tap, which lcore 1 polls.
    #[track_caller]
    fn kernel_sends(&mut self, packet: Packet<'_>) -> (usize, Sent) {
        self.pass(1, WAN_TAP, packet)
    }

    /// Packets that the first rule of a chain counted, by lcore.
    pub(crate) fn count(&self, table: Table, chain: &str) -> [u64; 2] {
        let rules = &self.snapshot.v4;
        let set = &self.setup.v4;
        let chain = set.table(table).unwrap().chains.iter().position(|c| c.name == chain).unwrap();
        let first = |c: &dataplane::rules::model::Countable| {
            c.table == table && c.chain == chain && c.rule == Some(0)
        };
        let number =
            rules.rules.counters().start + set.countables().position(|c| first(&c)).unwrap() as u32;
        [0, 1].map(|lcore| rules.counters[lcore].get(CounterId(number)).0)
    }

    /// Conns by owner.
    pub(crate) fn owned(&self) -> [usize; 2] {
        let mut owned = [0; 2];
        for number in 0..self.shared.records.numbers(Space::V4) {
            if let Some(conn) = self.shared.records.get(ConnRef::new(Space::V4, number))
                && conn.status().has(Status::CONFIRMED)
                && let Some(owner) = conn.owner()
            {
                owned[owner as usize] += 1;
            }
        }
        owned
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        for counters in &self.counters {
            assert!(counters.balanced(), "{counters:?}");
            assert_eq!(counters.ports[2].tx_packets.get() + counters.ports[3].tx_packets.get(), 0);
        }
    }
}

fn counting() -> Setup {
    let setup = Setup::default().both(Raw, "OUTPUT", count()).both(Filter, "OUTPUT", count());
    setup.both(Filter, "INPUT", count())
}

#[test]
fn the_owner_of_a_conn_walks_what_the_kernel_answers() {
    let mut pair = Pair::start(counting());
    let (lcore, sent) = pair.pass(0, WAN, tcp(CLIENT, SSH, SYN, 100, 0));
    assert_eq!((lcore, sent.port), (1, WAN_TAP), "the tap is lcore 1's");
    assert_eq!((pair.owned(), pair.count(Filter, "INPUT")), ([1, 0], [1, 0]));
    let (lcore, sent) = pair.kernel_sends(tcp(SSH, CLIENT, SYN | ACK, 500, 101));
    assert_eq!((lcore, sent.port, sent.dst_mac()), (0, WAN, UPSTREAM_MAC));
    pair.pass(1, WAN, tcp(CLIENT, SSH, ACK, 101, 501));
    pair.kernel_sends(tcp(SSH, CLIENT, ACK, 501, 101));
    assert_eq!((pair.count(Raw, "OUTPUT"), pair.count(Filter, "OUTPUT")), ([2, 0], [2, 0]));
    assert_eq!(pair.count(Filter, "INPUT"), [2, 0]);
    assert_eq!(pair.owned(), [1, 0]);
    assert_eq!([0, 1].map(|l| pair.counters[l].to_host.get()), [0, 2]);
    assert_eq!([0, 1].map(|l| pair.counters[l].generated.get()), [0, 2]);
}

#[test]
fn an_error_of_the_kernel_goes_to_the_owner_of_the_conn_that_it_is_about() {
    let mut pair = Pair::start(counting());
    let (_, sent) = pair.pass(0, WAN, udp(CLIENT, SSH));
    let error = Packet::icmp(ip("203.0.113.1"), ip("198.51.100.9"), 3, 3, 0);
    let (lcore, sent) = pair.kernel_sends(error.payload(&sent.bytes[14..]));
    assert_eq!((lcore, sent.port), (0, WAN));
    assert_eq!(pair.count(Filter, "OUTPUT"), [1, 0]);
}

#[test]
fn conns_that_the_kernel_opens_are_shared_out_and_answers_find_back() {
    let setup = counting().both(Nat, "POSTROUTING", masquerade());
    let mut pair = Pair::start(setup);
    for n in 0..40 {
        // From the LAN's address, so that there is something to turn back.
        let (host, server) = (format!("192.168.1.1:{}", 5000 + n), "198.51.100.7:53");
        let (lcore, sent) = pair.kernel_sends(udp(&host, server));
        let wan = format!("203.0.113.1:{}", 5000 + n);
        assert_eq!((sent.port, sent.flow()), (WAN, format!("{wan} > {server}")));
        let (tap, back) = pair.pass(1 - lcore, WAN, udp(server, &wan));
        assert_eq!((tap, back.port, back.flow()), (1, WAN_TAP, format!("{server} > {host}")));
        let (again, _) = pair.kernel_sends(udp(&host, server));
        assert_eq!(again, lcore, "the owner sends by its own queue");
    }
    let owned = pair.owned();
    assert_eq!(owned[0] + owned[1], 40);
    assert!(owned.iter().all(|&n| n > 8), "{owned:?}");
    assert_eq!(pair.count(Raw, "OUTPUT"), owned.map(|n| 2 * n as u64));
    assert_eq!(pair.count(Filter, "OUTPUT"), owned.map(|n| 2 * n as u64));
}

#[test]
fn a_packet_that_passed_raw_goes_on_behind_it() {
    let mut pair = Pair::start(Setup { max: 16, ..counting() });
    // All the room there is belongs to lcore 0.
    for n in 0..16 {
        pair.pass(0, WAN, udp(&format!("198.51.100.9:{}", 4000 + n), SSH));
    }
    assert_eq!(pair.owned(), [16, 0]);
    let mut raw = 0;
    for n in 0..12 {
        pair.kernel_sends(udp(&format!("203.0.113.1:{}", 5000 + n), "198.51.100.7:53"));
        raw += 1;
        assert_eq!(pair.count(Raw, "OUTPUT").iter().sum::<u64>(), raw, "raw once");
    }
    let behind: u64 = pair.count(Filter, "OUTPUT")[0] - pair.count(Raw, "OUTPUT")[0];
    assert!(behind > 0, "some went through raw at lcore 1 and on at lcore 0");
    assert_eq!(pair.count(Filter, "OUTPUT").iter().sum::<u64>(), 12);
    assert_eq!(pair.counters[1].drops[DropReason::TableFull as usize].get(), 0);
}

#[test]
fn what_needs_no_conn_goes_to_the_lcore_that_can_send_it() {
    let mut pair = Pair::start(counting());
    // A DHCP answer at lcore 0 for the tap of lcore 1, a hello of the kernel by lcore 1 itself.
    let mut answer = [0; 300];
    answer[..3].copy_from_slice(&[2, 1, 6]);
    answer[28..34].copy_from_slice(&WAN_MAC.0);
    let packet = udp("198.51.100.1:67", "203.0.113.77:68").payload(&answer);
    let (lcore, sent) = pair.pass(0, WAN, packet);
    assert_eq!((lcore, sent.port), (1, WAN_TAP));
    let hello = Packet::raw(ip("203.0.113.1"), ip("224.0.0.5"), 89).ttl(1).payload(&[2; 44]);
    let hello = hello.macs(WAN_MAC, Mac([1, 0, 0x5e, 0, 0, 5])).to_vec();
    let sent = pair.send_bytes(1, WAN_TAP, hello.clone());
    assert_eq!(sent, [(1, Sent { port: WAN, bytes: hello })]);
}
