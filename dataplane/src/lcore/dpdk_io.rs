//! The ports of one lcore on DPDK: the only file of this crate that knows it.
//!
//! Owns the receive and transmit queues given to the lcore and a handle of the mempool. The
//! pipeline's bursts have the layout of DPDK's, so drivers fill and empty them in place.

use dpdk_bindings::{Burst as Mbufs, Checksum, Checksums, Mbuf, Mempool, RxQueue, TxQueue};

use super::io::BurstIo;
use crate::arch::{prefetch_read, prefetch_write};
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
    fn push_front(&mut self, n: usize) -> bool {
        self.prepend(n).is_some()
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        match Mbuf::append(self, bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    fn chain(&mut self, tail: Mbuf) -> Result<(), Mbuf> {
        Mbuf::chain(self, tail)
    }

    fn forget_verified(&mut self) {
        self.set_checksums(Checksums::default());
    }

    #[inline]
    fn prefetch(&self) {
        if let Some(first) = Mbuf::head(self).first() {
            prefetch_read(first);
        }
    }

    #[inline]
    fn prefetch_description(&self) {
        prefetch_write(self.description());
    }

    #[inline]
    fn is_verified(&self) -> bool {
        self.checksums().l4 == Checksum::Good
    }
}

/// The queues of one lcore.
pub struct DpdkIo {
    /// Where frames come from, of all ports together.
    rx: Vec<(PortId, RxQueue)>,
    /// Where frames go, by port number; `None` where another lcore sends.
    tx: Vec<Option<TxQueue>>,
    pool: Mempool,
}

impl DpdkIo {
    /// Receive queues in any order, transmit queues by port number.
    pub fn new(rx: Vec<(PortId, RxQueue)>, tx: Vec<Option<TxQueue>>, pool: Mempool) -> DpdkIo {
        DpdkIo { rx, tx, pool }
    }
}

impl FramePool for DpdkIo {
    type Frame = Mbuf;
    type Notes = ();

    fn allocate(&mut self, len: usize) -> Option<Mbuf> {
        let mut mbuf = self.pool.alloc()?;
        mbuf.append(len)?;
        Some(mbuf)
    }
}

impl BurstIo for DpdkIo {
    fn queues(&self) -> usize {
        self.rx.len()
    }

    #[inline]
    fn receive(&mut self, queue: usize, burst: &mut Burst<Mbuf>, max: usize) -> PortId {
        let Some((port, rx)) = self.rx.get_mut(queue) else { return PortId(0) };
        rx.burst_at_most(Mbufs::wrap(burst), max);
        *port
    }

    #[inline]
    fn transmit(&mut self, port: PortId, burst: &mut Burst<Mbuf>) -> usize {
        let Some(Some(tx)) = self.tx.get_mut(port.0 as usize) else { return 0 };
        let before = tx.chains_dropped();
        tx.burst(Mbufs::wrap(burst));
        (tx.chains_dropped() - before) as usize
    }
}
