//! The sizes of the table, changed live: `max`, and the number of buckets.
//!
//! The number of buckets is a word to people: what is shown is what was set. What is really made is
//! room for `max` conns, all translated, at a load of 1/2, and for as many entries as there are
//! buckets; so both settings count. A larger `max` makes the arrays larger where they have to be, a
//! smaller one leaves them; setting the buckets makes them fit, as in the kernel, where setting
//! `max` never moves the table.
//!
//! A write waits until the table has moved, as one to the kernel does, while packets, expiry and
//! timers go on. If a worker stands still the write fails with its name; the move goes on when the
//! worker does, and the next write waits for it.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use dataplane::conntrack::record::Family as Records;
use dataplane::conntrack::store::{MAX_LIMIT, Shared};
use dataplane::conntrack::views::index_lines;
use dataplane::pipeline::resize::Resize;

use super::{ControlCore, PATIENCE};
use crate::config::Config;
use crate::config::sizes::available_bytes;
use crate::tools::Silent;

/// Why the table kept its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeError {
    /// Not so much memory is available.
    Memory {
        /// Bytes that it takes.
        bytes: u64,
    },
    /// A larger limit than there can be.
    TooLarge,
    /// A worker that does not answer.
    Silent(Silent),
    /// Entries find no room in the new arrays until others end; the old ones are in use meanwhile.
    Crowded,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SizeError::Memory { bytes } => {
                write!(f, "the table's new size takes {bytes} bytes, which are not available")
            }
            SizeError::TooLarge => write!(f, "max must be at most {MAX_LIMIT}"),
            SizeError::Silent(silent) => silent.fmt(f),
            SizeError::Crowded => f.write_str("the table is still changing its size"),
        }
    }
}

impl ControlCore {
    /// Sets the limit on conns; nothing is deleted when it shrinks.
    pub(super) fn set_max(&mut self, max: u32) -> Result<(), SizeError> {
        if max > MAX_LIMIT {
            return Err(SizeError::TooLarge);
        }
        let hashsize = self.config.conntrack.hashsize;
        if index_lines(max, hashsize) > self.lines() || self.resize.is_some() {
            self.resize_to(max.max(self.max), hashsize)?;
        }
        self.raise_max(max)
    }

    /// Takes over the sizes that a file names; the others stay as they are.
    pub(super) fn reload_sizes(&mut self, config: &mut Config) -> Result<(), SizeError> {
        let table = &mut config.conntrack;
        let (hashsize, max) = table.names_sizes;
        if max {
            // One move for both.
            if hashsize && index_lines(table.max, table.hashsize) > self.lines() {
                self.resize_to(table.max.max(self.max), table.hashsize)?;
            }
            self.set_max(table.max)?;
        }
        if hashsize && table.hashsize != self.config.conntrack.hashsize {
            self.set_hashsize(table.hashsize)?;
        }
        table.hashsize = self.config.conntrack.hashsize;
        Ok(())
    }

    fn lines(&self) -> u64 {
        self.shared.index.old_buckets().into()
    }

    /// Sets the number of buckets; `max` stays.
    pub(super) fn set_hashsize(&mut self, hashsize: u32) -> Result<(), SizeError> {
        self.resize_to(self.max, hashsize)?;
        self.config.conntrack.hashsize = hashsize;
        Ok(())
    }

    /// Memory for the records first: a limit that cannot be served changes nothing.
    fn raise_max(&mut self, max: u32) -> Result<(), SizeError> {
        let out = |e: dataplane::arch::OutOfMemory| SizeError::Memory { bytes: e.bytes as u64 };
        self.shared.raise_records(max, true);
        self.shared.ensure_conns(Records::V4, max).map_err(out)?;
        self.shared.set_max(max).map_err(|_| SizeError::TooLarge)?;
        self.max = max;
        Ok(())
    }

    /// Moves the table into arrays for so many conns, and for those that there are now.
    fn resize_to(&mut self, max: u32, hashsize: u32) -> Result<(), SizeError> {
        self.finish_resize()?;
        let conns = max.max(self.shared.capacity.count()).min(MAX_LIMIT);
        if index_lines(conns, hashsize) == self.lines() {
            return Ok(());
        }
        if let Some(lcore) = self.lcores.iter().position(|lcore| lcore.stalls.is_stalled()) {
            return Err(SizeError::Silent(self.silent(lcore)));
        }
        let bytes = Shared::bytes_of_arrays(conns, hashsize);
        if bytes > available_bytes() {
            return Err(SizeError::Memory { bytes });
        }
        let arrays =
            self.shared.arrays(conns, hashsize).map_err(|_| SizeError::Memory { bytes })?;
        let start = Instant::now();
        let before = Arc::clone(&self.shared);
        self.resize = Some(Resize::new(before, arrays, self.lcores.len()));
        self.go_on_resizing();
        self.finish_resize()?;
        log::info!(
            "conntrack: {} index lines, {} entries at load 1/2, moved in {:?}",
            self.shared.index.buckets(),
            self.shared.index.buckets() as u64 * 7 / 2,
            start.elapsed()
        );
        Ok(())
    }

    /// Takes news of a resize, and sends the lcores what comes next.
    pub(super) fn note_resize(&mut self, news: impl FnOnce(&mut Resize)) {
        if let Some(resize) = &mut self.resize {
            news(resize);
            self.go_on_resizing();
        }
    }

    /// Sends what is due; what finds no room is sent later.
    pub(super) fn go_on_resizing(&mut self) {
        let Some(mut resize) = self.resize.take() else { return };
        if !Arc::ptr_eq(&self.shared, resize.view()) {
            self.shared = Arc::clone(resize.view());
        }
        for lcore in 0..self.lcores.len() {
            if self.lcores[lcore].stalls.is_stalled() {
                continue;
            }
            if let Some(message) = resize.next(lcore)
                && self.try_send(lcore, message).is_err()
            {
                resize.refused(lcore);
            }
        }
        // What is let go of here is the last of the old arrays.
        self.resize = Some(resize).filter(|resize| !resize.is_done());
    }

    /// Waits until the table has moved, as long as there is progress.
    fn finish_resize(&mut self) -> Result<(), SizeError> {
        let (mut answers, mut since) = (0, Instant::now());
        loop {
            let Some(resize) = &self.resize else { return Ok(()) };
            if resize.is_crowded() {
                return Err(SizeError::Crowded);
            }
            if resize.answers() != answers {
                (answers, since) = (resize.answers(), Instant::now());
            }
            let lcore = resize.waits_for().unwrap_or(0);
            let running = (self.pause)();
            self.read_mail();
            self.go_on_resizing();
            self.keep_up();
            let stalled = self.lcores[lcore].stalls.is_stalled();
            if self.resize.is_some() && (!running || stalled || since.elapsed() >= PATIENCE) {
                return Err(SizeError::Silent(self.silent(lcore)));
            }
        }
    }
}
