//! A random sequence as it was drawn: which hosts speak, under which rules, and what each packet
//! is.
//!
//! Nothing in a plan depends on the device: what does, as a translated port, is looked up when a
//! packet is built, in what the device let out before ([`Plan::frame`]). So a packet can be left
//! out without changing what the others mean, and one plan suits every device.

use super::rules::Policy;
use crate::packets::{self, Packet};
use crate::script::{Emitted, source};
use crate::sequences;
use crate::show;
use crate::topology::Side;
use std::net::IpAddr;

/// Datagrams of a sequence that may be cut.
pub const DATAGRAMS_MAX: u16 = 16;

/// An address and a port or ICMP id.
pub type End = (IpAddr, u16);

/// Who speaks to whom.
#[derive(Clone, Debug)]
pub struct Flow {
    pub protocol: u8,
    /// Where the client is.
    pub from: Side,
    pub client: End,
    /// The server as the client calls it.
    pub called: End,
    /// The server, and the client as the server sees it, unless the device shows otherwise.
    pub server: End,
    pub caller: End,
}

/// What a packet carries.
#[derive(Clone, Debug)]
pub enum Body {
    Tcp {
        flags: &'static str,
        sequence: u32,
        ack: u32,
        window: u16,
        options: Vec<u8>,
        length: usize,
    },
    Udp {
        length: usize,
    },
    /// An ICMP message with the flow's number as id.
    Query {
        kind: u8,
        code: u8,
        sequence: u16,
        length: usize,
    },
    Sctp {
        tag: u32,
        chunks: Vec<Vec<u8>>,
    },
    /// Any other protocol's payload.
    Other {
        payload: Vec<u8>,
    },
    Piece(Box<Piece>),
    /// An ICMP error about what the packet of an earlier step became, from where that went.
    Error {
        kind: u8,
        code: u8,
        rest: [u8; 4],
        about: usize,
        quote: Quote,
    },
}

/// A fragment.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The datagram it is a part of.
    pub of: Body,
    pub fault: Fault,
    /// The step before which the datagram's ends were looked up.
    pub step: usize,
    /// Number of the datagram in its sequence, below [`DATAGRAMS_MAX`].
    pub number: u16,
    /// Offset, length, whether more follow.
    pub part: (usize, usize, bool),
    pub dont_fragment: bool,
    pub tos: u8,
    pub ttl: u8,
}

/// What is done to a quote.
#[derive(Clone, Copy, Debug)]
pub enum Quote {
    Right,
    /// Only so many bytes.
    Cut(usize),
    /// A byte is changed.
    Wrong(usize),
}

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Checksum,
    ZeroChecksum,
    Header,
    Cut(usize),
    /// TCP's data offset.
    Offset(u8),
    UdpLength(u16),
    Ttl(u8),
    /// No fault, but rarely seen.
    Tos(u8),
}

/// One packet of a plan.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Number of the flow.
    pub flow: usize,
    pub from_client: bool,
    pub body: Body,
    pub fault: Fault,
}

/// A sequence.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Which part of the address space it has.
    pub slot: u8,
    pub policy: Policy,
    pub flows: Vec<Flow>,
    /// Which run this is: pieces that a kernel still holds from an earlier one are none of this
    /// one's datagrams.
    pub run: u16,
    /// `None` for a packet that was left out again.
    pub drafts: Vec<Option<Draft>>,
}

/// What came out because of each step of a plan.
pub type Observed = Vec<Vec<Emitted>>;

impl Plan {
    /// The frame of a step, and the side it is sent on, after what the device let out so far.
    pub fn frame(&self, step: usize, observed: &Observed) -> Option<(Side, Vec<u8>)> {
        let draft = self.drafts.get(step)?.as_ref()?;
        let flow = &self.flows[draft.flow];
        if let Body::Error { kind, code, rest, about, quote } = &draft.body {
            return self.error(*kind, *code, *rest, *about, *quote, observed);
        }
        let first = if let Body::Piece(piece) = &draft.body { piece.step } else { step };
        let (side, src, dst) = if draft.from_client {
            (flow.from, flow.client, flow.called)
        } else {
            let (server, caller) = self.seen(draft.flow, first, observed);
            (flow.from.other(), server, caller)
        };
        let Body::Piece(piece) = &draft.body else {
            let packet = spoil(compose(&draft.body, flow.protocol, src, dst), draft.fault);
            return Some((side, side.framed(&packet.bytes())));
        };
        let packet = compose(&piece.of, flow.protocol, src, dst).ttl(piece.ttl).tos(piece.tos);
        let packet = if piece.dont_fragment { packet.dont_fragment() } else { packet };
        let whole = spoil(packet, piece.fault).bytes();
        let part = sequences::identified_part(&whole, self.identification(piece), piece.part);
        Some((side, side.framed(&part)))
    }

    /// The identification of a piece's datagram.
    pub fn identification(&self, piece: &Piece) -> u16 {
        self.run.wrapping_mul(DATAGRAMS_MAX).wrapping_add(piece.number)
    }

    /// The port or id that a step's packet has as its source: of a piece, that of its datagram.
    pub fn source(&self, step: usize, observed: &Observed) -> Option<u16> {
        let draft = self.drafts.get(step)?.as_ref()?;
        match &draft.body {
            Body::Piece(_) if draft.from_client => Some(self.flows[draft.flow].client.1),
            Body::Piece(piece) => Some(self.seen(draft.flow, piece.step, observed).0.1),
            _ => source(&self.frame(step, observed)?.1).map(|(_, number)| number),
        }
    }

