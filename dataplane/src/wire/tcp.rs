//! The TCP header (RFC 9293) and the options that matter to a tracker.
//!
//! [`summary`] reads all options in one pass; like the kernel's `tcp_options` it stops at the first
//! one that is malformed and keeps what it has read. Bounded by the 40 bytes options can take.

use super::checksum;

/// Bytes of the header without options.
pub const HEADER_LEN: usize = 20;

/// Most bytes of options a header can have.
pub const OPTIONS_LEN_MAX: usize = 40;

/// Bits of the flags byte.
pub mod flags {
    /// No more from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// Option numbers.
pub mod option {
    /// End of the list.
    pub const END: u8 = 0;
    /// One byte of padding.
    pub const NOP: u8 = 1;
    /// Maximum segment size, 4 bytes.
    pub const MSS: u8 = 2;
    /// Window scale, 3 bytes.
    pub const WINDOW_SCALE: u8 = 3;
    /// SACK permitted, 2 bytes.
    pub const SACK_PERMITTED: u8 = 4;
    /// SACK blocks, 2 + 8 for each.
    pub const SACK: u8 = 5;
    /// Timestamps, 10 bytes.
    pub const TIMESTAMPS: u8 = 8;
}

/// The 20 bytes every TCP header has.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// The header at the start of `l4`; `None` if there are fewer than 20 bytes. Judges nothing.
    #[inline]
    pub fn new(l4: &'a [u8]) -> Option<View<'a>> {
        l4.first_chunk().map(View)
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Sequence number.
    #[inline]
    pub fn seq(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Acknowledgment number.
    #[inline]
    pub fn ack(&self) -> u32 {
        u32::from_be_bytes([self.0[8], self.0[9], self.0[10], self.0[11]])
    }

    /// Bytes of header and options as the data offset says: 0 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        (self.0[12] >> 4) as usize * 4
    }

    /// The four reserved bits beside the data offset (the lowest is AccECN's AE).
    #[inline]
    pub fn reserved(&self) -> u8 {
        self.0[12] & 0x0f
    }

    /// Flags, see [`flags`].
    #[inline]
    pub fn flags(&self) -> u8 {
        self.0[13]
    }

    /// Window, not scaled.
    #[inline]
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.0[14], self.0[15]])
    }

    /// Checksum.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_be_bytes([self.0[16], self.0[17]])
    }

    /// Urgent pointer.
    #[inline]
    pub fn urgent(&self) -> u16 {
        u16::from_be_bytes([self.0[18], self.0[19]])
    }

    /// The bytes of the options in `l4`, the slice this view was made from; `None` if the data
    /// offset is below 5 words or beyond `l4` (which `tcp_error` calls invalid).
    #[inline]
    pub fn options<'b>(&self, l4: &'b [u8]) -> Option<&'b [u8]> {
        l4.get(HEADER_LEN..self.header_len())
    }
}

/// The header to write to. Setters keep the checksum right, incrementally, except
/// [`ViewMut::set_check`].
#[derive(Debug)]
pub struct ViewMut<'a>(pub &'a mut [u8; HEADER_LEN]);

impl<'a> ViewMut<'a> {
    /// The header at the start of `l4`; `None` if there are fewer than 20 bytes.
    #[inline]
    pub fn new(l4: &'a mut [u8]) -> Option<ViewMut<'a>> {
        l4.first_chunk_mut().map(ViewMut)
    }

    /// For reading.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View(self.0)
    }

