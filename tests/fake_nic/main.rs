//! A whole gateway on ports that behave as NICs: receive-side scaling, offloads, long frames,
//! links.
//!
//! Ports come up, share their queues out and are read as in `sluicegate run`; workers and control
//! core take turns in the test's thread, so that each frame's way is the same in every run. Needs
//! neither root nor huge pages.

#![forbid(unsafe_code)]
#![allow(missing_docs, unreachable_pub)]

mod links;
mod long_frames;
mod marks;
mod nat;
mod other_protocols;
mod queues;
mod rig;
