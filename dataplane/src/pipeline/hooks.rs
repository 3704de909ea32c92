//! Walking the rules with the facts of a packet.

use crate::conntrack::state::{CtState, Direction, Status};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{FromLcore, LOG_BYTES, LogLine};
use crate::pipeline::snapshot::RuleCounters;
use crate::pipeline::transit::{Attached, Transit};
use crate::pipeline::{OUTBOX_MAX, Pipeline};
use crate::rules::compiled::CounterId;
use crate::rules::facts::{CtFacts, Facts};
use crate::rules::hook::{Hook, Table};
use crate::rules::model::Log;
use crate::rules::walk::{Sink, Verdict, Walked};

/// Counts and notes what a walk hits.
struct Witness<'a> {
    counters: &'a RuleCounters,
    bytes: u64,
    hits: &'a mut crate::pipeline::paths::Hits,
    cacheable: &'a mut bool,
    log: Option<&'a Log>,
}

/// LOG lines kept from one walk; a second LOG rule on the same walk counts but prints nothing.
impl<'a> Sink<'a> for Witness<'a> {
    fn hit(&mut self, counter: CounterId) {
        self.counters.add(counter, 1, self.bytes);
        *self.cacheable &= self.hits.try_push(counter).is_ok();
    }

    fn per_packet(&mut self) {
        *self.cacheable = false;
    }

    fn log(&mut self, log: &'a Log) {
        self.log.get_or_insert(log);
    }
}

impl<P: FramePool> Pipeline<P> {
    /// Walks a chain of raw, mangle or filter.
    pub(crate) fn filter(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        table: Table,
        hook: Hook,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let walked = self.walk(t, table, hook, at);
        t.mark = walked.mark;
        if walked.notrack && matches!(t.attached, Attached::Nothing) {
            t.attached = Attached::Untracked;
        }
        match walked.verdict {
            Verdict::Accept => Ok(()),
            Verdict::Reject(with) => {
                self.reject(pool, t, with, at);
                Err(DropReason::Rejected)
            }
            Verdict::Drop | Verdict::Nat(_) => Err(match table {
                Table::Raw => DropReason::RawDrop,
                Table::Mangle => DropReason::MangleDrop,
                Table::Nat => DropReason::NatDrop,
                Table::Filter => DropReason::FilterDrop,
            }),
        }
    }

    /// Walks one chain and leaves counts, path and log lines behind.
    pub(crate) fn walk(
        &mut self,
        t: &mut Transit<P::Frame>,
        table: Table,
        hook: Hook,
        at: At<'_>,
    ) -> Walked {
        let snapshot = self.snapshot.clone();
        let family = snapshot.family(t.is_v6());
        let facts = self.facts(t, at);
        let mut hits = core::mem::take(&mut t.hits);
        let mut cacheable = t.cacheable;
        let mut witness = Witness {
            counters: &family.counters[self.lcore],
            bytes: (t.headers.end - t.headers.l3 as u32) as u64,
            hits: &mut hits,
            cacheable: &mut cacheable,
            log: None,
        };
        let walked = family.rules.walk(table, hook, &facts, &mut witness);
        let log = witness.log;
        t.hits = hits;
        t.cacheable = cacheable;
        if let Some(log) = log {
            self.log(t, log);
        }
        walked
    }
}
