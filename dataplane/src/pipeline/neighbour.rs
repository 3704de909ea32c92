//! Link-layer addresses of hosts and gateways on the links: one table for all lcores and the
//! control core, without locks.
//!
//! A slot belongs to one (port, address) and its number is what conns remember as their next hop,
//! so sending costs one load: [`NeighbourTable::mac`]. Whoever needs a neighbour first claims a
//! slot ([`NeighbourTable::resolve`]); whoever receives ARP or neighbour discovery reports what it
//! heard ([`NeighbourTable::learn`]); the control core calls [`NeighbourTable::tick`], which runs
//! the kernel's timers and says what to ask. Packets that wait for an answer are held by the
//! worker.
//!
//! ```text
//! incomplete --answer--> reachable --30 s--> stale --used--> delay --5 s--> probe
//!     |                      ^                                                |  |
//!     |                      +------------------ answer ----------------------+  |
//!     +-- asked 3 times, 1 s apart --> failed <-- asked 3 times, 1 s apart ------+
//! ```
//!
//! A slot is four words: `owner` (phase, port, incarnation), two halves of the address, and `state`
//! (MAC, state, incarnation), plus the time of the last change. The address is written only while
//! the phase is CLAIMED, and a reader checks `owner` before and after, so it never sees half an
//! address. `state` carries the incarnation too, so a late writer cannot change a slot that has a
//! new owner.
//!
//! Bounds: capacity is fixed, [`WAYS`] slots can hold an address, so all searches are that long.
//! When they are full the slot that is worth least is taken: failed, then unanswered for a second,
//! then stale, the oldest of each; never a permanent or a fresh one. A slot keeps its owner, even
//! failed, until it is taken. Taking one that was ever known (its MAC address stays in the word)
//! raises [`NeighbourTable::epoch`]: numbers remembered from before must be resolved again; a
//! worker that compares epochs once per burst can at worst send the rest of that burst to the new
//! owner. Memory: 40 bytes a slot.

use crate::arch::sync::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::arch::sync::{AtomicU32, AtomicU64};
use crate::conntrack::tuple::{HashSeed, Tuple};
use crate::time::{TICKS_PER_SEC, Tick};
use crate::wire::address::Address;

/// Slots that can hold a given neighbour.
pub const WAYS: usize = 8;

/// Most slots of a table: their numbers fit 16 bits.
pub const CAPACITY_MAX: usize = 1 << 16;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NextHop(pub u16);

/// What is known of a neighbour (`NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Asked for the first time; no address yet.
    Incomplete = 0,
    /// Confirmed within the reachable time.
    Reachable = 1,
    /// Known, not confirmed lately.
    Stale = 2,
    /// Stale and in use: will be asked unless somebody confirms it.
    Delay = 3,
    /// Being asked directly; the address is still used.
    Probe = 4,
    /// Did not answer. The next packet asks anew.
    Failed = 5,
    /// Configured; no packet changes it.
    Permanent = 6,
}

/// Durations of the kernel's `net.ipv4.neigh` and `net.ipv6.neigh` settings, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long an answer counts; the kernel draws it anew between half and one and a half of
    /// `base_reachable_time`.
    pub reachable_s: u32,
    /// From use of a stale neighbour to the first question (`delay_first_probe_time`).
    pub delay_s: u32,
    /// Between questions (`retrans_time_ms`).
    pub retrans_s: u32,
    /// Questions before giving up (`mcast_solicit`, `ucast_solicit`); at most 7.
    pub probes: u8,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers { reachable_s: 30, delay_s: 5, retrans_s: 1, probes: 3 }
    }
}

/// What a worker gets for a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Send to this address.
    Known(NextHop, [u8; 6]),
    /// Hold the packet. If `ask`, this call started the question: send it now (broadcast ARP or
    /// multicast neighbour solicitation); [`NeighbourTable::tick`] repeats it.
    Pending {
        /// The slot to watch.
        next_hop: NextHop,
        /// Nobody has asked yet.
        ask: bool,
    },
    /// Every slot the address could use holds a neighbour that is worth more: drop the packet.
    Full,
}

/// Something a received ARP or neighbour discovery packet says of (port, address).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The link-layer address, if it was given.
    pub mac: Option<[u8; 6]>,
    /// It answers a question of ours, so the neighbour hears us.
    pub reachable: bool,
    /// Whether it may replace an address that is known.
    pub replace: Replace,
    /// Whether it makes an unknown neighbour known.
    pub create: bool,
}

