//! Where an lcore stands among the others: whose queues are whose, and who gets a new conn.
//!
//! A [`Layout`] is worked out once, when the ports are up and it is known how many queues each
//! device has. From it every lcore gets its [`Place`], which never changes and is read by nobody
//! else, so that the packet path asks no shared memory where a frame belongs.
//!
//! ```text
//!   a queue for each lcore     queue q of every port is lcore q's: a symmetric RSS hash brings
//!                              both directions of a conn to one lcore, whoever they come from
//!   fewer queues than lcores   queue q of port p is lcore (p + q)'s; whoever receives a new
//!                              conn's packet gives it to the lcore that its hash names
//!   no transmit queue here     what leaves by that port is handed to an lcore that has one
//! ```

use std::sync::Arc;

use crate::conntrack::tuple::Tuple;
use crate::pipeline::steering::Steering;
use crate::rules::facts::PortId;

/// Queues of one port's device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues; 0 for a port without a device of its own.
    pub rx: u16,
    /// Transmit queues; likewise.
    pub tx: u16,
}

/// Lcores and the queues of all ports, by port number.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Lcores that own conns, 1 to 127.
    pub lcores: u8,
    /// By port number.
    pub queues: Box<[Queues]>,
    /// How the devices choose a queue, by port number, as far as that is known.
    pub steering: Box<[Option<Arc<Steering>>]>,
}

impl Layout {
    /// One lcore and a pair of queues for each of `ports` ports.
    pub fn alone(ports: usize) -> Layout {
        Layout::even(1, ports, 1)
    }

    /// `lcores` lcores and `queues` pairs of queues for each of `ports` ports.
    pub fn even(lcores: u8, ports: usize, queues: u16) -> Layout {
        Layout::new(lcores, vec![Queues { rx: queues, tx: queues }; ports])
    }

    /// `lcores` lcores and the queues of each port; how devices choose among them is not known.
    pub fn new(lcores: u8, queues: Vec<Queues>) -> Layout {
        let steering = queues.iter().map(|_| None).collect();
        Layout { lcores: lcores.max(1), queues: queues.into_boxed_slice(), steering }
    }

    /// The lcore of the `queue`th of `queues` queues of a port.
    fn lcore_of(&self, port: PortId, queue: u16, queues: u16) -> u8 {
        let lcores = self.lcores as u16;
        let shift = if queues < lcores { port.0 as u16 } else { 0 };
        ((queue + shift) % lcores) as u8
    }

    /// The lcore that polls a receive queue.
    pub fn receiver(&self, port: PortId, queue: u16) -> u8 {
        let rx = self.queues.get(port.0 as usize).map_or(0, |q| q.rx);
        self.lcore_of(port, queue, rx)
    }

    /// The lcore that gets a new conn whose first packet, with this tuple and index hash, comes in
    /// by `port`; where the device does not tell its queues, the one that the hash names.
    pub fn newcomer(&self, port: PortId, tuple: &Tuple, hash: u64) -> u8 {
        let queues = self.queues.get(port.0 as usize).map_or(0, |q| q.rx);
        let steering = self.steering.get(port.0 as usize).and_then(Option::as_ref);
        match steering {
            Some(steering) if queues >= self.lcores as u16 => {
                self.receiver(port, steering.queue(tuple))
            }
            _ => spread(hash, self.lcores),
        }
    }

    /// The transmit queue of a port that belongs to an lcore, if one does.
    pub fn transmit_queue(&self, port: PortId, lcore: u8) -> Option<u16> {
        let tx = self.queues.get(port.0 as usize).map_or(0, |q| q.tx);
        (0..tx.min(self.lcores as u16)).find(|&q| self.lcore_of(port, q, tx) == lcore)
    }

    /// The lcore that sends on a port for `lcore`: itself, or one that has a queue. `None` for a
    /// port without a device.
    pub fn sender(&self, port: PortId, lcore: u8) -> Option<u8> {
        if self.transmit_queue(port, lcore).is_some() {
            return Some(lcore);
        }
        let tx = self.queues.get(port.0 as usize).map_or(0, |q| q.tx);
        (tx > 0).then(|| self.lcore_of(port, lcore as u16 % tx, tx))
    }

