//! `-j CONNMARK`, as `libxt_CONNMARK` reads and writes it.

use dataplane::rules::targets::Target;
use dataplane::rules::targets::connmark::{ConnMark, MarkMode, Shift};

use super::super::extension::{Extension, Given, Text, Whole, flag, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};
use super::mark::masked_text;

/// What is done with the marks, of which there has to be one.
const MODES: [&str; 7] =
    ["set-xmark", "set-mark", "and-mark", "or-mark", "xor-mark", "save-mark", "restore-mark"];

pub(super) const SET_CONNMARK: Extension<Target> = Extension {
    name: "CONNMARK",
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
        flag("save-mark").group(1),
        flag("restore-mark").group(1),
        valued("left-shift-mark"),
        valued("right-shift-mark"),
        valued("ctmask"),
        valued("nfmask"),
        valued("mask"),
    ],
    begin: |_| {
        Target::Connmark(ConnMark {
            mode: MarkMode::Set,
            mark: 0,
            ct_mask: u32::MAX,
            packet_mask: u32::MAX,
            shift: Shift::Left(0),
        })
    },
};

impl Text for ConnMark {
    /// In the order of the words: a mask behind a mark is the mask, one before it is forgotten.
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let mut set = |mark, ct_mask| (self.mark, self.ct_mask) = (mark, ct_mask);
        match given.name {
            "set-xmark" => {
                let mark = values::masked(text)?;
                set(mark.value, mark.mask);
            }
            "set-mark" => {
                let mark = values::masked(text)?;
                set(mark.value, mark.value | mark.mask);
            }
            "and-mark" => set(0, !values::number(text)?),
            "or-mark" => {
                let bits = values::number(text)?;
                set(bits, bits);
            }
            "xor-mark" => set(values::number(text)?, 0),
            "save-mark" => self.mode = MarkMode::Save,
            "restore-mark" => self.mode = MarkMode::Restore,
            "left-shift-mark" => self.shift = Shift::Left(shift(text)?),
            "right-shift-mark" => self.shift = Shift::Right(shift(text)?),
            "ctmask" => self.ct_mask = values::number(text)?,
            "nfmask" => self.packet_mask = values::number(text)?,
            _ => {
                self.ct_mask = values::number(text)?;
                self.packet_mask = self.ct_mask;
            }
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        if !whole.seen.iter().any(|name| MODES.contains(name)) {
            return Err("CONNMARK: no operation specified".to_owned());
        }
        for other in ["ctmask", "nfmask"] {
            if whole.seen.contains(&"mask") && whole.seen.contains(&other) {
                return Err(format!(
                    "CONNMARK: option `--{other}' cannot be used together with `--mask'"
                ));
            }
        }
        if self.mode == MarkMode::Set {
            // It is neither looked at nor saved.
            self.packet_mask = u32::MAX;
        }
        if self.shift == Shift::Right(0) {
            self.shift = Shift::Left(0);
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let masks = format!("--nfmask 0x{:x} --ctmask 0x{:x}", self.packet_mask, self.ct_mask);
        match self.mode {
            MarkMode::Set => {
                out.option("--set-xmark", &format!("0x{:x}/0x{:x}", self.mark, self.ct_mask));
            }
            MarkMode::Save => out.option("--save-mark", &masks),
            MarkMode::Restore => out.option("--restore-mark", &masks),
        }
        shifted(self, out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        let ConnMark { mark, ct_mask, packet_mask, .. } = *self;
        let done = match (self.mode, mark) {
            (MarkMode::Set, 0) => format!("and 0x{:x}", !ct_mask),
            (MarkMode::Set, bits) if bits == ct_mask => format!("or 0x{bits:x}"),
            (MarkMode::Set, bits) if ct_mask == 0 => format!("xor 0x{bits:x}"),
            (MarkMode::Set, bits) if ct_mask == u32::MAX => format!("set 0x{bits:x}"),
            (MarkMode::Set, bits) => format!("xset {}", masked_text(bits, ct_mask)),
            (mode, _) => {
                let save = mode == MarkMode::Save;
                let name = if save { "save" } else { "restore" };
                match (packet_mask, ct_mask) {
                    (u32::MAX, u32::MAX) => name.to_owned(),
                    (mask, same) if mask == same => format!("{name} mask 0x{mask:x}"),
                    _ if save => format!("save nfmask 0x{packet_mask:x} ctmask ~0x{ct_mask:x}"),
                    _ => format!("restore ctmask 0x{ct_mask:x} nfmask ~0x{packet_mask:x}"),
                }
            }
        };
        out.word(&format!("CONNMARK {done}"));
        shifted(self, out, "");
    }
}

fn shift(text: &str) -> Result<u8, Fault> {
    match values::number(text)? {
        count @ 0..32 => Ok(count as u8),
        _ => Err(format!("`{text}' is not below 32")),
    }
}

fn shifted(mark: &ConnMark, out: &mut Line<'_>, dashes: &str) {
    let (side, count) = match mark.shift {
        Shift::Left(count) => ("left", count),
        Shift::Right(count) => ("right", count),
    };
    if count != 0 {
        out.option(&format!("{dashes}{side}-shift-mark"), &count.to_string());
    }
}
