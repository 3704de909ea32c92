//! A set: its type, its options, and what a packet is to it (`ip_set_test`, `mtype_test`).

use std::sync::Arc;

use super::elements::{Elements, Found, Info};
use super::key::{Key, mask};
use super::kind::{Kind, Part, Storage};
use super::list::Member;
use super::{Change, SetId, Sides, What};
use crate::arch::sync::AtomicU32;
use crate::arch::sync::Ordering::Relaxed;
use crate::conntrack::tuple::proto;
use crate::rules::facts::Facts;
use crate::rules::hook::Family;
use crate::time::Tick;
use crate::wire::address::Address;

/// What a set is made with and keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Its type.
    pub kind: &'static Kind,
    /// The family of its addresses; `None` where it has none.
    pub family: Option<Family>,
    /// Bits of an address that count (`netmask`, `bitmask`).
    pub mask: u128,
    /// Bits of a mark that count.
    pub mark_mask: u32,
    /// Seconds that an element has where nothing else is said; `None` for a set without timeouts.
    pub timeout: Option<u32>,
    /// Elements count packets and bytes.
    pub counters: bool,
    /// Elements say something of packets (`skbinfo`).
    pub info: bool,
    /// Most elements.
    pub max: u32,
    /// A full set loses an element for each new one.
    pub forceadd: bool,
    /// Lowest and highest address or port of a bitmap.
    pub range: (u128, u128),
}

impl Options {
    /// Bits of its addresses.
    pub const fn width(&self) -> u8 {
        match self.family {
            Some(Family::V6) => 128,
            _ => 32,
        }
    }
}

/// Where the elements are.
#[derive(Debug)]
pub enum Body {
    /// In a table.
    Table(Arc<Elements>),
    /// In other sets.
    List(Box<[Arc<Member>]>),
}

/// A set as rules hold it.
#[derive(Debug)]
pub struct Set {
    /// Its number.
    pub id: SetId,
    /// How it was made.
    pub options: Options,
    body: Body,
    /// Not 0 if rules change it.
    changes: AtomicU32,
}

/// What a rule asks of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// What parts are taken from.
    pub sides: Sides,
    /// `--return-nomatch`.
    pub return_nomatch: bool,
    /// `! --update-counters`.
    pub no_update: bool,
    /// `! --update-subcounters`.
    pub no_member_update: bool,
    /// `--packets-…`.
    pub packets: Option<Compare>,
    /// `--bytes-…`.
    pub bytes: Option<Compare>,
}

/// How a counter has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// This value.
    Equal(u64),
    /// Not this value.
    Other(u64),
    /// Less.
    Below(u64),
    /// More.
    Above(u64),
}

impl Compare {
    /// True if `counter` is so.
    pub const fn holds(self, counter: u64) -> bool {
        match self {
            Compare::Equal(value) => counter == value,
            Compare::Other(value) => counter != value,
            Compare::Below(value) => counter < value,
            Compare::Above(value) => counter > value,
        }
    }
}

/// What an element says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is none.
    Absent,
    /// There is one.
    Present,
    /// There is one, an exception.
    Exception,
}

impl From<Option<Found<'_>>> for Outcome {
    fn from(found: Option<Found<'_>>) -> Outcome {
        match found {
            None => Outcome::Absent,
            Some(found) if found.nomatch => Outcome::Exception,
            Some(_) => Outcome::Present,
        }
    }
}

/// What counts and when.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// Bytes; `None` for a question that is not a packet's and counts nothing.
    pub bytes: Option<u64>,
    /// Now.
    pub now: Tick,
}

/// What became of a change that a packet asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Nothing is to be done, as an error or as it is so already.
    Refused,
    /// It is done.
    Done,
    /// The control core has to do it.
    Wanted(Change),
}

impl Set {
    /// A set with its elements.
    pub fn new(id: SetId, options: Options, body: Body) -> Set {
        Set { id, options, body, changes: AtomicU32::new(0) }
    }

