//! A gateway of one lcore with a virtual clock and ports in memory.
//!
//! ```text
//!  192.168.1.2, .3    lan 192.168.1.1/24         203.0.113.1/24, .10 wan    203.0.113.254
//!  2001:db8:1::2 ----- 2001:db8:1::1/64           2001:db8:2::1/64 ------ 2001:db8:2::fe
//!                                                                          (default routes)
//! ```
//!
//! The neighbours in the drawing are permanent. Whatever a scenario does, the rig checks when it
//! goes out of scope that every frame had exactly one end, that the count of conns is the number of
//! conns in the table, and (unless told otherwise) that every packet sent carries right checksums.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::policies::Policies;
use dataplane::conntrack::record::{ConnId, ConnRef, Family as Space};
use dataplane::conntrack::state::Status;
use dataplane::conntrack::store::{Shared, Sizes, Store};
use dataplane::conntrack::tuple::HashSeed;
use dataplane::conntrack::view::ConnView;
use dataplane::lcore::mailbox::{ControlEnd, mailbox};
use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::messages::{BATCH_MAX, FromLcore, Slice, ToLcore};
use dataplane::pipeline::neighbour::{Event, NeighbourTable, Timers};
use dataplane::pipeline::neighbours;
use dataplane::pipeline::place::{Layout, Queues};
use dataplane::pipeline::route::{PortAddress, RouteKind, Routes, StaticRoute};
use dataplane::pipeline::snapshot::{
    FamilyRules, InterfaceAddress, Keeping, PortKind, PortSettings, Snapshot,
};
use dataplane::pipeline::{Links, Pipeline};
use dataplane::rules::compiled::{Compiled, CounterId};
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::model::{Policy as ChainPolicy, Rule, Ruleset};
use dataplane::time::{Now, TICKS_PER_SEC, Tick};
use dataplane::wire::address::Address;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::{self, Mac, ether_type};
use dataplane::wire::headers::{self, Headers};

pub(crate) const LAN: PortId = PortId(0);
pub(crate) const WAN: PortId = PortId(1);
/// The kernel's interfaces of both, where there are any.
pub(crate) const LAN_TAP: PortId = PortId(2);
pub(crate) const WAN_TAP: PortId = PortId(3);
pub(crate) const LAN_MAC: Mac = Mac([2, 0, 0, 0, 0x10, 1]);
pub(crate) const WAN_MAC: Mac = Mac([2, 0, 0, 0, 0x20, 1]);
pub(crate) const CLIENT_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x02]);
pub(crate) const CLIENT2_MAC: Mac = Mac([2, 0, 0, 0, 0, 0x03]);
pub(crate) const UPSTREAM_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
pub(crate) const GATEWAY2_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfd]);

/// An address from its text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The same in the dataplane's type.
pub(crate) fn address(text: &str) -> Address {
    ip(text).into()
}

