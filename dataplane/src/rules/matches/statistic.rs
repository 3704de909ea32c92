//! `-m statistic`: some packets of many, by chance or by their number.

use super::super::kept::Kept;
use super::Maybe;
use crate::arch::sync::{AtomicU64, Ordering::Relaxed};
use crate::rules::facts::Facts;

/// `-m statistic` (`struct xt_statistic_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// `--mode random`: the chance, of 2^31.
    Random(Maybe<u32>),
    /// `--mode nth`.
    Nth(Nth),
}

/// `--mode nth`: of so many packets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nth {
    /// `--every`: not 0.
    pub every: Maybe<u32>,
    /// `--packet`: which of them, below `every`.
    pub packet: u32,
    /// Packets seen: it is the rule's as written, so all lcores count in it, and it lives as long
    /// as the rule does.
    pub(super) seen: Kept<AtomicU64>,
}

impl Nth {
    /// Before any packet.
    pub fn new(every: Maybe<u32>, packet: u32) -> Nth {
        Nth { every, packet, seen: Kept::new(AtomicU64::new(0)) }
    }
}

impl Statistic {
    /// The chance that is none (`XT_STATISTIC_MODE_RANDOM` compares 31 bits).
    pub const CERTAIN: u32 = 1 << 31;

    /// `statistic_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        match self {
            Statistic::Random(chance) => {
                chance.judge(facts.around.random() & 0x7fff_ffff < chance.value)
            }
            Statistic::Nth(nth) => {
                let number = nth.seen.fetch_add(1, Relaxed) % u64::from(nth.every.value.max(1));
                nth.every.judge(number == u64::from(nth.packet))
            }
        }
    }
}
