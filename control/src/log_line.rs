//! The text of a LOG rule: one line for a packet, as the kernel's `nf_log_syslog` writes it.
//!
//! A line is made from the first bytes of a packet that an lcore passed on with its ports and mark.
//! Nothing here fails: where the packet ends before a header does, the line says `INCOMPLETE` or
//! `TRUNCATED` as the kernel's; where the bytes passed on end first, that header counts as missing
//! too. A line keeps the kernel's trailing blank.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::pipeline::messages::LogLine;
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::rules::facts::PortId;
use dataplane::rules::targets::Log;
use dataplane::wire::headers::protocol;
use dataplane::wire::{icmp, icmpv6, ipv4, ipv6, tcp, udp};

/// What the kernel calls the MAC header of an Ethernet frame.
const MAC_LEN: usize = 14;

/// The whole line but for its end: prefix, ports, MAC header and packet.
pub fn text(line: &LogLine, snapshot: &Snapshot) -> String {
    let port = |port: Option<PortId>| port.map_or("", |p| snapshot.port(p).name.as_str());
    let (input, output) = (port(line.in_port), port(line.out_port));
    let mut text = match (line.said, line.group) {
        (Some(sentence), _) => format!("{sentence} "),
        // As what listens to a group writes it: the prefix has no blank of its own.
        (None, Some((group, _))) if line.prefix.is_empty() => format!("NFLOG {group}: "),
        (None, Some((group, _))) => format!("NFLOG {group}: {} ", line.prefix),
        (None, None) => line.prefix.to_string(),
    };
    let _ = write!(text, "IN={input} OUT={output} ");
    if line.in_port.is_some() {
        text.push_str(&mac_header(&line.head, line.l3, line.flags & Log::MAC_DECODE != 0));
    }
    let packet = line.head.get(line.l3..).unwrap_or_default();
    let len = match packet.first().map(|b| b >> 4) {
        Some(6) => ipv6::View::new(packet).map(|v| v.payload_len() as usize + ipv6::HEADER_LEN),
        _ => ipv4::View::new(packet).map(|v| v.total_len() as usize),
    };
    let len = len.unwrap_or(packet.len());
    let mut writer = Writer { text, packet, len, flags: line.flags, mark: line.mark };
    match packet.first().map(|b| b >> 4) {
        Some(6) => writer.v6(0, true),
        _ => writer.v4(0),
    };
    writer.text
}

/// The level of our own log for a syslog level (0 emergency to 7 debug).
pub fn level(syslog: u8) -> log::Level {
    match syslog {
        0..=3 => log::Level::Error,
        4 => log::Level::Warn,
        5 | 6 => log::Level::Info,
        _ => log::Level::Debug,
    }
}

/// The MAC header with a blank behind it, as bytes or `decoded`. A VLAN tag does not belong to it.
fn mac_header(head: &[u8], l3: usize, decoded: bool) -> String {
    let macs = head.first_chunk::<12>().filter(|_| l3 >= MAC_LEN);
    let kind = l3.checked_sub(2).and_then(|at| head.get(at..)?.first_chunk::<2>());
    let (Some(macs), Some(kind)) = (macs, kind) else { return "MAC= ".to_owned() };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":");
    let (dst, src) = macs.split_at(6);
    if decoded {
        let kind = u16::from_be_bytes(*kind);
        return format!("MACSRC={} MACDST={} MACPROTO={kind:04x} ", hex(src), hex(dst));
    }
    format!("MAC={}:{}:{} ", hex(dst), hex(src), hex(kind))
}

/// Whether a line goes on behind a header.
#[derive(PartialEq, Eq)]
enum Goes {
    On,
    /// The kernel stops here, also before the mark.
    Over,
}

struct Writer<'a> {
    text: String,
    packet: &'a [u8],
    /// Bytes the packet really has, from its IP header on.
    len: usize,
    flags: u8,
    mark: u32,
}

/// Adds to the line; writing to a string does not fail.
macro_rules! put {
    ($writer:expr, $($argument:tt)*) => {
        { let _ = write!($writer.text, $($argument)*); }
    };
}

