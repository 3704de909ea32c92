//! Bytes on the wire: one file per protocol with a checked view, plus checksums and builders.

pub mod address;
pub mod checksum;
pub mod ethernet;
pub mod headers;
pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod vlan;
