//! `-m hashlimit`: a limit for each source, destination or port (`hashlimit_mt`, revision 3).
//!
//! Entries are kept by name: rules of one family that give one name share a [`Table`], which is
//! made as the first of them says. As in the kernel it stays so for as long as one rule names it,
//! whatever later rules say, and is not emptied when a file is restored that names it again.
//!
//! Arithmetic is the kernel's, in its three ways of counting:
//!
//! - packets: a bucket of `burst` costs that fills with time ([`super::limit`]);
//! - bytes: a bucket of one second, from which a packet takes its 16-byte chunks; where it does not
//!   have them it is filled at once, `burst` times in the life of an entry;
//! - `--hashlimit-rate-match`: windows of `interval` seconds, in which packets or bytes count;
//!   after one that saw more than the rate nothing is below it in the next.
//!
//! The kernel's time goes by jiffies, here by nanoseconds: over a time both let the same pass.
//!
//! An entry ends `expire` after its last packet, to the nanosecond, where the kernel waits for its
//! next `gcinterval`; its slot is then anybody's. Who brings a key to a full table is dropped, as
//! there, once a look at some other slots has found none whose time is over.
//!
//! With several workers an entry lets no more pass than with one, but for these moments: when it
//! begins, when it is filled at once, and when its slot goes to another key, each other worker may
//! pass one packet that is not counted.

use super::super::facts::Facts;
use super::super::kept::{Apart, Kept, TRIES};
use super::super::slots::Slots;
use super::super::test::Answer;
use super::limit::take;
use crate::arch::sync::{AtomicU64, Ordering::Relaxed};
use crate::conntrack::tuple::proto;
use crate::wire::address::Address;

/// Jiffies of a second; the kernel's own constants below follow from it.
const HZ: u64 = 250;

/// Credits of a jiffy (`CREDITS_PER_JIFFY`), and parts of a second in which a period is given.
const CREDITS: u64 = 1 << 39;
const SCALE: u64 = 1_000_000;

/// Credits of a second in bytes: what a bucket holds (`CREDITS_PER_JIFFY_BYTES * HZ`).
const BYTE_CREDITS: u64 = (1 << 24) * HZ;

const NS_PER_SEC: u64 = 1_000_000_000;

/// `-m hashlimit` (`struct xt_hashlimit_mtinfo3`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashlimit {
    /// `--hashlimit-name`.
    pub name: String,
    /// `--hashlimit-above`: matches what is not below the limit.
    pub above: bool,
    /// While the rule is read, seconds of the unit that its rate was given in; 0 afterwards.
    pub unit_secs: u32,
    /// What the table is made with.
    pub shape: Shape,
}

/// How a table counts (`struct hashlimit_cfg3`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The rate: microseconds from packet to packet, or with `bytes` 2^32 divided by the chunks of
    /// 16 bytes in a second, and one.
    pub period: u64,
    /// Packets that may come at once; with `bytes` seconds of the rate that an entry may go beyond.
    pub burst: u64,
    /// Bytes are counted.
    pub bytes: bool,
    /// `--hashlimit-rate-match`: seconds of its interval, not 0.
    pub windows: Option<u32>,
    /// Parts of a packet that make its key.
    pub by: By,
    /// `--hashlimit-srcmask` and `--hashlimit-dstmask`: leading bits that count.
    pub masks: [u8; 2],
    /// `--hashlimit-htable-size`: 0 for what the kernel takes.
    pub size: u32,
    /// `--hashlimit-htable-max`: 0 for eight times the size.
    pub max: u32,
    /// `--hashlimit-htable-gcinterval` in milliseconds, not 0.
    pub sweep_ms: u32,
    /// `--hashlimit-htable-expire` in milliseconds, not 0.
    pub expire_ms: u32,
}

/// `--hashlimit-mode`: bits of what makes a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By(pub u8);

impl By {
    /// The destination's address (`XT_HASHLIMIT_HASH_DIP`).
    pub const DST: By = By(1);
    /// The destination's port.
    pub const DST_PORT: By = By(2);
    /// The source's address.
    pub const SRC: By = By(4);
    /// The source's port.
    pub const SRC_PORT: By = By(8);

    /// True if one of the other's parts is among these.
    pub const fn has(self, other: By) -> bool {
        self.0 & other.0 != 0
    }
}

