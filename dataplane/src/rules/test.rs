//! The single tests a compiled rule is made of, and what the kernel's matches say to each.
//!
//! A rule's tests are a run of `Test`s, all of which have to hold. Every look into the transport
//! header comes after `Test::Header`, which answers for fragments and headers cut short as
//! `tcp_mt`, `udp_mt` and `icmp_match` do. A test whose answer can differ between two packets of
//! one conn, direction, state and pair of ports says so to the sink.

use super::facts::{Conn, Facts, PortId};
use super::kept::Forgets;
use super::matches::set::SetTest;
use super::matches::{
    Connlabel, Conntrack, IcmpKind, Masked, Match, Maybe, Multiport, Net, PortRange, Side,
};
use super::matches::{StateMask, TcpFlags};
use super::matches::{connbytes::Connbytes, hashlimit, limit::Limited, quota::Quota, recent};
use super::walk::Sink;
use crate::conntrack::state::{CtState, Direction, Status};
use crate::conntrack::tuple::proto;

/// A set of ports, with one more member for "no port".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortSet {
    bits: [u64; 4],
    none: bool,
}

impl PortSet {
    /// The ports that `pattern` names among `ports` (by position): a whole name, or a prefix before
    /// a final `+`. No port at all has the empty name, so the pattern `+` alone holds it.
    pub fn resolve<S: AsRef<str>>(pattern: &Maybe<String>, ports: &[S]) -> PortSet {
        let holds = |name: &str| {
            pattern.judge(match pattern.value.strip_suffix('+') {
                Some(prefix) => name.starts_with(prefix),
                None => name == pattern.value,
            })
        };
        let mut set = PortSet { bits: [0; 4], none: holds("") };
        for (bit, name) in (0..=u8::MAX).zip(ports) {
            if holds(name.as_ref()) {
                set.bits[usize::from(bit >> 6)] |= 1 << (bit & 63);
            }
        }
        set
    }

    /// The port, or none, that is all the set holds.
    pub(super) fn only(&self) -> Option<Option<PortId>> {
        let mut members = self.members();
        members.next().filter(|_| members.next().is_none())
    }

    /// The ports, and none, that the set holds.
    pub(super) fn members(&self) -> impl Iterator<Item = Option<PortId>> {
        let ports = (0..=u8::MAX).step_by(64).zip(self.bits).flat_map(|(first, mut bits)| {
            core::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros() as u8)?;
                bits &= bits - 1;
                Some(Some(PortId(first + bit)))
            })
        });
        ports.chain(self.none.then_some(None))
    }

    /// True if the set holds `port`.
    #[inline]
    pub fn holds(&self, port: Option<PortId>) -> bool {
        match port {
            Some(PortId(bit)) => self.bits[usize::from(bit >> 6)] >> (bit & 63) & 1 != 0,
            None => self.none,
        }
    }
}

/// What one test says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Holds,
    Fails,
    /// The packet is dropped at once (`hotdrop`).
    Drop,
}

impl From<bool> for Answer {
    #[inline]
    fn from(holds: bool) -> Answer {
        if holds { Answer::Holds } else { Answer::Fails }
    }
}

/// One test.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Test {
    InPort(PortSet),
    OutPort(PortSet),
    Src(Maybe<Net>),
    Dst(Maybe<Net>),
    Proto(Maybe<u8>),
    LaterFragment(Maybe<()>),
    /// The transport header is there to be looked at.
    Header,
    SrcPort(Maybe<PortRange>),
    DstPort(Maybe<PortRange>),
    Ports(Box<Multiport>),
    TcpFlags(Maybe<TcpFlags>),
    TcpOption(Maybe<u8>),
    Icmp(Maybe<IcmpKind>),
    State(Maybe<StateMask>),
    Conntrack(Box<Conntrack>),
    Mark(Maybe<Masked>),
    Connlabel(Connlabel),
    Set(Box<SetTest>),
    /// A match that is one test.
    Asked(Box<Match>),
    Limit(Box<Limited>),
    Quota(Box<Quota>),
    Connbytes(Box<Connbytes>),
    Hashlimit(Box<hashlimit::Named>),
    Recent(Box<recent::Named>),
}

impl Test {
    /// True if asking it of a whole packet leaves nothing behind: neither with the sink nor with
    /// the conn, and it does not drop.
    pub(super) fn only_compares(&self) -> bool {
        match self {
            Test::TcpFlags(_)
            | Test::TcpOption(_)
            | Test::Connlabel(_)
            | Test::Set(_)
            | Test::Asked(_) => false,
            Test::Limit(_) | Test::Quota(_) | Test::Connbytes(_) => false,
            Test::Hashlimit(_) | Test::Recent(_) => false,
            Test::Conntrack(asked) => asked.only_state().is_some(),
            _ => true,
        }
    }

