//! The kernel's namespace as the referee of a case.
//!
//! What it logs comes as messages. They are written as lines by the hand that writes Sluicegate's,
//! so that what is compared is the packets, prefixes, groups and marks that both were told of.

use super::case::{Case, Outcome};
use super::gateway::without_ticks;
use super::ruleset::Ruleset;
use crate::kernel::Kernel;
use crate::nflog::Message;
use crate::random::batch;
use crate::topology::Side;
use dataplane::conntrack::knobs::Knobs;
use dataplane::pipeline::messages::LogLine;
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Family;
use dataplane::rules::model;
use sluicegate::config::Config;
use sluicegate::log_line;
use sluicegate::publish::{self, Learnt, Rulesets};
use std::path::Path;
use std::time::{Duration, Instant};

/// From one packet to the next at least.
const STEP: Duration = Duration::from_millis(1);

/// What hosts say by themselves when their interfaces come up is over by then.
const SETTLED: Duration = Duration::from_secs(3);

/// The kernel.
pub struct Referee {
    kernel: Kernel,
    /// Indices of the interfaces, by side.
    links: [u32; 2],
    /// Names of the ports.
    snapshot: Snapshot,
}

impl Referee {
    pub fn new() -> Referee {
        let kernel = batch::referee();
        let listed = kernel.gateway("ip -o link", "");
        let links = Side::BOTH.map(|side| index(&listed, side.port()));
        std::thread::sleep(SETTLED);
        Referee { kernel, links, snapshot: snapshot() }
    }

    /// Runs a case; returns also when each packet was sent, after the beginning.
    pub fn run(&mut self, case: &Case) -> (Outcome, Vec<Duration>) {
        let mut outcome = Outcome::default();
        let mut clock = Vec::new();
        // What rules keep under a name lives on as long as the name does.
        let restore = case.tool("restore");
        self.kernel.gateway(restore, &Ruleset::empty().text());
        let before = self.kernel.set(case.settings());
        match self.kernel.try_gateway(restore, &case.rules.text()) {
            Ok(_) => self.play(case, &mut outcome, &mut clock),
            Err(complaint) => outcome.refused = Some(complaint),
        }
        self.kernel.gateway(restore, &Ruleset::empty().text());
        self.kernel.reset(before);
        (outcome, clock)
    }

    fn play(&mut self, case: &Case, outcome: &mut Outcome, clock: &mut Vec<Duration>) {
        self.kernel.gateway("conntrack -F", "");
        self.kernel.exchange(&[]);
        self.kernel.logged();
        let began = Instant::now();
        for step in 0..case.plan.drafts.len() {
            let earliest = clock.last().map_or(Duration::ZERO, |last| *last + STEP);
            if let Some((_, rules)) = case.then.as_ref().filter(|(before, _)| *before == step) {
                outcome.counters.push(self.counters(case));
                match self.kernel.try_gateway(case.tool("restore"), &rules.text()) {
                    Ok(_) => {}
                    Err(complaint) => return outcome.refused = Some(complaint),
                }
            }
            clock.push(began.elapsed().max(earliest));
            let sent = case.plan.frame(step, &outcome.observed);
            let emitted = match &sent {
                Some(sent) => self.kernel.exchange(std::slice::from_ref(sent)),
                None => Vec::new(),
            };
            outcome.sent.push(sent);
            outcome.observed.push(emitted);
            let logged = self.kernel.logged();
            outcome.logged.push(logged.iter().map(|message| self.line(message)).collect());
        }
        let family = if case.four() { "ipv4" } else { "ipv6" };
        outcome.conns = self.kernel.gateway(&format!("conntrack -L -f {family}"), "");
        outcome.counters.push(self.counters(case));
    }

    fn counters(&self, case: &Case) -> String {
        self.kernel.gateway(&format!("{} -c", case.tool("save")), "")
    }

    /// What was logged, in the words in which Sluicegate would.
    fn line(&self, message: &Message) -> String {
        if message.prefix.starts_with("nf_ct_") {
            return without_ticks(message.prefix.trim_end()).to_owned();
        }
        let port = |index: u32| {
            let side = self.links.iter().position(|link| *link == index);
            side.map(|side| PortId(side as u8))
        };
        let mut line = LogLine {
            prefix: Default::default(),
            said: None,
            level: 4,
            flags: 0,
            group: (message.group != 0).then_some((message.group, None)),
            in_port: port(message.input),
            out_port: port(message.output),
            head: Default::default(),
            l3: message.link_header.len(),
            mark: message.mark,
        };
        line.prefix.try_push_str(&message.prefix).expect("prefixes are short");
        let room = line.head.capacity();
        let bytes = message.link_header.iter().chain(&message.packet);
        line.head.extend(bytes.copied().take(room));
        let odd = [message.input, message.output].map(|index| index != 0 && port(index).is_none());
        let text = log_line::text(&line, &self.snapshot);
        if odd == [false; 2] { text } else { format!("{text}(another interface: {odd:?})") }
    }
}

/// The number of an interface in the listing of `ip -o link`.
fn index(listed: &str, name: &str) -> u32 {
    let of_port = |line: &&str| {
        let named = line.split_whitespace().nth(1).and_then(|word| word.split(['@', ':']).next());
        named == Some(name)
    };
    let line = listed.lines().find(of_port).expect("the port is there");
    line.split(':').next().and_then(|number| number.parse().ok()).expect("it has a number")
}

fn snapshot() -> Snapshot {
    let port = |(at, side): (usize, Side)| {
        format!("[[port]]\nname = \"{}\"\ndevice = \"net_null{at}\"\n", side.port())
    };
    let text: String = Side::BOTH.into_iter().enumerate().map(port).collect();
    let config = Config::parse(Path::new("names.toml"), &text, 1 << 30).expect("it is right");
    let rules = Rulesets {
        v4: model::Ruleset::new(Family::V4),
        v6: model::Ruleset::new(Family::V6),
        sets: Default::default(),
    };
    let macs = Side::BOTH.map(Side::gateway_mac);
    let learnt = Learnt::default();
    publish::snapshot(&config, &macs, &learnt, &rules, Knobs::default(), None, 1)
        .expect("it is right")
}
