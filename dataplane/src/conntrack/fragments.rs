//! Fragments that wait for the rest of their datagram, IPv4 and IPv6: pure logic, one lcore's own.
//!
//! Follows `inet_frag_queue_insert`, `ip_frag_queue` and `nf_ct_frag6_queue`. The fragments of a
//! datagram form a queue; what is in a queue never overlaps:
//!
//! - IPv4: an overlap, a fragment beyond the last one or a second end drop the queue.
//! - IPv6: an overlap drops the queue (RFC 5722), and so does a length that is no multiple of 8;
//!   what contradicts the end is dropped alone.
//! - Both: a fragment that lies within a run of others is a duplicate and dropped alone. A run is
//!   what arrived in order at the tail of its queue; fragments that came otherwise are runs of
//!   their own, so bytes that two runs hold together are an overlap.
//!
//! The lcore that owns a [`Reassembly`] is its only reader and writer. Bounds, of memory that is
//! taken once: [`QUEUES_MAX`] datagrams, [`PARTS_MAX`] fragments, [`PER_DATAGRAM_MAX`] of each; a
//! family's fragments together cost no more than its `high_thresh`, which is looked at before each.
//! Time is an argument; queues that are too old are taken out one by one.

use arrayvec::ArrayVec;

use crate::time::Tick;
use crate::wire::address::Address;

#[cfg(test)]
mod tests;

/// Datagrams under way on one lcore.
pub const QUEUES_MAX: usize = 1024;

/// Fragments held by one lcore.
pub const PARTS_MAX: usize = 2048;

/// Fragments of one datagram: of 65535 bytes one for each 256. The kernel has no such bound.
pub const PER_DATAGRAM_MAX: usize = 256;

/// What one held buffer counts for in `high_thresh`: a kernel's for a full Ethernet frame, and a
/// packet buffer's here.
pub const COST_OF_BUFFER: u32 = 2304;

/// Most bytes of an IP packet (IPv6: behind its fixed header).
const LEN_MAX: u32 = 65535;

const HEADS: usize = 2 * QUEUES_MAX;

/// No place.
const NONE: u16 = u16::MAX;

const _: () = assert!(HEADS.is_power_of_two() && PARTS_MAX < NONE as usize);

/// What the fragments of one datagram have in common (`frag_v4_compare_key`,
/// `frag_v6_compare_key`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Identification.
    pub id: u32,
    /// IPv4: the protocol. IPv6: 0, as it is not part of the key.
    pub proto: u8,
    /// Who puts together: the hook and, for IPv6, the port that they came in by.
    pub user: u16,
}

impl Key {
    fn family(&self) -> usize {
        !self.src.is_v4() as usize
    }
}

/// One fragment.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where its payload belongs in the datagram's, in bytes: a multiple of 8.
    pub offset: u32,
    /// Bytes of payload.
    pub len: u32,
    /// More fragments follow.
    pub more: bool,
    /// IPv4: bytes of its header. IPv6: bytes of all headers up to and with the fragment header.
    pub header: u32,
    /// IPv4: the DF bit.
    pub dont_fragment: bool,
    /// The two ECN bits of its TOS or traffic class.
    pub ecn: u8,
    /// Where its payload begins in its frame.
    pub at: u16,
    /// The port that it came in by.
    pub port: u8,
    /// What it counts for in `high_thresh`.
    pub cost: u32,
}

/// What bounds a family's fragments on this lcore.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nothing is taken while what is held costs more.
    pub high_thresh: u64,
    /// How long a queue lives.
    pub timeout_secs: u32,
    /// IPv4: fragments of the same source between two of a datagram; 0 is without limit.
    pub max_dist: u32,
}

/// Why fragments are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Empty, too long, or at odds with the end that is known.
    Invalid,
    /// All of it is there already.
    Duplicate,
    /// A part of it is there already.
    Overlap,
    /// No room.
    Full,
    /// Too many fragments of the same source came in between (`ipfrag_max_dist`).
    Distance,
}

/// A fragment as it was held.
#[derive(Debug)]
pub struct Held<F> {
    /// Its frame.
    pub frame: F,
    /// Bytes of payload that count; what the frame has behind them does not.
    pub len: u32,
    /// Where they begin in the frame.
    pub at: u16,
}

