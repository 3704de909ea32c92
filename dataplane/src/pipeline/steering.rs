//! Which receive queue a NIC gives a packet to: receive-side scaling, computed in advance.
//!
//! A NIC hashes some fields of a packet with the Toeplitz hash under a key, and looks the queue up
//! in its redirection table (RETA) by the low bits of the hash. [`Steering`] is that computation
//! for the key, the RETA and the hash functions that a port really has; it is asked while a NAT
//! port is searched, so that the replies of a conn come back to the lcore that owns it.
//!
//! The hash is linear: it is the exclusive or of what each bit of the input contributes, and a
//! bit's contribution depends on the key and its place alone. So one table per byte of the input
//! does, at 256 words each. An IPv4 input (12 bytes) is hashed by the first tables of an IPv6 input
//! (36 bytes): 36 KiB for both, and 12 or 36 lookups without a branch.
//!
//! Fields go in as they stand in the packet: source address, destination address, source port,
//! destination port. Only TCP and UDP have the ports hashed; whatever else has two addresses (ICMP,
//! GRE, …) is hashed by these alone, and so are fragments, of which all but the first have no
//! ports. A tuple does not tell whether its packets are fragments: those may arrive at another
//! queue than [`Steering::queue`] says.
//!
//! Built by the control core, immutable afterwards.

use core::fmt;

use crate::conntrack::tuple::{Tuple, proto};

/// Bytes of the longest input: two IPv6 addresses and two ports.
const INPUT_MAX: usize = 36;

/// Bytes of a key that all inputs use: the input's and four more.
pub const KEY_LEN: usize = INPUT_MAX + 4;

/// Entries of the largest RETA taken.
pub const RETA_MAX: usize = 4096;

/// A key under which both directions of a conn have the same hash: it repeats after 16 bits, so
/// exchanging the addresses and exchanging the ports changes nothing. For conns that no NAT
/// changes, both directions then arrive at the same queue.
pub const SYMMETRIC_KEY: [u8; KEY_LEN] = {
    let mut key = [0x6d; KEY_LEN];
    let mut at = 1;
    while at < KEY_LEN {
        key[at] = 0x5a;
        at += 2;
    }
    key
};

/// What a NIC hashes of a kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// Nothing: such packets go where the hash 0 goes.
    Nothing,
    /// Both addresses.
    Addresses,
    /// Both addresses and both ports.
    Ports,
}

/// What a NIC hashes of the packets of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Of TCP.
    pub tcp: Fields,
    /// Of UDP.
    pub udp: Fields,
    /// Of any other protocol, [`Fields::Ports`] meaning addresses: there are no ports.
    pub other: Fields,
}

impl Functions {
    /// Ports where there are any; what NICs do unless told otherwise.
    pub const PORTS: Functions =
        Functions { tcp: Fields::Ports, udp: Fields::Ports, other: Fields::Addresses };
    /// Addresses of all packets.
    pub const ADDRESSES: Functions =
        Functions { tcp: Fields::Addresses, udp: Fields::Addresses, other: Fields::Addresses };

    fn of(&self, protocol: u8) -> Fields {
        match protocol {
            proto::TCP => self.tcp,
            proto::UDP => self.udp,
            _ if self.other == Fields::Nothing => Fields::Nothing,
            _ => Fields::Addresses,
        }
    }
}

/// Why there is no [`Steering`] for what a port reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringError {
    /// The key has fewer bytes than an IPv6 packet's hash needs ([`KEY_LEN`]).
    Key {
        /// The bytes it has.
        len: usize,
    },
    /// The RETA is not a power of two of at most [`RETA_MAX`] entries.
    Reta {
        /// The entries it has.
        len: usize,
    },
}

impl fmt::Display for SteeringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key { len } => write!(f, "an RSS key of {len} bytes, {KEY_LEN} are needed"),
            Self::Reta { len } => write!(f, "a redirection table of {len} entries"),
        }
    }
}

impl core::error::Error for SteeringError {}

