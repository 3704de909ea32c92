//! The rule files of `configs/`, at work: each is loaded as a user would load it, packets are sent
//! through it by a clock that the test moves, and what becomes of them is what the files promise.
//!
//! The gateway is the one of `sluicegate replay`: all of it but the devices, in this process. That
//! the real `iptables-restore` and `ipset` take the files alike, and print the same of them, is
//! asked of the kernel in a namespace, which needs root.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

mod edge;
mod home;
#[allow(dead_code)]
#[path = "../e2e/netns.rs"]
mod netns;
mod office;
mod reload;
mod site;
mod tools;
