//! The options of `-m` matches: which there are, how many words they take, what they set.

use dataplane::conntrack::state::Direction;
use dataplane::conntrack::tuple::proto;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::{
    Connlabel, Conntrack, IcmpKind, Masked, Match, Maybe, Multiport, PortRange, Side, StateMask,
    Tcp, TcpFlags, Udp,
};

use super::names;
use super::values::{self, Fault};
use crate::labels::Names;

/// An option that a match or target knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt<K> {
    /// Its name without dashes.
    pub(super) name: &'static str,
    /// What it sets.
    pub(super) key: K,
    /// Words it takes.
    pub(super) takes: usize,
    /// `!` may stand before it.
    pub(super) not: bool,
}

/// Option `name` with one word, which may be negated.
const fn opt<K>(name: &'static str, key: K) -> Opt<K> {
    Opt { name, key, takes: 1, not: true }
}

/// What an option of a match sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    SrcPort,
    DstPort,
    TcpFlags,
    Syn,
    TcpOption,
    IcmpKind,
    State,
    CtProto,
    OrigSrc,
    OrigDst,
    ReplySrc,
    ReplyDst,
    OrigSrcPort,
    OrigDstPort,
    ReplySrcPort,
    ReplyDstPort,
    Status,
    Expire,
    Direction,
    Ports(Side),
    Comment,
    Mark,
    Label,
    SetLabel,
}

/// The matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Icmp,
    Icmpv6,
    Conntrack,
    State,
    Multiport,
    Comment,
    Mark,
    Connlabel,
}

const TCP: &[Opt<Key>] = &[
    opt("source-port", Key::SrcPort),
    opt("sport", Key::SrcPort),
    opt("destination-port", Key::DstPort),
    opt("dport", Key::DstPort),
    Opt { name: "syn", key: Key::Syn, takes: 0, not: true },
    Opt { name: "tcp-flags", key: Key::TcpFlags, takes: 2, not: true },
    opt("tcp-option", Key::TcpOption),
];
const UDP: &[Opt<Key>] = &[
    opt("source-port", Key::SrcPort),
    opt("sport", Key::SrcPort),
    opt("destination-port", Key::DstPort),
    opt("dport", Key::DstPort),
];
const ICMP: &[Opt<Key>] = &[opt("icmp-type", Key::IcmpKind)];
const ICMPV6: &[Opt<Key>] = &[opt("icmpv6-type", Key::IcmpKind)];
const CONNTRACK: &[Opt<Key>] = &[
    opt("ctstate", Key::State),
    opt("ctproto", Key::CtProto),
    opt("ctorigsrc", Key::OrigSrc),
    opt("ctorigdst", Key::OrigDst),
    opt("ctreplsrc", Key::ReplySrc),
    opt("ctrepldst", Key::ReplyDst),
    opt("ctorigsrcport", Key::OrigSrcPort),
    opt("ctorigdstport", Key::OrigDstPort),
    opt("ctreplsrcport", Key::ReplySrcPort),
    opt("ctrepldstport", Key::ReplyDstPort),
    opt("ctstatus", Key::Status),
    opt("ctexpire", Key::Expire),
    Opt { name: "ctdir", key: Key::Direction, takes: 1, not: false },
];
const STATE: &[Opt<Key>] = &[opt("state", Key::State)];
const MULTIPORT: &[Opt<Key>] = &[
    opt("source-ports", Key::Ports(Side::Source)),
    opt("sports", Key::Ports(Side::Source)),
    opt("destination-ports", Key::Ports(Side::Destination)),
    opt("dports", Key::Ports(Side::Destination)),
    opt("ports", Key::Ports(Side::Either)),
];
const COMMENT: &[Opt<Key>] = &[Opt { name: "comment", key: Key::Comment, takes: 1, not: false }];
const MARK: &[Opt<Key>] = &[opt("mark", Key::Mark)];
const CONNLABEL: &[Opt<Key>] =
    &[opt("label", Key::Label), Opt { name: "set", key: Key::SetLabel, takes: 0, not: false }];

