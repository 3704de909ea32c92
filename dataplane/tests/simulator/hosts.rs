//! The hosts on both sides: they send what a script says and look hard at what arrives.
//!
//! Every packet carries its talk's number, in its payload or in its sequence numbers, so that a
//! host knows whose packet it got whatever its addresses say, and can hold it against them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use dataplane::lcore::simulator::{Dice, Sent};
use dataplane::rules::facts::PortId;
use dataplane::wire::build::packet::Packet;
use dataplane::wire::ethernet::Mac;
use dataplane::wire::headers::{self, Headers};
use dataplane::wire::tcp::flags::{ACK, FIN, RST, SYN};

use super::fragments::{Fragments, is_fragment};
use super::gateway::{LAN, TCP, UDP, WAN, mac_of, port_mac};
use super::script::{End, PING, Script, Seen, Talk, What};

/// Bytes at the front of a payload that say what it is.
const MARK: usize = 8;

/// What is wrong with a packet.
pub(crate) type Wrong = String;

/// Where a talk stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    /// The group under way, or to be sent next, of this phase.
    group: usize,
    under_way: bool,
    arrived: [usize; 2],
    /// By end: next sequence number to send, next one expected.
    send: [u32; 2],
    expect: [u32; 2],
    /// The client as the server sees it.
    seen: Option<SocketAddr>,
    /// The last packet that came to the server, from its IP header on.
    last: Vec<u8>,
    /// What has arrived, by end.
    log: [Vec<String>; 2],
}

/// A frame and the port it arrives at.
pub(crate) type Arriving = (PortId, Vec<u8>);

/// All hosts.
pub(crate) struct Hosts<'a> {
    script: &'a Script,
    standing: Vec<Standing>,
    phase: usize,
    /// Talks that have something to say now.
    ready: Vec<usize>,
    /// Who is seen by a server under which address and port, in this phase.
    claims: HashMap<(u8, SocketAddr, SocketAddr), usize>,
    fragments: Fragments,
}

fn rank(end: End) -> usize {
    (end == End::Server) as usize
}

fn first_seq(talk: usize, end: End) -> u32 {
    ((2 * talk + 1 + rank(end)) as u32) << 16
}

/// The payload of one packet, and what its place in the script is.
fn payload(talk: usize, place: (usize, usize, usize), end: End, len: usize) -> Vec<u8> {
    let (phase, group, index) = place;
    let [high, low] = (talk as u16).to_be_bytes();
    let place = (phase << 6 | group) as u8;
    let mark = [0x53, 0x47, high, low, place, index as u8, rank(end) as u8, len as u8];
    let rest = (MARK..len).map(|i| (i * 31 + talk * 7 + index) as u8);
    mark.into_iter().take(len).chain(rest).collect()
}

