//! Where a packet goes: to the gateway itself, to everybody on a link, onwards by the longest
//! prefix, or nowhere, and which addresses may not appear on a wire at all.
//!
//! [`Routes`] is built by the control core from addresses and routes, is immutable, and is part of
//! the snapshot that workers read. The prefixes of a family (own addresses and broadcast addresses
//! among them) are cut into disjoint intervals, sorted by where they start, so the longest match is
//! one binary search: two or three steps for a small gateway, eighteen for 100 000 prefixes.
//! Building sorts once.
//!
//! Bounds: at most [`ROUTES_MAX`] addresses and routes together; n prefixes make at most 2n + 1
//! intervals of 8 bytes for IPv4 and 20 bytes for IPv6 (1.6 MB and 4 MB for 100 000 prefixes).
//!
//! The judgements are those of Linux 6.18 with forwarding on and `rp_filter`, `accept_local`,
//! `route_localnet`, `bc_forwarding` and multicast routing off, each observed there. So the lowest
//! address of an IPv4 subnet is a host like any other, 0.1.2.3 and 240.0.0.1 are ordinary
//! addresses, and a broadcast address of another port is still a broadcast. Forwarding of frames
//! that came as link-layer broadcast or multicast is refused by the caller, who knows the frame.

use core::cmp::Reverse;
use core::fmt;
use std::collections::BTreeMap;

use crate::wire::address::Address;

/// Most addresses and routes together.
pub const ROUTES_MAX: usize = 1 << 20;

/// An address of a port with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// The port.
    pub port: u8,
    /// Its own address.
    pub address: Address,
    /// Bits of the connected prefix: 0 to 32 or 0 to 128.
    pub prefix_len: u8,
}

/// What is done with packets that match a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteKind {
    /// Send them.
    Unicast,
    /// Drop them silently.
    Blackhole,
    /// Answer with ICMP host unreachable (IPv6: no route).
    Unreachable,
    /// Answer with ICMP administratively prohibited.
    Prohibit,
}

/// A route to a prefix, as configured or learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// Lowest address of the prefix.
    pub to: Address,
    /// Bits of the prefix.
    pub prefix_len: u8,
    /// The gateway; `None` if the destinations are on the link.
    pub via: Option<Address>,
    /// The port to send by; ignored unless the kind is unicast.
    pub port: u8,
    /// Of equal prefixes the lowest metric wins, then the first given.
    pub metric: u32,
    /// What happens to the packets.
    pub kind: RouteKind,
}

/// A way onwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The port to send by.
    pub port: u8,
    /// The gateway; `None` if the destination itself is on the link.
    pub via: Option<Address>,
}

/// Why a packet has no way onwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoWay {
    /// No route: ICMP network unreachable (IPv6: no route).
    NoRoute,
    /// A blackhole route: silence.
    Blackhole,
    /// An unreachable route: ICMP host unreachable (IPv6: no route).
    Unreachable,
    /// A prohibit route: ICMP administratively prohibited.
    Prohibit,
}

/// What an address is to this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// One of its own, on this port (for IPv6 also the subnet-router anycast address).
    Local(u8),
    /// 255.255.255.255 or the broadcast address of a subnet; for the host only, never forwarded.
    Broadcast,
    /// A group; the gateway listens only to those it has to.
    Multicast {
        /// The gateway is a member on the port that was asked for.
        joined: bool,
    },
    /// Somebody else's.
    Forward(Route),
    /// Nobody's.
    Unreachable(NoWay),
}

/// Why addresses that a packet carries must not come from a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Martian {
    /// IPv4 source is a group.
    SourceMulticast,
    /// IPv4 source is 255.255.255.255, or a subnet's broadcast address and the packet would leave
    /// by the port it came from.
    SourceBroadcast,
    /// IPv4 source 0.0.0.0 to a unicast address or a subnet's broadcast address.
    SourceZero,
    /// IPv4 source in 127/8.
    SourceLoopback,
    /// IPv4 source is one of the gateway's own addresses.
    SourceLocal,
    /// IPv4 destination 0.0.0.0.
    DestinationZero,
    /// IPv4 destination in 127/8.
    DestinationLoopback,
    /// IPv6 source `::` on a packet that would be forwarded to another port.
    SourceUnspecified,
    /// IPv6 link-local source on a packet that would be forwarded to another port; answered with
    /// ICMPv6 beyond scope (RFC 4443 section 3.1, code 2).
    SourceLinkLocal,
}

