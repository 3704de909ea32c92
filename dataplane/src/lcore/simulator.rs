//! Any number of workers as one deterministic program: a seed says who polls when, with how much.
//!
//! The simulator stands for what is around the workers: devices, control core and clock. It owns
//! N [`Worker`]s over ports in memory, with the rings, mailboxes and tables that they have in the
//! real gateway, and lets one of them poll at a time.
//!
//! ```text
//!   arrive ─► spread ─► queue of (lcore, port) ─► n frames ─► Worker::poll ─► next_sent
//!                                                              ▲      │
//!                        orders, some of them, in order ───────┘      └──► answers, at some step
//! ```
//!
//! With [`Order::Seeded`] each step is a worker's poll with 0 to 64 frames of each port, or a round
//! of the control core; workers fall asleep for many steps, orders wait, a burst may be judged by a
//! clock read a little ago. So frames and messages are delayed and reordered in every way in which
//! real lcores could do it between two polls; what is in one queue, ring or mailbox keeps its
//! order. With [`Order::Turns`] everybody gets everything at each step. The same plan and the same
//! calls give the same frames in the same order: [`Simulator::digest`] tells.
//!
//! What the simulator cannot show is two lcores inside the same few instructions; models and
//! threads are for that. It is for tests and measurements, and allocates as it likes.

use std::collections::VecDeque;
use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::arch::sync::{AtomicBool, Ordering::Relaxed};
use crate::conntrack::record::{ConnId, ConnRef, Family};
use crate::conntrack::state::Status;
use crate::conntrack::store::{SetupError, Shared, Sizes, Store};
use crate::conntrack::tuple::HashSeed;
use crate::conntrack::view::{ConnView, EventKind};
pub use crate::lcore::dice::Dice;
use crate::lcore::dice::mixed;
use crate::lcore::mailbox::{ControlEnd, mailbox};
use crate::lcore::memory::{MemoryFrame, MemoryIo};
use crate::lcore::rings;
use crate::lcore::worker::Worker;
use crate::pipeline::budget::ErrorBudget;
use crate::pipeline::counters::LcoreCounters;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::BURST_MAX;
use crate::pipeline::messages::{BATCH_MAX, FromLcore, Slice, ToLcore};
use crate::pipeline::neighbour::{Event, NeighbourTable, Timers};
use crate::pipeline::neighbours::{self, LINK_MESSAGE_MAX};
use crate::pipeline::place::Layout;
use crate::pipeline::resize::Resize;
use crate::pipeline::snapshot::Snapshot;
use crate::pipeline::{Links, Pipeline};
use crate::rules::compiled::CounterId;
use crate::rules::facts::PortId;
use crate::time::{Now, TICKS_PER_SEC, Tick};
use crate::wire::headers::{self, Headers};

/// Steps after which a gateway that is still busy is taken for stuck.
const STEPS_MAX: usize = 4_000_000;

/// Record numbers that one listing message looks at.
const LIST_SLICE: u32 = 512;

/// Buckets that are searched at once for conns that may go early.
const RELIEF_SLICE: u32 = 64;

/// Buckets that a round of the control core sweeps at most.
const SWEEP_MAX: u32 = 512;

/// Next hops that there is room for: so many that no set of the table overflows.
const NEIGHBOURS: usize = 1024;

/// Ticks between two rounds of the neighbour timers.
const TIMER_TICKS: u32 = 10;

/// Steps that a worker sleeps at most.
const SLEEP_STEPS: u64 = 200;

/// How far behind the clock of a burst may be, in ticks.
const CLOCK_LAG: u64 = 3;

/// How a device with several queues chooses one for a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// By a hash that both directions of a conn without NAT have in common.
    Symmetric,
    /// By a hash of what is in the packet, in its order: answers come in elsewhere.
    Asymmetric,
    /// Anywhere, packet by packet, so that packets of one conn overtake each other.
    Random,
    /// To the owner of the packet's conn, as a NIC with a rule for every conn would; the first
    /// packet by the symmetric hash. For ports with a queue for each lcore.
    Owner,
}

