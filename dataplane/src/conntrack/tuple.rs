//! Tuples: what identifies one direction of a conn (`nf_conntrack_tuple`), inversion and hash.
//!
//! The hash is the same for a tuple and its inversion, so a conn without NAT needs one index entry
//! for both directions: whoever finds the record learns the direction by comparing.

use crate::wire::address::Address;

/// IP protocol numbers this project names.
pub mod proto {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// DCCP (RFC 4340).
    pub const DCCP: u8 = 33;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDPLITE: u8 = 136;

    /// Whether two first packets may race for one conn (`allow_clash` of the kernel's trackers).
    pub(crate) const fn allows_clash(proto: u8) -> bool {
        !matches!(proto, TCP | SCTP | DCCP)
    }
}

/// One direction of a conn. Ports are in host order.
///
/// For ICMP and ICMPv6 `src_id` is the echo identifier and `dst_id` is `type << 8 | code`; for
/// protocols without ports both are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tuple {
    /// Source address.
    pub src: Address,
    /// Destination address.
    pub dst: Address,
    /// Source port, or ICMP identifier.
    pub src_id: u16,
    /// Destination port, or ICMP type and code.
    pub dst_id: u16,
    /// IP protocol number.
    pub proto: u8,
}

/// The answer to an ICMP query type (`icmp_pkt_to_tuple`'s `invmap`), or the query of an answer.
const fn icmp_partner(kind: u8) -> Option<u8> {
    match kind {
        8 => Some(0),
        0 => Some(8),
        13 => Some(14),
        14 => Some(13),
        15 => Some(16),
        16 => Some(15),
        17 => Some(18),
        18 => Some(17),
        _ => None,
    }
}

/// The same for ICMPv6: echo and node information.
const fn icmpv6_partner(kind: u8) -> Option<u8> {
    match kind {
        128 => Some(129),
        129 => Some(128),
        139 => Some(140),
        140 => Some(139),
        _ => None,
    }
}

impl Tuple {
    /// True for an IPv6 tuple.
    #[inline]
    pub const fn is_v6(&self) -> bool {
        !self.src.is_v4()
    }

    /// The tuple of the answers; `None` for an ICMP type that has no partner, which the kernel
    /// calls invalid (`nf_ct_invert_tuple`).
    #[inline]
    pub const fn inverted(&self) -> Option<Tuple> {
        let (src_id, dst_id) = match self.proto {
            proto::ICMP | proto::ICMPV6 => {
                let kind = (self.dst_id >> 8) as u8;
                let partner = if self.proto == proto::ICMP {
                    icmp_partner(kind)
                } else {
                    icmpv6_partner(kind)
                };
                match partner {
                    Some(kind) => (self.src_id, (kind as u16) << 8 | self.dst_id & 0xff),
                    None => return None,
                }
            }
            _ => (self.dst_id, self.src_id),
        };
        Some(Tuple { src: self.dst, dst: self.src, src_id, dst_id, proto: self.proto })
    }

    /// The index hash: equal for a tuple and its inversion, and for nothing else that an outsider
    /// could choose without knowing `seed`.
    ///
    /// Multiply-fold of the two endpoints XORed with secrets; the product commutes, which is what
    /// makes it symmetric. Not CRC or Toeplitz: those are linear and collisions can be computed.
    #[inline(always)]
    pub fn hash(&self, zone: u16, seed: &HashSeed) -> u64 {
        let (src_id, dst_id, class) = match self.proto {
            proto::ICMP | proto::ICMPV6 => {
                let kind = (self.dst_id >> 8) as u8;
                let partner = if self.proto == proto::ICMP {
                    icmp_partner(kind)
                } else {
                    icmpv6_partner(kind)
                };
                let class = partner.map_or(kind, |p| p.min(kind)) as u64;
                (self.src_id, self.src_id, class << 8 | (self.dst_id & 0xff) as u64)
            }
            _ => (self.src_id, self.dst_id, 0),
        };
        let a = seed.endpoint(self.src, src_id);
        let b = seed.endpoint(self.dst, dst_id);
        seed.mix(a, b, (self.proto as u64) << 48 | (zone as u64) << 32 | class)
    }

    /// The hash of the source alone, for finding other conns of the same source (`nat_bysource`).
    #[inline]
    pub fn source_hash(&self, zone: u16, seed: &HashSeed) -> u64 {
        seed.source(seed.endpoint(self.src, self.src_id), self.proto, zone)
    }
}

/// Secrets of one process, drawn at start.
#[derive(Clone, Copy, Debug)]
pub struct HashSeed(pub [u64; 5]);

/// An IPv4 tuple of TCP or UDP in the words that records keep it in, as packets carry them, their
/// first byte lowest: what the packet path compares and hashes without taking a [`Tuple`] apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyV4 {
    /// Source address in the lower half, destination in the upper.
    pub addresses: u64,
    /// Source port in the lower half, destination in the upper.
    pub ids: u32,
    /// IP protocol number.
    pub proto: u8,
}

