//! `-m comment`.

use dataplane::rules::matches::Match;

use super::super::extension::{Extension, Given, Text, valued};
use super::super::print::{Line, quoted};
use super::super::values::Fault;

pub(super) const COMMENT: Extension<Match> = Extension {
    name: "comment",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[valued("comment").must()],
    begin: |_| Match::Comment(String::new()),
};

impl Text for String {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        if given.text().len() > 255 {
            return Err("comment is longer than 255 bytes".to_owned());
        }
        *self = given.text().to_owned();
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--comment", &quoted(self));
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word(&format!("/* {self} */"));
    }
}