/// Who gets his turn when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Everybody at each step, with everything there is.
    Turns,
    /// As the seed says.
    Seeded,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Lcores and queues.
    pub layout: Layout,
    /// How frames find their queue.
    pub spread: Spread,
    /// Who polls when.
    pub order: Order,
    /// Of all that is random, the hashes included.
    pub seed: u64,
    /// The limit on conns.
    pub max: u32,
    /// When it begins.
    pub now: Now,
}

/// A frame on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Who gave it to the device.
    pub lcore: u8,
    /// Where it left.
    pub port: PortId,
    /// The frame.
    pub bytes: Vec<u8>,
}

/// What was written for a number of frames, as far as words of `arch::sync` tell: tables, records,
/// counters. Not among them are the frames, which who takes them over writes to, and the rings:
/// there each frame handed over costs its slot, each push a word and each burst taken another.
#[cfg(feature = "count-lines")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Frames received.
    pub received: u64,
    /// How often one of them was handed over.
    pub handed_over: u64,
    /// Lines written.
    pub lines: usize,
    /// Those that more than one worker wrote (address / 64).
    pub shared: Vec<usize>,
}

/// The control core, where lcores are numbered.
#[cfg(feature = "count-lines")]
const CONTROL_CORE: u8 = u8::MAX;

/// One worker and what stands between it and the rest.
struct Lcore {
    worker: Worker<MemoryIo>,
    counters: Arc<LcoreCounters>,
    mailbox: ControlEnd,
    /// Orders that have not reached the mailbox.
    orders: VecDeque<ToLcore>,
    /// Received frames, by port.
    queues: Vec<VecDeque<Vec<u8>>>,
    /// Sleeps until this step.
    asleep_until: u64,
}

impl Lcore {
    fn is_idle(&self) -> bool {
        let received = self.queues.iter().any(|queue| !queue.is_empty());
        !received && self.orders.is_empty() && self.mailbox.is_read()
    }
}

/// What the control core has heard of.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Old snapshots that came back.
    pub retired: u32,
    /// Conns that a delete order found.
    pub deleted: u32,
    /// Events of conns that came.
    pub came: u64,
    /// Events of conns that went.
    pub went: u64,
    /// Times that somebody called the table full.
    pub full: u64,
}

/// The workers and all around them.
pub struct Simulator {
    plan: Plan,
    dice: Dice,
    lcores: Vec<Lcore>,
    shared: Arc<Shared>,
    neighbours: Arc<NeighbourTable>,
    listeners: Arc<AtomicBool>,
    snapshots: Vec<Arc<Snapshot>>,
    now: Now,
    /// Ticks that may still pass by themselves.
    free_ticks: u32,
    steps: u64,
    sent: VecDeque<Sent>,
    digest: u64,
    /// Frames given to a device by an lcore that has no queue there.
    astray: u64,
    /// Orders whose answer has not come.
    awaited: usize,
    heard: Heard,
    listed: Vec<ConnView>,
    /// The table is changing its size.
    resize: Option<Resize>,
    /// Changes of size that are done.
    resized: u32,
    swept: u32,
    /// A packet found the table full since the last round of the control core.
    was_full: bool,
    /// Where the search for conns that may go early goes on.
    relieved: u32,
    timers_at: Tick,
    /// A listing that nobody reads is under way.
    noisy: bool,
}

