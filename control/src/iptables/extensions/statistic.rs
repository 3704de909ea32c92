//! `-m statistic`.

use dataplane::rules::matches::statistic::{Nth, Statistic};
use dataplane::rules::matches::{Match, Maybe};

use super::super::extension::{Extension, Given, Text, Whole, opt, valued};
use super::super::print::Line;
use super::super::values::{self, Fault};

pub(super) const STATISTIC: Extension<Match> = Extension {
    name: "statistic",
    alias: "",
    family: None,
    protos: &[],
    implied: false,
    options: &[
        valued("mode").must(),
        opt("probability").group(1),
        opt("every"),
        valued("packet").group(1),
    ],
    begin: |_| Match::Statistic(Draft::BEGIN),
};

/// Where options begin: none of them was given.
struct Draft;

impl Draft {
    const BEGIN: Statistic = Statistic::Random(Maybe::is(0));
}

/// The chance of 2^31, as near as it can be.
fn chance(text: &str) -> Result<u32, Fault> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-'));
    let number = text.parse::<f64>().ok().filter(|number| plain && (0.0..=1.0).contains(number));
    let number = number.ok_or_else(|| format!("`{text}' is not a probability from 0 to 1"))?;
    Ok((number * f64::from(Statistic::CERTAIN)).round() as u32)
}

impl Text for Statistic {
    fn set(&mut self, given: &Given<'_>) -> Result<(), Fault> {
        let text = given.text();
        match given.name {
            "mode" => match text {
                "random" => {}
                "nth" if !matches!(self, Statistic::Nth(_)) => {
                    *self = Statistic::Nth(Nth::new(Maybe::is(1), 0));
                }
                "nth" => {}
                _ => return Err(format!("bad mode `{text}'")),
            },
            "probability" => *self = Statistic::Random(given.maybe(chance(text)?)),
            name => {
                let (mut every, mut packet) = match self {
                    Statistic::Nth(nth) => (nth.every, nth.packet),
                    Statistic::Random(_) => (Maybe::is(1), 0),
                };
                let number = values::number(text)?;
                match name {
                    "every" if number == 0 => return Err("`0' is not a number from 1".to_owned()),
                    "every" => every = given.maybe(number),
                    _ => packet = number,
                }
                *self = Statistic::Nth(Nth::new(every, packet));
            }
        }
        Ok(())
    }

    fn finish(&mut self, whole: &Whole<'_>) -> Result<(), Fault> {
        let seen = |name| whole.seen.contains(&name);
        let fault = match self {
            Statistic::Random(_) if seen("probability") && !seen("every") => return Ok(()),
            Statistic::Nth(nth) if seen("every") && seen("packet") => {
                if nth.packet < nth.every.value {
                    return Ok(());
                }
                "statistic: `--packet' has to be below `--every'"
            }
            Statistic::Nth(_) => "statistic: mode nth needs `--every' and `--packet'",
            Statistic::Random(_) => "statistic: mode random needs `--probability' alone",
        };
        Err(fault.to_owned())
    }

    fn save(&self, out: &mut Line<'_>) {
        self.each(out, "--");
    }

    fn list(&self, out: &mut Line<'_>) {
        out.word("statistic");
        self.each(out, "");
    }
}

/// What `save` and `list` have in common.
trait Each {
    fn each(&self, out: &mut Line<'_>, dashes: &str);
}

impl Each for Statistic {
    fn each(&self, out: &mut Line<'_>, dashes: &str) {
        match self {
            Statistic::Random(asked) => {
                out.word(&format!("{dashes}mode random"));
                out.maybe(&format!("{dashes}probability"), Some(*asked), |chance| {
                    format!("{:.11}", f64::from(chance) / f64::from(Statistic::CERTAIN))
                });
            }
            Statistic::Nth(nth) => {
                out.word(&format!("{dashes}mode nth"));
                let every = Some(nth.every);
                out.maybe(&format!("{dashes}every"), every, |every| every.to_string());
                out.option(&format!("{dashes}packet"), &nth.packet.to_string());
            }
        }
    }
}
