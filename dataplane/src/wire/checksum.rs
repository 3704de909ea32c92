//! The internet checksum (RFC 1071), whole and incremental (RFC 1624), and the deltas NAT stores.
//!
//! Three kinds of number live here, all one's complement and all in host order:
//! - a *sum* (`u32`): words added up, not complemented; [`fold`] brings it to 16 bits;
//! - a *check* (`u16`): the complement of a folded sum, as it stands in a header;
//! - a *delta* (`u16`): the sum of `new - old` over any number of replaced words. It is computed
//!   once when a conn gets its rewrite and applied to each packet with [`adjust_delta`].
//!
//! One's complement has two zeros. A sum of words is `0x0000` only if every word was zero, so a
//! check computed over a real header is never `0xffff`, and adding a delta to such a sum cannot
//! make it `0x0000` either: the incremental result is bit for bit the one of a full computation.
//! For a check of `0xffff` (some senders write it) the results are those of the kernel's
//! `csum_replace4`. UDP writes `0xffff` for a computed 0 because 0 means "none" there:
//! [`adjust_udp`], [`finish_udp`].

use super::address::Address;

/// The delta that changes nothing.
pub const NO_DELTA: u16 = 0;

/// Adds two 16-bit one's-complement numbers (end-around carry).
#[inline]
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// Folds 64 bits of partial sum to 16.
#[inline]
const fn fold_wide(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// Folds a sum to 16 bits, end-around; 0 only if the sum is 0.
#[inline]
pub const fn fold(sum: u32) -> u16 {
    fold_wide(sum as u64)
}

/// The check for a sum: folded and complemented (`csum_fold`).
#[inline]
pub const fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// The check for a sum as UDP writes it: a computed 0 becomes `0xffff` (RFC 768).
#[inline]
pub const fn finish_udp(sum: u32) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        check => check,
    }
}

/// Bytes from which on a sum is worth four lanes at once.
const LONG: usize = 128;

/// Little-endian words added with end-around carry: a sum that [`is_right`] can judge, and to which
/// more such words may be added with [`add_wide`].
#[inline(always)]
pub fn wide(bytes: &[u8]) -> u64 {
    wide_from(bytes, 0)
}

/// The same of what is behind the first `from` bytes; 0 if that is nothing.
#[inline(always)]
pub fn wide_from(bytes: &[u8], from: usize) -> u64 {
    let Some(rest) = bytes.get(from..) else { return 0 };
    let (mut sum, mut rest) = if rest.len() < LONG { (0, rest) } else { wide_long(rest) };
    while let Some((part, behind)) = rest.split_first_chunk::<32>() {
        (sum, rest) = (add_groups(sum, part), behind);
    }
    if let Some((part, behind)) = rest.split_first_chunk::<16>() {
        (sum, rest) = (add_groups(sum, part), behind);
    }
    if let Some((part, behind)) = rest.split_first_chunk::<8>() {
        (sum, rest) = (add_groups(sum, part), behind);
    }
    // The last eight bytes once more, without those that do not count again: maybe all.
    let last = match bytes.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last) >> 8 >> (56 - 8 * (rest.len() as u32 & 7)),
        None => rest.iter().rev().fold(0, |word, byte| word << 8 | *byte as u64),
    };
    add_wide(sum, last)
}

/// Adds groups of eight bytes.
#[inline(always)]
fn add_groups(sum: u64, bytes: &[u8]) -> u64 {
    let groups = bytes.as_chunks::<8>().0.iter();
    groups.fold(sum, |sum, group| add_wide(sum, u64::from_le_bytes(*group)))
}

/// The sum of all but the last few bytes, and those.
#[inline(never)]
fn wide_long(bytes: &[u8]) -> (u64, &[u8]) {
    let (quads, rest) = bytes.as_chunks::<4>();
    // No packet has 2^32 of them.
    (quads.iter().map(|quad| u32::from_le_bytes(*quad) as u64).sum(), rest)
}

