//! Why a tracker calls a packet INVALID: one list over all trackers, the numbers that decided, and
//! the sentences of `log_invalid`.
//!
//! A reason has a name for counters and traces. The verdict for such a packet is still ACCEPT:
//! dropping it is the rules' business. The numbers are made after the fact, out of the packet and
//! the unchanged conn, so that a packet that is accepted costs nothing. Sentences are the kernel's
//! (`nf_l4proto_log_invalid`); where it says nothing, neither do we.

use std::fmt;

use super::state::Direction;
use super::tcp::{Class, Unexpected, WindowNumbers};
use crate::wire::address::Address;

macro_rules! reasons {
    ($($variant:ident, $name:literal, $text:literal;)*) => {
        /// Why a packet is INVALID.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum InvalidReason {
            $(#[doc = $text] $variant,)*
        }

        impl InvalidReason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[InvalidReason] = &[$(InvalidReason::$variant,)*];

            /// A short name for counters and traces, in kebab-case.
            pub const fn name(self) -> &'static str {
                match self { $(InvalidReason::$variant => $name,)* }
            }

            /// What is wrong, in the kernel's words where it has any.
            pub const fn text(self) -> &'static str {
                match self { $(InvalidReason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    TcpShort, "tcp-short", "fewer bytes than a TCP header";
    TcpTruncated, "tcp-truncated", "truncated packet";
    TcpChecksum, "tcp-checksum", "bad checksum";
    TcpFlags, "tcp-flags", "invalid tcp flag combination";
    TcpNew, "tcp-new", "invalid new";
    TcpPickup, "tcp-pickup", "not a SYN and tcp_loose is off";
    TcpState, "tcp-state", "packet invalid in this state";
    TcpRst, "tcp-rst", "invalid rst";
    TcpSeqOver, "tcp-seq-over", "SEQ is over upper bound (over the window of the receiver)";
    TcpAckOver, "tcp-ack-over", "ACK is over upper bound (ACKed data not seen yet)";
    UdpShort, "udp-short", "short packet";
    UdpLength, "udp-length", "truncated/malformed packet";
    UdpChecksum, "udp-checksum", "bad checksum";
    UdpliteShort, "udplite-short", "short packet";
    UdpliteCoverage, "udplite-coverage", "invalid checksum coverage";
    UdpliteNoChecksum, "udplite-no-checksum", "checksum missing";
    UdpliteChecksum, "udplite-checksum", "bad checksum";
    SctpShort, "sctp-short", "nf_ct_sctp: short packet";
    SctpChecksum, "sctp-checksum", "nf_ct_sctp: bad CRC";
    SctpChunks, "sctp-chunks", "no chunks, or chunks that may not be together";
    SctpNew, "sctp-new", "chunks that may not begin a conn";
    SctpTag, "sctp-tag", "verification tag check failed";
    SctpChunkTag, "sctp-chunk-tag", "a tag that this chunk may not come with";
    SctpState, "sctp-state", "chunk invalid in this state";
    SctpInit, "sctp-init", "INIT is cut";
    DccpShort, "dccp-short", "nf_ct_dccp: short packet";
    DccpLength, "dccp-length", "nf_ct_dccp: truncated/malformed packet";
    DccpCoverage, "dccp-coverage", "nf_ct_dccp: bad checksum coverage";
    DccpChecksum, "dccp-checksum", "nf_ct_dccp: bad checksum";
    DccpType, "dccp-type", "nf_ct_dccp: reserved packet type";
    DccpNew, "dccp-new", "invalid state transition";
    DccpPickup, "dccp-pickup", "not picking up existing connection";
    DccpState, "dccp-state", "invalid state transition";
    GreProtocol, "gre-protocol", "version 1 with another protocol than PPP";
    Fragment, "fragment", "a fragment that no datagram can have";
    IcmpNew, "icmp-new", "cannot create a conn with this type";
    IcmpShort, "icmp-short", "short packet";
    IcmpChecksum, "icmp-checksum", "bad hw icmp checksum";
    IcmpType, "icmp-type", "invalid icmp type";
    IcmpInner, "icmp-inner", "inner packet is too short or has no tuple";
    IcmpUnrelated, "icmp-unrelated", "inner packet belongs to no conn";
    IcmpOuterDestination, "icmp-outer-destination", "outer daddr != inner";
    Icmpv6Checksum, "icmpv6-checksum", "ICMPv6 checksum failed";
    Icmpv6ShortRedirect, "icmpv6-short-redirect", "short redirect";
    Icmpv6Redirect, "icmpv6-redirect", "invalid saddr or hoplimit for redirect";
    Icmpv6RedirectOptions, "icmpv6-redirect-options", "redirect without options";
}

impl InvalidReason {
    /// True for what the kernel counts as `error` (`icmp_error`) and not as `invalid`: everything
    /// wrong with an ICMP packet before it is looked up (`nf_conntrack_handle_icmp`).
    pub const fn counts_as_error(self) -> bool {
        self as u8 >= InvalidReason::IcmpShort as u8
    }

    /// True for what the kernel rejects without a word, whatever `log_invalid` says.
    pub const fn is_silent(self) -> bool {
        use InvalidReason::{Fragment, IcmpInner, IcmpNew, IcmpUnrelated};
        use InvalidReason::{GreProtocol, SctpChunkTag, SctpInit, SctpNew, TcpPickup, TcpShort};
        matches!(self, TcpShort | TcpPickup | SctpNew | SctpChunkTag | SctpInit | GreProtocol)
            || matches!(self, Fragment | IcmpNew | IcmpInner | IcmpUnrelated)
    }
}

/// The numbers that decided that a packet is INVALID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// The reason says it all.
    #[default]
    None,
    /// Bytes that there should have been, by the header or at least, and bytes that there are.
    Lengths {
        /// Stated or needed.
        needed: u32,
        /// Found.
        found: u32,
    },
    /// The checksum of the packet and the one that fits it.
    Checksum {
        /// As it stands in the packet.
        found: u16,
        /// As it should be.
        right: u16,
    },
    /// An ICMP type and code.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
    /// The destination of an ICMP error, and that of the packets it is about.
    Outer {
        /// The error's.
        outer: Address,
        /// The conn's.
        inner: Address,
    },
    /// An SCTP packet's verification tag, and that of its direction.
    Tag {
        /// The packet's.
        found: u32,
        /// The conn's.
        right: u32,
        /// Of the packet.
        direction: Direction,
    },
    /// The SCTP chunk that may not be where it is.
    Chunk {
        /// Which of the packet's, from 0.
        number: u16,
        /// Its type.
        kind: u8,
        /// Its length field.
        length: u16,
        /// It, or one before it, has to be alone.
        alone: bool,
    },
    /// The SCTP chunk that is invalid in a state.
    Step {
        /// The state's number.
        state: u8,
        /// Of the packet.
        direction: Direction,
        /// The chunk's type.
        kind: u8,
    },
    /// The byte of TCP flags.
    Flags(u8),
    /// A segment and what its conn's windows were.
    Window(WindowNumbers),
}

/// What `log_invalid` says of a packet: an INVALID one, or one that passes without being believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// The packet is INVALID.
    Invalid(InvalidReason, Numbers),
    /// A segment is let pass and changes nothing.
    Unexpected(Unexpected, WindowNumbers),
    /// Both sides ended a conn outside its windows: it goes sooner.
    Lowered {
        /// What came.
        class: Class,
        /// From where.
        direction: Direction,
        /// What it answers.
        after: Class,
        /// The new timeout.
        secs: u32,
    },
}

