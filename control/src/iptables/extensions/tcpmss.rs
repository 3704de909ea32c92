//! `-j TCPMSS`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::edit::tcp_mss::SetMss;
use dataplane::rules::hook::Family;
use dataplane::rules::targets::Target;

use super::super::extension::{Extension, Given, Text, Whole, flag, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const TCPMSS: Extension<Target> = Extension {
    name: "TCPMSS",
    alias: "",
    family: None,
    protos: &[proto::TCP],
    implied: false,
    options: &[valued("set-mss"), flag("clamp-mss-to-pmtu")],
    begin: |_| Target::Tcpmss(SetMss::Clamp),
};

impl Text for SetMss {
    /// Of both, the last one counts.
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let most = match given.family {
            Family::V4 => u16::MAX - 20,
            Family::V6 => u16::MAX - 40,
        };
        *self = match given.name {
            "set-mss" => SetMss::To(values::up_to(given.text(), most.into())? as u16),
            _ => SetMss::Clamp,
        };
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("TCPMSS: at least one parameter is required".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        match self {
            SetMss::To(mss) => out.option("--set-mss", &mss.to_string()),
            SetMss::Clamp => out.word("--clamp-mss-to-pmtu"),
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        match self {
            SetMss::To(mss) => out.word(&format!("TCPMSS set {mss}")),
            SetMss::Clamp => out.word("TCPMSS clamp to PMTU"),
        }
    }
}
