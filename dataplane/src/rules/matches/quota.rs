//! `-m quota`: bytes that a rule may see before it stops to match (`quota_mt`).
//!
//! Who does not fit into what is left ends it: no smaller packet fits either from then on. The
//! count begins with the rule and is not saved: `iptables-save` prints what was written.
//!
//! With several workers the bytes of packets that matched never exceed the quota. Of packets that
//! are judged at the same moment any may be the one that ends it.

use super::super::kept::{Apart, Kept, TRIES};
use crate::arch::sync::{AtomicU64, Ordering::Relaxed};

/// `-m quota` (`struct xt_quota_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// `--quota` in bytes; with `!` the rule matches once they are used up.
    pub bytes: super::Maybe<u64>,
    /// Bytes used.
    pub used: Kept<Used>,
}

/// Bytes that matched.
#[derive(Debug)]
pub struct Used(AtomicU64);

impl Apart for Used {
    fn apart(&self) -> Used {
        Used(self.0.apart())
    }

    fn forget(&self) {
        self.0.forget();
    }
}

impl Default for Used {
    fn default() -> Used {
        Used(AtomicU64::new(0))
    }
}

impl Quota {
    /// Takes a packet's `length` in bytes, and says what the rule says of it.
    #[inline]
    pub fn holds(&self, length: u32) -> bool {
        self.bytes.judge(self.takes(length.into()))
    }

    fn takes(&self, length: u64) -> bool {
        let Used(used) = &*self.used;
        let mut before = used.load(Relaxed);
        for _ in 0..TRIES {
            let fits = self.bytes.value.saturating_sub(before) >= length;
            let after = if fits { before + length } else { self.bytes.value };
            match used.compare_exchange_weak(before, after, Relaxed, Relaxed) {
                Ok(_) => return fits,
                Err(seen) => before = seen,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Maybe;
    use super::*;

    fn quota(bytes: Maybe<u64>) -> Quota {
        Quota { bytes, used: Kept::default() }
    }

    /// Taken from Linux 6.18: of ten pings of 84 bytes four match a quota of 400, and six its
    /// contrary; after one that does not fit into 200 a smaller one does not either.
    #[test]
    fn counts_are_the_kernel_s() {
        let matched = |quota: Quota, sizes: &[u32]| {
            sizes.iter().filter(|&&length| quota.holds(length)).count()
        };
        assert_eq!(matched(quota(Maybe::is(400)), &[84; 10]), 4);
        assert_eq!(matched(quota(Maybe::isnt(400)), &[84; 10]), 6);
        assert_eq!(matched(quota(Maybe::is(200)), &[84, 1028, 84]), 1);
        assert_eq!(matched(quota(Maybe::is(168)), &[84, 84, 84]), 2, "to the last byte");
        assert_eq!(matched(quota(Maybe::is(u64::MAX)), &[u32::MAX; 5]), 5);
    }

    proptest! {
        #[test]
        fn answers_are_the_kernel_s(
            bytes in 0u64..5_000,
            not in any::<bool>(),
            sizes in prop::collection::vec(0u32..1_500, 0..60),
        ) {
            let rule = quota(Maybe { not, value: bytes });
            let mut left = bytes;
            for length in sizes {
                let fits = left >= u64::from(length);
                left = if fits { left - u64::from(length) } else { 0 };
                prop_assert_eq!(rule.clone().holds(length), fits != not);
            }
        }
    }
}
