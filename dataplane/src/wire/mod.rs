//! Bytes on the wire: one file per protocol with a checked view, plus checksums and builders.

pub mod address;
pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod headers;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod ndp;
pub mod quoted;
pub mod tcp;
pub mod udp;
pub mod vlan;
