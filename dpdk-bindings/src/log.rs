//! DPDK's own log, held back while devices come up.
//!
//! EAL and its drivers write several lines to stderr about one mistake, and some about none.
//! Whoever starts them holds the lines back, and says the one thing that matters in its own words.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::ffi;

/// The most bytes that are given back of what was logged.
const HELD_MAX: usize = 64 << 10;

static HOLDING: AtomicBool = AtomicBool::new(false);

/// Holds back what DPDK logs, until it is dropped; what was held is not written later.
#[derive(Debug)]
pub struct HeldLog(());

impl HeldLog {
    /// Holds the log from now on, once in the life of a process; `None` after the first time.
    pub fn start() -> Option<Self> {
        if HOLDING.swap(true, Ordering::SeqCst) {
            return None;
        }
        // SAFETY: only one thread gets here, once; DPDK may log before EAL is initialised.
        (unsafe { ffi::shim_log_hold() } == 0).then_some(Self(()))
    }

    /// What was logged so far, line by line, without blank lines.
    pub fn lines(&self) -> Vec<String> {
        let mut bytes = vec![0u8; HELD_MAX];
        // SAFETY: the buffer has HELD_MAX bytes, of which the call writes as many as it returns.
        let len = unsafe { ffi::shim_log_held(bytes.as_mut_ptr().cast(), HELD_MAX) };
        bytes.truncate(len);
        let text = String::from_utf8_lossy(&bytes);
        text.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect()
    }
}

impl Drop for HeldLog {
    fn drop(&mut self) {
        // SAFETY: swaps a pointer that DPDK reads once per line.
        unsafe { ffi::shim_log_release() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig;

    #[test]
    fn the_log_is_held_once_per_process() {
        let _eal = rig::eal();
        let held = HeldLog::start().expect("the first in this process");
        assert!(HeldLog::start().is_none());
        assert_eq!(held.lines(), Vec::<String>::new());
        drop(held);
        assert!(HeldLog::start().is_none());
    }
}
