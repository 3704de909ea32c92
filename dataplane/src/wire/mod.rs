//! Bytes on the wire: one file per protocol with a checked view, plus checksums and builders.

pub mod address;
