//! The two route sockets: one that asks and is answered at once, one that listens and dumps.
//!
//! Neither ever waits. The kernel puts the answer to a request into the socket before `send`
//! returns, so [`Requests`] reads it straight away; [`Listener`] reads what has come and says when
//! there is no more, or when the kernel had to drop something (`ENOBUFS`).
//!
//! A dump runs on the listening socket, so that its parts and the changes that happen meanwhile
//! arrive in one order. The kernel writes a part only when the part before has been read.

use std::io::{self, ErrorKind};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// A part of a dump has at most 32 KiB, an event far less.
const BUFFER: usize = 64 << 10;

/// Bytes before a message's own (`struct nlmsghdr`).
const HEADER: usize = 16;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`,
/// `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// `RTNLGRP_NEXTHOP`: routes of a deleted nexthop go without a word.
const GROUP_NEXTHOP: u32 = 32;

const RTM_DELNEXTHOP: u16 = 105;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RT_TABLE_MAIN: u8 = 254;
const ENOBUFS: i32 = 105;

/// Wanted of the receive buffer; the kernel grants what `net.core.rmem_max` allows.
const RECEIVE_BYTES: i32 = 4 << 20;

/// What a raw message's header says.
struct Raw {
    length: usize,
    kind: u16,
    flags: u16,
    sequence: u32,
    sender: u32,
}

impl Raw {
    /// Reads a header; `None` at the end of a datagram.
    fn read(bytes: &[u8]) -> Option<Raw> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = word(0) as usize;
        let raw =
            Raw { length, kind: half(4), flags: half(6), sequence: word(8), sender: word(12) };
        (HEADER..=bytes.len()).contains(&length).then_some(raw)
    }
}

/// Every message of a datagram with its raw header.
fn messages(datagram: &[u8]) -> impl Iterator<Item = (Raw, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let raw = Raw::read(rest)?;
        let message = &rest[..raw.length];
        rest = rest.get(raw.length.next_multiple_of(4)..).unwrap_or_default();
        Some((raw, message))
    })
}

/// A route message; `None` for what this version of the crate cannot read.
fn decode(raw: &Raw, bytes: &[u8]) -> Option<Message> {
    let mut header = NetlinkHeader::default();
    (header.message_type, header.flags) = (raw.kind, raw.flags);
    match Message::deserialize(&header, &bytes[HEADER..]) {
        Ok(message) => Some(message),
        Err(error) => {
            log::debug!("host: netlink message of type {} not understood: {error}", raw.kind);
            None
        }
    }
}

/// The errno of an `NLMSG_ERROR`; 0 is an acknowledgement.
fn errno(bytes: &[u8]) -> i32 {
    bytes[HEADER..].first_chunk().map_or(0, |code| -i32::from_ne_bytes(*code))
}

fn send(socket: &Socket, message: Message, flags: u16, sequence: u32) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
}

/// Questions and orders with an answer.
pub(super) struct Requests {
    socket: Socket,
    sequence: u32,
}

impl Requests {
    pub(super) fn open() -> io::Result<Requests> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        Ok(Requests { socket, sequence: 0 })
    }

    /// Sends a request and reads its answer up to the acknowledgement.
    pub(super) fn ask(&mut self, message: Message, flags: u16) -> io::Result<Vec<Message>> {
        self.sequence = self.sequence.wrapping_add(1);
        send(&self.socket, message, flags | NLM_F_ACK, self.sequence)?;
        let mut answers = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            self.socket.recv(&mut buffer, 0)?;
            for (raw, bytes) in messages(&buffer) {
                match raw.kind {
                    _ if raw.sequence != self.sequence => {}
                    NLMSG_ERROR => {
                        return match errno(bytes) {
                            0 => Ok(answers),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => answers.extend(decode(&raw, bytes)),
                }
            }
        }
    }
}

/// What is asked for in a dump, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    Addresses4,
    Addresses6,
    Routes4,
    Routes6,
}

impl Dump {
    pub(super) fn next(self) -> Option<Dump> {
        match self {
            Dump::Addresses4 => Some(Dump::Addresses6),
            Dump::Addresses6 => Some(Dump::Routes4),
            Dump::Routes4 => Some(Dump::Routes6),
            Dump::Routes6 => None,
        }
    }

    fn request(self) -> Message {
        let addresses = |family| {
            let mut message = AddressMessage::default();
            message.header.family = family;
            Message::GetAddress(message)
        };
        let routes = |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            message.header.table = RT_TABLE_MAIN;
            Message::GetRoute(message)
        };
        match self {
            Dump::Addresses4 => addresses(AddressFamily::Inet),
            Dump::Addresses6 => addresses(AddressFamily::Inet6),
            Dump::Routes4 => routes(AddressFamily::Inet),
            Dump::Routes6 => routes(AddressFamily::Inet6),
        }
    }
}

