//! Times in nanoseconds, counted in classes a sixty-fourth wide at most.
//!
//! A fixed array: adding is a few instructions and never allocates, so that the generator that does
//! it keeps its pace.

/// Classes per doubling.
const STEPS: u64 = 64;
/// Doublings above the first [`STEPS`] nanoseconds; longer times are the longest class.
const DOUBLINGS: usize = 34;

/// How often a time fell into a class.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    classes: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { classes: vec![0; STEPS as usize * (DOUBLINGS + 1)], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Adds a time.
    #[inline]
    pub(super) fn add(&mut self, ns: u64) {
        let class = class(ns).min(self.classes.len() - 1);
        self.classes[class] += 1;
        self.count += 1;
        self.max = self.max.max(ns);
    }

    /// Times added.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The time that a share of `part` does not exceed, to a sixty-fourth; 0 of none.
    pub(super) fn quantile(&self, part: f64) -> u64 {
        let wanted = ((self.count as f64 * part).ceil() as u64).max(1);
        let mut seen = 0;
        for (class, &times) in self.classes.iter().enumerate() {
            seen += times;
            if seen >= wanted {
                return last(class).min(self.max);
            }
        }
        self.max
    }
}

/// The class of a time.
fn class(ns: u64) -> usize {
    if ns < STEPS {
        return ns as usize;
    }
    let doubling = (ns / STEPS).ilog2() as u64;
    (STEPS * doubling + (ns >> doubling)) as usize
}

/// The longest time of a class.
fn last(class: usize) -> u64 {
    let class = class as u64;
    if class < STEPS {
        return class;
    }
    let doubling = class / STEPS - 1;
    ((class - STEPS * doubling + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_each_other_and_are_narrow() {
        for ns in (0..200_000).chain([1 << 33, (1 << 33) + 1]) {
            let end = last(class(ns));
            assert!(end >= ns && end - ns <= ns / STEPS, "{ns}: {end}");
            assert_eq!(class(end + 1), class(ns) + 1, "{ns}");
        }
    }

    #[test]
    fn quantiles_are_those_of_the_times() {
        let mut times = Histogram::default();
        (1..=1000).for_each(|ns| times.add(ns * 100));
        let near = |part, ns: u64| times.quantile(part).abs_diff(ns) <= ns / STEPS;
        assert!(near(0.5, 50_000) && near(0.99, 99_000) && near(0.999, 99_900));
        assert_eq!((times.quantile(1.0), times.max(), times.count()), (100_000, 100_000, 1000));
        times.add(u64::MAX);
        assert_eq!(times.max(), u64::MAX);
        assert_eq!(Histogram::default().quantile(0.99), 0);
    }
}
