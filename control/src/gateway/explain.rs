//! What would become of a packet: the live side of `explain`.
//!
//! The question is answered by an [`Offline`] gateway with the policy in force. Conns of the live
//! table that the packet meets are found from the notes of a run without them, copied, and the
//! packet runs again, until it meets nobody new. The live table is only read: a conn that changes
//! meanwhile is copied as it was at some moment of that.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Parser;

use dataplane::conntrack::expect::ExpectationView;
use dataplane::conntrack::record::{Conn, ConnId, ConnRef};
use dataplane::conntrack::state::Status;
use dataplane::lcore::memory::MemoryFrame;
use dataplane::pipeline::neighbour::State;
use dataplane::pipeline::notes::{Note, Tracked};
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::rules::facts::PortId;
use dataplane::rules::hook::Hook;
use dataplane::time::Now;
use dataplane::wire::address::Address;
use dataplane::wire::ethernet::Mac;

use super::ControlCore;
use crate::explain::offline::{CONNS_MAX, Offline};
use crate::explain::question::{Fit, Question};
use crate::explain::report::{Report, Scene, report};
use crate::explain::words;
use crate::labels::Names;
use crate::publish::{self, Begin, Rulesets};
use crate::tools::{Answer, Gateway};

/// Runs until the packet meets nobody new. Each but the last copies a conn more.
const RUNS_MAX: usize = 64;

/// Conns of the packet's source that a translation may follow.
const SAME_SOURCE_MAX: usize = 64;

/// What a packet meets in the live table.
#[derive(Default)]
struct Met {
    conns: Vec<ConnId>,
    expectations: Vec<ExpectationView>,
    /// What the segment of a known conn is to look like.
    fit: Option<Fit>,
}

impl Met {
    /// True if it was not known.
    fn add(&mut self, conn: ConnId) -> bool {
        let new = !self.conns.contains(&conn) && self.conns.len() < CONNS_MAX as usize / 2;
        if new {
            self.conns.push(conn);
        }
        new
    }
}

impl ControlCore {
    /// Answers `explain`.
    pub(super) fn explain(&mut self, words: &[String]) -> Answer {
        let question = match Question::try_parse_from(words) {
            Ok(question) => question,
            Err(error) if error.use_stderr() => {
                let err = error.to_string();
                return Answer { err, exit: 2, ..Answer::default() };
            }
            Err(help) => return Answer::text(help.to_string()),
        };
        if let Err(complaint) = question.check() {
            return Answer::failure(2, format_args!("explain: {complaint}"));
        }
        match self.explained(&question) {
            Ok(report) if question.json => match serde_json::to_string(&report) {
                Ok(json) => Answer::text(format!("{json}\n")),
                Err(error) => Answer::failure(1, format_args!("explain: {error}")),
            },
            Ok(report) => Answer::text(report.to_string()),
            Err(complaint) => Answer::failure(1, format_args!("explain: {complaint}")),
        }
    }

    fn port_named(&self, name: &str) -> Result<PortId, String> {
        let number = self.config.ports.iter().position(|port| port.name == name);
        number.map(|number| PortId(number as u8)).ok_or_else(|| format!("there is no port {name}"))
    }

    /// The policy in force for one lcore, with counters of its own and rules that take nothing of
    /// what the live ones keep.
    pub(super) fn policy_apart(
        &self,
        rulesets: &Rulesets,
        begin: Begin,
    ) -> Result<Arc<Snapshot>, String> {
        let (config, macs, before) = (&self.config, &self.macs, (&*self.snapshot, begin));
        publish::apart(config, macs, &self.learnt, rulesets, self.knobs, before)
            .map(Arc::new)
            .map_err(|error| error.to_string())
    }

    fn explained(&mut self, question: &Question) -> Result<Report, String> {
        let named = question.input.as_deref().or(question.output.as_deref()).unwrap_or_default();
        let port = self.port_named(named)?;
        let rulesets = self.rulesets.clone();
        let mut met = Met::default();
        for _ in 0..RUNS_MAX {
            // Each run finds what rules keep as it is.
            let snapshot = self.policy_apart(&rulesets, Begin::AsNow)?;
            let mut offline = Offline::new(Arc::clone(&snapshot), &self.shared, self.seed)
                .map_err(|error| error.to_string())?;
            let now = self.now();
            let copied = self.copy(&mut offline, &met, now);
            let fit = met.fit;
            let frames = self.send_through(&mut offline, (question, port), fit, now)?;
            let notes = offline.take_notes();
            if !self.meet(&notes, (question, &mut met), now)? {
                let scene = (&*snapshot, &rulesets);
                let report = self.report(&notes, scene, (&offline, &copied), now)?;
                let fragments = Some(frames).filter(|frames| *frames > 1);
                let fit = fit.map(|fit| question.overrides(fit));
                return Ok(Report { fit, fragments, ..report });
            }
        }
        Err(format!("the packet meets more than {RUNS_MAX} conns"))
    }

    /// Copies what the packet meets; the live conns' lines by their copies' numbers.
    fn copy(&self, offline: &mut Offline, met: &Met, now: Now) -> HashMap<ConnRef, String> {
        let pipeline = &mut offline.pipeline;
        let mut copies: HashMap<ConnId, ConnRef> = HashMap::new();
        let mut lines = HashMap::new();
        for id in &met.conns {
            let Some(conn) = self.live(*id) else { continue };
            let Some(copy) = pipeline.copy(&self.shared, conn, now) else { continue };
            copies.insert(*id, copy);
            lines.insert(copy, words::conn(conn, now));
        }
        for (id, copy) in &copies {
            if let Some(master) = self.live(*id).and_then(|conn| self.master(conn))
                && let Some(master) = copies.get(&master)
            {
                pipeline.set_master(*copy, *master);
            }
        }
        for expectation in &met.expectations {
            if let Some(master) = copies.get(&expectation.what.master) {
                pipeline.expect(&expectation.what, *master, &self.knobs.helpers, now);
            }
        }
        lines
    }

