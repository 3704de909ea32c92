//! How a set is made: the options of `create`, and the line of a listing that shows them.

use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};

use dataplane::rules::hook::Family;
use dataplane::rules::sets::key::mask;
use dataplane::rules::sets::kind::{Kind, Part, Storage};
use dataplane::rules::sets::set::{Options, TIMEOUT_MAX};

use super::{Wrong, element, random, span};

/// What a bitmap has at most (`IPSET_BITMAP_MAX_RANGE`).
const BITMAP_MAX: u128 = 0x1_0000;

/// Names that types had in ipset 4, whose options are still taken.
const OLD_NAMES: &[(&str, &str)] = &[
    ("iphash", "hash:ip"),
    ("nethash", "hash:net"),
    ("ipporthash", "hash:ip,port"),
    ("netporthash", "hash:net,port"),
    ("ipportiphash", "hash:ip,port,ip"),
    ("ipportnethash", "hash:ip,port,net"),
    ("ipmap", "bitmap:ip"),
    ("portmap", "bitmap:port"),
    ("setlist", "list:set"),
];

/// Types of ipset that this program has not.
const OTHER_TYPES: &[&str] = &["hash:net,iface", "bitmap:ip,mac"];

/// What of an address counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cut {
    /// All of it.
    #[default]
    Whole,
    /// `netmask`.
    Prefix(u8),
    /// `bitmask`.
    Bits(u128),
}

/// How a set was made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) kind: &'static Kind,
    pub(super) family: Option<Family>,
    pub(super) hashsize: u32,
    pub(super) max: u32,
    pub(super) cut: Cut,
    pub(super) mark_mask: Option<u32>,
    pub(super) timeout: Option<u32>,
    pub(super) counters: bool,
    pub(super) comment: bool,
    pub(super) skbinfo: bool,
    pub(super) forceadd: bool,
    pub(super) bucketsize: u8,
    pub(super) initval: u32,
    pub(super) range: Option<(u128, u128)>,
    pub(super) size: u32,
    /// Options of ipset 4 that say nothing any more, as given.
    pub(super) ignored: Vec<String>,
}

impl Made {
    /// Reads the words behind the name: a type and its options.
    pub(super) fn parse(name: &str, words: &[String]) -> Result<Made, Wrong> {
        let known = OLD_NAMES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
        let Some(kind) = Kind::named(known) else {
            if OTHER_TYPES.contains(&known) {
                return Wrong::refused("Kernel error received: set type not supported");
            }
            return Wrong::syntax(format_args!("typename '{name}' is unknown"));
        };
        let mut made = Made::default_of(kind);
        let mut words = words.iter();
        let mut seen: Vec<&str> = Vec::new();
        while let Some(word) = words.next() {
            let option = word.strip_prefix("--").unwrap_or(word);
            let option = if option == "from" || option == "network" { "range" } else { option };
            if !made.takes(option) {
                return Wrong::usage(format!("Unknown argument: `{word}'"));
            }
            if seen.contains(&option) {
                return Wrong::syntax(format_args!("{option} already specified"));
            }
            seen.push(option);
            if made.set_flag(option)? {
                continue;
            }
            let Some(value) = words.next() else {
                return Wrong::usage(format!("Missing mandatory argument of option `{option}'"));
            };
            made.set(option, value)?;
        }
        made.finish()
    }

    fn default_of(kind: &'static Kind) -> Made {
        Made {
            kind,
            family: kind.has_family().then_some(Family::V4),
            hashsize: 1024,
            max: 65536,
            cut: Cut::Whole,
            mark_mask: None,
            timeout: None,
            counters: false,
            comment: false,
            skbinfo: false,
            forceadd: false,
            bucketsize: 12,
            initval: random(0) as u32,
            range: None,
            size: 8,
            ignored: Vec::new(),
        }
    }

