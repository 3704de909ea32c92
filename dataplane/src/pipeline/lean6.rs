//! Lean packets of IPv6: TCP and UDP without tag and extension headers, whole in the first segment,
//! their checksums right. What `pipeline/lean.rs` says of IPv4 holds for them too.
//!
//! The addresses stay in the frame: a [`Lean`] has the ids, and whoever compares addresses reads
//! them again at their fixed place ([`Lean::key_v6`]).

use crate::conntrack::tuple::{KeyV4, KeyV6, proto};
use crate::pipeline::frame::Frame;
use crate::pipeline::lean::{L3, Lean, Reading, Sought, WALKS, is_sound};
use crate::wire::checksum;

/// Where addresses begin.
const ADDRESSES: usize = 22;
/// Where the transport header begins.
pub(crate) const L4: u16 = 54;
/// Where UDP's header ends.
const TRANSPORT: usize = 62;

impl Lean {
    /// Reads a frame; false if it is not lean, not for us or not good. What is wrong with it the
    /// general way will say.
    #[inline(never)]
    pub(crate) fn read_v6<F: Frame>(&mut self, frame: &F, by: &Reading) -> bool {
        let head = frame.head();
        let Some(bytes) = head.first_chunk::<TRANSPORT>() else { return false };
        let le64 = |at: usize| {
            let word = bytes[at..].first_chunk().copied().unwrap_or_default();
            u64::from_le_bytes(word)
        };
        // Our address, the protocol, the version.
        let link = (le64(0) ^ by.mac) << 16 | (le64(8) >> 32 ^ 0x0060_dd86) & 0x00f0_ffff;
        // Traffic class and flow label, payload's length, next header, hop limit.
        let header = le64(14);
        let (length, proto_number) = (header >> 32 & 0xffff, (header >> 48) as u8);
        let (addresses, transport) = ([le64(22), le64(30), le64(38), le64(46)], le64(54));
        let key = KeyV6 {
            addresses: addresses.map(u64::swap_bytes),
            ids: transport as u32,
            proto: proto_number,
        };
        let [src, _, dst, _] = key.addresses;
        let end = L4 as usize + (length as u16).swap_bytes() as usize;
        if link != 0 || !is_ordinary(src) || !is_ordinary(dst) || end > u16::MAX as usize {
            return false;
        }
        let Some(packet) = head.get(..end) else { return false };
        let Some(behind) = packet.get(TRANSPORT..) else { return false };
        // The pseudo header and what has been read: all but what is behind.
        let pseudo = length + ((proto_number as u64) << 8);
        let sum = addresses.into_iter().fold(pseudo, checksum::add_wide);
        let sum = checksum::add_wide(sum, transport);
        self.life = (header >> 56) as u8;
        let keys = match proto_number {
            proto::UDP => {
                // A checksum of 0 says that there is none; that there has to be one is the
                // receiver's matter.
                let check = by.check && transport >> 48 != 0;
                if transport >> 32 & 0xffff != length
                    || check && !is_sound(frame, packet, TRANSPORT, sum)
                {
                    return false;
                }
                &by.udp[1]
            }
            proto::TCP => {
                let Some(header) = behind.first_chunk::<12>() else { return false };
                if by.check && !is_sound(frame, packet, TRANSPORT, sum) {
                    return false;
                }
                if header[5] & WALKS != 0 {
                    self.life = 0;
                }
                &by.tcp[1]
            }
            _ => return false,
        };
        self.key = KeyV4 { addresses: 0, ids: key.ids, proto: key.proto };
        self.hash = key.hash(keys);
        self.ip_len = end as u16 - L3;
        self.sought = Sought::V6;
        true
    }

    /// See [`Lean::is_sound`].
    pub(crate) fn is_sound_v6<F: Frame>(&self, frame: &F) -> bool {
        let Some(bytes) = frame.head().first_chunk::<62>() else { return false };
        if self.key.proto == proto::UDP && bytes[60] | bytes[61] == 0 {
            return true;
        }
        let l4_len = self.ip_len.wrapping_sub(L4 - L3).swap_bytes() as u64;
        let pseudo = ((self.key.proto as u64) << 8) + l4_len;
        let packet = frame.head().get(..self.end());
        packet.is_some_and(|packet| is_sound(frame, packet, ADDRESSES, pseudo))
    }

    /// The key of a frame that was read so.
    #[inline(always)]
    pub(crate) fn key_v6<F: Frame>(&self, frame: &F) -> KeyV6 {
        let bytes = frame.head().first_chunk::<62>();
        bytes.map_or(KeyV6::default(), |bytes| KeyV6::read(bytes, self.key.proto))
    }
}

