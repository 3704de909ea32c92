//! Time as the packet path sees it: an argument, never a clock read.
//!
//! The poll loop reads the clock once per burst and hands a [`Now`] down. Deadlines are stored as
//! absolute [`Tick`]s, so a changed timeout moves no live timer, as in the kernel.

/// Ticks per second.
pub const TICKS_PER_SEC: u32 = 100;

/// The longest timeout that a wrapping [`Tick`] can express, in seconds (248 days).
pub const MAX_TIMEOUT_SECS: u32 = (i32::MAX as u32) / TICKS_PER_SEC - 1;

/// A moment in hundredths of a second since the process' own origin. Wraps after 497 days, so
/// moments are only compared while they lie within 248 days of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// The moment `secs` seconds later; more than [`MAX_TIMEOUT_SECS`] counts as that.
    #[inline]
    pub fn plus_secs(self, secs: u32) -> Tick {
        Tick(self.0.wrapping_add(secs.min(MAX_TIMEOUT_SECS) * TICKS_PER_SEC))
    }

    /// True once `now` has reached this moment.
    #[inline]
    pub fn has_passed(self, now: Tick) -> bool {
        (self.0.wrapping_sub(now.0) as i32) <= 0
    }

    /// The earlier of two moments.
    #[inline]
    pub fn earlier(self, other: Tick) -> Tick {
        if self.has_passed(other) { self } else { other }
    }

    /// Nanoseconds since this moment, 0 before it.
    #[inline]
    pub fn passed_ns(self, now: Tick) -> u64 {
        let ticks = if self.has_passed(now) { now.0.wrapping_sub(self.0) } else { 0 };
        ticks as u64 * (1_000_000_000 / TICKS_PER_SEC as u64)
    }

    /// Whole seconds left until this moment, 0 once it has passed (`nf_ct_expires`).
    #[inline]
    pub fn remaining_secs(self, now: Tick) -> u32 {
        if self.has_passed(now) { 0 } else { self.0.wrapping_sub(now.0) / TICKS_PER_SEC }
    }
}

/// What one burst knows of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For every deadline.
    pub tick: Tick,
    /// Nanoseconds since 1970, for time stamps, rates and rules that ask for it. The daemon takes
    /// the wall clock at its start and adds what a monotonic clock says has passed, so this does
    /// not step when the wall clock is set. Workers read it at different moments: a later packet
    /// may have an earlier time by as much as a round of the poll loop takes.
    pub unix_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_survive_the_wrap() {
        let now = Tick(u32::MAX - 50);
        let due = now.plus_secs(2);
        assert!(!due.has_passed(now));
        assert_eq!(due.remaining_secs(now), 2);
        assert!(due.has_passed(Tick(149)));
        assert_eq!(due.remaining_secs(Tick(149)), 0);
        assert_eq!((due.passed_ns(now), due.passed_ns(Tick(151))), (0, 20_000_000));
    }

    #[test]
    fn a_huge_timeout_is_capped_and_still_lies_ahead() {
        let now = Tick(7);
        assert!(!now.plus_secs(u32::MAX).has_passed(now));
        assert_eq!(now.plus_secs(u32::MAX).remaining_secs(now), MAX_TIMEOUT_SECS);
    }
}
