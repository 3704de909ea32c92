//! One packet from receive to transmit, in Linux's order, and the burst that carries it.
//!
//! A [`Pipeline`] is everything one lcore owns: its store of conns, its cached paths, the frames it
//! holds for unresolved neighbours. Policy comes in as an immutable [`snapshot::Snapshot`], time as
//! an argument. Nothing here locks, allocates per packet, reads a clock, logs or panics on packet
//! bytes.
//!
//! | file | holds |
//! |---|---|
//! | `burst` | the stages over a burst; packets of known conns leave here by their cached path |
//! | `quick` | the quickest way, for TCP and UDP over plain IPv4 and conns as nearly all are |
//! | `lean` | the same packets, where a little more is to be looked at |
//! | `walking` | the others of a burst, waiting for that to be done |
//! | `forward` | the long way: PREROUTING, route, FORWARD, POSTROUTING |
//! | `host` | to and from the gateway itself: INPUT, OUTPUT, echo, closed ports |
//! | `host_tap` | the same for the box's own programs, by way of a kernel interface |
//! | `helpers` | helpers read masters; children of expectations |
//! | `hooks` | walking the rules with the facts of a packet |
//! | `track` | conntrack at PREROUTING and OUTPUT |
//! | `invalid` | what was INVALID, and why |
//! | `by_hand` | conns that a tool makes or changes |
//! | `rare` | the same for SCTP, DCCP, GRE, UDP-Lite and what has no tracker |
//! | `confirm` | new conns: room for them, confirm at the end, clashes |
//! | `translate` | the nat table and the edit of packets |
//! | `fragments`, `pieces` | datagrams put together before all hooks and cut behind them |
//! | `answers` | ICMP errors and resets |
//! | `synproxy` | handshakes in a server's stead |
//! | `untracked` | the cached paths of packets that no conn carries |
//! | `vlan` | sub-interfaces: tags taken off and put on |
//! | `neighbours` | ARP, neighbour discovery, held frames, transmit |
//! | `place`, `handoff` | whose queues and conns are whose; frames for other lcores |
//! | `notes`, `offline` | what a packet meets, noted; a pipeline beside the wires |
//! | `service` | what the control core asks for |
//! | `resize` | the table's change to another size, as the control core leads it |
//! | `steering` | the queue a NIC gives a packet to |

pub(crate) mod answers;
pub mod budget;
pub mod burst;
pub mod by_hand;
pub(crate) mod confirm;
pub mod counters;
pub mod drops;
pub(crate) mod forward;
pub mod fragments;
pub mod frame;
pub mod handoff;
pub(crate) mod helpers;
pub(crate) mod hooks;
pub(crate) mod host;
pub(crate) mod host_tap;
pub mod invalid;
pub(crate) mod lean;
pub(crate) mod lean6;
pub mod messages;
pub mod neighbour;
pub mod neighbours;
pub mod notes;
pub mod offline;
pub mod paths;
pub(crate) mod pieces;
pub mod place;
pub(crate) mod quick;
pub(crate) mod rare;
pub mod resize;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod steering;
pub(crate) mod synproxy;
pub(crate) mod track;
pub(crate) mod transit;
pub(crate) mod translate;
pub(crate) mod untracked;
pub(crate) mod vlan;
pub(crate) mod walking;

use core::ops::Deref;
use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::arch::sync::AtomicBool;
use crate::conntrack::fragments::Reassembly;
use crate::conntrack::knobs::Knobs;
use crate::conntrack::record::{Conn, ConnId};
use crate::conntrack::store::{Shared, Store};
use crate::rules::facts::PortId;
use crate::rules::template::Template;
use crate::time::{Now, Tick};
use budget::ErrorBudget;
use counters::LcoreCounters;
use drops::DropReason;
use frame::{BURST_MAX, Frame, FramePool};
use messages::FromLcore;
use neighbour::{NeighbourTable, NextHop};
use neighbours::Held;
use paths::Paths;
use place::Place;
use snapshot::Snapshot;

/// What an lcore shares with the control core and, read only, with other lcores.
#[derive(Debug, Clone)]
pub struct Links {
    /// What this lcore counts.
    pub counters: Arc<LcoreCounters>,
    /// MAC addresses by next hop.
    pub neighbours: Arc<NeighbourTable>,
    /// True while somebody listens to conntrack events.
    pub listeners: Arc<AtomicBool>,
    /// ICMP errors that may still be sent.
    pub errors: Arc<ErrorBudget>,
}

/// Reports for the control core, as one may be added while the rest of the pipeline is at work.
pub(crate) struct Outbox<'a> {
    pub messages: &'a mut VecDeque<FromLcore>,
    pub counters: &'a LcoreCounters,
}

impl Outbox<'_> {
    /// Adds one; when a burst has too many, the rest is lost and counted.
    pub(crate) fn tell(&mut self, message: FromLcore) {
        if self.messages.len() < OUTBOX_MAX {
            self.messages.push_back(message);
        } else {
            self.counters.lost_messages.add(1);
        }
    }
}

