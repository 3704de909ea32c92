//! One rule from its words.
//!
//! Words are read in order as getopt does: an option belongs to the rule itself, to a match that
//! was named, to the target, or to the match that `-p` brings along, which is then loaded at this
//! place. Names may be abbreviated where that is clear.

use dataplane::rules::hook::{Family, Hook};
use dataplane::rules::matches::{Basics, Match, Maybe, Net};
use dataplane::rules::model::{Counters, Place, Rule};

use super::ParseError;
use super::match_options::{self, Kind, Opt};
use super::target_options;
use super::values::{self, Fault};
use super::words::Word;
use crate::labels::Names;

/// The rule's own options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    Proto,
    Src,
    Dst,
    InPort,
    OutPort,
    Fragment,
    Jump,
    Goto,
    Match,
    Counters,
    Family(Family),
    Table,
}

const fn own(name: &'static str, key: Own, takes: usize, not: bool) -> Opt<Own> {
    Opt { name, key, takes, not }
}

const OWN: &[Opt<Own>] = &[
    own("protocol", Own::Proto, 1, true),
    own("source", Own::Src, 1, true),
    own("src", Own::Src, 1, true),
    own("destination", Own::Dst, 1, true),
    own("dst", Own::Dst, 1, true),
    own("in-interface", Own::InPort, 1, true),
    own("out-interface", Own::OutPort, 1, true),
    own("fragments", Own::Fragment, 0, true),
    own("jump", Own::Jump, 1, false),
    own("goto", Own::Goto, 1, false),
    own("match", Own::Match, 1, false),
    own("set-counters", Own::Counters, 2, false),
    own("ipv4", Own::Family(Family::V4), 0, false),
    own("ipv6", Own::Family(Family::V6), 0, false),
    own("table", Own::Table, 1, false),
];

/// The long name of a one letter option.
fn long_name(letter: &str) -> Option<&'static str> {
    Some(match letter {
        "p" => "protocol",
        "s" => "source",
        "d" => "destination",
        "i" => "in-interface",
        "o" => "out-interface",
        "f" => "fragments",
        "j" => "jump",
        "g" => "goto",
        "m" => "match",
        "c" => "set-counters",
        "4" => "ipv4",
        "6" => "ipv6",
        "t" => "table",
        _ => return None,
    })
}

/// Reads one rule of `chain`; lists of addresses make several rules, as with iptables. `place` is
/// where a rule without target is reported. An empty answer is a rule of the other family (`-4`,
/// `-6`). `labels` are the names that labels have.
///
/// # Errors
/// The first word that cannot be taken.
pub fn parse_rule(
    family: Family,
    chain: &str,
    words: &[Word],
    place: Place,
    labels: &Names,
) -> Result<Vec<Rule>, ParseError> {
    let mut draft = Draft::new(family, chain, place, labels);
    let mut reader = Reader { words, at: 0 };
    let mut not: Option<&Word> = None;
    while let Some(word) = reader.next() {
        if word.text == "!" {
            if not.replace(word).is_some() {
                return Err(word.error("`!' stands twice"));
            }
            continue;
        }
        draft.option(word, not.take(), &mut reader)?;
    }
    if let Some(word) = not {
        return Err(word.error("nothing follows `!'"));
    }
    draft.finish()
}

struct Reader<'a> {
    words: &'a [Word],
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Word> {
        let word = self.words.get(self.at)?;
        self.at += 1;
        Some(word)
    }

    /// The values of an option: `--name=value` has its first one in the word.
    fn values(
        &mut self,
        word: &'a Word,
        inline: Option<&'a str>,
        takes: usize,
    ) -> Result<(Vec<&'a str>, &'a Word), ParseError> {
        if inline.is_some() && takes == 0 {
            return Err(word.error(format!("option `{}' takes no value", word.text)));
        }
        let mut values: Vec<&str> = inline.into_iter().collect();
        let mut place = word;
        while values.len() < takes {
            let Some(value) = self.next() else {
                return Err(word.error(format!("option `{}' requires an argument", word.text)));
            };
            if values.is_empty() {
                place = value;
            }
            values.push(&value.text);
        }
        Ok((values, place))
    }
}

/// Whose option a word is.
enum Owner {
    Rule(Opt<Own>),
    Match(usize, Opt<match_options::Key>),
    Target(Opt<target_options::Key>),
}

