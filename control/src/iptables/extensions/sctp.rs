//! `-m sctp`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::matches::sctp::{ChunkFlags, ChunkSet, Chunks, Sctp, Which};
use dataplane::rules::matches::{Match, Maybe, PortRange};

use super::super::extension::{Extension, Given, Text, opt};
use super::super::print::{Line, range};
use super::super::values::{self, Fault};
use super::tcp::list_ports;

pub(super) const SCTP: Extension<Match> = Extension {
    name: "sctp",
    alias: "",
    family: None,
    protos: &[proto::SCTP],
    implied: true,
    options: &[
        opt("sport").or("source-port"),
        opt("dport").or("destination-port"),
        opt("chunk-types").takes(2),
    ],
    begin: |_| Match::Sctp(Sctp::default()),
};

/// Types, and the letters of their flags from bit 7 down.
const KINDS: [(&str, u8, &str); 20] = [
    ("DATA", 0, "----IUBE"),
    ("INIT", 1, "--------"),
    ("INIT_ACK", 2, "--------"),
    ("SACK", 3, "--------"),
    ("HEARTBEAT", 4, "--------"),
    ("HEARTBEAT_ACK", 5, "--------"),
    ("ABORT", 6, "-------T"),
    ("SHUTDOWN", 7, "--------"),
    ("SHUTDOWN_ACK", 8, "--------"),
    ("ERROR", 9, "--------"),
    ("COOKIE_ECHO", 10, "--------"),
    ("COOKIE_ACK", 11, "--------"),
    ("ECN_ECNE", 12, "--------"),
    ("ECN_CWR", 13, "--------"),
    ("SHUTDOWN_COMPLETE", 14, "-------T"),
    ("I_DATA", 64, "----IUBE"),
    ("ASCONF_ACK", 128, "--------"),
    ("RE_CONFIG", 130, "--------"),
    ("PAD", 132, "--------"),
    ("FORWARD_TSN", 192, "--------"),
];

/// Further ones, with no flags.
const MORE: [(&str, u8, &str); 2] =
    [("ASCONF", 193, "--------"), ("I_FORWARD_TSN", 194, "--------")];

/// The number of a type of chunk.
pub(crate) fn chunk_type(name: &str) -> Option<u8> {
    kinds().find(|(known, ..)| known.eq_ignore_ascii_case(name)).map(|&(_, kind, _)| kind)
}

/// The name of a type of chunk.
pub(crate) fn chunk_name(number: u8) -> Option<&'static str> {
    kinds().find(|(_, kind, _)| *kind == number).map(|&(name, ..)| name)
}

fn kinds() -> impl Iterator<Item = &'static (&'static str, u8, &'static str)> {
    KINDS.iter().chain(&MORE)
}

impl Text for Sctp {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "chunk-types" => {
                let which = match text.to_ascii_lowercase().as_str() {
                    "any" => Which::Any,
                    "all" => Which::All,
                    "only" => Which::Only,
                    _ => return Err(format!("`{text}' is not one of all, any, only")),
                };
                let list = given.values.get(1).copied().unwrap_or("");
                self.chunks = Some(given.maybe(Box::new(chunks(which, list)?)));
            }
            "sport" => self.src_port = Some(given.maybe(ports(text)?)),
            _ => self.dst_port = Some(given.maybe(ports(text)?)),
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--sport", self.src_port, range);
        out.maybe("--dport", self.dst_port, range);
        out.maybe("--chunk-types", self.chunks.clone(), |chunks| {
            format!("{} {}", which_name(chunks.which), kinds_text(&chunks, false))
        });
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("sctp");
        let told =
            |ports: Option<Maybe<PortRange>>| ports.filter(|p| p.not || p.value != ALL_PORTS);
        list_ports(told(self.src_port), told(self.dst_port), out);
        if let Some(Maybe { not, value }) = &self.chunks {
            let not = if *not { "! " } else { "" };
            let kinds = kinds_text(value, out.numeric);
            out.word(&format!("{not}{} {kinds}", which_name(value.which)));
        }
    }
}

const ALL_PORTS: PortRange = PortRange { low: 0, high: u16::MAX };

const fn which_name(which: Which) -> &'static str {
    match which {
        Which::Any => "any",
        Which::All => "all",
        Which::Only => "only",
    }
}

/// By numbers or services of the protocol.
fn ports(text: &str) -> Result<PortRange, Fault> {
    values::ports_of(text, Some(proto::SCTP))
}

fn chunks(which: Which, list: &str) -> Result<Chunks, Fault> {
    let mut chunks = Chunks { which, kinds: ChunkSet::default(), flags: Vec::new() };
    if list.eq_ignore_ascii_case("ALL") {
        chunks.kinds = ChunkSet::ALL;
        return Ok(chunks);
    }
    if list.eq_ignore_ascii_case("NONE") {
        return Ok(chunks);
    }
    for word in list.split(',') {
        let (name, letters) = word.split_once(':').unwrap_or((word, ""));
        let known = kinds().find(|(known, ..)| known.eq_ignore_ascii_case(name));
        let &(_, kind, valid) = known.ok_or_else(|| format!("unknown SCTP chunk `{name}'"))?;
        chunks.kinds = chunks.kinds.with(kind);
        for letter in letters.chars() {
            let place = valid.chars().position(|c| c != '-' && c == letter.to_ascii_uppercase());
            let place = place.ok_or_else(|| format!("chunk {name} has no flag `{letter}'"))?;
            let bit = 0x80 >> place;
            let at = chunks.flags.iter().position(|flags| flags.kind == kind);
            let at = at.unwrap_or_else(|| {
                chunks.flags.push(ChunkFlags { kind, mask: 0, set: 0 });
                chunks.flags.len() - 1
            });
            if let Some(flags) = chunks.flags.get_mut(at) {
                flags.mask |= bit;
                flags.set |= if letter.is_ascii_uppercase() { bit } else { 0 };
            }
        }
    }
    Ok(chunks)
}

fn kinds_text(chunks: &Chunks, numeric: bool) -> String {
    if chunks.kinds == ChunkSet::ALL {
        return "ALL".to_owned();
    }
    let set = kinds().filter(|(_, kind, _)| chunks.kinds.holds(*kind));
    let words: Vec<String> = set
        .map(|&(name, kind, valid)| {
            let name = if numeric { format!("0x{kind:04X}") } else { name.to_owned() };
            let flags = chunks.flags.iter().find(|flags| flags.kind == kind);
            flags.map_or(name.clone(), |flags| format!("{name}:{}", letters(*flags, valid)))
        })
        .collect();
    if words.is_empty() { "NONE".to_owned() } else { words.join(",") }
}

fn letters(flags: ChunkFlags, valid: &str) -> String {
    let bits = (0..8).map(|place| 0x80u8 >> place);
    let asked = valid.chars().zip(bits).filter(|(_, bit)| flags.mask & bit != 0);
    asked
        .map(|(letter, bit)| match flags.set & bit {
            0 => letter.to_ascii_lowercase(),
            _ => letter,
        })
        .collect()
}
