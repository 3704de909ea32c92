//! What one lcore counts. The lcore is the only writer; the control core reads at any time.
//!
//! Plain load-and-store on atomics: a read-modify-write would cost a locked instruction per packet
//! and nobody else writes here. What lcores count lies on cache lines of their own: the types are
//! aligned, so that two lcores' counters never share one by where the allocator put them.

use crate::arch::sync::{AtomicU64, Ordering::Relaxed};

use super::drops::DropReason;
use crate::conntrack::invalid::InvalidReason;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`; only ever called by the owner.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes `n` off; only ever called by the owner.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    /// The present value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Frames and bytes of one port as seen by one lcore.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: Counter,
    /// Bytes received, without the frame check sequence.
    pub rx_bytes: Counter,
    /// Frames given to the driver.
    pub tx_packets: Counter,
    /// Bytes given to the driver.
    pub tx_bytes: Counter,
}

/// The columns of `conntrack -S` and `/proc/net/stat/nf_conntrack`.
#[derive(Debug, Default)]
pub struct ConntrackCounters {
    /// Tuples found taken when a port was searched or a conn confirmed.
    pub found: Counter,
    /// Packets that tracking called INVALID.
    pub invalid: Counter,
    /// Conns that a tool made.
    pub insert: Counter,
    /// Conns that could not be confirmed.
    pub insert_failed: Counter,
    /// Packets dropped for want of an entry or at confirm.
    pub drop: Counter,
    /// Conns dropped early.
    pub early_drop: Counter,
    /// ICMP errors that match nothing.
    pub error: Counter,
    /// Conns whose entries found no place.
    pub chain_too_long: Counter,
    /// First packets that joined the conn which was confirmed before theirs.
    pub clash_resolve: Counter,
    /// Conns that packets have begun; no column, but what the pace of expiry goes by.
    pub begun: Counter,
}

/// The columns of `/proc/net/stat/synproxy`.
#[derive(Debug, Default)]
pub struct SynproxyCounters {
    /// SYNs of clients.
    pub syn_received: Counter,
    /// ACKs without a cookie that is good.
    pub cookie_invalid: Counter,
    /// ACKs with one.
    pub cookie_valid: Counter,
    /// Of these, keep-alives while the server has not answered.
    pub cookie_retrans: Counter,
    /// Conns opened anew after a reset.
    pub conn_reopened: Counter,
}

/// Everything one lcore counts.
#[derive(Debug)]
#[repr(align(128))]
pub struct LcoreCounters {
    /// By port number; those of host taps stay 0.
    pub ports: Box<[PortCounters]>,
    /// By [`DropReason`].
    pub drops: [Counter; DropReason::ALL.len()],
    /// INVALID packets by [`InvalidReason`].
    pub invalid: [Counter; InvalidReason::ALL.len()],
    /// Frames made here: answers, errors, probes, and what the box's own programs send.
    pub generated: Counter,
    /// Frames that the gateway itself consumed or that the box's own programs got.
    pub to_host: Counter,
    /// Frames waiting for a neighbour (a gauge).
    pub held: Counter,
    /// Frames handed over to other lcores.
    pub handed_over: Counter,
    /// Frames taken over from other lcores.
    pub taken_over: Counter,
    /// Conntrack's own.
    pub conntrack: ConntrackCounters,
    /// SYNPROXY's own.
    pub synproxy: SynproxyCounters,
    /// Bursts that had at least one frame.
    pub busy_polls: Counter,
    /// Polls that found nothing.
    pub idle_polls: Counter,
    /// Packets of known conns that took the cached path.
    pub fast: Counter,
    /// Packets that walked the hooks.
    pub walked: Counter,
    /// Messages for the control core that found its mailbox full.
    pub lost_messages: Counter,
}

impl LcoreCounters {
    /// Zeroes for `ports` ports.
    pub fn new(ports: usize) -> LcoreCounters {
        LcoreCounters {
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
            drops: core::array::from_fn(|_| Counter::default()),
            invalid: core::array::from_fn(|_| Counter::default()),
            generated: Counter::default(),
            to_host: Counter::default(),
            held: Counter::default(),
            handed_over: Counter::default(),
            taken_over: Counter::default(),
            conntrack: ConntrackCounters::default(),
            synproxy: SynproxyCounters::default(),
            busy_polls: Counter::default(),
            idle_polls: Counter::default(),
            fast: Counter::default(),
            walked: Counter::default(),
            lost_messages: Counter::default(),
        }
    }

    /// Counts one frame dropped for `reason`.
    #[inline]
    pub fn count_drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// Frames dropped for any reason.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }

    /// The law every test checks, of one lcore: what came is what went.
    ///
    /// rx + generated + taken over = tx + to host + dropped + held + handed over
    pub fn balanced(&self) -> bool {
        let rx: u64 = self.ports.iter().map(|p| p.rx_packets.get()).sum();
        let tx: u64 = self.ports.iter().map(|p| p.tx_packets.get()).sum();
        let came = rx + self.generated.get() + self.taken_over.get();
        let ended = tx + self.to_host.get() + self.dropped();
        came == ended + self.held.get() + self.handed_over.get()
    }
}
