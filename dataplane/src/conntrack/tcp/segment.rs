//! One TCP segment as the tracker sees it, and the checks a header must pass on its own.

use super::options::{TIMESTAMP_ONLY, move_sack};
use crate::conntrack::invalid::InvalidReason;
use crate::conntrack::state::Direction;
use crate::wire::tcp::OPTIONS_LEN_MAX;

/// The bits of the flags byte (RFC 9293 section 3.1).
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer is significant.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// What counts of a segment's flags (`get_conntrack_index`; same numbers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// SYN without ACK.
    Syn = 0,
    /// SYN and ACK.
    SynAck = 1,
    /// FIN.
    Fin = 2,
    /// ACK without any of the others.
    Ack = 3,
    /// RST, whatever else is set.
    Rst = 4,
    /// None of them.
    None = 5,
}

impl Class {
    /// How many classes there are.
    pub const COUNT: usize = 6;

    /// All of them, in the order of their numbers.
    pub const ALL: [Class; Class::COUNT] =
        [Class::Syn, Class::SynAck, Class::Fin, Class::Ack, Class::Rst, Class::None];

    /// The class of a flags byte: RST before SYN before FIN before ACK.
    #[inline]
    pub const fn of(flags: u8) -> Class {
        CLASS_OF[(flags & 0x1f) as usize]
    }
}

/// The class for each value of the low five flags, so that the packet path need not branch.
const CLASS_OF: [Class; 32] = {
    let mut table = [Class::None; 32];
    let mut bits = 0;
    while bits < 32 {
        let set = bits as u8;
        table[bits] = if set & flags::RST != 0 {
            Class::Rst
        } else if set & flags::SYN != 0 {
            if set & flags::ACK != 0 { Class::SynAck } else { Class::Syn }
        } else if set & flags::FIN != 0 {
            Class::Fin
        } else if set & flags::ACK != 0 {
            Class::Ack
        } else {
            Class::None
        };
        bits += 1;
    }
    table
};

/// One segment, as the wire has it (before any rewrite of addresses and ports).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The flags byte.
    pub flags: u8,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgment number, as read: also when ACK is not set.
    pub ack: u32,
    /// Window, not scaled.
    pub window: u16,
    /// Payload bytes.
    pub data_len: u32,
    /// The options, at most 40 bytes.
    pub options: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment that asks for no second look: ACK without SYN, FIN and RST, and no options
    /// but a timestamp. No other flags and no options are said to be there, as none would matter.
    /// `l4` is all from the header to the end of the IP packet.
    #[inline(always)]
    pub fn plain(l4: &[u8]) -> Option<Segment<'static>> {
        let header = l4.first_chunk::<20>()?;
        let header_len = match (header[12] >> 4, header[13] & 0x17) {
            (5, flags::ACK) => 20,
            (8, flags::ACK) if l4.len() >= 32 && l4[20..24] == TIMESTAMP_ONLY => 32,
            _ => return None,
        };
        Some(Segment {
            flags: flags::ACK,
            seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            window: u16::from_be_bytes([header[14], header[15]]),
            data_len: l4.len() as u32 - header_len,
            options: &[],
        })
    }

    /// The segment as its receiver will see it, whose sequence numbers the sender knows as `shift`
    /// more if it is the one that speaks first, and as they are otherwise (`nf_ct_seq_offset`).
    /// Windows are kept in the numbers of those whose they are.
    pub fn as_of_its_receiver(
        &self,
        dir: Direction,
        shift: u32,
        options: &'a mut [u8; OPTIONS_LEN_MAX],
    ) -> Segment<'a> {
        let Some(own) = options.get_mut(..self.options.len()) else { return *self };
        if dir == Direction::Reply || shift == 0 {
            return *self;
        }
        own.copy_from_slice(self.options);
        move_sack(own, shift);
        Segment { ack: self.ack.wrapping_sub(shift), options: own, ..*self }
    }

    /// True if any of `bits` is set.
    #[inline]
    pub(super) const fn has(&self, bits: u8) -> bool {
        self.flags & bits != 0
    }

    /// The sequence number after this segment; SYN and FIN count one each.
    #[inline]
    pub(super) const fn end(&self) -> u32 {
        let control = (self.flags >> 1 & 1) as u32 + (self.flags & 1) as u32;
        self.seq.wrapping_add(self.data_len).wrapping_add(control)
    }
}

