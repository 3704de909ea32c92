//! The IPv6 header (RFC 8200), its extension headers and hop-by-hop options.
//!
//! [`walk`] follows the chain as `ipv6_skip_exthdr` does; [`hop_by_hop`] judges the options every
//! router has to look at as `ip6_parse_tlv` does. Both are bounded by constants.

use super::address::Address;
use super::headers::{Fragment, Malformed, protocol};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// Bytes of a fragment header.
pub const FRAGMENT_LEN: usize = 8;

/// The smallest MTU a link may have.
pub const MTU_MIN: u32 = 1280;

/// Most extension headers in a packet.
pub const EXTENSIONS_MAX: usize = 8;

/// Most hop-by-hop options that are not padding.
pub const OPTIONS_MAX: usize = 8;

/// The fixed header.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8; HEADER_LEN]);

#[inline]
fn address(bytes: &[u8; HEADER_LEN], second: bool) -> Address {
    let (_, addresses) = bytes.split_at(8);
    let (src, dst) = addresses.split_at(16);
    let chosen = if second { dst } else { src };
    Address::v6(chosen.first_chunk().map_or(0, |bits| u128::from_be_bytes(*bits)))
}

impl<'a> View<'a> {
    /// The header at the start of `packet`; `None` if there are fewer than 40 bytes. Judges
    /// nothing.
    #[inline]
    pub fn new(packet: &'a [u8]) -> Option<View<'a>> {
        packet.first_chunk().map(View)
    }

    /// The version field.
    #[inline]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// Traffic class: DSCP and ECN.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        self.0[0] << 4 | self.0[1] >> 4
    }

    /// Flow label (20 bits).
    #[inline]
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.0[1] & 0x0f, self.0[2], self.0[3]])
    }

    /// Bytes after the fixed header.
    #[inline]
    pub fn payload_len(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Protocol of what follows the fixed header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// Source address.
    #[inline]
    pub fn src(&self) -> Address {
        address(self.0, false)
    }

    /// Destination address.
    #[inline]
    pub fn dst(&self) -> Address {
        address(self.0, true)
    }
}

/// The fixed header to write to. It has no checksum; L4 checksums cover the addresses and are the
/// caller's to adjust.
#[derive(Debug)]
pub struct ViewMut<'a>(pub &'a mut [u8; HEADER_LEN]);

impl<'a> ViewMut<'a> {
    /// The header at the start of `packet`; `None` if there are fewer than 40 bytes.
    #[inline]
    pub fn new(packet: &'a mut [u8]) -> Option<ViewMut<'a>> {
        packet.first_chunk_mut().map(ViewMut)
    }

    /// For reading.
    #[inline]
    pub fn view(&self) -> View<'_> {
        View(self.0)
    }

    /// One less, as forwarding does; a hop limit of 0 stays. Gives the new one.
    #[inline]
    pub fn decrement_hop_limit(&mut self) -> u8 {
        self.0[7] = self.0[7].saturating_sub(1);
        self.0[7]
    }

    /// Replaces the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hop_limit: u8) {
        self.0[7] = hop_limit;
    }

    /// Replaces the traffic class.
    #[inline]
    pub fn set_traffic_class(&mut self, class: u8) {
        self.0[0] = self.0[0] & 0xf0 | class >> 4;
        self.0[1] = self.0[1] & 0x0f | class << 4;
    }

    /// Sets the flow label to 0.
    #[inline]
    pub fn clear_flow_label(&mut self) {
        self.0[1] &= 0xf0;
        self.0[2] = 0;
        self.0[3] = 0;
    }

    /// Replaces the payload length.
    #[inline]
    pub fn set_payload_len(&mut self, len: u16) {
        self.0[4..6].copy_from_slice(&len.to_be_bytes());
    }

    /// Replaces the protocol of what follows.
    #[inline]
    pub fn set_next_header(&mut self, proto: u8) {
        self.0[6] = proto;
    }

    /// Replaces the source address.
    #[inline]
    pub fn set_src(&mut self, src: Address) {
        self.0[8..24].copy_from_slice(&src.bits().to_be_bytes());
    }

    /// Replaces the destination address.
    #[inline]
    pub fn set_dst(&mut self, dst: Address) {
        self.0[24..40].copy_from_slice(&dst.bits().to_be_bytes());
    }
}

/// False for addresses that RFC 4291 allows only inside a node: `::1` at either end, a multicast
/// source, a multicast destination of scope 0 (reserved) or 1 (interface-local).
#[inline]
pub const fn addresses_from_outside(src: u128, dst: u128) -> bool {
    let dst_top = (dst >> 112) as u16;
    let confined = dst_top >> 8 == 0xff && (dst_top & 0xf) < 2;
    src != 1 && dst != 1 && src >> 120 != 0xff && !confined
}

