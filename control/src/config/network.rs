//! `[[port]]`, `[[route]]` and `[[neighbour]]`: the gateway's place in the network.
//!
//! Ports keep the order of the file; routes and neighbours name them by index.

use std::net::IpAddr;

use dataplane::wire::address::Address;
use ipnet::IpNet;

use super::reader::{ConfigError, Section, Value};
use super::vlan::{self, Stated, Vlan};

/// The longest port name: a Linux interface name (`IFNAMSIZ` less the final zero).
pub const PORT_NAME_MAX: usize = 15;

/// The most ports, sub-interfaces among them.
pub const PORTS_MAX: usize = 128;

/// The most ports with a device: what DPDK is built for (`RTE_MAX_ETHPORTS`).
pub const DEVICES_MAX: usize = 32;

/// The MTU of a port that names none.
pub const MTU_DEFAULT: u16 = 1500;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefixed {
    /// The address; of a route, the network.
    pub address: Address,
    /// Bits, 0 to 32 or 128.
    pub prefix: u8,
}

impl Prefixed {
    /// Whether an address lies in this network.
    pub fn contains(&self, other: Address) -> bool {
        let (width, upper) = if self.address.is_v4() { (32, !0 << 32) } else { (128, 0) };
        let host = width - u32::from(self.prefix);
        let mask = u128::MAX.checked_shl(host).unwrap_or(0) | upper;
        let same_family = self.address.is_v4() == other.is_v4();
        same_family && (self.address.bits() ^ other.bits()) & mask == 0
    }
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The interface name that rules use.
    pub name: String,
    /// A vdev string or a PCI address; empty for a sub-interface, which has no device.
    pub device: String,
    /// Of which port it is a sub-interface, if it is one.
    pub vlan: Option<Vlan>,
    /// The address used on the wire; `None` for the device's own.
    pub mac: Option<[u8; 6]>,
    /// Its addresses, each once in the whole file.
    pub addresses: Vec<Prefixed>,
    /// In bytes, without the Ethernet header.
    pub mtu: u16,
    /// Receive queues; `None` for one per worker, as far as the device has them.
    pub rx_queues: Option<u16>,
    /// Transmit queues; likewise.
    pub tx_queues: Option<u16>,
    /// Descriptors of each receive queue.
    pub rx_descriptors: u16,
    /// Descriptors of each transmit queue.
    pub tx_descriptors: u16,
    /// Whether it takes frames for other MAC addresses.
    pub promiscuous: bool,
    /// The kernel interface by which the box itself is reached through this port.
    pub host_tap: Option<String>,
}

/// One static route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destinations; host bits are 0.
    pub to: Prefixed,
    /// The next hop; `None` where destinations are neighbours.
    pub via: Option<Address>,
    /// Index of the port.
    pub port: usize,
}

/// One static neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address, in a network of the port.
    pub address: Address,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Index of the port.
    pub port: usize,
}

impl Port {
    /// Whether DPDK has a device for it.
    pub fn has_device(&self) -> bool {
        self.vlan.is_none()
    }
}

/// Reads `[[port]]`.
pub(super) fn ports(sections: &[Section<'_>]) -> Result<Vec<Port>, ConfigError> {
    let stated: Vec<Stated<'_>> = sections.iter().map(Stated::read).collect::<Result<_, _>>()?;
    let mut ports: Vec<Port> = Vec::new();
    for (number, section) in sections.iter().enumerate() {
        let port = port(section, number, &stated, &ports)?;
        vlan::judge(section, &port, &ports)?;
        ports.push(port);
        let devices = ports.iter().filter(|p| p.has_device()).count();
        let taps = ports.iter().filter(|p| p.host_tap.is_some()).count();
        for (count, most, what) in [
            (ports.len() + taps, PORTS_MAX, "ports and taps"),
            (devices + taps, DEVICES_MAX, "devices and taps"),
        ] {
            if count > most {
                let message = format!("more than {most} {what} are not supported");
                return Err(section.source.error(section.span.clone(), message));
            }
        }
    }
    // Only now is it known what each parent has.
    for (number, section) in sections.iter().enumerate() {
        if let Some(Vlan { parent, .. }) = ports[number].vlan {
            let parent = ports[parent].clone();
            vlan::inherit(section, &mut ports[number], &parent)?;
        }
    }
    Ok(ports)
}

fn port(
    section: &Section<'_>,
    number: usize,
    stated: &[Stated<'_>],
    others: &[Port],
) -> Result<Port, ConfigError> {
    let name = port_name(section, others)?;
    let vlan = vlan::vlan(section, number, stated)?;
    let device = match vlan {
        None => device(section, others)?,
        Some(_) => {
            vlan::refuse_device_keys(section)?;
            ""
        }
    };
    let mac = mac(section)?;
    let mut addresses: Vec<Prefixed> = Vec::new();
    for (text, value) in section.texts("addresses")? {
        let address = own_address(section, text, value)?;
        let taken = others.iter().flat_map(|p| &p.addresses).chain(&addresses);
        if taken.into_iter().any(|a| a.address == address.address) {
            return Err(section.wrong("addresses", value, "is given twice"));
        }
        addresses.push(address);
    }
    let has_v6 = addresses.iter().any(|a| !a.address.is_v4());
    // RFC 8200, section 5: every link of IPv6 carries 1280 bytes.
    let mtu_min = if has_v6 { 1280 } else { 68 };
    let mtu = section.number("mtu", mtu_min, 9600)?.map_or(MTU_DEFAULT, |(n, _)| n as u16);
    let queues = |key| Ok(section.number(key, 1, 256)?.map(|(number, _)| number as u16));
    let descriptors =
        |key| Ok(section.number(key, 64, 32_768)?.map_or(1024, |(number, _)| number as u16));
    let port = Port {
        name,
        device: device.to_owned(),
        vlan,
        mac,
        addresses,
        mtu,
        rx_queues: queues("rx_queues")?,
        tx_queues: queues("tx_queues")?,
        rx_descriptors: descriptors("rx_descriptors")?,
        tx_descriptors: descriptors("tx_descriptors")?,
        promiscuous: section.flag("promiscuous", false)?,
        host_tap: host_tap(section, device, others)?,
    };
    section.finish(&[])?;
    Ok(port)
}

/// The key `device` of a port that has one.
fn device<'a>(section: &Section<'a>, others: &[Port]) -> Result<&'a str, ConfigError> {
    let (device, value) = section.text("device")?.ok_or_else(|| section.missing("device"))?;
    if device.is_empty() || device.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(section.wrong("device", value, "must be a vdev or a PCI address"));
    }
    if others.iter().any(|p| p.device == device) {
        return Err(section.wrong("device", value, "is the device of another port"));
    }
    let taken = |p: &Port| p.host_tap.is_some() && p.host_tap.as_deref() == interface(device);
    if others.iter().any(taken) {
        return Err(section.wrong("device", value, "has the interface that is a host_tap"));
    }
    Ok(device)
}