    fn takes(&self, option: &str) -> bool {
        let single = matches!(self.kind.name, "hash:ip" | "hash:ip,port");
        match option {
            "timeout" | "counters" | "comment" | "skbinfo" => true,
            "family" => self.kind.storage == Storage::Hash && self.kind.has_family(),
            "hashsize" | "maxelem" | "forceadd" | "bucketsize" | "initval" | "probes"
            | "resize" | "gc" => self.kind.storage == Storage::Hash,
            "netmask" => single || self.kind.name == "bitmap:ip",
            "bitmask" => single,
            "markmask" => self.kind.has(Part::Mark),
            "range" => self.kind.storage == Storage::Bitmap,
            "size" => self.kind.storage == Storage::List,
            _ => false,
        }
    }

    /// Takes an option without a value; false if it has one.
    fn set_flag(&mut self, option: &str) -> Result<bool, Wrong> {
        match option {
            "counters" => self.counters = true,
            "comment" => self.comment = true,
            "forceadd" => self.forceadd = true,
            "skbinfo" => self.skbinfo = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), Wrong> {
        const U32: u64 = u32::MAX as u64;
        let number = |max| element::number(value, 0, max);
        match option {
            "family" => {
                self.family = Some(match value {
                    "inet" | "ipv4" | "-4" => Family::V4,
                    "inet6" | "ipv6" | "-6" => Family::V6,
                    _ => return Wrong::syntax(format_args!("unknown inet family {value}")),
                });
            }
            "hashsize" => {
                let size = number(U32)?.clamp(64, 1 << 24);
                self.hashsize = size.next_power_of_two() as u32;
            }
            "maxelem" => self.max = number(U32)? as u32,
            "timeout" => self.timeout = Some(number(TIMEOUT_MAX.into())? as u32),
            "bucketsize" => self.bucketsize = (number(255)? as u8 & !1).clamp(2, 12),
            "initval" => self.initval = number(U32)? as u32,
            "size" => self.size = number(U32)?.max(4) as u32,
            "markmask" => self.mark_mask = Some(number(U32)? as u32),
            // The family may follow.
            "netmask" | "bitmask" if self.cut != Cut::Whole => {
                let text = "bitmask and netmask are mutually exclusive, provide only one";
                return Wrong::syntax(text);
            }
            "netmask" => self.cut = Cut::Prefix(number(255)?.min(255) as u8),
            "bitmask" => self.cut = Cut::Bits(bits(value)?),
            "range" => self.range = Some(self.range_of(value)?),
            _ => self.ignored.push(format!("--{option} {value}")),
        }
        Ok(())
    }

    fn range_of(&self, text: &str) -> Result<(u128, u128), Wrong> {
        let (low, high) = if self.kind.has(Part::Port) {
            let Some((low, high)) = super::ports::plain_range(text)? else {
                return Wrong::usage("Mandatory option `to' is missing");
            };
            (low.into(), high.into())
        } else {
            let span = span::Span::parse(text, Family::V4, span::Takes::Anything)?;
            if span.is_one() {
                let what = "IP/cidr or IP-IP range must be specified";
                return Wrong::syntax(format_args!("{what}: {text}"));
            }
            span.bounds(32)
        };
        Ok((low.min(high), low.max(high)))
    }

    fn finish(self) -> Result<Made, Wrong> {
        let width = self.width();
        if let Cut::Prefix(prefix) = self.cut
            && !(1..=width).contains(&prefix)
        {
            let text = format!(
                "'{prefix}' is out of range 1-{width}\n\
                 Syntax error: netmask is out of the inclusive range of 1-{width}"
            );
            return Wrong::syntax(text);
        }
        if self.cut == Cut::Bits(0) {
            return Wrong::refused("The value of the netmask parameter is invalid");
        }
        if self.kind.storage != Storage::Bitmap {
            return Ok(self);
        }
        let Some((low, high)) = self.range else {
            return Wrong::usage("Mandatory option `range' is missing");
        };
        let host = !self.mask() & mask(32, 32);
        if let Cut::Prefix(_) = self.cut
            && (low & host != 0 || high & host != host)
        {
            return Wrong::refused(Wrong::RANGE);
        }
        let step = host + 1;
        if self.kind.has(Part::Ip) && (high - low + 1) / step > BITMAP_MAX {
            return Wrong::refused(
                "The range you specified exceeds the size limit of the set type",
            );
        }
        Ok(Made { max: u32::MAX, ..self })
    }

    /// Bits of an address.
    pub(super) const fn width(&self) -> u8 {
        match self.family {
            Some(Family::V6) => 128,
            _ => 32,
        }
    }

    /// Bits of an address that count.
    pub(super) const fn mask(&self) -> u128 {
        match self.cut {
            Cut::Whole => mask(self.width(), self.width()),
            Cut::Prefix(prefix) => mask(prefix, self.width()),
            Cut::Bits(bits) => bits & mask(self.width(), self.width()),
        }
    }

    /// As the dataplane has them.
    pub(super) fn options(&self) -> Options {
        Options {
            kind: self.kind,
            family: self.family,
            mask: self.mask(),
            mark_mask: self.mark_mask.unwrap_or(u32::MAX),
            timeout: self.timeout,
            counters: self.counters,
            info: self.skbinfo,
            max: self.max,
            forceadd: self.forceadd,
            range: self.range.unwrap_or((0, u128::MAX)),
        }
    }

    /// What `create … -exist` takes for the same set (`mtype_same_set`).
    pub(super) fn is_same(&self, other: &Made) -> bool {
        let facts = |made: &Made| {
            let flags = (made.counters, made.comment, made.skbinfo, made.forceadd);
            let extensions = (made.timeout, flags);
            (made.kind.name, made.max, made.cut, made.mark_mask, made.range, made.size, extensions)
        };
        facts(self) == facts(other)
    }

    /// The options as `save` and the header of `list` have them; `hashsize` has grown.
    pub(super) fn text(&self, hashsize: u32) -> String {
        let mut out = String::new();
        match self.kind.storage {
            Storage::Hash => {
                if let Some(family) = self.family {
                    let name = if family == Family::V4 { "inet" } else { "inet6" };
                    let _ = write!(out, "family {name} ");
                }
                let _ = write!(out, "hashsize {hashsize} maxelem {}", self.max);
                if let Some(mask) = self.mark_mask {
                    let _ = write!(out, " markmask 0x{mask:08x}");
                }
            }
            Storage::Bitmap => {
                let (low, high) = self.range.unwrap_or_default();
                let _ = match self.kind.has(Part::Port) {
                    true => write!(out, "range {low}-{high}"),
                    false => write!(out, "range {}-{}", v4(low), v4(high)),
                };
            }
            Storage::List => {
                let _ = write!(out, "size {}", self.size);
            }
        }
        // The newer of the options stand where they were added.
        let late = self.kind.name == "hash:ip,port";
        if !late {
            self.cut_text(&mut out);
        }
        if let Some(timeout) = self.timeout {
            let _ = write!(out, " timeout {timeout}");
        }
        for (there, name) in [
            (self.counters, "counters"),
            (self.comment, "comment"),
            (self.skbinfo, "skbinfo"),
            (self.forceadd, "forceadd"),
        ] {
            if there {
                let _ = write!(out, " {name}");
            }
        }
        if self.kind.storage == Storage::Hash {
            let _ = write!(out, " bucketsize {} initval 0x{:08x}", self.bucketsize, self.initval);
        }
        if late {
            self.cut_text(&mut out);
        }
        out
    }

    fn cut_text(&self, out: &mut String) {
        let _ = match self.cut {
            Cut::Whole => Ok(()),
            Cut::Prefix(prefix) => write!(out, " netmask {prefix}"),
            Cut::Bits(bits) if self.family == Some(Family::V6) => {
                write!(out, " bitmask {}", Ipv6Addr::from_bits(bits))
            }
            Cut::Bits(bits) => write!(out, " bitmask {}", v4(bits)),
        };
    }
}

fn v4(bits: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(bits as u32)
}

fn bits(text: &str) -> Result<u128, Wrong> {
    let v4 = text.parse::<Ipv4Addr>().map(|mask| u128::from(mask.to_bits()));
    let mask = v4.or_else(|_| text.parse::<Ipv6Addr>().map(Ipv6Addr::to_bits));
    mask.or_else(|_| span::unresolved(text, Family::V4))
}
