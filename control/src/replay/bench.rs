//! The control core and its workers on one thread, with ports in memory: what a replay runs.
//!
//! Whoever owns a [`Bench`] owns its clock. Frames are given to it one by one; each is at its end,
//! and what came out of it is there, before the next one arrives.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::rc::Rc;

use dataplane::lcore::memory::{MemoryFrame, MemoryIo};
use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::Pipeline;
use dataplane::pipeline::counters::PortCounters;
use dataplane::pipeline::place::{Layout, Queues};
use dataplane::rules::facts::PortId;
use dataplane::time::{Now, TICKS_PER_SEC, Tick};
use dataplane::wire::address::Address;
use dataplane::wire::headers;

use super::ReplayError;
use crate::config::{Config, Port};
use crate::gateway::{ControlCore, CoreError, WorkerParts};
use crate::publish::Rulesets;
use crate::tools::conntrack::{self, Outcome};

/// The control core's rounds in a gap between two frames, in nanoseconds of capture time.
const STEP_NS: u64 = 100_000_000;

/// Rounds in one gap; in a longer gap they lie further apart.
const STEPS_MAX: u64 = 100;

/// What the daemon draws by lot.
const SEED: [u64; 6] = [
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
];

/// A frame that was sent: port, nanoseconds since 1970, bytes.
pub type Sent = (PortId, u64, Vec<u8>);

/// The control core and its workers, and what they have sent.
pub struct Bench {
    pub(super) core: ControlCore,
    workers: Rc<RefCell<Vec<Worker<MemoryIo>>>>,
    layout: Layout,
    /// Ports of the capture; those behind them lead to the box itself, which is not in it.
    ports: usize,
    /// By port number: whose device a sub-interface receives by.
    parents: Vec<Option<PortId>>,
    pub(super) clock: Rc<Cell<Now>>,
    /// The time stamp of the first frame, where ticks begin.
    pub(super) origin_ns: Option<u64>,
    pub(super) sent: Vec<Sent>,
}

impl Bench {
    /// A gateway of this configuration and these rules. With `keep_log` the lines of its LOG rules
    /// wait to be asked for.
    ///
    /// # Errors
    /// What keeps a daemon from starting: memory, and rules or routes that do not fit together.
    pub fn new(config: Config, rulesets: Rulesets, keep_log: bool) -> Result<Bench, CoreError> {
        let (ports, burst) = (config.ports.len(), config.eal.burst.into());
        let taps = config.ports.iter().filter(|p| p.host_tap.is_some()).count();
        let workers = config.eal.worker_cores.len();
        let queues = |port: &Port| match port.vlan {
            Some(_) => Queues { rx: 0, tx: 0 },
            None => Queues { rx: port.rx_queues.unwrap_or(1), tx: port.tx_queues.unwrap_or(1) },
        };
        let tap_queues = std::iter::repeat_n(Queues { rx: 1, tx: 1 }, taps);
        let queues = config.ports.iter().map(queues).chain(tap_queues).collect();
        let layout = Layout::new(workers as u8, queues);
        let macs = (0u8..).zip(&config.ports);
        let mac = |(n, port): (u8, &Port)| port.mac.unwrap_or([0x02, 0x53, 0x47, 0, 0, n]);
        let mut macs: Vec<[u8; 6]> = macs.map(mac).collect();
        config.share_macs(&mut macs);
        let parents = config.ports.iter().map(|p| p.vlan.map(|v| PortId(v.parent as u8))).collect();
        let clock = Rc::new(Cell::new(Now::default()));
        let read = Rc::clone(&clock);
        let wires = (macs, layout.clone());
        let mut core =
            ControlCore::new(config, wires, rulesets, SEED, Box::new(move || read.get()))?;
        if keep_log {
            core.keep_log_lines();
        }
        let mut made = Vec::new();
        for (number, rings) in rings::mesh(workers).into_iter().enumerate() {
            let Some(parts) = core.worker_parts(number) else { continue };
            let WorkerParts { place, store, snapshot, links, mailbox, seed } = parts;
            let pipeline = Pipeline::new(place, store, snapshot, links, seed);
            made.push(Worker::new(MemoryIo::new(ports + taps), pipeline, mailbox, rings, burst));
        }
        let workers = Rc::new(RefCell::new(made));
        let (polled, at) = (Rc::clone(&workers), Rc::clone(&clock));
        core.set_pause(Box::new(move || {
            poll(&mut polled.borrow_mut(), at.get());
            true
        }));
        let (sent, origin_ns) = (Vec::new(), None);
        Ok(Bench { core, workers, layout, ports, parents, clock, origin_ns, sent })
    }

