//! Conntrack as a hook: find or make the conn of a packet, let its tracker judge, confirm last.
//!
//! Follows `nf_conntrack_in`, `resolve_normal_ct`, `init_conntrack` and `__nf_conntrack_confirm`.

use crate::conntrack::events::Reported;
use crate::conntrack::invalid::{InvalidReason, Numbers, Remark};
use crate::conntrack::knobs::Knobs;
use crate::conntrack::record::{Conn, ConnRef, Start};
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tcp::{self, Outcome, TcpTrack};
use crate::conntrack::tuple::{Tuple, proto};
use crate::conntrack::zones::Zones;
use crate::conntrack::{counts, events, icmp, udp};
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::invalid::{Place, Said};
use crate::pipeline::notes::{Note, Notes};
use crate::pipeline::transit::{Attached, Attachment, Birth, Exit, Extent, Transit};
use crate::pipeline::{At, Holder, Pipeline, rare, transport_segments};
use crate::rules::template::Template;
use crate::time::{TICKS_PER_SEC, Tick};
use crate::wire::address::Address;
use crate::wire::checksum::{self, Accumulator};
use crate::wire::headers::Headers;
use crate::wire::quoted;
use crate::wire::tcp::OPTIONS_LEN_MAX;

/// Deadlines that come this close are told to the sweep at once.
const SOON_SECS: u32 = crate::conntrack::index::Due::HORIZON_SECS;

/// What a tracker made of a packet of a known conn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judged {
    /// It belongs to the conn.
    Accepted(Accepted),
    /// It belongs to the conn, and its tracker had something to say about it.
    Remarked(Accepted, Place),
    /// It does not belong to the conn.
    Invalid(Place),
    /// The conn is over and the packet starts a new one.
    Restart,
}

/// Consequences of an accepted packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Accepted {
    /// The conn's status before the packet.
    pub before: Status,
    /// The conn ends with this packet.
    pub delete: bool,
    /// What listeners may want to hear of.
    pub events: u16,
}

/// The tuple of a packet (`nf_ct_get_tuple`).
#[inline(always)]
pub(crate) fn tuple_of(h: &Headers) -> Tuple {
    let icmp = (h.icmp_type, h.icmp_code, h.icmp_id);
    ids(h.proto, (h.src, h.dst), (h.src_port, h.dst_port), icmp)
}

#[inline(always)]
fn ids(
    proto_number: u8,
    (src, dst): (Address, Address),
    ports: (u16, u16),
    (kind, code, id): (u8, u8, u16),
) -> Tuple {
    let (src_id, dst_id) = match proto_number {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => ports,
        // The call id that the receiver chose, or 0; what the sender's is no packet tells.
        proto::GRE => ports,
        proto::ICMP | proto::ICMPV6 => (id, u16::from_be_bytes([kind, code])),
        _ => (0, 0),
    };
    Tuple { src, dst, src_id, dst_id, proto: proto_number }
}

/// What the bytes of an IPv4 packet without pseudo header are added to: its IP header's sum, as the
/// kernel sums whole packets (`nf_ip_checksum`). So zeros are right as well.
pub(crate) const ADDRESSLESS: u32 = 0xffff;

/// True if the transport checksum is right, or there is none to check. A UDP datagram may go
/// without; that a receiver refuses one without over IPv6 is not for routers to judge.
#[inline(always)]
pub(crate) fn checksum_ok<F: Frame>(frame: &F, h: &Headers) -> bool {
    let (start, end) = (h.l4 as usize, h.end as usize);
    let head = frame.head();
    match h.proto {
        proto::TCP | proto::ICMPV6 => {}
        proto::UDP if head.get(start + 6..start + 8) == Some(&[0, 0]) => return true,
        proto::UDP => {}
        proto::ICMP => return sum_ok(frame, ADDRESSLESS, start, end),
        _ => return true,
    }
    // Where the addresses lie right before the transport header they are summed with it.
    let (fixed, addresses) = if h.is_v6() { (40, 32) } else { (20, 8) };
    if h.l4 == h.l3 + fixed
        && let Some(whole) = head.get(start - addresses..end)
    {
        return checksum::finish(checksum::sum(whole) + h.proto as u32 + h.l4_len()) == 0;
    }
    sum_ok(frame, checksum::pseudo(h.src, h.dst, h.proto, h.l4_len()), start, end)
}