/// Address and port from their text.
pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a gateway is made of.
pub(crate) struct Setup {
    pub(crate) v4: Ruleset,
    pub(crate) v6: Ruleset,
    pub(crate) knobs: Knobs,
    pub(crate) policies: Policies,
    pub(crate) keeping: Keeping,
    pub(crate) mtu: [u32; 2],
    pub(crate) max: u32,
    pub(crate) neighbours: usize,
    pub(crate) records: bool,
    /// There are blocks for conns of SYNPROXY.
    pub(crate) proxies: bool,
    pub(crate) routes: Vec<StaticRoute>,
    /// Own addresses: port, address, prefix length.
    pub(crate) own: Vec<(u8, &'static str, u8)>,
    pub(crate) burst_max: usize,
    /// Both ports have a kernel interface beside them.
    pub(crate) host_taps: bool,
    /// Lcores that rules are counted for.
    pub(crate) lcores: usize,
    /// Sub-interfaces, as ports 2 and on.
    pub(crate) vlans: Vec<Vlan>,
}

/// A sub-interface: its name, whose frames carry which id, its MTU.
#[derive(Clone, Copy)]
pub(crate) struct Vlan(pub(crate) &'static str, pub(crate) PortId, pub(crate) u16, pub(crate) u32);

pub(crate) fn route(to: &str, prefix_len: u8, via: Option<&str>, port: PortId) -> StaticRoute {
    StaticRoute {
        to: address(to),
        prefix_len,
        via: via.map(address),
        port: port.0,
        metric: 0,
        kind: RouteKind::Unicast,
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            v4: Ruleset::new(Family::V4),
            v6: Ruleset::new(Family::V6),
            knobs: Knobs::default(),
            policies: Policies::default(),
            keeping: Keeping::default(),
            mtu: [1500, 1500],
            max: 4096,
            neighbours: 64,
            records: true,
            proxies: true,
            routes: vec![
                route("0.0.0.0", 0, Some("203.0.113.254"), WAN),
                route("2000::", 3, Some("2001:db8:2::fe"), WAN),
            ],
            own: vec![
                (0, "192.168.1.1", 24),
                (0, "2001:db8:1::1", 64),
                (0, "fe80::10", 64),
                (1, "203.0.113.1", 24),
                (1, "203.0.113.10", 24),
                (1, "2001:db8:2::1", 64),
                (1, "fe80::20", 64),
            ],
            burst_max: 32,
            host_taps: false,
            lcores: 1,
            vlans: Vec::new(),
        }
    }
}

impl Setup {
    /// Appends a rule to a chain of the family, which is made if it is not there.
    pub(crate) fn rule(mut self, family: Family, table: Table, chain: &str, rule: Rule) -> Setup {
        let rules = self.family(family).table_mut(table);
        if rules.chain(chain).is_none() {
            rules.add_chain(chain);
        }
        rules.chain_mut(chain).unwrap().rules.push(rule);
        self
    }

    /// The same in both families.
    pub(crate) fn both(self, table: Table, chain: &str, rule: Rule) -> Setup {
        self.rule(Family::V4, table, chain, rule.clone()).rule(Family::V6, table, chain, rule)
    }

    /// Policy DROP in both families.
    pub(crate) fn drops(mut self, table: Table, chain: &str) -> Setup {
        for family in [Family::V4, Family::V6] {
            let rules = self.family(family).table_mut(table);
            let base = rules.chain_mut(chain).unwrap().base.as_mut().unwrap();
            base.policy = ChainPolicy::Drop;
        }
        self
    }

    pub(crate) fn knob(mut self, name: &str, value: u64) -> Setup {
        self.knobs.set(name, value).unwrap();
        self
    }

    pub(crate) fn route(mut self, route: StaticRoute) -> Setup {
        self.routes.push(route);
        self
    }

    pub(crate) fn family(&mut self, family: Family) -> &mut Ruleset {
        if family == Family::V4 { &mut self.v4 } else { &mut self.v6 }
    }

    fn addresses(&self) -> Vec<(u8, Address, u8)> {
        self.own.iter().map(|(port, a, prefix)| (*port, address(a), *prefix)).collect()
    }

