//! The gateway's own box: the kernel interfaces (`host_tap`) by which its programs are reached, and
//! what the kernel learns there.
//!
//! A tap stands for a port. [`Host::open`] gives it the port's MAC address, MTU and addresses and
//! takes it up; the kernel does what it does with any interface. From then on two things are asked
//! of the kernel: addresses of the taps that the file does not name (a DHCP client's) and routes
//! of the main table by a tap (a routing daemon's). Both become part of the snapshot ([`Learnt`]).
//! Routes that drop packets (blackhole, unreachable, prohibit) name no interface; those of routing
//! daemons are taken, the box's own (proto kernel or boot) are not. Of several nexthops the first
//! that is on a tap is used.
//!
//! [`Host::poll`] is called in every round of the control core and reads a bounded number of
//! messages. When the kernel had to drop some, or when they do not say enough, everything is dumped
//! again, part by part like any message, at a pace that leaves time for the rest.
//!
//! The state of the wire is passed on by `IFLA_CARRIER`, which the kernel's tun driver takes over
//! netlink: addresses and routes stay, routing daemons see the link go. `ip link set down` would
//! have lost the routes, and `TUNSETCARRIER` needs the descriptor that DPDK holds. Routes through a
//! port without link are used all the same, as Linux does without `ignore_routes_with_linkdown`.
//!
//! | file | does |
//! |---|---|
//! | `netlink` | the two sockets |
//! | `setup` | orders to the kernel: MAC address, MTU, addresses, carrier |
//! | `table` | what the kernel has, and what of it is learnt |

mod netlink;
mod setup;
mod table;

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use dataplane::wire::address::Address;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::LinkFlags;

use crate::config::Prefixed;
use crate::publish::Learnt;
use netlink::{Dump, Heard, Listener, Look, Requests};
use table::Table;

/// Messages read in one round, give or take one part of a dump.
const MESSAGES: usize = 256;

/// The least time between two dumps.
const DUMP_PAUSE: Duration = Duration::from_millis(50);

/// What the first dump may take; a table of a million routes takes seconds.
const FIRST_DUMP: Duration = Duration::from_secs(30);

/// A kernel interface and the port it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name.
    pub name: String,
    /// The number of the port.
    pub port: u8,
    /// The port's MAC address.
    pub mac: [u8; 6],
    /// The port's MTU in bytes.
    pub mtu: u16,
    /// The port's addresses: the file's, and the link-local one.
    pub addresses: Vec<Prefixed>,
}

/// What went wrong between the gateway and the kernel.
#[derive(Debug)]
pub enum HostError {
    /// No route socket.
    Socket(io::Error),
    /// A tap that was not found, or not as it has to be.
    Tap {
        /// Its name.
        name: String,
        /// What was asked for.
        what: &'static str,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel's tables could not be read to their end.
    Unread,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostError::Socket(e) => write!(f, "host taps: no route socket: {e}"),
            HostError::Tap { name, what, error } => write!(f, "host_tap {name}: {what}: {error}"),
            HostError::Unread => f.write_str("host taps: the kernel's routes could not be read"),
        }
    }
}

impl std::error::Error for HostError {}

/// A tap with what the kernel calls it.
struct Placed {
    tap: Tap,
    index: u32,
    up: bool,
    /// What the wire was last said to be; the kernel begins with up.
    carrier: bool,
}

/// The taps and the kernel's word about them.
pub struct Host {
    requests: Requests,
    listener: Listener,
    taps: Vec<Placed>,
    table: Table,
    dumping: Option<Dump>,
    /// The kernel's tables changed under the dump, or messages were lost.
    torn: bool,
    dump_began: Instant,
    dump_not_before: Instant,
    dumps: u64,
    not_learnt: (usize, u64),
}

