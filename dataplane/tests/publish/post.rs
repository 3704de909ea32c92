//! A mailbox whose rings hold as few messages as a test wants: the only place here that knows how
//! mailboxes are made.

use dataplane::lcore::mailbox::{ControlEnd, LcoreEnd, mailbox};
use dataplane::pipeline::messages::{FromLcore, ToLcore};

/// Both ends of one lcore's mailbox.
pub(crate) struct Post {
    control: ControlEnd,
    lcore: LcoreEnd,
    bound: usize,
    to_lcore: usize,
    from_lcore: usize,
}

impl Post {
    /// With room for `bound` messages each way.
    pub(crate) fn new(bound: usize) -> Post {
        let (control, lcore) = mailbox();
        Post { control, lcore, bound, to_lcore: 0, from_lcore: 0 }
    }

    /// Drops what is on the way.
    pub(crate) fn clear(&mut self) {
        while self.receive().is_some() || self.collect().is_some() {}
    }

    /// True if the control core can send.
    pub(crate) fn has_room(&self) -> bool {
        self.to_lcore < self.bound
    }

    /// The control core sends.
    pub(crate) fn send(&mut self, message: ToLcore) {
        assert!(self.has_room());
        self.to_lcore += 1;
        self.control.send(message).expect("room");
    }

    /// The lcore takes a message.
    pub(crate) fn receive(&mut self) -> Option<ToLcore> {
        let message = self.lcore.receive()?;
        self.to_lcore -= 1;
        Some(message)
    }

    /// The lcore answers; the message comes back where there is no room.
    pub(crate) fn answer(&mut self, message: FromLcore) -> Result<(), FromLcore> {
        if self.from_lcore == self.bound {
            return Err(message);
        }
        self.from_lcore += 1;
        self.lcore.send(message)
    }

    /// The control core takes an answer.
    pub(crate) fn collect(&mut self) -> Option<FromLcore> {
        let message = self.control.receive()?;
        self.from_lcore -= 1;
        Some(message)
    }
}