impl Simulator {
    /// A gateway with this policy, whose rule counters must have room for all lcores.
    ///
    /// # Errors
    /// As [`Shared::new`].
    pub fn new(plan: Plan, snapshot: Arc<Snapshot>) -> Result<Simulator, SetupError> {
        let mut dice = Dice::new(plan.seed);
        let seed = HashSeed(core::array::from_fn(|_| dice.roll() | 1));
        let lcores = plan.layout.lcores;
        let sizes = Sizes { max: plan.max, lcores, extensions: plan.max };
        let shared = Arc::new(Shared::new(sizes, seed)?);
        let neighbours = Arc::new(NeighbourTable::new(NEIGHBOURS, seed));
        let listeners = Arc::new(AtomicBool::new(false));
        let errors = Arc::new(ErrorBudget::default());
        let ports = snapshot.ports.len();
        let mut all = Vec::new();
        for (number, rings) in (0..lcores).zip(rings::mesh(lcores as usize)) {
            let counters = Arc::new(LcoreCounters::new(ports));
            let links = Links {
                counters: counters.clone(),
                neighbours: neighbours.clone(),
                listeners: listeners.clone(),
                errors: errors.clone(),
            };
            let store = Store::new(shared.clone(), number);
            let place = plan.layout.place(number);
            let pipeline = Pipeline::new(place, store, snapshot.clone(), links, dice.roll());
            let (control, end) = mailbox();
            all.push(Lcore {
                worker: Worker::new(MemoryIo::new(ports), pipeline, end, rings, BURST_MAX),
                counters,
                mailbox: control,
                orders: VecDeque::new(),
                queues: vec![VecDeque::new(); ports],
                asleep_until: 0,
            });
        }
        let simulator = Simulator {
            now: plan.now,
            plan,
            dice,
            lcores: all,
            shared,
            neighbours,
            listeners,
            snapshots: vec![snapshot],
            free_ticks: 0,
            steps: 0,
            sent: VecDeque::new(),
            digest: 0,
            astray: 0,
            awaited: 0,
            heard: Heard::default(),
            listed: Vec::new(),
            resize: None,
            resized: 0,
            swept: 0,
            was_full: false,
            relieved: 0,
            timers_at: Tick(0),
            noisy: false,
        };
        simulator.provide_memory()?;
        Ok(simulator)
    }

    /// Memory ahead of demand, as the control core makes it.
    fn provide_memory(&self) -> Result<(), SetupError> {
        let Shared { records, extensions, .. } = &*self.shared;
        let ahead = self.plan.max.clamp(1024, 1 << 16);
        records.keep_ahead(Family::V4, ahead)?;
        records.keep_ahead(Family::V6, ahead)?;
        Ok(extensions.keep_ahead(ahead.min(1024))?)
    }

    /// What all lcores share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The next hops; permanent ones are the caller's to enter.
    pub fn neighbours(&self) -> &NeighbourTable {
        &self.neighbours
    }

    /// What one lcore counts.
    pub fn counters(&self, lcore: u8) -> &LcoreCounters {
        &self.lcores[lcore as usize].counters
    }

    /// What the control core has heard so far.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Steps so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// A number for all frames sent so far, their order and who sent them.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Frames given to a device by an lcore without a transmit queue there: none, ever.
    pub fn astray(&self) -> u64 {
        self.astray
    }

    /// Lets the control core listen to events of conns.
    pub fn listen(&self) {
        self.listeners.store(true, Relaxed);
    }

    /// Lets a frame arrive at a port, in the queue that the device chooses.
    pub fn arrive(&mut self, port: PortId, bytes: Vec<u8>) {
        let queues = self.plan.layout.queues.get(port.0 as usize).map_or(1, |q| q.rx.max(1));
        let bits = self.queue_bits(&bytes);
        let queue = (bits % queues as u64) as u16;
        let lcore = self.plan.layout.receiver(port, queue);
        self.arrive_at(lcore, port, bytes);
    }

    /// Lets a frame arrive at a port in a queue of this lcore.
    pub fn arrive_at(&mut self, lcore: u8, port: PortId, bytes: Vec<u8>) {
        let queue =
            self.lcores.get_mut(lcore as usize).and_then(|l| l.queues.get_mut(port.0 as usize));
        if let Some(queue) = queue {
            queue.push_back(bytes);
        }
    }

    fn queue_bits(&mut self, bytes: &[u8]) -> u64 {
        if self.plan.spread == Spread::Random {
            return self.dice.roll() >> 32;
        }
        // What is no IP packet comes in at the first queue, as with most NICs.
        let Ok(h) = headers::parse(bytes, bytes.len()) else { return 0 };
        match self.plan.spread {
            Spread::Asymmetric => end_bits(&h, true).wrapping_mul(3) ^ mixed(end_bits(&h, false)),
            Spread::Owner => self.owner_of(&h).unwrap_or_else(|| symmetric(&h)),
            _ => symmetric(&h),
        }
    }

    fn owner_of(&self, h: &Headers) -> Option<u64> {
        let tuple = crate::pipeline::track::tuple_of(h);
        let hash = self.shared.hash(&tuple, 0);
        let found = self.shared.find(hash, &tuple, 0, self.now.tick)?;
        found.conn.owner().map(u64::from)
    }

