//! `-j TOS` and `-j DSCP`.

use dataplane::rules::edit::tos::SetTos;
use dataplane::rules::hook::Family;
use dataplane::rules::targets::Target;

use super::super::extension::{Extension, Given, Opt, Text, Whole, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

const fn row(
    name: &'static str,
    options: &'static [Opt],
    begin: fn(Family) -> Target,
) -> Extension<Target> {
    Extension { name, alias: "", family: None, protos: &[], implied: false, options, begin }
}

pub(super) const SET_TOS: Extension<Target> = row(
    "TOS",
    &[
        valued("set-tos").group(1),
        valued("and-tos").group(1),
        valued("or-tos").group(1),
        valued("xor-tos").group(1),
    ],
    |_| Target::Tos(SetTos::default()),
);

pub(super) const SET_DSCP: Extension<Target> =
    row("DSCP", &[valued("set-dscp").group(1), valued("set-dscp-class").group(1)], |_| {
        Target::Dscp(0)
    });

/// Classes of service with a name (RFC 1349).
const NAMES: [(&str, u8); 5] = [
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];

/// The bits that such a name speaks of.
const NAMED: u8 = 0x3f;

impl Text for SetTos {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let byte = |text| values::up_to(text, 255).map(|byte| byte as u8);
        *self = match given.name {
            "set-tos" => set_tos(text)?,
            "and-tos" => SetTos { value: 0, mask: !byte(text)? },
            "or-tos" => {
                let bits = byte(text)?;
                SetTos { value: bits, mask: bits }
            }
            _ => SetTos { value: byte(text)?, mask: 0 },
        };
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("TOS: an action is required".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--set-tos", &format!("0x{:02x}/0x{:02x}", self.value, self.mask));
    }

    fn list(&self, out: &mut Line<'_>) {
        let SetTos { value, mask } = *self;
        let named = NAMES.iter().find(|(_, named)| *named == value).filter(|_| mask == NAMED);
        out.word(&match (named, mask) {
            _ if out.numeric => format!("TOS set 0x{value:02x}/0x{mask:02x}"),
            // Blanks as iptables sets them.
            (Some((name, _)), _) => format!(" TOS set{name}"),
            _ if value == 0 => format!("TOS and 0x{:02x}", !mask),
            _ if value == mask => format!("TOS or 0x{value:02x}"),
            (None, 0) => format!("TOS xor 0x{value:02x}"),
            _ => format!("TOS set 0x{value:02x}/0x{mask:02x}"),
        });
    }
}

fn set_tos(text: &str) -> Result<SetTos, Fault> {
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, value)) = named {
        return Ok(SetTos { value: *value, mask: NAMED });
    }
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("symbolic name `{text}' is unknown"));
    }
    let byte = |word| values::up_to(word, 255).map(|byte| byte as u8);
    match text.split_once('/') {
        Some((value, mask)) => Ok(SetTos { value: byte(value)?, mask: byte(mask)? }),
        None => Ok(SetTos { value: byte(text)?, mask: 0xff }),
    }
}

/// The DSCP of a class: CS0 to CS7, BE, AF11 to AF43, EF.
fn class(name: &str) -> Option<u8> {
    let name = name.to_ascii_uppercase();
    let digit = |byte: u8, most: u8| (b'0'..=most).contains(&byte).then(|| byte - b'0');
    Some(match name.as_bytes() {
        b"BE" => 0,
        b"EF" => 0x2e,
        [b'C', b'S', class] => digit(*class, b'7')? << 3,
        [b'A', b'F', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => {
            digit(*class, b'4')? << 3 | digit(*drop, b'3')? << 1
        }
        _ => return None,
    })
}

/// DSCP's number.
impl Text for u8 {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        *self = match given.name {
            "set-dscp" => values::up_to(text, 63)? as u8,
            _ => class(text).ok_or_else(|| format!("invalid DSCP value `{text}'"))?,
        };
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("DSCP: parameter `--set-dscp' is required".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--set-dscp", &format!("0x{self:02x}"));
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("DSCP set 0x{self:02x}"));
    }
}