/// Adds two sums of 64 bits, end-around.
#[inline(always)]
pub const fn add_wide(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// True if a sum of words, a right check among them, says so: all ones. Not for a sum of nothing
/// but zeros.
#[inline(always)]
pub const fn is_right(sum: u64) -> bool {
    // Folding keeps the remainder by 0xffff; of what is not 0, only 0xffff has none. A number is a
    // multiple of an odd one exactly if times its inverse, modulo 2^64, it is no more than the
    // greatest quotient (Hacker's Delight, 10-17), which is one multiplication.
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    const _: () = assert!(INVERSE.wrapping_mul(0xffff) == 1);
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

/// The sum of `bytes` (an odd last byte is padded with zero), already folded.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u32 {
    fold_wide(wide(bytes)).swap_bytes() as u32
}

/// The check of `bytes`; 0 if `bytes` contain their own correct check.
#[inline]
pub fn internet(bytes: &[u8]) -> u16 {
    !(sum(bytes) as u16)
}

/// True if a 20-byte IPv4 header carries the right check: five additions, no byte swaps.
#[inline]
pub fn ipv4_header_ok(header: &[u8; 20]) -> bool {
    ipv4_header_partial(header) == 0xffff
}

/// True if an IPv4 header with options carries the right check.
#[inline]
pub fn ipv4_header_with_options_ok(header: &[u8; 20], options: &[u8]) -> bool {
    add(ipv4_header_partial(header), fold_wide(wide(options))) == 0xffff
}

#[inline]
fn ipv4_header_partial(header: &[u8; 20]) -> u16 {
    let mut sum = 0u64;
    for word in header.as_chunks::<4>().0 {
        sum += u32::from_le_bytes(*word) as u64;
    }
    fold_wide(sum)
}

/// The pseudo header's sum for IPv4 addresses given as host-order bits (RFC 793, RFC 768). `len` is
/// the length in bytes of the L4 header and payload.
#[inline]
pub const fn pseudo_v4(src: u32, dst: u32, proto: u8, len: u16) -> u32 {
    fold_wide(src as u64 + dst as u64 + proto as u64 + len as u64) as u32
}

/// The pseudo header's sum for IPv6 addresses given as host-order bits (RFC 8200 section 8.1).
#[inline]
pub const fn pseudo_v6(src: u128, dst: u128, proto: u8, len: u32) -> u32 {
    fold_wide(halves(src) + halves(dst) + proto as u64 + len as u64) as u32
}

/// The pseudo header's sum for the family of `src`.
#[inline]
pub const fn pseudo(src: Address, dst: Address, proto: u8, len: u32) -> u32 {
    if src.is_v4() {
        pseudo_v4(src.v4_bits(), dst.v4_bits(), proto, len as u16)
    } else {
        pseudo_v6(src.bits(), dst.bits(), proto, len)
    }
}

/// The four 32-bit parts of an address, added: below 2^34.
#[inline]
const fn halves(bits: u128) -> u64 {
    (bits >> 96) as u32 as u64
        + (bits >> 64) as u32 as u64
        + (bits >> 32) as u32 as u64
        + bits as u32 as u64
}

/// A checksum over several pieces, each of any length: the segments of an mbuf chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accumulator {
    /// Sum of the pieces so far, each folded to 16 bits.
    sum: u64,
    /// An odd number of bytes was added: the next piece starts in the low half of a word.
    odd: bool,
}

impl Accumulator {
    /// Starts from a sum, as [`pseudo_v4`] gives; 0 for none.
    #[inline]
    pub const fn new(sum: u32) -> Accumulator {
        Accumulator { sum: sum as u64, odd: false }
    }

    /// Adds the next bytes.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let piece = sum(bytes) as u16;
        self.sum += if self.odd { piece.swap_bytes() } else { piece } as u64;
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The folded sum so far.
    #[inline]
    pub const fn sum(&self) -> u32 {
        fold_wide(self.sum) as u32
    }

    /// The check of everything added.
    #[inline]
    pub const fn finish(&self) -> u16 {
        !fold_wide(self.sum)
    }
}

/// A check after one 16-bit word changed (`csum_replace2`).
#[inline]
pub const fn adjust16(check: u16, old: u16, new: u16) -> u16 {
    !add(add(!check, !old), new)
}

