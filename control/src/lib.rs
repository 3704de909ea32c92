//! The control core.

pub mod config;
pub mod tools;
