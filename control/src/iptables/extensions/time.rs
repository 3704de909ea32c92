//! `-m time`.

use dataplane::rules::matches::Match;
use dataplane::rules::matches::moment::Moment;

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::Line;
use super::super::values::Fault;

pub(super) const TIME: Extension<Match> = Extension {
    name: "time",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("datestart"),
        valued("datestop"),
        valued("timestart"),
        valued("timestop"),
        opt("monthdays"),
        opt("weekdays"),
        flag("contiguous"),
        flag("kerneltz").group(1).or("localtz"),
        flag("utc").group(1),
    ],
    begin: |_| Match::Time(Moment::default()),
};

impl Text for Moment {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "datestart" => self.first = date(text)?,
            "datestop" => self.last = date(text)?,
            "timestart" => self.from = daytime(text)?,
            "timestop" => self.to = daytime(text)?,
            "monthdays" => {
                let days = days(text, "day of the month", month_day)?;
                self.month_days = if given.not { !days & Moment::MONTH_DAYS } else { days };
            }
            "weekdays" => {
                let days = days(text, "day of the week", week_day)? as u8;
                self.week_days = if given.not { !days & Moment::WEEK_DAYS } else { days };
            }
            "contiguous" => self.contiguous = true,
            "kerneltz" => self.kernel_zone = true,
            _ => {}
        }
        // What is saved without a day cannot be read back.
        if self.month_days == 0 || self.week_days == 0 {
            return Err(format!("rule would never match `! {text}'"));
        }
        Ok(())
    }

    fn finish(&mut self, _: &Whole<'_>) -> Result<(), Fault> {
        if self.contiguous && self.from <= self.to {
            return Err("time: `--contiguous' needs a `--timestop' before `--timestart'".to_owned());
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        if (self.from, self.to) != (0, Moment::DAY - 1) {
            out.option("--timestart", &daytime_text(self.from));
            out.option("--timestop", &daytime_text(self.to));
        }
        if self.month_days != Moment::MONTH_DAYS {
            out.option("--monthdays", &month_days_text(self.month_days, |_| ""));
        }
        if self.week_days != Moment::WEEK_DAYS {
            out.option("--weekdays", &week_days_text(self.week_days));
        }
        if self.first != 0 {
            out.option("--datestart", &date_text(self.first, 'T'));
        }
        out.option("--datestop", &date_text(self.last, 'T'));
        if self.kernel_zone {
            out.word("--kerneltz");
        }
        if self.contiguous {
            out.word("--contiguous");
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("TIME");
        if (self.from, self.to) != (0, Moment::DAY - 1) {
            let (from, to) = (daytime_text(self.from), daytime_text(self.to));
            out.word(&format!("from {from} to {to}"));
        }
        if self.week_days != Moment::WEEK_DAYS {
            out.option("on", &week_days_text(self.week_days));
        }
        if self.month_days != Moment::MONTH_DAYS {
            // Thus iptables has them: 11st, 12nd, 13rd.
            let ending = |day: u32| match day % 10 {
                1 => "st",
                2 => "nd",
                3 => "rd",
                _ => "th",
            };
            out.option("on", &month_days_text(self.month_days, ending));
        }
        if self.first != 0 {
            out.option("starting from", &date_text(self.first, ' '));
        }
        if self.last != Moment::LAST {
            out.option("until date", &date_text(self.last, ' '));
        }
        if !self.kernel_zone {
            out.word("UTC");
        }
        if self.contiguous {
            out.word("contiguous");
        }
    }
}

/// A number of decimal digits; none at all is 0.
fn digits(word: &str) -> Option<u32> {
    match word.is_empty() {
        true => Some(0),
        false => word.parse().ok().filter(|_| word.bytes().all(|b| b.is_ascii_digit())),
    }
}

/// `hh:mm` or `hh:mm:ss` in seconds; `limits` exclude what is beyond.
fn clock(text: &str, least: usize) -> Option<u32> {
    let words: Vec<u32> = text.split(':').map(digits).collect::<Option<_>>()?;
    let within = words.iter().zip([24, 60, 60]).all(|(&n, limit)| n < limit);
    if !within || words.len() < least || words.len() > 3 {
        return None;
    }
    Some(words.iter().zip([3600, 60, 1]).map(|(n, unit)| n * unit).sum())
}

fn daytime(text: &str) -> Result<u32, Fault> {
    clock(text, 2).ok_or_else(|| format!("`{text}' is not a time of the day (hh:mm[:ss])"))
}

/// `YYYY[-MM[-DD[Thh[:mm[:ss]]]]]`; a day that a month has not is one of the month next to it.
fn date(text: &str) -> Result<u32, Fault> {
    let seconds = || {
        let (date, time) = match text.split_once('T') {
            Some((date, time)) => (date, clock(time, 1)?),
            None => (text, 0),
        };
        let words: Vec<u32> = date.split('-').map(digits).collect::<Option<_>>()?;
        if words.len() > 3 || text.contains('T') && words.len() < 3 {
            return None;
        }
        let year = words.first().copied().filter(|year| (1970..=2038).contains(year))?;
        let month = words.get(1).copied().unwrap_or(1);
        let day = words.get(2).copied().unwrap_or(1);
        if month > 12 || day > 31 {
            return None;
        }
        let day = first_of(i64::from(year), i64::from(month)) + i64::from(day) - 1;
        u32::try_from(day * i64::from(Moment::DAY) + i64::from(time)).ok()
    };
    seconds().ok_or_else(|| format!("`{text}' is not a date (YYYY[-MM[-DD[Thh[:mm[:ss]]]]])"))
}

/// Days from 1970 to the first of a month; the month 0 is the last of the year before.
fn first_of(year: i64, month: i64) -> i64 {
    // Counted from March, so that a leap day is a year's last.
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 - 719_468
}

fn date_text(secs: u32, between: char) -> String {
    let days = i64::from(secs / Moment::DAY);
    let months = (1970..=2106).flat_map(|year| (1..=12).map(move |month| (year, month)));
    let month = months.take_while(|&(year, month)| first_of(year, month) <= days).last();
    let (year, month) = month.unwrap_or((1970, 1));
    let day = days - first_of(year, month) + 1;
    let time = daytime_text(secs % Moment::DAY);
    format!("{year:04}-{month:02}-{day:02}{between}{time}")
}

fn daytime_text(secs: u32) -> String {
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
}

fn days(text: &str, what: &str, day: fn(&str) -> Option<u32>) -> Result<u32, Fault> {
    let list = text.strip_suffix(',').unwrap_or(text);
    let bit = |word: &str| day(word).ok_or_else(|| format!("`{word}' is not a {what}"));
    list.split(',').try_fold(0, |days, word| Ok(days | 1 << bit(word)?))
}

fn month_day(word: &str) -> Option<u32> {
    digits(word).filter(|day| (1..=31).contains(day))
}

const WEEK_DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// A number, or a word of which the first two letters count.
fn week_day(word: &str) -> Option<u32> {
    if let Some(day) = digits(word).filter(|day| (1..=7).contains(day)) {
        return Some(day);
    }
    let start = word.get(..2)?;
    (1..).zip(WEEK_DAYS).find(|(_, name)| name.starts_with(start)).map(|(day, _)| day)
}

fn month_days_text(days: u32, ending: impl Fn(u32) -> &'static str) -> String {
    let set = (1..32).filter(|day| days >> day & 1 == 1);
    set.map(|day| format!("{day}{}", ending(day))).collect::<Vec<String>>().join(",")
}

fn week_days_text(days: u8) -> String {
    let set = (1..).zip(WEEK_DAYS).filter(|(day, _)| days >> day & 1 == 1);
    set.map(|(_, name)| name).collect::<Vec<&str>>().join(",")
}
