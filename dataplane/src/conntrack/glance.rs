//! All that nearly every packet of a known conn has to know, at one look at its record.
//!
//! A stage before has found the record that the index suggests. Whether it is the packet's, and
//! whether its path may be taken without asking any further, is one comparison of whole words; how
//! a translated packet leaves lies beside them. Records are described in `conntrack/record.rs`.

use super::record::{Conn, lane};
use super::state::{Direction, Status};
use super::tuple::{KeyV4, KeyV6};
use crate::arch::sync::Ordering::Relaxed;
use crate::time::Tick;

/// What all packets of a burst ask of a conn before they take the path that its record names; see
/// [`Conn::glance`].
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Confirmed, and both zones; the protocol is the packet's.
    word3: u64,
    generation: u64,
    owner: u64,
    now: Tick,
}

impl Wanted {
    /// None at all.
    pub const NONE: Wanted = Wanted { word3: 0, generation: 0, owner: 0, now: Tick(0) };

    /// A conn of `owner` in one zone, whose paths are of a policy generation.
    pub fn new(zone: u16, generation: u32, owner: u8, now: Tick) -> Wanted {
        let word3 = (Status::CONFIRMED.0 as u64) << 48 | (zone as u64) << 16 | zone as u64;
        let owner = (owner as u64) << 8 | Conn::IN_USE;
        Wanted { word3, generation: generation as u64, owner, now }
    }
}

/// How a translated packet of TCP or UDP leaves ([`Conn::leaving_v4`]); all as in packets, the
/// first byte lowest.
#[derive(Clone, Copy, Debug)]
pub struct LeavingV4 {
    /// As [`KeyV4::addresses`].
    pub addresses: u64,
    /// As [`KeyV4::ids`].
    pub ids: u32,
    /// What is added to the IP header's checksum.
    pub l3: u16,
    /// What is added to the transport header's.
    pub l4: u16,
}

/// The same of IPv6, whose header has no checksum ([`Conn::leaving_v6`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct LeavingV6 {
    /// As [`KeyV6::addresses`].
    pub addresses: [u64; 4],
    /// As [`KeyV4::ids`].
    pub ids: u32,
    /// What is added to the transport header's checksum.
    pub l4: u16,
}

/// What [`Conn::glance`] tells.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    /// Which of the conn's tuples the packet has.
    pub direction: Direction,
    /// The conn's status bits.
    pub status: Status,
    /// The cached path of the direction; 0 for none.
    pub path: u16,
    /// Its next hop.
    pub next_hop: u16,
    /// When the conn ends (upper half), and its mark.
    lasts: u64,
}

impl Glance {
    /// When the conn ends.
    #[inline(always)]
    pub fn deadline(&self) -> Tick {
        Tick((self.lasts >> 32) as u32)
    }
}

