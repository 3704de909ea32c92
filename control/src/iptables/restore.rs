//! Whole rule files, as `iptables-restore` reads them.

use dataplane::rules::check;
use dataplane::rules::hook::Table;
use dataplane::rules::model::{Counters, Place, Ruleset, TableRules};

use super::draft::Drafts;
use super::edit::{self, line_place};
use super::line::{self, Read};
use super::words::{self, Word};
use super::{Kind, ParseError, table_sentence};
use crate::labels::Names;

/// How to read a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// `-n`: tables are added to, not replaced.
    pub noflush: bool,
    /// `-c`: counters in the text count; otherwise everything new starts from zero.
    pub counters: bool,
    /// `-v`: say what is done.
    pub verbose: bool,
    /// `-T`: the others are not looked at.
    pub table: Option<Table>,
}

/// What a file leads to.
#[derive(Debug)]
pub struct Restored {
    /// The rules.
    pub ruleset: Ruleset,
    /// What `-v` and lists in the file print.
    pub text: String,
}

/// Reads `text` over `current` and returns the ruleset it leads to. Tables that the text names are
/// replaced, or with `noflush` kept and added to; the others stay. Counters in the text count only
/// with `counters`.
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
    let options = Options { noflush, counters, ..Options::default() };
    restore_with(current, text, options, names).map(|restored| restored.ruleset)
}

/// The same with all options.
///
/// # Errors
/// Likewise.
pub fn restore_with(
    current: &Ruleset,
    text: &str,
    options: Options,
    names: &Names,
) -> Result<Restored, ParseError> {
    let mut reader = Reader {
        ruleset: current.clone(),
        table: None,
        drafts: Drafts::new(current.family),
        skips: false,
        last_line: 0,
        options,
        names,
        out: String::new(),
    };
    for (line, text) in (1u32..).zip(text.lines()) {
        reader.last_line = line;
        reader.line(line, text)?;
    }
    if let Some(table) = reader.table {
        let message = format!("COMMIT expected for table {}", table.name());
        return Err(at_line(reader.last_line.saturating_add(1), message));
    }
    check::check(&reader.ruleset)?;
    Ok(Restored { ruleset: reader.ruleset, text: reader.out })
}

fn at_line(line: u32, message: String) -> ParseError {
    let Place { line, column } = line_place(line);
    ParseError { line, column, word: String::new(), message, kind: Kind::Frame }
}

struct Reader<'a> {
    ruleset: Ruleset,
    table: Option<Table>,
    /// Chains of the table that are changed line by line.
    drafts: Drafts,
    /// In a table that is not looked at.
    skips: bool,
    last_line: u32,
    options: Options,
    names: &'a Names,
    out: String,
}

