//! `-m string`: bytes looked for in the packet, from its IP header on.
//!
//! `bm` and `kmp` are names of algorithms, whose answer is the same: one pass over the packet with
//! Knuth, Morris and Pratt's table, made when the rule is read, so no packet takes longer than its
//! length. It goes on from segment to segment.

use super::Maybe;
use crate::rules::facts::Facts;

/// `--algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Boyer and Moore's.
    Bm,
    /// Knuth, Morris and Pratt's.
    Kmp,
}

/// `-m string` (`struct xt_string_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// `--string`, `--hex-string`.
    pattern: Maybe<Vec<u8>>,
    /// `--algo`.
    pub algorithm: Algorithm,
    /// `--from`: bytes of the packet before that are not looked at.
    pub from: u16,
    /// `--to`: nor those from here on.
    pub to: u16,
    /// `--icase`.
    ignore_case: bool,
    /// Of each beginning of the pattern the longest that is its end, too.
    borders: Vec<u8>,
}

impl Search {
    /// Bytes of a pattern (`XT_STRING_MAX_PATTERN_SIZE`).
    pub const MAX: usize = 128;

    /// For a pattern, which is cut to [`Search::MAX`].
    pub fn new(mut pattern: Maybe<Vec<u8>>, algorithm: Algorithm, ignore_case: bool) -> Search {
        pattern.value.truncate(Search::MAX);
        let mut search =
            Search { pattern, algorithm, from: 0, to: u16::MAX, ignore_case, borders: Vec::new() };
        let mut matched = 0;
        for at in 0..search.pattern.value.len() {
            if at > 0 {
                matched = search.step(matched, search.pattern.value[at]);
            }
            search.borders.push(matched as u8);
        }
        search
    }

    /// The same search for another pattern.
    pub fn with(&self, pattern: Maybe<Vec<u8>>, ignore_case: bool) -> Search {
        let Search { from, to, algorithm, .. } = *self;
        Search { from, to, ..Search::new(pattern, algorithm, ignore_case) }
    }

    /// What is looked for.
    pub fn pattern(&self) -> &Maybe<Vec<u8>> {
        &self.pattern
    }

    /// Whether case does not matter.
    pub fn ignores_case(&self) -> bool {
        self.ignore_case
    }

    /// How many bytes of the pattern are met with one more, where so many were met before.
    fn step(&self, mut matched: usize, byte: u8) -> usize {
        loop {
            let next = self.pattern.value.get(matched);
            if next.is_some_and(|&next| self.folded(next) == self.folded(byte)) {
                return matched + 1;
            }
            let Some(before) = matched.checked_sub(1) else { return 0 };
            matched = self.borders.get(before).copied().unwrap_or(0).into();
        }
    }

    /// As the kernel does it, which knows Latin-1.
    fn folded(&self, byte: u8) -> u8 {
        match byte {
            b'a'..=b'z' | 0xe0..=0xf6 | 0xf8..=0xfe if self.ignore_case => byte - 0x20,
            _ => byte,
        }
    }

    /// `string_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let wanted = self.pattern.value.len();
        let (mut skip, mut left) = (usize::from(self.from), usize::from(self.to));
        left = left.saturating_sub(skip);
        let mut matched = 0;
        facts.pieces(&mut |piece| {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            for &byte in piece.iter().skip(skipped).take(left) {
                matched = self.step(matched, byte);
                if matched == wanted {
                    return false;
                }
            }
            left -= left.min(piece.len() - skipped);
            left > 0
        });
        self.pattern.judge(matched == wanted)
    }
}
