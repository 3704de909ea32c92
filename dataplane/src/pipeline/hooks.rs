//! Walking the rules with the facts of a packet.

use core::cell::Cell;
use core::fmt::Write;

use arrayvec::ArrayString;

use crate::conntrack::extension::Extension;
use crate::conntrack::helper::Helper;
use crate::conntrack::record::Conn;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::store::Store;
use crate::conntrack::tuple::Tuple;
use crate::conntrack::zones::Zones;
use crate::conntrack::{counts, events};
use crate::pipeline::answers::IcmpError;
use crate::pipeline::drops::DropReason;
use crate::pipeline::fragments::Datagram;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::messages::{FromLcore, LOG_BYTES, LogLine};
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::paths::Hits;
use crate::pipeline::route::{Destination, NoWay};
use crate::pipeline::snapshot::RuleCounters;
use crate::pipeline::track::checksum_ok;
use crate::pipeline::transit::{Attached, Transit};
use crate::pipeline::{At, Outbox, Pipeline, Random};
use crate::rules::compiled::CounterId;
use crate::rules::edit::tcp_mss::{MssOption, insert};
use crate::rules::edit::{Edit, Edited};
use crate::rules::facts::{self, Around, CtFacts, Facts, PlaceOf, PortId};
use crate::rules::hook::{Hook, Table};
use crate::rules::sets::Change;
use crate::rules::targets::Log;
use crate::rules::targets::nflog::Nflog;
use crate::rules::template::Said;
use crate::rules::trace::Passed;
use crate::rules::walk::{Packet, Sink, Verdict, Walked};
use crate::time::Now;
use crate::wire::address::Address;
use crate::wire::headers::{Fragment, Headers};
use crate::wire::tcp;

/// Counts and notes what a walk hits.
struct Witness<'a, N> {
    counters: &'a RuleCounters,
    bytes: u64,
    hits: &'a mut Hits,
    cacheable: &'a mut bool,
    notes: &'a mut N,
    outbox: Outbox<'a>,
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

    fn rests(&mut self) {
        self.notes.note(|| Note::Rests);
    }

    #[inline(always)]
    fn failed(&mut self, counter: CounterId) {
        self.notes.failed(counter);
    }

    #[cold]
    fn log(&mut self, log: &Log, facts: &Facts<'_>) {
        let prefix = ArrayString::from(&log.prefix).unwrap_or_default();
        let (level, flags) = (log.level, log.flags);
        self.outbox.tell(FromLcore::Log(LogLine { prefix, level, flags, ..line_of(facts) }));
    }

    #[cold]
    fn change(&mut self, change: Change) {
        self.outbox.tell(FromLcore::Change(change));
    }

    #[cold]
    fn nflog(&mut self, nflog: &Nflog, facts: &Facts<'_>) {
        let prefix = ArrayString::from(&nflog.prefix).unwrap_or_default();
        let (group, level) = (Some((nflog.group, nflog.size)), Nflog::LEVEL);
        self.outbox.tell(FromLcore::Log(LogLine { prefix, level, group, ..line_of(facts) }));
    }

    #[cold]
    fn trace(&mut self, passed: &Passed<'_>, facts: &Facts<'_>) {
        *self.cacheable = false;
        let mut prefix = ArrayString::new();
        // No name of a chain is so long that it would not fit.
        let _ = write!(prefix, "{passed}");
        let flags = Log::TCP_SEQUENCE | Log::TCP_OPTIONS | Log::IP_OPTIONS | Log::UID;
        self.outbox.tell(FromLcore::Log(LogLine { prefix, flags, ..line_of(facts) }));
    }

    fn resized(&mut self, bytes: u32) {
        self.bytes = bytes.into();
    }
}

/// The packet of a walk, and what rules may ask of it and do to it.
struct Here<'a, F> {
    frame: &'a mut F,
    headers: &'a mut Headers,
    datagram: &'a mut Option<Datagram>,
    traced: &'a mut bool,
    ports: (Option<PortId>, Option<PortId>),
    mark: u32,
    conn: ConnAt<'a>,
    /// What the table raw has just said of a packet that nobody tracks yet.
    said: Option<CtState>,
}

