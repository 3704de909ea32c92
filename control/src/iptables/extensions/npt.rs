//! `-j SNPT` and `-j DNPT`, for IPv6.

use dataplane::rules::edit::prefix::Prefixes;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::Net;
use dataplane::rules::targets::Target;
use dataplane::wire::address::Address;

use super::super::extension::{Extension, Given, Opt, Text, valued};
use super::super::print::{Line, net_text};
use super::super::values::{self, Fault};

const OPTIONS: &[Opt] = &[valued("src-pfx").must(), valued("dst-pfx").must()];

const fn row(name: &'static str, begin: fn(Family) -> Target) -> Extension<Target> {
    Extension {
        name,
        alias: "",
        family: Some(Family::V6),
        protos: &[],
        implied: false,
        options: OPTIONS,
        begin,
    }
}

pub(super) const SNPT: Extension<Target> = row("SNPT", |_| Target::Snpt(Prefixes::default()));
pub(super) const DNPT: Extension<Target> = row("DNPT", |_| Target::Dnpt(Prefixes::default()));

impl Text for Prefixes {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let prefix = prefix(given.text())?;
        *(if given.name == "src-pfx" { &mut self.from } else { &mut self.to }) = prefix;
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        for (name, prefix) in [("--src-pfx", self.from), ("--dst-pfx", self.to)] {
            out.option(name, &text(prefix));
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        let (from, to) = (text(self.from), text(self.to));
        let target = out.extension;
        out.word(&format!("{target} src-pfx {from} dst-pfx {to}"));
    }
}

/// At most 64 bits, and none set behind them (`ip6t_npt_checkentry`). One without bits, with which
/// iptables-save would print a rule that cannot be read back, is not taken.
fn prefix(text: &str) -> Result<(u128, u8), Fault> {
    let net = values::net(text, Family::V6)?;
    let host = text.split_once('/').map_or(text, |(host, _)| host);
    let length = (1..=Prefixes::MAX_LEN).find(|&length| Prefixes::mask(length) == net.mask);
    let Some(length) = length else {
        return Err(format!("`{text}' has no prefix of 1 to {} bits", Prefixes::MAX_LEN));
    };
    if values::address(host, Family::V6) != Some(net.address) {
        return Err(format!("`{text}' has bits behind its prefix"));
    }
    Ok((net.address.bits(), length))
}

fn text((bits, length): (u128, u8)) -> String {
    let net = Net { address: Address::v6(bits), mask: Prefixes::mask(length) };
    net_text(net, Family::V6, true)
}
