//! The option tables of conntrack(8): names, letters, and what goes with which command.

use dataplane::conntrack::tuple::proto;

use super::conntrack_args::{Command, Table};
use super::getopt::{Opt, Takes};

/// What an option means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A command.
    Command(Command),
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
    /// `-l`
    Label,
    /// `--label-add`
    LabelAdd,
    /// `--label-del`
    LabelDel,
    /// `-z`
    Zero,
    /// `-c`
    Secmark,
    /// `-b`
    BufferSize,
    /// `-a`, which means nothing any more.
    NatRange,
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
    /// `--mask-port-src`, `--mask-port-dst`, `--tuple-port-src`, `--tuple-port-dst`: of
    /// expectations.
    ExpectPort(u8),
    /// The same of GRE's keys.
    ExpectKey(u8),
    /// `--orig-vtag`
    VtagOriginal,
    /// `--reply-vtag`
    VtagReply,
    /// `--role`
    Role,
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
    maybe(Key::Command(Command::Create), 'I', &["create"]),
    maybe(Key::Command(Command::Add), 'A', &["add"]),
    maybe(Key::Command(Command::Update), 'U', &["update"]),
    maybe(Key::Command(Command::Delete), 'D', &["delete"]),
    maybe(Key::Command(Command::Get), 'G', &["get"]),
    maybe(Key::Command(Command::Flush), 'F', &["flush"]),
    maybe(Key::Command(Command::Events), 'E', &["event"]),
    maybe(Key::Command(Command::Count), 'C', &["count", "counter"]),
    maybe(Key::Command(Command::Statistics), 'S', &["stats"]),
    flag(Key::Command(Command::Version), 'V', &["version"]),
    flag(Key::Command(Command::Help), 'h', &["help"]),
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
    arg(Key::Label, 'l', &["label"]),
    long(Key::LabelAdd, &["label-add"]),
    option(Key::LabelDel, None, &["label-del"], Takes::Optional),
    flag(Key::Zero, 'z', &["zero"]),
    arg(Key::Secmark, 'c', &["secmark"]),
    arg(Key::BufferSize, 'b', &["buffer-size"]),
    arg(Key::NatRange, 'a', &["nat-range"]),
];

const PORTS: &[Opt<Key>] = &[
    long(Key::PortSrc, &["sport", "orig-port-src"]),
    long(Key::PortDst, &["dport", "orig-port-dst"]),
    long(Key::ReplyPortSrc, &["reply-port-src"]),
    long(Key::ReplyPortDst, &["reply-port-dst"]),
    long(Key::ExpectPort(0), &["mask-port-src"]),
    long(Key::ExpectPort(1), &["mask-port-dst"]),
    long(Key::ExpectPort(2), &["tuple-port-src"]),
    long(Key::ExpectPort(3), &["tuple-port-dst"]),
];

const STATE: Opt<Key> = long(Key::State, &["state"]);

const TCP: &[Opt<Key>] =
    &[PORTS[0], PORTS[1], PORTS[2], PORTS[3], PORTS[4], PORTS[5], STATE, PORTS[6], PORTS[7]];

const SCTP: &[Opt<Key>] = &[
    PORTS[0],
    PORTS[1],
    PORTS[2],
    PORTS[3],
    PORTS[4],
    PORTS[5],
    STATE,
    PORTS[6],
    PORTS[7],
    long(Key::VtagOriginal, &["orig-vtag"]),
    long(Key::VtagReply, &["reply-vtag"]),
];

const DCCP: &[Opt<Key>] = &[
    PORTS[0],
    PORTS[1],
    PORTS[2],
    PORTS[3],
    PORTS[4],
    PORTS[5],
    STATE,
    PORTS[6],
    PORTS[7],
    long(Key::Role, &["role"]),
];