/// True for the headers that [`walk`] steps over (`ipv6_ext_hdr` without "no next header").
#[inline]
pub const fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AH
            | protocol::DESTINATION
    )
}

/// Where a chain of extension headers leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The first protocol that is no extension header, or, for a later fragment, what the fragment
    /// header names.
    pub proto: u8,
    /// Bytes of the extension headers.
    pub len: u16,
    /// What the fragment header says.
    pub fragment: Fragment,
    /// Offset of the fragment header from the start of the fixed header: the length of the part
    /// that each fragment repeats. 0 if there is none.
    pub fragment_at: u16,
    /// Offset, from the start of the fixed header, of the byte that names the fragment header.
    pub named_at: u16,
}

/// Follows the chain that starts with `first`, over the bytes after the fixed header.
pub fn walk(first: u8, bytes: &[u8]) -> Result<Chain, Malformed> {
    let mut chain =
        Chain { proto: first, len: 0, fragment: Fragment::None, fragment_at: 0, named_at: 0 };
    let mut named_at = 6;
    for _ in 0..EXTENSIONS_MAX {
        if !is_extension(chain.proto) {
            return Ok(chain);
        }
        let at = chain.len as usize;
        let rest = bytes.get(at..).unwrap_or(&[]);
        let Some(header) = rest.first_chunk::<8>() else { return Err(Malformed::ExtensionHeader) };
        let (kind, len) = (chain.proto, extension_len(chain.proto, header[1]));
        if rest.len() < len {
            return Err(Malformed::ExtensionHeader);
        }
        chain.proto = header[0];
        chain.len += len as u16;
        let this_at = (HEADER_LEN + at) as u16;
        if kind == protocol::FRAGMENT && chain.fragment_at == 0 {
            chain.fragment = fragment(header);
            chain.fragment_at = this_at;
            chain.named_at = named_at;
            if chain.fragment.is_later() {
                return Ok(chain);
            }
        }
        named_at = this_at;
    }
    if is_extension(chain.proto) { Err(Malformed::ExtensionChain) } else { Ok(chain) }
}

/// What every fragment of a packet repeats (`ip6_find_1stfragopt`): its length from the start of
/// the fixed header, and the offset of the byte that names what follows it. `None` if it does not
/// lie in `packet`.
pub fn unfragmentable(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut len, mut named_at, mut routed) = (HEADER_LEN, 6, false);
    for _ in 0..=EXTENSIONS_MAX {
        match *packet.get(named_at)? {
            protocol::HOP_BY_HOP => {}
            protocol::ROUTING => routed = true,
            // Before a routing header they are for each hop, behind it for the last one.
            protocol::DESTINATION if !routed => {}
            _ => return (packet.len() >= len).then_some((len, named_at)),
        }
        let kind = *packet.get(named_at)?;
        named_at = len;
        len += extension_len(kind, *packet.get(named_at + 1)?);
    }
    None
}

/// Offset, from the start of the fixed header, of the byte that names what the extension headers of
/// `packet` lead to.
pub fn naming(packet: &[u8]) -> usize {
    let (mut named_at, mut len) = (6, HEADER_LEN);
    for _ in 0..EXTENSIONS_MAX {
        match (packet.get(named_at), packet.get(len + 1)) {
            (Some(&kind), Some(&units)) if is_extension(kind) => {
                named_at = len;
                len += extension_len(kind, units);
            }
            _ => break,
        }
    }
    named_at
}

/// A fragment header; `offset` is a multiple of 8.
pub fn fragment_header(next: u8, offset: u16, more: bool, id: u32) -> [u8; FRAGMENT_LEN] {
    let [a, b] = (offset | u16::from(more)).to_be_bytes();
    let [i, j, k, l] = id.to_be_bytes();
    [next, 0, a, b, i, j, k, l]
}

/// Bytes of an extension header whose second byte is `units`: 8 to 2048, so eight of them fit a
/// u16.
#[inline]
pub(crate) const fn extension_len(kind: u8, units: u8) -> usize {
    match kind {
        protocol::FRAGMENT => FRAGMENT_LEN,
        // RFC 4302: 32-bit words minus 2.
        protocol::AH => (units as usize + 2) * 4,
        _ => (units as usize + 1) * 8,
    }
}

