//! A frame as one line of text: what the comparison compares.
//!
//! Every field a receiver can see is in the line, checksums as "right or wrong". Left out are the
//! padding of short frames and the IPv4 identification of packets that the device made itself;
//! numbers learned from the device appear under their names. ICMP errors show their quote.

use crate::learned::Learned;
use crate::packets::{self, ICMP, ICMPV6, SCTP, TCP, UDP, UDPLITE};
use std::fmt::Write;
use std::net::IpAddr;

/// Longest payload that is printed byte by byte.
const PAYLOAD_SHOWN: usize = 24;

/// One frame, from the Ethernet header on.
pub fn frame(bytes: &[u8], learned: &Learned) -> String {
    let Some((header, rest)) = bytes.split_first_chunk::<14>() else {
        return format!("short frame {}", hex(bytes));
    };
    let macs = format!("{} > {}", hex(&header[6..12]), hex(&header[..6]));
    match u16::from_be_bytes([header[12], header[13]]) {
        0x0800 | 0x86dd => format!("{macs} {}", packet(rest, learned, false)),
        other => format!("{macs} ethertype {other:04x} {}", hex(rest)),
    }
}

/// The addresses, protocol, layer-4 bytes and whether those are a whole datagram.
pub struct Layers<'a> {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub layer4: &'a [u8],
    pub whole: bool,
    pub later_fragment: bool,
}

/// Protocol, layer 4 and the fragment header's offset and flag of what follows an IPv6 header:
/// destination options and a fragment header are stepped over.
fn behind6(mut protocol: u8, mut rest: &[u8]) -> (u8, &[u8], Option<u16>) {
    const DESTINATION: u8 = 60;
    const FRAGMENT: u8 = 44;
    let mut fragment = None;
    while let (DESTINATION | FRAGMENT, Some(header)) = (protocol, rest.first_chunk::<8>()) {
        let units = if protocol == DESTINATION { usize::from(header[1]) } else { 0 };
        let Some(behind) = rest.get(8 * (units + 1)..) else { break };
        if protocol == FRAGMENT {
            fragment = Some(u16::from_be_bytes([header[2], header[3]]));
        }
        (protocol, rest) = (header[0], behind);
        if fragment.is_some_and(|word| word & 0xfff8 != 0) {
            break;
        }
    }
    (protocol, rest, fragment)
}

/// Takes an IP packet apart as far as the scripts need it.
pub fn layers(bytes: &[u8]) -> Option<Layers<'_>> {
    if bytes.first()? >> 4 == 4 {
        let header = bytes.first_chunk::<20>()?;
        let length = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        Some(Layers {
            src: IpAddr::from(<[u8; 4]>::try_from(&header[12..16]).ok()?),
            dst: IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?),
            protocol: header[9],
            layer4: bytes.get(length..total.min(bytes.len()))?,
            whole: bytes.len() >= total && fragment == 0,
            later_fragment: fragment & 0x1fff != 0,
        })
    } else {
        let (header, rest) = bytes.split_first_chunk::<40>()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let (protocol, layer4, fragment) = behind6(header[6], rest.get(..length.min(rest.len()))?);
        Some(Layers {
            src: IpAddr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?),
            dst: IpAddr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?),
            protocol,
            layer4,
            whole: rest.len() >= length && fragment.is_none_or(|word| word & 0xfff9 == 0),
            later_fragment: fragment.is_some_and(|word| word & 0xfff8 != 0),
        })
    }
}

fn packet(bytes: &[u8], learned: &Learned, quoted: bool) -> String {
    let Some(parts) = layers(bytes) else { return format!("short packet {}", hex(bytes)) };
    let mut line = if bytes[0] >> 4 == 4 { header4(bytes) } else { header6(bytes) };
    let _ = write!(line, " {} > {}", parts.src, parts.dst);
    if parts.later_fragment {
        let _ = write!(line, " later fragment {}", payload(parts.layer4));
        return line;
    }
    line.push(' ');
    line.push_str(&match parts.protocol {
        TCP => tcp(&parts, learned),
        UDP | UDPLITE => udp(&parts, learned),
        SCTP => sctp(&parts, learned),
        ICMP | ICMPV6 => icmp(&parts, learned, quoted),
        other => format!("protocol {other} {}", payload(parts.layer4)),
    });
    line.push_str(&layer4_sum(&parts, learned));
    line
}

