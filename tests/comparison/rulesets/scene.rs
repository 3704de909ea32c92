//! Who speaks in a random case, and what: a few conns of hosts of the topology and the packets of
//! each, in turns.
//!
//! Rules are drawn after the scene and ask for its addresses, ports and lengths, so that they match
//! some of its packets and not others. Every client has a port of its own: where two would want the
//! same number after a translation the kernel draws another one by lot.

use crate::packets::{GRE, ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::random::dice::Dice;
use crate::random::fragments::{self, Cutting};
use crate::random::generate;
use crate::random::gre::Tunnel;
use crate::random::plan::{self, Body, DATAGRAMS_MAX, Draft, End, Fault, Flow, Plan};
use crate::random::rules::{Filter, Nat, Policy, Untracked};
use crate::random::sctp::Association;
use crate::random::tcp::Tcp;
use crate::topology::{self, GATEWAY_LAN, GATEWAY_LAN_6, GATEWAY_WAN, GATEWAY_WAN_6, Side};
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IP protocol number of ESP, which stands for those without a tracker.
pub const ESP: u8 = 50;

/// Where services are.
pub const TCP_PORTS: [u16; 4] = [80, 22, 8080, 443];
pub const UDP_PORTS: [u16; 4] = [53, 69, 123, 8080];
const SCTP_PORTS: [u16; 2] = [80, 3868];

/// Lengths of UDP's payload.
const LENGTHS: [usize; 5] = [0, 10, 25, 100, 600];

/// A few hosts of a side.
fn host(four: bool, side: Side, dice: &mut Dice) -> IpAddr {
    let at = dice.weighted(&[(4, 0), (3, 1), (1, 2), (1, 3)]);
    side.hosts()[if four { at } else { 4 + at }]
}

/// An address that lies outside of the gateway and that networks are translated to: its last part
/// is that of a host inside.
pub fn public(four: bool, dice: &mut Dice) -> IpAddr {
    let last = dice.pick(&[1u8, 2, 3, 4]);
    match four {
        true => Ipv4Addr::new(192, 0, 2, 10 + last).into(),
        false => Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x10 + u16::from(last)).into(),
    }
}

/// One of the gateway's addresses on a side.
pub fn gateway(four: bool, side: Side, dice: &mut Dice) -> IpAddr {
    match (four, side) {
        (true, Side::Lan) => GATEWAY_LAN,
        (true, Side::Wan) => dice.pick(&[GATEWAY_WAN, GATEWAY_WAN, topology::SECOND_WAN]),
        (false, Side::Lan) => GATEWAY_LAN_6,
        (false, Side::Wan) => GATEWAY_WAN_6,
    }
}

/// A conn of the scene.
fn flow(four: bool, number: u16, dice: &mut Dice) -> Flow {
    let icmp = if four { ICMP } else { ICMPV6 };
    let any = [(10, TCP), (8, UDP), (4, icmp), (1, SCTP), (1, GRE), (1, ESP)];
    // What the gateway itself answers in the same words.
    let known = [(10, TCP), (6, UDP), (4, icmp)];
    let (from, called, server) = match dice.below(20) {
        0..=8 => {
            let server = host(four, Side::Wan, dice);
            (Side::Lan, server, server)
        }
        9..=13 => {
            let server = host(four, Side::Lan, dice);
            let other = public(four, dice);
            let called = gateway(four, Side::Wan, dice);
            (Side::Wan, if dice.percent(75) { called } else { other }, server)
        }
        14..=16 => {
            let server = host(four, Side::Lan, dice);
            (Side::Wan, server, server)
        }
        _ => {
            let side = dice.pick(&[Side::Lan, Side::Lan, Side::Wan]);
            (Side::Lan, gateway(four, side, dice), host(four, Side::Wan, dice))
        }
    };
    let own = Side::BOTH.iter().any(|side| {
        side.addresses().iter().any(|text| text.split('/').next() == Some(&called.to_string()))
    });
    let protocol = dice.weighted(if own { &known[..] } else { &any[..] });
    let port = match protocol {
        TCP => dice.pick(&TCP_PORTS),
        UDP => dice.pick(&UDP_PORTS),
        SCTP => dice.pick(&SCTP_PORTS),
        _ => 0,
    };
    // One client in six has a port below 1024, which a translation keeps below.
    let client_port = if dice.percent(16) { 700 + number } else { 4000 + number };
    let client = (host(four, from, dice), client_port);
    let port = if protocol == icmp { client_port } else { port };
    Flow { protocol, from, client, called: (called, port), server: (server, port), caller: client }
}

/// What speaks in a conn.
enum Voice {
    Tcp(Tcp),
    Sctp(Association),
    Gre(Tunnel),
    Plain,
}

