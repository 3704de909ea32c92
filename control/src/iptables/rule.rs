//! One rule from its options.
//!
//! An option belongs to the line (`line.rs`), to the rule itself, to a match that was named, to the
//! target, or to the match that `-p` brings along, which is then loaded at this place. Names may be
//! abbreviated where that is clear.

use dataplane::rules::hook::{Family, Hook};
use dataplane::rules::matches::{Basics, Match, Maybe, Net};
use dataplane::rules::model::{Counters, Place, Rule};
use dataplane::rules::targets::Target;

use super::ParseError;
use super::extension::{Given, Loaded, Opt, find, opt, valued};
use super::extensions::{self, match_text, target_text};
use super::line::{self, Words};
use super::values::{self, Fault};
use super::words::Word;
use super::{names, refused};
use crate::labels::Names;

/// The rule's own options.
const OWN: &[Opt] = &[
    opt("protocol"),
    opt("source").or("src"),
    opt("destination").or("dst"),
    opt("in-interface"),
    opt("out-interface"),
    opt("fragments").takes(0),
    valued("jump").group(1),
    valued("goto").group(1),
    valued("match").many(),
    COUNTERS,
];

/// `-c`, which has two words or one.
const COUNTERS: Opt = valued("set-counters");

/// Whose option a word is.
pub(super) enum Owner {
    /// The line's.
    Line,
    /// The rule's own.
    Rule,
    /// That of a match, by its position.
    Match(usize),
    /// The target's.
    Target,
}

/// What `-j` and `-g` name.
enum Chosen {
    /// One with options.
    Row(Loaded<Target>),
    /// One without.
    Plain(Target),
}

/// A value as it was written, read once the whole line is known.
type Late<'a> = Option<(bool, &'a str, &'a Word)>;