impl KeyV4 {
    /// Of an IPv4 tuple.
    #[inline]
    pub const fn of(tuple: &Tuple) -> KeyV4 {
        let (src, dst) = (tuple.src.v4_bits().swap_bytes(), tuple.dst.v4_bits().swap_bytes());
        let addresses = (dst as u64) << 32 | src as u64;
        KeyV4 { addresses, ids: Self::ids_of(tuple), proto: tuple.proto }
    }

    /// The ids of a tuple of either family.
    #[inline]
    pub const fn ids_of(tuple: &Tuple) -> u32 {
        (tuple.dst_id.swap_bytes() as u32) << 16 | tuple.src_id.swap_bytes() as u32
    }

    /// As a tuple.
    pub const fn tuple(&self) -> Tuple {
        Tuple {
            src: Address::v4((self.addresses as u32).swap_bytes()),
            dst: Address::v4(((self.addresses >> 32) as u32).swap_bytes()),
            src_id: (self.ids as u16).swap_bytes(),
            dst_id: ((self.ids >> 16) as u16).swap_bytes(),
            proto: self.proto,
        }
    }

    /// The tuple of the answers.
    #[inline(always)]
    pub const fn inverted(&self) -> KeyV4 {
        let (addresses, ids) = (self.addresses.rotate_left(32), self.ids.rotate_left(16));
        KeyV4 { addresses, ids, proto: self.proto }
    }

    /// Equal to [`Tuple::source_hash`] of the same tuple in the zone.
    #[inline(always)]
    pub fn source_hash(&self, zone: u16, seed: &HashSeed) -> u64 {
        let source = ((self.ids & 0xffff) as u64) << 32 | self.addresses & 0xffff_ffff;
        seed.source(source, self.proto, zone)
    }

    /// Equal to [`Tuple::hash`] of the same tuple in the zone, where `keys` are those of its
    /// protocol.
    #[inline(always)]
    pub fn hash(&self, keys: &HashKeys) -> u64 {
        let a = ((self.ids & 0xffff) as u64) << 32 | self.addresses & 0xffff_ffff;
        let b = ((self.ids >> 16) as u64) << 32 | self.addresses >> 32;
        keys.join(a, b)
    }
}

/// An IPv6 tuple of TCP or UDP in the words that records keep it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyV6 {
    /// Source and destination address, the upper half first, in host order.
    pub addresses: [u64; 4],
    /// As [`KeyV4::ids`].
    pub ids: u32,
    /// IP protocol number.
    pub proto: u8,
}

impl KeyV6 {
    /// Of a frame without tag and extension headers.
    #[inline(always)]
    pub fn read(frame: &[u8; 62], proto: u8) -> KeyV6 {
        let word = |at: usize| {
            let word = frame[at..].first_chunk().copied().unwrap_or_default();
            u64::from_be_bytes(word)
        };
        let addresses = [word(22), word(30), word(38), word(46)];
        let ids = u32::from_le_bytes(frame[54..].first_chunk().copied().unwrap_or_default());
        KeyV6 { addresses, ids, proto }
    }

    /// Equal to [`Tuple::hash`] of the same tuple in the zone, where `keys` are those of its
    /// protocol.
    #[inline(always)]
    pub fn hash(&self, keys: &HashKeys) -> u64 {
        let [a, b, c, d] = self.addresses;
        let end = |upper: u64, lower: u64, id: u32| {
            let address = fold(lower ^ keys.address[0], upper ^ keys.address[1]);
            address ^ (id as u16).swap_bytes() as u64
        };
        keys.join(end(a, b, self.ids), end(c, d, self.ids >> 16))
    }
}

/// What the tuples of one protocol in one zone are hashed with: the same for a whole burst.
#[derive(Clone, Copy, Debug)]
pub struct HashKeys {
    /// For an IPv6 address by itself.
    address: [u64; 2],
    ends: u64,
    rest: u64,
    last: u64,
}

impl HashKeys {
    #[inline(always)]
    fn join(&self, a: u64, b: u64) -> u64 {
        fold(fold(a ^ self.ends, b ^ self.ends) ^ self.rest, self.last)
    }
}

impl HashSeed {
    /// The keys of a protocol with ports, in a zone.
    #[inline]
    pub fn keys(&self, proto: u8, zone: u16) -> HashKeys {
        let rest = (proto as u64) << 48 | (zone as u64) << 32;
        let address = [self.0[0], self.0[1]];
        HashKeys { address, ends: self.0[2], rest: rest ^ self.0[3], last: self.0[4] | 1 }
    }

    #[inline(always)]
    fn mix(&self, a: u64, b: u64, rest: u64) -> u64 {
        fold(fold(a ^ self.0[2], b ^ self.0[2]) ^ rest ^ self.0[3], self.0[4] | 1)
    }

