//! An element's text, in and out, and the keys that it stands for.

use core::net::{Ipv4Addr, Ipv6Addr};

use dataplane::rules::hook::Family;
use dataplane::rules::sets::key::{Key, mask};
use dataplane::rules::sets::kind::{Kind, Part, Storage};

use super::Wrong;
use super::made::{Cut, Made};
use super::ports::{self, Ports};
use super::span::{Span, Takes};

/// Elements that one command may name.
const RANGE_MAX: u128 = 1 << 20;

const BAD_PREFIX: &str = "The value of the CIDR parameter of the IP address is invalid";
const NULL: &str = "Null-valued element, cannot be stored in a hash type of set";

/// An element as written, which may stand for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    first: Span,
    ports: Ports,
    second: Span,
    mac: u128,
    mark: u32,
}

/// A number as C writes them, within bounds.
pub(super) fn number(text: &str, low: u64, high: u64) -> Result<u64, Wrong> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let octal = digits.strip_prefix('0').filter(|rest| !rest.is_empty());
    let (digits, radix) = match (hex, octal) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) => (octal, 8),
        (None, None) => (digits, 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Wrong::syntax(format_args!("'{text}' is invalid as number"));
    }
    let value = u64::from_str_radix(digits, radix).ok().filter(|_| !text.starts_with('-'));
    match value.filter(|value| (low..=high).contains(value)) {
        Some(value) => Ok(value),
        None => Wrong::syntax(format_args!("'{text}' is out of range {low}-{high}")),
    }
}

fn mac(text: &str) -> Result<u128, Wrong> {
    let bytes: Vec<&str> = text.split(':').collect();
    let byte = |word: &&str| {
        u8::from_str_radix(word, 16).ok().filter(|_| word.len() <= 2 && !word.starts_with('+'))
    };
    let bytes: Option<Vec<u8>> = bytes.iter().map(byte).collect();
    match bytes.filter(|bytes| bytes.len() == 6) {
        Some(bytes) => Ok(bytes.iter().fold(0, |mac, byte| mac << 8 | u128::from(*byte))),
        None => Wrong::syntax(format_args!("cannot parse '{text}' as ethernet address")),
    }
}

impl Element {
    /// Reads an element of a set of this type and family.
    pub(super) fn parse(made: &Made, text: &str) -> Result<Element, Wrong> {
        let (kind, family) = (made.kind, made.family.unwrap_or(Family::V4));
        let words = words_of(kind, text)?;
        let mut element = Element::default();
        let mut addresses = 0;
        for (number, (part, word)) in kind.parts.iter().zip(words).enumerate() {
            match part {
                Part::Ip | Part::Net => {
                    let span = Span::parse(word, family, takes(kind, *part, number))?;
                    if addresses == 0 {
                        element.first = span
                    } else {
                        element.second = span
                    }
                    addresses += 1;
                }
                Part::Port => element.ports = Ports::parse(word, family)?,
                Part::Mark => element.mark = self::number(word, 0, u32::MAX.into())? as u32,
                Part::Mac => element.mac = mac(word)?,
            }
        }
        Ok(element)
    }

    /// That a test is of one element.
    pub(super) fn only_one(&self, made: &Made) -> Result<(), Wrong> {
        let kind = made.kind;
        let family = match (kind.storage, made.family) {
            (Storage::Bitmap, _) if kind.has(Part::Port) => "unspec",
            (_, Some(Family::V6)) => "inet6",
            _ => "inet",
        };
        let end = format!(
            "is not allowed in command test with set type {} and family {family}",
            kind.name
        );
        let ranged = |span: &Span| span.high.is_some();
        let first_ip = kind.parts.first() == Some(&Part::Ip);
        if kind.name != "hash:ip" && (ranged(&self.first) || ranged(&self.second)) {
            return Wrong::refused(format!("FROM-TO IP range {end}"));
        }
        if kind.name != "hash:ip" && first_ip && self.first.prefix.is_some() {
            return Wrong::refused(format!("IP/CIDR range {end}"));
        }
        if self.ports.high.is_some() {
            return Wrong::refused(format!("FROM-TO port range {end}"));
        }
        Ok(())
    }

    /// All keys that the element stands for, in the kernel's order; `first` alone for a test.
    pub(super) fn keys(&self, made: &Made) -> Result<Vec<Key>, Wrong> {
        let kind = made.kind;
        let firsts = self.part(made, kind.parts.first(), &self.first, true)?;
        let last = kind.parts.last().filter(|_| kind.parts.len() > 1);
        let seconds = match last {
            Some(Part::Mac) => vec![(self.mac, 0)],
            Some(Part::Mark) => {
                vec![((self.mark & made.mark_mask.unwrap_or(u32::MAX)).into(), 0)]
            }
            part => self.part(made, part, &self.second, false)?,
        };
        let (low, high) = self.ports.bounds();
        let ports = u128::from(high - low) + 1;
        if firsts.len() as u128 * ports * seconds.len() as u128 > RANGE_MAX {
            return too_many();
        }
        let bitmap = kind.storage == Storage::Bitmap;
        let proto = if bitmap { 0 } else { self.ports.proto };
        let mut keys = Vec::new();
        for &(first, first_prefix) in &firsts {
            for port in low..=high {
                for &(second, second_prefix) in &seconds {
                    keys.push(Key { first, first_prefix, proto, port, second, second_prefix });
                }
            }
        }
        Ok(keys)
    }

