//! What the headers of a packet say: `-m length`, `ttl`, `hl`, `tos`, `dscp`, `ecn`, `tcpmss`,
//! `esp` and `ah`. All of it may differ from packet to packet of a conn.

use super::Maybe;
use crate::conntrack::tuple::proto;
use crate::rules::facts::Facts;
use crate::rules::test::Answer;

/// The byte of DSCP and ECN (`ipv4_get_dsfield`, `ipv6_get_dsfield`).
fn class(facts: &Facts<'_>) -> u8 {
    match facts.packet() {
        [_, class, ..] if facts.src.is_v4() => *class,
        [first, second, ..] => first << 4 | second >> 4,
        _ => 0,
    }
}

/// `-m length` (`struct xt_length_info`): bytes from the IP header on, inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Length(pub Maybe<(u16, u16)>);

impl Length {
    /// `length_mt`, `length_mt6`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let (low, high) = self.0.value;
        self.0.judge(u32::from(low) <= facts.length && facts.length <= u32::from(high))
    }
}

/// How `-m ttl` and `-m hl` compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// `--ttl-eq`.
    Equal,
    /// `! --ttl-eq`.
    NotEqual,
    /// `--ttl-lt`.
    Less,
    /// `--ttl-gt`.
    Greater,
}

/// `-m ttl` (`struct ipt_ttl_info`) and `-m hl` (`struct ip6t_hl_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// How.
    pub compare: Compare,
    /// With what.
    pub value: u8,
}

impl Life {
    /// `ttl_mt`, `hl_mt6`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let at = if facts.src.is_v4() { 8 } else { 7 };
        let life = facts.packet().get(at).copied().unwrap_or(0);
        match self.compare {
            Compare::Equal => life == self.value,
            Compare::NotEqual => life != self.value,
            Compare::Less => life < self.value,
            Compare::Greater => life > self.value,
        }
    }
}

/// `-m tos` (`struct xt_tos_match_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tos {
    /// What the bits under the mask have to be.
    pub value: Maybe<u8>,
    /// Bits that count.
    pub mask: u8,
}

impl Tos {
    /// `tos_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.value.judge(class(facts) & self.mask == self.value.value)
    }
}

/// `-m dscp` (`struct xt_dscp_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dscp(pub Maybe<u8>);

impl Dscp {
    /// `dscp_mt`, `dscp_mt6`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.0.judge(class(facts) >> 2 == self.0.value)
    }
}

/// `-m ecn` (`struct xt_ecn_info`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ecn {
    /// `--ecn-tcp-ece`.
    pub ece: Option<Maybe<()>>,
    /// `--ecn-tcp-cwr`.
    pub cwr: Option<Maybe<()>>,
    /// `--ecn-ip-ect`.
    pub ip: Option<Maybe<u8>>,
}

impl Ecn {
    /// `ecn_mt4`, `ecn_mt6`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        const ECE: u8 = 0x40;
        const CWR: u8 = 0x80;
        let flag = |asked: Option<Maybe<()>>, bit| {
            let tcp = facts.is_whole() && facts.proto == proto::TCP;
            asked.is_none_or(|flag| tcp && flag.judge(facts.tcp_flags & bit != 0))
        };
        self.ip.is_none_or(|ip| ip.judge(class(facts) & 3 == ip.value))
            && flag(self.ece, ECE)
            && flag(self.cwr, CWR)
    }
}

/// `-m tcpmss` (`struct xt_tcpmss_match_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mss(pub Maybe<(u16, u16)>);

impl Mss {
    /// `tcpmss_mt`: the first MSS of the right length counts; who has none is outside of every
    /// range.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let l4 = facts.transport();
        let Some(&words) = l4.get(12).filter(|_| facts.is_whole()) else { return Answer::Drop };
        let Some(mut options) = l4.get(20..usize::from(words >> 4) * 4) else {
            return Answer::Drop;
        };
        let (low, high) = self.0.value;
        while let Some((&kind, rest)) = options.split_first() {
            if let (2, &[4, first, second, ..]) = (kind, rest) {
                let mss = u16::from_be_bytes([first, second]);
                return self.0.judge(low <= mss && mss <= high).into();
            }
            let length = usize::from(rest.first().copied().unwrap_or(1));
            let skip = if kind < 2 { 0 } else { length.saturating_sub(1) };
            options = rest.get(skip..).unwrap_or(&[]);
        }
        self.0.not.into()
    }
}

/// `-m esp` (`struct xt_esp`) and IPv4's `-m ah` (`struct ipt_ah`): a range of SPIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spi(pub Maybe<(u32, u32)>);

impl Spi {
    /// All of them.
    pub const ALL: Spi = Spi(Maybe::is((0, u32::MAX)));

    /// `spi_match`.
    pub(super) fn has(&self, spi: u32) -> bool {
        let (low, high) = self.0.value;
        self.0.judge(low <= spi && spi <= high)
    }

    /// `esp_mt`, `ah_mt`: the SPI lies `at` so many bytes of a header of 8 or 12.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>, at: usize) -> Answer {
        if facts.fragment_offset != 0 {
            return Answer::Fails;
        }
        match facts
            .transport()
            .get(..at + 8)
            .and_then(|header| header.get(at..)?.first_chunk::<4>())
        {
            Some(spi) => self.has(u32::from_be_bytes(*spi)).into(),
            None => Answer::Drop,
        }
    }
}
