//! Where a packet comes from and goes to: `-m iprange`, `addrtype`, `rpfilter`, `mac`, `pkttype`.
//!
//! Addresses and ports of arrival are a conn's and a path's own, and a new routing table begins
//! every walk anew, so the first three answer alike for all packets of a walk that is remembered.
//! The link's addresses are each frame's own.

use super::Maybe;
use crate::rules::facts::{Facts, PlaceOf, PortId};
use crate::wire::address::Address;

/// `-m iprange` (`struct xt_iprange_mtinfo`): inclusive; one whose low end is above its high end
/// holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IpRange {
    /// `--src-range`.
    pub src: Option<Maybe<(Address, Address)>>,
    /// `--dst-range`.
    pub dst: Option<Maybe<(Address, Address)>>,
}

impl IpRange {
    /// `iprange_mt4`, `iprange_mt6`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let within = |asked: Option<Maybe<(Address, Address)>>, address: Address| {
            asked.is_none_or(|range| {
                let (low, high) = range.value;
                range.judge(low <= address && address <= high)
            })
        };
        within(self.src, facts.src) && within(self.dst, facts.dst)
    }
}

/// A set of address types, by the number of each (`RTN_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressTypes(pub u16);

impl AddressTypes {
    /// `::`; never an IPv4 address.
    pub const UNSPEC: AddressTypes = AddressTypes(1 << 0);
    /// Somebody's.
    pub const UNICAST: AddressTypes = AddressTypes(1 << 1);
    /// The gateway's own.
    pub const LOCAL: AddressTypes = AddressTypes(1 << 2);
    /// A broadcast address (IPv4).
    pub const BROADCAST: AddressTypes = AddressTypes(1 << 3);
    /// An anycast address of the gateway (IPv6).
    pub const ANYCAST: AddressTypes = AddressTypes(1 << 4);
    /// A group.
    pub const MULTICAST: AddressTypes = AddressTypes(1 << 5);
    /// No way leads there (IPv6).
    pub const UNREACHABLE: AddressTypes = AddressTypes(1 << 7);
    /// What can be asked of IPv6: neither BROADCAST nor BLACKHOLE nor those from PROHIBIT on.
    pub const OF_V6: AddressTypes = AddressTypes(0xff & !(1 << 3 | 1 << 6));

    /// True if the two sets share a type.
    #[inline]
    pub const fn meets(self, other: AddressTypes) -> bool {
        self.0 & other.0 != 0
    }
}

/// To which port's addresses `-m addrtype` keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `--limit-iface-in`: the port of arrival.
    In,
    /// `--limit-iface-out`: the port of departure.
    Out,
}

/// `-m addrtype` (`struct xt_addrtype_info_v1`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddrType {
    /// `--src-type`.
    pub src: Option<Maybe<AddressTypes>>,
    /// `--dst-type`.
    pub dst: Option<Maybe<AddressTypes>>,
    /// `--limit-iface-in`, `--limit-iface-out`.
    pub limit: Option<Limit>,
}

impl AddrType {
    /// `addrtype_mt_v1`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let only = self.limit.map(|limit| match limit {
            Limit::In => facts.in_port,
            Limit::Out => facts.out_port,
        });
        let is = |asked: Option<Maybe<AddressTypes>>, address: Address| {
            asked.is_none_or(|types| {
                types.judge(match address.is_v4() {
                    true => types.value.meets(type_v4(address, only, facts)),
                    false => is_v6(types.value, address, only, facts),
                })
            })
        };
        is(self.src, facts.src) && is(self.dst, facts.dst)
    }
}

/// `inet_dev_addr_type`: what the table of local addresses says; whatever is not in it is UNICAST,
/// whether there is a way to it or not. With a port, addresses of other ports are not in it.
fn type_v4(address: Address, only: Option<Option<PortId>>, facts: &Facts<'_>) -> AddressTypes {
    let bits = address.v4_bits();
    let of_port = |port: PortId| only.is_none_or(|only| only == Some(port));
    if bits == 0 || bits == u32::MAX {
        return AddressTypes::BROADCAST;
    }
    match facts.around.place_of(address, None) {
        PlaceOf::Multicast => AddressTypes::MULTICAST,
        PlaceOf::Local(port) if of_port(port) => AddressTypes::LOCAL,
        PlaceOf::Broadcast if only.is_none() => AddressTypes::BROADCAST,
        // The address below it is of the same subnet.
        PlaceOf::Broadcast => match facts.around.place_of(Address::v4(bits - 1), None) {
            PlaceOf::Local(port) | PlaceOf::Unicast(port) if of_port(port) => {
                AddressTypes::BROADCAST
            }
            _ => AddressTypes::UNICAST,
        },
        // The loopback interface's, which no port has.
        _ if bits >> 24 == 127 && only.is_none() => AddressTypes::LOCAL,
        _ => AddressTypes::UNICAST,
    }
}

