//! The bytes of a packet from its L4 header on, wherever they lie.
//!
//! A slice for who has them in one piece, a chain of segments for the pipeline: what a protocol
//! keeps far behind its header may lie in a later segment.

/// Bytes counted from the L4 header to the end of the IP packet.
pub trait Source {
    /// `N` bytes from `at` on; `None` if the packet ends before.
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]>;

    /// How many there are.
    fn total(&self) -> usize;
}

impl Source for [u8] {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.get(at..)?.first_chunk().copied()
    }

    fn total(&self) -> usize {
        self.len()
    }
}