impl<'a> Writer<'a> {
    fn from(&self, at: usize) -> &'a [u8] {
        self.packet.get(at..self.packet.len().min(self.len)).unwrap_or_default()
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn incomplete(&mut self, at: usize) {
        put!(self, "INCOMPLETE [{} bytes] ", self.len.saturating_sub(at));
    }

    fn mark(&mut self) {
        if self.mark != 0 {
            put!(self, "MARK={:#x} ", self.mark);
        }
    }

    fn options(&mut self, bytes: &[u8]) {
        self.text.push_str("OPT (");
        for byte in bytes {
            put!(self, "{byte:02X}");
        }
        self.text.push_str(") ");
    }

    /// `dump_ipv4_packet`; an ICMP error's quote is written by the same hand, once.
    fn v4(&mut self, at: usize) -> Goes {
        let bytes = self.from(at);
        let Some(view) = bytes.first_chunk::<{ ipv4::HEADER_LEN }>().map(ipv4::View) else {
            self.text.push_str("TRUNCATED");
            return Goes::Over;
        };
        let (src, dst) =
            (Ipv4Addr::from(view.src().v4_bits()), Ipv4Addr::from(view.dst().v4_bits()));
        let (tos, word) = (view.tos(), view.fragment_word());
        put!(self, "SRC={src} DST={dst} LEN={} ", view.total_len());
        put!(self, "TOS=0x{:02X} PREC=0x{:02X} ", tos & 0x1e, tos & 0xe0);
        put!(self, "TTL={} ID={} ", view.ttl(), view.id());
        for (bit, name) in [(0x8000, "CE "), (0x4000, "DF "), (0x2000, "MF ")] {
            if word & bit != 0 {
                self.text.push_str(name);
            }
        }
        let offset = word & 0x1fff;
        if offset != 0 {
            put!(self, "FRAG:{offset} ");
        }
        let l4 = at + view.header_len();
        if self.has(Log::IP_OPTIONS) && view.header_len() > ipv4::HEADER_LEN {
            match bytes.get(ipv4::HEADER_LEN..view.header_len()) {
                Some(options) => self.options(options),
                None => {
                    self.text.push_str("TRUNCATED");
                    return Goes::Over;
                }
            }
        }
        if self.v4_payload(view.proto(), l4, offset != 0, at == 0) == Goes::Over {
            return Goes::Over;
        }
        if at == 0 {
            self.mark();
        }
        Goes::On
    }

    fn v4_payload(&mut self, proto: u8, l4: usize, later: bool, outer: bool) -> Goes {
        match proto {
            protocol::TCP => return self.tcp(l4, later),
            protocol::UDP | protocol::UDPLITE => return self.udp(proto, l4, later),
            protocol::ICMP => {
                self.text.push_str("PROTO=ICMP ");
                if !later {
                    self.icmp(l4, outer);
                }
            }
            protocol::AH => self.security("AH", l4, later, 12, 4),
            protocol::ESP => self.security("ESP", l4, later, 8, 0),
            other => put!(self, "PROTO={other} "),
        }
        Goes::On
    }

    /// A header of `len` bytes with a security parameters index at `spi`.
    fn security(&mut self, name: &str, l4: usize, later: bool, len: usize, spi: usize) {
        put!(self, "PROTO={name} ");
        if later {
            return;
        }
        match self.from(l4).get(..len).and_then(|h| h.get(spi..)?.first_chunk::<4>()) {
            Some(spi) => put!(self, "SPI={:#x} ", u32::from_be_bytes(*spi)),
            None => self.incomplete(l4),
        }
    }

