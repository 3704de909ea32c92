//! Records: what is known of one conn, in two cache lines (IPv4) or three (IPv6).
//!
//! A record is an array of atomic words with **one writer**, the lcore that owns the conn; the
//! number of the owner is in the record. Everybody may read at any time: each word is whole, but
//! two words may belong to different moments, or, after a delete, to different conns. Who is not
//! the owner therefore uses what it read only to decide whom to ask.
//!
//! ```text
//! line 0   63            48 47            32 31            16 15             0
//!    w0   | original destination            | original source                 |  IPv6: 0
//!    w1   | original dst id | original src id | reply dst id   | reply src id  |
//!    w2   | reply destination               | reply source                    |  IPv6: 0
//!    w3   | status          | proto  | news  | zone original  | zone reply    |
//!    w4   | deadline (tick)                 | mark                            |
//!    w5   | path original   | path reply     | policy generation               |
//!    w6   | next hop orig.  | next hop reply | L3 delta        | L4 delta      |
//!    w7   | extension number + 1            | incarnation     | owner  | store |
//! line 1
//!    w0-w6  the tracker's words (TCP windows of both directions)
//!    w7     era (22) | passed, reply | passed, original | events of expectations (8) | events (16)
//!           | port of MASQUERADE, counted from 1 (16)
//! line 2, IPv6 only
//!    w0-w1  original source        w4-w5  reply source
//!    w2-w3  original destination   w6-w7  reply destination      (upper half first)
//! ```
//!
//! Addresses and ids of IPv4 and the deltas stand as in packets, their first byte lowest
//! ([`KeyV4`]).
//! The news are events that wait for a packet of the conn that gets through, REPLY being bit 0.
//! An established UDP packet over IPv4 reads and writes line 0 alone. The deltas are those of
//! the original direction: what `new - old` of all rewritten words adds to the checksum. The
//! reply direction undoes the same rewrite word for word (source for destination), so its delta
//! is the exact negation, the complement in ones' complement arithmetic, whether the source, the
//! destination or both are translated.
//!
//! A free record keeps its incarnation and lies in a free list, linked through w0 and w1 of
//! line 0; its status and the store's byte are 0. All-zero path, next hop and generation mean
//! "none yet".

use super::chunks::Chunks;
use super::events::{self, Reported};
pub use super::glance::{Glance, LeavingV4, LeavingV6, Wanted};
use super::state::{Direction, Status};
use super::tuple::{KeyV4, Tuple, proto};
use super::zones::Zones;
pub use crate::arch::Line;
use crate::arch::sync::AtomicU64;
use crate::arch::sync::Ordering::{Relaxed, Release};
use crate::arch::{OutOfMemory, prefetch_read, prefetch_write};
use crate::time::Tick;
use crate::wire::address::Address;

/// Lines of an IPv4 record.
pub const V4_LINES: usize = 2;
/// Lines of an IPv6 record.
pub const V6_LINES: usize = 3;

// What the memory bound per conn rests on (with the index: below 192 and 256 bytes).
#[cfg(not(loom))]
const _: () = assert!(size_of::<[Line; V4_LINES]>() == 128);
#[cfg(not(loom))]
const _: () = assert!(size_of::<[Line; V6_LINES]>() == 192);

/// Which of the two number spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Two-line records.
    V4,
    /// Three-line records.
    V6,
}

/// The number of a record: bit 31 says IPv6, bits 0 to 29 count. Bit 30 stays clear here; an
/// index slot uses it to tell the reply entry from the original one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnRef(u32);

impl ConnRef {
    const V6: u32 = 1 << 31;
    const NUMBER: u32 = (1 << 30) - 1;

    /// From a family and a number below 2^30.
    #[inline]
    pub const fn new(family: Family, number: u32) -> ConnRef {
        let v6 = match family {
            Family::V4 => 0,
            Family::V6 => Self::V6,
        };
        ConnRef(v6 | number & Self::NUMBER)
    }

    /// From [`ConnRef::bits`]; bit 30 is ignored.
    #[inline]
    pub const fn from_bits(bits: u32) -> ConnRef {
        ConnRef(bits & (Self::V6 | Self::NUMBER))
    }

    /// As one word, for messages and slots.
    #[inline]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The number within the family.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0 & Self::NUMBER
    }

    /// The number space.
    #[inline]
    pub const fn family(self) -> Family {
        if self.0 & Self::V6 == 0 { Family::V4 } else { Family::V6 }
    }
}

/// A conn named so that its successor in the same record is not mistaken for it. Wraps after
/// 65 536 uses of one record, so whoever acts on one looks at the deadline or tuple again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId {
    /// The record.
    pub conn: ConnRef,
    /// How often the record had been freed when this was taken.
    pub incarnation: u16,
}

/// All records of the process; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Records {
    pub(super) v4: Chunks<V4_LINES>,
    pub(super) v6: Chunks<V6_LINES>,
}

impl Records {
    /// Numbers below `limit` in both families, without memory yet.
    pub(super) fn new(limit: u32) -> Records {
        Records { v4: Chunks::new(limit), v6: Chunks::new(limit) }
    }

    /// Room for that many numbers in both families. Control core only.
    pub(super) fn raise(&self, limit: u32) {
        self.v4.raise(limit);
        self.v6.raise(limit);
    }

