//! `-m recent`: addresses that were seen of late, and when (`recent_mt`).
//!
//! Addresses are kept by name, IPv4 and IPv6 together: rules that give one name share a [`Table`].
//! The first of them decides its mask; a rule that asks for more hits than an entry has stamps
//! empties the table and makes it larger, and a restored file that names it again leaves it as it
//! is. All that is the kernel's. A table keeps [`Table::ENTRIES`] addresses (`ip_list_tot`); a
//! further one takes the place of that which was not seen for longest.
//!
//! Stamps are nanoseconds since 1970; the kernel's are jiffies, and where it shows them
//! (`/proc/net/xt_recent/NAME`) these are shown in milliseconds.
//!
//! An entry's stamps are a ring. They come in order of time, so whether there were enough hits of
//! late is one look: at the stamp so many back. How many there have been is a word that changes by
//! compare-and-swap, and each hit has its own place in the ring, so that no worker's hit is lost.
//! What another worker is about to write may not be seen yet: packets that are judged at one moment
//! may not count for each other. The word names the slot's tag too, so that the count of an address
//! is never taken for that of the one which takes its slot.

use super::super::facts::Facts;
use super::super::kept::{Apart, Kept, TRIES};
use super::super::slots::Slots;
use super::super::test::Answer;
use crate::arch::sync::{AtomicU64, Ordering::Relaxed};
use crate::wire::address::Address;

const NS_PER_SEC: u64 = 1_000_000_000;

/// What a rule does with the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// `--set`: the address is entered, or stamped again.
    Set,
    /// `--rcheck`: is it there?
    Check,
    /// `--update`: the same, and stamped again if the rule holds.
    Update,
    /// `--remove`: is it there? It is taken out.
    Remove,
}

/// `-m recent` (`struct xt_recent_mtinfo_v1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// `--name`.
    pub name: String,
    /// What is done, and whether `!` was written.
    pub ask: super::Maybe<Ask>,
    /// `--rdest`: the destination's address, not the source's.
    pub dst: bool,
    /// `--mask`: bits of the family's address that count, if the table is made by this rule.
    pub mask: u128,
    /// `--seconds`: 0 for any time.
    pub secs: u32,
    /// `--reap`: an entry that was not seen in these seconds is taken out.
    pub reap: bool,
    /// `--hitcount`: 0 for one.
    pub hits: u32,
    /// `--rttl`: the TTL has to be the entry's, too.
    pub ttl: bool,
}

impl Recent {
    /// One more than the most hits that can be asked for (`XT_RECENT_MAX_NSTAMPS`).
    pub const HITS_END: u32 = 1 << 16;

    /// Stamps that an entry needs for this rule (`recent_mt_check`).
    pub(in crate::rules) fn stamps(&self) -> u32 {
        match self.hits {
            0 => 32,
            hits => hits.min(Recent::HITS_END).next_power_of_two(),
        }
    }
}

/// What is kept of an address.
#[derive(Debug)]
struct Entry {
    /// Hits so far in the low half, and the high half of the tag that they are of.
    count: AtomicU64,
    /// The last stamp.
    last: AtomicU64,
    /// The address, to be shown.
    who: [AtomicU64; 2],
    /// Its TTL at the last stamp, and [`V6`].
    ttl: AtomicU64,
}

/// The address is one of IPv6.
const V6: u64 = 1 << 8;

/// The addresses of a name.
#[derive(Debug)]
pub struct Table {
    /// Bits that count, of an IPv6 address; IPv4 has the first 32.
    mask: u128,
    slots: Slots,
    entries: Box<[Entry]>,
    /// A ring for each slot.
    stamps: Box<[AtomicU64]>,
    /// Stamps of a ring, a power of two.
    ring: u32,
}

/// An entry as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub address: Address,
    /// The TTL; 0 for one that was entered by hand.
    pub ttl: u8,
    /// The last stamp, in nanoseconds since 1970.
    pub last_ns: u64,
    /// Where the next stamp comes, from 1 on; shown as `oldest_pkt`.
    pub next: u32,
    /// All stamps in the order of the ring.
    pub stamps_ns: Vec<u64>,
}

