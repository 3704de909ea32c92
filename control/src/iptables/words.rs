//! Lines into words, as `iptables-restore` splits them: blanks separate, double quotes hold
//! together, and within quotes a backslash takes the next character as it is.

use super::{Kind, ParseError};
use dataplane::rules::model::Place;

/// One word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Its text without quotes.
    pub text: String,
    /// Where it begins.
    pub place: Place,
}

impl Word {
    /// An error about this word.
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError {
            line: self.place.line,
            column: self.place.column,
            word: self.text.clone(),
            message: message.into(),
            kind: Kind::Text,
        }
    }
}

/// Splits a line; `line` is its number.
///
/// # Errors
/// A quote that is not closed.
pub fn split(text: &str, line: u32) -> Result<Vec<Word>, ParseError> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let (mut quoted, mut escaped) = (false, false);
    for (column, c) in (1u32..).zip(text.chars()) {
        if !quoted && matches!(c, ' ' | '\t' | '\r' | '\n') {
            words.extend(word.take());
            continue;
        }
        let place = Place { line, column };
        let word = word.get_or_insert_with(|| Word { text: String::new(), place });
        match c {
            _ if escaped => {
                word.text.push(c);
                escaped = false;
            }
            '"' => quoted = !quoted,
            '\\' if quoted => escaped = true,
            _ => word.text.push(c),
        }
    }
    if let Some(open) = word.as_ref().filter(|_| quoted) {
        return Err(open.error(format!("quote not closed in `{}'", open.text)));
    }
    words.extend(word);
    Ok(words)
}

/// Words given one by one, as a command line gives them; columns count words.
pub fn from_arguments<S: AsRef<str>>(arguments: &[S]) -> Vec<Word> {
    (1u32..)
        .zip(arguments)
        .map(|(column, text)| Word {
            text: text.as_ref().to_owned(),
            place: Place { line: 1, column },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        split(line, 1).unwrap().into_iter().map(|word| word.text).collect()
    }

    #[test]
    fn quotes_hold_words_together_and_backslash_works_within_them_alone() {
        assert_eq!(texts(r#"-A  X	--comment "a b" "#), ["-A", "X", "--comment", "a b"]);
        assert_eq!(texts(r#""a \"b\" \\c""#), [r#"a "b" \c"#]);
        assert_eq!(texts(r"a\\b it's"), [r"a\\b", "it's"]);
        assert_eq!(texts(r#""" x"y z"w"#), ["", "xy zw"]);
    }

    #[test]
    fn places_count_characters_from_one() {
        let words = split("-m é  x", 7).unwrap();
        assert_eq!(words[2].place, Place { line: 7, column: 7 });
    }

    #[test]
    fn an_open_quote_is_refused_where_it_begins() {
        let error = split("-A X --comment \"abc", 3).unwrap_err();
        assert_eq!((error.line, error.column), (3, 16));
    }
}
