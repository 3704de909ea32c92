//! What is asked: the options of `explain`, and the packet that they describe as a frame.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use clap::Parser;
use serde::{Deserialize, Serialize};

use dataplane::conntrack::dccp::{DccpState, DccpTrack, Role};
use dataplane::conntrack::record::Conn;
use dataplane::conntrack::sctp::{SctpState, SctpTrack};
use dataplane::conntrack::state::Direction;
use dataplane::conntrack::tcp::{TcpState, TcpTrack};
use dataplane::conntrack::tuple::proto;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::dccp::kind;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::headers::protocol::{AH, ESP};
use dataplane::wire::sctp::chunk;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::packet;
use super::words::FLAGS;
use crate::iptables;

/// Where the sender's own port is not given.
const SPORT: u16 = 49152;

/// The identifier of a ping where none is given.
const ICMP_ID: u16 = 1;

/// The SPI of ESP and AH where none is given.
const SPI: u32 = 256;

/// Who sends the frame where nothing is said.
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The options. A packet that comes in by a port, or one of the gateway's own.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "sluicegate explain", no_binary_name = true)]
#[command(about = "What would become of a packet, and why; nothing is sent or changed")]
#[command(group = clap::ArgGroup::new("way").required(true))]
pub struct Question {
    /// Port that the packet comes in by
    #[arg(long = "in", value_name = "PORT", group = "way")]
    pub input: Option<String>,
    /// A packet of the gateway's own; the routes decide where it leaves, and a link-local address
    /// is one of this port's link
    #[arg(long = "out", value_name = "PORT", group = "way")]
    pub output: Option<String>,
    /// Source address
    #[arg(short, long, value_name = "ADDRESS")]
    pub src: IpAddr,
    /// Destination address
    #[arg(short, long, value_name = "ADDRESS")]
    pub dst: IpAddr,
    /// tcp, udp, udplite, icmp, icmpv6, sctp, dccp, gre, esp, ah or a number
    #[arg(short, long, value_name = "PROTOCOL", value_parser = protocol)]
    pub proto: u8,
    /// Source port of TCP, UDP, UDP-Lite, SCTP and DCCP; 49152 if not given
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Their destination port
    #[arg(long, value_name = "PORT")]
    pub dport: Option<u16>,
    /// ICMP type; that of a ping if not given
    #[arg(long, value_name = "NUMBER")]
    pub icmp_type: Option<u8>,
    /// ICMP code
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub icmp_code: u8,
    /// Identifier of a ping; 1 if not given
    #[arg(long, value_name = "NUMBER")]
    pub icmp_id: Option<u16>,
    /// TCP flags, as SYN,ACK; without, what the packet's conn would see next
    #[arg(long, value_name = "FLAGS", value_parser = tcp_flags)]
    pub flags: Option<u8>,
    /// Type of the chunk of SCTP, as INIT_ACK; without, what the packet's conn would see next
    #[arg(long, value_name = "TYPE", value_parser = chunk_type)]
    pub chunk_type: Option<u8>,
    /// Verification tag of SCTP; without, the one that the conn's tracker waits for
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    pub vtag: Option<u32>,
    /// Type of DCCP, as RESPONSE; without, what the packet's conn would see next
    #[arg(long, value_name = "TYPE", value_parser = dccp_type)]
    pub dccp_type: Option<u8>,
    /// Call of GRE of version 1, which is PPTP's; without, the version is 0
    #[arg(long, value_name = "NUMBER")]
    pub gre_key: Option<u16>,
    /// Security parameters index of ESP and AH; 256 if not given
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    pub spi: Option<u32>,
    /// The datagram comes in fragments with so many bytes each, a multiple of 8
    #[arg(long, value_name = "BYTES")]
    pub fragment_size: Option<u16>,
    /// The packet's mark before any rule
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = number)]
    pub mark: u32,
    /// Time to live
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub ttl: u8,
    /// Type of service, or traffic class
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = byte)]
    pub tos: u8,
    /// Hardware address of who sends the frame
    #[arg(long, value_name = "ADDRESS", value_parser = mac)]
    pub mac: Option<[u8; 6]>,
    /// Bytes behind the transport header
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub payload: u16,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a packet of a live conn looks like that its tracker accepts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Fit {
    /// Of TCP.
    Tcp(Segment),
    /// Of SCTP: the type of its chunk, where the question names none, and its verification tag.
    Sctp {
        /// The type.
        chunk: u8,
        /// The tag.
        tag: u32,
    },
    /// Of DCCP: its type, where the question names none, and what it acknowledges.
    Dccp {
        /// The type.
        kind: u8,
        /// The number that it acknowledges.
        response: u64,
    },
}

