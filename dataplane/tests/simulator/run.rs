//! One script under one plan, from the first frame to the last timeout, and what came of it.

use std::collections::{BTreeMap, BTreeSet};

use dataplane::conntrack::state::Status;
use dataplane::conntrack::tuple::{Tuple, proto};
use dataplane::conntrack::view::ConnView;
use dataplane::lcore::simulator::{Dice, Order, Plan, Simulator};
use dataplane::pipeline::counters::{Counter, LcoreCounters};
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::snapshot::Keeping;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::model::Ruleset;
use dataplane::time::{Now, TICKS_PER_SEC, Tick};

use super::gateway::{Denied, introduce, knobs, rules_v4, rules_v6, snapshot};
use super::hosts::{Hosts, Wrong};
use super::script::{DELETE, PHASES, PUBLISH, Script, Talk};

/// Seconds from the beginning of a phase to that of the next one.
const PHASE_SECS: u32 = 20;
/// Within this many ticks all of a phase is said.
const TALK_TICKS: u32 = 90;
/// Tens of seconds after which every timeout has passed.
const LAST_TENS: usize = 45;
/// Steps between two changes of the table's size, about.
const RESIZE_STEPS: u64 = 80;
/// Steps of one phase after which something is taken for lost.
const STEPS_MAX: u64 = 3_000_000;

/// Just before the wrap of the clock.
pub(crate) const START: Now =
    Now { tick: Tick(u32::MAX - 1000), unix_ns: 1_795_000_000_000_000_000 };

/// What does not depend on who did the work and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// What arrived, by talk and end.
    pub(crate) arrived: Vec<[Vec<String>; 2]>,
    /// Conns after each phase, without ids, ports of translation and timers.
    pub(crate) listings: Vec<Vec<String>>,
    /// Conns in the table at certain times.
    pub(crate) counts: Vec<u32>,
    /// Frames dropped, by reason.
    pub(crate) drops: Vec<(&'static str, u64)>,
    /// Packets and bytes of rules and policies of both families.
    pub(crate) rules: [Vec<(u64, u64)>; 2],
    /// Conns that were deleted by hand.
    pub(crate) deleted: u32,
    /// Conns that came and went.
    pub(crate) events: (u64, u64),
}

/// What does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effort {
    pub(crate) digest: u64,
    pub(crate) steps: u64,
    pub(crate) handed_over: u64,
    pub(crate) fast: u64,
    pub(crate) walked: u64,
    /// Times that the table changed its size.
    pub(crate) resized: u32,
}

struct Run<'a> {
    simulator: Simulator,
    hosts: Hosts<'a>,
    script: &'a Script,
    dice: Dice,
    plan: Plan,
    rules: (Ruleset, Ruleset),
    /// Both tuples of the conns of the last look, and of those deleted since.
    gone: Vec<(Tuple, Tuple)>,
    listings: Vec<Vec<String>>,
    counts: Vec<u32>,
}

/// Runs a script to its end.
pub(crate) fn run(script: &Script, plan: &Plan) -> Result<(Outcome, Effort), Wrong> {
    let rules = (rules_v4(Denied::Nothing), rules_v6());
    let rest = (knobs(script.acct), Keeping::default());
    let policy = snapshot(1, plan.layout.lcores, (&rules.0, &rules.1), rest);
    let simulator = Simulator::new(plan.clone(), policy).map_err(|e| e.to_string())?;
    introduce(&simulator);
    simulator.listen();
    let mut run = Run {
        simulator,
        hosts: Hosts::new(script),
        script,
        dice: Dice::new(plan.seed ^ 0x5eed),
        plan: plan.clone(),
        rules,
        gone: Vec::new(),
        listings: Vec::new(),
        counts: Vec::new(),
    };
    for phase in 0..PHASES {
        run.phase(phase).map_err(|wrong| format!("phase {phase}: {wrong}"))?;
    }
    run.end()
}

