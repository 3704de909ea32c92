//! Ports: found by name, configured, started, and closed when nothing uses them any more.
//!
//! A [`Port`] is the control side (counters, link, addresses) and stays with the control core; its
//! queues go to their lcores. Port and queues share one claim on the device: when the last of them
//! drops, the device is stopped and closed. A closed virtual device is gone until the next start of
//! the process.
//!
//! What a driver lacks is an error where packets would suffer (queues, MTU range, frame size), and
//! reported by [`Port::unsupported`] where a gateway can do without.

mod error;
mod offloads;
mod opened;
mod rss;

use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::sync::Arc;

use crate::eal::Running;
use crate::errno::Errno;
use crate::fakenic;
use crate::ffi;
use crate::mempool::{HEADROOM, Mempool};
use crate::queue::{RxQueue, TxQueue};

pub use error::{PortError, Side};
pub use offloads::{Offloading, Offloads};
use opened::Claim;
pub(crate) use opened::Opened;
use rss::Asked;
pub use rss::{FamilyFunctions, HashFunctions, Hashed, Rss};

/// DPDK's number of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// What a port is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Receive queues, at least 1. With more, the driver spreads by RSS if it can; [`Port::rss`]
    /// tells how.
    pub rx_queues: u16,
    /// Transmit queues, at least 1.
    pub tx_queues: u16,
    /// Descriptors of a receive queue; brought into the driver's limits.
    pub rx_desc: u16,
    /// Descriptors of a transmit queue; brought into the driver's limits.
    pub tx_desc: u16,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Receive frames to any address.
    pub promiscuous: bool,
    /// The port's address; `None` leaves the driver's.
    pub mac: Option<[u8; 6]>,
    /// The key of RSS, repeated or cut to the length of the device's keys; `None` leaves the
    /// driver's.
    pub rss_key: Option<Vec<u8>>,
    /// The redirection table of RSS, repeated or cut to the size of the device's table; `None`
    /// lets the queues take turns.
    pub rss_reta: Option<Vec<u16>>,
    /// What the device is to do by itself, if it can.
    pub offloads: Offloads,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self {
            rx_queues: 1,
            tx_queues: 1,
            rx_desc: 1024,
            tx_desc: 1024,
            mtu: 1500,
            promiscuous: false,
            mac: None,
            rss_key: None,
            rss_reta: None,
            offloads: Offloads::default(),
        }
    }
}

/// What a device can do, as its driver tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// The device's name.
    pub device: String,
    /// The driver's name.
    pub driver: String,
    /// DPDK's number.
    pub id: PortId,
    /// Its NUMA node, where known.
    pub socket: Option<u32>,
    /// Most receive queues.
    pub max_rx_queues: u16,
    /// Most transmit queues.
    pub max_tx_queues: u16,
    /// Smallest MTU in bytes.
    pub min_mtu: u16,
    /// Largest MTU in bytes.
    pub max_mtu: u16,
    /// Whether a received frame may fill several segments.
    pub scatter: bool,
    /// Whether packets of several segments are sent as they are.
    pub multi_segs: bool,
    /// Whether it spreads IP, TCP or UDP over queues by a hash (RSS).
    pub rss: bool,
}

impl PortInfo {
    /// Asks for a device, before it is configured or after. `device` is its name or the whole vdev
    /// string, of which the part before the first comma is the name.
    ///
    /// # Errors
    /// [`PortError::NoDevice`] if there is none of that name: it did not come up.
    pub fn of(device: &str) -> Result<Self, PortError> {
        let _running = Running::current().ok_or(PortError::NoEal)?;
        Ok(describe(device)?.0)
    }
}

/// What the driver lacks of what was asked: not set, and the port works without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unsupported {
    /// Setting the MTU.
    pub mtu: bool,
    /// Setting the address.
    pub mac: bool,
    /// Promiscuous mode.
    pub promiscuous: bool,
    /// Receiving all multicast, which IPv6 neighbour discovery needs.
    pub allmulticast: bool,
    /// Using the RSS key asked for: [`Port::rss`] tells the one in use.
    pub rss_key: bool,
    /// Using the redirection table asked for: [`Port::rss`] tells the one in use.
    pub rss_reta: bool,
}