/// The computation for one port; 36 KiB and the RETA.
pub struct Steering {
    /// What each value of each byte of the input contributes to the hash.
    tables: Box<[[u32; 256]; INPUT_MAX]>,
    /// Queues; the length is a power of two.
    reta: Box<[u16]>,
    v4: Functions,
    v6: Functions,
}

impl Steering {
    /// For a port with this key (bytes beyond [`KEY_LEN`] hash nothing that an IP packet has),
    /// RETA and hash functions.
    ///
    /// # Errors
    /// [`SteeringError`]: the key is too short, or the RETA no power of two.
    pub fn new(
        key: &[u8],
        reta: &[u16],
        v4: Functions,
        v6: Functions,
    ) -> Result<Steering, SteeringError> {
        let whole: [u8; KEY_LEN] = key
            .get(..KEY_LEN)
            .and_then(|key| key.try_into().ok())
            .ok_or(SteeringError::Key { len: key.len() })?;
        if !reta.len().is_power_of_two() || reta.len() > RETA_MAX {
            return Err(SteeringError::Reta { len: reta.len() });
        }
        Ok(Steering { tables: tables(&whole), reta: reta.into(), v4, v6 })
    }

    /// The queue that a packet of this tuple, not a fragment, arrives at.
    #[inline]
    pub fn queue(&self, tuple: &Tuple) -> u16 {
        let at = self.hash(tuple) as usize & (self.reta.len() - 1);
        self.reta.get(at).copied().unwrap_or_default()
    }

    /// The hash of a packet of this tuple, not a fragment.
    #[inline]
    pub fn hash(&self, tuple: &Tuple) -> u32 {
        let v4 = tuple.src.is_v4();
        let ports = match (if v4 { &self.v4 } else { &self.v6 }).of(tuple.proto) {
            Fields::Nothing => return 0,
            Fields::Addresses => 0,
            Fields::Ports => u32::from(tuple.src_id) << 16 | u32::from(tuple.dst_id),
        };
        // The tables of a zero byte are zero: ports that are not hashed need no branch.
        if v4 {
            self.word::<0>(tuple.src.v4_bits())
                ^ self.word::<4>(tuple.dst.v4_bits())
                ^ self.word::<8>(ports)
        } else {
            self.address::<0>(tuple.src.bits())
                ^ self.address::<16>(tuple.dst.bits())
                ^ self.word::<32>(ports)
        }
    }

    /// What the four bytes at offset `AT` of the input contribute.
    #[inline]
    fn word<const AT: usize>(&self, word: u32) -> u32 {
        let [a, b, c, d] = word.to_be_bytes();
        self.tables[AT][usize::from(a)]
            ^ self.tables[AT + 1][usize::from(b)]
            ^ self.tables[AT + 2][usize::from(c)]
            ^ self.tables[AT + 3][usize::from(d)]
    }

    /// What the sixteen bytes at offset `AT` of the input contribute.
    #[inline]
    fn address<const AT: usize>(&self, bits: u128) -> u32 {
        let bytes = bits.to_be_bytes();
        let tables = self.tables.iter().skip(AT);
        tables.zip(bytes).fold(0, |hash, (table, byte)| hash ^ table[usize::from(byte)])
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reta, v4, v6, .. } = self;
        f.debug_struct("Steering").field("reta", reta).field("v4", v4).field("v6", v6).finish()
    }
}

