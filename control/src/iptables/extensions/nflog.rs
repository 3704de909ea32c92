//! `-j NFLOG` and `-j TRACE`.

use dataplane::rules::targets::Target;
use dataplane::rules::targets::nflog::Nflog;

use super::super::extension::{Extension, Given, Text, valued};
use super::super::print::{Line, quoted};
use super::super::values::{self, Fault};

pub(super) const NFLOG: Extension<Target> = Extension {
    name: "NFLOG",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("nflog-group"),
        valued("nflog-prefix"),
        valued("nflog-range").group(1),
        valued("nflog-size").group(1),
        valued("nflog-threshold"),
    ],
    begin: |_| Target::Nflog(Nflog::default()),
};

impl Text for Nflog {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "nflog-group" => self.group = values::up_to(text, 0xffff)? as u16,
            "nflog-prefix" if text.is_empty() => {
                return Err("NFLOG: the prefix must not be empty".to_owned());
            }
            "nflog-prefix" => {
                // As iptables, which cuts what does not fit.
                let end = (0..=Nflog::MAX_PREFIX).rev().find(|&end| text.is_char_boundary(end));
                self.prefix = text.get(..end.unwrap_or(0)).unwrap_or(text).to_owned();
            }
            // It never worked, and is forgotten by iptables too.
            "nflog-range" => {
                values::number(text)?;
            }
            "nflog-size" => self.size = Some(values::number(text)?),
            _ => self.threshold = values::up_to(text, 0xffff)? as u16,
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        each(self, out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        each(self, out, "");
    }
}

/// What `save` and `list` have in common, in the order of `iptables-save`.
fn each(nflog: &Nflog, out: &mut Line<'_>, dashes: &str) {
    let mut option = |name: &str, value: &str| out.option(&format!("{dashes}nflog-{name}"), value);
    if !nflog.prefix.is_empty() {
        option("prefix", &quoted(&nflog.prefix));
    }
    if nflog.group != 0 {
        option("group", &nflog.group.to_string());
    }
    if let Some(size) = nflog.size {
        option("size", &size.to_string());
    }
    if nflog.threshold != 0 {
        option("threshold", &nflog.threshold.to_string());
    }
}
