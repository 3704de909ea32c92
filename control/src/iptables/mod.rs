//! The rule language's text: `iptables-save` files of both families, in and out.
//!
//! [`restore()`] reads what `iptables-restore` reads and returns a new
//! [`Ruleset`](dataplane::rules::model::Ruleset); [`save`] writes what `iptables-save` 1.8.9
//! writes. Text is never applied half: the first thing wrong ends the reading with a
//! [`ParseError`] and the old ruleset stands. Matches, targets and options that are not supported
//! are refused by their word. Names of hosts are not looked up; names of services and protocols
//! come from tables in this module, so a file means the same on every machine.

mod edit;
mod extension;
mod extensions;
mod list;
mod names;
pub mod print;
pub mod restore;
mod rule;
mod values;
pub mod words;

#[cfg(test)]
mod golden;

pub use edit::{Edit, edit};
pub use list::{List, list, list_rule};
pub use print::{Look, rule_text, save};
pub use restore::{restore, restore_named};
pub use rule::parse_rule;

use core::fmt;

use dataplane::rules::check::CheckError;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The word at fault; empty where something is missing.
    pub word: String,
    /// What is wrong, with the word in it.
    pub message: String,
}

impl ParseError {
    /// The error as `file:line:column: message`.
    pub fn in_file(&self, file: &str) -> String {
        format!("{file}:{self}")
    }
}

/// `line:column: message`.
impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl std::error::Error for ParseError {}

impl From<CheckError> for ParseError {
    fn from(error: CheckError) -> ParseError {
        ParseError {
            line: error.place.line,
            column: error.place.column,
            message: error.to_string(),
            word: error.word,
        }
    }
}