fn header4(bytes: &[u8]) -> String {
    let length = usize::from(bytes[0] & 15) * 4;
    let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let flags = word(6);
    let id = word(4);
    let mut line = format!("IPv4 length {} ttl {} tos {:#04x}", word(2), bytes[8], bytes[1]);
    if id == packets::IDENTIFICATION {
        line.push_str(" id kept");
    }
    if flags & 0x4000 != 0 {
        line.push_str(" DF");
    }
    if flags & 0x3fff != 0 {
        let more = if flags & 0x2000 != 0 { "+" } else { "" };
        let _ = write!(line, " fragment {}{more}", (flags & 0x1fff) * 8);
    }
    if flags & 0x8000 != 0 {
        line.push_str(" evil");
    }
    if length > 20 {
        let _ = write!(line, " options {}", hex(bytes.get(20..length).unwrap_or(&[])));
    }
    if bytes.get(..length).is_none_or(|header| packets::checksum(header) != 0) {
        line.push_str(" BAD HEADER CHECKSUM");
    }
    line
}

fn header6(bytes: &[u8]) -> String {
    let word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let length = u16::from_be_bytes([bytes[4], bytes[5]]);
    let (class, label) = (word >> 20 & 0xff, word & 0xfffff);
    let mut line =
        format!("IPv6 length {length} hops {} class {class:#04x} label {label:#x}", bytes[7]);
    let (next, rest) = (bytes[6], bytes.get(40..).unwrap_or_default());
    let (protocol, behind, fragment) = behind6(next, rest);
    if let Some(word) = fragment {
        let more = if word & 1 != 0 { "+" } else { "" };
        let _ = write!(line, " fragment {}{more} of {protocol}", word & 0xfff8);
    }
    // The identification is a choice of whoever cuts.
    let extensions = rest.len() - behind.len() - if fragment.is_some() { 8 } else { 0 };
    if extensions > 0 {
        let _ = write!(line, " extensions {next} {}", hex(&rest[..extensions]));
    }
    line
}

fn tcp(parts: &Layers<'_>, learned: &Learned) -> String {
    let Some((ports, rest)) = ports(parts, learned) else {
        return format!("TCP short {}", hex(parts.layer4));
    };
    let Some(header) = parts.layer4.first_chunk::<20>() else {
        return format!("TCP {ports} cut {}", hex(rest));
    };
    let number = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    // A header that says it is shorter than it can be.
    let length = (usize::from(header[12] >> 4) * 4).max(20);
    let options = parts.layer4.get(20..length).unwrap_or(&[]);
    let window = u16::from_be_bytes([header[14], header[15]]);
    let mut line = format!(
        "TCP {ports} {} seq {} ack {} win {window}",
        packets::flag_letters(header[13]),
        learned.count(number(4)),
        learned.count(number(8)),
    );
    if !options.is_empty() {
        let _ = write!(line, " options {}", tcp_options(options, learned));
    }
    let urgent = u16::from_be_bytes([header[18], header[19]]);
    if urgent != 0 {
        let _ = write!(line, " urgent {urgent}");
    }
    let _ = write!(line, " {}", payload(parts.layer4.get(length..).unwrap_or(&[])));
    line
}

