//! The arguments of conntrack(8), as version 1.4.7 reads them.
//!
//! Options after `-p` depend on the protocol, which is why order matters: `--sport` is unknown
//! until `-p` has named a protocol with ports. Numbers are read as the tool reads them, up to the
//! first character that is no digit. Wrong arguments exit with 2 and two lines on standard error.
//!
//! Not in this version, and refused: `-I -A -U -G -R`, the tables `dying` and `unconfirmed`, `-z`,
//! `-c`, `-b`, labels, `-D expect`, SCTP verification tags.

use std::net::IpAddr;

use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::proto;
use dataplane::conntrack::view::EventKind;
use dataplane::wire::address::Address;

use super::Answer;
use super::conntrack_filter::{Filter, Masked, Translated};
use super::conntrack_format::{NAME, Output};
use super::conntrack_options::{self as options, Key, allows, proto_number, proto_options};
use super::getopt::{Opt, Reader, Unreadable, Word};

pub use super::conntrack_filter::Family;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-L`
    List,
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
    /// Shown how.
    pub output: Output,
    /// Which events; empty for all.
    pub events: Vec<EventKind>,
    /// Lines for standard error before anything else.
    pub warnings: String,
}

impl Request {
    /// Whether an event passes `-e` and the filter.
    pub fn wants(&self, event: &dataplane::conntrack::view::EventView) -> bool {
        let kind = self.events.is_empty() || self.events.contains(&event.kind);
        kind && self.filter.matches(&event.conn)
    }
}

/// Reads a command line.
///
/// # Errors
/// The finished answer: two lines and exit code 2, or one line and 1 for the few things the tool
/// answers so.
pub fn parse(argv: &[String]) -> Result<Request, Answer> {
    let mut reading = Reading::default();
    let mut known: Vec<Opt<Key>> = options::ALWAYS.to_vec();
    let mut words = Reader::new(argv);
    while let Some(word) = words.step(&known) {
        match word.map_err(unreadable)? {
            Word::Operand(_) => {}
            Word::Option(key, argument) => reading.take(key, argument, &mut known)?,
        }
    }
    reading.finish()
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
fn refused(message: std::fmt::Arguments<'_>) -> Answer {
    let hint = "Try `conntrack -h' or 'conntrack --help' for more information.";
    Answer::failure(2, format_args!("{NAME}: {message}\n{hint}"))
}

fn not_yet(what: &str) -> Answer {
    Answer::failure(2, format_args!("{NAME}: `{what}' is not supported in this version"))
}

/// The state while reading.
#[derive(Default)]
struct Reading {
    command: Option<Command>,
    table: Option<Table>,
    hidden_table: bool,
    /// Options seen, for the check against the command.
    seen: Vec<Key>,
    filter: Filter,
    masks: [Option<Address>; 2],
    status: Option<(u16, bool)>,
    output: Output,
    events: Vec<EventKind>,
    warnings: String,
}

impl Reading {
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
        self.seen.push(key);
        match key {
            Key::Later(what) => return Err(not_yet(what)),
            Key::Label => return Err(refused(format_args!("unknown label '{text}'"))),
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
        if self.command.is_some_and(|c| c != command || c == Command::List) {
            return Err(refused(format_args!("Invalid commands combination")));
        }
        self.command = Some(command);
        match table {
            None => {}
            Some("conntrack") => self.table = Some(Table::Conntrack),
            Some("expect") => self.table = Some(Table::Expect),
            Some("dying" | "unconfirmed") => self.hidden_table = true,
            Some(other) => return Err(refused(format_args!("unknown type `{other}'"))),
        }
        Ok(())
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
        let wide = matches!(key, Key::Src | Key::Dst);
        if prefix.is_some() && !wide {
            let name = options::name(key);
            return Err(refused(format_args!("CIDR notation unavailable for `--{name}'")));
        }
        let masked = Masked { address, mask: prefix_mask(address, prefix)? };
        match key {
            Key::Src => self.filter.src = Some(masked),
            Key::Dst => self.filter.dst = Some(masked),
            Key::ReplySrc => self.filter.reply_src = Some(address),
            Key::ReplyDst => self.filter.reply_dst = Some(address),
            Key::MaskSrc => self.masks[0] = Some(address),
            _ => self.masks[1] = Some(address),
        }
        Ok(())
    }