/// Why a table cannot be built. `index` counts within the addresses or the routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// More than [`ROUTES_MAX`] addresses and routes.
    TooMany,
    /// The prefix of this address is longer than its family has bits.
    AddressPrefix {
        /// Which address.
        index: usize,
    },
    /// Not a unicast address.
    NotUnicast {
        /// Which address.
        index: usize,
    },
    /// The prefix of this route is longer than its family has bits.
    RoutePrefix {
        /// Which route.
        index: usize,
    },
    /// Bits below the prefix are set.
    HostBits {
        /// Which route.
        index: usize,
    },
    /// The gateway of this route is of the other family.
    GatewayFamily {
        /// Which route.
        index: usize,
    },
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RouteError::TooMany => write!(f, "more than {ROUTES_MAX} addresses and routes"),
            RouteError::AddressPrefix { index } => {
                write!(f, "address {index}: prefix longer than the address")
            }
            RouteError::NotUnicast { index } => write!(f, "address {index}: not unicast"),
            RouteError::RoutePrefix { index } => {
                write!(f, "route {index}: prefix longer than the address")
            }
            RouteError::HostBits { index } => write!(f, "route {index}: host bits are set"),
            RouteError::GatewayFamily { index } => {
                write!(f, "route {index}: gateway and prefix are of different families")
            }
        }
    }
}

impl std::error::Error for RouteError {}

/// The routing table of one snapshot.
#[derive(Debug)]
pub struct Routes {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
    /// What an interval can stand for; the intervals hold indexes into it.
    targets: Box<[Destination]>,
    /// Own IPv6 link-local addresses, sorted; each is only its own port's.
    link_local: Box<[(u128, u8)]>,
    /// Solicited-node groups joined (low 24 bits) by port, sorted.
    solicited: Box<[(u8, u32)]>,
    /// Bit n is set if an own IPv4 address is n modulo 64: most sources need no search.
    own_v4: u64,
}

impl Routes {
    /// Builds the table. An address brings its connected prefix and, for IPv4 prefixes shorter than
    /// 31 bits, the broadcast address; for IPv6 prefixes shorter than 127 bits the anycast address.
    pub fn new(addresses: &[PortAddress], routes: &[StaticRoute]) -> Result<Routes, RouteError> {
        if addresses.len().saturating_add(routes.len()) > ROUTES_MAX {
            return Err(RouteError::TooMany);
        }
        let mut builder = Builder::default();
        for (index, address) in addresses.iter().enumerate() {
            builder.address(index, address)?;
        }
        for (index, route) in routes.iter().enumerate() {
            builder.route(index, route)?;
        }
        Ok(builder.finish())
    }

    /// The way to an address, if it is somebody else's.
    #[inline]
    pub fn lookup(&self, dst: Address) -> Option<Route> {
        match self.classify(dst, None) {
            Destination::Forward(route) => Some(route),
            _ => None,
        }
    }

    /// What `dst` is. Link-local addresses and groups mean something only on a port: `port` is
    /// where the packet came from, or where a packet of the gateway's own is bound to.
    #[inline]
    pub fn classify(&self, dst: Address, port: Option<u8>) -> Destination {
        let target = if dst.is_v4() {
            let bits = dst.v4_bits();
            if bits == u32::MAX {
                return Destination::Broadcast;
            }
            if is_multicast_v4(bits) {
                return Destination::Multicast { joined: bits == ALL_SYSTEMS };
            }
            self.v4.find(bits)
        } else {
            let bits = dst.bits();
            if bits >> 120 == 0xff {
                return Destination::Multicast { joined: self.listens(bits, port) };
            }
            if is_link_local(bits) {
                return self.link_local(bits, port);
            }
            self.v6.find(bits)
        };
        self.destination(target)
    }

    /// What a search has found.
    #[inline(always)]
    fn destination(&self, target: u32) -> Destination {
        match self.targets.get(target as usize) {
            Some(destination) => *destination,
            None => Destination::Unreachable(NoWay::NoRoute),
        }
    }

    /// Judges the addresses of a packet that came in by `in_port` and says where it goes
    /// (`ip_route_input_slow`, `ip6_forward`). What IPv6 forbids before routing is the parser's.
    #[inline]
    pub fn judge(&self, src: Address, dst: Address, in_port: u8) -> Result<Destination, Martian> {
        if dst.is_v4() {
            return self.judge_v4(src, dst, in_port);
        }
        let to = self.classify(dst, Some(in_port));
        match to {
            // The kernel asks only when another port would see the packet.
            Destination::Forward(route) if route.port != in_port => match src.bits() {
                0 => Err(Martian::SourceUnspecified),
                bits if is_link_local(bits) => Err(Martian::SourceLinkLocal),
                _ => Ok(to),
            },
            _ => Ok(to),
        }
    }

