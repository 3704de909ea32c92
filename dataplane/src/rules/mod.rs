//! The rule language: what users wrote ([`model`]), what packets walk ([`compiled`], [`walk`]).
//!
//! The text layer of the control core turns `iptables-save` text into a [`model::Ruleset`], one per
//! family. [`compiled::Compiled`] is its immutable form inside a snapshot: flat arrays, chains and
//! ports as numbers. Workers only read it; every counter they hit is a [`compiled::CounterId`] that
//! they count themselves. The linear walk is the meaning of a ruleset; the cleverer way through
//! long chains (`classify`) agrees with it to the packet and byte.

pub mod check;
mod classify;
pub mod compiled;
pub mod edit;
pub(crate) mod entrance;
pub mod facts;
mod gate;
pub mod hook;
pub mod kept;
pub mod matches;
pub mod model;
pub mod sets;
mod slots;
pub mod tables;
pub mod targets;
pub mod template;
pub mod test;
pub mod trace;
pub mod walk;

#[cfg(test)]
mod tests;
