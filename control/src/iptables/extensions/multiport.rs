//! `-m multiport`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::matches::{Match, Maybe, Multiport, PortRange, Side};

use super::super::extension::{Extension, Given, Text, Whole, opt};
use super::super::print::{Line, range};
use super::super::values::{self, Fault};

pub(super) const MULTIPORT: Extension<Match> = Extension {
    name: "multiport",
    alias: "",
    family: None,
    protos: &[proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP, proto::DCCP],
    implied: false,
    options: &[
        opt("sports").or("source-ports").group(1),
        opt("dports").or("destination-ports").group(1),
        opt("ports").group(1),
    ],
    begin: |_| Match::Multiport(Multiport { side: Side::Either, not: false, ports: Vec::new() }),
};

impl Text for Multiport {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.not = given.not;
        self.side = match given.name {
            "sports" => Side::Source,
            "dports" => Side::Destination,
            _ => Side::Either,
        };
        self.ports = ports(given.text(), given.proto)?;
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("multiport: one of `--sports', `--dports' and `--ports' must be specified"
                .to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        let name = match self.side {
            Side::Source => "--sports",
            Side::Destination => "--dports",
            Side::Either => "--ports",
        };
        let list: Vec<String> = self.ports.iter().copied().map(range).collect();
        out.maybe(name, Some(Maybe { not: self.not, value: list.join(",") }), |list| list);
    }

    fn list(&self, out: &mut Line<'_>) {
        let side = match self.side {
            Side::Source => "sports",
            Side::Destination => "dports",
            Side::Either => "ports",
        };
        let list: Vec<String> = self.ports.iter().map(|ports| out.ports(*ports)).collect();
        let not = if self.not { " !" } else { "" };
        out.word(&format!("multiport {side} {not}{}", list.join(",")));
    }
}

/// Ports by numbers or services of the rule's protocol.
fn ports(text: &str, proto: Option<u8>) -> Result<Vec<PortRange>, Fault> {
    let port = |word: &str| values::port_of(word, Some(proto.unwrap_or(0)));
    let mut ports = Vec::new();
    let mut slots = 0;
    for word in text.split(',') {
        let range = match word.split_once(':') {
            None => PortRange::one(port(word)?),
            Some((low, high)) => PortRange { low: port(low)?, high: port(high)? },
        };
        if word.contains(':') && range.low >= range.high {
            return Err(format!("invalid port range `{word}'"));
        }
        slots += if range.low == range.high { 1 } else { 2 };
        ports.push(range);
    }
    if slots > Multiport::MAX_SLOTS {
        return Err(format!("too many ports in `{text}' ({} slots)", Multiport::MAX_SLOTS));
    }
    Ok(ports)
}