/// Byte for byte, but times and edges of SACK as numbers where a device has chosen any.
fn tcp_options(bytes: &[u8], learned: &Learned) -> String {
    const TIMES_AND_SACK: [u8; 2] = [8, 5];
    let mut text = String::new();
    let mut rest = bytes;
    while let (&[kind, length, ..], true) = (rest, learned.counts()) {
        let length = if kind < 2 { 1 } else { usize::from(length).clamp(2, rest.len()) };
        let (option, behind) = rest.split_at(length);
        let (numbers, odd) = option.get(2..).unwrap_or_default().as_chunks::<4>();
        if TIMES_AND_SACK.contains(&kind) && odd.is_empty() {
            let _ = write!(text, "[{}", hex(&option[..2]));
            for number in numbers {
                let _ = write!(text, " {}", learned.count(u32::from_be_bytes(*number)));
            }
            text.push(']');
        } else {
            text.push_str(&hex(option));
        }
        rest = behind;
    }
    text + &hex(rest)
}

fn udp(parts: &Layers<'_>, learned: &Learned) -> String {
    match (ports(parts, learned), parts.layer4.split_first_chunk::<8>()) {
        (Some((ports, _)), Some((header, rest))) => {
            let length = u16::from_be_bytes([header[4], header[5]]);
            let name = if parts.protocol == UDP { "UDP" } else { "UDP-Lite" };
            format!("{name} {ports} length {length} {}", payload(rest))
        }
        (Some((ports, rest)), None) => {
            format!("UDP {ports} short {}", hex(&rest[..rest.len() & 2]))
        }
        _ => format!("UDP short {}", hex(parts.layer4)),
    }
}

fn sctp(parts: &Layers<'_>, learned: &Learned) -> String {
    match (ports(parts, learned), parts.layer4.split_first_chunk::<12>()) {
        (Some((ports, _)), Some((header, chunks))) => {
            format!("SCTP {ports} tag {} {}{}", hex(&header[4..8]), payload(chunks), crc(parts))
        }
        // The beginning of a CRC depends on the ports.
        (Some((ports, rest)), None) if chosen_number(parts, learned) => {
            format!("SCTP {ports} cut {} of {}", hex(&rest[..rest.len().min(4)]), rest.len())
        }
        (Some((ports, rest)), None) => format!("SCTP {ports} cut {}", hex(rest)),
        _ => format!("SCTP short {}", hex(parts.layer4)),
    }
}

/// The verdict on the CRC, where all that it covers is there.
fn crc(parts: &Layers<'_>) -> String {
    let mut bytes = parts.layer4.to_vec();
    let field: Vec<u8> = bytes.splice(8..12, [0; 4]).collect();
    if !parts.whole {
        return " in part".into();
    }
    let right = packets::crc32c(&bytes).to_le_bytes() == field[..];
    if right { String::new() } else { " BAD CRC".into() }
}

fn ports<'a>(parts: &Layers<'a>, learned: &Learned) -> Option<(String, &'a [u8])> {
    let (ports, rest) = parts.layer4.split_first_chunk::<4>()?;
    let src = learned.show(parts.src, u16::from_be_bytes([ports[0], ports[1]]));
    let dst = learned.show(parts.dst, u16::from_be_bytes([ports[2], ports[3]]));
    Some((format!("{src} > {dst}"), rest))
}

/// Whether a type carries a quote, an id, or neither.
fn is_error(protocol: u8, kind: u8) -> bool {
    if protocol == ICMP { matches!(kind, 3 | 4 | 5 | 11 | 12) } else { kind < 128 }
}

fn icmp(parts: &Layers<'_>, learned: &Learned, quoted: bool) -> String {
    let Some((header, rest)) = parts.layer4.split_first_chunk::<8>() else {
        // The checksum depends on the id.
        return match parts.layer4 {
            [kind, code, ..] if chosen_number(parts, learned) => {
                format!("ICMP {kind}/{code} cut behind {}", parts.layer4.len())
            }
            short => format!("ICMP short {}", hex(short)),
        };
    };
    let (kind, code) = (header[0], header[1]);
    if is_error(parts.protocol, kind) && !quoted {
        let rest = packet(rest, learned, true);
        return format!("ICMP error {kind}/{code} {} about [{rest}]", hex(&header[4..8]));
    }
    let id = u16::from_be_bytes([header[4], header[5]]);
    let sequence = u16::from_be_bytes([header[6], header[7]]);
    let id = learned.name(parts.src, id).map_or_else(|| learned.show(parts.dst, id), str::to_owned);
    format!("ICMP {kind}/{code} id {id} seq {sequence} {}", payload(rest))
}

