//! The table of a set's elements: one writer, any number of readers, no lock.
//!
//! Elements are numbered and lie in chunks that never move, each twice as large as the one before.
//! An index of buckets with eight slots leads to them: an element stands in one of two buckets that
//! its hash names, so a lookup reads two cache lines, whatever was added and taken away before. A
//! slot is one word: 32 bits of the hash and the element's number, from 1. Where both buckets are
//! full the writer makes an index of twice the size and fills it before it says so; the old one
//! stays for those who still read it, all of them together being smaller than the new one.
//!
//! An element's number is used again. So its first word counts its lives (`STATE`): a reader that
//! has compared the other words looks at it once more, and takes what has changed meanwhile for
//! what is not there. That is right: the element it looked for was taken away.
//!
//! Deadline and counters are written by readers too: what a packet adds to an element that is taken
//! away at the same moment may count for the next one with its number.

use std::sync::{Arc, OnceLock};

use super::key::{Key, WORDS_MAX};
use crate::arch::sync::Ordering::{Acquire, Relaxed, Release};
use crate::arch::sync::{AtomicU32, AtomicU64, fence};
use crate::time::Tick;

/// Elements in the first chunk.
const FIRST: u32 = if cfg!(loom) { 2 } else { 16 };
const CHUNKS: usize = 28;

/// Buckets in the first index.
const FIRST_BUCKETS: usize = if cfg!(loom) { 1 } else { 4 };
const INDEXES: usize = 28;
const SLOTS: usize = 8;

/// Words of an element before its key.
const STATE: usize = 0;
const DEADLINE: usize = 1;
const PACKETS: usize = 2;
const BYTES: usize = 3;
const KEY: usize = 4;

/// Words behind the key, in sets made with `skbinfo`: mark and mask, priority and queue.
const INFO_WORDS: usize = 2;

/// Bits of the state; a life is counted above them.
const LIVES: u64 = 1;
const NOMATCH: u64 = 2;
const LIFE: u64 = 4;

/// Slots that share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; SLOTS]);

/// Prefix lengths of the nets that there are, each and one, as bits.
#[derive(Debug, Default)]
struct Lengths([AtomicU64; 3]);

impl Lengths {
    fn set(&self, length: u8, there: bool) {
        let Some(word) = self.0.get(usize::from(length >> 6)) else { return };
        let bit = 1 << (length & 63);
        let old = word.load(Relaxed);
        word.store(if there { old | bit } else { old & !bit }, Release);
    }

    /// The longest that is shorter than `below`.
    #[inline]
    fn longest(&self, below: u8) -> Option<u8> {
        for (number, word) in self.0.iter().enumerate().rev() {
            let base = number as u8 * 64;
            let bits = match below.saturating_sub(base) {
                0 => 0,
                room @ 1..64 => word.load(Acquire) & ((1 << room) - 1),
                _ => word.load(Acquire),
            };
            if bits != 0 {
                return Some(base + (63 - bits.leading_zeros() as u8));
            }
        }
        None
    }
}

/// What an element says of the packets that are it (`ip_set_skbinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// `skbmark`: the mark.
    pub mark: u32,
    /// Its bits that packets get; the others they keep.
    pub mask: u32,
    /// `skbprio`: major and minor number.
    pub priority: u32,
    /// `skbqueue`.
    pub queue: u16,
}

impl Info {
    const fn words(self) -> [u64; INFO_WORDS] {
        let marks = (self.mark as u64) << 32 | self.mask as u64;
        [marks, (self.priority as u64) << 32 | self.queue as u64]
    }

    const fn of_words([marks, rest]: [u64; INFO_WORDS]) -> Info {
        let (mark, mask) = ((marks >> 32) as u32, marks as u32);
        Info { mark, mask, priority: (rest >> 32) as u32, queue: rest as u16 }
    }
}

/// The shared part of the table.
#[derive(Debug)]
pub struct Elements {
    seed: u64,
    words: usize,
    /// [`INFO_WORDS`], or 0.
    info: usize,
    chunks: [OnceLock<Box<[AtomicU64]>>; CHUNKS],
    indexes: [OnceLock<Box<[Bucket]>>; INDEXES],
    current: AtomicU32,
    lengths: [Lengths; 2],
    count: AtomicU32,
}

