//! The control core: the one writer of policy, and the other end of every lcore's mailbox.
//!
//! [`ControlCore`] owns the configuration in force, the rules as text and model, the knobs, and the
//! current snapshot. It publishes, sweeps for expired conns, runs the neighbour timers, serves the
//! tools, and never touches a packet. Workers run beside it (in the daemon) or are polled by it (in
//! `replay`): whenever it has to wait for an answer it calls `pause`, which lets them go on.
//!
//! | file | does |
//! |---|---|
//! | `mod` | the parts and how they are made |
//! | `mail` | messages from the lcores; questions to them |
//! | `policy` | publishing rules, routes and knobs; rule counters across snapshots |
//! | `resize` | the sizes of the table, changed live |
//! | `wires` | links that go down and come up |
//! | `host` | what the kernel learns on the host taps |
//! | `upkeep` | expiry sweep, neighbour timers, memory ahead of demand |
//! | `by_hand` | conns that a tool asks for by name, makes or changes |
//! | `explain` | what would become of a packet |
//! | `verdicts`, `dry_run` | what rules would do to the conns that are there |
//! | `serve` | what the tools need: listings, deletes, sysctls, statistics |
//! | `sets` | sets that rules ask: commands, and what packets add to them |
//! | `commands` | from a command line to its answer |

mod by_hand;
mod commands;
mod dry_run;
mod explain;
mod host;
mod mail;
mod policy;
mod resize;
mod serve;
mod sets;
#[cfg(test)]
mod tests;
mod upkeep;
mod verdicts;
mod wires;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use dataplane::conntrack::expect::EXPECT_MAX_LIMIT;
use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::record::Family;
use dataplane::conntrack::store::{SetupError, Shared, Sizes, Store};
use dataplane::conntrack::tuple::HashSeed;
use dataplane::lcore::mailbox::{ControlEnd, LcoreEnd, mailbox};
use dataplane::pipeline::Links;
use dataplane::pipeline::budget::ErrorBudget;
use dataplane::pipeline::counters::LcoreCounters;
use dataplane::pipeline::messages::ToLcore;
use dataplane::pipeline::neighbour::NeighbourTable;
use dataplane::pipeline::place::{Layout, Place};
use dataplane::pipeline::resize::Resize;
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::time::{Now, Tick};

use crate::config::Config;
use crate::publish::{self, Learnt, PublishError, Rulesets};
use crate::socket::Reply;
use crate::tools::Silent;
use crate::tools::conntrack::Subscription;
use crate::tools::stats::Wire;
use crate::watchdog::{Stalls, Watched};

pub use commands::Served;
pub use policy::{ReloadError, RulesError, load_rules};

/// Neighbours of all ports together.
const NEIGHBOURS: usize = 4096;

/// Places that the table of expectations has at least: `expect_max` can be raised so far without a
/// restart, or to four times what it was at the start.
const EXPECTATIONS_MIN: u32 = 4096;

/// How long an answer of an lcore is waited for, unless the watchdog gives it up before. Other
/// commands, expiry and reloads stand still meanwhile; packets do not.
const PATIENCE: Duration = Duration::from_secs(5);

/// One lcore as the control core sees it.
struct Lcore {
    mailbox: ControlEnd,
    /// The other end, until the worker is made.
    worker_end: Option<LcoreEnd>,
    /// Snapshots sent and not yet adopted, counters asked for, and deletions of the present
    /// question without an answer.
    adopting: usize,
    folding: usize,
    deleting: usize,
    counters: Arc<LcoreCounters>,
    cpu: u32,
    stalls: Arc<Stalls>,
}

/// What a worker is made from.
pub struct WorkerParts {
    /// The lcore's hands on the table.
    pub store: Store,
    /// The policy to start with.
    pub snapshot: Arc<Snapshot>,
    /// What it shares with the control core.
    pub links: Links,
    /// Where it stands among the others.
    pub place: Place,
    /// Its mailbox.
    pub mailbox: LcoreEnd,
    /// For its choice of ports.
    pub seed: u64,
}

/// Why the control core could not be set up.
#[derive(Debug)]
pub enum CoreError {
    /// The table.
    Table(SetupError),
    /// The first snapshot.
    Publish(PublishError),
}

