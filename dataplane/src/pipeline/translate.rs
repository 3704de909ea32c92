//! The nat table and the edit of packets (`nf_nat_inet_fn`, `nf_nat_setup_info`).
//!
//! The table is asked once per conn and end: by its first packet, whose answer is written into the
//! reply tuple. Every later packet is edited by comparing the conn's two tuples. Of a conn that a
//! tool made without NAT every NEW packet asks, and no answer is taken: it stays as it is.

use core::ops::ControlFlow;

use crate::conntrack::record::{Conn, ConnId};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::store::Shared;
use crate::conntrack::tcp::TcpTrack;
use crate::conntrack::tuple::{HashSeed, KeyV4, Tuple, proto};
use crate::conntrack::zones::Zones;
use crate::nat::range::{Manip, Range};
use crate::nat::select::{self, Claims, Holder, Wanted};
use crate::nat::{icmp, rewrite};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::pieces::CHECKED_HEADER;
use crate::pipeline::place::Place;
use crate::pipeline::route::Destination;
use crate::pipeline::track::tuple_of;
use crate::pipeline::transit::{Attached, Attachment, Birth, Transit};
use crate::pipeline::walking::Long;
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::hook::{Hook, Table};
use crate::rules::walk::{NatTarget, Verdict};
use crate::time::Tick;
use crate::wire::address::Address;
use crate::wire::tcp::flags;

/// How a conn leaves whose source is translated in the common case: ports over IPv4, a range of
/// addresses alone, and nobody in the way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving {
    key: KeyV4,
    /// The hash of its answers' tuple.
    answers: u64,
    /// The hash that its source is listed under.
    source: u64,
    /// Which of the ranges that were used lately it was chosen from.
    range: u32,
}

/// What a new conn's source was last translated to: the next one's guess.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lately {
    range: Range,
    zones: Zones,
    /// Counts the changes.
    number: u32,
}

impl Lately {
    /// How a conn leaves that would have this tuple without its translation.
    #[inline(always)]
    fn leaving(&self, current: &KeyV4, seed: &HashSeed) -> Option<Leaving> {
        let Lately { range, zones, number } = self;
        let key = select::undisturbed(current, range, zones.id())?;
        let answers = key.hash(&seed.keys(key.proto, zones.reply));
        let source = current.source_hash(zones.original, seed);
        Some(Leaving { key, answers, source, range: *number })
    }
}

/// The conntrack table as the choice of a tuple sees it.
struct TuplesInUse<'a> {
    shared: &'a Shared,
    zones: Zones,
    now: Tick,
    place: &'a Place,
    /// Where the answers will come in, once that is known.
    back: Option<PortId>,
}

impl Claims for TuplesInUse<'_> {
    type Record = ConnId;

    fn holder(&self, reply: &Tuple) -> Option<Holder<ConnId>> {
        let zone = self.zones.reply;
        let hash = self.shared.hash(reply, zone);
        let found = self.shared.find(hash, reply, zone, self.now).filter(|f| !f.expired)?;
        let conn = found.conn;
        // Another lcore may have ended that conn since: the name of one that has the tuple.
        let record = conn.id();
        conn.matches(reply, zone)?;
        let tcp = (reply.proto == proto::TCP).then(|| {
            let track = TcpTrack::from_words(conn.tracker_words());
            (track.state() as u8, track.sent_end(Direction::Original))
        });
        let (original, status) = (conn.orig(), conn.status());
        Some(Holder { record, original, direction: found.direction, status, tcp })
    }

    fn prefers(&self, reply: &Tuple) -> bool {
        self.back.is_none_or(|port| self.place.comes_here(port, reply))
    }

    fn same_source(&self, current: &Tuple, visit: &mut dyn FnMut(&Tuple) -> ControlFlow<()>) {
        self.shared.same_source(current, self.zones.original, |conn| {
            if conn.is_expired(self.now) {
                return None;
            }
            visit(&conn.reply()).is_break().then_some(())
        });
    }
}

/// The status bits of one end: (translated, decided).
pub(crate) const fn bits(manip: Manip) -> (Status, Status) {
    match manip {
        Manip::Src => (Status::SRC_NAT, Status::SRC_NAT_DONE),
        Manip::Dst => (Status::DST_NAT, Status::DST_NAT_DONE),
    }
}