    /// What it keeps from packet to packet, if anything.
    pub(super) fn kept(&self) -> Option<&dyn Forgets> {
        Some(match self {
            Test::Limit(limited) => limited.bucket(),
            Test::Quota(quota) => &*quota.used,
            Test::Hashlimit(named) => &*named.table,
            Test::Recent(named) => &*named.table,
            Test::Asked(asked) => asked.counted()?,
            _ => return None,
        })
    }

    /// The packet's answer, with `mark` as earlier rules left it.
    #[inline]
    pub(super) fn ask(&self, facts: &Facts<'_>, mark: u32, out: &mut impl Sink) -> Answer {
        let holds = match self {
            Test::InPort(set) => set.holds(facts.in_port),
            Test::OutPort(set) => set.holds(facts.out_port),
            Test::Src(net) => net.judge(net.value.holds(facts.src)),
            Test::Dst(net) => net.judge(net.value.holds(facts.dst)),
            Test::Proto(number) => number.judge(number.value == facts.proto),
            Test::LaterFragment(test) => test.judge(facts.fragment_offset != 0),
            Test::Header => return header(facts),
            Test::SrcPort(range) => range.judge(range.value.holds(facts.src_port)),
            Test::DstPort(range) => range.judge(range.value.holds(facts.dst_port)),
            Test::Ports(ports) => multiport(ports, facts),
            Test::TcpFlags(flags) => {
                let holds = facts.tcp_flags & flags.value.mask == flags.value.set;
                if flags.value.of_plain() != Some(holds) {
                    out.per_packet();
                }
                flags.judge(holds)
            }
            Test::TcpOption(kind) => {
                out.per_packet();
                return tcp_option(kind, facts.transport());
            }
            Test::Icmp(kind) => kind.judge(icmp(&kind.value, facts)),
            Test::State(states) => states.judge(states.value.meets(state_of(facts.ct.state))),
            Test::Conntrack(asked) => conntrack(asked, facts, out),
            Test::Connlabel(asked) => connlabel(asked, facts, out),
            Test::Set(asked) => asked.holds(facts, mark, out),
            Test::Asked(asked) => {
                if asked.looks_at_the_packet(facts) {
                    out.per_packet();
                }
                if matches!(**asked, Match::Statistic(_) | Match::Connlimit(_)) {
                    out.rests();
                }
                return asked.ask(facts);
            }
            Test::Limit(limited) => {
                out.per_packet();
                out.rests();
                limited.holds(facts.around.now().unix_ns)
            }
            Test::Quota(quota) => {
                out.per_packet();
                out.rests();
                quota.holds(facts.length)
            }
            Test::Hashlimit(named) => {
                out.per_packet();
                out.rests();
                return named.judge(facts);
            }
            Test::Recent(named) => {
                out.per_packet();
                out.rests();
                return named.judge(facts);
            }
            Test::Connbytes(asked) => {
                out.per_packet();
                asked.holds(&facts.ct)
            }
            Test::Mark(masked) => masked.judge(mark & masked.value.mask == masked.value.value),
        };
        holds.into()
    }
}

/// A later fragment has no header: the rule does not match, and one that would overwrite TCP flags
/// is dropped. A header cut short drops.
#[inline]
fn header(facts: &Facts<'_>) -> Answer {
    if facts.fragment_offset != 0 {
        let overwrites = facts.fragment_offset == 1 && facts.proto == proto::TCP;
        return if overwrites { Answer::Drop } else { Answer::Fails };
    }
    if facts.l4_valid { Answer::Holds } else { Answer::Drop }
}

fn multiport(ports: &Multiport, facts: &Facts<'_>) -> bool {
    let any = |port: u16| ports.ports.iter().any(|range| range.holds(port));
    let holds = match ports.side {
        Side::Source => any(facts.src_port),
        Side::Destination => any(facts.dst_port),
        Side::Either => any(facts.src_port) || any(facts.dst_port),
    };
    holds != ports.not
}

/// `tcp_find_option`: options are walked by their lengths, a length of 0 counts as 1.
fn tcp_option(kind: &Maybe<u8>, l4: &[u8]) -> Answer {
    let Some(&words) = l4.get(12) else { return Answer::Drop };
    let length = usize::from(words >> 4) * 4;
    let Some(mut options) = l4.get(20..length) else { return Answer::Drop };
    while let Some((&found, rest)) = options.split_first() {
        if found == kind.value {
            return kind.judge(true).into();
        }
        let skip = if found < 2 { 0 } else { usize::from(rest.first().copied().unwrap_or(1)) };
        options = rest.get(skip.saturating_sub(1)..).unwrap_or(&[]);
    }
    kind.judge(false).into()
}

fn icmp(asked: &IcmpKind, facts: &Facts<'_>) -> bool {
    let any = asked.kind == 0xff && facts.proto == proto::ICMP;
    let codes = asked.low <= facts.icmp_code && facts.icmp_code <= asked.high;
    any || asked.kind == facts.icmp_type && codes
}