impl Reader<'_> {
    fn line(&mut self, line: u32, text: &str) -> Result<(), ParseError> {
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.trim().is_empty() || text.starts_with('#') {
            return Ok(());
        }
        if self.skips && !text.starts_with('*') {
            return Ok(());
        }
        let words = words::split(text, line)?;
        let Some(first) = words.first() else { return Ok(()) };
        let Some(table) = self.table else {
            return self.begin(first, words.get(1));
        };
        if first.text.starts_with(':') || first.text == "COMMIT" {
            self.drafts.settle(self.ruleset.table_mut(table));
        }
        if let Some(name) = first.text.strip_prefix(':') {
            return self.chain(table, name, first, words.get(1..).unwrap_or(&[]));
        }
        if first.text == "COMMIT" {
            self.table = None;
            return no_more(words.get(1));
        }
        if !first.text.starts_with('[') {
            return self.command(table, &words, Counters::default());
        }
        let (given, rest) = self.counted(first, &words)?;
        if rest.is_empty() {
            return Err(first.error("no command specified"));
        }
        self.command(table, &rest, given)
    }

    fn command(
        &mut self,
        table: Table,
        words: &[Word],
        counters: Counters,
    ) -> Result<(), ParseError> {
        match line::line(words, self.ruleset.family, line::From::File, self.names)? {
            // A line for the other family's tool; a file asks for no help.
            Read::OtherFamily(_) | Read::Help | Read::Version => {}
            Read::Line(asked) => {
                let given = edit::Given { counters, names: self.names, verbose: self.says() };
                let (ruleset, drafts) = (&mut self.ruleset, Some(&mut self.drafts));
                edit::obey_in(ruleset, table, &asked, given, drafts, &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Whether it tells what it does: iptables-restore does not where it adds.
    fn says(&self) -> bool {
        self.options.verbose && !self.options.noflush
    }

    /// `*table`.
    fn begin(&mut self, first: &Word, extra: Option<&Word>) -> Result<(), ParseError> {
        let Some(name) = first.text.strip_prefix('*') else {
            let text = format!("`{}' stands outside of a table", first.text);
            return Err(first.error(text).of(Kind::Frame));
        };
        let table = Table::from_name(name);
        self.skips = self.options.table.is_some_and(|only| table != Some(only));
        if self.skips {
            return Ok(());
        }
        let Some(table) = table else {
            return Err(first.error(table_sentence(name)).of(Kind::Text));
        };
        no_more(extra)?;
        if self.says() {
            let fresh = TableRules::new(table);
            let old = self.ruleset.table(table).unwrap_or(&fresh).chains.iter();
            self.out.extend(old.map(|chain| format!("Flushing chain `{}'\n", chain.name)));
        }
        if self.options.noflush {
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
        let counters = counters.filter(|_| self.options.counters);
        let noflush = self.options.noflush;
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
        Ok((if self.options.counters { counters } else { Counters::default() }, rest))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::{Look, save};
    use dataplane::rules::hook::Family;

    fn with(text: &str, options: Options) -> Result<Restored, ParseError> {
        restore_with(&Ruleset::new(Family::V4), text, options, &Names::default())
    }

    /// As iptables-restore 1.8.9 (nf_tables) prints it in a new namespace.
    #[test]
    fn verbose_says_what_it_does_unless_it_only_adds() {
        let text = "*filter\n-N foo\n-A INPUT -j foo\n-A INPUT -p udp --dport 53 -j LOG\n-F foo\n-Z\n\
                    COMMIT\n";
        let verbose = Options { verbose: true, ..Options::default() };
        let restored = with(text, verbose).unwrap();
        assert_eq!(
            restored.text,
            "Flushing chain `INPUT'\nFlushing chain `FORWARD'\nFlushing chain `OUTPUT'\n\
             foo  all opt -- in * out *  0.0.0.0/0  -> 0.0.0.0/0  \n\
             LOG  udp opt -- in * out *  0.0.0.0/0  -> 0.0.0.0/0   udp dpt:53 LOG flags 0 level 4\n\
             Flushing chain `foo'\nZeroing chain `INPUT'\nZeroing chain `FORWARD'\n\
             Zeroing chain `OUTPUT'\nZeroing chain `foo'\n"
        );
        assert_eq!(with(text, Options { noflush: true, ..verbose }).unwrap().text, "");
        assert_eq!(with(text, Options::default()).unwrap().text, "");
    }

    #[test]
    fn lists_in_a_file_are_printed() {
        let text = "*filter\n-A INPUT -j DROP\n-S INPUT\n-nL INPUT 1 --line-numbers\nCOMMIT\n";
        let line = "1    DROP       0    --  0.0.0.0/0            0.0.0.0/0           \n";
        let printed = format!("-P INPUT ACCEPT\n-A INPUT -j DROP\n{line}");
        assert_eq!(with(text, Options::default()).unwrap().text, printed);
    }

    #[test]
    fn one_table_is_read_and_the_others_are_not_even_looked_at() {
        let text =
            "*raw\n-A NOSUCH \"\nCOMMIT\n*filter\n-A INPUT -j DROP\nCOMMIT\n*nosuch\n?\nCOMMIT\n";
        let only = Options { table: Some(Table::Filter), ..Options::default() };
        let saved = save(&with(text, only).unwrap().ruleset, Look::default());
        assert!(
            saved.starts_with("*filter\n") && saved.contains("\n-A INPUT -j DROP\n"),
            "{saved}"
        );
        assert!(!saved.contains("raw"));
        assert_eq!(with(text, Options::default()).unwrap_err().line, 2);
    }

    #[test]
    fn commands_of_a_file_may_stand_anywhere_in_their_line() {
        let text = "*filter\n-p tcp --dport 80 -A INPUT -jDROP\n-6 -A INPUT -s fe80::1\n\
                    --in lo\nCOMMIT\n";
        let error = with(text, Options::default()).unwrap_err();
        assert_eq!((error.line, error.kind), (4, Kind::Text), "{error}");
        assert!(error.message.contains("ambiguous"), "{error}");
        let saved = save(
            &with(&text.replace("--in lo\n", ""), Options::default()).unwrap().ruleset,
            Look::default(),
        );
        assert!(saved.contains("\n-A INPUT -p tcp -m tcp --dport 80 -j DROP\nCOMMIT"), "{saved}");
        for line in ["-t nat -L", "-w -L", "-h", "-V", "-A INPUT -j U"] {
            let text = format!("*filter\n{line}\nCOMMIT\n");
            assert_eq!(with(&text, Options::default()).unwrap_err().kind.exit(), 2, "{line}");
        }
    }
}
