//! The option tables of conntrack(8): names, letters, and what goes with which command.

use dataplane::conntrack::tuple::proto;

use super::conntrack_args::{Command, Table};
use super::getopt::{Opt, Takes};

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A command.
    Command(Command),
    /// An option of a later version, by the name it is refused with.
    Later(&'static str),
    /// `-s`
    Src,
    /// `-d`
    Dst,
    /// `-r`
    ReplySrc,
    /// `-q`
    ReplyDst,
    /// `-p`
    Protocol,
    /// `-t`
    Timeout,
    /// `-u`
    Status,
    /// `-e`
    EventMask,
    /// `--tuple-src`
    TupleSrc,
    /// `--tuple-dst`
    TupleDst,
    /// `--mask-src`
    MaskSrc,
    /// `--mask-dst`
    MaskDst,
    /// `-m`
    Mark,
    /// `-i`
    Id,
    /// `-f`
    Family,
    /// `-n`
    SrcNat,
    /// `-g`
    DstNat,
    /// `-j`
    AnyNat,
    /// `-o`
    Output,
    /// `-w`
    Zone,
    /// `--orig-zone`
    ZoneOriginal,
    /// `--reply-zone`
    ZoneReply,
    /// `-l` and its relatives.
    Label,
    /// `--sport`
    PortSrc,
    /// `--dport`
    PortDst,
    /// `--reply-port-src`
    ReplyPortSrc,
    /// `--reply-port-dst`
    ReplyPortDst,
    /// `--srckey`
    KeySrc,
    /// `--dstkey`
    KeyDst,
    /// `--reply-key-src`
    ReplyKeySrc,
    /// `--reply-key-dst`
    ReplyKeyDst,
    /// `--icmp-type`
    IcmpType,
    /// `--icmp-code`
    IcmpCode,
    /// `--icmp-id`
    IcmpId,
    /// `--state`
    State,
}

const fn option(
    key: Key,
    short: Option<char>,
    long: &'static [&'static str],
    takes: Takes,
) -> Opt<Key> {
    Opt { key, short, long, takes }
}

const fn arg(key: Key, short: char, long: &'static [&'static str]) -> Opt<Key> {
    option(key, Some(short), long, Takes::Argument)
}

const fn long(key: Key, long: &'static [&'static str]) -> Opt<Key> {
    option(key, None, long, Takes::Argument)
}

const fn maybe(key: Key, short: char, long: &'static [&'static str]) -> Opt<Key> {
    option(key, Some(short), long, Takes::Optional)
}

const fn flag(key: Key, short: char, long: &'static [&'static str]) -> Opt<Key> {
    option(key, Some(short), long, Takes::Nothing)
}

/// Commands and the options that do not depend on a protocol.
pub const ALWAYS: &[Opt<Key>] = &[
    maybe(Key::Command(Command::List), 'L', &["dump"]),
    maybe(Key::Command(Command::Delete), 'D', &["delete"]),
    maybe(Key::Command(Command::Flush), 'F', &["flush"]),
    maybe(Key::Command(Command::Events), 'E', &["event"]),
    maybe(Key::Command(Command::Count), 'C', &["count"]),
    maybe(Key::Command(Command::Statistics), 'S', &["stats"]),
    flag(Key::Command(Command::Version), 'V', &["version"]),
    flag(Key::Command(Command::Help), 'h', &["help"]),
    flag(Key::Later("-I"), 'I', &["create"]),
    flag(Key::Later("-A"), 'A', &["add"]),
    flag(Key::Later("-U"), 'U', &["update"]),
    flag(Key::Later("-G"), 'G', &["get"]),
    flag(Key::Later("-R"), 'R', &["load-file"]),
    arg(Key::Src, 's', &["src", "orig-src"]),
    arg(Key::Dst, 'd', &["dst", "orig-dst"]),
    arg(Key::ReplySrc, 'r', &["reply-src"]),
    arg(Key::ReplyDst, 'q', &["reply-dst"]),
    arg(Key::Protocol, 'p', &["protonum"]),
    arg(Key::Timeout, 't', &["timeout"]),
    arg(Key::Status, 'u', &["status"]),
    arg(Key::EventMask, 'e', &["event-mask"]),
    long(Key::TupleSrc, &["tuple-src"]),
    long(Key::TupleDst, &["tuple-dst"]),
    long(Key::MaskSrc, &["mask-src"]),
    long(Key::MaskDst, &["mask-dst"]),
    arg(Key::Mark, 'm', &["mark"]),
    arg(Key::Id, 'i', &["id"]),
    arg(Key::Family, 'f', &["family"]),
    maybe(Key::SrcNat, 'n', &["src-nat"]),
    maybe(Key::DstNat, 'g', &["dst-nat"]),
    maybe(Key::AnyNat, 'j', &["any-nat"]),
    arg(Key::Output, 'o', &["output"]),
    arg(Key::Zone, 'w', &["zone"]),
    long(Key::ZoneOriginal, &["orig-zone"]),
    long(Key::ZoneReply, &["reply-zone"]),
    arg(Key::Label, 'l', &["label", "label-add", "label-del"]),
    flag(Key::Later("--zero"), 'z', &["zero"]),
    arg(Key::Later("--secmark"), 'c', &["secmark"]),
    arg(Key::Later("--buffer-size"), 'b', &["buffer-size"]),
];

