//! The TCP tracker: states, transition table, windows (`nf_conntrack_proto_tcp.c`).
//!
//! Pure: a [`TcpTrack`] is a value of seven words that lies in the conn's record; its owner
//! unpacks it, judges one segment and packs it again. No clock: what time is left comes as an
//! argument, what time there shall be goes back in the [`Outcome`].
//!
//! ```text
//! sanity      bytes → Segment                       the header makes sense on its own
//! table       direction × class × state → step      what the flags mean
//! judge       the steps that need a second look     ignored SYN, challenge ACK, RST, reopening
//! window      the numbers fit both ends' windows
//! track       new state, timeout, ASSURED           what the owner does to the record
//! established all of it for nearly every segment    words → words
//! ```

mod established;
mod judge;
mod options;
#[cfg(test)]
mod scenarios;
mod segment;
mod state;
mod table;
mod track;
mod window;

pub use established::Patience;
pub use segment::{Class, Segment, flags, sanity};
pub use state::TcpState;
pub use table::{Step, step};
pub use track::{Outcome, TcpTrack};
pub use window::{Unexpected, WindowNumbers};
