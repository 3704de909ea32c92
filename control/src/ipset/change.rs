//! Adding, taking away and testing elements, by command and for packets (`mtype_add`).

use dataplane::rules::sets::elements::Info;
use dataplane::rules::sets::key::Key;
use dataplane::rules::sets::kind::{Part, Storage};
use dataplane::rules::sets::set::{Asked, Outcome, TIMEOUT_MAX, Weight, deadline};
use dataplane::rules::sets::{Change, What};
use dataplane::time::Tick;

use super::element::Element;
use super::made::Made;
use super::{Entry, Wrong, element};

impl Wrong {
    pub(super) const NO_SET: &str = "The set with the given name does not exist";
    pub(super) const ADDED: &str = "Element cannot be added to the set: it's already added";
    pub(super) const NOT_ADDED: &str = "Element cannot be deleted from the set: it's not added";
    pub(super) const RANGE: &str = "Element is out of the range of the set";
    const FULL: &str = "Hash is full, cannot add more elements";
}

/// What stands behind an element.
#[derive(Clone, Debug, Default)]
pub(super) struct Extra {
    pub(super) timeout: Option<u32>,
    pub(super) packets: Option<u64>,
    pub(super) bytes: Option<u64>,
    pub(super) comment: Option<String>,
    pub(super) nomatch: bool,
    /// The set beside which a member stands, and whether before it.
    pub(super) beside: Option<(String, bool)>,
    /// `skbmark`, `skbprio` and `skbqueue`.
    pub(super) info: Info,
    has_info: bool,
}

/// The longest comment in bytes (`IPSET_MAX_COMMENT_SIZE`).
const COMMENT_MAX: usize = 255;

impl Extra {
    /// Reads the words behind an element that is added (`adds`), deleted or tested (`tests`).
    pub(super) fn parse(
        made: &Made,
        words: &[String],
        (adds, tests): (bool, bool),
    ) -> Result<Extra, Wrong> {
        let mut extra = Extra::default();
        let mut seen: Vec<&str> = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let option = word.strip_prefix("--").unwrap_or(word);
            let known = match option {
                "timeout" | "packets" | "bytes" | "comment" | "skbmark" | "skbprio"
                | "skbqueue" => adds,
                "nomatch" => (adds || tests) && made.kind.takes_nomatch(),
                "before" | "after" => made.kind.storage == Storage::List,
                _ => false,
            };
            if !known {
                return Wrong::usage(format!("Unknown argument: `{word}'"));
            }
            let beside = matches!(option, "before" | "after") && extra.beside.is_some();
            if beside || seen.contains(&option) {
                return Wrong::syntax(format_args!("{option} already specified"));
            }
            seen.push(option);
            if option == "nomatch" {
                extra.nomatch = true;
                continue;
            }
            let Some(value) = words.next() else {
                return Wrong::usage(format!("Missing mandatory argument of option `{option}'"));
            };
            extra.set(option, value)?;
        }
        extra.fits(made)
    }

    fn set(&mut self, option: &str, value: &str) -> Result<(), Wrong> {
        match option {
            "timeout" => self.timeout = Some(element::number(value, 0, TIMEOUT_MAX.into())? as u32),
            "packets" => self.packets = Some(element::number(value, 0, u64::MAX - 1)?),
            "bytes" => self.bytes = Some(element::number(value, 0, u64::MAX - 1)?),
            "comment" if value.contains('"') => {
                return Wrong::syntax("\" character is not permitted in comments");
            }
            "comment" if value.len() > COMMENT_MAX => {
                return Wrong::syntax(format_args!("Comment is longer than {COMMENT_MAX} bytes"));
            }
            "comment" => self.comment = Some(value.to_owned()),
            "before" => self.beside = Some((value.to_owned(), true)),
            "after" => self.beside = Some((value.to_owned(), false)),
            _ => self.set_info(option, value)?,
        }
        Ok(())
    }

    /// What an element says of packets.
    fn set_info(&mut self, option: &str, value: &str) -> Result<(), Wrong> {
        self.has_info = true;
        match option {
            "skbmark" => {
                let (mark, mask) = skbmark(value)?;
                self.info = Info { mark, mask, ..self.info };
            }
            "skbprio" => self.info.priority = skbprio(value)?,
            _ => self.info.queue = element::number(value, 0, u16::MAX.into())? as u16,
        }
        Ok(())
    }

    /// The same, if the set has what it asks for.
    fn fits(self, made: &Made) -> Result<Extra, Wrong> {
        let counts = self.packets.is_some() || self.bytes.is_some();
        let wrong = if self.timeout.is_some() && made.timeout.is_none() {
            "Timeout cannot be used: set was created without timeout support"
        } else if counts && !made.counters {
            "Packet/byte counters cannot be used: set was created without counter support"
        } else if self.comment.is_some() && !made.comment {
            "Comment cannot be used: set was created without comment support"
        } else if self.has_info && !made.skbinfo {
            "Skbinfo mapping cannot be used: set was created without skbinfo support"
        } else {
            return Ok(self);
        };
        Wrong::refused(wrong)
    }
}

