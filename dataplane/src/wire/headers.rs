//! One pass over a frame's headers: what every stage after it needs to know, as plain numbers.
//!
//! [`parse`] walks Ethernet, at most one 802.1Q tag, IPv4 with options or IPv6 with its extension
//! headers, up to the ids of the L4 header. It judges exactly what the kernel judges before the
//! first hook (`ip_rcv_core`, `ip6_rcv_core`, `ipv6_parse_hopopts`); a packet it refuses is dropped
//! for the reason that [`Malformed`] names. What the kernel judges later is only noted: bad IPv4
//! options ([`Options`]), an L4 header that does not fit ([`Headers::l4_truncated`], which
//! conntrack calls invalid, yet rules still see the packet), and the L4 header's own fields.
//!
//! Bounds: 40 bytes of IPv4 options, [`EXTENSIONS_MAX`] IPv6 extension headers, [`OPTIONS_MAX`]
//! hop-by-hop options. For plain IPv4 nothing loops but the sum of the header. All offsets are from
//! the start of the frame. Headers must lie in the first segment of an mbuf chain; where they do
//! not, [`Malformed::Scattered`] asks the caller to gather more bytes and parse again.

use super::address::Address;
use super::checksum;
use super::ethernet::{self, ether_type};
use super::ipv4::{self, Options};
use super::ipv6::{self, Chain};

/// Most IPv6 extension headers walked before a packet is refused.
pub const EXTENSIONS_MAX: usize = ipv6::EXTENSIONS_MAX;

/// Most hop-by-hop options that are not padding (`net.ipv6.max_hbh_opts_number`).
pub const OPTIONS_MAX: usize = ipv6::OPTIONS_MAX;

/// IP protocol numbers that the parser looks into, and the extension headers of IPv6.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// Authentication header.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6: nothing follows.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// What part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fragment {
    /// All of it.
    #[default]
    None,
    /// All of it, but with an IPv6 fragment header (RFC 6946); reassembly only removes the header.
    Atomic {
        /// Identification.
        id: u32,
    },
    /// The first part; more follow. The L4 ids are known.
    First {
        /// Identification: 16 bits in IPv4, 32 in IPv6.
        id: u32,
    },
    /// A later part, without an L4 header.
    Later {
        /// Identification.
        id: u32,
        /// Where the part belongs, in bytes.
        offset: u16,
        /// More parts follow.
        more: bool,
    },
}

impl Fragment {
    /// True if reassembly has to see the packet.
    #[inline]
    pub const fn is_fragment(self) -> bool {
        matches!(self, Fragment::First { .. } | Fragment::Later { .. })
    }

    /// True if the packet has no L4 header.
    #[inline]
    pub const fn is_later(self) -> bool {
        matches!(self, Fragment::Later { .. })
    }
}

/// Why a frame is refused before any hook sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Ends before its link or IP header does.
    ShortFrame,
    /// Not IP; the ethertype after the tag, if any (ARP is 0x0806). [`ethernet::parse`] tells more.
    NotIp(u16),
    /// The version in the IP header is not the ethertype's.
    BadVersion,
    /// IPv4 header length below 5 words.
    BadHeaderLength,
    /// IPv4 header checksum.
    HeaderChecksum,
    /// IPv4 total length below the header's, or beyond the frame; IPv6 payload beyond the frame.
    BadTotalLength,
    /// IPv6 source or destination is an IPv4-mapped address.
    MappedAddress,
    /// IPv6 loopback address, multicast source, or multicast destination of reserved or
    /// interface-local scope (RFC 4291), which must not come from outside.
    BadAddress,
    /// An IPv6 extension header is cut off by the end of the packet.
    ExtensionHeader,
    /// More than [`EXTENSIONS_MAX`] IPv6 extension headers.
    ExtensionChain,
    /// A hop-by-hop option is broken, asks for silent discard, or there are too many.
    HopByHop,
    /// An unknown hop-by-hop option that asks for an answer: ICMPv6 parameter problem, code 2. The
    /// pointer counts from the IPv6 header.
    UnknownOption {
        /// Where the option is.
        pointer: u16,
        /// The option asks for no answer to packets sent to multicast addresses.
        unicast_only: bool,
    },
    /// Jumbo payload option (RFC 2675): a gateway without jumbograms refuses it.
    Jumbogram,
    /// The headers are in the packet but not all in the first segment: gather them and parse again.
    Scattered,
}

