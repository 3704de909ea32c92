//! `-j ECN`, for IPv4.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::edit::ecn::SetEcn;
use dataplane::rules::hook::Family;
use dataplane::rules::matches::Maybe;
use dataplane::rules::targets::Target;

use super::super::extension::{Extension, Given, Text, Whole, flag, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const SET_ECN: Extension<Target> = Extension {
    name: "ECN",
    alias: "",
    family: Some(Family::V4),
    protos: &[],
    implied: false,
    options: &[
        flag("ecn-tcp-remove"),
        valued("ecn-tcp-cwr"),
        valued("ecn-tcp-ece"),
        valued("ecn-ip-ect"),
    ],
    begin: |_| Target::Ecn(SetEcn::default()),
};

/// Both marks of TCP off.
const REMOVE: SetEcn = SetEcn { ip: None, ece: Some(false), cwr: Some(false) };

impl Text for SetEcn {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let bit = |text| values::up_to(text, 1).map(|bit| Some(bit != 0));
        match given.name {
            "ecn-tcp-remove" => *self = REMOVE,
            "ecn-tcp-cwr" => self.cwr = bit(text)?,
            "ecn-tcp-ece" => self.ece = bit(text)?,
            _ => self.ip = Some(values::up_to(text, 3)? as u8),
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        if whole.seen.is_empty() {
            return Err("ECN: an operation is required".to_owned());
        }
        let removes = whole.seen.contains(&"ecn-tcp-remove");
        for other in ["ecn-tcp-cwr", "ecn-tcp-ece"] {
            if removes && whole.seen.contains(&other) {
                return Err(format!(
                    "ECN: option `--{other}' cannot be used together with `--ecn-tcp-remove'"
                ));
            }
        }
        if self.names_tcp() && whole.rule.basics.proto != Some(Maybe::is(proto::TCP)) {
            return Err("ECN: needs `-p tcp'".to_owned());
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        if *self == REMOVE {
            return out.word("--ecn-tcp-remove");
        }
        for (name, bit) in [("--ecn-tcp-ece", self.ece), ("--ecn-tcp-cwr", self.cwr)] {
            if let Some(bit) = bit {
                out.option(name, if bit { "1" } else { "0" });
            }
        }
        if let Some(ip) = self.ip {
            out.option("--ecn-ip-ect", &ip.to_string());
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("ECN");
        if *self == REMOVE {
            return out.word("TCP remove");
        }
        for (name, bit) in [("ECE", self.ece), ("CWR", self.cwr)] {
            if let Some(bit) = bit {
                out.word(&format!("{name}={}", u8::from(bit)));
            }
        }
        if let Some(ip) = self.ip {
            out.word(&format!("ECT codepoint={ip}"));
        }
    }
}
