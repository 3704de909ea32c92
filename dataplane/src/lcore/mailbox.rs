//! How messages travel between the control core and an lcore: two bounded queues, never waited for.
//!
//! Whoever finds a queue full keeps the message or counts it as lost; an lcore never blocks on the
//! control core.

use crossbeam_queue::ArrayQueue;

use crate::pipeline::messages::{FromLcore, ToLcore};

/// Messages each queue holds.
const QUEUE_MAX: usize = 4096;

/// The two queues of one lcore.
#[derive(Debug)]
pub struct Mailbox {
    /// Control core to lcore.
    pub to_lcore: ArrayQueue<ToLcore>,
    /// Lcore to control core.
    pub from_lcore: ArrayQueue<FromLcore>,
}

impl Default for Mailbox {
    fn default() -> Mailbox {
        Mailbox { to_lcore: ArrayQueue::new(QUEUE_MAX), from_lcore: ArrayQueue::new(QUEUE_MAX) }
    }
}
