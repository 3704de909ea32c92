//! `sluicegate run`: the control core's loop around signals, socket and upkeep.
//!
//! stdout carries `ready`, `reloaded` and `reload failed: reason`, nothing else. The loop never
//! waits for long: a worker's message is read within a millisecond or two.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use dataplane::lcore::rings;
use dataplane::lcore::worker::{Idle as WorkerIdle, Worker};
use dataplane::pipeline::Pipeline;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::clock::Clock;
use crate::config::sizes::{self, TableCost};
use crate::config::{Config, Eal, Idle, Port, Vlan};
use crate::gateway::{ControlCore, Served, WorkerParts, load_rules};
use crate::host::Host;
use crate::launch::{self, Launched, LcoreError, LcoreHandle};
use crate::publish::{self, Learnt, Rulesets};
use crate::socket::Server;
use crate::watchdog::Watchdog;

/// How long the control core rests between rounds.
const REST: Duration = Duration::from_millis(1);

/// How often the drivers are asked about the wires.
const LOOK: Duration = Duration::from_millis(150);

/// How long workers may take to end, together. One needs a round, and its turn on the CPU.
const LAST_ROUND: Duration = Duration::from_millis(1500);

/// How long answers may take to reach their clients at the end.
const FAREWELL: Duration = Duration::from_millis(200);

/// What the memory of a conn amounts to, for `check`.
const RECORD_V4: u64 = 128;
const RECORD_V6: u64 = 192;

/// Signals, as flags that the loop looks at.
struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    fn install() -> std::io::Result<Signals> {
        let signals = Signals { stop: Arc::default(), reload: Arc::default() };
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&signals.stop))?;
        }
        signal_hook::flag::register(SIGHUP, Arc::clone(&signals.reload))?;
        Ok(signals)
    }
}

/// Starts logging to stderr, unless something else in this process logs already.
pub(crate) fn start_log(level: log::LevelFilter) {
    let _ = env_logger::Builder::new()
        .filter_level(level)
        .format(|out, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(out, "sluicegate: {level}: {}", record.args())
        })
        .target(env_logger::Target::Stderr)
        .try_init();
}

/// Runs the gateway; returns the exit code. `socket` overrides the configuration's.
pub fn run(path: &Path, socket: Option<&Path>) -> u8 {
    match try_run(path, socket) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("sluicegate: {error}");
            1
        }
    }
}

fn try_run(path: &Path, socket: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(path)?;
    start_log(config.log_level);
    let rulesets = load_rules(&config)?;
    let signals = Signals::install()?;
    let mut server = Server::bind(socket.unwrap_or(&config.socket))?;
    let mut launched = launch::launch(&config)?;
    let outcome = work(path, config, rulesets, &signals, &mut server, &mut launched);
    if let Ok(Ending::Stuck) = outcome {
        drop(server);
        launched.abandon();
    }
    launched.shut_down();
    outcome.map(drop)
}

/// How the work ended.
enum Ending {
    /// No worker runs any more.
    Done,
    /// A worker does not end: what it may still use must stay as it is.
    Stuck,
}

