//! Worker lcores: threads that EAL made and pinned, one closure on each at a time.
//!
//! Mbuf caches of a pool belong to lcores, so poll loops run here and not on threads of Rust's.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use crate::eal::{Eal, Running, lock};
use crate::errno::Errno;
use crate::ffi;

/// An EAL lcore number: not a CPU number (`--lcores 0@3` puts lcore 0 on CPU 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LcoreId(pub u32);

impl LcoreId {
    /// The calling thread's lcore; `None` on a thread that EAL did not start.
    pub fn current() -> Option<Self> {
        // SAFETY: reads a thread-local int; no precondition.
        let id = unsafe { ffi::shim_lcore_id() };
        (id != u32::MAX).then_some(Self(id))
    }
}

impl fmt::Display for LcoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Eal {
    /// The worker lcores, in ascending order; the main lcore is not among them.
    pub fn lcores(&self) -> Vec<LcoreId> {
        const NONE: u32 = ffi::RTE_MAX_LCORE;
        let mut lcores = Vec::new();
        let mut last = u32::MAX;
        loop {
            // SAFETY: EAL is initialised; u32::MAX starts the walk, any lcore id continues it.
            last = unsafe { ffi::rte_get_next_lcore(last, 1, 0) };
            if last >= NONE {
                return lcores;
            }
            lcores.push(LcoreId(last));
        }
    }

    /// The lcore of the thread that started EAL.
    pub fn main_lcore(&self) -> LcoreId {
        // SAFETY: EAL is initialised.
        LcoreId(unsafe { ffi::rte_get_main_lcore() })
    }

    /// The NUMA socket of an enabled lcore.
    pub fn socket(&self, lcore: LcoreId) -> Option<u32> {
        if lcore != self.main_lcore() && !self.lcores().contains(&lcore) {
            return None;
        }
        // SAFETY: EAL is initialised and the lcore is one of its own.
        Some(unsafe { ffi::rte_lcore_to_socket_id(lcore.0) })
    }

    /// Runs `job` on a worker lcore. What the closure owns is dropped there when it returns.
    ///
    /// # Errors
    /// [`LcoreError`]: not a worker lcore, or its last job was not joined yet.
    pub fn launch<T, F>(&self, lcore: LcoreId, job: F) -> Result<LcoreHandle<T>, LcoreError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        if !self.lcores().contains(&lcore) {
            return Err(LcoreError::NotAWorker { lcore });
        }
        if !lock(&self.running.busy).insert(lcore.0) {
            return Err(LcoreError::Busy { lcore });
        }
        let (send, outcome) = sync_channel(1);
        let job: Job = Box::new(move || {
            // The receiver lives in the handle, which waits for this job: sending cannot fail.
            let _ = send.send(catch_unwind(AssertUnwindSafe(job)));
        });
        let job = Box::into_raw(Box::new(job));
        // SAFETY: the lcore is an enabled worker, idle as `busy` shows; run_job takes the box back.
        let started = unsafe { ffi::rte_eal_remote_launch(Some(run_job), job.cast(), lcore.0) };
        if let Err(errno) = Errno::check(started) {
            // SAFETY: a refused job never reaches run_job, so the box is still ours alone.
            drop(unsafe { Box::from_raw(job) });
            lock(&self.running.busy).remove(&lcore.0);
            return Err(LcoreError::Launch { lcore, errno });
        }
        Ok(LcoreHandle { lcore, outcome, running: Arc::clone(&self.running) })
    }
}

/// A closure running on an lcore. Dropping it waits for the closure, however long that takes.
#[derive(Debug)]
pub struct LcoreHandle<T> {
    lcore: LcoreId,
    outcome: Receiver<std::thread::Result<T>>,
    running: Arc<Running>,
}

impl<T> LcoreHandle<T> {
    /// The lcore it runs on.
    pub fn lcore(&self) -> LcoreId {
        self.lcore
    }

    /// Whether the closure has returned, so that [`Self::join`] will not block.
    pub fn is_finished(&self) -> bool {
        // SAFETY: EAL is initialised while `running` is held; the lcore id is valid.
        unsafe { ffi::rte_eal_get_lcore_state(self.lcore.0) == ffi::WAIT }
    }

    /// Sleeps until the closure returns and hands its value over; the lcore is free again.
    ///
    /// # Errors
    /// [`LcoreError::Panicked`] with the message of the closure's panic.
    pub fn join(self) -> Result<T, LcoreError> {
        match self.outcome.recv() {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                Err(LcoreError::Panicked { lcore: self.lcore, message: message(&*panic) })
            }
            Err(_) => unreachable!("the job sends its outcome before it ends"),
        }
    }
}