/// A driver's counters since the start of the port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Packets received.
    pub ipackets: u64,
    /// Packets sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Packets lost because a receive queue was full.
    pub imissed: u64,
    /// Packets received with errors.
    pub ierrors: u64,
    /// Packets not sent because of errors.
    pub oerrors: u64,
    /// Packets lost because the pool was empty.
    pub rx_nombuf: u64,
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Mbit/s, where known.
    pub speed_mbps: Option<u32>,
    /// Whether it is full duplex.
    pub full_duplex: bool,
}

/// A started port: the side that counts and asks. Send but not Sync.
#[derive(Debug)]
pub struct Port {
    opened: Arc<Opened>,
    capabilities: PortInfo,
    unsupported: Unsupported,
    offloading: Offloading,
    rss: Option<Rss>,
    queues: (u16, u16),
    descriptors: (u16, u16),
    one_thread: PhantomData<Cell<()>>,
}

impl Port {
    /// Configures and starts a device. `device` is as in [`PortInfo::of`]; frames are received into
    /// mbufs of `pool`. The queues come in the order of their numbers.
    ///
    /// # Errors
    /// [`PortError`], which names the device. A device that fails after its limits were checked is
    /// closed.
    pub fn configure(
        device: &str,
        config: &PortConfig,
        pool: &Mempool,
    ) -> Result<(Self, Vec<RxQueue>, Vec<TxQueue>), PortError> {
        let running = Running::current().ok_or(PortError::NoEal)?;
        let (capabilities, raw_info) = describe(device)?;
        let device = capabilities.device.as_str();
        let claim = Claim::take(capabilities.id)
            .ok_or_else(|| PortError::Taken { device: device.to_owned() })?;
        let scatter = check(config, &capabilities, pool)?;

        let mut opened = Opened::new(claim, pool, running);
        let call = |call, result: Result<i32, Errno>| {
            let failed = |errno| PortError::Call { device: device.to_owned(), call, errno };
            result.map(drop).map_err(failed)
        };
        let wanted = config.offloads.of_driver(&capabilities.driver);
        let offloads = offloads::choose(wanted, scatter, &raw_info);
        let asked = Asked::of(config, &raw_info);
        call("configure", opened.configure(config, asked.as_ref(), offloads))?;
        let mut descriptors = (config.rx_desc, config.tx_desc);
        call("adjust descriptors", opened.adjust(&mut descriptors))?;
        call("set up receive queues", opened.rx_queues(config.rx_queues, descriptors.0, pool))?;
        call("set up transmit queues", opened.tx_queues(config.tx_queues, descriptors.1))?;
        // Some drivers take an MTU only before the start, none only after it.
        let mut unsupported = Unsupported::default();
        call("set MTU", tolerate(opened.set_mtu(config.mtu), &mut unsupported.mtu))?;
        call("start", opened.start())?;
        if let Some(mac) = config.mac {
            call("set MAC address", tolerate(opened.set_mac(mac), &mut unsupported.mac))?;
        }
        if config.promiscuous {
            let asked = opened.promiscuous();
            call("set promiscuous", tolerate(asked, &mut unsupported.promiscuous))?;
        }
        unsupported.allmulticast = opened.allmulticast().is_err();
        let rss = asked.as_ref().and_then(|asked| asked.set_up(&opened));
        if let (Some(asked), Some(rss)) = (&asked, &rss) {
            (unsupported.rss_key, unsupported.rss_reta) = asked.differs(rss);
        }

        let driver = capabilities.driver.as_str();
        let named = SCATTERING.contains(&driver) || fakenic::is_fake(&capabilities.device);
        let scatters = scatter && named;
        let offloading = Offloading::from_bits(offloads, scatters, GATHERING.contains(&driver));
        let opened = Arc::new(opened);
        let rx = (0..config.rx_queues).map(|queue| RxQueue::new(&opened, queue)).collect();
        let only = offloading.fast_free.then_some(pool);
        let tx = |queue| TxQueue::new(&opened, queue, offloading.chains, only);
        let tx = (0..config.tx_queues).map(tx).collect();
        let port = Self {
            opened,
            capabilities,
            unsupported,
            offloading,
            rss,
            queues: (config.rx_queues, config.tx_queues),
            descriptors,
            one_thread: PhantomData,
        };
        Ok((port, rx, tx))
    }

