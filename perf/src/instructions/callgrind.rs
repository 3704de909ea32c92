//! Callgrind: how a program is started under it, told to count, and what its files say.
//!
//! A program is driven while it runs: [`zero`] forgets what was counted until now, [`dump`] writes
//! a file per thread with what was counted since. What lies between the two is the packet path
//! alone: no start, no first packets, no end. A file also says how often a function was called by
//! which other one, so the packets are counted in the same instant as the instructions.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{Failure, run};

/// The command that talks to a program under valgrind; it comes with it.
const TALK: &str = "vgdb";
/// In the names of the files that the first [`dump`] writes, behind the one that was asked for.
const FIRST_DUMP: &str = ".1-";

/// What a thread executed since counting began.
#[derive(Debug, Default)]
pub(super) struct Costs {
    /// Instructions by function, in the function itself.
    pub(super) functions: BTreeMap<String, u64>,
    /// How often a function was called, by whomever.
    pub(super) calls: BTreeMap<String, u64>,
}

impl Costs {
    /// Instructions of all functions.
    pub(super) fn total(&self) -> u64 {
        self.functions.values().sum()
    }
}

/// Refuses a machine without valgrind.
pub(super) fn check() -> Result<(), Failure> {
    let found = run(Command::new("valgrind").arg("--version"));
    found.and(run(Command::new(TALK).arg("--help"))).map(drop).map_err(|_| Failure::Missing {
        what: "valgrind".to_owned(),
        cure: "apt-get install valgrind".to_owned(),
    })
}

/// The words before a program's own that have callgrind count each of its threads; what it finds
/// goes to files whose names begin with `counts`. Threads take turns, or one that polls would let
/// no other one run.
pub(crate) fn words(counts: &Path) -> [String; 5] {
    let file = format!("--callgrind-out-file={}", counts.display());
    let words = ["valgrind", "--tool=callgrind", "--separate-threads=yes", "--fair-sched=yes"];
    let [program, tool, threads, turns] = words.map(str::to_owned);
    [program, tool, threads, turns, file]
}

/// Forgets what process `pid` was seen to execute.
pub(super) fn zero(pid: u32) -> Result<(), Failure> {
    tell(pid, "zero")
}

/// Writes what process `pid` was seen to execute since then.
pub(super) fn dump(pid: u32) -> Result<(), Failure> {
    tell(pid, "dump")
}

fn tell(pid: u32, what: &str) -> Result<(), Failure> {
    run(Command::new(TALK).args([&format!("--pid={pid}"), what])).map(drop)
}

/// The costs of each thread from the files of the first dump to `counts`.
pub(super) fn threads(counts: &Path) -> Result<Vec<Costs>, Failure> {
    let name = counts.file_name().unwrap_or_default().to_string_lossy();
    let (folder, start) = (counts.parent().unwrap_or(counts), format!("{name}{FIRST_DUMP}"));
    let mut threads = Vec::new();
    for entry in fs::read_dir(folder).map_err(Failure::io(folder.display()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&start) {
            let file = entry.path();
            let text = fs::read_to_string(&file).map_err(Failure::io(file.display()))?;
            threads.push(costs(&text));
        }
    }
    Ok(threads)
}

/// Reads a file: names are given once with a number in brackets and then by number; the line behind
/// `calls=` is what the callee cost and is left out.
fn costs(text: &str) -> Costs {
    let (mut names, mut costs) = (HashMap::new(), Costs::default());
    let (mut current, mut called, mut callee) = (String::new(), String::new(), false);
    for line in text.lines() {
        let function = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn="));
        if let Some((number, name)) = function.and_then(|f| f.split_once(')')) {
            if !name.is_empty() {
                names.insert(number.to_owned(), name.trim().to_owned());
            }
            let name = names.get(number).cloned().unwrap_or_default();
            *(if line.starts_with("fn=") { &mut current } else { &mut called }) = name;
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let times = calls.split_whitespace().next().and_then(|times| times.parse::<u64>().ok());
            *costs.calls.entry(called.clone()).or_default() += times.unwrap_or(0);
            callee = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse::<u64>().ok());
            if let Some(cost) = cost.filter(|_| !std::mem::take(&mut callee)) {
                *costs.functions.entry(current.clone()).or_default() += cost;
            }
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "events: Ir\nob=(1) /bin/x\nfl=(1) a.rs\nfn=(7) x::poll\n10 100\n+2 50\n\
                        cob=(2) /lib/y\ncfn=(8) memcpy\ncalls=3 0\n12 900\n* 7\n\
                        fn=(8)\n5 900\nfn=(7)\n30 3\ncfn=(8)\ncalls=2 0\n30 1\ntotals: 1060\n";

    #[test]
    fn what_a_callee_cost_is_counted_with_the_callee_alone() {
        let costs = costs(TEXT);
        assert_eq!(costs.functions.get("x::poll"), Some(&160));
        assert_eq!(costs.functions.get("memcpy"), Some(&900));
        assert_eq!((costs.total(), costs.calls.get("memcpy")), (1060, Some(&5)));
    }

    #[test]
    fn only_the_files_of_the_first_dump_are_read() {
        let folder = std::env::temp_dir().join(format!("perf-callgrind-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["counts", "counts.1-01", "counts.1-03", "counts-01", "counts.2-01"] {
            fs::write(folder.join(name), TEXT).unwrap();
        }
        let found = threads(&folder.join("counts")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(found.len(), 2);
    }
}
