//! The rules of the house, as a test: what CONTRIBUTING.md asks of the sources and a machine can
//! check. Knows Rust only as far as comments, strings and braces.

#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders with Rust in them.
const SOURCES: &[&str] = &["build.rs", "control", "dataplane", "dpdk-bindings", "perf", "tests"];

/// Where unsafe code may be: what knows C, and what knows the machine.
const UNSAFE: &[&str] = &["dpdk-bindings/", "dataplane/src/arch/"];

/// The only files that know DPDK; the last two benchmark its hash table and send by its ports.
const DPDK: &[&str] = &[
    "dpdk-bindings/",
    "dataplane/src/lcore/dpdk_io.rs",
    "control/src/launch.rs",
    "perf/src/inprocess/peer.rs",
    "perf/src/latency/generator.rs",
];

/// The dataplane's modules from the bottom up: each knows those before it and itself.
const LAYERS: &[&str] = &["arch", "wire", "time", "conntrack", "nat", "rules", "pipeline", "lcore"];

/// What a packet's way must not meet below `lcore`: clocks, locks, the system.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Condvar",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    " log::",
    "(log::",
];

/// What stops the process or prints.
const LOUD: &[&str] = &[
    ".unwrap()",
    ".expect(",
    "panic!",
    "unreachable!",
    "println!",
    "eprintln!",
    "print!",
    "process::exit",
];

/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["session", "flow", "context", "manager", "util", "utils", "common", "misc", "data", "info"];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// A source file.
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
    /// The text with comments and the content of strings blanked out; the lines are the same.
    code: String,
    /// For each line, whether it is test code.
    test: Vec<bool>,
}

impl Source {
    fn under(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Numbered lines of code that are not tests.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.lines().enumerate().filter(|(at, _)| !self.test[*at]);
        lines.map(|(at, line)| (at + 1, line))
    }

    /// The dataplane's module this belongs to.
    fn layer(&self) -> Option<usize> {
        let inner = self.path.strip_prefix("dataplane/src/")?;
        let name = inner.split('/').next()?.trim_end_matches(".rs");
        LAYERS.iter().position(|layer| *layer == name)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `path` that is not the product of a build.
fn walk(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_file() {
        found.push(path.to_owned());
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    let mut entries: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if !matches!(name.as_str(), "target" | ".git" | "out" | "corpus" | "artifacts") {
            walk(&entry, found);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    SOURCES.iter().for_each(|place| walk(&root().join(place), &mut files));
    files.retain(|file| file.extension().is_some_and(|e| e == "rs"));
    let mut test_files = BTreeSet::new();
    let mut sources = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = blank(&text);
        let path = relative(&file);
        for name in test_modules(&code) {
            let parent = match path.rsplit_once('/') {
                Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder.to_owned(),
                _ => path.trim_end_matches(".rs").to_owned(),
            };
            test_files.insert(format!("{parent}/{name}.rs"));
        }
        let test = test_lines(&code);
        sources.push(Source { path, text, code, test });
    }
    for source in &mut sources {
        let of_tests = source.path.starts_with("tests/") || source.path.contains("/tests/");
        if of_tests || test_files.contains(&source.path) {
            source.test.fill(true);
        }
    }
    sources
}

/// Names of the files that `#[cfg(test)] mod name;` brings in.
fn test_modules(code: &str) -> Vec<String> {
    let after = code.split("#[cfg(test)]").skip(1);
    let declared = after.filter_map(|rest| {
        let (head, _) = rest.split_once(';')?;
        let mut words = head.split_whitespace().filter(|word| !word.starts_with("pub"));
        (words.next()? == "mod").then(|| words.next().map(str::to_owned))?
    });
    declared.filter(|name| !name.contains('{')).collect()
}

/// Which lines belong to items marked `#[cfg(test)]`.
fn test_lines(code: &str) -> Vec<bool> {
    let lines: Vec<&str> = code.lines().collect();
    let mut test = vec![false; lines.len()];
    for (at, line) in lines.iter().enumerate() {
        if line.trim() == "#[cfg(test)]" {
            let end = item_end(&lines, at + 1);
            test[at..=end].fill(true);
        }
    }
    test
}

/// The last line of the item that starts at `start`: where its braces are closed, or its semicolon.
fn item_end(lines: &[&str], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut opened = false;
    for (at, line) in lines.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '{' => (depth, opened) = (depth + 1, true),
                '}' => depth = depth.saturating_sub(1),
                ';' if !opened => return at,
                _ => {}
            }
        }
        if opened && depth == 0 {
            return at;
        }
    }
    lines.len() - 1
}