    /// The oldest frame that was sent and not looked at.
    pub fn next_sent(&mut self) -> Option<Sent> {
        self.sent.pop_front()
    }

    /// One step of whoever's turn it is. Now and then somebody asks for a listing or for counts.
    pub fn step(&mut self) {
        self.turn();
        if self.plan.order == Order::Seeded && self.dice.once_in(64) {
            self.make_noise();
        }
    }

    fn turn(&mut self) {
        self.steps += 1;
        let lcores = self.lcores.len() as u64;
        match self.plan.order {
            Order::Turns => {
                (0..self.lcores.len()).for_each(|lcore| self.poll(lcore, usize::MAX, 0));
                self.control_round(usize::MAX);
            }
            Order::Seeded if self.dice.once_in(2 + 2 * lcores) => {
                let orders = self.dice.below(3) as usize;
                self.control_round(orders);
            }
            Order::Seeded => {
                let lcore = self.dice.below(lcores) as usize;
                if self.lcores[lcore].asleep_until > self.steps {
                    return;
                }
                let frames = match self.dice.below(4) {
                    0 => 0,
                    1 => 1,
                    2 => 1 + self.dice.below(8) as usize,
                    _ => BURST_MAX,
                };
                let lag = self.dice.below(CLOCK_LAG) as u32;
                self.poll(lcore, frames, lag);
                if self.dice.once_in(24) {
                    self.lcores[lcore].asleep_until = self.steps + self.dice.below(SLEEP_STEPS);
                }
            }
        }
        if self.free_ticks > 0 && self.dice.once_in(16) {
            self.free_ticks -= 1;
            self.pass(1);
        }
    }

    /// One round of a worker, which finds at most `frames` new frames at each port.
    fn poll(&mut self, number: usize, frames: usize, lag: u32) {
        let Some(lcore) = self.lcores.get_mut(number) else { return };
        let io = lcore.worker.io();
        for (port, queue) in lcore.queues.iter_mut().enumerate() {
            for bytes in queue.drain(..frames.min(queue.len())) {
                io.push(PortId(port as u8), MemoryFrame::new(bytes));
            }
        }
        let tick = Tick(self.now.tick.0.wrapping_sub(lag));
        let now = Now { tick, unix_ns: self.now.unix_ns - lag as u64 * NS_PER_TICK };
        #[cfg(feature = "count-lines")]
        crate::arch::lines::as_lcore(number as u8);
        lcore.worker.poll(now);
        while let Some((port, frame)) = lcore.worker.io().pop_sent() {
            let sent = Sent { lcore: number as u8, port, bytes: frame.bytes() };
            let queue = self.plan.layout.transmit_queue(port, sent.lcore);
            self.astray += queue.is_none() as u64;
            self.digest = digest_of(self.digest, &sent);
            self.sent.push_back(sent);
        }
    }

    /// One round of the control core: mail, `orders` orders for each lcore, a piece of the sweep,
    /// neighbour timers, memory.
    fn control_round(&mut self, orders: usize) {
        #[cfg(feature = "count-lines")]
        crate::arch::lines::as_lcore(CONTROL_CORE);
        for number in 0..self.lcores.len() {
            while let Some(message) = self.lcores[number].mailbox.receive() {
                self.take_message(number, message);
            }
            let Lcore { orders: waiting, mailbox, .. } = &mut self.lcores[number];
            for _ in 0..orders.min(waiting.len()) {
                let Some(order) = waiting.pop_front() else { break };
                if let Err(back) = mailbox.send(order) {
                    waiting.push_front(back);
                    break;
                }
            }
        }
        let buckets = self.shared.index.buckets().min(SWEEP_MAX);
        let share = match self.plan.order {
            Order::Turns => buckets,
            Order::Seeded => 1 + self.dice.below(buckets.into()) as u32,
        };
        self.sweep(share);
        self.relieve();
        if self.now.tick.0.wrapping_sub(self.timers_at.0) >= TIMER_TICKS {
            self.timers_at = self.now.tick;
            self.neighbour_timers();
        }
        // Where there is none, conns are refused and the test sees it.
        let _ = self.provide_memory();
    }

