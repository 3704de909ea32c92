//! The next rule of a long chain, found by what the packet is instead of by passing over rules.
//!
//! Ten thousand rules mostly ask the same few questions with ten thousand answers. A *class* is the
//! rules of a chain that ask for the same bits of the packet; each is entered under the values it
//! wants there ([`keys`]). One look for each class gives the class's rules that may admit the
//! packet, in order; the next rule of the chain is the first of all classes'. Classes come in the
//! order of their first rules, and those that begin behind what was found are not looked at.
//!
//! Nothing is decided here: what is found is asked by its gate and its tests as on the linear walk,
//! and what is passed over has a test that fails, in front of all that would leave something
//! behind. So a hash that two keys share costs a look and no more.
//!
//! Built with the compiled rules, read by workers, never changed. Memory is at most
//! [`keys::KEYS_MAX`] entries for each rule. Chains for which it does not pay have none
//! ([`Limits`]): short ones, and those that ask too many different things for their length.

mod keys;
mod plan;

#[cfg(test)]
mod tests;

use core::slice;

use arrayvec::ArrayVec;

use super::compiled::{Compiled, CompiledRule};
use super::gate::{Bits, Words};
use super::test::Test;

/// The most classes of a chain.
const CLASSES_MAX: usize = 32;

/// No rule.
const NONE: u32 = u32::MAX;

/// Where classes begin to pay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rules that a chain has at least.
    pub(super) rules: usize,
    /// Rules that are passed over in the time of a look into one class.
    pub(super) look: usize,
    /// Classes of a chain, at most [`CLASSES_MAX`].
    pub(super) classes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { rules: 24, look: 8, classes: CLASSES_MAX }
    }
}

/// The classes of a chain.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    /// In the order of their first rules.
    classes: Vec<Class>,
    /// Where the entries of each bucket begin, and where the last one's end.
    starts: Vec<u32>,
    /// The hash of a key and the number of a rule in its chain, see [`entry`]; in order.
    entries: Vec<u64>,
    /// From a hash to its bucket.
    shift: u32,
}

#[derive(Clone, Debug)]
struct Class {
    /// The bits that its rules ask for.
    mask: Words,
    /// Its first rule.
    first: u32,
}

/// The next rules of the classes that were looked into.
#[derive(Debug)]
pub(super) struct Heads {
    heads: ArrayVec<Head, CLASSES_MAX>,
    /// The chain they are of.
    chain: u32,
    /// No rule in front of this one was looked for.
    from: u32,
}

#[derive(Clone, Copy, Debug)]
struct Head {
    /// Position of its entry.
    at: u32,
    hash: u32,
    /// The rule, or [`NONE`].
    rule: u32,
}

impl Default for Heads {
    #[inline]
    fn default() -> Heads {
        Heads { heads: ArrayVec::new(), chain: NONE, from: 0 }
    }
}

impl Heads {
    /// Forgets those of another chain, and those behind the place where a chain is entered again.
    #[inline]
    fn turn_to(&mut self, chain: u32, from: u32) {
        if self.chain != chain || from < self.from {
            self.heads.clear();
            self.chain = chain;
        }
        self.from = from;
    }
}

impl Compiled {
    /// Moves on in the rest of a chain to the first rule whose gate admits `bits`, or to the end.
    /// `heads` are those of this packet, as it is now.
    #[inline]
    pub(super) fn seek<'r>(
        &'r self,
        chain: u32,
        rules: &mut slice::Iter<'r, CompiledRule>,
        bits: &Bits,
        heads: &mut Heads,
    ) {
        if let Some(Some(classes)) = self.classes.get(chain as usize) {
            let whole = self.chain(chain).as_slice();
            *rules = classes.seek(whole, (chain, rules.len()), bits, heads).iter();
            return;
        }
        let rest = rules.as_slice();
        let at = rest.iter().position(|rule| rule.gate.admits(bits)).unwrap_or(rest.len());
        *rules = rest.get(at..).unwrap_or_default().iter();
    }
}