impl Shape {
    /// Where nothing else is said, packets that may come at once.
    pub const DEFAULT_BURST: u64 = 5;
    /// The most that `size` and `max` can be (`HASHLIMIT_MAX_SIZE`).
    pub const MAX_SIZE: u32 = 1 << 20;
    /// What the kernel takes where memory is above 1 GB and no size is given.
    const DEFAULT_SIZE: u32 = 8192;

    /// Why the kernel does not take it (`hashlimit_mt_check_common`), if it does not.
    pub fn fault(&self) -> Option<&'static str> {
        let burst = credits(self.period.wrapping_mul(self.burst));
        if self.windows.is_some() {
            let bad = self.period == 0 || self.period > u32::MAX.into();
            return bad.then_some("the rate is too high");
        }
        if self.bytes {
            return (byte_cost(self.period) == 0).then_some("the rate is too high");
        }
        let overflows = self.burst == 0 || burst < credits(self.period);
        overflows.then_some("overflow: try a smaller burst or a higher rate")
    }

    /// Keys that a table has room for (`htable_create`).
    fn keys(&self) -> u32 {
        let size = if self.size == 0 { Shape::DEFAULT_SIZE } else { self.size };
        let max = if self.max == 0 { size.saturating_mul(8) } else { self.max.max(size) };
        max.min(Shape::MAX_SIZE)
    }

    fn pace(&self) -> Pace {
        let seconds = self.windows.map(u64::from);
        match (seconds, self.bytes) {
            (Some(secs), false) => {
                let rate = SCALE / self.period.max(1);
                let limit = self.burst.wrapping_add(rate);
                Pace::Windows { interval_ns: secs * NS_PER_SEC, rate, limit }
            }
            (Some(secs), true) => {
                let rate = bytes_of(self.period);
                let limit = rate.wrapping_mul(self.burst.max(1));
                Pace::Windows { interval_ns: secs * NS_PER_SEC, rate, limit }
            }
            (None, false) => Pace::Packets {
                cost_ns: nanoseconds(credits(self.period)),
                full_ns: nanoseconds(credits(self.period.wrapping_mul(self.burst))),
            },
            (None, true) => Pace::Bytes { chunk: byte_cost(self.period), refills: self.burst },
        }
    }
}

/// `user2credits`.
fn credits(period: u64) -> u64 {
    period.wrapping_mul(HZ * CREDITS / SCALE)
}

/// The time in which a bucket gets so many credits.
fn nanoseconds(credits: u64) -> u64 {
    (u128::from(credits) * u128::from(NS_PER_SEC / HZ) / u128::from(CREDITS)) as u64
}

/// `user2credits_byte`: what a chunk costs.
fn byte_cost(period: u64) -> u64 {
    ((period & 0xffff_ffff) * BYTE_CREDITS) >> 32
}

/// `user2rate_bytes`: the bytes of a second.
pub fn bytes_of(period: u64) -> u64 {
    (u64::from(u32::MAX).checked_div(period).unwrap_or(u32::MAX.into()).saturating_sub(1)) << 4
}

/// Byte credits since 1970: 4.194304 in a nanosecond.
fn byte_clock(now_ns: u64) -> u64 {
    now_ns / 15_625 * 65_536 + now_ns % 15_625 * 65_536 / 15_625
}

/// A shape as packets meet it.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Packets { cost_ns: u64, full_ns: u64 },
    Bytes { chunk: u64, refills: u64 },
    Windows { interval_ns: u64, rate: u64, limit: u64 },
}

/// What is kept for a key. What the last two words say depends on the pace.
#[derive(Debug)]
struct Entry {
    /// When it ends, in nanoseconds since 1970.
    due: AtomicU64,
    /// When the bucket is full, in nanoseconds or byte credits; in windows what was counted in
    /// this one, and [`OVER`].
    level: AtomicU64,
    /// Times that the bucket may be filled at once; when the window began.
    extra: AtomicU64,
}

/// The window before this one saw too much.
const OVER: u64 = 1 << 63;

/// The entries of a name.
#[derive(Debug)]
pub struct Table {
    shape: Shape,
    pace: Pace,
    expire_ns: u64,
    slots: Slots,
    entries: Box<[Entry]>,
}

impl Apart for Entry {
    fn apart(&self) -> Entry {
        let Entry { due, level, extra } = self;
        Entry { due: due.apart(), level: level.apart(), extra: extra.apart() }
    }

    fn forget(&self) {
        self.due.forget();
        self.level.forget();
        self.extra.forget();
    }
}

