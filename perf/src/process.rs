//! Programs this benchmark starts: each ends when its guard is dropped, by its own pid.
//!
//! Children run in a process group of their own, so that Ctrl-C reaches this program first and the
//! guards end the children in order. Should this program be killed outright, the kernel ends them
//! (`setpriv --pdeathsig`). All but forwarding threads stay on the control CPU (`taskset`).

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock, atomic::AtomicBool, atomic::Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The CPU of everything but forwarding.
pub(crate) const CONTROL_CPU: u32 = 0;
/// The CPU of the one forwarding thread.
pub(crate) const WORKER_CPU: u32 = 1;

/// The CPU of a second worker: one of its own where there are three.
pub(crate) fn second_cpu() -> u32 {
    if Path::new("/sys/devices/system/cpu/cpu2").exists() { 2 } else { CONTROL_CPU }
}

const STOP_PATIENCE: Duration = Duration::from_secs(5);
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Why a benchmark could not go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Reading, writing or starting something failed.
    Io { what: String, error: io::Error },
    /// A tool ended badly.
    Tool { command: String, status: ExitStatus, output: String },
    /// A program did not do what was awaited in time.
    Late { what: String, log: PathBuf },
    /// A program's answer could not be read.
    Answer { what: String, text: String },
    /// A program did not do the work it was measured for.
    Work { program: String, reason: String },
    /// Something this machine lacks.
    Missing { what: String, cure: String },
    /// Rows that miss their goals, or could not be measured.
    Goals { missed: usize, lost: usize, passed: usize },
    /// Ctrl-C or SIGTERM.
    Interrupted,
}

impl Failure {
    /// For `map_err`: an input or output error with what was being done.
    pub(crate) fn io(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        move |error| Self::Io { what, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { what, error } => write!(f, "{what}: {error}"),
            Self::Tool { command, status, output } => {
                write!(f, "`{command}` failed ({status}): {}", output.trim())
            }
            Self::Late { what, log } => write!(f, "{what}; see {}", log.display()),
            Self::Answer { what, text } => write!(f, "cannot read {what} from: {}", text.trim()),
            Self::Work { program, reason } => write!(f, "{program} did not do its work: {reason}"),
            Self::Missing { what, cure } => write!(f, "{what} is missing: {cure}"),
            Self::Goals { missed, lost, passed } => write!(
                f,
                "{missed} rows miss their goals, {lost} could not be measured, {passed} pass"
            ),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// Tries again what failed once: a machine that stood still for seconds is no reason to lose a row
/// of a long report. Gives the reason of the second failure; only a signal is a failure itself.
pub(crate) fn twice<T>(
    work: &mut dyn FnMut() -> Result<T, Failure>,
) -> Result<Result<T, String>, Failure> {
    let mut reason = String::new();
    for _ in 0..2 {
        match work() {
            Ok(value) => return Ok(Ok(value)),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(failure) => reason = failure.to_string(),
        }
        eprintln!("failed: {reason}");
    }
    Ok(Err(reason))
}

/// Lets Ctrl-C and SIGTERM end the benchmark through [`pause`], so that guards run.
pub(crate) fn catch_signals() -> Result<(), Failure> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag)).map_err(Failure::io("signals"))?;
    }
    Ok(())
}

/// Sleeps, unless a signal asks to stop.
pub(crate) fn pause(length: Duration) -> Result<(), Failure> {
    let end = Instant::now() + length;
    loop {
        if INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(Failure::Interrupted);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}

/// Asks `ready` again and again until it says yes. `what` says what did not happen in time.
pub(crate) fn wait_until(
    patience: Duration,
    what: impl fmt::Display,
    log: &Path,
    mut ready: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let end = Instant::now() + patience;
    while !ready()? {
        if Instant::now() > end {
            return Err(Failure::Late { what: what.to_string(), log: log.to_path_buf() });
        }
        pause(Duration::from_millis(20))?;
    }
    Ok(())
}

/// Runs a tool to its end and gives its output. Its errors are in the failure.
pub(crate) fn run(tool: &mut Command) -> Result<String, Failure> {
    let command = command_line(tool);
    let output = tool.stdin(Stdio::null()).output().map_err(Failure::io(&command))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Tool { command, status: output.status, output: format!("{errors}{text}") })
}

fn command_line(tool: &Command) -> String {
    let words = std::iter::once(tool.get_program()).chain(tool.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A program that runs until its guard is dropped.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
    patience: Duration,
}

impl Daemon {
    /// Starts `program`; all it says goes to `log`, its output is also read by [`Self::line`].
    pub(crate) fn start(
        program: &Path,
        args: &[String],
        environment: &[(&str, &Path)],
        log: &Path,
    ) -> Result<Self, Failure> {
        let errors = std::fs::File::create(log).map_err(Failure::io(log.display()))?;
        let mut copy = errors.try_clone().map_err(Failure::io(log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "taskset", "-c", &CONTROL_CPU.to_string()]);
        command.arg(program).args(args).envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(Failure::io(&name))?;
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = writeln!(copy, "{line}");
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let (log, patience) = (log.to_path_buf(), STOP_PATIENCE);
        Ok(Self { name, child, stdin, lines, log, patience })
    }

    /// How long it may take to end before it is killed.
    pub(crate) fn may_end_in(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where all it says goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Writes a line to its standard input.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), Failure> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        writeln!(stdin, "{line}").map_err(Failure::io(format!("{}: `{line}`", self.name)))
    }

    /// The next line of its output that `wanted` accepts.
    pub(crate) fn line(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Failure> {
        let end = Instant::now() + patience;
        loop {
            pause(Duration::ZERO)?;
            let slice = Duration::from_millis(50);
            match self.lines.recv_timeout(slice) {
                Ok(line) if wanted(&line) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(RecvTimeoutError::Timeout) => return Err(self.late("says nothing more")),
                Err(RecvTimeoutError::Disconnected) => return Err(self.late("ended")),
            }
        }
    }

    fn late(&self, what: &str) -> Failure {
        Failure::Late { what: format!("{} {what}", self.name), log: self.log.clone() }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        drop(self.stdin.take());
        let _ = Command::new("kill").args(["-TERM", &pid]).stderr(Stdio::null()).status();
        let end = Instant::now() + self.patience;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
