//! A port that behaves as a NIC, for tests: it takes a key, a redirection table, an MTU and an
//! address, spreads what arrives over its queues by the Toeplitz hash, and has a link to pull.
//!
//! Behind it is DPDK's null device, whose driver keeps key and table as real drivers do but never
//! receives. What [`FakeNic::deliver`] is given is hashed by DPDK's own software hash, under the
//! key, table and functions that the driver then reports, and comes out of that queue's receive
//! call; what the port sends is taken out with [`FakeNic::take`]. To the packet path it is a port
//! like any other, found by [`FakeNic::device`].
//!
//! ```text
//! create → Port::configure(nic.device(), …) → nic.plug(&port) → deliver, take, set_link
//! ```
//!
//! Queues are rings of [`DEPTH`] packets. The link is up when plugged; while it is down nothing
//! arrives and nothing is sent. Rings and a small pool stay until the process ends, and EAL with
//! them.

use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::burst::{BURST_MAX, Burst};
use crate::eal::{Running, lock};
use crate::errno::Errno;
use crate::ffi;
use crate::mbuf::{Checksums, Mbuf};
use crate::mempool::{HEADROOM, Mempool, PoolError};
use crate::port::{FamilyFunctions, Hashed, Opened, Port, PortId, PortInfo, Rss};
use crate::testport::{pop, ring};

/// Packets in flight per queue and direction.
pub const DEPTH: u32 = 1024;

/// What the names of these devices begin with.
const PREFIX: &str = "net_null_";

/// Ethernet header and one 802.1Q tag.
const FRAME_OVERHEAD: usize = 14 + 4;

/// A NIC's far end. Any thread may use it.
#[derive(Debug)]
pub struct FakeNic {
    name: String,
    plug: Mutex<Option<Plug>>,
    _running: Arc<Running>,
}

impl FakeNic {
    /// Makes the device `net_null_NAME`; `name` is short (under 12 bytes) and new to the process.
    ///
    /// # Errors
    /// [`FakeNicError`]: EAL is not running, or refused.
    pub fn create(name: &str) -> Result<Self, FakeNicError> {
        let running = Running::current().ok_or(FakeNicError::NoEal)?;
        let name = format!("{PREFIX}{name}");
        let refused = |errno| FakeNicError::Dpdk { device: name.clone(), errno };
        let c_name = CString::new(name.as_str()).map_err(|_| refused(Errno(EINVAL)))?;
        // DPDK would give the device that is there.
        if PortInfo::of(&name).is_ok() {
            return Err(refused(Errno(EEXIST)));
        }
        // SAFETY: EAL is initialised; the three strings are NUL-terminated and copied.
        Errno::check(unsafe {
            ffi::rte_eal_hotplug_add(c"vdev".as_ptr(), c_name.as_ptr(), c"no-rx=1".as_ptr())
        })
        .map_err(refused)?;
        Ok(Self { name, plug: Mutex::new(None), _running: running })
    }

    /// The name to configure the port by.
    pub fn device(&self) -> &str {
        &self.name
    }

    /// Connects the far end to the port that was configured on this device; its link is up then.
    /// The port stays open until this drops.
    ///
    /// # Errors
    /// [`FakeNicError`]: another port, plugged already, or DPDK has no memory.
    pub fn plug(&self, port: &Port) -> Result<(), FakeNicError> {
        if port.info().device != self.name {
            return Err(FakeNicError::OtherPort { device: self.name.clone() });
        }
        let mut plug = lock(&self.plug);
        if plug.is_some() {
            return Err(FakeNicError::Plugged { device: self.name.clone() });
        }
        *plug = Some(Plug::new(&self.name, port)?);
        Ok(())
    }

    /// A frame arrives: into the queue that the hash names, which is given back.
    ///
    /// # Errors
    /// Gives the frame back if the queue is full, the link down or nothing plugged.
    pub fn deliver(&self, frame: Mbuf) -> Result<u16, Mbuf> {
        self.deliver_marked(frame, Checksums::default())
    }

