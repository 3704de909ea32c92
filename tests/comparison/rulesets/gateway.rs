//! Sluicegate as a device that is asked packet by packet: the gateway of `sluicegate replay` in
//! this process, with the command line of its control socket.

use super::case::{Case, Outcome};
use super::ruleset;
use crate::random::batch::routes;
use crate::replay::{SPREADS, START, Spread, configuration};
use crate::script::{Emitted, Setup};
use crate::topology::Side;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::model::Ruleset;
use sluicegate::config::Config;
use sluicegate::gateway::Served;
use sluicegate::publish::Rulesets;
use sluicegate::replay::Bench;
use std::path::Path;
use std::time::Duration;

/// Bytes of memory that the configuration is told of.
const RAM: u64 = 1 << 30;

/// How many workers and queues a case is run with. What is logged stands among its settings.
pub fn spread(case: &Case) -> Spread {
    let at = case.seed as usize % SPREADS.len();
    // Each other worker may let one packet more pass.
    let mut sets = [Some(&case.rules), case.then.as_ref().map(|(_, rules)| rules)].into_iter();
    let shared = sets.any(|set| set.is_some_and(|set| set.text().contains("hashlimit")));
    Spread { logs: false, ..SPREADS[if shared { 0 } else { at }] }
}

/// Runs a case with the times at which the referee got its packets.
pub fn run(case: &Case, clock: &[Duration]) -> Outcome {
    let mut gateway = Gateway::new(case);
    let mut outcome = Outcome::default();
    if let Err(complaint) = gateway.load(case, &case.rules) {
        outcome.refused = Some(complaint);
        return outcome;
    }
    for (step, at) in clock.iter().enumerate() {
        if let Some((_, rules)) = case.then.as_ref().filter(|(before, _)| *before == step) {
            gateway.frame(Side::Lan, *at, Side::Lan.arp_request());
            outcome.counters.push(gateway.counters(case));
            if let Err(complaint) = gateway.load(case, rules) {
                outcome.refused = Some(complaint);
                return outcome;
            }
        }
        let sent = case.plan.frame(step, &outcome.observed);
        let (emitted, logged) = match &sent {
            Some((side, frame)) => gateway.frame(*side, *at, frame.clone()),
            None => Default::default(),
        };
        outcome.sent.push(sent);
        outcome.observed.push(emitted);
        outcome.logged.push(logged);
    }
    gateway.frame(Side::Lan, clock.last().copied().unwrap_or_default(), Side::Lan.arp_request());
    let family = if case.four() { "ipv4" } else { "ipv6" };
    outcome.conns = gateway.ask(&["conntrack", "-L", "-f", family], "").unwrap_or_else(|e| e);
    outcome.counters.push(gateway.counters(case));
    outcome.faults.extend(gateway.bench.check_balance().err().map(|fault| fault.to_string()));
    outcome
}

struct Gateway {
    bench: Bench,
}

impl Gateway {
    fn new(case: &Case) -> Gateway {
        let (rules4, rules6) = (String::new(), String::new());
        let setup = Setup { rules4, rules6, settings: case.settings(), wan_mtu: 1500 };
        let text = configuration(&setup, spread(case)) + &routes();
        let config = Config::parse(Path::new("gateway.toml"), &text, RAM).expect("it is right");
        let (v4, v6) = (Ruleset::new(Family::V4), Ruleset::new(Family::V6));
        let rulesets = Rulesets { v4, v6, sets: Default::default() };
        let mut bench = Bench::new(config, rulesets, true).expect("the gateway starts");
        // The clock begins with the first frame.
        bench.frame(PortId(0), START.as_nanos() as u64, Side::Lan.arp_request());
        Gateway { bench }
    }

    fn load(&mut self, case: &Case, rules: &ruleset::Ruleset) -> Result<(), String> {
        self.ask(&[case.tool("restore")], &rules.text()).map(drop)
    }

    fn counters(&mut self, case: &Case) -> String {
        self.ask(&[case.tool("save"), "-c"], "").unwrap_or_else(|complaint| complaint)
    }

    fn ask(&mut self, command: &[&str], input: &str) -> Result<String, String> {
        let argv: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        match self.bench.core().serve(&argv, input) {
            Served::Done(answer) if answer.exit == 0 => Ok(answer.out),
            Served::Done(answer) => Err(answer.err),
            Served::Events(_) => Err("a stream of events".to_owned()),
        }
    }

    /// A frame in, and what came out and was logged because of it.
    fn frame(&mut self, side: Side, at: Duration, frame: Vec<u8>) -> (Vec<Emitted>, Vec<String>) {
        let now = (START + at).as_nanos() as u64;
        let sent = self.bench.frame(PortId(side as u8), now, frame);
        let emitted = sent
            .into_iter()
            .map(|(port, _, frame)| Emitted { side: Side::BOTH[usize::from(port.0)], frame });
        let emitted = emitted.filter(|out| !crate::kernel::is_chatter(&out.frame)).collect();
        let lines = self.bench.core().take_log_lines();
        (emitted, lines.into_iter().filter_map(|line| spoken(&line)).collect())
    }
}

/// A line as it is compared: without the packet where tracking is who speaks, as it prints more of
/// it. What LOG and TRACE say a kernel keeps from namespaces.
fn spoken(line: &str) -> Option<String> {
    let sentence = line.starts_with("nf_ct_").then(|| line.split_once(" IN=")).flatten();
    match sentence {
        Some((sentence, _)) => Some(without_ticks(sentence).to_owned()),
        None => line.starts_with("NFLOG ").then(|| line.to_owned()),
    }
}

/// A sentence that names a time does so in ticks, of which a second has as many as the kernel was
/// built for.
pub fn without_ticks(sentence: &str) -> &str {
    sentence.split_once(" lower timeout to ").map_or(sentence, |(what, _)| what)
}