impl Apart for Entry {
    fn apart(&self) -> Entry {
        let [high, low] = &self.who;
        Entry {
            count: self.count.apart(),
            last: self.last.apart(),
            who: [high.apart(), low.apart()],
            ttl: self.ttl.apart(),
        }
    }

    fn forget(&self) {
        self.count.forget();
    }
}

impl Apart for Table {
    fn apart(&self) -> Table {
        Table {
            slots: self.slots.apart(),
            entries: self.entries.iter().map(Apart::apart).collect(),
            stamps: self.stamps.iter().map(Apart::apart).collect(),
            ..*self
        }
    }

    fn forget(&self) {
        self.flush();
    }
}

impl Table {
    /// Addresses of a table (`ip_list_tot`).
    pub const ENTRIES: u32 = 100;

    /// An empty one, with the mask of `rule`, for `stamps` hits of an address: a power of two.
    pub(in crate::rules) fn new(rule: &Recent, v6: bool, stamps: u32) -> Table {
        let mask = match (v6, rule.mask as u32) {
            (true, _) => rule.mask,
            (false, u32::MAX) => u128::MAX,
            (false, mask) => u128::from(mask) << 96,
        };
        Table::with_mask(mask, stamps)
    }

    fn with_mask(mask: u128, stamps: u32) -> Table {
        let slots = Slots::new(Table::ENTRIES);
        let word = || AtomicU64::new(0);
        let who = || [word(), word()];
        let entry = |_| Entry { count: word(), last: word(), who: who(), ttl: word() };
        let entries = (0..slots.len()).map(entry).collect();
        let words = slots.len() * stamps as usize;
        let stamps_all = (0..words).map(|_| word()).collect();
        Table { mask, slots, entries, stamps: stamps_all, ring: stamps }
    }

    /// The same without entries, with room for more stamps.
    pub(in crate::rules) fn enlarged(&self, stamps: u32) -> Table {
        Table::with_mask(self.mask, stamps)
    }

    /// Stamps that an entry has room for.
    pub(in crate::rules) fn stamps(&self) -> u32 {
        self.ring
    }

    fn masked(&self, address: Address) -> Address {
        match address.is_v4() {
            true => Address::v4(address.v4_bits() & (self.mask >> 96) as u32),
            false => Address::v6(address.bits() & self.mask),
        }
    }

    fn tag(&self, address: Address) -> u64 {
        let bits = address.bits();
        self.slots.tag([(bits >> 64) as u64, bits as u64, address.is_v4().into()])
    }

    /// How often an address was seen, 0 for one that is not there.
    fn hits(&self, slot: usize, tag: u64) -> u32 {
        let count = self.entries.get(slot).map_or(0, |entry| entry.count.load(Relaxed));
        if count >> 32 == tag >> 32 { count as u32 } else { 0 }
    }

    fn stamp_at(&self, slot: usize, number: u32) -> Option<&AtomicU64> {
        let place = (number & (self.ring - 1)) as usize;
        self.stamps.get(slot * self.ring as usize + place)
    }

    /// Stamps an entry (`recent_entry_update`).
    fn stamp(&self, slot: usize, tag: u64, now_ns: u64) {
        let Some(entry) = self.entries.get(slot) else { return };
        let mut count = entry.count.load(Relaxed);
        for _ in 0..TRIES {
            let before = if count >> 32 == tag >> 32 { count as u32 } else { 0 };
            // Far from the end of the word, and at the same place of the ring.
            let before = if before >> 31 == 0 { before } else { before - (1 << 30) };
            let after = tag >> 32 << 32 | u64::from(before + 1);
            match entry.count.compare_exchange_weak(count, after, Relaxed, Relaxed) {
                Ok(_) => {
                    if let Some(stamp) = self.stamp_at(slot, before) {
                        stamp.store(now_ns, Relaxed);
                    }
                    entry.last.store(now_ns, Relaxed);
                    return;
                }
                Err(seen) => count = seen,
            }
        }
    }

