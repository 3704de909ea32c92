//! Sets as their users see them: `ipset` 7.17's commands and text over the dataplane's tables.
//!
//! | file | does |
//! |---|---|
//! | `mod` | the sets that there are, by number and name |
//! | `made` | how a set is made: the options of `create` and the line that shows them |
//! | `element` | an element's text, and what is printed |
//! | `ports` | the part of it that is a protocol and a port, or an ICMP type and code |
//! | `span` | the ranges and nets that an element stands for |
//! | `change` | adding, taking away and testing elements |
//! | `members` | the same for sets of sets |
//! | `command` | from a command line, or a line of a file, to what is done |
//! | `print` | `list` and `save` |
//!
//! [`Sets`] is a handle: clones see the same sets, which belong to the control core. Each set has a
//! number, as in the kernel: lists of sets refer to it, and `swap` exchanges what is behind two of
//! them. Rules name sets, and as a set that is referred to cannot be renamed, that is the same.
//! What rules look at is made for them by [`Sets::named`] whenever a policy is published.

mod change;
pub mod command;
mod element;
mod made;
mod members;
mod ports;
mod print;
mod span;
#[cfg(test)]
mod tests;

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::rules::check::sets_of;
use dataplane::rules::model::Ruleset;
use dataplane::rules::sets::elements::Writer;
use dataplane::rules::sets::key::Key;
use dataplane::rules::sets::kind::Storage;
use dataplane::rules::sets::set::{Body, Set};
use dataplane::rules::sets::{Change, Named, SetId};
use dataplane::time::Tick;

use made::Made;
use members::Member;

/// The most sets (`CONFIG_IP_SET_MAX`).
const SETS_MAX: usize = 256;

/// What is wrong with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    /// What is asked for cannot be done; exit code 1.
    Refused(String),
    /// It is not understood; exit code 2, and the way to the help.
    Usage(String),
    /// An element is not in the set that is tested; exit code 1, without the tool's name.
    Absent(String),
}

impl Wrong {
    fn refused<T>(text: impl Into<String>) -> Result<T, Wrong> {
        Err(Wrong::Refused(text.into()))
    }

    fn usage<T>(text: impl Into<String>) -> Result<T, Wrong> {
        Err(Wrong::Usage(text.into()))
    }

    fn syntax<T>(text: impl fmt::Display) -> Result<T, Wrong> {
        Wrong::refused(format!("Syntax error: {text}"))
    }
}

/// A set.
#[derive(Debug)]
struct Entry {
    name: String,
    made: Made,
    writer: Writer,
    /// What rules hold; a list's is made anew for them each time.
    set: Arc<Set>,
    comments: BTreeMap<Key, String>,
    members: Vec<Member>,
}

impl Entry {
    fn new(name: &str, made: Made) -> Entry {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let id = SetId(IDS.fetch_add(1, Ordering::Relaxed));
        let options = made.options();
        let seed = u64::from(made.initval) << 32 | id.0;
        let writer = Writer::with_info(Key::words_of(options.family), options.info, random(seed));
        let set = Arc::new(Set::new(id, options, Body::Table(Arc::clone(writer.elements()))));
        let (comments, members) = (BTreeMap::new(), Vec::new());
        Entry { name: name.to_owned(), made, writer, set, comments, members }
    }

    fn is_list(&self) -> bool {
        self.made.kind.storage == Storage::List
    }

    /// Takes away what is over.
    fn expire(&mut self, now: Tick) {
        for key in self.writer.remove_where(|_, found| found.has_expired(now)) {
            self.comments.remove(&key);
        }
        self.members.retain(|member| !member.has_expired(now));
    }
}

