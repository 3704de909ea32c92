//! Fixed slices that start on a 2 MiB boundary, so that the kernel can back them by huge pages.
//!
//! Random access to a table of a million conns on 4 KiB pages loses about a third to TLB misses.
//! Memory is asked for once, by the control core, and every element is written there, so no page
//! fault is left for the packet path. A slice never grows and never moves. Clones share it; the
//! last one to go frees it, so whoever must not free memory sees to it that somebody else holds
//! one.

use core::alloc::Layout;
use core::fmt;
use core::mem::needs_drop;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicPtr, AtomicUsize};
use std::sync::Arc;

/// The size and alignment of a huge page.
const HUGE: usize = 2 << 20;

/// The allocator refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// How much was asked for.
    pub bytes: usize,
}

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot allocate {} bytes", self.bytes)
    }
}

impl core::error::Error for OutOfMemory {}

/// A shared slice of fixed length; 2 MiB aligned from 2 MiB on. `T` must not need dropping.
pub struct HugeSlice<T> {
    /// Where `memory` begins, kept here so that an access is one load less.
    start: NonNull<T>,
    len: usize,
    memory: Arc<Memory<T>>,
}

/// The allocation, freed when the last slice goes.
struct Memory<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T> HugeSlice<T> {
    /// `len` elements, each made by `fill`.
    pub fn new(len: usize, fill: impl Fn() -> T) -> Result<Self, OutOfMemory> {
        let memory = Memory::new(len, fill)?;
        Ok(HugeSlice { start: memory.start, len, memory: Arc::new(memory) })
    }
}

impl<T> Memory<T> {
    fn new(len: usize, fill: impl Fn() -> T) -> Result<Self, OutOfMemory> {
        const { assert!(!needs_drop::<T>()) }
        const { assert!(size_of::<T>() > 0) }
        let bytes = len.saturating_mul(size_of::<T>());
        if len == 0 {
            return Ok(Memory { start: NonNull::dangling(), len });
        }
        let layout = Self::layout(len).ok_or(OutOfMemory { bytes })?;
        // SAFETY: the layout's size is not zero, since neither `len` nor the size of `T` is.
        let raw = unsafe { std::alloc::alloc(layout) };
        let start = NonNull::new(raw.cast::<T>()).ok_or(OutOfMemory { bytes })?;
        advise(raw, bytes);
        let memory = Memory { start, len };
        for i in 0..len {
            // SAFETY: `start` is aligned for `T` and valid for `len` elements (the layout), and
            // `i < len`. A panic in `fill` frees the memory without dropping any element.
            unsafe { start.add(i).write(fill()) }
        }
        Ok(memory)
    }

    fn layout(len: usize) -> Option<Layout> {
        let plain = Layout::array::<T>(len).ok()?;
        if plain.size() < HUGE { Some(plain) } else { plain.align_to(HUGE).ok() }
    }
}

impl<T> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `start` is valid for `len` elements that `new` has written, as long as `memory`
        // lives, and nobody holds a mutable reference: none is ever handed out.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Clone for HugeSlice<T> {
    fn clone(&self) -> Self {
        HugeSlice { start: self.start, len: self.len, memory: Arc::clone(&self.memory) }
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        if let (true, Some(layout)) = (self.len > 0, Self::layout(self.len)) {
            // SAFETY: allocated in `new` with this same layout; elements need no drop.
            unsafe { std::alloc::dealloc(self.start.as_ptr().cast(), layout) }
        }
    }
}

// SAFETY: slices hand out shared references only, from any thread, and the last one may free the
// memory on any: as an `Arc<[T]>` does.
unsafe impl<T: Send + Sync> Send for HugeSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for HugeSlice<T> {}
// SAFETY: the memory is reached through slices alone, which promise the same.
unsafe impl<T: Send + Sync> Send for Memory<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Memory<T> {}

/// Room for a slice that is made later, once, while others look already; it lives as long as this
/// does. To look is two loads: what is looked up for every packet needs no more.
pub struct HugeOnce<T> {
    /// Null until the slice is made.
    start: AtomicPtr<T>,
    /// 0 until `start` is there.
    len: AtomicUsize,
}

