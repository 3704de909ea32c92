//! Values of options: addresses with masks, ports, numbers, translation ranges.
//!
//! Every function gets the word's text and says in one sentence what is wrong with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::rules::hook::Family;
use dataplane::rules::matches::{Masked, Net, PortRange};
use dataplane::rules::targets::NatOptions;
use dataplane::wire::address::Address;

use super::services;

/// What is wrong with a value.
pub(super) type Fault = String;

/// One address of the family.
pub(super) fn address(text: &str, family: Family) -> Option<Address> {
    match family {
        Family::V4 => text.parse::<Ipv4Addr>().ok().map(Address::from),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(Address::from),
    }
}

/// `address`, `address/bits` or `address/mask`; IPv4 addresses may leave out zeros at the end.
pub(super) fn net(text: &str, family: Family) -> Result<Net, Fault> {
    let (host, mask) = match text.split_once('/') {
        Some((host, mask)) => (host, Some(mask)),
        None => (text, None),
    };
    let bits = family.address_bits();
    let mask = match mask {
        None => prefix_mask(bits, bits),
        Some(word) => {
            mask_bits(word, family).ok_or_else(|| format!("invalid mask `{word}' in `{text}'"))?
        }
    };
    let padded = match family {
        Family::V4 => pad_dots(host),
        Family::V6 => None,
    };
    let address = address(padded.as_deref().unwrap_or(host), family)
        .ok_or_else(|| format!("`{host}' is not an {} address", family_name(family)))?;
    let address = match family {
        Family::V4 => Address::v4(address.v4_bits() & mask as u32),
        Family::V6 => Address::v6(address.bits() & mask),
    };
    Ok(Net { address, mask })
}

/// How a family is called in messages.
pub(super) const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// The bits of an address that is a mask.
pub(super) const fn mask_of(mask: Address, family: Family) -> u128 {
    match family {
        Family::V4 => mask.v4_bits() as u128,
        Family::V6 => mask.bits(),
    }
}

/// The mask of a prefix of `length` among `bits`.
pub(super) fn prefix_mask(length: u8, bits: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(bits));
    let free = u32::from(bits - length.min(bits));
    all & u128::MAX.checked_shl(free).unwrap_or(0)
}

fn mask_bits(word: &str, family: Family) -> Option<u128> {
    let bits = family.address_bits();
    if word.bytes().all(|b| b.is_ascii_digit()) {
        return word.parse().ok().filter(|&n: &u8| n <= bits).map(|n| prefix_mask(n, bits));
    }
    match family {
        Family::V4 => word.parse::<Ipv4Addr>().ok().map(|mask| u128::from(mask.to_bits())),
        Family::V6 => word.parse::<Ipv6Addr>().ok().map(|mask| mask.to_bits()),
    }
}

/// `10` and `10.1` with the missing zeros; `None` if nothing is missing.
fn pad_dots(host: &str) -> Option<String> {
    let missing = 3usize.checked_sub(host.matches('.').count())?;
    (missing > 0 && !host.is_empty()).then(|| format!("{host}{}", ".0".repeat(missing)))
}

/// A port or `low:high`, of which either end may be left out; services are those of any protocol.
pub(super) fn ports(text: &str) -> Result<PortRange, Fault> {
    ports_of(text, None)
}

/// The same with services of one protocol, by its number.
pub(super) fn ports_of(text: &str, proto: Option<u8>) -> Result<PortRange, Fault> {
    let one = |word: &str| port_of(word, proto);
    let bound = |word: &str, open: u16| if word.is_empty() { Ok(open) } else { one(word) };
    let range = match text.split_once(':') {
        Some((low, high)) => PortRange { low: bound(low, 0)?, high: bound(high, u16::MAX)? },
        None => PortRange::one(one(text)?),
    };
    if range.low > range.high {
        return Err(format!("invalid port range `{text}' (low end above high end)"));
    }
    Ok(range)
}

/// One port or service of any protocol.
pub(super) fn port(word: &str) -> Result<u16, Fault> {
    port_of(word, None)
}

