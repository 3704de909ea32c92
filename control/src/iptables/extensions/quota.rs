//! `-m quota`.

use dataplane::rules::kept::Kept;
use dataplane::rules::matches::quota::Quota;
use dataplane::rules::matches::{Match, Maybe};

use super::super::extension::{Extension, Given, Text, opt};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const QUOTA: Extension<Match> = Extension {
    name: "quota",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("quota").must()],
    begin: |_| Match::Quota(Quota { bytes: Maybe::is(0), used: Kept::default() }),
};

impl Text for Quota {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.bytes = given.maybe(values::long_number(given.text())?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--quota", Some(self.bytes), |bytes| bytes.to_string());
    }

    /// A list does not say whether it is negated.
    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("quota: {} bytes", self.bytes.value));
    }
}
