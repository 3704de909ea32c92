//! VLAN sub-interfaces among the `[[port]]` tables: which port is one, of whom, and what it takes
//! from its parent.
//!
//! A port without `device` is a sub-interface if its name is another port's, a dot and an id, as
//! Linux names them. Under any other name the key `vlan` gives the id and `device` the parent, by
//! its name or as its device. The parent may come later in the file; it has a device itself.

use super::network::{Port, mac};
use super::reader::{ConfigError, Section, Value};

/// Of which port a port is the sub-interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Index of the port whose frames carry the id.
    pub parent: usize,
    /// 1 to 4094.
    pub id: u16,
}

/// Ids of IEEE 802.1Q: 0 is no VLAN, 4095 is reserved.
const IDS: std::ops::RangeInclusive<u64> = 1..=4094;

/// Keys of the device, which only the parent has.
const DEVICE_KEYS: &[&str] =
    &["rx_queues", "tx_queues", "rx_descriptors", "tx_descriptors", "promiscuous"];

/// What a `[[port]]` says about names before any of them is judged.
pub(super) struct Stated<'a> {
    name: Option<(&'a str, Value<'a>)>,
    device: Option<(&'a str, Value<'a>)>,
    id: Option<(u64, Value<'a>)>,
}

impl<'a> Stated<'a> {
    pub(super) fn read(section: &Section<'a>) -> Result<Stated<'a>, ConfigError> {
        Ok(Stated {
            name: section.text("name")?,
            device: section.text("device")?,
            id: section.number("vlan", *IDS.start(), *IDS.end())?,
        })
    }

    fn is_named(&self, name: &str) -> bool {
        self.name.is_some_and(|(own, _)| own == name)
    }

    /// The name before the last dot and what follows it.
    fn dotted(&self) -> Option<(&'a str, &'a str)> {
        self.name?.0.rsplit_once('.')
    }
}

/// Whether the `number`th port is a sub-interface, and of whom.
pub(super) fn vlan(
    section: &Section<'_>,
    number: usize,
    all: &[Stated<'_>],
) -> Result<Option<Vlan>, ConfigError> {
    let own = &all[number];
    let Some((parent, place)) = parent(section, number, all)? else { return Ok(None) };
    let other = &all[parent];
    let name = other.name.map_or("", |(name, _)| name);
    let of_others = |d: &str| all.iter().any(|s| !std::ptr::eq(s, other) && s.is_named(d));
    if other.id.is_some() || other.device.is_none_or(|(device, _)| of_others(device)) {
        let what = format!("the port {name:?} is a sub-interface itself");
        return Err(section.wrong(place.0, place.1, what));
    }
    let named = match own.dotted().filter(|(before, _)| *before == name) {
        None => None,
        Some((_, after)) => {
            let id = after.parse::<u64>().ok().filter(|id| IDS.contains(id));
            let (_, value) = own.name.ok_or_else(|| section.missing("name"))?;
            let what = format!("what follows \"{name}.\" is no VLAN id from 1 to 4094");
            Some(id.ok_or_else(|| section.wrong("name", value, what))?)
        }
    };
    let id = match (own.id, named) {
        (Some((id, value)), Some(named)) if id != named => {
            return Err(section.wrong("vlan", value, format_args!("the name says {named}")));
        }
        (Some((id, _)), _) => id,
        (None, Some(named)) => named,
        (None, None) => {
            let what = "is another port: its sub-interface needs the key \"vlan\"";
            return Err(section.wrong(place.0, place.1, what));
        }
    };
    Ok(Some(Vlan { parent, id: id as u16 }))
}

/// The port that the `number`th one refers to, and by which key.
#[allow(clippy::type_complexity)]
fn parent<'a>(
    section: &Section<'a>,
    number: usize,
    all: &[Stated<'a>],
) -> Result<Option<(usize, (&'static str, Value<'a>))>, ConfigError> {
    let own = &all[number];
    let find = |wanted: &dyn Fn(&Stated<'a>) -> bool| {
        all.iter().enumerate().position(|(other, stated)| other != number && wanted(stated))
    };
    let by_name = |name: &str| find(&|s| s.is_named(name));
    let Some((device, value)) = own.device else {
        let Some((_, value)) = own.name else { return Err(section.missing("name")) };
        let before = own.dotted().map(|(before, _)| before);
        if let Some(parent) = before.and_then(by_name) {
            return Ok(Some((parent, ("name", value))));
        }
        return match (before, own.id) {
            (_, Some((id, _))) => {
                let what =
                    format!("[[port]] needs the key \"device\": the port that VLAN {id} is of");
                Err(section.source.error(section.span.clone(), what))
            }
            (Some(before), None) => {
                let what = format!("has no device, and there is no port {before:?}");
                Err(section.wrong("name", value, what))
            }
            (None, None) => Err(section.missing("device")),
        };
    };
    let same = |s: &Stated<'a>| s.id.is_none() && s.device.is_some_and(|(d, _)| d == device);
    let by_device = || {
        let parent = find(&same)?;
        let before = own.dotted().map(|(before, _)| before);
        let meant = own.id.is_some() || before.is_some_and(|name| all[parent].is_named(name));
        meant.then_some(parent)
    };
    match (by_name(device).or_else(by_device), own.id) {
        (None, Some((id, _))) => {
            let what = format!("must be the name or the device of the port that VLAN {id} is of");
            Err(section.wrong("device", value, what))
        }
        (parent, _) => Ok(parent.map(|parent| (parent, ("device", value)))),
    }
}

/// Refuses a sub-interface that another port is already.
pub(super) fn judge(
    section: &Section<'_>,
    port: &Port,
    others: &[Port],
) -> Result<(), ConfigError> {
    if port.vlan.is_some()
        && let Some(other) = others.iter().find(|p| p.vlan == port.vlan)
        && let Some((_, value)) = section.text("name")?
    {
        let what = format!("port {:?} is the same VLAN of the same device", other.name);
        return Err(section.wrong("name", value, what));
    }
    Ok(())
}

/// Refuses keys of the device in a sub-interface.
pub(super) fn refuse_device_keys(section: &Section<'_>) -> Result<(), ConfigError> {
    for key in DEVICE_KEYS {
        if let Some(value) = section.value(key) {
            return Err(section.wrong(key, value, "a sub-interface has no device of its own"));
        }
    }
    Ok(())
}

/// What a sub-interface takes from its parent: the MAC address, and the MTU unless it has a
/// smaller one.
pub(super) fn inherit(
    section: &Section<'_>,
    port: &mut Port,
    parent: &Port,
) -> Result<(), ConfigError> {
    let name = &parent.name;
    if let (Some(own), Some(value)) = (mac(section)?, section.value("mac"))
        && parent.mac != Some(own)
    {
        let what = format!("must be that of port {name:?}, which is the default");
        return Err(section.wrong("mac", value, what));
    }
    port.mac = parent.mac;
    match section.value("mtu") {
        Some(value) if port.mtu > parent.mtu => {
            let what = format!("must not exceed that of port {name:?}, {}", parent.mtu);
            Err(section.wrong("mtu", value, what))
        }
        Some(_) => Ok(()),
        None => {
            port.mtu = parent.mtu;
            // RFC 8200, section 5: every link of IPv6 carries 1280 bytes.
            if port.addresses.iter().any(|a| !a.address.is_v4()) && port.mtu < 1280 {
                let what = format!("[[port]] has IPv6 addresses, and {name:?} an MTU below 1280");
                return Err(section.source.error(section.span.clone(), what));
            }
            Ok(())
        }
    }
}
