//! The IPv4 header (RFC 791): fields, options and the edits a router makes.

use super::address::Address;
use super::checksum;
use super::ethernet::Mac;
use super::headers::Fragment;

/// Bytes of the header without options.
pub const HEADER_LEN: usize = 20;

/// Most bytes of options a header can have.
pub const OPTIONS_LEN_MAX: usize = 40;

/// The DF bit in the fragment word.
pub const DONT_FRAGMENT: u16 = 0x4000;

/// The MF bit in the fragment word.
pub const MORE_FRAGMENTS: u16 = 0x2000;

/// Option numbers that are looked at.
pub mod option {
    /// End of the list.
    pub const END: u8 = 0;
    /// One byte of padding.
    pub const NOOP: u8 = 1;
    /// Record route.
    pub const RECORD_ROUTE: u8 = 7;
    /// Internet timestamp.
    pub const TIMESTAMP: u8 = 68;
    /// Loose source route.
    pub const LSRR: u8 = 131;
    /// Strict source route.
    pub const SSRR: u8 = 137;
    /// Router alert (RFC 2113).
    pub const ROUTER_ALERT: u8 = 148;
}

/// What the options of a header amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Options {
    /// There are none.
    #[default]
    None,
    /// Well formed, none that a router refuses.
    Plain,
    /// A loose or strict source route, which a gateway refuses by default (RFC 7126).
    SourceRoute,
    /// Malformed; the value is the offset in the header that a parameter problem points at.
    Bad(u8),
}

/// The 20 bytes every IPv4 header has.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; HEADER_LEN]);

impl<'a> View<'a> {
    /// The header at the start of `packet`; `None` if there are fewer than 20 bytes. Judges
    /// nothing.
    #[inline]
    pub fn new(packet: &'a [u8]) -> Option<View<'a>> {
        packet.first_chunk().map(View)
    }

    #[inline]
    fn word(&self, high: u8, low: u8) -> u16 {
        u16::from_be_bytes([high, low])
    }

    /// The version field.
    #[inline]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Bytes of header and options: 0 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        (self.0[0] & 0x0f) as usize * 4
    }

    /// Type of service: DSCP and ECN.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0[1]
    }

    /// Bytes of the whole packet.
    #[inline]
    pub fn total_len(&self) -> u16 {
        self.word(self.0[2], self.0[3])
    }

    /// Identification.
    #[inline]
    pub fn id(&self) -> u16 {
        self.word(self.0[4], self.0[5])
    }

    /// Flags and offset as they stand.
    #[inline]
    pub fn fragment_word(&self) -> u16 {
        self.word(self.0[6], self.0[7])
    }

    /// The DF bit.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.fragment_word() & DONT_FRAGMENT != 0
    }

    /// What part of a datagram this is.
    #[inline]
    pub fn fragment(&self) -> Fragment {
        let word = self.fragment_word();
        if word & (MORE_FRAGMENTS | 0x1fff) == 0 {
            return Fragment::None;
        }
        let id = self.id() as u32;
        match word & 0x1fff {
            0 => Fragment::First { id },
            units => Fragment::Later { id, offset: units << 3, more: word & MORE_FRAGMENTS != 0 },
        }
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// Protocol number.
    #[inline]
    pub fn proto(&self) -> u8 {
        self.0[9]
    }

    /// Header checksum.
    #[inline]
    pub fn check(&self) -> u16 {
        self.word(self.0[10], self.0[11])
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Address {
        Address::v4(u32::from_be_bytes([self.0[12], self.0[13], self.0[14], self.0[15]]))
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Address {
        Address::v4(u32::from_be_bytes([self.0[16], self.0[17], self.0[18], self.0[19]]))
    }
}

/// The header to write to. Each setter keeps the header checksum right, incrementally.
#[derive(Debug)]
pub struct ViewMut<'a>(pub &'a mut [u8; HEADER_LEN]);

impl<'a> ViewMut<'a> {
    /// The header at the start of `packet`; `None` if there are fewer than 20 bytes.
    #[inline]
    pub fn new(packet: &'a mut [u8]) -> Option<ViewMut<'a>> {
        packet.first_chunk_mut().map(ViewMut)
    }

    /// For reading.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View(self.0)
    }

    /// Writes the checksum as it is given.
    #[inline]
    pub fn set_check(&mut self, check: u16) {
        self.0[10..12].copy_from_slice(&check.to_be_bytes());
    }

    /// Applies a delta to the checksum alone: for edits made by other means.
    #[inline]
    pub fn adjust_check(&mut self, delta: u16) {
        self.set_check(checksum::adjust_delta(self.view().check(), delta));
    }

    /// One less, as forwarding does (`ip_decrease_ttl`); a TTL of 0 stays. Gives the new TTL.
    #[inline]
    pub fn decrement_ttl(&mut self) -> u8 {
        let ttl = self.0[8].saturating_sub(1);
        self.set_ttl(ttl);
        ttl
    }

    /// Replaces the TTL.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = u16::from_be_bytes([self.0[8], self.0[9]]);
        self.0[8] = ttl;
        let new = u16::from_be_bytes([ttl, self.0[9]]);
        self.set_check(checksum::adjust16(self.view().check(), old, new));
    }

    /// Replaces the TOS byte.
    #[inline]
    pub fn set_tos(&mut self, tos: u8) {
        let old = u16::from_be_bytes([self.0[0], self.0[1]]);
        self.0[1] = tos;
        let new = u16::from_be_bytes([self.0[0], tos]);
        self.set_check(checksum::adjust16(self.view().check(), old, new));
    }

    /// Replaces the total length.
    #[inline]
    pub fn set_total_len(&mut self, len: u16) {
        let old = self.view().total_len();
        self.0[2..4].copy_from_slice(&len.to_be_bytes());
        self.set_check(checksum::adjust16(self.view().check(), old, len));
    }

    /// Replaces the identification.
    #[inline]
    pub fn set_id(&mut self, id: u16) {
        let old = self.view().id();
        self.0[4..6].copy_from_slice(&id.to_be_bytes());
        self.set_check(checksum::adjust16(self.view().check(), old, id));
    }

    /// Replaces flags and offset.
    #[inline]
    pub fn set_fragment_word(&mut self, word: u16) {
        let old = self.view().fragment_word();
        self.0[6..8].copy_from_slice(&word.to_be_bytes());
        self.set_check(checksum::adjust16(self.view().check(), old, word));
    }

    /// Replaces the source address (an IPv4 one).
    #[inline]
    pub fn set_src(&mut self, src: Address) {
        let old = self.view().src().v4_bits();
        self.0[12..16].copy_from_slice(&src.v4_bits().to_be_bytes());
        self.set_check(checksum::adjust32(self.view().check(), old, src.v4_bits()));
    }

    /// Replaces the destination address (an IPv4 one).
    #[inline]
    pub fn set_dst(&mut self, dst: Address) {
        let old = self.view().dst().v4_bits();
        self.0[16..20].copy_from_slice(&dst.v4_bits().to_be_bytes());
        self.set_check(checksum::adjust32(self.view().check(), old, dst.v4_bits()));
    }
}