/// Reads a fragment header (RFC 8200 section 4.5).
fn fragment(header: &[u8; FRAGMENT_LEN]) -> Fragment {
    let [_, _, a, b, i, j, k, l] = *header;
    let word = u16::from_be_bytes([a, b]);
    let id = u32::from_be_bytes([i, j, k, l]);
    match (word & 0xfff8, word & 1 == 1) {
        (0, false) => Fragment::Atomic { id },
        (0, true) => Fragment::First { id },
        (offset, more) => Fragment::Later { id, offset, more },
    }
}

/// Option numbers that are looked at.
mod option {
    pub(super) const PAD1: u8 = 0;
    pub(super) const PADN: u8 = 1;
    pub(super) const ROUTER_ALERT: u8 = 5;
    pub(super) const JUMBO: u8 = 0xc2;
}

/// Judges the hop-by-hop options at the start of `bytes` (what follows the fixed header): padding
/// of at most 7 zero bytes between options, at most [`OPTIONS_MAX`] others, each within the header,
/// unknown ones treated as their two high bits ask.
pub fn hop_by_hop(bytes: &[u8]) -> Result<(), Malformed> {
    let Some(&[_, units]) = bytes.first_chunk() else { return Err(Malformed::ExtensionHeader) };
    let len = (units as usize + 1) * 8;
    let Some(mut rest) = bytes.get(2..len) else { return Err(Malformed::ExtensionHeader) };
    let (mut padding, mut count) = (0, 0);
    while let Some((&kind, after)) = rest.split_first() {
        let at = HEADER_LEN + len - rest.len();
        if kind == option::PAD1 {
            padding += 1;
            if padding > 7 {
                return Err(Malformed::HopByHop);
            }
            rest = after;
            continue;
        }
        let option_len = after.first().copied().unwrap_or(u8::MAX) as usize + 2;
        let Some(body) = rest.get(2..option_len) else { return Err(Malformed::HopByHop) };
        if kind == option::PADN {
            padding += option_len;
            if padding > 7 || body.iter().any(|byte| *byte != 0) {
                return Err(Malformed::HopByHop);
            }
        } else {
            count += 1;
            padding = 0;
            if count > OPTIONS_MAX {
                return Err(Malformed::HopByHop);
            }
            judge_option(kind, body, at)?;
        }
        rest = rest.get(option_len..).unwrap_or(&[]);
    }
    Ok(())
}

