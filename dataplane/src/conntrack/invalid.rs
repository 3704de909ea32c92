//! Why a tracker calls a packet INVALID: one list over all trackers.
//!
//! A reason has a name for counters and traces and the sentence that `log_invalid` prints. The
//! verdict for such a packet is still ACCEPT: dropping it is the rules' business.

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

            /// What `log_invalid` prints after the protocol's name.
            pub const fn text(self) -> &'static str {
                match self { $(InvalidReason::$variant => $text,)* }
            }
        }
    };
}

reasons! {
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
    UdpliteCoverage, "udplite-coverage", "invalid checksum coverage";
    UdpliteNoChecksum, "udplite-no-checksum", "checksum missing";
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
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || "-6".contains(c)), "{name}");
            let protocols = ["tcp-", "udp-", "udplite-", "icmp-", "icmpv6-"];
            assert!(protocols.iter().any(|p| name.starts_with(p)), "{name}");
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
}
