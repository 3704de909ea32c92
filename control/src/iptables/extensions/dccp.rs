//! `-m dccp`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::matches::dccp::Dccp;
use dataplane::rules::matches::{Match, Maybe, PortRange};

use super::super::extension::{Extension, Given, Text, opt};
use super::super::print::{Line, range};
use super::super::values::{self, Fault};
use super::tcp::list_ports;

pub(super) const DCCP: Extension<Match> = Extension {
    name: "dccp",
    alias: "",
    family: None,
    protos: &[proto::DCCP],
    implied: true,
    options: &[
        opt("sport").or("source-port"),
        opt("dport").or("destination-port"),
        opt("dccp-types"),
        opt("dccp-option"),
    ],
    begin: |_| Match::Dccp(Dccp::default()),
};

/// By number; all others are INVALID.
const TYPES: [&str; 10] = [
    "REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC",
    "SYNCACK",
];

const INVALID: u16 = 0xfc00;

/// The number of a type of packet.
pub(crate) fn dccp_type(name: &str) -> Option<u8> {
    let number = TYPES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    u8::try_from(number).ok()
}

/// The name of a type of packet.
pub(crate) fn dccp_name(number: u8) -> Option<&'static str> {
    TYPES.get(usize::from(number)).copied()
}

impl Text for Dccp {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "sport" => self.src_port = Some(given.maybe(values::ports(text)?)),
            "dport" => self.dst_port = Some(given.maybe(values::ports(text)?)),
            "dccp-types" => self.types = Some(given.maybe(types(text)?)),
            _ => match values::number(text) {
                Ok(kind @ 1..=255) => self.option = Some(given.maybe(kind as u8)),
                _ => return Err(format!("bad DCCP option `{text}'")),
            },
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--sport", self.src_port, range);
        out.maybe("--dport", self.dst_port, range);
        out.maybe("--dccp-types", self.types, |types| type_names(types, false));
        out.maybe("--dccp-option", self.option, |kind| kind.to_string());
    }

    fn list(&self, out: &mut Line<'_>) {
        let all = PortRange { low: 0, high: u16::MAX };
        let told = |ports: Option<Maybe<PortRange>>| ports.filter(|p| p.not || p.value != all);
        out.word("dccp");
        list_ports(told(self.src_port), told(self.dst_port), out);
        if let Some(Maybe { not, value }) = self.types {
            let not = if not { "! " } else { "" };
            out.word(&format!("{not}{}", type_names(value, out.numeric)));
        }
        if let Some(Maybe { not, value }) = self.option {
            out.word(&format!("option={}{value}", if not { "!" } else { "" }));
        }
    }
}

fn types(text: &str) -> Result<u16, Fault> {
    let find = |word: &str| {
        if word.eq_ignore_ascii_case("INVALID") {
            return Some(INVALID);
        }
        TYPES.iter().position(|name| name.eq_ignore_ascii_case(word)).map(|bit| 1 << bit)
    };
    Ok(values::set(text, "DCCP type", find)?.into_iter().fold(0, |all, bits| all | bits))
}

fn type_names(types: u16, numeric: bool) -> String {
    let set = (0..16usize).filter(|bit| types >> bit & 1 == 1);
    let mut words: Vec<String> = set
        .map(|bit| match TYPES.get(bit) {
            Some(name) if !numeric => (*name).to_owned(),
            None if !numeric => "INVALID".to_owned(),
            _ => bit.to_string(),
        })
        .collect();
    words.dedup();
    words.join(",")
}