/// A rule while its options are read.
pub(super) struct Draft<'a> {
    family: Family,
    rule: Rule,
    /// Lists of addresses; those of a line for the other family are never looked at.
    src: Late<'a>,
    dst: Late<'a>,
    /// The options `-i` and `-o`: whether they may stand depends on the chain.
    in_word: Option<&'a Word>,
    out_word: Option<&'a Word>,
    matches: Vec<(Loaded<Match>, &'a Word)>,
    target: Option<(Chosen, &'a Word)>,
    /// How many matches stand before the target.
    before_target: usize,
    seen: Vec<(&'static Opt, &'a Word)>,
    labels: &'a Names,
}

impl<'a> Draft<'a> {
    /// A rule that asks nothing and does nothing.
    pub(super) fn new(family: Family, labels: &'a Names) -> Draft<'a> {
        let rule = Rule {
            place: Place::default(),
            counters: Counters::default(),
            basics: Basics::default(),
            matches: Vec::new(),
            target: Target::None,
        };
        Draft {
            family,
            rule,
            src: None,
            dst: None,
            in_word: None,
            out_word: None,
            matches: Vec::new(),
            target: None,
            before_target: 0,
            seen: Vec::new(),
            labels,
        }
    }

    /// The word of the first option of the rule's own that only a rule takes; that of `-c` does not
    /// count with `but_counters`.
    pub(super) fn first_word(&self, but_counters: bool) -> Option<&'a Word> {
        let only_here = |name| name != "match" && !(but_counters && name == "set-counters");
        self.seen.iter().find(|(option, _)| only_here(option.name)).map(|(_, word)| *word)
    }

    /// The word of `-c`.
    pub(super) fn counters_word(&self) -> Option<&'a Word> {
        let counters = |(option, _): &&(&Opt, _)| option.name == "set-counters";
        self.seen.iter().find(counters).map(|(_, word)| *word)
    }

    /// Takes an option of a rule, a match or the target with its values.
    pub(super) fn give(
        &mut self,
        owner: &Owner,
        option: &'static Opt,
        not: bool,
        values: &[&'a str],
        (word, place): (&'a Word, &'a Word),
    ) -> Result<(), ParseError> {
        let (family, labels) = (self.family, self.labels);
        let proto = self.rule.basics.proto.map(|proto| proto.value);
        let given = Given { name: option.name, not, values, family, labels, proto };
        match owner {
            Owner::Line => Ok(()),
            Owner::Rule => return self.own_option(option, &given, values, (word, place)),
            Owner::Match(at) => match self.matches.get_mut(*at) {
                Some((loaded, _)) => loaded.set(option, &given, match_text),
                None => Ok(()),
            },
            Owner::Target => match &mut self.target {
                Some((Chosen::Row(loaded), _)) => loaded.set(option, &given, target_text),
                _ => Ok(()),
            },
        }
        .map_err(|fault| place.error(fault))
    }

    /// `-c PACKETS BYTES` or `-c PACKETS,BYTES`.
    pub(super) fn counters(
        &mut self,
        first: &Word,
        words: &mut Words<'a>,
        word: &'a Word,
    ) -> Result<(), ParseError> {
        self.once(&COUNTERS, word)?;
        let missing = || word.error(format!("`{}' needs packets and bytes", word.text));
        let (packets, bytes) = match first.text.split_once(',') {
            Some((packets, bytes)) => (packets, bytes),
            None => (first.text.as_str(), words.operand().ok_or_else(missing)?.text.as_str()),
        };
        let count = |text: &str| match text.parse() {
            Ok(count) => Ok(count),
            Err(_) => Err(first.error(format!("`{text}' is not a count"))),
        };
        self.rule.counters = Counters { packets: count(packets)?, bytes: count(bytes)? };
        Ok(())
    }

    fn once(&mut self, option: &'static Opt, word: &'a Word) -> Result<(), ParseError> {
        if self.seen.iter().any(|(seen, _)| seen.clashes(option)) {
            return Err(word.error(format!("option `{}' stands twice", word.text)));
        }
        self.seen.push((option, word));
        Ok(())
    }

    /// Finds whose option `name` is: whole names first, then beginnings; of matches and target that
    /// which was named last.
    pub(super) fn find(
        &mut self,
        name: &str,
        word: &'a Word,
    ) -> Result<(Owner, &'static Opt), ParseError> {
        for whole in [true, false] {
            if let Some(owner) = self.known(name, whole, word)? {
                return Ok(owner);
            }
        }
        let proto = self.rule.basics.proto;
        let implied = proto.and_then(|p| extensions::match_implied(p.value, self.family));
        if let Some(row) = implied
            && !self.matches.iter().any(|(loaded, _)| loaded.extension.name == row.name)
            && find(row.options, name, false).is_some()
        {
            let mut loaded = Loaded::new(row, self.family);
            loaded.implied = true;
            self.matches.push((loaded, word));
            return self.find(name, word);
        }
        Err(word.error(format!("unknown option `{}'", word.text)))
    }

    fn known(
        &self,
        name: &str,
        whole: bool,
        word: &Word,
    ) -> Result<Option<(Owner, &'static Opt)>, ParseError> {
        let fits = |option: &&Opt| if whole { option.is(name) } else { option.begins(name) };
        let of = |options: &'static [Opt]| options.iter().filter(fits);
        let mut found: Vec<(Owner, &'static Opt)> = Vec::new();
        found.extend(of(line::OPTIONS).map(|option| (Owner::Line, option)));
        found.extend(of(OWN).map(|option| (Owner::Rule, option)));
        let target = match &self.target {
            Some((Chosen::Row(loaded), _)) => Some((self.before_target, loaded.extension.options)),
            _ => None,
        };
        let of_target = |at: usize, found: &mut Vec<(Owner, &'static Opt)>| {
            if let Some((_, options)) = target.filter(|(before, _)| *before == at) {
                found.extend(of(options).map(|option| (Owner::Target, option)));
            }
        };
        of_target(self.matches.len(), &mut found);
        for (at, (loaded, _)) in self.matches.iter().enumerate().rev() {
            let options = of(loaded.extension.options);
            found.extend(options.map(|option| (Owner::Match(at), option)));
            of_target(at, &mut found);
        }
        let names: Vec<&str> = found.iter().map(|(_, option)| option.name).collect();
        if let [first, rest @ ..] = names.as_slice()
            && let Some(other) = rest.iter().find(|other| *other != first)
        {
            let text = format!("ambiguous option `{}': `--{first}' or `--{other}'?", word.text);
            return Err(word.error(text));
        }
        Ok(found.into_iter().next())
    }

    fn own_option(
        &mut self,
        option: &'static Opt,
        given: &Given<'_>,
        values: &[&'a str],
        (word, place): (&'a Word, &'a Word),
    ) -> Result<(), ParseError> {
        self.once(option, word)?;
        let (not, family) = (given.not, self.family);
        let text = values.first().copied().unwrap_or("");
        let done: Result<(), Fault> = match option.name {
            "protocol" => self.proto(not, text),
            "source" => {
                self.src = Some((not, text, place));
                Ok(())
            }
            "destination" => {
                self.dst = Some((not, text, place));
                Ok(())
            }
            "in-interface" => {
                self.in_word = Some(word);
                self.port(given)
            }
            "out-interface" => {
                self.out_word = Some(word);
                self.port(given)
            }
            "fragments" if family == Family::V6 => Err("`-f' is not supported in IPv6".to_owned()),
            "fragments" => {
                self.rule.basics.fragment = Some(given.maybe(()));
                Ok(())
            }
            "jump" => jump(text, family).map(|target| {
                self.before_target = self.matches.len();
                self.target = Some((target, place));
            }),
            "goto" => {
                let target = Chosen::Plain(Target::Goto(text.to_owned()));
                self.target = Some((target, place));
                Ok(())
            }
            _ => self.named_match(text, place),
        };
        done.map_err(|fault| place.error(fault))
    }

    fn proto(&mut self, not: bool, text: &str) -> Result<(), Fault> {
        match names::protocol(text) {
            None => Err(format!("unknown protocol `{text}'")),
            Some(0) if not => Err("rule would never match protocol".to_owned()),
            Some(0) => Ok(()),
            Some(value) => {
                self.rule.basics.proto = Some(Maybe { not, value });
                Ok(())
            }
        }
    }

    fn port(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        if text.is_empty() {
            return Err("the name of a port is empty".to_owned());
        }
        if text.len() > 15 {
            return Err(format!("port name `{text}' is longer than 15 bytes"));
        }
        // The kernel's names have none of these (`dev_valid_name`), nor could they be read back.
        if text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '/' | ':' | '!')) {
            return Err(format!("bad port name `{text}'"));
        }
        // A plain `+` holds every port and none: it asks nothing.
        let asked = (text != "+" || given.not).then(|| given.maybe(text.to_owned()));
        let basics = &mut self.rule.basics;
        match given.name {
            "in-interface" => basics.in_port = asked,
            _ => basics.out_port = asked,
        }
        Ok(())
    }

    fn named_match(&mut self, text: &str, place: &'a Word) -> Result<(), Fault> {
        let row = extensions::match_named(text, self.family)
            .ok_or_else(|| refused::sentence("match", text))?;
        let same = |loaded: &Loaded<Match>| loaded.extension.name == row.name;
        let implied = self.matches.iter_mut().find(|(l, _)| same(l) && l.implied);
        match implied {
            Some((loaded, _)) => loaded.implied = false,
            None => self.matches.push((Loaded::new(row, self.family), place)),
        }
        Ok(())
    }

    /// The rules: several where addresses are lists. `place` is where one without target is
    /// reported.
    ///
    /// # Errors
    /// What is wrong with the options taken together, or in that chain.
    pub(super) fn finish(mut self, chain: &str, place: Place) -> Result<Vec<Rule>, ParseError> {
        self.rule.place = place;
        let hook = Hook::from_name(chain);
        let absent = [
            self.in_word.filter(|_| matches!(hook, Some(Hook::Output | Hook::Postrouting))),
            self.out_word.filter(|_| matches!(hook, Some(Hook::Input | Hook::Prerouting))),
        ];
        if let Some(word) = absent.into_iter().flatten().next() {
            return Err(word.error(format!("cannot use `{}' with {chain}", word.text)));
        }
        let srcs = self.nets(self.src)?;
        let dsts = self.nets(self.dst)?;
        for (loaded, word) in core::mem::take(&mut self.matches) {
            let asked = loaded.finish(&self.rule, match_text).map_err(|fault| word.error(fault))?;
            self.rule.matches.push(asked);
        }
        if let Some((chosen, word)) = self.target.take() {
            self.rule.place = word.place;
            self.rule.target = match chosen {
                Chosen::Plain(target) => target,
                Chosen::Row(loaded) => {
                    let done = loaded.finish(&self.rule, target_text);
                    done.map_err(|fault| word.error(fault))?
                }
            };
        }
        let mut rules = Vec::new();
        for src in srcs {
            for dst in &dsts {
                let mut rule = self.rule.clone();
                // Each rule of the list keeps state of its own.
                rule.matches.iter_mut().for_each(|asked| _ = asked.renew());
                (rule.basics.src, rule.basics.dst) = (src, *dst);
                rules.push(rule);
            }
        }
        Ok(rules)
    }

    /// The addresses of a list; one of all where nothing is asked.
    fn nets(&self, late: Late<'_>) -> Result<Vec<Option<Maybe<Net>>>, ParseError> {
        let Some((not, text, place)) = late else { return Ok(vec![None]) };
        let nets = addresses(text, not, self.family).map_err(|fault| place.error(fault))?;
        Ok(nets.into_iter().map(|net| Some(net).filter(|n| n.value.mask != 0)).collect())
    }
}

/// Targets without options.
const PLAIN: [(&str, Target); 5] = [
    ("ACCEPT", Target::Accept),
    ("DROP", Target::Drop),
    ("RETURN", Target::Return),
    ("NOTRACK", Target::Notrack),
    ("TRACE", Target::Trace),
];

/// The target of a word; anything that is no target's name is a chain.
fn jump(word: &str, family: Family) -> Result<Chosen, Fault> {
    if let Some((_, target)) = PLAIN.iter().find(|(name, _)| *name == word) {
        return Ok(Chosen::Plain(target.clone()));
    }
    if let Some(row) = extensions::target_named(word, family) {
        return Ok(Chosen::Row(Loaded::new(row, family)));
    }
    if unsupported(word) {
        return Err(refused::sentence("target", word));
    }
    Ok(Chosen::Plain(Target::Jump(word.to_owned())))
}

/// True if a target has that name, which no chain may have then.
pub(super) fn is_target(word: &str) -> bool {
    let plain = PLAIN.iter().any(|(name, _)| *name == word);
    plain || extensions::is_target(word) || unsupported(word)
}

/// True if iptables has a target of that name, and this gateway has none.
fn unsupported(word: &str) -> bool {
    names::UNSUPPORTED_TARGETS.contains(&word) || refused::is_target(word)
}

/// How many rules the lists of `-s` and `-d` may make.
const MAX_LIST: usize = 256;

fn addresses(text: &str, not: bool, family: Family) -> Result<Vec<Maybe<Net>>, Fault> {
    let words: Vec<&str> = text.split(',').collect();
    if words.len() > MAX_LIST {
        return Err(format!("more than {MAX_LIST} addresses in one list"));
    }
    if not && words.len() > 1 {
        return Err("`!' is not allowed with several addresses".to_owned());
    }
    let net = |word: &&str| values::net(word, family).map(|value| Maybe { not, value });
    let nets: Vec<Maybe<Net>> = words.iter().map(net).collect::<Result<_, _>>()?;
    if nets.iter().any(|net| net.not && net.value.mask == 0) {
        return Err(format!("rule would never match `! {text}'"));
    }
    Ok(nets)
}
