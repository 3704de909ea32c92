//! What a rule does with the packets it matches, as written.

pub mod connmark;
pub mod nflog;
pub mod synproxy;

use self::connmark::ConnMark;
use self::nflog::Nflog;
use self::synproxy::Synproxy;
use super::edit::ecn::SetEcn;
use super::edit::prefix::Prefixes;
use super::edit::tcp_mss::SetMss;
use super::edit::tcp_options::StripOptions;
use super::edit::tos::SetTos;
use super::edit::ttl::SetTtl;
use super::matches::Net;
use super::sets::Sides;
use super::template::Ct;
use crate::nat::range::Range;
use crate::wire::address::Address;

/// `-j` or `-g`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// No target: the rule only counts.
    None,
    /// Go on to the next hook.
    Accept,
    /// Drop silently.
    Drop,
    /// Back to the calling chain; in a base chain the policy.
    Return,
    /// Drop and tell the sender.
    Reject(RejectWith),
    /// `-j CHAIN`.
    Jump(String),
    /// `-g CHAIN`: as a jump, but RETURN and the end of the chain go where this chain would.
    Goto(String),
    /// Write a line, and go on.
    Log(Log),
    /// `-j CT`: what tracking shall do with the packet; goes on.
    Ct(Ct),
    /// `-j NOTRACK`: `-j CT --notrack` under its old name.
    Notrack,
    /// `-j MARK`: new mark = old mark without the bits of the mask, XOR value; goes on.
    Mark(SetMark),
    /// `-j CONNMARK`; goes on.
    Connmark(ConnMark),
    /// `-j NFLOG`; goes on.
    Nflog(Nflog),
    /// `-j TRACE`: every rule that the packet meets from here on writes a line; goes on.
    Trace,
    /// `-j TOS`; goes on.
    Tos(SetTos),
    /// `-j DSCP`: a number below 64; goes on.
    Dscp(u8),
    /// `-j TTL`, for IPv4; goes on.
    Ttl(SetTtl),
    /// `-j HL`, the same for IPv6; goes on.
    Hl(SetTtl),
    /// `-j ECN`; goes on.
    Ecn(SetEcn),
    /// `-j TCPMSS`; goes on.
    Tcpmss(SetMss),
    /// `-j TCPOPTSTRIP`; goes on.
    Tcpoptstrip(StripOptions),
    /// `-j SYNPROXY`: a first SYN is answered here, and what acknowledges the answer opens the
    /// server; other packets go on.
    Synproxy(Synproxy),
    /// `-j SNPT`; goes on.
    Snpt(Prefixes),
    /// `-j DNPT`; goes on.
    Dnpt(Prefixes),
    /// `-j SNAT`.
    Snat(NatOptions),
    /// `-j DNAT`.
    Dnat(NatOptions),
    /// `-j MASQUERADE`: SNAT to the address of the port of departure.
    Masquerade(NatOptions),
    /// `-j REDIRECT`: DNAT to the address of the port of arrival.
    Redirect(NatOptions),
    /// `-j SET`: change sets; goes on.
    Set(Box<SetTarget>),
    /// `-j NETMAP`: DNAT or SNAT, by hook, to this network's address with the same host bits.
    Netmap(Net),
}

