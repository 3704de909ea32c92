//! How messages travel between the control core and an lcore: two bounded rings, never waited for.
//!
//! Each ring has one writer and one reader, and both are wait-free: whoever is stopped in the
//! middle of a message holds nobody up, so an lcore never waits for the control core, nor the other
//! way round. Whoever finds a ring full keeps the message or counts it as lost.

use rtrb::{Consumer, Producer, PushError, RingBuffer};

use crate::pipeline::messages::{FromLcore, ToLcore};

/// Messages each ring holds.
const RING_MAX: usize = 4096;

/// The control core's end.
#[derive(Debug)]
pub struct ControlEnd {
    to_lcore: Producer<ToLcore>,
    from_lcore: Consumer<FromLcore>,
}

/// The lcore's end.
#[derive(Debug)]
pub struct LcoreEnd {
    to_lcore: Consumer<ToLcore>,
    from_lcore: Producer<FromLcore>,
}

/// The two ends of an lcore's mailbox.
pub fn mailbox() -> (ControlEnd, LcoreEnd) {
    let (to, to_lcore) = RingBuffer::new(RING_MAX);
    let (from_lcore, from) = RingBuffer::new(RING_MAX);
    (ControlEnd { to_lcore: to, from_lcore: from }, LcoreEnd { to_lcore, from_lcore })
}

impl ControlEnd {
    /// Sends a message; gives it back if there is no room.
    // A message that finds no room comes back whole.
    #[allow(clippy::result_large_err)]
    pub fn send(&mut self, message: ToLcore) -> Result<(), ToLcore> {
        self.to_lcore.push(message).map_err(|PushError::Full(message)| message)
    }

    /// The next message of the lcore.
    pub fn receive(&mut self) -> Option<FromLcore> {
        self.from_lcore.pop().ok()
    }

    /// True if the lcore has read all that was sent.
    pub fn is_read(&self) -> bool {
        self.to_lcore.slots() == RING_MAX
    }

    /// True if the next message finds room.
    pub fn has_room(&self) -> bool {
        self.to_lcore.slots() > 0
    }

    /// Messages that the lcore can leave unread.
    pub fn capacity(&self) -> usize {
        RING_MAX
    }
}

impl LcoreEnd {
    /// Sends a message; gives it back if there is no room.
    #[allow(clippy::result_large_err)]
    pub fn send(&mut self, message: FromLcore) -> Result<(), FromLcore> {
        self.from_lcore.push(message).map_err(|PushError::Full(message)| message)
    }

    /// The next message of the control core.
    pub fn receive(&mut self) -> Option<ToLcore> {
        self.to_lcore.pop().ok()
    }
}