    fn live(&self, id: ConnId) -> Option<Conn<'_>> {
        self.shared.records.get(id.conn).filter(|conn| conn.id() == id)
    }

    /// Whose packets led to a conn.
    fn master(&self, conn: Conn<'_>) -> Option<ConnId> {
        let master = self.shared.extension(conn)?.master();
        self.live(master).map(Conn::id)
    }

    /// Sends the packet on its way; the number of its frames.
    fn send_through(
        &self,
        offline: &mut Offline,
        (question, port): (&Question, PortId),
        fit: Option<Fit>,
        now: Now,
    ) -> Result<usize, String> {
        let Offline { pipeline, pool } = offline;
        let settings = self.snapshot.port(port);
        let frames = question.frames(settings.mac, fit).ok_or("no packet is like that")?;
        let (number, mark) = (frames.len(), question.mark);
        for frame in frames.into_iter().map(MemoryFrame::new) {
            match (question.input.is_some(), settings.host_tap) {
                (true, _) => pipeline.take_frame(pool, (port, mark), frame, now),
                // As the kernel sends it for the box's own programs.
                (false, Some(tap)) => pipeline.take_frame(pool, (tap, mark), frame, now),
                (false, None) => pipeline.send_own(pool, (Some(port), mark), frame, now),
            }
        }
        Ok(number)
    }

    /// Looks up in the live table what the notes speak of; true if somebody is new.
    fn meet(
        &mut self,
        notes: &[Note],
        (question, met): (&Question, &mut Met),
        now: Now,
    ) -> Result<bool, String> {
        let mut new = false;
        let mut sought = None;
        for note in notes {
            match *note {
                Note::Sought(tuple, zones) => {
                    sought = sought.or(Some((tuple, zones)));
                    let found = self.shared.find_in(&tuple, zones, now.tick);
                    let Some(found) = found.filter(|found| !found.expired) else { continue };
                    if met.add(found.conn.id()) {
                        new = true;
                        self.master(found.conn).inspect(|master| _ = met.add(*master));
                        // The first one sought is the packet's own.
                        if found.conn.proto() == question.proto && met.fit.is_none() {
                            let shift = self.shared.proxied(found.conn).map(|p| p.shift());
                            let fit = Fit::of(found.conn, found.direction);
                            met.fit = fit.map(|fit| fit.told(found.direction, shift));
                        }
                    }
                }
                Note::Bound(hook, [original, reply], zones) => {
                    let hash = self.shared.hash(&reply, zones.reply);
                    let found = self.shared.find(hash, &reply, zones.reply, now.tick);
                    if let Some(found) = found.filter(|found| !found.expired) {
                        new |= met.add(found.conn.id());
                    }
                    let source = (reply.dst, reply.dst_id) != (original.src, original.src_id);
                    if source && matches!(hook, Hook::Postrouting | Hook::Input) {
                        let mut left = SAME_SOURCE_MAX;
                        self.shared.same_source(&original, zones.original, |conn| {
                            let live = !conn.is_expired(now.tick);
                            new |= live && met.add(conn.id());
                            left -= 1;
                            (left == 0).then_some(())
                        });
                    }
                }
                Note::Tracked(Tracked::Conn { fresh: true, lent: false, .. })
                    if !self.shared.expectations.is_empty() =>
                {
                    let Some((tuple, zones)) = sought else { continue };
                    let all = self.expectations().map_err(|silent| silent.to_string())?;
                    let waits =
                        |e: &ExpectationView| e.what.zone == zones.id() && e.what.is_for(&tuple);
                    for expectation in all.into_iter().filter(waits) {
                        new |= met.add(expectation.what.master);
                        if !met.expectations.iter().any(|known| known.key == expectation.key) {
                            new = true;
                            met.expectations.push(expectation);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(new)
    }

    fn report(
        &self,
        notes: &[Note],
        (snapshot, rulesets): (&Snapshot, &Rulesets),
        (offline, copied): (&Offline, &HashMap<ConnRef, String>),
        now: Now,
    ) -> Result<Report, String> {
        let labels = Names::read(&self.config.conntrack.label_names).ok();
        let scene = Scene {
            snapshot,
            rulesets,
            labels: labels.as_ref(),
            copied: &|conn| copied.get(&conn).cloned(),
            begun: &|conn| {
                let conn = offline.pipeline.conn(conn);
                let conn = conn.filter(|conn| conn.status().has(Status::CONFIRMED));
                conn.map(|conn| words::conn(conn, now))
            },
            neighbour: &|port, address| self.neighbour_in_words(port, address),
        };
        report(notes, &scene).ok_or_else(|| "the packet does not reach the hooks".to_owned())
    }

    /// What is known of a next hop's MAC address.
    fn neighbour_in_words(&self, port: PortId, address: Address) -> String {
        let ask = if address.is_v4() { "ARP" } else { "neighbour discovery" };
        let known = self.neighbours.at(port.0, address);
        match known.map(|known| (known.state, known.mac)) {
            Some((State::Failed, _)) => format!("did not answer to {ask} lately: asked anew"),
            Some((_, Some(mac))) => Mac(mac).to_string(),
            _ => format!("MAC address not known: waits for {ask}"),
        }
    }
}
