//! `iptables` and `ip6tables`: command lines on a ruleset, with the answers and exit codes of
//! iptables 1.8.9 (nf_tables).
//!
//! Nothing here knows packets or workers: whoever calls has brought the counters up to date, gives
//! a copy of the rules, and puts it in force as far as [`Effect`] says that it changed.

use dataplane::rules::check;
use dataplane::rules::hook::{Family, Table};
use dataplane::rules::model::{Counters, Ruleset};

use super::Answer;
use crate::iptables::line::From;
use crate::iptables::words::{Word, from_arguments};
use crate::iptables::{self, Asked, Effect, Given, Kind, ParseError, Read};
use crate::labels::Names;

/// The version of iptables that is followed.
pub const VERSION: &str = "v1.8.9 (nf_tables)";

const USAGE: &str = "\
Usage:
  NAME [-t TABLE] -A|-C CHAIN RULE            append a rule; look whether it is there
  NAME [-t TABLE] -I CHAIN [NUMBER] RULE      insert a rule, first unless a number says where
  NAME [-t TABLE] -R CHAIN NUMBER RULE        replace a rule
  NAME [-t TABLE] -D CHAIN RULE|NUMBER        delete a rule
  NAME [-t TABLE] -L|-S [CHAIN [NUMBER]]      list rules; print them as they are written
  NAME [-t TABLE] -Z [CHAIN [NUMBER]]         set counters back to zero; also beside -L and -S
  NAME [-t TABLE] -F|-X [CHAIN]               empty chains; delete user chains
  NAME [-t TABLE] -N CHAIN                    make a user chain
  NAME [-t TABLE] -E CHAIN NEW                give it another name
  NAME [-t TABLE] -P CHAIN ACCEPT|DROP        set a base chain's policy

Commands (one of them):
  --append -A   --check -C   --insert -I   --replace -R   --delete -D   --list -L   --list-rules -S
  --zero -Z   --flush -F   --delete-chain -X   --new-chain -N   --rename-chain -E   --policy -P

Rules ([!] negates):
  [!] -p, --protocol NAME|NUMBER      [!] -s, --source ADDRESS[/MASK][,...]
  [!] -i, --in-interface PORT[+]      [!] -d, --destination ADDRESS[/MASK][,...]
  [!] -o, --out-interface PORT[+]     [!] -f, --fragments (IPv4)
  -m, --match NAME and its options    -j, --jump TARGET and its options
  -c, --set-counters PACKETS BYTES    -g, --goto CHAIN

How to show it:
  -n, --numeric   -v, --verbose   -x, --exact   --line-numbers

  -t, --table raw|mangle|nat|filter (filter if it is not named)
  -w, --wait [SECONDS]   -W, --wait-interval N   -M, --modprobe COMMAND   taken, nothing to do here
  -4, --ipv4   -6, --ipv6   -h, --help   -V, --version
";

/// Runs a command line on `ruleset`, whose family says which tool it is. The ruleset changes only
/// if the answer's exit code is 0; `names` are those that labels have.
pub fn run(argv: &[String], ruleset: &mut Ruleset, names: &Names) -> (Answer, Effect) {
    let tool = ruleset.family.tool();
    let words = from_arguments(argv);
    let mut out = String::new();
    let done =
        read(&words, ruleset.family, names).and_then(|read| obey(read, ruleset, names, &mut out));
    match done {
        Ok(effect) => (Answer::text(out), effect),
        Err(error) => (Answer { out, ..fault(tool, &error) }, Effect::Nothing),
    }
}

/// What became of the reading.
enum Wanted<'a> {
    Text(String),
    Line(Table, Box<Asked<'a>>),
}

fn read<'a>(words: &'a [Word], family: Family, names: &'a Names) -> Result<Wanted<'a>, ParseError> {
    let tool = family.tool();
    let asked = match iptables::line(words, family, From::CommandLine, names)? {
        Read::Help => return Ok(Wanted::Text(format!("{tool} {VERSION}\n\n{}", usage(tool)))),
        Read::Version => return Ok(Wanted::Text(format!("{tool} {VERSION}\n"))),
        Read::OtherFamily(word) => {
            return Err(word.error(format!("`{}' is not for {tool}", word.text)));
        }
        Read::Line(asked) => asked,
    };
    let named = asked.table.as_ref();
    let table = match named.map(|word| (word, Table::from_name(&word.text))) {
        None => Table::Filter,
        Some((_, Some(table))) => table,
        Some((word, None)) => {
            return Err(word.error(iptables::table_sentence(&word.text)).of(Kind::Table));
        }
    };
    Ok(Wanted::Line(table, asked))
}

fn obey(
    wanted: Wanted<'_>,
    ruleset: &mut Ruleset,
    names: &Names,
    out: &mut String,
) -> Result<Effect, ParseError> {
    let (table, asked) = match wanted {
        Wanted::Text(text) => {
            out.push_str(&text);
            return Ok(Effect::Nothing);
        }
        Wanted::Line(table, asked) => (table, asked),
    };
    let mut edited = ruleset.clone();
    let given = Given { counters: Counters::default(), names, verbose: false };
    let effect = iptables::obey(&mut edited, table, &asked, given, out)?;
    if effect == Effect::Rules {
        check::check(&edited)?;
    }
    if effect > Effect::Nothing {
        *ruleset = edited;
    }
    Ok(effect)
}

/// What to answer to a line that failed.
pub fn fault(tool: &str, error: &ParseError) -> Answer {
    let message = error.kind.sentence().unwrap_or_else(|| error.message.clone());
    Answer::failure(error.kind.exit(), format_args!("{tool}: {message}"))
}

fn usage(tool: &str) -> String {
    USAGE.replace("NAME", tool)
}

#[cfg(test)]
#[path = "iptables_tests.rs"]
mod tests;