impl Kind {
    /// The match of that name; which ICMP there is depends on the family.
    pub(super) fn from_name(name: &str, family: Family) -> Option<Kind> {
        Some(match (name, family) {
            ("tcp", _) => Kind::Tcp,
            ("udp", _) => Kind::Udp,
            ("icmp", Family::V4) => Kind::Icmp,
            ("icmp6" | "icmpv6", Family::V6) => Kind::Icmpv6,
            ("conntrack", _) => Kind::Conntrack,
            ("state", _) => Kind::State,
            ("multiport", _) => Kind::Multiport,
            ("comment", _) => Kind::Comment,
            ("mark", _) => Kind::Mark,
            ("connlabel", _) => Kind::Connlabel,
            _ => return None,
        })
    }

    /// The match that `-p` brings along when one of its options is used.
    pub(super) fn of_protocol(number: u8, family: Family) -> Option<Kind> {
        match (number, family) {
            (proto::TCP, _) => Some(Kind::Tcp),
            (proto::UDP, _) => Some(Kind::Udp),
            (proto::ICMP, Family::V4) => Some(Kind::Icmp),
            (proto::ICMPV6, Family::V6) => Some(Kind::Icmpv6),
            _ => None,
        }
    }

    /// The name after `-m`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Tcp => "tcp",
            Kind::Udp => "udp",
            Kind::Icmp => "icmp",
            Kind::Icmpv6 => "icmp6",
            Kind::Conntrack => "conntrack",
            Kind::State => "state",
            Kind::Multiport => "multiport",
            Kind::Comment => "comment",
            Kind::Mark => "mark",
            Kind::Connlabel => "connlabel",
        }
    }

    /// Its options.
    pub(super) const fn options(self) -> &'static [Opt<Key>] {
        match self {
            Kind::Tcp => TCP,
            Kind::Udp => UDP,
            Kind::Icmp => ICMP,
            Kind::Icmpv6 => ICMPV6,
            Kind::Conntrack => CONNTRACK,
            Kind::State => STATE,
            Kind::Multiport => MULTIPORT,
            Kind::Comment => COMMENT,
            Kind::Mark => MARK,
            Kind::Connlabel => CONNLABEL,
        }
    }

    /// What the match asks before any option; `None` if an option has to say.
    fn blank(self) -> Option<Match> {
        match self {
            Kind::Tcp => Some(Match::Tcp(Tcp::default())),
            Kind::Udp => Some(Match::Udp(Udp::default())),
            Kind::Conntrack => Some(Match::Conntrack(Box::default())),
            _ => None,
        }
    }

    /// The protocols of which `-p` has to name one, with the sentence for its absence.
    fn needs(self) -> Option<(&'static [u8], &'static str)> {
        const PORTS: &[u8] = &[proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP, 33];
        match self {
            Kind::Tcp => Some((&[proto::TCP], "`-p tcp'")),
            Kind::Udp => Some((&[proto::UDP], "`-p udp'")),
            Kind::Icmp => Some((&[proto::ICMP], "`-p icmp'")),
            Kind::Icmpv6 => Some((&[proto::ICMPV6], "`-p icmpv6'")),
            Kind::Multiport => {
                Some((PORTS, "`-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp'"))
            }
            _ => None,
        }
    }
}

/// A match while its options are read.
#[derive(Clone, Debug)]
pub(super) struct Loaded {
    pub(super) kind: Kind,
    /// Brought along by `-p`, not yet named by `-m`.
    pub(super) implied: bool,
    found: Option<Match>,
    /// `--set` of a connlabel match.
    sets: bool,
}

impl Loaded {
    /// The match before its options.
    pub(super) fn new(kind: Kind, implied: bool) -> Loaded {
        Loaded { kind, implied, found: kind.blank(), sets: false }
    }

    /// Takes an option.
    pub(super) fn set(
        &mut self,
        option: &Opt<Key>,
        not: bool,
        values: &[&str],
        (family, labels): (Family, &Names),
    ) -> Result<(), Fault> {
        let text = values.first().copied().unwrap_or("");
        let once =
            || format!("{}: option `--{}' can be given only once", self.kind.name(), option.name);
        if option.key == Key::SetLabel {
            let again = std::mem::replace(&mut self.sets, true);
            return if again { Err(once()) } else { Ok(()) };
        }
        match &mut self.found {
            Some(Match::Tcp(tcp)) => {
                set_tcp(tcp, option.key, not, values).unwrap_or_else(|| Err(once()))
            }
            Some(Match::Udp(udp)) => {
                let slot =
                    if option.key == Key::SrcPort { &mut udp.src_port } else { &mut udp.dst_port };
                put(slot, not, values::ports(text)?).ok_or_else(once)
            }
            Some(Match::Conntrack(asked)) => {
                set_conntrack(asked, option.key, not, text, family)?.ok_or_else(once)
            }
            Some(_) => Err(once()),
            None if option.key == Key::Label => {
                let label = Maybe { not, value: label(text, labels)? };
                self.found = Some(Match::Connlabel(Connlabel { label, set: false }));
                Ok(())
            }
            None => {
                self.found = Some(single(option.key, not, text, family)?);
                Ok(())
            }
        }
    }

