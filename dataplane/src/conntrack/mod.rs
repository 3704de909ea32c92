//! Connection tracking: tuples, the shared index, owned records, trackers and timeouts.
//!
//! The words are netfilter's. A [`tuple::Tuple`] names one direction of a conn; the index maps
//! tuples to numbered records; a tracker judges each packet of one protocol; a conn is unconfirmed
//! (in no table) until its first packet leaves.

mod array;
pub mod capacity;
pub mod chunks;
pub mod counts;
pub mod dccp;
pub mod early;
pub mod events;
pub mod expect;
pub mod extension;
pub mod fragments;
pub mod generic;
pub mod glance;
pub mod gre;
mod hashes;
pub mod helper;
pub mod helpers;
pub mod icmp;
pub mod index;
pub mod invalid;
pub mod knobs;
pub mod policies;
pub mod proxied;
pub mod record;
pub mod sctp;
pub mod state;
pub mod store;
pub mod syncookie;
pub mod tcp;
pub mod timeouts;
pub mod tuple;
pub mod udp;
pub mod view;
pub mod views;
pub mod zones;
