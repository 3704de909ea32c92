//! The rings between lcores: one for each ordered pair, for frames that are handed over.
//!
//! A ring has one writer and one reader, and both are wait-free (`rtrb`): an lcore that loses its
//! CPU in the middle of a push stops nobody else. Frames of one conn that come in at one lcore go
//! through one ring and keep their order. A full ring is the sender's to deal with: it drops.
//! Frames still in a ring when both ends are gone are freed.

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::pipeline::frame::BURST_MAX;
use crate::pipeline::handoff::Handed;

/// Frames one ring holds: what a burst of every port can hand over many times, and about what
/// arrives at a few million packets per second while a sleeping worker wakes up.
pub const RING_MAX: usize = 2048;

/// One end, on cache lines of its own: it notes in itself how far it has come, in every round of
/// its lcore, and must not disturb another's by where the allocator put the two.
#[derive(Debug)]
#[repr(align(128))]
struct End<T>(T);

/// One lcore's ends of the rings.
#[derive(Debug)]
pub struct Rings<F> {
    /// By lcore; `None` for itself.
    to: Vec<End<Option<Producer<Handed<F>>>>>,
    from: Vec<End<Consumer<Handed<F>>>>,
}

/// All rings between `lcores` lcores, by lcore.
pub fn mesh<F>(lcores: usize) -> Vec<Rings<F>> {
    let empty = || Rings { to: Vec::with_capacity(lcores), from: Vec::new() };
    let mut all: Vec<Rings<F>> = (0..lcores).map(|_| empty()).collect();
    for from in 0..lcores {
        for to in 0..lcores {
            if from == to {
                all[from].to.push(End(None));
                continue;
            }
            let (producer, consumer) = RingBuffer::new(RING_MAX);
            all[from].to.push(End(Some(producer)));
            all[to].from.push(End(consumer));
        }
    }
    all
}

impl<F> Rings<F> {
    /// Other lcores that may hand something over.
    pub fn senders(&self) -> usize {
        self.from.len()
    }

    /// Hands a frame to another lcore; gives it back if there is no room.
    #[inline]
    pub fn give(&mut self, lcore: u8, handed: Handed<F>) -> Result<(), Handed<F>> {
        match self.to.get_mut(lcore as usize) {
            Some(End(Some(ring))) => ring.push(handed).map_err(|PushError::Full(handed)| handed),
            _ => Err(handed),
        }
    }

    /// Appends what the `sender`th other lcore has handed over, as far as there is room.
    #[inline]
    pub fn take(&mut self, sender: usize, handed: &mut ArrayVec<Handed<F>, BURST_MAX>) {
        let Some(End(ring)) = self.from.get_mut(sender) else { return };
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
        Handed { frame, port: PortId(0), stage: Stage::Arrived, hops: 1, mark: 0 }
    }

    #[test]
    fn each_pair_has_its_own_order_and_its_own_bound() {
        let mut rings = mesh::<u32>(3);
        for n in 0..RING_MAX as u32 {
            rings[0].give(2, handed(n)).unwrap();
        }
        assert_eq!(rings[0].give(2, handed(7)).unwrap_err().frame, 7, "full");
        rings[1].give(2, handed(1 << 20)).unwrap();
        assert!(rings[0].give(0, handed(8)).is_err(), "nobody hands to itself");
        assert!(rings[0].give(9, handed(8)).is_err(), "no such lcore");
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
    fn no_two_lcores_ends_share_a_line() {
        for lcores in 2..10 {
            ends_are_apart(&mesh::<u32>(lcores));
        }
    }

    fn ends_are_apart(rings: &[Rings<u32>]) {
        let mut owners = std::collections::HashMap::new();
        for (lcore, rings) in rings.iter().enumerate() {
            let to = rings.to.iter().map(|end| (&raw const *end as usize, size_of_val(end)));
            let from = rings.from.iter().map(|end| (&raw const *end as usize, size_of_val(end)));
            for (at, size) in to.chain(from) {
                for line in at / 64..=(at + size - 1) / 64 {
                    assert_eq!(*owners.entry(line).or_insert(lcore), lcore, "line {line:x}");
                }
            }
        }
    }

    #[test]
    fn frames_left_in_a_ring_are_freed_with_it() {
        let mut rings = mesh::<std::sync::Arc<()>>(2);
        let frame = std::sync::Arc::new(());
        let (port, stage) = (PortId(0), Stage::Arrived);
        let handed = Handed { frame: frame.clone(), port, stage, hops: 1, mark: 0 };
        rings[0].give(1, handed).unwrap();
        drop(rings);
        assert_eq!(std::sync::Arc::strong_count(&frame), 1);
    }
}