struct Draft<'a> {
    family: Family,
    chain: &'a str,
    place: Place,
    counters: Counters,
    basics: Basics,
    /// All addresses of `-s` and `-d`.
    srcs: Vec<Maybe<Net>>,
    dsts: Vec<Maybe<Net>>,
    matches: Vec<(match_options::Loaded, &'a Word)>,
    target: Option<(target_options::Loaded, &'a Word)>,
    seen: Vec<Own>,
    other_family: bool,
    labels: &'a Names,
}

impl<'a> Draft<'a> {
    fn new(family: Family, chain: &'a str, place: Place, labels: &'a Names) -> Draft<'a> {
        Draft {
            family,
            chain,
            place,
            counters: Counters::default(),
            basics: Basics::default(),
            srcs: Vec::new(),
            dsts: Vec::new(),
            matches: Vec::new(),
            target: None,
            seen: Vec::new(),
            other_family: false,
            labels,
        }
    }

    fn option(
        &mut self,
        word: &'a Word,
        not: Option<&Word>,
        reader: &mut Reader<'a>,
    ) -> Result<(), ParseError> {
        let (name, inline) = match word.text.strip_prefix("--") {
            Some(long) => match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            },
            None => match word.text.strip_prefix('-') {
                Some(letter) => {
                    let unknown = || word.error(format!("unknown option `{}'", word.text));
                    (long_name(letter).ok_or_else(unknown)?, None)
                }
                None => return Err(word.error(format!("bad argument `{}'", word.text))),
            },
        };
        let owner = self.owner(name, word)?;
        let (takes, invertible) = match &owner {
            Owner::Rule(option) => (option.takes, option.not),
            Owner::Match(_, option) => (option.takes, option.not),
            Owner::Target(option) => (option.takes, option.not),
        };
        if not.is_some() && !invertible {
            return Err(word.error(format!("option `{}' cannot be inverted", word.text)));
        }
        let (values, place) = reader.values(word, inline, takes)?;
        let not = not.is_some();
        let text = values.first().copied().unwrap_or("");
        match owner {
            Owner::Rule(option) => return self.own_option(option.key, not, &values, word, place),
            Owner::Match(at, option) => match self.matches.get_mut(at) {
                Some((loaded, _)) => loaded.set(&option, not, &values, (self.family, self.labels)),
                None => Ok(()),
            },
            Owner::Target(option) => match &mut self.target {
                Some((loaded, _)) => loaded.set(&option, text, self.family),
                None => Ok(()),
            },
        }
        .map_err(|fault| place.error(fault))
    }

    /// Finds whose option `name` is: whole names first, the newest match first, then beginnings.
    fn owner(&mut self, name: &str, word: &'a Word) -> Result<Owner, ParseError> {
        for whole in [true, false] {
            if let Some(owner) = self.known(name, whole, word)? {
                return Ok(owner);
            }
        }
        let implied = self.basics.proto.and_then(|p| Kind::of_protocol(p.value, self.family));
        if let Some(kind) = implied
            && !self.matches.iter().any(|(loaded, _)| loaded.kind == kind)
            && find(kind.options(), name, false).is_some()
        {
            self.matches.push((match_options::Loaded::new(kind, true), word));
            return self.owner(name, word);
        }
        Err(word.error(format!("unknown option `{}'", word.text)))
    }

    fn known(&self, name: &str, whole: bool, word: &Word) -> Result<Option<Owner>, ParseError> {
        let mut found: Vec<(Owner, &str)> = Vec::new();
        if let Some(option) = find(OWN, name, whole) {
            found.push((Owner::Rule(option), option.name));
        }
        for (at, (loaded, _)) in self.matches.iter().enumerate().rev() {
            if let Some(option) = find(loaded.kind.options(), name, whole) {
                found.push((Owner::Match(at, option), option.name));
            }
        }
        if let Some((loaded, _)) = &self.target
            && let Some(option) = find(loaded.options(), name, whole)
        {
            found.push((Owner::Target(option), option.name));
        }
        let names: Vec<&str> = found.iter().map(|(_, name)| *name).collect();
        if let [first, rest @ ..] = names.as_slice()
            && let Some(other) = rest.iter().find(|other| *other != first)
        {
            let text = format!("ambiguous option `{}': `--{first}' or `--{other}'?", word.text);
            return Err(word.error(text));
        }
        Ok(found.into_iter().next().map(|(owner, _)| owner))
    }

    fn own_option(
        &mut self,
        key: Own,
        not: bool,
        values: &[&str],
        word: &'a Word,
        place: &'a Word,
    ) -> Result<(), ParseError> {
        let alike = if key == Own::Goto { Own::Jump } else { key };
        if key != Own::Match && self.seen.contains(&alike) {
            return Err(word.error(format!("option `{}' stands twice", word.text)));
        }
        self.seen.push(alike);
        let text = values.first().copied().unwrap_or("");
        let done: Result<(), Fault> = match key {
            Own::Proto => self.proto(not, text),
            Own::Src => addresses(text, not, self.family).map(|nets| self.srcs = nets),
            Own::Dst => addresses(text, not, self.family).map(|nets| self.dsts = nets),
            Own::InPort | Own::OutPort => return self.port(key, not, text, word, place),
            Own::Fragment if self.family == Family::V6 => {
                Err("`-f' is not supported in IPv6".to_owned())
            }
            Own::Fragment => {
                self.basics.fragment = Some(Maybe { not, value: () });
                Ok(())
            }
            Own::Jump => target_options::Loaded::new(text, self.family)
                .map(|loaded| self.target = Some((loaded, place))),
            Own::Goto => {
                self.target = Some((target_options::Loaded::goto(text), place));
                Ok(())
            }
            Own::Match => self.named_match(text, place),
            Own::Counters => self.set_counters(values),
            Own::Family(family) => {
                self.other_family |= family != self.family;
                Ok(())
            }
            Own::Table => return Err(word.error("option `-t' cannot be used in a rule's text")),
        };
        done.map_err(|fault| place.error(fault))
    }

    fn proto(&mut self, not: bool, text: &str) -> Result<(), Fault> {
        match super::names::protocol(text) {
            None => Err(format!("unknown protocol `{text}'")),
            Some(0) if not => Err("rule would never match protocol".to_owned()),
            Some(0) => Ok(()),
            Some(value) => {
                self.basics.proto = Some(Maybe { not, value });
                Ok(())
            }
        }
    }

    fn port(
        &mut self,
        key: Own,
        not: bool,
        text: &str,
        word: &Word,
        place: &Word,
    ) -> Result<(), ParseError> {
        let hook = Hook::from_name(self.chain);
        let absent = match key {
            Own::InPort => matches!(hook, Some(Hook::Output | Hook::Postrouting)),
            _ => matches!(hook, Some(Hook::Input | Hook::Prerouting)),
        };
        if absent {
            return Err(word.error(format!("cannot use `{}' with {}", word.text, self.chain)));
        }
        if text.is_empty() {
            return Err(place.error("the name of a port is empty"));
        }
        if text.len() > 15 {
            return Err(place.error(format!("port name `{text}' is longer than 15 bytes")));
        }
        // The kernel's names have none of these (`dev_valid_name`), nor could they be read back.
        if text.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '/' | ':' | '!')) {
            return Err(place.error(format!("bad port name `{text}'")));
        }
        // A plain `+` holds every port and none: it asks nothing.
        let asked = (text != "+" || not).then(|| Maybe { not, value: text.to_owned() });
        match key {
            Own::InPort => self.basics.in_port = asked,
            _ => self.basics.out_port = asked,
        }
        Ok(())
    }

    fn named_match(&mut self, text: &str, place: &'a Word) -> Result<(), Fault> {
        let kind = Kind::from_name(text, self.family)
            .ok_or_else(|| format!("match `{text}' is not supported"))?;
        let implied = self.matches.iter_mut().find(|(l, _)| l.kind == kind && l.implied);
        match implied {
            Some((loaded, _)) => loaded.implied = false,
            None => self.matches.push((match_options::Loaded::new(kind, false), place)),
        }
        Ok(())
    }

    fn set_counters(&mut self, values: &[&str]) -> Result<(), Fault> {
        let count = |at: usize| {
            let text: &str = values.get(at).copied().unwrap_or("");
            text.parse().map_err(|_| format!("`{text}' is not a count"))
        };
        self.counters = Counters { packets: count(0)?, bytes: count(1)? };
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Rule>, ParseError> {
        let proto = self.basics.proto;
        let mut matches: Vec<Match> = Vec::with_capacity(self.matches.len());
        for (loaded, word) in self.matches {
            matches.push(loaded.finish(proto).map_err(|fault| word.error(fault))?);
        }
        let target = match self.target {
            None => dataplane::rules::targets::Target::None,
            Some((loaded, word)) => {
                self.place = word.place;
                loaded.finish(proto).map_err(|fault| word.error(fault))?
            }
        };
        if self.other_family {
            return Ok(Vec::new());
        }
        let rule = Rule {
            place: self.place,
            counters: self.counters,
            basics: self.basics,
            matches,
            target,
        };
        let each = |nets: Vec<Maybe<Net>>| -> Vec<Option<Maybe<Net>>> {
            if nets.is_empty() {
                return vec![None];
            }
            nets.into_iter().map(|net| Some(net).filter(|n| n.value.mask != 0)).collect()
        };
        let dsts = each(self.dsts);
        let mut rules = Vec::new();
        for src in each(self.srcs) {
            for dst in &dsts {
                let mut rule = rule.clone();
                (rule.basics.src, rule.basics.dst) = (src, *dst);
                rules.push(rule);
            }
        }
        Ok(rules)
    }
}

/// The option of that name, or the one that begins so. Two spellings of one option are one.
fn find<K: Copy + PartialEq>(options: &[Opt<K>], name: &str, whole: bool) -> Option<Opt<K>> {
    if whole {
        return options.iter().find(|option| option.name == name).copied();
    }
    let mut hits = options.iter().filter(|o| !name.is_empty() && o.name.starts_with(name));
    let first = hits.next()?;
    hits.all(|other| other.key == first.key).then_some(*first)
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
