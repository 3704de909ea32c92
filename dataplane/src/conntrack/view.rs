//! Conns as people see them: plain copies for listings, events and statistics.
//!
//! An owner lcore fills a [`ConnView`] from its record in bounded slices; the control core formats
//! it. Nothing here refers to a record, so a view stays true to the moment it was taken. Not used
//! on the packet path, hence the `String`.

use super::state::Status;
use super::tuple::Tuple;

/// Packets and bytes of one direction (`nf_conntrack_acct`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets seen.
    pub packets: u64,
    /// Bytes seen, from the IP header on.
    pub bytes: u64,
}

/// One conn at the moment it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnView {
    /// Names the record and its incarnation to whoever made the view; never shown.
    pub key: u64,
    /// The number that `-o id` shows.
    pub id: u32,
    /// The tuple of the first packet.
    pub original: Tuple,
    /// The tuple of the answers.
    pub reply: Tuple,
    /// Zone of the original direction.
    pub zone_original: u16,
    /// Zone of the reply direction.
    pub zone_reply: u16,
    /// Status bits.
    pub status: Status,
    /// Whole seconds until the conn expires, 0 once it has.
    pub remaining_secs: u32,
    /// The tracker's state, in the words of the kernel; `None` for protocols without states.
    pub state: Option<&'static str>,
    /// The tags of SCTP: of the original, then of the reply direction.
    pub sctp_tags: Option<[u32; 2]>,
    /// Whose packets the original direction of a DCCP conn has.
    pub dccp_role: Option<&'static str>,
    /// GRE's two timeouts in seconds, plain and stream; only `/proc/net/nf_conntrack` shows them.
    pub gre_timeouts_secs: Option<[u32; 2]>,
    /// The conn's mark.
    pub mark: u32,
    /// Per direction; `None` if accounting was off when the conn was made.
    pub counters: Option<[Counters; 2]>,
    /// Wall clock at creation in nanoseconds since 1970; `None` if time stamps were off then.
    pub start_unix_ns: Option<u64>,
    /// Wall clock at destruction; only in a destroy event.
    pub stop_unix_ns: Option<u64>,
    /// The helper's name.
    pub helper: Option<String>,
    /// Its labels, bit by bit; in an event only if they have changed.
    pub labels: u128,
}

/// What happened to a conn (the event groups of ctnetlink).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was confirmed.
    New,
    /// State, status or mark changed.
    Update,
    /// It expired or was deleted.
    Destroy,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventView {
    /// What happened.
    pub kind: EventKind,
    /// The conn right after it happened. For an expired one `remaining_secs` is 0.
    pub conn: ConnView,
    /// Wall clock in nanoseconds since 1970.
    pub unix_ns: u64,
    /// The process that asked for it; `None` if packets or time did it.
    pub by_process: Option<u32>,
}

/// What one lcore counts of SYNPROXY, in the words of `/proc/net/stat/synproxy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynproxyStatistics {
    /// SYNs of clients.
    pub syn_received: u64,
    /// ACKs without a cookie that is good.
    pub cookie_invalid: u64,
    /// ACKs with one.
    pub cookie_valid: u64,
    /// Of these, keep-alives while the server has not answered.
    pub cookie_retrans: u64,
    /// Conns opened anew after a reset.
    pub conn_reopened: u64,
}

/// Counters of one lcore, in the words of `conntrack -S` and `/proc/net/stat/nf_conntrack`.
///
/// The kernel's `new`, `ignore` and `delete` columns are always 0 and have no field here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuStatistics {
    /// Tuples found taken when a unique one was searched.
    pub found: u64,
    /// Packets that could not be tracked.
    pub invalid: u64,
    /// Conns made by a tool.
    pub insert: u64,
    /// Conns that could not be confirmed.
    pub insert_failed: u64,
    /// Packets dropped by conn tracking itself.
    pub drop: u64,
    /// Conns dropped early to make room.
    pub early_drop: u64,
    /// ICMP errors that match no conn.
    pub icmp_error: u64,
    /// Conns that came from an expectation.
    pub expect_new: u64,
    /// Expectations made.
    pub expect_create: u64,
    /// Expectations removed.
    pub expect_delete: u64,
    /// Lookups repeated because the table moved under them.
    pub search_restart: u64,
    /// Clashes at confirm that were resolved.
    pub clash_resolve: u64,
    /// Conns refused because their place in the index was overfull.
    pub chain_too_long: u64,
}
