//! From configuration and rules to the snapshot that packets are judged by.

use std::fmt;

use dataplane::conntrack::knobs::Knobs;
use dataplane::conntrack::policies::{POLICIES_MAX, Policies};
use dataplane::pipeline::route::{PortAddress, RouteError, RouteKind, Routes, StaticRoute};
use dataplane::pipeline::snapshot::{
    FamilyRules, InterfaceAddress, Keeping, PortKind, PortSettings, Snapshot,
};
use dataplane::rules::check::CheckError;
use dataplane::rules::compiled::{Compiled, NamedThings};
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::Match;
use dataplane::rules::model::Ruleset;
use dataplane::rules::sets::Named;
use dataplane::rules::tables::Tables;

use crate::config::{Config, Port, Prefixed, Vlan};
use crate::host::Tap;
use crate::ipset::Sets;

/// Why there is no snapshot.
#[derive(Debug)]
pub enum PublishError {
    /// Addresses and routes do not make a routing table.
    Routes(RouteError),
    /// The rules do not fit together.
    Rules(CheckError),
    /// More names of timeout policies since the start than conns can tell apart.
    Policies,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Routes(e) => e.fmt(f),
            PublishError::Rules(e) => e.fmt(f),
            PublishError::Policies => {
                write!(f, "more than {POLICIES_MAX} names of timeout policies since the start")
            }
        }
    }
}

impl std::error::Error for PublishError {}

/// The rules of both families as their users see them.
#[derive(Clone, Debug)]
pub struct Rulesets {
    /// `iptables`.
    pub v4: Ruleset,
    /// `ip6tables`.
    pub v6: Ruleset,
    /// `ipset`.
    pub sets: Sets,
}

impl Rulesets {
    /// Those of a family.
    pub fn of(&self, family: Family) -> &Ruleset {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The same, to edit.
    pub fn of_mut(&mut self, family: Family) -> &mut Ruleset {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }

    /// True if the rules of both are written the same, whatever they have counted.
    pub fn say_the_same(&self, other: &Rulesets) -> bool {
        self.v4.says_the_same(&other.v4) && self.v6.says_the_same(&other.v6)
    }

    /// True if a rule asks what a conn has carried, which conns then have to count: adding one
    /// switches accounting on (`connbytes_mt_check`).
    pub fn ask_for_counts(&self) -> bool {
        let tables = [&self.v4, &self.v6].into_iter().flat_map(|r| r.tables.iter().flatten());
        let mut rules = tables.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
        rules.any(|rule| rule.matches.iter().any(|asked| matches!(asked, Match::Connbytes(_))))
    }
}

/// What the kernel has learnt on the host taps and the file does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learnt {
    /// Addresses with the number of their port, in order.
    pub addresses: Vec<(u8, Prefixed)>,
    /// Routes, sorted by [`route_order`]; of one prefix the best is enough.
    pub routes: Vec<StaticRoute>,
}

/// By prefix, then the better first.
pub fn route_order(route: &StaticRoute) -> impl Ord + use<> {
    (route.to, route.prefix_len, route.metric, route.port, route.via, route.kind)
}

/// Builds a snapshot of the configuration and what was learnt. A route of the file beats a learnt
/// one of the same prefix. `macs` are the addresses the ports really have, by port number.
///
/// # Errors
/// See [`PublishError`].
pub fn snapshot(
    config: &Config,
    macs: &[[u8; 6]],
    learnt: &Learnt,
    rulesets: &Rulesets,
    knobs: Knobs,
    before: Option<&Snapshot>,
    lcores: usize,
) -> Result<Snapshot, PublishError> {
    let sets = rulesets.sets.named();
    let tables = before.map(|before| before.v4.rules.tables().clone()).unwrap_or_default();
    let tables = tables.next(&[&rulesets.v4, &rulesets.v6]);
    compiled(config, macs, learnt, (rulesets, &sets, &tables), knobs, before, lcores)
}

/// What those begin with who judge apart, of what rules keep from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As if all rules were new.
    Anew,
    /// A copy of what there is.
    AsNow,
}