    #[inline]
    fn judge_v4(&self, src: Address, dst: Address, in_port: u8) -> Result<Destination, Martian> {
        let (from, to) = (src.v4_bits(), dst.v4_bits());
        let group = is_multicast_v4(to);
        if group && to != ALL_SYSTEMS {
            return Ok(Destination::Multicast { joined: false });
        }
        if is_multicast_v4(from) {
            return Err(Martian::SourceMulticast);
        }
        if from == u32::MAX {
            return Err(Martian::SourceBroadcast);
        }
        // A host without an address may speak to everybody (DHCP) and to all systems (IGMP).
        let everybody = to == u32::MAX || (from == 0 && to == 0);
        if everybody || group {
            return match () {
                () if group && from >> 24 == LOOPBACK => Err(Martian::SourceLoopback),
                () if self.is_own_v4(src) => Err(Martian::SourceLocal),
                () if group => Ok(Destination::Multicast { joined: true }),
                () => Ok(Destination::Broadcast),
            };
        }
        if from == 0 {
            return Err(Martian::SourceZero);
        }
        if to == 0 {
            return Err(Martian::DestinationZero);
        }
        if to >> 24 == LOOPBACK {
            return Err(Martian::DestinationLoopback);
        }
        if from >> 24 == LOOPBACK {
            return Err(Martian::SourceLoopback);
        }
        let to = self.destination(self.v4.find(to));
        self.validate(src, &to, in_port)?;
        Ok(to)
    }

    /// `fib_validate_source` without `rp_filter`, which comes after the destination was found.
    #[inline(always)]
    fn validate(&self, src: Address, to: &Destination, in_port: u8) -> Result<(), Martian> {
        match to {
            Destination::Unreachable(_) => Ok(()),
            _ if self.is_own_v4(src) => Err(Martian::SourceLocal),
            Destination::Forward(route)
                if route.port == in_port && self.classify(src, None) == Destination::Broadcast =>
            {
                Err(Martian::SourceBroadcast)
            }
            _ => Ok(()),
        }
    }

    /// True for an IPv4 address of the gateway.
    #[inline]
    fn is_own_v4(&self, address: Address) -> bool {
        let bits = address.v4_bits();
        (self.own_v4 >> (bits & 63)) & 1 == 1
            && (bits == LOCALHOST || matches!(self.classify(address, None), Destination::Local(_)))
    }

    /// True if the gateway listens to an IPv6 group on this port: all nodes, all routers (RFC 4291
    /// section 2.8) and the solicited-node groups of its addresses there.
    fn listens(&self, group: u128, port: Option<u8>) -> bool {
        match group {
            ALL_NODES | ALL_ROUTERS | ALL_ROUTERS_SITE => true,
            _ if group >> 24 == SOLICITED_NODE => port.is_some_and(|port| {
                self.solicited.binary_search(&(port, group as u32 & 0xff_ffff)).is_ok()
            }),
            _ => false,
        }
    }

    fn link_local(&self, bits: u128, port: Option<u8>) -> Destination {
        match port {
            Some(port) if self.link_local.binary_search(&(bits, port)).is_ok() => {
                Destination::Local(port)
            }
            // Only fe80::/64 is connected to a link; the rest of fe80::/10 has no route.
            Some(port) if bits >> 64 == LINK_LOCAL_PREFIX => {
                Destination::Forward(Route { port, via: None })
            }
            _ => Destination::Unreachable(NoWay::NoRoute),
        }
    }
}

const LOOPBACK: u32 = 127;
const LOCALHOST: u32 = 0x7f00_0001;
const ALL_SYSTEMS: u32 = 0xe000_0001;
const ALL_NODES: u128 = (0xff02 << 112) | 1;
const ALL_ROUTERS: u128 = (0xff02 << 112) | 2;
const ALL_ROUTERS_SITE: u128 = (0xff05 << 112) | 2;
/// `ff02::1:ff00:0/104` without its low 24 bits.
const SOLICITED_NODE: u128 = ((0xff02 << 112) | 0x1_ff00_0000) >> 24;
const LINK_LOCAL_PREFIX: u128 = 0xfe80 << 48;

#[inline]
const fn is_multicast_v4(bits: u32) -> bool {
    bits >> 28 == 0xe
}

/// `fe80::/10`.
#[inline]
const fn is_link_local(bits: u128) -> bool {
    bits >> 118 == 0xfe80 >> 6
}

/// Disjoint intervals that cover a family: each starts at `starts[i]`, ends before the next, and
/// means `values[i]`.
#[derive(Debug)]
struct Intervals<K> {
    starts: Box<[K]>,
    values: Box<[u32]>,
}

impl<K: Ord> Intervals<K> {
    #[inline]
    fn find(&self, key: K) -> u32 {
        let after = self.starts.partition_point(|start| *start <= key);
        self.values.get(after.wrapping_sub(1)).copied().unwrap_or(NOTHING)
    }
}

/// The target of intervals without a prefix.
const NOTHING: u32 = 0;

