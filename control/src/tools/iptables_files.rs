//! The command lines of `iptables-save` and `iptables-restore`.
//!
//! Both are read twice by the same words: where the tool is called, which opens the files that are
//! named, and in the gateway, which gets the rest ([`Save::argv`], [`Restore::argv`]).

use dataplane::rules::hook::{Family, Table};

use super::Answer;
use super::getopt::{Opt, Reader, Takes, Unreadable, Word};
use super::iptables::VERSION;
use crate::iptables::{Options, table_sentence};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
    Counters,
    Table,
    Test,
    NoFlush,
    Verbose,
    File,
    Help,
    Version,
    V4,
    V6,
    /// Seconds to wait, which may be missing.
    Wait,
    /// Without meaning here: nobody to wait for, no module to load.
    Nothing,
}

const fn option(key: Flag, short: char, long: &'static [&'static str], takes: Takes) -> Opt<Flag> {
    Opt { key, short: Some(short), long, takes }
}

const SAVE: &[Opt<Flag>] = &[
    option(Flag::Counters, 'c', &["counters"], Takes::Nothing),
    option(Flag::Table, 't', &["table"], Takes::Argument),
    option(Flag::File, 'f', &["file"], Takes::Argument),
    option(Flag::Nothing, 'M', &["modprobe"], Takes::Argument),
    option(Flag::Version, 'V', &["version"], Takes::Nothing),
];

const RESTORE: &[Opt<Flag>] = &[
    option(Flag::Counters, 'c', &["counters"], Takes::Nothing),
    option(Flag::Test, 't', &["test"], Takes::Nothing),
    option(Flag::NoFlush, 'n', &["noflush"], Takes::Nothing),
    option(Flag::Table, 'T', &["table"], Takes::Argument),
    option(Flag::Verbose, 'v', &["verbose"], Takes::Nothing),
    option(Flag::V4, '4', &["ipv4"], Takes::Nothing),
    option(Flag::V6, '6', &["ipv6"], Takes::Nothing),
    option(Flag::Wait, 'w', &["wait"], Takes::Optional),
    option(Flag::Nothing, 'W', &["wait-interval"], Takes::Argument),
    option(Flag::Nothing, 'M', &["modprobe"], Takes::Argument),
    option(Flag::Help, 'h', &["help"], Takes::Nothing),
    option(Flag::Version, 'V', &["version"], Takes::Nothing),
];

/// What an `iptables-save` is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Save {
    /// `-c`.
    pub counters: bool,
    /// `-t`.
    pub table: Option<Table>,
    /// `-f`.
    pub file: Option<String>,
}

/// What an `iptables-restore` is to do.
#[derive(Clone, Debug, Default)]
pub struct Restore {
    /// How to read the text.
    pub options: Options,
    /// `-t`: change nothing.
    pub test: bool,
    /// `-4` or `-6`, if given.
    pub family: Option<Family>,
    /// The file to read; standard input if there is none.
    pub file: Option<String>,
}

impl Save {
    /// Reads the words after the name of the `tool`.
    ///
    /// # Errors
    /// What to answer instead: a complaint, or the version.
    pub fn read(tool: &str, argv: &[String]) -> Result<Save, Answer> {
        let mut save = Save::default();
        each(
            tool,
            argv,
            SAVE,
            |flag, value| {
                match flag {
                    Flag::Counters => save.counters = true,
                    Flag::Table => save.table = Some(table(tool, value)?),
                    Flag::File => save.file = value.map(str::to_owned),
                    Flag::Version => return Err(version(tool)),
                    _ => {}
                }
                Ok(())
            },
            |word| Err(stray(tool, word)),
        )?;
        Ok(save)
    }

    /// The words for the gateway, which writes no files.
    pub fn argv(&self, tool: &str) -> Vec<String> {
        let mut argv = vec![tool.to_owned()];
        argv.extend(self.counters.then(|| "-c".to_owned()));
        argv.extend(self.table.into_iter().flat_map(|t| ["-t".to_owned(), t.name().to_owned()]));
        argv
    }
}

impl Restore {
    /// Reads the words after the name of the `tool`.
    ///
    /// # Errors
    /// What to answer instead: a complaint, help, or the version.
    pub fn read(tool: &str, argv: &[String]) -> Result<Restore, Answer> {
        let mut restore = Restore::default();
        let mut files: Vec<String> = Vec::new();
        let mut waits_for = None;
        each(
            tool,
            argv,
            RESTORE,
            |flag, value| {
                let options = &mut restore.options;
                match flag {
                    Flag::Counters => options.counters = true,
                    Flag::NoFlush => options.noflush = true,
                    Flag::Verbose => options.verbose = true,
                    Flag::Table => options.table = Some(table(tool, value)?),
                    Flag::Test => restore.test = true,
                    Flag::V4 => restore.family = Some(Family::V4),
                    Flag::V6 => restore.family = Some(Family::V6),
                    // A word behind `-w` that is no number is the file.
                    Flag::Wait => waits_for = value.filter(|v| v.parse::<u32>().is_err()),
                    Flag::Help => return Err(usage(tool)),
                    Flag::Version => return Err(version(tool)),
                    _ => {}
                }
                Ok(())
            },
            |word| {
                files.push(word.to_owned());
                Ok(())
            },
        )?;
        files.extend(waits_for.map(str::to_owned));
        let mut files = files.into_iter();
        restore.file = files.next();
        match files.next() {
            Some(word) => Err(stray(tool, &word)),
            None => Ok(restore),
        }
    }