impl fmt::Display for CoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreError::Table(e) => write!(f, "conntrack table: {e}"),
            CoreError::Publish(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for CoreError {}

impl From<SetupError> for CoreError {
    fn from(error: SetupError) -> CoreError {
        CoreError::Table(error)
    }
}

/// Lets the workers go on for a moment; false once there is none to wait for.
pub type Pause = Box<dyn FnMut() -> bool>;

/// The control core.
pub struct ControlCore {
    config: Config,
    macs: Vec<[u8; 6]>,
    rulesets: Rulesets,
    knobs: Knobs,
    max: u32,
    shared: Arc<Shared>,
    neighbours: Arc<NeighbourTable>,
    listeners: Arc<AtomicBool>,
    snapshot: Arc<Snapshot>,
    tally: policy::Tally,
    /// The policy before, while an lcore has not let go of it.
    late: Option<policy::Late>,
    lcores: Vec<Lcore>,
    layout: Layout,
    errors: Arc<ErrorBudget>,
    seed: u64,
    inbox: mail::Inbox,
    /// The process whose command is being served.
    asker: Option<u32>,
    subscriptions: Vec<(Box<Subscription>, Reply)>,
    /// The table of expectations keeps its events for somebody.
    hears_expectations: bool,
    upkeep: upkeep::Upkeep,
    /// The table is changing its size.
    resize: Option<Resize>,
    host: Option<host::HostSide>,
    /// The conns that the rules deny are being ended.
    purge: Option<verdicts::Purge>,
    /// By port number, as the drivers last told.
    wires: Vec<Wire>,
    /// In the snapshot in force.
    learnt: Learnt,
    clock: Box<dyn Fn() -> Now>,
    pause: Pause,
    /// Times it has read its mail: the heartbeat that the watchdog looks at.
    rounds: Arc<AtomicU64>,
    stalls: Arc<Stalls>,
    /// What LOG rules wrote, for those who ask (`replay`); the daemon writes it to its own log.
    log_lines: Vec<String>,
    keep_log_lines: bool,
}

impl ControlCore {
    /// For a configuration whose ports have `macs` and queues as in `layout`. `seed` makes every
    /// choice repeatable; the daemon draws it, `replay` fixes it.
    ///
    /// # Errors
    /// See [`CoreError`].
    pub fn new(
        config: Config,
        (macs, layout): (Vec<[u8; 6]>, Layout),
        rulesets: Rulesets,
        seed: [u64; 6],
        clock: Box<dyn Fn() -> Now>,
    ) -> Result<ControlCore, CoreError> {
        let [a, b, c, d, e, ports_seed] = seed;
        let hash_seed = HashSeed([a, b, c, d, e]);
        let max = config.conntrack.max;
        let cpus = config.eal.worker_cores.clone();
        let sizes = Sizes { max, lcores: cpus.len() as u8, extensions: max };
        let (hashsize, expect_max) = (config.conntrack.hashsize, config.conntrack.expect_max);
        let shared = Shared::with_hashsize(sizes, hashsize, hash_seed)?.with_expectations(
            expect_max,
            expect_max.saturating_mul(4).clamp(EXPECTATIONS_MIN, EXPECT_MAX_LIMIT),
            sizes.lcores,
        );
        let shared = Arc::new(shared);
        shared.capacity.set_refuses(config.conntrack.refuses_when_full);
        let mut knobs = config.conntrack.knobs;
        knobs.acct |= rulesets.ask_for_counts();
        let learnt = Learnt::default();
        let snapshot =
            publish::snapshot(&config, &macs, &learnt, &rulesets, knobs, None, cpus.len())
                .map_err(CoreError::Publish)?;
        let ports = snapshot.ports.len();
        let lcore = |cpu| {
            let (mailbox, worker_end) = mailbox();
            Lcore {
                mailbox,
                worker_end: Some(worker_end),
                adopting: 0,
                folding: 0,
                deleting: 0,
                counters: Arc::new(LcoreCounters::new(ports)),
                cpu,
                stalls: Arc::default(),
            }
        };
        let mut core = ControlCore {
            macs,
            rulesets,
            knobs,
            max,
            shared,
            neighbours: Arc::new(NeighbourTable::new(NEIGHBOURS, hash_seed)),
            listeners: Arc::new(AtomicBool::new(false)),
            tally: policy::Tally::of(&snapshot),
            late: None,
            snapshot: Arc::new(snapshot),
            lcores: cpus.into_iter().map(lcore).collect(),
            layout,
            errors: Arc::default(),
            seed: ports_seed,
            inbox: mail::Inbox::default(),
            asker: None,
            subscriptions: Vec::new(),
            hears_expectations: false,
            upkeep: upkeep::Upkeep::default(),
            resize: None,
            host: None,
            purge: None,
            wires: Vec::new(),
            learnt,
            clock,
            pause: Box::new(|| {
                std::thread::yield_now();
                true
            }),
            rounds: Arc::default(),
            stalls: Arc::default(),
            log_lines: Vec::new(),
            keep_log_lines: false,
            config,
        };
        core.rulesets.sets.note_rules([&core.rulesets.v4, &core.rulesets.v6]);
        core.set_neighbours();
        core.provide_memory(&core.snapshot).map_err(|e| CoreError::Table(SetupError::Memory(e)))?;
        Ok(core)
    }

    /// How to let the workers go on while an answer is awaited.
    pub fn set_pause(&mut self, pause: Pause) {
        self.pause = pause;
    }

    /// The parts of worker `number`; `None` if they have been taken.
    pub fn worker_parts(&mut self, number: usize) -> Option<WorkerParts> {
        let lcore = self.lcores.get_mut(number)?;
        Some(WorkerParts {
            place: self.layout.place(number as u8),
            store: Store::new(Arc::clone(&self.shared), number as u8),
            snapshot: Arc::clone(&self.snapshot),
            links: Links {
                counters: Arc::clone(&lcore.counters),
                neighbours: Arc::clone(&self.neighbours),
                listeners: Arc::clone(&self.listeners),
                errors: Arc::clone(&self.errors),
            },
            mailbox: lcore.worker_end.take()?,
            seed: self.seed ^ (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        })
    }

    /// True if every lcore has read all its messages.
    pub fn is_read(&self) -> bool {
        self.lcores.iter().all(|lcore| lcore.mailbox.is_read())
    }

    /// Asks every lcore to fold the sums of its cached paths into the rule counters.
    ///
    /// # Errors
    /// The first that stands still; those after it are not asked.
    pub fn ask_for_counts(&mut self) -> Result<(), Silent> {
        for lcore in 0..self.lcores.len() {
            self.send(lcore, ToLcore::Fold)?;
            self.lcores[lcore].folding += 1;
        }
        Ok(())
    }

    /// The table, for tests and replay.
    pub fn table(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The policy in force.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Where the stalls of worker `number` are written down; its thread enters itself there.
    pub fn worker_stalls(&self, number: usize) -> Arc<Stalls> {
        Arc::clone(&self.lcores[number].stalls)
    }

    /// What a watchdog has to look at: every worker, and the control core, which is the caller's
    /// thread.
    pub fn watched(&self) -> Vec<Watched> {
        self.stalls.enter();
        let cpu = self.config.eal.control_core;
        let own = Watched::control_core(cpu, Arc::clone(&self.rounds), Arc::clone(&self.stalls));
        let worker = |(number, lcore): (usize, &Lcore)| {
            let (counters, stalls) = (Arc::clone(&lcore.counters), Arc::clone(&lcore.stalls));
            Watched::worker(number as u32 + 1, lcore.cpu, counters, stalls)
        };
        self.lcores.iter().enumerate().map(worker).chain([own]).collect()
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Counters of all workers, for tests of the balance.
    pub fn counters(&self) -> impl Iterator<Item = &LcoreCounters> {
        self.lcores.iter().map(|l| &*l.counters)
    }

    /// Keeps the lines of LOG rules for [`ControlCore::take_log_lines`] instead of logging them.
    pub fn keep_log_lines(&mut self) {
        self.keep_log_lines = true;
    }

    /// The lines kept so far.
    pub fn take_log_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log_lines)
    }

    fn now(&self) -> Now {
        (self.clock)()
    }

    fn tick_now(&self) -> Tick {
        self.now().tick
    }

    /// One round of everything that is not asked for: messages, expiry, timers. Call it often.
    pub fn round(&mut self) {
        self.read_mail();
        self.tell_expectations();
        self.go_on_resizing();
        self.go_on_purging();
        self.keep_up();
        self.rulesets.sets.expire(self.tick_now());
        self.follow_host();
        self.end_subscriptions();
    }

    /// Gives the lcores time until `due`, which names one that still owes something, names none.
    /// An lcore that stands still, or has ended, is not waited for, and any other one for
    /// [`PATIENCE`] at most.
    fn wait(
        &mut self,
        mut due: impl FnMut(&mut ControlCore) -> Option<usize>,
    ) -> Result<(), Silent> {
        let start = Instant::now();
        loop {
            let running = (self.pause)();
            self.read_mail();
            let Some(lcore) = due(self) else { return Ok(()) };
            let stalled = self.lcores[lcore].stalls.is_stalled();
            if !running || stalled || start.elapsed() >= PATIENCE {
                return Err(self.silent(lcore));
            }
        }
    }

    fn silent(&self, lcore: usize) -> Silent {
        Silent { lcore: lcore as u32 + 1, cpu: self.lcores[lcore].cpu }
    }

    /// Memory for the records that the lcores may need before the next round, by a policy.
    fn provide_memory(&self, policy: &Snapshot) -> Result<(), dataplane::arch::OutOfMemory> {
        self.shared.ensure_conns(Family::V4, self.max)?;
        self.shared.records.keep_ahead(Family::V6, upkeep::V6_RESERVE)?;
        if policy.proxies() {
            self.shared.extensions.keep_wide_ahead(self.max)?;
        }
        let everyone = self.knobs.acct || self.knobs.timestamp || policy.knows_labels();
        let reserve = if everyone { self.max } else { upkeep::EXTENSION_RESERVE };
        self.shared.extensions.keep_ahead(reserve)?;
        if policy.counts_conns() {
            self.shared.ensure_counts(Family::V4, self.max)?;
            let v6 = self.shared.records.numbers(Family::V6);
            self.shared.ensure_counts(Family::V6, v6 + upkeep::V6_RESERVE)?;
        }
        Ok(())
    }

    /// Enters the configured neighbours into the table.
    fn set_neighbours(&mut self) {
        let now = self.tick_now();
        for n in &self.config.neighbours {
            if self.neighbours.set_permanent(n.port as u8, n.address, n.mac, now).is_none() {
                log::warn!("neighbour {}: the table has no room for it", n.address);
            }
        }
    }
}
