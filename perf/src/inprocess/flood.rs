//! A flood of SYNs finds the table full: what is left for packets of established conns.
//!
//! 32 K TCP conns from inside are established and clients send on them at half the rate that the
//! gateway can do; strangers send SYNs to a port that is open, each from another address, a million
//! a second. Each queue holds 1024 frames, as a device's does: what comes while it is full is lost.
//! Goodput is what leaves of the established conns, with the flood and without it, in turn.
//!
//! The table is at its limit in one of two ways. Either it is full of the flood's own conns, half
//! open: then every SYN is let in, and throws some of those out (early drop, as in Linux). Or it is
//! full of established conns: then every SYN is searched room for, and dropped. Clients come by
//! another queue than the flood, as inside hosts do. Answers of servers outside share its queue:
//! what they lose there depends on nothing but what a SYN costs, and is shown, not judged.
//!
//! A packet of a conn that was thrown out would be dropped (`tcp_loose` is off), so goodput also
//! tells that the conns are still there.

use std::time::{Duration, Instant};

use dataplane::pipeline::frame::{Burst, Frame};
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::clock::{Moment, Passed, clean_windows};
use super::frame::{Slot, Spare};
use super::gateway::{PATIENT, Rig, Work, polls, work};
use super::packets::{Ends, OPEN_PORT, Segment, Template, Way, ends_of};
use super::picks::Picks;
use super::transactions::{SEQ_AFTER_HANDSHAKE, Transactions};
use super::wires::Source;
use super::{Options, print};
use crate::goals::Topic;
use crate::process::Failure;
use crate::row::{Reach, Row, Spread};

/// Conns that talk.
const TALKING: u32 = 32 << 10;
const MAX: u32 = 1 << 18;
/// SYNs a second.
const FLOOD_PPS: f64 = 1e6;
/// SYNs a second that fill the table.
const FILL_PPS: f64 = 1e8;
/// Share of the gateway's own rate that is offered on established conns.
const LOAD: f64 = 0.5;
/// What a queue of a device holds.
const DESCRIPTORS: u64 = 1024;
/// Percent of the goodput that is to stay.
const GOODPUT: f64 = 90.0;

/// Frames that come at a rate into a queue that has an end.
#[derive(Clone, Debug)]
struct Queue {
    /// Frames per nanosecond; `None` is as many as are taken.
    rate: Option<f64>,
    since: Instant,
    /// Frames of that time that were taken or lost.
    settled: u64,
    lost: u64,
    taken: u64,
}

impl Queue {
    fn new(pps: Option<f64>) -> Queue {
        let rate = pps.map(|pps| pps / 1e9);
        Queue { rate, since: Instant::now(), settled: 0, lost: 0, taken: 0 }
    }

    /// How many of them there are room for.
    fn take(&mut self, room: usize) -> usize {
        let Some(rate) = self.rate else {
            self.taken += room as u64;
            return room;
        };
        let come = (self.since.elapsed().as_nanos() as f64 * rate) as u64;
        self.settle(come, room as u64) as usize
    }

    /// The same when so many have come in all.
    fn settle(&mut self, come: u64, room: u64) -> u64 {
        let late = (come - self.settled).saturating_sub(DESCRIPTORS);
        self.lost += late;
        self.settled += late;
        let taken = (come - self.settled).min(room);
        self.settled += taken;
        self.taken += taken;
        taken
    }
}

/// Both kinds of senders; first the handshakes of those that are to be established.
struct Storm {
    handshakes: Option<Transactions>,
    clients: Queue,
    strangers: Queue,
    /// Of a thousand frames of the strangers' queue, those that are servers' answers.
    answers: u32,
    picks: Picks,
    data: Template,
    answer: Template,
    syn: Template,
    /// The stranger that is next.
    next: u32,
    /// Frames of established conns that got through.
    through: u64,
}