/// A segment.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// Its flags, where the question names none.
    pub flags: u8,
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
}

impl Fit {
    /// The next packet of a conn in a direction; `None` where its tracker accepts any.
    pub fn of(conn: Conn<'_>, direction: Direction) -> Option<Fit> {
        let words = conn.tracker_words();
        Some(match conn.proto() {
            proto::TCP => Fit::Tcp(Segment::of(&TcpTrack::from_words(words), direction)),
            proto::SCTP => Fit::next_chunk(&SctpTrack::from_words(words), direction),
            proto::DCCP => Fit::next_kind(&DccpTrack::from_words(words), direction),
            _ => return None,
        })
    }

    /// The same of a conn whose client knows the server's numbers as so many more (SYNPROXY).
    pub fn told(self, direction: Direction, shift: Option<u32>) -> Fit {
        match (self, direction, shift) {
            (Fit::Tcp(segment), Direction::Original, Some(shift)) => {
                let ack = segment.ack.wrapping_add(shift);
                Fit::Tcp(Segment { ack, ..segment })
            }
            _ => self,
        }
    }

    fn next_chunk(track: &SctpTrack, direction: Direction) -> Fit {
        use SctpState::{Closed, CookieEchoed, CookieWait, HeartbeatSent};
        let tag = track.tags().get(direction.index()).copied().unwrap_or_default();
        let original = direction == Direction::Original;
        let chunk = match track.state() {
            Closed if original => return Fit::Sctp { chunk: chunk::INIT, tag: 0 },
            Closed => chunk::INIT_ACK,
            CookieWait if original => chunk::COOKIE_ECHO,
            CookieWait => chunk::INIT_ACK,
            CookieEchoed if original => chunk::COOKIE_ECHO,
            CookieEchoed => chunk::COOKIE_ACK,
            HeartbeatSent if original => chunk::HEARTBEAT,
            HeartbeatSent => chunk::HEARTBEAT_ACK,
            _ => chunk::DATA,
        };
        Fit::Sctp { chunk, tag }
    }

    fn next_kind(track: &DccpTrack, direction: Direction) -> Fit {
        use DccpState::{CloseReq, None, Request, Respond, TimeWait};
        let kind = match (track.role_in(direction), track.state()) {
            (Role::Client, None | Request | TimeWait) => kind::REQUEST,
            (Role::Server, None | Request | Respond) => kind::RESPONSE,
            (Role::Server, CloseReq) => kind::CLOSE_REQ,
            (Role::Server, TimeWait) => kind::RESET,
            _ => kind::ACK,
        };
        Fit::Dccp { kind, response: track.response() }
    }
}

/// What the tracker waits for.
impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Fit::Tcp(Segment { seq, ack, .. }) => write!(f, "seq {seq}, ack {ack}"),
            Fit::Sctp { chunk, tag } => {
                let name = iptables::chunk_name(chunk).unwrap_or("unknown");
                write!(f, "chunk {name}, tag {tag:#x}")
            }
            Fit::Dccp { kind, response } => {
                let name = iptables::dccp_name(kind).unwrap_or("unknown");
                write!(f, "type {name}, ack {response}")
            }
        }
    }
}

