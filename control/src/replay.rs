//! `sluicegate replay`: a capture through the same pipeline, offline and with the capture's clock.
//!
//! One thread holds the control core and the workers with ports in memory, as many workers as the
//! configuration names and one queue to a port where it names no more. For every frame the clock
//! moves to the frame's time stamp, the workers take it to its end, and what came out is written
//! with the same time stamp. Time never runs backwards: a frame stamped earlier than the one before
//! it counts as arriving with it. Across a gap the control core gets its rounds as in a running
//! gateway, every [`STEP_NS`] of the capture's time but at most [`STEPS_MAX`] times, so expiry and
//! neighbour timers happen when they would have.
//!
//! Everything that is drawn by lot in the daemon is fixed here: equal inputs give equal outputs,
//! and a beginning of a capture gives a beginning of its output. A port without `mac` in the
//! configuration gets 02:53:47:00:00:NN, NN being its number in the file from 0.
//!
//! A frame of a VLAN sub-interface may stand in the capture as it was on the wire, with its tag and
//! under the parent's name, or as the kernel shows it on the sub-interface, without and under that
//! one's name. What leaves by a sub-interface is written as it is on the wire.

mod bench;
mod capture;
mod explain;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigError};
use crate::daemon;
use crate::gateway::{CoreError, RulesError, load_rules};
pub use bench::{Bench, Sent};
pub use capture::CaptureError;
use capture::{Captured, Reader, Writer};
use explain::Explainer;

/// Why a replay failed.
#[derive(Debug)]
pub enum ReplayError {
    /// The configuration.
    Config(ConfigError),
    /// A rule file.
    Rules(RulesError),
    /// The table or the first snapshot.
    Core(CoreError),
    /// The capture to read.
    Input(PathBuf, CaptureError),
    /// The capture to write.
    Output(PathBuf, io::Error),
    /// Both captures are the same file.
    SameFile(PathBuf),
    /// What is said on the way could not be written.
    Said(io::Error),
    /// Frames were lost or made out of nothing: a defect of Sluicegate.
    Unbalanced(String),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Config(e) => e.fmt(f),
            ReplayError::Rules(e) => e.fmt(f),
            ReplayError::Core(e) => e.fmt(f),
            ReplayError::Input(path, e) => write!(f, "{}: {e}", path.display()),
            ReplayError::Output(path, e) => {
                write!(f, "{}: cannot be written: {e}", path.display())
            }
            ReplayError::SameFile(path) => {
                write!(f, "{}: is also the capture to read", path.display())
            }
            ReplayError::Said(e) => write!(f, "standard output: {e}"),
            ReplayError::Unbalanced(sums) => {
                write!(f, "frames do not add up, which is a defect of this program: {sums}")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// Runs the capture `input` into the capture `output`; returns the exit code. With `explain` one
/// line per frame goes to standard output, with `conntrack` the conns that are left at the end.
pub fn run(config: &Path, input: &Path, output: &Path, explain: bool, conntrack: bool) -> u8 {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr());
    let asked = Asked { config, input, output, explain, conntrack };
    match asked.run(&mut out, &mut err) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error}");
            1
        }
    }
}

/// The command line.
struct Asked<'a> {
    config: &'a Path,
    input: &'a Path,
    output: &'a Path,
    explain: bool,
    conntrack: bool,
}

impl Asked<'_> {
    fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), ReplayError> {
        let config = Config::load(self.config).map_err(ReplayError::Config)?;
        let rulesets = load_rules(&config).map_err(ReplayError::Rules)?;
        daemon::start_log(config.log_level);
        let names: Vec<String> = config.ports.iter().map(|p| p.name.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (input, output) = self.open()?;
        let broken = |e| ReplayError::Input(self.input.to_owned(), e);
        let unwritten = |e| ReplayError::Output(self.output.to_owned(), e);
        let mut reader = Reader::new(input, &names).map_err(broken)?;
        let mut writer = Writer::new(output, &names).map_err(unwritten)?;
        let mut explainer = self.explain.then(|| Explainer::new(&names, &rulesets));
        let mut bench = Bench::new(config, rulesets, self.explain).map_err(ReplayError::Core)?;
        while let Some(captured) = reader.next().map_err(broken)? {
            let step = bench.step_towards(captured.unix_ns);
            while bench.step(step, captured.unix_ns) {
                self.hand_out(&mut bench, &mut writer, explainer.as_mut(), None, out)?;
            }
            bench.take(captured.port, captured.bytes.clone());
            self.hand_out(&mut bench, &mut writer, explainer.as_mut(), Some(&captured), out)?;
        }
        writer.finish().map_err(unwritten)?;
        if self.conntrack {
            bench.list(out, err).map_err(ReplayError::Said)?;
        }
        out.flush().map_err(ReplayError::Said)?;
        bench.check_balance()
    }

    fn open(&self) -> Result<(File, File), ReplayError> {
        let broken = |e| ReplayError::Input(self.input.to_owned(), CaptureError::Unreadable(e));
        let input = File::open(self.input).map_err(broken)?;
        let read = input.metadata().map_err(broken)?;
        if std::fs::metadata(self.output)
            .is_ok_and(|m| (m.dev(), m.ino()) == (read.dev(), read.ino()))
        {
            return Err(ReplayError::SameFile(self.output.to_owned()));
        }
        let output = File::create(self.output)
            .map_err(|e| ReplayError::Output(self.output.to_owned(), e))?;
        Ok((input, output))
    }

    /// Writes what came out, and says what happened.
    fn hand_out(
        &self,
        bench: &mut Bench,
        writer: &mut Writer,
        explainer: Option<&mut Explainer>,
        captured: Option<&Captured>,
        out: &mut dyn Write,
    ) -> Result<(), ReplayError> {
        let sent = std::mem::take(&mut bench.sent);
        for (port, unix_ns, bytes) in &sent {
            writer
                .frame(*port, *unix_ns, bytes)
                .map_err(|e| ReplayError::Output(self.output.to_owned(), e))?;
        }
        if let Some(explainer) = explainer {
            let text = explainer.explain(bench, captured, &sent);
            out.write_all(text.as_bytes()).map_err(ReplayError::Said)?;
        }
        Ok(())
    }
}