/// `0x1/0xff`, or `0x1` for all bits.
fn skbmark(text: &str) -> Result<(u32, u32), Wrong> {
    let hex = |text: &str| Some(text.strip_prefix("0x").and_then(leading_hex)?.0);
    let Some(mark) = hex(text) else {
        let what = "Invalid skbmark format, it should be:  MARK/MASK or MARK (see manpage)";
        return Wrong::syntax(what);
    };
    let mask = text.split_once('/').and_then(|(_, mask)| hex(mask));
    Ok((mark, mask.unwrap_or(u32::MAX)))
}

/// `1:ff`.
fn skbprio(text: &str) -> Result<u32, Wrong> {
    let numbers = text.split_once(':').and_then(|(major, minor)| {
        Some((leading_hex(major).filter(|(_, rest)| rest.is_empty())?.0, leading_hex(minor)?.0))
    });
    let Some((major, minor)) = numbers else {
        return Wrong::syntax("Invalid skbprio format, it should be:MAJOR:MINOR (see manpage)");
    };
    Ok(major << 16 | minor & 0xffff)
}

/// The number that a word begins with, as `%x` reads it, and the rest.
fn leading_hex(text: &str) -> Option<(u32, &str)> {
    let text = text.strip_prefix("0x").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

impl Entry {
    /// Adds every key of an element, up to the first that cannot be added.
    pub(super) fn add(
        &mut self,
        element: &Element,
        extra: &Extra,
        exist: bool,
        now: Tick,
    ) -> Result<(), Wrong> {
        let keys = self.keys(element)?;
        keys.iter().try_for_each(|key| self.add_key(key, extra, exist, now))
    }

    /// Deletes every key of an element, up to the first that is not there.
    pub(super) fn del(&mut self, element: &Element, exist: bool, now: Tick) -> Result<(), Wrong> {
        for key in self.keys(element)? {
            let found = self.writer.elements().find(&key);
            let there = found.is_some_and(|found| !found.has_expired(now));
            self.forget(&key);
            if !there && !exist {
                return Wrong::refused(Wrong::NOT_ADDED);
            }
        }
        Ok(())
    }

    /// True if the set has the element, as an exception if that is asked.
    pub(super) fn test(&self, element: &Element, extra: &Extra, now: Tick) -> Result<bool, Wrong> {
        element.only_one(&self.made)?;
        let keys = match self.keys(element) {
            Err(Wrong::Refused(text)) if text == Wrong::RANGE => return Ok(false),
            keys => keys?,
        };
        let Some(key) = keys.first() else { return Ok(false) };
        let weight = Weight { bytes: None, now };
        let found = self.set.find(self.writer.elements(), key, &Asked::default(), weight);
        Ok(Outcome::from(found)
            == if extra.nomatch { Outcome::Exception } else { Outcome::Present })
    }

    /// All that the element stands for, within the range of a bitmap.
    fn keys(&self, element: &Element) -> Result<Vec<Key>, Wrong> {
        let keys = element.keys(&self.made)?;
        if let Some((low, high)) = self.made.range {
            let port = self.made.kind.has(Part::Port);
            let low = low & if port { u128::MAX } else { self.made.mask() };
            let value = |key: &Key| if port { key.port.into() } else { key.first };
            if !keys.iter().all(|key| (low..=high).contains(&value(key))) {
                return Wrong::refused(Wrong::RANGE);
            }
        }
        Ok(keys)
    }

    fn add_key(&mut self, key: &Key, extra: &Extra, exist: bool, now: Tick) -> Result<(), Wrong> {
        let elements = std::sync::Arc::clone(self.writer.elements());
        let over = self.made.timeout.and_then(|own| deadline(extra.timeout.unwrap_or(own), now));
        match elements.find(key).filter(|found| !found.has_expired(now)) {
            Some(_) if !exist => return Wrong::refused(Wrong::ADDED),
            Some(found) => {
                if extra.packets.is_some() || extra.bytes.is_some() {
                    let (packets, bytes) = found.counters();
                    found.set_counters(
                        extra.packets.unwrap_or(packets),
                        extra.bytes.unwrap_or(bytes),
                    );
                }
                if self.made.timeout.is_some() {
                    found.set_deadline(over);
                }
                found.set_info(extra.info);
                self.writer.set_nomatch(key, extra.nomatch);
            }
            None => {
                self.make_room(key, now)?;
                let counters = (extra.packets.unwrap_or(0), extra.bytes.unwrap_or(0));
                let with = (counters, extra.info);
                let inserted = self.writer.insert_with(key, extra.nomatch, over, with);
                inserted.or_else(|_| Wrong::refused(Wrong::FULL))?;
            }
        }
        match extra.comment.as_ref().filter(|comment| !comment.is_empty()) {
            Some(comment) => drop(self.comments.insert(*key, comment.clone())),
            None => drop(self.comments.remove(key)),
        }
        Ok(())
    }

    /// Takes away what stands in a new element's way: its own past, all that is over, or, in a set
    /// that is told to, another one.
    fn make_room(&mut self, key: &Key, now: Tick) -> Result<(), Wrong> {
        self.forget(key);
        if self.writer.elements().count() < self.made.max {
            return Ok(());
        }
        self.expire(now);
        if self.writer.elements().count() < self.made.max {
            return Ok(());
        }
        match self.writer.victim(key).filter(|_| self.made.forceadd) {
            Some(victim) => self.forget(&victim),
            None => return Wrong::refused(Wrong::FULL),
        }
        Ok(())
    }

    fn forget(&mut self, key: &Key) {
        self.writer.remove(key);
        self.comments.remove(key);
    }

    /// Takes away everything.
    pub(super) fn flush(&mut self) {
        self.writer.remove_where(|_, _| true);
        self.comments.clear();
        self.members.clear();
    }

    /// Does what a packet asks for; what has changed meanwhile stays as it is now.
    pub(super) fn change_for_packet(&mut self, change: &Change, now: Tick) {
        let elements = std::sync::Arc::clone(self.writer.elements());
        let found = elements.find(&change.key);
        let live = found.filter(|found| !found.has_expired(now));
        match change.what {
            What::Remove if live.is_none() => self.forget(&change.key),
            What::Remove => {}
            What::Add { timeout, bytes } => match live {
                Some(found) if !found.nomatch => {}
                _ => {
                    let counters = self.made.counters.then_some(bytes);
                    let timeout = timeout.filter(|_| self.made.timeout.is_some());
                    let packets = counters.map(|_| 1);
                    let extra = Extra { timeout, packets, bytes: counters, ..Extra::default() };
                    // A full set stays as it is.
                    let _ = self.add_key(&change.key, &extra, true, now);
                }
            },
        }
    }
}
