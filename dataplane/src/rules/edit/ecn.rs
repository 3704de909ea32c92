//! `-j ECN`: congestion marks of IPv4 and TCP (`ecn_tg`).

use crate::wire::checksum;
use crate::wire::headers::{Headers, protocol};
use crate::wire::{ipv4, tcp};

/// Which marks are set to what; those that are `None` stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetEcn {
    /// `--ecn-ip-ect`: the two bits of the IPv4 header.
    pub ip: Option<u8>,
    /// `--ecn-tcp-ece`.
    pub ece: Option<bool>,
    /// `--ecn-tcp-cwr`.
    pub cwr: Option<bool>,
}

/// The two bits of the TOS byte.
const IP: u8 = 3;
/// Bits of the TCP header's byte 13.
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

impl SetEcn {
    /// True if the TCP header is concerned.
    pub const fn names_tcp(&self) -> bool {
        self.ece.is_some() || self.cwr.is_some()
    }

    pub(super) fn apply(self, frame: &mut [u8], headers: &mut Headers) -> Option<()> {
        if let Some(ip) = self.ip {
            let tos = headers.tos & !IP | ip & IP;
            if tos != headers.tos {
                ipv4::ViewMut::new(frame.get_mut(headers.l3 as usize..)?)?.set_tos(tos);
                headers.tos = tos;
            }
        }
        // A later fragment has no header; the kernel puts datagrams together before its rules.
        if !self.names_tcp() || headers.proto != protocol::TCP || headers.fragment.is_later() {
            return Some(());
        }
        if headers.l4_truncated {
            return None;
        }
        let tcp = tcp::ViewMut::new(frame.get_mut(headers.l4 as usize..)?)?;
        let mut flags = tcp.0[13];
        for (bit, wanted) in [(ECE, self.ece), (CWR, self.cwr)] {
            if let Some(wanted) = wanted {
                flags = flags & !bit | if wanted { bit } else { 0 };
            }
        }
        replace_flags(tcp, flags);
        headers.tcp_flags = flags;
        Some(())
    }
}

fn replace_flags(mut tcp: tcp::ViewMut<'_>, flags: u8) {
    let [offset, old] = [tcp.0[12], tcp.0[13]];
    let [from, to] = [old, flags].map(|flags| u16::from_be_bytes([offset, flags]));
    if from != to {
        tcp.0[13] = flags;
        tcp.adjust_check(checksum::delta16(from, to));
    }
}
