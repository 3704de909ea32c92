//! `-j SNPT` and `-j DNPT`: one prefix of an IPv6 address for another, such that no checksum above
//! changes (RFC 6296, `ip6t_npt_map_pfx`).
//!
//! The difference that the prefixes make to a sum is taken out of one word of the rest: the one
//! behind a prefix of at most 48 bits, else the first of the interface identifier that is not all
//! ones. An error about such a packet carries its address in its quote, which is translated too.

use super::Edited;
use crate::wire::address::Address;
use crate::wire::checksum;
use crate::wire::headers::{Headers, protocol};

/// Prefixes that stand for each other, bits beyond their lengths clear, at most 64 long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// `--src-pfx`: what addresses have.
    pub from: (u128, u8),
    /// `--dst-pfx`: what they get.
    pub to: (u128, u8),
}

/// Whose address is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The source, and the destination of what an error quotes.
    Source,
    /// The destination, and the source of what an error quotes.
    Destination,
}

impl End {
    /// Where the address stands in an IPv6 header.
    const fn place(self) -> usize {
        match self {
            End::Source => 8,
            End::Destination => 24,
        }
    }

    const fn other(self) -> End {
        match self {
            End::Source => End::Destination,
            End::Destination => End::Source,
        }
    }
}

/// Bytes of an ICMPv6 error before what it quotes.
const ICMP_LEN: usize = 8;

impl Prefixes {
    /// Longest prefix.
    pub const MAX_LEN: u8 = 64;

    /// The bits of an address that a prefix of `length` covers.
    pub const fn mask(length: u8) -> u128 {
        match u128::MAX.checked_shl(128 - length as u32) {
            Some(mask) => mask,
            None => 0,
        }
    }

    /// The address with the other prefix, and whether that was possible: an address whose interface
    /// identifier is all ones has no word to spare. The kernel leaves it with its new prefix.
    pub fn map(&self, address: u128) -> (u128, bool) {
        let length = self.from.1.max(self.to.1);
        let mask = Prefixes::mask(length);
        let mapped = address & !mask | self.to.0 & mask;
        let word = |at: u32| (mapped >> (112 - 16 * at)) as u16;
        let at = if length <= 48 { Some(3) } else { (4..8).find(|&at| word(at) != 0xffff) };
        let Some(at) = at else { return (mapped, false) };
        let change = checksum::delta_address(Address::v6(self.to.0), Address::v6(self.from.0));
        let new = match checksum::combine(word(at), change) {
            0xffff => 0,
            sum => sum,
        };
        let shift = 112 - 16 * at;
        (mapped & !(0xffff << shift) | u128::from(new) << shift, true)
    }

    pub(super) fn apply(&self, frame: &mut [u8], headers: &mut Headers, end: End) -> Edited {
        let whole = frame.len().min(headers.end as usize);
        let Some(packet) = frame.get_mut(headers.l3 as usize..whole) else { return Edited::Drop };
        let Some((address, sound)) = self.translate(packet, end) else { return Edited::Drop };
        match end {
            End::Source => headers.src = Address::v6(address),
            End::Destination => headers.dst = Address::v6(address),
        }
        if !sound {
            return Edited::Problem(end.place() as u32);
        }
        let error = packet.get(6) == Some(&protocol::ICMPV6)
            && matches!(headers.icmp_type, 1..=4)
            && !headers.l4_truncated;
        let quote = usize::from(headers.l4 - headers.l3) + ICMP_LEN;
        if error && let Some(quoted) = packet.get_mut(quote..) {
            self.translate_quoted(quoted, end.other());
        }
        Edited::Done
    }

    /// `None` if there is no whole header.
    fn translate(&self, packet: &mut [u8], end: End) -> Option<(u128, bool)> {
        let header = packet.first_chunk_mut::<40>()?;
        let place = header.get_mut(end.place()..)?.first_chunk_mut::<16>()?;
        let (address, sound) = self.map(u128::from_be_bytes(*place));
        *place = address.to_be_bytes();
        Some((address, sound))
    }

    fn translate_quoted(&self, packet: &mut [u8], end: End) {
        let place = packet.first_chunk::<40>().and_then(|h| h.get(end.place()..)?.first_chunk());
        let Some(address) = place.map(|place| u128::from_be_bytes(*place)) else { return };
        if address & Prefixes::mask(self.from.1) == self.from.0 {
            self.translate(packet, end);
        }
    }
}
