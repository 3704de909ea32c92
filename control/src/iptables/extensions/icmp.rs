//! `-m icmp` and `-m icmp6`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::{IcmpKind, Match, Maybe};

use super::super::extension::{Extension, Given, Text, opt};
use super::super::names;
use super::super::print::Line;
use super::super::values::Fault;

pub(super) const ICMP: Extension<Match> = Extension {
    name: "icmp",
    alias: "",
    family: Some(Family::V4),
    protos: &[proto::ICMP],
    implied: true,
    options: &[opt("icmp-type").must()],
    begin: |_| Match::Icmp(Maybe::is(names::ANY_ICMP)),
};

pub(super) const ICMPV6: Extension<Match> = Extension {
    name: "icmp6",
    alias: "icmpv6",
    family: Some(Family::V6),
    protos: &[proto::ICMPV6],
    implied: true,
    options: &[opt("icmpv6-type").must()],
    begin: |_| Match::Icmpv6(Maybe::is(names::ANY_ICMP)),
};

impl Text for Maybe<IcmpKind> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        *self = given.maybe(names::icmp(given.text(), given.family)?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let option = if out.family == Family::V4 { "--icmp-type" } else { "--icmpv6-type" };
        let any = out.family == Family::V4 && self.value == names::ANY_ICMP;
        out.maybe(option, Some(*self), |kind| match kind {
            _ if any => "any".to_owned(),
            IcmpKind { kind, low: 0, high: 255 } => kind.to_string(),
            IcmpKind { kind, low, .. } => format!("{kind}/{low}"),
        });
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.not { "!" } else { "" };
        let IcmpKind { kind, low, high } = self.value;
        let name = names::icmp_name(self.value, out.family).filter(|_| !out.numeric);
        let protocol = if out.family == Family::V4 { "icmp" } else { "ipv6-icmp" };
        match (name, low, high) {
            (Some(name), ..) => out.word(&format!("{protocol} {not}{name}")),
            (None, 0, 255) if !self.not => out.word(&format!("{protocol}type {kind}")),
            (None, 0, 255) => out.word(&format!("{protocol} !type {kind}")),
            // The tool has no blank of its own before the type.
            _ => {
                let not = if self.not { " !" } else { "" };
                let codes = match low == high {
                    true => format!("code {low}"),
                    false => format!("codes {low}-{high}"),
                };
                out.word(&format!("{protocol}{not}type {kind} {codes}"));
            }
        }
    }
}