impl Apart for Table {
    fn apart(&self) -> Table {
        let entries = self.entries.iter().map(Apart::apart).collect();
        Table { slots: self.slots.apart(), entries, ..*self }
    }

    fn forget(&self) {
        let used = |(slot, _): &(usize, &Entry)| self.slots.at(*slot) != 0;
        if self.slots.used() > 0 {
            self.entries.iter().enumerate().filter(used).for_each(|(_, entry)| entry.forget());
        }
        self.slots.forget();
    }
}

impl Table {
    /// An empty one.
    pub fn new(shape: Shape) -> Table {
        let slots = Slots::new(shape.keys());
        let word = || AtomicU64::new(0);
        let entry = |_| Entry { due: word(), level: word(), extra: word() };
        let entries = (0..slots.len()).map(entry).collect();
        let expire_ns = u64::from(shape.expire_ms) * 1_000_000;
        Table { shape, pace: shape.pace(), expire_ns, slots, entries }
    }

    /// True if the packet is below the limit of its key; `None` drops it: it has no ports although
    /// they are asked for, or there is no room for its key.
    fn below(&self, facts: &Facts<'_>) -> Option<bool> {
        let now = facts.around.now().unix_ns;
        let tag = self.slots.tag(self.key(facts)?);
        let due = |slot: usize| self.entries.get(slot).map_or(0, |entry| entry.due.load(Relaxed));
        let slot = self.slots.find(tag);
        let slot = slot.or_else(|| self.slots.claim(tag, |slot| due(slot) <= now))?;
        let entry = self.entries.get(slot)?;
        let (until, after) = (entry.due.load(Relaxed), now.saturating_add(self.expire_ns));
        if until <= now {
            // Who moves it on begins it anew.
            let level = entry.level.load(Relaxed);
            if entry.due.compare_exchange(until, after, Relaxed, Relaxed).is_ok() {
                self.begin(entry, now, level);
            }
        } else if until < after {
            entry.due.store(after, Relaxed);
        }
        Some(match self.pace {
            Pace::Packets { cost_ns, full_ns } => take(&entry.level, now, cost_ns, full_ns),
            Pace::Bytes { chunk, .. } => takes_bytes(entry, now, chunk, facts.length),
            Pace::Windows { interval_ns, rate, limit } => {
                next_window(entry, now, interval_ns, rate);
                let cost = if self.shape.bytes { facts.length.into() } else { 1 };
                let before = entry.level.fetch_add(cost, Relaxed);
                before & OVER == 0 && before + cost <= limit
            }
        })
    }

    /// `rateinfo_init`. What other workers have taken since the level was `before` stays taken.
    fn begin(&self, entry: &Entry, now: u64, before: u64) {
        let (full, extra) = match self.pace {
            Pace::Packets { .. } => (Some(now), 0),
            Pace::Bytes { refills, .. } => (Some(byte_clock(now)), refills),
            Pace::Windows { .. } => (None, now),
        };
        entry.extra.store(extra, Relaxed);
        if let Some(full) = full {
            // If it has changed, something was taken from what was left before.
            let _ = entry.level.compare_exchange(before, full, Relaxed, Relaxed);
            return;
        }
        let mut level = entry.level.load(Relaxed);
        for _ in 0..TRIES {
            let since = level.saturating_sub(before);
            match entry.level.compare_exchange_weak(level, since, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => level = seen,
            }
        }
    }

    /// `hashlimit_init_dst`; `None` where ports are asked for and cut off.
    fn key(&self, facts: &Facts<'_>) -> Option<[u64; 5]> {
        let Shape { by, masks: [src_mask, dst_mask], .. } = self.shape;
        let part = |asked, address, mask| match by.has(asked) {
            true => leading(address, mask),
            false => 0,
        };
        let (src, dst) = (part(By::SRC, facts.src, src_mask), part(By::DST, facts.dst, dst_mask));
        let ports = match by.has(By(By::SRC_PORT.0 | By::DST_PORT.0)) {
            true => ports(facts)?,
            false => 0,
        };
        let source = if by.has(By::SRC_PORT) { ports >> 16 << 16 } else { 0 };
        let destination = if by.has(By::DST_PORT) { ports & 0xffff } else { 0 };
        let key = (source | destination).into();
        Some([(src >> 64) as u64, src as u64, (dst >> 64) as u64, dst as u64, key])
    }
}

