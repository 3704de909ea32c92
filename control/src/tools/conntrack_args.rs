//! The arguments of conntrack(8), as version 1.4.7 reads them.
//!
//! Options after `-p` depend on the protocol, which is why order matters: `--sport` is unknown
//! until `-p` has named a protocol with ports. Numbers are read as the tool reads them, up to the
//! first character that is no digit. Wrong arguments exit with 2 and two lines on standard error.
//!
//! Where the tool would take them, security marks (`-c`) are refused, as no conn has one.

use std::mem::take;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::conntrack::dccp::Role;
use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::proto;
use dataplane::conntrack::view::EventKind;
use dataplane::wire::address::Address;

use super::Answer;
use super::conntrack_filter::{Filter, Masked, Translated};
use super::conntrack_format::{NAME, Output};
use super::conntrack_labels::{Labels, Wish};
use super::conntrack_options::{self as options, Key, Need, proto_number, proto_options};
use super::getopt::{Opt, Reader, Unreadable, Word};
use crate::labels::Names;

pub use super::conntrack_filter::Family;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-L`
    List,
    /// `-I`
    Create,
    /// `-A`: as `-I`, and a conn that exists is no error.
    Add,
    /// `-U`
    Update,
    /// `-G`
    Get,
    /// `-D`
    Delete,
    /// `-F`
    Flush,
    /// `-E`
    Events,
    /// `-C`
    Count,
    /// `-S`
    Statistics,
    /// `-V`
    Version,
    /// `-h`, or no command at all.
    Help,
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Conns.
    Conntrack,
    /// Expectations.
    Expect,
    /// Conns that are dying or not confirmed yet. Between two bursts there are none.
    Hidden,
}

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// Where.
    pub table: Table,
    /// With which conns.
    pub filter: Filter,
    /// `-t`: how long a conn shall live.
    pub timeout_secs: Option<u32>,
    /// `-u`: bits that are to be set.
    pub status: u16,
    /// What becomes of labels.
    pub labels: Option<Wish>,
    /// `-z`
    pub zero: bool,
    /// Shown how.
    pub output: Output,
    /// Which events; empty for all.
    pub events: Vec<EventKind>,
    /// What `-I expect` expects.
    pub expected: Expected,
    /// `-b`: bytes that wait for this listener.
    pub buffer_bytes: Option<u32>,
    /// Lines for standard error before anything else.
    pub warnings: String,
}

/// What `-I expect` says of the conn that is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// `--tuple-src` and `--tuple-dst`.
    pub ends: [Option<Address>; 2],
    /// Ports or keys of the same.
    pub ids: [Option<u16>; 2],
    /// `--mask-src`, or the prefix of a source. That of the destination says nothing.
    pub mask: Option<Address>,
    /// The mask of the port or key.
    pub mask_id: Option<u16>,
}

impl Request {
    /// Whether an event passes `-e` and the filter.
    pub fn wants(&self, event: &dataplane::conntrack::view::EventView) -> bool {
        let kind = self.events.is_empty() || self.events.contains(&event.kind);
        kind && self.filter.matches(&event.conn)
    }
}

/// How the names of labels are read, when an option asks for them; or why there are none.
pub type ReadNames<'a> = &'a dyn Fn() -> Result<Names, String>;

/// Reads a command line.
///
/// # Errors
/// The finished answer: two lines and exit code 2, or one line and 1 for the few things the tool
/// answers so.
pub fn parse(argv: &[String], names: ReadNames<'_>) -> Result<Request, Answer> {
    let mut reading = Reading { read: Some(names), ..Reading::default() };
    let read = reading.words(argv).and_then(|()| reading.finish());
    // What is said while reading comes before what ends it.
    read.map_err(|answer| Answer { err: reading.warnings + &answer.err, ..answer })
}

fn unreadable(what: Unreadable) -> Answer {
    match what {
        Unreadable::Unknown(word) => refused(format_args!("unknown option `{word}'")),
        Unreadable::NeedsArgument(word) => {
            refused(format_args!("option `{word}' requires an argument"))
        }
    }
}