/// A complete datagram.
#[derive(Debug)]
pub struct Whole<F> {
    /// Its fragments in order.
    pub parts: ArrayVec<Held<F>, PER_DATAGRAM_MAX>,
    /// Bytes of payload of all together.
    pub len: u32,
    /// Bytes of the largest IP packet that was one of them (`frag_max_size`).
    pub size: u32,
    /// IPv4: that one had the DF bit.
    pub dont_fragment: bool,
    /// ECN bits to set (RFC 3168 section 5.3).
    pub ecn: u8,
    /// The port of the one that completed it.
    pub port: u8,
}

/// A datagram whose time is up.
#[derive(Debug)]
pub struct Stale<F> {
    /// Its key.
    pub key: Key,
    /// The port of the latest fragment.
    pub port: u8,
    /// The first fragment is among them, and is the first of them.
    pub has_first: bool,
    /// What there is of it, in order.
    pub parts: ArrayVec<Held<F>, PER_DATAGRAM_MAX>,
}

#[derive(Debug)]
struct Slot<F> {
    held: Held<F>,
    offset: u32,
    /// It came in order behind the one before it.
    joined: bool,
    next: u16,
}

#[derive(Clone, Copy, Debug)]
struct Queue {
    key: Key,
    first: u16,
    last: u16,
    count: u16,
    /// Bytes from 0 to the highest end.
    len: u32,
    /// Bytes that are there.
    meat: u32,
    max_size: u32,
    max_df_size: u32,
    /// What all headers before the payload count in the datagram's length, of the first fragment.
    base: u32,
    cost: u32,
    ecn: u8,
    has_first: bool,
    has_last: bool,
    port: u8,
    /// The next queue of the same bucket.
    next: u16,
    source: u16,
    /// The source's count at the latest fragment.
    seen: u32,
}

impl Queue {
    fn new(key: Key, source: u16) -> Queue {
        Queue {
            key,
            first: NONE,
            last: NONE,
            count: 0,
            len: 0,
            meat: 0,
            max_size: 0,
            max_df_size: 0,
            base: 0,
            cost: 0,
            ecn: 0,
            has_first: false,
            has_last: false,
            port: 0,
            next: NONE,
            source,
            seen: 0,
        }
    }
}

/// A source of IPv4 fragments, as long as a queue has any of it (`inet_peer`).
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    address: u32,
    queues: u16,
    /// Fragments so far.
    count: u32,
    next: u16,
}

/// All fragments that one lcore holds.
#[derive(Debug)]
pub struct Reassembly<F> {
    heads: Box<[u16]>,
    queues: Box<[Option<Queue>]>,
    free_queues: Vec<u16>,
    parts: Box<[Option<Slot<F>>]>,
    free_parts: Vec<u16>,
    source_heads: Box<[u16]>,
    sources: Box<[Source]>,
    free_sources: Vec<u16>,
    /// By family: what its fragments cost.
    costs: [u64; 2],
    /// By queue: when its time is up.
    due: Box<[Option<Tick>]>,
    /// No queue is due before.
    next_due: Option<Tick>,
    /// Nobody outside knows which sources share a bucket.
    seed: u64,
}

impl<F> Reassembly<F> {
    /// Without fragments; all its memory is taken here.
    pub fn new(seed: u64) -> Reassembly<F> {
        let none = || vec![NONE; HEADS].into_boxed_slice();
        Reassembly {
            heads: none(),
            queues: vec![None; QUEUES_MAX].into_boxed_slice(),
            free_queues: (0..QUEUES_MAX as u16).rev().collect(),
            parts: (0..PARTS_MAX).map(|_| None).collect(),
            free_parts: (0..PARTS_MAX as u16).rev().collect(),
            source_heads: none(),
            sources: vec![Source::default(); QUEUES_MAX].into_boxed_slice(),
            free_sources: (0..QUEUES_MAX as u16).rev().collect(),
            costs: [0; 2],
            due: vec![None; QUEUES_MAX].into_boxed_slice(),
            next_due: None,
            seed,
        }
    }

    /// Fragments held.
    pub fn held(&self) -> usize {
        PARTS_MAX - self.free_parts.len()
    }

    /// Datagrams under way.
    pub fn datagrams(&self) -> usize {
        QUEUES_MAX - self.free_queues.len()
    }

    /// What the fragments of a family cost, as `high_thresh` counts.
    pub fn cost(&self, v6: bool) -> u64 {
        self.costs[v6 as usize]
    }