/// The checksum that would be right where `found` stands.
#[cold]
pub(crate) fn right_checksum<F: Frame>(frame: &F, h: &Headers, found: u16) -> u16 {
    let seed = match h.proto {
        proto::ICMP => 0,
        _ => checksum::pseudo(h.src, h.dst, h.proto, h.l4_len()),
    };
    let mut sum = Accumulator::new(seed);
    transport_segments(frame, h.l4 as usize, h.end as usize).for_each(|s| sum.add(s));
    // Without what stands there now; a sum has no zero but where there is nothing.
    let without = u32::from(!sum.finish()) + u32::from(!found);
    !((without & 0xffff) as u16).wrapping_add((without >> 16) as u16)
}

/// True if the bytes from `start` to `end` and `seed` sum up to a right checksum.
pub(crate) fn sum_ok<F: Frame>(frame: &F, seed: u32, start: usize, end: usize) -> bool {
    let mut sum = Accumulator::new(seed);
    transport_segments(frame, start, end).for_each(|s| sum.add(s));
    sum.finish() == 0
}

impl<P: FramePool> Pipeline<P> {
    /// `nf_conntrack_in` for a packet that no rule has marked UNTRACKED.
    pub(crate) fn track(&mut self, t: &mut Transit<P::Frame>, at: At<'_>) -> Result<(), Exit> {
        if !matches!(t.attached, Attached::Nothing) {
            return Ok(());
        }
        if let Some(prejudged) = t.prejudged.take() {
            let conn = at.table.records.get(prejudged.conn);
            if let Some(conn) = conn
                && self.owns(conn)
                && self.attach(t, conn, prejudged.direction, prejudged.judged, at).is_some()
            {
                return Ok(());
            }
        }
        if t.sound {
            return self.track_tuple(t, at);
        }
        if t.headers.fragment.is_later() {
            // It has no ids (`get_l4proto`).
            self.invalid(t, InvalidReason::Fragment, at);
            return Ok(());
        }
        let check = t.in_port.is_some() && at.policy.knobs.checksum;
        match sound(&t.frame, &t.headers, check) {
            Ok(icmp::Kind::Untracked) => {
                t.attached = Attached::Untracked;
                Ok(())
            }
            Ok(icmp::Kind::Redirect) => match redirected(&t.frame, &t.headers) {
                Ok(Some(_)) => self.track_error(t, at),
                // Without a packet in it, it is one that no conn begins with.
                Ok(None) => self.track_tuple(t, at),
                Err(reason) => {
                    self.invalid(t, reason, at);
                    Ok(())
                }
            },
            Ok(icmp::Kind::Error) => self.track_error(t, at),
            Ok(_) => self.track_tuple(t, at),
            Err(reason) => {
                self.invalid(t, reason, at);
                Ok(())
            }
        }
    }

    fn track_tuple(&mut self, t: &mut Transit<P::Frame>, at: At<'_>) -> Result<(), Exit> {
        let (tuple, zones) = (tuple_of(&t.headers), t.zones());
        self.notes.note(|| Note::Sought(tuple, zones));
        let hash = match t.hash {
            Some((zone, hash)) if zone == zones.original => hash,
            _ => at.table.hash(&tuple, zones.original),
        };
        // All that most first packets want to know.
        let vacant = !zones.is_split() && at.table.index.is_vacant(hash);
        if !vacant && self.track_known(t, (hash, &tuple), zones, at)? {
            return Ok(());
        }
        self.keep_here(t, hash)?;
        let answers = if zones.is_split() { at.table.hash(&tuple, zones.reply) } else { hash };
        t.birth = Birth { hashes: (hash, answers), vacant };
        self.start(t, &tuple, zones, at)
    }

