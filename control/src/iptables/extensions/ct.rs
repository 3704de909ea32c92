//! `-j CT`, as `libxt_CT` reads and writes it.

use dataplane::conntrack::helper::Helper;
use dataplane::rules::matches::Maybe;
use dataplane::rules::targets::Target;
use dataplane::rules::template::{CT_EVENTS, Ct, EXP_EVENTS, Side, Zone};

use super::super::extension::{Extension, Given, Text, Whole, flag, valued};
use super::super::names::protocol_name;
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const CT: Extension<Target> = Extension {
    name: "CT",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        flag("notrack"),
        valued("helper"),
        valued("timeout"),
        valued("ctevents"),
        valued("expevents"),
        valued("zone"),
        valued("zone-orig"),
        valued("zone-reply"),
    ],
    begin: |_| Target::Ct(Ct::default()),
};

impl Text for Ct {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let (text, template) = (given.text(), &mut self.template);
        match given.name {
            "notrack" => self.notrack = true,
            "helper" => template.helper = helper(text)?,
            "timeout" => self.timeout = Some(text.to_owned()).filter(|name| !name.is_empty()),
            "ctevents" => template.ct_events = events(&CT_EVENTS, text)?,
            "expevents" => template.exp_events = events(&EXP_EVENTS, text)? as u8,
            "zone" => set_zone(&mut template.zone, Side::Both, text)?,
            "zone-orig" => set_zone(&mut template.zone, Side::Original, text)?,
            _ => set_zone(&mut template.zone, Side::Reply, text)?,
        }
        Ok(())
    }

    /// Zone 0 has no side, a mark no number; a helper needs its protocol (`xt_ct_tg_check`, which
    /// looks at nothing where tracking is off).
    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let zone = &mut self.template.zone;
        match *zone {
            Zone { mark: true, .. } => zone.id = 0,
            Zone { id: 0, .. } => *zone = Zone::default(),
            Zone { .. } => {}
        }
        let Some(helper) = self.template.helper.filter(|_| !self.notrack) else { return Ok(()) };
        if whole.rule.basics.proto == Some(Maybe::is(helper.proto())) {
            return Ok(());
        }
        let proto = protocol_name(helper.proto()).unwrap_or("");
        Err(format!("CT: helper `{}' needs `-p {proto}'", helper.name()))
    }

    fn save(&self, out: &mut Line<'_>) {
        each(self, out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("CT");
        each(self, out, "");
    }
}

/// Options given together make one zone (`ct_parse_zone_id`): the last number or mark counts, and
/// both sides are the same as none.
fn set_zone(zone: &mut Zone, side: Side, text: &str) -> Result<(), Fault> {
    let mark = text.eq_ignore_ascii_case("mark");
    zone.mark |= mark;
    zone.id = match mark {
        true => 0,
        false => values::number(text)
            .ok()
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| format!("cannot parse `{text}' as a zone"))?,
    };
    zone.side = match (zone.side, side) {
        (Side::Both, side) | (side, Side::Both) => side,
        (a, b) if a == b => a,
        _ => Side::Both,
    };
    Ok(())
}

fn events(all: &[&str], text: &str) -> Result<u16, Fault> {
    let bit = |name: &str| {
        let at = all.iter().position(|event| *event == name);
        at.map(|bit| 1 << bit).ok_or_else(|| format!("unknown event type `{name}'"))
    };
    text.split(',').try_fold(0, |bits, name| Ok(bits | bit(name)?))
}

fn helper(text: &str) -> Result<Option<Helper>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    let found = Helper::from_name(text);
    found.map(Some).ok_or_else(|| format!("helper `{text}' is not supported"))
}

/// What `save` and `list` have in common, in the order of `iptables-save`.
fn each(ct: &Ct, out: &mut Line<'_>, dashes: &str) {
    let name = |name: &str| format!("{dashes}{name}");
    let template = &ct.template;
    if ct.notrack {
        out.word(&name("notrack"));
    }
    if let Some(helper) = template.helper {
        out.option(&name("helper"), helper.name());
    }
    if let Some(policy) = &ct.timeout {
        out.option(&name("timeout"), policy);
    }
    if template.ct_events != 0 {
        out.option(&name("ctevents"), &names(&CT_EVENTS, template.ct_events));
    }
    if template.exp_events != 0 {
        out.option(&name("expevents"), &names(&EXP_EVENTS, template.exp_events.into()));
    }
    let zone = name(match template.zone.side {
        Side::Both => "zone",
        Side::Original => "zone-orig",
        Side::Reply => "zone-reply",
    });
    match template.zone {
        Zone { mark: true, .. } => out.option(&zone, "mark"),
        // Zone 0 is what there is without the option.
        Zone { id: 0, .. } => {}
        Zone { id, .. } => out.option(&zone, &id.to_string()),
    }
}

fn names(all: &[&str], bits: u16) -> String {
    let set = all.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}