#[inline]
pub(super) fn state_of(state: CtState) -> StateMask {
    match state {
        CtState::New => StateMask::NEW,
        CtState::Established => StateMask::ESTABLISHED,
        CtState::Related => StateMask::RELATED,
        CtState::Invalid => StateMask::INVALID,
        CtState::Untracked => StateMask::UNTRACKED,
    }
}

/// `conntrack_mt`. Packets without conn match as soon as their state does, whatever else the rule
/// asks; a rule that asks no state never matches them.
#[inline]
fn conntrack(asked: &Conntrack, facts: &Facts<'_>, out: &mut impl Sink) -> bool {
    if let Some(states) = asked.state
        && !states.judge(states.value.meets(states_met(states.value, facts, out)))
    {
        return false;
    }
    let Some(conn) = facts.ct.conn else { return asked.state.is_some() };
    if asked.direction.is_some_and(|direction: Direction| direction != facts.ct.direction) {
        return false;
    }
    tuples_hold(asked, conn) && status_holds(asked, conn, out) && expire_holds(asked, conn, out)
}

/// `connlabel_mt`: a conn without labels, and no conn, are as one without this label, and get none.
/// A label stays until a tool takes it away, who sees to it that walks begin anew; one that is not
/// set may come at any time.
fn connlabel(asked: &Connlabel, facts: &Facts<'_>, out: &mut impl Sink) -> bool {
    let labels = facts.ct.conn.and_then(|conn| Some((conn, conn.labels()?)));
    let Some((conn, labels)) = labels else { return asked.label.judge(false) };
    let has = labels >> (asked.label.value & 127) & 1 != 0;
    let stays = has || asked.set && conn.set_label(asked.label.value);
    if !stays {
        out.per_packet();
    }
    asked.label.judge(has || asked.set)
}

/// The packet's state with SNAT and DNAT added where the rule asks for them. A bit that is not set
/// although its side has been decided stays so; before that it may still come.
fn states_met(wanted: StateMask, facts: &Facts<'_>, out: &mut impl Sink) -> StateMask {
    let mut met = state_of(facts.ct.state);
    let nat = StateMask::SNAT.with(StateMask::DNAT);
    let Some(conn) = facts.ct.conn.filter(|_| wanted.meets(nat)) else { return met };
    let status = conn.status();
    let sides = [
        (StateMask::SNAT, Status::SRC_NAT, Status::SRC_NAT_DONE),
        (StateMask::DNAT, Status::DST_NAT, Status::DST_NAT_DONE),
    ];
    for (state, bit, done) in sides {
        if status.has(bit) {
            met = met.with(state);
        } else if wanted.meets(state) && !status.has(done) {
            out.per_packet();
        }
    }
    met
}

fn tuples_hold(asked: &Conntrack, conn: &dyn Conn) -> bool {
    let asks_original = asked.orig_src.is_some()
        || asked.orig_dst.is_some()
        || asked.proto.is_some()
        || asked.orig_src_port.is_some()
        || asked.orig_dst_port.is_some();
    let asks_reply = asked.reply_src.is_some()
        || asked.reply_dst.is_some()
        || asked.reply_src_port.is_some()
        || asked.reply_dst_port.is_some();
    let net =
        |net: Option<Maybe<Net>>, address| net.is_none_or(|n| n.judge(n.value.holds(address)));
    let port =
        |range: Option<Maybe<PortRange>>, id| range.is_none_or(|r| r.judge(r.value.holds(id)));
    if asks_original {
        let tuple = conn.original();
        if !(net(asked.orig_src, tuple.src)
            && net(asked.orig_dst, tuple.dst)
            && asked.proto.is_none_or(|p| p.judge(p.value == tuple.proto))
            && port(asked.orig_src_port, tuple.src_id)
            && port(asked.orig_dst_port, tuple.dst_id))
        {
            return false;
        }
    }
    if !asks_reply {
        return true;
    }
    let tuple = conn.reply();
    net(asked.reply_src, tuple.src)
        && net(asked.reply_dst, tuple.dst)
        && port(asked.reply_src_port, tuple.src_id)
        && port(asked.reply_dst_port, tuple.dst_id)
}

/// Bits are only ever set, so "one of them is set" stays true; that none is set may change, except
/// for EXPECTED, which a conn is born with.
fn status_holds(asked: &Conntrack, conn: &dyn Conn, out: &mut impl Sink) -> bool {
    let Some(wanted) = asked.status else { return true };
    let met = conn.status().0 & wanted.value != 0;
    if !met && wanted.value & !Status::EXPECTED.0 != 0 {
        out.per_packet();
    }
    wanted.judge(met)
}

fn expire_holds(asked: &Conntrack, conn: &dyn Conn, out: &mut impl Sink) -> bool {
    let Some(range) = asked.expire else { return true };
    out.per_packet();
    let left = conn.expires_secs();
    range.judge(range.value.0 <= left && left <= range.value.1)
}
