//! The TCP tracker.

mod state;

pub use state::TcpState;
