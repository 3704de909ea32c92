//! `-j SYNPROXY` as written (`struct xt_synproxy_info`).

use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// What the gateway may tell a client in a server's stead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synproxy {
    /// See the constants.
    pub options: u8,
    /// `--wscale`: the window scale of the servers.
    pub wscale: u8,
    /// `--mss`: their maximum segment size.
    pub mss: u16,
}

impl Synproxy {
    /// `--mss` was given (`XT_SYNPROXY_OPT_MSS`).
    pub const MSS: u8 = 0x01;
    /// `--wscale` was given.
    pub const WSCALE: u8 = 0x02;
    /// `--sack-perm`.
    pub const SACK_PERM: u8 = 0x04;
    /// `--timestamp`.
    pub const TIMESTAMP: u8 = 0x08;
    /// `--ecn`.
    pub const ECN: u8 = 0x10;

    /// True if these options are among them.
    pub const fn has(&self, options: u8) -> bool {
        self.options & options == options
    }

    /// True for a segment that the target takes: a first SYN, or an ACK that may be the answer to
    /// what it has said to one. The others go on.
    pub const fn takes(tcp_flags: u8) -> bool {
        matches!(tcp_flags & (SYN | ACK | FIN | RST), SYN | ACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::flags::{CWR, ECE, PSH, URG};

    #[test]
    fn a_first_syn_and_a_plain_ack_are_taken() {
        let more = PSH | URG | ECE | CWR;
        assert!([SYN, ACK, SYN | more, ACK | more].into_iter().all(Synproxy::takes));
        let others = [0, more, FIN, FIN | ACK, RST, RST | ACK, SYN | ACK, SYN | FIN];
        assert!(!others.into_iter().any(Synproxy::takes));
    }
}
