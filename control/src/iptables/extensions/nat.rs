//! `-j SNAT`, `-j DNAT`, `-j MASQUERADE` and `-j REDIRECT`.

use core::fmt::Write;

use dataplane::conntrack::tuple::proto;
use dataplane::rules::hook::Family;
use dataplane::rules::targets::{NatOptions, Target};

use super::super::extension::{Extension, Given, Opt, Text, Whole, flag, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

const fn row(
    name: &'static str,
    options: &'static [Opt],
    begin: fn(Family) -> Target,
) -> Extension<Target> {
    Extension { name, alias: "", family: None, protos: &[], implied: false, options, begin }
}

pub(super) const SNAT: Extension<Target> = row(
    "SNAT",
    &[valued("to-source").must(), flag("random"), flag("random-fully"), flag("persistent")],
    |_| Target::Snat(NatOptions::default()),
);
pub(super) const DNAT: Extension<Target> =
    row("DNAT", &[valued("to-destination").must(), flag("random"), flag("persistent")], |_| {
        Target::Dnat(NatOptions::default())
    });
pub(super) const MASQUERADE: Extension<Target> =
    row("MASQUERADE", &[valued("to-ports"), flag("random"), flag("random-fully")], |_| {
        Target::Masquerade(NatOptions::default())
    });
pub(super) const REDIRECT: Extension<Target> =
    row("REDIRECT", &[valued("to-ports"), flag("random")], |_| {
        Target::Redirect(NatOptions::default())
    });

impl Text for NatOptions {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "to-source" => values::nat_range(text, given.family, false, self)?,
            "to-destination" => values::nat_range(text, given.family, true, self)?,
            "to-ports" => values::nat_ports(text, false, self)?,
            "random" => self.random = true,
            "random-fully" => self.random_fully = true,
            _ => self.persistent = true,
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let proto = whole.rule.basics.proto;
        if self.ports.is_some() && !proto.is_some_and(|p| has_ports(p.value)) {
            let name = whole.name;
            return Err(format!("{name}: ports need `-p' with TCP, UDP, SCTP, DCCP or ICMP"));
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let (name, to) = (out.extension, to(self, out));
        if !to.is_empty() {
            out.option(
                match name {
                    "SNAT" => "--to-source",
                    "DNAT" => "--to-destination",
                    _ => "--to-ports",
                },
                &to,
            );
        }
        flags(self, out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        let (name, to) = (out.extension, to(self, out));
        if !to.is_empty() {
            out.word(&match name {
                "SNAT" | "DNAT" => format!("to:{to}"),
                "REDIRECT" => format!("redir ports {to}"),
                _ => format!("masq ports: {to}"),
            });
        }
        flags(self, out, "");
    }
}

fn flags(options: &NatOptions, out: &mut Line<'_>, dashes: &str) {
    let flags = [
        (options.random, "random"),
        (options.random_fully, "random-fully"),
        (options.persistent, "persistent"),
    ];
    for (_, name) in flags.into_iter().filter(|(set, _)| *set) {
        out.word(&format!("{dashes}{name}"));
    }
}

/// Addresses and ports; empty where neither is given.
fn to(options: &NatOptions, out: &Line<'_>) -> String {
    let mut to = String::new();
    if let Some((low, high)) = options.addresses {
        to = values::address_text(low, out.family);
        if high != low {
            let _ = write!(to, "-{}", values::address_text(high, out.family));
        }
        if out.family == Family::V6 && options.ports.is_some() {
            to = format!("[{to}]");
        }
    }
    if let Some((low, high)) = options.ports {
        if matches!(out.extension, "SNAT" | "DNAT") {
            to.push(':');
        }
        let _ = write!(to, "{low}");
        if high != low {
            let _ = write!(to, "-{high}");
        }
        if let Some(base) = options.base_port {
            let _ = write!(to, "/{base}");
        }
    }
    to
}

fn has_ports(number: u8) -> bool {
    matches!(
        number,
        proto::TCP | proto::UDP | proto::SCTP | proto::DCCP | proto::ICMP | proto::ICMPV6
    )
}