/// The same for one lcore that judges beside the others: what its walks change of sets, and use up
/// of what rules keep, is seen by nobody else. Copies all sets.
///
/// # Errors
/// See [`PublishError`].
pub fn apart(
    config: &Config,
    macs: &[[u8; 6]],
    learnt: &Learnt,
    rulesets: &Rulesets,
    knobs: Knobs,
    (before, begin): (&Snapshot, Begin),
) -> Result<Snapshot, PublishError> {
    let sets = rulesets.sets.named();
    let sets = sets.into_iter().map(|(name, set)| (name, set.apart())).collect();
    let mut rulesets = rulesets.clone();
    for ruleset in [&mut rulesets.v4, &mut rulesets.v6] {
        match begin {
            Begin::Anew => ruleset.renew(),
            Begin::AsNow => ruleset.part(),
        }
    }
    let tables = match begin {
        Begin::Anew => Tables::default(),
        Begin::AsNow => before.v4.rules.tables().apart(),
    };
    let tables = tables.next(&[&rulesets.v4, &rulesets.v6]);
    compiled(config, macs, learnt, (&rulesets, &sets, &tables), knobs, Some(before), 1)
}

fn compiled(
    config: &Config,
    macs: &[[u8; 6]],
    learnt: &Learnt,
    (rulesets, sets, tables): (&Rulesets, &Named, &Tables),
    knobs: Knobs,
    before: Option<&Snapshot>,
    lcores: usize,
) -> Result<Snapshot, PublishError> {
    let names: Vec<&str> = config.ports.iter().map(|p| p.name.as_str()).collect();
    let policies = before.map_or(Policies::default(), |before| before.policies.clone());
    let policies = policies.next(&config.timeout_policies, &knobs).ok_or(PublishError::Policies)?;
    let compile = |ruleset: &Ruleset| {
        let named = NamedThings { policies: &policies, sets, tables: Some(tables) };
        let rules = Compiled::with_named(ruleset, &names, named, 0);
        let rules = rules.map_err(PublishError::Rules)?;
        Ok(FamilyRules::new(rules, lcores))
    };
    let ports = ports(config, macs, learnt);
    Ok(Snapshot {
        generation: before.map_or(1, |before| before.generation.wrapping_add(1)),
        keeping: before.map_or(Keeping::default(), |before| before.keeping),
        routes: routes(config, &ports, learnt)?,
        ports,
        v4: compile(&rulesets.v4)?,
        v6: compile(&rulesets.v6)?,
        knobs,
        policies,
    })
}

/// Configured ports in their order, then a port for each host tap in the order of theirs.
fn ports(config: &Config, macs: &[[u8; 6]], learnt: &Learnt) -> Box<[PortSettings]> {
    let mut ports = Vec::new();
    let mut taps = Vec::new();
    for (number, (port, mac)) in config.ports.iter().zip(macs).enumerate() {
        let tap = port.host_tap.as_ref().map(|name| {
            let id = PortId((config.ports.len() + taps.len()) as u8);
            taps.push(PortSettings {
                name: name.clone(),
                mac: *mac,
                mtu: port.mtu.into(),
                addresses: Box::default(),
                kind: PortKind::HostTap { of: PortId(number as u8) },
                host_tap: None,
            });
            id
        });
        let entry = |a: &Prefixed| InterfaceAddress { address: a.address, prefix: a.prefix };
        let learnt = learnt.addresses.iter().filter(|(of, _)| usize::from(*of) == number);
        let mut addresses: Vec<_> = own_addresses(port, *mac).iter().map(entry).collect();
        addresses.extend(learnt.map(|(_, address)| entry(address)));
        ports.push(PortSettings {
            name: port.name.clone(),
            mac: *mac,
            mtu: port.mtu.into(),
            addresses: addresses.into(),
            kind: kind(port),
            host_tap: tap,
        });
    }
    ports.extend(taps);
    ports.into()
}

