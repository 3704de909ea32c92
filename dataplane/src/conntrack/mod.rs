//! Connection tracking: tuples, the shared index, owned records, trackers and timeouts.
//!
//! The words are netfilter's. A [`tuple::Tuple`] names one direction of a conn; the index maps
//! tuples to numbered records; a tracker judges each packet of one protocol; a conn is unconfirmed
//! (in no table) until its first packet leaves.

pub mod capacity;
pub mod chunks;
pub mod extension;
pub mod index;
pub mod record;
pub mod state;
pub mod store;
pub mod tuple;