/// The combinations of FIN, SYN, RST, ACK and URG that a TCP sends; PSH, ECE and CWR go with any.
const VALID: u64 = {
    use flags::{ACK, FIN, RST, SYN, URG};
    let valid =
        [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
    let mut set = 0;
    let mut at = 0;
    while at < valid.len() {
        set |= 1 << valid[at];
        at += 1;
    }
    set
};

/// Reads a TCP header and checks what can be checked without the conn (`tcp_error`); verifying the
/// checksum is the caller's. `l4` begins at the header and holds at least its options; `l4_len`
/// counts the bytes from the header to the end of the IP packet.
///
/// # Errors
/// `TcpShort` or `TcpTruncated` if header or options are not all there, `TcpFlags` for flags no TCP
/// sends.
#[inline]
pub fn sanity(l4: &[u8], l4_len: u32) -> Result<Segment<'_>, InvalidReason> {
    let Some((header, rest)) = l4.split_first_chunk::<20>() else {
        return Err(InvalidReason::TcpShort);
    };
    let header_len = (header[12] >> 4) as u32 * 4;
    if header_len < 20 || l4_len < header_len {
        return Err(InvalidReason::TcpTruncated);
    }
    let Some(options) = rest.get(..header_len as usize - 20) else {
        return Err(InvalidReason::TcpTruncated);
    };
    let flags = header[13];
    if VALID >> (flags & (flags::FIN | flags::SYN | flags::RST | flags::ACK | flags::URG)) & 1 == 0
    {
        return Err(InvalidReason::TcpFlags);
    }
    Ok(Segment {
        flags,
        seq: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
        ack: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        window: u16::from_be_bytes([header[14], header[15]]),
        data_len: l4_len - header_len,
        options,
    })
}

#[cfg(test)]
mod tests {
    use super::flags::*;
    use super::*;
    use proptest::prelude::*;

    /// A header from a capture: ports 43783 and 8080, PSH and ACK, NOP NOP timestamp.
    const GOLDEN: [u8; 32] = [
        0xab, 0x07, 0x1f, 0x90, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x80, 0x18, 0x01,
        0xf6, 0x14, 0x28, 0x00, 0x00, 0x01, 0x01, 0x08, 0x0a, 0x8a, 0x4e, 0x1c, 0x9d, 0x60, 0x2f,
        0xd7, 0x51,
    ];

    #[test]
    fn a_header_is_read_field_by_field() {
        let segment = sanity(&GOLDEN, 32 + 7).unwrap();
        assert_eq!(segment.flags, PSH | ACK);
        assert_eq!((segment.seq, segment.ack), (0x1122_3344, 0x5566_7788));
        assert_eq!((segment.window, segment.data_len), (502, 7));
        assert_eq!(segment.options, &GOLDEN[20..]);
        assert_eq!(segment.end(), 0x1122_334b);
    }

    #[test]
    fn syn_and_fin_take_a_sequence_number_each() {
        let end = |flags| {
            let seq = u32::MAX;
            Segment { flags, seq, ack: 0, window: 0, data_len: 3, options: &[] }.end()
        };
        assert_eq!([end(ACK), end(SYN), end(FIN | ACK), end(RST)], [2, 3, 3, 2]);
    }

    #[test]
    fn a_header_that_is_not_all_there_is_truncated() {
        let truncated = Err(InvalidReason::TcpTruncated);
        assert_eq!(sanity(&GOLDEN[..19], 100), Err(InvalidReason::TcpShort));
        assert_eq!(sanity(&GOLDEN[..31], 100), truncated, "options cut off");
        assert_eq!(sanity(&GOLDEN, 31), truncated, "packet ends inside the options");
        let mut short = GOLDEN;
        short[12] = 0x40;
        assert_eq!(sanity(&short, 100), truncated, "offset of four words");
    }

    #[test]
    fn exactly_the_flags_a_tcp_sends_are_valid() {
        let valid =
            [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
        for flags in 0..=255u8 {
            let mut header = GOLDEN;
            header[13] = flags;
            let known = valid.contains(&(flags & !(PSH | ECE | CWR)));
            assert_eq!(sanity(&header, 32).is_ok(), known, "{flags:#04x}");
        }
    }

    #[test]
    fn rst_outranks_syn_outranks_fin_outranks_ack() {
        for flags in 0..=255u8 {
            let class = match flags {
                f if f & RST != 0 => Class::Rst,
                f if f & (SYN | ACK) == SYN | ACK => Class::SynAck,
                f if f & SYN != 0 => Class::Syn,
                f if f & FIN != 0 => Class::Fin,
                f if f & ACK != 0 => Class::Ack,
                _ => Class::None,
            };
            assert_eq!(Class::of(flags), class);
        }
        for (number, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, number);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(l4: Vec<u8>, l4_len: u32) {
            if let Ok(segment) = sanity(&l4, l4_len) {
                prop_assert!(segment.options.len() <= 40);
                prop_assert!(segment.data_len <= l4_len - 20);
            }
        }
    }
}