/// An element that was found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    element: Element<'a>,
    /// Its words behind the key.
    info: &'a [AtomicU64],
    deadline: u64,
    /// It is an exception.
    pub nomatch: bool,
}

#[derive(Clone, Copy, Debug)]
struct Element<'a>(&'a [AtomicU64]);

impl<'a> Element<'a> {
    #[inline]
    fn load(self, word: usize) -> u64 {
        self.0.get(word).map_or(0, |word| word.load(Relaxed))
    }

    #[inline]
    fn store(self, word: usize, value: u64) {
        if let Some(word) = self.0.get(word) {
            word.store(value, Relaxed);
        }
    }

    /// The element, if it lives and has this key.
    #[inline]
    fn read(self, key: &[u64]) -> Option<Found<'a>> {
        let state = self.0.first()?;
        let before = state.load(Acquire);
        let words = self.0.get(KEY..)?;
        let same = words.iter().zip(key).all(|(word, wanted)| word.load(Relaxed) == *wanted);
        let deadline = self.load(DEADLINE);
        fence(Acquire);
        let there = before & LIVES != 0 && same && state.load(Relaxed) == before;
        let (info, nomatch) = (words.get(key.len()..)?, before & NOMATCH != 0);
        there.then_some(Found { element: self, info, deadline, nomatch })
    }
}

/// A moment as an element keeps it; 0 is never.
const fn kept(deadline: Option<Tick>) -> u64 {
    match deadline {
        Some(tick) => 1 << 32 | tick.0 as u64,
        None => 0,
    }
}

const fn moment(kept: u64) -> Option<Tick> {
    if kept == 0 { None } else { Some(Tick(kept as u32)) }
}