    /// Attaches the conn that a packet belongs to; false if there is none.
    #[inline(never)]
    fn track_known(
        &mut self,
        t: &mut Transit<P::Frame>,
        (hash, tuple): (u64, &Tuple),
        zones: Zones,
        at: At<'_>,
    ) -> Result<bool, Exit> {
        // A finished conn that is opened anew goes round once more, as a new one.
        for _ in 0..2 {
            let Some(found) = at
                .table
                .find_hashed(hash, tuple, zones, at.now.tick)
                .map(|f| (f.conn, f.direction, f.expired))
            else {
                break;
            };
            let (conn, direction, expired) = found;
            let number = conn.number();
            match self.holder(conn) {
                Holder::Here => {}
                // An expired one counts as gone.
                Holder::Elsewhere(_) if expired => break,
                // Confirmed since the burst was looked at.
                Holder::Elsewhere(lcore) => return Err(Exit::Elsewhere(lcore)),
                Holder::Nobody => continue,
            }
            if !expired {
                let judged = self.judge(&t.frame, (&t.headers).into(), conn, direction, at);
                if self.attach(t, conn, direction, judged, at).is_some() {
                    return Ok(true);
                }
            }
            self.delete_conn(number, at);
        }
        Ok(false)
    }

    /// Where the table raw had to tell the zone, nobody could tell before it whose a new conn is.
    fn keep_here(&self, t: &Transit<P::Frame>, hash: u64) -> Result<(), Exit> {
        let Some(port) = t.in_port.or(t.host.map(|h| h.tap)) else { return Ok(()) };
        if self.place.is_alone() || t.past_raw || !t.addressed {
            return Ok(());
        }
        self.place.elsewhere(port, hash).map_or(Ok(()), |lcore| Err(Exit::Elsewhere(lcore)))
    }

    /// Attaches a known conn as its tracker judged; `None` if the conn has to go first.
    fn attach(
        &mut self,
        t: &mut Transit<P::Frame>,
        conn: Conn<'_>,
        direction: Direction,
        judged: Judged,
        at: At<'_>,
    ) -> Option<()> {
        match judged {
            Judged::Restart => return None,
            Judged::Invalid(place) => self.say(t, place, at),
            Judged::Accepted(accepted) | Judged::Remarked(accepted, _) => {
                if let Judged::Remarked(_, place) = judged {
                    self.say(t, place, at);
                }
                t.attached = Attached::Conn(Attachment {
                    state: ct_state(accepted.before, direction),
                    delete: accepted.delete,
                    events: accepted.events,
                    ..Attachment::of(conn.number(), direction)
                });
            }
        }
        Some(())
    }

    /// Lets the tracker of a known conn judge one packet and writes down what follows from it.
    #[inline(always)]
    pub(crate) fn judge(
        &mut self,
        frame: &P::Frame,
        extent: Extent,
        conn: Conn<'_>,
        direction: Direction,
        at: At<'_>,
    ) -> Judged {
        let status = conn.status();
        let knobs = at.knobs_of(conn);
        // What waits of packets that were dropped is told with this one.
        let mut accepted =
            Accepted { before: status, events: conn.waiting(), ..Accepted::default() };
        let (timeout_secs, assured) = match extent.proto {
            proto::UDP => {
                // An assured conn is a stream already; its second line stays untouched.
                let past = Tick(at.now.tick.0.wrapping_sub(1));
                let assured = status.has(Status::ASSURED);
                let stream_after = if assured { past } else { stream_after(conn) };
                let verdict = udp::packet(status, stream_after, at.now.tick, &knobs.timeouts);
                (Some(verdict.timeout_secs), verdict.assured)
            }
            proto::ICMP => (Some(icmp::packet(&knobs.timeouts)), false),
            proto::ICMPV6 => (Some(icmp::packet_v6(&knobs.timeouts)), false),
            number => match if number == proto::TCP {
                self.judge_tcp(frame, extent, conn, direction, at)
            } else {
                self.judge_rarely(frame, extent, conn, direction, at)
            } {
                Outcome::Accept { timeout_secs, assured, changed } => {
                    accepted.events |= if changed { events::PROTOINFO } else { 0 };
                    (timeout_secs, assured)
                }
                Outcome::Ignored(_) => return self.let_pass(conn, direction, accepted, at),
                Outcome::Invalid { shorten_to_secs, .. } => {
                    if let Some(secs) = shorten_to_secs {
                        self.refresh(conn, at.now.tick.plus_secs(secs), at);
                    }
                    return Judged::Invalid(self.sayings.last());
                }
                Outcome::Restart => return Judged::Restart,
                Outcome::Delete => {
                    self.account(conn, direction, extent, at);
                    accepted.delete = true;
                    return Judged::Accepted(accepted);
                }
            },
        };
        // What does not move the deadline is not counted either (`nf_ct_refresh_acct`).
        if let Some(secs) = timeout_secs {
            if !status.has(Status::FIXED_TIMEOUT) {
                self.refresh(conn, at.now.tick.plus_secs(secs), at);
            }
            self.account(conn, direction, extent, at);
        }
        let mut news = Status::default();
        if direction == Direction::Reply && !status.has(Status::SEEN_REPLY) {
            news = news.with(Status::SEEN_REPLY);
            accepted.events |= events::REPLY;
        }
        if assured && status.0 & (Status::ASSURED.0 | Status::NAT_CLASH.0) == 0 {
            news = news.with(Status::ASSURED);
            accepted.events |= events::ASSURED;
        }
        if news != Status::default() {
            conn.add_status(news);
        }
        Judged::Accepted(accepted)
    }