    fn tcp(&mut self, l4: usize, later: bool) -> Goes {
        self.text.push_str("PROTO=TCP ");
        if later {
            return Goes::On;
        }
        let bytes = self.from(l4);
        let Some(view) = tcp::View::new(bytes) else {
            self.incomplete(l4);
            return Goes::Over;
        };
        put!(self, "SPT={} DPT={} ", view.src_port(), view.dst_port());
        if self.has(Log::TCP_SEQUENCE) {
            put!(self, "SEQ={} ACK={} ", view.seq(), view.ack());
        }
        // The lowest of the four reserved bits is AE (RFC 9768) to current kernels.
        let reserved = bytes.get(12).map_or(0, |b| b & 0x0f);
        put!(self, "WINDOW={} RES={:#04x} ", view.window(), (reserved & 0x0e) << 2);
        if reserved & 1 != 0 {
            self.text.push_str("AE ");
        }
        use tcp::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};
        let names = [
            (CWR, "CWR "),
            (ECE, "ECE "),
            (URG, "URG "),
            (ACK, "ACK "),
            (PSH, "PSH "),
            (RST, "RST "),
            (SYN, "SYN "),
            (FIN, "FIN "),
        ];
        for (flag, name) in names {
            if view.flags() & flag != 0 {
                self.text.push_str(name);
            }
        }
        put!(self, "URGP={} ", view.urgent());
        if self.has(Log::TCP_OPTIONS) && view.header_len() > tcp::HEADER_LEN {
            match bytes.get(tcp::HEADER_LEN..view.header_len()) {
                Some(options) => self.options(options),
                None => {
                    self.text.push_str("OPT (TRUNCATED)");
                    return Goes::Over;
                }
            }
        }
        Goes::On
    }

    fn udp(&mut self, proto: u8, l4: usize, later: bool) -> Goes {
        let name = if proto == protocol::UDP { "UDP" } else { "UDPLITE" };
        put!(self, "PROTO={name} ");
        if later {
            return Goes::On;
        }
        match udp::View::new(self.from(l4)) {
            Some(view) => {
                put!(self, "SPT={} DPT={} LEN={} ", view.src_port(), view.dst_port(), view.len());
                Goes::On
            }
            None => {
                self.incomplete(l4);
                Goes::Over
            }
        }
    }

    fn icmp(&mut self, l4: usize, outer: bool) {
        let Some(view) = icmp::View::new(self.from(l4)) else { return self.incomplete(l4) };
        let (kind, rest) = (view.kind(), view.rest());
        put!(self, "TYPE={kind} CODE={} ", view.code());
        let required = match kind {
            3 | 4 | 5 | 11 | 12 => 28,
            13 | 14 => 20,
            17 | 18 => 12,
            _ => 0,
        };
        if self.len.saturating_sub(l4) < required {
            return self.incomplete(l4);
        }
        match kind {
            icmp::kind::ECHO | icmp::kind::ECHO_REPLY => {
                put!(self, "ID={} SEQ={} ", view.id(), view.seq());
            }
            icmp::kind::PARAMETER_PROBLEM => put!(self, "PARAMETER={} ", rest >> 24),
            3 | 4 | 5 | 11 => {
                if kind == icmp::kind::REDIRECT {
                    put!(self, "GATEWAY={} ", Ipv4Addr::from(rest));
                }
                if outer {
                    self.text.push('[');
                    let _ = self.v4(l4 + icmp::HEADER_LEN);
                    self.text.push_str("] ");
                }
                if (kind, view.code()) == (3, icmp::unreachable::FRAGMENTATION_NEEDED) {
                    put!(self, "MTU={} ", rest & 0xffff);
                }
            }
            _ => {}
        }
    }

    /// `dump_ipv6_packet`.
    fn v6(&mut self, at: usize, outer: bool) -> Goes {
        let bytes = self.from(at);
        let Some(view) = bytes.first_chunk::<{ ipv6::HEADER_LEN }>().map(ipv6::View) else {
            self.text.push_str("TRUNCATED");
            return Goes::Over;
        };
        put!(self, "SRC={} DST={} ", Full(view.src().bits()), Full(view.dst().bits()));
        put!(self, "LEN={} ", view.payload_len() as usize + ipv6::HEADER_LEN);
        put!(self, "TC={} HOPLIMIT={} ", view.traffic_class(), view.hop_limit());
        put!(self, "FLOWLBL={} ", view.flow_label());
        let Some((proto, l4, later)) = self.extensions(view.next_header(), at + ipv6::HEADER_LEN)
        else {
            return Goes::Over;
        };
        let goes = match proto {
            protocol::TCP => self.tcp(l4, later),
            protocol::UDP | protocol::UDPLITE => self.udp(proto, l4, later),
            protocol::ICMPV6 => self.icmpv6(l4, later, outer),
            other => {
                put!(self, "PROTO={other} ");
                Goes::On
            }
        };
        if goes == Goes::On && outer {
            self.mark();
        }
        goes
    }

    /// Writes the extension headers; protocol, place and whether it is a later fragment follow.
    fn extensions(&mut self, mut proto: u8, mut at: usize) -> Option<(u8, usize, bool)> {
        let mut later = false;
        while ipv6::is_extension(proto) || proto == protocol::ESP {
            let bytes = self.from(at);
            let Some(&[next, units]) = bytes.first_chunk::<2>() else {
                self.text.push_str("TRUNCATED");
                return None;
            };
            let shown = self.has(Log::IP_OPTIONS);
            if shown {
                self.text.push_str("OPT ( ");
            }
            let units = units as usize;
            let len = match proto {
                protocol::FRAGMENT => {
                    later |= self.fragment(bytes)?;
                    8
                }
                protocol::AH => {
                    if shown {
                        self.text.push_str("AH ");
                    }
                    if shown && later {
                        self.text.push(')');
                        return None;
                    }
                    if shown {
                        self.spi(at, 12, 4)?;
                    }
                    (units + 2) * 4
                }
                protocol::ESP => {
                    if shown {
                        self.text.push_str("ESP ");
                        if later {
                            self.text.push(')');
                            return None;
                        }
                        self.spi(at, 8, 0)?;
                        self.text.push_str(") ");
                    }
                    return None;
                }
                _ if later => {
                    self.text.push_str(if shown { ")" } else { "" });
                    return None;
                }
                _ => (units + 1) * 8,
            };
            if shown {
                self.text.push_str(") ");
            }
            (proto, at) = (next, at + len);
        }
        Some((proto, at, later))
    }

    /// A fragment header; true for a later fragment.
    fn fragment(&mut self, bytes: &[u8]) -> Option<bool> {
        self.text.push_str("FRAG:");
        let Some(&[_, _, a, b, id @ ..]) = bytes.first_chunk::<8>() else {
            self.text.push_str("TRUNCATED ");
            return None;
        };
        let word = u16::from_be_bytes([a, b]);
        put!(self, "{} ", word & 0xfff8);
        if word & 1 != 0 {
            self.text.push_str("INCOMPLETE ");
        }
        put!(self, "ID:{:08x} ", u32::from_be_bytes(id));
        Some(word & 0xfff8 != 0)
    }

    fn spi(&mut self, at: usize, len: usize, spi: usize) -> Option<()> {
        let header = self.from(at).get(..len).and_then(|h| h.get(spi..)?.first_chunk::<4>());
        let Some(spi) = header else {
            self.incomplete(at);
            self.text.push(')');
            return None;
        };
        put!(self, "SPI={:#x} ", u32::from_be_bytes(*spi));
        Some(())
    }

    fn icmpv6(&mut self, l4: usize, later: bool, outer: bool) -> Goes {
        self.text.push_str("PROTO=ICMPv6 ");
        if later {
            return Goes::On;
        }
        let Some(view) = icmp::View::new(self.from(l4)) else {
            self.incomplete(l4);
            return Goes::Over;
        };
        let kind = view.kind();
        put!(self, "TYPE={kind} CODE={} ", view.code());
        match kind {
            icmpv6::kind::ECHO | icmpv6::kind::ECHO_REPLY => {
                put!(self, "ID={} SEQ={} ", view.id(), view.seq());
            }
            1..=4 => {
                if kind == icmpv6::kind::PARAMETER_PROBLEM {
                    put!(self, "POINTER={:08x} ", view.rest());
                }
                if outer {
                    self.text.push('[');
                    let _ = self.v6(l4 + icmp::HEADER_LEN, false);
                    self.text.push_str("] ");
                }
                if kind == icmpv6::kind::PACKET_TOO_BIG {
                    put!(self, "MTU={} ", view.rest());
                }
            }
            _ => {}
        }
        Goes::On
    }
}