/// The kernel prints this timeout in ticks, of which a second has this many as Debian builds it
/// (`HZ`).
const KERNEL_TICKS_PER_SEC: u64 = 250;

impl Remark {
    /// True if the kernel says something about it.
    pub fn is_said(&self) -> bool {
        use InvalidReason::{SctpChunks, SctpState, UdpShort, UdpliteShort};
        match self {
            // Where the ports are missing no tracker gets to see the packet.
            Remark::Invalid(UdpShort | UdpliteShort, Numbers::Lengths { found, .. }) => *found >= 4,
            // Of chunks nothing is said where there are none.
            Remark::Invalid(SctpChunks | SctpState, Numbers::None) => false,
            Remark::Invalid(reason, _) => !reason.is_silent(),
            _ => true,
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remark::Invalid(reason, numbers) => write_invalid(f, *reason, numbers),
            Remark::Unexpected(what, n) => match what {
                Unexpected::State => write_state(f, n, "ignored"),
                Unexpected::Challenge => f.write_str("challenge-ack ignored"),
                Unexpected::Overshoot => {
                    write!(f, "{} bytes more than expected", n.overshoot())
                }
                Unexpected::SeqUnder => {
                    let bound = n.oldest_end();
                    write!(f, "SEQ is under lower bound {bound} (already ACKed data retransmitted)")
                }
                Unexpected::AckUnder => {
                    let bound = n.oldest_ack();
                    write!(f, "ignored ACK under lower bound {bound} (possible overly delayed)")
                }
            },
            Remark::Lowered { class, direction, after, secs } => {
                let (class, after) = (*class as u8, *after as u8);
                let (direction, ticks) =
                    (*direction as u8, u64::from(*secs) * KERNEL_TICKS_PER_SEC);
                write!(f, "packet (index {class}, dir {direction}) response for index {after} ")?;
                write!(f, "lower timeout to {ticks}")
            }
        }
    }
}