impl<'a> Hosts<'a> {
    pub(crate) fn new(script: &'a Script) -> Hosts<'a> {
        let start = |talk| Standing {
            send: [End::Client, End::Server].map(|end| first_seq(talk, end)),
            ..Standing::default()
        };
        let standing = (0..script.talks.len()).map(start).collect();
        let (ready, claims) = (Vec::new(), HashMap::new());
        Hosts { script, standing, phase: 0, ready, claims, fragments: Fragments::default() }
    }

    /// A new phase begins.
    pub(crate) fn begin(&mut self, phase: usize) {
        self.phase = phase;
        self.claims.clear();
        for standing in &mut self.standing {
            (standing.group, standing.under_way) = (0, false);
        }
        let talks = self.script.talks.iter().enumerate();
        self.ready = talks.filter(|(_, t)| !t.phases[phase].is_empty()).map(|(n, _)| n).collect();
    }

    /// How many talks have something to say now.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Talks that wait for something.
    pub(crate) fn waiting(&self) -> Vec<usize> {
        (0..self.standing.len()).filter(|&talk| self.standing[talk].under_way).collect()
    }

    /// What has arrived, by talk and end.
    pub(crate) fn logs(&self) -> impl Iterator<Item = &[Vec<String>; 2]> {
        self.standing.iter().map(|standing| &standing.log)
    }

    /// Datagrams of which only a part has arrived at a host.
    pub(crate) fn unfinished(&self) -> usize {
        self.fragments.unfinished()
    }

    /// The frames of the next group of the `nth` talk that is ready; fragments in any order.
    pub(crate) fn speak(&mut self, nth: usize, dice: &mut Dice) -> Vec<Arriving> {
        let number = self.ready.swap_remove(nth);
        let talk = &self.script.talks[number];
        let at = self.standing[number].group;
        let group = &talk.phases[self.phase][at];
        let frames: Vec<_> = group
            .packets
            .iter()
            .enumerate()
            .flat_map(|(index, &(end, what))| {
                let (port, frame) = self.frame(number, (self.phase, at, index), end, what);
                let mut parts = self.fragments.cut(frame, number + at);
                for n in (1..parts.len()).rev() {
                    parts.swap(n, dice.below(n as u64 + 1) as usize);
                }
                if matches!(what, What::Torn(_)) {
                    parts.pop();
                }
                parts.into_iter().map(move |bytes| (port, bytes))
            })
            .collect();
        let standing = &mut self.standing[number];
        (standing.under_way, standing.arrived) = (true, [0, 0]);
        if group.arrive == [0, 0] {
            self.go_on(number);
        }
        frames
    }

    /// All that a group led to has arrived.
    fn go_on(&mut self, number: usize) {
        let standing = &mut self.standing[number];
        (standing.under_way, standing.group) = (false, standing.group + 1);
        if standing.group < self.script.talks[number].phases[self.phase].len() {
            self.ready.push(number);
        }
    }

    fn frame(
        &mut self,
        number: usize,
        place: (usize, usize, usize),
        end: End,
        what: What,
    ) -> Arriving {
        let talk = &self.script.talks[number];
        let standing = &mut self.standing[number];
        let (from, to) = match end {
            End::Client => (talk.client, talk.dialed),
            End::Server => (talk.server, standing.seen.unwrap_or(talk.client)),
        };
        let v6 = from.is_ipv6();
        let bytes = |len| payload(number, place, end, len);
        let framed = |packet: Packet<'_>| framed(talk, end, packet);
        match what {
            What::Datagram(len) | What::Torn(len) => {
                framed(Packet::udp(from, to).payload(&bytes(len)))
            }
            What::LastHop => framed(Packet::udp(from, to).ttl(1).payload(&bytes(30))),
            What::Stray => framed(Packet::tcp(from, to).flags(SYN | ACK).seq(1).ack(1)),
            What::Segment(flags, len) => {
                let me = rank(end);
                if flags & SYN != 0 {
                    standing.send[me] += 0x400;
                }
                if flags & (SYN | ACK) == SYN {
                    // Nothing is known of the other end yet.
                    standing.expect = [0, 0];
                }
                let ack = if flags & ACK != 0 { standing.expect[me] } else { 0 };
                let seq = standing.send[me];
                standing.send[me] += len as u32 + (flags & (SYN | FIN) != 0) as u32;
                let payload = if len > 0 { bytes(len) } else { Vec::new() };
                framed(Packet::tcp(from, to).flags(flags).seq(seq).ack(ack).payload(&payload))
            }
            What::Ping(len) => {
                let kind = match (v6, end) {
                    (false, End::Client) => 8,
                    (false, End::Server) => 0,
                    (true, End::Client) => 128,
                    (true, End::Server) => 129,
                };
                let id = standing
                    .seen
                    .filter(|_| end == End::Server)
                    .map_or(talk.client.port(), |s| s.port());
                let rest = (id as u32) << 16 | place.1 as u32;
                framed(Packet::icmp(from.ip(), to.ip(), kind, 0, rest).payload(&bytes(len)))
            }
            What::PortUnreachable => {
                let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
                framed(Packet::icmp(from.ip(), to.ip(), kind, code, 0).payload(&standing.last))
            }
            What::TimeExceeded => {
                let router = IpAddr::from([100, 99, 0, 1]);
                framed(Packet::icmp(router, to.ip(), 11, 0, 0).payload(&standing.last))
            }
        }
    }

    /// Takes a frame that the gateway sent; the answers of hosts that need no script.
    pub(crate) fn arrive(&mut self, sent: &Sent) -> Result<Vec<Arriving>, Wrong> {
        let (port, mut bytes) = (sent.port, &sent.bytes);
        if bytes.get(12..14) == Some(&[8, 6]) {
            return Ok(arp_answer(port, bytes).into_iter().collect());
        }
        let parse = |bytes: &[u8]| {
            headers::parse(bytes, bytes.len()).map_err(|e| format!("malformed: {e:?}"))
        };
        let mut h = parse(bytes)?;
        let together;
        if is_fragment(&h) {
            check_macs(port, bytes, &h)?;
            let Some(whole) = self.fragments.join(port, bytes, &h)? else { return Ok(Vec::new()) };
            together = whole;
            (bytes, h) = (&together, parse(&together)?);
        }
        check_frame(port, bytes, &h)?;
        let message = &bytes[h.l4 as usize..h.end as usize];
        let quote = is_error(&h).then(|| &message[8..]);
        let number = match quote {
            Some(quote) => {
                let q =
                    headers::parse_ip(quote, quote.len()).map_err(|e| format!("quote: {e:?}"))?;
                talk_of(&q, &quote[q.l4 as usize..])
            }
            None => talk_of(&h, message),
        };
        let number = number.ok_or_else(|| format!("whose is {h:?}"))?;
        self.take(number, port, &h, bytes, quote).map_err(|wrong| {
            format!("talk {number}: {wrong}\n{h:?}\n{:?}", self.script.talks[number])
        })?;
        Ok(Vec::new())
    }

    fn take(
        &mut self,
        number: usize,
        port: PortId,
        h: &Headers,
        bytes: &[u8],
        quote: Option<&[u8]>,
    ) -> Result<(), Wrong> {
        let talk = &self.script.talks[number];
        let end = if (port == LAN) == talk.inside { End::Client } else { End::Server };
        match (end, quote) {
            (End::Client, None) => {
                same("to", to(h), talk.client).and(same("from", from(h), talk.dialed))?
            }
            (End::Client, Some(quote)) => check_quote(talk, h, quote)?,
            (End::Server, _) => self.check_client(number, h, bytes)?,
        }
        let talk = &self.script.talks[number];
        let standing = &mut self.standing[number];
        let message = &bytes[h.l4 as usize..h.end as usize];
        let at = standing.group;
        let what = match (h.proto, quote) {
            (_, Some(_)) => format!("icmp {}.{} from {}", h.icmp_type, h.icmp_code, h.src),
            (UDP, _) => check_mark(number, end, &message[8..])?,
            (TCP, _) => {
                let me = rank(end);
                let word = |i: usize| u32::from_be_bytes(message[i..i + 4].try_into().unwrap());
                let text = &message[(message[12] >> 4) as usize * 4..];
                let (seq, flags) = (word(4), h.tcp_flags);
                if flags & (RST | ACK) != RST | ACK || seq != 0 {
                    let next = seq + text.len() as u32 + (flags & (SYN | FIN) != 0) as u32;
                    standing.expect[me] = standing.expect[me].max(next);
                }
                if flags & ACK != 0 && word(8).wrapping_sub(standing.send[me]) as i32 > 0 {
                    return Err(format!("acks {:x}, which was not sent", word(8)));
                }
                let mark =
                    if text.is_empty() { String::new() } else { check_mark(number, end, text)? };
                let (seq, ack) = (seq.wrapping_sub(first_seq(number, end.other())), word(8));
                format!("tcp {flags:02x} {seq} {ack} {mark}")
            }
            _ => format!("icmp {}.{} {}", h.icmp_type, h.icmp_code, message.len()),
        };
        standing.log[rank(end)].push(format!("{}.{at} {what}", self.phase));
        standing.arrived[rank(end)] += 1;
        let wanted = talk.phases[self.phase].get(at).map_or([0, 0], |group| group.arrive);
        if !standing.under_way || standing.arrived[rank(end)] > wanted[rank(end)] {
            return Err(format!("more than was sent: {:?}", standing.log));
        }
        if standing.arrived == wanted {
            self.go_on(number);
        }
        Ok(())
    }

    /// What a server sees of its client: the right address, one port for the whole phase, and
    /// nobody else's.
    fn check_client(&mut self, number: usize, h: &Headers, bytes: &[u8]) -> Result<(), Wrong> {
        let talk = &self.script.talks[number];
        let expected = match talk.seen {
            Seen::Plain => talk.client.ip(),
            Seen::As(address) => address,
            Seen::Nobody => return Err("passed on".into()),
        };
        let seen = from(h);
        let server = if talk.proto == PING {
            SocketAddr::new(talk.server.ip(), seen.port())
        } else {
            talk.server
        };
        same("to", to(h), server)?;
        same("from", seen.ip(), expected)?;
        if talk.seen == Seen::Plain {
            same("from", seen, talk.client)?;
        }
        let holder = *self.claims.entry((talk.proto, seen, server)).or_insert(number);
        if holder != number {
            return Err(format!("{seen} is talk {holder} to this server"));
        }
        let standing = &mut self.standing[number];
        let moved = standing.seen.is_some_and(|before| before != seen);
        if moved && (standing.group > 0 && h.tcp_flags & SYN == 0) {
            return Err(format!("was seen as {:?}", standing.seen));
        }
        standing.seen = Some(seen);
        standing.last = bytes[h.l3 as usize..h.end as usize].to_vec();
        Ok(())
    }
}

fn same<T: PartialEq + core::fmt::Debug>(what: &str, is: T, wanted: T) -> Result<(), Wrong> {
    if is == wanted { Ok(()) } else { Err(format!("{what}: {is:?}, wanted {wanted:?}")) }
}

fn from(h: &Headers) -> SocketAddr {
    let port = if matches!(h.proto, TCP | UDP) { h.src_port } else { h.icmp_id };
    SocketAddr::new(h.src.ip(), port)
}

fn to(h: &Headers) -> SocketAddr {
    let port = if matches!(h.proto, TCP | UDP) { h.dst_port } else { h.icmp_id };
    SocketAddr::new(h.dst.ip(), port)
}

fn is_error(h: &Headers) -> bool {
    matches!((h.proto, h.icmp_type), (1, 3 | 11) | (58, 1 | 3))
}

/// The talk that the L4 header and payload of a packet name.
fn talk_of(h: &Headers, message: &[u8]) -> Option<usize> {
    let marked = |text: &[u8]| match text {
        [0x53, 0x47, high, low, ..] => Some(u16::from_be_bytes([*high, *low]) as usize),
        _ => None,
    };
    if h.proto != TCP {
        return marked(message.get(8..)?);
    }
    let word = |i: usize| Some(u32::from_be_bytes(message.get(i..i + 4)?.try_into().ok()?));
    let (seq, ack) = (word(4)?, word(8)?);
    let number = if seq == 0 { ack } else { seq } >> 16;
    Some((number as usize).checked_sub(1)? / 2)
}

/// The whole payload, byte by byte, as its mark says it was sent by the other end.
fn check_mark(number: usize, end: End, text: &[u8]) -> Result<String, Wrong> {
    let Some(&[_, _, _, _, place, index, from, _]) = text.first_chunk::<MARK>() else {
        return Err("no payload".into());
    };
    let place = ((place >> 6) as usize, (place & 63) as usize, index as usize);
    if payload(number, place, end.other(), text.len()) != text || from as usize == rank(end) {
        return Err(format!("payload {text:02x?}"));
    }
    Ok(format!("{place:?} {}", text.len()))
}

/// An error that came to a client quotes what the client sent.
fn check_quote(talk: &Talk, h: &Headers, quote: &[u8]) -> Result<(), Wrong> {
    let q = headers::parse_ip(quote, quote.len()).map_err(|e| format!("quote: {e:?}"))?;
    same("error to", h.dst.ip(), talk.client.ip())?;
    same("quoted source", from(&q), talk.client)?;
    same("quoted destination", to(&q), talk.dialed)?;
    same("quoted checksum", q.l4_check_ok(quote), true)
}

fn check_frame(port: PortId, bytes: &[u8], h: &Headers) -> Result<(), Wrong> {
    check_macs(port, bytes, h)?;
    same("length", h.end as usize, bytes.len())?;
    same("checksum", h.l4_check_ok(bytes), true)
}

fn check_macs(port: PortId, bytes: &[u8], h: &Headers) -> Result<(), Wrong> {
    let macs = [&bytes[..6], &bytes[6..12]].map(|mac| Mac(mac.try_into().unwrap()));
    same("to MAC", macs[0], mac_of(port, h.dst.ip()))?;
    same("from MAC", macs[1], port_mac(port))
}

/// The frame of a packet from an end of a talk.
fn framed(talk: &Talk, end: End, packet: Packet<'_>) -> Arriving {
    let port = if (end == End::Client) == talk.inside { LAN } else { WAN };
    let sender = if end == End::Client { talk.client } else { talk.server };
    (port, packet.macs(mac_of(port, sender.ip()), port_mac(port)).to_vec())
}

/// The ARP reply to a request for a host's address.
fn arp_answer(port: PortId, request: &[u8]) -> Option<Arriving> {
    let asked: [u8; 4] = request.get(38..42)?.try_into().ok()?;
    if request.get(20..22)? != [0, 1] {
        return None;
    }
    let mac = mac_of(port, IpAddr::from(asked)).0;
    let mut reply = request.to_vec();
    reply[..6].copy_from_slice(&request[6..12]);
    reply[6..12].copy_from_slice(&mac);
    reply[21] = 2;
    reply[32..42].copy_from_slice(&request[22..32]);
    reply[22..28].copy_from_slice(&mac);
    reply[28..32].copy_from_slice(&asked);
    Some((port, reply))
}
