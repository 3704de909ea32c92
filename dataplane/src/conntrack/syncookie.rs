//! SYN cookies: the number that an answered SYN begins with, from which its ACK can be judged
//! without anything kept in between (`secure_tcp_syn_cookie`, `__cookie_v4_check`).
//!
//! ```text
//!   cookie = number of the SYN + H(conn) + minute << 24 + (H'(conn, minute) + size) % 2^24
//! ```
//!
//! `H` and `H'` are SipHash-2-4 under keys of their own, `size` is the place of the client's MSS in
//! a table of four. So one number of 2^29 is good (four of 2^24, in two minutes of 2^8), which is
//! the price of keeping nothing, as in the kernel. Owned by nobody, never changed: the keys come
//! from the table's secrets, which are drawn at start.

use super::tuple::{HashSeed, Tuple};

/// Bits below the minute.
const BITS: u32 = 24;
const MASK: u32 = (1 << BITS) - 1;
/// Minutes in which a cookie is good: the one it is of and the next (`MAX_SYNCOOKIE_AGE`).
const AGE_MINUTES: u32 = 2;

/// Sizes that a cookie can tell, in ascending order (`msstab`).
const SIZES_V4: [u16; 4] = [536, 1300, 1440, 1460];
const SIZES_V6: [u16; 4] = [1280 - 60, 1480 - 60, 1500 - 60, 9000 - 60];

/// The keys of both hashes.
#[derive(Clone, Copy)]
pub struct Cookies {
    keys: [[u64; 2]; 2],
}

impl core::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookies {
    /// With keys that nobody can tell who does not know all of `seed`.
    pub fn new(seed: &HashSeed) -> Cookies {
        let [a, b, c, d, e] = seed.0;
        let draw = |number: u64| siphash([d, e], &[a, b, c, number], 32 << 56);
        Cookies { keys: [[draw(0), draw(1)], [draw(2), draw(3)]] }
    }

    fn hash(&self, which: usize, tuple: &Tuple, minute: u32) -> u32 {
        let (src, dst) = (tuple.src.bits(), tuple.dst.bits());
        let ids = u64::from(tuple.src_id) << 48 | u64::from(tuple.dst_id) << 32;
        let words = [
            (src >> 64) as u64,
            src as u64,
            (dst >> 64) as u64,
            dst as u64,
            ids | u64::from(minute),
        ];
        siphash(self.keys[which & 1], &words, 40 << 56) as u32
    }

    /// The cookie for a client's SYN with this tuple and sequence number, that asks for segments
    /// of at most `mss` bytes (0 if it does not say), in this minute.
    pub fn make(&self, tuple: &Tuple, seq: u32, mss: u16, minute: u32) -> u32 {
        let size = sizes(tuple).iter().rposition(|&size| size <= mss).unwrap_or(0) as u32;
        let second = self.hash(1, tuple, minute).wrapping_add(size) & MASK;
        let first = self.hash(0, tuple, 0).wrapping_add(seq);
        first.wrapping_add(minute << BITS).wrapping_add(second)
    }

    /// The size that the client asked for whose SYN had the sequence number `seq`, if `cookie` is
    /// the one it was answered with in this minute or the one before.
    pub fn judge(&self, tuple: &Tuple, seq: u32, cookie: u32, minute: u32) -> Option<u16> {
        let rest = cookie.wrapping_sub(self.hash(0, tuple, 0).wrapping_add(seq));
        let age = minute.wrapping_sub(rest >> BITS) & (u32::MAX >> BITS);
        if age >= AGE_MINUTES {
            return None;
        }
        let second = self.hash(1, tuple, minute.wrapping_sub(age));
        sizes(tuple).get((rest.wrapping_sub(second) & MASK) as usize).copied()
    }
}

fn sizes(tuple: &Tuple) -> &'static [u16; 4] {
    if tuple.is_v6() { &SIZES_V6 } else { &SIZES_V4 }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of whole words and a last one, which has the length
