//! What a rule asks of a packet, as written. Tests that the compiled form uses unchanged live here
//! too, each with the kernel's meaning.

mod ask;
pub mod conn;
pub mod connbytes;
pub mod connlimit;
pub mod dccp;
pub mod hashlimit;
pub mod head;
pub mod headers6;
pub mod limit;
pub mod moment;
pub mod place;
pub mod quota;
pub mod recent;
pub mod sctp;
pub mod search;
pub mod set;
pub mod statistic;
pub mod u32;

#[cfg(test)]
mod tests;

use conn::{Connmark, HelperName};
use dccp::Dccp;
use head::{Dscp, Ecn, Length, Life, Mss, Spi, Tos};
use headers6::{Ah, Frag, HeaderKinds, Options, Rt};
use moment::Moment;
use place::{AddrType, IpRange, Mac, PktType, RpFilter};
use sctp::Sctp;
use search::Search;
use statistic::Statistic;
use u32::U32;

use super::kept::Kept;
use crate::arch::sync::AtomicU64;
use crate::wire::address::Address;
use crate::wire::tcp::flags;
use connbytes::Connbytes;
use connlimit::Connlimit;
use hashlimit::Hashlimit;
use limit::Limit;
use quota::Quota;
use recent::Recent;

/// A test that can be negated with `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Maybe<T> {
    /// `!` was written.
    pub not: bool,
    /// What is asked for.
    pub value: T,
}

impl<T> Maybe<T> {
    /// The plain, not negated test.
    pub const fn is(value: T) -> Maybe<T> {
        Maybe { not: false, value }
    }

    /// The negated test.
    pub const fn isnt(value: T) -> Maybe<T> {
        Maybe { not: true, value }
    }

    /// The packet's answer `holds` turned round where `!` was written.
    #[inline]
    pub const fn judge(&self, holds: bool) -> bool {
        holds != self.not
    }
}

/// An address with a mask; the mask may have holes. Bits are those of [`Address::bits`], and an
/// IPv4 mask has only its low 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Net {
    /// The address, already masked.
    pub address: Address,
    /// Bits that count.
    pub mask: u128,
}

impl Net {
    /// The address in this net with the bits of `host` that do not count.
    pub const fn with_host_of(&self, host: Address) -> Address {
        let bits = host.bits() & !self.mask | self.address.bits();
        if self.address.is_v4() { Address::v4(bits as u32) } else { Address::v6(bits) }
    }

    /// True if `address` agrees in every bit that counts.
    #[inline]
    pub const fn holds(&self, address: Address) -> bool {
        (address.bits() ^ self.address.bits()) & self.mask == 0
    }
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    /// Lowest port.
    pub low: u16,
    /// Highest port; below `low` nothing matches.
    pub high: u16,
}

impl PortRange {
    /// One port.
    pub const fn one(port: u16) -> PortRange {
        PortRange { low: port, high: port }
    }

    /// True if `port` lies in the range.
    #[inline]
    pub const fn holds(&self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

/// What every rule can ask without `-m` (`struct ipt_ip`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basics {
    /// `-s`.
    pub src: Option<Maybe<Net>>,
    /// `-d`.
    pub dst: Option<Maybe<Net>>,
    /// `-i`, a name or a prefix that ends in `+`.
    pub in_port: Option<Maybe<String>>,
    /// `-o`.
    pub out_port: Option<Maybe<String>>,
    /// `-p`; `None` for all protocols.
    pub proto: Option<Maybe<u8>>,
    /// `-f`: later fragments only (IPv4).
    pub fragment: Option<Maybe<()>>,
}

/// `-m NAME` with its options, in the order in which the rule names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `-m tcp`.
    Tcp(Tcp),
    /// `-m udp`.
    Udp(Udp),
    /// `-m icmp`, `None` for any type.
    Icmp(Maybe<IcmpKind>),
    /// `-m icmp6`.
    Icmpv6(Maybe<IcmpKind>),
    /// `-m conntrack`.
    Conntrack(Box<Conntrack>),
    /// `-m state`: a conntrack match that knows states alone.
    State(Maybe<StateMask>),
    /// `-m multiport`.
    Multiport(Multiport),
    /// `-m comment`: always true.
    Comment(String),
    /// `-m mark`.
    Mark(Maybe<Masked>),
    /// `-m connlabel`.
    Connlabel(Connlabel),
    /// `-m set`.
    Set(Box<set::SetMatch>),
    /// `-m connmark`.
    Connmark(Connmark),
    /// `-m helper`.
    Helper(HelperName),
    /// `-m iprange`.
    IpRange(Box<IpRange>),
    /// `-m addrtype`.
    AddrType(AddrType),
    /// `-m rpfilter`.
    RpFilter(RpFilter),
    /// `-m mac`.
    Mac(Mac),
    /// `-m pkttype`.
    PktType(PktType),
    /// `-m length`.
    Length(Length),
    /// `-m ttl` (IPv4).
    Ttl(Life),
    /// `-m hl` (IPv6).
    Hl(Life),
    /// `-m tos`.
    Tos(Tos),
    /// `-m dscp`.
    Dscp(Dscp),
    /// `-m ecn`.
    Ecn(Ecn),
    /// `-m tcpmss`.
    Mss(Mss),
    /// `-m esp`.
    Esp(Spi),
    /// `-m ah` (IPv4).
    Ah4(Spi),
    /// `-m ah` (IPv6).
    Ah6(Ah),
    /// `-m sctp`.
    Sctp(Sctp),
    /// `-m dccp`.
    Dccp(Dccp),
    /// `-m time`.
    Time(Moment),
    /// `-m statistic`.
    Statistic(Statistic),
    /// `-m string`.
    Search(Box<Search>),
    /// `-m u32`.
    U32(Box<U32>),
    /// `-m frag` (IPv6).
    Frag(Frag),
    /// `-m hbh` (IPv6).
    Hbh(Box<Options>),
    /// `-m dst` (IPv6).
    Dst(Box<Options>),
    /// `-m rt` (IPv6).
    Rt(Box<Rt>),
    /// `-m ipv6header`.
    HeaderKinds(HeaderKinds),
    /// `-m limit`.
    Limit(Limit),
    /// `-m quota`.
    Quota(Quota),
    /// `-m connbytes`.
    Connbytes(Connbytes),
    /// `-m hashlimit`.
    Hashlimit(Box<Hashlimit>),
    /// `-m recent`.
    Recent(Box<Recent>),
    /// `-m connlimit`.
    Connlimit(Connlimit),
}