/// The answer to arguments that are wrong.
pub(super) fn refused(message: std::fmt::Arguments<'_>) -> Answer {
    let hint = "Try `conntrack -h' or 'conntrack --help' for more information.";
    Answer::failure(2, format_args!("{NAME}: {message}\n{hint}"))
}

/// The state while reading.
#[derive(Default)]
struct Reading<'a> {
    read: Option<ReadNames<'a>>,
    command: Option<Command>,
    table: Option<Table>,
    /// Options seen, for the check against the command.
    seen: Vec<Key>,
    filter: Filter,
    proto_seen: Vec<Key>,
    masks: [Option<Address>; 2],
    expected: Expected,
    buffer_bytes: Option<u32>,
    /// Bits to be set and bits to be looked at, of `-u`.
    status: Option<(u16, u16)>,
    output: Output,
    events: Vec<EventKind>,
    /// Names of labels, once an option has asked for them.
    names: Option<Arc<Names>>,
    labels: Option<Wish>,
    warnings: String,
}

impl Reading<'_> {
    fn words(&mut self, argv: &[String]) -> Result<(), Answer> {
        let mut known: Vec<Opt<Key>> = options::ALWAYS.to_vec();
        let mut words = Reader::new(argv);
        while let Some(word) = words.step(&known) {
            match word.map_err(unreadable)? {
                Word::Operand(_) => {}
                Word::Option(key, argument) => self.take(key, argument, &mut known)?,
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        key: Key,
        argument: Option<&str>,
        known: &mut Vec<Opt<Key>>,
    ) -> Result<(), Answer> {
        let text = argument.unwrap_or_default();
        if let Some(command) = options::command(key) {
            return self.take_command(command, argument);
        }
        if options::is_of_protocol(key) {
            self.proto_seen.push(key);
        } else if key != Key::NatRange {
            self.seen.push(key);
        }
        match key {
            Key::Label | Key::LabelAdd | Key::LabelDel => self.take_labels(key, argument)?,
            Key::NatRange => self.warnings += "WARNING: ignoring -a, deprecated option.\n",
            Key::Role => {
                let known = |role: &Role| begins(role.name(), text);
                let role = [Role::Client, Role::Server].into_iter().find(known);
                let unknown = || refused(format_args!("Unknown DCCP role `{text}'"));
                self.filter.role = Some(role.ok_or_else(unknown)?);
            }
            Key::Protocol => {
                let number = proto_number(text)
                    .ok_or_else(|| refused(format_args!("`{text}' unsupported protocol")))?;
                self.filter.proto = Some(number);
                known.truncate(options::ALWAYS.len());
                known.extend_from_slice(proto_options(number));
            }
            Key::Family => self.take_family(match text {
                "ipv4" => Family::V4,
                "ipv6" => Family::V6,
                _ => return Err(refused(format_args!("`{text}' unsupported protocol"))),
            })?,
            Key::Src | Key::Dst | Key::ReplySrc | Key::ReplyDst | Key::MaskSrc | Key::MaskDst => {
                self.take_address(key, text)?;
            }
            Key::TupleSrc | Key::TupleDst => self.take_address(key, text)?,
            // Read as the socket option is: a signed number of 32 bits.
            Key::BufferSize => {
                let bytes = leading_number(text, 10) as i32;
                self.buffer_bytes = Some(bytes.max(0) as u32);
            }
            Key::SrcNat | Key::DstNat | Key::AnyNat => self.take_nat(key, argument)?,
            Key::Status => self.take_status(text)?,
            Key::EventMask => self.take_events(text)?,
            Key::Output => self.take_output(text)?,
            Key::State => self.take_state(text)?,
            _ => self.take_number(key, text),
        }
        Ok(())
    }

    fn take_command(&mut self, command: Command, table: Option<&str>) -> Result<(), Answer> {
        let of = |name: &str| table.is_some_and(|table| name.starts_with(table));
        let table = match table {
            None => Table::Conntrack,
            Some(_) if of("expect") => Table::Expect,
            Some(_) if of("conntrack") => Table::Conntrack,
            Some(_) if of("dying") || of("unconfirmed") => Table::Hidden,
            Some(other) => return Err(refused(format_args!("unknown type `{other}'"))),
        };
        let changes = match command {
            Command::Update => Some("update"),
            Command::Add => Some("add"),
            _ => None,
        };
        match (table, changes) {
            (Table::Hidden, _) if command != Command::List => Err(refused(format_args!(
                "Can't do that command with tables `dying' and `unconfirmed'"
            ))),
            (Table::Expect, Some(name)) => {
                Err(refused(format_args!("Can't do --{name} on expectations")))
            }
            _ if self.command.is_some() => {
                Err(refused(format_args!("Invalid commands combination")))
            }
            _ => {
                (self.command, self.table) = (Some(command), Some(table));
                Ok(())
            }
        }
    }

    fn take_family(&mut self, family: Family) -> Result<(), Answer> {
        match self.filter.family.replace(family) {
            Some(other) if other != family => {
                Err(refused(format_args!("mismatched address family")))
            }
            _ => Ok(()),
        }
    }

    fn take_address(&mut self, key: Key, text: &str) -> Result<(), Answer> {
        let (host, prefix) = match text.split_once('/') {
            Some((host, prefix)) => (host, Some(prefix).filter(|p| !p.is_empty())),
            None => (text, None),
        };
        let address = address(host)?;
        self.take_family(Family::of(address))?;
        let implied = match key {
            Key::Src | Key::TupleSrc => Some((0, Key::MaskSrc)),
            Key::Dst | Key::TupleDst => Some((1, Key::MaskDst)),
            _ => None,
        };
        if prefix.is_some() && implied.is_none() {
            let name = options::name(key);
            return Err(refused(format_args!("CIDR notation unavailable for `--{name}'")));
        }
        let mask = prefix_mask(address, prefix)?;
        if let Some((end, option)) = implied
            && mask != u128::MAX
        {
            self.seen.push(option);
            // Of masks for one end the last one is taken.
            let bits = if address.is_v4() { Address::v4(mask as u32) } else { Address::v6(mask) };
            self.masks[end] = Some(bits);
        }
        let whole = Some(Masked { address, mask: u128::MAX });
        match key {
            Key::Src => self.filter.src = whole,
            Key::Dst => self.filter.dst = whole,
            Key::ReplySrc => self.filter.reply_src = Some(address),
            Key::ReplyDst => self.filter.reply_dst = Some(address),
            Key::TupleSrc => self.expected.ends[0] = Some(address),
            Key::TupleDst => self.expected.ends[1] = Some(address),
            Key::MaskSrc => self.masks[0] = Some(address),
            _ => self.masks[1] = Some(address),
        }
        Ok(())
    }

    fn take_nat(&mut self, key: Key, argument: Option<&str>) -> Result<(), Answer> {
        let mut wanted = Translated::default();
        if let Some(text) = argument {
            let (host, port) = address_and_port(text)?;
            let (host, prefix) = host.split_once('/').map_or((host, false), |(h, _)| (h, true));
            let address = address(host)?;
            self.take_family(Family::of(address))?;
            if prefix {
                let name = options::name(key);
                return Err(refused(format_args!("CIDR notation unavailable for `--{name}'")));
            }
            wanted.address = Some(address);
            wanted.port = port;
        }
        match key {
            Key::SrcNat => self.filter.src_nat = Some(wanted),
            Key::DstNat => self.filter.dst_nat = Some(wanted),
            _ => self.filter.any_nat = Some(wanted),
        }
        Ok(())
    }

    fn take_status(&mut self, text: &str) -> Result<(), Answer> {
        let (mut set, mut asked) = self.status.unwrap_or_default();
        let mut rest = text;
        loop {
            let negated = rest.starts_with('!') && !rest.starts_with(',');
            rest = if negated { &rest[1..] } else { rest };
            let (word, tail) = rest.split_once(',').map_or((rest, None), |(w, t)| (w, Some(t)));
            if !negated && rest.starts_with("UNREPLIED") {
                asked |= Status::SEEN_REPLY.0;
            } else {
                let bits = self.named(word, STATUSES).ok_or_else(|| bad_parameter(rest))?;
                *(if negated { &mut asked } else { &mut set }) |= bits;
            }
            match tail {
                Some(tail) => rest = tail,
                None => break,
            }
        }
        asked = if asked == 0 { set } else { asked };
        self.status = Some((set, asked));
        Ok(())
    }

    /// The value of a word that may be shortened to its beginning, in either case.
    fn named<T: Copy + Default>(&mut self, word: &str, names: &[(&str, T)]) -> Option<T> {
        if word.is_empty() {
            return None;
        }
        for (name, option) in [("SRC_NAT", "src-nat"), ("DST_NAT", "dst-nat")] {
            if begins(name, word) {
                self.warnings += &format!("WARNING: ignoring {name}, use --{option} instead\n");
                return Some(T::default());
            }
        }
        names.iter().find(|(name, _)| begins(name, word)).map(|(_, value)| *value)
    }

    /// Each word of a list, up to the first that nobody knows.
    fn each_named<T: Copy + Default>(
        &mut self,
        text: &str,
        names: &[(&str, T)],
        mut take: impl FnMut(&mut Self, T),
    ) -> Result<(), Answer> {
        let mut rest = text;
        loop {
            let (word, tail) = rest.split_once(',').map_or((rest, None), |(w, t)| (w, Some(t)));
            let value = self.named(word, names).ok_or_else(|| bad_parameter(rest))?;
            take(self, value);
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(()),
            }
        }
    }

    fn take_events(&mut self, text: &str) -> Result<(), Answer> {
        use EventKind::{Destroy, New, Update};
        let names: &[(&str, &[EventKind])] = &[
            ("ALL", &[New, Update, Destroy]),
            ("NEW", &[New]),
            ("UPDATES", &[Update]),
            ("DESTROY", &[Destroy]),
        ];
        self.each_named(text, names, |this, kinds| this.events.extend_from_slice(kinds))
    }

    fn take_output(&mut self, text: &str) -> Result<(), Answer> {
        let names: Vec<(&str, usize)> = OUTPUTS.iter().zip(1..).map(|(n, i)| (*n, i)).collect();
        self.each_named(text, &names, |Reading { output: o, .. }, number| match number {
            1 => o.xml = true,
            2 => o.extended = true,
            3 => o.timestamp = true,
            4 => o.id = true,
            5 => o.ktimestamp = true,
            6 => o.labels = true,
            8 => o.save = true,
            _ => {}
        })?;
        if self.output.labels {
            self.read_names();
        }
        let alone = Output { save: true, ..Output::default() };
        if self.output.save && self.output != alone {
            return Err(Answer::failure(
                1,
                format_args!(
                    "{NAME}: cannot combine save output with any other output type, \
                     use -o save only"
                ),
            ));
        }
        Ok(())
    }

    fn read_names(&mut self) {
        if self.names.is_none()
            && let Some(read) = self.read
        {
            match read() {
                Ok(names) => self.names = Some(Arc::new(names)),
                Err(why) => self.warnings += &format!("nfct_labelmap_new: {why}\n"),
            }
        }
    }

    fn take_labels(&mut self, key: Key, list: Option<&str>) -> Result<(), Answer> {
        self.read_names();
        if self.saw(Key::LabelAdd) && self.saw(Key::LabelDel) {
            let what = "cannot use --label-add and --label-del at the same time";
            return Err(Answer::failure(1, format_args!("{NAME}: {what}")));
        }
        let more = list.map(|list| Labels::read(list, self.names.as_deref())).transpose()?;
        let before = match (key, self.labels) {
            (Key::Label, _) => self.filter.labels,
            (_, Some(Wish::Add(labels) | Wish::Delete(Some(labels)))) => Some(labels),
            _ => None,
        };
        let labels = before.map_or(more, |labels| Some(labels.with(more.unwrap_or_default())));
        match key {
            Key::Label => self.filter.labels = labels,
            Key::LabelAdd => self.labels = labels.map(Wish::Add),
            _ => self.labels = Some(Wish::Delete(labels)),
        }
        Ok(())
    }

    fn take_state(&mut self, text: &str) -> Result<(), Answer> {
        let (states, name) = match self.filter.proto {
            Some(proto::SCTP) => (options::SCTP_STATES, "unknown SCTP"),
            Some(options::DCCP_NUMBER) => (options::DCCP_STATES, "Unknown DCCP"),
            _ => (options::TCP_STATES, "unknown TCP"),
        };
        let state = states.iter().find(|s| **s == text);
        let unknown = || refused(format_args!("{name} state `{text}'"));
        self.filter.state = Some(state.ok_or_else(unknown)?);
        Ok(())
    }

    fn take_number(&mut self, key: Key, text: &str) {
        let f = &mut self.filter;
        let decimal = leading_number(text, 10);
        match key {
            Key::PortSrc => f.original_ids[0] = Some(decimal as u16),
            Key::PortDst => f.original_ids[1] = Some(decimal as u16),
            Key::ReplyPortSrc => f.reply_ids[0] = Some(decimal as u16),
            Key::ReplyPortDst => f.reply_ids[1] = Some(decimal as u16),
            Key::KeySrc => f.original_ids[0] = Some(any_base(text) as u16),
            Key::KeyDst => f.original_ids[1] = Some(any_base(text) as u16),
            Key::ReplyKeySrc => f.reply_ids[0] = Some(any_base(text) as u16),
            Key::ReplyKeyDst => f.reply_ids[1] = Some(any_base(text) as u16),
            // The tool takes the number for the tag's four bytes as this machine reads them.
            Key::VtagOriginal => f.vtags[0] = Some(u32::from_be(decimal)),
            Key::VtagReply => f.vtags[1] = Some(u32::from_be(decimal)),
            Key::IcmpType => f.icmp_type = Some(decimal as u8),
            Key::IcmpCode => f.icmp_code = Some(decimal as u8),
            Key::IcmpId => f.icmp_id = Some(decimal as u16),
            Key::Mark => {
                let (mark, mask) = match text.split_once('/') {
                    Some((mark, mask)) => (mark, any_base(mask)),
                    None => (text, u32::MAX),
                };
                f.mark = Some((any_base(mark), mask));
            }
            Key::Zone => f.zone = Some(any_base(text) as u16),
            Key::ZoneOriginal => f.zone_original = Some(any_base(text) as u16),
            Key::ZoneReply => f.zone_reply = Some(any_base(text) as u16),
            Key::Timeout => f.remaining_secs = Some(decimal),
            Key::Id => f.id = Some(any_base(text)),
            Key::ExpectPort(part) => self.take_expected(part, decimal as u16),
            Key::ExpectKey(part) => self.take_expected(part, any_base(text) as u16),
            _ => {}
        }
    }

    /// The mask of a destination says nothing.
    fn take_expected(&mut self, part: u8, id: u16) {
        match part {
            0 => self.expected.mask_id = Some(id),
            2 => self.expected.ids[0] = Some(id),
            3 => self.expected.ids[1] = Some(id),
            _ => {}
        }
    }

    fn finish(&mut self) -> Result<Request, Answer> {
        let command = self.command.unwrap_or(Command::Help);
        let table = self.table.unwrap_or(Table::Conntrack);
        let shown = if table == Table::Hidden { Table::Conntrack } else { table };
        if self.saw(Key::AnyNat) && (self.saw(Key::SrcNat) || self.saw(Key::DstNat)) {
            return Err(refused(format_args!(
                "cannot specify `--src-nat' or `--dst-nat' with `--any-nat'"
            )));
        }
        self.check_options(command, shown)?;
        if command != Command::Help {
            self.check_proto_options(command, shown)?;
        }
        if self.saw(Key::Secmark) {
            return Err(refused(format_args!(
                "`--secmark' is not supported: conns here have no security marks"
            )));
        }
        if command == Command::List && self.saw(Key::Zero) && self.compares() {
            return Err(refused(format_args!("Can't use -z with filtering parameters")));
        }
        if table == Table::Conntrack {
            self.apply_masks()?;
        }
        self.apply_status(command)?;
        let timeout_secs = self.filter.remaining_secs;
        if !(command == Command::Delete && self.compares()) {
            self.filter.remaining_secs = None;
        }
        self.output.label_names = self.names.take();
        Ok(Request {
            command,
            table,
            timeout_secs,
            status: self.status.map_or(0, |(set, _)| set),
            labels: self.labels,
            zero: self.saw(Key::Zero),
            filter: take(&mut self.filter),
            output: take(&mut self.output),
            events: take(&mut self.events),
            warnings: take(&mut self.warnings),
            expected: Expected { mask: self.masks[0], ..self.expected },
            buffer_bytes: self.buffer_bytes,
        })
    }

    fn saw(&self, key: Key) -> bool {
        self.seen.contains(&key)
    }

    /// Whether an option is there that makes the tool compare conns one by one.
    fn compares(&self) -> bool {
        let alone = [
            Key::Timeout,
            Key::Zero,
            Key::MaskSrc,
            Key::MaskDst,
            Key::NatRange,
            Key::Family,
            Key::SrcNat,
            Key::DstNat,
            Key::AnyNat,
            Key::Output,
        ];
        self.seen.iter().any(|key| !alone.contains(key))
    }

    /// `generic_opt_check` for the options of every protocol.
    fn check_options(&self, command: Command, table: Table) -> Result<(), Answer> {
        let coupled = check(options::ORDER.iter().map(|key| {
            (options::name(*key), options::need(command, table, *key), self.saw(*key))
        }))?;
        let pair = |a, b| self.saw(a) && self.saw(b);
        if !coupled || pair(Key::Src, Key::Dst) || pair(Key::ReplySrc, Key::ReplyDst) {
            return Ok(());
        }
        let original = self.saw(Key::Src) || self.saw(Key::Dst);
        let reply = self.saw(Key::ReplySrc) || self.saw(Key::ReplyDst);
        let pair = if reply && !original {
            "`--reply-src' and `--reply-dst'"
        } else {
            "`--src' and `--dst'"
        };
        Err(refused(format_args!("you have to specify {pair}")))
    }

    /// The same for those of the protocol.
    fn check_proto_options(&self, command: Command, table: Table) -> Result<(), Answer> {
        let Some(number) = self.filter.proto else { return Ok(()) };
        let known = options::proto_options(number);
        let saw = |key: Key| self.proto_seen.contains(&key);
        let coupled = check(known.iter().map(|option| {
            let name = option.long.first().copied().unwrap_or_default();
            (name, options::proto_need(command, table, option.key), saw(option.key))
        }))?;
        let (words, keys) = options::pairs(number);
        let [a, b, c, d] = keys.map(saw);
        if !coupled || (a && b) || (c && d) {
            return Ok(());
        }
        let pair = if (c || d) && !(a || b) { words[1] } else { words[0] };
        Err(refused(format_args!("you have to specify {pair}")))
    }

    fn apply_masks(&mut self) -> Result<(), Answer> {
        let [src, dst] = self.masks;
        let ends = [(src, &mut self.filter.src, "src"), (dst, &mut self.filter.dst, "dst")];
        for (mask, end, name) in ends {
            let Some(mask) = mask else { continue };
            let Some(end) = end else {
                return Err(refused(format_args!("Can't use --mask-{name} without --{name}")));
            };
            let upper = if mask.is_v4() { !0 << 32 } else { 0 };
            end.mask = mask.bits() | upper;
        }
        Ok(())
    }

    /// A listing asks the kernel to look at some bits, and it refuses to look at none; a deletion
    /// compares the bits that are to be set itself.
    fn apply_status(&mut self, command: Command) -> Result<(), Answer> {
        let Some((set, asked)) = self.status else { return Ok(()) };
        match command {
            Command::List if asked == 0 => {
                let what = "Operation failed: invalid parameters";
                return Err(Answer::failure(1, format_args!("{NAME}: {what}")));
            }
            Command::List => {
                self.filter.status_set = set;
                self.filter.status_unset = asked & !set;
                self.filter.nothing = set & !asked != 0;
            }
            Command::Delete => self.filter.status_set = set,
            _ => {}
        }
        Ok(())
    }
}

