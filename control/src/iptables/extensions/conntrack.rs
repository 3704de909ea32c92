//! `-m conntrack`, `-m state` and `-m connlabel`.

use dataplane::conntrack::state::Direction;
use dataplane::rules::matches::{Connlabel, Conntrack, Match, Maybe, StateMask};

use super::super::extension::{Extension, Given, Text, Whole, flag, opt, valued};
use super::super::names;
use super::super::print::{Line, listed, net_text, range};
use super::super::values::{self, Fault};
use crate::labels::Names;

pub(super) const CONNTRACK: Extension<Match> = Extension {
    name: "conntrack",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        opt("ctstate"),
        opt("ctproto"),
        opt("ctorigsrc"),
        opt("ctorigdst"),
        opt("ctreplsrc"),
        opt("ctrepldst"),
        opt("ctorigsrcport"),
        opt("ctorigdstport"),
        opt("ctreplsrcport"),
        opt("ctrepldstport"),
        opt("ctstatus"),
        opt("ctexpire"),
        valued("ctdir"),
    ],
    begin: |_| Match::Conntrack(Box::default()),
};

pub(super) const STATE: Extension<Match> = Extension {
    name: "state",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("state").must()],
    begin: |_| Match::State(Maybe::is(StateMask::default())),
};

pub(super) const CONNLABEL: Extension<Match> = Extension {
    name: "connlabel",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[opt("label").must(), flag("set")],
    begin: |_| Match::Connlabel(Connlabel { label: Maybe::is(0), set: false }),
};

impl Text for Conntrack {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        let net = || Ok::<_, Fault>(Some(given.maybe(values::net(text, given.family)?)));
        let ports = || Ok::<_, Fault>(Some(given.maybe(values::ports(text)?)));
        match given.name {
            "ctstate" => self.state = Some(given.maybe(states(text, true)?)),
            "ctproto" => self.proto = Some(given.maybe(ct_proto(text)?)),
            "ctorigsrc" => self.orig_src = net()?,
            "ctorigdst" => self.orig_dst = net()?,
            "ctreplsrc" => self.reply_src = net()?,
            "ctrepldst" => self.reply_dst = net()?,
            "ctorigsrcport" => self.orig_src_port = ports()?,
            "ctorigdstport" => self.orig_dst_port = ports()?,
            "ctreplsrcport" => self.reply_src_port = ports()?,
            "ctrepldstport" => self.reply_dst_port = ports()?,
            "ctstatus" => self.status = Some(given.maybe(status(text)?)),
            "ctexpire" => self.expire = Some(given.maybe(expire(text)?)),
            _ => {
                self.direction = Some(match text.to_ascii_uppercase().as_str() {
                    "ORIGINAL" => Direction::Original,
                    "REPLY" => Direction::Reply,
                    _ => return Err(format!("unknown direction `{text}'")),
                });
            }
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        match whole.seen {
            [] => Err("conntrack: at least one option is required".to_owned()),
            _ => Ok(()),
        }
    }

    fn save(&self, out: &mut Line<'_>) {
        self.each(out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        self.each(out, "");
    }
}

/// What `save` and `list` have in common.
trait Each {
    fn each(&self, out: &mut Line<'_>, dashes: &str);
}

impl Each for Conntrack {
    fn each(&self, out: &mut Line<'_>, dashes: &str) {
        let family = out.family;
        let net = |net| net_text(net, family, false);
        let name = |name: &str| format!("{dashes}{name}");
        out.maybe(&name("ctstate"), self.state, state_names);
        out.maybe(&name("ctproto"), self.proto, |number| number.to_string());
        out.maybe(&name("ctorigsrc"), self.orig_src, net);
        out.maybe(&name("ctorigdst"), self.orig_dst, net);
        out.maybe(&name("ctreplsrc"), self.reply_src, net);
        out.maybe(&name("ctrepldst"), self.reply_dst, net);
        out.maybe(&name("ctorigsrcport"), self.orig_src_port, range);
        out.maybe(&name("ctorigdstport"), self.orig_dst_port, range);
        out.maybe(&name("ctreplsrcport"), self.reply_src_port, range);
        out.maybe(&name("ctrepldstport"), self.reply_dst_port, range);
        out.maybe(&name("ctstatus"), self.status, status_names);
        out.maybe(&name("ctexpire"), self.expire, |(low, high)| {
            if low == high { low.to_string() } else { format!("{low}:{high}") }
        });
        out.maybe(&name("ctdir"), self.direction.map(Maybe::is), |direction| {
            match direction {
                Direction::Original => "ORIGINAL",
                Direction::Reply => "REPLY",
            }
            .to_owned()
        });
    }
}

impl Text for Maybe<StateMask> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        *self = given.maybe(states(given.text(), false)?);
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        out.maybe("--state", Some(*self), state_names);
    }