    /// The match, once all options are read.
    pub(super) fn finish(self, asked_proto: Option<Maybe<u8>>) -> Result<Match, Fault> {
        let name = self.kind.name();
        if let Some((protocols, words)) = self.kind.needs()
            && !asked_proto.is_some_and(|p| !p.not && protocols.contains(&p.value))
        {
            return Err(format!("{name}: the match needs {words}"));
        }
        match self.found {
            Some(Match::Conntrack(asked)) if *asked == Conntrack::default() => {
                Err(format!("{name}: at least one option is required"))
            }
            Some(Match::Tcp(tcp)) => Ok(Match::Tcp(Tcp {
                src_port: narrowing(tcp.src_port),
                dst_port: narrowing(tcp.dst_port),
                ..tcp
            })),
            Some(Match::Udp(udp)) => Ok(Match::Udp(Udp {
                src_port: narrowing(udp.src_port),
                dst_port: narrowing(udp.dst_port),
            })),
            Some(Match::Connlabel(asked)) => {
                Ok(Match::Connlabel(Connlabel { set: self.sets, ..asked }))
            }
            Some(found) => Ok(found),
            None => {
                let option = self.kind.options().first().map_or("", |option| option.name);
                Err(format!("{name}: option `--{option}' must be specified"))
            }
        }
    }
}

/// A range of all ports asks nothing and is not kept.
fn narrowing(range: Option<Maybe<PortRange>>) -> Option<Maybe<PortRange>> {
    range.filter(|r| r.not || r.value != PortRange { low: 0, high: u16::MAX })
}

/// Fills an empty slot; `None` if it was filled before.
fn put<T>(slot: &mut Option<Maybe<T>>, not: bool, value: T) -> Option<()> {
    if slot.is_some() {
        return None;
    }
    *slot = Some(Maybe { not, value });
    Some(())
}

/// `None` for an option given twice.
fn set_tcp(tcp: &mut Tcp, key: Key, not: bool, values: &[&str]) -> Option<Result<(), Fault>> {
    let text = values.first().copied().unwrap_or("");
    let done = match key {
        Key::SrcPort => values::ports(text).map(|range| put(&mut tcp.src_port, not, range)),
        Key::DstPort => values::ports(text).map(|range| put(&mut tcp.dst_port, not, range)),
        Key::Syn => Ok(put(&mut tcp.flags, not, TcpFlags { mask: 0x17, set: 0x02 })),
        Key::TcpFlags => tcp_flags(text)
            .and_then(|mask| Ok((mask, tcp_flags(values.get(1).copied().unwrap_or(""))?)))
            .map(|(mask, set)| put(&mut tcp.flags, not, TcpFlags { mask, set })),
        _ => match values::number(text) {
            Ok(kind @ 1..=255) => Ok(put(&mut tcp.option, not, kind as u8)),
            _ => Err(format!("bad TCP option `{text}'")),
        },
    };
    match done {
        Ok(Some(())) => Some(Ok(())),
        Ok(None) => None,
        Err(fault) => Some(Err(fault)),
    }
}

fn tcp_flags(text: &str) -> Result<u8, Fault> {
    let find = |name: &str| match name.to_ascii_uppercase().as_str() {
        "ALL" => Some(0x3f),
        "NONE" => Some(0),
        name => names::TCP_FLAGS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit),
    };
    Ok(values::set(text, "TCP flag", find)?.into_iter().fold(0, |all, bit| all | bit))
}

fn states(text: &str, nat: bool) -> Result<StateMask, Fault> {
    let find = |name: &str| {
        let known = names::STATES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known
            .map(|(_, state)| *state)
            .filter(|state| nat || !state.meets(StateMask::SNAT.with(StateMask::DNAT)))
    };
    let found = values::set(text, "state", find)?;
    Ok(found.into_iter().fold(StateMask::default(), StateMask::with))
}