    fn part(
        &self,
        made: &Made,
        part: Option<&Part>,
        span: &Span,
        first: bool,
    ) -> Result<Vec<(u128, u8)>, Wrong> {
        let width = made.width();
        match part {
            Some(Part::Net) => {
                let zero = matches!(made.kind.name, "hash:net,net" | "hash:net,port,net");
                if span.prefix == Some(0) && !zero {
                    return Wrong::refused(BAD_PREFIX);
                }
                Ok(span.nets(width).into_iter().map(|(net, length)| (net, length + 1)).collect())
            }
            Some(Part::Ip) => {
                if span.prefix == Some(0) {
                    return Wrong::refused(BAD_PREFIX);
                }
                let cut = if first { made.mask() } else { mask(width, width) };
                let (low, high) = span.bounds(width);
                let step = match made.cut {
                    Cut::Prefix(_) if first => (!cut & mask(width, width)) + 1,
                    _ => 1,
                };
                if (high - low) / step >= RANGE_MAX {
                    return too_many();
                }
                let mut all = Vec::new();
                let mut next = Some(if step > 1 { low & cut } else { low });
                while let Some(address) = next.filter(|address| *address <= high) {
                    all.push((address & cut, 0));
                    next = address.checked_add(step);
                }
                if made.kind.name == "hash:ip" && all.iter().any(|(address, _)| *address == 0) {
                    return Wrong::refused(NULL);
                }
                Ok(all)
            }
            Some(Part::Mac) if first && self.mac == 0 => Wrong::refused(NULL),
            Some(Part::Mac) => Ok(vec![(self.mac, 0)]),
            _ => Ok(vec![(0, 0)]),
        }
    }

    /// As the tool writes it, with the range or length that was given.
    pub(super) fn text(&self, made: &Made) -> String {
        let family = made.family.unwrap_or(Family::V4);
        let mut addresses = [&self.first, &self.second].into_iter();
        let ports = |ports: &Ports| {
            let one = match made.kind.storage {
                Storage::Bitmap => ports.low.to_string(),
                _ => ports::text(ports.proto, ports.low),
            };
            ports.high.map_or(one.clone(), |high| format!("{one}-{high}"))
        };
        let part = |part: &Part| match part {
            Part::Ip | Part::Net => {
                addresses.next().map_or(String::new(), |span| span_text(span, family))
            }
            Part::Port => ports(&self.ports),
            Part::Mark => format!("0x{:08x}", self.mark),
            Part::Mac => mac_text(self.mac),
        };
        made.kind.parts.iter().map(part).collect::<Vec<_>>().join(",")
    }
}

fn too_many<T>() -> Result<T, Wrong> {
    Wrong::refused(format!("The range has more than {RANGE_MAX} elements"))
}

/// What an address part may be, by its type and place.
fn takes(kind: &Kind, part: Part, number: usize) -> Takes {
    match (part, number) {
        (Part::Net, _) => Takes::Anything,
        _ if kind.storage == Storage::Bitmap => Takes::Anything,
        (Part::Ip, 0) if kind.name != "hash:ip,mac" => Takes::AnyOfV4,
        _ => Takes::One,
    }
}

/// The parts' texts.
fn words_of<'a>(kind: &Kind, text: &'a str) -> Result<Vec<&'a str>, Wrong> {
    let words: Vec<&str> = text.split(',').collect();
    let (there, wanted) = (words.len(), kind.parts.len());
    if there > wanted {
        let (count, supports) = match wanted {
            1 => ("Elem separator", "none"),
            2 => ("Two elem separators", "one"),
            _ => ("Three elem separators", "two"),
        };
        let name = kind.name;
        return Wrong::syntax(format_args!(
            "{count} in {text}, but settype {name} supports {supports}."
        ));
    }
    if there < wanted || wanted > 1 && words.first() == Some(&"") {
        let which = if there < 2 || words.first() == Some(&"") { "Second" } else { "Third" };
        return Wrong::syntax(format_args!("{which} element is missing from {text}."));
    }
    Ok(words)
}

fn address_text(address: u128, family: Family) -> String {
    match family {
        Family::V4 => Ipv4Addr::from_bits(address as u32).to_string(),
        Family::V6 => Ipv6Addr::from_bits(address).to_string(),
    }
}

fn span_text(span: &Span, family: Family) -> String {
    let low = address_text(span.low, family);
    match (span.high, span.prefix) {
        (Some(high), _) => format!("{low}-{}", address_text(high, family)),
        (None, Some(prefix)) if prefix != family.address_bits() => format!("{low}/{prefix}"),
        _ => low,
    }
}

fn mac_text(mac: u128) -> String {
    let byte = |at: u32| format!("{:02X}", (mac >> (40 - 8 * at)) as u8);
    (0..6).map(byte).collect::<Vec<_>>().join(":")
}

/// A key as `list` and `save` print it.
pub(super) fn key_text(key: &Key, made: &Made) -> String {
    let family = made.family.unwrap_or(Family::V4);
    let mut addresses =
        [(key.first, key.first_prefix), (key.second, key.second_prefix)].into_iter();
    let part = |part: &Part| match part {
        Part::Ip | Part::Net => addresses.next().map_or(String::new(), |(low, prefix)| {
            span_text(&Span { low, high: None, prefix: prefix.checked_sub(1) }, family)
        }),
        Part::Port if made.kind.storage == Storage::Bitmap => key.port.to_string(),
        Part::Port => ports::text(key.proto, key.port),
        Part::Mark => format!("0x{:08x}", key.second),
        Part::Mac if made.kind.parts.len() == 1 => mac_text(key.first),
        Part::Mac => mac_text(key.second),
    };
    made.kind.parts.iter().map(part).collect::<Vec<_>>().join(",")
}
