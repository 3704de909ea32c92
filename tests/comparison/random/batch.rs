//! Many sequences at once on one device, from one empty table: round by round the next packet of
//! each. Their addresses are disjoint, so that none notices the others.
//!
//! The kernel goes first, in real time; the replays get its clock. A replay takes a whole capture,
//! while later packets depend on what comes out of earlier ones, so it is repeated until the
//! packets fit what comes out. Equal beginnings give equal outputs: each run gets further.

use super::dice::Dice;
use super::generate;
use super::plan::{self, DATAGRAMS_MAX, Observed, Plan};
use super::rules::{self, Tables};
use crate::kernel::Kernel;
use crate::packets::{ICMP, ICMPV6};
use crate::replay::{Replay, Replayed, START};
use crate::script::{Emitted, Setup};
use crate::sequences;
use crate::show;
use crate::topology::Side;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Sequences in a batch.
pub const SIZE: u64 = 25;
/// The first slot; an address that ends in 0 would be no host.
const FIRST_SLOT: u64 = 10;
/// Runs of a replay before it is said not to settle.
const RUNS_MAX: usize = 60;
/// From one round to the next at least.
const ROUND: Duration = Duration::from_millis(1);

/// Sequences that run together.
#[derive(Clone)]
pub struct Batch {
    pub plans: Vec<Plan>,
    pub settings: &'static [(&'static str, u32)],
    /// Rounds before which time passes.
    pub waits: Vec<(usize, Duration)>,
    /// Rounds behind which the table is listed. It is at the end, too.
    pub tables: Vec<usize>,
}

/// Frames with the side they are sent on: of a round by sequence, or of a sequence by step.
pub type Round = Vec<Option<(Side, Vec<u8>)>>;

/// What a device made of a batch.
pub struct Outcome {
    /// By sequence and step; `None` for packets that were left out.
    pub sent: Vec<Round>,
    pub observed: Vec<Observed>,
    /// Listings, those of [`Batch::tables`] first.
    pub tables: Vec<String>,
    /// Frames that belong to no sequence, and what else went wrong.
    pub stray: Vec<String>,
}

/// When everything happened, after the beginning.
pub struct Clock {
    rounds: Vec<Duration>,
    tables: Vec<Duration>,
}

impl Clock {
    /// The same moments on a clock that runs at so many percent of its speed.
    pub fn at_percent(&self, percent: u32) -> Clock {
        let scaled = |times: &[Duration]| times.iter().map(|time| *time * percent / 100).collect();
        Clock { rounds: scaled(&self.rounds), tables: scaled(&self.tables) }
    }
}

impl Batch {
    /// The sequences of a batch number; their seeds follow each other.
    pub fn draw(number: u64) -> Batch {
        let mut dice = Dice::new(number ^ 0xba7c_0000_0000);
        let seeds = number * SIZE..(number + 1) * SIZE;
        let settings = settings(&mut dice);
        let checked = !settings.contains(&("checksum", 0));
        let plans = seeds.map(|seed| generate::plan(seed, slot(seed), checked)).collect();
        let short = is_short(settings);
        let waits = match dice.below(4) {
            0 if !short => Vec::new(),
            1 => vec![(dice.between(5, 12) as usize, Duration::from_millis(2500))],
            2 => vec![
                (dice.between(4, 10) as usize, Duration::from_millis(1500)),
                (dice.between(14, 25) as usize, Duration::from_millis(1600)),
            ],
            _ => vec![(dice.between(6, 20) as usize, Duration::from_millis(1500))],
        };
        let tables = vec![dice.between(2, 10) as usize, dice.between(11, 24) as usize];
        Batch { plans, settings, waits, tables }
    }

    /// The batch of a seed with its sequence alone.
    pub fn of_seed(seed: u64) -> Batch {
        Batch::draw(seed / SIZE).only((seed % SIZE) as usize)
    }

    /// One of the sequences alone.
    pub fn only(&self, plan: usize) -> Batch {
        Batch { plans: vec![self.plans[plan].clone()], ..self.clone() }
    }

    /// The same as another run: see [`Plan::run`].
    pub fn again(&self) -> Batch {
        static RUNS: AtomicU16 = AtomicU16::new(1);
        let run = RUNS.fetch_add(1, Ordering::Relaxed) % (u16::MAX / DATAGRAMS_MAX);
        let plans = self.plans.iter().map(|plan| Plan { run, ..plan.clone() }).collect();
        Batch { plans, ..self.clone() }
    }

    /// Rules and settings of all sequences.
    pub fn setup(&self) -> Setup {
        let (mut four, mut six) = (Tables::default(), Tables::default());
        for plan in &self.plans {
            plan.policy.write(plan.slot, if plan.policy.four { &mut four } else { &mut six });
        }
        let text = |tables: Tables| {
            let lines = tables.lines();
            sequences::tables(&lines.each_ref().map(|(name, lines)| (*name, lines.as_str())))
        };
        let (rules4, rules6) = (text(four), text(six));
        Setup { rules4, rules6, settings: self.settings, wan_mtu: 1500 }
    }