    /// Writes the checksum as it is given.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        self.0[16..18].copy_from_slice(&check.to_be_bytes());
    }

    /// Applies a delta to the checksum: for addresses, or options edited by other means.
    #[inline]
    pub fn adjust_check(&mut self, delta: u16) {
        self.set_check(checksum::adjust_delta(self.view().check(), delta));
    }

    /// Replaces the source port.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        let delta = checksum::delta16(self.view().src_port(), port);
        self.0[0..2].copy_from_slice(&port.to_be_bytes());
        self.adjust_check(delta);
    }

    /// Replaces the destination port.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        let delta = checksum::delta16(self.view().dst_port(), port);
        self.0[2..4].copy_from_slice(&port.to_be_bytes());
        self.adjust_check(delta);
    }

    /// Replaces the sequence number.
    #[inline]
    pub fn set_seq(&mut self, seq: u32) {
        let delta = checksum::delta32(self.view().seq(), seq);
        self.0[4..8].copy_from_slice(&seq.to_be_bytes());
        self.adjust_check(delta);
    }

    /// Replaces the acknowledgment number.
    #[inline]
    pub fn set_ack(&mut self, ack: u32) {
        let delta = checksum::delta32(self.view().ack(), ack);
        self.0[8..12].copy_from_slice(&ack.to_be_bytes());
        self.adjust_check(delta);
    }
}

/// One option as the iterator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Offset in the header (20 for the first).
    pub at: u8,
    /// Option number.
    pub kind: u8,
    /// What follows kind and length.
    pub body: &'a [u8],
}

/// The options of a header in their order, without padding; at most 20. It ends at the end mark, at
/// the end of the bytes, or at an option that is shorter than 2 or does not fit.
#[derive(Clone, Debug)]
pub struct OptionIter<'a> {
    rest: &'a [u8],
    at: u8,
}

/// Iterates over the bytes that [`View::options`] gives (at most 40 are looked at).
#[inline]
pub fn options(bytes: &[u8]) -> OptionIter<'_> {
    OptionIter { rest: bytes.get(..OPTIONS_LEN_MAX).unwrap_or(bytes), at: HEADER_LEN as u8 }
}

impl<'a> Iterator for OptionIter<'a> {
    type Item = Opt<'a>;

    #[inline]
    fn next(&mut self) -> Option<Opt<'a>> {
        while let Some((&kind, after)) = self.rest.split_first() {
            let at = self.at;
            match kind {
                option::END => break,
                option::NOP => {
                    self.rest = after;
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let len = after.first().copied().unwrap_or(0);
            let Some(body) = self.rest.get(2..len as usize) else { break };
            self.rest = self.rest.get(len as usize..).unwrap_or(&[]);
            self.at += len;
            return Some(Opt { at, kind, body });
        }
        self.rest = &[];
        None
    }
}

/// What the options say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Summary {
    /// Maximum segment size, and the header offset of its two bytes (to clamp it).
    pub mss: Option<(u16, u8)>,
    /// Window scale as written; a tracker caps it at 14 (RFC 7323 section 2.3).
    pub window_scale: Option<u8>,
    /// SACK may be used.
    pub sack_permitted: bool,
    /// SACK blocks (left edge, right edge) as they come; [`Summary::sack_count`] of them.
    pub sack: [(u32, u32); 4],
    /// How many SACK blocks: 0 to 4.
    pub sack_count: u8,
    /// TSval and TSecr.
    pub timestamps: Option<(u32, u32)>,
}

impl Summary {
    /// The SACK blocks.
    #[inline]
    pub fn sack_blocks(&self) -> &[(u32, u32)] {
        self.sack.get(..self.sack_count as usize).unwrap_or(&self.sack)
    }
}

/// Reads all options in one pass. An option of a known kind and wrong length is skipped.
pub fn summary(bytes: &[u8]) -> Summary {
    let mut found = Summary::default();
    // Linux and others send exactly this on every data segment: NOP NOP timestamps.
    if let Some(&[option::NOP, option::NOP, option::TIMESTAMPS, 10, a, b, c, d, e, f, g, h]) =
        bytes.first_chunk()
        && bytes.len() == 12
    {
        found.timestamps =
            Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
        return found;
    }
    for opt in options(bytes) {
        match (opt.kind, opt.body) {
            (option::MSS, &[a, b]) => found.mss = Some((u16::from_be_bytes([a, b]), opt.at + 2)),
            (option::WINDOW_SCALE, &[shift]) => found.window_scale = Some(shift),
            (option::SACK_PERMITTED, []) => found.sack_permitted = true,
            (option::TIMESTAMPS, &[a, b, c, d, e, f, g, h]) => {
                found.timestamps =
                    Some((u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])));
            }
            (option::SACK, body) => read_sack(&mut found, body),
            _ => {}
        }
    }
    found
}