impl<F: Frame> Packet for &mut Here<'_, F> {
    #[inline(always)]
    fn facts(&self) -> Facts<'_> {
        let mut ct = ct_facts(self.conn.attached, &self.conn);
        ct.state = self.said.unwrap_or(ct.state);
        facts_of(&*self.frame, self.headers, self.ports, self.mark, (ct, &**self))
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), Verdict> {
        let path_mtu = path_mtu(self.headers, self.ports, self.conn.at);
        self.forget_pieces(edit);
        let Here { frame, headers, .. } = self;
        match edit.apply(frame.head_mut(), headers, || path_mtu) {
            Edited::Done => Ok(()),
            Edited::Drop => Err(Verdict::Drop),
            Edited::Problem(at) => Err(Verdict::Problem(at)),
            Edited::Grow(option) => {
                frame.truncate(headers.end as usize);
                let grown = frame.append(&[0; size_of::<MssOption>()]);
                let done = grown.then(|| insert(frame.head_mut(), headers, option)).flatten();
                done.ok_or(Verdict::Drop)
            }
        }
    }

    fn is_sound(&self) -> bool {
        checksum_ok(&*self.frame, self.headers)
    }

    fn is_traced(&self) -> bool {
        *self.traced
    }

    fn trace(&mut self) {
        *self.traced = true;
    }

    fn say(&mut self, said: &Said) {
        if matches!(self.conn.attached, Attached::Nothing) {
            self.said = Some(said.state());
        }
    }
}

impl<F: Frame> Here<'_, F> {
    /// What the kernel has to have in one piece to edit it does not leave as it came
    /// (`skb_ensure_writable`).
    fn forget_pieces(&mut self, edit: &Edit) {
        let Some(datagram) = self.datagram else { return };
        let header = match edit {
            Edit::Mss(_) => u16::MAX,
            Edit::Strip(_) => {
                let offset = self.frame.head().get(self.headers.l4 as usize + 12);
                offset.map_or(0, |offset| u16::from(offset >> 4) * 4)
            }
            Edit::Ecn(set) if set.names_tcp() => tcp::HEADER_LEN as u16,
            _ => 0,
        };
        datagram.as_it_came &= datagram.first >= header;
    }
}

/// The smaller of the MTUs of a packet's way and of the way back to its source
/// (`tcpmss_reverse_mtu`). What is here has no bound.
fn path_mtu(
    headers: &Headers,
    (in_port, out_port): (Option<PortId>, Option<PortId>),
    at: At<'_>,
) -> u32 {
    let there = out_port.map_or(u32::MAX, |port| at.policy.port(port).mtu);
    let back = match at.policy.routes.classify(headers.src, in_port.map(|port| port.0)) {
        Destination::Forward(route) => at.policy.port(PortId(route.port)).mtu,
        _ => u32::MAX,
    };
    there.min(back)
}

/// A record and what is around it, as rules look at them. It is looked up for those that ask.
struct ConnAt<'a> {
    attached: &'a Attached,
    at: At<'a>,
    /// The lcore that looks.
    lcore: u8,
    /// What rules have changed of it (`conntrack::events`).
    changed: Cell<u16>,
    store: &'a Store,
    random: Cell<Random>,
}

impl<'a> ConnAt<'a> {
    fn conn(&self) -> Option<Conn<'a>> {
        let Attached::Conn(a) = self.attached else { return None };
        self.at.table.records.get(a.conn)
    }

    fn extension(&self) -> Option<Extension<'a>> {
        self.at.table.extension(self.conn()?)
    }

    /// `nf_conncount_count`: whatever packet of a conn meets a rule has it counted, unless it is
    /// closed. Only its owner can do that; a first packet that finds no room is told so.
    fn conns_under(&self, words: &[u64; 4]) -> Option<u32> {
        let counts = &self.at.table.counts;
        let key = counts.key(words);
        let others = || counts.count(key).saturating_add(1);
        let Some(conn) = self.conn() else { return Some(others()) };
        if counts::is_closed(conn) {
            return Some(others());
        }
        if self.store.count(conn.number(), key) || counts.holds(conn, key) {
            return Some(counts.count(key).max(1));
        }
        conn.status().has(Status::CONFIRMED).then(others)
    }

    /// Of IPv6, a subnet's anycast address is the gateway's, too, but none of those it was given.
    fn is_own(&self, address: Address, port: PortId) -> bool {
        let link_local = address.bits() >> 118 == 0xfe80 >> 6;
        let mut given = self.at.policy.port(port).addresses.iter();
        address.is_v4() || link_local || given.any(|own| own.address == address)
    }
}