/// The contribution of each value of each byte. Bit `n` of the input, counted from its first,
/// contributes the 32 bits of the key that begin at its bit `n`.
fn tables(key: &[u8; KEY_LEN]) -> Box<[[u32; 256]; INPUT_MAX]> {
    let mut tables = Box::new([[0; 256]; INPUT_MAX]);
    for (table, five) in tables.iter_mut().zip(key.windows(5)) {
        let window = five.iter().fold(0u64, |window, byte| window << 8 | u64::from(*byte));
        for (value, hash) in table.iter_mut().enumerate() {
            let bits = (0..8).filter(|bit| value >> (7 - bit) & 1 == 1);
            *hash = bits.fold(0, |hash, bit| hash ^ (window >> (8 - bit)) as u32);
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::wire::address::Address;

    /// The key of Microsoft's RSS verification suite.
    const MICROSOFT_KEY: [u8; KEY_LEN] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn tuple(src: &str, sport: u16, dst: &str, dport: u16, proto: u8) -> Tuple {
        let address = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        Tuple { src: address(src), dst: address(dst), src_id: sport, dst_id: dport, proto }
    }

    fn reversed(tuple: &Tuple) -> Tuple {
        let Tuple { src, dst, src_id, dst_id, proto } = *tuple;
        Tuple { src: dst, dst: src, src_id: dst_id, dst_id: src_id, proto }
    }

    fn steering(key: &[u8], reta: &[u16], functions: Functions) -> Steering {
        Steering::new(key, reta, functions, functions).unwrap()
    }

    /// The verification suite's table: source, destination, hash with ports, hash of addresses.
    const SUITE: &[(&str, u16, &str, u16, u32, u32)] = &[
        ("66.9.149.187", 2794, "161.142.100.80", 1766, 0x51cc_c178, 0x323e_8fc2),
        ("199.92.111.2", 14230, "65.69.140.83", 4739, 0xc626_b0ea, 0xd718_262a),
        ("24.19.198.95", 12898, "12.22.207.184", 38024, 0x5c2b_394a, 0xd2d0_a5de),
        ("38.27.205.30", 48228, "209.142.163.6", 2217, 0xafc7_327f, 0x8298_9176),
        ("153.39.163.191", 44251, "202.188.127.2", 1303, 0x10e8_28a2, 0x5d18_09c5),
        ("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x4020_7d3d, 0x2cc1_8cd5),
        ("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0xdde5_1bbf, 0x0f0c_461c),
        (
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            "fe80::200:f8ff:fe21:67cf",
            38024,
            0x02d1_feef,
            0x4b61_e985,
        ),
    ];

    #[test]
    fn the_verification_suite_agrees() {
        let ports = steering(&MICROSOFT_KEY, &[0], Functions::PORTS);
        let addresses = steering(&MICROSOFT_KEY, &[0], Functions::ADDRESSES);
        for &(src, sport, dst, dport, with, without) in SUITE {
            for proto in [proto::TCP, proto::UDP] {
                let tuple = tuple(src, sport, dst, dport, proto);
                assert_eq!((ports.hash(&tuple), addresses.hash(&tuple)), (with, without), "{src}");
            }
            // Identifiers of an echo are no ports, and neither is anything in GRE.
            for proto in [proto::ICMP, proto::ICMPV6, 47] {
                assert_eq!(ports.hash(&tuple(src, sport, dst, dport, proto)), without, "{src}");
            }
        }
    }

    #[test]
    fn the_low_bits_name_the_queue() {
        let reta: Vec<u16> = (0..128).map(|n| n % 3).collect();
        let steering = steering(&MICROSOFT_KEY, &reta, Functions::PORTS);
        for &(src, sport, dst, dport, hash, _) in SUITE {
            let queue = (hash % 128 % 3) as u16;
            assert_eq!(steering.queue(&tuple(src, sport, dst, dport, proto::TCP)), queue);
        }
    }

    #[test]
    fn what_is_not_hashed_goes_where_zero_goes() {
        let functions =
            Functions { udp: Fields::Nothing, other: Fields::Nothing, ..Functions::PORTS };
        let key = &MICROSOFT_KEY;
        let steering = Steering::new(key, &[7, 1, 1, 1], Functions::PORTS, functions).unwrap();
        let (src, dst) = ("fd00::1", "fd00::9");
        for proto in [proto::UDP, proto::ICMPV6] {
            assert_eq!(steering.queue(&tuple(src, 5, dst, 6, proto)), 7);
        }
        assert_ne!(steering.hash(&tuple(src, 5, dst, 6, proto::TCP)), 0);
        assert_ne!(steering.hash(&tuple("10.0.0.1", 5, "10.0.0.2", 6, proto::UDP)), 0);
    }

    #[test]
    fn what_no_nic_has_is_refused() {
        let new = |key: &[u8], reta: &[u16]| {
            Steering::new(key, reta, Functions::PORTS, Functions::PORTS).map(|_| ())
        };
        assert_eq!(new(&[1; 39], &[0]), Err(SteeringError::Key { len: 39 }));
        assert_eq!(new(&[1; 52], &[0; 512]), Ok(()));
        for len in [0, 3, 100, 2 * RETA_MAX] {
            assert_eq!(new(&[1; 40], &vec![0; len]), Err(SteeringError::Reta { len }));
        }
    }

    fn any_tuple() -> impl Strategy<Value = Tuple> {
        let protos = prop::sample::select(vec![proto::TCP, proto::UDP, proto::ICMP, 47]);
        (any::<bool>(), any::<u128>(), any::<u128>(), any::<u32>(), protos).prop_map(
            |(v4, src, dst, ports, proto)| {
                let address = |bits: u128| {
                    // An address that is IPv4-mapped by chance would be of the other family.
                    if v4 { Address::v4(bits as u32) } else { Address::v6(bits | 1 << 127) }
                };
                let (src, dst) = (address(src), address(dst));
                Tuple { src, dst, src_id: (ports >> 16) as u16, dst_id: ports as u16, proto }
            },
        )
    }

    /// The hash as it is defined: bit by bit, over the input as bytes.
    fn defined(key: &[u8], tuple: &Tuple) -> u32 {
        let mut input = Vec::new();
        for address in [tuple.src, tuple.dst] {
            match address.ip() {
                IpAddr::V4(ip) => input.extend(ip.octets()),
                IpAddr::V6(ip) => input.extend(ip.octets()),
            }
        }
        if matches!(tuple.proto, proto::TCP | proto::UDP) {
            input.extend(tuple.src_id.to_be_bytes());
            input.extend(tuple.dst_id.to_be_bytes());
        }
        let bit = |bytes: &[u8], n: usize| bytes[n / 8] >> (7 - n % 8) & 1;
        let mut hash = 0;
        for n in (0..input.len() * 8).filter(|n| bit(&input, *n) == 1) {
            hash ^= (0..32).fold(0, |word, m| word << 1 | u32::from(bit(key, n + m)));
        }
        hash
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn tables_agree_with_the_definition(
            key in prop::collection::vec(any::<u8>(), KEY_LEN..60),
            tuple in any_tuple(),
        ) {
            let steering = steering(&key, &[0], Functions::PORTS);
            prop_assert_eq!(steering.hash(&tuple), defined(&key, &tuple));
        }

        #[test]
        fn the_symmetric_key_sees_no_direction(tuple in any_tuple(), queues in 1u16..40) {
            let reta: Vec<u16> = (0..512).map(|n| n % queues).collect();
            let steering = steering(&SYMMETRIC_KEY, &reta, Functions::PORTS);
            prop_assert_eq!(steering.queue(&tuple), steering.queue(&reversed(&tuple)));
            prop_assert!(steering.queue(&tuple) < queues);
        }

        /// Whatever the rest of a tuple is, some port of any 4096 leads to each of 16 queues: the
        /// search for a NAT port finds one.
        #[test]
        fn every_queue_has_ports(tuple in any_tuple(), first in 0u16..60_000) {
            let reta: Vec<u16> = (0..128).map(|n| n % 16).collect();
            let steering = steering(&SYMMETRIC_KEY, &reta, Functions::PORTS);
            let tuple = Tuple { proto: proto::UDP, ..tuple };
            let ports = (first..).take(4096);
            let mut seen: Vec<u16> =
                ports.map(|dst_id| steering.queue(&Tuple { dst_id, ..tuple })).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), 16);
        }
    }
}