    /// What `lcore` has to know of all this.
    pub fn place(&self, lcore: u8) -> Place {
        let of = |(number, queues): (usize, &Queues)| {
            let port = PortId(number as u8);
            let spread = queues.rx < self.lcores as u16;
            let sender = self.sender(port, lcore).filter(|&sender| sender != lcore);
            let owners: Box<[u8]> = (0..queues.rx).map(|q| self.receiver(port, q)).collect();
            let steering = self.steering.get(number).and_then(Option::as_ref);
            let returns = steering.map(|steering| (Arc::clone(steering), owners));
            PortPlace { spread, sender, returns }
        };
        let ports = self.queues.iter().enumerate().map(of).collect();
        Place { lcore, lcores: self.lcores, ports }
    }
}

/// The lcore that an index hash names.
#[inline]
fn spread(hash: u64, lcores: u8) -> u8 {
    // Neither the bits that choose the bucket nor those of the tag.
    let bits = hash >> 16 & 0xffff;
    ((bits * lcores as u64) >> 16) as u8
}

#[derive(Clone, Debug)]
struct PortPlace {
    /// New conns that arrive here are given to the lcore that their hash names.
    spread: bool,
    /// Who sends on this port, if it is somebody else.
    sender: Option<u8>,
    /// Which queue a tuple arrives at, and whose queues those are.
    returns: Option<(Arc<Steering>, Box<[u8]>)>,
}

/// One lcore's view of the layout.
#[derive(Clone, Debug)]
pub struct Place {
    lcore: u8,
    lcores: u8,
    ports: Box<[PortPlace]>,
}

impl Place {
    /// This lcore's number, from 0.
    #[inline(always)]
    pub fn lcore(&self) -> u8 {
        self.lcore
    }

    /// How many lcores own conns.
    #[inline(always)]
    pub fn lcores(&self) -> u8 {
        self.lcores
    }

    /// True if there is no other lcore to hand anything to.
    #[inline(always)]
    pub fn is_alone(&self) -> bool {
        self.lcores == 1
    }

    /// The other lcore that a new conn with this index hash belongs to when its first packet
    /// arrives at `port`. Both directions of a conn without NAT have the same hash.
    #[inline]
    pub fn elsewhere(&self, port: PortId, hash: u64) -> Option<u8> {
        if self.is_alone() || !self.ports.get(port.0 as usize)?.spread {
            return None;
        }
        self.named(hash)
    }

    /// The other lcore that a hash names, wherever what it is of arrives.
    #[inline]
    pub fn named(&self, hash: u64) -> Option<u8> {
        let lcore = spread(hash, self.lcores);
        (lcore != self.lcore).then_some(lcore)
    }

    /// True unless packets of this tuple are known to come in at `port` by another lcore's queue.
    #[inline]
    pub fn comes_here(&self, port: PortId, tuple: &Tuple) -> bool {
        let returns = self.ports.get(port.0 as usize).and_then(|place| place.returns.as_ref());
        let Some((steering, owners)) = returns else { return true };
        owners.get(steering.queue(tuple) as usize).is_none_or(|&owner| owner == self.lcore)
    }

    /// Gives a port without a device the place of the one whose device carries its frames: its
    /// new conns are spread, its answers come in, and its frames are sent, as that one's.
    pub(crate) fn follow(&mut self, port: PortId, device: PortId) {
        let of_device = self.ports.get(device.0 as usize).cloned();
        if let (Some(place), Some(of_device)) = (self.ports.get_mut(port.0 as usize), of_device) {
            *place = of_device;
        }
    }

