//! The border to the world of devices: bursts of frames in and out of numbered ports.

use crate::pipeline::frame::{Burst, FramePool};
use crate::rules::facts::PortId;

/// What one lcore has of the ports: its receive queues, its transmit queues, its mempool.
pub trait BurstIo: FramePool {
    /// Receive queues of this lcore, of all ports together.
    fn queues(&self) -> usize;

    /// Appends what has arrived at the `queue`th of them, at most `max` frames and as much as there
    /// is room for; the port it belongs to.
    fn receive(&mut self, queue: usize, burst: &mut Burst<Self::Frame>, max: usize) -> PortId;

    /// Sends from the front of `burst`; what the device does not take now stays, in order. Returns
    /// how many frames it can never send (chains, where it has no room for more than one segment)
    /// and that are therefore gone. A port without a transmit queue here takes nothing.
    fn transmit(&mut self, port: PortId, burst: &mut Burst<Self::Frame>) -> usize;
}