    /// Takes a fragment; `hash` is its key's. Frames that end here go to `refuse`, the new one and
    /// those of its queue. Gives the datagram once all of it is there.
    pub fn add(
        &mut self,
        (key, hash): (&Key, u64),
        part: &Part,
        frame: F,
        limits: &Limits,
        now: Tick,
        refuse: &mut impl FnMut(F, Refusal),
    ) -> Option<Whole<F>> {
        if limits.high_thresh == 0 || self.costs[key.family()] > limits.high_thresh {
            refuse(frame, Refusal::Full);
            return None;
        }
        let Some(number) = self.find(key, hash).or_else(|| self.create(key, hash, limits, now))
        else {
            refuse(frame, Refusal::Full);
            return None;
        };
        if key.src.is_v4() && self.is_too_far(number, limits.max_dist) {
            self.empty(number, &mut |frame| refuse(frame, Refusal::Distance));
            if let Some(q) = self.queue(number) {
                *q = Queue { next: q.next, seen: q.seen, ..Queue::new(q.key, q.source) };
            }
            self.set_due(number, now.plus_secs(limits.timeout_secs));
        }
        match self.insert(number, part, frame) {
            Ok(()) => {}
            Err((frame, refusal, kill)) => {
                refuse(frame, refusal);
                if kill {
                    self.empty(number, &mut |frame| refuse(frame, refusal));
                    self.remove(number, hash);
                }
                return None;
            }
        }
        let q = *self.queue(number)?;
        if !(q.has_first && q.has_last && q.meat == q.len) {
            return None;
        }
        let ecn = merged_ecn(q.ecn);
        let (Some(ecn), true) = (ecn, q.base + q.len <= LEN_MAX) else {
            self.empty(number, &mut |frame| refuse(frame, Refusal::Invalid));
            self.remove(number, hash);
            return None;
        };
        let parts = self.take(number);
        self.remove(number, hash);
        let (len, size, port) = (q.len, q.max_size, q.port);
        let dont_fragment = q.max_df_size == q.max_size;
        Some(Whole { parts, len, size, dont_fragment, ecn, port })
    }

    /// Ends the fragments of a datagram.
    pub fn forget(&mut self, (key, hash): (&Key, u64), gone: &mut impl FnMut(F)) {
        if let Some(number) = self.find(key, hash) {
            self.empty(number, gone);
            self.remove(number, hash);
        }
    }

    /// True once a queue may be too old.
    #[inline]
    pub fn is_due(&self, now: Tick) -> bool {
        self.next_due.is_some_and(|due| due.has_passed(now))
    }

    /// Takes a queue that is too old; `hash` gives its key's.
    pub fn expired(&mut self, now: Tick, hash: impl FnOnce(&Key) -> u64) -> Option<Stale<F>> {
        let passed = |due: &Option<Tick>| due.is_some_and(|due| due.has_passed(now));
        let Some(number) = self.due.iter().position(passed) else {
            let left = |due: &Tick| due.0.wrapping_sub(now.0);
            self.next_due = self.due.iter().copied().flatten().min_by_key(left);
            return None;
        };
        let number = number as u16;
        let q = *self.queue(number)?;
        let parts = self.take(number);
        self.remove(number, hash(&q.key));
        Some(Stale { key: q.key, port: q.port, has_first: q.has_first, parts })
    }

    /// Ends all fragments.
    pub fn clear(&mut self, gone: &mut impl FnMut(F)) {
        for number in 0..QUEUES_MAX as u16 {
            if self.queue(number).is_some() {
                self.empty(number, gone);
                self.free_queues.push(number);
            }
        }
        self.queues.fill(None);
        self.heads.fill(NONE);
        self.source_heads.fill(NONE);
        self.free_sources.clear();
        self.free_sources.extend((0..QUEUES_MAX as u16).rev());
        self.due.fill(None);
        self.next_due = None;
    }

    fn queue(&mut self, number: u16) -> Option<&mut Queue> {
        self.queues.get_mut(number as usize)?.as_mut()
    }

    fn find(&self, key: &Key, hash: u64) -> Option<u16> {
        let mut at = *self.heads.get(bucket(hash))?;
        while let Some(Some(q)) = self.queues.get(at as usize) {
            if q.key == *key {
                return Some(at);
            }
            at = q.next;
        }
        None
    }

    fn create(&mut self, key: &Key, hash: u64, limits: &Limits, now: Tick) -> Option<u16> {
        let number = self.free_queues.pop()?;
        let source = if key.src.is_v4() { self.source(key.src.v4_bits()) } else { NONE };
        let head = self.heads.get_mut(bucket(hash))?;
        let queue = Queue { next: *head, ..Queue::new(*key, source) };
        *head = number;
        *self.queues.get_mut(number as usize)? = Some(queue);
        self.set_due(number, now.plus_secs(limits.timeout_secs));
        Some(number)
    }

