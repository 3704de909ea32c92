//! A whole gateway in this process: the control core here, one worker on a CPU of its own, ports in
//! memory.
//!
//! Configuration and rules are the files that a user would write. While a job runs on the worker's
//! CPU the control core has its rounds on the other, as in the daemon; between jobs nobody polls.

use std::fmt::{self, Write as _};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use dataplane::lcore::rings;
use dataplane::lcore::worker::Worker;
use dataplane::pipeline::Pipeline;
use dataplane::pipeline::counters::Counter;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::place::Layout;
use dataplane::time::Now;
use sluicegate::config::Config;
use sluicegate::gateway::{ControlCore, WorkerParts, load_rules};

use super::clock::pin;
use super::packets::OPEN_PORT;
use super::watch::Watch;
use super::wires::{PORTS, Source, Wires};
use crate::process::{CONTROL_CPU, Failure, WORKER_CPU};
use crate::sluicegate::colons;
use crate::traffic::{LAN_MAC, LAN_NEXT_HOP_MAC, WAN_MAC, WAN_NEXT_HOP_MAC};

/// A round of the control core, as in the daemon.
pub(crate) const ROUND: Duration = Duration::from_millis(1);
/// Conns of one outside address: CSIT's 1024 inside hosts.
const CONNS_PER_ADDRESS: u32 = 64_512;

/// Timeouts of a table that is to keep what it has, however long a busy machine takes to fill it.
pub(crate) const PATIENT: &str = "udp_timeout = 86400\nudp_timeout_stream = 86400\n\
     tcp_timeout_syn_sent = 86400\ntcp_timeout_time_wait = 86400\n";
/// For `map_err`: what the gateway itself says.
pub(crate) fn broken(what: &str) -> impl Fn(&dyn fmt::Display) -> Failure {
    move |error| Failure::Answer { what: what.to_owned(), text: error.to_string() }
}

/// What a gateway is made for.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The table's limit, or what else stands under `[conntrack]`.
    pub(crate) table: String,
    pub(crate) rules_v4: String,
    pub(crate) rules_v6: String,
    pub(crate) workers: u8,
    pub(crate) seed: u64,
}

/// What the rules do to conns from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Ten rules that every new conn meets.
    Firewall,
    /// The same, and the source translated.
    Snat,
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Work::Firewall { "firewall" } else { "SNAT" })
    }
}

impl Work {
    /// A gateway of one worker for at most `max` conns, with more lines for its table.
    pub(crate) fn plan(self, max: u32, more: &str, seed: u64) -> Plan {
        let pool = self.pool(max);
        Plan {
            table: format!("max = {max}\n{more}"),
            rules_v4: ten_rules(pool.as_deref(), "10.99.0.0/16"),
            rules_v6: String::new(),
            workers: 1,
            seed,
        }
    }

    /// The outside addresses for `conns` conns.
    fn pool(self, conns: u32) -> Option<String> {
        let last = conns.div_ceil(CONNS_PER_ADDRESS).clamp(1, 254);
        (self == Work::Snat).then(|| format!("198.51.100.1-198.51.100.{last}"))
    }
}

/// A policy for the forwarded: what is new from inside passes ten rules, and is translated if there
/// is a `pool`. Strangers may open conns to one port.
pub(crate) fn ten_rules(pool: Option<&str>, other: &str) -> String {
    let mut text = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
         -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        .to_owned();
    // Rules of which nothing here is meant, and which look at every part of the tuple.
    for port in [25, 137, 445, 513] {
        let _ = writeln!(text, "-A FORWARD -i lan -p tcp -m tcp --dport {port} -j DROP");
    }
    for port in [69, 161, 514] {
        let _ = writeln!(text, "-A FORWARD -i lan -p udp -m udp --dport {port} -j DROP");
    }
    let _ = write!(
        text,
        "-A FORWARD -s {other} -j DROP\n\
         -A FORWARD -i lan -o wan -m conntrack --ctstate NEW -j ACCEPT\n\
         -A FORWARD -i wan -o lan -p tcp -m tcp --dport {OPEN_PORT} -m conntrack --ctstate NEW \
         -j ACCEPT\nCOMMIT\n"
    );
    if let Some(pool) = pool {
        let _ = write!(
            text,
            "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
             :POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -o wan -j SNAT --to-source {pool}\nCOMMIT\n"
        );
    }
    text
}

