//! The transcript of one sequence of a batch, and what is wrong with it.

use super::batch::{Batch, Outcome};
use super::plan::{Body, Draft, End, Observed, choice};
use super::rules::{INNER_PORT, PUBLIC_PORT};
use crate::compare;
use crate::learned::Learned;
use crate::listing::{self, Line};
use crate::packets::ICMP;
use crate::script::{Event, Transcript};
use crate::show;
use crate::topology::Side;

/// What a device made of a sequence, its free choices under the names of the clients they were
/// made for.
pub fn transcript(batch: &Batch, plan: usize, outcome: &Outcome) -> Transcript {
    told(batch, plan, outcome, learned(batch, plan, outcome, Names::OfClients).0)
}

/// How free choices are called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    OfClients,
    /// All the same, where one number was chosen for two clients, as for peers of their own it may.
    Alike,
}

fn told(batch: &Batch, plan: usize, outcome: &Outcome, learned: Learned) -> Transcript {
    let mut events = Vec::new();
    let mut tables = outcome.tables.iter();
    let mut table = |events: &mut Vec<Event>| {
        if let Some(text) = tables.next() {
            events.push(Event::Table(listing::parse(&batch.lines(plan, text), &learned)));
        }
    };
    for (round, observed) in outcome.observed[plan].iter().enumerate() {
        if let Some(Some((side, frame))) = outcome.sent[plan].get(round) {
            let out = |side| -> Vec<String> {
                let frames = observed.iter().filter(|out| out.side == side);
                let line = |frame: &[u8]| {
                    show::frame(frame, &learned) + identified(batch, plan, round, frame)
                };
                frames.map(|out| line(&out.frame)).collect()
            };
            let sent = vec![show::frame(frame, &learned)];
            events.push(Event::Step {
                side: *side,
                sent,
                lan: out(Side::Lan),
                wan: out(Side::Wan),
            });
        }
        if batch.tables.contains(&round) {
            table(&mut events);
        }
    }
    table(&mut events);
    let mut violations = learned.violations;
    violations.extend(outcome.stray.iter().cloned());
    Transcript { events, said: None, violations }
}

/// What a device chose, and whether a number for two clients.
fn learned(batch: &Batch, plan: usize, outcome: &Outcome, names: Names) -> (Learned, bool) {
    let mut twice = false;
    let drawn = &batch.plans[plan];
    let mut learned = Learned::default();
    let observed: &Observed = &outcome.observed[plan];
    for (step, (draft, emitted)) in drawn.drafts.iter().zip(observed).enumerate() {
        let (Some(draft), Some(Some((side, _)))) = (draft, outcome.sent[plan].get(step)) else {
            continue;
        };
        if matches!(draft.body, Body::Error { .. }) {
            continue;
        }
        let flow = &drawn.flows[draft.flow];
        let fixed = [flow.called.1, PUBLIC_PORT, INNER_PORT];
        let Some(before) = drawn.source(step, observed) else { continue };
        for out in emitted.iter().filter(|out| out.side != *side) {
            let found = choice(flow.protocol, before, out, &fixed);
            let Some((address, number, original)) = found else { continue };
            let name = called(names, flow.client);
            match learned.name(address, number) {
                Some(known) => twice |= known != format!("<{name}>"),
                None => {
                    let allowed = drawn.policy.allowed(original, flow.protocol, out.side);
                    learned.add(address, number, allowed, &name);
                }
            }
        }
    }
    (learned, twice)
}

fn called(names: Names, (client, port): End) -> String {
    match names {
        Names::OfClients => format!("choice for {client} {port}"),
        Names::Alike => "choice".to_owned(),
    }
}

/// Whether a frame that a piece made a device forward has the identification of its datagram, which
/// is different in each run.
fn identified(batch: &Batch, plan: usize, round: usize, frame: &[u8]) -> &'static str {
    let drawn = &batch.plans[plan];
    let Some(Some(Draft { body: Body::Piece(piece), .. })) = drawn.drafts.get(round) else {
        return "";
    };
    let right = drawn.identification(piece).to_be_bytes();
    // Where the device says something about it, its own choice may be the same by chance.
    if frame.get(23) == Some(&ICMP) && !matches!(piece.of, Body::Query { .. }) {
        return "";
    }
    match frame.get(12..20) {
        Some([8, 0, 0x45, _, _, _, a, b]) if [*a, *b] == right => " (id as it came)",
        _ => "",
    }
}

/// In what two outcomes of a sequence differ.
pub fn differences(
    batch: &Batch,
    plan: usize,
    ours: &Outcome,
    theirs: &Outcome,
    name: &str,
) -> Vec<String> {
    let of = |names| [ours, theirs].map(|outcome| learned(batch, plan, outcome, names));
    let mut both = of(Names::OfClients);
    if both.iter().any(|(_, twice)| *twice) {
        both = of(Names::Alike);
    }
    let [(our, _), (their, _)] = both;
    let (mut our, mut their) = (told(batch, plan, ours, our), told(batch, plan, theirs, their));
    for events in our.events.iter_mut().zip(&mut their.events) {
        if let (Event::Table(our), Event::Table(their)) = events {
            let before = our.clone();
            our.retain(|line| !is_ending(line, their));
            their.retain(|line| !is_ending(line, &before));
        }
    }
    compare::differences(&our, &their, ["kernel", name])
}

/// Whether a conn may be gone in the other listing: it is not there, and had no second left.
fn is_ending(line: &Line, other: &[Line]) -> bool {
    line.seconds == Some(0) && other.iter().all(|there| there.text != line.text)
}
