//! `-m limit`: a bucket of tokens, one for the rule.
//!
//! iptables 1.8.9 (nf_tables) makes the kernel's own `limit` of it (`nft_limit_eval`), not
//! `xt_limit`: time is counted in nanoseconds, a packet costs the unit divided by the rate, the
//! bucket holds `burst` times that, is full at first and fills with time. So it is here.
//!
//! A [`Bucket`] is one word: when it will be full again. What is in it at a moment follows from
//! that, and to take a packet's cost moves the word on by that much. With several workers the rule
//! never lets more packets pass than one worker would have let; a worker whose clock is a moment
//! behind, or that lost [`TRIES`] races in a row, finds less in the bucket than there is.

use super::super::kept::{Apart, Kept, TRIES};
use crate::arch::sync::{AtomicU64, Ordering::Relaxed};

const NS_PER_SEC: u64 = 1_000_000_000;

/// `-m limit` (`struct nft_limit_priv_pkts`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Packets in `per_secs`, not 0.
    pub rate: u32,
    /// The unit in seconds: 1, 60, 3600 or 86,400.
    pub per_secs: u32,
    /// Packets that may come at once, not 0.
    pub burst: u32,
    /// What is left.
    pub bucket: Kept<Bucket>,
}

impl Limit {
    /// Where nothing else is said, packets that may come at once (`NFT_LIMIT_PKT_BURST_DEFAULT`).
    pub const DEFAULT_BURST: u32 = 5;

    /// Nanoseconds that a packet costs.
    pub(in crate::rules) fn cost_ns(&self) -> u64 {
        u64::from(self.per_secs) * NS_PER_SEC / u64::from(self.rate.max(1))
    }

    /// As packets meet it.
    pub(in crate::rules) fn compiled(&self) -> Limited {
        let cost_ns = self.cost_ns();
        let full_ns = cost_ns.saturating_mul(self.burst.into());
        Limited { cost_ns, full_ns, bucket: self.bucket.clone() }
    }
}

/// The same, worked out.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::rules) struct Limited {
    cost_ns: u64,
    full_ns: u64,
    bucket: Kept<Bucket>,
}

impl Limited {
    /// What is left.
    pub(in crate::rules) fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Takes a packet's cost; false if the bucket does not have it.
    #[inline]
    pub(in crate::rules) fn holds(&self, now_ns: u64) -> bool {
        take(&self.bucket.full_at, now_ns, self.cost_ns, self.full_ns)
    }
}

/// A bucket that fills with time.
#[derive(Debug)]
pub struct Bucket {
    /// The moment at which it will be full, in the unit of costs.
    full_at: AtomicU64,
}

impl Apart for Bucket {
    fn apart(&self) -> Bucket {
        Bucket { full_at: self.full_at.apart() }
    }

    fn forget(&self) {
        self.full_at.forget();
    }
}

/// Full since ever.
impl Default for Bucket {
    fn default() -> Bucket {
        Bucket { full_at: AtomicU64::new(0) }
    }
}

impl Bucket {
    /// What is in it at `now`.
    #[cfg(test)]
    pub(in crate::rules) fn left(&self, now: u64, full: u64) -> u64 {
        full.saturating_sub(self.full_at.load(Relaxed).saturating_sub(now))
    }
}

/// Takes `cost` out of what a bucket that holds `full`, and will be full at the moment in the word,
/// has at `now`; false, and nothing is taken, if that is less. All in one unit of time.
#[inline]
pub(in crate::rules) fn take(word: &AtomicU64, now: u64, cost: u64, full: u64) -> bool {
    let mut full_at = word.load(Relaxed);
    for _ in 0..TRIES {
        let after = full_at.max(now).saturating_add(cost);
        if after - now > full {
            return false;
        }
        match word.compare_exchange_weak(full_at, after, Relaxed, Relaxed) {
            Ok(_) => return true,
            Err(seen) => full_at = seen,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// `nft_limit_eval`, as it is written there.
    struct Model {
        tokens: u64,
        last: u64,
        max: u64,
    }

    impl Model {
        fn holds(&mut self, now: u64, cost: u64) -> bool {
            self.tokens = (self.tokens + (now - self.last)).min(self.max);
            self.last = now;
            let enough = self.tokens >= cost;
            self.tokens -= if enough { cost } else { 0 };
            enough
        }
    }

    fn limit(rate: u32, per_secs: u32, burst: u32) -> Limit {
        Limit { rate, per_secs, burst, bucket: Kept::default() }
    }

    /// Taken from Linux 6.18 with iptables 1.8.9: six of ten pings pass a limit of one a day with a
    /// burst of six.
    #[test]
    fn a_burst_passes_at_once() {
        let day = limit(1, 86_400, 6).compiled();
        assert_eq!((0..10).filter(|i| day.holds(1 << 60 | i)).count(), 6);
    }

    #[test]
    fn a_copy_of_the_rule_has_the_same_bucket() {
        let rule = limit(1, 1, 1);
        let copy = rule.clone();
        assert!(rule.compiled().holds(5_000_000_000) && !copy.compiled().holds(5_000_000_000));
        assert_eq!(rule, limit(1, 1, 1), "and asks no more for being empty");
        assert!(copy.compiled().holds(6_000_000_000));
    }

    #[test]
    fn many_workers_take_no_more_than_there_is() {
        let rule = limit(1, 86_400, 10_000);
        let takes = |rule: &Limit| {
            let limited = rule.compiled();
            (0..8_000).filter(|i| limited.holds(1 << 60 | i)).count()
        };
        let passed: usize = thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| takes(&rule))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!(passed <= 10_000 && passed > 9_000, "{passed}");
    }

    proptest! {
        #[test]
        fn answers_are_the_kernel_s(
            rate in 1u32..2_000,
            unit in prop::sample::select(vec![1u32, 60, 3600, 86_400]),
            burst in 1u32..50,
            steps in prop::collection::vec(0u64..3_000_000_000, 1..300),
        ) {
            let rule = limit(rate, unit, burst);
            let (cost, limited) = (rule.cost_ns(), rule.compiled());
            let mut now = 1_700_000_000_000_000_000;
            let max = cost * u64::from(burst);
            let mut model = Model { tokens: max, last: now, max };
            for step in steps {
                // Often at once, so that buckets are empty too.
                now += if step % 3 == 0 { step } else { step % 1000 };
                prop_assert_eq!(limited.holds(now), model.holds(now, cost));
                prop_assert_eq!(limited.bucket.left(now, max), model.tokens);
            }
        }
    }
}
