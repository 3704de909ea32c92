//! The stages of a burst: where a packet goes, by which neighbour, and what it meets on the way.

pub mod neighbour;
pub mod route;
