//! `-m connlimit`: how many conns an address, or a network, has (`connlimit_mt`).
//!
//! A rule counts by the address that the packet has at its hook, under a mask, and by zone. Each
//! packet has its conn counted under its own address, an answer's too, until the conn ends or TCP
//! has closed it ([`crate::conntrack::counts`]); a conn that does not come to be, as its first
//! packet is dropped, no longer than that packet lives. Packets without a conn, and of one that is
//! closed, count themselves while they are judged.
//!
//! What a rule has counted is told from others by its number, which it is given when it is made:
//! it is kept for as long as the rule is the same, and one that is written anew begins at 0.

use core::hash::BuildHasher;
use std::collections::hash_map::RandomState;

use super::super::facts::Facts;
use super::super::kept::Kept;
use super::super::test::Answer;
use super::hashlimit::leading;

/// `-m connlimit` (`struct xt_connlimit_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connlimit {
    /// Conns, this packet's among them.
    pub limit: u32,
    /// `--connlimit-upto`: matches so many or fewer; else more.
    pub upto: bool,
    /// `--connlimit-daddr`: those to the destination, not those from the source.
    pub dst: bool,
    /// `--connlimit-mask`: leading bits that count.
    pub mask: u8,
    /// Which rule.
    pub number: Kept<Number>,
}

/// What tells a rule's counts from those of all other ones, whether they are there or were.
#[derive(Debug)]
pub struct Number(u64);

impl Default for Number {
    /// Another one each time, but for one time in 2^64.
    fn default() -> Number {
        Number(RandomState::new().hash_one(0))
    }
}

impl Connlimit {
    /// The packet's answer.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let address = leading(if self.dst { facts.dst } else { facts.src }, self.mask);
        // A zone of one direction alone has no number in the other.
        let zones = facts.ct.conn.map(|conn| conn.zones()).unwrap_or_default();
        let zone = zones.original.max(zones.reply);
        let key = [self.number.0, zone.into(), (address >> 64) as u64, address as u64];
        match facts.around.conns_under(&key) {
            Some(conns) => ((conns > self.limit) != self.upto).into(),
            None => Answer::Drop,
        }
    }
}
