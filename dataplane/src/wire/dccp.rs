//! DCCP (RFC 4340): the generic header with its two lengths of sequence numbers.
//!
//! Pure; read as far as conntrack needs it. NAT's edit of ports and checksum is in `nat::rewrite`.

use super::source::Source;

/// The shortest generic header, with a sequence number of 24 bits.
pub const HEADER_LEN: usize = 12;

/// Packet types (RFC 4340 section 5.1); 10 and above are reserved.
pub mod kind {
    /// The client asks for a connection.
    pub const REQUEST: u8 = 0;
    /// The server's answer.
    pub const RESPONSE: u8 = 1;
    /// Data.
    pub const DATA: u8 = 2;
    /// An acknowledgement.
    pub const ACK: u8 = 3;
    /// Both.
    pub const DATA_ACK: u8 = 4;
    /// The server asks the client to close.
    pub const CLOSE_REQ: u8 = 5;
    /// An orderly end.
    pub const CLOSE: u8 = 6;
    /// The end.
    pub const RESET: u8 = 7;
    /// Numbers are out of step.
    pub const SYNC: u8 = 8;
    /// Answers a Sync.
    pub const SYNC_ACK: u8 = 9;
    /// How many there are.
    pub const COUNT: usize = 10;
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Packet type, 0 to 15.
    pub kind: u8,
    /// Where the payload begins, in bytes; may be wrong.
    pub data_offset: usize,
    /// Bytes of payload that the checksum covers, in the coding of the field: 0 is all of it, `n`
    /// is `4 * (n - 1)`.
    pub coverage: u8,
    /// Sequence numbers have 48 bits, not 24.
    pub extended: bool,
    /// Sequence number.
    pub sequence: u64,
    /// Acknowledgement number, of a type that has one.
    pub acknowledged: Option<u64>,
}

impl Header {
    /// `None` if the packet ends within what its type and length of numbers ask for.
    pub fn read<S: Source + ?Sized>(packet: &S) -> Option<Header> {
        let [_, _, _, _, offset, ccval_coverage, _, _, kind_x, a, b, c] = packet.bytes(0)?;
        let (kind, extended) = (kind_x >> 1 & 15, kind_x & 1 == 1);
        let acknowledges = !matches!(kind, kind::REQUEST | kind::DATA);
        let (sequence, acknowledged) = if extended {
            let [d, e, f, g] = packet.bytes(HEADER_LEN)?;
            let ack = || packet.bytes::<8>(HEADER_LEN + 4);
            let ack = if acknowledges { Some(number(&ack()?[2..])) } else { None };
            (number(&[b, c, d, e, f, g]), ack)
        } else {
            let ack = || packet.bytes::<4>(HEADER_LEN);
            let ack = if acknowledges { Some(number(&ack()?[1..])) } else { None };
            (number(&[a, b, c]), ack)
        };
        Some(Header {
            kind,
            data_offset: offset as usize * 4,
            coverage: ccval_coverage & 15,
            extended,
            sequence,
            acknowledged,
        })
    }

    /// Bytes from the header on that the checksum covers, of `total`; `None` if there are fewer.
    /// Header and options always are (RFC 4340 section 9.2).
    pub const fn covered(&self, total: usize) -> Option<usize> {
        match self.coverage {
            0 => Some(total),
            n => {
                let covered = self.data_offset + 4 * (n as usize - 1);
                if covered <= total { Some(covered) } else { None }
            }
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | *byte as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden() {
        // An Ack with long numbers: sequence 0x010203040506, acknowledging 0x0a0b0c0d0e0f.
        let long =
            [0, 5, 0, 6, 6, 0x21, 0, 0, 0b0111, 0, 1, 2, 3, 4, 5, 6, 0, 0, 10, 11, 12, 13, 14, 15];
        let header = Header::read(&long[..]).unwrap();
        assert_eq!((header.kind, header.data_offset, header.coverage), (kind::ACK, 24, 1));
        assert_eq!(header.sequence, 0x0102_0304_0506);
        assert_eq!(header.acknowledged, Some(0x0a0b_0c0d_0e0f));
        assert_eq!((0..24).find(|cut| Header::read(&long[..*cut]).is_some()), None);
        // Data with short ones, which acknowledges nothing.
        let short = [0, 5, 0, 6, 3, 0, 0, 0, 0b0100, 1, 2, 3];
        let header = Header::read(&short[..]).unwrap();
        assert_eq!((header.kind, header.sequence, header.extended), (kind::DATA, 0x01_0203, false));
        assert_eq!(header.acknowledged, None);
        // DataAck with short ones.
        let short = [0, 5, 0, 6, 4, 0, 0, 0, 0b1000, 1, 2, 3, 0, 4, 5, 6];
        assert_eq!(Header::read(&short[..]).unwrap().acknowledged, Some(0x04_0506));
    }

    #[test]
    fn coverage() {
        let of = |coverage| {
            let header = [0, 5, 0, 6, 4, coverage, 0, 0, 0b0100, 1, 2, 3];
            Header::read(&header[..]).unwrap().covered(40)
        };
        assert_eq!((of(0), of(1), of(2), of(7)), (Some(40), Some(16), Some(20), Some(40)));
        assert_eq!(of(8), None);
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(header) = Header::read(&bytes[..]) {
                prop_assert!(header.sequence < 1 << 48 && header.kind < 16);
                prop_assert!(header.covered(bytes.len()).is_none_or(|n| n <= bytes.len()));
            }
        }
    }
}