    /// Enters an address (`recent_entry_init`); false if there is no room even so.
    fn enter(&self, address: Address, tag: u64, ttl: u8, now_ns: u64) -> bool {
        let full = || {
            self.remove_oldest(|_, _| true);
            self.slots.claim(tag, |_| false)
        };
        let crowded = || self.slots.claim(tag, |_| true);
        let slot = self.slots.claim(tag, |_| false).or_else(full).or_else(crowded);
        let Some((slot, entry)) = slot.and_then(|slot| Some((slot, self.entries.get(slot)?)))
        else {
            return false;
        };
        entry.last.store(now_ns, Relaxed);
        let bits = address.bits();
        for (word, half) in entry.who.iter().zip([bits >> 64, bits]) {
            word.store(half as u64, Relaxed);
        }
        let family = if address.is_v4() { 0 } else { V6 };
        entry.ttl.store(u64::from(ttl) | family, Relaxed);
        self.stamp(slot, tag, now_ns);
        true
    }

    fn remove(&self, slot: usize, tag: u64) {
        if let Some(entry) = self.entries.get(slot) {
            entry.count.store(0, Relaxed);
        }
        self.slots.release(slot, tag);
    }

    /// Takes out the entry that was not seen for longest, if that is so of `last`.
    fn remove_oldest(&self, wanted: impl Fn(usize, u64) -> bool) {
        let all = self.entries.iter().enumerate();
        let there = all.filter(|(slot, _)| self.slots.at(*slot) != 0);
        let stamped = there.map(|(slot, entry)| (entry.last.load(Relaxed), slot));
        if let Some((last, slot)) = stamped.min()
            && wanted(slot, last)
        {
            self.remove(slot, self.slots.at(slot));
        }
    }

    /// True if there were enough hits since `since`.
    fn hit_often(&self, rule: &Recent, slot: usize, tag: u64, since_ns: u64) -> bool {
        let count = self.hits(slot, tag);
        let wanted = rule.hits.max(1);
        if count.min(self.ring) < wanted {
            return false;
        }
        let stamp = self.stamp_at(slot, count.wrapping_sub(wanted));
        rule.secs == 0 || stamp.is_some_and(|stamp| stamp.load(Relaxed) >= since_ns)
    }

    /// `recent_mt`.
    fn judge(&self, rule: &Recent, facts: &Facts<'_>) -> Answer {
        let now = facts.around.now().unix_ns;
        let address = self.masked(if rule.dst { facts.dst } else { facts.src });
        let (tag, ttl) = (self.tag(address), ttl(facts));
        let not = rule.ask.not;
        let known = |slot: &usize| {
            let its = self.entries.get(*slot).map_or(0, |entry| entry.ttl.load(Relaxed) as u8);
            !rule.ttl || ttl == 0 || its == 0 || its == ttl
        };
        let Some(slot) = self.slots.find(tag).filter(known) else {
            if rule.ask.value != Ask::Set {
                return not.into();
            }
            let entered = self.enter(address, tag, ttl, now);
            return if entered { (!not).into() } else { Answer::Drop };
        };
        let since = now.saturating_sub(u64::from(rule.secs) * NS_PER_SEC);
        let holds = match rule.ask.value {
            Ask::Set => !not,
            Ask::Remove => {
                self.remove(slot, tag);
                !not
            }
            Ask::Check | Ask::Update => self.hit_often(rule, slot, tag, since) != not,
        };
        let stamps = rule.ask.value == Ask::Set || rule.ask.value == Ask::Update && holds;
        if rule.reap && matches!(rule.ask.value, Ask::Check | Ask::Update) {
            self.remove_oldest(|oldest, last| !(oldest == slot && stamps) && last < since);
        }
        if stamps && let Some(entry) = self.entries.get(slot) {
            self.stamp(slot, tag, now);
            let family = entry.ttl.load(Relaxed) & V6;
            entry.ttl.store(u64::from(ttl) | family, Relaxed);
        }
        holds.into()
    }