/// in its upper byte.
fn siphash([k0, k1]: [u64; 2], words: &[u64], last: u64) -> u64 {
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words.iter().chain(&[last]) {
        v[3] ^= word;
        round(&mut v);
        round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    (0..4).for_each(|_| round(&mut v));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn round([a, b, c, d]: &mut [u64; 4]) {
    *a = a.wrapping_add(*b);
    *c = c.wrapping_add(*d);
    *b = b.rotate_left(13) ^ *a;
    *d = d.rotate_left(16) ^ *c;
    *a = a.rotate_left(32).wrapping_add(*d);
    *c = c.wrapping_add(*b);
    *d = d.rotate_left(21) ^ *a;
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conntrack::tuple::proto;
    use crate::wire::address::Address;

    const SEED: HashSeed = HashSeed([3, 5, 7, 11, 13]);

    fn tuple(v6: bool, port: u16) -> Tuple {
        let address = |last: u8| match v6 {
            true => Address::v6(0x2001_0db8 << 96 | u128::from(last)),
            false => Address::v4(0x0a00_0000 | u32::from(last)),
        };
        let (src, dst) = (address(1), address(2));
        Tuple { src, dst, src_id: port, dst_id: 80, proto: proto::TCP }
    }

    /// The example of the paper's appendix.
    #[test]
    fn the_hash_is_siphash_2_4() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let last = 15 << 56 | 0x000e_0d0c_0b0a_0908;
        assert_eq!(siphash(key, &[0x0706_0504_0302_0100], last), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_size_is_the_next_one_below() {
        let cookies = Cookies::new(&SEED);
        let asked = |v6, mss| {
            let tuple = tuple(v6, 9);
            let cookie = cookies.make(&tuple, 5, mss, 77);
            cookies.judge(&tuple, 5, cookie, 77)
        };
        for (mss, size) in [(0, 536), (536, 536), (1299, 536), (1300, 1300), (1459, 1440)] {
            assert_eq!(asked(false, mss), Some(size), "{mss}");
        }
        assert_eq!((asked(false, 1460), asked(false, 9000)), (Some(1460), Some(1460)));
        assert_eq!((asked(true, 0), asked(true, 1440)), (Some(1220), Some(1440)));
        assert_eq!((asked(true, 8939), asked(true, u16::MAX)), (Some(1440), Some(8940)));
    }

    /// A keep-alive acknowledges a SYN one number lower, which a cookie takes for one size more.
    #[test]
    fn one_number_lower_is_one_size_more() {
        let (cookies, tuple) = (Cookies::new(&SEED), tuple(false, 9));
        let judged = |mss| cookies.judge(&tuple, 4, cookies.make(&tuple, 5, mss, 77), 77);
        assert_eq!((judged(536), judged(1440), judged(1460)), (Some(1300), Some(1460), None));
    }

    proptest! {
        #[test]
        fn a_cookie_is_good_for_its_client_and_two_minutes(
            v6: bool, port: u16, seq: u32, minute: u32, later in 0..300u32,
        ) {
            let (cookies, tuple) = (Cookies::new(&SEED), tuple(v6, port));
            let cookie = cookies.make(&tuple, seq, 1440, minute);
            let good = |by: &Cookies, tuple: &Tuple, later| {
                by.judge(tuple, seq, cookie, minute.wrapping_add(later)).is_some()
            };
            // What is read of a cookie comes round after 256 minutes, and fits by chance then.
            prop_assume!(later % 256 >= AGE_MINUTES || later < AGE_MINUTES);
            prop_assert_eq!(good(&cookies, &tuple, later), later < AGE_MINUTES);
        }

    }

    #[test]
    fn a_cookie_says_nothing_to_others() {
        let (cookies, other) = (Cookies::new(&SEED), Cookies::new(&HashSeed([3, 5, 7, 11, 14])));
        for port in 0..10_000 {
            let (own, stranger) = (tuple(false, port), tuple(false, port + 1));
            let cookie = cookies.make(&own, 5, 1440, 77);
            assert_eq!(cookies.judge(&own, 5, cookie, 77), Some(1440));
            assert_eq!(cookies.judge(&stranger, 5, cookie, 77), None);
            assert_eq!(other.judge(&own, 5, cookie, 77), None);
        }
    }
}
