//! Under which keys a rule is entered: values of bits of which a packet has to have one, or some
//! test of the rule fails.
//!
//! The rule's gate gives most of them. Second halves of IPv6 addresses come on top, and what a gate
//! cannot hold because it is more than one value: ports of a list or a small range, interfaces of a
//! small set. Ranges are entered by their leading bits where they would be too many; what is
//! entered too widely costs a look. As for gates, tests count up to the first one that does more
//! than to compare.

use core::ops::RangeInclusive;

use crate::rules::compiled::CompiledRule;
use crate::rules::gate::{DST_PORT, IN_PORT, OUT_PORT, PORT_MASK, SRC_PORT, Words, port};
use crate::rules::matches::{Net, PortRange, Side};
use crate::rules::test::{PortSet, Test};

/// The most keys of one rule.
pub(super) const KEYS_MAX: usize = 16;

/// Interfaces of a set that are entered one by one.
const MEMBERS_MAX: usize = 4;

/// Of this many ports a list tells enough to be entered.
const PORTS_MAX: usize = 1 << 14;

/// Which word of [`Words`] has the fields.
const FIELDS: usize = 2;

/// What a rule wants.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The bits it asks for.
    pub(super) mask: Words,
    /// One for each combination of values; none if the rule never matches.
    pub(super) wanted: Vec<Words>,
}

/// Some bits that have one of these values.
struct Choice {
    mask: Words,
    values: Vec<Words>,
}

/// Fields and nothing else.
const fn fields(bits: u64) -> Words {
    let mut words = [0; 5];
    words[FIELDS] = bits;
    words
}

/// The keys of a rule; its tests are among `tests`.
pub(super) fn keys_of(rule: &CompiledRule, tests: &[Test]) -> Keys {
    let (mut wanted, mut mask) = rule.gate.words();
    let span = rule.first_test as usize..rule.end_test as usize;
    let mut choices = Vec::new();
    let tests = tests.get(span).unwrap_or_default();
    for test in tests.iter().take_while(|test| test.only_compares()) {
        match test {
            Test::Src(net) if !net.not => take_rest(&mut wanted[3], &mut mask[3], &net.value),
            Test::Dst(net) if !net.not => take_rest(&mut wanted[4], &mut mask[4], &net.value),
            Test::InPort(set) => choices.extend(members(IN_PORT, set)),
            Test::OutPort(set) => choices.extend(members(OUT_PORT, set)),
            Test::SrcPort(range) if !range.not => choices.extend(ports(SRC_PORT, &[range.value])),
            Test::DstPort(range) if !range.not => choices.extend(ports(DST_PORT, &[range.value])),
            Test::Ports(list) if !list.not => match list.side {
                Side::Source => choices.extend(ports(SRC_PORT, &list.ports)),
                Side::Destination => choices.extend(ports(DST_PORT, &list.ports)),
                Side::Either => {}
            },
            _ => {}
        }
    }
    let mut keys = Keys { mask, wanted: vec![wanted] };
    choices.sort_by_key(|choice| choice.values.len());
    choices.iter().for_each(|choice| keys.choose(choice));
    keys
}

impl Keys {
    /// Takes a choice in, unless its bits are asked for already or it would make too many keys.
    fn choose(&mut self, choice: &Choice) {
        let impossible = choice.values.is_empty();
        let taken = self.mask.iter().zip(choice.mask).any(|(mask, more)| mask & more != 0);
        if !impossible && (taken || self.wanted.len() * choice.values.len() > KEYS_MAX) {
            return;
        }
        let with = |key: &Words, value: &Words| core::array::from_fn(|n| key[n] | value[n]);
        self.mask = with(&self.mask, &choice.mask);
        let before = core::mem::take(&mut self.wanted);
        let values = || choice.values.iter();
        self.wanted = before.iter().flat_map(|key| values().map(|v| with(key, v))).collect();
    }
}

/// The second half of an IPv6 network.
fn take_rest(wanted: &mut u64, mask: &mut u64, net: &Net) {
    if !net.address.is_v4() {
        *mask |= net.mask as u64;
        *wanted |= (net.address.bits() & net.mask) as u64;
    }
}

fn members(at: u32, set: &PortSet) -> Option<Choice> {
    let value = |member| fields(port(member) << at);
    let values: Vec<Words> = set.members().take(MEMBERS_MAX + 1).map(value).collect();
    (values.len() <= MEMBERS_MAX).then_some(Choice { mask: fields(PORT_MASK << at), values })
}

/// Ports by as many leading bits as make few keys.
fn ports(at: u32, ranges: &[PortRange]) -> Option<Choice> {
    for dropped in [0, 4, 8, 12] {
        let whole = ranges.iter().filter(|range| range.low <= range.high);
        let leads = whole.map(|range| range.low >> dropped..=range.high >> dropped);
        let count = |leads: RangeInclusive<u16>| usize::from(leads.end() - leads.start()) + 1;
        if leads.clone().map(count).sum::<usize>() > KEYS_MAX {
            continue;
        }
        let mut leads: Vec<u16> = leads.flatten().collect();
        leads.sort_unstable();
        leads.dedup();
        let value = |lead: &u16| fields((u64::from(*lead) << dropped) << at);
        let (mask, values) = (value(&(u16::MAX >> dropped)), leads.iter().map(value).collect());
        return (leads.len() << dropped <= PORTS_MAX).then_some(Choice { mask, values });
    }
    None
}