fn write_state(f: &mut fmt::Formatter<'_>, n: &WindowNumbers, what: &str) -> fmt::Result {
    let (class, direction) = (n.class as u8, n.direction as u8);
    write!(f, "packet (index {class}) in dir {direction} {what}, state {}", n.state)
}

fn write_invalid(
    f: &mut fmt::Formatter<'_>,
    reason: InvalidReason,
    numbers: &Numbers,
) -> fmt::Result {
    match (reason, numbers) {
        (InvalidReason::TcpState, Numbers::Window(n)) => write_state(f, n, "invalid"),
        (InvalidReason::TcpSeqOver, Numbers::Window(n)) => {
            let bound = n.sender_maxend.wrapping_add(1);
            write!(f, "SEQ is over upper bound {bound} (over the window of the receiver)")
        }
        (InvalidReason::TcpAckOver, Numbers::Window(n)) => {
            let bound = n.receiver_end.wrapping_add(1);
            write!(f, "ACK is over upper bound {bound} (ACKed data not seen yet)")
        }
        (InvalidReason::IcmpOuterDestination, Numbers::Outer { outer, inner }) => {
            write!(f, "outer daddr {} != inner {}", Whole(*outer), Whole(*inner))
        }
        // The kernel prints both in the order of the wire.
        (_, Numbers::Tag { found, right, direction }) => {
            let (found, right) = (found.swap_bytes(), right.swap_bytes());
            let direction = *direction as u8;
            write!(f, "verification tag check failed {found:x} vs {right:x} for dir {direction}")
        }
        (_, Numbers::Chunk { number, kind, length, alone }) => {
            let (length, alone) = (length.swap_bytes(), u8::from(*alone));
            write!(f, "do_basic_checks failed. chunk num {number}, type {kind}, ")?;
            write!(f, "len {length} flag {alone}")
        }
        (_, Numbers::Step { state, direction, kind }) => {
            write!(f, "Invalid, old_state {state}, dir {}, type {kind}", *direction as u8)
        }
        _ => f.write_str(reason.text()),
    }
}