/// Bits by the names that `-u` has for them, in the order in which they are tried.
const STATUSES: &[(&str, u16)] = &[
    ("ASSURED", Status::ASSURED.0),
    ("SEEN_REPLY", Status::SEEN_REPLY.0),
    ("UNSET", 0),
    ("FIXED_TIMEOUT", Status::FIXED_TIMEOUT.0),
    ("EXPECTED", Status::EXPECTED.0),
    // Bits that no conn here ever has.
    ("OFFLOAD", 1 << 14),
    ("HW_OFFLOAD", 1 << 15),
];

/// What `-o` takes, in the order in which it is tried.
const OUTPUTS: [&str; 8] =
    ["xml", "extended", "timestamp", "id", "ktimestamp", "labels", "userspace", "save"];

/// True if `word` is the beginning of `name`, in either case.
fn begins(name: &str, word: &str) -> bool {
    name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
}

fn bad_parameter(rest: &str) -> Answer {
    refused(format_args!("Bad parameter `{rest}'"))
}

/// Holds options against what a command needs; true if one of two pairs has to be there.
fn check<'a>(options: impl Iterator<Item = (&'a str, Need, bool)>) -> Result<bool, Answer> {
    let mut coupled = false;
    for (name, need, there) in options {
        match (need, there) {
            (Need::Compulsory, false) => {
                return Err(refused(format_args!(
                    "You need to supply the `--{name}' option for this command"
                )));
            }
            (Need::Illegal, true) => {
                return Err(refused(format_args!("Illegal option `--{name}' with this command")));
            }
            _ => coupled |= need == Need::Coupled,
        }
    }
    Ok(coupled)
}