    /// Enters an address by hand, or stamps it.
    pub fn add(&self, address: Address, now_ns: u64) {
        let tag = self.tag(address);
        match self.slots.find(tag) {
            Some(slot) => self.stamp(slot, tag, now_ns),
            None => drop(self.enter(address, tag, 0, now_ns)),
        }
    }

    /// Takes an address out.
    pub fn delete(&self, address: Address) {
        let tag = self.tag(address);
        if let Some(slot) = self.slots.find(tag) {
            self.remove(slot, tag);
        }
    }

    /// Takes all addresses out.
    pub fn flush(&self) {
        for slot in 0..self.slots.len() {
            self.remove(slot, self.slots.at(slot));
        }
    }

    /// All entries.
    pub fn seen(&self) -> Vec<Seen> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(slot, entry)| self.shown(slot, entry)).collect()
    }

    fn shown(&self, slot: usize, entry: &Entry) -> Option<Seen> {
        let count = self.hits(slot, self.slots.at(slot));
        let last = count.checked_sub(1)?;
        let [high, low] = &entry.who;
        let bits = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
        let ttl = entry.ttl.load(Relaxed);
        let stamp = |number| self.stamp_at(slot, number).map(|stamp| stamp.load(Relaxed));
        Some(Seen {
            address: if ttl & V6 == 0 { Address::v4(bits as u32) } else { Address::v6(bits) },
            ttl: ttl as u8,
            last_ns: stamp(last)?,
            next: (last & (self.ring - 1)) + 1,
            stamps_ns: (0..count.min(self.ring)).filter_map(stamp).collect(),
        })
    }
}

/// The TTL or hop limit as it came: behind the hop that the gateway takes off it is one less.
fn ttl(facts: &Facts<'_>) -> u8 {
    let at = if facts.src.is_v4() { 8 } else { 7 };
    let ttl = facts.packet().get(at).copied().unwrap_or(0);
    let forwarded = facts.in_port.is_some() && facts.out_port.is_some();
    ttl.wrapping_add(forwarded.into())
}

/// A rule and the table of its name.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rules) struct Named {
    pub(in crate::rules) rule: Recent,
    pub(in crate::rules) table: Kept<Table>,
}

impl Named {
    /// The packet's answer.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        self.table.judge(&self.rule, facts)
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::thread;

    use proptest::prelude::*;

    use super::super::Maybe;
    use super::*;
    use crate::rules::facts::{Around, CtFacts, PlaceOf, PortId};
    use crate::time::Now;

    struct Clock(Cell<u64>);

    impl Around for Clock {
        fn now(&self) -> Now {
            Now { unix_ns: self.0.get(), ..Now::default() }
        }

        fn place_of(&self, _: Address, _: Option<PortId>) -> PlaceOf {
            PlaceOf::NoRoute
        }

        fn random(&self) -> u32 {
            0
        }

        fn segments(&self, _: &mut dyn FnMut(&[u8]) -> bool) {}
    }

    const START: u64 = 1_700_000_000_000_000_000;

    fn clock() -> Clock {
        Clock(Cell::new(START))
    }

    fn facts<'a>(clock: &'a Clock, src: u32, packet: &'a [u8]) -> Facts<'a> {
        Facts {
            in_port: Some(PortId(0)),
            out_port: None,
            src: Address::v4(src),
            dst: Address::v4(0x7f00_0001),
            proto: 1,
            fragment_offset: 0,
            src_port: 0,
            dst_port: 0,
            tcp_flags: 0,
            icmp_type: 8,
            icmp_code: 0,
            l4_valid: true,
            length: 84,
            mark: 0,
            frame: packet,
            l3_at: 0,
            l4_at: 0,
            around: clock,
            ct: CtFacts::NONE,
        }
    }

    fn packet(ttl: u8) -> [u8; 20] {
        core::array::from_fn(|at| if at == 8 { ttl } else { 0 })
    }

    fn rule(ask: Maybe<Ask>) -> Recent {
        let (name, mask) = ("r".to_owned(), u32::MAX.into());
        Recent { name, ask, dst: false, mask, secs: 0, reap: false, hits: 0, ttl: false }
    }