impl<T> Default for HugeOnce<T> {
    fn default() -> Self {
        HugeOnce { start: AtomicPtr::default(), len: AtomicUsize::new(0) }
    }
}

impl<T> HugeOnce<T> {
    /// True once there is a slice.
    pub fn is_made(&self) -> bool {
        self.len.load(Acquire) > 0
    }

    /// Makes a slice of `len` elements, each made by `fill`, unless there is one.
    pub fn make(&self, len: usize, fill: impl Fn() -> T) -> Result<(), OutOfMemory> {
        if len == 0 || self.is_made() {
            return Ok(());
        }
        let memory = Memory::new(len, fill)?;
        let new = memory.start.as_ptr();
        // A second caller at the same time frees its own again.
        if self.start.compare_exchange(core::ptr::null_mut(), new, AcqRel, Relaxed).is_ok() {
            self.len.store(len, Release);
            core::mem::forget(memory);
        }
        Ok(())
    }

    /// An element; `None` if the slice is shorter, or not there yet.
    #[inline(always)]
    pub fn get(&self, i: usize) -> Option<&T> {
        if i >= self.len.load(Acquire) {
            return None;
        }
        // SAFETY: `len` is what `make` has written, after `start`, which is not null then, and all
        // elements, of memory that nobody frees before `self` goes; `i` lies within, and no mutable
        // reference is handed out.
        Some(unsafe { NonNull::new_unchecked(self.start.load(Relaxed)).add(i).as_ref() })
    }
}

impl<T> Drop for HugeOnce<T> {
    fn drop(&mut self) {
        if let Some(start) = NonNull::new(*self.start.get_mut()) {
            drop(Memory { start, len: *self.len.get_mut() });
        }
    }
}

impl<T> fmt::Debug for HugeOnce<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeOnce({})", self.len.load(Relaxed))
    }
}

// SAFETY: as of a `OnceLock<Box<[T]>>`: shared references only, freed by whoever has the last.
unsafe impl<T: Send + Sync> Send for HugeOnce<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for HugeOnce<T> {}

impl<T> fmt::Debug for HugeSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeSlice({})", self.len)
    }
}

/// Asks for huge pages; a kernel that has none to give serves small ones.
fn advise(start: *mut u8, bytes: usize) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if bytes >= HUGE {
        unsafe extern "C" {
            fn madvise(addr: *mut u8, len: usize, advice: i32) -> i32;
        }
        const MADV_HUGEPAGE: i32 = 14;
        // SAFETY: the range was just allocated, is page aligned (2 MiB) and ours alone; the
        // advice changes no contents, and failure means only that pages stay small.
        unsafe { madvise(start, bytes, MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (start, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_slices_start_on_a_huge_page_and_hold_what_was_filled() {
        for len in [0usize, 1, 1000, 300_000] {
            let slice = HugeSlice::new(len, || 7u64).unwrap();
            assert_eq!(slice.len(), len);
            assert!(slice.iter().all(|&x| x == 7));
            if len * 8 >= HUGE {
                assert_eq!(slice.as_ptr() as usize % HUGE, 0);
            }
        }
    }

    #[test]
    fn a_clone_is_the_same_memory_and_outlives_the_first() {
        let first = HugeSlice::new(300_000, || 7u64).unwrap();
        let second = first.clone();
        assert_eq!(first.as_ptr(), second.as_ptr());
        drop(first);
        assert!(second.iter().all(|&x| x == 7));
    }

    #[test]
    fn what_is_made_once_is_found_and_stays() {
        let room = HugeOnce::<u64>::default();
        assert!(!room.is_made() && room.get(0).is_none());
        room.make(300_000, || 7).unwrap();
        room.make(1, || 8).unwrap();
        assert!(room.is_made());
        assert_eq!((room.get(299_999), room.get(300_000)), (Some(&7), None));
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        assert!(HugeSlice::new(usize::MAX / 4, || 0u64).is_err());
        assert!(HugeSlice::new(1 << 44, || 0u64).is_err());
    }
}
