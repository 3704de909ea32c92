//! What a NAT rule asks for (`struct nf_nat_range2`).

use crate::wire::address::Address;

/// Which end of the original tuple is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manip {
    /// The source (SNAT, MASQUERADE): decided in POSTROUTING and INPUT.
    Src,
    /// The destination (DNAT, REDIRECT): decided in PREROUTING and OUTPUT.
    Dst,
}

/// Addresses and ports that a translation may use; both ends are inclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Lowest and highest address, of one family; `None` keeps the packet's own.
    pub addresses: Option<(Address, Address)>,
    /// Lowest and highest port, or ICMP identifier; `None` leaves it to the kernel's classes.
    pub ports: Option<(u16, u16)>,
    /// `--to-destination a:p1-p2/base`: the port keeps its distance from `base`
    /// (`NF_NAT_RANGE_PROTO_OFFSET`).
    pub base_port: Option<u16>,
    /// `--random` and `--random-fully`, which are the same since Linux 5.0.
    pub random: bool,
    /// `--persistent`: the address is chosen by the source alone.
    pub persistent: bool,
}