/// From the first snapshot to the last worker's end; `launched` is to be shut down unless a worker
/// is stuck.
fn work(
    path: &Path,
    config: Config,
    rulesets: Rulesets,
    signals: &Signals,
    server: &mut Server,
    launched: &mut Launched,
) -> Result<Ending, Box<dyn std::error::Error>> {
    let clock = Clock::start();
    let wires = (launched.ports.macs.clone(), launched.ports.layout.clone());
    let (burst, idle) = (config.eal.burst.into(), config.eal.idle);
    let now = Box::new(move || clock.now());
    let mut core = ControlCore::new(config, wires, rulesets, random_seed()?, now)?;
    attach_host(&mut core, &launched.ports.macs)?;
    let mut look_at = Instant::now();
    let mut workers = Workers::default();
    // Nobody waits for a worker that has ended, nor for anything once the process is to stop.
    let (ended, stopping) = (Arc::clone(&workers.ended), Arc::clone(&signals.stop));
    core.set_pause(Box::new(move || {
        std::thread::sleep(Duration::from_micros(50));
        !ended.load(Relaxed) && !stopping.load(Relaxed)
    }));
    let io = std::mem::take(&mut launched.ports.io);
    let rings = rings::mesh(io.len());
    for (number, (io, rings)) in io.into_iter().zip(rings).enumerate() {
        let Some(parts) = core.worker_parts(number) else { continue };
        let WorkerParts { place, store, snapshot, links, mailbox, seed } = parts;
        let pipeline = Pipeline::new(place, store, snapshot, links, seed);
        let mut worker = Worker::new(io, pipeline, mailbox, rings, burst);
        let stop = Arc::clone(&workers.stop);
        let idle = match idle {
            Idle::Poll => WorkerIdle::Poll,
            Idle::Sleep => WorkerIdle::Sleep,
        };
        let end = End(Arc::clone(&workers.ended));
        let stalls = core.worker_stalls(number);
        let started = launched.start(number, move || {
            let _end = end;
            stalls.enter();
            worker.run(|| clock.now(), &stop, idle);
        })?;
        workers.running.push(started);
    }
    // Declared after the workers, so that it ends first: a worker that has ended is no stall.
    let watchdog = Watchdog::start(core.watched())?;
    say("ready");
    while !signals.stop.load(Relaxed) && !workers.running.iter().any(LcoreHandle::is_finished) {
        if signals.reload.swap(false, Relaxed) {
            match core.reload(path) {
                Ok(()) => say("reloaded"),
                Err(error) => say(&format!("reload failed: {error}")),
            }
        }
        serve(server, &mut core);
        if Instant::now() >= look_at {
            look_at = Instant::now() + LOOK;
            core.set_wires(launched.ports.wires(core.config()));
        }
        core.round();
        std::thread::sleep(REST);
    }
    drop(watchdog);
    let ending = workers.end(&core.config().eal.worker_cores)?;
    // Whoever still listens to events hears that they end.
    drop(core);
    server.drain(FAREWELL);
    Ok(ending)
}

/// Gives the control core its host taps, if there are any.
fn attach_host(core: &mut ControlCore, macs: &[[u8; 6]]) -> Result<(), Box<dyn std::error::Error>> {
    let taps = publish::taps(core.config(), macs);
    if !taps.is_empty() {
        core.attach_host(Host::open(taps)?)?;
    }
    Ok(())
}