    /// A set with the same elements that shares none of them: what walks change there stays there.
    pub fn apart(&self) -> Arc<Set> {
        let body = match &self.body {
            Body::Table(table) => Body::Table(table.copy()),
            Body::List(members) => {
                Body::List(members.iter().map(|member| Arc::new(member.apart())).collect())
            }
        };
        let changes = AtomicU32::new(self.changes.load(Relaxed));
        Arc::new(Set { id: self.id, options: self.options.clone(), body, changes })
    }

    /// Where its elements are.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Its table, unless it is a list.
    pub fn table(&self) -> Option<&Arc<Elements>> {
        match &self.body {
            Body::Table(table) => Some(table),
            Body::List(_) => None,
        }
    }

    /// Rules change it from now on: what it said of a packet holds for that packet alone.
    pub fn note_changes(&self) {
        self.changes.store(1, Relaxed);
        if let Body::List(members) = &self.body {
            members.iter().for_each(|member| member.set.note_changes());
        }
    }

    /// True if what it says of a packet holds for that packet alone.
    pub fn is_per_packet(&self) -> bool {
        let Options { kind, timeout, counters, .. } = &self.options;
        let members = match &self.body {
            Body::List(members) => members.iter().any(|member| member.set.is_per_packet()),
            Body::Table(_) => false,
        };
        let changes = self.changes.load(Relaxed) != 0;
        timeout.is_some() || *counters || kind.has(Part::Mac) || changes || members
    }

    /// True if the set is asked with as many parts, and for packets of such a family.
    fn takes(&self, sides: Sides, family: Family) -> bool {
        let Options { kind, family: own, .. } = &self.options;
        usize::from(sides.count) >= kind.dimension() && own.is_none_or(|own| own == family)
    }

    /// True if the set has a packet (`ip_set_test`).
    pub fn holds(&self, asked: &Asked, facts: &Facts<'_>, mark: u32, now: Tick) -> bool {
        self.info(asked, facts, mark, now).is_some()
    }

    /// What the set says of a packet that it has.
    pub fn info(&self, asked: &Asked, facts: &Facts<'_>, mark: u32, now: Tick) -> Option<Info> {
        if !self.takes(asked.sides, family_of(facts)) {
            return None;
        }
        let weight = Weight { bytes: Some(facts.length.into()), now };
        let table = match &self.body {
            Body::List(members) => {
                return members.iter().find_map(|member| member.info(asked, facts, mark, weight));
            }
            Body::Table(table) => table,
        };
        let key = self.key_of(asked.sides, facts, mark)?;
        let found = self.find(table, &key, asked, weight)?;
        let turned = asked.return_nomatch && self.options.kind.takes_nomatch();
        (found.nomatch == turned).then(|| found.info())
    }

    /// The element that a packet is: an address of a net with its full prefix.
    fn key_of(&self, sides: Sides, facts: &Facts<'_>, mark: u32) -> Option<Key> {
        let options = &self.options;
        let full = options.width() + 1;
        let (mut key, mut addresses) = (Key::default(), 0);
        for (number, part) in options.kind.parts.iter().enumerate() {
            let source = sides.is_source(number);
            match part {
                Part::Ip | Part::Net => {
                    let address = address_of(facts, source) & options.mask;
                    let prefix = if *part == Part::Net { full } else { 0 };
                    match addresses {
                        0 => (key.first, key.first_prefix) = (address, prefix),
                        _ => (key.second, key.second_prefix) = (address, prefix),
                    }
                    addresses += 1;
                }
                Part::Port => (key.proto, key.port) = port_of(facts, source)?,
                Part::Mark => key.second = (mark & options.mark_mask).into(),
                Part::Mac => {
                    let mac = mac_of(facts, source)?;
                    if addresses == 0 { key.first = mac } else { key.second = mac }
                }
            }
        }
        self.fits(key)
    }

    /// The key, if such an element can be in the set: in the range of a bitmap, whose ports have no
    /// protocol, and not zero where that is no element.
    fn fits(&self, mut key: Key) -> Option<Key> {
        let Options { kind, range: (low, high), .. } = self.options;
        if kind.storage == Storage::Bitmap {
            if kind.has(Part::Port) && !matches!(key.proto, proto::TCP | proto::UDP) {
                return None;
            }
            key.proto = 0;
            let value = if kind.has(Part::Port) { key.port.into() } else { key.first };
            return (low..=high).contains(&value).then_some(key);
        }
        let single = kind.parts.len() == 1 && !kind.has(Part::Net);
        (!single || key.first != 0).then_some(key)
    }

