//! One command line of `iptables`, or one line of a rule file: the command, what it is done to, how
//! to show it, and the rule.
//!
//! Words are read in order as getopt_long reads them: letters in clusters (`-nvL`), values glued to
//! them (`-ptcp`) or in the next word, `--name=value`, names abbreviated where that is clear among
//! all options known at this place. Which these are depends on what came before: `-p`, `-m` and
//! `-j` bring options along (`rule.rs`). Commands stand anywhere among them.

use dataplane::rules::hook::Family;
use dataplane::rules::model::Rule;

use super::extension::{Opt, flag, valued};
use super::rule::{Draft, Owner};
use super::values;
use super::words::Word;
use super::{Kind, ParseError};
use crate::labels::Names;

/// What can be done to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-A`.
    Append,
    /// `-I`.
    Insert,
    /// `-R`.
    Replace,
    /// `-D`, by a rule or a number.
    Delete,
    /// `-C`: fails if there is no such rule.
    Check,
    /// `-N`.
    NewChain,
    /// `-X`.
    DeleteChain,
    /// `-E`.
    RenameChain,
    /// `-F`.
    Flush,
    /// `-Z`, which also goes with `-L` and `-S`.
    Zero,
    /// `-P`.
    Policy,
    /// `-L`.
    List,
    /// `-S`.
    ListRules,
}

impl Command {
    /// True if it names a rule by its tests and target.
    const fn takes_rule(self) -> bool {
        use Command::{Append, Check, Delete, Insert, Replace};
        matches!(self, Append | Insert | Replace | Delete | Check)
    }

    /// True if `-c` may stand beside it.
    const fn takes_counters(self) -> bool {
        matches!(self, Command::Append | Command::Insert | Command::Replace | Command::Policy)
    }
}

/// A line that was read.
#[derive(Clone, Debug)]
pub enum Read<'a> {
    /// `-h`.
    Help,
    /// `-V`.
    Version,
    /// `-4` in a line of IPv6 rules, `-6` in one of IPv4 rules.
    OtherFamily(&'a Word),
    /// A command.
    Line(Box<Asked<'a>>),
}

/// A command with all that belongs to it.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// What to do.
    pub command: Command,
    /// The command's word.
    pub word: &'a Word,
    /// `-Z`, alone or beside a list.
    pub zero: Option<Zero>,
    /// The chain it is done to; none where that means all.
    pub chain: Option<Word>,
    /// The number of a rule, from 1.
    pub number: Option<(usize, &'a Word)>,
    /// A chain's new name, or a policy.
    pub second: Option<&'a Word>,
    /// The table, if it is named.
    pub table: Option<Word>,
    /// The rule; several where addresses are lists.
    pub rules: Vec<Rule>,
    /// `-v`, how often.
    pub verbose: u8,
    /// `-n`.
    pub numeric: bool,
    /// `-x`.
    pub exact: bool,
    /// `--line-numbers`.
    pub line_numbers: bool,
}

/// What `-Z` sets back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zero {
    /// The chain, or all.
    Chain,
    /// The rule of [`Asked::number`].
    Rule,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// On a command line of its own.
    CommandLine,
    /// In a rule file, which has named the table before.
    File,
}

/// Options that belong to no rule. Those of `OPTIONAL` may have a value.
pub(super) const OPTIONS: &[Opt] = &[
    valued("append").many(),
    valued("check").many(),
    valued("delete").many(),
    valued("insert").many(),
    valued("replace").many(),
    valued("new-chain").many(),
    valued("rename-chain").many(),
    valued("policy").many(),
    flag("list").many(),
    flag("list-rules").many(),
    flag("flush").many(),
    flag("zero").many(),
    flag("delete-chain").many(),
    flag("help").many(),
    flag("version").many(),
    flag("numeric"),
    flag("verbose").many(),
    flag("exact"),
    flag("line-numbers"),
    flag("ipv4").many(),
    flag("ipv6").many(),
    flag("wait").many(),
    valued("wait-interval").many(),
    valued("modprobe").many(),
    valued("table").many(),
];

/// Options whose value may be missing.
const OPTIONAL: &[&str] = &["list", "list-rules", "flush", "zero", "delete-chain", "help", "wait"];

