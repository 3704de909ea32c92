//! The in-memory twin of the DPDK ports: queues of byte vectors, for tests, replay and simulation.

use std::collections::VecDeque;

use super::io::BurstIo;
use crate::pipeline::frame::{BURST_MAX, Burst, Frame, FramePool};
use crate::pipeline::notes::Book;
use crate::rules::facts::PortId;

/// Largest frame that can be generated, as with a mempool of 2 KiB buffers.
const FRAME_MAX: usize = 2048;

/// Room in front of a frame, as in DPDK's buffers.
const HEADROOM: usize = 128;

/// A frame in ordinary memory: a first segment and what follows it. Frames are equal if their
/// segments are.
#[derive(Debug, Clone, Eq)]
pub struct MemoryFrame {
    head: Vec<u8>,
    tail: Vec<Vec<u8>>,
    headroom: usize,
}

impl PartialEq for MemoryFrame {
    fn eq(&self, other: &MemoryFrame) -> bool {
        (&self.head, &self.tail) == (&other.head, &other.tail)
    }
}

impl MemoryFrame {
    /// One segment.
    pub fn new(bytes: impl Into<Vec<u8>>) -> MemoryFrame {
        MemoryFrame { head: bytes.into(), tail: Vec::new(), headroom: HEADROOM }
    }

    /// The same with room for only `n` more bytes in front.
    pub fn with_headroom(self, n: usize) -> MemoryFrame {
        MemoryFrame { headroom: n, ..self }
    }

    /// A chain of segments cut after each of `lengths` bytes; the rest is the last segment.
    pub fn chain(bytes: &[u8], lengths: &[usize]) -> MemoryFrame {
        let mut rest = bytes;
        let mut segments = Vec::new();
        for &n in lengths {
            let (a, b) = rest.split_at(n.min(rest.len()));
            segments.push(a.to_vec());
            rest = b;
        }
        if !rest.is_empty() || segments.is_empty() {
            segments.push(rest.to_vec());
        }
        MemoryFrame { head: segments.remove(0), tail: segments, headroom: HEADROOM }
    }

    /// All bytes in one piece.
    pub fn bytes(&self) -> Vec<u8> {
        self.segments().flatten().copied().collect()
    }
}

impl Frame for MemoryFrame {
    fn head(&self) -> &[u8] {
        &self.head
    }

    fn head_mut(&mut self) -> &mut [u8] {
        &mut self.head
    }

    fn total_len(&self) -> usize {
        self.segments().map(<[u8]>::len).sum()
    }

    fn segments(&self) -> impl Iterator<Item = &[u8]> {
        core::iter::once(&self.head[..]).chain(self.tail.iter().map(|s| &s[..]))
    }

    fn truncate(&mut self, len: usize) {
        self.head.truncate(len);
        let mut left = len - self.head.len().min(len);
        for segment in &mut self.tail {
            segment.truncate(left);
            left -= segment.len();
        }
        self.tail.retain(|s| !s.is_empty());
    }

    fn strip_front(&mut self, n: usize) -> bool {
        if n > self.head.len() {
            return false;
        }
        self.head.drain(..n);
        self.headroom += n;
        true
    }

    fn push_front(&mut self, n: usize) -> bool {
        let Some(left) = self.headroom.checked_sub(n) else { return false };
        self.headroom = left;
        self.head.splice(..0, core::iter::repeat_n(0, n));
        true
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        let last = self.tail.last_mut().unwrap_or(&mut self.head);
        if last.len() + bytes.len() > FRAME_MAX {
            return false;
        }
        last.extend_from_slice(bytes);
        true
    }

    fn chain(&mut self, tail: MemoryFrame) -> Result<(), MemoryFrame> {
        self.tail.push(tail.head);
        self.tail.extend(tail.tail);
        Ok(())
    }

    fn prefetch(&self) {}
}