/// Makes the options of a header, which begins `header`, those of a later fragment: whatever is not
/// to be copied becomes padding, up to what is malformed (`ip_options_fragment`). The header's
/// checksum follows.
pub fn keep_copied_options(header: &mut [u8]) {
    const COPIED: u8 = 0x80;
    let Some((fixed, bytes)) = header.split_first_chunk_mut::<HEADER_LEN>() else { return };
    let mut delta = 0;
    let mut at = 0;
    while let Some(&kind) = bytes.get(at) {
        let len = match kind {
            option::END => break,
            option::NOOP => 1,
            _ => bytes.get(at + 1).copied().unwrap_or(0) as usize,
        };
        let Some(option) = bytes.get_mut(at..at + len).filter(|o| !o.is_empty()) else { break };
        if kind != option::NOOP && len < 2 {
            break;
        }
        if kind & COPIED == 0 && kind != option::NOOP {
            delta = 1;
            option.fill(option::NOOP);
        }
        at += len;
    }
    if delta != 0 {
        let mut ip = ViewMut(fixed);
        ip.set_check(0);
        let sum = checksum::sum(ip.0) + checksum::sum(bytes);
        ip.set_check(checksum::finish(sum));
    }
}

/// One option as the iterator gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opt<'a> {
    /// Offset in the header (20 for the first).
    pub at: u8,
    /// Option number, with its copied and class bits.
    pub kind: u8,
    /// What follows kind and length; empty for one-byte options.
    pub body: &'a [u8],
}

/// The options of a header in their order: at most 40, as each takes a byte. Padding and the end
/// mark are not given. An error is the header offset of what is malformed; nothing follows it.
#[derive(Clone, Debug)]
pub struct OptionIter<'a> {
    rest: &'a [u8],
    at: u8,
}

/// Iterates over the bytes between the fixed header and the payload (at most 40 are looked at).
pub fn options(bytes: &[u8]) -> OptionIter<'_> {
    OptionIter { rest: bytes.get(..OPTIONS_LEN_MAX).unwrap_or(bytes), at: HEADER_LEN as u8 }
}

impl<'a> Iterator for OptionIter<'a> {
    type Item = Result<Opt<'a>, u8>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some((&kind, after)) = self.rest.split_first() {
            let at = self.at;
            match kind {
                option::END => break,
                option::NOOP => {
                    self.rest = after;
                    self.at += 1;
                    continue;
                }
                _ => {}
            }
            let len = after.first().copied().unwrap_or(0) as usize;
            let Some(body) = self.rest.get(2..len) else {
                self.rest = &[];
                return Some(Err(at));
            };
            self.rest = self.rest.get(len..).unwrap_or(&[]);
            self.at += len as u8;
            return Some(Ok(Opt { at, kind, body }));
        }
        self.rest = &[];
        None
    }
}

