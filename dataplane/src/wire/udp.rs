//! The UDP header (RFC 768); UDP-Lite (RFC 3828) has the same ports and checksum places.

use super::checksum;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// The header, read only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// The header at the start of `l4`; `None` if there are fewer than 8 bytes. Judges nothing.
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

    /// Bytes of header and payload; in UDP-Lite how many of them the checksum covers.
    #[inline]
    pub fn len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// True if the length field is below the header's own 8 bytes, which is malformed.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() < HEADER_LEN as u16
    }

    /// Checksum; 0 in IPv4 means none was computed.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

/// The header to write to. Setters keep the checksum right, incrementally; none stays none.
#[derive(Debug)]
pub struct ViewMut<'a>(pub &'a mut [u8; HEADER_LEN]);

impl<'a> ViewMut<'a> {
    /// The header at the start of `l4`; `None` if there are fewer than 8 bytes.
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
        self.0[6..8].copy_from_slice(&check.to_be_bytes());
    }

    /// Applies a delta to the checksum: for addresses or payload edited by other means.
    #[inline]
    pub fn adjust_check(&mut self, delta: u16) {
        self.set_check(checksum::adjust_udp(self.view().check(), delta));
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

    /// Replaces the length field. It counts twice in the checksum: here and in the pseudo header.
    #[inline]
    pub fn set_len(&mut self, len: u16) {
        let delta = checksum::delta16(self.view().len(), len);
        self.0[4..6].copy_from_slice(&len.to_be_bytes());
        self.adjust_check(checksum::combine(delta, delta));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut bytes = [0x9c, 0x40, 0x00, 0x35, 0x00, 0x0c, 0x12, 0x34, 1, 2, 3, 4];
        let view = View::new(&bytes).unwrap();
        assert_eq!((view.src_port(), view.dst_port(), view.len()), (40000, 53, 12));
        assert_eq!((view.check(), view.is_empty()), (0x1234, false));
        assert!(View::new(&bytes[..7]).is_none());
        let pseudo = |len| checksum::pseudo_v4(0x0a000001, 0x0a000002, 17, len);
        let full = |bytes: &[u8], len: u16| {
            checksum::finish(pseudo(len) + checksum::sum(&bytes[..6]) + checksum::sum(&bytes[8..]))
        };
        let check = full(&bytes, 12);
        let mut view = ViewMut::new(&mut bytes).unwrap();
        view.set_check(check);
        view.set_src_port(1);
        view.set_dst_port(65535);
        view.set_len(9);
        assert_eq!(view.view().check(), full(&bytes, 9));
        let mut view = ViewMut::new(&mut bytes).unwrap();
        view.set_check(0);
        view.set_src_port(7);
        view.set_len(8);
        assert_eq!((view.view().check(), view.view().src_port()), (0, 7));
        view.set_len(7);
        assert!(view.view().is_empty());
    }
}
