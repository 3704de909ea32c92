//! From configuration and rules to the snapshot that packets are judged by.

use std::fmt;

use dataplane::conntrack::knobs::Knobs;
use dataplane::pipeline::route::{PortAddress, RouteError, RouteKind, Routes, StaticRoute};
use dataplane::pipeline::snapshot::{
    FamilyRules, InterfaceAddress, PortKind, PortSettings, Snapshot,
};
use dataplane::rules::check::CheckError;
use dataplane::rules::compiled::Compiled;
use dataplane::rules::facts::PortId;
use dataplane::rules::model::Ruleset;

use crate::config::{Config, Port, Vlan};

/// Why there is no snapshot.
#[derive(Debug)]
pub enum PublishError {
    /// Addresses and routes do not make a routing table.
    Routes(RouteError),
    /// The rules do not fit together.
    Rules(CheckError),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PublishError::Routes(e) => e.fmt(f),
            PublishError::Rules(e) => e.fmt(f),
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
}

/// Builds a snapshot. `macs` are the addresses the ports really have, by port number.
///
/// # Errors
/// See [`PublishError`].
pub fn snapshot(
    config: &Config,
    macs: &[[u8; 6]],
    rulesets: &Rulesets,
    knobs: Knobs,
    generation: u32,
    lcores: usize,
) -> Result<Snapshot, PublishError> {
    let names: Vec<&str> = config.ports.iter().map(|p| p.name.as_str()).collect();
    let compile = |ruleset: &Ruleset| {
        let rules = Compiled::new(ruleset, &names, 0).map_err(PublishError::Rules)?;
        Ok(FamilyRules::new(rules, lcores))
    };
    let ports = config.ports.iter().zip(macs).map(|(p, mac)| settings(p, *mac)).collect();
    Ok(Snapshot {
        generation,
        ports,
        routes: routes(config, macs)?,
        v4: compile(&rulesets.v4)?,
        v6: compile(&rulesets.v6)?,
        knobs,
    })
}

fn settings(port: &Port, mac: [u8; 6]) -> PortSettings {
    let addresses =
        port.addresses.iter().map(|a| InterfaceAddress { address: a.address, prefix: a.prefix });
    let link_local = InterfaceAddress { address: link_local(mac), prefix: 64 };
    let has_v6 = port.addresses.iter().any(|a| !a.address.is_v4());
    PortSettings {
        name: port.name.clone(),
        mac,
        mtu: port.mtu.into(),
        addresses: addresses.chain(has_v6.then_some(link_local)).collect(),
        kind: kind(port),
        host_tap: None,
    }
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

fn routes(config: &Config, macs: &[[u8; 6]]) -> Result<Routes, PublishError> {
    let mut addresses = Vec::new();
    for (number, (port, mac)) in config.ports.iter().zip(macs).enumerate() {
        for a in settings(port, *mac).addresses.iter() {
            let port = number as u8;
            addresses.push(PortAddress { port, address: a.address, prefix_len: a.prefix });
        }
    }
    let routes: Vec<StaticRoute> = config
        .routes
        .iter()
        .map(|route| StaticRoute {
            to: route.to.address,
            prefix_len: route.to.prefix,
            via: route.via,
            port: route.port as u8,
            metric: 0,
            kind: RouteKind::Unicast,
        })
        .collect();
    Routes::new(&addresses, &routes).map_err(PublishError::Routes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_linux_s() {
        let address = link_local([0x02, 0x00, 0x00, 0x00, 0x10, 0x01]);
        assert_eq!(address.to_string(), "fe80::ff:fe00:1001");
    }
}