/// The addresses of the file, and the link-local one that Linux gives every interface that speaks
/// IPv6. Where the kernel has an interface for the port, programs there may speak it too.
fn own_addresses(port: &Port, mac: [u8; 6]) -> Vec<Prefixed> {
    let mut addresses = port.addresses.clone();
    let named = addresses.iter().any(|a| !a.address.is_v4());
    // RFC 8200, section 5: the kernel keeps IPv6 from smaller links.
    if named || (port.host_tap.is_some() && port.mtu >= 1280) {
        addresses.push(Prefixed { address: link_local(mac), prefix: 64 });
    }
    addresses
}

/// The host taps of a configuration, as the kernel shall have them.
pub fn taps(config: &Config, macs: &[[u8; 6]]) -> Vec<Tap> {
    let tap = |(number, (port, mac)): (usize, (&Port, &[u8; 6]))| {
        Some(Tap {
            name: port.host_tap.clone()?,
            port: number as u8,
            mac: *mac,
            mtu: port.mtu,
            addresses: own_addresses(port, *mac),
        })
    };
    config.ports.iter().zip(macs).enumerate().filter_map(tap).collect()
}

/// What stands behind a port of the configuration.
fn kind(port: &Port) -> PortKind {
    match port.vlan {
        Some(Vlan { parent, id }) => PortKind::Vlan { parent: PortId(parent as u8), id },
        None => PortKind::Device,
    }
}

/// The link-local address of a port (RFC 4291 appendix A), which Linux gives every interface that
/// speaks IPv6.
fn link_local(mac: [u8; 6]) -> dataplane::wire::address::Address {
    let [a, b, c, d, e, f] = mac;
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    dataplane::wire::address::Address::v6(0xfe80 << 112 | id as u128)
}