impl Run<'_> {
    fn phase(&mut self, phase: usize) -> Result<(), Wrong> {
        let began = self.simulator.now().tick.0;
        self.hosts.begin(phase);
        self.simulator.let_pass(TALK_TICKS);
        let first = self.simulator.steps();
        // When the control core does its part, in steps from here.
        let mut order = Some(self.dice.below(1500)).filter(|_| phase == PUBLISH || phase == DELETE);
        loop {
            self.speak();
            if order
                .is_some_and(|at| self.simulator.steps() - first >= at || self.hosts.ready() == 0)
            {
                order = None;
                if phase == PUBLISH { self.publish() } else { self.delete() }
            }
            self.resize()?;
            self.simulator.step();
            let heard = self.deliver()?;
            if heard == 0 && order.is_none() && self.hosts.ready() == 0 && self.simulator.is_quiet()
            {
                break;
            }
            if self.simulator.steps() - first > STEPS_MAX {
                return Err("does not come to rest".into());
            }
        }
        let waiting = self.hosts.waiting();
        if let Some(&talk) = waiting.first() {
            let drops = self.simulator.drops();
            return Err(format!(
                "lost: {} talks wait, {:?}, {drops:?}",
                waiting.len(),
                self.script.talks[talk]
            ));
        }
        let passed = self.simulator.now().tick.0.wrapping_sub(began);
        self.simulator.wait_ticks(5 * TICKS_PER_SEC - passed);
        self.give_up_fragments()?;
        self.look()?;
        self.simulator.wait_ticks((PHASE_SECS - 5) * TICKS_PER_SEC);
        Ok(())
    }

    /// What came of torn datagrams has had its time; nobody says a word about it.
    fn give_up_fragments(&mut self) -> Result<(), Wrong> {
        for _ in 0..STEPS_MAX {
            if self.sum(|c| &c.held) == 0 {
                return match self.hosts.unfinished() {
                    0 => Ok(()),
                    n => Err(format!("{n} datagrams left in part")),
                };
            }
            self.simulator.step();
            if self.deliver()? > 0 {
                return Err("an answer to fragments".into());
            }
        }
        Err("fragments are held for ever".into())
    }

    /// Lets talks that are ready speak: all of them where everybody takes turns.
    fn speak(&mut self) {
        let ready = self.hosts.ready();
        let several = match self.plan.order {
            Order::Turns => ready as u64,
            Order::Seeded => self.dice.below(4).min(ready as u64),
        };
        for _ in 0..several {
            let ready = self.hosts.ready();
            if ready == 0 {
                return;
            }
            let nth = self.dice.below(ready as u64) as usize;
            let mut frames = self.hosts.speak(nth, &mut self.dice);
            // Both ends may speak first.
            if self.dice.once_in(2) && frames.first().map(|f| f.0) != frames.last().map(|f| f.0) {
                frames.rotate_right(1);
            }
            frames.into_iter().for_each(|(port, bytes)| self.simulator.arrive(port, bytes));
        }
    }

    fn deliver(&mut self) -> Result<usize, Wrong> {
        let mut heard = 0;
        while let Some(sent) = self.simulator.next_sent() {
            heard += 1;
            for (port, bytes) in self.hosts.arrive(&sent)? {
                self.simulator.arrive(port, bytes);
            }
        }
        Ok(heard)
    }

    fn publish(&mut self) {
        let denied = if self.script.strict { Denied::All } else { Denied::New };
        self.rules.0 = rules_v4(denied);
        let rules = (&self.rules.0, &self.rules.1);
        let keeping = Keeping { on: self.script.keeps, ..Keeping::default().next() };
        let rest = (knobs(self.script.acct), keeping);
        self.simulator.publish(snapshot(2, self.plan.layout.lcores, rules, rest));
    }

    /// Every now and then the table begins to change to another size, also right after another.
    fn resize(&mut self) -> Result<(), Wrong> {
        if !self.dice.once_in(RESIZE_STEPS) {
            return Ok(());
        }
        let max = [1024, 2048, self.plan.max, 20_000][self.dice.below(4) as usize];
        let hashsize = self.dice.below(40_000) as u32;
        self.simulator.resize(max, hashsize).map_err(|e| e.to_string())
    }

    fn delete(&mut self) {
        let now = self.simulator.now().tick;
        let shared = self.simulator.shared().clone();
        for talk in self.script.talks.iter().filter(|talk| talk.deleted) {
            let tuple = tuple_of(talk);
            let found = shared.find(shared.hash(&tuple, 0), &tuple, 0, now);
            if let Some(found) = found.filter(|found| !found.expired) {
                self.gone.push((tuple, found.conn.reply()));
                self.simulator.delete(found.conn.id());
            }
        }
    }

    /// Looks at the table at a time when no deadline is near.
    fn look(&mut self) -> Result<(), Wrong> {
        if !self.simulator.expire() {
            return Err("the sweep does not end".into());
        }
        self.check_totals()?;
        self.counts.push(self.simulator.shared().capacity.count());
        let conns = self.simulator.list().ok_or("the listing does not end")?;
        if conns.len() != self.simulator.confirmed() as usize {
            return Err(format!("{} listed of {}", conns.len(), self.simulator.confirmed()));
        }
        self.check_translations(&conns)?;
        // They may have ended by the next look, after another conn met them.
        self.gone = conns.iter().map(|conn| (conn.original, conn.reply)).collect();
        let mut lines: Vec<String> = conns.iter().map(line).collect();
        lines.sort();
        self.listings.push(lines);
        Ok(())
    }

    /// No two conns share an answer's tuple, and a port was changed only where it was taken.
    fn check_translations(&self, conns: &[ConnView]) -> Result<(), Wrong> {
        let replies: BTreeSet<_> = conns.iter().map(|conn| key(&conn.reply)).collect();
        if replies.len() != conns.len() {
            return Err("two conns share a reply tuple".into());
        }
        // The number that names the client to the server.
        let given =
            |conn: &ConnView| if is_icmp(conn) { conn.reply.src_id } else { conn.reply.dst_id };
        let source = |conn: &ConnView| {
            let o = &conn.original;
            (o.proto, o.src.bits(), o.src_id)
        };
        let mut mapped: BTreeMap<_, Vec<u16>> = BTreeMap::new();
        for conn in conns {
            mapped.entry(source(conn)).or_default().push(given(conn));
        }
        for (o, reply) in &self.gone {
            mapped.entry((o.proto, o.src.bits(), o.src_id)).or_default().push(reply.dst_id);
        }
        // Who stood in the way of an older conn may have ended since.
        let phase_ns = 5 * 1_000_000_000;
        for conn in conns {
            let (own, now) = (conn.original.src_id, given(conn));
            let young = self.simulator.now().unix_ns - conn.start_unix_ns.unwrap_or(0) <= phase_ns;
            if own == now || !young {
                continue;
            }
            let wanted = if is_icmp(conn) {
                Tuple { src_id: own, ..conn.reply }
            } else {
                Tuple { dst_id: own, ..conn.reply }
            };
            let gone = self.gone.iter().any(|(_, reply)| key(reply) == key(&wanted));
            let reused = mapped[&source(conn)].iter().filter(|&&n| n == now).count() > 1;
            if !replies.contains(&key(&wanted)) && !gone && !reused {
                return Err(format!("port changed for nothing: {conn:?}"));
            }
            if own >= 1024 && now < 1024 && !is_icmp(conn) {
                return Err(format!("a privileged port: {conn:?}"));
            }
        }
        Ok(())
    }

    fn sum(&self, of: fn(&LcoreCounters) -> &Counter) -> u64 {
        (0..self.plan.layout.lcores).map(|l| of(self.simulator.counters(l)).get()).sum()
    }

    /// Every frame had one end, on each lcore and on all together.
    fn check_totals(&self) -> Result<(), Wrong> {
        let (mut came, mut ended) = (0, 0);
        for number in 0..self.plan.layout.lcores {
            let c = self.simulator.counters(number);
            if !c.balanced() {
                return Err(format!("lcore {number} is not balanced: {c:?}"));
            }
            came += c.ports.iter().map(|p| p.rx_packets.get()).sum::<u64>() + c.generated.get();
            ended += c.ports.iter().map(|p| p.tx_packets.get()).sum::<u64>();
            ended += c.to_host.get() + c.dropped() + c.held.get();
        }
        let (over, taken) = (self.sum(|c| &c.handed_over), self.sum(|c| &c.taken_over));
        let held = self.sum(|c| &c.held);
        if came != ended || over != taken || held != 0 || self.simulator.astray() != 0 {
            return Err(format!(
                "{came} came, {ended} ended, {over} handed over, {taken} taken, {held} held"
            ));
        }
        let (count, confirmed) =
            (self.simulator.shared().capacity.count(), self.simulator.confirmed());
        if count != confirmed || self.sum(|c| &c.lost_messages) != 0 {
            return Err(format!("{count} counted, {confirmed} confirmed"));
        }
        Ok(())
    }

    /// What rules have counted that do not depend on when they changed: conns that go on whatever
    /// the new ones say do not ask the table filter.
    fn rule_counts(&mut self, v6: bool) -> Vec<(u64, u64)> {
        let mut counts = self.simulator.rule_counts(v6).unwrap_or_default();
        let rules = if v6 { &self.rules.1 } else { &self.rules.0 };
        let asked = rules.countables().map(|c| c.table != Table::Filter || !self.script.keeps);
        let unknown = counts.iter_mut().zip(asked).filter(|(_, asked)| !asked);
        unknown.for_each(|(count, _)| *count = (0, 0));
        counts
    }

    /// Lets every timeout pass and adds up.
    fn end(mut self) -> Result<(Outcome, Effort), Wrong> {
        self.simulator.wait_ticks(5 * TICKS_PER_SEC);
        for _ in 0..LAST_TENS {
            self.simulator.wait_ticks(10 * TICKS_PER_SEC);
            if !self.simulator.expire() {
                return Err("the sweep does not end".into());
            }
            self.counts.push(self.simulator.shared().capacity.count());
        }
        let shared = self.simulator.shared().clone();
        let left = (shared.capacity.count(), shared.index.census(), shared.by_source.census());
        if left != (0, (0, 0), (0, 0)) {
            return Err(format!("left behind: {left:?}"));
        }
        let rules = [false, true].map(|v6| self.rule_counts(v6));
        self.simulator.stop();
        self.check_totals()?;
        let heard = self.simulator.heard().clone();
        if heard.retired != self.plan.layout.lcores as u32 || heard.came != heard.went {
            return Err(format!("{heard:?}"));
        }
        let drops = self.simulator.drops();
        let expected = [
            DropReason::FilterDrop,
            DropReason::TtlExceeded,
            DropReason::Reassembled,
            DropReason::FragmentTimeout,
        ];
        if drops.iter().any(|(reason, _)| !expected.contains(reason)) {
            return Err(format!("{drops:?}"));
        }
        let outcome = Outcome {
            arrived: self.hosts.logs().cloned().collect(),
            listings: self.listings.clone(),
            counts: self.counts.clone(),
            drops: drops.into_iter().map(|(reason, n)| (reason.name(), n)).collect(),
            rules,
            deleted: heard.deleted,
            events: (heard.came, heard.went),
        };
        let effort = Effort {
            digest: self.simulator.digest(),
            steps: self.simulator.steps(),
            handed_over: self.sum(|c| &c.handed_over),
            fast: self.sum(|c| &c.fast),
            walked: self.sum(|c| &c.walked),
            resized: self.simulator.resized(),
        };
        Ok((outcome, effort))
    }
}

