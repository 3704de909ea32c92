//! `-j LOG`.

use dataplane::rules::targets::{Log, Target};

use super::super::extension::{Extension, Given, Text, flag, valued};
use super::super::names;
use super::super::print::{Line, quoted};
use super::super::values::Fault;

pub(super) const LOG: Extension<Target> = Extension {
    name: "LOG",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("log-level"),
        valued("log-prefix"),
        flag("log-tcp-sequence"),
        flag("log-tcp-options"),
        flag("log-ip-options"),
        flag("log-uid"),
        flag("log-macdecode"),
    ],
    begin: |_| Target::Log(Log { prefix: String::new(), level: Log::DEFAULT_LEVEL, flags: 0 }),
};

/// The flags' options in the order in which they are printed.
const FLAGS: [(u8, &str); 5] = [
    (Log::TCP_SEQUENCE, "log-tcp-sequence"),
    (Log::TCP_OPTIONS, "log-tcp-options"),
    (Log::IP_OPTIONS, "log-ip-options"),
    (Log::UID, "log-uid"),
    (Log::MAC_DECODE, "log-macdecode"),
];

impl Text for Log {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "log-level" => {
                let level = names::log_level(text);
                self.level = level.ok_or_else(|| format!("log level `{text}' unknown"))?;
            }
            "log-prefix" if text.is_empty() => {
                return Err("LOG: the prefix must not be empty".to_owned());
            }
            "log-prefix" => {
                // As iptables, which cuts what does not fit.
                let end = (0..=Log::MAX_PREFIX).rev().find(|&end| text.is_char_boundary(end));
                self.prefix = text.get(..end.unwrap_or(0)).unwrap_or(text).to_owned();
            }
            name => {
                let bit = FLAGS.iter().find(|(_, flag)| *flag == name).map_or(0, |(bit, _)| *bit);
                self.flags |= bit;
            }
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        if !self.prefix.is_empty() {
            out.option("--log-prefix", &quoted(&self.prefix));
        }
        if self.level != Log::DEFAULT_LEVEL {
            out.option("--log-level", &self.level.to_string());
        }
        for (_, name) in FLAGS.into_iter().filter(|(bit, _)| self.flags & bit != 0) {
            out.word(&format!("--{name}"));
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        if out.numeric {
            out.word(&format!("LOG flags {} level {}", self.flags, self.level));
        } else {
            out.word(&format!("LOG level {}", names::log_level_name(self.level)));
            for (_, name) in FLAGS.into_iter().filter(|(bit, _)| self.flags & bit != 0) {
                out.word(name.trim_start_matches("log-"));
            }
        }
        if !self.prefix.is_empty() {
            out.word(&format!("prefix \"{}\"", self.prefix));
        }
    }
}