/// Judges options as `ip_options_compile` does for a packet that is forwarded.
#[cold]
pub fn classify(bytes: &[u8]) -> Options {
    let mut result = Options::Plain;
    let mut recorded = false;
    for opt in options(bytes) {
        let opt = match opt {
            Ok(opt) => opt,
            Err(at) => return Options::Bad(at),
        };
        match opt.kind {
            option::LSRR | option::SSRR | option::RECORD_ROUTE => {
                // Length, then a pointer of at least 4, then addresses.
                match opt.body.first() {
                    None => return Options::Bad(opt.at + 1),
                    Some(pointer) if *pointer < 4 => return Options::Bad(opt.at + 2),
                    Some(_) => {}
                }
                let route = opt.kind != option::RECORD_ROUTE;
                let repeated = if route { result == Options::SourceRoute } else { recorded };
                if repeated {
                    return Options::Bad(opt.at);
                }
                if route {
                    result = Options::SourceRoute;
                } else {
                    recorded = true;
                }
            }
            option::ROUTER_ALERT if opt.body.len() < 2 => return Options::Bad(opt.at + 1),
            _ => {}
        }
    }
    result
}

/// The MAC of an IPv4 multicast group (RFC 1112 section 6.4).
#[inline]
pub const fn multicast_mac(group: Address) -> Mac {
    let [_, b, c, d] = group.v4_bits().to_be_bytes();
    Mac([1, 0, 0x5e, b & 0x7f, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header captured from a ping, TTL 64, DF.
    const GOLDEN: [u8; 20] = [
        0x45, 0x00, 0x00, 0x54, 0x1c, 0x46, 0x40, 0x00, 0x40, 0x01, 0x9d, 0x10, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn a_groups_mac_takes_23_bits() {
        let mac = |bits| multicast_mac(Address::v4(bits)).0;
        assert_eq!(mac(0xe000_0005), [1, 0, 0x5e, 0, 0, 5]);
        assert_eq!(mac(0xefff_fffa), [1, 0, 0x5e, 0x7f, 0xff, 0xfa]);
    }

    #[test]
    fn golden() {
        let mut bytes = GOLDEN;
        bytes[10..12].fill(0);
        let check = checksum::internet(&bytes);
        bytes[10..12].copy_from_slice(&check.to_be_bytes());
        let view = View::new(&bytes).unwrap();
        assert_eq!((view.version(), view.header_len(), view.tos()), (4, 20, 0));
        assert_eq!((view.total_len(), view.id(), view.ttl(), view.proto()), (84, 0x1c46, 64, 1));
        assert_eq!(view.src().to_string(), "192.168.0.1");
        assert_eq!(view.dst().to_string(), "192.168.0.199");
        assert_eq!((view.fragment(), view.dont_fragment()), (Fragment::None, true));
        assert!(View::new(&bytes[..19]).is_none());
    }

    #[test]
    fn setters_keep_the_checksum() {
        let mut bytes = GOLDEN;
        bytes[10..12].fill(0);
        let check = checksum::internet(&bytes);
        let mut view = ViewMut::new(&mut bytes).unwrap();
        view.set_check(check);
        view.set_tos(0xb8);
        view.set_total_len(1500);
        view.set_id(0xffff);
        view.set_fragment_word(MORE_FRAGMENTS | 185);
        view.set_src(Address::v4(0xffff_ffff));
        view.set_dst(Address::v4(0));
        assert_eq!(view.decrement_ttl(), 63);
        view.set_ttl(0);
        assert_eq!(view.decrement_ttl(), 0);
        let later = Fragment::Later { id: 0xffff, offset: 1480, more: true };
        assert_eq!(view.view().fragment(), later);
        assert!(checksum::ipv4_header_ok(&bytes));
    }

    #[test]
    fn options_in_order() {
        let bytes = [1, 7, 3, 4, 148, 4, 0, 0, 0, 9];
        let seen: Vec<_> = options(&bytes).map(Result::unwrap).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], Opt { at: 21, kind: option::RECORD_ROUTE, body: &[4] });
        assert_eq!((seen[1].at, seen[1].body), (24, &[0u8, 0][..]));
    }

    #[test]
    fn options_judged() {
        assert_eq!(classify(&[1, 1, 1, 0]), Options::Plain);
        assert_eq!(classify(&[131, 7, 4, 10, 0, 0, 1, 0]), Options::SourceRoute);
        assert_eq!(classify(&[137, 7, 4, 10, 0, 0, 1, 131, 3, 4, 0, 0]), Options::Bad(27));
        assert_eq!(classify(&[7, 3, 4, 7, 3, 4, 0, 0]), Options::Bad(23));
        assert_eq!(classify(&[131, 2, 0, 0]), Options::Bad(21));
        assert_eq!(classify(&[131, 3, 3, 0]), Options::Bad(22));
        assert_eq!(classify(&[148, 2, 0, 0]), Options::Bad(21));
        assert_eq!(classify(&[1, 1, 1, 130]), Options::Bad(23), "no room for a length");
        assert_eq!(classify(&[130, 1, 0, 0]), Options::Bad(20), "shorter than itself");
        assert_eq!(classify(&[130, 5, 0, 0]), Options::Bad(20), "longer than the header");
    }
}
