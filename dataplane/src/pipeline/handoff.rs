//! Frames on their way to another lcore: the owner of their conn, or who has the transmit queue.
//!
//! A burst leaves what it hands over in bounded outputs, one for each other lcore; the poll loop
//! moves them to the rings between lcores (`lcore::rings`). A frame that finds no room is dropped
//! and counted. What arrives is taken like a received burst, but not counted as received again.
//!
//! Handing over is never wrong, at worst for nothing: who gets a frame looks its conn up anew. A
//! conn may end and begin again elsewhere meanwhile, so a frame may travel on, [`HOPS_MAX`] times
//! at most.

use arrayvec::ArrayVec;

use crate::conntrack::fragments::PER_DATAGRAM_MAX;
use crate::conntrack::record::ConnId;
use crate::pipeline::drops::DropReason;
use crate::pipeline::fragments::Datagram;
use crate::pipeline::frame::{BURST_MAX, Burst, Frame, FramePool};
use crate::pipeline::neighbours::OUTPUT_MAX;
use crate::pipeline::{Arrival, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::template::Template;
use crate::time::Now;

/// How often one frame is handed over at most.
pub const HOPS_MAX: u8 = 4;

/// What the next lcore does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All that happens to a received frame.
    Arrived,
    /// The same behind the raw table, which it has passed already.
    PastRaw,
    /// All that happens to a packet of our own behind the raw table.
    Own,
    /// It is finished: send it.
    Send,
}

/// A frame handed over.
#[derive(Debug)]
pub struct Handed<F> {
    /// The frame.
    pub frame: F,
    /// Where it came in, or where it leaves ([`Stage::Send`], [`Stage::Own`]).
    pub port: PortId,
    /// What is left to do.
    pub stage: Stage,
    /// How often it has been handed over, this time included.
    pub hops: u8,
    /// The mark that the raw table gave it.
    pub mark: u32,
    /// The raw table has it traced.
    pub traced: bool,
    /// What the raw table said of its conn.
    pub template: Option<Template>,
    /// It came in fragments, which are one now.
    pub datagram: Option<Datagram>,
}

/// Conns of other lcores that one burst can ask to be ended.
pub(crate) const EVICTIONS_MAX: usize = 32;

/// What one burst leaves for one other lcore.
pub type Outbound<F> = ArrayVec<Handed<F>, OUTPUT_MAX>;

impl<P: FramePool> Pipeline<P> {
    /// Leaves a frame for another lcore.
    pub(crate) fn hand_over(&mut self, lcore: u8, handed: Handed<P::Frame>) {
        if handed.hops > HOPS_MAX {
            return self.drop_frame(handed.frame, DropReason::Handoff);
        }
        let refused = match self.outbound.get_mut(lcore as usize) {
            Some(outbound) => {
                let refused = outbound.try_push(handed).err().map(|full| full.element());
                self.crowded |= outbound.len() > OUTPUT_MAX - PER_DATAGRAM_MAX;
                refused
            }
            None => Some(handed),
        };
        match refused {
            None => self.links.counters.handed_over.add(1),
            Some(handed) => self.drop_frame(handed.frame, DropReason::Handoff),
        }
    }

    /// Lets `give(lcore, frames)` take what is to be handed over from the front; what it leaves has
    /// found no room and is dropped.
    pub fn flush_outbound(&mut self, mut give: impl FnMut(u8, &mut Outbound<P::Frame>)) {
        if self.place.is_alone() {
            return;
        }
        let Pipeline { outbound, links, .. } = self;
        for (lcore, outbound) in outbound.iter_mut().enumerate() {
            if outbound.is_empty() {
                continue;
            }
            give(lcore as u8, outbound);
            for handed in outbound.drain(..) {
                links.counters.handed_over.sub(1);
                links.counters.count_drop(DropReason::Handoff);
                drop(handed.frame);
            }
        }
    }

    /// Lets `ask(lcore, conn)` ask other lcores to end conns of theirs; what finds no room waits.
    pub fn flush_evictions(&mut self, mut ask: impl FnMut(u8, ConnId) -> bool) {
        if !self.evictions.is_empty() {
            self.evictions.retain(|(lcore, id)| !ask(*lcore, *id));
        }
    }

    /// Another lcore has given the tuple of a finished TCP conn to a new one
    /// (`nf_nat_used_tuple_harder`). It goes even if it has changed meanwhile: no two conns may
    /// keep one tuple.
    pub fn evict(&mut self, id: ConnId, now: Now) {
        let Some(world) = self.world.take() else { return };
        self.delete_if_same(id, world.moment(now, 0).at());
        self.world = Some(world);
    }

    /// Frees frames that other lcores have handed over to one that stops.
    pub fn refuse_handed(&mut self, handed: &mut ArrayVec<Handed<P::Frame>, BURST_MAX>) {
        self.links.counters.taken_over.add(handed.len() as u64);
        for handed in handed.drain(..) {
            self.drop_frame(handed.frame, DropReason::Stopped);
        }
    }

    /// Takes frames that other lcores have handed over, in order; `handed` is empty afterwards.
    /// Neighbours in it that need the same are taken as one burst.
    pub fn take_over(
        &mut self,
        pool: &mut P,
        handed: &mut ArrayVec<Handed<P::Frame>, BURST_MAX>,
        now: Now,
    ) {
        self.links.counters.taken_over.add(handed.len() as u64);
        // They lie in the cache of the lcore that received them: first what says where their bytes
        // are, then the bytes.
        handed.iter().for_each(|handed| handed.frame.prefetch_description());
        handed.iter().for_each(|handed| handed.frame.prefetch());
        let mut burst = Burst::new();
        let mut of: Option<Arrival> = None;
        for handed in handed.drain(..) {
            let Handed { frame, port, stage, hops, mark, traced, template, datagram } = handed;
            let past_raw = matches!(stage, Stage::PastRaw | Stage::Own);
            let arrival = Arrival { port, hops, past_raw, mark, traced, template };
            let alone = matches!(stage, Stage::Send | Stage::Own) || datagram.is_some();
            if of != Some(arrival) || alone {
                if let Some(before) = of.take() {
                    self.arrived(pool, before, &mut burst, now);
                }
                of = (!alone).then_some(arrival);
            }
            match (stage, datagram) {
                (Stage::Send, _) => self.put_out(port, frame),
                (Stage::Own, _) => self.take_own(pool, arrival, frame, now),
                (_, Some(datagram)) => self.take_datagram(pool, arrival, frame, datagram, now),
                // As many as were handed over fit into a burst.
                _ => burst.push(frame),
            }
        }
        if let Some(last) = of {
            self.arrived(pool, last, &mut burst, now);
        }
    }
}
