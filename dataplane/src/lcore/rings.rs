//! The rings between lcores: one for each ordered pair, for frames that are handed over, and a
//! small one beside it for conns that have to make room.
//!
//! A ring has one writer and one reader, and both are wait-free (`rtrb`): an lcore that loses its
//! CPU in the middle of a push stops nobody else. Frames of one conn that come in at one lcore go
//! through one ring and keep their order. A full ring is the sender's to deal with: it drops.
//! Frames still in a ring when both ends are gone are freed.

use arrayvec::ArrayVec;
use rtrb::chunks::ChunkError;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::conntrack::record::ConnId;
use crate::pipeline::frame::BURST_MAX;
use crate::pipeline::handoff::Handed;

/// Frames one ring holds: what a burst of every port can hand over many times, and about what
/// arrives at a few million packets per second while a sleeping worker wakes up.
pub const RING_MAX: usize = 2048;

/// Conns that one lcore can ask another to end before that looks.
pub(crate) const EVICTIONS_MAX: usize = 64;

/// The ends of the rings to another lcore, on cache lines of their own: they note in themselves how
/// far they have come, in every round of their lcore, and must not disturb another's by where the
/// allocator put them.
#[derive(Debug)]
#[repr(align(128))]
struct To<F> {
    frames: Producer<Handed<F>>,
    evict: Producer<ConnId>,
}

/// The same of the rings from another lcore.
#[derive(Debug)]
#[repr(align(128))]
struct From<F> {
    frames: Consumer<Handed<F>>,
    evict: Consumer<ConnId>,
}

/// One lcore's ends of the rings.
#[derive(Debug)]
pub struct Rings<F> {
    /// By lcore; `None` for itself.
    to: Vec<Option<To<F>>>,
    from: Vec<From<F>>,
}

/// All rings between `lcores` lcores, by lcore.
pub fn mesh<F>(lcores: usize) -> Vec<Rings<F>> {
    let empty = || Rings { to: Vec::with_capacity(lcores), from: Vec::new() };
    let mut all: Vec<Rings<F>> = (0..lcores).map(|_| empty()).collect();
    for from in 0..lcores {
        for to in 0..lcores {
            if from == to {
                all[from].to.push(None);
                continue;
            }
            let (frames, frames_end) = RingBuffer::new(RING_MAX);
            let (evict, evict_end) = RingBuffer::new(EVICTIONS_MAX);
            all[from].to.push(Some(To { frames, evict }));
            all[to].from.push(From { frames: frames_end, evict: evict_end });
        }
    }
    all
}

impl<F> Rings<F> {
    /// Other lcores that may hand something over.
    pub fn senders(&self) -> usize {
        self.from.len()
    }

    /// Hands frames to another lcore, from the front; those that find no room stay. The reader sees
    /// them all at once: the line that tells it moves once per burst, not per frame.
    #[inline]
    pub fn give<const N: usize>(&mut self, lcore: u8, handed: &mut ArrayVec<Handed<F>, N>) {
        let Some(Some(To { frames: ring, .. })) = self.to.get_mut(lcore as usize) else { return };
        let room = match ring.write_chunk_uninit(handed.len()) {
            Ok(chunk) => {
                chunk.fill_from_iter(handed.drain(..));
                return;
            }
            Err(ChunkError::TooFewSlots(room)) => room,
        };
        if let Ok(chunk) = ring.write_chunk_uninit(room) {
            chunk.fill_from_iter(handed.drain(..room));
        }
    }

    /// Asks another lcore to end a conn; false if there is no room.
    pub fn evict(&mut self, lcore: u8, id: ConnId) -> bool {
        let to = self.to.get_mut(lcore as usize).and_then(Option::as_mut);
        to.is_some_and(|to| to.evict.push(id).is_ok())
    }

    /// The next conn that the `sender`th other lcore wants to be ended.
    #[inline]
    pub fn evicted(&mut self, sender: usize) -> Option<ConnId> {
        self.from.get_mut(sender)?.evict.pop().ok()
    }

    /// Appends what the `sender`th other lcore has handed over, as far as there is room.
    #[inline]
    pub fn take(&mut self, sender: usize, handed: &mut ArrayVec<Handed<F>, BURST_MAX>) {
        let Some(From { frames: ring, .. }) = self.from.get_mut(sender) else { return };
        let there = ring.slots().min(BURST_MAX - handed.len());
        // Nothing is written about an empty ring, which is what most are.
        if there == 0 {
            return;
        }
        if let Ok(chunk) = ring.read_chunk(there) {
            handed.extend(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::handoff::Stage;
    use crate::rules::facts::PortId;

    fn handed(frame: u32) -> Handed<u32> {
        Handed {
            frame,
            port: PortId(0),
            stage: Stage::Arrived,
            hops: 1,
            mark: 0,
            traced: false,
            template: None,
            datagram: None,
        }
    }

    #[test]
    fn each_pair_has_its_own_order_and_its_own_bound() {
        let mut rings = mesh::<u32>(3);
        let mut give = |from: usize, to: u8, frames: std::ops::Range<u32>| -> Vec<u32> {
            let mut burst: ArrayVec<_, 100> = frames.map(handed).collect();
            rings[from].give(to, &mut burst);
            burst.into_iter().map(|h| h.frame).collect()
        };
        for n in (0..RING_MAX as u32 - 48).step_by(100) {
            assert!(give(0, 2, n..n + 100).is_empty());
        }
        assert_eq!(give(0, 2, 2000..2100), (2048..2100).collect::<Vec<_>>(), "room for 48");
        assert_eq!(give(0, 2, 7..8), [7], "full");
        assert!(give(1, 2, 1 << 20..(1 << 20) + 1).is_empty());
        assert_eq!(give(0, 0, 8..9), [8], "nobody hands to itself");
        assert_eq!(give(0, 9, 8..9), [8], "no such lcore");
        let mut seen = Vec::new();
        let mut burst = ArrayVec::new();
        loop {
            rings[2].take(0, &mut burst);
            if burst.is_empty() {
                break;
            }
            seen.extend(burst.drain(..).map(|h| h.frame));
        }
        assert!(seen.into_iter().eq(0..RING_MAX as u32));
        rings[2].take(1, &mut burst);
        assert_eq!(burst.pop().unwrap().frame, 1 << 20);
        assert_eq!(rings[2].senders(), 2);
    }

    #[test]
    fn frames_left_in_a_ring_are_freed_with_it() {
        let mut rings = mesh::<std::sync::Arc<()>>(2);
        let frame = std::sync::Arc::new(());
        let (port, stage) = (PortId(0), Stage::Arrived);
        let handed = Handed {
            frame: frame.clone(),
            port,
            stage,
            hops: 1,
            mark: 0,
            traced: false,
            template: None,
            datagram: None,
        };
        rings[0].give(1, &mut ArrayVec::from([handed]));
        drop(rings);
        assert_eq!(std::sync::Arc::strong_count(&frame), 1);
    }
}
