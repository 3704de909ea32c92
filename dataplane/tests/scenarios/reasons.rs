//! Every reason to drop has a scenario, or a word on why it has none.

use std::collections::HashSet;

use dataplane::pipeline::drops::DropReason::{self, *};

/// Where each reason is provoked and its counter checked.
const PROVOKED: [(DropReason, &str); 45] = [
    (ShortFrame, include_str!("forwarding.rs")),
    (OtherHost, include_str!("forwarding.rs")),
    (EtherType, include_str!("forwarding.rs")),
    (UnknownVlan, include_str!("forwarding.rs")),
    (HeaderSplit, include_str!("forwarding.rs")),
    (BadArp, include_str!("links.rs")),
    (BadNeighbourMessage, include_str!("links.rs")),
    (IpVersion, include_str!("forwarding.rs")),
    (IpHeaderLength, include_str!("forwarding.rs")),
    (IpTotalLength, include_str!("forwarding.rs")),
    (IpChecksum, include_str!("forwarding.rs")),
    (IpOption, include_str!("forwarding.rs")),
    (MappedAddress, include_str!("forwarding.rs")),
    (TransportChecksum, include_str!("forwarding.rs")),
    (TransportLength, include_str!("forwarding.rs")),
    (Reassembled, include_str!("fragments.rs")),
    (FragmentInvalid, include_str!("fragments.rs")),
    (FragmentDuplicate, include_str!("fragments.rs")),
    (FragmentOverlap, include_str!("fragments.rs")),
    (FragmentTimeout, include_str!("fragments.rs")),
    (FragmentMemory, include_str!("fragments.rs")),
    (FragmentDistance, include_str!("fragments.rs")),
    (MartianSource, include_str!("forwarding.rs")),
    (MartianDestination, include_str!("forwarding.rs")),
    (NotForwarded, include_str!("forwarding.rs")),
    (NoRoute, include_str!("forwarding.rs")),
    (TtlExceeded, include_str!("forwarding.rs")),
    (TooBig, include_str!("forwarding.rs")),
    (RawDrop, include_str!("tracking.rs")),
    (MangleDrop, include_str!("tracking.rs")),
    (NatDrop, include_str!("nat.rs")),
    (FilterDrop, include_str!("tracking.rs")),
    (Rejected, include_str!("tracking.rs")),
    (SynProxied, include_str!("synproxy.rs")),
    (SynRefused, include_str!("synproxy.rs")),
    (TableFull, include_str!("tracking.rs")),
    (TableRefuses, include_str!("full.rs")),
    (ChainTooLong, include_str!("full.rs")),
    (NoRecord, include_str!("tracking.rs")),
    (InsertFailed, include_str!("nat.rs")),
    (Expectation, include_str!("expect.rs")),
    (BadIcmpError, include_str!("nat.rs")),
    (NeighbourQueueFull, include_str!("links.rs")),
    (NeighbourFailed, include_str!("links.rs")),
    (NeighbourTableFull, include_str!("links.rs")),
];

/// The same for what befalls frames at the edges.
const AT_THE_EDGES: [(DropReason, &str); 5] = [
    (NoMbuf, include_str!("robustness.rs")),
    (TxFull, include_str!("robustness.rs")),
    (NoHeadroom, include_str!("vlan.rs")),
    (Stopped, include_str!("links.rs")),
    (NotAccepted, include_str!("links.rs")),
];

/// Not to be provoked with ports in memory, which send chains of any length, and one lcore.
const ELSEWHERE: [DropReason; 2] = [TxChain, Handoff];

#[test]
fn every_reason_is_provoked_or_excused() {
    let mut seen = HashSet::new();
    for (reason, file) in PROVOKED.iter().chain(&AT_THE_EDGES) {
        assert!(seen.insert(*reason), "{reason:?} twice");
        assert!(file.contains(&format!("{reason:?}")), "no scenario names {reason:?}");
    }
    for reason in ELSEWHERE {
        assert!(seen.insert(reason), "{reason:?} is provoked");
    }
    for reason in DropReason::ALL {
        assert!(seen.contains(reason), "{reason:?} has no scenario");
    }
}