/// Whether an address with these upper bits is neither one with a meaning of its own (unspecified,
/// loopback, IPv4-mapped) nor that of a group.
#[inline(always)]
const fn is_ordinary(upper: u64) -> bool {
    upper != 0 && upper < 0xff << 56
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conntrack::icmp;
    use crate::conntrack::tuple::HashSeed;
    use crate::lcore::memory::MemoryFrame;
    use crate::pipeline::burst::is_plain;
    use crate::pipeline::track::{sound, tuple_of};
    use crate::wire::headers;
    use crate::wire::tcp::flags;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const SEED: HashSeed = HashSeed([3, 5, 7, 11, 13]);

    /// A frame of UDP or TCP with `payload` bytes, all of it right.
    fn frame(tcp: bool, payload: usize, padding: usize, check: bool) -> Vec<u8> {
        let l4_len = payload + if tcp { 20 } else { 8 };
        let mut bytes = vec![0; 54 + l4_len + padding];
        bytes[..6].copy_from_slice(&MAC);
        bytes[12..16].copy_from_slice(&[0x86, 0xdd, 0x6a, 0xbc]);
        bytes[18..20].copy_from_slice(&(l4_len as u16).to_be_bytes());
        bytes[20] = if tcp { proto::TCP } else { proto::UDP };
        bytes[21] = 64;
        bytes[22..26].copy_from_slice(&[0x20, 1, 0x0d, 0xb8]);
        bytes[38..42].copy_from_slice(&[0, 0x64, 0xff, 0x9b]);
        (bytes[37], bytes[53]) = (1, 2);
        bytes[54..58].copy_from_slice(&[0x9c, 0x40, 0, 53]);
        if tcp {
            bytes[66..68].copy_from_slice(&[0x50, flags::ACK]);
        } else {
            bytes[58..60].copy_from_slice(&(l4_len as u16).to_be_bytes());
        }
        bytes[54 + l4_len - payload..54 + l4_len].fill(0x5a);
        if check {
            let pseudo = u32::from(bytes[20]) + l4_len as u32;
            let sum = checksum::finish(checksum::sum(&bytes[22..54 + l4_len]) + pseudo);
            let at = if tcp { 70 } else { 60 };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    fn read(bytes: &[u8], check: bool) -> Option<Lean> {
        let mut lean = Lean::default();
        let by = Reading::new(&MAC, [8, 7], &SEED, check);
        lean.read_v6(&MemoryFrame::new(bytes), &by).then_some(lean)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Reading agrees with the general parser and the trackers' first checks, whatever some
        /// bytes are, as long as it is the checksum that tells.
        #[test]
        fn what_is_lean_is_what_the_general_way_finds_good(
            tcp: bool,
            check: bool,
            payload in 0..300usize,
            padding in 0..8usize,
            harm in prop::option::of((6..80usize, any::<u8>())),
            special in prop::option::of((prop::bool::ANY, 0..6usize)),
        ) {
            let mut bytes = frame(tcp, payload, padding, check || tcp);
            if let Some((at, value)) = harm
                && let Some(byte) = bytes.get_mut(at)
            {
                *byte = value;
            }
            if let Some((dst, which)) = special {
                let address: u128 =
                    [0, 1, 0xffff_0a00_0001, 0xff << 120 | 1, 0xff02 << 112 | 1, 1 << 64][which];
                let at = if dst { 38 } else { 22 };
                bytes[at..at + 16].copy_from_slice(&address.to_be_bytes());
            }
            let lean = read(&bytes, check);
            let whole = MemoryFrame::new(bytes.clone());
            let good = headers::parse(whole.head(), whole.total_len()).ok().filter(|h| {
                is_plain(h) && h.is_v6() && matches!(h.proto, proto::TCP | proto::UDP)
                    && sound(&whole, h, check) == Ok(icmp::Kind::Query)
            });
            let Some(lean) = lean else {
                // Some good ones are none of ours, as those to groups.
                prop_assert!(good.is_none() || harm.is_some() || special.is_some());
                return Ok(());
            };
            let Some(h) = good else {
                prop_assert!(false, "{lean:?} of a frame that is not good: {bytes:02x?}");
                return Ok(());
            };
            let tuple = tuple_of(&h);
            prop_assert_eq!(lean.hash, tuple.hash(7, &SEED));
            let key = lean.key_v6(&whole);
            let (src, dst) = (tuple.src.bits(), tuple.dst.bits());
            prop_assert_eq!(key.addresses, [src >> 64, src, dst >> 64, dst].map(|w| w as u64));
            let ids = KeyV4::ids_of(&tuple);
            prop_assert_eq!((key.ids, lean.key.ids, key.proto), (ids, ids, h.proto));
            prop_assert_eq!((lean.end() as u32, lean.ip_len as u32), (h.end, h.ip_len()));
            prop_assert_eq!(lean.l4(), h.l4);
            let walks = h.tcp_flags & WALKS != 0;
            prop_assert_eq!(lean.life, if walks { 0 } else { h.ttl });
            prop_assert!(lean.is_v6() && (!check || lean.is_sound(&whole)));
        }
    }

    #[test]
    fn a_packet_that_ends_within_its_header_is_not_lean() {
        for length in 0..28u16 {
            let mut bytes = frame(false, 20, 0, false);
            bytes[18..20].copy_from_slice(&length.to_be_bytes());
            bytes[58..60].copy_from_slice(&length.to_be_bytes());
            assert_eq!(read(&bytes, false).is_some(), length >= 8, "{length}");
        }
    }

    #[test]
    fn a_wrong_checksum_is_seen_when_it_is_looked_for() {
        for tcp in [false, true] {
            let mut bytes = frame(tcp, 5, 3, true);
            assert!(read(&bytes, true).is_some_and(|l| l.is_sound(&MemoryFrame::new(&bytes[..]))));
            bytes[30] ^= 4;
            assert!(read(&bytes, true).is_none());
            let unseen = read(&bytes, false).unwrap();
            assert!(!unseen.is_sound(&MemoryFrame::new(bytes)));
        }
    }
}