impl Storm {
    /// That many conns are established, of which the first ones talk.
    fn new(established: u32, seed: u64) -> Storm {
        let (seq, ack) = SEQ_AFTER_HANDSHAKE;
        let answer = Segment { seq: ack, ack: seq, flags: ACK };
        Storm {
            handshakes: Some(Transactions::handshakes(established)),
            clients: Queue::new(Some(0.0)),
            strangers: Queue::new(Some(0.0)),
            answers: 0,
            answer: Template::tcp(Way::In, answer),
            picks: Picks::uniform(TALKING, seed),
            data: Template::tcp(Way::Out, Segment { seq, ack, flags: ACK }),
            syn: Template::tcp(Way::In, Segment { seq: 7, ack: 0, flags: SYN }),
            next: 0,
            through: 0,
        }
    }
}

impl Source for Storm {
    fn arrive(&mut self, port: usize, room: usize, spare: &mut Spare, burst: &mut Burst<Slot>) {
        if let Some(handshakes) = &mut self.handshakes {
            return handshakes.arrive(port, room, spare, burst);
        }
        if port == Way::Out.port() {
            for _ in 0..self.clients.take(room) {
                burst.push(self.data.frame(&Ends::of(self.picks.next()), spare));
            }
            return;
        }
        for _ in 0..self.strangers.take(room) {
            self.next = self.next.wrapping_add(1);
            // A factor without a divisor in common with the thousand spreads them evenly.
            let answers = u64::from(self.next) * 617 % 1000 < u64::from(self.answers);
            burst.push(match answers {
                true => self.answer.frame(&Ends::of(self.picks.next()).reversed(), spare),
                false => self.syn.frame(&Ends::of_stranger(self.next), spare),
            });
        }
    }

    fn left(&mut self, port: usize, frames: &[Slot]) {
        if let Some(handshakes) = &mut self.handshakes {
            return handshakes.left(port, frames);
        }
        // A SYN leaves inside too.
        self.through += match port == Way::In.port() {
            true => frames.len() as u64,
            false => frames.iter().filter(|slot| is_answer(slot)).count() as u64,
        };
    }
}

/// Of the two kinds of frames from outside, whether it is a server's.
fn is_answer(slot: &Slot) -> bool {
    ends_of(slot.head()).is_some_and(|ends| ends.dst_port != OPEN_PORT)
}

/// What is offered in a window, in packets a second.
#[derive(Clone, Copy, Debug)]
struct Offer {
    /// On established conns; `None` is as many as are taken.
    established: Option<f64>,
    flood: f64,
    /// Whether the established ones come by the flooded queue.
    mixed: bool,
}

/// What came of a window.
#[derive(Clone, Copy, Debug)]
struct Window {
    passed: Passed,
    /// Frames of established conns that got through, in million a second of wall clock.
    goodput: f64,
    /// Frames that were taken from the strangers' queue, likewise.
    flood: f64,
}

impl Rig<Storm> {
    fn window(&mut self, offer: Offer, length: Duration) -> Result<Window, Failure> {
        let Offer { established, flood, mixed } = offer;
        self.run(|worker, watch| {
            let storm = &mut worker.io().source;
            let answers = established.filter(|_| mixed).unwrap_or(0.0);
            storm.answers = (1000.0 * answers / (answers + flood).max(1.0)) as u32;
            storm.strangers = Queue::new(Some(flood + answers));
            storm.clients = Queue::new(if mixed { Some(0.0) } else { established });
            let (before, start) = (storm.through, Moment::now());
            while start.passed().wall < length {
                polls(worker, watch, 100);
            }
            let (passed, storm) = (start.passed(), &worker.io().source);
            let million = |frames: u64| frames as f64 / passed.wall.as_secs_f64() / 1e6;
            let goodput = million(storm.through - before);
            Window { passed, goodput, flood: million(storm.strangers.taken) }
        })
    }
}

/// What the table is full of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    OfHalfOpen,
    OfEstablished,
}

/// Windows in turn: without a flood, with it, and with what is established in its queue.
struct Windows {
    /// What the gateway can do without a flood, in million packets a second.
    most: f64,
    rounds: Vec<[Window; 4]>,
}