/// When, and by which policy, a packet is judged: a [`Moment`], which every stage is told of, so it
/// goes from one to the next in a register.
#[derive(Clone, Copy)]
pub(crate) struct At<'a>(&'a Moment<'a>);

impl<'a> Deref for At<'a> {
    type Target = Moment<'a>;

    #[inline(always)]
    fn deref(&self) -> &Moment<'a> {
        self.0
    }
}

/// What [`At`] stands for.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub now: Now,
    pub policy: &'a Snapshot,
    /// The table, read past the borrow of the pipeline that writes to it.
    pub table: &'a Shared,
    /// How often the packet has been handed over already.
    pub hops: u8,
}

impl<'a> Moment<'a> {
    #[inline(always)]
    pub(crate) fn at(&'a self) -> At<'a> {
        At(self)
    }

    /// The knobs that count for a conn: the sysctls', or with the timeouts of its policy.
    #[inline(always)]
    pub(crate) fn knobs_of(&self, conn: Conn<'_>) -> &'a Knobs {
        match conn.extension() {
            None => &self.policy.knobs,
            Some(number) => self.knobs_by_policy(number),
        }
    }

    #[inline(never)]
    fn knobs_by_policy(&self, extension: u32) -> &'a Knobs {
        let policy = self.table.extensions.get(extension).map_or(0, |e| e.timeout_policy());
        self.policy.policies.knobs(policy).unwrap_or(&self.policy.knobs)
    }
}

/// How frames came to this lcore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The port where they came in.
    pub port: PortId,
    /// How often they have been handed over; 0 for frames just received, which are counted.
    pub hops: u8,
    /// The raw table has seen them.
    pub past_raw: bool,
    /// The mark that it gave them.
    pub mark: u32,
    /// It has them traced.
    pub traced: bool,
    /// What it said of their conns.
    pub template: Option<Template>,
}

impl From<PortId> for Arrival {
    /// Frames just received.
    fn from(port: PortId) -> Arrival {
        Arrival { port, hops: 0, past_raw: false, mark: 0, traced: false, template: None }
    }
}

/// Whose a conn is.
#[derive(Clone, Copy)]
pub(crate) enum Holder {
    /// This lcore's.
    Here,
    /// That lcore's.
    Elsewhere(u8),
    /// It has ended.
    Nobody,
}

/// What an lcore reads and others do too. It is taken out of the pipeline while a burst is under
/// way, rather than counted as one more reader: that would write to a line that all lcores share.
struct World {
    snapshot: Arc<Snapshot>,
    table: Arc<Shared>,
}

impl World {
    fn moment(&self, now: Now, hops: u8) -> Moment<'_> {
        Moment { now, policy: &self.snapshot, table: &self.table, hops }
    }
}

/// All that one lcore owns.
pub struct Pipeline<P: FramePool> {
    place: Place,
    store: Store,
    /// Only ever absent within a burst or a message.
    world: Option<World>,
    links: Links,
    paths: Paths,
    /// The paths of packets without a conn.
    untracked: untracked::Untracked,
    /// Packets of the present burst that took a cached path.
    took_path: u64,
    /// What the path and next-hop numbers in records must carry to be believed. Starts at 1, since
    /// 0 in a record means that nothing is cached.
    generation: u32,
    /// The neighbour table's epoch those numbers belong to.
    epoch: u32,
    /// Of the last packet that walked and left: mostly the next one's too.
    last_hop: NextHop,
    held: Held<P::Frame>,
    /// What waits for the rest of its datagram.
    fragments: Reassembly<P::Frame>,
    /// The neighbour table's news that held frames have been looked at for.
    heard: u32,
    outputs: Box<[neighbours::Output<P::Frame>]>,
    /// An output has had little room left since the last flush: what walks waits.
    crowded: bool,
    /// What walks once the outputs have been flushed, in its order; at the end of a round none. No
    /// more than a burst, as each is flushed.
    later: Box<ArrayVec<(Arrival, walking::Long<P::Frame>), BURST_MAX>>,
    /// By port number: those whose devices have VLAN sub-interfaces.
    trunks: vlan::Trunks<P::Frame>,
    /// Frames for other lcores, by lcore.
    outbound: Box<[handoff::Outbound<P::Frame>]>,
    /// Conns of other lcores whose tuples were given away, and their owners.
    evictions: ArrayVec<(u8, ConnId), { handoff::EVICTIONS_MAX }>,
    random: Random,
    /// What a new conn's source was last translated to.
    lately: Option<translate::Lately>,
    /// When the control core was last told that the table is full.
    told_full: Option<Tick>,
    /// The last INVALID packets.
    trail: invalid::Trail,
    /// What trackers said of packets that have yet to walk.
    sayings: invalid::Sayings,
    /// What packets met, where somebody may ask.
    notes: P::Notes,
    /// The same of the table of expectations.
    told_expect_full: Option<Tick>,
    /// Taken out while a burst is under way.
    scratch: Option<Box<burst::Scratch>>,
    ip_id: u16,
    /// Messages for the control core, taken away after each burst; never grown.
    outbox: VecDeque<FromLcore>,
}

/// Messages one burst may leave for the control core.
const OUTBOX_MAX: usize = 512;

