//! SCTP (RFC 9260): the common header, and the chunks behind it as conntrack walks them.
//!
//! Pure. A walk is as long as the packet: each chunk takes at least four bytes. Nothing is written
//! here; NAT's edit of the ports and the CRC is in `nat::rewrite`.

use super::source::Source;

/// The common header: ports, verification tag, CRC32c.
pub const HEADER_LEN: usize = 12;

/// Chunk types that conntrack knows (RFC 9260 section 3.2).
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// Asks for an association.
    pub const INIT: u8 = 1;
    /// Answers an INIT.
    pub const INIT_ACK: u8 = 2;
    /// Is the peer there?
    pub const HEARTBEAT: u8 = 4;
    /// It is.
    pub const HEARTBEAT_ACK: u8 = 5;
    /// Ends the association at once.
    pub const ABORT: u8 = 6;
    /// Begins an orderly end.
    pub const SHUTDOWN: u8 = 7;
    /// Answers a SHUTDOWN.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Reports an error.
    pub const ERROR: u8 = 9;
    /// Brings the cookie of an INIT ACK back.
    pub const COOKIE_ECHO: u8 = 10;
    /// The cookie was right.
    pub const COOKIE_ACK: u8 = 11;
    /// Ends an orderly end.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// The T bit of ABORT and SHUTDOWN COMPLETE: the tag is the receiver's own, sent back.
pub const FLAG_T: u8 = 1;

/// The common header.
#[derive(Clone, Copy, Debug)]
pub struct Header([u8; HEADER_LEN]);

impl Header {
    /// `None` if the packet is too short.
    pub fn read<S: Source + ?Sized>(packet: &S) -> Option<Header> {
        packet.bytes(0).map(Header)
    }

    /// Verification tag.
    pub const fn tag(&self) -> u32 {
        let [_, _, _, _, a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }

    /// CRC32c as it stands in the packet, first byte lowest.
    pub const fn check(&self) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }
}

/// A chunk's header and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Bytes of header and value, without padding. A walk ends behind a chunk of length 0.
    pub length: u16,
    /// Offset from the common header.
    pub at: usize,
}

impl Chunk {
    /// The initiate tag of an INIT or INIT ACK; `None` if the packet ends within its fixed part,
    /// whatever the chunk's own length says.
    pub fn initiate_tag<S: Source + ?Sized>(&self, packet: &S) -> Option<u32> {
        let [a, b, c, d, ..] = packet.bytes::<16>(self.at + 4)?;
        Some(u32::from_be_bytes([a, b, c, d]))
    }
}

/// The chunks of a packet, in order. Ends where the packet does, even in the middle of a chunk's
/// value; a rest of less than four bytes is none.
pub fn chunks<S: Source + ?Sized>(packet: &S) -> impl Iterator<Item = Chunk> {
    let mut next = Some(HEADER_LEN);
    std::iter::from_fn(move || {
        let at = next?;
        let [kind, flags, high, low] = packet.bytes(at)?;
        let length = u16::from_be_bytes([high, low]);
        next = (length > 0).then_some(at + (length as usize).next_multiple_of(4));
        Some(Chunk { kind, flags, length, at })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ports 5 and 6, tag 7, no CRC; an INIT with tag 0x0102_0304, then a HEARTBEAT of 5 bytes.
    const PACKET: [u8; 40] = [
        0, 5, 0, 6, 0, 0, 0, 7, 1, 2, 3, 4, // header
        1, 0, 0, 20, 1, 2, 3, 4, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 9, // INIT
        4, 0, 0, 5, 0xaa, 0, 0, 0, // HEARTBEAT, padded
    ];

    #[test]
    fn golden() {
        let header = Header::read(&PACKET[..]).unwrap();
        assert_eq!((header.tag(), header.check()), (7, 0x0403_0201));
        let found: Vec<Chunk> = chunks(&PACKET[..]).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].length, found[0].at), (chunk::INIT, 20, 12));
        assert_eq!((found[1].kind, found[1].length, found[1].at), (chunk::HEARTBEAT, 5, 32));
        assert_eq!(found[0].initiate_tag(&PACKET[..]), Some(0x0102_0304));
        assert_eq!(found[0].initiate_tag(&PACKET[..31]), None, "the fixed part is cut");
        assert_eq!(chunks(&PACKET[..15]).count(), 0);
        assert_eq!(chunks(&PACKET[..35]).count(), 1);
        assert!(Header::read(&PACKET[..11]).is_none());
    }

    #[test]
    fn a_chunk_without_length_is_the_last() {
        let mut packet = PACKET;
        packet[14..16].fill(0);
        assert_eq!(chunks(&packet[..]).map(|c| c.length).collect::<Vec<_>>(), [0]);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let found: Vec<Chunk> = chunks(&bytes[..]).collect();
            prop_assert!(found.len() <= bytes.len() / 4);
            for c in found {
                prop_assert!(c.at + 4 <= bytes.len());
                c.initiate_tag(&bytes[..]);
            }
        }
    }
}