impl Voice {
    fn new(at: usize, flow: &Flow, dice: &mut Dice) -> Voice {
        match flow.protocol {
            TCP => Voice::Tcp(Tcp::new(at, true, dice)),
            SCTP => Voice::Sctp(Association::new(at, false, dice)),
            GRE => Voice::Gre(Tunnel::new(at, dice)),
            _ => Voice::Plain,
        }
    }

    fn next(&mut self, at: usize, flow: &Flow, dice: &mut Dice) -> Draft {
        let from_client = dice.percent(55);
        let body = match (self, flow.protocol) {
            (Voice::Tcp(tcp), _) => return tcp.next(dice),
            (Voice::Sctp(association), _) => return association.next(dice),
            (Voice::Gre(tunnel), _) => return tunnel.next(dice),
            (Voice::Plain, UDP) => Body::Udp { length: dice.pick(&LENGTHS) },
            (Voice::Plain, ICMP | ICMPV6) => {
                let asks = from_client != dice.percent(8);
                let kind = match (flow.protocol, asks) {
                    (ICMP, true) => 8,
                    (ICMP, false) => 0,
                    (_, true) => 128,
                    (_, false) => 129,
                };
                let (sequence, length) = (dice.below(3) as u16, dice.pick(&[8, 12, 56]));
                Body::Query { kind, code: 0, sequence, length }
            }
            (Voice::Plain, _) => {
                let length = dice.pick(&[8, 20, 100]);
                // An index of security parameters that rules can ask for.
                let spi = [0, 0, 1, dice.below(4) as u8];
                let rest = (0..length).map(|_| dice.below(256) as u8);
                Body::Other { payload: spi.into_iter().chain(rest).collect() }
            }
        };
        Draft { flow: at, from_client, body, fault: Fault::None }
    }
}

/// What the random sequences' drawing wants to know of rules: that numbers may be translated.
fn policy(four: bool) -> Policy {
    let (filter, untracked) = (Filter::Open, Untracked::Nothing);
    Policy { four, filter, nat: Nat::Both, untracked, closed: false }
}

/// The scene of a seed.
pub fn plan(seed: u64, four: bool, dice: &mut Dice) -> Plan {
    let count = dice.weighted(&[(2, 1), (4, 2), (4, 3), (3, 4), (2, 5)]);
    let flows: Vec<Flow> = (0..count).map(|number| flow(four, number, dice)).collect();
    let voices = flows.iter().enumerate().map(|(at, flow)| Voice::new(at, flow, dice));
    let mut voices: Vec<Voice> = voices.collect();
    let length = dice.between(14, 36) as usize;
    let (errors, cuts) = (dice.pick(&[0, 5, 10]), dice.weighted(&[(6, 0), (1, 10), (1, 30)]));
    let drafts = Vec::with_capacity(length);
    let mut plan = Plan { seed, slot: 0, policy: policy(four), flows, run: 0, drafts };
    let mut datagrams = 0;
    let mut pieces: VecDeque<Draft> = VecDeque::new();
    while plan.drafts.len() < length {
        if let Some(piece) = pieces.pop_front() {
            plan.drafts.push(Some(piece));
            continue;
        }
        if !plan.drafts.is_empty() && dice.percent(errors) {
            plan.drafts.push(Some(generate::error(&plan.drafts, &plan.policy, dice)));
            continue;
        }
        let at = dice.below(u64::from(count)) as usize;
        let mut draft = voices[at].next(at, &plan.flows[at], dice);
        if draft.fault == Fault::None && dice.percent(15) {
            let tos = Fault::Tos(dice.pick(&[0x28, 0xb8, 1, 2, 3, 0x10, 0xe2]));
            draft.fault =
                if dice.percent(25) { Fault::Ttl(dice.pick(&[1, 2, 9, 200])) } else { tos };
        }
        if datagrams < DATAGRAMS_MAX && dice.percent(cuts) {
            pieces.extend(cut(&plan, draft, datagrams, dice));
            datagrams += 1;
        } else {
            plan.drafts.push(Some(draft));
        }
    }
    plan
}

/// The pieces of a draft.
fn cut(plan: &Plan, draft: Draft, number: u16, dice: &mut Dice) -> Vec<Draft> {
    let flow = &plan.flows[draft.flow];
    let draft = if dice.percent(50) { fragments::lengthened(draft, dice) } else { draft };
    let length = plan::transport_length(&draft.body, flow);
    let cutting = Cutting { chooses: true, odd: false };
    fragments::pieces(draft, flow.protocol, length, (plan.drafts.len(), number), cutting, dice)
}

/// An end of a conn of the scene: of a client or of whom it calls.
pub fn end(plan: &Plan, dice: &mut Dice) -> End {
    let flow = &plan.flows[dice.below(plan.flows.len() as u64) as usize];
    dice.pick(&[flow.client, flow.called, flow.server])
}
