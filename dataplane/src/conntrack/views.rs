//! How large the table is made, and the views of it while it changes to another size.
//!
//! A [`Shared`] is a view: its records, credits and seed are those of all others, its indexes are
//! seen as the step says that the lcore has reached ([`super::index`]). Only the control core makes
//! views and arrays, and only it frees them.

use super::chunks::FreeList;
use super::index::Index;
use super::store::{MAX_LIMIT, SetupError, Shared};

/// Lines of the index for a limit of `max` conns and at least `hashsize` slots.
pub fn index_lines(max: u32, hashsize: u32) -> u64 {
    Index::buckets_for(2 * max as u64, 50).max(Index::buckets_for(hashsize.into(), 100)).into()
}

/// Lines of the by-source index for a limit of `max` conns.
pub(super) fn source_lines(max: u32) -> u64 {
    Index::buckets_for(max.into(), 75).into()
}

/// The arrays of another size for a table, on their way ([`Shared::resized`]).
#[derive(Debug)]
pub struct Arrays {
    pub(super) index: Index,
    /// `None` leaves it as it is.
    by_source: Option<Index>,
    pub(super) largest: u32,
}

/// Which index a piece of moving is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of tuples.
    Tuples,
    /// Of translated sources.
    Sources,
}

/// How far a change of size has come ([`super::index`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Both arrays are looked at.
    Looking,
    /// Entries move.
    Moving,
    /// The new arrays alone.
    New,
}

impl Shared {
    /// Empty arrays to change this table to, for a limit of `max` conns and at least `hashsize`
    /// slots. Memory is made here and touched. Control core only.
    pub fn arrays(&self, max: u32, hashsize: u32) -> Result<Arrays, SetupError> {
        let stays = source_lines(max) == u64::from(self.by_source.buckets());
        let mut arrays = Shared::make_arrays(max, hashsize)?;
        if !stays {
            arrays.by_source = Some(Index::with_buckets(source_lines(max) as u32)?);
        }
        Ok(arrays)
    }

    pub(super) fn make_arrays(max: u32, hashsize: u32) -> Result<Arrays, SetupError> {
        if max > MAX_LIMIT {
            return Err(SetupError::AboveLargest { max, largest: MAX_LIMIT });
        }
        Ok(Arrays {
            index: Index::with_buckets(index_lines(max, hashsize) as u32)?,
            by_source: None,
            // At this many, all with NAT, the load is 3/4, where 1 confirm in 14 000 finds no room.
            largest: (max + max / 2).min(MAX_LIMIT.max(max)),
        })
    }

    /// Bytes that [`Shared::arrays`] takes.
    pub fn bytes_of_arrays(max: u32, hashsize: u32) -> u64 {
        (index_lines(max, hashsize) + source_lines(max)) * 64
    }

    /// The view of a step from the arrays of this one, which must be a view without another beside
    /// it, to `next`.
    pub fn resized(&self, next: &Arrays, step: Step) -> Shared {
        let view = |old: &Index, new: &Index| match step {
            Step::Looking => old.looking(new),
            Step::Moving => old.moving(new),
            Step::New => new.clone(),
        };
        Shared {
            index: view(&self.index, &next.index),
            by_source: match &next.by_source {
                Some(next) => view(&self.by_source, next),
                None => self.by_source.clone(),
            },
            // Raised when the new arrays stand alone.
            largest: if step == Step::New { next.largest } else { self.largest.min(next.largest) },
            ..self.clone()
        }
    }

    /// Record numbers, and extension blocks if there are any, for a limit of `max` conns. Control
    /// core only.
    pub fn raise_records(&self, max: u32, extensions: bool) {
        let hoards = self.out_of_reach + FreeList::HOARD;
        self.records.raise(max.saturating_add(hoards));
        self.counts.raise(max.saturating_add(hoards));
        if extensions {
            self.extensions.raise(max.saturating_add(self.out_of_reach));
        }
    }
}
