//! State that a rule keeps from packet to packet: counts, buckets.
//!
//! It belongs to the rule as written. A [`Kept`] is shared by every copy of the rule, in rulesets
//! and in compiled forms, so a rule that an edit leaves alone keeps its state, and one that is
//! written anew begins anew. Two rules that ask the same are the same, whatever they have counted.
//!
//! All workers change it, each word by compare-and-swap with a bounded number of tries; the
//! control core only makes it and drops it.

use core::fmt;
use core::ops::Deref;
use std::sync::Arc;

use crate::arch::sync::{AtomicU64, Ordering::Relaxed};

/// Tries of a compare-and-swap. Each one lost is one that another worker has won; a packet that
/// loses them all is judged as if nothing were left.
pub(super) const TRIES: usize = 32;

/// State shared by all copies of a rule.
pub struct Kept<T>(Arc<T>);

impl<T> Kept<T> {
    /// State of its own.
    pub fn new(state: T) -> Kept<T> {
        Kept(Arc::new(state))
    }
}

/// State of which there can be a copy that nobody else changes.
pub trait Apart {
    /// The state as it is now, word by word: who judges by it uses nothing up.
    fn apart(&self) -> Self;

    /// Begins anew. For state that nobody else judges by.
    fn forget(&self);
}

/// State that can begin anew.
pub(super) trait Forgets {
    /// See [`Apart::forget`].
    fn forget(&self);
}

impl<T: Apart> Forgets for T {
    fn forget(&self) {
        Apart::forget(self);
    }
}

impl<T: Apart> Kept<T> {
    /// A copy of its own.
    pub(super) fn apart(&self) -> Kept<T> {
        Kept::new((**self).apart())
    }
}

impl Apart for AtomicU64 {
    fn apart(&self) -> AtomicU64 {
        AtomicU64::new(self.load(Relaxed))
    }

    fn forget(&self) {
        self.store(0, Relaxed);
    }
}

impl<T: Default> Default for Kept<T> {
    fn default() -> Kept<T> {
        Kept::new(T::default())
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Kept<T> {
        Kept(Arc::clone(&self.0))
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a rule has counted does not make it another one.
impl<T> PartialEq for Kept<T> {
    fn eq(&self, _: &Kept<T>) -> bool {
        true
    }
}

impl<T> Eq for Kept<T> {}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
