//! The device behind a port and its queues: claimed by one [`crate::Port`], then configured,
//! started, and closed when the last of them drops. Each method is one DPDK call.

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::eal::Running;
use crate::errno::Errno;
use crate::ffi;
use crate::mempool::Mempool;
use crate::port::rss::Asked;
use crate::port::{PortConfig, PortId};

/// A claimed device that was configured; closed on drop. Shared by the port and its queues.
#[derive(Debug)]
pub(crate) struct Opened {
    claim: Claim,
    started: bool,
    // Drivers keep a pointer to it, and read it at the start.
    rss_key: Vec<u8>,
    // Dropped after the port is closed: drivers return their mbufs then.
    pool: Mempool,
    _running: Arc<Running>,
}

impl Opened {
    /// The claimed device, about to be configured.
    pub(super) fn new(claim: Claim, pool: &Mempool, running: Arc<Running>) -> Self {
        Self { claim, started: false, rss_key: Vec::new(), pool: pool.clone(), _running: running }
    }

    pub(crate) fn id(&self) -> PortId {
        self.claim.0
    }

    /// The pool it receives into.
    pub(crate) fn pool(&self) -> &Mempool {
        &self.pool
    }

    pub(super) fn configure(
        &mut self,
        config: &PortConfig,
        rss: Option<&Asked>,
        (rx_offloads, tx_offloads): (u64, u64),
    ) -> Result<i32, Errno> {
        let mut conf = ffi::rte_eth_conf::default();
        conf.rxmode.mtu = config.mtu.into();
        conf.rxmode.offloads = rx_offloads;
        conf.txmode.offloads = tx_offloads;
        if let Some(asked) = rss {
            conf.rxmode.mq_mode = ffi::shim_mq_rx_rss;
            conf.rx_adv_conf.rss_conf.rss_hf = asked.functions;
            if !asked.key.is_empty() {
                self.rss_key.clone_from(&asked.key);
                conf.rx_adv_conf.rss_conf.rss_key = self.rss_key.as_mut_ptr();
                conf.rx_adv_conf.rss_conf.rss_key_len = asked.key.len() as u8;
            }
        }
        let (rx, tx) = (config.rx_queues, config.tx_queues);
        // SAFETY: the port id is valid and claimed; the struct is read during the call only, the
        // key until the port is closed, for which time self keeps it in its place.
        Errno::check(unsafe { ffi::rte_eth_dev_configure(self.id().0, rx, tx, &conf) })
    }

    pub(super) fn adjust(&self, (rx, tx): &mut (u16, u16)) -> Result<i32, Errno> {
        // SAFETY: the port id is valid; both numbers are written in place.
        Errno::check(unsafe { ffi::rte_eth_dev_adjust_nb_rx_tx_desc(self.id().0, rx, tx) })
    }

    pub(super) fn rx_queues(
        &self,
        queues: u16,
        descriptors: u16,
        pool: &Mempool,
    ) -> Result<i32, Errno> {
        let (id, socket) = (self.id().0, self.socket());
        for queue in 0..queues {
            // SAFETY: the port is configured with `queues` queues and not started; a null
            // configuration means the driver's defaults; self keeps the pool alive.
            Errno::check(unsafe {
                let defaults = ptr::null();
                ffi::rte_eth_rx_queue_setup(id, queue, descriptors, socket, defaults, pool.raw())
            })?;
        }
        Ok(0)
    }

    pub(super) fn tx_queues(&self, queues: u16, descriptors: u16) -> Result<i32, Errno> {
        let (id, socket) = (self.id().0, self.socket());
        for queue in 0..queues {
            // SAFETY: as for the receive queues.
            Errno::check(unsafe {
                ffi::rte_eth_tx_queue_setup(id, queue, descriptors, socket, ptr::null())
            })?;
        }
        Ok(0)
    }

    /// The device's NUMA node as DPDK passes it around: "any" is all ones.
    fn socket(&self) -> u32 {
        // SAFETY: the port id is valid.
        unsafe { ffi::rte_eth_dev_socket_id(self.id().0) as u32 }
    }

    pub(super) fn set_mtu(&self, mtu: u16) -> Result<i32, Errno> {
        // SAFETY: the port is configured.
        Errno::check(unsafe { ffi::rte_eth_dev_set_mtu(self.id().0, mtu) })
    }

    /// The largest IP packet, as DPDK keeps it.
    pub(crate) fn mtu(&self) -> Result<u16, Errno> {
        let mut mtu = 0;
        // SAFETY: the port is configured; the number is written on success.
        Errno::check(unsafe { ffi::rte_eth_dev_get_mtu(self.id().0, &mut mtu) })?;
        Ok(mtu)
    }

    pub(super) fn start(&mut self) -> Result<i32, Errno> {
        // SAFETY: the port is configured and all its queues are set up.
        Errno::check(unsafe { ffi::rte_eth_dev_start(self.id().0) })?;
        self.started = true;
        Ok(0)
    }

    pub(super) fn set_mac(&self, mac: [u8; 6]) -> Result<i32, Errno> {
        let mut mac = ffi::rte_ether_addr { addr_bytes: mac };
        // SAFETY: the port is configured; the address is read during the call only.
        Errno::check(unsafe { ffi::rte_eth_dev_default_mac_addr_set(self.id().0, &mut mac) })
    }

    pub(super) fn set_link(&self, up: bool) -> Result<i32, Errno> {
        let set = if up { ffi::rte_eth_dev_set_link_up } else { ffi::rte_eth_dev_set_link_down };
        // SAFETY: the port is configured and started.
        Errno::check(unsafe { set(self.id().0) })
    }

    pub(super) fn promiscuous(&self) -> Result<i32, Errno> {
        // SAFETY: the port is configured.
        Errno::check(unsafe { ffi::rte_eth_promiscuous_enable(self.id().0) })
    }

    pub(super) fn allmulticast(&self) -> Result<i32, Errno> {
        // SAFETY: the port is configured.
        Errno::check(unsafe { ffi::rte_eth_allmulticast_enable(self.id().0) })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let id = self.id().0;
        // SAFETY: the port was claimed by self, and no queue polls it: each holds self.
        unsafe {
            if self.started {
                ffi::rte_eth_dev_stop(id);
            }
            ffi::rte_eth_dev_close(id);
        }
    }
}

/// The only right to configure and close a port; given back on drop.
#[derive(Debug)]
pub(super) struct Claim(PortId);

impl Claim {
    pub(super) fn take(id: PortId) -> Option<Self> {
        let taken = TAKEN.get(usize::from(id.0))?.swap(true, Ordering::Acquire);
        (!taken).then_some(Self(id))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        TAKEN[usize::from(self.0.0)].store(false, Ordering::Release);
    }
}

static TAKEN: [AtomicBool; ffi::RTE_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; ffi::RTE_MAX_ETHPORTS as usize];
