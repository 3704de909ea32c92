//! ARP for IPv4 over Ethernet (RFC 826).

use super::address::Address;
use super::ethernet::Mac;

/// Bytes of an ARP packet.
pub const LEN: usize = 28;

/// Operations.
pub mod operation {
    /// Who has the target address?
    pub const REQUEST: u16 = 1;
    /// The sender has its address.
    pub const REPLY: u16 = 2;
}

/// The first six bytes: Ethernet, IPv4, and their address lengths.
pub(super) const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// An ARP packet of Ethernet and IPv4.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8; LEN]);

impl<'a> View<'a> {
    /// The packet at the start of `bytes` (after the link header); `None` if it is cut short or of
    /// other address kinds.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<View<'a>> {
        let packet: &[u8; LEN] = bytes.first_chunk()?;
        packet.starts_with(&KIND).then_some(View(packet))
    }

    /// See [`operation`].
    #[inline]
    pub fn operation(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// MAC of the sender.
    #[inline]
    pub fn sender_mac(&self) -> Mac {
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// IPv4 address of the sender; `0.0.0.0` in a probe (RFC 5227).
    #[inline]
    pub fn sender(&self) -> Address {
        Address::v4(u32::from_be_bytes([self.0[14], self.0[15], self.0[16], self.0[17]]))
    }

    /// MAC of the target; means nothing in a request.
    #[inline]
    pub fn target_mac(&self) -> Mac {
        let [.., a, b, c, d, e, f, _, _, _, _] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// IPv4 address of the target.
    #[inline]
    pub fn target(&self) -> Address {
        Address::v4(u32::from_be_bytes([self.0[24], self.0[25], self.0[26], self.0[27]]))
    }

    /// True if sender and target address are the same: an announcement.
    #[inline]
    pub fn is_gratuitous(&self) -> bool {
        self.sender() == self.target()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut bytes = [
            0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1, 192, 168, 10, 1, 2, 0, 0, 0, 0, 2, 192, 168,
            10, 2, 0, 0,
        ];
        let view = View::new(&bytes).unwrap();
        assert_eq!(view.operation(), operation::REPLY);
        assert_eq!(view.sender_mac(), Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(view.sender().to_string(), "192.168.10.1");
        assert_eq!(view.target_mac(), Mac([2, 0, 0, 0, 0, 2]));
        assert_eq!(view.target().to_string(), "192.168.10.2");
        assert!(!view.is_gratuitous());
        assert!(View::new(&bytes[..27]).is_none());
        bytes[1] = 6;
        assert!(View::new(&bytes).is_none(), "IEEE 802 hardware is not Ethernet");
    }
}
