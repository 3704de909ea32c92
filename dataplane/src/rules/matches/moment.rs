//! `-m time`: by the wall clock, in UTC.
//!
//! `--kerneltz` asks for the time zone that the kernel was told, which is UTC unless a box keeps
//! its hardware clock in local time. Here nobody tells, so it is UTC.

use crate::rules::facts::Facts;

/// `-m time` (`struct xt_time_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// `--datestart`: seconds since 1970, inclusive.
    pub first: u32,
    /// `--datestop`, inclusive.
    pub last: u32,
    /// `--timestart`: seconds of the day, inclusive.
    pub from: u32,
    /// `--timestop`, inclusive; before `from` it is the next day's.
    pub to: u32,
    /// `--monthdays`: bit n for day n.
    pub month_days: u32,
    /// `--weekdays`: bit 1 for Monday to bit 7 for Sunday.
    pub week_days: u8,
    /// `--kerneltz`.
    pub kernel_zone: bool,
    /// `--contiguous`: after midnight it is still the day before.
    pub contiguous: bool,
}

impl Default for Moment {
    /// Any moment until 2038, as the kernel has it.
    fn default() -> Moment {
        Moment {
            first: 0,
            last: Moment::LAST,
            from: 0,
            to: Moment::DAY - 1,
            month_days: Moment::MONTH_DAYS,
            week_days: Moment::WEEK_DAYS,
            kernel_zone: false,
            contiguous: false,
        }
    }
}

impl Moment {
    /// Where dates end (`INT_MAX`).
    pub const LAST: u32 = i32::MAX as u32;
    /// Seconds of a day.
    pub const DAY: u32 = 86_400;
    /// All days of a month.
    pub const MONTH_DAYS: u32 = 0xffff_fffe;
    /// All days of a week.
    pub const WEEK_DAYS: u8 = 0xfe;

    /// `time_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.holds_at(facts.around.now().unix_ns / 1_000_000_000)
    }

    fn holds_at(&self, mut secs: u64) -> bool {
        let day = u64::from(Moment::DAY);
        if secs < u64::from(self.first) || u64::from(self.last) < secs {
            return false;
        }
        let of_day = (secs % day) as u32;
        if self.from < self.to {
            if of_day < self.from || self.to < of_day {
                return false;
            }
        } else {
            if of_day < self.from && self.to < of_day {
                return false;
            }
            if self.contiguous && of_day <= self.to {
                secs = secs.saturating_sub(day);
            }
        }
        // The first of January 1970 was a Thursday.
        let week_day = (secs / day + 3) % 7 + 1;
        if self.week_days >> week_day & 1 == 0 {
            return false;
        }
        self.month_days == Moment::MONTH_DAYS || self.month_days >> month_day(secs / day) & 1 == 1
    }
}

/// The day of the month of a day since 1970: years of 365 and 366 days, counted from March.
fn month_day(days: u64) -> u32 {
    let days = days + 719_468;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    (of_year - (153 * month + 2) / 5 + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-01 was a Sunday.
    const MARCH: u64 = 1_772_323_200;

    #[test]
    fn a_day_is_one_of_its_month_and_its_week() {
        for (secs, month, week) in [
            (0, 1, 4),
            (MARCH - 1, 28, 6),
            (MARCH, 1, 7),
            // 2024-02-29, a Thursday.
            (1_709_164_800, 29, 4),
            (i32::MAX as u64, 19, 2),
        ] {
            let day = |month_days, week_days| {
                Moment { month_days, week_days, ..Moment::default() }.holds_at(secs)
            };
            assert!(day(1 << month, 1 << week), "{secs}");
            assert!(!day(!(1 << month) & !1, 0xfe) && !day(1 << month, !(1u8 << week)), "{secs}");
        }
    }

    #[test]
    fn a_time_that_ends_before_it_begins_goes_over_midnight() {
        let at = |hour: u64| MARCH + hour * 3600;
        let night = Moment { from: 22 * 3600, to: 6 * 3600, ..Moment::default() };
        let held: Vec<u64> = (0..24).filter(|&hour| night.holds_at(at(hour))).collect();
        assert_eq!(held, [0, 1, 2, 3, 4, 5, 6, 22, 23]);
        // Sunday's night lasts until Monday if it is one; if not it is in two pieces.
        let sunday = Moment { week_days: 1 << 7, ..night };
        assert!(sunday.holds_at(at(1)) && !sunday.holds_at(at(25)));
        let whole = Moment { contiguous: true, ..sunday };
        assert!(!whole.holds_at(at(1)) && whole.holds_at(at(23)) && whole.holds_at(at(25)));
        let noon = Moment { from: 43_200, to: 43_200, ..Moment::default() };
        assert!(noon.holds_at(at(12)) && noon.holds_at(at(13)), "the same twice is all day");
    }

    #[test]
    fn dates_are_inclusive() {
        let span = Moment { first: MARCH as u32, last: MARCH as u32 + 9, ..Moment::default() };
        let held = [MARCH - 1, MARCH, MARCH + 9, MARCH + 10].map(|secs| span.holds_at(secs));
        assert_eq!(held, [false, true, true, false]);
        assert!(!Moment::default().holds_at(1 << 31));
    }
}