/// One hop-by-hop option that is not padding; `at` counts from the fixed header.
fn judge_option(kind: u8, body: &[u8], at: usize) -> Result<(), Malformed> {
    let pointer = at as u16;
    match kind {
        option::JUMBO => Err(Malformed::Jumbogram),
        option::ROUTER_ALERT if body.len() == 2 => Ok(()),
        option::ROUTER_ALERT => Err(Malformed::HopByHop),
        // RFC 8200 section 4.2: 00 skip, 01 discard, 10 discard and answer, 11 only if unicast.
        _ => match kind >> 6 {
            0 => Ok(()),
            1 => Err(Malformed::HopByHop),
            action => Err(Malformed::UnknownOption { pointer, unicast_only: action == 3 }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo request's header, flow label set.
    const GOLDEN: [u8; 40] = [
        0x6b, 0x8a, 0xbc, 0xde, 0x00, 0x40, 0x3a, 0x40, 0xfd, 0x00, 0x00, 0x10, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0x02, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x09,
    ];

    #[test]
    fn golden() {
        let view = View::new(&GOLDEN).unwrap();
        assert_eq!((view.version(), view.traffic_class(), view.flow_label()), (6, 0xb8, 0xabcde));
        assert_eq!((view.payload_len(), view.next_header(), view.hop_limit()), (64, 58, 64));
        assert_eq!(view.src().to_string(), "fd00:10::2");
        assert_eq!(view.dst().to_string(), "2001:db8::9");
        assert!(View::new(&GOLDEN[..39]).is_none());
        let mut bytes = GOLDEN;
        let mut view = ViewMut::new(&mut bytes).unwrap();
        assert_eq!(view.decrement_hop_limit(), 63);
        view.set_traffic_class(0x13);
        view.set_src(Address::v6(5));
        view.set_dst(Address::v6(6));
        view.set_payload_len(7);
        view.set_next_header(44);
        assert_eq!((view.view().traffic_class(), view.view().flow_label()), (0x13, 0xabcde));
        assert_eq!((view.view().src().bits(), view.view().dst().bits()), (5, 6));
        assert_eq!((view.view().payload_len(), view.view().next_header()), (7, 44));
        view.clear_flow_label();
        assert_eq!((view.view().traffic_class(), view.view().flow_label()), (0x13, 0));
        view.set_hop_limit(0);
        assert_eq!(view.decrement_hop_limit(), 0);
    }

    #[test]
    fn chain_to_a_first_fragment() {
        let mut bytes = vec![43, 0, 1, 4, 0, 0, 0, 0]; // hop-by-hop, then routing
        bytes.extend([44, 2, 0, 0, 0, 0, 0, 0]); // routing of 24 bytes, then fragment
        bytes.extend([0; 16]);
        bytes.extend([60, 0, 0x00, 0x01, 0xde, 0xad, 0xbe, 0xef]); // first fragment, then dest
        bytes.extend([6, 0, 1, 4, 0, 0, 0, 0]);
        let chain = walk(0, &bytes).unwrap();
        assert_eq!(chain.proto, 6);
        assert_eq!(chain.len as usize, bytes.len());
        assert_eq!(chain.fragment, Fragment::First { id: 0xdead_beef });
        assert_eq!((chain.fragment_at, chain.named_at), (72, 48));
        for cut in 0..bytes.len() {
            assert_eq!(walk(0, &bytes[..cut]), Err(Malformed::ExtensionHeader));
        }
    }

    #[test]
    fn later_and_atomic_fragments() {
        let later = walk(44, &[60, 0, 0x05, 0xa9, 0, 0, 0, 1]).unwrap();
        assert_eq!(later.proto, 60, "the chain of a later fragment ends here");
        assert_eq!(later.fragment, Fragment::Later { id: 1, offset: 0x5a8, more: true });
        assert_eq!((later.fragment_at, later.named_at), (40, 6));
        let atomic = walk(44, &[17, 0, 0, 0, 0, 0, 0, 1]).unwrap();
        assert_eq!((atomic.proto, atomic.fragment), (17, Fragment::Atomic { id: 1 }));
    }

    #[test]
    fn the_chain_is_bounded() {
        let header = [60, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(walk(60, &header.repeat(9)), Err(Malformed::ExtensionChain));
        let mut eight = header.repeat(8);
        eight[56] = 59;
        assert_eq!(walk(60, &eight).map(|chain| chain.proto), Ok(protocol::NONE));
        let ah = [17, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(walk(protocol::AH, &ah).map(|chain| chain.len), Ok(24));
    }

    #[test]
    fn hop_by_hop_options() {
        let judge = |options: &[u8]| {
            let mut bytes = vec![17, (options.len() / 8) as u8];
            bytes.extend(options);
            hop_by_hop(&bytes)
        };
        assert_eq!(judge(&[5, 2, 0, 0, 1, 0]), Ok(()), "router alert");
        assert_eq!(judge(&[5, 1, 0, 0, 0, 0]), Err(Malformed::HopByHop));
        assert_eq!(judge(&[0xc2, 4, 0, 1, 0, 0]), Err(Malformed::Jumbogram));
        assert_eq!(judge(&[1, 4, 0, 0, 0, 1]), Err(Malformed::HopByHop), "padding not zero");
        assert_eq!(judge(&[1, 5, 0, 0, 0, 0]), Err(Malformed::HopByHop), "beyond the header");
        assert_eq!(judge(&[1, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::HopByHop));
        assert_eq!(judge(&[0; 6]), Ok(()));
        assert_eq!(judge(&[0x1e, 4, 1, 2, 3, 4]), Ok(()), "unknown, to be skipped");
        assert_eq!(judge(&[0x5e, 4, 1, 2, 3, 4]), Err(Malformed::HopByHop));
        let asked = |unicast_only| Err(Malformed::UnknownOption { pointer: 44, unicast_only });
        assert_eq!(judge(&[1, 0, 0x9e, 2, 0, 0]), asked(false));
        assert_eq!(judge(&[1, 0, 0xde, 2, 0, 0]), asked(true));
        let mut nine = [0x1e, 0].repeat(9);
        nine.extend([0, 0, 0, 0]);
        assert_eq!(judge(&nine), Err(Malformed::HopByHop));
        assert_eq!(hop_by_hop(&[17]), Err(Malformed::ExtensionHeader));
    }

    #[test]
    fn addresses_that_stay_inside() {
        let (a, b) = (0xfd00 << 112, 0x2001 << 112);
        assert!(addresses_from_outside(a, b));
        assert!(addresses_from_outside(0, (0xff02 << 112) | 1));
        assert!(!addresses_from_outside(1, b));
        assert!(!addresses_from_outside(a, 1));
        assert!(!addresses_from_outside(0xff02 << 112, b));
        assert!(!addresses_from_outside(a, (0xff01 << 112) | 1));
        assert!(!addresses_from_outside(a, (0xff00 << 112) | 1));
    }
}
