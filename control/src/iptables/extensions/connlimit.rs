//! `-m connlimit`.

use dataplane::rules::kept::Kept;
use dataplane::rules::matches::Match;
use dataplane::rules::matches::connlimit::Connlimit;

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};
use super::hashlimit::mask;

pub(super) const CONNLIMIT: Extension<Match> = Extension {
    name: "connlimit",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("connlimit-upto").group(1),
        opt("connlimit-above").group(1),
        valued("connlimit-mask"),
        flag("connlimit-saddr").group(2),
        flag("connlimit-daddr").group(2),
    ],
    begin: |family| {
        let (mask, number) = (family.address_bits(), Kept::default());
        Match::Connlimit(Connlimit { limit: 0, upto: false, dst: false, mask, number })
    },
};

impl Text for Connlimit {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "connlimit-mask" => self.mask = mask(text, given.family)?,
            "connlimit-saddr" => self.dst = false,
            "connlimit-daddr" => self.dst = true,
            name => {
                self.limit = values::number(text)?;
                self.upto = (name == "connlimit-upto") != given.not;
            }
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let limits = ["connlimit-upto", "connlimit-above"];
        match whole.seen.iter().any(|name| limits.contains(name)) {
            true => Ok(()),
            false => Err("connlimit: one of `--connlimit-above' and `--connlimit-upto' must be \
                          specified"
                .to_owned()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        let option = if self.upto { "--connlimit-upto" } else { "--connlimit-above" };
        out.option(option, &self.limit.to_string());
        out.option("--connlimit-mask", &self.mask.to_string());
        out.word(if self.dst { "--connlimit-daddr" } else { "--connlimit-saddr" });
    }

    fn list(&self, out: &mut Line<'_>) {
        let side = if self.dst { "dst" } else { "src" };
        let sign = if self.upto { "<=" } else { ">" };
        out.word(&format!("#conn {side}/{} {sign} {}", self.mask, self.limit));
    }
}
