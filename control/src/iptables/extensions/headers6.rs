//! `-m frag`, `hbh`, `dst`, `rt`, `ipv6header` and IPv6's `ah`.

use dataplane::rules::hook::Family;
use dataplane::rules::matches::head::Spi;
use dataplane::rules::matches::headers6::{Ah, Frag, HeaderKinds, Options, Rt};
use dataplane::rules::matches::{Match, Maybe};

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};
use super::head::{bounds, bounds_text, spi, spi_text};

pub(super) const AH6: Extension<Match> = Extension {
    name: "ah",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[opt("ahspi"), opt("ahlen"), flag("ahres")],
    begin: |_| Match::Ah6(Ah { spi: Spi::ALL, length: None, reserved: false }),
};

pub(super) const FRAG: Extension<Match> = Extension {
    name: "frag",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[
        opt("fragid"),
        opt("fraglen"),
        flag("fragres"),
        flag("fragfirst"),
        flag("fragmore").group(1),
        flag("fraglast").group(1),
    ],
    begin: |_| {
        let (id, length, reserved, first, more) = (Spi::ALL, None, false, false, None);
        Match::Frag(Frag { id, length, reserved, first, more })
    },
};

pub(super) const HBH: Extension<Match> = Extension {
    name: "hbh",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[opt("hbh-len"), valued("hbh-opts")],
    begin: |_| Match::Hbh(Box::default()),
};

pub(super) const DST: Extension<Match> = Extension {
    name: "dst",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[opt("dst-len"), valued("dst-opts")],
    begin: |_| Match::Dst(Box::default()),
};

pub(super) const RT: Extension<Match> = Extension {
    name: "rt",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[
        opt("rt-type"),
        opt("rt-segsleft"),
        opt("rt-len"),
        flag("rt-0-res"),
        valued("rt-0-addrs"),
        flag("rt-0-not-strict"),
    ],
    begin: |_| Match::Rt(Box::default()),
};

pub(super) const IPV6HEADER: Extension<Match> = Extension {
    name: "ipv6header",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[opt("header").must(), flag("soft")],
    begin: |_| Match::HeaderKinds(HeaderKinds { kinds: Maybe::is(0), soft: false }),
};

fn number(given: &Given<'_>) -> Result<Option<Maybe<u32>>, Fault> {
    values::number(given.text()).map(|number| Some(given.maybe(number)))
}

/// ` length:!8`.
fn list_length(length: Option<Maybe<u32>>, out: &mut Line<'_>) {
    if let Some(Maybe { not, value }) = length {
        out.word(&format!("length:{}{value}", if not { "!" } else { "" }));
    }
}

impl Text for Ah {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "ahspi" => self.spi = spi(given)?,
            "ahlen" => self.length = number(given)?.filter(|l| l.value != 0),
            _ => self.reserved = true,
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--ahspi", Some(self.spi.0).filter(|_| self.spi != Spi::ALL), bounds_text);
        out.maybe("--ahlen", self.length, |length| length.to_string());
        if self.reserved {
            out.word("--ahres");
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("ah");
        let mut text = spi_text("spi", self.spi).unwrap_or_default();
        if let Some(Maybe { not, value }) = self.length {
            text += &format!("length:{}{value}", if not { "!" } else { "" });
        }
        out.word(&text);
        if self.reserved {
            out.word("reserved");
        }
    }
}

impl Text for Frag {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "fragid" => self.id = spi(given)?,
            "fraglen" => self.length = number(given)?,
            "fragres" => self.reserved = true,
            "fragfirst" => self.first = true,
            name => self.more = Some(name == "fragmore"),
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--fragid", Some(self.id.0).filter(|_| self.id != Spi::ALL), bounds_text);
        out.maybe("--fraglen", self.length, |length| length.to_string());
        for (set, name) in [
            (self.reserved, "--fragres"),
            (self.first, "--fragfirst"),
            (self.more == Some(true), "--fragmore"),
            (self.more == Some(false), "--fraglast"),
        ] {
            if set {
                out.word(name);
            }
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("frag");
        out.word(&spi_text("id", self.id).unwrap_or_default());
        list_length(self.length, out);
        for (set, name) in [
            (self.reserved, "reserved"),
            (self.first, "first"),
            (self.more == Some(true), "more"),
            (self.more == Some(false), "last"),
        ] {
            if set {
                out.word(name);
            }
        }
    }
}