fn windows(options: &Options, full: Full) -> Result<Windows, Failure> {
    let established = if full == Full::OfHalfOpen { TALKING } else { MAX };
    let plan = Work::Firewall.plan(MAX, &format!("tcp_loose = 0\n{PATIENT}"), options.seed);
    let mut rig = Rig::new(&plan, Storm::new(established, options.seed))?;
    rig.until_quiet()?;
    rig.lost_nothing("in handshakes")?;
    rig.wires().source.handshakes = None;
    let length = options.length();
    let offer = |established, flood| Offer { established, flood, mixed: false };
    // Until nearly each of them has sent and was answered, and its paths are known.
    while rig.wires().source.through < u64::from(TALKING) * 8 {
        rig.window(offer(None, 0.0), length)?;
    }
    let until = u64::from(TALKING) * 16;
    while rig.wires().source.through < until {
        let established = Some(FLOOD_PPS);
        rig.window(Offer { established, flood: 0.0, mixed: true }, length)?;
    }
    let most = rig.window(offer(None, 0.0), length)?.goodput;
    // Until the table is full.
    for _ in 0..100 {
        if rig.conns() >= MAX - 1 {
            break;
        }
        rig.window(offer(Some(0.0), FILL_PPS), length)?;
    }
    if rig.conns() < MAX - MAX / 20 {
        return Err(work(&format!("{} conns where {MAX} should be", rig.conns())));
    }
    let calm = offer(Some(most * 1e6 * LOAD), 0.0);
    let flooded = Offer { flood: FLOOD_PPS, ..calm };
    let mixed = |offer| Offer { mixed: true, ..offer };
    let mut rounds = Vec::new();
    for _ in 0..options.pairs() {
        rounds.push([
            rig.window(calm, length)?,
            rig.window(flooded, length)?,
            rig.window(mixed(calm), length)?,
            rig.window(mixed(flooded), length)?,
        ]);
    }
    Ok(Windows { most, rounds })
}

impl Windows {
    /// The share of goodput in the windows `at` that those right before them have without flood.
    fn row(&self, at: usize, name: String) -> Option<Row> {
        let rounds = || self.rounds.iter().filter_map(|windows| windows.get(at - 1..=at));
        let share = rounds().map(|pair| 100.0 * pair[1].goodput / pair[0].goodput);
        let passed: Vec<Passed> = rounds().flatten().map(|window| window.passed).collect();
        let taken = Spread::of(rounds().map(|pair| pair[1].flood));
        let mixed = if at == 1 { "SYNs" } else { "frames" };
        let remark = format!(
            "established packets at {:.1} of {:.1} Mpps, {} M {mixed}/s taken from the flooded \
             queue, a table of {MAX}",
            self.most * LOAD,
            self.most,
            Spread::show(taken, 2)
        );
        // What comes does not wait for a worker that has lost its CPU.
        let lost_it = !passed.iter().any(|passed| passed.clean());
        let row = Row::new(name, "%", Spread::of(share)?);
        let row = row.noting(remark).noting(clean_windows(&passed));
        Some(row.doubted(if lost_it { "no window had its CPU to itself" } else { "" }))
    }
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for (full, what) in [(Full::OfHalfOpen, "half-open"), (Full::OfEstablished, "established")] {
        let windows = windows(options, full)?;
        let name = format!("goodput under 1 M SYNs/s, the table full of {what} conns");
        let goal = Reach::ShareAtLeast(GOODPUT).of(Topic::Flood);
        rows.extend(windows.row(1, name.clone()).map(|row| row.judged(goal)));
        rows.extend(windows.row(3, format!("{name}, of answers in the flooded queue")));
    }
    Ok(rows)
}

/// Measures and prints.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    rows(options).map(|rows| print(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_a_queue_is_full_is_lost() {
        let mut queue = Queue::new(Some(1e6));
        assert_eq!(queue.settle(10, 32), 10);
        assert_eq!(queue.settle(110, 32), 32);
        assert_eq!((queue.settle(110 + 2000, 32), queue.lost), (32, 2068 - DESCRIPTORS));
        assert_eq!(queue.settled + DESCRIPTORS - 32, 2110);
        assert_eq!(queue.taken, 74);
    }
}