/// One thing that was heard.
pub(super) enum Heard {
    /// A message; part of the dump under way, or a change with the flags of its request.
    Message { message: Box<Message>, dumped: bool, flags: u16 },
    /// The end of the dump; false if the kernel's tables changed under it.
    Dumped { whole: bool },
    /// A nexthop object went, and its routes with it.
    NexthopGone,
}

/// What one look at the socket brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Something was read.
    Read,
    /// Nothing is there.
    Empty,
    /// The kernel dropped messages.
    Overflow,
}

/// The socket that hears of changes.
pub(super) struct Listener {
    socket: Socket,
    number: u32,
    sequence: u32,
    interrupted: bool,
    buffer: Vec<u8>,
}

impl Listener {
    /// `receive_bytes` is for tests that want an overflow.
    pub(super) fn open(receive_bytes: Option<i32>) -> io::Result<Listener> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_rx_buf_sz(receive_bytes.unwrap_or(RECEIVE_BYTES))?;
        socket.bind(&SocketAddr::new(0, GROUPS))?;
        // Kernels before 5.3 have no nexthop objects, those before 4.20 no filtered dumps.
        let _ = socket.add_membership(GROUP_NEXTHOP);
        let _ = socket.set_netlink_get_strict_chk(true);
        socket.set_non_blocking(true)?;
        let mut address = SocketAddr::new(0, 0);
        socket.get_address(&mut address)?;
        let number = address.port_number();
        let buffer = Vec::with_capacity(BUFFER);
        Ok(Listener { socket, number, sequence: 0, interrupted: false, buffer })
    }

    /// Starts a dump; one at a time.
    pub(super) fn dump(&mut self, what: Dump) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.interrupted = false;
        send(&self.socket, what.request(), NLM_F_DUMP, self.sequence)
    }

    /// Reads one datagram; returns how many messages it had too.
    ///
    /// # Errors
    /// What `recv` says, except for overflow and emptiness.
    pub(super) fn look(&mut self, mut each: impl FnMut(Heard)) -> io::Result<(Look, usize)> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok((Look::Empty, 0)),
            Err(e) if e.raw_os_error() == Some(ENOBUFS) => return Ok((Look::Overflow, 0)),
            Err(e) if e.kind() == ErrorKind::Interrupted => return Ok((Look::Read, 0)),
            Err(e) => return Err(e),
        }
        let mut count = 0;
        for (raw, bytes) in messages(&self.buffer) {
            count += 1;
            let dumped = raw.sender == self.number && raw.sequence == self.sequence;
            self.interrupted |= dumped && raw.flags & NLM_F_DUMP_INTR != 0;
            match raw.kind {
                NLMSG_DONE if dumped => each(Heard::Dumped { whole: !self.interrupted }),
                NLMSG_ERROR if dumped => {
                    // A family that the kernel was built without, or has no table of.
                    log::debug!("host: dump refused with errno {}", errno(bytes));
                    each(Heard::Dumped { whole: true });
                }
                NLMSG_DONE | NLMSG_ERROR => {}
                RTM_DELNEXTHOP => each(Heard::NexthopGone),
                _ => {
                    if let Some(message) = decode(&raw, bytes) {
                        let message = Box::new(message);
                        each(Heard::Message { message, dumped, flags: raw.flags });
                    }
                }
            }
        }
        Ok((Look::Read, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(length: u32, kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_datagram_is_cut_into_messages_and_never_past_its_end() {
        let mut datagram = raw(18, 7, &[1, 2, 0, 0]);
        datagram.extend(raw(16, NLMSG_DONE, &[]));
        let kinds: Vec<(u16, usize)> =
            messages(&datagram).map(|(raw, bytes)| (raw.kind, bytes.len())).collect();
        assert_eq!(kinds, [(7, 18), (NLMSG_DONE, 16)]);
        for (length, size) in [(15, 16), (17, 16), (u32::MAX, 16), (16, 15)] {
            assert_eq!(messages(&raw(length, 7, &[])[..size]).count(), 0, "{length} {size}");
        }
    }

    #[test]
    fn an_acknowledgement_is_error_zero() {
        assert_eq!(errno(&raw(20, NLMSG_ERROR, &0_i32.to_ne_bytes())), 0);
        assert_eq!(errno(&raw(20, NLMSG_ERROR, &(-17_i32).to_ne_bytes())), 17);
        assert_eq!(errno(&raw(18, NLMSG_ERROR, &[1, 2])), 0);
    }
}
