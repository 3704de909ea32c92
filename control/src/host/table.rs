//! What the kernel has on the taps: addresses and routes, kept in step message by message.
//!
//! Written by [`super::Host`] alone. A dump does not empty the table: whatever it does not confirm
//! is swept at its end, so that a packet finds its route also meanwhile. Some changes cannot be
//! followed by their messages alone (IPv4 routes vanish in silence with their interface, IPv6 joins
//! routes of one metric into one with several nexthops); they leave a mark that asks for a dump.
//!
//! Bound: [`ROUTES_MAX`] routes and addresses together, half of what a snapshot can hold; what is
//! beyond is counted and not learnt.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dataplane::pipeline::route::{RouteKind, StaticRoute};
use dataplane::wire::address::Address;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteType,
};

use crate::config::Prefixed;
use crate::publish::{Learnt, route_order};

/// Most routes and addresses that are learnt.
pub(super) const ROUTES_MAX: usize = 1 << 19;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_APPEND: u16 = 0x800;

/// A prefix with a metric; the kernel has one route for it, as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    to: Address,
    len: u8,
    metric: u32,
}

/// Where packets of a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Way {
    kind: RouteKind,
    port: u8,
    via: Option<Address>,
    /// There are other nexthops, which are not used.
    several: bool,
    /// It needs what this gateway cannot do; it is counted and not learnt.
    unusable: bool,
}

/// An address as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Own {
    index: u32,
    address: Address,
    len: u8,
    /// The other end of a point-to-point address; the prefix is of this one.
    peer: Option<Address>,
}

/// The table.
#[derive(Default)]
pub(super) struct Table {
    /// Interface index and port of each tap.
    taps: Vec<(u32, u8)>,
    addresses: BTreeMap<Own, u32>,
    routes: BTreeMap<Key, Vec<(Way, u32)>>,
    /// The number of the dump that confirms entries now.
    stamp: u32,
    /// Something is different since [`Table::take_changed`].
    changed: bool,
    /// What messages alone do not tell.
    doubtful: bool,
    overfull: u64,
}

impl Table {
    /// For taps by (interface index, port).
    pub(super) fn new(taps: Vec<(u32, u8)>) -> Table {
        Table { taps, ..Table::default() }
    }

    fn port(&self, index: u32) -> Option<u8> {
        self.taps.iter().find(|(of, _)| *of == index).map(|(_, port)| *port)
    }

    /// True once after changes.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// True once after a change that only a dump can make clear.
    pub(super) fn take_doubtful(&mut self) -> bool {
        std::mem::take(&mut self.doubtful)
    }

    /// A dump begins.
    pub(super) fn begin_dump(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        self.doubtful = false;
    }

    /// A dump has ended; whatever it did not show is gone.
    pub(super) fn end_dump(&mut self) {
        let stamp = self.stamp;
        let count = |table: &Table| {
            table.addresses.len() + table.routes.values().map(Vec::len).sum::<usize>()
        };
        let before = count(self);
        self.addresses.retain(|_, seen| *seen == stamp);
        self.routes.retain(|_, ways| {
            ways.retain(|(_, seen)| *seen == stamp);
            !ways.is_empty()
        });
        self.changed |= before != count(self);
    }

    /// An interface is gone with all that was on it.
    pub(super) fn forget_tap(&mut self, index: u32) {
        self.taps.retain(|(of, _)| *of != index);
        self.addresses.retain(|own, _| own.index != index);
        self.changed = true;
        self.doubtful = true;
    }