/// What one packet's headers say. Ports and ids are in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Offset of the end of the IP packet in the frame; what follows is padding.
    pub end: u32,
    /// Offset of the IP header.
    pub l3: u16,
    /// Offset of the L4 header; for a later fragment, of its payload.
    pub l4: u16,
    /// IPv4, as the addresses say too.
    pub v4: bool,
    /// VLAN id if the frame is tagged (0 for a priority tag).
    pub vlan: Option<u16>,
    /// L4 protocol, after the extension headers.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class: DSCP and ECN.
    pub tos: u8,
    /// What part of a datagram this is.
    pub fragment: Fragment,
    /// Source port of TCP, UDP, UDP-Lite, SCTP, DCCP; else 0.
    pub src_port: u16,
    /// Destination port of these, or the call id of a PPTP GRE packet; else 0.
    pub dst_port: u16,
    /// TCP flags (see [`super::tcp::flags`]); else 0.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code.
    pub icmp_code: u8,
    /// ICMP or ICMPv6 identifier; 0 unless the type is a query or its answer.
    pub icmp_id: u16,
    /// IPv4 DF bit; always true for IPv6, whose packets no router fragments.
    pub dont_fragment: bool,
    /// The packet ends within the smallest L4 header of its protocol: no ids are known.
    pub l4_truncated: bool,
    /// IPv4 options.
    pub options: Options,
}

impl Headers {
    /// True for IPv6.
    #[inline]
    pub const fn is_v6(&self) -> bool {
        !self.v4
    }

    /// Bytes from the IP header to the end of the packet: what `length` matches and MTUs limit.
    #[inline]
    pub const fn ip_len(&self) -> u32 {
        self.end.saturating_sub(self.l3 as u32)
    }

    /// Bytes from the L4 header to the end of the packet.
    #[inline]
    pub const fn l4_len(&self) -> u32 {
        self.end.saturating_sub(self.l4 as u32)
    }

    /// The pseudo header's sum for the L4 checksum; 0 for ICMP, which has none. Seed an
    /// [`checksum::Accumulator`] with it and add the bytes from `l4` to `end`: a right checksum
    /// makes `finish` 0.
    #[inline]
    pub const fn pseudo(&self) -> u32 {
        if self.proto == protocol::ICMP {
            return 0;
        }
        checksum::pseudo(self.src, self.dst, self.proto, self.l4_len())
    }

    /// True if the L4 checksum holds, for a packet that lies in `frame` as a whole.
    #[inline]
    pub fn l4_check_ok(&self, frame: &[u8]) -> bool {
        frame
            .get(self.l4 as usize..self.end as usize)
            .is_some_and(|l4| checksum::finish(self.pseudo() + checksum::sum(l4)) == 0)
    }
}

/// Reads the headers of a frame. `frame` is its first (or only) segment, `total_len` the length of
/// all segments.
///
/// # Errors
/// See [`Malformed`].
#[inline]
pub fn parse(frame: &[u8], total_len: usize) -> Result<Headers, Malformed> {
    let mut headers = Headers::default();
    parse_into(frame, total_len, &mut headers).map(|()| headers)
}

