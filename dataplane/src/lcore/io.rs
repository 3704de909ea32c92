//! The border to the world of devices: bursts of frames in and out of numbered ports.

use crate::pipeline::frame::{Burst, FramePool};
use crate::rules::facts::PortId;

/// The ports of one lcore: its receive queues, its transmit queues, its mempool.
pub trait BurstIo: FramePool {
    /// Number of ports.
    fn ports(&self) -> usize;

    /// Appends what has arrived at a port, at most `max` frames and as much as there is room for.
    fn receive(&mut self, port: PortId, burst: &mut Burst<Self::Frame>, max: usize);

    /// Sends from the front of `burst`; what the device does not take now stays, in order. Returns
    /// how many frames it can never send (chains, where it has no room for more than one segment)
    /// and that are therefore gone.
    fn transmit(&mut self, port: PortId, burst: &mut Burst<Self::Frame>) -> usize;
}
