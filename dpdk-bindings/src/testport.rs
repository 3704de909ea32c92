//! Ports made of rings, for tests and for rigs that run in one process: what is put in arrives at
//! the port's receive queue, what the port sends can be taken out. To the packet path they are
//! ports like any other, found by [`TestPort::device`].
//!
//! The rings live until EAL ends, as the driver may use them for that long; mbufs left in them are
//! freed when the [`TestPort`] drops. A driver that sends afterwards leaves its mbufs there.

use std::ffi::{CStr, CString};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::burst::Burst;
use crate::eal::Running;
use crate::errno::Errno;
use crate::ffi;
use crate::mbuf::Mbuf;

/// The far end of a ring-backed port. Any thread may use it.
#[derive(Debug)]
pub struct TestPort {
    device: String,
    inward: Vec<NonNull<ffi::rte_ring>>,
    outward: Vec<NonNull<ffi::rte_ring>>,
    _running: Arc<Running>,
}

// SAFETY: the rings are multi-producer and multi-consumer and outlive self.
unsafe impl Send for TestPort {}
// SAFETY: as above.
unsafe impl Sync for TestPort {}

impl TestPort {
    /// Makes a device of `queues` queues (1 to 16) in each direction, each holding `depth` packets.
    /// `name` is short (under 20 bytes) and new to the process.
    ///
    /// # Errors
    /// [`TestPortError`]: EAL is not running, or refused.
    pub fn create(name: &str, queues: u16, depth: u32) -> Result<Self, TestPortError> {
        let running = Running::current().ok_or(TestPortError::NoEal)?;
        let refused = |errno| TestPortError::Create { name: name.to_owned(), errno };
        let inward = rings(name, "in", queues, depth).map_err(refused)?;
        let outward = rings(name, "out", queues, depth).map_err(refused)?;
        let c_name = CString::new(name).map_err(|_| refused(Errno(EINVAL)))?;
        // SAFETY: EAL is initialised; both arrays hold `queues` rings that are never freed, and
        // NonNull has the layout of a pointer; name and arrays are copied.
        let id = unsafe {
            ffi::rte_eth_from_rings(
                c_name.as_ptr(),
                inward.as_ptr().cast(),
                queues.into(),
                outward.as_ptr().cast(),
                queues.into(),
                0,
            )
        };
        let id = u16::try_from(id).map_err(|_| refused(Errno::last()))?;
        let device = device_name(id).map_err(refused)?;
        Ok(Self { device, inward, outward, _running: running })
    }

    /// The name to configure the port by.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Puts a packet into a receive queue.
    ///
    /// # Errors
    /// Gives the packet back if the queue is full or does not exist.
    pub fn put(&self, queue: u16, packet: Mbuf) -> Result<(), Mbuf> {
        let mut burst = Burst::new();
        burst.push(packet)?;
        self.put_burst(queue, &mut burst);
        burst.pop().map_or(Ok(()), Err)
    }

    /// Puts packets into a receive queue from the front of the burst; the number put. The others
    /// stay at its front.
    pub fn put_burst(&self, queue: u16, burst: &mut Burst) -> usize {
        let Some(ring) = self.inward.get(usize::from(queue)) else { return 0 };
        // SAFETY: the ring is alive; the slots hold len() owned mbufs, of which the ring takes the
        // first ones.
        unsafe {
            let put = ffi::shim_ring_push(ring.as_ptr(), burst.raw(), burst.len() as u32) as usize;
            burst.forget_front(put);
            put
        }
    }