impl<P: FramePool> Pipeline<P> {
    /// With the policy to start with; `seed` drives the choice of random ports.
    pub fn new(
        mut place: Place,
        store: Store,
        snapshot: Arc<Snapshot>,
        links: Links,
        seed: u64,
    ) -> Pipeline<P> {
        let epoch = links.neighbours.epoch();
        let wires = vlan::wires(&snapshot.ports, &mut place);
        let outputs = wires.map(neighbours::Output::new).collect();
        let trunks = vlan::trunks(&snapshot.ports);
        let others = if place.is_alone() { 0 } else { place.lcores() };
        let table = store.shared().clone();
        Pipeline {
            ip_id: place.lcore().into(),
            store,
            world: Some(World { snapshot, table }),
            links,
            paths: Paths::default(),
            untracked: untracked::Untracked::default(),
            took_path: 0,
            generation: 1,
            epoch,
            last_hop: NextHop(0),
            held: Held::default(),
            fragments: Reassembly::new(seed),
            heard: 0,
            outputs,
            crowded: false,
            later: Box::default(),
            trunks,
            evictions: ArrayVec::new(),
            outbound: (0..others).map(|_| handoff::Outbound::new()).collect(),
            place,
            random: Random(seed | 1),
            lately: None,
            told_full: None,
            trail: invalid::Trail::default(),
            sayings: invalid::Sayings::default(),
            notes: P::Notes::default(),
            told_expect_full: None,
            scratch: Some(Box::default()),
            outbox: VecDeque::with_capacity(OUTBOX_MAX * 2),
        }
    }

    /// Forgets all cached paths: policy or next hops have changed. Their sums are kept.
    fn renew_paths(&mut self) {
        self.fold();
        self.paths.clear();
        self.generation = self.generation.wrapping_add(1).max(1);
    }

    /// Once per burst: numbers of next hops that went to another neighbour are not to be used.
    fn check_epoch(&mut self) {
        let epoch = self.links.neighbours.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.renew_paths();
        }
    }

    /// Frees a frame and counts why.
    #[inline]
    fn drop_frame(&mut self, frame: P::Frame, reason: DropReason) {
        drop(frame);
        self.links.counters.count_drop(reason);
    }

    /// A frame of our own making, counted; one that there was no buffer for is generated and
    /// dropped.
    fn generate(&mut self, pool: &mut P, len: usize) -> Option<P::Frame> {
        let frame = pool.allocate(len);
        self.links.counters.generated.add(1);
        if frame.is_none() {
            self.links.counters.count_drop(DropReason::NoMbuf);
        }
        frame
    }

    /// Tells the control core. Only reports are told this way, never answers: when a burst has
    /// too many, the rest is lost and counted.
    fn tell(&mut self, message: FromLcore) {
        let Pipeline { outbox: messages, links, .. } = self;
        Outbox { messages, counters: &links.counters }.tell(message);
    }

    /// Takes the messages for the control core, oldest first. A message that `take` gives back
    /// stays for the next time.
    pub fn deliver(&mut self, mut take: impl FnMut(FromLcore) -> Result<(), FromLcore>) {
        while let Some(message) = self.outbox.pop_front() {
            if let Err(back) = take(message) {
                self.outbox.push_front(back);
                break;
            }
        }
    }

    /// Frames so far that took a cached path or were handed over: none of them has walked here.
    pub fn did_not_walk(&self) -> u64 {
        let counters = &self.links.counters;
        counters.fast.get() + counters.handed_over.get()
    }

    /// Counts a round of the poll loop.
    pub fn count_poll(&self, busy: bool) {
        let counters = &self.links.counters;
        if busy { counters.busy_polls.add(1) } else { counters.idle_polls.add(1) }
    }

    /// Identification of the next IPv4 packet we make; other lcores are at other numbers, until the
    /// 16 bits wrap.
    fn next_ip_id(&mut self) -> u16 {
        self.ip_id = self.ip_id.wrapping_add(self.place.lcores().into());
        self.ip_id
    }

    /// Whose a conn is that was found. That of another lcore may have ended since.
    #[inline(always)]
    fn holder(&self, conn: Conn<'_>) -> Holder {
        match conn.owner() {
            Some(owner) if owner == self.place.lcore() => Holder::Here,
            Some(owner) => Holder::Elsewhere(owner),
            None => Holder::Nobody,
        }
    }

    /// True for a conn that this lcore may write to.
    #[inline(always)]
    fn owns(&self, conn: Conn<'_>) -> bool {
        matches!(self.holder(conn), Holder::Here)
    }
}

/// xorshift64*: for port choice, where an outsider must not see the state but nothing is secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }
}

/// Bytes of `frame` from the transport header to the end of the IP packet, segment by segment.
fn transport_segments<F: Frame>(
    frame: &F,
    start: usize,
    end: usize,
) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    // A segment may lie outside, or be empty: some drivers leave such behind.
    frame.segments().map(move |segment| {
        let from = start.saturating_sub(at).min(segment.len());
        let to = end.saturating_sub(at).min(segment.len());
        at += segment.len();
        segment.get(from..to).unwrap_or_default()
    })
}