impl<P: FramePool> Pipeline<P> {
    /// What happens to a packet at a nat hook: decide if it is the conn's first, then edit.
    pub(crate) fn translate(
        &mut self,
        t: &mut Transit<P::Frame>,
        hook: Hook,
        manip: Manip,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Attached::Conn(a) = t.attached else { return Ok(()) };
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        if a.error {
            self.translate_error(t, &a, manip, at)?;
            self.notes.note(|| Note::Translated(hook, t.headers));
            return Ok(());
        }
        let undecided = !conn.status().has(bits(manip).1);
        if a.fresh && undecided {
            self.decide(t, &a, conn, (hook, manip), at)?;
            self.notes.note(|| Note::Bound(hook, [conn.orig(), conn.reply()], conn.zones()));
        } else if undecided && !a.lent && matches!(a.state, CtState::New | CtState::Related) {
            self.ask_in_vain(t, hook, at)?;
        } else if hook == Hook::Postrouting && leaves_elsewhere(t, &a, at) {
            t.attached = Attached::Conn(Attachment { delete: true, ..a });
            return Err(DropReason::NatDrop);
        }
        if !self.edit(t, conn, a.direction, manip) {
            return Err(DropReason::NatDrop);
        }
        self.notes.note(|| Note::Translated(hook, t.headers));
        Ok(())
    }

    /// Asks the nat table and writes its answer into the conn.
    fn decide(
        &mut self,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        conn: Conn<'_>,
        (hook, manip): (Hook, Manip),
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let walked = self.walk(t, Table::Nat, hook, at);
        t.mark = walked.mark;
        let unopposed = || t.birth.vacant || at.table.index.is_vacant(t.birth.hashes.1);
        if walked.verdict == Verdict::Accept && unopposed() {
            // Nobody is in the way of a conn that stays as it is.
            conn.add_status(bits(manip).1);
            return Ok(());
        }
        let lent;
        let range = match &walked.verdict {
            Verdict::Nat(NatTarget::Snat(range) | NatTarget::Dnat(range)) => range,
            Verdict::Drop | Verdict::Reject(_) | Verdict::Problem(_) | Verdict::Synproxy(_) => {
                return Err(DropReason::NatDrop);
            }
            verdict => {
                let Some(current) = conn.reply().inverted() else { return Ok(()) };
                lent = match verdict {
                    Verdict::Nat(target) => self.range_of(t, target, hook, &current, at),
                    _ => Some(select::null_binding(&current, manip)),
                };
                lent.as_ref().ok_or(DropReason::NatDrop)?
            }
        };
        self.bind(t, a, manip, range, at)?;
        if let (Verdict::Nat(NatTarget::Masquerade(_)), Some(port)) = (walked.verdict, t.out_port) {
            conn.set_masqueraded_by(port.0);
        }
        Ok(())
    }

    /// The table is walked and its rules count, but a conn that is confirmed keeps its tuples; what
    /// would lose a first packet loses this one.
    #[cold]
    #[inline(never)]
    fn ask_in_vain(
        &mut self,
        t: &mut Transit<P::Frame>,
        hook: Hook,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Attached::Conn(Attachment { conn, .. }) = t.attached else { return Ok(()) };
        let reply = at.table.records.get(conn).map(|conn| conn.reply());
        let Some(current) = reply.and_then(|reply| reply.inverted()) else { return Ok(()) };
        let walked = self.walk(t, Table::Nat, hook, at);
        t.mark = walked.mark;
        let lost = match walked.verdict {
            Verdict::Accept => false,
            Verdict::Nat(target) => self.range_of(t, &target, hook, &current, at).is_none(),
            Verdict::Drop | Verdict::Reject(_) | Verdict::Problem(_) | Verdict::Synproxy(_) => true,
        };
        if lost { Err(DropReason::NatDrop) } else { Ok(()) }
    }

    /// `nf_nat_setup_info`: decides one end of a fresh conn, within a range.
    pub(crate) fn bind(
        &mut self,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        manip: Manip,
        range: &Range,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        let (translated, decided) = bits(manip);
        // Where somebody may be in the way, as two glances tell, the search has to find out.
        if manip == Manip::Src
            && let Some(leaving) = self.leaving(t.leaving, conn, range, at)
            && at.table.by_source.is_vacant(leaving.source)
            && at.table.index.is_vacant(leaving.answers)
        {
            conn.set_reply(&leaving.key.inverted().tuple());
            conn.add_status(decided.with(translated));
            t.birth.hashes.1 = leaving.answers;
            return Ok(());
        }
        self.search(t, a, manip, range, at)
    }

