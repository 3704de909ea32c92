//! Up to 64 packets that travel together: what a poll receives and what a send hands over.

use std::fmt;
use std::ops::{Deref, DerefMut};

use arrayvec::ArrayVec;

use crate::ffi;
use crate::mbuf::Mbuf;

/// Most mbufs in a [`Burst`].
pub const BURST_MAX: usize = 64;

/// A fixed array of mbufs with the memory layout of DPDK's `struct rte_mbuf *[]`, so that receive
/// and send work on it in place. A slice of [`Mbuf`] by deref; dropping it frees all in one call.
#[derive(Default)]
#[repr(transparent)]
pub struct Burst {
    mbufs: ArrayVec<Mbuf, BURST_MAX>,
}

impl Burst {
    /// An empty burst.
    pub fn new() -> Self {
        Self::default()
    }

    /// An array of mbufs as a burst, in place: for who keeps bursts in arrays of his own.
    #[inline]
    pub fn wrap(mbufs: &mut ArrayVec<Mbuf, BURST_MAX>) -> &mut Burst {
        // SAFETY: Burst is transparent over this very type and adds no condition of its own, so a
        // pointer to one is a pointer to the other; the borrow is passed on.
        unsafe { &mut *core::ptr::from_mut(mbufs).cast() }
    }

    /// How many more mbufs it can take.
    #[inline]
    pub fn room(&self) -> usize {
        self.mbufs.remaining_capacity()
    }

    /// Adds an mbuf at the end.
    ///
    /// # Errors
    /// Gives the mbuf back if the burst is full.
    #[inline]
    pub fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        self.mbufs.try_push(mbuf).map_err(|full| full.element())
    }

    /// Takes the last mbuf.
    #[inline]
    pub fn pop(&mut self) -> Option<Mbuf> {
        self.mbufs.pop()
    }

    /// Takes the mbuf at `index` and puts the last one in its place; `None` if there is none.
    #[inline]
    pub fn swap_take(&mut self, index: usize) -> Option<Mbuf> {
        self.mbufs.swap_pop(index)
    }

    /// Takes all mbufs, in order; those not taken when the iterator drops are freed.
    #[inline]
    pub fn drain(&mut self) -> impl DoubleEndedIterator<Item = Mbuf> + ExactSizeIterator {
        self.mbufs.drain(..)
    }

    /// Keeps the mbufs that `keep` wants, in order, and frees the others.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut Mbuf) -> bool) {
        self.mbufs.retain(|mbuf| keep(mbuf));
    }

    /// Frees all mbufs in one call.
    #[inline]
    pub fn clear(&mut self) {
        let count = self.mbufs.len();
        if count == 0 {
            return;
        }
        // SAFETY: the first `count` slots are owned mbufs; the length is reset first, so they are
        // freed here and nowhere else.
        unsafe {
            self.mbufs.set_len(0);
            ffi::rte_pktmbuf_free_bulk(self.raw(), count as u32);
        }
    }

    /// All slots as C sees them.
    #[inline]
    pub(crate) fn raw(&mut self) -> *mut *mut ffi::rte_mbuf {
        // Mbuf is transparent over the pointer.
        self.mbufs.as_mut_ptr().cast()
    }

    /// The first free slot as C sees it; [`Self::room`] slots follow.
    #[inline]
    pub(crate) fn spare(&mut self) -> *mut *mut ffi::rte_mbuf {
        let len = self.mbufs.len();
        // SAFETY: len is at most the capacity, so this is within the array or one past it.
        unsafe { self.raw().add(len) }
    }

    /// Counts `count` more slots as filled.
    ///
    /// # Safety
    /// The first `count` slots of [`Self::spare`] hold mbufs as [`Mbuf::from_raw`] wants them, and
    /// `count` is at most [`Self::room`].
    #[inline]
    pub(crate) unsafe fn grow(&mut self, count: usize) {
        debug_assert!(count <= self.room());
        // SAFETY: the caller filled them.
        unsafe { self.mbufs.set_len(self.mbufs.len() + count) };
    }

    /// Forgets the first `count` mbufs and moves the others to the front.
    ///
    /// # Safety
    /// Something else owns the first `count` mbufs now, and `count` is at most the length.
    #[inline]
    pub(crate) unsafe fn forget_front(&mut self, count: usize) {
        debug_assert!(count <= self.mbufs.len());
        let left = self.mbufs.len() - count;
        let slots = self.raw();
        // SAFETY: both ranges lie within the array; the `left` mbufs are moved, not copied, as the
        // length then covers them only once.
        unsafe {
            slots.copy_from(slots.add(count), left);
            self.mbufs.set_len(left);
        }
    }
}

impl Drop for Burst {
    #[inline]
    fn drop(&mut self) {
        self.clear();
    }
}

impl Deref for Burst {
    type Target = [Mbuf];

    #[inline]
    fn deref(&self) -> &[Mbuf] {
        &self.mbufs
    }
}

impl DerefMut for Burst {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Mbuf] {
        &mut self.mbufs
    }
}

impl fmt::Debug for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::Mempool;
    use crate::rig;

    #[test]
    fn takes_keep_order_and_count() {
        let _eal = rig::eal();
        let pool = Mempool::create("burst", 127, 0, 2176, None).unwrap();
        let mut burst = Burst::new();
        for n in 0..BURST_MAX {
            burst.push(rig::packet(&pool, &[n as u8])).unwrap();
        }
        let refused = burst.push(rig::packet(&pool, b"x")).unwrap_err();
        assert_eq!(refused.head(), b"x");
        drop(refused);
        assert_eq!((burst.len(), burst.room()), (BURST_MAX, 0));
        burst.retain(|mbuf| mbuf.head()[0] % 2 == 0);
        assert_eq!(burst.len(), 32);
        assert_eq!(burst.swap_take(1).unwrap().head(), [2]);
        assert_eq!(burst[1].head(), [62]);
        assert!(burst.swap_take(31).is_none());
        assert_eq!(burst.pop().unwrap().head(), [60]);
        assert_eq!(pool.avail(), 127 - 30);
        let first: Vec<u8> = burst.drain().take(3).map(|mbuf| mbuf.head()[0]).collect();
        assert_eq!(first, [0, 62, 4]);
        assert!(burst.is_empty());
        assert_eq!(pool.avail(), 127);
    }

    #[test]
    fn a_dropped_burst_frees_chains_too() {
        let _eal = rig::eal();
        let pool = Mempool::create("chains", 31, 0, 2176, None).unwrap();
        let mut burst = Burst::new();
        for _ in 0..5 {
            let mut mbuf = rig::packet(&pool, b"head");
            mbuf.chain(rig::packet(&pool, b"tail")).unwrap();
            burst.push(mbuf).unwrap();
        }
        assert_eq!(pool.avail(), 21);
        drop(burst);
        assert_eq!(pool.avail(), 31);
    }
}
