//! The rules a random sequence runs under. They name its addresses, so those of many sequences
//! stand in one file without touching each other.

use super::dice::Dice;
use crate::packets::{ICMP, ICMPV6};
use crate::topology::Side;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

/// What FORWARD does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Tracking is on, nothing is dropped.
    Open,
    /// INVALID is dropped.
    NotInvalid,
    /// New conns from inside only, INVALID dropped.
    Stateful,
    /// New conns from inside only, others are refused.
    Refusing,
}

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    Nothing,
    Masquerade,
    MasqueradeRandom,
    MasqueradePorts,
    /// To the sequence's public address.
    Source,
    SourcePorts,
    /// The public address' port [`PUBLIC_PORT`] leads to a host inside.
    Destination,
    Both,
}

/// What is not tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untracked {
    Nothing,
    /// What comes from the first host inside; its answers are tracked.
    OneWay,
    /// What the first host inside sends and receives.
    BothWays,
}

/// Rules of a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub four: bool,
    pub filter: Filter,
    pub nat: Nat,
    pub untracked: Untracked,
    /// Packets to the gateway itself are dropped.
    pub closed: bool,
}

/// Where a translated service is found, and where it really is.
pub const PUBLIC_PORT: u16 = 8080;
pub const INNER_PORT: u16 = 80;

/// Ports of [`Nat::SourcePorts`] and [`Nat::MasqueradePorts`]: so
/// many that two of a sequence's conns hardly ever get the same.
const RANGE: RangeInclusive<u16> = 40000..=59999;

/// Protocols whose ports are translated to that range.
const PORTED: [&str; 3] = ["tcp", "udp", "sctp"];

impl Policy {
    pub fn draw(dice: &mut Dice) -> Policy {
        let four = dice.percent(70);
        let filter = dice.weighted(&[
            (2, Filter::Open),
            (4, Filter::NotInvalid),
            (4, Filter::Stateful),
            (1, Filter::Refusing),
        ]);
        let nat = dice.weighted(&[
            (6, Nat::Nothing),
            (5, Nat::Masquerade),
            (1, Nat::MasqueradeRandom),
            (1, Nat::MasqueradePorts),
            (2, Nat::Source),
            (1, Nat::SourcePorts),
            (3, Nat::Destination),
            (2, Nat::Both),
        ]);
        let untracked = dice.weighted(&[
            (12, Untracked::Nothing),
            (1, Untracked::OneWay),
            (1, Untracked::BothWays),
        ]);
        Policy { four, filter, nat, untracked, closed: dice.percent(60) }
    }

    /// Whether clients inside appear under another address outside.
    pub fn caller(&self, slot: u8) -> Option<IpAddr> {
        match self.nat {
            Nat::Nothing | Nat::Destination => None,
            Nat::Source | Nat::SourcePorts => Some(public(self.four, slot)),
            _ if self.four => Some(crate::topology::GATEWAY_WAN),
            _ => Some(crate::topology::GATEWAY_WAN_6),
        }
    }

    /// Whether the device may choose a port or id. One that translates destinations does where a
    /// packet to the true address has taken the reply tuple.
    pub fn chooses(&self) -> bool {
        self.nat != Nat::Nothing
    }

    pub fn forwards(&self) -> bool {
        matches!(self.nat, Nat::Destination | Nat::Both)
    }

    /// What a device may choose in place of a source port or id of what leaves on a side.
    pub fn allowed(&self, original: u16, protocol: u8, side: Side) -> RangeInclusive<u16> {
        match (self.nat, original) {
            _ if matches!(protocol, ICMP | ICMPV6) => 0..=u16::MAX,
            (Nat::MasqueradePorts | Nat::SourcePorts, _) if side == Side::Wan => RANGE,
            (_, 0..=511) => 1..=511,
            (_, 512..=1023) => 600..=1023,
            _ => 1024..=u16::MAX,
        }
    }

    /// Adds the sequence's lines to the tables of its family.
    pub fn write(&self, slot: u8, tables: &mut Tables) {
        let (lan, public) = (net(lan(self.four, slot, 0), self.four), public(self.four, slot));
        let chain = format!("s{slot}");
        let _ = writeln!(tables.chains, ":{chain} - [0:0]");
        let _ = writeln!(tables.filter, "-A FORWARD -s {lan} -j {chain}");
        let _ = writeln!(tables.filter, "-A FORWARD -d {lan} -j {chain}");
        for rule in self.filter_rules() {
            let _ = writeln!(tables.filter, "-A {chain} {rule}");
        }
        if self.closed {
            let wan = net(wan(self.four, slot, 0), self.four);
            let _ = writeln!(tables.filter, "-A INPUT -s {wan} -j DROP");
        }
        let ports = format!("{}-{}", RANGE.start(), RANGE.end());
        let source = match self.nat {
            Nat::Nothing | Nat::Destination => vec![],
            Nat::Masquerade | Nat::Both => vec!["-j MASQUERADE".to_owned()],
            Nat::MasqueradeRandom => vec!["-j MASQUERADE --random".to_owned()],
            Nat::MasqueradePorts => PORTED
                .map(|name| format!("-p {name} -j MASQUERADE --to-ports {ports}"))
                .into_iter()
                .chain(["-j MASQUERADE".to_owned()])
                .collect(),
            Nat::Source => vec![format!("-j SNAT --to-source {public}")],
            Nat::SourcePorts => PORTED
                .map(|name| format!("-p {name} -j SNAT --to-source {}:{ports}", host(public)))
                .into_iter()
                .chain([format!("-j SNAT --to-source {public}")])
                .collect(),
        };
        for rule in source {
            let _ = writeln!(tables.nat, "-A POSTROUTING -s {lan} -o wan {rule}");
        }
        let inner = lan_end(self.four, slot);
        if self.forwards() {
            for name in ["tcp", "udp"] {
                let _ = writeln!(
                    tables.nat,
                    "-A PREROUTING -d {public} -p {name} -m {name} --dport {PUBLIC_PORT} \
                     -j DNAT --to-destination {}:{INNER_PORT}",
                    host(inner)
                );
            }
            // Of SCTP, every port.
            let _ = writeln!(
                tables.nat,
                "-A PREROUTING -d {public} -p sctp -j DNAT --to-destination {}:{INNER_PORT}",
                host(inner)
            );
            let _ =
                writeln!(tables.nat, "-A PREROUTING -d {public} -j DNAT --to-destination {inner}");
        }
        if self.untracked != Untracked::Nothing {
            let _ = writeln!(tables.raw, "-A PREROUTING -s {inner} -j CT --notrack");
        }
        if self.untracked == Untracked::BothWays {
            let _ = writeln!(tables.raw, "-A PREROUTING -d {inner} -j CT --notrack");
        }
    }

