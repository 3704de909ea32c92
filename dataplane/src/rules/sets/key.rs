//! An element as it is compared: what all types have between them, zero where one has it not.

use crate::rules::hook::Family;

/// An element.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The first address, of IPv4 its 32 bits, or the one MAC address.
    pub first: u128,
    /// If the first address is a net's, its prefix length and one; else 0.
    pub first_prefix: u8,
    /// Protocol.
    pub proto: u8,
    /// Port; type and code of ICMP.
    pub port: u16,
    /// The second address, a MAC address, or a mark.
    pub second: u128,
    /// As of the first.
    pub second_prefix: u8,
}

/// The most words a key has.
pub const WORDS_MAX: usize = 5;

impl Key {
    /// How many of the words of [`Key::words`] can be other than 0.
    pub const fn words_of(family: Option<Family>) -> usize {
        match family {
            Some(Family::V6) => WORDS_MAX,
            _ => 3,
        }
    }

    /// As words: those that IPv4 leaves 0 come last.
    #[inline]
    pub const fn words(&self) -> [u64; WORDS_MAX] {
        let small = (self.port as u64) << 24
            | (self.proto as u64) << 16
            | (self.first_prefix as u64) << 8
            | self.second_prefix as u64;
        let (first, second) = (self.first, self.second);
        [small, first as u64, second as u64, (first >> 64) as u64, (second >> 64) as u64]
    }

    /// From its words.
    pub const fn of_words(words: [u64; WORDS_MAX]) -> Key {
        let [small, first, second, first_high, second_high] = words;
        Key {
            first: (first_high as u128) << 64 | first as u128,
            first_prefix: (small >> 8) as u8,
            proto: (small >> 16) as u8,
            port: (small >> 24) as u16,
            second: (second_high as u128) << 64 | second as u128,
            second_prefix: small as u8,
        }
    }
}

/// The bits of an address that a prefix of this length keeps.
#[inline]
pub const fn mask(prefix: u8, width: u8) -> u128 {
    let all = u128::MAX >> (128 - width as u32);
    let free = (width - if prefix < width { prefix } else { width }) as u32;
    if free >= 128 { 0 } else { all & (u128::MAX << free) }
}
