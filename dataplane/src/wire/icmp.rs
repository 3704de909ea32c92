//! The ICMP header (RFC 792). ICMPv6 has the same layout and shares the views.

use super::checksum;

/// Bytes of the header: type, code, checksum and four bytes whose meaning depends on the type.
pub const HEADER_LEN: usize = 8;

/// ICMP types.
pub mod kind {
    /// Answer to an echo request.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench (deprecated).
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Highest type the kernel knows (`NR_ICMP_TYPES`).
    pub const MAX: u8 = 18;
}

/// Codes of destination unreachable.
pub mod unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The host does not answer.
    pub const HOST: u8 = 1;
    /// The protocol is not spoken.
    pub const PROTO: u8 = 2;
    /// Nobody listens.
    pub const PORT: u8 = 3;
    /// DF is set and the packet exceeds the MTU that the header carries (RFC 1191).
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// Network administratively prohibited.
    pub const NET_PROHIBITED: u8 = 9;
    /// Host administratively prohibited.
    pub const HOST_PROHIBITED: u8 = 10;
    /// Communication administratively prohibited.
    pub const PROHIBITED: u8 = 13;
}

/// True for the types that quote another packet.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    matches!(kind, 3 | 4 | 5 | 11 | 12)
}

/// True for the types about which no error is sent (`icmp_pointers`): errors, and what nobody
/// answers.
#[inline]
pub const fn is_unanswerable(kind: u8) -> bool {
    matches!(kind, 1..=7 | 9..=12) || kind > kind::MAX
}

/// The header, read only.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// The header at the start of `l4`; `None` if there are fewer than 8 bytes. Judges nothing.
    #[inline]
    pub fn new(l4: &'a [u8]) -> Option<View<'a>> {
        l4.first_chunk().map(View)
    }

    /// Type.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.0[0]
    }

    /// Code.
    #[inline]
    pub fn code(&self) -> u8 {
        self.0[1]
    }

    /// Checksum; in ICMPv6 it covers a pseudo header too.
    #[inline]
    pub fn check(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// The four bytes after the checksum: gateway of a redirect, MTU of ICMPv6 packet too big, ….
    #[inline]
    pub fn rest(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Identifier of a query or its answer.
    #[inline]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Sequence number of a query or its answer; next-hop MTU of ICMP fragmentation needed.
    #[inline]
    pub fn seq(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

/// The header to write to. Setters keep the checksum right, incrementally.
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
        self.0[2..4].copy_from_slice(&check.to_be_bytes());
    }

    /// Applies a delta to the checksum: for the quoted packet, or ICMPv6 addresses.
    #[inline]
    pub fn adjust_check(&mut self, delta: u16) {
        self.set_check(checksum::adjust_delta(self.view().check(), delta));
    }

    /// Replaces the type, as an echo reply does.
    #[inline]
    pub fn set_kind(&mut self, kind: u8) {
        let old = u16::from_be_bytes([self.0[0], self.0[1]]);
        self.0[0] = kind;
        self.adjust_check(checksum::delta16(old, u16::from_be_bytes([kind, self.0[1]])));
    }

    /// Replaces the identifier, as NAT does.
    #[inline]
    pub fn set_id(&mut self, id: u16) {
        let old = self.view().id();
        self.0[4..6].copy_from_slice(&id.to_be_bytes());
        self.adjust_check(checksum::delta16(old, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let mut bytes = [8, 0, 0x00, 0x00, 0x12, 0x34, 0x00, 0x01, b'a', b'b', b'c'];
        let check = checksum::internet(&bytes);
        let mut view = ViewMut::new(&mut bytes).unwrap();
        view.set_check(check);
        assert_eq!((view.view().kind(), view.view().code()), (8, 0));
        assert_eq!((view.view().id(), view.view().seq()), (0x1234, 1));
        assert_eq!(view.view().rest(), 0x1234_0001);
        view.set_kind(kind::ECHO_REPLY);
        view.set_id(0xffff);
        assert_eq!((view.view().kind(), view.view().id()), (0, 0xffff));
        assert_eq!(checksum::internet(&bytes), 0);
        assert!(View::new(&bytes[..7]).is_none());
        let errors = (0..=255).filter(|kind| is_error(*kind));
        assert_eq!(errors.collect::<Vec<u8>>(), [3, 4, 5, 11, 12]);
    }
}