impl Conn<'_> {
    /// Which of the conn's tuples a packet over IPv4 may have, and in which bits it differs from
    /// it.
    #[inline(always)]
    pub fn nearer(self, key: &KeyV4) -> (Direction, u64) {
        let ids = self.word(1);
        let original = self.word(0) ^ key.addresses | ids >> 32 ^ key.ids as u64;
        let reply = self.word(2) ^ key.addresses | ids & 0xffff_ffff ^ key.ids as u64;
        // Line 0 of an IPv6 conn has no addresses.
        let family = self.addresses.is_some() as u64;
        match original {
            0 => (Direction::Original, family),
            _ => (Direction::Reply, reply | family),
        }
    }

    /// The same over IPv6; it may be the wrong one if both have the same source and ids.
    #[inline(always)]
    pub fn nearer_v6(self, key: &KeyV6) -> (Direction, u64) {
        let Some(line) = self.addresses else { return (Direction::Original, 1) };
        let [a, b, c, d] = key.addresses;
        let word = |at: usize| line.0[at & 7].load(Relaxed);
        let source = |at: usize, ids: u64| {
            word(at) ^ a | word(at + 1) ^ b | (ids & 0xffff_ffff) ^ key.ids as u64
        };
        let ids = self.word(1);
        let original = source(0, ids >> 32);
        let (direction, source, at) = match original {
            0 => (Direction::Original, 0, 0),
            _ => (Direction::Reply, source(4, ids), 4),
        };
        (direction, source | word(at + 2) ^ c | word(at + 3) ^ d)
    }

    /// All at once that nearly every packet of a known conn has to know; `None` unless the conn is
    /// the packet's, which is [`Conn::nearer`] to one of its tuples, is confirmed and alive, of the
    /// owner, zone and generation that are `wanted`, has no extension and no news that wait, and
    /// its timeout is nobody's but its tracker's. For TCP and UDP.
    #[inline(always)]
    pub fn glance(
        self,
        (direction, differs): (Direction, u64),
        proto: u8,
        wanted: &Wanted,
    ) -> Option<Glance> {
        const STATUS: u16 =
            Status::CONFIRMED.0 | Status::NAT_CLASH.0 | Status::FIXED_TIMEOUT.0 | Status::DYING.0;
        // Zones, news and protocol, and these bits of the status.
        const WORD3: u64 = (STATUS as u64) << 48 | 0xffff_ffff_ffff;
        // Extension, owner and whether there is one.
        const WORD7: u64 = 0xffff_ffff_0000_ff00 | Conn::IN_USE;
        let (w3, lasts, w5) = (self.word(3), self.word(4), self.word(5));
        let word3 = (proto as u64) << 40 | wanted.word3;
        let differs = differs
            | (w3 ^ word3) & WORD3
            | (w5 ^ wanted.generation) & 0xffff_ffff
            | (self.word(7) ^ wanted.owner) & WORD7;
        if differs != 0 || Tick((lasts >> 32) as u32).has_passed(wanted.now) {
            return None;
        }
        let lane = lane(direction);
        let (path, next_hop) = ((w5 >> lane) as u16, (self.word(6) >> lane) as u16);
        Some(Glance { direction, status: Status((w3 >> 48) as u16), path, next_hop, lasts })
    }

    /// Moves the deadline of a conn that has just been seen. Owner only.
    #[inline(always)]
    pub fn put_off(self, seen: &Glance, deadline: Tick) {
        self.lines[0].0[4].store((deadline.0 as u64) << 32 | seen.lasts & 0xffff_ffff, Relaxed);
    }

    /// What a packet of `direction` looks like when it leaves: the other direction's tuple turned
    /// round, and what that adds to its checksums. For IPv4 conns of TCP and UDP.
    #[inline(always)]
    pub fn leaving_v4(self, direction: Direction) -> LeavingV4 {
        let (addresses, ids, deltas) = match direction {
            Direction::Original => (self.word(2), self.word(1) as u32, self.word(6)),
            Direction::Reply => (self.word(0), (self.word(1) >> 32) as u32, !self.word(6)),
        };
        LeavingV4 {
            addresses: addresses.rotate_left(32),
            ids: ids.rotate_left(16),
            l3: (deltas >> 16) as u16,
            l4: deltas as u16,
        }
    }

    /// The same for IPv6.
    #[inline(always)]
    pub fn leaving_v6(self, direction: Direction) -> LeavingV6 {
        let Some(line) = self.addresses else { return LeavingV6::default() };
        let (ids, deltas) = match direction {
            Direction::Original => (self.word(1) as u32, self.word(6)),
            Direction::Reply => ((self.word(1) >> 32) as u32, !self.word(6)),
        };
        let at = 4 * direction.opposite().index();
        let addresses = [2, 3, 0, 1].map(|i| line.0[(at + i) & 7].load(Relaxed));
        LeavingV6 { addresses, ids: ids.rotate_left(16), l4: deltas as u16 }
    }
}