    /// Takes the oldest packet that the port sent on a transmit queue.
    pub fn take(&self, queue: u16) -> Option<Mbuf> {
        let mut raw = std::ptr::null_mut();
        let ring = self.outward.get(usize::from(queue))?;
        // SAFETY: the ring is alive and has room for one pointer to write to.
        unsafe { ffi::shim_ring_pop(ring.as_ptr(), &mut raw, 1) };
        // SAFETY: the ring held mbufs that the port gave up; this one is out of it now.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Adds to the burst what the port sent on a transmit queue; the number added.
    pub fn take_burst(&self, queue: u16, burst: &mut Burst) -> usize {
        self.outward.get(usize::from(queue)).map_or(0, |ring| pop(*ring, burst))
    }
}

impl Drop for TestPort {
    fn drop(&mut self) {
        let mut burst = Burst::new();
        for ring in self.inward.iter().chain(&self.outward) {
            while pop(*ring, &mut burst) > 0 {
                burst.clear();
            }
        }
    }
}

/// Why a test port was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TestPortError {
    /// EAL is not running.
    NoEal,
    /// DPDK refused.
    Create {
        /// The port's name.
        name: String,
        /// EEXIST for a name used before, ENAMETOOLONG, ENOMEM, …
        errno: Errno,
    },
}

impl fmt::Display for TestPortError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEal => write!(f, "EAL is not running"),
            Self::Create { name, errno } => write!(f, "no test port {name}: {errno}"),
        }
    }
}

impl std::error::Error for TestPortError {}

const EINVAL: i32 = 22;
const ANY_SOCKET: i32 = -1;
/// RTE_ETH_NAME_MAX_LEN.
const NAME_MAX: usize = 64;

fn rings(
    name: &str,
    way: &str,
    count: u16,
    depth: u32,
) -> Result<Vec<NonNull<ffi::rte_ring>>, Errno> {
    (0..count).map(|queue| ring(&format!("{name}_{way}{queue}"), depth)).collect()
}

/// A ring of `depth` packets, never freed.
pub(crate) fn ring(name: &str, depth: u32) -> Result<NonNull<ffi::rte_ring>, Errno> {
    let name = CString::new(name).map_err(|_| Errno(EINVAL))?;
    // SAFETY: EAL is initialised; the name is NUL-terminated and copied.
    let ring =
        unsafe { ffi::rte_ring_create(name.as_ptr(), depth, ANY_SOCKET, ffi::RING_F_EXACT_SZ) };
    NonNull::new(ring).ok_or_else(Errno::last)
}