    pub(crate) fn snapshot(&self, generation: u32) -> Snapshot {
        let device = PortKind::Device;
        let mut ports =
            vec![("lan", LAN_MAC, self.mtu[0], device), ("wan", WAN_MAC, self.mtu[1], device)];
        for &Vlan(name, parent, id, mtu) in &self.vlans {
            ports.push((name, ports[parent.0 as usize].1, mtu, PortKind::Vlan { parent, id }));
        }
        let names: Vec<&str> = ports.iter().map(|p| p.0).collect();
        for (of, number) in [(LAN, 0), (WAN, 1)].into_iter().filter(|_| self.host_taps) {
            let (_, mac, mtu, _) = ports[number];
            ports.push(("tap", mac, mtu, PortKind::HostTap { of }));
        }
        let addresses = self.addresses();
        let tap_of = |number| {
            let is_its = |kind| kind == PortKind::HostTap { of: PortId(number as u8) };
            ports.iter().position(|p| is_its(p.3)).map(|tap| PortId(tap as u8))
        };
        let port =
            |(number, &(name, mac, mtu, kind)): (usize, &(&str, Mac, u32, _))| PortSettings {
                name: name.into(),
                mac: mac.0,
                mtu,
                addresses: addresses
                    .iter()
                    .filter(|(port, ..)| *port as usize == number)
                    .map(|&(_, address, prefix)| InterfaceAddress { address, prefix })
                    .collect(),
                kind,
                host_tap: tap_of(number),
            };
        let own: Vec<PortAddress> = addresses
            .iter()
            .map(|&(port, address, prefix_len)| PortAddress { port, address, prefix_len })
            .collect();
        let compile = |r: &Ruleset| {
            let rules = Compiled::with_policies(r, &names, &self.policies, 0).unwrap();
            FamilyRules::new(rules, self.lcores)
        };
        Snapshot {
            generation,
            keeping: self.keeping,
            ports: ports.iter().enumerate().map(port).collect(),
            routes: Routes::new(&own, &self.routes).unwrap(),
            v4: compile(&self.v4),
            v6: compile(&self.v6),
            knobs: self.knobs,
            policies: self.policies.clone(),
        }
    }

    /// Ports, those of the kernel's interfaces included.
    pub(crate) fn ports(&self) -> usize {
        2 + self.vlans.len() + if self.host_taps { 2 } else { 0 }
    }

    pub(crate) fn start(self) -> Rig {
        Rig::new(self)
    }
}

/// A frame that the gateway sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) port: PortId,
    pub(crate) bytes: Vec<u8>,
}

impl Sent {
    pub(crate) fn headers(&self) -> Headers {
        headers::parse(&self.bytes, self.bytes.len()).expect("an IP packet")
    }

    /// "203.0.113.1:1024 > 198.51.100.7:53", with the id for ICMP.
    pub(crate) fn flow(&self) -> String {
        let h = self.headers();
        let v6 = |a: Address, p: u16| match a.ip() {
            IpAddr::V4(a) => format!("{a}:{p}"),
            IpAddr::V6(a) => format!("[{a}]:{p}"),
        };
        let (s, d) = match h.proto {
            1 | 58 => (h.icmp_id, u16::from_be_bytes([h.icmp_type, h.icmp_code])),
            _ => (h.src_port, h.dst_port),
        };
        format!("{} > {}", v6(h.src, s), v6(h.dst, d))
    }

    pub(crate) fn dst_mac(&self) -> Mac {
        Mac(self.bytes[..6].try_into().unwrap())
    }

    pub(crate) fn src_mac(&self) -> Mac {
        Mac(self.bytes[6..12].try_into().unwrap())
    }

    /// (type, code, the four bytes after the checksum, the quote) of an ICMP message.
    pub(crate) fn icmp(&self) -> (u8, u8, u32, &[u8]) {
        let h = self.headers();
        assert!(matches!(h.proto, 1 | 58), "not ICMP: {}", self.flow());
        let m = &self.bytes[h.l4 as usize..h.end as usize];
        (m[0], m[1], u32::from_be_bytes(m[4..8].try_into().unwrap()), &m[8..])
    }

