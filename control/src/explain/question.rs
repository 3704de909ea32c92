//! What is asked: the options of `explain`, and the packet that they describe as a frame.

use std::net::{IpAddr, SocketAddr};

use clap::Parser;
use serde::{Deserialize, Serialize};

use dataplane::conntrack::state::Direction;
use dataplane::conntrack::tcp::{TcpState, TcpTrack};
use dataplane::conntrack::tuple::proto;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::tcp::flags::{ACK, SYN};

use super::words::FLAGS;

/// Where the sender's own port is not given.
const SPORT: u16 = 49152;

/// The identifier of a ping where none is given.
const ICMP_ID: u16 = 1;

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
    /// tcp, udp, icmp, icmpv6, gre, esp, ah or a number
    #[arg(short, long, value_name = "PROTOCOL", value_parser = protocol)]
    pub proto: u8,
    /// Source port of TCP and UDP; 49152 if not given
    #[arg(long, value_name = "PORT")]
    pub sport: Option<u16>,
    /// Destination port of TCP and UDP
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
    /// The packet's mark before any rule
    #[arg(long, value_name = "NUMBER", default_value = "0", value_parser = number)]
    pub mark: u32,
    /// Time to live
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub ttl: u8,
    /// Bytes behind the transport header
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub payload: u16,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a segment of a conn looks like that its tracker accepts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Fit {
    /// Its flags, where the question names none.
    pub flags: u8,
    /// Its sequence number.
    pub seq: u32,
    /// What it acknowledges.
    pub ack: u32,
}

impl Fit {
    /// The next segment of a conn in a direction.
    pub fn of(track: &TcpTrack, direction: Direction) -> Fit {
        let ends = (track.sent_end(direction), track.sent_end(direction.opposite()));
        match (track.state(), direction) {
            // The SYN once more.
            (TcpState::SynSent, Direction::Original) => {
                Fit { flags: SYN, seq: ends.0.wrapping_sub(1), ack: 0 }
            }
            (TcpState::SynSent, Direction::Reply) => Fit { flags: SYN | ACK, seq: 0, ack: ends.1 },
            _ => Fit { flags: ACK, seq: ends.0, ack: ends.1 },
        }
    }

    const FIRST: Fit = Fit { flags: SYN, seq: 0, ack: 0 };
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
        let ports = matches!(self.proto, proto::TCP | proto::UDP);
        let icmp = matches!(self.proto, proto::ICMP | proto::ICMPV6);
        let fault = |bad: bool, text: &str| if bad { Err(text.to_owned()) } else { Ok(()) };
        fault(ports && self.dport.is_none(), "--dport is missing")?;
        fault(!ports && (self.sport, self.dport) != (None, None), "only TCP and UDP have ports")?;
        fault(self.flags.is_some() && self.proto != proto::TCP, "only TCP has --flags")?;
        let of_icmp = (self.icmp_type, self.icmp_id) != (None, None) || self.icmp_code != 0;
        fault(!icmp && of_icmp, "only ICMP has --icmp-type, --icmp-code and --icmp-id")?;
        let other = if v4 { proto::ICMPV6 } else { proto::ICMP };
        fault(self.proto == other, "the protocol is the other family's")?;
        let unsupported = matches!(self.proto, proto::SCTP | proto::DCCP | proto::UDPLITE);
        fault(unsupported, "SCTP, DCCP and UDP-Lite are not supported")
    }

    /// The packet, as a frame to `dst`; a segment without `--flags` is as `fit` says, or a first
    /// one.
    pub fn frame(&self, dst: [u8; 6], fit: Option<Fit>) -> Option<Vec<u8>> {
        let sport = self.sport.unwrap_or(SPORT);
        let from = SocketAddr::new(self.src, sport);
        let to = SocketAddr::new(self.dst, self.dport.unwrap_or_default());
        let ping = if self.src.is_ipv4() { 8 } else { 128 };
        let payload = vec![0; usize::from(self.payload)];
        // GRE of version 0, without options.
        let gre = [0, 0, 8, 0];
        let packet = match self.proto {
            proto::TCP => {
                let fit = fit.unwrap_or(Fit::FIRST);
                let flags = self.flags.unwrap_or(fit.flags);
                let seq = if flags & ACK != 0 { fit.ack } else { 0 };
                Packet::tcp(from, to).flags(flags).seq(fit.seq).ack(seq).payload(&payload)
            }
            proto::UDP => Packet::udp(from, to).payload(&payload),
            proto::ICMP | proto::ICMPV6 => {
                let rest = u32::from(self.icmp_id.unwrap_or(ICMP_ID)) << 16 | 1;
                let kind = self.icmp_type.unwrap_or(ping);
                Packet::icmp(self.src, self.dst, kind, self.icmp_code, rest).payload(&payload)
            }
            proto::GRE => Packet::raw(self.src, self.dst, self.proto).payload(&gre),
            other => Packet::raw(self.src, self.dst, other).payload(&payload),
        };
        let packet = packet.macs(Mac([2, 0, 0, 0, 0, 1]), Mac(dst)).ttl(self.ttl);
        let frame = packet.to_vec();
        (!frame.is_empty()).then_some(frame)
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
        "esp" => 50,
        "ah" => 51,
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
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p sctp", "not supported"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p tcp --dport 1 --flags SYM", "SYM"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p nonsense", "nonsense"),
            ("--in a --src 1.1.1.1 --dst 2.2.2.2 -p udp --dport 1 --icmp-type 3", "only ICMP"),
        ] {
            let error = ask(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
