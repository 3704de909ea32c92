//! Sluicegate's packet logic: pure functions of (bytes, metadata, now, snapshot, state).
//!
//! Nothing in this crate reads a clock, takes a lock on the packet path, allocates per packet, logs
//! or panics on packet bytes. The arrows between the modules point one way:
//! `wire ← conntrack ← nat, rules ← pipeline ← lcore`. Without the feature `dpdk` the crate builds
//! and tests on a machine that has no DPDK.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod arch;
pub mod conntrack;
pub mod lcore;
pub mod nat;
pub mod pipeline;
pub mod rules;
pub mod time;
pub mod wire;
