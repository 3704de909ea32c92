//! A running gateway and the folder of its files; both go when dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::netns::Namespace;

pub const BINARY: &str = env!("CARGO_BIN_EXE_sluicegate");

/// How long to wait, on a busy machine, for what takes a moment on an idle one.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A folder of its own for the files of one gateway, with names that no other test uses.
pub struct Files {
    pub folder: PathBuf,
    /// EAL's file prefix.
    pub prefix: String,
}

impl Files {
    pub fn new() -> Files {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        crate::netns::demand_machine();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // The last letter keeps one name from being the beginning of another.
        let prefix = format!("sg-e2e-{}-{number}g", std::process::id());
        let folder = std::env::temp_dir().join(&prefix);
        fs::create_dir_all(&folder).expect("a folder in the temporary folder");
        Files { folder, prefix }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the folder can be written");
        path
    }

    pub fn socket(&self) -> PathBuf {
        self.path("control.sock")
    }

    /// The head of a configuration: EAL, control socket, a small table. `eal` are further lines.
    pub fn head(&self, eal: &str) -> String {
        // Without huge pages and asleep when idle, so that several tests run side by side.
        let defaults = [
            ("hugepages", "false"),
            ("memory_mb", "128"),
            ("idle", "\"sleep\""),
            ("control_core", "0"),
            ("worker_cores", "[1]"),
        ];
        // A line `# key` stands for the product's own default.
        let has = |key: &str| {
            eal.lines().any(|line| line.trim_start_matches(['#', ' ']).starts_with(key))
        };
        let mut text = format!("[eal]\nfile_prefix = \"{}\"\n{eal}\n", self.prefix);
        for (key, value) in defaults.iter().filter(|(key, _)| !has(key)) {
            text.push_str(&format!("{key} = {value}\n"));
        }
        text + &format!("[control]\nsocket = \"{}\"\n", self.socket().display())
    }

    /// Where EAL keeps this gateway's run-time files.
    pub fn runtime(&self) -> PathBuf {
        Path::new("/run/dpdk").join(&self.prefix)
    }

    /// What a gateway has left behind, by path.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let mut left = vec![self.runtime(), self.socket(), self.path("control.sock.new")];
        left.retain(|path| path.symlink_metadata().is_ok());
        for folder in ["/dev/hugepages", "/dev/shm", "/tmp"] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.contains(&self.prefix) && entry.path() != self.folder {
                    left.push(entry.path());
                }
            }
        }
        left
    }

    /// Runs a command to its end.
    pub fn tool(&self, words: &[&str]) -> Output {
        self.tool_command(words).stdin(Stdio::null()).output().expect("the binary starts")
    }

    /// A command that talks to this folder's control socket.
    pub fn tool_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.env_remove("SLUICEGATE_SOCKET");
        command.arg("--socket").arg(self.socket()).args(words);
        command
    }

    /// Runs a command that has to succeed; its standard output.
    pub fn ask(&self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.tool(&words);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` failed ({}): {complaint}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a command with something on its standard input; its whole outcome.
    pub fn feed(&self, line: &str, input: &str) -> Output {
        let path = self.write("input", input);
        let words: Vec<&str> = line.split_whitespace().collect();
        let input = fs::File::open(path).expect("the input was just written");
        self.tool_command(&words).stdin(input).output().expect("the binary starts")
    }

    /// `stats --json`.
    pub fn stats(&self) -> Value {
        serde_json::from_str(&self.ask("stats --json")).expect("stats --json prints JSON")
    }

    /// Every frame has ended once: the totals of `stats` agree.
    pub fn assert_balance(&self) {
        let stats = self.stats();
        let n = |name: &str| stats["totals"][name].as_u64().expect("a number of frames");
        let ends = n("tx") + n("to_host") + n("dropped") + n("held");
        assert_eq!(n("rx") + n("generated"), ends, "{}", stats["totals"]);
        let dropped: u64 =
            stats["drops"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
        assert_eq!(dropped, n("dropped"), "{}", stats["drops"]);
    }

    pub fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_dir_all(self.runtime());
    }
}

/// A gateway that runs.
pub struct Gateway {
    child: Child,
    lines: Receiver<String>,
    pub files: Files,
}

impl Gateway {
    /// Starts `run -c` on `gateway.toml` of the folder without waiting for `ready`.
    pub fn spawn(files: Files, namespace: Option<&Namespace>) -> Gateway {
        let mut command = match namespace {
            Some(namespace) => namespace.command(BINARY),
            None => Command::new(BINARY),
        };
        let stderr = fs::File::create(files.path("stderr")).expect("the folder can be written");
        command.env_remove("SLUICEGATE_SOCKET");
        command.arg("run").arg("-c").arg(files.path("gateway.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Gateway { child, lines, files }
    }

    /// Starts a gateway and waits for `ready`.
    pub fn start(files: Files, namespace: Option<&Namespace>) -> Gateway {
        let mut gateway = Gateway::spawn(files, namespace);
        assert_eq!(gateway.line(PATIENCE), "ready", "{}", gateway.files.stderr());
        gateway
    }

    /// The next line of standard output.
    pub fn line(&mut self, patience: Duration) -> String {
        match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no line on stdout within {patience:?}; stderr:\n{}", self.files.stderr())
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait();
                panic!("the gateway ended ({status:?}); stderr:\n{}", self.files.stderr())
            }
        }
    }

    /// Lines of standard output nobody asked for.
    pub fn other_lines(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("the gateway runs");
    }

    /// SIGHUP, and what the gateway says about it.
    pub fn reload(&mut self) -> String {
        self.signal(Signal::SIGHUP);
        self.line(PATIENCE)
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.end_by(Signal::SIGTERM)
    }

    pub fn end_by(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.wait_for_end()
    }

    /// The exit code, `None` after a signal.
    pub fn wait_for_end(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "no end within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A stop as it should be: exit 0 (which no gateway has whose workers needed long), nothing
    /// left, no complaint. How long the kernel takes to remove its interfaces is no matter here.
    pub fn stop_cleanly(&mut self) {
        let code = self.stop();
        let stderr = self.files.stderr();
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(self.files.leftovers(), Vec::<PathBuf>::new());
        assert!(!stderr.contains("error"), "{stderr}");
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // After a test that stopped it there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("stderr of the gateway:\n{}", self.files.stderr());
        }
    }
}

/// Waits until `done`, looking twenty times a second.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