    /// A packet that its tracker lets pass without believing it is an answer all the same.
    #[cold]
    #[inline(never)]
    fn let_pass(
        &mut self,
        conn: Conn<'_>,
        direction: Direction,
        mut accepted: Accepted,
        at: At<'_>,
    ) -> Judged {
        if direction == Direction::Reply && !accepted.before.has(Status::SEEN_REPLY) {
            accepted.events |= events::REPLY;
            conn.add_status(Status::SEEN_REPLY);
        }
        // Who is to say something about it walks, for the line names what the raw table did.
        match self.logs_invalid(proto::TCP, at) {
            true => Judged::Remarked(accepted, self.sayings.last()),
            false => Judged::Accepted(accepted),
        }
    }

    #[inline(never)]
    fn judge_tcp(
        &mut self,
        frame: &P::Frame,
        extent: Extent,
        conn: Conn<'_>,
        direction: Direction,
        at: At<'_>,
    ) -> Outcome {
        let segment = match tcp_segment(frame, extent) {
            Ok(segment) => segment,
            Err(reason) => {
                let remark = Remark::Invalid(reason, Numbers::None);
                self.sayings.keep(Said { remark, also: None });
                return Outcome::Invalid { reason, shorten_to_secs: None };
            }
        };
        match at.table.proxied(conn) {
            None => self.judge_segment(&segment, conn, direction, at),
            Some(proxied) => {
                let mut options = [0; OPTIONS_LEN_MAX];
                let seen = segment.as_of_its_receiver(direction, proxied.shift(), &mut options);
                self.judge_proxied(&seen, conn, direction, at)
            }
        }
    }

    /// Where the answer that a client has had was not the server's, a keep-alive of it is no packet
    /// of nobody's.
    #[cold]
    fn judge_proxied(
        &mut self,
        segment: &tcp::Segment<'_>,
        conn: Conn<'_>,
        direction: Direction,
        at: At<'_>,
    ) -> Outcome {
        let track = TcpTrack::from_words(conn.tracker_words());
        if track.is_kept_alive_by(segment, direction) {
            return Outcome::Accept { timeout_secs: None, assured: false, changed: false };
        }
        self.judge_segment(segment, conn, direction, at)
    }

    #[inline(always)]
    fn judge_segment(
        &mut self,
        segment: &tcp::Segment<'_>,
        conn: Conn<'_>,
        direction: Direction,
        at: At<'_>,
    ) -> Outcome {
        let mut track = TcpTrack::from_words(conn.tracker_words());
        let remaining = conn.deadline().remaining_secs(at.now.tick);
        let outcome = track.packet(segment, direction, conn.status(), at.knobs_of(conn), remaining);
        conn.set_tracker_words(&track.to_words());
        self.count_if_open(conn);
        if matches!(outcome, Outcome::Invalid { .. } | Outcome::Ignored(_)) {
            self.sayings.keep_tcp(&outcome, &track, segment, direction);
        }
        outcome
    }

