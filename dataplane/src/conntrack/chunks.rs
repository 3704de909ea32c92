//! Numbered pieces of memory: chunks made by the control core, numbers handed out to lcores.
//!
//! A piece is `LINES` cache lines. Pieces are numbered from 0 to a limit; memory for them comes in
//! chunks of [`CHUNK`], which the control core makes ahead of demand ([`Chunks::ensure`]) and which
//! live until the end. A worker only ever finds a chunk or not. The limit can be raised
//! ([`Chunks::raise`]). Where it ended within a chunk, the rest of that chunk never gets memory,
//! and its numbers are passed over. Clones are the same pieces.
//!
//! ```text
//!   fresh ──► [0 … handed out │ … ready │ … limit]     numbers never used before
//!   shelf ──► batch ─► batch ─► batch                  full batches that lcores put back
//!               │ piece ─► piece ─► … (BATCH of them)
//!   lcore:  current batch, one full batch, a few fresh numbers        ([`FreeList`])
//! ```
//!
//! Each lcore frees into and takes from its own list, last in, first out, so that the lines it
//! gets are warm. Only whole batches cross the shelf: one compare-and-swap for [`BATCH`] pieces.
//! The next piece of a list is on its way to the cache when one is taken.
//! A free piece holds the links in its own words 0 (next of the batch) and 1 (next batch). So at
//! most [`FreeList::HOARD`] free pieces per lcore are out of everybody else's reach.

use std::sync::Arc;

use crate::arch::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::arch::sync::{AtomicU32, AtomicU64};
use crate::arch::{HugeOnce, Line, OutOfMemory, prefetch_write};

/// Pieces in one chunk: whole huge pages for 2 and for 3 lines alike (4 and 6 MiB).
pub const CHUNK: u32 = 1 << 15;

/// Pieces that cross the shelf together; few in a model, which tries every interleaving.
pub const BATCH: u32 = if cfg!(loom) { 2 } else { 64 };

/// How often taking from the shelf is tried again after a lost race; then fresh numbers serve.
const SHELF_TRIES: u32 = 64;

/// "No piece" in a link.
const NONE: u32 = u32::MAX;

/// The most pieces of one kind, whatever the limit is raised to; a model never raises it.
pub const PIECES_MAX: u32 = if cfg!(loom) { CHUNK } else { (1 << 28) + (1 << 15) };

/// All pieces of one kind.
#[derive(Clone, Debug)]
pub struct Chunks<const LINES: usize> {
    table: Arc<[HugeOnce<[Line; LINES]>]>,
    state: Arc<State>,
    /// The limit it was made with.
    first: u32,
}

#[derive(Debug)]
struct State {
    limit: AtomicU32,
    /// Numbers below this have memory.
    ready: AtomicU32,
    /// Numbers below this have been handed out at least once.
    fresh: AtomicU32,
    /// The top batch: a count of changes (against ABA) in the upper half, number + 1 below.
    shelf: AtomicU64,
}

impl<const LINES: usize> Chunks<LINES> {
    /// Room for the numbers below `limit`, without memory yet.
    pub fn new(limit: u32) -> Self {
        let state = State {
            limit: AtomicU32::new(limit),
            ready: AtomicU32::new(0),
            fresh: AtomicU32::new(0),
            shelf: AtomicU64::new(0),
        };
        let chunks = limit.max(PIECES_MAX).div_ceil(CHUNK);
        Chunks {
            table: (0..chunks).map(|_| HugeOnce::default()).collect(),
            state: Arc::new(state),
            first: limit,
        }
    }

    /// Raises the limit so that there are at least `pieces`, at most [`PIECES_MAX`]. Control core
    /// only.
    pub fn raise(&self, pieces: u32) {
        if pieces > self.limit() {
            let most = self.table.len() as u32 * CHUNK;
            let limit = pieces.saturating_add(self.hole().len() as u32);
            let limit = limit.checked_next_multiple_of(CHUNK).map_or(most, |limit| limit.min(most));
            self.state.limit.store(limit, Relaxed);
        }
    }

    /// The numbers without memory behind the first limit, once it was raised.
    fn hole(&self) -> core::ops::Range<u32> {
        self.first..self.first.next_multiple_of(CHUNK)
    }

    /// Makes sure that the numbers below `upto` (at most the limit) have memory. Control core
    /// only; allocates.
    pub fn ensure(&self, upto: u32) -> Result<(), OutOfMemory> {
        let hole = if upto > self.first { self.hole().len() as u32 } else { 0 };
        let chunks = upto.saturating_add(hole).min(self.limit()).div_ceil(CHUNK);
        let hole = self.hole();
        for (i, chunk) in (0..chunks).zip(&*self.table) {
            let rest = hole.start.saturating_sub(i * CHUNK);
            let pieces = if (1..CHUNK).contains(&rest) { rest } else { CHUNK };
            chunk.make(pieces as usize, || [(); LINES].map(|()| Line::default()))?;
            self.state.ready.fetch_max(i * CHUNK + pieces, Release);
        }
        Ok(())
    }

    /// Keeps memory for at least `reserve` numbers beyond those handed out so far. The control
    /// core calls this about once a millisecond while the table fills.
    pub fn keep_ahead(&self, reserve: u32) -> Result<(), OutOfMemory> {
        self.ensure(self.handed_out().saturating_add(reserve))
    }

