//! Rules in few words.

use dataplane::conntrack::state::Status;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::{
    Basics, Conntrack, Masked, Match, Maybe, Net, PortRange, StateMask, Tcp, TcpFlags, Udp,
};
use dataplane::rules::model::{Counters, Place, Rule};
use dataplane::rules::targets::{Log, NatOptions, RejectWith, Target};

use super::rig::address;

pub(crate) const V4: Family = Family::V4;
pub(crate) const V6: Family = Family::V6;

/// `-j TARGET` without any test.
pub(crate) fn on(target: Target) -> Rule {
    Rule {
        place: Place::default(),
        counters: Counters::default(),
        basics: Basics::default(),
        matches: Vec::new(),
        target,
    }
}

pub(crate) fn accept() -> Rule {
    on(Target::Accept)
}

pub(crate) fn drop() -> Rule {
    on(Target::Drop)
}

/// A rule without target: it counts.
pub(crate) fn count() -> Rule {
    on(Target::None)
}

pub(crate) fn reject(code: u8) -> Rule {
    on(Target::Reject(RejectWith::Unreachable(code)))
}

pub(crate) fn reset() -> Rule {
    on(Target::Reject(RejectWith::TcpReset)).proto(6)
}

pub(crate) fn log(prefix: &str) -> Rule {
    on(Target::Log(Log { prefix: prefix.into(), level: 4, flags: 0 }))
}

/// `-j MASQUERADE`.
pub(crate) fn masquerade() -> Rule {
    on(Target::Masquerade(NatOptions::default())).out_port("wan")
}

/// `a`, or `a` with a range of ports.
pub(crate) fn to(a: &str, ports: Option<(u16, u16)>) -> NatOptions {
    NatOptions { addresses: Some((address(a), address(a))), ports, ..NatOptions::default() }
}

pub(crate) fn snat(a: &str) -> Rule {
    on(Target::Snat(to(a, None)))
}

pub(crate) fn dnat(a: &str, port: Option<u16>) -> Rule {
    on(Target::Dnat(to(a, port.map(|p| (p, p)))))
}

pub(crate) fn redirect(port: Option<u16>) -> Rule {
    on(Target::Redirect(NatOptions { ports: port.map(|p| (p, p)), ..NatOptions::default() }))
}

/// The tests of a rule, added one by one.
pub(crate) trait Tests: Sized {
    fn proto(self, number: u8) -> Self;
    fn src(self, net: &str, bits: u8) -> Self;
    fn dst(self, net: &str, bits: u8) -> Self;
    fn in_port(self, name: &str) -> Self;
    fn out_port(self, name: &str) -> Self;
    fn state(self, states: StateMask) -> Self;
    fn status(self, status: Status) -> Self;
    fn dport(self, port: u16) -> Self;
    fn mark(self, value: u32) -> Self;
    fn flags(self, mask: u8, set: u8) -> Self;
}

fn net(text: &str, bits: u8) -> Maybe<Net> {
    let a = address(text);
    let width = if a.is_v4() { 32 } else { 128 };
    let all = if a.is_v4() { u32::MAX as u128 } else { u128::MAX };
    let mask = if bits == 0 { 0 } else { all & (all << (width - bits as u32)) };
    Maybe::is(Net { address: a, mask })
}

impl Tests for Rule {
    fn proto(mut self, number: u8) -> Rule {
        self.basics.proto = Some(Maybe::is(number));
        self
    }

    fn src(mut self, text: &str, bits: u8) -> Rule {
        self.basics.src = Some(net(text, bits));
        self
    }

    fn dst(mut self, text: &str, bits: u8) -> Rule {
        self.basics.dst = Some(net(text, bits));
        self
    }

    fn in_port(mut self, name: &str) -> Rule {
        self.basics.in_port = Some(Maybe::is(name.into()));
        self
    }

    fn out_port(mut self, name: &str) -> Rule {
        self.basics.out_port = Some(Maybe::is(name.into()));
        self
    }

    fn state(mut self, states: StateMask) -> Rule {
        let asked = Conntrack { state: Some(Maybe::is(states)), ..Conntrack::default() };
        self.matches.push(Match::Conntrack(Box::new(asked)));
        self
    }

    fn status(mut self, status: Status) -> Rule {
        let asked = Conntrack { status: Some(Maybe::is(status.0)), ..Conntrack::default() };
        self.matches.push(Match::Conntrack(Box::new(asked)));
        self
    }

    fn dport(mut self, port: u16) -> Rule {
        let dst_port = Some(Maybe::is(PortRange::one(port)));
        self.matches.push(match self.basics.proto.expect("a protocol first").value {
            6 => Match::Tcp(Tcp { dst_port, ..Tcp::default() }),
            _ => Match::Udp(Udp { dst_port, ..Udp::default() }),
        });
        self
    }

    fn mark(mut self, value: u32) -> Rule {
        self.matches.push(Match::Mark(Maybe::is(Masked { value, mask: u32::MAX })));
        self
    }

    fn flags(mut self, mask: u8, set: u8) -> Rule {
        let flags = Some(Maybe::is(TcpFlags { mask, set }));
        self.basics.proto = Some(Maybe::is(6));
        self.matches.push(Match::Tcp(Tcp { flags, ..Tcp::default() }));
        self
    }
}
