//! Whole rule files, as `iptables-restore` reads them.

use dataplane::rules::check;
use dataplane::rules::hook::Table;
use dataplane::rules::model::{Counters, Ruleset, TableRules};

use super::edit;
use super::words::{self, Word};
use super::{ParseError, edit::line_place};
use crate::labels::Names;

/// Reads `text` over `current` and returns the ruleset it leads to. Tables that the text names are
/// replaced, or with `noflush` kept and added to; the others stay. Counters in the text count only
/// with `counters`, otherwise everything new starts from zero.
///
/// # Errors
/// The first fault in the text, or in what it leads to; nothing is changed then.
pub fn restore(
    current: &Ruleset,
    text: &str,
    noflush: bool,
    counters: bool,
) -> Result<Ruleset, ParseError> {
    restore_named(current, text, (noflush, counters), &Names::default())
}

/// The same where labels may have names.
///
/// # Errors
/// Likewise.
pub fn restore_named(
    current: &Ruleset,
    text: &str,
    (noflush, counters): (bool, bool),
    names: &Names,
) -> Result<Ruleset, ParseError> {
    let ruleset = current.clone();
    let mut reader = Reader { ruleset, table: None, last_line: 0, noflush, counters, names };
    for (line, text) in (1u32..).zip(text.lines()) {
        reader.last_line = line;
        reader.line(line, text)?;
    }
    if let Some(table) = reader.table {
        let message = format!("COMMIT expected for table {}", table.name());
        return Err(at_line(reader.last_line.saturating_add(1), message));
    }
    check::check(&reader.ruleset)?;
    Ok(reader.ruleset)
}

fn at_line(line: u32, message: String) -> ParseError {
    let place = line_place(line);
    ParseError { line: place.line, column: place.column, word: String::new(), message }
}

struct Reader<'a> {
    ruleset: Ruleset,
    table: Option<Table>,
    last_line: u32,
    noflush: bool,
    counters: bool,
    names: &'a Names,
}

impl Reader<'_> {
    fn line(&mut self, line: u32, text: &str) -> Result<(), ParseError> {
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.trim().is_empty() || text.starts_with('#') {
            return Ok(());
        }
        let words = words::split(text, line)?;
        let Some(first) = words.first() else { return Ok(()) };
        let Some(table) = self.table else {
            return self.begin(first, words.get(1));
        };
        if let Some(name) = first.text.strip_prefix(':') {
            return self.chain(table, name, first, words.get(1..).unwrap_or(&[]));
        }
        if first.text == "COMMIT" {
            self.table = None;
            return no_more(words.get(1));
        }
        if !first.text.starts_with('[') {
            return edit::edit(&mut self.ruleset, table, &words, (Counters::default(), self.names));
        }
        let (given, rest) = self.counted(first, &words)?;
        if rest.is_empty() {
            return Err(first.error("no command specified"));
        }
        edit::edit(&mut self.ruleset, table, &rest, (given, self.names))
    }

    /// `*table`.
    fn begin(&mut self, first: &Word, extra: Option<&Word>) -> Result<(), ParseError> {
        let Some(name) = first.text.strip_prefix('*') else {
            return Err(first.error(format!("`{}' stands outside of a table", first.text)));
        };
        let Some(table) = Table::from_name(name) else {
            return Err(first.error(format!("table `{name}' is not supported")));
        };
        no_more(extra)?;
        if self.noflush {
            self.ruleset.table_mut(table);
        } else {
            self.ruleset.tables[table.index()] = Some(TableRules::new(table));
        }
        self.table = Some(table);
        Ok(())
    }

    /// `:CHAIN POLICY [p:b]`; `name` may stand apart from its colon.
    fn chain(
        &mut self,
        table: Table,
        name: &str,
        first: &Word,
        rest: &[Word],
    ) -> Result<(), ParseError> {
        let name = Word { text: name.to_owned(), place: first.place };
        let Some((policy, rest)) = rest.split_first() else {
            return Err(name.error(format!("chain `{}' has no policy", name.text)));
        };
        let counters = rest.first().map(counts).transpose()?;
        no_more(rest.get(1))?;
        let counters = counters.filter(|_| self.counters);
        let noflush = self.noflush;
        let rules = self.ruleset.table_mut(table);
        if rules.chain(&name.text).is_some_and(|chain| chain.base.is_some()) {
            return match policy.text.as_str() {
                "-" => Ok(()),
                _ => edit::set_policy(rules, &name, policy, counters),
            };
        }
        if edit::is_hook(&name.text) {
            return Err(name.error(format!("table {} has no chain {}", table.name(), name.text)));
        }
        if policy.text != "-" {
            let text = format!("policy `{}' on the user's chain {}", policy.text, name.text);
            return Err(policy.error(text));
        }
        match rules.chain_mut(&name.text) {
            // With --noflush naming a chain empties it; in one text it may be named twice.
            Some(chain) if noflush => {
                chain.rules.clear();
                Ok(())
            }
            Some(_) => Ok(()),
            None => edit::new_chain(rules, &name),
        }
    }

    /// `[p:b]` before a command, also without a blank after it.
    fn counted(&self, first: &Word, words: &[Word]) -> Result<(Counters, Vec<Word>), ParseError> {
        let Some((inside, glued)) = first.text.split_once(']') else {
            return Err(first.error(format!("bad counters `{}'", first.text)));
        };
        let counters = counts(&Word { text: format!("{inside}]"), place: first.place })?;
        let mut rest = Vec::with_capacity(words.len());
        if !glued.is_empty() {
            rest.push(Word { text: glued.to_owned(), place: first.place });
        }
        rest.extend(words.iter().skip(1).cloned());
        Ok((if self.counters { counters } else { Counters::default() }, rest))
    }
}

fn no_more(extra: Option<&Word>) -> Result<(), ParseError> {
    match extra {
        None => Ok(()),
        Some(word) => Err(word.error(format!("bad argument `{}'", word.text))),
    }
}

/// `[packets:bytes]`.
fn counts(word: &Word) -> Result<Counters, ParseError> {
    let inside = word.text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let parts = inside.and_then(|text| text.split_once(':'));
    let numbers = parts.and_then(|(p, b)| Some((p.parse().ok()?, b.parse().ok()?)));
    match numbers {
        Some((packets, bytes)) => Ok(Counters { packets, bytes }),
        None => Err(word.error(format!("bad counters `{}'", word.text))),
    }
}
