//! What the kernel learns on the host taps, into the policy.
//!
//! Changes are gathered: a snapshot is published at most every [`PAUSE`], and when building and
//! adopting one takes long, less often, so that a storm of routes leaves most of the control core's
//! time to everything else. A change that comes to nothing (a worse route than the one in use)
//! publishes nothing. Conns keep their translation when an address goes; the kernel would delete
//! those that MASQUERADE had given it (`masq_inet_event`), here they end by their timeouts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::wire::address::Address;

use super::ControlCore;
use super::policy::Tally;
use crate::config::{Config, Prefixed};
use crate::host::Host;
use crate::publish::{self, Learnt, PublishError};
use crate::tools::stats::HostStats;

/// The least time between two snapshots that only learning asks for.
const PAUSE: Duration = Duration::from_millis(50);

/// Of the time between two such snapshots, publishing takes at most one part in so many.
const SHARE: u32 = 5;

/// The kernel's side of the control core.
pub(super) struct HostSide {
    host: Host,
    /// Something was heard that is not in the snapshot.
    stale: bool,
    not_before: Instant,
}

/// Whether the file gives a port this address.
fn named(config: &Config) -> impl Fn(u8, Address) -> bool {
    |_, address| config.ports.iter().flat_map(|p| &p.addresses).any(|a| a.address == address)
}

impl ControlCore {
    /// Takes the host taps under its care. To be called before the first worker starts.
    ///
    /// # Errors
    /// If what the kernel has does not fit into a snapshot.
    pub fn attach_host(&mut self, host: Host) -> Result<(), PublishError> {
        self.learnt = host.learnt(named(&self.config));
        let (config, macs, rulesets) = (&self.config, &self.macs, &self.rulesets);
        let snapshot = self.build(config, macs, rulesets)?;
        self.tally = Tally::of(&snapshot);
        self.snapshot = Arc::new(snapshot);
        say_difference(&Learnt::default(), &self.learnt);
        self.host = Some(HostSide { host, stale: false, not_before: Instant::now() });
        Ok(())
    }

    /// Tells the tap of a port about its wire.
    pub(super) fn set_carrier(&mut self, port: u8, up: bool) {
        if let Some(side) = &mut self.host {
            side.host.set_carrier(port, up);
        }
    }

    /// Hears the kernel and publishes what it has learnt, when it is time.
    pub(super) fn follow_host(&mut self) {
        let Some(side) = &mut self.host else { return };
        side.host.poll();
        side.stale |= side.host.take_changed();
        if !side.stale || Instant::now() < side.not_before {
            return;
        }
        side.stale = false;
        let begun = Instant::now();
        let learnt = side.host.learnt(named(&self.config));
        if learnt != self.learnt {
            self.publish_learnt(learnt);
        }
        if let Some(side) = &mut self.host {
            let took = begun.elapsed();
            side.not_before = begun + took + PAUSE.max(took * (SHARE - 1));
            log::debug!("host: published in {} us", took.as_micros());
        }
    }

    fn publish_learnt(&mut self, learnt: Learnt) {
        // First, or what is counted now would be missing in the copy that comes into force. While a
        // worker does not answer, what is learnt has to wait.
        if self.count_rules().is_err() {
            if let Some(side) = &mut self.host {
                side.stale = true;
            }
            return;
        }
        let before = std::mem::replace(&mut self.learnt, learnt);
        match self.build(&self.config, &self.macs, &self.rulesets) {
            Ok(snapshot) => {
                say_difference(&before, &self.learnt);
                // The log tells of a worker that is late.
                let _ = self.adopt(snapshot, self.rulesets.clone());
            }
            Err(error) => {
                log::error!("host: what was learnt cannot be used: {error}");
                self.learnt = before;
            }
        }
    }

    /// What would be learnt if this configuration were in force.
    pub(super) fn learnt_under(&self, config: &Config) -> Learnt {
        match &self.host {
            Some(side) => side.host.learnt(named(config)),
            None => Learnt::default(),
        }
    }