const PORTS: &[Opt<Key>] = &[
    long(Key::PortSrc, &["sport", "orig-port-src"]),
    long(Key::PortDst, &["dport", "orig-port-dst"]),
    long(Key::ReplyPortSrc, &["reply-port-src"]),
    long(Key::ReplyPortDst, &["reply-port-dst"]),
];

const PORTS_AND_STATE: &[Opt<Key>] =
    &[PORTS[0], PORTS[1], PORTS[2], PORTS[3], long(Key::State, &["state"])];

const KEYS: &[Opt<Key>] = &[
    long(Key::KeySrc, &["srckey", "orig-key-src"]),
    long(Key::KeyDst, &["dstkey", "orig-key-dst"]),
    long(Key::ReplyKeySrc, &["reply-key-src"]),
    long(Key::ReplyKeyDst, &["reply-key-dst"]),
];

const ICMP: &[Opt<Key>] = &[
    long(Key::IcmpType, &["icmp-type"]),
    long(Key::IcmpCode, &["icmp-code"]),
    long(Key::IcmpId, &["icmp-id"]),
];

const ICMPV6: &[Opt<Key>] = &[
    long(Key::IcmpType, &["icmpv6-type"]),
    long(Key::IcmpCode, &["icmpv6-code"]),
    long(Key::IcmpId, &["icmpv6-id"]),
];

/// The options that `-p` adds.
pub fn proto_options(number: u8) -> &'static [Opt<Key>] {
    match number {
        proto::TCP | proto::SCTP => PORTS_AND_STATE,
        proto::UDP | proto::UDPLITE => PORTS,
        proto::GRE => KEYS,
        proto::ICMP => ICMP,
        proto::ICMPV6 => ICMPV6,
        _ => &[],
    }
}

/// Names of `--state` for TCP.
pub const TCP_STATES: &[&str] = &[
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
    "LISTEN",
];

/// Names of `--state` for SCTP.
pub const SCTP_STATES: &[&str] = &[
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
];

/// Protocol names beyond those of trackers, as a Debian `/etc/protocols` has them.
const PROTOCOLS: &[(&str, u8)] = &[
    ("ip", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("tcp", 6),
    ("egp", 8),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("ipip", 94),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];

/// A protocol by name or number.
pub fn proto_number(text: &str) -> Option<u8> {
    let named = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, number)| *number).or_else(|| text.parse().ok())
}

/// The command an option is.
pub fn command(key: Key) -> Option<Command> {
    if let Key::Command(command) = key { Some(command) } else { None }
}

/// The long name that messages use.
pub fn name(key: Key) -> &'static str {
    let found = ALWAYS.iter().find(|o| o.key == key);
    found.and_then(|o| o.long.first()).copied().unwrap_or_default()
}

/// The options that not every command takes, in the order in which the tool checks them.
pub const ORDER: &[Key] = &[
    Key::Src,
    Key::Dst,
    Key::ReplySrc,
    Key::ReplyDst,
    Key::Protocol,
    Key::Timeout,
    Key::Status,
    Key::EventMask,
    Key::TupleSrc,
    Key::TupleDst,
    Key::MaskSrc,
    Key::MaskDst,
    Key::SrcNat,
    Key::DstNat,
    Key::Mark,
    Key::Id,
    Key::Family,
    Key::Output,
    Key::AnyNat,
    Key::Zone,
    Key::ZoneOriginal,
    Key::ZoneReply,
];

/// Whether a command takes an option of [`ORDER`].
pub fn allows(command: Command, table: Table, key: Key) -> bool {
    use Key::{
        AnyNat, Dst, DstNat, EventMask, Family, Id, Mark, MaskDst, MaskSrc, Output, Protocol,
    };
    use Key::{ReplyDst, ReplySrc, Src, SrcNat, Status, Timeout, Zone, ZoneOriginal, ZoneReply};
    let tuples = matches!(
        key,
        Src | Dst | ReplySrc | ReplyDst | Protocol | MaskSrc | MaskDst | SrcNat | DstNat
    );
    let facts = matches!(key, Mark | Family | Output | Zone | ZoneOriginal | ZoneReply);
    let filters = tuples || facts;
    match (command, table) {
        (Command::List, Table::Conntrack) => filters || matches!(key, Status | AnyNat),
        (Command::List, Table::Expect) => matches!(key, Family | Output),
        (Command::Delete, Table::Conntrack) => filters || matches!(key, Status | Timeout | Id),
        (Command::Events, Table::Conntrack) => filters || matches!(key, EventMask | AnyNat),
        (Command::Events, Table::Expect) => key == Output,
        (Command::Flush, Table::Conntrack) => key == Family,
        _ => false,
    }
}