impl Target {
    /// The word after `-j` or `-g`; empty for a rule without target.
    pub fn name(&self) -> &str {
        match self {
            Target::None => "",
            Target::Accept => "ACCEPT",
            Target::Drop => "DROP",
            Target::Return => "RETURN",
            Target::Reject(_) => "REJECT",
            Target::Jump(chain) | Target::Goto(chain) => chain,
            Target::Log(_) => "LOG",
            Target::Ct(_) => "CT",
            Target::Notrack => "NOTRACK",
            Target::Mark(_) => "MARK",
            Target::Connmark(_) => "CONNMARK",
            Target::Nflog(_) => "NFLOG",
            Target::Trace => "TRACE",
            Target::Tos(_) => "TOS",
            Target::Dscp(_) => "DSCP",
            Target::Ttl(_) => "TTL",
            Target::Hl(_) => "HL",
            Target::Ecn(_) => "ECN",
            Target::Tcpmss(_) => "TCPMSS",
            Target::Tcpoptstrip(_) => "TCPOPTSTRIP",
            Target::Synproxy(_) => "SYNPROXY",
            Target::Snpt(_) => "SNPT",
            Target::Dnpt(_) => "DNPT",
            Target::Snat(_) => "SNAT",
            Target::Dnat(_) => "DNAT",
            Target::Masquerade(_) => "MASQUERADE",
            Target::Redirect(_) => "REDIRECT",
            Target::Set(_) => "SET",
            Target::Netmap(_) => "NETMAP",
        }
    }
}

/// What the sender of a rejected packet is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectWith {
    /// A TCP reset.
    TcpReset,
    /// Destination unreachable with this code: ICMP type 3 or ICMPv6 type 1, by family.
    Unreachable(u8),
}

/// `-j LOG` (`struct xt_log_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text before the packet, at most 29 bytes.
    pub prefix: String,
    /// Syslog level, 0 (emerg) to 7 (debug).
    pub level: u8,
    /// What to print besides, see the constants.
    pub flags: u8,
}

impl Log {
    /// TCP sequence numbers (`XT_LOG_TCPSEQ`).
    pub const TCP_SEQUENCE: u8 = 0x01;
    /// TCP options (`XT_LOG_TCPOPT`).
    pub const TCP_OPTIONS: u8 = 0x02;
    /// IP options (`XT_LOG_IPOPT`).
    pub const IP_OPTIONS: u8 = 0x04;
    /// The sending socket's user: a gateway's packets have no socket, so nothing is printed
    /// (`XT_LOG_UID`).
    pub const UID: u8 = 0x08;
    /// Decode MAC addresses and protocol (`XT_LOG_MACDECODE`).
    pub const MAC_DECODE: u8 = 0x20;
    /// Bytes of prefix that are kept.
    pub const MAX_PREFIX: usize = 29;
    /// The level where none is asked for: warning.
    pub const DEFAULT_LEVEL: u8 = 4;
}

/// `-j MARK --set-xmark value/mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SetMark {
    /// Bits to flip after clearing.
    pub value: u32,
    /// Bits to clear.
    pub mask: u32,
}

impl SetMark {
    /// The mark after the target.
    #[inline]
    pub const fn apply(&self, mark: u32) -> u32 {
        (mark & !self.mask) ^ self.value
    }
}

/// The options of the four NAT targets; which of them a target knows is the text layer's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatOptions {
    /// `--to-source`, `--to-destination`: lowest and highest address.
    pub addresses: Option<(Address, Address)>,
    /// Ports behind the address or in `--to-ports`.
    pub ports: Option<(u16, u16)>,
    /// The port after `/` in DNAT.
    pub base_port: Option<u16>,
    /// `--random`.
    pub random: bool,
    /// `--random-fully`.
    pub random_fully: bool,
    /// `--persistent`.
    pub persistent: bool,
}

impl NatOptions {
    /// As the choice of a tuple needs it.
    pub const fn range(&self) -> Range {
        Range {
            addresses: self.addresses,
            ports: self.ports,
            base_port: self.base_port,
            random: self.random || self.random_fully,
            persistent: self.persistent,
        }
    }
}

/// `-j SET` (`struct xt_set_info_target_v3`). What it adds comes first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetTarget {
    /// `--add-set`: the set's name, and what the element is taken from.
    pub add: Option<(String, Sides)>,
    /// `--del-set`.
    pub del: Option<(String, Sides)>,
    /// `--exist`: an element that is there begins its timeout again.
    pub exist: bool,
    /// `--timeout` in seconds; the set's own if `None`.
    pub timeout: Option<u32>,
    /// `--map-set` with `--map-mark`: the packet gets the mark of its element.
    pub map: Option<(String, Sides)>,
}
