//! The control core.

pub mod iptables;
