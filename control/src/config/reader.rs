//! Reading TOML so that every complaint has a place: `file:line:column: message`, one line.
//!
//! The parsed document keeps its spans. A [`Section`] hands out keys by name and remembers which
//! were asked for; what is left at its end is either a key of a later version or no key at all.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration that cannot be used, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named by the user or inside the configuration.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// One line: which key, which value, what is allowed.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        write!(f, "{file}:{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// A value with its place.
pub(super) type Value<'a> = &'a Spanned<DeValue<'a>>;

/// The text of a file, to turn spans into places.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// An error at a span.
    pub(super) fn error(&self, span: Range<usize>, message: impl fmt::Display) -> ConfigError {
        let start = span.start.min(self.text.len());
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ConfigError {
            file: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message: message.to_string().replace('\n', " "),
        }
    }

    /// What the user wrote there, shortened to a part of one line.
    fn written(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default();
        match line.char_indices().nth(40) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        }
    }
}

/// One table of the document, named as messages name it.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) name: String,
    /// Where to point for a missing key.
    pub(super) span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<String>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(super) fn root(source: &'a Source<'a>, table: &'a DeTable<'a>) -> Section<'a> {
        Section {
            source,
            name: "the file".to_owned(),
            span: 0..0,
            table: Some(table),
            asked: RefCell::default(),
        }
    }

    fn below(&self, name: String, value: Value<'a>) -> Result<Section<'a>, ConfigError> {
        let span = value.span();
        let DeValue::Table(table) = value.get_ref() else {
            return Err(self.source.error(span, format_args!("{name} must be a table")));
        };
        let asked = RefCell::default();
        Ok(Section { source: self.source, name, span, table: Some(table), asked })
    }

    /// The table `[key]`; an empty one if it is absent.
    pub(super) fn table(&self, key: &str) -> Result<Section<'a>, ConfigError> {
        let name = format!("[{key}]");
        match self.value(key) {
            Some(value) => self.below(name, value),
            None => Ok(Section {
                source: self.source,
                name,
                span: self.span.clone(),
                table: None,
                asked: RefCell::default(),
            }),
        }
    }

    /// The tables `[[key]]`.
    pub(super) fn tables(&self, key: &str) -> Result<Vec<Section<'a>>, ConfigError> {
        let name = format!("[[{key}]]");
        let Some(value) = self.value(key) else { return Ok(Vec::new()) };
        let DeValue::Array(elements) = value.get_ref() else {
            let message = format!("{name} must be written with double brackets");
            return Err(self.source.error(value.span(), message));
        };
        elements.iter().map(|element| self.below(name.clone(), element)).collect()
    }

    /// The keys, in the order of the file.
    pub(super) fn keys(&self) -> Vec<&'a str> {
        let mut keys: Vec<_> = self.table.iter().flat_map(|table| table.iter()).collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        keys.into_iter().map(|(key, _)| key.get_ref().as_ref()).collect()
    }

    /// The raw value of a key.
    pub(super) fn value(&self, key: &str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key.to_owned());
        self.table?.get(key)
    }

    /// An error at the value of `key`, saying what is wrong with it.
    pub(super) fn wrong(
        &self,
        key: &str,
        value: Value<'a>,
        what: impl fmt::Display,
    ) -> ConfigError {
        let written = self.source.written(value.span());
        let name = &self.name;
        self.source.error(value.span(), format_args!("{name} {key} = {written}: {what}"))
    }

    /// An error for a key that must be there.
    pub(super) fn missing(&self, key: &str) -> ConfigError {
        self.source.error(self.span.clone(), format_args!("{} needs the key \"{key}\"", self.name))
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<(&'a str, Value<'a>)>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::String(text) => Ok(Some((text.as_ref(), value))),
            _ => Err(self.wrong(key, value, "must be a text in quotes")),
        }
    }

    /// One of these words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, value)) = self.text(key)? else { return Ok(None) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let all: Vec<String> = words.iter().map(|(w, _)| format!("{w:?}")).collect();
                Err(self.wrong(key, value, format_args!("must be {}", all.join(" or "))))
            }
        }
    }

    /// A number within bounds. Booleans are numbers where the bounds are 0 and 1.
    pub(super) fn number(
        &self,
        key: &str,
        min: u64,
        max: u64,
    ) -> Result<Option<(u64, Value<'a>)>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = match value.get_ref() {
            DeValue::Boolean(yes) if max == 1 => Some(u64::from(*yes)),
            other => integer(other),
        };
        match number.filter(|n| (min..=max).contains(n)) {
            Some(number) => Ok(Some((number, value))),
            None if max == 1 => Err(self.wrong(key, value, "must be true, false, 0 or 1")),
            None => {
                Err(self.wrong(key, value, format_args!("must be a number from {min} to {max}")))
            }
        }
    }

    /// A boolean.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self.number(key, 0, 1)?.map_or(default, |(number, _)| number == 1))
    }

    /// The elements of a list; `None` if the key is absent.
    pub(super) fn list(&self, key: &str) -> Result<Option<Vec<Value<'a>>>, ConfigError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.get_ref() {
            DeValue::Array(elements) => Ok(Some(elements.iter().collect())),
            _ => Err(self.wrong(key, value, "must be a list in brackets")),
        }
    }

    /// A list of texts; an absent key is an empty list.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<(&'a str, Value<'a>)>, ConfigError> {
        let elements = self.list(key)?.unwrap_or_default().into_iter();
        let text = |value: Value<'a>| match value.get_ref() {
            DeValue::String(text) => Ok((text.as_ref(), value)),
            _ => Err(self.wrong(key, value, "must be a text in quotes")),
        };
        elements.map(text).collect()
    }

    /// Refuses every key that nobody asked for. `later` are the keys of later versions; one that
    /// ends in `*` stands for all that begin so.
    pub(super) fn finish(&self, later: &[&str]) -> Result<(), ConfigError> {
        let asked = self.asked.borrow();
        let Some(table) = self.table else { return Ok(()) };
        let mut unknown: Vec<_> =
            table.iter().filter(|(k, _)| !asked.iter().any(|a| a == k.get_ref())).collect();
        unknown.sort_by_key(|(key, _)| key.span().start);
        let Some((key, _)) = unknown.first() else { return Ok(()) };
        let (name, text) = (&self.name, key.get_ref());
        let is_later = later.iter().any(|l| match l.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => l == text,
        });
        let error = |what: &dyn fmt::Display| self.source.error(key.span(), what);
        if is_later {
            return Err(error(&format_args!("{name} {text} is not supported in this version")));
        }
        let mut known = asked.clone();
        known.sort();
        known.dedup();
        let known = known.join(", ");
        Err(error(&format_args!("{name} has no key \"{text}\"; it takes {known}")))
    }
}

/// A value as a number that is not negative.
pub(super) fn integer(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(integer) = value else { return None };
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}
