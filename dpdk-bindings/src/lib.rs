//! DPDK 22.11 behind types that own what they stand for.
//!
//! A leaf crate: it knows DPDK's C ABI and nothing of Sluicegate. Generated declarations (`ffi`), a
//! C shim for what is inline in DPDK's headers (`csrc`), and on top of them:
//!
//! | type | owns | goes away when |
//! |---|---|---|
//! | [`Eal`] | the one EAL of the process | its last holder drops: pools and ports hold it too |
//! | [`Mempool`] | a pool of packet buffers | the last clone, port or queue using it drops |
//! | [`Mbuf`], [`Burst`] | one packet, up to 64 packets | dropped (back to their pool) or sent |
//! | [`Port`] | a configured and started port | it and all its queues drop: stopped, closed |
//! | [`RxQueue`], [`TxQueue`] | one queue of a port, one poller | dropped |
//! | [`LcoreHandle`] | a closure running on an lcore | joined, or dropped (which waits) |
//!
//! Order of drops does not matter: each holds what it needs alive. Nothing on the packet path
//! allocates, locks or calls into the kernel by itself (a driver may: `net_tap` reads and writes).
//!
//! Set-up trouble is an enum that names the device, the call and the errno. Packet trouble does not
//! exist here: a full queue leaves mbufs in the [`Burst`], an empty pool is `None`.
//!
//! EAL writes its own log to stderr and syslog; `--log-level` among the arguments of
//! [`Eal::init`] sets how much, [`HeldLog`] holds it back.

mod burst;
mod eal;
mod errno;
pub mod fakenic;
mod ffi;
#[cfg(feature = "rte-hash")]
pub mod hash;
mod lcore;
mod log;
mod mbuf;
mod mempool;
mod port;
mod queue;
#[cfg(test)]
mod rig;
pub mod testport;

pub use burst::{BURST_MAX, Burst};
pub use eal::{Eal, EalError};
pub use errno::Errno;
pub use lcore::{LcoreError, LcoreHandle, LcoreId};
pub use log::HeldLog;
pub use mbuf::{Checksum, Checksums, Mbuf, Segments};
pub use mempool::{HEADROOM, Mempool, PoolError};
pub use port::{
    FamilyFunctions, HashFunctions, Hashed, Link, Offloading, Offloads, Port, PortConfig,
    PortError, PortId, PortInfo, PortStats, Rss, Side, Unsupported,
};
pub use queue::{RxQueue, TxQueue};

/// The DPDK version this crate was built against, as pkg-config gives it.
pub const DPDK_VERSION: &str = env!("SLUICEGATE_DPDK_VERSION");
