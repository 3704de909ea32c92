//! From a command line to its answer: the dispatch of everything that comes in by the socket.

use dataplane::rules::hook::{Family, Table};

use super::ControlCore;
use super::policy::RestoreError;
use crate::iptables::{self, Look};
use crate::labels::Names;
use crate::socket::Reply;
use crate::tools::conntrack::{Outcome, Subscription};
use crate::tools::conntrack_format::calendar;
use crate::tools::getopt::{Opt, Reader, Takes, Unreadable, Word};
use crate::tools::{self, Answer};

/// What became of a command.
#[derive(Debug)]
pub enum Served {
    /// It is answered.
    Done(Answer),
    /// It wants events from now on.
    Events(Box<Subscription>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Counters,
    Table,
    Test,
    NoFlush,
    /// Without meaning here: no other writer to wait for, no module to load.
    Nothing,
}

const fn option(key: Flag, short: char, long: &'static [&'static str], takes: Takes) -> Opt<Flag> {
    Opt { key, short: Some(short), long, takes }
}

const SAVE: &[Opt<Flag>] = &[
    option(Flag::Counters, 'c', &["counters"], Takes::Nothing),
    option(Flag::Table, 't', &["table"], Takes::Argument),
    option(Flag::Nothing, 'M', &["modprobe"], Takes::Argument),
];

const RESTORE: &[Opt<Flag>] = &[
    option(Flag::Counters, 'c', &["counters"], Takes::Nothing),
    option(Flag::Test, 't', &["test"], Takes::Nothing),
    option(Flag::NoFlush, 'n', &["noflush"], Takes::Nothing),
    option(Flag::Nothing, 'v', &["verbose"], Takes::Nothing),
    option(Flag::Nothing, 'w', &["wait"], Takes::Optional),
    option(Flag::Nothing, 'M', &["modprobe"], Takes::Argument),
];

/// The options of a `-save` or `-restore`.
#[derive(Default)]
struct Options {
    counters: bool,
    test: bool,
    noflush: bool,
    table: Option<Table>,
}

impl Options {
    fn parse(tool: &str, argv: &[String], known: &[Opt<Flag>]) -> Result<Options, Answer> {
        let mut options = Options::default();
        let mut words = Reader::new(argv);
        while let Some(word) = words.step(known) {
            match word {
                Ok(Word::Option(Flag::Counters, _)) => options.counters = true,
                Ok(Word::Option(Flag::Test, _)) => options.test = true,
                Ok(Word::Option(Flag::NoFlush, _)) => options.noflush = true,
                Ok(Word::Option(Flag::Table, name)) => {
                    let name = name.unwrap_or_default();
                    let table = Table::from_name(name);
                    let unknown = || Answer::failure(1, format!("{tool}: no table '{name}'"));
                    options.table = Some(table.ok_or_else(unknown)?);
                }
                Ok(Word::Option(Flag::Nothing, _)) => {}
                Ok(Word::Operand(word)) => {
                    let text = format!("{tool}: unexpected argument '{word}'");
                    return Err(Answer::failure(1, text));
                }
                Err(Unreadable::Unknown(word)) => {
                    return Err(Answer::failure(1, format!("{tool}: unknown option '{word}'")));
                }
                Err(Unreadable::NeedsArgument(word)) => {
                    let text = format!("{tool}: option '{word}' requires an argument");
                    return Err(Answer::failure(1, text));
                }
            }
        }
        Ok(options)
    }
}

impl ControlCore {
    /// Runs a command line that came in by the socket.
    pub fn serve(&mut self, argv: &[String], stdin: &str) -> Served {
        let (name, rest) = match argv.split_first() {
            Some((name, rest)) => (name.as_str(), rest),
            None => return Served::Done(Answer::failure(1, "sluicegate: no command")),
        };
        Served::Done(match name {
            "iptables-save" => self.save(name, rest, Family::V4),
            "ip6tables-save" => self.save(name, rest, Family::V6),
            "iptables-restore" => self.restore_tool(name, rest, stdin, Family::V4),
            "ip6tables-restore" => self.restore_tool(name, rest, stdin, Family::V6),
            _ => match tools::run(argv, stdin, self) {
                Some(Outcome::Done(answer)) => answer,
                Some(Outcome::Events(subscription)) => return Served::Events(subscription),
                None => Answer::failure(1, format!("sluicegate: unknown command '{name}'")),
            },
        })
    }

    /// Keeps a stream of events going until its client leaves.
    pub fn subscribe(&mut self, subscription: Box<Subscription>, reply: Reply) {
        if let Some(bytes) = subscription.buffer_bytes() {
            reply.set_backlog(bytes);
        }
        self.subscriptions.push((subscription, reply));
        self.end_subscriptions();
    }

    fn save(&mut self, tool: &str, argv: &[String], family: Family) -> Answer {
        let options = match Options::parse(tool, argv, SAVE) {
            Ok(options) => options,
            Err(answer) => return answer,
        };
        let date = calendar(self.now().unix_ns);
        let names = Names::read(&self.config.conntrack.label_names).ok();
        let (counters, table, labels) = (options.counters, options.table, names.as_ref());
        let look = Look { counters, date: Some(&date), table, labels };
        match self.counted_rules(family) {
            Ok(rules) => Answer::text(iptables::save(rules, look)),
            Err(silent) => Answer::failure(1, format_args!("{tool}: {silent}")),
        }
    }

    fn restore_tool(&mut self, tool: &str, argv: &[String], stdin: &str, family: Family) -> Answer {
        let options = match Options::parse(tool, argv, RESTORE) {
            Ok(options) => options,
            Err(answer) => return answer,
        };
        let restored = self.restore(family, stdin, options.noflush, options.counters, options.test);
        match restored {
            Ok(()) => Answer::default(),
            Err(RestoreError::Text(e)) => Answer::failure(1, format!("{tool}: line {e}")),
            Err(RestoreError::Publish(e)) => Answer::failure(1, format!("{tool}: {e}")),
            Err(RestoreError::Memory(e)) => Answer::failure(1, format!("{tool}: {e}")),
            Err(RestoreError::Silent(e)) => Answer::failure(1, format!("{tool}: {e}")),
            Err(RestoreError::NotAdopted(e)) => Answer::failure(1, format!("{tool}: {e}")),
        }
    }
}