fn device_name(id: u16) -> Result<String, Errno> {
    let mut name = [0; NAME_MAX];
    // SAFETY: the buffer has the length that the call writes at most, a final NUL included.
    Errno::check(unsafe { ffi::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so the buffer holds a NUL-terminated string.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// Adds to the burst what is in a ring that is alive and holds mbufs; the number added.
pub(crate) fn pop(ring: NonNull<ffi::rte_ring>, burst: &mut Burst) -> usize {
    // SAFETY: the ring is alive; spare() has room() free slots, which get mbufs that left the ring.
    unsafe {
        let room = burst.room() as u32;
        let taken = ffi::shim_ring_pop(ring.as_ptr(), burst.spare(), room) as usize;
        burst.grow(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mempool::Mempool;
    use crate::port::{Port, PortConfig};
    use crate::rig;

    #[test]
    fn packets_go_round_unchanged() {
        let _eal = rig::eal();
        let pool = Mempool::create("round", 127, 0, 2176, None).unwrap();
        let wire = TestPort::create("round", 2, 64).unwrap();
        let config = PortConfig { rx_queues: 2, tx_queues: 2, ..Default::default() };
        let (port, mut rx, mut tx) = Port::configure(wire.device(), &config, &pool).unwrap();
        for n in 0..20u8 {
            let mut packet = rig::packet(&pool, &[n; 60]);
            packet.chain(rig::packet(&pool, &[n ^ 0xff; 9])).unwrap();
            wire.put(1, packet).unwrap();
        }
        let mut burst = Burst::new();
        assert_eq!((rx[0].burst(&mut burst), rx[1].burst(&mut burst)), (0, 20));
        burst.iter_mut().for_each(|mbuf| mbuf.head_mut()[0] += 100);
        assert_eq!((tx[0].burst(&mut burst), burst.len()), (20, 0));
        assert!(wire.take(1).is_none());
        for n in 0..20u8 {
            let packet = wire.take(0).unwrap();
            let parts: Vec<&[u8]> = packet.segments().collect();
            assert_eq!(parts[0][..2], [n + 100, n]);
            assert_eq!(parts[1], [n ^ 0xff; 9]);
        }
        assert_eq!(port.stats().unwrap().ipackets, 20);
        assert_eq!(pool.avail(), 127);
    }

    #[test]
    fn what_does_not_fit_stays_in_the_burst_in_order() {
        let _eal = rig::eal();
        let pool = Mempool::create("full", 127, 0, 2176, None).unwrap();
        let wire = TestPort::create("full", 1, 10).unwrap();
        let (_port, mut rx, mut tx) =
            Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        let mut burst = Burst::new();
        (0..16).for_each(|n| burst.push(rig::packet(&pool, &[n])).unwrap());
        assert_eq!((tx[0].burst(&mut burst), burst.len()), (10, 6));
        assert_eq!(
            burst.iter().map(|mbuf| mbuf.head()[0]).collect::<Vec<_>>(),
            [10, 11, 12, 13, 14, 15]
        );
        assert_eq!((wire.put_burst(0, &mut burst), burst.len()), (6, 0));
        let mut sent = Burst::new();
        assert_eq!(wire.take_burst(0, &mut sent), 10);
        assert_eq!(sent[9].head(), [9]);
        assert_eq!(wire.put_burst(0, &mut sent), 4);
        assert_eq!((sent.len(), sent[0].head()), (6, &[4][..]));
        assert_eq!(wire.put(0, sent.pop().unwrap()).unwrap_err().head(), [9]);
        assert_eq!(wire.put_burst(7, &mut sent), 0, "no such queue");
        assert_eq!(rx[0].burst(&mut burst), 10);
        drop((burst, sent));
        assert_eq!(pool.avail(), 127);
    }

    #[test]
    fn a_dropped_test_port_frees_what_is_in_it() {
        let _eal = rig::eal();
        let pool = Mempool::create("left", 31, 0, 2176, None).unwrap();
        let wire = TestPort::create("left", 1, 16).unwrap();
        wire.put(0, rig::packet(&pool, b"never received")).unwrap();
        assert_eq!(pool.avail(), 30);
        drop(wire);
        assert_eq!(pool.avail(), 31);
        let error = TestPort::create("left", 1, 16).unwrap_err();
        assert_eq!(error, TestPortError::Create { name: "left".to_owned(), errno: Errno(17) });
        assert!(TestPort::create("wide", 17, 16).is_err());
        assert!(TestPort::create("none", 0, 16).is_err());
    }

    #[test]
    fn an_lcore_forwards_between_queues_it_was_given() {
        let eal = rig::eal();
        let pool = Mempool::create("forward", 1023, 32, 2176, None).unwrap();
        let wire = TestPort::create("forward", 1, 256).unwrap();
        let (port, mut rx, mut tx) =
            Port::configure(wire.device(), &PortConfig::default(), &pool).unwrap();
        const PACKETS: usize = 200;
        let forward = move || {
            let (mut burst, mut moved) = (Burst::new(), 0);
            while moved < PACKETS {
                rx[0].burst(&mut burst);
                moved += tx[0].burst(&mut burst);
                std::thread::yield_now();
            }
            moved
        };
        let handle = eal.launch(eal.lcores()[0], forward).unwrap();
        (0..PACKETS).for_each(|n| wire.put(0, rig::packet(&pool, &[n as u8; 60])).unwrap());
        assert_eq!(handle.join(), Ok(PACKETS));
        let mut burst = Burst::new();
        for n in 0..PACKETS {
            if burst.is_empty() {
                wire.take_burst(0, &mut burst);
                burst.reverse();
            }
            assert_eq!(burst.pop().unwrap().head(), [n as u8; 60]);
        }
        assert_eq!(port.stats().unwrap().opackets, PACKETS as u64);
        assert_eq!(pool.avail(), 1023);
    }
}
