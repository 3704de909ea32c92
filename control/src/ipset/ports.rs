//! Protocol and port of an element: `80`, `udp:53-55`, `icmp:echo-request`, `gre:0`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::hook::Family;

use super::Wrong;
use super::element::{self, number};
use crate::iptables::{names, services};

/// Names of ICMP types and codes; the first of a pair is printed.
const ICMP: &[(&str, u8, u8)] = &[
    ("echo-reply", 0, 0),
    ("pong", 0, 0),
    ("network-unreachable", 3, 0),
    ("host-unreachable", 3, 1),
    ("protocol-unreachable", 3, 2),
    ("port-unreachable", 3, 3),
    ("fragmentation-needed", 3, 4),
    ("source-route-failed", 3, 5),
    ("network-unknown", 3, 6),
    ("host-unknown", 3, 7),
    ("network-prohibited", 3, 9),
    ("host-prohibited", 3, 10),
    ("TOS-network-unreachable", 3, 11),
    ("TOS-host-unreachable", 3, 12),
    ("communication-prohibited", 3, 13),
    ("host-precedence-violation", 3, 14),
    ("precedence-cutoff", 3, 15),
    ("source-quench", 4, 0),
    ("network-redirect", 5, 0),
    ("host-redirect", 5, 1),
    ("TOS-network-redirect", 5, 2),
    ("TOS-host-redirect", 5, 3),
    ("echo-request", 8, 0),
    ("ping", 8, 0),
    ("router-advertisement", 9, 0),
    ("router-solicitation", 10, 0),
    ("ttl-zero-during-transit", 11, 0),
    ("ttl-zero-during-reassembly", 11, 1),
    ("ip-header-bad", 12, 0),
    ("required-option-missing", 12, 1),
    ("timestamp-request", 13, 0),
    ("timestamp-reply", 14, 0),
    ("address-mask-request", 17, 0),
    ("address-mask-reply", 18, 0),
];

/// The same of ICMPv6.
const ICMPV6: &[(&str, u8, u8)] = &[
    ("no-route", 1, 0),
    ("communication-prohibited", 1, 1),
    ("address-unreachable", 1, 3),
    ("port-unreachable", 1, 4),
    ("packet-too-big", 2, 0),
    ("ttl-zero-during-transit", 3, 0),
    ("ttl-zero-during-reassembly", 3, 1),
    ("bad-header", 4, 0),
    ("unknown-header-type", 4, 1),
    ("unknown-option", 4, 2),
    ("echo-request", 128, 0),
    ("ping", 128, 0),
    ("echo-reply", 129, 0),
    ("pong", 129, 0),
    ("router-solicitation", 133, 0),
    ("router-advertisement", 134, 0),
    ("neighbour-solicitation", 135, 0),
    ("neighbour-advertisement", 136, 0),
    ("redirect", 137, 0),
];

/// Protocol, first and last port as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) proto: u8,
    pub(super) low: u16,
    /// The last port of a range.
    pub(super) high: Option<u16>,
}

impl Ports {
    /// Reads a part of an element.
    pub(super) fn parse(text: &str, family: Family) -> Result<Ports, Wrong> {
        let (name, port) = match text.split_once(':') {
            Some((name, port)) if !port.is_empty() => (name, port),
            _ => ("tcp", text),
        };
        let lower = name.to_ascii_lowercase();
        let Some(number) = names::protocol(&lower).filter(|_| lower != "all") else {
            return Wrong::syntax(format_args!("cannot parse '{name}' as a protocol"));
        };
        let one = |low| Ok(Ports { proto: number, low, high: None });
        match number {
            proto::TCP | proto::UDP | proto::SCTP | proto::UDPLITE => {
                let range = port.split_once('-').filter(|(l, h)| !l.is_empty() && !h.is_empty());
                let (low, high) = match range {
                    Some((low, high)) => {
                        (service(low, name, number)?, Some(service(high, name, number)?))
                    }
                    None => (service(port, name, number)?, None),
                };
                Ok(Ports { proto: number, low, high })
            }
            proto::ICMP if family != Family::V4 => {
                Wrong::syntax("Protocol ICMP can be used with family inet only")
            }
            proto::ICMPV6 if family != Family::V6 => {
                Wrong::syntax("Protocol ICMPv6 can be used with family inet6 only")
            }
            proto::ICMP => one(icmp(port, ICMP, "ICMP")?),
            proto::ICMPV6 => one(icmp(port, ICMPV6, "ICMPv6")?),
            _ if port == "0" => one(0),
            _ => Wrong::syntax(format_args!(
                "Protocol {name} can be used with pseudo port value 0 only."
            )),
        }
    }

    /// The first and the last port.
    pub(super) fn bounds(&self) -> (u16, u16) {
        let high = self.high.unwrap_or(self.low);
        (self.low.min(high), self.low.max(high))
    }
}

/// `low-high` of a bitmap; `None` for one port.
pub(super) fn plain_range(text: &str) -> Result<Option<(u16, u16)>, Wrong> {
    let ports = Ports::parse(text, Family::V4)?;
    Ok(ports.high.map(|high| (ports.low, high)))
}

fn service(text: &str, name: &str, number: u8) -> Result<u16, Wrong> {
    let known = || {
        services::port(text, Some(number))
            .filter(|_| !text.starts_with(|c: char| c.is_ascii_digit()))
    };
    match element::number(text, 0, 65535) {
        Ok(port) => Ok(port as u16),
        Err(_) if known().is_some() => Ok(known().unwrap_or(0)),
        Err(Wrong::Refused(first)) => Wrong::refused(format!(
            "{first}\nSyntax error: '{name}' is invalid as number\n\
             cannot parse '{text}' as a {name} port"
        )),
        Err(other) => Err(other),
    }
}

fn icmp(text: &str, known: &[(&str, u8, u8)], name: &str) -> Result<u16, Wrong> {
    let pair = |kind: u8, code: u8| u16::from(kind) << 8 | u16::from(code);
    if let Some((_, kind, code)) = known.iter().find(|(name, ..)| *name == text) {
        return Ok(pair(*kind, *code));
    }
    let Some((kind, code)) = text.split_once('/') else {
        return Wrong::refused(format!("Cannot parse {text} as an {name} type/code."));
    };
    Ok(pair(number(kind, 0, 255)? as u8, number(code, 0, 255)? as u8))
}

/// As it is printed.
pub(super) fn text(number: u8, port: u16) -> String {
    let known = match number {
        proto::ICMP => ICMP,
        proto::ICMPV6 => ICMPV6,
        _ => &[],
    };
    let (kind, code) = ((port >> 8) as u8, port as u8);
    let port = match known.iter().find(|(_, k, c)| (*k, *c) == (kind, code)) {
        Some((name, ..)) => (*name).to_owned(),
        None if known.is_empty() => port.to_string(),
        None => format!("{kind}/{code}"),
    };
    match names::protocol_name(number) {
        Some(name) => format!("{name}:{port}"),
        None => format!("{number}:{port}"),
    }
}
