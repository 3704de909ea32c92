//! What the gateway says about packets it does not pass on: ICMP errors and TCP resets.
//!
//! The rules about when to keep silent are `icmp_send`'s and RFC 1122's: nothing about ICMP errors,
//! later fragments, or packets that were sent to many; and not more than a budget per second.

use crate::conntrack::state::CtState;
use crate::conntrack::tuple::proto;
use crate::pipeline::drops::DropReason;
use crate::pipeline::frame::{BURST_MAX, Frame, FramePool};
use crate::pipeline::route::Destination;
use crate::pipeline::transit::{Attached, Attachment, Transit};
use crate::pipeline::{At, Pipeline};
use crate::rules::facts::PortId;
use crate::rules::targets::RejectWith;
use crate::time::{TICKS_PER_SEC, Tick};
use crate::wire::address::Address;
use crate::wire::build::{self, IcmpErrorKind};

/// Errors per second and at once (`icmp_msgs_per_sec`, `icmp_msgs_burst`).
const ERRORS_PER_SEC: u32 = 1000;
const ERRORS_BURST: u32 = 50;

/// Room for the longest ICMPv6 error (RFC 4443: the minimum IPv6 MTU) behind an Ethernet header.
const ERROR_FRAME_MAX: usize = 14 + 1280;

/// An error that forwarding or delivery runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpError {
    TimeExceeded,
    NoRoute,
    HostUnreachable,
    PortUnreachable,
    ProtocolUnreachable,
    /// Fragmentation needed, packet too big: the MTU.
    TooBig(u32),
    /// A route says that packets are not to go there.
    Prohibited,
    /// As a REJECT target asks.
    Reject { code: u8 },
}

impl IcmpError {
    fn kind(self, v6: bool) -> IcmpErrorKind {
        let (kind, code, rest) = if v6 {
            match self {
                IcmpError::TimeExceeded => (3, 0, 0),
                IcmpError::NoRoute => (1, 0, 0),
                IcmpError::HostUnreachable => (1, 3, 0),
                IcmpError::PortUnreachable => (1, 4, 0),
                IcmpError::Prohibited => (1, 1, 0),
                // Parameter problem, unrecognised next header, at its place in the fixed header.
                IcmpError::ProtocolUnreachable => (4, 1, 6),
                IcmpError::TooBig(mtu) => (2, 0, mtu),
                IcmpError::Reject { code } => (1, code, 0),
            }
        } else {
            match self {
                IcmpError::TimeExceeded => (11, 0, 0),
                IcmpError::NoRoute => (3, 0, 0),
                IcmpError::HostUnreachable => (3, 1, 0),
                IcmpError::PortUnreachable => (3, 3, 0),
                IcmpError::Prohibited => (3, 13, 0),
                IcmpError::ProtocolUnreachable => (3, 2, 0),
                IcmpError::TooBig(mtu) => (3, 4, mtu & 0xffff),
                IcmpError::Reject { code } => (3, code, 0),
            }
        };
        IcmpErrorKind { kind, code, rest }
    }
}

/// A token bucket, refilled by the tick.
#[derive(Debug)]
pub(crate) struct ErrorBudget {
    left: u32,
    at: Tick,
}

impl Default for ErrorBudget {
    fn default() -> ErrorBudget {
        ErrorBudget { left: ERRORS_BURST, at: Tick(0) }
    }
}

impl ErrorBudget {
    fn take(&mut self, now: Tick) -> bool {
        let gained = now.0.wrapping_sub(self.at.0).saturating_mul(ERRORS_PER_SEC / TICKS_PER_SEC);
        if gained > 0 {
            self.left = self.left.saturating_add(gained).min(ERRORS_BURST);
            self.at = now;
        }
        let granted = self.left > 0;
        self.left -= granted as u32;
        granted
    }
}

impl<P: FramePool> Pipeline<P> {
    /// Sends an ICMP error about a packet back to its source, if one may be sent.
    pub(crate) fn answer_error(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        error: IcmpError,
        at: At<'_>,
    ) {
        self.answer_error_as(pool, t, error, None, at);
    }

    fn answer_error_as(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        error: IcmpError,
        lent: Option<Attachment>,
        at: At<'_>,
    ) {
        let h = &t.headers;
        if t.in_port.is_none() || !may_be_answered(t, at) || !self.errors.take(at.now.tick) {
            return;
        }
        let Some(source) = source_of_answer(t, at) else { return };
        let Some(mut frame) = self.generate(pool, ERROR_FRAME_MAX) else { return };
        let mut quote = [0; 1280];
        let n = copy(&t.frame, h.l3 as usize, h.end as usize, &mut quote);
        let id = self.next_ip_id();
        let kind = error.kind(t.is_v6());
        let built = build::icmp_error(frame.head_mut(), source, h.src, kind, h.tos, id, &quote[..n]);
        match built {
            Some(len) => {
                frame.truncate(len);
                self.originate(pool, frame, lent, at);
            }
            None => self.drop_frame(frame, DropReason::NoMbuf),
        }
    }