/// A prefix on its way into the table. Sorting brings the outer before the inner, and of equal
/// prefixes the best last.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    first: u128,
    len: u8,
    last: u128,
    rank: Rank,
    /// Metric, then order of appearance; the lower wins.
    order: Reverse<(u32, usize)>,
    target: u32,
}

/// Which of equal prefixes wins: the highest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Static,
    Connected,
    Shared,
    Own,
}

struct Builder {
    v4: Vec<Prefix>,
    v6: Vec<Prefix>,
    numbers: BTreeMap<Destination, u32>,
    targets: Vec<Destination>,
    link_local: Vec<(u128, u8)>,
    solicited: Vec<(u8, u32)>,
    own_v4: u64,
}

impl Default for Builder {
    fn default() -> Builder {
        let nothing = Destination::Unreachable(NoWay::NoRoute);
        Builder {
            v4: Vec::new(),
            v6: Vec::new(),
            numbers: BTreeMap::from([(nothing, NOTHING)]),
            targets: vec![nothing],
            link_local: Vec::new(),
            solicited: Vec::new(),
            own_v4: 1 << (LOCALHOST & 63),
        }
    }
}

impl Builder {
    fn address(&mut self, index: usize, own: &PortAddress) -> Result<(), RouteError> {
        let PortAddress { port, address, prefix_len } = *own;
        if prefix_len > width(address) {
            return Err(RouteError::AddressPrefix { index });
        }
        if !is_unicast(address) {
            return Err(RouteError::NotUnicast { index });
        }
        let (first, last) = bounds(address, prefix_len);
        if address.is_v4() {
            self.own_v4 |= 1 << (address.v4_bits() & 63);
            if prefix_len < 31 {
                self.add(last, 32, Rank::Shared, (0, index), Destination::Broadcast);
            }
        } else {
            self.solicited.push((port, address.bits() as u32 & 0xff_ffff));
            if is_link_local(address.bits()) {
                self.link_local.push((address.bits(), port));
                return Ok(());
            }
            if prefix_len < 127 {
                self.solicited.push((port, first.bits() as u32 & 0xff_ffff));
                self.add(first, 128, Rank::Shared, (0, index), Destination::Local(port));
            }
        }
        let connected = Destination::Forward(Route { port, via: None });
        self.add(address, width(address), Rank::Own, (0, index), Destination::Local(port));
        self.add(first, prefix_len, Rank::Connected, (0, index), connected);
        Ok(())
    }

    fn route(&mut self, index: usize, route: &StaticRoute) -> Result<(), RouteError> {
        let StaticRoute { to, prefix_len, via, port, metric, kind } = *route;
        if prefix_len > width(to) {
            return Err(RouteError::RoutePrefix { index });
        }
        if bounds(to, prefix_len).0 != to {
            return Err(RouteError::HostBits { index });
        }
        if via.is_some_and(|via| via.is_v4() != to.is_v4()) {
            return Err(RouteError::GatewayFamily { index });
        }
        let destination = match kind {
            RouteKind::Unicast => Destination::Forward(Route { port, via }),
            RouteKind::Blackhole => Destination::Unreachable(NoWay::Blackhole),
            RouteKind::Unreachable => Destination::Unreachable(NoWay::Unreachable),
            RouteKind::Prohibit => Destination::Unreachable(NoWay::Prohibit),
        };
        self.add(to, prefix_len, Rank::Static, (metric, index), destination);
        Ok(())
    }

    fn add(&mut self, at: Address, len: u8, rank: Rank, order: (u32, usize), to: Destination) {
        let next = self.targets.len() as u32;
        let target = *self.numbers.entry(to).or_insert(next);
        if target == next {
            self.targets.push(to);
        }
        let (first, last) = bounds(at, len);
        let (family, [first, last]) = match at.is_v4() {
            true => (&mut self.v4, [first, last].map(|end| end.v4_bits() as u128)),
            false => (&mut self.v6, [first, last].map(Address::bits)),
        };
        family.push(Prefix { first, len, last, rank, order: Reverse(order), target });
    }

    fn finish(mut self) -> Routes {
        let v4 = cut(&mut self.v4, u32::MAX as u128);
        let v6 = cut(&mut self.v6, u128::MAX);
        self.link_local.sort_unstable();
        self.solicited.sort_unstable();
        Routes {
            v4: Intervals {
                starts: v4.iter().map(|&(start, _)| start as u32).collect(),
                values: v4.iter().map(|&(_, target)| target).collect(),
            },
            v6: Intervals {
                starts: v6.iter().map(|&(start, _)| start).collect(),
                values: v6.iter().map(|&(_, target)| target).collect(),
            },
            targets: self.targets.into(),
            link_local: self.link_local.into(),
            solicited: self.solicited.into(),
            own_v4: self.own_v4,
        }
    }
}

