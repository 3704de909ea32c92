//! The choice of a translation: which tuple a new conn gets within the range a rule asks for.
//!
//! Follows `get_unique_tuple` and what it calls in the kernel's `nf_nat_core.c`, step by step,
//! because people see the result: which port a client keeps, which address of a pool it gets. The
//! address of a pool is chosen by the very hash of the kernel (Jenkins' lookup3 without a key), so
//! a client keeps its public address across restarts and when it moves between a kernel gateway and
//! this one.
//!
//! A pure function: who holds which tuple is asked through [`Claims`], randomness is an argument,
//! and nothing is written. The winner is only a candidate until the conn is confirmed: when all
//! tries fail the last one is returned and confirm refuses it, as in the kernel.
//!
//! Bounds: at most [`SAME_SOURCE_MAX`] conns of the same source are looked at, and at most
//! 128 + 64 + 32 + 16 + 8 ports are tried.

use core::ops::ControlFlow;

use super::range::{Manip, Range};
use crate::conntrack::state::{Direction, Status};
use crate::conntrack::tuple::{KeyV4, Tuple, proto};
use crate::wire::address::Address;

/// Conns of the same source looked at while searching for a mapping to reuse.
pub const SAME_SOURCE_MAX: usize = 64;

/// Ports tried in the first round (`max_attempts`).
const TRIES_MAX: u32 = 128;

/// In the last so many tries of a round a finished TCP conn may be evicted
/// (`NF_NAT_HARDER_THRESH`).
const EVICT_TRIES: u32 = 32;

/// Rounds shorter than this are the last one.
const LAST_ROUND: u32 = 16;

/// `TCP_CONNTRACK_TIME_WAIT`; CLOSE and SYN_SENT2 compare greater, in the kernel too.
const TCP_TIME_WAIT: u8 = 7;

/// The conn that already answers to a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder<R> {
    /// Its record.
    pub record: R,
    /// Its original tuple.
    pub original: Tuple,
    /// Which of its tuples was hit.
    pub direction: Direction,
    /// Its status bits.
    pub status: Status,
    /// For TCP: the state's number in the kernel's order, and the highest sequence number that
    /// its original side has sent (`td_end`). `None` also where the caller cannot evict the conn.
    pub tcp: Option<(u8, u32)>,
}

/// What the choice asks of the conntrack table.
pub trait Claims {
    /// A number or handle of a record.
    type Record: Copy;

    /// The live confirmed conn, in the zone of the new one, that has `reply` as one of its tuples.
    fn holder(&self, reply: &Tuple) -> Option<Holder<Self::Record>>;

    /// Shows the reply tuples of conns in the zone with the protocol, source address and source
    /// port of `current` whose source translation has been decided, newest first, until `visit`
    /// breaks.
    fn same_source(&self, current: &Tuple, visit: &mut dyn FnMut(&Tuple) -> ControlFlow<()>);

    /// Where any free port would do, those whose reply tuple is preferred are tried first (replies
    /// that the NIC will bring to this lcore).
    fn prefers(&self, _reply: &Tuple) -> bool {
        true
    }
}

/// A request for a tuple.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The conn's original tuple.
    pub orig: &'a Tuple,
    /// The inverse of its present reply tuple: what earlier translations have made of it.
    pub current: &'a Tuple,
    /// What the rule allows.
    pub range: &'a Range,
    /// Which end is to be changed.
    pub manip: Manip,
    /// The conn's zone; it takes part in spreading over a pool.
    pub zone: u16,
    /// For a TCP conn in SYN_SENT the end of its SYN (`td_end` of the original side), else `None`.
    pub syn_end: Option<u32>,
    /// True for a GRE conn that PPTP expected; the call-ids of other GRE conns stay.
    pub gre_child: bool,
}

/// The choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected<R> {
    /// The conn's new tuple as the destination will see it; its inverse is the new reply tuple.
    pub tuple: Tuple,
    /// A finished conn that must be deleted before this one can be confirmed.
    pub evict: Option<R>,
    /// How often a candidate was found taken (the counter `found`).
    pub found: u16,
}

/// The range that keeps the address of `current` as it is and leaves the port to the search, for
/// conns that no rule translates (`__nf_nat_alloc_null_binding`).
pub fn null_binding(current: &Tuple, manip: Manip) -> Range {
    let address = match manip {
        Manip::Src => current.src,
        Manip::Dst => current.dst,
    };
    Range { addresses: Some((address, address)), ..Range::default() }
}

