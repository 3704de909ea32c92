//! Sets of sets: which members a list has, and in which order.

use std::sync::Arc;

use dataplane::rules::sets::list;
use dataplane::rules::sets::list::Tally;
use dataplane::rules::sets::set::{Set, deadline};
use dataplane::time::Tick;

use super::change::Extra;
use super::{Entry, Inner, Wrong};

/// A set in a list.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The set's number.
    pub(super) number: usize,
    pub(super) comment: Option<String>,
    pub(super) tally: Arc<Tally>,
}

impl Member {
    pub(super) fn has_expired(&self, now: Tick) -> bool {
        self.tally.deadline.is_some_and(|deadline| deadline.has_passed(now))
    }

    /// As rules hold it.
    pub(super) fn held(&self, set: &Arc<Set>) -> Arc<list::Member> {
        Arc::new(list::Member { set: Arc::clone(set), tally: Arc::clone(&self.tally) })
    }
}

/// A member that a command names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    number: usize,
    /// The set beside which it stands, and whether before it.
    beside: Option<(usize, bool)>,
}

impl Inner {
    /// Finds the sets that a command on a list names (`list_set_uadt`).
    pub(super) fn member(&self, name: &str, extra: &Extra) -> Result<Named, Wrong> {
        let Some(number) = self.number(name) else {
            let text = "Set to be added/deleted/tested as element does not exist.";
            return Wrong::refused(text);
        };
        let list = |number: usize| {
            let cell = self.entries.get(number).and_then(Option::as_ref);
            // The list itself is borrowed.
            cell.is_none_or(|cell| cell.try_borrow().map_or(true, |entry| entry.is_list()))
        };
        if list(number) {
            return Wrong::refused("Sets with list:set type cannot be added to the set.");
        }
        let beside = match &extra.beside {
            None => None,
            Some((other, before)) => match self.number(other) {
                Some(other) => Some((other, *before)),
                None => {
                    let text = "The set to which you referred with 'before' or 'after' does not \
                                exist.";
                    return Wrong::refused(text);
                }
            },
        };
        Ok(Named { number, beside })
    }
}

impl Entry {
    fn place(&self, number: usize) -> Option<usize> {
        self.members.iter().position(|member| member.number == number)
    }

    /// Adds a member.
    pub(super) fn add_member(
        &mut self,
        named: Named,
        extra: &Extra,
        exist: bool,
        now: Tick,
    ) -> Result<(), Wrong> {
        self.members.retain(|member| !member.has_expired(now));
        let over = self.made.timeout.and_then(|own| deadline(extra.timeout.unwrap_or(own), now));
        let comment = extra.comment.clone().filter(|comment| !comment.is_empty());
        let there = self.place(named.number);
        if there.is_some() && !exist {
            return Wrong::refused(Wrong::ADDED);
        }
        let beside = match named.beside {
            None => None,
            Some((other, before)) => match self.place(other) {
                Some(place) => Some(if before { place } else { place + 1 }),
                None => {
                    let text = "The set to which you referred with 'before' or 'after' is not \
                                added to the set.";
                    return Wrong::refused(text);
                }
            },
        };
        let old = there.and_then(|place| self.members.get(place)).map(|m| m.tally.counters());
        let (packets, bytes) = old.unwrap_or_default();
        let (packets, bytes) = (extra.packets.unwrap_or(packets), extra.bytes.unwrap_or(bytes));
        let counters = (self.made.counters, packets, bytes);
        let tally = Tally::new(over, counters, self.made.skbinfo.then_some(extra.info));
        let tally = Arc::new(tally);
        let member = Member { number: named.number, comment, tally };
        match (there.and_then(|place| self.members.get_mut(place)), beside) {
            (Some(old), _) => *old = member,
            (None, Some(place)) => self.members.insert(place, member),
            (None, None) => self.members.push(member),
        }
        Ok(())
    }

    /// True if the member is there, and beside the other if one is named.
    pub(super) fn test_member(&self, named: Named, now: Tick) -> bool {
        let live = |member: &&Member| !member.has_expired(now);
        let numbers: Vec<usize> = self.members.iter().filter(live).map(|m| m.number).collect();
        match named.beside {
            None => numbers.contains(&named.number),
            Some((other, true)) => numbers.windows(2).any(|two| two == [named.number, other]),
            Some((other, false)) => numbers.windows(2).any(|two| two == [other, named.number]),
        }
    }

    /// Takes a member away.
    pub(super) fn del_member(&mut self, named: Named, exist: bool, now: Tick) -> Result<(), Wrong> {
        let there = self.test_member(named, now);
        if there {
            self.members.retain(|member| member.number != named.number);
        }
        if there || exist { Ok(()) } else { Wrong::refused(Wrong::NOT_ADDED) }
    }
}
