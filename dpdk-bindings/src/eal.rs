//! The environment abstraction layer: hugepages, devices and lcores, once per process.
//!
//! [`Eal`] is one of several holders of the running EAL: pools, ports and lcore handles hold it
//! too, so that memory is unmapped only when nothing made of it is left. A pool dropped while mbufs
//! of it are still out keeps EAL running until the process ends (see [`crate::Mempool`]).

use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::errno::Errno;
use crate::ffi;

/// The initialised EAL of this process.
#[derive(Debug)]
pub struct Eal {
    pub(crate) running: Arc<Running>,
}

impl Eal {
    /// Starts EAL with the given options (without a program name), once in the life of the process:
    /// DPDK cannot start a second time, not even after a clean-up or a failure.
    ///
    /// The calling thread becomes the main lcore and is pinned as `--lcores` says. Devices that
    /// fail to come up do not fail EAL: [`crate::Port::configure`] reports them by name.
    ///
    /// # Errors
    /// [`EalError`]: started before, an option holding a NUL byte, or EAL's own refusal.
    pub fn init(args: &[String]) -> Result<Self, EalError> {
        let mut argv = vec![c"sluicegate".to_owned().into_raw()];
        for arg in args {
            let arg = CString::new(arg.as_str()).map_err(|_| EalError::Nul { arg: arg.clone() })?;
            argv.push(arg.into_raw());
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::Already);
        }
        let argc = i32::try_from(argv.len()).map_err(|_| EalError::TooManyArgs)?;
        argv.push(std::ptr::null_mut::<c_char>());
        // SAFETY: argv holds argc NUL-terminated writable strings and a final null. EAL keeps
        // pointers into them, so array and strings are leaked; the swap above makes this the only
        // call in the process.
        let parsed = unsafe { ffi::rte_eal_init(argc, argv.leak().as_mut_ptr()) };
        if parsed < 0 {
            return Err(EalError::Init { errno: Errno::last() });
        }
        let running = Arc::new(Running { busy: Mutex::new(BTreeSet::new()) });
        *lock(&RUNNING) = Arc::downgrade(&running);
        Ok(Self { running })
    }

    /// The directory of this process's run-time files (`/run/dpdk/PREFIX` for root), which EAL
    /// leaves behind, after a failure to start too. `None` before it was made.
    pub fn runtime_dir() -> Option<PathBuf> {
        // SAFETY: a NUL-terminated static buffer; written by `init` alone, which has returned.
        let dir = unsafe { CStr::from_ptr(ffi::rte_eal_get_runtime_dir()) };
        (!dir.is_empty()).then(|| PathBuf::from(dir.to_string_lossy().into_owned()))
    }

    /// The drivers of network devices that this process can use (`i40e`, `virtio`, …), whether or
    /// not there is a device: linked in, or loaded by [`Self::init`]. Known by the logs that their
    /// constructors register with DPDK (`pmd.net.i40e.init`).
    pub fn drivers(&self) -> BTreeSet<String> {
        const ROOM: usize = 64 << 10;
        let mut bytes = vec![0u8; ROOM];
        // SAFETY: the buffer has ROOM bytes, of which the call writes as many as it returns.
        let len = unsafe { ffi::shim_log_names(bytes.as_mut_ptr().cast(), ROOM) };
        bytes.truncate(len);
        let text = String::from_utf8_lossy(&bytes);
        let names = text.split("pmd.net.").skip(1);
        let end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        names.filter_map(|rest| rest.split(end).next()).map(str::to_owned).collect()
    }

    /// The version of the DPDK libraries in use, as `DPDK 22.11.11`.
    pub fn version(&self) -> String {
        // SAFETY: rte_version gives a static NUL-terminated string.
        unsafe { CStr::from_ptr(ffi::rte_version()) }.to_string_lossy().into_owned()
    }
}

/// Why EAL did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EalError {
    /// `Eal::init` was called before in this process.
    Already,
    /// An argument contains a NUL byte.
    Nul {
        /// The argument.
        arg: String,
    },
    /// More arguments than a C `int` counts.
    TooManyArgs,
    /// `rte_eal_init` failed; its log on stderr says more.
    Init {
        /// What it left in `rte_errno`.
        errno: Errno,
    },
}

impl fmt::Display for EalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Already => write!(f, "EAL was already started in this process"),
            Self::Nul { arg } => write!(f, "EAL argument {arg:?} contains a NUL byte"),
            Self::TooManyArgs => write!(f, "too many EAL arguments"),
            Self::Init { errno } => write!(f, "EAL did not start: {errno}"),
        }
    }
}

impl std::error::Error for EalError {}

/// What keeps EAL initialised: cleaned up when the last holder drops it.
#[derive(Debug)]
pub(crate) struct Running {
    /// Worker lcores with a job that was not joined yet.
    pub(crate) busy: Mutex<BTreeSet<u32>>,
}

impl Running {
    /// The running EAL, if it was started and is not cleaned up.
    pub(crate) fn current() -> Option<Arc<Self>> {
        lock(&RUNNING).upgrade()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: EAL is initialised, and no pool, port or lcore job is left: each holds an Arc of
        // this. A failure leaves nothing to do but end the process.
        let _ = unsafe { ffi::rte_eal_cleanup() };
    }
}

/// Locks whatever a panicking thread left: the state behind these locks is whole at all times.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static STARTED: AtomicBool = AtomicBool::new(false);
static RUNNING: Mutex<Weak<Running>> = Mutex::new(Weak::new());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig;

    #[test]
    fn a_second_start_is_an_error() {
        let _eal = rig::eal();
        assert_eq!(Eal::init(&[]).unwrap_err(), EalError::Already);
    }

    #[test]
    fn version_is_the_one_built_against() {
        let eal = rig::eal();
        assert!(eal.version().ends_with(crate::DPDK_VERSION), "{}", eal.version());
        assert!(Eal::runtime_dir().unwrap().ends_with(rig::file_prefix()));
    }
}