/// Chooses the tuple (`get_unique_tuple`). Equal to `wanted.current` means no translation.
pub fn unique_tuple<C: Claims>(
    wanted: &Wanted<'_>,
    claims: &C,
    rng: &mut impl FnMut() -> u32,
) -> Selected<C::Record> {
    let mut search = Search { wanted, claims, found: 0 };
    let range = wanted.range;
    if wanted.manip == Manip::Src
        && !range.random
        && let Some(tuple) = search.existing_mapping()
    {
        return search.selected(tuple, None);
    }
    let mut tuple = *wanted.current;
    if let Some(pool) = range.addresses {
        choose_address(&mut tuple, pool, wanted);
    }
    if !range.random && search.port_may_stay(&tuple) {
        return search.selected(tuple, None);
    }
    search.another_port(tuple, rng)
}

/// What [`unique_tuple`] comes to for the source of a new conn of TCP or UDP over IPv4, whose
/// original tuple is `current` or has become it, as long as its source has no other mapping and
/// nobody stands in the way there. `None` where the range asks for more than an address.
#[inline]
pub fn undisturbed(current: &KeyV4, range: &Range, zone: u16) -> Option<KeyV4> {
    let (low, high) = range.addresses?;
    if range.random || range.ports.is_some() || !low.is_v4() || !high.is_v4() {
        return None;
    }
    let (low, high) = (low.v4_bits(), high.v4_bits());
    let [src, dst] = [current.addresses as u32, (current.addresses >> 32) as u32].map(u32::to_be);
    if low > high || (low..=high).contains(&src) {
        return None;
    }
    let chosen = match low == high {
        true => low,
        false => spread_v4(src, low, high, salt(dst, range.persistent, zone)),
    };
    let addresses = (dst.to_be() as u64) << 32 | chosen.to_be() as u64;
    Some(KeyV4 { addresses, ..*current })
}

struct Search<'a, C: Claims> {
    wanted: &'a Wanted<'a>,
    claims: &'a C,
    found: u16,
}

/// How a candidate stands.
enum Standing<R> {
    Free,
    Taken,
    /// Free once this conn is deleted.
    Evictable(R),
}

