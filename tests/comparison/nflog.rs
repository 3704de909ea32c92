//! What the kernel says through `nf_log`: a netlink socket that gets the prefix of each line.
//!
//! `log_invalid` writes by whatever logger a namespace has bound to the family. Bound to
//! `nfnetlink_log`, the lines of this namespace alone come here, and none to the machine's log.

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
/// `NFULNL_COPY_META`.
const COPY_META: u8 = 1;
/// `NFULA_PREFIX`.
const PREFIX: u16 = 10;

/// The lines of a namespace.
pub struct NfLog {
    socket: OwnedFd,
}

impl NfLog {
    /// Listens to group 0, where lines go for which no rule names one. Runs on a thread of its own,
    /// as it changes the thread's namespace.
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
        log.configure(COMMAND, &[BIND]);
        log.configure(MODE, &[0, 0, 0, 0, COPY_META, 0]);
        // Each line at once, not a second later or with a hundred others.
        log.configure(THRESHOLD, &1u32.to_be_bytes());
        log
    }

    fn configure(&self, attribute: u16, value: &[u8]) {
        let padded = value.len().next_multiple_of(4);
        let mut message = Vec::new();
        message.extend((HEADERS as u32 + 4 + padded as u32).to_ne_bytes());
        message.extend(CONFIGURE.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        // Sequence number, sender; family, version, group 0.
        message.extend([0; 12]);
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(attribute.to_ne_bytes());
        message.extend(value);
        message.resize(HEADERS + 4 + padded, 0);
        let kernel = NetlinkAddr::new(0, 0);
        let sent = socket::sendto(self.socket.as_raw_fd(), &message, &kernel, MsgFlags::empty());
        assert_eq!(sent, Ok(message.len()), "the kernel takes a log configuration");
    }

    /// The prefixes of all lines since the last time, without their trailing blank.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut buffer = vec![0; 65536];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(length) => messages(&buffer[..length], &mut lines),
                Err(Errno::EAGAIN) => return lines,
                Err(error) => panic!("receiving log lines: {error}"),
            }
        }
    }
}

fn messages(mut bytes: &[u8], lines: &mut Vec<String>) {
    while let Some((message, rest)) =
        element(bytes, |b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    {
        bytes = rest;
        let mut attributes = message.get(HEADERS..).unwrap_or_default();
        let ours = message.get(4..6) == Some(&SUBSYSTEM.to_ne_bytes());
        while let Some((attribute, rest)) =
            element(attributes, |b| u16::from_ne_bytes([b[0], b[1]]).into()).filter(|_| ours)
        {
            attributes = rest;
            if attribute.get(2..4) == Some(&PREFIX.to_ne_bytes()) {
                let text = String::from_utf8_lossy(&attribute[4..]);
                lines.push(text.trim_end_matches('\0').trim_end().to_owned());
            }
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
    fn prefixes_are_found_in_messages() {
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
        let mut stream = message(SUBSYSTEM, &attributes.concat());
        stream.extend(message(2, &attribute(PREFIX, b"of another subsystem\0")));
        stream.extend(message(SUBSYSTEM, &attribute(PREFIX, b"y \0")));
        let mut lines = Vec::new();
        messages(&stream, &mut lines);
        assert_eq!(lines, ["nf_ct_proto_6: x", "y"]);
    }
}