/// The long name of a letter.
fn long_name(letter: char) -> Option<&'static str> {
    Some(match letter {
        'A' => "append",
        'C' => "check",
        'D' => "delete",
        'I' => "insert",
        'R' => "replace",
        'N' => "new-chain",
        'E' => "rename-chain",
        'P' => "policy",
        'L' => "list",
        'S' => "list-rules",
        'F' => "flush",
        'Z' => "zero",
        'X' => "delete-chain",
        'h' => "help",
        'V' => "version",
        'n' => "numeric",
        'v' => "verbose",
        'x' => "exact",
        '4' => "ipv4",
        '6' => "ipv6",
        'w' => "wait",
        'W' => "wait-interval",
        'M' => "modprobe",
        't' => "table",
        'p' => "protocol",
        's' => "source",
        'd' => "destination",
        'i' => "in-interface",
        'o' => "out-interface",
        'f' => "fragments",
        'j' => "jump",
        'g' => "goto",
        'm' => "match",
        'c' => "set-counters",
        _ => return None,
    })
}

/// Reads one line of `family`. `labels` are the names that labels have.
///
/// # Errors
/// The first word that cannot be taken.
pub fn line<'a>(
    words: &'a [Word],
    family: Family,
    from: From,
    labels: &'a Names,
) -> Result<Read<'a>, ParseError> {
    let mut parser = Parser {
        words: Words { words, at: 0 },
        draft: Draft::new(family, labels),
        from,
        family,
        not: None,
        seen: Vec::new(),
        command: None,
        zero: None,
        chain: None,
        number: None,
        second: None,
        table: None,
        verbose: 0,
        waits: false,
        interval: None,
        end: None,
    };
    while let Some(word) = parser.words.next() {
        parser.word(word)?;
        if let Some(end) = parser.end.take() {
            return Ok(end);
        }
    }
    parser.finish()
}

/// Words that are read one after the other.
pub(super) struct Words<'a> {
    words: &'a [Word],
    at: usize,
}

impl<'a> Words<'a> {
    pub(super) fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// The next word unless it looks like an option.
    pub(super) fn operand(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at)?;
        if word.text.starts_with(['-', '!']) { None } else { self.next() }
    }

    /// An option's value: what is glued to it or the next word.
    fn value(&mut self, word: &'a Word, glued: Option<&'a str>) -> Result<Word, ParseError> {
        match glued {
            Some(text) => Ok(Word { text: text.to_owned(), place: word.place }),
            None => self.next().cloned().ok_or_else(|| needs_value(word)),
        }
    }

    /// All values of an option, and the word to blame for them.
    fn values(
        &mut self,
        word: &'a Word,
        glued: Option<&'a str>,
        takes: usize,
    ) -> Result<(Vec<&'a str>, &'a Word), ParseError> {
        if glued.is_some() && takes == 0 {
            return Err(word.error(format!("option `{}' takes no value", word.text)));
        }
        let mut values: Vec<&str> = glued.into_iter().collect();
        let mut place = word;
        while values.len() < takes {
            let value = self.next().ok_or_else(|| needs_value(word))?;
            if values.is_empty() {
                place = value;
            }
            values.push(&value.text);
        }
        Ok((values, place))
    }
}

fn needs_value(word: &Word) -> ParseError {
    word.error(format!("option `{}' requires an argument", word.text))
}

