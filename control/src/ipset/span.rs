//! Ranges and nets: the part of an element that is an address or stands for many.

use core::net::{Ipv4Addr, Ipv6Addr};

use dataplane::rules::hook::Family;
use dataplane::rules::sets::key::mask;

use super::Wrong;
use super::element::number;

/// What an address part may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One address.
    One,
    /// In IPv4 also a range or a net, of which each address is meant; in IPv6 one address.
    AnyOfV4,
    /// An address, a net, or in IPv4 a range.
    Anything,
}

/// An address, a net or a range, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) low: u128,
    /// The last address of a range.
    pub(super) high: Option<u128>,
    /// The length behind the address.
    pub(super) prefix: Option<u8>,
}

/// What cannot be an address.
pub(super) fn unresolved<T>(text: &str, family: Family) -> Result<T, Wrong> {
    let name = if family == Family::V4 { "IPv4" } else { "IPv6" };
    Wrong::syntax(format_args!("cannot parse {text}: resolving to {name} address failed"))
}

fn address(text: &str, family: Family) -> Result<u128, Wrong> {
    let bits = match family {
        Family::V4 => text.parse().ok().map(|ip: Ipv4Addr| ip.to_bits().into()),
        Family::V6 => text.parse().ok().map(Ipv6Addr::to_bits),
    };
    bits.map_or_else(|| unresolved(text, family), Ok)
}

impl Span {
    /// Reads a part of an element; an address of IPv6 may stand in brackets.
    pub(super) fn parse(text: &str, family: Family, takes: Takes) -> Result<Span, Wrong> {
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
        let text = inner.unwrap_or(text);
        let many = takes == Takes::Anything || takes == Takes::AnyOfV4 && family == Family::V4;
        let plain = || format!("plain IP address must be supplied: {text}");
        if let Some((host, length)) = text.split_once('/') {
            if !many {
                return Wrong::syntax(plain());
            }
            let width = family.address_bits();
            let prefix = number(length, 0, width.into())? as u8;
            return Ok(Span { low: address(host, family)?, high: None, prefix: Some(prefix) });
        }
        match text.split_once('-') {
            Some((low, high)) if !low.is_empty() && !high.is_empty() => {
                if !many {
                    return Wrong::syntax(plain());
                }
                if family == Family::V6 {
                    let what = "IP address or IP/cidr must be specified";
                    return Wrong::syntax(format_args!("{what}: {text}"));
                }
                let (low, high) = (address(low, family)?, address(high, family)?);
                Ok(Span { low, high: Some(high), prefix: None })
            }
            _ => Ok(Span { low: address(text, family)?, ..Span::default() }),
        }
    }

    /// True for an address alone.
    pub(super) const fn is_one(&self) -> bool {
        self.high.is_none() && self.prefix.is_none()
    }

    /// The first and the last address that are meant, among addresses of `width` bits.
    pub(super) fn bounds(&self, width: u8) -> (u128, u128) {
        if let Some(prefix) = self.prefix {
            let keep = mask(prefix, width);
            let low = self.low & keep;
            return (low, low | (mask(width, width) & !keep));
        }
        let high = self.high.unwrap_or(self.low);
        (self.low.min(high), self.low.max(high))
    }

    /// The nets, as few as there are, that are the range; a net as it is, an address with its full
    /// length (`ip_set_range_to_cidr`).
    pub(super) fn nets(&self, width: u8) -> Vec<(u128, u8)> {
        if self.high.is_none() {
            let prefix = self.prefix.unwrap_or(width);
            return vec![(self.low & mask(prefix, width), prefix)];
        }
        let (mut low, high) = self.bounds(width);
        let mut nets = Vec::new();
        loop {
            let fits = |prefix: u8| {
                let host = mask(width, width) & !mask(prefix, width);
                low & host == 0 && low | host <= high
            };
            let prefix = (0..=width).find(|&prefix| fits(prefix)).unwrap_or(width);
            nets.push((low, prefix));
            let last = low | (mask(width, width) & !mask(prefix, width));
            if last >= high {
                return nets;
            }
            low = last + 1;
        }
    }
}
