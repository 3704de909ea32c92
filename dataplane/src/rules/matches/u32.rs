//! `-m u32`: words of the packet, picked out by a small language.
//!
//! A location begins with the offset of a word of four bytes from the IP header; `&`, `<<` and `>>`
//! work on what was read, `@` moves the offset by it and reads anew.

use crate::rules::facts::Facts;

/// What is done to the number read so far (`enum xt_u32_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// `&`.
    And(u32),
    /// `<<`, by less than 32.
    Left(u32),
    /// `>>`, by less than 32.
    Right(u32),
    /// `@`.
    At(u32),
}

/// One location and the ranges it may lie in (`struct xt_u32_test`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// Where the first word is.
    pub offset: u32,
    /// What is done then, at most [`U32::MAX`] less one.
    pub steps: Vec<Step>,
    /// Inclusive ranges, at most [`U32::MAX`].
    pub ranges: Vec<(u32, u32)>,
}

/// `-m u32` (`struct xt_u32`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct U32 {
    /// `!` was written.
    pub not: bool,
    /// All of them have to hold; at most [`U32::MAX`].
    pub probes: Vec<Probe>,
}

impl U32 {
    /// Numbers in a location, ranges of a probe, probes (`XT_U32_MAXSIZE`).
    pub const MAX: usize = 10;

    /// `u32_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let all = self.probes.iter().all(|probe| {
            let found = probe.value(facts);
            found.is_some_and(|n| probe.ranges.iter().any(|&(low, high)| low <= n && n <= high))
        });
        all != self.not
    }
}

impl Probe {
    /// `u32_match_it`; `None` where the packet has not so many bytes.
    fn value(&self, facts: &Facts<'_>) -> Option<u32> {
        let word = |at: u32| facts.four_bytes(at as usize).map(u32::from_be_bytes);
        let mut base = 0u32;
        let mut value = word(self.offset)?;
        for step in &self.steps {
            match *step {
                Step::And(bits) => value &= bits,
                Step::Left(bits) => value = value.wrapping_shl(bits),
                Step::Right(bits) => value = value.wrapping_shr(bits),
                Step::At(offset) => {
                    base = base.checked_add(value)?;
                    value = word(base.checked_add(offset)?)?;
                }
            }
        }
        Some(value)
    }
}