    fn filter_rules(&self) -> Vec<&'static str> {
        let invalid = "-m conntrack --ctstate INVALID -j DROP";
        let known = "-m conntrack --ctstate RELATED,ESTABLISHED,UNTRACKED -j ACCEPT";
        let inside = "-i lan -m conntrack --ctstate NEW -j ACCEPT";
        let forwarded = "-m conntrack --ctstate DNAT -j ACCEPT";
        let unreachable = match self.four {
            true => "-j REJECT --reject-with icmp-port-unreachable",
            false => "-j REJECT --reject-with icmp6-port-unreachable",
        };
        match self.filter {
            Filter::Open => vec!["-m conntrack --ctstate INVALID -j ACCEPT"],
            Filter::NotInvalid => vec![invalid],
            Filter::Stateful => vec![invalid, known, inside, forwarded, "-j DROP"],
            Filter::Refusing => {
                let reset = "-p tcp -j REJECT --reject-with tcp-reset";
                vec![known, inside, forwarded, reset, unreachable]
            }
        }
    }
}

/// Lines of one family's tables.
#[derive(Default)]
pub struct Tables {
    chains: String,
    raw: String,
    nat: String,
    filter: String,
}

impl Tables {
    /// All lines, by table; those of `filter` open with its chains.
    pub fn lines(&self) -> [(&'static str, String); 3] {
        let filter = self.chains.clone() + &self.filter;
        [("raw", self.raw.clone()), ("nat", self.nat.clone()), ("filter", filter)]
    }
}

fn net(address: IpAddr, four: bool) -> String {
    format!("{address}/{}", if four { 24 } else { 64 })
}

/// An address in front of a port.
fn host(address: IpAddr) -> String {
    if address.is_ipv4() { address.to_string() } else { format!("[{address}]") }
}

/// A sequence's hosts inside.
pub fn lan(four: bool, slot: u8, host: u8) -> IpAddr {
    match four {
        true => Ipv4Addr::new(10, 64, slot, host).into(),
        false => Ipv6Addr::new(0xfd00, 0x64, 0, u16::from(slot), 0, 0, 0, u16::from(host)).into(),
    }
}

/// The host that [`PUBLIC_PORT`] leads to.
pub fn lan_end(four: bool, slot: u8) -> IpAddr {
    lan(four, slot, 1)
}

/// A sequence's hosts outside.
pub fn wan(four: bool, slot: u8, host: u8) -> IpAddr {
    match four {
        true => Ipv4Addr::new(198, 18, slot, host).into(),
        false => {
            Ipv6Addr::new(0x2001, 0xdb8, 0x64, u16::from(slot), 0, 0, 0, u16::from(host)).into()
        }
    }
}

/// An address of its own that a sequence's rules translate from and to.
pub fn public(four: bool, slot: u8) -> IpAddr {
    match four {
        true => Ipv4Addr::new(192, 0, 2, slot).into(),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, u16::from(slot)).into(),
    }
}

/// The slot that an address belongs to.
pub fn slot(address: IpAddr) -> Option<u8> {
    let slot = match address {
        IpAddr::V4(address) => match address.octets() {
            [10, 64, slot, _] | [198, 18, slot, _] | [192, 0, 2, slot] => slot.into(),
            _ => return None,
        },
        IpAddr::V6(address) => match address.segments() {
            [0xfd00, 0x64, 0, slot, ..] | [0x2001, 0xdb8, 0x64, slot, ..] => slot,
            [0x2001, 0xdb8, 0x99, _, _, _, _, slot] => slot,
            _ => return None,
        },
    };
    u8::try_from(slot).ok()
}

/// How the gateway gets to all of them: networks and the neighbours they lie behind.
///
/// Public addresses lie outside: what is not translated goes back where it came from. Without route
/// the kernel would limit its complaints per host, by a setting that namespaces do not have.
pub const ROUTES: [(&str, &str, &str); 6] = [
    ("192.0.2.0/24", "203.0.113.51", "wan"),
    ("2001:db8:99::/48", "2001:db8:20::51", "wan"),
    ("10.64.0.0/16", "10.1.0.11", "lan"),
    ("fd00:64::/32", "fd00:1::11", "lan"),
    ("198.18.0.0/16", "203.0.113.51", "wan"),
    ("2001:db8:64::/48", "2001:db8:20::51", "wan"),
];