/// A check after one 32-bit word changed (`csum_replace4`).
#[inline]
pub const fn adjust32(check: u16, old: u32, new: u32) -> u16 {
    adjust_delta(check, delta32(old, new))
}

/// A check after the words that `delta` stands for changed.
#[inline]
pub const fn adjust_delta(check: u16, delta: u16) -> u16 {
    !add(!check, delta)
}

/// The same for UDP: 0 (no checksum) stays 0, and a result of 0 is written `0xffff`.
#[inline]
pub const fn adjust_udp(check: u16, delta: u16) -> u16 {
    match check {
        0 => 0,
        check => match adjust_delta(check, delta) {
            0 => 0xffff,
            check => check,
        },
    }
}

/// A sum as a delta. The kernel adds deltas to a sum whose upper half is `0xffff` (the complement
/// of an unfolded check), so its result never keeps a sum of `0x0000`; negative zero does the same.
#[inline]
pub(crate) const fn as_delta(sum: u64) -> u16 {
    match fold_wide(sum) {
        0 => 0xffff,
        delta => delta,
    }
}

/// The delta of one replaced 16-bit word, such as a port.
#[inline]
pub const fn delta16(old: u16, new: u16) -> u16 {
    as_delta(!old as u64 + new as u64)
}

/// The delta of one replaced 32-bit word.
#[inline]
pub const fn delta32(old: u32, new: u32) -> u16 {
    as_delta(!old as u64 + new as u64)
}

/// The delta of a replaced address; both must be of one family.
#[inline]
pub const fn delta_address(old: Address, new: Address) -> u16 {
    as_delta(halves(!old.bits()) + halves(new.bits()))
}

/// The delta of both replacements together.
#[inline]
pub const fn combine(a: u16, b: u16) -> u16 {
    add(a, b)
}

