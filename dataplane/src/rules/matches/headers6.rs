//! The extension headers of IPv6: `-m frag`, `hbh`, `dst`, `rt`, `ipv6header`, and IPv6's `ah`.
//!
//! Fragments are put together before rules see them wherever conns are tracked, so `frag` meets
//! what the kernel's does: little.

use arrayvec::ArrayVec;

use super::Maybe;
use super::head::Spi;
use crate::rules::facts::Facts;
use crate::rules::test::Answer;
use crate::wire::address::Address;
use crate::wire::headers::EXTENSIONS_MAX;
use crate::wire::headers::protocol as next;

/// One header of a packet.
#[derive(Clone, Copy, Debug)]
struct Header<'a> {
    /// Its number.
    kind: u8,
    /// From its first byte to the packet's end, as far as that is in the first segment.
    rest: &'a [u8],
    /// Bytes that it says it has.
    length: usize,
}

/// The extension headers, in order, and what follows them. A header cut short ends the list.
fn headers<'a>(facts: &Facts<'a>) -> (ArrayVec<Header<'a>, EXTENSIONS_MAX>, u8) {
    let mut found = ArrayVec::new();
    let packet = facts.ip();
    let (Some(&first), Some(mut rest)) = (packet.get(6), packet.get(40..)) else {
        return (found, next::NONE);
    };
    let mut kind = first;
    loop {
        let is_extension = matches!(
            kind,
            next::HOP_BY_HOP | next::ROUTING | next::FRAGMENT | next::AH | next::DESTINATION
        );
        let Some(&[following, words, ..]) = rest.first_chunk::<8>().filter(|_| is_extension) else {
            return (found, kind);
        };
        let length = match kind {
            next::FRAGMENT => 8,
            next::AH => (usize::from(words) + 2) * 4,
            _ => (usize::from(words) + 1) * 8,
        };
        if found.try_push(Header { kind, rest, length }).is_err() {
            return (found, kind);
        }
        let later = kind == next::FRAGMENT && rest.get(2..4).is_some_and(|b| offset(b) != 0);
        let Some(behind) = rest.get(length..).filter(|_| !later) else {
            return (found, following);
        };
        (kind, rest) = (following, behind);
    }
}

/// Where a fragment belongs, in units of eight bytes.
fn offset(bytes: &[u8]) -> u16 {
    bytes.first_chunk::<2>().map_or(0, |&b| u16::from_be_bytes(b) >> 3)
}

/// The first header of a kind (`ipv6_find_hdr`).
fn header<'a>(facts: &Facts<'a>, kind: u8) -> Option<Header<'a>> {
    headers(facts).0.into_iter().find(|header| header.kind == kind)
}

fn length_fits(asked: Option<Maybe<u32>>, length: usize) -> bool {
    asked.is_none_or(|l| l.value == 0 || l.judge(l.value as usize == length))
}

/// IPv6's `-m ah` (`struct ip6t_ah`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ah {
    /// `--ahspi`.
    pub spi: Spi,
    /// `--ahlen`: bytes of the header; 0 asks nothing.
    pub length: Option<Maybe<u32>>,
    /// `--ahres`: the reserved field is 0.
    pub reserved: bool,
}

impl Ah {
    /// `ah_mt6`.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let Some(header) = header(facts, next::AH) else { return Answer::Fails };
        let Some(&[_, _, r0, r1, a, b, c, d, ..]) = header.rest.first_chunk::<12>() else {
            return Answer::Drop;
        };
        (self.spi.has(u32::from_be_bytes([a, b, c, d]))
            && length_fits(self.length, header.length)
            && !(self.reserved && (r0, r1) != (0, 0)))
            .into()
    }
}

/// `-m frag` (`struct ip6t_frag`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frag {
    /// `--fragid`.
    pub id: Spi,
    /// `--fraglen`: the kernel keeps it and asks nothing.
    pub length: Option<Maybe<u32>>,
    /// `--fragres`: the reserved bits are 0.
    pub reserved: bool,
    /// `--fragfirst`: the first one.
    pub first: bool,
    /// `--fragmore`, or `--fraglast`.
    pub more: Option<bool>,
}

impl Frag {
    /// `frag_mt6`.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let Some(header) = header(facts, next::FRAGMENT) else { return Answer::Fails };
        let Some(&[_, reserved, high, low, a, b, c, d]) = header.rest.first_chunk::<8>() else {
            return Answer::Drop;
        };
        let word = u16::from_be_bytes([high, low]);
        (self.id.has(u32::from_be_bytes([a, b, c, d]))
            && !(self.reserved && (reserved != 0 || word & 6 != 0))
            && !(self.first && word >> 3 != 0)
            && self.more.is_none_or(|more| more == (word & 1 == 1)))
        .into()
    }
}

