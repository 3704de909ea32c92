//! `-j TCPOPTSTRIP`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::edit::tcp_options::StripOptions;
use dataplane::rules::targets::Target;

use super::super::extension::{Extension, Given, Text, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const TCPOPTSTRIP: Extension<Target> = Extension {
    name: "TCPOPTSTRIP",
    alias: "",
    family: None,
    protos: &[proto::TCP],
    implied: false,
    options: &[valued("strip-options")],
    begin: |_| Target::Tcpoptstrip(StripOptions::default()),
};

/// Options with a name.
const NAMES: [(&str, u8); 6] =
    [("wscale", 3), ("mss", 2), ("sack-permitted", 4), ("sack", 5), ("timestamp", 8), ("md5", 19)];

impl Text for StripOptions {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        for word in given.text().split(',') {
            let named = NAMES.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
            let kind = match named {
                Some(kind) => kind,
                None => values::up_to(word, 255)
                    .map_err(|_| format!("bad TCP option value `{word}'"))?
                    as u8,
            };
            if kind < 2 {
                return Err(format!("option value `{word}' may not be 0 or 1"));
            }
            if !self.add(kind) {
                return Err(format!("option `{word}' already specified"));
            }
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        if let Some(kinds) = listed(self, true) {
            out.option("--strip-options", &kinds);
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        if let Some(kinds) = listed(self, out.numeric) {
            out.word(&format!("TCPOPTSTRIP options {kinds}"));
        }
    }
}

fn listed(options: &StripOptions, numeric: bool) -> Option<String> {
    let name = |kind: u8| match NAMES.iter().find(|(_, named)| *named == kind) {
        Some((name, _)) if !numeric => (*name).to_owned(),
        _ => kind.to_string(),
    };
    let kinds: Vec<String> = options.kinds().map(name).collect();
    (!kinds.is_empty()).then(|| kinds.join(","))
}