fn tuple_of(talk: &Talk) -> Tuple {
    Tuple {
        src: talk.client.ip().into(),
        dst: talk.dialed.ip().into(),
        src_id: talk.client.port(),
        dst_id: talk.dialed.port(),
        proto: talk.proto,
    }
}

fn is_icmp(conn: &ConnView) -> bool {
    matches!(conn.original.proto, proto::ICMP | proto::ICMPV6)
}

fn key(t: &Tuple) -> (u8, u128, u16, u128, u16) {
    (t.proto, t.src.bits(), t.src_id, t.dst.bits(), t.dst_id)
}

/// A conn as every run has it. Where both ends spoke first, either may be the original source.
fn line(conn: &ConnView) -> String {
    let (mut o, mut r) = (conn.original, conn.reply);
    let mut counters = conn.counters;
    let mirror = (o.src_id, o.dst_id) == (4500, 4500);
    if mirror && o.src.bits() > o.dst.bits() {
        (o, r) = (r, o);
        counters = counters.map(|[a, b]| [b, a]);
    }
    let translated = conn.status.has(Status::SRC_NAT);
    let port = if translated { 0 } else { r.dst_id };
    // The id of a ping's answer is the translated one.
    let reply_id = if o.proto == proto::ICMP && translated { 0 } else { r.src_id };
    let counted = counters.map(|c| c.map(|c| (c.packets, c.bytes)));
    format!(
        "{} {}:{} > {}:{} | {}:{reply_id} > {}:{port} {:x} {:?} {} {counted:?}",
        o.proto,
        o.src,
        o.src_id,
        o.dst,
        o.dst_id,
        r.src,
        r.dst,
        conn.status.0,
        conn.state,
        conn.mark
    )
}

/// The rules of a family, named for whoever reads a difference of their counters.
pub(crate) fn rule_names(family: Family) -> Vec<String> {
    let set = if family == Family::V4 { rules_v4(Denied::New) } else { rules_v6() };
    set.countables().map(|c| format!("{c:?}")).collect()
}