    /// `RTM_NEWADDR`.
    pub(super) fn add_address(&mut self, message: &AddressMessage) {
        let Some(own) = self.own(message) else { return };
        // It may not be used yet, or never: another message says when it may.
        if flags(message).intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
            self.remove_own(&own);
            return;
        }
        if !self.addresses.contains_key(&own) && self.is_full() {
            return;
        }
        self.changed |= self.addresses.insert(own, self.stamp).is_none();
    }

    /// `RTM_DELADDR`.
    pub(super) fn remove_address(&mut self, message: &AddressMessage) {
        let Some(own) = self.own(message) else { return };
        self.remove_own(&own);
        // Routes with this preferred source went without a word.
        self.doubtful |= own.address.is_v4();
    }

    /// The gateway itself has taken an address away.
    pub(super) fn drop_address(&mut self, index: u32, address: Prefixed) {
        let own = Own { index, address: address.address, len: address.prefix, peer: None };
        self.remove_own(&own);
    }

    fn remove_own(&mut self, own: &Own) {
        self.changed |= self.addresses.remove(own).is_some();
    }

    fn own(&self, message: &AddressMessage) -> Option<Own> {
        let index = message.header.index;
        self.port(index)?;
        let (mut local, mut address) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(Address::from(*ip)),
                AddressAttribute::Address(ip) => address = Some(Address::from(*ip)),
                _ => {}
            }
        }
        let own = local.or(address)?;
        let peer = address.filter(|peer| *peer != own);
        Some(Own { index, address: own, len: message.header.prefix_len, peer })
    }

    /// `RTM_NEWROUTE`; of a dump, or a change made with `flags`.
    pub(super) fn add_route(&mut self, message: &RouteMessage, dumped: bool, flags: u16) {
        let Some(key) = key(message) else { return };
        let way = self.way(message);
        if !dumped && flags & NLM_F_REPLACE != 0 {
            self.replace(key, way);
            return;
        }
        let Some(way) = way else { return };
        if !self.routes.contains_key(&key) && self.is_full() {
            return;
        }
        let ways = self.routes.entry(key).or_default();
        // A dump shows routes of one metric in the order in which they are used.
        let place = ways.iter().position(|(_, seen)| *seen != self.stamp).unwrap_or(ways.len());
        match ways.iter().position(|(known, _)| *known == way) {
            Some(known) if known <= place || !dumped => {
                ways[known].1 = self.stamp;
                return;
            }
            Some(known) => drop(ways.remove(known)),
            None => {}
        }
        ways.insert(place, (way, self.stamp));
        self.changed = true;
        self.doubtful |= !dumped && (ways.len() > 1 || flags & NLM_F_APPEND != 0);
    }

    fn replace(&mut self, key: Key, way: Option<Way>) {
        let Some(way) = way else {
            // Its place was taken by a route that is none of ours.
            self.changed |= self.routes.remove(&key).is_some();
            return;
        };
        if !self.routes.contains_key(&key) && self.is_full() {
            return;
        }
        let ways = self.routes.entry(key).or_default();
        // Of several routes the kernel replaces one.
        self.doubtful |= ways.len() > 1;
        self.changed |= ways.len() != 1 || ways[0].0 != way;
        *ways = vec![(way, self.stamp)];
    }

    /// `RTM_DELROUTE`.
    pub(super) fn remove_route(&mut self, message: &RouteMessage) {
        let Some(key) = key(message) else { return };
        let Some(gone) = self.way(message) else { return };
        let Some(ways) = self.routes.get_mut(&key) else { return };
        match ways.iter().position(|(way, _)| *way == gone) {
            Some(at) => {
                ways.remove(at);
                self.changed = true;
                if ways.is_empty() {
                    self.routes.remove(&key);
                }
            }
            // One nexthop of several.
            None => self.doubtful = true,
        }
    }

    fn is_full(&mut self) -> bool {
        let full = self.routes.len() + self.addresses.len() >= ROUTES_MAX;
        self.overfull += u64::from(full);
        full
    }

    /// Where a route goes; `None` if that is not by a tap.
    fn way(&self, message: &RouteMessage) -> Option<Way> {
        let dropped = match message.header.kind {
            RouteType::Unicast => return self.unicast(message),
            RouteType::BlackHole => RouteKind::Blackhole,
            RouteType::Unreachable => RouteKind::Unreachable,
            RouteType::Prohibit => RouteKind::Prohibit,
            _ => return None,
        };
        // Without an interface it may be meant for the box alone; a routing daemon's is not.
        let of_the_box = matches!(
            message.header.protocol,
            RouteProtocol::Unspec | RouteProtocol::Kernel | RouteProtocol::Boot
        );
        let way = Way { kind: dropped, port: 0, via: None, several: false, unusable: false };
        (!of_the_box).then_some(way)
    }

    fn unicast(&self, message: &RouteMessage) -> Option<Way> {
        // Connected networks follow from the addresses.
        if message.header.protocol == RouteProtocol::Kernel
            || message.header.flags.contains(RouteFlags::Dead)
        {
            return None;
        }
        let multipath = message.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops),
            _ => None,
        });
        let Some(hops) = multipath else {
            let index = message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })?;
            return Some(hop(self.port(index)?, &message.attributes, false, message));
        };
        let alive = |hop: &&RouteNextHop| !hop.flags.contains(RouteNextHopFlags::Dead);
        hops.iter().filter(alive).find_map(|next| {
            let port = self.port(next.interface_index)?;
            Some(hop(port, &next.attributes, hops.len() > 1, message))
        })
    }

    /// Routes and addresses that the gateway shall use. `named` are the addresses of the taps that
    /// it has put there itself.
    pub(super) fn learnt(&self, named: impl Fn(u8, Address) -> bool) -> Learnt {
        let mut learnt = Learnt::default();
        for own in self.addresses.keys() {
            let Some(port) = self.port(own.index) else { continue };
            if !is_unicast(own.address) || named(port, own.address) {
                continue;
            }
            let whole = if own.address.is_v4() { 32 } else { 128 };
            let prefix = if own.peer.is_some() { whole } else { own.len };
            learnt.addresses.push((port, Prefixed { address: own.address, prefix }));
            if let Some(peer) = own.peer {
                let to = network(peer, own.len);
                learnt.routes.push(StaticRoute {
                    to,
                    prefix_len: own.len,
                    via: None,
                    port,
                    metric: 0,
                    kind: RouteKind::Unicast,
                });
            }
        }
        let mut last = None;
        for (key, ways) in &self.routes {
            let prefix = Some((key.to, key.len));
            let Some((way, _)) = ways.iter().find(|(way, _)| !way.unusable) else { continue };
            // Of one prefix the lowest metric comes first, and only that counts.
            if last == prefix {
                continue;
            }
            last = prefix;
            learnt.routes.push(StaticRoute {
                to: key.to,
                prefix_len: key.len,
                via: way.via,
                port: way.port,
                metric: key.metric,
                kind: way.kind,
            });
        }
        learnt.routes.sort_by_key(route_order);
        learnt
    }

    /// Routes by a tap that cannot be used, and additions beyond the bound.
    pub(super) fn not_learnt(&self) -> (usize, u64) {
        let unusable = |ways: &&Vec<(Way, u32)>| ways.iter().all(|(way, _)| way.unusable);
        (self.routes.values().filter(unusable).count(), self.overfull)
    }
}

