//! The poll loop of one lcore, and the borders it works between: devices, the control core and the
//! other lcores.

mod dice;
#[cfg(feature = "dpdk")]
pub mod dpdk_io;
pub mod io;
pub mod mailbox;
pub mod memory;
pub mod rings;
pub mod simulator;
mod turns;
pub mod worker;
