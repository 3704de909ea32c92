//! Packets the gateway makes: ARP and neighbour discovery, ICMP errors, resets, echo replies, and
//! any packet a test needs.
//!
//! Each builder writes into the caller's buffer and gives the frame's length, or `None` when the
//! frame does not fit (or cannot be: addresses of two families). A buffer of [`ROOM`] bytes fits
//! every frame but those of [`packet`] with a larger payload. Nothing is sent, allocated or
//! remembered here; what may be answered at all (rate limits, never an error about an error) is
//! asked with [`icmp_error::answerable`] and [`reset::answerable`] first.

use super::address::Address;
use super::checksum;
use super::ethernet::{Mac, ether_type};
use super::headers::protocol;

pub mod echo;
pub mod handshake;
pub mod icmp_error;
pub mod neighbour;
pub mod packet;
pub mod reset;

/// Bytes that fit every frame of this module: link header, tag, and an ICMPv6 error of 1280 bytes.
pub const ROOM: usize = 18 + 1280;

/// TTL or hop limit of packets the gateway makes (`net.ipv4.ip_default_ttl`, `hop_limit`).
pub const TTL: u8 = 64;

/// The link header to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC.
    pub dst: Mac,
    /// Source MAC.
    pub src: Mac,
    /// Tag control word, for a tagged frame.
    pub tci: Option<u16>,
}

/// The part of an IP header that differs between the packets made here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    src: Address,
    dst: Address,
    proto: u8,
    ttl: u8,
    tos: u8,
    /// IPv4 identification.
    id: u16,
    /// IPv4 flags and fragment offset.
    fragment_word: u16,
}

/// Writes bytes one after the other; nothing is written beyond the buffer, and then there is no
/// length at the end.
pub(super) struct Writer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(buffer: &'a mut [u8]) -> Writer<'a> {
        Writer { buffer, len: 0 }
    }

    /// Appends bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.buffer.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    /// Overwrites two bytes that were written before.
    pub(super) fn patch16(&mut self, at: usize, value: u16) -> Option<()> {
        *self.buffer.get_mut(at..)?.first_chunk_mut()? = value.to_be_bytes();
        Some(())
    }

    /// What was written from an offset on.
    pub(super) fn written(&self, from: usize) -> &[u8] {
        self.buffer.get(from..self.len).unwrap_or(&[])
    }

    /// Where the next byte goes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The link header.
    pub(super) fn link(&mut self, link: &Link, ether_type: u16) -> Option<()> {
        self.put(&link.dst.0)?;
        self.put(&link.src.0)?;
        if let Some(tci) = link.tci {
            self.put(&ether_type::VLAN.to_be_bytes())?;
            self.put(&tci.to_be_bytes())?;
        }
        self.put(&ether_type.to_be_bytes())
    }

    /// Link header and IP header before `l4_len` bytes of payload; the family is the addresses'.
    pub(super) fn ip(&mut self, link: &Link, ip: &Ip, l4_len: usize) -> Option<()> {
        match (ip.src.is_v4(), ip.dst.is_v4()) {
            (true, true) => {
                self.link(link, ether_type::IPV4)?;
                self.v4(ip, &[], l4_len)
            }
            (false, false) => {
                self.link(link, ether_type::IPV6)?;
                self.v6(ip, l4_len)
            }
            _ => None,
        }
    }

    /// An IPv4 header with options, which must come in whole words.
    fn v4(&mut self, ip: &Ip, options: &[u8], l4_len: usize) -> Option<()> {
        let start = self.len;
        let words = 5 + options.len() / 4;
        if words > 15 || !options.len().is_multiple_of(4) {
            return None;
        }
        let total_len = u16::try_from(words * 4 + l4_len).ok()?;
        self.put(&[0x40 | words as u8, ip.tos])?;
        self.put(&total_len.to_be_bytes())?;
        self.put(&ip.id.to_be_bytes())?;
        self.put(&ip.fragment_word.to_be_bytes())?;
        self.put(&[ip.ttl, ip.proto, 0, 0])?;
        self.put(&ip.src.v4_bits().to_be_bytes())?;
        self.put(&ip.dst.v4_bits().to_be_bytes())?;
        self.put(options)?;
        let check = checksum::internet(self.written(start));
        self.patch16(start + 10, check)
    }

    /// An IPv6 header without flow label.
    fn v6(&mut self, ip: &Ip, l4_len: usize) -> Option<()> {
        let payload_len = u16::try_from(l4_len).ok()?;
        self.put(&[0x60 | ip.tos >> 4, ip.tos << 4, 0, 0])?;
        self.put(&payload_len.to_be_bytes())?;
        self.put(&[ip.proto, ip.ttl])?;
        self.put(&ip.src.bits().to_be_bytes())?;
        self.put(&ip.dst.bits().to_be_bytes())
    }

    /// Puts the L4 checksum of what was written from `l4` on at `l4 + at`.
    pub(super) fn finish_l4(&mut self, ip: &Ip, l4: usize, at: usize) -> Option<()> {
        let len = u32::try_from(self.len - l4).ok()?;
        let pseudo = match ip.proto {
            protocol::ICMP => 0,
            proto => checksum::pseudo(ip.src, ip.dst, proto, len),
        };
        let sum = pseudo + checksum::sum(self.written(l4));
        let check = match ip.proto {
            protocol::UDP | protocol::UDPLITE => checksum::finish_udp(sum),
            _ => checksum::finish(sum),
        };
        self.patch16(l4 + at, check)
    }
}

/// Names for the tests of this module's files.
#[cfg(test)]
mod tests {
    use super::*;

    /// The link header of the golden frames.
    pub(in crate::wire) const LINK: Link =
        Link { dst: Mac([2, 0, 0, 0, 0, 2]), src: Mac([2, 0, 0, 0, 0, 1]), tci: None };

    #[test]
    fn the_writer_stays_inside() {
        let mut buffer = [0u8; 5];
        let mut writer = Writer::new(&mut buffer);
        assert!(writer.put(&[1, 2, 3]).is_some());
        assert!(writer.put(&[4, 5, 6]).is_none());
        assert_eq!(writer.len(), 3);
        assert!(writer.patch16(1, 0x0909).is_some());
        assert!(writer.patch16(4, 0).is_none());
        assert_eq!(writer.written(0), [1, 9, 9]);
        assert_eq!(writer.written(9), []);
    }
}