impl Found<'_> {
    /// When it is over; `None` for never.
    pub fn deadline(&self) -> Option<Tick> {
        moment(self.deadline)
    }

    /// True once it is over.
    #[inline]
    pub fn has_expired(&self, now: Tick) -> bool {
        self.deadline != 0 && Tick(self.deadline as u32).has_passed(now)
    }

    /// Gives it another deadline, unless somebody else just did.
    pub fn set_deadline(&self, deadline: Option<Tick>) {
        if let Some(word) = self.element.0.get(DEADLINE)
            && self.deadline != kept(deadline)
        {
            // Who comes too late has met another element, or one that was just renewed.
            let _ = word.compare_exchange(self.deadline, kept(deadline), Relaxed, Relaxed);
        }
    }

    /// Adds to its counters.
    #[inline]
    pub fn count(&self, packets: u64, bytes: u64) {
        for (word, by) in [(PACKETS, packets), (BYTES, bytes)] {
            if let Some(word) = self.element.0.get(word) {
                word.fetch_add(by, Relaxed);
            }
        }
    }

    /// Sets its counters.
    pub fn set_counters(&self, packets: u64, bytes: u64) {
        self.element.store(PACKETS, packets);
        self.element.store(BYTES, bytes);
    }

    /// (packets, bytes).
    #[inline]
    pub fn counters(&self) -> (u64, u64) {
        (self.element.load(PACKETS), self.element.load(BYTES))
    }

    /// What it says of packets; zeros in a set without such.
    #[inline]
    pub fn info(&self) -> Info {
        let [marks, rest] = self.info else { return Info::default() };
        Info::of_words([marks.load(Relaxed), rest.load(Relaxed)])
    }

    /// Says what it says of packets, in a set with such.
    pub fn set_info(&self, info: Info) {
        for (word, value) in self.info.iter().zip(info.words()) {
            word.store(value, Relaxed);
        }
    }
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl Elements {
    /// The same elements in memory of their own. Allocates.
    pub fn copy(&self) -> Arc<Elements> {
        let mut writer = Writer::with_info(self.words, self.info != 0, self.seed);
        for (key, found) in self.iter() {
            let with = (found.counters(), found.info());
            // There is room for as many as there are here.
            let _ = writer.insert_with(&key, found.nomatch, found.deadline(), with);
        }
        Arc::clone(&writer.elements)
    }

    /// Without elements; `seed` keeps outsiders from choosing buckets. Keys have `words` words.
    fn new(words: usize, info: bool, seed: u64) -> Elements {
        Elements {
            seed,
            words: words.min(WORDS_MAX),
            info: if info { INFO_WORDS } else { 0 },
            chunks: [const { OnceLock::new() }; CHUNKS],
            indexes: [const { OnceLock::new() }; INDEXES],
            current: AtomicU32::new(0),
            lengths: Default::default(),
            count: AtomicU32::new(0),
        }
    }

    /// How many elements there are, expired ones included that nobody has taken away.
    #[inline]
    pub fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// The longest prefix, as keys have it, shorter than `below` that an element has in its first
    /// or second net.
    #[inline]
    pub fn longest(&self, second: bool, below: u8) -> Option<u8> {
        let [first, other] = &self.lengths;
        if second { other.longest(below) } else { first.longest(below) }
    }

    /// The element of this key.
    #[inline]
    pub fn find(&self, key: &Key) -> Option<Found<'_>> {
        let words = key.words();
        let words = words.get(..self.words)?;
        let hash = self.hash(words);
        let index = self.indexes.get(self.current.load(Acquire) as usize)?.get()?;
        for bucket in buckets_of(index, hash).into_iter().flatten() {
            for slot in &bucket.0 {
                let slot = slot.load(Acquire);
                if slot >> 32 == tag(hash) && slot as u32 != 0 {
                    let found = self.element(slot as u32 - 1).and_then(|e| e.read(words));
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// Every element with its key, for the control core.
    pub fn iter(&self) -> impl Iterator<Item = (Key, Found<'_>)> {
        (0..u32::MAX).map_while(|number| self.element(number)).filter_map(|element| {
            let key = self.key(element);
            let words = key.words();
            Some((key, element.read(words.get(..self.words)?)?))
        })
    }

    fn key(&self, element: Element<'_>) -> Key {
        let mut words = [0; WORDS_MAX];
        for (number, word) in words.iter_mut().take(self.words).enumerate() {
            *word = element.load(KEY + number);
        }
        Key::of_words(words)
    }

    fn hash(&self, words: &[u64]) -> u64 {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let all = words.iter().fold(self.seed, |hash, word| fold(hash ^ word, ODD));
        fold(all ^ self.seed.rotate_left(32), 0xd6e8_feb8_6659_fd93)
    }

    /// Words of an element.
    #[inline]
    const fn stride(&self) -> usize {
        KEY + self.words + self.info
    }

    #[inline]
    fn element(&self, number: u32) -> Option<Element<'_>> {
        let chunk = (number / FIRST + 1).ilog2();
        let within = number - FIRST * ((1 << chunk) - 1);
        let stride = self.stride();
        let start = within as usize * stride;
        Some(Element(self.chunks.get(chunk as usize)?.get()?.get(start..start + stride)?))
    }
}

const fn tag(hash: u64) -> u64 {
    // In a model all collide.
    if cfg!(loom) { 1 } else { hash >> 32 }
}

/// The two buckets of a hash.
#[inline]
fn buckets_of(index: &[Bucket], hash: u64) -> [Option<&Bucket>; 2] {
    // Sizes are powers of two.
    let mask = index.len().wrapping_sub(1);
    let other = fold(hash, 0xa076_1d64_78bd_642f) as usize;
    [index.get(hash as usize & mask), index.get(other & mask)]
}

/// What the control core alone has of a table: the right to change it.
#[derive(Debug)]
pub struct Writer {
    elements: Arc<Elements>,
    free: Vec<u32>,
    used: u32,
    lengths: [Vec<u32>; 2],
}

/// There is no room for another element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl Writer {
    /// An empty table whose keys have `words` words.
    pub fn new(words: usize, seed: u64) -> Writer {
        Writer::with_info(words, false, seed)
    }

    /// The same, whose elements say something of packets if `info`.
    pub fn with_info(words: usize, info: bool, seed: u64) -> Writer {
        let elements = Arc::new(Elements::new(words, info, seed));
        let lengths = [vec![0; 130], vec![0; 130]];
        Writer { elements, free: Vec::new(), used: 0, lengths }
    }

    /// The part that others read.
    pub fn elements(&self) -> &Arc<Elements> {
        &self.elements
    }

    /// Buckets of the index.
    pub fn buckets(&self) -> usize {
        FIRST_BUCKETS << self.elements.current.load(Relaxed)
    }

    /// Adds an element that is not there.
    ///
    /// # Errors
    /// There are as many as can be numbered.
    pub fn insert(
        &mut self,
        key: &Key,
        nomatch: bool,
        deadline: Option<Tick>,
        counters: (u64, u64),
    ) -> Result<(), NoRoom> {
        self.insert_with(key, nomatch, deadline, (counters, Info::default()))
    }

    /// The same with what it says of packets.
    ///
    /// # Errors
    /// Likewise.
    pub fn insert_with(
        &mut self,
        key: &Key,
        nomatch: bool,
        deadline: Option<Tick>,
        (counters, info): ((u64, u64), Info),
    ) -> Result<(), NoRoom> {
        let number = match self.free.pop() {
            Some(number) => number,
            None => self.provide()?,
        };
        let elements = Arc::clone(&self.elements);
        let element = elements.element(number).ok_or(NoRoom)?;
        // It is dead; nobody who still looks at it may take new words for those of its last life.
        fence(Release);
        for (at, word) in key.words().into_iter().take(elements.words).enumerate() {
            element.store(KEY + at, word);
        }
        for (at, word) in info.words().into_iter().take(elements.info).enumerate() {
            element.store(KEY + elements.words + at, word);
        }
        element.store(DEADLINE, kept(deadline));
        element.store(PACKETS, counters.0);
        element.store(BYTES, counters.1);
        let life = (element.load(STATE) & !(LIVES | NOMATCH)).wrapping_add(LIFE);
        let state = life | LIVES | if nomatch { NOMATCH } else { 0 };
        if let Some(word) = element.0.get(STATE) {
            word.store(state, Release);
        }
        self.note_lengths(key, true);
        while !self.enter(key, number) {
            if self.grow().is_err() {
                self.note_lengths(key, false);
                self.bury(number);
                return Err(NoRoom);
            }
        }
        elements.count.store(elements.count().saturating_add(1), Relaxed);
        Ok(())
    }

    /// Makes an element an exception or not.
    pub fn set_nomatch(&mut self, key: &Key, nomatch: bool) {
        let Some(found) = self.elements.find(key) else { return };
        let life = (found.element.load(STATE) & !(LIVES | NOMATCH)).wrapping_add(LIFE);
        if found.nomatch != nomatch
            && let Some(word) = found.element.0.get(STATE)
        {
            word.store(life | LIVES | if nomatch { NOMATCH } else { 0 }, Release);
        }
    }

    /// Takes an element away; false if it is not there.
    pub fn remove(&mut self, key: &Key) -> bool {
        let elements = Arc::clone(&self.elements);
        let words = key.words();
        let Some(words) = words.get(..elements.words) else { return false };
        let hash = elements.hash(words);
        let index = elements.indexes.get(elements.current.load(Relaxed) as usize);
        let Some(index) = index.and_then(|index| index.get()) else { return false };
        for slot in buckets_of(index, hash).into_iter().flatten().flat_map(|bucket| &bucket.0) {
            let value = slot.load(Relaxed);
            let number = (value as u32).wrapping_sub(1);
            if value >> 32 == tag(hash)
                && value as u32 != 0
                && elements.element(number).and_then(|e| e.read(words)).is_some()
            {
                slot.store(0, Release);
                self.bury(number);
                self.note_lengths(key, false);
                elements.count.store(elements.count().saturating_sub(1), Relaxed);
                return true;
            }
        }
        false
    }

    /// Takes away what `over` says; gives the keys.
    pub fn remove_where(&mut self, over: impl Fn(&Key, &Found<'_>) -> bool) -> Vec<Key> {
        let elements = Arc::clone(&self.elements);
        let gone = elements.iter().filter(|(key, found)| over(key, found)).map(|(key, _)| key);
        let gone: Vec<Key> = gone.collect();
        gone.iter().for_each(|key| {
            self.remove(key);
        });
        gone
    }

    /// An element that stands where this key would, to make room for it.
    pub fn victim(&self, key: &Key) -> Option<Key> {
        let elements = &self.elements;
        let words = key.words();
        let hash = elements.hash(words.get(..elements.words)?);
        let index = elements.indexes.get(elements.current.load(Relaxed) as usize)?.get()?;
        let slots = buckets_of(index, hash).into_iter().flatten().flat_map(|bucket| &bucket.0);
        let number = slots.map(|slot| slot.load(Relaxed) as u32).find(|&number| number != 0);
        let element = number.and_then(|number| elements.element(number - 1));
        element
            .map(|element| elements.key(element))
            .or_else(|| elements.iter().map(|(key, _)| key).next())
    }

    /// A number that was never used, with memory behind it.
    fn provide(&mut self) -> Result<u32, NoRoom> {
        let number = self.used;
        let chunk = (number / FIRST + 1).ilog2();
        let cell = self.elements.chunks.get(chunk as usize).ok_or(NoRoom)?;
        let words = (FIRST as usize) << chunk;
        cell.get_or_init(|| {
            let words = words * self.elements.stride();
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        self.used += 1;
        Ok(number)
    }

    /// Puts a number into the index; false if there is no room in it.
    fn enter(&self, key: &Key, number: u32) -> bool {
        let elements = &self.elements;
        let words = key.words();
        let hash = elements.hash(words.get(..elements.words).unwrap_or(&[]));
        let current = elements.current.load(Relaxed) as usize;
        let Some(cell) = elements.indexes.get(current) else { return false };
        let index = cell.get_or_init(|| new_index(current));
        put(index, hash, number)
    }

    /// An index of twice the size, filled before it is used.
    fn grow(&mut self) -> Result<(), NoRoom> {
        let elements = &self.elements;
        let mut size = elements.current.load(Relaxed) as usize + 1;
        loop {
            let cell = elements.indexes.get(size).ok_or(NoRoom)?;
            let index = new_index(size);
            let old = elements.indexes.get(elements.current.load(Relaxed) as usize);
            let slots = old.and_then(|old| old.get()).into_iter().flat_map(|old| old.iter());
            let numbers = slots.flat_map(|bucket| &bucket.0).map(|slot| slot.load(Relaxed) as u32);
            let all = numbers.filter(|&number| number != 0).all(|number| {
                elements.element(number - 1).is_some_and(|element| {
                    let words = elements.key(element).words();
                    let hash = elements.hash(words.get(..elements.words).unwrap_or(&[]));
                    put(&index, hash, number - 1)
                })
            });
            if all {
                let _ = cell.set(index);
                elements.current.store(size as u32, Release);
                return Ok(());
            }
            size += 1;
        }
    }

    fn bury(&mut self, number: u32) {
        if let Some(word) = self.elements.element(number).and_then(|e| e.0.get(STATE)) {
            let life = word.load(Relaxed) & !(LIVES | NOMATCH);
            word.store(life.wrapping_add(LIFE), Release);
        }
        self.free.push(number);
    }

    fn note_lengths(&mut self, key: &Key, there: bool) {
        let lengths = [key.first_prefix, key.second_prefix];
        for ((counts, shared), length) in
            self.lengths.iter_mut().zip(&self.elements.lengths).zip(lengths)
        {
            let Some(count) = counts.get_mut(usize::from(length)) else { continue };
            *count = if there { *count + 1 } else { count.saturating_sub(1) };
            // 0 stands for a part that is no net.
            if length > 0 && *count == u32::from(there) {
                shared.set(length, there);
            }
        }
    }
}

fn new_index(size: usize) -> Box<[Bucket]> {
    (0..FIRST_BUCKETS << size).map(|_| Bucket::default()).collect()
}

fn put(index: &[Bucket], hash: u64, number: u32) -> bool {
    // The emptier of the two keeps both from filling up.
    let room = |bucket: &&Bucket| bucket.0.iter().filter(|s| s.load(Relaxed) == 0).count();
    let bucket = buckets_of(index, hash).into_iter().flatten().max_by_key(room);
    let slot = bucket.and_then(|b| b.0.iter().find(|slot| slot.load(Relaxed) == 0));
    if let Some(slot) = slot {
        slot.store(tag(hash) << 32 | u64::from(number + 1), Release);
    }
    slot.is_some()
}