/// One port or service of a protocol, by its number.
pub(super) fn port_of(word: &str, proto: Option<u8>) -> Result<u16, Fault> {
    let found = match number(word) {
        Ok(number) => u16::try_from(number).ok(),
        Err(_) => services::port(word, proto),
    };
    found.ok_or_else(|| format!("invalid port or service `{word}'"))
}

/// A name that may be a file's (`xt_check_proc_name`), of at most `longest` bytes.
pub(super) fn file_name(text: &str, longest: usize) -> Result<String, Fault> {
    let fault = match text {
        "" => "is empty",
        "." | ".." => "is a folder's",
        _ if text.contains(['/', '\0']) => "has a slash in it",
        _ if text.len() > longest => "is too long",
        _ => return Ok(text.to_owned()),
    };
    Err(format!("name `{text}' {fault}"))
}

/// A number as C writes them: decimal, `0x` or octal with a leading 0.
pub(super) fn number(word: &str) -> Result<u32, Fault> {
    let number = c_number(word)?.and_then(|number| u32::try_from(number).ok());
    number.ok_or_else(|| format!("`{word}' is not a number of 32 bits"))
}

/// The same with 64 bits.
pub(super) fn long_number(word: &str) -> Result<u64, Fault> {
    c_number(word)?.ok_or_else(|| format!("`{word}' is not a number of 64 bits"))
}

/// `None` for one that is too large.
fn c_number(word: &str) -> Result<Option<u64>, Fault> {
    let bad = || format!("`{word}' is not a number");
    let (radix, digits) = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => (16, hex),
        None if word.len() > 1 && word.starts_with('0') => (8, word),
        None => (10, word),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(bad());
    }
    Ok(u64::from_str_radix(digits, radix).ok())
}

/// A number that is at most `most`.
pub(super) fn up_to(word: &str, most: u32) -> Result<u32, Fault> {
    let number = number(word).ok().filter(|&number| number <= most);
    number.ok_or_else(|| format!("`{word}' is not a number of 0 to {most}"))
}

/// `value` or `value/mask`.
pub(super) fn masked(text: &str) -> Result<Masked, Fault> {
    match text.split_once('/') {
        Some((value, mask)) => Ok(Masked { value: number(value)?, mask: number(mask)? }),
        None => Ok(Masked { value: number(text)?, mask: u32::MAX }),
    }
}

/// A comma list of names, each of which adds to a set; what a name means is `find`'s business.
pub(super) fn set<T>(
    text: &str,
    what: &str,
    find: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Fault> {
    text.split(',')
        .map(|name| find(name).ok_or_else(|| format!("unknown {what} `{name}'")))
        .collect()
}

/// `low-high` or one address, within brackets where ports follow an IPv6 address.
fn addresses(text: &str, family: Family) -> Result<(Address, Address), Fault> {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let one = |word: &str| address(word, family).ok_or_else(|| format!("bad address `{word}'"));
    let (low, high) = (one(low)?, one(high)?);
    if low > high {
        return Err(format!("invalid address range `{text}' (low end above high end)"));
    }
    Ok((low, high))
}

/// `port`, `low-high` and, if `base` is allowed, `low-high/base`, into `options`.
pub(super) fn nat_ports(text: &str, base: bool, options: &mut NatOptions) -> Result<(), Fault> {
    let (range, base_port) = match text.split_once('/') {
        Some((range, port)) if base && range.contains('-') => (range, Some(port)),
        Some((_, rest)) => return Err(format!("garbage after port value: `/{rest}'")),
        None => (text, None),
    };
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return Err(format!("invalid port range `{range}' (low end above high end)"));
    }
    options.ports = Some((low, high));
    options.base_port = base_port.map(port).transpose()?;
    if options.base_port == Some(0) {
        return Err(format!("base port of `{text}' must not be 0"));
    }
    Ok(())
}