    /// As [`Self::deliver`], by a NIC that says so about the frame's checksums.
    ///
    /// # Errors
    /// As of [`Self::deliver`].
    pub fn deliver_marked(&self, mut frame: Mbuf, found: Checksums) -> Result<u16, Mbuf> {
        let plug = lock(&self.plug);
        let Some(plug) = plug.as_ref().filter(|plug| !is_unplugged(plug.opened.id())) else {
            return Err(frame);
        };
        // The key and the table are the driver's of this moment.
        let queue = plug.opened.rss().map_or(0, |rss| queue(&rss, frame.head()));
        let Some(end) = plug.rx.get(usize::from(queue)) else { return Err(frame) };
        frame.set_checksums(found);
        let mut burst = Burst::new();
        burst.push(frame)?;
        // SAFETY: the ring lives until EAL ends; the slot holds an owned mbuf, which the ring takes
        // if it says 1.
        unsafe {
            let put = ffi::shim_ring_push(end.ring.as_ptr(), burst.raw(), 1);
            burst.forget_front(put as usize);
        }
        burst.pop().map_or(Ok(queue), Err)
    }

    /// A frame arrives as bytes: into mbufs of the port's pool, as many as it needs. The queue that
    /// the hash names; `None` if it was lost: too long for the MTU, no mbuf free, the queue full,
    /// the link down or nothing plugged.
    pub fn arrive(&self, frame: &[u8]) -> Option<u16> {
        self.arrive_marked(frame, Checksums::default())
    }

    /// As [`Self::arrive`], by a NIC that says so about the frame's checksums.
    pub fn arrive_marked(&self, frame: &[u8], found: Checksums) -> Option<u16> {
        let filled = {
            let plug = lock(&self.plug);
            let opened = &plug.as_ref()?.opened;
            let longest = usize::from(opened.mtu().ok()?) + FRAME_OVERHEAD;
            fill(opened.pool(), frame).filter(|_| frame.len() <= longest)?
        };
        self.deliver_marked(filled, found).ok()
    }

    /// Takes the oldest frame that the port sent on a queue.
    pub fn take(&self, queue: u16) -> Option<Mbuf> {
        let mut raw = std::ptr::null_mut();
        let plug = lock(&self.plug);
        let ring = plug.as_ref()?.tx.get(usize::from(queue))?.ring;
        // SAFETY: the ring is alive; there is room for one pointer.
        unsafe { ffi::shim_ring_pop(ring.as_ptr(), &mut raw, 1) };
        // SAFETY: the ring held mbufs that the port gave up; this one is out of it now.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Pulls the cable out or puts it back; [`Port::link`] tells. Frames that arrived before and
    /// were not received stay for later.
    pub fn set_link(&self, up: bool) {
        if let Some(plug) = lock(&self.plug).as_ref() {
            set_unplugged(plug.opened.id(), !up);
        }
    }
}

/// Why there is no NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FakeNicError {
    /// EAL is not running.
    NoEal,
    /// The port is of another device.
    OtherPort {
        /// This device.
        device: String,
    },
    /// A port was plugged before.
    Plugged {
        /// The device.
        device: String,
    },
    /// No memory for the buffers that the driver frees in place of those sent.
    Pool(PoolError),
    /// DPDK refused.
    Dpdk {
        /// The device.
        device: String,
        /// EEXIST for a name used before, ENOMEM, …
        errno: Errno,
    },
}

impl fmt::Display for FakeNicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEal => write!(f, "EAL is not running"),
            Self::OtherPort { device } => write!(f, "the port is not of {device}"),
            Self::Plugged { device } => write!(f, "{device} is plugged already"),
            Self::Pool(error) => error.fmt(f),
            Self::Dpdk { device, errno } => write!(f, "no device {device}: {errno}"),
        }
    }
}

impl std::error::Error for FakeNicError {}

/// Whether a device is one of these: it receives chains, which the null device does not.
pub(crate) fn is_fake(device: &str) -> bool {
    device.starts_with(PREFIX)
}

