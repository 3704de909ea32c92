//! What a rule changes in a packet: bytes in, bytes out, and [`Headers`] that stay true.
//!
//! Each edit is a file of its own, with the kernel's function that it follows. Checksums are
//! adjusted and never computed anew, so a wrong one stays wrong; payload is not read. A packet that
//! an edit cannot be made in ends there, as in the kernel.

pub mod ecn;
pub mod prefix;
pub mod tcp_mss;
pub mod tcp_options;
pub mod tos;
pub mod ttl;

use crate::wire::headers::Headers;

/// An edit, as rules name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// `-j TOS` and `-j DSCP`.
    Tos(tos::SetTos),
    /// `-j TTL` and `-j HL`.
    Ttl(ttl::SetTtl),
    /// `-j ECN`.
    Ecn(ecn::SetEcn),
    /// `-j TCPMSS`.
    Mss(tcp_mss::SetMss),
    /// `-j TCPOPTSTRIP`.
    Strip(tcp_options::StripOptions),
    /// `-j SNPT`.
    SourcePrefix(prefix::Prefixes),
    /// `-j DNPT`.
    DestinationPrefix(prefix::Prefixes),
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// It is as it is to be.
    Done,
    /// It is to be dropped.
    Drop,
    /// It is to be dropped, and its sender told that it cannot go on because of what stands so far
    /// behind the beginning of its IPv6 header (`ICMPV6_PARAMPROB`).
    Problem(u32),
    /// It needs room for one more TCP option behind its end; then [`tcp_mss::insert`] goes on.
    Grow(tcp_mss::MssOption),
}

impl From<Option<()>> for Edited {
    fn from(done: Option<()>) -> Edited {
        if done.is_some() { Edited::Done } else { Edited::Drop }
    }
}

impl Edit {
    /// Edits the packet that lies in `frame`. `path_mtu` is the smallest MTU of its way and of the
    /// way back, as far as it is known.
    pub fn apply(
        &self,
        frame: &mut [u8],
        headers: &mut Headers,
        path_mtu: impl FnOnce() -> u32,
    ) -> Edited {
        match self {
            Edit::Tos(set) => set.apply(frame, headers).into(),
            Edit::Ttl(set) => set.apply(frame, headers).into(),
            Edit::Ecn(set) => set.apply(frame, headers).into(),
            Edit::Mss(set) => set.apply(frame, headers, path_mtu).unwrap_or(Edited::Drop),
            Edit::Strip(options) => options.apply(frame, headers).into(),
            Edit::SourcePrefix(prefixes) => prefixes.apply(frame, headers, prefix::End::Source),
            Edit::DestinationPrefix(prefixes) => {
                prefixes.apply(frame, headers, prefix::End::Destination)
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
