//! Links that go down and come up.
//!
//! The drivers are asked a few times a second, as interrupts for changes are something few of them
//! have; a link that is down for less than that goes unnoticed. Nothing is kept from a port without
//! link: its driver takes frames or does not, and what it does not take is dropped as `tx-full`.
//! Routes by it stay in use, as Linux does without `ignore_routes_with_linkdown`.

use dataplane::time::Tick;

use super::ControlCore;
use crate::tools::stats::{Wire, WireLink};

impl ControlCore {
    /// Takes in what the drivers tell of the wires, by port number. A change is logged once and
    /// told to the port's host tap; with its link a port loses its neighbours, unless the file
    /// names them (`neigh_carrier_down`), so that a cable moved elsewhere is learnt anew.
    pub fn set_wires(&mut self, wires: Vec<Wire>) {
        let now = self.tick_now();
        for (number, wire) in wires.iter().enumerate() {
            let before = self.wires.get(number).and_then(|wire| wire.link);
            if let Some(link) = wire.link {
                self.link_is(number as u8, before, link, now);
            }
        }
        self.wires = wires;
    }

    /// What is up when it is first looked at needs no words.
    fn link_is(&mut self, port: u8, before: Option<WireLink>, link: WireLink, now: Tick) {
        let was_up = before.is_none_or(|before| before.up);
        let name = self.config.ports.get(usize::from(port)).map_or("", |port| &port.name);
        if !link.up && was_up {
            log::warn!("port {name}: link down");
            self.neighbours.forget_port(port, now);
        } else if link.up && before.is_some_and(|before| before != link) {
            log::info!("port {name}: link up{}", link.details());
        }
        self.set_carrier(port, link.up);
    }
}