/// When evidence may replace a known address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Always (`NEIGH_UPDATE_F_OVERRIDE`).
    Always,
    /// Only an address that has not changed for a second (ARP's lock time), else it is ignored.
    Settled,
    /// Never, but a reachable neighbour becomes doubtful (RFC 4861 section 7.2.5).
    Doubt,
}

impl Evidence {
    /// An ARP request for one of our addresses (`neigh_event_ns`).
    pub fn arp_request_for_us(sender: [u8; 6]) -> Evidence {
        Evidence { mac: Some(sender), reachable: false, replace: Replace::Always, create: true }
    }

    /// Any other ARP packet (`arp_process`): `answer` for a reply sent to our own MAC, `gratuitous`
    /// if sender and target address are the same.
    pub fn arp(sender: [u8; 6], answer: bool, gratuitous: bool) -> Evidence {
        let replace = if gratuitous { Replace::Always } else { Replace::Settled };
        Evidence { mac: Some(sender), reachable: answer, replace, create: false }
    }

    /// A neighbour solicitation for one of our addresses, with its source link-layer address; a
    /// router solicitation too.
    pub fn solicitation(source: [u8; 6]) -> Evidence {
        Evidence { mac: Some(source), reachable: false, replace: Replace::Always, create: true }
    }

    /// A neighbour advertisement with its flags.
    pub fn advertisement(target: Option<[u8; 6]>, solicited: bool, override_: bool) -> Evidence {
        let replace = if override_ { Replace::Always } else { Replace::Doubt };
        Evidence { mac: target, reachable: solicited, replace, create: false }
    }
}

/// What the control core has to do after a [`NeighbourTable::tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Ask for the address: to everybody, or to `unicast`.
    Ask {
        /// The slot.
        next_hop: NextHop,
        /// Where the neighbour is.
        port: u8,
        /// Who it is.
        address: Address,
        /// The address to ask at; `None` for ARP broadcast or the solicited-node group.
        unicast: Option<[u8; 6]>,
    },
    /// Gave up: packets that wait for it are answered with host unreachable.
    Failed {
        /// The slot.
        next_hop: NextHop,
    },
}

/// One neighbour, for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The slot.
    pub next_hop: NextHop,
    /// Where it is.
    pub port: u8,
    /// Who it is.
    pub address: Address,
    /// What is known.
    pub state: State,
    /// Its link-layer address, once known.
    pub mac: Option<[u8; 6]>,
}

/// The table.
#[derive(Debug)]
pub struct NeighbourTable {
    slots: Box<[Slot]>,
    seed: HashSeed,
    epoch: AtomicU32,
    news: AtomicU32,
}

#[derive(Debug, Default)]
struct Slot {
    owner: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    state: AtomicU64,
    /// When the state last changed, as a [`Tick`]. Written after `state`; a timer that reads the
    /// old one acts early once, which the next packet puts right.
    since: AtomicU32,
}

/// `owner`: phase in bits 0-1, port in bits 8-15, incarnation above.
const FREE: u64 = 0;
const CLAIMED: u64 = 1;
const LIVE: u64 = 2;

/// `state` as a word: MAC in bits 16-63, state in 0-2, questions asked in 3-5, used in 6, the low
/// bits of the incarnation in 7-15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const USED: u64 = 1 << 6;

    fn new(state: State, probes: u8, mac: u64, incarnation: u64) -> Word {
        Word(mac << 16 | (incarnation & 0x1ff) << 7 | (probes as u64 & 7) << 3 | state as u64)
    }

    #[inline]
    fn state(self) -> State {
        match self.0 & 7 {
            0 => State::Incomplete,
            1 => State::Reachable,
            2 => State::Stale,
            3 => State::Delay,
            4 => State::Probe,
            6 => State::Permanent,
            _ => State::Failed,
        }
    }

    fn probes(self) -> u8 {
        (self.0 >> 3 & 7) as u8
    }

    #[inline]
    fn used(self) -> bool {
        self.0 & Word::USED != 0
    }

    fn incarnation(self) -> u64 {
        self.0 >> 7 & 0x1ff
    }

    fn mac_bits(self) -> u64 {
        self.0 >> 16
    }

    #[inline]
    fn mac(self) -> Option<[u8; 6]> {
        match self.state() {
            State::Incomplete | State::Failed => None,
            _ => {
                let [a, b, c, d, e, f, ..] = self.0.to_be_bytes();
                Some([a, b, c, d, e, f])
            }
        }
    }

    /// The same neighbour in another state, not used yet.
    fn with(self, state: State, probes: u8) -> Word {
        Word::new(state, probes, self.mac_bits(), self.incarnation())
    }
}

