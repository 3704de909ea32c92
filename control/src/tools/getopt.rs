//! Command lines in the manner of getopt_long(3): clusters, `--name=value`, unique abbreviations.
//!
//! The tools this serves differ in what they accept and not in how they read it, so this part is
//! one iterator over a table. Which options exist may change while reading: `conntrack -p tcp` adds
//! TCP's options from there on, hence the table is an argument of each step.

/// Whether an option takes an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None.
    Nothing,
    /// The rest of the word or the next word.
    Argument,
    /// The next word if it does not begin with `-`.
    Optional,
}

/// One option: its key, its short letter if it has one, its long names.
#[derive(Clone, Copy, Debug)]
pub struct Opt<K> {
    /// What it means to the tool.
    pub key: K,
    /// The letter after a single dash.
    pub short: Option<char>,
    /// The names after two dashes; the first is the one that messages use.
    pub long: &'static [&'static str],
    /// Its argument.
    pub takes: Takes,
}

/// One thing found on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word<'a, K> {
    /// An option with its argument.
    Option(K, Option<&'a str>),
    /// Anything else.
    Operand(&'a str),
}

/// Why a word could not be read; the text is the word as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// No such option, or an ambiguous abbreviation.
    Unknown(String),
    /// The argument is missing.
    NeedsArgument(String),
}

/// A position on a command line.
pub struct Reader<'a> {
    argv: &'a [String],
    next: usize,
    cluster: &'a str,
    only_operands: bool,
}

impl<'a> Reader<'a> {
    /// Before the first word.
    pub fn new(argv: &'a [String]) -> Reader<'a> {
        Reader { argv, next: 0, cluster: "", only_operands: false }
    }

    /// The next option or operand, read with `options`; `None` at the end.
    pub fn step<K: Copy>(&mut self, options: &[Opt<K>]) -> Option<Result<Word<'a, K>, Unreadable>> {
        if !self.cluster.is_empty() {
            return Some(self.short(options));
        }
        let word = self.take()?;
        if self.only_operands || word == "-" || !word.starts_with('-') {
            return Some(Ok(Word::Operand(word)));
        }
        if word == "--" {
            self.only_operands = true;
            return self.step(options);
        }
        match word.strip_prefix("--") {
            Some(name) => Some(self.long(name, word, options)),
            None => {
                self.cluster = &word[1..];
                Some(self.short(options))
            }
        }
    }

    /// The next word if there is one that is no option: how tools take optional arguments.
    pub fn operand(&mut self) -> Option<&'a str> {
        let word = self.argv.get(self.next)?;
        if self.cluster.is_empty() && !word.starts_with('-') { self.take() } else { None }
    }

    fn take(&mut self) -> Option<&'a str> {
        let word = self.argv.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    fn short<K: Copy>(&mut self, options: &[Opt<K>]) -> Result<Word<'a, K>, Unreadable> {
        let mut letters = self.cluster.chars();
        let letter = letters.next().unwrap_or('-');
        let rest = letters.as_str();
        let Some(option) = options.iter().find(|o| o.short == Some(letter)) else {
            return Err(Unreadable::Unknown(format!("-{letter}")));
        };
        self.cluster = if option.takes == Takes::Nothing { rest } else { "" };
        let argument = match option.takes {
            Takes::Nothing => None,
            _ if !rest.is_empty() => Some(rest),
            Takes::Optional => self.operand(),
            Takes::Argument => {
                let missing = || Unreadable::NeedsArgument(format!("-{letter}"));
                Some(self.take().ok_or_else(missing)?)
            }
        };
        Ok(Word::Option(option.key, argument))
    }

    fn long<K: Copy>(
        &mut self,
        name: &'a str,
        word: &'a str,
        options: &[Opt<K>],
    ) -> Result<Word<'a, K>, Unreadable> {
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let unknown = || Unreadable::Unknown(word.split('=').next().unwrap_or(word).to_owned());
        let option = find_long(name, options).ok_or_else(unknown)?;
        let argument = match option.takes {
            Takes::Nothing if value.is_some() => return Err(unknown()),
            Takes::Nothing => None,
            _ if value.is_some() => value,
            Takes::Optional => self.operand(),
            Takes::Argument => {
                let missing = || Unreadable::NeedsArgument(word.to_owned());
                Some(self.take().ok_or_else(missing)?)
            }
        };
        Ok(Word::Option(option.key, argument))
    }
}

/// The option of that name, or the only option one of whose names begins like that.
fn find_long<'o, K>(name: &str, options: &'o [Opt<K>]) -> Option<&'o Opt<K>> {
    if let Some(exact) = options.iter().find(|o| o.long.contains(&name)) {
        return Some(exact);
    }
    let mut fitting = options.iter().filter(|o| o.long.iter().any(|l| l.starts_with(name)));
    let first = fitting.next()?;
    if fitting.next().is_some() { None } else { Some(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &[Opt<u8>] = &[
        Opt { key: 1, short: Some('a'), long: &["all"], takes: Takes::Nothing },
        Opt { key: 2, short: Some('s'), long: &["src", "orig-src"], takes: Takes::Argument },
        Opt { key: 3, short: Some('n'), long: &["src-nat"], takes: Takes::Optional },
    ];

    fn read(line: &str) -> Result<Vec<Word<'static, u8>>, Unreadable> {
        let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let argv: &'static [String] = argv.leak();
        let mut reader = Reader::new(argv);
        let mut words = Vec::new();
        while let Some(word) = reader.step(OPTIONS) {
            words.push(word?);
        }
        Ok(words)
    }

    #[test]
    fn all_ways_to_write_an_option() {
        let src = |x| Word::Option(2, Some(x));
        for line in ["-s 1", "-s1", "--src 1", "--src=1", "--orig 1"] {
            assert_eq!(read(line).unwrap(), [src("1")], "{line}");
        }
        assert_eq!(read("-as 1").unwrap(), [Word::Option(1, None), src("1")]);
        assert_eq!(read("-n -a").unwrap(), [Word::Option(3, None), Word::Option(1, None)]);
        assert_eq!(read("-n 1 x").unwrap(), [Word::Option(3, Some("1")), Word::Operand("x")]);
        assert_eq!(read("-- -a").unwrap(), [Word::Operand("-a")]);
        assert_eq!(read("-s -a").unwrap(), [src("-a")]);
    }

    #[test]
    fn what_cannot_be_read() {
        let unknown = |x: &str| Err(Unreadable::Unknown(x.to_owned()));
        assert_eq!(read("-x"), unknown("-x"));
        assert_eq!(read("--nope=3"), unknown("--nope"));
        assert_eq!(read("--s 1"), unknown("--s"));
        assert_eq!(read("--all=1"), unknown("--all"));
        assert_eq!(read("--src"), Err(Unreadable::NeedsArgument("--src".to_owned())));
        assert_eq!(read("-as"), Err(Unreadable::NeedsArgument("-s".to_owned())));
    }
}
