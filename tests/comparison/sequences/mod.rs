//! The sequences, in groups that share most of their rules.

mod expect;
mod fragments;
mod gateway;
mod gre;
mod icmp;
mod ipv6;
mod nat;
mod protocols;
mod rules;
mod sctp;
mod synproxy;
mod targets;
mod tcp;
mod template;
mod tracker;
mod udp;
mod windows;

use crate::packets::{Packet, tcp};
use crate::script::{Script, Sequence, Setup};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Ports that may stand for one of 1024 or above.
pub const HIGH: RangeInclusive<u16> = 1024..=65535;

/// A group and its sequences.
pub type Group = fn() -> Vec<Sequence>;

pub use expect::group as expect;
pub use fragments::{group as fragments, identified_part};
pub use gateway::group as gateway;
pub use gre::group as gre;
pub use icmp::group as icmp;
pub use ipv6::group as ipv6;
pub use nat::group as nat;
pub use protocols::group as protocols;
pub use rules::group as rules;
pub use sctp::group as sctp;
pub use synproxy::group as synproxy;
pub use targets::group as targets;
pub use tcp::group as tcp_states;
pub use template::group as template;
pub use tracker::group as tcp_tracker;
pub use udp::group as udp;
pub use windows::group as tcp_windows;

/// The chains of each table.
const CHAINS: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

/// New connections from inside only, invalid packets dropped.
const STATEFUL: &str = "-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan -m conntrack --ctstate NEW -j ACCEPT
-A FORWARD -j DROP
";

/// Everything that is not invalid.
const NOT_INVALID: &str = "-A FORWARD -m conntrack --ctstate INVALID -j DROP\n";

/// Tracking is on, nothing is dropped.
const OPEN: &str = "-A FORWARD -m conntrack --ctstate INVALID -j ACCEPT\n";

const MASQUERADE: &str = "-A POSTROUTING -o wan -j MASQUERADE\n";

/// iptables-save text; `rules` are pairs of table and lines. Lines may begin with declarations of
/// user chains and of built-in chains with another policy.
pub fn tables(rules: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (table, chains) in CHAINS {
        text.push_str(&format!("*{table}\n"));
        let lines = rules.iter().find(|(of, _)| *of == table).map_or("", |(_, lines)| lines);
        for chain in chains.iter().filter(|chain| !lines.contains(&format!(":{chain} "))) {
            text.push_str(&format!(":{chain} ACCEPT [0:0]\n"));
        }
        text.push_str(lines);
        text.push_str("COMMIT\n");
    }
    text
}

/// The same rules for both families.
fn both(rules: &[(&str, &str)]) -> Setup {
    Setup { rules4: tables(rules), rules6: tables(rules), settings: &[], wan_mtu: 1500 }
}

/// Rules for IPv4; IPv6 is forwarded statefully.
fn only4(rules: &[(&str, &str)]) -> Setup {
    let rules6 = tables(&[("filter", STATEFUL)]);
    Setup { rules4: tables(rules), rules6, settings: &[], wan_mtu: 1500 }
}

fn sequence(
    name: &'static str,
    shows: &'static str,
    setup: Setup,
    script: fn(&mut Script<'_>),
) -> Sequence {
    Sequence { name, shows, setup, script }
}

/// Both ends of a TCP connection as their hosts see it; they differ where the gateway translates.
#[derive(Clone, Copy)]
struct Ends {
    /// The client, and the server as the client addresses it.
    client: (IpAddr, u16),
    called: (IpAddr, u16),
    /// The server, and the client as the server sees it.
    server: (IpAddr, u16),
    caller: (IpAddr, u16),
}

/// Initial sequence numbers: the next byte of the client is 1001, of the server 5001.
const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;

impl Ends {
    /// A connection that is not translated.
    fn plain(client: (IpAddr, u16), server: (IpAddr, u16)) -> Ends {
        Ends { client, called: server, server, caller: client }
    }

    /// A segment of the client.
    fn c(&self, flags: &str, sequence: u32, acknowledgement: u32) -> Packet {
        tcp(self.client, self.called, flags, sequence, acknowledgement)
    }

    /// A segment of the server.
    fn s(&self, flags: &str, sequence: u32, acknowledgement: u32) -> Packet {
        tcp(self.server, self.caller, flags, sequence, acknowledgement)
    }

    /// The handshake, client inside.
    fn open(&self, script: &mut Script<'_>) {
        script.lan(self.c("S", CLIENT_ISN, 0));
        script.wan(self.s("SA", SERVER_ISN, CLIENT_ISN + 1));
        script.lan(self.c("A", CLIENT_ISN + 1, SERVER_ISN + 1));
    }
}
