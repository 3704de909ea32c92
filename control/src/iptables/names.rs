//! Names for numbers: protocols, ICMP types, REJECT types, log levels, states, flags.
//!
//! Numbers are the assigned ones (IANA); spellings and abbreviations are those that iptables takes.

use dataplane::rules::hook::Family;
use dataplane::rules::matches::{IcmpKind, StateMask};
use dataplane::rules::targets::RejectWith;

/// Assigned protocol names; the first name of a number is the one printed.
const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("st", 5),
    ("tcp", 6),
    ("egp", 8),
    ("igp", 9),
    ("pup", 12),
    ("udp", 17),
    ("hmp", 20),
    ("xns-idp", 22),
    ("rdp", 27),
    ("iso-tp4", 29),
    ("dccp", 33),
    ("xtp", 36),
    ("ddp", 37),
    ("idpr-cmtp", 38),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("idrp", 45),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("skip", 57),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("rspf", 73),
    ("vmtp", 81),
    ("eigrp", 88),
    ("ospf", 89),
    ("ax.25", 93),
    ("ipip", 94),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("ipcomp", 108),
    ("vrrp", 112),
    ("l2tp", 115),
    ("isis", 124),
    ("sctp", 132),
    ("fc", 133),
    ("mobility-header", 135),
    ("udplite", 136),
    ("mpls-in-ip", 137),
    ("manet", 138),
    ("hip", 139),
    ("shim6", 140),
    ("wesp", 141),
    ("rohc", 142),
    ("ethernet", 143),
    ("icmpv6", 58),
    ("ipv6-mh", 135),
    ("mh", 135),
];

/// The protocol of a name or number; case does not matter.
pub(crate) fn protocol(word: &str) -> Option<u8> {
    if let Ok(number) = super::values::number(word) {
        return u8::try_from(number).ok();
    }
    let word = word.to_ascii_lowercase();
    if word == "all" {
        return Some(0);
    }
    PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number)
}

/// The name that `iptables-save` prints for a protocol.
pub(crate) fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// A type with all its codes.
const fn all(kind: u8) -> IcmpKind {
    IcmpKind { kind, low: 0, high: 255 }
}

/// A type with one code.
const fn one(kind: u8, code: u8) -> IcmpKind {
    IcmpKind { kind, low: code, high: code }
}

/// Any ICMP type (IPv4 only).
pub(super) const ANY_ICMP: IcmpKind = all(255);

const ICMP: &[(&str, IcmpKind)] = &[
    ("any", ANY_ICMP),
    ("echo-reply", all(0)),
    ("pong", all(0)),
    ("destination-unreachable", all(3)),
    ("network-unreachable", one(3, 0)),
    ("host-unreachable", one(3, 1)),
    ("protocol-unreachable", one(3, 2)),
    ("port-unreachable", one(3, 3)),
    ("fragmentation-needed", one(3, 4)),
    ("source-route-failed", one(3, 5)),
    ("network-unknown", one(3, 6)),
    ("host-unknown", one(3, 7)),
    ("network-prohibited", one(3, 9)),
    ("host-prohibited", one(3, 10)),
    ("TOS-network-unreachable", one(3, 11)),
    ("TOS-host-unreachable", one(3, 12)),
    ("communication-prohibited", one(3, 13)),
    ("host-precedence-violation", one(3, 14)),
    ("precedence-cutoff", one(3, 15)),
    ("source-quench", all(4)),
    ("redirect", all(5)),
    ("network-redirect", one(5, 0)),
    ("host-redirect", one(5, 1)),
    ("TOS-network-redirect", one(5, 2)),
    ("TOS-host-redirect", one(5, 3)),
    ("echo-request", all(8)),
    ("ping", all(8)),
    ("router-advertisement", all(9)),
    ("router-solicitation", all(10)),
    ("time-exceeded", all(11)),
    ("ttl-exceeded", all(11)),
    ("ttl-zero-during-transit", one(11, 0)),
    ("ttl-zero-during-reassembly", one(11, 1)),
    ("parameter-problem", all(12)),
    ("ip-header-bad", one(12, 0)),
    ("required-option-missing", one(12, 1)),
    ("timestamp-request", all(13)),
    ("timestamp-reply", all(14)),
    ("address-mask-request", all(17)),
    ("address-mask-reply", all(18)),
];