    /// The other lcore that sends on `port`, if this one has no queue there.
    #[inline(always)]
    pub fn sender(&self, port: PortId) -> Option<u8> {
        self.ports.get(port.0 as usize)?.sender
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conntrack::tuple::proto;
    use crate::pipeline::steering::{Functions, SYMMETRIC_KEY};
    use crate::wire::address::Address;

    #[test]
    fn with_a_queue_each_the_queue_is_the_lcore_on_every_port() {
        let layout = Layout::even(4, 3, 4);
        for port in 0..3 {
            for queue in 0..4 {
                assert_eq!(layout.receiver(PortId(port), queue), queue as u8);
                assert_eq!(layout.transmit_queue(PortId(port), queue as u8), Some(queue));
            }
        }
        let place = layout.place(2);
        assert_eq!(place.elsewhere(PortId(0), 0x1234_5678_9abc_def0), None);
        assert_eq!(place.sender(PortId(1)), None);
    }

    #[test]
    fn single_queues_are_shared_out_and_everybody_can_send() {
        let layout = Layout::even(3, 2, 1);
        assert_eq!(layout.receiver(PortId(0), 0), 0);
        assert_eq!(layout.receiver(PortId(1), 0), 1);
        for lcore in 0..3 {
            assert_eq!(layout.sender(PortId(0), lcore), Some(0));
            assert_eq!(layout.sender(PortId(1), lcore), Some(1));
        }
        assert_eq!(layout.transmit_queue(PortId(1), 1), Some(0));
        assert_eq!(layout.place(1).sender(PortId(1)), None);
        assert_eq!(layout.place(2).sender(PortId(1)), Some(1));
    }

    #[test]
    fn two_transmit_queues_serve_five_lcores_evenly() {
        let layout = Layout::new(5, vec![Queues { rx: 7, tx: 2 }, Queues { rx: 0, tx: 0 }]);
        let senders: Vec<_> = (0..5).map(|l| layout.sender(PortId(0), l)).collect();
        assert_eq!(senders, [Some(0), Some(1), Some(0), Some(1), Some(0)]);
        assert_eq!(layout.receiver(PortId(0), 6), 1, "more queues than lcores go round");
        assert_eq!(layout.sender(PortId(1), 3), None);
    }

    #[test]
    fn a_port_that_another_carries_has_its_place() {
        let queues =
            vec![Queues { rx: 0, tx: 0 }, Queues { rx: 2, tx: 1 }, Queues { rx: 1, tx: 1 }];
        let layout = Layout::new(2, queues);
        for (lcore, (to_1, to_2)) in [(0, (Some(1), None)), (1, (None, Some(0)))] {
            let mut place = layout.place(lcore);
            assert!((0..100).any(|n| place.elsewhere(PortId(0), n << 30).is_some()));
            place.follow(PortId(0), PortId(1));
            assert_eq!(place.sender(PortId(0)), to_1, "{lcore}");
            assert!((0..100).all(|n| place.elsewhere(PortId(0), n << 30).is_none()));
            place.follow(PortId(0), PortId(2));
            assert_eq!(place.sender(PortId(0)), to_2, "{lcore}");
            assert!((0..100).any(|n| place.elsewhere(PortId(0), n << 30).is_some()));
        }
    }

    #[test]
    fn hashes_spread_over_all_lcores_and_all_agree() {
        let layout = Layout::even(3, 1, 1);
        let places: Vec<Place> = (0..3).map(|l| layout.place(l)).collect();
        let mut counts = [0; 3];
        let mut hash = 0x9e37_79b9_7f4a_7c15u64;
        for _ in 0..30_000 {
            hash = hash.wrapping_mul(0x2545_f491_4f6c_dd1d).rotate_left(17) ^ 0xabcd;
            let owners: Vec<u8> =
                places.iter().map(|p| p.elsewhere(PortId(0), hash).unwrap_or(p.lcore())).collect();
            assert!(owners.iter().all(|o| *o == owners[0]));
            counts[owners[0] as usize] += 1;
        }
        assert!(counts.iter().all(|n| (9_000..11_000).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_tuple_comes_to_the_lcore_whose_queue_the_device_chooses() {
        let (reta, functions) = ([0, 1, 2, 1], Functions::PORTS);
        let steering = Steering::new(&SYMMETRIC_KEY, &reta, functions, functions).unwrap();
        let mut layout = Layout::even(3, 2, 3);
        layout.steering[1] = Some(Arc::new(steering));
        let places: Vec<Place> = (0..3).map(|l| layout.place(l)).collect();
        let mut shares = [0; 3];
        for port in 1024..2048 {
            let (src, dst) = (Address::v4(0xcb00_7101), Address::v4(0xc633_6407));
            let tuple = Tuple { src, dst, src_id: port, dst_id: 53, proto: proto::UDP };
            let here: Vec<usize> =
                (0..3).filter(|&l| places[l].comes_here(PortId(1), &tuple)).collect();
            let queue = layout.steering[1].as_ref().unwrap().queue(&tuple);
            assert_eq!(here, [usize::from(queue)]);
            shares[here[0]] += 1;
            // Of a port that does not tell, anything may be true.
            assert!(places.iter().all(|p| p.comes_here(PortId(0), &tuple)));
        }
        assert!(shares[1] > shares[0] && shares[0] > 200 && shares[2] > 200, "{shares:?}");
    }
}