    /// Numbers below this one may be in use.
    pub fn handed_out(&self) -> u32 {
        self.state.fresh.load(Relaxed)
    }

    /// The first number that can never be used.
    pub fn limit(&self) -> u32 {
        self.state.limit.load(Relaxed)
    }

    /// Bytes of memory made so far.
    pub fn bytes(&self) -> usize {
        let ready = self.state.ready.load(Relaxed);
        let hole = if ready > self.first { self.hole().len() as u32 } else { 0 };
        (ready - hole) as usize * LINES * size_of::<Line>()
    }

    /// The lines of piece `number`; `None` while its chunk has no memory.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Option<&[Line; LINES]> {
        self.table.get((number / CHUNK) as usize)?.get((number % CHUNK) as usize)
    }

    /// Brings a piece in that will be written soon: the one that comes after the one just taken.
    #[inline]
    fn prefetch(&self, number: u32) {
        for line in self.get(number).into_iter().flatten() {
            prefetch_write(line);
        }
    }

    /// The next never-used numbers, at most [`BATCH`] of them.
    fn take_fresh(&self) -> core::ops::Range<u32> {
        let ready = self.state.ready.load(Acquire);
        let hole = self.hole();
        let batch = |from: u32| {
            let from = if hole.contains(&from) { hole.end } else { from };
            let end = if from < hole.start { ready.min(hole.start) } else { ready };
            from..end.min(from.saturating_add(BATCH))
        };
        let step = |from: u32| Some(batch(from)).filter(|b| !b.is_empty()).map(|b| b.end);
        self.state.fresh.fetch_update(Relaxed, Relaxed, step).map_or(0..0, batch)
    }

    #[inline]
    fn link(&self, number: u32, word: usize) -> Option<&AtomicU64> {
        self.get(number)?.first()?.0.get(word)
    }

    /// Puts a full batch, linked from `head`, on the shelf.
    ///
    /// A lost race means that another lcore's swap won, and each lcore swaps at most once per
    /// [`BATCH`] pieces: the loop ends after at most a few rounds.
    fn put_batch(&self, head: u32) {
        let Some(next) = self.link(head, 1) else { return };
        loop {
            let top = self.state.shelf.load(Relaxed);
            next.store(top & 0xffff_ffff, Relaxed);
            let new = (top >> 32).wrapping_add(1) << 32 | (head as u64 + 1);
            if self.state.shelf.compare_exchange(top, new, Release, Relaxed).is_ok() {
                return;
            }
        }
    }

    /// Takes a full batch from the shelf; returns its head.
    fn take_batch(&self) -> Option<u32> {
        for _ in 0..SHELF_TRIES {
            let top = self.state.shelf.load(Acquire);
            let head = (top as u32).checked_sub(1)?;
            // If another lcore took this batch meanwhile the link may be anything; the count of
            // changes then differs and the swap fails.
            let next = self.link(head, 1)?.load(Relaxed) & 0xffff_ffff;
            let new = (top >> 32).wrapping_add(1) << 32 | next;
            if self.state.shelf.compare_exchange(top, new, AcqRel, Relaxed).is_ok() {
                return Some(head);
            }
        }
        None
    }
}

/// One lcore's free pieces.
#[derive(Debug)]
pub struct FreeList {
    current: u32,
    current_len: u32,
    /// A second, full batch, so that a list at the border of a batch does not visit the shelf
    /// at every step.
    full: u32,
    fresh: core::ops::Range<u32>,
}

impl Default for FreeList {
    fn default() -> Self {
        FreeList { current: NONE, current_len: 0, full: NONE, fresh: 0..0 }
    }
}

impl FreeList {
    /// The most free pieces that one list can hold.
    pub const HOARD: u32 = 3 * BATCH;

    /// Takes a piece; `None` if neither this list nor the shelf nor the chunks have one.
    #[inline]
    pub fn pop<const LINES: usize>(&mut self, chunks: &Chunks<LINES>) -> Option<u32> {
        if self.current_len == 0 {
            let batch = match core::mem::replace(&mut self.full, NONE) {
                NONE => chunks.take_batch(),
                batch => Some(batch),
            };
            let Some(batch) = batch else { return self.pop_fresh(chunks) };
            self.current = batch;
            self.current_len = BATCH;
        }
        let number = self.current;
        self.current = chunks.link(number, 0)?.load(Relaxed) as u32;
        self.current_len -= 1;
        if self.current_len > 0 {
            chunks.prefetch(self.current);
        }
        Some(number)
    }

    #[cold]
    fn pop_fresh<const LINES: usize>(&mut self, chunks: &Chunks<LINES>) -> Option<u32> {
        if self.fresh.is_empty() {
            self.fresh = chunks.take_fresh();
        }
        let number = self.fresh.next();
        chunks.prefetch(self.fresh.start);
        number
    }

    /// Gives a piece back. Its words 0 and 1 are overwritten.
    #[inline]
    pub fn push<const LINES: usize>(&mut self, chunks: &Chunks<LINES>, number: u32) {
        if self.current_len == BATCH {
            if self.full != NONE {
                chunks.put_batch(self.full);
            }
            self.full = self.current;
            self.current_len = 0;
        }
        if let Some(link) = chunks.link(number, 0) {
            link.store(self.current as u64, Relaxed);
            self.current = number;
            self.current_len += 1;
        }
    }
}