/// An address as `%pI4` and `%pI6` print it: IPv6 in eight full groups.
struct Whole(Address);

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_v4() {
            return self.0.ip().fmt(f);
        }
        for at in (0..8).rev() {
            let group = (self.0.bits() >> (16 * at)) as u16;
            write!(f, "{group:04x}{}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_kebab_case_and_start_with_the_protocol() {
        let mut seen = std::collections::HashSet::new();
        for reason in InvalidReason::ALL {
            let name = reason.name();
            assert!(seen.insert(name), "{name} twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || "-46".contains(c)), "{name}");
            let protocols =
                ["tcp-", "udp-", "udplite-", "sctp-", "dccp-", "gre-", "icmp-", "icmpv6-"];
            let of_one = protocols.iter().any(|p| name.starts_with(p));
            // A fragment may be of any of them.
            assert!(of_one || *reason == InvalidReason::Fragment, "{name}");
            assert!(!reason.text().is_empty());
        }
    }

    #[test]
    fn only_trouble_before_the_lookup_counts_as_error() {
        for reason in InvalidReason::ALL {
            let icmp = reason.name().starts_with("icmp") && *reason != InvalidReason::IcmpNew;
            assert_eq!(reason.counts_as_error(), icmp, "{}", reason.name());
        }
    }

    fn window(class: Class, direction: Direction) -> WindowNumbers {
        WindowNumbers {
            direction,
            class,
            state: super::super::tcp::TcpState::Established,
            window: 1000,
            seq: 30_000,
            end: 30_100,
            ack: 5001,
            sack: 5001,
            sender_end: 200,
            sender_maxend: 30_050,
            sender_maxwin: 70_000,
            receiver_end: 5000,
            receiver_maxwin: 300,
        }
    }

    /// Each as Linux 6.18 printed it.
    #[test]
    fn sentences_are_the_kernels() {
        let n = window(Class::SynAck, Direction::Original);
        let invalid = |reason| Remark::Invalid(reason, Numbers::Window(n)).to_string();
        let state = "packet (index 1) in dir 0 invalid, state ESTABLISHED";
        assert_eq!(invalid(InvalidReason::TcpState), state);
        let seq = "SEQ is over upper bound 30051 (over the window of the receiver)";
        assert_eq!(invalid(InvalidReason::TcpSeqOver), seq);
        let ack = "ACK is over upper bound 5001 (ACKed data not seen yet)";
        assert_eq!(invalid(InvalidReason::TcpAckOver), ack);
        assert_eq!(invalid(InvalidReason::TcpRst), "invalid rst");
        let passed = |what| Remark::Unexpected(what, n).to_string();
        let state = "packet (index 1) in dir 0 ignored, state ESTABLISHED";
        assert_eq!(passed(Unexpected::State), state);
        assert_eq!(passed(Unexpected::Challenge), "challenge-ack ignored");
        assert_eq!(passed(Unexpected::Overshoot), "51 bytes more than expected");
        let seq = "SEQ is under lower bound 4294967195 (already ACKed data retransmitted)";
        assert_eq!(passed(Unexpected::SeqUnder), seq);
        let ack = "ignored ACK under lower bound 4294902295 (possible overly delayed)";
        assert_eq!(passed(Unexpected::AckUnder), ack);
        let (class, after, direction) = (Class::Fin, Class::Rst, Direction::Reply);
        let lowered = Remark::Lowered { class, direction, after, secs: 300 };
        let text = "packet (index 2, dir 1) response for index 4 lower timeout to 75000";
        assert_eq!(lowered.to_string(), text);
    }

    #[test]
    fn addresses_are_written_as_the_kernel_writes_them() {
        let said = |outer, inner| {
            let numbers = Numbers::Outer { outer, inner };
            Remark::Invalid(InvalidReason::IcmpOuterDestination, numbers).to_string()
        };
        let v4 = said(Address::v4(0x0a01_0001), Address::v4(0xcb00_7133));
        assert_eq!(v4, "outer daddr 10.1.0.1 != inner 203.0.113.51");
        let v6 = said(Address::v6(0xfd00 << 112 | 1), Address::v6(0x2001_0db8 << 96));
        let (outer, inner) = ("fd00:0000:0000:0000:0000:0000:0000:0001", "2001:0db8:0000:0000:");
        assert!(v6.starts_with(&format!("outer daddr {outer} != inner {inner}0000:")), "{v6}");
    }

    #[test]
    fn the_kernel_says_nothing_of_packets_without_ports() {
        let short = |found| Numbers::Lengths { needed: 8, found };
        assert!(!Remark::Invalid(InvalidReason::UdpShort, short(3)).is_said());
        assert!(Remark::Invalid(InvalidReason::UdpShort, short(4)).is_said());
        assert!(Remark::Invalid(InvalidReason::IcmpShort, short(3)).is_said());
        assert!(!Remark::Invalid(InvalidReason::TcpShort, short(19)).is_said());
        assert!(!Remark::Invalid(InvalidReason::IcmpNew, Numbers::None).is_said());
    }
}
