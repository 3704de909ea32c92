//! Ethernet II frames and their 802.1Q tag, as far as a gateway looks at them.
//!
//! [`parse`] tells where the L3 header starts and what it is; [`View`] and [`ViewMut`] read and
//! write the 14 bytes in place.

use super::vlan;

/// Bytes of an Ethernet header without a tag.
pub const HEADER_LEN: usize = 14;

/// Ethertypes this project names.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP (RFC 826).
    pub const ARP: u16 = 0x0806;
    /// An 802.1Q tag follows.
    pub const VLAN: u16 = 0x8100;
    /// IPv6 (RFC 2464).
    pub const IPV6: u16 = 0x86dd;
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// True for group addresses, broadcast included.
    #[inline]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// True for `ff:ff:ff:ff:ff:ff`.
    #[inline]
    pub fn is_broadcast(self) -> bool {
        self == Mac::BROADCAST
    }
}

impl core::fmt::Display for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl core::fmt::Debug for Mac {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// What the link layer of a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC.
    pub dst: Mac,
    /// Source MAC.
    pub src: Mac,
    /// The tag control word (priority, DEI, 12 bits of VLAN id) if the frame is tagged.
    pub tci: Option<u16>,
    /// What follows the link header; below 0x600 it is an 802.3 length.
    pub ether_type: u16,
    /// Offset of what follows: 14, or 18 with a tag.
    pub l3: u16,
}

impl Link {
    /// The VLAN id, if the frame is tagged (0 for a priority tag).
    #[inline]
    pub fn vlan(&self) -> Option<u16> {
        self.tci.map(vlan::id)
    }
}

/// Reads the link header and at most one 802.1Q tag; `None` if the frame ends before their end.
#[inline]
pub fn parse(frame: &[u8]) -> Option<Link> {
    let (header, rest) = frame.split_first_chunk::<HEADER_LEN>()?;
    let view = View(header);
    let mut link = Link {
        dst: view.dst(),
        src: view.src(),
        tci: None,
        ether_type: view.ether_type(),
        l3: HEADER_LEN as u16,
    };
    if link.ether_type == ether_type::VLAN {
        let tag = vlan::View(rest.first_chunk::<{ vlan::TAG_LEN }>()?);
        link.tci = Some(tag.tci());
        link.ether_type = tag.ether_type();
        link.l3 += vlan::TAG_LEN as u16;
    }
    Some(link)
}

/// A link header, read only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// The header at the start of `frame`; `None` if there are fewer than 14 bytes.
    #[inline]
    pub fn new(frame: &'a [u8]) -> Option<View<'a>> {
        frame.first_chunk().map(View)
    }

    /// Destination MAC.
    #[inline]
    pub fn dst(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// Source MAC.
    #[inline]
    pub fn src(&self) -> Mac {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The ethertype field.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

/// A link header to write to.
#[derive(Debug)]
pub struct ViewMut<'a>(pub &'a mut [u8; HEADER_LEN]);

impl<'a> ViewMut<'a> {
    /// The header at the start of `frame`; `None` if there are fewer than 14 bytes.
    #[inline]
    pub fn new(frame: &'a mut [u8]) -> Option<ViewMut<'a>> {
        frame.first_chunk_mut().map(ViewMut)
    }

    /// Replaces both MACs, as forwarding does.
    #[inline]
    pub fn set_macs(&mut self, dst: Mac, src: Mac) {
        self.0[0..6].copy_from_slice(&dst.0);
        self.0[6..12].copy_from_slice(&src.0);
    }

    /// Replaces the ethertype.
    #[inline]
    pub fn set_ether_type(&mut self, ether_type: u16) {
        self.0[12..14].copy_from_slice(&ether_type.to_be_bytes());
    }
}

/// Replaces both MACs of a frame; false if it is too short to have any.
#[inline]
pub fn rewrite(frame: &mut [u8], dst: Mac, src: Mac) -> bool {
    match ViewMut::new(frame) {
        Some(mut view) => {
            view.set_macs(dst, src);
            true
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut frame =
            [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x81, 0x00, 0x60, 0x2a, 0x08, 0x00, 0x45];
        let link = parse(&frame).unwrap();
        assert_eq!(link.dst, Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(link.src.to_string(), "02:00:00:00:00:02");
        assert_eq!((link.tci, link.vlan(), link.l3), (Some(0x602a), Some(42), 18));
        assert_eq!(link.ether_type, ether_type::IPV4);
        for cut in 0..18 {
            assert!(parse(&frame[..cut]).is_none());
        }
        assert!(rewrite(&mut frame, Mac::BROADCAST, Mac([2, 9, 9, 9, 9, 9])));
        let link = parse(&frame).unwrap();
        assert!(link.dst.is_broadcast() && link.dst.is_multicast());
        assert_eq!(link.src, Mac([2, 9, 9, 9, 9, 9]));
        assert!(!rewrite(&mut frame[..13], Mac::BROADCAST, Mac::BROADCAST));
    }
}