impl Segment {
    /// The next segment of a conn in a direction.
    fn of(track: &TcpTrack, direction: Direction) -> Segment {
        let ends = (track.sent_end(direction), track.sent_end(direction.opposite()));
        match (track.state(), direction) {
            // The SYN once more.
            (TcpState::SynSent, Direction::Original) => {
                Segment { flags: SYN, seq: ends.0.wrapping_sub(1), ack: 0 }
            }
            (TcpState::SynSent, Direction::Reply) => {
                Segment { flags: SYN | ACK, seq: 0, ack: ends.1 }
            }
            _ => Segment { flags: ACK, seq: ends.0, ack: ends.1 },
        }
    }

    const FIRST: Segment = Segment { flags: SYN, seq: 0, ack: 0 };
}

impl Question {
    /// What clap does not check.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let v4 = self.src.is_ipv4();
        if v4 != self.dst.is_ipv4() {
            return Err("--src and --dst are not of one family".to_owned());
        }
        let of = |numbers: &[u8]| numbers.contains(&self.proto);
        let fault = |bad: bool, text: &str| if bad { Err(text.to_owned()) } else { Ok(()) };
        let ports = of(&[proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP, proto::DCCP]);
        fault(ports && self.dport.is_none(), "--dport is missing")?;
        let given = (self.sport, self.dport) != (None, None);
        fault(!ports && given, "this protocol has no ports")?;
        let icmp = of(&[proto::ICMP, proto::ICMPV6]);
        let of_icmp = (self.icmp_type, self.icmp_id) != (None, None) || self.icmp_code != 0;
        fault(!icmp && of_icmp, "only ICMP has --icmp-type, --icmp-code and --icmp-id")?;
        let sctp = (self.chunk_type.is_some() || self.vtag.is_some()) && !of(&[proto::SCTP]);
        fault(self.flags.is_some() && !of(&[proto::TCP]), "only TCP has --flags")?;
        fault(sctp, "only SCTP has --chunk-type and --vtag")?;
        fault(self.dccp_type.is_some() && !of(&[proto::DCCP]), "only DCCP has --dccp-type")?;
        fault(self.gre_key.is_some() && !of(&[proto::GRE]), "only GRE has --gre-key")?;
        fault(self.spi.is_some() && !of(&[ESP, AH]), "only ESP and AH have --spi")?;
        let other = if v4 { proto::ICMPV6 } else { proto::ICMP };
        fault(self.proto == other, "the protocol is the other family's")?;
        match self.fragment_size {
            Some(size) if size == 0 || size % 8 != 0 => {
                Err("--fragment-size is not a multiple of 8".to_owned())
            }
            Some(_) if self.input.is_none() => {
                Err("--fragment-size goes with --in: what leaves here is cut to fit".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// What a packet of a live conn will look like, in which the question has the last word.
    pub fn overrides(&self, fit: Fit) -> Fit {
        match fit {
            Fit::Tcp(_) => fit,
            Fit::Sctp { chunk, tag } => {
                let chunk = self.chunk_type.unwrap_or(chunk);
                let tag = if chunk == chunk::INIT { 0 } else { tag };
                Fit::Sctp { chunk, tag: self.vtag.unwrap_or(tag) }
            }
            Fit::Dccp { kind, response } => {
                Fit::Dccp { kind: self.dccp_type.unwrap_or(kind), response }
            }
        }
    }

    /// The packet, as a frame to `dst`; what the question leaves open is as `fit` says, or as of a
    /// first packet.
    pub fn frame(&self, dst: [u8; 6], fit: Option<Fit>) -> Option<Vec<u8>> {
        let (src_ip, dst_ip) = (self.src, self.dst);
        let ports = (self.sport.unwrap_or(SPORT), self.dport.unwrap_or_default());
        let (from, to) = (SocketAddr::new(src_ip, ports.0), SocketAddr::new(dst_ip, ports.1));
        let payload = vec![0; usize::from(self.payload)];
        let body = self.body(ports, fit, &payload);
        let packet = match self.proto {
            proto::TCP => {
                let fit = match fit {
                    Some(Fit::Tcp(segment)) => segment,
                    _ => Segment::FIRST,
                };
                let flags = self.flags.unwrap_or(fit.flags);
                let seq = if flags & ACK != 0 { fit.ack } else { 0 };
                Packet::tcp(from, to).flags(flags).seq(fit.seq).ack(seq).payload(&payload)
            }
            proto::UDP => Packet::udp(from, to).payload(&payload),
            proto::ICMP | proto::ICMPV6 => {
                let rest = u32::from(self.icmp_id.unwrap_or(ICMP_ID)) << 16 | 1;
                let ping = if src_ip.is_ipv4() { 8 } else { 128 };
                let kind = self.icmp_type.unwrap_or(ping);
                Packet::icmp(src_ip, dst_ip, kind, self.icmp_code, rest).payload(&payload)
            }
            other => Packet::raw(src_ip, dst_ip, other).payload(&body),
        };
        let frame = self.dressed(packet, dst).to_vec();
        (!frame.is_empty()).then_some(frame)
    }

    /// What stands behind the IP header of the rarer protocols.
    fn body(&self, ports: (u16, u16), fit: Option<Fit>, payload: &[u8]) -> Vec<u8> {
        let ends = (self.src, self.dst);
        match self.proto {
            proto::SCTP => {
                let first = Fit::Sctp { chunk: chunk::INIT, tag: 0 };
                let Fit::Sctp { chunk, tag } = self.overrides(fit.unwrap_or(first)) else {
                    return Vec::new();
                };
                packet::sctp(ports, tag, chunk, payload)
            }
            proto::DCCP => {
                let first = Fit::Dccp { kind: kind::REQUEST, response: 0 };
                let Fit::Dccp { kind, response } = self.overrides(fit.unwrap_or(first)) else {
                    return Vec::new();
                };
                packet::dccp(ends, ports, (kind, response), payload)
            }
            proto::UDPLITE => packet::udplite(ends, ports, payload),
            proto::GRE => packet::gre(self.gre_key, payload),
            ESP => packet::esp(self.spi.unwrap_or(SPI), payload),
            AH => packet::ah(self.spi.unwrap_or(SPI), payload),
            _ => payload.to_vec(),
        }
    }

    fn dressed<'a>(&self, packet: Packet<'a>, dst: [u8; 6]) -> Packet<'a> {
        packet.macs(Mac(self.mac.unwrap_or(SENDER)), Mac(dst)).ttl(self.ttl).tos(self.tos)
    }

    /// The same in the frames that it comes in.
    pub fn frames(&self, dst: [u8; 6], fit: Option<Fit>) -> Option<Vec<Vec<u8>>> {
        let whole = self.frame(dst, fit)?;
        let Some(size) = self.fragment_size.map(usize::from) else { return Some(vec![whole]) };
        let headers = if self.src.is_ipv4() { 34 } else { 54 };
        let datagram = whole.get(headers..).filter(|rest| rest.len() > size)?;
        let frames = datagram.chunks(size).enumerate().map(|(n, piece)| {
            let (at, more) = (n * size, (n + 1) * size < datagram.len());
            let packet = Packet::raw(self.src, self.dst, self.proto).payload(piece);
            self.dressed(packet.id(1).fragment(at as u16, more), dst).to_vec()
        });
        Some(frames.collect())
    }
}

fn protocol(word: &str) -> Result<u8, String> {
    Ok(match word.to_ascii_lowercase().as_str() {
        "tcp" => proto::TCP,
        "udp" => proto::UDP,
        "icmp" => proto::ICMP,
        "icmpv6" | "icmp6" | "ipv6-icmp" => proto::ICMPV6,
        "gre" => proto::GRE,
        "sctp" => proto::SCTP,
        "dccp" => proto::DCCP,
        "udplite" => proto::UDPLITE,
        "esp" => ESP,
        "ah" => AH,
        number => number.parse().map_err(|_| "no protocol that is known here".to_owned())?,
    })
}

fn tcp_flags(words: &str) -> Result<u8, String> {
    let named = |word: &str| {
        let found = FLAGS.iter().find(|(_, name)| name.eq_ignore_ascii_case(word));
        found.map(|(bit, _)| *bit).ok_or_else(|| format!("{word} is no TCP flag"))
    };
    match words {
        "NONE" => Ok(0),
        words => words.split(',').try_fold(0, |bits, word| Ok(bits | named(word)?)),
    }
}

fn chunk_type(word: &str) -> Result<u8, String> {
    iptables::chunk_type(word).ok_or_else(|| format!("{word} is no type of SCTP's chunks"))
}

fn dccp_type(word: &str) -> Result<u8, String> {
    iptables::dccp_type(word).ok_or_else(|| format!("{word} is no type of DCCP"))
}

fn mac(word: &str) -> Result<[u8; 6], String> {
    let bytes: Result<Vec<u8>, _> = word.split(':').map(|b| u8::from_str_radix(b, 16)).collect();
    let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| "not like 02:00:00:00:10:01".to_owned())
}