fn mac_bits(mac: [u8; 6]) -> u64 {
    mac.iter().fold(0, |bits, byte| bits << 8 | *byte as u64)
}

/// A slot that was seen to belong to a neighbour, and its state then.
struct Found<'a> {
    number: NextHop,
    slot: &'a Slot,
    word: Word,
}

impl Found<'_> {
    /// Changes the state unless somebody was faster, who then knew better.
    fn change(&self, to: Word, now: Tick) -> bool {
        let done = self.slot.state.compare_exchange(self.word.0, to.0, Release, Relaxed).is_ok();
        if done {
            self.slot.since.store(now.0, Relaxed);
        }
        done
    }

    /// Tells the control core that a stale neighbour is in use. Loses against any change of state,
    /// which makes the mark pointless.
    fn mark_used(&self) {
        if !self.word.used() {
            let used = self.word.0 | Word::USED;
            let _ = self.slot.state.compare_exchange(self.word.0, used, Relaxed, Relaxed);
        }
    }

    fn age_ticks(&self, now: Tick) -> u32 {
        now.0.wrapping_sub(self.slot.since.load(Relaxed))
    }
}

impl NeighbourTable {
    /// A table of at least `capacity` slots, rounded up to a power of two from [`WAYS`] to
    /// [`CAPACITY_MAX`].
    pub fn new(capacity: usize, seed: HashSeed) -> NeighbourTable {
        let slots = capacity.clamp(WAYS, CAPACITY_MAX).next_power_of_two();
        let slots = (0..slots).map(|_| Slot::default()).collect();
        NeighbourTable { slots, seed, epoch: AtomicU32::new(0), news: AtomicU32::new(0) }
    }

