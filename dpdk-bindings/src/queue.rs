//! Queues of a port: one owner each, who polls or sends. Send, so that they reach their lcore, but
//! not Sync: DPDK wants one thread per queue.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::burst::Burst;
use crate::ffi;
use crate::mempool::Mempool;
use crate::port::{Opened, PortId};

/// A receive queue.
#[derive(Debug)]
pub struct RxQueue {
    port: PortId,
    queue: u16,
    _opened: Arc<Opened>,
    one_thread: PhantomData<Cell<()>>,
}

impl RxQueue {
    pub(crate) fn new(opened: &Arc<Opened>, queue: u16) -> Self {
        let (port, _opened) = (opened.id(), Arc::clone(opened));
        Self { port, queue, _opened, one_thread: PhantomData }
    }

    /// The port it belongs to.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Its number on the port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Polls once and adds what is there to the burst, as far as it has room; the number added.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        self.burst_at_most(burst, burst.room())
    }

    /// As [`Self::burst`], but `max` packets at most. Vector drivers round down to a multiple of 4
    /// or 8, so that a smaller `max` may never receive.
    #[inline]
    pub fn burst_at_most(&mut self, burst: &mut Burst, max: usize) -> usize {
        let count = max.min(burst.room()) as u16;
        // SAFETY: the port is started as long as self holds it, the queue exists and is polled here
        // alone; spare() has room for `count` pointers, of which the driver fills the first ones
        // with mbufs that it gives up.
        unsafe {
            let received = ffi::shim_rx_burst(self.port.0, self.queue, burst.spare(), count);
            burst.grow(received.into());
            received.into()
        }
    }
}

/// A transmit queue.
#[derive(Debug)]
pub struct TxQueue {
    port: PortId,
    queue: u16,
    takes_chains: bool,
    // The driver gives back to this pool whatever it sent. A number, only ever compared.
    only: Option<usize>,
    chains_dropped: u64,
    _opened: Arc<Opened>,
    one_thread: PhantomData<Cell<()>>,
}

impl TxQueue {
    /// With `only`, mbufs of other pools must not reach the driver.
    pub(crate) fn new(
        opened: &Arc<Opened>,
        queue: u16,
        takes_chains: bool,
        only: Option<&Mempool>,
    ) -> Self {
        Self {
            port: opened.id(),
            queue,
            takes_chains,
            only: only.map(|pool| pool.raw().addr()),
            chains_dropped: 0,
            _opened: Arc::clone(opened),
            one_thread: PhantomData,
        }
    }

    /// The port it belongs to.
    pub fn port(&self) -> PortId {
        self.port
    }

    /// Its number on the port.
    pub fn index(&self) -> u16 {
        self.queue
    }

    /// Whether the driver sends packets of several segments as they are. If not, [`Self::burst`]
    /// makes them one segment, or drops what does not fit one.
    pub fn takes_chains(&self) -> bool {
        self.takes_chains
    }

    /// Packets dropped because they had more segments than the driver takes, or came from a pool
    /// that it does not give back to.
    pub fn chains_dropped(&self) -> u64 {
        self.chains_dropped
    }

