//! `-m recent`.

use dataplane::rules::hook::Family;
use dataplane::rules::matches::recent::{Ask, Recent};
use dataplane::rules::matches::{Match, Maybe};
use dataplane::wire::address::Address;

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::print::{Line, plain};
use super::super::values::{self, Fault};

pub(super) const RECENT: Extension<Match> = Extension {
    name: "recent",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("set").takes(0).group(1),
        opt("rcheck").takes(0).group(1),
        opt("update").takes(0).group(1),
        opt("remove").takes(0).group(1),
        valued("seconds"),
        flag("reap"),
        valued("hitcount"),
        flag("rttl"),
        valued("name"),
        valued("mask"),
        flag("rsource"),
        flag("rdest"),
    ],
    begin: |family| Match::Recent(Box::new(begin(family))),
};

/// The longest name, in bytes.
const MAX_NAME: usize = 199;

fn begin(family: Family) -> Recent {
    let bits = family.address_bits();
    Recent {
        name: "DEFAULT".to_owned(),
        ask: Maybe::is(Ask::Check),
        dst: false,
        mask: values::prefix_mask(bits, bits),
        secs: 0,
        reap: false,
        hits: 0,
        ttl: false,
    }
}

/// What is done, as an option and in a list.
const ASKS: [(&str, &str, Ask); 4] = [
    ("set", "SET", Ask::Set),
    ("rcheck", "CHECK", Ask::Check),
    ("update", "UPDATE", Ask::Update),
    ("remove", "REMOVE", Ask::Remove),
];

impl Text for Recent {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "seconds" => {
                self.secs = values::number(text)?;
                if self.secs == 0 {
                    return Err(format!("seconds `{text}' are not above 0"));
                }
            }
            "reap" => self.reap = true,
            "hitcount" => {
                self.hits = values::number(text)?;
                if self.hits >= Recent::HITS_END {
                    return Err(format!("hitcount `{text}' is not below {}", Recent::HITS_END));
                }
            }
            "rttl" => self.ttl = true,
            "name" => self.name = values::file_name(text, MAX_NAME)?,
            "mask" => {
                let mask = values::address(text, given.family);
                let mask = mask.ok_or_else(|| format!("invalid mask `{text}'"))?;
                self.mask = values::mask_of(mask, given.family);
            }
            "rsource" | "rdest" => self.dst = given.name == "rdest",
            _ => {
                let ask = ASKS.iter().find(|(name, ..)| *name == given.name);
                self.ask = given.maybe(ask.map_or(Ask::Check, |(.., ask)| *ask));
            }
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let seen = |name: &&str| whole.seen.contains(name);
        let Some((word, ..)) = ASKS.iter().find(|(name, ..)| seen(name)) else {
            return Err("recent: one of `--set', `--rcheck', `--update' and `--remove' must be \
                        specified"
                .to_owned());
        };
        let looks = matches!(self.ask.value, Ask::Check | Ask::Update);
        let of_looks = ["rttl", "seconds", "hitcount", "reap"];
        if !looks && let Some(other) = of_looks.iter().find(|name| seen(name)) {
            return Err(format!(
                "recent: option `--{other}' cannot be used together with `--{word}'"
            ));
        }
        if self.reap && self.secs == 0 {
            return Err("recent: option `--reap' also requires `--seconds'".to_owned());
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let ask = ASKS.iter().find(|(.., ask)| *ask == self.ask.value).map(|(name, ..)| *name);
        let ask = format!("--{}", ask.unwrap_or(""));
        out.maybe(&ask, Some(Maybe { not: self.ask.not, value: () }), |()| String::new());
        if self.secs != 0 {
            out.option("--seconds", &self.secs.to_string());
        }
        if self.reap {
            out.word("--reap");
        }
        if self.hits != 0 {
            out.option("--hitcount", &self.hits.to_string());
        }
        if self.ttl {
            out.word("--rttl");
        }
        out.option("--name", &plain(&self.name));
        out.option("--mask", &mask_text(self.mask, out.family));
        out.word(if self.dst { "--rdest" } else { "--rsource" });
    }

    fn list(&self, out: &mut Line<'_>) {
        let ask = ASKS.iter().find(|(.., ask)| *ask == self.ask.value).map(|(_, name, _)| *name);
        let not = if self.ask.not { "! " } else { "" };
        out.word(&format!("{not}recent: {}", ask.unwrap_or("")));
        if self.secs != 0 {
            out.option("seconds:", &self.secs.to_string());
        }
        if self.reap {
            out.word("reap");
        }
        if self.hits != 0 {
            out.option("hit_count:", &self.hits.to_string());
        }
        if self.ttl {
            out.word("TTL-Match");
        }
        let side = if self.dst { "dest" } else { "source" };
        let mask = mask_text(self.mask, out.family);
        out.word(&format!("name: {} side: {side} mask: {mask}", self.name));
    }
}

fn mask_text(mask: u128, family: Family) -> String {
    let address = match family {
        Family::V4 => Address::v4(mask as u32),
        Family::V6 => Address::v6(mask),
    };
    values::address_text(address, family)
}