/// The same into a place of the caller's, whose contents are meaningless after an error: a result
/// of this size that is moved costs as much as reading the headers.
///
/// # Errors
/// See [`Malformed`].
#[inline(always)]
pub fn parse_into(frame: &[u8], total_len: usize, place: &mut Headers) -> Result<(), Malformed> {
    let Some(link) = ethernet::parse(frame) else { return Err(Malformed::ShortFrame) };
    match link.ether_type {
        ether_type::IPV4 => parse_v4(frame, total_len, link.l3, link.vlan(), place),
        ether_type::IPV6 => parse_v6(frame, total_len, link.l3, link.vlan(), place),
        other => Err(Malformed::NotIp(other)),
    }
}

/// The same for a frame that is known to be TCP or UDP over IPv4, right in all that [`parse`] looks
/// at, without tag, options or fragments, and whole in its first segment; `None` if it is too short
/// for that.
#[inline]
pub fn parse_known(frame: &[u8]) -> Option<Headers> {
    const L3: u16 = 14;
    const L4: u16 = L3 + 20;
    let (ip, l4) = frame.get(L3 as usize..)?.split_first_chunk::<20>()?;
    let (view, ports) = (ipv4::View(ip), l4.first_chunk::<4>()?);
    let tcp = view.proto() == protocol::TCP;
    Some(Headers {
        src: view.src(),
        dst: view.dst(),
        end: L3 as u32 + view.total_len() as u32,
        l3: L3,
        l4: L4,
        v4: true,
        proto: view.proto(),
        ttl: view.ttl(),
        tos: view.tos(),
        src_port: u16::from_be_bytes([ports[0], ports[1]]),
        dst_port: u16::from_be_bytes([ports[2], ports[3]]),
        tcp_flags: if tcp { *l4.get(13)? } else { 0 },
        dont_fragment: view.dont_fragment(),
        ..Headers::default()
    })
}

/// The same for a packet without link header, as a `host_tap` in tun mode or a capture has it.
///
/// # Errors
/// See [`Malformed`].
pub fn parse_ip(packet: &[u8], total_len: usize) -> Result<Headers, Malformed> {
    let mut headers = Headers::default();
    match packet.first().map(|first| first >> 4) {
        None => Err(Malformed::ShortFrame),
        Some(4) => parse_v4(packet, total_len, 0, None, &mut headers),
        Some(6) => parse_v6(packet, total_len, 0, None, &mut headers),
        Some(_) => Err(Malformed::BadVersion),
    }
    .map(|()| headers)
}

/// The reason why bytes up to `end` cannot be read from the first segment.
#[cold]
fn cut(end: usize, total_len: usize, short: Malformed) -> Malformed {
    if end <= total_len { Malformed::Scattered } else { short }
}

/// `ip_rcv_core`, check by check in its order.
#[inline(always)]
fn parse_v4(
    frame: &[u8],
    total_len: usize,
    l3: u16,
    vlan: Option<u16>,
    place: &mut Headers,
) -> Result<(), Malformed> {
    let at = l3 as usize;
    let Some(ip) = frame.get(at..).and_then(|rest| rest.first_chunk::<20>()) else {
        return Err(cut(at + 20, total_len, Malformed::ShortFrame));
    };
    let view = ipv4::View(ip);
    let header_len = view.header_len();
    if ip[0] >> 4 != 4 {
        return Err(Malformed::BadVersion);
    }
    if header_len < 20 {
        return Err(Malformed::BadHeaderLength);
    }
    let l4 = at + header_len;
    let options = if header_len == 20 {
        if !checksum::ipv4_header_ok(ip) {
            return Err(Malformed::HeaderChecksum);
        }
        Options::None
    } else {
        let Some(bytes) = frame.get(at + 20..l4) else {
            return Err(cut(l4, total_len, Malformed::ShortFrame));
        };
        if !checksum::ipv4_header_with_options_ok(ip, bytes) {
            return Err(Malformed::HeaderChecksum);
        }
        ipv4::classify(bytes)
    };
    let ip_len = view.total_len() as usize;
    if at + ip_len > total_len || ip_len < header_len {
        return Err(Malformed::BadTotalLength);
    }
    *place = Headers {
        src: view.src(),
        dst: view.dst(),
        end: (at + ip_len) as u32,
        l3,
        l4: l4 as u16,
        v4: true,
        vlan,
        proto: view.proto(),
        ttl: view.ttl(),
        tos: view.tos(),
        fragment: view.fragment(),
        src_port: 0,
        dst_port: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        icmp_id: 0,
        dont_fragment: view.dont_fragment(),
        l4_truncated: false,
        options,
    };
    ids(place, frame)
}