/// Bytes in as many mbufs as they need.
fn fill(pool: &Mempool, frame: &[u8]) -> Option<Mbuf> {
    let room = usize::from(pool.data_room().checked_sub(HEADROOM)?);
    let mut segments = frame.chunks(room.max(1)).map(|bytes| {
        let mut segment = pool.alloc()?;
        segment.append(bytes.len())?.copy_from_slice(bytes);
        Some(segment)
    });
    let mut first = segments.next()??;
    for segment in segments {
        first.chain(segment?).ok()?;
    }
    Some(first)
}

const EINVAL: i32 = 22;
const EEXIST: i32 = 17;

/// The end of a queue that its callback works on.
#[derive(Debug)]
struct End {
    ring: NonNull<ffi::rte_ring>,
    port: PortId,
    /// Empty mbufs for the driver to free.
    blanks: Mempool,
}

/// What connects a port to its far end.
#[derive(Debug)]
struct Plug {
    opened: Arc<Opened>,
    rx: Vec<&'static End>,
    tx: Vec<&'static End>,
    rx_calls: BTreeMap<u16, Call>,
    tx_calls: BTreeMap<u16, Call>,
}

/// A callback that DPDK was given, to take it away by.
#[derive(Debug, Clone, Copy)]
struct Call(*const ffi::rte_eth_rxtx_callback);

// SAFETY: an End's ring is multi-producer and multi-consumer and outlives all; the pointers of
// Call are only passed back to DPDK, which takes them from any thread.
unsafe impl Send for Plug {}
// SAFETY: the same; a shared Plug only uses rings.
unsafe impl Sync for End {}

impl Plug {
    fn new(name: &str, port: &Port) -> Result<Self, FakeNicError> {
        let failed = |errno| FakeNicError::Dpdk { device: name.to_owned(), errno };
        let blanks = format!("{name}_blanks");
        let blanks = Mempool::create(&blanks, 255, 0, 128, None).map_err(FakeNicError::Pool)?;
        let opened = port.opened();
        let (id, (rx, tx)) = (opened.id(), port.queues());
        let end = |way: &str, queue: u16| {
            let ring = ring(&format!("{name}_{way}{queue}"), DEPTH).map_err(failed)?;
            let end = End { ring, port: id, blanks: blanks.clone() };
            // A thread may be within a callback while it is taken away: ends are never freed.
            Ok::<&'static End, _>(Box::leak(Box::new(end)))
        };
        let mut plug = Self {
            rx: (0..rx).map(|queue| end("in", queue)).collect::<Result<_, _>>()?,
            tx: (0..tx).map(|queue| end("out", queue)).collect::<Result<_, _>>()?,
            rx_calls: BTreeMap::new(),
            tx_calls: BTreeMap::new(),
            opened,
        };
        for (queue, end) in (0..).zip(&plug.rx) {
            let user = std::ptr::from_ref::<End>(end).cast_mut().cast();
            // SAFETY: the port is open and the callback is of the right type; `user` is never
            // freed. A queue that there is not is refused.
            let call = unsafe { ffi::rte_eth_add_rx_callback(id.0, queue, Some(receive), user) };
            (!call.is_null()).then_some(()).ok_or_else(|| failed(Errno::last()))?;
            plug.rx_calls.insert(queue, Call(call));
        }
        for (queue, end) in (0..).zip(&plug.tx) {
            let user = std::ptr::from_ref::<End>(end).cast_mut().cast();
            // SAFETY: as above.
            let call = unsafe { ffi::rte_eth_add_tx_callback(id.0, queue, Some(send), user) };
            (!call.is_null()).then_some(()).ok_or_else(|| failed(Errno::last()))?;
            plug.tx_calls.insert(queue, Call(call));
        }
        set_unplugged(id, false);
        Ok(plug)
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let id = self.opened.id();
        // SAFETY: the port is open as long as self holds it; each callback was added by new and is
        // taken away once. Whoever is within one still finds its End.
        unsafe {
            for (queue, call) in &self.rx_calls {
                ffi::rte_eth_remove_rx_callback(id.0, *queue, call.0);
            }
            for (queue, call) in &self.tx_calls {
                ffi::rte_eth_remove_tx_callback(id.0, *queue, call.0);
            }
        }
        set_unplugged(id, false);
        let mut burst = Burst::new();
        for end in self.rx.iter().chain(&self.tx) {
            while pop(end.ring, &mut burst) > 0 {
                burst.clear();
            }
        }
    }
}