    /// The ends of a flow as its server has last seen them before a step.
    fn seen(&self, flow: usize, step: usize, observed: &Observed) -> (End, End) {
        let drawn = &self.flows[flow];
        let side = drawn.from.other();
        for (at, draft) in self.drafts.iter().enumerate().take(step).rev() {
            let of_flow = |draft: &&Draft| {
                let error = matches!(draft.body, Body::Error { .. });
                draft.flow == flow && draft.from_client && !error
            };
            if draft.as_ref().filter(of_flow).is_none() {
                continue;
            }
            for out in observed.get(at).into_iter().flatten().filter(|out| out.side == side) {
                let ends = ends(&out.frame, drawn.protocol);
                if let Some((caller, server)) = ends {
                    return (server, caller);
                }
            }
        }
        (drawn.server, drawn.caller)
    }

    fn error(
        &self,
        kind: u8,
        code: u8,
        rest: [u8; 4],
        about: usize,
        quote: Quote,
        observed: &Observed,
    ) -> Option<(Side, Vec<u8>)> {
        let (from, sent) = self.frame(about, observed)?;
        let mut forwarded = observed.get(about).into_iter().flatten();
        let out = forwarded.find(|out| out.side != from);
        let (side, frame) = (from.other(), out.map_or(sent, |out| out.frame.clone()));
        let mut quoted = frame.get(14..)?.to_vec();
        let layers = show::layers(&quoted)?;
        let (src, dst) = (layers.src, layers.dst);
        quoted.truncate(548);
        match quote {
            Quote::Right => {}
            Quote::Cut(length) => quoted.truncate(length),
            Quote::Wrong(at) => {
                let at = at % quoted.len();
                quoted[at] ^= 0x21;
            }
        }
        // Whoever was to receive the packet complains to whoever seemed to have sent it.
        let error = packets::icmp(dst, src, kind, code, rest).payload(&quoted);
        Some((side, side.framed(&error.bytes())))
    }
}

/// Source and destination of a frame, if it is of that protocol.
fn ends(frame: &[u8], protocol: u8) -> Option<(End, End)> {
    let layers = show::layers(frame.get(14..)?)?;
    if layers.protocol != protocol || layers.later_fragment {
        return None;
    }
    let number = |at: usize| {
        let bytes = layers.layer4.get(at..at + 2);
        bytes.map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (from, to) = match protocol {
        packets::ICMP | packets::ICMPV6 => (4, 4),
        _ => (0, 2),
    };
    Some(((layers.src, number(from)), (layers.dst, number(to))))
}

fn compose(body: &Body, protocol: u8, src: End, dst: End) -> Packet {
    match body {
        Body::Tcp { flags, sequence, ack, window, options, length } => {
            packets::tcp(src, dst, flags, *sequence, *ack)
                .window(*window)
                .options(options)
                .payload(&filler(*length))
        }
        Body::Udp { length } => packets::udp(src, dst).payload(&filler(*length)),
        Body::Query { kind, code, sequence, length } => {
            let (id, sequence) = (src.1.to_be_bytes(), sequence.to_be_bytes());
            let rest = [id[0], id[1], sequence[0], sequence[1]];
            packets::icmp(src.0, dst.0, *kind, *code, rest).payload(&filler(*length))
        }
        Body::Sctp { tag, chunks } => packets::sctp(src, dst, *tag, chunks),
        Body::Other { payload } => packets::other(src.0, dst.0, protocol, payload),
        Body::Error { .. } | Body::Piece(_) => unreachable!("they are built from other packets"),
    }
}

fn filler(length: usize) -> Vec<u8> {
    (0..length).map(|at| at as u8 ^ 0x5a).collect()
}

fn spoil(packet: Packet, fault: Fault) -> Packet {
    match fault {
        Fault::None => packet,
        Fault::Checksum => packet.bad_checksum(),
        Fault::ZeroChecksum => packet.zero_checksum(),
        Fault::Header => packet.bad_header_checksum(),
        Fault::Cut(length) => packet.cut(length),
        Fault::Offset(words) => packet.data_offset(words),
        Fault::UdpLength(length) => packet.udp_length(length),
        Fault::Ttl(ttl) => packet.ttl(ttl),
        Fault::Tos(tos) => packet.tos(tos),
    }
}

/// The run that an identification is of.
pub fn run(identification: u16) -> u16 {
    identification / DATAGRAMS_MAX
}

/// The identification of a packet that is a fragment, as [`Plan::identification`] drew it.
pub fn fragment(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<20>()?;
            let part = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
            (part != 0).then_some(u16::from_be_bytes([header[4], header[5]]))
        }
        _ => {
            let header = packet.first_chunk::<48>()?;
            (header[6] == 44).then_some(u16::from_be_bytes([header[44], header[45]]))
        }
    }
}

/// Bytes of a packet behind its IP header.
pub fn transport_length(body: &Body, flow: &Flow) -> usize {
    let bytes = compose(body, flow.protocol, flow.client, flow.called).bytes();
    bytes.len() - if flow.client.0.is_ipv4() { 20 } else { 40 }
}

/// Address and port or id that a frame comes from, if it is of a protocol that has such.
fn sent_from(protocol: u8, emitted: &Emitted) -> Option<End> {
    let layers = show::layers(emitted.frame.get(14..)?)?;
    let known = [packets::TCP, packets::UDP, packets::SCTP, packets::ICMP, packets::ICMPV6];
    if layers.protocol != protocol || layers.later_fragment || !known.contains(&protocol) {
        return None;
    }
    source(&emitted.frame)
}

/// A device's free choice in what it let out: another source number than the one that was sent,
/// unless the rules name it. Its address, the choice, and in place of what.
pub fn choice(
    protocol: u8,
    before: u16,
    emitted: &Emitted,
    fixed: &[u16],
) -> Option<(IpAddr, u16, u16)> {
    let (address, after) = sent_from(protocol, emitted)?;
    (before != after && !fixed.contains(&after)).then_some((address, after, before))
}
