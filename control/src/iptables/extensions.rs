//! The matches and targets that the text layer knows, each in a file of its own.

mod comment;
mod conn;
mod connbytes;
mod connlimit;
mod connmark_target;
mod conntrack;
mod ct;
mod dccp;
mod ecn_target;
mod hashlimit;
mod head;
mod headers6;
mod icmp;
mod limit;
mod log;
mod mark;
mod multiport;
mod nat;
mod netmap;
mod nflog;
mod npt;
mod place;
mod quota;
mod rate;
mod recent;
mod reject;
mod sctp;
mod search;
mod set;
mod statistic;
mod synproxy;
mod tcp;
mod tcpmss;
mod tcpoptstrip;
mod time;
mod tos_target;
mod ttl_target;
mod u32;

use dataplane::rules::hook::Family;
use dataplane::rules::matches::Match;
use dataplane::rules::targets::Target;
use dataplane::wire::headers::protocol;

pub(crate) use dccp::{dccp_name, dccp_type};
pub(crate) use sctp::{chunk_name, chunk_type};

use super::extension::{Extension, Text};

/// Ties each variant to its row, so that a new one is a line here and a file.
macro_rules! register {
    ($values:ident, $rows:ident, $of:ident, $text:ident,
     $($variant:ident => $row:path),* $(,)?) => {
        /// All rows.
        const $rows: &[&Extension<$values>] = &[$(&$row),*];

        /// The value's row and text; `None` for one without options.
        pub(super) fn $of(value: &$values) -> Option<(&'static Extension<$values>, &dyn Text)> {
            #[allow(unreachable_patterns, reason = "every match has options")]
            match value {
                $($values::$variant(value) => Some((&$row, value)),)*
                _ => None,
            }
        }

        /// The value's text, to take options.
        pub(super) fn $text(value: &mut $values) -> Option<&mut dyn Text> {
            #[allow(unreachable_patterns, reason = "every match has options")]
            match value {
                $($values::$variant(value) => Some(value),)*
                _ => None,
            }
        }
    };
}

register! { Match, MATCHES, of_match, match_text,
    Tcp => tcp::TCP,
    Udp => tcp::UDP,
    Icmp => icmp::ICMP,
    Icmpv6 => icmp::ICMPV6,
    Conntrack => conntrack::CONNTRACK,
    State => conntrack::STATE,
    Connlabel => conntrack::CONNLABEL,
    Multiport => multiport::MULTIPORT,
    Comment => comment::COMMENT,
    Mark => mark::MARK,
    Set => set::SET,
    Connmark => conn::CONNMARK,
    Helper => conn::HELPER,
    IpRange => place::IPRANGE,
    AddrType => place::ADDRTYPE,
    RpFilter => place::RPFILTER,
    Mac => place::MAC,
    PktType => place::PKTTYPE,
    Length => head::LENGTH,
    Ttl => head::TTL,
    Hl => head::HL,
    Tos => head::TOS,
    Dscp => head::DSCP,
    Ecn => head::ECN,
    Mss => head::TCPMSS,
    Esp => head::ESP,
    Ah4 => head::AH4,
    Ah6 => headers6::AH6,
    Sctp => sctp::SCTP,
    Dccp => dccp::DCCP,
    Time => time::TIME,
    Statistic => statistic::STATISTIC,
    Search => search::STRING,
    U32 => u32::U32_MATCH,
    Frag => headers6::FRAG,
    Hbh => headers6::HBH,
    Dst => headers6::DST,
    Rt => headers6::RT,
    HeaderKinds => headers6::IPV6HEADER,
    Limit => limit::LIMIT,
    Quota => quota::QUOTA,
    Connbytes => connbytes::CONNBYTES,
    Hashlimit => hashlimit::HASHLIMIT,
    Recent => recent::RECENT,
    Connlimit => connlimit::CONNLIMIT,
}

register! { Target, TARGETS, of_target, target_text,
    Reject => reject::REJECT,
    Log => log::LOG,
    Ct => ct::CT,
    Mark => mark::SET_MARK,
    Snat => nat::SNAT,
    Dnat => nat::DNAT,
    Masquerade => nat::MASQUERADE,
    Redirect => nat::REDIRECT,
    Set => set::CHANGE_SET,
    Netmap => netmap::NETMAP,
    Connmark => connmark_target::SET_CONNMARK,
    Nflog => nflog::NFLOG,
    Tos => tos_target::SET_TOS,
    Dscp => tos_target::SET_DSCP,
    Ttl => ttl_target::SET_TTL,
    Hl => ttl_target::SET_HL,
    Ecn => ecn_target::SET_ECN,
    Tcpmss => tcpmss::TCPMSS,
    Tcpoptstrip => tcpoptstrip::TCPOPTSTRIP,
    Synproxy => synproxy::SYNPROXY,
    Snpt => npt::SNPT,
    Dnpt => npt::DNPT,
}

/// The match of a word after `-m`.
pub(super) fn match_named(word: &str, family: Family) -> Option<&'static Extension<Match>> {
    MATCHES.iter().copied().find(|row| row.is(word, family))
}

/// The match that `-p` brings along.
pub(super) fn match_implied(proto: u8, family: Family) -> Option<&'static Extension<Match>> {
    let fits = |row: &&&Extension<Match>| {
        let family = row.family.is_none_or(|only| only == family);
        row.implied && family && row.protos.contains(&proto)
    };
    // IPv6's `ah` is one of its headers: `-p ah` brings it, but it does without.
    let header = (proto, family) == (protocol::AH, Family::V6);
    MATCHES.iter().find(fits).copied().or(header.then_some(&headers6::AH6))
}

/// The target of a word after `-j`, if it has options.
pub(super) fn target_named(word: &str, family: Family) -> Option<&'static Extension<Target>> {
    TARGETS.iter().copied().find(|row| row.is(word, family))
}

/// True if a target has that name in either family.
pub(super) fn is_target(word: &str) -> bool {
    TARGETS.iter().any(|row| row.name == word)
}
