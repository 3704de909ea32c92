//! Why a frame ended without being sent or delivered: one list for name, text, counter and docs.
//!
//! Every frame ends in exactly one outcome. The reasons below are the outcomes of those that were
//! dropped; `docs/drop-reasons.md` has one row for each, which a test checks.

/// One table row: the variant, its name in `stats` and metrics, and what it means.
macro_rules! reasons {
    ($($variant:ident $name:literal $text:literal;)*) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $text] $variant),* }

        impl DropReason {
            /// Every reason, in counter order.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];

            /// The name in `stats`, metrics and `--explain`.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name),* }
            }

            /// One sentence for people.
            pub const fn text(self) -> &'static str {
                match self { $(DropReason::$variant => $text),* }
            }
        }
    };
}

reasons! {
    ShortFrame "short-frame" "The frame ends within its Ethernet or IP header.";
    OtherHost "other-host" "The destination MAC is neither ours nor broadcast nor multicast.";
    EtherType "ether-type" "Neither IPv4, IPv6 nor ARP.";
    UnknownVlan "unknown-vlan" "The frame carries an 802.1Q tag that no port has.";
    HeaderSplit "header-split" "The headers do not lie in the first segment of the mbuf chain.";
    BadArp "bad-arp" "An ARP frame that is malformed or makes no sense.";
    BadNeighbourMessage "bad-neighbour-message" "A neighbour discovery message that fails RFC 4861's checks.";
    IpVersion "ip-version" "The version in the IP header does not fit the EtherType.";
    IpHeaderLength "ip-header-length" "The IP header length is below 20 or beyond the frame.";
    IpTotalLength "ip-total-length" "The IP length is below the header's or beyond the frame.";
    IpChecksum "ip-checksum" "The IPv4 header checksum is wrong.";
    IpOption "ip-option" "A source route option, or an extension header that is not accepted.";
    MappedAddress "mapped-address" "An IPv6 header with an IPv4-mapped address.";
    Reassembled "reassembled" "A fragment that became part of a datagram, which goes on as a frame of its own.";
    FragmentInvalid "fragment-invalid" "A fragment that is empty or too long, or at odds with others of its datagram.";
    FragmentDuplicate "fragment-duplicate" "A fragment of which all is there already.";
    FragmentOverlap "fragment-overlap" "A fragment of a datagram whose fragments overlap.";
    FragmentTimeout "fragment-timeout" "A fragment of a datagram of which the rest did not come in time.";
    FragmentMemory "fragment-memory" "No room for another fragment.";
    FragmentDistance "fragment-distance" "A fragment of a datagram that lost its place to others of its source (ipfrag_max_dist).";
    MartianSource "martian-source" "The source address cannot come from outside.";
    MartianDestination "martian-destination" "The destination address is never routed.";
    NotForwarded "not-forwarded" "A broadcast, multicast or link-local packet that a router does not forward.";
    NoRoute "no-route" "No route leads to the destination.";
    TtlExceeded "ttl-exceeded" "TTL or hop limit reached zero.";
    TooBig "too-big" "The packet exceeds the MTU of its way out and may not be fragmented.";
    RawDrop "raw-drop" "Dropped by a rule or policy of table raw.";
    MangleDrop "mangle-drop" "Dropped by a rule or policy of table mangle.";
    NatDrop "nat-drop" "Dropped by table nat, or its target could not be applied.";
    FilterDrop "filter-drop" "Dropped by a rule or policy of table filter.";
    Rejected "rejected" "Dropped by REJECT; an answer was sent where the target sends one.";
    SynProxied "syn-proxied" "Taken by SYNPROXY: what follows from it is said to client and server anew.";
    SynRefused "syn-refused" "For SYNPROXY: an ACK that brings no cookie back, or options that cannot be read.";
    TableFull "table-full" "nf_conntrack: table full, dropping packet.";
    TableRefuses "table-refuses" "The table is full and full = \"refuse\" lets nobody make room.";
    NoRecord "no-record" "No memory for another conn of this family was ready.";
    InsertFailed "insert-failed" "A tuple of the new conn was taken when it was confirmed.";
    ChainTooLong "chain-too-long" "All places that an entry of the new conn may have were taken.";
    Expectation "expectation" "A conn to come could not be entered among the expectations, or they were busy.";
    BadIcmpError "bad-icmp-error" "An ICMP error about a translated conn that cannot be translated.";
    NeighbourQueueFull "neighbour-queue-full" "Too many packets wait for the same neighbour's address.";
    NeighbourFailed "neighbour-failed" "The next hop did not answer ARP or neighbour solicitation.";
    NeighbourTableFull "neighbour-table-full" "No room to resolve another next hop.";
    NoMbuf "no-mbuf" "The mempool had no mbuf for a packet to be generated.";
    TxFull "tx-full" "The transmit queue stayed full.";
    TxChain "tx-chain" "The driver sends single segments and the packet does not fit one.";
    NoHeadroom "no-headroom" "The packet's buffer has no room in front for the VLAN tag.";
    TransportChecksum "transport-checksum" "For the gateway itself, with a wrong TCP, UDP or ICMP checksum.";
    TransportLength "transport-length" "For the gateway itself, with a TCP or UDP length that cannot be.";
    NotAccepted "not-accepted" "For the gateway itself, of a protocol that nothing answers.";
    Handoff "handoff" "The lcore that should take the frame had no room for it, or the conn changed hands too often.";
    Stopped "stopped" "Held for a neighbour, or for the rest of its datagram, when the gateway stopped.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_distinct_and_numbered_in_order() {
        let names: HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*r as usize, i);
            assert!(r.text().ends_with('.'), "{}", r.name());
        }
    }
}