/// After the driver received nothing: what arrived.
unsafe extern "C" fn receive(
    _port: u16,
    _queue: u16,
    mbufs: *mut *mut ffi::rte_mbuf,
    count: u16,
    room: u16,
    user: *mut c_void,
) -> u16 {
    // SAFETY: `user` is the End given with the callback, never freed.
    let end = unsafe { &*user.cast::<End>() };
    if is_unplugged(end.port) {
        return count;
    }
    // SAFETY: DPDK gives an array of `room` pointers of which `count` are used; the mbufs leave the
    // ring for it.
    unsafe {
        let free = mbufs.add(count.into());
        let got = ffi::shim_ring_pop(end.ring.as_ptr(), free, (room - count).into());
        for at in 0..got as usize {
            (**free.add(at)).port = end.port.0;
        }
        count + got as u16
    }
}

/// Before the driver sends: takes the frames out and gives it empty ones to free. Gives back how
/// many were taken; the others stay with who wanted to send them.
unsafe extern "C" fn send(
    _port: u16,
    _queue: u16,
    mbufs: *mut *mut ffi::rte_mbuf,
    count: u16,
    user: *mut c_void,
) -> u16 {
    // SAFETY: as in receive.
    let end = unsafe { &*user.cast::<End>() };
    let wanted = usize::from(count).min(BURST_MAX);
    let mut blanks = Burst::new();
    if is_unplugged(end.port) || !end.blanks.alloc_bulk(&mut blanks, wanted) {
        return 0;
    }
    // SAFETY: DPDK gives an array of `count` mbufs to send. The ring takes the first ones; their
    // places get as many blanks, which the driver frees.
    unsafe {
        let taken = ffi::shim_ring_push(end.ring.as_ptr(), mbufs, wanted as u32) as usize;
        mbufs.copy_from_nonoverlapping(blanks.raw(), taken);
        blanks.forget_front(taken);
        taken as u16
    }
}

static UNPLUGGED: [AtomicBool; ffi::RTE_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; ffi::RTE_MAX_ETHPORTS as usize];

/// Whether a test pulled the port's cable.
pub(crate) fn is_unplugged(port: PortId) -> bool {
    UNPLUGGED.get(usize::from(port.0)).is_some_and(|pulled| pulled.load(Ordering::Relaxed))
}

fn set_unplugged(port: PortId, pulled: bool) {
    if let Some(flag) = UNPLUGGED.get(usize::from(port.0)) {
        flag.store(pulled, Ordering::Relaxed);
    }
}

/// The queue of a frame, by the low bits of its hash. What has no hash goes to the first.
fn queue(rss: &Rss, frame: &[u8]) -> u16 {
    let hash = words(rss, frame).and_then(|words| toeplitz(&rss.key, &words));
    let entry = |hash: u32| rss.reta.get(hash as usize & (rss.reta.len().next_power_of_two() - 1));
    hash.and_then(entry).copied().unwrap_or(0)
}

/// The Toeplitz hash of words in host order, as DPDK computes it; `None` if the key is shorter than
/// the words and one more.
pub fn toeplitz(key: &[u8], words: &[u32]) -> Option<u32> {
    if key.len() < 4 * (words.len() + 1) {
        return None;
    }
    // DPDK reads both as words.
    let mut aligned: Vec<u32> = key
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let mut words = words.to_vec();
    // SAFETY: the key has a word more than there are words, as checked; nothing else is read.
    let hash = unsafe {
        ffi::shim_toeplitz(words.as_mut_ptr(), words.len() as u32, aligned.as_mut_ptr().cast())
    };
    Some(hash)
}