fn byte(word: &str) -> Result<u8, String> {
    u8::try_from(number(word)?).map_err(|_| "above 255".to_owned())
}

/// A number, also in hexadecimal.
fn number(word: &str) -> Result<u32, String> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::wire::headers;

    fn ask(line: &str) -> Result<Question, String> {
        let question = Question::try_parse_from(line.split_whitespace());
        let question = question.map_err(|e| e.to_string())?;
        question.check().map(|()| question)
    }

    #[test]
    fn the_packet_is_the_one_that_was_described() {
        let line = "--in lan --src 10.0.0.1 --dst 10.0.0.2 -p tcp --dport 80 --flags SYN,ACK";
        let frame = ask(line).unwrap().frame([2; 6], None).unwrap();
        let h = headers::parse(&frame, frame.len()).unwrap();
        assert_eq!(crate::explain::words::packet(&h), "tcp 10.0.0.1:49152 > 10.0.0.2:80 SYN ACK");
        let line = "--in lan --src fd00::1 --dst fd00::2 -p icmpv6 --icmp-id 7 --ttl 3";
        let frame = ask(line).unwrap().frame([2; 6], None).unwrap();
        let h = headers::parse(&frame, frame.len()).unwrap();
        assert_eq!((h.icmp_type, h.icmp_id, h.ttl), (128, 7, 3));
    }

    #[test]
    fn what_makes_no_packet_is_refused() {
        for (line, word) in [
            ("--src 1.1.1.1 --dst 2.2.2.2 -p udp --dport 1", "--in"),
            ("--in a --out b --src 1.1.1.1 --dst 2.2.2.2 -p udp --dport 1", "--in"),
            ("--in a --src 1.1.1.1 --dst ::1 -p udp --dport 1", "family"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p udp", "--dport"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p esp --dport 1", "ports"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p icmpv6", "other family"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p sctp", "--dport"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p sctp --dport 1 --chunk-type INIZ", "INIZ"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p dccp --dport 1 --dccp-type X", "no type"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p udp --dport 1 --vtag 3", "only SCTP"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p esp --gre-key 3", "only GRE"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p gre --spi 3", "only ESP"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p esp --fragment-size 20", "multiple of 8"),
            ("--out a --src 1.1.1.1 --dst 2.2.2.2 -p esp --fragment-size 16", "--in"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p tcp --dport 1 --flags SYM", "SYM"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p nonsense", "nonsense"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p udp --dport 1 --icmp-type 3", "only ICMP"),
        ] {
            let error = ask(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