    /// Resets the TCP conn that a packet belongs to (`nf_send_reset`).
    pub(crate) fn answer_reset(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        lent: Option<Attachment>,
        at: At<'_>,
    ) {
        let h = &t.headers;
        let Some(mut frame) = self.generate(pool, 14 + 40 + 20) else { return };
        let id = self.next_ip_id();
        match build::tcp_reset(frame.head_mut(), t.frame.head(), h, id) {
            Some(len) => {
                frame.truncate(len);
                self.originate(pool, frame, lent, at);
            }
            None => self.drop_frame(frame, DropReason::NoMbuf),
        }
    }

    /// The answer of a REJECT target. The packet's own conn is lent to the answer, so that rules
    /// see it as RELATED and the conn's translation is undone on the way out.
    pub(crate) fn reject(
        &mut self,
        pool: &mut P,
        t: &Transit<P::Frame>,
        with: RejectWith,
        at: At<'_>,
    ) {
        let lent = t.attachment().filter(|a| !a.error).map(|a| Attachment {
            direction: a.direction.opposite(),
            state: CtState::Related,
            lent: true,
            delete: false,
            changed: false,
            error: with != RejectWith::TcpReset,
            ..*a
        });
        match with {
            RejectWith::TcpReset => self.answer_reset(pool, t, lent, at),
            RejectWith::Unreachable(code) => {
                self.answer_error_as(pool, t, IcmpError::Reject { code }, lent, at);
            }
        }
    }
}

/// True if the packet is of a kind that errors are sent about.
fn may_be_answered<F>(t: &Transit<F>, at: At<'_>) -> bool {
    let h = &t.headers;
    let about_error = match h.proto {
        proto::ICMP => !matches!(h.icmp_type, 0 | 8 | 13..=18),
        proto::ICMPV6 => h.icmp_type < 128 || h.icmp_type == 137,
        _ => false,
    };
    if !t.addressed || about_error || h.fragment.is_later() {
        return false;
    }
    let Some(port) = t.in_port else { return false };
    // A source that cannot be a single host's is not answered, nor is what was sent to many.
    match at.policy.routes.judge(h.src, h.dst, port.0) {
        Ok(Destination::Broadcast | Destination::Multicast { .. }) | Err(_) => false,
        Ok(_) => true,
    }
}

/// The address an error comes from: the packet's destination if that is ours, else our address
/// towards its source.
fn source_of_answer<F>(t: &Transit<F>, at: At<'_>) -> Option<Address> {
    let h = &t.headers;
    let port = t.in_port.map(|p| p.0);
    if matches!(at.policy.routes.classify(h.dst, port), Destination::Local(_)) {
        return Some(h.dst);
    }
    match at.policy.routes.classify(h.src, port) {
        Destination::Forward(route) => {
            at.policy.port(PortId(route.port)).source_for(route.via.unwrap_or(h.src))
        }
        _ => None,
    }
}

/// Copies what fits of a frame's bytes `from..to`; returns how many.
fn copy<F: Frame>(frame: &F, from: usize, to: usize, into: &mut [u8]) -> usize {
    let mut n = 0;
    for segment in super::transport_segments(frame, from, to) {
        let take = segment.len().min(into.len() - n);
        into[n..n + take].copy_from_slice(&segment[..take]);
        n += take;
    }
    n
}

const _: () = assert!(BURST_MAX as u32 >= ERRORS_BURST, "one burst may use the whole budget");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_allows_a_burst_and_then_a_thousand_a_second() {
        let mut budget = ErrorBudget::default();
        let mut granted = 0;
        for _ in 0..200 {
            granted += budget.take(Tick(0)) as u32;
        }
        assert_eq!(granted, ERRORS_BURST);
        for tick in 1..=100 {
            for _ in 0..200 {
                granted += budget.take(Tick(tick)) as u32;
            }
        }
        assert_eq!(granted, ERRORS_BURST + ERRORS_PER_SEC);
    }

    #[test]
    fn the_budget_outlives_the_wrap_of_the_clock() {
        let mut budget = ErrorBudget { left: 0, at: Tick(u32::MAX) };
        assert!(budget.take(Tick(0)));
    }
}
