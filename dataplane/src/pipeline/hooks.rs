//! Walking the rules with the facts of a packet.

use core::cell::Cell;

use arrayvec::{ArrayString, ArrayVec};

use crate::conntrack::events;
use crate::conntrack::extension::Extension;
use crate::conntrack::helper::Helper;
use crate::conntrack::record::Conn;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::Tuple;
use crate::conntrack::zones::Zones;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{FromLcore, LOG_BYTES, LogLine};
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::paths::Hits;
use crate::pipeline::route::{Destination, NoWay};
use crate::pipeline::snapshot::RuleCounters;
use crate::pipeline::transit::{Attached, Transit};
use crate::pipeline::{At, Pipeline, Random};
use crate::rules::compiled::CounterId;
use crate::rules::facts::{self, Around, CtFacts, Facts, PlaceOf, PortId};
use crate::rules::hook::{Hook, Table};
use crate::rules::sets::Change;
use crate::rules::targets::Log;
use crate::rules::template::Said;
use crate::rules::walk::{Sink, Verdict, Walked};
use crate::time::Now;
use crate::wire::address::Address;
use crate::wire::headers::{Fragment, Headers};

/// LOG rules that one walk can print for; those behind them only count.
const LOGS_MAX: usize = 2;

/// Changes of sets that one walk can ask for; others are counted as lost.
const CHANGES_MAX: usize = 8;

/// What a LOG rule asks for.
#[derive(Clone, Copy)]
struct LogRequest {
    prefix: ArrayString<30>,
    level: u8,
    flags: u8,
}

/// Counts and notes what a walk hits.
struct Witness<'a, N> {
    counters: &'a RuleCounters,
    bytes: u64,
    hits: &'a mut Hits,
    cacheable: &'a mut bool,
    notes: &'a mut N,
    logs: ArrayVec<LogRequest, LOGS_MAX>,
    changes: ArrayVec<Change, CHANGES_MAX>,
    lost: u64,
}

impl<N: Notes> Sink for Witness<'_, N> {
    #[inline(always)]
    fn hit(&mut self, counter: CounterId) {
        self.counters.add(counter, 1, self.bytes);
        self.notes.note(|| Note::Hit(counter));
        *self.cacheable &= self.hits.try_push(counter).is_ok();
    }

    fn per_packet(&mut self) {
        *self.cacheable = false;
    }

    fn log(&mut self, log: &Log, _facts: &Facts<'_>) {
        let prefix = ArrayString::from(&log.prefix).unwrap_or_default();
        let _ = self.logs.try_push(LogRequest { prefix, level: log.level, flags: log.flags });
    }

    fn change(&mut self, change: Change) {
        self.lost += u64::from(self.changes.try_push(change).is_err());
    }
}

/// A record and what is around it, as rules look at them. It is looked up for those that ask.
struct ConnAt<'a, F> {
    attached: &'a Attached,
    frame: &'a F,
    at: At<'a>,
    /// The lcore that looks.
    lcore: u8,
    /// A rule has set a label.
    labelled: Cell<bool>,
    random: Cell<Random>,
}

impl<'a, F> ConnAt<'a, F> {
    fn conn(&self) -> Option<Conn<'a>> {
        let Attached::Conn(a) = self.attached else { return None };
        self.at.table.records.get(a.conn)
    }

    fn extension(&self) -> Option<Extension<'a>> {
        self.at.table.extension(self.conn()?)
    }

    /// Of IPv6, a subnet's anycast address is the gateway's, too, but none of those it was given.
    fn is_own(&self, address: Address, port: PortId) -> bool {
        let link_local = address.bits() >> 118 == 0xfe80 >> 6;
        let mut given = self.at.policy.port(port).addresses.iter();
        address.is_v4() || link_local || given.any(|own| own.address == address)
    }
}

