//! The network of every sequence: one gateway with two ports, scripted hosts on both sides.
//!
//! ```text
//!   C1 C2 C3 C4 ── lan 10.1.0.1/24, fd00:1::1/64      gateway      wan ── S1 S2 S3 S4
//!                                   203.0.113.1/24, 203.0.113.10/24, 2001:db8:20::1/64
//! ```
//!
//! The hosts exist only as addresses with a permanent neighbour entry; each side has one MAC for
//! all of them. There is no default route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A port of the gateway, and the hosts behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Lan,
    Wan,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::Lan, Side::Wan];

    /// The name of the gateway's port, as rules and captures use it.
    pub fn port(self) -> &'static str {
        match self {
            Side::Lan => "lan",
            Side::Wan => "wan",
        }
    }

    pub fn other(self) -> Side {
        match self {
            Side::Lan => Side::Wan,
            Side::Wan => Side::Lan,
        }
    }

    /// The gateway's MAC on this side.
    pub fn gateway_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0x10 + self as u8, 1]
    }

    /// The MAC of all hosts on this side.
    pub fn host_mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0x10 + self as u8, 0x80]
    }

    /// Addresses of the gateway's port with their prefix lengths.
    pub fn addresses(self) -> &'static [&'static str] {
        match self {
            Side::Lan => &["10.1.0.1/24", "fd00:1::1/64"],
            Side::Wan => &["203.0.113.1/24", "203.0.113.10/24", "2001:db8:20::1/64"],
        }
    }

    /// The scripted hosts.
    pub fn hosts(self) -> [IpAddr; 8] {
        match self {
            Side::Lan => [C1, C2, C3, C4, C1_6, C2_6, C3_6, C4_6],
            Side::Wan => [S1, S2, S3, S4, S1_6, S2_6, S3_6, S4_6],
        }
    }

    /// A question for the gateway's address by a host that no script uses. The answer tells that
    /// everything sent before it has been worked off.
    pub fn arp_request(self) -> Vec<u8> {
        let (asker, asked): ([u8; 4], [u8; 4]) = match self {
            Side::Lan => ([10, 1, 0, 250], [10, 1, 0, 1]),
            Side::Wan => ([203, 0, 113, 250], [203, 0, 113, 1]),
        };
        let mut frame = vec![0xff; 6];
        frame.extend_from_slice(&self.host_mac());
        frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend_from_slice(&self.host_mac());
        frame.extend_from_slice(&asker);
        frame.extend_from_slice(&[0; 6]);
        frame.extend_from_slice(&asked);
        frame.resize(60, 0);
        frame
    }

    /// An IP packet from a host of this side as a frame to the gateway.
    pub fn framed(self, packet: &[u8]) -> Vec<u8> {
        let mut frame = self.gateway_mac().to_vec();
        frame.extend_from_slice(&self.host_mac());
        let four = packet.first().is_none_or(|byte| byte >> 4 == 4);
        frame.extend_from_slice(if four { &[0x08, 0x00] } else { &[0x86, 0xdd] });
        frame.extend_from_slice(packet);
        frame
    }
}

const fn four(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn lan6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, host))
}

const fn wan6(host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x20, 0, 0, 0, 0, host))
}

/// The gateway itself.
pub const GATEWAY_LAN: IpAddr = four(10, 1, 0, 1);
pub const GATEWAY_WAN: IpAddr = four(203, 0, 113, 1);
pub const SECOND_WAN: IpAddr = four(203, 0, 113, 10);
pub const GATEWAY_LAN_6: IpAddr = lan6(1);
pub const GATEWAY_WAN_6: IpAddr = wan6(1);

/// Hosts inside.
pub const C1: IpAddr = four(10, 1, 0, 11);
pub const C2: IpAddr = four(10, 1, 0, 12);
pub const C3: IpAddr = four(10, 1, 0, 13);
pub const C4: IpAddr = four(10, 1, 0, 14);
pub const C1_6: IpAddr = lan6(0x11);
pub const C2_6: IpAddr = lan6(0x12);
pub const C3_6: IpAddr = lan6(0x13);
pub const C4_6: IpAddr = lan6(0x14);

/// Hosts outside.
pub const S1: IpAddr = four(203, 0, 113, 51);
pub const S2: IpAddr = four(203, 0, 113, 52);
pub const S3: IpAddr = four(203, 0, 113, 53);
pub const S4: IpAddr = four(203, 0, 113, 54);
pub const S1_6: IpAddr = wan6(0x51);
pub const S2_6: IpAddr = wan6(0x52);
pub const S3_6: IpAddr = wan6(0x53);
pub const S4_6: IpAddr = wan6(0x54);