    /// "src:port > dst:port" of the packet that an ICMP error quotes.
    pub(crate) fn quote(&self) -> String {
        let quote = self.icmp().3;
        let mut frame = vec![0; 12];
        frame.extend(if quote[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
        frame.extend(quote);
        // The quote may be cut: fill it up for the parser.
        let len = if quote[0] >> 4 == 4 {
            u16::from_be_bytes([quote[2], quote[3]]) as usize
        } else {
            40 + u16::from_be_bytes([quote[4], quote[5]]) as usize
        };
        frame.resize(frame.len().max(14 + len), 0);
        Sent { port: self.port, bytes: frame }.flow()
    }

    pub(crate) fn is_arp(&self) -> bool {
        ethernet::parse(&self.bytes).is_some_and(|link| link.ether_type == ether_type::ARP)
    }

    fn check(&self) {
        if self.is_arp() {
            return;
        }
        let h = headers::parse(&self.bytes, self.bytes.len())
            .unwrap_or_else(|e| panic!("sent a malformed frame: {e:?} {:02x?}", self.bytes));
        assert_eq!(h.end as usize, self.bytes.len(), "bytes behind the packet: {}", self.flow());
        assert!(!self.src_mac().is_multicast());
        let port_mac = [LAN_MAC, WAN_MAC].get(self.port.0 as usize).copied();
        assert_eq!(
            self.src_mac(),
            port_mac.unwrap_or(self.src_mac()),
            "not from the port's own MAC: {}",
            self.flow()
        );
        let check = self.bytes.get(h.l4 as usize + 6..h.l4 as usize + 8);
        let none = h.proto == 17 && check == Some(&[0, 0]);
        if matches!(h.proto, 1 | 6 | 17 | 58) && !none && !h.fragment.is_fragment() {
            assert!(h.l4_check_ok(&self.bytes), "checksum of {} {:?}", self.flow(), h);
        }
    }
}

/// The gateway.
pub(crate) struct Rig {
    pub(crate) worker: Worker<MemoryIo>,
    pub(crate) mailbox: ControlEnd,
    pub(crate) counters: Arc<LcoreCounters>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) neighbours: Arc<NeighbourTable>,
    pub(crate) listeners: Arc<AtomicBool>,
    pub(crate) setup: Setup,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) now: Now,
    /// Messages from the lcore that nobody asked for.
    pub(crate) told: Vec<FromLcore>,
    /// Sent packets are checked.
    pub(crate) strict: bool,
    swept: u32,
}

impl Rig {
    fn new(setup: Setup) -> Rig {
        let seed = HashSeed([
            0x9e37_79b9_7f4a_7c15,
            0xbf58_476d_1ce4_e5b9,
            0x94d0_49bb_1331_11eb,
            0xd6e8_feb8_6659_fd93,
            0xa076_1d64_78bd_642f,
        ]);
        let sizes = Sizes { max: setup.max, lcores: 1, extensions: setup.max };
        let shared = Arc::new(Shared::new(sizes, seed).unwrap());
        if setup.records {
            shared.records.ensure_chunks(Space::V4, setup.max).unwrap();
            shared.records.ensure_chunks(Space::V6, setup.max).unwrap();
            shared.extensions.keep_ahead(setup.max).unwrap();
            let wide = if setup.proxies { setup.max } else { 0 };
            shared.extensions.keep_wide_ahead(wide).unwrap();
            shared.ensure_counts(Space::V4, setup.max).unwrap();
            shared.ensure_counts(Space::V6, setup.max).unwrap();
        }
        let now = Now { tick: Tick(u32::MAX - 1000), unix_ns: 1_795_000_000_000_000_000 };
        let neighbours = Arc::new(NeighbourTable::new(setup.neighbours, seed));
        if setup.neighbours > 8 {
            for (port, a, mac) in [
                (LAN, "192.168.1.2", CLIENT_MAC),
                (LAN, "192.168.1.3", CLIENT2_MAC),
                (WAN, "203.0.113.254", UPSTREAM_MAC),
                (WAN, "203.0.113.253", GATEWAY2_MAC),
                (LAN, "2001:db8:1::2", CLIENT_MAC),
                (LAN, "2001:db8:1::3", CLIENT2_MAC),
                (WAN, "2001:db8:2::fe", UPSTREAM_MAC),
            ] {
                neighbours.set_permanent(port.0, address(a), mac.0, now.tick).unwrap();
            }
        }
        let ports = setup.ports();
        let counters = Arc::new(LcoreCounters::new(ports));
        let listeners = Arc::new(AtomicBool::new(false));
        let links = Links {
            counters: counters.clone(),
            neighbours: neighbours.clone(),
            listeners: listeners.clone(),
            errors: Arc::default(),
        };
        let snapshot = Arc::new(setup.snapshot(1));
        let store = Store::new(shared.clone(), 0);
        let mut layout = Layout::alone(ports);
        layout.queues[2..2 + setup.vlans.len()].fill(Queues { rx: 0, tx: 0 });
        let place = layout.place(0);
        let pipeline = Pipeline::new(place, store, snapshot.clone(), links, 42);
        let (mailbox, end) = mailbox();
        let rings = rings::mesh(1).remove(0);
        let worker = Worker::new(MemoryIo::new(ports), pipeline, end, rings, setup.burst_max);
        Rig {
            worker,
            mailbox,
            counters,
            shared,
            neighbours,
            listeners,
            setup,
            snapshot,
            now,
            told: Vec::new(),
            strict: true,
            swept: 0,
        }
    }