    /// Sends from the front of the burst; the number sent. What the driver had no room for stays in
    /// the burst, in order, at its front.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        if !self.takes_chains {
            self.straighten(burst);
        }
        if let Some(pool) = self.only {
            self.keep_own(burst, pool);
        }
        let count = burst.len() as u16;
        // SAFETY: the port is started as long as self holds it, the queue exists and is used here
        // alone; the slots hold `count` owned mbufs, of which the driver takes the first ones.
        unsafe {
            let sent = ffi::shim_tx_burst(self.port.0, self.queue, burst.raw(), count);
            burst.forget_front(sent.into());
            sent.into()
        }
    }

    /// Single-segment drivers read `pkt_len` bytes from the first segment: a chain must not reach
    /// them.
    fn straighten(&mut self, burst: &mut Burst) {
        let before = burst.len();
        if burst.iter().all(|mbuf| mbuf.segment_count() == 1) {
            return;
        }
        burst.retain(|mbuf| mbuf.linearize());
        self.chains_dropped += (before - burst.len()) as u64;
    }

    /// A driver that frees unseen would put another pool's mbufs into this one.
    fn keep_own(&mut self, burst: &mut Burst, pool: usize) {
        let before = burst.len();
        if burst.iter().all(|mbuf| mbuf.pool_address() == pool) {
            return;
        }
        burst.retain(|mbuf| mbuf.pool_address() == pool);
        self.chains_dropped += (before - burst.len()) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::HEADROOM;
    use crate::port::{Port, PortConfig};
    use crate::rig;
    use crate::testport::TestPort;

    #[test]
    fn a_single_segment_driver_never_sees_a_chain() {
        let _eal = rig::eal();
        let pool = Mempool::create("single", 63, 0, HEADROOM + 1600, None).unwrap();
        let wire = TestPort::create("single", 1, 32).unwrap();
        let (_port, _rx, mut tx) =
            Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        assert!(tx[0].takes_chains(), "a ring passes anything");
        tx[0].takes_chains = false;
        let mut burst = Burst::new();
        for (head, tail) in [(10, 0), (1000, 600), (1000, 601), (20, 5)] {
            let mut packet = rig::packet(&pool, &vec![head as u8; head]);
            if tail > 0 {
                packet.chain(rig::packet(&pool, &vec![7; tail])).unwrap();
            }
            burst.push(packet).unwrap();
        }
        assert_eq!((tx[0].burst(&mut burst), tx[0].chains_dropped()), (3, 1));
        for len in [10, 1600, 25] {
            let packet = wire.take(0).unwrap();
            assert_eq!((packet.pkt_len(), packet.segment_count()), (len, 1));
        }
        assert_eq!(pool.avail(), 63);
    }

    #[test]
    fn a_queue_that_frees_unseen_sends_its_own_alone() {
        let _eal = rig::eal();
        let pool = Mempool::create("own", 63, 0, 2176, None).unwrap();
        let other = Mempool::create("other", 63, 0, 2176, None).unwrap();
        let wire = TestPort::create("own", 1, 32).unwrap();
        let (_port, _rx, mut tx) =
            Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        let mut burst = Burst::new();
        let fill = |burst: &mut Burst| {
            for (n, pool) in [&pool, &other, &pool, &other].into_iter().enumerate() {
                burst.push(rig::packet(pool, &[n as u8])).unwrap();
            }
        };
        fill(&mut burst);
        assert_eq!((tx[0].burst(&mut burst), tx[0].chains_dropped()), (4, 0), "it looks");
        (0..4).for_each(|_| drop(wire.take(0)));
        tx[0].only = Some(pool.raw().addr());
        fill(&mut burst);
        assert_eq!((tx[0].burst(&mut burst), tx[0].chains_dropped()), (2, 2));
        assert_eq!(wire.take(0).unwrap().head(), [0]);
        assert_eq!(wire.take(0).unwrap().head(), [2]);
        assert_eq!((pool.avail(), other.avail()), (63, 63));
    }

    #[test]
    fn a_capture_holds_whole_chains() {
        const FILE_HEADER: usize = 24;
        const PACKET_HEADER: usize = 16;
        let _eal = rig::eal();
        let pool = Mempool::create("capture", 63, 0, HEADROOM + 64, None).unwrap();
        let (port, rx, mut tx) =
            Port::configure("net_pcap0", &PortConfig::default(), &pool).unwrap();
        assert!(tx[0].takes_chains());
        let mut packet = rig::packet(&pool, &[1; 60]);
        packet.chain(rig::packet(&pool, &[2; 64])).unwrap();
        packet.chain(rig::packet(&pool, &[3; 5])).unwrap();
        let mut burst = Burst::new();
        burst.push(packet).unwrap();
        assert_eq!(tx[0].burst(&mut burst), 1);
        drop((port, rx, tx));
        let file = std::fs::read(rig::capture()).unwrap();
        let _ = std::fs::remove_file(rig::capture());
        let written = &file[FILE_HEADER + PACKET_HEADER..];
        assert_eq!(written, [&[1; 60][..], &[2; 64], &[3; 5]].concat());
        assert_eq!(pool.avail(), 63);
    }
}