    /// Makes memory for the numbers below `upto`. Control core only.
    pub fn ensure_chunks(&self, family: Family, upto: u32) -> Result<(), OutOfMemory> {
        match family {
            Family::V4 => self.v4.ensure(upto),
            Family::V6 => self.v6.ensure(upto),
        }
    }

    /// Keeps memory for `reserve` more records than were ever in use. Control core only, about
    /// once a millisecond: a worker that finds no memory refuses the conn.
    pub fn keep_ahead(&self, family: Family, reserve: u32) -> Result<(), OutOfMemory> {
        match family {
            Family::V4 => self.v4.keep_ahead(reserve),
            Family::V6 => self.v6.keep_ahead(reserve),
        }
    }

    /// Numbers below this one may be in use: the end of a walk.
    pub fn numbers(&self, family: Family) -> u32 {
        match family {
            Family::V4 => self.v4.handed_out(),
            Family::V6 => self.v6.handed_out(),
        }
    }

    /// Bytes of record memory made so far.
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }

    /// The record of a number, in use or not; `None` where no memory has been made.
    #[inline]
    pub fn get(&self, number: ConnRef) -> Option<Conn<'_>> {
        match number.family() {
            Family::V4 => {
                let lines = self.v4.get(number.number())?;
                Some(Conn { lines, addresses: None, number: number.bits().into() })
            }
            Family::V6 => {
                let all = self.v6.get(number.number())?;
                Some(Conn {
                    lines: all.first_chunk()?,
                    addresses: all.last(),
                    number: number.bits().into(),
                })
            }
        }
    }

    /// Brings in what an established packet needs: line 0, the tracker's line if `tracker`, and an
    /// IPv6 record's addresses. `shared` says that another lcore has just met the conn.
    ///
    /// Line 0 is read by every lcore that meets the conn and written by its owner about once per
    /// tick, the tracker's line by each packet: fetched for writing by those who only look at them,
    /// they would move with each packet. A line that nobody else reads comes writable anyway.
    #[inline]
    pub fn prefetch(&self, number: ConnRef, tracker: bool, shared: bool) -> Option<Conn<'_>> {
        let bring = |conn: Conn<'_>| {
            prefetch_read(&conn.lines[0]);
            match (tracker, shared) {
                (true, true) => prefetch_write(&conn.lines[1]),
                (true, false) => prefetch_read(&conn.lines[1]),
                (false, _) => {}
            }
        };
        // Each family apart, as one of them hardly ever comes.
        if number.family() == Family::V4 {
            let lines = self.v4.get(number.number())?;
            let conn = Conn { lines, addresses: None, number: number.bits().into() };
            bring(conn);
            return Some(conn);
        }
        let conn = self.get(number)?;
        bring(conn);
        conn.addresses.inspect(|addresses| prefetch_read(*addresses));
        Some(conn)
    }
}

/// What a record is to say of a conn that begins.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The first packet's tuple.
    pub orig: &'a Tuple,
    /// The answers', of the same family.
    pub reply: &'a Tuple,
    /// The zones that they are looked up in.
    pub zones: [u16; 2],
    /// The words of its tracker.
    pub tracker: [u64; 7],
    /// The era of the rules that it begins under, below [`Conn::ERAS`].
    pub era: u32,
}

/// A conn's record. Getters may be called by anybody, setters by the owner alone.
#[derive(Clone, Copy, Debug)]
pub struct Conn<'a> {
    pub(super) lines: &'a [Line; 2],
    pub(super) addresses: Option<&'a Line>,
    /// As wide as the others: to put a number and its padding into place takes more than a move.
    number: u64,
}

/// Replaces `width` bits at `shift`. A plain load and store: the owner is the only writer.
#[inline(always)]
fn put(word: &AtomicU64, shift: u32, width: u32, value: u64) {
    let mask = ((1u64 << width) - 1) << shift;
    word.store(word.load(Relaxed) & !mask | value << shift & mask, Relaxed);
}