    /// Publishes the setup as it is now and lets the lcore adopt it; gives the old snapshot.
    pub(crate) fn publish(&mut self) -> Arc<Snapshot> {
        let snapshot = Arc::new(self.setup.snapshot(self.snapshot.generation + 1));
        self.ask(ToLcore::Adopt(snapshot.clone()));
        self.snapshot = snapshot;
        let retired = self.told.iter().position(|m| matches!(m, FromLcore::Retired(_)));
        match self.told.remove(retired.expect("the old snapshot comes back")) {
            FromLcore::Retired(old) => old,
            _ => unreachable!(),
        }
    }

    /// What the setup becomes by `change`, to be published.
    pub(crate) fn setup_with(&mut self, change: impl FnOnce(Setup) -> Setup) -> Setup {
        change(core::mem::take(&mut self.setup))
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, secs: u32) {
        self.wait_ticks(secs * TICKS_PER_SEC);
    }

    pub(crate) fn wait_ticks(&mut self, ticks: u32) {
        self.now.tick = Tick(self.now.tick.0.wrapping_add(ticks));
        self.now.unix_ns += ticks as u64 * (1_000_000_000 / TICKS_PER_SEC as u64);
    }

    /// Lets time pass second by second while the control core does its chores.
    pub(crate) fn live(&mut self, secs: u32) -> Vec<Sent> {
        let mut sent = Vec::new();
        for _ in 0..secs {
            self.wait(1);
            sent.extend(self.timers());
            self.sweep();
        }
        sent
    }

    /// One round of neighbour timers, as the control core runs them.
    pub(crate) fn timers(&mut self) -> Vec<Sent> {
        let mut events = Vec::new();
        self.neighbours.tick(&Timers::default(), self.now.tick, &mut |event| events.push(event));
        for event in events {
            let message = match event {
                Event::Ask { port, address, unicast, .. } => {
                    let mut buffer = [0; neighbours::LINK_MESSAGE_MAX];
                    let settings = self.snapshot.port(PortId(port));
                    let len = neighbours::ask(settings, address, unicast, &mut buffer).unwrap();
                    let frame = buffer[..len].iter().copied().collect();
                    ToLcore::Transmit(PortId(port), frame)
                }
                Event::Failed { .. } => continue,
            };
            self.mailbox.send(message).unwrap();
        }
        self.poll()
    }

    /// One pass over the whole index, as the control core makes it; the number of conns reported.
    pub(crate) fn sweep(&mut self) -> usize {
        let mut due: Vec<ConnId> = Vec::new();
        let buckets = self.shared.index.buckets();
        self.swept = self.shared.sweep(self.swept, buckets, self.now.tick, |id, _| {
            due.push(id);
            true
        });
        for batch in due.chunks(BATCH_MAX) {
            self.ask(ToLcore::Expire(Box::new(batch.to_vec())));
        }
        due.len()
    }

    /// Sends a message and lets the lcore read it. What it sends meanwhile stays to be polled.
    pub(crate) fn ask(&mut self, message: ToLcore) {
        self.mailbox.send(message).unwrap();
        self.worker.poll(self.now);
        self.read_mail();
    }

    pub(crate) fn read_mail(&mut self) {
        while let Some(message) = self.mailbox.receive() {
            if !matches!(message, FromLcore::Expired(_) | FromLcore::Folded) {
                self.told.push(message);
            }
        }
    }