    /// What users ask for at any time: counts folded, conns listed.
    fn make_noise(&mut self) {
        let lcore = self.dice.below(self.lcores.len() as u64) as usize;
        if self.dice.once_in(2) {
            self.order(lcore, ToLcore::Fold);
        } else if !self.noisy {
            self.noisy = true;
            self.order_list(lcore, Family::V4, NOISE);
        }
    }

    fn order(&mut self, lcore: usize, order: ToLcore) {
        let unanswered = matches!(order, ToLcore::Transmit(..));
        if let Some(lcore) = self.lcores.get_mut(lcore) {
            self.awaited += !unanswered as usize;
            lcore.orders.push_back(order);
        }
    }

    fn order_list(&mut self, lcore: usize, family: Family, question: u32) {
        let conns = Vec::with_capacity(LIST_SLICE as usize);
        let slice = Slice { family, from: 0, numbers: LIST_SLICE, zero: false, end: false, conns };
        self.order(lcore, ToLcore::List(question, Box::new(slice)));
    }

    fn take_message(&mut self, from: usize, message: FromLcore) {
        let heard = &mut self.heard;
        match message {
            FromLcore::Retired(_) => heard.retired += 1,
            FromLcore::Expired(_) | FromLcore::Found(..) | FromLcore::Folded => {}
            FromLcore::Deleted(_, conns) => heard.deleted += conns.len() as u32,
            FromLcore::Listed(question, mut slice) => {
                let found = slice.conns.drain(..);
                if question == NOISE {
                    found.for_each(drop)
                } else {
                    self.listed.extend(found)
                }
                if !slice.end {
                    self.order(from, ToLcore::List(question, slice));
                } else if question == NOISE {
                    self.noisy = false;
                }
            }
            FromLcore::Event(event) => match event.kind {
                EventKind::New => return heard.came += 1,
                EventKind::Destroy => return heard.went += 1,
                _ => return,
            },
            FromLcore::Viewed(_) => self.note_resize(|resize| resize.viewed(from)),
            FromLcore::Moved(which, moved) => {
                self.note_resize(|resize| resize.moved(from, which, moved));
            }
            FromLcore::TableFull => {
                self.was_full = true;
                return heard.full += 1;
            }
            FromLcore::ExpectationsFull => return heard.full += 1,
            _ => return,
        }
        self.awaited -= 1;
    }

    fn sweep(&mut self, buckets: u32) {
        let mut due: Vec<Vec<ConnId>> = vec![Vec::new(); self.lcores.len()];
        self.swept = self.shared.sweep(self.swept, buckets, self.now.tick, |id, owner| {
            due.get_mut(owner as usize).map(|due| due.push(id)).is_some()
        });
        self.order_batches(due, ToLcore::Expire);
    }

    /// Makes room in a table that was full, from where it ended last time (`gc_worker`).
    fn relieve(&mut self) {
        let mut spendable: Vec<Vec<ConnId>> = vec![Vec::new(); self.lcores.len()];
        let capacity = &self.shared.capacity;
        let mut left = self.shared.index.buckets();
        if core::mem::take(&mut self.was_full) && capacity.is_pressed() {
            let mut wanted = (capacity.count() + 1).saturating_sub(capacity.relief());
            while wanted > 0 && left > 0 {
                let slice = left.min(RELIEF_SLICE);
                left -= slice;
                let named = |id: ConnId, owner: u8| {
                    wanted = wanted.saturating_sub(1);
                    spendable[owner as usize].push(id);
                };
                self.relieved = self.shared.spendable(self.relieved, slice, self.now.tick, named);
            }
        }
        self.order_batches(spendable, ToLcore::Relieve);
    }

    fn order_batches(&mut self, conns: Vec<Vec<ConnId>>, order: fn(Box<Vec<ConnId>>) -> ToLcore) {
        for (lcore, conns) in conns.into_iter().enumerate() {
            for batch in conns.chunks(BATCH_MAX) {
                self.order(lcore, order(Box::new(batch.to_vec())));
            }
        }
    }

