//! What safe Rust cannot say about this machine: prefetch hints and memory on huge pages.
//!
//! The only module of the crate that may use `unsafe`. Nothing here knows what a conn is; callers
//! get safe functions that cannot be misused from outside.
//!
//! A [`Line`] is one cache line of eight atomic words, the unit in which the conntrack memory is
//! counted. Words are read by anybody and written by one owner; on x86 both are plain moves.

mod huge;
#[cfg(feature = "count-lines")]
pub mod lines;
mod spin;
pub mod sync;

pub use huge::{HugeOnce, HugeSlice, OutOfMemory};
pub use spin::Spin;

use sync::AtomicU64;
#[cfg(any(loom, not(all(target_arch = "x86_64", target_feature = "avx2"))))]
use sync::Ordering::Relaxed;

/// One 64-byte cache line of atomic words.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Line(pub [AtomicU64; 8]);

// Loom's words are larger; nothing depends on addresses there.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

/// A bit for each of the seven slots of a bucket whose upper 16 bits are `tag` at the moment of
/// looking. Whoever acts on a bit reads the slot again.
#[inline(always)]
pub fn tagged(slots: &[AtomicU64; 7], tag: u64) -> u32 {
    #[cfg(all(target_arch = "x86_64", target_feature = "avx2", not(loom)))]
    {
        use core::arch::x86_64::{
            _mm256_castsi256_pd, _mm256_cmpeq_epi64, _mm256_loadu_si256, _mm256_movemask_pd,
            _mm256_set1_epi64x, _mm256_srli_epi64,
        };
        let words: *const AtomicU64 = slots.as_ptr();
        // SAFETY: AVX2 is a feature this is compiled for. Both loads lie within the seven words, of
        // which they share one. The words may be stored to by other threads meanwhile: an aligned
        // 8-byte lane of a vector load is read whole on every x86-64 with AVX, so each lane is a
        // value the word has had, which is what a relaxed load gives; the values only decide which
        // words are read again.
        unsafe {
            let wanted = _mm256_set1_epi64x(tag as i64);
            let half = |at: usize| {
                let four = _mm256_loadu_si256(words.add(at).cast());
                let equal = _mm256_cmpeq_epi64(_mm256_srli_epi64::<48>(four), wanted);
                _mm256_movemask_pd(_mm256_castsi256_pd(equal)) as u32
            };
            half(0) | half(3) << 3
        }
    }
    #[cfg(any(loom, not(all(target_arch = "x86_64", target_feature = "avx2"))))]
    {
        let bit = |word: &AtomicU64| (word.load(Relaxed) >> 48 == tag) as u32;
        slots.iter().enumerate().fold(0, |mask, (i, word)| mask | bit(word) << i)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_with_the_tag_and_no_other_is_named() {
        let word = |tag: u64, low: u64| AtomicU64::new(tag << 48 | low);
        let line = [
            word(7, 1),
            word(8, 7),
            word(0xffff, 7),
            word(7, 0xffff_ffff_ffff),
            word(0, 7),
            word(7, 0),
            word(0x8007, 7),
        ];
        assert_eq!(tagged(&line, 7), 0b010_1001);
        assert_eq!(tagged(&line, 0xffff), 0b100);
        assert_eq!(tagged(&line, 0), 0b1_0000);
        assert_eq!(tagged(&line, 0x8007), 0b100_0000);
        assert_eq!(tagged(&line, 9), 0);
    }
}
