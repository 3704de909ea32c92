//! From a command line, or a line of a file, to what is done.
//!
//! Words that belong to the tool may stand anywhere, as in ipset: they are taken out first. A file
//! is obeyed line by line and stops at the first that fails; what stands before it has been done.

use std::cell::RefCell;
use std::rc::Rc;

use dataplane::time::Tick;

use super::change::Extra;
use super::element::Element;
use super::made::Made;
use super::print::How;
use super::{Entry, SETS_MAX, Sets, Wrong};
use crate::tools::Answer;

/// The tool's name as its messages have it.
const TOOL: &str = "ipset v7.17";

/// Spellings of the option that names a file.
const FILE: [&str; 3] = ["-f", "-file", "--file"];

/// The longest name (`IPSET_MAXNAMELEN`, without its final zero).
const NAME_MAX: usize = 31;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Create,
    Add,
    Del,
    Test,
    Destroy,
    List,
    Save,
    Restore,
    Flush,
    Rename,
    Swap,
    Help,
    Version,
    Quit,
}

/// Names of commands, with their old spelling and a letter; abbreviated, the first is meant.
const VERBS: &[(Verb, &str, &str, &str)] = &[
    (Verb::Create, "create", "-N", "n"),
    (Verb::Add, "add", "-A", "a"),
    (Verb::Del, "del", "-D", "d"),
    (Verb::Test, "test", "-T", "t"),
    (Verb::Destroy, "destroy", "-X", "x"),
    (Verb::List, "list", "-L", "l"),
    (Verb::Save, "save", "-S", "s"),
    (Verb::Restore, "restore", "-R", "r"),
    (Verb::Flush, "flush", "-F", "f"),
    (Verb::Rename, "rename", "-E", "e"),
    (Verb::Swap, "swap", "-W", "w"),
    (Verb::Help, "help", "-h", "h"),
    (Verb::Version, "version", "-v", "v"),
    (Verb::Quit, "quit", "", "q"),
];

/// What the tool is told besides the command.
#[derive(Clone, Debug, Default)]
struct Environment {
    exist: bool,
    quiet: bool,
    how: Option<How>,
    output: Option<How>,
    words: Vec<String>,
}

impl Environment {
    fn parse(argv: &[String]) -> Result<Environment, Wrong> {
        let mut environment = Environment::default();
        let mut words = argv.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "-!" | "-exist" | "--exist" => environment.exist = true,
                "-q" | "-quiet" | "--quiet" => environment.quiet = true,
                // Listings are sorted, and no name is asked of anybody.
                "-s" | "-sorted" | "--sorted" | "-r" | "-resolve" | "--resolve" => {}
                "-n" | "-name" | "--name" => environment.how = Some(How::Names),
                "-t" | "-terse" | "--terse" => {
                    environment.how = environment.how.or(Some(How::Terse));
                }
                "-o" | "-output" | "--output" => {
                    let Some(mode) = words.next() else {
                        return Wrong::usage(format!(
                            "Missing mandatory argument to option {word}"
                        ));
                    };
                    environment.output = Some(match mode.as_str() {
                        "plain" => How::Plain,
                        "save" => How::Save,
                        "xml" => return Wrong::refused("xml is not supported"),
                        _ => return Wrong::syntax(format_args!("unknown output mode '{mode}'")),
                    });
                }
                word if FILE.contains(&word) && words.next().is_none() => {
                    return Wrong::usage(format!("Missing mandatory argument to option {word}"));
                }
                // The caller's side has seen to it.
                word if FILE.contains(&word) => {}
                _ => environment.words.push(word.clone()),
            }
        }
        Ok(environment)
    }

    fn verb(&self) -> Result<Verb, Wrong> {
        let Some(word) = self.words.first().map(String::as_str) else {
            return Wrong::usage("No command specified.");
        };
        let long = word.strip_prefix("--").unwrap_or("");
        let is = |(_, name, old, letter): &&(Verb, &str, &str, &str)| {
            [*name, *old, *letter].contains(&word) || long == *name
        };
        let begins = |(_, name, ..): &&(Verb, &str, &str, &str)| name.starts_with(word);
        let found = VERBS.iter().find(is);
        match found.or_else(|| VERBS.iter().find(begins).filter(|_| !word.is_empty())) {
            Some((verb, ..)) => Ok(*verb),
            None => Wrong::usage(format!("No command specified: unknown argument {word}")),
        }
    }

    fn name_of(verb: Verb) -> &'static str {
        VERBS.iter().find(|(known, ..)| *known == verb).map_or("", |(_, name, ..)| name)
    }

    /// The command's first and second word.
    fn two(&self, verb: Verb) -> Result<(&str, &str), Wrong> {
        let name = Environment::name_of(verb);
        let Some(first) = self.words.get(1) else {
            return Wrong::usage(format!("Missing mandatory argument to command {name}"));
        };
        match self.words.get(2) {
            Some(second) => Ok((first, second)),
            None => Wrong::usage(format!("Missing second mandatory argument to command {name}")),
        }
    }

    /// What comes behind the first two words.
    fn rest(&self) -> &[String] {
        self.words.get(3..).unwrap_or(&[])
    }

    /// Nothing more than `count` words.
    fn no_more_than(&self, count: usize) -> Result<(), Wrong> {
        match self.words.get(count) {
            Some(word) => Wrong::usage(format!("Unknown argument {word}")),
            None => Ok(()),
        }
    }
}