    #[inline(always)]
    fn source(&self, end: u64, proto: u8, zone: u16) -> u64 {
        let rest = (proto as u64) << 48 | (zone as u64) << 32;
        // Neighbouring addresses differ in few bits: under one seed in some hundred a single
        // multiplication leaves them close together.
        let once = fold(end ^ self.0[3], self.0[2] ^ rest);
        fold(once ^ self.0[3], self.0[4] | 1)
    }

    #[inline(always)]
    fn endpoint(&self, address: Address, id: u16) -> u64 {
        if address.is_v4() {
            (id.swap_bytes() as u64) << 32 | address.v4_bits().swap_bytes() as u64
        } else {
            let bits = address.bits();
            fold(bits as u64 ^ self.0[0], (bits >> 64) as u64 ^ self.0[1]) ^ id as u64
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let wide = a as u128 * b as u128;
    wide as u64 ^ (wide >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: HashSeed = HashSeed([
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0x2545_f491_4f6c_dd1d,
        0xd6e8_feb8_6659_fd93,
    ]);

    fn tuple() -> impl Strategy<Value = Tuple> {
        let proto = prop_oneof![Just(1u8), Just(6), Just(17), Just(58), any::<u8>()];
        (any::<u128>(), any::<u128>(), any::<[u16; 2]>(), proto, any::<bool>()).prop_map(
            |(a, b, [src_id, dst_id], proto, v4)| {
                let address =
                    |x: u128| if v4 { Address::v4(x as u32) } else { Address::v6(x | 1 << 127) };
                Tuple { src: address(a), dst: address(b), src_id, dst_id, proto }
            },
        )
    }

    proptest! {
        #[test]
        fn inversion_is_its_own_inverse_and_keeps_the_hash(t in tuple(), zone: u16) {
            if let Some(i) = t.inverted() {
                prop_assert_eq!(i.inverted(), Some(t));
                prop_assert_eq!(i.hash(zone, &SEED), t.hash(zone, &SEED));
            }
        }
    }

    proptest! {
        #[test]
        fn an_ipv6_key_is_read_from_a_frame_and_hashes_like_its_tuple(
            frame: [[u8; 31]; 2],
            zone: u16,
        ) {
            let bytes: Vec<u8> = frame.concat();
            let key = KeyV6::read(bytes.first_chunk().unwrap(), proto::TCP);
            let address = |at: usize| {
                Address::v6(u128::from_be_bytes(*bytes[at..].first_chunk().unwrap()))
            };
            let id = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            let (src, dst) = (address(22), address(38));
            let t = Tuple { src, dst, src_id: id(54), dst_id: id(56), proto: proto::TCP };
            prop_assert_eq!(key.ids, KeyV4::ids_of(&t));
            prop_assert_eq!(key.hash(&SEED.keys(proto::TCP, zone)), t.hash(zone, &SEED));
        }
    }

    #[test]
    fn a_key_hashes_like_its_tuple() {
        let (src, dst) = (Address::v4(0x0a01_0203), Address::v4(0xcb00_7107));
        let t = Tuple { src, dst, src_id: 40_000, dst_id: 53, proto: proto::UDP };
        let (addresses, ids) = (0x0771_00cb_0302_010a, 0x3500_409c);
        let key = KeyV4 { addresses, ids, proto: proto::UDP };
        assert_eq!((key.tuple(), KeyV4::of(&t)), (t, key));
        assert_eq!(key.hash(&SEED.keys(proto::UDP, 7)), t.hash(7, &SEED));
        assert_eq!(key.source_hash(7, &SEED), t.source_hash(7, &SEED));
        assert_eq!(key.inverted().tuple(), t.inverted().unwrap());
    }

    #[test]
    fn icmp_errors_cannot_be_inverted() {
        let t = |kind: u16| Tuple { dst_id: kind << 8, proto: proto::ICMP, ..Tuple::default() };
        for kind in [3u16, 5, 11, 12] {
            assert_eq!(t(kind).inverted(), None);
        }
        assert_eq!(t(8).inverted().unwrap().dst_id, 0);
    }

    #[test]
    fn neighbouring_tuples_spread_over_buckets_and_tags() {
        let mut low = std::collections::HashSet::new();
        let mut high = std::collections::HashSet::new();
        for port in 0..4096u16 {
            let t = Tuple {
                src: Address::v4(0x0a00_0001),
                dst: Address::v4(0x0a00_0002),
                src_id: port,
                dst_id: 53,
                proto: proto::UDP,
            };
            let h = t.hash(0, &SEED);
            low.insert(h & 0xffff);
            high.insert(h >> 48);
        }
        // 4096 balls in 65 536 bins fill 3 971 of them on average.
        assert!(low.len() > 3880 && high.len() > 3880, "{} {}", low.len(), high.len());
    }
}
