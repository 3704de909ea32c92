//! `sluicegate replay`: a capture through the same pipeline, offline and with the capture's clock.
//!
//! One thread holds the control core and the workers with ports in memory, as many workers as the
//! configuration names and one queue to a port where it names no more. For every frame the clock
//! moves to the frame's time stamp, the workers take it to its end, and what came out is written
//! with the same time stamp. Time never runs backwards: a frame stamped earlier than the one before
//! it counts as arriving with it. Across a gap the control core gets its rounds as in a running
//! gateway, every [`STEP_NS`] of the capture's time but at most [`STEPS_MAX`] times, so expiry and
//! neighbour timers happen when they would have.
//!
//! Everything that is drawn by lot in the daemon is fixed here: equal inputs give equal outputs,
//! and a beginning of a capture gives a beginning of its output. A port without `mac` in the
//! configuration gets 02:53:47:00:00:NN, NN being its number in the file from 0.
//!
//! A frame of a VLAN sub-interface may stand in the capture as it was on the wire, with its tag and
//! under the parent's name, or as the kernel shows it on the sub-interface, without and under that
//! one's name. What leaves by a sub-interface is written as it is on the wire.

mod capture;
mod explain;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
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

use crate::config::{Config, ConfigError, Port};
use crate::daemon;
use crate::gateway::{ControlCore, CoreError, RulesError, WorkerParts, load_rules};
use crate::publish::Rulesets;
use crate::tools::conntrack::{self, Outcome};
pub use capture::CaptureError;
use capture::{Captured, Reader, Writer};
use explain::Explainer;

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

