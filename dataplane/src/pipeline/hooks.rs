//! Walking the rules with the facts of a packet.

use core::cell::Cell;

use arrayvec::{ArrayString, ArrayVec};

use crate::conntrack::events;
use crate::conntrack::record::Conn;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::Tuple;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{FromLcore, LOG_BYTES, LogLine};
use crate::pipeline::paths::Hits;
use crate::pipeline::snapshot::RuleCounters;
use crate::pipeline::transit::{Attached, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::compiled::CounterId;
use crate::rules::facts::{self, CtFacts, Facts};
use crate::rules::hook::{Hook, Table};
use crate::rules::targets::Log;
use crate::rules::template::Said;
use crate::rules::walk::{Sink, Verdict, Walked};
use crate::wire::headers::Fragment;

/// LOG rules that one walk can print for; those behind them only count.
const LOGS_MAX: usize = 2;

/// What a LOG rule asks for.
struct LogRequest {
    prefix: ArrayString<30>,
    level: u8,
    flags: u8,
}

/// Counts and notes what a walk hits.
struct Witness<'a> {
    counters: &'a RuleCounters,
    bytes: u64,
    hits: Hits,
    cacheable: bool,
    logs: ArrayVec<LogRequest, LOGS_MAX>,
}

impl Sink for Witness<'_> {
    fn hit(&mut self, counter: CounterId) {
        self.counters.add(counter, 1, self.bytes);
        self.cacheable &= self.hits.try_push(counter).is_ok();
    }

    fn per_packet(&mut self) {
        self.cacheable = false;
    }

    fn log(&mut self, log: &Log, _facts: &Facts<'_>) {
        let prefix = ArrayString::from(&log.prefix).unwrap_or_default();
        let _ = self.logs.try_push(LogRequest { prefix, level: log.level, flags: log.flags });
    }
}

/// A record as rules look at it.
struct ConnAt<'a> {
    conn: Conn<'a>,
    at: At<'a>,
    /// The lcore that looks.
    lcore: u8,
    /// A rule has set a label.
    labelled: Cell<bool>,
}

impl facts::Conn for ConnAt<'_> {
    fn status(&self) -> Status {
        self.conn.status()
    }

    fn original(&self) -> Tuple {
        self.conn.orig()
    }

    fn reply(&self) -> Tuple {
        self.conn.reply()
    }

    fn expires_secs(&self) -> u32 {
        self.conn.deadline().remaining_secs(self.at.now.tick)
    }

    fn labels(&self) -> Option<u128> {
        self.at.table.extension(self.conn)?.labels()
    }

    fn set_label(&self, label: u8) -> bool {
        let extension = self.at.table.extension(self.conn);
        let (Some(extension), Some(owner)) = (extension, self.conn.owner()) else { return false };
        if owner != self.lcore {
            return false;
        }
        extension.set_labels(extension.labels().unwrap_or_default() | 1 << (label & 127));
        self.labelled.set(true);
        true
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
        if let Some(said) = walked.said
            && matches!(t.attached, Attached::Nothing)
        {
            match said {
                Said::Notrack => t.attached = Attached::Untracked,
                Said::Template(template) => t.template = Some(template),
            }
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
        let family = at.policy.family(t.is_v6());
        if !family.rules.has(table, hook) {
            // Most tables are empty for most hooks: then there is nothing to know or to count.
            return Walked { verdict: Verdict::Accept, said: None, mark: t.mark };
        }
        let conn = t.attachment().and_then(|a| at.table.records.get(a.conn));
        let lcore = self.place.lcore();
        let conn = conn.map(|conn| ConnAt { conn, at, lcore, labelled: Cell::new(false) });
        let hits = core::mem::take(&mut t.hits);
        let facts = facts_of(t, conn.as_ref().map(|c| c as &dyn facts::Conn));
        let mut witness = Witness {
            counters: &family.counters[lcore as usize],
            bytes: t.headers.ip_len() as u64,
            hits,
            cacheable: t.cacheable,
            logs: ArrayVec::new(),
        };
        let walked = family.rules.walk(table, hook, &facts, &mut witness);
        let labelled = conn.is_some_and(|conn| conn.labelled.get());
        let Witness { hits, cacheable, logs, .. } = witness;
        t.hits = hits;
        t.cacheable = cacheable;
        for request in logs {
            self.log(t, request, walked.mark);
        }
        if labelled {
            self.note_label(t, at);
        }
        walked
    }

    /// A label is told with whatever else the packet does to its conn; what a fresh conn has is
    /// told at its birth.
    #[cold]
    #[inline(never)]
    fn note_label(&mut self, t: &mut Transit<P::Frame>, at: At<'_>) {
        let Attached::Conn(a) = &mut t.attached else { return };
        if a.lent {
            let number = a.conn;
            self.report(events::LABEL, number, at);
        } else if !a.fresh {
            a.events |= events::LABEL;
        }
    }

    fn log(&mut self, t: &Transit<P::Frame>, request: LogRequest, mark: u32) {
        let LogRequest { prefix, level, flags } = request;
        self.tell(FromLcore::Log(LogLine { prefix, level, flags, mark, ..log_line(t) }));
    }
}

/// The part of a line that is the packet's own; the level is the kernel's where no rule names one.
pub(crate) fn log_line<F: Frame>(t: &Transit<F>) -> LogLine {
    let head = t.frame.head();
    let head = head.get(..head.len().min(LOG_BYTES)).unwrap_or_default();
    LogLine {
        prefix: ArrayString::new(),
        said: None,
        level: Log::DEFAULT_LEVEL,
        flags: 0,
        in_port: t.in_port,
        out_port: t.out_port,
        head: head.iter().copied().collect(),
        l3: t.headers.l3 as usize,
        mark: t.mark,
    }
}

/// What rules may know of a packet at this point of its way.
fn facts_of<'a, F: Frame>(t: &'a Transit<F>, conn: Option<&'a dyn facts::Conn>) -> Facts<'a> {
    let h = &t.headers;
    let (state, direction) = match t.attached {
        Attached::Conn(a) => (a.state, a.direction),
        Attached::Untracked => (CtState::Untracked, Direction::Original),
        Attached::Nothing => (CtState::Invalid, Direction::Original),
    };
    Facts {
        in_port: t.in_port,
        out_port: t.out_port,
        src: h.src,
        dst: h.dst,
        proto: h.proto,
        fragment_offset: match h.fragment {
            Fragment::Later { offset, .. } => offset >> 3,
            _ => 0,
        },
        src_port: h.src_port,
        dst_port: h.dst_port,
        tcp_flags: h.tcp_flags,
        icmp_type: h.icmp_type,
        icmp_code: h.icmp_code,
        l4_valid: !h.l4_truncated,
        length: h.ip_len(),
        mark: t.mark,
        l4: t.frame.head().get(h.l4 as usize..).unwrap_or_default(),
        ct: CtFacts { state, direction, conn },
    }
}