/// What an answer rests on that is another for the next packet ([`Match::rests_on`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// What this match keeps.
    State(&'static str),
    /// A draw.
    Chance,
}

impl Match {
    /// Begins anew what the match keeps, as another rule's; false if it keeps nothing.
    pub fn renew(&mut self) -> bool {
        match self {
            Match::Limit(limit) => limit.bucket = Kept::default(),
            Match::Quota(quota) => quota.used = Kept::default(),
            Match::Statistic(Statistic::Nth(nth)) => {
                *nth = statistic::Nth::new(nth.every, nth.packet)
            }
            Match::Connlimit(connlimit) => connlimit.number = Kept::default(),
            _ => return false,
        }
        true
    }

    /// The packets that `--mode nth` has seen.
    pub(super) fn counted(&self) -> Option<&AtomicU64> {
        match self {
            Match::Statistic(Statistic::Nth(nth)) => Some(&nth.seen),
            _ => None,
        }
    }

    /// Copies what the match keeps, so that whoever is judged by it here uses nothing of it up.
    pub fn part(&mut self) {
        match self {
            Match::Limit(limit) => limit.bucket = limit.bucket.apart(),
            Match::Quota(quota) => quota.used = quota.used.apart(),
            Match::Statistic(Statistic::Nth(nth)) => nth.seen = nth.seen.apart(),
            _ => {}
        }
    }

    /// What its answer rests on beside the packet and its conn: state that packets use up, by the
    /// match's name, or chance.
    pub const fn rests_on(&self) -> Option<Rest> {
        Some(match self {
            Match::Limit(_) => Rest::State("limit"),
            Match::Quota(_) => Rest::State("quota"),
            Match::Hashlimit(_) => Rest::State("hashlimit"),
            Match::Recent(_) => Rest::State("recent"),
            Match::Connlimit(_) => Rest::State("connlimit"),
            Match::Statistic(Statistic::Nth(_)) => Rest::State("statistic"),
            Match::Statistic(Statistic::Random(_)) => Rest::Chance,
            _ => return None,
        })
    }
}

/// `-m tcp` (`struct xt_tcp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// `--sport`.
    pub src_port: Option<Maybe<PortRange>>,
    /// `--dport`.
    pub dst_port: Option<Maybe<PortRange>>,
    /// `--tcp-option`: a kind of option, not 0.
    pub option: Option<Maybe<u8>>,
    /// `--tcp-flags`.
    pub flags: Option<Maybe<TcpFlags>>,
}

/// Flags of byte 13: those examined and those of them that have to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TcpFlags {
    /// Flags examined.
    pub mask: u8,
    /// Flags that have to be set; the others of `mask` have to be clear.
    pub set: u8,
}

impl TcpFlags {
    /// What is said of every packet that has none of SYN, FIN and RST, if it is the same of all of
    /// them. Only such packets take a path that was walked before, so a walk on which every rule
    /// said this need not be made again.
    pub(super) const fn of_plain(&self) -> Option<bool> {
        const OTHERS: u8 = !(flags::SYN | flags::FIN | flags::RST);
        let TcpFlags { mask, set } = *self;
        if set & !(mask & OTHERS) != 0 {
            // One of the three is wanted, or one that is not examined.
            Some(false)
        } else if mask & OTHERS == 0 {
            Some(true)
        } else {
            None
        }
    }
}

