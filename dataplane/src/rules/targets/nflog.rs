//! `-j NFLOG`: a packet for whoever listens to a group.

/// `-j NFLOG` (`struct xt_nflog_info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nflog {
    /// `--nflog-group`.
    pub group: u16,
    /// `--nflog-prefix`, at most [`Nflog::MAX_PREFIX`] bytes.
    pub prefix: String,
    /// `--nflog-size`: bytes of the packet that are passed on; `None` is as many as there are.
    pub size: Option<u32>,
    /// `--nflog-threshold`: packets that the kernel would collect for a listener. Here each goes at
    /// once, and the number is only kept.
    pub threshold: u16,
}

impl Nflog {
    /// Bytes of prefix that are kept (`NF_LOG_PREFIXLEN`, less one).
    pub const MAX_PREFIX: usize = 127;
    /// The level of its lines: a notice.
    pub const LEVEL: u8 = 5;
}
