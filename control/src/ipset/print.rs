//! `list` and `save`.

use core::fmt::Write;

use dataplane::rules::sets::elements::{Found, Info};
use dataplane::rules::sets::key::Key;
use dataplane::rules::sets::kind::Storage;
use dataplane::time::Tick;

use super::element::key_text;
use super::{Entry, Inner};

/// What of the sets is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Names.
    Names,
    /// What is known of each set.
    Terse,
    /// That and the elements.
    Plain,
    /// The commands that make them.
    Save,
}

impl Inner {
    /// The text of one set, or of all: lists come behind the sets that they name.
    pub(super) fn text(&self, only: Option<usize>, how: How, now: Tick) -> String {
        let mut numbers: Vec<usize> = match only {
            Some(number) => vec![number],
            None => (0..self.entries.len()).collect(),
        };
        let is_list = |number: &usize| {
            let cell = self.entries.get(*number).and_then(Option::as_ref);
            cell.is_some_and(|cell| cell.borrow().is_list())
        };
        numbers.sort_by_key(is_list);
        let mut texts = Vec::new();
        for number in numbers {
            let Some(cell) = self.entries.get(number).and_then(Option::as_ref) else { continue };
            let entry = cell.borrow();
            texts.push(match how {
                How::Names => format!("{}\n", entry.name),
                How::Save => self.save_text(&entry, now),
                How::Plain | How::Terse => self.list_text(number, &entry, how, now),
            });
        }
        let apart = matches!(how, How::Plain | How::Terse);
        texts.join(if apart { "\n" } else { "" })
    }

    fn save_text(&self, entry: &Entry, now: Tick) -> String {
        let (name, kind) = (&entry.name, entry.made.kind.name);
        let mut out = format!("create {name} {kind} {}\n", entry.made.text(entry.hashsize()));
        for element in self.element_texts(entry, now) {
            let _ = writeln!(out, "add {name} {element}");
        }
        out
    }

    fn list_text(&self, number: usize, entry: &Entry, how: How, now: Tick) -> String {
        let elements = self.element_texts(entry, now);
        let mut out = format!(
            "Name: {}\nType: {}\nRevision: {}\nHeader: {}\nSize in memory: {}\nReferences: {}\n\
             Number of entries: {}\n",
            entry.name,
            entry.made.kind.name,
            entry.made.kind.revision,
            entry.made.text(entry.hashsize()),
            entry.bytes(),
            self.references(number, &entry.name),
            elements.len(),
        );
        if how == How::Plain {
            out.push_str("Members:\n");
            for element in &elements {
                let _ = writeln!(out, "{element}");
            }
        }
        out
    }

    fn element_texts(&self, entry: &Entry, now: Tick) -> Vec<String> {
        if entry.is_list() {
            return self.member_texts(entry, now);
        }
        let elements = entry.writer.elements().iter();
        let mut all: Vec<(Key, Found<'_>)> =
            elements.filter(|(_, found)| !found.has_expired(now)).collect();
        // An address comes before the nets that begin with it.
        let full = entry.made.width() + 1;
        let first = |prefix: u8| if prefix == full { 0 } else { prefix };
        all.sort_by_key(|(key, _)| {
            let (a, b) = (first(key.first_prefix), first(key.second_prefix));
            (key.first, a, key.proto, key.port, key.second, b)
        });
        let text = |(key, found): &(Key, Found<'_>)| {
            let mut out = key_text(key, &entry.made);
            entry.timeout_text(&mut out, found.deadline(), now);
            if found.nomatch {
                out.push_str(" nomatch");
            }
            let comment = entry.comments.get(key).map(String::as_str);
            entry.rest_text(&mut out, found.counters(), comment);
            info_text(&mut out, found.info());
            out
        };
        all.iter().map(text).collect()
    }

    fn member_texts(&self, entry: &Entry, now: Tick) -> Vec<String> {
        let live = entry.members.iter().filter(|member| !member.has_expired(now));
        let texts = live.filter_map(|member| {
            let mut out = self.entries.get(member.number)?.as_ref()?.borrow().name.clone();
            entry.timeout_text(&mut out, member.tally.deadline, now);
            entry.rest_text(&mut out, member.tally.counters(), member.comment.as_deref());
            info_text(&mut out, member.tally.info.unwrap_or_default());
            Some(out)
        });
        texts.collect()
    }
}

impl Entry {
    /// The size that was asked for, or what the table has grown to since.
    fn hashsize(&self) -> u32 {
        self.made.hashsize.max(self.writer.buckets() as u32)
    }

    /// Memory behind the set.
    fn bytes(&self) -> usize {
        let elements = self.writer.elements().count() as usize;
        let comments: usize = self.comments.values().map(String::len).sum();
        let table = match self.made.kind.storage {
            Storage::List => 0,
            _ => self.writer.buckets() * 64,
        };
        let members = self.members.len() * size_of::<super::Member>();
        size_of::<Entry>() + elements * 72 + table + comments + members
    }

    fn timeout_text(&self, out: &mut String, deadline: Option<Tick>, now: Tick) {
        if self.made.timeout.is_some() {
            // What is not over has a second left.
            let left = deadline.map_or(0, |deadline| deadline.remaining_secs(now).max(1));
            let _ = write!(out, " timeout {left}");
        }
    }

    fn rest_text(&self, out: &mut String, (packets, bytes): (u64, u64), comment: Option<&str>) {
        if self.made.counters {
            let _ = write!(out, " packets {packets} bytes {bytes}");
        }
        if let Some(comment) = comment {
            let _ = write!(out, " comment \"{comment}\"");
        }
    }
}

/// What is not zero of what an element says of packets.
fn info_text(out: &mut String, info: Info) {
    let Info { mark, mask, priority, queue } = info;
    let _ = match (mark, mask) {
        (0, 0) => Ok(()),
        (_, u32::MAX) => write!(out, " skbmark 0x{mark:x}"),
        _ => write!(out, " skbmark 0x{mark:x}/0x{mask:x}"),
    };
    if priority != 0 {
        let _ = write!(out, " skbprio {:x}:{:x}", priority >> 16, priority & 0xffff);
    }
    if queue != 0 {
        let _ = write!(out, " skbqueue {queue}");
    }
}