    /// The element that an address is in, of all nets that there are the longest, or that a key is
    /// (`mtype_test`).
    pub fn find<'t>(
        &self,
        table: &'t Elements,
        key: &Key,
        asked: &Asked,
        weight: Weight,
    ) -> Option<Found<'t>> {
        let kind = self.options.kind;
        let full = self.options.width() + 1;
        let second_net = kind.parts.len() > 1 && kind.parts.last() == Some(&Part::Net);
        let first_net = kind.parts.first() == Some(&Part::Net);
        let address = (!first_net || key.first_prefix == full)
            && (!second_net || key.second_prefix == full)
            && (first_net || second_net);
        if !address {
            return self.look(table, key, asked, weight);
        }
        let mut first = full + 1;
        loop {
            let mut key = *key;
            if first_net {
                let prefix = table.longest(false, first)?;
                first = prefix;
                (key.first, key.first_prefix) = (self.cut(key.first, prefix), prefix);
            }
            let found = if second_net {
                self.look_in_second(table, &key, asked, weight)
            } else {
                self.look(table, &key, asked, weight)
            };
            if found.is_some() || !first_net {
                return found;
            }
        }
    }

    fn look_in_second<'t>(
        &self,
        table: &'t Elements,
        key: &Key,
        asked: &Asked,
        weight: Weight,
    ) -> Option<Found<'t>> {
        let mut prefix = self.options.width() + 2;
        while let Some(next) = table.longest(true, prefix) {
            prefix = next;
            let second = self.cut(key.second, prefix);
            let key = Key { second, second_prefix: prefix, ..*key };
            let found = self.look(table, &key, asked, weight);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The bits that a prefix, as keys have it, keeps.
    fn cut(&self, address: u128, prefix: u8) -> u128 {
        address & mask(prefix.saturating_sub(1), self.options.width())
    }

    fn look<'t>(
        &self,
        table: &'t Elements,
        key: &Key,
        asked: &Asked,
        weight: Weight,
    ) -> Option<Found<'t>> {
        table.find(key).filter(|found| self.agrees(found, asked, weight))
    }

    /// Whether the element counts for this packet: not over, and its counters, with the packet in
    /// them, as asked (`ip_set_match_extensions`).
    fn agrees(&self, found: &Found<'_>, asked: &Asked, weight: Weight) -> bool {
        if found.has_expired(weight.now) {
            return false;
        }
        if !self.options.counters {
            return true;
        }
        if let (Some(bytes), false) = (weight.bytes, asked.no_update) {
            found.count(1, bytes);
        }
        let (packets, bytes) = found.counters();
        asked.packets.is_none_or(|packets_asked| packets_asked.holds(packets))
            && asked.bytes.is_none_or(|bytes_asked| bytes_asked.holds(bytes))
    }

    /// Adds what a packet is (`ip_set_add`).
    pub fn add(
        &self,
        sides: Sides,
        (timeout, exist): (Option<u32>, bool),
        facts: &Facts<'_>,
        (mark, now): (u32, Tick),
    ) -> Changed {
        if !self.takes(sides, family_of(facts)) {
            return Changed::Refused;
        }
        let table = match &self.body {
            Body::List(members) => {
                let live = members.iter().filter(|member| !member.has_expired(now));
                let tried = live.map(|m| m.set.add(sides, (timeout, exist), facts, (mark, now)));
                return first_taken(tried);
            }
            Body::Table(table) => table,
        };
        let Some(key) = self.own_key(table, sides, facts, mark) else { return Changed::Refused };
        let bytes = u64::from(facts.length);
        match table.find(&key).filter(|found| !found.has_expired(now)) {
            Some(_) if !exist => Changed::Refused,
            Some(found) if !found.nomatch => {
                if self.options.counters {
                    found.set_counters(1, bytes);
                }
                found.set_info(Info::default());
                if let Some(own) = self.options.timeout {
                    found.set_deadline(deadline(timeout.unwrap_or(own), now));
                }
                Changed::Done
            }
            None if table.count() >= self.options.max && !self.options.forceadd => Changed::Refused,
            _ => {
                let what = What::Add { timeout, bytes };
                Changed::Wanted(Change { set: self.id, key, what })
            }
        }
    }

    /// Takes away what a packet is (`ip_set_del`).
    pub fn remove(&self, sides: Sides, facts: &Facts<'_>, mark: u32, now: Tick) -> Changed {
        if !self.takes(sides, family_of(facts)) {
            return Changed::Refused;
        }
        let table = match &self.body {
            Body::List(members) => {
                let live = members.iter().filter(|member| !member.has_expired(now));
                return first_taken(live.map(|m| m.set.remove(sides, facts, mark, now)));
            }
            Body::Table(table) => table,
        };
        let key = self.own_key(table, sides, facts, mark);
        let found = key.and_then(|key| Some((key, table.find(&key)?)));
        match found.filter(|(_, found)| !found.has_expired(now)) {
            Some((key, found)) => {
                found.set_deadline(Some(now));
                Changed::Wanted(Change { set: self.id, key, what: What::Remove })
            }
            None => Changed::Refused,
        }
    }

    /// The element that a packet adds or takes away: a net of the longest prefix that there is.
    fn own_key(&self, table: &Elements, sides: Sides, facts: &Facts<'_>, mark: u32) -> Option<Key> {
        let mut key = self.key_of(sides, facts, mark)?;
        let full = self.options.width() + 2;
        if key.first_prefix != 0 {
            key.first_prefix = table.longest(false, full).unwrap_or(key.first_prefix);
            key.first = self.cut(key.first, key.first_prefix);
        }
        if key.second_prefix != 0 {
            key.second_prefix = table.longest(true, full).unwrap_or(key.second_prefix);
            key.second = self.cut(key.second, key.second_prefix);
        }
        Some(key)
    }
}