/// The file that a command line names, which the caller's side reads or writes.
pub fn file_of(argv: &[String]) -> Option<&String> {
    let at = argv.iter().position(|word| FILE.contains(&word.as_str()))?;
    argv.get(at + 1)
}

/// True if a command line reads commands.
pub fn is_restore(argv: &[String]) -> bool {
    Environment::parse(argv).and_then(|environment| environment.verb()) == Ok(Verb::Restore)
}

/// What a command prints.
#[derive(Debug, Default)]
struct Said {
    out: String,
    err: String,
}

impl Said {
    fn out(out: impl Into<String>) -> Said {
        Said { out: out.into(), err: String::new() }
    }
}

/// Where a file of sets went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Sets {
    /// Obeys a command line; `stdin` is what `restore` reads.
    pub fn run(&self, argv: &[String], stdin: &str, now: Tick) -> Answer {
        let parsed = Environment::parse(argv);
        let quiet = parsed.as_ref().is_ok_and(|environment| environment.quiet);
        let mut said = Said::default();
        let done = parsed.and_then(|environment| {
            match environment.verb()? {
                Verb::Restore => self.restore(stdin, &environment, &mut said, now),
                verb => self.obey(verb, &environment, &mut said, now).map_err(|wrong| (0, wrong)),
            }
            .map_err(|(line, wrong)| at_line(line, wrong))
        });
        let (exit, text) = match done {
            Ok(()) => (0, None),
            Err(Wrong::Refused(text)) => (1, Some(format!("{TOOL}: {text}\n"))),
            Err(Wrong::Absent(text)) => (1, Some(format!("{text}\n"))),
            Err(Wrong::Usage(text)) => {
                (2, Some(format!("{TOOL}: {text}\nTry `ipset help' for more information.\n")))
            }
        };
        let loud = !quiet || exit == 2;
        let err = if loud { said.err + &text.unwrap_or_default() } else { String::new() };
        Answer { out: said.out, err, exit }
    }

    /// The sets of a file as `ipset save` writes it.
    ///
    /// # Errors
    /// The first line that cannot be obeyed.
    pub fn load(text: &str, now: Tick) -> Result<Sets, LoadError> {
        let sets = Sets::default();
        let environment = Environment::default();
        match sets.restore(text, &environment, &mut Said::default(), now) {
            Ok(()) => Ok(sets),
            Err((
                line,
                Wrong::Refused(message) | Wrong::Usage(message) | Wrong::Absent(message),
            )) => Err(LoadError { line, message }),
        }
    }

    fn restore(
        &self,
        text: &str,
        outer: &Environment,
        said: &mut Said,
        now: Tick,
    ) -> Result<(), (usize, Wrong)> {
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') || text == "COMMIT" {
                continue;
            }
            let here = |wrong| (line, wrong);
            let mut environment = Environment::parse(&words_of(text)).map_err(here)?;
            environment.exist |= outer.exist;
            match environment.verb().map_err(here)? {
                Verb::Quit => return Ok(()),
                verb @ (Verb::Restore | Verb::Help | Verb::Version) => {
                    let name = Environment::name_of(verb);
                    let text = format!("Command `{name}' is invalid in restore mode.");
                    return Err((line, Wrong::Usage(text)));
                }
                verb => self.obey(verb, &environment, said, now).map_err(here)?,
            }
        }
        Ok(())
    }

    fn obey(
        &self,
        verb: Verb,
        environment: &Environment,
        said: &mut Said,
        now: Tick,
    ) -> Result<(), Wrong> {
        match verb {
            Verb::Create => self.create(environment),
            Verb::Add | Verb::Del | Verb::Test => {
                let told = self.on_element(verb, environment, now)?;
                said.err.push_str(&told);
                Ok(())
            }
            Verb::Destroy | Verb::Flush => self.clear(verb, environment),
            Verb::Rename => self.rename(environment),
            Verb::Swap => self.swap(environment),
            Verb::List | Verb::Save => {
                environment.no_more_than(2)?;
                let inner = self.inner();
                let only = environment.words.get(1).map(|name| inner.find(name)).transpose()?;
                let how = match (verb, environment.output, environment.how) {
                    (_, Some(How::Save), _) | (Verb::Save, ..) => How::Save,
                    (_, _, how) => how.unwrap_or(How::Plain),
                };
                said.out.push_str(&inner.text(only.map(|(number, _)| number), how, now));
                Ok(())
            }
            Verb::Help => {
                *said = Said::out(HELP);
                Ok(())
            }
            Verb::Version => {
                *said = Said::out(format!("{TOOL}, protocol version: 7\n"));
                Ok(())
            }
            Verb::Restore | Verb::Quit => Ok(()),
        }
    }

    fn create(&self, environment: &Environment) -> Result<(), Wrong> {
        let (name, kind) = environment.two(Verb::Create)?;
        fits(name)?;
        let made = Made::parse(kind, environment.rest())?;
        let mut inner = self.inner();
        if let Ok((_, old)) = inner.find(name) {
            if environment.exist && made.is_same(&old.borrow().made) {
                return Ok(());
            }
            return Wrong::refused("Set cannot be created: set with the same name already exists");
        }
        let number = inner.free_number();
        if number >= SETS_MAX {
            let text = "Kernel error received: maximal number of sets reached, cannot create more.";
            return Wrong::refused(text);
        }
        inner.put(number, Rc::new(RefCell::new(Entry::new(name, made))));
        Ok(())
    }

    /// Adds, deletes or tests; gives what is said of it.
    fn on_element(
        &self,
        verb: Verb,
        environment: &Environment,
        now: Tick,
    ) -> Result<String, Wrong> {
        let (name, text) = environment.two(verb)?;
        let mut inner = self.inner();
        let (number, cell) = inner.find(name)?;
        let adds_or_tests = (verb == Verb::Add, verb == Verb::Test);
        let exist = environment.exist;
        let done = {
            let made = cell.borrow().made.clone();
            let list = cell.borrow().is_list();
            if list {
                let extra = Extra::parse(&made, environment.rest(), adds_or_tests)?;
                let named = inner.member(text, &extra);
                if verb == Verb::Test {
                    let there = named.is_ok_and(|named| cell.borrow().test_member(named, now));
                    return tested(there, text, name);
                }
                let (named, mut entry) = (named?, cell.borrow_mut());
                match verb {
                    Verb::Add => entry.add_member(named, &extra, exist, now),
                    _ => entry.del_member(named, exist, now),
                }
            } else {
                let element = Element::parse(&made, text)?;
                let extra = Extra::parse(&made, environment.rest(), adds_or_tests)?;
                let mut entry = cell.borrow_mut();
                match verb {
                    Verb::Add => entry.add(&element, &extra, exist, now),
                    Verb::Del => entry.del(&element, exist, now),
                    _ => {
                        let there = entry.test(&element, &extra, now)?;
                        return tested(there, &element.text(&made), name);
                    }
                }
            }
        };
        // What could not be done whole may have been done in part.
        let quiet = !cell.borrow().is_list() && cell.borrow().set.is_per_packet();
        if !quiet {
            inner.note_change(number, name);
        }
        done.map(|()| String::new())
    }

    /// Destroys or empties one set or all.
    fn clear(&self, verb: Verb, environment: &Environment) -> Result<(), Wrong> {
        environment.no_more_than(2)?;
        let mut inner = self.inner();
        let numbers: Vec<usize> = match environment.words.get(1) {
            Some(name) => vec![inner.find(name)?.0],
            None => (0..inner.entries.len()).collect(),
        };
        let mut names = Vec::new();
        for number in numbers {
            if let Some(cell) = inner.entries.get(number).and_then(Option::as_ref) {
                names.push((number, Rc::clone(cell)));
            }
        }
        if verb == Verb::Flush {
            for (number, cell) in names {
                cell.borrow_mut().flush();
                let name = cell.borrow().name.clone();
                inner.note_change(number, &name);
            }
            return Ok(());
        }
        let used = |(number, cell): &(usize, _)| {
            let cell: &Rc<RefCell<Entry>> = cell;
            inner.references(*number, &cell.borrow().name) > 0
        };
        if names.iter().any(used) {
            let text = "Set cannot be destroyed: it is in use by a kernel component";
            return Wrong::refused(text);
        }
        names.iter().for_each(|(number, _)| inner.entries[*number] = None);
        Ok(())
    }

    fn rename(&self, environment: &Environment) -> Result<(), Wrong> {
        let (old, new) = environment.two(Verb::Rename)?;
        environment.no_more_than(3)?;
        fits(new)?;
        let inner = self.inner();
        let (number, cell) = inner.find(old)?;
        if inner.references(number, old) > 0 {
            return Wrong::refused("Set cannot be renamed: it is in use by another system");
        }
        if inner.number(new).is_some() {
            let text = "Set cannot be renamed: a set with the new name already exists";
            return Wrong::refused(text);
        }
        cell.borrow_mut().name = new.to_owned();
        Ok(())
    }

    /// Exchanges what is behind two names (`ip_set_swap`).
    fn swap(&self, environment: &Environment) -> Result<(), Wrong> {
        let (one, other) = environment.two(Verb::Swap)?;
        environment.no_more_than(3)?;
        let mut inner = self.inner();
        let (first, a) = inner.find(one)?;
        let Ok((second, b)) = inner.find(other) else {
            return Wrong::refused("Sets cannot be swapped: the second set does not exist");
        };
        if first == second {
            return Ok(());
        }
        let shape = |cell: &Rc<RefCell<Entry>>| {
            let made = cell.borrow().made.clone();
            (made.kind.parts, made.family, cell.borrow().is_list())
        };
        if shape(&a) != shape(&b) {
            return Wrong::refused("The sets cannot be swapped: their type does not match");
        }
        a.borrow_mut().name = other.to_owned();
        b.borrow_mut().name = one.to_owned();
        inner.put(first, b);
        inner.put(second, a);
        inner.note_change(first, one);
        inner.note_change(second, other);
        Ok(())
    }
}