/// The kernel interface of a vdev, such as `sg-lan` of `net_tap0,iface=sg-lan`.
fn interface(device: &str) -> Option<&str> {
    device.split(',').skip(1).find_map(|argument| argument.strip_prefix("iface="))
}

/// The key `host_tap`: a name that Linux takes (`dev_valid_name`) and a device argument can carry,
/// and that nobody else has.
fn host_tap(
    section: &Section<'_>,
    device: &str,
    others: &[Port],
) -> Result<Option<String>, ConfigError> {
    let Some((name, value)) = section.text("host_tap")? else { return Ok(None) };
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut devices = others.iter().map(|p| p.device.as_str()).chain([device]);
    let what = if name.is_empty() || name.len() > PORT_NAME_MAX {
        format!("must have 1 to {PORT_NAME_MAX} characters")
    } else if !name.chars().all(good) || name.starts_with('-') || matches!(name, "." | "..") {
        "may have letters, digits and . _ -, and must not begin with -".to_owned()
    } else if matches!(name, "lo" | "all" | "default") {
        "is a name that Linux uses itself".to_owned()
    } else if others.iter().any(|p| p.host_tap.as_deref() == Some(name)) {
        "is the host_tap of another port".to_owned()
    } else if devices.any(|device| interface(device) == Some(name)) {
        "is the interface of a port's own device".to_owned()
    } else {
        return Ok(Some(name.to_owned()));
    };
    Err(section.wrong("host_tap", value, what))
}

/// A name that Linux would give an interface and that a rule can spell.
fn port_name(section: &Section<'_>, others: &[Port]) -> Result<String, ConfigError> {
    let (name, value) = section.text("name")?.ok_or_else(|| section.missing("name"))?;
    let good = |c: char| c.is_ascii_alphanumeric() || "._-@:".contains(c);
    let what = if name.is_empty() || name.len() > PORT_NAME_MAX {
        format!("must have 1 to {PORT_NAME_MAX} characters")
    } else if !name.chars().all(good) || name.starts_with('-') || matches!(name, "." | "..") {
        "may have letters, digits and . _ - @ :, and must not begin with -".to_owned()
    } else if name == "lo" {
        "is the name of the gateway's own loopback".to_owned()
    } else if others.iter().any(|p| p.name == name) {
        "is the name of another port".to_owned()
    } else {
        return Ok(name.to_owned());
    };
    Err(section.wrong("name", value, what))
}

fn own_address(
    section: &Section<'_>,
    text: &str,
    value: Value<'_>,
) -> Result<Prefixed, ConfigError> {
    let complain = |what: &str| {
        let name = &section.name;
        section.source.error(value.span(), format_args!("{name} addresses: {text:?} {what}"))
    };
    let (ip, _) = text.split_once('/').ok_or_else(|| complain("lacks a prefix, such as /24"))?;
    let net: IpNet = text.parse().map_err(|_| complain("must be like 192.0.2.1/24"))?;
    let ip: IpAddr = ip.parse().map_err(|_| complain("must be like 192.0.2.1/24"))?;
    let v4_ends = match net {
        IpNet::V4(net) => {
            net.prefix_len() < 31 && (net.addr() == net.network() || net.addr() == net.broadcast())
        }
        IpNet::V6(_) => false,
    };
    let mapped = matches!(ip, IpAddr::V6(a) if a.to_ipv4_mapped().is_some());
    let broadcast = matches!(ip, IpAddr::V4(a) if a.is_broadcast());
    if ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() || broadcast || mapped {
        return Err(complain("is not a unicast address"));
    }
    if v4_ends {
        return Err(complain("is the first or last address of its network"));
    }
    Ok(Prefixed { address: ip.into(), prefix: net.prefix_len() })
}

