//! `-j TTL` and `-j HL`.

use dataplane::rules::edit::ttl::SetTtl;
use dataplane::rules::hook::Family;
use dataplane::rules::targets::Target;

use super::super::extension::{Extension, Given, Opt, Text, Whole, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

const fn row(
    name: &'static str,
    family: Family,
    options: &'static [Opt],
    begin: fn(Family) -> Target,
) -> Extension<Target> {
    Extension { name, alias: "", family: Some(family), protos: &[], implied: false, options, begin }
}

pub(super) const SET_TTL: Extension<Target> = row(
    "TTL",
    Family::V4,
    &[valued("ttl-set").group(1), valued("ttl-dec").group(1), valued("ttl-inc").group(1)],
    |_| Target::Ttl(SetTtl::To(0)),
);

pub(super) const SET_HL: Extension<Target> = row(
    "HL",
    Family::V6,
    &[valued("hl-set").group(1), valued("hl-dec").group(1), valued("hl-inc").group(1)],
    |_| Target::Hl(SetTtl::To(0)),
);

impl Text for SetTtl {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let by = match values::up_to(text, 255)? as u8 {
            0 if !given.name.ends_with("set") => {
                return Err("it cannot change by 0".to_owned());
            }
            number => number,
        };
        *self = match given.name {
            "ttl-set" | "hl-set" => SetTtl::To(by),
            "ttl-inc" | "hl-inc" => SetTtl::More(by),
            _ => SetTtl::Less(by),
        };
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err(format!("{}: you must specify an action", whole.name)),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        let (name, value) = match self {
            SetTtl::To(value) => ("set", value),
            SetTtl::More(value) => ("inc", value),
            SetTtl::Less(value) => ("dec", value),
        };
        let target = out.extension.to_ascii_lowercase();
        out.option(&format!("--{target}-{name}"), &value.to_string());
    }

    fn list(&self, out: &mut Line<'_>) {
        let (does, value) = match self {
            SetTtl::To(value) => ("set to", value),
            SetTtl::More(value) => ("increment by", value),
            SetTtl::Less(value) => ("decrement by", value),
        };
        let target = out.extension;
        out.word(&format!("{target} {does} {value}"));
    }
}
