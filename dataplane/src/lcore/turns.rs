//! How much each queue gives in its turn when there is more than a worker has time for.
//!
//! A frame that walks the hooks takes five to fifteen times as long as one that goes by its conn's
//! path, the most where it has to make room for its conn. Were every queue to give a full burst in
//! its turn, a flood of first packets on one would take nine tenths of the worker's time, and the
//! packets of established conns on another would be lost for it. So as long as another queue has
//! full bursts that do not walk, one whose last burst mostly walked gives a quarter of a burst in
//! every fourth round: a frame for sixteen, which is at most about the same time. They come
//! together so that their cache misses overlap. Who has no time is lost where it came from. Where
//! nothing waits, nothing is held back.

/// A walking burst, in parts of a full one.
const SHARE: usize = 4;
/// Rounds of which a walking queue has its turn in one.
const ROUNDS: usize = 4;

/// What is known of the queues: a bit for each of the first 64. Others are never held back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Turns {
    /// Those that gave all they were asked for.
    full: u64,
    /// Those of whose last burst more than half walked.
    walking: u64,
    /// Rounds so far.
    round: usize,
}

fn bit(queue: usize) -> u64 {
    u32::try_from(queue).ok().and_then(|queue| 1u64.checked_shl(queue)).unwrap_or(0)
}

impl Turns {
    /// Every queue has its turn next.
    #[inline]
    pub(crate) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// How many frames to take from a queue, at most `burst_max`; none if it has no turn.
    #[inline]
    pub(crate) fn most(&self, queue: usize, burst_max: usize) -> usize {
        let own = bit(queue);
        let others_wait = self.full & !self.walking & !own != 0;
        if !others_wait || self.walking & own == 0 {
            return burst_max;
        }
        // Not all of them in the same round.
        let turn = self.round.wrapping_add(queue).is_multiple_of(ROUNDS);
        if turn { (burst_max / SHARE).max(1) } else { 0 }
    }

    /// What came of it: frames `received` where there was room for `most`, and how many of them
    /// walked.
    #[inline]
    pub(crate) fn note(&mut self, queue: usize, received: usize, most: usize, walked: usize) {
        let own = bit(queue);
        let set = |bits: u64, is: bool| if is { bits | own } else { bits & !own };
        self.full = set(self.full, received == most);
        if received > 0 {
            self.walking = set(self.walking, 2 * walked > received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a queue may give in all until everybody had a turn.
    fn a_cycle(turns: &mut Turns, queue: usize, burst_max: usize) -> usize {
        let mut round = || {
            turns.begin_round();
            turns.most(queue, burst_max)
        };
        (0..ROUNDS).map(|_| round()).sum()
    }

    #[test]
    fn a_queue_that_walks_is_held_back_while_another_has_full_bursts() {
        let mut turns = Turns::default();
        assert_eq!((turns.most(0, 32), turns.most(1, 32)), (32, 32));
        turns.note(1, 32, 32, 30);
        assert_eq!(turns.most(1, 32), 32, "nobody else waits");
        turns.note(0, 32, 32, 1);
        assert_eq!((turns.most(0, 32), a_cycle(&mut turns, 1, 32)), (32, 8));
        assert_eq!(a_cycle(&mut turns, 1, 1), 1);
        turns.note(1, 8, 8, 8);
        assert_eq!(a_cycle(&mut turns, 1, 32), 8, "as long as the other one is full");
        turns.note(0, 7, 32, 0);
        assert_eq!(turns.most(1, 32), 32);
        // Two that walk do not hold each other back.
        turns.note(0, 32, 32, 32);
        assert_eq!((turns.most(0, 32), turns.most(1, 32)), (32, 32));
        // Silence changes nothing about who walks.
        turns.note(0, 32, 32, 0);
        turns.note(1, 0, 8, 0);
        assert_eq!(a_cycle(&mut turns, 1, 32), 8);
        assert_eq!((bit(63), bit(64), bit(usize::MAX)), (1 << 63, 0, 0));
    }
}
