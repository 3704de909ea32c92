//! The ports of one lcore on DPDK: the only file of this crate that knows it.
//!
//! Owns the receive and transmit queues given to the lcore and a handle of the mempool. Bursts are
//! moved between DPDK's array and the pipeline's; each mbuf stays owned by exactly one of them.

use dpdk_bindings::{Burst as Mbufs, Mbuf, Mempool, RxQueue, TxQueue};

use super::io::BurstIo;
use crate::arch::prefetch_read;
use crate::pipeline::frame::{Burst, Frame, FramePool};
use crate::rules::facts::PortId;

impl Frame for Mbuf {
    #[inline]
    fn head(&self) -> &[u8] {
        Mbuf::head(self)
    }

    #[inline]
    fn head_mut(&mut self) -> &mut [u8] {
        Mbuf::head_mut(self)
    }

    #[inline]
    fn total_len(&self) -> usize {
        self.pkt_len()
    }

    fn segments(&self) -> impl Iterator<Item = &[u8]> {
        Mbuf::segments(self)
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.trim_to(len);
    }

    fn strip_front(&mut self, n: usize) -> bool {
        self.adj(n).is_some()
    }

    #[inline]
    fn prefetch(&self) {
        if let Some(first) = Mbuf::head(self).first() {
            prefetch_read(first);
        }
    }
}

/// The queues of one port that belong to one lcore.
pub struct Queues {
    /// Where frames come from.
    pub rx: RxQueue,
    /// Where frames go.
    pub tx: TxQueue,
}

/// The ports of one lcore, in the order of their numbers.
pub struct DpdkIo {
    ports: Vec<Queues>,
    pool: Mempool,
    received: Mbufs,
    sending: Mbufs,
}

impl DpdkIo {
    /// From the queues of each port, in the order of port numbers.
    pub fn new(ports: Vec<Queues>, pool: Mempool) -> DpdkIo {
        DpdkIo { ports, pool, received: Mbufs::new(), sending: Mbufs::new() }
    }
}

impl FramePool for DpdkIo {
    type Frame = Mbuf;

    fn allocate(&mut self, len: usize) -> Option<Mbuf> {
        let mut mbuf = self.pool.alloc()?;
        mbuf.append(len)?;
        Some(mbuf)
    }
}

impl BurstIo for DpdkIo {
    fn ports(&self) -> usize {
        self.ports.len()
    }

    #[inline]
    fn receive(&mut self, port: PortId, burst: &mut Burst<Mbuf>, max: usize) {
        let Some(queues) = self.ports.get_mut(port.0 as usize) else { return };
        let max = max.min(burst.remaining_capacity());
        queues.rx.burst_at_most(&mut self.received, max);
        burst.extend(self.received.drain().take(max));
    }

    #[inline]
    fn transmit(&mut self, port: PortId, burst: &mut Burst<Mbuf>) -> usize {
        let Some(queues) = self.ports.get_mut(port.0 as usize) else { return 0 };
        let before = queues.tx.chains_dropped();
        for mbuf in burst.drain(..) {
            // The burst that was just emptied had no more room than this one.
            let _ = self.sending.push(mbuf);
        }
        queues.tx.burst(&mut self.sending);
        burst.extend(self.sending.drain());
        (queues.tx.chains_dropped() - before) as usize
    }
}
