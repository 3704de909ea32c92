//! What the gateway says about packets it does not pass on: ICMP errors and TCP resets.
//!
//! The rules about when to keep silent are `icmp_send`'s and RFC 1122's: nothing about ICMP errors,
//! later fragments, or packets that were sent to many; and not more than a budget per second.

use arrayvec::ArrayVec;

use crate::conntrack::state::CtState;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{Frame, FramePool};
use crate::pipeline::route::{Destination, Martian};
use crate::pipeline::track::{ADDRESSLESS, checksum_ok, sum_ok};
use crate::pipeline::transit::{Attachment, Transit};
use crate::pipeline::{At, Pipeline, transport_segments};
use crate::rules::facts::PortId;
use crate::rules::targets::RejectWith;
use crate::wire::address::Address;
use crate::wire::build::icmp_error::{self, Problem};
use crate::wire::build::{self, Link, reset};
use crate::wire::checksum;
use crate::wire::ethernet::Mac;
use crate::wire::headers::{Headers, protocol};

/// An error that forwarding or delivery runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpError {
    TimeExceeded,
    /// The rest of a datagram did not come.
    FragmentTimeout,
    NoRoute,
    HostUnreachable,
    PortUnreachable,
    /// Where the byte is that names the protocol, from the start of an IPv6 header.
    ProtocolUnreachable {
        named_at: u32,
    },
    /// Fragmentation needed, packet too big: the MTU.
    TooBig(u32),
    /// A route says that packets are not to go there.
    Prohibited,
    /// A link-local source and a destination on another link (IPv6 only).
    BeyondScope,
    /// What stands so far behind the beginning of an IPv6 header (IPv6 only).
    Header {
        at_byte: u32,
    },
    /// As a REJECT target asks.
    Reject {
        code: u8,
    },
}

impl IcmpError {
    fn problem(self, v6: bool) -> Problem {
        let by_family = |code4, code6| Problem::unreachable(v6, if v6 { code6 } else { code4 });
        match self {
            IcmpError::TimeExceeded => Problem::ttl(v6),
            IcmpError::FragmentTimeout => Problem::reassembly(v6),
            IcmpError::TooBig(mtu) => Problem::too_big(v6, mtu),
            IcmpError::NoRoute => by_family(0, 0),
            IcmpError::HostUnreachable => by_family(1, 3),
            IcmpError::PortUnreachable => by_family(3, 4),
            IcmpError::Prohibited => by_family(13, 1),
            IcmpError::BeyondScope => Problem::unreachable(v6, 2),
            // ICMPv6 points at the next-header field instead (RFC 4443 section 3.4).
            IcmpError::ProtocolUnreachable { named_at } if v6 => {
                Problem { kind: 4, code: 1, rest: named_at }
            }
            IcmpError::ProtocolUnreachable { .. } => Problem::unreachable(false, 2),
            IcmpError::Header { at_byte } => Problem { kind: 4, code: 0, rest: at_byte },
            IcmpError::Reject { code } => Problem::unreachable(v6, code),
        }
    }
}

impl<P: FramePool> Pipeline<P> {
    /// Sends an ICMP error about a packet back to its source, if one may be sent. The packet's own
    /// conn is lent to the answer, confirmed or not (`nf_ct_attach`), so that rules see it as
    /// RELATED and the conn's translation is undone on the way out. A packet that was delivered has
    /// no conn any more (`nf_reset_ct`): tracking has to find it for the answer again.
    pub(crate) fn answer_error(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        error: IcmpError,
        at: At<'_>,
    ) {
        let delivered = matches!(error, IcmpError::PortUnreachable);
        let lent = lend(t).filter(|_| !delivered).map(|a| Attachment { error: true, ..a });
        let h = &t.headers;
        if !may_be_answered(t, error, at) || !self.links.errors.take(at.now.tick) {
            return;
        }
        let Some(source) = source_of_answer(t, at) else { return };
        let Some(mut frame) = self.generate(pool, build::ROOM) else { return };
        let quote: ArrayVec<u8, { icmp_error::V6_MAX }> =
            transport_segments(&t.frame, h.l3 as usize, h.end as usize)
                .flatten()
                .copied()
                .take(icmp_error::V6_MAX)
                .collect();
        let id = self.next_ip_id();
        let problem = error.problem(t.is_v6());
        let written = icmp_error::write(frame.head_mut(), &NO_LINK, source, problem, h, &quote, id);
        match written {
            Some(len) => {
                frame.truncate(len);
                self.originate(pool, frame, lent, t.link(), at);
            }
            None => self.drop_frame(frame, DropReason::NoMbuf),
        }
    }