    pub(crate) fn opened(&self) -> Arc<Opened> {
        Arc::clone(&self.opened)
    }

    /// DPDK's number of the port.
    pub fn id(&self) -> PortId {
        self.opened.id()
    }

    /// The device's name and what it can do.
    pub fn info(&self) -> &PortInfo {
        &self.capabilities
    }

    /// What was asked and the driver cannot do.
    pub fn unsupported(&self) -> Unsupported {
        self.unsupported
    }

    /// What the device does by itself.
    pub fn offloading(&self) -> Offloading {
        self.offloading
    }

    /// How the device spreads over its receive queues, as it told after the start. `None` with one
    /// queue, and for a device that has no RSS or does not tell: it may use any queue for anything.
    pub fn rss(&self) -> Option<&Rss> {
        self.rss.as_ref()
    }

    /// Receive queues and transmit queues.
    pub fn queues(&self) -> (u16, u16) {
        self.queues
    }

    /// Descriptors of a receive and of a transmit queue, as the driver's limits left them.
    pub fn descriptors(&self) -> (u16, u16) {
        self.descriptors
    }

    /// The driver's counters; `None` if it keeps none.
    pub fn stats(&self) -> Option<PortStats> {
        let mut raw = ffi::rte_eth_stats::default();
        // SAFETY: the port is open; the struct is written whole.
        let returned = unsafe { ffi::rte_eth_stats_get(self.id().0, &mut raw) };
        Errno::check(returned).ok()?;
        Some(PortStats {
            ipackets: raw.ipackets,
            opackets: raw.opackets,
            ibytes: raw.ibytes,
            obytes: raw.obytes,
            imissed: raw.imissed,
            ierrors: raw.ierrors,
            oerrors: raw.oerrors,
            rx_nombuf: raw.rx_nombuf,
        })
    }

    /// The link as the driver last saw it, without waiting; `None` if it cannot tell. To be polled:
    /// interrupts for changes are not asked for, as few drivers have them and the control core
    /// looks after many things by the second anyway.
    pub fn link(&self) -> Option<Link> {
        const UNKNOWN: u32 = u32::MAX;
        let mut raw = ffi::rte_eth_link::default();
        // SAFETY: the port is open; the struct is written whole.
        let returned = unsafe { ffi::rte_eth_link_get_nowait(self.id().0, &mut raw) };
        Errno::check(returned).ok()?;
        Some(Link {
            up: raw.link_status() == 1 && !fakenic::is_unplugged(self.id()),
            speed_mbps: (raw.link_speed != UNKNOWN).then_some(raw.link_speed),
            full_duplex: raw.link_duplex() == 1,
        })
    }

    /// Takes the link up or down, as `ip link set` does. Where it goes down the other end sees it,
    /// if the driver means it.
    ///
    /// # Errors
    /// [`PortError::Call`], with ENOTSUP from a driver that cannot.
    pub fn set_link(&self, up: bool) -> Result<(), PortError> {
        let call = if up { "take its link up" } else { "take its link down" };
        let failed = |errno| {
            let device = self.capabilities.device.clone();
            PortError::Call { device, call, errno }
        };
        self.opened.set_link(up).map(drop).map_err(failed)
    }

    /// The port's address; `None` if the driver has none.
    pub fn mac(&self) -> Option<[u8; 6]> {
        let mut raw = ffi::rte_ether_addr::default();
        // SAFETY: the port is open; the six bytes are written whole.
        let returned = unsafe { ffi::rte_eth_macaddr_get(self.id().0, &mut raw) };
        Errno::check(returned).ok().map(|_| raw.addr_bytes)
    }
}