    fn rounds(&self) -> usize {
        self.plans.iter().map(|plan| plan.drafts.len()).max().unwrap_or(0)
    }

    /// Runs the batch in the kernel's namespace.
    pub fn referee(&self, kernel: &mut Kernel) -> (Outcome, Clock) {
        let setup = self.setup();
        kernel.prepare(&setup);
        let before = kernel.set(setup.settings);
        let mut outcome = self.nothing();
        let mut clock = Clock { rounds: Vec::new(), tables: Vec::new() };
        kernel.exchange(&[]);
        let began = Instant::now();
        for round in 0..self.rounds() {
            for (_, time) in self.waits.iter().filter(|(before, _)| *before == round) {
                std::thread::sleep(*time);
            }
            if self.may_expire(round) {
                kernel.table();
            }
            let earliest = clock.rounds.last().map_or(Duration::ZERO, |last| *last + ROUND);
            clock.rounds.push(began.elapsed().max(earliest));
            let frames = self.round(round, &outcome.observed);
            let sent: Vec<_> = frames.iter().flatten().cloned().collect();
            outcome.keep(frames);
            let mut emitted = if sent.is_empty() { Vec::new() } else { kernel.exchange(&sent) };
            emitted.retain(|out| !self.is_late(&out.frame));
            self.sort(emitted, round, &mut outcome);
            if self.tables.contains(&round) {
                clock.tables.push(began.elapsed());
                outcome.tables.push(kernel.table());
            }
        }
        clock.tables.push(began.elapsed());
        outcome.tables.push(kernel.table());
        kernel.reset(before);
        (outcome, clock)
    }

    /// Runs the batch through a replay. `guess` is what another device let out.
    pub fn replayed(&self, replay: &Replay, clock: &Clock, guess: &[Observed]) -> Outcome {
        replay.prepare(&self.setup(), &routes());
        let mut observed = guess.to_vec();
        for _ in 0..RUNS_MAX {
            let capture = self.capture(clock, &observed, self.rounds());
            let end = clock.tables[clock.tables.len() - 1];
            let Replayed { emitted, table, .. } = replay.replay(&ended(capture, end));
            let mut outcome = self.nothing();
            for (at, out) in emitted {
                let round = clock.rounds.partition_point(|time| START + *time <= at);
                self.sort(vec![out], round.saturating_sub(1), &mut outcome);
            }
            (0..self.rounds()).for_each(|r| outcome.keep(self.round(r, &observed)));
            let settled =
                (0..self.rounds()).all(|r| self.round(r, &outcome.observed) == outcome.sent_in(r));
            if settled {
                self.list(replay, clock, &mut outcome);
                outcome.tables.push(table);
                return outcome;
            }
            observed = outcome.observed;
        }
        let mut outcome = self.nothing();
        outcome.stray.push(format!("the replay does not settle in {RUNS_MAX} runs"));
        outcome
    }

    /// Lists the table in the middle: a run of the capture up to there for each listing.
    fn list(&self, replay: &Replay, clock: &Clock, outcome: &mut Outcome) {
        let rounds = self.rounds();
        for (at, round) in self.tables.iter().filter(|round| **round < rounds).enumerate() {
            let capture = self.capture(clock, &outcome.observed, round + 1);
            outcome.tables.push(replay.replay(&ended(capture, clock.tables[at])).table);
        }
    }

    /// The capture of the first rounds.
    fn capture(
        &self,
        clock: &Clock,
        observed: &[Observed],
        rounds: usize,
    ) -> Vec<(Duration, Side, Vec<u8>)> {
        let frames = (0..rounds).flat_map(|round| {
            let at = START + clock.rounds[round];
            let frames = self.round(round, observed).into_iter().flatten();
            frames.map(move |(side, frame)| (at, side, frame))
        });
        frames.collect()
    }

    /// The frames of a round, by sequence.
    fn round(&self, round: usize, observed: &[Observed]) -> Round {
        let plans = self.plans.iter().zip(observed);
        plans.map(|(plan, observed)| plan.frame(round, observed)).collect()
    }

    fn nothing(&self) -> Outcome {
        let rounds = self.rounds();
        Outcome {
            sent: vec![Vec::new(); self.plans.len()],
            observed: vec![vec![Vec::new(); rounds]; self.plans.len()],
            tables: Vec::new(),
            stray: Vec::new(),
        }
    }

    /// Whether a conn's time may be up before a round. A kernel has such conns stand in the way of
    /// others until it comes across them, and a listing makes it do so.
    fn may_expire(&self, round: usize) -> bool {
        is_short(self.settings) || self.waits.iter().any(|(before, _)| *before == round)
    }