    /// Gives the taps the addresses of the configuration in force.
    pub(super) fn address_taps(&mut self) {
        let Some(side) = &mut self.host else { return };
        for tap in publish::taps(&self.config, &self.macs) {
            side.host.set_addresses(tap.port, &tap.addresses);
        }
    }

    pub(super) fn host_stats(&self) -> HostStats {
        HostStats {
            taps: self.config.ports.iter().filter(|p| p.host_tap.is_some()).count(),
            learnt_addresses: self.learnt.addresses.len(),
            learnt_routes: self.learnt.routes.len(),
        }
    }
}

/// How many of `from` are not among `among`; both sorted by what `key` makes of them.
fn missing<T, K: Ord>(from: &[T], among: &[T], key: impl Fn(&T) -> K) -> usize {
    let mut others = among.iter().map(&key).peekable();
    let is_missing = |one: &&T| {
        let wanted = key(one);
        while others.next_if(|other| *other < wanted).is_some() {}
        others.peek() != Some(&wanted)
    };
    from.iter().filter(is_missing).count()
}

fn address_key((port, address): &(u8, Prefixed)) -> (u8, Address, u8) {
    (*port, address.address, address.prefix)
}

/// Routes and addresses of `from` that `among` does not have.
fn difference(from: &Learnt, among: &Learnt) -> (usize, usize) {
    let routes = missing(&from.routes, &among.routes, publish::route_order);
    (routes, missing(&from.addresses, &among.addresses, address_key))
}

fn words((routes, addresses): (usize, usize)) -> Option<String> {
    let plural = |n: usize, one: &str, more: &str| match n {
        0 => None,
        1 => Some(format!("1 {one}")),
        n => Some(format!("{n} {more}")),
    };
    let parts = [plural(routes, "route", "routes"), plural(addresses, "address", "addresses")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" and "))
}

/// The line that tells an operator about one batch.
fn difference_line(before: &Learnt, now: &Learnt) -> Option<String> {
    let came = words(difference(now, before)).map(|words| format!("learnt {words}"));
    let went = words(difference(before, now)).map(|words| format!("forgot {words}"));
    let parts: Vec<String> = [came, went].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("host: {}", parts.join(", ")))
}

fn say_difference(before: &Learnt, now: &Learnt) {
    if let Some(line) = difference_line(before, now) {
        log::info!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::pipeline::route::{RouteKind, StaticRoute};

    fn learnt(routes: &[u32], addresses: &[u32]) -> Learnt {
        let route = |n: &u32| StaticRoute {
            to: Address::v4(n << 8),
            prefix_len: 24,
            via: None,
            port: 0,
            metric: 20,
            kind: RouteKind::Unicast,
        };
        let address = |n: &u32| (0, Prefixed { address: Address::v4(*n), prefix: 24 });
        Learnt {
            routes: routes.iter().map(route).collect(),
            addresses: addresses.iter().map(address).collect(),
        }
    }

    #[test]
    fn a_batch_is_one_line() {
        let line = |before: &Learnt, now: &Learnt| difference_line(before, now).unwrap();
        let (none, some) = (learnt(&[], &[]), learnt(&[1, 2, 3], &[7]));
        assert_eq!(line(&none, &some), "host: learnt 3 routes and 1 address");
        assert_eq!(line(&some, &none), "host: forgot 3 routes and 1 address");
        assert_eq!(
            line(&some, &learnt(&[1, 3, 4, 5], &[7])),
            "host: learnt 2 routes, forgot 1 route"
        );
        assert_eq!(difference_line(&some, &some.clone()), None);
        let mut other = some.clone();
        other.routes[1].via = Some(Address::v4(9));
        assert_eq!(line(&some, &other), "host: learnt 1 route, forgot 1 route");
    }
}