struct Parser<'a> {
    words: Words<'a>,
    draft: Draft<'a>,
    from: From,
    family: Family,
    /// A `!` that waits for its option.
    not: Option<&'a Word>,
    /// Options of lists, with their words.
    seen: Vec<(&'static str, &'a Word)>,
    command: Option<(Command, &'a Word)>,
    zero: Option<(Zero, &'a Word)>,
    chain: Option<Word>,
    number: Option<(usize, &'a Word)>,
    second: Option<&'a Word>,
    table: Option<Word>,
    verbose: u8,
    waits: bool,
    interval: Option<&'a Word>,
    /// What ends the reading at once.
    end: Option<Read<'a>>,
}

impl<'a> Parser<'a> {
    fn word(&mut self, word: &'a Word) -> Result<(), ParseError> {
        match word.text.as_str() {
            "!" => match self.not.replace(word) {
                Some(_) => Err(word.error("`!' stands twice")),
                None => Ok(()),
            },
            "--" => match self.words.next() {
                Some(extra) => Err(bad_argument(extra)),
                None => Ok(()),
            },
            text => match (text.strip_prefix("--"), text.strip_prefix('-')) {
                (Some(long), _) => {
                    let (name, value) = match long.split_once('=') {
                        Some((name, value)) => (name, Some(value)),
                        None => (long, None),
                    };
                    let (owner, option) = self.draft.find(name, word)?;
                    self.take(owner, option, value, word)
                }
                (None, Some(letters)) if !letters.is_empty() => self.letters(letters, word),
                _ => Err(bad_argument(word)),
            },
        }
    }

    /// `-nvL`, `-ptcp`.
    fn letters(&mut self, letters: &'a str, word: &'a Word) -> Result<(), ParseError> {
        let mut letters = letters.chars();
        while let Some(letter) = letters.next() {
            let unknown = || word.error(format!("unknown option `-{letter}'"));
            let name = long_name(letter).ok_or_else(unknown)?;
            let (owner, option) = self.draft.find(name, word)?;
            if option.takes == 0 && !OPTIONAL.contains(&option.name) {
                self.take(owner, option, None, word)?;
                continue;
            }
            let rest = letters.as_str();
            return self.take(owner, option, Some(rest).filter(|rest| !rest.is_empty()), word);
        }
        Ok(())
    }

    fn take(
        &mut self,
        owner: Owner,
        option: &'static Opt,
        glued: Option<&'a str>,
        word: &'a Word,
    ) -> Result<(), ParseError> {
        let not = self.not.take().is_some();
        if not && !option.not {
            return Err(word.error(format!("option `{}' cannot be inverted", word.text)));
        }
        match owner {
            Owner::Line => self.own(option, glued, word),
            Owner::Rule if option.name == "set-counters" => {
                let packets = self.words.value(word, glued)?;
                self.draft.counters(&packets, &mut self.words, word)
            }
            _ => {
                let (values, place) = self.words.values(word, glued, option.takes)?;
                self.draft.give(&owner, option, not, &values, (word, place))
            }
        }
    }

    /// An option that belongs to no rule.
    fn own(
        &mut self,
        option: &'static Opt,
        glued: Option<&'a str>,
        word: &'a Word,
    ) -> Result<(), ParseError> {
        if glued.is_some() && option.takes == 0 && !OPTIONAL.contains(&option.name) {
            return Err(word.error(format!("option `{}' takes no value", word.text)));
        }
        let alone = ["table", "wait", "wait-interval", "help", "version"];
        if self.from == From::File && alone.contains(&option.name) {
            let text = format!("option `{}' cannot be used in a rule file", word.text);
            return Err(word.error(text));
        }
        match option.name {
            "numeric" | "exact" | "line-numbers" => {
                if self.seen.iter().any(|(name, _)| *name == option.name) {
                    return Err(word.error(format!("option `{}' stands twice", word.text)));
                }
                self.seen.push((option.name, word));
            }
            "verbose" => self.verbose = self.verbose.saturating_add(1),
            "help" => self.end = Some(Read::Help),
            "version" => self.end = Some(Read::Version),
            "ipv4" | "ipv6" => {
                let named = if option.name == "ipv4" { Family::V4 } else { Family::V6 };
                if named != self.family {
                    self.end = Some(Read::OtherFamily(word));
                }
            }
            "wait" => {
                self.waits = true;
                let glued = glued.map(|text| Word { text: text.to_owned(), place: word.place });
                if let Some(seconds) = glued.or_else(|| self.words.operand().cloned()) {
                    count(&seconds)?;
                }
            }
            "wait-interval" => {
                self.interval = Some(word);
                count(&self.words.value(word, glued)?)?;
            }
            // Nothing has to be loaded.
            "modprobe" => drop(self.words.value(word, glued)?),
            "table" => self.table = Some(self.words.value(word, glued)?),
            name => return self.command(name, glued, word),
        }
        Ok(())
    }

    fn command(
        &mut self,
        name: &'static str,
        glued: Option<&'a str>,
        word: &'a Word,
    ) -> Result<(), ParseError> {
        let command = match name {
            "append" => Command::Append,
            "insert" => Command::Insert,
            "replace" => Command::Replace,
            "delete" => Command::Delete,
            "check" => Command::Check,
            "new-chain" => Command::NewChain,
            "delete-chain" => Command::DeleteChain,
            "rename-chain" => Command::RenameChain,
            "flush" => Command::Flush,
            "policy" => Command::Policy,
            "list" => Command::List,
            "list-rules" => Command::ListRules,
            _ => return self.zero(glued, word),
        };
        let lists = matches!(command, Command::List | Command::ListRules);
        let zero = self.zero.map(|(_, word)| word).filter(|_| !lists);
        if let Some(other) = self.command.map(|(_, word)| word).or(zero) {
            return Err(excludes(word, other));
        }
        self.command = Some((command, word));
        match command {
            Command::List | Command::ListRules => return self.chain_and_number(glued, word),
            Command::Flush | Command::DeleteChain => {
                if let Some(chain) = self.optional_chain(glued, word) {
                    self.chain = Some(chain);
                }
                return Ok(());
            }
            _ => self.chain = Some(self.words.value(word, glued)?),
        }
        match command {
            Command::Insert | Command::Delete | Command::Replace => self.number()?,
            Command::RenameChain | Command::Policy => self.second = self.words.operand(),
            _ => {}
        }
        let missing = match command {
            Command::Replace if self.number.is_none() => "needs a rule number",
            Command::RenameChain if self.second.is_none() => "requires two arguments",
            Command::Policy if self.second.is_none() => "requires two arguments",
            _ => return Ok(()),
        };
        Err(word.error(format!("`{}' {missing}", word.text)))
    }

    /// `-Z`, alone or beside a list.
    fn zero(&mut self, glued: Option<&'a str>, word: &'a Word) -> Result<(), ParseError> {
        let lists = |command| matches!(command, Command::List | Command::ListRules);
        let command = self.command.filter(|(command, _)| !lists(*command)).map(|(_, word)| word);
        if let Some(other) = self.zero.map(|(_, word)| word).or(command) {
            return Err(excludes(word, other));
        }
        let before = self.number.take();
        self.chain_and_number(glued, word)?;
        let what = if self.number.is_some() { Zero::Rule } else { Zero::Chain };
        self.zero = Some((what, word));
        self.number = self.number.take().or(before);
        Ok(())
    }

    fn chain_and_number(
        &mut self,
        glued: Option<&'a str>,
        word: &'a Word,
    ) -> Result<(), ParseError> {
        if let Some(chain) = self.optional_chain(glued, word) {
            self.chain = Some(chain);
            self.number()?;
        }
        Ok(())
    }

    fn optional_chain(&mut self, glued: Option<&'a str>, word: &'a Word) -> Option<Word> {
        let glued = glued.map(|text| Word { text: text.to_owned(), place: word.place });
        glued.or_else(|| self.words.operand().cloned())
    }

    /// The number of a rule, if there is a word for it.
    fn number(&mut self) -> Result<(), ParseError> {
        let Some(word) = self.words.operand() else { return Ok(()) };
        let number = values::number(&word.text).ok().filter(|n| (1..=i32::MAX as u32).contains(n));
        let wrong = || word.error(format!("invalid rule number `{}'", word.text));
        self.number = Some((number.ok_or_else(wrong)? as usize, word));
        Ok(())
    }

    fn finish(self) -> Result<Read<'a>, ParseError> {
        if let Some(word) = self.not {
            return Err(word.error("nothing follows `!'"));
        }
        let zero = self.zero.map(|(_, word)| (Command::Zero, word));
        let Some((command, word)) = self.command.or(zero) else {
            let first = self.words.words.first();
            let missing = |word: &Word| word.error("no command specified");
            return Err(first.map_or_else(nothing, missing));
        };
        if let Some(interval) = self.interval.filter(|_| !self.waits) {
            return Err(interval.error(format!("`{}' needs `-w'", interval.text)));
        }
        let has = |name| self.seen.iter().any(|(seen, _)| *seen == name);
        let by_number = command == Command::Delete && self.number.is_some();
        let listing = self.seen.first().filter(|_| command != Command::List);
        let stray = match command.takes_rule() && !by_number {
            true => self.draft.counters_word().filter(|_| !command.takes_counters()),
            false => self.draft.first_word(command.takes_counters()),
        };
        if let Some(stray) = listing.map(|(_, word)| *word).or(stray) {
            let text = format!("option `{}' cannot be used with `{}'", stray.text, word.text);
            return Err(stray.error(text));
        }
        let chain = self.chain.as_ref().map_or("", |chain| chain.text.as_str());
        let rules = match command.takes_rule() && !by_number {
            true => self.draft.finish(chain, word.place)?,
            false => Vec::new(),
        };
        let (numeric, exact, line_numbers) = (has("numeric"), has("exact"), has("line-numbers"));
        Ok(Read::Line(Box::new(Asked {
            command,
            word,
            zero: self.zero.map(|(what, _)| what),
            chain: self.chain,
            number: self.number,
            second: self.second,
            table: self.table,
            rules,
            verbose: self.verbose,
            numeric,
            exact,
            line_numbers,
        })))
    }
}

fn nothing() -> ParseError {
    let message = "no command specified".to_owned();
    ParseError { line: 1, column: 1, word: String::new(), message, kind: Kind::Text }
}

fn bad_argument(word: &Word) -> ParseError {
    word.error(format!("bad argument `{}'", word.text))
}

fn excludes(word: &Word, other: &Word) -> ParseError {
    word.error(format!("`{}' cannot be used with `{}'", word.text, other.text))
}

/// A count of seconds, which nobody has to wait for here.
fn count(word: &Word) -> Result<(), ParseError> {
    match values::number(&word.text) {
        Ok(_) => Ok(()),
        Err(fault) => Err(word.error(fault)),
    }
}
