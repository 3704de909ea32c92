//! Documents and code say the same: drop reasons, configuration keys, crates, links.

#![forbid(unsafe_code)]
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use dataplane::conntrack::invalid::InvalidReason;
use dataplane::pipeline::drops::DropReason;
use sluicegate::tools::sysctl;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// What stands between backquotes in `text`.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Name, meaning and the rest of each row of a page's table of names.
fn rows(path: &str) -> Vec<[String; 3]> {
    let text = read(path);
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').splitn(3, '|').map(str::trim).collect();
        let [name, meaning, rest] = cells[..] else { panic!("{path}: {line}") };
        [name.trim_matches('`'), meaning, rest].map(str::to_owned)
    });
    rows.collect()
}

#[test]
fn every_drop_reason_has_its_row_in_order() {
    let rows = rows("docs/drop-reasons.md");
    let names: Vec<&str> = rows.iter().map(|[name, ..]| name.as_str()).collect();
    let reasons: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names, reasons);
    for ([_, meaning, rest], reason) in rows.iter().zip(DropReason::ALL) {
        assert_eq!(meaning, reason.text(), "meaning of {}", reason.name());
        assert!(rest.ends_with('.'), "{}: what to do?", reason.name());
    }
}

#[test]
fn every_invalid_reason_has_its_row_in_order() {
    let rows = rows("docs/invalid-reasons.md");
    let names: Vec<&str> = rows.iter().map(|[name, ..]| name.as_str()).collect();
    let reasons: Vec<&str> = InvalidReason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names, reasons);
    for ([_, meaning, rest], reason) in rows.iter().zip(InvalidReason::ALL) {
        assert_eq!(meaning, reason.text(), "meaning of {}", reason.name());
        let silent = rest.ends_with("Not logged.");
        assert_eq!(silent, reason.is_silent(), "{}", reason.name());
    }
}

/// Each sysctl has a row that names a test, and the test is there.
#[test]
fn every_sysctl_has_a_row_and_a_test() {
    let rows = rows("docs/sysctls.md");
    let names: Vec<&str> = rows.iter().map(|[name, ..]| name.as_str()).collect();
    let keys: Vec<String> = sysctl::keys().map(|key| key.name).collect();
    assert_eq!(names, keys);
    let tests: BTreeSet<String> = sources().iter().flat_map(|source| named_tests(source)).collect();
    for [name, effect, test] in &rows {
        assert!(!effect.is_empty() && tests.contains(test.trim_matches('`')), "{name}: {test}");
    }
}

/// Keys of the commented reference, with `key = value` or `# key = value` lines.
#[test]
fn every_key_of_the_reference_is_explained() {
    let text = read("docs/configuration.md");
    let explained: BTreeSet<&str> = quoted(&text).collect();
    let reference = read("configs/reference.toml");
    let keys = reference.lines().filter_map(|line| {
        let (key, _) = line.trim_start_matches("# ").split_once(" = ")?;
        key.chars().all(|c| c.is_ascii_lowercase() || c == '_').then_some(key)
    });
    let missing: Vec<&str> = keys.filter(|key| !explained.contains(key)).collect();
    assert!(missing.is_empty(), "not in docs/configuration.md: {missing:?}");
}

#[test]
fn every_crate_has_its_reason() {
    let text = read("docs/dependencies.md");
    let explained: BTreeSet<&str> = quoted(&text).collect();
    let mut used = BTreeSet::new();
    let mut manifests = vec!["Cargo.toml".to_owned()];
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path().join("Cargo.toml");
        if let Ok(inner) = path.strip_prefix(root())
            && path.is_file()
        {
            manifests.push(inner.to_string_lossy().into_owned());
        }
    }
    for manifest in manifests {
        let mut listing = false;
        for line in read(&manifest).lines() {
            if line.starts_with('[') {
                listing = line.ends_with("dependencies]");
            } else if listing && let Some((name, what)) = line.split_once('=') {
                let name = name.trim().trim_end_matches(".workspace");
                if !what.contains("path =") {
                    used.insert(name.to_owned());
                }
            }
        }
    }
    assert!(used.len() >= 10, "{used:?}");
    let missing: Vec<&String> = used.iter().filter(|n| !explained.contains(n.as_str())).collect();
    assert!(missing.is_empty(), "not in docs/dependencies.md: {missing:?}");
}

/// Each numbered sentence has a test of its number, and each such test a sentence.
#[test]
fn every_number_of_the_semantics_has_its_test() {
    let text = read("docs/semantics.md");
    let sentences: BTreeSet<u32> = text
        .lines()
        .filter_map(|line| line.strip_prefix("**S")?.split_once(".**")?.0.parse().ok())
        .collect();
    // Those between are left to translation, expectations and rules.
    let wanted = (1..=49).chain(73..=81);
    let missing: Vec<u32> = wanted.filter(|number| !sentences.contains(number)).collect();
    assert!(missing.is_empty(), "no sentence S{missing:?}");
    let names = sources().into_iter().flat_map(|source| named_tests(&source).collect::<Vec<_>>());
    let tests = names.filter_map(|name| name.strip_prefix('s')?.split_once('_')?.0.parse().ok());
    let tests: BTreeSet<u32> = tests.collect();
    assert_eq!(sentences, tests, "numbers with a sentence, numbers with a test");
}

/// Every source of Rust with tests in it.
fn sources() -> Vec<String> {
    let mut sources = Vec::new();
    let mut folders = ["dataplane", "control", "tests"].map(|name| root().join(name)).to_vec();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                sources.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

/// The names of a source's tests.
fn named_tests(source: &str) -> impl Iterator<Item = String> {
    let lines = source.lines().zip(source.lines().skip(1));
    let tests = lines.filter(|(before, _)| before.trim() == "#[test]").map(|(_, line)| line.trim());
    tests.filter_map(|line| Some(line.strip_prefix("fn ")?.split_once('(')?.0.to_owned()))
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    let folders = ["", "docs", "docs/adr", "perf"];
    for folder in folders {
        let Ok(entries) = fs::read_dir(root().join(folder)) else { continue };
        let files = entries.map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|e| e == "md")) {
            let text = fs::read_to_string(&file).unwrap();
            for target in links(&text) {
                let path = file.parent().unwrap_or(Path::new("")).join(target);
                if !path.exists() {
                    broken.push(format!("{}: {target}", file.display()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Targets of links to files.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains("://"))
}