/// Reads whole blocks; a length that is no multiple of 8, or no block at all, says nothing.
fn read_sack(found: &mut Summary, body: &[u8]) {
    let (blocks, rest) = body.as_chunks::<8>();
    if !rest.is_empty() {
        return;
    }
    for (slot, &[a, b, c, d, e, f, g, h]) in found.sack.iter_mut().zip(blocks) {
        *slot = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    }
    found.sack_count = blocks.len().min(4) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A SYN as Linux sends it: MSS 1460, SACK permitted, timestamps, NOP, window scale 7.
    const SYN: [u8; 40] = [
        0xa0, 0x14, 0x00, 0x50, 0x12, 0x34, 0x56, 0x78, 0x00, 0x00, 0x00, 0x00, 0xa0, 0x02, 0xfa,
        0xf0, 0xbe, 0xef, 0x00, 0x00, 0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a, 0x01, 0x02,
        0x03, 0x04, 0x00, 0x00, 0x00, 0x00, 0x01, 0x03, 0x03, 0x07,
    ];

    #[test]
    fn golden() {
        let view = View::new(&SYN).unwrap();
        assert_eq!((view.src_port(), view.dst_port()), (40980, 80));
        assert_eq!((view.seq(), view.ack(), view.header_len()), (0x12345678, 0, 40));
        assert_eq!((view.flags(), view.window(), view.check()), (flags::SYN, 64240, 0xbeef));
        assert_eq!((view.urgent(), view.reserved()), (0, 0));
        let found = summary(view.options(&SYN).unwrap());
        assert_eq!(found.mss, Some((1460, 22)));
        assert_eq!((found.window_scale, found.sack_permitted), (Some(7), true));
        assert_eq!(found.timestamps, Some((0x01020304, 0)));
        assert!(found.sack_blocks().is_empty());
        assert!(view.options(&SYN[..39]).is_none(), "data offset beyond the packet");
        assert!(View::new(&SYN[..19]).is_none());
    }

    #[test]
    fn sack_and_the_common_case() {
        let mut bytes = vec![1, 1, 5, 18];
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 10]);
        assert_eq!(summary(&bytes).sack_blocks(), [(1, 2), (9, 10)]);
        assert!(summary(&bytes[..19]).sack_blocks().is_empty(), "does not fit");
        assert!(summary(&[5, 5, 0, 0, 0, 0]).sack_blocks().is_empty(), "no whole block");
        let data = [1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0, 6];
        assert_eq!(summary(&data).timestamps, Some((5, 6)));
        assert_eq!(summary(&[1, 1, 8, 10, 0, 0, 0, 5, 0, 0, 0]).timestamps, None);
    }

    #[test]
    fn reading_stops_at_nonsense() {
        assert_eq!(summary(&[3, 3, 5, 9, 0, 0]).window_scale, Some(5), "a length of 0 ends it");
        assert_eq!(summary(&[9, 1, 3, 3, 5]).window_scale, None);
        assert_eq!(summary(&[0, 3, 3, 5]).window_scale, None, "after the end mark");
        assert_eq!(summary(&[3, 4, 5, 5, 3, 3, 6]).window_scale, Some(6), "wrong length skipped");
    }

    #[test]
    fn edits_keep_the_checksum() {
        let mut bytes = SYN;
        bytes[16..18].fill(0);
        let check = checksum::internet(&bytes);
        let mut view = ViewMut::new(&mut bytes).unwrap();
        view.set_check(check);
        view.set_src_port(0xffff);
        view.set_dst_port(0);
        view.set_seq(0xffff_ffff);
        view.set_ack(7);
        let read = view.view();
        assert_eq!((read.src_port(), read.dst_port(), read.seq()), (0xffff, 0, u32::MAX));
        assert_eq!(checksum::internet(&bytes), 0);
    }

    proptest! {
        #[test]
        fn options_are_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(options(&bytes).count() <= 20);
            for opt in options(&bytes) {
                prop_assert!(opt.at as usize + 2 + opt.body.len() <= 60);
            }
            summary(&bytes);
        }
    }
}