/// `ip6_rcv_core` and, for a hop-by-hop header, `ipv6_parse_hopopts`.
fn parse_v6(
    frame: &[u8],
    total_len: usize,
    l3: u16,
    vlan: Option<u16>,
    place: &mut Headers,
) -> Result<(), Malformed> {
    let at = l3 as usize;
    let Some(ip) = frame.get(at..).and_then(|rest| rest.first_chunk::<40>()) else {
        return Err(cut(at + 40, total_len, Malformed::ShortFrame));
    };
    let view = ipv6::View(ip);
    if ip[0] >> 4 != 6 {
        return Err(Malformed::BadVersion);
    }
    let (src, dst) = (view.src(), view.dst());
    if src.is_v4() || dst.is_v4() {
        return Err(Malformed::MappedAddress);
    }
    if !ipv6::addresses_from_outside(src.bits(), dst.bits()) {
        return Err(Malformed::BadAddress);
    }
    // A payload length of 0 before hop-by-hop options announces a jumbogram (RFC 2675 section 3).
    // The kernel would take the frame's length if no jumbo option follows; no sender means that.
    if view.payload_len() == 0 && view.next_header() == protocol::HOP_BY_HOP {
        return Err(Malformed::Jumbogram);
    }
    let end = at + 40 + view.payload_len() as usize;
    if end > total_len {
        return Err(Malformed::BadTotalLength);
    }
    *place = Headers {
        src,
        dst,
        end: end as u32,
        l3,
        l4: l3 + 40,
        v4: false,
        vlan,
        proto: view.next_header(),
        ttl: view.hop_limit(),
        tos: view.traffic_class(),
        fragment: Fragment::None,
        src_port: 0,
        dst_port: 0,
        tcp_flags: 0,
        icmp_type: 0,
        icmp_code: 0,
        icmp_id: 0,
        dont_fragment: true,
        l4_truncated: false,
        options: Options::None,
    };
    if ipv6::is_extension(place.proto) {
        extensions(place, frame)?;
    }
    ids(place, frame)
}

/// Walks the extension headers; `headers.proto` is the first of them.
#[inline(never)]
fn extensions(headers: &mut Headers, frame: &[u8]) -> Result<(), Malformed> {
    let (start, end) = (headers.l4 as usize, headers.end as usize);
    let available = end.min(frame.len());
    let bytes = frame.get(start..available).unwrap_or(&[]);
    if headers.proto == protocol::HOP_BY_HOP {
        match ipv6::hop_by_hop(bytes) {
            Err(Malformed::ExtensionHeader) if available < end => {
                return Err(Malformed::Scattered);
            }
            judged => judged?,
        }
    }
    match ipv6::walk(headers.proto, bytes) {
        Ok(Chain { proto, len, fragment, .. }) => {
            headers.proto = proto;
            headers.l4 = headers.l4.saturating_add(len);
            headers.fragment = fragment;
            Ok(())
        }
        Err(Malformed::ExtensionHeader) if available < end => Err(Malformed::Scattered),
        Err(reason) => Err(reason),
    }
}

/// Bytes of the smallest L4 header of a protocol that has ids.
#[inline]
const fn smallest(proto: u8) -> usize {
    match proto {
        protocol::TCP => 20,
        protocol::UDP | protocol::UDPLITE | protocol::ICMP | protocol::ICMPV6 => 8,
        protocol::SCTP | protocol::DCCP => 12,
        protocol::GRE => 4,
        _ => 0,
    }
}

