//! What would become of a packet, and why: `sluicegate explain`.
//!
//! The packet is described, built as a frame and taken through a [`Pipeline`] that has the policy
//! in force, a table of its own and no wires ([`offline`]). What it would meet in the live table is
//! copied there: the conn that it belongs to, whoever holds the tuples that its translation asks
//! for, an expectation that waits for it. Which those are is seen from a run without them, so the
//! packet runs again until it meets nobody new (`gateway/explain.rs`). The pipeline's notes are the
//! answer ([`report`]). Nothing live is written: rules count in a snapshot of their own, and what a
//! rule keeps from packet to packet begins anew in it.
//!
//! [`Pipeline`]: dataplane::pipeline::Pipeline

pub mod offline;
mod packet;
pub mod question;
pub mod report;
#[cfg(test)]
mod tests;
mod text;
pub mod words;