    /// Moves the clock to `unix_ns`, with rounds of the control core on the way, and lets a frame
    /// arrive; returns what was sent since the last one.
    pub fn frame(&mut self, port: PortId, unix_ns: u64, bytes: Vec<u8>) -> Vec<Sent> {
        let step = self.step_towards(unix_ns);
        while self.step(step, unix_ns) {}
        self.take(port, bytes);
        std::mem::take(&mut self.sent)
    }

    /// The control core, to be asked what tools ask.
    pub fn core(&mut self) -> &mut ControlCore {
        &mut self.core
    }

    /// How far apart the control core's rounds are on the way to `unix_ns`.
    pub(super) fn step_towards(&mut self, unix_ns: u64) -> u64 {
        if self.origin_ns.is_none() {
            self.set_clock(unix_ns);
        }
        STEP_NS.max(unix_ns.saturating_sub(self.clock.get().unix_ns) / STEPS_MAX)
    }

    /// Goes one step towards `unix_ns`, and has a round there; false once the clock shows it.
    pub(super) fn step(&mut self, step: u64, unix_ns: u64) -> bool {
        let now = self.clock.get().unix_ns;
        let on_the_way = unix_ns.saturating_sub(now) > step;
        self.set_clock(if on_the_way { now + step } else { unix_ns.max(now) });
        if on_the_way {
            self.settle();
        }
        on_the_way
    }

    fn set_clock(&mut self, unix_ns: u64) {
        let origin = *self.origin_ns.get_or_insert(unix_ns);
        let ticks = unix_ns.saturating_sub(origin) / (1_000_000_000 / u64::from(TICKS_PER_SEC));
        self.clock.set(Now { tick: Tick(ticks as u32), unix_ns });
    }

    /// Lets a frame arrive.
    pub(super) fn take(&mut self, port: PortId, bytes: Vec<u8>) {
        let parent = self.parents.get(usize::from(port.0)).copied().flatten();
        let device = parent.unwrap_or(port);
        let queues = self.layout.queues.get(usize::from(device.0)).map_or(1, |q| q.rx);
        let receiver = self.layout.receiver(device, queue_of(&bytes, queues));
        if let Some(worker) = self.workers.borrow_mut().get_mut(usize::from(receiver)) {
            worker.io().push(port, MemoryFrame::new(bytes));
        }
        self.settle();
    }

    /// Until workers and control core have nothing to do at this moment.
    pub(super) fn settle(&mut self) {
        let now = self.clock.get();
        loop {
            while poll(&mut self.workers.borrow_mut(), now) > 0 {}
            self.core.round();
            if self.core.is_read() {
                break;
            }
        }
        for worker in self.workers.borrow_mut().iter_mut() {
            while let Some((port, frame)) = worker.io().pop_sent() {
                if usize::from(port.0) < self.ports {
                    self.sent.push((port, now.unix_ns, frame.bytes()));
                }
            }
        }
    }

    /// `conntrack -L`.
    pub(super) fn list(&mut self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
        if let Outcome::Done(answer) = conntrack::run(&["-L".to_owned()], "", &mut self.core) {
            out.write_all(answer.out.as_bytes())?;
            err.write_all(answer.err.as_bytes())?;
        }
        Ok(())
    }

    /// That every frame has come to exactly one end.
    ///
    /// # Errors
    /// [`ReplayError::Unbalanced`], which is a defect of the pipeline.
    pub fn check_balance(&self) -> Result<(), ReplayError> {
        for (number, c) in self.core.counters().enumerate() {
            if c.balanced() {
                continue;
            }
            let sum = |of: fn(&PortCounters) -> u64| c.ports.iter().map(of).sum::<u64>();
            return Err(ReplayError::Unbalanced(format!(
                "worker {number}: rx {}, generated {}, taken over {}, tx {}, to host {}, \
                 dropped {}, held {}, handed over {}",
                sum(|p| p.rx_packets.get()),
                c.generated.get(),
                c.taken_over.get(),
                sum(|p| p.tx_packets.get()),
                c.to_host.get(),
                c.dropped(),
                c.held.get(),
                c.handed_over.get()
            )));
        }
        Ok(())
    }
}

/// One round of every worker; what they did.
fn poll(workers: &mut [Worker<MemoryIo>], now: Now) -> usize {
    workers.iter_mut().map(|worker| worker.poll(now)).sum()
}

/// The queue of a port with `queues` queues that a frame comes in by: the same for both directions
/// of a conn, as with a NIC whose hash is symmetric.
fn queue_of(bytes: &[u8], queues: u16) -> u16 {
    let Ok(h) = headers::parse(bytes, bytes.len()) else { return 0 };
    let ends = |address: Address, id: u16| address.bits() ^ u128::from(id);
    let both = ends(h.src, h.src_port) ^ ends(h.dst, h.dst_port);
    let folded = (both >> 64) as u64 ^ both as u64;
    ((folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) % u64::from(queues.max(1))) as u16
}
