//! TCP conns from their first to their last packet: SYN, SYN and ACK, ACK, FIN, ACK, FIN, ACK.
//!
//! Conns go through this in waves: the first packets of a whole wave, then the second ones, and so
//! on, so that as many conns are between two packets as there would be with round trips of some
//! milliseconds. Servers answer to what they saw.

use dataplane::pipeline::frame::{Burst, Frame};
use dataplane::wire::tcp::flags::{ACK, FIN, SYN};

use super::frame::{Slot, Spare};
use super::packets::{Ends, Segment, Template, Way, ends_of};
use super::wires::Source;

/// Packets of a conn.
pub(crate) const PACKETS: usize = 7;
/// Packets until a conn is established.
pub(crate) const HANDSHAKE: usize = 3;
/// Conns of a wave.
const WAVE: u32 = 4096;
/// First sequence numbers of clients and servers.
const CLIENT: u32 = 1_000_000;
const SERVER: u32 = 3_000_000_000;
/// What a client's packet shows once its conn is established: sequence number, acknowledgement.
pub(crate) const SEQ_AFTER_HANDSHAKE: (u32, u32) = (CLIENT + 1, SERVER + 1);

/// What clients and servers send, in order.
fn packets() -> [(Way, Segment); PACKETS] {
    let out = |seq, ack, flags| (Way::Out, Segment { seq: CLIENT + seq, ack, flags });
    let back = |seq, ack, flags| (Way::In, Segment { seq: SERVER + seq, ack: CLIENT + ack, flags });
    [
        out(0, 0, SYN),
        back(0, 1, SYN | ACK),
        out(1, SERVER + 1, ACK),
        out(1, SERVER + 1, FIN | ACK),
        back(1, 2, ACK),
        back(1, 2, FIN | ACK),
        out(2, SERVER + 2, ACK),
    ]
}

/// Clients and servers of TCP conns.
pub(crate) struct Transactions {
    templates: Vec<(Way, Template)>,
    /// The packets that each conn sends, and the conns.
    stages: usize,
    until: u32,
    /// The first conn of the wave; the packet that its conns send, and the conn that is next.
    first: u32,
    stage: usize,
    at: u32,
    /// Outside address and port of the wave's conns; first packets that have not left yet.
    learnt: Vec<(u32, u16)>,
    opening: usize,
}

impl Transactions {
    /// Conns 0 to `conns`, opened and closed.
    pub(crate) fn new(conns: u32) -> Transactions {
        let templates = packets().map(|(way, segment)| (way, Template::tcp(way, segment))).into();
        let learnt = Vec::with_capacity(WAVE as usize);
        Transactions {
            templates,
            stages: PACKETS,
            until: conns,
            first: 0,
            stage: 0,
            at: 0,
            learnt,
            opening: 0,
        }
    }

    /// The same, which are opened only.
    pub(crate) fn handshakes(conns: u32) -> Transactions {
        Transactions { stages: HANDSHAKE, ..Transactions::new(conns) }
    }

    fn wave(&self) -> u32 {
        (self.until - self.first).min(WAVE)
    }

    fn ends(&self, way: Way, nth: u32) -> Option<Ends> {
        let ends = Ends::of(self.first + nth);
        if way == Way::Out {
            return Some(ends);
        }
        let &(dst, dst_port) = self.learnt.get(nth as usize)?;
        Some(Ends { dst, dst_port, ..ends.reversed() })
    }
}

impl Source for Transactions {
    fn arrive(&mut self, port: usize, room: usize, spare: &mut Spare, burst: &mut Burst<Slot>) {
        let wave = self.wave();
        let Some((way, template)) = self.templates.get(self.stage) else { return };
        if wave == 0 || way.port() != port {
            return;
        }
        let to = (self.at + room as u32).min(wave);
        let ends = (self.at..to).filter_map(|nth| self.ends(*way, nth));
        ends.for_each(|ends| burst.push(template.frame(&ends, spare)));
        if self.stage == 0 {
            self.opening += (to - self.at) as usize;
        }
        self.at = to;
        if to == wave {
            (self.at, self.stage) = (0, self.stage + 1);
        }
        if self.stage == self.stages {
            (self.stage, self.first) = (0, self.first + wave);
            self.learnt.clear();
        }
    }

    fn left(&mut self, port: usize, frames: &[Slot]) {
        if port == Way::In.port() && self.opening > 0 {
            self.opening -= frames.len().min(self.opening);
            let seen = frames.iter().filter_map(|slot| ends_of(slot.head()));
            self.learnt.extend(seen.map(|ends| (ends.src, ends.src_port)));
        }
    }
}

#[cfg(test)]
mod tests {
    use sluicegate::tools::Gateway;

    use super::super::gateway::{Rig, Work};
    use super::*;

    #[test]
    fn conns_are_opened_and_closed_as_tcp_wants_it() {
        for (kind, stages, state) in [
            (Work::Snat, PACKETS, "TIME_WAIT"),
            (Work::Firewall, PACKETS, "TIME_WAIT"),
            (Work::Snat, HANDSHAKE, "ESTABLISHED"),
        ] {
            let conns = WAVE + 100;
            let source = Transactions { stages, ..Transactions::new(conns) };
            let mut rig = Rig::new(&kind.plan(1 << 14, "", 1), source).unwrap();
            rig.until_quiet().unwrap();
            rig.lost_nothing("transactions").unwrap();
            assert_eq!(rig.wires().left, u64::from(conns) * stages as u64);
            let listed = rig.ask(|core| core.conns()).unwrap().unwrap();
            assert_eq!(listed.len(), conns as usize);
            assert!(listed.iter().all(|conn| conn.state == Some(state)), "{:?}", listed[0]);
        }
    }
}