/// The words of a frame that are hashed; `None` if nothing is.
fn words(rss: &Rss, frame: &[u8]) -> Option<Vec<u32>> {
    const TAGS: [u16; 2] = [0x8100, 0x88a8];
    let short = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let mut at = 12;
    while TAGS.contains(&short(at)?) {
        at += 4;
    }
    let ip = at + 2;
    let byte = |at: usize| frame.get(ip + at).copied();
    let (kind, addresses, ports) = match short(at)? {
        0x0800 => {
            let fragment = short(ip + 6)? & 0x3fff != 0;
            let after = ip + 4 * usize::from(byte(0)? & 15);
            (kind(&rss.functions.v4, byte(9)?, fragment), ip + 12..ip + 20, after)
        }
        0x86dd => {
            const FRAGMENT: u8 = 44;
            let next = byte(6)?;
            (kind(&rss.functions.v6, next, next == FRAGMENT), ip + 8..ip + 40, ip + 40)
        }
        _ => return None,
    };
    let mut hashed = frame.get(addresses)?.to_vec();
    match kind {
        Hashed::Nothing => return None,
        Hashed::Addresses => {}
        Hashed::Ports => hashed.extend(frame.get(ports..ports + 4)?),
    }
    let word = |word: &[u8]| u32::from_be_bytes([word[0], word[1], word[2], word[3]]);
    Some(hashed.chunks_exact(4).map(word).collect())
}