/// Says that a worker has ended, also by a panic, so that nobody waits for its answers.
struct End(Arc<AtomicBool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// The poll loops. They are told to end when this is dropped, whatever went wrong meanwhile.
#[derive(Default)]
struct Workers {
    stop: Arc<AtomicBool>,
    /// One of them has ended.
    ended: Arc<AtomicBool>,
    running: Vec<LcoreHandle<()>>,
}

impl Workers {
    /// Ends them; those that do not end are named by lcore and CPU, and left to themselves.
    ///
    /// # Errors
    /// A worker that panicked.
    fn end(&mut self, cpus: &[u32]) -> Result<Ending, LcoreError> {
        self.stop.store(true, Relaxed);
        let start = Instant::now();
        while !self.running.iter().all(LcoreHandle::is_finished) && start.elapsed() < LAST_ROUND {
            std::thread::sleep(Duration::from_micros(200));
        }
        let (mut ending, mut panicked) = (Ending::Done, Ok(()));
        for (worker, cpu) in self.running.drain(..).zip(cpus) {
            if worker.is_finished() {
                panicked = panicked.and(worker.join());
                continue;
            }
            log::error!(
                "worker lcore {} (CPU {cpu}) has not ended for {:.1} s: the process ends without it",
                worker.lcore(),
                start.elapsed().as_secs_f64()
            );
            ending = Ending::Stuck;
            // Dropping it would wait.
            std::mem::forget(worker);
        }
        match ending {
            // This outweighs a panic, after which everything would be freed.
            Ending::Stuck => Ok(ending),
            Ending::Done => panicked.map(|()| ending),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn serve(server: &mut Server, core: &mut ControlCore) {
    for request in server.poll() {
        core.asked_by(request.process);
        match core.serve(&request.argv, &request.stdin) {
            Served::Done(answer) => request.reply.answer(answer),
            Served::Events(subscription) => core.subscribe(subscription, request.reply),
        }
    }
}

/// One line on stdout, at once.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listening is no reason to stop forwarding.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn random_seed() -> Result<[u64; 6], std::io::Error> {
    let mut bytes = [0; 48];
    getrandom::fill(&mut bytes).map_err(|e| std::io::Error::other(e.to_string()))?;
    let mut seed = [0; 6];
    for (word, bytes) in seed.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.iter().fold(0, |sum, &b| sum << 8 | u64::from(b));
    }
    Ok(seed)
}

/// `sluicegate check`: reads everything `run` would read; returns the exit code.
pub fn check(path: &Path) -> u8 {
    match try_check(path) {
        Ok(lines) => {
            for line in lines {
                println!("{line}");
            }
            0
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

fn workers_line(eal: &Eal) -> String {
    let lcore = |(number, cpu): (usize, &u32)| format!("lcore {} on CPU {cpu}", number + 1);
    let lcores: Vec<String> = eal.worker_cores.iter().enumerate().map(lcore).collect();
    format!("workers: {}; control core on CPU {}", lcores.join(", "), eal.control_core)
}

/// How many queues the device has is known only once it runs.
fn queues_line(port: &Port) -> String {
    let queues = |number: Option<u16>, kind: &str| match number {
        None => format!("a {kind} queue for each worker, as far as the device has them"),
        Some(1) => format!("1 {kind} queue"),
        Some(number) => format!("{number} {kind} queues"),
    };
    let (rx, tx) = (queues(port.rx_queues, "receive"), queues(port.tx_queues, "transmit"));
    format!("port {}: {rx}; {tx}", port.name)
}

fn try_check(path: &Path) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let config = Config::load(path)?;
    let rulesets = load_rules(&config)?;
    let mut macs: Vec<[u8; 6]> =
        config.ports.iter().map(|p| p.mac.unwrap_or([2, 0, 0, 0, 0, 1])).collect();
    config.share_macs(&mut macs);
    let lcores = config.eal.worker_cores.len();
    let (learnt, knobs) = (Learnt::default(), config.conntrack.knobs);
    publish::snapshot(&config, &macs, &learnt, &rulesets, knobs, None, lcores)?;
    let (hashsize, max) = (config.conntrack.hashsize, config.conntrack.max);
    let index_lines = dataplane::conntrack::views::index_lines(max, hashsize);
    let cost =
        TableCost { index_lines, bytes_per_conn_v4: RECORD_V4, bytes_per_conn_v6: RECORD_V6 };
    let mut lines = sizes::lines(hashsize, max, cost);
    lines.extend(config.ports.iter().filter_map(|port| {
        let Vlan { parent, id } = port.vlan?;
        let parent = &config.ports[parent].name;
        Some(format!("port {}: VLAN {id} of {parent}, MTU {}", port.name, port.mtu))
    }));
    lines.push(workers_line(&config.eal));
    lines.extend(config.ports.iter().filter(|port| port.has_device()).map(queues_line));
    lines.push(format!("{}: good", path.display()));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_tells_workers_and_what_is_configured_of_queues() {
        let text = "[eal]\nworker_cores = [1, 3]\n[[port]]\nname = \"lan\"\n\
                    device = \"net_null0\"\n[[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n\
                    rx_queues = 2\ntx_queues = 1\n";
        let config = Config::parse(Path::new("t.toml"), text, 8 << 30).unwrap();
        assert_eq!(
            workers_line(&config.eal),
            "workers: lcore 1 on CPU 1, lcore 2 on CPU 3; control core on CPU 0"
        );
        let ports: Vec<String> = config.ports.iter().map(queues_line).collect();
        let each = |kind| format!("a {kind} queue for each worker, as far as the device has them");
        assert_eq!(ports[0], format!("port lan: {}; {}", each("receive"), each("transmit")));
        assert_eq!(ports[1], "port wan: 2 receive queues; 1 transmit queue");
    }
}
