//! The watchdog: says which thread no longer comes round, in the log and in `stats`.
//!
//! A worker stands still when it loops in its own code, when another program keeps its CPU, or when
//! somebody stops the thread; nobody else notices, as nobody waits for a worker and a worker waits
//! for nobody. So a thread of its own looks ten times a second at what each of the others counts
//! anyway: a worker its polls ([`LcoreCounters`]), the control core its rounds. A count that stands
//! still for longer than the thread's limit is a stall: one line when it begins, one when it is
//! over, and [`Stalls`] for `stats`. It only reads, so it can neither block nor slow what it
//! watches, and it writes its facts down before it logs them.
//!
//! The thread inherits the affinity that EAL gave the main thread, the control core's CPU. Should
//! the control core, or a worker on the same CPU, spin there, the watchdog still gets its turn from
//! the kernel's scheduler: all of them are ordinary threads. A look that comes late proves nothing
//! by itself, though: a process that was stopped as a whole, with its machine or by a signal, goes
//! on with old counts. So a stall is only believed after a few looks in a row ([`LOOKS_MIN`]); time
//! in which the watchdog did not run either is nobody's stall.
//!
//! `replay` has no watchdog: it polls its worker itself.

use std::fmt;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dataplane::pipeline::counters::LcoreCounters;

use crate::tools::stats::StallStats;

/// Time between two looks: the error of every time that is told.
const LOOK: Duration = Duration::from_millis(100);

/// Looks in a row that have to see the same count.
const LOOKS_MIN: u32 = 4;

/// A worker's limit. A round takes microseconds and an idle worker sleeps half a millisecond; one
/// that shares its CPU with thirty busy threads was seen to wait 0.18 s for its turn. A second is
/// beyond all that, and long before clients give a connection up.
const WORKER_LIMIT: Duration = Duration::from_secs(1);

/// The control core's limit. It rests a millisecond between rounds, but a round may hold a reload
/// of many rules or a long listing, and what it does (expiry, neighbours) may be a second late.
const CONTROL_LIMIT: Duration = Duration::from_secs(2);

/// One of the kernel's clock ticks in `/proc`, always a hundredth of a second.
const CPU_TICK: Duration = Duration::from_millis(10);

/// What is known of one thread's stalls. The watchdog writes it, but for the thread's number, which
/// the thread itself enters; `stats` reads it at any time.
#[derive(Debug, Default)]
pub struct Stalls {
    count: AtomicU64,
    longest_ms: AtomicU64,
    now: AtomicBool,
    thread: AtomicU32,
}

impl Stalls {
    /// Says that the calling thread is the one that is watched, so that a stall's reason can be
    /// read from `/proc`. Without it stalls are seen all the same.
    pub fn enter(&self) {
        let path = fs::read_link("/proc/thread-self").unwrap_or_default();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        self.thread.store(number.unwrap_or(0), Relaxed);
    }

    /// True while the thread stands still.
    pub fn is_stalled(&self) -> bool {
        self.now.load(Relaxed)
    }

    /// For `stats`.
    pub fn stats(&self) -> StallStats {
        StallStats {
            stalls: self.count.load(Relaxed),
            stalled: self.is_stalled(),
            stalled_ms: self.longest_ms.load(Relaxed),
        }
    }

    pub(crate) fn note(&self, count: u64, stall: Option<Duration>) {
        self.count.store(count, Relaxed);
        self.now.store(stall.is_some(), Relaxed);
        let ms = stall.map_or(0, |stall| stall.as_millis() as u64);
        if ms > self.longest_ms.load(Relaxed) {
            self.longest_ms.store(ms, Relaxed);
        }
    }
}

/// Which thread it is, as the log and errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A worker.
    Worker {
        /// DPDK's number of the lcore.
        lcore: u32,
        /// The CPU it runs on.
        cpu: u32,
    },
    /// The control core.
    ControlCore {
        /// The CPU it runs on.
        cpu: u32,
    },
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Worker { lcore, cpu } => write!(f, "worker lcore {lcore} (CPU {cpu})"),
            Who::ControlCore { cpu } => write!(f, "control core (CPU {cpu})"),
        }
    }
}

/// A thread to watch.
pub struct Watched {
    who: Who,
    limit: Duration,
    beat: Box<dyn Fn() -> u64 + Send>,
    stalls: Arc<Stalls>,
}