fn kind(functions: &FamilyFunctions, protocol: u8, fragment: bool) -> Hashed {
    match protocol {
        _ if fragment => functions.fragments,
        6 => functions.tcp,
        17 => functions.udp,
        _ => functions.other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mbuf::Checksum;
    use crate::port::{Offloading, Offloads, PortConfig, PortError, Side};
    use crate::queue::{RxQueue, TxQueue};
    use crate::rig;

    const SYMMETRIC: [u8; 2] = [0x6d, 0x5a];

    fn plugged(
        name: &str,
        config: &PortConfig,
        pool: &Mempool,
    ) -> (FakeNic, Port, Vec<RxQueue>, Vec<TxQueue>) {
        let nic = FakeNic::create(name).unwrap();
        let (port, rx, tx) = Port::configure(nic.device(), config, pool).unwrap();
        nic.plug(&port).unwrap();
        (nic, port, rx, tx)
    }

    fn queues(queues: u16) -> PortConfig {
        PortConfig { rx_queues: queues, tx_queues: queues, ..PortConfig::default() }
    }

    /// A frame of IPv4 with what matters for the hash.
    fn frame(fragment: u16, protocol: u8, src: u32, dst: u32, ports: u32) -> Vec<u8> {
        let mut bytes = [&[2u8; 12][..], &[8, 0], &[0x45, 0, 0, 60, 0, 0]].concat();
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0]);
        bytes.extend([src.to_be_bytes(), dst.to_be_bytes(), ports.to_be_bytes()].concat());
        bytes.resize(74, 0);
        bytes
    }

    #[test]
    fn a_nic_uses_the_key_and_table_it_was_given() {
        let _eal = rig::eal();
        let pool = Mempool::create("nickey", 255, 0, 2176, None).unwrap();
        let config = PortConfig { rss_key: Some(SYMMETRIC.to_vec()), ..queues(3) };
        let (_nic, port, ..) = plugged("key", &config, &pool);
        let rss = port.rss().unwrap();
        assert_eq!(rss.key, SYMMETRIC.repeat(20));
        let turns: Vec<u16> = (0..rss.reta.len() as u16).map(|n| n % 3).collect();
        assert_eq!((rss.reta.len(), &rss.reta), (128, &turns));
        let (v4, v6) = (rss.functions.v4, rss.functions.v6);
        assert_eq!((v4.tcp, v4.udp, v6.udp), (Hashed::Ports, Hashed::Ports, Hashed::Ports));
        assert_eq!((v4.other, v6.fragments), (Hashed::Addresses, Hashed::Addresses));
        assert!(!port.unsupported().rss_key && !port.unsupported().rss_reta);

        let config = PortConfig { rss_reta: Some(vec![1, 1, 0]), ..queues(2) };
        let (_nic, port, ..) = plugged("reta", &config, &pool);
        assert_eq!(port.rss().unwrap().reta[..4], [1, 1, 0, 1]);
        assert!(!port.unsupported().rss_key, "the driver's own was asked for");
    }

    #[test]
    fn one_queue_needs_no_hash_and_some_devices_have_none() {
        let _eal = rig::eal();
        let pool = Mempool::create("nohash", 255, 0, 2176, None).unwrap();
        let (nic, port, mut rx, _tx) = plugged("single", &queues(1), &pool);
        assert_eq!((port.rss(), port.queues()), (None, (1, 1)));
        assert_eq!(nic.deliver(rig::packet(&pool, b"anything")).unwrap(), 0);
        assert_eq!(rx[0].burst(&mut Burst::new()), 1);
        let wire = crate::testport::TestPort::create("nohash", 2, 16).unwrap();
        let config = PortConfig { rss_key: Some(vec![1]), ..queues(2) };
        let (port, ..) = Port::configure(wire.device(), &config, &pool).unwrap();
        assert_eq!(port.rss(), None);
    }

    #[test]
    fn bad_keys_and_tables_are_refused() {
        let _eal = rig::eal();
        let pool = Mempool::create("badkey", 255, 0, 2176, None).unwrap();
        let nic = FakeNic::create("bad").unwrap();
        let device = || nic.device().to_owned();
        let refuse = |config| Port::configure(nic.device(), &config, &pool).unwrap_err();
        let config = PortConfig { rss_key: Some(vec![]), ..queues(2) };
        assert_eq!(refuse(config), PortError::RssKey { device: device() });
        for reta in [vec![], vec![0, 2]] {
            let error = refuse(PortConfig { rss_reta: Some(reta), ..queues(2) });
            assert_eq!(error, PortError::RssTable { device: device(), queues: 2 });
            assert!(error.to_string().contains("queues than 0 to 1"), "{error}");
        }
        let error = refuse(PortConfig { tx_queues: 2000, ..queues(2) });
        assert!(matches!(error, PortError::Queues { side: Side::Tx, asked: 2000, .. }));
        assert_eq!(nic.deliver(rig::packet(&pool, b"x")).unwrap_err().head(), b"x", "unplugged");
        assert_eq!(
            FakeNic::create("bad").unwrap_err(),
            FakeNicError::Dpdk { device: device(), errno: Errno(EEXIST) }
        );
    }

    #[test]
    fn frames_come_out_of_the_queue_their_hash_names() {
        let _eal = rig::eal();
        let pool = Mempool::create("nicspread", 1023, 0, 2176, None).unwrap();
        let config = PortConfig { rss_key: Some(SYMMETRIC.to_vec()), ..queues(4) };
        let (nic, port, mut rx, _tx) = plugged("spread", &config, &pool);
        let mut expected = [0usize; 4];
        for n in 0..200u32 {
            let (src, dst) = (0x0a00_0001 + n % 7, 0xcb00_7100 + n);
            let ports = n.wrapping_mul(0x9e37_79b9);
            let there = frame(0, 17, src, dst, ports);
            let back = frame(0, 17, dst, src, ports.rotate_left(16));
            let queue = nic.deliver(rig::packet(&pool, &there)).unwrap();
            assert_eq!(nic.deliver(rig::packet(&pool, &back)).unwrap(), queue, "symmetric");
            expected[usize::from(queue)] += 2;
        }
        assert!(expected.iter().all(|count| *count > 20), "{expected:?}");
        for (queue, expected) in rx.iter_mut().zip(expected) {
            let (mut burst, mut received) = (Burst::new(), 0);
            while queue.burst(&mut burst) > 0 {
                received += burst.len();
                assert!(burst.iter().all(|mbuf| mbuf.port() == Some(port.id())));
                burst.clear();
            }
            assert_eq!(received, expected);
        }
        assert_eq!(pool.avail(), 1023);
    }

    #[test]
    fn only_whole_tcp_and_udp_packets_have_their_ports_hashed() {
        let _eal = rig::eal();
        let pool = Mempool::create("nicl3", 255, 0, 2176, None).unwrap();
        let (nic, ..) = plugged("l3", &queues(16), &pool);
        let spread = |fragment, protocol| {
            let put = |n: u32| {
                let bytes = frame(fragment, protocol, 1, 2, n.wrapping_mul(0x9e37_79b9));
                nic.deliver(rig::packet(&pool, &bytes)).unwrap()
            };
            (0..12).map(put).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert!(spread(0, 6) > 3 && spread(0, 17) > 3);
        assert_eq!((spread(0, 1), spread(0x2000, 17), spread(0x0010, 6)), (1, 1, 1));
        assert_eq!(nic.deliver(rig::packet(&pool, &[0xff; 60])).unwrap(), 0, "not IP");
        assert_eq!(nic.deliver(rig::packet(&pool, &[8, 0])).unwrap(), 0, "no frame");
    }

    /// The RSS verification suite's first lines, over whole frames.
    #[test]
    fn dpdk_hashes_what_others_hash() {
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
            0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
        ];
        let input = [0x4209_95bb, 0xa18e_6450, 2794 << 16 | 1766];
        assert_eq!(toeplitz(&key, &input), Some(0x51cc_c178));
        assert_eq!(toeplitz(&key, &input[..2]), Some(0x323e_8fc2));
        assert_eq!(toeplitz(&key[..15], &input), None);
    }

    #[test]
    fn what_is_sent_can_be_taken_out() {
        let _eal = rig::eal();
        let pool = Mempool::create("nicsend", 2047, 0, 2176, None).unwrap();
        let (nic, port, mut rx, mut tx) = plugged("send", &queues(2), &pool);
        let mut chain = rig::packet(&pool, &frame(0, 6, 1, 2, 3)[..60]);
        chain.chain(rig::packet(&pool, &[7; 14])).unwrap();
        let queue = usize::from(nic.deliver(chain).unwrap());
        let mut burst = Burst::new();
        assert_eq!(rx[queue].burst(&mut burst), 1);
        assert_eq!((burst[0].segment_count(), burst[0].pkt_len()), (2, 74));
        assert_eq!((tx[1].burst(&mut burst), burst.len()), (1, 0));
        assert!(nic.take(0).is_none());
        let sent = nic.take(1).unwrap();
        assert_eq!(sent.segments().map(<[u8]>::len).collect::<Vec<_>>(), [60, 14]);
        drop(sent);
        assert_eq!(port.stats().unwrap().opackets, 1);

        for n in 0..DEPTH + 5 {
            burst.push(rig::packet(&pool, &n.to_be_bytes())).unwrap();
            if burst.room() == 0 || n == DEPTH + 4 {
                tx[0].burst(&mut burst);
            }
        }
        assert_eq!((burst.len(), burst[0].head()), (5, &DEPTH.to_be_bytes()[..]), "full");
        let taken: Vec<Mbuf> = std::iter::from_fn(|| nic.take(0)).collect();
        assert_eq!((taken.len(), taken[77].head()), (DEPTH as usize, &77u32.to_be_bytes()[..]));
        drop((taken, burst));
        assert_eq!(pool.avail(), 2047);
    }

    #[test]
    fn long_frames_fill_several_mbufs_up_to_the_mtu() {
        let _eal = rig::eal();
        let pool = Mempool::create("nicjumbo", 63, 0, 2176, None).unwrap();
        let (nic, port, mut rx, mut tx) =
            plugged("jumbo", &PortConfig { mtu: 9000, ..queues(1) }, &pool);
        let on = Offloading { scatter: true, chains: true, ..Offloading::default() };
        assert_eq!((port.info().scatter, port.offloading()), (true, on));
        let frame: Vec<u8> = (0..9018u32).map(|n| n as u8).collect();
        assert_eq!(nic.arrive(&frame), Some(0));
        assert_eq!(nic.arrive(&[&frame[..], &[0]].concat()), None);
        let mut burst = Burst::new();
        assert_eq!(rx[0].burst(&mut burst), 1);
        assert_eq!((burst[0].segment_count(), burst[0].head().len()), (5, 2048));
        assert_eq!(tx[0].burst(&mut burst), 1);
        assert_eq!(nic.take(0).unwrap().segments().flatten().copied().collect::<Vec<_>>(), frame);

        let held: Vec<Mbuf> = (0..60).map(|_| pool.alloc().unwrap()).collect();
        assert_eq!((nic.arrive(&frame), pool.avail()), (None, 3), "no mbufs for all of it");
        drop(held);
        assert_eq!(pool.avail(), 63);
        let (nic, port, mut rx, _tx) = plugged("usual", &queues(1), &pool);
        assert!(!port.offloading().scatter);
        assert_eq!((nic.arrive(&frame[..1518]), nic.arrive(&frame[..1519])), (Some(0), None));
        assert_eq!(rx[0].burst(&mut burst), 1);
    }

    #[test]
    fn a_pulled_cable_shows_and_nothing_passes() {
        let _eal = rig::eal();
        let pool = Mempool::create("niclink", 255, 0, 2176, None).unwrap();
        let (nic, port, mut rx, mut tx) = plugged("link", &queues(1), &pool);
        assert!(port.link().unwrap().up);
        nic.deliver(rig::packet(&pool, b"before")).unwrap();
        nic.set_link(false);
        assert!(!port.link().unwrap().up);
        assert!(nic.deliver(rig::packet(&pool, b"during")).is_err());
        let mut burst = Burst::new();
        assert_eq!(rx[0].burst(&mut burst), 0);
        burst.push(rig::packet(&pool, b"out")).unwrap();
        assert_eq!((tx[0].burst(&mut burst), burst.len()), (0, 1));
        nic.set_link(true);
        assert!(port.link().unwrap().up);
        assert_eq!((tx[0].burst(&mut burst), rx[0].burst(&mut burst)), (1, 1));
        assert_eq!((nic.take(0).unwrap().head(), burst[0].head()), (&b"out"[..], &b"before"[..]));
        nic.set_link(false);
        drop((nic, burst));
        assert!(port.link().unwrap().up, "nobody holds the cable any more");
        assert_eq!(pool.avail(), 255);
    }

    #[test]
    fn a_port_goes_on_without_its_far_end_and_its_number_is_clean() {
        let _eal = rig::eal();
        let pool = Mempool::create("nicgone", 255, 0, 2176, None).unwrap();
        let (nic, port, rx, mut tx) = plugged("gone", &queues(1), &pool);
        let other = FakeNic::create("gone2").unwrap();
        assert!(matches!(other.plug(&port), Err(FakeNicError::OtherPort { .. })));
        assert!(matches!(nic.plug(&port), Err(FakeNicError::Plugged { .. })));
        let id = port.id();
        drop(nic);
        let mut burst = Burst::new();
        burst.push(rig::packet(&pool, b"lost")).unwrap();
        assert_eq!(tx[0].burst(&mut burst), 1);
        drop((port, rx, tx));
        assert_eq!(pool.avail(), 255);
        let wire = crate::testport::TestPort::create("gone", 1, 16).unwrap();
        let (port, _rx, mut tx) =
            Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        assert_eq!(port.id(), id, "the number of the closed one");
        burst.push(rig::packet(&pool, b"kept")).unwrap();
        assert_eq!(tx[0].burst(&mut burst), 1);
        assert_eq!(wire.take(0).unwrap().head(), b"kept");
    }

    #[test]
    fn marks_and_offloads_are_told() {
        let _eal = rig::eal();
        let pool = Mempool::create("nicmarks", 255, 0, 2176, None).unwrap();
        let wanted = Offloads { rx_checksums: true, chains: false, fast_free: true };
        let config = PortConfig { offloads: wanted, mtu: 1400, ..queues(1) };
        let (nic, port, mut rx, _tx) = plugged("marks", &config, &pool);
        // The null driver verifies nothing and takes chains without saying so.
        assert_eq!(port.offloading(), Offloading { chains: true, ..Offloading::default() });
        let kinds = [Checksum::Unknown, Checksum::Good, Checksum::Bad, Checksum::None];
        let mut burst = Burst::new();
        for ip in kinds {
            for l4 in kinds {
                let found = Checksums { ip, l4 };
                nic.deliver_marked(rig::packet(&pool, b"marked"), found).unwrap();
                assert_eq!(rx[0].burst(&mut burst), 1);
                assert_eq!(burst[0].checksums(), found);
                burst.clear();
            }
        }
        assert_eq!(rig::packet(&pool, b"made here").checksums(), Checksums::default());
    }
}
