//! Pools of mbufs: fixed memory taken from EAL's at set-up, so the packet path never allocates.
//!
//! A pool is shared by clones, and by the ports and queues that receive into it. When the last of
//! these drops and all mbufs are back, its memory is returned to EAL. If mbufs are still out (held
//! somewhere, or kept by a driver: `net_af_xdp` returns half of its own) the pool stays, and EAL
//! with it, until the process ends: an [`Mbuf`] is a bare pointer and must never outlive its pool.

use std::ffi::CString;
use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::burst::Burst;
use crate::eal::Running;
use crate::errno::Errno;
use crate::ffi;
use crate::mbuf::Mbuf;

/// Bytes before the packet in a fresh mbuf, for headers pushed in front of it.
pub const HEADROOM: u16 = ffi::RTE_PKTMBUF_HEADROOM as u16;

/// A pool of equal mbufs; a clone is another handle of the same pool.
#[derive(Clone, Debug)]
pub struct Mempool(Arc<Pool>);

impl Mempool {
    /// Creates a pool of `mbufs` mbufs (2^n - 1 wastes least), of which each lcore may cache up to
    /// `cache` (at most 512, and two thirds of the pool). One mbuf holds `data_room` bytes,
    /// [`HEADROOM`] included: 2176 holds a frame of 2048. `socket` is a NUMA node, `None` any.
    ///
    /// # Errors
    /// [`PoolError`]: EAL is not running, or it refused (no memory, name taken or too long, …).
    pub fn create(
        name: &str,
        mbufs: u32,
        cache: u32,
        data_room: u16,
        socket: Option<u32>,
    ) -> Result<Self, PoolError> {
        let running = Running::current().ok_or(PoolError::NoEal)?;
        let refused = |errno| PoolError::Create { name: name.to_owned(), mbufs, errno };
        let c_name = CString::new(name).map_err(|_| refused(Errno(EINVAL)))?;
        let socket = socket.map_or(ANY_SOCKET, |socket| i32::try_from(socket).unwrap_or(i32::MAX));
        // SAFETY: EAL is initialised while `running` is held; the name is NUL-terminated and copied
        // by DPDK; all sizes are checked by the callee.
        let raw = unsafe {
            ffi::rte_pktmbuf_pool_create(c_name.as_ptr(), mbufs, cache, 0, data_room, socket)
        };
        let raw = NonNull::new(raw).ok_or_else(|| refused(Errno::last()))?;
        Ok(Self(Arc::new(Pool { raw, _running: running })))
    }

    /// Mbufs of the pool, in use or not.
    pub fn size(&self) -> u32 {
        // SAFETY: the pool lives as long as self.
        unsafe { ffi::shim_pool_size(self.raw()) }
    }

    /// Mbufs free at this moment, in the pool or an lcore's cache. Walks all caches: not for the
    /// packet path.
    pub fn avail(&self) -> u32 {
        // SAFETY: the pool lives as long as self.
        unsafe { ffi::rte_mempool_avail_count(self.raw()) }
    }

    /// Bytes of one mbuf, [`HEADROOM`] included.
    pub fn data_room(&self) -> u16 {
        // SAFETY: the pool lives as long as self and was made as a pool of mbufs.
        unsafe { ffi::shim_pool_data_room(self.raw()) }
    }

