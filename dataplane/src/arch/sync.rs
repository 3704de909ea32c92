//! The atomics of this crate, and the only place it takes them from.
//!
//! Three backends with the same names and methods:
//!
//! | compiled with | the words are | for |
//! |---|---|---|
//! | nothing | core's own | running |
//! | `--cfg loom` | loom's | trying every interleaving and every reordering (`make loom`) |
//! | feature `count-lines` | core's, writes are noted | counting cache lines (`arch::lines`) |
//!
//! [`AtomicBool`] is core's in all three: the flags here are set by a signal handler or by the
//! control core and only read by lcores, and whoever sets them shares them with other crates. A
//! word that lcores write is a number.

pub use core::sync::atomic::{AtomicBool, Ordering};

#[cfg(not(any(loom, feature = "count-lines")))]
pub use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub use core::{hint::spin_loop, sync::atomic::fence};
#[cfg(loom)]
pub use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, fence},
};

#[cfg(all(feature = "count-lines", not(loom)))]
pub use super::lines::{AtomicU16, AtomicU32, AtomicU64};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Whether a file says `sync::atomic` before its tests, where models and recorder would miss
    /// what it does.
    fn takes_its_own(path: &Path) -> bool {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        code.lines().any(|line| line.contains("sync::atomic") || line.contains("hint::spin_loop"))
    }

    fn sources(under: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(under).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn nobody_else_takes_atomics_from_elsewhere() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found = Vec::new();
        sources(&src, &mut found);
        assert!(found.len() > 50 && takes_its_own(&src.join("arch/sync.rs")));
        found.retain(|path| !path.starts_with(src.join("arch")) && takes_its_own(path));
        assert!(found.is_empty(), "not from arch::sync: {found:?}");
    }
}
