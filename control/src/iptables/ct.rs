//! The options of `-j CT` as text, as `libxt_CT` reads and writes them.

use dataplane::conntrack::helper::Helper;
use dataplane::rules::matches::Maybe;
use dataplane::rules::template::{CT_EVENTS, Ct, EXP_EVENTS, Side, Zone};

use super::values::{self, Fault};

/// The options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CtKey {
    Notrack,
    Helper,
    Timeout,
    CtEvents,
    ExpEvents,
    Zone(Side),
}

/// Takes one option.
pub(super) fn set(ct: &mut Ct, key: CtKey, text: &str) -> Result<(), Fault> {
    let template = &mut ct.template;
    match key {
        CtKey::Notrack => ct.notrack = true,
        CtKey::Helper => template.helper = helper(text)?,
        CtKey::Timeout => ct.timeout = Some(text.to_owned()).filter(|name| !name.is_empty()),
        CtKey::CtEvents => template.ct_events = events(&CT_EVENTS, text)?,
        CtKey::ExpEvents => template.exp_events = events(&EXP_EVENTS, text)? as u8,
        CtKey::Zone(side) => set_zone(&mut template.zone, side, text)?,
    }
    Ok(())
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

/// One form for each meaning, once all options are read: zone 0 has no side, a mark no number.
pub(super) fn settle(ct: &mut Ct) {
    let zone = &mut ct.template.zone;
    match *zone {
        Zone { mark: true, .. } => zone.id = 0,
        Zone { id: 0, .. } => *zone = Zone::default(),
        Zone { .. } => {}
    }
}

/// What is wrong with the options taken together, if the rule asks for `proto` (`xt_ct_tg_check`,
/// which looks at nothing where tracking is off).
pub(super) fn fault(ct: &Ct, proto: Option<Maybe<u8>>) -> Option<Fault> {
    let helper = ct.template.helper.filter(|_| !ct.notrack)?;
    let wanted = Some(Maybe::is(helper.proto()));
    let name = super::names::protocol_name(helper.proto()).unwrap_or("");
    (proto != wanted).then(|| format!("CT: helper `{}' needs `-p {name}'", helper.name()))
}

/// The options with a blank before each, in the order of `iptables-save`.
pub(super) fn text(ct: &Ct) -> String {
    let mut out = String::new();
    let mut option = |name: &str, value: &str| {
        for word in [name, value].into_iter().filter(|word| !word.is_empty()) {
            out.push(' ');
            out.push_str(word);
        }
    };
    let template = &ct.template;
    if ct.notrack {
        option("--notrack", "");
    }
    if let Some(helper) = template.helper {
        option("--helper", helper.name());
    }
    if let Some(name) = &ct.timeout {
        option("--timeout", name);
    }
    if template.ct_events != 0 {
        option("--ctevents", &names(&CT_EVENTS, template.ct_events));
    }
    if template.exp_events != 0 {
        option("--expevents", &names(&EXP_EVENTS, template.exp_events.into()));
    }
    match template.zone {
        Zone { mark: true, side, .. } => option(zone_option(side), "mark"),
        // Zone 0 is what there is without the option.
        Zone { id: 0, .. } => {}
        Zone { id, side, .. } => option(zone_option(side), &id.to_string()),
    }
    out
}

fn zone_option(side: Side) -> &'static str {
    match side {
        Side::Both => "--zone",
        Side::Original => "--zone-orig",
        Side::Reply => "--zone-reply",
    }
}

fn names(all: &[&str], bits: u16) -> String {
    let set = all.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 != 0);
    set.map(|(_, name)| *name).collect::<Vec<_>>().join(",")
}
