//! `-m mark` and `-j MARK`.

use dataplane::rules::matches::{Masked, Match, Maybe};
use dataplane::rules::targets::{SetMark, Target};

use super::super::extension::{Extension, Given, Text, Whole, opt, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const MARK: Extension<Match> = Extension {
    name: "mark",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("mark").must()],
    begin: |_| Match::Mark(Maybe::is(Masked { value: 0, mask: 0 })),
};

impl Text for Maybe<Masked> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        *self = given.maybe(values::masked(given.text())?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--mark", Some(*self), |masked| masked_text(masked.value, masked.mask));
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.not { "! " } else { "" };
        out.word(&format!("mark match {not}{}", masked_text(self.value.value, self.value.mask)));
    }
}

/// A mark and, where it does not cover all bits, its mask.
pub(super) fn masked_text(value: u32, mask: u32) -> String {
    match mask {
        u32::MAX => format!("0x{value:x}"),
        mask => format!("0x{value:x}/0x{mask:x}"),
    }
}

pub(super) const SET_MARK: Extension<Target> = Extension {
    name: "MARK",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("set-xmark").group(1),
        valued("set-mark").group(1),
        valued("and-mark").group(1),
        valued("or-mark").group(1),
        valued("xor-mark").group(1),
    ],
    begin: |_| Target::Mark(SetMark { value: 0, mask: 0 }),
};

impl Text for SetMark {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        *self = match given.name {
            "set-xmark" => {
                let mark = values::masked(text)?;
                SetMark { value: mark.value, mask: mark.mask }
            }
            "set-mark" => {
                let mark = values::masked(text)?;
                SetMark { value: mark.value, mask: mark.value | mark.mask }
            }
            "and-mark" => SetMark { value: 0, mask: !values::number(text)? },
            "or-mark" => {
                let bits = values::number(text)?;
                SetMark { value: bits, mask: bits }
            }
            _ => SetMark { value: values::number(text)?, mask: 0 },
        };
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("MARK: option `--set-xmark' must be specified".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--set-xmark", &format!("0x{:x}/0x{:x}", self.value, self.mask));
    }

    fn list(&self, out: &mut Line<'_>) {
        let SetMark { value, mask } = *self;
        out.word(&match mask {
            _ if value == 0 => format!("MARK and 0x{:x}", !mask),
            _ if value == mask => format!("MARK or 0x{value:x}"),
            0 => format!("MARK xor 0x{value:x}"),
            u32::MAX => format!("MARK set 0x{value:x}"),
            _ => format!("MARK xset 0x{value:x}/0x{mask:x}"),
        });
    }
}
