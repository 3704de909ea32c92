//! Mutations of the corpora by a fixed seed: a quick look on stable Rust where no fuzzer runs.
//! `FUZZ_ROUNDS` makes it longer, `FUZZ_SEED` different.

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
        match random.below(7) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.below(256) as u8),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            4 if at < bytes.len() => drop(bytes.remove(at)),
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

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn mutations_of_the_corpora_crash_nothing() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rounds = number("FUZZ_ROUNDS", 4000);
    let mut failed = Vec::new();
    for Target { name, run, cost } in sluicegate_fuzz::TARGETS {
        let folder = fs::read_dir(here.join("corpus").join(name)).expect("a corpus");
        let mut paths: Vec<_> = folder.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
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
