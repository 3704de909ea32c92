//! Servers of the system that run in a namespace until they are dropped.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::gateway::Files;
use crate::netns::Namespace;

/// How long a daemon may take to end by itself.
const END: Duration = Duration::from_secs(10);

/// A program in the foreground. Its output is in `NAME.log` of the folder, and shown after a panic.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program that stays in the foreground.
    pub fn start(namespace: &Namespace, files: &Files, name: &str, line: &str) -> Daemon {
        let log = files.path(&format!("{name}.log"));
        let output = File::create(&log).expect("the folder can be written");
        let errors = output.try_clone().expect("a file can be shared");
        let mut command = namespace.command(line);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().expect("nsenter starts");
        Daemon { child, log }
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal)
            .unwrap_or_else(|_| panic!("it has ended:\n{}", self.log()));
    }

    /// What it has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
        let start = Instant::now();
        // What has ended already cannot be signalled, and need not.
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        while start.elapsed() < END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