/// The key `mac`: six hexadecimal bytes, not a group address (IEEE 802, the first bit).
pub(super) fn mac(section: &Section<'_>) -> Result<Option<[u8; 6]>, ConfigError> {
    let Some((text, value)) = section.text("mac")? else { return Ok(None) };
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|b| if b.len() == 2 { u8::from_str_radix(b, 16).ok() } else { None })
        .collect();
    let Some(mac) = bytes.and_then(|b| <[u8; 6]>::try_from(b).ok()) else {
        return Err(section.wrong("mac", value, "must be like 02:00:00:00:10:01"));
    };
    if mac[0] & 1 != 0 || mac == [0; 6] {
        return Err(section.wrong("mac", value, "must be a unicast address"));
    }
    Ok(Some(mac))
}

/// The key `port`: the index of the port it names.
fn port_index(section: &Section<'_>, ports: &[Port]) -> Result<usize, ConfigError> {
    let (name, value) = section.text("port")?.ok_or_else(|| section.missing("port"))?;
    ports.iter().position(|p| p.name == name).ok_or_else(|| {
        let names: Vec<&str> = ports.iter().map(|p| p.name.as_str()).collect();
        let what = format!("no such port; there are {}", names.join(", "));
        section.wrong("port", value, what)
    })
}

/// An address that must lie in a network of the port and not be the port's own.
fn neighbouring(
    section: &Section<'_>,
    key: &str,
    port: &Port,
    (text, value): (&str, Value<'_>),
) -> Result<Address, ConfigError> {
    let complain = |what: &str| {
        let name = &section.name;
        section.source.error(value.span(), format_args!("{name} {key} = {text:?}: {what}"))
    };
    let ip: IpAddr = text.parse().map_err(|_| complain("must be an address"))?;
    let address = Address::from(ip);
    if ip.is_multicast() || ip.is_unspecified() {
        return Err(complain("is not a unicast address"));
    }
    if port.addresses.iter().any(|a| a.address == address) {
        return Err(complain("is the gateway's own address"));
    }
    // fe80::/10 is on every link (RFC 4291, section 2.5.6).
    let link_local = matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
    if !link_local && !port.addresses.iter().any(|a| a.contains(address)) {
        let name = &port.name;
        return Err(complain(&format!("is in no network of port {name:?}")));
    }
    Ok(address)
}

/// Reads `[[route]]`.
pub(super) fn routes(sections: &[Section<'_>], ports: &[Port]) -> Result<Vec<Route>, ConfigError> {
    let mut routes: Vec<Route> = Vec::new();
    for section in sections {
        let (text, value) = section.text("to")?.ok_or_else(|| section.missing("to"))?;
        let bad = || section.wrong("to", value, "must be a network like 198.51.100.0/24");
        let net: IpNet = text.parse().map_err(|_| bad())?;
        if net.addr() != net.network() {
            let what = format!("has host bits; the network is {}", net.trunc());
            return Err(section.wrong("to", value, what));
        }
        let to = Prefixed { address: net.addr().into(), prefix: net.prefix_len() };
        if routes.iter().any(|r| r.to == to) {
            return Err(section.wrong("to", value, "has a route already"));
        }
        let port = port_index(section, ports)?;
        let via = match section.text("via")? {
            None => None,
            Some(via) => {
                let address = neighbouring(section, "via", &ports[port], via)?;
                if address.is_v4() != to.address.is_v4() {
                    return Err(section.wrong("via", via.1, "is of another family than \"to\""));
                }
                Some(address)
            }
        };
        section.finish(&[])?;
        routes.push(Route { to, via, port });
    }
    Ok(routes)
}

/// Reads `[[neighbour]]`.
pub(super) fn neighbours(
    sections: &[Section<'_>],
    ports: &[Port],
) -> Result<Vec<Neighbour>, ConfigError> {
    let mut neighbours: Vec<Neighbour> = Vec::new();
    for section in sections {
        let port = port_index(section, ports)?;
        let found = section.text("address")?.ok_or_else(|| section.missing("address"))?;
        let address = neighbouring(section, "address", &ports[port], found)?;
        if neighbours.iter().any(|n| n.port == port && n.address == address) {
            return Err(section.wrong("address", found.1, "is given twice"));
        }
        let mac = mac(section)?.ok_or_else(|| section.missing("mac"))?;
        section.finish(&[])?;
        neighbours.push(Neighbour { address, mac, port });
    }
    Ok(neighbours)
}
