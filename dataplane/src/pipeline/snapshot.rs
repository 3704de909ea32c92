//! The policy that packets are judged by: immutable, published whole, adopted between bursts.
//!
//! The control core builds a [`Snapshot`], sends it to every lcore and gets the old one back to
//! free it. The only cells that change while it is in force are the rule counters, each written by
//! one lcore.

use crate::conntrack::knobs::Knobs;
use crate::conntrack::policies::Policies;
use crate::conntrack::record::Conn;
use crate::conntrack::state::Direction;
use crate::conntrack::zones::Zones;
use crate::pipeline::counters::Counter;
use crate::pipeline::route::Routes;
use crate::rules::compiled::{Compiled, CounterId};
use crate::rules::facts::PortId;
use crate::wire::address::Address;

/// An address of the gateway with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address itself.
    pub address: Address,
    /// Prefix length in bits of its own family.
    pub prefix: u8,
}

impl InterfaceAddress {
    /// True if `other` lies in the same subnet.
    pub fn covers(&self, other: Address) -> bool {
        if self.address.is_v4() != other.is_v4() {
            return false;
        }
        let (a, b, width) = if other.is_v4() {
            (self.address.v4_bits() as u128, other.v4_bits() as u128, 32)
        } else {
            (self.address.bits(), other.bits(), 128)
        };
        let host_bits = width - (self.prefix as u32).min(width);
        host_bits >= 128 || (a ^ b) >> host_bits == 0
    }
}

/// What stands behind a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortKind {
    /// A device of its own.
    #[default]
    Device,
    /// Frames of another port's device that carry this VLAN id (802.1Q, 1 to 4094).
    Vlan {
        /// Whose device it is.
        parent: PortId,
        /// The id.
        id: u16,
    },
    /// A kernel interface by which the box's own programs send and receive on another port. It has
    /// a number of its own behind all others and is known to no rule.
    HostTap {
        /// The port whose traffic it carries.
        of: PortId,
    },
}

/// One port as the policy sees it.
#[derive(Clone, Debug)]
pub struct PortSettings {
    /// The name that rules use.
    pub name: String,
    /// Our MAC address there.
    pub mac: [u8; 6],
    /// Largest IP packet that may leave.
    pub mtu: u32,
    /// Our addresses there; the first of a subnet is its primary.
    pub addresses: Box<[InterfaceAddress]>,
    /// What stands behind it.
    pub kind: PortKind,
    /// Where what is for the box itself goes, if the kernel has an interface for it.
    pub host_tap: Option<PortId>,
}

impl PortSettings {
    /// The first IPv4 address, which is what REDIRECT leads to whoever asks
    /// (`nf_nat_redirect_ipv4`).
    pub fn primary_v4(&self) -> Option<Address> {
        self.addresses.iter().map(|a| a.address).find(|a| a.is_v4())
    }

    /// The address we speak from towards `peer` (`inet_select_addr`): the first of the subnet
    /// `peer` lies in, else the first of the family; link-local only where nothing else is there.
    pub fn source_for(&self, peer: Address) -> Option<Address> {
        let family = || self.addresses.iter().filter(|a| a.address.is_v4() == peer.is_v4());
        family()
            .find(|a| a.covers(peer))
            .or_else(|| family().find(|a| !is_link_local(a.address)))
            .or_else(|| family().next())
            .map(|a| a.address)
    }
}

fn is_link_local(a: Address) -> bool {
    if a.is_v4() { a.v4_bits() >> 16 == 0xa9fe } else { a.bits() >> 118 == 0xfe80 >> 6 }
}

/// Packets and bytes of each rule and policy, for one lcore.
#[derive(Debug)]
pub struct RuleCounters(Box<[Row]>);

/// A cache line of counters: no two lcores' share one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Row([(Counter, Counter); ROW]);

const ROW: usize = 4;

impl RuleCounters {
    /// Zeroes for `n` counters.
    pub fn new(n: usize) -> RuleCounters {
        RuleCounters((0..n.div_ceil(ROW)).map(|_| Row::default()).collect())
    }

    #[inline]
    fn of(&self, counter: CounterId) -> Option<&(Counter, Counter)> {
        let number = counter.0 as usize;
        self.0.get(number / ROW)?.0.get(number % ROW)
    }

    /// Adds to one counter; only the lcore it belongs to calls this.
    #[inline]
    pub fn add(&self, counter: CounterId, packets: u64, bytes: u64) {
        if let Some((p, b)) = self.of(counter) {
            p.add(packets);
            b.add(bytes);
        }
    }

    /// (packets, bytes) of one counter.
    pub fn get(&self, counter: CounterId) -> (u64, u64) {
        self.of(counter).map_or((0, 0), |(p, b)| (p.get(), b.get()))
    }
}

/// The rules of one family.
#[derive(Debug)]
pub struct FamilyRules {
    /// What is walked.
    pub rules: Compiled,
    /// What was hit, by lcore.
    pub counters: Box<[RuleCounters]>,
}