/// The verdict on the layer-4 checksum. Of a quote that is cut and of a first fragment the field
/// itself, unless it covers a number that the device chose.
fn layer4_sum(parts: &Layers<'_>, learned: &Learned) -> String {
    let at = match parts.protocol {
        TCP => 16,
        UDP | UDPLITE => 6,
        ICMP | ICMPV6 => 2,
        _ => return String::new(),
    };
    let Some(field) = parts.layer4.get(at..at + 2) else { return String::new() };
    if field == [0, 0] && parts.protocol == UDP {
        return " no checksum".into();
    }
    if !parts.whole {
        let chosen = chosen_number(parts, learned);
        return format!(" in part, sum {}", if chosen { "of a choice".into() } else { hex(field) });
    }
    let right = packets::layer4_checksum(parts.src, parts.dst, parts.protocol, parts.layer4) == 0;
    let chosen = chosen_number(parts, learned) || parts.protocol == TCP && learned.counts();
    match (right, chosen) {
        (true, _) => String::new(),
        (false, true) => " BAD CHECKSUM of a choice".into(),
        (false, false) => format!(" BAD CHECKSUM {}", hex(field)),
    }
}

/// Whether a learned port or id is in the layer-4 header.
fn chosen_number(parts: &Layers<'_>, learned: &Learned) -> bool {
    let (src_at, dst_at) = match parts.protocol {
        ICMP | ICMPV6 => (4, 4),
        _ => (0, 2),
    };
    [(parts.src, src_at), (parts.dst, dst_at)].iter().any(|(address, at)| {
        let number = parts.layer4.get(*at..at + 2).map(|n| u16::from_be_bytes([n[0], n[1]]));
        number.is_some_and(|number| learned.name(*address, number).is_some())
    })
}

fn payload(bytes: &[u8]) -> String {
    match bytes.len() {
        0 => "no payload".into(),
        1..=PAYLOAD_SHOWN => format!("payload {}", hex(bytes)),
        length => format!("{length} bytes, sum {:04x}, ends {}", packets::checksum(bytes), {
            hex(&bytes[length - 8..])
        }),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(packet: &packets::Packet) -> Vec<u8> {
        let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
        bytes.extend_from_slice(&packet.bytes());
        bytes
    }

    #[test]
    fn padding_is_left_out_and_a_wrong_checksum_shows() {
        let a = ("10.1.0.11".parse().unwrap(), 4000);
        let b = ("203.0.113.51".parse().unwrap(), 53);
        let mut bytes = framed(&packets::udp(a, b).payload(b"x"));
        let plain = frame(&bytes, &Learned::default());
        assert_eq!(
            plain,
            "020000000001 > 020000000002 IPv4 length 29 ttl 64 tos 0x00 id kept \
             10.1.0.11 > 203.0.113.51 UDP 4000 > 53 length 9 payload 78"
        );
        bytes.extend_from_slice(&[0; 17]);
        assert_eq!(frame(&bytes, &Learned::default()), plain);
        let bytes = framed(&packets::udp(a, b).payload(b"x").bad_checksum());
        assert!(frame(&bytes, &Learned::default()).contains("BAD CHECKSUM"));
    }

    #[test]
    fn learned_numbers_show_in_packet_and_quote() {
        let a = ("203.0.113.1".parse().unwrap(), 31337);
        let b = ("203.0.113.51".parse().unwrap(), 53);
        let mut learned = Learned::default();
        learned.add(a.0, 31337, 1024..=65535, "port");
        let inner = packets::udp(a, b);
        assert!(frame(&framed(&inner), &learned).contains("UDP <port> > 53"));
        let error = packets::error(b.0, a.0, 3, 3, &inner);
        assert!(frame(&framed(&error), &learned).contains("about [IPv4 length 28"));
        assert!(frame(&framed(&error), &learned).contains("UDP <port> > 53"));
    }
}
