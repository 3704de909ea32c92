//! The kernel interfaces of the box itself: what programs do there with `ip` has to arrive, and
//! nothing else.
//!
//! Each test has a network namespace with veth pairs in the place of taps and reads what
//! `sluicegate::host` makes of it. Needs root and iproute2.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

#[path = "../e2e/netns.rs"]
mod netns;

mod bench;
mod learning;
mod setup;
mod storm;
