//! What the pipeline needs of a frame and of whoever makes new ones.
//!
//! A frame is a chain of segments; headers are only ever read and written in the first one. The
//! pipeline owns a frame by value, so dropping the value frees it and it cannot be sent twice.

use arrayvec::ArrayVec;

use crate::pipeline::notes::Notes;

/// Frames handled at once; more would push a burst's own lines out of the first-level cache.
pub const BURST_MAX: usize = 64;

/// A burst of frames.
pub type Burst<F> = ArrayVec<F, BURST_MAX>;

/// One received or generated Ethernet frame.
pub trait Frame: Sized {
    /// The first segment.
    fn head(&self) -> &[u8];

    /// The first segment, to be edited in place.
    fn head_mut(&mut self) -> &mut [u8];

    /// Bytes in all segments.
    fn total_len(&self) -> usize;

    /// All segments in order.
    fn segments(&self) -> impl Iterator<Item = &[u8]>;

    /// Cuts the frame to `len` bytes; longer than it is changes nothing.
    fn truncate(&mut self, len: usize);

    /// Removes `n` bytes from the front of the first segment; false if they are not there.
    fn strip_front(&mut self, n: usize) -> bool;

    /// Adds `n` bytes, contents undefined, to the front of the first segment; false, and nothing
    /// done, if its buffer has no room there.
    fn push_front(&mut self, n: usize) -> bool;

    /// Adds bytes at the end of the last segment; false, and nothing done, if its buffer has no
    /// room there.
    fn append(&mut self, bytes: &[u8]) -> bool;

    /// Adds the segments of `tail` behind its own; gives `tail` back if that would be too many.
    ///
    /// # Errors
    /// `tail`, where the chain would be longer than can be counted.
    fn chain(&mut self, tail: Self) -> Result<(), Self>;

    /// Lets [`Frame::is_verified`] be false: what the device saw is not what the frame is now.
    fn forget_verified(&mut self) {}

    /// Asks for the head's first line to be brought into the cache.
    fn prefetch(&self);

    /// Asks for what [`Frame::prefetch`] itself has to read, where that is apart from the value.
    fn prefetch_description(&self) {}

    /// True if the device has found the TCP or UDP checksum right when the frame came in. A frame
    /// of which it found the contrary, or nothing, is looked at here.
    fn is_verified(&self) -> bool {
        false
    }
}

/// Where generated frames come from.
pub trait FramePool {
    /// The kind of frame.
    type Frame: Frame;

    /// How what packets meet is noted: `()` where nobody asks.
    type Notes: Notes;

    /// A frame of `len` bytes in one segment, contents undefined; `None` if there is no buffer or
    /// it would not fit.
    fn allocate(&mut self, len: usize) -> Option<Self::Frame>;
}