/// The leading bits of an address.
pub(super) fn leading(address: Address, length: u8) -> u128 {
    let (bits, width) = match address.is_v4() {
        true => (address.v4_bits().into(), 32u32),
        false => (address.bits(), 128),
    };
    let free = width.saturating_sub(length.into());
    bits & u128::MAX.checked_shl(free).unwrap_or(0)
}

/// The four bytes that are the ports, or lie where those would be (`proto_ports_offset`).
fn ports(facts: &Facts<'_>) -> Option<u32> {
    let at = match facts.proto {
        proto::TCP | proto::UDP | proto::DCCP | proto::SCTP | proto::UDPLITE | ESP => 0,
        AH => 4,
        _ => return Some(0),
    };
    let bytes = facts.l4().get(at..at + 4)?;
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

const ESP: u8 = 50;
const AH: u8 = 51;

/// `hashlimit_byte_cost`, and whether the bucket has it.
fn takes_bytes(entry: &Entry, now_ns: u64, chunk: u64, length: u32) -> bool {
    let now = byte_clock(now_ns);
    let cost = ((u64::from(length) >> 4) + 1).saturating_mul(chunk).min(BYTE_CREDITS);
    if take(&entry.level, now, cost, BYTE_CREDITS) {
        return true;
    }
    let mut refills = entry.extra.load(Relaxed);
    for _ in 0..TRIES {
        let Some(less) = refills.checked_sub(1) else { return false };
        match entry.extra.compare_exchange_weak(refills, less, Relaxed, Relaxed) {
            Ok(_) => {
                entry.level.store(now + cost, Relaxed);
                return true;
            }
            Err(seen) => refills = seen,
        }
    }
    false
}

/// `rateinfo_recalc` for windows: one that is over is judged and the next begins.
fn next_window(entry: &Entry, now: u64, interval_ns: u64, rate: u64) {
    let began = entry.extra.load(Relaxed);
    let passed = now.saturating_sub(began);
    if passed < interval_ns {
        return;
    }
    if entry.extra.compare_exchange(began, now, Relaxed, Relaxed).is_err() {
        return;
    }
    let mut level = entry.level.load(Relaxed);
    for _ in 0..TRIES {
        let seen = u128::from(level & !OVER) * u128::from(interval_ns);
        let over = seen > u128::from(passed) * u128::from(rate);
        let next = if over { OVER } else { 0 };
        match entry.level.compare_exchange_weak(level, next, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(seen) => level = seen,
        }
    }
}

/// A rule and the table of its name.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rules) struct Named {
    pub(in crate::rules) above: bool,
    pub(in crate::rules) table: Kept<Table>,
}

impl Named {
    /// The packet's answer.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        match self.table.below(facts) {
            Some(below) => (below != self.above).into(),
            None => Answer::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use core::cell::Cell;
    use std::thread;

    use proptest::prelude::*;

    use super::*;
    use crate::rules::facts::{Around, CtFacts, PlaceOf, PortId};
    use crate::time::Now;

    /// A clock, and nothing else.
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
    const JIFFY: u64 = NS_PER_SEC / HZ;

    fn clock() -> Clock {
        Clock(Cell::new(START))
    }

