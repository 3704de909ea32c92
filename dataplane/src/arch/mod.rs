//! What safe Rust cannot say about this machine: prefetch hints and memory on huge pages.
//!
//! The only module of the crate that may use `unsafe`. Nothing here knows what a conn is; callers
//! get safe functions that cannot be misused from outside.
//!
//! A [`Line`] is one cache line of eight atomic words, the unit in which the conntrack memory is
//! counted. Words are read by anybody and written by one owner; on x86 both are plain moves.

mod huge;

pub use huge::{HugeSlice, OutOfMemory};

use core::sync::atomic::AtomicU64;

/// One 64-byte cache line of atomic words.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Line(pub [AtomicU64; 8]);

const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// Asks for the first line of `target` to be brought into the first-level cache for reading.
#[inline(always)]
pub fn prefetch_read<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that never faults and reads nothing that a program can
        // see; SSE is part of every x86-64, and the address comes from a live reference.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(target).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// The same for a line about to be written: it arrives owned, which saves the second trip that a
/// store to a shared line makes.
#[inline(always)]
pub fn prefetch_write<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        // SAFETY: as above; PREFETCHW is a no-op where the processor lacks it.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(core::ptr::from_ref(target).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