/// Reads the L4 ids, unless the packet has none or ends before them.
#[inline(always)]
fn ids(headers: &mut Headers, frame: &[u8]) -> Result<(), Malformed> {
    if headers.fragment.is_later() {
        return Ok(());
    }
    let end = (headers.end as usize).min(frame.len());
    let l4 = frame.get(headers.l4 as usize..end).unwrap_or(&[]);
    let need = smallest(headers.proto);
    if l4.len() < need {
        if headers.l4_len() as usize >= need {
            return Err(Malformed::Scattered);
        }
        headers.l4_truncated = true;
        return Ok(());
    }
    match headers.proto {
        protocol::TCP => {
            if let Some(tcp) = l4.first_chunk::<20>() {
                (headers.src_port, headers.dst_port) = ports(tcp[0], tcp[1], tcp[2], tcp[3]);
                headers.tcp_flags = tcp[13];
            }
        }
        protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::DCCP => {
            if let Some(&[a, b, c, d]) = l4.first_chunk() {
                (headers.src_port, headers.dst_port) = ports(a, b, c, d);
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            if let Some(icmp) = l4.first_chunk::<8>() {
                headers.icmp_type = icmp[0];
                headers.icmp_code = icmp[1];
                if is_query(headers.proto, icmp[0]) {
                    headers.icmp_id = u16::from_be_bytes([icmp[4], icmp[5]]);
                }
            }
        }
        // The call id lies beyond the four bytes that every GRE header has.
        protocol::GRE if l4.len() < 8 && headers.l4_len() >= 8 => return Err(Malformed::Scattered),
        protocol::GRE => headers.dst_port = gre_call_id(l4).unwrap_or(0),
        _ => {}
    }
    Ok(())
}

#[inline]
const fn ports(a: u8, b: u8, c: u8, d: u8) -> (u16, u16) {
    (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
}

/// True for the ICMP and ICMPv6 types that carry an identifier: queries and their answers.
#[inline]
pub const fn is_query(proto: u8, kind: u8) -> bool {
    if proto == protocol::ICMP {
        matches!(kind, 0 | 8 | 13..=18)
    } else {
        matches!(kind, 128 | 129 | 139 | 140)
    }
}

/// The call id of an enhanced GRE header (RFC 2637: version 1, protocol PPP), 0 of another version
/// or of a packet too short to tell; `None` for version 1 with another protocol, whose packets the
/// kernel does not track (`gre_pkt_to_tuple`).
pub fn gre_call_id(l4: &[u8]) -> Option<u16> {
    match l4.first_chunk::<8>() {
        Some(&[_, flags, 0x88, 0x0b, _, _, a, b]) if flags & 7 == 1 => {
            Some(u16::from_be_bytes([a, b]))
        }
        Some(gre) if gre[1] & 7 == 1 => None,
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// UDP 192.168.10.2:40000 to 203.0.113.9:53, DF, TTL 64, 4 bytes of payload, 2 of padding.
    const UDP4: [u8; 48] = [
        0x02, 0, 0, 0, 0x10, 0x01, 0x02, 0, 0, 0, 0x10, 0x02, 0x08, 0x00, 0x45, 0xb8, 0x00, 0x20,
        0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x21, 0x2d, 192, 168, 10, 2, 203, 0, 113, 9, 0x9c,
        0x40, 0x00, 0x35, 0x00, 0x0c, 0x00, 0x00, 1, 2, 3, 4, 0, 0,
    ];

    fn fixed(mut frame: Vec<u8>, header_len: usize) -> Vec<u8> {
        frame[24..26].fill(0);
        let check = checksum::internet(&frame[14..14 + header_len]);
        frame[24..26].copy_from_slice(&check.to_be_bytes());
        frame
    }

    fn udp4(edit: impl Fn(&mut [u8])) -> Result<Headers, Malformed> {
        let mut frame = UDP4.to_vec();
        edit(&mut frame);
        let frame = fixed(frame, 20);
        parse(&frame, frame.len())
    }

    /// TCP SYN fd00:10::2 port 40000 to 2001:db8::9 port 443 behind the given extension headers.
    fn tcp6(first: u8, extensions: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
        let len = (extensions.len() + 20) as u16;
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([first, 63]);
        frame.extend((0xfd00_0010u128 << 96 | 2).to_be_bytes());
        frame.extend((0x2001_0db8u128 << 96 | 9).to_be_bytes());
        frame.extend(extensions);
        frame.extend([0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 1, 0, 0, 0, 0, 0]);
        frame
    }

    #[test]
    fn golden_udp() {
        let headers = udp4(|_| ()).unwrap();
        assert_eq!((headers.l3, headers.l4, headers.end, headers.vlan), (14, 34, 46, None));
        assert_eq!((headers.ip_len(), headers.l4_len()), (32, 12));
        assert_eq!((headers.proto, headers.ttl, headers.tos), (17, 64, 0xb8));
        assert_eq!(headers.src.to_string(), "192.168.10.2");
        assert_eq!(headers.dst.to_string(), "203.0.113.9");
        assert_eq!((headers.src_port, headers.dst_port), (40000, 53));
        assert!(headers.dont_fragment && !headers.l4_truncated && !headers.is_v6());
        assert_eq!((headers.fragment, headers.options), (Fragment::None, Options::None));
    }

    #[test]
    fn golden_udp_is_as_captured() {
        assert_eq!(parse(&UDP4, UDP4.len()), udp4(|_| ()));
        let mut wrong = UDP4;
        wrong[22] -= 1;
        assert_eq!(parse(&wrong, 48), Err(Malformed::HeaderChecksum));
    }

    #[test]
    fn refused_as_ip_rcv_does() {
        assert_eq!(udp4(|f| f[14] = 0x55), Err(Malformed::BadVersion));
        assert_eq!(udp4(|f| f[14] = 0x44), Err(Malformed::BadHeaderLength));
        assert_eq!(udp4(|f| f[17] = 35), Err(Malformed::BadTotalLength));
        assert_eq!(udp4(|f| f[17] = 19), Err(Malformed::BadTotalLength));
        assert_eq!(udp4(|f| f[13] = 0x06), Err(Malformed::NotIp(0x0806)));
        assert_eq!(udp4(|f| f[12..14].fill(0)), Err(Malformed::NotIp(0)));
        for cut in 0..34 {
            assert_eq!(parse(&UDP4[..cut], cut), Err(Malformed::ShortFrame));
        }
    }

    #[test]
    fn truncated_l4_keeps_the_rest() {
        let headers = udp4(|f| f[17] = 27).unwrap();
        assert!(headers.l4_truncated);
        assert_eq!((headers.src_port, headers.proto, headers.l4_len()), (0, 17, 7));
        assert!(!udp4(|f| f[17] = 28).unwrap().l4_truncated);
        assert!(udp4(|f| f[23] = 6).unwrap().l4_truncated, "12 bytes are no TCP header");
        assert!(!udp4(|f| f[23] = 50).unwrap().l4_truncated, "ESP has no ids to miss");
    }

    #[test]
    fn first_segment_too_short() {
        let mut frame = UDP4.to_vec();
        frame[17] = 60;
        let frame = fixed(frame, 20);
        let first = &frame[..36];
        assert_eq!(parse(first, 74), Err(Malformed::Scattered));
        assert_eq!(parse(&frame[..30], 74), Err(Malformed::Scattered));
        assert_eq!(parse(&frame, 74).map(|h| (h.end, h.dst_port)), Ok((74, 53)));
    }

    #[test]
    fn fragments_of_v4() {
        let first = udp4(|f| f[20..22].copy_from_slice(&[0x20, 0])).unwrap();
        assert_eq!(first.fragment, Fragment::First { id: 0x1234 });
        assert_eq!((first.dst_port, first.dont_fragment), (53, false));
        let later = udp4(|f| f[20..22].copy_from_slice(&[0, 185])).unwrap();
        assert_eq!(later.fragment, Fragment::Later { id: 0x1234, offset: 1480, more: false });
        assert_eq!((later.src_port, later.dst_port, later.l4_truncated), (0, 0, false));
        assert!(first.fragment.is_fragment() && later.fragment.is_later());
    }

    #[test]
    fn tag_and_options() {
        let mut frame = UDP4[..12].to_vec();
        frame.extend([0x81, 0, 0x20, 0x64, 0x08, 0, 0x46]);
        frame.extend(&UDP4[15..34]);
        frame.extend([131, 3, 4, 0]);
        frame.extend(&UDP4[34..46]);
        frame[21] = 36;
        frame[28..30].fill(0);
        let check = checksum::internet(&frame[18..42]);
        frame[28..30].copy_from_slice(&check.to_be_bytes());
        let headers = parse(&frame, frame.len()).unwrap();
        assert_eq!((headers.vlan, headers.l3, headers.l4), (Some(100), 18, 42));
        assert_eq!((headers.options, headers.dst_port), (Options::SourceRoute, 53));
        frame[40] ^= 1;
        assert_eq!(parse(&frame, frame.len()), Err(Malformed::HeaderChecksum));
        assert_eq!(parse(&frame[..41], frame.len()), Err(Malformed::Scattered));
    }

    #[test]
    fn icmp_ids_of_queries_only() {
        let icmp = |kind: u8| {
            udp4(|f| {
                f[23] = 1;
                f[34..42].copy_from_slice(&[kind, 3, 0, 0, 0xab, 0xcd, 0, 1]);
            })
            .map(|h| (h.icmp_type, h.icmp_code, h.icmp_id, h.dst_port))
        };
        assert_eq!(icmp(8), Ok((8, 3, 0xabcd, 0)));
        assert_eq!(icmp(3), Ok((3, 3, 0, 0)));
        let ids = (0..=255).filter(|kind| icmp(*kind).unwrap().2 != 0);
        assert_eq!(ids.collect::<Vec<u8>>(), [0, 8, 13, 14, 15, 16, 17, 18]);
        let ids = (0..=255).filter(|kind| is_query(protocol::ICMPV6, *kind));
        assert_eq!(ids.collect::<Vec<u8>>(), [128, 129, 139, 140]);
    }

    #[test]
    fn call_id_of_enhanced_gre_only() {
        let gre = |bytes: [u8; 8]| {
            udp4(|f| {
                f[23] = 47;
                f[34..42].copy_from_slice(&bytes);
            })
            .map(|h| h.dst_port)
        };
        assert_eq!(gre([0x20, 1, 0x88, 0x0b, 0, 4, 0x12, 0x34]), Ok(0x1234));
        assert_eq!(gre([0x20, 0, 0x88, 0x0b, 0, 4, 0x12, 0x34]), Ok(0));
        assert_eq!(gre([0x20, 1, 0x08, 0x00, 0, 4, 0x12, 0x34]), Ok(0));
    }

    #[test]
    fn v6_and_its_extensions() {
        let frame = tcp6(6, &[]);
        let plain = parse(&frame, frame.len()).unwrap();
        assert_eq!((plain.l4, plain.end, plain.proto, plain.ttl), (54, 74, 6, 63));
        assert_eq!((plain.src_port, plain.dst_port, plain.tcp_flags), (40000, 443, 2));
        assert!(plain.is_v6() && plain.dont_fragment);
        let chain = [&[44, 0, 5, 2, 0, 0, 1, 0][..], &[6, 0, 0, 1, 0, 0, 0, 9]].concat();
        let frame = tcp6(0, &chain);
        let first = parse(&frame, frame.len()).unwrap();
        assert_eq!((first.l4, first.dst_port), (70, 443));
        assert_eq!(first.fragment, Fragment::First { id: 9 });
        assert_eq!(parse(&frame[..60], frame.len()), Err(Malformed::Scattered));
        assert_eq!(parse(&frame[..66], frame.len()), Err(Malformed::Scattered));
        assert_eq!(parse(&frame[..80], frame.len()), Err(Malformed::Scattered));
        let frame = tcp6(44, &[6, 0, 0, 8, 0, 0, 0, 9]);
        let later = parse(&frame, frame.len()).unwrap();
        assert_eq!(later.fragment, Fragment::Later { id: 9, offset: 8, more: false });
        assert_eq!((later.l4, later.dst_port), (62, 0));
        let frame = tcp6(0, &[6, 0, 0xc2, 4, 0, 1, 0, 0]);
        assert_eq!(parse(&frame, frame.len()), Err(Malformed::Jumbogram));
    }

    #[test]
    fn v6_refused_as_ip6_rcv_does() {
        let judged = |edit: fn(&mut [u8])| {
            let mut frame = tcp6(6, &[]);
            edit(&mut frame);
            parse(&frame, frame.len()).map(|h| h.proto)
        };
        assert_eq!(judged(|f| f[14] = 0x40), Err(Malformed::BadVersion));
        assert_eq!(judged(|f| f[19] = 21), Err(Malformed::BadTotalLength));
        assert_eq!(
            judged(|f| {
                f[22..32].fill(0);
                f[32..34].fill(0xff);
            }),
            Err(Malformed::MappedAddress)
        );
        assert_eq!(
            judged(|f| {
                f[38..48].fill(0);
                f[48..50].fill(0xff);
            }),
            Err(Malformed::MappedAddress)
        );
        assert_eq!(judged(|f| f[22] = 0xff), Err(Malformed::BadAddress));
        assert_eq!(judged(|f| (f[18], f[19], f[20]) = (0, 0, 0)), Err(Malformed::Jumbogram));
        assert_eq!(judged(|f| f[20] = 60), Err(Malformed::ExtensionHeader));
        assert_eq!(judged(|f| f[20] = 59), Ok(59));
    }

    /// Offsets a caller will slice with are in order and inside the packet.
    fn check_bounds(headers: &Headers, total_len: usize) {
        assert!(headers.l3 <= headers.l4 && headers.l4 as u32 <= headers.end);
        assert!(headers.end as usize <= total_len);
    }

    proptest! {
        #[test]
        fn any_bytes(
            mut frame in proptest::collection::vec(any::<u8>(), 0..200),
            v6: bool,
            more in 0usize..100,
        ) {
            if let Some(at) = frame.get_mut(12..15) {
                at.copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[0x08, 0, 0x46] });
            }
            if let Ok(headers) = parse(&frame, frame.len() + more) {
                check_bounds(&headers, frame.len() + more);
            }
            if frame.len() > 38 && !v6 {
                let frame = fixed(frame, 24);
                if let Ok(headers) = parse(&frame, frame.len() + more) {
                    check_bounds(&headers, frame.len() + more);
                }
            }
        }

        #[test]
        fn any_extension_headers(
            first in prop_oneof![Just(0u8), Just(43), Just(44), Just(51), Just(60)],
            mut bytes in proptest::collection::vec(any::<u8>(), 0..128),
            next in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(44), Just(60), Just(6)], 16),
            cut in 0usize..200,
        ) {
            for (at, next) in next.into_iter().enumerate() {
                if let Some(header) = bytes.get_mut(at * 8..at * 8 + 2) {
                    header.copy_from_slice(&[next, 0]);
                }
            }
            let frame = tcp6(first, &bytes);
            if let Ok(headers) = parse(&frame, frame.len()) {
                check_bounds(&headers, frame.len());
            }
            let cut = cut.min(frame.len());
            let _ = parse(&frame[..cut], frame.len());
            prop_assert!(cut == frame.len() || parse(&frame[..cut], cut).is_err());
        }
    }
}
