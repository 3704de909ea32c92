//! One rule from its words.
//!
//! Words are read in order as getopt does: an option belongs to the rule itself, to a match that
//! was named, to the target, or to the match that `-p` brings along, which is then loaded at this
//! place. Names may be abbreviated where that is clear.

use dataplane::rules::hook::{Family, Hook};
use dataplane::rules::matches::{Basics, Match, Maybe, Net};
use dataplane::rules::model::{Counters, Place, Rule};
use dataplane::rules::targets::Target;

use super::ParseError;
use super::extension::{Given, Loaded, Opt, find, flag, opt, valued};
use super::extensions::{self, match_text, target_text};
use super::names;
use super::values::{self, Fault};
use super::words::Word;
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
    valued("set-counters").takes(2),
    flag("ipv4").many(),
    flag("ipv6").many(),
    valued("table"),
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
    Rule,
    Match(usize),
    Target,
}

/// What `-j` and `-g` name.
enum Chosen {
    /// One with options.
    Row(Loaded<Target>),
    /// One without.
    Plain(Target),
}

struct Draft<'a> {
    family: Family,
    chain: &'a str,
    rule: Rule,
    /// All addresses of `-s` and `-d`.
    srcs: Vec<Maybe<Net>>,
    dsts: Vec<Maybe<Net>>,
    matches: Vec<(Loaded<Match>, &'a Word)>,
    target: Option<(Chosen, &'a Word)>,
    seen: Vec<&'static Opt>,
    other_family: bool,
    labels: &'a Names,
}

impl<'a> Draft<'a> {
    fn new(family: Family, chain: &'a str, place: Place, labels: &'a Names) -> Draft<'a> {
        let rule = Rule {
            place,
            counters: Counters::default(),
            basics: Basics::default(),
            matches: Vec::new(),
            target: Target::None,
        };
        Draft {
            family,
            chain,
            rule,
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
        let (owner, option) = self.owner(name, word)?;
        if not.is_some() && !option.not {
            return Err(word.error(format!("option `{}' cannot be inverted", word.text)));
        }
        let (values, place) = reader.values(word, inline, option.takes)?;
        let (family, labels) = (self.family, self.labels);
        let not = not.is_some();
        let given = Given { name: option.name, not, values: &values, family, labels };
        match owner {
            Owner::Rule => return self.own_option(option, &given, word, place),
            Owner::Match(at) => match self.matches.get_mut(at) {
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

    /// Finds whose option `name` is: whole names first, the newest match first, then beginnings.
    fn owner(&mut self, name: &str, word: &'a Word) -> Result<(Owner, &'static Opt), ParseError> {
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
            return self.owner(name, word);
        }
        Err(word.error(format!("unknown option `{}'", word.text)))
    }

    fn known(
        &self,
        name: &str,
        whole: bool,
        word: &Word,
    ) -> Result<Option<(Owner, &'static Opt)>, ParseError> {
        let mut found: Vec<(Owner, &'static Opt)> = Vec::new();
        found.extend(find(OWN, name, whole).map(|option| (Owner::Rule, option)));
        for (at, (loaded, _)) in self.matches.iter().enumerate().rev() {
            let option = find(loaded.extension.options, name, whole);
            found.extend(option.map(|option| (Owner::Match(at), option)));
        }
        if let Some((Chosen::Row(loaded), _)) = &self.target {
            let option = find(loaded.extension.options, name, whole);
            found.extend(option.map(|option| (Owner::Target, option)));
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
        word: &'a Word,
        place: &'a Word,
    ) -> Result<(), ParseError> {
        if self.seen.iter().any(|seen| seen.clashes(option)) {
            return Err(word.error(format!("option `{}' stands twice", word.text)));
        }
        self.seen.push(option);
        let (text, not, family) = (given.text(), given.not, self.family);
        let done: Result<(), Fault> = match option.name {
            "protocol" => self.proto(not, text),
            "source" => addresses(text, not, family).map(|nets| self.srcs = nets),
            "destination" => addresses(text, not, family).map(|nets| self.dsts = nets),
            "in-interface" | "out-interface" => return self.port(given, word, place),
            "fragments" if family == Family::V6 => Err("`-f' is not supported in IPv6".to_owned()),
            "fragments" => {
                self.rule.basics.fragment = Some(given.maybe(()));
                Ok(())
            }
            "jump" => jump(text, family).map(|target| self.target = Some((target, place))),
            "goto" => {
                let target = Chosen::Plain(Target::Goto(text.to_owned()));
                self.target = Some((target, place));
                Ok(())
            }
            "match" => self.named_match(text, place),
            "set-counters" => self.set_counters(given.values),
            "ipv4" | "ipv6" => {
                let named = if option.name == "ipv4" { Family::V4 } else { Family::V6 };
                self.other_family |= named != family;
                Ok(())
            }
            _ => return Err(word.error("option `-t' cannot be used in a rule's text")),
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

    fn port(&mut self, given: &Given<'_>, word: &Word, place: &Word) -> Result<(), ParseError> {
        let (text, into) = (given.text(), given.name == "in-interface");
        let hook = Hook::from_name(self.chain);
        let absent = match into {
            true => matches!(hook, Some(Hook::Output | Hook::Postrouting)),
            false => matches!(hook, Some(Hook::Input | Hook::Prerouting)),
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
        let asked = (text != "+" || given.not).then(|| given.maybe(text.to_owned()));
        let basics = &mut self.rule.basics;
        *(if into { &mut basics.in_port } else { &mut basics.out_port }) = asked;
        Ok(())
    }

    fn named_match(&mut self, text: &str, place: &'a Word) -> Result<(), Fault> {
        let row = extensions::match_named(text, self.family)
            .ok_or_else(|| format!("match `{text}' is not supported"))?;
        let same = |loaded: &Loaded<Match>| loaded.extension.name == row.name;
        let implied = self.matches.iter_mut().find(|(l, _)| same(l) && l.implied);
        match implied {
            Some((loaded, _)) => loaded.implied = false,
            None => self.matches.push((Loaded::new(row, self.family), place)),
        }
        Ok(())
    }

    fn set_counters(&mut self, values: &[&str]) -> Result<(), Fault> {
        let count = |at: usize| {
            let text: &str = values.get(at).copied().unwrap_or("");
            text.parse().map_err(|_| format!("`{text}' is not a count"))
        };
        self.rule.counters = Counters { packets: count(0)?, bytes: count(1)? };
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Rule>, ParseError> {
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
        if self.other_family {
            return Ok(Vec::new());
        }
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
                let mut rule = self.rule.clone();
                (rule.basics.src, rule.basics.dst) = (src, *dst);
                rules.push(rule);
            }
        }
        Ok(rules)
    }
}

/// Targets without options.
const PLAIN: [(&str, Target); 4] = [
    ("ACCEPT", Target::Accept),
    ("DROP", Target::Drop),
    ("RETURN", Target::Return),
    ("NOTRACK", Target::Notrack),
];

/// The target of a word; anything that is no target's name is a chain.
fn jump(word: &str, family: Family) -> Result<Chosen, Fault> {
    if let Some((_, target)) = PLAIN.iter().find(|(name, _)| *name == word) {
        return Ok(Chosen::Plain(target.clone()));
    }
    if let Some(row) = extensions::target_named(word, family) {
        return Ok(Chosen::Row(Loaded::new(row, family)));
    }
    if names::UNSUPPORTED_TARGETS.contains(&word) {
        return Err(format!("target `{word}' is not supported"));
    }
    Ok(Chosen::Plain(Target::Jump(word.to_owned())))
}

/// True if a target has that name, which no chain may have then.
pub(super) fn is_target(word: &str) -> bool {
    let plain = PLAIN.iter().any(|(name, _)| *name == word);
    plain || extensions::is_target(word) || names::UNSUPPORTED_TARGETS.contains(&word)
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