    /// How a fresh conn leaves if nobody is in its way: as was foreseen of its packet, if that was
    /// for this range and its destination stayed as it was.
    #[inline(always)]
    fn leaving(
        &mut self,
        foreseen: Option<Leaving>,
        conn: Conn<'_>,
        range: &Range,
        at: At<'_>,
    ) -> Option<Leaving> {
        let (zones, lately) = (conn.zones(), self.lately);
        let number = match lately {
            Some(lately) if lately.range == *range && lately.zones == zones => lately.number,
            _ => lately.map_or(0, |lately| lately.number.wrapping_add(1)),
        };
        let fits =
            |leaving: &Leaving| leaving.range == number && !conn.status().has(Status::DST_NAT);
        if let Some(leaving) = foreseen.filter(fits) {
            return Some(leaving);
        }
        let current = conn.key(Direction::Reply)?.inverted();
        let lately = Lately { range: *range, zones, number };
        let leaving = lately.leaving(&current, &at.table.seed)?;
        self.lately = Some(lately);
        Some(leaving)
    }

    /// The same where somebody may be in the way.
    #[inline(never)]
    fn search(
        &mut self,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        manip: Manip,
        range: &Range,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        let (original, reply, zones) = (conn.orig(), conn.reply(), conn.zones());
        let Some(current) = reply.inverted() else { return Ok(()) };
        let syn_end = (original.proto == proto::TCP)
            .then(|| TcpTrack::from_words(conn.tracker_words()).sent_end(Direction::Original));
        let wanted = Wanted {
            orig: &original,
            current: &current,
            range,
            manip,
            zone: zones.id(),
            syn_end,
            gre_child: false,
        };
        let Pipeline { place, random, notes, .. } = self;
        let (shared, now, back) = (at.table, at.now.tick, t.out_port);
        let claims = TuplesInUse { shared, zones, now, place, back };
        let mut draw = || {
            notes.note(|| Note::Drawn);
            random.next()
        };
        let selected = select::unique_tuple(&wanted, &claims, &mut draw);
        self.links.counters.conntrack.found.add(selected.found as u64);
        if let Some(victim) = selected.evict
            && let Some(conn) = at.table.records.get(victim.conn)
        {
            if self.owns(conn) {
                self.delete_conn(victim.conn, at);
            } else if let Some(owner) = conn.owner() {
                if self.evictions.try_push((owner, victim)).is_err() {
                    return Err(DropReason::InsertFailed);
                }
                // Its owner ends it before anybody can answer to this packet.
                t.attached = Attached::Conn(Attachment { instead_of: Some(victim), ..*a });
            }
        }
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        let (translated, decided) = bits(manip);
        conn.add_status(decided);
        if selected.tuple != current
            && let Some(reply) = selected.tuple.inverted()
        {
            conn.set_reply(&reply);
            conn.add_status(translated);
            let answers = at.table.hash(&reply, zones.reply);
            t.birth = Birth { hashes: (t.birth.hashes.0, answers), vacant: false };
        }
        Ok(())
    }

    /// Brings in what packets that walk will ask for if they begin conns that leave as the last one
    /// did whose source was translated: the list of their source, and the home of their answers.
    pub(crate) fn foresee(&self, walking: &mut [Long<P::Frame>], at: At<'_>) {
        let Some(lately) = &self.lately else { return };
        for Long { headers: h, leaving, .. } in walking {
            let begins = match h.proto {
                proto::TCP => h.tcp_flags & (flags::SYN | flags::ACK) == flags::SYN,
                proto::UDP => true,
                _ => false,
            };
            if h.is_v6() || !begins {
                continue;
            }
            *leaving = lately.leaving(&KeyV4::of(&tuple_of(h)), &at.table.seed);
            if let Some(leaving) = leaving {
                at.table.by_source.prefetch(leaving.source);
                at.table.index.prefetch(leaving.answers);
            }
        }
    }

    /// The tuple for a conn that a tool makes: as for a packet's, but nothing makes way for it.
    pub(crate) fn tuple_for(
        &mut self,
        orig: &Tuple,
        current: &Tuple,
        range: &Range,
        manip: Manip,
        zones: Zones,
        at: At<'_>,
    ) -> Tuple {
        let (zone, syn_end, gre_child) = (zones.id(), None, false);
        let wanted = Wanted { orig, current, range, manip, zone, syn_end, gre_child };
        let Pipeline { place, random, .. } = self;
        let claims = TuplesInUse { shared: at.table, zones, now: at.now.tick, place, back: None };
        let selected = select::unique_tuple(&wanted, &claims, &mut || random.next());
        self.links.counters.conntrack.found.add(selected.found as u64);
        selected.tuple
    }

