//! Numbers that a device may choose freely: translated ports and ICMP ids.
//!
//! Two devices that follow the same rules choose different numbers. A script that meets such a
//! number learns it: it gets a name, its class or range is checked, and from then on the name
//! stands for it in packets and listings, wherever it goes together with the translated address.
//! So with the sequence numbers and times of 32 bits that a device begins with: they stand with
//! what has been counted on from there.

use std::net::IpAddr;
use std::ops::RangeInclusive;

/// What one run of a script learned, and what was wrong with it.
#[derive(Clone, Debug, Default)]
pub struct Learned {
    chosen: Vec<(IpAddr, u16, String)>,
    beginnings: Vec<(u32, String)>,
    /// Choices outside their range, or made twice.
    pub violations: Vec<String>,
}

impl Learned {
    /// Gives `number` a name. It has to lie in `allowed`.
    pub fn add(&mut self, address: IpAddr, number: u16, allowed: RangeInclusive<u16>, name: &str) {
        if !allowed.contains(&number) {
            self.violations.push(format!("{name} is {number}, not in {allowed:?}"));
        }
        if let Some((_, _, earlier)) =
            self.chosen.iter().find(|(at, chosen, _)| (*at, *chosen) == (address, number))
        {
            self.violations.push(format!("{name} is the same number as {earlier}: {number}"));
            return;
        }
        self.chosen.push((address, number, format!("<{name}>")));
    }

    /// Gives a number of 32 bits a name, which stands for all that follow it closely, too.
    pub fn add_beginning(&mut self, number: u32, name: &str) {
        self.beginnings.push((number, name.to_owned()));
    }

    /// The name of a number and how far behind its beginning it is, or the number itself.
    pub fn count(&self, number: u32) -> String {
        const CLOSE: u32 = 1 << 20;
        // One before it is what a keep-alive has.
        let behind = |from: u32| number.wrapping_sub(from.wrapping_sub(1));
        let nearest = self.beginnings.iter().min_by_key(|(from, _)| behind(*from));
        match nearest.filter(|(from, _)| behind(*from) < CLOSE) {
            Some((from, name)) => format!("<{name}>{:+}", i64::from(behind(*from)) - 1),
            None => number.to_string(),
        }
    }

    /// True if there are any such numbers.
    pub fn counts(&self) -> bool {
        !self.beginnings.is_empty()
    }

    /// The name of a chosen number, if it was learned with this address.
    pub fn name(&self, address: IpAddr, number: u16) -> Option<&str> {
        let found = self.chosen.iter().find(|(at, chosen, _)| (*at, *chosen) == (address, number));
        found.map(|(_, _, name)| name.as_str())
    }

    /// The name, or the number itself.
    pub fn show(&self, address: IpAddr, number: u16) -> String {
        self.name(address, number).map_or_else(|| number.to_string(), str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_from_where_they_begin() {
        let mut learned = Learned::default();
        assert!(!learned.counts());
        learned.add_beginning(u32::MAX, "cookie");
        assert_eq!(
            (learned.count(u32::MAX), learned.count(4)),
            ("<cookie>+0".into(), "<cookie>+5".into())
        );
        assert_eq!(learned.count(u32::MAX - 1), "<cookie>-1");
        assert_eq!(learned.count(u32::MAX - 2), "4294967293");
    }

    #[test]
    fn range_and_uniqueness_are_checked() {
        let address = "203.0.113.1".parse().unwrap();
        let mut learned = Learned::default();
        learned.add(address, 700, 600..=1023, "first");
        assert!(learned.violations.is_empty());
        learned.add(address, 700, 600..=1023, "second");
        learned.add(address, 599, 600..=1023, "third");
        assert_eq!(learned.violations.len(), 2);
        assert_eq!(learned.show(address, 700), "<first>");
        assert_eq!(learned.show(address, 701), "701");
    }
}