    /// Polls until nothing is left to do; what was sent.
    pub(crate) fn poll(&mut self) -> Vec<Sent> {
        while self.worker.poll(self.now) > 0 {}
        self.read_mail();
        let mut all = Vec::new();
        while let Some((port, frame)) = self.worker.io().pop_sent() {
            let sent = Sent { port, bytes: frame.bytes() };
            if self.strict {
                sent.check();
            }
            all.push(sent);
        }
        all
    }

    pub(crate) fn push(&mut self, port: PortId, frame: MemoryFrame) {
        self.worker.io().push(port, frame);
    }

    /// Lets bytes arrive as they are.
    pub(crate) fn send_bytes(&mut self, port: PortId, bytes: impl Into<Vec<u8>>) -> Vec<Sent> {
        self.push(port, MemoryFrame::new(bytes));
        self.poll()
    }

    /// Lets packets arrive in one burst, addressed to the port's MAC.
    pub(crate) fn send_all(&mut self, port: PortId, packets: &[Packet<'_>]) -> Vec<Sent> {
        for packet in packets {
            self.push(port, MemoryFrame::new(framed(port, packet)));
        }
        self.poll()
    }

    pub(crate) fn send(&mut self, port: PortId, packet: Packet<'_>) -> Vec<Sent> {
        self.send_all(port, &[packet])
    }

    /// The one packet that the gateway sends when this one arrives.
    #[track_caller]
    pub(crate) fn pass(&mut self, port: PortId, packet: Packet<'_>) -> Sent {
        let mut sent = self.send(port, packet);
        assert_eq!(sent.len(), 1, "sent {sent:?}, drops {:?}", self.drops());
        sent.remove(0)
    }

    /// Nothing is sent and the packet is dropped for `reason`.
    #[track_caller]
    pub(crate) fn dropped(&mut self, port: PortId, packet: Packet<'_>, reason: DropReason) {
        let sent = self.send_counting(port, framed(port, &packet), reason);
        assert!(sent.is_empty(), "sent {sent:?}");
    }

    /// The packet is dropped for `reason`; the one packet that is sent about it.
    #[track_caller]
    pub(crate) fn answered(
        &mut self,
        port: PortId,
        packet: Packet<'_>,
        reason: DropReason,
    ) -> Sent {
        let mut sent = self.send_counting(port, framed(port, &packet), reason);
        assert_eq!(sent.len(), 1, "sent {sent:?}");
        sent.remove(0)
    }

    #[track_caller]
    pub(crate) fn send_counting(
        &mut self,
        port: PortId,
        bytes: impl Into<Vec<u8>>,
        reason: DropReason,
    ) -> Vec<Sent> {
        let before = self.counters.drops[reason as usize].get();
        let sent = self.send_bytes(port, bytes);
        let after = self.counters.drops[reason as usize].get();
        assert_eq!(after, before + 1, "{} not counted, but {:?}", reason.name(), self.drops());
        sent
    }

    /// The drop counters that are not 0.
    pub(crate) fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter().map(|r| (r.name(), self.drop_count(*r)));
        all.filter(|(_, n)| *n > 0).collect()
    }

    pub(crate) fn drop_count(&self, reason: DropReason) -> u64 {
        self.counters.drops[reason as usize].get()
    }

    /// Every conn, by way of list messages of `slice` numbers.
    pub(crate) fn list_by(&mut self, slice: u32) -> Vec<ConnView> {
        let mut all = Vec::new();
        for family in [Space::V4, Space::V6] {
            let mut from = 0;
            loop {
                let conns = Vec::with_capacity(slice as usize);
                let ask = Slice { family, from, numbers: slice, zero: false, end: false, conns };
                self.ask(ToLcore::List(7, Box::new(ask)));
                let at = self.told.iter().position(|m| matches!(m, FromLcore::Listed(7, _)));
                let FromLcore::Listed(_, listed) = self.told.remove(at.expect("a list")) else {
                    unreachable!()
                };
                all.extend(listed.conns);
                from = listed.from;
                if listed.end {
                    break;
                }
            }
        }
        all
    }