    fn holds(table: &Table, rule: &Recent, clock: &Clock, src: u32, ttl: u8) -> bool {
        table.judge(rule, &facts(clock, src, &packet(ttl))) == Answer::Holds
    }

    fn addresses(table: &Table) -> Vec<u32> {
        let mut all: Vec<u32> = table.seen().iter().map(|seen| seen.address.v4_bits()).collect();
        all.sort_unstable();
        all
    }

    /// Taken from Linux 6.18: of five pings the third and later ones are hits of three; the mask is
    /// the table's; a larger table is an empty one.
    #[test]
    fn counts_and_stamps_are_the_kernel_s() {
        let clock = clock();
        let set = Recent { mask: 0xffff_ff00, ..rule(Maybe::is(Ask::Set)) };
        let check = Recent { hits: 3, ..rule(Maybe::is(Ask::Check)) };
        let table = Table::new(&set, false, set.stamps());
        let hits = (0..5).filter(|i| {
            clock.0.set(START + i);
            assert!(holds(&table, &set, &clock, 0x7f00_0001, 64));
            holds(&table, &check, &clock, 0x7f00_0001, 64)
        });
        assert_eq!(hits.count(), 3);
        table.add(Address::v4(0x0102_0304), START);
        let mut seen = table.seen();
        seen.sort_by_key(|seen| seen.address);
        let stamps_ns: Vec<u64> = (START..START + 5).collect();
        let (address, last_ns) = (Address::v4(0x7f00_0000), START + 4);
        assert_eq!(seen[1], Seen { address, ttl: 64, last_ns, next: 5, stamps_ns });
        assert_eq!((seen[0].address, seen[0].ttl), (Address::v4(0x0102_0304), 0));
        let larger = table.enlarged(64);
        assert!(larger.seen().is_empty());
        assert!((0..70).all(|_| holds(&larger, &set, &clock, 1, 64)));
        let seen = larger.seen();
        assert_eq!((seen[0].next, seen[0].stamps_ns.len()), (6, 64), "the ring has gone round");
        table.delete(Address::v4(0x7f00_0000));
        assert_eq!(addresses(&table), [0x0102_0304]);
        table.flush();
        assert!(table.seen().is_empty());
    }

    /// Taken from Linux 6.18: an address set with a TTL of 9 is found with `--rttl` by packets that
    /// have it; one that is not found is not updated by a negated rule either.
    #[test]
    fn a_ttl_is_part_of_who_is_looked_for() {
        let clock = clock();
        let table = Table::new(&rule(Maybe::is(Ask::Set)), false, 32);
        assert!(holds(&table, &rule(Maybe::is(Ask::Set)), &clock, 1, 9));
        let check = Recent { ttl: true, ..rule(Maybe::is(Ask::Check)) };
        assert!(holds(&table, &check, &clock, 1, 9) && !holds(&table, &check, &clock, 1, 10));
        let update = Recent { ttl: true, ..rule(Maybe::isnt(Ask::Update)) };
        clock.0.set(START + 7);
        assert!(holds(&table, &update, &clock, 1, 10) && !holds(&table, &update, &clock, 1, 9));
        assert_eq!(table.seen()[0].last_ns, START);
        let behind = packet(8);
        let forwarded = Facts { out_port: Some(PortId(1)), ..facts(&clock, 1, &behind) };
        assert_eq!(table.judge(&check, &forwarded), Answer::Holds, "as it came");
    }

    #[test]
    fn a_further_address_takes_the_place_of_the_oldest() {
        let clock = clock();
        let table = Table::new(&rule(Maybe::is(Ask::Set)), false, 32);
        for src in 1..=105 {
            clock.0.set(START + u64::from(src));
            assert!(holds(&table, &rule(Maybe::is(Ask::Set)), &clock, src, 64));
        }
        assert_eq!(addresses(&table), (6..=105).collect::<Vec<_>>());
    }