const KEYS: &[Opt<Key>] = &[
    long(Key::KeySrc, &["srckey", "orig-key-src"]),
    long(Key::KeyDst, &["dstkey", "orig-key-dst"]),
    long(Key::ReplyKeySrc, &["reply-key-src"]),
    long(Key::ReplyKeyDst, &["reply-key-dst"]),
    long(Key::ExpectKey(0), &["mask-key-src"]),
    long(Key::ExpectKey(1), &["mask-key-dst"]),
    long(Key::ExpectKey(2), &["tuple-key-src"]),
    long(Key::ExpectKey(3), &["tuple-key-dst"]),
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
        proto::TCP => TCP,
        proto::SCTP => SCTP,
        DCCP_NUMBER => DCCP,
        proto::UDP | proto::UDPLITE => PORTS,
        proto::GRE => KEYS,
        proto::ICMP => ICMP,
        proto::ICMPV6 => ICMPV6,
        _ => &[],
    }
}

/// The number of DCCP.
pub const DCCP_NUMBER: u8 = 33;

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

/// Names of `--state` for DCCP, whose conns have none in the kernel.
pub const DCCP_STATES: &[&str] = &[
    "NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE",
    "INVALID",
];

/// Whether an option comes with a protocol.
pub fn is_of_protocol(key: Key) -> bool {
    !matches!(key, Key::Command(_)) && ALWAYS.iter().all(|option| option.key != key)
}

/// Two pairs of options of a protocol of which one has to be there, and what they are called.
pub fn pairs(number: u8) -> ([&'static str; 2], [Key; 4]) {
    let ports = [Key::PortSrc, Key::PortDst, Key::ReplyPortSrc, Key::ReplyPortDst];
    let keys = [Key::KeySrc, Key::KeyDst, Key::ReplyKeySrc, Key::ReplyKeyDst];
    let original = "`--sport' and `--dport'";
    match number {
        proto::GRE => {
            (["`--srckey' and `--dstkey'", "`--reply-src-key' and `--reply-dst-key'"], keys)
        }
        // As the tool has it.
        DCCP_NUMBER => ([original, "`--reply-port-src' and `--report-port-dst'"], ports),
        _ => ([original, "`--reply-src-port' and `--reply-dst-port'"], ports),
    }
}

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
    Key::Zero,
    Key::EventMask,
    Key::TupleSrc,
    Key::TupleDst,
    Key::MaskSrc,
    Key::MaskDst,
    Key::NatRange,
    Key::Mark,
    Key::Id,
    Key::Family,
    Key::SrcNat,
    Key::DstNat,
    Key::Output,
    Key::Secmark,
    Key::BufferSize,
    Key::AnyNat,
    Key::Zone,
    Key::Label,
    Key::LabelAdd,
    Key::LabelDel,
    Key::ZoneOriginal,
    Key::ZoneReply,
];

/// How a command takes an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Not at all.
    Illegal,
    /// It must be there.
    Compulsory,
    /// It may be there.
    Optional,
    /// One of two pairs must be there.
    Coupled,
}

