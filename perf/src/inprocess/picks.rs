//! Which conn is next: uniform, or after Zipf's law with exponent 1, where the conn of rank k comes
//! in proportion to 1/k.
//!
//! Uniform numbers are worked out as they are needed. Those after Zipf's law are drawn beforehand,
//! by rejection against the integral of 1/x (Hörmann and Derflinger), which needs no table of a
//! million weights; ranks are scattered over the conns, so that the frequent ones are no
//! neighbours.

use std::sync::Arc;

/// Numbers that are drawn beforehand; more than any second-level cache has lines.
const DRAWN: usize = 1 << 22;

/// A stream of numbers below a bound, without end.
#[derive(Clone, Debug)]
pub(crate) enum Picks {
    Uniform { state: u64, bound: u32 },
    Drawn { numbers: Arc<[u32]>, at: usize },
}

/// How packets are spread over conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    Uniform,
    Zipf,
}

impl Spread {
    pub(crate) const ALL: [Spread; 2] = [Spread::Uniform, Spread::Zipf];

    /// As it is called in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Spread::Uniform => "uniform",
            Spread::Zipf => "Zipf 1.0",
        }
    }

    /// Numbers below `bound`.
    pub(crate) fn picks(self, bound: u32, seed: u64) -> Picks {
        match self {
            Spread::Uniform => Picks::uniform(bound, seed),
            Spread::Zipf => Picks::zipf(bound, seed),
        }
    }
}

impl Picks {
    /// Each number as probable as any other.
    pub(crate) fn uniform(bound: u32, seed: u64) -> Picks {
        Picks::Uniform { state: seed, bound }
    }

    /// After Zipf's law.
    pub(crate) fn zipf(bound: u32, seed: u64) -> Picks {
        let mut state = seed;
        let mut random = move || (random(&mut state) >> 11) as f64 / (1u64 << 53) as f64;
        let most = f64::from(bound);
        let (least, greatest) = (1.5_f64.ln() - 1.0, (most + 0.5).ln());
        let draw = |_| loop {
            let u = greatest + random() * (least - greatest);
            let rank = u.exp().round().clamp(1.0, most);
            if u >= (rank + 0.5).ln() - 1.0 / rank {
                break scatter(rank as u32 - 1, bound);
            }
        };
        Picks::Drawn { numbers: (0..DRAWN).map(draw).collect(), at: 0 }
    }

    /// The next number.
    #[inline]
    pub(crate) fn next(&mut self) -> u32 {
        match self {
            Picks::Uniform { state, bound } => {
                (((random(state) >> 32) * u64::from(*bound)) >> 32) as u32
            }
            Picks::Drawn { numbers, at } => {
                let number = numbers.get(*at).copied().unwrap_or_default();
                *at = if *at + 1 < numbers.len() { *at + 1 } else { 0 };
                number
            }
        }
    }
}

/// Another number below `bound` for each one: the factor is a prime that divides no bound here.
fn scatter(number: u32, bound: u32) -> u32 {
    (u64::from(number) * 2_654_435_761 % u64::from(bound.max(1))) as u32
}

/// SplitMix64.
#[inline]
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uniform_numbers_reach_everything_below_their_bound() {
        let mut picks = Spread::Uniform.picks(1000, 1);
        let mut seen = [0u32; 1000];
        (0..100_000).for_each(|_| seen[picks.next() as usize] += 1);
        assert!(seen.iter().all(|n| (50..170).contains(n)));
    }

    #[test]
    fn zipf_s_ranks_come_in_proportion_to_their_inverse() {
        let mut picks = Spread::Zipf.picks(10_000, 1);
        let mut seen = vec![0u32; 10_000];
        (0..DRAWN).for_each(|_| seen[picks.next() as usize] += 1);
        let harmonic: f64 = (1..=10_000).map(|k| 1.0 / f64::from(k)).sum();
        for rank in [1, 2, 3, 10, 100, 1000] {
            let wanted = DRAWN as f64 / harmonic / f64::from(rank);
            let found = f64::from(seen[scatter(rank - 1, 10_000) as usize]);
            assert!((found / wanted - 1.0).abs() < 0.15, "rank {rank}: {found} of {wanted}");
        }
        let scattered: std::collections::HashSet<u32> =
            (0..10_000).map(|n| scatter(n, 10_000)).collect();
        assert_eq!(scattered.len(), 10_000);
    }
}