    /// The words for the gateway, which gets the file's text as standard input.
    pub fn argv(&self, tool: &str) -> Vec<String> {
        let options = self.options;
        let flags = [
            (options.counters, "-c"),
            (options.noflush, "-n"),
            (options.verbose, "-v"),
            (self.test, "-t"),
            (self.family == Some(Family::V4), "-4"),
            (self.family == Some(Family::V6), "-6"),
        ];
        let mut argv = vec![tool.to_owned()];
        argv.extend(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| (*flag).to_owned()));
        argv.extend(options.table.into_iter().flat_map(|t| ["-T".to_owned(), t.name().to_owned()]));
        argv
    }
}

/// Goes through a command line; each of both may end it with an answer.
fn each<'a>(
    tool: &str,
    argv: &'a [String],
    known: &[Opt<Flag>],
    mut option: impl FnMut(Flag, Option<&'a str>) -> Result<(), Answer>,
    mut operand: impl FnMut(&'a str) -> Result<(), Answer>,
) -> Result<(), Answer> {
    let mut words = Reader::new(argv);
    while let Some(word) = words.step(known) {
        match word {
            Ok(Word::Option(flag, value)) => option(flag, value)?,
            Ok(Word::Operand(word)) => operand(word)?,
            Err(Unreadable::Unknown(word)) => {
                return Err(Answer::failure(1, format_args!("{tool}: unknown option '{word}'")));
            }
            Err(Unreadable::NeedsArgument(word)) => {
                let text = format_args!("{tool}: option '{word}' requires an argument");
                return Err(Answer::failure(1, text));
            }
        }
    }
    Ok(())
}

fn table(tool: &str, name: Option<&str>) -> Result<Table, Answer> {
    let name = name.unwrap_or_default();
    let unknown = || Answer::failure(1, format_args!("{tool}: {}", table_sentence(name)));
    Table::from_name(name).ok_or_else(unknown)
}

fn stray(tool: &str, word: &str) -> Answer {
    Answer::failure(1, format_args!("{tool}: unexpected argument '{word}'"))
}

fn version(tool: &str) -> Answer {
    Answer::text(format!("{tool} {VERSION}\n"))
}

/// iptables-restore says it on standard error, and that is no failure.
fn usage(tool: &str) -> Answer {
    let err = format!(
        "usage: {tool} [-c] [-n] [-t] [-v] [-T TABLE] [-4|-6] [-w [SECONDS]] [-W N] [-M COMMAND] \
         [-h] [-V] [FILE]\n"
    );
    Answer { err, ..Answer::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn restore(line: &str) -> Result<Restore, Answer> {
        Restore::read("iptables-restore", &words(line))
    }

    #[test]
    fn the_file_of_a_restore() {
        let file = |line: &str| restore(line).unwrap().file;
        for line in ["", "-c --test", "-w 5", "-T nat -W 3 -M x", "--wait=7 -n"] {
            assert_eq!(file(line), None, "{line}");
        }
        for line in
            ["rules", "-T nat rules", "-w 5 rules -n", "-w rules", "-c -- rules", "rules -v"]
        {
            assert_eq!(file(line), Some("rules".to_owned()), "{line}");
        }
        for line in ["a b", "-w a b", "-Q", "-T", "-T nosuch", "--nosuch", "-h"] {
            assert!(restore(line).is_err(), "{line}");
        }
        assert!(restore("-T security").unwrap_err().err.contains("security marks"));
        assert_eq!(restore("-V").unwrap_err().out, "iptables-restore v1.8.9 (nf_tables)\n");
    }

    #[test]
    fn what_the_gateway_gets_means_the_same() {
        for line in ["", "-c", "-n -v", "-c -n -v -t -6 -T mangle", "-4 -T raw"] {
            let argv = restore(&format!("{line} rules")).unwrap().argv("iptables-restore");
            assert_eq!(argv[1..].join(" "), line);
        }
        let save = |line: &str| Save::read("iptables-save", &words(line));
        let argv = save("--counters -f /tmp/x -t nat -M y").unwrap().argv("iptables-save");
        assert_eq!(argv.join(" "), "iptables-save -c -t nat");
        assert_eq!(save("-f x").unwrap().file, Some("x".to_owned()));
        for line in ["x", "-v", "-h", "-t", "-t nosuch", "-w"] {
            assert_eq!(save(line).unwrap_err().exit, 1, "{line}");
        }
    }
}