impl Watched {
    /// A worker, by its polls.
    pub fn worker(
        lcore: u32,
        cpu: u32,
        counters: Arc<LcoreCounters>,
        stalls: Arc<Stalls>,
    ) -> Watched {
        let beat = move || counters.busy_polls.get().wrapping_add(counters.idle_polls.get());
        Watched {
            who: Who::Worker { lcore, cpu },
            limit: WORKER_LIMIT,
            beat: Box::new(beat),
            stalls,
        }
    }

    /// The control core, by its rounds.
    pub fn control_core(cpu: u32, rounds: Arc<AtomicU64>, stalls: Arc<Stalls>) -> Watched {
        let beat = move || rounds.load(Relaxed);
        Watched {
            who: Who::ControlCore { cpu },
            limit: CONTROL_LIMIT,
            beat: Box::new(beat),
            stalls,
        }
    }
}

/// The running watchdog; it ends, within a moment, when this is dropped.
pub struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts watching.
    ///
    /// # Errors
    /// If the thread cannot be made.
    pub fn start(watched: Vec<Watched>) -> std::io::Result<Watchdog> {
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("watchdog".to_owned());
        let thread = thread.spawn(move || watch(watched, &over))?;
        Ok(Watchdog { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A watchdog that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

fn watch(watched: Vec<Watched>, over: &AtomicBool) {
    let start = Instant::now();
    let begin = |w: Watched| (Watch::new(w.limit, (w.beat)(), Duration::ZERO), None, w);
    let mut all: Vec<(Watch, Option<Spent>, Watched)> = watched.into_iter().map(begin).collect();
    while !over.load(Relaxed) {
        std::thread::park_timeout(LOOK);
        for (watch, spent, watched) in &mut all {
            let (beat, now) = ((watched.beat)(), start.elapsed());
            let finding = watch.look(beat, now);
            watched.stalls.note(watch.count, watch.stall(now));
            let thread = watched.stalls.thread.load(Relaxed);
            if watch.quiet_looks == 1 {
                *spent = Spent::read(thread, now);
            }
            match finding {
                Some(Finding::Stalled(time)) => {
                    let cause = cause(spent.as_ref(), Spent::read(thread, now).as_ref());
                    log::warn!("{}{cause}", sentence(watched.who, Finding::Stalled(time)));
                }
                Some(finding) => log::warn!("{}", sentence(watched.who, finding)),
                None => {}
            }
        }
    }
}

/// What a look found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// The count has stood still for this long, and beyond the limit since this look.
    Stalled(Duration),
    /// The count moves again, after this long.
    Recovered(Duration),
}

/// Where one watched thread stands: counts and times in, findings out.
struct Watch {
    limit: Duration,
    beat: u64,
    changed_at: Duration,
    /// Looks since then.
    quiet_looks: u32,
    stalled: bool,
    /// Stalls so far.
    count: u64,
}

impl Watch {
    fn new(limit: Duration, beat: u64, now: Duration) -> Watch {
        Watch { limit, beat, changed_at: now, quiet_looks: 0, stalled: false, count: 0 }
    }

    fn look(&mut self, beat: u64, now: Duration) -> Option<Finding> {
        let quiet = now.saturating_sub(self.changed_at);
        if beat != self.beat {
            let finding = self.stalled.then_some(Finding::Recovered(quiet));
            (self.beat, self.changed_at) = (beat, now);
            (self.quiet_looks, self.stalled) = (0, false);
            return finding;
        }
        self.quiet_looks = self.quiet_looks.saturating_add(1);
        if self.stalled || quiet < self.limit || self.quiet_looks < LOOKS_MIN {
            return None;
        }
        self.stalled = true;
        self.count += 1;
        Some(Finding::Stalled(quiet))
    }

    /// How long the present stall has lasted.
    fn stall(&self, now: Duration) -> Option<Duration> {
        self.stalled.then(|| now.saturating_sub(self.changed_at))
    }
}

/// The log's line.
fn sentence(who: Who, finding: Finding) -> String {
    match (who, finding) {
        (Who::Worker { .. }, Finding::Stalled(time)) => {
            format!("{who} has not polled for {:.1} s", time.as_secs_f64())
        }
        (Who::Worker { .. }, Finding::Recovered(time)) => {
            format!("{who} polls again after {:.1} s", time.as_secs_f64())
        }
        (Who::ControlCore { .. }, Finding::Stalled(time)) => {
            format!("{who} has not come round for {:.1} s", time.as_secs_f64())
        }
        (Who::ControlCore { .. }, Finding::Recovered(time)) => {
            format!("{who} comes round again after {:.1} s", time.as_secs_f64())
        }
    }
}

/// What a thread is doing and the CPU time it has used, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spent {
    state: char,
    cpu: Duration,
    at: Duration,
}

impl Spent {
    fn read(thread: u32, at: Duration) -> Option<Spent> {
        if thread == 0 {
            return None;
        }
        let line = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
        Spent::parse(&line, at)
    }

    /// From a line of `/proc/PID/task/TID/stat`, proc_pid_stat(5).
    fn parse(line: &str, at: Duration) -> Option<Spent> {
        // The name in brackets may hold anything; the state follows the last bracket.
        let mut fields = line.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        // The 14th and 15th field of the line: utime and stime.
        let mut times = fields.skip(10);
        let ticks = times.next()?.parse::<u32>().ok()?.saturating_add(times.next()?.parse().ok()?);
        Some(Spent { state, cpu: CPU_TICK * ticks, at })
    }
}

/// Why a thread stands still, as an appendix to the log's line.
fn cause(before: Option<&Spent>, after: Option<&Spent>) -> &'static str {
    let (Some(before), Some(after)) = (before, after) else { return "" };
    let ran = after.cpu.saturating_sub(before.cpu);
    match after.state {
        'R' if ran * 2 >= after.at.saturating_sub(before.at) => ": its thread runs all the time",
        'R' => ": others keep the CPU from it",
        'S' => ": its thread sleeps",
        'D' => ": its thread waits in the kernel",
        'T' | 't' => ": its thread has been stopped",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORKER: Who = Who::Worker { lcore: 2, cpu: 3 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Looks every 100 ms at a thread that beats until `from` and again at `to`; what is found,
    /// with the time.
    fn findings(from: u64, to: u64, end: u64) -> Vec<(u64, Finding)> {
        let mut watch = Watch::new(WORKER_LIMIT, 0, ms(0));
        let looks = (100..=end).step_by(100);
        looks
            .filter_map(|now| {
                let beat = if (from..to).contains(&now) { from } else { now };
                Some((now, watch.look(beat, ms(now))?))
            })
            .collect()
    }

    #[test]
    fn a_stall_is_found_once_and_so_is_its_end() {
        let begin = (1500, Finding::Stalled(ms(1000)));
        assert_eq!(findings(500, 5800, 9000), [begin, (5800, Finding::Recovered(ms(5300)))]);
        assert_eq!(findings(500, u64::MAX, 9000), [begin]);
    }

    #[test]
    fn what_is_slower_than_the_looks_but_within_the_limit_is_no_stall() {
        assert_eq!(findings(500, 1500, 9000), []);
        let mut watch = Watch::new(WORKER_LIMIT, 0, ms(0));
        for now in (100..20_000).step_by(100) {
            assert_eq!(watch.look(now / 900, ms(now)), None, "{now}");
        }
        assert_eq!(watch.count, 0);
    }

    #[test]
    fn a_process_that_stood_still_as_a_whole_raises_no_alarm() {
        let mut watch = Watch::new(WORKER_LIMIT, 7, ms(0));
        assert_eq!(watch.look(8, ms(100)), None);
        // Stopped for a minute: the watchdog runs first, then the worker.
        assert_eq!(watch.look(8, ms(60_100)), None);
        assert_eq!(watch.look(8, ms(60_200)), None);
        assert_eq!(watch.look(9, ms(60_300)), None);
        // One that does not go on with the others is found soon.
        assert_eq!(watch.look(9, ms(120_000)), None);
        assert_eq!(watch.look(9, ms(120_100)), None);
        assert_eq!(watch.look(9, ms(120_200)), None);
        assert_eq!(watch.look(9, ms(120_300)), Some(Finding::Stalled(ms(60_000))));
    }

    #[test]
    fn the_facts_tell_the_longest_stall_and_whether_one_lasts() {
        let stalls = Stalls::default();
        let mut watch = Watch::new(WORKER_LIMIT, 0, ms(0));
        let mut look = |beat, now| {
            watch.look(beat, ms(now));
            stalls.note(watch.count, watch.stall(ms(now)));
            stalls.stats()
        };
        let facts = |stalls, stalled, stalled_ms| StallStats { stalls, stalled, stalled_ms };
        for now in (100..2000).step_by(100) {
            look(0, now);
        }
        assert_eq!(look(0, 2000), facts(1, true, 2000));
        assert_eq!(look(1, 2100), facts(1, false, 2000));
        for now in (2200..3000).step_by(100) {
            look(1, now);
        }
        assert_eq!(look(1, 3300), facts(2, true, 2000));
        assert_eq!(look(1, 9300), facts(2, true, 7200));
        assert_eq!(look(2, 9400), facts(2, false, 7200));
    }

    #[test]
    fn lines_name_thread_and_time() {
        let line = |finding| sentence(WORKER, finding);
        assert_eq!(
            line(Finding::Stalled(ms(1_049))),
            "worker lcore 2 (CPU 3) has not polled for 1.0 s"
        );
        assert_eq!(
            line(Finding::Recovered(ms(5_300))),
            "worker lcore 2 (CPU 3) polls again after 5.3 s"
        );
        let line = |finding| sentence(Who::ControlCore { cpu: 0 }, finding);
        assert_eq!(
            line(Finding::Stalled(ms(2_000))),
            "control core (CPU 0) has not come round for 2.0 s"
        );
        assert_eq!(
            line(Finding::Recovered(ms(2_500))),
            "control core (CPU 0) comes round again after 2.5 s"
        );
    }

    #[test]
    fn the_kernel_tells_the_cause() {
        let line = "71 (odd) name (x) R 1 2 3 0 -1 4 5 6 7 8 150 50 0 0 20 0 4 0 9 1 1";
        let before = Spent { state: 'S', cpu: ms(1_000), at: ms(100) };
        let after = Spent::parse(line, ms(1_100)).unwrap();
        assert_eq!(after, Spent { state: 'R', cpu: ms(2_000), at: ms(1_100) });
        let cause_of = |state, cpu| cause(Some(&before), Some(&Spent { state, cpu, ..after }));
        assert_eq!(cause_of('R', ms(2_000)), ": its thread runs all the time");
        assert_eq!(cause_of('R', ms(1_100)), ": others keep the CPU from it");
        assert_eq!(cause_of('t', ms(1_000)), ": its thread has been stopped");
        assert_eq!(cause(None, Some(&after)), "");
        assert_eq!(Spent::parse("71 (x) R 1 2", ms(0)), None);
        let stalls = Stalls::default();
        stalls.enter();
        let own = Spent::read(stalls.thread.load(Relaxed), ms(0)).unwrap();
        assert_eq!(own.state, 'R', "whoever reads runs");
    }

    #[test]
    fn it_sees_a_thread_that_stands_still_and_ends_at_once() {
        let (rounds, stalls) = (Arc::new(AtomicU64::new(0)), Arc::new(Stalls::default()));
        let mut watched = Watched::control_core(0, Arc::clone(&rounds), Arc::clone(&stalls));
        watched.limit = ms(600);
        let watchdog = Watchdog::start(vec![watched]).unwrap();
        let start = Instant::now();
        while !stalls.is_stalled() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(ms(5));
        }
        assert!(start.elapsed() >= ms(600));
        while stalls.is_stalled() {
            assert!(start.elapsed() < Duration::from_secs(20));
            rounds.fetch_add(1, Relaxed);
            std::thread::sleep(ms(5));
        }
        assert_eq!(stalls.stats().stalls, 1);
        assert!(stalls.stats().stalled_ms >= 600);
        drop(watchdog);
        assert_eq!(Arc::strong_count(&stalls), 1, "the thread is gone");
    }

    proptest! {
        /// Against a slow oracle that keeps every look: a thread counts as stalled exactly while
        /// the looks since its last change are enough and span the limit.
        #[test]
        fn stalls_are_what_the_looks_say(
            looks in prop::collection::vec((1u64..700, prop::bool::weighted(0.15)), 1..200),
        ) {
            let mut watch = Watch::new(WORKER_LIMIT, 0, ms(0));
            let mut history = vec![(0u64, 0u64)];
            let (mut stalled, mut begun) = (false, 0);
            for (gap, beats) in looks {
                let (beat, now) = *history.last().unwrap();
                let (beat, now) = (beat + u64::from(beats), now + gap);
                history.push((beat, now));
                let first = history.iter().position(|(b, _)| *b == beat).unwrap();
                let enough = history.len() - first > LOOKS_MIN as usize;
                let is_stall = enough && now - history[first].1 >= 1000;
                let finding = watch.look(beat, ms(now));
                match finding {
                    Some(Finding::Stalled(_)) => prop_assert!(!stalled && is_stall),
                    Some(Finding::Recovered(_)) => prop_assert!(stalled && !is_stall),
                    None => prop_assert_eq!(stalled, is_stall),
                }
                begun += u64::from(is_stall && !stalled);
                stalled = is_stall;
                let time = is_stall.then(|| ms(now - history[first].1));
                prop_assert_eq!((watch.count, watch.stall(ms(now))), (begun, time));
            }
        }
    }
}