/// Blanks comments and the content of strings and character literals.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        let keep = end == at + 1;
        let shown = |c: char| if keep || c == '\n' { c } else { ' ' };
        out.extend(chars[at..end].iter().map(|&c| shown(c)));
        at = end;
    }
    out
}

/// Where the comment, string or character that starts at `at` ends; `at + 1` if none does.
fn token_end(chars: &[char], at: usize) -> usize {
    let next = |by: usize| chars.get(at + by).copied().unwrap_or(' ');
    let find = |from: usize, pattern: &str| {
        let wanted: Vec<char> = pattern.chars().collect();
        let place = (from..chars.len()).find(|&i| chars[i..].starts_with(&wanted));
        place.map_or(chars.len(), |i| i + wanted.len())
    };
    match chars[at] {
        '/' if next(1) == '/' => find(at, "\n") - 1,
        '/' if next(1) == '*' => find(at, "*/"),
        'r' if at == 0 || !chars[at - 1].is_alphanumeric() && chars[at - 1] != '_' => {
            let hashes = (1..).take_while(|&i| next(i) == '#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            if next(hashes + 1) == '"' { find(at + hashes + 2, &close) } else { at + 1 }
        }
        '"' => {
            let mut i = at + 1;
            while i < chars.len() && chars[i] != '"' {
                i += if chars[i] == '\\' { 2 } else { 1 };
            }
            (i + 1).min(chars.len())
        }
        '\'' if next(1) == '\\' => find(at + 3, "'"),
        '\'' if next(2) == '\'' => at + 3,
        _ => at + 1,
    }
}

/// True if `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Functions as (first line, number of lines).
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = source.code.lines().collect();
    let begins = lines.iter().enumerate().filter(|(_, line)| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let before = words.iter().position(|word| *word == "fn");
        before.is_some_and(|at| {
            let modifier = |w: &&str| w.starts_with("pub") || matches!(*w, "const" | "unsafe");
            words[..at].iter().all(modifier)
        })
    });
    begins.map(|(at, _)| (at + 1, item_end(&lines, at) - at + 1)).collect()
}

/// Fails with everything that was found.
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{} found:\n{}", found.len(), found.join("\n"));
}

/// Places in non-test code for which `bad` says what is wrong.
fn places(of: impl Fn(&Source) -> bool, bad: impl Fn(&Source, &str) -> Option<String>) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| of(source)) {
        for (number, line) in source.lines() {
            if let Some(what) = bad(source, line) {
                found.push(format!("{}:{number}: {what}", source.path));
            }
        }
    }
    none(found);
}

#[test]
fn unsafe_code_stays_where_it_is_allowed() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !source.under(UNSAFE)) {
        for (number, line) in source.code.lines().enumerate() {
            if has_word(line, "unsafe") {
                found.push(format!("{}:{}: unsafe", source.path, number + 1));
            }
        }
    }
    none(found);
}

#[test]
fn dpdk_is_known_in_two_places() {
    places(
        |source| !source.under(DPDK) && !source.under(&["tests/"]),
        |_, line| has_word(line, "dpdk_bindings").then(|| "names dpdk_bindings".to_owned()),
    );
}

#[test]
fn arrows_point_downwards() {
    places(
        |source| source.layer().is_some(),
        |source, line| {
            let own = source.layer()?;
            let above = LAYERS[own + 1..].iter().find(|layer| {
                let path = format!("crate::{layer}");
                has_word(line, &path)
            })?;
            Some(format!("{} knows {above}", LAYERS[own]))
        },
    );
}

#[test]
fn every_module_of_the_dataplane_has_a_layer() {
    let placed = |source: &Source| source.layer().is_some() || source.path.ends_with("src/lib.rs");
    let sources = sources();
    let own = sources.iter().filter(|source| source.path.starts_with("dataplane/src/"));
    none(own.filter(|source| !placed(source)).map(|source| source.path.clone()).collect());
}

#[test]
fn below_lcore_there_is_no_clock_lock_or_system() {
    let lcore = LAYERS.len() - 1;
    places(
        |source| source.layer().is_some_and(|layer| layer < lcore),
        |_, line| {
            IMPURE.iter().find(|word| line.contains(*word)).map(|word| format!("uses {word}"))
        },
    );
}

