//! The rule language's text: `iptables-save` files of both families, in and out.
//!
//! [`restore()`] reads what `iptables-restore` reads and returns a new
//! [`Ruleset`](dataplane::rules::model::Ruleset); [`save`] writes what `iptables-save` 1.8.9
//! writes. Text is never applied half: the first thing wrong ends the reading with a [`ParseError`]
//! and the old ruleset stands. [`line()`] reads one command and [`obey`] does it to a ruleset: a
//! line of a file and a command line of `iptables` are the same thing here. Matches, targets and
//! options that are not supported are refused by their word. Names of hosts are not looked up;
//! names of services and protocols come from tables in this module, so a file means the same on
//! every machine.

mod draft;
mod edit;
mod extension;
mod extensions;
pub mod line;
mod list;
pub(crate) mod names;
pub mod print;
mod refused;
pub mod restore;
mod rule;
pub(crate) mod services;
mod values;
pub mod words;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_state;

pub use edit::{Effect, Given, obey};
pub(crate) use extensions::{chunk_name, chunk_type, dccp_name, dccp_type};
pub use line::{Asked, Command, Read, line};
pub use list::{List, list, list_rule};
pub(crate) use names::reject_name;
pub use print::{Look, named_rule_text, policy_name, rule_text, save};
pub use refused::table_sentence;
pub use restore::{Options, Restored, restore, restore_named, restore_with};

use core::fmt;

use dataplane::rules::check::{CheckError, Fault};

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
    /// Of what kind it is.
    pub kind: Kind,
}

/// Kinds of faults: those for which `iptables` has a sentence that scripts look for, and the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// The text is wrong.
    #[default]
    Text,
    /// A rule file's frame is wrong.
    Frame,
    /// No such table.
    Table,
    /// No such chain.
    NoChain,
    /// No such rule, or no chain that it could be in.
    NoRule,
    /// The new chain is there already.
    ChainExists,
    /// The new name is a chain's already.
    NameExists,
    /// No such place in a chain, by what was to be done there.
    Index(&'static str),
    /// A policy of something that has none.
    NotBase,
    /// No such policy.
    Policy,
    /// A chain that cannot go.
    Busy,
    /// A rule that cannot stand where it is to stand.
    Refused,
}

impl Kind {
    /// The sentence of `iptables`, if it has one.
    pub fn sentence(self) -> Option<String> {
        let text = match self {
            Kind::NoChain => "No chain/target/match by that name.",
            Kind::NoRule => "Bad rule (does a matching rule exist in that chain?).",
            Kind::ChainExists => "Chain already exists.",
            Kind::NameExists => "File exists.",
            Kind::NotBase => "Bad built-in chain name.",
            Kind::Policy => "Bad policy name.",
            Kind::Index(what) => return Some(format!("Index of {what} too big.")),
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// The exit code of `iptables`.
    pub const fn exit(self) -> u8 {
        match self {
            Kind::Text => 2,
            Kind::Table => 3,
            Kind::Busy | Kind::Refused => 4,
            _ => 1,
        }
    }
}

impl ParseError {
    /// The same of another kind.
    pub(crate) fn of(self, kind: Kind) -> ParseError {
        ParseError { kind, ..self }
    }

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
        let kind = match error.fault {
            Fault::NatDrop | Fault::UnknownChain => Kind::Text,
            // These the tool's own part of a match finds out.
            Fault::UnknownSet | Fault::SetFamily(_) => Kind::Text,
            _ => Kind::Refused,
        };
        ParseError {
            kind,
            line: error.place.line,
            column: error.place.column,
            message: error.to_string(),
            word: error.word,
        }
    }
}
