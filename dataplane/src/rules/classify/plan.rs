//! Which classes a chain gets: few, as each costs a look, and such that a look finds few rules.
//!
//! It begins with the rules that ask for the same bits. Where these are more classes than a chain
//! may have, the rarest go together with another, on the bits that both ask for, so that as few
//! bits of as few rules as possible are lost. Then a class goes into one that asks for some of its
//! bits only, as long as a look there finds hardly more rules than before: then nothing was gained
//! by asking for more.

use std::collections::HashMap;

use super::hash;
use super::keys::Keys;
use crate::rules::gate::Words;

/// The classes that a rare one is held against, by size.
const PARTNERS: usize = 256;

/// The classes that another is tried to go into.
const TRIES: usize = 8;

/// Rules that a look finds where it finds one, on average; more, and classes stay apart.
const CROWD: u64 = 2;

/// Masks of the classes and the rules of each, for rules with these keys, in the order of their
/// first rules; rules that never match are in none.
pub(super) fn plan(keys: &[Keys], most: usize) -> Vec<(Words, Vec<u32>)> {
    let by_mask = fewer(same_bits(keys), most.max(1));
    let mut classes = joined(by_mask, keys);
    for (_, rules) in &mut classes {
        rules.sort_unstable();
    }
    classes.sort_by_key(|(_, rules)| rules.first().copied());
    classes
}

fn same_bits(keys: &[Keys]) -> Vec<(Words, Vec<u32>)> {
    let mut classes: Vec<(Words, Vec<u32>)> = Vec::new();
    let mut known: HashMap<Words, usize> = HashMap::new();
    for (rule, keys) in (0..).zip(keys).filter(|(_, keys)| !keys.wanted.is_empty()) {
        let class = *known.entry(keys.mask).or_insert_with(|| {
            classes.push((keys.mask, Vec::new()));
            classes.len() - 1
        });
        classes.iter_mut().skip(class).take(1).for_each(|(_, rules)| rules.push(rule));
    }
    classes
}

fn both(a: &Words, b: &Words) -> Words {
    core::array::from_fn(|word| a[word] & b[word])
}

fn bits(mask: &Words) -> u64 {
    mask.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// At most so many classes.
fn fewer(mut classes: Vec<(Words, Vec<u32>)>, most: usize) -> Vec<(Words, Vec<u32>)> {
    classes.sort_by_key(|(_, rules)| core::cmp::Reverse(rules.len()));
    while classes.len() > most
        && let Some((mask, rules)) = classes.pop()
    {
        let lost = |(other, of_other): &(Words, Vec<u32>)| {
            let common = bits(&both(&mask, other));
            let here = (bits(&mask) - common) * rules.len() as u64;
            here + (bits(other) - common) * of_other.len() as u64
        };
        let partner = classes.iter_mut().take(PARTNERS).min_by_key(|class| lost(class));
        if let Some((other, of_other)) = partner {
            *other = both(other, &mask);
            of_other.extend(rules);
        }
    }
    classes
}

/// How many rules have the same key in a class.
struct Crowd {
    mask: Words,
    rules: Vec<u32>,
    /// By the hash of the key: of two that share one it is as if they were the same.
    by_key: HashMap<u32, u64>,
}

/// The hashes of some rules' keys under a mask.
fn under<'a>(mask: Words, rules: &'a [u32], keys: &'a [Keys]) -> impl Iterator<Item = u32> + 'a {
    let keys = rules.iter().filter_map(|rule| keys.get(*rule as usize));
    keys.flat_map(move |keys| keys.wanted.iter().map(move |key| hash(key, &mask, 0)))
}

impl Crowd {
    fn of((mask, rules): (Words, Vec<u32>), keys: &[Keys]) -> Crowd {
        let mut crowd = Crowd { mask, rules: Vec::new(), by_key: HashMap::new() };
        crowd.take(&rules, keys, u64::MAX);
        crowd
    }

    /// Takes rules in, unless a packet of theirs would then find more than `most` on average.
    fn take(&mut self, rules: &[u32], keys: &[Keys], most: u64) -> bool {
        let (mut entries, mut found) = (0u64, 0u64);
        for key in under(self.mask, rules, keys) {
            let count = self.by_key.entry(key).or_default();
            // The sum of these is that of the squares: what all rules' own packets find.
            found += 2 * *count + 1;
            (*count, entries) = (*count + 1, entries + 1);
        }
        let taken = found <= entries.saturating_mul(most);
        if taken {
            self.rules.extend(rules);
        } else {
            for key in under(self.mask, rules, keys) {
                self.by_key.entry(key).and_modify(|count| *count -= 1);
            }
        }
        taken
    }
}

/// The classes without those that may as well go into another.
fn joined(classes: Vec<(Words, Vec<u32>)>, keys: &[Keys]) -> Vec<(Words, Vec<u32>)> {
    let mut crowds: Vec<Crowd> = classes.into_iter().map(|class| Crowd::of(class, keys)).collect();
    // Those that ask for most come last; what one goes into is in front of it, the nearest first.
    crowds.sort_by_key(|crowd| bits(&crowd.mask));
    let mut stay = Vec::new();
    while let Some(crowd) = crowds.pop() {
        let weaker = crowds.iter_mut().rev();
        let mut weaker = weaker.filter(|other| both(&other.mask, &crowd.mask) == other.mask);
        let goes = weaker.by_ref().take(TRIES).any(|other| {
            let most = if other.mask == crowd.mask { u64::MAX } else { CROWD };
            other.take(&crowd.rules, keys, most)
        });
        if !goes {
            stay.push((crowd.mask, crowd.rules));
        }
    }
    stay
}
