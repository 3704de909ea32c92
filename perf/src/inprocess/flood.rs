//! A flood of SYNs finds the table full: what is left for packets of established conns.
//!
//! 32 K TCP conns from inside are established and clients send on them at half the rate that the
//! gateway can do; strangers send SYNs to a port that is open, each from another address, a million
//! a second. The table is at its limit, so every SYN has to make room for itself. Each port has a
//! queue of 1024 descriptors, as a device has: what comes while it is full is lost. Goodput is what
//! leaves of the established conns, with the flood and without it, in turn.
//!
//! A packet of a conn that was thrown out would be dropped (`tcp_loose` is off), so goodput also
//! tells that the conns are still there.

use std::time::{Duration, Instant};

use dataplane::pipeline::frame::Burst;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::clock::{Moment, Passed, clean_windows};
use super::frame::{Slot, Spare};
use super::gateway::{Rig, Work, polls, work};
use super::packets::{Ends, Segment, Template, Way};
use super::picks::Picks;
use super::transactions::{SEQ_AFTER_HANDSHAKE, Transactions};
use super::wires::Source;
use super::{Options, print};
use crate::goals::Topic;
use crate::process::Failure;
use crate::row::{Reach, Row, Spread};

const ESTABLISHED: u32 = 32 << 10;
const MAX: u32 = 1 << 18;
/// SYNs a second.
const FLOOD_PPS: f64 = 1e6;
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
    picks: Picks,
    data: Template,
    syn: Template,
    /// The stranger that is next.
    next: u32,
    /// Clients' frames that got through.
    through: u64,
}

impl Storm {
    fn new(seed: u64) -> Storm {
        let (seq, ack) = SEQ_AFTER_HANDSHAKE;
        Storm {
            handshakes: Some(Transactions::handshakes(ESTABLISHED)),
            clients: Queue::new(Some(0.0)),
            strangers: Queue::new(Some(0.0)),
            picks: Picks::uniform(ESTABLISHED, seed),
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
            burst.push(self.syn.frame(&Ends::of_stranger(self.next), spare));
            self.next = self.next.wrapping_add(1);
        }
    }

    fn left(&mut self, port: usize, frames: &[Slot]) {
        if let Some(handshakes) = &mut self.handshakes {
            return handshakes.left(port, frames);
        }
        if port == Way::In.port() {
            self.through += frames.len() as u64;
        }
    }
}

/// What came of a window.
#[derive(Clone, Copy, Debug)]
struct Window {
    passed: Passed,
    /// Clients' frames through, in million a second of wall clock.
    goodput: f64,
    /// SYNs that were taken from their queue, likewise.
    flood: f64,
}

impl Rig<Storm> {
    fn window(
        &mut self,
        clients: Option<f64>,
        strangers: Option<f64>,
        length: Duration,
    ) -> Result<Window, Failure> {
        self.run(|worker, watch| {
            let storm = &mut worker.io().source;
            (storm.clients, storm.strangers) = (Queue::new(clients), Queue::new(strangers));
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

/// Windows without a flood, with it, and with one that knows no bound.
fn windows(options: &Options) -> Result<(f64, Vec<[Window; 3]>), Failure> {
    let plan = Work::Firewall.plan(MAX, "tcp_loose = 0\n", options.seed);
    let mut rig = Rig::new(&plan, Storm::new(options.seed))?;
    rig.until_quiet()?;
    rig.lost_nothing("in handshakes")?;
    rig.wires().source.handshakes = None;
    let length = options.length();
    // Until nearly each of them has sent, and its path is known.
    while rig.wires().source.through < u64::from(ESTABLISHED) * 8 {
        rig.window(None, Some(0.0), length)?;
    }
    let most = rig.window(None, Some(0.0), length)?.goodput;
    let offered = Some(most * 1e6 * LOAD);
    // Until the table is full.
    for _ in 0..100 {
        if rig.conns() >= MAX - 1 {
            break;
        }
        rig.window(Some(0.0), None, length)?;
    }
    if rig.conns() < MAX - MAX / 20 {
        return Err(work(&format!("{} conns where {MAX} should be", rig.conns())));
    }
    let mut all = Vec::new();
    for _ in 0..options.pairs() {
        all.push([
            rig.window(offered, Some(0.0), length)?,
            rig.window(offered, Some(FLOOD_PPS), length)?,
            rig.window(offered, None, length)?,
        ]);
    }
    Ok((most, all))
}

/// All rows.
pub(crate) fn rows(options: &Options) -> Result<Vec<Row>, Failure> {
    let (most, all) = windows(options)?;
    let mut rows = Vec::new();
    for (at, what, goal) in [
        (1, "a flood of 1 M SYNs a second", Some(Reach::ShareAtLeast(GOODPUT).of(Topic::Flood))),
        (2, "a flood without bound", None),
    ] {
        let share = all.iter().map(|windows| 100.0 * windows[at].goodput / windows[0].goodput);
        let Some(ours) = Spread::of(share) else { continue };
        let passed: Vec<Passed> =
            all.iter().flat_map(|windows| [windows[0].passed, windows[at].passed]).collect();
        let flood = Spread::of(all.iter().map(|windows| windows[at].flood));
        let remark = format!(
            "established packets at {:.1} of {most:.1} Mpps, {} M SYNs/s taken, a table of {MAX}",
            most * LOAD,
            Spread::show(flood, 2)
        );
        let name = format!("goodput of established conns under {what}");
        let row = Row::new(name, "%", ours).judged(goal);
        rows.push(row.noting(remark).noting(clean_windows(&passed)));
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