    /// A conn of this lcore that is closed counts no more.
    #[inline(always)]
    pub(crate) fn count_if_open(&mut self, conn: Conn<'_>) {
        if conn.is_counted() && counts::is_closed(conn) {
            self.store.uncount(conn);
        }
    }

    /// Moves a deadline; one that comes closer is told to the sweep if it comes close.
    #[inline(always)]
    pub(crate) fn refresh(&mut self, conn: Conn<'_>, new: Tick, at: At<'_>) {
        let (old, now) = (conn.deadline(), at.now.tick);
        if old == new {
            return;
        }
        conn.set_deadline(new);
        let soon = (new.0.wrapping_sub(now.0) as i32) < (SOON_SECS * TICKS_PER_SEC) as i32;
        if soon && old.0.wrapping_sub(new.0) as i32 > TICKS_PER_SEC as i32 {
            self.store.arm(conn.number(), at.now.tick);
        }
    }

    /// Counts a packet for its conn, where that was switched on when the conn began.
    #[inline(always)]
    fn account(&self, conn: Conn<'_>, direction: Direction, extent: Extent, at: At<'_>) {
        if let Some(extension) = at.table.extension(conn) {
            extension.count(direction, 1, extent.ip_len() as u64);
        }
    }

    /// `init_conntrack`: a conn that nobody else sees yet.
    fn start(
        &mut self,
        t: &mut Transit<P::Frame>,
        tuple: &Tuple,
        zones: Zones,
        at: At<'_>,
    ) -> Result<(), Exit> {
        let policy = t.template.map_or(0, |template| template.timeout_policy);
        let knobs = at.policy.policies.knobs(policy).unwrap_or(&at.policy.knobs);
        let first = first(&t.frame, &t.headers, knobs, at);
        let (timeout_secs, tracker) = match first {
            Ok(first) => first,
            Err(reason) => {
                self.invalid(t, reason, at);
                return Ok(());
            }
        };
        let Some(reply) = tuple.inverted() else {
            self.invalid(t, InvalidReason::IcmpType, at);
            return Ok(());
        };
        let zones = [zones.original, zones.reply];
        let era = at.policy.keeping.era;
        let new = Start { orig: tuple, reply: &reply, zones, tracker, era };
        let number = self.allocate(&new, at)?;
        let expected = self.expected(number, tuple, at)?;
        if t.template.is_some() || expected.is_some() || at.policy.furnishes() {
            let said = t.template.unwrap_or_default();
            // The helper of an expected conn is its expectation's.
            let helper = said.helper.filter(|_| expected.is_none());
            if said.proxied && self.store.extend_widely(number).is_none() {
                self.release(number, at);
                return Err(DropReason::NoRecord.into());
            }
            self.furnish(Template { helper, ..said }, number, (&t.headers).into(), at);
        } else {
            self.decide_reported(number, Reported::default(), at);
        }
        t.attached = Attached::Conn(Attachment {
            state: if expected.is_some() { CtState::Related } else { CtState::New },
            fresh: true,
            first: true,
            timeout_secs,
            ..Attachment::of(number, Direction::Original)
        });
        match expected.and_then(|expected| expected.follow) {
            Some(to) => Ok(self.follow_master(t, to, at)?),
            None => Ok(()),
        }
    }

    /// Gives a new conn what the sysctls and the table raw say it is to have, and counts its first
    /// packet.
    #[inline(never)]
    fn furnish(&mut self, template: Template, number: ConnRef, first: Extent, at: At<'_>) {
        let (knobs, labelled) = (&at.policy.knobs, at.policy.knows_labels());
        let (helper, policy) = (template.helper, template.timeout_policy);
        if (at.policy.furnishes() || helper.is_some() || policy != 0)
            && let Some(extension) = self.store.extend(number)
        {
            extension.begin(knobs.acct, if knobs.timestamp { at.now.unix_ns } else { 0 }, labelled);
            if helper.is_some() {
                extension.set_helper(helper);
            }
            extension.set_timeout_policy(policy);
        }
        let wanted = Reported { conn: template.ct_events, expectations: template.exp_events };
        self.decide_reported(number, wanted, at);
        if let Some(conn) = at.table.records.get(number) {
            self.account(conn, Direction::Original, first, at);
        }
    }

