//! `-m tcp` and `-m udp`.

use dataplane::conntrack::tuple::proto;
use dataplane::rules::matches::{Match, Maybe, PortRange, Tcp, TcpFlags, Udp};

use super::super::extension::{Extension, Given, Text, Whole, opt};
use super::super::names;
use super::super::print::{Line, listed, range};
use super::super::values::{self, Fault};

pub(super) const TCP: Extension<Match> = Extension {
    name: "tcp",
    alias: "",
    family: None,
    protos: &[proto::TCP],
    implied: true,
    options: &[
        opt("sport").or("source-port"),
        opt("dport").or("destination-port"),
        opt("syn").takes(0).group(1),
        opt("tcp-flags").takes(2).group(1),
        opt("tcp-option"),
    ],
    begin: |_| Match::Tcp(Tcp::default()),
};

pub(super) const UDP: Extension<Match> = Extension {
    name: "udp",
    alias: "",
    family: None,
    protos: &[proto::UDP],
    implied: true,
    options: &[opt("sport").or("source-port"), opt("dport").or("destination-port")],
    begin: |_| Match::Udp(Udp::default()),
};

impl Text for Tcp {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "sport" => self.src_port = Some(given.maybe(tcp_ports(text)?)),
            "dport" => self.dst_port = Some(given.maybe(tcp_ports(text)?)),
            "syn" => self.flags = Some(given.maybe(TcpFlags { mask: 0x17, set: 0x02 })),
            "tcp-flags" => {
                let mask = flags(text)?;
                let set = flags(given.values.get(1).copied().unwrap_or(""))?;
                self.flags = Some(given.maybe(TcpFlags { mask, set }));
            }
            _ => match values::number(text) {
                Ok(kind @ 1..=255) => self.option = Some(given.maybe(kind as u8)),
                _ => return Err(format!("bad TCP option `{text}'")),
            },
        }
        Ok(())
    }

    fn finish(&mut self, _: &Whole<'_>) -> Result<(), Fault> {
        self.src_port = narrowing(self.src_port);
        self.dst_port = narrowing(self.dst_port);
        if self.option.is_none() {
            self.src_port = turned(self.src_port);
            self.dst_port = turned(self.dst_port);
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--sport", self.src_port, range);
        out.maybe("--dport", self.dst_port, range);
        out.maybe("--tcp-option", self.option, |kind| kind.to_string());
        out.maybe("--tcp-flags", self.flags, |flags| {
            format!("{} {}", flag_names(flags.mask), flag_names(flags.set))
        });
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("tcp");
        list_ports(self.src_port, self.dst_port, out);
        if let Some(Maybe { not, value }) = self.option {
            out.word(&format!("option={}{value}", if not { "!" } else { "" }));
        }
        if let Some(Maybe { not, value: TcpFlags { mask, set } }) = self.flags {
            let not = if not { "!" } else { "" };
            out.word(&match out.numeric {
                true => format!("flags:{not}0x{mask:02X}/0x{set:02X}"),
                false => format!("flags:{not}{}/{}", flag_names(mask), flag_names(set)),
            });
        }
    }
}

impl Text for Udp {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let ports = Some(given.maybe(values::ports(given.text())?));
        *(if given.name == "sport" { &mut self.src_port } else { &mut self.dst_port }) = ports;
        Ok(())
    }

    fn finish(&mut self, _: &Whole<'_>) -> Result<(), Fault> {
        self.src_port = turned(narrowing(self.src_port));
        self.dst_port = turned(narrowing(self.dst_port));
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--sport", self.src_port, range);
        out.maybe("--dport", self.dst_port, range);
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("udp");
        list_ports(self.src_port, self.dst_port, out);
    }
}

/// Ports by numbers or services of TCP; `-m udp` takes a service of any protocol.
fn tcp_ports(text: &str) -> Result<PortRange, Fault> {
    values::ports_of(text, Some(proto::TCP))
}

/// A range of all ports asks nothing and is not kept.
fn narrowing(range: Option<Maybe<PortRange>>) -> Option<Maybe<PortRange>> {
    range.filter(|r| r.not || r.value != PortRange { low: 0, high: u16::MAX })
}

/// All ports but those from 0 to another one are those behind it, as iptables-nft has them in a
/// match that it writes in nft's own words: one without `--tcp-option`.
fn turned(range: Option<Maybe<PortRange>>) -> Option<Maybe<PortRange>> {
    range.map(|range| match range {
        Maybe { not: true, value: PortRange { low: 0, high: high @ 1..=0xfffe } } => {
            Maybe { not: false, value: PortRange { low: high + 1, high: u16::MAX } }
        }
        range => range,
    })
}

/// ` spt:1 dpts:!5:6`.
pub(super) fn list_ports(
    src: Option<Maybe<PortRange>>,
    dst: Option<Maybe<PortRange>>,
    out: &mut Line<'_>,
) {
    for (name, asked) in [("spt", src), ("dpt", dst)] {
        if let Some(Maybe { not, value }) = asked {
            let many = if value.low == value.high { "" } else { "s" };
            let not = if not { "!" } else { "" };
            let ports = out.ports(value);
            out.word(&format!("{name}{many}:{not}{ports}"));
        }
    }
}

/// Commas may stand where there is no name.
fn flags(text: &str) -> Result<u8, Fault> {
    let names: Vec<&str> = text.split(',').filter(|name| !name.is_empty()).collect();
    let find = |name: &str| match name.to_ascii_uppercase().as_str() {
        "ALL" => Some(0x3f),
        "NONE" => Some(0),
        name => names::TCP_FLAGS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit),
    };
    Ok(values::set(&names.join(","), "TCP flag", find)?.into_iter().fold(0, |all, bit| all | bit))
}

fn flag_names(bits: u8) -> String {
    listed(names::TCP_FLAGS.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name))
}