    /// An empty mbuf with [`HEADROOM`] bytes before it; `None` if the pool is empty.
    pub fn alloc(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as self; any thread may take from it.
        let raw = unsafe { ffi::shim_mbuf_alloc(self.raw()) };
        // SAFETY: an mbuf fresh from its pool is direct, unshared and has no other owner.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Adds `count` empty mbufs to the burst, or none: false if the pool or the burst has no room
    /// for all of them.
    #[must_use]
    pub fn alloc_bulk(&self, burst: &mut Burst, count: usize) -> bool {
        if count > burst.room() {
            return false;
        }
        // SAFETY: spare() has room for `count` pointers, and the pool is alive. On success all are
        // fresh mbufs with no other owner, on failure none was written.
        unsafe {
            let filled = ffi::shim_mbuf_alloc_bulk(self.raw(), burst.spare(), count as u32) == 0;
            if filled {
                burst.grow(count);
            }
            filled
        }
    }

    pub(crate) fn raw(&self) -> *mut ffi::rte_mempool {
        self.0.raw.as_ptr()
    }
}

/// Why a pool was not made.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolError {
    /// EAL is not running.
    NoEal,
    /// DPDK refused.
    Create {
        /// The pool's name.
        name: String,
        /// The mbufs asked for.
        mbufs: u32,
        /// What was left in `rte_errno`: ENOMEM, EEXIST, ENAMETOOLONG, …
        errno: Errno,
    },
}

impl fmt::Display for PoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEal => write!(f, "EAL is not running"),
            Self::Create { name, mbufs, errno } => {
                write!(f, "no mempool {name} of {mbufs} mbufs: {errno}")
            }
        }
    }
}

impl std::error::Error for PoolError {}

#[derive(Debug)]
struct Pool {
    raw: NonNull<ffi::rte_mempool>,
    _running: Arc<Running>,
}

// SAFETY: DPDK's pools are made for many threads: the ring behind is multi-producer and
// multi-consumer, and each cache is touched by the lcore that owns it alone.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Drop for Pool {
    fn drop(&mut self) {
        // Ports and queues hold the pool, so nothing polls with it any more and the count is at
        // rest: it can only be short, by mbufs held elsewhere.
        // SAFETY: the pool was made by create and is freed only below.
        if unsafe { ffi::rte_mempool_in_use_count(self.raw.as_ptr()) } == 0 {
            // SAFETY: no mbuf is out and self was the last handle.
            unsafe { ffi::rte_mempool_free(self.raw.as_ptr()) };
        } else {
            mem::forget(Arc::clone(&self._running));
        }
    }
}

const EINVAL: i32 = 22;
const ANY_SOCKET: i32 = -1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig;

    #[test]
    fn mbufs_come_back() {
        let _eal = rig::eal();
        let pool = Mempool::create("back", 63, 0, 2176, None).unwrap();
        assert_eq!((pool.size(), pool.avail(), pool.data_room()), (63, 63, 2176));
        let held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!((held.len(), pool.avail()), (63, 0));
        let mut burst = Burst::new();
        assert!(!pool.alloc_bulk(&mut burst, 1));
        drop(held);
        assert!(!pool.alloc_bulk(&mut burst, 64), "64 of 63");
        assert!(pool.alloc_bulk(&mut burst, 60));
        assert!(!pool.alloc_bulk(&mut burst, 5), "a burst holds 64");
        assert_eq!((burst.len(), pool.avail()), (60, 3));
        drop(burst);
        assert_eq!(pool.avail(), 63);
    }

    #[test]
    fn a_pool_with_mbufs_out_stays_and_an_empty_one_frees_its_name() {
        let _eal = rig::eal();
        drop(Mempool::create("again", 15, 0, 2176, None).unwrap());
        let pool = Mempool::create("again", 15, 0, 2176, None).unwrap();
        let mut mbuf = pool.alloc().unwrap();
        drop(pool);
        mbuf.append(4).unwrap().copy_from_slice(b"last");
        assert_eq!(mbuf.head(), b"last");
        drop(mbuf);
        let error = Mempool::create("again", 15, 0, 2176, None).unwrap_err();
        assert!(matches!(error, PoolError::Create { errno: Errno(17), .. }), "{error}");
    }

    #[test]
    fn refusals_name_the_pool() {
        let _eal = rig::eal();
        let error = Mempool::create("huge", 50_000_000, 0, 2176, None).unwrap_err().to_string();
        assert!(error.contains("huge of 50000000"), "{error}");
        assert!(Mempool::create("a\0b", 15, 0, 2176, None).is_err());
    }
}