    /// The range a target stands for; `None` if the port has no address to lend.
    fn range_of(
        &self,
        t: &Transit<P::Frame>,
        target: &NatTarget,
        hook: Hook,
        current: &Tuple,
        at: At<'_>,
    ) -> Option<Range> {
        let lend =
            |range: Range, address: Address| Range { addresses: Some((address, address)), ..range };
        Some(match *target {
            NatTarget::Snat(range) | NatTarget::Dnat(range) => range,
            NatTarget::Netmap(net) => {
                let own = match hook {
                    Hook::Prerouting | Hook::Output => current.dst,
                    _ => current.src,
                };
                lend(Range::default(), net.with_host_of(own))
            }
            NatTarget::Masquerade(range) => {
                let port = t.out_port?;
                let towards = match at.policy.routes.classify(current.dst, Some(port.0)) {
                    Destination::Forward(route) => route.via.unwrap_or(current.dst),
                    _ => current.dst,
                };
                lend(range, at.policy.port(port).source_for(towards)?)
            }
            NatTarget::Redirect(range) if hook == Hook::Output => {
                let loopback =
                    if current.is_v6() { Address::v6(1) } else { Address::v4(0x7f00_0001) };
                lend(range, loopback)
            }
            NatTarget::Redirect(range) => {
                let port = at.policy.port(t.in_port?);
                let own =
                    if current.is_v6() { port.source_for(current.src) } else { port.primary_v4() };
                lend(range, own?)
            }
        })
    }

    /// `nf_nat_packet`: edits one end, if the conn translates it in this direction. False for a
    /// packet that cannot be edited.
    fn edit(
        &self,
        t: &mut Transit<P::Frame>,
        conn: Conn<'_>,
        direction: Direction,
        manip: Manip,
    ) -> bool {
        if let Some(other) = translated_by(conn, direction, manip)
            && let Some(target) = other.inverted()
        {
            if let Some(datagram) = &mut t.datagram
                && matches!(t.headers.proto, proto::SCTP | proto::DCCP)
                && datagram.first < CHECKED_HEADER
            {
                datagram.as_it_came = false;
            }
            return rewrite::apply(t.frame.head_mut(), &mut t.headers, manip, &target);
        }
        true
    }

    /// `nf_nat_icmp_reply_translation`: the quote by the inverse edit, the error by the direct one.
    fn translate_error(
        &self,
        t: &mut Transit<P::Frame>,
        a: &Attachment,
        manip: Manip,
        at: At<'_>,
    ) -> Result<(), DropReason> {
        let Some(conn) = at.table.records.get(a.conn) else { return Ok(()) };
        let nat = Status::SRC_NAT.0 | Status::DST_NAT.0;
        if conn.status().0 & nat != 0 && icmp::is_redirect(&t.headers) {
            return Err(DropReason::BadIcmpError);
        }
        let Some(other) = translated_by(conn, a.direction, manip) else { return Ok(()) };
        let Some(inner) = icmp::inner_tuple(t.frame.head(), &t.headers) else {
            return Err(DropReason::BadIcmpError);
        };
        if icmp::rewrite_error(t.frame.head_mut(), &mut t.headers, &inner, manip, &other) {
            Ok(())
        } else {
            Err(DropReason::BadIcmpError)
        }
    }
}

/// True for a packet that leaves by another port than the one whose address its conn was lent: the
/// conn is over, as nobody would answer to that address there (`nf_nat_oif_changed`).
fn leaves_elsewhere<F>(t: &Transit<F>, a: &Attachment, at: At<'_>) -> bool {
    let lender = at.table.records.get(a.conn).and_then(|conn| conn.masqueraded_by());
    let original = a.direction == Direction::Original && !a.lent;
    original && lender.is_some_and(|port| t.out_port.is_some_and(|out| out.0 != port))
}

/// The tuple of the other direction, if the conn translates this end of packets of `direction`.
#[inline(always)]
fn translated_by(conn: Conn<'_>, direction: Direction, manip: Manip) -> Option<Tuple> {
    let bit = match (manip, direction) {
        (Manip::Src, Direction::Original) | (Manip::Dst, Direction::Reply) => Status::SRC_NAT,
        (Manip::Dst, Direction::Original) | (Manip::Src, Direction::Reply) => Status::DST_NAT,
    };
    conn.status().has(bit).then(|| conn.tuple(direction.opposite()))
}