/// The delta that undoes `delta`: for the conn's other direction. Both zeros are their own.
#[inline]
pub const fn negate(delta: u16) -> u16 {
    match delta {
        0 | 0xffff => delta,
        _ => !delta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn oracle(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += (pair[0] as u32) << 8 | *pair.get(1).unwrap_or(&0) as u32;
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    /// `csum_replace4` as the kernel computes it: 32-bit sums, folded at the end.
    fn kernel_replace4(check: u16, old: u32, new: u32) -> u16 {
        let add32 = |a: u32, b: u32| {
            let (sum, carry) = a.overflowing_add(b);
            sum + carry as u32
        };
        let mut sum = add32(add32(!(check as u32), !old), new);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn a_wide_sum_is_right_exactly_if_the_check_is(
            mut bytes in proptest::collection::vec(any::<u8>(), 2..400),
            wrong in any::<u16>(),
            extra in any::<u64>(),
        ) {
            bytes[..2].fill(0);
            let check = oracle(&bytes);
            bytes[..2].copy_from_slice(&check.to_be_bytes());
            prop_assume!(bytes.iter().any(|byte| *byte != 0));
            prop_assert!(is_right(wide(&bytes)));
            prop_assert_eq!(sum(&bytes), 0xffff);
            for from in 0..bytes.len() {
                prop_assert_eq!(wide_from(&bytes, from) % 0xffff, wide(&bytes[from..]) % 0xffff);
            }
            let more = wide(&extra.to_le_bytes());
            let whole = [&bytes[..bytes.len() / 2 * 2], &extra.to_le_bytes()].concat();
            let split = add_wide(wide(&bytes[..bytes.len() / 2 * 2]), more);
            prop_assert_eq!(is_right(split), oracle(&whole) == 0);
            let harmed = check.wrapping_add(wrong);
            bytes[..2].copy_from_slice(&harmed.to_be_bytes());
            prop_assert_eq!(is_right(wide(&bytes)), oracle(&bytes) == 0);
        }
    }

    /// RFC 1071 section 3's example and a real IPv4 header.
    #[test]
    fn golden() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        let mut header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert!(ipv4_header_ok(&header));
        assert_eq!(internet(&header), 0);
        header[10] = 0;
        header[11] = 0;
        assert_eq!(internet(&header), 0xb861);
        assert!(!ipv4_header_ok(&header));
        assert_eq!(internet(&[]), 0xffff);
    }

    #[test]
    fn both_zeros() {
        // Sum of zeros stays positive zero; anything else that sums to zero is negative zero.
        assert_eq!(internet(&[0; 20]), 0xffff);
        assert_eq!(internet(&[0xff; 20]), 0);
        assert_eq!(adjust_delta(0x1234, NO_DELTA), 0x1234);
        assert_eq!(adjust_delta(0x1234, delta16(7, 7)), 0x1234);
        assert_eq!(adjust32(0xffff, u32::MAX, 0), kernel_replace4(0xffff, u32::MAX, 0));
        assert_eq!(adjust32(0xffff, 5, 5), kernel_replace4(0xffff, 5, 5));
        assert_eq!(adjust_udp(0, delta16(1, 2)), 0, "no checksum stays none");
        assert_eq!(adjust_udp(1, delta16(0, 1)), 0xffff, "a computed zero is sent as ffff");
        assert_eq!(adjust_delta(1, delta16(0, 1)), 0);
    }

    proptest! {
        #[test]
        fn fast_equals_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(internet(&bytes), oracle(&bytes));
        }

        #[test]
        fn pieces_equal_whole(
            pieces in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..20), 0..8),
        ) {
            let mut acc = Accumulator::new(0);
            pieces.iter().for_each(|piece| acc.add(piece));
            prop_assert_eq!(acc.finish(), oracle(&pieces.concat()));
        }

        #[test]
        fn replacing_is_the_kernels(check: u16, old: u32, new: u32) {
            prop_assert_eq!(adjust32(check, old, new), kernel_replace4(check, old, new));
        }

        #[test]
        fn incremental_equals_full(
            mut bytes in proptest::collection::vec(
                prop_oneof![Just(0u8), Just(255u8), any::<u8>()], 12..64),
            address: u32,
            port in prop_oneof![Just(0u16), Just(0xffff), any::<u16>()],
        ) {
            // The protocol byte is never 0, so the sum has at least one word that is not zero.
            bytes[8] = 17;
            let before = internet(&bytes);
            let old = u32::from_be_bytes(bytes[0..4].try_into().unwrap());
            let old_port = u16::from_be_bytes(bytes[4..6].try_into().unwrap());
            bytes[0..4].copy_from_slice(&address.to_be_bytes());
            bytes[4..6].copy_from_slice(&port.to_be_bytes());
            let delta = combine(delta32(old, address), delta16(old_port, port));
            let by_address = combine(
                delta_address(Address::v4(old), Address::v4(address)), delta16(old_port, port));
            prop_assert_eq!(adjust_delta(before, delta), internet(&bytes));
            prop_assert_eq!(adjust_delta(before, by_address), internet(&bytes));
            prop_assert_eq!(adjust16(adjust32(before, old, address), old_port, port),
                internet(&bytes));
            prop_assert_eq!(adjust_delta(internet(&bytes), negate(delta)), before);
        }

        #[test]
        fn pseudo_headers(src: u128, dst: u128, proto: u8, len: u16) {
            let v4 = [
                &(src as u32).to_be_bytes()[..], &(dst as u32).to_be_bytes(), &[0, proto],
                &len.to_be_bytes(),
            ].concat();
            prop_assert_eq!(finish(pseudo_v4(src as u32, dst as u32, proto, len)), oracle(&v4));
            let v6 = [
                &src.to_be_bytes()[..], &dst.to_be_bytes(), &(len as u32).to_be_bytes(),
                &[0, 0, 0, proto],
            ].concat();
            prop_assert_eq!(finish(pseudo_v6(src, dst, proto, len as u32)), oracle(&v6));
        }

        #[test]
        fn delta_of_v6(old: u128, new: u128, rest: u16) {
            let full = |a: u128| {
                internet(&[&a.to_be_bytes()[..], &[17, 0], &rest.to_be_bytes()].concat())
            };
            let delta = delta_address(Address::v6(old), Address::v6(new));
            prop_assert_eq!(adjust_delta(full(old), delta), full(new));
        }
    }
}