/// Bytes of a frame around its IP packet: Ethernet header and one 802.1Q tag.
const FRAME_OVERHEAD: u32 = 14 + 4;
/// Bytes that DPDK reckons around an IP packet where a driver does not tell.
const HEADER_AND_CRC: u32 = 14 + 4;

/// Drivers that take packets of several segments without saying so: one looks at the first segment
/// at most, one copies all segments together.
const GATHERING: &[&str] = &["net_null", "net_pcap"];
/// Drivers that receive into several segments without saying so.
const SCATTERING: &[&str] = &["net_pcap", "net_memif", "net_ring"];

/// Finds a device by name. EAL is running.
fn describe(device: &str) -> Result<(PortInfo, ffi::rte_eth_dev_info), PortError> {
    let device = device.split(',').next().unwrap_or(device).to_owned();
    let Ok(name) = CString::new(device.as_str()) else {
        return Err(PortError::NoDevice { device });
    };
    let mut id = 0;
    let mut raw = ffi::rte_eth_dev_info::default();
    // SAFETY: EAL is initialised; the name is NUL-terminated, the number is written on success.
    if unsafe { ffi::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) } != 0 {
        return Err(PortError::NoDevice { device });
    }
    // SAFETY: the id was just given by DPDK; the struct is written whole.
    if let Err(errno) = Errno::check(unsafe { ffi::rte_eth_dev_info_get(id, &mut raw) }) {
        return Err(PortError::Call { device, call: "describe itself", errno });
    }
    // SAFETY: drivers set their name, a static NUL-terminated string, in every answer.
    let driver = unsafe { CStr::from_ptr(raw.driver_name) }.to_string_lossy().into_owned();
    // SAFETY: the id is valid.
    let socket = unsafe { ffi::rte_eth_dev_socket_id(id) };
    let capabilities = PortInfo {
        id: PortId(id),
        socket: u32::try_from(socket).ok(),
        max_rx_queues: raw.max_rx_queues,
        max_tx_queues: raw.max_tx_queues,
        min_mtu: raw.min_mtu,
        max_mtu: max_mtu(&raw),
        scatter: raw.rx_offload_capa & ffi::shim_rx_offload_scatter != 0
            || SCATTERING.contains(&driver.as_str())
            || fakenic::is_fake(&device),
        multi_segs: raw.tx_offload_capa & ffi::shim_tx_offload_multi_segs != 0
            || GATHERING.contains(&driver.as_str()),
        rss: raw.flow_type_rss_offloads & ffi::shim_rss_ip_tcp_udp != 0,
        device,
        driver,
    };
    Ok((capabilities, raw))
}

/// The largest MTU that DPDK lets pass: drivers state a frame size too, and the smaller one counts
/// (`net_tap`: 1504).
fn max_mtu(raw: &ffi::rte_eth_dev_info) -> u16 {
    let stated = u32::from(raw.max_mtu);
    if raw.max_mtu != u16::MAX && raw.max_rx_pktlen > stated {
        // The difference is the driver's own idea of a header.
        return raw.max_mtu;
    }
    let fits = raw.max_rx_pktlen.saturating_sub(HEADER_AND_CRC);
    u16::try_from(fits).unwrap_or(u16::MAX).min(raw.max_mtu)
}

/// Checks what is asked against the device's limits; whether frames need several segments.
fn check(config: &PortConfig, info: &PortInfo, pool: &Mempool) -> Result<bool, PortError> {
    let device = || info.device.clone();
    let queues = |side, asked: u16, max: u16| {
        if (1..=max).contains(&asked) {
            return Ok(());
        }
        Err(PortError::Queues { device: device(), side, asked, max })
    };
    queues(Side::Rx, config.rx_queues, info.max_rx_queues)?;
    queues(Side::Tx, config.tx_queues, info.max_tx_queues)?;
    if config.rss_key.as_ref().is_some_and(Vec::is_empty) {
        return Err(PortError::RssKey { device: device() });
    }
    let no_queue = |reta: &Vec<u16>| reta.is_empty() || reta.iter().any(|q| *q >= config.rx_queues);
    if config.rss_reta.as_ref().is_some_and(no_queue) {
        return Err(PortError::RssTable { device: device(), queues: config.rx_queues });
    }
    let (asked, min, max) = (config.mtu, info.min_mtu, info.max_mtu);
    if !(min..=max).contains(&asked) {
        return Err(PortError::Mtu { device: device(), asked, min, max });
    }
    let frame = u32::from(config.mtu) + FRAME_OVERHEAD;
    let room = u32::from(pool.data_room().saturating_sub(HEADROOM));
    if frame > room && !info.scatter {
        return Err(PortError::FrameTooBig { device: device(), frame, room });
    }
    Ok(frame > room)
}