impl<C: Claims> Search<'_, C> {
    fn selected(&self, tuple: Tuple, evict: Option<C::Record>) -> Selected<C::Record> {
        Selected { tuple, evict, found: self.found }
    }

    /// Step 1: the tuple as it is, or the mapping that another conn of this source has.
    fn existing_mapping(&mut self) -> Option<Tuple> {
        let Wanted { current, range, .. } = *self.wanted;
        if in_range(current, range) {
            return (!self.taken_for_good(current)).then_some(*current);
        }
        let mut reused = None;
        let mut left = SAME_SOURCE_MAX;
        self.claims.same_source(current, &mut |reply| {
            let mapped = reply.inverted().map(|other| Tuple {
                dst: current.dst,
                dst_id: current.dst_id,
                ..other
            });
            reused = mapped.filter(|tuple| in_range(tuple, range));
            left -= 1;
            if reused.is_some() || left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        reused.filter(|tuple| !self.taken(tuple))
    }

    /// Step 3: a port inside the asked range that is free stays; the only port of a range stays
    /// without a look, so that two clients of one forwarded port do not push each other away.
    fn port_may_stay(&mut self, tuple: &Tuple) -> bool {
        let range = self.wanted.range;
        match range.ports {
            Some((low, high)) => {
                range.base_port.is_none()
                    && id_in_range(tuple, self.wanted.manip, low, high)
                    && (low == high || !self.taken(tuple))
            }
            None => !self.taken(tuple),
        }
    }

    /// Step 4: the bounded search (`nf_nat_l4proto_unique_tuple`).
    fn another_port(
        &mut self,
        mut tuple: Tuple,
        rng: &mut impl FnMut() -> u32,
    ) -> Selected<C::Record> {
        let wanted = self.wanted;
        let Some((low, size)) = self.ports(&tuple) else {
            return self.selected(tuple, None);
        };
        let any_order =
            wanted.range.base_port.is_none() && (wanted.range.random || wanted.manip == Manip::Src);
        let mut offset = match wanted.range.base_port {
            Some(base) => id(&tuple, wanted.manip).wrapping_sub(base),
            None if any_order => rng() as u16,
            None => 0,
        };
        let mut tries = size.min(TRIES_MAX);
        loop {
            let mut evictable = None;
            // One pass over the window, or two where the order is free: the preferred ones first,
            // and a conn is evicted only when none of the window is free.
            for preferred in [true, false] {
                for step in 0..tries {
                    let at = offset.wrapping_add(step as u16);
                    set_id(&mut tuple, wanted.manip, low.wrapping_add((at as u32 % size) as u16));
                    if any_order && self.prefers(&tuple) != preferred {
                        continue;
                    }
                    match self.standing(&tuple, tries - step) {
                        Standing::Free => return self.selected(tuple, None),
                        Standing::Taken => {}
                        Standing::Evictable(record) if any_order => {
                            evictable = evictable.or(Some((tuple, record)));
                        }
                        Standing::Evictable(record) => return self.selected(tuple, Some(record)),
                    }
                }
                if !any_order {
                    break;
                }
            }
            if let Some((tuple, record)) = evictable {
                return self.selected(tuple, Some(record));
            }
            if tries >= size || tries < LAST_ROUND {
                return self.selected(tuple, None);
            }
            tries /= 2;
            offset = rng() as u16;
        }
    }

    /// Lowest candidate and their number; `None` where the port must not change.
    fn ports(&self, tuple: &Tuple) -> Option<(u16, u32)> {
        let Wanted { range, manip, gre_child, .. } = *self.wanted;
        let given = range.ports.map(|(a, b)| (a.min(b), a.max(b)));
        let (low, high) = match tuple.proto {
            proto::ICMP | proto::ICMPV6 => given.unwrap_or((0, u16::MAX)),
            proto::GRE if gre_child => given.unwrap_or((1, u16::MAX)),
            proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => match given {
                Some(given) => given,
                None if manip == Manip::Dst => return None,
                // By old convention a low source port shows a privileged sender.
                None => match tuple.src_id {
                    0..=511 => (1, 511),
                    512..=1023 => (600, 1023),
                    1024.. => (1024, u16::MAX),
                },
            },
            _ => return None,
        };
        Some((low, (high - low) as u32 + 1))
    }

    fn prefers(&self, tuple: &Tuple) -> bool {
        tuple.inverted().is_none_or(|reply| self.claims.prefers(&reply))
    }

    /// The conn that stands in the way of `tuple`, not counting one of the very same original
    /// tuple: two packets of one conn raced, and confirm joins them (`nf_conntrack_tuple_taken`).
    fn holder(&mut self, tuple: &Tuple) -> Option<Holder<C::Record>> {
        let holder = self.claims.holder(&tuple.inverted()?)?;
        (holder.original != *self.wanted.orig).then(|| {
            self.found = self.found.saturating_add(1);
            holder
        })
    }

    fn taken(&mut self, tuple: &Tuple) -> bool {
        self.holder(tuple).is_some()
    }

    /// The same for the untouched tuple: of protocols that tolerate a clash the exact mirror of an
    /// untranslated conn is no obstacle, because both sides spoke first and confirm joins the two
    /// (`nf_nat_used_tuple_new`).
    fn taken_for_good(&mut self, tuple: &Tuple) -> bool {
        let Some(holder) = self.holder(tuple) else { return false };
        let plain = self.wanted.current == self.wanted.orig;
        let mirror = holder.direction == Direction::Original
            && tuple.inverted() == Some(holder.original)
            && holder.status.0 & TRANSLATED.0 == 0;
        !(proto::allows_clash(tuple.proto) && plain && mirror)
    }

    /// The same with `left` tries to go in this round (`nf_nat_used_tuple_harder`).
    fn standing(&mut self, tuple: &Tuple, left: u32) -> Standing<C::Record> {
        let Some(holder) = self.holder(tuple) else { return Standing::Free };
        match (self.wanted.syn_end, holder.tcp) {
            (Some(new_end), Some((state, old_end)))
                if left <= EVICT_TRIES
                    && tuple.proto == proto::TCP
                    && holder.direction == Direction::Reply
                    && state >= TCP_TIME_WAIT
                    && holder.status.has(Status::SRC_NAT)
                    && holder.status.0 & UNTOUCHABLE.0 == 0
                    // The peer may still hold TIME_WAIT: only a later sequence reopens it.
                    && (new_end.wrapping_sub(old_end) as i32) > 0 =>
            {
                Standing::Evictable(holder.record)
            }
            _ => Standing::Taken,
        }
    }
}

const TRANSLATED: Status = Status::SRC_NAT.with(Status::DST_NAT).with(Status::SEQ_ADJUST);
const UNTOUCHABLE: Status = Status::FIXED_TIMEOUT.with(Status::DYING);

/// True if the source of `tuple` satisfies the range (`nf_in_range`).
fn in_range(tuple: &Tuple, range: &Range) -> bool {
    range.addresses.is_none_or(|(low, high)| (low..=high).contains(&tuple.src))
        && range.ports.is_none_or(|(low, high)| id_in_range(tuple, Manip::Src, low, high))
}

/// `l4proto_in_range`; protocols without ports always satisfy.
fn id_in_range(tuple: &Tuple, manip: Manip, low: u16, high: u16) -> bool {
    match tuple.proto {
        proto::ICMP
        | proto::ICMPV6
        | proto::GRE
        | proto::TCP
        | proto::UDP
        | proto::UDPLITE
        | proto::SCTP
        | proto::DCCP => (low..=high).contains(&id(tuple, manip)),
        _ => true,
    }
}

/// The port that `manip` changes; an ICMP identifier is the same for either end.
fn id(tuple: &Tuple, manip: Manip) -> u16 {
    match (manip, tuple.proto) {
        (Manip::Src, _) | (_, proto::ICMP | proto::ICMPV6) => tuple.src_id,
        (Manip::Dst, _) => tuple.dst_id,
    }
}

fn set_id(tuple: &mut Tuple, manip: Manip, to: u16) {
    match (manip, tuple.proto) {
        (Manip::Src, _) | (_, proto::ICMP | proto::ICMPV6) => tuple.src_id = to,
        (Manip::Dst, _) => tuple.dst_id = to,
    }
}

/// Spreads sources over a pool (`find_best_ips_proto`): by the hash of the source, and unless
/// `--persistent` of the destination and zone too, scaled to the pool word by word.
fn choose_address(tuple: &mut Tuple, (low, high): (Address, Address), wanted: &Wanted<'_>) {
    let chosen = if low == high { low } else { spread(tuple, low, high, wanted) };
    match wanted.manip {
        Manip::Src => tuple.src = chosen,
        Manip::Dst => tuple.dst = chosen,
    }
}

fn spread(tuple: &Tuple, low: Address, high: Address, wanted: &Wanted<'_>) -> Address {
    let persistent = wanted.range.persistent;
    if low.is_v4() {
        let salt = salt(tuple.dst.v4_bits(), persistent, wanted.zone);
        return Address::v4(spread_v4(tuple.src.v4_bits(), low.v4_bits(), high.v4_bits(), salt));
    }
    let [src, mut dst, low, high] = [tuple.src, tuple.dst, low, high].map(words);
    let mut hash = lookup3(src.map(u32::to_be), salt(dst[3], persistent, wanted.zone));
    let mut chosen = [0; 4];
    // Below a word that is not at its upper end the others are free to take any value.
    let mut free = false;
    for i in 0..4 {
        let (least, count) = match free {
            true => (0, u32::MAX),
            false => (low[i], high[i].wrapping_sub(low[i]).wrapping_add(1)),
        };
        chosen[i] = least.wrapping_add(scale(hash, count));
        free |= chosen[i] != high[i];
        if wanted.manip == Manip::Dst {
            dst[i] = chosen[i];
        }
        if !persistent {
            hash ^= dst[i].to_be();
        }
    }
    Address::v6(chosen.iter().fold(0, |bits, &word| bits << 32 | word as u128))
}

/// What spreads the conns of one source, by the last word of their destination and their zone.
fn salt(dst: u32, persistent: bool, zone: u16) -> u32 {
    if persistent { 0 } else { dst.to_be() ^ zone as u32 }
}

fn spread_v4(src: u32, low: u32, high: u32, salt: u32) -> u32 {
    let hash = lookup3([src.to_be(), 0, 0, 0], salt);
    low.wrapping_add(scale(hash, high.wrapping_sub(low).wrapping_add(1)))
}

fn words(address: Address) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| (address.bits() >> shift) as u32)
}