#[test]
fn the_dataplane_neither_panics_nor_prints() {
    places(
        |source| source.path.starts_with("dataplane/src/"),
        |_, line| LOUD.iter().find(|word| line.contains(*word)).map(|word| format!("has {word}")),
    );
}

#[test]
fn files_functions_and_lines_are_short() {
    let mut found = Vec::new();
    for source in sources() {
        let path = &source.path;
        let lines = source.test.iter().filter(|test| !**test).count();
        if lines > FILE_LINES_MAX {
            found.push(format!("{path}: {lines} lines without tests"));
        }
        for (at, length) in functions(&source) {
            if length > FUNCTION_LINES_MAX {
                found.push(format!("{path}:{at}: a function of {length} lines"));
            }
        }
        for (at, line) in source.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX && !is_long_word(line) {
                found.push(format!("{path}:{}: {columns} columns", at + 1));
            }
        }
    }
    none(found);
}

/// True if most of the line is one string or address, which cannot be broken sensibly.
fn is_long_word(line: &str) -> bool {
    if line.ends_with('\\') {
        return true;
    }
    let strings = line.split('"').skip(1).step_by(2);
    strings.chain(line.split_whitespace()).any(|part| part.len() > COLUMNS_MAX / 2)
}

#[test]
fn every_file_opens_with_its_essay() {
    let sources = sources();
    let silent = sources.iter().filter(|source| !source.text.starts_with("//!"));
    none(silent.map(|source| source.path.clone()).collect());
}

#[test]
fn names_say_something() {
    let sources = sources();
    let empty = sources.iter().filter(|source| {
        let mut parts = source.path.trim_end_matches(".rs").split('/');
        parts.any(|part| EMPTY_NAMES.contains(&part))
    });
    none(empty.map(|source| source.path.clone()).collect());
}

#[test]
fn nothing_is_left_for_later_or_of_one_machine() {
    let later = ["TO", "FIX"].map(|half| half.to_owned() + if half == "TO" { "DO" } else { "ME" });
    let homes = ["home", "root", "work", "Users"].map(|name| format!("/{name}/"));
    let mut files = Vec::new();
    walk(&root(), &mut files);
    let mut found = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for (at, line) in text.lines().enumerate() {
            let word = later.iter().find(|word| has_word(line, word));
            if let Some(word) = word.or_else(|| homes.iter().find(|home| starts_path(line, home))) {
                found.push(format!("{}:{}: {word}", relative(&file), at + 1));
            }
        }
    }
    none(found);
}

/// True if an absolute path in `line` begins with `home`.
fn starts_path(line: &str, home: &str) -> bool {
    line.match_indices(home).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| " \"'`(=:,".contains(c))
    })
}

#[test]
fn this_test_reads_rust_as_it_should() {
    let text = "let a = \"{ // no\"; // fn {\nlet b = '\"'; let c = r#\"}\"#; x<'a>('\\'');\n";
    let code = blank(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!code.contains(['{', '}', '"']), "{code}");
    assert!(code.contains("let b = ") && code.contains("x<'a>("), "{code}");
    let lines = ["#[cfg(test)]", "mod t {", "fn f() { }", "}", "fn g() {", "}"];
    let expected = [true, true, true, true, false, false];
    assert_eq!(test_lines(&lines.join("\n")), expected);
    assert_eq!(item_end(&lines, 4), 5);
    assert_eq!(
        test_modules("#[cfg(test)]\npub(crate) mod golden;\n#[cfg(test)]\nmod t {\n"),
        ["golden"]
    );
    assert!(has_word("a unsafe {", "unsafe") && !has_word("(unsafe_code)", "unsafe"));
    assert!(starts_path("cd /x/y", "/x/") && !starts_path("a/x/y", "/x/"));
    let code = "impl A {\n  pub fn f(\n    a: u8,\n  ) {\n    b();\n  }\n  fn g<T>() {}\n}\n";
    let source = |code: &str| Source {
        path: String::new(),
        text: String::new(),
        code: code.to_owned(),
        test: Vec::new(),
    };
    assert_eq!(functions(&source(code)), [(2, 5), (7, 1)]);
    assert_eq!(functions(&source("type F = fn(u8);\nwhere\n  F: Fn(u8),\n{}\n")), []);
}