    fn take_nat(&mut self, key: Key, argument: Option<&str>) -> Result<(), Answer> {
        let mut wanted = Translated::default();
        if let Some(text) = argument {
            let (host, port) = match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                _ => (text, None),
            };
            let address = address(host)?;
            self.take_family(Family::of(address))?;
            wanted.address = Some(address);
            wanted.port = port.map(|p| leading_number(p, 10) as u16);
        }
        match key {
            Key::SrcNat => self.filter.src_nat = Some(wanted),
            Key::DstNat => self.filter.dst_nat = Some(wanted),
            _ => self.filter.any_nat = Some(wanted),
        }
        Ok(())
    }

    fn take_status(&mut self, text: &str) -> Result<(), Answer> {
        let (mut set, mut unreplied) = self.status.unwrap_or_default();
        for word in text.split(',') {
            set |= match word.to_ascii_uppercase().as_str() {
                "UNSET" => 0,
                "EXPECTED" => Status::EXPECTED.0,
                "SEEN_REPLY" => Status::SEEN_REPLY.0,
                "ASSURED" => Status::ASSURED.0,
                "FIXED_TIMEOUT" => Status::FIXED_TIMEOUT.0,
                // Bits that no conn here ever has.
                "OFFLOAD" => 1 << 14,
                "HW_OFFLOAD" => 1 << 15,
                "UNREPLIED" => {
                    unreplied = true;
                    0
                }
                name @ ("SRC_NAT" | "DST_NAT") => {
                    let option = name.replace('_', "-").to_ascii_lowercase();
                    self.warnings += &format!("WARNING: ignoring {name}, use --{option} instead\n");
                    0
                }
                _ => return Err(refused(format_args!("Bad parameter `{text}'"))),
            };
        }
        self.status = Some((set, unreplied));
        Ok(())
    }

    fn take_events(&mut self, text: &str) -> Result<(), Answer> {
        for word in text.split(',') {
            match word.to_ascii_uppercase().as_str() {
                "ALL" => {
                    self.events.extend([EventKind::New, EventKind::Update, EventKind::Destroy]);
                }
                "NEW" => self.events.push(EventKind::New),
                "UPDATES" => self.events.push(EventKind::Update),
                "DESTROY" => self.events.push(EventKind::Destroy),
                _ => return Err(refused(format_args!("Bad parameter `{word}'"))),
            }
        }
        Ok(())
    }

    fn take_output(&mut self, text: &str) -> Result<(), Answer> {
        let output = &mut self.output;
        let mut words = 0;
        for word in text.split(',') {
            words += 1;
            match word.to_ascii_lowercase().as_str() {
                "extended" => output.extended = true,
                "id" => output.id = true,
                "timestamp" => output.timestamp = true,
                "ktimestamp" => output.ktimestamp = true,
                "xml" => output.xml = true,
                "save" => output.save = true,
                // No conn here has labels, and events always tell who caused them.
                "labels" | "userspace" => {}
                _ => return Err(refused(format_args!("Bad parameter `{word}'"))),
            }
        }
        if output.save && (words > 1 || *output != (Output { save: true, ..Output::default() })) {
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

    fn take_state(&mut self, text: &str) -> Result<(), Answer> {
        let sctp = self.filter.proto == Some(proto::SCTP);
        let (states, name) =
            if sctp { (options::SCTP_STATES, "SCTP") } else { (options::TCP_STATES, "TCP") };
        let state = states.iter().find(|s| **s == text);
        let unknown = || refused(format_args!("unknown {name} state `{text}'"));
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
            _ => {}
        }
    }

    fn finish(mut self) -> Result<Request, Answer> {
        let command = self.command.unwrap_or(Command::Help);
        let table = self.table.unwrap_or(Table::Conntrack);
        if self.hidden_table {
            if command != Command::List {
                return Err(refused(format_args!(
                    "Can't do that command with tables `dying' and `unconfirmed'"
                )));
            }
            return Err(not_yet("-L dying|unconfirmed"));
        }
        if command == Command::Delete && table == Table::Expect {
            return Err(not_yet("-D expect"));
        }
        let illegal = |k: &&Key| self.seen.contains(k) && !allows(command, table, **k);
        if let Some(key) = options::ORDER.iter().find(illegal) {
            let name = options::name(*key);
            return Err(refused(format_args!("Illegal option `--{name}' with this command")));
        }
        self.apply_masks()?;
        self.apply_status(command)?;
        Ok(Request {
            command,
            table,
            filter: self.filter,
            output: self.output,
            events: self.events,
            warnings: self.warnings,
        })
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

    /// A listing asks the kernel for status bits, which refuses to be asked for none; a deletion
    /// compares them itself and takes `UNREPLIED` for no condition.
    fn apply_status(&mut self, command: Command) -> Result<(), Answer> {
        let Some((set, unreplied)) = self.status else { return Ok(()) };
        self.filter.status_set = set;
        if command == Command::List {
            if set == 0 && !unreplied {
                let warnings = &self.warnings;
                return Err(Answer::failure(
                    1,
                    format_args!("{warnings}{NAME}: Operation failed: invalid parameters"),
                ));
            }
            if unreplied {
                self.filter.status_unset = Status::SEEN_REPLY.0;
            }
        }
        Ok(())
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
    let digits = text.trim_start();
    let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
    let value = u64::from_str_radix(&digits[..end], base);
    value.unwrap_or(if end == 0 { 0 } else { u64::MAX }) as u32
}

/// The same with `0x` for hexadecimal and a leading `0` for octal.
fn any_base(text: &str) -> u32 {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => leading_number(hex, 16),
        None if text.starts_with('0') => leading_number(text, 8),
        None => leading_number(text, 10),
    }
}