impl Text for Options {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        if !given.name.ends_with("opts") {
            self.length = number(given)?;
            return Ok(());
        }
        let byte = |word: &str| match values::number(word)? {
            number @ 0..=255 => Ok(number as u8),
            _ => Err(format!("`{word}' is above 255")),
        };
        let option = |word: &str| match word.split_once(':') {
            // 255 is any length to the kernel, too.
            Some((kind, length)) => Ok((byte(kind)?, Some(byte(length)?).filter(|&l| l < 255))),
            None => Ok::<_, Fault>((byte(word)?, None)),
        };
        self.options = given.text().split(',').map(option).collect::<Result<_, _>>()?;
        if self.options.len() > Options::MAX {
            return Err(format!("more than {} options", Options::MAX));
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let name = out.extension;
        out.maybe(&format!("--{name}-len"), self.length, |length| length.to_string());
        if !self.options.is_empty() {
            out.option(&format!("--{name}-opts"), &options_text(&self.options));
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(out.extension);
        list_length(self.length, out);
        if !self.options.is_empty() {
            out.option("opts", &options_text(&self.options));
        }
    }
}

fn options_text(options: &[(u8, Option<u8>)]) -> String {
    let one = |&(kind, length): &(u8, Option<u8>)| match length {
        Some(length) => format!("{kind}:{length}"),
        None => kind.to_string(),
    };
    options.iter().map(one).collect::<Vec<String>>().join(",")
}

impl Text for Rt {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "rt-type" => self.kind = number(given)?,
            "rt-segsleft" => self.left = Some(given.maybe(bounds(text, u32::MAX)?)),
            "rt-len" => self.length = number(given)?,
            name if self.kind != Some(Maybe::is(0)) => {
                return Err(format!("`--rt-type 0' is needed before `--{name}'"));
            }
            "rt-0-res" => self.reserved = true,
            "rt-0-addrs" => {
                let one = |word: &str| {
                    let address = values::address(word, given.family);
                    address.ok_or_else(|| format!("`{word}' is not an IPv6 address"))
                };
                self.addresses = text.split(',').map(one).collect::<Result<_, _>>()?;
                if self.addresses.len() > Options::MAX {
                    return Err(format!("more than {} addresses", Options::MAX));
                }
            }
            _ if self.addresses.is_empty() => {
                return Err("`--rt-0-addrs' is needed before `--rt-0-not-strict'".to_owned());
            }
            _ => self.not_strict = true,
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        // A range of everything asks nothing and cannot be told from none.
        self.left = self.left.filter(|left| left.not || left.value != (0, u32::MAX));
        match whole.seen {
            seen if seen.contains(&"rt-0-not-strict") && self.addresses.is_empty() => {
                Err("rt: `--rt-0-not-strict' needs `--rt-0-addrs'".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--rt-type", self.kind, |kind| kind.to_string());
        out.maybe("--rt-segsleft", self.left, bounds_text);
        out.maybe("--rt-len", self.length, |length| length.to_string());
        self.zero(out, "--rt-0-res", "--rt-0-addrs", "--rt-0-not-strict");
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("rt");
        if let Some(Maybe { not, value }) = self.kind {
            // As iptables has it, a number with a sign.
            out.word(&format!("type:{}{}", if not { "!" } else { "" }, value as i32));
        }
        if let Some(Maybe { not, value: (low, high) }) = self.left {
            let many = if low == high { "" } else { "s" };
            let not = if not { "!" } else { "" };
            out.word(&format!("segsleft{many}:{not}{}", bounds_text((low, high))));
        }
        list_length(self.length, out);
        self.zero(out, "reserved", "0-addrs", "0-not-strict");
    }
}

/// What `save` and `list` have in common.
trait Zero {
    fn zero(&self, out: &mut Line<'_>, reserved: &str, addresses: &str, not_strict: &str);
}

impl Zero for Rt {
    fn zero(&self, out: &mut Line<'_>, reserved: &str, addresses: &str, not_strict: &str) {
        if self.reserved {
            out.word(reserved);
        }
        if !self.addresses.is_empty() {
            let family = out.family;
            let text = self.addresses.iter().map(|a| values::address_text(*a, family));
            out.option(addresses, &text.collect::<Vec<String>>().join(","));
        }
        if self.not_strict {
            out.word(not_strict);
        }
    }
}

/// Names, the long one first, which is printed; in the order of [`HeaderKinds::KINDS`].
const NAMES: [[&str; 2]; 8] = [
    ["hop-by-hop", "hop"],
    ["ipv6-opts", "dst"],
    ["ipv6-route", "route"],
    ["ipv6-frag", "frag"],
    ["ah", "auth"],
    ["esp", "esp"],
    ["ipv6-nonxt", "none"],
    ["protocol", "prot"],
];

fn header_kinds(text: &str) -> Result<u8, Fault> {
    let find = |word: &str| {
        let rows = || NAMES.iter().zip(HeaderKinds::KINDS);
        let named = rows().find(|(names, _)| names.contains(&word));
        let numbered = || rows().find(|(_, (number, _))| word.parse() == Ok(*number));
        named.or_else(numbered).map(|(_, (_, bit))| bit)
    };
    Ok(values::set(text, "header", find)?.into_iter().fold(0, |all, bit| all | bit))
}

fn header_names(kinds: u8) -> String {
    let set = NAMES.iter().zip(HeaderKinds::KINDS).filter(|(_, (_, bit))| kinds & bit != 0);
    set.map(|(names, _)| names[0]).collect::<Vec<&str>>().join(",")
}

impl Text for HeaderKinds {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "header" => self.kinds = given.maybe(header_kinds(given.text())?),
            _ => self.soft = true,
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--header", Some(self.kinds), header_names);
        if self.soft {
            out.word("--soft");
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        let Maybe { not, value } = self.kinds;
        let not = if not { "!" } else { "" };
        out.word(&match out.numeric {
            true => format!("ipv6header flags:{not}0x{value:X}"),
            false => format!("ipv6header flags:{not}{}", header_names(value)),
        });
        if self.soft {
            out.word("soft");
        }
    }
}