    fn set_due(&mut self, number: u16, deadline: Tick) {
        if let Some(due) = self.due.get_mut(number as usize) {
            *due = Some(deadline);
        }
        if self.next_due.is_none_or(|due| !due.has_passed(deadline)) {
            self.next_due = Some(deadline);
        }
    }

    /// Unhooks a queue without fragments.
    fn remove(&mut self, number: u16, hash: u64) {
        let Some(q) = self.queues.get_mut(number as usize).and_then(Option::take) else { return };
        self.free_queues.push(number);
        if let Some(due) = self.due.get_mut(number as usize) {
            *due = None;
        }
        self.leave_source(q.source);
        let Some(head) = self.heads.get_mut(bucket(hash)) else { return };
        if *head == number {
            *head = q.next;
            return;
        }
        let mut at = *head;
        while let Some(Some(before)) = self.queues.get_mut(at as usize) {
            if before.next == number {
                before.next = q.next;
                return;
            }
            at = before.next;
        }
    }

    /// The place of a source, one queue more at it. There are as many places as queues.
    fn source(&mut self, address: u32) -> u16 {
        let Some(head) = self.source_heads.get_mut(source_bucket(address, self.seed)) else {
            return NONE;
        };
        let mut at = *head;
        while let Some(source) = self.sources.get_mut(at as usize) {
            if source.address == address {
                source.queues += 1;
                return at;
            }
            at = source.next;
        }
        let Some(number) = self.free_sources.pop() else { return NONE };
        if let Some(place) = self.sources.get_mut(number as usize) {
            *place = Source { address, queues: 1, count: 0, next: *head };
            *head = number;
        }
        number
    }

    fn leave_source(&mut self, number: u16) {
        let Some(source) = self.sources.get_mut(number as usize) else { return };
        source.queues -= 1;
        if source.queues > 0 {
            return;
        }
        let Source { address, next, .. } = *source;
        self.free_sources.push(number);
        let Some(head) = self.source_heads.get_mut(source_bucket(address, self.seed)) else {
            return;
        };
        if *head == number {
            *head = next;
            return;
        }
        let mut at = *head;
        while let Some(before) = self.sources.get_mut(at as usize) {
            if before.next == number {
                before.next = next;
                return;
            }
            at = before.next;
        }
    }

    /// `ip_frag_too_far`: counts a fragment of the queue's source; true if too many of other
    /// datagrams came since the queue's latest.
    fn is_too_far(&mut self, number: u16, max_dist: u32) -> bool {
        let Some(q) = self.queues.get_mut(number as usize).and_then(Option::as_mut) else {
            return false;
        };
        let Some(source) = self.sources.get_mut(q.source as usize) else { return false };
        if max_dist == 0 {
            return false;
        }
        source.count = source.count.wrapping_add(1);
        let passed = source.count.wrapping_sub(q.seen);
        q.seen = source.count;
        q.count > 0 && passed > max_dist
    }

    /// Checks a fragment against its queue and puts it there. An error gives it back, and says
    /// whether the queue has to go.
    fn insert(&mut self, number: u16, part: &Part, frame: F) -> Result<(), (F, Refusal, bool)> {
        let Some(q) = self.queues.get_mut(number as usize).and_then(Option::as_mut) else {
            return Err((frame, Refusal::Full, false));
        };
        let (len, end) = match span(q, part) {
            Ok(found) => found,
            Err(kill) => return Err((frame, Refusal::Invalid, kill)),
        };
        let (before, joined) = match place(&self.parts, q, part.offset, end) {
            Ok(found) => found,
            Err(refusal) => return Err((frame, refusal, refusal == Refusal::Overlap)),
        };
        if q.count as usize == PER_DATAGRAM_MAX {
            return Err((frame, Refusal::Full, true));
        }
        let Some(new) = self.free_parts.pop() else {
            return Err((frame, Refusal::Full, false));
        };
        let next = match self.parts.get_mut(before as usize) {
            Some(Some(slot)) => core::mem::replace(&mut slot.next, new),
            _ => core::mem::replace(&mut q.first, new),
        };
        if next == NONE {
            q.last = new;
        }
        let held = Held { frame, len, at: part.at };
        if let Some(slot) = self.parts.get_mut(new as usize) {
            *slot = Some(Slot { held, offset: part.offset, joined, next });
        }
        q.count += 1;
        q.meat += len;
        q.ecn |= 1 << (part.ecn & 3);
        q.port = part.port;
        q.cost += part.cost;
        self.costs[q.key.family()] += u64::from(part.cost);
        let size = len + part.header;
        q.max_size = q.max_size.max(size);
        if part.dont_fragment {
            q.max_df_size = q.max_df_size.max(size);
        }
        if part.offset == 0 {
            q.has_first = true;
            // The length of IPv6 leaves out the fixed header, and the fragment header goes.
            q.base = if q.key.src.is_v4() { part.header } else { part.header - 48 };
        }
        Ok(())
    }

