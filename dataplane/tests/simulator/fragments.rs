//! Datagrams in fragments as hosts send and receive them.
//!
//! What does not fit a link is cut by the host that sends it, and its fragments arrive in any order
//! at any queue. A host that receives fragments puts them together and looks at the whole.

use std::collections::HashMap;
use std::net::IpAddr;

use dataplane::rules::facts::PortId;
use dataplane::wire::checksum;
use dataplane::wire::headers::{self, Fragment, Headers};

use super::gateway::LAN;
use super::hosts::Wrong;

/// Bytes of an Ethernet header and an IPv4 or IPv6 one.
const V4: usize = 14 + 20;
const V6: usize = 14 + 40;

/// The largest IP packet of a link.
const MTU: usize = 1500;

/// Payload of a datagram's fragments but the last.
const PIECES: [usize; 4] = [1448, 1000, 808, 504];

/// Offset, whether more follow, payload, the frame that brought it.
type Part = (usize, bool, Vec<u8>, Vec<u8>);

/// What of a datagram comes together: receiver's port, source, destination and identification.
type Key = (u8, IpAddr, IpAddr, u32);

/// Fragments on their way between hosts.
#[derive(Default)]
pub(crate) struct Fragments {
    /// By identification, each given once: the largest packet that brought a part to the gateway.
    largest: Vec<usize>,
    waiting: HashMap<Key, Vec<Part>>,
}

impl Fragments {
    /// The frames of a packet that a host sends: itself, if it fits. `shape` says how it is cut.
    pub(crate) fn cut(&mut self, frame: Vec<u8>, shape: usize) -> Vec<Vec<u8>> {
        if frame.len() <= 14 + MTU {
            return vec![frame];
        }
        let id = self.largest.len() as u16;
        let piece = PIECES[shape % PIECES.len()];
        let header = if is_v4(&frame) { V4 } else { V6 };
        let len = frame.len() - header;
        let parts: Vec<Vec<u8>> = (0..len)
            .step_by(piece)
            .map(|at| part(&frame, id, (at, piece.min(len - at), at + piece < len)))
            .collect();
        self.largest.push(parts.iter().map(|part| part.len() - 14).max().unwrap_or(0));
        parts
    }

    /// Takes a fragment in; the frame of the whole datagram, once all of it is there.
    pub(crate) fn join(
        &mut self,
        port: PortId,
        bytes: &[u8],
        h: &Headers,
    ) -> Result<Option<Vec<u8>>, Wrong> {
        let (id, offset, more) = match h.fragment {
            Fragment::First { id } => (id, 0, true),
            Fragment::Later { id, offset, more } => (id, offset as usize, more),
            Fragment::None | Fragment::Atomic { .. } => return Err("one fragment alone".into()),
        };
        if h.end as usize != bytes.len() {
            return Err(format!("a frame of {}, {} in use", bytes.len(), h.end));
        }
        // What the gateway sends itself is cut by the MTU alone.
        let own = port == LAN && ["192.168.1.1", "203.0.113.10"].contains(&&*h.src.to_string());
        let most = self.largest.get(id as usize).copied().filter(|_| !own).unwrap_or(MTU);
        if bytes.len() - 14 > most {
            return Err(format!("{} bytes at once, came by {most}", bytes.len() - 14));
        }
        let key = (port.0, h.src.ip(), h.dst.ip(), id);
        let parts = self.waiting.entry(key).or_default();
        let payload = bytes[h.l4 as usize..h.end as usize].to_vec();
        parts.push((offset, more, payload, bytes.to_vec()));
        parts.sort_by_key(|part| part.0);
        let mut end = 0;
        for (offset, _, payload, _) in parts.iter() {
            if *offset < end {
                return Err(format!("twice or over each other at {offset}"));
            }
            if *offset > end {
                return Ok(None);
            }
            end += payload.len();
        }
        if parts.last().is_some_and(|last| last.1) {
            return Ok(None);
        }
        Ok(self.waiting.remove(&key).map(whole))
    }

    /// Datagrams of which something has arrived, but not all.
    pub(crate) fn unfinished(&self) -> usize {
        self.waiting.len()
    }
}

fn is_v4(frame: &[u8]) -> bool {
    frame[12] == 8
}

/// One fragment of a frame's packet.
fn part(frame: &[u8], id: u16, (offset, len, more): (usize, usize, bool)) -> Vec<u8> {
    if is_v4(frame) {
        let mut part = frame[..V4].to_vec();
        part[18..20].copy_from_slice(&id.to_be_bytes());
        set_v4(&mut part, len, u16::from(more) << 13 | (offset / 8) as u16);
        part.extend(&frame[V4 + offset..V4 + offset + len]);
        return part;
    }
    let mut part = frame[..V6].to_vec();
    part[18..20].copy_from_slice(&(8 + len as u16).to_be_bytes());
    let next = std::mem::replace(&mut part[20], 44);
    let [a, b] = (offset as u16 | u16::from(more)).to_be_bytes();
    let [c, d] = id.to_be_bytes();
    part.extend([next, 0, a, b, 0, 0, c, d]);
    part.extend(&frame[V6 + offset..V6 + offset + len]);
    part
}

/// Length, fragment word and checksum of a frame's IPv4 header.
fn set_v4(frame: &mut [u8], payload: usize, word: u16) {
    frame[16..18].copy_from_slice(&(20 + payload as u16).to_be_bytes());
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame[24..26].fill(0);
    let check = checksum::internet(&frame[14..V4]);
    frame[24..26].copy_from_slice(&check.to_be_bytes());
}

/// The datagram of all its fragments, in their order.
fn whole(parts: Vec<Part>) -> Vec<u8> {
    let first = &parts[0].3;
    let payload: Vec<u8> = parts.iter().flat_map(|part| part.2.iter().copied()).collect();
    let mut frame = first[..if is_v4(first) { V4 } else { V6 }].to_vec();
    if is_v4(first) {
        set_v4(&mut frame, payload.len(), 0);
    } else {
        frame[18..20].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        frame[20] = first[V6];
    }
    frame.extend(payload);
    frame
}

/// True for a part of a datagram.
pub(crate) fn is_fragment(h: &Headers) -> bool {
    matches!(h.fragment, Fragment::First { .. } | Fragment::Later { .. })
}

#[test]
fn what_hosts_cut_they_put_together_in_any_order() {
    use dataplane::wire::build::packet::Packet;
    let payload = vec![7; 4000];
    for (from, to) in [("192.0.2.1:1", "192.0.2.2:2"), ("[fd00::1]:1", "[fd00::2]:2")] {
        let mut fragments = Fragments::default();
        let at = |text: &str| text.parse().unwrap();
        for shape in 0..PIECES.len() {
            let frame = Packet::udp(at(from), at(to)).payload(&payload).to_vec();
            let mut parts = fragments.cut(frame.clone(), shape);
            assert!(parts.len() > 2);
            parts.rotate_left(1);
            let last = parts.pop().unwrap();
            let mut join = |bytes: &[u8]| {
                let h = headers::parse(bytes, bytes.len()).unwrap();
                assert!(is_fragment(&h));
                fragments.join(PortId(1), bytes, &h).unwrap()
            };
            assert!(parts.iter().all(|part| join(part).is_none()));
            let together = join(&last).unwrap();
            // The identification is another one.
            assert_eq!((&together[..18], &together[26..]), (&frame[..18], &frame[26..]));
        }
        assert_eq!(fragments.unfinished(), 0);
    }
}
