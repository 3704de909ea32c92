//! Draws a plan from a seed.

use super::dice::Dice;
use super::fragments::{self, Cutting};
use super::gre::Tunnel;
use super::plan::{self, Body, DATAGRAMS_MAX, Draft, End, Fault, Flow, Plan, Quote};
use super::rules::{self, INNER_PORT, PUBLIC_PORT, Policy};
use super::sctp::Association;
use super::tcp::Tcp;
use crate::packets::{GRE, ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::topology::Side;
use std::collections::VecDeque;

/// Protocols without a tracker of their own that sequences use: ESP, OSPF and one that nobody has.
const UNKNOWN: [u8; 3] = [50, 89, 253];

/// Client ports: two that are kept free for collisions, a privileged and a reserved one.
const CLIENT_PORTS: [u16; 5] = [4000, 4000, 4001, 700, 300];
const SERVER_PORTS: [u16; 3] = [80, 53, 80];

/// What speaks in a flow.
enum Voice {
    Tcp(Tcp),
    Sctp(Association),
    Gre(Tunnel),
    Udp,
    Query,
    Other,
}

/// The plan of a seed in a slot; `checked` says whether checksums are looked at.
pub fn plan(seed: u64, slot: u8, checked: bool) -> Plan {
    let mut dice = Dice::new(seed ^ 0x5eed_0000_0000);
    let policy = Policy::draw(&mut dice);
    let count = dice.weighted(&[(4, 1), (4, 2), (2, 3), (1, 4)]);
    let flows: Vec<Flow> = (0..count).map(|_| flow(&policy, slot, &mut dice)).collect();
    // A wrong CRC that is not looked at stays wrong here, in a kernel translation makes it right;
    // and that of a quote, by whoever refuses the packet.
    let refuses = policy.filter == rules::Filter::Refusing;
    let damages = checked && !refuses || !policy.chooses();
    let voice = |(at, flow): (usize, &Flow)| match flow.protocol {
        TCP => Voice::Tcp(Tcp::new(at, policy.chooses(), &mut dice)),
        SCTP => Voice::Sctp(Association::new(at, damages, &mut dice)),
        GRE => Voice::Gre(Tunnel::new(at, &mut dice)),
        UDP => Voice::Udp,
        ICMP | ICMPV6 => Voice::Query,
        _ => Voice::Other,
    };
    let mut voices: Vec<Voice> = flows.iter().enumerate().map(voice).collect();
    let length = dice.between(20, 40) as usize;
    let errors = dice.pick(&[0, 5, 10]);
    let cuts = dice.weighted(&[(5, 0), (3, 15), (2, 60)]);
    let mut plan = Plan { seed, slot, policy, flows, run: 0, drafts: Vec::with_capacity(length) };
    let mut datagrams = 0;
    let mut pieces: VecDeque<Draft> = VecDeque::new();
    while plan.drafts.len() < length {
        let waiting = if dice.percent(75) { pieces.pop_front() } else { None };
        if let Some(piece) = waiting {
            plan.drafts.push(Some(piece));
            continue;
        }
        if !plan.drafts.is_empty() && dice.percent(errors) {
            plan.drafts.push(Some(error(&plan.drafts, &policy, &mut dice)));
            continue;
        }
        let at = dice.below(count) as usize;
        let mut draft = speak(at, &plan.flows[at], &mut voices[at], policy.chooses(), &mut dice);
        if draft.fault == Fault::None && dice.percent(5) {
            draft.fault = Fault::Tos(dice.pick(&[0x28, 0xb8, 1, 3, 0xe2]));
        }
        if datagrams < DATAGRAMS_MAX && dice.percent(cuts) {
            pieces.extend(cut(&plan, draft, datagrams, &mut dice));
            datagrams += 1;
        } else {
            plan.drafts.push(Some(draft));
        }
    }
    plan
}

/// The pieces of a draft.
fn cut(plan: &Plan, draft: Draft, number: u16, dice: &mut Dice) -> Vec<Draft> {
    let (policy, flow) = (&plan.policy, &plan.flows[draft.flow]);
    let draft = if dice.percent(70) { fragments::lengthened(draft, dice) } else { draft };
    // Of what can be part of no datagram a kernel complains if it was for the gateway itself.
    let to_gateway = !policy.four && policy.caller(plan.slot).is_some();
    let cutting = Cutting { chooses: policy.chooses(), odd: !to_gateway };
    let length = plan::transport_length(&draft.body, flow);
    fragments::pieces(draft, flow.protocol, length, (plan.drafts.len(), number), cutting, dice)
}

fn flow(policy: &Policy, slot: u8, dice: &mut Dice) -> Flow {
    let icmp = if policy.four { ICMP } else { ICMPV6 };
    let unknown = dice.pick(&UNKNOWN);
    let protocol =
        dice.weighted(&[(9, TCP), (4, UDP), (3, icmp), (5, SCTP), (3, GRE), (1, unknown)]);
    let inside = rules::lan(policy.four, slot, dice.pick(&[1, 1, 2, 3]));
    let outside = rules::wan(policy.four, slot, dice.pick(&[1, 1, 1, 2]));
    let (client_port, server_port) = (dice.pick(&CLIENT_PORTS), dice.pick(&SERVER_PORTS));
    let plain = |from, client: End, server: End| Flow {
        protocol,
        from,
        client,
        called: server,
        server,
        caller: client,
    };
    if policy.forwards() && dice.percent(50) {
        let client = (outside, client_port);
        let server = (rules::lan_end(policy.four, slot), INNER_PORT);
        let public = rules::public(policy.four, slot);
        let port = if dice.percent(90) { PUBLIC_PORT } else { server_port };
        return Flow { called: (public, port), ..plain(Side::Wan, client, server) };
    }
    if dice.percent(12) {
        return plain(Side::Wan, (outside, client_port), (inside, server_port));
    }
    let client = (inside, client_port);
    let caller = policy.caller(slot).map_or(client, |address| (address, client_port));
    Flow { caller, ..plain(Side::Lan, client, (outside, server_port)) }
}

fn speak(at: usize, flow: &Flow, voice: &mut Voice, chooses: bool, dice: &mut Dice) -> Draft {
    let from_client = dice.percent(55);
    let draft = |body, fault| Draft { flow: at, from_client, body, fault };
    match voice {
        Voice::Tcp(tcp) => tcp.next(dice),
        Voice::Sctp(association) => association.next(dice),
        Voice::Gre(tunnel) => tunnel.next(dice),
        Voice::Udp => {
            let faults = [
                Fault::Checksum,
                Fault::ZeroChecksum,
                Fault::UdpLength(4),
                Fault::UdpLength(500),
                Fault::UdpLength(9),
                Fault::Cut(24),
                Fault::Cut(30),
                Fault::Ttl(1),
                Fault::Header,
            ];
            let fault = if dice.percent(15) { dice.pick(&faults) } else { Fault::None };
            draft(Body::Udp { length: dice.pick(&[0, 1, 10, 100, 1400]) }, fault)
        }
        Voice::Query => {
            let (kind, code) = query(flow.called.0.is_ipv4(), from_client, chooses, dice);
            let sequence = dice.below(3) as u16;
            let length = dice.pick(&[8, 12, 56]);
            let faults = [Fault::Checksum, Fault::Cut(26), Fault::Ttl(1), Fault::ZeroChecksum];
            let fault = if dice.percent(10) { dice.pick(&faults) } else { Fault::None };
            draft(Body::Query { kind, code, sequence, length }, fault)
        }
        Voice::Other => {
            let length = dice.pick(&[0, 4, 8, 20, 100]);
            let payload = (0..length).map(|_| dice.below(256) as u8).collect();
            draft(Body::Other { payload }, Fault::None)
        }
    }
}

/// Type and code of a query or its answer. Only clients send types that the gateway itself would
/// answer with its clock.
fn query(four: bool, from_client: bool, chooses: bool, dice: &mut Dice) -> (u8, u8) {
    let code = if dice.percent(4) { 3 } else { 0 };
    let kinds: &[(u64, u8)] = match (four, from_client) {
        (true, true) => &[(20, 8), (2, 13), (1, 15), (1, 17), (2, 0), (1, 14), (1, 40), (1, 9)],
        (true, false) => &[(20, 0), (2, 14), (1, 16), (1, 18), (3, 8), (1, 41)],
        // The id of a node information query is chosen, but not written into the packet.
        (false, true) if chooses => &[(20, 128), (2, 129), (1, 200), (1, 160)],
        (false, true) => &[(20, 128), (2, 129), (1, 139), (1, 200), (1, 160)],
        (false, false) => &[(20, 129), (3, 128), (1, 140), (1, 201)],
    };
    (dice.weighted(kinds), code)
}

/// An error about an earlier packet.
pub fn error(drafts: &[Option<Draft>], policy: &Policy, dice: &mut Dice) -> Draft {
    let last = drafts.len() as u64;
    let mut about = (last - 1 - dice.below(last.min(6))) as usize;
    // An error in an error shows whatever the device chose in bytes that nobody reads: numbers, and
    // the identification of IPv6 fragments.
    let is_piece = |draft: &Option<Draft>| {
        draft.as_ref().is_some_and(|draft| matches!(draft.body, Body::Piece(_)))
    };
    while let Some(Draft { body: Body::Error { about: first, .. }, .. }) = &drafts[about]
        && (policy.chooses() || is_piece(&drafts[*first]))
    {
        about = *first;
    }
    let (kind, code) = match policy.four {
        true => dice.weighted(&[
            (4, (3, 1)),
            (4, (3, 3)),
            (3, (3, 4)),
            (3, (11, 0)),
            (1, (11, 1)),
            (1, (12, 0)),
            (1, (4, 0)),
            (1, (5, 1)),
            (1, (3, 13)),
        ]),
        false => dice.weighted(&[
            (4, (1, 0)),
            (4, (1, 4)),
            (3, (2, 0)),
            (3, (3, 0)),
            (1, (4, 1)),
            (1, (100, 0)),
        ]),
    };
    let rest = if matches!((kind, code), (3, 4) | (2, 0)) { [0, 0, 5, 0x14] } else { [0; 4] };
    // Where the device may have chosen a number, that number and whose it is stay legible.
    let wrong: &[usize] = match (policy.chooses(), policy.four) {
        (true, true) => &[16, 19, 22, 23],
        (true, false) => &[24, 39, 42, 43],
        (false, _) => &[0, 9, 12, 15, 16, 19, 20, 21, 22, 23, 25, 40, 42, 6, 7],
    };
    let quote = match dice.below(10) {
        0..=5 => Quote::Right,
        6 | 7 => Quote::Cut(dice.pick(&[28, 48, 20, 24, 8, 40, 44, 60])),
        _ => Quote::Wrong(dice.pick(wrong)),
    };
    let quote = drafts[about].as_ref().map_or(quote, |d| telling(quote, d, policy, (kind, code)));
    let flow = drafts[about].as_ref().map_or(0, |draft| draft.flow);
    Draft {
        flow,
        from_client: false,
        body: Body::Error { kind, code, rest, about, quote },
        fault: Fault::None,
    }
}

/// A quote of a packet that tells no more than both devices can have in common.
fn telling(quote: Quote, of: &Draft, policy: &Policy, error: (u8, u8)) -> Quote {
    let piece = matches!(of.body, Body::Piece(_));
    let query = matches!(of.body, Body::Query { .. });
    match quote {
        // Neither the wrong CRC nor what makes of it who computes it anew where he translates.
        _ if policy.chooses() && has_wrong_crc(of) => Quote::Cut(if policy.four { 28 } else { 48 }),
        // A byte of a piece may be the offset that says what the next bytes are.
        Quote::Wrong(_) if policy.chooses() && (!of.from_client || piece) => Quote::Right,
        // A query's checksum is there: turned bits in a sum over a choice are never the same error.
        Quote::Wrong(22 | 23 | 42 | 43) if policy.chooses() && query => Quote::Right,
        // It might pass for a late complaint about a datagram of another run.
        Quote::Wrong(_) if error == if policy.four { (11, 1) } else { (3, 1) } => Quote::Right,
        // The identification of an IPv6 fragment would be bytes that nobody reads as such.
        Quote::Wrong(0 | 6) if piece && !policy.four => Quote::Right,
        // A query's checksum over a chosen number without that number.
        Quote::Cut(24 | 44) if policy.chooses() && query => Quote::Cut(8),
        quote => quote,
    }
}

fn has_wrong_crc(draft: &Draft) -> bool {
    let (body, fault) = match &draft.body {
        Body::Piece(piece) => (&piece.of, piece.fault),
        body => (body, draft.fault),
    };
    matches!(body, Body::Sctp { .. }) && matches!(fault, Fault::Checksum | Fault::ZeroChecksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_fits_a_link_and_a_seed_repeats() {
        for seed in 0..2000 {
            let plan = plan(seed, 10, true);
            let again = super::plan(seed, 10, true);
            let nothing = vec![Vec::new(); plan.drafts.len()];
            for step in 0..plan.drafts.len() {
                let sent = plan.frame(step, &nothing);
                let length = sent.as_ref().map_or(0, |(_, frame)| frame.len());
                assert!(length <= 1514, "seed {seed}, step {step}: {length} bytes");
                assert_eq!(sent, again.frame(step, &nothing), "seed {seed}, step {step}");
            }
        }
    }
}