    /// Whether a frame is a kernel's complaint about a datagram of an earlier run, for the rest of
    /// which it gave up waiting only now: time exceeded in reassembly, another run's fragment.
    fn is_late(&self, frame: &[u8]) -> bool {
        let Some(packet) = frame.get(14..) else { return false };
        let Some(layers) = show::layers(packet) else { return false };
        let reassembly = match layers.protocol {
            ICMP => [11, 1],
            ICMPV6 => [3, 1],
            _ => return false,
        };
        let quote = layers.layer4.get(8..).and_then(plan::fragment);
        layers.layer4.starts_with(&reassembly)
            && quote.is_some_and(|id| self.plans.iter().all(|plan| plan.run != plan::run(id)))
    }

    /// Gives frames that came out in a round to the sequences they belong to.
    fn sort(&self, emitted: Vec<Emitted>, round: usize, outcome: &mut Outcome) {
        for out in emitted {
            let layers = out.frame.get(14..).and_then(show::layers);
            let slot = layers.and_then(|l| rules::slot(l.src).or_else(|| rules::slot(l.dst)));
            match self.plans.iter().position(|plan| Some(plan.slot) == slot) {
                Some(plan) => outcome.observed[plan][round].push(out),
                None => outcome.stray.push(show::frame(&out.frame, &Default::default())),
            }
        }
    }

    /// The lines of a listing that belong to a sequence.
    pub fn lines(&self, plan: usize, listing: &str) -> String {
        let of_plan = |line: &&str| {
            let mut words = line.split_whitespace().filter_map(|word| word.split_once('='));
            words.any(|(_, value)| {
                let slot = value.parse::<IpAddr>().ok().and_then(rules::slot);
                slot == Some(self.plans[plan].slot)
            })
        };
        listing.lines().filter(of_plan).map(|line| line.to_owned() + "\n").collect()
    }
}

impl Outcome {
    fn keep(&mut self, frames: Round) {
        self.sent.iter_mut().zip(frames).for_each(|(sent, frame)| sent.push(frame));
    }

    fn sent_in(&self, round: usize) -> Round {
        self.sent.iter().map(|sent| sent[round].clone()).collect()
    }
}

/// Whether there are timeouts of a second.
fn is_short(settings: &[(&str, u32)]) -> bool {
    settings.iter().any(|(name, value)| name.contains("timeout") && *value == 1)
}

/// A last frame that changes nothing brings a capture's clock to the time of a listing.
fn ended(
    mut capture: Vec<(Duration, Side, Vec<u8>)>,
    at: Duration,
) -> Vec<(Duration, Side, Vec<u8>)> {
    capture.push((START + at, Side::Lan, Side::Lan.arp_request()));
    capture
}

fn slot(seed: u64) -> u8 {
    (FIRST_SLOT + seed % SIZE) as u8
}

/// The routes as the configuration has them.
pub fn routes() -> String {
    let route = |(to, via, port): (&str, &str, &str)| {
        format!("\n[[route]]\nto = \"{to}\"\nvia = \"{via}\"\nport = \"{port}\"\n")
    };
    rules::ROUTES.map(route).concat()
}

/// A kernel with the routes.
pub fn referee() -> Kernel {
    let kernel = Kernel::new();
    let route = |(to, via, port): (&str, &str, &str)| {
        let family = if to.contains(':') { "-6 " } else { "" };
        kernel.gateway(&format!("ip {family}route add {to} via {via} dev {port}"), "")
    };
    let _ = rules::ROUTES.map(route);
    kernel
}

/// Settings that differ from the default, drawn for a batch.
fn settings(dice: &mut Dice) -> &'static [(&'static str, u32)] {
    let mut drawn = vec![("acct", u32::from(dice.percent(80)))];
    let mut sometimes = |of_hundred, name, values: &[u32]| {
        if dice.percent(of_hundred) {
            drawn.push((name, dice.pick(values)));
        }
    };
    sometimes(30, "tcp_loose", &[0]);
    sometimes(20, "tcp_be_liberal", &[1]);
    sometimes(20, "tcp_ignore_invalid_rst", &[1]);
    sometimes(20, "checksum", &[0]);
    sometimes(30, "tcp_max_retrans", &[0, 1, 2, 5]);
    for name in [
        "tcp_timeout_syn_sent",
        "tcp_timeout_syn_recv",
        "tcp_timeout_established",
        "tcp_timeout_fin_wait",
        "tcp_timeout_close_wait",
        "tcp_timeout_last_ack",
        "tcp_timeout_time_wait",
        "tcp_timeout_close",
        "tcp_timeout_max_retrans",
        "tcp_timeout_unacknowledged",
        "udp_timeout",
        "udp_timeout_stream",
        "icmp_timeout",
        "icmpv6_timeout",
        "generic_timeout",
        "gre_timeout",
        "gre_timeout_stream",
        "sctp_timeout_closed",
        "sctp_timeout_cookie_wait",
        "sctp_timeout_cookie_echoed",
        "sctp_timeout_established",
        "sctp_timeout_shutdown_sent",
        "sctp_timeout_shutdown_recd",
        "sctp_timeout_shutdown_ack_sent",
        "sctp_timeout_heartbeat_sent",
    ] {
        sometimes(10, name, &[1, 1, 9, 50, 1000]);
    }
    // The configuration of a batch lives as long as the process: there are few.
    Vec::leak(drawn)
}
