//! The poll loop: receive a burst, take it through the pipeline, send, hand over, read the mailbox.
//!
//! Run to completion: a worker never waits for anything, and reads the clock once per round. One
//! that shares its CPU with the control core or another worker sleeps a little when there was
//! nothing to do, so that the other gets its turn.

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::arch::sync::{AtomicBool, Ordering::Relaxed, spin_loop};
use crate::lcore::io::BurstIo;
use crate::lcore::mailbox::LcoreEnd;
use crate::lcore::rings::{EVICTIONS_MAX, Rings};
use crate::lcore::turns::Turns;
use crate::pipeline::Pipeline;
use crate::pipeline::frame::{BURST_MAX, Burst};
use crate::time::Now;

/// Messages served per round, so that a flood of them cannot starve the ports.
const MESSAGES_PER_ROUND: usize = 8;

/// Idle rounds before the first sleep.
const IDLE_ROUNDS: u32 = 64;

/// Bounds of the sleep of an idle worker.
const SLEEP_MIN: Duration = Duration::from_micros(20);
const SLEEP_MAX: Duration = Duration::from_micros(500);

/// What an idle worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Polls on.
    Poll,
    /// Sleeps, at most half a millisecond at a time.
    Sleep,
}

/// One worker with its ports and its pipeline, on cache lines that no other one's share.
#[repr(align(128))]
pub struct Worker<Io: BurstIo> {
    io: Io,
    pipeline: Pipeline<Io>,
    mailbox: LcoreEnd,
    rings: Rings<Io::Frame>,
    burst_max: usize,
    turns: Turns,
}

impl<Io: BurstIo> Worker<Io> {
    /// Takes at most `burst_max` frames (1 to [`BURST_MAX`]) from a port at once.
    pub fn new(
        io: Io,
        pipeline: Pipeline<Io>,
        mailbox: LcoreEnd,
        rings: Rings<Io::Frame>,
        burst_max: usize,
    ) -> Worker<Io> {
        let (burst_max, turns) = (burst_max.clamp(1, BURST_MAX), Turns::default());
        Worker { io, pipeline, mailbox, rings, burst_max, turns }
    }

    /// The ports, for tests and replay.
    pub fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// One round over all queues, rings and the mailbox. Returns how many frames and messages there
    /// were.
    // A message that finds the mailbox full comes back whole.
    #[allow(clippy::result_large_err)]
    pub fn poll(&mut self, now: Now) -> usize {
        let mut done = 0;
        // First: what took the place of such a conn may be answered already.
        for sender in 0..self.rings.senders() {
            // A ring full is all that was there; what comes meanwhile is for the next round.
            for _ in 0..EVICTIONS_MAX {
                let Some(id) = self.rings.evicted(sender) else { break };
                done += 1;
                self.pipeline.evict(id, now);
            }
        }
        self.turns.begin_round();
        for queue in 0..self.io.queues() {
            done += self.take_turn(queue, now);
        }
        for sender in 0..self.rings.senders() {
            let mut handed = ArrayVec::new();
            self.rings.take(sender, &mut handed);
            if handed.is_empty() {
                continue;
            }
            done += handed.len();
            self.pipeline.take_over(&mut self.io, &mut handed, now);
            self.flush(now);
        }
        for _ in 0..MESSAGES_PER_ROUND {
            let Some(message) = self.mailbox.receive() else { break };
            done += 1;
            self.pipeline.serve(&mut self.io, message, now);
            self.flush(now);
        }
        if self.pipeline.settle(&mut self.io, now) {
            self.flush(now);
        }
        if self.pipeline.expire_fragments(&mut self.io, now) {
            done += 1;
            self.flush(now);
        }
        let mailbox = &mut self.mailbox;
        self.pipeline.deliver(|message| mailbox.send(message));
        self.pipeline.count_poll(done > 0);
        done
    }

    /// Takes a burst from a queue through the pipeline; gives how many frames that were.
    #[inline]
    fn take_turn(&mut self, queue: usize, now: Now) -> usize {
        let mut burst = Burst::new();
        let most = self.turns.most(queue, self.burst_max);
        if most == 0 {
            return 0;
        }
        let port = self.io.receive(queue, &mut burst, most);
        let received = burst.len();
        if received == 0 {
            self.turns.note(queue, 0, most, 0);
            return 0;
        }
        let before = self.pipeline.did_not_walk();
        self.pipeline.burst(&mut self.io, port, &mut burst, now);
        let quick = self.pipeline.did_not_walk().saturating_sub(before) as usize;
        self.turns.note(queue, received, most, received.saturating_sub(quick));
        self.flush(now);
        received
    }

    /// Sends and hands over what the pipeline has left, and what it goes on with then.
    fn flush(&mut self, now: Now) {
        let Worker { io, pipeline, rings, .. } = self;
        // At least one frame less waits each time.
        for _ in 0..=BURST_MAX {
            // Before the packets that need it: their answers must find it done.
            pipeline.flush_evictions(|lcore, id| rings.evict(lcore, id));
            pipeline.flush(|port, burst| io.transmit(port, burst));
            pipeline.flush_outbound(|lcore, handed| rings.give(lcore, handed));
            if !pipeline.go_on(io, now) {
                break;
            }
        }
    }

    /// Polls until `stop`, then frees what is held.
    pub fn run(&mut self, mut clock: impl FnMut() -> Now, stop: &AtomicBool, idle: Idle) {
        let mut idle_rounds = 0u32;
        while !stop.load(Relaxed) {
            if self.poll(clock()) > 0 {
                idle_rounds = 0;
                continue;
            }
            idle_rounds = idle_rounds.saturating_add(1);
            match idle {
                Idle::Sleep if idle_rounds > IDLE_ROUNDS => {
                    let doublings = ((idle_rounds - IDLE_ROUNDS) / 8).min(5);
                    std::thread::sleep((SLEEP_MIN * (1 << doublings)).min(SLEEP_MAX));
                }
                _ => spin_loop(),
            }
        }
        self.stop();
    }

    /// Frees what is held or was handed over; for a worker that is polled from outside.
    pub fn stop(&mut self) {
        for sender in 0..self.rings.senders() {
            let mut handed = ArrayVec::new();
            self.rings.take(sender, &mut handed);
            while !handed.is_empty() {
                self.pipeline.refuse_handed(&mut handed);
                self.rings.take(sender, &mut handed);
            }
        }
        self.pipeline.stop();
    }
}