/// `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT`.
fn address_and_port(text: &str) -> Result<(&str, Option<u16>), Answer> {
    let split = if let Some((_, inner)) = text.split_once('[') {
        match inner.split_once(']') {
            Some(("", _)) => return Err(refused(format_args!("No IPv6 address specified"))),
            None => return Err(refused(format_args!("No closing ']' around IPv6 address"))),
            Some((host, rest)) => rest.split_once(':').map(|(_, port)| (host, port)),
        }
    } else {
        text.split_once(':').filter(|(_, port)| !port.contains(':'))
    };
    let Some((host, port)) = split else { return Ok((text, None)) };
    if port.is_empty() {
        return Err(refused(format_args!("No port specified after `:'")));
    }
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    match port.parse() {
        Ok(number) if digits => Ok((host, Some(number))),
        _ => Err(refused(format_args!("Invalid port `{port}'"))),
    }
}

fn address(text: &str) -> Result<Address, Answer> {
    let invalid = |_| refused(format_args!("Invalid IP address `{text}'"));
    text.parse::<IpAddr>().map(Address::from).map_err(invalid)
}

fn prefix_mask(address: Address, prefix: Option<&str>) -> Result<u128, Answer> {
    let Some(prefix) = prefix else { return Ok(u128::MAX) };
    let bits = if address.is_v4() { 32 } else { 128 };
    match prefix.parse::<u32>() {
        Ok(length) if length <= bits => Ok(u128::MAX.checked_shl(bits - length).unwrap_or(0)),
        _ => Err(refused(format_args!("Invalid netmask"))),
    }
}

/// The number at the start of a text as strtoul(3) reads it, 0 if there is none.
fn leading_number(text: &str, base: u32) -> u32 {
    let text = text.trim_start();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
    let value = u64::from_str_radix(&digits[..end], base);
    let value = value.unwrap_or(if end == 0 { 0 } else { u64::MAX });
    (if negative { value.wrapping_neg() } else { value }) as u32
}

/// The same with `0x` for hexadecimal and a leading `0` for octal.
fn any_base(text: &str) -> u32 {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => leading_number(hex, 16),
        None if text.starts_with('0') => leading_number(text, 8),
        None => leading_number(text, 10),
    }
}
