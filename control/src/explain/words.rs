//! Packets and conns in few words, for `explain` and `replay --explain`.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use dataplane::conntrack::dccp::DccpState;
use dataplane::conntrack::record::Conn;
use dataplane::conntrack::sctp::SctpState;
use dataplane::conntrack::state::{CtState, Direction};
use dataplane::conntrack::tcp::TcpTrack;
use dataplane::conntrack::tuple::proto;
use dataplane::conntrack::view::ConnView;
use dataplane::time::Now;
use dataplane::wire::headers::{self, Headers, protocol};
use dataplane::wire::tcp;

use crate::tools::conntrack_format::{Output, Shape, conn_line};

/// A packet in few words.
pub fn packet(h: &Headers) -> String {
    let (src, dst) = (h.src.ip(), h.dst.ip());
    let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
    if h.fragment.is_later() {
        return format!("protocol {} {src} > {dst}, later fragment", h.proto);
    }
    let mut text = match h.proto {
        proto::TCP => {
            format!("tcp {} > {}{}", at(src, h.src_port), at(dst, h.dst_port), flags(h.tcp_flags))
        }
        proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => {
            let name = match h.proto {
                proto::UDP => "udp",
                proto::UDPLITE => "udplite",
                proto::SCTP => "sctp",
                _ => "dccp",
            };
            format!("{name} {} > {}", at(src, h.src_port), at(dst, h.dst_port))
        }
        proto::GRE if h.dst_port != 0 => format!("gre {src} > {dst} call {}", h.dst_port),
        proto::GRE => format!("gre {src} > {dst}"),
        protocol::ESP => format!("esp {src} > {dst}"),
        protocol::AH => format!("ah {src} > {dst}"),
        proto::ICMP | proto::ICMPV6 => {
            let name = if h.proto == proto::ICMP { "icmp" } else { "icmpv6" };
            let (kind, code, id) = (h.icmp_type, h.icmp_code, h.icmp_id);
            let id =
                if headers::is_query(h.proto, kind) { format!(" id {id}") } else { String::new() };
            format!("{name} {src} > {dst} type {kind} code {code}{id}")
        }
        other => format!("protocol {other} {src} > {dst}"),
    };
    if h.fragment.is_fragment() {
        text.push_str(", first fragment");
    }
    text
}

/// TCP flags with their names, in the order in which they are shown.
pub const FLAGS: [(u8, &str); 8] = [
    (tcp::flags::SYN, "SYN"),
    (tcp::flags::FIN, "FIN"),
    (tcp::flags::RST, "RST"),
    (tcp::flags::PSH, "PSH"),
    (tcp::flags::ACK, "ACK"),
    (tcp::flags::URG, "URG"),
    (tcp::flags::ECE, "ECE"),
    (tcp::flags::CWR, "CWR"),
];

fn flags(bits: u8) -> String {
    let mut text = String::new();
    for (_, name) in FLAGS.iter().filter(|(bit, _)| bits & bit != 0) {
        let _ = write!(text, " {name}");
    }
    text
}

/// A state as rules name it.
pub const fn state(state: CtState) -> &'static str {
    match state {
        CtState::New => "NEW",
        CtState::Established => "ESTABLISHED",
        CtState::Related => "RELATED",
        CtState::Untracked => "UNTRACKED",
        CtState::Invalid => "INVALID",
    }
}

/// A conn as `conntrack -L` shows it, with single blanks.
pub fn conn(conn: Conn<'_>, now: Now) -> String {
    let line = conn_line(&view(conn, now), &Output::default(), Shape::Listing, now.unix_ns);
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a listing needs of a conn.
pub fn view(conn: Conn<'_>, now: Now) -> ConnView {
    let (original, words) = (conn.orig(), conn.tracker_words());
    ConnView {
        original,
        reply: conn.reply(),
        zone_original: conn.zone(Direction::Original),
        zone_reply: conn.zone(Direction::Reply),
        status: conn.status(),
        remaining_secs: conn.deadline().remaining_secs(now.tick),
        state: match original.proto {
            proto::TCP => Some(TcpTrack::state_of_word(words[TcpTrack::STATE_WORD]).name()),
            proto::SCTP => Some(SctpState::of_word(words[0]).name()),
            proto::DCCP => Some(DccpState::of_word(words[0]).name()),
            _ => None,
        },
        mark: conn.mark(),
        ..ConnView::default()
    }
}