/// Turns "not supported" into a flag.
fn tolerate(result: Result<i32, Errno>, unsupported: &mut bool) -> Result<i32, Errno> {
    match result {
        Err(errno) if errno.is_unsupported() => {
            *unsupported = true;
            Ok(0)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::Burst;
    use crate::rig;
    use crate::testport::TestPort;

    #[test]
    fn a_device_that_did_not_come_up_is_named() {
        let _eal = rig::eal();
        let pool = Mempool::create("nodev", 7, 0, 2176, None).unwrap();
        let config = PortConfig::default();
        for device in ["net_af_packet0,iface=nosuch", "net_nothing7", "a\0b", ""] {
            let error = Port::configure(device, &config, &pool).unwrap_err();
            let device = device.split(',').next().unwrap().to_owned();
            assert_eq!(error, PortError::NoDevice { device: device.clone() });
            assert_eq!(error.to_string(), format!("device {device} did not come up"));
        }
    }

    #[test]
    fn a_null_port_receives_and_sends() {
        let _eal = rig::eal();
        let pool = Mempool::create("null", 255, 0, 2176, None).unwrap();
        let config = PortConfig { rx_queues: 2, tx_queues: 2, ..PortConfig::default() };
        let device = "net_null1,size=300,copy=1";
        let (port, mut rx, mut tx) = Port::configure(device, &config, &pool).unwrap();
        assert_eq!((rx.len(), tx.len()), (2, 2));
        assert_eq!((rx[1].index(), tx[1].index(), rx[1].port()), (1, 1, port.id()));
        assert_eq!(
            (port.info().device.as_str(), port.info().driver.as_str()),
            ("net_null1", "net_null")
        );
        assert!(port.link().unwrap().up);
        let mut burst = Burst::new();
        assert_eq!(rx[1].burst_at_most(&mut burst, 5), 5);
        assert_eq!(rx[1].burst(&mut burst), 59);
        assert_eq!(rx[1].burst(&mut burst), 0, "no room left");
        assert!(burst.iter().all(|mbuf| mbuf.pkt_len() == 300 && mbuf.port() == Some(port.id())));
        assert_eq!(tx[1].burst(&mut burst), 64);
        assert!(burst.is_empty());
        let stats = port.stats().unwrap();
        assert_eq!((stats.ipackets, stats.opackets, stats.imissed), (64, 64, 0));
        drop((port, rx, tx));
        assert_eq!(pool.avail(), 255);
        assert!(matches!(PortInfo::of(device), Err(PortError::NoDevice { .. })), "closed");
    }

    #[test]
    fn an_empty_pool_receives_nothing() {
        let _eal = rig::eal();
        let pool = Mempool::create("dry", 7, 0, 2176, None).unwrap();
        let (_port, mut rx, _tx) =
            Port::configure("net_null0", &PortConfig::default(), &pool).unwrap();
        let held: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!(rx[0].burst(&mut Burst::new()), 0);
        drop(held);
        assert_eq!(rx[0].burst_at_most(&mut Burst::new(), 4), 4);
    }

    #[test]
    fn limits_are_checked_and_leave_the_device_unused() {
        let _eal = rig::eal();
        let pool = Mempool::create("limits", 255, 0, 2176, None).unwrap();
        let usual = PortConfig::default();
        let info = PortInfo::of("net_null2").unwrap();
        let refuse = |config: PortConfig| Port::configure("net_null2", &config, &pool).unwrap_err();
        let device = || "net_null2".to_owned();
        for (rx_queues, tx_queues, side, asked, max) in [
            (info.max_rx_queues + 1, 1, Side::Rx, info.max_rx_queues + 1, info.max_rx_queues),
            (0, 1, Side::Rx, 0, info.max_rx_queues),
            (1, info.max_tx_queues + 1, Side::Tx, info.max_tx_queues + 1, info.max_tx_queues),
        ] {
            let error = refuse(PortConfig { rx_queues, tx_queues, ..usual.clone() });
            assert_eq!(error, PortError::Queues { device: device(), side, asked, max });
        }
        let error = refuse(PortConfig { mtu: 20, ..usual.clone() });
        let (min, max) = (info.min_mtu, info.max_mtu);
        assert_eq!(error, PortError::Mtu { device: device(), asked: 20, min, max });
        assert!(!info.scatter, "the null driver fills one segment");
        let error = refuse(PortConfig { mtu: 9000, ..usual.clone() });
        assert_eq!(error, PortError::FrameTooBig { device: device(), frame: 9018, room: 2048 });

        let held = Port::configure("net_null2", &usual, &pool).unwrap();
        assert_eq!(refuse(usual.clone()), PortError::Taken { device: device() });
        assert_eq!(held.0.info(), &info);
    }

    #[test]
    fn a_driver_does_what_it_can() {
        let _eal = rig::eal();
        let pool = Mempool::create("can", 255, 0, 2176, None).unwrap();
        let mac = Some([2, 0, 0, 0, 0x10, 1]);
        let config = PortConfig { mac, promiscuous: true, mtu: 1400, ..Default::default() };
        let (port, ..) = Port::configure("net_null3", &config, &pool).unwrap();
        assert_eq!((port.unsupported(), port.mac()), (Unsupported::default(), mac));
        assert_eq!(port.descriptors(), (1024, 1024));
    }

    #[test]
    fn what_a_driver_cannot_do_is_reported() {
        let _eal = rig::eal();
        let pool = Mempool::create("cannot", 255, 0, 2176, None).unwrap();
        let wire = TestPort::create("cannot", 1, 16).unwrap();
        let mac = [2, 0, 0, 0, 0x10, 1];
        let config = PortConfig { mac: Some(mac), ..PortConfig::default() };
        let (port, ..) = Port::configure(wire.device(), &config, &pool).unwrap();
        assert_eq!(port.unsupported(), Unsupported { mtu: true, mac: true, ..Default::default() });
        assert_ne!(port.mac(), Some(mac));
    }

    #[test]
    fn a_link_goes_down_and_up_where_the_driver_can() {
        let _eal = rig::eal();
        let pool = Mempool::create("updown", 63, 0, 2176, None).unwrap();
        let wire = TestPort::create("updown", 1, 16).unwrap();
        let (port, ..) = Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        for up in [false, true] {
            port.set_link(up).unwrap();
            assert_eq!(port.link().unwrap().up, up);
        }
        let nic = fakenic::FakeNic::create("updown").unwrap();
        let (port, ..) = Port::configure(nic.device(), &PortConfig::default(), &pool).unwrap();
        let error = port.set_link(false).unwrap_err();
        let (device, call, errno) = (nic.device().to_owned(), "take its link down", Errno(95));
        assert_eq!(error, PortError::Call { device, call, errno });
    }

    #[test]
    fn queues_outlive_the_port_they_came_from() {
        let _eal = rig::eal();
        let pool = Mempool::create("outlive", 63, 0, 2176, None).unwrap();
        let wire = TestPort::create("outlive", 1, 32).unwrap();
        let (port, mut rx, tx) =
            Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        drop((port, tx));
        wire.put(0, rig::packet(&pool, b"late")).unwrap();
        let mut burst = Burst::new();
        assert_eq!(rx[0].burst(&mut burst), 1);
        assert_eq!(burst[0].head(), b"late");
    }
}
