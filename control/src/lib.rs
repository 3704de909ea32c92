//! The control core.

pub mod cli;
pub mod config;
pub mod socket;
pub mod tools;