    /// `nf_conntrack_inet_error`: an ICMP error belongs to the conn that its quote names.
    fn track_error(&mut self, t: &mut Transit<P::Frame>, at: At<'_>) -> Result<(), Exit> {
        let quoted = quoted_tuple(&t.frame, &t.headers).and_then(|quoted| quoted.inverted());
        let Some(q) = quoted else {
            self.invalid(t, InvalidReason::IcmpInner, at);
            return Ok(());
        };
        self.notes.note(|| Note::Sought(q, t.zones()));
        let found = at.table.find_in(&q, t.zones(), at.now.tick);
        let Some(found) = found.filter(|found| !found.expired) else {
            self.invalid(t, InvalidReason::IcmpUnrelated, at);
            return Ok(());
        };
        if let Holder::Elsewhere(lcore) = self.holder(found.conn)
            && !t.past_raw
            && (t.in_port.is_some() || t.host.is_some())
        {
            return Err(Exit::Elsewhere(lcore));
        }
        let (outer, inner) = (t.headers.dst, found.conn.tuple(found.direction).dst);
        if outer != inner {
            let numbers = Numbers::Outer { outer, inner };
            self.invalid_by(t, InvalidReason::IcmpOuterDestination, numbers, at);
            return Ok(());
        }
        t.attached = Attached::Conn(Attachment {
            state: CtState::Related,
            error: true,
            ..Attachment::of(found.conn.number(), found.direction)
        });
        Ok(())
    }

    /// `nf_conntrack_tcp_set_closing`: the gateway itself has reset the conn of a packet.
    pub(crate) fn set_closing(&mut self, number: ConnRef, at: At<'_>) {
        let Some(conn) = at.table.records.get(number) else { return };
        if conn.orig().proto != proto::TCP {
            return;
        }
        let mut track = TcpTrack::from_words(conn.tracker_words());
        let closing = track.set_closing(at.knobs_of(conn));
        conn.set_tracker_words(&track.to_words());
        if self.owns(conn) {
            self.count_if_open(conn);
        }
        let status = conn.status();
        // An unconfirmed conn has no deadline yet, and will not live to get one.
        if let Some(secs) = closing
            && status.has(Status::CONFIRMED)
            && !status.has(Status::FIXED_TIMEOUT)
        {
            self.refresh(conn, at.now.tick.plus_secs(secs), at);
            self.report(events::PROTOINFO, number, at);
        }
    }
}

/// What the tracker says to a first packet: timeout in seconds and the tracker's words.
fn first<F: Frame>(
    frame: &F,
    h: &Headers,
    knobs: &Knobs,
    at: At<'_>,
) -> Result<(u32, [u64; 7]), InvalidReason> {
    let timeouts = &knobs.timeouts;
    Ok(match h.proto {
        proto::TCP => {
            let (track, timeout_secs) = TcpTrack::first(&tcp_segment(frame, h.into())?, knobs)?;
            (timeout_secs, track.to_words())
        }
        proto::UDP => {
            let fresh = udp::packet(Status::default(), at.now.tick, at.now.tick, timeouts);
            let after = udp::stream_after(at.now.tick);
            (fresh.timeout_secs, [after.0 as u64, 0, 0, 0, 0, 0, 0])
        }
        proto::ICMP if !icmp::may_create(h.icmp_type) => return Err(InvalidReason::IcmpNew),
        proto::ICMPV6 if !icmp::may_create_v6(h.icmp_type) => {
            return Err(InvalidReason::IcmpNew);
        }
        proto::ICMP => (icmp::packet(timeouts), [0; 7]),
        proto::ICMPV6 => (icmp::packet_v6(timeouts), [0; 7]),
        _ => return rare::first(frame, h.into(), knobs),
    })
}

/// How a packet is to be looked up; anything but ICMP by its own tuple.
#[inline(always)]
pub(crate) fn icmp_kind(h: &Headers) -> icmp::Kind {
    match h.proto {
        proto::ICMP => icmp::kind(h.icmp_type),
        proto::ICMPV6 => icmp::kind_v6(h.icmp_type),
        _ => icmp::Kind::Query,
    }
}