    /// Slots.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Changes whenever a number went to another neighbour. A number from an earlier epoch must be
    /// resolved again before use.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Acquire)
    }

    /// Changes whenever a neighbour became known, was given up or lost its slot: whoever holds
    /// packets looks at those neighbours again.
    #[inline]
    pub fn news(&self) -> u32 {
        self.news.load(Acquire)
    }

    fn announce(&self) {
        self.news.fetch_add(1, Release);
    }

    /// The neighbour of a port at an address, if the table has it.
    pub fn at(&self, port: u8, address: Address) -> Option<Neighbour> {
        let found = self.find(port, address)?;
        let (state, mac) = (found.word.state(), found.word.mac());
        Some(Neighbour { next_hop: found.number, port, address, state, mac })
    }

    /// The address to send to, if it is known. Tells the control core that a stale one is in use.
    #[inline(always)]
    pub fn mac(&self, next_hop: NextHop) -> Option<[u8; 6]> {
        let slot = self.slots.get(next_hop.0 as usize)?;
        let word = Word(slot.state.load(Acquire));
        if word.state() == State::Stale {
            Found { number: next_hop, slot, word }.mark_used();
        }
        word.mac()
    }

    /// The state of a slot, for lists and for packets that wait.
    pub fn state(&self, next_hop: NextHop) -> Option<State> {
        self.neighbour(next_hop).map(|neighbour| neighbour.state)
    }

    /// Who has a number; `None` for a free slot.
    pub fn neighbour(&self, next_hop: NextHop) -> Option<Neighbour> {
        let (port, address, found) = self.read(next_hop.0 as usize)?;
        let (state, mac) = (found.word.state(), found.word.mac());
        Some(Neighbour { next_hop, port, address, state, mac })
    }

    /// Finds a neighbour, or claims a slot and starts asking.
    pub fn resolve(&self, port: u8, address: Address, now: Tick) -> Resolved {
        // Another lcore may claim the same slot first, perhaps for the same neighbour.
        for _ in 0..WAYS {
            if let Some(found) = self.find(port, address) {
                return self.resolve_known(&found, now);
            }
            if let Some(next_hop) = self.claim(port, address, State::Incomplete, 0, now) {
                return Resolved::Pending { next_hop, ask: true };
            }
        }
        Resolved::Full
    }

    /// The same, where `guess` may be the slot: that of the last one who was asked for, say. One
    /// that is not sure to answer is searched for.
    #[inline]
    pub fn resolve_guessed(
        &self,
        guess: NextHop,
        (port, address): (u8, Address),
        now: Tick,
    ) -> Resolved {
        if let Some((its_port, its_address, found)) = self.read(guess.0 as usize)
            && (its_port, its_address) == (port, address)
            && matches!(found.word.state(), State::Reachable | State::Permanent)
            && let Some(mac) = found.word.mac()
        {
            return Resolved::Known(guess, mac);
        }
        self.resolve(port, address, now)
    }

    fn resolve_known(&self, found: &Found<'_>, now: Tick) -> Resolved {
        let next_hop = found.number;
        match (found.word.state(), found.word.mac()) {
            // As the kernel, which tries again with the next packet.
            (State::Failed, _) => {
                let ask = found.change(found.word.with(State::Incomplete, 1), now);
                Resolved::Pending { next_hop, ask }
            }
            (state, Some(mac)) => {
                if state == State::Stale {
                    found.mark_used();
                }
                Resolved::Known(next_hop, mac)
            }
            (_, None) => Resolved::Pending { next_hop, ask: false },
        }
    }

    /// Takes in what a received packet says (`neigh_update`). The number of the neighbour if its
    /// address is known now: packets that wait for it can go.
    pub fn learn(
        &self,
        port: u8,
        address: Address,
        evidence: Evidence,
        now: Tick,
    ) -> Option<NextHop> {
        let Some(found) = self.find(port, address) else {
            let mac = evidence.mac.filter(|_| evidence.create)?;
            return self.claim(port, address, State::Stale, mac_bits(mac), now);
        };
        let old = found.word;
        let known = old.mac().map(mac_bits);
        let told = evidence.mac.map(mac_bits).or(known)?;
        let changes = known.is_some_and(|known| known != told);
        let mut state = if evidence.reachable { State::Reachable } else { State::Stale };
        let mut mac = told;
        match old.state() {
            State::Permanent => return Some(found.number),
            _ if !changes => {
                if state == State::Stale && known.is_some() {
                    // Nothing new: doubt does not undo what is better known.
                    state = old.state();
                }
            }
            _ => match evidence.replace {
                Replace::Always => {}
                Replace::Settled if found.age_ticks(now) > TICKS_PER_SEC => {}
                Replace::Doubt if old.state() == State::Reachable => {
                    (state, mac) = (State::Stale, old.mac_bits());
                }
                Replace::Settled | Replace::Doubt => return Some(found.number),
            },
        }
        let to = Word::new(state, 0, mac, old.incarnation());
        if to.state() != old.state() || mac != old.mac_bits() || evidence.reachable {
            found.change(to, now);
            if known.is_none() {
                self.announce();
            }
        }
        Some(found.number)
    }

    /// Sets a configured neighbour; `None` if the table has no slot for it.
    pub fn set_permanent(
        &self,
        port: u8,
        address: Address,
        mac: [u8; 6],
        now: Tick,
    ) -> Option<NextHop> {
        for _ in 0..WAYS {
            let Some(found) = self.find(port, address) else {
                let claimed = self.claim(port, address, State::Permanent, mac_bits(mac), now);
                if claimed.is_some() {
                    return claimed;
                }
                continue;
            };
            let incarnation = found.word.incarnation();
            if found.change(Word::new(State::Permanent, 0, mac_bits(mac), incarnation), now) {
                self.announce();
                return Some(found.number);
            }
        }
        None
    }

    /// Forgets a neighbour: its number stays its own and the next packet asks anew. False if there
    /// was none.
    pub fn forget(&self, port: u8, address: Address, now: Tick) -> bool {
        let forgotten = (0..WAYS)
            .map_while(|_| self.find(port, address))
            .any(|found| found.change(found.word.with(State::Failed, 0), now));
        self.announce();
        forgotten
    }

    /// Forgets every neighbour of a port but the configured ones, as with the port's link
    /// (`neigh_carrier_down`). What waits for one of them has waited in vain.
    pub fn forget_port(&self, port: u8, now: Tick) {
        for number in 0..self.slots.len() {
            let others = |word: Word| matches!(word.state(), State::Permanent | State::Failed);
            // A slot changes under us as often as it is learnt anew meanwhile, which is seldom.
            let _ = (0..WAYS)
                .map_while(|_| self.read(number))
                .take_while(|(its_port, _, found)| *its_port == port && !others(found.word))
                .any(|(.., found)| found.change(found.word.with(State::Failed, 0), now));
        }
        self.announce();
    }

    /// Every neighbour, for the control core: at most `capacity` of them.
    pub fn iter(&self) -> impl Iterator<Item = Neighbour> + '_ {
        (0..self.slots.len()).filter_map(|number| self.neighbour(NextHop(number as u16)))
    }

    /// Runs the timers, for the control core, a few times a second. `visit` is called at most once
    /// for a slot; what it cannot send is asked again a second later.
    pub fn tick(&self, timers: &Timers, now: Tick, visit: &mut dyn FnMut(Event)) {
        for number in 0..self.slots.len() {
            let Some((port, address, found)) = self.read(number) else { continue };
            let age = found.age_ticks(now);
            let over = |seconds: u32| age >= seconds.saturating_mul(TICKS_PER_SEC);
            let word = found.word;
            let next_hop = found.number;
            match word.state() {
                State::Reachable if over(timers.reachable_s) => {
                    found.change(word.with(State::Stale, 0), now);
                }
                State::Stale if word.used() => {
                    found.change(word.with(State::Delay, 0), now);
                }
                State::Delay
                    if over(timers.delay_s) && found.change(word.with(State::Probe, 1), now) =>
                {
                    visit(Event::Ask { next_hop, port, address, unicast: word.mac() });
                }
                State::Incomplete | State::Probe if over(timers.retrans_s) => {
                    if word.probes() >= timers.probes.min(7) {
                        if found.change(word.with(State::Failed, 0), now) {
                            self.announce();
                            visit(Event::Failed { next_hop });
                        }
                    } else if found.change(word.with(word.state(), word.probes() + 1), now) {
                        visit(Event::Ask { next_hop, port, address, unicast: word.mac() });
                    }
                }
                _ => {}
            }
        }
    }

    /// The numbers of the slots that can hold a neighbour.
    #[inline]
    fn ways(&self, port: u8, address: Address) -> core::ops::Range<usize> {
        let key = Tuple { src: address, src_id: port as u16, ..Tuple::default() };
        let sets = (self.slots.len() / WAYS) as u64;
        let set = (key.source_hash(0, &self.seed) >> 32) & (sets - 1);
        let first = set as usize * WAYS;
        first..first + WAYS
    }

    fn find(&self, port: u8, address: Address) -> Option<Found<'_>> {
        self.ways(port, address).find_map(|number| {
            let (its_port, its_address, found) = self.read(number)?;
            (its_port == port && its_address == address).then_some(found)
        })
    }

    /// Reads a slot; `None` if it is free or just changes its owner.
    fn read(&self, number: usize) -> Option<(u8, Address, Found<'_>)> {
        let slot = self.slots.get(number)?;
        let owner = slot.owner.load(Acquire);
        if owner & 3 != LIVE {
            return None;
        }
        let high = slot.high.load(Acquire);
        let low = slot.low.load(Acquire);
        let word = Word(slot.state.load(Acquire));
        if slot.owner.load(Relaxed) != owner {
            return None;
        }
        let address = Address::v6((high as u128) << 64 | low as u128);
        let port = (owner >> 8) as u8;
        Some((port, address, Found { number: NextHop(number as u16), slot, word }))
    }

    /// Takes the slot that is worth least. Two callers may claim one each for the same neighbour;
    /// the first is found from then on and the other ages away.
    fn claim(
        &self,
        port: u8,
        address: Address,
        state: State,
        mac: u64,
        now: Tick,
    ) -> Option<NextHop> {
        let number = self
            .ways(port, address)
            .filter_map(|number| Some((self.worth(number, now)?, number)))
            .min()?
            .1;
        let slot = self.slots.get(number)?;
        let owner = slot.owner.load(Acquire);
        let incarnation = (owner >> 16).wrapping_add(1);
        let base = incarnation << 16 | (port as u64) << 8;
        if owner & 3 == CLAIMED
            || slot.owner.compare_exchange(owner, base | CLAIMED, Acquire, Relaxed).is_err()
        {
            return None;
        }
        // An answer to the former owner may come at this moment, so its state is taken away before
        // it is judged: from here on nobody is known by this number, and late changes fail.
        let nobody = Word::new(State::Failed, 0, 0, incarnation);
        let former = Word(slot.state.swap(nobody.0, AcqRel));
        // The number of a slot without a MAC address was never given out as known, so nobody
        // remembers it: a scan of a subnet must not cost every lcore its cached paths.
        if owner & 3 == LIVE && former.mac_bits() != 0 {
            self.epoch.fetch_add(1, Release);
        }
        let probes = (state == State::Incomplete) as u8;
        // Each store is a release, so whoever sees one of them sees the claim and looks away.
        slot.state.store(Word::new(state, probes, mac, incarnation).0, Release);
        slot.since.store(now.0, Relaxed);
        slot.high.store((address.bits() >> 64) as u64, Release);
        slot.low.store(address.bits() as u64, Release);
        slot.owner.store(base | LIVE, Release);
        self.announce();
        Some(NextHop(number as u16))
    }

    /// How much a slot is worth: rank, then youth. `None` if it must not be taken.
    fn worth(&self, number: usize, now: Tick) -> Option<(u8, u32)> {
        let slot = self.slots.get(number)?;
        if slot.owner.load(Acquire) & 3 == FREE {
            return Some((0, 0));
        }
        let (_, _, found) = self.read(number)?;
        let age = found.age_ticks(now);
        let rank = match found.word.state() {
            State::Failed => 1,
            State::Incomplete if age > TICKS_PER_SEC => 2,
            State::Stale if !found.word.used() => 3,
            _ => return None,
        };
        Some((rank, u32::MAX - age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: HashSeed = HashSeed([11, 22, 33, 44, 55]);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 10];
    const HOST: Address = Address::v4(0x0a00_0009);
    const PORT: u8 = 3;

    fn at(seconds: u32) -> Tick {
        Tick(u32::MAX - 50).plus_secs(seconds)
    }

    fn table() -> NeighbourTable {
        NeighbourTable::new(64, SEED)
    }

    #[test]
    fn the_hosts_of_a_subnet_find_room_under_any_seed() {
        let mut word = 0x5eed_u64;
        let mut next = || {
            word ^= word >> 12;
            word ^= word << 25;
            word ^= word >> 27;
            word.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        for _ in 0..300 {
            let seed = HashSeed(core::array::from_fn(|_| next()));
            let table = NeighbourTable::new(4096, seed);
            for host in 1..=254 {
                let (v4, v6) = (0xc0a8_0a00 + host, 0xfd00_0010 << 96 | host as u128);
                for address in [Address::v4(v4), Address::v6(v6)] {
                    let resolved = table.resolve(PORT, address, at(0));
                    assert!(resolved != Resolved::Full, "{address:?} under {seed:?}");
                }
            }
        }
    }

    #[test]
    fn with_its_link_a_port_loses_all_it_was_not_told_by_the_file() {
        let (table, now) = (table(), at(0));
        let learn = |port, address| {
            table.learn(port, address, Evidence::arp_request_for_us(MAC), now).unwrap()
        };
        let (configured, waited) = (Address::v4(0x0a00_0001), Address::v4(0x0a00_0002));
        let (learnt, elsewhere) = (learn(PORT, HOST), learn(PORT + 1, HOST));
        table.set_permanent(PORT, configured, OTHER, now).unwrap();
        assert!(matches!(table.resolve(PORT, waited, now), Resolved::Pending { ask: true, .. }));
        let news = table.news();
        table.forget_port(PORT, now);
        assert_ne!(table.news(), news, "who holds frames looks");
        assert_eq!((table.mac(learnt), table.mac(elsewhere)), (None, Some(MAC)));
        assert_eq!(table.at(PORT, configured).unwrap().mac, Some(OTHER));
        assert_eq!(table.at(PORT, waited).unwrap().state, State::Failed);
        // As a new one: asked at once, and any answer is taken.
        let asked = Resolved::Pending { next_hop: learnt, ask: true };
        assert_eq!(table.resolve(PORT, HOST, now), asked);
        table.learn(PORT, HOST, Evidence::arp(OTHER, true, false), now);
        assert_eq!(table.mac(learnt), Some(OTHER));
    }

    fn ticks(table: &NeighbourTable, now: Tick) -> Vec<Event> {
        let mut events = Vec::new();
        table.tick(&Timers::default(), now, &mut |event| events.push(event));
        events
    }

    fn answer() -> Evidence {
        Evidence::arp(MAC, true, false)
    }

    /// A neighbour that answered at second 0.
    fn reachable(table: &NeighbourTable) -> NextHop {
        let Resolved::Pending { next_hop, ask: true } = table.resolve(PORT, HOST, at(0)) else {
            panic!("a new neighbour has to be asked for");
        };
        assert_eq!(table.learn(PORT, HOST, answer(), at(0)), Some(next_hop));
        next_hop
    }

    #[test]
    fn a_scan_of_silent_addresses_keeps_the_epoch_and_a_known_neighbour_lost_raises_it() {
        let table = NeighbourTable::new(WAYS, SEED);
        reachable(&table);
        for host in 0..100 {
            table.resolve(PORT, Address::v4(0x0a00_0100 + host), at(2 * host));
        }
        assert_eq!(table.epoch(), 0);
        // Forgotten, it still is the one that others may remember.
        assert!(table.forget(PORT, HOST, at(300)));
        for host in 0..WAYS as u32 {
            table.resolve(PORT, Address::v4(0x0a00_0200 + host), at(300));
        }
        assert_eq!(table.epoch(), 1);
    }

    #[test]
    fn asked_three_times_then_failed_and_asked_again_by_the_next_packet() {
        let table = table();
        let Resolved::Pending { next_hop, ask: true } = table.resolve(PORT, HOST, at(0)) else {
            panic!();
        };
        assert_eq!(table.resolve(PORT, HOST, at(0)), Resolved::Pending { next_hop, ask: false });
        let ask = Event::Ask { next_hop, port: PORT, address: HOST, unicast: None };
        assert_eq!(ticks(&table, at(0)), []);
        assert_eq!(ticks(&table, at(1)), [ask]);
        assert_eq!(ticks(&table, at(1)), []);
        assert_eq!(ticks(&table, at(2)), [ask]);
        assert_eq!(ticks(&table, at(3)), [Event::Failed { next_hop }]);
        assert_eq!(ticks(&table, at(9)), []);
        assert_eq!(table.mac(next_hop), None);
        assert_eq!(table.resolve(PORT, HOST, at(9)), Resolved::Pending { next_hop, ask: true });
        assert_eq!(table.epoch(), 0, "the number stayed its own");
    }

    #[test]
    fn the_life_of_a_neighbour_in_use() {
        let table = table();
        let next_hop = reachable(&table);
        assert_eq!(table.resolve(PORT, HOST, at(1)), Resolved::Known(next_hop, MAC));
        assert_eq!(ticks(&table, at(29)), []);
        assert_eq!(table.state(next_hop), Some(State::Reachable));
        assert_eq!(ticks(&table, at(30)), []);
        assert_eq!(table.state(next_hop), Some(State::Stale));
        assert_eq!(ticks(&table, at(100)), [], "nobody needs it");
        assert_eq!(table.mac(next_hop), Some(MAC));
        assert_eq!(ticks(&table, at(101)), []);
        assert_eq!(table.state(next_hop), Some(State::Delay));
        assert_eq!(ticks(&table, at(105)), []);
        let ask = Event::Ask { next_hop, port: PORT, address: HOST, unicast: Some(MAC) };
        assert_eq!(ticks(&table, at(106)), [ask]);
        assert_eq!(table.mac(next_hop), Some(MAC), "still used");
        assert_eq!(ticks(&table, at(107)), [ask]);
        assert_eq!(table.learn(PORT, HOST, answer(), at(107)), Some(next_hop));
        assert_eq!(table.state(next_hop), Some(State::Reachable));
        ticks(&table, at(137));
        table.mac(next_hop);
        ticks(&table, at(137));
        let rest: Vec<_> = (138..150).flat_map(|second| ticks(&table, at(second))).collect();
        assert_eq!(rest, [ask, ask, ask, Event::Failed { next_hop }]);
        assert_eq!(table.mac(next_hop), None);
    }

    #[test]
    fn who_may_replace_an_address() {
        let fresh = || {
            let table = table();
            (reachable(&table), table)
        };
        let learn = |table: &NeighbourTable, evidence, second| {
            let next_hop = table.learn(PORT, HOST, evidence, at(second)).unwrap();
            let neighbour = table.neighbour(next_hop).unwrap();
            (neighbour.state, neighbour.mac.unwrap())
        };
        // ARP: not within the lock time, unless gratuitous; requests do not prove reachability.
        let (_, table) = fresh();
        let other = Evidence::arp(OTHER, false, false);
        assert_eq!(learn(&table, other, 1), (State::Reachable, MAC));
        assert_eq!(learn(&table, other, 2), (State::Stale, OTHER));
        let (_, table) = fresh();
        assert_eq!(learn(&table, Evidence::arp(OTHER, false, true), 0), (State::Stale, OTHER));
        let (_, table) = fresh();
        assert_eq!(learn(&table, Evidence::arp_request_for_us(OTHER), 0), (State::Stale, OTHER));
        assert_eq!(learn(&table, Evidence::arp_request_for_us(OTHER), 9), (State::Stale, OTHER));
        // The same address heard again changes nothing.
        let (_, table) = fresh();
        assert_eq!(learn(&table, Evidence::arp_request_for_us(MAC), 9), (State::Reachable, MAC));
        // RFC 4861: without the override flag only doubt.
        let advert =
            |solicited, override_| Evidence::advertisement(Some(OTHER), solicited, override_);
        let (_, table) = fresh();
        assert_eq!(learn(&table, advert(true, false), 0), (State::Stale, MAC));
        assert_eq!(learn(&table, advert(true, false), 0), (State::Stale, MAC));
        assert_eq!(learn(&table, advert(false, true), 0), (State::Stale, OTHER));
        assert_eq!(learn(&table, advert(true, true), 0), (State::Reachable, OTHER));
        let bare = Evidence::advertisement(None, true, false);
        assert_eq!(learn(&table, bare, 0), (State::Reachable, OTHER));
    }

    #[test]
    fn the_unknown_are_learned_only_when_they_speak_to_us() {
        let table = table();
        assert_eq!(table.learn(PORT, HOST, answer(), at(0)), None);
        assert_eq!(table.learn(PORT, HOST, Evidence::advertisement(None, true, true), at(0)), None);
        let next_hop = table.learn(PORT, HOST, Evidence::solicitation(MAC), at(0)).unwrap();
        assert_eq!(table.resolve(PORT, HOST, at(0)), Resolved::Known(next_hop, MAC));
        assert!(matches!(table.resolve(PORT + 1, HOST, at(0)), Resolved::Pending { .. }));
    }

    #[test]
    fn permanent_stays_until_forgotten() {
        let table = table();
        let next_hop = table.set_permanent(PORT, HOST, MAC, at(0)).unwrap();
        table.learn(PORT, HOST, Evidence::arp(OTHER, true, true), at(5));
        assert_eq!(ticks(&table, at(9999)), []);
        assert_eq!(table.mac(next_hop), Some(MAC));
        assert_eq!(table.iter().count(), 1);
        assert!(table.forget(PORT, HOST, at(9999)));
        assert_eq!(table.mac(next_hop), None);
        assert!(!table.forget(PORT, Address::v4(1), at(9999)));
    }

    #[test]
    fn a_scan_cannot_push_out_who_answers_and_the_oldest_go_first() {
        let table = NeighbourTable::new(1, SEED);
        assert_eq!(table.capacity(), WAYS);
        let host = |n: u32| Address::v4(0x0a00_0100 + n);
        for n in 0..WAYS as u32 {
            table.learn(PORT, host(n), Evidence::solicitation(MAC), at(n)).unwrap();
        }
        let kept = table.set_permanent(PORT, host(0), MAC, at(8)).unwrap();
        table.learn(PORT, host(1), answer(), at(8));
        assert_eq!(table.epoch(), 0);
        let two = table.resolve(PORT, host(2), at(8));
        assert!(matches!(two, Resolved::Known(..)), "in use from now on");
        for n in 100..105 {
            assert!(matches!(table.resolve(PORT, host(n), at(9)), Resolved::Pending { .. }));
        }
        assert_eq!(table.epoch(), 5);
        assert_eq!(table.resolve(PORT, host(105), at(9)), Resolved::Full);
        // A second later the unanswered ones may go, the others still not.
        for n in 106..1000 {
            table.resolve(PORT, host(n), at(11 + n / 5 * 2));
        }
        assert_eq!(table.mac(kept), Some(MAC));
        assert!(matches!(table.resolve(PORT, host(1), at(11)), Resolved::Known(..)));
        assert_eq!(table.resolve(PORT, host(2), at(11)), two);
    }

    #[test]
    fn concurrent_owners_never_mix() {
        let table = NeighbourTable::new(16, SEED);
        let mac_of = |n: u32| [2, 0, 0, 0, 0, n as u8];
        let address = |n: u32| Address::v6((n as u128) << 64 | n as u128 | 1 << 120);
        std::thread::scope(|scope| {
            for seed in 0..3u32 {
                let table = &table;
                scope.spawn(move || {
                    let mut x = seed * 2 + 1;
                    for step in 0..20_000u32 {
                        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        let n = x >> 27;
                        let now = Tick(step * 50);
                        match x >> 10 & 3 {
                            0 => {
                                let evidence = Evidence::solicitation(mac_of(n));
                                table.learn(PORT, address(n), evidence, now);
                            }
                            1 => {
                                table.forget(PORT, address(n), now);
                            }
                            _ => {
                                if let Resolved::Known(_, mac) =
                                    table.resolve(PORT, address(n), now)
                                {
                                    assert_eq!(mac, mac_of(n));
                                }
                            }
                        }
                    }
                });
            }
        });
        for neighbour in table.iter() {
            let n = neighbour.address.bits() as u32;
            assert_eq!(neighbour.address, address(n));
            assert!(neighbour.mac.is_none_or(|mac| mac == mac_of(n)), "{neighbour:?}");
        }
    }
}