/// `match_type6`: MULTICAST, UNICAST and UNSPEC have all to hold that are asked for; the others are
/// looked up, one of them is enough.
fn is_v6(
    asked: AddressTypes,
    address: Address,
    only: Option<Option<PortId>>,
    facts: &Facts<'_>,
) -> bool {
    let looked_up =
        AddressTypes(AddressTypes::LOCAL.0 | AddressTypes::ANYCAST.0 | AddressTypes::UNREACHABLE.0);
    let group = address.bits() >> 120 == 0xff;
    let none = address.is_unspecified();
    if asked.meets(AddressTypes::MULTICAST) && !group
        || asked.meets(AddressTypes::UNICAST) && (group || none)
        || asked.meets(AddressTypes::UNSPEC) && !none
    {
        return false;
    }
    if !asked.meets(looked_up) {
        return true;
    }
    let of_port = |port: PortId| only.is_none_or(|only| only == Some(port));
    let near = only.unwrap_or(facts.in_port.or(facts.out_port));
    asked.meets(match facts.around.place_of(address, near) {
        PlaceOf::Local(port) if of_port(port) => AddressTypes::LOCAL,
        PlaceOf::Anycast(port) if of_port(port) => AddressTypes::ANYCAST,
        PlaceOf::Unicast(port) if of_port(port) => return false,
        PlaceOf::Multicast | PlaceOf::Broadcast => return false,
        _ => AddressTypes::UNREACHABLE,
    })
}

/// `-m rpfilter` (`struct xt_rpfilter_info`). Marks choose no routes here, so `--validmark` changes
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpFilter {
    /// `--loose`: a way by any port will do.
    pub loose: bool,
    /// `--validmark`.
    pub valid_mark: bool,
    /// `--accept-local`: the source may be the gateway's own.
    pub accept_local: bool,
    /// `--invert`.
    pub invert: bool,
}

impl RpFilter {
    /// `rpfilter_mt` of both families: is the way to the source the way it came?
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.passes(facts) != self.invert
    }

    fn passes(&self, facts: &Facts<'_>) -> bool {
        let v4 = facts.src.is_v4();
        let nobody = match v4 {
            // From nobody to everybody, or to a group of this link.
            true => {
                let (src, dst) = (facts.src.v4_bits(), facts.dst.v4_bits());
                src == 0 && (dst == u32::MAX || dst >> 8 == 0x00e0_0000)
            }
            false => facts.src.is_unspecified(),
        };
        let here = |port: PortId| self.loose || facts.in_port == Some(port);
        nobody
            || match facts.around.place_of(facts.src, facts.in_port) {
                PlaceOf::Unicast(port) => here(port),
                PlaceOf::Local(port) => self.accept_local && (here(port) || !v4),
                _ => false,
            }
    }
}

/// `-m mac` (`struct xt_mac_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub Maybe<[u8; 6]>);

impl Mac {
    /// `mac_mt`: a packet of the gateway's own has no source, and is never meant.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        let link = facts.link().first_chunk::<14>();
        link.is_some_and(|link| self.0.judge(link[6..12] == self.0.value))
    }
}

/// To whom a frame was sent on its link (`PACKET_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SentTo {
    /// To the gateway; its own packets count as that.
    Us,
    /// To everybody.
    All,
    /// To a group.
    Group,
    /// To somebody else: such a frame meets no rule.
    Other,
}

impl SentTo {
    /// Of a packet that rules see.
    pub(in crate::rules) fn of(facts: &Facts<'_>) -> SentTo {
        match facts.link().first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => SentTo::All,
            Some([first, ..]) if first & 1 == 1 => SentTo::Group,
            _ => SentTo::Us,
        }
    }
}

/// `-m pkttype` (`struct xt_pkttype_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PktType(pub Maybe<SentTo>);

impl PktType {
    /// `pkttype_mt`.
    pub(in crate::rules) fn holds(&self, facts: &Facts<'_>) -> bool {
        self.0.judge(SentTo::of(facts) == self.0.value)
    }
}