/// How a command takes an option of [`ORDER`].
pub fn need(command: Command, table: Table, key: Key) -> Need {
    use Key::{AnyNat, BufferSize, DstNat, EventMask, Family, Id, Label, LabelAdd, LabelDel, Mark};
    use Key::{MaskDst, MaskSrc, Output, Protocol, Secmark, SrcNat, Status, Timeout, Zero, Zone};
    use Key::{ZoneOriginal, ZoneReply};
    let ends = matches!(key, Key::Src | Key::Dst | Key::ReplySrc | Key::ReplyDst);
    let filters = ends
        || matches!(key, Protocol | MaskSrc | MaskDst | Mark | Family | SrcNat | DstNat | Output);
    let zones = matches!(key, Zone | ZoneOriginal | ZoneReply);
    let optional = match (command, table) {
        (Command::List, Table::Conntrack) => {
            filters || zones || matches!(key, Status | Zero | Secmark | AnyNat | Label)
        }
        (Command::Create | Command::Add, Table::Conntrack) => match key {
            _ if ends => return Need::Coupled,
            Protocol | Timeout => return Need::Compulsory,
            _ => zones || matches!(key, Status | Key::NatRange | Mark | SrcNat | DstNat | LabelAdd),
        },
        (Command::Update, Table::Conntrack) => {
            filters || matches!(key, Timeout | Status | Id | Label | LabelAdd | LabelDel)
        }
        (Command::Delete, Table::Conntrack) => {
            filters || zones || matches!(key, Timeout | Status | Id | Label)
        }
        (Command::Get, Table::Conntrack) => match key {
            _ if ends => return Need::Coupled,
            Protocol => return Need::Compulsory,
            _ => matches!(key, Id | Output | Label),
        },
        (Command::Events, Table::Conntrack) => {
            filters || zones || matches!(key, EventMask | Secmark | BufferSize | AnyNat | Label)
        }
        (Command::Flush, Table::Conntrack) => key == Family,
        (Command::Help, _) => key == Protocol,
        (Command::List, Table::Expect) => matches!(key, Family | Output),
        (Command::Create, Table::Expect) => match key {
            Key::Src | Key::Dst | Protocol | Timeout => return Need::Compulsory,
            Key::TupleSrc | Key::TupleDst | MaskSrc | MaskDst => return Need::Compulsory,
            _ => ends || key == Status,
        },
        (Command::Get | Command::Delete, Table::Expect) => match key {
            Key::Src | Key::Dst | Protocol => return Need::Compulsory,
            _ => ends,
        },
        (Command::Events, Table::Expect) => key == Output,
        _ => false,
    };
    if optional { Need::Optional } else { Need::Illegal }
}

/// How a command takes the options of a protocol, which are known by their place in
/// [`proto_options`], and what it says where one of two pairs is missing.
pub fn proto_need(command: Command, table: Table, key: Key) -> Need {
    let makes = matches!(command, Command::Create | Command::Add);
    if table == Table::Expect {
        return expect_need(command, key);
    }
    match key {
        Key::PortSrc
        | Key::PortDst
        | Key::ReplyPortSrc
        | Key::ReplyPortDst
        | Key::KeySrc
        | Key::KeyDst
        | Key::ReplyKeySrc
        | Key::ReplyKeyDst => match command {
            Command::Create | Command::Add | Command::Get => Need::Coupled,
            Command::List | Command::Update | Command::Delete | Command::Events => Need::Optional,
            _ => Need::Illegal,
        },
        Key::State | Key::VtagOriginal | Key::VtagReply | Key::Role if makes => Need::Compulsory,
        Key::IcmpType | Key::IcmpCode if makes || command == Command::Get => Need::Compulsory,
        Key::State | Key::IcmpType | Key::IcmpCode | Key::IcmpId => match command {
            Command::List | Command::Update | Command::Delete | Command::Events => Need::Optional,
            Command::Create | Command::Add | Command::Get => Need::Optional,
            _ => Need::Illegal,
        },
        Key::VtagOriginal | Key::VtagReply => match command {
            Command::Update | Command::Get => Need::Optional,
            _ => Need::Illegal,
        },
        _ => Need::Illegal,
    }
}

/// The same in the table of expectations. As the tool has it, where an expectation is named ports
/// of its answers are needed which nothing looks at, and so are GRE's where it is made.
fn expect_need(command: Command, key: Key) -> Need {
    let original = matches!(key, Key::PortSrc | Key::PortDst | Key::KeySrc | Key::KeyDst);
    let reply_keys = matches!(key, Key::ReplyKeySrc | Key::ReplyKeyDst);
    let reply = reply_keys || matches!(key, Key::ReplyPortSrc | Key::ReplyPortDst);
    let needed = match command {
        Command::Get | Command::Delete => original || reply,
        Command::Create => {
            let wanted = matches!(key, Key::ExpectPort(_) | Key::ExpectKey(_));
            let other = matches!(key, Key::VtagOriginal | Key::VtagReply | Key::Role);
            original || reply_keys || wanted || other
        }
        _ => false,
    };
    if needed { Need::Compulsory } else { Need::Illegal }
}