/// `-m udp` (`struct xt_udp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Udp {
    /// `--sport`.
    pub src_port: Option<Maybe<PortRange>>,
    /// `--dport`.
    pub dst_port: Option<Maybe<PortRange>>,
}

/// An ICMP type and a range of its codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpKind {
    /// Type; for ICMP (not ICMPv6) 255 with all codes stands for any type.
    pub kind: u8,
    /// Lowest code.
    pub low: u8,
    /// Highest code.
    pub high: u8,
}

/// A set of packet states (`XT_CONNTRACK_STATE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StateMask(pub u8);

impl StateMask {
    /// No conn, although tracking was asked for.
    pub const INVALID: StateMask = StateMask(1 << 0);
    /// First packets, not answered.
    pub const NEW: StateMask = StateMask(1 << 1);
    /// Expected conns and ICMP errors.
    pub const RELATED: StateMask = StateMask(1 << 2);
    /// Answered conns.
    pub const ESTABLISHED: StateMask = StateMask(1 << 3);
    /// Not tracked.
    pub const UNTRACKED: StateMask = StateMask(1 << 4);
    /// The conn's source is translated.
    pub const SNAT: StateMask = StateMask(1 << 5);
    /// The conn's destination is translated.
    pub const DNAT: StateMask = StateMask(1 << 6);

    /// True if the two sets share a state.
    #[inline]
    pub const fn meets(self, other: StateMask) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[inline]
    pub const fn with(self, other: StateMask) -> StateMask {
        StateMask(self.0 | other.0)
    }
}

/// `-m conntrack` (`struct xt_conntrack_mtinfo3`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conntrack {
    /// `--ctstate`.
    pub state: Option<Maybe<StateMask>>,
    /// `--ctproto`.
    pub proto: Option<Maybe<u8>>,
    /// `--ctorigsrc`.
    pub orig_src: Option<Maybe<Net>>,
    /// `--ctorigdst`.
    pub orig_dst: Option<Maybe<Net>>,
    /// `--ctreplsrc`.
    pub reply_src: Option<Maybe<Net>>,
    /// `--ctrepldst`.
    pub reply_dst: Option<Maybe<Net>>,
    /// `--ctorigsrcport`.
    pub orig_src_port: Option<Maybe<PortRange>>,
    /// `--ctorigdstport`.
    pub orig_dst_port: Option<Maybe<PortRange>>,
    /// `--ctreplsrcport`.
    pub reply_src_port: Option<Maybe<PortRange>>,
    /// `--ctrepldstport`.
    pub reply_dst_port: Option<Maybe<PortRange>>,
    /// `--ctstatus`: status bits of which one has to be set; `NONE` is no bit.
    pub status: Option<Maybe<u16>>,
    /// `--ctexpire`: seconds left, inclusive.
    pub expire: Option<Maybe<(u32, u32)>>,
    /// `--ctdir`, always as the positive form.
    pub direction: Option<crate::conntrack::state::Direction>,
}

impl Conntrack {
    /// The states, if nothing else is asked and the packet alone tells them.
    pub(super) fn only_state(&self) -> Option<Maybe<StateMask>> {
        let nat = StateMask::SNAT.with(StateMask::DNAT);
        let states = self.state.filter(|states| !states.value.meets(nat))?;
        (*self == Conntrack { state: self.state, ..Conntrack::default() }).then_some(states)
    }
}

/// Which ports `-m multiport` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `--sports`.
    Source,
    /// `--dports`.
    Destination,
    /// `--ports`: either of them.
    Either,
}

/// `-m multiport` (`struct xt_multiport_v1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiport {
    /// Which ports.
    pub side: Side,
    /// `!` was written.
    pub not: bool,
    /// Ports and ranges as written; at most [`Multiport::MAX_SLOTS`] slots, a range takes two.
    pub ports: Vec<PortRange>,
}

impl Multiport {
    /// The kernel's 15 slots (`XT_MULTI_PORTS`).
    pub const MAX_SLOTS: usize = 15;
}

/// `-m connlabel` (`struct xt_connlabel_mtinfo`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connlabel {
    /// `--label`: one of the 128, by its number.
    pub label: Maybe<u8>,
    /// `--set`: a conn that has it not gets it.
    pub set: bool,
}

impl Connlabel {
    /// Labels that a conn can have.
    pub const COUNT: u8 = 128;
}

/// A value under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Masked {
    /// What the bits under the mask have to be.
    pub value: u32,
    /// Bits that count.
    pub mask: u32,
}
