//! `check --live`: which conns a configuration would treat otherwise than the one in force.
//!
//! The file is read as a reload reads it, and refused as there; nothing is put in force. Each live
//! conn is judged by the rules in force and by the new ones ([`super::verdicts`]); those of which
//! the two say something else are listed.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use dataplane::conntrack::state::Direction;
use dataplane::pipeline::drops::DropReason;
use dataplane::pipeline::snapshot::Snapshot;
use dataplane::rules::compiled::CounterId;
use dataplane::rules::model::{Countable, Ruleset};

use super::ControlCore;
use super::policy::{load_rules_over, needs_restart};
use super::verdicts::Fate;
use crate::config::Config;
use crate::explain::words;
use crate::publish::{self, Begin};
use crate::tools::Answer;
use crate::tools::conntrack_format::{Output, Shape, conn_line};

impl ControlCore {
    /// Answers `check --live FILE`.
    pub(super) fn check_live(&mut self, words: &[String]) -> Answer {
        let [live, path] = words else {
            return Answer::failure(2, "check: takes --live and a configuration");
        };
        if live != "--live" {
            return Answer::failure(2, format_args!("check: unknown option '{live}'"));
        }
        match self.changes(Path::new(path)) {
            Ok(answer) => answer,
            Err(complaint) => Answer::failure(1, complaint),
        }
    }

    fn changes(&mut self, path: &Path) -> Result<Answer, String> {
        let config = Config::load(path).map_err(|error| error.to_string())?;
        let rulesets = load_rules_over(&config, &self.rulesets.sets, self.tick_now());
        let rulesets = rulesets.map_err(|error| error.to_string())?;
        if let Some(what) = needs_restart(&self.config, &config) {
            return Err(format!("{what} cannot change while running"));
        }
        let learnt = self.learnt_under(&config);
        let (knobs, before) = (self.knobs, (&*self.snapshot, Begin::Anew));
        let new = publish::apart(&config, &self.macs, &learnt, &rulesets, knobs, before)
            .map_err(|error| error.to_string())?;
        let keeping = self.keeping(config.rules.on_reload, &rulesets);
        let new = Snapshot { keeping, ..new };
        let present = self.rulesets.clone();
        let old = self.policy_apart(&present, Begin::Anew)?;
        let mut judges = [self.judge(old, present)?, self.judge(Arc::new(new), rulesets)?];
        let (mut out, mut changed, mut all, mut unknown) = (String::new(), 0, 0, 0);
        self.each_fate(&mut judges, |conn, judges, fates, now| {
            all += 1;
            let (Some(before), Some(after), Some(judge)) =
                (fates.first(), fates.get(1), judges.get(1))
            else {
                return;
            };
            let rulesets = &judge.rulesets;
            let ruleset = if conn.is_v6() { &rulesets.v6 } else { &rulesets.v4 };
            let what = match (before, after) {
                (Fate::Unknown, _) | (_, Fate::Unknown) => {
                    unknown += 1;
                    return;
                }
                (Fate::Denied(..), Fate::Passes) => "would pass".to_owned(),
                (Fate::Passes, Fate::Denied(direction, counter, reason)) => {
                    denied(ruleset, *direction, *counter, *reason)
                }
                _ => return,
            };
            changed += 1;
            let view = words::view(conn, now);
            let line = conn_line(&view, &Output::default(), Shape::Listing, now.unix_ns);
            let _ = writeln!(out, "{line} [{what}]");
        });
        let mut err = format!("{changed} of {all} flow entries would be treated otherwise.\n");
        if unknown > 0 {
            let _ = writeln!(err, "{unknown} flow entries could not be judged.");
        }
        Ok(Answer { out, err, exit: 0 })
    }
}

/// Who drops what of a conn.
fn denied(
    ruleset: &Ruleset,
    direction: Direction,
    counter: CounterId,
    reason: DropReason,
) -> String {
    let done = if reason == DropReason::Rejected { "rejected" } else { "dropped" };
    let who = match direction {
        Direction::Original => "would be",
        Direction::Reply => "answers would be",
    };
    let item = ruleset.countables().nth(counter.0 as usize);
    let found = item.and_then(|Countable { table, chain, rule }| {
        Some((table.name(), &ruleset.table(table)?.chains.get(chain)?.name, rule))
    });
    match found {
        Some((table, chain, Some(rule))) => {
            format!("{who} {done} by {table}/{chain} rule {}", rule + 1)
        }
        Some((table, chain, None)) => format!("{who} {done} by the policy of {table}/{chain}"),
        None => format!("{who} {done}"),
    }
}
