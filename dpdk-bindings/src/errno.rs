//! Error numbers of DPDK calls: the C library's, and DPDK's own above 1000.

use std::ffi::CStr;
use std::fmt;

use crate::ffi;

/// A positive error number of a DPDK call; displays as text and number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// The calling thread's `rte_errno`.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local int; no precondition.
        Self(unsafe { ffi::shim_errno() })
    }

    /// From a return value that is 0 or more on success and a negated errno on failure.
    pub(crate) fn check(returned: i32) -> Result<i32, Self> {
        if returned < 0 { Err(Self(-returned)) } else { Ok(returned) }
    }

    /// Whether a driver said that it lacks an operation (ENOTSUP, ENOSYS).
    pub(crate) fn is_unsupported(self) -> bool {
        const ENOSYS: i32 = 38;
        const ENOTSUP: i32 = 95;
        matches!(self.0, ENOSYS | ENOTSUP)
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: any int is a valid argument; the result is a NUL-terminated string, static or in
        // a buffer of this thread, copied out before the thread can call again.
        let text = unsafe { CStr::from_ptr(ffi::rte_strerror(self.0)) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_with_their_text() {
        assert_eq!(Errno(19).to_string(), "No such device (errno 19)");
        assert_eq!(Errno::check(-95), Err(Errno(95)));
        assert_eq!(Errno::check(3), Ok(3));
        assert!(Errno(95).is_unsupported() && !Errno(22).is_unsupported());
    }
}
