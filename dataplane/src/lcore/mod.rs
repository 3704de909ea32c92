//! The poll loop of one lcore, and the borders it works between: devices and the control core.

#[cfg(feature = "dpdk")]
pub mod dpdk_io;
pub mod io;
pub mod mailbox;
pub mod memory;
pub mod worker;