/// A secret number; where the system has none, the next best.
fn random(other: u64) -> u64 {
    getrandom::u64().unwrap_or(other.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

type Cell = Rc<RefCell<Entry>>;

#[derive(Clone, Debug, Default)]
struct Inner {
    /// By number.
    entries: Vec<Option<Cell>>,
    /// Names of sets that the rules in force name, with how often.
    named: BTreeMap<String, u32>,
    /// Rules in force may judge otherwise now than a moment ago.
    stale: bool,
    /// When elements were last looked at for those that are over.
    swept: Tick,
}

/// The sets that there are.
#[derive(Clone, Debug, Default)]
pub struct Sets(Rc<RefCell<Inner>>);

impl Sets {
    fn inner(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }

    /// Notes which sets rules name: those are in use.
    pub fn note_rules<'a>(&self, rulesets: impl IntoIterator<Item = &'a Ruleset>) {
        let mut named = BTreeMap::new();
        let tables = rulesets.into_iter().flat_map(|ruleset| ruleset.tables.iter().flatten());
        let rules = tables.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
        for name in rules.flat_map(sets_of) {
            *named.entry(name.clone()).or_default() += 1;
        }
        self.inner().named = named;
    }

    /// Whether rules in force may judge otherwise now than when this was last asked, so that what
    /// walks found is not to be believed any more.
    pub fn take_stale(&self) -> bool {
        std::mem::take(&mut self.inner().stale)
    }

    /// Undoes [`Sets::take_stale`].
    pub fn note_stale(&self) {
        self.inner().stale = true;
    }

    /// What rules may name. Lists are put together for this.
    pub fn named(&self) -> Named {
        let inner = self.inner();
        let cells = inner.entries.iter().flatten();
        cells.map(|cell| (cell.borrow().name.clone(), inner.set_of(&cell.borrow()))).collect()
    }

    /// These sets, but where `others` have one of the same name, theirs. Nothing happens to those
    /// here: the new handle may be dropped.
    pub fn replaced_by(&self, others: &Sets) -> Sets {
        let mut all = self.inner().clone();
        let theirs = others.inner().entries.clone();
        let mut numbers = BTreeMap::new();
        for (old, cell) in theirs.iter().enumerate() {
            let Some(cell) = cell else { continue };
            let name = cell.borrow().name.clone();
            let number = all.number(&name).unwrap_or_else(|| all.free_number());
            all.put(number, Rc::clone(cell));
            numbers.insert(old, number);
        }
        for cell in theirs.iter().flatten() {
            for member in &mut cell.borrow_mut().members {
                member.number = numbers.get(&member.number).copied().unwrap_or(member.number);
            }
        }
        Sets(Rc::new(RefCell::new(all)))
    }

    /// Does what a SET rule asks for.
    pub fn change(&self, change: &Change, now: Tick) {
        let inner = self.inner();
        let cell = inner.entries.iter().flatten().find(|c| c.borrow().set.id == change.set);
        if let Some(cell) = cell {
            cell.borrow_mut().change_for_packet(change, now);
        }
    }

    /// Takes away what is over, once a second.
    pub fn expire(&self, now: Tick) {
        let mut inner = self.inner();
        if !inner.swept.plus_secs(1).has_passed(now) {
            return;
        }
        inner.swept = now;
        let timed = |cell: &&Cell| cell.borrow().made.timeout.is_some();
        inner.entries.iter().flatten().filter(timed).for_each(|c| c.borrow_mut().expire(now));
    }
}

impl Inner {
    fn number(&self, name: &str) -> Option<usize> {
        let is = |cell: &Option<Cell>| cell.as_ref().is_some_and(|c| c.borrow().name == name);
        self.entries.iter().position(is)
    }

    /// The cell of a name, and its number.
    fn find(&self, name: &str) -> Result<(usize, Cell), Wrong> {
        let number = self.number(name);
        let found = number.and_then(|n| Some((n, Rc::clone(self.entries.get(n)?.as_ref()?))));
        found.ok_or_else(|| Wrong::Refused(Wrong::NO_SET.to_owned()))
    }

    fn free_number(&self) -> usize {
        self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len())
    }

    fn put(&mut self, number: usize, cell: Cell) {
        if number >= self.entries.len() {
            self.entries.resize(number + 1, None);
        }
        self.entries[number] = Some(cell);
    }

    /// Lists that have the set as a member.
    fn lists_with(&self, number: usize) -> impl Iterator<Item = &Cell> {
        let cells = self.entries.iter().flatten();
        cells.filter(move |cell| {
            cell.try_borrow().is_ok_and(|e| e.members.iter().any(|m| m.number == number))
        })
    }

    /// How many rules and lists refer to the set.
    fn references(&self, number: usize, name: &str) -> u32 {
        let rules = self.named.get(name).copied().unwrap_or(0);
        rules + self.lists_with(number).count() as u32
    }

    /// Notes that another set, or one that says something else, is behind a number.
    fn note_change(&mut self, number: usize, name: &str) {
        let rules = |name: &str| self.named.contains_key(name);
        let reached = rules(name) || self.lists_with(number).any(|list| rules(&list.borrow().name));
        self.stale |= reached;
    }

    /// What rules hold of a set.
    fn set_of(&self, entry: &Entry) -> Arc<Set> {
        if !entry.is_list() {
            return Arc::clone(&entry.set);
        }
        let member = |member: &Member| {
            let of = self.entries.get(member.number)?.as_ref()?.borrow();
            (!of.is_list()).then(|| member.held(&of.set))
        };
        let members = entry.members.iter().filter_map(member).collect();
        let (id, options) = (entry.set.id, entry.set.options.clone());
        Arc::new(Set::new(id, options, Body::List(members)))
    }
}
