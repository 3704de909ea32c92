//! What helpers read out of the packets of their masters: parsers without any state.

pub mod tftp;