    /// Takes a queue's fragments out of it.
    fn take(&mut self, number: u16) -> ArrayVec<Held<F>, PER_DATAGRAM_MAX> {
        let mut all = ArrayVec::new();
        let Some(q) = self.queues.get_mut(number as usize).and_then(Option::as_mut) else {
            return all;
        };
        let family = q.key.family();
        self.costs[family] = self.costs[family].saturating_sub(u64::from(q.cost));
        let mut at = core::mem::replace(&mut q.first, NONE);
        (q.last, q.count, q.cost) = (NONE, 0, 0);
        while let Some(slot) = self.parts.get_mut(at as usize).and_then(Option::take) {
            self.free_parts.push(at);
            // A queue has no more than that.
            let _ = all.try_push(slot.held);
            at = slot.next;
        }
        all
    }

    fn empty(&mut self, number: u16, gone: &mut impl FnMut(F)) {
        for held in self.take(number) {
            gone(held.frame);
        }
    }
}

/// Length and end of a fragment, where they fit to what is known of its datagram's end, which they
/// may tell. An error says whether the datagram has to go.
fn span(q: &mut Queue, part: &Part) -> Result<(u32, u32), bool> {
    let v4 = q.key.src.is_v4();
    let mut end = part.offset + part.len;
    if !v4 && end > LEN_MAX {
        return Err(false);
    }
    if !part.more {
        if end < q.len || (q.has_last && end != q.len) {
            return Err(v4);
        }
        q.has_last = true;
        q.len = end;
    } else {
        if !end.is_multiple_of(8) && !v4 {
            return Err(true);
        }
        end &= !7;
        if end > q.len {
            if q.has_last {
                return Err(v4);
            }
            q.len = end;
        }
    }
    if end <= part.offset { Err(v4) } else { Ok((end - part.offset, end)) }
}

/// Behind which fragment a new one belongs, and whether it goes on with its run.
fn place<F>(
    parts: &[Option<Slot<F>>],
    q: &Queue,
    offset: u32,
    end: u32,
) -> Result<(u16, bool), Refusal> {
    let slot = |number: u16| parts.get(number as usize).and_then(Option::as_ref);
    let end_of = |slot: &Slot<F>| slot.offset + slot.held.len;
    // Nearly all come in order.
    let tail = slot(q.last).map_or(0, end_of);
    if offset >= tail {
        return Ok((q.last, q.last != NONE && offset == tail));
    }
    let (mut before, mut at) = (NONE, q.first);
    while let Some(head) = slot(at) {
        let (start, mut last, mut run_end) = (head.offset, at, end_of(head));
        let mut next = head.next;
        while let Some(more) = slot(next).filter(|slot| slot.joined) {
            (last, run_end, next) = (next, end_of(more), more.next);
        }
        if end <= start {
            break;
        }
        if offset < run_end {
            let within = offset >= start && end <= run_end;
            return Err(if within { Refusal::Duplicate } else { Refusal::Overlap });
        }
        (before, at) = (last, next);
    }
    Ok((before, false))
}

/// The ECN bits of a datagram whose fragments had those that `seen` names (`ip_frag_ecn_table`);
/// `None` if they do not go together.
fn merged_ecn(seen: u8) -> Option<u8> {
    const NOT_CAPABLE: u8 = 1;
    const CONGESTION: u8 = 8;
    match seen {
        NOT_CAPABLE => Some(0),
        _ if seen & NOT_CAPABLE != 0 => None,
        CONGESTION => Some(0),
        _ if seen & CONGESTION != 0 => Some(3),
        _ => Some(0),
    }
}

fn bucket(hash: u64) -> usize {
    (hash >> 40) as usize & (HEADS - 1)
}

fn source_bucket(address: u32, seed: u64) -> usize {
    bucket((u64::from(address) ^ seed >> 32).wrapping_mul(seed | 1))
}