fn configuration(plan: &Plan) -> String {
    let workers: Vec<u32> = (1..=plan.workers.into()).collect();
    let mut text = format!("[eal]\ncontrol_core = 0\nworker_cores = {workers:?}\n\n");
    let ports = [
        ("lan", LAN_MAC, "\"192.168.10.1/24\", \"fd00:11::1/64\""),
        ("wan", WAN_MAC, "\"203.0.113.1/24\", \"2001:db8:21::1/64\""),
    ];
    for (name, mac, addresses) in ports {
        let _ = write!(
            text,
            "[[port]]\nname = \"{name}\"\ndevice = \"net_null_{name}\"\nmac = \"{}\"\n\
             addresses = [{addresses}]\n\n",
            colons(mac)
        );
    }
    let hops = [
        ("10.0.0.0/8", "192.168.10.254", LAN_NEXT_HOP_MAC, "lan"),
        ("0.0.0.0/0", "203.0.113.254", WAN_NEXT_HOP_MAC, "wan"),
        ("fd00:0:0:10::/64", "fd00:11::fe", LAN_NEXT_HOP_MAC, "lan"),
        ("::/0", "2001:db8:21::fe", WAN_NEXT_HOP_MAC, "wan"),
    ];
    for (to, via, mac, port) in hops {
        let _ = write!(
            text,
            "[[route]]\nto = \"{to}\"\nvia = \"{via}\"\nport = \"{port}\"\n\n\
             [[neighbour]]\naddress = \"{via}\"\nmac = \"{}\"\nport = \"{port}\"\n\n",
            colons(mac)
        );
    }
    let v6 = if plan.rules_v6.is_empty() { "" } else { "ipv6 = \"rules.v6\"\n" };
    text + &format!("[conntrack]\n{}\n[rules]\nipv4 = \"rules.v4\"\n{v6}", plan.table)
}

