//! What a match or target is to the text layer: its options, and four things to do with its value.
//!
//! An [`Extension`] is a row of a table: name, options, which rules it may stand in. Its value is
//! one of the dataplane's, as written ([`Match`](dataplane::rules::matches::Match),
//! [`Target`](dataplane::rules::targets::Target)), and implements [`Text`]. What all extensions
//! have in common (an option given twice, one that is missing, two that exclude each other, a
//! protocol that `-p` has to name) is read off the table here, once.

use dataplane::rules::hook::Family;
use dataplane::rules::matches::Maybe;
use dataplane::rules::model::Rule;

use super::names;
use super::print::Line;
use super::values::Fault;
use crate::labels::Names;

/// An option that a match or target knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    /// Its name without dashes, as it is printed and as [`Given::name`] tells it.
    pub(super) name: &'static str,
    /// Another spelling; empty if there is none.
    alias: &'static str,
    /// Words it takes.
    pub(super) takes: usize,
    /// `!` may stand before it.
    pub(super) not: bool,
    /// It has to be given.
    must: bool,
    /// It may be given more than once.
    many: bool,
    /// Options of one group exclude each other; 0 for none.
    group: u8,
}

/// An option with one word, which may be negated.
pub(super) const fn opt(name: &'static str) -> Opt {
    Opt { name, alias: "", takes: 1, not: true, must: false, many: false, group: 0 }
}

/// An option with one word, which cannot be negated.
pub(super) const fn valued(name: &'static str) -> Opt {
    Opt { not: false, ..opt(name) }
}

/// An option without a word, which cannot be negated.
pub(super) const fn flag(name: &'static str) -> Opt {
    Opt { not: false, takes: 0, ..opt(name) }
}

impl Opt {
    /// The same with a second spelling.
    pub(super) const fn or(self, alias: &'static str) -> Opt {
        Opt { alias, ..self }
    }

    /// The same, which has to be given.
    pub(super) const fn must(self) -> Opt {
        Opt { must: true, ..self }
    }

    /// The same, which may be given again and again.
    pub(super) const fn many(self) -> Opt {
        Opt { many: true, ..self }
    }

    /// The same with `takes` words, which may be negated or not as before.
    pub(super) const fn takes(self, takes: usize) -> Opt {
        Opt { takes, ..self }
    }

    /// The same, excluding the others of its group.
    pub(super) const fn group(self, group: u8) -> Opt {
        Opt { group, ..self }
    }

    /// True if the other cannot stand beside it: the same again, or one of its group.
    pub(super) fn clashes(&self, other: &Opt) -> bool {
        let group = self.group != 0 && self.group == other.group;
        !self.many && (self.name == other.name || group)
    }

    /// True for one of its spellings.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name || !self.alias.is_empty() && self.alias == name
    }

    /// True if one of its spellings begins so.
    pub(super) fn begins(&self, start: &str) -> bool {
        !start.is_empty() && (self.name.starts_with(start) || self.alias.starts_with(start))
    }
}

/// The option of that name, or the only one that begins so.
pub(super) fn find(options: &'static [Opt], name: &str, whole: bool) -> Option<&'static Opt> {
    if whole {
        return options.iter().find(|option| option.is(name));
    }
    let mut hits = options.iter().filter(|option| !name.is_empty() && option.begins(name));
    let first = hits.next()?;
    hits.next().is_none().then_some(first)
}

/// A match or a target by its name.
#[derive(Debug)]
pub(super) struct Extension<T: 'static> {
    /// The word after `-m` or `-j`, as it is printed.
    pub(super) name: &'static str,
    /// Another word for it; empty if there is none.
    pub(super) alias: &'static str,
    /// The family it is for; `None` for both.
    pub(super) family: Option<Family>,
    /// Protocols of which `-p` has to name one; empty where it need not.
    pub(super) protos: &'static [u8],
    /// `-p` with one of `protos` brings the match along where one of its options is used.
    pub(super) implied: bool,
    /// Its options, in no order.
    pub(super) options: &'static [Opt],
    /// Its value before any option.
    pub(super) begin: fn(Family) -> T,
}

impl<T> Extension<T> {
    /// True if `word` names it in a rule of `family`.
    pub(super) fn is(&self, word: &str, family: Family) -> bool {
        let named = self.name == word || !self.alias.is_empty() && self.alias == word;
        named && self.family.is_none_or(|only| only == family)
    }