/// `-m hbh` and `-m dst` (`struct ip6t_opts`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `--hbh-len`, `--dst-len`: bytes of the header.
    pub length: Option<Maybe<u32>>,
    /// `--hbh-opts`, `--dst-opts`: what the options are, in order, from the first one on: types and
    /// lengths; at most [`Options::MAX`].
    pub options: Vec<(u8, Option<u8>)>,
}

impl Options {
    /// Options that can be named (`IP6T_OPTS_OPTSNR`).
    pub const MAX: usize = 16;

    /// `hbh_mt6`.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>, kind: u8) -> Answer {
        let Some(header) = header(facts, kind) else { return Answer::Fails };
        if header.rest.len() < header.length {
            return Answer::Fails;
        }
        if self.length.is_some_and(|l| !l.judge(l.value as usize == header.length)) {
            return Answer::Fails;
        }
        let mut rest = header.rest.get(2..header.length).unwrap_or(&[]);
        for &(kind, length) in &self.options {
            let Some((&found, behind)) = rest.split_first() else { return Answer::Fails };
            if found != kind {
                return Answer::Fails;
            }
            // The one byte of padding has no length.
            if found == 0 {
                rest = behind;
                continue;
            }
            let Some((&has, behind)) = behind.split_first() else { return Answer::Fails };
            if length.is_some_and(|length| length != has) {
                return Answer::Fails;
            }
            rest = behind.get(usize::from(has)..).unwrap_or(&[]);
        }
        Answer::Holds
    }
}

/// `-m rt` (`struct ip6t_rt`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rt {
    /// `--rt-type`.
    pub kind: Option<Maybe<u32>>,
    /// `--rt-segsleft`, inclusive.
    pub left: Option<Maybe<(u32, u32)>>,
    /// `--rt-len`.
    pub length: Option<Maybe<u32>>,
    /// `--rt-0-res`: the reserved field is 0.
    pub reserved: bool,
    /// `--rt-0-addrs`: at most [`Options::MAX`].
    pub addresses: Vec<Address>,
    /// `--rt-0-not-strict`: others may be between them.
    pub not_strict: bool,
}

impl Rt {
    /// `rt_mt6`.
    pub(in crate::rules) fn judge(&self, facts: &Facts<'_>) -> Answer {
        let Some(header) = header(facts, next::ROUTING) else { return Answer::Fails };
        let Some(&[_, _, kind, left, r0, r1, r2, r3]) = header.rest.first_chunk::<8>() else {
            return Answer::Drop;
        };
        let within = |(low, high): (u32, u32)| low <= left.into() && u32::from(left) <= high;
        let fits = header.length <= header.rest.len()
            && self.left.is_none_or(|l| l.judge(within(l.value)))
            && self.length.is_none_or(|l| l.judge(l.value as usize == header.length))
            && self.kind.is_none_or(|k| k.judge(k.value == kind.into()))
            && !(self.reserved && [r0, r1, r2, r3] != [0; 4]);
        (fits && self.addresses_fit(header.rest.get(8..header.length).unwrap_or(&[]))).into()
    }

    /// Strict: these are the last ones, and as many as there are; else they come in this order.
    fn addresses_fit(&self, bytes: &[u8]) -> bool {
        let mut there = bytes.chunks_exact(16).map(|chunk| {
            let bits = chunk.first_chunk::<16>().map_or(0, |&b| u128::from_be_bytes(b));
            Address::v6(bits)
        });
        if self.addresses.is_empty() {
            return true;
        }
        match self.not_strict {
            true => self.addresses.iter().all(|wanted| there.any(|found| found == *wanted)),
            false => there.eq(self.addresses.iter().copied()),
        }
    }
}

/// `-m ipv6header` (`struct ip6t_ipv6header_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderKinds {
    /// `--header`: a bit for each, see the constants.
    pub kinds: Maybe<u8>,
    /// `--soft`: there may be others.
    pub soft: bool,
}

impl HeaderKinds {
    /// Names, numbers and bits (`MASK_HOPOPTS` and so on); the last one is any other protocol.
    pub const KINDS: [(u8, u8); 8] = [
        (next::HOP_BY_HOP, 0x80),
        (next::DESTINATION, 0x40),
        (next::ROUTING, 0x20),
        (next::FRAGMENT, 0x10),
        (next::AH, 0x08),
        (next::ESP, 0x04),
        (next::NONE, 0x02),
        (255, 0x01),
    ];

    /// `ipv6header_mt6`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let bit = |kind: u8| {
            let known = HeaderKinds::KINDS.iter().find(|(number, _)| *number == kind);
            known.map_or(0x01, |(_, bit)| *bit)
        };
        let (found, last) = headers(facts);
        let there = found.iter().fold(bit(last), |there, header| there | bit(header.kind));
        let Maybe { not, value } = self.kinds;
        match self.soft {
            // Negated: none of them.
            true => there & value == if not { 0 } else { value },
            false => self.kinds.judge(there == value),
        }
    }
}
