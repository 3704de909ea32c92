//! `-m iprange`, `addrtype`, `rpfilter`, `mac` and `pkttype`.

use dataplane::rules::hook::Family;
use dataplane::rules::matches::place::{
    AddrType, AddressTypes, IpRange, Limit, Mac, PktType, RpFilter, SentTo,
};
use dataplane::rules::matches::{Match, Maybe};
use dataplane::wire::address::Address;

use super::super::extension::{Extension, Given, Text, Whole, flag, opt};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const IPRANGE: Extension<Match> = Extension {
    name: "iprange",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("src-range"), opt("dst-range")],
    begin: |_| Match::IpRange(Box::default()),
};

pub(super) const ADDRTYPE: Extension<Match> = Extension {
    name: "addrtype",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("src-type"),
        opt("dst-type"),
        flag("limit-iface-in").group(1),
        flag("limit-iface-out").group(1),
    ],
    begin: |_| Match::AddrType(AddrType::default()),
};

pub(super) const RPFILTER: Extension<Match> = Extension {
    name: "rpfilter",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[flag("loose"), flag("validmark"), flag("accept-local"), flag("invert")],
    begin: |_| Match::RpFilter(RpFilter::default()),
};

pub(super) const MAC: Extension<Match> = Extension {
    name: "mac",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("mac-source").must()],
    begin: |_| Match::Mac(Mac(Maybe::is([0; 6]))),
};

pub(super) const PKTTYPE: Extension<Match> = Extension {
    name: "pkttype",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("pkt-type").must()],
    begin: |_| Match::PktType(PktType(Maybe::is(SentTo::Us))),
};

impl Text for IpRange {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let (low, high) = given.text().split_once('-').unwrap_or((given.text(), given.text()));
        let one = |word: &str| {
            values::address(word, given.family).ok_or_else(|| {
                format!("`{word}' is not an {} address", values::family_name(given.family))
            })
        };
        let range = Some(given.maybe((one(low)?, one(high)?)));
        *(if given.name == "src-range" { &mut self.src } else { &mut self.dst }) = range;
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("iprange: `--src-range' or `--dst-range' must be specified".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        let family = out.family;
        out.maybe("--src-range", self.src, |range| range_text(range, family));
        out.maybe("--dst-range", self.dst, |range| range_text(range, family));
    }

    fn list(&self, out: &mut Line<'_>) {
        let family = out.family;
        for (name, asked) in [("source", self.src), ("destination", self.dst)] {
            if let Some(Maybe { not, value }) = asked {
                let not = if not { "! " } else { "" };
                out.word(&format!("{name} IP range {not}{}", range_text(value, family)));
            }
        }
    }
}

fn range_text((low, high): (Address, Address), family: Family) -> String {
    format!("{}-{}", values::address_text(low, family), values::address_text(high, family))
}

/// In the order of their bits.
const TYPES: [&str; 12] = [
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
];

/// Names may be cut short; the first that fits counts.
fn types(text: &str, family: Family) -> Result<AddressTypes, Fault> {
    let find = |word: &str| {
        let word = word.to_ascii_uppercase();
        let fits = |name: &&str| !word.is_empty() && name.starts_with(&word);
        TYPES.iter().position(fits).map(|bit| 1u16 << bit)
    };
    let bits = values::set(text, "address type", find)?.into_iter().fold(0, |all, bit| all | bit);
    let odd = bits & !AddressTypes::OF_V6.0;
    if family == Family::V6 && odd != 0 {
        let name = TYPES.get(odd.trailing_zeros() as usize).copied().unwrap_or("");
        return Err(format!("IPv6 has no address type {name}"));
    }
    Ok(AddressTypes(bits))
}

fn type_names(types: AddressTypes) -> String {
    let set = (0..).zip(TYPES).filter(|(bit, _)| types.0 >> bit & 1 == 1);
    set.map(|(_, name)| name).collect::<Vec<&str>>().join(",")
}

impl Text for AddrType {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let types = || Ok::<_, Fault>(Some(given.maybe(types(given.text(), given.family)?)));
        match given.name {
            "src-type" => self.src = types()?,
            "dst-type" => self.dst = types()?,
            "limit-iface-in" => self.limit = Some(Limit::In),
            _ => self.limit = Some(Limit::Out),
        }
        Ok(())
    }

    fn finish(&mut self, _: &Whole<'_>) -> Result<(), Fault> {
        match (self.src, self.dst) {
            (None, None) => {
                Err("addrtype: `--src-type' or `--dst-type' must be specified".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--src-type", self.src, type_names);
        out.maybe("--dst-type", self.dst, type_names);
        match self.limit {
            None => {}
            Some(Limit::In) => out.word("--limit-iface-in"),
            Some(Limit::Out) => out.word("--limit-iface-out"),
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("ADDRTYPE match");
        for (name, asked) in [("src-type", self.src), ("dst-type", self.dst)] {
            if let Some(Maybe { not, value }) = asked {
                let not = if not { "!" } else { "" };
                out.word(&format!("{name} {not}{}", type_names(value)));
            }
        }
        match self.limit {
            None => {}
            Some(Limit::In) => out.word("limit-in"),
            Some(Limit::Out) => out.word("limit-out"),
        }
    }
}

impl Text for RpFilter {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "loose" => self.loose = true,
            "validmark" => self.valid_mark = true,
            "accept-local" => self.accept_local = true,
            _ => self.invert = true,
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        self.each(out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("rpfilter");
        self.each(out, "");
    }
}

/// What `save` and `list` have in common.
trait Each {
    fn each(&self, out: &mut Line<'_>, dashes: &str);
}

impl Each for RpFilter {
    fn each(&self, out: &mut Line<'_>, dashes: &str) {
        for (set, name) in [
            (self.loose, "loose"),
            (self.valid_mark, "validmark"),
            (self.accept_local, "accept-local"),
            (self.invert, "invert"),
        ] {
            if set {
                out.word(&format!("{dashes}{name}"));
            }
        }
    }
}

fn mac(text: &str) -> Result<[u8; 6], Fault> {
    let byte = |word: &str| match word.len() {
        1 | 2 if word.bytes().all(|b| b.is_ascii_hexdigit()) => u8::from_str_radix(word, 16).ok(),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("`{text}' is not a MAC address"))
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

impl Text for Mac {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.0 = given.maybe(mac(given.text())?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--mac-source", Some(self.0), mac_text);
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.0.not { "! " } else { "" };
        out.word(&format!("MAC {not}{}", mac_text(self.0.value)));
    }
}

/// The first name of each is printed.
const SENT_TO: [(&str, SentTo); 7] = [
    ("unicast", SentTo::Us),
    ("broadcast", SentTo::All),
    ("multicast", SentTo::Group),
    ("otherhost", SentTo::Other),
    ("host", SentTo::Us),
    ("bcast", SentTo::All),
    ("mcast", SentTo::Group),
];

fn sent_to_name(sent: SentTo) -> &'static str {
    SENT_TO.iter().find(|(_, known)| *known == sent).map_or("", |(name, _)| name)
}

impl Text for PktType {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let known = SENT_TO.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let (_, sent) = known.ok_or_else(|| format!("bad packet type `{text}'"))?;
        self.0 = given.maybe(*sent);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--pkt-type", Some(self.0), |sent| sent_to_name(sent).to_owned());
    }

    fn list(&self, out: &mut Line<'_>) {
        let equals = if self.0.not { "!=" } else { "=" };
        out.word(&format!("PKTTYPE {equals} {}", sent_to_name(self.0.value)));
    }
}