    fn neighbour_timers(&mut self) {
        let mut asked = Vec::new();
        self.neighbours.tick(&Timers::default(), self.now.tick, &mut |event| {
            if let Event::Ask { port, address, unicast, .. } = event {
                asked.push((PortId(port), address, unicast));
            }
        });
        for (port, address, unicast) in asked {
            let Some(snapshot) = self.snapshots.last() else { return };
            let mut buffer = [0; LINK_MESSAGE_MAX];
            let len = neighbours::ask(snapshot.port(port), address, unicast, &mut buffer);
            if let Some(bytes) = len.and_then(|len| buffer.get(..len)) {
                let frame: ArrayVec<u8, LINK_MESSAGE_MAX> = bytes.iter().copied().collect();
                self.order(0, ToLcore::Transmit(port, frame));
            }
        }
    }

    /// Publishes a policy; each lcore adopts it when it gets the message.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        for lcore in 0..self.lcores.len() {
            self.order(lcore, ToLcore::Adopt(snapshot.clone()));
        }
        self.snapshots.push(snapshot);
    }

    /// Begins to change the table to a size for so many conns, and at least `hashsize` slots,
    /// unless it is changing already. The limit on conns stays.
    ///
    /// # Errors
    /// As [`Shared::arrays`].
    pub fn resize(&mut self, max: u32, hashsize: u32) -> Result<(), SetupError> {
        if self.resize.is_none() {
            let arrays = self.shared.arrays(max, hashsize)?;
            let resize = Resize::new(self.shared.clone(), arrays, self.lcores.len());
            self.resize = Some(resize);
            self.note_resize(|_| ());
        }
        Ok(())
    }

    /// Changes of size that have come to their end.
    pub fn resized(&self) -> u32 {
        self.resized
    }

    /// Goes on with a change of size after news of it.
    fn note_resize(&mut self, news: impl FnOnce(&mut Resize)) {
        let Some(mut resize) = self.resize.take() else { return };
        news(&mut resize);
        self.shared = resize.view().clone();
        for lcore in 0..self.lcores.len() {
            if let Some(message) = resize.next(lcore) {
                self.order(lcore, message);
            }
        }
        if resize.is_done() {
            self.resized += 1;
        } else {
            self.resize = Some(resize);
        }
    }

    /// Asks the owner of a conn to delete it.
    pub fn delete(&mut self, id: ConnId) {
        if let Some(owner) = self.shared.records.get(id.conn).and_then(|conn| conn.owner()) {
            self.order(owner.into(), ToLcore::Delete(0, None, Box::new(vec![id])));
        }
    }

    /// True if nothing is under way: no frame in a queue or ring, no message unanswered. Frames
    /// may be held for a neighbour, or sent and not looked at.
    pub fn is_quiet(&self) -> bool {
        let sum = |of: fn(&LcoreCounters) -> u64| -> u64 {
            self.lcores.iter().map(|lcore| of(&lcore.counters)).sum()
        };
        self.awaited == 0
            && self.resize.is_none()
            && self.lcores.iter().all(Lcore::is_idle)
            && sum(|c| c.handed_over.get()) == sum(|c| c.taken_over.get())
    }

    /// Steps until nothing is under way; false if that takes too long.
    pub fn settle(&mut self) -> bool {
        for _ in 0..STEPS_MAX {
            if self.is_quiet() {
                return true;
            }
            self.turn();
        }
        false
    }

    fn pass(&mut self, ticks: u32) {
        self.now.tick = Tick(self.now.tick.0.wrapping_add(ticks));
        self.now.unix_ns += ticks as u64 * NS_PER_TICK;
    }

    /// Moves the clock; whoever polls next reads the new time.
    pub fn wait_ticks(&mut self, ticks: u32) {
        self.free_ticks = 0;
        self.pass(ticks);
    }

    /// Lets at most `ticks` ticks pass by themselves, a few steps each.
    pub fn let_pass(&mut self, ticks: u32) {
        self.free_ticks = ticks;
    }

    /// Sweeps the whole table and lets the owners delete what has expired; false if that takes too
    /// long.
    pub fn expire(&mut self) -> bool {
        self.swept = 0;
        self.sweep(self.shared.index.buckets());
        self.settle()
    }

    /// Every conn of every lcore; `None` if that takes too long.
    pub fn list(&mut self) -> Option<Vec<ConnView>> {
        for lcore in 0..self.lcores.len() {
            self.order_list(lcore, Family::V4, ASKED);
            self.order_list(lcore, Family::V6, ASKED);
        }
        self.settle().then(|| core::mem::take(&mut self.listed))
    }

    /// (packets, bytes) of every rule and policy of a family, of all lcores and all policies so
    /// far, which must have the same rules in the same places; `None` if that takes too long.
    pub fn rule_counts(&mut self, v6: bool) -> Option<Vec<(u64, u64)>> {
        (0..self.lcores.len()).for_each(|lcore| self.order(lcore, ToLcore::Fold));
        if !self.settle() {
            return None;
        }
        let mut sums = Vec::new();
        for snapshot in &self.snapshots {
            let rules = snapshot.family(v6);
            for number in rules.rules.counters() {
                let at = number as usize;
                sums.resize(sums.len().max(at + 1), (0, 0));
                for lcore in &rules.counters {
                    let (packets, bytes) = lcore.get(CounterId(number));
                    sums[at] = (sums[at].0 + packets, sums[at].1 + bytes);
                }
            }
        }
        Some(sums)
    }

    /// Frames dropped for each reason, by all lcores; those of no frame are left out.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let of = |reason: DropReason| {
            self.lcores.iter().map(|l| l.counters.drops[reason as usize].get()).sum()
        };
        let all = DropReason::ALL.iter().map(|&reason| (reason, of(reason)));
        all.filter(|(_, n)| *n > 0).collect()
    }

    /// Confirmed conns, by reading every record.
    pub fn confirmed(&self) -> u32 {
        let records = &self.shared.records;
        let confirmed = |family| {
            let numbers = 0..records.numbers(family);
            let conns = numbers.filter_map(move |n| records.get(ConnRef::new(family, n)));
            conns.filter(|conn| conn.status().has(Status::CONFIRMED)).count() as u32
        };
        confirmed(Family::V4) + confirmed(Family::V6)
    }

    /// Lets frames arrive and counts the cache lines that are written until nothing is under way;
    /// `None` if that takes too long.
    #[cfg(feature = "count-lines")]
    pub fn count_lines(&mut self, frames: Vec<(PortId, Vec<u8>)>) -> Option<Written> {
        use crate::arch::lines;
        let handed = |lcores: &[Lcore]| -> u64 {
            lcores.iter().map(|lcore| lcore.counters.handed_over.get()).sum()
        };
        let (received, before) = (frames.len() as u64, handed(&self.lcores));
        frames.into_iter().for_each(|(port, bytes)| self.arrive(port, bytes));
        lines::start();
        let settled = self.settle();
        let written = lines::stop().written;
        let workers = |by: &std::collections::BTreeSet<u8>| {
            by.iter().filter(|lcore| **lcore != CONTROL_CORE).count()
        };
        let shared = written.iter().filter(|(_, by)| workers(by) > 1).map(|(line, _)| *line);
        let (shared, lines) = (shared.collect(), written.len());
        let handed_over = handed(&self.lcores) - before;
        settled.then_some(Written { received, handed_over, lines, shared })
    }

    /// Stops all workers, which frees what they hold.
    pub fn stop(&mut self) {
        self.lcores.iter_mut().for_each(|lcore| lcore.worker.stop());
    }
}

/// Numbers of listings: those that nobody looks at, and those that somebody asked for.
const NOISE: u32 = 0;
const ASKED: u32 = 1;

const NS_PER_TICK: u64 = 1_000_000_000 / TICKS_PER_SEC as u64;

/// Source or destination of a packet as a NIC hashes it.
fn end_bits(h: &Headers, source: bool) -> u64 {
    let (address, port) = if source { (h.src, h.src_port) } else { (h.dst, h.dst_port) };
    let bits = address.bits();
    mixed(bits as u64 ^ (bits >> 64) as u64 ^ (port as u64) << 40)
}

fn symmetric(h: &Headers) -> u64 {
    mixed(end_bits(h, true) ^ end_bits(h, false)) >> 32
}

fn digest_of(before: u64, sent: &Sent) -> u64 {
    let head = [sent.lcore, sent.port.0];
    let step = |hash: u64, byte: &u8| (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
    mixed(head.iter().chain(&sent.bytes).fold(before, step))
}