impl facts::Conn for ConnAt<'_> {
    fn status(&self) -> Status {
        let status = self.conn().map(|conn| conn.status()).unwrap_or_default();
        match self.attached {
            // An answer that ends its conn is one: it is told of without it, and then counts.
            Attached::Conn(a) if a.delete && a.direction == Direction::Reply => {
                status.with(Status::SEEN_REPLY)
            }
            _ => status,
        }
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
        self.changed.set(self.changed.get() | events::LABEL);
        true
    }

    fn mark(&self) -> u32 {
        self.conn().map_or(0, |conn| conn.mark())
    }

    fn set_mark(&self, mark: u32) -> bool {
        let Some(conn) = self.conn().filter(|conn| conn.owner() == Some(self.lcore)) else {
            return false;
        };
        conn.set_mark(mark);
        // What was remembered of its walks may rest on it.
        conn.set_generation(0);
        self.changed.set(self.changed.get() | events::MARK);
        true
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

impl<F: Frame> Around for Here<'_, F> {
    fn now(&self) -> Now {
        self.conn.at.now
    }

    fn place_of(&self, address: Address, port: Option<PortId>) -> PlaceOf {
        match self.conn.at.policy.routes.classify(address, port.map(|port| port.0)) {
            Destination::Local(port) if self.conn.is_own(address, PortId(port)) => {
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
        let mut random = self.conn.random.get();
        let number = random.next();
        self.conn.random.set(random);
        number
    }

    fn segments(&self, visit: &mut dyn FnMut(&[u8]) -> bool) {
        let mut segments = self.frame.segments();
        while segments.next().is_some_and(&mut *visit) {}
    }

    fn conns_under(&self, key: &[u64; 4]) -> Option<u32> {
        self.conn.conns_under(key)
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
        if table == Table::Filter && at.policy.keeping.on && is_kept(t, at) {
            self.notes.note(|| Note::Kept(hook));
            return Ok(());
        }
        let walked = self.walk(t, table, hook, at);
        t.mark = walked.mark;
        if let Some(said) = walked.said
            && matches!(t.attached, Attached::Nothing)
            && t.template.is_none()
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
            Verdict::Problem(at_byte) => {
                self.answer_error(pool, t, IcmpError::Header { at_byte }, at);
                Err(DropReason::MangleDrop)
            }
            Verdict::Synproxy(proxy) => Err(self.synproxy(pool, t, proxy, at)),
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
        let Transit { frame, headers, datagram, traced, hits, cacheable, .. } = t;
        let (changed, random) = (Cell::new(0), Cell::new(self.random));
        let store = &self.store;
        let conn = ConnAt { attached: &t.attached, at, lcore, changed, random, store };
        let bytes = headers.ip_len() as u64;
        let (ports, mark) = ((t.in_port, t.out_port), t.mark);
        let said = None;
        let mut here = Here { frame, headers, datagram, traced, ports, mark, conn, said };
        let outbox = Outbox { messages: &mut self.outbox, counters: &self.links.counters };
        let notes = &mut self.notes;
        let mut witness = Witness { counters, bytes, hits, cacheable, notes, outbox };
        let walked = family.rules.walk(table, hook, &mut here, &mut witness);
        let changed = here.conn.changed.get();
        self.random = here.conn.random.get();
        witness.notes.note(|| Note::Walked(walked.verdict, *here.headers, walked.mark));
        if changed != 0 {
            self.note_changes(t, changed, at);
        }
        walked
    }

    /// A label or mark is told with whatever else the packet does to its conn; what a fresh conn
    /// has is told at its birth.
    #[cold]
    #[inline(never)]
    fn note_changes(&mut self, t: &mut Transit<P::Frame>, changed: u16, at: At<'_>) {
        let Attached::Conn(a) = &mut t.attached else { return };
        if a.lent {
            let number = a.conn;
            self.report(changed, number, at);
        } else if !a.fresh {
            a.events |= changed;
        }
    }
}

/// True for a packet of a conn that goes on as before the rules changed. Of an error about one, and
/// of our answer to its packet, nothing has been said before.
#[cold]
#[inline(never)]
fn is_kept<F>(t: &Transit<F>, at: At<'_>) -> bool {
    let Attached::Conn(a) = &t.attached else { return false };
    let conn = at.table.records.get(a.conn).filter(|_| !a.fresh && !a.error && !a.lent);
    conn.is_some_and(|conn| at.policy.keeping.holds(conn, a.direction))
}

/// A line about a packet as rules see it.
fn line_of(facts: &Facts<'_>) -> LogLine {
    let head = facts.frame.get(..facts.frame.len().min(LOG_BYTES)).unwrap_or_default();
    LogLine {
        prefix: ArrayString::new(),
        said: None,
        level: Log::DEFAULT_LEVEL,
        flags: 0,
        group: None,
        in_port: facts.in_port,
        out_port: facts.out_port,
        head: head.iter().copied().collect(),
        l3: facts.l3_at as usize,
        mark: facts.mark,
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
        group: None,
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