/// Why a replay failed.
#[derive(Debug)]
pub enum ReplayError {
    /// The configuration.
    Config(ConfigError),
    /// A rule file.
    Rules(RulesError),
    /// The table or the first snapshot.
    Core(CoreError),
    /// The capture to read.
    Input(PathBuf, CaptureError),
    /// The capture to write.
    Output(PathBuf, io::Error),
    /// Both captures are the same file.
    SameFile(PathBuf),
    /// What is said on the way could not be written.
    Said(io::Error),
    /// Frames were lost or made out of nothing: a defect of Sluicegate.
    Unbalanced(String),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Config(e) => e.fmt(f),
            ReplayError::Rules(e) => e.fmt(f),
            ReplayError::Core(e) => e.fmt(f),
            ReplayError::Input(path, e) => write!(f, "{}: {e}", path.display()),
            ReplayError::Output(path, e) => {
                write!(f, "{}: cannot be written: {e}", path.display())
            }
            ReplayError::SameFile(path) => {
                write!(f, "{}: is also the capture to read", path.display())
            }
            ReplayError::Said(e) => write!(f, "standard output: {e}"),
            ReplayError::Unbalanced(sums) => {
                write!(f, "frames do not add up, which is a defect of this program: {sums}")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// Runs the capture `input` into the capture `output`; returns the exit code. With `explain` one
/// line per frame goes to standard output, with `conntrack` the conns that are left at the end.
pub fn run(config: &Path, input: &Path, output: &Path, explain: bool, conntrack: bool) -> u8 {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let asked = Asked { config, input, output, explain, conntrack };
    match asked.run(&mut out, &mut err) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// The command line.
struct Asked<'a> {
    config: &'a Path,
    input: &'a Path,
    output: &'a Path,
    explain: bool,
    conntrack: bool,
}

impl Asked<'_> {
    fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), ReplayError> {
        let config = Config::load(self.config).map_err(ReplayError::Config)?;
        let rulesets = load_rules(&config).map_err(ReplayError::Rules)?;
        daemon::start_log(config.log_level);
        let names: Vec<String> = config.ports.iter().map(|p| p.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (input, output) = self.open()?;
        let broken = |e| ReplayError::Input(self.input.to_owned(), e);
        let unwritten = |e| ReplayError::Output(self.output.to_owned(), e);
        let mut reader = Reader::new(input, &names).map_err(broken)?;
        let mut writer = Writer::new(output, &names).map_err(unwritten)?;
        let mut explainer = self.explain.then(|| Explainer::new(&names, &rulesets));
        let mut bench = Bench::new(config, rulesets, self.explain).map_err(ReplayError::Core)?;
        while let Some(captured) = reader.next().map_err(broken)? {
            let step = bench.step_towards(captured.unix_ns);
            while bench.step(step, captured.unix_ns) {
                self.hand_out(&mut bench, &mut writer, explainer.as_mut(), None, out)?;
            }
            bench.take(&captured);
            self.hand_out(&mut bench, &mut writer, explainer.as_mut(), Some(&captured), out)?;
        }
        writer.finish().map_err(unwritten)?;
        if self.conntrack {
            bench.list(out, err).map_err(ReplayError::Said)?;
        }
        out.flush().map_err(ReplayError::Said)?;
        bench.check_balance()
    }

    fn open(&self) -> Result<(File, File), ReplayError> {
        let broken = |e| ReplayError::Input(self.input.to_owned(), CaptureError::Unreadable(e));
        let input = File::open(self.input).map_err(broken)?;
        let read = input.metadata().map_err(broken)?;
        if std::fs::metadata(self.output)
            .is_ok_and(|m| (m.dev(), m.ino()) == (read.dev(), read.ino()))
        {
            return Err(ReplayError::SameFile(self.output.to_owned()));
        }
        let output = File::create(self.output)
            .map_err(|e| ReplayError::Output(self.output.to_owned(), e))?;
        Ok((input, output))
    }

    /// Writes what came out, and says what happened.
    fn hand_out(
        &self,
        bench: &mut Bench,
        writer: &mut Writer,
        explainer: Option<&mut Explainer>,
        captured: Option<&Captured>,
        out: &mut dyn Write,
    ) -> Result<(), ReplayError> {
        let sent = std::mem::take(&mut bench.sent);
        for (port, unix_ns, bytes) in &sent {
            writer
                .frame(*port, *unix_ns, bytes)
                .map_err(|e| ReplayError::Output(self.output.to_owned(), e))?;
        }
        if let Some(explainer) = explainer {
            let text = explainer.explain(bench, captured, &sent);
            out.write_all(text.as_bytes()).map_err(ReplayError::Said)?;
        }
        Ok(())
    }
}

/// A frame that was sent: port, nanoseconds since 1970, bytes.
type Sent = (PortId, u64, Vec<u8>);

/// The control core and its workers.
struct Bench {
    core: ControlCore,
    workers: Rc<RefCell<Vec<Worker<MemoryIo>>>>,
    layout: Layout,
    /// Ports of the capture; those behind them lead to the box itself, which is not in it.
    ports: usize,
    /// By port number: whose device a sub-interface receives by.
    parents: Vec<Option<PortId>>,
    clock: Rc<Cell<Now>>,
    /// The time stamp of the first frame, where ticks begin.
    origin_ns: Option<u64>,
    sent: Vec<Sent>,
}

impl Bench {
    fn new(config: Config, rulesets: Rulesets, keep_log: bool) -> Result<Bench, CoreError> {
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

    /// How far apart the control core's rounds are on the way to `unix_ns`.
    fn step_towards(&mut self, unix_ns: u64) -> u64 {
        if self.origin_ns.is_none() {
            self.set_clock(unix_ns);
        }
        STEP_NS.max(unix_ns.saturating_sub(self.clock.get().unix_ns) / STEPS_MAX)
    }

    /// Goes one step towards `unix_ns`, and has a round there; false once the clock shows it.
    fn step(&mut self, step: u64, unix_ns: u64) -> bool {
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
    fn take(&mut self, captured: &Captured) {
        let frame = MemoryFrame::new(captured.bytes.clone());
        let parent = self.parents.get(usize::from(captured.port.0)).copied().flatten();
        let device = parent.unwrap_or(captured.port);
        let queues = self.layout.queues.get(usize::from(device.0)).map_or(1, |q| q.rx);
        let receiver = self.layout.receiver(device, queue_of(&captured.bytes, queues));
        if let Some(worker) = self.workers.borrow_mut().get_mut(usize::from(receiver)) {
            worker.io().push(captured.port, frame);
        }
        self.settle();
    }

    /// Until workers and control core have nothing to do at this moment.
    fn settle(&mut self) {
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
    fn list(&mut self, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<()> {
        if let Outcome::Done(answer) = conntrack::run(&["-L".to_owned()], "", &mut self.core) {
            out.write_all(answer.out.as_bytes())?;
            err.write_all(answer.err.as_bytes())?;
        }
        Ok(())
    }

    fn check_balance(&self) -> Result<(), ReplayError> {
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