/// What a test says.
fn tested(there: bool, element: &str, set: &str) -> Result<String, Wrong> {
    if there {
        return Ok(format!("Warning: {element} is in set {set}.\n"));
    }
    Err(Wrong::Absent(format!("{element} is NOT in set {set}.")))
}

fn fits(name: &str) -> Result<(), Wrong> {
    if name.len() > NAME_MAX {
        let text = format!("setname '{name}' is longer than {NAME_MAX} characters");
        return Wrong::syntax(text);
    }
    Ok(())
}

fn at_line(line: usize, wrong: Wrong) -> Wrong {
    match wrong {
        Wrong::Refused(text) if line > 0 => Wrong::Refused(format!("Error in line {line}: {text}")),
        wrong => wrong,
    }
}

/// The words of a line; blanks within quotes are no ends, and a word whose quotes are not closed is
/// none.
pub(super) fn words_of(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut begun, mut quoted) = (String::new(), false, false);
    for c in line.chars() {
        match c {
            '"' => (quoted, begun) = (!quoted, true),
            c if c.is_ascii_whitespace() && !quoted => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun && !quoted {
        words.push(word);
    }
    words
}

const HELP: &str = "\
ipset v7.17

Usage: ipset [-exist] [-quiet] [-file NAME] COMMAND

create SET TYPE [OPTIONS]   make a set
add SET ELEMENT [OPTIONS]   add an element
del SET ELEMENT             take an element away
test SET ELEMENT            say whether the set has it
list [SET] [-name] [-terse] [-output plain|save]
save [SET]                  print the commands that make the sets
restore                     obey such commands from standard input
flush [SET]                 take all elements away
destroy [SET]               delete sets
rename FROM TO              give a set another name
swap ONE OTHER              exchange what two names stand for

Types: hash:ip hash:net hash:ip,port hash:net,port hash:ip,port,ip hash:ip,port,net
hash:net,port,net hash:net,net hash:ip,mark hash:ip,mac hash:mac bitmap:ip bitmap:port list:set
";