    fn list(&self, out: &mut Line<'_>) {
        out.maybe("state", Some(*self), state_names);
    }
}

impl Text for Connlabel {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        match given.name {
            "set" => self.set = true,
            _ => self.label = given.maybe(label(given.text(), given.labels)?),
        }
        Ok(())
    }

    fn save(&self, out: &mut Line<'_>) {
        let name = label_name(self.label.value, out);
        out.maybe("--label", Some(self.label), |_| format!("\"{name}\""));
        if self.set {
            out.word("--set");
        }
    }

    fn list(&self, out: &mut Line<'_>) {
        let not = if self.label.not { "! " } else { "" };
        let name = match out.numeric {
            true => self.label.value.to_string(),
            false => label_name(self.label.value, out),
        };
        out.word(&format!("connlabel {not}{name}"));
        if self.set {
            out.word("set");
        }
    }
}

/// A label's name or, where it has none, its number.
fn label_name(label: u8, out: &Line<'_>) -> String {
    let name = out.labels.and_then(|names| names.name(label.into()));
    name.map_or_else(|| label.to_string(), str::to_owned)
}

/// A label by its number or, where it is none, its name.
fn label(text: &str, labels: &Names) -> Result<u8, Fault> {
    let number = values::number(text).ok().or_else(|| labels.number(text).map(u32::from));
    match number {
        Some(number) if number < u32::from(Connlabel::COUNT) => Ok(number as u8),
        Some(_) => Err(format!("label '{text}' is not below {}", Connlabel::COUNT)),
        None => Err(format!("label '{text}' not found or invalid value")),
    }
}

fn states(text: &str, nat: bool) -> Result<StateMask, Fault> {
    let find = |name: &str| {
        let known = names::STATES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known
            .map(|(_, state)| *state)
            .filter(|state| nat || !state.meets(StateMask::SNAT.with(StateMask::DNAT)))
    };
    let found = values::set(text, "state", find)?;
    Ok(found.into_iter().fold(StateMask::default(), StateMask::with))
}

fn status(text: &str) -> Result<u16, Fault> {
    let find = |name: &str| {
        let known = names::STATUS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        known.map(|(_, bit)| *bit).or(name.eq_ignore_ascii_case("NONE").then_some(0))
    };
    Ok(values::set(text, "status", find)?.into_iter().fold(0, |all, bit| all | bit))
}

fn ct_proto(text: &str) -> Result<u8, Fault> {
    match names::protocol(text) {
        Some(0) => Err("conntrack: rule would never match protocol".to_owned()),
        Some(number) => Ok(number),
        None => Err(format!("unknown protocol `{text}'")),
    }
}

fn expire(text: &str) -> Result<(u32, u32), Fault> {
    let (low, high) = match text.split_once(':') {
        None => (values::number(text)?, values::number(text)?),
        Some((low, high)) => (
            if low.is_empty() { 0 } else { values::number(low)? },
            if high.is_empty() { u32::MAX } else { values::number(high)? },
        ),
    };
    if low > high {
        return Err(format!("invalid range `{text}' (low end above high end)"));
    }
    Ok((low, high))
}

fn state_names(states: StateMask) -> String {
    listed(names::STATES.iter().filter(|(_, state)| states.meets(*state)).map(|(name, _)| *name))
}

fn status_names(bits: u16) -> String {
    listed(names::STATUS.iter().filter(|(_, bit)| bits & bit != 0).map(|(name, _)| *name))
}