const ICMPV6: &[(&str, IcmpKind)] = &[
    ("destination-unreachable", all(1)),
    ("no-route", one(1, 0)),
    ("communication-prohibited", one(1, 1)),
    ("beyond-scope", one(1, 2)),
    ("address-unreachable", one(1, 3)),
    ("port-unreachable", one(1, 4)),
    ("failed-policy", one(1, 5)),
    ("reject-route", one(1, 6)),
    ("packet-too-big", all(2)),
    ("time-exceeded", all(3)),
    ("ttl-exceeded", all(3)),
    ("ttl-zero-during-transit", one(3, 0)),
    ("ttl-zero-during-reassembly", one(3, 1)),
    ("parameter-problem", all(4)),
    ("bad-header", one(4, 0)),
    ("unknown-header-type", one(4, 1)),
    ("unknown-option", one(4, 2)),
    ("echo-request", all(128)),
    ("ping", all(128)),
    ("echo-reply", all(129)),
    ("pong", all(129)),
    ("mld-listener-query", all(130)),
    ("mld-listener-report", all(131)),
    ("mld-listener-done", all(132)),
    ("mld-listener-reduction", all(132)),
    ("router-solicitation", all(133)),
    ("router-advertisement", all(134)),
    ("neighbour-solicitation", all(135)),
    ("neighbor-solicitation", all(135)),
    ("neighbour-advertisement", all(136)),
    ("neighbor-advertisement", all(136)),
    ("redirect", all(137)),
];

/// What a word for an ICMP type means.
///
/// # Errors
/// A sentence about an unknown or ambiguous word.
pub(super) fn icmp(word: &str, family: Family) -> Result<IcmpKind, String> {
    let (table, protocol) = match family {
        Family::V4 => (ICMP, "ICMP"),
        Family::V6 => (ICMPV6, "ICMPv6"),
    };
    let unknown = || format!("unknown {protocol} type `{word}'");
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        let kind = match word.split_once('/') {
            Some((kind, code)) => kind.parse().ok().zip(code.parse().ok()).map(|(k, c)| one(k, c)),
            None => word.parse().ok().map(all),
        };
        let any = family == Family::V4 && kind.is_some_and(|k| k.kind == ANY_ICMP.kind);
        return kind.map(|k| if any { ANY_ICMP } else { k }).ok_or_else(unknown);
    }
    let begins =
        |name: &str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut hits = table.iter().filter(|(name, _)| begins(name) && !word.is_empty());
    let Some(first) = hits.next() else { return Err(unknown()) };
    let exact = first.0.len() == word.len();
    match hits.next() {
        Some(second) if !exact => {
            Err(format!("ambiguous {protocol} type `{word}': `{}' or `{}'?", first.0, second.0))
        }
        _ => Ok(first.1),
    }
}

/// The name of exactly this kind, the first if there are several.
pub(super) fn icmp_name(kind: IcmpKind, family: Family) -> Option<&'static str> {
    let table = if family == Family::V4 { ICMP } else { ICMPV6 };
    table.iter().find(|(_, known)| *known == kind).map(|(name, _)| *name)
}

/// REJECT's types: the name printed, another name, the meaning.
type RejectNames = &'static [(&'static str, &'static str, RejectWith)];

const REJECT: RejectNames = &[
    ("icmp-net-unreachable", "net-unreach", RejectWith::Unreachable(0)),
    ("icmp-host-unreachable", "host-unreach", RejectWith::Unreachable(1)),
    ("icmp-proto-unreachable", "proto-unreach", RejectWith::Unreachable(2)),
    ("icmp-port-unreachable", "port-unreach", RejectWith::Unreachable(3)),
    ("icmp-net-prohibited", "net-prohib", RejectWith::Unreachable(9)),
    ("icmp-host-prohibited", "host-prohib", RejectWith::Unreachable(10)),
    ("tcp-reset", "tcp-rst", RejectWith::TcpReset),
    ("icmp-admin-prohibited", "admin-prohib", RejectWith::Unreachable(13)),
];

const REJECT6: RejectNames = &[
    ("icmp6-no-route", "no-route", RejectWith::Unreachable(0)),
    ("icmp6-adm-prohibited", "adm-prohibited", RejectWith::Unreachable(1)),
    ("icmp6-addr-unreachable", "addr-unreach", RejectWith::Unreachable(3)),
    ("icmp6-port-unreachable", "port-unreach", RejectWith::Unreachable(4)),
    ("tcp-reset", "tcp-reset", RejectWith::TcpReset),
    ("icmp6-policy-fail", "policy-fail", RejectWith::Unreachable(5)),
    ("icmp6-reject-route", "reject-route", RejectWith::Unreachable(6)),
];

const fn reject_names(family: Family) -> RejectNames {
    match family {
        Family::V4 => REJECT,
        Family::V6 => REJECT6,
    }
}