/// Cuts nested prefixes of a family that ends with `highest` into (start, target) of intervals.
fn cut(prefixes: &mut [Prefix], highest: u128) -> Vec<(u128, u32)> {
    prefixes.sort_unstable();
    let mut intervals = vec![(0, NOTHING)];
    let mut start = |at: u128, target: u32| match intervals.last_mut() {
        Some(last) if last.0 == at => last.1 = target,
        Some(last) if last.1 == target => {}
        _ => intervals.push((at, target)),
    };
    // The prefixes around the present point, innermost last.
    let mut open: Vec<(u128, u32)> = Vec::new();
    let around = |open: &[(u128, u32)]| open.last().map_or(NOTHING, |&(_, target)| target);
    for prefix in prefixes.iter() {
        while let Some(&(last, _)) = open.last()
            && last < prefix.first
        {
            open.pop();
            start(last + 1, around(&open));
        }
        start(prefix.first, prefix.target);
        open.push((prefix.last, prefix.target));
    }
    while let Some((last, _)) = open.pop() {
        if last < highest {
            start(last + 1, around(&open));
        }
    }
    intervals
}

/// Bits of an address of this family.
const fn width(address: Address) -> u8 {
    if address.is_v4() { 32 } else { 128 }
}

/// Lowest and highest address of a prefix.
fn bounds(address: Address, len: u8) -> (Address, Address) {
    if address.is_v4() {
        let host = u32::MAX.checked_shr(len as u32).unwrap_or(0);
        let bits = address.v4_bits();
        (Address::v4(bits & !host), Address::v4(bits | host))
    } else {
        let host = u128::MAX.checked_shr(len as u32).unwrap_or(0);
        (Address::v6(address.bits() & !host), Address::v6(address.bits() | host))
    }
}

