//! `-j REJECT`.

use dataplane::rules::targets::{RejectWith, Target};

use super::super::extension::{Extension, Given, Text, valued};
use super::super::names;
use super::super::print::Line;
use super::super::values::Fault;

pub(super) const REJECT: Extension<Target> = Extension {
    name: "REJECT",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[valued("reject-with")],
    begin: |family| Target::Reject(names::default_reject(family)),
};

impl Text for RejectWith {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let found = names::reject(given.text(), given.family);
        *self = found.ok_or_else(|| format!("unknown reject type `{}'", given.text()))?;
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.option("--reject-with", names::reject_name(*self, out.family));
    }

    fn list(&self, out: &mut Line<'_>) {
        out.option("reject-with", names::reject_name(*self, out.family));
    }
}