/// The tuple of the packet that an ICMP error quotes.
pub(crate) fn quoted_tuple<F: Frame>(frame: &F, h: &Headers) -> Option<Tuple> {
    // What follows the packet is padding, not a quote.
    let head = frame.head();
    let message = head.get(h.l4 as usize..head.len().min(h.end as usize))?;
    let skip = if icmp_kind(h) == icmp::Kind::Redirect {
        redirected(frame, h).ok().flatten()?
    } else {
        8
    };
    let q = quoted::parse(message.get(skip..)?, h.is_v6())?;
    Some(ids(
        q.proto,
        (q.src, q.dst),
        (q.src_port, q.dst_port),
        (q.icmp_type, q.icmp_code, q.icmp_id),
    ))
}

/// Where an ICMPv6 redirect quotes a packet, see [`icmp::redirect_option`].
fn redirected<F: Frame>(frame: &F, h: &Headers) -> Result<Option<usize>, InvalidReason> {
    let head = frame.head();
    let message = head.get(h.l4 as usize..head.len().min(h.end as usize)).unwrap_or_default();
    let link_local = h.src.bits() >> 118 == 0xfe80 >> 6;
    icmp::redirect_option(message, h.ttl, link_local)
}

/// When an answered UDP conn becomes a stream: the tracker's first word.
#[inline]
pub(crate) fn stream_after(conn: Conn<'_>) -> Tick {
    Tick(conn.tracker_word(0) as u32)
}

/// The TCP header as its tracker reads it.
#[inline]
pub(crate) fn tcp_segment<F: Frame>(
    frame: &F,
    extent: Extent,
) -> Result<tcp::Segment<'_>, InvalidReason> {
    let l4 = frame.head().get(extent.l4 as usize..).unwrap_or_default();
    tcp::sanity(l4, extent.end.saturating_sub(extent.l4 as u32))
}

/// The state a packet of a conn has in the rules' eyes (`resolve_normal_ct`); `status` as it was
/// before the packet.
#[inline]
pub(crate) fn ct_state(status: Status, direction: Direction) -> CtState {
    if direction == Direction::Reply || status.has(Status::SEEN_REPLY) {
        CtState::Established
    } else if status.has(Status::EXPECTED) {
        CtState::Related
    } else {
        CtState::New
    }
}

/// What every tracker checks before anything else: the header is whole and, where asked for, the
/// checksum is right (`udp_error`, `nf_conntrack_icmpv4_error`; TCP's other checks are its
/// tracker's). Says how the packet is to be looked up.
#[inline(always)]
pub(crate) fn sound<F: Frame>(
    frame: &F,
    h: &Headers,
    check: bool,
) -> Result<icmp::Kind, InvalidReason> {
    if !matches!(h.proto, proto::TCP | proto::UDP | proto::ICMP | proto::ICMPV6) {
        return rare::sound(frame, h, check).map(|()| icmp::Kind::Query);
    }
    let kind = icmp_kind(h);
    let (short, wrong) = match h.proto {
        // Messages of the other family: trackers do not look at them.
        proto::ICMP if h.is_v6() => return Err(InvalidReason::IcmpNew),
        proto::ICMPV6 if !h.is_v6() => return Err(InvalidReason::IcmpNew),
        proto::ICMP => (InvalidReason::IcmpShort, InvalidReason::IcmpChecksum),
        proto::ICMPV6 => (InvalidReason::IcmpShort, InvalidReason::Icmpv6Checksum),
        proto::UDP => (InvalidReason::UdpShort, InvalidReason::UdpChecksum),
        _ => (InvalidReason::TcpShort, InvalidReason::TcpChecksum),
    };
    if h.l4_truncated {
        return Err(short);
    }
    if h.proto == proto::UDP {
        udp::sanity(frame.head().get(h.l4 as usize..).unwrap_or_default(), h.l4_len())?;
    }
    let verified = matches!(h.proto, proto::TCP | proto::UDP) && frame.is_verified();
    if check && !verified && !checksum_ok(frame, h) {
        return Err(wrong);
    }
    if kind == icmp::Kind::Unknown { Err(InvalidReason::IcmpType) } else { Ok(kind) }
}