    fn fault(&self, proto: Option<Maybe<u8>>) -> Option<Fault> {
        let named = proto.is_some_and(|p| !p.not && self.protos.contains(&p.value));
        if self.protos.is_empty() || named {
            return None;
        }
        let word = |&p: &u8| match names::protocol_name(p) {
            Some("ipv6-icmp") => "`-p icmpv6'".to_owned(),
            name => format!("`-p {}'", name.unwrap_or("?")),
        };
        let words: Vec<String> = self.protos.iter().map(word).collect();
        let list = match words.as_slice() {
            [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => words.concat(),
        };
        Some(format!("{}: needs {list}", self.name))
    }
}

/// One option as it stands in a rule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    /// The option's [`Opt::name`], however it was spelled.
    pub(super) name: &'static str,
    /// `!` stands before it.
    pub(super) not: bool,
    /// Its words.
    pub(super) values: &'a [&'a str],
    /// The rule's family.
    pub(super) family: Family,
    /// Names that labels have.
    pub(super) labels: &'a Names,
    /// The number of the protocol that `-p` has named before it.
    pub(super) proto: Option<u8>,
}

impl<'a> Given<'a> {
    /// Its first word.
    pub(super) fn text(&self) -> &'a str {
        self.values.first().copied().unwrap_or("")
    }

    /// `value`, negated as the option is.
    pub(super) fn maybe<T>(&self, value: T) -> Maybe<T> {
        Maybe { not: self.not, value }
    }
}

/// A rule as far as it is known once its options are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole<'a> {
    /// The extension's name.
    pub(super) name: &'static str,
    /// The rule without matches and target.
    pub(super) rule: &'a Rule,
    /// Names of the extension's options that were given.
    pub(super) seen: &'a [&'static str],
}

/// A match's or target's value as text.
pub(super) trait Text {
    /// Takes an option of its table.
    ///
    /// # Errors
    /// What is wrong with the option's value.
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault>;

    /// Judges the options taken together.
    ///
    /// # Errors
    /// What is wrong, beginning with the extension's name.
    fn finish(&mut self, _: &Whole<'_>) -> Result<(), Fault> {
        Ok(())
    }

    /// Prints its options as `iptables-save` does, each with a blank before it.
    fn save(&self, out: &mut Line<'_>);

    /// Prints it as `iptables -L` does, with a blank before it.
    fn list(&self, out: &mut Line<'_>);
}

impl<T: Text + ?Sized> Text for Box<T> {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        (**self).set(given)
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        (**self).finish(whole)
    }

    fn save(&self, out: &mut Line<'_>) {
        (**self).save(out);
    }

    fn list(&self, out: &mut Line<'_>) {
        (**self).list(out);
    }
}

/// A match or target while its options are read.
#[derive(Clone, Debug)]
pub(super) struct Loaded<T: 'static> {
    /// Its row.
    pub(super) extension: &'static Extension<T>,
    /// Brought along by `-p`, not yet named by `-m`.
    pub(super) implied: bool,
    value: T,
    seen: Vec<&'static Opt>,
}

impl<T> Loaded<T> {
    /// Before its options.
    pub(super) fn new(extension: &'static Extension<T>, family: Family) -> Loaded<T> {
        let value = (extension.begin)(family);
        Loaded { extension, implied: false, value, seen: Vec::new() }
    }

    /// Takes an option; `text` finds the value's text.
    pub(super) fn set(
        &mut self,
        option: &'static Opt,
        given: &Given<'_>,
        text: fn(&mut T) -> Option<&mut dyn Text>,
    ) -> Result<(), Fault> {
        let extension = self.extension.name;
        if let Some(seen) = self.seen.iter().find(|seen| seen.clashes(option)) {
            let (name, seen) = (option.name, seen.name);
            return Err(match seen == name {
                true => format!("{extension}: option `--{name}' can be given only once"),
                false => format!(
                    "{extension}: option `--{name}' cannot be used together with `--{seen}'"
                ),
            });
        }
        self.seen.push(option);
        text(&mut self.value).map_or(Ok(()), |text| text.set(given))
    }

    /// The value, once all options of `rule` are read.
    pub(super) fn finish(
        mut self,
        rule: &Rule,
        text: fn(&mut T) -> Option<&mut dyn Text>,
    ) -> Result<T, Fault> {
        let extension = self.extension;
        if let Some(fault) = extension.fault(rule.basics.proto) {
            return Err(fault);
        }
        let seen: Vec<&'static str> = self.seen.iter().map(|option| option.name).collect();
        let missing = extension.options.iter().find(|o| o.must && !seen.contains(&o.name));
        if let Some(option) = missing {
            let (name, option) = (extension.name, option.name);
            return Err(format!("{name}: option `--{option}' must be specified"));
        }
        if let Some(text) = text(&mut self.value) {
            text.finish(&Whole { name: extension.name, rule, seen: &seen })?;
        }
        Ok(self.value)
    }
}