    #[test]
    fn no_worker_s_hit_is_lost() {
        let set = rule(Maybe::is(Ask::Set));
        let table = Table::new(&set, false, 1 << 14);
        let hit = || {
            let clock = clock();
            (0..2000).for_each(|_| assert!(holds(&table, &set, &clock, 1, 64)));
        };
        thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(hit))));
        let stamps: usize = table.seen().iter().map(|seen| seen.stamps_ns.len()).sum();
        // Two workers that bring the address in at once may begin with an entry each.
        assert!((7990..=8003).contains(&stamps), "{stamps}");
    }

    /// `recent_mt` as it is written there: entries in the order of their last stamp.
    #[derive(Default)]
    struct Model {
        entries: Vec<(u32, u8, Vec<u64>, usize)>,
    }

    const RING: usize = 8;

    impl Model {
        fn holds(&mut self, rule: &Recent, src: u32, ttl: u8, now: u64) -> bool {
            let not = rule.ask.not;
            let found = self.entries.iter().position(|(who, its, ..)| {
                *who == src && (!rule.ttl || *its == ttl || *its == 0 || ttl == 0)
            });
            let Some(at) = found else {
                if rule.ask.value != Ask::Set {
                    return not;
                }
                if self.entries.len() == Table::ENTRIES as usize {
                    self.entries.remove(0);
                }
                self.entries.push((src, ttl, vec![now], 1));
                return !not;
            };
            let mut holds = not;
            let since = now - u64::from(rule.secs) * NS_PER_SEC;
            match rule.ask.value {
                Ask::Set => holds = !not,
                Ask::Remove => {
                    self.entries.remove(at);
                    return !not;
                }
                Ask::Check | Ask::Update => {
                    let (_, _, stamps, _) = &self.entries[at];
                    let late = |&&stamp: &&u64| rule.secs == 0 || stamp >= since;
                    let hits = stamps.iter().filter(late).count();
                    if hits >= rule.hits.max(1) as usize {
                        holds = !not;
                    }
                }
            }
            let stamps = rule.ask.value == Ask::Set || rule.ask.value == Ask::Update && holds;
            let mut entry = self.entries[at].clone();
            if rule.reap && !(at == 0 && stamps) {
                let (_, _, all, next) = &self.entries[0];
                if all[next - 1] < since {
                    self.entries.remove(0);
                }
            }
            if stamps {
                self.entries.retain(|(who, ..)| *who != src);
                let next = entry.3 % RING;
                if next == entry.2.len() {
                    entry.2.push(now)
                } else {
                    entry.2[next] = now
                }
                (entry.1, entry.3) = (ttl, next + 1);
                self.entries.push(entry);
            }
            holds
        }
    }

    fn any_rule() -> impl Strategy<Value = Recent> {
        let asks = prop::sample::select(vec![Ask::Set, Ask::Check, Ask::Update, Ask::Remove]);
        let more = (0u32..4, any::<bool>(), 0u32..9, any::<bool>());
        (any::<bool>(), asks, more).prop_map(|(not, value, (secs, reap, hits, ttl))| {
            let plain = rule(Maybe { not, value });
            match value {
                Ask::Set | Ask::Remove => plain,
                _ => Recent { secs, reap: reap && secs != 0, hits, ttl, ..plain },
            }
        })
    }

    proptest! {
        #[test]
        fn answers_are_the_kernel_s(
            rules in prop::collection::vec(any_rule(), 1..5),
            packets in prop::collection::vec((0usize..5, 0u32..4, 9u8..11, 1u64..900), 1..300),
        ) {
            let table = Table::new(&rules[0], false, RING as u32);
            let (clock, mut model) = (clock(), Model::default());
            for (number, src, ttl, step_ms) in packets {
                clock.0.set(clock.0.get() + step_ms * 1_000_000);
                let rule = &rules[number % rules.len()];
                let expected = model.holds(rule, src, ttl, clock.0.get());
                prop_assert_eq!(holds(&table, rule, &clock, src, ttl), expected);
                let mut there: Vec<u32> = model.entries.iter().map(|entry| entry.0).collect();
                there.sort_unstable();
                prop_assert_eq!(addresses(&table), there);
            }
        }
    }
}
