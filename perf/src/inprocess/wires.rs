//! Ports in memory: a source makes the frames that arrive, and sees those that leave.

use dataplane::lcore::io::BurstIo;
use dataplane::pipeline::frame::{BURST_MAX, Burst, FramePool};
use dataplane::rules::facts::PortId;

use super::frame::{Slot, Spare};

/// Ports of every gateway here: inside and outside.
pub(crate) const PORTS: usize = 2;

/// What happens at the far end of the ports.
pub(crate) trait Source: Send {
    /// Appends at most `room` frames that have arrived at a port.
    fn arrive(&mut self, port: usize, room: usize, spare: &mut Spare, burst: &mut Burst<Slot>);

    /// Sees frames that leave by a port.
    fn left(&mut self, _port: usize, _frames: &[Slot]) {}
}

/// The ports of the one worker.
pub(crate) struct Wires<S> {
    pub(crate) source: S,
    spare: Spare,
    /// Frames that have arrived and left.
    pub(crate) arrived: u64,
    pub(crate) left: u64,
}

impl<S: Source> Wires<S> {
    pub(crate) fn new(source: S) -> Wires<S> {
        Wires { source, spare: Spare::default(), arrived: 0, left: 0 }
    }

    /// A round without a gateway: what arrives leaves by the other port. What that costs is the
    /// floor of every measurement. Returns how many frames there were.
    pub(crate) fn pass_by(&mut self) -> usize {
        let mut done = 0;
        for port in 0..PORTS {
            let mut burst = Burst::new();
            self.receive(port, &mut burst, super::BURST);
            done += burst.len();
            if !burst.is_empty() {
                self.transmit(PortId(1 - port as u8), &mut burst);
            }
        }
        done
    }
}

impl<S: Source> FramePool for Wires<S> {
    type Frame = Slot;
    type Notes = ();

    fn allocate(&mut self, len: usize) -> Option<Slot> {
        (len <= Slot::MAX).then(|| self.spare.take(len))
    }
}

impl<S: Source> BurstIo for Wires<S> {
    fn queues(&self) -> usize {
        PORTS
    }

    #[inline]
    fn receive(&mut self, queue: usize, burst: &mut Burst<Slot>, max: usize) -> PortId {
        let before = burst.len();
        let room = max.min(BURST_MAX - before);
        self.source.arrive(queue, room, &mut self.spare, burst);
        self.arrived += (burst.len() - before) as u64;
        PortId(queue as u8)
    }

    #[inline]
    fn transmit(&mut self, port: PortId, burst: &mut Burst<Slot>) -> usize {
        self.left += burst.len() as u64;
        self.source.left(port.0 as usize, burst);
        for slot in burst.drain(..) {
            self.spare.give(slot);
        }
        0
    }
}