/// The first REJECT type of which `word` is the beginning.
pub(super) fn reject(word: &str, family: Family) -> Option<RejectWith> {
    let word = word.to_ascii_lowercase();
    let begins = |name: &str| !word.is_empty() && name.starts_with(&word);
    reject_names(family).iter().find(|row| begins(row.0) || begins(row.1)).map(|row| row.2)
}

/// The name of a REJECT type.
pub(crate) fn reject_name(with: RejectWith, family: Family) -> &'static str {
    reject_names(family).iter().find(|row| row.2 == with).map_or("tcp-reset", |row| row.0)
}

/// What REJECT says where it is not told.
pub(super) const fn default_reject(family: Family) -> RejectWith {
    match family {
        Family::V4 => RejectWith::Unreachable(3),
        Family::V6 => RejectWith::Unreachable(4),
    }
}

const LEVELS: &[(&str, u8)] = &[
    ("emerg", 0),
    ("panic", 0),
    ("alert", 1),
    ("crit", 2),
    ("err", 3),
    ("error", 3),
    ("warning", 4),
    ("warn", 4),
    ("notice", 5),
    ("info", 6),
    ("debug", 7),
];

/// The syslog level of a name or number.
pub(super) fn log_level(word: &str) -> Option<u8> {
    match word.parse::<u8>() {
        Ok(level) => (level < 8).then_some(level),
        Err(_) => LEVELS.iter().find(|(name, _)| *name == word).map(|(_, level)| *level),
    }
}

/// The name that a list prints for a level.
pub(super) fn log_level_name(level: u8) -> &'static str {
    const NAMES: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];
    NAMES.get(usize::from(level)).copied().unwrap_or("")
}

/// States in the order in which they are printed.
pub(super) const STATES: &[(&str, StateMask)] = &[
    ("INVALID", StateMask::INVALID),
    ("NEW", StateMask::NEW),
    ("RELATED", StateMask::RELATED),
    ("ESTABLISHED", StateMask::ESTABLISHED),
    ("UNTRACKED", StateMask::UNTRACKED),
    ("SNAT", StateMask::SNAT),
    ("DNAT", StateMask::DNAT),
];

/// Status bits in the order in which they are printed; NONE is no bit.
pub(super) const STATUS: &[(&str, u16)] =
    &[("EXPECTED", 1), ("SEEN_REPLY", 2), ("ASSURED", 4), ("CONFIRMED", 8)];

/// TCP flags in the order in which they are printed.
pub(super) const TCP_FLAGS: &[(&str, u8)] =
    &[("FIN", 0x01), ("SYN", 0x02), ("RST", 0x04), ("PSH", 0x08), ("ACK", 0x10), ("URG", 0x20)];

/// Targets that iptables knows and this gateway does not, at least not in both families.
pub(super) const UNSUPPORTED_TARGETS: &[&str] = &[
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CLUSTERIP",
    "CONNSECMARK",
    "DNPT",
    "ECN",
    "HL",
    "HMARK",
    "IDLETIMER",
    "LED",
    "NFQUEUE",
    "QUEUE",
    "RATEEST",
    "SECMARK",
    "SNPT",
    "TEE",
    "TPROXY",
    "TTL",
    "ULOG",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_abbreviated_where_that_is_clear() {
        assert_eq!(icmp("frag", Family::V4), Ok(one(3, 4)));
        assert_eq!(icmp("redirect", Family::V4), Ok(all(5)));
        assert!(icmp("echo", Family::V4).unwrap_err().contains("ambiguous"));
        assert_eq!(icmp("255/0", Family::V4), Ok(ANY_ICMP));
        assert_eq!(icmp("255/0", Family::V6), Ok(one(255, 0)));
        for word in ["256", "3/256", "3/", "/3", "", "x", "3/4/5", "é"] {
            assert!(icmp(word, Family::V4).is_err(), "{word}");
        }
        assert_eq!(reject("icmp", Family::V4), Some(RejectWith::Unreachable(0)));
        assert_eq!(reject("adm", Family::V6), Some(RejectWith::Unreachable(1)));
        assert_eq!(reject("", Family::V6), None);
    }

    #[test]
    fn numbers_have_one_printed_name() {
        assert_eq!(protocol_name(58), Some("ipv6-icmp"));
        assert_eq!(protocol_name(0), None);
        assert_eq!(protocol("MH"), Some(135));
        assert_eq!(protocol("256"), None);
        assert_eq!(
            (protocol("0x6"), protocol("021"), protocol("TCP")),
            (Some(6), Some(17), Some(6))
        );
    }
}