/// Ports whose two ends are queues, one receive queue of this lcore for each.
#[derive(Debug, Default)]
pub struct MemoryIo {
    received: Vec<VecDeque<MemoryFrame>>,
    sent: VecDeque<(PortId, MemoryFrame)>,
    /// Frames that may still be generated; `None` is without limit.
    pub allocations_left: Option<usize>,
    /// Frames a port still takes; `None` is without limit.
    pub transmissions_left: Option<usize>,
}

impl MemoryIo {
    /// With `ports` ports.
    pub fn new(ports: usize) -> MemoryIo {
        MemoryIo { received: vec![VecDeque::new(); ports], ..MemoryIo::default() }
    }

    /// Lets a frame arrive at a port.
    pub fn push(&mut self, port: PortId, frame: MemoryFrame) {
        if let Some(queue) = self.received.get_mut(port.0 as usize) {
            queue.push_back(frame);
        }
    }

    /// The oldest frame that was sent and not yet looked at.
    pub fn pop_sent(&mut self) -> Option<(PortId, MemoryFrame)> {
        self.sent.pop_front()
    }
}

impl FramePool for MemoryIo {
    type Frame = MemoryFrame;
    type Notes = Book;

    fn allocate(&mut self, len: usize) -> Option<MemoryFrame> {
        match &mut self.allocations_left {
            Some(0) => return None,
            Some(n) => *n -= 1,
            None => {}
        }
        (len <= FRAME_MAX).then(|| MemoryFrame::new(vec![0; len]))
    }
}

impl BurstIo for MemoryIo {
    fn queues(&self) -> usize {
        self.received.len()
    }

    fn receive(&mut self, queue: usize, burst: &mut Burst<MemoryFrame>, max: usize) -> PortId {
        if let Some(frames) = self.received.get_mut(queue) {
            let n = frames.len().min(BURST_MAX - burst.len()).min(max);
            burst.extend(frames.drain(..n));
        }
        PortId(queue as u8)
    }

    fn transmit(&mut self, port: PortId, burst: &mut Burst<MemoryFrame>) -> usize {
        let n = self.transmissions_left.map_or(burst.len(), |left| left.min(burst.len()));
        if let Some(left) = &mut self.transmissions_left {
            *left -= n;
        }
        self.sent.extend(burst.drain(..n).map(|frame| (port, frame)));
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_and_cuts_like_one_buffer() {
        let bytes: Vec<u8> = (0..100).collect();
        for len in [0, 1, 30, 31, 60, 99, 100, 200] {
            let mut frame = MemoryFrame::chain(&bytes, &[30, 30]);
            assert_eq!((frame.total_len(), frame.segments().count()), (100, 3));
            frame.truncate(len);
            assert_eq!(frame.bytes(), bytes[..len.min(100)]);
        }
    }

    #[test]
    fn a_head_grows_as_far_as_there_is_room() {
        let mut frame = MemoryFrame::chain(&[1, 2, 3], &[2]).with_headroom(3);
        assert!(frame.strip_front(1));
        assert!(!frame.push_front(5));
        assert!(frame.push_front(4));
        assert_eq!(frame.bytes(), [0, 0, 0, 0, 2, 3]);
        assert!(!frame.push_front(1));
    }

    #[test]
    fn frames_are_chained_and_grow_at_their_end() {
        let mut frame = MemoryFrame::new([1, 2]);
        assert!(frame.append(&[3]));
        frame.chain(MemoryFrame::chain(&[4, 5], &[1])).unwrap();
        assert!(frame.append(&[6]));
        assert!(!frame.append(&[0; FRAME_MAX]));
        assert_eq!((frame.bytes(), frame.segments().count()), (vec![1, 2, 3, 4, 5, 6], 3));
    }

    #[test]
    fn a_device_that_takes_no_more_leaves_the_rest_in_order() {
        let mut io = MemoryIo::new(1);
        io.transmissions_left = Some(1);
        let mut burst = Burst::new();
        burst.push(MemoryFrame::new([1]));
        burst.push(MemoryFrame::new([2]));
        io.transmit(PortId(0), &mut burst);
        assert_eq!(io.pop_sent(), Some((PortId(0), MemoryFrame::new([1]))));
        assert_eq!(burst.pop(), Some(MemoryFrame::new([2])));
    }
}
