//! What stands behind the IP header of a packet that is asked about: SCTP, DCCP, UDP-Lite, GRE, ESP
//! and AH, as hosts send them, with right checksums.

use std::net::IpAddr;

use dataplane::conntrack::tuple::proto;
use dataplane::wire::checksum;
use dataplane::wire::crc32c::Crc32c;
use dataplane::wire::dccp::kind;
use dataplane::wire::sctp::chunk;

/// The initiate tag of an INIT or INIT ACK that is asked about.
const INITIATE_TAG: u32 = 1;

/// IPv6: nothing stands behind this header.
const NO_NEXT: u8 = 59;

/// An SCTP packet with one chunk; `payload` is user data, or behind the fixed part of any other.
pub(super) fn sctp(ports: (u16, u16), tag: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = two(ports);
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    let fixed: &[u32] = match kind {
        // Tag, window, streams, first number.
        chunk::INIT | chunk::INIT_ACK => &[INITIATE_TAG, 0x1_0000, 0x0001_0001, 1],
        // Number, stream, protocol.
        chunk::DATA => &[1, 0, 0],
        chunk::SHUTDOWN => &[1],
        _ => &[],
    };
    let length = 4 + 4 * fixed.len() + payload.len();
    // Both bits that say that it is whole.
    bytes.extend([kind, if kind == chunk::DATA { 3 } else { 0 }]);
    bytes.extend((length as u16).to_be_bytes());
    fixed.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    let mut crc = Crc32c::default();
    crc.add(&bytes);
    if let Some(place) = bytes.get_mut(8..12) {
        place.copy_from_slice(&crc.finish().to_le_bytes());
    }
    bytes
}

/// A DCCP packet with long numbers.
pub(super) fn dccp(
    ends: (IpAddr, IpAddr),
    ports: (u16, u16),
    (kind, ack): (u8, u64),
    payload: &[u8],
) -> Vec<u8> {
    const HEADER: usize = 16;
    let mut rest = Vec::new();
    if !matches!(kind, kind::REQUEST | kind::DATA) {
        rest.extend(ack.to_be_bytes());
    }
    if matches!(kind, kind::REQUEST | kind::RESPONSE | kind::RESET) {
        // The service, or why.
        rest.extend([0; 4]);
    }
    let mut bytes = two(ports);
    bytes.extend([((HEADER + rest.len()) / 4) as u8, 0, 0, 0, kind << 1 | 1, 0]);
    bytes.extend([0, 0, 0, 0, 0, 1]);
    bytes.extend(rest);
    bytes.extend(payload);
    seal(&mut bytes, ends, proto::DCCP);
    bytes
}

/// A UDP-Lite datagram whose checksum covers all of it.
pub(super) fn udplite(ends: (IpAddr, IpAddr), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut bytes = two(ports);
    bytes.extend([0; 4]);
    bytes.extend(payload);
    seal(&mut bytes, ends, proto::UDPLITE);
    bytes
}

/// A GRE packet: version 0 without options, or version 1 (PPTP) to a call.
pub(super) fn gre(call: Option<u16>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = match call {
        None => vec![0, 0, 8, 0],
        Some(_) => vec![0x20, 1, 0x88, 0x0b],
    };
    if let Some(call) = call {
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend(call.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// An ESP packet.
pub(super) fn esp(spi: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = spi.to_be_bytes().to_vec();
    bytes.extend([0, 0, 0, 1]);
    bytes.extend(payload);
    bytes
}

/// An authentication header with 12 bytes of a check value and nothing behind it.
pub(super) fn ah(spi: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![NO_NEXT, 4, 0, 0];
    bytes.extend(spi.to_be_bytes());
    bytes.extend([0, 0, 0, 1]);
    bytes.extend([0; 12]);
    bytes.extend(payload);
    bytes
}

fn two((sport, dport): (u16, u16)) -> Vec<u8> {
    [sport.to_be_bytes(), dport.to_be_bytes()].concat()
}

/// Writes the checksum, which DCCP and UDP-Lite have at the same place.
fn seal(bytes: &mut [u8], (src, dst): (IpAddr, IpAddr), number: u8) {
    let seed = checksum::pseudo(src.into(), dst.into(), number, bytes.len() as u32);
    let mut sum = checksum::Accumulator::new(seed);
    sum.add(bytes);
    // None at all is not allowed.
    let sum = if sum.finish() == 0 { u16::MAX } else { sum.finish() };
    if let Some(place) = bytes.get_mut(6..8) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}