impl FamilyRules {
    /// With zeroed counters for `lcores` lcores.
    pub fn new(rules: Compiled, lcores: usize) -> FamilyRules {
        let counters =
            (0..lcores).map(|_| RuleCounters::new(rules.counters().end as usize)).collect();
        FamilyRules { rules, counters }
    }
}

/// What becomes of live conns when the rules change.
///
/// A change that conns are to live through begins an era. A conn of an earlier one passes the table
/// filter unasked in each direction whose last packet had passed it: no rule of the old ones has to
/// be kept for that, and its next packet finds a path as any other's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Conns of earlier eras go on.
    pub on: bool,
    /// The era of conns that begin, below [`Conn::ERAS`]. Round it goes: who lives through that
    /// many changes is judged by the rules in force once.
    pub era: u32,
}

impl Keeping {
    /// Behind a change of the rules.
    pub fn next(self) -> Keeping {
        Keeping { era: (self.era + 1) % Conn::ERAS, ..self }
    }

    /// True for packets of a conn that go on whatever the rules in force say.
    #[inline]
    pub fn holds(self, conn: Conn<'_>, direction: Direction) -> bool {
        self.on && conn.era() != self.era && conn.passed(direction)
    }
}

/// Everything a packet is judged by besides state.
#[derive(Debug)]
pub struct Snapshot {
    /// Grows with each publication that changes rules, routes or addresses.
    pub generation: u32,
    /// What of live conns.
    pub keeping: Keeping,
    /// By [`PortId`].
    pub ports: Box<[PortSettings]>,
    /// Where packets go.
    pub routes: Routes,
    /// IPv4 rules.
    pub v4: FamilyRules,
    /// IPv6 rules.
    pub v6: FamilyRules,
    /// Timeouts and switches of conntrack.
    pub knobs: Knobs,
    /// What some conns have instead.
    pub policies: Policies,
}

impl Snapshot {
    /// True if a rule of either family asks for a label or sets one: conns that begin then have
    /// labels (`net->ct.labels_used`).
    #[inline]
    pub fn knows_labels(&self) -> bool {
        self.v4.rules.knows_labels() || self.v6.rules.knows_labels()
    }

    /// True if a rule of either family is SYNPROXY's.
    pub fn proxies(&self) -> bool {
        self.v4.rules.proxies() || self.v6.rules.proxies()
    }

    /// True if a rule of either family asks how many conns somebody has: there has to be memory to
    /// count them.
    pub fn counts_conns(&self) -> bool {
        self.v4.rules.counts_conns() || self.v6.rules.counts_conns()
    }

    /// True if every conn that begins has counters, a time stamp or labels.
    #[inline]
    pub fn furnishes(&self) -> bool {
        self.knobs.acct || self.knobs.timestamp || self.knows_labels()
    }

    /// The rules of a family.
    #[inline]
    pub fn family(&self, v6: bool) -> &FamilyRules {
        if v6 { &self.v6 } else { &self.v4 }
    }

    /// The zones in which a packet that came in by `port`, or is our own, will be tracked; `None`
    /// if only the table raw can tell.
    #[inline]
    pub fn zones(&self, v6: bool, port: Option<PortId>) -> Option<Zones> {
        self.family(v6).rules.zones(port)
    }

    /// True for a kernel interface of the box's own programs.
    #[inline]
    pub fn is_host_tap(&self, port: PortId) -> bool {
        matches!(self.port(port).kind, PortKind::HostTap { .. })
    }

    /// A port's settings. Port numbers come from this snapshot's own tables or from the driver
    /// loop, both bounded by the number of ports; an unknown one reads as the first.
    #[inline]
    pub fn port(&self, port: PortId) -> &PortSettings {
        self.ports.get(port.0 as usize).unwrap_or(&self.ports[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<std::net::IpAddr>().unwrap().into()
    }

    #[test]
    fn the_source_is_the_primary_of_the_peers_subnet() {
        let entry = |text: &str, prefix| InterfaceAddress { address: address(text), prefix };
        let port = PortSettings {
            name: "wan".into(),
            mac: [2, 0, 0, 0, 0, 1],
            mtu: 1500,
            addresses: Box::new([
                entry("fe80::1", 64),
                entry("203.0.113.1", 24),
                entry("203.0.113.10", 24),
                entry("198.51.100.1", 24),
                entry("2001:db8::1", 64),
            ]),
            kind: PortKind::Device,
            host_tap: None,
        };
        let source = |peer| port.source_for(address(peer)).unwrap().to_string();
        assert_eq!(source("203.0.113.99"), "203.0.113.1");
        assert_eq!(source("198.51.100.7"), "198.51.100.1");
        assert_eq!(source("8.8.8.8"), "203.0.113.1");
        assert_eq!(source("2001:db8::7"), "2001:db8::1");
        assert_eq!(source("2600::1"), "2001:db8::1");
        assert_eq!(source("fe80::99"), "fe80::1");
    }
}