fn status(text: &str) -> Result<u16, Fault> {
    let find = |name: &str| {
        let known = names::STATUS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, bit)| *bit).or(name.eq_ignore_ascii_case("NONE").then_some(0))
    };
    Ok(values::set(text, "status", find)?.into_iter().fold(0, |all, bit| all | bit))
}

/// `Ok(None)` for an option given twice.
fn set_conntrack(
    asked: &mut Conntrack,
    key: Key,
    not: bool,
    text: &str,
    family: Family,
) -> Result<Option<()>, Fault> {
    Ok(match key {
        Key::State => put(&mut asked.state, not, states(text, true)?),
        Key::CtProto => put(&mut asked.proto, not, ct_proto(text)?),
        Key::OrigSrc => put(&mut asked.orig_src, not, values::net(text, family)?),
        Key::OrigDst => put(&mut asked.orig_dst, not, values::net(text, family)?),
        Key::ReplySrc => put(&mut asked.reply_src, not, values::net(text, family)?),
        Key::ReplyDst => put(&mut asked.reply_dst, not, values::net(text, family)?),
        Key::OrigSrcPort => put(&mut asked.orig_src_port, not, values::ports(text)?),
        Key::OrigDstPort => put(&mut asked.orig_dst_port, not, values::ports(text)?),
        Key::ReplySrcPort => put(&mut asked.reply_src_port, not, values::ports(text)?),
        Key::ReplyDstPort => put(&mut asked.reply_dst_port, not, values::ports(text)?),
        Key::Status => put(&mut asked.status, not, status(text)?),
        Key::Expire => put(&mut asked.expire, not, expire(text)?),
        _ if asked.direction.is_some() => None,
        _ => {
            asked.direction = Some(match text.to_ascii_uppercase().as_str() {
                "ORIGINAL" => Direction::Original,
                "REPLY" => Direction::Reply,
                _ => return Err(format!("unknown direction `{text}'")),
            });
            Some(())
        }
    })
}

fn ct_proto(text: &str) -> Result<u8, Fault> {
    match names::protocol(text) {
        Some(0) => Err("conntrack: rule would never match protocol".to_owned()),
        Some(number) => Ok(number),
        None => Err(format!("unknown protocol `{text}'")),
    }
}

fn expire(text: &str) -> Result<(u32, u32), Fault> {
    let (low, high) = match text.split_once(':') {
        None => (values::number(text)?, values::number(text)?),
        Some((low, high)) => (
            if low.is_empty() { 0 } else { values::number(low)? },
            if high.is_empty() { u32::MAX } else { values::number(high)? },
        ),
    };
    if low > high {
        return Err(format!("invalid range `{text}' (low end above high end)"));
    }
    Ok((low, high))
}

/// A match that has one option.
fn single(key: Key, not: bool, text: &str, family: Family) -> Result<Match, Fault> {
    Ok(match key {
        Key::IcmpKind => {
            let kind: Maybe<IcmpKind> = Maybe { not, value: names::icmp(text, family)? };
            match family {
                Family::V4 => Match::Icmp(kind),
                Family::V6 => Match::Icmpv6(kind),
            }
        }
        Key::State => Match::State(Maybe { not, value: states(text, false)? }),
        Key::Ports(side) => Match::Multiport(multiport(side, not, text)?),
        Key::Mark => {
            let value: Masked = values::masked(text)?;
            Match::Mark(Maybe { not, value })
        }
        _ if text.len() > 255 => return Err("comment is longer than 255 bytes".to_owned()),
        _ => Match::Comment(text.to_owned()),
    })
}

/// A label by its number or, where it is none, its name.
fn label(text: &str, labels: &Names) -> Result<u8, Fault> {
    let number = values::number(text).ok().or_else(|| labels.number(text).map(u32::from));
    match number {
        Some(number) if number < u32::from(Connlabel::COUNT) => Ok(number as u8),
        Some(_) => Err(format!("label '{text}' is not below {}", Connlabel::COUNT)),
        None => Err(format!("label '{text}' not found or invalid value")),
    }
}

fn multiport(side: Side, not: bool, text: &str) -> Result<Multiport, Fault> {
    let mut ports = Vec::new();
    let mut slots = 0;
    for word in text.split(',') {
        let range = match word.split_once(':') {
            None => PortRange::one(values::port(word)?),
            Some((low, high)) => PortRange { low: values::port(low)?, high: values::port(high)? },
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
    Ok(Multiport { side, not, ports })
}
