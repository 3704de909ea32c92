//! `-m length`, `ttl`, `hl`, `tos`, `dscp`, `ecn`, `tcpmss`, `esp` and IPv4's `ah`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::head::{Compare, Dscp, Ecn, Length, Life, Mss, Spi, Tos};
use dataplane::rules::matches::{Match, Maybe};
use dataplane::wire::headers::protocol;

use super::super::extension::{Extension, Given, Text, Whole, opt, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const LENGTH: Extension<Match> = Extension {
    name: "length",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("length").must()],
    begin: |_| Match::Length(Length(Maybe::is((0, 0)))),
};

pub(super) const TTL: Extension<Match> = Extension {
    name: "ttl",
    alias: "",
    family: Some(Family::V4),
    protos: &[],
    implied: false,
    options: &[
        opt("ttl-eq").or("ttl").group(1),
        valued("ttl-lt").group(1),
        valued("ttl-gt").group(1),
    ],
    begin: |_| Match::Ttl(Life { compare: Compare::Equal, value: 0 }),
};

pub(super) const HL: Extension<Match> = Extension {
    name: "hl",
    alias: "",
    family: Some(Family::V6),
    protos: &[],
    implied: false,
    options: &[opt("hl-eq").or("hl").group(1), valued("hl-lt").group(1), valued("hl-gt").group(1)],
    begin: |_| Match::Hl(Life { compare: Compare::Equal, value: 0 }),
};

pub(super) const TOS: Extension<Match> = Extension {
    name: "tos",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("tos").must()],
    begin: |_| Match::Tos(Tos { value: Maybe::is(0), mask: 0 }),
};

pub(super) const DSCP: Extension<Match> = Extension {
    name: "dscp",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("dscp").group(1), opt("dscp-class").group(1)],
    begin: |_| Match::Dscp(Dscp(Maybe::is(0))),
};

pub(super) const ECN: Extension<Match> = Extension {
    name: "ecn",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("ecn-tcp-cwr").takes(0), opt("ecn-tcp-ece").takes(0), opt("ecn-ip-ect")],
    begin: |_| Match::Ecn(Ecn::default()),
};

pub(super) const TCPMSS: Extension<Match> = Extension {
    name: "tcpmss",
    alias: "",
    family: None,
    protos: &[proto::TCP],
    implied: false,
    options: &[opt("mss").must()],
    begin: |_| Match::Mss(Mss(Maybe::is((0, 0)))),
};

pub(super) const ESP: Extension<Match> = Extension {
    name: "esp",
    alias: "",
    family: None,
    protos: &[protocol::ESP],
    implied: true,
    options: &[opt("espspi")],
    begin: |_| Match::Esp(Spi::ALL),
};

pub(super) const AH4: Extension<Match> = Extension {
    name: "ah",
    alias: "",
    family: Some(Family::V4),
    protos: &[protocol::AH],
    implied: true,
    options: &[opt("ahspi")],
    begin: |_| Match::Ah4(Spi::ALL),
};

/// A number up to `max`.
pub(super) fn up_to(text: &str, max: u32) -> Result<u32, Fault> {
    match values::number(text)? {
        number if number <= max => Ok(number),
        _ => Err(format!("`{text}' is above {max}")),
    }
}

/// `number`, `low:high`, `low:` and `:high`, up to `max`.
pub(super) fn bounds(text: &str, max: u32) -> Result<(u32, u32), Fault> {
    let one = |word: &str, open| if word.is_empty() { Ok(open) } else { up_to(word, max) };
    match text.split_once(':') {
        Some((low, high)) => Ok((one(low, 0)?, one(high, max)?)),
        None => up_to(text, max).map(|number| (number, number)),
    }
}

/// As [`bounds`] reads it.
pub(super) fn bounds_text((low, high): (u32, u32)) -> String {
    if low == high { low.to_string() } else { format!("{low}:{high}") }
}

fn short(text: &str) -> Result<(u16, u16), Fault> {
    bounds(text, u16::MAX.into()).map(|(low, high)| (low as u16, high as u16))
}

fn short_text((low, high): (u16, u16)) -> String {
    bounds_text((low.into(), high.into()))
}

fn sign(not: bool) -> &'static str {
    if not { "!" } else { "" }
}

impl Text for Length {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.0 = given.maybe(short(given.text())?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--length", Some(self.0), short_text);
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("length {}{}", sign(self.0.not), short_text(self.0.value)));
    }
}

impl Text for Life {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.value = up_to(given.text(), u8::MAX.into())? as u8;
        self.compare = match given.name {
            "ttl-lt" | "hl-lt" => Compare::Less,
            "ttl-gt" | "hl-gt" => Compare::Greater,
            _ if given.not => Compare::NotEqual,
            _ => Compare::Equal,
        };
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => {
                let name = whole.name;
                Err(format!(
                    "{name}: one of `--{name}-eq', `--{name}-lt' and `--{name}-gt' must be \
                             specified"
                ))
            }
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        let name = if out.family == Family::V4 { "--ttl-" } else { "--hl-" };
        let (not, how) = match self.compare {
            Compare::Equal => (false, "eq"),
            Compare::NotEqual => (true, "eq"),
            Compare::Less => (false, "lt"),
            Compare::Greater => (false, "gt"),
        };
        let value = Maybe { not, value: self.value };
        out.maybe(&format!("{name}{how}"), Some(value), |value| value.to_string());
    }

    fn list(&self, out: &mut Line<'_>) {
        let name = if out.family == Family::V4 { "TTL" } else { "HL" };
        let how = match self.compare {
            Compare::Equal => "==",
            Compare::NotEqual => "!=",
            Compare::Less => "<",
            Compare::Greater => ">",
        };
        out.word(&format!("{name} match {name} {how} {}", self.value));
    }
}