    fn facts(clock: &Clock, src: u32, length: u32) -> Facts<'_> {
        Facts {
            in_port: None,
            out_port: None,
            src: Address::v4(src),
            dst: Address::v4(0x7f00_0001),
            proto: proto::UDP,
            fragment_offset: 0,
            src_port: 0,
            dst_port: 0,
            tcp_flags: 0,
            icmp_type: 0,
            icmp_code: 0,
            l4_valid: true,
            length,
            mark: 0,
            frame: &[],
            l3_at: 0,
            l4_at: 0,
            around: clock,
            ct: CtFacts::NONE,
        }
    }

    /// `--hashlimit-upto 5/s`.
    fn shape() -> Shape {
        Shape {
            period: 200_000,
            burst: 5,
            bytes: false,
            windows: None,
            by: By::SRC,
            masks: [32, 32],
            size: 0,
            max: 64,
            sweep_ms: 1000,
            expire_ms: 1000,
        }
    }

    fn bytes(rate: u64, burst: u64) -> Shape {
        let period = u64::from(u32::MAX) / ((rate >> 4) + 1);
        Shape { period, burst, bytes: true, expire_ms: 60_000, ..shape() }
    }

    /// How many of so many packets at once are below the limit.
    fn at_once(table: &Table, clock: &Clock, count: usize, length: u32) -> usize {
        let below = |_: &usize| table.below(&facts(clock, 1, length)).unwrap();
        (0..count).filter(below).count()
    }

    fn wait(clock: &Clock, ms: u64) {
        clock.0.set(clock.0.get() + ms * 1_000_000);
    }

    /// Counts of pings of 84 bytes, taken from Linux 6.18.
    #[test]
    fn counts_are_the_kernel_s() {
        let clock = clock();
        let hour = Shape { period: 3_600_000_000, burst: 6, expire_ms: 3_600_000, ..shape() };
        assert_eq!(at_once(&Table::new(hour), &clock, 10, 84), 6);
        let plain = Table::new(Shape { expire_ms: 15_000, ..bytes(1024, 0) });
        assert_eq!(at_once(&plain, &clock, 30, 84), 10);
        let bursts = Table::new(bytes(1024, 4));
        assert_eq!(at_once(&bursts, &clock, 100, 84), 50);
        wait(&clock, 3000);
        assert_eq!(at_once(&bursts, &clock, 100, 84), 10, "bursts do not come back");
        let windows = Table::new(Shape { windows: Some(1), ..shape() });
        let counts = [500, 900, 2200, 0].map(|ms| {
            let count = at_once(&windows, &clock, 20, 84);
            wait(&clock, ms);
            count
        });
        assert_eq!(counts, [10, 0, 0, 10], "the last after the entry has ended");
        let windows = Table::new(Shape { windows: Some(1), expire_ms: 15_000, ..bytes(1024, 0) });
        let counts = [40, 40, 3, 3].map(|count| {
            let count = at_once(&windows, &clock, count, 84);
            wait(&clock, 1100);
            count
        });
        assert_eq!(counts, [12, 0, 0, 3]);
    }

    #[test]
    fn a_full_table_drops_who_is_new_until_an_entry_ends() {
        let clock = clock();
        let table = Table::new(Shape { size: 1, max: 2, expire_ms: 2000, ..shape() });
        let below = |src| table.below(&facts(&clock, src, 84));
        assert_eq!([1, 2, 3, 4].map(below), [Some(true), Some(true), None, None]);
        wait(&clock, 1999);
        assert_eq!([1, 3].map(below), [Some(true), None]);
        wait(&clock, 1);
        assert_eq!([3, 4, 1].map(below), [Some(true), None, Some(true)], "2 has ended");
    }

    #[test]
    fn keys_are_what_the_mode_names_under_its_masks() {
        let clock = clock();
        let frame = |ports: &[u8]| Vec::from(ports);
        let key = |by, masks, proto, l4: &[u8]| {
            let table = Table::new(Shape { by: By(by), masks, ..shape() });
            table.key(&Facts { proto, frame: l4, ..facts(&clock, 0x0a01_0203, 84) })
        };
        let udp = frame(&[0x12, 0x34, 0x56, 0x78, 0]);
        assert_eq!(key(0, [32, 32], 17, &[]), Some([0; 5]));
        assert_eq!(key(4, [24, 0], 17, &[]), Some([0, 0x0a01_0200, 0, 0, 0]));
        assert_eq!(key(5, [0, 8], 17, &[]), Some([0, 0, 0, 0x7f00_0000, 0]));
        assert_eq!(key(2, [0, 0], 17, &udp), Some([0, 0, 0, 0, 0x5678]));
        assert_eq!(key(10, [0, 0], 17, &udp), Some([0, 0, 0, 0, 0x1234_5678]));
        assert_eq!(key(8, [0, 0], 17, &udp[..3]), None, "cut off");
        assert_eq!(key(8, [0, 0], 1, &[]), Some([0; 5]), "ICMP has none");
        assert_eq!(key(8, [0, 0], AH, &[0; 7]), None);
        let v6 = leading(Address::v6(u128::MAX), 65);
        assert_eq!((v6, leading(Address::v6(9), 0)), (u128::MAX << 63, 0));
    }

    #[test]
    fn what_the_kernel_refuses_is_at_fault() {
        let day = |burst| Shape { period: 86_400_000_000, burst, ..shape() };
        assert!(day(1).fault().is_none() && day(2).fault().is_some() && day(0).fault().is_some());
        let high = |period| Shape { period, bytes: true, burst: 0, ..shape() };
        assert!(high(2).fault().is_none() && high(1).fault().is_some());
        assert!(Shape { windows: Some(1), ..high(0) }.fault().is_some());
    }

    #[test]
    fn many_workers_let_no_more_pass_than_there_is() {
        let shape = Shape { period: 10_000_000, burst: 5000, ..shape() };
        let table = Table::new(shape);
        let takes = || {
            let clock = clock();
            at_once(&table, &clock, 4000, 84)
        };
        let passed: usize = thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(takes)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        // Each other worker may have passed one while the entry began.
        assert!((4500..=5003).contains(&passed), "{passed}");
    }

    /// `hashlimit_mt_common` as it is written there, with jiffies.
    #[derive(Default)]
    struct Model {
        prev: u64,
        credit: u64,
        credit_cap: u64,
        cost: u64,
        rate: u64,
        burst: u64,
        over: bool,
        seen: u64,
        expires: u64,
    }

    impl Model {
        fn begin(shape: &Shape, now: u64) -> Model {
            let mut model = Model { prev: now, ..Model::default() };
            match (shape.windows, shape.bytes) {
                (Some(_), false) => {
                    model.rate = SCALE / shape.period;
                    model.burst = shape.burst + model.rate;
                }
                (Some(_), true) => {
                    model.rate = bytes_of(shape.period);
                    model.burst = model.rate * shape.burst.max(1);
                }
                (None, false) => {
                    model.credit = shape.period * shape.burst * 137_438_953;
                    model.credit_cap = model.credit;
                    model.cost = shape.period * 137_438_953;
                }
                (None, true) => {
                    model.credit = 16_777_216 * 250;
                    model.credit_cap = shape.burst;
                    model.cost = (shape.period * (16_777_216 * 250)) >> 32;
                }
            }
            model
        }

        fn recalculate(&mut self, shape: &Shape, now: u64) {
            let delta = now - self.prev;
            if delta == 0 {
                return;
            }
            if let Some(secs) = shape.windows {
                let interval = u64::from(secs) * 250;
                if delta >= interval {
                    self.prev = now;
                    self.over = self.seen * interval > delta * self.rate;
                    self.seen = 0;
                }
                return;
            }
            self.prev = now;
            let (per_jiffy, cap) = match shape.bytes {
                true => (16_777_216, 16_777_216 * 250),
                false => (549_755_813_888, self.credit_cap),
            };
            self.credit = (self.credit + delta * per_jiffy).min(cap);
        }

        fn below(&mut self, shape: &Shape, now: u64, length: u64) -> bool {
            if now >= self.expires {
                *self = Model::begin(shape, now);
            } else {
                self.recalculate(shape, now);
            }
            self.expires = now + u64::from(shape.expire_ms) / 4;
            if shape.windows.is_some() {
                self.seen += if shape.bytes { length } else { 1 };
                return !self.over && self.seen <= self.burst;
            }
            let mut cost = self.cost;
            if shape.bytes {
                cost = (((length >> 4) + 1) * self.cost).min(16_777_216 * 250);
                if self.credit < cost && self.credit_cap > 0 {
                    self.credit_cap -= 1;
                    self.credit = 16_777_216 * 250;
                }
            }
            let below = self.credit >= cost;
            self.credit -= if below { cost } else { 0 };
            below
        }
    }

    proptest! {
        /// Not for long: the kernel's credits are a trifle fewer than a jiffy's worth.
        #[test]
        fn answers_are_the_kernel_s(
            bytes in any::<bool>(),
            windows in prop::option::of(1u32..4),
            period in prop::sample::select(vec![100u64, 4000, 9999, 100_000, 500_000, 1_000_000]),
            rate in prop::sample::select(vec![16u64, 1000, 20_000, 1 << 20, 1 << 30]),
            burst in 1u64..20,
            seconds in 1u32..4,
            steps in prop::collection::vec((0u64..300, 20u32..1500), 1..200),
        ) {
            let expire_ms = seconds * 1000;
            let shape = match bytes {
                true => Shape { windows, expire_ms, ..self::bytes(rate, burst - 1) },
                false => Shape { period, burst, windows, expire_ms, ..shape() },
            };
            let (table, clock, mut model) = (Table::new(shape), clock(), Model::default());
            let first = START / JIFFY;
            let mut now = first;
            for (step, length) in steps {
                // Often at once, seldom after a long pause.
                now += if step > 290 { 4 * step } else { step / 20 };
                clock.0.set(now * JIFFY);
                let below = table.below(&facts(&clock, 1, length)).unwrap();
                prop_assert_eq!(below, model.below(&shape, now, length.into()));
            }
        }
    }
}