    /// Resets the TCP conn that a packet belongs to (`nf_send_reset`). With `lent` it is REJECT
    /// that resets, and the conn is closed here, as tracking does not judge the answer.
    pub(crate) fn answer_reset(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        (lent, tos): (Option<Attachment>, u8),
        at: At<'_>,
    ) {
        let h = &t.headers;
        if !t.addressed || !reset::answerable(h) {
            return;
        }
        let Some(mut frame) = self.generate(pool, build::ROOM) else { return };
        match reset::write(frame.head_mut(), &NO_LINK, h, t.frame.head(), (build::TTL, tos)) {
            Some(len) => {
                frame.truncate(len);
                if let Some(a) = lent {
                    self.set_closing(a.conn, at);
                }
                self.originate(pool, frame, lent, t.link(), at);
            }
            None => self.drop_frame(frame, DropReason::NoMbuf),
        }
    }

    /// The answer of a REJECT target.
    pub(crate) fn reject(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        with: RejectWith,
        at: At<'_>,
    ) {
        // What was damaged on its way may not come from whom it says.
        if !undamaged(&t.frame, &t.headers) {
            return;
        }
        match with {
            RejectWith::TcpReset => self.answer_reset(pool, t, (lend(t), 0), at),
            RejectWith::Unreachable(code) => {
                self.answer_error(pool, t, IcmpError::Reject { code }, at);
            }
        }
    }
}

/// True if REJECT may answer the packet (`nf_reject_verify_csum`, `reject6_csum_ok`): its bytes sum
/// up to a right checksum, or it is of a protocol that is known to have none, one that may be left
/// out, or one of another kind. Of what nobody knows IPv6 takes a pseudo header for granted, IPv4
/// none.
fn undamaged<F: Frame>(frame: &F, h: &Headers) -> bool {
    let (start, end) = (h.l4 as usize, h.end as usize);
    match h.proto {
        _ if h.fragment.is_later() => false,
        _ if h.is_v6() && (start >= end || h.proto == protocol::NONE) => false,
        protocol::GRE | protocol::ESP | protocol::AH => true,
        protocol::SCTP | protocol::UDPLITE | protocol::DCCP => true,
        protocol::UDP if !h.l4_truncated => checksum_ok(frame, h),
        other => {
            let addressed = h.is_v6() || matches!(other, protocol::TCP | protocol::UDP);
            let pseudo = if addressed {
                checksum::pseudo(h.src, h.dst, other, h.l4_len())
            } else {
                ADDRESSLESS
            };
            sum_ok(frame, pseudo, start, end)
        }
    }
}

/// The packet's conn as its answer carries it (`nf_conntrack_attach`).
fn lend<F>(t: &Transit<F>) -> Option<Attachment> {
    t.attachment().filter(|a| !a.error).map(|a| Attachment {
        direction: a.direction.opposite(),
        state: CtState::Related,
        lent: true,
        delete: false,
        events: 0,
        ..*a
    })
}

/// True if an error may be sent about the packet.
fn may_be_answered<F: Frame>(t: &Transit<F>, error: IcmpError, at: At<'_>) -> bool {
    let h = &t.headers;
    let group_too = matches!(error, IcmpError::TooBig(_));
    let Some(port) = t.link() else { return false };
    if !t.addressed || !icmp_error::answerable(h, t.frame.head(), group_too) {
        return false;
    }
    // A source that cannot be a single host's is not answered, nor is what was sent to many.
    match at.policy.routes.judge(h.src, h.dst, port.0) {
        Ok(Destination::Broadcast | Destination::Multicast { .. }) => false,
        // Our own address is what a translated source looks like: the conn knows the true one.
        Ok(_) | Err(Martian::SourceLocal | Martian::SourceLinkLocal) => true,
        Err(_) => false,
    }
}

/// The address an error comes from: the packet's destination if that is ours, else our address
/// towards its source.
fn source_of_answer<F>(t: &Transit<F>, at: At<'_>) -> Option<Address> {
    let h = &t.headers;
    let port = t.link().map(|p| p.0);
    if matches!(at.policy.routes.classify(h.dst, port), Destination::Local(_)) {
        return Some(h.dst);
    }
    match at.policy.routes.classify(h.src, port) {
        Destination::Forward(route) => {
            at.policy.port(PortId(route.port)).source_for(route.via.unwrap_or(h.src))
        }
        // As it goes, turned back, to whoever hides behind our address.
        Destination::Local(_) => Some(h.src),
        _ => None,
    }
}

/// The link layer of our own packets is written when they are sent.
pub(crate) const NO_LINK: Link = Link { dst: Mac([0; 6]), src: Mac([0; 6]), tci: None };
