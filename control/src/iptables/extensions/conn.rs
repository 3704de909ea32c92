//! `-m connmark` and `-m helper`.

use dataplane::rules::matches::conn::{Connmark, HelperName};
use dataplane::rules::matches::{Masked, Match, Maybe};

use super::super::extension::{Extension, Given, Text, opt};
use super::super::print::{Line, quoted};
use super::super::values::{self, Fault};
use super::mark::masked_text;

pub(super) const CONNMARK: Extension<Match> = Extension {
    name: "connmark",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("mark").must()],
    begin: |_| Match::Connmark(Connmark(Maybe::is(Masked { value: 0, mask: 0 }))),
};

pub(super) const HELPER: Extension<Match> = Extension {
    name: "helper",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("helper").must()],
    begin: |_| Match::Helper(HelperName(Maybe::is(String::new()))),
};

impl Text for Connmark {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        self.0 = given.maybe(values::masked(given.text())?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--mark", Some(self.0), |masked| masked_text(masked.value, masked.mask));
    }

    fn list(&self, out: &mut Line<'_>) {
        let Maybe { not, value: Masked { value, mask } } = self.0;
        let not = if not { "!" } else { "" };
        out.word(&format!("connmark match {not} {}", masked_text(value, mask)));
    }
}

impl Text for HelperName {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let end = (0..=HelperName::MAX).rev().find(|&end| text.is_char_boundary(end));
        let kept = end.and_then(|end| text.get(..end)).unwrap_or(text);
        self.0 = given.maybe(kept.to_owned());
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--helper", Some(self.0.clone()), |name| quoted(&name));
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.0.not { "! " } else { "" };
        out.word(&format!("helper match {not}\"{}\"", self.0.value));
    }
}