impl<F> facts::Conn for ConnAt<'_, F> {
    fn status(&self) -> Status {
        self.conn().map(|conn| conn.status()).unwrap_or_default()
    }

    fn original(&self) -> Tuple {
        self.conn().map(|conn| conn.orig()).unwrap_or_default()
    }

    fn reply(&self) -> Tuple {
        self.conn().map(|conn| conn.reply()).unwrap_or_default()
    }

    fn expires_secs(&self) -> u32 {
        self.conn().map_or(0, |conn| conn.deadline().remaining_secs(self.at.now.tick))
    }

    fn labels(&self) -> Option<u128> {
        self.extension()?.labels()
    }

    fn set_label(&self, label: u8) -> bool {
        let owner = self.conn().and_then(|conn| conn.owner());
        let (Some(extension), Some(owner)) = (self.extension(), owner) else { return false };
        if owner != self.lcore {
            return false;
        }
        extension.set_labels(extension.labels().unwrap_or_default() | 1 << (label & 127));
        self.labelled.set(true);
        true
    }

    fn mark(&self) -> u32 {
        self.conn().map_or(0, |conn| conn.mark())
    }

    fn counted(&self, direction: Direction) -> Option<(u64, u64)> {
        self.extension().filter(|e| e.counts()).map(|e| e.counted(direction))
    }

    fn helper(&self) -> Option<Helper> {
        self.extension()?.helper()
    }

    fn master_helper(&self) -> Option<Helper> {
        let master = self.extension()?.master();
        let master = self.at.table.records.get(master.conn).filter(|m| m.id() == master)?;
        self.at.table.extension(master)?.helper()
    }

    fn zones(&self) -> Zones {
        self.conn().map(|conn| conn.zones()).unwrap_or_default()
    }
}

impl<F: Frame> Around for ConnAt<'_, F> {
    fn now(&self) -> Now {
        self.at.now
    }

    fn place_of(&self, address: Address, port: Option<PortId>) -> PlaceOf {
        match self.at.policy.routes.classify(address, port.map(|port| port.0)) {
            Destination::Local(port) if self.is_own(address, PortId(port)) => {
                PlaceOf::Local(PortId(port))
            }
            Destination::Local(port) => PlaceOf::Anycast(PortId(port)),
            Destination::Broadcast => PlaceOf::Broadcast,
            Destination::Multicast { .. } => PlaceOf::Multicast,
            Destination::Forward(route) => PlaceOf::Unicast(PortId(route.port)),
            Destination::Unreachable(NoWay::NoRoute) => PlaceOf::NoRoute,
            Destination::Unreachable(NoWay::Blackhole) => PlaceOf::Blackhole,
            Destination::Unreachable(NoWay::Unreachable) => PlaceOf::Unreachable,
            Destination::Unreachable(NoWay::Prohibit) => PlaceOf::Prohibit,
        }
    }

    fn random(&self) -> u32 {
        let mut random = self.random.get();
        let number = random.next();
        self.random.set(random);
        number
    }

    fn segments(&self, visit: &mut dyn FnMut(&[u8]) -> bool) {
        let mut segments = self.frame.segments();
        while segments.next().is_some_and(&mut *visit) {}
    }
}

impl<P: FramePool> Pipeline<P> {
    /// Walks a chain of raw, mangle or filter. Most tables are empty for most hooks: then there is
    /// nothing to know or to count.
    #[inline(always)]
    pub(crate) fn filter(
        &mut self,
        pool: &mut P,
        t: &mut Transit<P::Frame>,
        table: Table,
        hook: Hook,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        if !at.policy.family(t.is_v6()).rules.has(table, hook) {
            return Ok(());
        }
        self.filter_by_chain(pool, t, table, hook, at)
    }

