//! The 802.1Q tag: four bytes between the MACs and the ethertype.

use super::ethernet::ether_type;

/// Bytes of a tag.
pub const TAG_LEN: usize = 4;

/// Bytes of the two MACs before a tag.
const MACS: usize = 12;

/// The VLAN id in a tag control word.
#[inline]
pub const fn id(tci: u16) -> u16 {
    tci & 0x0fff
}

/// The four bytes after an ethertype of 0x8100: tag control and the inner ethertype.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; TAG_LEN]);

impl View<'_> {
    /// Priority, DEI and VLAN id.
    #[inline]
    pub fn tci(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// VLAN id (12 bits).
    #[inline]
    pub fn id(&self) -> u16 {
        id(self.tci())
    }

    /// Priority (3 bits).
    #[inline]
    pub fn priority(&self) -> u8 {
        self.0[0] >> 5
    }

    /// What the tag wraps.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }
}

/// The tag control word of a frame; `None` if it is not tagged, or ends within its tag.
#[inline]
pub fn peek(frame: &[u8]) -> Option<u16> {
    let head = frame.first_chunk::<{ MACS + TAG_LEN }>()?;
    let tagged = u16::from_be_bytes([head[MACS], head[MACS + 1]]) == ether_type::VLAN;
    tagged.then(|| u16::from_be_bytes([head[MACS + 2], head[MACS + 3]]))
}

/// Writes a tag into a frame that has just been grown by four bytes at its *front*: the MACs move
/// there and the tag takes their old place. False if there are no MACs to move.
pub fn push(frame: &mut [u8], tci: u16) -> bool {
    let Some(head) = frame.first_chunk_mut::<{ TAG_LEN + MACS }>() else { return false };
    head.copy_within(TAG_LEN.., 0);
    head[MACS..MACS + 2].copy_from_slice(&ether_type::VLAN.to_be_bytes());
    head[MACS + 2..].copy_from_slice(&tci.to_be_bytes());
    true
}

/// Takes the tag out of a frame by moving the MACs over it: afterwards the frame starts four bytes
/// later. Gives the tag control word, `None` (and no change) if the frame is not tagged.
pub fn pop(frame: &mut [u8]) -> Option<u16> {
    let tci = peek(frame)?;
    let head = frame.first_chunk_mut::<{ MACS + TAG_LEN }>()?;
    head.copy_within(..MACS, TAG_LEN);
    Some(tci)
}

/// Replaces the tag control word of a tagged frame; false if it is not tagged.
pub fn set_tci(frame: &mut [u8], tci: u16) -> bool {
    let Some(head) = frame.first_chunk_mut::<{ MACS + TAG_LEN }>() else { return false };
    let tagged = u16::from_be_bytes([head[MACS], head[MACS + 1]]) == ether_type::VLAN;
    if tagged {
        head[MACS + 2..].copy_from_slice(&tci.to_be_bytes());
    }
    tagged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ethernet;

    #[test]
    fn push_then_pop_is_the_same_frame() {
        let plain = [1u8, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x00, 0x45];
        let mut buffer = [0u8; 19];
        buffer[4..].copy_from_slice(&plain);
        assert!(push(&mut buffer, 0xa064));
        let link = ethernet::parse(&buffer).unwrap();
        assert_eq!((link.tci, link.vlan()), (Some(0xa064), Some(100)));
        assert_eq!((link.ether_type, link.l3), (ether_type::IPV4, 18));
        assert_eq!(buffer[..12], plain[..12]);
        assert!(set_tci(&mut buffer, 7));
        assert_eq!(
            (peek(&buffer), peek(&buffer[..16]), peek(&buffer[..15])),
            (Some(7), Some(7), None)
        );
        assert_eq!(pop(&mut buffer), Some(7));
        assert_eq!(buffer[4..], plain);
        assert_eq!((peek(&buffer[4..]), pop(&mut buffer[4..])), (None, None));
        assert!(!set_tci(&mut buffer[4..], 7));
        assert!(!push(&mut buffer[..15], 1));
        let tag = View(&[0xa0, 0x64, 0x86, 0xdd]);
        assert_eq!((tag.id(), tag.priority(), tag.ether_type()), (100, 5, 0x86dd));
    }
}
