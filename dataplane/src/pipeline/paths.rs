//! Cached paths: what a walk of the hooks did, kept so that the next packet need not walk.
//!
//! A walk for (direction, state, in-port) that looked at no per-packet fact always hits the same
//! rules and ends the same way until the policy changes. Such an outcome is interned here under a
//! small number, which the conn's record keeps per direction together with the policy generation.
//! One table per lcore, which is its only writer; a fixed number of entries, no allocation. When it
//! is full, packets walk. Counting is per path; [`Paths::fold`] spreads the sums over the rules.

use arrayvec::ArrayVec;

use crate::conntrack::state::CtState;
use crate::pipeline::drops::DropReason;
use crate::rules::compiled::CounterId;
use crate::rules::facts::PortId;

/// Rules one cached path may hit; a longer walk is not cached.
pub const HITS_MAX: usize = 24;

/// Paths per lcore.
pub const PATHS_MAX: usize = 2048;

const SLOTS: usize = PATHS_MAX * 2;

/// Counters hit on the way, in order.
pub type Hits = ArrayVec<CounterId, HITS_MAX>;

/// Where the packets of a path end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathEnd {
    /// Sent out of a port.
    Forward(PortId),
    /// Dropped; behind a route if there is a port: TTL and size are judged before rules are there.
    Drop(DropReason, Option<PortId>),
}

/// What identifies a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// IPv6 rules were walked.
    pub v6: bool,
    /// Where the packet came in.
    pub in_port: PortId,
    /// Its state in the rules' eyes.
    pub state: CtState,
    /// Where it went.
    pub end: PathEnd,
    /// What it hit.
    pub hits: Hits,
}

/// One interned path with its sums since the last fold, on cache lines of its own.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct Path {
    route: Route,
    packets: u64,
    /// Their lengths from the IP header on.
    bytes: u64,
}

/// The table of one lcore.
#[derive(Debug)]
pub struct Paths {
    paths: Vec<Path>,
    slots: Box<[u16; SLOTS]>,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { paths: Vec::with_capacity(PATHS_MAX), slots: Box::new([0; SLOTS]) }
    }
}

impl Paths {
    /// What a number stands for that [`Paths::intern`] gave since the last [`Paths::clear`].
    #[inline]
    pub fn route(&self, number: u16) -> Option<&Route> {
        self.paths.get((number as usize).wrapping_sub(1)).map(|p| &p.route)
    }

    /// Counts packets that took a path, of `bytes` bytes in all.
    #[inline]
    pub fn count(&mut self, number: u16, packets: u64, bytes: u64) {
        if let Some(path) = self.paths.get_mut((number as usize).wrapping_sub(1)) {
            path.packets += packets;
            path.bytes += bytes;
        }
    }

    /// The number of a path, the same for the same path; `None` when the table is full.
    /// Numbers start at 1: 0 in a record means that nothing is cached.
    pub fn intern(&mut self, route: &Route) -> Option<u16> {
        let mut slot = hash(route) as usize % SLOTS;
        // Half of the slots stay empty, so this ends.
        loop {
            let number = self.slots[slot];
            if number == 0 {
                break;
            }
            if self.paths[number as usize - 1].route == *route {
                return Some(number);
            }
            slot = (slot + 1) % SLOTS;
        }
        if self.paths.len() == PATHS_MAX {
            return None;
        }
        self.paths.push(Path { route: route.clone(), packets: 0, bytes: 0 });
        let number = self.paths.len() as u16;
        self.slots[slot] = number;
        Some(number)
    }

    /// Hands each path's sums to `count(v6, counter, packets, bytes)` and zeroes them.
    pub fn fold(&mut self, mut count: impl FnMut(bool, CounterId, u64, u64)) {
        for path in self.paths.iter_mut().filter(|p| p.packets > 0) {
            for &hit in &path.route.hits {
                count(path.route.v6, hit, path.packets, path.bytes);
            }
            path.packets = 0;
            path.bytes = 0;
        }
    }

    /// Forgets everything: the policy changed, and with it the meaning of each counter.
    pub fn clear(&mut self) {
        self.paths.clear();
        self.slots.fill(0);
    }

    /// Paths in use.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// True if nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

fn hash(route: &Route) -> u64 {
    let end = match route.end {
        PathEnd::Forward(port) => port.0 as u64,
        PathEnd::Drop(reason, port) => {
            0x100 | reason as u64 | port.map_or(0, |p| (p.0 as u64 + 1) << 9)
        }
    };
    let mut h = end << 32 | (route.in_port.0 as u64) << 16 | (route.state as u64) << 1;
    h |= route.v6 as u64;
    for hit in &route.hits {
        h = (h ^ hit.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
    h.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(n: u32) -> Route {
        Route {
            v6: false,
            in_port: PortId(0),
            state: CtState::Established,
            end: PathEnd::Forward(PortId(1)),
            hits: [CounterId(n), CounterId(7)].into_iter().collect(),
        }
    }

    #[test]
    fn the_same_walk_gets_the_same_number_and_its_sums_reach_the_rules() {
        let mut paths = Paths::default();
        let a = paths.intern(&route(1)).unwrap();
        let b = paths.intern(&route(2)).unwrap();
        assert_ne!(a, b);
        assert_eq!(paths.intern(&route(1)), Some(a));
        for _ in 0..3 {
            paths.count(a, 1, 100);
        }
        let mut seen = Vec::new();
        paths.fold(|v6, counter, packets, bytes| seen.push((v6, counter.0, packets, bytes)));
        assert_eq!(seen, [(false, 1, 3, 300), (false, 7, 3, 300)]);
        paths.fold(|_, _, _, _| panic!("folded twice"));
        paths.clear();
        assert!(paths.route(a).is_none() && paths.route(0).is_none());
    }

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut paths = Paths::default();
        for n in 0..PATHS_MAX as u32 {
            assert_eq!(paths.intern(&route(n)), Some(n as u16 + 1));
        }
        assert_eq!(paths.intern(&route(u32::MAX)), None);
        assert_eq!(paths.intern(&route(5)), Some(6));
    }
}