fn set_v6_addresses(line: &Line, direction: Direction, tuple: &Tuple) {
    let (src, dst) = (tuple.src.bits(), tuple.dst.bits());
    let words = [(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64];
    for (word, value) in line.0.iter().skip(4 * direction.index()).zip(words) {
        word.store(value, Relaxed);
    }
}

/// Where a direction's 16 bits lie in a word whose upper half is original, reply.
#[inline(always)]
pub(super) const fn lane(direction: Direction) -> u32 {
    match direction {
        Direction::Original => 48,
        Direction::Reply => 32,
    }
}

impl<'a> Conn<'a> {
    /// In the store's byte: allocated and not yet freed.
    pub(super) const IN_USE: u64 = 1 << 0;
    /// In the store's byte: has an entry in the by-source index.
    const LISTED: u64 = 1 << 1;
    /// In the store's byte: is counted ([`super::counts`]).
    const COUNTED: u64 = 1 << 2;
    /// In the last word of line 1: packets of the original direction have passed; of the reply's
    /// the bit above.
    const PASSED: u64 = 1 << 40;
    /// Where the era begins in that word.
    const ERA: u32 = 42;
    /// So many eras can be told apart.
    pub const ERAS: u32 = 1 << (u64::BITS - Self::ERA);

    #[inline(always)]
    pub(super) fn word(self, i: usize) -> u64 {
        self.lines[0].0[i & 7].load(Relaxed)
    }

    /// The record's number.
    #[inline]
    pub fn number(self) -> ConnRef {
        ConnRef::from_bits(self.number as u32)
    }

    /// Number and incarnation.
    #[inline]
    pub fn id(self) -> ConnId {
        ConnId { conn: self.number(), incarnation: self.incarnation() }
    }

    /// True for an IPv6 conn.
    #[inline]
    pub fn is_v6(self) -> bool {
        self.addresses.is_some()
    }

    /// The tuple of the first packet's direction.
    #[inline]
    pub fn orig(self) -> Tuple {
        self.tuple(Direction::Original)
    }

    /// The tuple of the answers, as they arrive (before their translation is undone).
    #[inline]
    pub fn reply(self) -> Tuple {
        self.tuple(Direction::Reply)
    }

    /// The tuple of a direction.
    #[inline]
    pub fn tuple(self, direction: Direction) -> Tuple {
        let (word, ids) = match direction {
            Direction::Original => (self.word(0), (self.word(1) >> 32) as u32),
            Direction::Reply => (self.word(2), self.word(1) as u32),
        };
        let key = KeyV4 { addresses: word, ids, proto: self.proto() };
        let ended = key.tuple();
        let Some(line) = self.addresses else { return ended };
        let at = 4 * direction.index();
        Tuple { src: Self::v6_address(line, at), dst: Self::v6_address(line, at + 2), ..ended }
    }

    #[inline(always)]
    fn v6_address(line: &Line, at: usize) -> Address {
        let upper = line.0[at & 6].load(Relaxed) as u128;
        Address::v6(upper << 64 | line.0[at & 6 | 1].load(Relaxed) as u128)
    }

    /// Replaces a direction's tuple; its family and protocol must be the record's own.
    #[inline]
    pub fn set_tuple(self, direction: Direction, tuple: &Tuple) {
        let (at, shift) = match direction {
            Direction::Original => (0, 32),
            Direction::Reply => (2, 0),
        };
        put(&self.lines[0].0[1], shift, 32, KeyV4::ids_of(tuple) as u64);
        match self.addresses {
            None => {
                self.lines[0].0[at].store(KeyV4::of(tuple).addresses, Relaxed);
            }
            Some(line) => set_v6_addresses(line, direction, tuple),
        }
    }

    /// Sets the reply tuple, which is how NAT is recorded (`nf_conntrack_alter_reply`). Only
    /// before the conn is confirmed: afterwards the index refers to it.
    #[inline]
    pub fn set_reply(self, tuple: &Tuple) {
        debug_assert!(!self.status().has(Status::CONFIRMED), "the index refers to this tuple");
        self.set_tuple(Direction::Reply, tuple);
    }

    /// Which of the conn's tuples `tuple` in `zone` is, if any; the original one first, which
    /// decides for a packet from an address and port to itself.
    #[inline(always)]
    pub fn matches(self, tuple: &Tuple, zone: u16) -> Option<Direction> {
        let Some(line) = self.addresses else {
            let v4 = tuple.src.is_v4();
            return if v4 { self.matches_v4(&KeyV4::of(tuple), zone) } else { None };
        };
        let ids = KeyV4::ids_of(tuple);
        let (w1, w3) = (self.word(1), self.word(3));
        let same = |at: usize| {
            Self::v6_address(line, at) == tuple.src && Self::v6_address(line, at + 2) == tuple.dst
        };
        if (w3 >> 40) as u8 != tuple.proto {
            None
        } else if (w1 >> 32) as u32 == ids && (w3 >> 16) as u16 == zone && same(0) {
            Some(Direction::Original)
        } else if w1 as u32 == ids && w3 as u16 == zone && same(4) {
            Some(Direction::Reply)
        } else {
            None
        }
    }

    /// The ids of the tuples of both directions ([`KeyV4::ids_of`]).
    #[inline(always)]
    pub fn ids(self) -> [u32; 2] {
        let word = self.word(1);
        [(word >> 32) as u32, word as u32]
    }

    /// The same for an IPv4 tuple in words; `None` for an IPv6 conn.
    #[inline(always)]
    pub fn matches_v4(self, key: &KeyV4, zone: u16) -> Option<Direction> {
        let (w0, w1, w2, w3) = (self.word(0), self.word(1), self.word(2), self.word(3));
        // Bits that differ, all in one word: zero if nothing does.
        let proto = (w3 >> 40) as u8 ^ key.proto;
        let original = w0 ^ key.addresses
            | ((w1 >> 32) as u32 ^ key.ids) as u64
            | ((w3 >> 16) as u16 ^ zone) as u64
            | proto as u64;
        let reply = w2 ^ key.addresses
            | (w1 as u32 ^ key.ids) as u64
            | (w3 as u16 ^ zone) as u64
            | proto as u64;
        if self.addresses.is_some() {
            None
        } else if original == 0 {
            Some(Direction::Original)
        } else if reply == 0 {
            Some(Direction::Reply)
        } else {
            None
        }
    }

    /// A direction's tuple in words, if it is of TCP or UDP over IPv4.
    #[inline(always)]
    pub fn key(self, direction: Direction) -> Option<KeyV4> {
        let proto = self.proto();
        if self.is_v6() || !matches!(proto, proto::TCP | proto::UDP) {
            return None;
        }
        // What leaves has the other direction's tuple turned round.
        let LeavingV4 { addresses, ids, .. } = self.leaving_v4(direction.opposite());
        Some(KeyV4 { addresses, ids, proto }.inverted())
    }

    /// IP protocol number.
    #[inline]
    pub fn proto(self) -> u8 {
        (self.word(3) >> 40) as u8
    }

    /// The zone that a direction is looked up in.
    #[inline]
    pub fn zone(self, direction: Direction) -> u16 {
        match direction {
            Direction::Original => (self.word(3) >> 16) as u16,
            Direction::Reply => self.word(3) as u16,
        }
    }

    /// The zones of both directions.
    #[inline]
    pub fn zones(self) -> Zones {
        let word = self.word(3);
        Zones { original: (word >> 16) as u16, reply: word as u16 }
    }

    /// Status bits.
    #[inline]
    pub fn status(self) -> Status {
        Status((self.word(3) >> 48) as u16)
    }

    /// True if packets of this direction are to find the conn: all but the original ones of a conn
    /// that came second to its tuple.
    #[inline(always)]
    pub fn shows(self, direction: Direction) -> bool {
        direction == Direction::Reply || !self.status().has(Status::NAT_CLASH)
    }

    /// Replaces all status bits.
    #[inline]
    pub fn set_status(self, status: Status) {
        let word = self.word(3) & !(0xffff << 48) | (status.0 as u64) << 48;
        self.lines[0].0[3].store(word, Release);
    }

    /// Sets status bits; stores only if one of them is new.
    #[inline]
    pub fn add_status(self, status: Status) {
        let old = self.status();
        if !old.has(status) {
            self.set_status(old.with(status));
        }
    }

    /// Events of packets that did not get through, to be told with the next that does
    /// (`nf_conntrack_ecache.cache`); none of a new conn.
    #[inline(always)]
    pub fn waiting(self) -> u16 {
        ((self.word(3) >> 32) as u8 as u16) << events::FIRST_CHANGE
    }

    /// Says which events wait: changes that a tracker reports.
    pub fn set_waiting(self, events: u16) {
        put(&self.lines[0].0[3], 32, 8, (events >> events::FIRST_CHANGE) as u64);
    }

    /// When the conn ends unless a packet refreshes it. Meaningful once confirmed.
    #[inline]
    pub fn deadline(self) -> Tick {
        Tick((self.word(4) >> 32) as u32)
    }

    /// Moves the deadline; stores only if it differs, so packets of one tick write once.
    #[inline]
    pub fn set_deadline(self, deadline: Tick) {
        if self.deadline() != deadline {
            put(&self.lines[0].0[4], 32, 32, deadline.0 as u64);
        }
    }

    /// True once the deadline has passed: the conn counts as gone for everybody.
    #[inline]
    pub fn is_expired(self, now: Tick) -> bool {
        self.deadline().has_passed(now)
    }

    /// The mark that rules set and match (`CONNMARK`).
    #[inline]
    pub fn mark(self) -> u32 {
        self.word(4) as u32
    }

    /// Sets the mark.
    #[inline]
    pub fn set_mark(self, mark: u32) {
        put(&self.lines[0].0[4], 0, 32, mark as u64);
    }

    /// The cached path of a direction; 0 for none. Valid only for [`Conn::generation`].
    #[inline]
    pub fn path(self, direction: Direction) -> u16 {
        (self.word(5) >> lane(direction)) as u16
    }

    /// Caches a path.
    #[inline]
    pub fn set_path(self, direction: Direction, path: u16) {
        put(&self.lines[0].0[5], lane(direction), 16, path as u64);
    }

    /// The policy generation that the cached paths were found under.
    #[inline]
    pub fn generation(self) -> u32 {
        self.word(5) as u32
    }

    /// Enters a new generation: both cached paths are forgotten.
    #[inline]
    pub fn set_generation(self, generation: u32) {
        self.lines[0].0[5].store(generation as u64, Relaxed);
    }

    /// The cached next hop of a direction; 0 for none.
    #[inline]
    pub fn next_hop(self, direction: Direction) -> u16 {
        (self.word(6) >> lane(direction)) as u16
    }

    /// Caches a next hop.
    #[inline]
    pub fn set_next_hop(self, direction: Direction, next_hop: u16) {
        put(&self.lines[0].0[6], lane(direction), 16, next_hop as u64);
    }

    /// What a direction's rewrite adds to the IP header's checksum and to the L4 checksum.
    #[inline]
    pub fn deltas(self, direction: Direction) -> (u16, u16) {
        let word = match direction {
            Direction::Original => self.word(6),
            Direction::Reply => !self.word(6),
        };
        (((word >> 16) as u16).swap_bytes(), (word as u16).swap_bytes())
    }

    /// Sets the original direction's deltas; the reply's are their complements.
    #[inline]
    pub fn set_deltas(self, l3: u16, l4: u16) {
        let deltas = (l3.swap_bytes() as u64) << 16 | l4.swap_bytes() as u64;
        put(&self.lines[0].0[6], 0, 32, deltas);
    }

    /// How often this record has been freed, modulo 2^16.
    #[inline]
    pub fn incarnation(self) -> u16 {
        (self.word(7) >> 16) as u16
    }

    /// The lcore that owns the conn; `None` for a record that is free. One look tells both, as the
    /// owner may end its conn, and another begin one here, between two.
    #[inline(always)]
    pub fn owner(self) -> Option<u8> {
        let word = self.word(7);
        (word & Self::IN_USE != 0).then_some((word >> 8) as u8)
    }

    /// The number of the extension block, if the conn has one.
    #[inline]
    pub fn extension(self) -> Option<u32> {
        ((self.word(7) >> 32) as u32).checked_sub(1)
    }

    /// Names the extension block.
    pub(super) fn set_extension(self, number: Option<u32>) {
        put(&self.lines[0].0[7], 32, 32, number.map_or(0, |n| n as u64 + 1));
    }

    /// The tracker's seven words.
    #[inline]
    pub fn tracker_words(self) -> [u64; 7] {
        core::array::from_fn(|i| self.lines[1].0[i & 7].load(Relaxed))
    }

    /// One of the tracker's words (0 to 6; others read as 0).
    #[inline]
    pub fn tracker_word(self, i: usize) -> u64 {
        if i < 7 { self.lines[1].0[i].load(Relaxed) } else { 0 }
    }

    /// Replaces one of the tracker's words (0 to 6; others are ignored).
    #[inline]
    pub fn set_tracker_word(self, i: usize, value: u64) {
        if i < 7 {
            self.lines[1].0[i].store(value, Relaxed);
        }
    }

    /// Replaces all of the tracker's words; stores only those that differ.
    #[inline]
    pub fn set_tracker_words(self, words: &[u64; 7]) {
        for (slot, &word) in self.lines[1].0.iter().zip(words) {
            if slot.load(Relaxed) != word {
                slot.store(word, Relaxed);
            }
        }
    }

    /// The tracker's words 3 and 4, or 5 and 6: what TCP knows of the side that sends in a
    /// direction.
    #[inline(always)]
    pub fn tracker_side(self, direction: Direction) -> [u64; 2] {
        let at = 3 + 2 * direction.index();
        [at, at + 1].map(|i| self.lines[1].0[i & 7].load(Relaxed))
    }

    /// Replaces the first or second one of them.
    #[inline(always)]
    pub fn set_tracker_side(self, direction: Direction, i: usize, value: u64) {
        self.lines[1].0[(3 + 2 * direction.index() + (i & 1)) & 7].store(value, Relaxed);
    }

    /// The port whose address MASQUERADE lent to the conn (`masq_index`).
    #[inline]
    pub fn masqueraded_by(self) -> Option<u8> {
        (self.lines[1].0[7].load(Relaxed) as u16).checked_sub(1).map(|port| port as u8)
    }

    /// Notes the port whose address MASQUERADE lent to the conn.
    #[inline]
    pub fn set_masqueraded_by(self, port: u8) {
        put(&self.lines[1].0[7], 0, 16, port as u64 + 1);
    }

    /// Which events of the conn and of its expectations are reported.
    #[inline]
    pub fn reported(self) -> Reported {
        let word = self.lines[1].0[7].load(Relaxed);
        Reported { conn: (word >> 16) as u16, expectations: (word >> 32) as u8 }
    }

    /// Says which events are reported; none are of a new conn.
    pub fn set_reported(self, reported: Reported) {
        let value = (reported.expectations as u64) << 16 | reported.conn as u64;
        put(&self.lines[1].0[7], 16, 24, value);
    }

    /// The era of the rules that the conn has begun under.
    #[inline]
    pub fn era(self) -> u32 {
        (self.lines[1].0[7].load(Relaxed) >> Self::ERA) as u32
    }

    /// True if the last packet of a direction that rules have judged passed. The first one of a
    /// conn did, or there would be none.
    #[inline]
    pub fn passed(self, direction: Direction) -> bool {
        self.lines[1].0[7].load(Relaxed) & Self::PASSED << direction.index() != 0
    }

    /// Says whether a direction's packet passed; stores only what is new.
    #[inline]
    pub fn set_passed(self, direction: Direction, passed: bool) {
        let (word, bit) = (&self.lines[1].0[7], Self::PASSED << direction.index());
        let before = word.load(Relaxed);
        let now = if passed { before | bit } else { before & !bit };
        if now != before {
            word.store(now, Relaxed);
        }
    }

    /// True if it is counted under some key ([`super::counts`]).
    #[inline]
    pub fn is_counted(self) -> bool {
        self.word(7) & Self::COUNTED != 0
    }

    /// Notes whether it is.
    pub(super) fn set_counted(self, counted: bool) {
        let word = self.word(7) & !Self::COUNTED;
        self.lines[0].0[7].store(word | if counted { Self::COUNTED } else { 0 }, Relaxed);
    }

    /// True if the by-source index has the conn.
    pub(super) fn is_listed(self) -> bool {
        self.word(7) & Self::LISTED != 0
    }

    /// Notes that the by-source index has the conn.
    pub(super) fn set_listed(self) {
        self.lines[0].0[7].store(self.word(7) | Self::LISTED, Relaxed);
    }

    /// Makes the record an unconfirmed conn of `owner` with these words of its tracker. The
    /// incarnation stays.
    #[inline]
    pub(super) fn start(self, new: &Start<'_>, owner: u8) {
        let Start { orig, reply, zones, tracker, era } = new;
        let (to, back) = (KeyV4::of(orig), KeyV4::of(reply));
        let (mut first, mut second) = (to.addresses, back.addresses);
        if let Some(line) = self.addresses {
            (first, second) = (0, 0);
            set_v6_addresses(line, Direction::Original, orig);
            set_v6_addresses(line, Direction::Reply, reply);
        }
        let ids = (to.ids as u64) << 32 | back.ids as u64;
        let zones = (zones[0] as u64) << 16 | zones[1] as u64;
        let proto = (orig.proto as u64) << 40;
        let owner = (owner as u64) << 8 | Self::IN_USE;
        let last = (self.incarnation() as u64) << 16 | owner;
        let words = [first, ids, second, proto | zones, 0, 0, 0, last];
        for (word, value) in self.lines[0].0.iter().zip(words) {
            word.store(value, Relaxed);
        }
        let last = (*era as u64) << Self::ERA | Self::PASSED;
        for (word, value) in self.lines[1].0.iter().zip(tracker.iter().chain(&[last])) {
            word.store(*value, Relaxed);
        }
    }

    /// Marks the record free: no status, the next incarnation.
    pub(super) fn stop(self) {
        self.lines[0].0[3].store(0, Release);
        let incarnation = self.incarnation().wrapping_add(1);
        self.lines[0].0[7].store((incarnation as u64) << 16, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::AtomicU64;

    use proptest::prelude::*;

    use super::*;
    use crate::conntrack::chunks::FreeList;
    use crate::conntrack::tuple::KeyV6;

    fn address(v6: bool, bits: u128) -> Address {
        if v6 { Address::v6(bits | 1 << 127) } else { Address::v4(bits as u32) }
    }

    fn tuple(v6: bool) -> impl Strategy<Value = Tuple> {
        (any::<[u128; 2]>(), any::<[u16; 2]>(), any::<u8>()).prop_map(
            move |([src, dst], [src_id, dst_id], proto)| Tuple {
                src: address(v6, src),
                dst: address(v6, dst),
                src_id,
                dst_id,
                proto,
            },
        )
    }

    fn pair_of_tuples() -> impl Strategy<Value = (Tuple, Tuple)> {
        any::<bool>().prop_flat_map(|v6| {
            (tuple(v6), tuple(v6))
                .prop_map(|(orig, reply)| (orig, Tuple { proto: orig.proto, ..reply }))
        })
    }

    fn records() -> Records {
        let records = Records::new(4);
        records.ensure_chunks(Family::V4, 4).unwrap();
        records.ensure_chunks(Family::V6, 4).unwrap();
        records
    }

    fn record<'a>(records: &'a Records, orig: &Tuple) -> Conn<'a> {
        let family = if orig.is_v6() { Family::V6 } else { Family::V4 };
        records.get(ConnRef::new(family, 2)).unwrap()
    }

    fn start(conn: Conn<'_>, (orig, reply): (&Tuple, &Tuple), zones: [u16; 2], owner: u8) {
        conn.start(&Start { orig, reply, zones, tracker: [0; 7], era: Conn::ERAS - 2 }, owner);
    }

    /// Every field as one value, to see which ones a setter changes.
    fn everything(conn: Conn<'_>) -> Vec<u64> {
        let (original, reply) = (Direction::Original, Direction::Reply);
        let mut all = vec![
            conn.status().0 as u64,
            conn.waiting() as u64,
            conn.deadline().0 as u64,
            conn.mark() as u64,
            conn.path(original) as u64,
            conn.path(reply) as u64,
            conn.generation() as u64,
            conn.next_hop(original) as u64,
            conn.next_hop(reply) as u64,
            conn.deltas(original).0 as u64,
            conn.deltas(original).1 as u64,
            conn.extension().map_or(u64::MAX, |n| n as u64),
        ];
        all.extend(conn.tracker_words());
        all.push(conn.passed(original) as u64);
        all.push(conn.passed(reply) as u64);
        all.push(conn.reported().conn as u64 | (conn.reported().expectations as u64) << 16);
        all.push(conn.masqueraded_by().map_or(u64::MAX, u64::from));
        all
    }

    proptest! {
        #[test]
        fn no_field_touches_another(
            (orig, reply) in pair_of_tuples(),
            zones: [u16; 2],
            values in prop::collection::vec((0..23usize, any::<u64>()), 1..60),
        ) {
            let records = records();
            let conn = record(&records, &orig);
            start(conn, (&orig, &reply), zones, 3);
            let (original, answer) = (Direction::Original, Direction::Reply);
            let mut wanted = everything(conn);
            for (field, value) in values {
                wanted[field] = match field {
                    0 => { conn.set_status(Status(value as u16)); value as u16 as u64 }
                    1 => {
                        conn.set_waiting((value as u8 as u16) << 3);
                        (value as u8 as u64) << 3
                    }
                    2 => { conn.set_deadline(Tick(value as u32)); value as u32 as u64 }
                    3 => { conn.set_mark(value as u32); value as u32 as u64 }
                    4 => { conn.set_path(original, value as u16); value as u16 as u64 }
                    5 => { conn.set_path(answer, value as u16); value as u16 as u64 }
                    6 => {
                        conn.set_generation(value as u32);
                        (wanted[4], wanted[5]) = (0, 0);
                        value as u32 as u64
                    }
                    7 => { conn.set_next_hop(original, value as u16); value as u16 as u64 }
                    8 => { conn.set_next_hop(answer, value as u16); value as u16 as u64 }
                    9 => {
                        conn.set_deltas(value as u16, wanted[10] as u16);
                        value as u16 as u64
                    }
                    10 => {
                        conn.set_deltas(wanted[9] as u16, value as u16);
                        value as u16 as u64
                    }
                    11 => { conn.set_extension(Some(value as u32 >> 1)); value as u32 as u64 >> 1 }
                    19 => { conn.set_passed(original, value & 1 == 1); value & 1 }
                    20 => { conn.set_passed(answer, value & 1 == 1); value & 1 }
                    21 => {
                        let (told, expectations) = (value as u16, (value >> 16) as u8);
                        conn.set_reported(Reported { conn: told, expectations });
                        value & 0xff_ffff
                    }
                    22 => { conn.set_masqueraded_by(value as u8); value & 0xff }
                    i => { conn.set_tracker_word(i - 12, value); value }
                };
                prop_assert_eq!(everything(conn), &wanted[..]);
            }
            prop_assert_eq!((conn.orig(), conn.reply(), conn.owner()), (orig, reply, Some(3)));
            prop_assert_eq!([conn.zone(original), conn.zone(answer)], zones);
            prop_assert_eq!(conn.proto(), orig.proto);
            prop_assert_eq!((conn.era(), conn.is_listed()), (Conn::ERAS - 2, false));
            let (l3, l4) = conn.deltas(original);
            prop_assert_eq!(conn.deltas(answer), (!l3, !l4));

            let words: [u64; 7] = core::array::from_fn(|i| i as u64);
            conn.set_tracker_words(&words);
            prop_assert_eq!(conn.tracker_words(), words);
            conn.set_status(Status::default());
            conn.set_reply(&orig);
            prop_assert_eq!((conn.orig(), conn.reply()), (orig, orig));
        }

        /// And how its packets leave is the other tuple turned round.
        #[test]
        fn a_glance_at_an_ipv6_conn_tells_what_a_look_does(
            (orig, reply) in (tuple(true), tuple(true)),
            zone: u16,
            which in 0..3usize,
            (flip, bit) in (prop::option::of(0..4usize), 0..16u32),
            deltas: (u16, u16),
        ) {
            let records = records();
            let reply = Tuple { proto: orig.proto, ..reply };
            // Some differ in nothing but one end.
            let reply = if which == 2 { Tuple { dst_id: reply.dst_id, ..orig } } else { reply };
            let conn = record(&records, &orig);
            start(conn, (&orig, &reply), [zone; 2], 3);
            conn.add_status(Status::CONFIRMED);
            conn.set_generation(9);
            conn.set_path(Direction::Original, 5);
            conn.set_path(Direction::Reply, 6);
            conn.set_deadline(Tick(1000));
            conn.set_deltas(deltas.0, deltas.1);
            let mut near = if which == 0 { orig } else { reply };
            match flip {
                Some(0) => near.src = address(true, near.src.bits() ^ 1 << (7 * bit)),
                Some(1) => near.dst = address(true, near.dst.bits() ^ 1 << (7 * bit)),
                Some(2) => near.src_id ^= 1 << bit,
                Some(_) => near.dst_id ^= 1 << bit,
                None => {}
            }
            let (src, dst) = (near.src.bits(), near.dst.bits());
            let addresses = [src >> 64, src, dst >> 64, dst].map(|word| word as u64);
            let key = KeyV6 { addresses, ids: KeyV4::ids_of(&near), proto: near.proto };
            let found = conn.matches(&near, zone);
            let glance = |wanted: &Wanted| conn.glance(conn.nearer_v6(&key), key.proto, wanted);
            let seen = glance(&Wanted::new(zone, 9, 3, Tick(999)));
            prop_assert_eq!(seen.map(|seen| seen.direction), found);
            if let Some((seen, direction)) = seen.zip(found) {
                prop_assert_eq!(seen.path, 5 + direction.index() as u16);
                let leaving = conn.leaving_v6(direction);
                let to = conn.tuple(direction.opposite());
                let (src, dst) = (to.dst.bits(), to.src.bits());
                let addresses = [src >> 64, src, dst >> 64, dst].map(|word| word as u64);
                prop_assert_eq!(leaving.addresses, addresses);
                let turned = Tuple { src_id: to.dst_id, dst_id: to.src_id, ..to };
                prop_assert_eq!(leaving.ids, KeyV4::ids_of(&turned));
                prop_assert_eq!(leaving.l4.swap_bytes(), conn.deltas(direction).1);
            }
            for wanted in [
                Wanted::new(zone ^ 1, 9, 3, Tick(999)),
                Wanted::new(zone, 8, 3, Tick(999)),
                Wanted::new(zone, 9, 4, Tick(999)),
                Wanted::new(zone, 9, 3, Tick(1000)),
                Wanted::NONE,
            ] {
                prop_assert!(glance(&wanted).is_none());
            }
            let (_, differs) = conn.nearer(&KeyV4 { addresses: 0, ids: key.ids, proto: key.proto });
            prop_assert!(differs != 0);
        }

        #[test]
        fn a_record_matches_its_two_tuples_in_their_zones_only(
            (orig, reply) in pair_of_tuples(),
            (zone, other) in (any::<u16>(), any::<u16>()),
            flip in 0..7usize,
            bit in 0..128u32,
        ) {
            let records = records();
            let conn = record(&records, &orig);
            start(conn, (&orig, &reply), [zone, other], 0);
            prop_assert_eq!(conn.matches(&orig, zone), Some(Direction::Original));
            if (orig, zone) != (reply, other) {
                prop_assert_eq!(conn.matches(&reply, other), Some(Direction::Reply));
            }
            // One bit differs, in whichever field.
            let mut near = orig;
            let mut zone = zone;
            let low = 1 << (bit % if orig.is_v6() { 120 } else { 32 });
            match flip {
                0 => near.src = address(orig.is_v6(), orig.src.bits() ^ low),
                1 => near.dst = address(orig.is_v6(), orig.dst.bits() ^ low),
                2 => near.src_id ^= 1 << (bit % 16),
                3 => near.dst_id ^= 1 << (bit % 16),
                4 => near.proto ^= 1 << (bit % 8),
                5 => zone ^= 1 << (bit % 16),
                // The same low bits in the other family.
                _ => {
                    near.src = address(!orig.is_v6(), orig.src.bits());
                    near.dst = address(!orig.is_v6(), orig.dst.bits());
                }
            }
            let wanted = ((near, zone) == (reply, other)).then_some(Direction::Reply);
            prop_assert_eq!(conn.matches(&near, zone), wanted);
        }
    }

    #[test]
    fn freeing_counts_the_incarnation_and_clears_the_status() {
        let records = records();
        let orig = Tuple { src: Address::v4(1), dst: Address::v4(2), ..Tuple::default() };
        let conn = record(&records, &orig);
        for incarnation in 0..3u16 {
            start(conn, (&orig, &orig), [0, 0], 200);
            assert_eq!((conn.incarnation(), conn.owner()), (incarnation, Some(200)));
            assert_eq!(conn.status(), Status::default());
            conn.add_status(Status::CONFIRMED);
            conn.set_mark(9);
            conn.set_listed();
            conn.set_counted(true);
            assert!(conn.is_listed() && conn.is_counted());
            conn.set_counted(false);
            assert!(conn.is_listed() && !conn.is_counted());
            conn.set_counted(true);
            conn.stop();
            assert!(conn.owner().is_none() && !conn.is_listed() && !conn.is_counted());
            assert_eq!(conn.status(), Status::default());
        }
    }

    #[test]
    fn numbers_keep_their_family() {
        for (family, number) in [(Family::V4, 0), (Family::V6, (1 << 30) - 1)] {
            let conn = ConnRef::new(family, number);
            assert_eq!((conn.family(), conn.number()), (family, number));
            assert_eq!(ConnRef::from_bits(conn.bits() | 1 << 30), conn);
        }
    }

    #[test]
    fn free_lists_of_two_lcores_never_share_a_record() {
        let chunks = Chunks::<V4_LINES>::new(4 * FreeList::HOARD);
        chunks.ensure(u32::MAX).unwrap();
        let holders: Vec<AtomicU64> = (0..chunks.limit()).map(|_| AtomicU64::new(0)).collect();
        let lcore = |me: u64| {
            let (chunks, holders) = (&chunks, &holders);
            move || {
                let mut free = FreeList::default();
                let mut held = Vec::new();
                for round in 0..60usize {
                    // Waves of growing and shrinking make whole batches cross the shelf.
                    let wanted = if (round + me as usize).is_multiple_of(2) { 330 } else { 10 };
                    while held.len() < wanted {
                        let Some(number) = free.pop(chunks) else { break };
                        assert_eq!(holders[number as usize].swap(me, Relaxed), 0, "held twice");
                        held.push(number);
                    }
                    while held.len() > wanted {
                        let number = held.swap_remove(0);
                        holders[number as usize].store(0, Relaxed);
                        free.push(chunks, number);
                    }
                    std::thread::yield_now();
                }
                held.len()
            }
        };
        std::thread::scope(|scope| {
            let held = [scope.spawn(lcore(1)), scope.spawn(lcore(2))].map(|t| t.join().unwrap());
            assert!(held.into_iter().all(|n| n > 0));
        });
        // How much of it both needed at once is chance.
        assert!((330..=chunks.limit()).contains(&chunks.handed_out()), "{}", chunks.handed_out());
    }

    #[test]
    fn memory_is_made_ahead_in_chunks_and_never_beyond_the_limit() {
        use super::super::chunks::CHUNK;
        let chunks = Chunks::<1>::new(CHUNK + 10);
        assert!(chunks.get(0).is_none() && FreeList::default().pop(&chunks).is_none());
        chunks.keep_ahead(1).unwrap();
        assert!(chunks.get(CHUNK - 1).is_some() && chunks.get(CHUNK).is_none());
        chunks.keep_ahead(u32::MAX).unwrap();
        assert!(chunks.get(CHUNK + 9).is_some() && chunks.get(CHUNK + 10).is_none());
        assert_eq!(chunks.bytes(), (CHUNK as usize + 10) * 64);
    }

    #[test]
    fn a_raised_limit_gives_more_numbers_and_none_without_memory() {
        use super::super::chunks::{CHUNK, PIECES_MAX};
        for first in [0, 10, CHUNK, CHUNK + 100] {
            let chunks = Chunks::<1>::new(first);
            let mut free = FreeList::default();
            chunks.ensure(u32::MAX).unwrap();
            for _ in 0..first {
                assert!(chunks.get(free.pop(&chunks).unwrap()).is_some());
            }
            assert!(free.pop(&chunks).is_none());
            let wanted = 2 * CHUNK + 50;
            chunks.raise(wanted);
            assert!(free.pop(&chunks).is_none(), "no memory yet");
            chunks.ensure(wanted).unwrap();
            let mut more = HashSet::new();
            while let Some(number) = free.pop(&chunks) {
                assert!(chunks.get(number).is_some() && more.insert(number));
            }
            let all = first as usize + more.len();
            assert!((wanted as usize..wanted as usize + CHUNK as usize).contains(&all), "{all}");
            assert_eq!(chunks.bytes(), all * 64);
            let limit = chunks.limit();
            chunks.raise(wanted - 1);
            assert_eq!(chunks.limit(), limit, "never lowered");
            chunks.raise(u32::MAX);
            assert_eq!(chunks.limit(), PIECES_MAX);
        }
    }
}
