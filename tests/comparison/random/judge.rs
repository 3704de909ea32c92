//! The transcript of one sequence of a batch, and what is wrong with it.

use super::batch::{Batch, Outcome};
use super::plan::{Body, Draft, Observed, choice};
use super::rules::{INNER_PORT, PUBLIC_PORT};
use crate::compare;
use crate::learned::Learned;
use crate::listing;
use crate::script::{Event, Transcript};
use crate::show;
use crate::topology::Side;

/// What a device made of a sequence, its free choices under the names of the clients they were
/// made for.
pub fn transcript(batch: &Batch, plan: usize, outcome: &Outcome) -> Transcript {
    let learned = learned(batch, plan, outcome);
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

fn learned(batch: &Batch, plan: usize, outcome: &Outcome) -> Learned {
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
            if learned.name(address, number).is_none() {
                let allowed = drawn.policy.allowed(original, flow.protocol);
                let (client, port) = flow.client;
                learned.add(address, number, allowed, &format!("choice for {client} {port}"));
            }
        }
    }
    learned
}

/// Whether a frame that a piece made a device forward has the identification of its datagram, which
/// is different in each run.
fn identified(batch: &Batch, plan: usize, round: usize, frame: &[u8]) -> &'static str {
    let drawn = &batch.plans[plan];
    let Some(Some(Draft { body: Body::Piece(piece), .. })) = drawn.drafts.get(round) else {
        return "";
    };
    let right = drawn.identification(piece).to_be_bytes();
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
    let (our, their) = (transcript(batch, plan, ours), transcript(batch, plan, theirs));
    compare::differences(&our, &their, ["kernel", name])
}
