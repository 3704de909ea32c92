//! `-m connbytes`: how much a conn has carried (`connbytes_mt`).
//!
//! Only a conn that counts has an answer: one that began while `nf_conntrack_acct` was 0, and a
//! packet without conn, match no such rule, not even a negated one. A rule file that asks therefore
//! switches accounting on, as the kernel does when such a rule is added. The packet itself is
//! counted before it is asked.

use crate::conntrack::state::Direction;
use crate::rules::facts::CtFacts;

/// `--connbytes-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Packets.
    Packets,
    /// Bytes from the IP header on.
    Bytes,
    /// Bytes of a packet on average, rounded down; 0 before there was one.
    Average,
}

/// `-m connbytes` (`struct xt_connbytes_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connbytes {
    /// The lowest count that matches; above `to` the test is negated: then all match that are not
    /// within `to` and `from`. (So `! --connbytes 5:5` is the same as without `!`, as in iptables.)
    pub from: u64,
    /// The highest one.
    pub to: u64,
    /// `--connbytes-dir`; `None` for both together.
    pub direction: Option<Direction>,
    /// What is counted.
    pub counted: Counted,
}

impl Connbytes {
    /// The conn's answer; false where there is none.
    pub(in crate::rules) fn holds(&self, ct: &CtFacts<'_>) -> bool {
        let Some((packets, bytes)) = self.counts(ct) else { return false };
        let count = match self.counted {
            Counted::Packets => packets,
            Counted::Bytes => bytes,
            Counted::Average => bytes.checked_div(packets).unwrap_or(0),
        };
        match self.from <= self.to {
            true => self.from <= count && count <= self.to,
            false => count < self.to || count > self.from,
        }
    }

    fn counts(&self, ct: &CtFacts<'_>) -> Option<(u64, u64)> {
        let conn = ct.conn?;
        if let Some(direction) = self.direction {
            return conn.counted(direction);
        }
        let (there, back) = (conn.counted(Direction::Original)?, conn.counted(Direction::Reply)?);
        Some((there.0.wrapping_add(back.0), there.1.wrapping_add(back.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::facts::ConnFacts;

    fn holds(asked: Connbytes, counted: Option<[(u64, u64); 2]>) -> bool {
        let conn = ConnFacts { counted, ..ConnFacts::default() };
        asked.holds(&CtFacts { conn: Some(&conn), ..CtFacts::NONE })
    }

    fn asked(from: u64, to: u64, direction: Option<Direction>, counted: Counted) -> Connbytes {
        Connbytes { from, to, direction, counted }
    }

    #[test]
    fn what_is_counted_is_compared() {
        let conn = Some([(3, 400), (2, 100)]);
        for (direction, counted, count) in [
            (Some(Direction::Original), Counted::Packets, 3),
            (Some(Direction::Reply), Counted::Packets, 2),
            (None, Counted::Packets, 5),
            (Some(Direction::Original), Counted::Bytes, 400),
            (None, Counted::Bytes, 500),
            (Some(Direction::Original), Counted::Average, 133),
            (Some(Direction::Reply), Counted::Average, 50),
            (None, Counted::Average, 100),
        ] {
            let holds = |from, to| holds(asked(from, to, direction, counted), conn);
            assert!(holds(count, count) && holds(0, u64::MAX) && holds(count, u64::MAX));
            assert!(!holds(count + 1, u64::MAX) && !holds(0, count - 1));
            assert!(holds(u64::MAX, count + 1) && !holds(u64::MAX, count), "negated");
            assert!(holds(count - 1, 0) && !holds(count, 0), "negated");
        }
        let nothing = asked(0, 0, None, Counted::Average);
        assert!(holds(nothing, Some([(0, 0); 2])));
    }

    #[test]
    fn without_counts_nothing_matches() {
        for asked in [
            asked(0, u64::MAX, None, Counted::Packets),
            asked(9, 5, Some(Direction::Reply), Counted::Bytes),
        ] {
            assert!(!holds(asked, None) && !asked.holds(&CtFacts::NONE));
        }
    }
}
