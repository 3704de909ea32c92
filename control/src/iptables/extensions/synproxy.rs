//! `-j SYNPROXY`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::targets::Target;
use dataplane::rules::targets::synproxy::Synproxy;

use super::super::extension::{Extension, Given, Text, flag, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const SYNPROXY: Extension<Target> = Extension {
    name: "SYNPROXY",
    alias: "",
    family: None,
    protos: &[proto::TCP],
    implied: false,
    options: &[flag("sack-perm"), flag("timestamp"), valued("wscale"), valued("mss"), flag("ecn")],
    begin: |_| Target::Synproxy(Synproxy { options: 0, wscale: 0, mss: 0 }),
};

impl Text for Synproxy {
    /// Numbers are cut to what a window scale and a segment size have room for, as iptables does.
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let number = || values::number(given.text());
        self.options |= match given.name {
            "sack-perm" => Synproxy::SACK_PERM,
            "timestamp" => Synproxy::TIMESTAMP,
            "wscale" => {
                self.wscale = number()? as u8;
                Synproxy::WSCALE
            }
            "mss" => {
                self.mss = number()? as u16;
                Synproxy::MSS
            }
            _ => Synproxy::ECN,
        };
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        words(self).for_each(|word| out.word(&format!("--{word}")));
    }

    /// Each word has a blank behind it.
    fn list(&self, out: &mut Line<'_>) {
        out.word("SYNPROXY");
        words(self).for_each(|word| out.word(&word));
        out.word("");
    }
}

/// The options that are given, with their values, in the order in which they are printed.
fn words(proxy: &Synproxy) -> impl Iterator<Item = String> {
    let all = [
        (Synproxy::SACK_PERM, "sack-perm".to_owned()),
        (Synproxy::TIMESTAMP, "timestamp".to_owned()),
        (Synproxy::WSCALE, format!("wscale {}", proxy.wscale)),
        (Synproxy::MSS, format!("mss {}", proxy.mss)),
        (Synproxy::ECN, "ecn".to_owned()),
    ];
    let proxy = *proxy;
    all.into_iter().filter(move |(option, _)| proxy.has(*option)).map(|(_, word)| word)
}