/// The longest timeout of an element in seconds (`IPSET_MAX_TIMEOUT`).
pub const TIMEOUT_MAX: u32 = 2_147_483;

/// When an element with this timeout in seconds is over; 0 for never.
pub fn deadline(timeout: u32, now: Tick) -> Option<Tick> {
    (timeout > 0).then(|| now.plus_secs(timeout.min(TIMEOUT_MAX)))
}

fn first_taken(mut tried: impl Iterator<Item = Changed>) -> Changed {
    tried.find(|changed| *changed != Changed::Refused).unwrap_or(Changed::Refused)
}

fn family_of(facts: &Facts<'_>) -> Family {
    if facts.src.is_v4() { Family::V4 } else { Family::V6 }
}

fn address_of(facts: &Facts<'_>, source: bool) -> u128 {
    let address: Address = if source { facts.src } else { facts.dst };
    if address.is_v4() { address.v4_bits().into() } else { address.bits() }
}

/// Protocol and port, or type and code; a later fragment has none if its protocol does, in IPv6
/// none at all (`ip_set_get_ip_port`).
fn port_of(facts: &Facts<'_>, source: bool) -> Option<(u8, u16)> {
    let number = facts.proto;
    let ports = matches!(number, proto::TCP | proto::UDP | proto::SCTP | proto::UDPLITE);
    let icmp = match facts.src.is_v4() {
        true => number == proto::ICMP,
        false => number == proto::ICMPV6,
    };
    if facts.fragment_offset != 0 && (ports || icmp || !facts.src.is_v4()) {
        return None;
    }
    if !(ports || icmp) {
        return Some((number, 0));
    }
    let port = match icmp {
        true => u16::from(facts.icmp_type) << 8 | u16::from(facts.icmp_code),
        false if source => facts.src_port,
        false => facts.dst_port,
    };
    facts.l4_valid.then_some((number, port))
}

/// A MAC address of the link's header, which not every packet has; never zero.
fn mac_of(facts: &Facts<'_>, source: bool) -> Option<u128> {
    let at = if source { 6 } else { 0 };
    let bytes = facts.link().get(at..at + 6)?;
    let mac = bytes.iter().fold(0, |mac, byte| mac << 8 | u128::from(*byte));
    (mac != 0).then_some(mac)
}
