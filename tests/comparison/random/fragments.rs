//! Random fragments: a datagram of any flow in pieces, in an order of their own, some of them
//! twice, missing, or not as the others say.

use super::dice::Dice;
use super::plan::{Body, Draft, Fault, Piece};
use crate::packets::{SCTP, TCP};

/// Longest payload of a piece: with headers and IPv6's fragment header it fits 1500 bytes.
const LENGTH_MAX: usize = 1448;

/// How datagrams of a sequence are cut.
#[derive(Clone, Copy)]
pub struct Cutting {
    /// Whether a device may choose a number in the transport header, which then has to be in the
    /// first piece together with the checksum that covers it.
    pub chooses: bool,
    /// Whether what can be part of no datagram may be drawn.
    pub odd: bool,
}

/// A draft with more payload, where its protocol has some that nobody looks at.
pub fn lengthened(mut draft: Draft, dice: &mut Dice) -> Draft {
    let more = dice.pick(&[20, 60, 200, 900, 1500, 2600]);
    match &mut draft.body {
        Body::Udp { length } | Body::Query { length, .. } => *length = more,
        Body::Other { payload } if payload.len() >= 12 => payload.resize(more, 0x44),
        _ => {}
    }
    draft
}

/// The pieces of a draft in the order in which they are sent; `length` is that of its transport
/// header and payload, `step` where the first piece will be, `number` tells its datagram from the
/// sequence's others.
pub fn pieces(
    whole: Draft,
    protocol: u8,
    length: usize,
    (step, number): (usize, u16),
    cutting: Cutting,
    dice: &mut Dice,
) -> Vec<Draft> {
    let mut parts = cut(protocol, length, cutting, dice);
    match dice.below(10) {
        0..=5 => {}
        6 | 7 => parts.reverse(),
        _ => {
            (1..parts.len()).rev().for_each(|at| parts.swap(at, dice.below(at as u64 + 1) as usize))
        }
    }
    if dice.percent(35) {
        tamper(&mut parts, (length, first_min(protocol, cutting)), cutting, dice);
    }
    let fault = match whole.fault {
        // These are about what a packet has in front of its payload.
        Fault::Cut(_) | Fault::Header | Fault::Tos(_) => Fault::None,
        fault => fault,
    };
    let dont_fragment = dice.percent(10);
    let tos = dice.percent(15);
    let piece = |part| {
        let piece = Piece {
            of: whole.body.clone(),
            fault,
            step,
            number,
            part,
            dont_fragment,
            tos: if tos { dice.pick(&[0, 1, 2, 3, 0x28]) } else { 0 },
            // What is harmed is not to be quoted by a device as well.
            ttl: if fault == Fault::None && dice.percent(5) { dice.pick(&[1, 2, 200]) } else { 64 },
        };
        Draft { body: Body::Piece(Box::new(piece)), ..whole.clone() }
    };
    parts.into_iter().map(piece).collect()
}

/// Fewest bytes in the first piece.
fn first_min(protocol: u8, cutting: Cutting) -> usize {
    match protocol {
        TCP if cutting.chooses => 24,
        SCTP if cutting.chooses => 16,
        // The checksum of UDP and ICMP is in the first eight bytes.
        _ => 8,
    }
}

/// Offset, length, and whether more follow: of each piece, in order.
fn cut(
    protocol: u8,
    length: usize,
    cutting: Cutting,
    dice: &mut Dice,
) -> Vec<(usize, usize, bool)> {
    let first = first_min(protocol, cutting);
    let mut parts = Vec::new();
    let mut offset = 0;
    while length - offset > LENGTH_MAX || (parts.len() < 4 && dice.percent(80)) {
        let least = if offset == 0 { first } else { 8 };
        let left = length - offset;
        if left <= least {
            break;
        }
        let most = LENGTH_MAX.min(left - 1);
        let drawn = match dice.below(4) {
            0 => least,
            1 => dice.pick(&[16, 48, 512, 1000, 1448]),
            _ => dice.between(least as u64, most.max(least) as u64) as usize,
        };
        let size = drawn.clamp(least, most.max(least)) / 8 * 8;
        parts.push((offset, size, true));
        offset += size;
    }
    parts.push((offset, length - offset, false));
    parts
}

/// One thing that is wrong with the pieces.
fn tamper(
    parts: &mut Vec<(usize, usize, bool)>,
    (length, first): (usize, usize),
    cutting: Cutting,
    dice: &mut Dice,
) {
    let at = dice.below(parts.len() as u64) as usize;
    let to = dice.below(parts.len() as u64 + 1) as usize;
    let (offset, size, more) = parts[at];
    match dice.below(10) {
        0 | 1 => parts.insert(to, parts[at]),
        2 => {
            parts.remove(at);
        }
        // It begins before the end of another, or reaches into the next.
        3 if offset >= first + 8 => parts.insert(to, (offset - 8, size, more)),
        4 if more && size < LENGTH_MAX => parts.insert(to, (offset, size + 8, more)),
        5 if offset >= first + 8 && size <= LENGTH_MAX - 8 => {
            parts[at] = (offset - 8, size + 8, more);
        }
        // Within another.
        6 if size >= 2 * first && more => parts.insert(to, (offset, size / 16 * 8, true)),
        // Another end.
        7 if offset > 0 => parts.insert(to, (offset, size / 8 * 8, false)),
        8 => parts.insert(to, (length / 8 * 8 + 8, 8, dice.percent(50))),
        // Of the first five bytes of a query the last are its chosen number's checksum.
        9 if cutting.odd && more && (offset > 0 || !cutting.chooses) => {
            parts[at] = (offset, size - 3, more)
        }
        _ => parts.insert(to, parts[at]),
    }
}