/// The value of `--to-source` and `--to-destination`: `[addresses][:ports]`.
pub(super) fn nat_range(
    text: &str,
    family: Family,
    base: bool,
    options: &mut NatOptions,
) -> Result<(), Fault> {
    let bad = || format!("invalid address format `{text}'");
    let (hosts, ports) = match family {
        Family::V4 => match text.split_once(':') {
            Some((hosts, ports)) => (hosts, Some(ports)),
            None => (text, None),
        },
        Family::V6 => match text.strip_prefix('[') {
            Some(inner) => {
                let (hosts, rest) = inner.split_once(']').ok_or_else(bad)?;
                let ports = rest.strip_prefix(':');
                if ports.is_none() && !rest.is_empty() {
                    return Err(bad());
                }
                (hosts, ports)
            }
            // `:80` gives ports alone, `::1` is an address.
            None => match text.strip_prefix(':').filter(|ports| !ports.starts_with(':')) {
                Some(ports) => ("", Some(ports)),
                None => (text, None),
            },
        },
    };
    if let Some(ports) = ports {
        nat_ports(ports, base, options)?;
    }
    if hosts.is_empty() && ports.is_some() {
        return Ok(());
    }
    options.addresses = Some(addresses(hosts, family)?);
    Ok(())
}

/// The address as its family writes it (an IPv6 rule may name a mapped address).
pub(super) fn address_text(address: Address, family: Family) -> String {
    if family == Family::V4 {
        return IpAddr::V4(Ipv4Addr::from_bits(address.v4_bits())).to_string();
    }
    let bits = address.bits();
    if bits >> 32 == 0 && bits > 0xffff {
        return format!("::{}", Ipv4Addr::from_bits(bits as u32));
    }
    Ipv6Addr::from_bits(bits).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_may_be_lengths_or_bits_with_holes() {
        let text = |text| {
            let net = net(text, Family::V4).unwrap();
            (net.address.to_string(), net.mask as u32)
        };
        assert_eq!(text("10.1.2.3/8"), ("10.0.0.0".to_owned(), 0xff00_0000));
        assert_eq!(text("10/8"), ("10.0.0.0".to_owned(), 0xff00_0000));
        assert_eq!(text("1.2.3.4/0"), ("0.0.0.0".to_owned(), 0));
        assert_eq!(text("10.1.2.3/255.0.0.255"), ("10.0.0.3".to_owned(), 0xff00_00ff));
        assert_eq!(net("fe80::1/10", Family::V6).unwrap().mask, 0x3ff << 118);
        assert_eq!(net("::1", Family::V6).unwrap().mask, u128::MAX);
        for bad in ["", "/8", "1.2.3.4/33", "1.2.3.256", "1.2.3.4.5", "::1", "a", "1.2.3.4/", "1/-"]
        {
            assert!(net(bad, Family::V4).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        for (word, value) in [("0", 0), ("00", 0), ("010", 8), ("0xFf", 255), ("12", 12)] {
            assert_eq!(number(word), Ok(value));
        }
        for bad in ["", "0x", "08", "4294967296", "-1", "+1", "1x", "0x+1"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn translation_ranges_come_apart() {
        let parse = |text: &str, family| {
            let mut options = NatOptions::default();
            nat_range(text, family, true, &mut options).map(|()| options)
        };
        let options = parse("[fd00::1-fd00::9]:5-9/6", Family::V6).unwrap();
        assert_eq!((options.ports, options.base_port), (Some((5, 9)), Some(6)));
        assert_eq!(parse(":80", Family::V6).unwrap().ports, Some((80, 80)));
        assert_eq!(parse("::1", Family::V6).unwrap().ports, None);
        for bad in ["", ":", "1.2.3.4:", "1.2.3.4:9-5", "1.2.3.9-1.2.3.4", "1.2.3.4:5/6", "1-2"] {
            assert!(parse(bad, Family::V4).is_err(), "{bad}");
        }
        for bad in ["[::1", "[::1]x", "[]", "[::1]:", "1.2.3.4"] {
            assert!(parse(bad, Family::V6).is_err(), "{bad}");
        }
    }
}