/// True for an address that a port may have.
const fn is_unicast(address: Address) -> bool {
    if address.is_v4() {
        let bits = address.v4_bits();
        bits != 0 && bits != u32::MAX && !is_multicast_v4(bits) && bits >> 24 != LOOPBACK
    } else {
        address.bits() > 1 && address.bits() >> 120 != 0xff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;
    use proptest::prelude::*;

    fn ip(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn own(port: u8, text: &str) -> PortAddress {
        let (address, len) = text.split_once('/').unwrap();
        PortAddress { port, address: ip(address), prefix_len: len.parse().unwrap() }
    }

    fn route(to: &str, via: &str, port: u8, kind: RouteKind) -> StaticRoute {
        let (to, len) = to.split_once('/').unwrap();
        let via = (!via.is_empty()).then(|| ip(via));
        StaticRoute { to: ip(to), prefix_len: len.parse().unwrap(), via, port, metric: 0, kind }
    }

    const A: u8 = 1;
    const B: u8 = 2;

    /// The gateway whose behaviour was observed on Linux 6.18.
    fn gateway() -> Routes {
        Routes::new(
            &[
                own(A, "10.1.0.1/24"),
                own(B, "10.2.0.1/24"),
                own(A, "fd01::1/64"),
                own(B, "fd02::1/64"),
                own(A, "fe80::ff:fe00:101/64"),
                own(B, "fe80::ff:fe00:201/64"),
            ],
            &[
                route("0.0.0.0/0", "10.2.0.9", B, RouteKind::Unicast),
                route("::/0", "fd02::9", B, RouteKind::Unicast),
                route("203.0.113.0/24", "", 0, RouteKind::Blackhole),
                route("203.0.114.0/24", "", 0, RouteKind::Unreachable),
            ],
        )
        .unwrap()
    }

    fn onwards(port: u8, via: &str) -> Result<Destination, Martian> {
        let via = (!via.is_empty()).then(|| ip(via));
        Ok(Destination::Forward(Route { port, via }))
    }

    const LOCAL_A: Result<Destination, Martian> = Ok(Destination::Local(A));
    const TO_ALL: Result<Destination, Martian> = Ok(Destination::Broadcast);
    const JOINED: Result<Destination, Martian> = Ok(Destination::Multicast { joined: true });
    const NOT_JOINED: Result<Destination, Martian> = Ok(Destination::Multicast { joined: false });

    /// Every line was sent to a 6.18 kernel with these addresses and routes by port A, and its
    /// counters told the outcome.
    #[test]
    fn ipv4_verdicts_are_those_of_linux_6_18() {
        let by_default = onwards(B, "10.2.0.9");
        let on_b = onwards(B, "");
        let cases = [
            ("10.1.0.9", "10.2.0.9", on_b),
            ("10.1.0.9", "198.18.0.1", by_default),
            ("224.0.0.5", "10.2.0.9", Err(Martian::SourceMulticast)),
            ("239.1.2.3", "10.1.0.1", Err(Martian::SourceMulticast)),
            ("255.255.255.255", "10.2.0.9", Err(Martian::SourceBroadcast)),
            ("255.255.255.255", "10.1.0.1", Err(Martian::SourceBroadcast)),
            ("0.0.0.0", "10.2.0.9", Err(Martian::SourceZero)),
            ("0.0.0.0", "10.1.0.1", Err(Martian::SourceZero)),
            ("0.0.0.0", "10.1.0.255", Err(Martian::SourceZero)),
            ("0.0.0.0", "255.255.255.255", TO_ALL),
            ("0.0.0.0", "0.0.0.0", TO_ALL),
            ("0.0.0.0", "224.0.0.1", JOINED),
            ("0.1.2.3", "10.2.0.9", on_b),
            ("0.1.2.3", "10.1.0.1", LOCAL_A),
            ("0.1.2.3", "255.255.255.255", TO_ALL),
            ("127.0.0.1", "10.2.0.9", Err(Martian::SourceLoopback)),
            ("127.0.0.1", "10.1.0.1", Err(Martian::SourceLoopback)),
            ("127.0.0.9", "224.0.0.1", Err(Martian::SourceLoopback)),
            ("127.0.0.2", "255.255.255.255", TO_ALL),
            ("240.0.0.1", "10.2.0.9", on_b),
            ("240.0.0.1", "10.1.0.1", LOCAL_A),
            ("10.1.0.1", "10.2.0.9", Err(Martian::SourceLocal)),
            ("10.2.0.1", "10.2.0.9", Err(Martian::SourceLocal)),
            ("10.2.0.1", "10.1.0.1", Err(Martian::SourceLocal)),
            ("10.1.0.1", "255.255.255.255", Err(Martian::SourceLocal)),
            ("10.1.0.1", "224.0.0.1", Err(Martian::SourceLocal)),
            ("10.1.0.255", "10.2.0.9", on_b),
            ("10.1.0.0", "10.2.0.9", on_b),
            ("10.2.0.255", "10.1.0.1", LOCAL_A),
            ("10.1.0.255", "10.1.0.77", Err(Martian::SourceBroadcast)),
            ("10.1.0.9", "0.0.0.0", Err(Martian::DestinationZero)),
            ("10.1.0.9", "0.1.2.3", by_default),
            ("10.1.0.9", "127.0.0.1", Err(Martian::DestinationLoopback)),
            ("10.1.0.9", "127.5.5.5", Err(Martian::DestinationLoopback)),
            ("10.1.0.9", "240.0.0.1", by_default),
            ("10.1.0.9", "255.255.255.255", TO_ALL),
            ("10.1.0.9", "10.1.0.255", TO_ALL),
            ("10.1.0.9", "10.1.0.0", onwards(A, "")),
            ("10.1.0.9", "10.2.0.255", TO_ALL),
            ("10.1.0.9", "10.2.0.0", on_b),
            ("10.1.0.9", "224.0.0.1", JOINED),
            ("10.1.0.9", "239.1.1.1", NOT_JOINED),
            ("10.1.0.9", "203.0.113.5", Ok(Destination::Unreachable(NoWay::Blackhole))),
            ("10.1.0.9", "203.0.114.5", Ok(Destination::Unreachable(NoWay::Unreachable))),
            ("203.0.113.5", "10.2.0.9", on_b),
            ("203.0.113.5", "10.1.0.77", onwards(A, "")),
            ("169.254.1.1", "10.2.0.9", on_b),
            ("10.1.0.9", "169.254.1.1", by_default),
            ("10.1.0.9", "10.2.0.1", Ok(Destination::Local(B))),
        ];
        let routes = gateway();
        for (src, dst, verdict) in cases {
            assert_eq!(routes.judge(ip(src), ip(dst), A), verdict, "{src} > {dst}");
        }
    }

    #[test]
    fn ipv6_verdicts_are_those_of_linux_6_18() {
        let cases = [
            ("fd01::9", "fd02::9", onwards(B, "")),
            ("fd01::9", "2001:db8::1", onwards(B, "fd02::9")),
            ("::", "fd02::9", Err(Martian::SourceUnspecified)),
            ("::", "fd01::1", LOCAL_A),
            ("::", "fd01::77", onwards(A, "")),
            ("fe80::9", "fd02::9", Err(Martian::SourceLinkLocal)),
            ("fe80::9", "fd01::1", LOCAL_A),
            ("fe80::9", "fd01::77", onwards(A, "")),
            ("fd01::9", "fe80::1234", onwards(A, "")),
            ("fd01::9", "fe80::ff:fe00:101", LOCAL_A),
            ("fd01::9", "fe80::ff:fe00:201", onwards(A, "")),
            ("fd01::9", "fe80:1::5", Ok(Destination::Unreachable(NoWay::NoRoute))),
            ("fd01::9", "fd02::1", Ok(Destination::Local(B))),
            ("fd01::9", "fd01::", LOCAL_A),
            ("fd01::9", "fd02::", Ok(Destination::Local(B))),
            ("fd01::1", "fd02::9", onwards(B, "")),
            ("fd01::1", "fd01::1", LOCAL_A),
            ("fd01::9", "ff02::1", JOINED),
            ("fd01::9", "ff02::2", JOINED),
            ("fd01::9", "ff05::2", JOINED),
            ("fd01::9", "ff05::5", NOT_JOINED),
            ("fd01::9", "ff0e::5", NOT_JOINED),
            ("fd01::9", "ff02::1:ff00:1", JOINED),
            ("fd01::9", "ff02::1:ff00:101", JOINED),
            ("fd01::9", "ff02::1:ff00:201", NOT_JOINED),
            ("fd01::9", "::", onwards(B, "fd02::9")),
            ("fec0::1", "fd02::9", onwards(B, "")),
        ];
        let routes = gateway();
        for (src, dst, verdict) in cases {
            assert_eq!(routes.judge(ip(src), ip(dst), A), verdict, "{src} > {dst}");
        }
    }

    #[test]
    fn the_lowest_metric_wins_then_the_first_and_an_address_always() {
        let via = |gateway, metric| StaticRoute {
            metric,
            ..route("198.51.100.0/24", gateway, 1, RouteKind::Unicast)
        };
        let routes = Routes::new(
            &[own(0, "198.51.100.77/32")],
            &[via("10.0.0.1", 5), via("10.0.0.2", 3), via("10.0.0.3", 3)],
        )
        .unwrap();
        assert_eq!(routes.lookup(ip("198.51.100.1")).unwrap().via, Some(ip("10.0.0.2")));
        assert_eq!(routes.classify(ip("198.51.100.77"), None), Destination::Local(0));
        assert_eq!(routes.lookup(ip("198.51.101.0")), None);
    }

    #[test]
    fn point_to_point_prefixes_have_no_broadcast_and_no_anycast() {
        let routes = Routes::new(&[own(3, "192.0.2.0/31"), own(3, "2001:db8::/127")], &[]).unwrap();
        let on_link = Destination::Forward(Route { port: 3, via: None });
        assert_eq!(routes.classify(ip("192.0.2.0"), None), Destination::Local(3));
        assert_eq!(routes.classify(ip("192.0.2.1"), None), on_link);
        assert_eq!(routes.classify(ip("2001:db8::1"), None), on_link);
    }

    #[test]
    fn bad_input_is_named() {
        let bad = |a: &[PortAddress], r: &[StaticRoute]| Routes::new(a, r).unwrap_err();
        let good = own(0, "10.0.0.1/8");
        assert_eq!(
            bad(&[good, own(0, "10.0.0.1/33")], &[]),
            RouteError::AddressPrefix { index: 1 }
        );
        for text in ["0.0.0.0/8", "224.0.0.1/8", "127.0.0.1/8", "::1/128", "ff02::1/64"] {
            assert_eq!(bad(&[own(0, text)], &[]), RouteError::NotUnicast { index: 0 });
        }
        let to = |to, via| route(to, via, 0, RouteKind::Unicast);
        assert_eq!(bad(&[], &[to("10.0.0.1/8", "")]), RouteError::HostBits { index: 0 });
        assert_eq!(
            bad(&[], &[to("10.0.0.0/8", "fd00::1")]),
            RouteError::GatewayFamily { index: 0 }
        );
        assert_eq!(bad(&[], &[to("::/129", "")]), RouteError::RoutePrefix { index: 0 });
    }

    #[test]
    fn a_full_table_stays_small() {
        let routes: Vec<_> = (0..100_000u32)
            .map(|i| StaticRoute {
                to: Address::v4(0x0100_0000 + (i << 9)),
                prefix_len: 24,
                via: Some(Address::v4(0x0a00_0000 + i % 50)),
                port: 0,
                metric: 0,
                kind: RouteKind::Unicast,
            })
            .collect();
        let table = Routes::new(&[], &routes).unwrap();
        assert!(table.v4.starts.len() <= 2 * routes.len() + 1);
        assert_eq!(table.targets.len(), 51);
        let last = routes.last().unwrap();
        assert_eq!(table.lookup(last.to).unwrap().via, last.via);
    }

    /// The definition: the longest of all matching prefixes, in order of rank, metric and
    /// appearance.
    fn naive(addresses: &[PortAddress], routes: &[StaticRoute], dst: Address) -> Destination {
        let inside = |at: Address, len: u8| {
            let (first, last) = bounds(at, len);
            at.is_v4() == dst.is_v4() && (first..=last).contains(&dst)
        };
        let mut best = (0, 0, Reverse((0, 0)), Destination::Unreachable(NoWay::NoRoute));
        let mut offer = |len: u8, rank: u8, order, to| {
            let key = (len as u16 + 1, rank, Reverse(order));
            if key > (best.0, best.1, best.2) {
                best = (key.0, key.1, key.2, to);
            }
        };
        for (i, a) in addresses.iter().enumerate() {
            let (v4, (first, last)) = (a.address.is_v4(), bounds(a.address, a.prefix_len));
            if dst == a.address {
                offer(width(dst), 3, (0, i), Destination::Local(a.port));
            }
            if v4 && a.prefix_len < 31 && dst == last {
                offer(32, 2, (0, i), Destination::Broadcast);
            }
            if !v4 && a.prefix_len < 127 && dst == first {
                offer(128, 2, (0, i), Destination::Local(a.port));
            }
            if inside(a.address, a.prefix_len) {
                let to = Destination::Forward(Route { port: a.port, via: None });
                offer(a.prefix_len, 1, (0, i), to);
            }
        }
        for (i, r) in routes.iter().enumerate() {
            if inside(r.to, r.prefix_len) {
                let to = match r.kind {
                    RouteKind::Unicast => Destination::Forward(Route { port: r.port, via: r.via }),
                    RouteKind::Blackhole => Destination::Unreachable(NoWay::Blackhole),
                    RouteKind::Unreachable => Destination::Unreachable(NoWay::Unreachable),
                    RouteKind::Prohibit => Destination::Unreachable(NoWay::Prohibit),
                };
                offer(r.prefix_len, 0, (r.metric, i), to);
            }
        }
        best.3
    }

    /// Addresses from a small corner of each family, so that prefixes nest and meet at the ends.
    fn address(v4: bool) -> impl Strategy<Value = Address> {
        (prop_oneof![Just(0u8), Just(1), Just(254), Just(255)], 0u8..8, any::<bool>()).prop_map(
            move |(last, low, high)| {
                if v4 {
                    let top = if high { 223 } else { 1 };
                    Address::v4(u32::from_be_bytes([top, last, low, last]))
                } else {
                    let top = if high { 0xfd_u128 } else { 0x20 } << 120;
                    Address::v6(top | (low as u128) << 64 | last as u128)
                }
            },
        )
    }

    fn static_route(v4: bool) -> impl Strategy<Value = StaticRoute> {
        let len = if v4 { 0..=32u8 } else { 0..=128u8 };
        let kind = prop_oneof![
            3 => Just(RouteKind::Unicast),
            1 => Just(RouteKind::Blackhole),
            1 => Just(RouteKind::Prohibit),
        ];
        (address(v4), len, 0u8..3, 0u32..3, kind).prop_map(
            |(to, prefix_len, port, metric, kind)| {
                let to = bounds(to, prefix_len).0;
                StaticRoute { to, prefix_len, via: None, port, metric, kind }
            },
        )
    }

    fn port_address(v4: bool) -> impl Strategy<Value = PortAddress> {
        let len = if v4 { 0..=32u8 } else { 0..=128u8 };
        (address(v4), len, 0u8..3).prop_map(|(address, prefix_len, port)| PortAddress {
            port,
            address,
            prefix_len,
        })
    }

    proptest! {
        #[test]
        fn the_intervals_are_the_longest_match(
            (addresses, routes, probes) in any::<bool>().prop_flat_map(|v4| (
                proptest::collection::vec(port_address(v4), 0..5),
                proptest::collection::vec(static_route(v4), 0..12),
                proptest::collection::vec(address(v4), 1..30),
            )),
        ) {
            let table = Routes::new(&addresses, &routes).unwrap();
            let ends = routes.iter().map(|r| bounds(r.to, r.prefix_len).1);
            let beyond = ends.filter_map(|end| match end.is_v4() {
                true => end.v4_bits().checked_add(1).map(Address::v4),
                false => end.bits().checked_add(1).map(Address::v6),
            });
            let starts = routes.iter().map(|r| r.to);
            for dst in probes.into_iter().chain(beyond).chain(starts) {
                let special = match dst.is_v4() {
                    true => dst.v4_bits() == u32::MAX || is_multicast_v4(dst.v4_bits()),
                    false => dst.is_v4() || dst.bits() >> 120 == 0xff || is_link_local(dst.bits()),
                };
                if !special {
                    prop_assert_eq!(table.classify(dst, None), naive(&addresses, &routes, dst));
                }
            }
        }

        #[test]
        fn no_address_panics(src: u128, dst: u128, port: u8, v4: bool) {
            let pair = if v4 { [src, dst].map(|a| Address::v4(a as u32)) } else {
                [src, dst].map(Address::v6)
            };
            let _ = gateway().judge(pair[0], pair[1], port);
        }
    }
}