/// A hash scaled to `0..count` (`reciprocal_scale`).
fn scale(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

/// Bob Jenkins' lookup3 over four words, as the kernel's `jhash2` runs it on this kind of machine.
fn lookup3(key: [u32; 4], seed: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(4 << 2).wrapping_add(seed);
    let [mut a, mut b, mut c] = [key[0], key[1], key[2]].map(|word| start.wrapping_add(word));
    for turn in [4, 6, 8, 16, 19, 4] {
        a = a.wrapping_sub(c) ^ c.rotate_left(turn);
        c = c.wrapping_add(b);
        (a, b, c) = (b, c, a);
    }
    a = a.wrapping_add(key[3]);
    for turn in [14, 11, 25, 16, 4, 14, 24] {
        c = (c ^ b).wrapping_sub(b.rotate_left(turn));
        (a, b, c) = (b, c, a);
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    type Entry = (Tuple, Tuple, Status, Option<(u8, u32)>);

    /// A table of conns given by (original, reply), newest last, all confirmed.
    #[derive(Default)]
    struct Table {
        conns: Vec<Entry>,
        asked: Cell<usize>,
        /// Takes every reply tuple there is.
        full: bool,
        preferred_port: Option<u16>,
    }

    impl Claims for Table {
        type Record = usize;

        fn holder(&self, reply: &Tuple) -> Option<Holder<usize>> {
            self.asked.set(self.asked.get() + 1);
            if self.full {
                let (original, tcp) = (Tuple::default(), None);
                let (direction, status) = (Direction::Reply, Status::SRC_NAT);
                return Some(Holder { record: 0, original, direction, status, tcp });
            }
            self.conns.iter().enumerate().find_map(|(record, &(original, back, status, tcp))| {
                let direction = match () {
                    () if original == *reply => Direction::Original,
                    () if back == *reply => Direction::Reply,
                    () => return None,
                };
                Some(Holder { record, original, direction, status, tcp })
            })
        }

        fn same_source(&self, current: &Tuple, visit: &mut dyn FnMut(&Tuple) -> ControlFlow<()>) {
            for (original, reply, ..) in self.conns.iter().rev() {
                if (original.proto, original.src, original.src_id)
                    == (current.proto, current.src, current.src_id)
                    && visit(reply).is_break()
                {
                    return;
                }
            }
        }

        fn prefers(&self, reply: &Tuple) -> bool {
            self.preferred_port.is_none_or(|port| reply.dst_id == port)
        }
    }

    impl Table {
        fn select(&self, orig: Tuple, range: Range, manip: Manip) -> Selected<usize> {
            let mut seed = 12345 + self.conns.len() as u32 * 77 + range.random as u32;
            let mut rng = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed >> 16
            };
            unique_tuple(&wanted(&orig, &range, manip), self, &mut rng)
        }

        fn add(&mut self, orig: Tuple, selected: &Selected<usize>) {
            let reply = selected.tuple.inverted().unwrap();
            let status = if selected.tuple == orig { Status(0) } else { Status::SRC_NAT };
            self.conns.push((orig, reply, status, None));
        }
    }

    fn wanted<'a>(orig: &'a Tuple, range: &'a Range, manip: Manip) -> Wanted<'a> {
        Wanted { orig, current: orig, range, manip, zone: 0, syn_end: None, gre_child: false }
    }

    fn v4(a: u8, b: u8, c: u8, d: u8) -> Address {
        Address::v4(u32::from_be_bytes([a, b, c, d]))
    }

    fn v6(text: &str) -> Address {
        text.parse::<core::net::Ipv6Addr>().unwrap().into()
    }

    fn client(last: u8, port: u16, proto: u8) -> Tuple {
        let dst = v4(198, 51, 100, 7);
        Tuple { src: v4(10, 0, 0, last), dst, src_id: port, dst_id: 53, proto }
    }

    fn single(address: Address) -> Range {
        Range { addresses: Some((address, address)), ..Range::default() }
    }

    const PUBLIC: Address = Address::v4(0xcb00_713c);

    #[test]
    fn pool_addresses_are_those_that_linux_6_18_chose() {
        let pool = (v4(203, 0, 113, 10), v4(203, 0, 113, 50));
        let range = Range { addresses: Some(pool), ..Range::default() };
        let table = Table::default();
        let seen = |last: u8, dst: u8, persistent| {
            let orig = Tuple { dst: v4(198, 51, 100, dst), ..client(last, 4000, proto::UDP) };
            let range = Range { persistent, ..range };
            table.select(orig, range, Manip::Src).tuple.src.v4_bits() & 0xff
        };
        assert_eq!([1, 2, 3, 4].map(|c| seen(c, 7, false)), [15, 46, 11, 38]);
        assert_eq!([1, 2, 3, 4].map(|c| seen(c, 8, false)), [27, 30, 15, 33]);
        assert_eq!([1, 2, 3, 4].map(|c| seen(c, 8, true)), [21, 50, 43, 19]);
        assert_eq!([1, 2, 3, 4].map(|c| seen(c, 99, true)), [21, 50, 43, 19]);

        let pool = (v4(198, 51, 100, 100), v4(198, 51, 100, 120));
        let range = Range { addresses: Some(pool), ..Range::default() };
        let seen = |last: u8| {
            let orig = Tuple { dst: v4(198, 51, 100, 31), ..client(last, 6200, proto::UDP) };
            table.select(orig, range, Manip::Dst).tuple.dst.v4_bits() & 0xff
        };
        assert_eq!([1, 2, 3].map(seen), [120, 102, 116]);
    }

    #[test]
    fn ipv6_pool_addresses_are_those_that_linux_6_18_chose() {
        let pool = (v6("2001:db8:1::10"), v6("2001:db8:1::2:5"));
        let table = Table::default();
        let seen = |last: u8, persistent| {
            let src = Address::v6(v6("fd00::").bits() | last as u128);
            let orig = Tuple { src, dst: v6("2001:db8::7"), ..client(0, 4000, proto::UDP) };
            let range = Range { addresses: Some(pool), persistent, ..Range::default() };
            table.select(orig, range, Manip::Src).tuple.src.to_string()
        };
        let spread = [1, 2, 3, 4].map(|c| seen(c, false));
        let golden = ["d635", "1:ba52", "1:d139", "1:381"].map(|s| format!("2001:db8:1::{s}"));
        assert_eq!(spread, golden);
        let spread = [1, 2, 3, 4].map(|c| seen(c, true));
        let golden = ["1:b132", "2de8", "1:8cb", "1:89f4"].map(|s| format!("2001:db8:1::{s}"));
        assert_eq!(spread, golden);
    }

    #[test]
    fn lookup3_of_known_words() {
        assert_eq!(lookup3([0; 4], 0), 0xbaf9_078c);
        assert_eq!(lookup3([1, 2, 3, 4], 5), 0x7355_8c35);
    }

    #[test]
    fn the_port_stays_until_it_is_taken_and_then_keeps_its_class() {
        for (port, class) in [(100, 1..=511), (700, 600..=1023), (5000, 1024..=u16::MAX)] {
            let mut table = Table::default();
            let first = table.select(client(1, port, proto::UDP), single(PUBLIC), Manip::Src);
            assert_eq!((first.tuple.src, first.tuple.src_id), (PUBLIC, port));
            table.add(client(1, port, proto::UDP), &first);
            let second = table.select(client(2, port, proto::UDP), single(PUBLIC), Manip::Src);
            assert_ne!(second.tuple.src_id, port);
            assert!(class.contains(&second.tuple.src_id), "{second:?}");
            assert_eq!(second.found, 1);
        }
    }

    #[test]
    fn a_source_keeps_its_mapping_towards_other_destinations() {
        let mut table = Table::default();
        for last in [1, 2] {
            let orig = client(last, 5000, proto::UDP);
            let selected = table.select(orig, single(PUBLIC), Manip::Src);
            table.add(orig, &selected);
        }
        let mapped = table.conns[1].1.dst_id;
        assert_ne!(mapped, 5000);
        let elsewhere = Tuple { dst: v4(198, 51, 100, 9), ..client(2, 5000, proto::UDP) };
        let again = table.select(elsewhere, single(PUBLIC), Manip::Src);
        assert_eq!((again.tuple.src_id, again.tuple.dst), (mapped, elsewhere.dst));
        // Not with --random, and not into another range.
        let random = Range { random: true, ..single(PUBLIC) };
        assert_ne!(table.select(elsewhere, random, Manip::Src).tuple.src_id, mapped);
        let other = single(v4(203, 0, 113, 61));
        assert_eq!(table.select(elsewhere, other, Manip::Src).tuple.src_id, 5000);
    }

    #[test]
    fn destinations_take_the_lowest_free_port_of_their_range() {
        let mut table = Table::default();
        let server = v4(198, 51, 100, 99);
        let range = Range { ports: Some((8000, 8010)), ..single(server) };
        for i in 0..4u8 {
            let dst = v4(198, 51, 100, 20 + i);
            let orig = Tuple { dst, dst_id: 1003, ..client(1, 6000, proto::UDP) };
            let selected = table.select(orig, range, Manip::Dst);
            assert_eq!((selected.tuple.dst, selected.tuple.dst_id), (server, 8000 + i as u16));
            table.add(orig, &selected);
        }
    }

    #[test]
    fn an_offset_moves_the_range_and_a_destination_without_ports_keeps_its_own() {
        let server = v4(198, 51, 100, 98);
        let range = Range { ports: Some((8000, 8010)), base_port: Some(7000), ..single(server) };
        let orig = |port| Tuple { dst_id: port, ..client(1, 6100, proto::TCP) };
        let table = Table::default();
        for i in 0..3 {
            assert_eq!(table.select(orig(7000 + i), range, Manip::Dst).tuple.dst_id, 8000 + i);
        }
        let full = Table { full: true, ..Table::default() };
        assert_eq!(full.select(orig(80), single(server), Manip::Dst).tuple.dst_id, 80);
        // One forwarded port is kept without asking who else uses it.
        let one = Range { ports: Some((80, 80)), ..single(server) };
        let selected = full.select(orig(80), one, Manip::Dst);
        assert_eq!((selected.tuple.dst_id, selected.found), (80, 0));
    }

    #[test]
    fn the_search_is_bounded_and_a_small_range_is_searched_whole() {
        let full = Table { full: true, ..Table::default() };
        full.select(client(1, 5000, proto::TCP), single(PUBLIC), Manip::Src);
        assert_eq!(full.asked.get(), 1 + 128 + 64 + 32 + 16 + 8);

        let range = Range { ports: Some((2000, 2099)), random: true, ..single(PUBLIC) };
        let mut table = Table::default();
        for i in 0..100 {
            let orig = client(i, 5000, proto::TCP);
            let selected = table.select(orig, range, Manip::Src);
            assert!(table.holder(&selected.tuple.inverted().unwrap()).is_none());
            table.add(orig, &selected);
        }
        let late = table.select(client(100, 5000, proto::TCP), range, Manip::Src);
        assert!((2000..=2099).contains(&late.tuple.src_id), "the last candidate is kept");
    }

    #[test]
    fn a_finished_tcp_conn_gives_up_its_port_to_a_later_sequence() {
        let range = Range { ports: Some((2000, 2001)), ..single(PUBLIC) };
        let mut table = Table::default();
        for i in 1..=2 {
            let orig = client(i, 5000, proto::TCP);
            let selected = table.select(orig, range, Manip::Src);
            table.add(orig, &selected);
        }
        let orig = client(3, 5000, proto::TCP);
        let attempt = |table: &Table, syn_end| {
            let asked = Wanted { syn_end, ..wanted(&orig, &range, Manip::Src) };
            unique_tuple(&asked, table, &mut || 0).evict
        };
        table.conns[1].3 = Some((TCP_TIME_WAIT, 1000));
        assert_eq!(attempt(&table, Some(1001)), Some(1));
        assert_eq!(attempt(&table, Some(1000)), None, "sequence is not ahead");
        assert_eq!(attempt(&table, None), None, "not a SYN");
        table.conns[1].2 = Status::SRC_NAT.with(Status::DYING);
        assert_eq!(attempt(&table, Some(1001)), None, "dying already");
        table.conns[1].2 = Status::SRC_NAT;
        table.conns[1].3 = Some((TCP_TIME_WAIT - 1, 1000));
        assert_eq!(attempt(&table, Some(1001)), None, "still in LAST_ACK");
    }

    #[test]
    fn mirrors_and_twins_of_untranslated_conns_are_left_to_confirm() {
        let orig = client(1, 5000, proto::UDP);
        let mirror = orig.inverted().unwrap();
        let range = null_binding(&orig, Manip::Src);
        let with = |conn: (Tuple, Tuple), status| Table {
            conns: vec![(conn.0, conn.1, status, None)],
            ..Table::default()
        };
        let table = with((mirror, orig), Status(0));
        assert_eq!(table.select(orig, range, Manip::Src).tuple, orig);
        let table = with((orig, mirror), Status(0));
        assert_eq!(table.select(orig, range, Manip::Src).tuple, orig);
        let table = with((mirror, orig), Status::DST_NAT);
        assert_ne!(table.select(orig, range, Manip::Src).tuple, orig);
        let tcp = |t: Tuple| Tuple { proto: proto::TCP, ..t };
        let table = with((tcp(mirror), tcp(orig)), Status(0));
        assert_ne!(table.select(tcp(orig), range, Manip::Src).tuple, tcp(orig));
    }

    #[test]
    fn a_null_binding_moves_only_the_port_out_of_the_way() {
        let theirs = client(2, 5000, proto::UDP);
        let mut table = Table::default();
        // A client behind us already appears as 10.0.0.1:5000.
        let selected = table.select(theirs, single(v4(10, 0, 0, 1)), Manip::Src);
        table.add(theirs, &selected);
        let orig = client(1, 5000, proto::UDP);
        let own = table.select(orig, null_binding(&orig, Manip::Src), Manip::Src);
        assert_eq!(own.tuple.src, orig.src);
        assert!(own.tuple.src_id >= 1024 && own.tuple.src_id != 5000);
    }

    #[test]
    fn preferred_ports_come_first_where_any_would_do() {
        let range = Range { ports: Some((2000, 2063)), random: true, ..single(PUBLIC) };
        let table = Table { preferred_port: Some(2042), ..Table::default() };
        let orig = client(1, 5000, proto::TCP);
        let selected = table.select(orig, range, Manip::Src);
        assert_eq!(selected.tuple.src_id, 2042);
        let mut table = table;
        table.add(orig, &selected);
        let next = table.select(client(2, 5000, proto::TCP), range, Manip::Src);
        assert_ne!(next.tuple.src_id, 2042);
        assert_eq!(next.found, 1);
    }

    #[test]
    fn protocols_without_ports_change_their_address_only() {
        let orig = Tuple { src_id: 0, dst_id: 0, ..client(1, 0, proto::GRE) };
        let full = Table { full: true, ..Table::default() };
        for proto in [proto::GRE, 50] {
            let orig = Tuple { proto, ..orig };
            let selected = full.select(orig, single(PUBLIC), Manip::Src);
            assert_eq!(selected.tuple, Tuple { src: PUBLIC, ..orig });
        }
    }

    proptest! {
        #[test]
        fn who_is_alone_gets_what_the_search_would_choose(
            (src, dst, low, len) in (0..64u32, any::<u32>(), 0..64u32, 0..8u32), ids: [u16; 2],
            (random, persistent, narrow) in any::<(bool, bool, bool)>(), zone: u16,
        ) {
            let pool = (Address::v4(low), Address::v4(low + len));
            let ports = narrow.then_some((2000, 3000));
            let range =
                Range { addresses: Some(pool), ports, base_port: None, random, persistent };
            let [src, dst] = [src, dst].map(Address::v4);
            let orig = Tuple { src, dst, src_id: ids[0], dst_id: ids[1], proto: proto::UDP };
            let asked = Wanted { zone, ..wanted(&orig, &range, Manip::Src) };
            let selected = unique_tuple(&asked, &Table::default(), &mut || 0);
            let at_once = undisturbed(&KeyV4::of(&orig), &range, zone).map(|key| key.tuple());
            let plain = !random && !narrow && !in_range(&orig, &range);
            prop_assert_eq!(at_once, plain.then_some(selected.tuple));
        }

        #[test]
        fn the_choice_stays_within_the_range(
            (src, dst, low, len) in any::<(u32, u32, u32, u16)>(), ids: [u16; 2],
            ports in proptest::option::of((any::<u16>(), any::<u16>())),
            (random, persistent, source) in any::<(bool, bool, bool)>(),
            numbers: [u32; 5], held: bool,
            proto in prop_oneof![Just(1u8), Just(6), Just(17), Just(132), Just(50)],
        ) {
            let low = low & 0x7fff_ffff;
            let pool = (Address::v4(low), Address::v4(low + len as u32));
            let ports = ports.map(|(a, b)| (a.min(b), a.max(b)));
            let range =
                Range { addresses: Some(pool), ports, base_port: None, random, persistent };
            let manip = if source { Manip::Src } else { Manip::Dst };
            let dst_id = if proto == 1 { 0x0800 } else { ids[1] };
            let (src, dst) = (Address::v4(src), Address::v4(dst));
            let orig = Tuple { src, dst, src_id: ids[0], dst_id, proto };
            let table = Table { full: held, ..Table::default() };
            let mut numbers = numbers.into_iter().cycle();
            let selected = unique_tuple(
                &wanted(&orig, &range, manip), &table, &mut || numbers.next().unwrap());
            let t = selected.tuple;
            let (changed, kept) = if source { (t.src, t.dst) } else { (t.dst, t.src) };
            prop_assert!((pool.0..=pool.1).contains(&changed));
            prop_assert_eq!(kept, if source { dst } else { src });
            if let (Some((low, high)), true) = (ports, proto != 50) {
                prop_assert!((low..=high).contains(&id(&t, manip)));
            }
            prop_assert!(table.asked.get() <= 1 + 1 + 248);
        }
    }
}