/// The control core for a plan, by the time that `now` says.
pub(crate) fn control_core(
    plan: &Plan,
    now: impl Fn() -> Now + 'static,
) -> Result<ControlCore, Failure> {
    // Several tests may make one at the same time.
    static MADE: AtomicU64 = AtomicU64::new(0);
    let name = format!("sluicegate-perf-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
    let scratch = std::env::temp_dir().join(name);
    fs::create_dir_all(&scratch).map_err(Failure::io(scratch.display()))?;
    let write = |name: &str, text: &str| {
        let file = scratch.join(name);
        fs::write(&file, text).map_err(Failure::io(file.display()))
    };
    let read = || {
        write("gateway.toml", &configuration(plan))?;
        write("rules.v4", &plan.rules_v4)?;
        write("rules.v6", &plan.rules_v6)?;
        let config = Config::load(&scratch.join("gateway.toml"));
        let config = config.map_err(|e| broken("configuration")(&e))?;
        let rulesets = load_rules(&config).map_err(|e| broken("rules")(&e))?;
        Ok((config, rulesets))
    };
    let read = read();
    let _ = fs::remove_dir_all(&scratch);
    let (config, rulesets) = read?;
    let queues = plan.workers.into();
    let wires = (vec![LAN_MAC, WAN_MAC], Layout::even(plan.workers, PORTS, queues));
    let seed =
        std::array::from_fn(|i| (plan.seed + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    ControlCore::new(config, wires, rulesets, seed, Box::new(now))
        .map_err(|e| broken("gateway")(&e))
}

/// A gateway of one worker.
pub(crate) struct Rig<S: Source> {
    pub(crate) core: ControlCore,
    pub(crate) worker: Worker<Wires<S>>,
    /// What both go by.
    pub(crate) watch: Watch,
}

impl<S: Source> Rig<S> {
    /// Makes it, from here on on the control core's CPU.
    pub(crate) fn new(plan: &Plan, source: S) -> Result<Rig<S>, Failure> {
        pin(CONTROL_CPU)?;
        let watch = Watch::start();
        let its_own = watch.clone();
        let mut core = control_core(plan, move || its_own.control_now())?;
        let parts = core.worker_parts(0).ok_or_else(|| broken("gateway")(&"no worker"))?;
        let rings = rings::mesh(1).pop().ok_or_else(|| broken("gateway")(&"no worker"))?;
        let WorkerParts { place, store, snapshot, links, mailbox, seed } = parts;
        let pipeline = Pipeline::new(place, store, snapshot, links, seed);
        let worker = Worker::new(Wires::new(source), pipeline, mailbox, rings, super::BURST);
        Ok(Rig { core, worker, watch })
    }

    /// What happens at the ports.
    pub(crate) fn wires(&mut self) -> &mut Wires<S> {
        self.worker.io()
    }

    /// Runs `job` on the worker's CPU, while the control core has its rounds on this one.
    pub(crate) fn run<T: Send>(
        &mut self,
        job: impl FnOnce(&mut Worker<Wires<S>>, &Watch) -> T + Send,
    ) -> Result<T, Failure> {
        let Rig { core, worker, watch } = self;
        let watch = &*watch;
        thread::scope(|threads| {
            let at_work = threads.spawn(move || {
                pin(WORKER_CPU)?;
                Ok(job(worker, watch))
            });
            while !at_work.is_finished() {
                core.round();
                thread::sleep(ROUND);
            }
            at_work.join().unwrap_or_else(|_| Err(broken("worker")(&"panicked")))
        })
    }

    /// Lets the control core do something that it needs its worker for.
    pub(crate) fn ask<T>(&mut self, ask: impl FnOnce(&mut ControlCore) -> T) -> Result<T, Failure> {
        let Rig { core, worker, watch } = self;
        let over = AtomicBool::new(false);
        thread::scope(|threads| {
            let (over, watch) = (&over, &*watch);
            let at_work = threads.spawn(move || {
                let pinned = pin(WORKER_CPU);
                while !over.load(Relaxed) {
                    worker.poll(watch.now());
                }
                pinned
            });
            let answer = ask(core);
            over.store(true, Relaxed);
            let pinned = at_work.join().unwrap_or_else(|_| Err(broken("worker")(&"panicked")));
            pinned.map(|()| answer)
        })
    }

    /// Polls until nothing more arrives, on the worker's CPU.
    pub(crate) fn until_quiet(&mut self) -> Result<(), Failure> {
        self.run(|worker, watch| while worker.poll(watch.now()) > 0 {})
    }

    /// Conns in the table.
    pub(crate) fn conns(&self) -> u32 {
        self.core.table().capacity.count()
    }

    /// That everything which arrived has left, and each frame has come to one end.
    pub(crate) fn lost_nothing(&mut self, what: &str) -> Result<(), Failure> {
        let wires = self.worker.io();
        let (arrived, left) = (wires.arrived, wires.left);
        let balanced = self.core.counters().all(|counters| counters.balanced());
        if arrived == left && balanced {
            return Ok(());
        }
        let mut reason = format!("{what}: {arrived} frames arrived, {left} left");
        for (at, drop) in DropReason::ALL.iter().enumerate() {
            let drops = self.core.counters().filter_map(|counters| counters.drops.get(at));
            let drops: u64 = drops.map(Counter::get).sum();
            if drops > 0 {
                let _ = write!(reason, ", {drops} dropped as {}", drop.name());
            }
        }
        Err(work(&reason))
    }
}

/// So many rounds of a worker.
pub(crate) fn polls<S: Source>(worker: &mut Worker<Wires<S>>, watch: &Watch, rounds: u32) {
    for _ in 0..rounds {
        worker.poll(watch.now());
    }
}

/// The gateway did not do its work.
pub(crate) fn work(reason: &str) -> Failure {
    Failure::Work { program: "Sluicegate".to_owned(), reason: reason.to_owned() }
}
