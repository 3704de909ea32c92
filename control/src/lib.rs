//! The control core.

pub mod tools;