    #[inline(never)]
    fn filter_by_chain(
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

    /// Walks one chain and leaves counts, path and log lines behind. Where there is no rule, and
    /// every packet accepted, that is a count at most.
    #[inline(always)]
    pub(crate) fn walk(
        &mut self,
        t: &mut Transit<P::Frame>,
        table: Table,
        hook: Hook,
        at: At<'_>,
    ) -> Walked {
        let family = at.policy.family(t.is_v6());
        self.notes.note(|| Note::Walks(table, hook));
        if !family.rules.is_empty(table, hook) {
            return self.walk_rules(t, table, hook, at);
        }
        if let Some(policy) = family.rules.policy_counter(table, hook)
            && let Some(counters) = family.counters.get(self.place.lcore() as usize)
        {
            counters.add(policy, 1, t.headers.ip_len() as u64);
            self.notes.note(|| Note::Hit(policy));
            t.cacheable &= t.hits.try_push(policy).is_ok();
        }
        Walked { verdict: Verdict::Accept, said: None, mark: t.mark }
    }

    #[inline(never)]
    fn walk_rules(
        &mut self,
        t: &mut Transit<P::Frame>,
        table: Table,
        hook: Hook,
        at: At<'_>,
    ) -> Walked {
        let family = at.policy.family(t.is_v6());
        let lcore = self.place.lcore();
        let Some(counters) = family.counters.get(lcore as usize) else {
            return Walked { verdict: Verdict::Accept, said: None, mark: t.mark };
        };
        let Transit { frame, headers, attached, in_port, out_port, mark, hits, cacheable, .. } = t;
        let (labelled, random) = (Cell::new(false), Cell::new(self.random));
        let frame = &*frame;
        let conn = ConnAt { attached, frame, at, lcore, labelled, random };
        let facts = || {
            let ports = (*in_port, *out_port);
            facts_of(frame, headers, ports, *mark, (ct_facts(attached, &conn), &conn))
        };
        let bytes = headers.ip_len() as u64;
        let (notes, logs, changes) = (&mut self.notes, ArrayVec::new(), ArrayVec::new());
        let mut witness =
            Witness { counters, bytes, hits, cacheable, notes, logs, changes, lost: 0 };
        let walked = family.rules.walk(table, hook, facts, &mut witness);
        let labelled = conn.labelled.get();
        self.random = conn.random.get();
        witness.notes.note(|| Note::Walked(walked.verdict, *headers, walked.mark));
        if !(witness.logs.is_empty() && witness.changes.is_empty()) {
            let (logs, changes, lost) = (witness.logs, witness.changes, witness.lost);
            self.change_sets(changes, lost);
            self.log(t, &logs, walked.mark);
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

    /// What the control core is to change. Packets that come before it has may find the sets as
    /// they were.
    #[cold]
    #[inline(never)]
    fn change_sets(&mut self, changes: ArrayVec<Change, CHANGES_MAX>, lost: u64) {
        changes.into_iter().for_each(|change| self.tell(FromLcore::Change(change)));
        self.links.counters.lost_messages.add(lost);
    }

    #[cold]
    #[inline(never)]
    fn log(&mut self, t: &Transit<P::Frame>, requests: &[LogRequest], mark: u32) {
        for &LogRequest { prefix, level, flags } in requests {
            self.tell(FromLcore::Log(LogLine { prefix, level, flags, mark, ..log_line(t) }));
        }
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

/// What tracking has said of a packet at this point of its way.
fn ct_facts<'a>(attached: &Attached, conn: &'a dyn facts::Conn) -> CtFacts<'a> {
    let (state, direction, conn) = match attached {
        Attached::Conn(a) => (a.state, a.direction, Some(conn)),
        Attached::Untracked => (CtState::Untracked, Direction::Original, None),
        Attached::Nothing => (CtState::Invalid, Direction::Original, None),
    };
    CtFacts { state, direction, conn }
}

/// What rules may know of it.
fn facts_of<'a, F: Frame>(
    frame: &'a F,
    h: &Headers,
    (in_port, out_port): (Option<PortId>, Option<PortId>),
    mark: u32,
    (ct, around): (CtFacts<'a>, &'a dyn Around),
) -> Facts<'a> {
    Facts {
        in_port,
        out_port,
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
        mark,
        frame: frame.head(),
        l3_at: h.l3,
        l4_at: h.l4,
        around,
        ct,
    }
}