    pub(crate) fn list(&mut self) -> Vec<ConnView> {
        self.list_by(1024)
    }

    /// The only conn.
    #[track_caller]
    pub(crate) fn conn(&mut self) -> ConnView {
        let mut all = self.list();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    pub(crate) fn listen(&mut self) {
        self.listeners.store(true, Ordering::Relaxed);
    }

    /// (packets, bytes) of every rule and policy of a family, cached paths folded in.
    pub(crate) fn rule_counts(&mut self, family: Family) -> Vec<(u64, u64)> {
        self.ask(ToLcore::Fold);
        counts_of(&self.snapshot, family)
    }

    /// (packets, bytes) of one rule (`None`: the policy) of a chain.
    pub(crate) fn count(
        &mut self,
        family: Family,
        table: Table,
        chain: &str,
        rule: Option<usize>,
    ) -> (u64, u64) {
        let all = self.rule_counts(family);
        let set = if family == Family::V4 { &self.setup.v4 } else { &self.setup.v6 };
        let wanted = set.table(table).unwrap().chains.iter().position(|c| c.name == chain);
        let at = set
            .countables()
            .position(|c| c.table == table && Some(c.chain) == wanted && c.rule == rule);
        all[at.expect("such a rule")]
    }

    /// Packets that took the cached path so far.
    pub(crate) fn fast(&self) -> u64 {
        self.counters.fast.get()
    }

    /// Conns that are confirmed, by reading every record.
    fn confirmed(&self) -> u32 {
        let mut n = 0;
        for family in [Space::V4, Space::V6] {
            for number in 0..self.shared.records.numbers(family) {
                let conn = self.shared.records.get(ConnRef::new(family, number));
                n += conn.is_some_and(|c| c.status().has(Status::CONFIRMED)) as u32;
            }
        }
        n
    }

    /// The law, whose two sides are shown when it is broken.
    pub(crate) fn check(&self) {
        let c = &self.counters;
        let rx: u64 = c.ports.iter().map(|p| p.rx_packets.get()).sum();
        let tx: u64 = c.ports.iter().map(|p| p.tx_packets.get()).sum();
        let taps = c
            .ports
            .iter()
            .skip(2 + self.setup.vlans.len())
            .map(|p| p.rx_packets.get() + p.tx_packets.get());
        assert_eq!(taps.sum::<u64>(), 0, "the kernel's frames are not on a wire");
        assert!(
            c.balanced(),
            "rx {rx} + generated {} is not tx {tx} + host {} + held {} + dropped {:?}",
            c.generated.get(),
            c.to_host.get(),
            c.held.get(),
            self.drops(),
        );
        assert_eq!(
            self.shared.capacity.count(),
            self.confirmed(),
            "conns counted and in the table"
        );
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.check();
        self.worker.stop();
        assert_eq!(self.counters.held.get(), 0);
        self.check();
    }
}

/// (packets, bytes) of every rule and policy of a family, in counter order.
pub(crate) fn counts_of(snapshot: &Snapshot, family: Family) -> Vec<(u64, u64)> {
    let rules = snapshot.family(family == Family::V6);
    let of = |n| rules.counters.iter().map(move |lcore| lcore.get(CounterId(n)));
    let sum = |n| of(n).fold((0, 0), |(p, b), (more, bytes)| (p + more, b + bytes));
    rules.rules.counters().map(sum).collect()
}

/// The packet's frame from a neighbour to the port it arrives at; the kernel takes the port itself
/// for its neighbour.
pub(crate) fn framed(port: PortId, packet: &Packet<'_>) -> Vec<u8> {
    let (from, to) = match port {
        LAN => (CLIENT_MAC, LAN_MAC),
        LAN_TAP => (LAN_MAC, LAN_MAC),
        WAN_TAP => (WAN_MAC, WAN_MAC),
        _ => (UPSTREAM_MAC, WAN_MAC),
    };
    packet.macs(from, to).to_vec()
}
