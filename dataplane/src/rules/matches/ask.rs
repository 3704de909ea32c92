//! The matches that are one test each, asked by their names.

use super::head::Spi;
use super::{Match, place};
use crate::rules::facts::Facts;
use crate::rules::test::Answer;
use crate::wire::headers::protocol;

impl Match {
    /// What a match that is one test says of a packet. Not inlined, as few rules have one.
    #[inline(never)]
    pub(in crate::rules) fn ask(&self, facts: &Facts<'_>) -> Answer {
        match self {
            Match::Connmark(asked) => asked.holds(facts).into(),
            Match::Helper(asked) => asked.holds(facts).into(),
            Match::IpRange(asked) => asked.holds(facts).into(),
            Match::AddrType(asked) => asked.holds(facts).into(),
            Match::RpFilter(asked) => asked.holds(facts).into(),
            Match::Mac(asked) => asked.holds(facts).into(),
            Match::PktType(asked) => asked.holds(facts).into(),
            Match::Length(asked) => asked.holds(facts).into(),
            Match::Ttl(asked) | Match::Hl(asked) => asked.holds(facts).into(),
            Match::Tos(asked) => asked.holds(facts).into(),
            Match::Dscp(asked) => asked.holds(facts).into(),
            Match::Ecn(asked) => asked.holds(facts).into(),
            Match::Mss(asked) => asked.judge(facts),
            Match::Esp(asked) => asked.judge(facts, 0),
            Match::Ah4(asked) => asked.judge(facts, 4),
            Match::Ah6(asked) => asked.judge(facts),
            Match::Sctp(asked) => asked.judge(facts),
            Match::Dccp(asked) => asked.judge(facts),
            Match::Time(asked) => asked.holds(facts).into(),
            Match::Statistic(asked) => asked.holds(facts).into(),
            Match::Search(asked) => asked.holds(facts).into(),
            Match::U32(asked) => asked.holds(facts).into(),
            Match::Frag(asked) => asked.judge(facts),
            Match::Hbh(asked) => asked.judge(facts, protocol::HOP_BY_HOP),
            Match::Dst(asked) => asked.judge(facts, protocol::DESTINATION),
            Match::Rt(asked) => asked.judge(facts),
            Match::HeaderKinds(asked) => asked.holds(facts).into(),
            Match::Connlimit(asked) => asked.judge(facts),
            // Tests of their own.
            Match::Tcp(_)
            | Match::Udp(_)
            | Match::Icmp(_)
            | Match::Icmpv6(_)
            | Match::Conntrack(_)
            | Match::State(_)
            | Match::Multiport(_)
            | Match::Comment(_)
            | Match::Mark(_)
            | Match::Connlabel(_)
            | Match::Limit(_)
            | Match::Quota(_)
            | Match::Connbytes(_)
            | Match::Hashlimit(_)
            | Match::Recent(_)
            | Match::Set(_) => Answer::Holds,
        }
    }

    /// True if what [`Match::ask`] says may differ between this packet and those that take the path
    /// that it has walked: of the same conn, direction, state and port of arrival, sent to the
    /// gateway's own link address.
    pub(in crate::rules) fn looks_at_the_packet(&self, facts: &Facts<'_>) -> bool {
        match self {
            Match::Connmark(_)
            | Match::Helper(_)
            | Match::IpRange(_)
            | Match::AddrType(_)
            | Match::RpFilter(_) => false,
            Match::PktType(_) => place::SentTo::of(facts) != place::SentTo::Us,
            Match::Sctp(asked) => asked.chunks.is_some(),
            Match::Dccp(asked) => asked.types.is_some() || asked.option.is_some(),
            Match::Esp(spi) | Match::Ah4(spi) => *spi != Spi::ALL,
            _ => true,
        }
    }
}
