//! Frames in ordinary memory at about the price of a driver's: a buffer is taken from a stack and
//! goes back there when it has been sent, so that a burst always meets the same warm lines, and
//! nothing is allocated while packets flow. What the pipeline drops is freed to the allocator, and
//! the stack then takes a new one.

use dataplane::arch::prefetch_read;
use dataplane::pipeline::frame::Frame;

/// Room in front of a frame, and for it.
const HEADROOM: usize = 60;
const ROOM: usize = 252;

/// A buffer of four cache lines.
#[derive(Debug)]
#[repr(C, align(64))]
struct Buffer {
    start: u16,
    len: u16,
    bytes: [u8; ROOM],
}

/// A frame of one segment.
#[derive(Debug)]
pub(crate) struct Slot(Box<Buffer>);

/// Buffers that may be used.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Slot>);

impl Spare {
    /// A frame of `len` bytes, at most 192, contents undefined.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Slot {
        let mut slot = self.0.pop().unwrap_or_else(|| {
            Slot(Box::new(Buffer { start: HEADROOM as u16, len: 0, bytes: [0; ROOM] }))
        });
        slot.0.start = HEADROOM as u16;
        slot.0.len = len.min(ROOM - HEADROOM) as u16;
        slot
    }

    /// Takes a frame back.
    #[inline]
    pub(crate) fn give(&mut self, slot: Slot) {
        self.0.push(slot);
    }
}

impl Slot {
    /// The largest frame.
    pub(crate) const MAX: usize = ROOM - HEADROOM;

    fn range(&self) -> std::ops::Range<usize> {
        let start = self.0.start as usize;
        start..start + self.0.len as usize
    }
}

impl Frame for Slot {
    #[inline]
    fn head(&self) -> &[u8] {
        self.0.bytes.get(self.range()).unwrap_or_default()
    }

    #[inline]
    fn head_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.0.bytes.get_mut(range).unwrap_or_default()
    }

    #[inline]
    fn total_len(&self) -> usize {
        self.0.len as usize
    }

    fn segments(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head())
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.0.len = self.0.len.min(len as u16);
    }

    fn strip_front(&mut self, n: usize) -> bool {
        let there = n <= self.total_len();
        if there {
            self.0.start += n as u16;
            self.0.len -= n as u16;
        }
        there
    }

    fn push_front(&mut self, n: usize) -> bool {
        let room = n <= self.0.start as usize;
        if room {
            self.0.start -= n as u16;
            self.0.len += n as u16;
        }
        room
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        let end = self.range().end;
        let Some(room) = self.0.bytes.get_mut(end..end + bytes.len()) else { return false };
        room.copy_from_slice(bytes);
        self.0.len += bytes.len() as u16;
        true
    }

    fn chain(&mut self, tail: Slot) -> Result<(), Slot> {
        // No frame offered here is a fragment.
        Err(tail)
    }

    #[inline]
    fn prefetch(&self) {
        prefetch_read(&*self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_and_shrinks_within_its_buffer() {
        let mut spare = Spare::default();
        let mut slot = spare.take(60);
        slot.head_mut().copy_from_slice(&[7; 60]);
        assert!(slot.strip_front(4) && slot.push_front(4) && !slot.push_front(HEADROOM + 1));
        assert!(slot.append(&[8; 2]) && !slot.append(&[0; 200]) && !slot.strip_front(63));
        assert_eq!((slot.total_len(), slot.head()[59], slot.head()[61]), (62, 7, 8));
        slot.truncate(10);
        assert_eq!(slot.head(), [7; 10]);
        spare.give(slot);
        assert_eq!(spare.take(Slot::MAX + 1).total_len(), Slot::MAX);
        assert!(spare.0.is_empty());
    }
}