impl Classes {
    /// The classes of a chain with these rules; none where they would not pay.
    pub(super) fn of(
        rules: &[CompiledRule],
        tests: &[Test],
        limits: Limits,
    ) -> Option<Box<Classes>> {
        if rules.len() < limits.rules {
            return None;
        }
        let keys: Vec<_> = rules.iter().map(|rule| keys::keys_of(rule, tests)).collect();
        let plan = plan::plan(&keys, limits.classes.min(CLASSES_MAX));
        if rules.len() < plan.len() * limits.look {
            return None;
        }
        let mut entries = Vec::with_capacity(rules.len());
        for (number, (mask, of_class)) in (0..).zip(&plan) {
            for &rule in of_class {
                let wanted = keys.get(rule as usize).map_or(&[][..], |keys| &keys.wanted);
                entries.extend(wanted.iter().map(|key| entry(hash(key, mask, number), rule)));
            }
        }
        entries.sort_unstable();
        entries.dedup();
        let shift = u32::BITS - (entries.len() as u32).next_power_of_two().ilog2().max(1);
        let mut starts = vec![0u32; (1 << (u32::BITS - shift)) + 1];
        for entry in &entries {
            let bucket = hash_of(*entry) >> shift;
            starts.iter_mut().skip(bucket as usize + 1).take(1).for_each(|count| *count += 1);
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let class = |(mask, rules): (Words, Vec<u32>)| {
            let first = rules.iter().min().copied().unwrap_or(NONE);
            Class { mask, first }
        };
        let classes = plan.into_iter().map(class).collect();
        Some(Box::new(Classes { classes, starts, entries, shift }))
    }

    /// The chain `whole` from the first rule on that admits `bits`, of the `rest` last ones. Each
    /// turn is at a later rule than the one before.
    #[inline(never)]
    fn seek<'r>(
        &self,
        whole: &'r [CompiledRule],
        (chain, rest): (u32, usize),
        bits: &Bits,
        heads: &mut Heads,
    ) -> &'r [CompiledRule] {
        let mut from = whole.len().saturating_sub(rest) as u32;
        let words = bits.words();
        loop {
            heads.turn_to(chain, from);
            let at = self.next(&words, heads);
            let rules = whole.get(at as usize..).unwrap_or_default();
            let Some(rule) = rules.first() else { return rules };
            if rule.gate.admits(bits) {
                return rules;
            }
            from = at + 1;
        }
    }

    /// The first rule from `heads.from` on that may admit these bits, or [`NONE`].
    #[inline]
    fn next(&self, bits: &Words, heads: &mut Heads) -> u32 {
        let (from, mut least) = (heads.from, NONE);
        for head in &mut heads.heads {
            while head.rule < from {
                head.at += 1;
                head.rule = self.rule_at(head.at, head.hash);
            }
            least = least.min(head.rule);
        }
        let looked = heads.heads.len();
        for (number, class) in (0..).zip(&self.classes).skip(looked) {
            if class.first > least {
                break;
            }
            let head = self.look(number, class, bits, from);
            least = least.min(head.rule);
            if heads.heads.try_push(head).is_err() {
                break;
            }
        }
        least
    }

    /// The first rule of a class from `from` on.
    #[inline]
    fn look(&self, number: u32, class: &Class, bits: &Words, from: u32) -> Head {
        let hash = hash(bits, &class.mask, number);
        let bucket = (hash >> self.shift) as usize;
        let bounds = self.starts.get(bucket).zip(self.starts.get(bucket + 1));
        let (start, end) = bounds.map_or((0, 0), |(start, end)| (*start, *end));
        let bucket = self.entries.get(start as usize..end as usize).unwrap_or_default();
        let before = bucket.partition_point(|known| *known < entry(hash, from));
        let at = start + before as u32;
        Head { at, hash, rule: self.rule_at(at, hash) }
    }

    /// The rule of an entry, if it has this hash.
    #[inline]
    fn rule_at(&self, at: u32, hash: u32) -> u32 {
        let known = self.entries.get(at as usize).filter(|known| hash_of(**known) == hash);
        known.map_or(NONE, |known| *known as u32)
    }
}

#[inline]
const fn entry(hash: u32, rule: u32) -> u64 {
    (hash as u64) << 32 | rule as u64
}

#[inline]
const fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// The hash of `key` under `mask`, another one in each class. What packets say chooses none of the
/// entries, so it need not be secret.
#[inline]
fn hash(key: &Words, mask: &Words, class: u32) -> u32 {
    const ODD: [u64; 5] = [
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
    ];
    let fold = |a: u64, b: u64| {
        let product = a as u128 * b as u128;
        product as u64 ^ (product >> 64) as u64
    };
    let src = fold(key[0] & mask[0] ^ ODD[0], key[3] & mask[3] ^ ODD[1]);
    let dst = fold(key[1] & mask[1] ^ ODD[2], key[4] & mask[4] ^ ODD[3]);
    let fields = key[2] & mask[2] ^ class as u64 ^ ODD[4];
    (fold(src ^ dst.rotate_left(32), fields | 1 << 63) >> 32) as u32
}
