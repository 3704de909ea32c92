//! Mutations of the corpora by a fixed seed: a quick look on stable Rust where no fuzzer runs.
//! `FUZZ_ROUNDS` makes it longer, `FUZZ_SEED` different, `FUZZ_TARGET` names one alone.
//!
//! What is text is also cut at blanks: words of one input come into another. Rules begin with the
//! lines that are held against the tools' (`control/src/iptables/golden`), so that each match and
//! target is among them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use sluicegate_fuzz::Target;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len() + 1);
        match random.below(9) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.below(256) as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 if at < bytes.len() => drop(bytes.remove(at)),
            7 | 8 => {
                let other = &corpus[random.below(corpus.len())];
                change_word(random, &mut bytes, other);
            }
            5 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = other.len().min(from + random.below(64));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let to = bytes.len().min(at + random.below(32));
                let piece = bytes[at..to].to_vec();
                bytes.extend(piece);
            }
        }
    }
    bytes
}

/// Puts a word of `other` in the place of one, or before it.
fn change_word(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let words = |bytes: &[u8]| -> Vec<(usize, usize)> {
        let is_blank = |byte: u8| matches!(byte, b' ' | b'\n' | b',' | b':' | b'/');
        let mut words = Vec::new();
        let mut from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            if is_blank(*byte) {
                words.push((from, at));
                from = at + 1;
            }
        }
        words.push((from, bytes.len()));
        words
    };
    let (ours, theirs) = (words(bytes), words(other));
    let (from, to) = ours[random.below(ours.len())];
    let (first, last) = theirs[random.below(theirs.len())];
    let mut word = other[first..last].to_vec();
    match random.below(3) {
        0 => _ = bytes.splice(from..to, word),
        1 => {
            word.push(b' ');
            bytes.splice(from..from, word);
        }
        _ => drop(bytes.drain(from..to)),
    }
}

/// The lines of the golden files, some at a time; of files with their table.
fn golden(target: &str) -> Vec<Vec<u8>> {
    let whole = match target {
        "iptables" => true,
        "iptables_arguments" => false,
        _ => return Vec::new(),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control/src/iptables/golden");
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("golden files").flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut inputs = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).expect("text");
        let (mut table, mut lines) = ("*filter", Vec::new());
        for line in text.lines().chain(["*end"]) {
            if line.starts_with('*') || lines.len() == 6 {
                let name = table.trim_start_matches('*');
                let input: Vec<String> = match whole {
                    true => [&[table.to_owned()][..], &lines, &["COMMIT\n".to_owned()]].concat(),
                    false => lines.iter().map(|line| format!("-t {name} {line}")).collect(),
                };
                inputs.push(input.join("\n").into_bytes());
                lines.clear();
            }
            match line.strip_prefix("< ") {
                Some(rule) => lines.push(rule.to_owned()),
                None if line.starts_with('*') => table = line,
                None => {}
            }
        }
    }
    inputs
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn mutations_of_the_corpora_crash_nothing() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rounds = number("FUZZ_ROUNDS", 4000);
    let mut failed = Vec::new();
    for Target { name, run, cost } in sluicegate_fuzz::TARGETS {
        if std::env::var("FUZZ_TARGET").is_ok_and(|only| only != *name) {
            continue;
        }
        let folder = fs::read_dir(here.join("corpus").join(name)).expect("a corpus");
        let mut paths: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let mut corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
        corpus.extend(golden(name));
        let mut random = Random(number("FUZZ_SEED", 0x5eed) | 1);
        for round in 0..rounds / cost {
            let bytes = mutate(&mut random, &corpus);
            if catch_unwind(AssertUnwindSafe(|| run(&bytes))).is_err() {
                let file = std::env::temp_dir().join(format!("crash-{name}-{round}"));
                fs::write(&file, &bytes).expect("the temporary folder can be written");
                failed.push(format!("{name}: put {} into fuzz/crashes/{name}", file.display()));
                break;
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