fn routes(
    config: &Config,
    ports: &[PortSettings],
    learnt: &Learnt,
) -> Result<Routes, PublishError> {
    let mut addresses = Vec::new();
    for (number, port) in ports.iter().enumerate() {
        for a in &port.addresses {
            let port = number as u8;
            addresses.push(PortAddress { port, address: a.address, prefix_len: a.prefix });
        }
    }
    // Metric 0 and the first place: nothing that is learnt comes before the file.
    let configured = config.routes.iter().map(|route| StaticRoute {
        to: route.to.address,
        prefix_len: route.to.prefix,
        via: route.via,
        port: route.port as u8,
        metric: 0,
        kind: RouteKind::Unicast,
    });
    let routes: Vec<StaticRoute> = configured.chain(learnt.routes.iter().copied()).collect();
    Routes::new(&addresses, &routes).map_err(PublishError::Routes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::pipeline::route::{Destination, Route};
    use dataplane::rules::hook::Family;
    use dataplane::wire::address::Address;

    const LAN: [u8; 6] = [2, 0, 0, 0, 0x10, 1];
    const WAN: [u8; 6] = [2, 0, 0, 0, 0x10, 2];

    fn address(text: &str) -> Address {
        text.parse::<std::net::IpAddr>().unwrap().into()
    }

    fn config() -> Config {
        let text = "[[port]]\nname = \"dmz\"\ndevice = \"net_null0\"\n\
                    [[port]]\nname = \"lan\"\ndevice = \"net_null1\"\nhost_tap = \"sgh-lan\"\n\
                    addresses = [\"10.7.0.1/24\"]\nmtu = 1279\n\
                    [[port]]\nname = \"wan\"\ndevice = \"net_null2\"\nhost_tap = \"wan\"\n\
                    [[route]]\nto = \"10.50.0.0/16\"\nvia = \"10.7.0.9\"\nport = \"lan\"\n";
        Config::parse("x.toml".as_ref(), text, 1 << 32).unwrap()
    }

    fn published(learnt: &Learnt) -> Result<Snapshot, PublishError> {
        let rules = Rulesets {
            v4: Ruleset::new(Family::V4),
            v6: Ruleset::new(Family::V6),
            sets: Default::default(),
        };
        snapshot(&config(), &[[2; 6], LAN, WAN], learnt, &rules, Knobs::default(), None, 1)
    }

    fn route(to: &str, prefix_len: u8, via: &str, metric: u32) -> StaticRoute {
        let kind = RouteKind::Unicast;
        let via = Some(address(via));
        StaticRoute { to: address(to), prefix_len, via, port: 2, metric, kind }
    }

    #[test]
    fn link_local_addresses_are_linux_s() {
        let address = link_local([0x02, 0x00, 0x00, 0x00, 0x10, 0x01]);
        assert_eq!(address.to_string(), "fe80::ff:fe00:1001");
    }

    #[test]
    fn taps_come_behind_the_ports_and_each_knows_the_other() {
        let snapshot = published(&Learnt::default()).unwrap();
        let port = |p: &PortSettings| (p.name.clone(), p.kind, p.host_tap, p.mac);
        let tap = |of| PortKind::HostTap { of: PortId(of) };
        let expected = [
            ("dmz".to_owned(), PortKind::Device, None, [2; 6]),
            ("lan".to_owned(), PortKind::Device, Some(PortId(3)), LAN),
            ("wan".to_owned(), PortKind::Device, Some(PortId(4)), WAN),
            ("sgh-lan".to_owned(), tap(1), None, LAN),
            ("wan".to_owned(), tap(2), None, WAN),
        ];
        assert_eq!(snapshot.ports.iter().map(port).collect::<Vec<_>>(), expected);
        assert!(snapshot.ports[3..].iter().all(|p| p.addresses.is_empty()));
    }

    #[test]
    fn a_port_with_a_tap_speaks_ipv6_where_its_mtu_allows_it() {
        let taps = taps(&config(), &[[2; 6], LAN, WAN]);
        let addresses = |n: usize| taps[n].addresses.iter().map(|a| a.address.to_string());
        assert_eq!(addresses(0).collect::<Vec<_>>(), ["10.7.0.1"]);
        assert_eq!(addresses(1).collect::<Vec<_>>(), ["fe80::ff:fe00:1002"]);
        assert_eq!((taps[1].port, taps[1].mtu, taps[1].mac), (2, 1500, WAN));
    }

    #[test]
    fn the_file_comes_before_what_is_learnt() {
        let learnt = Learnt {
            addresses: vec![(2, Prefixed { address: address("203.0.113.7"), prefix: 24 })],
            routes: vec![
                route("0.0.0.0", 0, "203.0.113.1", 0),
                route("10.50.0.0", 16, "203.0.113.1", 0),
                route("10.50.7.0", 24, "203.0.113.1", 20),
            ],
        };
        let snapshot = published(&learnt).unwrap();
        let via = |to| snapshot.routes.lookup(address(to)).unwrap();
        let by = |port, via: &str| Route { port, via: Some(address(via)) };
        assert_eq!(via("10.50.1.1"), by(1, "10.7.0.9"), "the file's route of the same prefix");
        assert_eq!(via("10.50.7.1"), by(2, "203.0.113.1"), "a longer prefix is another route");
        assert_eq!(via("8.8.8.8"), by(2, "203.0.113.1"));
        assert_eq!(via("203.0.113.9"), Route { port: 2, via: None }, "a learnt network");
        let own = snapshot.routes.classify(address("203.0.113.7"), Some(2));
        assert_eq!(own, Destination::Local(2));
        assert_eq!(snapshot.ports[2].primary_v4(), Some(address("203.0.113.7")));
    }

    #[test]
    fn of_learnt_routes_the_lower_metric_comes_first() {
        let mut routes = vec![
            route("10.60.0.0", 16, "203.0.113.3", 300),
            route("10.60.0.0", 16, "203.0.113.1", 100),
        ];
        routes.sort_by_key(route_order);
        assert_eq!(routes.iter().map(|r| r.metric).collect::<Vec<_>>(), [100, 300]);
        let snapshot = published(&Learnt { addresses: vec![], routes }).unwrap();
        let way = snapshot.routes.lookup(address("10.60.1.1")).unwrap();
        assert_eq!(way.via, Some(address("203.0.113.1")));
    }
}
