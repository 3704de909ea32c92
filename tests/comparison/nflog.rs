//! What the kernel says through `nf_log`: a netlink socket that gets each line's prefix and packet.
//!
//! `log_invalid` writes by whatever logger a namespace has bound to the family. Bound to
//! `nfnetlink_log`, the lines of this namespace alone come here, and none to the machine's log.
//! They have group 0; the groups behind it are for rules with `-j NFLOG`.

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// `NFNL_SUBSYS_ULOG` in a message type.
const SUBSYSTEM: u16 = 4 << 8;
/// `NFULNL_MSG_CONFIG`.
const CONFIGURE: u16 = SUBSYSTEM | 1;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// Bytes before the attributes: `nlmsghdr` and `nfgenmsg`.
const HEADERS: usize = 20;

/// `NFULA_CFG_CMD`, `NFULA_CFG_MODE` and `NFULA_CFG_QTHRESH`.
const COMMAND: u16 = 1;
const MODE: u16 = 2;
const THRESHOLD: u16 = 5;
/// `NFULNL_CFG_CMD_BIND`.
const BIND: u8 = 1;
/// `NFULNL_COPY_PACKET`.
const COPY_PACKET: u8 = 2;
/// Bytes of a packet that are told, from its IP header on.
const PACKET_BYTES: u32 = 256;

/// `NFULA_MARK`, `NFULA_IFINDEX_INDEV`, `NFULA_IFINDEX_OUTDEV`, `NFULA_PAYLOAD`, `NFULA_PREFIX` and
/// `NFULA_HWHEADER`.
const MARK: u16 = 2;
const INPUT: u16 = 4;
const OUTPUT: u16 = 5;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;
const LINK_HEADER: u16 = 16;

/// Groups that are listened to.
pub const GROUPS: u16 = 4;

/// A packet that was logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub group: u16,
    pub prefix: String,
    pub mark: u32,
    /// Indices of the interfaces it came in by and goes out by, 0 for none.
    pub input: u32,
    pub output: u32,
    /// The header of the wire it came from, empty where the gateway itself made the packet.
    pub link_header: Vec<u8>,
    /// The packet's first bytes, from its IP header on.
    pub packet: Vec<u8>,
}

/// The lines of a namespace.
pub struct NfLog {
    socket: OwnedFd,
}

impl NfLog {
    /// Listens to the first [`GROUPS`]. Runs on a thread of its own, as it changes the thread's
    /// namespace.
    pub fn open(namespace: &str) -> NfLog {
        let file = File::open(namespace).expect("the namespace exists");
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
        let socket = socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .expect("root may open a netlink socket");
        socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).expect("the socket binds");
        let log = NfLog { socket };
        for group in 0..GROUPS {
            log.configure(group, COMMAND, &[BIND]);
            let [a, b, c, d] = PACKET_BYTES.to_be_bytes();
            log.configure(group, MODE, &[a, b, c, d, COPY_PACKET, 0]);
            // Each line at once, not a second later or with a hundred others.
            log.configure(group, THRESHOLD, &1u32.to_be_bytes());
        }
        log
    }

    fn configure(&self, group: u16, attribute: u16, value: &[u8]) {
        let padded = value.len().next_multiple_of(4);
        let mut message = Vec::new();
        message.extend((HEADERS as u32 + 4 + padded as u32).to_ne_bytes());
        message.extend(CONFIGURE.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        // Sequence number, sender; family, version, group.
        message.extend([0; 10]);
        message.extend(group.to_be_bytes());
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(value);
        message.resize(HEADERS + 4 + padded, 0);
        let kernel = NetlinkAddr::new(0, 0);
        let sent = socket::sendto(self.socket.as_raw_fd(), &message, &kernel, MsgFlags::empty());
        assert_eq!(sent, Ok(message.len()), "the kernel takes a log configuration");
    }

    /// What tracking said since the last time: the prefixes of group 0, without their trailing
    /// blank.
    pub fn lines(&self) -> Vec<String> {
        let messages = self.messages().into_iter().filter(|message| message.group == 0);
        messages.map(|message| message.prefix.trim_end().to_owned()).collect()
    }

    /// All that was logged since the last time, in order.
    pub fn messages(&self) -> Vec<Message> {
        let mut found = Vec::new();
        let mut buffer = vec![0; 65536];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => messages(&buffer[..length], &mut found),
                Err(Errno::EAGAIN) => return found,
                Err(error) => panic!("receiving log lines: {error}"),
            }
        }
    }
}

fn messages(mut bytes: &[u8], found: &mut Vec<Message>) {
    while let Some((message, rest)) =
        element(bytes, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    {
        bytes = rest;
        if message.get(4..6) != Some(&SUBSYSTEM.to_ne_bytes()) {
            continue;
        }
        let Some((headers, mut attributes)) = message.split_first_chunk::<HEADERS>() else {
            continue;
        };
        let group = u16::from_be_bytes([headers[18], headers[19]]);
        let mut made = Message { group, ..Message::default() };
        while let Some((attribute, rest)) =
            element(attributes, |b| u16::from_ne_bytes([b[0], b[1]]).into())
        {
            attributes = rest;
            made.take(u16::from_ne_bytes([attribute[2], attribute[3]]), &attribute[4..]);
        }
        found.push(made);
    }
}

impl Message {
    fn take(&mut self, kind: u16, value: &[u8]) {
        let number = || value.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        match kind {
            MARK => self.mark = number(),
            INPUT => self.input = number(),
            OUTPUT => self.output = number(),
            PAYLOAD => self.packet = value.to_vec(),
            LINK_HEADER => self.link_header = value.to_vec(),
            PREFIX => {
                let text = String::from_utf8_lossy(value);
                self.prefix = text.trim_end_matches('\0').to_owned();
            }
            _ => {}
        }
    }
}

/// The first element of a list whose elements begin with their length and are padded to four bytes.
fn element(bytes: &[u8], length: impl Fn(&[u8]) -> u32) -> Option<(&[u8], &[u8])> {
    let length = length(bytes.get(..4)?) as usize;
    let element = bytes.get(..length).filter(|e| e.len() >= 4)?;
    Some((element, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_packets_are_found_in_messages() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let message = |kind: u16, attributes: &[u8]| {
            let mut bytes = (HEADERS as u32 + attributes.len() as u32).to_ne_bytes().to_vec();
            bytes.extend(kind.to_ne_bytes());
            bytes.resize(HEADERS, 0);
            bytes.extend(attributes);
            bytes
        };
        let attributes = [attribute(1, &[1, 2, 3]), attribute(PREFIX, b"nf_ct_proto_6: x \0")];
        let more = [attribute(MARK, &[0, 0, 1, 2]), attribute(PAYLOAD, &[0x45, 0, 0, 30, 1])];
        let attributes = [attributes, more].concat();
        let mut stream = message(SUBSYSTEM, &attributes.concat());
        stream.extend(message(2, &attribute(PREFIX, b"of another subsystem\0")));
        stream.extend(message(SUBSYSTEM, &attribute(PREFIX, b"y \0")));
        let mut found = Vec::new();
        messages(&stream, &mut found);
        let prefixes: Vec<&str> = found.iter().map(|message| message.prefix.as_str()).collect();
        assert_eq!(prefixes, ["nf_ct_proto_6: x ", "y "]);
        assert_eq!((found[0].mark, found[0].packet.len(), found[0].group), (0x102, 5, 0));
    }
}