impl Host {
    /// Sets the taps up and reads what the kernel has on them already.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn open(taps: Vec<Tap>) -> Result<Host, HostError> {
        Host::open_with(taps, None)
    }

    /// As [`Host::open`], with a receive buffer of so many bytes instead of a large one.
    ///
    /// # Errors
    /// See [`HostError`].
    pub fn open_with(taps: Vec<Tap>, receive_bytes: Option<i32>) -> Result<Host, HostError> {
        let mut requests = Requests::open().map_err(HostError::Socket)?;
        let mut placed = Vec::new();
        for tap in taps {
            let index = setup::find(&mut requests, &tap)?;
            setup::set_up(&mut requests, &tap, index)?;
            placed.push(Placed { tap, index, up: true, carrier: true });
        }
        let listener = Listener::open(receive_bytes).map_err(HostError::Socket)?;
        let now = Instant::now();
        let mut host = Host {
            requests,
            listener,
            table: Table::new(placed.iter().map(|p| (p.index, p.tap.port)).collect()),
            taps: placed,
            dumping: None,
            torn: true,
            dump_began: now,
            dump_not_before: now,
            dumps: 0,
            not_learnt: (0, 0),
        };
        host.poll();
        while host.dumps == 0 {
            if now.elapsed() > FIRST_DUMP {
                return Err(HostError::Unread);
            }
            if !host.poll() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(host)
    }

    /// Reads what has been heard, a bounded part of it. True if there was something.
    pub fn poll(&mut self) -> bool {
        let mut left = MESSAGES;
        let mut heard_any = false;
        while left > 0 {
            let mut heard = Vec::new();
            match self.listener.look(|one| heard.push(one)) {
                Ok((Look::Empty, _)) => break,
                Ok((Look::Overflow, _)) => {
                    log::debug!("host: the kernel dropped messages");
                    self.torn = true;
                    left -= 1;
                }
                Ok((Look::Read, count)) => left = left.saturating_sub(count.max(1)),
                Err(error) => {
                    log::error!("host: route socket: {error}");
                    break;
                }
            }
            heard_any = true;
            heard.into_iter().for_each(|one| self.hear(one));
        }
        self.torn |= self.table.take_doubtful();
        if self.torn && self.dumping.is_none() && Instant::now() >= self.dump_not_before {
            self.begin_dump();
        }
        heard_any
    }

    /// True once after something has changed, and not in the middle of a dump.
    pub fn take_changed(&mut self) -> bool {
        self.dumping.is_none() && self.table.take_changed()
    }

    /// What the kernel has learnt, without what the gateway has put there or is about to:
    /// `named` says which addresses of a port that is.
    pub fn learnt(&self, named: impl Fn(u8, Address) -> bool) -> Learnt {
        self.table.learnt(|port, address| {
            let ours = |p: &Placed| {
                p.tap.port == port && p.tap.addresses.iter().any(|a| a.address == address)
            };
            named(port, address) || self.taps.iter().any(ours)
        })
    }

    /// How often everything was read anew.
    pub fn dumps(&self) -> u64 {
        self.dumps
    }

    /// Gives the tap of a port these addresses instead of those it was given before. Whatever else
    /// it has stays.
    pub fn set_addresses(&mut self, port: u8, addresses: &[Prefixed]) {
        let Some(placed) = self.taps.iter_mut().find(|p| p.tap.port == port) else { return };
        let old = std::mem::replace(&mut placed.tap.addresses, addresses.to_vec());
        let gone: Vec<Prefixed> = old.into_iter().filter(|a| !addresses.contains(a)).collect();
        for address in gone {
            let removed = setup::remove_address(&mut self.requests, placed.index, address);
            self.table.drop_address(placed.index, address);
            if let Err(error) = removed {
                let (name, address) = (&placed.tap.name, address.address);
                log::warn!("host_tap {name}: address {address} not removed: {error}");
            }
        }
        add_addresses(&mut self.requests, placed);
    }

    /// Says what the wire of a port is like.
    pub fn set_carrier(&mut self, port: u8, up: bool) {
        let Some(placed) = self.taps.iter_mut().find(|p| p.tap.port == port) else { return };
        if placed.carrier == up {
            return;
        }
        placed.carrier = up;
        let name = &placed.tap.name;
        match setup::set_carrier(&mut self.requests, placed.index, up) {
            Ok(()) => log::info!("host_tap {name}: link {}", if up { "up" } else { "down" }),
            Err(error) => log::warn!("host_tap {name}: carrier not set: {error}"),
        }
    }

    fn begin_dump(&mut self) {
        self.dump_began = Instant::now();
        // A link may have changed unheard too.
        for at in 0..self.taps.len() {
            let index = self.taps[at].index;
            match setup::is_up(&mut self.requests, index) {
                Ok(up) => self.link_is(index, up),
                Err(_) => self.link_gone(index),
            }
        }
        self.table.begin_dump();
        self.torn = false;
        self.dump(Dump::Addresses4);
    }

    fn dump(&mut self, what: Dump) {
        self.dumping = match self.listener.dump(what) {
            Ok(()) => Some(what),
            Err(error) => {
                log::error!("host: dump: {error}");
                self.torn = true;
                self.end_dump();
                None
            }
        };
    }

    fn dumped(&mut self, whole: bool) {
        self.torn |= !whole;
        let Some(what) = self.dumping else { return };
        if let Some(next) = what.next() {
            self.dump(next);
            return;
        }
        self.dumping = None;
        self.dumps += 1;
        self.end_dump();
    }

    fn end_dump(&mut self) {
        // What a torn dump did not show may be there; the next one tells.
        if !self.torn {
            self.table.end_dump();
        }
        let now = Instant::now();
        self.dump_not_before = now + DUMP_PAUSE.max((now - self.dump_began) * 4);
        let not_learnt = self.table.not_learnt();
        if not_learnt != self.not_learnt {
            self.not_learnt = not_learnt;
            let (unusable, beyond) = not_learnt;
            log::warn!("host: {unusable} routes cannot be used, {beyond} had no room");
        }
    }

    fn hear(&mut self, heard: Heard) {
        let (message, dumped, flags) = match heard {
            Heard::Message { message, dumped, flags } => (message, dumped, flags),
            Heard::Dumped { whole } => return self.dumped(whole),
            Heard::NexthopGone => {
                self.torn = true;
                return;
            }
        };
        match *message {
            Message::NewAddress(m) => self.table.add_address(&m),
            Message::DelAddress(m) => self.table.remove_address(&m),
            Message::NewRoute(m) => self.table.add_route(&m, dumped, flags),
            Message::DelRoute(m) => self.table.remove_route(&m),
            Message::NewLink(m) => {
                self.link_is(m.header.index, m.header.flags.contains(LinkFlags::Up));
            }
            Message::DelLink(m) => self.link_gone(m.header.index),
            _ => {}
        }
    }

    /// Down, it loses its routes (IPv4 without a word) and its IPv6 addresses; up again, it gets
    /// its addresses again.
    fn link_is(&mut self, index: u32, up: bool) {
        let Some(placed) = self.taps.iter_mut().find(|p| p.index == index) else { return };
        if placed.up != up {
            placed.up = up;
            self.torn = true;
            if up {
                add_addresses(&mut self.requests, placed);
            }
        }
    }

    fn link_gone(&mut self, index: u32) {
        let Some(at) = self.taps.iter().position(|p| p.index == index) else { return };
        let gone = self.taps.remove(at);
        log::error!("host_tap {}: the interface is gone from this namespace", gone.tap.name);
        self.table.forget_tap(index);
        self.torn = true;
    }
}

fn add_addresses(requests: &mut Requests, placed: &Placed) {
    for address in &placed.tap.addresses {
        if let Err(error) = setup::add_address(requests, placed.index, *address) {
            let (name, address) = (&placed.tap.name, address.address);
            log::warn!("host_tap {name}: address {address} not added: {error}");
        }
    }
}