impl Text for Tos {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let (value, mask) = tos(given.text())?;
        (self.value, self.mask) = (given.maybe(value), mask);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let mask = self.mask;
        out.maybe("--tos", Some(self.value), |value| format!("0x{value:02x}/0x{mask:02x}"));
    }

    fn list(&self, out: &mut Line<'_>) {
        let Tos { value: Maybe { not, value }, mask } = *self;
        let known = TOS_NAMES.iter().find(|(_, known)| *known == value);
        out.word(&match known.filter(|_| mask == TOS_MASK && !out.numeric) {
            Some((name, _)) => format!("tos match{} {name}", sign(not)),
            None => format!("tos match{}0x{value:02x}/0x{mask:02x}", sign(not)),
        });
    }
}

/// Names of the types of service, under [`TOS_MASK`].
const TOS_NAMES: [(&str, u8); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];

/// Bits that a named type of service decides.
const TOS_MASK: u8 = 0x3f;

/// The code point of a class, as RFC 2474, 2597 and 3246 number them.
pub(super) fn dscp(class: &str) -> Option<u8> {
    let class = class.to_ascii_uppercase();
    match class.as_bytes() {
        b"BE" => Some(0),
        b"EF" => Some(0x2e),
        [b'C', b'S', level @ b'0'..=b'7'] => Some((level - b'0') << 3),
        [b'A', b'F', level @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
            Some((level - b'0') << 3 | (drop - b'0') << 1)
        }
        _ => None,
    }
}

/// A value, a value and a mask, or a name.
pub(super) fn tos(text: &str) -> Result<(u8, u8), Fault> {
    let byte = |word| up_to(word, u8::MAX.into()).map(|number| number as u8);
    if let Some((value, mask)) = text.split_once('/') {
        return Ok((byte(value)?, byte(mask)?));
    }
    if let Ok(value) = byte(text) {
        return Ok((value, u8::MAX));
    }
    let known = TOS_NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let (_, value) = known.ok_or_else(|| format!("unknown TOS `{text}'"))?;
    Ok((*value, TOS_MASK))
}

impl Text for Dscp {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        self.0 = given.maybe(match given.name {
            "dscp" => up_to(text, 63)? as u8,
            _ => dscp(text).ok_or_else(|| format!("unknown DSCP class `{text}'"))?,
        });
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("dscp: `--dscp' or `--dscp-class' must be specified".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--dscp", Some(self.0), |value| format!("0x{value:02x}"));
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("DSCP match {}0x{:02x}", sign(self.0.not), self.0.value));
    }
}

impl Text for Ecn {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "ecn-tcp-cwr" => self.cwr = Some(given.maybe(())),
            "ecn-tcp-ece" => self.ece = Some(given.maybe(())),
            _ => self.ip = Some(given.maybe(up_to(given.text(), 3)? as u8)),
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        if whole.seen.is_empty() {
            return Err("ecn: at least one option is required".to_owned());
        }
        let flags = self.ece.is_some() || self.cwr.is_some();
        if flags && whole.rule.basics.proto != Some(Maybe::is(proto::TCP)) {
            return Err("ecn: the flags of TCP need `-p tcp'".to_owned());
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--ecn-tcp-ece", self.ece, |()| String::new());
        out.maybe("--ecn-tcp-cwr", self.cwr, |()| String::new());
        out.maybe("--ecn-ip-ect", self.ip, |value| value.to_string());
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("ECN match");
        for (name, asked) in [("ECE", self.ece), ("CWR", self.cwr)] {
            if let Some(asked) = asked {
                out.word(&format!("{}{name}", sign(asked.not)));
            }
        }
        if let Some(Maybe { not, value }) = self.ip {
            out.word(&format!("{}ECT={value}", sign(not)));
        }
    }
}

impl Text for Mss {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let (low, high) = short(given.text())?;
        if low > high {
            return Err(format!("invalid range `{}' (low end above high end)", given.text()));
        }
        self.0 = given.maybe((low, high));
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--mss", Some(self.0), short_text);
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("tcpmss match {}{}", sign(self.0.not), short_text(self.0.value)));
    }
}

/// `spi:5`, `spis:!5:6`, or nothing for all.
pub(super) fn spi_text(name: &str, spi: Spi) -> Option<String> {
    let Maybe { not, value: (low, high) } = spi.0;
    let many = if low == high { "" } else { "s" };
    (spi != Spi::ALL).then(|| format!("{name}{many}:{}{}", sign(not), bounds_text((low, high))))
}

/// What `--espspi` and its like ask for; that of none at all could not be read back.
pub(super) fn spi(given: &Given<'_>) -> Result<Spi, Fault> {
    let spi = Spi(given.maybe(bounds(given.text(), u32::MAX)?));
    if given.not && spi.0.value == Spi::ALL.0.value {
        return Err(format!("rule would never match `! {}'", given.text()));
    }
    Ok(spi)
}

impl Text for Spi {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        *self = spi(given)?;
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let name = if out.extension == "esp" { "--espspi" } else { "--ahspi" };
        out.maybe(name, Some(self.0).filter(|_| *self != Spi::ALL), bounds_text);
    }

    fn list(&self, out: &mut Line<'_>) {
        let name = out.extension;
        out.word(name);
        match spi_text("spi", *self) {
            Some(text) => out.word(&text),
            None if name == "ah" => out.word(""),
            None => {}
        }
    }
}
