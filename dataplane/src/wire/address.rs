//! One address type for both families.
//!
//! An IPv4 address is held in its IPv4-mapped form (`::ffff:a.b.c.d`), so a tuple needs no family
//! field and comparisons are two machine words. Frames whose IPv6 source or destination is itself
//! IPv4-mapped are refused when they are parsed (as `ip6_rcv_core` does), so the two never mix.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const MAPPED: u128 = 0xffff_0000_0000;

/// An IPv4 or IPv6 address in host byte order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address(u128);

impl Address {
    /// From the 32 bits of an IPv4 address in host order.
    #[inline]
    pub const fn v4(bits: u32) -> Address {
        Address(MAPPED | bits as u128)
    }

    /// From the 128 bits of an IPv6 address in host order.
    #[inline]
    pub const fn v6(bits: u128) -> Address {
        Address(bits)
    }

    /// True for an IPv4 address.
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.0 >> 32 == 0xffff
    }

    /// The IPv4 bits; meaningful only where [`Address::is_v4`] holds.
    #[inline]
    pub const fn v4_bits(self) -> u32 {
        self.0 as u32
    }

    /// All 128 bits (an IPv4 address in its mapped form).
    #[inline]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// True for `0.0.0.0` and `::`.
    #[inline]
    pub const fn is_unspecified(self) -> bool {
        self.0 == 0 || self.0 == MAPPED
    }

    /// As the standard library's type.
    pub const fn ip(self) -> IpAddr {
        if self.is_v4() {
            IpAddr::V4(Ipv4Addr::from_bits(self.v4_bits()))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(self.0))
        }
    }
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip {
            IpAddr::V4(a) => Address::v4(a.to_bits()),
            IpAddr::V6(a) => Address::v6(a.to_bits()),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(ip: Ipv4Addr) -> Address {
        Address::v4(ip.to_bits())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(ip: Ipv6Addr) -> Address {
        Address::v6(ip.to_bits())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_round_trip() {
        for text in ["0.0.0.0", "203.0.113.9", "255.255.255.255", "::", "fd00:10::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(Address::from(ip).ip(), ip);
            assert_eq!(Address::from(ip).is_v4(), ip.is_ipv4());
            assert_eq!(Address::from(ip).to_string(), text);
        }
    }
}