/// An address as `%pI6`: eight full groups.
struct Full(u128);

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let groups = Ipv6Addr::from(self.0).segments().map(|group| format!("{group:04x}"));
        f.write_str(&groups.join(":"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::publish::{self, Learnt, Rulesets};
    use dataplane::conntrack::helper::Helper;
    use dataplane::conntrack::knobs::Knobs;
    use dataplane::pipeline::messages::Sentence;
    use dataplane::rules::hook::Family;
    use dataplane::rules::model::Ruleset;
    use dataplane::wire::build::packet::Packet;
    use std::net::{IpAddr, SocketAddr};

    fn snapshot() -> Snapshot {
        let text = "[[port]]\nname = \"lan\"\ndevice = \"net_null0\"\n\
                    [[port]]\nname = \"wan\"\ndevice = \"net_null1\"\n";
        let config = Config::parse("x.toml".as_ref(), text, 1 << 32).unwrap();
        let rules = Rulesets {
            v4: Ruleset::new(Family::V4),
            v6: Ruleset::new(Family::V6),
            sets: Default::default(),
        };
        let macs = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
        let learnt = Learnt::default();
        publish::snapshot(&config, &macs, &learnt, &rules, Knobs::default(), None, 1).unwrap()
    }

    fn line(frame: &[u8]) -> LogLine {
        let room = dataplane::pipeline::messages::LOG_BYTES;
        LogLine {
            prefix: "fw: ".try_into().unwrap(),
            said: None,
            level: 4,
            flags: 0,
            group: None,
            in_port: Some(PortId(0)),
            out_port: Some(PortId(1)),
            head: frame.iter().copied().take(room).collect(),
            l3: 14,
            mark: 0,
        }
    }

    fn shown(frame: &[u8], change: impl FnOnce(&mut LogLine)) -> String {
        let mut line = line(frame);
        change(&mut line);
        text(&line, &snapshot())
    }

    /// What stands behind the MAC header.
    fn packet(frame: &[u8]) -> String {
        shown(frame, |_| ()).split_once("08:00 ").unwrap().1.to_owned()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn syn<'a>() -> Packet<'a> {
        Packet::tcp(at("10.1.0.11:4000"), at("203.0.113.51:80")).flags(tcp::flags::SYN).id(1)
    }

    const V4: &str = "SRC=10.1.0.11 DST=203.0.113.51 ";

    #[test]
    fn a_sentence_stands_in_place_of_a_prefix() {
        let said = Sentence::NotExpected(Helper::Tftp);
        let line = shown(&syn().to_vec(), |line| line.said = Some(said));
        let begin = "nf_ct_tftp: dropping packet: cannot add expectation IN=lan OUT=wan MAC=";
        assert!(line.starts_with(begin), "{line}");
    }

    #[test]
    fn a_line_for_a_group_names_it() {
        let with = |prefix: &str| {
            shown(&syn().to_vec(), |line| {
                line.prefix = prefix.try_into().unwrap();
                line.group = Some((7, None));
            })
        };
        let (named, bare) = (with("dropped"), with(""));
        assert!(named.starts_with("NFLOG 7: dropped IN=lan OUT=wan MAC="), "{named}");
        assert!(bare.starts_with("NFLOG 7: IN=lan OUT=wan MAC="), "{bare}");
    }

    #[test]
    fn a_forwarded_segment() {
        let head = "fw: IN=lan OUT=wan MAC=02:00:00:00:00:02:02:00:00:00:00:01:08:00 ";
        let rest = "LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=4000 DPT=80 \
                    WINDOW=65535 RES=0x00 SYN URGP=0 ";
        assert_eq!(shown(&syn().to_vec(), |_| ()), format!("{head}{V4}{rest}"));
        let marked = shown(&syn().to_vec(), |line| line.mark = 0x2a);
        assert_eq!(marked, format!("{head}{V4}{rest}MARK=0x2a "));
    }

    #[test]
    fn a_packet_of_our_own_has_no_mac_header_and_one_for_us_no_way_out() {
        let frame = syn().to_vec();
        let ours = shown(&frame[14..], |line| (line.in_port, line.l3) = (None, 0));
        assert!(ours.starts_with("fw: IN= OUT=wan SRC=10.1.0.11 "), "{ours}");
        let for_us = shown(&frame, |line| line.out_port = None);
        assert!(for_us.starts_with("fw: IN=lan OUT= MAC=02:"), "{for_us}");
        let tagged = shown(&syn().tag(0x2000).to_vec(), |line| line.l3 = 18);
        assert_eq!(tagged, shown(&frame, |_| ()));
    }

    #[test]
    fn flags_print_more() {
        let segment = syn().seq(7).ack(9).tos(0xb9).options(&[2, 4, 5, 0xb4]).to_vec();
        let flags = Log::TCP_SEQUENCE | Log::TCP_OPTIONS | Log::MAC_DECODE | Log::UID;
        assert_eq!(
            shown(&segment, |line| line.flags = flags),
            format!(
                "fw: IN=lan OUT=wan MACSRC=02:00:00:00:00:01 MACDST=02:00:00:00:00:02 \
                 MACPROTO=0800 {V4}LEN=44 TOS=0x18 PREC=0xA0 TTL=64 ID=1 DF PROTO=TCP SPT=4000 \
                 DPT=80 SEQ=7 ACK=9 WINDOW=65535 RES=0x00 SYN URGP=0 OPT (020405B4) "
            )
        );
        let options = syn().ip_options(&[148, 4, 0, 0]).to_vec();
        let shown = shown(&options, |line| line.flags = Log::IP_OPTIONS);
        assert!(shown.contains(" ID=1 DF OPT (94040000) PROTO=TCP SPT=4000 "), "{shown}");
    }

    #[test]
    fn every_flag_of_tcp() {
        let mut frame = syn().flags(0xff).urgent(3).to_vec();
        frame[14 + 20 + 12] |= 0x0f;
        let text = packet(&frame);
        assert!(text.ends_with("RES=0x38 AE CWR ECE URG ACK PSH RST SYN FIN URGP=3 "), "{text}");
    }

    #[test]
    fn datagrams_fragments_and_what_has_no_ports() {
        let udp = Packet::udp(at("10.1.0.11:4000"), at("203.0.113.51:53")).payload(b"query");
        let ip_part = format!("{V4}LEN=33 TOS=0x00 PREC=0x00 TTL=64 ID=0 DF ");
        assert_eq!(packet(&udp.to_vec()), format!("{ip_part}PROTO=UDP SPT=4000 DPT=53 LEN=13 "));
        let later = packet(&udp.fragment(1480, true).to_vec());
        assert!(later.ends_with("ID=0 MF FRAG:185 PROTO=UDP "), "{later}");
        let raw = |proto, payload: &'static [u8]| {
            packet(
                &Packet::raw(ip("10.1.0.11"), ip("203.0.113.51"), proto).payload(payload).to_vec(),
            )
        };
        assert!(raw(47, &[0; 8]).ends_with("ID=0 PROTO=47 "));
        assert!(raw(50, &[0, 0, 0x12, 0x34, 0, 0, 0, 1]).ends_with("PROTO=ESP SPI=0x1234 "));
        assert!(raw(51, &[6, 4, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1]).ends_with("PROTO=AH SPI=0x9 "));
        assert!(raw(6, &[0; 12]).ends_with("PROTO=TCP INCOMPLETE [12 bytes] "));
        assert!(raw(1, &[3, 1, 0, 0, 0, 0, 0, 0]).ends_with("TYPE=3 CODE=1 INCOMPLETE [8 bytes] "));
    }

    #[test]
    fn messages_and_the_packets_they_quote() {
        let icmp =
            |kind, code, rest| Packet::icmp(ip("10.1.0.11"), ip("203.0.113.51"), kind, code, rest);
        let text = packet(&icmp(8, 0, 0x1234_0002).to_vec());
        assert!(text.ends_with("ID=0 PROTO=ICMP TYPE=8 CODE=0 ID=4660 SEQ=2 "), "{text}");
        let quote = syn().to_vec();
        let text = packet(&icmp(3, 4, 1400).payload(&quote[14..]).to_vec());
        let inner = format!(
            "[{V4}LEN=40 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=TCP SPT=4000 DPT=80 \
             WINDOW=65535 RES=0x00 SYN URGP=0 ] MTU=1400 "
        );
        assert!(text.ends_with(&format!("PROTO=ICMP TYPE=3 CODE=4 {inner}")), "{text}");
        let text = packet(&icmp(11, 0, 0).payload(&quote[14..42]).to_vec());
        assert!(text.ends_with("ID=1 DF PROTO=TCP INCOMPLETE [8 bytes] ] "), "{text}");
        let text = packet(&icmp(5, 1, 0x0a01_0001).payload(&quote[14..]).to_vec());
        assert!(text.contains("TYPE=5 CODE=1 GATEWAY=10.1.0.1 [SRC="), "{text}");
    }

    #[test]
    fn ipv6() {
        let tcp = Packet::tcp(at("[fd00:1::11]:4000"), at("[2001:db8:20::51]:80"))
            .flags(tcp::flags::SYN | tcp::flags::ACK);
        let text = shown(&tcp.to_vec(), |_| ());
        let addresses = "SRC=fd00:0001:0000:0000:0000:0000:0000:0011 \
                         DST=2001:0db8:0020:0000:0000:0000:0000:0051 ";
        assert_eq!(
            text,
            format!(
                "fw: IN=lan OUT=wan MAC=02:00:00:00:00:02:02:00:00:00:00:01:86:dd {addresses}\
                 LEN=60 TC=0 HOPLIMIT=64 FLOWLBL=0 PROTO=TCP SPT=4000 DPT=80 WINDOW=65535 \
                 RES=0x00 ACK SYN URGP=0 "
            )
        );
        let quote = tcp.to_vec();
        let icmp = Packet::icmp(ip("fd00:1::11"), ip("2001:db8:20::51"), 2, 0, 1280);
        let text = shown(&icmp.payload(&quote[14..]).to_vec(), |_| ());
        let ends = "PROTO=TCP SPT=4000 DPT=80 WINDOW=65535 RES=0x00 ACK SYN URGP=0 ] MTU=1280 ";
        assert!(text.contains("PROTO=ICMPv6 TYPE=2 CODE=0 [SRC=fd00:0001:"), "{text}");
        assert!(text.ends_with(ends), "{text}");
    }

    #[test]
    fn extension_headers() {
        let udp = || Packet::udp(at("[fd00:1::11]:4000"), at("[2001:db8:20::51]:53"));
        let text = shown(&udp().id(0xabcd).fragment(1232, true).to_vec(), |_| ());
        assert!(text.ends_with("FRAG:1232 INCOMPLETE ID:0000abcd PROTO=UDP "), "{text}");
        let hop = udp().extension(protocol::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]).to_vec();
        assert!(shown(&hop, |_| ()).ends_with("FLOWLBL=0 PROTO=UDP SPT=4000 DPT=53 LEN=8 "));
        let text = shown(&hop, |line| line.flags = Log::IP_OPTIONS);
        assert!(text.ends_with("FLOWLBL=0 OPT ( ) PROTO=UDP SPT=4000 DPT=53 LEN=8 "), "{text}");
    }

    #[test]
    fn levels() {
        use log::Level::{Debug, Error, Info, Warn};
        assert_eq!([3, 4, 6, 7].map(level), [Error, Warn, Info, Debug]);
    }
}