fn flags(message: &AddressMessage) -> AddressFlags {
    let wide = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    wide.unwrap_or(AddressFlags::from_bits_retain(message.header.flags.bits().into()))
}

/// What a route is known by; `None` for what is no route of the main table for everybody.
fn key(message: &RouteMessage) -> Option<Key> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let (mut to, mut metric) = (None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(address) => to = Some(address_of(address)?),
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let everything = match u8::from(header.address_family) {
        AF_INET => Address::v4(0),
        AF_INET6 => Address::v6(0),
        _ => return None,
    };
    let to = to.unwrap_or(everything);
    let is_main = table == u32::from(RouteHeader::RT_TABLE_MAIN);
    if !is_main || to.is_v4() != everything.is_v4() || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    // Routes by source or type of service; the gateway has none.
    if header.source_prefix_length != 0 || header.tos != 0 {
        return None;
    }
    let len = header.destination_prefix_length.min(if to.is_v4() { 32 } else { 128 });
    Some(Key { to: network(to, len), len, metric })
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// One nexthop of a unicast route.
fn hop(port: u8, attributes: &[RouteAttribute], several: bool, message: &RouteMessage) -> Way {
    let v4 = u8::from(message.header.address_family) == AF_INET;
    let (mut via, mut unusable) = (None, false);
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(address) => match address_of(address) {
                Some(address) if address.is_v4() == v4 => via = Some(address),
                _ => unusable = true,
            },
            // An IPv4 route with an IPv6 gateway (RFC 8950); tunnels and labels.
            RouteAttribute::Via(_) | RouteAttribute::Encap(_) => unusable = true,
            _ => {}
        }
    }
    Way { kind: RouteKind::Unicast, port, via, several, unusable }
}

fn address_of(address: &RouteAddress) -> Option<Address> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip).into()),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip).into()),
        _ => None,
    }
}

/// The lowest address of the prefix.
fn network(address: Address, len: u8) -> Address {
    if address.is_v4() {
        let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
        Address::v4(address.v4_bits() & mask)
    } else {
        let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
        Address::v6(address.bits() & mask)
    }
}

/// What a port can have (and [`dataplane::pipeline::route::Routes`] takes).
fn is_unicast(address: Address) -> bool {
    let ip = address.ip();
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    !(ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() || broadcast)
}