impl<T> Drop for LcoreHandle<T> {
    fn drop(&mut self) {
        // Sleeps: rte_eal_wait_lcore alone would spin for the whole life of the job. After a join
        // the channel is closed and this returns at once.
        while self.outcome.recv().is_ok() {}
        // SAFETY: EAL is initialised while `running` is held; the caller is not the lcore itself:
        // a job that was sent its own handle would wait above, for itself.
        unsafe { ffi::rte_eal_wait_lcore(self.lcore.0) };
        lock(&self.running.busy).remove(&self.lcore.0);
    }
}

/// Why an lcore did not do its job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LcoreError {
    /// The lcore is not enabled by `--lcores`, or is the main lcore.
    NotAWorker {
        /// The lcore asked for.
        lcore: LcoreId,
    },
    /// The lcore's last job was not joined.
    Busy {
        /// The lcore asked for.
        lcore: LcoreId,
    },
    /// EAL refused to start the job.
    Launch {
        /// The lcore asked for.
        lcore: LcoreId,
        /// What `rte_eal_remote_launch` returned.
        errno: Errno,
    },
    /// The job panicked.
    Panicked {
        /// The lcore it ran on.
        lcore: LcoreId,
        /// What the panic said.
        message: String,
    },
}

impl fmt::Display for LcoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAWorker { lcore } => write!(f, "lcore {lcore} is not a worker lcore"),
            Self::Busy { lcore } => write!(f, "lcore {lcore} still runs its last job"),
            Self::Launch { lcore, errno } => write!(f, "lcore {lcore} did not start: {errno}"),
            Self::Panicked { lcore, message } => write!(f, "lcore {lcore} panicked: {message}"),
        }
    }
}

impl std::error::Error for LcoreError {}

type Job = Box<dyn FnOnce() + Send>;

/// Runs on the lcore; `arg` is the `Box<Job>` that `launch` gave away.
extern "C" fn run_job(arg: *mut c_void) -> c_int {
    // SAFETY: launch made `arg` from Box::into_raw of a Job, and EAL calls this once with it.
    let job = unsafe { Box::from_raw(arg.cast::<Job>()) };
    job();
    0
}

fn message(panic: &(dyn Any + Send)) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text.clone()
    } else {
        "no message".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig;

    #[test]
    fn a_job_runs_on_its_lcore_and_returns_its_value() {
        let eal = rig::eal();
        let lcore = eal.lcores()[0];
        assert_ne!(lcore, eal.main_lcore());
        assert!(eal.socket(lcore).is_some());
        assert_eq!(eal.launch(lcore, LcoreId::current).unwrap().join(), Ok(Some(lcore)));
    }

    #[test]
    fn an_lcore_runs_one_job_at_a_time() {
        let eal = rig::eal();
        let lcore = eal.lcores()[0];
        let (go, gate) = sync_channel::<()>(1);
        let first = eal.launch(lcore, move || gate.recv().is_ok()).unwrap();
        assert!(!first.is_finished());
        assert_eq!(eal.launch(lcore, || ()).unwrap_err(), LcoreError::Busy { lcore });
        go.send(()).unwrap();
        assert_eq!(first.join(), Ok(true));
        drop(eal.launch(lcore, || ()).unwrap());
        assert_eq!(eal.launch(lcore, || 7).unwrap().join(), Ok(7));
    }

    #[test]
    fn a_panic_of_a_job_is_an_error_and_frees_the_lcore() {
        let eal = rig::eal();
        let lcore = eal.lcores()[0];
        let handle = eal.launch(lcore, || panic!("no way {}", 1)).unwrap();
        let message = "no way 1".to_owned();
        assert_eq!(handle.join(), Err::<(), _>(LcoreError::Panicked { lcore, message }));
        assert_eq!(eal.launch(lcore, || 7).unwrap().join(), Ok(7));
    }

    #[test]
    fn the_main_lcore_and_unknown_lcores_take_no_jobs() {
        let eal = rig::eal();
        for lcore in [eal.main_lcore(), LcoreId(77), LcoreId(u32::MAX)] {
            assert_eq!(eal.launch(lcore, || ()).unwrap_err(), LcoreError::NotAWorker { lcore });
        }
        assert_eq!(eal.socket(LcoreId(u32::MAX)), None);
    }
}
